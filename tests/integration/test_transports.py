"""The same behaviour behind every transport: real clients and servers of the official SDK, one table of cases.

A record may differ in how the message came, and in nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from mcp.client import Client
from mcp.shared.exceptions import MCPError

from enforcement.refusals import ErrorCode
from ledger.bodies import Decision
from policies.model import Obligation
from tests.support.gateway import Surroundings, deny_tool, surroundings
from tests.support.transports import DOORS

Case = Callable[[Surroundings, Client], Awaitable[None]]

transports = pytest.mark.parametrize("transport", DOORS)


def play(case: Case, transport: str, directory: Path, **options: Any) -> Surroundings:
    async def run() -> Surroundings:
        async with surroundings(directory, **options) as world:
            async with DOORS[transport](world) as client:
                await case(world, client)
            return world

    return asyncio.run(run())


def decisions(world: Surroundings, transport: str, method: str = "tools/call") -> list[Decision]:
    """The decisions on one method, without what tells the transports apart; that is checked here."""
    found = world.ledger.decisions(method)
    assert {one.transport for one in found} <= {{"http": None, "fastmcp": "sdk"}.get(transport, transport)}
    return found


def essence(one: Decision) -> dict[str, Any]:
    """What must be the same behind every transport."""
    shared = ("agent", "server", "method", "tool", "decision", "enforcement", "mode", "reason", "tags")
    return {name: getattr(one, name) for name in shared}


@transports
def test_an_allowed_call_is_made_and_recorded_with_its_outcome(transport: str, tmp_path: Path) -> None:
    async def case(world: Surroundings, client: Client) -> None:
        result = await client.call_tool("refund_customer", {"amount": 12.5})
        assert result.content[0].text == "refunded 12.5"

    world = play(case, transport, tmp_path)
    (decision,) = decisions(world, transport)
    assert essence(decision) == {
        "agent": "Finance-Bot",
        "server": "finance",
        "method": "tools/call",
        "tool": "refund_customer",
        "decision": "PERMIT",
        "enforcement": "allow",
        "mode": "enforce",
        "reason": "policy",
        "tags": ("internal",),
    }
    (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
    assert (outcome.status, outcome.reason, outcome.tool_error) == ("completed", None, False)
    assert world.tools.calls == ["refund_customer"]


@transports
def test_a_denied_call_never_reaches_the_tool_and_says_why(transport: str, tmp_path: Path) -> None:
    async def case(world: Surroundings, client: Client) -> None:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("transfer_funds", {"amount": 1})
        assert caught.value.code == ErrorCode.DENIED
        assert caught.value.data["rule"] == "transfer_funds-forbidden"
        assert caught.value.data["enforcement"] == "deny"
        assert len(caught.value.data["decision_id"]) == 36

    world = play(case, transport, tmp_path, answer=deny_tool("transfer_funds"))
    (decision,) = decisions(world, transport)
    assert (decision.decision, decision.enforcement, decision.failed_condition) == (
        "DENY",
        "deny",
        "transfer_funds-forbidden",
    )
    assert world.ledger.outcomes(world.ledger.decision_ids()[0]) == []
    assert world.tools.calls == []


@transports
def test_a_kill_ends_the_session_for_the_calls_after_it(transport: str, tmp_path: Path) -> None:
    async def case(world: Surroundings, client: Client) -> None:
        for name in ("transfer_funds", "refund_customer"):
            with pytest.raises(MCPError) as caught:
                await client.call_tool(name, {"amount": 1})
            assert caught.value.code == ErrorCode.DENIED

    kill = deny_tool("transfer_funds", obligations=(Obligation.END_SESSION,))
    world = play(case, transport, tmp_path, answer=kill)
    first, second = decisions(world, transport)
    assert (first.enforcement, second.enforcement, second.reason) == ("kill", "deny", "session_ended")
    assert world.tools.calls == []


@transports
def test_an_observed_denial_lets_the_call_through(transport: str, tmp_path: Path) -> None:
    async def case(world: Surroundings, client: Client) -> None:
        await client.call_tool("transfer_funds", {"amount": 1})

    world = play(case, transport, tmp_path, answer=deny_tool("transfer_funds"), server={"mode": "observe"})
    (decision,) = decisions(world, transport)
    assert (decision.decision, decision.enforcement, decision.mode) == ("DENY", "allow", "observe")
    assert world.tools.calls == ["transfer_funds"]


@transports
def test_a_tool_that_fails_is_a_completed_call_with_an_error_of_the_tool(transport: str, tmp_path: Path) -> None:
    async def case(world: Surroundings, client: Client) -> None:
        result = await client.call_tool("break_down", {})
        assert result.is_error

    world = play(case, transport, tmp_path)
    (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
    assert (outcome.status, outcome.tool_error) == ("completed", True)


@transports
def test_the_tools_of_a_list_are_known_by_digest_when_they_are_called(transport: str, tmp_path: Path) -> None:
    async def case(world: Surroundings, client: Client) -> None:
        listed = await client.list_tools()
        assert "refund_customer" in [tool.name for tool in listed.tools]
        await client.call_tool("refund_customer", {"amount": 1})

    world = play(case, transport, tmp_path)
    (listing,) = decisions(world, transport, "tools/list")
    (call,) = decisions(world, transport)
    assert (listing.enforcement, listing.tool_digest) == ("allow", None)
    assert call.tool_digest is not None


@transports
def test_a_call_that_its_client_gives_up_is_recorded_as_cancelled(transport: str, tmp_path: Path) -> None:
    async def case(world: Surroundings, client: Client) -> None:
        call = asyncio.create_task(client.call_tool("wait_for_ever", {}))
        await world.tools.started.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await world.tools.cancelled.wait()
        decision_id = world.ledger.decision_ids()[0]
        await world.settle(lambda: bool(world.ledger.outcomes(decision_id)))
        (outcome,) = world.ledger.outcomes(decision_id)
        said = "client_cancelled" if transport == "stdio" else "client_disconnected"  # over a pipe it must say so
        assert (outcome.status, outcome.reason) == ("cancelled", said)

    play(case, transport, tmp_path)


def _unavailable(_: object) -> web.Response:
    return web.Response(status=503)


@transports
@pytest.mark.parametrize(("recording", "made"), [("strict", False), ("available", True)])
def test_with_the_ledger_away_only_what_may_do_without_it_is_called(
    transport: str, recording: str, made: bool, tmp_path: Path
) -> None:
    async def case(world: Surroundings, client: Client) -> None:
        world.ledger.fault = _unavailable
        if made:
            await client.call_tool("refund_customer", {"amount": 1})
        else:
            with pytest.raises(MCPError) as caught:
                await client.call_tool("refund_customer", {"amount": 1})
            assert (caught.value.code, caught.value.data["reason"]) == (ErrorCode.UNAVAILABLE, "ledger_unavailable")
        world.ledger.fault = lambda _: None

    options = {"server": {"recording": recording}, "recording": {"strict_seconds": 0.2}}
    world = play(case, transport, tmp_path, **options)
    assert world.tools.calls == (["refund_customer"] if made else [])
    (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
    assert (outcome.status, outcome.reason) == (
        ("completed", None) if made else ("not_forwarded", "ledger_unavailable")
    )
