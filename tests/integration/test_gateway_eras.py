"""Both protocol eras through one gateway, with clients and servers of the official SDK."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import CreateMessageResult, ElicitResult, ListRootsResult, Root, TextContent

from ledger.bodies import Decision, Outcome
from policies.model import DecisionRequest, Effect
from tests.support.both_eras import STATEFUL, Events, TwoWayServer, legacy, play
from tests.support.gateway import Surroundings

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


async def sampled(_context: Any, _params: Any) -> CreateMessageResult:
    return CreateMessageResult(role="assistant", content=TextContent(type="text", text="because"), model="m")


async def confirmed(_context: Any, _params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"confirmed": True})


async def rooted(_context: Any) -> ListRootsResult:
    return ListRootsResult(roots=[Root(uri="file:///srv")])


CALLBACKS = {"sampling_callback": sampled, "elicitation_callback": confirmed, "list_roots_callback": rooted}


def text(result: Any) -> str:
    return str(result.content[0].text)


def decided(world: Surroundings, direction: str | None = None) -> Counter[str | None]:
    return Counter(one.method for one in world.ledger.decisions(None) if one.direction == direction)


def of_server(world: Surroundings, method: str) -> tuple[Decision, list[Outcome]]:
    """The one decision about a server's messages of a method, and its outcomes."""
    ((record_id, decision),) = [
        (record.record_id, record.body)
        for record in world.ledger.records
        if isinstance(record.body, Decision) and record.body.method == method and record.body.direction == "server"
    ]
    return decision, world.ledger.outcomes(record_id)


async def each_has_its_outcome(world: Surroundings, *, but: Iterable[str] = ()) -> None:
    """Wait until every permitted decision has exactly one outcome."""

    def open_ones() -> list[str]:
        closed = Counter(outcome.decision_id for outcome in world.ledger.outcomes())
        permitted = [
            record.record_id
            for record in world.ledger.records
            if isinstance(record.body, Decision) and record.body.decision == "PERMIT" and record.body.method not in but
        ]
        assert all(count == 1 for count in closed.values())
        return [record_id for record_id in permitted if not closed[record_id]]

    await world.settle(lambda: not open_ones())


def deny(*methods: str) -> Any:
    def answer(request: DecisionRequest) -> dict[str, Any]:
        return {"effect": Effect.DENY if request.action in methods else Effect.PERMIT}

    return answer


def test_a_client_of_the_stateful_era_does_everything_that_it_does_directly(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, server: TwoWayServer) -> None:
        async with legacy(world) as client:
            assert client.protocol_version == STATEFUL
            assert text(await client.call_tool("refund_customer", {"amount": 1})) == "refunded 1.0"
            assert (await client.list_tools()).tools[0].name == "refund_customer"
            assert (await client.read_resource("notes://today")).contents[0].text == "noted"
            assert (await client.get_prompt("greet", {"name": "Ada"})).messages[0].content.text == "Hello Ada"
            await client.send_ping()
        await each_has_its_outcome(world)
        assert decided(world) == {
            "initialize": 1,
            "notifications/initialized": 1,
            "transport/listen": 1,
            "tools/call": 1,
            "tools/list": 2,  # the SDK looks up the schema of an output
            "resources/read": 1,
            "prompts/get": 1,
            "ping": 1,
            "transport/terminate": 1,
        }
        assert {one.protocol_version for one in world.ledger.decisions(None)} == {STATEFUL}
        assert server.server.session_manager._server_instances == {}

    play(scenario, tmp_path)


def test_both_eras_pass_at_once(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, server: TwoWayServer) -> None:
        async with legacy(world) as old, world.client("Support-Bot") as new:
            calls = [client.call_tool("refund_customer", {"amount": 1}) for client in (old, new, old, new)]
            assert [text(result) for result in await asyncio.gather(*calls)] == ["refunded 1.0"] * 4
        await each_has_its_outcome(world)
        versions = Counter((one.agent, one.protocol_version) for one in world.ledger.decisions())
        assert versions == {("Finance-Bot", STATEFUL): 2, ("Support-Bot", "2026-07-28"): 2}

    play(scenario, tmp_path)


def test_a_server_asks_its_client_back_and_each_request_is_judged_and_has_the_answer_as_outcome(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, server: TwoWayServer) -> None:
        async with legacy(world, **CALLBACKS) as client:
            assert text(await client.call_tool("sample", {})) == "because"
            assert text(await client.call_tool("confirm", {})) == "accept"
            assert text(await client.call_tool("roots", {})) == "file:///srv"
        await each_has_its_outcome(world)
        assert decided(world, "server") == {"sampling/createMessage": 1, "elicitation/create": 1, "roots/list": 1}
        decision, (outcome,) = of_server(world, "sampling/createMessage")
        assert (decision.agent, decision.protocol_version, outcome.status) == ("Finance-Bot", STATEFUL, "completed")
        assert outcome.result is not None
        asked = next(one for one in world.evaluator.asked if one.action == "sampling/createMessage")
        assert '"maxTokens":10' in asked.arguments

    play(scenario, tmp_path)


def test_what_a_policy_denies_a_server_its_client_never_sees(tmp_path: Path) -> None:
    seen: list[str] = []

    async def never(*_: Any) -> Any:
        seen.append("asked")

    async def scenario(world: Surroundings, server: TwoWayServer) -> None:
        async with legacy(world, **dict.fromkeys(CALLBACKS, never)) as client:
            for tool in ("sample", "confirm", "roots"):
                with pytest.raises(MCPError, match=r"^Denied$"):
                    await client.call_tool(tool, {})
        await each_has_its_outcome(world)
        assert server.errors == ["Denied"] * 3
        assert seen == []
        decision, outcomes = of_server(world, "elicitation/create")
        assert (decision.decision, decision.enforcement, outcomes) == ("DENY", "deny", [])

    denied = deny("sampling/createMessage", "elicitation/create", "roots/list")
    play(scenario, tmp_path, answer=denied)


def test_notifications_of_a_server_are_judged_once_for_each_method_and_stream(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, server: TwoWayServer) -> None:
        steps: list[float] = []

        async def progressed(progress: float, _total: float | None, _message: str | None) -> None:
            steps.append(progress)

        async with legacy(world) as client:
            await client.call_tool("count", {"steps": 5}, progress_callback=progressed)
        await each_has_its_outcome(world)
        assert steps == [1, 2, 3, 4, 5]
        _, (outcome,) = of_server(world, "notifications/progress")
        assert (outcome.status, outcome.messages) == ("completed", 5)

    play(scenario, tmp_path)


@pytest.mark.parametrize("era", ["stateful", "stateless"])
def test_notifications_that_a_policy_denies_do_not_pass(tmp_path: Path, era: str) -> None:
    async def scenario(world: Surroundings, server: TwoWayServer) -> None:
        steps: list[float] = []

        async def progressed(progress: float, _total: float | None, _message: str | None) -> None:
            steps.append(progress)

        async with legacy(world) if era == "stateful" else world.client() as client:
            result = await client.call_tool("count", {"steps": 5}, progress_callback=progressed)
        assert (text(result), steps) == ("counted", [])
        assert decided(world, "server") == {"notifications/progress": 1}

    play(scenario, tmp_path, answer=deny("notifications/progress"))


def test_a_call_that_its_client_withdraws_is_cancelled_at_the_server_and_in_the_record(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, server: TwoWayServer) -> None:
        async with legacy(world) as client:
            call = asyncio.create_task(client.call_tool("wait", {}))
            await server.started.wait()
            call.cancel()
            async with asyncio.timeout(20):
                await server.cancelled.wait()
            (made,) = world.ledger.decision_ids()
            await world.settle(lambda: bool(world.ledger.outcomes(made)))
        (outcome,) = world.ledger.outcomes(made)
        assert (outcome.status, outcome.reason) == ("cancelled", "client_cancelled")
        await each_has_its_outcome(world)

    play(scenario, tmp_path)


def test_an_answer_on_another_stream_is_its_calls_outcome(tmp_path: Path) -> None:
    """The server ends the call's stream; the client goes on with it by the id of its last event."""

    async def scenario(world: Surroundings, server: TwoWayServer) -> None:
        async with legacy(world) as client:
            polling = asyncio.create_task(client.call_tool("poll", {}))
            await server.started.wait()
            await world.settle(lambda: decided(world)["transport/listen"] >= 2)
            assert world.ledger.outcomes(world.ledger.decision_ids()[0]) == []
            server.go_on.set()
            assert text(await polling) == "polled"
        (call,) = world.ledger.decision_ids()
        (outcome,) = world.ledger.outcomes(call)
        assert (outcome.status, outcome.result is not None) == ("completed", True)
        await each_has_its_outcome(world)

    play(scenario, tmp_path, offers={"event_store": Events(), "retry_interval": 50})
