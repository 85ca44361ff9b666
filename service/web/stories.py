"""A session's story: its decisions in log order, each with what became of the call, its end, and what is missing.

What belongs to it and names no session (`service.session_related`) stands at its place: steps of an approval with their
call, all else by itself.

Pure but for the two functions that it is given. A session may be long; it is told in pages, and each page says for its
own stretch whether records of the same enforcers are missing.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.bodies import Approval, Decision, Outcome, SessionEnd
from ledger.completeness import SessionCount
from ledger.records import Record, encode_record
from service.left_out import counted_calls
from service.narrative import about_call, about_outcome, event_line
from service.web.views import OutcomeView, Row, decision_row, outcome_view

__all__ = ["STORY_ROWS", "Aside", "EndView", "Step", "Story", "Stream", "tell"]

STORY_ROWS: Final = 200
"""Records on one page of a story."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndView:
    """An end of the session, as its enforcer told it.

    Attributes:
        leaf: Its leaf index.
        time_ms: The enforcer's clock.
        reason: ``client``, ``idle``, ``killed`` or ``shutdown``.
        calls: Calls that it counted.
        denied: Calls among them that were not let through.
    """

    leaf: int
    time_ms: int
    reason: str
    calls: int
    denied: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """Something that happened beside the session's own records and belongs to its story.

    Attributes:
        leaf: Its leaf index.
        time_ms: The clock of whoever recorded it.
        text: What it says.
    """

    leaf: int
    time_ms: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One decision, one end, one thing beside or, where its decision stands on an earlier page, one outcome.

    Attributes:
        row: The decision, or None for what stands alone.
        outcome: What became of the call, if its record stands on this page.
        decision_id: The decision's id; empty for an end.
        end: The end, or None.
        notes: What the decision's record says besides: what was found, the tool, what was unusual.
        approvals: Steps of its approval, in order.
        outcome_notes: What the outcome's record says besides.
        aside: What happened beside, or None.
    """

    row: Row | None
    outcome: OutcomeView | None
    decision_id: str
    end: EndView | None = None
    notes: tuple[str, ...] = ()
    approvals: tuple[Aside, ...] = ()
    outcome_notes: tuple[str, ...] = ()
    aside: Aside | None = None


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
        calls: What the ends say of the calls of the whole session; only on the last page, where they have been told.
    """

    steps: tuple[Step, ...]
    streams: tuple[Stream, ...]
    records: int
    first: int
    last: int
    next: int | None
    calls: SessionCount | None


def tell(
    indexes: Sequence[int],
    after: int | None,
    read: Callable[[Sequence[int]], Sequence[Record]],
    gaps: Callable[[Sequence[Record]], Sequence[dict[str, Any]]],
    related: Sequence[tuple[int, Record]] = (),
) -> Story:
    """Return one page of a session.

    Args:
        indexes: Leaf indexes of all of its records, in order.
        after: Leaf index that the page begins after; None for the first page.
        read: Returns the records at leaf indexes.
        gaps: Returns what is missing between records, as `service.api.sessions` says it.
        related: What belongs to the story besides, by leaf index. A page tells what lies before its last record and
            after the page before; the first page also what came before the session, the last what followed.
    """
    done = 0 if after is None else sum(index <= after for index in indexes)
    shown = indexes[done : done + STORY_ROWS]
    records = read(shown)
    last = done + len(shown)
    # The record before the page belongs to the stretch, or what is missing between two pages would be on neither.
    before = read(indexes[max(0, done - 1) : done])
    more = bool(shown) and last < len(indexes)
    beside = [
        (index, record)
        for index, record in related
        if (done == 0 or index > indexes[done - 1]) and (not more or index < shown[-1])
    ]
    return Story(
        steps=_steps(list(zip(shown, records, strict=True)), beside, related),
        streams=tuple(Stream(**stream) for stream in gaps([*before, *records])),
        records=len(indexes),
        first=done + 1 if shown else done,
        last=last,
        next=shown[-1] if more else None,
        calls=None if more else counted_calls(_all(indexes, read)),
    )


def _all(indexes: Sequence[int], read: Callable[[Sequence[int]], Sequence[Record]]) -> Iterator[Record]:
    """Yield every record of a session, read in parts: it may be longer than what should be in memory at once."""
    for start in range(0, len(indexes), STORY_ROWS):
        yield from read(indexes[start : start + STORY_ROWS])


def _body(record: Record) -> dict[str, Any]:
    """Return a record's body as JSON has it."""
    body: dict[str, Any] = json.loads(encode_record(record))["body"]
    return body


def _aside(index: int, record: Record) -> Aside:
    return Aside(leaf=index, time_ms=record.time_ms, text=event_line(_body(record)))


def _steps(
    found: Sequence[tuple[int, Record]], beside: Sequence[tuple[int, Record]], related: Sequence[tuple[int, Record]]
) -> tuple[Step, ...]:
    outcomes = {record.body.decision_id: (index, record) for index, record in found if isinstance(record.body, Outcome)}
    decided = {record.record_id for _, record in found if isinstance(record.body, Decision)}
    approvals: defaultdict[str, list[Aside]] = defaultdict(list)
    for index, record in related:
        if isinstance(record.body, Approval):
            approvals[record.body.decision_id].append(_aside(index, record))
    steps = []
    for index, record in sorted([*found, *beside], key=lambda item: item[0]):
        body = record.body
        if isinstance(body, Decision):
            steps.append(_call(index, record, body, outcomes.get(record.record_id), approvals[record.record_id]))
        elif isinstance(body, Outcome):
            if body.decision_id not in decided:
                view, notes = outcome_view(index, record, body), tuple(about_outcome(_body(record)))
                steps.append(Step(row=None, outcome=view, decision_id=body.decision_id, outcome_notes=notes))
        elif isinstance(body, SessionEnd):
            end = EndView(leaf=index, time_ms=record.time_ms, reason=body.reason, calls=body.calls, denied=body.denied)
            steps.append(Step(row=None, outcome=None, decision_id="", end=end))
        elif not isinstance(body, Approval):
            steps.append(Step(row=None, outcome=None, decision_id="", aside=_aside(index, record)))
    return tuple(steps)


def _call(
    index: int, record: Record, body: Decision, outcome: tuple[int, Record] | None, approvals: Sequence[Aside]
) -> Step:
    view: OutcomeView | None = None
    outcome_notes: tuple[str, ...] = ()
    if outcome is not None and isinstance(outcome[1].body, Outcome):
        view, outcome_notes = outcome_view(*outcome, outcome[1].body), tuple(about_outcome(_body(outcome[1])))
    return Step(
        row=decision_row(index, record, body),
        outcome=view,
        decision_id=record.record_id,
        notes=tuple(about_call(_body(record))),
        approvals=tuple(approvals),
        outcome_notes=outcome_notes,
    )
