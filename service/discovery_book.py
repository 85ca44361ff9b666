"""What scans have found, as the records of a log tell it: each server with its sightings, and what people said of it.

Pure. Nothing of it is stored by itself. A scanner's word is a stranger's: it hands in through the service, under its
own name, what it saw and how that stands by the list that it was given.

INVARIANT: that a scanner's list has a server settles nothing unless a gateway's list has it under that name; it stands
open until one has, or a person dismissed it with a reason.

INVARIANT: a dismissal is of what was seen by then. What stands otherwise later (a client goes to it now, it is in other
hands) is open again, by itself.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from ledger.bodies_discovery import DiscoveryEvent
from ledger.errors import ConflictError, NotFoundError
from ledger.records import Record

__all__ = ["DiscoveredServer", "DiscoveryBook", "DiscoveryKey", "DiscoveryState", "DiscoveryStep", "Scanned", "key_of"]

DiscoveryState: TypeAlias = Literal["open", "dismissed", "settled"]
DiscoveryKey: TypeAlias = tuple[str, str | None, str | None]
"""Pseudonym of the place, client, and pseudonym of the file that configures it."""

_Kind: TypeAlias = tuple[str | None, str | None, str | None, str | None, bool, bool]
_MAX_SCANS: Final = 100
_MAX_STEPS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryStep:
    """A record about a server.

    Attributes:
        event: What it says.
        leaf: Where it stands.
        record_id: Its id.
        time_ms: When it was recorded, POSIX milliseconds.
    """

    event: DiscoveryEvent
    leaf: int
    record_id: str
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A scan that was handed in.

    Attributes:
        scan_id: Its record's id.
        event: What it says.
        leaf: Where it stands.
        time_ms: When it was recorded.
    """

    scan_id: str
    event: DiscoveryEvent
    leaf: int
    time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveredServer:
    """A server that some scan found.

    Attributes:
        discovery_id: Record id of its first sighting.
        latest: Its latest sighting.
        first_leaf: Where its first sighting stands.
        first_ms: When that was recorded.
        sightings: How many there are.
        kinds: In which ways it was seen: standing, source, transport, name in the list.
        dismissal: A person's word that it is in order, while that holds.
        steps: The latest records about it, oldest first.
    """

    discovery_id: str
    latest: DiscoveryStep
    first_leaf: int
    first_ms: int
    sightings: int
    kinds: frozenset[_Kind]
    dismissal: DiscoveryStep | None
    steps: tuple[DiscoveryStep, ...]

    @property
    def settled_by(self) -> str | None:
        """Name under which the scanner's list has it, where it is neither shadow nor gone to past the gateways."""
        event = self.latest.event
        return event.server if event.standing == "registered" else None

    def state(self, registered: Collection[str]) -> DiscoveryState:
        """Return how it stands.

        Args:
            registered: Servers that some gateway's list has now.
        """
        if self.latest.event.standing == "gateway" or self.settled_by in registered:
            return "settled"
        return "open" if self.dismissal is None else "dismissed"


def key_of(event: DiscoveryEvent) -> DiscoveryKey | None:
    """Return by what a sighting's server is known again; None if it says of no place."""
    return None if event.place is None else (event.place, event.client, event.holder)


def _kind(event: DiscoveryEvent) -> _Kind:
    return (event.standing, event.source, event.transport, event.server, event.disabled, event.needs_token)


class DiscoveryBook:
    """What the records say, taken in log order."""

    def __init__(self, service_id: str) -> None:
        """Begin with nothing.

        Args:
            service_id: The service's own enforcer id: it alone records discoveries.
        """
        self._service_id = service_id
        self._servers: dict[str, DiscoveredServer] = {}
        self._by_key: dict[DiscoveryKey, str] = {}
        self._scans: list[Scanned] = []

    def take(self, leaf: int, record: Record) -> None:
        """Take in a record; one that is no discovery, or by somebody who may not record one, changes nothing."""
        event = record.body
        if not isinstance(event, DiscoveryEvent) or record.enforcer_id != self._service_id:
            return
        if event.action == "scanned":
            scan = Scanned(scan_id=record.record_id, event=event, leaf=leaf, time_ms=record.time_ms)
            self._scans = [*self._scans, scan][-_MAX_SCANS:]
            return
        step = DiscoveryStep(event=event, leaf=leaf, record_id=record.record_id, time_ms=record.time_ms)
        if event.action in ("found", "seen"):
            self._see(step)
        elif event.discovery_id in self._servers:
            self._hear(event.discovery_id, step)

    def _see(self, step: DiscoveryStep) -> None:
        event, key = step.event, key_of(step.event)
        if key is None or event.discovery_id is None:
            return
        # Two processes may have recorded one place at once, each as the first: the earlier leaf counts. A later key's
        # pseudonym of a place that is known stands under the same id.
        discovery_id = self._by_key.setdefault(key, event.discovery_id)
        known = self._servers.get(discovery_id)
        if known is None:
            self._servers[discovery_id] = DiscoveredServer(
                discovery_id=discovery_id,
                latest=step,
                first_leaf=step.leaf,
                first_ms=step.time_ms,
                sightings=1,
                kinds=frozenset({_kind(event)}),
                dismissal=None,
                steps=(step,),
            )
            return
        self._servers[discovery_id] = replace(
            known,
            latest=step,
            sightings=known.sightings + 1,
            kinds=known.kinds | {_kind(event)},
            dismissal=known.dismissal if _kind(event) in known.kinds else None,
            steps=(*known.steps, step)[-_MAX_STEPS:],
        )

    def _hear(self, discovery_id: str, step: DiscoveryStep) -> None:
        known = self._servers[discovery_id]
        self._servers[discovery_id] = replace(
            known,
            dismissal=step if step.event.action == "dismissed" else None,
            steps=(*known.steps, step)[-_MAX_STEPS:],
        )

    @property
    def scans(self) -> tuple[Scanned, ...]:
        """The latest scans, the newest first."""
        return tuple(reversed(self._scans))

    @property
    def servers(self) -> tuple[DiscoveredServer, ...]:
        """Every server that was found, the one that was found last first."""
        return tuple(sorted(self._servers.values(), key=lambda one: -one.first_leaf))

    def known(self, keys: Collection[DiscoveryKey]) -> DiscoveredServer | None:
        """Return the server that goes under one of these keys: what one place is called by each pseudonym key."""
        found = (self._by_key.get(key) for key in keys)
        return next((self._servers[one] for one in found if one is not None), None)

    def is_new(self, keys: Collection[DiscoveryKey], event: DiscoveryEvent) -> bool:
        """Return whether a server stands otherwise than it was seen last, or was never seen."""
        known = self.known(keys)
        return known is None or _kind(event) != _kind(known.latest.event)

    def get(self, discovery_id: str) -> DiscoveredServer:
        """Return a server.

        Raises:
            NotFoundError: There is none of that id.
        """
        found = self._servers.get(discovery_id)
        if found is None:
            raise NotFoundError(f"no scan has found a server {discovery_id}")
        return found

    def speakable(
        self, discovery_id: str, action: Literal["dismissed", "reopened"], registered: Collection[str]
    ) -> DiscoveredServer:
        """Return a server of which a person may say something.

        Args:
            discovery_id: Which.
            action: What.
            registered: Servers that some gateway's list has now.

        Raises:
            NotFoundError: There is none of that id.
            ConflictError: It stands so already, or nothing need be said of it.
        """
        found = self.get(discovery_id)
        state = found.state(registered)
        if state != ("open" if action == "dismissed" else "dismissed"):
            raise ConflictError(f"that server is {state}: it cannot be {action}")
        return found
