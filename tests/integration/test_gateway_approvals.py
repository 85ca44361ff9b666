"""Held calls at a real gateway: who agrees to exactly them lets them go on, once; nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from ledger.restrictions import Restriction, RestrictionSet
from policies.model import Effect
from tests.support.both_eras import STATEFUL
from tests.support.gateway import Surroundings, simple_bundle, surroundings
from tests.support.held import APPROVALS, ask_for, grant, held_by, say, settled
from tests.support.mcp_messages import body_of, headers_of
from tests.support.transports import DOORS

Scenario = Callable[[Surroundings], Awaitable[None]]


def play(scenario: Scenario, tmp_path: Path, **options: Any) -> None:
    async def run() -> None:
        members = {"answer": ask_for("transfer_funds"), **options}
        members["approvals"] = {**APPROVALS, **members.get("approvals", {})}
        async with surroundings(tmp_path, **members) as world:
            await scenario(world)

    asyncio.run(run())


def refused(error: pytest.ExceptionInfo[MCPError]) -> str:
    return str(error.value.error.data["reason"])


# --- what lets a call go on


@pytest.mark.parametrize("door", DOORS)
def test_a_held_call_goes_on_once_somebody_agrees_whatever_the_transport(tmp_path: Path, door: str) -> None:
    async def scenario(world: Surroundings) -> None:
        async with DOORS[door](world) as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            assert world.tools.calls == []
            assert not call.done()
            say(world.ledger, step, grant(step))
            answer = await call
            assert answer.content[0].text == "transferred 1.0"
            steps, status, reason = await settled(world, step)
        assert (steps, status, reason) == (["held", "used"], "completed", None)
        assert world.tools.calls == ["transfer_funds"]
        (decision,) = world.ledger.decisions()
        assert (decision.decision, decision.enforcement) == ("PERMIT", "ask")

    play(scenario, tmp_path)


@pytest.mark.parametrize("door", DOORS)
def test_a_held_call_that_somebody_denies_never_reaches_the_server(tmp_path: Path, door: str) -> None:
    async def scenario(world: Surroundings) -> None:
        async with DOORS[door](world) as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            say(world.ledger, step, grant(step), denied=True)
            with pytest.raises(MCPError) as caught:
                await call
            assert refused(caught) == "approval_denied"
            steps, status, reason = await settled(world, step)
        assert (steps, status, reason) == (["held"], "not_forwarded", "approval_denied")
        assert world.tools.calls == []

    play(scenario, tmp_path)


@pytest.mark.parametrize("door", DOORS)
def test_a_waiting_client_hears_that_its_call_waits_and_then_of_the_servers_progress(tmp_path: Path, door: str) -> None:
    heard: list[tuple[float, str | None]] = []

    async def progress(value: float, _: float | None, text: str | None) -> None:
        heard.append((value, text))

    async def scenario(world: Surroundings) -> None:
        world.tools.go_on.set()
        async with DOORS[door](world) as client:
            call = asyncio.create_task(client.call_tool("count_slowly", {"steps": 2}, progress_callback=progress))
            step = await held_by(world)
            await world.settle(lambda: len(heard) > 1)
            assert world.tools.calls == []
            say(world.ledger, step, grant(step))
            await call
        values = [value for value, _ in heard]
        assert values == sorted(set(values)), "each is more than the one before"
        assert heard[0] == (-1.0, "The call waits for a person's approval")
        if door != "fastmcp":  # whose own tools take another context than those of the tests
            assert values[-2:] == [1.0, 2.0]

    play(scenario, tmp_path, answer=ask_for("count_slowly"))


def test_a_client_of_the_stateful_era_waits_as_well(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.http() as http:
            from mcp.client import Client
            from mcp.client.streamable_http import streamable_http_client

            transport = streamable_http_client(world.mcp_url, http_client=http)
            async with Client(transport, mode="legacy", cache=None) as client:
                call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
                step = await held_by(world)
                say(world.ledger, step, grant(step))
                assert (await call).content[0].text == "transferred 1.0"
        assert world.ledger.decisions()[0].protocol_version == STATEFUL

    play(scenario, tmp_path)


def test_a_call_goes_on_only_when_as_many_different_people_as_it_needs_have_agreed(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            assert (step.needed, step.roles) == (2, ("approver", "treasurer"))
            not_two = [
                [grant(step, "a")],
                [grant(step, "a"), grant(step, "a", leaf_index=9)],
                [grant(step, "a"), grant(step, "b", key_id="l" * 16)],
                [grant(step, "a"), grant(step, "b", role="auditor")],
            ]
            for grants in not_two:
                asked = world.ledger.verdicts
                say(world.ledger, step, *grants)
                assert world.ledger.verdicts is not asked
                await asyncio.sleep(0)
                assert not call.done()
            # What was heard before stays heard: only the key that cannot be told apart keeps two from being two.
            assert world.tools.calls == []
            say(world.ledger, step, denied=True)
            with pytest.raises(MCPError):
                await call

    play(scenario, tmp_path, approvals={"needed": 2, "roles": ["approver", "treasurer"]})


def test_two_of_two_let_it_go_on(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            say(world.ledger, step, grant(step, "a"), grant(step, "b"))
            await call
        assert world.tools.calls == ["transfer_funds"]

    play(scenario, tmp_path, approvals={"needed": 2})


# --- ways round


def test_agreement_to_another_binding_lets_nothing_go_on(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            say(world.ledger, step, grant(step, binding="0" * 64), grant(step, "b"))
            with pytest.raises(MCPError) as caught:
                await call
            assert refused(caught) == "changed_binding"
            steps, status, _ = await settled(world, step)
        assert (steps, status) == (["held", "refused"], "not_forwarded")
        assert world.tools.calls == []

    play(scenario, tmp_path)


def test_changed_arguments_are_another_call_with_an_approval_of_its_own(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            first = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            shown = await held_by(world)
            second = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1000}))
            other = await held_by(world, 2)
            assert shown.binding != other.binding
            # Who agreed to the first has agreed to nothing else, even if it is told as if he had.
            say(world.ledger, other, grant(shown))
            with pytest.raises(MCPError) as caught:
                await second
            assert refused(caught) == "changed_binding"
            say(world.ledger, shown, grant(shown))
            assert (await first).content[0].text == "transferred 1.0"
        assert world.tools.calls == ["transfer_funds"]

    play(scenario, tmp_path)


def test_an_approval_is_used_once(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            say(world.ledger, step, grant(step))
            await call
            # The same bytes again are another call: what was said of the first is said of it no more.
            again = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            other = await held_by(world, 2)
            say(world.ledger, step, grant(step), grant(step, "b"))
            say(world.ledger, other, grant(step))
            with pytest.raises(MCPError):
                await again
        assert world.tools.calls == ["transfer_funds"]

    play(scenario, tmp_path)


def test_a_call_to_which_nobody_agrees_in_time_is_denied_and_agreement_comes_too_late(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            assert step.expires_ms == world.clock.now_ms() + 60_000
            world.clock.advance(60_000)
            say(world.ledger, step, grant(step))
            with pytest.raises(MCPError) as caught:
                await call
            assert refused(caught) == "approval_expired"
            steps, status, reason = await settled(world, step)
        assert (steps, status, reason) == (["held", "expired"], "not_forwarded", "approval_expired")
        assert world.tools.calls == []

    play(scenario, tmp_path, approvals={"expires_seconds": 60})


def test_a_client_that_goes_away_takes_its_call_along(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            async with world.http() as http:
                headers = {key.decode(): value.decode() for key, value in headers_of(name="transfer_funds")}
                body = body_of(name="transfer_funds", arguments={"amount": 1})
                async with http.stream("POST", world.mcp_url, content=body, headers=headers) as answer:
                    assert answer.headers["content-type"] == "text/event-stream"
                    step = await held_by(world)
            steps, status, reason = await settled(world, step)
            assert (steps, status, reason) == (["held", "cancelled"], "not_forwarded", "client_disconnected")
            say(world.ledger, step, grant(step))
        assert world.tools.calls == []

    play(scenario, tmp_path)


@pytest.mark.parametrize("door", ["sdk", "stdio", "http"])
def test_a_call_that_its_client_withdraws_is_not_run_by_a_late_agreement(tmp_path: Path, door: str) -> None:
    async def scenario(world: Surroundings) -> None:
        async with DOORS[door](world) as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            steps, status, _ = await settled(world, step)
            assert (steps, status) == (["held", "cancelled"], "not_forwarded")
            say(world.ledger, step, grant(step))
            # What comes after it is not held up by it.
            assert (await client.call_tool("refund_customer", {"amount": 1})).content[0].text == "refunded 1.0"
        assert world.tools.calls == ["refund_customer"]

    play(scenario, tmp_path)


def test_what_comes_after_a_held_call_in_a_pipe_goes_on_meanwhile(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with DOORS["stdio"](world) as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            assert (await client.call_tool("refund_customer", {"amount": 1})).content[0].text == "refunded 1.0"
            assert not call.done()
            say(world.ledger, step, grant(step))
            await call
        assert world.tools.calls == ["refund_customer", "transfer_funds"]

    play(scenario, tmp_path)


def test_what_is_contained_meanwhile_does_not_go_on(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(restrictions={"poll_seconds": 0.01, "wait_seconds": 0}), world.client() as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            order = Restriction(
                restriction_id=step.approval_id, kind="containment", scope="agent", since_ms=1, agent="Finance-Bot"
            )
            world.ledger.restricted = RestrictionSet((order,), version=3)
            await world.settle(lambda: 3 in world.ledger.acknowledged)
            say(world.ledger, step, grant(step))
            with pytest.raises(MCPError) as caught:
                await call
            assert refused(caught) == "contained"
            steps, status, reason = await settled(world, step)
        assert (steps, status, reason) == (["held", "refused"], "not_forwarded", "contained")
        assert world.tools.calls == []

    play(scenario, tmp_path)


def test_a_tool_that_was_listed_anew_as_another_one_is_not_the_one_that_was_approved(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway, world.client() as client:
            await client.list_tools()
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            gateway.core.require().admission._digests["finance"]["transfer_funds"] = "0" * 64  # as a list would
            say(world.ledger, step, grant(step))
            with pytest.raises(MCPError) as caught:
                await call
            assert refused(caught) == "tool_changed"
            steps, status, reason = await settled(world, step)
        assert (steps, status, reason) == (["held", "refused"], "not_forwarded", "tool_changed")
        assert world.tools.calls == []

    play(scenario, tmp_path)


def test_another_bundle_decides_anew_and_what_it_asks_for_is_another_approval(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway, world.client() as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            world.ledger.bundle = simple_bundle("another")
            await gateway.core.refresh_bundle()
            say(world.ledger, step, grant(step))
            other = await held_by(world, 2)
            assert (await settled(world, step))[1:] == ("not_forwarded", "bundle_changed")
            assert not call.done()
            say(world.ledger, other, grant(other))
            await call
        assert world.tools.calls == ["transfer_funds"]
        first, second = world.ledger.decisions()
        assert first.bundle is not None
        assert second.bundle is not None
        assert first.bundle.revision != second.bundle.revision

    play(scenario, tmp_path)


def test_a_gateway_that_stops_ends_what_it_holds_and_says_so(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway, world.client() as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            await gateway.core.require().passage.stop()
            with pytest.raises(MCPError):
                await call
        steps, status, reason = await settled(world, step)
        assert (steps, status, reason) == (["held", "cancelled"], "not_forwarded", "gateway_stopped")
        assert world.tools.calls == []

    play(scenario, tmp_path)


# --- where nothing is held


@pytest.mark.parametrize(
    ("members", "outcome"),
    [
        ({"server": {"capture": "digest"}}, "approval_not_shown"),
        ({"server": {"capture": "redacted"}}, "approval_not_shown"),
    ],
)
def test_what_people_could_not_see_is_denied_at_once(tmp_path: Path, members: Any, outcome: str) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            with pytest.raises(MCPError) as caught:
                await client.call_tool("transfer_funds", {"amount": 1})
            assert caught.value.error.data["enforcement"] == "ask"
        assert world.ledger.steps() == []
        assert [one.reason for one in world.ledger.outcomes(world.ledger.decision_ids()[0])] == [outcome]

    play(scenario, tmp_path, **members)


def test_without_a_ledger_nothing_is_held(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            await world.ledger.stop()
            with pytest.raises(MCPError) as caught:
                await client.call_tool("transfer_funds", {"amount": 1})
            assert refused(caught) in ("policy", "ledger_unavailable")  # whether it was known to be away, or found so
            await world.ledger.start()
            await world.settle(lambda: bool(world.ledger.outcomes()))
        assert world.tools.calls == []
        assert [one.reason for one in world.ledger.outcomes()] == ["ledger_unavailable"]
        assert [one.action for one in world.ledger.steps()] in ([], ["held", "refused"])

    play(scenario, tmp_path)


def test_no_more_is_held_at_once_than_may_be(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            calls = [asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1})) for _ in range(5)]
            await world.settle(lambda: sum(call.done() for call in calls) == 3)
            told = [call for call in calls if call.done()]
            assert all(isinstance(call.exception(), MCPError) for call in told)
            assert len(world.ledger.steps("held")) == 2
            for step in world.ledger.steps("held"):
                say(world.ledger, step, denied=True)
            await asyncio.gather(*calls, return_exceptions=True)
        assert world.tools.calls == []

    play(scenario, tmp_path, approvals={"max_held": 2})


# --- what cannot be undone


@pytest.mark.parametrize(("setting", "held"), [("hold", True), ("policy", False)])
def test_an_irreversible_tool_is_held_although_the_policy_merely_permits_it(
    tmp_path: Path, setting: str, held: bool
) -> None:
    tools = [{"name": "transfer_funds", "tags": ["irreversible"], "approvals": {"irreversible": setting}}]

    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            if held:
                step = await held_by(world)
                assert step.cause == "irreversible"
                assert world.tools.calls == []
                say(world.ledger, step, grant(step))
            await call
            await client.call_tool("refund_customer", {"amount": 1})
        assert len(world.ledger.steps("held")) == held
        assert world.tools.calls == ["transfer_funds", "refund_customer"]

    play(scenario, tmp_path, answer=lambda _: {"effect": Effect.PERMIT}, server={"tools": tools})


def test_what_cannot_be_undone_is_not_let_through_where_it_cannot_be_held(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            with pytest.raises(MCPError) as caught:
                await client.call_tool("transfer_funds", {"amount": 1})
            assert caught.value.error.data["enforcement"] == "ask"
        assert world.tools.calls == []

    play(
        scenario,
        tmp_path,
        answer=lambda _: {"effect": Effect.PERMIT},
        server={"tags": ["irreversible"], "capture": "digest"},
    )
