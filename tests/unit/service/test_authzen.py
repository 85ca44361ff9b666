"""AuthZEN questions as our requests: what is taken as it is, what is refused, what is denied for want of a fact."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger.errors import MalformedError
from service.authzen import MAX_EVALUATIONS, Box, Question, answered, parse_box, parse_question

NOW_MS = 1_763_546_400_000


def asked(**changes: Any) -> dict[str, Any]:
    """Return an evaluation request in which nothing is missing."""
    value: dict[str, Any] = {
        "subject": {"type": "agent", "id": "finance-bot", "properties": {"user": "alice", "roles": ["reader"]}},
        "action": {"name": "tools/call"},
        "resource": {"type": "tool", "id": "transfer", "properties": {"server": "bank", "tags": ["write", "finance"]}},
        "context": {"arguments": {"amount": 1}},
    }
    return {**value, **changes}


def question(value: object) -> Question:
    return parse_question(value if isinstance(value, bytes) else json.dumps(value).encode(), NOW_MS)


def properties(member: str, **changes: Any) -> dict[str, Any]:
    """Return a request in which some properties of subject or resource differ; None takes one out."""
    value = asked()
    merged = {**value[member]["properties"], **changes}
    return {**value, member: {**value[member], "properties": {k: v for k, v in merged.items() if v is not None}}}


def test_a_whole_question_becomes_a_request_with_all_its_facts():
    context = {
        "time": "2026-10-05T22:30:00-07:00",
        "zone": "Europe/Berlin",
        "address": "192.0.2.7",
        "network": "office",
        "session": "s-1",
        "calls": 4,
        "denied": 1,
        "started_ms": 5,
        "arguments": {"amount": 1},
    }
    request = question({**asked(), "context": context}).request
    assert request is not None
    assert (request.principal.agent, request.principal.user, request.principal.roles) == (
        "finance-bot",
        "alice",
        ("reader",),
    )
    assert (request.resource.server, request.resource.name) == ("bank", "transfer")
    assert request.resource.tags == ("finance", "write")
    assert (request.time.local_date, request.time.hour, request.time.weekday) == ("2026-10-06", 7, 2)
    assert (request.environment.address, request.environment.network) == ("192.0.2.7", "office")
    assert (request.state.session, request.state.calls, request.state.denied) == ("s-1", 4, 1)


def test_the_text_of_the_arguments_reaches_the_policy_as_it_was_received():
    body = json.dumps(asked()).replace('{"amount": 1}', '{"amount" : 1.10, "n": 9007199254740993, "t":"\\u00e9"}')
    request = question(body.encode()).request
    assert request is not None
    assert request.arguments == '{"amount" : 1.10, "n": 9007199254740993, "t":"\\u00e9"}'


def test_behaviour_windows_are_taken_as_they_are_stated():
    windows = {"spent": "12.5000", "calls": 3, "tainted": True}
    request = question(asked(context={"windows": windows})).request
    assert request is not None
    assert (request.version, request.state.windows) == (2, windows)


def test_a_question_without_a_time_is_of_now_and_in_utc():
    request = question(asked()).request
    assert request is not None
    assert (request.time.now_ms, request.time.zone) == (NOW_MS, "UTC")


def test_a_user_is_asked_about_with_the_agent_that_acts_for_him():
    request = question(
        asked(subject={"type": "user", "id": "alice", "properties": {"agent": "finance-bot", "mfa": True}})
    ).request
    assert request is not None
    assert (request.principal.agent, request.principal.user, request.principal.mfa) == ("finance-bot", "alice", True)


def test_a_server_is_asked_about_by_its_id():
    server = {"type": "server", "id": "bank", "properties": {"tags": []}}
    request = question(asked(action={"name": "tools/list"}, resource=server)).request
    assert request is not None
    assert (request.resource.server, request.resource.name) == ("bank", None)


def test_members_that_authzen_allows_and_nobody_here_knows_change_nothing():
    value = properties("subject", email="alice@example.com")
    assert question({**value, "extension": {"x": 1}}).request == question(asked()).request


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (asked(subject={"type": "user", "id": "alice"}), "missing_fact", "subject.properties.agent"),
        (asked(subject={"type": "agent", "id": "näme"}), "missing_fact", "subject.id is no name"),
        (asked(subject={"type": "robot", "id": "r2"}), "unknown_subject", "subject.type is neither agent nor user"),
        (properties("resource", server=None), "missing_fact", "resource.properties.server"),
        (properties("resource", tags=None), "missing_fact", "resource.properties.tags"),
        (
            asked(resource={"type": "document", "id": "1"}),
            "unknown_resource",
            "resource.type is none of tool, prompt, resource, server",
        ),
        (
            asked(action={"name": "prompts/get"}),
            "unknown_resource",
            "resource.type is not prompt, which prompts/get is for",
        ),
        (
            asked(resource={"type": "server", "id": "bank", "properties": {"tags": []}}),
            "unknown_resource",
            "resource.type is not tool, which tools/call is for",
        ),
        (asked(context={"session": "s", "denied": 0, "started_ms": 0}), "missing_fact", "context.calls"),
        (asked(context={"session": "s", "calls": 0, "started_ms": 0}), "missing_fact", "context.denied"),
        (asked(context={"session": "s", "calls": 0, "denied": 0}), "missing_fact", "context.started_ms"),
    ],
)
def test_a_fact_that_is_missing_is_named_and_never_guessed(value, reason, detail):
    read = question(value)
    assert read.request is None
    assert (read.reason, read.detail) == (reason, detail)


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        b"",
        b"{",
        b'{"subject":{"type":"agent","id":"a"},"subject":{"type":"agent","id":"b"}}',
        json.dumps(asked()).replace("1}", "1e400}").encode(),
        json.dumps(asked()).replace("1}", "NaN}").encode(),
        json.dumps(asked()).replace('"bank"', '"\\ud800"').encode(),
        b"[" * 100_000,
        {k: v for k, v in asked().items() if k != "subject"},
        {k: v for k, v in asked().items() if k != "action"},
        {k: v for k, v in asked().items() if k != "resource"},
        asked(subject={"type": "agent"}),
        asked(subject={"id": "a"}),
        asked(subject={"type": "agent", "id": ""}),
        asked(subject={"type": "agent", "id": 7}),
        asked(action={"name": "no name"}),
        asked(action={"name": ""}),
        asked(resource={"type": "tool"}),
        asked(resource={"type": "tool", "id": "x" * 5000}),
        properties("subject", mfa="yes"),
        properties("subject", roles="reader"),
        properties("subject", roles=["a"] * 65),
        properties("resource", tags=["näme"]),
        asked(context={"arguments": [1]}),
        asked(context={"arguments": "{}"}),
        asked(context={"calls": -1}),
        asked(context={"calls": 1.5}),
        asked(context={"zone": "Mars/Olympus"}),
        asked(context={"zone": "../../etc/passwd"}),
        asked(context={"time": "yesterday"}),
        asked(context={"time": "2026-10-05T22:30:00"}),
        asked(context={"time": "1969-01-01T00:00:00Z"}),
        asked(context={"time": 1}),
        asked(context={"trace_id": "xyz"}),
        asked(context={"windows": {"spent": 12.5}}),
        asked(context={"windows": {"spent": "twelve"}}),
        asked(context={"windows": {"no name": 1}}),
        asked(context={"windows": {f"w{n}": 1 for n in range(33)}}),
    ],
)
def test_what_is_not_of_the_form_is_refused(value):
    with pytest.raises(MalformedError):
        question(value)


def test_a_refusal_does_not_tell_the_value():
    with pytest.raises(MalformedError) as refused:
        parse_box(json.dumps({**asked(), "options": {"evaluations_semantic": "s3cret"}}).encode(), NOW_MS)
    assert "s3cret" not in str(refused.value)


# --- boxes


def box(value: object) -> Box | Question:
    return parse_box(json.dumps(value).encode(), NOW_MS)


def test_defaults_hold_for_questions_that_say_nothing_else():
    whole = asked()
    read = box(
        {
            "subject": whole["subject"],
            "action": whole["action"],
            "evaluations": [
                {"resource": whole["resource"]},
                {"resource": whole["resource"], "action": {"name": "tools/list"}},
            ],
        }
    )
    assert isinstance(read, Box)
    assert [one.method for one in read.questions] == ["tools/call", "tools/list"]
    assert read.semantic == "execute_all"
    # A member is replaced whole, never merged.
    assert [one.reason for one in read.questions] == ["", ""] or read.questions[1].reason == "unknown_resource"


def test_a_question_that_cannot_be_read_is_answered_by_itself():
    read = box({**asked(), "evaluations": [{}, {"subject": 7}, {"action": {"name": "no name"}}]})
    assert isinstance(read, Box)
    assert [one.reason for one in read.questions] == ["", "malformed", "malformed"]


@pytest.mark.parametrize("more", [{}, {"evaluations": []}])
def test_without_questions_it_is_one_question(more):
    read = box({**asked(), **more})
    assert isinstance(read, Question)
    assert read.request is not None


@pytest.mark.parametrize(
    "value",
    [
        {"evaluations": [{}] * (MAX_EVALUATIONS + 1)},
        {"evaluations": [7]},
        {"evaluations": {}},
        {"evaluations": [{}], "options": {"evaluations_semantic": "first_come"}},
        {"evaluations": [{}], "options": 7},
        {},
    ],
)
def test_a_box_that_is_none_is_refused(value):
    with pytest.raises(MalformedError):
        box(value)


@pytest.mark.parametrize(
    ("semantic", "permits", "count"),
    [
        ("execute_all", [True, False, True], 3),
        ("deny_on_first_deny", [True, False, True], 2),
        ("deny_on_first_deny", [True, True], 2),
        ("deny_on_first_deny", [False], 1),
        ("permit_on_first_permit", [False, True, False], 2),
        ("permit_on_first_permit", [False, False], 2),
    ],
)
def test_answers_end_with_the_one_that_settles_it(semantic, permits, count):
    assert answered(permits, semantic) == count
