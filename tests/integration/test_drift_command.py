"""``tallystick drift``: departures seen, closed and orders given at a real service, and every way round it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from ledger.bodies_drift import BaselineEvent
from service.auth import Role
from service.cli.main import cli
from tests.support.service import EnforcerClient, RunningService, start_service

DIGEST = "c7" * 32
DECISION = "019a9c14-6d80-7abc-8def-000000000001"
UNKNOWN = "019a9c14-6d80-7abc-8def-ffffffffffff"
WHY = ("--comment", "looked at it with the team")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("drift-command")) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(service: RunningService) -> EnforcerClient:
    return service.enforcer()


@pytest.fixture
def agent() -> str:
    """An agent of its own for each test."""
    return f"agent-{secrets.token_hex(4)}"


def run(service: RunningService, token: str, *arguments: str, code: int = 0) -> Result:
    env = {"TALLYSTICK_URL": service.url, "TALLYSTICK_TOKEN": token}
    result = CliRunner().invoke(cli, ["drift", *arguments], env=env)
    assert result.exit_code == code, (result.output, result.stderr, result.exception)
    return result


def learn(gateway: EnforcerClient, action: str, agent: str, **members: object) -> None:
    body = BaselineEvent(action=action, agent=agent, **members)
    gateway.post([(gateway.record(body), ())]).raise_for_status()


def test_a_departure_is_seen_acknowledged_and_closed(service, gateway, agent):
    rita = service.token(Role.RESPONDER, "rita")
    learn(gateway, "ready", agent, baseline_version=3)
    flag = gateway.flag(
        agent=agent,
        detector="new_tool",
        subject="shop/refund",
        baseline_version=3,
        value_milli=1000,
        calls=1,
        decisions=(DECISION,),
        explained="bundle",
        explained_by="ab" * 32,
        unflagged=2,
    )
    listed = run(service, rita, "list", "--agent", agent).output
    assert (flag.record_id in listed, "shop/refund" in listed, "1 of 1 baseline ready" in listed) == (True, True, True)
    shown = run(service, rita, "show", flag.record_id).output
    for said in ("never called (new_tool)", "version 3", DECISION, "another bundle", "2 departures were too many"):
        assert said in shown
    run(service, rita, "acknowledge", flag.record_id, *WHY)
    run(service, rita, "acknowledge", flag.record_id, *WHY, code=4)
    assert "acknowledged by" in run(service, rita, "show", flag.record_id).output
    done = run(service, rita, "close", flag.record_id, "--as", "misuse", *WHY, "--json")
    assert json.loads(done.output)["state"] == "closed"
    assert "closed as misuse" in run(service, rita, "show", flag.record_id).output
    run(service, rita, "close", flag.record_id, "--as", "harmless", *WHY, code=4)
    assert "no departure is open" in run(service, rita, "list", "--agent", agent).output
    found = json.loads(run(service, rita, "list", "--all", "--agent", agent, "--json").output)
    assert [item["disposition"] for item in found["items"]] == ["misuse"]
    assert found["baselines"] == {"none": 0, "learning": 0, "ready": 1}


def test_without_a_baseline_the_list_says_that_nothing_can_be_found(service, gateway, agent):
    auditor = service.token(Role.AUDITOR)
    assert "that is no good news" in run(service, auditor, "list", "--agent", agent).output
    assert "that is no good news" in run(service, auditor, "baselines", "--agent", agent).output
    learn(gateway, "learning", agent, calls=1, days=1, needed_calls=499, needed_days=6)
    assert "0 of 1 baseline ready; of the other 1 nothing" in run(service, auditor, "list", "--agent", agent).output
    (row,) = run(service, auditor, "baselines", "--agent", agent).output.splitlines()[1:]
    assert "learning" in row
    assert "499 on 6 more" in row


def test_an_agent_that_calls_and_is_known_to_no_gateway_has_a_line_of_its_own(service, gateway, agent):
    auditor = service.token(Role.AUDITOR)
    gateway.decide(agent=agent)
    (row,) = run(service, auditor, "baselines", "--agent", agent).output.splitlines()[1:]
    assert row.split() == [agent, "none"]
    assert "0 of 1 baseline ready" in run(service, auditor, "list", "--agent", agent).output


def test_a_candidate_is_accepted_by_the_digest_that_was_looked_at_and_by_no_other(service, gateway, agent):
    ben = service.token(Role.APPROVER, "ben")
    at = ("accept", agent, "--gateway", gateway.enforcer.enforcer_id)
    learn(gateway, "ready", agent, baseline_version=1)
    run(service, ben, *at, "--digest", DIGEST, *WHY, code=4)
    learn(gateway, "offered", agent, baseline_version=1, digest=DIGEST, blind=("sparse:weekends",))
    assert DIGEST[:12] in run(service, ben, "baselines", "--agent", agent).output
    run(service, ben, *at, "--digest", "0" * 64, *WHY, code=4)
    run(service, ben, *at, "--digest", DIGEST[:11], *WHY, code=64)
    run(service, ben, *at, "--digest", DIGEST[:12].upper(), *WHY, code=64)
    run(service, ben, "accept", agent, "--gateway", "another", "--digest", DIGEST, *WHY, code=4)
    run(service, ben, *at, "--digest", DIGEST, "--comment", "x", code=64)
    assert DIGEST in run(service, ben, *at, "--digest", DIGEST[:12], *WHY).output
    done = json.loads(run(service, ben, "reset", *at[1:], *WHY, "--json").output)
    assert (done["action"], done["agent"]) == ("reset", agent)


@pytest.mark.parametrize(
    "command",
    [
        ("acknowledge", UNKNOWN, *WHY),
        ("close", UNKNOWN, "--as", "harmless", *WHY),
        ("reset", "nobody", "--gateway", "gateway-1", *WHY),
        ("show", UNKNOWN),
    ],
)
def test_what_there_is_not_is_not_found(service, gateway, command):
    run(service, service.token(Role.APPROVER, "ben"), *command, code=4)


@pytest.mark.parametrize(
    "command",
    [
        ("show", "not-an-id"),
        ("show", UNKNOWN.upper()),
        ("acknowledge", UNKNOWN),
        ("acknowledge", UNKNOWN, "--comment", "short"),
        ("close", UNKNOWN, *WHY),
        ("close", UNKNOWN, "--as", "fine", *WHY),
        ("accept", "clerk", "--gateway", "gateway-1", *WHY),
        ("accept", "clerk", "--digest", DIGEST, *WHY),
        ("reset", "clerk", *WHY),
        ("list", "--agent", "no name"),
    ],
)
def test_a_command_that_is_not_whole_is_an_error_of_usage(service, command):
    env = {"TALLYSTICK_URL": service.url, "TALLYSTICK_TOKEN": service.token(Role.APPROVER, "ben")}
    result = CliRunner().invoke(cli, ["drift", *command], env=env)
    assert result.exit_code in (2, 64), result.output  # click's own status, which `main` makes 64
    assert "Traceback" not in result.output


@pytest.mark.parametrize("role", [Role.RESPONDER, Role.APPROVER, Role.ADMIN])
def test_a_machine_says_nothing_whatever_its_role(service, gateway, agent, role):
    flag = gateway.flag(agent=agent, detector="rate")
    learn(gateway, "ready", agent, baseline_version=1)
    machine = service.machine_token(role)
    at = ("--gateway", gateway.enforcer.enforcer_id)
    for command in (
        ("acknowledge", flag.record_id, *WHY),
        ("close", flag.record_id, "--as", "harmless", *WHY),
        ("reset", agent, *at, *WHY),
    ):
        run(service, machine, *command, code=64)
    assert json.loads(run(service, machine, "show", flag.record_id, "--json").output)["state"] == "flagged"


def test_an_auditor_reads_and_says_nothing(service, gateway, agent):
    flag = gateway.flag(agent=agent, detector="rate", value_milli=341_000, threshold_milli=210_000)
    auditor = service.token(Role.AUDITOR)
    assert "341, and 210 would have been as usual" in run(service, auditor, "show", flag.record_id).output
    run(service, auditor, "close", flag.record_id, "--as", "harmless", *WHY, code=64)
    assert json.loads(run(service, auditor, "show", flag.record_id, "--json").output)["state"] == "flagged"


def test_more_departures_than_a_page_are_all_listed(service, gateway, agent, monkeypatch):
    monkeypatch.setattr("service.cli.drift._A_PAGE", 1)
    for number in range(3):
        gateway.flag(agent=agent, detector="rate", calls=number)
    found = json.loads(run(service, service.token(Role.AUDITOR), "list", "--agent", agent, "--json").output)
    assert sorted(item["calls"] for item in found["items"]) == [0, 1, 2]
