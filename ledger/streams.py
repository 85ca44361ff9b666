"""What is kept of an enforcer's stream, so that it can be judged without its records.

Pure. `Streams` takes in the records of a log in any order and keeps, for each enforcer and epoch, a `StreamSummary`:
its size grows with the gaps of the stream, not with its records. What the summaries prove is in `completeness`.

Summaries of two stretches of a log can be joined, so that stretches can be read at the same time; and they are plain
data, so that an audit can go on where it stopped.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from ledger.bodies import Decision, Dropped, Heartbeat
from ledger.records import Record

__all__ = ["Run", "StreamSummary", "Streams"]

_NONE: Final = -1


class Run(msgspec.Struct):
    """Sequence numbers without a gap, and what their running counts say of one another.

    Attributes:
        first: Smallest number.
        last: Largest number.
        before: Decisions before the first, by the first record's own running count.
        counted: The last record's running count.
        wrong: Smallest number whose running count does not follow from the one before it, or None.
    """

    first: int
    last: int
    before: int
    counted: int
    wrong: int | None = None

    def joined(self, right: Run) -> Run:
        """Return this run with the one that follows it; if they overlap, their counts prove nothing any more."""
        wrong = self.wrong
        if wrong is None:
            wrong = right.first if right.before != self.counted else right.wrong
        return Run(self.first, max(self.last, right.last), self.before, right.counted, wrong)


class StreamSummary(msgspec.Struct, kw_only=True):
    """The records of one enforcer in one epoch, summed up.

    Attributes:
        enforcer_id: Who wrote them.
        epoch: Which epoch.
        first: The number from which on they are counted; what is below is an earlier stretch's to account for.
        counted: Decisions before that number.
        records: How many there were.
        decisions: Decisions among them.
        runs: Their numbers, in order; neighbours are joined.
        twice: Whether a number occurred twice.
        lost: Ranges of numbers that were declared lost, as they came.
        lost_decisions: Decisions declared lost.
        last_seq: Largest number, that of the record before the first included.
        stopped: Whether the record of that number is an orderly stop.
        latest_ms: Latest time.
        last_heartbeat_ms: Time of the latest heartbeat, or None.
        last_inside: Largest number with a time before the end of the period, or -1.
        last_beat_beyond: Largest number of a heartbeat at or beyond that end, or -1.
    """

    enforcer_id: str
    epoch: str
    first: int = 1
    counted: int = 0
    records: int = 0
    decisions: int = 0
    runs: list[Run] = msgspec.field(default_factory=list)
    twice: bool = False
    lost: list[tuple[int, int]] = msgspec.field(default_factory=list)
    lost_decisions: int = 0
    last_seq: int = 0
    stopped: bool = False
    latest_ms: int = 0
    last_heartbeat_ms: int | None = None
    last_inside: int = _NONE
    last_beat_beyond: int = _NONE

    @classmethod
    def after(cls, before: Record, end_ms: int | None) -> StreamSummary:
        """Begin behind a record, the one with the highest number of an earlier stretch."""
        summary = cls(
            enforcer_id=before.enforcer_id, epoch=before.epoch, first=before.seq + 1, counted=before.running_count
        )
        summary._look_at(before, end_ms)
        return summary

    def add(self, record: Record, end_ms: int | None) -> None:
        """Take in a record; ``end_ms`` is the end of the period, the same for every record."""
        if record.seq < self.first:
            return
        body = record.body
        self.records += 1
        decided = isinstance(body, Decision)
        self.decisions += decided
        if isinstance(body, Dropped):
            self.lost.append((body.first_seq, body.last_seq))
            self.lost_decisions += body.decisions
        self._look_at(record, end_ms)
        self._insert(Run(record.seq, record.seq, record.running_count - decided, record.running_count))

    def _look_at(self, record: Record, end_ms: int | None) -> None:
        body = record.body
        beat = isinstance(body, Heartbeat)
        if record.seq >= self.last_seq:
            self.last_seq = record.seq
            self.stopped = isinstance(body, Heartbeat) and body.kind == "stop"
        self.latest_ms = max(self.latest_ms, record.time_ms)
        if beat:
            self.last_heartbeat_ms = max(self.last_heartbeat_ms or 0, record.time_ms)
        if end_ms is not None:
            if record.time_ms < end_ms:
                self.last_inside = max(self.last_inside, record.seq)
            elif beat:
                self.last_beat_beyond = max(self.last_beat_beyond, record.seq)

    def _insert(self, new: Run) -> None:
        runs = self.runs
        place = bisect_right(runs, new.first, key=_first)
        if place and runs[place - 1].last >= new.first - 1:
            place -= 1
            left = runs.pop(place)
            self.twice = self.twice or left.last >= new.first
            new = left.joined(new)
        while place < len(runs) and runs[place].first <= new.last + 1:
            right = runs.pop(place)
            self.twice = self.twice or right.first <= new.last
            new = new.joined(right)
        runs.insert(place, new)

    def join(self, later: StreamSummary) -> None:
        """Take in what was summed up of a later stretch of the log."""
        self.records += later.records
        self.decisions += later.decisions
        self.twice = self.twice or later.twice
        self.lost += later.lost
        self.lost_decisions += later.lost_decisions
        if later.last_seq >= self.last_seq:
            self.last_seq, self.stopped = later.last_seq, later.stopped
        self.latest_ms = max(self.latest_ms, later.latest_ms)
        if later.last_heartbeat_ms is not None:
            self.last_heartbeat_ms = max(self.last_heartbeat_ms or 0, later.last_heartbeat_ms)
        self.last_inside = max(self.last_inside, later.last_inside)
        self.last_beat_beyond = max(self.last_beat_beyond, later.last_beat_beyond)
        for run in later.runs:
            self._insert(run)


def _first(run: Run) -> int:
    return run.first


class Streams:
    """The streams of all enforcers of a log; fed with its records. One task owns it."""

    def __init__(self, *, end_ms: int | None = None, before: Iterable[Record] = ()) -> None:
        """Begin.

        Args:
            end_ms: End of the period, POSIX milliseconds, or None.
            before: Of each stream that had records before the first to be fed in, the one with the highest number.
        """
        self._end_ms = end_ms
        self._summaries: dict[tuple[str, str], StreamSummary] = {}
        self._named: dict[tuple[str, str], None] = {}
        for record in before:
            self._summaries[record.enforcer_id, record.epoch] = StreamSummary.after(record, end_ms)
            self._note_previous(record)

    @property
    def end_ms(self) -> int | None:
        """End of the period."""
        return self._end_ms

    @property
    def summaries(self) -> Mapping[tuple[str, str], StreamSummary]:
        """The streams by enforcer and epoch, in the order in which they were first heard of."""
        return self._summaries

    @property
    def named_epochs(self) -> list[tuple[str, str]]:
        """Enforcer and epoch of each epoch that a later one names as the one before it."""
        return list(self._named)

    def copied(self) -> list[StreamSummary]:
        """Return the streams as they are now: records that are added later do not change them."""
        return [
            msgspec.structs.replace(
                summary,
                runs=[msgspec.structs.replace(run) for run in summary.runs],
                lost=list(summary.lost),
            )
            for summary in self._summaries.values()
        ]

    def add(self, record: Record) -> None:
        """Take in a record."""
        key = (record.enforcer_id, record.epoch)
        summary = self._summaries.get(key)
        if summary is None:
            summary = self._summaries[key] = StreamSummary(enforcer_id=key[0], epoch=key[1])
        summary.add(record, self._end_ms)
        self._note_previous(record)

    def _note_previous(self, record: Record) -> None:
        body = record.body
        if isinstance(body, Heartbeat) and body.previous_epoch is not None:
            self._named[record.enforcer_id, body.previous_epoch] = None

    def join(self, summaries: Iterable[StreamSummary], named_epochs: Iterable[tuple[str, str]]) -> None:
        """Take in what was summed up of a later stretch of the log; the summaries belong to this object from now on."""
        for summary in summaries:
            key = (summary.enforcer_id, summary.epoch)
            if key in self._summaries:
                self._summaries[key].join(summary)
            else:
                self._summaries[key] = summary
        self._named |= dict.fromkeys(named_epochs)
