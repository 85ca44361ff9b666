"""What a session's records say in sentences: all that a responder needs, nothing made up, nothing of payloads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger.bodies import Approval, Containment, Outcome, SessionEnd, ToolEvent
from ledger.bodies_drift import Drift
from ledger.bodies_inspection import Inspection
from ledger.records import Record, encode_record
from service.narrative import about_call, about_outcome, event_line, head, summary, who_called
from tests.support.ledger import Enforcer, make_decision

ID = "019a9c14-6d80-7abc-8def-000000000001"
INSPECTION = Inspection(inspector="ab" * 32, extent="complete", findings=("injection/order", "secret/key"), count=3)


def told(body: Any) -> dict[str, Any]:
    """Return a body as JSON has it."""
    record = body if isinstance(body, Record) else Enforcer("gateway-1").record(body)
    return dict(json.loads(encode_record(record))["body"])


def decided(**changes: Any) -> dict[str, Any]:
    return told(make_decision(**changes)[0])


def test_a_call_says_who_decided_what_was_found_and_which_tool_it_was():
    body = decided(
        decision="DENY",
        enforcement="deny",
        rules=("safeguards-secret",),
        obligations=("redact_result",),
        inspection=INSPECTION,
        tool_state="quarantined",
        tool_digest="cd" * 32,
        deviations=("new_tool",),
        restriction=ID,
    )
    text = "\n".join(about_call(body))
    for part in (
        "decided: DENY by safeguards-secret",
        "on condition of: redact_result",
        "found in the call: injection/order, secret/key (3 findings; inspector abababababab)",
        "tool: quarantined, definition cdcdcdcdcdcd",
        "unusual for this agent: new_tool",
        f"stopped by containment {ID}",
    ):
        assert part in text


def test_what_no_record_says_is_not_said():
    text = "\n".join(about_call(decided(bundle=None, rules=(), request=None)))
    assert "no bundle was asked" in text
    for part in ("found", "tool:", "unusual", "containment", "on condition"):
        assert part not in text


@pytest.mark.parametrize(
    ("findings", "extent", "says"),
    [
        ((), "complete", None),
        ((), "partial", "found in the call: nothing (0 findings, looked through partially only"),
        (("secret/key",), "partial", "found in the call: secret/key (1 finding, looked through partially only"),
    ],
)
def test_what_was_not_looked_through_to_its_end_is_said_even_if_nothing_was_found(findings, extent, says):
    body = decided(inspection=Inspection(inspector="ab" * 32, extent=extent, findings=findings, count=len(findings)))
    lines = [line for line in about_call(body) if line.startswith("found")]
    assert lines == [] if says is None else lines[0].startswith(says)


def test_an_outcome_says_what_was_found_redacted_and_hidden():
    outcome = Outcome(decision_id=ID, status="completed", session="5" * 32, inspection=INSPECTION, redacted=2, hidden=1)
    assert about_outcome(told(outcome)) == [
        "found in the answer: injection/order, secret/key (3 findings; inspector abababababab)",
        "redacted before the client got it: 2 places",
        "not shown of the list: 1 entry",
    ]
    assert about_outcome(told(Outcome(decision_id=ID, status="completed", session="5" * 32))) == []


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (
            Approval(
                approval_id=ID, decision_id=ID, action="held", binding="ee" * 32, expires_ms=0, needed=2, cause="policy"
            ),
            "held for people to agree (policy): 2 people must agree until 1970-01-01 00:00:00, to binding eeeeeeeeeeee",
        ),
        (
            Approval(
                approval_id=ID,
                decision_id=ID,
                action="refused",
                binding="ee" * 32,
                reason="self_approval",
                actor="7" * 32,
                actor_role="approver",
            ),
            "a way round was tried and refused (pseudonym 777777777777, approver): self_approval",
        ),
        (
            ToolEvent(
                action="quarantined",
                server="mail",
                tool="count",
                digest="ab" * 32,
                previous="cd" * 32,
                reasons=("changed",),
                changes=("destination", "instruction"),
            ),
            "was quarantined: changed; it brought in: destination, instruction; definition abababababab, before cdcdcd",
        ),
        (
            Drift(
                action="flagged",
                drift_id=ID,
                agent="Bot",
                detector="new_tool",
                subject="mail/send",
                value_milli=1500,
                threshold_milli=1000,
                baseline_version=2,
            ),
            "of Bot: new_tool about mail/send, measured 1.5 above 1 (baseline 2)",
        ),
        (
            Containment(
                action="ordered", containment_id=ID, actor="7" * 32, actor_role="responder", scope="agent", agent="Bot"
            ),
            f"containment {ID} of agent Bot was ordered (pseudonym 777777777777, responder)",
        ),
        (
            SessionEnd(session="5" * 32, calls=3, denied=1, reason="killed", agent="Bot", started_ms=0),
            "the session ended (killed): 3 calls by its enforcer's count, 1 not let through",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_happened_beside_is_a_sentence(body, says):
    assert says in event_line(told(body))


def test_a_type_that_is_not_known_has_no_sentence():
    assert event_line({"type": "something_newer"}) == ""


def test_an_action_that_is_not_known_is_told_as_it_stands():
    step = told(Approval(approval_id=ID, decision_id=ID, action="used", binding="ee" * 32))
    assert "newer_step" in event_line({**step, "action": "newer_step"})


def event(leaf: int, record: Record) -> dict[str, Any]:
    return {"leaf_index": leaf, "record": json.loads(encode_record(record))}


def test_the_head_says_who_when_what_came_of_it_and_what_was_found():
    enforcer = Enforcer("gateway-1")
    good = enforcer.record(make_decision(enforcement="allow", decision="PERMIT", rules=("open",))[0])
    bad = enforcer.record(
        make_decision(
            enforcement="deny", decision="DENY", rules=("shut",), failed_condition="shut", inspection=INSPECTION
        )[0]
    )
    ended = enforcer.record(Outcome(decision_id=good.record_id, status="completed", session="5" * 32, redacted=4))
    events = [event(7, good), event(9, ended), event(12, bad)]
    lines = "\n".join(head(events))
    assert lines.startswith("who: agent ")
    assert "leaves 7 to 12" in lines
    assert "decided: 1 ALLOW, 1 DENY" in lines
    assert "refused by: shut (1)" in lines
    assert "found: injection/order, secret/key" in lines
    told_to_programs = summary(events)
    assert (told_to_programs["redacted"], told_to_programs["enforcements"]) == (4, {"allow": 1, "deny": 1})


def test_a_session_of_which_no_decision_is_served_has_no_head():
    only_end = Enforcer("gateway-1").record(
        SessionEnd(session="5" * 32, calls=3, denied=1, reason="idle", agent="Bot", started_ms=0)
    )
    assert head([event(1, only_end)]) == []
    assert summary([])["first_ms"] is None


def test_who_called_says_how_it_was_proven():
    facts = {"authn": "oauth", "mfa": True, "roles": ["finance"], "network": "office"}
    assert who_called({"agent": "Bot", "user": "7" * 32, "facts": facts, "transport": "http"}) == (
        "agent Bot, for user 777777777777 (pseudonym), proven by oauth, with a second factor, roles finance, "
        "network office, over http"
    )
    assert "without a second factor" in who_called({"agent": "Bot", "facts": {"authn": "api_token"}})
    assert who_called(decided()).startswith("agent finance-bot, for user 6666")
    assert who_called({"agent": "Bot"}) == "agent Bot"
