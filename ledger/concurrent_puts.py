"""Putting the tiles of one publication several at a time, where each put is a journey over a network.

One after another, forty puts of thirty milliseconds are longer than the interval between two checkpoints, and forty is
what five thousand records make. A directory on this machine is best served one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from types import TracebackType
from typing import Self

__all__ = ["ConcurrentPuts"]


class ConcurrentPuts:
    """A context manager that puts up to so many files at a time; one thread uses it, once.

    INVARIANT: when the block has ended, no put is under way any more. Without an exception all have succeeded; once one
    has failed no more are taken on, and its error is raised.
    """

    def __init__(self, put: Callable[[str, bytes], None], *, at_once: int) -> None:
        """Put with ``put``, which must be safe for any thread if ``at_once`` is more than 1."""
        self._write = put
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="tiles") if at_once > 1 else None
        self._room = BoundedSemaphore(at_once)
        self._failed: Future[None] | None = None

    def put(self, path: str, data: bytes) -> None:
        """Put a file now, or as soon as there is room; waits until there is, so that little is held in memory.

        Raises:
            LedgerError: What an earlier put, or this one, raised.
        """
        if self._pool is None:
            self._write(path, data)
            return
        self._room.acquire()
        if self._failed is not None:
            self._room.release()
            self._failed.result()
        self._pool.submit(self._write, path, data).add_done_callback(self._done)

    def _done(self, future: Future[None]) -> None:
        if future.exception() is not None and self._failed is None:
            self._failed = future
        self._room.release()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is under way.

        Raises:
            LedgerError: What a put raised, unless the block raised something itself.
        """
        if self._pool is None:
            return
        self._pool.shutdown(wait=True)
        if error is None and self._failed is not None:
            self._failed.result()
