"""A gateway that nobody tells what is contained, and one that is told: which calls go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from enforcement.gateway import Gateway
from ledger.restrictions import Restriction, RestrictionSet
from tests.support.gateway import Surroundings, surroundings

ORDER = "01990000-0000-7000-8000-00000000000a"
SOON = {"restrictions": {"poll_seconds": 0.01}}


def play(scenario: Callable[[Surroundings], Awaitable[None]], directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with surroundings(directory, **options) as world:
            await scenario(world)

    asyncio.run(run())


def stop_tool(name: str, server: str = "finance", **members: Any) -> RestrictionSet:
    one = Restriction(
        restriction_id=ORDER, kind="containment", scope="tool", since_ms=1, server=server, tool=name, **members
    )
    return RestrictionSet([one], version=7)


async def tools(client: Any) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


async def until_fresh(world: Surroundings, gateway: Gateway) -> None:
    await world.settle(lambda: gateway.core.readiness()[1]["restrictions_stale"] is False)


def test_strict_calls_are_denied_while_nobody_says_what_is_contained_and_go_on_once_somebody_does(
    tmp_path: Path,
) -> None:
    async def scenario(world: Surroundings) -> None:
        world.ledger.restricted = None
        async with world.running() as gateway, world.client() as client:
            with pytest.raises(MCPError) as denied:
                await client.call_tool("refund_customer", {"amount": 1})
            assert denied.value.error.data["reason"] == "restrictions_stale"
            assert world.tools.calls == []
            world.ledger.restricted = RestrictionSet()
            await until_fresh(world, gateway)
            await client.call_tool("refund_customer", {"amount": 1})
        assert world.tools.calls == ["refund_customer"]
        first, second = world.ledger.decisions()
        assert (first.decision, first.enforcement, first.reason) == ("PERMIT", "deny", "restrictions_stale")
        assert (first.restriction, second.enforcement) == (None, "allow")

    play(scenario, tmp_path, server={"recording": "strict"}, **SOON)


def test_available_calls_go_on_while_nobody_says_what_is_contained(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        world.ledger.restricted = None
        async with world.running() as gateway, world.client() as client:
            await client.call_tool("refund_customer", {"amount": 1})
            assert gateway.core.readiness()[1]["restrictions_stale"] is True
        assert world.tools.calls == ["refund_customer"]

    play(scenario, tmp_path, server={"recording": "available"}, **SOON)


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_a_tool_that_is_contained_is_in_no_list_and_all_others_are(tmp_path: Path, mode: str) -> None:
    async def scenario(world: Surroundings) -> None:
        world.ledger.restricted = stop_tool("transfer_funds")
        async with world.running(), world.client() as client:
            shown = await tools(client)
            assert "transfer_funds" not in {request.resource.name for request in world.evaluator.asked}
        every = {function.__name__ for function in world.tools.functions()}
        assert shown == every - {"transfer_funds"}
        (decision_id,) = world.ledger.decision_ids("tools/list")
        (outcome,) = world.ledger.outcomes(decision_id)
        assert outcome.hidden == 1

    play(scenario, tmp_path, server={"mode": mode})


@pytest.mark.parametrize(
    "restricted",
    [stop_tool("transfer_funds", server="elsewhere"), stop_tool("Transfer_Funds"), RestrictionSet(version=7)],
)
def test_a_tool_of_another_server_or_name_hides_nothing(tmp_path: Path, restricted: RestrictionSet) -> None:
    async def scenario(world: Surroundings) -> None:
        world.ledger.restricted = restricted
        async with world.running(), world.client() as client:
            assert await tools(client) == {function.__name__ for function in world.tools.functions()}

    play(scenario, tmp_path)


def test_in_an_observed_list_that_no_policy_can_judge_what_is_contained_is_hidden_all_the_same(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        world.ledger.bundle, world.ledger.restricted = None, stop_tool("transfer_funds")
        async with world.running(), world.client() as client:
            shown = await tools(client)
        assert shown == {function.__name__ for function in world.tools.functions()} - {"transfer_funds"}

    play(scenario, tmp_path, server={"mode": "observe"})
