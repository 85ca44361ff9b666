"""Whom a payload is about, and until when it may be read: the names of the keys that seal it.

Pure. A payload is sealed under the keys of *all* subjects that its record names, and under the key of its *bucket*:
record type and UTC day. Destroying any one of them destroys the payload, so that

* whoever is erased takes along what is also about others, and
* what has expired is gone for everybody, by destroying one key for each type and day.

All of it follows from the leaf. A store that named another subject or another day could pass off as lawfully erased
what somebody made unreadable on the quiet.

Invariant 6 of architecture.md; docs/adr/0016 and 0017.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from ledger.bodies import (
    AccessEvent,
    Approval,
    BundleEvent,
    Containment,
    Decision,
    ErasureEvent,
    HoldEvent,
    ModeEvent,
    OPADecision,
    Outcome,
    RetentionEvent,
    SessionEnd,
    Tombstone,
)
from ledger.bodies_discovery import DiscoveryEvent
from ledger.bodies_drift import BaselineEvent, Drift
from ledger.bodies_inventory import InventoryEvent
from ledger.bodies_tools import ToolEvent
from ledger.errors import MalformedError
from ledger.records import Record, record_type

__all__ = ["DAY_MS", "Bucket", "bucket_of", "first_subject_of", "subjects_of"]

DAY_MS: Final = 86_400_000
_LABEL: Final = b"tallystick/retention-bucket/v1\n"
_MAX_NAME_CHARS: Final = 64
_LAST_DAY: Final = date.max.toordinal() - date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """Payloads of one record type and day: they expire together.

    Attributes:
        record_type: Such as ``decision``.
        day: UTC day of the records' own time.
        held: Those that a legal hold keeps when the others expire.
    """

    record_type: str
    day: date
    held: bool = False

    @property
    def name(self) -> str:
        """How the bucket's key is called: ``decision.2026-10-05``, or ``decision.2026-10-05.held``."""
        return f"{self.record_type}.{self.day.isoformat()}{'.held' if self.held else ''}"

    @property
    def subject(self) -> str:
        """What a tombstone calls the bucket: 32 hexadecimal digits, as for any subject."""
        return hashlib.sha256(_LABEL + self.name.encode()).hexdigest()[:32]

    @property
    def start_ms(self) -> int:
        """The day's beginning, POSIX milliseconds."""
        return (self.day - date(1970, 1, 1)).days * DAY_MS

    @property
    def end_ms(self) -> int:
        """The day's end, exclusive."""
        return self.start_ms + DAY_MS

    def with_held(self, *, held: bool) -> Bucket:
        """Return the bucket of the same type and day for what is held, or is not."""
        return Bucket(self.record_type, self.day, held)

    @classmethod
    def parse(cls, name: str) -> Bucket:
        """Read a bucket's name; the inverse of `name`.

        Raises:
            MalformedError: It is none.
        """
        kind, _, rest = name.partition(".")
        text, _, mark = rest.partition(".")
        try:
            bucket = cls(kind, date.fromisoformat(text), mark == "held")
        except ValueError:
            raise MalformedError(f"not the name of a bucket: {name!r}") from None
        if bucket.name != name:
            raise MalformedError(f"not the name of a bucket: {name!r}")
        return bucket


def bucket_of(record: Record, *, held: bool = False) -> Bucket:
    """Return the bucket that a record's payloads expire with; a time beyond the calendar counts as its last day."""
    return _bucket(record_type(record), min(record.time_ms // DAY_MS, _LAST_DAY), held)


@lru_cache(maxsize=64)
def _bucket(kind: str, days: int, held: bool) -> Bucket:  # noqa: FBT001  # a key of the cache
    return Bucket(kind, date(1970, 1, 1) + timedelta(days=days), held)


_ACTORS_OWN: Final = (
    BundleEvent,
    AccessEvent,
    Tombstone,
    ErasureEvent,
    RetentionEvent,
    Approval,
    ModeEvent,
    BaselineEvent,
    Drift,
    DiscoveryEvent,
)
"""Whose payloads are their author's alone."""


def _named(record: Record) -> tuple[str | None, ...]:
    body = record.body
    if isinstance(body, Decision | Outcome | SessionEnd | OPADecision):
        return (body.user, body.session)
    if isinstance(body, HoldEvent):
        return (body.subject, body.session, body.actor)
    if isinstance(body, Containment):
        return (body.session, body.actor)
    # What says that a subject was erased, and why, must outlive the subject's keys: it is its author's alone.
    if isinstance(body, _ACTORS_OWN):
        return (body.actor,)
    if isinstance(body, InventoryEvent | ToolEvent):
        return (body.actor,)
    return ()


def subjects_of(record: Record) -> tuple[str, ...]:
    """Return every subject that a record's payloads are about; the enforcer stands in where there is none.

    The user comes first, then the session, then whoever acted. An address is none: it is shared by many and held by
    nobody for long; whoever wants it forgotten is erased as a user or by session.
    """
    found = tuple(dict.fromkeys(subject for subject in _named(record) if subject is not None))
    return found or (f"enforcer-{record.enforcer_id}"[:_MAX_NAME_CHARS],)


def first_subject_of(record: Record) -> str:
    """Return whose key alone sealed a record's payloads in version 0.1."""
    body = record.body
    if isinstance(body, Tombstone):
        return body.subject
    return subjects_of(record)[0]
