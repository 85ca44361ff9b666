"""Completeness: what the sequence numbers of each enforcer prove.

Pure; what is kept of the records for it is in `streams`. Within one epoch an enforcer numbers its records from 1
without gaps and counts its decisions along. From the records that arrived, in any order, `assess` says for each
enforcer and epoch:

* ``complete``: every number from 1 to the last is there, the running count agrees, and the stream is known to have
  passed the end of the period, or to have ended;
* ``tail unknown``: no gap is seen, but nothing shows that there was no later record;
* ``gap``: numbers are missing or were declared lost, a number occurs twice, or the running count disagrees; or a later
  epoch names this one as the one before it, and no record of it is here.

A stream has *passed* the end of a period with a heartbeat at or beyond it, behind which no higher number has a time
before the end: a clock that was once ahead shows nothing. A stream has *ended* if it stopped in order and the keys of
its enforcer were retired afterwards, so that nothing can follow; or if they were retired before the period began. A
stop alone shows nothing: epochs go on after a restart.

An enforcer that the log introduced before the end of the period, and of which no record is here, is ``tail unknown``:
silence is not the same as nothing to tell. Nothing is ``complete`` while the period is not over by the log's own clock.

Declared loss (a `Dropped` record) is honest but still loss: it is listed apart from what is missing without a word, and
neither passes as complete.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from ledger.enrolments import Enrolment
from ledger.records import Record
from ledger.streams import Streams, StreamSummary

__all__ = ["EnforcerStream", "SessionCount", "Verdict", "assess", "assess_streams", "worst"]

_NO_EPOCH: Final = ""


class Verdict(StrEnum):
    """What can be said of a stream, from best to worst."""

    COMPLETE = "complete"
    TAIL_UNKNOWN = "tail unknown"
    GAP = "gap"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcerStream:
    """The records of one enforcer in one epoch.

    Attributes:
        enforcer_id: Who wrote them.
        epoch: Which epoch; empty for an enforcer of which no record is here.
        verdict: See the module's text.
        reason: One sentence.
        records: How many arrived.
        decisions: Decisions among them.
        last_seq: Highest number seen.
        missing: Ranges ``(first, last)`` of numbers that neither arrived nor were declared lost.
        lost: Ranges that were declared lost.
        lost_decisions: Decisions declared lost.
        last_heartbeat_ms: Time of the latest heartbeat, or None.
    """

    enforcer_id: str
    epoch: str
    verdict: Verdict
    reason: str
    records: int
    decisions: int
    last_seq: int
    missing: tuple[tuple[int, int], ...]
    lost: tuple[tuple[int, int], ...]
    lost_decisions: int
    last_heartbeat_ms: int | None


def _missing(present: list[tuple[int, int]], first: int) -> tuple[tuple[int, int], ...]:
    """Return the gaps between sorted ranges of numbers, from ``first`` on."""
    gaps: list[tuple[int, int]] = []
    expected = first
    for start, end in present:
        if start > expected:
            gaps.append((expected, start - 1))
        expected = max(expected, end + 1)
    return tuple(gaps)


def _count_mismatch(summary: StreamSummary) -> int | None:
    """Return the first sequence number whose running count cannot be right, or None; the numbers are without gaps."""
    if not summary.runs:
        return None
    (run,) = summary.runs
    return run.first if run.before != summary.counted else run.wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class _Period:
    """The period, and when somebody signed for the log: POSIX milliseconds."""

    from_ms: int
    end_ms: int | None
    signed_ms: int | None

    @property
    def over(self) -> bool:
        """Whether it was over when the log was signed."""
        return self.end_ms is None or self.signed_ms is None or self.end_ms <= self.signed_ms

    def passed(self, summary: StreamSummary) -> bool:
        """Whether a heartbeat at or beyond the end shows that the stream went on, and no higher number denies it."""
        return self.end_ms is not None and summary.last_beat_beyond > summary.last_inside


def _ending_by_retirement(summary: StreamSummary, from_ms: int, retired_ms: int) -> tuple[Verdict, str]:
    last = summary.last_seq
    if summary.stopped:
        return Verdict.COMPLETE, f"all {last} numbers are accounted for, it stopped and its key was retired"
    if retired_ms <= from_ms and summary.latest_ms < from_ms:
        return Verdict.COMPLETE, f"its key was retired after number {last}, before the period began"
    return Verdict.TAIL_UNKNOWN, f"its key was retired, and nothing shows what came between number {last} and that"


def _ending(summary: StreamSummary, period: _Period, enrolment: Enrolment | None) -> tuple[Verdict, str]:
    """Say what shows that nothing is missing behind the last of a stream's records.

    Args:
        summary: The stream, without gaps.
        period: The period.
        enrolment: The one in which the records were written, if that is known.
    """
    last = summary.last_seq
    if period.passed(summary):
        return Verdict.COMPLETE, f"all {last} numbers are accounted for beyond the end of the period"
    if enrolment is not None and enrolment.retired_ms is not None:
        return _ending_by_retirement(summary, period.from_ms, enrolment.retired_ms)
    if summary.stopped and period.end_ms is None:
        return Verdict.COMPLETE, f"all {last} numbers are accounted for and the stream was closed"
    if summary.stopped:
        return Verdict.TAIL_UNKNOWN, f"it stopped at number {last}, and nothing shows that it did not go on"
    return Verdict.TAIL_UNKNOWN, "no heartbeat shows what came after the last record"


def _assess_stream(summary: StreamSummary, period: _Period, enrolment: Enrolment | None) -> EnforcerStream:
    lost = sorted(summary.lost)
    missing = _missing(sorted([*((run.first, run.last) for run in summary.runs), *lost]), summary.first)
    mismatch = None if missing or lost or summary.twice else _count_mismatch(summary)
    if missing:
        verdict = Verdict.GAP
        count = sum(b - a + 1 for a, b in missing)
        reason = f"{count} of {summary.last_seq} sequence numbers are missing"
    elif lost:
        count = sum(b - a + 1 for a, b in lost)
        verdict, reason = (
            Verdict.GAP,
            f"{count} of {summary.last_seq} records were lost, and declared so by the enforcer",
        )
    elif summary.twice:
        verdict, reason = Verdict.GAP, "a sequence number occurs twice"
    elif mismatch is not None:
        verdict, reason = Verdict.GAP, f"the running count of decisions is wrong at sequence number {mismatch}"
    else:
        verdict, reason = _ending(summary, period, enrolment)
    return EnforcerStream(
        enforcer_id=summary.enforcer_id,
        epoch=summary.epoch,
        verdict=verdict,
        reason=reason,
        records=summary.records,
        decisions=summary.decisions,
        last_seq=summary.last_seq,
        missing=missing,
        lost=tuple(lost),
        lost_decisions=summary.lost_decisions,
        last_heartbeat_ms=summary.last_heartbeat_ms,
    )


def _absent(enforcer_id: str, epoch: str, verdict: Verdict, reason: str) -> EnforcerStream:
    """Return a stream of which no record is here."""
    return EnforcerStream(
        enforcer_id=enforcer_id,
        epoch=epoch,
        verdict=verdict,
        reason=reason,
        records=0,
        decisions=0,
        last_seq=0,
        missing=(),
        lost=(),
        lost_decisions=0,
        last_heartbeat_ms=None,
    )


def _silent(enrolment: Enrolment, period: _Period) -> EnforcerStream | None:
    """Return the stream of an enforcer that never delivered a record, unless it was not enrolled in the period."""
    if enrolment.epochs or (period.end_ms is not None and enrolment.introduced_ms >= period.end_ms):
        return None
    if enrolment.retired_ms is None:
        reason = f"it was introduced at leaf {enrolment.leaf}, and no record of it is here"
    elif enrolment.retired_ms > period.from_ms:
        reason = f"no record of it is here, from its introduction at leaf {enrolment.leaf} to the end of its key"
    else:
        return None
    return _absent(enrolment.enforcer_id, _NO_EPOCH, Verdict.TAIL_UNKNOWN, reason)


def _lost_epochs(streams: Streams) -> list[EnforcerStream]:
    """Return the epochs that a later one names as the one before it, and of which no record is here."""
    reason = "a later epoch names it as the one before, and no record of it is here"
    unheard = sorted(set(streams.named_epochs) - streams.summaries.keys())
    return [_absent(*stream, Verdict.GAP, reason) for stream in unheard]


def assess(
    records: Iterable[Record],
    *,
    from_ms: int = 0,
    end_ms: int | None = None,
    signed_ms: int | None = None,
    before: Iterable[Record] = (),
    enrolments: Iterable[Enrolment] = (),
) -> list[EnforcerStream]:
    """Say for each enforcer and epoch what its sequence numbers prove.

    Args:
        records: All records of a log from its first leaf on, in any order; or from a later leaf on, with ``before``.
        from_ms: Start of the period, POSIX milliseconds.
        end_ms: Its end; None leaves every stream that was not closed "tail unknown".
        signed_ms: When the log was signed, by its own clock; None if that is not known.
        before: Of each stream that had records before the first leaf of ``records``, the one with the highest number.
        enrolments: Who could write when, by the key records of the log.

    Returns:
        One stream for each enforcer and epoch, sorted by enforcer and first arrival; then epochs and enforcers of which
        no record is here.
    """
    streams = Streams(end_ms=end_ms, before=before)
    for record in records:
        streams.add(record)
    return assess_streams(streams, from_ms=from_ms, signed_ms=signed_ms, enrolments=enrolments)


def assess_streams(
    streams: Streams,
    *,
    from_ms: int = 0,
    signed_ms: int | None = None,
    enrolments: Iterable[Enrolment] = (),
) -> list[EnforcerStream]:
    """Say the same of streams that were summed up as their records were read; see `assess`.

    Args:
        streams: They know the end of the period.
        from_ms: Its start, POSIX milliseconds.
        signed_ms: When the log was signed, by its own clock; None if that is not known.
        enrolments: Who could write when, by the key records of the log.
    """
    period = _Period(from_ms=from_ms, end_ms=streams.end_ms, signed_ms=signed_ms)
    enrolled = list(enrolments)
    # The last one in which an epoch was written in decides what came behind its records.
    written_in = {(one.enforcer_id, epoch): one for one in enrolled for epoch in one.epochs}
    assessed = [_assess_stream(summary, period, written_in.get(key)) for key, summary in streams.summaries.items()]
    assessed += _lost_epochs(streams)
    assessed += [stream for one in enrolled if (stream := _silent(one, period)) is not None]
    if not period.over:
        assessed = [_not_over(stream) for stream in assessed]
    return sorted(assessed, key=lambda stream: stream.enforcer_id)


def _not_over(stream: EnforcerStream) -> EnforcerStream:
    if stream.verdict is not Verdict.COMPLETE:
        return stream
    return replace(stream, verdict=Verdict.TAIL_UNKNOWN, reason="the log was signed before the period was over")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionCount:
    """Whether the calls of a session are all here, by what its enforcer counted when it ended.

    Attributes:
        verdict: ``complete``: as many as were counted; ``gap``: fewer; ``tail unknown``: nobody says that it has ended,
            or it went on behind the last end that is here.
        reason: One sentence.
        decisions: Decisions of the session that are here.
        counted: Calls by the end that counted most, or None without an end.
    """

    verdict: Verdict
    reason: str
    decisions: int
    counted: int | None

    @classmethod
    def of(cls, decisions: int, ends: Iterable[int]) -> SessionCount:
        """Compare decisions with what the ends of the session counted; of several ends the last counts all."""
        counted = max(ends, default=None)
        if counted is None:
            verdict, reason = Verdict.TAIL_UNKNOWN, "no record says that the session has ended"
        elif decisions < counted:
            verdict, reason = Verdict.GAP, f"{counted - decisions} of {counted} calls have no decision here"
        elif decisions > counted:
            verdict = Verdict.TAIL_UNKNOWN
            reason = f"{decisions - counted} calls came after its end, and no later end counts them"
        else:
            verdict, reason = Verdict.COMPLETE, f"all {counted} calls that the enforcer counted are here"
        return cls(verdict=verdict, reason=reason, decisions=decisions, counted=counted)


def worst(streams: Iterable[EnforcerStream]) -> Verdict:
    """Return the worst verdict of several streams; ``tail unknown`` if there are none."""
    order = list(Verdict)
    verdicts = [stream.verdict for stream in streams]
    return max(verdicts, key=order.index) if verdicts else Verdict.TAIL_UNKNOWN
