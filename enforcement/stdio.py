"""A server over standard input and output, with the enforcement point between it and its client.

What is elsewhere: the server's process (`enforcement.child`), lines (`enforcement.lines`), reading messages
(`enforcement.mcp`, `enforcement.server_messages`), deciding and recording (`enforcement.passage`).

Both directions are judged: a client's requests and notifications, and the server's requests; of the server's
notifications the first of each method, whose decision holds for all that follow. The client's answer to a server's
request is that request's outcome. Who the client is, the configuration says: a pipe proves nothing.

INVARIANT: messages go on in the order in which they came, although many are judged at once: each waits for its turn.

INVARIANT: an answer is released once its outcome is durable. Nothing that is recorded waits for a peer that does not
read (`enforcement.outlet`).

INVARIANT: an id is one call: a second request under the id of one that is under way, or was withdrawn and not answered,
is refused, for their answers could not be told apart.

What the server writes that is no message (a greeting, a stack trace) is dropped and counted in the log, and so is an
answer that nobody waits for. A line that is too long could be the answer to any call: all that are open fail.

Source: Model Context Protocol, revisions 2026-07-28 and 2025-11-25, "stdio", "Cancellation" and "Lifecycle".
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter
from typing import Any, Final, Protocol

import structlog

from enforcement.answering import failed_reply, released, settle, withheld_reply
from enforcement.config import Limits
from enforcement.core import Running
from enforcement.identity import Identity
from enforcement.line_waiting import LineWait
from enforcement.lines import Line, LineSplitter, one_line
from enforcement.messages import Kind, Message, Refusal
from enforcement.outlet import Outlet, Sink
from enforcement.refusals import ErrorCode, RefusalReason, RefusedError, RequestId, error_reply
from enforcement.revisions import Direction
from enforcement.server_messages import ServerLine, refusal_to_server, sketch
from enforcement.stream_inspection import StreamInspection
from enforcement.verdicts import Completion, Denied, Inbound, OutcomeStatus, Permitted
from ledger.errors import MalformedError

__all__ = ["Pipe", "StdioWrapper"]

_LOG: Final = structlog.get_logger(__name__)
_CHUNK_BYTES: Final = 64 << 10
_QUEUE_BYTES: Final = 16 << 20
_MAX_LINES: Final = 512
"""Lines of one peer that are in hand at once, at least; then it is not read any further."""
_MAX_NOTICES: Final = 64
"""Methods of a server's notifications that are told apart; further ones are dropped."""
_MAX_WITHDRAWN: Final = 10_000
_INITIALIZE: Final = "initialize"
_LAST_SECONDS: Final = 5.0
"""How long a peer may take for what still waits when all is over."""
_WITHDRAWN: Final = "client_cancelled"
_US_PER_SECOND: Final = 1_000_000


class Source(Protocol):
    """Where bytes come from; `asyncio.StreamReader` is one."""

    async def read(self, n: int) -> bytes:
        """Return the next bytes, at most so many; none at the end."""
        ...


@dataclass(frozen=True, slots=True)
class Pipe:
    """Both ways to one peer.

    Attributes:
        source: What it writes.
        sink: What it reads.
    """

    source: Source
    sink: Sink


@dataclass(frozen=True, slots=True)
class _Answer:
    """The server's answer, which is released after what the server said before it."""

    data: bytes
    before: asyncio.Event


@dataclass(frozen=True, slots=True)
class _Ended:
    """A call ended without an answer."""

    status: OutcomeStatus
    reason: str


@dataclass(slots=True, eq=False)
class _Call:
    """A client's request that is under way; ``over`` once nothing is released of it any more."""

    answer: asyncio.Future[_Answer | _Ended]
    over: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: LineWait | None = None
    started: float = field(default_factory=perf_counter)

    def end(self, how: _Answer | _Ended) -> bool:
        """Say how it ended; return False if that was said before."""
        if self.answer.done():
            return False
        self.answer.set_result(how)
        return True


@dataclass(frozen=True, slots=True)
class _Dialogue:
    """What the server has asked; see `enforcement.verdicts.Dialogue`. Calls and events are known elsewhere."""

    asked: dict[RequestId, Permitted]

    def awaits(self, request_id: RequestId) -> bool:
        return request_id in self.asked

    def take(self, request_id: RequestId) -> Permitted:
        return self.asked.pop(request_id)

    def in_flight(self, _: RequestId) -> bool:
        return False

    def has_sent(self, _: str) -> bool:
        return False


class StdioWrapper:
    """Runs between one client and one server until one of them ends. Used once, owned by the event loop."""

    def __init__(
        self, running: Running, limits: Limits, *, server: str, identity: Identity, client: Pipe, child: Pipe
    ) -> None:
        """Take the parts.

        Args:
            running: The enforcement point.
            limits: Bounds.
            server: Which server of the configuration it is.
            identity: Who the client is.
            client: The way to the client.
            child: The way to the server.
        """
        self._passage = running.passage
        self._admission = running.admission
        self._limits = limits
        self._server = server
        self._identity = identity
        self._client, self._child = client, child
        queue = max(_QUEUE_BYTES, 4 * limits.answer_bytes)
        self._to_client = Outlet(client.sink, max_bytes=queue, idle_seconds=limits.upstream_idle_seconds)
        self._to_child = Outlet(child.sink, max_bytes=queue, idle_seconds=limits.upstream_idle_seconds)
        self._revision: str | None = None
        self._calls: dict[RequestId, _Call] = {}
        self._withdrawn: dict[RequestId, None] = {}
        self._asked: dict[RequestId, Permitted] = {}
        self._notices: dict[str, Permitted | None] = {}
        self._passed_on: Counter[str] = Counter()
        self._looking: StreamInspection[str] | None = None  # through notifications, from the first one on
        self._tasks: set[asyncio.Task[None]] = set()
        room = max(_MAX_LINES, 2 * limits.concurrent_calls)
        self._room = {"client": asyncio.Semaphore(room), "server": asyncio.Semaphore(room)}
        self._turns = {"client": _passed(), "server": _passed()}
        self._halt = asyncio.Event()
        self._ended: _Ended | None = None
        self._over = asyncio.Event()

    def halt(self) -> None:
        """End as soon as may be: what is under way is cancelled and recorded."""
        self._halt.set()

    async def run(self, *, stop_seconds: float) -> None:
        """Pass messages on until a peer ends, or `halt`; then record what was under way.

        Args:
            stop_seconds: How long the server may go on answering once the client has no more to say.
        """
        client = asyncio.create_task(self._read("client", self._client.source, self._limits.body_bytes))
        server = asyncio.create_task(self._read("server", self._child.source, self._limits.answer_bytes))
        gone = [asyncio.create_task(event.wait()) for event in self._ends()]
        try:
            await asyncio.wait({client, server, *gone}, return_when=asyncio.FIRST_COMPLETED)
            if client.done() and not server.done() and not self._broken():
                await self._let_finish(server, gone, stop_seconds)
        finally:
            await self._finish([client, server, *gone], server_ended=server.done())

    def _ends(self) -> list[asyncio.Event]:
        return [self._halt, self._to_client.given_up, self._to_child.given_up]

    def _broken(self) -> bool:
        return any(event.is_set() for event in self._ends())

    async def _let_finish(
        self, server: asyncio.Task[None], gone: Sequence[asyncio.Task[Any]], stop_seconds: float
    ) -> None:
        """Let what the client has said go on, end the server's input, and wait for what it still answers."""
        try:
            async with asyncio.timeout(stop_seconds):
                await self._turns["client"].wait()
                await self._to_child.close(stop_seconds)
                await asyncio.wait({server, *gone}, return_when=asyncio.FIRST_COMPLETED)
                while self._tasks and not self._broken():
                    await asyncio.wait({*self._tasks, *gone}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            _LOG.warning("server_goes_on", server=self._server)

    async def _finish(self, readers: list[asyncio.Task[Any]], *, server_ended: bool) -> None:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)
        if server_ended and not self._broken():
            self._end_calls(_Ended("failed", "upstream_disconnected"))
        elif self._halt.is_set():
            self._end_calls(_Ended("cancelled", "gateway_stopped"))
        else:
            self._end_calls(_Ended("cancelled", "client_disconnected"))
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for asked in self._asked.values():
            await released(self._passage, asked, Completion(status="cancelled", reason=self._reason()))
        self._let_go()
        looking = self._looking
        for noticed in self._notices.values():
            if noticed is not None:
                passed = self._passed_on[noticed.message.method]
                completion = Completion(
                    status="completed",
                    messages=passed,
                    signals=None if looking is None else looking.signals,
                    redacted=0 if looking is None else looking.redacted,
                )
                await released(self._passage, noticed, completion)
        await self._to_child.close(_LAST_SECONDS)
        await self._to_client.close(_LAST_SECONDS)

    def _end_calls(self, ended: _Ended) -> None:
        self._ended = ended
        self._over.set()
        for call in self._calls.values():
            call.end(ended)

    def _reason(self) -> str:
        return "client_disconnected" if self._ended is None else self._ended.reason

    # --- lines

    async def _read(self, side: Direction, source: Source, max_bytes: int) -> None:
        async for line in _lines(source, max_bytes):
            await self._room[side].acquire()
            before, turn = self._turns[side], asyncio.Event()
            self._turns[side] = turn
            try:
                going_on = (
                    await self._take_from_client(line, before, turn)
                    if side == "client"
                    else await self._take_from_server(line, before)
                )
            except BaseException:
                turn.set()
                raise
            self._start(side, going_on, turn)

    def _start(self, side: Direction, work: Coroutine[Any, Any, None], turn: asyncio.Event) -> None:
        async def run() -> None:
            try:
                await work
            except Exception as error:  # noqa: BLE001  # one line must not end the others
                _LOG.error("line_failed", side=side, error=type(error).__name__)
            finally:
                turn.set()
                self._room[side].release()

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- what the client says

    async def _take_from_client(
        self, line: Line, before: asyncio.Event, turn: asyncio.Event
    ) -> Coroutine[Any, Any, None]:
        """Read a line in its turn, so that ids and revision are those of the moment; return what becomes of it."""
        parsed = await self._admission.read(line.data, self._server, negotiated=self._revision)
        overloaded = len(self._calls) >= self._limits.concurrent_calls
        if isinstance(parsed, Message):
            parsed = self._objection(parsed) or parsed
        if isinstance(parsed, Message) and parsed.kind is Kind.RESPONSE and line.whole:
            answering = self._inbound(line, parsed, "client", overloaded=False)
            return self._pass_answer(replace(answering, dialogue=_Dialogue(self._asked)), line, before, turn)
        call = None
        if isinstance(parsed, Message) and parsed.request_id is not None and line.whole:
            call = self._calls[parsed.request_id] = _Call(asyncio.get_running_loop().create_future())
        inbound = self._inbound(line, parsed, "client", overloaded=overloaded)
        return self._pass_message(inbound, line, call, before, turn)

    def _objection(self, message: Message) -> Refusal | None:
        """Return why a message that can be read has no place in this conversation."""
        if message.kind is Kind.RESPONSE:
            known = message.request_id in self._asked
            return (
                None if known else _refusal(message, RefusalReason.NOT_A_REQUEST, "The server asked nothing of this id")
            )
        if message.request_id is None:
            return None
        if message.request_id in self._calls or message.request_id in self._withdrawn:
            return _refusal(message, RefusalReason.MALFORMED, "The id is that of a call under way")
        return None

    async def _pass_message(
        self, inbound: Inbound, line: Line, call: _Call | None, before: asyncio.Event, turn: asyncio.Event
    ) -> None:
        verdict = None
        try:
            if call is not None:
                call.waiting = LineWait(self._to_client.put, self._over, self._reason, before, turn)
                if isinstance(inbound.parsed, Message):
                    call.waiting.on_held = partial(self._note_revision, inbound.parsed)
            verdict = await self._passage.judge(replace(inbound, waiting=None if call is None else call.waiting))
            waited = not before.is_set()
            await before.wait()
            if isinstance(verdict, Denied):
                self._deny(inbound.parsed, verdict, line)
                return
            await self._forward(verdict, line, call, turn, waited=waited)
        finally:
            if call is not None:
                assert isinstance(inbound.parsed, Message)
                assert inbound.parsed.request_id is not None
                del self._calls[inbound.parsed.request_id]
                call.over.set()

    def _deny(self, parsed: Message | Refusal | None, denied: Denied, line: Line) -> None:
        """Answer what has an answer: requests, and what cannot be told to be none."""
        if denied.withdrawn or (isinstance(parsed, Message) and parsed.kind is not Kind.REQUEST):
            return
        if isinstance(parsed, Refusal) and line.whole and not _has_answer(parsed, line.data):
            return
        body = denied.reply.body
        if not body:  # while the enforcement point is being stopped
            request_id = None if parsed is None else parsed.request_id
            text = "The enforcement point is being stopped"
            body = error_reply(request_id, status=503, code=ErrorCode.UNAVAILABLE, text=text).body
        self._to_client.put(one_line(body))

    async def _forward(
        self, permitted: Permitted, line: Line, call: _Call | None, turn: asyncio.Event, *, waited: bool
    ) -> None:
        message = permitted.message
        self._note_revision(message)
        if self._ended is not None:
            await self._close(permitted, call, _Ended("not_forwarded", self._ended.reason))
            return
        if waited and (standing := self._passage.standing_against(permitted)) is not None:
            await self._close(permitted, call, _Ended("not_forwarded", standing))
            return
        sent = self._to_child.put(one_line(permitted.rewritten or line.data))
        turn.set()
        if not sent:
            await self._close(permitted, call, _Ended("not_forwarded", "upstream_disconnected"))
        elif call is None:
            await self._notify(permitted)
        else:
            await self._await_answer(permitted, call)

    def _note_revision(self, message: Message) -> None:
        """Take the revision of the first message that may go on, or could be held, for that of all that name none."""
        if self._revision is None and message.era == "stateless":
            self._revision = message.protocol_version

    async def _notify(self, permitted: Permitted) -> None:
        withdrawn = permitted.message.cancels
        call = None if withdrawn is None else self._calls.get(withdrawn)
        if call is not None and call.waiting is not None and call.waiting.held is not None:
            call.waiting.held.withdraw(_WITHDRAWN)  # the server has not had it, and answers nothing
        elif withdrawn is not None and call is not None and call.end(_Ended("cancelled", _WITHDRAWN)):
            self._withdraw(withdrawn)
        await released(self._passage, permitted, Completion(status="completed"))

    def _withdraw(self, request_id: RequestId) -> None:
        self._withdrawn[request_id] = None
        while len(self._withdrawn) > _MAX_WITHDRAWN:
            del self._withdrawn[next(iter(self._withdrawn))]

    async def _await_answer(self, permitted: Permitted, call: _Call) -> None:
        if self._ended is not None:
            call.end(self._ended)
        try:
            async with asyncio.timeout(self._limits.upstream_total_seconds):
                how = await asyncio.shield(call.answer)
        except TimeoutError:
            how = _Ended("failed", "upstream_timeout")
        if isinstance(how, _Ended):
            await self._close(permitted, call, how)
            return
        settled = await settle(self._passage, permitted, how.data, latency_us=_since(call.started))
        if permitted.message.method == _INITIALIZE and settled.completion.result is not None:
            self._revision = _agreed(settled.completion.result)
        recorded = await released(self._passage, permitted, settled.completion)
        await how.before.wait()
        self._let_go()
        self._to_client.put(one_line(settled.body if recorded else withheld_reply(permitted).body))

    async def _close(self, permitted: Permitted, call: _Call | None, ended: _Ended) -> None:
        """Record a call that has no answer, and tell the client unless it has withdrawn it."""
        latency_us = 0 if call is None else _since(call.started)
        completion = Completion(status=ended.status, reason=ended.reason, latency_us=latency_us)
        recorded = await released(self._passage, permitted, completion)
        if permitted.message.request_id is not None and ended.reason != _WITHDRAWN:
            reply = failed_reply(permitted, ended.reason) if recorded else withheld_reply(permitted)
            self._to_client.put(one_line(reply.body))

    async def _pass_answer(self, inbound: Inbound, line: Line, before: asyncio.Event, turn: asyncio.Event) -> None:
        """Record a client's answer as the outcome of what the server asked, and hand it on."""
        asked = await self._passage.judge(inbound)
        if isinstance(asked, Denied):
            return  # an answer has no answer
        settled = await settle(self._passage, asked, line.data, latency_us=0)
        recorded = await released(self._passage, asked, settled.completion)
        await before.wait()
        if recorded and not settled.replaced:
            self._to_child.put(one_line(line.data))
        else:
            assert asked.message.request_id is not None
            text = "The answer was withheld on its way here" if recorded else "The answer could not be recorded"
            body = refusal_to_server(asked.message.request_id, ErrorCode.RESULT_WITHHELD, text)
            self._to_child.put(one_line(body))
        turn.set()

    # --- what the server says

    async def _take_from_server(self, line: Line, before: asyncio.Event) -> Coroutine[Any, Any, None]:
        if len(line.data) > self._limits.answer_bytes:
            self._fail_open("answer_too_large")
            return _pass(before)
        try:
            said = sketch(line.data)
        except MalformedError:
            _LOG.warning("server_line_dropped", server=self._server, bytes=len(line.data))
            return _pass(before)
        if said.kind is Kind.RESPONSE:
            return self._take_answer(said.request_id, line.data, before)
        return self._pass_from_server(said, line, before)

    def _fail_open(self, reason: str) -> None:
        for call in self._calls.values():
            call.end(_Ended("failed", reason))

    async def _take_answer(self, request_id: RequestId | None, data: bytes, before: asyncio.Event) -> None:
        call = None if request_id is None else self._calls.get(request_id)
        if call is None or not call.end(_Answer(data, before)):
            if request_id is not None:
                self._withdrawn.pop(request_id, None)
            _LOG.info("answer_dropped", server=self._server)
            await before.wait()
            return
        await call.over.wait()  # what the server says after it comes after it

    async def _pass_from_server(self, said: ServerLine, line: Line, before: asyncio.Event) -> None:
        if said.kind is Kind.NOTIFICATION:
            passes = await self._noticed(said.method, line, before)
            await before.wait()
            if passes:
                await self._pass_notice(said.method, line.data)
            if passes and said.cancels in self._asked:
                withdrawn = self._asked.pop(said.cancels)
                await released(self._passage, withdrawn, Completion(status="cancelled", reason="server_cancelled"))
            return
        assert said.request_id is not None
        verdict = await self._passage.judge(await self._inbound_of_server(line, said.request_id))
        await before.wait()
        if said.request_id in self._asked:
            # Not answered: the server would take that for the answer to the one that waits.
            if isinstance(verdict, Permitted):
                await released(self._passage, verdict, Completion(status="not_forwarded", reason="malformed"))
        elif isinstance(verdict, Denied):
            text = "The request was refused on its way to the client"
            self._to_child.put(one_line(refusal_to_server(said.request_id, ErrorCode.DENIED, text)))
        elif self._ended is None:
            self._asked[said.request_id] = verdict
            self._let_go()
            self._to_client.put(one_line(line.data))
        else:
            await released(self._passage, verdict, Completion(status="cancelled", reason=self._reason()))

    async def _pass_notice(self, method: str, data: bytes) -> None:
        """Pass on what may pass now of a server's notifications; see `enforcement.stream_inspection`."""
        noticed = self._notices[method]
        assert noticed is not None  # or it would not pass
        if self._looking is None:
            self._looking = self._passage.stream(noticed)
        self._put_notices(await self._looking.take(method, data, method))

    def _let_go(self) -> None:
        """Pass on the notifications that were held back: something else follows them."""
        if self._looking is not None:
            self._put_notices(self._looking.flush())

    def _put_notices(self, shown: Sequence[tuple[bytes | None, str]]) -> None:
        for data, method in shown:
            if data is not None and self._to_client.put(one_line(data)):
                self._passed_on[method] += 1

    async def _noticed(self, method: str, line: Line, before: asyncio.Event) -> bool:
        """Return whether a notification passes; the first of its method is judged for all that nothing else stops."""
        if method not in self._notices:
            await before.wait()  # of two firsts only one is
        if method not in self._notices:
            if len(self._notices) >= _MAX_NOTICES:
                return False
            verdict = await self._passage.judge(await self._inbound_of_server(line, None))
            self._notices[method] = verdict if isinstance(verdict, Permitted) else None
        permitted = self._notices[method]
        return permitted is not None and self._passage.standing_against(permitted) is None

    async def _inbound_of_server(self, line: Line, request_id: RequestId | None) -> Inbound:
        parsed = await self._admission.read_from_server(line.data, self._server, negotiated=self._revision)
        if isinstance(parsed, Message) and parsed.kind is Kind.REQUEST:
            if parsed.era == "stateless":
                parsed = _refusal(parsed, RefusalReason.NOT_A_REQUEST, "In this revision a server asks nothing")
            elif request_id in self._asked:
                parsed = _refusal(parsed, RefusalReason.MALFORMED, "The id is that of a request under way")
        overloaded = len(self._asked) >= self._limits.concurrent_calls
        return self._inbound(line, parsed, "server", overloaded=overloaded)

    def _inbound(self, line: Line, parsed: Message | Refusal, direction: Direction, *, overloaded: bool) -> Inbound:
        return Inbound(
            server=self._server,
            body=line.data,
            headers=(),
            peer=None,
            identity=self._identity,
            transport="stdio",
            parsed=parsed,
            complete=line.whole,
            overloaded=overloaded,
            direction=direction,
        )


async def _lines(source: Source, max_bytes: int) -> AsyncIterator[Line]:
    splitter = LineSplitter(max_bytes)
    while chunk := await _chunk(source):
        for line in splitter.feed(chunk):
            yield line
    for line in splitter.end():
        yield line


async def _chunk(source: Source) -> bytes:
    try:
        return await source.read(_CHUNK_BYTES)
    except OSError:  # the peer is gone
        return b""


async def _pass(before: asyncio.Event) -> None:
    await before.wait()


def _passed() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


def _refusal(message: Message, reason: RefusalReason, text: str) -> Refusal:
    refused = RefusedError(reason, text)
    return Refusal(
        reason=refused.reason,
        code=refused.code,
        status=refused.status,
        text=refused.text,
        request_id=message.request_id if message.kind is Kind.REQUEST else None,
        method=message.method or None,
        name=message.name,
        protocol_version=message.protocol_version,
        trace=message.trace,
        direction=message.direction,
    )


def _has_answer(refusal: Refusal, data: bytes) -> bool:
    """Whether a message that could not be read in full gets one: no notification does, and no answer."""
    if refusal.method is not None:
        return refusal.request_id is not None
    try:
        return sketch(data).kind is not Kind.RESPONSE
    except MalformedError:
        return True


def _agreed(result: bytes) -> str | None:
    """Return the revision that a server has agreed on."""
    try:
        version = json.loads(result).get("protocolVersion")
    except (ValueError, AttributeError, RecursionError):
        return None
    return version if isinstance(version, str) else None


def _since(started: float) -> int:
    return int((perf_counter() - started) * _US_PER_SECOND)
