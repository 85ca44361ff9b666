"""Certificates that change under a gateway that runs: taken up, or refused and told, and never a restart."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from enforcement.gateway import Gateway
from enforcement.tls_development import Wish
from enforcement.tls_files import Rotating, read_material
from enforcement.tls_listener import Listener, TLSRules, server_context
from enforcement.tls_transport import tls_protocol_class
from ledger.clock import SystemClock
from tests.support.gateway import TOKENS, Surroundings, serve, surroundings
from tests.support.mcp_messages import body_of, headers_of
from tests.support.pki import GATEWAY, LOOPBACK, PKI

CLOCK = SystemClock()
Scenario = Callable[[Surroundings], Awaitable[None]]


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("pki"))


def play(scenario: Scenario, directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with surroundings(directory, **options) as world:
            await scenario(world)

    asyncio.run(run())


def request() -> bytes:
    body = body_of(arguments={"amount": 1})
    lines = [b"%b: %b" % pair for pair in headers_of(token=TOKENS["Finance-Bot"])]
    head = [b"POST /servers/finance/mcp HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


@asynccontextmanager
async def connection(world: Surroundings, pki: PKI) -> Any:  # an asynchronous iterator
    port = int(world.url.rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(pki.ca))
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def serial(writer: asyncio.StreamWriter) -> int:
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(found).serial_number


async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(request())
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(length)
    return head.split(b"\r\n")[0]


def gauge(gateway: Gateway, name: str) -> float | None:
    return gateway.metrics.registry.get_sample_value(f"tallystick_certificate_{name}", {"use": "listener"})


def test_new_connections_show_the_new_certificate_and_old_ones_go_on(tmp_path: Path, pki: PKI) -> None:
    files = pki.server("rotated")

    async def scenario(world: Surroundings) -> None:
        async with world.running(tls={**files.settings, "client_certificates": "none"}) as gateway:
            before = gauge(gateway, "expires_timestamp_seconds")
            async with connection(world, pki) as old:
                assert await call(*old) == b"HTTP/1.1 200 OK"
                renewed = pki.credential(Wish(name="rotated", hosts=LOOPBACK, server=True, days=60))
                files.write(renewed)
                await gateway.core.certificates.look()
                assert await call(*old) == b"HTTP/1.1 200 OK"
                async with connection(world, pki) as new:
                    assert await call(*new) == b"HTTP/1.1 200 OK"
                    assert serial(new[1]) == renewed.chain[0].serial_number != serial(old[1])
            after = gauge(gateway, "expires_timestamp_seconds")
            assert before is not None
            assert after is not None
            assert after > before

    play(scenario, tmp_path)


def test_files_that_cannot_be_used_are_refused_and_told_and_the_old_certificate_goes_on(
    tmp_path: Path, pki: PKI
) -> None:
    files, other = pki.server("broken"), pki.server("another")
    whole = files.key.read_bytes()

    async def scenario(world: Surroundings) -> None:
        async with world.running(tls={**files.settings, "client_certificates": "none"}) as gateway:
            async with connection(world, pki) as one:
                first = serial(one[1])
            for broken in (other.key.read_bytes(), b"", whole[:40]):
                files.key.write_bytes(broken)
                await gateway.core.certificates.look()
                assert gauge(gateway, "refused") == 1
                _, facts = gateway.core.readiness()
                assert "broken.crt" in str(facts["certificates"])
                assert "PRIVATE" not in str(facts)
                async with connection(world, pki) as one:
                    assert serial(one[1]) == first
                    assert await call(*one) == b"HTTP/1.1 200 OK"
            files.key.write_bytes(whole)
            await gateway.core.certificates.look()
            assert gauge(gateway, "refused") == 0

    play(scenario, tmp_path)


def test_a_client_authority_that_is_exchanged_keeps_out_whom_the_old_one_let_in(tmp_path: Path, pki: PKI) -> None:
    believed = tmp_path / "clients.crt"
    believed.write_bytes(pki.ca.read_bytes())
    successor = PKI(tmp_path / "successor")

    async def scenario(world: Surroundings) -> None:
        tls = {**pki.server("gate").settings, "client_ca": str(believed)}
        async with world.running(tls=tls) as gateway:
            refused = gateway.metrics.registry.get_sample_value
            context = ssl.create_default_context(cafile=str(pki.ca))
            mine = pki.client("mine")
            context.load_cert_chain(mine.certificate, mine.key)
            for change, counted in ((None, None), (successor, 1.0)):
                if change is not None:
                    believed.write_bytes(change.ca.read_bytes())
                    await gateway.core.certificates.look()
                reader, writer = await asyncio.open_connection(
                    "localhost", int(world.url.rpartition(":")[2]), ssl=context
                )
                writer.write(request())
                if change is None:
                    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
                else:
                    with pytest.raises((ssl.SSLError, ConnectionError)):
                        await reader.readexactly(1)
                writer.transport.abort()
                assert refused("tallystick_tls_refused_total", {"reason": "certificate"}) == counted

    play(scenario, tmp_path)


def test_the_certificate_that_a_gateway_shows_to_a_server_is_taken_up_with_its_next_connection(
    tmp_path: Path, pki: PKI
) -> None:
    shown = pki.client("gateway-1", GATEWAY)
    server = pki.server("mcp")
    names: list[tuple[str, ...]] = []

    async def scenario(world: Surroundings) -> None:
        rules = TLSRules(client_certificates="require")
        contexts = Rotating(
            "mcp",
            lambda: read_material(server.certificate, f"file:{server.key}", pki.ca, CLOCK),
            lambda material: server_context(material, rules),
        )
        listener = Listener(
            contexts, rules, handshake_seconds=10, max_handshakes=10, on_accepted=lambda peer: names.append(peer.sans)
        )
        config = uvicorn.Config(
            closing, http=tls_protocol_class(listener, H11Protocol), log_config=None, lifespan="off"
        )
        async with serve(config) as url:
            here = {"url": url.replace("http:", "https:"), "tls": {**shown.settings, "ca": str(pki.ca)}}
            async with world.running(server=here) as gateway, world.http() as http:
                for uri in (GATEWAY, f"{GATEWAY}-renewed"):
                    shown.write(pki.credential(Wish(name="gateway-1", uris=(uri,), client=True)))
                    await gateway.core.certificates.look()
                    await http.post(world.mcp_url, content=body_of(arguments={"amount": 1}), headers=headers_of())
        assert names == [(f"URI:{GATEWAY}",), (f"URI:{GATEWAY}-renewed",)]

    play(scenario, tmp_path)


async def closing(scope: Scope, _receive: Receive, send: Send) -> None:
    """Answer nothing of use, and let no connection live on."""
    assert scope["type"] == "http"
    headers = [(b"content-length", b"0"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
