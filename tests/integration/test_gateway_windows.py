"""A cap per user and day, a burst limit and a confused deputy, before real clients, with Cedar deciding."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp.shared.exceptions import MCPError

from policies.bundles import Bundle, bundle_from_files
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.model import decode_request
from policies.replay import RecordedDecision, ReplayClass, replay_many
from tests.support.gateway import Surroundings, surroundings

SCHEMA = """
entity Role; entity Tag;
entity Agent in [Role] { name: String };
entity Server in [Tag] { name: String };
entity Tool in [Server, Tag] { name: String, server: Server };
type Facts = {
  identity: { user?: String, authn: String, mfa: Bool, roles: Set<String> },
  time: { now_ms: Long, zone: String, local_date: String, hour: Long, minute: Long, weekday: Long },
  environment: { address: String, network: String },
  state: { session: String, calls: Long, denied: Long, started_ms: Long, windows: { refunded: decimal, looked: Bool } },
  args: { amount?: decimal },
};
action "server/discover", "tools/list" appliesTo { principal: Agent, resource: Server, context: Facts };
action "tools/call" appliesTo { principal: Agent, resource: Tool, context: Facts };
"""
POLICY = """
@id("work") permit(principal, action, resource);
@id("cap") forbid(principal, action == Action::"tools/call", resource == Tool::"finance/refund_customer")
unless { context.args has amount && context.state.windows.refunded.lessThanOrEqual(decimal("100.0")) };
@id("deputy") forbid(principal, action == Action::"tools/call", resource == Tool::"finance/refund_customer")
when { context.state.windows.looked };
"""
WINDOWS = [
    {
        "name": "refunded",
        "measure": "sum",
        "parameter": "amount",
        "server": "finance",
        "tools": ["refund_customer"],
        "per": "user",
        "over": "day",
    },
    {"name": "looked", "measure": "seen", "tags": ["sensitive"], "per": "session"},
]


def bundle() -> Bundle:
    manifest = {
        "format": "tallystick.bundle/1",
        "name": "caps",
        "engine": "cedar",
        "policies": ["policy.cedar"],
        "schema": "schema.cedarschema",
        "parameters": "parameters.json",
        "windows": "windows.json",
    }
    parameters = [{"name": "amount", "type": "decimal", "server": "finance", "paths": ["amount"]}]
    return bundle_from_files(
        {
            "manifest.json": json.dumps(manifest).encode(),
            "schema.cedarschema": SCHEMA.encode(),
            "policy.cedar": POLICY.encode(),
            "parameters.json": json.dumps({"parameters": parameters}).encode(),
            "windows.json": json.dumps({"windows": WINDOWS}).encode(),
        }
    )


@pytest.fixture
def evaluator() -> Iterator[Evaluator]:
    made = Evaluator({"cedar": CedarEngine()})
    yield made
    made.close()


async def refund(world: Surroundings, agent: str, amount: float) -> str | None:
    """Return the rule that stood against a refund, or None if it was made."""
    async with world.client(agent) as client:
        try:
            await client.call_tool("refund_customer", {"amount": amount})
        except MCPError as error:
            return str(error.error.data["rule"])
    return None


def test_day_of_caps_over_agents_and_restarts_is_replayed_exactly(tmp_path: Path, evaluator: Evaluator) -> None:
    async def scenario() -> None:
        async with surroundings(tmp_path) as world:
            world.ledger.bundle = bundle()
            world.evaluator = evaluator  # type: ignore[assignment]  # the real one
            async with world.running():
                assert await refund(world, "Finance-Bot", 60) is None
                assert await refund(world, "Support-Bot", 50) == "cap"  # the same user, under another agent
                assert await refund(world, "Support-Bot", 30) is None
            async with world.running():
                made = [await refund(world, "Finance-Bot", 2.5) for _ in range(5)]
                assert made == [None, None, None, None, "cap"]
            assert world.tools.calls.count("refund_customer") == 6
            await replayed(world, evaluator, bundle())

    asyncio.run(scenario())


async def replayed(world: Surroundings, evaluator: Evaluator, under: Bundle) -> None:
    """Make every decision again, exactly."""
    records = [record for record in world.ledger.records if type(record.body).__name__ == "Decision"]
    originals = [
        RecordedDecision(
            record_id=record.record_id,
            body=record.body,  # type: ignore[arg-type]  # a decision
            request=world.ledger.openings[record.record_id, "request"],
        )
        for record in records
    ]
    results = await replay_many(originals, under, evaluator)
    assert {(result.classification, result.same) for result in results} == {(ReplayClass.EXACT, True)}
    assert {decode_request(original.request or b"").version for original in originals} == {2}


def test_who_has_read_something_sensitive_does_not_write_in_the_same_session(
    tmp_path: Path, evaluator: Evaluator
) -> None:
    async def scenario() -> None:
        sensitive = [{"name": "transfer_funds", "tags": ["sensitive"]}]
        async with surroundings(tmp_path, server={"tools": sensitive}) as world:
            world.ledger.bundle = bundle()
            world.evaluator = evaluator  # type: ignore[assignment]  # the real one
            async with world.running():
                assert await refund(world, "Finance-Bot", 1) is None
                async with world.client() as client:
                    await client.call_tool("transfer_funds", {"amount": 1})
                assert await refund(world, "Finance-Bot", 1) == "deputy"
                assert await refund(world, "Support-Bot", 1) is None  # another session

    asyncio.run(scenario())
