"""Real gateways, enrolled by the commands, under a real service: signed bundles, and how the fleet shows them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from enforcement.config_files import load_config
from enforcement.gateway import Gateway
from ledger.bodies import Decision
from ledger.envelopes import ED25519
from ledger.keys import generate_key
from ledger.signers.local import LocalEnvelopeSigner
from policies.bundles import Bundle
from policies.signatures import format_trusted_keys, sign_bundle
from service.auth import Role
from service.cli.main import cli
from service.wiring.gateways import make_gateway
from tests.support.gateway import ScriptedEvaluator, Tools, serve, serve_mcp
from tests.support.ledger import LOG_ID
from tests.support.mcp_messages import VERSION
from tests.support.packs import ready_bundle
from tests.support.service import RunningService, start_service


def author(name: str) -> LocalEnvelopeSigner:
    return LocalEnvelopeSigner(generate_key("bundle", ED25519, name, created_ms=1), purpose="bundle")


ANN, EVE = author("ann"), author("eve")


def bundle(rule: str) -> Bundle:
    return ready_bundle(f'@id("{rule}") permit (principal, action, resource);')


def put_in_force(service: RunningService, made: Bundle, signer: LocalEnvelopeSigner | None) -> str:
    """Publish a bundle, sign it if somebody signs it, have it approved and activated, and return its revision."""
    revision = service.publish(made)
    if signer is not None:
        with service.client(token=service.token(Role.ADMIN, "ann")) as admin:
            envelope = sign_bundle(made, [signer])
            admin.post(f"/v1/bundles/{revision}/signature", content=envelope).raise_for_status()
    with service.client(token=service.token(Role.APPROVER, "bob")) as approver:
        approver.post(f"/v1/bundles/{revision}/review", json={"verdict": "approved"}).raise_for_status()
        approver.post(f"/v1/bundles/{revision}/activation", json={}).raise_for_status()
    return revision


def enrol(service: RunningService, folder: Path, enforcer_id: str, upstream: str) -> Path:
    """Enrol a gateway by the commands that an operator types, and return its configuration."""
    admin = ["--url", service.url, "--token", service.token(Role.ADMIN)]
    file, directory = folder / f"{enforcer_id}.token", folder / enforcer_id
    commands = (
        ["enroll", "token", "--id", enforcer_id, "--out", str(file), *admin],
        ["enroll", "--service", service.url, "--token-file", str(file), "--id", enforcer_id, str(directory)],
    )
    for command in (commands[0], [*commands[1], "--server", f"finance={upstream}", "--agent", "Finance-Bot", "--json"]):
        done = CliRunner().invoke(cli, command)
        assert done.exit_code == 0, done.output
    (folder / f"{enforcer_id}.agent").write_text(json.loads(done.stdout)["token"])
    return directory / "gateway.yaml"


@asynccontextmanager
async def running(config: Path, **changes: Any) -> AsyncIterator[Gateway]:
    """Run the gateway of a configuration file; it asks for its bundle when the test has it ask."""
    settings = load_config(config)
    bundles = settings.bundles.model_copy(update={"poll_seconds": 3600, "wait_seconds": 0, **changes})
    service = settings.service.model_copy(update={"proof_seconds": 0.05})
    gateway = make_gateway(
        settings.model_copy(update={"bundles": bundles, "service": service}),
        None,
        evaluator=ScriptedEvaluator(),  # type: ignore[arg-type]
    )
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


def play(scenario: Callable[[str], Awaitable[None]]) -> None:
    async def run() -> None:
        async with serve_mcp(Tools()) as upstream:
            await scenario(upstream)

    asyncio.run(run())


def fleet(service: RunningService) -> dict[str, dict[str, Any]]:
    with service.client(Role.AUDITOR) as auditor:
        found = auditor.get("/v1/fleet").raise_for_status().json()
    return {one["enforcer_id"]: one for one in found["gateways"]}


async def call(gateway: Gateway, agent_token: str) -> str:
    """Call a tool through a gateway with the official SDK."""
    async with (
        serve(gateway.server_config(host="127.0.0.1", port=0)) as url,
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {agent_token}"}, timeout=20) as http,
        Client(
            streamable_http_client(f"{url}/servers/finance/mcp", http_client=http), mode=VERSION, cache=None
        ) as client,
    ):
        result = await client.call_tool("refund_customer", {"amount": 1})
    return str(result.content[0].text)


@pytest.fixture(scope="module")
def demanding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that demands signatures of its bundles."""
    folder = tmp_path_factory.mktemp("demanding")
    (folder / "ann.keys").write_text(format_trusted_keys([ANN.envelope_key]))
    with start_service(folder, bundle_trust=folder / "ann.keys") as service:
        yield service


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that takes bundles into force whoever signed them, or nobody."""
    with start_service(tmp_path_factory.mktemp("careless")) as service:
        yield service


def test_an_enrolled_gateway_demands_signed_bundles_decides_by_them_and_is_seen(demanding, tmp_path):
    revision = put_in_force(demanding, bundle("signed"), ANN)

    async def scenario(upstream: str) -> None:
        config = await asyncio.to_thread(enrol, demanding, tmp_path, "gateway-1", upstream)
        assert load_config(config).bundles.trusted_keys == config.with_name("bundle-keys")
        assert load_config(config).service.trust == config.with_name("trust.policy")
        assert fleet(demanding)["gateway-1"]["state"] == "never"
        async with running(config) as gateway:
            assert await gateway.refresh_bundle() == revision
            assert "refunded" in await call(gateway, (tmp_path / "gateway-1.agent").read_text())
            gateway.core.require().recorder.beat_soon()
            async with asyncio.timeout(20):
                while fleet(demanding)["gateway-1"]["heartbeat"] is None:  # noqa: ASYNC110  # what the service answers
                    await asyncio.sleep(0.01)
                seen = fleet(demanding)["gateway-1"]
            receipts = gateway.core.require().receipts
            assert receipts is not None
            async with asyncio.timeout(20):  # what the ledger acknowledged is proven by what was handed over
                while receipts._spool.proven_head() is None or receipts._spool.kept(at_most=1):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        assert (seen["state"], seen["warnings"]) == ("ok", [])
        beat = seen["heartbeat"]
        assert (beat["bundle_revision"], beat["signed_bundles"]) == (revision, True)
        assert (beat["enforced"], beat["observed"], beat["contact_ms"]) == (1, 0, 60_000)
        assert abs(beat["clock_offset_ms"]) <= beat["clock_bound_ms"]  # both clocks are this machine's
        assert fleet(demanding)["gateway-1"]["state"] == "stopped"

    play(scenario)
    catalog, reader = demanding.services.catalog, demanding.services.reader
    decisions = [reader.record(index).body for index in catalog.of_type(LOG_ID, "decision")]
    mine = [body for body in decisions if isinstance(body, Decision) and body.tool == "refund_customer"]
    assert [(body.agent, body.bundle.revision) for body in mine if body.bundle] == [("Finance-Bot", revision)]


@pytest.mark.parametrize("signer", [None, EVE], ids=["unsigned", "signed by a stranger"])
def test_a_bundle_that_is_not_signed_by_those_it_trusts_is_not_taken_up_and_the_old_one_stays(
    careless, tmp_path, signer
):
    name = "unsigned" if signer is None else "foreign"
    first = put_in_force(careless, bundle(f"before-{name}"), ANN)
    (tmp_path / "ann.keys").write_text(format_trusted_keys([ANN.envelope_key]))

    async def scenario(upstream: str) -> None:
        enforcer_id = f"gateway-{name}"
        config = await asyncio.to_thread(enrol, careless, tmp_path, enforcer_id, upstream)
        assert load_config(config).bundles.trusted_keys is None
        trusting = {"trusted_keys": tmp_path / "ann.keys"}
        async with running(config, **trusting) as gateway:
            assert await gateway.refresh_bundle() == first
            second = await asyncio.to_thread(put_in_force, careless, bundle(name), signer)
            assert await gateway.refresh_bundle() == first
            assert "refunded" in await call(gateway, (tmp_path / f"{enforcer_id}.agent").read_text())
        async with running(config, **trusting) as restarted:
            assert await restarted.refresh_bundle() == first
        async with running(config) as believing:
            assert await believing.refresh_bundle() == second

    play(scenario)
