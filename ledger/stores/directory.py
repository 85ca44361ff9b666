"""The tile store as a directory that any static file server can serve as a C2SP tlog-tiles log.

::

    <root>/<log id>/checkpoint
    <root>/<log id>/tile/0/000.p/17
    <root>/<log id>/tile/entries/000.p/17
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import ConflictError, NotFoundError, StorageError
from ledger.files import create_durably, log_directory, make_directory_durably, replace_durably
from ledger.tiles import CHECKPOINT_PATH, TileCoordinate, parse_hash_tile_path, parse_tile_path

__all__ = ["DirectoryTileStore"]

_LOCK_SECONDS = 10.0
_LOCK_RETRY_SECONDS: Final = 0.01
_PARTIAL_FOLDER: Final = re.compile(r"([0-9]{3})\.p")
_PARTIAL_OR_ITS_TEMPORARY: Final = re.compile(r"[1-9][0-9]{0,2}|\.[1-9][0-9]{0,2}\.[0-9a-f]{16}\.tmp")


@contextmanager
def _translated(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"the log directory failed to {action}: {error.strerror}") from error


def _lock(descriptor: int) -> None:
    """Lock a file, but wait for no process that was paused while it had the lock.

    Raises:
        StorageError: Somebody else has it for longer than an exposure takes.
    """
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise StorageError("another process is exposing a checkpoint, and does not come to an end") from error
            time.sleep(_LOCK_RETRY_SECONDS)
        else:
            return


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


class DirectoryTileStore:
    """`ledger.ports.TileStore` and `PartialStore` in a directory; safe for any thread and process on one machine."""

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

    def repair(self, log_id: str, path: str, data: bytes) -> None:
        """See `ledger.rebuild.RepairableTiles.repair`."""
        # INVARIANT 3: what cannot be derived from anything, entries and checkpoints, is never put right by anybody.
        parse_hash_tile_path(path)
        target = self._path(log_id, path)
        with _translated("put a tile right"):
            replace_durably(target, data)

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
            _lock(descriptor)
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

    def _partials(self, log_id: str, level: int, number: int) -> Path:
        full = self._path(log_id, TileCoordinate(level, number).path)
        return full.with_name(f"{full.name}.p")

    def partial_tiles(self, log_id: str, level: int, group: int) -> list[int]:
        """See `PartialStore.partial_tiles`."""
        folder = self._partials(log_id, level, group * 1000).parent
        with _translated("list tiles"):
            matches = (_PARTIAL_FOLDER.fullmatch(name) for name in _names(folder))
        return sorted(group * 1000 + int(match[1]) for match in matches if match)

    def partial_widths(self, log_id: str, level: int, number: int) -> list[int]:
        """See `PartialStore.partial_widths`."""
        with _translated("list partial tiles"):
            names = _names(self._partials(log_id, level, number))
        return sorted(int(name) for name in names if name.isdecimal())

    def discard_partials(self, log_id: str, level: int, number: int) -> None:
        """See `PartialStore.discard_partials`. What was left half written beside them goes with them."""
        folder = self._partials(log_id, level, number)
        with _translated("collect partial tiles"):
            for name in _names(folder):
                if _PARTIAL_OR_ITS_TEMPORARY.fullmatch(name):
                    (folder / name).unlink(missing_ok=True)
            # Something that is not ours keeps its directory.
            with suppress(OSError):
                folder.rmdir()

    def discard_superseded(self, log_id: str) -> None:
        """See `PartialStore.discard_superseded`; a directory keeps nothing of what a checkpoint was before."""
