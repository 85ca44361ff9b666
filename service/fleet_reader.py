"""The fleet of one log as it is now: enrolments by the log's key records, heartbeats by its records, and contacts.

Heartbeats are read once, the last of each stream; from then on only those that are new. So a look costs what is new,
and everything but contacts can be had from the log alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

from ledger.bodies import Heartbeat
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.keyring import Keyring
from ledger.reader import EntryReader
from ledger.restrictions import NO_VERSION
from policies.bundle_lives import RecordedEvent, derive_state
from service.bundles import LogBundleHistory
from service.contacts import Contacts
from service.containments import Containments
from service.fleet import ActiveBundle, ActiveRestrictions, Beat, Fleet, assemble, judge
from service.key_records import KeyringReader
from service.version import VERSION

__all__ = ["FleetReader", "active_bundle"]

_IN_FORCE: Final = ("activated", "rolled_back")


def active_bundle(events: Sequence[RecordedEvent]) -> ActiveBundle:
    """Return which bundle is active by the steps that a log recorded, and since when."""
    since_ms = next((item.time_ms for item in reversed(events) if item.event.action in _IN_FORCE), None)
    return ActiveBundle(derive_state(events).active, since_ms)


class FleetReader:
    """Looks at the gateways of one log; safe for any thread."""

    def __init__(
        self,
        log_id: str,
        *,
        service_id: str,
        catalog: Catalog,
        reader: EntryReader,
        keyring: Keyring,
        key_records: KeyringReader,
        history: LogBundleHistory,
        contacts: Contacts,
        containments: Containments,
        clock: Clock,
    ) -> None:
        """Read one log.

        Args:
            log_id: Which.
            service_id: The service's own name among the enforcers, which is no gateway.
            catalog: Finds heartbeats.
            reader: Reads them.
            keyring: Who is enrolled, as far as ``key_records`` has read.
            key_records: Reads on.
            history: The steps of bundles.
            contacts: Who was heard of, and when.
            containments: What is stopped, and which gateway has it in force.
            clock: The service's.
        """
        self._log_id = log_id
        self._service_id = service_id
        self._catalog = catalog
        self._reader = reader
        self._keyring = keyring
        self._key_records = key_records
        self._history = history
        self._contacts = contacts
        self._containments = containments
        self._clock = clock
        self._lock = threading.Lock()
        # Under the lock: the last heartbeat of each enforcer, and the leaf up to which they were read.
        self._beats: dict[str, Beat] = {}
        self._read_to: int | None = None

    def look(self) -> Fleet:
        """Return how each gateway stands.

        Raises:
            StorageError: A store failed.
        """
        self._key_records.refresh()
        beats = self._read_beats()
        active = active_bundle(self._history.bundle_events(self._log_id))
        heard = self._contacts.all()
        restrictions = self._restrictions()
        acknowledged = self._containments.acknowledged()
        # Last: whatever is compared with it was before it.
        now_ms = self._clock.now_ms()
        members = (
            judge(
                enforcer_id,
                beat if (beat := beats.get(enforcer_id)) is not None and beat.leaf_index > since else None,
                heard_ms=heard.get(enforcer_id),
                active=active,
                version=VERSION,
                now_ms=now_ms,
                restrictions=restrictions,
                acknowledged=said.version if (said := acknowledged.get(enforcer_id)) is not None else None,
            )
            for enforcer_id, since in self._enrolled().items()
        )
        return assemble(members, active=active, version=VERSION, now_ms=now_ms, restrictions=restrictions)

    def _restrictions(self) -> ActiveRestrictions:
        current = self._containments.look().current
        if current.version == NO_VERSION:
            return ActiveRestrictions()
        since_ms = self._reader.record(current.version).time_ms
        return ActiveRestrictions(current.version, since_ms, len(current.restrictions))

    def _enrolled(self) -> dict[str, int]:
        """Return the enforcers that have a key which counts, with the leaf of its introduction."""
        enrolled: dict[str, int] = {}
        for key in tuple(self._keyring.keys):
            if key.purpose == "enforcer" and key.last_leaf is None and key.subject != self._service_id:
                enrolled.setdefault(key.subject, key.first_leaf)
        return enrolled

    def _read_beats(self) -> Mapping[str, Beat]:
        with self._lock:
            if self._read_to is None:
                indexes = sorted(self._catalog.last_of_type(self._log_id, "heartbeat"))
            else:
                indexes = self._catalog.of_type(self._log_id, "heartbeat", above=self._read_to)
            for index in indexes:
                record = self._reader.record(index)
                # The catalogue only finds; what a leaf is, the leaf says (invariant 3).
                if isinstance(record.body, Heartbeat):
                    self._beats[record.enforcer_id] = Beat(
                        leaf_index=index, time_ms=record.time_ms, epoch=record.epoch, body=record.body
                    )
            self._read_to = max([*indexes, -1 if self._read_to is None else self._read_to])
            return dict(self._beats)
