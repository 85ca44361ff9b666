"""A server that only the gateway can reach: no method, verb, path or form of a request goes round it.

Server, ledger and gateway run in a network namespace of their own; only the gateway's listening socket was made
outside. Where the machine does not let us make one, everything is tried all the same but the direct connection, which
is then skipped by name: `isolation` in the test report says which it was.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from enforcement.intermediaries.stub import StubServer
from policies.model import DecisionRequest, Effect
from tests.support.gateway import WAIT_SECONDS, Surroundings, bound, serve, surroundings
from tests.support.mcp_messages import META, VERSION
from tests.support.namespaces import Elsewhere

PERMITTED = "ping"
STATEFUL = "2025-11-25"
METHODS = [
    "initialize",
    "server/discover",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "subscriptions/listen",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/cancel",
    "tasks/update",
    "sampling/createMessage",
    "elicitation/create",
    "roots/list",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
    "example/unknown",
]
NAMED = {"tools/call": ("name", "echo"), "prompts/get": ("name", "greet"), "resources/read": ("uri", "notes://today")}


def only_ping(request: DecisionRequest) -> dict[str, Any]:
    return {"effect": Effect.PERMIT if request.action == PERMITTED else Effect.DENY}


class Place:
    """The gateway as it is seen from outside, and what is behind it."""

    def __init__(self, port: int, world: Surroundings, stub: StubServer, target: str, why_not: str | None) -> None:
        self.port, self.world, self.stub, self.target, self.why_not = port, world, stub, target, why_not

    def send(self, data: bytes) -> bytes:
        """Send bytes to the gateway and read until it closes, or nothing more comes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_SECONDS) as connection:
            connection.sendall(data)
            found = b""
            try:
                while chunk := connection.recv(65536):
                    found += chunk
            except ConnectionResetError:
                pass
            return found

    def post(self, message: dict[str, Any], version: str) -> bytes:
        method, params = str(message["method"]), message["params"]
        named = NAMED.get(method)
        extra = "" if version != VERSION else f"Mcp-Method: {method}\r\n"
        if version == VERSION and named is not None:
            extra += f"Mcp-Name: {params[named[0]]}\r\n"
        body = json.dumps(message).encode()
        return self.send(
            b"POST /servers/finance/mcp HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
            b"Authorization: Bearer finance-token\r\nContent-Type: application/json\r\n"
            b"Accept: application/json, text/event-stream\r\n"
            + f"MCP-Protocol-Version: {version}\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    def decisions(self) -> int:
        return len(self.world.ledger.decisions(None))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(tmp_path_factory.mktemp("world")) as found:
        yield found


@contextmanager
def running(directory: Path) -> Iterator[Place]:
    ready, done = threading.Event(), threading.Event()
    found: list[tuple[Surroundings, StubServer, str]] = []
    outside = bound()  # made here: it stays in this network, wherever it is listened on

    async def play() -> None:
        stub = StubServer()
        try:
            async with surroundings(directory, answer=only_ping, server={"recording": "strict"}) as world:
                world.upstream = target = await stub.start("127.0.0.1", 0)
                gateway = world.build()
                await gateway.start()
                try:
                    async with serve(gateway.server_config(host="127.0.0.1", port=0), outside):
                        found.append((world, stub, target))
                        ready.set()
                        await asyncio.to_thread(done.wait)
                finally:
                    await gateway.stop()
        finally:
            ready.set()
            await stub.stop()

    elsewhere = Elsewhere(play)
    port = int(outside.getsockname()[1])
    elsewhere.start()
    try:
        assert ready.wait(WAIT_SECONDS)
        if found:
            yield Place(port, *found[0], elsewhere.why_not)
    finally:
        done.set()
        elsewhere.join(WAIT_SECONDS)


def test_there_is_no_direct_connection_to_the_server(place: Place, record_property: Any) -> None:
    record_property("isolation", place.why_not or "network namespace")
    if place.why_not is not None:
        pytest.skip(f"no network namespace here, so nothing keeps a direct connection away: {place.why_not}")
    host, _, port = place.target.removeprefix("http://").removesuffix("/mcp").rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=WAIT_SECONDS).close()


def test_what_is_permitted_reaches_the_server_through_the_gateway(place: Place) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "method": PERMITTED, "params": {"_meta": META}}
    before, decided = len(place.stub.seen), place.decisions()
    place.post(message, VERSION)
    assert [one.message()["method"] for one in place.stub.seen[before:]] == [PERMITTED]
    spooled_and_posted(place, decided + 1)


@pytest.mark.parametrize("version", [VERSION, STATEFUL])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_one_decision_and_reaches_nothing(place: Place, method: str, version: str) -> None:
    params: dict[str, Any] = {"_meta": META} if version == VERSION else {}
    if method in NAMED:
        params |= dict([NAMED[method]])
    if method == "initialize":
        params |= {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if not method.startswith("notifications/"):
        message["id"] = 7
    before, seen = place.decisions(), len(place.stub.seen)
    answer = place.post(message, version)
    assert b'"error"' in answer, answer
    spooled_and_posted(place, before + 1)
    assert len(place.stub.seen) == seen


def spooled_and_posted(place: Place, count: int) -> None:
    """Wait until the ledger has as many decisions; denials are posted after they were answered."""
    waited = threading.Event()
    for _ in range(WAIT_SECONDS * 100):
        if place.decisions() >= count:
            break
        waited.wait(0.01)
    assert place.decisions() == count


RAW = [
    "GET / HTTP/1.1",
    "GET /mcp HTTP/1.1",
    "POST /mcp HTTP/1.1",
    "POST /servers/other/mcp HTTP/1.1",
    "POST /servers/finance/ HTTP/1.1",
    "POST /servers/finance/mcp/ HTTP/1.1",
    "POST /servers/finance/mcp/../../../mcp HTTP/1.1",
    "POST /servers/finance/%6dcp/x HTTP/1.1",
    "POST //TARGET/mcp HTTP/1.1",
    "POST http://TARGET/mcp HTTP/1.1",
    "GET http://TARGET/mcp HTTP/1.1",
    "CONNECT TARGET HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "PUT /servers/finance/mcp HTTP/1.1",
    "PATCH /servers/finance/mcp HTTP/1.1",
    "HEAD /servers/finance/mcp HTTP/1.1",
    "TRACE /servers/finance/mcp HTTP/1.1",
    "GET /servers/finance/mcp HTTP/1.1",
    "DELETE /servers/finance/mcp HTTP/1.1",
    "PRI * HTTP/2.0",
    "POST /servers/finance/mcp HTTP/0.9",
]
WEBSOCKET = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
HEADERS = {
    "plain": "Connection: close\r\n",
    "websocket": f"Connection: Upgrade, close\r\n{WEBSOCKET}",
    "h2c": "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "smuggled": "Connection: close\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "forwarded": "Connection: close\r\nX-Forwarded-Host: TARGET\r\nForwarded: host=TARGET\r\nX-Original-URL: /mcp\r\n",
}


@pytest.mark.parametrize("headers", HEADERS)
def test_no_form_of_a_request_reaches_the_server(place: Place, headers: str) -> None:
    target = place.target.removeprefix("http://").removesuffix("/mcp")
    seen = len(place.stub.seen)
    for line in RAW:
        body = "0\r\n\r\nPOST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" if headers == "smuggled" else ""
        request = f"{line}\r\nHost: TARGET\r\nAuthorization: Bearer finance-token\r\n{HEADERS[headers]}\r\n{body}"
        answer = place.send(request.replace("TARGET", target).encode())
        assert not answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 1")) or line.startswith("OPTIONS"), (line, answer)
        assert len(place.stub.seen) == seen, line
