"""Callers who hold on to what others need: places, connections, the gateway's own end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web

from ledger.bodies import Heartbeat, Outcome
from tests.support.gateway import Surroundings, surroundings
from tests.support.mcp_messages import body_of, headers_of

CALL = body_of(arguments={"amount": 1})


def play(scenario: Callable[[Surroundings], Awaitable[None]], directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with surroundings(directory, **options) as world, asyncio.timeout(30):
            await scenario(world)

    asyncio.run(run())


async def call(world: Surroundings, name: str = "refund_customer") -> httpx2.Response:
    headers = {key.decode(): value.decode() for key, value in headers_of(name=name)}
    async with world.http() as http:
        return await http.post(world.mcp_url, content=body_of(name=name, arguments={"amount": 1}), headers=headers)


@asynccontextmanager
async def connected(world: Surroundings, *sent: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
    """Connections to the gateway, on each of which something was sent."""
    host, port = world.url.removeprefix("http://").split(":")
    opened = [await asyncio.open_connection(host, int(port)) for _ in sent]
    for (_, writer), data in zip(opened, sent, strict=True):
        writer.write(data)
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.close()


def head(length: int, token: str | None = None) -> bytes:
    lines = [b"POST /servers/finance/mcp HTTP/1.1", b"Host: gateway", b"Content-Length: %d" % length]
    lines += [key + b": " + value for key, value in headers_of(token=token)]
    return b"\r\n".join([*lines, b"", b""])


# --- the gateway's own end


@pytest.mark.parametrize("recording", ["strict", "available"])
def test_a_call_that_is_judged_while_the_gateway_is_stopped_is_not_forwarded(tmp_path: Path, recording: str) -> None:
    async def scenario(world: Surroundings) -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()
        evaluate = world.evaluator.evaluate_many

        async def slow(bundle: Any, requests: Any) -> Any:
            asked.set()
            await go_on.wait()
            return await evaluate(bundle, requests)

        world.evaluator.evaluate_many = slow  # type: ignore[method-assign]  # judges until it is told to end
        async with world.running() as gateway:
            calling = asyncio.create_task(call(world))
            await asked.wait()
            stopping = asyncio.create_task(gateway.stop())
            await asyncio.sleep(0)
            go_on.set()
            answer = await calling
            await stopping
        assert answer.status_code == 503
        assert world.tools.calls == []
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
        assert (outcome.status, outcome.reason) == ("not_forwarded", "gateway_stopped")
        last = world.ledger.records[-1].body
        assert isinstance(last, Heartbeat)
        assert last.kind == "stop"

    play(scenario, tmp_path, server={"recording": recording})


def test_a_message_that_is_read_while_the_gateway_is_stopped_is_refused(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:
            host, port = world.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head(len(CALL), "finance-token"))
            await world.settle(lambda: in_flight(gateway) == 1)
            await gateway.stop()
            writer.write(CALL)
            assert (await reader.readline()).split()[1] == b"503"
            writer.close()
        assert world.tools.calls == []
        assert world.ledger.decisions() == []

    play(scenario, tmp_path)


def in_flight(gateway: Any) -> float | None:
    return gateway.metrics.registry.get_sample_value("tallystick_calls_in_flight")  # type: ignore[no-any-return]  # a float


# --- places


def test_strangers_who_send_half_a_message_take_no_place_from_those_who_are_known(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway, connected(world, *[head(100) + b"{"] * 20):
            await world.settle(lambda: gateway._endpoint._strangers == 1)  # type: ignore[union-attr]  # one of eight
            answer = await call(world)
            assert answer.status_code == 200
            assert "error" not in answer.json()
            await world.settle(lambda: len(world.ledger.decisions(None)) == 20)
        reasons = [decision.reason for decision in world.ledger.decisions(None)]
        assert sorted(reasons) == ["policy"] + ["unauthenticated"] * 19

    play(scenario, tmp_path, limits={"concurrent_calls": 8, "body_seconds": 20})


def test_a_stranger_beyond_the_places_for_strangers_is_answered_unread(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway, connected(world, head(100) + b"{"):
            await world.settle(lambda: gateway._endpoint._strangers == 1)  # type: ignore[union-attr]  # the only one
            async with connected(world, head(100) + b"{") as (reader,):
                answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close" in answer.lower()

    play(scenario, tmp_path, limits={"concurrent_calls": 1, "body_seconds": 20})


# --- connections


@pytest.mark.parametrize("sent", [b"", b"POST /servers/finance/mcp HTTP/1.1\r\nHost"], ids=["nothing", "half a head"])
def test_a_connection_without_a_request_is_ended(tmp_path: Path, sent: bytes) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), connected(world, sent) as (reader,):
            assert await reader.read() == b""

    play(scenario, tmp_path, limits={"body_seconds": 0.2})


def test_a_connection_that_begins_its_second_request_and_goes_silent_is_ended(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            host, port = world.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(head(len(CALL), "finance-token") + CALL)
            assert (await reader.readuntil(b'"jsonrpc"')).split()[1] == b"200"
            writer.write(b"POST /serv")
            assert b"HTTP/1.1" not in await reader.read()
            writer.close()

    play(scenario, tmp_path, limits={"body_seconds": 0.5})


def test_of_too_many_connections_that_say_nothing_the_oldest_are_ended(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), connected(world, *[b""] * 6) as readers:
            await asyncio.sleep(1.1)  # those of the last second are spared
            async with connected(world, b"") as (last,):
                for reader in readers[:3]:
                    assert await reader.read() == b""
                assert not any(reader.at_eof() for reader in [*readers[3:], last])
                assert (await call(world)).status_code == 200

    play(scenario, tmp_path, limits={"concurrent_calls": 4, "body_seconds": 20})


def test_only_a_known_callers_connection_lives_on_after_an_answer(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.http(None) as http:
            known = await http.post(world.mcp_url, content=CALL, headers=headers_of(token="finance-token"))
            stranger = await http.post(world.mcp_url, content=CALL, headers=headers_of(token="wrong"))
            health = await http.get(f"{world.url}/healthz")
        assert "connection" not in known.headers
        assert [answer.headers["connection"] for answer in (stranger, health)] == ["close", "close"]
        assert [known.status_code, stranger.status_code, health.status_code] == [200, 401, 200]

    play(scenario, tmp_path)


# --- clients that do not read


@pytest.mark.parametrize("limit", ["upstream_idle_seconds", "upstream_total_seconds"])
def test_a_client_that_does_not_read_gives_its_place_back(tmp_path: Path, limit: str) -> None:
    """A stream goes to a client that never takes it, while the server always has more to send."""

    async def scenario(world: Surroundings) -> None:
        async with endless_stream() as url:
            world.upstream = url
            # Before the whole time is over, the stream must have filled what lies between, on a busy machine too.
            times = {"upstream_idle_seconds": 4, "upstream_total_seconds": 2} if "total" in limit else {limit: 0.3}
            async with world.running(limits={"concurrent_calls": 1, **times}) as gateway:
                async with unread(world) as socket_:
                    await world.settle(lambda: in_flight(gateway) == 1)
                    await world.settle(lambda: in_flight(gateway) == 0)
                    assert await ended(socket_)
                # What the server reported before is an outcome of its own.
                (outcome,) = [one for one in await outcomes(world) if not one.messages]
        idle = limit == "upstream_idle_seconds"
        expected = ("cancelled", "client_disconnected") if idle else ("failed", "upstream_timeout")
        assert (outcome.status, outcome.reason) == expected

    play(scenario, tmp_path)


@asynccontextmanager
async def endless_stream() -> AsyncIterator[str]:
    event = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"x":"' + b"y" * 60_000 + b'"}}\n\n'

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionResetError):
            while True:
                await response.write(event)
        return response

    app = web.Application()
    app.router.add_post("/mcp", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def unread(world: Surroundings) -> AsyncIterator[socket.socket]:
    """A call whose answer is not read."""
    host, port = world.url.removeprefix("http://").split(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((host, int(port)))
        client.setblocking(False)
        client.send(head(len(CALL), "finance-token") + CALL)
        yield client


async def ended(client: socket.socket) -> bool:
    """Read what had come until then; whether the connection ends, instead of waiting to send more."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionResetError):
        while await loop.sock_recv(client, 1 << 16):
            pass
    return True


async def outcomes(world: Surroundings) -> list[Outcome]:
    await world.settle(lambda: bool(world.ledger.outcomes()))
    return world.ledger.outcomes()
