"""A pipe that is written to without waiting for who reads it.

What must be recorded does not wait for a peer that does not read: lines are put into a queue, bounded in bytes, which a
task of its own writes. A peer that lets the queue run over, or takes nothing for too long, is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Final, Protocol

import structlog

from ledger.tasks import end

__all__ = ["Outlet", "Sink"]

_LOG: Final = structlog.get_logger(__name__)


class Sink(Protocol):
    """Where bytes are written to; `asyncio.StreamWriter` is one."""

    def write(self, data: bytes) -> None:
        """Take bytes."""
        ...

    async def drain(self) -> None:
        """Wait until there is room for more."""
        ...

    def write_eof(self) -> None:
        """End it once everything was taken."""
        ...


class Outlet:
    """Writes lines to one peer in the order in which they were put. Owned by the event loop.

    Attributes:
        given_up: Set once the peer does not read, or is gone.
    """

    def __init__(self, sink: Sink, *, max_bytes: int, idle_seconds: float) -> None:
        """Take the pipe.

        Args:
            sink: The pipe.
            max_bytes: Most bytes that wait.
            idle_seconds: How long one line may take.
        """
        self._sink = sink
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._put = asyncio.Event()
        self._closing = False
        self.given_up = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def put(self, line: bytes) -> bool:
        """Have a line written; return False if the peer was given up, and the line is lost."""
        if self.given_up.is_set() or self._closing:
            return False
        if self._lines and self._waiting_bytes + len(line) > self._max_bytes:
            self._give_up("queue_full")
            return False
        self._lines.append(line)
        self._waiting_bytes += len(line)
        self._put.set()
        return True

    async def close(self, seconds: float) -> None:
        """Write what waits, as long as the peer takes it and no longer than so many seconds, and end the pipe."""
        self._closing = True
        self._put.set()
        await asyncio.wait({self._task}, timeout=seconds)
        await end(self._task)
        with contextlib.suppress(OSError, RuntimeError):  # it is gone, or was ended before
            self._sink.write_eof()

    async def _run(self) -> None:
        while not self.given_up.is_set():
            if not self._lines:
                if self._closing:
                    return
                self._put.clear()
                await self._put.wait()
                continue
            line = self._lines.popleft()
            try:
                async with asyncio.timeout(self._idle_seconds):
                    self._sink.write(line)
                    await self._sink.drain()
            except TimeoutError:
                self._give_up("not_read")
            except (OSError, RuntimeError) as error:
                self._give_up(type(error).__name__)
            self._waiting_bytes -= len(line)

    def _give_up(self, reason: str) -> None:
        if not self.given_up.is_set() and not self._closing:
            _LOG.warning("pipe_given_up", reason=reason)
        self.given_up.set()
        self._lines.clear()
        self._put.set()
