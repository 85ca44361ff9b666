"""What the registry of bundles (`policies.registry`) needs of a service: the log's own bundle records, and who acts."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ledger.bodies import BundleEvent
from ledger.catalog import Catalog
from ledger.commitments import pseudonym
from ledger.reader import EntryReader
from ledger.records import Record
from policies.bundle_lives import Actor, RecordedEvent
from policies.bundles import Bundle
from policies.opa_archive import opa_archive
from service.auth import Caller
from service.keyset import KeySet

__all__ = ["LogBundleHistory", "OPAArchives", "actor_of", "service_actor"]

_ROLE: Final = "service"
_KEPT_ARCHIVES: Final = 4


class LogBundleHistory:
    """`policies.bundle_ports.BundleHistory` over a log; safe for any thread."""

    def __init__(self, catalog: Catalog, reader: EntryReader, check: Callable[[int, Record], None]) -> None:
        """Find records by the catalogue and read them from the log; ``check`` raises unless the service signed one."""
        self._catalog = catalog
        self._reader = reader
        self._check = check
        self._lock = threading.Lock()
        # Under the lock: what was read, by log, and the last leaf that was looked at. Entries never change, and those
        # behind a leaf have greater indexes, so that only what is new is read.
        self._read: dict[str, tuple[int, tuple[RecordedEvent, ...]]] = {}

    def bundle_events(self, log_id: str) -> Sequence[RecordedEvent]:
        """See `BundleHistory.bundle_events`."""
        with self._lock:
            last, events = self._read.get(log_id, (-1, ()))
            indexes = self._catalog.of_type(log_id, "bundle", above=last)
            if indexes:
                events += tuple(self._events(indexes))
                self._read[log_id] = (indexes[-1], events)
            return events

    def _events(self, indexes: Sequence[int]) -> Iterator[RecordedEvent]:
        for index in indexes:
            record = self._reader.record(index)
            # The catalogue only finds; what a leaf is, the leaf says (invariant 3).
            if isinstance(record.body, BundleEvent):
                # INVARIANT: nobody but the service says who reviewed or activated what, whoever could write the table.
                self._check(index, record)
                yield RecordedEvent(index, record.time_ms, record.body, record.pseudonym_key_id)


class OPAArchives:
    """Bundles as a stock OPA loads them; the latest are kept. Methods belong to one event loop."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._made: OrderedDict[str, bytes] = OrderedDict()

    async def archive(self, bundle: Bundle) -> bytes:
        """Return a published bundle's ``tar.gz``."""
        made = self._made.pop(bundle.revision, b"") or await asyncio.to_thread(opa_archive, bundle)
        self._made[bundle.revision] = made
        while len(self._made) > _KEPT_ARCHIVES:
            self._made.popitem(last=False)
        return made


def actor_of(caller: Caller, keys: KeySet) -> Actor:
    """Return a caller as the record of a step on bundles names him."""
    return Actor(pseudonym(keys.pseudonym.seed, "actor", caller.actor), caller.role.value, keys.pseudonym_key_id)


def service_actor(service_id: str, keys: KeySet) -> Actor:
    """Return the service itself, for what it does by itself."""
    return Actor(pseudonym(keys.pseudonym.seed, "actor", service_id), _ROLE, keys.pseudonym_key_id)
