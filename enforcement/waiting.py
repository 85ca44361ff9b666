"""What a client hears while its call is held: that it waits, where it has asked to hear of progress.

What is elsewhere: how long a call is held (`enforcement.holding`), who has agreed (`enforcement.approvals`).

A transport that can wait hands a `Waiting` along with the message (`Inbound.waiting`). Where there is none, a call that
a person would have to approve is denied at once.

The progress that is reported is negative and grows towards zero, so that whatever the server reports later is more, as
the specification demands of one token: nothing is done yet.

Source: Model Context Protocol, revisions 2026-07-28 and 2025-11-25, "Progress".
"""

from __future__ import annotations

import asyncio
import json
from typing import Final

from starlette.types import Receive

from enforcement.client_side import ClientSide, Headers
from enforcement.conversation import Conversation
from enforcement.mcp_headers import RawHeaders, single_header
from enforcement.refusals import Reply, RequestId
from enforcement.sse import COMMENT, encode_event
from enforcement.verdicts import Withdrawable

__all__ = ["WAITS", "StreamedWait", "never_gone", "progress_at", "progress_bytes", "progress_of"]

WAITS: Final = "The call waits for a person's approval"
_EVENTS: Final = "text/event-stream"


def progress_of(body: bytes) -> int | str | None:
    """Return under what token a client wants to hear of the progress of its request; None if it does not."""
    try:
        meta = json.loads(body)["params"]["_meta"]
        token = meta.get("progressToken")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return token if isinstance(token, int | str) and not isinstance(token, bool) else None


def progress_at(count: int) -> float:
    """Return how far a call has come that waits, the ``count``-th time that this is said, from 1: less than nothing."""
    return -1 / count


def progress_bytes(token: int | str, count: int) -> bytes:
    """Return the notification that a call waits, the ``count``-th of them, from 1."""
    params = {"progressToken": token, "progress": progress_at(count), "message": WAITS}
    message = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
    return json.dumps(message, separators=(",", ":")).encode()


async def never_gone() -> str:
    """Wait for ever: whoever waits is cancelled when its client goes away."""
    await asyncio.Event().wait()
    raise AssertionError


class StreamedWait:
    """The client of one HTTP request: `Waiting` while its call is held, and `ClientSide` all along.

    As soon as its call is held, the answer becomes an event stream, which keeps the connection open. A client that does
    not take event streams waits in silence.

    A client that goes away while its call is held has withdrawn it, in both eras: nothing of the call has begun that it
    could come back for.
    """

    def __init__(
        self,
        client: ClientSide,
        receive: Receive,
        headers: RawHeaders,
        conversation: Conversation | None,
        *,
        idle_seconds: float,
    ) -> None:
        """Take the way back.

        Args:
            client: To the client.
            receive: What says that it has gone.
            headers: Its request's.
            conversation: Its session, in which it may withdraw the call.
            idle_seconds: A client that does not take an event for so long is gone.
        """
        self._client = client
        self._receive = receive
        self._streams = _EVENTS in (single_header(headers, "accept") or "").lower()
        self._conversation = conversation
        self._idle_seconds = idle_seconds
        self._started = False
        self._stuck = asyncio.Event()

    # --- while it waits

    def began(self, request_id: RequestId, held: Withdrawable) -> None:
        """Note that the call is held."""
        if self._conversation is not None:
            self._conversation.held[request_id] = held

    def ended(self, request_id: RequestId, held: Withdrawable) -> None:
        """Note that it is held no more."""
        if self._conversation is not None and self._conversation.held.get(request_id) is held:
            del self._conversation.held[request_id]

    async def tell(self, token: int | str | None, count: int) -> None:
        """Say that the call waits."""
        if not self._streams:
            return
        try:
            async with asyncio.timeout(self._idle_seconds):
                if not self._started:
                    self._started = True
                    await self._client.start_stream()
                event = COMMENT if token is None else encode_event(progress_bytes(token, count))
                await self._client.send_event(event)
        except TimeoutError:
            self._stuck.set()
            self._client.drop()

    async def gone(self) -> str:
        """Return once the client has gone away, with the reason that is recorded."""
        leaving = asyncio.create_task(_disconnected(self._receive))
        stuck = asyncio.create_task(self._stuck.wait())
        try:
            await asyncio.wait({leaving, stuck}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            stuck.cancel()
            await asyncio.gather(leaving, stuck, return_exceptions=True)
        return "client_disconnected"

    # --- see `ClientSide`

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer; in the stream, if one has begun."""
        if not self._started:
            await self._client.reply(reply)
            return
        if reply.body:
            await self._client.send_event(encode_event(reply.body))
        await self._client.end_stream()

    async def start_stream(self, headers: Headers = ()) -> None:
        """Begin an event stream, unless one has begun."""
        if not self._started:
            self._started = True
            await self._client.start_stream(headers)

    async def send_event(self, event: bytes) -> None:
        """Send one event of the stream."""
        await self._client.send_event(event)

    async def end_stream(self) -> None:
        """End the stream."""
        await self._client.end_stream()

    def drop(self) -> None:
        """End the connection, whatever has not been sent."""
        self._client.drop()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
