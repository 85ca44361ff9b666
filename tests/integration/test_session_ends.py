"""A session that ended: a real gateway counts and tells its end, and the service shows whether every call is here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mcp.shared.exceptions import MCPError

from ledger.auditor import Auditor
from ledger.bodies import Decision, SessionEnd
from ledger.notes import encode_base64
from ledger.records import Record
from service.auth import Role
from service.cli.main import cli
from service.keyset import trust_policy
from tests.support.gateway import FakeLedger, Surroundings, deny_tool, surroundings
from tests.support.gateway_keys import SIGNING_KEY
from tests.support.ledger import LOG_ID
from tests.support.service import RunningService, start_service

IDLE_SECONDS = 1


@dataclass(frozen=True)
class Session:
    """What a real gateway wrote of a session, and the lines in which it posted each record."""

    records: tuple[Record, ...]
    lines: dict[str, bytes]

    @property
    def end(self) -> SessionEnd:
        (end,) = [record.body for record in self.records if isinstance(record.body, SessionEnd)]
        return end

    def decisions(self) -> list[str]:
        return [
            record.record_id
            for record in self.records
            if isinstance(record.body, Decision) and record.body.session == self.end.session
        ]


async def play(world: Surroundings) -> None:
    async with world.running(sessions={"idle_seconds": IDLE_SECONDS}):
        async with world.client() as client:
            await client.call_tool("refund_customer", {"amount": 1})
            with pytest.raises(MCPError):
                await client.call_tool("transfer_funds", {"amount": 2})
            await client.call_tool("refund_customer", {"amount": 3})
        world.clock.advance((IDLE_SECONDS + 1) * 1000)
        await world.settle(lambda: any(isinstance(record.body, SessionEnd) for record in world.ledger.records))


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Session:
    async def run() -> FakeLedger:
        directory = tmp_path_factory.mktemp("gateway")
        async with surroundings(directory, answer=deny_tool("transfer_funds")) as world:
            await play(world)
            return world.ledger

    ledger = asyncio.run(run())
    return Session(records=tuple(ledger.records), lines=ledger.lines)


Deliver = Callable[..., None]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    with start_service(tmp_path) as running:
        yield running


@pytest.fixture
def deliver(service: RunningService, played: Session) -> Deliver:
    """Post what the gateway wrote to a real service, but for the records that somebody withholds."""

    def post(*, withheld: frozenset[str] = frozenset()) -> None:
        public_key = encode_base64(bytes(SIGNING_KEY.verify_key))
        with service.client(Role.ADMIN) as admin:
            introduction = {"enforcer_id": "gateway-1", "public_key": public_key}
            token = admin.post("/v1/enforcers", json=introduction).raise_for_status().json()["token"]
        kept = [line for record_id, line in played.lines.items() if record_id not in withheld]
        with service.client(token=token) as gateway:
            headers = {"content-type": "application/x-ndjson"}
            gateway.post("/v1/decisions", content=b"\n".join(kept), headers=headers).raise_for_status()

    return post


def told_by_api(service: RunningService, session: str, **query: int) -> dict[str, Any]:
    with service.client() as auditor:
        answer: dict[str, Any] = auditor.get(f"/v1/sessions/{session}", params=query).raise_for_status().json()
    return answer


def told_by_command(service: RunningService, *arguments: str) -> Result:
    variables = {"TALLYSTICK_URL": service.url, "TALLYSTICK_TOKEN": service.token(Role.RESPONDER)}
    return CliRunner().invoke(cli, ["session", *arguments], env=variables)


def told_by_dashboard(service: RunningService, session: str) -> str:
    with service.browser_client() as browser:
        browser.follow_redirects = True
        login = browser.get(service.login_url().removeprefix(service.url))
        csrf = login.text.split('name="csrf" value="')[1].split('"')[0]
        browser.post(login.url.path, data={"csrf": csrf}).raise_for_status()
        return browser.get(f"/sessions/{session}").raise_for_status().text


def test_a_session_that_ended_is_complete_for_api_command_and_dashboard(service, deliver, played):
    deliver()
    end, decisions = played.end, played.decisions()
    assert (end.reason, end.calls) == ("idle", len(decisions))
    assert end.denied == 1
    answer = told_by_api(service, end.session)
    assert answer["calls"] == {
        "verdict": "complete",
        "reason": f"all {end.calls} calls that the enforcer counted are here",
        "decisions": end.calls,
        "counted": end.calls,
    }
    assert answer["events"][-1]["record"]["body"]["type"] == "session_end"
    said = told_by_command(service, end.session)
    assert said.exit_code == 0
    assert f"the session ended (idle): {end.calls} calls by its enforcer's count, 1 not let through" in said.output
    assert f"  calls: complete: all {end.calls} calls" in said.output
    assert json.loads(told_by_command(service, end.session, "--json").stdout)["calls"]["verdict"] == "complete"
    page = told_by_dashboard(service, end.session)
    assert "The session ended</strong>: it was silent for too long" in page
    assert "Calls complete" in page
    assert page.index("The session ended") > page.index(decisions[-1])


def test_a_call_that_somebody_withheld_is_missing_for_api_command_and_dashboard(service, deliver, played):
    withheld = played.decisions()[-1]
    deliver(withheld=frozenset({withheld}))
    end = played.end
    told = f"1 of {end.calls} calls have no decision here"
    assert told_by_api(service, end.session)["calls"]["verdict"] == "gap"
    assert f"  calls: gap: {told}" in told_by_command(service, end.session).output
    page = told_by_dashboard(service, end.session)
    assert "Calls missing" in page
    assert told in page


def test_a_session_whose_end_was_withheld_has_an_unknown_tail(service, deliver, played):
    (end,) = [record.record_id for record in played.records if isinstance(record.body, SessionEnd)]
    deliver(withheld=frozenset({end}))
    assert told_by_api(service, played.end.session)["calls"]["verdict"] == "tail unknown"
    assert "Tail unknown" in told_by_dashboard(service, played.end.session)


def test_a_page_before_the_last_does_not_judge_the_calls(service, deliver, played):
    deliver()
    page = told_by_api(service, played.end.session, limit=1)
    assert (page["calls"], page["next_cursor"] is None) == (None, False)


def test_the_audit_derives_the_same_rows_for_an_end(service, deliver):
    deliver()
    service.wait_until_published()
    parts = service.services
    assert parts.catalog.counts(LOG_ID)["session_end"] == 1
    policy = trust_policy(parts.keys)
    assert Auditor(LOG_ID, parts.tiles, policy, catalog=parts.catalog, vault=parts.vault).audit().findings == []
