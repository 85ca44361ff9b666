"""Steps of approvals that the gateway takes by itself, and what closes the calls that a run before has left open.

Pure. A call that was permitted and has no outcome may have reached its server: nobody knows (``unknown``). One that was
held, and not used, cannot have: it is ``not_forwarded``, and its approval is cancelled.
"""

from __future__ import annotations

from enforcement.batches import OpenCall
from ledger.bodies import Approval, Outcome
from ledger.ports import Draft

__all__ = ["left_open_drafts", "step_draft"]

_REASON = "gateway_restarted"


def step_draft(approval_id: str, decision_id: str, binding: str, action: str, reason: str | None = None) -> Draft:
    """Return the record of a step that the gateway takes.

    Args:
        approval_id: Of which approval.
        decision_id: Of which decision.
        binding: What was to be agreed to.
        action: Which step.
        reason: Why it was cancelled or refused.
    """
    step = Approval(
        approval_id=approval_id,
        decision_id=decision_id,
        action=action,  # type: ignore[arg-type]  # called with the record type's own words
        binding=binding,
        reason=reason,
    )
    return Draft(body=step)


def left_open_drafts(call: OpenCall) -> tuple[Draft, ...]:
    """Return the records that close a call which was left open."""
    held = call.approval_id is not None and call.binding is not None
    outcome = Outcome(
        decision_id=call.decision_id,
        status="not_forwarded" if held else "unknown",
        reason=_REASON,
        session=call.session,
        user=call.user,
    )
    if call.approval_id is None or call.binding is None:
        return (Draft(body=outcome),)
    step = step_draft(call.approval_id, call.decision_id, call.binding, "cancelled", _REASON)
    return step, Draft(body=outcome)
