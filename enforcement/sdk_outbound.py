"""What a server of the official SDK sends its client of its own accord, judged before it leaves the server's process.

The SDK hands each handler a session with two channels: one for the message that is handled, one for the connection as
a whole. Both are replaced by channels that judge:

- a *request* (sampling, elicitation, roots, ping) is one decision, and the client's answer is its outcome, recorded
  before the handler has it. If it is denied the client never gets it, and the handler gets an error;
- *notifications* are judged once for each method and channel (`enforcement.notices`); of a method that is denied none
  goes out, and the handler learns nothing, as of any notification that nobody reads.

A message of the connection as a whole is about the client whose message the connection carried last: it is that
client who gets it.

INVARIANT: what is sent is what was judged: it is read back from the bytes that the decision is about.

What the SDK's dispatcher sends by itself is not seen here: answers, which are judged as such (`enforcement.sdk`), and
``notifications/cancelled`` for a request of the server's that was given up, which was judged and has its outcome.

Source: `mcp.server.session.ServerSession`, `mcp.server.connection.Connection`, `mcp.shared.dispatcher` of the official
SDK, 2.3.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

from enforcement.answering import released
from enforcement.core import Running
from enforcement.notices import Notices
from enforcement.refusals import ErrorCode
from enforcement.revisions import STATELESS
from enforcement.sdk_answers import answer_bytes, ended, error_bytes, error_code, message_bytes, settled_answer
from enforcement.stream_inspection import StreamInspection
from enforcement.verdicts import Completion, Denied, Inbound, Permitted
from ledger.errors import ConfigError
from policies.signals import Signals

if TYPE_CHECKING:
    import anyio
    from mcp.server.connection import Connection
    from mcp.server.context import ServerRequestContext
    from mcp.shared.dispatcher import CallOptions, DispatchContext, Outbound
    from mcp.shared.message import MessageMetadata

__all__ = ["Guard", "RequestChannel", "SDKErrors", "guarded", "load_errors"]

_PROGRESS: Final = "notifications/progress"
_DIRECT: Final = "direct"
"""The SDK's transport of one process, where progress is a function call and needs no token."""
_CLOSED: Final = -32000
_WITHDRAWN: Final = "server_cancelled"
_GONE: Final = "client_disconnected"


@dataclass(frozen=True, slots=True)
class SDKErrors:
    """The SDK's exceptions; the SDK is no dependency of ours.

    Attributes:
        answer: A JSON-RPC error, `mcp.shared.exceptions.MCPError`.
        no_channel: A client that cannot be asked, `mcp.shared.exceptions.NoBackChannelError`.
    """

    answer: type[Exception]
    no_channel: type[Exception]


def load_errors() -> SDKErrors:
    """Return the SDK's exceptions.

    Raises:
        ConfigError: It is not installed, or not a version whose channels are known: what its servers ask of clients
            could not be judged.
    """
    try:
        from mcp.server.connection import Connection
        from mcp.server.session import ServerSession
        from mcp.shared.exceptions import MCPError, NoBackChannelError
    except ImportError as error:
        raise ConfigError("the official SDK is not installed, or not a version that has middleware: mcp 2.3") from error
    channel: Any = object()
    connection = Connection.for_loop(channel)
    session = ServerSession(channel, connection)
    held = (getattr(session, "_request_outbound", None), getattr(session, "_connection", None), connection.outbound)
    if held != (channel, connection, channel):
        raise ConfigError("this version of the official SDK sends what servers ask in another way than 2.3")
    return SDKErrors(MCPError, NoBackChannelError)


@dataclass(slots=True, kw_only=True)
class Guard:
    """What the channels of one server share. Owned by the event loop.

    Attributes:
        running: The enforcement point.
        errors: The SDK's exceptions.
        most_asked: Most requests of the server that wait for one client's answers.
        recording: Tasks that must not be cancelled.
    """

    running: Running
    errors: SDKErrors
    most_asked: int
    recording: set[asyncio.Task[None]] = field(default_factory=set)

    async def complete(self, permitted: Permitted, completion: Completion) -> bool:
        """Record what became of a permitted message; tell whether it is durable."""
        return await released(self.running.passage, permitted, completion)

    async def see_through(self, notices: Notices) -> None:
        """Close a channel's notifications, even if the caller is cancelled meanwhile."""
        task = asyncio.create_task(notices.close())
        self.recording.add(task)
        task.add_done_callback(self.recording.discard)
        await asyncio.shield(task)


class _Asked:
    """How many requests of the server wait for one client, and which id the next one has."""

    def __init__(self) -> None:
        self.waiting = 0
        self.last_id = 0


class _Channel:
    """A way to the client: `mcp.shared.dispatcher.Outbound`. Owned by the event loop.

    Attributes:
        about: The client's message that says who gets what is sent.
    """

    def __init__(
        self, inner: Outbound, guard: Guard, about: Inbound, version: Callable[[], str], asked: _Asked
    ) -> None:
        self._inner = inner
        self._guard = guard
        self.about = about
        self._version = version
        self.asked = asked
        passage = guard.running.passage
        self._notices = Notices(passage.judge, guard.complete, passage.standing_against, self._looked, self._count)
        self._closed = False
        self._passing = asyncio.Lock()
        self.looking: StreamInspection[CallOptions | None] | None = None

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Judge a request; ask the client, and record what it answers, if it may be asked."""
        if self._closed or self._version() in STATELESS or not getattr(self._inner, "can_send_request", True):
            raise self._guard.errors.no_channel(method)
        self.asked.last_id += 1
        body = message_bytes(method, params, self.asked.last_id)
        overloaded = self.asked.waiting >= self._guard.most_asked
        self.asked.waiting += 1
        try:
            verdict = await self._guard.running.passage.judge(await self._inbound(body, overloaded=overloaded))
            if isinstance(verdict, Denied):
                raise self._guard.errors.answer(ErrorCode.DENIED, "Denied")
            await self._let_go()
            return await self._ask(verdict, method, _params(body), opts)
        finally:
            self.asked.waiting -= 1

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Send a notification, if those of its method may pass."""
        body = message_bytes(method, params, None)
        if await self._notices.admits(method, lambda: self._inbound(body)):
            await self._pass_on(method, body, opts)

    async def _pass_on(self, method: str, body: bytes, opts: CallOptions | None) -> None:
        """Send what may go now of the notifications; see `enforcement.stream_inspection`."""
        async with self._passing:  # in the order in which they came
            if self._closed:  # while this one waited: the outcome has counted without it
                return
            if self.looking is None:
                await self._send(body, opts)
                return
            for shown, options in await self.looking.take(method, body, opts):
                if shown is not None:
                    await self._send(shown, options)

    async def _let_go(self) -> None:
        """Send the notifications that were held back: something else follows them."""
        async with self._passing:
            for shown, options in () if self.looking is None else self.looking.flush():
                if shown is not None:
                    await self._send(shown, options)

    def _looked(self) -> tuple[Signals | None, int]:
        return (None, 0) if self.looking is None else (self.looking.signals, self.looking.redacted)

    def _count(self, method: str) -> int | None:
        return None if self.looking is None else self.looking.let_go(method)

    async def _send(self, body: bytes, opts: CallOptions | None) -> None:
        message = json.loads(body)
        await self._inner.notify(message["method"], message.get("params"), opts)

    async def close(self) -> None:
        """Record what passed; nothing passes any more."""
        if not self._closed:
            await self._let_go()
        self._closed = True
        if self._notices.end():
            await self._guard.see_through(self._notices)

    async def _inbound(self, body: bytes, *, overloaded: bool = False) -> Inbound:
        about = self.about
        admission = self._guard.running.admission
        return replace(
            about,
            body=body,
            parsed=await admission.read_from_server(body, about.server, negotiated=self._version()),
            continues=None,
            complete=True,
            overloaded=overloaded,
            direction="server",
        )

    async def _ask(
        self, permitted: Permitted, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None
    ) -> dict[str, Any]:
        started = perf_counter()
        passage, errors = self._guard.running.passage, self._guard.errors
        try:
            result = await self._inner.send_raw_request(method, params, opts)
        except asyncio.CancelledError:
            await released(passage, permitted, ended(started, "cancelled", _WITHDRAWN))
            raise
        except Exception as error:
            if isinstance(error, errors.no_channel) or _is_closed(error, errors.answer):
                if not await released(passage, permitted, ended(started, "cancelled", _GONE)):
                    raise self._withheld() from error
                raise
            if not await self._passes(permitted, error_bytes(permitted, error, errors.answer), started):
                raise self._withheld() from None
            raise
        if not await self._passes(permitted, answer_bytes(permitted, result), started):
            raise self._withheld()
        return result

    async def _passes(self, permitted: Permitted, answer: bytes, started: float) -> bool:
        """Look through the client's answer and record it; tell whether the server may have it."""
        passage = self._guard.running.passage
        settled = await settled_answer(passage, permitted, answer, started=started, given_up=_WITHDRAWN)
        return settled is not None and not settled.replaced

    def _withheld(self) -> Exception:
        return self._guard.errors.answer(ErrorCode.RESULT_WITHHELD, "The answer was withheld, or could not be recorded")


def _is_closed(error: Exception, known: type[Exception]) -> bool:
    """Whether it is what the SDK says of a connection that is gone, and no more: a client may choose code and words."""
    if error_code(error, known) != _CLOSED:
        return False
    return str(error) == "Connection closed" and getattr(getattr(error, "error", None), "data", None) is None


class RequestChannel(_Channel):
    """The way back of one message of the client's: `mcp.shared.dispatcher.DispatchContext`."""

    def __init__(
        self,
        inner: DispatchContext[Any],
        guard: Guard,
        about: Inbound,
        version: Callable[[], str],
        asked: _Asked,
        token: int | str | None,
    ) -> None:
        super().__init__(inner, guard, about, version, asked)
        self._context = inner
        self._token = token

    @property
    def transport(self) -> object:
        """What the transport says of the message."""
        return self._context.transport

    @property
    def can_send_request(self) -> bool:
        """Whether the client can be asked."""
        return not self._closed and self._context.can_send_request

    @property
    def request_id(self) -> int | str | None:
        """The message's id; None for a notification."""
        return self._context.request_id

    @property
    def message_metadata(self) -> MessageMetadata:
        """What the transport attached to the message."""
        return self._context.message_metadata

    @property
    def cancel_requested(self) -> anyio.Event:
        """Set when the client withdraws the message."""
        return self._context.cancel_requested

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Report progress of the client's message, if it wants to know and such reports may pass."""
        if self._token is None and getattr(self.transport, "kind", None) != _DIRECT:
            return
        told = {"progressToken": self._token, "progress": progress, "total": total, "message": message}
        body = message_bytes(_PROGRESS, {name: value for name, value in told.items() if value is not None}, None)
        if await self._notices.admits(_PROGRESS, lambda: self._inbound(body)):
            await self._pass_on(_PROGRESS, body, None)

    async def _send(self, body: bytes, opts: CallOptions | None) -> None:
        message = json.loads(body)
        if message["method"] != _PROGRESS:
            await super()._send(body, opts)
            return
        told = message["params"]
        await self._context.progress(told["progress"], told.get("total"), told.get("message"))


def guarded(ctx: ServerRequestContext[Any, Any], guard: Guard, about: Inbound, permitted: Permitted) -> RequestChannel:
    """Have all that is sent while a message of the client's is handled judged.

    Args:
        ctx: The message as the SDK hands it over; its session is changed in place.
        guard: What the server's channels share.
        about: The message as it was judged.
        permitted: The verdict on it.

    Returns:
        The message's own channel, to be closed when it is handled.
    """
    session = ctx.session
    connection = session._connection  # noqa: SLF001  # see `load_errors`
    asked = _connection_asked(connection, guard, about, permitted)
    token = _progress_token(ctx.params)
    inner = session._request_outbound  # noqa: SLF001  # likewise
    channel = RequestChannel(inner, guard, about, lambda: connection.protocol_version, asked, token)
    channel.looking = guard.running.passage.stream(permitted)
    session._request_outbound = channel  # noqa: SLF001  # likewise
    return channel


def _connection_asked(connection: Connection, guard: Guard, about: Inbound, permitted: Permitted) -> _Asked:
    """Have what the connection sends as a whole judged, from its first message on."""
    known = connection.outbound
    if isinstance(known, _Channel):
        known.about = about
        return known.asked
    asked = _Asked()
    if connection.has_standalone_channel:
        channel = _Channel(known, guard, about, lambda: connection.protocol_version, asked)
        # Of no call, so that no call's obligations hold for what comes here.
        channel.looking = guard.running.passage.stream(replace(permitted, obligations=frozenset()))
        connection.outbound = channel
        connection.exit_stack.push_async_callback(channel.close)
    return asked


def _params(body: bytes) -> Mapping[str, Any] | None:
    params: Mapping[str, Any] | None = json.loads(body).get("params")
    return params


def _progress_token(params: Mapping[str, Any] | None) -> int | str | None:
    """Return under what token the client wants to hear of progress; None if it does not."""
    meta = (params or {}).get("_meta")
    token = meta.get("progressToken") if isinstance(meta, Mapping) else None
    return token if isinstance(token, int | str) and not isinstance(token, bool) else None
