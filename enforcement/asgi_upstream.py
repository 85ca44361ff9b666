"""The way to a server that is an ASGI application of the same process.

What `enforcement.upstream` does over a connection, this does by a call: the application gets a request of our own
making, with the message byte for byte and the headers that go on, and its answer is read as it is sent.

* An answer is taken as fast as it is read and no faster: the application's ``send`` waits (back-pressure).
* When the answer is not wanted any more the application hears ``http.disconnect``, as from any server; one that has not
  returned some seconds later is cancelled.
* What the application raises is an upstream that failed, and nothing of it reaches the client.

Source: ASGI 3.0, "HTTP & WebSocket ASGI Message Format".
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import structlog
from multidict import CIMultiDict
from starlette.types import ASGIApp, Message, Scope

from enforcement.config import Limits, ServerSettings
from enforcement.mcp_headers import RawHeaders
from enforcement.upstream import ServerAnswer, Verb, forwarded_headers
from ledger.errors import UpstreamError
from ledger.tasks import end

__all__ = ["ASGIUpstream"]

_LOG: Final = structlog.get_logger(__name__)
_CHUNKS: Final = 16
"""Parts of an answer that may wait to be read."""
_LEAVE_SECONDS: Final = 5.0
"""How long an application may go on once it has heard that nobody waits."""
_NO_TYPE: Final = "application/octet-stream"
_FIRST_FAILURE: Final = 400
_NOTHING: Final[Mapping[str, str]] = {}


class ASGIUpstream:
    """Calls one application; see `enforcement.upstream.ServerSide`. Owned by the event loop."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        *,
        path: str,
        state: Callable[[], dict[str, Any] | None],
    ) -> None:
        """Take the application.

        Args:
            app: The server.
            limits: Time-outs.
            path: Where its MCP endpoint is.
            state: Returns what the application's lifespan left for its requests, or None.
        """
        self._app = app
        self._limits = limits
        self._path = path
        self._authorizations: Mapping[tuple[str, str | None], str] = {}
        self._state = state
        self._leaving: set[asyncio.Task[None]] = set()

    def authorize(self, authorizations: Mapping[tuple[str, str | None], str]) -> None:
        """Take what is presented from now on: server name → ``Authorization`` value."""
        self._authorizations = dict(authorizations)

    async def stop(self) -> None:
        """Wait until no call of the application is left; those that do not leave are cancelled."""
        while self._leaving:
            await asyncio.gather(*self._leaving, return_exceptions=True)

    @asynccontextmanager
    async def send(
        self,
        server: ServerSettings,
        lines: RawHeaders,
        body: bytes,
        *,
        verb: Verb = "POST",
        added: Mapping[str, str] = _NOTHING,
    ) -> AsyncIterator[ServerAnswer]:
        """Hand a message to the application; its answer is read inside the context.

        Args:
            server: Which server it is.
            lines: The client's header lines.
            body: The client's body bytes; empty where it is no POST.
            verb: The HTTP method.
            added: Headers of our own, by name in lower case; they stand in the place of the client's.

        Raises:
            UpstreamError: ``upstream_timeout`` or ``upstream_disconnected``, on the way there or while the answer is
                read.
        """
        headers = forwarded_headers(lines, self._authorizations.get((server.name, server.url)))
        headers.update(added)
        call = _Call(body, idle_seconds=self._limits.upstream_idle_seconds)
        running = asyncio.create_task(self._run(self._scope(verb, lines, headers, len(body)), call))
        try:
            await call.started()
            yield call
        finally:
            call.leave()
            leaving = asyncio.create_task(_see_off(running))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _run(self, scope: Scope, call: _Call) -> None:
        try:
            await self._app(scope, call.receive, call.send)
        except Exception as error:  # noqa: BLE001  # whatever it raises, to us it is a server that broke off
            _LOG.warning("application_failed", error=type(error).__name__)
        finally:
            call.end()

    def _scope(self, verb: Verb, lines: RawHeaders, headers: CIMultiDict[str], length: int) -> Scope:
        # The application checks to whom a request was addressed, against rebinding of names; the client said that.
        hosts = [value for name, value in lines if name.lower() == b"host"]
        raw = [(b"host", host) for host in hosts[:1]]
        raw += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        if verb == "POST":
            raw.append((b"content-length", str(length).encode()))
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": verb,
            "scheme": "http",
            "path": self._path,
            "raw_path": quote(self._path).encode(),
            "query_string": b"",
            "root_path": "",
            "headers": raw,
            "client": None,
            "server": None,
            "extensions": {},
        }
        state = self._state()
        if state is not None:
            scope["state"] = dict(state)
        return scope


async def _within(seconds: float, event: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError as error:
        raise UpstreamError("upstream_timeout") from error


async def _see_off(running: asyncio.Task[None]) -> None:
    """Let a call of the application end by itself for a while, then end it."""
    await asyncio.wait({running}, timeout=_LEAVE_SECONDS)
    await end(running)


class _Call:
    """One request to the application and its answer; is a `enforcement.upstream.ServerAnswer`."""

    def __init__(self, body: bytes, *, idle_seconds: float) -> None:
        self._body: bytes | None = body
        self._idle_seconds = idle_seconds
        self._started = asyncio.Event()
        self._gone = asyncio.Event()  # nobody reads any more
        self._over = False  # nothing more comes: the application has returned, or said so
        self._whole = False  # it said so
        self._chunks: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()

    # --- the application's side

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self._gone.is_set() or self._over:
            return  # as ASGI has it: what is sent to a client that has gone is lost without an error
        if message["type"] == "http.response.start":
            self.status = message["status"]
            for name, value in message.get("headers", ()):
                self.headers.add(name.decode("latin-1"), value.decode("latin-1"))
            self._started.set()
        elif message["type"] == "http.response.body":
            if message.get("body"):
                await self._put(bytes(message["body"]))
            if not message.get("more_body", False):
                self._whole = True
                self.end()

    async def _put(self, chunk: bytes) -> None:
        while len(self._chunks) >= _CHUNKS and not self._gone.is_set():
            self._taken.clear()
            await self._taken.wait()
        self._chunks.append(chunk)
        self._arrived.set()

    def end(self) -> None:
        """Note that nothing more comes."""
        self._over = True
        self._started.set()
        self._arrived.set()

    # --- our side

    async def started(self) -> None:
        """Wait for the head of the answer.

        Raises:
            UpstreamError: There is none.
        """
        await _within(self._idle_seconds, self._started)
        if not self.status:
            raise UpstreamError("upstream_disconnected")

    def leave(self) -> None:
        """Say that nobody reads any more."""
        self._gone.set()
        self._taken.set()
        self._chunks.clear()

    @property
    def ok(self) -> bool:
        return self.status < _FIRST_FAILURE

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", _NO_TYPE).partition(";")[0].strip().lower()

    @property
    def content(self) -> _Call:
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        while self._chunks or not self._over:
            if not self._chunks:
                self._arrived.clear()
                await _within(self._idle_seconds, self._arrived)
                continue
            chunk = self._chunks.popleft()
            self._taken.set()
            yield chunk
        if not self._whole:
            raise UpstreamError("upstream_disconnected")

    def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        return self._cut(n)

    async def _cut(self, n: int) -> AsyncIterator[bytes]:
        async for chunk in self.iter_any():
            for start in range(0, len(chunk), n):
                yield chunk[start : start + n]
