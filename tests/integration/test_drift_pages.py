"""The pages of behaviour over HTTP: who sees what, whose word counts, and every way round it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import httpx
import pytest

from ledger.bodies_drift import BaselineEvent
from service.auth import Role
from tests.support.service import EnforcerClient, RunningService, start_service

DIGEST = "c7" * 32
UNHEARD = "019a9c14-6d80-7abc-8def-000000000001"
WHY = "looked at it with the team"
CSRF = re.compile(r'name="csrf" value="([^"]+)"')


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("drift-pages")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(service: RunningService) -> EnforcerClient:
    return service.enforcer()


@pytest.fixture
def agent() -> str:
    """An agent of its own for each test."""
    return f"agent-{secrets.token_hex(4)}"


@pytest.fixture
def flag(gateway: EnforcerClient, agent: str) -> str:
    """A departure of it."""
    decision = gateway.decide(agent=agent)
    flag = gateway.flag(agent=agent, detector="new_tool", subject="shop/refund", decisions=(decision, UNHEARD), calls=1)
    return flag.record_id


def learn(gateway: EnforcerClient, action: str, agent: str, **members: object) -> None:
    body = BaselineEvent(action=action, agent=agent, **members)
    gateway.post([(gateway.record(body), ())]).raise_for_status()


@contextmanager
def visitor(service: RunningService, token: str) -> Iterator[httpx.Client]:
    with service.server.browser_client() as client:
        csrf = CSRF.search(client.get("/login").text)
        assert csrf is not None
        assert client.post("/login", data={"csrf": csrf[1], "token": token}).status_code == 303
        yield client


@pytest.fixture
def rita(service: RunningService) -> Iterator[httpx.Client]:
    with visitor(service, service.token(Role.RESPONDER, "rita")) as person:
        yield person


def secret_of(client: httpx.Client) -> str:
    found = CSRF.search(client.get("/drift").text)
    assert found is not None
    return found[1]


def close(client: httpx.Client, flag: str, **changes: str) -> httpx.Response:
    form = {"csrf": secret_of(client), "disposition": "misuse", "reason": WHY, **changes}
    return client.post(f"/drift/{flag}/close", data=form)


def order(client: httpx.Client, gateway: EnforcerClient, agent: str, **changes: str) -> httpx.Response:
    enforcer = gateway.enforcer.enforcer_id
    form = {"csrf": secret_of(client), "order": "accept", "enforcer": enforcer, "digest": DIGEST, "reason": WHY}
    return client.post(f"/drift/agents/{agent}/order", data={**form, **changes})


def state_of(service: RunningService, flag: str) -> str:
    with service.client(Role.AUDITOR) as auditor:
        return str(auditor.get(f"/v1/drift/{flag}").json()["state"])


def orders_of(service: RunningService, gateway: EnforcerClient, agent: str) -> list[str]:
    with service.client(token=gateway.token) as client:
        items = client.get("/v1/drift/orders").json()["items"]
    return [item["action"] for item in items if item["agent"] == agent]


def test_a_departure_is_seen_with_its_decisions_acknowledged_and_closed(service, rita, agent, flag):
    assert f'href="/drift/{flag}"' in rita.get("/drift").text
    page = rita.get(f"/drift/{flag}").text
    (decision,) = set(re.findall(r'href="/decisions/([0-9a-f-]{36})"', page))
    assert rita.get(f"/decisions/{decision}").status_code == 200
    assert UNHEARD in page  # named as what the log does not have
    assert decision != UNHEARD
    form = {"csrf": secret_of(rita), "reason": WHY}
    assert rita.post(f"/drift/{flag}/acknowledge", data=form).headers["location"] == f"/drift/{flag}"
    assert "Somebody looks after it" in rita.get(f"/drift/{flag}").text
    assert rita.post(f"/drift/{flag}/acknowledge", data=form).status_code == 409
    assert close(rita, flag).headers["location"] == f"/drift/{flag}"
    page = rita.get(f"/drift/{flag}").text
    assert "Closed: misuse" in page
    assert "<form class" not in page
    assert close(rita, flag).status_code == 409
    with service.client(Role.AUDITOR) as auditor:
        assert auditor.get(f"/v1/drift/{flag}").json()["disposition"] == "misuse"


def test_an_agent_that_no_gateway_knows_is_shown_as_that_and_never_as_well(gateway, rita, agent):
    gateway.decide(agent=agent)
    listed = rita.get("/drift").text
    (row,) = re.findall(
        rf'<tr>\s*<th scope="row"><a class="name" href="/drift/agents/{agent}".*?</tr>', listed, re.DOTALL
    )
    assert "No baseline" in row
    assert "icon-well" not in row
    page = rita.get(f"/drift/agents/{agent}").text
    assert "No gateway learns what it usually does" in page
    assert 'class="icon icon-well"' not in page.partition("<main")[2]


def test_what_is_missing_for_a_baseline_is_said_in_numbers(gateway, rita, agent):
    learn(gateway, "learning", agent, calls=1, days=1, needed_calls=499, needed_days=6)
    page = rita.get(f"/drift/agents/{agent}").text
    assert "499 more calls on 6 more days" in page
    assert 'class="icon icon-well"' not in page.partition("<main")[2]
    learn(gateway, "ready", agent, baseline_version=1, calls=800, days=9, tools=7, blind=("sparse:weekends",))
    page = rita.get(f"/drift/agents/{agent}").text
    assert "Version 1, of 800 calls on 9 days and 7 tools." in page
    assert "No weekend is known." in page


def test_a_candidate_is_accepted_as_it_was_shown_and_a_baseline_forgotten(service, gateway, rita, agent):
    learn(gateway, "ready", agent, baseline_version=1)
    learn(gateway, "offered", agent, baseline_version=1, digest=DIGEST, added=("shop/refund",))
    page = rita.get(f"/drift/agents/{agent}").text
    assert f'value="{DIGEST}"' in page
    assert "shop/refund" in page
    assert order(rita, gateway, agent).headers["location"] == f"/drift/agents/{agent}"
    assert order(rita, gateway, agent, order="reset").status_code == 303
    assert orders_of(service, gateway, agent) == ["accept_ordered", "reset_ordered"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"digest": "0" * 64}, 409),
        ({"digest": ""}, 409),
        ({"digest": DIGEST[:12]}, 409),
        ({"enforcer": "another"}, 404),
        ({"enforcer": ""}, 404),
        ({"order": "forget"}, 400),
        ({"order": ""}, 400),
        ({"reason": "short"}, 400),
        ({"reason": "x" * 1001}, 400),
        ({"csrf": "made up"}, 403),
        ({"csrf": ""}, 403),
    ],
)
def test_an_order_about_anything_else_is_refused_and_reaches_no_gateway(service, gateway, rita, agent, changes, status):
    learn(gateway, "ready", agent, baseline_version=1)
    learn(gateway, "offered", agent, baseline_version=1, digest=DIGEST)
    assert order(rita, gateway, agent, **changes).status_code == status
    assert orders_of(service, gateway, agent) == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"disposition": "fine"}, 400),
        ({"disposition": ""}, 400),
        ({"reason": "short"}, 400),
        ({"reason": " " * 40}, 400),
        ({"csrf": "made up"}, 403),
        ({"csrf": ""}, 403),
    ],
)
def test_a_closing_that_says_nothing_is_refused_and_changes_nothing(service, rita, flag, changes, status):
    assert close(rita, flag, **changes).status_code == status
    assert state_of(service, flag) == "flagged"


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}])
@pytest.mark.parametrize("what", ["acknowledge", "close", "order"])
def test_a_form_from_another_site_says_nothing(service, gateway, rita, agent, flag, what, headers):
    learn(gateway, "ready", agent, baseline_version=1)
    form = {"csrf": secret_of(rita), "disposition": "harmless", "order": "reset", "reason": WHY}
    form["enforcer"] = gateway.enforcer.enforcer_id
    path = f"/drift/agents/{agent}/order" if what == "order" else f"/drift/{flag}/{what}"
    assert rita.post(path, data=form, headers=headers).status_code == 403
    assert state_of(service, flag) == "flagged"
    assert orders_of(service, gateway, agent) == []


@pytest.mark.parametrize(("role", "may"), [(Role.AUDITOR, False), (Role.RESPONDER, True), (Role.APPROVER, True)])
def test_roles_see_and_say_what_they_may(service, gateway, agent, flag, role, may):
    learn(gateway, "ready", agent, baseline_version=1)
    with visitor(service, service.token(role)) as person:
        assert ("Close it" in person.get(f"/drift/{flag}").text) is may
        assert ("Forget and learn anew" in person.get(f"/drift/agents/{agent}").text) is may
        assert order(person, gateway, agent, order="reset").status_code == (303 if may else 403)
        assert close(person, flag).status_code == (303 if may else 403)
    assert state_of(service, flag) == ("closed" if may else "flagged")
    assert orders_of(service, gateway, agent) == (["reset_ordered"] if may else [])


@pytest.mark.parametrize("role", [Role.RESPONDER, Role.APPROVER, Role.ADMIN])
def test_a_machine_says_nothing_whatever_its_role_and_that_it_tried_is_recorded(service, gateway, agent, flag, role):
    learn(gateway, "ready", agent, baseline_version=1)
    with visitor(service, service.machine_token(role)) as machine:
        page = machine.get(f"/drift/{flag}").text
        assert "takes a person who has logged in" in page
        assert "<form class" not in page
        before = len(service.access_events("refused"))
        assert close(machine, flag).status_code == 403
        assert order(machine, gateway, agent, order="reset").status_code == 403
        tried = service.access_events("refused")[before:]
    assert [(event.target_id, event.result) for event in tried] == [("review_drift", "no_person")] * 2
    assert state_of(service, flag) == "flagged"


def test_who_looks_is_recorded(service, rita, agent, flag):
    before = len(service.access_events("view"))
    rita.get("/drift").raise_for_status()
    rita.get(f"/drift/{flag}").raise_for_status()
    rita.get(f"/drift/agents/{agent}").raise_for_status()
    events = service.access_events("view")[before:]
    assert [(event.target_kind, event.target_id) for event in events] == [
        ("drift", None),
        ("drift", flag),
        ("drift", agent),
    ]


def test_strangers_are_sent_to_the_login_and_back(service, agent, flag):
    with service.server.browser_client() as stranger:
        for path in ("/drift", f"/drift/{flag}", f"/drift/agents/{agent}"):
            answer = stranger.get(path)
            assert answer.status_code == 303
            assert answer.headers["location"] == f"/login?next={path.replace('/', '%2F')}"
        posted = stranger.post(f"/drift/{flag}/close", data={"disposition": "harmless"})
        assert (posted.status_code, posted.headers["location"]) == (303, "/login")


@pytest.mark.parametrize("path", [f"/drift/{UNHEARD}", "/drift/x", "/drift/agents", "/drift/agents/nobody"])
def test_what_there_is_not_has_no_page(rita, path):
    assert rita.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/drift/agents/%3Cb%3E", "/drift/agents/%C3%A9", f"/drift/{UNHEARD.upper()}"])
def test_what_is_no_name_has_no_page(rita, path):
    assert rita.get(path).status_code == 404


@pytest.mark.parametrize("name", ["x/order", "a/../../logout", "https://evil.example/x", "javascript:alert/1"])
def test_a_hostile_name_of_an_agent_leads_to_its_own_page_and_nowhere_else(service, gateway, rita, name):
    agent = f"{name}{secrets.token_hex(4)}"
    learn(gateway, "ready", agent, baseline_version=1)
    flag = gateway.flag(agent=agent, detector="rate").record_id
    (link,) = set(re.findall(r'href="([^"]*)"', rita.get(f"/drift/{flag}").text.partition("<main")[2])) - {"/drift"}
    assert link.startswith("/drift/agents/")
    page = rita.get(link)
    assert (page.status_code, agent in page.text) == (200, True)
    form = {"csrf": secret_of(rita), "order": "reset", "enforcer": gateway.enforcer.enforcer_id, "reason": WHY}
    assert rita.post(f"{link}/order", data=form).headers["location"] == link
    assert orders_of(service, gateway, agent) == ["reset_ordered"]


def test_more_departures_than_a_page_are_told_on_the_next(gateway, rita, agent, monkeypatch):
    monkeypatch.setattr("service.web.drift_page.PAGE_ROWS", 1)
    first = gateway.flag(agent=agent, detector="rate").record_id
    second = gateway.flag(agent=agent, detector="volume").record_id
    assert f"/drift/{second}" in rita.get("/drift").text
    assert f"/drift/{first}" not in rita.get("/drift").text
    assert f"/drift/{first}" in rita.get("/drift?page=2").text
    assert "1 departure not shown" in rita.get(f"/drift/agents/{agent}").text
    assert rita.get("/drift?page=0").status_code == 400


def test_more_baselines_than_a_page_are_counted_and_what_is_not_ready_is_shown(gateway, rita, agent, monkeypatch):
    learn(gateway, "ready", agent, baseline_version=1)
    newcomer = f"{agent}-new"
    learn(gateway, "learning", newcomer)
    page = rita.get("/drift").text
    assert f"/drift/agents/{agent}" in page
    assert page.index(f"/drift/agents/{newcomer}") < page.index(f'/drift/agents/{agent}"')
    monkeypatch.setattr("service.web.drift_page.BASELINE_ROWS", page.count('<th scope="row">') - 1)
    assert "1 baseline not shown" in rita.get("/drift").text


def test_while_calls_are_counted_it_is_said_that_agents_may_be_missing(service, rita, monkeypatch):
    assert "Not all calls were counted yet" not in rita.get("/drift").text
    counts = service.services.inventory._counts
    whole = counts.look(service.services.inventory._size())
    monkeypatch.setattr(counts, "look", lambda _size: replace(whole, complete=False))
    assert "Not all calls were counted yet" in rita.get("/drift").text
    with service.client(Role.AUDITOR) as auditor:
        assert auditor.get("/v1/drift/baselines").json()["complete"] is False
