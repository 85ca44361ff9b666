"""Gateways say what they found and people what it was, and neither speaks for the other."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from ledger.bodies_drift import BaselineEvent, Drift
from ledger.errors import ConflictError, NotFoundError
from ledger.records import new_record_id
from service.drift_book import DriftBook
from tests.support.ledger import Enforcer

SERVICE = "tallystick"
DIGEST = "c7" * 32


class Log:
    """Records in order, by whom the test says."""

    def __init__(self) -> None:
        self.book = DriftBook(SERVICE)
        self.enforcers = {name: Enforcer(name) for name in (SERVICE, "gateway-1", "gateway-2")}
        self.size = 0

    def take(self, body: Any, by: str = "gateway-1", **options: Any) -> str:
        record = self.enforcers[by].record(body, **options)
        self.book.take(self.size, record)
        self.size += 1
        return record.record_id

    def flag(self, by: str = "gateway-1", **members: Any) -> str:
        drift_id = new_record_id(1_763_546_400_000, secrets.token_bytes(10))
        self.take(Drift(action="flagged", drift_id=drift_id, agent="bot", **members), by, record_id=drift_id)
        return drift_id

    def say(self, action: str, drift_id: str, by: str = SERVICE, **members: Any) -> None:
        self.take(Drift(action=action, drift_id=drift_id, actor="0e" * 16, actor_role="approver", **members), by)

    def learn(self, action: str, by: str = "gateway-1", **members: Any) -> str:
        return self.take(BaselineEvent(action=action, agent="bot", **members), by)


@pytest.fixture
def log() -> Log:
    return Log()


def test_a_departure_is_open_until_a_person_says_what_it_was(log):
    drift = log.flag(detector="new_tool")
    assert log.book.drift(drift).state == "flagged"
    log.say("acknowledged", drift)
    assert log.book.drift(drift).state == "acknowledged"
    log.say("closed", drift, disposition="misuse")
    life = log.book.drift(drift)
    assert (life.state, life.disposition, life.closed_by) == ("closed", "misuse", "0e" * 16)


@pytest.mark.parametrize("action", ["acknowledged", "closed"])
def test_a_gateway_says_nothing_for_people(log, action):
    drift = log.flag()
    log.say(action, drift, by="gateway-1")
    assert log.book.drift(drift).state == "flagged"


def test_the_service_flags_nothing(log):
    drift = log.flag(by=SERVICE)
    with pytest.raises(NotFoundError):
        log.book.drift(drift)


def test_nobody_flags_under_the_id_of_another(log):
    """A record whose drift_id is not its own id cannot replace or occupy a departure."""
    drift = log.flag(detector="new_tool")
    log.take(Drift(action="flagged", drift_id=drift, agent="other", detector="rate"), "gateway-2")
    life = log.book.drift(drift)
    assert (life.enforcer, life.flag.detector) == ("gateway-1", "new_tool")


@pytest.mark.parametrize("step", ["acknowledged", "closed"])
def test_what_is_closed_stays_closed(log, step):
    drift = log.flag()
    log.say("closed", drift, disposition="harmless")
    with pytest.raises(ConflictError):
        log.book.open_drift(drift, step)
    log.say("closed", drift, disposition="misuse")
    assert log.book.drift(drift).disposition == "harmless"


def test_what_nobody_flagged_is_not_found(log):
    for step in ("acknowledged", "closed"):
        with pytest.raises(NotFoundError):
            log.book.open_drift("019a9c14-6d80-7abc-8def-ffffffffffff", step)


def test_open_departures_come_first_and_the_newest_of_them(log):
    first, second, third = log.flag(), log.flag(), log.flag()
    log.say("closed", third, disposition="expected")
    assert [life.flag.drift_id for life in log.book.drifts] == [second, first, third]


def test_no_baseline_is_learning_or_none_and_says_what_is_missing(log):
    with pytest.raises(NotFoundError, match="no baseline"):
        log.book.baseline("bot", "gateway-1")
    log.learn("learning", needed_calls=499, needed_days=6)
    life = log.book.baseline("bot", "gateway-1")
    assert (life.state, life.last.needed_calls, life.last.needed_days) == ("learning", 499, 6)
    assert life.silent_after_ms() is None
    log.learn("progress", needed_calls=20, needed_days=2)
    assert log.book.baseline("bot", "gateway-1").state == "learning"
    log.learn("ready", baseline_version=1, longest_gap_ms=1000)
    life = log.book.baseline("bot", "gateway-1")
    assert (life.state, life.silent_after_ms()) == ("ready", 3_602_000)
    log.learn("reset")
    assert log.book.baseline("bot", "gateway-1").state == "none"


def test_one_gateways_baseline_is_not_the_others(log):
    log.learn("ready", baseline_version=1)
    log.learn("learning", by="gateway-2")
    assert [(one.enforcer, one.state) for one in log.book.baselines] == [
        ("gateway-2", "learning"), ("gateway-1", "ready"),
    ]  # fmt: skip
    with pytest.raises(NotFoundError):
        log.book.baseline("bot", "gateway-3")


def test_what_is_offered_is_accepted_by_its_digest_and_by_no_other(log):
    log.learn("ready", baseline_version=1)
    with pytest.raises(ConflictError):
        log.book.acceptable("bot", "gateway-1", DIGEST)
    log.learn("offered", digest=DIGEST, baseline_version=1)
    assert log.book.acceptable("bot", "gateway-1", DIGEST).digest == DIGEST
    for digest in ("", "0" * 64):
        with pytest.raises(ConflictError):
            log.book.acceptable("bot", "gateway-1", digest)
    log.learn("progress", baseline_version=1)
    assert log.book.acceptable("bot", "gateway-1", DIGEST)
    log.learn("accepted", baseline_version=2)
    with pytest.raises(ConflictError):
        log.book.acceptable("bot", "gateway-1", DIGEST)


@pytest.mark.parametrize("action", ["ready", "accepted", "learning", "progress", "offered", "reset"])
def test_the_service_learns_nothing(log, action):
    log.learn(action, by=SERVICE, baseline_version=1)
    assert log.book.baselines == []


def test_a_gateway_orders_nothing_not_even_for_itself(log):
    log.learn("accept_ordered", by="gateway-1", enforcer="gateway-1", digest=DIGEST)
    assert log.book.orders_for("gateway-1") == []


def test_orders_are_for_the_gateway_that_they_name(log):
    one = log.learn("accept_ordered", by=SERVICE, enforcer="gateway-1", digest=DIGEST)
    other = log.learn("reset_ordered", by=SERVICE, enforcer="gateway-1")
    log.learn("reset_ordered", by=SERVICE, enforcer="gateway-2")
    assert [order.order_id for order in log.book.orders_for("gateway-1")] == [one, other]
