"""Turns: what one log's flood may take of what all logs of a process share.

Four bounds stand behind each other. Requests in hand are counted for each log (`Places`), and so are the bytes that
its enforcers have sent and no answer was given to (`Bytes`). Work for threads waits in one queue for each log, and the
queues take turns (`FairExecutor`). Records that wait to be sequenced are bounded by each log's own sequencer. What a
log takes beyond its bounds is its own loss.

Some of a log's threads are left to whoever takes records of enforcers: a gateway that records strictly lets no call
pass meanwhile, and searches of a long log may take long.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final, ParamSpec, TypeAlias, TypeVar

from ledger.errors import OverloadedError
from ledger.queued_calls import QueuedCall

__all__ = [
    "RESERVED",
    "THREADS",
    "Bytes",
    "FairExecutor",
    "LargeTurns",
    "Places",
    "Room",
    "current_log",
    "takes_records",
]

current_log: ContextVar[str] = ContextVar("current_log", default="")
"""The log that the running task works for; empty where that is not known, as before a token was looked up."""

takes_records: ContextVar[bool] = ContextVar("takes_records", default=False)
"""Whether the running task takes records of an enforcer."""

_P = ParamSpec("_P")
_T = TypeVar("_T")
RESERVED: Final = 4
"""How many threads of a log are left to whoever takes records."""
THREADS: Final = 16
"""How many threads work for the logs of a process."""
_SHARE: Final = 12
_LARGE_BYTES: Final = 65_536
"""A batch of more is large: some fifty records."""

_Queue: TypeAlias = tuple[str, bool]
"""A log, and whether records of enforcers are taken there."""


class Places:
    """Counts the requests of one log that are in hand. One event loop owns it."""

    def __init__(self, limit: int) -> None:
        """Have ``limit`` places."""
        self._limit = limit
        self.taken = 0

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place for the block.

        Raises:
            OverloadedError: All are taken.
        """
        if self.taken >= self._limit:
            raise OverloadedError(f"{self._limit} requests are in hand; ask again")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Bytes:
    """Counts the bytes of one log's requests that wait for an answer. One event loop owns it."""

    def __init__(self, limit: int) -> None:
        """Have room for ``limit`` bytes."""
        self.limit = limit
        self.taken = 0

    @contextmanager
    def take(self) -> Iterator[Room]:
        """Hold room for the block; it grows as bytes arrive."""
        room = Room(self)
        try:
            yield room
        finally:
            self.taken -= room.size


class Room:
    """What one request takes of a log's `Bytes`."""

    def __init__(self, of: Bytes) -> None:
        """Begin with nothing."""
        self._of = of
        self.size = 0

    def reach(self, size: int) -> None:
        """Hold room for ``size`` bytes in all; less than is held already changes nothing.

        Raises:
            OverloadedError: There is no room for that much.
        """
        more = max(0, size - self.size)
        if self._of.taken + more > self._of.limit:
            raise OverloadedError(f"{self._of.taken} bytes of requests wait for their answers; ask again")
        self._of.taken += more
        self.size += more


class LargeTurns:
    """Has the large batches of one log judged and sealed one after the other. One event loop owns it.

    Side by side they would be done no sooner: Python's lock lets one thread work, and each signature and each payload
    gives it up for a moment, so that the threads do little but take it from each other. A small request, as of a
    gateway that records strictly, waits for none of them.
    """

    def __init__(self) -> None:
        """Have nobody's turn."""
        self._turn = asyncio.Semaphore()

    def take(self, size: int) -> AbstractAsyncContextManager[None]:
        """Return what to hold while a request of ``size`` bytes is judged and sealed."""
        return self._turn if size > _LARGE_BYTES else nullcontext()


class FairExecutor(ThreadPoolExecutor):
    """Threads that serve the logs in turn; made to be an event loop's default executor.

    INVARIANT: however much work of one log waits, the next work of another waits for no more than one turn of each log
    before it; a log whose calls all hang leaves threads for the others, and its searches leave some to its enforcers.
    """

    def __init__(self, threads: int = THREADS, share: int = _SHARE, reserved: int = 0) -> None:
        """Have threads.

        Args:
            threads: How many.
            share: Of them one log has so many at most.
            reserved: Of its share so many are left to whoever takes records.
        """
        if not 0 <= reserved < share <= threads:
            raise ValueError("a share is at least 1 thread and at most all, and what is reserved is a part of it")
        super().__init__(max_workers=threads, thread_name_prefix="turn")
        self._total = threads
        self._share = share
        self._turns = threading.Lock()
        self._share_of_the_rest = share - reserved
        # Guarded by _turns: work by queue, the one whose turn is next first; threads in use by queue.
        self._queues: OrderedDict[_Queue, deque[QueuedCall]] = OrderedDict()
        self._used: Counter[_Queue] = Counter()
        self._ending = False

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Queue a call for the log that the calling task works for."""
        future: Future[_T] = Future()
        work = QueuedCall(future, lambda: fn(*args, **kwargs))
        with self._turns:
            if self._ending:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._queues.setdefault((current_log.get(), takes_records.get()), deque()).append(work)
            self._give_turns()
        return future

    def _give_turns(self) -> None:
        """Start what may start; the lock is held."""
        while self._used.total() < self._total:
            name = next(filter(self._may_start, self._queues), None)
            if name is None:
                return
            queue = self._queues.pop(name)
            work = queue.popleft()
            if queue:
                self._queues[name] = queue  # behind all others
            self._used[name] += 1
            super().submit(self._take_turn, name, work)

    def _may_start(self, name: _Queue) -> bool:
        log_id, takes = name
        rest = self._used[log_id, False]
        return self._used[log_id, True] + rest < self._share and (takes or rest < self._share_of_the_rest)

    def _take_turn(self, name: _Queue, work: QueuedCall) -> None:
        try:
            work.run()
        finally:
            with self._turns:
                self._used[name] -= 1
                self._used += Counter()  # forgets what is not used any more
                if not self._ending:
                    self._give_turns()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # the executor's signature
        """Take no more work, and end what waits or cancel it."""
        with self._turns:
            self._ending = True
            left = [work for queue in self._queues.values() for work in queue]
            self._queues.clear()
            for work in left:
                if cancel_futures:
                    work.future.cancel()
                else:
                    super().submit(work.run)
        super().shutdown(wait=wait, cancel_futures=cancel_futures)
