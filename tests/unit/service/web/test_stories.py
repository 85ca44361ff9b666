"""A session is told in order, in pages, with its outcomes and with what is missing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ledger.bodies import Approval, Containment, Outcome, SessionEnd, ToolEvent
from ledger.records import Record
from service.web import stories
from service.web.stories import tell
from tests.support.ledger import Enforcer, make_decision


def log(length: int) -> list[Record]:
    """Return decisions at even leaves and the outcome of each right behind it."""
    enforcer = Enforcer("gateway-1")
    records: list[Record] = []
    while len(records) < length:
        decided = enforcer.record(make_decision(enforcement="allow", agent=f"agent-{len(records)}")[0])
        records.append(decided)
        records.append(enforcer.record(Outcome(decision_id=decided.record_id, status="completed", session="5" * 32)))
    return records[:length]


def spans(records: Sequence[Record]) -> list[dict[str, object]]:
    numbers = [record.seq for record in records]
    return [
        {
            "enforcer_id": "gateway-1",
            "epoch": "0" * 32,
            "first_seq": min(numbers),
            "last_seq": max(numbers),
            "missing": max(numbers) - min(numbers) + 1 - len(set(numbers)),
        }
    ]


def told(records: list[Record], after: int | None = None, indexes: Sequence[int] | None = None):
    return tell(
        range(len(records)) if indexes is None else indexes,
        after,
        lambda wanted: [records[index] for index in wanted],
        spans,
    )


def test_each_decision_is_a_step_with_its_outcome():
    story = told(log(6))
    assert [(step.row.agent, step.outcome.status) for step in story.steps] == [
        ("agent-0", "completed"),
        ("agent-2", "completed"),
        ("agent-4", "completed"),
    ]
    assert (story.records, story.first, story.last, story.next) == (6, 1, 6, None)


def test_a_decision_without_an_outcome_says_so():
    assert told(log(5)).steps[-1].outcome is None


def test_a_missing_number_is_counted():
    records = log(6)
    story = told(records, indexes=[0, 1, 4, 5])
    assert story.streams[0].missing == 2


@pytest.fixture
def short_pages(monkeypatch):
    monkeypatch.setattr(stories, "STORY_ROWS", 3)


@pytest.mark.usefixtures("short_pages")
def test_a_long_session_is_told_in_pages_that_miss_nothing():
    records = log(8)
    seen: list[int] = []
    after: int | None = None
    for _ in range(5):
        story = told(records, after)
        seen += [step.row.leaf for step in story.steps if step.row]
        seen += [step.outcome.leaf for step in story.steps if step.outcome]
        after = story.next
        if after is None:
            break
    assert sorted(seen) == list(range(8))
    assert (story.first, story.last) == (7, 8)


@pytest.mark.usefixtures("short_pages")
def test_an_outcome_whose_decision_is_on_an_earlier_page_stands_alone():
    records = log(8)
    first = told(records, after=2).steps[0]
    assert first.row is None
    assert first.outcome.leaf == 3
    assert first.decision_id == records[2].record_id


@pytest.mark.usefixtures("short_pages")
def test_what_is_missing_between_two_pages_is_on_the_second():
    records = log(8)
    story = told(records, after=2, indexes=[0, 1, 2, 5, 6, 7])
    assert story.streams[0].first_seq == 3
    assert story.streams[0].missing == 2


def test_a_place_beyond_the_end_is_an_empty_page():
    story = told(log(4), after=99)
    assert story.steps == ()
    assert story.next is None


def ended(records: list[Record], *, calls: int) -> list[Record]:
    end = SessionEnd(session="5" * 32, calls=calls, denied=1, reason="idle", agent="agent-0", started_ms=1)
    enforcer = Enforcer("gateway-1")
    enforcer.seq = records[-1].seq
    return [*records, enforcer.record(end)]


def test_a_session_that_ended_tells_its_end_last_and_that_every_counted_call_is_here():
    story = told(ended(log(4), calls=2))
    last = story.steps[-1]
    assert (last.row, last.outcome, last.end.leaf) == (None, None, 4)
    assert (last.end.reason, last.end.calls, last.end.denied) == ("idle", 2, 1)
    assert (story.calls.verdict, story.calls.counted) == ("complete", 2)


def test_a_call_that_was_withheld_is_missing_from_the_count():
    story = told(ended(log(4), calls=3))
    assert (story.calls.verdict, story.calls.reason) == ("gap", "1 of 3 calls have no decision here")


def test_a_session_without_an_end_has_an_unknown_tail():
    assert told(log(4)).calls.verdict == "tail unknown"


@pytest.mark.usefixtures("short_pages")
def test_calls_are_counted_over_the_whole_session_on_its_last_page_alone():
    records = ended(log(6), calls=3)
    assert [told(records, after).calls for after in (None, 2)] == [None, None]
    assert told(records, after=5).calls.verdict == "complete"


def with_asides(after: int | None = None):
    """A log in which a tool is quarantined before a session, a call of it is held, and somebody contains the agent."""
    records = log(4)
    held_id = records[2].record_id
    enforcer = Enforcer("gateway-2")
    step = {"approval_id": held_id, "decision_id": held_id, "binding": "e" * 64}
    beside = [
        (0, enforcer.record(ToolEvent(action="quarantined", server="mail", tool="count", reasons=("changed",)))),
        (13, enforcer.record(Approval(action="held", needed=1, expires_ms=5, **step))),
        (15, enforcer.record(Approval(action="denied", actor="7" * 32, actor_role="approver", **step))),
        (99, enforcer.record(Containment(action="expired", containment_id=held_id, actor="7" * 32, actor_role="x"))),
    ]
    by_leaf = dict(zip((10, 11, 12, 20), records, strict=True))
    read = lambda wanted: [by_leaf[index] for index in wanted]  # noqa: E731  # one line is enough
    return tell([10, 11, 12, 20], after, read, spans, beside)


def test_what_happened_beside_stands_at_its_place_and_steps_of_an_approval_with_their_call():
    story = with_asides()
    assert [step.aside.leaf if step.aside else step.row.leaf for step in story.steps] == [0, 10, 12, 99]
    assert [one.leaf for one in story.steps[2].approvals] == [13, 15]
    assert "a person denied it" in story.steps[2].approvals[1].text
    assert story.steps[1].approvals == ()
    assert any(note.startswith("decided: ") for note in story.steps[1].notes)


def test_what_happened_beside_is_told_on_one_page_and_no_other(monkeypatch):
    monkeypatch.setattr(stories, "STORY_ROWS", 2)
    first, last = with_asides(), with_asides(11)
    assert [step.aside.leaf for step in first.steps if step.aside] == [0]
    assert [step.aside.leaf for step in last.steps if step.aside] == [99]
    assert first.next == 11
