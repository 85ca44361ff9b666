"""Completeness: what the sequence numbers of each enforcer prove, and from which leaf on a period is closed.

Pure, standard library only. Within one epoch an enforcer numbers its records from 1 without gaps and counts its
decisions along. The sentences are those of the pack, for they are compared.

Source: docs/evidence.md, section 3.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from evidence.standalone.records import Enrolment, Record

__all__ = [
    "COMPLETE",
    "GAP",
    "TAIL_UNKNOWN",
    "Brief",
    "Closing",
    "Period",
    "Stream",
    "assess",
    "brief",
    "close",
    "width_of",
    "worst",
]

COMPLETE, TAIL_UNKNOWN, GAP = "complete", "tail unknown", "gap"
_FROM_BEST = (COMPLETE, TAIL_UNKNOWN, GAP)


class Period(NamedTuple):
    """The period, and when the end checkpoint was signed: POSIX milliseconds."""

    from_ms: int
    to_ms: int
    signed_ms: int

    @property
    def over(self) -> bool:
        """Whether it was over when the checkpoint was signed."""
        return self.to_ms <= self.signed_ms

    def contains(self, time_ms: int) -> bool:
        """Whether a time lies in it."""
        return self.from_ms <= time_ms < self.to_ms


class Brief(NamedTuple):
    """What completeness looks at of a record."""

    leaf: int
    enforcer_id: str
    epoch: str
    seq: int
    time_ms: int
    running_count: int
    decided: bool
    beat: bool
    stop: bool
    previous_epoch: str | None
    lost: tuple[int, int, int] | None


def brief(record: Record) -> Brief:
    """Return what completeness looks at of a record."""
    kind = record.kind
    dropped = kind == "dropped"
    return Brief(
        record.leaf,
        record.enforcer_id,
        record.epoch,
        record.seq,
        record.time_ms,
        record.value["running_count"],
        kind == "decision",
        kind == "heartbeat",
        kind == "heartbeat" and record.get("kind") == "stop",
        record.get("previous_epoch") if kind == "heartbeat" else None,
        (record.get("first_seq"), record.get("last_seq"), record.get("decisions", 0)) if dropped else None,
    )


class Stream(NamedTuple):
    """One enforcer in one epoch; the members are those of the pack, in its words."""

    enforcer_id: str
    epoch: str
    verdict: str
    reason: str
    records: int = 0
    decisions: int = 0
    last_seq: int = 0
    missing: tuple[tuple[int, int], ...] = ()
    lost: tuple[tuple[int, int], ...] = ()
    lost_decisions: int = 0
    last_heartbeat_ms: int | None = None

    def line(self) -> dict[str, Any]:
        """Return it as the pack lists it."""
        left_out = ("last_seq", "lost_decisions")
        return {name: value for name, value in self._asdict().items() if name not in left_out}


class _Run:
    """Sequence numbers without a gap, and what their running counts say of one another."""

    __slots__ = ("before", "counted", "first", "last", "wrong")

    def __init__(self, number: int, before: int, counted: int) -> None:
        self.first = self.last = number
        self.before = before
        self.counted = counted
        self.wrong: int | None = None

    def join(self, right: _Run) -> None:
        if self.wrong is None:
            self.wrong = right.first if right.before != self.counted else right.wrong
        self.last = max(self.last, right.last)
        self.counted = right.counted


class _Sum:
    """The records of one stream, summed up."""

    def __init__(self, enforcer_id: str, epoch: str) -> None:
        self.enforcer_id = enforcer_id
        self.epoch = epoch
        self.first = 1
        self.counted = 0
        self.records = 0
        self.decisions = 0
        self.runs: list[_Run] = []
        self.twice = False
        self.lost: list[tuple[int, int]] = []
        self.lost_decisions = 0
        self.last_seq = 0
        self.stopped = False
        self.latest_ms = 0
        self.last_heartbeat_ms: int | None = None
        self.last_inside = -1
        self.last_beat_beyond = -1

    def look(self, one: Brief, to_ms: int) -> None:
        if one.seq >= self.last_seq:
            self.last_seq, self.stopped = one.seq, one.stop
        self.latest_ms = max(self.latest_ms, one.time_ms)
        if one.beat:
            self.last_heartbeat_ms = max(self.last_heartbeat_ms or 0, one.time_ms)
        if one.time_ms < to_ms:
            self.last_inside = max(self.last_inside, one.seq)
        elif one.beat:
            self.last_beat_beyond = max(self.last_beat_beyond, one.seq)

    def add(self, one: Brief, to_ms: int) -> None:
        if one.seq < self.first:
            return
        self.records += 1
        self.decisions += one.decided
        if one.lost is not None:
            self.lost.append(one.lost[:2])
            self.lost_decisions += one.lost[2]
        self.look(one, to_ms)
        self._insert(_Run(one.seq, one.running_count - one.decided, one.running_count))

    def _insert(self, new: _Run) -> None:
        runs = self.runs
        if runs and runs[-1].last == new.first - 1:  # as nearly always
            runs[-1].join(new)
            return
        place = bisect_right([run.first for run in runs], new.first)
        if place and runs[place - 1].last >= new.first - 1:
            place -= 1
            left = runs.pop(place)
            self.twice = self.twice or left.last >= new.first
            left.join(new)
            new = left
        while place < len(runs) and runs[place].first <= new.last + 1:
            right = runs.pop(place)
            self.twice = self.twice or right.first <= new.last
            new.join(right)
        runs.insert(place, new)

    def missing(self) -> tuple[tuple[int, int], ...]:
        gaps, expected = [], self.first
        for start, end in sorted([*((run.first, run.last) for run in self.runs), *self.lost]):
            if start > expected:
                gaps.append((expected, start - 1))
            expected = max(expected, end + 1)
        return tuple(gaps)

    def miscounted(self) -> int | None:
        if not self.runs:
            return None
        run = self.runs[0]
        return run.first if run.before != self.counted else run.wrong


def _ending(one: _Sum, period: Period, enrolment: Enrolment | None) -> tuple[str, str]:
    last = one.last_seq
    if one.last_beat_beyond > one.last_inside:
        return COMPLETE, f"all {last} numbers are accounted for beyond the end of the period"
    if enrolment is not None and enrolment.retired_ms is not None:
        if one.stopped:
            return COMPLETE, f"all {last} numbers are accounted for, it stopped and its key was retired"
        if enrolment.retired_ms <= period.from_ms and one.latest_ms < period.from_ms:
            return COMPLETE, f"its key was retired after number {last}, before the period began"
        return TAIL_UNKNOWN, f"its key was retired, and nothing shows what came between number {last} and that"
    if one.stopped:
        return TAIL_UNKNOWN, f"it stopped at number {last}, and nothing shows that it did not go on"
    return TAIL_UNKNOWN, "no heartbeat shows what came after the last record"


def width_of(ranges: Iterable[tuple[int, int]]) -> int:
    """Return how many numbers lie in some ranges."""
    return sum(last - first + 1 for first, last in ranges)


def _judged(one: _Sum, period: Period, enrolment: Enrolment | None) -> Stream:
    missing, lost, wrong = one.missing(), tuple(sorted(one.lost)), one.miscounted()
    if missing:
        verdict, reason = GAP, f"{width_of(missing)} of {one.last_seq} sequence numbers are missing"
    elif lost:
        told = f"{width_of(lost)} of {one.last_seq} records were lost, and declared so by the enforcer"
        verdict, reason = GAP, told
    elif one.twice:
        verdict, reason = GAP, "a sequence number occurs twice"
    elif wrong is not None:
        verdict, reason = GAP, f"the running count of decisions is wrong at sequence number {wrong}"
    else:
        verdict, reason = _ending(one, period, enrolment)
    return Stream(
        one.enforcer_id,
        one.epoch,
        verdict,
        reason,
        one.records,
        one.decisions,
        one.last_seq,
        missing,
        lost,
        one.lost_decisions,
        one.last_heartbeat_ms,
    )


def _silent(enrolment: Enrolment, period: Period) -> Stream | None:
    """Return the stream of an enforcer of which no record is here, unless none was to be expected."""
    if enrolment.epochs or enrolment.introduced_ms >= period.to_ms:
        return None
    if enrolment.retired_ms is None:
        reason = f"it was introduced at leaf {enrolment.leaf}, and no record of it is here"
    elif enrolment.retired_ms > period.from_ms:
        reason = f"no record of it is here, from its introduction at leaf {enrolment.leaf} to the end of its key"
    else:
        return None
    return Stream(enrolment.enforcer_id, "", TAIL_UNKNOWN, reason)


def assess(
    records: Iterable[Brief], before: Iterable[Brief], enrolments: Sequence[Enrolment], period: Period
) -> list[Stream]:
    """Say for each enforcer and epoch what its sequence numbers prove.

    Args:
        records: Those of the range, in order.
        before: Of each stream that had records before the range, the one with the highest number.
        enrolments: Who could write when.
        period: The period.
    """
    sums: dict[tuple[str, str], _Sum] = {}
    named: dict[tuple[str, str], None] = {}
    for one in before:
        made = sums[one.enforcer_id, one.epoch] = _Sum(one.enforcer_id, one.epoch)
        made.first, made.counted = one.seq + 1, one.running_count
        made.look(one, period.to_ms)
        if one.previous_epoch is not None:
            named[one.enforcer_id, one.previous_epoch] = None
    for one in records:
        key = (one.enforcer_id, one.epoch)
        if key not in sums:
            sums[key] = _Sum(*key)
        sums[key].add(one, period.to_ms)
        if one.previous_epoch is not None:
            named[one.enforcer_id, one.previous_epoch] = None
    written = {(enrolment.enforcer_id, epoch): enrolment for enrolment in enrolments for epoch in enrolment.epochs}
    found = [_judged(one, period, written.get(key)) for key, one in sums.items()]
    told = "a later epoch names it as the one before, and no record of it is here"
    found += [Stream(*key, GAP, told) for key in sorted(set(named) - sums.keys())]
    found += [stream for enrolment in enrolments if (stream := _silent(enrolment, period)) is not None]
    if not period.over:
        late = "the log was signed before the period was over"
        found = [one._replace(verdict=TAIL_UNKNOWN, reason=late) if one.verdict == COMPLETE else one for one in found]
    return sorted(found, key=lambda stream: stream.enforcer_id)


def worst(streams: Sequence[Stream]) -> str:
    """Return the worst verdict; ``tail unknown`` if there are no streams."""
    return max((stream.verdict for stream in streams), key=_FROM_BEST.index, default=TAIL_UNKNOWN)


class Closing(NamedTuple):
    """From which leaf on a period is closed, or None; and the enforcers that keep it open."""

    leaf: int | None
    open_enforcers: tuple[str, ...]


class _Progress:
    """How far the records of one enrolment came."""

    def __init__(self, enrolment: Enrolment) -> None:
        self.enrolment = enrolment
        self.heard = False
        self.passed: int | None = None
        self.last_inside: dict[str, int] = {}

    def done(self) -> int | None:
        retired = self.enrolment.retired_leaf
        ends = [end for end in (self.passed, None if retired is None else retired + 1) if end is not None]
        return min(ends) if ends else None


def close(records: Sequence[Brief], enrolments: Sequence[Enrolment], to_ms: int) -> Closing:
    """Find where a period is closed.

    Args:
        records: All that there are, those from before the range first, in order.
        enrolments: Who could write when.
        to_ms: End of the period.
    """
    progress: dict[str, list[_Progress]] = {}
    for enrolment in enrolments:
        progress.setdefault(enrolment.enforcer_id, []).append(_Progress(enrolment))

    def written_in(one: Brief) -> _Progress:
        of_one = progress[one.enforcer_id]
        return next((each for each in reversed(of_one) if each.enrolment.leaf <= one.leaf), of_one[0])

    last_seq: dict[tuple[str, str], int] = {}
    for one in records:
        if one.time_ms < to_ms:
            stretch = written_in(one)
            stretch.heard = True
            stretch.last_inside[one.epoch] = one.leaf
            key = (one.enforcer_id, one.epoch)
            last_seq[key] = max(last_seq.get(key, 0), one.seq)
    for one in records:
        if one.time_ms >= to_ms and one.beat:
            stretch = written_in(one)
            later = any(leaf > one.leaf for epoch, leaf in stretch.last_inside.items() if epoch != one.epoch)
            behind = one.seq < last_seq.get((one.enforcer_id, one.epoch), 0) or later
            if stretch.passed is None and not behind:
                stretch.passed = one.leaf + 1
    concerned = [one for each in progress.values() for one in each if one.heard or one.enrolment.introduced_ms < to_ms]
    still_open = {one.enrolment.enforcer_id for one in concerned if one.done() is None}
    closed = [end for one in concerned if (end := one.done()) is not None]
    return Closing(max(closed) if closed and not still_open else None, tuple(sorted(still_open)))
