"""ASGI middleware: the enforcement point in front of a Python server, in the server's own process.

The MCP endpoint of the application is served by `enforcement.endpoint`, as behind the gateway, with the application as
the server. Of its other paths nothing is served unless the operator says so: a path that was forgotten is no way round.

The lifespan is the application's, with the enforcement point around it: it starts before the application does and stops
after the last call was recorded, while the application is still there to hear of it.

What this cannot defend against: the application's own process. Whoever runs code in it can call its tools directly, or
read the keys (docs/transports.md).
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Literal

import structlog
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from enforcement.asgi_upstream import ASGIUpstream
from enforcement.authenticator import Authenticator
from enforcement.config_files import authorizations
from enforcement.connections import closing_strangers
from enforcement.core import Core
from enforcement.endpoint import TRANSPORT, Endpoint, serving
from enforcement.resources import WELL_KNOWN, metadata_at
from ledger.errors import ConfigError, TallystickError

__all__ = ["TallystickMiddleware"]

_LOG: Final = structlog.get_logger(__name__)
_NOT_STARTED: Final = 503


class TallystickMiddleware:
    """An ASGI application that lets no MCP call to another one pass unjudged. Owned by one event loop."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        core: Core,
        server: str | None = None,
        path: str = "/mcp",
        health_paths: Collection[str] = (),
        other_paths: Literal["refuse", "pass"] = "refuse",
    ) -> None:
        """Put an enforcement point before an application.

        Args:
            app: The application; its MCP endpoint speaks streamable HTTP.
            core: The enforcement point; it is started and stopped here.
            server: Which server of the configuration the application is; its only one if None.
            path: Where the application's MCP endpoint is.
            health_paths: Paths of the application that pass unjudged to anybody, such as ``/healthz``; GET and HEAD.
            other_paths: What becomes of all others: ``refuse`` answers 404, ``pass`` hands them to the application
                unjudged and unrecorded, WebSockets included, but for those that could be taken for the endpoint's: in
                other letters, with other slashes, or beneath it.

        Raises:
            ConfigError: There is no such server, or it cannot be told which one is meant.
        """
        if path in health_paths:
            raise ConfigError("health_paths names the MCP endpoint: it would pass unjudged")
        self._app = app
        self._core = core
        self._server = core.server_name(server)
        self._path = path
        self._health_paths = frozenset(health_paths)
        self._pass_others = other_paths == "pass"
        self._state: dict[str, Any] | None = None
        self._endpoint: Endpoint | None = None
        self._stack = AsyncExitStack()
        self._judging = closing_strangers(self._judge)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the enforcement point, for a server that has no lifespan.

        Raises:
            ConfigError: It cannot start; see `Core.start`.
            StorageError: The state file failed.
        """
        await self._start()
        try:
            yield
        finally:
            await self._stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == self._path:
            await self._judging(scope, receive, send)
        elif scope["type"] == "http" and scope["path"].startswith(WELL_KNOWN) and scope["method"] == "GET":
            await self._resource_metadata(scope, receive, send)
        elif self._is_health(scope) or (self._pass_others and not self._may_be_endpoint(scope["path"])):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _not_found()(scope, receive, send)
        else:  # a WebSocket
            await send({"type": "websocket.close", "code": 1008})

    def _is_health(self, scope: Scope) -> bool:
        return scope["type"] == "http" and scope["path"] in self._health_paths and scope["method"] in ("GET", "HEAD")

    def _may_be_endpoint(self, path: str) -> bool:
        """Whether an application could take a path for its MCP endpoint, or for something beneath it."""
        parts, own = (posixpath.normpath(text).casefold().strip("/").split("/") for text in (path, self._path))
        return parts == own if own == [""] else parts[: len(own)] == own

    async def _judge(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._endpoint is None:
            await JSONResponse({"ready": False}, status_code=_NOT_STARTED)(scope, receive, send)
            return
        named = {**scope, "path_params": {"name": self._server}, TRANSPORT: "asgi"}
        await self._endpoint(named, receive, send)

    async def _resource_metadata(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say where tokens for this server come from; the application has no say in whom we know."""
        path = scope["path"].removeprefix(WELL_KNOWN) or "/"
        document = metadata_at(self._core.config.identity, path)
        found = document is not None
        response = JSONResponse(document, headers={"Cache-Control": "max-age=300"}) if found else _not_found()
        await response(scope, receive, send)

    # --- its life

    async def _start(self) -> None:
        core = self._core
        limits = core.config.limits
        running = await core.start()
        self._stack.push_async_callback(core.stop)
        try:
            upstream = ASGIUpstream(self._app, limits, path=self._path, state=lambda: self._state)
            running.servers.watch(lambda listed: upstream.authorize(authorizations(listed)))
            self._stack.push_async_callback(upstream.stop)
            authenticator = Authenticator(core.config, core.clock, core.metrics)
            await self._stack.enter_async_context(authenticator)
            self._endpoint = await self._stack.enter_async_context(serving(core, running, authenticator, upstream))
        except BaseException:
            await self._stack.aclose()
            raise

    async def _stop(self) -> None:
        self._endpoint = None
        await self._stack.aclose()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the application's lifespan, with ours around its requests."""
        life = _Lifespan(self, receive, send)
        scope.setdefault("state", {})
        self._state = scope["state"]
        try:
            await self._app(scope, life.receive, life.send)
        except Exception as error:
            if life.asked:  # it knows what a lifespan is, and failed in it
                raise
            _LOG.info("application_without_lifespan", error=type(error).__name__)
            await life.live()
        finally:
            await self._stop()


def _not_found() -> Response:
    return PlainTextResponse("not found\n", status_code=404)


class _Lifespan:
    """The messages of one lifespan: the enforcement point starts before the application hears of the start."""

    def __init__(self, middleware: TallystickMiddleware, receive: Receive, send: Send) -> None:
        self._middleware = middleware
        self._receive = receive
        self._send = send
        self.asked = False
        self._failed = False

    async def receive(self) -> Message:
        self.asked = True
        message = await self._receive()
        if message["type"] == "lifespan.startup":
            await self._begin()
        elif message["type"] == "lifespan.shutdown":
            # Calls end, and are recorded, while the application is still there; the ledger's side stops after it.
            await self._middleware._stop()  # noqa: SLF001  # its own part
        return message

    async def send(self, message: Message) -> None:
        if not self._failed:
            await self._send(message)

    async def live(self) -> None:
        """Be the lifespan of an application that has none."""
        await self.receive()
        await self.send({"type": "lifespan.startup.complete"})
        await self.receive()
        await self.send({"type": "lifespan.shutdown.complete"})

    async def _begin(self) -> None:
        try:
            await self._middleware._start()  # noqa: SLF001  # its own part
        except TallystickError as error:
            self._failed = True
            await self._send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
