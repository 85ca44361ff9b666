"""Each transport of the enforcement point in front of the same tools, for tests.

`doors` is the list; a door opens a client of the official SDK on a world's tools, with the enforcement point between.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import anyio
import uvicorn
from fastmcp import FastMCP
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from enforcement.asgi import TallystickMiddleware
from enforcement.embedded import caller
from enforcement.fastmcp import guard_fastmcp
from enforcement.identity import Identity
from enforcement.sdk import SDKMiddleware
from enforcement.stdio import Pipe, StdioWrapper
from ledger.tasks import end
from tests.support.gateway import WAIT_SECONDS, Surroundings, serve
from tests.support.mcp_messages import VERSION

Door: TypeAlias = Callable[[Surroundings], AbstractAsyncContextManager[Client]]

CALLER = caller("Finance-Bot", user="alice", roles=["finance"], mfa=True)


def known(_: object) -> Identity:
    """Say that whoever calls is the agent of the tests."""
    return CALLER


@asynccontextmanager
async def serve_asgi(world: Surroundings, app: Any = None, **options: Any) -> AsyncIterator[str]:
    """Serve an application behind the middleware; the application of the world's tools if it is None."""
    application = world.tools.server.streamable_http_app() if app is None else app
    middleware = TallystickMiddleware(application, core=world.build().core, **options)
    config = uvicorn.Config(middleware, log_config=None, access_log=False, lifespan="on", loop="asyncio")
    config.timeout_graceful_shutdown = 1
    async with serve(config) as url:
        yield url


@asynccontextmanager
async def http_door(world: Surroundings) -> AsyncIterator[Client]:
    async with world.running(), world.client() as client:
        yield client


@asynccontextmanager
async def asgi_door(world: Surroundings) -> AsyncIterator[Client]:
    async with serve_asgi(world) as url, world.http() as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, mode=VERSION, cache=None) as client:
            yield client


@asynccontextmanager
async def sdk_door(world: Surroundings) -> AsyncIterator[Client]:
    core = world.build().core
    server = MCPServer("finance", middleware=[SDKMiddleware(core, known)])
    for tool in world.tools.functions():
        server.tool()(tool)
    async with core, Client(server, mode=VERSION, cache=None) as client:
        yield client


@asynccontextmanager
async def fastmcp_door(world: Surroundings) -> AsyncIterator[Client]:
    core = world.build().core
    server: FastMCP[Any] = FastMCP("finance")
    for tool in world.tools.functions():
        server.tool(tool)
    guard_fastmcp(server, core, known)
    async with core, Client(server._mcp_server, mode=VERSION, cache=None) as client:  # the SDK's client, not its own
        yield client


class WrappedTransport:
    """The client's end of a pipe to a wrapped server, as a transport of the SDK."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Any:
        send, receive = anyio.create_memory_object_stream[SessionMessage | Exception](64)
        outgoing, taken = anyio.create_memory_object_stream[SessionMessage](64)
        self._stack.callback(taken.close)
        tasks = [asyncio.create_task(self._read(send)), asyncio.create_task(self._write(taken))]
        self._stack.push_async_callback(end, *tasks)
        return receive, outgoing

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        self._writer.close()

    async def _read(self, send: Any) -> None:
        async with send:
            while line := await self._reader.readline():
                await send.send(SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False)))

    async def _write(self, taken: Any) -> None:
        async for message in taken:
            line = message.message.model_dump_json(by_alias=True, exclude_unset=True)
            self._writer.write(line.encode() + b"\n")
            await self._writer.drain()


Ends: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected() -> tuple[Ends, Ends]:
    """Return both ends of a pipe."""
    one, other = socket.socketpair()
    return (
        await asyncio.open_connection(sock=one, limit=1 << 24),
        await asyncio.open_connection(sock=other, limit=1 << 24),
    )


@asynccontextmanager
async def wrapped(world: Surroundings, **options: Any) -> AsyncIterator[tuple[Ends, Ends, StdioWrapper]]:
    """Run the stdio wrapper between two pipes: yields the client's end, the server's end, and the wrapper."""
    core = world.build(**options).core
    async with core as running:
        (client, client_side), (child_side, server) = await connected(), await connected()
        wrapper = StdioWrapper(
            running,
            core.config.limits,
            server="finance",
            identity=caller("Finance-Bot", user="alice", roles=["finance"], mfa=True, authn="stdio"),
            client=Pipe(*client_side),
            child=Pipe(*child_side),
        )
        task = asyncio.create_task(wrapper.run(stop_seconds=5))
        try:
            yield client, server, wrapper
        finally:
            for _, writer in (client, server):
                writer.transport.abort()
            async with asyncio.timeout(WAIT_SECONDS):
                await task
            for _, writer in (client_side, child_side):
                writer.transport.abort()
            await asyncio.sleep(0)  # what was aborted is closed in the loop's next turn


async def _serve_lines(server: MCPServer, ends: Ends) -> None:
    """Run a server of the SDK over a pipe, as it runs over standard input and output."""
    transport = WrappedTransport(*ends)
    async with transport as (receive, outgoing):
        lowlevel = server._lowlevel_server
        await lowlevel.run(receive, outgoing, lowlevel.create_initialization_options())


@asynccontextmanager
async def stdio_door(world: Surroundings) -> AsyncIterator[Client]:
    async with wrapped(world) as (client_end, server_end, _):
        serving = asyncio.create_task(_serve_lines(world.tools.server, server_end))
        try:
            async with Client(WrappedTransport(*client_end), mode=VERSION, cache=None) as client:
                yield client
        finally:
            await end(serving)


DOORS: dict[str, Door] = {
    "http": http_door,
    "asgi": asgi_door,
    "stdio": stdio_door,
    "sdk": sdk_door,
    "fastmcp": fastmcp_door,
}
