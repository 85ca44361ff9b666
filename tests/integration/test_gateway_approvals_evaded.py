"""Ways round the people who must agree to a call."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from policies.model import Effect
from tests.integration.test_gateway_approvals import play
from tests.support.both_eras import STATEFUL
from tests.support.gateway import Surroundings
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
