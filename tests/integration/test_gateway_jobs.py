"""A declared job before a real gateway and a real client, with Cedar deciding: denied by policy, flagged, replayed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from ledger.bodies import Decision
from ledger.bodies_drift import Drift
from policies.bundles import Bundle, bundle_from_files
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.replay import RecordedDecision, ReplayClass, replay_many
from tests.support.gateway import Surroundings, surroundings

ZONE = "Europe/Berlin"
"""Of the gateway; its clock says noon there, or an hour from it."""
ALWAYS = {"zone": ZONE, "spans": [{"from": "00:00", "to": "24:00"}]}
NIGHT = {"zone": ZONE, "spans": [{"from": "22:00", "to": "04:00"}]}
SCHEMA = """
entity Role; entity Tag;
entity Agent in [Role] { name: String };
entity Server in [Tag] { name: String };
entity Tool in [Server, Tag] { name: String, server: Server };
type Facts = {
  identity: { user?: String, authn: String, mfa: Bool, roles: Set<String> },
  time: { now_ms: Long, zone: String, local_date: String, hour: Long, minute: Long, weekday: Long },
  environment: { address: String, network: String },
  state: { session: String, calls: Long, denied: Long, started_ms: Long, windows: { outside: Long } },
  args: {},
};
action "server/discover", "tools/list" appliesTo { principal: Agent, resource: Server, context: Facts };
action "tools/call" appliesTo { principal: Agent, resource: Tool, context: Facts };
"""
STRICT = """
@id("off-job") forbid(principal, action == Action::"tools/call", resource)
when { context.state.windows.outside > 0 };
"""


def bundle(profile: dict[str, Any], *, rule: str = STRICT) -> Bundle:
    job = {"agents": ["Finance-Bot"], "tools": ["finance/refund_customer"], **profile}
    window = {"name": "outside", "measure": "off_profile", "per": "agent", "over_seconds": 1, "profile": job}
    manifest = {
        "format": "tallystick.bundle/1",
        "name": "job",
        "engine": "cedar",
        "policies": ["policy.cedar"],
        "schema": "schema.cedarschema",
        "windows": "windows.json",
    }
    return bundle_from_files(
        {
            "manifest.json": json.dumps(manifest).encode(),
            "schema.cedarschema": SCHEMA.encode(),
            "policy.cedar": f'@id("work") permit(principal, action, resource);\n{rule}'.encode(),
            "windows.json": json.dumps({"windows": [window]}).encode(),
        }
    )


@pytest.fixture
def evaluator() -> Iterator[Evaluator]:
    made = Evaluator({"cedar": CedarEngine()})
    yield made
    made.close()


def flags(world: Surroundings) -> list[Drift]:
    return [record.body for record in world.ledger.records if isinstance(record.body, Drift)]


async def call(world: Surroundings, tool: str, amount: float = 1, agent: str = "Finance-Bot") -> str | None:
    """Return the rule that stood against a call, or None if it was made."""
    async with world.client(agent) as client:
        try:
            await client.call_tool(tool, {"amount": amount})
        except MCPError as error:
            return str(error.error.data.get("rule", error.error.data))
    return None


def play(directory: Path, evaluator: Evaluator, under: Bundle, scenario: Any, **options: Any) -> None:
    async def run() -> None:
        settings = {"profiles": {"save_seconds": 0.01}, **options}
        async with surroundings(directory, **settings) as world:
            world.ledger.bundle = under
            world.evaluator = evaluator  # type: ignore[assignment]  # the real one
            await scenario(world)
            records = [record for record in world.ledger.records if isinstance(record.body, Decision)]
            originals = [
                RecordedDecision(
                    record_id=record.record_id,
                    body=record.body,
                    request=world.ledger.openings[record.record_id, "request"],
                )
                for record in records
            ]
            results = await replay_many(originals, under, evaluator)
            assert {(result.classification, result.same) for result in results} == {(ReplayClass.EXACT, True)}

    asyncio.run(run())


def test_a_tool_outside_the_job_is_denied_and_flagged_with_its_decision_before_any_baseline(tmp_path, evaluator):
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            assert await call(world, "refund_customer") is None
            assert await call(world, "transfer_funds") == "off-job"
            await world.settle(lambda: flags(world))
        (flag,) = flags(world)
        (denied,) = (
            record
            for record in world.ledger.records
            if isinstance(record.body, Decision) and record.body.tool == "transfer_funds"
        )
        assert (flag.detector, flag.subject, flag.baseline_version) == ("off_job_tool", "finance/transfer_funds", 0)
        assert flag.decisions == (denied.record_id,)
        assert world.tools.calls == ["refund_customer"]

    play(tmp_path, evaluator, bundle({"hours": ALWAYS}), scenario)


def test_work_at_another_hour_is_denied_and_flagged(tmp_path, evaluator):
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            assert await call(world, "refund_customer") == "off-job"
            await world.settle(lambda: flags(world))
        assert [flag.detector for flag in flags(world)] == ["off_job_hours"]
        assert world.tools.calls == []

    play(tmp_path, evaluator, bundle({"hours": NIGHT}), scenario)


def test_a_gateway_of_another_zone_than_the_jobs_lets_nothing_pass_for_within_the_hours(tmp_path, evaluator):
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            assert await call(world, "refund_customer") == "off-job"

    play(tmp_path, evaluator, bundle({"hours": {**ALWAYS, "zone": "Europe/Paris"}}), scenario)


def test_a_volume_holds_over_a_restart_and_an_hour_later_there_is_room(tmp_path, evaluator):
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            assert await call(world, "refund_customer") is None
        async with world.running():
            assert await call(world, "refund_customer") is None
            assert await call(world, "refund_customer") == "off-job"
            await world.settle(lambda: flags(world))
            world.clock.advance(3_700_000)
            assert await call(world, "refund_customer") is None
        assert [(flag.detector, flag.subject) for flag in flags(world)] == [("off_job_volume", "calls_per_hour")]

    bundles = {"poll_seconds": 3600, "max_age_seconds": 86_400}
    play(tmp_path, evaluator, bundle({"at_most": {"calls_per_hour": 2}}), scenario, bundles=bundles)


def test_targets_are_told_apart_by_what_is_asked_and_the_same_again_is_none(tmp_path, evaluator):
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            made = [await call(world, "refund_customer", amount) for amount in (1, 2, 1, 2, 3, 1)]
            assert made == [None, None, None, None, "off-job", None]

    play(tmp_path, evaluator, bundle({"at_most": {"targets_per_day": 2}}), ticking(scenario))


def ticking(scenario: Any) -> Any:
    """Let more than the window's second pass after each call, so that each is judged by itself."""

    async def run(world: Surroundings) -> None:
        client = world.client

        def later(*arguments: Any) -> Any:
            world.clock.advance(2_000)
            return client(*arguments)

        world.client = later  # type: ignore[method-assign]  # for this test
        await scenario(world)

    return run


def test_what_a_policy_lets_through_is_flagged_all_the_same_and_others_are_not(tmp_path, evaluator):
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            assert await call(world, "transfer_funds", agent="Support-Bot") is None
            assert await call(world, "transfer_funds") is None
            await world.settle(lambda: flags(world))
        assert [(flag.agent, flag.detector) for flag in flags(world)] == [("Finance-Bot", "off_job_tool")]

    play(tmp_path, evaluator, bundle({}, rule=""), scenario)


def test_without_profiles_the_policy_reads_the_job_and_nothing_is_flagged(tmp_path, evaluator):
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            assert await call(world, "transfer_funds") == "off-job"
        assert flags(world) == []

    play(tmp_path, evaluator, bundle({}), scenario, profiles=None)
