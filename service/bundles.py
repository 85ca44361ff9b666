"""The bundle history that `policies.registry` derives its state from: the log's own bundle records."""

from __future__ import annotations

from collections.abc import Sequence

from ledger.bodies import BundleEvent
from ledger.catalog import Catalog
from ledger.reader import EntryReader
from policies.registry import RecordedEvent

__all__ = ["LogBundleHistory"]


class LogBundleHistory:
    """`policies.registry.BundleHistory` over a log; safe for any thread."""

    def __init__(self, catalog: Catalog, reader: EntryReader) -> None:
        """Find records by the catalogue and read them from the log."""
        self._catalog = catalog
        self._reader = reader

    def bundle_events(self, log_id: str) -> Sequence[RecordedEvent]:
        """See `BundleHistory.bundle_events`."""
        found = []
        for index in self._catalog.of_type(log_id, "bundle"):
            record = self._reader.record(index)
            # The catalogue only finds; what a leaf is, the leaf says (invariant 3).
            if isinstance(record.body, BundleEvent):
                found.append(RecordedEvent(index, record.time_ms, record.body))
        return found
