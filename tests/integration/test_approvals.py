"""Held calls at a real service: who may see and decide them, and every way round, refused and recorded."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from ledger.bodies import Approval
from ledger.clock import SimulatedClock
from ledger.commitments import SALT_BYTES
from ledger.ports import commit
from service.approvals import Approvals
from service.auth import Role
from service.cli.main import cli
from service.persons import CONSOLE, Person
from tests.support.ledger import LOG_ID, NOW_MS, make_decision
from tests.support.service import EnforcerClient, RunningService, start_service

REASON = "ticket 18: looked into it"
MESSAGE = (
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call",'
    b'"params":{"name":"pay","arguments":{"to":"a\xe2\x80\xaeb","n":1.10}}}'
)


class Desk:
    """A service with one gateway that holds calls."""

    def __init__(self, service: RunningService, clock: SimulatedClock, gateway: EnforcerClient) -> None:
        self.service, self.clock, self.gateway = service, clock, gateway

    def hold(self, user: str | None = "alice", **terms: Any) -> str:
        """Hold a call that somebody asks for; return its approval id."""
        commitment, opening = commit("message", b"s" * SALT_BYTES, MESSAGE)
        names = self.service.services.keys.pseudonyms("user", user) if user is not None else (None,)
        body, openings = make_decision(message=commitment, user=names[0], enforcement="ask", decision="PERMIT")
        record = self.gateway.record(body)
        kept = [one for one in openings if one.field != "message" and getattr(body, one.field) is not None]
        self.gateway.post([(record, [opening, *kept])]).raise_for_status()
        return self.gateway.hold(record.record_id, **terms)

    def ask(self, method: str, path: str, token: str, **body: Any) -> httpx.Response:
        with self.service.client(token=token) as client:
            return client.request(method, path, json=body or None)

    def person(self, name: str = "ben", role: Role = Role.APPROVER) -> str:
        return self.service.token(role, name)

    def open(self, approval_id: str, token: str) -> httpx.Response:
        return self.ask("POST", f"/v1/approvals/{approval_id}/open", token)

    def decide(self, approval_id: str, token: str, verdict: str = "granted", **changes: Any) -> httpx.Response:
        binding = self.view(approval_id)["binding"]
        body = {"verdict": verdict, "binding": binding, "reason": REASON, **changes}
        return self.ask("POST", f"/v1/approvals/{approval_id}/verdict", token, **body)

    def approve(self, approval_id: str, name: str = "ben", role: Role = Role.APPROVER) -> httpx.Response:
        token = self.person(name, role)
        assert self.open(approval_id, token).status_code == 200
        return self.decide(approval_id, token)

    def view(self, approval_id: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/v1/approvals/{approval_id}", self.person()).json())

    def steps(self, approval_id: str) -> list[tuple[str, str | None]]:
        services = self.service.services
        bodies = [services.reader.record(leaf).body for leaf in services.catalog.of_type(LOG_ID, "approval")]
        found = [body for body in bodies if isinstance(body, Approval) and body.approval_id == approval_id]
        return [(body.action, body.reason) for body in found]

    def verdicts(self, after: int = -1) -> httpx.Response:
        return self.ask("GET", f"/v1/approvals/verdicts?after={after}", self.gateway.token)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    clock = SimulatedClock(NOW_MS)
    with start_service(tmp_path, clock=clock) as service:
        yield Desk(service, clock, service.enforcer())


# --- the way it goes


def test_who_opens_exactly_what_will_run_may_agree_and_its_gateway_hears_of_it(desk: Desk) -> None:
    held = desk.hold()
    assert desk.view(held)["state"] == "waiting"
    assert desk.verdicts().json()["items"] == []
    token = desk.person()
    opened = desk.open(held, token).json()
    assert base64.b64decode(opened["message"]) == MESSAGE
    assert '"n": 1.10' in opened["shown"]["text"]
    assert "a\u2039U+202E RIGHT-TO-LEFT OVERRIDE\u203ab" in opened["shown"]["text"]
    assert opened["shown"]["hidden"] == ["RIGHT-TO-LEFT OVERRIDE"]
    done = desk.decide(held, token)
    assert (done.status_code, done.json()["state"]) == (200, "granted")
    (said,) = desk.verdicts().json()["items"]
    assert (said["approval_id"], said["denied"], len(said["grants"])) == (held, False, 1)
    assert said["grants"][0]["binding"] == opened["binding"]
    assert desk.steps(held) == [("held", None), ("seen", None), ("granted", None)]
    assert [event.target_id for event in desk.service.access_events("open_payload")] == [opened["decision_id"]]


def test_one_denial_is_the_end_whoever_has_agreed(desk: Desk) -> None:
    held = desk.hold(needed=2)
    assert desk.approve(held, "ben").status_code == 200
    assert desk.decide(held, desk.person("cleo"), "denied").json()["state"] == "denied"
    assert desk.approve(held, "dora").status_code == 409
    assert desk.steps(held)[-1] == ("refused", "denied")
    assert desk.verdicts().json()["items"][0]["denied"] is True


def test_as_many_different_people_as_it_needs(desk: Desk) -> None:
    held = desk.hold(needed=2)
    assert desk.approve(held, "ben").json()["state"] == "waiting"
    again = desk.decide(held, desk.person("ben"))
    assert (again.status_code, desk.steps(held)[-1]) == (409, ("refused", "twice"))
    assert desk.approve(held, "cleo").json()["state"] == "granted"
    assert len(desk.verdicts().json()["items"][0]["grants"]) == 2


def test_nothing_is_told_twice_and_news_are_told(desk: Desk) -> None:
    held = desk.hold()
    version = desk.verdicts().json()["version"]
    assert desk.verdicts(version).status_code == 304
    desk.approve(held)
    assert desk.verdicts(version).status_code == 200


# --- ways round: refused, and recorded


def test_who_asked_for_a_call_cannot_agree_to_it(desk: Desk) -> None:
    held = desk.hold(user="ben")
    assert desk.approve(held, "ben").status_code == 403
    assert desk.steps(held)[-1] == ("refused", "self_approval")
    assert desk.view(held)["granted_by"] == []
    assert desk.approve(held, "cleo").status_code == 200


LOGINS = (
    Person(issuer="https://login.example", subject="0a1b", name="ann@example.com", method="oidc"),
    Person(issuer=CONSOLE, subject="ann@example.com", name="ann@example.com", method="break_glass"),
)


@pytest.fixture
def in_need(tmp_path: Path) -> Iterator[Desk]:
    """Return a desk whose people log in by a provider, and at the console in need."""
    provider = {"oidc_issuer": "https://login.example", "oidc_client_id": "tally", "oidc_roles": "a=approver"}
    clock = SimulatedClock(NOW_MS)
    with start_service(tmp_path, clock=clock, break_glass=True, **provider) as service:
        yield Desk(service, clock, service.enforcer())


def logged_in(desk: Desk, person: Person) -> str:
    return desk.service.services.people.issue(person, Role.APPROVER, seconds=3600)[0]


@pytest.mark.parametrize("logins", [LOGINS, LOGINS[::-1]], ids=["provider-first", "console-first"])
def test_who_has_two_logins_is_one_of_two_who_must_agree(in_need: Desk, logins: tuple[Person, Person]) -> None:
    desk, tokens = in_need, [logged_in(in_need, person) for person in logins]
    held = desk.hold(needed=2)
    for token in tokens:
        assert desk.open(held, token).status_code == 200
    binding = desk.open(held, tokens[0]).json()["binding"]
    said = {"verdict": "granted", "binding": binding, "reason": REASON}
    first, second = (desk.ask("POST", f"/v1/approvals/{held}/verdict", token, **said) for token in tokens)
    assert (first.status_code, second.status_code, desk.steps(held)[-1]) == (200, 409, ("refused", "twice"))
    assert len(desk.verdicts().json()["items"][0]["grants"]) == 1


def test_who_asked_for_a_call_cannot_agree_to_it_by_his_other_login(in_need: Desk) -> None:
    desk, (provider, console) = in_need, LOGINS
    logged_in(desk, provider)  # it was by this one that he asked
    held, token = desk.hold(user=provider.subject), logged_in(desk, console)
    binding = desk.open(held, token).json()["binding"]
    said = {"verdict": "granted", "binding": binding, "reason": REASON}
    assert desk.ask("POST", f"/v1/approvals/{held}/verdict", token, **said).status_code == 403
    assert desk.steps(held)[-1] == ("refused", "self_approval")


@pytest.mark.parametrize("role", [Role.APPROVER, Role.ADMIN])
def test_a_machines_token_neither_sees_nor_agrees_whatever_its_role(desk: Desk, role: Role) -> None:
    held = desk.hold()
    machine = desk.service.machine_token(role, "robot")
    assert desk.open(held, machine).status_code == 403
    assert desk.decide(held, machine).json()["type"].endswith("person-needed")
    assert [step for step in desk.steps(held) if step[0] != "held"] == [("refused", "not_a_person")] * 2
    assert desk.verdicts().json()["items"] == []


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.RESPONDER, Role.CLIENT])
def test_a_role_that_may_not_neither_sees_nor_agrees(desk: Desk, role: Role) -> None:
    held = desk.hold()
    token = desk.service.token(role, "eve")
    assert desk.open(held, token).status_code == 403
    assert desk.decide(held, token).status_code == 403
    assert [step for step in desk.steps(held) if step[0] != "held"] == [("refused", "not_permitted")] * 2


def test_a_gateway_agrees_to_nothing(desk: Desk) -> None:
    held = desk.hold()
    assert desk.open(held, desk.gateway.token).status_code == 403
    assert desk.decide(held, desk.gateway.token).status_code == 403
    for action in ("seen", "granted", "denied"):
        assert desk.gateway.step(held, action, actor="a" * 32, actor_role="approver").status_code == 403
    assert desk.view(held)["granted_by"] == []


def test_only_those_who_have_opened_it_agree(desk: Desk) -> None:
    held = desk.hold()
    assert desk.decide(held, desk.person()).status_code == 409
    assert desk.steps(held)[-1] == ("refused", "not_opened")


def test_another_binding_than_what_is_held_is_not_agreed_to(desk: Desk) -> None:
    held, other = desk.hold(), desk.hold()
    token = desk.person()
    desk.open(held, token)
    desk.open(other, token)
    swapped = desk.decide(held, token, binding=desk.view(other)["binding"])
    assert (swapped.status_code, desk.steps(held)[-1]) == (409, ("refused", "changed_binding"))
    assert desk.view(held)["granted_by"] == []


def test_a_gateway_that_binds_something_else_than_its_decision_is_not_believed(desk: Desk) -> None:
    held = desk.hold(binding="0" * 64)
    token = desk.person()
    assert desk.open(held, token).status_code == 409
    assert desk.decide(held, token).status_code == 409
    assert desk.steps(held)[-1] == ("refused", "changed_binding")


def test_only_the_roles_that_are_named_agree(desk: Desk) -> None:
    held = desk.hold(roles=("admin",))
    assert desk.approve(held, "ben", Role.APPROVER).status_code == 403
    assert desk.steps(held)[-1] == ("refused", "role")
    assert desk.approve(held, "ann", Role.ADMIN).status_code == 200


def test_nobody_agrees_when_its_time_is_over(desk: Desk) -> None:
    held = desk.hold(seconds=60)
    token = desk.person()
    desk.open(held, token)
    desk.clock.advance(60_000)
    assert desk.decide(held, token).status_code == 409
    assert desk.steps(held)[-1] == ("refused", "expired")
    assert desk.view(held)["state"] == "expired"
    assert desk.verdicts().json()["items"] == []


@pytest.mark.parametrize(("action", "reason"), [("cancelled", "cancelled"), ("used", "used"), ("refused", "withheld")])
def test_nobody_agrees_to_what_is_over(desk: Desk, action: str, reason: str) -> None:
    held = desk.hold()
    token = desk.person()
    desk.open(held, token)
    desk.gateway.step(held, action, reason=None if action == "used" else "client_disconnected").raise_for_status()
    assert desk.decide(held, token).status_code == 409
    assert desk.steps(held)[-1] == ("refused", reason)
    assert desk.verdicts().json()["items"] == []


def test_another_gateway_ends_nothing_that_it_does_not_hold(desk: Desk) -> None:
    held = desk.hold()
    other = desk.service.enforcer("gateway-2", seed=22)
    other.step(held, "cancelled", reason="client_disconnected").raise_for_status()
    assert desk.view(held)["state"] == "waiting"
    assert desk.ask("GET", "/v1/approvals/verdicts", other.token).json()["items"] == []


def test_a_held_call_that_is_not_there_is_not_found(desk: Desk) -> None:
    nobody = "00000000-0000-7000-8000-000000000000"
    token = desk.person()
    body = {"verdict": "granted", "binding": "0" * 64, "reason": REASON}
    assert desk.open(nobody, token).status_code == 404
    assert desk.ask("POST", f"/v1/approvals/{nobody}/verdict", token, **body).status_code == 404


@pytest.mark.parametrize("changes", [{"reason": "short"}, {"verdict": "maybe"}, {"binding": "zz"}], ids=str)
def test_what_is_no_verdict_is_malformed_and_changes_nothing(desk: Desk, changes: dict[str, str]) -> None:
    held = desk.hold()
    assert desk.decide(held, desk.person(), **changes).status_code in (400, 422)
    assert desk.steps(held) == [("held", None)]


def test_what_the_log_says_outlives_the_process(desk: Desk) -> None:
    held = desk.hold(needed=2)
    desk.approve(held)
    services = desk.service.services
    anew = Approvals(
        LOG_ID,
        service_id=services.settings.service_id,
        size=services.sequenced_size,
        catalog=services.catalog,
        reader=services.reader,
        check=lambda *_: None,
        vault=services.vault,
        sink=services.recorder,
        clock=desk.clock,
        keys=lambda: services.keys,
    )
    assert anew.look() == services.approvals.look()
    assert anew.look()[0].approval_id == held


def test_lists_say_nothing_of_parameters(desk: Desk) -> None:
    held = desk.hold()
    listed = desk.ask("GET", "/v1/approvals", desk.service.token(Role.AUDITOR)).text
    assert held in listed
    for secret in ("pay", "1.10", "\u202e"):
        assert secret not in listed


# --- from the command line


def run(desk: Desk, *arguments: str, token: str) -> Any:
    options = ["--url", desk.service.server.url, "--token", token]
    return CliRunner().invoke(cli, ["approvals", *arguments, *options], standalone_mode=False)


def test_a_person_looks_and_agrees_from_the_command_line(desk: Desk) -> None:
    held = desk.hold()
    token = desk.person()
    assert held in run(desk, "list", token=token).output
    shown = run(desk, "show", held, token=token).output
    assert "IT HOLDS WHAT CANNOT BE SEEN: RIGHT-TO-LEFT OVERRIDE" in shown
    assert "\u202e" not in shown
    binding = desk.view(held)["binding"]
    done = run(desk, "approve", held, "--binding", binding, "--reason", REASON, "--json", token=token)
    assert json.loads(done.output)["state"] == "granted"
    assert desk.steps(held)[-1] == ("granted", None)


def test_a_person_denies_from_the_command_line(desk: Desk) -> None:
    held = desk.hold()
    binding = desk.view(held)["binding"]
    run(desk, "deny", held, "--binding", binding, "--reason", REASON, token=desk.person())
    assert desk.view(held)["state"] == "denied"


@pytest.mark.parametrize("command", ["approve", "show"])
def test_a_machine_does_neither_from_the_command_line(desk: Desk, command: str) -> None:
    held = desk.hold()
    more = ["--binding", desk.view(held)["binding"], "--reason", REASON] if command == "approve" else []
    done = run(desk, command, held, *more, token=desk.service.machine_token(Role.APPROVER, "robot"))
    assert done.exit_code != 0 or done.exception is not None or done.return_value not in (0, None)
    assert desk.steps(held)[-1] == ("refused", "not_a_person")
