"""Background tasks: ended, they are over afterwards whatever they did; repeated, they go on whatever a turn did."""

from __future__ import annotations

import asyncio

from ledger.errors import StorageError
from ledger.tasks import Repeating, end


async def _sleep() -> None:
    await asyncio.sleep(3600)


async def _fail() -> None:
    raise RuntimeError("injected")


def test_tasks_that_sleep_fail_or_are_over_are_ended_and_none_is_no_task():
    async def main() -> None:
        over = asyncio.create_task(asyncio.sleep(0))
        await over
        tasks = [asyncio.create_task(_sleep()), asyncio.create_task(_fail()), over]
        await asyncio.sleep(0)
        await end(None, *tasks)
        assert all(task.done() for task in tasks)
        assert tasks[0].cancelled()
        await end(*tasks)
        await end()

    asyncio.run(main())


def test_a_task_that_needs_time_to_end_is_waited_for():
    ended = []

    async def slow() -> None:
        try:
            await _sleep()
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    async def main() -> None:
        task = asyncio.create_task(slow())
        await asyncio.sleep(0)
        await end(task)
        assert ended == [True]

    asyncio.run(main())


# --- repeated work ---------------------------------------------------------------------------------------------------


class Scripted:
    """Work whose turns raise what a script says, or succeed."""

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.failures: list[Exception | None] = []
        self.work = Repeating("scripted", self.turn, retry_seconds=0, on_failure=self.tell)
        self.told: list[Exception] = []
        self.done = asyncio.Event()

    def tell(self, error: Exception) -> None:
        self.told.append(error)

    async def turn(self) -> float:
        self.failures.append(self.work.failure)
        if not self.script:
            self.done.set()
            return 3600
        error = self.script.pop(0)
        if error is not None:
            raise error
        return 0

    async def run(self) -> list[dict[str, object]]:
        """Run to the end of the script and return what the event loop's exception handler was told."""
        handled: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: handled.append(context))
        self.work.start()
        async with asyncio.timeout(10):
            await self.done.wait()
        await self.work.stop()
        return handled


def test_nothing_that_a_turn_raises_ends_the_work_and_its_failure_shows_until_a_turn_succeeds():
    unexpected, expected = RuntimeError("injected"), StorageError("the disk is full")
    scripted = Scripted(unexpected, expected, None)
    handled = asyncio.run(scripted.run())
    assert scripted.failures == [None, unexpected, expected, None]
    assert scripted.told == [unexpected, expected]
    assert [context["exception"] for context in handled] == [unexpected]
    assert "scripted" in str(handled[0]["message"])


def test_whoever_is_told_of_a_failure_and_fails_ends_nothing_either():
    scripted = Scripted(StorageError("the disk is full"))
    scripted.work = Repeating("scripted", scripted.turn, retry_seconds=0, on_failure=lambda _error: 1 // 0)
    asyncio.run(scripted.run())
    assert len(scripted.failures) == 2


def test_work_that_is_stopped_in_the_middle_of_a_turn_is_broken_off():
    begun = []

    async def main() -> None:
        async def turn() -> float:
            begun.append(True)
            await _sleep()
            return 0

        work = Repeating("long", turn)
        await work.stop()
        work.start()
        await asyncio.sleep(0.01)
        await work.stop()
        assert begun == [True]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_work_that_is_woken_begins_its_next_turn_at_once_and_one_wake_is_one_turn():
    turns: list[int] = []
    done = asyncio.Event()

    async def turn() -> float:
        turns.append(len(turns))
        done.set()
        return 3600

    async def main() -> None:
        work = Repeating("woken", turn)
        work.start()
        for expected in (1, 2, 3):
            async with asyncio.timeout(30):
                await done.wait()
            done.clear()
            assert len(turns) == expected
            if expected < 3:
                work.wake()
                work.wake()
        await asyncio.sleep(0.02)
        await work.stop()

    asyncio.run(main())
    assert turns == [0, 1, 2]
