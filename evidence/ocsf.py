"""A decision as an event of the Open Cybersecurity Schema Framework: class API Activity, 6003.

Pure. For tools that gather security events. An event says what the record says in the open: names, pseudonyms and
digests, nothing of the vault. It is a convenience and no evidence: that is the leaf that `unmapped.leaf_index` names.

What has no place in the class: kills and containments as such (a call that one stopped is blocked, with its reason),
and every record that is no decision.

INVARIANT: a decision that was only observed is never shown as if it had been enforced: its action is *Observed*, its
disposition *Logged*, `policy.is_applied` is false, and `unmapped.enforced` too.

An event (shortened)::

    {"activity_id":99,"activity_name":"tools/call","action_id":2,"disposition_id":2,"class_uid":6003,…,
     "api":{"operation":"tools/call","service":{"name":"finance"},"request":{"uid":"0199…"},"version":"2026-07-28"},
     "actor":{"app_name":"Finance-Bot","session":{"uid":"7d0c…"}},"unmapped":{"leaf_index":41,…}}

Source: OCSF schema, version `OCSF_VERSION`, class ``api_activity``, profiles ``security_control`` and ``trace``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger.bodies import Decision, Outcome
from ledger.records import Record

__all__ = ["OCSF_VERSION", "Covered", "decision_event"]

OCSF_VERSION: Final = "1.6.0"
"""Of the schema that events keep to."""

_PRODUCT: Final = "Tallystick"
_CATEGORY: Final = 6
_CLASS: Final = 6003
_READ: Final = 2
_OTHER: Final = 99
_READS: Final = ("completion/complete", "prompts/get", "resources/read", "server/discover")
_TYPES: Final = {"tools/call": "mcp_tool", "prompts/get": "mcp_prompt"}
_INFORMATIONAL, _MEDIUM, _HIGH = (1, "Informational"), (3, "Medium"), (4, "High")
_ALLOWED: Final = ((1, "Allowed"), (1, "Allowed"))
_BLOCKED: Final = ((2, "Denied"), (2, "Blocked"))
_OBSERVED: Final = ((3, "Observed"), (17, "Logged"))
_UNKNOWN_STATUS, _SUCCESS, _FAILURE = (0, "Unknown"), (1, "Success"), (2, "Failure")
_US_PER_MS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """The signed checkpoint that covers a leaf.

    Attributes:
        origin: The log's name line.
        size: Its tree size in leaves.
        root: Its root hash, hexadecimal.
    """

    origin: str
    size: int
    root: str


def decision_event(
    record: Record, leaf_index: int, *, outcome: Outcome | None, covered: Covered, version: str
) -> dict[str, Any]:
    """Return the event of a decision.

    Args:
        record: The decision's record.
        leaf_index: Where it stands.
        outcome: What became of the call, if that is in the log by now.
        covered: The checkpoint that covers the leaf.
        version: Of this software.
    """
    body = record.body
    assert isinstance(body, Decision)
    return _without_nothing(
        {
            **_classification(body),
            **_control(body, outcome),
            **_result(body, outcome),
            "time": record.time_ms,
            "message": _sentence(body, outcome),
            "metadata": _metadata(record, body, leaf_index, version),
            "actor": _actor(body),
            "api": _api(record, body, outcome),
            "src_endpoint": _source(body),
            "dst_endpoint": {"svc_name": body.server},
            "resources": _resources(body),
            "policy": _policy(body),
            "authorizations": [{"decision": body.decision, "policy": {"name": rule}} for rule in body.rules],
            "trace": None if body.trace_id is None else {"uid": body.trace_id},
            "unmapped": _unmapped(record, body, leaf_index, outcome, covered),
        }
    )


def _without_nothing(value: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is not known; OCSF has no null."""
    return {
        name: _without_nothing(part) if isinstance(part, dict) else part
        for name, part in value.items()
        if part is not None and part not in ({}, [], ())
    }


def _classification(body: Decision) -> dict[str, Any]:
    activity = _READ if (body.method or "").endswith("/list") or body.method in _READS or _is_read(body) else _OTHER
    severity, caption = _severity(body)
    return {
        "category_uid": _CATEGORY,
        "category_name": "Application Activity",
        "class_uid": _CLASS,
        "class_name": "API Activity",
        "activity_id": activity,
        "activity_name": "Read" if activity == _READ else body.method or "unknown",
        "type_uid": _CLASS * 100 + activity,
        "type_name": f"API Activity: {'Read' if activity == _READ else 'Other'}",
        "severity_id": severity,
        "severity": caption,
    }


def _is_read(body: Decision) -> bool:
    """Whether it calls a tool that only reads, as far as its tags say."""
    return body.method == "tools/call" and "read" in body.tags and "write" not in body.tags


def _stopped(body: Decision) -> bool:
    return body.enforcement != "allow"


def _refused_in_observation(body: Decision) -> bool:
    return body.mode == "observe" and not _stopped(body) and body.decision != "PERMIT"


def _severity(body: Decision) -> tuple[int, str]:
    if body.enforcement == "kill":
        return _HIGH
    return _MEDIUM if _stopped(body) or _refused_in_observation(body) else _INFORMATIONAL


def _held_back(body: Decision, outcome: Outcome | None) -> bool:
    """Whether a call that was let through went no further after all: a kill, a restriction, no ledger to take it."""
    return not _stopped(body) and outcome is not None and outcome.status == "not_forwarded"


def _control(body: Decision, outcome: Outcome | None) -> dict[str, Any]:
    """Return what was done about the call, of the profile security_control."""
    if _stopped(body) or (_held_back(body, outcome) and body.mode == "enforce"):
        action, disposition = _BLOCKED
    else:
        action, disposition = _OBSERVED if body.mode == "observe" else _ALLOWED
    return {
        "action_id": action[0],
        "action": action[1],
        "disposition_id": disposition[0],
        "disposition": disposition[1],
        "is_alert": body.enforcement == "kill",
    }


def _result(body: Decision, outcome: Outcome | None) -> dict[str, Any]:
    status, caption = _status(body, outcome)
    taken = 0 if outcome is None else outcome.latency_us // _US_PER_MS
    return {
        "status_id": status,
        "status": caption,
        "status_code": body.reason if outcome is None or outcome.reason is None else outcome.reason,
        "status_detail": None if outcome is None else outcome.status,
        "duration": taken or None,
    }


def _status(body: Decision, outcome: Outcome | None) -> tuple[int, str]:
    if _stopped(body):
        return _FAILURE
    if outcome is None or outcome.status == "unknown":
        return _UNKNOWN_STATUS
    return _SUCCESS if outcome.status == "completed" and not outcome.tool_error else _FAILURE


def _sentence(body: Decision, outcome: Outcome | None) -> str:
    called = " ".join(filter(None, (body.method or "a message", body.tool)))
    done = {"allow": "let through", "deny": "denied", "ask": "held for approval", "kill": "denied, session ended"}
    not_enforced = " (observed, not enforced)" if body.mode == "observe" else ""
    held_back = f", not forwarded: {outcome.reason}" if outcome is not None and _held_back(body, outcome) else ""
    done_so = f"{done[body.enforcement]}{held_back}"
    return f"{called} on {body.server}: {done_so}, {body.decision} by {body.reason}{not_enforced}"


def _metadata(record: Record, body: Decision, leaf_index: int, version: str) -> dict[str, Any]:
    return {
        "version": OCSF_VERSION,
        "product": {"name": _PRODUCT, "vendor_name": _PRODUCT, "version": version},
        "profiles": ["security_control", "trace"] if body.trace_id is not None else ["security_control"],
        "uid": record.record_id,
        "correlation_uid": body.continues or record.record_id,
        "event_code": body.reason,
        "log_name": record.log_id,
        "log_provider": record.enforcer_id,
        "sequence": leaf_index,
        "tenant_uid": record.tenant,
        "labels": ["simulated"] if record.simulated else [],
    }


def _actor(body: Decision) -> dict[str, Any]:
    facts = body.facts
    return {
        "app_name": body.agent,
        "user": None if body.user is None else {"uid": body.user, "has_mfa": None if facts is None else facts.mfa},
        "session": {"uid": body.session},
    }


def _api(record: Record, body: Decision, outcome: Outcome | None) -> dict[str, Any]:
    return {
        "operation": body.method or "unknown",
        "service": {"name": body.server},
        "request": {"uid": record.record_id},
        "response": None if outcome is None or outcome.error_code is None else {"code": outcome.error_code},
        "version": body.protocol_version,
        "group": {"name": "mcp"},
    }


def _source(body: Decision) -> dict[str, Any]:
    network = "unknown" if body.facts is None else body.facts.network
    return {"uid": body.address, "zone": network, "name": body.agent}


def _resources(body: Decision) -> list[dict[str, Any]]:
    if body.tool is None:
        return []
    kind = _TYPES.get(body.method or "", "mcp_resource")
    named = {"name": body.tool, "type": kind, "version": body.tool_digest, "labels": list(body.tags)}
    return [_without_nothing(named)]


def _policy(body: Decision) -> dict[str, Any] | None:
    if body.bundle is None:
        return None
    return {
        "name": body.bundle.name,
        "uid": body.bundle.revision,
        "version": body.bundle.engine_version,
        "type": body.bundle.engine,
        "is_applied": body.mode == "enforce",
    }


def _unmapped(
    record: Record, body: Decision, leaf_index: int, outcome: Outcome | None, covered: Covered
) -> dict[str, Any]:
    return {
        "leaf_index": leaf_index,
        "checkpoint": {"origin": covered.origin, "size": covered.size, "root": covered.root},
        "decision_id": record.record_id,
        "decision": body.decision,
        "enforcement": body.enforcement,
        "mode": body.mode,
        "enforced": body.mode == "enforce",
        "failed_condition": body.failed_condition,
        "obligations": list(body.obligations),
        "drift": list(body.drift),
        "findings": [] if body.inspection is None else list(body.inspection.findings),
        "inspected": "none" if body.inspection is None else body.inspection.extent,
        "tool_state": body.tool_state,
        "deviations": list(body.deviations),
        "restriction": body.restriction,
        "interface": body.interface,
        "direction": body.direction or "client",
        "transport": body.transport or "http",
        "environment": record.environment,
        "enforcer": {"id": record.enforcer_id, "epoch": record.epoch, "seq": record.seq},
        "evaluation_us": body.evaluation_us,
        "outcome": None if outcome is None else outcome.status,
        "pseudonym_key_id": record.pseudonym_key_id,
        "simulated": record.simulated,
    }
