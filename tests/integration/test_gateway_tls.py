"""TLS on both hops of a gateway: what a listener on the wire sees, and whom it keeps out."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from uvicorn.protocols.http.h11_impl import H11Protocol

from enforcement.tls_client import ClientContext, ClientRules, client_context
from enforcement.tls_development import Wish
from enforcement.tls_files import Material, Rotating, read_material
from enforcement.tls_listener import Listener, TLSRules, server_context
from enforcement.tls_transport import tls_protocol_class
from ledger.clock import SystemClock
from tests.support.gateway import TOKENS, WAIT_SECONDS, Surroundings, Tools, serve, surroundings
from tests.support.mcp_messages import VERSION, body_of, headers_of
from tests.support.pki import AGENT, GATEWAY, PKI, Files
from tests.support.tls_wire import TLS13, X25519, X25519MLKEM768, listening_in, read_handshake, records

CLOCK = SystemClock()
MARKER = "marker-that-nobody-else-may-read"
Scenario = Callable[[Surroundings], Awaitable[None]]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("foreign"))


def material(files: Files | None, ca: Path | None) -> Material:
    if files is None:
        return read_material(None, None, ca, CLOCK)
    return read_material(files.certificate, f"file:{files.key}", ca, CLOCK)


class AnyioContext(ClientContext):
    """What `httpx2` takes: it names the session besides, and the host in bytes."""

    def wrap_bio(self, incoming, outgoing, server_side=False, server_hostname=None, session=None):  # noqa: ARG002
        host = server_hostname.decode() if isinstance(server_hostname, bytes) else server_hostname
        return super().wrap_bio(incoming, outgoing, server_side, host)


def hybrid(files: Files | None, ca: Path) -> ssl.SSLContext:
    context = client_context(material(files, ca), ClientRules())
    context.__class__ = AnyioContext
    return context


def classical(files: Files | None, ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    context.set_ecdh_curve("X25519")
    return context


@asynccontextmanager
async def serve_mcp_by_tls(tools: Tools, pki: PKI, files: Files | None = None) -> AsyncIterator[int]:
    """Run an MCP server of the official SDK behind TLS: our own, which wants the gateway's certificate, or the standard
    library's with the files that are given, which knows no hybrid."""
    app = tools.server.streamable_http_app()
    async with tools.server.session_manager.run():
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", loop="asyncio")
        if files is None:
            server, chosen = pki.server("mcp"), TLSRules(client_certificates="require")
            contexts = Rotating("mcp", lambda: material(server, pki.ca), lambda found: server_context(found, chosen))
            listener = Listener(contexts, chosen, handshake_seconds=10, max_handshakes=10)
            config.http = tls_protocol_class(listener, H11Protocol)
        else:
            config.ssl_certfile, config.ssl_keyfile = str(files.certificate), str(files.key)
        async with serve(config) as url:
            yield int(url.rpartition(":")[2])


def listener_settings(pki: PKI, **members: Any) -> dict[str, Any]:
    return {**pki.server("gateway").settings, "client_ca": str(pki.ca), **members}


def upstream_settings(pki: PKI, **members: Any) -> dict[str, Any]:
    return {**pki.client("gateway-1", GATEWAY).settings, "ca": str(pki.ca), **members}


def port_of(world: Surroundings) -> int:
    return int(world.url.rpartition(":")[2])


@asynccontextmanager
async def sdk_client(port: int, context: ssl.SSLContext) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {TOKENS['Finance-Bot']}"}
    async with httpx2.AsyncClient(headers=headers, timeout=WAIT_SECONDS, verify=context) as http:
        transport = streamable_http_client(f"https://127.0.0.1:{port}/servers/finance/mcp", http_client=http)
        async with Client(transport, mode=VERSION, cache=None) as client:
            yield client


async def post(world: Surroundings, context: ssl.SSLContext, host: str = "127.0.0.1") -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=WAIT_SECONDS, verify=context) as http:
        headers = headers_of(token=TOKENS["Finance-Bot"])
        url = f"https://{host}:{port_of(world)}/servers/finance/mcp"
        return await http.post(url, content=body_of(arguments={"amount": 1}), headers=headers)


def play(scenario: Scenario, directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with surroundings(directory, **options) as world:
            await scenario(world)

    asyncio.run(run())


def metric(gateway: Any, name: str, **labels: str) -> float:
    return gateway.metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_listener_on_either_hop_sees_tls13_with_x25519mlkem768_and_no_plaintext(tmp_path: Path, pki: PKI) -> None:
    async def scenario(world: Surroundings) -> None:
        async with serve_mcp_by_tls(world.tools, pki) as port, listening_in(port) as behind:
            server = {"url": f"https://127.0.0.1:{behind.port}/mcp", "tls": upstream_settings(pki, groups="strict")}
            tls = listener_settings(pki, groups="strict", client_names=[f"URI:{AGENT}"])
            async with world.running(server=server, tls=tls) as gateway, listening_in(port_of(world)) as before:
                async with sdk_client(before.port, hybrid(pki.client(), pki.ca)) as client:
                    result = await client.call_tool("refund_customer", {"amount": 12.5, "note": MARKER})
                groups = {"version": "TLSv1.3", "group": "X25519MLKEM768"}
                assert metric(gateway, "tallystick_tls_connections_total", hop="client", **groups) >= 1
                assert metric(gateway, "tallystick_tls_connections_total", hop="server", **groups) >= 1
        assert MARKER in result.content[0].text
        for capture in (before, behind):
            assert capture.conversations
            for talk in capture.conversations:
                seen = read_handshake(talk)
                assert X25519MLKEM768 in seen.shares
                assert (seen.version, seen.group, seen.share_bytes) == (TLS13, X25519MLKEM768, 1120)
                assert len(list(records(talk.sent))) > 1
            passed = capture.everything()
            assert len(passed) > 4096
            for word in (MARKER, "refund_customer", "tools/call", TOKENS["Finance-Bot"], "HTTP/1.1"):
                assert word.encode() not in passed
        (decision,) = world.ledger.decisions()
        assert decision.facts is not None
        assert (decision.facts.tls_version, decision.facts.tls_group) == ("TLSv1.3", "X25519MLKEM768")
        (outcome,) = world.ledger.outcomes(*world.ledger.decision_ids())
        assert outcome.tls_group == "X25519MLKEM768"

    play(scenario, tmp_path)


def refused(pki: PKI, foreign: PKI) -> Iterator[tuple[str, str, ssl.SSLContext]]:
    """Yield who is kept out: a name for it, the reason that is counted, and the client's context."""
    yield "no certificate", "no_certificate", hybrid(None, pki.ca)
    yield "foreign authority", "certificate", hybrid(foreign.client(), pki.ca)
    yield "wrong name", "name", hybrid(pki.client("stranger", "spiffe://acme/agent/financeur"), pki.ca)
    host = pki.files(Wish(name="host", hosts=(AGENT,), client=True))
    yield "the name as that of a host", "name", hybrid(host, pki.ca)
    yield "a server's certificate", "certificate", hybrid(pki.server("other"), pki.ca)
    yield "classical key agreement", "classical", classical(pki.client(), pki.ca)


def test_a_client_that_is_not_as_it_must_be_is_refused_before_it_has_said_anything(
    tmp_path: Path, pki: PKI, foreign: PKI
) -> None:
    async def scenario(world: Surroundings) -> None:
        tls = listener_settings(pki, groups="strict", client_names=["URI:spiffe://acme/agent/finance"])
        async with world.running(tls=tls) as gateway:
            for name, reason, context in refused(pki, foreign):
                before = metric(gateway, "tallystick_tls_refused_total", reason=reason)
                with pytest.raises((httpx2.HTTPError, OSError)):
                    await post(world, context)
                assert metric(gateway, "tallystick_tls_refused_total", reason=reason) == before + 1, name
            assert (await post(world, hybrid(pki.client(), pki.ca))).status_code == 200
        assert len(world.ledger.decisions(None)) == 1

    play(scenario, tmp_path)


def test_permissive_mode_lets_a_classical_client_in_and_records_that_it_was_one(tmp_path: Path, pki: PKI) -> None:
    async def scenario(world: Surroundings) -> None:
        tls = listener_settings(pki)
        async with world.running(tls=tls), listening_in(port_of(world)) as wire:
            world.url = f"http://127.0.0.1:{wire.port}"
            assert (await post(world, classical(pki.client(), pki.ca))).status_code == 200
        assert read_handshake(wire.conversations[0]).group == X25519
        (decision,) = world.ledger.decisions()
        assert decision.facts is not None
        assert (decision.facts.tls_version, decision.facts.tls_group) == ("TLSv1.3", "x25519")
        (outcome,) = world.ledger.outcomes(*world.ledger.decision_ids())
        assert outcome.tls_group is None  # the server of this test is reached in the clear

    play(scenario, tmp_path)


def test_without_client_certificates_tls_still_hides_the_call_and_the_token_still_decides(
    tmp_path: Path, pki: PKI
) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(tls={**pki.server("gateway").settings, "client_certificates": "none"}):
            assert (await post(world, hybrid(None, pki.ca))).status_code == 200
            async with httpx2.AsyncClient(verify=hybrid(None, pki.ca)) as http:
                url = f"https://localhost:{port_of(world)}/servers/finance/mcp"
                assert (await http.post(url, content=body_of(), headers=headers_of())).status_code == 401

    play(scenario, tmp_path)


async def outcome_by(world: Surroundings, url: str, tls: dict[str, Any]) -> tuple[str, str | None]:
    async with world.running(server={"url": url, "tls": tls}):
        async with world.http() as http:
            await http.post(world.mcp_url, content=body_of(arguments={"amount": 1}), headers=headers_of())
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[-1])
    return outcome.status, outcome.reason


def test_a_server_that_is_not_as_it_must_be_is_never_sent_the_call(tmp_path: Path, pki: PKI, foreign: PKI) -> None:
    async def scenario(world: Surroundings) -> None:
        kept_out = ("failed", "upstream_tls")
        async with serve_mcp_by_tls(world.tools, pki) as port:
            here = f"https://127.0.0.1:{port}/mcp"
            assert await outcome_by(world, here, upstream_settings(pki, ca=str(foreign.ca))) == kept_out
            status, _ = await outcome_by(world, here, upstream_settings(foreign, ca=str(pki.ca)))
            assert status == "failed"
        async with serve_mcp_by_tls(world.tools, pki, pki.server("by-name", ("localhost",))) as port:
            here, tls = f"https://localhost:{port}/mcp", {"ca": str(pki.ca)}
            assert await outcome_by(world, here, {**tls, "groups": "strict"}) == kept_out
            assert await outcome_by(world, f"https://127.0.0.1:{port}/mcp", tls) == kept_out
            assert world.tools.calls == []
            assert await outcome_by(world, here, tls) == ("completed", None)
        assert world.tools.calls == ["refund_customer"]
        assert [outcome.tls_group for outcome in world.ledger.outcomes()][-1] == "x25519"

    play(scenario, tmp_path)
