"""What a walk over a period has seen of it: which leaves, what came late, what is missing from the enforcers' streams.

Pure. A report on a period is as good as the period is complete. What is said here: numbers missing from a stream
between the first and the last that the walk saw; numbers declared lost; decisions that came *late*, behind a heartbeat
in which their enforcer was already past the period; and enforcers that are still *open*, of which nothing shows that
they have handed in all that they decided in the period. Whether whole enforcers are silent, an evidence pack says.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from ledger.bodies import Decision, Heartbeat, OPADecision
from ledger.records import Record
from ledger.streams import StreamSummary

__all__ = ["Coverage", "StreamLine"]


class StreamLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What there is of one enforcer's epoch in the stretch that was read.

    Attributes:
        enforcer_id: Who wrote it.
        epoch: Which epoch.
        first_seq: First number seen.
        last_seq: Last number seen.
        missing: Numbers in between that are nowhere in the stretch and were not declared lost.
        lost: Numbers that were declared lost.
        open: Whether nothing shows that all of the period has been handed in.
    """

    enforcer_id: str
    epoch: str
    first_seq: int
    last_seq: int
    missing: int = 0
    lost: int = 0
    open: bool = False


class Coverage(msgspec.Struct, kw_only=True):
    """The records of a stretch, summed up; one task owns it. Plain data, so that a walk can be resumed.

    Attributes:
        from_ms: Start of the period, POSIX milliseconds.
        to_ms: Its end, exclusive.
        records: Records that were read.
        late: Decisions of the period that came late.
        others: Decisions of the period that somebody else's OPA made and handed in; they are not made again here.
        streams: By enforcer and epoch.
    """

    from_ms: int
    to_ms: int
    records: int = 0
    late: int = 0
    others: int = 0
    streams: dict[str, StreamSummary] = {}

    def add(self, record: Record) -> None:
        """Take in the next record of the log."""
        self.records += 1
        body = record.body
        decided = isinstance(body, Decision)
        key = f"{record.enforcer_id} {record.epoch}"
        summary = self.streams.get(key)
        if summary is None:
            # What came before the stretch is not this walk's to account for.
            summary = self.streams[key] = StreamSummary(
                enforcer_id=record.enforcer_id,
                epoch=record.epoch,
                first=record.seq,
                counted=record.running_count - decided,
            )
        if isinstance(body, OPADecision) and body.kind == "taken":
            decided_ms = record.time_ms if body.decided_ms is None else body.decided_ms
            self.others += self.from_ms <= decided_ms < self.to_ms
        if decided and summary.last_beat_beyond >= 0 and self.from_ms <= record.time_ms < self.to_ms:
            self.late += 1
        summary.add(record, self.to_ms)

    def closes(self, record: Record) -> bool:
        """Whether a record says that its enforcer is past the period."""
        return isinstance(record.body, Heartbeat) and record.time_ms >= self.to_ms

    @property
    def open(self) -> bool:
        """Whether some enforcer has shown nothing beyond the period."""
        return any(map(_is_open, self.streams.values()))

    def lines(self) -> Sequence[StreamLine]:
        """Return what there is of each stream, in the order in which they were first seen."""
        return [_line(summary) for summary in self.streams.values()]


def _is_open(summary: StreamSummary) -> bool:
    return summary.last_inside >= 0 and summary.last_beat_beyond < summary.last_inside


def _line(summary: StreamSummary) -> StreamLine:
    runs = summary.runs
    between = sum(right.first - left.last - 1 for left, right in pairwise(runs))
    lost = sum(last - first + 1 for first, last in summary.lost)
    return StreamLine(
        enforcer_id=summary.enforcer_id,
        epoch=summary.epoch,
        first_seq=runs[0].first if runs else summary.first,
        last_seq=summary.last_seq,
        missing=max(0, between - lost),
        lost=lost,
        open=_is_open(summary),
    )
