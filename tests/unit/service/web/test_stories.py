"""A session is told in order, in pages, with its outcomes and with what is missing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ledger.bodies import Outcome
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
