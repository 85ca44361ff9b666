"""The way back to one client over HTTP, as every carrier of a message sees it, and over ASGI.

INVARIANT: a client that does not take what it is sent is gone: nothing waits for it for ever.
"""

from __future__ import annotations

from typing import Final, Protocol

from starlette.types import Scope, Send

from enforcement.connections import drop_connection
from enforcement.refusals import Reply

__all__ = ["ASGIClient", "ClientSide", "Headers"]

Headers = tuple[tuple[str, str], ...]
_STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


class ClientSide(Protocol):
    """The way back to the client."""

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer."""
        ...

    async def start_stream(self, headers: Headers = ()) -> None:
        """Begin an event stream, with headers beside the content type."""
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


class ASGIClient:
    """A client whose request an ASGI server has taken."""

    def __init__(self, scope: Scope, send: Send) -> None:
        """Take the request."""
        self._scope = scope
        self._send = send

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer."""
        headers = [*_encoded(reply.headers), (b"content-length", str(len(reply.body)).encode())]
        headers.append((b"cache-control", b"no-store"))
        if reply.body:
            headers.append((b"content-type", b"application/json"))
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": reply.body, "more_body": False})

    async def start_stream(self, headers: Headers = ()) -> None:
        """Begin an event stream, with headers beside the content type."""
        lines = [*_STREAM_HEADERS, *_encoded(headers)]
        await self._send({"type": "http.response.start", "status": 200, "headers": lines})

    async def send_event(self, event: bytes) -> None:
        """Send one event of the stream."""
        await self._send({"type": "http.response.body", "body": event, "more_body": True})

    async def end_stream(self) -> None:
        """End the stream."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def drop(self) -> None:
        """End the connection, whatever has not been sent."""
        drop_connection(self._scope)


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers]
