"""One permitted call on its way to the server and back.

What is elsewhere: whether it is permitted (`enforcement.pep`), the connection (`enforcement.upstream`), the client's
side (`enforcement.endpoint`).

INVARIANT: nothing that ends a call is released before its outcome is durable. A JSON answer is read whole and held; of
a stream, what comes before the answer is passed on event by event, and the answer is held. If the outcome cannot be
made durable, the client gets an error in the answer's place. A client that does not take what it is sent is gone.

INVARIANT: exactly one completion is reported for a call, whatever happens to it: `Exchange.run` reports one unless it
is cancelled before, and then `Exchange.close` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final, Protocol

import structlog

from enforcement.answers import Answer, parse_answer, parse_stream_message
from enforcement.bounded import read_bounded
from enforcement.config import Limits
from enforcement.mcp import Kind
from enforcement.offload import off_loop
from enforcement.refusals import ErrorCode, Reply, error_reply
from enforcement.review import Reviewed
from enforcement.sse import COMMENT, Event, EventStream, encode_event
from enforcement.upstream import ServerAnswer, ServerSide, answered_by
from enforcement.verdicts import Completion, Inbound, OutcomeStatus, Permitted
from ledger.errors import LedgerError, MalformedError, UpstreamError

__all__ = ["ClientSide", "Exchange"]

_LOG: Final = structlog.get_logger(__name__)
_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"


class ClientSide(Protocol):
    """The way back to the client."""

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer."""
        ...

    async def start_stream(self) -> None:
        """Begin an event stream."""
        ...

    async def send_event(self, event: bytes) -> None:
        """Send one event of the stream."""
        ...

    async def end_stream(self) -> None:
        """End the stream."""
        ...

    def drop(self) -> None:
        """End the connection, whatever has not been sent."""
        ...


@dataclass(frozen=True, slots=True)
class _Held:
    """An answer that waits for its outcome to be durable."""

    completion: Completion
    reply: Reply


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
            upstream: The way there.
            limits: Longest answer, and longest event of a stream; longest time, and longest silence of a client that is
                sent something.
            complete: Makes the outcome durable; is called once, and is not cancelled with the call.
            review: Says what the client gets of an answer.
        """
        self._permitted = permitted
        self._inbound = inbound
        self._client = client
        self._upstream = upstream
        self._limits = limits
        self._complete = complete
        self._review = review
        self._started = perf_counter()
        self._streaming = False
        self._reported = False
        self._http_status: int | None = None
        self._tls_group: str | None = None

    async def run(self) -> None:
        """Forward the call, record its outcome, release the answer."""
        try:
            held = await self._forward()
        except _GoneError:
            await self.close("client_disconnected")
            self._client.drop()
            return
        try:
            await self._report(held.completion)
        except LedgerError as error:
            _LOG.error("result_withheld", decision_id=self._permitted.decision_id, error=type(error).__name__)
            text = "The call was made, but its outcome could not be recorded; the result is withheld"
            reply = self._error(ErrorCode.RESULT_WITHHELD, text, "ledger_unavailable")
            held = _Held(held.completion, reply)
        try:
            await self._release(held)
        except _GoneError:
            self._client.drop()

    async def close(self, reason: str) -> None:
        """Report the call as cancelled if `run` was cancelled before it reported anything, or never began."""
        if self._reported:
            return
        try:
            await self._report(self._completion("cancelled", reason))
        except LedgerError as error:
            _LOG.error("outcome_not_durable", decision_id=self._permitted.decision_id, error=type(error).__name__)

    async def _report(self, completion: Completion) -> None:
        self._reported = True
        await self._complete(self._permitted, completion)

    async def _release(self, held: _Held) -> None:
        if self._streaming:
            await self._to_client(self._client.send_event(encode_event(held.reply.body)))
            await self._to_client(self._client.end_stream())
        else:
            await self._to_client(self._client.reply(held.reply))

    async def _to_client(self, sending: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._limits.upstream_idle_seconds):
                await sending
        except TimeoutError as error:
            raise _GoneError from error

    async def _forward(self) -> _Held:
        try:
            async with self._upstream.send(
                self._permitted.server, self._inbound.headers, self._permitted.rewritten or self._inbound.body
            ) as response:
                self._http_status = response.status
                self._tls_group = answered_by(response)
                # The connection's own limit does not run while the client is waited for.
                async with asyncio.timeout(self._limits.upstream_total_seconds):
                    return await self._receive(response)
        except _GoneError:
            raise
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
        return _Held(self._completion("completed"), Reply(status=202, body=b""))

    async def _receive_whole(self, response: ServerAnswer) -> _Held:
        body = await self._bounded(response)
        request_id = self._permitted.message.request_id
        assert request_id is not None
        try:
            answer = await off_loop(len(body), parse_answer, body, request_id)
        except MalformedError as error:
            raise _FailedError("malformed_answer", body) from error
        return await self._answered(answer, body, status=response.status)

    async def _bounded(self, response: ServerAnswer) -> bytes:
        try:
            return await read_bounded(response.content, self._limits.answer_bytes)
        except MalformedError as error:
            raise _FailedError("answer_too_large") from error

    async def _receive_stream(self, response: ServerAnswer) -> _Held:
        await self._to_client(self._client.start_stream())
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
                passed = encode_event(event.data) if event.data else COMMENT
                await self._to_client(self._client.send_event(passed))
        raise _FailedError("no_answer")

    async def _look_into(self, event: Event) -> _Held | None:
        """Return the answer if an event is it; None if the event may pass."""
        data = event.data
        if not data:  # a comment that keeps the connection open
            return None
        if event.kind != "message":  # MCP has no other kind, and a client might read one as an answer
            raise _FailedError("malformed_answer", data)
        request_id = self._permitted.message.request_id
        assert request_id is not None
        try:
            answer = await off_loop(len(data), parse_stream_message, data, request_id)
        except MalformedError as error:
            raise _FailedError("malformed_answer", data) from error
        if answer is None:
            return None
        return await self._answered(answer, data, status=200)

    async def _answered(self, answer: Answer, body: bytes, *, status: int) -> _Held:
        reviewed = await self._review(self._permitted, answer, body)
        completion = self._completed(answer, body, reviewed)
        if reviewed.body is None:
            text = "The answer may not be shown, or nobody can say whether it may"
            return _Held(completion, self._error(ErrorCode.RESULT_WITHHELD, text, reviewed.reason or "internal_error"))
        return _Held(completion, Reply(status=status, body=reviewed.body))

    def _completed(self, answer: Answer, body: bytes, reviewed: Reviewed) -> Completion:
        failed = answer.error_code is not None
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
        reply = self._error(ErrorCode.UPSTREAM_FAILED, "The server did not answer as it must", reason)
        return _Held(self._completion("failed", reason, answer), reply)

    def _error(self, code: int, text: str, reason: str) -> Reply:
        data = {"reason": reason, "decision_id": self._permitted.decision_id}
        return error_reply(self._permitted.message.request_id, status=502, code=code, text=text, data=data)

    def _latency_us(self) -> int:
        return int((perf_counter() - self._started) * 1_000_000)
