"""A server asks, a client answers: real clients and servers of the official SDK, one logical call in the ledger."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult

from enforcement.refusals import ErrorCode
from ledger.bodies import Decision
from policies.bundles import bundle_from_files
from policies.listing import Unknown, unknown_in
from policies.model import DecisionRequest, Effect, decode_request
from policies.windows import read_windows
from tests.support.gateway import Surroundings, surroundings
from tests.support.mcp_messages import META, headers_of

ARGUMENTS = {"amount": 12.5}


def with_questions(world: Surroundings) -> list[tuple[str | None, list[str]]]:
    """Give the server a tool that asks twice before it pays; return what it sees of each round."""
    seen: list[tuple[str | None, list[str]]] = []

    @world.tools.server.tool()
    async def pay(amount: float, ctx: Context) -> str | InputRequiredResult:
        answers = ctx.input_responses or {}
        seen.append((ctx.request_state, sorted(answers)))
        if ctx.request_state is None:
            return InputRequiredResult(input_requests=question("sure"), request_state="asked once")
        if ctx.request_state == "asked once":
            return InputRequiredResult(input_requests=question("really"), request_state="asked twice")
        return f"paid {amount}"

    return seen


def question(key: str) -> Any:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}}
    return {key: ElicitRequest(params=ElicitRequestFormParams(message=f"{key}?", requested_schema=schema))}


async def agree(_context: Any, _params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"yes": True})


def decisions(world: Surroundings) -> list[tuple[str, Decision]]:
    """All of them but those on the lists of tools that the client asks for by itself."""
    every = [(item.record_id, item.body) for item in world.ledger.records if isinstance(item.body, Decision)]
    return [(record_id, body) for record_id, body in every if body.method != "tools/list"]


def outcomes(world: Surroundings) -> dict[str, tuple[str, str | None]]:
    return {
        record_id: (outcome.status, outcome.reason)
        for record_id, _ in decisions(world)
        for outcome in world.ledger.outcomes(record_id)
    }


def test_a_call_of_three_rounds_is_one_call_whose_every_message_is_judged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with surroundings(tmp_path) as world:
            seen = with_questions(world)
            async with world.running(), world.client(elicitation_callback=agree) as client:
                result = await client.call_tool("pay", ARGUMENTS)
            assert result.content[0].text == "paid 12.5"
            assert seen == [(None, []), ("asked once", ["sure"]), ("asked twice", ["really"])]
            recorded = decisions(world)
            (root, first), *later = recorded
            assert [body.method for _, body in recorded] == [
                "tools/call",
                "elicitation/create",
                "tools/call",
                "elicitation/create",
                "tools/call",
            ]
            assert first.continues is None
            assert {body.continues for _, body in later} == {root}
            assert len({body.session for _, body in recorded}) == 1
            ended = [outcomes(world)[record_id] for record_id, _ in recorded]
            assert ended == [("completed", "input_required")] * 4 + [("completed", None)]
            # The policy was asked about what the server asks.
            asked = decode_request(world.ledger.openings[recorded[1][0], "request"])
            assert json.loads(asked.arguments)["message"] == "sure?"
            assert (asked.action, asked.resource.server) == ("elicitation/create", "finance")
            assert [stream.verdict.name for stream in world.ledger.streams()] == ["COMPLETE"]

    asyncio.run(scenario())


def test_a_question_that_is_refused_reaches_no_client(tmp_path: Path) -> None:
    def answer(request: DecisionRequest) -> dict[str, Any]:
        if request.action != "elicitation/create" or "really" not in request.arguments:
            return {"effect": Effect.PERMIT}
        return {"effect": Effect.DENY, "failed_condition": "no-doubt"}

    async def scenario() -> None:
        async with surroundings(tmp_path, answer=answer) as world:
            seen = with_questions(world)
            async with world.running(), world.client(elicitation_callback=agree) as client:
                with pytest.raises(MCPError) as caught:
                    await client.call_tool("pay", ARGUMENTS)
            assert len(seen) == 2
            (root, _), _, (last, _), (refused, _) = decisions(world)
            assert caught.value.code == ErrorCode.DENIED
            told = caught.value.error.data
            assert (told["reason"], told["rule"], told["decision_id"]) == ("policy", "no-doubt", refused)
            assert told["continues"] == root
            assert outcomes(world)[last] == ("failed", "input_denied")
            assert refused not in outcomes(world)

    asyncio.run(scenario())


def test_of_several_questions_one_that_is_refused_keeps_all_back(tmp_path: Path) -> None:
    def answer(request: DecisionRequest) -> dict[str, Any]:
        refused = request.action == "elicitation/create" and "second" in request.arguments
        return {"effect": Effect.DENY if refused else Effect.PERMIT}

    async def scenario() -> None:
        async with surroundings(tmp_path, answer=answer) as world:

            @world.tools.server.tool()
            async def ask() -> str | InputRequiredResult:
                return InputRequiredResult(
                    input_requests={**question("first"), **question("second"), **question("third")}
                )

            async with world.running(), world.client(elicitation_callback=agree) as client:
                with pytest.raises(MCPError):
                    await client.call_tool("ask", {})
            (call, _), (first, _), (second, _), (third, _) = decisions(world)
            ended = outcomes(world)
            assert ended[call] == ("failed", "input_denied")
            assert ended[first] == ended[third] == ("not_forwarded", "input_denied")
            assert second not in ended

    asyncio.run(scenario())


async def post(world: Surroundings, params: dict[str, Any], agent: str = "Finance-Bot", name: str = "pay") -> Any:
    message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": name, "_meta": META, **params}}
    headers = {key.decode(): value.decode() for key, value in headers_of("tools/call", name)}
    async with world.http(agent) as http:
        response = await http.post(world.mcp_url, json=message, headers=headers)
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return json.loads(events[-1] if events else response.text)


def test_a_state_comes_back_once_for_the_same_call_of_the_same_principal(tmp_path: Path) -> None:
    meta = {**META, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}
    answers = {"inputResponses": {"sure": {"action": "accept", "content": {"yes": True}}}, "_meta": meta}

    async def scenario() -> None:
        async with surroundings(tmp_path) as world:
            seen = with_questions(world)
            async with world.running():
                begun = await post(world, {"arguments": ARGUMENTS, "_meta": meta})
                state = begun["result"]["requestState"]
                forged = [
                    await post(world, {"arguments": {"amount": 99}, "requestState": state, **answers}),
                    await post(world, {"arguments": ARGUMENTS, "requestState": state, **answers}, agent="Support-Bot"),
                    await post(world, {"arguments": ARGUMENTS, "requestState": "asked twice", **answers}),
                    await post(world, {"arguments": ARGUMENTS, **answers}),
                    await post(
                        world, {"arguments": ARGUMENTS, "requestState": state, **answers}, name="refund_customer"
                    ),
                ]
                assert len(seen) == 1
            # A restart changes nothing about what is known.
            async with world.running():
                going_on = await post(world, {"arguments": ARGUMENTS, "requestState": state, **answers})
                again = await post(world, {"arguments": ARGUMENTS, "requestState": state, **answers})
            async with world.running():
                later = await post(world, {"arguments": ARGUMENTS, "requestState": state, **answers})
            assert going_on["result"]["resultType"] == "input_required"
            for refused in (*forged, again, later):
                assert refused["error"]["code"] == ErrorCode.INVALID_PARAMS
                assert refused["error"]["data"]["reason"] == "unknown_round"
                assert refused["error"]["data"]["decision_id"]
            assert len(seen) == 2
            assert world.tools.calls == []
            assert [body.decision for _, body in decisions(world)].count("DENY") == 7

    asyncio.run(scenario())


def test_a_state_is_good_at_one_of_several_gateways_and_at_none_while_nobody_can_say_which(tmp_path: Path) -> None:
    meta = {**META, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}
    answers = {"inputResponses": {"sure": {"action": "accept", "content": {"yes": True}}}, "_meta": meta}

    async def scenario() -> None:
        async with surroundings(tmp_path) as world:
            seen = with_questions(world)
            elsewhere = {"state_directory": tmp_path / "another"}
            async with world.running():
                begun = await post(world, {"arguments": ARGUMENTS, "_meta": meta})
            further = {"arguments": ARGUMENTS, "requestState": begun["result"]["requestState"], **answers}
            async with world.running(**elsewhere):
                taken, world.ledger.taken = world.ledger.taken, None
                unsure = await post(world, further)
                world.ledger.taken = taken
                going_on = await post(world, further)  # at another gateway than that which gave it
            async with world.running():
                replayed = [await post(world, further), await post(world, further)]
            (tmp_path / "another" / "state.db").unlink()
            async with world.running(**elsewhere):  # which knows no more of what it has used
                replayed.append(await post(world, further))
            assert unsure["error"]["code"] == ErrorCode.UNAVAILABLE
            assert unsure["error"]["data"]["reason"] == "rounds_unavailable"
            assert going_on["result"]["resultType"] == "input_required"
            assert [refused["error"]["data"]["reason"] for refused in replayed] == ["unknown_round"] * 3
            assert len(seen) == 2

    asyncio.run(scenario())


def test_answers_that_nobody_asked_for_pass_as_they_are_only_where_the_operator_says_so(tmp_path: Path) -> None:
    meta = {**META, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"form": {}}}}
    unasked = {
        "arguments": {},
        "inputResponses": {"sure": {"action": "accept", "content": {"yes": True}}},
        "_meta": meta,
    }

    async def scenario() -> None:
        async with surroundings(tmp_path) as world:

            @world.tools.server.tool()
            async def ask(ctx: Context) -> str | InputRequiredResult:
                given = ctx.input_responses or {}
                return "answered" if "sure" in given else InputRequiredResult(input_requests=question("sure"))

            async with world.running():
                refused = await post(world, unasked, name="ask")
            async with world.running(protocol={"unasked_answers": "pass"}):
                passed = await post(world, unasked, name="ask")
                made_up = await post(world, {**unasked, "requestState": "made up"}, name="ask")
            assert refused["error"]["data"]["reason"] == made_up["error"]["data"]["reason"] == "unknown_round"
            assert passed["result"]["content"][0]["text"] == "answered"
            found = decisions(world)
            assert [body.decision for _, body in found] == ["DENY", "PERMIT", "DENY"]
            assert [body.continues for _, body in found] == [None, None, None]
            assert list(outcomes(world)) == [found[1][0]]

    asyncio.run(scenario())


def test_a_call_counts_in_its_last_round_and_not_in_each(tmp_path: Path) -> None:
    windows = {"windows": [{"name": "calls", "measure": "count", "per": "session"}]}
    manifest = {
        "format": "tallystick.bundle/1",
        "name": "scripted",
        "engine": "scripted",
        "policies": ["policy.txt"],
        "windows": "windows.json",
    }
    bundle = bundle_from_files(
        {
            "manifest.json": json.dumps(manifest).encode(),
            "policy.txt": b"-",
            "windows.json": json.dumps(windows).encode(),
        }
    )

    async def scenario() -> None:
        async with surroundings(tmp_path) as world:
            world.ledger.bundle = bundle
            with_questions(world)
            async with world.running(), world.client(elicitation_callback=agree) as client:
                await client.call_tool("pay", ARGUMENTS)
                await client.call_tool("refund_customer", {"amount": 1})
            measured = [
                read_windows(bundle).values(request)["calls"]
                for request in world.evaluator.asked
                if request.action == "tools/call" and unknown_in(request) is Unknown.NOTHING
            ]
            assert measured == [1, 1, 1, 2]

    asyncio.run(scenario())
