"""A bundle becomes active while a hundred calls are in flight: none is lost, and each is judged by one bundle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx2

from enforcement.gateway import Gateway, build_gateway
from ledger.bodies import Decision, Heartbeat
from ledger.notes import encode_base64
from policies.bundles import Bundle
from policies.evaluate import Evaluation, Evaluator
from policies.model import DecisionRequest
from service.auth import Role
from service.wiring.engines import make_evaluator
from tests.support.gateway import SIGNING_KEY, SPOOL_KEY, TOKENS, Tools, config_of, serve, serve_mcp
from tests.support.ledger import LOG_ID
from tests.support.mcp_messages import body_of, headers_of
from tests.support.packs import ready_bundle
from tests.support.service import RunningService, start_service

FIRST, SECOND = (ready_bundle(f'@id("rule-{n}") permit (principal, action, resource);') for n in (1, 2))
RULES = {FIRST.revision: ("rule-1",), SECOND.revision: ("rule-2",)}
IN_FLIGHT, LATER = 100, 20
WAIT_SECONDS = 40


class HeldEvaluator:
    """The real evaluator, which lets the first calls wait until it is told to go on."""

    def __init__(self, inner: Evaluator) -> None:
        self._inner = inner
        self.asked = 0
        self.all_asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def evaluate_many(self, bundle: Bundle, requests: Sequence[DecisionRequest]) -> list[Evaluation]:
        self.asked += 1
        if self.asked == IN_FLIGHT:
            self.all_asked.set()
        if self.asked <= IN_FLIGHT:
            await self.go_on.wait()
        return await self._inner.evaluate_many(bundle, requests)


def gateway_of(service: RunningService, folder: Path, upstream: str, evaluator: HeldEvaluator) -> Gateway:
    with service.client(Role.ADMIN) as admin:
        key = encode_base64(bytes(SIGNING_KEY.verify_key))
        introduced = admin.post("/v1/enforcers", json={"enforcer_id": "gateway-1", "public_key": key})
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(introduced.json()["token"])
    limits = {"evaluation_seconds": WAIT_SECONDS, "concurrent_calls": 2 * IN_FLIGHT + 8}
    config = config_of(
        folder / "state",
        service.server.url,
        upstream,
        limits=limits,
        recording={"strict_seconds": WAIT_SECONDS},
        bundles={"poll_seconds": 3600},
    )
    return build_gateway(
        config,
        evaluator=evaluator,
        clock=service.services.clock,
        signing_key=SIGNING_KEY,
        pseudonym_key=service.services.keys.pseudonym.seed,
        spool_key=SPOOL_KEY,
        simulated=True,
    )


async def call(http: httpx2.AsyncClient, url: str) -> bool:
    headers = {key.decode(): value.decode() for key, value in headers_of(name="refund_customer")}
    body = body_of(name="refund_customer", arguments={"amount": 1})
    answer = await http.post(f"{url}/servers/finance/mcp", content=body, headers=headers)
    return answer.status_code == 200 and "result" in answer.text


async def scenario(service: RunningService, folder: Path, inner: Evaluator) -> tuple[list[bool], Tools]:
    evaluator, tools = HeldEvaluator(inner), Tools()
    async with serve_mcp(tools) as upstream, asyncio.timeout(WAIT_SECONDS):
        gateway = gateway_of(service, folder, upstream, evaluator)
        await gateway.start()
        try:
            async with (
                serve(gateway.server_config(host="127.0.0.1", port=0)) as url,
                httpx2.AsyncClient(
                    headers={"Authorization": f"Bearer {TOKENS['Finance-Bot']}"},
                    timeout=WAIT_SECONDS,
                    limits=httpx2.Limits(max_connections=None),
                ) as http,
            ):
                held = [asyncio.create_task(call(http, url)) for _ in range(IN_FLIGHT)]
                await evaluator.all_asked.wait()
                await asyncio.to_thread(service.put_in_force, SECOND)
                while (await http.get(f"{url}/readyz")).json()["bundle"] != SECOND.revision:  # noqa: ASYNC110  # over HTTP
                    await asyncio.sleep(0.01)
                later = [asyncio.create_task(call(http, url)) for _ in range(LATER)]
                evaluator.go_on.set()
                answers = await asyncio.gather(*held, *later)
        finally:
            await gateway.stop()
    return answers, tools


def test_no_call_is_dropped_and_each_record_names_the_one_bundle_that_judged_it(tmp_path: Path) -> None:
    inner = make_evaluator()
    try:
        with start_service(tmp_path) as service:
            service.put_in_force(FIRST)
            answers, tools = asyncio.run(scenario(service, tmp_path, inner))
            reader, catalog = service.services.reader, service.services.catalog
            decisions = [reader.record(leaf).body for leaf in catalog.of_type(LOG_ID, "decision")]
            beats = [reader.record(leaf) for leaf in catalog.of_type(LOG_ID, "heartbeat")]
            with service.client(Role.AUDITOR) as auditor:
                status = auditor.get(f"/v1/bundles/{SECOND.revision}/status").json()
    finally:
        inner.close()
    assert answers == [True] * (IN_FLIGHT + LATER)
    assert len(tools.calls) == len(decisions) == IN_FLIGHT + LATER
    named = [body.bundle.revision for body in decisions if isinstance(body, Decision) and body.bundle is not None]
    assert [named.count(bundle.revision) for bundle in (FIRST, SECOND)] == [IN_FLIGHT, LATER]
    for body in decisions:
        assert isinstance(body, Decision)
        assert body.bundle is not None
        assert body.rules == RULES[body.bundle.revision]
    # The gateway said so at once, and not with a heartbeat of every minute.
    mine = [record.body for record in beats if record.enforcer_id == "gateway-1"]
    kinds = [(body.kind, body.bundle_revision) for body in mine if isinstance(body, Heartbeat)]
    assert kinds == [("start", FIRST.revision), ("periodic", SECOND.revision), ("stop", SECOND.revision)]
    (effect,) = status["effect"]
    assert effect["enforcer_id"] == "gateway-1"
    assert effect["after_ms"] >= 0
