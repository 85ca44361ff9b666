"""The directory anchor: read-only copies of checkpoints on a file system of their own.

The default where there is no S3. It protects against accidents and against whoever can write the log but not this
directory; it locks nothing, and its receipts say so (`retain_until_ms` is None).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ledger.anchoring import KeptCopy, Protection
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import AnchorError, ConflictError, MalformedError, NotFoundError
from ledger.files import create_durably, log_directory
from ledger.merkle import RootHash
from ledger.ports import AnchorReceipt

__all__ = ["DirectoryAnchor"]

_WRITABLE: Final = 0o222
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class DirectoryAnchor:
    """`ledger.ports.Anchor` in a directory: ``<root>/<log id>/checkpoint/<size>``."""

    def __init__(self, root: Path) -> None:
        """Use a directory, which is created when first needed."""
        self._root = root

    def _path(self, log_id: str, size: int) -> Path:
        return self._folder(log_id) / str(size)

    def _folder(self, log_id: str) -> Path:
        return log_directory(self._root, log_id) / "checkpoint"

    def _receipt(self, path: Path) -> AnchorReceipt:
        return AnchorReceipt(
            size=int(path.name), location=f"file:{path}", anchored_ms=path.stat().st_mtime_ns // 1_000_000
        )

    def put(self, log_id: str, size: int, checkpoint: bytes) -> AnchorReceipt:
        """See `Anchor.put`."""
        path = self._path(log_id, size)
        try:
            try:
                create_durably(path, checkpoint, mode=0o444)
            except ConflictError:
                if _anchored_root(path) != parse_unverified_checkpoint(checkpoint).claim.root:
                    raise
            return self._receipt(path)
        except OSError as error:
            raise AnchorError(f"the anchor directory failed: {error.strerror}") from error

    def get(self, log_id: str, size: int) -> bytes:
        """See `Anchor.get`."""
        try:
            return self._path(log_id, size).read_bytes()
        except FileNotFoundError:
            raise NotFoundError(f"no checkpoint {size} of {log_id} is anchored") from None
        except OSError as error:
            raise AnchorError(f"the anchor directory failed: {error.strerror}") from error

    def sizes(self, log_id: str, *, above: int = -1) -> list[int]:
        """See `Anchor.sizes`."""
        try:
            names = [path.name for path in self._folder(log_id).iterdir()]
            return sorted(size for name in names if _SIZE.fullmatch(name) and (size := int(name)) > above)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise AnchorError(f"the anchor directory failed: {error.strerror}") from error

    def copies(self, log_id: str, *, above: int = -1) -> Iterator[KeptCopy]:
        """See `InspectableAnchor.copies`."""
        for size in self.sizes(log_id, above=above):
            path = self._path(log_id, size)
            try:
                mode = None if path.stat().st_mode & _WRITABLE else "read-only"
            except OSError as error:
                raise AnchorError(f"the anchor directory failed: {error.strerror}") from error
            yield KeptCopy(
                size=size, location=f"file:{path}", data=self.get(log_id, size), protection=Protection(mode=mode)
            )


def _anchored_root(path: Path) -> RootHash:
    try:
        return parse_unverified_checkpoint(path.read_bytes()).claim.root
    except MalformedError as error:
        raise AnchorError(f"what is anchored as checkpoint {path.name} is not a checkpoint") from error
