"""Lanes: a few threads each, in which whoever asks takes turns with the others who ask.

A decision that a call waits for must not wait behind a replay of a million records, and one tenant's replay must not
hold up another's. The first is what lanes are for: each has threads of its own. The second is what turns are for:
within a lane, work waits in one queue for each name, and the queues take turns.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["Lane"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Work:
    future: Future[Any]
    call: Callable[[], Any]

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.call()
        except BaseException as error:  # noqa: BLE001  # the waiting task's to judge, as in any executor
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


class Lane:
    """Threads whose work waits by name, the names taking turns. Safe for any thread.

    INVARIANT: however much work waits under one name, the next work of another waits for no more than the work in hand
    and one turn of each name before it.
    """

    def __init__(self, name: str, threads: int) -> None:
        """Have so many threads, each begun when it is first needed."""
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        # Guarded by _lock; the name whose turn is next comes first. The executor holds one call of _turn for each work.
        self._queues: OrderedDict[str, deque[_Work]] = OrderedDict()

    def submit(self, name: str, call: Callable[[], _T]) -> Future[_T]:
        """Queue a call under a name.

        Raises:
            RuntimeError: The lane is closed.
        """
        future: Future[_T] = Future()
        with self._lock:
            self._executor.submit(self._turn)
            self._queues.setdefault(name, deque()).append(_Work(future, call))
        return future

    def _turn(self) -> None:
        with self._lock:
            if not self._queues:
                return  # closed meanwhile
            name, queue = self._queues.popitem(last=False)
            work = queue.popleft()
            if queue:
                self._queues[name] = queue  # behind all others
        work.run()

    def close(self) -> None:
        """Cancel what waits, and wait for what is in hand."""
        with self._lock:
            left = [work for queue in self._queues.values() for work in queue]
            self._queues.clear()
        for work in left:
            work.future.cancel()
        self._executor.shutdown(wait=True, cancel_futures=True)
