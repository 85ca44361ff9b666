"""The suite's MCP server: notes every request as it arrives, and answers in both eras of the protocol.

What it does follows from the tool that is called: ``echo`` answers at once, ``stream`` sends two reports and waits
until it is let go on, ``ask`` (stateful) asks the client back, ``rounds`` (stateless) asks for input first, ``slow``
never answers. Every other tool answers like ``echo``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from enforcement.sse import encode_event
from ledger.errors import ConfigError

__all__ = ["STATE", "STATEFUL", "STATELESS", "Seen", "StubServer"]

STATELESS: Final = "2026-07-28"
STATEFUL: Final = "2025-11-25"
STATE: Final = "state-of-the-server/1+=="
_MAX_BODY: Final = 64 << 20
_SHUTDOWN_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that reached the server.

    Attributes:
        method: The HTTP method.
        headers: Names in lower case and values, in order.
        body: The bytes.
    """

    method: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the first value of a header."""
        return next((value for key, value in self.headers if key == name), None)

    def message(self) -> dict[str, Any]:
        """Return the body as an object; an empty one if it is none."""
        try:
            value = json.loads(self.body)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


@dataclass
class StubServer:
    """Runs the server.

    Attributes:
        seen: Everything that arrived.
        go_on: Lets streams go on.
        abandoned: Requests whose connection was closed before they were answered, by the marks in their arguments.
        answers: What clients answered to the server's requests.
    """

    seen: list[Seen] = field(default_factory=list)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    abandoned: set[str] = field(default_factory=set)
    answers: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    sessions: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen, and return the URL of the endpoint.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        application = web.Application(client_max_size=_MAX_BODY)
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            application, access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from error
        return f"http://{host}:{self._runner.addresses[0][1]}/mcp"

    async def stop(self) -> None:
        """Listen no more."""
        self.go_on.set()
        if self._runner is not None:
            await self._runner.cleanup()

    def reached(self, mark: str) -> list[Seen]:
        """Return the requests whose body or headers hold a mark."""
        return [one for one in self.seen if mark.encode() in one.body or any(mark in value for _, value in one.headers)]

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait until something is so that a request brings about; the caller bounds the time."""
        async with self._changed:
            await self._changed.wait_for(ready)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.raw_headers
        )
        seen = Seen(request.method, headers, await request.read())
        self.seen.append(seen)
        await self._notify()
        if request.method == "DELETE":
            return await self._end(seen)
        if request.method == "GET":
            return await self._listen(request, seen)
        message = seen.message()
        if request.method != "POST" or message.get("jsonrpc") != "2.0":
            return web.json_response(_error(None, -32600, "not a message"), status=400)
        return await self._answer(request, seen, message)

    async def _end(self, seen: Seen) -> web.Response:
        session = seen.header("mcp-session-id")
        if session not in self.sessions or session in self.ended:
            return web.json_response(_error(None, -32001, "no such session"), status=404)
        self.ended.add(session)
        await self._notify()
        return web.Response(status=200)

    async def _answer(self, request: web.Request, seen: Seen, message: dict[str, Any]) -> web.StreamResponse:
        method, request_id = message.get("method"), message.get("id")
        if method == "initialize":
            begun = f"stub-session-{len(self.sessions)}"
            self.sessions.append(begun)
            result = {
                "protocolVersion": STATEFUL,
                "capabilities": {"tools": {}, "logging": {}},
                "serverInfo": {"name": "stub", "version": "1"},
            }
            return web.json_response(_result(request_id, result), headers={"Mcp-Session-Id": begun})
        session = seen.header("mcp-session-id")
        if session is not None and (session not in self.sessions or session in self.ended):
            return web.json_response(_error(request_id, -32001, "no such session"), status=404)
        if method is None:
            self.answers.put_nowait(message)
        if method is None or request_id is None:
            return web.Response(status=202)
        if method == "tools/call":
            return await self._call(request, message, stateful=session is not None)
        return web.json_response(_error(request_id, -32601, "method not found"), status=404)

    async def _call(self, request: web.Request, message: dict[str, Any], *, stateful: bool) -> web.StreamResponse:
        params = message["params"]
        mark = str(params.get("arguments", {}).get("mark", ""))
        request_id = message["id"]
        name = params.get("name")
        if name == "slow":
            await self._hang(mark)
        if name == "stream":
            return await self._stream(request, message, mark)
        if name == "ask" and stateful:
            return await self._ask(request, request_id, mark)
        if name == "rounds" and "inputResponses" not in params:
            return web.json_response(_result(request_id, _asks_for_input()))
        return web.json_response(_result(request_id, _said(mark, stateful=stateful)))

    async def _hang(self, mark: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.abandoned.add(mark)
            await self._notify()
            raise

    async def _stream(self, request: web.Request, message: dict[str, Any], mark: str) -> web.StreamResponse:
        params = message["params"]
        token = params.get("_meta", {}).get("progressToken", mark)
        response = await _begin(request)
        for step in (1, 2):
            report = {"progressToken": token, "progress": step, "total": 3, "message": f"{mark} {step}"}
            await response.write(_event(_notification("notifications/progress", report), f"{mark}-{step}"))
        await self.go_on.wait()
        result = _result(message["id"], _said(mark, stateful="mcp-session-id" in request.headers))
        await response.write(_event(result, f"{mark}-3"))
        return response

    async def _ask(self, request: web.Request, request_id: object, mark: str) -> web.StreamResponse:
        response = await _begin(request)
        params = {"messages": [{"role": "user", "content": {"type": "text", "text": mark}}], "maxTokens": 1}
        question = {"jsonrpc": "2.0", "id": f"ask-{mark}", "method": "sampling/createMessage", "params": params}
        await response.write(_event(question, f"{mark}-1"))
        answer = await self.answers.get()
        said = answer.get("result", {}).get("content", {}).get("text", "nothing")
        await response.write(_event(_result(request_id, _said(f"{mark} {said}", stateful=True)), f"{mark}-2"))
        return response

    async def _listen(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        if seen.header("mcp-session-id") not in self.sessions:
            return web.Response(status=405)
        response = await _begin(request)
        last = seen.header("last-event-id")
        event_id = f"{last}-replayed" if last else f"listen-{len(self.seen)}"
        report = {"level": "info", "data": f"for {seen.header('mcp-session-id')}"}
        await response.write(_event(_notification("notifications/message", report), event_id))
        await self.go_on.wait()
        return response


async def _begin(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    return response


def _event(message: dict[str, Any], event_id: str) -> bytes:
    return encode_event(json.dumps(message).encode(), event_id=event_id)


def _notification(method: str, params: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def _result(request_id: object, result: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def _error(request_id: object, code: int, message: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}


def _said(mark: str, *, stateful: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "content": [{"type": "text", "text": mark}],
        "_meta": {"example.com/unknown": [mark, 1.0, 12345678901234567890]},
    }
    return result if stateful else {"resultType": "complete", **result}


def _asks_for_input() -> dict[str, Any]:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}}
    asked = {"mode": "form", "message": "Really?", "requestedSchema": schema}
    requests = {"sure": {"method": "elicitation/create", "params": asked}}
    return {"resultType": "input_required", "inputRequests": requests, "requestState": STATE}
