"""A real gateway and a real service: what was acknowledged leaves the gateway's disk once the log has proven it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from enforcement.config import GatewayConfig
from enforcement.gateway import Gateway, build_gateway
from enforcement.refusals import ErrorCode
from ledger.clock import SystemClock
from ledger.errors import ConfigError
from ledger.notes import encode_base64
from ledger.trust import TrustPolicy
from service.auth import Role
from tests.support.gateway import TOKENS, WAIT_SECONDS, ScriptedEvaluator, Tools, config_of, serve, serve_mcp
from tests.support.gateway_keys import SIGNING_KEY, SPOOL_KEY
from tests.support.mcp_messages import body_of, headers_of
from tests.support.packs import ready_bundle
from tests.support.service import RunningService, start_service


def trusting(config: GatewayConfig, trust: Path) -> GatewayConfig:
    service = config.service.model_copy(update={"trust": trust, "proof_seconds": 0.05})
    return config.model_copy(update={"service": service})


def gateway_of(service: RunningService, folder: Path, upstream: str) -> Gateway:
    with service.client(Role.ADMIN) as admin:
        key = encode_base64(bytes(SIGNING_KEY.verify_key))
        introduced = admin.post("/v1/enforcers", json={"enforcer_id": "gateway-1", "public_key": key})
    (folder / "token").touch(mode=0o600)
    (folder / "token").write_text(introduced.json()["token"])
    trust = TrustPolicy(logs=tuple(key.verifier_key for key in service.services.keys.of("log")))
    (folder / "trust.policy").write_text(trust.encode())
    recording = {"strict_seconds": WAIT_SECONDS}
    config = config_of(folder / "state", service.server.url, upstream, recording=recording)
    return build_gateway(
        trusting(config, folder / "trust.policy"),
        evaluator=ScriptedEvaluator(),
        clock=service.services.clock,
        signing_key=SIGNING_KEY,
        pseudonym_key=service.services.keys.pseudonym.seed,
        spool_key=SPOOL_KEY,
        simulated=True,
    )


async def settle(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not ready():  # noqa: ASYNC110  # a condition that a background task brings about
            await asyncio.sleep(0.01)


async def call(http: httpx2.AsyncClient, url: str) -> dict[str, object]:
    headers = {key.decode(): value.decode() for key, value in headers_of(name="refund_customer")}
    body = body_of(name="refund_customer", arguments={"amount": 1})
    answer = await http.post(f"{url}/servers/finance/mcp", content=body, headers=headers)
    return json.loads(answer.text.partition("data: ")[2] or answer.text)


def test_the_gateway_lets_go_of_what_the_log_has_proven_and_believes_no_ledger_that_contradicts_itself(
    tmp_path: Path,
) -> None:
    async def play(service: RunningService) -> None:
        tools = Tools()
        async with serve_mcp(tools) as upstream:
            gateway = gateway_of(service, tmp_path, upstream)
            await gateway.start()
            try:
                headers = {"Authorization": f"Bearer {TOKENS['Finance-Bot']}"}
                async with (
                    serve(gateway.server_config(host="127.0.0.1", port=0)) as url,
                    httpx2.AsyncClient(headers=headers, timeout=WAIT_SECONDS) as http,
                ):
                    receipts = gateway.core.require().receipts
                    assert receipts is not None
                    assert "result" in await call(http, url)
                    await settle(lambda: receipts._spool.proven_head() is not None)
                    await settle(lambda: not receipts._spool.kept(at_most=10))
                    await receipts.stop()  # or the next proof would settle the dispute
                    receipts.disputed = "record_not_included"
                    refused = await call(http, url)
                    assert refused["error"]["code"] == ErrorCode.UNAVAILABLE  # type: ignore[index]
                    assert refused["error"]["data"]["reason"] == "ledger_disputed"  # type: ignore[index]
                    ready = (await http.get(f"{url}/readyz")).json()
                    assert ready["ledger_disputed"] is True
                    assert ready["ready"] is True
                    receipts.unproven_bytes = gateway.core.config.recording.spool_bytes
                    full = await http.get(f"{url}/readyz")
                    assert (full.status_code, full.json()["unproven_bytes"]) == (503, receipts.unproven_bytes)
            finally:
                await gateway.stop()
        assert tools.calls == ["refund_customer"]

    with start_service(tmp_path) as service:
        service.put_in_force(ready_bundle())
        asyncio.run(play(service))


@pytest.mark.parametrize("text", ["", "quorum none\n", "log x\n"])
def test_a_gateway_does_not_start_on_a_trust_policy_that_names_no_log(tmp_path: Path, text: str) -> None:
    (tmp_path / "trust.policy").write_text(text)
    (tmp_path / "token").touch(mode=0o600)
    (tmp_path / "token").write_text("never used")
    config = config_of(tmp_path / "state", "http://127.0.0.1:9", "http://127.0.0.1:9/mcp")
    gateway = build_gateway(
        trusting(config, tmp_path / "trust.policy"),
        evaluator=ScriptedEvaluator(),
        clock=SystemClock(),
        signing_key=SIGNING_KEY,
        pseudonym_key=bytes(32),
        spool_key=SPOOL_KEY,
    )
    with pytest.raises(ConfigError, match="trust policy"):
        asyncio.run(gateway.start())
