"""Lanes: a few threads each, in which whoever asks takes turns with the others who ask.

A decision that a call waits for must not wait behind a replay of a million records, and one tenant's replay must not
hold up another's. The first is what lanes are for: each has threads of its own. The second is what turns are for:
within a lane, work waits in one queue for each name, and the queues take turns. Work that takes long, such as that of a
hostile bundle, would still hold every thread: so there is one thread more than any name may have.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ledger.queued_calls import QueuedCall

__all__ = ["Lane"]

_T = TypeVar("_T")


class Lane:
    """Threads whose work waits by name, the names taking turns. Safe for any thread.

    INVARIANT: however much work waits under one name, and however long it takes, the next work of another waits for no
    more than the work in hand of further names and one turn of each name before it.
    """

    def __init__(self, name: str, threads: int) -> None:
        """Have so many threads for a name, and one more for the others, each begun when it is first needed."""
        self._executor = ThreadPoolExecutor(max_workers=threads + 1, thread_name_prefix=name)
        self._most = threads
        self._lock = threading.Lock()
        # Guarded by _lock; the name whose turn is next comes first. The executor has one call of _turns for each work.
        self._queues: OrderedDict[str, deque[QueuedCall]] = OrderedDict()
        self._in_hand: Counter[str] = Counter()

    def submit(self, name: str, call: Callable[[], _T]) -> Future[_T]:
        """Queue a call under a name.

        Raises:
            RuntimeError: The lane is closed.
        """
        future: Future[_T] = Future()
        with self._lock:
            self._executor.submit(self._turns)
            self._queues.setdefault(name, deque()).append(QueuedCall(future, call))
        return future

    def _turns(self) -> None:
        # Until there is nothing that may be done now: a name that has all its threads was passed over, and its work has
        # nobody but those threads to come back for it.
        while (taken := self._take()) is not None:
            name, work = taken
            try:
                work.run()
            finally:
                self._put_down(name)
            del work, taken  # a thread that waits keeps nobody's result

    def _take(self) -> tuple[str, QueuedCall] | None:
        """Take up the next work of the first name that may have one more thread."""
        with self._lock:
            name = next((name for name in self._queues if self._in_hand[name] < self._most), None)
            if name is None:
                return None
            queue = self._queues.pop(name)
            work = queue.popleft()
            if queue:
                self._queues[name] = queue  # behind all others
            self._in_hand[name] += 1
            return name, work

    def _put_down(self, name: str) -> None:
        with self._lock:
            self._in_hand[name] -= 1
            if not self._in_hand[name]:
                del self._in_hand[name]

    def close(self) -> None:
        """Cancel what waits, and wait for what is in hand."""
        with self._lock:
            left = [work for queue in self._queues.values() for work in queue]
            self._queues.clear()
        for work in left:
            work.future.cancel()
        self._executor.shutdown(wait=True, cancel_futures=True)
