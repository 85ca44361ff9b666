"""The sequencer: group commit, back-pressure, and what a failure does to whom. Its own behaviour, from us."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeVar

import msgspec
import pytest

from ledger.clock import SimulatedClock
from ledger.errors import ConflictError, NotFoundError, OverloadedError, StateError, StorageError
from ledger.ports import PendingEntry
from ledger.records import sign_record
from ledger.sequencer import Sequencer
from ledger.stores.memory import MemoryLogStore
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, pending

T = TypeVar("T")
WAIT_SECONDS = 20


class ScriptedStore(MemoryLogStore):
    """A memory store that notes its transactions, waits where told, and fails as told."""

    def __init__(self) -> None:
        super().__init__(LOG_ID)
        self.groups: list[list[int]] = []
        self.received: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.before: list[Exception | None] = []
        self.after: list[Exception | None] = []

    def sequence(self, log_id: str, batches: Sequence[Sequence[PendingEntry]], *, received_ms: int):
        self.groups.append([len(batch) for batch in batches])
        self.received.append(received_ms)
        self.entered.set()
        assert self.gate.wait(WAIT_SECONDS), "nobody opened the gate"
        if self.before and (error := self.before.pop(0)) is not None:
            raise error
        results = super().sequence(log_id, batches, received_ms=received_ms)
        if self.after and (error := self.after.pop(0)) is not None:
            raise error
        return results

    def lose_last(self) -> None:
        """Forget the newest entry, as a file system that lied about a sync would."""
        log = self._logs[LOG_ID]
        log.entries.pop()


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def writer() -> Enforcer:
    return Enforcer()


def beats(writer: Enforcer, count: int = 1) -> list[PendingEntry]:
    return [pending(writer.record(writer.heartbeat())) for _ in range(count)]


def conflicting(entry: PendingEntry, writer: Enforcer) -> PendingEntry:
    return pending(sign_record(msgspec.structs.replace(entry.record, seq=9_999), writer.key))


def run(store: MemoryLogStore, test: Callable[[Sequencer], Awaitable[T]], **options: object) -> T:
    """Run a test with a started sequencer, and stop it whatever happens."""

    async def main() -> T:
        sequencer = Sequencer(store, LOG_ID, SimulatedClock(NOW_MS), **options)
        await sequencer.start()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await test(sequencer)
        finally:
            await sequencer.stop()

    return asyncio.run(main())


async def entered(store: ScriptedStore) -> None:
    """Wait until a transaction is under way."""
    await asyncio.to_thread(store.entered.wait, WAIT_SECONDS)


async def hold(store: ScriptedStore, first: Coroutine[object, object, T]) -> asyncio.Task[T]:
    """Start an append and return when its transaction is under way; the gate keeps it there."""
    store.gate.clear()
    store.entered.clear()
    task = asyncio.create_task(first)
    await entered(store)
    return task


async def started(*appends: Coroutine[object, object, T]) -> list[asyncio.Task[T]]:
    """Start appends and let each come as far as its wait."""
    tasks = [asyncio.create_task(append) for append in appends]
    await asyncio.sleep(0)
    return tasks


def indexes(acknowledgements) -> list[int]:
    return [done.index for done in acknowledgements]


# --- appending -------------------------------------------------------------------------------------------------------


def test_an_append_returns_the_indexes_of_its_records(store, writer):
    async def test(sequencer: Sequencer):
        assert indexes(await sequencer.append(beats(writer, 3))) == [0, 1, 2]
        assert indexes(await sequencer.append(beats(writer, 2))) == [3, 4]

    run(store, test)
    assert store.sequenced_size(LOG_ID) == 5


def test_an_append_returns_only_after_its_transaction(store, writer):
    async def test(sequencer: Sequencer):
        waiting = await hold(store, sequencer.append(beats(writer)))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        store.gate.set()
        assert indexes(await waiting) == [0]

    run(store, test)


def test_an_empty_batch_costs_no_transaction(store):
    async def test(sequencer: Sequencer):
        assert await sequencer.append([]) == []

    run(store, test)
    assert store.groups == []


def test_records_are_received_at_the_time_of_their_transaction(store, writer):
    run(store, lambda sequencer: sequencer.append(beats(writer)))
    assert store.received == [NOW_MS]


# --- group commit ----------------------------------------------------------------------------------------------------


def test_appends_that_arrive_during_a_transaction_share_the_next_one(store, writer):
    async def test(sequencer: Sequencer):
        first = await hold(store, sequencer.append(beats(writer)))
        others = await started(*(sequencer.append(beats(writer)) for _ in range(50)))
        store.gate.set()
        return [indexes(await append) for append in (first, *others)]

    assert run(store, test) == [[number] for number in range(51)]
    assert store.groups == [[1], [1] * 50]


def test_a_transaction_holds_no_more_records_than_allowed(store, writer):
    async def test(sequencer: Sequencer):
        first = await hold(store, sequencer.append(beats(writer)))
        others = await started(*(sequencer.append(beats(writer, 2)) for _ in range(6)))
        store.gate.set()
        return [indexes(await append) for append in (first, *others)]

    run(store, test, max_group_records=5)
    assert store.groups == [[1], [2, 2], [2, 2], [2, 2]]


def test_a_batch_above_the_limit_goes_alone(store, writer):
    async def test(sequencer: Sequencer):
        first = await hold(store, sequencer.append(beats(writer)))
        others = await started(*(sequencer.append(beats(writer, count)) for count in (1, 9, 1)))
        store.gate.set()
        return [indexes(await append) for append in (first, *others)]

    assert run(store, test, max_group_records=5) == [[0], [1], list(range(2, 11)), [11]]
    assert store.groups == [[1], [1], [9], [1]]


def test_a_conflict_fails_its_own_batch_and_no_other(store, writer):
    async def test(sequencer: Sequencer):
        entries = beats(writer)
        await sequencer.append(entries)
        first = await hold(store, sequencer.append(beats(writer)))
        good, bad, also_good = await started(
            sequencer.append(beats(writer)),
            sequencer.append([*beats(writer), conflicting(entries[0], writer)]),
            sequencer.append(beats(writer)),
        )
        store.gate.set()
        assert [indexes(await append) for append in (first, good, also_good)] == [[1], [2], [3]]
        with pytest.raises(ConflictError):
            await bad
        assert sequencer.healthy

    run(store, test)
    assert store.groups[-1] == [1, 2, 1]


# --- back-pressure ---------------------------------------------------------------------------------------------------


def test_what_does_not_fit_the_queue_is_refused_at_once_and_not_taken(store, writer):
    async def test(sequencer: Sequencer):
        first = await hold(store, sequencer.append(beats(writer, 3)))
        (fits,) = await started(sequencer.append(beats(writer, 2)))
        assert sequencer.waiting_records == 5
        refused = beats(writer)
        with pytest.raises(OverloadedError):
            await sequencer.append(refused)
        store.gate.set()
        assert indexes(await first) + indexes(await fits) == [0, 1, 2, 3, 4]
        assert sequencer.waiting_records == 0
        (again,) = await sequencer.append(refused)
        assert (again.index, again.duplicate) == (5, False)

    run(store, test, max_waiting_records=5)


def test_room_is_made_by_conflicts_and_failures_too(store, writer):
    async def test(sequencer: Sequencer):
        entries = beats(writer)
        await sequencer.append(entries)
        with pytest.raises(ConflictError):
            await sequencer.append([conflicting(entries[0], writer)])
        store.before = [StorageError("the disk is gone")]
        with pytest.raises(StorageError):
            await sequencer.append(beats(writer, 5))
        assert sequencer.waiting_records == 0
        assert len(await sequencer.append(beats(writer, 5))) == 5

    run(store, test, max_waiting_records=5)


# --- storage errors --------------------------------------------------------------------------------------------------


def test_a_storage_error_fails_every_append_of_its_transaction_and_keeps_its_cause(store, writer):
    cause = OSError("no space")
    failure = StorageError("the database failed")
    failure.__cause__ = cause

    async def test(sequencer: Sequencer):
        first = await hold(store, sequencer.append(beats(writer)))
        others = await started(*(sequencer.append(beats(writer)) for _ in range(3)))
        store.before = [None, failure]
        store.gate.set()
        assert indexes(await first) == [0]
        for append in others:
            with pytest.raises(StorageError) as caught:
                await append
            assert caught.value.__cause__ is cause
        assert not sequencer.healthy

    run(store, test)
    assert store.sequenced_size(LOG_ID) == 1


def test_after_a_storage_error_the_store_is_reloaded_and_work_goes_on(store, writer):
    async def test(sequencer: Sequencer):
        await sequencer.append(beats(writer, 2))
        store.before = [StorageError("once")]
        with pytest.raises(StorageError):
            await sequencer.append(beats(writer))
        assert indexes(await sequencer.append(beats(writer))) == [2]
        assert sequencer.healthy

    run(store, test)


def test_a_batch_that_persisted_though_the_store_failed_is_a_duplicate_when_sent_again(store, writer):
    async def test(sequencer: Sequencer):
        batch = beats(writer, 2)
        store.after = [StorageError("the answer was lost")]
        with pytest.raises(StorageError):
            await sequencer.append(batch)
        again = await sequencer.append(batch)
        assert [(done.index, done.duplicate) for done in again] == [(0, True), (1, True)]

    run(store, test)
    assert store.sequenced_size(LOG_ID) == 2


def test_a_store_that_lost_acknowledged_records_gets_no_more(store, writer):
    async def test(sequencer: Sequencer):
        await sequencer.append(beats(writer, 2))
        store.lose_last()
        store.before = [StorageError("the disk is gone")]
        with pytest.raises(StorageError):
            await sequencer.append(beats(writer))
        for _ in range(3):
            with pytest.raises(StorageError, match="holds 1 records of 2"):
                await sequencer.append(beats(writer))
        assert not sequencer.healthy

    run(store, test)
    assert store.sequenced_size(LOG_ID) == 1
    assert len(store.groups) == 2


def test_a_store_that_was_put_back_without_a_word_acknowledges_no_index_twice(store, writer):
    """A database that fails over to a copy which lags behind fails no statement: pooled connections are made anew."""

    async def test(sequencer: Sequencer):
        assert indexes(await sequencer.append(beats(writer, 3))) == [0, 1, 2]
        store.lose_last()
        store.lose_last()
        with pytest.raises(StorageError, match="gave index 1 again, of 3"):
            await sequencer.append(beats(writer))
        for _ in range(2):
            with pytest.raises(StorageError, match="holds 2 records of 3"):
                await sequencer.append(beats(writer))
        assert not sequencer.healthy

    run(store, test)
    assert len(store.groups) == 2


def test_a_sequencer_whose_worker_is_gone_says_so(store, writer):
    async def test(sequencer: Sequencer):
        await sequencer.append(beats(writer))
        assert sequencer.healthy
        sequencer._worker.cancel()
        await asyncio.gather(sequencer._worker, return_exceptions=True)
        assert not sequencer.healthy

    run(store, test)


def test_a_reload_that_fails_is_tried_again(store, writer, monkeypatch):
    real = store.sequenced_size
    answers: list[Exception | None] = [None, StorageError("not yet"), StorageError("not yet"), None]

    def sequenced_size(log_id: str) -> int:
        if (error := answers.pop(0)) is not None:
            raise error
        return real(log_id)

    monkeypatch.setattr(store, "sequenced_size", sequenced_size)

    async def test(sequencer: Sequencer):
        store.before = [StorageError("the disk is gone")]
        with pytest.raises(StorageError, match="gone"):
            await sequencer.append(beats(writer))
        for _ in range(2):
            with pytest.raises(StorageError, match="not yet"):
                await sequencer.append(beats(writer))
        assert indexes(await sequencer.append(beats(writer))) == [0]

    run(store, test)
    assert answers == []


@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError(), AssertionError()])
def test_an_unexpected_error_is_a_storage_error_with_its_cause_and_the_worker_lives(store, writer, error):
    async def test(sequencer: Sequencer):
        store.before = [error]
        with pytest.raises(StorageError) as caught:
            await sequencer.append(beats(writer))
        assert caught.value.__cause__ is error
        assert not sequencer.healthy
        assert indexes(await sequencer.append(beats(writer))) == [0]

    run(store, test)


def test_a_store_that_answers_for_another_number_of_batches_is_not_believed(writer):
    class Careless(MemoryLogStore):
        answers = 2

        def sequence(self, log_id: str, batches: Sequence[Sequence[PendingEntry]], *, received_ms: int):
            results = super().sequence(log_id, batches, received_ms=received_ms)
            self.answers -= 1
            return results if self.answers < 0 else [*results, *results][: 2 * self.answers]

    async def test(sequencer: Sequencer):
        for _ in range(2):
            with pytest.raises(StorageError):
                await sequencer.append(beats(writer))
        assert len(await sequencer.append(beats(writer))) == 1

    run(Careless(LOG_ID), test)


# --- callers that go away --------------------------------------------------------------------------------------------


def test_the_batch_of_a_cancelled_caller_is_sequenced_and_may_be_sent_again(store, writer):
    async def test(sequencer: Sequencer):
        first = await hold(store, sequencer.append(beats(writer)))
        batch = beats(writer)
        (gone,) = await started(sequencer.append(batch))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        store.gate.set()
        await first
        (again,) = await sequencer.append(batch)
        assert (again.index, again.duplicate) == (1, True)

    run(store, test)


def test_a_failure_that_no_caller_waits_for_is_no_unhandled_error(store, writer):
    unhandled: list[dict[str, object]] = []

    async def test(sequencer: Sequencer):
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        gone = await hold(store, sequencer.append(beats(writer)))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        store.before = [StorageError("the disk is gone")]
        store.gate.set()
        await sequencer.append(beats(writer))

    run(store, test)
    assert unhandled == []


# --- starting, stopping, notifying -----------------------------------------------------------------------------------


def test_an_unknown_log_cannot_be_started():
    async def main() -> None:
        sequencer = Sequencer(MemoryLogStore(), LOG_ID, SimulatedClock(NOW_MS))
        with pytest.raises(NotFoundError):
            await sequencer.start()
        await sequencer.stop()

    asyncio.run(main())


def test_nothing_is_appended_before_the_start_or_after_the_stop(store, writer):
    async def main() -> None:
        sequencer = Sequencer(store, LOG_ID, SimulatedClock(NOW_MS))
        with pytest.raises(StateError):
            await sequencer.append(beats(writer))
        await sequencer.start()
        await sequencer.append(beats(writer))
        await sequencer.stop()
        with pytest.raises(StateError):
            await sequencer.append(beats(writer))

    asyncio.run(main())
    assert store.sequenced_size(LOG_ID) == 1


def test_stopping_answers_the_transaction_in_hand_and_refuses_what_waits(store, writer):
    async def main() -> None:
        sequencer = Sequencer(store, LOG_ID, SimulatedClock(NOW_MS))
        await sequencer.start()
        in_hand = await hold(store, sequencer.append(beats(writer)))
        waiting = await started(*(sequencer.append(beats(writer)) for _ in range(3)))
        stopping = asyncio.create_task(sequencer.stop())
        await asyncio.sleep(0)
        with pytest.raises(StateError):
            await sequencer.append(beats(writer))
        store.gate.set()
        await stopping
        # Its caller is told the truth: the record is durable.
        assert indexes(await in_hand) == [0]
        for append in waiting:
            with pytest.raises(StateError, match="shutting down"):
                await append
        assert sequencer.waiting_records == 0

    asyncio.run(main())
    assert store.sequenced_size(LOG_ID) == 1


def test_stopping_twice_is_harmless(store):
    async def main() -> None:
        sequencer = Sequencer(store, LOG_ID, SimulatedClock(NOW_MS))
        await sequencer.start()
        await sequencer.stop()
        await sequencer.stop()

    asyncio.run(main())


def test_a_worker_that_is_killed_leaves_nobody_waiting(store, writer):
    async def main() -> None:
        sequencer = Sequencer(store, LOG_ID, SimulatedClock(NOW_MS))
        await sequencer.start()
        in_hand = await hold(store, sequencer.append(beats(writer)))
        (waiting,) = await started(sequencer.append(beats(writer)))
        assert sequencer._worker is not None
        sequencer._worker.cancel()
        # The transaction may still commit: its caller must not be told that nothing was taken.
        with pytest.raises(StorageError):
            await in_hand
        with pytest.raises(StateError):
            await waiting
        with pytest.raises(StateError):
            await sequencer.append(beats(writer))
        store.gate.set()
        await sequencer.stop()

    asyncio.run(main())


def test_the_new_size_is_told_after_each_transaction_that_acknowledged(store, writer):
    sizes: list[int] = []

    async def test(sequencer: Sequencer):
        entries = beats(writer, 3)
        await sequencer.append(entries)
        with pytest.raises(ConflictError):
            await sequencer.append([conflicting(entries[0], writer)])
        await sequencer.append(beats(writer, 2))
        await sequencer.append(entries)
        await asyncio.sleep(0)

    run(store, test, on_sequenced=sizes.append)
    assert sizes == [3, 5, 5]


def test_a_listener_that_fails_stops_nothing(store, writer):
    unhandled: list[object] = []

    def listener(_: int) -> None:
        raise RuntimeError("a bug in the listener")

    async def test(sequencer: Sequencer):
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["exception"]))
        assert indexes(await sequencer.append(beats(writer))) == [0]
        assert indexes(await sequencer.append(beats(writer))) == [1]
        await asyncio.sleep(0)

    run(store, test, on_sequenced=listener)
    assert [str(error) for error in unhandled] == ["a bug in the listener"] * 2


# --- a store that does not answer ------------------------------------------------------------------------------------


def test_a_store_that_does_not_answer_in_time_keeps_nobody_waiting_and_loses_nothing(store, writer):
    first, second = beats(writer), beats(writer)

    async def test(sequencer: Sequencer) -> None:
        store.gate.clear()
        for batch in (first, second):
            with pytest.raises(StorageError, match="did not answer"):
                await sequencer.append(batch)
            assert not sequencer.healthy
        # The first call was never given up by the store, and the second never reached it.
        assert store.groups == [[1]]
        store.gate.set()
        again = await sequencer.append([*first, *second])
        assert [(done.index, done.duplicate) for done in again] == [(0, True), (1, False)]
        assert sequencer.healthy

    run(store, test, answer_seconds=0.2)


def test_a_store_that_never_answers_does_not_keep_the_sequencer_from_stopping(store, writer):
    async def main() -> None:
        sequencer = Sequencer(store, LOG_ID, SimulatedClock(NOW_MS), answer_seconds=0.05)
        await sequencer.start()
        store.gate.clear()
        with pytest.raises(StorageError, match="did not answer"):
            await sequencer.append(beats(writer))
        async with asyncio.timeout(5):
            await sequencer.stop()
        with pytest.raises(StateError):
            await sequencer.append(beats(writer))
        store.gate.set()

    asyncio.run(main())


def test_what_a_late_answer_raises_is_nobodys_any_more(store, writer):
    async def test(sequencer: Sequencer) -> None:
        store.gate.clear()
        store.before = [StorageError("late")]
        batch = beats(writer)
        with pytest.raises(StorageError, match="did not answer"):
            await sequencer.append(batch)
        store.gate.set()
        assert [done.index for done in await sequencer.append(batch)] == [0]

    run(store, test, answer_seconds=0.2)
