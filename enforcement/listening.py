"""A stream that a client of a stateful revision opens with GET, for what the server sends of its own accord.

The stream is one decision when it is opened, and one outcome when it is over; what comes down it is judged apart
(`enforcement.downlink`). Where the client goes on with an earlier stream (``Last-Event-ID``), the answer of a call may
come here: it is recorded as that call's outcome before it is passed on, or passes because it was recorded before.

INVARIANT: no answer passes on a stream unless its call belongs to the session and its outcome is durable.

Source: Model Context Protocol, revision 2025-11-25, Transports, "Listening for Messages from the Server" and
"Resumability and Redelivery".
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TypeAlias

import structlog

from enforcement.client_side import ClientSide
from enforcement.conversation import Conversation
from enforcement.downlink import Downlink
from enforcement.mcp_headers import single_header
from enforcement.messages import Kind
from enforcement.offload import off_loop
from enforcement.server_messages import ServerLine, sketch
from enforcement.session_carrier import SessionCarrier
from enforcement.sse import Event, EventStream, encode_cursor, encode_event
from enforcement.trace_headers import onward_lines, trace_headers
from enforcement.upstream import ServerAnswer
from enforcement.verdicts import Completion, Inbound, OutcomeStatus, Permitted
from enforcement.way import Way, session_headers
from ledger.errors import MalformedError, UpstreamError

__all__ = ["Listening"]

_LOG: Final = structlog.get_logger(__name__)
_NAME: Final = "Mcp-Session-Id"
_EVENTS: Final = "text/event-stream"
_OK: Final = 200
_NOT_FOUND: Final = 404
_CLOSED: Final = "The server opens no such stream"


_Place: TypeAlias = tuple[str | None, int | None]
"""Id of an event, and after how many milliseconds a client shall come back."""


class _EndedError(Exception):
    """The stream is over before its time; the text is the outcome's reason."""


class Listening(SessionCarrier):
    """Carries one stream. Used once.

    Attributes:
        survives: It is over when its client goes away.
    """

    survives: Final = False

    def __init__(
        self, permitted: Permitted, inbound: Inbound, client: ClientSide, *, way: Way, conversation: Conversation
    ) -> None:
        """Take the parts; see `SessionCarrier`."""
        super().__init__(permitted, inbound, client, way=way, conversation=conversation)
        self._downlink = Downlink(way, permitted, inbound, conversation)
        self._http_status: int | None = None
        self._streaming = False

    async def run(self) -> None:
        """Carry the stream to its end, and record what became of it."""
        self._conversation.streams += 1
        status: OutcomeStatus = "completed"
        reason: str | None = None
        try:
            await self._carry()
        except _EndedError as error:
            reason = str(error)
            status = "cancelled" if reason == "client_disconnected" else "failed"
        except UpstreamError as error:
            # A server that was silent for too long has ended the stream as much as one that says so.
            reason = str(error)
            status = "completed" if self._streaming else "failed"
        except Exception as error:  # noqa: BLE001  # a fault here is a failed stream with an outcome, not a lost one
            _LOG.error("listening_failed", decision_id=self._permitted.decision_id, error=type(error).__name__)
            status, reason = "failed", "internal_error"
        finally:
            self._conversation.streams -= 1
            await self._downlink.close()
        await self._report(self._completion(status, reason))
        await self._finish(reason)

    async def close(self, reason: str) -> None:
        """Report the stream as cancelled if `run` was cancelled before it reported anything."""
        await self._report(self._completion("cancelled", reason))

    def _completion(self, status: OutcomeStatus, reason: str | None) -> Completion:
        latency_us = self._latency_us()
        return Completion(
            status=status,
            reason=reason,
            latency_us=latency_us,
            http_status=self._http_status,
            signals=self._downlink.looking.signals,
            redacted=self._downlink.looking.redacted,
        )

    async def _finish(self, reason: str | None) -> None:
        try:
            if self._streaming:
                await self._to_client(self._client.end_stream())
            else:
                await self._to_client(
                    self._client.reply(self._refused(self._http_status, reason or "internal_error", _CLOSED))
                )
        except _EndedError:
            self._client.drop()

    async def _carry(self) -> None:
        added = session_headers(self._conversation)
        last_event = single_header(self._inbound.headers, "last-event-id")
        if last_event is not None:
            added["last-event-id"] = last_event
        added |= trace_headers(self._permitted)
        lines = onward_lines(self._permitted, self._inbound.headers)
        sending = self._way.upstream.send(self._permitted.server, lines, b"", verb="GET", added=added)
        async with sending as response:
            self._http_status = response.status
            await self._check(response)
            name = self._conversation.name
            await self._to_client(self._client.start_stream(() if name is None else ((_NAME, name),)))
            self._streaming = True
            await self._pass_events(response)

    async def _check(self, response: ServerAnswer) -> None:
        if response.status == _NOT_FOUND and self._conversation.upstream is not None:
            await self._way.end(self._conversation, "session_ended")
            raise _EndedError("upstream_session_ended")
        if response.status != _OK:
            raise _EndedError("upstream_status")
        kind = response.content_type.lower() if "Content-Type" in response.headers else ""
        if kind != _EVENTS or response.headers.get("Content-Encoding", "identity").lower() != "identity":
            self._http_status = None  # its 200 is none that a client may see
            raise _EndedError("malformed_answer")

    async def _pass_events(self, response: ServerAnswer) -> None:
        events = EventStream(max_event_bytes=self._way.limits.answer_bytes)
        async for chunk in response.content.iter_any():
            try:
                complete = events.feed(chunk)
            except MalformedError as error:
                raise _EndedError("answer_too_large") from error
            for event in complete:
                await self._pass_on(await self._look_into(event))
            if self._conversation.ended:
                raise _EndedError("session_ended")

        await self._pass_on(self._downlink.looking.flush())

    async def _pass_on(self, shown: Sequence[tuple[bytes | None, _Place]]) -> None:
        """Send events; what may not pass leaves its place in the stream behind."""
        for data, (event_id, retry_ms) in shown:
            if event_id is not None:
                self._conversation.sent(event_id)
            if data is None:
                event = encode_cursor(event_id=event_id, retry_ms=retry_ms)
            else:
                event = encode_event(data, event_id=event_id, retry_ms=retry_ms)
            await self._to_client(self._client.send_event(event))

    async def _look_into(self, event: Event) -> Sequence[tuple[bytes | None, _Place]]:
        """Return what the client gets now: what this event lets go, and of the event what may pass."""
        place: _Place = (event.event_id, event.retry_ms)
        # From behind what is held back, no client could go on without losing it.
        aside: _Place = (None, event.retry_ms) if self._downlink.looking.holds else place
        if not event.data:
            return [(None, aside)]
        if event.kind != "message":
            raise _EndedError("malformed_answer")
        try:
            line = await off_loop(len(event.data), sketch, event.data)
            if line.kind is Kind.RESPONSE:
                answer = await self._answer(line, event.data)
                return [(None, aside)] if answer is None else [*self._downlink.looking.flush(), (answer, place)]
            if not await self._downlink.admits(line, event.data):
                return [(None, aside)]
            return await self._downlink.released(line, event.data, place)
        except MalformedError as error:
            raise _EndedError("malformed_answer") from error

    async def _answer(self, line: ServerLine, data: bytes) -> bytes | None:
        """Return what may pass of an answer, which belongs to a call of this session or does not pass."""
        recorded = self._conversation.recall(data)
        if recorded is not None:
            return recorded
        call = None if line.request_id is None else self._conversation.calls.get(line.request_id)
        return None if call is None else await call.answered_elsewhere(data)

    async def _to_client(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.timeout(self._way.limits.upstream_idle_seconds):
                await sending
        except TimeoutError as error:
            raise _EndedError("client_disconnected") from error
