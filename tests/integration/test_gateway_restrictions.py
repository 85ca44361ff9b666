"""A gateway that nobody tells what is contained, and one that is told: which calls go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from enforcement.gateway import Gateway
from ledger.restrictions import RestrictionSet
from tests.support.gateway import Surroundings, surroundings

ORDER = "01990000-0000-7000-8000-00000000000a"
SOON = {"restrictions": {"poll_seconds": 0.01}}


def play(scenario: Callable[[Surroundings], Awaitable[None]], directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with surroundings(directory, **options) as world:
            await scenario(world)

    asyncio.run(run())


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
