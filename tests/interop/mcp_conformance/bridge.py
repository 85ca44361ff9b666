"""Streamable HTTP in front of a server over standard input and output, for the suite, which speaks HTTP alone.

A session of the stateful era is a conversation of its own, and so is each message of the stateless era. The bridge
passes messages on as they are, and checks only what is of HTTP: host and origin, and headers that must mirror the body.
It resumes no streams.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, Self

from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS, InboundLadderRejection, classify_inbound_request
from mcp_types import HEADER_MISMATCH, INVALID_PARAMS
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ledger.tasks import end
from tests.support.transports import Ends

__all__ = ["Bridge", "Connect"]

Connect = Callable[[], AbstractAsyncContextManager[Ends]]
"""Opens the client's end of a conversation."""

_ANSWER_SECONDS: Final = 60.0
_OF_HTTP: Final = (HEADER_MISMATCH, INVALID_PARAMS)
"""What is refused here: the header said that it is of the stateless era, and no line can."""

_VERSION: Final = "io.modelcontextprotocol/protocolVersion"


class _Stream:
    """What is said to one request, until its answer."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.token = _meta(request).get("progressToken")
        self.messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def next(self) -> dict[str, Any] | None:
        """Return what is said next; None if the conversation ended."""
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await self.messages.get()


class _Conversation:
    """One client and one server over lines."""

    def __init__(self) -> None:
        self._streams: dict[Any, _Stream] = {}
        self._stack = AsyncExitStack()
        self._ends: Ends | None = None

    async def open(self, connect: Connect) -> _Conversation:
        self._ends = await self._stack.enter_async_context(connect())
        self._stack.push_async_callback(end, asyncio.create_task(self._read(self._ends[0])))
        return self

    async def close(self) -> None:
        await self._stack.aclose()

    def say(self, message: dict[str, Any]) -> None:
        assert self._ends is not None
        self._ends[1].write(json.dumps(message).encode() + b"\n")

    def ask(self, request: dict[str, Any]) -> _Stream:
        """Send a request; return what is said to it."""
        stream = self._streams[request["id"]] = _Stream(request)
        self.say(request)
        return stream

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = json.loads(line)
            stream = self._meant(message) if "method" in message else self._streams.pop(message.get("id"), None)
            if stream is not None:
                stream.messages.put_nowait(message)
        for stream in self._streams.values():
            stream.messages.put_nowait(None)

    def _meant(self, message: dict[str, Any]) -> _Stream | None:
        """Return to which request something belongs: that which has its progress token, or else the last one."""
        token = message.get("params", {}).get("progressToken")
        for stream in self._streams.values():
            if token is not None and stream.token == token:
                return stream
        return next(reversed(self._streams.values()), None)


class Bridge:
    """The application. Used as a context manager around its serving."""

    def __init__(self, connect: Connect, origin: str) -> None:
        """Take the way to the server, and the origin that pages may have."""
        self._connect = connect
        self._origin = origin
        self._sessions: dict[str, _Conversation] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.app = Starlette(routes=[Route("/mcp", self._serve, methods=["GET", "POST", "DELETE"])])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for conversation in self._sessions.values():
            self._close(conversation)
        await asyncio.gather(*self._closing)

    def _close(self, conversation: _Conversation) -> None:
        """End a conversation, whatever becomes of the request that it was for."""
        self._closing.add(asyncio.create_task(conversation.close()))

    async def _serve(self, request: Request) -> Response:
        if self._foreign(request):
            return Response(status_code=403)
        session = request.headers.get("mcp-session-id")
        if request.method == "GET":
            return Response(status_code=405)
        if request.method == "DELETE":
            conversation = self._sessions.pop(session or "", None)
            if conversation is not None:
                self._close(conversation)
            return Response(status_code=404 if conversation is None else 200)
        if session is not None and session not in self._sessions:
            return Response(status_code=404)
        message = await request.json()
        if message.get("method") == "initialize" and _VERSION not in _meta(message):
            session = secrets.token_hex(16)
            self._sessions[session] = await _Conversation().open(self._connect)
        if session is not None:
            return await _answer(self._sessions[session], message, {"mcp-session-id": session}, None)
        return await self._once(request, message)

    async def _once(self, request: Request, message: dict[str, Any]) -> Response:
        """Answer a message of the stateless era."""
        objection = classify_inbound_request(message, headers=dict(request.headers))
        if isinstance(objection, InboundLadderRejection) and objection.code in _OF_HTTP:
            error = {"code": objection.code, "message": objection.message}
            return JSONResponse({"jsonrpc": "2.0", "id": message.get("id"), "error": error}, status_code=400)
        conversation = await _Conversation().open(self._connect)
        return await _answer(conversation, message, {}, lambda: self._close(conversation))

    def _foreign(self, request: Request) -> bool:
        """Whether another site's page may be behind it (DNS rebinding)."""
        host, origin = request.headers.get("host"), request.headers.get("origin")
        return f"http://{host}" != self._origin or origin not in (None, self._origin)


async def _answer(
    conversation: _Conversation, message: dict[str, Any], headers: dict[str, str], close: Callable[[], None] | None
) -> Response:
    """Return an answer as one document if nothing comes before it, or else as events.

    Args:
        conversation: Where it is said.
        message: What the client says.
        headers: Of the response.
        close: What ends the conversation with the answer; None if it goes on, in the stateful era.
    """
    done = None if close is None else BackgroundTask(_soon, close)
    if "method" not in message or "id" not in message:
        conversation.say(message)
        return Response(status_code=202, background=done)
    stream = conversation.ask(message)
    first = await stream.next()
    if first is None:
        return Response(status_code=502, background=done)
    if "method" not in first:
        status = 200 if close is None else ERROR_CODE_HTTP_STATUS.get(first.get("error", {}).get("code"), 200)
        return JSONResponse(first, status_code=status, headers=headers, background=done)

    async def events() -> AsyncIterator[str]:
        said: dict[str, Any] | None = first
        try:
            while said is not None:
                yield f"event: message\ndata: {json.dumps(said)}\n\n"
                said = await stream.next() if "method" in said else None
        finally:  # the client may have gone before the answer
            if close is not None:
                close()

    return StreamingResponse(events(), media_type="text/event-stream", headers=headers)


async def _soon(close: Callable[[], None]) -> None:
    close()


def _meta(message: dict[str, Any]) -> dict[str, Any]:
    params = message.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    return meta if isinstance(meta, dict) else {}
