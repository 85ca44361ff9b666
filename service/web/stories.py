"""A session's story: its decisions in log order, each with what became of the call, and what is missing in between.

Pure but for the two functions that it is given. A session may be long; it is told in pages, and each page says for its
own stretch whether records of the same enforcers are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.bodies import Decision, Outcome
from ledger.records import Record
from service.web.views import OutcomeView, Row, decision_row, outcome_view

__all__ = ["STORY_ROWS", "Step", "Story", "Stream", "tell"]

STORY_ROWS: Final = 200
"""Records on one page of a story."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision or, where its decision stands on an earlier page, one outcome.

    Attributes:
        row: The decision, or None for an outcome that stands alone.
        outcome: What became of the call, if its record stands on this page.
        decision_id: The decision's id.
    """

    row: Row | None
    outcome: OutcomeView | None
    decision_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """Whether an enforcer's numbers are complete between the first and last record of this page.

    Attributes:
        enforcer_id: Who wrote.
        epoch: In which epoch.
        first_seq: Number of the first record.
        last_seq: Number of the last.
        missing: Numbers between them that are not in the log.
    """

    enforcer_id: str
    epoch: str
    first_seq: int
    last_seq: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One page of a session.

    Attributes:
        steps: In log order.
        streams: One for each enforcer and epoch.
        records: Records of the whole session.
        first: Number of the page's first record within the session, from 1.
        last: Number of its last.
        next: Leaf index after which the next page begins, or None on the last.
    """

    steps: tuple[Step, ...]
    streams: tuple[Stream, ...]
    records: int
    first: int
    last: int
    next: int | None


def tell(
    indexes: Sequence[int],
    after: int | None,
    read: Callable[[Sequence[int]], Sequence[Record]],
    gaps: Callable[[Sequence[Record]], Sequence[dict[str, Any]]],
) -> Story:
    """Return one page of a session.

    Args:
        indexes: Leaf indexes of all of its decisions and outcomes, in order.
        after: Leaf index that the page begins after; None for the first page.
        read: Returns the records at leaf indexes.
        gaps: Returns what is missing between records, as `service.api.sessions` says it.
    """
    done = 0 if after is None else sum(index <= after for index in indexes)
    shown = indexes[done : done + STORY_ROWS]
    records = read(shown)
    last = done + len(shown)
    # The record before the page belongs to the stretch, or what is missing between two pages would be on neither.
    before = read(indexes[max(0, done - 1) : done])
    return Story(
        steps=_steps(list(zip(shown, records, strict=True))),
        streams=tuple(Stream(**stream) for stream in gaps([*before, *records])),
        records=len(indexes),
        first=done + 1 if shown else done,
        last=last,
        next=shown[-1] if shown and last < len(indexes) else None,
    )


def _steps(found: Sequence[tuple[int, Record]]) -> tuple[Step, ...]:
    outcomes = {
        record.body.decision_id: outcome_view(index, record, record.body)
        for index, record in found
        if isinstance(record.body, Outcome)
    }
    decided = {record.record_id for _, record in found if isinstance(record.body, Decision)}
    steps = []
    for index, record in found:
        body = record.body
        if isinstance(body, Decision):
            row = decision_row(index, record, body)
            steps.append(Step(row=row, outcome=outcomes.get(record.record_id), decision_id=record.record_id))
        elif isinstance(body, Outcome) and body.decision_id not in decided:
            steps.append(Step(row=None, outcome=outcomes[body.decision_id], decision_id=body.decision_id))
    return tuple(steps)
