"""Completeness of enforcers' streams, by example; a model checks it at random in `tests/property`."""

from __future__ import annotations

import msgspec
import pytest

from ledger.bodies import Body, Decision, Dropped, Heartbeat
from ledger.completeness import EnforcerStream, Verdict, assess, worst
from ledger.enrolments import Enrolment
from ledger.records import Record
from tests.support.streams import StreamWriter

_END = 2_000
"""End of the period in these tests; records are a millisecond apart, from 1,001 on."""


def written(*bodies: Body | str) -> list[Record]:
    return StreamWriter().write(*bodies)


def timed(records: list[Record], *times_ms: int) -> list[Record]:
    """Return records with other times."""
    return [msgspec.structs.replace(record, time_ms=ms) for record, ms in zip(records, times_ms, strict=True)]


def only(records: list[Record], end_ms: int | None = _END) -> EnforcerStream:
    (stream,) = assess(records, end_ms=end_ms)
    return stream


def without(records: list[Record], *numbers: int) -> list[Record]:
    return [record for record in records if record.seq not in numbers]


class TestVerdict:
    def test_a_closed_stream_without_gaps_is_complete(self) -> None:
        stream = only(written("start", "decision", "outcome", "decision", "outcome", "stop"), 1_006)
        assert stream.verdict is Verdict.COMPLETE
        assert (stream.records, stream.decisions, stream.last_seq) == (6, 2, 6)
        assert (stream.missing, stream.lost, stream.lost_decisions) == ((), (), 0)
        assert "all 6 numbers are accounted for" in stream.reason

    @pytest.mark.parametrize(("end_ms", "verdict"), [(1_002, "complete"), (1_003, "complete"), (1_004, "tail unknown")])
    def test_a_heartbeat_at_or_beyond_the_end_of_the_period_makes_it_complete(self, end_ms, verdict) -> None:
        stream = only(written("start", "decision", "periodic"), end_ms)
        assert stream.verdict == verdict
        assert stream.last_heartbeat_ms == 1_003

    def test_a_decision_beyond_the_end_of_the_period_does_not(self) -> None:
        assert only(written("start", "decision"), 1_002).verdict is Verdict.TAIL_UNKNOWN

    def test_an_open_stream_is_tail_unknown_without_a_period(self) -> None:
        assert only(written("start", "decision", "periodic"), None).verdict is Verdict.TAIL_UNKNOWN
        assert only(written("start", "decision", "stop"), None).verdict is Verdict.COMPLETE

    def test_an_orderly_stop_in_mid_period_does_not_pass_for_the_end_of_the_stream(self) -> None:
        # The attack: stop the gateway, start it again, and keep back all that it writes from then on.
        stream = only(written("start", "decision", "outcome", "stop"))
        assert stream.verdict is Verdict.TAIL_UNKNOWN
        assert "nothing shows that it did not go on" in stream.reason

    def test_a_heartbeat_of_a_clock_that_was_ahead_does_not_pass_for_the_end_of_the_period(self) -> None:
        # The attack: one heartbeat from the future, then the period's records, of which the tail is cut off.
        writer = StreamWriter()
        ahead = timed(writer.write("start", "periodic"), 1_001, _END + 500)
        inside = writer.write("decision", "outcome")
        assert only([*ahead, *inside]).verdict is Verdict.TAIL_UNKNOWN
        mended = timed(writer.write("periodic"), _END)
        assert only([*ahead, *inside, *mended]).verdict is Verdict.COMPLETE
        behind = timed(writer.write("outcome"), _END - 1)
        assert only([*ahead, *inside, *mended, *behind]).verdict is Verdict.TAIL_UNKNOWN

    def test_nothing_is_complete_while_the_period_is_not_over_by_the_logs_own_clock(self) -> None:
        # The attack: a checkpoint of today, a heartbeat from next year, and a period that ends in between.
        records = timed(written("start", "decision", "periodic"), 1_001, 1_002, _END)
        verdicts = [assess(records, end_ms=_END, signed_ms=signed_ms)[0].verdict for signed_ms in (_END - 1, _END)]
        assert verdicts == [Verdict.TAIL_UNKNOWN, Verdict.COMPLETE]

    def test_a_stop_that_is_not_the_last_record_closes_nothing(self) -> None:
        assert only(written("start", "stop", "start", "decision")).verdict is Verdict.TAIL_UNKNOWN

    def test_a_stream_without_a_heartbeat_is_tail_unknown(self) -> None:
        stream = only(written("decision"))
        assert stream.verdict is Verdict.TAIL_UNKNOWN
        assert stream.last_heartbeat_ms is None


class TestGap:
    @pytest.mark.parametrize("number", range(1, 6))
    def test_any_record_taken_out_before_the_last_is_a_gap(self, number) -> None:
        stream = only(without(written("start", "decision", "outcome", "decision", "outcome", "stop"), number))
        assert stream.verdict is Verdict.GAP
        assert stream.missing == ((number, number),)
        assert "1 of 6 sequence numbers are missing" in stream.reason

    def test_the_last_record_taken_out_leaves_the_tail_unknown(self) -> None:
        assert only(without(written("start", "decision", "stop"), 3)).verdict is Verdict.TAIL_UNKNOWN

    def test_missing_numbers_are_given_as_ranges(self) -> None:
        records = written(*["decision"] * 9, "stop")
        assert only(without(records, 1, 2, 5, 7, 8)).missing == ((1, 2), (5, 5), (7, 8))

    def test_a_number_that_occurs_twice_is_a_gap(self) -> None:
        records = written("start", "decision", "stop")
        stream = only([*records, records[1]])
        assert stream.verdict is Verdict.GAP
        assert "occurs twice" in stream.reason

    @pytest.mark.parametrize(("number", "count"), [(1, 1), (2, 0), (2, 2), (3, 0), (4, 3)])
    def test_a_running_count_that_disagrees_is_a_gap(self, number, count) -> None:
        # A decision replaced by a harmless record keeps the numbers whole; the count gives it away.
        records = written("start", "decision", "outcome", "stop")
        records[number - 1] = StreamWriter.recounted(records[number - 1], count)
        stream = only(records)
        assert stream.verdict is Verdict.GAP
        assert f"wrong at sequence number {number}" in stream.reason


class TestEnrolment:
    """What the log's key records say of enforcers, and what their records must then show."""

    @staticmethod
    def enrolled(*epochs: str, introduced_ms: int = 900, retired_ms: int | None = None) -> Enrolment:
        leaf = None if retired_ms is None else 50
        return Enrolment(
            enforcer_id="gateway-1",
            leaf=4,
            introduced_ms=introduced_ms,
            retired_leaf=leaf,
            retired_ms=retired_ms,
            epochs=set(epochs),
        )

    def test_an_enforcer_that_was_introduced_and_never_heard_of_is_not_overlooked(self) -> None:
        (stream,) = assess([], end_ms=_END, enrolments=[self.enrolled()])
        assert (stream.enforcer_id, stream.epoch, stream.verdict) == ("gateway-1", "", Verdict.TAIL_UNKNOWN)
        assert "introduced at leaf 4" in stream.reason

    @pytest.mark.parametrize(
        ("introduced_ms", "retired_ms", "streams"),
        [
            (_END - 1, None, 1),
            (_END, None, 0),
            (900, 1_000, 0),
            (900, 1_001, 1),
            (900, _END + 1, 1),
        ],
    )
    def test_it_is_asked_for_if_it_was_enrolled_in_the_period(self, introduced_ms, retired_ms, streams) -> None:
        enrolment = self.enrolled(introduced_ms=introduced_ms, retired_ms=retired_ms)
        assert len(assess([], from_ms=1_000, end_ms=_END, enrolments=[enrolment])) == streams

    @pytest.mark.parametrize(
        ("last", "from_ms", "retired_ms", "verdict"),
        [
            ("stop", 0, 1_500, Verdict.COMPLETE),
            ("stop", 0, _END + 5, Verdict.COMPLETE),
            # Retiring its key does not make up for what nobody saw of it.
            ("periodic", 0, 1_500, Verdict.TAIL_UNKNOWN),
            ("decision", 0, 1_500, Verdict.TAIL_UNKNOWN),
            ("decision", 1_500, 1_501, Verdict.TAIL_UNKNOWN),
            # A period that began afterwards holds nothing of it.
            ("decision", 1_500, 1_500, Verdict.COMPLETE),
            # By its own clock it wrote in the period: the two clocks contradict each other.
            ("decision", 1_002, 1_002, Verdict.TAIL_UNKNOWN),
        ],
    )
    def test_a_retired_key_ends_a_stream_that_stopped_or_is_of_before(self, last, from_ms, retired_ms, verdict) -> None:
        enrolment = self.enrolled("e" * 32, retired_ms=retired_ms)
        records = written("start", last)
        (stream,) = assess(records, from_ms=from_ms, end_ms=_END, enrolments=[enrolment])
        assert stream.verdict is verdict
        (silent,) = assess([], from_ms=from_ms, end_ms=_END, before=records[-1:], enrolments=[enrolment])
        assert silent.verdict is verdict

    def test_an_epoch_that_went_on_under_another_key_did_not_end_with_the_first(self) -> None:
        enrolments = [self.enrolled("e" * 32, retired_ms=1_500), self.enrolled("e" * 32, introduced_ms=1_600)]
        (stream,) = assess(written("start", "stop"), end_ms=_END, enrolments=enrolments)
        assert stream.verdict is Verdict.TAIL_UNKNOWN


class TestLostEpoch:
    """A heartbeat that names the epoch before its own."""

    _LOST = "2" * 32

    def records(self) -> list[Record]:
        start = Heartbeat(kind="start", version="0.1.0", spool_depth=0, previous_epoch=self._LOST)
        return timed(written(start, "decision", "periodic"), 1_001, 1_002, _END)

    def test_an_epoch_of_which_nothing_was_delivered_is_a_gap(self) -> None:
        present, lost = assess(self.records(), end_ms=_END)
        assert present.verdict is Verdict.COMPLETE
        assert (lost.epoch, lost.verdict, lost.records) == (self._LOST, Verdict.GAP, 0)
        assert "no record of it is here" in lost.reason

    def test_an_epoch_with_a_record_in_the_range_or_before_it_is_not(self) -> None:
        earlier = StreamWriter(epoch=self._LOST).write("start")
        for records, before in (([*earlier, *self.records()], []), (self.records(), earlier)):
            assert Verdict.GAP not in {one.verdict for one in assess(records, end_ms=_END, before=before)}

    def test_another_enforcers_epoch_of_that_name_does_not_stand_in_for_it(self) -> None:
        other = StreamWriter("gateway-2", epoch=self._LOST).write("start")
        assert Verdict.GAP in {one.verdict for one in assess([*other, *self.records()], end_ms=_END)}

    def test_a_heartbeat_before_the_range_is_believed_as_well(self) -> None:
        assert [one.verdict for one in assess([], end_ms=_END, before=self.records()[:1])][1] is Verdict.GAP


class TestDeclaredLoss:
    def test_it_is_a_gap_and_listed_apart_from_what_is_missing(self) -> None:
        writer = StreamWriter()
        records = writer.write("start", "decision")
        writer.lose(3, decisions=2)
        records += writer.write(Dropped(first_seq=3, last_seq=5, decisions=2, reason="spool_full"), "stop")
        stream = only(records)
        assert stream.verdict is Verdict.GAP
        assert (stream.missing, stream.lost, stream.lost_decisions) == ((), ((3, 5),), 2)
        assert "declared so by the enforcer" in stream.reason

    def test_silence_beside_it_is_named_first(self) -> None:
        writer = StreamWriter()
        records = writer.write("start", "decision")
        writer.lose(4)
        records += writer.write(Dropped(first_seq=3, last_seq=4, decisions=0, reason="spool_full"), "stop")
        stream = only(records)
        assert (stream.missing, stream.lost) == (((5, 6),), ((3, 4),))
        assert "2 of 8 sequence numbers are missing" in stream.reason

    @pytest.mark.parametrize(("first", "last"), [(1, 3), (9, 9), (9, 2), (1, 2**53 - 1)])
    def test_no_declaration_makes_a_stream_complete(self, first, last) -> None:
        # Neither a range of what arrived, nor of what never was, nor one that runs backwards.
        lie = Dropped(first_seq=first, last_seq=last, decisions=0, reason="spool_full")
        assert only(written("start", "decision", lie, "stop")).verdict is Verdict.GAP


class TestRange:
    """A range of a log that begins behind its first leaf, with each stream's last record before it."""

    _RECORDS = written("start", "decision", "outcome", "decision", "outcome", "stop")

    @pytest.mark.parametrize("cut", range(1, 6))
    def test_numbers_and_counts_go_on_from_the_record_before(self, cut) -> None:
        (stream,) = assess(self._RECORDS[cut:], before=[self._RECORDS[cut - 1]])
        assert stream.verdict is Verdict.COMPLETE
        assert stream.records == 6 - cut
        assert stream.decisions == sum(isinstance(record.body, Decision) for record in self._RECORDS[cut:])

    def test_without_the_record_before_the_range_has_a_gap(self) -> None:
        assert only(self._RECORDS[2:]).missing == ((1, 2),)

    def test_a_number_missing_at_the_seam_is_a_gap(self) -> None:
        (stream,) = assess(self._RECORDS[3:], before=[self._RECORDS[1]])
        assert (stream.verdict, stream.missing) == (Verdict.GAP, ((3, 3),))

    def test_a_count_that_does_not_go_on_is_a_gap(self) -> None:
        (stream,) = assess(self._RECORDS[2:], before=[StreamWriter.recounted(self._RECORDS[1], 0)])
        assert stream.verdict is Verdict.GAP
        assert "wrong at sequence number 3" in stream.reason

    def test_what_arrives_late_belongs_to_the_earlier_range(self) -> None:
        (stream,) = assess([self._RECORDS[1], *self._RECORDS[4:]], before=[self._RECORDS[3]])
        assert (stream.verdict, stream.records, stream.decisions) == (Verdict.COMPLETE, 2, 0)

    @pytest.mark.parametrize(
        ("kind", "end_ms", "verdict"),
        [
            ("stop", None, Verdict.COMPLETE),
            ("stop", 1_001, Verdict.COMPLETE),
            ("stop", 1_002, Verdict.TAIL_UNKNOWN),
            ("periodic", 1_001, Verdict.COMPLETE),
            ("periodic", 1_002, Verdict.TAIL_UNKNOWN),
            ("periodic", None, Verdict.TAIL_UNKNOWN),
            ("decision", 1_001, Verdict.TAIL_UNKNOWN),
        ],
    )
    def test_a_stream_of_which_nothing_arrived_is_not_forgotten(self, kind, end_ms, verdict) -> None:
        (stream,) = assess([], end_ms=end_ms, before=written(kind))
        assert stream.verdict is verdict
        assert (stream.records, stream.decisions, stream.last_seq) == (0, 0, 1)
        assert (stream.missing, stream.lost) == ((), ())


class TestStreams:
    def test_each_enforcer_and_epoch_is_a_stream_of_its_own(self) -> None:
        gateway = StreamWriter("gateway-1", epoch="a" * 32)
        again = StreamWriter("gateway-1", epoch="b" * 32)
        service = StreamWriter("api", epoch="a" * 32)
        records = [*gateway.write("start", "decision"), *service.write("start", "stop"), *again.write("start", "stop")]
        streams = assess(records)
        assert [(stream.enforcer_id, stream.epoch[0], stream.verdict) for stream in streams] == [
            ("api", "a", Verdict.COMPLETE),
            ("gateway-1", "a", Verdict.TAIL_UNKNOWN),
            ("gateway-1", "b", Verdict.COMPLETE),
        ]

    def test_the_order_of_arrival_does_not_matter(self) -> None:
        records = written("start", *["decision", "outcome"] * 5, "stop")
        for other in (records[::-1], records[5:] + records[:5], records[::2] + records[1::2]):
            assert only(other) == only(records)

    def test_no_records_are_no_streams(self) -> None:
        assert assess([]) == []

    @pytest.mark.parametrize(
        ("verdicts", "expected"),
        [
            ([], "tail unknown"),
            (["complete"], "complete"),
            (["complete", "tail unknown"], "tail unknown"),
            (["gap", "complete", "tail unknown"], "gap"),
        ],
    )
    def test_the_worst_verdict_is_that_of_all(self, verdicts, expected) -> None:
        samples = {
            "complete": written("stop"),
            "tail unknown": written("decision"),
            "gap": without(written("decision", "stop"), 1),
        }
        assert worst([only(samples[verdict], None) for verdict in verdicts]) == expected


def test_the_writer_of_these_tests_counts_as_an_enforcer_does() -> None:
    records = written("start", "decision", "outcome", "decision")
    assert [record.seq for record in records] == [1, 2, 3, 4]
    assert [record.running_count for record in records] == [0, 1, 1, 2]
    assert [type(record.body) for record in records[:2]] == [Heartbeat, Decision]
