"""The lines that a pack lists, each made from one record or stream.

Pure. Which records are listed is `population`'s part.
"""

from __future__ import annotations

from evidence.summary import AccessLine, DeniedCall, PolicyChange, StreamLine
from ledger.bodies import AccessEvent, BundleEvent, Decision
from ledger.completeness import EnforcerStream
from ledger.records import Record

__all__ = ["access_line", "denied_call", "policy_change", "proof_path", "stream_line"]


def proof_path(leaf: int) -> str:
    """Return the path of a leaf's proof file in a pack."""
    return f"proofs/{leaf}.tlog-proof"


def stream_line(stream: EnforcerStream) -> StreamLine:
    """Return a stream as a pack's summary shows it."""
    return StreamLine(
        enforcer_id=stream.enforcer_id,
        epoch=stream.epoch,
        verdict=stream.verdict.value,
        reason=stream.reason,
        records=stream.records,
        decisions=stream.decisions,
        missing=stream.missing,
        lost=stream.lost,
        last_heartbeat_ms=stream.last_heartbeat_ms,
    )


def denied_call(leaf: int, record: Record, body: Decision, *, proof: str) -> DeniedCall:
    """Return a call that did not pass; its outcome, which stands elsewhere, is not filled in."""
    facts = body.facts
    return DeniedCall(
        leaf=leaf,
        record_id=record.record_id,
        time_ms=record.time_ms,
        local_time="" if facts is None else f"{facts.local_hour:02}:{facts.local_minute:02}",
        agent=body.agent,
        user=body.user,
        session=body.session,
        server=body.server,
        method=body.method or "",
        tool=body.tool,
        effect=body.decision,
        enforcement=body.enforcement,
        reason=body.reason,
        rules=body.rules,
        failed_condition=body.failed_condition,
        bundle_revision=None if body.bundle is None else body.bundle.revision,
        outcome=None,
        proof=proof,
        simulated=record.simulated,
    )


def policy_change(leaf: int, record: Record, body: BundleEvent) -> PolicyChange:
    """Return a step of a bundle."""
    return PolicyChange(
        leaf=leaf,
        time_ms=record.time_ms,
        action=body.action,
        name=body.name,
        revision=body.revision,
        previous_revision=body.previous_revision,
        actor=body.actor,
        actor_role=body.actor_role,
    )


def access_line(leaf: int, record: Record, body: AccessEvent) -> AccessLine:
    """Return a read or export."""
    target = body.target_kind if body.target_id is None else f"{body.target_kind} {body.target_id}"
    return AccessLine(
        leaf=leaf,
        time_ms=record.time_ms,
        action=body.action,
        actor=body.actor,
        actor_role=body.actor_role,
        target=target,
        items=body.items,
        result=body.result,
    )
