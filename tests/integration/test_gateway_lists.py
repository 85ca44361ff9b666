"""What a caller may not call, no list shows him: real clients, a real server, a real policy engine."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from enforcement.refusals import ErrorCode
from ledger.bodies import Outcome
from policies.bundles import Bundle
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.model import DecisionRequest, Effect
from tests.support.gateway import Surroundings, surroundings
from tests.support.mcp_messages import body_of, headers_of
from tests.support.policies import cedar_bundle

SCHEMA = """
entity Role; entity Tag;
entity Agent in [Role] { name: String };
entity Server in [Tag] { name: String };
entity Tool in [Server, Tag] { name: String, server: Server };
type Facts = {
  identity: { user?: String, authn: String, mfa: Bool, roles: Set<String> },
  time: { now_ms: Long, zone: String, local_date: String, hour: Long, minute: Long, weekday: Long },
  environment: { address: String, network: String },
  state: { session: String, calls: Long, denied: Long, started_ms: Long },
  args: { amount?: Long },
};
action "tools/list", "prompts/list", "resources/list", "resources/templates/list"
  appliesTo { principal: Agent, resource: Server, context: Facts };
action "tools/call", "prompts/get", "resources/read" appliesTo { principal: Agent, resource: Tool, context: Facts };
"""
POLICY = """
@id("lists") permit (principal, action, resource is Server);
@id("small-refunds") permit (principal, action, resource == Tool::"finance/refund_customer")
  when { context.args has amount && context.args.amount <= 100 };
@id("finance-transfers") permit (principal == Agent::"Finance-Bot", action, resource == Tool::"finance/transfer_funds");
@id("nightly") permit (principal, action, resource == Tool::"finance/count_slowly") when { context.time.hour < 6 };
@id("letters") permit (principal, action == Action::"prompts/get", resource == Tool::"finance/letter");
@id("public") permit (principal, action == Action::"resources/read", resource)
  when { resource.name like "file:///public/*" };
@id("no-secrets") forbid (principal, action, resource) when { resource.name like "*secret*" };
"""


def finance() -> Bundle:
    parameters = [{"name": "amount", "type": "long", "paths": ["amount"]}]
    return cedar_bundle(POLICY, schema=SCHEMA, parameters=parameters)


def with_prompts_and_resources(world: Surroundings) -> None:
    server = world.tools.server

    @server.prompt()
    def letter() -> str:
        return "Dear customer"

    @server.prompt()
    def threat() -> str:
        return "Dear debtor"

    def text() -> str:
        return "text"

    def template(place: str) -> str:
        return place

    for name in ("public/prices", "private/salaries", "public/secret"):
        server.resource(f"file:///{name}")(text)
    server.resource("file:///{place}/file")(template)


async def names(client: Any) -> dict[str, list[str]]:
    return {
        "tools": sorted(tool.name for tool in (await client.list_tools()).tools),
        "prompts": sorted(prompt.name for prompt in (await client.list_prompts()).prompts),
        "resources": sorted(str(resource.uri) for resource in (await client.list_resources()).resources),
        "templates": [item.uri_template for item in (await client.list_resource_templates()).resource_templates],
    }


def outcome_of(world: Surroundings, method: str) -> Outcome:
    (decision_id,) = world.ledger.decision_ids(method)
    (outcome,) = world.ledger.outcomes(decision_id)
    return outcome


def test_each_list_shows_what_some_arguments_would_allow_and_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with surroundings(tmp_path) as world:
            world.ledger.bundle, world.evaluator = finance(), Evaluator({"cedar": CedarEngine()})  # type: ignore[assignment]
            with_prompts_and_resources(world)
            async with world.running() as gateway:
                async with world.client() as client:
                    shown = await names(client)
                async with world.client("Support-Bot") as client:
                    tools = [tool.name for tool in (await client.list_tools()).tools]
                counted = gateway.metrics.render().decode()
        assert shown == {
            "tools": ["refund_customer", "transfer_funds"],
            "prompts": ["letter"],
            "resources": ["file:///public/prices"],
            "templates": ["file:///{place}/file"],
        }
        assert tools == ["refund_customer"]
        hidden = {method: outcome_of(world, method).hidden for method in ("prompts/list", "resources/list")}
        assert hidden == {"prompts/list": 1, "resources/list": 2}
        assert 'tallystick_hidden_entries_total{server="finance"} 10.0' in counted
        # Recorded is what the server said, not what the client saw.
        (record,) = (item for item in world.ledger.records if item.body == outcome_of(world, "prompts/list"))
        assert b"threat" in world.ledger.openings[record.record_id, "result"]

    asyncio.run(scenario())


def test_an_observed_server_shows_everything_and_says_how_much_it_would_hide(tmp_path: Path) -> None:
    tools = [{"name": "transfer_funds", "mode": "enforce"}]

    async def scenario() -> None:
        async with surroundings(tmp_path, answer=only("refund_customer")) as world:
            async with world.running(server={"mode": "observe"}), world.client() as client:
                everything = {tool.name for tool in (await client.list_tools()).tools}
            observed = outcome_of(world, "tools/list").hidden
            world.ledger.records.clear()
            async with world.running(server={"mode": "observe", "tools": tools}), world.client() as client:
                but_one = {tool.name for tool in (await client.list_tools()).tools}
        assert len(everything) == 5
        assert observed == 4
        assert but_one == everything - {"transfer_funds"}

    asyncio.run(scenario())


def only(name: str, **otherwise: Any) -> Any:
    def answer(request: DecisionRequest) -> dict[str, Any]:
        if request.action.endswith("/list") or request.resource.name == name:
            return {"effect": Effect.PERMIT}
        return {"effect": Effect.DENY} | otherwise

    return answer


def test_without_an_answer_of_the_engine_there_is_no_list(tmp_path: Path) -> None:
    failing = only("refund_customer", effect=Effect.INDETERMINATE, reason="limited")

    async def scenario() -> None:
        async with surroundings(tmp_path, answer=failing) as world:
            async with world.running(), world.client() as client:
                with pytest.raises(MCPError) as caught:
                    await client.list_tools()
            outcome = outcome_of(world, "tools/list")
        (tmp_path / "observed").mkdir()
        async with (
            surroundings(tmp_path / "observed", answer=failing) as world,
            world.running(server={"mode": "observe"}),
            world.client() as client,
        ):
            assert len((await client.list_tools()).tools) == 5
        assert caught.value.code == ErrorCode.RESULT_WITHHELD
        assert caught.value.error.data["reason"] == "listing_failed"
        assert (outcome.status, outcome.reason, outcome.hidden) == ("failed", "listing_failed", 0)

    asyncio.run(scenario())


def test_a_list_is_nobody_elses_to_keep_and_its_digests_are_those_of_all_tools(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with surroundings(tmp_path, answer=only("refund_customer")) as world:
            async with world.running(), world.http() as http:
                listing = await http.post(
                    world.mcp_url,
                    content=body_of("tools/list", None),
                    headers={key.decode(): value.decode() for key, value in headers_of("tools/list", None)},
                )
                await http.post(
                    world.mcp_url,
                    content=body_of("tools/call", "transfer_funds", {"amount": 1}),
                    headers={k.decode(): v.decode() for k, v in headers_of("tools/call", "transfer_funds")},
                )
            result = json.loads(listing.content)["result"]
            assert [tool["name"] for tool in result["tools"]] == ["refund_customer"]
            assert result["cacheScope"] == "private"
            (decision,) = world.ledger.decisions()
            assert (decision.decision, decision.tool) == ("DENY", "transfer_funds")
            assert decision.tool_digest is not None

    asyncio.run(scenario())
