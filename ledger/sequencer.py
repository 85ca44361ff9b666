"""The sequencer: group commit of concurrent appends.

Appends that arrive while a transaction is being synced wait together and go into the next one, so that the cost of
one sync is shared by all who wait for it. The queue is bounded: what does not fit is refused at once, and nothing of it
is taken.

A storage error is fatal to the batch in hand, whose fate is unknown, and to everything after it until a verified
reload: the store must answer, and must still hold at least as much as was ever acknowledged (invariant 2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ledger.clock import Clock
from ledger.errors import ConflictError, DependencyError, OverloadedError, StateError, StorageError
from ledger.ports import Acknowledgement, LogStore, PendingEntry

__all__ = ["Sequencer"]


@dataclass(slots=True)
class _Waiting:
    """One append that waits for its transaction."""

    batch: Sequence[PendingEntry]
    done: asyncio.Future[list[Acknowledgement]]


class Sequencer:
    """Gives durable indexes to one log's records.

    Concurrency: `append` may be called by any number of tasks of one event loop. The worker task owns the store; at
    most one transaction is under way.
    """

    def __init__(
        self,
        store: LogStore,
        log_id: str,
        clock: Clock,
        *,
        max_group_records: int = 2_000,
        max_waiting_records: int = 20_000,
        on_sequenced: Callable[[int], None] | None = None,
    ) -> None:
        """Prepare; `start` begins the work.

        Args:
            store: Where indexes are given.
            log_id: Which log.
            clock: For the time of receipt.
            max_group_records: Records in one transaction, at most; a single larger batch goes alone.
            max_waiting_records: Records waiting, at most.
            on_sequenced: Called with the new size after each transaction.
        """
        self._store = store
        self._log_id = log_id
        self._clock = clock
        self._max_group = max_group_records
        self._max_waiting = max_waiting_records
        self._on_sequenced = on_sequenced
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._waiting_records = 0
        self._acknowledged_size = 0
        self._broken = False
        self._worker: asyncio.Task[None] | None = None
        # One thread: the store is never entered twice at once, and SQLite keeps its connection.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sequencer-{log_id}")

    @property
    def waiting_records(self) -> int:
        """Records that wait for a transaction."""
        return self._waiting_records

    @property
    def healthy(self) -> bool:
        """Whether the last transaction succeeded, or a reload since."""
        return not self._broken

    async def start(self) -> None:
        """Begin to sequence.

        Raises:
            NotFoundError: There is no such log.
            StorageError: The store failed.
        """
        self._acknowledged_size = await self._in_thread(self._store.sequenced_size, self._log_id)
        self._worker = asyncio.create_task(self._run(), name=f"sequencer-{self._log_id}")

    async def stop(self) -> None:
        """Stop; appends that still wait are refused."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None
        while not self._queue.empty():
            waiting = self._queue.get_nowait()
            if not waiting.done.done():
                waiting.done.set_exception(StateError("the ledger is shutting down"))
        self._thread.shutdown(wait=True)

    async def append(self, batch: Sequence[PendingEntry]) -> list[Acknowledgement]:
        """Sequence a batch, whole or not at all.

        INVARIANT 1: when this returns, every record of the batch is durable and has its index for ever.

        Args:
            batch: Records in the order in which they are to stand.

        Raises:
            OverloadedError: Too many records wait; nothing was taken.
            ConflictError: An id is taken by another record; nothing was taken.
            StorageError: The store failed; whether the batch persisted is unknown, sending it again is safe.
            StateError: The sequencer does not run.
        """
        if not batch:
            return []
        if self._worker is None:
            raise StateError("the sequencer does not run")
        if self._waiting_records and self._waiting_records + len(batch) > self._max_waiting:
            raise OverloadedError(f"{self._waiting_records} records wait to be sequenced")
        waiting = _Waiting(batch, asyncio.get_running_loop().create_future())
        self._waiting_records += len(batch)
        self._queue.put_nowait(waiting)
        # A caller that is cancelled leaves its batch in the queue: it is sequenced all the same, as if the answer
        # had been lost on the way, and sending it again is acknowledged as a duplicate.
        return await asyncio.shield(waiting.done)

    async def _in_thread(self, function: Callable[..., int], *arguments: object) -> int:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def _next_group(self) -> list[_Waiting]:
        group = [await self._queue.get()]
        records = len(group[0].batch)
        while not self._queue.empty() and records < self._max_group:
            group.append(self._queue.get_nowait())
            records += len(group[-1].batch)
        return group

    async def _run(self) -> None:
        while True:
            group = await self._next_group()
            try:
                await self._sequence(group)
            finally:
                self._waiting_records -= sum(len(waiting.batch) for waiting in group)
                for waiting in group:
                    if not waiting.done.done():
                        waiting.done.set_exception(StateError("the ledger is shutting down"))

    async def _reload(self) -> None:
        size = await self._in_thread(self._store.sequenced_size, self._log_id)
        if size < self._acknowledged_size:
            raise StorageError(
                f"the store holds {size} records of {self._acknowledged_size} that were acknowledged: "
                "nothing is sequenced"
            )
        self._broken = False

    async def _sequence(self, group: list[_Waiting]) -> None:
        batches = [waiting.batch for waiting in group]
        loop = asyncio.get_running_loop()
        try:
            if self._broken:
                await self._reload()
            call = lambda: self._store.sequence(self._log_id, batches, received_ms=self._clock.now_ms())  # noqa: E731  # keyword for a thread
            results = await loop.run_in_executor(self._thread, call)
        except Exception as error:  # noqa: BLE001  # whatever it was, the worker must live and nothing be relied on
            self._broken = True
            known = isinstance(error, DependencyError | StateError)
            reported = error if known else StorageError("sequencing failed unexpectedly")
            reported.__cause__ = None if known else error
            for waiting in group:
                _fail(waiting.done, reported)
            return
        for waiting, result in zip(group, results, strict=True):
            if isinstance(result, ConflictError):
                _fail(waiting.done, result)
            elif not waiting.done.done():
                waiting.done.set_result(result)
        fresh = [done.index + 1 for result in results if isinstance(result, list) for done in result]
        if fresh:
            self._acknowledged_size = max(self._acknowledged_size, *fresh)
            if self._on_sequenced is not None:
                self._on_sequenced(self._acknowledged_size)


def _fail(future: asyncio.Future[list[Acknowledgement]], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        # An append whose caller went away has nobody to retrieve the error; that is no reason to log it as lost.
        future.exception()
