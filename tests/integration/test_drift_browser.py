"""A person in a real browser: from the list to the decisions a departure rests on, and to a word about it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from ledger.bodies_drift import BaselineEvent
from service.auth import Role
from tests.support.browser import new_visitor
from tests.support.service import EnforcerClient, RunningService, start_service

WHY = "new work since Monday, as agreed"
DIGEST = "c7" * 32


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("drift-browser")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(service: RunningService) -> EnforcerClient:
    return service.enforcer()


def learn(gateway: EnforcerClient, action: str, agent: str, **members: object) -> None:
    body = BaselineEvent(action=action, agent=agent, **members)
    gateway.post([(gateway.record(body), ())]).raise_for_status()


@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_a_departure_is_followed_to_its_decision_closed_and_the_new_work_accepted(
    service: RunningService, gateway: EnforcerClient, chromium: Browser, scripts: bool
) -> None:
    agent = f"clerk-{scripts}".lower()
    decision = gateway.decide(agent=agent)
    learn(gateway, "ready", agent, baseline_version=1, calls=800, days=9, tools=2)
    learn(gateway, "offered", agent, baseline_version=1, digest=DIGEST, calls=900, days=12, added=("shop/refund",))
    told = {"detector": "new_tool", "subject": "shop/refund", "calls": 1, "baseline_version": 1}
    flag = gateway.flag(agent=agent, decisions=(decision,), **told).record_id
    visitor = new_visitor(chromium, service.url, java_script_enabled=scripts)
    page = visitor.page()
    page.goto(service.login_url(Role.RESPONDER))
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(service.url + "/")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Behaviour").click()
    unclosed = page.get_by_role("region", name="Open departures")
    unclosed.get_by_role("link", name=re.compile(f"^It calls a tool that it never called.*{agent}$")).click()
    page.wait_for_url(f"{service.url}/drift/{flag}")
    page.get_by_role("table", name="The decisions that it rests on").get_by_role("link").click()
    page.wait_for_url(f"{service.url}/decisions/{decision}")
    page.go_back()
    acknowledge = page.get_by_role("region", name="Look after it")
    acknowledge.get_by_label("What you are going to do").fill(WHY)
    acknowledge.get_by_role("button", name="Acknowledge").click()
    page.get_by_text("Somebody looks after it").wait_for()
    page.get_by_label("What it was").select_option("expected")
    page.get_by_label("Reason").fill(WHY)
    page.get_by_role("button", name="Close").click()
    page.get_by_text("Closed: expected").wait_for()
    assert page.get_by_role("button", name="Close").count() == 0
    page.get_by_role("link", name="What is known of this agent").click()
    page.get_by_label("Reason").fill(WHY)
    page.get_by_role("button", name="Accept what is offered").click()
    page.wait_for_url(f"{service.url}/drift/agents/{agent}")
    with service.client(token=gateway.token) as client:
        orders = client.get("/v1/drift/orders").json()["items"]
    assert [(one["action"], one["digest"]) for one in orders if one["agent"] == agent] == [("accept_ordered", DIGEST)]
    visitor.close()


@pytest.mark.parametrize("width", [320, 1280])
def test_no_page_of_behaviour_is_wider_than_its_window(
    service: RunningService, gateway: EnforcerClient, chromium: Browser, width: int
) -> None:
    name = "x" * 124 + f"{width:04}"
    decision = gateway.decide(agent=name, tool=name, server=name, rules=(name,))
    learn(gateway, "ready", name, baseline_version=1, calls=800, days=9, blind=("saturated:targets",))
    learn(gateway, "offered", name, baseline_version=1, digest=DIGEST, calls=900, days=12, added=(name, "y" * 128))
    told = {"detector": "read_then_send", "subject": name, "previous": name, "thresholds": "a" * 64}
    flag = gateway.flag(agent=name, decisions=(decision,), **told).record_id
    visitor = new_visitor(chromium, service.url, viewport={"width": width, "height": 800})
    page = visitor.page()
    page.goto(service.login_url(Role.RESPONDER))
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(service.url + "/")
    for path in ("/drift", f"/drift/{flag}", f"/drift/agents/{name}"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    visitor.close()
