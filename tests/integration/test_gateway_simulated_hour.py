"""An hour with hardly any service: what still runs, what is denied and why, and the ledger afterwards.

The clock is the gateway's own and is moved by the test; nothing waits for the time to pass.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcp import Client
from mcp.shared.exceptions import MCPError

from ledger.bodies import Decision, Outcome
from ledger.clock import SimulatedClock
from ledger.completeness import Verdict
from policies.model import DecisionRequest, Effect, Obligation
from tests.support.gateway import Surroundings, surroundings

STEP_MS = 5 * 60_000
READ, WRITE, ASK, DENY = "refund_customer", "transfer_funds", "break_down", "wait_for_ever"
"""The stub's tools, in the parts that they play here; none of the last two is ever reached."""

SERVER = {"tools": [{"name": READ, "tags": ["read"]}, {"name": WRITE, "tags": ["write"]}]}


def policy(request: DecisionRequest) -> dict[str, Any]:
    if request.resource.name == DENY:
        return {"effect": Effect.DENY, "failed_condition": "never"}
    if request.resource.name == ASK:
        return {"effect": Effect.PERMIT, "obligations": (Obligation.APPROVAL,)}
    return {"effect": Effect.PERMIT}


@dataclass
class Hour:
    """What clients were told, by tool: None for a result, else the reason of the denial."""

    told: dict[str, list[str | None]] = field(default_factory=dict)


async def call(client: Client, tool: str) -> str | None:
    try:
        await client.call_tool(tool, {"amount": 1})
    except MCPError as error:
        return str(error.error.data["reason"])
    return None


async def step(client: Client, hour: Hour, clock: SimulatedClock) -> None:
    for tool in (READ, WRITE, ASK, DENY):
        hour.told.setdefault(tool, []).append(await call(client, tool))
    clock.advance(STEP_MS)


async def play_hour(world: Surroundings, clock: SimulatedClock, *, overdue_after: int | None) -> Hour:
    """Five minutes with the service, fifty without it, five with it again."""
    hour = Hour()
    async with world.running() as gateway, world.client() as client:
        recorder = gateway.core.require().recorder
        await step(client, hour, clock)
        await world.ledger.stop()
        await gateway.core.refresh_bundle()
        for away in range(1, 11):
            await step(client, hour, clock)
            if overdue_after is not None and away >= overdue_after:
                # The gateway looks at its oldest record whenever it tries the ledger, which here is often.
                await world.settle(lambda: recorder.overdue)
        await world.ledger.start()
        await gateway.core.refresh_bundle()
        await world.settle(lambda: recorder.depth.records == 0 and not recorder.overdue and recorder.reachable)
        await step(client, hour, clock)
    return hour


def check_ledger(world: Surroundings, hour: Hour) -> None:
    """The ledger has each decision once, in order, with what the client was told, and the server saw no more."""
    decisions = [
        (record.record_id, record.body)
        for record in world.ledger.records
        if isinstance(record.body, Decision) and record.body.method == "tools/call"
    ]
    for tool, told in hour.told.items():
        recorded = [(body.enforcement, body.reason) for _, body in decisions if body.tool == tool]
        assert len(recorded) == len(told)
        for (enforcement, reason), said in zip(recorded, told, strict=True):
            # The first strict call of an outage finds out by waiting: its permit is in the spool by then.
            found_out = enforcement == "allow" and said == "ledger_unavailable"
            assert found_out or (enforcement == "allow") == (said is None), (tool, enforcement, reason, said)
            assert found_out or said is None or said == reason
    outcomes = {body.decision_id: body for body in world.ledger.outcomes()}
    assert len(outcomes) == len(world.ledger.outcomes())
    forwarded = Counter(
        body.tool for decision_id, body in decisions if _status(outcomes.get(decision_id)) == "completed"
    )
    assert Counter(world.tools.calls) == forwarded
    for decision_id, body in decisions:
        permitted = body.decision == "PERMIT" or body.enforcement == "allow"
        assert (decision_id in outcomes) == permitted
    (stream,) = world.ledger.streams()
    assert (stream.verdict, stream.missing) == (Verdict.COMPLETE, ())


def _status(outcome: Outcome | None) -> str | None:
    return None if outcome is None else outcome.status


def simulate(tmp_path: Path, *, overdue_after: int | None = None, **options: Any) -> Hour:
    clock = SimulatedClock(1_763_546_400_000)
    recording = {"strict_seconds": 0.2, **options.pop("recording", {})}

    async def run() -> Hour:
        async with surroundings(tmp_path, answer=policy, server=SERVER, recording=recording, **options) as world:
            world.clock = clock
            hour = await play_hour(world, clock, overdue_after=overdue_after)
            check_ledger(world, hour)
            return hour

    return asyncio.run(run())


def test_for_an_hour_reads_run_and_writes_do_not(tmp_path: Path) -> None:
    hour = simulate(tmp_path)
    assert hour.told[READ] == [None] * 12
    assert hour.told[WRITE] == [None, *["ledger_unavailable"] * 10, None]
    assert set(hour.told[ASK]) == {"policy"}
    assert set(hour.told[DENY]) == {"policy"}


def test_a_bundle_that_nobody_confirms_decides_until_it_is_too_old(tmp_path: Path) -> None:
    hour = simulate(tmp_path, bundles={"poll_seconds": 3600, "max_age_seconds": 1200})
    # Confirmed at the start: it decides up to the twentieth minute.
    assert hour.told[READ] == [*[None] * 5, *["bundle_stale"] * 6, None]
    assert hour.told[DENY] == [*["policy"] * 5, *["bundle_stale"] * 6, "policy"]


def test_once_records_have_waited_for_too_long_nothing_runs(tmp_path: Path) -> None:
    hour = simulate(tmp_path, overdue_after=5, recording={"spool_seconds": 1200})
    # The first record that waits is of the fifth minute: after the twenty-fifth, it has waited for too long.
    assert hour.told[READ] == [*[None] * 6, *["spool_overdue"] * 5, None]
    assert hour.told[DENY] == ["policy"] * 12
