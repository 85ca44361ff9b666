"""Changes of what is enforced, as the log's records tell them: by two people, each step once, by whose word it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ledger.bodies import ModeEvent
from ledger.errors import ConflictError, NotFoundError
from ledger.records import Record
from service.mode_book import ModeBook, ModeState
from tests.vectors.samples import unsigned

SERVICE, GATEWAY = "service-1", "gateway-1"
ALICE, BOB = "0a" * 16, "0b" * 16
CHANGE, OTHER = "018f2f5e-7a8b-7c1d-9e2f-0123456789ab", "018f2f5e-7a8b-7c1d-9e2f-0123456789ac"
NOW, LATER, LAPSES = 1_000, 2_000, 10_000
KEY = "ab" * 8


def record(action: Any, *, by: str = SERVICE, key: str = KEY, time_ms: int = NOW, **members: Any) -> Record:
    value = unsigned("mode", "minimal") | {"signature": "A" * 86 + "=="}
    sample = msgspec.json.decode(msgspec.json.encode(value), type=Record)
    body = ModeEvent(**{"change_id": CHANGE, "server": "finance", "mode": "observe", "action": action, **members})
    return msgspec.structs.replace(sample, enforcer_id=by, pseudonym_key_id=key, time_ms=time_ms, body=body)


PROPOSED = record("proposed", actor=ALICE, expires_ms=LAPSES)
APPROVED = record("approved", actor=BOB)
TAKEN_UP = record("in_force", by=GATEWAY, previous="enforce")


def book(*records: Record) -> ModeBook:
    return ModeBook(SERVICE, enumerate(records))


def state(*records: Record, now_ms: int = LATER) -> ModeState:
    return book(*records).get(CHANGE).state(now_ms)


@pytest.mark.parametrize(
    ("records", "wanted"),
    [
        ([PROPOSED], ModeState.PROPOSED),
        ([PROPOSED, APPROVED], ModeState.APPROVED),
        ([PROPOSED, record("rejected", actor=BOB)], ModeState.REJECTED),
        ([PROPOSED, APPROVED, record("rejected", actor=ALICE)], ModeState.REJECTED),
        ([PROPOSED, APPROVED, TAKEN_UP], ModeState.IN_FORCE),
        ([PROPOSED, TAKEN_UP], ModeState.UNAPPROVED),
        ([PROPOSED, TAKEN_UP, APPROVED], ModeState.UNAPPROVED),
        ([TAKEN_UP], ModeState.UNAPPROVED),
        ([TAKEN_UP, record("reviewed", actor=BOB)], ModeState.IN_FORCE),
        ([record("in_force", by=GATEWAY)], ModeState.UNREVIEWED),
        ([record("in_force", by=GATEWAY, mode="enforce", previous="observe")], ModeState.UNREVIEWED),
        ([record("in_force", by=GATEWAY), record("reviewed", actor=BOB)], ModeState.IN_FORCE),
    ],
)
def test_a_change_is_where_its_records_have_brought_it(records: list[Record], wanted: ModeState) -> None:
    assert state(*records) is wanted


@pytest.mark.parametrize("records", [[PROPOSED], [PROPOSED, APPROVED]])
def test_what_nobody_took_up_in_time_has_lapsed(records: list[Record]) -> None:
    assert state(*records, now_ms=LAPSES) is ModeState.LAPSED
    assert not book(*records).get(CHANGE).may_be_taken_up(GATEWAY, LAPSES)


@pytest.mark.parametrize(
    "approval",
    [
        record("approved", actor=ALICE),
        record("approved", actor=BOB, key="cd" * 8),
        record("approved", actor=BOB, by=GATEWAY),
        record("approved"),
        record("reviewed", actor=BOB),
    ],
    ids=["by its proposer", "who may be its proposer", "by an enforcer", "by nobody", "reviewed, not approved"],
)
def test_what_is_no_word_of_a_second_person_approves_nothing(approval: Record) -> None:
    life = book(PROPOSED, approval).get(CHANGE)
    assert life.state(LATER) is ModeState.PROPOSED
    assert not life.may_be_taken_up(GATEWAY, LATER)


@pytest.mark.parametrize("action", ["proposed", "rejected", "reviewed"])
def test_an_enforcer_says_nothing_of_what_people_did(action: str) -> None:
    forged = record(action, by=GATEWAY, actor=ALICE, expires_ms=LAPSES)
    assert book(forged).all == []
    assert book(PROPOSED, APPROVED, forged).get(CHANGE).state(LATER) is ModeState.APPROVED


def test_an_id_is_of_one_change_and_a_second_proposal_of_it_changes_nothing() -> None:
    wider = record("proposed", actor=BOB, server="payroll", expires_ms=LAPSES * 9)
    life = book(PROPOSED, wider, APPROVED).get(CHANGE)
    assert (life.server, life.proposed_by, life.expires_ms) == ("finance", ALICE, LAPSES)


def test_another_change_under_an_approved_id_is_not_taken_up() -> None:
    assert not book(PROPOSED, APPROVED, record("in_force", by=GATEWAY, server="payroll")).get(CHANGE).taken_up


def test_each_enforcer_takes_a_change_up_once() -> None:
    life = book(PROPOSED, APPROVED, TAKEN_UP).get(CHANGE)
    assert not life.may_be_taken_up(GATEWAY, LATER)
    assert life.may_be_taken_up("gateway-2", LATER)


def test_a_change_for_one_enforcer_is_for_no_other() -> None:
    life = book(record("proposed", actor=ALICE, expires_ms=LAPSES, enforcer=GATEWAY), APPROVED).get(CHANGE)
    assert (life.may_be_taken_up(GATEWAY, LATER), life.may_be_taken_up("gateway-2", LATER)) == (True, False)


@pytest.mark.parametrize(
    "records",
    [
        [record("proposed", actor=ALICE, expires_ms=LAPSES, enforcer=GATEWAY), APPROVED],
        [PROPOSED, APPROVED, record("in_force", by="gateway-2", previous="enforce")],
        [PROPOSED, APPROVED, record("rejected", actor=ALICE)],
        [record("proposed", actor=ALICE, expires_ms=LATER), APPROVED],
    ],
    ids=["for another gateway", "a second time", "after it was rejected", "after it had lapsed"],
)
def test_what_an_approval_does_not_cover_is_taken_up_without_one(records: list[Record]) -> None:
    taken_up = record("in_force", by="gateway-2", previous="enforce", time_ms=LATER)
    life = book(*records, taken_up).get(CHANGE)
    assert not life.taken_up[-1].approved
    assert life.state(LATER) is ModeState.UNAPPROVED


def test_the_next_step_is_approval_by_somebody_else() -> None:
    assert book(PROPOSED).next_step(CHANGE, "approved", BOB, KEY, LATER) == "approved"
    assert book(PROPOSED).next_step(CHANGE, "rejected", ALICE, KEY, LATER) == "rejected"
    assert book(TAKEN_UP).next_step(CHANGE, "approved", BOB, KEY, LATER) == "reviewed"


@pytest.mark.parametrize(
    ("records", "verdict", "actor", "key"),
    [
        ([PROPOSED], "approved", ALICE, KEY),
        ([PROPOSED], "approved", BOB, "cd" * 8),
        ([PROPOSED, APPROVED], "approved", BOB, KEY),
        ([PROPOSED, APPROVED, TAKEN_UP], "rejected", BOB, KEY),
        ([PROPOSED, record("rejected", actor=BOB)], "approved", BOB, KEY),
        ([TAKEN_UP], "rejected", BOB, KEY),
    ],
)
def test_a_step_that_may_not_be_taken_is_a_conflict(records: list[Record], verdict: str, actor: str, key: str) -> None:
    with pytest.raises(ConflictError):
        book(*records).next_step(CHANGE, verdict, actor, key, LATER)


def test_a_change_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        book(PROPOSED).next_step(OTHER, "approved", BOB, KEY, LATER)


def test_other_records_are_no_steps() -> None:
    heartbeat = msgspec.json.decode(
        msgspec.json.encode(unsigned("heartbeat", "full") | {"signature": "A" * 86 + "=="}), type=Record
    )
    assert book(heartbeat).all == []
