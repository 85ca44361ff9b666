"""Asking one port: is it open, does it speak TLS, and under which paths does an MCP server answer?

A stranger's answer is bounded in every direction: bytes, time of a request, time of the port, redirects (within the
port, each path once) and connections. Nothing is sent but handshakes, no token, no cookie, and a session that a
handshake opened is ended.

A certificate is not checked: it is looked whether there is a server, and nothing is told to it that must stay secret.

INVARIANT: no answer of a server makes the scan ask another host or port.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self
from urllib.parse import urljoin, urlsplit

import aiohttp

from enforcement.discovery.found import FoundServer, Transport
from enforcement.discovery.handshake import (
    DISCOVER_HEADERS,
    INITIALIZE_HEADERS,
    Era,
    Handshake,
    discover_request,
    events_of,
    initialize_request,
    judge,
    message_of,
    metadata_place,
    names_resource,
)
from enforcement.discovery.scope import Endpoint

__all__ = ["Limits", "Pace", "PortResult", "Prober"]

_NOTHING_THERE: Final = frozenset({404, 410})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MAX_EXTRA_PATHS: Final = 4
_MAX_STALLS: Final = 3
"""After so many requests that ran out of time, or were never answered by HTTP, a port is left alone."""
_SESSION: Final = "Mcp-Session-Id"
_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much one port may take.

    Attributes:
        connect_seconds: To open a connection, and to shake hands over TLS.
        request_seconds: For one request with its answer.
        port_seconds: For all requests to one port.
        answer_bytes: Longest answer that is read.
    """

    connect_seconds: float = 2.0
    request_seconds: float = 4.0
    port_seconds: float = 30.0
    answer_bytes: int = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class PortResult:
    """What became of one port.

    Attributes:
        endpoint: Which.
        state: ``closed``, ``asked``, or ``unfinished`` if its time was over before every path was asked.
        servers: What answered so far.
        requests: How many were sent.
    """

    endpoint: Endpoint
    state: Literal["closed", "asked", "unfinished"]
    servers: tuple[FoundServer, ...] = ()
    requests: int = 0


class Pace:
    """Lets through at most so many connections and requests a second, evenly. Belongs to one event loop."""

    def __init__(self, per_second: float) -> None:
        """Begin."""
        self._gap = 1 / per_second
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for a turn."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        at = max(now, self._next)
        self._next = at + self._gap
        if at > now:
            await asyncio.sleep(at - now)


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _StalledError(Exception):
    """A port lets requests run out of time."""


class _NoHTTPError(Exception):
    """A port answers with something that is no HTTP."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    challenges: tuple[str, ...]
    message: Mapping[str, Any] | None


class Prober:
    """Asks ports. Belongs to one event loop; use it as a context."""

    def __init__(self, limits: Limits, pace: Pace) -> None:
        """Take the bounds."""
        self._limits = limits
        self._pace = pace
        self._tls = _trusting()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Begin."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0, force_close=True, use_dns_cache=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_seconds),
            skip_auto_headers=("User-Agent",),
            headers={"User-Agent": "tallystick-discover"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        assert self._session is not None
        await self._session.close()

    async def ask(self, endpoint: Endpoint, paths: tuple[str, ...]) -> PortResult:
        """Return what a port answered; never raises for what a server does."""
        scheme = await self._scheme(endpoint)
        if scheme is None:
            return PortResult(endpoint=endpoint, state="closed")
        assert self._session is not None
        port = _Port(self._session, self._limits, self._pace, f"{scheme}://{endpoint.authority}")
        state: Literal["asked", "unfinished"] = "asked"
        try:
            async with asyncio.timeout(self._limits.port_seconds):
                await port.ask_all(paths)
        except (TimeoutError, _StalledError):
            state = "unfinished"
        except _NoHTTPError:
            pass  # nothing more is to be learnt here
        return PortResult(endpoint=endpoint, state=state, servers=tuple(port.found), requests=port.requests)

    async def _scheme(self, endpoint: Endpoint) -> Literal["http", "https"] | None:
        """Return whether an open port speaks TLS; None if it is closed."""
        await self._pace.turn()
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        except (OSError, TimeoutError, UnicodeError):
            return None
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                await writer.start_tls(self._tls, server_hostname=endpoint.host)
        except (OSError, TimeoutError, ValueError):
            return "http"
        else:
            return "https"
        finally:
            # A stranger may never close its side: the connection is let go of, and nobody waits for it.
            writer.transport.abort()


class _Port:
    """The requests to one port, and what they found."""

    def __init__(self, session: aiohttp.ClientSession, limits: Limits, pace: Pace, origin: str) -> None:
        self._session = session
        self._limits = limits
        self._pace = pace
        self._origin = origin
        self.found: list[FoundServer] = []
        self.requests = 0
        self._extra = 0
        self._stalls = 0
        self._broken = 0
        self._speaks_http = False

    async def _turn(self) -> None:
        """Wait for a turn, unless the port has used up what patience there is."""
        if self._stalls >= _MAX_STALLS:
            raise _StalledError
        if self._broken >= _MAX_STALLS and not self._speaks_http:
            raise _NoHTTPError
        self.requests += 1
        await self._pace.turn()

    async def ask_all(self, paths: tuple[str, ...]) -> None:
        waiting, seen = list(paths), set(paths)
        while waiting:
            path = waiting.pop(0)
            further = await self._path(path)
            if further is not None and further not in seen and self._extra < _MAX_EXTRA_PATHS:
                self._extra += 1
                seen.add(further)
                waiting.append(further)
        await self._merge()

    async def _path(self, path: str) -> str | None:
        """Ask one path; returns where within the port it redirects to."""
        stateless, first = await self._handshake(path, "stateless")
        if first is not None and stateless is None:
            if first.status in _NOTHING_THERE:
                return None
            if first.status in _REDIRECTS:
                return self._within(path, first.headers.get("Location", ""))
            if first.status == 401:  # noqa: PLR2004  # Unauthorized
                await self._guarded(path, first)
                return None
        stateful, second = await self._handshake(path, "stateful")
        shown = [one for one in (stateful, stateless) if one is not None]
        if shown:
            self.found.append(_server(self._origin + path, "streamable_http", shown))
        elif second is not None and second.status == 401:  # noqa: PLR2004  # Unauthorized
            await self._guarded(path, second)
        elif first is not None or second is not None:
            await self._old_transport(path)
        return None

    def _within(self, path: str, place: str) -> str | None:
        """Return a path within this port; None for every other place (see INVARIANT)."""
        try:
            parts = urlsplit(urljoin(self._origin + path, place))
            same = f"{parts.scheme}://{parts.netloc}".lower() == self._origin.lower()
        except ValueError:
            return None
        if not same or not parts.path.startswith("/"):
            return None
        return parts.path + (f"?{parts.query}" if parts.query else "")

    # --- handshakes

    async def _handshake(self, path: str, era: Era) -> tuple[Handshake | None, _Answer | None]:
        request_id = secrets.token_hex(8)
        body = discover_request(request_id) if era == "stateless" else initialize_request(request_id)
        headers = DISCOVER_HEADERS if era == "stateless" else INITIALIZE_HEADERS
        answer = await self._request("POST", path, headers, body, lambda one: judge(one, request_id, era) is not None)
        if answer is None:
            return None, None
        shown = judge(answer.message, request_id, era)
        session = answer.headers.get(_SESSION)
        if shown is not None and session:
            # What the handshake opened is closed again, so that a scan leaves no session behind.
            ending = {_SESSION: session, "MCP-Protocol-Version": shown.revisions[0]}
            await self._request("DELETE", path, ending, None, _first)
        return shown, answer

    async def _old_transport(self, path: str) -> None:
        """Ask for a stream that names an endpoint, and shake hands over both: HTTP with SSE, of 2024-11-05."""
        request_id = secrets.token_hex(8)
        await self._turn()
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        try:
            async with (
                asyncio.timeout(self._limits.request_seconds),
                self._session.get(self._origin + path, headers=headers, allow_redirects=False) as response,
            ):
                if response.status != 200 or response.content_type != "text/event-stream":  # noqa: PLR2004  # OK
                    return
                asked = False
                async for name, data in self._events(response):
                    if not asked:
                        place = self._within(path, data.strip()) if name == "endpoint" else None
                        if place is None:
                            return  # a stream of something else: the endpoint comes first, and lies on this port
                        asked = True
                        await self._request("POST", place, INITIALIZE_HEADERS, initialize_request(request_id), _first)
                    elif shown := judge(message_of(data), request_id, "stateful"):
                        self.found.append(_server(self._origin + path, "sse", [shown]))
                        return
        except TimeoutError:
            self._stalls += 1
        except (aiohttp.ClientError, OSError, ValueError):
            return

    async def _guarded(self, path: str, answer: _Answer) -> None:
        """Look what a server that wants a token protects; its own metadata must name this very path."""
        named = metadata_place(answer.challenges)
        place = self._within(path, named) if named is not None else None
        # A proxy's public name stands in the challenge: the same document is then where RFC 9728 says, on this port.
        default = _WELL_KNOWN + (path if path != "/" else "")
        for where in dict.fromkeys(one for one in (place, default) if one is not None):
            got = await self._request("GET", where, {"Accept": "application/json"}, None, _first)
            if got is not None and got.status == 200 and names_resource(got.message, path):  # noqa: PLR2004  # OK
                likely = FoundServer(url=self._origin + path, transport="unknown", needs_token=True, certainty="likely")
                self.found.append(likely)
                return

    # --- one request

    async def _request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        wanted: Callable[[Mapping[str, Any]], bool],
    ) -> _Answer | None:
        """Return the answer to one request; None if there is none within the bounds."""
        await self._turn()
        try:
            async with (
                asyncio.timeout(self._limits.request_seconds),
                self._session.request(
                    method,
                    self._origin + path,
                    headers={"Accept-Encoding": "identity", **headers},
                    data=body,
                    allow_redirects=False,
                ) as response,
            ):
                self._speaks_http = True
                message = await self._message(response, wanted)
                challenges = tuple(response.headers.getall("WWW-Authenticate", ()))
                return _Answer(response.status, response.headers, challenges, message)
        except TimeoutError:
            self._stalls += 1
            return None
        except (aiohttp.ClientError, OSError, ValueError):
            self._broken += 1
            return None

    async def _message(
        self, response: aiohttp.ClientResponse, wanted: Callable[[Mapping[str, Any]], bool]
    ) -> Mapping[str, Any] | None:
        if response.content_type == "text/event-stream":
            async for _, data in self._events(response):
                message = message_of(data)
                if message is not None and wanted(message):
                    return message
            return None
        if "json" not in response.content_type:
            return None
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._limits.answer_bytes:
                return None
        return message_of(body.decode("utf-8", "replace"))

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str]]:
        """Yield the events of a stream, as long as it stays within the bounds."""
        data, told = bytearray(), 0
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > self._limits.answer_bytes:
                return
            if b"\n" not in chunk and b"\r" not in chunk:
                continue
            events = list(events_of(data.decode("utf-8", "replace")))
            for event in events[told:]:
                yield event
            told = len(events)

    # --- one server under many paths

    async def _merge(self) -> None:
        """Keep one of several finds that are one server, which answers under whatever path it is asked."""
        alike: dict[tuple[object, ...], list[FoundServer]] = {}
        for one in self.found:
            alike.setdefault((one.name, one.version, one.transport, one.certainty, one.eras), []).append(one)
        if max(map(len, alike.values()), default=0) < 2:  # noqa: PLR2004  # nothing is there twice
            return
        nowhere = f"/{secrets.token_hex(8)}"
        shown, _ = await self._handshake(nowhere, "stateless")
        if shown is None:
            shown, _ = await self._handshake(nowhere, "stateful")
        if shown is None:
            return
        for group in alike.values():
            if group[0].transport == "streamable_http" and (group[0].name, group[0].version) == (
                shown.name,
                shown.version,
            ):
                first = replace(group[0], url=f"{self._origin}/")
                self.found = [one for one in self.found if one not in group]
                self.found.append(first)


def _first(_message: Mapping[str, Any]) -> bool:
    return True


def _server(url: str, transport: Transport, shown: list[Handshake]) -> FoundServer:
    told = next((one for one in shown if one.name), shown[0])
    return FoundServer(
        url=url,
        transport=transport,
        eras=tuple(sorted({one.era for one in shown})),
        revisions=tuple(sorted({revision for one in shown for revision in one.revisions})),
        name=told.name,
        version=told.version,
    )
