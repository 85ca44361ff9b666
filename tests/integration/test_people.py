"""Persons and machines over HTTP: what a machine's token is refused, and what is recorded of that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from ledger.commitments import pseudonym
from service import tables
from service.auth import Role, token_digest
from service.persons import Person
from tests.support.ledger import LOG_ID
from tests.support.packs import ready_bundle
from tests.support.service import RunningService, start_service

ORDER = {"agent": "Bot", "seconds": 300, "reason": "it runs wild"}
OWN_RULES = {"archive": {}, "purpose": "to see it all"}
REVIEW = {"verdict": "justified", "comment": "it did run wild"}
HOLD = {"session": "5" * 32, "reason": "the court asks for it"}
NO_ORDER = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("people")) as running:
        yield running


@pytest.fixture(scope="module")
def revision(service: RunningService) -> str:
    return service.publish(ready_bundle())


def ask(service: RunningService, token: str, method: str, path: str, body: object) -> tuple[int, dict[str, object]]:
    with service.client(token=token) as client:
        answer = client.request(method, path, json=body)
    return answer.status_code, answer.json()


DEEDS = {
    "open_payloads by rules of one's own": ("POST", "/v1/replays", {"decision_ids": [NO_ORDER], **OWN_RULES}),
    "open_payloads by foresight": ("POST", "/v1/impacts", {"from_ms": 0, "to_ms": 1, **OWN_RULES}),
    "open_payloads": ("POST", f"/v1/decisions/{NO_ORDER}/openings", {"fields": ["request"], "purpose": "to see it"}),
    "review_bundles": ("POST", "/v1/bundles/{revision}/review", {"verdict": "approved"}),
    "review_modes": ("POST", f"/v1/modes/{NO_ORDER}/review", {"verdict": "approved"}),
    "contain": ("POST", "/v1/containments", ORDER),
    "end_containments": ("POST", f"/v1/containments/{NO_ORDER}/release", {"reason": "it is mended"}),
    "erase": ("POST", "/v1/erasures", {"pseudonym": "0" * 32, "basis": "asked for it"}),
}


@pytest.mark.parametrize("permission", DEEDS)
@pytest.mark.parametrize("owned", [False, True], ids=["nobody's", "somebody's"])
def test_an_administrators_api_token_is_refused_what_takes_a_person_and_that_is_recorded(
    service, revision, permission, owned
):
    if owned:
        ann = service.person_token(Role.ADMIN, "ann")
        _, made = ask(service, ann, "POST", "/v1/tokens", {"role": "admin", "name": "anns-ci"})
        token, name = str(made["token"]), "anns-ci"
    else:
        token, name = service.machine_token(Role.ADMIN, "ci"), "ci"
    before = service.services.sequenced_size()
    method, path, body = DEEDS[permission]
    status, problem = ask(service, token, method, path.format(revision=revision), body)
    assert (status, problem["type"]) == (403, "urn:tallystick:problem:person-needed")
    assert "tallystick login" in str(problem["detail"])
    records = [service.services.reader.record(at).body for at in range(before, service.services.sequenced_size())]
    refusals = [body for body in records if getattr(body, "action", None) == "refused"]
    (refused,) = refusals
    assert refused.target_id == permission.split()[0]
    assert refused.result == "no_person"
    assert refused.actor == pseudonym(service.services.keys.pseudonym.seed, "actor", name)
    assert [type(body).__name__ for body in records if type(body).__name__ != "Heartbeat"] == ["AccessEvent"]


def test_the_same_role_in_a_persons_hands_may(service):
    token = service.person_token(Role.RESPONDER, "rita")
    status, _ = ask(service, token, "POST", "/v1/containments", ORDER)
    assert status == 201


def test_the_first_use_of_a_console_token_is_recorded_once_however_often_it_is_used(service):
    token = service.person_token(Role.AUDITOR, "olga")
    seen = lambda: [e for e in service.access_events("console_login") if e.target_id == token_digest(token)]  # noqa: E731
    assert seen() == []
    for _ in range(3):
        ask(service, token, "GET", "/v1/bundles", None)
    (login,) = seen()
    assert (login.target_kind, login.actor_role, login.result) == ("token", "auditor", "ok")
    # As after a restart, or in another process: what is recorded stays recorded once.
    service.services.people._seen.clear()
    status, _ = ask(service, token, "GET", "/v1/bundles", None)
    assert (status, len(seen())) == (200, 1)


@pytest.mark.parametrize("changes", [{"seal": "0" * 64}, {"subject": "somebody"}, {"kind": "oidc"}], ids=str)
def test_a_person_whom_the_keys_did_not_seal_is_let_in_nowhere(service, changes):
    token = service.person_token(Role.ADMIN, "ida")
    with service.services.database.begin() as connection:
        mine = tables.token_persons.c.token_sha256 == token_digest(token)
        connection.execute(update(tables.token_persons).where(mine).values(**changes))
    size = service.services.sequenced_size()
    status, problem = ask(service, token, "GET", "/v1/decisions", None)
    assert (status, problem["type"]) == (401, "urn:tallystick:problem:unauthenticated")
    assert not [e for e in service.access_events() if e.target_id == token_digest(token)]
    assert size <= service.services.sequenced_size()
    with service.server.browser_client() as browser:
        page = browser.get("/login").text
        csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
        answer = browser.post("/login", data={"csrf": csrf, "next": "/", "token": token})
        assert answer.status_code in (401, 403)
        assert service.services.tokens.authenticate(token).person is not None
        assert not browser.cookies.get("tallystick")


def test_a_machine_that_is_written_into_the_table_of_persons_opens_nothing(service):
    token = service.machine_token(Role.ADMIN, "mallory")
    row = {"log_id": LOG_ID, "token_sha256": token_digest(token), "kind": "console", "issuer": "console"}
    told = {"subject": "mallory", "acr": "", "amr": "[]", "provider_session": "", "seal": "f" * 64}
    with service.services.database.begin() as connection:
        connection.execute(insert(tables.token_persons), {**row, **told})
    assert ask(service, token, "POST", "/v1/containments", ORDER)[0] == 401


def test_a_machine_that_logs_in_to_the_dashboard_stays_a_machine(service):
    link = service.services.login_links.issue(service.machine_token(Role.RESPONDER, "wallboard"))
    with service.server.browser_client() as browser:
        page = browser.get(f"/login/link/{link}").text
        csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
        assert browser.post(f"/login/link/{link}", data={"csrf": csrf}).status_code == 303
        decision = service.enforcer("gateway-9", seed=99).decide()
        assert "tallystick open" not in browser.get(f"/decisions/{decision}").text
    person = service.person_token(Role.RESPONDER, "rita")
    with service.server.browser_client() as browser:
        page = browser.get("/login").text
        csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
        assert browser.post("/login", data={"csrf": csrf, "next": "/", "token": person}).status_code == 303
        assert "tallystick open" in browser.get(f"/decisions/{decision}").text


def test_a_service_that_was_started_again_still_knows_its_persons(tmp_path: Path):
    with start_service(tmp_path) as first:
        token = first.person_token(Role.RESPONDER, "rita")
    with start_service(tmp_path) as again:
        assert ask(again, token, "POST", "/v1/containments", ORDER)[0] == 201


# --- somebody else is another person


def _machine_of(service: RunningService, person: str) -> str:
    _, made = ask(service, person, "POST", "/v1/tokens", {"role": "admin", "name": f"ci-{token_digest(person)[:8]}"})
    return str(made["token"])


def _twice_removed(service: RunningService, person: str) -> str:
    _, made = ask(service, _machine_of(service, person), "POST", "/v1/tokens", {"role": "admin", "name": "grandchild"})
    return str(made["token"])


def _another_login(service: RunningService, person: str) -> str:
    return service.person_token(Role.ADMIN, service.services.tokens.authenticate(person).name)


@pytest.mark.parametrize("other", [_machine_of, _twice_removed, _another_login])
def test_nobody_approves_what_his_own_machine_or_other_login_published(tmp_path: Path, other):
    with start_service(tmp_path) as mine:
        ann, bundle = mine.person_token(Role.ADMIN, "ann"), ready_bundle()
        author = other(mine, ann)
        with mine.client(token=author) as client:
            client.post("/v1/bundles", content=bundle.archive()).raise_for_status()
        path = f"/v1/bundles/{bundle.revision}/review"
        status, problem = ask(mine, ann, "POST", path, {"verdict": "approved"})
        assert (status, problem["detail"]) == (409, "the bundle's author cannot approve it")
        assert ask(mine, mine.person_token(Role.APPROVER, "bob"), "POST", path, {"verdict": "approved"})[0] == 200


def test_nobody_approves_a_mode_that_his_own_machine_proposed(service):
    ann = service.person_token(Role.ADMIN, "anna")
    machine = _machine_of(service, ann)
    wanted = {"server": "shop", "reason": "to see what it does"}
    _, made = ask(service, machine, "POST", "/v1/modes", wanted)
    path = f"/v1/modes/{made['change_id']}/review"
    assert ask(service, ann, "POST", path, {"verdict": "approved"})[0] == 409
    assert ask(service, service.person_token(Role.APPROVER, "bob"), "POST", path, {"verdict": "approved"})[0] == 200


def test_one_person_under_two_subjects_of_one_name_releases_nothing_alone(service):
    console = service.person_token(Role.ADMIN, "cora@example.com")
    elsewhere = Person(issuer="https://login.example", subject="c0", name="cora@example.com", method="console")
    provider = service.services.people.issue(elsewhere, Role.RESPONDER, seconds=60)[0]
    assert ask(service, provider, "GET", "/v1/bundles", None)[0] == 200
    _, order = ask(service, console, "POST", "/v1/containments", ORDER)
    release, why = f"/v1/containments/{order['id']}/release", {"reason": "it is mended"}
    assert ask(service, console, "POST", release, why)[1]["action"] == "release_requested"
    assert ask(service, provider, "POST", release, why)[0] == 409
    assert ask(service, provider, "POST", f"/v1/containments/{order['id']}/review", REVIEW)[0] == 409
    bob = service.person_token(Role.RESPONDER, "bob")
    assert ask(service, bob, "POST", release, why)[1]["action"] == "released"


def test_nor_does_he_release_a_hold_alone(service):
    console = service.person_token(Role.ADMIN, "dora@example.com")
    elsewhere = Person(issuer="https://login.example", subject="d0", name="dora@example.com", method="console")
    provider = service.services.people.issue(elsewhere, Role.ADMIN, seconds=60)[0]
    status, hold = ask(service, console, "POST", "/v1/holds", HOLD)
    assert status == 201
    path = f"/v1/holds/{hold['hold_id']}/release"
    assert ask(service, console, "POST", path, {})[1]["action"] == "release_requested"
    assert ask(service, provider, "POST", path, {})[0] == 409
    assert ask(service, service.person_token(Role.ADMIN, "bob"), "POST", path, {})[1]["action"] == "released"
