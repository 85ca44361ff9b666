"""A bot that turns, before a real gateway with a real client: learned, frozen, flagged with its calls, and recorded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from msgspec import UNSET

from enforcement.profiles.orders import BaselineOrder
from ledger.bodies import Decision
from ledger.bodies_drift import BaselineEvent, Drift
from ledger.records import Record
from policies.listing import Unknown, unknown_in
from policies.model import DecisionRequest, Effect
from policies.signals import Signals
from tests.support.gateway import Surroundings, surroundings

HOUR_MS = 3_600_000
ORDER = "019a9c14-6d80-7abc-8def-00000000000{}"
DAYS = 3
SETTINGS = {"ready_calls": 30, "ready_days": DAYS, "save_seconds": 0.01, "orders_seconds": 0.01}


class Orders:
    """Says what people ordered."""

    def __init__(self) -> None:
        self.given: list[BaselineOrder] = []

    async def baseline_orders(self) -> list[BaselineOrder]:
        return self.given


def bodies(world: Surroundings, kind: type[Any]) -> list[Any]:
    return [record.body for record in world.ledger.records if isinstance(record.body, kind)]


def decisions(world: Surroundings) -> list[Record]:
    return [record for record in world.ledger.records if isinstance(record.body, Decision)]


def told(world: Surroundings) -> list[Signals]:
    """Return what the policy read of calls; lists ask it as well."""
    return [
        request.signals
        for request in world.evaluator.asked
        if request.signals is not UNSET and unknown_in(request) is Unknown.NOTHING
    ]


def steps(world: Surroundings) -> list[str]:
    return [body.action for body in bodies(world, BaselineEvent)]


async def work(world: Surroundings, calls: int = 12) -> None:
    """A day's work: a call every ten minutes."""
    async with world.client() as client:
        for number in range(calls):
            await client.call_tool("refund_customer", {"amount": 1.0 + number % 3})
            world.clock.advance(HOUR_MS // 6)
    world.clock.advance(22 * HOUR_MS)


async def learn(world: Surroundings) -> None:
    for _ in range(DAYS):
        await work(world)
    await world.settle(lambda: "ready" in steps(world))


async def said(world: Surroundings, calls: int) -> list[Drift]:
    """Return the flags once as many decisions as calls were made are in the ledger."""
    await world.settle(lambda: len(bodies(world, Drift)) >= calls)
    return bodies(world, Drift)


def play(directory: Path, scenario: Any, **options: Any) -> None:
    async def run() -> None:
        # Days pass within a second: what is known of the service is not to be stale by them.
        bundles = {"poll_seconds": 3600, "max_age_seconds": 30 * 86_400}
        async with surroundings(directory, profiles=SETTINGS, bundles=bundles, **options) as world:
            await scenario(world)

    asyncio.run(run())


def test_a_bot_that_turns_is_flagged_with_its_first_call_and_the_record_names_it(tmp_path):
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:
            await learn(world)
            assert gateway.core.require().profiles.state_of("Finance-Bot") == "ready"
            assert not bodies(world, Drift)
            async with world.client() as client:
                await client.call_tool("transfer_funds", {"amount": 9_999.0})
            flags = await said(world, 1)
        decision = [record for record in decisions(world) if record.body.tool == "transfer_funds"][-1]
        flag = next(one for one in flags if one.detector == "new_tool")
        assert flag.subject == "finance/transfer_funds"
        assert flag.decisions == (decision.record_id,)
        assert (flag.agent, flag.baseline_version, flag.calls) == ("Finance-Bot", 1, 1)
        (asked,) = [signals for signals in told(world) if "new_tool" in signals.deviations]
        assert asked.baseline == "ready"
        assert decision.body.deviations == asked.deviations
        ready = next(body for body in bodies(world, BaselineEvent) if body.action == "ready")
        assert (flag.since_ms, flag.until_ms) == (ready.since_ms, ready.until_ms)
        assert flag.thresholds == ready.thresholds
        assert world.tools.calls[-1] == "transfer_funds"  # it is flagged, and nothing is decided

    play(tmp_path, scenario)


def test_a_list_shows_what_takes_a_baseline_once_the_agent_has_one_and_calls_agree(tmp_path):
    def known_agents(request: DecisionRequest) -> dict[str, Any]:
        ready = request.signals is not UNSET and request.signals.baseline == "ready"
        return {"effect": Effect.PERMIT if ready or request.resource.name != "transfer_funds" else Effect.DENY}

    async def seen(world: Surroundings) -> tuple[bool, bool]:
        """Return whether the tool is listed, and whether it can be called."""
        async with world.client() as client:
            listed = [tool.name for tool in (await client.list_tools()).tools]
            assert "refund_customer" in listed
            try:
                await client.call_tool("transfer_funds", {"amount": 1.0})
            except MCPError:
                return "transfer_funds" in listed, False
            return "transfer_funds" in listed, True

    async def scenario(world: Surroundings) -> None:
        async with world.running():
            assert await seen(world) == (False, False)  # of a stranger nothing is known
            await work(world)
            assert await seen(world) == (False, False)  # it learns
            await learn(world)
            assert await seen(world) == (True, True)

    play(tmp_path, scenario, answer=known_agents)


def test_while_it_learns_the_turned_bot_is_not_called_well_but_learning_and_by_how_much(tmp_path):
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:
            await work(world)
            async with world.client() as client:
                await client.call_tool("transfer_funds", {"amount": 1.0})
            await world.settle(lambda: len(steps(world)) >= 2)
            assert gateway.core.require().profiles.state_of("Finance-Bot") == "learning"
            assert gateway.core.require().profiles.state_of("Support-Bot") == "none"
            signals = told(world)
            assert [one.baseline for one in signals].count("learning") == 12  # of all calls but the first
            assert "ready" not in {one.baseline for one in signals}
            assert {one.deviations for one in signals} == {()}
        assert not bodies(world, Drift)
        started, progress = bodies(world, BaselineEvent)
        assert (started.action, started.needed_calls, started.needed_days) == ("learning", 29, 2)
        assert (progress.action, progress.needed_calls, progress.needed_days) == ("progress", 17, 1)
        assert progress.baseline_version == 0

    play(tmp_path, scenario)


def test_a_restart_goes_on_learning_and_repeats_no_flag(tmp_path):
    async def scenario(world: Surroundings) -> None:
        for _ in range(DAYS):
            async with world.running():
                await work(world)
        async with world.running():
            await world.settle(lambda: "ready" in steps(world))
            async with world.client() as client:
                await client.call_tool("transfer_funds", {"amount": 1.0})
            before = len(await said(world, 1))
        async with world.running() as gateway:
            assert gateway.core.require().profiles.state_of("Finance-Bot") == "ready"
            async with world.client() as client:
                await client.call_tool("transfer_funds", {"amount": 2.0})
        flags = bodies(world, Drift)
        assert len([flag for flag in flags if flag.detector == "new_tool"]) == 1
        assert len(flags) >= before
        assert steps(world).count("ready") == 1

    play(tmp_path, scenario)


def test_two_gateways_each_say_what_they_know_and_neither_says_it_for_the_other(tmp_path, tmp_path_factory):
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            await learn(world)
        other = tmp_path_factory.mktemp("other")
        world.directory = other
        (other / "token").write_bytes((tmp_path / "token").read_bytes())
        (other / "token").chmod(0o600)
        async with world.running(enforcer_id="gateway-2") as second:
            async with world.client() as client:
                await client.call_tool("transfer_funds", {"amount": 1.0})
            assert second.core.require().profiles.state_of("Finance-Bot") == "learning"
        said_by = {
            (record.enforcer_id, record.body.action)
            for record in world.ledger.records
            if isinstance(record.body, BaselineEvent)
        }
        assert ("gateway-1", "ready") in said_by
        assert ("gateway-2", "learning") in said_by
        assert ("gateway-2", "ready") not in said_by
        assert not bodies(world, Drift)

    play(tmp_path, scenario)


def test_refusals_that_become_more_are_flagged_with_the_refused_calls(tmp_path):
    refusing = {"now": False}

    def answer(request: DecisionRequest) -> dict[str, Any]:
        refused = refusing["now"] and request.resource.name == "refund_customer"
        return {"effect": Effect.DENY if refused else Effect.PERMIT}

    async def scenario(world: Surroundings) -> None:
        async with world.running():
            await learn(world)
            refusing["now"] = True
            async with world.client() as client:
                for _ in range(8):
                    with pytest.raises(MCPError):
                        await client.call_tool("refund_customer", {"amount": 1.0})
            await world.settle(lambda: any(flag.detector == "decision_mix" for flag in bodies(world, Drift)))
        flag = next(flag for flag in bodies(world, Drift) if flag.detector == "decision_mix")
        denied = {record.record_id for record in decisions(world) if record.body.enforcement == "deny"}
        assert set(flag.decisions) <= denied
        assert flag.value_milli > flag.threshold_milli

    play(tmp_path, scenario, answer=answer)


def test_what_is_only_observed_teaches_nothing(tmp_path):
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:
            for _ in range(DAYS):
                await work(world)
            assert gateway.core.require().profiles.state_of("Finance-Bot") == "none"
        assert not bodies(world, BaselineEvent)

    play(tmp_path, scenario, server={"mode": "observe"})


def test_without_the_setting_nothing_is_learned(tmp_path):
    async def scenario(world: Surroundings) -> None:
        async with world.running(profiles=None) as gateway:
            await work(world)
            assert gateway.core.require().profiles is None
        assert not bodies(world, BaselineEvent)

    play(tmp_path, scenario)


def test_a_person_accepts_what_was_offered_and_the_new_work_is_usual_from_then_on(tmp_path):
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:
            await learn(world)
            profiles = gateway.core.require().profiles
            for _ in range(DAYS + 1):
                await work(world)
                async with world.client() as client:
                    await client.call_tool("transfer_funds", {"amount": 1.0})
            await world.settle(lambda: "offered" in steps(world))
            offered = [body for body in bodies(world, BaselineEvent) if body.action == "offered"][-1]
            assert offered.added == ("finance/transfer_funds",)
            orders = Orders()
            order = {"action": "accept_ordered", "agent": "Finance-Bot"}
            wrong = BaselineOrder(order_id=ORDER.format(1), digest="0" * 64, **order)
            right = BaselineOrder(order_id=ORDER.format(2), digest=offered.digest, **order)
            orders.given = [wrong]
            await profiles.follow(orders)
            assert "accepted" not in steps(world)
            orders.given = [wrong, right]
            await profiles.follow(orders)
            await profiles.follow(orders)
            await world.settle(lambda: "accepted" in steps(world))
            (accepted,) = [body for body in bodies(world, BaselineEvent) if body.action == "accepted"]
            assert (accepted.baseline_version, accepted.tools) == (2, 2)
            orders.given.append(BaselineOrder(order_id=ORDER.format(3), action="reset_ordered", agent="Finance-Bot"))
            await profiles.follow(orders)
            assert profiles.state_of("Finance-Bot") == "none"
            await world.settle(lambda: "reset" in steps(world))

    play(tmp_path, scenario)
