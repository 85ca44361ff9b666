"""The suite's client: sends exactly the bytes and headers that a case wants, and reads what comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict

from enforcement.intermediaries.stub import STATEFUL, STATELESS
from enforcement.sse import EventStream

__all__ = ["Answer", "Caller", "Conversation", "Failed", "Pairs", "stateless_headers", "stateless_message"]

Pairs = Sequence[tuple[str, str]]
_MAX_EVENT: Final = 1 << 20
_ACCEPT: Final = "application/json, text/event-stream"
_META: Final = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}, "sampling": {}},
}


class Failed(Exception):  # noqa: N818  # it is no error of this program
    """The intermediary does not do what a case asks for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        status: The HTTP status.
        headers: As they came.
        body: The bytes.
    """

    status: int
    headers: CIMultiDict[str]
    body: bytes

    def message(self) -> dict[str, Any]:
        """Return the JSON-RPC message of the answer, the last one of a stream.

        Raises:
            Failed: There is none.
        """
        text = self.body
        if self.headers.get("Content-Type", "").startswith("text/event-stream"):
            events = [event.data for event in EventStream(max_event_bytes=_MAX_EVENT).feed(text) if event.data]
            text = events[-1] if events else b""
        try:
            value = json.loads(text)
        except ValueError:
            raise Failed(f"the answer (status {self.status}) is no JSON") from None
        if not isinstance(value, dict):
            raise Failed("the answer is no object")
        return value

    def is_refusal(self) -> bool:
        """Whether it says no: by its status, or as a JSON-RPC error."""
        if self.status >= 400:  # noqa: PLR2004  # HTTP's border of errors
            return True
        try:
            return "error" in self.message()
        except Failed:
            return False

    def text(self) -> str:
        """Return the text of the tool's result.

        Raises:
            Failed: It is none.
        """
        result = self.message().get("result")
        try:
            return str(result["content"][0]["text"])  # type: ignore[index]  # whatever it is, it may not be so
        except (KeyError, IndexError, TypeError):
            raise Failed(f"the answer (status {self.status}) is no result of the tool") from None


def stateless_headers(method: str = "tools/call", name: str | None = "echo", *more: tuple[str, str]) -> Pairs:
    """Return the headers of a request of 2026-07-28."""
    pairs = [("MCP-Protocol-Version", STATELESS), ("Mcp-Method", method)]
    if name is not None:
        pairs.append(("Mcp-Name", name))
    return [*pairs, *more]


def stateless_message(
    mark: str,
    *,
    method: str = "tools/call",
    name: str = "echo",
    request_id: object = 7,
    **params: Any,  # noqa: ANN401  # JSON
) -> dict[str, Any]:
    """Return a call of 2026-07-28 whose arguments hold a mark; ``params`` go beside them."""
    return {
        "jsonrpc": "2.0",
        "id": request_id,
        "method": method,
        "params": {"name": name, "arguments": {"mark": mark}, "_meta": dict(_META), **params},
    }


class Caller:
    """Sends requests to the intermediary."""

    def __init__(self, http: aiohttp.ClientSession, url: str, headers: Pairs) -> None:
        """Take the parts.

        Args:
            http: The connections.
            url: The intermediary's endpoint.
            headers: What each request carries besides: credentials.
        """
        self._http = http
        self._url = url
        self._headers = list(headers)

    def _all(self, headers: Pairs, content_type: str | None) -> CIMultiDict[str]:
        given = {name.lower() for name, _ in headers}
        pairs = [("Accept", _ACCEPT), *self._headers]
        if content_type is not None:
            pairs.append(("Content-Type", content_type))
        return CIMultiDict([*(pair for pair in pairs if pair[0].lower() not in given), *headers])

    async def request(
        self, method: str, body: bytes | None, headers: Pairs, *, content_type: str | None = "application/json"
    ) -> Answer:
        """Send a request and read the whole answer."""
        own = self._all(headers, content_type if body is not None else None)
        skip = ["Content-Type"] if body is None or content_type is None else []
        async with self._http.request(
            method, self._url, data=body, headers=own, skip_auto_headers=skip, allow_redirects=False
        ) as response:
            return Answer(response.status, CIMultiDict(response.headers), await response.read())

    async def call(self, message: object, headers: Pairs) -> Answer:
        """Post a message."""
        return await self.request("POST", json.dumps(message).encode(), headers)

    async def stateless(self, mark: str, name: str = "echo", *more: tuple[str, str], **params: Any) -> Answer:  # noqa: ANN401  # JSON
        """Call a tool in the stateless era."""
        return await self.call(
            stateless_message(mark, name=name, **params), stateless_headers("tools/call", name, *more)
        )

    @asynccontextmanager
    async def stream(self, method: str, message: object | None, headers: Pairs) -> AsyncIterator[AsyncIterator[Any]]:
        """Send a request and read its events one by one: each as ``(message, id)``.

        Raises:
            Failed: The answer is no stream.
        """
        body = None if message is None else json.dumps(message).encode()
        own = self._all(headers, "application/json" if body is not None else None)
        async with self._http.request(method, self._url, data=body, headers=own) as response:
            if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                raise Failed(f"the answer (status {response.status}) is no stream")
            yield _events(response)

    async def begin(self) -> Conversation:
        """Begin a session of the stateful era.

        Raises:
            Failed: There is none to be had.
        """
        params = {
            "protocolVersion": STATEFUL,
            "capabilities": {"sampling": {}},
            "clientInfo": {"name": "suite", "version": "1"},
        }
        answer = await self.call({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}, [])
        session = answer.headers.get("Mcp-Session-Id")
        if "result" not in answer.message() or session is None:
            raise Failed(f"initialize gives no session (status {answer.status})")
        conversation = Conversation(self, session)
        await conversation.notify("notifications/initialized")
        return conversation


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    stream = EventStream(max_event_bytes=_MAX_EVENT)
    async for chunk in response.content.iter_any():
        for event in stream.feed(chunk):
            if event.data:
                yield json.loads(event.data), event.event_id


@dataclass(frozen=True, slots=True)
class Conversation:
    """A session of the stateful era, as the client knows it."""

    caller: Caller
    session: str

    @property
    def headers(self) -> Pairs:
        """What each of its requests carries."""
        return [("Mcp-Session-Id", self.session), ("MCP-Protocol-Version", STATEFUL)]

    async def notify(self, method: str, params: dict[str, Any] | None = None) -> Answer:
        """Send a notification."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        return await self.caller.call({**message, "params": params} if params else message, self.headers)

    def message(self, mark: str, name: str = "echo", *, request_id: object = 7, **params: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
        """Return a call of a tool."""
        members = {"name": name, "arguments": {"mark": mark}, **params}
        return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": members}

    async def tool(self, mark: str, name: str = "echo", **params: Any) -> Answer:  # noqa: ANN401  # JSON
        """Call a tool."""
        return await self.caller.call(self.message(mark, name, **params), self.headers)
