"""People who say something of held calls, where the ledger is `tests.support.gateway.FakeLedger`."""

from __future__ import annotations

from typing import Any

import msgspec

from ledger.approvals import Grant, Verdicts, VerdictSet
from ledger.bodies import Approval
from policies.model import DecisionRequest, Effect, Obligation
from tests.support.gateway import FakeLedger, Surroundings

__all__ = ["APPROVALS", "ask_for", "grant", "held_by", "say", "settled"]

APPROVALS: dict[str, Any] = {"poll_seconds": 0.01, "wait_seconds": 0, "tell_seconds": 0.02}
"""Settings under which a gateway asks often."""


def ask_for(*names: str) -> Any:
    """Return a policy by which people must agree to calls of some tools, or of every tool."""

    def answer(request: DecisionRequest) -> dict[str, Any]:
        asks = request.action == "tools/call" and (not names or request.resource.name in names)
        return {"effect": Effect.PERMIT, "obligations": (Obligation.APPROVAL,) if asks else ()}

    return answer


async def held_by(world: Surroundings, count: int = 1) -> Approval:
    """Wait until so many calls have been held, and return the record of the last one."""
    await world.settle(lambda: len(world.ledger.steps("held")) >= count)
    return world.ledger.steps("held")[-1]


def grant(step: Approval, actor: str = "a", **changes: Any) -> Grant:
    """Return somebody's agreement to a held call."""
    members = {
        "actor": actor[0] * 32,
        "key_id": "k" * 16,
        "role": "approver",
        "binding": step.binding,
        "leaf_index": 7,
        "time_ms": 1,
    }
    return Grant(**{**members, **changes})


def say(ledger: FakeLedger, step: Approval, *grants: Grant, denied: bool = False, **changes: Any) -> None:
    """Have the ledger tell what people have said of a held call, beside what it tells of others."""
    assert ledger.verdicts is not None
    said = Verdicts(approval_id=step.approval_id, decision_id=step.decision_id, denied=denied, grants=grants)
    others = tuple(item for item in ledger.verdicts.items if item.approval_id != step.approval_id)
    items = (*others, msgspec.structs.replace(said, **changes))
    ledger.verdicts = VerdictSet(version=ledger.verdicts.version + 1, items=items)


async def settled(world: Surroundings, step: Approval) -> tuple[list[str], str, str | None]:
    """Wait for a held call's outcome; return the steps of its approval, and status and reason of the outcome."""
    await world.settle(lambda: bool(world.ledger.outcomes(step.decision_id)))
    (outcome,) = world.ledger.outcomes(step.decision_id)
    steps = [one.action for one in world.ledger.steps() if one.approval_id == step.approval_id]
    return steps, outcome.status, outcome.reason
