"""Streams that are summed up as they are read, in stretches if need be, are judged as their records are at once."""

from __future__ import annotations

from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.bodies import Dropped, Heartbeat
from ledger.completeness import assess, assess_streams
from ledger.enrolments import Enrolment
from ledger.records import Record
from ledger.streams import Streams, StreamSummary
from tests.support.ledger import Enforcer, make_decision

_DECISION = make_decision()[0]
_BODIES = (
    _DECISION,
    Heartbeat(kind="periodic", version="1", spool_depth=0),
    Heartbeat(kind="stop", version="1", spool_depth=0),
    Heartbeat(kind="start", version="1", spool_depth=0, previous_epoch="7" * 32),
    Heartbeat(kind="start", version="1", spool_depth=0, previous_epoch="1" * 32),
)


@st.composite
def a_record(draw: st.DrawFn) -> Record:
    """Return any record whatever: numbers, counts and times need not fit those of others."""
    lost = st.tuples(st.integers(1, 6), st.integers(0, 3), st.integers(0, 3)).map(
        lambda drawn: Dropped(first_seq=drawn[0], last_seq=drawn[0] + drawn[1], decisions=drawn[2], reason="spool_full")
    )
    body = draw(st.sampled_from(_BODIES) | lost)
    enforcer_id = draw(st.sampled_from(["a", "b"]))
    record = Enforcer(enforcer_id, epoch=draw(st.sampled_from(["1", "2"])) * 32).record(body)
    return msgspec.structs.replace(
        record,
        seq=draw(st.integers(1, 8)),
        running_count=draw(st.integers(0, 4)),
        time_ms=draw(st.integers(995, 1_005)),
    )


_enrolments = st.lists(
    st.builds(
        Enrolment,
        enforcer_id=st.sampled_from(["a", "b", "c"]),
        leaf=st.just(1),
        introduced_ms=st.integers(995, 1_005),
        retired_ms=st.none() | st.integers(995, 1_005),
        epochs=st.sets(st.sampled_from(["1" * 32, "2" * 32])),
    ),
    max_size=3,
)


@settings(max_examples=300)
@given(
    st.lists(a_record(), max_size=14),
    st.lists(st.integers(0, 14), max_size=4),
    st.none() | st.integers(998, 1_003),
    st.none() | st.integers(998, 1_003),
    _enrolments,
)
def test_stretches_that_were_summed_up_apart_are_judged_as_the_whole(records, cuts, end_ms, signed_ms, enrolments):
    joined = Streams(end_ms=end_ms)
    places = sorted({0, *(cut for cut in cuts if cut < len(records)), len(records)})
    for start, end in pairwise(places):
        stretch = Streams(end_ms=end_ms)
        for record in records[start:end]:
            stretch.add(record)
        # As an audit keeps them between two runs.
        kept = msgspec.json.decode(msgspec.json.encode(list(stretch.summaries.values())), type=list[StreamSummary])
        joined.join(kept, stretch.named_epochs)
    told = assess_streams(joined, from_ms=999, signed_ms=signed_ms, enrolments=enrolments)
    assert told == assess(records, from_ms=999, end_ms=end_ms, signed_ms=signed_ms, enrolments=enrolments)


@given(st.integers(1, 300), st.integers(1, 300))
def test_what_is_kept_of_a_stream_without_gaps_does_not_grow_with_it(first, second):
    template = Enforcer("a", epoch="1" * 32).record(Heartbeat(kind="periodic", version="1", spool_depth=0))
    streams = Streams()
    for seq in (*range(1, first + 1), *range(first + 1, first + second + 1)):
        streams.add(msgspec.structs.replace(template, seq=seq, running_count=0))
    (summary,) = streams.summaries.values()
    assert [(run.first, run.last) for run in summary.runs] == [(1, first + second)]
