"""The dashboard over real HTTP: who gets in, what is recorded, what is refused, what the headers say."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import text as sql
from sqlalchemy import update

from ledger.clock import SimulatedClock
from ledger.commitments import pseudonym
from ledger.database import writing
from ledger.errors import StorageError
from ledger.merkle import hash_leaf
from ledger.proof_files import parse_proof_file
from ledger.proofs import verify_inclusion
from ledger.records import decode_entry
from ledger.stores import tables
from service.auth import Role
from service.keyset import trust_policy
from tests.support.ledger import NOW_MS
from tests.support.service import RunningService, start_service

CSRF = re.compile(r'name="csrf" value="([^"]+)"')
MADE_UP = "ts1.acme." + "x" * 43


def csrf_of(page: httpx.Response) -> str:
    found = CSRF.search(page.text)
    assert found is not None, page.text
    return found[1]


def log_in(client: httpx.Client, token: str, **fields: str) -> httpx.Response:
    csrf = csrf_of(client.get("/login"))
    return client.post("/login", data={"csrf": csrf, "token": token, **fields})


def plant(client: httpx.Client, session_id: str) -> None:
    client.cookies.set("tallystick", session_id, domain="127.0.0.1", path="/")


@pytest.fixture
def visitor(service: RunningService) -> Iterator[httpx.Client]:
    """Return a client that is not logged in."""
    with service.browser_client() as client:
        yield client


@pytest.fixture
def reader(service: RunningService) -> Iterator[httpx.Client]:
    """Return a client that is logged in as an auditor."""
    with service.browser_client() as client:
        assert log_in(client, service.token(Role.AUDITOR, "jane")).status_code == 303
        yield client


def actor(service: RunningService, name: str) -> str:
    return pseudonym(service.services.keys.pseudonym.seed, "actor", name)


# --- getting in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.RESPONDER, Role.APPROVER, Role.ADMIN])
def test_a_token_of_a_person_logs_in_and_the_login_is_recorded(service, visitor, role):
    answer = log_in(visitor, service.token(role, "jane"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert visitor.get("/").status_code == 200
    (event,) = service.access_events("login")
    assert (event.actor, event.actor_role, event.target_kind, event.result) == (
        actor(service, "jane"),
        role.value,
        "dashboard",
        "ok",
    )


def test_an_enforcers_token_is_refused_and_the_attempt_recorded(service, visitor):
    answer = log_in(visitor, service.enforcer().token)
    assert answer.status_code == 403
    assert "opens no dashboard" in answer.text
    assert "tallystick" not in visitor.cookies
    (event,) = service.access_events("login")
    assert (event.actor_role, event.result) == ("enforcer", "role_refused")


@pytest.mark.parametrize("token", ["", "x", MADE_UP, "ts1.other." + "x" * 43, "\u202e<script>", "x" * 3000])
def test_an_unknown_token_is_refused_and_the_attempt_recorded_without_it(service, visitor, token):
    answer = log_in(visitor, token)
    assert answer.status_code == 403
    assert "unknown, expired or revoked" in answer.text
    assert len(token) < 5 or token not in answer.text
    (event,) = service.access_events("login")
    assert (event.actor_role, event.result) == ("unauthenticated", "unknown_token")
    assert event.actor == pseudonym(service.services.keys.pseudonym.seed, "address", "127.0.0.1")


def test_a_token_of_another_log_in_the_same_database_is_as_unknown_as_any(service, visitor):
    token = service.services.tokens.issue("other", Role.ADMIN, "jane")
    assert log_in(visitor, token).status_code == 403
    assert service.access_events("login")[0].actor_role == "unauthenticated"


def test_blanks_around_a_pasted_token_do_not_matter(service, visitor):
    assert log_in(visitor, f"  {service.token(Role.AUDITOR)}\r\n").status_code == 303


def test_logging_in_again_gives_a_new_session_and_ends_the_old_one(service, reader):
    before = reader.cookies["tallystick"]
    page = reader.get("/login")
    assert page.status_code == 303, "who is logged in is not asked again"
    with service.browser_client() as second:
        csrf = csrf_of(second.get("/login"))
        plant(second, before)
        second.post("/login", data={"csrf": csrf, "token": service.token(Role.AUDITOR)})
        assert second.cookies["tallystick"] != before
    with service.browser_client() as old:
        plant(old, before)
        assert old.get("/").status_code == 303


def test_a_session_id_that_somebody_planted_is_never_taken_up(service, visitor):
    plant(visitor, "p" * 43)
    log_in(visitor, service.token(Role.AUDITOR))
    assert "p" * 43 not in [cookie.value for cookie in visitor.cookies.jar]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/packs",
        f"/sessions/{'5' * 32}",
        "/decisions/01a1fcad-9ff9-750b-91ac-898a54d423a5",
        "/containments/01a1fcad-9ff9-750b-91ac-898a54d423a5",
    ],
)
def test_a_page_without_a_login_leads_to_the_login_and_back(service, visitor, path):
    answer = visitor.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"] == ("/login" if path == "/" else f"/login?next={quote(path, safe='')}")
    page = visitor.get(answer.headers["location"])
    wanted = re.search(r'name="next" value="([^"]+)"', page.text)[1]
    assert wanted == path
    answer = visitor.post("/login", data={"csrf": csrf_of(page), "token": service.token(Role.ADMIN), "next": wanted})
    assert answer.headers["location"] == path


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example", "/\\evil.example", "/logout"])
def test_a_login_leads_to_no_page_but_ours(service, visitor, wanted):
    page = visitor.get("/login", params={"next": wanted})
    assert 'name="next" value="/"' in page.text
    assert log_in(visitor, service.token(Role.AUDITOR), next=wanted).headers["location"] == "/"


def test_a_refresh_without_a_login_is_refused_and_not_redirected(visitor):
    assert visitor.get("/live").status_code == 401


# --- login links -----------------------------------------------------------------------------------------------------


def test_a_link_asks_first_logs_in_once_and_is_dead_then(service, visitor):
    url = service.login_url(Role.RESPONDER)
    for _ in range(3):
        page = visitor.get(url)
        assert page.status_code == 200
    assert service.access_events("login") == []
    answer = visitor.post(url, data={"csrf": csrf_of(page)})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert visitor.get("/").status_code == 200
    assert [event.actor_role for event in service.access_events("login")] == ["responder"]
    with service.browser_client() as second:
        dead = second.get(url)
        assert dead.status_code == 403
        assert "was used before or has expired" in dead.text
        assert second.post(url, data={"csrf": csrf_of(dead)}).status_code == 403
        assert "tallystick" not in second.cookies
    assert service.access_events("login")[-1].result == "dead_link"


def test_a_link_is_not_followed_from_another_site(service, visitor):
    url = service.login_url()
    csrf = csrf_of(visitor.get(url))
    refused = visitor.post(url, data={"csrf": csrf}, headers={"origin": "https://evil.example"})
    assert refused.status_code == 403
    assert visitor.post(url, data={"csrf": "x"}).status_code == 403
    assert visitor.post(url, data={"csrf": csrf}).status_code == 303, "a refused attempt does not spend it"


@pytest.mark.parametrize("code", ["x", "x" * 43, "x" * 44, "%00" * 43])
def test_a_made_up_code_opens_nothing(service, visitor, code):
    assert visitor.get(f"/login/link/{code}").status_code in (400, 403, 404)
    csrf = csrf_of(visitor.get("/login"))
    assert visitor.post(f"/login/link/{code}", data={"csrf": csrf}).status_code in (400, 403, 404)
    assert "tallystick" not in visitor.cookies


# --- forgery and throttling ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_login_sent_by_another_site_is_refused(service, visitor, headers):
    csrf = csrf_of(visitor.get("/login"))
    answer = visitor.post("/login", data={"csrf": csrf, "token": service.token(Role.ADMIN)}, headers=headers)
    assert answer.status_code == 403
    assert "tallystick" not in visitor.cookies


def test_a_login_without_the_forms_secret_or_without_its_cookie_is_refused(service, visitor):
    token = service.token(Role.ADMIN)
    csrf = csrf_of(visitor.get("/login"))
    assert visitor.post("/login", data={"token": token}).status_code == 403
    assert visitor.post("/login", data={"csrf": "x", "token": token}).status_code == 403
    visitor.cookies.clear()
    without = visitor.post("/login", data={"csrf": csrf, "token": token})
    assert without.status_code == 403
    assert "sent no cookie" in without.text
    assert "tallystick" not in visitor.cookies


def test_a_login_that_does_not_say_where_it_comes_from_is_refused(service):
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        csrf = csrf_of(client.get("/login"))
        assert client.post("/login", data={"csrf": csrf, "token": service.token(Role.ADMIN)}).status_code == 403


@pytest.mark.parametrize("csrf", [None, "x", ""])
def test_a_logout_without_the_sessions_secret_is_refused_and_the_session_lives(service, reader, csrf):
    data = {} if csrf is None else {"csrf": csrf}
    answer = reader.post("/logout", data=data)
    assert answer.status_code in (400, 403)
    assert reader.get("/").status_code == 200
    assert service.access_events("logout") == []


def test_the_secret_of_one_session_does_not_serve_another(service, reader):
    with service.browser_client() as other:
        log_in(other, service.token(Role.AUDITOR))
        stolen = csrf_of(other.get("/"))
    assert reader.post("/logout", data={"csrf": stolen}).status_code == 403


def test_a_logout_from_another_site_is_refused(reader):
    csrf = csrf_of(reader.get("/"))
    assert reader.post("/logout", data={"csrf": csrf}, headers={"origin": "https://evil.example"}).status_code == 403


def test_logging_out_ends_the_session_and_is_recorded(service, reader):
    stolen = reader.cookies["tallystick"]
    answer = reader.post("/logout", data={"csrf": csrf_of(reader.get("/"))})
    assert answer.headers["location"] == "/login?said=logged-out"
    assert "You are logged out." in reader.get("/login?said=logged-out").text
    assert "tallystick" not in reader.cookies
    plant(reader, stolen)
    assert reader.get("/").status_code == 303
    assert [event.actor for event in service.access_events("logout")] == [actor(service, "jane")]


def test_after_ten_failures_an_address_waits_and_the_rest_is_not_recorded(service, visitor):
    csrf = csrf_of(visitor.get("/login"))
    answers = [visitor.post("/login", data={"csrf": csrf, "token": MADE_UP}) for _ in range(13)]
    assert [answer.status_code for answer in answers] == [403] * 10 + [429] * 3
    assert 0 < int(answers[-1].headers["retry-after"]) <= 300
    assert len(service.access_events("login")) == 10


def test_failures_of_others_at_one_address_shut_out_nobody_who_has_a_token(service, visitor):
    # A TLS terminator is the one address of everybody: ten wrong tokens must not close the dashboard.
    csrf = csrf_of(visitor.get("/login"))
    for _ in range(12):
        visitor.post("/login", data={"csrf": csrf, "token": MADE_UP})
    log_in(visitor, service.token(Role.ADMIN))
    assert visitor.get("/").status_code == 200


def test_a_form_that_is_no_form_is_refused(reader, visitor):
    for body, kind in ((b"{}", "application/json"), (b"csrf=1&csrf=2", "application/x-www-form-urlencoded")):
        visitor.get("/login")
        answer = visitor.post("/login", content=body, headers={"content-type": kind})
        assert answer.status_code == 400
    large = reader.post(
        "/logout", content=b"csrf=" + b"x" * 9000, headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert large.status_code == 413


# --- sessions end ----------------------------------------------------------------------------------------------------


def test_a_revoked_token_ends_its_sessions_at_once(service, visitor):
    token = service.token(Role.AUDITOR)
    log_in(visitor, token)
    sha256 = service.services.tokens.authenticate(token).token_sha256
    with service.client(Role.ADMIN) as admin:
        assert admin.delete(f"/v1/tokens/{sha256}").status_code == 204
    assert visitor.get("/").status_code == 303
    assert visitor.get("/live").status_code == 401


def test_a_session_ends_after_its_time(tmp_path: Path):
    clock = SimulatedClock(NOW_MS)
    with start_service(tmp_path, clock=clock, session_seconds=3600) as service, service.browser_client() as client:
        log_in(client, service.token(Role.AUDITOR))
        clock.advance(3_599_999)
        assert client.get("/").status_code == 200
        clock.advance(1)
        assert client.get("/").status_code == 303


def test_a_session_survives_a_restart_of_the_service(tmp_path: Path):
    with start_service(tmp_path) as service, service.browser_client() as client:
        log_in(client, service.token(Role.AUDITOR))
        cookie = client.cookies["tallystick"]
    with start_service(tmp_path) as service, service.browser_client() as client:
        plant(client, cookie)
        assert client.get("/").status_code == 200


def test_over_https_the_cookies_are_bound_to_the_host(tmp_path: Path):
    with start_service(tmp_path, insecure_cookies=False) as service, service.browser_client() as client:
        page = client.get("/login")
        form_cookie = page.headers["set-cookie"]
        assert form_cookie.startswith("__Host-tallystick-form=")
        headers = {"cookie": form_cookie.partition(";")[0]}
        data = {"csrf": csrf_of(page), "token": service.token(Role.AUDITOR)}
        answer = client.post("/login", data=data, headers=headers)
        session = next(line for line in answer.headers.get_list("set-cookie") if line.startswith("__Host-tallystick="))
        assert {"HttpOnly", "Secure", "SameSite=strict", "Path=/"} <= set(session.split("; "))
        assert "Domain" not in session


# --- pages -----------------------------------------------------------------------------------------------------------

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


def test_every_page_has_the_strict_headers(service, reader, visitor):
    decision = service.enforcer().decide()
    paths = ["/", "/live", "/packs", "/docs/api", f"/decisions/{decision}", f"/sessions/{'5' * 32}", "/decisions/x"]
    answers = [reader.get(path) for path in paths] + [visitor.get(path) for path in ("/", "/login", "/live")]
    for answer in answers:
        assert answer.headers.get_list("content-security-policy") == [POLICY]
        assert answer.headers.get_list("referrer-policy") == ["same-origin"]
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
        assert answer.headers["cache-control"] == "no-store"


def test_answers_of_the_api_still_send_no_referrer(service):
    with service.client() as client:
        assert client.get("/v1/decisions").headers.get_list("referrer-policy") == ["no-referrer"]


def test_assets_may_be_kept_for_ever_and_have_their_digest_in_the_url(reader):
    page = reader.get("/").text
    urls = set(re.findall(r'(?:href|src)="(/assets/[^"]+)"', page))
    assert len(urls) == 3
    for url in urls:
        answer = reader.get(url)
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert reader.get("/assets/style.css").status_code == 404


@pytest.mark.parametrize("path", ["/", "/login", "/docs/api", "/packs", "/decisions/x"])
def test_every_page_of_a_simulated_log_is_stamped(service, reader, visitor, path):
    assert "SIMULATED" in reader.get(path, follow_redirects=True).text
    assert "SIMULATED" in visitor.get(path, follow_redirects=True).text


def test_the_home_shows_decisions_newest_first_as_the_log_has_them(service, reader):
    gateway = service.enforcer()
    gateway.decide(agent="first-agent")
    second = gateway.decide(agent="second-agent", enforcement="kill", rules=("rule-a", "rule-b"))
    page = reader.get("/").text
    assert page.index("second-agent") < page.index("first-agent")
    assert f'href="/decisions/{second}"' in page
    assert "Killed" in page
    assert 'rule-a</span>, <span class="name">rule-b' in page


def test_what_was_only_observed_is_marked_not_enforced(service, reader):
    service.enforcer().decide(mode="observe", enforcement="allow")
    page = reader.get("/").text
    assert "not enforced" in page
    assert "policy said DENY" in page


def test_the_home_and_its_refreshes_show_what_is_stopped_and_say_nothing_where_nothing_is(service, reader):
    assert "in force" not in reader.get("/").text
    with service.client(Role.RESPONDER) as responder:
        wanted = {"agent": "finance-bot", "seconds": 600, "reason": "ticket 18: odd"}
        order = responder.post("/v1/containments", json=wanted).raise_for_status().json()
    home = reader.get("/").text
    live = home.partition('data-live="')[2].partition('"')[0].replace("&amp;", "&")
    for text in (home, reader.get(live).text):
        assert "1 containment in force." in text
        assert '<a class="name" href="/?agent=finance-bot">finance-bot</a>' in text
        assert f"<dd>{order['leaf_index']}</dd>" in text
        assert f'href="/containments/{order["id"]}"' in text
        assert "ticket 18" not in text


def test_a_containment_has_a_page_that_says_at_which_gateways_it_is_in_force(service, reader):
    service.enforcer("gateway-7", seed=71).decide()
    with service.client(Role.RESPONDER) as responder:
        wanted = {"server": "finance", "tool": "pay", "seconds": 600, "reason": "ticket 19: odd"}
        order = responder.post("/v1/containments", json=wanted).raise_for_status().json()
    text = reader.get(f"/containments/{order['id']}").text
    for said in ("Contained: Tool", "finance/pay", "In force", "unreached: calls may still pass there", order["id"]):
        assert said in text
    assert ("ticket 19" in text, "contain release" in text) == (False, False)
    (seen,) = [event for event in service.access_events("view") if event.target_kind == "containment"]
    assert (seen.target_id, seen.items) == (order["id"], 1)
    for name in ("ann", "eve"):
        with service.client(token=service.token(Role.ADMIN, name)) as admin:
            admin.post(f"/v1/containments/{order['id']}/release", json={"reason": "ticket 19"}).raise_for_status()
    ended = reader.get(f"/containments/{order['id']}").text
    assert "Released early" in ended
    assert "At the gateways" not in ended
    for unknown in ("01a1fcad-9ff9-750b-91ac-898a54d423a5", "x", "%3Cb%3E"):
        assert reader.get(f"/containments/{unknown}").status_code in (404, 422)


def test_each_filter_restricts_the_list(service, reader):
    gateway = service.enforcer()
    gateway.decide_many(
        [
            {"agent": "agent-a", "tool": "tool-a", "rules": ("rule-a",), "enforcement": "deny"},
            {"agent": "agent-b", "tool": "tool-b", "rules": ("rule-b",), "enforcement": "kill"},
            {"agent": "agent-c", "tool": "tool-c", "rules": ("rule-c",), "enforcement": "allow", "mode": "observe"},
        ]
    )
    for query, agent in {
        "agent=agent-a": "agent-a",
        "tool=tool-b": "agent-b",
        "rule=rule-c": "agent-c",
        "enforcement=kill": "agent-b",
        "enforcement=observed": "agent-c",
        "agent=agent-a&enforcement=deny&tool=tool-a&rule=rule-a": "agent-a",
    }.items():
        rows = re.findall(r'data-label="Agent"><span class="cell name">([^<]+)<', reader.get(f"/?{query}").text)
        assert rows == [agent], query
    assert "No decision matches these filters." in reader.get("/?agent=agent-a&enforcement=kill").text


@pytest.mark.parametrize("query", ["agent=%3Cscript%3E", "tool=a%00b", "rule=%E2%80%AE", "enforcement=drop+table"])
def test_a_filter_that_no_record_can_match_is_a_fault_of_its_field(reader, query):
    page = reader.get(f"/?{query}")
    assert page.status_code == 200
    assert 'aria-invalid="true"' in page.text
    assert "<script>" not in page.text


def test_long_lists_are_paged_by_leaf_and_no_decision_is_on_two_pages(service, reader):
    gateway = service.enforcer()
    made = gateway.decide_many([{"agent": f"agent-{number}"} for number in range(120)])
    seen: list[str] = []
    url: str | None = "/?enforcement=deny"
    for _ in range(4):
        page = reader.get(url).text
        seen += re.findall(r'id="d-([0-9a-f-]{36})"', page)
        older = re.search(r'rel="next" href="([^"]+)"', page)
        url = older[1].replace("&amp;", "&") if older else None
        if url is None:
            break
    assert seen == made[::-1]


@pytest.mark.parametrize("query", ["before=-1", "before=x", "before=99999999999999999999", "agent=" + "a" * 300])
def test_a_malformed_address_is_a_page_that_says_so(reader, query):
    answer = reader.get(f"/?{query}")
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


def test_a_damaged_search_index_is_said_and_what_it_claims_is_not_shown(service, reader):
    service.enforcer().decide(agent="real-agent")
    with writing(service.services.database) as connection:
        for (name,) in connection.execute(sql("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all():
            connection.execute(sql(f"DROP TRIGGER {name}"))
        forged = sql("INSERT INTO names (log_no, name_no, name) VALUES (1, 900, 'forged-agent')")
        connection.execute(forged)
        connection.execute(update(tables.records).where(tables.records.c.leaf_index == 0).values(agent=900))
    page = reader.get("/").text
    assert "1 of the leaves that the search index named are no decisions." in page
    assert "real-agent" in page
    assert "forged-agent" not in page


def test_views_are_recorded_and_refreshes_are_not(service, reader):
    decision = service.enforcer().decide()
    page = reader.get("/").text
    live = re.search(r'data-live="([^"]+)"', page)[1].replace("&amp;", "&")
    reader.get(f"/decisions/{decision}")
    reader.get(f"/sessions/{'5' * 32}")
    before = len(service.access_events())
    for _ in range(3):
        assert reader.get(live).status_code == 200
    assert len(service.access_events()) == before
    assert [(event.target_kind, event.target_id, event.items) for event in service.access_events("view")] == [
        ("dashboard", None, 1),
        ("record", decision, 1),
        ("session", "5" * 32, 1),
    ]


def test_a_page_whose_view_cannot_be_recorded_is_not_shown(service, reader, monkeypatch):
    decision = service.enforcer().decide(agent="secret-agent")

    async def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(type(service.services.access), "record", fail)
    for path in ("/", f"/decisions/{decision}", f"/decisions/{decision}/entry", f"/sessions/{'5' * 32}"):
        answer = reader.get(path)
        assert answer.status_code == 503
        assert "secret-agent" not in answer.text


def test_who_wants_to_leave_can_also_while_nothing_can_be_recorded(service, reader, monkeypatch):
    csrf = csrf_of(reader.get("/"))

    async def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(type(service.services.access), "record", fail)
    assert reader.post("/logout", data={"csrf": csrf}).status_code == 303
    assert reader.get("/").status_code == 303


def test_a_login_that_cannot_be_recorded_is_no_login(service, visitor, monkeypatch):
    async def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(type(service.services.access), "record", fail)
    assert log_in(visitor, service.token(Role.ADMIN)).status_code == 503
    assert "tallystick" not in visitor.cookies


# --- refreshes -------------------------------------------------------------------------------------------------------


def live_url(page: httpx.Response) -> str:
    return re.search(r'data-live="([^"]+)"', page.text)[1].replace("&amp;", "&")


def test_a_refresh_shows_what_is_new_and_is_304_while_nothing_is(service, reader):
    gateway = service.enforcer()
    gateway.decide()
    url = live_url(reader.get("/"))
    service.wait_until_published()
    first = reader.get(url)
    again = reader.get(url, headers={"if-none-match": f'"other", {first.headers["etag"]}'})
    if again.status_code == 200:  # the age of the checkpoint may have turned a page just now
        again = reader.get(url, headers={"if-none-match": again.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    gateway.decide(agent="new-agent")
    fresh = reader.get(url, headers={"if-none-match": first.headers["etag"]})
    assert fresh.status_code == 200
    assert "new-agent" in fresh.text


def test_a_refresh_shows_only_views_that_were_opened_in_this_session(service, reader):
    service.enforcer().decide(agent="agent-a")
    url = live_url(reader.get("/?agent=agent-b"))
    assert reader.get(url).status_code == 200
    for forged in (
        url.replace("agent-b", "agent-a"),
        re.sub(r"agent=[^&]+&", "", url),
        "/live?view=" + "0" * 64,
        "/live?view=",
        "/live?agent=agent-a&view=x",
    ):
        answer = reader.get(forged)
        assert answer.status_code == 403, forged
        assert "agent-a</span>" not in answer.text
    with service.browser_client() as other:
        log_in(other, service.token(Role.AUDITOR))
        assert other.get(url).status_code == 403


def test_a_refresh_without_a_view_shows_the_bar_alone(service, reader):
    service.enforcer().decide(agent="agent-a")
    text = reader.get("/live?agent=agent-a").text
    assert "Checkpoint" in text
    assert "agent-a" not in text


def test_a_refresh_cannot_be_paged_through(service, reader):
    gateway = service.enforcer()
    gateway.decide_many([{"agent": f"agent-{number}"} for number in range(60)])
    url = live_url(reader.get("/"))
    assert "agent-5<" not in reader.get(f"{url}&before=10").text


# --- one decision, one session ---------------------------------------------------------------------------------------


def test_a_decision_page_shows_the_record_and_opens_nothing(service, reader):
    gateway = service.enforcer()
    decision = gateway.decide(enforcement="allow", decision="PERMIT")
    gateway.complete(decision, latency_us=4321)
    page = reader.get(f"/decisions/{decision}").text
    for text in ("finance-bot", "Payroll-DB", "finance-business-hours", "4,321 µs", "Completed", "6" * 32, decision):
        assert text in page
    assert page.count("salted commitment") == 2
    titles = re.findall(r'<h2 id="(?:section-\d|outcome-title)">([^<]*)</h2>', page)
    assert titles[:3] == ["The call", "The decision", "What became of the call"]
    assert "<summary>The outcome's record in the log</summary>" in page
    assert "jsonrpc" not in page, "an opened payload"


@pytest.mark.parametrize(("role", "commands"), [(Role.AUDITOR, set()), (Role.RESPONDER, {"replay", "open"})])
def test_a_decision_page_names_the_commands_that_the_role_may_use(service, visitor, role, commands):
    decision = service.enforcer().decide()
    assert log_in(visitor, service.token(role, "jane")).status_code == 303
    page = visitor.get(f"/decisions/{decision}").text
    assert set(re.findall(rf"<code>tallystick (\w+) {decision}", page)) == commands


def test_the_day_of_a_simulated_log_ends_at_its_newest_decision(service, reader):
    service.enforcer().decide()
    page = reader.get("/").text
    assert '<h2 id="counts-title">The last 24 hours recorded</h2>' in page


@pytest.mark.parametrize(
    "path",
    [
        "/decisions/00000000-0000-0000-0000-000000000000",
        "/decisions/x",
        "/decisions/%2e%2e",
        "/sessions/" + "0" * 32,
        "/sessions/x",
        "/decisions/00000000-0000-0000-0000-000000000000/proof",
        "/decisions/00000000-0000-0000-0000-000000000000/entry",
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(reader, path):
    answer = reader.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "Not found" in answer.text


def test_another_record_than_a_decision_has_no_decision_page(service, reader):
    gateway = service.enforcer()
    outcome = gateway.complete(gateway.decide())
    assert reader.get(f"/decisions/{outcome}").status_code == 404


def test_the_downloads_prove_the_decision_offline_and_are_recorded(service, reader):
    decision = service.enforcer().decide()
    entry = reader.get(f"/decisions/{decision}/entry")
    proof = reader.get(f"/decisions/{decision}/proof")
    assert f'filename="{decision}.tlog-proof"' in proof.headers["content-disposition"]
    assert entry.headers["content-disposition"].startswith("attachment")
    parsed = parse_proof_file(proof.content)
    checkpoint = trust_policy(service.services.keys).verify(parsed.checkpoint)
    verify_inclusion(hash_leaf(entry.content), parsed.index, checkpoint.head, parsed.path)
    assert decode_entry(entry.content).record_id == decision
    events = service.access_events("download")
    assert [(event.target_id, event.items) for event in events] == [(decision, 1)] * 2
    assert len({event.digest for event in events}) == 2


def test_a_session_is_told_in_order_with_what_is_missing(service, reader):
    gateway = service.enforcer()
    first = gateway.decide(enforcement="allow", decision="PERMIT")
    gateway.complete(first)
    gateway.enforcer.seq += 3
    second = gateway.decide(enforcement="kill")
    page = reader.get(f"/sessions/{'5' * 32}").text
    assert page.index(first) < page.index("Completed") < page.index(second)
    assert "3 records missing" in page


def test_packs_are_for_those_who_may_make_them(service):
    for role, status in ((Role.AUDITOR, 200), (Role.ADMIN, 200), (Role.RESPONDER, 403), (Role.APPROVER, 403)):
        with service.browser_client() as client:
            log_in(client, service.token(role))
            assert client.get("/packs").status_code == status
            assert ('href="/packs"' in client.get("/").text) is (status == 200)


# --- the API's documentation -----------------------------------------------------------------------------------------


def test_the_api_is_documented_to_everybody_and_the_log_is_not_shown_with_it(service, visitor):
    page = visitor.get("/docs/api")
    assert page.status_code == 200
    document = json.loads(visitor.get("/openapi.json").text)
    for path in document["paths"]:
        assert path in page.text
    assert "Checkpoint</dt>" not in page.text


def test_pages_are_no_operations_of_the_api(service, visitor):
    paths = json.loads(visitor.get("/openapi.json").text)["paths"]
    ours = ("/v1/", "/logs/", "/healthz", "/readyz", "/metrics")
    # Where AuthZEN and a stock OPA expect them.
    of_others = ("/access/v1/", "/.well-known/authzen-configuration")
    assert {path for path in paths if not path.startswith(ours + of_others)} == {"/logs", "/status"}


def test_a_bearer_token_opens_no_page_and_a_cookie_no_api(service, reader):
    with service.client(Role.ADMIN) as client:
        assert client.get("/").status_code == 303
    assert reader.get("/v1/decisions").status_code == 401


@pytest.mark.slow
def test_a_pack_is_listed_with_its_state_and_downloaded_by_whoever_may(service, reader):
    service.enforcer().decide()
    now = service.services.clock.now_ms()
    order = {"from_ms": now - 3_600_000, "to_ms": now, "title": "Third quarter <b>", "frameworks": ["soc2"]}
    with service.client(Role.ADMIN) as admin:
        job = admin.post("/v1/evidence-packs", json=order).json()["job_id"]
        assert reader.get(f"/packs/{job}.zip").status_code == 409
        assert "Third quarter &lt;b&gt;" in reader.get("/packs").text
        deadline = time.monotonic() + 120
        while (state := admin.get(f"/v1/evidence-packs/{job}").json())["state"] not in ("done", "failed"):
            assert time.monotonic() < deadline
            time.sleep(0.5)
    assert state["error"] is None
    page = reader.get("/packs").text
    assert "Ready" in page
    for suffix, digest in (("pdf", state["pdf_sha256"]), ("zip", state["zip_sha256"])):
        assert f'href="/packs/{job}.{suffix}"' in page
        answer = reader.get(f"/packs/{job}.{suffix}")
        assert hashlib.sha256(answer.content).hexdigest() == digest
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["content-disposition"].startswith("attachment")
        (event,) = service.access_events(f"download_{suffix}")
        assert (event.target_id, event.digest, event.actor) == (job, digest, actor(service, "jane"))
    with service.browser_client() as client:
        log_in(client, service.token(Role.RESPONDER))
        assert client.get(f"/packs/{job}.zip").status_code == 403
    assert reader.get("/packs/00000000-0000-0000-0000-000000000000.zip").status_code == 404
