"""Pages show every field of a record, each by its class, and open nothing."""

from __future__ import annotations

import msgspec
import pytest

from ledger.bodies import BundleReference, Decision, Facts, Outcome
from ledger.bodies_inspection import Inspection
from ledger.body_fields import Commitment
from ledger.records import Record, field_classes, leaf_hash
from service.web.views import DecisionView, Field, decision_row, decision_view, local_time
from tests.support.ledger import Enforcer, make_decision

FACTS = Facts(
    authn="authn-x", zone="Europe/Zurich", local_hour=3, local_minute=7, weekday=4, network="network-x",
    session_calls=41, mfa=True, roles=("role-x", "role-y"), tls_version="version-x", tls_group="group-x",
)  # fmt: skip
BUNDLE = BundleReference(name="bundle-x", revision="b" * 64, engine="engine-x", engine_version="9.8.7")
FULL = {
    "agent": "agent-x", "server": "server-x", "method": "method-x", "tool": "tool-x", "tool_digest": "d" * 64,
    "protocol_version": "2026-07-28", "decision": "NOT_APPLICABLE", "enforcement": "kill", "mode": "observe",
    "reason": "reason-x", "bundle": BUNDLE, "rules": ("rule-x", "rule-y"), "failed_condition": "condition-x",
    "obligations": ("obligation-x",), "evaluation_us": 1234567, "facts": FACTS, "session": "1" * 32, "user": "2" * 32,
    "address": "3" * 32, "arguments_fingerprint": "4" * 32, "tags": ("tag-x",), "trace_id": "5" * 32,
    "drift": ("drift-x",),
    "interface": "interface-x", "transport": "transport-x", "direction": "server",
    "continues": "0199aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee",
    "restriction": "019a9c14-6d80-7abc-8def-0123456789ab",
    "capture": "redacted", "capture_reason": "captured-x",
    "masked_request": Commitment(digest="6" * 64, size_bytes=1024),
    "inspection": Inspection(extent="partial", inspector="e" * 64, findings=("secret/rule-x",), count=83),
    "tool_state": "quarantined", "deviations": ("deviation-x",),
}  # fmt: skip


def full() -> tuple[Record, Decision]:
    body, _ = make_decision(**FULL)
    enforcer = Enforcer("gateway-x", seq=76, running_count=65)
    record = msgspec.structs.replace(enforcer.record(body), pseudonym_key_id="a1" * 8)
    return record, body


def outcome(record: Record) -> tuple[Record, Outcome]:
    body = Outcome(
        decision_id=record.record_id, status="failed", session="1" * 32, reason="outcome-reason", latency_us=7654321,
        http_status=502, error_code=-32603, tool_error=True, user="2" * 32,
        result=Commitment(digest="9" * 64, size_bytes=2048), result_fingerprint="8" * 32, tls_group="group-y",
        hidden=31, messages=62, capture="digest", capture_reason="captured-y", contents=("7" * 32, "a" * 32),
        contents_left_out=1234,
        inspection=Inspection(extent="complete", inspector="f" * 64, findings=("secret/rule-y",), count=85),
        redacted=87,
    )  # fmt: skip
    return Enforcer("gateway-x", seq=80, running_count=66).record(body), body


def view() -> DecisionView:
    record, body = full()
    return decision_view(17, record, body, [(18, *outcome(record))])


def texts(fields: tuple[Field, ...]) -> set[str]:
    return {text for field in fields for text in (field.value, *field.items)}


def values(struct: msgspec.Struct, path: str) -> dict[str, object]:
    """Return every leaf value of a struct by the path that `field_classes` gives it."""
    prefix = f"{path}.{struct.__struct_config__.tag}" if struct.__struct_config__.tag else path
    found: dict[str, object] = {}
    for name in struct.__struct_fields__:
        value = getattr(struct, name)
        at = f"{prefix}.{name}".lstrip(".")
        if isinstance(value, msgspec.Struct):
            found.update(values(value, at))
        elif isinstance(value, tuple):
            found.update({f"{at}[]": item for item in value})
        else:
            found[at] = value
    return found


# How a page writes what is no text as it stands in the record.
WRITTEN = {
    "body.decision.evaluation_us": "1,234,567 µs",
    "body.decision.facts.local_hour": "Thursday 03:07",
    "body.decision.facts.local_minute": "Thursday 03:07",
    "body.decision.facts.weekday": "Thursday 03:07",
    "body.decision.facts.mfa": "yes",
    "body.decision.bundle.engine": "engine-x 9.8.7",
    "body.decision.bundle.engine_version": "engine-x 9.8.7",
    "body.outcome.latency_us": "7,654,321 µs",
    "body.outcome.tool_error": "yes",
    "body.outcome.contents_left_out": "1,234",
    "simulated": "yes",
}
ELSEWHERE = {"body.outcome.decision_id", "body.outcome.status"}  # the page's own subject, and its heading


def shown_and_due() -> tuple[set[str], dict[str, object]]:
    record, body = full()
    outcome_record, outcome_body = outcome(record)
    shown_view = decision_view(17, record, body, [(18, outcome_record, outcome_body)])
    shown = {text for section in shown_view.sections for text in texts(section.fields)}
    shown |= texts(shown_view.outcomes[0].fields) | texts(shown_view.outcomes[0].record)
    return shown, {**values(outcome_record, ""), **values(record, "")}


@pytest.mark.parametrize("path", sorted(field_classes()))
def test_every_field_of_a_decision_and_its_outcome_is_on_the_page(path):
    if not path.startswith(("body.decision.", "body.outcome.")) and path.startswith("body."):
        return  # of another type of record
    shown, due = shown_and_due()
    if path in ELSEWHERE or path.endswith(".size_bytes"):
        return  # the size of a payload is a note, see below
    assert path in due, "the full record of this test lacks a field"
    assert WRITTEN.get(path, str(due[path])) in shown


def test_vaulted_fields_are_commitments_with_their_size_and_nothing_more():
    fields = {field.label: field for section in view().sections for field in section.fields}
    message = fields["Message as captured"]
    assert message.kind == "vaulted"
    assert message.note == "17 B in the vault"
    assert len(message.value) == 64
    answer = {field.label: field for field in view().outcomes[0].fields}["Answer as captured"]
    assert (answer.kind, answer.note) == ("vaulted", "2.0 KiB in the vault")


@pytest.mark.parametrize("label", ["Session", "User", "Client address", "Arguments, keyed fingerprint"])
def test_pseudonyms_are_marked_as_such(label):
    fields = {field.label: field for section in view().sections for field in section.fields}
    assert fields[label].kind == "pseudonym"


def test_no_public_field_is_marked_as_anything_else():
    record, body = full()
    hidden = {body.session, body.user, body.address, body.arguments_fingerprint}
    hidden |= {body.message.digest, body.request.digest, body.masked_request.digest}
    fields = [field for section in decision_view(17, record, body, []).sections for field in section.fields]
    assert {field.value for field in fields if field.kind in ("pseudonym", "vaulted")} == hidden
    assert leaf_hash(record).hex() not in hidden


def test_a_bare_refusal_has_sections_without_fields_rather_than_invented_ones():
    body, _ = make_decision(facts=None, bundle=None, request=None, user=None, rules=(), reason="malformed", tool=None)
    shown = decision_view(3, Enforcer().record(body), body, [])
    sections = {section.title: section.fields for section in shown.sections}
    assert sections["Policy bundle"] == ()
    assert sections["Facts that it was made on"] == ()
    assert [field.label for field in sections["Vaulted"]] == ["Message as received"]
    assert "User" not in [field.label for field in sections["Pseudonyms"]]


@pytest.mark.parametrize(("enforcement", "due"), [("allow", True), ("ask", True), ("deny", False), ("kill", False)])
def test_only_a_permitted_call_is_expected_to_have_an_outcome(enforcement, due):
    body, _ = make_decision(enforcement=enforcement)
    assert decision_view(3, Enforcer().record(body), body, []).outcome_due is due


def test_a_row_names_rules_or_else_the_reason():
    ruled, _ = make_decision()
    bare, _ = make_decision(rules=(), reason="malformed")
    assert decision_row(1, Enforcer().record(ruled), ruled).why == ("finance-business-hours",)
    row = decision_row(1, Enforcer().record(bare), bare)
    assert (row.why, row.by_rule) == (("malformed",), False)


@pytest.mark.parametrize(
    ("changes", "called"), [({}, "Payroll-DB"), ({"tool": None}, "tools/call"), ({"tool": None, "method": None}, "")]
)
def test_a_row_says_what_was_called_as_far_as_the_message_says_it(changes, called):
    body, _ = make_decision(**changes)
    assert decision_row(1, Enforcer().record(body), body).called == called


def test_a_row_marks_what_was_only_observed():
    body, _ = make_decision(mode="observe", enforcement="allow")
    row = decision_row(1, Enforcer().record(body), body)
    assert (row.observed, row.enforcement, row.effect) == (True, "allow", "DENY")


def test_the_local_time_is_that_of_the_facts():
    assert local_time(FACTS) == "Thu 03:07 Europe/Zurich"
