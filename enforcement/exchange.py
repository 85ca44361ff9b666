"""One permitted call on its way to the server and back.

What is elsewhere: whether it is permitted (`enforcement.pep`), the connection (`enforcement.upstream`), the client's
side (`enforcement.endpoint`).

INVARIANT: nothing that ends a call is released before its outcome is durable. A JSON answer is read whole and held; of
a stream, what comes before the answer is passed on event by event, and the answer is held. If the outcome cannot be
made durable, the client gets an error in the answer's place. A client that does not take what it is sent is gone.

INVARIANT: exactly one completion is reported for a call, whatever happens to it: `Exchange.run` reports one unless it
is cancelled before, and then `Exchange.close` does. In the stateful revisions a server may end a stream before the
answer and give it on another one, which the client opens (`enforcement.listening`): then the one that takes the answer
reports it, and the end of the session does if none ever comes.

In the stateful revisions a client that goes away has not withdrawn its call (it may come back for the answer): the call
is carried to its end without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Final

import structlog

from enforcement.answers import Answer, parse_answer
from enforcement.bounded import read_bounded
from enforcement.client_side import ClientSide, Headers
from enforcement.config import Limits
from enforcement.link import Link, SessionLostError
from enforcement.mcp import Kind
from enforcement.offload import off_loop
from enforcement.refusals import ErrorCode, Reply, error_reply
from enforcement.review import Reviewed
from enforcement.server_messages import sketch
from enforcement.sse import Event, EventStream, encode_cursor, encode_event
from enforcement.stream_inspection import both
from enforcement.trace_headers import onward_lines, trace_headers
from enforcement.upstream import ServerAnswer, ServerSide, answered_by
from enforcement.verdicts import Completion, Inbound, OutcomeStatus, Permitted
from ledger.errors import LedgerError, MalformedError, OverloadedError, UpstreamError

__all__ = ["Exchange"]

_LOG: Final = structlog.get_logger(__name__)
_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"
_FAILURES: Final[Mapping[str, tuple[int, int, str]]] = {
    # The status tells a client to begin another session.
    "upstream_session_ended": (404, ErrorCode.UPSTREAM_FAILED, "The server has ended the session; begin another one"),
    "unsupported_protocol": (400, ErrorCode.UNSUPPORTED_PROTOCOL, "The server chose a revision that does not pass"),
    "overloaded": (503, ErrorCode.UNAVAILABLE, "There are too many sessions"),
}


@dataclass(frozen=True, slots=True)
class _Held:
    """An answer that waits for its outcome to be durable."""

    completion: Completion
    reply: Reply
    received: bytes | None = None


class _ParkedError(Exception):
    """The stream is over, and the answer comes on another one."""


class _GoneError(Exception):
    """The client does not take what it is sent."""


class _FailedError(Exception):
    """The server did not answer as it must; the text is the outcome's reason."""

    def __init__(self, reason: str, answer: bytes | None = None) -> None:
        super().__init__(reason)
        self.answer = answer


class Exchange:
    """Forwards one call. Used once."""

    def __init__(
        self,
        permitted: Permitted,
        inbound: Inbound,
        client: ClientSide,
        *,
        link: Link,
        upstream: ServerSide,
        limits: Limits,
        complete: Callable[[Permitted, Completion], Awaitable[None]],
        review: Callable[[Permitted, Answer, bytes], Awaitable[Reviewed]],
    ) -> None:
        """Take the parts.

        Args:
            permitted: The call.
            inbound: Its bytes and headers as received.
            client: The way back.
            link: Ties it to its session.
            upstream: The way there.
            limits: Longest answer, and longest event of a stream; longest time, and longest silence of a client that is
                sent something.
            complete: Makes the outcome durable; is called once, and is not cancelled with the call.
            review: Says what the client gets of an answer.
        """
        self._permitted = permitted
        self._inbound = inbound
        self._client = client
        self._link = link
        self._upstream = upstream
        self._limits = limits
        self._complete = complete
        self._review = review
        self._started = perf_counter()
        self._streaming = False
        self._reported = False
        self._settled: _Held | None = None
        self._settling = asyncio.Lock()  # while an outcome is being recorded, whichever stream brought the answer
        self._gone = False  # the client is, and the call goes on
        self._withdrawn = False
        self._parked = False
        self._resumable = False
        self._reply_headers: Headers = ()
        self._last: tuple[str | None, int | None] = (None, None)  # of the event that brought the answer
        self._http_status: int | None = None
        self._tls_group: str | None = None

    @property
    def survives(self) -> bool:
        """Whether the call goes on when its client goes away."""
        return self._link.survives

    def client_gone(self) -> None:
        """Note that nothing reaches the client any more."""
        self._gone = True

    async def run(self) -> None:
        """Forward the call, record its outcome, release the answer."""
        before = self._link.begin(self)
        try:
            if before is not None:
                await before.abandon("no_answer")
            await self._run()
        finally:
            await self._link.finish(self, parked=self._parked)

    async def _run(self) -> None:
        try:
            held = await self._forward()
        except _GoneError:
            await self.close("client_disconnected")
            self._client.drop()
            return
        except _ParkedError:
            await self._to_client(self._client.end_stream())
            return
        held = await self._settle(held)
        try:
            await self._release(held)
        except _GoneError:
            self._client.drop()

    async def _settle(self, held: _Held) -> _Held:
        """Make the outcome durable; return what may be released."""
        async with self._settling:
            if self._reported:  # another stream brought an answer, or the call was over: that holds
                text = "The call was over before it was answered"
                over = replace(held, reply=self._error(ErrorCode.RESULT_WITHHELD, text, "no_answer"))
                return self._settled or over
            if self._withdrawn and held.completion.status == "failed":
                held = replace(held, completion=replace(held.completion, status="cancelled", reason="client_cancelled"))
            try:
                await self._report(held.completion)
            except LedgerError as error:
                _LOG.error("result_withheld", decision_id=self._permitted.decision_id, error=type(error).__name__)
                text = "The call was made, but its outcome could not be recorded; the result is withheld"
                reply = self._error(ErrorCode.RESULT_WITHHELD, text, "ledger_unavailable")
                held = replace(held, reply=reply)
            if self._link.conversation is not None and self._resumable and held.received is not None:
                self._link.conversation.answered(held.received, held.reply.body)
            self._settled = held
        if self._link.initializes and held.completion.status != "completed":
            await self._link.undo()
        return held

    async def close(self, reason: str) -> None:
        """Report the call as cancelled if `run` was cancelled before it reported anything, or never began."""
        async with self._settling:
            if self._reported or self._parked:
                return
            try:
                await self._report(self._completion("cancelled", reason))
            except LedgerError as error:
                _LOG.error("outcome_not_durable", decision_id=self._permitted.decision_id, error=type(error).__name__)
        await self._link.undo()

    # --- see `enforcement.conversation.OpenCall`

    def withdraw(self) -> None:
        """Note that the client has withdrawn the call; the server may answer all the same, or never."""
        self._withdrawn = True

    async def answered_elsewhere(self, data: bytes) -> bytes:
        """Take the answer from another stream; record it, and return what may pass.

        Raises:
            MalformedError: It is no answer to this call.
        """
        assert self._permitted.message.request_id is not None
        self._resumable = True
        answer = await off_loop(len(data), parse_answer, data, self._permitted.message.request_id)
        held = await self._settle(await self._answered(answer, data))
        self._parked = False
        self._link.forget(self)
        return held.reply.body

    async def abandon(self, reason: str) -> None:
        """Record the call as cancelled if it waits for an answer on another stream: that one will not come."""
        if self._parked:
            self._parked = False
            await self.close(reason)
            self._link.forget(self)

    async def _report(self, completion: Completion) -> None:
        self._reported = True
        await self._complete(self._permitted, completion)

    async def _release(self, held: _Held) -> None:
        if self._streaming:
            event_id, retry_ms = self._last
            await self._pass(encode_event(held.reply.body, event_id=event_id, retry_ms=retry_ms), event_id)
            await self._to_client(self._client.end_stream())
        else:
            await self._to_client(self._client.reply(held.reply))

    async def _to_client(self, sending: Coroutine[Any, Any, None]) -> None:
        if self._gone:
            sending.close()
            return
        try:
            async with asyncio.timeout(self._limits.upstream_idle_seconds):
                await sending
        except TimeoutError as error:
            if not self.survives:
                raise _GoneError from error
            self._gone = True
            self._client.drop()

    async def _forward(self) -> _Held:
        try:
            async with self._upstream.send(
                self._permitted.server,
                onward_lines(self._permitted, self._inbound.headers),
                self._permitted.rewritten or self._inbound.body,
                added={**self._link.headers, **trace_headers(self._permitted)},
            ) as response:
                self._http_status = response.status
                self._tls_group = answered_by(response)
                # The connection's own limit does not run while the client is waited for.
                async with asyncio.timeout(self._limits.upstream_total_seconds):
                    return await self._receive(response)
        except (_GoneError, _ParkedError):
            raise
        except SessionLostError:
            return self._failed("upstream_session_ended")
        except OverloadedError:
            return self._failed("overloaded")
        except UpstreamError as error:
            return self._failed(str(error))
        except _FailedError as error:
            return self._failed(str(error), error.answer)
        except Exception as error:  # noqa: BLE001  # a fault here is a failed call with an outcome, not a lost one
            _LOG.error("exchange_failed", decision_id=self._permitted.decision_id, error=type(error).__name__)
            return self._failed("internal_error")

    async def _receive(self, response: ServerAnswer) -> _Held:
        if not 200 <= response.status < 600:  # noqa: PLR2004  # no status that HTTP has for an answer
            raise _FailedError("malformed_answer")
        if 300 <= response.status < 400:  # noqa: PLR2004  # 3xx
            raise _FailedError("upstream_redirect")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _FailedError("malformed_answer")
        try:
            self._reply_headers = await self._link.opened(response.status, response.headers, self)
        except MalformedError as error:
            raise _FailedError("malformed_answer") from error
        if self._permitted.message.kind is Kind.NOTIFICATION:
            return await self._receive_acknowledgement(response)
        kind = response.content_type.lower() if "Content-Type" in response.headers else ""
        if kind == _EVENTS and response.ok:
            return await self._receive_stream(response)
        if kind == _JSON:
            return await self._receive_whole(response)
        raise _FailedError("malformed_answer" if response.ok else "upstream_status")

    async def _receive_acknowledgement(self, response: ServerAnswer) -> _Held:
        if not response.ok:
            raise _FailedError("upstream_status")
        return _Held(self._completion("completed"), Reply(status=202, body=b"", headers=self._reply_headers))

    async def _receive_whole(self, response: ServerAnswer) -> _Held:
        body = await self._bounded(response)
        request_id = self._permitted.message.request_id
        assert request_id is not None
        try:
            answer = await off_loop(len(body), parse_answer, body, request_id)
        except MalformedError as error:
            raise _FailedError("malformed_answer", body) from error
        return await self._answered(answer, body, status=response.status, headers=self._reply_headers)

    async def _bounded(self, response: ServerAnswer) -> bytes:
        try:
            return await read_bounded(response.content, self._limits.answer_bytes)
        except MalformedError as error:
            raise _FailedError("answer_too_large") from error

    async def _receive_stream(self, response: ServerAnswer) -> _Held:
        await self._to_client(self._client.start_stream(self._reply_headers))
        self._streaming = True
        events = EventStream(max_event_bytes=self._limits.answer_bytes)
        async for chunk in response.content.iter_any():
            try:
                complete = events.feed(chunk)
            except MalformedError as error:
                raise _FailedError("answer_too_large") from error
            for event in complete:
                held = await self._look_into(event)
                if held is not None:
                    return held
        await self._release_held()
        if self._resumable and not self._withdrawn and self._link.may_park(self):
            self._parked = True
            raise _ParkedError
        raise _FailedError("no_answer")

    async def _look_into(self, event: Event) -> _Held | None:
        """Return the answer if an event is it; else pass it on, if it may."""
        data = event.data
        event_id, retry_ms = (event.event_id, event.retry_ms) if self._link.event_ids_pass else (None, None)
        self._resumable = self._resumable or event_id is not None
        if not data:  # a comment that keeps the connection open, or from where the stream can be gone on with
            await self._pass_cursor(event_id, retry_ms)
            return None
        if event.kind != "message":  # MCP has no other kind, and a client might read one as an answer
            raise _FailedError("malformed_answer", data)
        request_id = self._permitted.message.request_id
        assert request_id is not None
        try:
            line = await off_loop(len(data), sketch, data)
            if line.kind is not Kind.RESPONSE:
                deliverable = self._resumable or not self._gone
                passes = await self._link.downlink.admits(line, data, deliverable=deliverable)
            else:
                answer = await off_loop(len(data), parse_answer, data, request_id)
        except MalformedError as error:
            raise _FailedError("malformed_answer", data) from error
        if line.kind is Kind.RESPONSE:
            self._last = (event_id, retry_ms)
            await self._release_held()
            return await self._answered(answer, data)
        if passes:
            tag = (event_id, retry_ms)
            await self._pass_all(await self._link.downlink.released(line, data, tag))
        elif event_id is not None:
            await self._pass_cursor(event_id, retry_ms)
        return None

    async def _release_held(self) -> None:
        """Pass on the notifications that were held back: nothing follows them any more that they could go on in."""
        await self._pass_all(self._link.downlink.looking.flush())

    async def _pass_all(self, shown: Sequence[tuple[bytes | None, tuple[str | None, int | None]]]) -> None:
        for data, (event_id, retry_ms) in shown:
            if data is not None:
                await self._pass(encode_event(data, event_id=event_id, retry_ms=retry_ms), event_id)
            elif event_id is not None:
                await self._pass(encode_cursor(event_id=event_id, retry_ms=retry_ms), event_id)

    async def _pass_cursor(self, event_id: str | None, retry_ms: int | None) -> None:
        # From behind what is held back, no client could go on without losing it.
        known = None if self._link.downlink.looking.holds else event_id
        await self._pass(encode_cursor(event_id=known, retry_ms=retry_ms), known)

    async def _pass(self, event: bytes, event_id: str | None) -> None:
        self._link.sent(event_id)
        await self._to_client(self._client.send_event(event))

    async def _answered(self, answer: Answer, body: bytes, *, status: int = 200, headers: Headers = ()) -> _Held:
        if self._link.initializes and answer.result is not None and not self._link.agree(answer.result):
            raise _FailedError("unsupported_protocol", body)
        reviewed = await self._review(self._permitted, answer, body)
        completion = self._completed(answer, body, reviewed)
        if reviewed.body is None:
            text = "The answer may not be shown, or nobody can say whether it may"
            reply = self._error(ErrorCode.RESULT_WITHHELD, text, reviewed.reason or "internal_error")
        else:
            reply = Reply(status=status, body=reviewed.body, headers=headers)
        return _Held(completion, reply, body)

    def _completed(self, answer: Answer, body: bytes, reviewed: Reviewed) -> Completion:
        failed, looking = answer.error_code is not None, self._link.downlink.looking
        return Completion(
            status="failed" if failed or reviewed.failed else "completed",
            reason="jsonrpc_error" if failed else reviewed.reason,
            latency_us=self._latency_us(),
            http_status=self._http_status,
            tls_group=self._tls_group,
            answer=body,
            result=answer.result,
            error_code=answer.error_code,
            tool_error=answer.tool_error,
            hidden=reviewed.hidden,
            signals=both(reviewed.signals, looking.signals),
            redacted=reviewed.redacted + looking.redacted,
        )

    def _completion(self, status: OutcomeStatus, reason: str | None = None, answer: bytes | None = None) -> Completion:
        return Completion(
            status=status,
            reason=reason,
            latency_us=self._latency_us(),
            http_status=self._http_status,
            tls_group=self._tls_group,
            answer=answer,
        )

    def _failed(self, reason: str, answer: bytes | None = None) -> _Held:
        status, code, text = _FAILURES.get(
            reason, (502, ErrorCode.UPSTREAM_FAILED, "The server did not answer as it must")
        )
        return _Held(self._completion("failed", reason, answer), self._error(code, text, reason, status=status))

    def _error(self, code: int, text: str, reason: str, *, status: int = 502) -> Reply:
        data = {"reason": reason, "decision_id": self._permitted.decision_id}
        return error_reply(self._permitted.message.request_id, status=status, code=code, text=text, data=data)

    def _latency_us(self) -> int:
        return int((perf_counter() - self._started) * 1_000_000)
