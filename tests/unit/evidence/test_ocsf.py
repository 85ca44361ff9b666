"""Decisions as OCSF events, held against the published schema of several versions."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema_rs
import pytest
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from evidence.ocsf import OCSF_VERSION, Covered, decision_event
from ledger.bodies import BundleReference, Facts, Outcome
from tests.support.ledger import Enforcer, make_decision

COVERED = Covered(origin="ledger.example/acme", size=100, root="ab" * 32)
FACTS = Facts(
    authn="api_token", zone="Europe/Berlin", local_hour=12, local_minute=0, weekday=1, network="office", session_calls=3
)
FULL: dict[str, Any] = {
    "bundle": BundleReference(name="finance", revision="cd" * 32, engine="cedar", engine_version="4.8"),
    "facts": FACTS,
    "address": "7" * 32,
    "tags": ("pii", "write"),
    "tool_digest": "ef" * 32,
    "protocol_version": "2026-07-28",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "obligations": ("end_session",),
    "drift": ("unknown_argument",),
}
PERMITTED: dict[str, Any] = {"decision": "PERMIT", "enforcement": "allow", "failed_condition": None}
CASES: dict[str, dict[str, Any]] = {
    "denied": {},
    "full": FULL,
    "permitted": PERMITTED,
    "killed": {**FULL, "enforcement": "kill"},
    "asked": {"decision": "PERMIT", "enforcement": "ask"},
    "observed": {"mode": "observe", "enforcement": "allow"},
    "unreadable": {
        "method": None,
        "tool": None,
        "user": None,
        "request": None,
        "agent": "unauthenticated",
        "server": "unknown",
        "decision": "INDETERMINATE",
        "reason": "malformed",
        "rules": (),
        "failed_condition": None,
    },
    "read": {**PERMITTED, "method": "tools/list", "tool": None},
}


@cache
def validator(version: str, *profiles: str) -> jsonschema_rs.Validator:
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version)).get_class_schema("api_activity", list(profiles))
    return jsonschema_rs.validator_for(schema)


def event(outcome: Outcome | None = None, **changes: Any) -> dict[str, Any]:
    body, _ = make_decision(**changes)
    return decision_event(Enforcer().record(body), 41, outcome=outcome, covered=COVERED, version="0.1.0")


def outcome(**changes: Any) -> Outcome:
    said: dict[str, Any] = {"decision_id": "0199" + "0" * 4 + "-0000-7000-8000-000000000000", "session": "5" * 32}
    return Outcome(**{"status": "completed", **said, **changes})


@pytest.mark.parametrize("version", [OCSF_VERSION, "1.8.0"])
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_decision_keeps_to_the_published_schema(version: str, case: str) -> None:
    made = event(outcome(latency_us=12_000, error_code=-32000, status="failed"), **CASES[case])
    errors = [
        f"{list(error.instance_path)}: {error.message}"
        for error in validator(version, "security_control", "trace").iter_errors(made)
    ]
    assert errors == []


def test_the_schema_that_it_is_held_against_refuses_what_is_not_of_it() -> None:
    made = event()
    held_against = validator(OCSF_VERSION, "security_control", "trace")
    for spoilt in ({"type_uid": 600305}, {"made_up": 1}, {"activity_id": 7}, {"api": {}}, {"time": "now"}):
        assert not held_against.is_valid({**made, **spoilt})
    assert not held_against.is_valid({name: value for name, value in made.items() if name != "src_endpoint"})


@pytest.mark.parametrize(
    ("case", "action", "disposition", "severity"),
    [
        ("denied", "Denied", "Blocked", "Medium"),
        ("asked", "Denied", "Blocked", "Medium"),
        ("killed", "Denied", "Blocked", "High"),
        ("permitted", "Allowed", "Allowed", "Informational"),
        ("observed", "Observed", "Logged", "Medium"),
    ],
)
def test_what_was_done_about_a_call_is_said_as_it_was(case: str, action: str, disposition: str, severity: str) -> None:
    made = event(**CASES[case])
    assert (made["action"], made["disposition"], made["severity"]) == (action, disposition, severity)
    assert made["is_alert"] is (case == "killed")


def test_a_permitted_call_that_was_held_back_after_all_is_shown_as_blocked() -> None:
    held_back = event(outcome(status="not_forwarded", reason="session_ended"), **PERMITTED)
    assert (held_back["action"], held_back["disposition"]) == ("Denied", "Blocked")
    assert held_back["message"].endswith("let through, not forwarded: session_ended, PERMIT by policy")


def test_an_observed_call_that_was_held_back_is_not_shown_as_let_through_alone() -> None:
    held_back = event(outcome(status="not_forwarded", reason="session_ended"), **CASES["observed"])
    assert (held_back["action"], held_back["status"]) == ("Observed", "Failure")
    assert "not forwarded: session_ended" in held_back["message"]


def test_an_observed_decision_never_looks_enforced() -> None:
    made = event(**{**FULL, **CASES["observed"]})
    assert made["unmapped"]["enforced"] is False
    assert made["policy"]["is_applied"] is False
    assert "not enforced" in made["message"]
    assert made["action"] not in ("Allowed", "Denied")


def test_the_leaf_the_decision_and_the_checkpoint_are_named() -> None:
    made = event(**FULL)
    assert made["metadata"]["sequence"] == made["unmapped"]["leaf_index"] == 41
    assert made["metadata"]["uid"] == made["api"]["request"]["uid"] == made["unmapped"]["decision_id"]
    assert made["unmapped"]["checkpoint"] == {"origin": "ledger.example/acme", "size": 100, "root": "ab" * 32}
    assert made["trace"] == {"uid": FULL["trace_id"]}
    assert made["metadata"]["profiles"] == ["security_control", "trace"]


@pytest.mark.parametrize(
    ("became", "status"),
    [
        (None, "Unknown"),
        (outcome(), "Success"),
        (outcome(tool_error=True), "Failure"),
        (outcome(status="failed", reason="upstream_timeout"), "Failure"),
        (outcome(status="not_forwarded", reason="session_ended"), "Failure"),
        (outcome(status="unknown"), "Unknown"),
    ],
)
def test_the_status_of_a_permitted_call_is_what_became_of_it(became: Outcome | None, status: str) -> None:
    assert event(became, **PERMITTED)["status"] == status


def test_a_denied_call_has_failed_whatever_else_is_known() -> None:
    assert event()["status"] == "Failure"


def test_no_commitment_and_no_null_leave_with_an_event() -> None:
    text = json.dumps(event(**FULL))
    body, _ = make_decision(**FULL)
    assert "null" not in text
    assert body.message.digest not in text
    assert "commitment" not in text
