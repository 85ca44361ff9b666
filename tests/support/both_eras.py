"""A real MCP server that speaks both eras and asks its client back, and clients of the stateful one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventMessage, EventStore
from mcp_types import JSONRPCMessage, SamplingMessage, TextContent
from pydantic import BaseModel

from tests.support.gateway import Surroundings, serve, surroundings

STATEFUL = "2025-11-25"


class Confirmation(BaseModel):
    """What the server asks of the person."""

    confirmed: bool


class Events(EventStore):
    """Keeps events in memory, so that a client can go on with a stream."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return f"event-{len(self._events)}"

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        at = int(last_event_id.removeprefix("event-"))
        stream_id = self._events[at - 1][0]
        for number, (stream, message) in enumerate(self._events[at:], start=at + 1):
            if stream == stream_id and message is not None:
                await send_callback(EventMessage(message, f"event-{number}"))
        return stream_id


class TwoWayServer:
    """Tools that ask the client back."""

    def __init__(self, **options: Any) -> None:
        self.calls: list[str] = []
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()
        self.errors: list[str] = []
        self.heard: list[str] = []
        self.options = options
        self.server = MCPServer("finance")
        for tool in (self.refund_customer, self.sample, self.confirm, self.roots, self.count, self.wait, self.poll):
            self.server.tool()(tool)
        self.server.resource("notes://today")(self.notes)
        self.server.prompt()(self.greet)

    async def notes(self) -> str:
        """A note."""
        return "noted"

    def greet(self, name: str) -> str:
        """Greet."""
        return f"Hello {name}"

    async def refund_customer(self, amount: float) -> str:
        """Refund a customer."""
        self.calls.append("refund_customer")
        return f"refunded {amount}"

    async def _asking(self, asking: Awaitable[str]) -> str:
        try:
            self.heard.append(await asking)
        except Exception as error:
            self.errors.append(str(error))
            raise
        return self.heard[-1]

    async def sample(self, ctx: Context) -> str:
        """Ask the client's model."""
        self.calls.append("sample")
        message = SamplingMessage(role="user", content=TextContent(type="text", text="why?"))

        async def ask() -> str:
            result = await ctx.session.create_message(messages=[message], max_tokens=10)
            return str(getattr(result.content, "text", result.content))

        return await self._asking(ask())

    async def confirm(self, ctx: Context) -> str:
        """Ask the person."""
        self.calls.append("confirm")

        async def ask() -> str:
            return (await ctx.elicit("Really?", Confirmation)).action

        return await self._asking(ask())

    async def roots(self, ctx: Context) -> str:
        """Ask for the client's roots."""
        self.calls.append("roots")

        async def ask() -> str:
            return ",".join(str(root.uri) for root in (await ctx.session.list_roots()).roots)

        return await self._asking(ask())

    async def count(self, steps: int, ctx: Context) -> str:
        """Report progress."""
        self.calls.append("count")
        for step in range(steps):
            await ctx.report_progress(step + 1, steps)
        return "counted"

    async def wait(self) -> str:
        """Wait until told."""
        self.calls.append("wait")
        self.started.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "waited"

    async def poll(self, ctx: Context) -> str:
        """End the stream and answer on another one."""
        self.calls.append("poll")
        await ctx.close_sse_stream()
        self.started.set()
        await self.go_on.wait()
        return "polled"


@asynccontextmanager
async def serve_two_way(server: TwoWayServer) -> AsyncIterator[str]:
    app = server.server.streamable_http_app(**server.options)
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", loop="asyncio")
    async with server.server.session_manager.run(), serve(config) as url:
        yield f"{url}/mcp"


@asynccontextmanager
async def legacy(world: Surroundings, agent: str = "Finance-Bot", **options: Any) -> AsyncIterator[Client]:
    """A client of the official SDK in the stateful era, speaking to the gateway."""
    async with world.http(agent) as http:
        transport = streamable_http_client(world.mcp_url, http_client=http)
        async with Client(transport, mode="legacy", cache=None, **options) as client:
            yield client


def play(
    scenario: Callable[[Surroundings, TwoWayServer], Awaitable[None]],
    directory: Path,
    *,
    offers: dict[str, Any] | None = None,
    answer: Any = None,
    **options: Any,
) -> None:
    """Run a scenario between a running gateway and a server that asks back."""

    async def run() -> None:
        two_way = TwoWayServer(**(offers or {}))
        strict = {"recording": "strict"}  # so that the ledger has what a client has the answer to
        async with (
            surroundings(directory, answer=answer, server=strict, **options) as world,
            serve_two_way(two_way) as upstream,
        ):
            world.upstream = upstream
            async with world.running():
                await scenario(world, two_way)

    asyncio.run(run())
