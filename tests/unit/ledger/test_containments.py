"""Containments follow from the log's records: ordered by one, ended by two or by time; kills until a release."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from ledger.bodies import AccessEvent, Containment
from ledger.body_fields import Commitment
from ledger.containments import REVIEW_MS, ContainmentBook, Order
from ledger.errors import ConflictError, NotFoundError
from ledger.records import Record
from ledger.restrictions import MAX_LIFTED, NO_VERSION
from tests.support.ledger import Enforcer, make_decision

SERVICE = "ledger"
ANNA, BEN, CLEO = "a" * 32, "b" * 32, "c" * 32
ORDER = "01990000-0000-7000-8000-00000000000a"
OLD_KEY, NEW_KEY = "0" * 16, "1" * 16
COMMENT = Commitment(digest="c" * 64, size_bytes=12)
START_MS, END_MS = 1_000_000, 2_000_000


class Log:
    """Writes records one by one, and reads them into a book."""

    def __init__(self) -> None:
        self.book = ContainmentBook(SERVICE)
        self.records: list[Record] = []
        self._writers = {
            name: Enforcer(enforcer_id=name, seed=seed) for name, seed in ((SERVICE, 1), ("gw-1", 2), ("gw-2", 3))
        }

    def add(self, body: Any, *, by: str = SERVICE, at: int = START_MS, key_id: str | None = OLD_KEY) -> str:
        record = self._writers[by].record(body)
        record = msgspec.structs.replace(record, time_ms=at, pseudonym_key_id=key_id)
        self.book.take(len(self.records), record)
        self.records.append(record)
        return record.record_id

    def order(self, order_id: str = ORDER, **changes: Any) -> None:
        wanted = {"scope": "agent", "agent": "bot", "until_ms": END_MS, "comment": COMMENT, **changes}
        self.add(event("ordered", ANNA, order_id, **wanted))

    def step(self, action: str, actor: str = ANNA, order_id: str = ORDER, **options: Any) -> None:
        self.add(event(action, actor, order_id), **options)

    def kill(self, agent: str = "bot", user: str | None = BEN, by: str = "gw-1", **changes: Any) -> str:
        wanted = {"agent": agent, "user": user, "enforcement": "kill", "decision": "DENY", "mode": "enforce", **changes}
        body, _ = make_decision(**wanted)
        return self.add(body, by=by)

    def release_block(self, decision_id: str, by: str = "gw-1", **changes: Any) -> None:
        wanted = {
            "action": "release_block",
            "actor": CLEO,
            "actor_role": "operator",
            "target_kind": "session",
            "target_id": decision_id,
            "result": "ok",
            **changes,
        }
        self.add(AccessEvent(**wanted), by=by)

    @property
    def stopped(self) -> list[str]:
        return [one.restriction_id for one in self.book.current.restrictions]


def event(action: str, actor: str = ANNA, order_id: str = ORDER, **members: Any) -> Containment:
    return Containment(action=action, containment_id=order_id, actor=actor, actor_role="responder", **members)


@pytest.fixture
def log() -> Log:
    return Log()


# --- containments ----------------------------------------------------------------------------------------------------


def test_an_order_is_in_force_from_its_record_on_and_the_version_is_its_leaf(log):
    log.add(make_decision()[0], by="gw-1")
    assert (log.stopped, log.book.current.version) == ([], NO_VERSION)
    log.order()
    (one,) = log.book.current.restrictions
    assert (one.scope, one.agent, one.since_ms, one.until_ms, one.kind) == (
        "agent", "bot", START_MS, END_MS, "containment",
    )  # fmt: skip
    assert log.book.current.version == 1


@pytest.mark.parametrize(
    "changes", [{"until_ms": None}, {"scope": None}], ids=["without an end", "without anything that is stopped"]
)
def test_an_order_that_lacks_what_it_must_say_orders_nothing(log, changes):
    log.order(**changes)
    assert log.stopped == []


def test_an_order_by_another_than_the_service_orders_nothing(log):
    log.add(event("ordered", scope="all", until_ms=END_MS), by="gw-1")
    assert log.stopped == []


def test_a_second_order_of_one_id_changes_nothing_and_brings_nothing_back(log):
    log.order()
    log.order(agent="other")
    assert [one.agent for one in log.book.current.restrictions] == ["bot"]
    log.step("release_requested")
    log.step("released", BEN)
    log.order()
    assert log.stopped == []


def test_two_people_end_it(log):
    log.order()
    before = log.book.current.version
    log.step("release_requested", ANNA)
    assert (log.stopped, log.book.current.version) == ([ORDER], before)
    log.step("released", BEN)
    assert (log.stopped, log.book.current.version) == ([], 2)
    order = log.book.get(ORDER)
    assert (order.ended, order.ended_leaf, order.requested_by) == ("released", 2, ANNA)


@pytest.mark.parametrize(
    "steps",
    [
        [("released", ANNA, OLD_KEY)],
        [("released", BEN, OLD_KEY)],
        [("release_requested", ANNA, OLD_KEY), ("released", ANNA, OLD_KEY)],
        [("release_requested", ANNA, OLD_KEY), ("release_requested", BEN, OLD_KEY)],
        [("release_requested", ANNA, OLD_KEY), ("release_requested", BEN, OLD_KEY), ("released", ANNA, OLD_KEY)],
        # Under another key the same person has another pseudonym.
        [("release_requested", ANNA, OLD_KEY), ("released", BEN, NEW_KEY)],
        [("release_requested", ANNA, OLD_KEY), ("released", BEN, None)],
        [("release_requested", ANNA, OLD_KEY), ("release_requested", BEN, NEW_KEY), ("released", BEN, NEW_KEY)],
    ],
)
def test_nobody_alone_ends_it(log, steps):
    log.order()
    for action, actor, key_id in steps:
        log.step(action, actor, key_id=key_id)
    assert log.stopped == [ORDER]


def test_nobody_but_the_service_writes_that_it_ended(log):
    log.order()
    log.step("release_requested", ANNA, by="gw-1")
    log.step("released", BEN, by="gw-1")
    log.step("expired", CLEO, by="gw-1", at=END_MS)
    log.step("release_requested", ANNA)
    log.step("released", BEN, by="gw-2")
    assert log.stopped == [ORDER]


@pytest.mark.parametrize(("at", "left"), [(END_MS - 1, [ORDER]), (END_MS, []), (END_MS + 1, [])])
def test_it_expires_at_its_time_and_not_before(log, at, left):
    log.order()
    assert [order.order_id for order in log.book.due(at)] == ([] if left else [ORDER])
    log.step("expired", CLEO, at=at)
    assert log.stopped == left
    if not left:
        assert log.book.get(ORDER).ended == "expired"
        assert log.book.due(at) == []


def test_what_has_ended_stays_ended(log):
    log.order()
    log.step("expired", CLEO, at=END_MS)
    version = log.book.current.version
    log.step("release_requested")
    log.step("released", BEN)
    log.step("expired", CLEO, at=END_MS + 5)
    order = log.book.get(ORDER)
    assert (order.ended, order.ended_ms, log.book.current.version) == ("expired", END_MS, version)


def test_the_next_step_is_to_ask_and_then_for_another_to_confirm(log):
    log.order()
    assert log.book.get(ORDER).next_step(ANNA, OLD_KEY) == "release_requested"
    log.step("release_requested", ANNA)
    with pytest.raises(ConflictError):
        log.book.get(ORDER).next_step(ANNA, OLD_KEY)
    assert log.book.get(ORDER).next_step(BEN, OLD_KEY) == "released"
    assert log.book.get(ORDER).next_step(BEN, NEW_KEY) == "release_requested"
    log.step("released", BEN)
    with pytest.raises(ConflictError):
        log.book.get(ORDER).next_step(CLEO, OLD_KEY)
    with pytest.raises(NotFoundError):
        log.book.get(ORDER[:-1] + "b")


# --- reviews ---------------------------------------------------------------------------------------------------------


def review(log: Log, actor: str, key_id: str | None = OLD_KEY) -> Order:
    log.add(event("reviewed", actor, verdict="unfounded"), at=START_MS + 5, key_id=key_id)
    return log.book.get(ORDER)


def test_a_containment_is_due_for_review_for_a_day_and_then_overdue(log):
    log.order()
    order = log.book.get(ORDER)
    assert order.review_due_ms == START_MS + REVIEW_MS
    assert [order.is_overdue(START_MS + REVIEW_MS + by) for by in (-1, 0)] == [False, True]


def test_somebody_else_reviews_it_once_and_that_ends_nothing(log):
    log.order()
    order = review(log, BEN)
    assert (order.reviewed_by, order.verdict, order.review_due_ms) == (BEN, "unfounded", None)
    assert review(log, CLEO).reviewed_by == BEN
    assert not order.is_overdue(START_MS + 2 * REVIEW_MS)
    assert log.stopped == [ORDER]


def test_nobody_reviews_his_own_order(log):
    log.order()
    assert review(log, ANNA).reviewed_by is None


# --- kills -----------------------------------------------------------------------------------------------------------


def test_a_kill_stops_its_principal_until_it_is_released(log):
    killed = log.kill()
    (one,) = log.book.current.restrictions
    assert (one.restriction_id, one.kind, one.scope, one.agent, one.user, one.until_ms) == (
        killed, "kill", "principal", "bot", BEN, None,
    )  # fmt: skip
    assert log.book.get(killed).review_due_ms is None
    log.release_block(killed)
    assert (log.stopped, log.book.current.lifted) == ([], (killed,))


@pytest.mark.parametrize(
    "changes",
    [{"mode": "observe"}, {"enforcement": "deny"}, {"mode": "observe", "interface": "authzen"}],
    ids=["observed", "denied", "asked for"],
)
def test_what_killed_nobody_stops_nobody(log, changes):
    log.kill(**changes)
    assert log.stopped == []


@pytest.mark.parametrize(
    "changes",
    [
        {"result": "refused"},
        {"action": "open_payload"},
        {"target_id": None},
        {"target_id": ORDER},
        {"by": SERVICE},
    ],
)
def test_what_is_no_release_of_a_gateway_releases_nobody(log, changes):
    killed = log.kill()
    log.release_block(**{"decision_id": killed, **changes})
    assert log.stopped == [killed]


def test_a_gateway_ends_no_containment(log):
    log.order()
    log.release_block(ORDER)
    assert log.stopped == [ORDER]


def test_a_release_ends_every_kill_of_the_principal_before_it_and_none_behind_it(log):
    first, second, other = log.kill(), log.kill(by="gw-2"), log.kill(user=CLEO)
    log.release_block(first, by="gw-2")
    assert log.stopped == [other]
    assert set(log.book.current.lifted) == {first, second}
    third = log.kill(by="gw-2")
    log.release_block(first)
    assert log.stopped == [other, third]


def test_two_people_release_a_kill_and_nobody_alone_does(log):
    killed = log.kill()
    log.step("released", BEN, killed)
    log.step("release_requested", ANNA, killed)
    log.step("released", ANNA, killed)
    log.step("expired", CLEO, killed, at=END_MS)
    log.add(event("reviewed", BEN, killed, verdict="justified"))
    assert log.stopped == [killed]
    log.step("released", BEN, killed)
    assert (log.stopped, log.book.current.lifted) == ([], (killed,))


def test_an_order_under_the_id_of_a_kill_hides_nothing(log):
    killed = log.kill()
    log.order(killed, agent="other")
    assert [one.agent for one in log.book.current.restrictions] == ["bot"]


def test_released_kills_are_named_up_to_a_number(log):
    ids = [log.kill(user=f"{number:032x}") for number in range(MAX_LIFTED + 2)]
    for killed in ids:
        log.release_block(killed)
    assert log.book.current.lifted == tuple(ids[2:])


def test_a_book_that_reads_the_same_records_says_the_same(log):
    killed = log.kill()
    log.order()
    log.step("release_requested")
    log.step("released", BEN)
    log.release_block(killed)
    log.kill(agent="other")
    again = ContainmentBook(SERVICE)
    for index, record in enumerate(log.records):
        again.take(index, record)
    assert again.current.document == log.book.current.document
    assert again.orders == log.book.orders


def test_whatever_order_steps_come_in_one_person_alone_ends_nothing():
    actions = ("ordered", "release_requested", "released", "reviewed")
    for steps in itertools.product(actions, repeat=4):
        log = Log()
        log.order()
        for action in steps:
            members = {"scope": "all", "until_ms": END_MS} if action == "ordered" else {}
            log.add(event(action, ANNA, **members))
        assert log.stopped == [ORDER], steps
