"""Ways round the people who must agree to a call: what happens at the last moment, and calls that cannot be held."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from mcp.shared.exceptions import MCPError

from ledger.tool_verdicts import ToolVerdict, ToolVerdicts
from policies.model import Effect
from tests.integration.test_gateway_approvals import play
from tests.support.both_eras import STATEFUL
from tests.support.gateway import Surroundings, simple_bundle
from tests.support.held import grant, held_by, say, settled
from tests.support.mcp_messages import body_of, headers_of


@pytest.mark.parametrize("stateful", [False, True])
def test_a_call_without_an_id_does_not_pass_by_the_people_who_must_agree_to_it(tmp_path: Path, stateful: bool) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.http() as http:
            message = json.loads(body_of(name="transfer_funds", arguments={"amount": 1}))
            del message["id"]
            headers = headers_of(name="transfer_funds")
            if stateful:
                del message["params"]["_meta"]
                headers = headers_of(name=None, method=None, version=STATEFUL)
            plain = {key.decode(): value.decode() for key, value in headers}
            answer = await http.post(world.mcp_url, content=json.dumps(message), headers=plain)
            assert answer.status_code == 403
            await world.settle(lambda: bool(world.ledger.outcomes()))
        (decision,) = world.ledger.decisions()
        assert (decision.decision, decision.enforcement) == ("PERMIT", "ask")
        assert [(one.status, one.reason) for one in world.ledger.outcomes()] == [("not_forwarded", "approval_required")]

    tools = [{"name": "transfer_funds", "tags": ["irreversible"]}]
    play(scenario, tmp_path, answer=lambda _: {"effect": Effect.PERMIT}, server={"tools": tools})


@pytest.mark.parametrize("meanwhile", ["approval_denied", "tool_changed", "client_disconnected", "bundle_changed"])
def test_what_happens_while_the_use_of_an_approval_is_recorded_keeps_the_call_from_going_on(
    tmp_path: Path, meanwhile: str
) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway, world.client() as client:
            await client.list_tools()
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            running = gateway.core.require()
            assert running.holding is not None
            await world.settle(lambda: len(running.holding) == 1)
            (held,) = running.holding._approvals._held.values()

            async def before() -> None:
                if not held.granted:
                    return
                world.ledger.before = None
                if meanwhile == "approval_denied":
                    say(world.ledger, step, grant(step), denied=True)
                    await world.settle(lambda: held.denied)
                elif meanwhile == "tool_changed":
                    running.admission._digests["finance"]["transfer_funds"] = "0" * 64  # as a list would
                elif meanwhile == "bundle_changed":
                    world.ledger.bundle = simple_bundle("another")
                    await gateway.core.refresh_bundle()
                else:
                    call.cancel()
                    await world.settle(lambda: held.withdrawn is not None)

            world.ledger.before = before
            say(world.ledger, step, grant(step))
            if meanwhile == "bundle_changed":
                other = await held_by(world, 2)
                say(world.ledger, other, denied=True)
            await asyncio.gather(call, return_exceptions=True)
            steps, status, reason = await settled(world, step)
        assert steps[:2] == ["held", "used"], "it was granted, and on its way"
        assert (status, reason) == ("not_forwarded", meanwhile)
        assert world.tools.calls == []

    play(scenario, tmp_path)


@pytest.mark.parametrize("moment", ["before somebody agrees", "while its use is recorded"])
def test_a_tool_that_is_quarantined_at_the_last_look_is_not_called(tmp_path: Path, moment: str) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway, world.client() as client:
            await client.list_tools()
            call = asyncio.create_task(client.call_tool("transfer_funds", {"amount": 1}))
            step = await held_by(world)
            running = gateway.core.require()
            assert running.holding is not None
            await world.settle(lambda: len(running.holding) == 1)
            (held,) = running.holding._approvals._held.values()

            async def quarantine() -> None:
                verdict = ToolVerdict(
                    server="finance", tool="transfer_funds", state="quarantined", digest="ab" * 32, leaf=3
                )
                await running.pins._take(ToolVerdicts(3, {("finance", "transfer_funds"): verdict}).document)

            async def before() -> None:
                if held.granted:
                    world.ledger.before = None
                    await quarantine()

            if moment == "before somebody agrees":
                await quarantine()
            else:
                world.ledger.before = before
            say(world.ledger, step, grant(step))
            with pytest.raises(MCPError):
                await call
            steps, status, reason = await settled(world, step)
        used = ["used"] if moment == "while its use is recorded" else []
        assert (steps, status, reason) == (["held", *used, "refused"], "not_forwarded", "tool_quarantined")
        assert world.tools.calls == []

    pins = {"server": {"pins": "first_use"}, "pinning": {"fetch_seconds": 0, "poll_seconds": 3600}}
    play(scenario, tmp_path, **pins)
