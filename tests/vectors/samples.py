"""Record bodies of every type, as plain JSON values: once with all members, once with the fewest.

Written out member by member from the record types' documentation, so that a change of a type shows here.
"""

from __future__ import annotations

from typing import Any, Final

JSONObject = dict[str, Any]

COMMITMENT: Final = {"digest": "c0" * 32, "size_bytes": 212}
OTHER_COMMITMENT: Final = {"digest": "c1" * 32, "size_bytes": 0}
DECISION_ID: Final = "019a9c14-6d80-7abc-8def-0123456789ab"

ENVELOPE_MINIMAL: Final[JSONObject] = {
    "schema_version": 1,
    "record_id": "019a9c14-6d81-7000-8000-000000000001",
    "log_id": "acme",
    "tenant": "acme",
    "environment": "production",
    "enforcer_id": "gateway-1",
    "epoch": "5f0c" * 8,
    "seq": 1,
    "running_count": 0,
    "time_ms": 1_763_546_400_001,
}
ENVELOPE_FULL: Final[JSONObject] = ENVELOPE_MINIMAL | {
    "record_id": "019a9c14-6d82-7fff-bfff-ffffffffffff",
    "seq": 2**53 - 1,
    "running_count": 41,
    "simulated": True,
    "pseudonym_key_id": "0123456789abcdef",
}

_FACTS_FULL: Final = {
    "authn": "api_token",
    "mfa": True,
    "roles": ["finance", "reader"],
    "zone": "Europe/Berlin",
    "local_hour": 23,
    "local_minute": 59,
    "weekday": 7,
    "network": "office",
    "session_calls": 12,
}
_FACTS_MINIMAL: Final = {
    "authn": "none",
    "zone": "UTC",
    "local_hour": 0,
    "local_minute": 0,
    "weekday": 1,
    "network": "unknown",
    "session_calls": 0,
}
_DECISION_MINIMAL: Final = {
    "agent": "unauthenticated",
    "server": "finance",
    "decision": "INDETERMINATE",
    "enforcement": "deny",
    "mode": "enforce",
    "reason": "malformed",
    "evaluation_us": 0,
    "session": "5e" * 16,
    "message": COMMITMENT,
}

BODIES: Final[dict[str, dict[str, JSONObject]]] = {
    "decision": {
        "minimal": _DECISION_MINIMAL,
        "facts-minimal": _DECISION_MINIMAL | {"facts": _FACTS_MINIMAL},
        "drift": _DECISION_MINIMAL | {"drift": ["range:amount", "unknown_argument"]},
        "asked-for": _DECISION_MINIMAL | {"interface": "authzen"},
        "full": {
            "agent": "finance-bot",
            "server": "finance",
            "method": "tools/call",
            "tool": "Payroll-DB",
            "tool_digest": "d0" * 32,
            "protocol_version": "2026-07-28",
            "decision": "DENY",
            "enforcement": "deny",
            "mode": "observe",
            "reason": "policy",
            "bundle": {
                "name": "tenant/finance",
                "revision": "b0" * 32,
                "engine": "cedar",
                "engine_version": "4.12.2",
            },
            "rules": ["finance-business-hours", "finance-known-network"],
            "failed_condition": "finance-business-hours",
            "obligations": ["approval"],
            "evaluation_us": 314,
            "facts": _FACTS_FULL,
            "session": "5e" * 16,
            "user": "0a" * 16,
            "address": "0b" * 16,
            "message": COMMITMENT,
            "request": OTHER_COMMITMENT,
            "arguments_fingerprint": "0c" * 16,
            "tags": ["pii", "write"],
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        },
    },
    "outcome": {
        "minimal": {"decision_id": DECISION_ID, "status": "not_forwarded", "session": "5e" * 16},
        "full": {
            "decision_id": DECISION_ID,
            "status": "failed",
            "reason": "upstream_error",
            "latency_us": 1_503_222,
            "http_status": 502,
            "error_code": -32603,
            "tool_error": True,
            "session": "5e" * 16,
            "user": "0a" * 16,
            "result": COMMITMENT,
            "result_fingerprint": "0d" * 16,
        },
    },
    "bundle": {
        "minimal": {
            "action": "published",
            "name": "tenant/finance",
            "revision": "b0" * 32,
            "engine": "cedar",
            "actor": "0e" * 16,
            "actor_role": "author",
        },
        "full": {
            "action": "activated",
            "name": "tenant/finance",
            "revision": "b1" * 32,
            "engine": "rego",
            "actor": "0e" * 16,
            "actor_role": "approver",
            "previous_revision": "b0" * 32,
            "comment": COMMITMENT,
        },
        "tested": {
            "action": "tested",
            "name": "tenant/finance",
            "revision": "b1" * 32,
            "engine": "cedar",
            "actor": "0f" * 16,
            "actor_role": "service",
            "engine_version": "4.12.1",
            "cases": 40,
            "failures": 2,
            "uncovered_rules": 70,
            "uncovered": ["finance-hours", "refund-limit"],
        },
        "reviewed": {
            "action": "reviewed",
            "name": "tenant/finance",
            "revision": "b1" * 32,
            "engine": "cedar",
            "actor": "1a" * 16,
            "actor_role": "approver",
            "comment": COMMITMENT,
            "verdict": "approved",
            "also": ["1b" * 16],
        },
        "unreviewed": {
            "action": "activated",
            "name": "tenant/finance",
            "revision": "b1" * 32,
            "engine": "cedar",
            "actor": "0e" * 16,
            "actor_role": "admin",
            "unreviewed": True,
        },
    },
    "key": {
        "minimal": {
            "action": "retired",
            "purpose": "vault",
            "algorithm": "xchacha20-poly1305",
            "subject": "acme",
            "key_id": "vault-2",
        },
        "full": {
            "action": "compromised",
            "purpose": "log",
            "algorithm": "ml-dsa-44",
            "subject": "log.example/acme",
            "key_id": "0a1b2c3d",
            "public_key": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            "first_size": 1,
            "last_size": 70_000,
        },
    },
    "heartbeat": {
        "minimal": {"kind": "periodic", "version": "0.1.0", "spool_depth": 0},
        "full": {
            "kind": "start",
            "version": "0.1.0",
            "spool_depth": 3,
            "previous_epoch": "5f0b" * 8,
            "bundle_revision": "b0" * 32,
            "clock_offset_ms": -250,
        },
    },
    "dropped": {
        "minimal": {"first_seq": 1, "last_seq": 1, "decisions": 0, "reason": "spool_full"},
        "full": {"first_seq": 5, "last_seq": 2**53 - 1, "decisions": 3, "reason": "spool_damaged"},
    },
    "session_end": {
        "minimal": {
            "session": "5e" * 16,
            "calls": 1,
            "denied": 0,
            "reason": "idle",
            "agent": "finance-bot",
            "started_ms": 1_763_546_300_000,
        },
        "full": {
            "session": "5e" * 16,
            "calls": 2**53 - 1,
            "denied": 7,
            "reason": "killed",
            "agent": "finance-bot",
            "started_ms": 0,
            "user": "0a" * 16,
        },
    },
    "approval": {
        "minimal": {
            "approval_id": "019a9c14-7000-7000-8000-00000000000a",
            "decision_id": DECISION_ID,
            "action": "expired",
            "binding": COMMITMENT,
            "expires_ms": 1_763_550_000_000,
        },
        "full": {
            "approval_id": "019a9c14-7000-7000-8000-00000000000a",
            "decision_id": DECISION_ID,
            "action": "approved",
            "binding": COMMITMENT,
            "expires_ms": 1_763_550_000_000,
            "actor": "0e" * 16,
            "comment": OTHER_COMMITMENT,
        },
    },
    "tombstone": {
        "minimal": {"subject": "0a" * 16, "payloads": 0, "reason": "expiry", "actor": "0e" * 16},
        "full": {
            "subject": "0a" * 16,
            "payloads": 17,
            "reason": "erasure",
            "actor": "0e" * 16,
            "basis": COMMITMENT,
        },
    },
    "succession": {
        "minimal": {
            "origin": "log.example/acme",
            "size": 1,
            "root": "a0" * 32,
            "checkpoint_sha256": "a1" * 32,
            "reason": "key_lost",
        },
        "full": {
            "origin": "log.example/acme@2",
            "size": 2**53 - 1,
            "root": "a0" * 32,
            "checkpoint_sha256": "a1" * 32,
            "reason": "moved",
        },
    },
    "access": {
        "minimal": {
            "action": "login",
            "actor": "0e" * 16,
            "actor_role": "auditor",
            "target_kind": "log",
            "result": "refused",
        },
        "full": {
            "action": "export_pack",
            "actor": "0e" * 16,
            "actor_role": "auditor",
            "target_kind": "pack",
            "target_id": "pack-2025-11",
            "digest": "e0" * 32,
            "items": 60,
            "result": "ok",
            "purpose": COMMITMENT,
        },
        "scope-minimal": {
            "action": "impact",
            "actor": "0e" * 16,
            "actor_role": "responder",
            "target_kind": "bundle",
            "result": "ok",
            "scope": {"from_ms": 1_763_500_000_000, "to_ms": 1_763_600_000_000},
        },
        "scope": {
            "action": "impact",
            "actor": "0e" * 16,
            "actor_role": "responder",
            "target_kind": "bundle",
            "target_id": "b1" * 32,
            "result": "ok",
            "purpose": COMMITMENT,
            "scope": {
                "from_ms": 1_763_500_000_000,
                "to_ms": 1_763_600_000_000,
                "agent": "finance-bot",
                "server": "finance",
                "tool": "Payroll-DB",
                "decision": "DENY",
                "session": "0b" * 16,
            },
        },
    },
    "erasure": {
        "minimal": {"subject": "0a" * 16, "actor": "0e" * 16, "actor_role": "admin", "basis": COMMITMENT},
        "full": {
            "subject": "0a" * 16,
            "actor": "0e" * 16,
            "actor_role": "admin",
            "basis": COMMITMENT,
            "key_ids": ["1f" * 8, "2f" * 8],
        },
    },
    "hold": {
        "minimal": {
            "action": "released",
            "hold_id": "019a9c14-7000-7000-8000-00000000000b",
            "actor": "0e" * 16,
            "actor_role": "admin",
        },
        "full": {
            "action": "placed",
            "hold_id": "019a9c14-7000-7000-8000-00000000000b",
            "actor": "0e" * 16,
            "actor_role": "admin",
            "subject": "0a" * 16,
            "also": ["1a" * 16, "2a" * 16],
            "session": "0b" * 16,
            "from_ms": 1_763_500_000_000,
            "to_ms": 1_763_600_000_000,
            "reason": COMMITMENT,
        },
    },
    "opa_decision": {
        "minimal": {
            "kind": "unreadable",
            "client": "0c" * 16,
            "fingerprint": "fe" * 16,
            "event": COMMITMENT,
        },
        "full": {
            "kind": "conflict",
            "client": "0c" * 16,
            "fingerprint": "fe" * 16,
            "event": COMMITMENT,
            "replay": "masked",
            "fault": "no_decision_id",
            "conflicts_with": DECISION_ID,
            "instance": "1780d507-aea2-45cc-ae50-fa153c8e4a5a",
            "version": "1.22.2",
            "opa_decision_id": "4ca636c1-55e4-417a-b1d8-4aceb67960d1",
            "path": "tallystick/allow",
            "bundles": ["shop"],
            "bundle_revisions": ["b0" * 32],
            "answer": "other",
            "error": True,
            "decided_ms": 1_763_546_399_000,
            "evaluation_us": 412,
            "request_number": 7,
            "trace_id": "ab" * 16,
            "erased": 1,
            "masked": 2,
            "withheld": ["input"],
            "user": "7a" * 16,
            "session": "5e" * 16,
            "requested_by": "ad" * 16,
            "input": OTHER_COMMITMENT,
            "result": COMMITMENT,
            "nd_builtin_cache": OTHER_COMMITMENT,
        },
    },
    "opa_loss": {
        "minimal": {"client": "0c" * 16, "instance": "1780d507-aea2-45cc-ae50-fa153c8e4a5a"},
        "full": {
            "client": "0c" * 16,
            "instance": "1780d507-aea2-45cc-ae50-fa153c8e4a5a",
            "rate_limited": 3,
            "buffer_full": 5,
            "not_encoded": 1,
            "nd_caches": 2,
            "version": "1.22.2",
        },
    },
    "retention": {
        "minimal": {"action": "pruned", "actor": "0e" * 16, "actor_role": "service"},
        "full": {
            "action": "expired",
            "actor": "0e" * 16,
            "actor_role": "service",
            "policy": "d0" * 32,
            "classes": ["vault:decision:90d", "vault:default:365d"],
            "record_type": "decision",
            "day": "2025-11-19",
            "held": True,
            "key_ids": ["1f" * 8],
            "payloads": 17,
            "below": 512,
        },
    },
}


def unsigned(kind: str, form: str) -> JSONObject:
    """Return a whole record without its signature; every member is written out where the form is full."""
    envelope = ENVELOPE_MINIMAL if form == "minimal" else ENVELOPE_FULL
    return envelope | {"body": {"type": kind} | BODIES[kind][form]}


FORMS: Final = tuple((kind, form) for kind, forms in BODIES.items() for form in forms)
