"""The way to the MCP servers: what every one offers (`ServerSide`), and the one over HTTP (`Upstream`).

A message goes on byte for byte as it was received. Of its headers only those go on that belong to MCP or to tracing: an
``Authorization`` header was meant for the gateway and is never passed on, cookies and forwarding headers neither. What
the gateway presents to a server is the server's own setting.

No redirect is followed (it would take a judged call to a place that was not judged), nothing is sent twice, no cookie
is kept, no proxy is taken from the environment.

Source: RFC 9110 section 7.6 (intermediaries); Model Context Protocol, revision 2026-07-28, "Token Passthrough".
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Final, Literal, Protocol, Self, TypeAlias

import aiohttp
from multidict import CIMultiDict

from enforcement.config import Limits, ServerSettings
from enforcement.mcp_headers import RawHeaders
from enforcement.server_pins import ServerIdentityError
from enforcement.tls_client import ClientContext, group_of
from enforcement.upstream_tokens import UpstreamTokens
from ledger.errors import UpstreamError

__all__ = ["AnswerBody", "ServerAnswer", "ServerSide", "Upstream", "Verb", "answered_by", "forwarded_headers"]

_FORWARDED: Final = frozenset(
    {
        "accept",
        "accept-language",
        "baggage",
        "content-type",
        "mcp-method",
        "mcp-name",
        "mcp-protocol-version",
        "traceparent",
        "tracestate",
        "user-agent",
    }
)
_UNAUTHORIZED: Final = 401
_PARAM_PREFIX: Final = "mcp-param-"
_NOTHING: Final[Mapping[str, str]] = {}
Verb: TypeAlias = Literal["POST", "GET", "DELETE"]
# Shorter than the idle time-out of common servers, so that a call does not meet a connection that is being closed.
_KEEPALIVE_SECONDS: Final = 4.0


def forwarded_headers(lines: RawHeaders, authorization: str | None) -> CIMultiDict[str]:
    """Return the headers that go on to a server.

    ``Mcp-Param-*`` headers are forwarded without being understood, as the specification asks of intermediaries.

    Args:
        lines: The client's header lines.
        authorization: What the gateway itself presents to the server.
    """
    headers: CIMultiDict[str] = CIMultiDict()
    for raw_name, raw_value in lines:
        name = raw_name.decode("latin-1").lower()
        if (name in _FORWARDED or name.startswith(_PARAM_PREFIX)) and raw_value.isascii():
            headers.add(name, raw_value.decode("ascii").strip(" \t"))
    headers["accept-encoding"] = "identity"  # what is recorded is what was received
    if authorization is not None:
        headers["authorization"] = authorization
    return headers


class AnswerBody(Protocol):
    """The body of a server's answer as it arrives; `aiohttp.StreamReader` is one."""

    def iter_any(self) -> AsyncIterator[bytes]:
        """Yield what has arrived, as soon as it has."""
        ...

    def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        """Yield what has arrived, at most ``n`` bytes at once."""
        ...


class ServerAnswer(Protocol):
    """A server's answer whose head has arrived; `aiohttp.ClientResponse` is one."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Header lines, by name without regard to letter case."""
        ...

    @property
    def content_type(self) -> str:
        """Media type without parameters; ``application/octet-stream`` if there is none."""
        ...

    @property
    def content(self) -> AnswerBody:
        """The body."""
        ...


class ServerSide(Protocol):
    """The way to the servers, whatever it is made of."""

    def send(
        self,
        server: ServerSettings,
        lines: RawHeaders,
        body: bytes,
        *,
        verb: Verb = "POST",
        added: Mapping[str, str] = _NOTHING,
    ) -> AbstractAsyncContextManager[ServerAnswer]:
        """Send a message; the answer's body is read inside the context, and what it holds is let go with it.

        Args:
            server: Where to.
            lines: The client's header lines.
            body: The client's body bytes; empty where it is no POST.
            verb: The HTTP method: GET opens a stream of a stateful session, DELETE ends the session.
            added: Headers of the gateway's own, by name in lower case: the server's session, the last event. They stand
                in the place of the client's.

        Raises:
            UpstreamError: On the way there or while the answer is read; the text is the outcome's reason.
        """
        ...


class _Response(aiohttp.ClientResponse):
    """An answer that knows the key agreement of the connection it came by, also after that was given back."""

    tls_group: str | None = None

    async def start(self, connection: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        transport = connection.transport
        if transport is not None:
            self.tls_group = group_of(transport.get_extra_info("ssl_object"))
        return await super().start(connection)


def answered_by(answer: ServerAnswer) -> str | None:
    """Return the key agreement of the connection that an answer came by; None without TLS, or if it is not known."""
    return answer.tls_group if isinstance(answer, _Response) else None


class Upstream:
    """Pooled connections to all servers; an asynchronous context, inside of which they live."""

    def __init__(
        self,
        limits: Limits,
        authorizations: Mapping[tuple[str, str | None], str],
        tls: Callable[[ServerSettings], ClientContext] | None = None,
        *,
        tokens: UpstreamTokens | None = None,
        streams: int = 0,
    ) -> None:
        """Take the bounds.

        Args:
            limits: Time-outs and the number of connections.
            authorizations: Server's name and address → ``Authorization`` value that the gateway presents to it.
            tls: Returns what TLS shows and asks for on the way to a server; None for the standard library's defaults.
            tokens: The gateway's own access tokens, for servers that want one instead.
            streams: Connections beside those of calls.
        """
        self._tokens = tokens
        self._limits = limits
        # Each call has room for one more message: a client's answer to what the server asks for the sake of the call.
        self._connections = 2 * limits.concurrent_calls + streams
        self._tls = tls
        self.authorize(authorizations)
        self._session: aiohttp.ClientSession | None = None

    def authorize(self, authorizations: Mapping[tuple[str, str | None], str]) -> None:
        """Present other values to servers from the next call on.

        Args:
            authorizations: Server's name and address → ``Authorization`` value.
        """
        self._authorizations = dict(authorizations)

    async def __aenter__(self) -> Self:
        limits = self._limits
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=_KEEPALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(
                total=limits.upstream_total_seconds,
                sock_connect=limits.upstream_connect_seconds,
                sock_read=limits.upstream_idle_seconds,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept"),
            response_class=_Response,
        )
        # aiohttp sends GET and DELETE once more if a pooled connection ends under them; its own test client does this.
        self._session._retry_connection = False  # noqa: SLF001  # there is no public setting
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def send(
        self,
        server: ServerSettings,
        lines: RawHeaders,
        body: bytes,
        *,
        verb: Verb = "POST",
        added: Mapping[str, str] = _NOTHING,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a message; the answer's body is read inside the context, and its connection is closed with it.

        Args:
            server: Where to.
            lines: The client's header lines.
            body: The client's body bytes.
            verb: The HTTP method.
            added: Headers of the gateway's own; see `ServerSide.send`.

        Raises:
            UpstreamError: ``upstream_credentials`` if the gateway has none to present; ``upstream_unreachable``,
                ``upstream_tls``, ``server_identity`` (it is not the server that is pinned), ``upstream_timeout`` or
                ``upstream_disconnected``, on the way there or while the answer is read.
        """
        assert self._session is not None  # used inside its context
        if server.url is None:
            raise UpstreamError("upstream_unreachable")
        headers = forwarded_headers(lines, await self._authorization(server))
        headers.update(added)
        data = io.BytesIO(body) if verb == "POST" else None  # a large one is written piece by piece
        try:
            async with self._session.request(
                verb, server.url, data=data, headers=headers, allow_redirects=False, ssl=self._context(server)
            ) as response:
                if response.status == _UNAUTHORIZED and self._tokens is not None:
                    self._tokens.refused(server)
                yield response
        except TimeoutError as error:
            raise UpstreamError("upstream_timeout") from error
        except aiohttp.ClientSSLError as error:
            refused = error.certificate_error if isinstance(error, aiohttp.ClientConnectorCertificateError) else None
            pinned = isinstance(refused, ServerIdentityError)
            raise UpstreamError("server_identity" if pinned else "upstream_tls") from error
        except aiohttp.ClientConnectorError as error:
            raise UpstreamError("upstream_unreachable") from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamError("upstream_disconnected") from error

    def _context(self, server: ServerSettings) -> ClientContext | bool:
        if self._tls is None or not (server.url or "").startswith("https:"):
            return True
        return self._tls(server)

    async def _authorization(self, server: ServerSettings) -> str | None:
        # INVARIANT: a call that began under another list goes where that one said; what is meant for the place that
        # the name stands for by now is not shown there.
        if server.authorization is not None:
            presented = self._authorizations.get((server.name, server.url))
            if presented is None:
                raise UpstreamError("upstream_credentials")
            return presented
        if server.oauth is None:
            return None
        if self._tokens is None:
            raise UpstreamError("upstream_credentials")
        return await self._tokens.authorization(server)
