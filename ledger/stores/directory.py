"""The tile store as a directory that any static file server can serve as a C2SP tlog-tiles log.

::

    <root>/<log id>/checkpoint
    <root>/<log id>/tile/0/000.p/17
    <root>/<log id>/tile/entries/000.p/17
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import ConflictError, NotFoundError, StorageError
from ledger.files import create_durably, log_directory, make_directory_durably, replace_durably
from ledger.tiles import CHECKPOINT_PATH, parse_tile_path

__all__ = ["DirectoryTileStore"]


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"the log directory failed to {action}: {error.strerror}") from error


class DirectoryTileStore:
    """`ledger.ports.TileStore` in a directory; safe for any thread and process on one machine."""

    def __init__(self, root: Path) -> None:
        """Use a directory, which is created when first needed."""
        self._root = root

    def _path(self, log_id: str, path: str) -> Path:
        # INVARIANT: no path leaves the log's directory: it is a tile's one spelling or the word "checkpoint".
        if path != CHECKPOINT_PATH:
            parse_tile_path(path)
        return log_directory(self._root, log_id) / path

    def put(self, log_id: str, path: str, data: bytes) -> None:
        """See `TileStore.put`."""
        # INVARIANT 2: the checkpoint is exposed, and moves forward only; it is never put.
        parse_tile_path(path)
        target = self._path(log_id, path)
        with _translated("write a tile"):
            create_durably(target, data)

    def get(self, log_id: str, path: str) -> bytes:
        """See `TileStore.get`."""
        target = self._path(log_id, path)
        with _translated("read a tile"):
            try:
                return target.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                raise NotFoundError(f"there is no {path} of {log_id}") from None

    @contextmanager
    def _exposing(self, log_id: str) -> Iterator[None]:
        make_directory_durably(self._root)
        # Beside the log's directory, which holds nothing but what tlog-tiles names.
        descriptor = os.open(self._root / f".{log_id}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def expose(self, log_id: str, checkpoint: bytes) -> None:
        """See `TileStore.expose`."""
        target = self._path(log_id, CHECKPOINT_PATH)
        claim = parse_unverified_checkpoint(checkpoint).claim
        with _translated("expose a checkpoint"), self._exposing(log_id):
            if target.exists():
                present = parse_unverified_checkpoint(target.read_bytes()).claim
                if present.size > claim.size:
                    return
                # INVARIANT 2: two roots for one size are never both exposed.
                if present.size == claim.size and present.root != claim.root:
                    raise ConflictError(f"the exposed checkpoint {claim.size} of {log_id} has another root")
            replace_durably(target, checkpoint)
