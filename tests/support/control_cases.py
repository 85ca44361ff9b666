"""Cases for every test that control catalogues share: items that pass, that fail, and that it says nothing of.

Each case is a change to an item in which everything is in order, by path; `REMOVED` takes a member away. Records are
made through their own types, so that a case is something that a log can hold.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from evidence.subjects import RECORD_SUBJECTS, Item
from ledger.records import Record
from tests.vectors.samples import BODIES, COMMITMENT, DECISION_ID, ENVELOPE_MINIMAL, OTHER_COMMITMENT

REMOVED: Final = object()
Change = Mapping[str, Any]

_ALLOWED: Final[dict[str, Any]] = {
    **{
        name: value
        for name, value in BODIES["decision"]["full"].items()
        if name not in ("failed_condition", "obligations")
    },
    "decision": "PERMIT",
    "enforcement": "allow",
    "mode": "enforce",
    "inspection": {"extent": "complete", "inspector": "1e" * 32},
    "tool_state": "pinned",
    "facts": {**BODIES["decision"]["full"]["facts"], "tls_version": "TLSv1.3", "tls_group": "X25519MLKEM768"},
}
_DERIVED: Final[dict[str, dict[str, Any]]] = {
    "decision": {
        "outcome": "completed",
        "outcomes": 1,
        "forwarded": True,
        "approval": "none",
        "approved": False,
        "bundle_published": True,
        "bundle_activated": True,
        "session_agents": 1,
        "session_users": 1,
        "session_continued": False,
    },
    "outcome": {"decision": "permitted", "repeated": False},
    "bundle": {
        "published_before": True,
        "tested_before": True,
        "tests_passed": True,
        "reviewed_before": True,
        "reviewed_by_another": True,
    },
}
_BODIES: Final[dict[str, dict[str, Any]]] = {
    "decision": _ALLOWED,
    "outcome": {
        "decision_id": DECISION_ID,
        "status": "completed",
        "session": "5e" * 16,
        "result": COMMITMENT,
        "inspection": {"extent": "complete", "inspector": "1e" * 32},
    },
    "bundle": {**BODIES["bundle"]["minimal"], "action": "activated"},
    "key": {**BODIES["key"]["full"], "action": "created"},
    "heartbeat": {
        **BODIES["heartbeat"]["minimal"],
        "clock_offset_ms": 12,
        "clock_bound_ms": 40,
        "signed_bundles": True,
    },
    "dropped": BODIES["dropped"]["full"],
    "approval": {**BODIES["approval"]["full"], "action": "held", "needed": 2, "expires_ms": 1_763_560_000_000},
    "access": {**BODIES["access"]["full"], "action": "query", "result": "ok"},
    "retention": {**BODIES["retention"]["full"], "action": "policy"},
    "tombstone": {**BODIES["tombstone"]["full"], "reason": "erasure"},
    "hold": {**BODIES["hold"]["full"], "action": "placed"},
    "mode": {**BODIES["mode"]["full"], "action": "approved"},
    "containment": BODIES["containment"]["ordered"],
    "inventory": {
        "action": "registered",
        "server": "finance",
        "owner": "treasury",
        "tags": ["pii"],
    },
    "tool": {
        "action": "quarantined",
        "server": "finance",
        "tool": "Payroll-DB",
        "digest": "d0" * 32,
        "reasons": ["changed", "mentions"],
    },
    "baseline": BODIES["baseline"]["minimal"],
    "drift": {**BODIES["drift"]["flagged"], "thresholds": "b8" * 32},
}
_VALUES: Final[dict[str, dict[str, Any]]] = {
    "stream": {"verdict": "complete", "missing": 0, "lost": 0},
    "population": {
        "first_leaf": 0,
        "records": 12,
        "signatures": 12,
        "signed_after_compromise": 0,
        "root_recomputed": True,
        "late": 0,
        "repeated_ids": 0,
        "closed": True,
        "bundles_missing": 0,
        "anchors": 1,
        "witnesses": 1,
    },
    "replay": {"class": "exact", "same": True},
}


def _set(root: dict[str, Any], path: str, value: object) -> None:
    *groups, name = path.split(".")
    for group in groups:
        root = root.setdefault(group, {})
    if value is REMOVED:
        root.pop(name, None)
    else:
        root[name] = value


def item_of(subject: str, change: Change) -> Item:
    """Return an item of a subject in which everything is in order but for a change."""
    plain: dict[str, Any] = {subject: copy.deepcopy(_VALUES.get(subject) or _BODIES.get(subject, {}))}
    plain["envelope"] = {**ENVELOPE_MINIMAL, "pseudonym_key_id": "0123456789abcdef", "signature": "A" * 86 + "=="}
    plain["derived"] = dict(_DERIVED.get(subject, {}))
    for path, value in change.items():
        _set(plain, path, value)
    if subject not in RECORD_SUBJECTS:
        return Item(7, {subject: plain[subject]})
    record = msgspec.convert({**plain["envelope"], "body": {"type": subject, **plain[subject]}}, Record)
    return Item(7, {"envelope": record, subject: record.body, "derived": plain["derived"]})


@dataclass(frozen=True, slots=True)
class Cases:
    """What a test makes of items.

    Attributes:
        passing: Items that pass.
        failing: Items that do not.
        outside: Items that it says nothing of.
    """

    passing: tuple[Change, ...]
    failing: tuple[Change, ...]
    outside: tuple[Change, ...] = ()


_NO_FACTS: Final = {"decision.facts": REMOVED}
_DENIED: Final = {"decision.decision": "DENY", "decision.enforcement": "deny", "decision.failed_condition": "hours"}
_NOT_COMPARED: Final = ("unknown_argument", "unknown_tool", "malformed_arguments", "too_deep", "unchecked", "more")
_NOTHING_SPOKE: Final = {"decision.decision": "NOT_APPLICABLE", "decision.reason": "no_permit"}
_REFUSED: Final = {"derived.forwarded": False, "derived.outcomes": 0, "derived.outcome": "missing"}
_LIST: Final = {"decision.method": "tools/list", "decision.tool": REMOVED}
_HELD: Final = {"decision.enforcement": "ask"}


def _gone(*paths: str) -> tuple[Change, ...]:
    return tuple({path: REMOVED} for path in paths)


CASES: Final[dict[str, Cases]] = {
    # decisions: what a record must say
    "decision-names-its-facts": Cases(
        ({}, _DENIED),
        _gone("decision.method", "decision.facts", "decision.request"),
        ({"decision.bundle": REMOVED},),
    ),
    "call-names-its-tool": Cases(({},), ({"decision.tool": REMOVED},), (_LIST, _DENIED)),
    "call-names-its-tool-definition": Cases(({},), ({"decision.tool_digest": REMOVED},), (_LIST, _DENIED)),
    "denial-names-its-rule": Cases(
        (_DENIED,),
        ({**_DENIED, "decision.failed_condition": REMOVED},),
        ({}, {**_DENIED, "decision.reason": "malformed"}),
    ),
    "decision-shows-origin": Cases(
        (
            {},
            {"decision.address": REMOVED, "decision.transport": "stdio"},
            {"decision.address": REMOVED, "decision.interface": "authzen"},
        ),
        ({"decision.address": REMOVED}, {**_DENIED, "decision.address": REMOVED}),
        ({"decision.address": REMOVED, "decision.bundle": REMOVED},),
    ),
    "call-names-its-session": Cases(({},), (_NO_FACTS,), ({**_DENIED, **_NO_FACTS},)),
    "user-is-a-pseudonym": Cases(
        ({},),
        ({"envelope.pseudonym_key_id": REMOVED},),
        ({"decision.user": REMOVED, "envelope.pseudonym_key_id": REMOVED},),
    ),
    # decisions: what was enforced
    "allowed-only-on-permit": Cases(
        ({},),
        ({"decision.decision": "DENY"}, {"decision.decision": "INDETERMINATE"}, {"decision.bundle": REMOVED}),
        (_DENIED, _HELD),
    ),
    "allowed-only-if-authenticated": Cases(
        ({},),
        ({"decision.facts.authn": "none"}, {"decision.agent": "unauthenticated"}, _NO_FACTS),
        ({**_DENIED, "decision.agent": "unauthenticated"},),
    ),
    "refused-not-forwarded": Cases(
        ({**_DENIED, **_REFUSED}, {**_DENIED, **_REFUSED, "derived.outcomes": 1, "derived.outcome": "not_forwarded"}),
        (
            {**_DENIED, **_REFUSED, "derived.forwarded": True},
            {"decision.enforcement": "kill", "derived.forwarded": True},
            {**_DENIED, **_REFUSED, "derived.outcomes": 2},
        ),
        ({}, _HELD),
    ),
    "held-not-forwarded": Cases(
        ({**_HELD, "derived.forwarded": False}, {**_HELD, "derived.approved": True}),
        ({**_HELD, "derived.forwarded": True}, {**_HELD, "derived.approval": "used"}),
        ({}, _DENIED),
    ),
    "kill-ends-session": Cases(
        ({"decision.enforcement": "kill"},),
        ({"decision.enforcement": "kill", "derived.session_continued": True},),
        ({"derived.session_continued": True},),
    ),
    "default-deny-seen": Cases(({**_NOTHING_SPOKE, "decision.enforcement": "deny"},), (_NOTHING_SPOKE,), ({}, _DENIED)),
    "default-deny": Cases(
        ({**_NOTHING_SPOKE, "decision.enforcement": "deny"},),
        (_NOTHING_SPOKE, {**_NOTHING_SPOKE, "decision.enforcement": "ask"}),
        ({}, _DENIED),
    ),
    "failure-is-denial": Cases(
        (
            {"decision.decision": "INDETERMINATE", "decision.enforcement": "deny"},
            {"decision.decision": "INDETERMINATE", "decision.enforcement": "kill"},
        ),
        (
            {"decision.decision": "INDETERMINATE"},
            {"decision.decision": "INDETERMINATE", "decision.enforcement": "ask"},
        ),
        ({}, _DENIED),
    ),
    "denial-seen": Cases(
        (_DENIED, {**_DENIED, "decision.enforcement": "kill"}),
        ({**_DENIED, "decision.enforcement": "allow"},),
        ({}, {**_DENIED, "decision.failed_condition": REMOVED}),
    ),
    "unauthenticated-refused": Cases(
        ({**_DENIED, "decision.agent": "unauthenticated"},),
        ({"decision.agent": "unauthenticated"}, {**_HELD, "decision.agent": "unauthenticated"}),
        ({},),
    ),
    "quarantined-tool-refused": Cases(
        ({**_DENIED, "decision.tool_state": "quarantined"},),
        ({"decision.tool_state": "quarantined"}, {**_HELD, "decision.tool_state": "quarantined"}),
        ({}, {"decision.tool_state": "unpinned"}, {"decision.tool_state": REMOVED}),
    ),
    "called-definition-stands": Cases(
        ({}, {"decision.tool_state": "first_use"}),
        (
            {"decision.tool_state": "unpinned"},
            {"decision.tool_state": "quarantined"},
            {"decision.tool_state": REMOVED},
        ),
        (_LIST, _DENIED),
    ),
    "called-definition-was-agreed-to": Cases(
        ({},),
        ({"decision.tool_state": "first_use"}, {"decision.tool_state": REMOVED}),
        (_LIST, _DENIED),
    ),
    "call-was-inspected": Cases(
        ({},), ({"decision.inspection.extent": "partial"}, {"decision.inspection": REMOVED}), (_LIST, _DENIED)
    ),
    "contained-call-refused": Cases(
        ({**_DENIED, "decision.restriction": DECISION_ID},),
        ({"decision.restriction": DECISION_ID}, {**_HELD, "decision.restriction": DECISION_ID}),
        ({}, _DENIED),
    ),
    "no-unknown-argument-passed": Cases(
        (
            {},
            {"decision.drift": ["range:amount"]},
            {"decision.request": REMOVED, "decision.masked_request": OTHER_COMMITMENT},
        ),
        (
            *({"decision.drift": ["range:amount", code]} for code in _NOT_COMPARED),
            {"decision.request": REMOVED},
            {"decision.bundle": REMOVED},
        ),
        (_LIST, {**_DENIED, "decision.drift": ["unknown_argument"]}),
    ),
    "call-came-over-tls": Cases(
        ({}, {"decision.facts.tls_version": "TLSv1.2"}),
        (
            {"decision.facts.tls_version": REMOVED, "decision.facts.tls_group": REMOVED},
            {"decision.facts.tls_version": "TLSv1.1"},
            {"decision.facts.tls_version": "unknown"},
        ),
        (
            {"decision.transport": "stdio", "decision.facts.tls_version": REMOVED},
            {"decision.interface": "authzen", "decision.facts.tls_version": REMOVED},
            {"decision.direction": "server", "decision.facts.tls_version": REMOVED},
            _DENIED,
        ),
    ),
    # decisions: what follows from other records
    "one-outcome-each": Cases(({},), ({"derived.outcomes": 0}, {"derived.outcomes": 2}), (_DENIED, _HELD)),
    "outcome-known": Cases(
        ({}, {"derived.outcome": "failed"}, {"derived.outcome": "not_forwarded"}),
        ({"derived.outcome": "unknown"}, {"derived.outcome": "missing"}),
        (_DENIED,),
    ),
    "bundle-activated-before-use": Cases(
        ({}, _DENIED),
        ({"derived.bundle_published": False}, {"derived.bundle_activated": False}),
        ({"decision.bundle": REMOVED, "derived.bundle_published": False},),
    ),
    "session-has-one-principal": Cases(
        ({}, {"derived.session_users": 0}),
        ({"derived.session_agents": 2}, {"derived.session_users": 2}),
        ({"decision.agent": "unauthenticated", "derived.session_agents": 2},),
    ),
    # outcomes
    "outcome-has-its-decision": Cases(
        (
            {},
            {"derived.decision": "held"},
            {"derived.decision": "observed"},
            {"derived.decision": "unknown"},
            {"derived.decision": "refused", "outcome.status": "not_forwarded"},
        ),
        ({"derived.repeated": True}, {"derived.decision": "missing"}, {"derived.decision": "refused"}),
    ),
    "answer-was-inspected": Cases(
        ({},),
        ({"outcome.inspection": REMOVED}, {"outcome.inspection.extent": "partial"}),
        ({"outcome.status": "failed"}, {"outcome.result": REMOVED, "outcome.inspection": REMOVED}),
    ),
    "answer-is-committed-to": Cases(
        ({},),
        ({"outcome.result": REMOVED},),
        ({"outcome.status": "failed", "outcome.result": REMOVED}, {"outcome.messages": 3, "outcome.result": REMOVED}),
    ),
    # bundles
    "activation-follows-publication": Cases(
        ({}, {"bundle.action": "rolled_back"}),
        ({"derived.published_before": False}, {"bundle.action": "rolled_back", "derived.published_before": False}),
        ({"bundle.action": "published", "derived.published_before": False},),
    ),
    "activation-follows-test": Cases(
        ({},), ({"derived.tests_passed": False},), ({"bundle.action": "retired", "derived.tests_passed": False},)
    ),
    "activation-follows-review": Cases(
        ({},),
        ({"derived.reviewed_by_another": False},),
        ({"bundle.action": "rolled_back", "derived.reviewed_by_another": False},),
    ),
    # approvals
    "hold-is-bounded": Cases(
        ({},),
        ({"approval.needed": 0}, {"approval.expires_ms": 0}),
        ({"approval.action": "granted", "approval.needed": 0},),
    ),
    "voice-names-its-person": Cases(
        ({"approval.action": "granted"}, {"approval.action": "denied"}),
        (
            {"approval.action": "granted", "approval.actor": REMOVED},
            {"approval.action": "denied", "approval.actor_role": REMOVED},
        ),
        ({"approval.actor": REMOVED}, {"approval.action": "expired", "approval.actor": REMOVED}),
    ),
    "person-decided": Cases(
        ({"approval.action": "granted"}, {"approval.action": "denied"}),
        ({"approval.action": "granted", "approval.actor": REMOVED},),
        ({}, {"approval.action": "used"}, {"approval.action": "expired"}),
    ),
    # tools and inventory
    "definitions-are-watched": Cases(
        ({}, {"tool.action": "first_seen", "tool.reasons": REMOVED}),
        ({"tool.digest": REMOVED},),
        ({"tool.action": "gone"}, {"tool.action": "approved"}),
    ),
    "quarantine-says-why": Cases(
        ({}, {"tool.reasons": ["rejected"]}),
        ({"tool.reasons": REMOVED}, {"tool.reasons": ["because"]}),
        ({"tool.action": "changed", "tool.reasons": REMOVED},),
    ),
    "word-on-a-tool-names-its-person": Cases(
        ({"tool.action": "approved", "tool.actor": "0e" * 16, "tool.actor_role": "approver"},),
        (
            {"tool.action": "approved", "tool.actor": "0e" * 16},
            {"tool.action": "rejected", "tool.actor_role": "approver"},
            {"tool.action": "approved", "tool.actor": "0e" * 16, "tool.actor_role": "approver", "tool.digest": REMOVED},
        ),
        ({}, {"tool.action": "vouched"}),
    ),
    "servers-are-registered": Cases(
        ({},), ({"inventory.server": REMOVED},), ({"inventory.action": "removed"}, {"inventory.action": "pinned"})
    ),
    "server-has-an-owner": Cases(
        ({}, {"inventory.action": "changed"}),
        ({"inventory.owner": REMOVED}, {"inventory.action": "changed", "inventory.owner": REMOVED}),
        ({"inventory.tool": "Payroll-DB", "inventory.owner": REMOVED}, {"inventory.action": "removed"}),
    ),
    "privileges-were-looked-at": Cases(
        (
            {
                "inventory.action": "pinned",
                "inventory.view": "privileges",
                "inventory.actor": "0e" * 16,
                "inventory.digest": "c7" * 32,
            },
        ),
        (
            {"inventory.action": "pinned", "inventory.view": "privileges", "inventory.digest": "c7" * 32},
            {"inventory.action": "pinned", "inventory.view": "privileges", "inventory.actor": "0e" * 16},
        ),
        ({}, {"inventory.action": "pinned", "inventory.view": "inventory"}),
    ),
    # behaviour
    "baseline-exists": Cases(
        ({}, {"baseline.action": "ready"}), (), ({"baseline.action": "reset"}, {"baseline.action": "accept_ordered"})
    ),
    "departure-names-its-measure": Cases(
        ({},),
        _gone("drift.agent", "drift.detector", "drift.thresholds"),
        ({"drift.action": "acknowledged", "drift.agent": REMOVED},),
    ),
    "closed-departure-has-a-finding": Cases(
        ({"drift.action": "closed", "drift.actor": "0e" * 16, "drift.disposition": "misuse"},),
        (
            {"drift.action": "closed", "drift.actor": "0e" * 16},
            {"drift.action": "closed", "drift.disposition": "misuse"},
        ),
        ({}, {"drift.action": "acknowledged"}),
    ),
    # containment and modes
    "containment-says-why": Cases(
        ({},),
        _gone("containment.scope", "containment.comment"),
        ({"containment.action": "released", "containment.comment": REMOVED},),
    ),
    "containment-seen": Cases(
        ({},),
        ({"containment.scope": REMOVED},),
        ({"containment.action": "expired"}, {"containment.action": "reviewed"}),
    ),
    "containment-was-reviewed": Cases(
        ({"containment.action": "reviewed", "containment.verdict": "unfounded"},),
        ({"containment.action": "reviewed"},),
        ({},),
    ),
    "nothing-only-observed": Cases(({},), ({"heartbeat.observed": 1},)),
    "loosening-names-its-person": Cases(
        ({}, {"mode.action": "proposed"}),
        ({"mode.actor": REMOVED}, {"mode.action": "rejected", "mode.actor_role": REMOVED}),
        ({"mode.action": "in_force", "mode.actor": REMOVED},),
    ),
    # health, time, loss
    "heartbeat-seen": Cases(({},), ()),
    "clock-within-a-second": Cases(
        ({}, {"heartbeat.clock_offset_ms": -1000, "heartbeat.clock_bound_ms": 1000}),
        (
            {"heartbeat.clock_offset_ms": 1001},
            {"heartbeat.clock_offset_ms": -1001},
            {"heartbeat.clock_bound_ms": 1001},
            {"heartbeat.clock_bound_ms": REMOVED},
        ),
        ({"heartbeat.clock_offset_ms": REMOVED},),
    ),
    "nothing-set-aside": Cases(({},), ({"heartbeat.set_aside": 1},)),
    "nothing-lost": Cases((), ({},)),
    "bundles-must-be-signed": Cases(({},), ({"heartbeat.signed_bundles": False},)),
    # access, keys, retention
    "no-key-compromised": Cases(({}, {"key.action": "retired"}), ({"key.action": "compromised"},)),
    "access-recorded": Cases(({}, {"access.result": "forbidden"}), ()),
    "export-carries-digest": Cases(
        ({"access.action": "download_zip"},),
        (
            {"access.action": "download_zip", "access.digest": REMOVED},
            {"access.action": "make_pack", "access.digest": REMOVED},
        ),
        (
            {"access.digest": REMOVED},
            {"access.action": "download_pdf", "access.result": "failed", "access.digest": REMOVED},
        ),
    ),
    "opening-states-purpose": Cases(
        ({"access.action": "open_payload"},),
        ({"access.action": "open_payload", "access.purpose": REMOVED},),
        ({"access.purpose": REMOVED}, {"access.action": "open_payload", "access.result": "forbidden"}),
    ),
    "login-recorded": Cases(
        ({"access.action": "login"}, {"access.action": "login", "access.result": "refused"}), (), ({},)
    ),
    "access-names-its-person": Cases(({}, {"access.result": "forbidden"}), ()),
    "records-were-looked-at": Cases(
        ({}, {"access.action": "make_pack"}),
        ({"access.action": "login"}, {"access.action": "issue_token"}),
        ({"access.result": "forbidden"}, {"access.action": "view", "access.target_kind": "inventory"}),
    ),
    "keys-are-introduced": Cases(({},), (), ({"key.action": "retired"},)),
    "retention-policy-recorded": Cases(
        ({},), ({"retention.policy": REMOVED},), ({"retention.action": "expired"}, {"retention.action": "pruned"})
    ),
    "nothing-pruned": Cases(({}, {"retention.action": "expired"}), ({"retention.action": "pruned"},)),
    "erasure-seen": Cases(({},), ({"tombstone.reason": "expiry"},)),
    "hold-states-its-matter": Cases(
        ({},), ({"hold.reason": REMOVED},), ({"hold.action": "released", "hold.reason": REMOVED},)
    ),
    # the whole range
    "root-recomputed": Cases(({},), ({"population.root_recomputed": False},)),
    "records-signed": Cases(({},), ({"population.signatures": 11}, {"population.signed_after_compromise": 1})),
    "record-ids-unique": Cases(({},), ({"population.repeated_ids": 1},)),
    "range-from-first-leaf": Cases(({},), ({"population.first_leaf": 1},)),
    "period-closed": Cases(({},), ({"population.closed": False}, {"population.late": 1})),
    "anchored": Cases(({},), ({"population.anchors": 0},)),
    "bundles-at-hand": Cases(({},), ({"population.bundles_missing": 1},)),
    "witnessed": Cases(({},), ({"population.witnesses": 0},)),
    "streams-complete": Cases(({},), ({"stream.verdict": "gap"}, {"stream.verdict": "tail unknown"})),
    "streams-without-gaps": Cases(
        ({}, {"stream.verdict": "tail unknown"}),
        ({"stream.missing": 1}, {"stream.lost": 1}, {"stream.verdict": "gap"}),
    ),
    "replay-agrees": Cases(({},), ({"replay.same": False},), ({"replay.class": "erased", "replay.same": False},)),
}
