"""A change of what is enforced, from proposal to effect: a real service, a real gateway, two people."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
import yaml
from click.testing import CliRunner

from enforcement.ledger_client import ServiceClient
from enforcement.modes import ApprovedMode
from enforcement.ports import Unavailable
from service.auth import Role
from service.cli.main import cli
from tests.support.service import RunningService, start_service

REASON = "rule 14 denies every month-end"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory):
    with start_service(tmp_path_factory.mktemp("modes")) as running:
        yield running


def propose(service: RunningService, **members: object) -> str:
    with service.client(Role.RESPONDER) as client:
        answer = client.post("/v1/modes", json={"server": "finance", "reason": REASON, **members})
    assert answer.status_code == 201, answer.text
    return answer.json()["change_id"]


def review(service: RunningService, role: Role, change_id: str, verdict: str = "approved") -> httpx.Response:
    with service.client(role) as client:
        return client.post(f"/v1/modes/{change_id}/review", json={"verdict": verdict})


def approved(service: RunningService, token: str) -> list[ApprovedMode]:
    async def ask() -> list[ApprovedMode]:
        async with ServiceClient(service.url, token, timeout_seconds=10) as client:
            answer = await client.approved_modes()
            assert not isinstance(answer, Unavailable), answer
            return list(answer)

    return asyncio.run(ask())


def test_a_gateway_may_take_up_what_two_people_agreed_upon(service: RunningService) -> None:
    token = service.enforcer().token
    change_id = propose(service, tool="refund_customer")
    assert approved(service, token) == []
    done = review(service, Role.APPROVER, change_id)
    assert (done.status_code, done.json()["action"]) == (200, "approved")
    (found,) = approved(service, token)
    assert found == ApprovedMode(change_id=change_id, server="finance", tool="refund_customer", mode="observe")
    with service.client(Role.AUDITOR) as auditor:
        listed = {item["change_id"]: item for item in auditor.get("/v1/modes").json()["items"]}
        waiting = {item["change_id"] for item in auditor.get("/v1/modes", params={"waiting": True}).json()["items"]}
    assert listed[change_id]["state"] == "approved"
    assert change_id not in waiting
    assert REASON not in str(listed)


def test_nobody_approves_what_he_proposed(service: RunningService) -> None:
    with service.client(Role.ADMIN) as admin:
        change_id = admin.post("/v1/modes", json={"server": "finance", "reason": REASON}).json()["change_id"]
        refused = admin.post(f"/v1/modes/{change_id}/review", json={"verdict": "approved"})
    assert refused.status_code == 409
    assert refused.headers["content-type"] == "application/problem+json"
    assert review(service, Role.APPROVER, change_id).status_code == 200


def test_what_was_rejected_is_not_approved_afterwards(service: RunningService) -> None:
    change_id = propose(service, server="payroll")
    assert review(service, Role.APPROVER, change_id, "rejected").json()["action"] == "rejected"
    assert review(service, Role.APPROVER, change_id).status_code == 409
    assert all(one.server != "payroll" for one in approved(service, service.enforcer("another", seed=22).token))


def test_changes_come_in_pages_and_none_is_told_twice_or_left_out(service: RunningService) -> None:
    made = [propose(service, tool=f"tool-{number}") for number in range(5)]
    with service.client(Role.AUDITOR) as auditor:
        everything = [item["change_id"] for item in auditor.get("/v1/modes", params={"limit": 500}).json()["items"]]
        found, cursor = [], None
        while len(found) <= len(everything):
            page = auditor.get("/v1/modes", params={"limit": 2} | ({} if cursor is None else {"cursor": cursor})).json()
            assert len(page["items"]) <= 2
            found += [item["change_id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        waiting = auditor.get("/v1/modes", params={"limit": 3, "waiting": True}).json()
        whole = auditor.get("/v1/modes", params={"limit": len(everything)}).json()
        refused = [
            auditor.get("/v1/modes", params=wrong).status_code
            for wrong in ({"limit": 0}, {"limit": 501}, {"cursor": -1}, {"cursor": "x"})
        ]
    assert found == everything
    assert [item["change_id"] for item in waiting["items"]] == made[:1:-1]
    assert whole["next_cursor"] is None
    assert refused == [422] * 4


def test_the_command_goes_from_page_to_page_and_says_where_it_stopped(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [propose(service, tool=f"listed-{number}") for number in range(3)]
    monkeypatch.setattr("service.cli.modes._A_PAGE", 2)
    asks = ["modes", "list", "--url", service.url, "--token", service.token(Role.AUDITOR, "lister")]
    listed = json.loads(CliRunner().invoke(cli, [*asks, "--json"]).stdout)
    assert [item["change_id"] for item in listed["items"]][:3] == made[::-1]
    assert listed["next_cursor"] is None
    assert len({item["change_id"] for item in listed["items"]}) == len(listed["items"])
    shown = CliRunner().invoke(cli, [*asks, "--limit", "1"]).stdout
    assert "at most 1 were asked for" in shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"server": "a b"},
        {"reason": "x"},
        {"valid_seconds": 1},
        {"valid_seconds": 10**9},
        {"mode": "enforce"},
        {"tool": ""},
    ],
)
def test_a_proposal_that_is_none_is_refused_with_its_place(service: RunningService, wrong: dict[str, object]) -> None:
    with service.client(Role.RESPONDER) as client:
        answer = client.post("/v1/modes", json={"server": "finance", "reason": REASON, **wrong})
    assert answer.status_code in (400, 422)
    assert next(iter(wrong)) in answer.text


def test_forty_servers_are_observed_on_monday(tmp_path: Path) -> None:
    from enforcement.config_files import load_servers

    path = tmp_path / "servers.yaml"
    entries = [{"name": f"server-{n}", "url": f"http://127.0.0.1:9/{n}", "mode": "observe"} for n in range(40)]
    path.write_text(yaml.safe_dump({"servers": entries}))
    assert len(load_servers(path)) == 40
