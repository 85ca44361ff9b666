"""Notifications of one stream: judged once for each method, counted, and stopped whenever callers are stopped."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from enforcement.notices import MAX_METHODS, Notices
from enforcement.verdicts import Completion, Denied, Inbound, Permitted, Verdict

PERMITTED = cast("Permitted", object.__new__(Permitted))
DENIED = cast("Denied", object.__new__(Denied))


class World:
    """Permits what is not named, and remembers what it was asked."""

    def __init__(self, *denied: str) -> None:
        self.denied = denied
        self.judged: list[str] = []
        self.completed: list[Completion] = []
        self.against: str | None = None
        self.notices = Notices(self.judge, self.complete, lambda _: self.against)

    async def judge(self, inbound: Inbound) -> Verdict:
        await asyncio.sleep(0)
        method = cast("str", inbound)
        self.judged.append(method)
        return DENIED if method in self.denied else PERMITTED

    async def complete(self, permitted: Permitted, completion: Completion) -> bool:
        assert permitted is PERMITTED
        self.completed.append(completion)
        return True

    async def admits(self, method: str) -> bool:
        async def first() -> Any:
            return method

        return await self.notices.admits(method, first)


def test_the_first_of_a_method_is_judged_for_all_and_the_outcome_counts_them() -> None:
    async def scenario() -> None:
        world = World()
        assert [await world.admits("progress") for _ in range(3)] == [True, True, True]
        await world.notices.close()
        assert world.judged == ["progress"]
        assert [(one.status, one.messages) for one in world.completed] == [("completed", 3)]

    asyncio.run(scenario())


def test_of_a_method_that_is_denied_none_passes_and_none_has_an_outcome() -> None:
    async def scenario() -> None:
        world = World("log")
        assert [await world.admits("log") for _ in range(3)] == [False, False, False]
        await world.notices.close()
        assert (world.judged, world.completed) == (["log"], [])

    asyncio.run(scenario())


def test_of_two_firsts_only_one_is_judged() -> None:
    async def scenario() -> None:
        world = World()
        assert await asyncio.gather(world.admits("progress"), world.admits("progress")) == [True, True]
        assert world.judged == ["progress"]

    asyncio.run(scenario())


@pytest.mark.parametrize("reason", ["session_ended", "contained", "internal_error"])
def test_while_something_stands_against_the_caller_none_passes_and_none_is_counted(reason: str) -> None:
    async def scenario() -> None:
        world = World()
        assert await world.admits("progress")
        world.against = reason
        assert [await world.admits("progress") for _ in range(2)] == [False, False]
        world.against = None  # released
        assert await world.admits("progress")
        await world.notices.close()
        assert world.judged == ["progress"]
        assert [one.messages for one in world.completed] == [2]

    asyncio.run(scenario())


def test_the_first_of_a_method_does_not_pass_either_where_something_came_while_it_was_judged() -> None:
    async def scenario() -> None:
        world = World()
        judging = asyncio.create_task(world.admits("progress"))
        await asyncio.sleep(0)
        world.against = "contained"
        assert not await judging

    asyncio.run(scenario())


def test_more_methods_than_a_stream_may_have_do_not_pass() -> None:
    async def scenario() -> None:
        world = World()
        admitted = [await world.admits(f"method-{number}") for number in range(MAX_METHODS + 2)]
        assert admitted == [True] * MAX_METHODS + [False, False]

    asyncio.run(scenario())


def test_when_the_stream_is_over_nothing_passes_any_more() -> None:
    async def scenario() -> None:
        world = World()
        assert await world.admits("progress")
        assert world.notices.end()
        assert not await world.admits("progress")
        assert not await world.admits("log")
        await world.notices.close()
        assert world.judged == ["progress"]

    asyncio.run(scenario())


@pytest.mark.parametrize(("let_go", "counted"), [(None, 3), (2, 2), (0, 0)])
def test_where_notifications_are_looked_through_those_count_that_were_let_go(let_go: int | None, counted: int) -> None:
    async def scenario() -> None:
        world = World()
        world.notices = Notices(world.judge, world.complete, lambda _: None, let_go=lambda _: let_go)
        assert [await world.admits("progress") for _ in range(3)] == [True, True, True]
        await world.notices.close()
        assert [one.messages for one in world.completed] == [counted]

    asyncio.run(scenario())
