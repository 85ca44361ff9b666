"""From a gateway's flag to a person's word, and from a person's order back to the gateway, over a real service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from enforcement.ledger_client import ServiceClient
from ledger.bodies_drift import BaselineEvent
from ledger.catalog import Catalog
from service.auth import Role
from tests.support.forgery import slip_in
from tests.support.service import EnforcerClient, RunningService, start_service

DIGEST = "c7" * 32
WHY = "looked at it with the team"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    with start_service(tmp_path_factory.mktemp("drift")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(service: RunningService) -> EnforcerClient:
    return service.enforcer()


def learn(gateway: EnforcerClient, action: str, agent: str, **members: object) -> None:
    body = BaselineEvent(action=action, agent=agent, **members)
    gateway.post([(gateway.record(body), ())]).raise_for_status()


class _Interrupted:
    """A catalogue beside which a gateway writes, as soon as it has answered once."""

    def __init__(self, catalog: Catalog, write: Callable[[], object]) -> None:
        self._catalog, self._write = catalog, write
        self.written = False

    def of_type(self, log_id: str, record_type: str, **options: Any) -> list[int]:
        found = self._catalog.of_type(log_id, record_type, **options)
        if not self.written:
            self.written = True
            self._write()
        return found


def test_what_is_written_while_somebody_looks_is_seen_by_whoever_looks_next(service, gateway, monkeypatch):
    def write() -> None:
        learn(gateway, "learning", "meanwhile", needed_calls=499, needed_days=6)
        gateway.flag(agent="meanwhile", detector="rate")

    behaviour = service.services.behaviour
    reading = behaviour._reading
    catalog = _Interrupted(reading._catalog, write)
    with monkeypatch.context() as patched:
        patched.setattr(reading, "_catalog", catalog)
        asyncio.run(behaviour.drifts())
    assert catalog.written
    with service.client(Role.AUDITOR) as auditor:
        asked = {"agent": "meanwhile"}
        assert len(auditor.get("/v1/drift", params=asked).json()["items"]) == 1
        assert len(auditor.get("/v1/drift/baselines", params=asked).json()["items"]) == 1


def test_a_flag_is_listed_seen_and_closed_by_people_with_what_it_was(service, gateway):
    flag = gateway.flag(
        agent="turned", detector="new_tool", subject="shop/refund", decisions=("019a9c14-6d80-7abc-8def-000000000001",)
    )
    with service.client(Role.AUDITOR) as auditor:
        (item,) = auditor.get("/v1/drift", params={"agent": "turned"}).json()["items"]
        assert (item["detector"], item["state"], item["decisions"]) == (
            "new_tool",
            "flagged",
            list(flag.body.decisions),
        )
        assert auditor.post(f"/v1/drift/{flag.record_id}/acknowledge", json={"comment": WHY}).status_code == 403
    with service.client(Role.RESPONDER) as responder:
        assert responder.post(f"/v1/drift/{flag.record_id}/acknowledge", json={"comment": WHY}).status_code == 200
        assert responder.post(f"/v1/drift/{flag.record_id}/acknowledge", json={"comment": WHY}).status_code == 409
        said = {"disposition": "misuse", "comment": WHY}
        assert responder.post(f"/v1/drift/{flag.record_id}/close", json=said).status_code == 200
        assert responder.post(f"/v1/drift/{flag.record_id}/close", json=said).status_code == 409
        assert responder.get("/v1/drift", params={"agent": "turned"}).json()["items"] == []
        (item,) = responder.get("/v1/drift", params={"agent": "turned", "state": "all"}).json()["items"]
    assert (item["state"], item["disposition"]) == ("closed", "misuse")
    assert item["closed_by"] != item["agent"]


@pytest.mark.parametrize(
    "said",
    [{}, {"disposition": "fine", "comment": WHY}, {"disposition": "misuse"}, {"disposition": "misuse", "comment": "x"}],
)
def test_a_closing_without_a_reason_or_a_known_word_is_refused_and_changes_nothing(service, gateway, said):
    flag = gateway.flag(agent="refused", detector="rate")
    with service.client(Role.APPROVER) as approver:
        assert approver.post(f"/v1/drift/{flag.record_id}/close", json=said).status_code == 422
        assert approver.get(f"/v1/drift/{flag.record_id}").json()["state"] == "flagged"


def test_an_agent_without_a_baseline_is_listed_as_learning_or_not_at_all_and_never_as_ready(service, gateway):
    learn(gateway, "learning", "newcomer", needed_calls=499, needed_days=6)
    with service.client(Role.AUDITOR) as auditor:
        (item,) = auditor.get("/v1/drift/baselines", params={"agent": "newcomer"}).json()["items"]
        assert (item["state"], item["needed_calls"], item["needed_days"]) == ("learning", 499, 6)
        assert item["silent"] is False
        assert auditor.get("/v1/drift/baselines", params={"agent": "stranger"}).json()["items"] == []


def test_an_agent_whose_usual_traffic_is_missing_is_called_silent_only_where_there_is_a_baseline(service, gateway):
    long_ago = gateway._clock.now_ms() - 100 * 3_600_000
    gateway.decide(agent="quiet", time_ms=long_ago)
    learn(gateway, "learning", "quiet")
    with service.client(Role.AUDITOR) as auditor:
        (item,) = auditor.get("/v1/drift/baselines", params={"agent": "quiet"}).json()["items"]
        assert item["silent"] is False
        learn(gateway, "ready", "quiet", baseline_version=1, longest_gap_ms=3_600_000)
        (item,) = auditor.get("/v1/drift/baselines", params={"agent": "quiet"}).json()["items"]
        assert item["silent"] is True
        gateway.decide(agent="quiet")
        (item,) = auditor.get("/v1/drift/baselines", params={"agent": "quiet"}).json()["items"]
        assert item["silent"] is False


def test_an_agent_that_calls_and_is_known_to_no_gateway_is_named(service, gateway):
    gateway.decide(agent="unknown-one")
    gateway.decide(agent="known-one")
    learn(gateway, "learning", "known-one")
    with service.client(Role.AUDITOR) as auditor:
        everybody = auditor.get("/v1/drift/baselines").json()
        assert "unknown-one" in everybody["unknown"]
        assert "known-one" not in everybody["unknown"]
        assert {item["agent"] for item in everybody["items"]}.isdisjoint(everybody["unknown"])
        one = auditor.get("/v1/drift/baselines", params={"agent": "unknown-one"}).json()
        assert one == {"items": [], "unknown": ["unknown-one"], "complete": True}


def test_an_order_reaches_the_gateway_that_offered_and_only_for_what_it_offered(service, gateway):
    learn(gateway, "ready", "worker", baseline_version=1)
    order = {"action": "accept", "agent": "worker", "enforcer": gateway.enforcer.enforcer_id, "comment": WHY}
    with service.client(Role.APPROVER) as approver:
        assert approver.post("/v1/drift/baselines", json={**order, "digest": DIGEST}).status_code == 409
        learn(gateway, "offered", "worker", baseline_version=1, digest=DIGEST, added=("shop/refund",))
        (item,) = approver.get("/v1/drift/baselines", params={"agent": "worker"}).json()["items"]
        assert item["offered"] == {"digest": DIGEST, "calls": 0, "days": 0, "added": ["shop/refund"]}
        assert approver.post("/v1/drift/baselines", json={**order, "digest": "0" * 64}).status_code == 409
        assert approver.post("/v1/drift/baselines", json=order).status_code == 409
        assert approver.post("/v1/drift/baselines", json={**order, "digest": DIGEST}).status_code == 201
        assert approver.post("/v1/drift/baselines", json={**order, "action": "reset"}).status_code == 201

    async def ask() -> list[tuple[str, str, str]]:
        async with ServiceClient(service.url, gateway.token, timeout_seconds=10) as client:
            return [(one.action, one.agent, one.digest) for one in await client.baseline_orders()]

    assert asyncio.run(ask()) == [("accept_ordered", "worker", DIGEST), ("reset_ordered", "worker", "")]


def test_a_gateway_that_writes_what_people_say_is_not_believed(service, gateway):
    flag = gateway.flag(agent="selfish", detector="rate")
    body = flag.body
    closing = type(body)(action="closed", drift_id=body.drift_id, disposition="harmless", actor="0e" * 16)
    record = gateway.record(closing)
    assert gateway.post([(record, ())]).status_code == 403
    slip_in(service, record)  # nor would it count if it were in the log
    with service.client(Role.AUDITOR) as auditor:
        assert auditor.get(f"/v1/drift/{flag.record_id}").json()["state"] == "flagged"
