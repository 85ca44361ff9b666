"""The middleware of the official SDK where a call is given up at an awkward moment."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mcp.server.connection import Connection
from mcp.server.session import ServerSession

from enforcement.sdk import SDKMiddleware
from tests.support.gateway import surroundings
from tests.support.mcp_messages import META, VERSION
from tests.support.transports import known


class Channel:
    """A way back on which nothing is sent."""


@dataclass
class Context:
    """What the middleware reads of the SDK's context."""

    method: str = "tools/list"
    params: dict[str, Any] = field(default_factory=lambda: {"_meta": META})
    request_id: int = 7
    protocol_version: str = VERSION
    session: ServerSession = field(
        default_factory=lambda: ServerSession(cast("Any", Channel()), Connection.from_envelope(VERSION, None, None))
    )


def test_a_call_that_is_given_up_while_its_answer_is_looked_through_has_its_outcome(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with surroundings(tmp_path) as world:
            core = world.build().core
            async with core:
                looking, evaluate = asyncio.Event(), world.evaluator.evaluate_many

                async def slowly(bundle: Any, requests: Any) -> Any:
                    if requests[0].arguments == "?":
                        looking.set()
                        await asyncio.Event().wait()
                    return await evaluate(bundle, requests)

                world.evaluator.evaluate_many = slowly  # type: ignore[method-assign]

                async def listed(_: Any) -> Any:
                    return {"tools": [{"name": "refund_customer"}]}

                middleware = SDKMiddleware(core, known)
                call = asyncio.create_task(middleware(Context(), listed))  # type: ignore[arg-type]
                await looking.wait()
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
                await world.settle(lambda: bool(world.ledger.decision_ids("tools/list")))
                (decision_id,) = world.ledger.decision_ids("tools/list")
                await world.settle(lambda: bool(world.ledger.outcomes(decision_id)))
                (outcome,) = world.ledger.outcomes(decision_id)
                assert (outcome.status, outcome.reason) == ("cancelled", "client_disconnected")

    asyncio.run(scenario())
