"""The client's side of the gateway: one ASGI endpoint that takes MCP messages.

What is elsewhere: whether a message may pass (`enforcement.pep`), that what was taken up is seen through
(`enforcement.passage`), its way to the server (`enforcement.exchange`).

Callers without a valid token have few places of their own and take none from those who are known. Where theirs are
taken, a message is denied and recorded unread.

Source: Model Context Protocol, revision 2026-07-28, Streamable HTTP; ASGI 3.0.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.types import Receive, Scope, Send

from enforcement.admission import Admission
from enforcement.authenticator import Authenticator
from enforcement.config import Limits
from enforcement.connections import drop_connection, keep_connection
from enforcement.exchange import Exchange
from enforcement.identity import Identity
from enforcement.metrics import Metrics
from enforcement.passage import STOPPING, Passage
from enforcement.refusals import Reply
from enforcement.tls_peer import peer_of
from enforcement.upstream import ServerSide
from enforcement.verdicts import Denied, Inbound, Permitted

__all__ = ["TRANSPORT", "Endpoint"]

TRANSPORT: Final = "tallystick.transport"
"""Where a scope says what the records shall say of how a message came; absent for HTTP."""

# Callers without a token may have one message under way for so many calls of those who have one.
_STRANGERS: Final = 8
_STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class _Client:
    """The way back to one client; see `enforcement.exchange.ClientSide`."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send

    async def reply(self, reply: Reply) -> None:
        headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers]
        headers += [(b"content-length", str(len(reply.body)).encode()), (b"cache-control", b"no-store")]
        if reply.body:
            headers.append((b"content-type", b"application/json"))
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": reply.body, "more_body": False})

    async def start_stream(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": list(_STREAM_HEADERS)})

    async def send_event(self, event: bytes) -> None:
        await self._send({"type": "http.response.body", "body": event, "more_body": True})

    async def end_stream(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def drop(self) -> None:
        drop_connection(self._scope)


class _GoneError(Exception):
    """The client went away before its message was complete: there is no message."""


class Endpoint:
    """Takes the messages for all servers. Owned by the event loop."""

    def __init__(
        self,
        passage: Passage,
        admission: Admission,
        authenticator: Authenticator,
        upstream: ServerSide,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        """Take the parts.

        Args:
            passage: Has messages judged and recorded.
            authenticator: Knows who sends a request.
            admission: Knows how long a message may be, and learns tools.
            upstream: The way to the servers.
            limits: Bounds.
            metrics: Counts.
        """
        self._passage = passage
        self._admission = admission
        self._authenticator = authenticator
        self._upstream = upstream
        self._limits = limits
        self._metrics = metrics
        self._max_strangers = max(1, limits.concurrent_calls // _STRANGERS)
        self._in_flight = 0
        self._strangers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        client = _Client(scope, send)
        if scope["method"] != "POST":
            await client.reply(Reply(status=405, body=b"", headers=(("Allow", "POST"),)))
            return
        if self._passage.stopping:
            await client.reply(STOPPING.reply)
            return
        try:
            tls = peer_of(scope)
            identity = await self._authenticator.identify(scope["headers"], tls, server=scope["path_params"]["name"])
            if identity is not None:
                keep_connection(scope)
                await self._take_call(scope, receive, client, identity)
            else:
                await self._take_from_stranger(scope, receive, client)
        except _GoneError:
            return

    async def _take_call(self, scope: Scope, receive: Receive, client: _Client, identity: Identity) -> None:
        overloaded = self._in_flight >= self._limits.concurrent_calls
        self._in_flight += 1
        self._metrics.in_flight.inc()
        try:
            body, complete = await self._read(receive, self._admission.body_limit(known=True))
            inbound = _inbound(scope, body, identity, complete=complete, overloaded=overloaded)
            await self._judge(inbound, client, receive)
        finally:
            self._in_flight -= 1
            self._metrics.in_flight.dec()

    async def _take_from_stranger(self, scope: Scope, receive: Receive, client: _Client) -> None:
        if self._strangers >= self._max_strangers:
            await self._judge(_inbound(scope, b"", None, complete=False, overloaded=True), client, receive)
            return
        self._strangers += 1
        try:
            body, complete = await self._read(receive, self._admission.body_limit(known=False))
        finally:
            self._strangers -= 1
        await self._judge(_inbound(scope, body, None, complete=complete), client, receive)

    async def _judge(self, inbound: Inbound, client: _Client, receive: Receive) -> None:
        verdict = await self._passage.judge(inbound)
        if isinstance(verdict, Denied):
            await client.reply(verdict.reply)
        else:
            await self._forward(verdict, inbound, client, receive)

    async def _read(self, receive: Receive, limit: int) -> tuple[bytes, bool]:
        """Return the body, or its first ``limit`` bytes and one more, and whether it arrived in time."""
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                more = True
                while more and len(body) <= limit:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            return bytes(body), False
        return bytes(body[: limit + 1]), True

    async def _forward(self, permitted: Permitted, inbound: Inbound, client: _Client, receive: Receive) -> None:
        """Run the exchange until it is done or the client goes away, which is how a client cancels."""
        exchange = Exchange(
            permitted,
            inbound,
            client,
            upstream=self._upstream,
            limits=self._limits,
            complete=self._passage.complete,
            review=self._passage.review,
        )
        call = self._passage.forward(exchange.run())
        gone = asyncio.create_task(_disconnected(receive))
        cause = "gateway_stopped"  # that is what it means if this very task is cancelled, or the call by `stop`
        try:
            done, _ = await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
            if call not in done:
                cause = "client_disconnected"
        finally:
            gone.cancel()
            call.cancel()  # does nothing to one that is done
            await asyncio.gather(call, gone, return_exceptions=True)
            await exchange.close(cause)
        if not call.cancelled():
            call.result()


def _inbound(
    scope: Scope, body: bytes, identity: Identity | None, *, complete: bool, overloaded: bool = False
) -> Inbound:
    return Inbound(
        server=scope["path_params"]["name"],
        body=body,
        headers=scope["headers"],
        peer=scope["client"][0] if scope.get("client") else None,
        identity=identity,
        tls=peer_of(scope),
        transport=scope.get(TRANSPORT, "http"),
        complete=complete,
        overloaded=overloaded,
    )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
