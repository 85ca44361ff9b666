"""The sequencer: group commit of concurrent appends.

Appends that arrive while a transaction is being synced wait together and go into the next one, so that the cost of
one sync is shared by all who wait for it. The queue is bounded: what does not fit is refused at once, and nothing of it
is taken.

A storage error, or no answer in time, is fatal to the batch in hand, whose fate is unknown, and to everything after it
until a verified reload: the store must answer, and must still hold at least as much as was ever acknowledged
(invariant 2).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from ledger.clock import Clock
from ledger.errors import ConflictError, DependencyError, OverloadedError, StateError, StorageError
from ledger.ports import Acknowledgement, LogStore, PendingEntry

__all__ = ["Sequencer"]

_Result: TypeAlias = list[Acknowledgement] | ConflictError
_T = TypeVar("_T")


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
        answer_seconds: float = 30.0,
        on_sequenced: Callable[[int], None] | None = None,
    ) -> None:
        """Prepare; `start` begins the work.

        Args:
            store: Where indexes are given.
            log_id: Which log.
            clock: For the time of receipt.
            max_group_records: Records in one transaction, at most; a single larger batch goes alone.
            max_waiting_records: Records waiting, at most.
            answer_seconds: How long the store may take. A call that takes longer goes on, and is over before the next
                begins; nobody waits for what it says.
            on_sequenced: Called with the new size after each transaction that acknowledged anything; what it raises
                goes to the event loop's exception handler and stops nothing.
        """
        self._store = store
        self._log_id = log_id
        self._clock = clock
        self._max_group = max_group_records
        self._max_waiting = max_waiting_records
        self._answer_seconds = answer_seconds
        self._on_sequenced = on_sequenced
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._stopping = False
        self._waiting_records = 0
        self._acknowledged_size = 0
        self._broken = False
        self._worker: asyncio.Task[None] | None = None
        self._unanswered: set[asyncio.Future[Any]] = set()
        # One thread: the store is never entered twice at once, and SQLite keeps its connection.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"sequencer-{log_id}")

    @property
    def waiting_records(self) -> int:
        """Records that wait for a transaction."""
        return self._waiting_records

    @property
    def healthy(self) -> bool:
        """Whether the last transaction succeeded, or a reload since, and there will be another."""
        return not self._broken and (self._worker is None or not self._worker.done())

    async def start(self) -> None:
        """Begin to sequence.

        Raises:
            NotFoundError: There is no such log.
            StorageError: The store failed.
        """
        self._acknowledged_size = await self._in_thread(partial(self._store.sequenced_size, self._log_id))
        self._worker = asyncio.create_task(self._run(), name=f"sequencer-{self._log_id}")

    async def stop(self) -> None:
        """Finish and answer the transaction in hand, refuse the appends that still wait, and stop."""
        self._stopping = True
        self._arrived.set()
        if self._worker is not None:
            await asyncio.gather(self._worker, return_exceptions=True)
        # A store that does not answer would keep us for as long as it likes.
        self._thread.shutdown(wait=not self._unanswered)

    async def append(self, batch: Sequence[PendingEntry]) -> list[Acknowledgement]:
        """Sequence a batch, whole or not at all.

        INVARIANT 1: when this returns, every record of the batch is durable and has its index for ever.

        Args:
            batch: Records in the order in which they are to stand.

        Raises:
            OverloadedError: Too many records wait; nothing was taken.
            ConflictError: An id is taken by another record; nothing was taken.
            StorageError: The store failed; whether the batch persisted is unknown, sending it again is safe.
            StateError: The sequencer does not run, or was stopped meanwhile; nothing was taken.
        """
        if not batch:
            return []
        if self._stopping or self._worker is None or self._worker.done():
            raise StateError("the sequencer does not run")
        if self._waiting_records and self._waiting_records + len(batch) > self._max_waiting:
            raise OverloadedError(f"{self._waiting_records} records wait to be sequenced")
        waiting = _Waiting(batch, asyncio.get_running_loop().create_future())
        self._waiting_records += len(batch)
        self._queue.append(waiting)
        self._arrived.set()
        # A caller that is cancelled leaves its batch in the queue: it is sequenced all the same, as if the answer
        # had been lost on the way, and sending it again is acknowledged as a duplicate.
        return await asyncio.shield(waiting.done)

    async def _in_thread(self, function: Callable[[], _T]) -> _T:
        """Call the store, for as long as it may take.

        Raises:
            StorageError: It did not answer in time; what it was asked may be done yet.
        """
        call = asyncio.get_running_loop().run_in_executor(self._thread, function)
        self._unanswered.add(call)
        call.add_done_callback(self._forget)
        try:
            # Shielded: a thread cannot be stopped, and what was not begun yet must not be dropped behind our back.
            async with asyncio.timeout(self._answer_seconds):
                return await asyncio.shield(call)
        except TimeoutError:
            raise StorageError(f"the store did not answer within {self._answer_seconds:g} s") from None

    def _forget(self, call: asyncio.Future[Any]) -> None:
        self._unanswered.discard(call)
        # Somebody has given it up, perhaps: then nobody else retrieves what it raised.
        if not call.cancelled():
            call.exception()

    def _next_group(self) -> list[_Waiting]:
        group = [self._queue.popleft()]
        records = len(group[0].batch)
        while self._queue and records + len(self._queue[0].batch) <= self._max_group:
            group.append(self._queue.popleft())
            records += len(group[-1].batch)
        return group

    async def _run(self) -> None:
        try:
            while not self._stopping:
                await self._arrived.wait()
                self._arrived.clear()
                while self._queue and not self._stopping:
                    group = self._next_group()
                    await self._sequence(group)
                    self._waiting_records -= sum(len(waiting.batch) for waiting in group)
        finally:
            for waiting in self._queue:
                _fail(waiting.done, StateError("the ledger is shutting down"))
            self._queue.clear()
            self._waiting_records = 0

    async def _reload(self) -> None:
        size = await self._in_thread(partial(self._store.sequenced_size, self._log_id))
        if size < self._acknowledged_size:
            raise StorageError(
                f"the store holds {size} records of {self._acknowledged_size} that were acknowledged: "
                "nothing is sequenced"
            )
        self._broken = False

    async def _transact(self, batches: Sequence[Sequence[PendingEntry]]) -> list[_Result]:
        if self._broken:
            await self._reload()
        call = partial(self._store.sequence, self._log_id, batches, received_ms=self._clock.now_ms())
        results = await self._in_thread(call)
        if len(results) != len(batches):
            raise StorageError(f"the store answered for {len(results)} batches of {len(batches)}")
        self._require_new(results)
        return results

    def _require_new(self, results: Sequence[_Result]) -> None:
        """Refuse an index that was acknowledged before.

        INVARIANT 1: an index is given once. A database that fails over to a copy which lags behind fails no statement:
        connections are made anew, and its numbers begin where the copy ends.
        """
        fresh = [done.index for result in results if isinstance(result, list) for done in result if not done.duplicate]
        if fresh and min(fresh) < self._acknowledged_size:
            raise StorageError(
                f"the store gave index {min(fresh)} again, of {self._acknowledged_size} that were acknowledged"
            )

    async def _sequence(self, group: list[_Waiting]) -> None:
        try:
            results = await self._transact([waiting.batch for waiting in group])
        except asyncio.CancelledError:
            # The thread goes on and may commit: nobody may be told that nothing was taken.
            self._give_up(group, StorageError("the ledger was stopped in the middle of a transaction"))
            raise
        except (DependencyError, StateError) as error:
            self._give_up(group, error)
            return
        except Exception as error:  # noqa: BLE001  # whatever it was, the worker must live and nothing be relied on
            unexpected = StorageError("sequencing failed unexpectedly")
            unexpected.__cause__ = error
            self._give_up(group, unexpected)
            return
        for waiting, result in zip(group, results, strict=True):
            if isinstance(result, ConflictError):
                _fail(waiting.done, result)
            else:
                waiting.done.set_result(result)
        self._note(results)

    def _give_up(self, group: list[_Waiting], error: Exception) -> None:
        self._broken = True
        for waiting in group:
            _fail(waiting.done, error)

    def _note(self, results: Sequence[_Result]) -> None:
        fresh = [done.index + 1 for result in results if not isinstance(result, ConflictError) for done in result]
        if not fresh:
            return
        self._acknowledged_size = max(self._acknowledged_size, *fresh)
        if self._on_sequenced is not None:
            # Through the loop: the listener is no part of sequencing, and its failure must not end the worker.
            asyncio.get_running_loop().call_soon(self._on_sequenced, self._acknowledged_size)


def _fail(future: asyncio.Future[list[Acknowledgement]], error: Exception) -> None:
    future.set_exception(error)
    # An append whose caller went away has nobody to retrieve the error; that is no reason to log it as lost.
    future.exception()
