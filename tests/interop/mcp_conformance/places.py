"""Where the suite finds the server: directly, and behind each transport of the enforcement point.

Each place is opened around one server for both eras, and yields the address that the suite is given.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import uvicorn
from mcp.server.stdio import stdio_server

from enforcement.asgi import TallystickMiddleware
from enforcement.stdio import Pipe, StdioWrapper
from ledger.tasks import end
from tests.interop.mcp_conformance.bridge import Bridge, Connect
from tests.interop.mcp_conformance.server import Conformance
from tests.support.both_eras import Events
from tests.support.gateway import TOKENS, Surroundings, bound, serve
from tests.support.transports import CALLER, Ends, connected

__all__ = ["PLACES", "Place"]

_RETRY_MS: Final = 500
_PRINCIPAL: Final = b"Bearer " + TOKENS["Finance-Bot"].encode()

Place: TypeAlias = Callable[[Surroundings, Conformance], AbstractAsyncContextManager[str]]


@dataclass(frozen=True, slots=True)
class _Presenting:
    """Presents a principal's token in the place of the suite, which has no option for one."""

    app: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", _PRINCIPAL)]}
        await self.app(scope, receive, send)


def _application(server: Conformance) -> Any:
    return server.server.streamable_http_app(event_store=Events(), retry_interval=_RETRY_MS)


@asynccontextmanager
async def directly(_world: Surroundings, server: Conformance) -> AsyncIterator[str]:
    """The server itself."""
    async with serve(_config(_application(server))) as url:
        yield f"{url}/mcp"


@asynccontextmanager
async def through_gateway(world: Surroundings, server: Conformance) -> AsyncIterator[str]:
    """The gateway, with the server behind it over HTTP."""
    async with directly(world, server) as upstream:
        world.upstream = upstream
        listener = bound()
        gateway = world.build(**_options(listener))
        await gateway.start()
        try:
            config = gateway.server_config(host="127.0.0.1", port=0)
            config.app = _Presenting(config.app)
            async with serve(config, listener) as url:
                yield f"{url}/servers/finance/mcp"
        finally:
            await gateway.stop()


@asynccontextmanager
async def through_middleware(world: Surroundings, server: Conformance) -> AsyncIterator[str]:
    """The ASGI middleware, around the server's application."""
    listener = bound()
    core = world.build(**_options(listener)).core
    middleware = TallystickMiddleware(_application(server), core=core)
    async with serve(_config(_Presenting(middleware)), listener) as url:
        yield f"{url}/mcp"


@asynccontextmanager
async def _spoken_to(server: Conformance) -> AsyncIterator[Ends]:
    """The server, as it runs over standard input and output, on a pipe; yields the other end."""
    ours, (reader, writer) = await connected()
    serving = asyncio.create_task(_speak(server, _Pages(reader, writer)))
    try:
        yield ours
    finally:
        ours[1].transport.abort()
        await end(serving)
        writer.transport.abort()


async def _speak(server: Conformance, pages: _Pages) -> None:
    try:
        async with stdio_server(pages, pages) as (receive, send):  # type: ignore[arg-type]  # files, as far as used
            lowlevel = server.server._lowlevel_server
            await lowlevel.run(receive, send, lowlevel.create_initialization_options())
    finally:
        pages.writer.close()  # as a process that ends


@dataclass(frozen=True, slots=True)
class _Pages:
    """Both ends of a pipe, as the SDK has files."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def __aiter__(self) -> AsyncIterator[str]:
        while line := await self.reader.readline():
            yield line.decode()

    async def write(self, text: str) -> None:
        self.writer.write(text.encode())

    async def flush(self) -> None:
        await self.writer.drain()


@asynccontextmanager
async def _bridged(connect: Connect, listener: socket.socket) -> AsyncIterator[str]:
    async with Bridge(connect, _origin(listener)) as bridge, serve(_config(bridge.app), listener) as url:
        yield f"{url}/mcp"


@asynccontextmanager
async def bridged(_world: Surroundings, server: Conformance) -> AsyncIterator[str]:
    """The server over standard input and output, behind a bridge: what the wrapper is compared with."""
    async with _bridged(lambda: _spoken_to(server), bound()) as url:
        yield url


@asynccontextmanager
async def through_wrapper(world: Surroundings, server: Conformance) -> AsyncIterator[str]:
    """The same, with the stdio wrapper between bridge and server."""
    core = world.build(**_options(None)).core
    async with core as running:

        @asynccontextmanager
        async def wrapped() -> AsyncIterator[Ends]:
            async with _spoken_to(server) as child:
                client, ours = await connected()
                wrapper = StdioWrapper(
                    running,
                    core.config.limits,
                    server="finance",
                    identity=CALLER,
                    client=Pipe(*ours),
                    child=Pipe(*child),
                )
                wrapping = asyncio.create_task(wrapper.run(stop_seconds=5))
                try:
                    yield client
                finally:
                    client[1].transport.abort()
                    await wrapping
                    ours[1].transport.abort()

        async with _bridged(wrapped, bound()) as url:
            yield url


def _config(app: Any) -> uvicorn.Config:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", loop="asyncio")
    config.timeout_graceful_shutdown = 1
    return config


def _options(listener: socket.socket | None) -> dict[str, Any]:
    """Return settings: the suite sends an origin, and answers that no server asked for."""
    origins = [] if listener is None else [_origin(listener)]
    return {"allowed_origins": origins, "protocol": {"unasked_answers": "pass"}}


def _origin(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


PLACES: Final[dict[str, tuple[Place, str]]] = {
    "direct": (directly, "direct"),
    "gateway": (through_gateway, "direct"),
    "asgi": (through_middleware, "direct"),
    "bridge": (bridged, "bridge"),
    "wrap": (through_wrapper, "bridge"),
}
"""By name: the place, and the name of that which it is compared with."""
