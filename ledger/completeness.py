"""Completeness: what the sequence numbers of each enforcer prove.

Pure. Within one epoch an enforcer numbers its records from 1 without gaps and counts its decisions along. From the
records that arrived, in any order, `assess` says for each enforcer and epoch:

* ``complete``: every number from 1 to the last is there, the running count agrees, and a heartbeat shows that the
  stream went on beyond the end of the period (or was closed in order);
* ``tail unknown``: no gap is seen, but nothing shows that there was no later record;
* ``gap``: numbers are missing or were declared lost, a number occurs twice, or the running count disagrees.

Declared loss (a `Dropped` record) is honest but still loss: it is listed apart from what is missing without a word, and
neither passes as complete.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from ledger.records import Decision, Dropped, Heartbeat, Record

__all__ = ["EnforcerStream", "Verdict", "assess", "worst"]


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
        epoch: Which epoch.
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


def _ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return tuple(ranges)


def _missing(present: list[tuple[int, int]], first: int) -> tuple[tuple[int, int], ...]:
    """Return the gaps between sorted ranges of numbers, from ``first`` on."""
    gaps: list[tuple[int, int]] = []
    expected = first
    for start, end in present:
        if start > expected:
            gaps.append((expected, start - 1))
        expected = max(expected, end + 1)
    return tuple(gaps)


def _count_mismatch(records: list[Record], losses: list[tuple[int, Dropped]], counted: int) -> int | None:
    """Return the sequence number of the first record whose running count cannot be right, or None.

    Args:
        records: By sequence number, without gaps.
        losses: Declared losses among them.
        counted: Decisions before the first.
    """
    pending = sorted(losses, key=lambda item: item[1].first_seq)
    for record in records:
        while pending and pending[0][1].last_seq < record.seq:
            counted += pending.pop(0)[1].decisions
        counted += isinstance(record.body, Decision)
        if record.running_count != counted:
            return record.seq
    return None


def _assess_stream(
    enforcer_id: str, epoch: str, arrived: list[Record], before: Record | None, end_ms: int | None
) -> EnforcerStream:
    first, counted = (1, 0) if before is None else (before.seq + 1, before.running_count)
    # What stands at or below the number before the range is an earlier range's to account for.
    records = sorted((record for record in arrived if record.seq >= first), key=lambda record: record.seq)
    if not records:
        assert before is not None  # a stream is known by a record
        return _silent_stream(before, end_ms)
    sequence = [record.seq for record in records]
    losses = [(record.seq, record.body) for record in records if isinstance(record.body, Dropped)]
    lost = sorted((body.first_seq, body.last_seq) for _, body in losses)
    present = sorted([*_ranges(sequence), *lost])
    missing = _missing(present, first)
    beats = [record for record in records if isinstance(record.body, Heartbeat)]
    last_beat = max((record.time_ms for record in beats), default=None)
    last = records[-1]
    closed = isinstance(last.body, Heartbeat) and last.body.kind == "stop"
    twice = len(set(sequence)) != len(sequence)
    mismatch = None if missing or twice else _count_mismatch(records, losses, counted)
    if missing:
        verdict = Verdict.GAP
        count = sum(b - a + 1 for a, b in missing)
        reason = f"{count} of {last.seq} sequence numbers are missing"
    elif lost:
        count = sum(b - a + 1 for a, b in lost)
        verdict, reason = Verdict.GAP, f"{count} of {last.seq} records were lost, and declared so by the enforcer"
    elif twice:
        verdict, reason = Verdict.GAP, "a sequence number occurs twice"
    elif mismatch is not None:
        verdict, reason = Verdict.GAP, f"the running count of decisions is wrong at sequence number {mismatch}"
    elif closed:
        verdict, reason = Verdict.COMPLETE, f"all {last.seq} numbers are accounted for and the stream was closed"
    elif last_beat is not None and end_ms is not None and last_beat >= end_ms:
        verdict, reason = Verdict.COMPLETE, f"all {last.seq} numbers are accounted for beyond the end of the period"
    else:
        verdict, reason = Verdict.TAIL_UNKNOWN, "no heartbeat shows what came after the last record"
    return EnforcerStream(
        enforcer_id=enforcer_id,
        epoch=epoch,
        verdict=verdict,
        reason=reason,
        records=len(records),
        decisions=sum(isinstance(record.body, Decision) for record in records),
        last_seq=last.seq,
        missing=missing,
        lost=tuple(lost),
        lost_decisions=sum(body.decisions for _, body in losses),
        last_heartbeat_ms=last_beat,
    )


def _silent_stream(before: Record, end_ms: int | None) -> EnforcerStream:
    """Assess a stream of which nothing arrived in the range."""
    beat = before.time_ms if isinstance(before.body, Heartbeat) else None
    if isinstance(before.body, Heartbeat) and before.body.kind == "stop":
        verdict, reason = Verdict.COMPLETE, f"the stream was closed at number {before.seq}, before the range"
    elif beat is not None and end_ms is not None and beat >= end_ms:
        verdict, reason = Verdict.COMPLETE, "the stream had passed the end of the period before the range"
    else:
        verdict, reason = Verdict.TAIL_UNKNOWN, f"nothing shows what came after number {before.seq}, before the range"
    return EnforcerStream(
        enforcer_id=before.enforcer_id,
        epoch=before.epoch,
        verdict=verdict,
        reason=reason,
        records=0,
        decisions=0,
        last_seq=before.seq,
        missing=(),
        lost=(),
        lost_decisions=0,
        last_heartbeat_ms=beat,
    )


def assess(
    records: Iterable[Record], *, end_ms: int | None = None, before: Iterable[Record] = ()
) -> list[EnforcerStream]:
    """Say for each enforcer and epoch what its sequence numbers prove.

    Args:
        records: All records of a log from its first leaf on, in any order; or from a later leaf on, with ``before``.
        end_ms: End of the period, POSIX milliseconds; None leaves every stream that was not closed "tail unknown".
        before: Of each stream that had records before the first leaf of ``records``, the one with the highest number.

    Returns:
        One stream for each enforcer and epoch, sorted by enforcer and first arrival.
    """
    streams: defaultdict[tuple[str, str], list[Record]] = defaultdict(list)
    earlier = {(record.enforcer_id, record.epoch): record for record in before}
    for key in earlier:
        streams[key] = []
    for record in records:
        streams[record.enforcer_id, record.epoch].append(record)
    assessed = [_assess_stream(*key, members, earlier.get(key), end_ms) for key, members in streams.items()]
    return sorted(assessed, key=lambda stream: stream.enforcer_id)


def worst(streams: Iterable[EnforcerStream]) -> Verdict:
    """Return the worst verdict of several streams; ``tail unknown`` if there are none."""
    order = list(Verdict)
    verdicts = [stream.verdict for stream in streams]
    return max(verdicts, key=order.index) if verdicts else Verdict.TAIL_UNKNOWN
