"""Copies of trusted timestamps beside the anchored checkpoints: create-only, and locked where the anchor locks.

::

    <root>/<log id>/timestamp/<size>.checkpoint     the bytes that are dated
    <root>/<log id>/timestamp/<size>.tsr            the authority's whole answer

In S3 sizes have twenty digits. The dated bytes lie beside the token, because the anchored checkpoint of that size may
have been made before a cosignature came.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ledger.clock import Clock
from ledger.errors import AnchorError, ConfigError
from ledger.files import check_log_id, create_durably, log_directory
from ledger.ports import KeptTimestamp
from ledger.s3 import S3Bucket

__all__ = ["DirectoryTimestampCopies", "S3TimestampCopies"]

_CHECKPOINT_TYPE: Final = "text/plain; charset=utf-8"
_REPLY_TYPE: Final = "application/timestamp-reply"
_DAY_MS: Final = 86_400_000


class DirectoryTimestampCopies:
    """`ledger.ports.TimestampArchive` in a directory."""

    def __init__(self, root: Path) -> None:
        """Use the directory of a directory anchor."""
        self._root = root

    def copy(self, log_id: str, timestamp: KeptTimestamp) -> None:
        """See `TimestampArchive.copy`."""
        folder = log_directory(self._root, log_id) / "timestamp"
        try:
            create_durably(folder / f"{timestamp.size}.checkpoint", timestamp.checkpoint, mode=0o444)
            create_durably(folder / f"{timestamp.size}.tsr", timestamp.token, mode=0o444)
        except OSError as error:
            raise AnchorError(f"the anchor directory failed: {error.strerror}") from error


class S3TimestampCopies:
    """`ledger.ports.TimestampArchive` in an S3 bucket with Object Lock."""

    def __init__(self, bucket: S3Bucket, prefix: str, *, retention_days: int, clock: Clock) -> None:
        """Copy into the bucket of an S3 anchor.

        Args:
            bucket: A bucket that was created with Object Lock.
            prefix: What stands before every key; empty, or ending in ``/``.
            retention_days: How long each copy is locked.
            clock: For the retain-until date.

        Raises:
            ConfigError: No retention was decided.
        """
        if retention_days < 1:
            raise ConfigError("Object Lock needs a retention of at least one day")
        self._bucket = bucket
        self._prefix = prefix
        self._retention_ms = retention_days * _DAY_MS
        self._clock = clock

    def copy(self, log_id: str, timestamp: KeptTimestamp) -> None:
        """See `TimestampArchive.copy`."""
        name = f"{self._prefix}{check_log_id(log_id)}/timestamp/{timestamp.size:020d}"
        self._create(f"{name}.checkpoint", timestamp.checkpoint, _CHECKPOINT_TYPE)
        self._create(f"{name}.tsr", timestamp.token, _REPLY_TYPE)

    def _create(self, key: str, data: bytes, content_type: str) -> None:
        until = self._clock.now_ms() + self._retention_ms
        self._bucket.create(key, data, content_type=content_type, lock_until_ms=until)
        # Whoever wrote it, and whatever came over it later: the first version must be the one that is kept here.
        if self._bucket.read(key, self._bucket.first_version(key).version).data != data:
            raise AnchorError(f"the anchor bucket holds other bytes at {key}")
