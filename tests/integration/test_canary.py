"""A canary beside a real gateway: nothing that is decided changes, and exactly what it would change is on record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from enforcement.gateway import Gateway, build_gateway
from ledger.bodies import Decision, Shadow
from ledger.notes import encode_base64
from policies.evaluate import Evaluator
from service.auth import Role
from service.cli.main import cli
from service.wiring.engines import make_evaluator
from tests.support.gateway import SIGNING_KEY, SPOOL_KEY, TOKENS, Tools, config_of, serve, serve_mcp
from tests.support.ledger import LOG_ID
from tests.support.mcp_messages import body_of, headers_of
from tests.support.packs import ready_bundle
from tests.support.service import RunningService, start_service

OPEN = '@id("open") permit (principal, action, resource);'
FIRST = ready_bundle(OPEN)
CANARY = ready_bundle(
    OPEN + '@id("no-transfers") forbid (principal, action, resource == Tool::"finance/transfer_funds");'
)
WAIT_SECONDS = 40


def gateway_of(service: RunningService, folder: Path, upstream: str, evaluator: Evaluator) -> Gateway:
    with service.client(Role.ADMIN) as admin:
        key = encode_base64(bytes(SIGNING_KEY.verify_key))
        introduced = admin.post("/v1/enforcers", json={"enforcer_id": "gateway-1", "public_key": key})
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(introduced.json()["token"])
    config = config_of(folder / "state", service.server.url, upstream, bundles={"poll_seconds": 3600})
    return build_gateway(
        config,
        evaluator=evaluator,
        clock=service.services.clock,
        signing_key=SIGNING_KEY,
        pseudonym_key=service.services.keys.pseudonym.seed,
        spool_key=SPOOL_KEY,
        simulated=True,
    )


async def call(http: httpx2.AsyncClient, url: str, tool: str) -> bool:
    headers = {key.decode(): value.decode() for key, value in headers_of(name=tool)}
    body = body_of(name=tool, arguments={"amount": 1})
    answer = await http.post(f"{url}/servers/finance/mcp", content=body, headers=headers)
    return answer.status_code == 200 and "result" in answer.text


async def until(look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(WAIT_SECONDS):
        while not wanted(seen := await asyncio.to_thread(look)):  # noqa: ASYNC110  # over HTTP
            await asyncio.sleep(0.02)
    return seen


def ask(service: RunningService, method: str, path: str) -> dict[str, Any]:
    with service.client(Role.APPROVER) as client:
        answer = client.request(method, path)
        answer.raise_for_status()
        return dict(answer.json())


async def scenario(service: RunningService, folder: Path, evaluator: Evaluator) -> dict[str, Any]:
    report_path = f"/v1/bundles/{CANARY.revision}/canary"
    seen: dict[str, Any] = {"answers": []}

    def report() -> dict[str, Any]:
        return ask(service, "GET", report_path)

    def differing(answer: dict[str, Any]) -> int:
        return sum(flip["count"] for flip in answer["flips"].values())

    async with serve_mcp(Tools()) as upstream:
        gateway = gateway_of(service, folder, upstream, evaluator)
        await gateway.start()
        try:
            async with (
                serve(gateway.server_config(host="127.0.0.1", port=0)) as url,
                httpx2.AsyncClient(
                    headers={"Authorization": f"Bearer {TOKENS['Finance-Bot']}"}, timeout=WAIT_SECONDS
                ) as http,
            ):
                seen["answers"].append(await call(http, url, "transfer_funds"))  # before there is a canary
                await asyncio.to_thread(ask, service, "POST", report_path)
                # The question that the service holds is answered at once.
                while (await http.get(f"{url}/readyz")).json()["canary"] != CANARY.revision:  # noqa: ASYNC110  # over HTTP
                    await asyncio.sleep(0.02)
                for tool in ("refund_customer", "transfer_funds", "refund_customer", "transfer_funds"):
                    seen["answers"].append(await call(http, url, tool))
                await until(report, lambda answer: differing(answer) == 2)
                await asyncio.to_thread(ask, service, "POST", "/v1/bundles/canary/end")
                await gateway.refresh_bundle()
                seen["answers"].append(await call(http, url, "transfer_funds"))  # and after
                seen["report"] = await until(
                    report, lambda answer: sum(e["compared"] for e in answer["enforcers"]) == 4
                )
                seen["ready"] = (await http.get(f"{url}/readyz")).json()
        finally:
            await gateway.stop()
    seen["last"] = await asyncio.to_thread(report)
    return seen


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("canary")
    evaluator = make_evaluator(workers=1, batch_workers=1)
    try:
        with start_service(folder) as service:
            service.put_in_force(FIRST)
            service.publish(CANARY, "ann")
            seen = asyncio.run(scenario(service, folder, evaluator))
            seen["decisions"] = records_of(service, "decision")
            seen["shadows"] = records_of(service, "shadow")
            seen["steps"] = ask(service, "GET", "/v1/bundles")
            arguments = ["--url", service.server.url, "--token", service.token(Role.APPROVER)]
            seen["told"] = CliRunner().invoke(cli, ["policy", "canary", "report", CANARY.revision, *arguments])
            seen["started"] = CliRunner().invoke(cli, ["policy", "canary", "start", CANARY.revision, *arguments])
            seen["stopped"] = CliRunner().invoke(cli, ["policy", "canary", "stop", *arguments])
            seen["none"] = CliRunner().invoke(cli, ["policy", "canary", "report", *arguments])
    finally:
        evaluator.close()
    return seen


def records_of(service: RunningService, kind: str) -> list[Any]:
    return [service.services.reader.record(leaf) for leaf in service.services.catalog.of_type(LOG_ID, kind)]


def transfers(played: dict[str, Any]) -> list[str]:
    """Return the ids of the calls that the canary was asked about and would have denied, in order."""
    found = [record for record in played["decisions"] if record.body.tool == "transfer_funds"]
    assert len(found) == 4
    return [record.record_id for record in found[1:3]]


def test_nothing_that_is_decided_changes(played: dict[str, Any]) -> None:
    assert played["answers"] == [True] * 6
    bodies = [record.body for record in played["decisions"]]
    assert len(bodies) == 6
    for body in bodies:
        assert isinstance(body, Decision)
        assert (body.enforcement, body.rules) == ("allow", ("open",))
        assert body.bundle is not None
        assert body.bundle.revision == FIRST.revision


def test_exactly_the_decisions_that_differ_are_recorded(played: dict[str, Any]) -> None:
    bodies = [record.body for record in played["shadows"]]
    assert [body.decision_id for body in bodies] == transfers(played)
    for body in bodies:
        assert isinstance(body, Shadow)
        assert (body.enforced, body.decision, body.reason) == ("PERMIT", "DENY", "policy")
        assert (body.rules, body.failed_condition) == (("no-transfers",), "no-transfers")
        assert (body.enforced_revision, body.bundle.revision) == (FIRST.revision, CANARY.revision)
        assert body.differs == ("effect", "rules", "failed_condition")


def test_the_report_agrees_and_says_no_more_after_the_end(played: dict[str, Any]) -> None:
    for report in (played["report"], played["last"]):
        assert report["flips"] == {"permit:deny": {"count": 2, "decisions": transfers(played)[::-1]}}
        (mine,) = report["enforcers"]
        assert mine == {
            "enforcer_id": "gateway-1",
            "compared": 4,
            "equal": 2,
            "different": 2,
            "incomparable": 0,
            "dropped": 0,
            "unrecorded": 0,
        }
        assert (report["running"], report["complete"]) == (False, True)
    assert played["ready"]["canary"] is None


def test_both_steps_are_on_record_and_the_active_bundle_stayed(played: dict[str, Any]) -> None:
    steps = [(item["action"], item["revision"]) for item in played["steps"]["history"]]
    assert steps[-2:] == [("canary_started", CANARY.revision), ("canary_ended", CANARY.revision)]
    assert (played["steps"]["active"], played["steps"]["canary"]) == (FIRST.revision, None)


def test_the_commands_start_stop_and_tell(played: dict[str, Any]) -> None:
    assert played["told"].exit_code == 0, played["told"].output
    assert "permit:deny: 2" in played["told"].output
    assert transfers(played)[0] in played["told"].output
    assert played["started"].output.strip() == f"canary: {CANARY.revision}"
    assert played["stopped"].output.strip() == "canary: none"
    assert played["none"].exit_code != 0
