"""The client's side of the gateway: one ASGI endpoint that takes MCP messages.

What is elsewhere: whether a message may pass (`enforcement.pep`), that what was taken up is seen through
(`enforcement.passage`), its way to the server (`enforcement.carriers`).

In the stateful revisions a message belongs to a session, which its header names and which belongs to one principal
(`enforcement.conversations`), and GET and DELETE are judged as messages are. In the stateless one there is only POST.

Callers without a valid token have few places of their own and take none from those who are known. Where theirs are
taken, a message is denied and recorded unread.

Source: Model Context Protocol, revision 2026-07-28, Streamable HTTP, and 2025-11-25, Transports; ASGI 3.0.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from starlette.types import Receive, Scope, Send

from enforcement.admission import Admission
from enforcement.authenticator import Authenticator
from enforcement.carriers import Carrier, Carriers
from enforcement.client_batches import BatchClient, elements_of
from enforcement.client_side import ASGIClient, ClientSide
from enforcement.connections import keep_connection
from enforcement.conversation import Conversation
from enforcement.conversation_sweeps import ConversationSweeps
from enforcement.conversations import SESSION_HEADER
from enforcement.core import Core, Running
from enforcement.identity import Identity
from enforcement.json_slices import MAX_JSON_NODES
from enforcement.mcp_headers import single_header
from enforcement.metrics import Metrics
from enforcement.passage import STOPPING
from enforcement.refusals import Reply
from enforcement.revisions import STATELESS
from enforcement.tls_peer import peer_of
from enforcement.transport_requests import LISTEN, TERMINATE
from enforcement.upstream import ServerSide
from enforcement.verdicts import Denied, Inbound
from enforcement.waiting import StreamedWait
from enforcement.way import Way

__all__ = ["TRANSPORT", "Endpoint", "serving"]

TRANSPORT: Final = "tallystick.transport"
"""Where a scope says what the records shall say of how a message came; absent for HTTP."""

# Callers without a token may have one message under way for so many calls of those who have one.
_STRANGERS: Final = 8
_ALLOWED: Final = "GET, POST, DELETE"
_ACTIONS: Final = {"GET": LISTEN, "DELETE": TERMINATE}


@asynccontextmanager
async def serving(
    core: Core, running: Running, authenticator: Authenticator, upstream: ServerSide
) -> AsyncIterator[Endpoint]:
    """Serve an enforcement point that has been started; when the context ends, everything under way is ended.

    Args:
        core: The enforcement point.
        running: Its parts.
        authenticator: Knows who sends a request.
        upstream: The way to the servers, which must outlive the context.
    """
    way = Way(
        passage=running.passage,
        upstream=upstream,
        conversations=running.conversations,
        limits=core.config.limits,
        protocol=core.config.protocol,
    )
    endpoint = Endpoint(way, running.admission, authenticator, core.metrics, sweep_seconds=core.look_seconds)
    endpoint.start()
    try:
        yield endpoint
    finally:
        # No more calls, and then no sessions in which one could be left open.
        await running.passage.stop()
        await endpoint.stop()


class _GoneError(Exception):
    """The client went away before its message was complete: there is no message."""


class Endpoint:
    """Takes the messages for all servers. Owned by the event loop."""

    def __init__(
        self, way: Way, admission: Admission, authenticator: Authenticator, metrics: Metrics, *, sweep_seconds: float
    ) -> None:
        """Take the parts.

        Args:
            way: Has messages judged and recorded, and reaches the servers.
            admission: Knows how long a message may be, and learns tools.
            authenticator: Knows who sends a request.
            metrics: Counts.
            sweep_seconds: How often it is looked which sessions nobody uses any more.
        """
        self._way = way
        self._passage = way.passage
        self._admission = admission
        self._authenticator = authenticator
        self._limits = way.limits
        self._metrics = metrics
        self._carriers = Carriers(way)
        self._sweeps = ConversationSweeps(way, interval_seconds=sweep_seconds)
        self._max_strangers = max(1, way.limits.concurrent_calls // _STRANGERS)
        self._in_flight = 0
        self._listening = 0
        self._strangers = 0

    def start(self) -> None:
        """Begin to look for sessions that nobody uses."""
        self._sweeps.start()

    async def stop(self) -> None:
        """End every session; what is under way is ended by `Passage.stop`."""
        await self._sweeps.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        client = ASGIClient(scope, send)
        if scope["method"] != "POST" and not self._is_stateful(scope):
            await client.reply(Reply(status=405, body=b"", headers=(("Allow", _ALLOWED),)))
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

    def _is_stateful(self, scope: Scope) -> bool:
        """Whether a request that is no POST may be one of the stateful revisions."""
        version = single_header(scope["headers"], "mcp-protocol-version")
        return scope["method"] in _ACTIONS and version not in STATELESS

    async def _take_call(self, scope: Scope, receive: Receive, client: ASGIClient, identity: Identity) -> None:
        if scope["method"] == "GET":
            await self._take_listener(scope, receive, client, identity)
            return
        overloaded = self._in_flight >= self._limits.concurrent_calls
        self._in_flight += 1
        self._metrics.in_flight.inc()
        try:
            body, complete = await self._read(receive, self._admission.body_limit(known=True))
            inbound = _inbound(scope, body, identity, complete=complete, overloaded=overloaded)
            await self._judge_each(*self._placed(inbound, identity), client, receive)
        finally:
            self._in_flight -= 1
            self._metrics.in_flight.dec()

    async def _take_listener(self, scope: Scope, receive: Receive, client: ASGIClient, identity: Identity) -> None:
        """Take a stream, which has a place of its own: most of the time nothing happens on it."""
        overloaded = self._listening >= self._way.protocol.streams
        self._listening += 1
        try:
            inbound = _inbound(scope, b"", identity, complete=True, overloaded=overloaded)
            await self._judge(*self._placed(inbound, identity), client, receive)
        finally:
            self._listening -= 1

    def _placed(self, inbound: Inbound, identity: Identity) -> tuple[Inbound, Conversation | None]:
        """Find the session that a message belongs to."""
        version = single_header(inbound.headers, "mcp-protocol-version")
        if version in STATELESS:
            return inbound, None
        owner = (identity.agent, identity.user)
        name = single_header(inbound.headers, SESSION_HEADER)
        if name is None:
            # A name that is no server's is refused, and must not be remembered: there is no end of such names.
            of = self._way.conversations
            conversation = (of.nameless if self._admission.knows(inbound.server) else of.passing)(owner, inbound.server)
        else:
            found = self._way.conversations.find(name, owner, inbound.server)
            if found is None:
                return replace(inbound, unknown_session=True), None
            conversation = found
        return replace(inbound, dialogue=conversation, negotiated=conversation.revision), conversation

    async def _take_from_stranger(self, scope: Scope, receive: Receive, client: ASGIClient) -> None:
        if self._strangers >= self._max_strangers:
            await self._judge(_inbound(scope, b"", None, complete=False, overloaded=True), None, client, receive)
            return
        self._strangers += 1
        try:
            body, complete = await self._read(receive, self._admission.body_limit(known=False))
        finally:
            self._strangers -= 1
        await self._judge(_inbound(scope, body, None, complete=complete), None, client, receive)

    async def _judge_each(
        self, inbound: Inbound, conversation: Conversation | None, client: ASGIClient, receive: Receive
    ) -> None:
        """Judge a message, or those of a batch one after the other: none is judged with what another one is."""
        elements = None
        whole = inbound.complete and len(inbound.body) <= self._limits.body_bytes
        if inbound.body[:1] == b"[" and whole and self._admission.takes_batches(inbound):
            elements = elements_of(inbound.body, max_nodes=MAX_JSON_NODES)
        if elements is None:
            await self._judge(inbound, conversation, client, receive)
            return
        together = BatchClient(client)
        for element in elements:
            await self._judge(replace(inbound, body=element, batched=True), conversation, together, receive)
        await together.finish()

    async def _judge(
        self, inbound: Inbound, conversation: Conversation | None, client: ClientSide, receive: Receive
    ) -> None:
        if isinstance(client, ASGIClient) and inbound.action is None:
            idle_seconds = self._limits.upstream_idle_seconds
            client = StreamedWait(client, receive, inbound.headers, conversation, idle_seconds=idle_seconds)
            inbound = replace(inbound, waiting=client)
        verdict = await self._passage.judge(inbound)
        if isinstance(verdict, Denied):
            await client.reply(verdict.reply)
        else:
            carrier = self._carriers.carrier(verdict, inbound, conversation, client)
            await self._carry(carrier, receive)

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

    async def _carry(self, carrier: Carrier, receive: Receive) -> None:
        """Carry a message until it is done, or its client goes away where that is how a client cancels."""
        call = self._passage.forward(carrier.run())
        gone = asyncio.create_task(_disconnected(receive))
        cause = "gateway_stopped"  # that is what it means if this very task is cancelled, or the call by `stop`
        try:
            done, _ = await asyncio.wait({call, gone}, return_when=asyncio.FIRST_COMPLETED)
            if call not in done and carrier.survives:
                carrier.client_gone()
                await asyncio.wait({call})
            elif call not in done:
                cause = "client_disconnected"
        finally:
            gone.cancel()
            call.cancel()  # does nothing to one that is done
            await asyncio.gather(call, gone, return_exceptions=True)
            await carrier.close(cause)
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
        action=_ACTIONS.get(scope["method"]),
    )


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
