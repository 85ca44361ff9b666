"""The gateway asks servers for their tools by itself: at its start, now and then, and when a server says they changed.

So a definition that changed is known before an agent asks for it, and tools that are gone are. What is fetched goes to
`enforcement.pins.ToolPins.learn` and nowhere else; nothing of it is shown to anybody. Only servers with pins are asked,
over HTTP; a wrapped process is its client's alone.

A server is asked in the newest of its revisions: without a session where there are none, and in a short session of the
gateway's own otherwise, which it ends again. Each list is bounded in time, pages and bytes.

Source: Model Context Protocol, revisions 2025-11-25 and 2026-07-28, "Tools" and "Pagination".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from importlib.metadata import version as package_version
from typing import Any, Final

import msgspec
import structlog

from enforcement.answers import Answer, parse_answer, parse_stream_message
from enforcement.bounded import read_bounded
from enforcement.config import Limits, ServerSettings
from enforcement.config_pins import PinningSettings
from enforcement.conversations import SESSION_HEADER
from enforcement.json_slices import object_members
from enforcement.pins import ToolPins
from enforcement.revisions import STATELESS
from enforcement.server_list import Servers
from enforcement.sse import EventStream
from enforcement.upstream import ServerAnswer, ServerSide
from ledger.errors import LedgerError, MalformedError, UpstreamError
from ledger.tasks import Repeating

__all__ = ["ToolFetcher"]

_LOG: Final = structlog.get_logger(__name__)
_MAX_PAGES: Final = 100
_CHUNK_BYTES: Final = 64 << 10
_LIST: Final = "tools/list"
_HEADERS: Final = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
_META: Final = "io.modelcontextprotocol/"


class ToolFetcher:
    """Asks servers for their tools. Owned by the event loop."""

    def __init__(
        self,
        pins: ToolPins,
        servers: Servers,
        upstream: ServerSide,
        settings: PinningSettings,
        limits: Limits,
        revisions: Callable[[ServerSettings], tuple[str, ...]],
    ) -> None:
        """Take the parts.

        Args:
            pins: Is told what servers list, and says which servers have pins.
            servers: The servers as they are now.
            upstream: The way to them.
            settings: How often, and how long it may take.
            limits: How long an answer may be.
            revisions: Returns the revisions in which a server may be asked.
        """
        self._pins = pins
        self._servers = servers
        self._upstream = upstream
        self._settings = settings
        self._limits = limits
        self._revisions = revisions
        self._work = Repeating("lists of tools", self._turn, retry_seconds=settings.fetch_seconds or 1)

    def start(self) -> None:
        """Begin; calls of servers with pins wait until their list is known, for as long as that may take."""
        if self._settings.fetch_seconds:
            self._pins.follow(self._work.wake)
            self._work.start()

    async def stop(self) -> None:
        """Ask no more."""
        self._pins.follow(None)
        await self._work.stop()

    async def _turn(self) -> float:
        # What became stale meanwhile is asked for in the next turn, which begins at once.
        wanted = self._pins.stale_servers() or self._pins.pinned_servers
        for name in wanted:
            server = self._servers.get(name)
            try:
                if server is not None and server.url is not None:
                    async with asyncio.timeout(self._settings.fetch_timeout_seconds):
                        await self._fetch(server)
            except (LedgerError, TimeoutError) as error:
                _LOG.warning("tools_not_fetched", server=name, error=type(error).__name__)
            finally:
                self._pins.fetched(name)
        return self._settings.fetch_seconds

    async def _fetch(self, server: ServerSettings) -> None:
        revisions = self._revisions(server)
        newest = max(revisions)
        if newest in STATELESS:
            try:
                await self._pages(server, newest, {})
            except (UpstreamError, MalformedError):
                older = [revision for revision in revisions if revision not in STATELESS]
                if not older:
                    raise
                newest = max(older)
            else:
                return
        await self._in_session(server, newest)

    async def _in_session(self, server: ServerSettings, revision: str) -> None:
        """Ask in a session of our own."""
        info = {"name": "tallystick", "version": package_version("tallystick")}
        params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": info}
        answer, headers = await self._ask(server, "initialize", params, {})
        agreed = msgspec.json.decode(object_members(answer.decode()).get("protocolVersion", "null"))
        if agreed not in self._revisions(server):
            raise MalformedError("a server speaks no revision that passes here")
        session = headers.get(SESSION_HEADER)
        added = {"mcp-protocol-version": str(agreed), **({} if session is None else {SESSION_HEADER: session})}
        try:
            body = msgspec.json.encode({"jsonrpc": "2.0", "method": "notifications/initialized"})
            async with self._upstream.send(server, [], body, added={**_HEADERS, **added}) as response:
                if not response.ok:
                    raise UpstreamError("upstream_error")
            await self._pages(server, str(agreed), added)
        finally:
            if session is not None:
                async with self._upstream.send(server, [], b"", verb="DELETE", added=added):
                    pass

    async def _pages(self, server: ServerSettings, revision: str, added: Mapping[str, str]) -> None:
        cursor: str | None = None
        for page in range(_MAX_PAGES):
            params: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
            headers = dict(added)
            if revision in STATELESS:
                params["_meta"] = {f"{_META}protocolVersion": revision, f"{_META}clientCapabilities": {}}
                headers |= {"mcp-method": _LIST, "mcp-protocol-version": revision}
            result, _ = await self._ask(server, _LIST, params, headers)
            await self._pins.learn(server.name, result, continues=page > 0, alone=True)
            cursor = _cursor(result)
            if cursor is None:
                return
        raise MalformedError(f"a list of tools has more than {_MAX_PAGES} pages")

    async def _ask(
        self, server: ServerSettings, method: str, params: Mapping[str, Any], added: Mapping[str, str]
    ) -> tuple[bytes, Mapping[str, str]]:
        """Send a request; return its result, and the answer's headers.

        Raises:
            UpstreamError: The server did not answer with a result.
            MalformedError: What it answered cannot be read.
        """
        body = msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        async with self._upstream.send(server, [], body, added={**_HEADERS, **added}) as response:
            if not response.ok:
                raise UpstreamError("upstream_error")
            answer = await self._read(response)
            if answer.result is None or answer.input_required:
                raise UpstreamError("upstream_error")
            return answer.result, dict(response.headers)

    async def _read(self, response: ServerAnswer) -> Answer:
        limit = self._limits.answer_bytes
        if response.content_type != "text/event-stream":
            return parse_answer(await read_bounded(response.content, limit), 1)
        stream = EventStream(max_event_bytes=limit)
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            for event in stream.feed(chunk):
                answer = None if not event.data else parse_stream_message(event.data, 1)
                if answer is not None:
                    return answer
        raise UpstreamError("upstream_disconnected")


def _cursor(result: bytes) -> str | None:
    text = object_members(result.decode()).get("nextCursor", "null")
    cursor = msgspec.json.decode(text)
    if cursor is not None and not isinstance(cursor, str):
        raise MalformedError("a list's cursor is no text")
    return cursor
