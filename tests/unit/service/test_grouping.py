"""Appends that wait are written together, each is told of its own records, and a failure is told to all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from ledger.bodies import Heartbeat
from ledger.errors import StorageError
from ledger.ports import Acknowledgement, Draft
from service.grouping import GroupedSink


def drafts(count: int, depth: int = 0) -> list[Draft]:
    return [Draft(body=Heartbeat(kind="periodic", version="1", spool_depth=depth)) for _ in range(count)]


class Slow:
    """A sink that lets others queue up behind its first batch."""

    def __init__(self, failing: int = -1) -> None:
        self.batches: list[int] = []
        self._failing = failing
        self.begun = asyncio.Event()
        self.queued = asyncio.Event()

    async def append(self, batch: Sequence[Draft]) -> list[Acknowledgement]:
        first = sum(self.batches)
        self.batches.append(len(batch))
        if len(self.batches) == 1:
            self.begun.set()
            await self.queued.wait()
        if len(self.batches) - 1 == self._failing:
            raise StorageError("the store failed")
        return [Acknowledgement(f"r{first + n}", first + n) for n in range(len(batch))]


async def crowd(sink: Slow, sizes: Sequence[int]) -> list[list[int] | BaseException]:
    """Append the first, and the others while it is being written."""
    grouped = GroupedSink(sink)
    calls = [asyncio.create_task(grouped.append(drafts(sizes[0])))]
    await sink.begun.wait()
    calls += [asyncio.create_task(grouped.append(drafts(size))) for size in sizes[1:]]
    await asyncio.sleep(0)
    sink.queued.set()
    done = await asyncio.gather(*calls, return_exceptions=True)
    return [item if isinstance(item, BaseException) else [one.index for one in item] for item in done]


def test_what_comes_meanwhile_is_one_batch_and_everyone_gets_his_own():
    async def run() -> None:
        sink = Slow()
        assert await crowd(sink, [1, 2, 1, 3]) == [[0], [1, 2], [3], [4, 5, 6]]
        assert sink.batches == [1, 6]

    asyncio.run(run())


def test_a_batch_is_no_larger_than_it_may_be():
    async def run() -> None:
        sink = Slow()
        done = await crowd(sink, [1, 400, 400, 600, 1])
        assert sink.batches == [1, 400, 400, 600, 1]
        assert [len(item) for item in done if isinstance(item, list)] == [1, 400, 400, 600, 1]

    asyncio.run(run())


def test_a_failure_is_told_to_all_whose_records_were_in_it_and_to_no_others():
    async def run() -> None:
        sink = Slow(failing=1)
        first, *others = await crowd(sink, [1, 1, 1])
        assert first == [0]
        assert all(isinstance(item, StorageError) for item in others)

    asyncio.run(run())


def test_a_caller_that_goes_away_takes_nothing_from_the_others():
    async def run() -> None:
        sink = Slow()
        grouped = GroupedSink(sink)
        calls = [asyncio.create_task(grouped.append(drafts(1))) for _ in range(3)]
        await sink.begun.wait()
        calls[0].cancel()
        calls[1].cancel()
        sink.queued.set()
        with pytest.raises(asyncio.CancelledError):
            await calls[1]
        assert [one.index for one in await calls[2]] == [2]
        assert sum(sink.batches) == 3

    asyncio.run(run())
