"""Ten minutes of behaviour before a real client, with a frozen clock and Cedar deciding: spikes, and their ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from mcp.shared.exceptions import MCPError

from ledger.clock import SimulatedClock
from policies.bundles import Bundle, bundle_from_files
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.model import decode_request
from tests.integration.test_gateway_windows import SCHEMA, replayed
from tests.support.gateway import Surroundings, surroundings

Step: TypeAlias = tuple[str, dict[str, object]]

TEN_MINUTES = 600
MINUTE_MS = 60_000
WINDOWS = [
    {"name": "calls", "measure": "count", "per": "agent", "over_seconds": TEN_MINUTES},
    {"name": "burst", "measure": "count", "per": "agent+tool", "tools": ["transfer_funds"], "over_seconds": 5},
    {"name": "tools", "measure": "distinct", "per": "agent", "over_seconds": TEN_MINUTES},
    {"name": "paid", "measure": "sum", "parameter": "amount", "per": "user", "over_seconds": TEN_MINUTES},
    {"name": "rows", "measure": "sum", "parameter": "steps", "per": "user", "over_seconds": TEN_MINUTES},
    {
        "name": "outside",
        "measure": "off_profile",
        "per": "agent",
        "over_seconds": TEN_MINUTES,
        "profile": {
            "roles": ["finance"],
            "tools": ["finance/transfer_funds", "finance/refund_customer", "finance/break_down"],
            "next": {"finance/refund_customer": ["finance/refund_customer", "finance/transfer_funds"]},
        },
    },
]
POLICY = """
@id("work") permit(principal, action, resource);
@id("calls") forbid(principal, action == Action::"tools/call", resource) when { context.state.windows.calls > 5 };
@id("burst") forbid(principal, action, resource) when { context.state.windows.burst > 2 };
@id("tools") forbid(principal, action == Action::"tools/call", resource) when { context.state.windows.tools > 2 };
@id("paid") forbid(principal, action == Action::"tools/call", resource)
unless { context.state.windows.paid.lessThanOrEqual(decimal("100.0")) };
@id("rows") forbid(principal, action == Action::"tools/call", resource) when { context.state.windows.rows > 1000 };
@id("outside") forbid(principal, action == Action::"tools/call", resource) when { context.state.windows.outside > 1 };
"""


def bundle() -> Bundle:
    manifest = {
        "format": "tallystick.bundle/1",
        "name": "behaviour",
        "engine": "cedar",
        "policies": ["policy.cedar"],
        "schema": "schema.cedarschema",
        "parameters": "parameters.json",
        "windows": "windows.json",
    }
    schema = SCHEMA.replace(
        "{ refunded: decimal, looked: Bool }",
        "{ calls: Long, burst: Long, tools: Long, paid: decimal, rows: Long, outside: Long }",
    ).replace("args: { amount?: decimal }", "args: { amount?: decimal, steps?: Long }")
    parameters = [
        {"name": "amount", "type": "decimal", "paths": ["amount"]},
        {"name": "steps", "type": "long", "paths": ["steps"]},
    ]
    return bundle_from_files(
        {
            "manifest.json": json.dumps(manifest).encode(),
            "schema.cedarschema": schema.encode(),
            "policy.cedar": POLICY.encode(),
            "parameters.json": json.dumps({"parameters": parameters}).encode(),
            "windows.json": json.dumps({"windows": WINDOWS}).encode(),
        }
    )


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    made = Evaluator({"cedar": CedarEngine()})
    yield made
    made.close()


PAY: Step = ("refund_customer", {"amount": 1})
MOVE: Step = ("transfer_funds", {"amount": 0})
BREAK: Step = ("break_down", {})
COUNT: Step = ("count_slowly", {"steps": 600})


async def called(world: Surroundings, step: Step) -> str | None:
    """Return the rule that stood against a call, or None if it was made."""
    name, arguments = step
    async with world.client() as client:
        try:
            await client.call_tool(name, arguments)
        except MCPError as error:
            return str(error.error.data["rule"])
    return None


# What is done at t0, and the call that is then one too many.
SPIKES: dict[str, tuple[list[Step], Step]] = {
    "calls": ([PAY] * 5, PAY),
    "tools": ([MOVE, BREAK], PAY),
    "paid": ([("refund_customer", {"amount": 60}), ("refund_customer", {"amount": 40})], PAY),
    "rows": ([COUNT], COUNT),
    "outside": ([PAY, BREAK, PAY], BREAK),
}


@pytest.mark.parametrize("rule", SPIKES)
def test_spike_at_t0_is_denied_until_ten_minutes_are_over(tmp_path: Path, evaluator: Evaluator, rule: str) -> None:
    spike, too_many = SPIKES[rule]

    async def scenario() -> None:
        async with surroundings(tmp_path) as world:
            world.ledger.bundle = bundle()
            world.evaluator = evaluator  # type: ignore[assignment]  # the real one
            world.tools.go_on.set()
            clock = world.clock
            assert isinstance(clock, SimulatedClock)
            began_ms = clock.now_ms()
            async with world.running():
                assert [await called(world, step) for step in spike] == [None] * len(spike)
                assert await called(world, too_many) == rule
                clock.advance_to(began_ms + 10 * MINUTE_MS - 1000)  # 9:59
                assert await called(world, too_many) == rule
            async with world.running():  # a restart changes nothing
                assert await called(world, too_many) == rule
                clock.advance_to(began_ms + 10 * MINUTE_MS + 1000)  # 10:01
                assert await called(world, too_many) is None
            # What nobody was let do, no server was asked for.
            assert len(world.tools.calls) == len(spike) + 1
            await replayed(world, evaluator, bundle())

    asyncio.run(scenario())


def test_burst_is_over_as_soon_as_its_seconds_are(tmp_path: Path, evaluator: Evaluator) -> None:
    async def scenario() -> None:
        async with surroundings(tmp_path) as world:
            world.ledger.bundle = bundle()
            world.evaluator = evaluator  # type: ignore[assignment]  # the real one
            clock = world.clock
            assert isinstance(clock, SimulatedClock)
            async with world.running():
                assert [await called(world, MOVE) for _ in range(3)] == [None, None, "burst"]
                assert await called(world, PAY) is None  # of another tool
                clock.advance(6000)
                assert await called(world, MOVE) is None
            state = decode_request(world.ledger.openings[world.ledger.decision_ids()[-1], "request"]).state
            assert state.windows == {"calls": 4, "burst": 1, "tools": 2, "paid": "1.0000", "rows": 0, "outside": 0}

    asyncio.run(scenario())
