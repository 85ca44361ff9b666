"""Completeness against a model made of sets: streams with drops, duplicates, declared losses and wrong counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.bodies import Decision, Dropped, Heartbeat
from ledger.completeness import Verdict, assess, worst
from ledger.records import Record
from tests.support.streams import StreamWriter

_KINDS = ("decision", "outcome", "periodic", "loss", "silent loss")


@dataclass(frozen=True)
class Expected:
    verdict: Verdict
    missing: frozenset[int]
    lost: frozenset[int]


@st.composite
def honest(draw: st.DrawFn) -> list[Record]:
    """Return a stream as an enforcer writes it; what it lost, it declares or keeps silent about."""
    writer = StreamWriter()
    records = writer.write("start") if draw(st.booleans()) else []
    seq = len(records)
    for kind in draw(st.lists(st.sampled_from(_KINDS), min_size=1, max_size=15)):
        if "loss" not in kind:
            records += writer.write(kind)
            seq += 1
            continue
        count = draw(st.integers(1, 4))
        decisions = draw(st.integers(0, count))
        writer.lose(count, decisions=decisions)
        first, seq = seq + 1, seq + count
        if kind == "loss":
            records += writer.write(Dropped(first_seq=first, last_seq=seq, decisions=decisions, reason="spool_full"))
            seq += 1
    if draw(st.booleans()):
        records += writer.write("stop")
    return records or writer.write("periodic")


@st.composite
def arrived(draw: st.DrawFn) -> list[Record]:
    """Return a stream as it may come out of a log: records missing, twice, recounted, in any order."""
    records = draw(honest())
    removed = draw(st.sets(st.sampled_from([record.seq for record in records]), max_size=2))
    records = [record for record in records if record.seq not in removed] or records
    if draw(st.booleans()):
        records = [*records, draw(st.sampled_from(records))]
    if draw(st.booleans()):
        place = draw(st.integers(0, len(records) - 1))
        records[place] = msgspec.structs.replace(records[place], time_ms=draw(st.integers(990, 1_040)))
    if draw(st.booleans()):
        place = draw(st.integers(0, len(records) - 1))
        records[place] = StreamWriter.recounted(records[place], draw(st.integers(0, 20)))
    return draw(st.permutations(records))


def expected(records: Sequence[Record], end_ms: int | None) -> Expected:
    """Say it with sets: nothing here is shared with the code under test."""
    numbers = [record.seq for record in records]
    losses = [record.body for record in records if isinstance(record.body, Dropped)]
    lost = {number for body in losses for number in range(body.first_seq, body.last_seq + 1)}
    missing = set(range(1, max([*numbers, *lost]) + 1)) - set(numbers) - lost
    ordered = sorted(records, key=lambda record: record.seq)
    right_counts = all(
        record.running_count == sum(isinstance(other.body, Decision) for other in ordered[: place + 1])
        for place, record in enumerate(ordered)
    )
    beats = [record for record in records if isinstance(record.body, Heartbeat)]
    closed = end_ms is None and isinstance(ordered[-1].body, Heartbeat) and ordered[-1].body.kind == "stop"
    beyond = end_ms is not None and any(
        beat.time_ms >= end_ms and not any(record.seq > beat.seq and record.time_ms < end_ms for record in records)
        for beat in beats
    )
    if missing or lost or len(set(numbers)) != len(numbers) or not right_counts:
        verdict = Verdict.GAP
    else:
        verdict = Verdict.COMPLETE if closed or beyond else Verdict.TAIL_UNKNOWN
    return Expected(verdict, frozenset(missing), frozenset(lost))


def numbers_of(ranges: Sequence[tuple[int, int]]) -> frozenset[int]:
    return frozenset(number for first, last in ranges for number in range(first, last + 1))


_ends = st.none() | st.integers(1_000, 1_030)


@settings(max_examples=300)
@given(arrived(), _ends)
def test_the_verdict_is_that_of_the_model(records, end_ms) -> None:
    (stream,) = assess(records, end_ms=end_ms)
    model = expected(records, end_ms)
    assert stream.verdict is model.verdict
    assert numbers_of(stream.missing) == model.missing
    assert numbers_of(stream.lost) == model.lost
    assert stream.records == len(records)
    assert stream.decisions == sum(isinstance(record.body, Decision) for record in records)
    assert stream.last_seq == max(record.seq for record in records)


@given(honest(), _ends, st.data())
def test_no_record_but_the_last_can_be_taken_out_unseen(records, end_ms, data) -> None:
    if len(records) > 1:
        place = data.draw(st.integers(0, len(records) - 2))
        (stream,) = assess(records[:place] + records[place + 1 :], end_ms=end_ms)
        assert stream.verdict is Verdict.GAP


@given(honest(), _ends, st.data())
def test_a_cut_tail_is_never_complete_unless_the_period_was_over(records, end_ms, data) -> None:
    kept = records[: data.draw(st.integers(1, len(records)))]
    (stream,) = assess(kept, end_ms=end_ms)
    if stream.verdict is Verdict.COMPLETE and len(kept) < len(records):
        assert end_ms is not None
        assert kept[-1].time_ms >= end_ms


@settings(max_examples=200)
@given(arrived(), _ends, st.data())
def test_a_stream_read_in_two_ranges_has_a_gap_where_the_whole_has_one(records, end_ms, data) -> None:
    cut = data.draw(st.integers(1, max(record.seq for record in records)))
    early = [record for record in records if record.seq <= cut]
    late = [record for record in records if record.seq > cut]
    if not early:
        return
    last = max(early, key=lambda record: record.seq)
    (whole,) = assess(records, end_ms=end_ms)
    (first,) = assess(early, end_ms=end_ms)
    (second,) = assess(late, end_ms=end_ms, before=[last])
    assert (worst([first, second]) is Verdict.GAP) == (whole.verdict is Verdict.GAP)
    if whole.verdict is not Verdict.GAP and late:
        beats = [record.time_ms for record in early if isinstance(record.body, Heartbeat)]
        if second.verdict is not whole.verdict:
            # The one heartbeat beyond the end of the period stood in the first range.
            assert whole.verdict is Verdict.COMPLETE
            assert end_ms is not None
            assert max(beats) >= end_ms
