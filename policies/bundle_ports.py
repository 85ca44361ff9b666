"""What the registry of bundles needs from outside: where archives are kept, and where recorded events are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from policies.bundle_lives import RecordedEvent

__all__ = ["BundleHistory", "BundleStore"]


class BundleStore(Protocol):
    """Where archives of bundles are kept; synchronous, safe for any thread, called off the event loop."""

    def put(self, log_id: str, revision: str, archive: bytes) -> None:
        """Keep an archive.

        Durability: synced when the call returns. Idempotence: the same bytes again are success. Nothing is ever
        replaced.

        Raises:
            ConflictError: Other bytes stand under that revision.
            StorageError: The store failed; the archive may or may not be there.
        """
        ...

    def get(self, log_id: str, revision: str) -> bytes:
        """Return an archive's bytes.

        Raises:
            UnknownBundleError: None of that revision.
            StorageError: The store failed.
        """
        ...


class BundleHistory(Protocol):
    """Where the recorded bundle events are read; synchronous, safe for any thread, called off the event loop."""

    def bundle_events(self, log_id: str) -> Sequence[RecordedEvent]:
        """Return every bundle event of a log, in log order, those just acknowledged included.

        Raises:
            StorageError: The store failed.
        """
        ...
