"""A server's own tool list, made into a bundle, in force before a client of the official SDK."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from mcp.shared.exceptions import MCPError

from policies.bundles import Bundle, bundle_from_files
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.generate.bundle import generate
from tests.support.gateway import Surroundings, surroundings


async def generated(world: Surroundings) -> Bundle:
    """The bundle of what the server itself lists; the agents of these tests have one role for both kinds of calls."""
    tools = await world.tools.server.list_tools()
    listed = {"tools": [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]}
    files = dict(generate("mcp", json.dumps(listed).encode(), server="finance").files)
    policy = files["policy.cedar"].replace(b'@obligation("approval")\n', b"")
    files["policy.cedar"] = policy.replace(b"finance-writer", b"finance").replace(b"finance-reader", b"finance")
    return bundle_from_files(files)


def test_an_unknown_argument_is_denied_by_the_generated_rule_and_recorded_as_drift(tmp_path: Path) -> None:
    evaluator = Evaluator({"cedar": CedarEngine()})

    async def scenario() -> None:
        async with surroundings(tmp_path) as world:
            world.ledger.bundle = await generated(world)
            world.evaluator = evaluator  # type: ignore[assignment]  # the real one
            async with world.running(), world.client() as client:
                result = await client.call_tool("refund_customer", {"amount": 12.5, "note": "late"})
                with pytest.raises(MCPError) as caught:
                    await client.call_tool("refund_customer", {"amount": 12.5, "Alice Miller": True})
            assert result.content[0].text == "refunded 12.5 late"
            assert world.tools.calls == ["refund_customer"]
            data = caught.value.error.data
            assert (data["reason"], data["rule"], data["drift"]) == ("policy", "boundary", ["unknown_argument"])
            inside, outside = world.ledger.decisions()
            assert (inside.decision, inside.drift) == ("PERMIT", ())
            assert (outside.decision, outside.rules, outside.reason) == ("DENY", ("boundary",), "policy")
            assert outside.drift == ("unknown_argument",)

    try:
        asyncio.run(scenario())
    finally:
        evaluator.close()
