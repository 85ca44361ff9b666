"""Access requests as they are sent: what is taken for the same evaluation, and what is not; what tasks say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ledger.approvals import Grant, HeldCall
from ledger.errors import MalformedError
from service.access_submissions import (
    parse_note,
    parse_submission,
    said_besides,
    same_evaluation,
    task_of,
    within_evaluation,
)
from service.problems import Problem

NOW_MS = 1_763_546_400_000
ASKED = (
    b'{"subject":{"type":"agent","id":"bot","properties":{"user":"alice","n":1.10}},"action":{"name":"tools/call"},'
    b'"resource":{"type":"tool","id":"pay"},"context":{"arguments":{"to":"x","n":1.10,"deep":[{"a":1}]},"address":"a"}}'
)
DENIAL = {"decision": {"decision": False}, "access_request": {"requestable": True}, "evaluation_id": "e"}


def changed(old: bytes, new: bytes) -> bytes:
    assert ASKED.count(old)
    return ASKED.replace(old, new)


SAME = {
    "the same bytes": ASKED,
    "laid out otherwise": json.dumps(json.loads(ASKED, parse_float=lambda _: 7), indent=2)
    .replace("7", "1.10")
    .encode(),
    "members in another order": changed(b'"type":"tool","id":"pay"', b'"id":"pay","type":"tool"'),
    "arguments in another order": changed(b'"to":"x","n":1.10', b'"n":1.10,"to":"x"'),
    "a text spelt with an escape": changed(b'"to":"x"', b'"to":"\\u0078"'),
    "another time": changed(
        b'"address":"a"', b'"address":"a","time":"2026-10-05T22:30:00Z","windows":{},"trace_id":"a"'
    ),
    "an approval": changed(b'"address":"a"', b'"address":"a","authzen_access_request_approval":{"approval_id":"x"}'),
    "a member that AuthZEN does not know": changed(b'"action":{', b'"options":{},"action":{'),
}
OTHER = {
    "a number spelt otherwise": changed(b'"n":1.10,"deep"', b'"n":1.1,"deep"'),
    "a number with an exponent": changed(b'"deep":[{"a":1}]', b'"deep":[{"a":1e0}]'),
    "a number of the subject spelt otherwise": changed(b'"alice","n":1.10', b'"alice","n":1.1'),
    "a text for a number": changed(b'"n":1.10,"deep"', b'"n":"1.10","deep"'),
    "a number for true": changed(b'{"a":1}', b'{"a":true}'),
    "another text": changed(b'"to":"x"', b'"to":"X"'),
    "a text that looks the same": changed(b'"to":"x"', '"to":"\u0445"'.encode()),
    "deep inside": changed(b'{"a":1}', b'{"a":2}'),
    "one member more": changed(b'"to":"x"', b'"to":"x","memo":null'),
    "one member less": changed(b'"to":"x",', b""),
    "one item more": changed(b'[{"a":1}]', b'[{"a":1},{}]'),
    "another person": changed(b'"alice"', b'"bob"'),
    "another method": changed(b"tools/call", b"tools/list"),
    "another tool": changed(b'"pay"', b'"Pay"'),
    "another address": changed(b'"address":"a"', b'"address":"b"'),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_evaluation_is_known_however_it_is_laid_out(name: str) -> None:
    assert same_evaluation(ASKED, SAME[name])
    assert within_evaluation(ASKED, SAME[name])


@pytest.mark.parametrize("name", OTHER)
def test_another_evaluation_is_another_one_way_and_the_other(name: str) -> None:
    assert not same_evaluation(ASKED, OTHER[name])
    assert not same_evaluation(OTHER[name], ASKED)
    assert not within_evaluation(ASKED, OTHER[name])


LESS = {
    "no arguments": changed(b'"arguments":{"to":"x","n":1.10,"deep":[{"a":1}]},', b""),
    "no address": changed(b',"address":"a"', b""),
    "more context": changed(b'"address":"a"', b'"address":"a","business_justification":"renewal"'),
}


@pytest.mark.parametrize("name", LESS)
def test_a_request_may_leave_out_and_add_what_a_question_may_not(name: str) -> None:
    assert within_evaluation(ASKED, LESS[name])
    assert not same_evaluation(ASKED, LESS[name])
    assert not same_evaluation(LESS[name], ASKED)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"subject":1}', b'{"subject":1,"action":1,"resource":1,"context":2}']
)
def test_what_is_no_evaluation_is_never_the_same(body: bytes) -> None:
    assert not same_evaluation(ASKED, body)
    assert not same_evaluation(body, body)
    assert not within_evaluation(ASKED, body)


def submission(**changes: Any) -> bytes:
    value = {**json.loads(ASKED), "denial": DENIAL, **changes}
    return json.dumps({name: member for name, member in value.items() if member is not ...}).encode()


def test_what_a_request_says_besides_is_what_the_evaluation_does_not() -> None:
    assert said_besides(ASKED, submission()) is None
    context = {"address": "a", "why": "renewal", "time": "2026-10-05T22:30:00Z"}
    said = said_besides(
        ASKED, submission(context=context, requested_access={"requested_duration": "PT4H"}, client={"id": "x"})
    )
    assert said == b'{"client":{"id":"x"},"context":{"why":"renewal"},"requested_access":{"requested_duration":"PT4H"}}'


@pytest.mark.parametrize("name", ["action", "resource", "subject"])
def test_a_request_without_its_members_is_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        parse_submission(submission(**{name: ...}))


@pytest.mark.parametrize(
    "denial", [..., None, {}, [], {"decision": {"decision": False}}, {**DENIAL, "evaluation_id": None}]
)
def test_a_request_without_a_denial_is_bound_to_none(denial: Any) -> None:
    with pytest.raises(Problem) as raised:
        parse_submission(submission(denial=denial))
    assert raised.value.slug == "invalid_denial_binding"


def test_members_that_a_later_profile_adds_are_left_alone() -> None:
    sent = parse_submission(submission(client={"actor": {"id": "x"}}, **{"urn:acme:more": 1}))
    assert sent.evaluation_id == "e"


@pytest.mark.parametrize("body", [b"[]", b"7", b'"x"', b"{", b'{"a":1,"a":2}'])
def test_a_note_is_an_object(body: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_note(body)


def test_a_note_may_be_empty() -> None:
    assert parse_note(b"") is None
    assert parse_note(b'{"reason":"x"}') == b'{"reason":"x"}'


CALL = HeldCall(
    approval_id="a1",
    decision_id="d1",
    enforcer="service",
    binding="b" * 64,
    expires_ms=NOW_MS + 60_000,
    needed=1,
    roles=(),
    cause="policy",
    leaf_index=4,
    held_ms=NOW_MS,
)
GRANT = Grant(actor="a" * 32, key_id="k", role="approver", binding="b" * 64, leaf_index=5, time_ms=NOW_MS + 5)


@pytest.mark.parametrize(
    ("changes", "now_ms", "status", "approved"),
    [
        ({}, NOW_MS, "pending", False),
        ({}, NOW_MS + 60_000, "expired", False),
        ({"grants": (GRANT,), "needed": 2}, NOW_MS, "pending", False),
        ({"grants": (GRANT,)}, NOW_MS, "approved", True),
        ({"grants": (GRANT,)}, NOW_MS + 60_000, "expired", False),
        ({"denied_by": "d" * 32}, NOW_MS, "denied", False),
        ({"grants": (GRANT,), "denied_by": "d" * 32}, NOW_MS, "denied", False),
        ({"ended": "cancelled", "ended_ms": NOW_MS}, NOW_MS, "cancelled", False),
        ({"ended": "refused", "ended_ms": NOW_MS}, NOW_MS, "failed", False),
        ({"grants": (GRANT,), "ended": "used", "ended_ms": NOW_MS + 9}, NOW_MS, "approved", True),
    ],
)
def test_a_task_is_approved_only_when_people_have_agreed(
    changes: dict[str, Any], now_ms: int, status: str, *, approved: bool
) -> None:
    told = task_of(replace(CALL, **changes), now_ms, "https://x/access/v1/requests")
    assert told["task"]["status"] == status
    assert ("result" in told) is approved
    assert ("links" in told["task"]) is (status == "pending")
    assert "a" * 32 not in json.dumps(told)


def test_an_approval_that_was_used_is_valid_no_longer_than_that() -> None:
    told = task_of(replace(CALL, grants=(GRANT,), ended="used", ended_ms=NOW_MS + 9), NOW_MS, "https://x")
    assert told["result"]["approval"]["approved_until"] == "2025-11-19T10:00:00.009Z"
