"""A subscription is one call for as long as it lasts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from policies.model import decode_request
from tests.support.gateway import surroundings
from tests.support.mcp_messages import META, headers_of


def test_a_subscription_is_one_decision_and_one_outcome_and_begins_at_once(tmp_path: Path) -> None:
    wanted = {"toolsListChanged": True, "resourceSubscriptions": ["file:///prices"]}
    message = {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "subscriptions/listen",
        "params": {"notifications": wanted, "_meta": META},
    }
    headers = {key.decode(): value.decode() for key, value in headers_of("subscriptions/listen", None)}

    async def scenario() -> None:
        async with surroundings(tmp_path) as world, world.running(), world.http() as http:
            async with http.stream("POST", world.mcp_url, json=message, headers=headers) as response:
                lines = response.aiter_lines()
                event = None
                async for line in lines:
                    if line.startswith("data: "):
                        event = json.loads(line.removeprefix("data: "))
                        break
                # It goes on: what ended is the acknowledgement, a message of its own.
                assert "cancelled" not in {outcome.status for outcome in world.ledger.outcomes()}
            await world.settle(lambda: "cancelled" in {outcome.status for outcome in world.ledger.outcomes()})
            (decision_id,) = world.ledger.decision_ids("subscriptions/listen")
            (outcome,) = world.ledger.outcomes(decision_id)
            request = decode_request(world.ledger.openings[decision_id, "request"])
        assert event is not None
        assert event["method"] == "notifications/subscriptions/acknowledged"
        assert (outcome.status, outcome.reason) == ("cancelled", "client_disconnected")
        assert json.loads(request.arguments)["notifications"] == wanted

    asyncio.run(scenario())
