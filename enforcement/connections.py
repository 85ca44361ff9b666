"""Connections of callers who are not known yet must not use up those of callers who are.

uvicorn waits for ever for the first request of a connection, and keeps a connection after an answer. Here

* a request's head must be complete within a deadline, the first of a connection and each one after it;
* of the connections that wait for their first request, the oldest are ended if there are too many: a caller who has
  something to say says it at once;
* a connection lives on after an answer only if its caller was known (`keep_connection`).

What a request may cost after its head was read is `enforcement.endpoint`'s part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

__all__ = ["closing_strangers", "connection_class", "drop_connection", "keep_connection"]

_KEEP: Final = "tallystick.keep_connection"
_DROP: Final = "tallystick.drop_connection"
# A burst of connections is accepted before the first of them is read: one that is so young may have spoken already.
_SPARED_SECONDS: Final = 1.0


def keep_connection(scope: Scope) -> None:
    """Let a request's connection live on after its answer."""
    scope[_KEEP] = True


def drop_connection(scope: Scope) -> None:
    """End a request's connection at once, whatever waits to be sent on it."""
    drop: Callable[[], None] | None = scope.get(_DROP)
    if drop is not None:
        drop()


def closing_strangers(app: ASGIApp) -> ASGIApp:
    """Return an application that ends each connection after its answer, unless it was to be kept."""

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and not scope.get(_KEEP):
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await app(scope, receive, send_closing)

    return closing


def connection_class(*, head_seconds: float, max_waiting: int) -> type[H11Protocol]:
    """Return the protocol that uvicorn runs for each connection of one server.

    Args:
        head_seconds: A request's head must have arrived by then.
        max_waiting: Most connections that may wait for a request, those of the last second aside.
    """
    waiting: dict[_Connection, float] = {}  # since when, oldest first

    members = {"waiting": waiting, "head_seconds": head_seconds, "max_waiting": max_waiting}
    return type("Connection", (_Connection,), members)


class _Connection(H11Protocol):
    """One connection; it waits until the head of a request is complete."""

    waiting: dict[_Connection, float]
    head_seconds: float
    max_waiting: int
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._wait()
        while len(self.waiting) > self.max_waiting:
            oldest, since = next(iter(self.waiting.items()))
            if monotonic() - since < _SPARED_SECONDS:
                break
            oldest.end()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request, whatever uvicorn declares
        if cycle is not None and not cycle.response_complete:
            self._go_on()
            cycle.scope[_DROP] = self.end  # type: ignore[typeddict-unknown-key]  # for `drop_connection` alone
        elif self._deadline is None and not self.transport.is_closing():
            self._wait()  # the next request has begun, and uvicorn's own limit between two has been lifted

    def connection_lost(self, exc: Exception | None) -> None:
        self._go_on()
        super().connection_lost(exc)

    def end(self) -> None:
        """Drop the connection: nobody waits for an answer on it."""
        self._go_on()
        self.transport.abort()

    def _wait(self) -> None:
        self.waiting[self] = monotonic()
        self._deadline = self.loop.call_later(self.head_seconds, self.end)

    def _go_on(self) -> None:
        self.waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
