"""What answers leave out: said in words, and only where it is so."""

from __future__ import annotations

import pytest

from ledger.bodies import SessionEnd
from ledger.completeness import Verdict
from service.left_out import counted_calls, of_a_page, of_replays, of_the_pruned, of_the_tail
from tests.support.ledger import Enforcer, make_decision


def test_a_page_that_is_cut_says_so_and_a_whole_one_says_nothing():
    assert of_a_page("older decisions", 50, more=True) == [
        "older decisions: at most 50 on a page; ask again with next_cursor"
    ]
    assert of_a_page("older decisions", 50, more=False) == []


def test_records_without_a_checkpoint_are_counted():
    assert of_the_tail(10, 10) == []
    assert of_the_tail(12, 10)[0].startswith("proofs of the newest 2 records")


def test_what_is_below_the_minimum_index_is_said_and_of_a_whole_log_nothing():
    assert of_the_pruned(0) == []
    assert of_the_pruned(512) == ["records below leaf 512: the log was pruned by its published minimum index"]


def test_decisions_that_were_not_replayed_are_counted_by_the_reason():
    assert of_replays([("exact", True), ("exact", False)]) == []
    assert of_replays([("erased", None), ("exact", True), ("erased", None), ("missing fact", None)]) == [
        "2 of the decisions asked for: not replayed, erased",
        "1 of the decisions asked for: not replayed, missing fact",
    ]


def end(calls: int) -> SessionEnd:
    return SessionEnd(session="5" * 32, calls=calls, denied=0, reason="idle", agent="bot", started_ms=1)


@pytest.mark.parametrize(
    ("decisions", "ends", "verdict", "reason"),
    [
        (3, [], Verdict.TAIL_UNKNOWN, "no record says that the session has ended"),
        (3, [3], Verdict.COMPLETE, "all 3 calls that the enforcer counted are here"),
        (3, [2, 3], Verdict.COMPLETE, "all 3 calls that the enforcer counted are here"),
        (3, [4], Verdict.GAP, "1 of 4 calls have no decision here"),
        (3, [2], Verdict.TAIL_UNKNOWN, "1 calls came after its end, and no later end counts them"),
        (0, [2], Verdict.GAP, "2 of 2 calls have no decision here"),
    ],
)
def test_a_sessions_calls_are_held_to_what_its_enforcer_counted(decisions, ends, verdict, reason):
    writer = Enforcer("gateway-1")
    records = [writer.record(make_decision()[0]) for _ in range(decisions)] + [writer.record(end(n)) for n in ends]
    found = counted_calls(records)
    assert (found.verdict, found.reason, found.decisions) == (verdict, reason, decisions)
