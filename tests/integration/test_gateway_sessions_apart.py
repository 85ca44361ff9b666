"""A balancer in front of two gateways: a session of the protocol is known at the one where it began, and nowhere else.

What the specification of 2025-11-25 asks for then: 404, and the client begins another session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from ledger.bodies import Decision
from tests.support.both_eras import STATEFUL, TwoWayServer, serve_two_way
from tests.support.gateway import ENFORCER_TOKEN, TOKENS, WAIT_SECONDS, Surroundings, surroundings

PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


@dataclass
class Balancer(httpx2.AsyncBaseTransport):
    """Sends each request to the gateway that a test says, and keeps what it was answered."""

    at: str
    answers: list[tuple[str, int]] = field(default_factory=list)
    session: str | None = None
    _inner: httpx2.AsyncHTTPTransport = field(default_factory=httpx2.AsyncHTTPTransport)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.url = request.url.copy_with(port=httpx2.URL(self.at).port)
        self.session = request.headers.get("mcp-session-id", self.session)
        answer = await self._inner.handle_async_request(request)
        self.answers.append((request.method, answer.status_code))
        return answer

    async def aclose(self) -> None:
        await self._inner.aclose()


@dataclass
class Pair:
    """Two gateways of one fleet in front of one server."""

    one: Surroundings
    other: Surroundings
    server: TwoWayServer
    balancer: Balancer

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the SDK in the stateful era that knows of the balancer alone."""
        headers = {"Authorization": f"Bearer {TOKENS['Finance-Bot']}"}
        async with httpx2.AsyncClient(headers=headers, timeout=WAIT_SECONDS, transport=self.balancer) as http:
            transport = streamable_http_client(self.one.mcp_url, http_client=http)
            async with Client(transport, mode="legacy", cache=None) as client:
                yield client

    def refused(self) -> list[tuple[str | None, str]]:
        """Who refused what because there is no such session, as the ledger has it."""
        return [
            (record.body.method, record.enforcer_id)
            for record in self.one.ledger.records
            if isinstance(record.body, Decision) and record.body.reason == "unknown_session"
        ]


def play(directory: Path, scenario: Any) -> None:
    async def run() -> None:
        server = TwoWayServer()
        async with (
            surroundings(directory, server={"recording": "strict"}) as one,
            serve_two_way(server) as upstream,
        ):
            one.upstream = upstream
            other = replace(one, directory=directory / "other")
            other.directory.mkdir()
            token = other.directory / "token"
            token.touch(mode=0o600)
            token.write_text(ENFORCER_TOKEN)
            async with one.running(), other.running(enforcer_id="gateway-2"):
                await scenario(Pair(one, other, server, Balancer(one.url)))

    asyncio.run(run())


def test_a_request_of_a_session_that_comes_to_the_other_gateway_is_told_to_begin_another(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        async with pair.client() as client:
            assert client.protocol_version == STATEFUL
            await client.call_tool("refund_customer", {"amount": 1})
            await pair.one.settle(lambda: ("GET", 200) in pair.balancer.answers)  # its stream is open at the first
            pair.balancer.at = pair.other.url
            with pytest.raises(MCPError) as refusal:
                await client.call_tool("refund_customer", {"amount": 2})
            assert refusal.value.error.data["reason"] == "unknown_session"
            assert "begin another one" in refusal.value.error.message
            assert ("POST", 404) in pair.balancer.answers
            assert pair.server.calls == ["refund_customer"]
            await pair.one.settle(lambda: pair.refused() == [("tools/call", "gateway-2")])
            pair.balancer.at = pair.one.url
            await client.call_tool("refund_customer", {"amount": 3})  # where it began it goes on
        assert pair.server.calls == ["refund_customer"] * 2

    play(tmp_path, scenario)


def test_another_session_begins_at_the_other_gateway_and_neither_ends_the_ones_of_the_first(tmp_path: Path) -> None:
    async def scenario(pair: Pair) -> None:
        async with pair.client() as client:
            await client.list_tools()
            headers = {"mcp-session-id": str(pair.balancer.session), "mcp-protocol-version": STATEFUL}
            async with pair.other.http() as http:
                for method in ("GET", "DELETE"):
                    answer = await http.request(method, pair.other.mcp_url, headers=headers)
                    assert (method, answer.status_code) == (method, 404)
                accept = {"accept": "application/json, text/event-stream"}
                answer = await http.post(pair.other.mcp_url, json=PING, headers={**headers, **accept})
                assert (answer.status_code, answer.json()["error"]["data"]["reason"]) == (404, "unknown_session")
            elsewhere = replace(pair, one=pair.other, balancer=Balancer(pair.other.url))
            async with elsewhere.client() as another:
                await another.call_tool("refund_customer", {"amount": 1})
            await client.list_tools()
        assert pair.server.calls == ["refund_customer"]

    play(tmp_path, scenario)
