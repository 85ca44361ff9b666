"""Legal holds: which are in force, and what they cover.

Pure. What is in force follows from the log's hold records alone, read in the order of the log; no table says so. A hold
is released by two people: one asks, another one confirms, both under one pseudonym key. A record that says otherwise
releases nothing, whoever wrote it, and every auditor with the log can see as much.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from ledger.bodies import HoldEvent
from ledger.errors import ConflictError, MalformedError, NotFoundError
from ledger.records import Record
from ledger.subjects import subjects_of

__all__ = ["Hold", "HoldBook", "check_hold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A hold that is in force.

    Attributes:
        hold_id: Its id.
        placed_leaf: Leaf index of the record that placed it.
        placed_ms: When, POSIX milliseconds.
        placed_by: Pseudonym of whoever placed it.
        subject: Covers payloads about this subject, if given.
        also: And about these, which are the same person under other pseudonym keys.
        session: Covers payloads of this session, if given.
        from_ms: Covers records from this time on, if given.
        to_ms: Covers records before this time, if given.
        requested_by: Pseudonym of whoever asked for its release, or None.
        requested_key: Which key made that pseudonym.
    """

    hold_id: str
    placed_leaf: int
    placed_ms: int
    placed_by: str
    subject: str | None = None
    also: tuple[str, ...] = ()
    session: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    requested_by: str | None = None
    requested_key: str | None = None

    def asked_under(self, key_id: str | None) -> bool:
        """Whether its release was asked for under this pseudonym key: under another one the same person has another."""
        return self.requested_by is not None and self.requested_key == key_id

    @property
    def subjects(self) -> frozenset[str]:
        """Every pseudonym of the subject; none if none is given."""
        return frozenset() if self.subject is None else frozenset({self.subject, *self.also})

    def covers(self, record: Record) -> bool:
        """Whether the payloads of a record are held: everything that the hold names must fit."""
        found = set(subjects_of(record))
        return (
            (self.subject is None or not found.isdisjoint(self.subjects))
            and (self.session is None or self.session in found)
            and (self.from_ms is None or record.time_ms >= self.from_ms)
            and (self.to_ms is None or record.time_ms < self.to_ms)
        )


def check_hold(event: HoldEvent) -> None:
    """Check that a hold that is to be placed names something.

    Raises:
        MalformedError: It names neither a subject, a session nor a period, or a period that ends before it begins.
    """
    if (event.subject, event.session, event.from_ms, event.to_ms) == (None, None, None, None):
        raise MalformedError("a hold names a subject, a session or a period")
    if event.from_ms is not None and event.to_ms is not None and event.to_ms <= event.from_ms:
        raise MalformedError("the period of a hold ends before it begins")


class HoldBook:
    """The holds in force, read from the log's records in order."""

    def __init__(self, records: Iterable[tuple[int, Record]] = ()) -> None:
        """Read records with their leaf indexes."""
        self._holds: dict[str, Hold] = {}
        self._known: set[str] = set()
        self._unbroken_since: int | None = None
        for index, record in records:
            self.take(index, record)

    @property
    def in_force(self) -> list[Hold]:
        """The holds, oldest first."""
        return sorted(self._holds.values(), key=lambda hold: hold.placed_leaf)

    @property
    def ever(self) -> bool:
        """Whether a hold was ever placed."""
        return bool(self._known)

    @property
    def unbroken_since(self) -> int | None:
        """The leaf from which on there was a hold in force at every moment; None if there is none now."""
        return self._unbroken_since

    def get(self, hold_id: str) -> Hold:
        """Return a hold that is in force.

        Raises:
            NotFoundError: There is none of that id.
        """
        try:
            return self._holds[hold_id]
        except KeyError:
            raise NotFoundError(f"there is no hold {hold_id} in force") from None

    def covering(self, record: Record) -> list[Hold]:
        """Return the holds that keep a record's payloads."""
        return [hold for hold in self.in_force if hold.covers(record)]

    def of_subject(self, subject: str) -> list[Hold]:
        """Return the holds that name a subject, or a session, themselves."""
        return [hold for hold in self.in_force if subject in hold.subjects | {hold.session}]

    def take(self, index: int, record: Record) -> None:
        """Read one record; what is no step that may be taken changes nothing."""
        event = record.body
        if not isinstance(event, HoldEvent):
            return
        if event.action == "placed":
            self._place(index, record, event)
            return
        hold = self._holds.get(event.hold_id)
        if hold is None:
            return
        key_id = record.pseudonym_key_id
        if event.action == "release_requested":
            if not hold.asked_under(key_id):
                self._holds[hold.hold_id] = replace(hold, requested_by=event.actor, requested_key=key_id)
        # INVARIANT: a hold ends with the word of two. Who asked for its release cannot also confirm it, nor under the
        # pseudonym that another key gives him.
        elif hold.asked_under(key_id) and hold.requested_by != event.actor:
            del self._holds[hold.hold_id]
            if not self._holds:
                self._unbroken_since = None

    def _place(self, index: int, record: Record, event: HoldEvent) -> None:
        # An id is used once: a second hold of the same id would hide the first, or bring back what was released.
        if event.hold_id in self._known:
            return
        self._known.add(event.hold_id)
        if self._unbroken_since is None:
            self._unbroken_since = index
        self._holds[event.hold_id] = Hold(
            hold_id=event.hold_id,
            placed_leaf=index,
            placed_ms=record.time_ms,
            placed_by=event.actor,
            subject=event.subject,
            also=event.also,
            session=event.session,
            from_ms=event.from_ms,
            to_ms=event.to_ms,
        )

    def next_step(self, hold_id: str, actor: str, key_id: str | None, also: Collection[str] = ()) -> str:
        """Return the action by which ``actor`` brings a hold's release forward.

        Args:
            hold_id: Which hold.
            actor: His pseudonym.
            key_id: Which key made it.
            also: What else he is called.

        Raises:
            NotFoundError: There is no such hold in force.
            ConflictError: It is for somebody else to confirm.
        """
        hold = self.get(hold_id)
        if not hold.asked_under(key_id):
            return "release_requested"
        if hold.requested_by == actor or hold.requested_by in also:
            raise ConflictError(f"the release of hold {hold_id} is for somebody else to confirm")
        return "released"
