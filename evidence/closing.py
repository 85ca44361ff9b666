"""The closing of a period: from which leaf on nothing of it is outstanding.

Pure. Every enrolment that concerns the period must be done with it: one that began before its end, or in which a record
of before its end was written. It is done

* with a heartbeat at or beyond the end, if no record of before the end has a higher number in that epoch, or a later
  leaf in another one: a clock that was once ahead closes nothing; or
* where its last key was retired: nothing can come after that.

A stop does neither: an enforcer that stopped goes on when it is started again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ledger.bodies import Heartbeat
from ledger.enrolments import Enrolment
from ledger.records import Record

__all__ = ["Closing", "close"]


@dataclass(frozen=True, slots=True)
class Closing:
    """Where a period is closed.

    Attributes:
        leaf: The leaf from which on it is closed, or None while it is open.
        open_enforcers: Enforcers of which nothing shows that their records of the period have all been delivered.
    """

    leaf: int | None
    open_enforcers: tuple[str, ...]


@dataclass(slots=True)
class _Progress:
    """How far the records of one enrolment came."""

    enrolment: Enrolment
    heard: bool = False
    passed: int | None = None
    last_inside: dict[str, int] = field(default_factory=dict)
    """By epoch, the last leaf of a record of before the end."""

    def outstanding(self, leaf: int, epoch: str) -> bool:
        """Whether another epoch has a record of before the end behind a leaf."""
        return any(last > leaf for other, last in self.last_inside.items() if other != epoch)

    def done(self) -> int | None:
        """Return the leaf from which on nothing is outstanding, or None."""
        retired = self.enrolment.retired_leaf
        ends = [end for end in (self.passed, None if retired is None else retired + 1) if end is not None]
        return min(ends, default=None)


def close(records: Callable[[], Iterable[tuple[int, Record]]], enrolments: Sequence[Enrolment], end_ms: int) -> Closing:
    """Find where a period is closed.

    Args:
        records: Begins a walk over records with their leaves, in order.
        enrolments: Who could write when, those of one enforcer in order.
        end_ms: End of the period, POSIX milliseconds.
    """
    progress: defaultdict[str, list[_Progress]] = defaultdict(list)
    for enrolment in enrolments:
        progress[enrolment.enforcer_id].append(_Progress(enrolment))

    def written_in(leaf: int, record: Record) -> _Progress:
        of_one = progress[record.enforcer_id]
        return next((one for one in reversed(of_one) if one.enrolment.leaf <= leaf), of_one[0])

    last_seq: defaultdict[tuple[str, str], int] = defaultdict(int)
    for leaf, record in records():
        if record.time_ms < end_ms:
            one = written_in(leaf, record)
            one.heard = True
            one.last_inside[record.epoch] = leaf
            stream = (record.enforcer_id, record.epoch)
            last_seq[stream] = max(last_seq[stream], record.seq)
    for leaf, record in records():
        if record.time_ms < end_ms or not isinstance(record.body, Heartbeat):
            continue
        one = written_in(leaf, record)
        behind = record.seq < last_seq[record.enforcer_id, record.epoch] or one.outstanding(leaf, record.epoch)
        if one.passed is None and not behind:
            one.passed = leaf + 1
    concerned = [
        one for of_one in progress.values() for one in of_one if one.heard or one.enrolment.introduced_ms < end_ms
    ]
    ends = [one.done() for one in concerned]
    still_open = {one.enrolment.enforcer_id for one, end in zip(concerned, ends, strict=True) if end is None}
    closed = [end for end in ends if end is not None]
    return Closing(max(closed) if closed and not still_open else None, tuple(sorted(still_open)))
