"""TLS under uvicorn: what passes whole, what is bounded, and what hostile clients do to it."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from OpenSSL import SSL
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from enforcement.connections import closing_strangers, connection_class, drop_connection, keep_connection
from enforcement.tls_client import ClientRules
from enforcement.tls_client import client_context as rustls_context
from enforcement.tls_files import Rotating, read_material
from enforcement.tls_listener import Listener, TLSRules, server_context
from enforcement.tls_peer import TLSPeer, peer_of
from enforcement.tls_transport import tls_protocol_class
from ledger.clock import SystemClock
from tests.support.gateway import serve
from tests.support.pki import AGENT, PKI, Files

CLOCK = SystemClock()
WAIT_SECONDS = 20
GET = b"GET /size/3 HTTP/1.1\r\nHost: localhost\r\n\r\n"
BIG = 3_000_000
RULES = TLSRules()


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> PKI:
    return PKI(tmp_path_factory.mktemp("pki"))


@dataclass
class World:
    """A server that answers with as many bytes as it is asked for, and counts what it is sent."""

    port: int = 0
    refused: list[str] = field(default_factory=list)
    peers: list[TLSPeer | None] = field(default_factory=list)
    extensions: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[int] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    contexts: Rotating[SSL.Context] | None = None

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        keep_connection(scope)
        self.peers.append(peer_of(scope))
        self.extensions.append(scope.get("extensions", {}).get("tls"))
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.bodies.append(size)
        kind, _, argument = scope["path"].strip("/").partition("/")
        if kind == "wait":
            self.entered.set()
            assert (await receive())["type"] == "http.disconnect"
            self.gone.set()
            drop_connection(scope)  # after its end, as the gateway does for a client that takes nothing more
            return
        count = int(argument)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % count)]})
        for at in range(0, count, 65_536):
            body = b"x" * min(65_536, count - at)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def refusals(self, count: int) -> list[str]:
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.refused) < count:  # noqa: ASYNC110  # a list tells nobody
                await asyncio.sleep(0.005)
        return self.refused


@asynccontextmanager
async def serving(
    files: Files,
    ca: Path,
    rules: TLSRules = RULES,
    *,
    seconds: float = WAIT_SECONDS,
    crowd: int = 10,
) -> AsyncIterator[World]:
    world = World()
    world.contexts = Rotating(
        "test",
        lambda: read_material(files.certificate, f"file:{files.key}", ca, CLOCK),
        lambda material: server_context(material, rules),
    )
    listener = Listener(
        world.contexts, rules, handshake_seconds=seconds, max_handshakes=crowd, on_refused=world.refused.append
    )
    http = tls_protocol_class(listener, connection_class(head_seconds=WAIT_SECONDS, max_waiting=10))
    config = uvicorn.Config(
        closing_strangers(world.app), http=http, log_config=None, access_log=False, lifespan="off", loop="asyncio"
    )
    async with serve(config) as url:
        world.port = int(url.rpartition(":")[2])
        yield world


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        async with asyncio.timeout(3 * WAIT_SECONDS):
            await scenario()
        assert faults == []

    asyncio.run(bounded())


def client_context(pki: PKI, files: Files | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.ca))
    if files is not None:
        context.load_cert_chain(files.certificate, files.key)
    return context


@asynccontextmanager
async def connected(
    world: World, context: ssl.SSLContext | None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host = None if context is None else "localhost"
    reader, writer = await asyncio.open_connection("127.0.0.1", world.port, ssl=context, server_hostname=host)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return await reader.readexactly(length)


def memory_client(pki: PKI) -> SSL.Connection:
    """A client over memory: the test decides when its bytes arrive, and in which pieces."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(str(pki.ca).encode())
    context.set_verify(SSL.VERIFY_PEER)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    return connection


async def finish(client: SSL.Connection, reader: asyncio.StreamReader) -> None:
    while True:
        try:
            client.do_handshake()
        except SSL.WantReadError:
            client.bio_write(await reader.read(65_536))
        else:
            return


async def receive(client: SSL.Connection, reader: asyncio.StreamReader) -> bytes:
    while True:
        try:
            return client.recv(65_536)
        except SSL.WantReadError:
            data = await reader.read(65_536)
            if not data:
                raise ConnectionResetError from None
            client.bio_write(data)


def test_a_request_that_arrives_with_the_last_of_the_handshake_is_answered(pki: PKI) -> None:
    async def scenario() -> None:
        async with serving(pki.server(), pki.ca) as world, connected(world, None) as (reader, writer):
            client = memory_client(pki)
            writer.write(client.bio_read(65_536))
            await finish(client, reader)
            client.send(GET)
            writer.write(client.bio_read(65_536))  # Finished and the request, in one piece
            received = b""
            while not received.endswith(b"xxx"):
                received += await receive(client, reader)
            assert received.startswith(b"HTTP/1.1 200")
            assert world.peers[0] is not None
            assert world.peers[0].group == "X25519MLKEM768"

    run(scenario)


def test_a_handshake_that_arrives_byte_by_byte_is_one_all_the_same(pki: PKI) -> None:
    async def scenario() -> None:
        async with serving(pki.server(), pki.ca) as world, connected(world, None) as (reader, writer):
            client = memory_client(pki)
            hello = client.bio_read(65_536)
            for at in range(0, len(hello), 97):
                writer.write(hello[at : at + 97])
                await writer.drain()
                await asyncio.sleep(0)
            await finish(client, reader)
            assert client.get_group_name() == "X25519MLKEM768"

    run(scenario)


def test_large_bodies_pass_whole_in_both_directions_on_one_connection(pki: PKI) -> None:
    async def scenario() -> None:
        async with serving(pki.server(), pki.ca) as world, connected(world, client_context(pki)) as (reader, writer):
            for _ in range(2):
                head = f"POST /size/{BIG} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BIG}\r\n\r\n"
                writer.write(head.encode() + b"y" * BIG)
                await writer.drain()
                assert await answer(reader) == b"x" * BIG
            assert world.bodies == [BIG, BIG]

    run(scenario)


def test_every_request_of_a_connection_says_who_is_at_its_end_also_when_they_arrive_together(pki: PKI) -> None:
    async def scenario() -> None:
        files, rules = pki.client(), TLSRules(client_certificates="require")
        context = client_context(pki, files)
        async with serving(pki.server(), pki.ca, rules) as world, connected(world, context) as (reader, writer):
            writer.write(GET * 3)
            for _ in range(3):
                assert await answer(reader) == b"xxx"
        assert len(world.peers) == 3
        for peer, extension in zip(world.peers, world.extensions, strict=True):
            assert peer is not None
            assert peer.sans == (f"URI:{AGENT}",)
            assert (peer.version, peer.group) == ("TLSv1.3", "x25519")
            assert extension["tls_version"] == 0x0304
            assert extension["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")
            assert extension["client_cert_error"] is None

    run(scenario)


def test_an_optional_certificate_is_read_if_there_is_one_and_must_then_be_good(pki: PKI, tmp_path: Path) -> None:
    async def scenario() -> None:
        rules = TLSRules(client_certificates="optional")
        async with serving(pki.server(), pki.ca, rules) as world:
            for files in (None, pki.client()):
                async with connected(world, client_context(pki, files)) as (reader, writer):
                    writer.write(GET)
                    await answer(reader)
            foreign = PKI(tmp_path).client()
            async with connected(world, client_context(pki, foreign)) as (reader, writer):
                writer.write(GET)
                with pytest.raises(ssl.SSLError, match="alert"):  # the reason reaches the client
                    await reader.read()
            assert [peer and peer.sans for peer in world.peers] == [(), (f"URI:{AGENT}",)]
            assert world.refused == ["certificate"]

    run(scenario)


def test_a_client_that_takes_nothing_holds_back_the_server_and_no_memory(pki: PKI) -> None:
    async def scenario() -> None:
        size = 50_000_000
        async with serving(pki.server(), pki.ca) as world, connected(world, client_context(pki)) as (reader, writer):
            writer.write(f"GET /size/{size} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await reader.readuntil(b"\r\n\r\n")
            assert any("run_asgi" in repr(task.get_coro()) for task in asyncio.all_tasks())  # it waits for its client
            got = 0
            while got < size:
                got += len(await reader.read(1 << 20))
            assert got == size

    run(scenario)


@pytest.mark.parametrize("politely", [True, False])
def test_a_client_that_closes_its_side_has_gone(pki: PKI, politely: bool) -> None:
    async def scenario() -> None:
        async with serving(pki.server(), pki.ca) as world, connected(world, client_context(pki)) as (_, writer):
            writer.write(b"GET /wait/0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await world.entered.wait()
            if politely:
                writer.close()
            else:
                writer.transport.abort()
            await world.gone.wait()

    run(scenario)


HOSTILE = {
    "HTTP in the clear": (GET, "not_tls"),
    "garbage": (b"\x00\xff" * 600, "not_tls"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls"),
    "a record that is longer than records are": (b"\x16\x03\x01\xff\xff" + b"a" * 400, None),
    "an empty record": (b"\x16\x03\x01\x00\x00" * 50, None),
    "application data before a handshake": (b"\x17\x03\x03\x00\x20" + b"a" * 32, None),
    "an alert": (b"\x15\x03\x03\x00\x02\x02\x28", None),
    "a message that is no ClientHello": (b"\x16\x03\x01\x00\x08\x02\x00\x00\x04aaaa", None),
    "a ClientHello that is all length": (
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff" + b"\x16\x03\x01\x40\x00" + b"a" * 16384,
        None,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_tls_ends_without_a_word_in_the_log(pki: PKI, name: str, caplog: pytest.LogCaptureFixture) -> None:
    said, reason = HOSTILE[name]

    async def scenario() -> None:
        async with serving(pki.server(), pki.ca) as world:
            async with connected(world, None) as (reader, writer):
                writer.write(said)
                writer.write_eof()
                reply = await reader.read()
                assert len(reply) < 100
                assert b"HTTP" not in reply
            (found,) = await world.refusals(1)
            assert reason in (None, found)
            assert world.peers == []
            async with connected(world, client_context(pki)) as (reader, writer):  # and others are served
                writer.write(GET)
                assert await answer(reader) == b"xxx"

    with caplog.at_level(logging.INFO, logger="asyncio"):
        run(scenario)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_client_hello_that_is_cut_short_is_a_client_that_went(pki: PKI) -> None:
    async def scenario() -> None:
        async with serving(pki.server(), pki.ca) as world:
            async with connected(world, None) as (reader, writer):
                writer.write(memory_client(pki).bio_read(65_536)[:200])
                writer.write_eof()
                assert await reader.read() == b""
            assert await world.refusals(1) == ["gone"]

    run(scenario)


def test_a_record_that_was_tampered_with_ends_the_connection_with_what_came_before(pki: PKI) -> None:
    async def scenario() -> None:
        async with serving(pki.server(), pki.ca) as world, connected(world, None) as (reader, writer):
            client = memory_client(pki)
            writer.write(client.bio_read(65_536))
            await finish(client, reader)
            client.send(b"POST /size/3 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n")
            writer.write(client.bio_read(65_536))
            client.send(b"abcd")
            forged = bytearray(client.bio_read(65_536))
            forged[-1] ^= 1
            writer.write(forged)
            with pytest.raises((SSL.Error, ConnectionResetError)):
                await receive(client, reader)
            assert world.bodies in ([], [0])  # never with the four bytes

    run(scenario)


def test_a_handshake_that_does_not_end_is_ended(pki: PKI) -> None:
    async def scenario() -> None:
        async with serving(pki.server(), pki.ca, seconds=0.2) as world:
            async with connected(world, None) as (reader, writer):
                writer.write(b"\x16\x03\x01")
                assert await reader.read() == b""
            assert world.refused == ["late"]

    run(scenario)


def test_of_too_many_handshakes_the_oldest_are_ended(pki: PKI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enforcement.tls_transport._SPARED_SECONDS", 0.0)

    async def scenario() -> None:
        async with serving(pki.server(), pki.ca, crowd=2) as world:
            silent = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(4)]
            assert await world.refusals(2) == ["crowded", "crowded"]
            for reader, _ in silent[:2]:
                assert await reader.read() == b""
            for _, writer in silent:
                writer.transport.abort()

    run(scenario)


def test_tls12_is_refused_by_default_and_taken_if_the_configuration_says_so(pki: PKI) -> None:
    async def scenario() -> None:
        context = client_context(pki)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with serving(pki.server(), pki.ca) as world:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with connected(world, context):
                    pass
            assert await world.refusals(1) == ["version"]
        async with serving(pki.server(), pki.ca, TLSRules(minimum="1.2")) as world:
            async with connected(world, context) as (reader, writer):
                writer.write(GET)
                assert await answer(reader) == b"xxx"
            assert world.peers[0] is not None
            assert world.peers[0].version == "TLSv1.2"

    run(scenario)


def test_certificates_of_ml_dsa_65_prove_both_sides(tmp_path: Path) -> None:
    async def scenario() -> None:
        quantum = PKI(tmp_path, algorithm="ml-dsa-65")
        files = quantum.client()
        material = read_material(files.certificate, f"file:{files.key}", quantum.ca, CLOCK)
        context = rustls_context(material, ClientRules(groups="strict"))
        rules = TLSRules(client_certificates="require", groups="strict")
        async with serving(quantum.server(), quantum.ca, rules) as world:
            async with connected(world, context) as (reader, writer):
                writer.write(GET)
                assert await answer(reader) == b"xxx"
            assert world.peers[0] is not None
            assert world.peers[0].sans == (f"URI:{AGENT}",)

    run(scenario)


def test_no_session_is_resumed(pki: PKI) -> None:
    def talk(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as secured,
        ):
            secured.sendall(GET)
            assert secured.recv(12) == b"HTTP/1.1 200"
            assert not secured.session_reused
            return secured.session

    async def scenario() -> None:
        context = client_context(pki, pki.client())
        async with serving(pki.server(), pki.ca, TLSRules(client_certificates="require")) as world:
            session = await asyncio.to_thread(talk, world.port, context, None)
            await asyncio.to_thread(talk, world.port, context, session)

    run(scenario)


def test_a_server_that_stops_does_not_wait_for_handshakes(pki: PKI) -> None:
    async def scenario() -> None:
        async with serving(pki.server(), pki.ca) as world:
            silent, writer = await asyncio.open_connection("127.0.0.1", world.port)
            async with connected(world, client_context(pki)) as (reader, other):
                other.write(GET)
                await answer(reader)
        assert await silent.read() == b""
        writer.close()

    run(scenario)


def test_the_plain_protocol_stays_what_it_was() -> None:
    assert issubclass(connection_class(head_seconds=1, max_waiting=1), H11Protocol)
