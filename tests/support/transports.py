"""Each transport of the enforcement point in front of the same tools, for tests.

`doors` is the list; a door opens a client of the official SDK on a world's tools, with the enforcement point between.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import uvicorn
from fastmcp import FastMCP
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer

from enforcement.asgi import TallystickMiddleware
from enforcement.embedded import caller
from enforcement.fastmcp import guard_fastmcp
from enforcement.identity import Identity
from enforcement.sdk import SDKMiddleware
from tests.support.gateway import Surroundings, serve
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


DOORS: dict[str, Door] = {"http": http_door, "asgi": asgi_door, "sdk": sdk_door, "fastmcp": fastmcp_door}
