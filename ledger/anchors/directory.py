"""The directory anchor: read-only copies of checkpoints on a file system of their own.

The default where there is no S3. It protects against accidents and against whoever can write the log but not this
directory; it locks nothing, and its receipts say so (`retain_until_ms` is None).
"""

from __future__ import annotations

from pathlib import Path

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import AnchorError, ConflictError, NotFoundError
from ledger.files import create_durably
from ledger.ports import AnchorReceipt

__all__ = ["DirectoryAnchor"]


class DirectoryAnchor:
    """`ledger.ports.Anchor` in a directory: ``<root>/<log id>/checkpoint/<size>``."""

    def __init__(self, root: Path) -> None:
        """Use a directory, which is created when first needed."""
        self._root = root

    def _path(self, log_id: str, size: int) -> Path:
        return self._root / log_id / "checkpoint" / str(size)

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
                present = parse_unverified_checkpoint(path.read_bytes()).claim
                if present.root != parse_unverified_checkpoint(checkpoint).claim.root:
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

    def latest(self, log_id: str) -> AnchorReceipt | None:
        """See `Anchor.latest`."""
        try:
            sizes = [path for path in (self._root / log_id / "checkpoint").glob("*") if path.name.isdecimal()]
            return self._receipt(max(sizes, key=lambda path: int(path.name))) if sizes else None
        except OSError as error:
            raise AnchorError(f"the anchor directory failed: {error.strerror}") from error
