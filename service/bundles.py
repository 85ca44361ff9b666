"""What the registry of bundles (`policies.registry`) needs of a service: the log's own bundle records, and who acts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ledger.bodies import BundleEvent
from ledger.catalog import Catalog
from ledger.commitments import pseudonym
from ledger.reader import EntryReader
from policies.bundle_lives import Actor, RecordedEvent
from service.auth import Caller
from service.keyset import KeySet

__all__ = ["LogBundleHistory", "actor_of", "service_actor"]

_ROLE: Final = "service"


class LogBundleHistory:
    """`policies.bundle_ports.BundleHistory` over a log; safe for any thread."""

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
                found.append(RecordedEvent(index, record.time_ms, record.body, record.pseudonym_key_id))
        return found


def actor_of(caller: Caller, keys: KeySet) -> Actor:
    """Return a caller as the record of a step on bundles names him."""
    return Actor(pseudonym(keys.pseudonym.seed, "actor", caller.name), caller.role.value, keys.pseudonym_key_id)


def service_actor(service_id: str, keys: KeySet) -> Actor:
    """Return the service itself, for what it does by itself."""
    return Actor(pseudonym(keys.pseudonym.seed, "actor", service_id), _ROLE, keys.pseudonym_key_id)
