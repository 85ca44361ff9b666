"""Ending background tasks: whatever they are doing, they are over afterwards, and nobody is told how."""

from __future__ import annotations

import asyncio

from ledger.tasks import end


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
