"""What a client is told of a denial."""

from __future__ import annotations

import json

import pytest

from enforcement.config_types import Tell
from enforcement.mcp import Message, Refusal, parse_message
from enforcement.refusals import ErrorCode, error_reply
from enforcement.verdicts import Denial, denial_reply
from tests.support.mcp_messages import body_of, headers_of

MESSAGE = parse_message(body_of(request_id="seven"), headers_of())
NOTIFICATION = parse_message(b'{"jsonrpc":"2.0","method":"notifications/x"}', headers_of(None, None))


@pytest.mark.parametrize(
    ("enforcement", "reason", "status", "code"),
    [
        ("deny", "policy", 200, ErrorCode.DENIED),
        ("deny", "no_permit", 200, ErrorCode.DENIED),
        ("ask", "policy", 200, ErrorCode.APPROVAL_REQUIRED),
        ("kill", "policy", 200, ErrorCode.DENIED),
        ("deny", "session_ended", 200, ErrorCode.DENIED),
        ("deny", "unauthenticated", 401, ErrorCode.UNAUTHENTICATED),
        ("deny", "origin_not_allowed", 403, ErrorCode.DENIED),
        ("deny", "unknown_server", 404, ErrorCode.DENIED),
        ("deny", "ledger_unavailable", 503, ErrorCode.UNAVAILABLE),
        ("deny", "spool_full", 503, ErrorCode.UNAVAILABLE),
        ("deny", "overloaded", 503, ErrorCode.UNAVAILABLE),
        ("deny", "internal_error", 503, ErrorCode.UNAVAILABLE),
    ],
)
def test_a_denied_request_is_told_why_and_under_which_decision(
    enforcement: str, reason: str, status: int, code: int
) -> None:
    assert isinstance(MESSAGE, Message)
    denial = Denial(reason=reason, enforcement=enforcement, decision_id="an-id", rule="a-rule")
    reply = denial_reply(MESSAGE, denial)
    value = json.loads(reply.body)
    assert (reply.status, value["id"], value["error"]["code"]) == (status, "seven", code)
    data = {"reason": reason, "enforcement": enforcement, "decision_id": "an-id", "rule": "a-rule"}
    assert value["error"]["data"] == data


def test_a_denied_notification_is_told_by_http() -> None:
    assert isinstance(NOTIFICATION, Message)
    reply = denial_reply(NOTIFICATION, Denial(reason="policy", enforcement="deny", decision_id="an-id"))
    assert (reply.status, json.loads(reply.body)["id"]) == (403, None)


def test_a_refusal_carries_what_the_specification_asks_for() -> None:
    refusal = parse_message(b'{"jsonrpc":"2.0","id":1,"method":"initialize"}', headers_of(None, None, None))
    assert isinstance(refusal, Refusal)
    denial = Denial(reason=refusal.reason, enforcement="deny", decision_id="an-id", refusal=refusal)
    data = json.loads(denial_reply(None, denial).body)["error"]["data"]
    assert (data["supported"], data["requested"], data["reason"]) == (
        ["2025-11-25", "2026-07-28"],
        "unknown",
        "unsupported_protocol",
    )


def test_an_error_without_details_has_none() -> None:
    value = json.loads(error_reply(None, status=400, code=-1, text="no").body)
    assert value == {"jsonrpc": "2.0", "id": None, "error": {"code": -1, "message": "no"}}


@pytest.mark.parametrize(
    ("tell", "told"),
    [
        ("full", {"reason": "policy", "enforcement": "ask", "rule": "cap", "drift": ["x"], "needs": ["mfa"]}),
        ("reason", {"reason": "policy", "enforcement": "ask"}),
        ("nothing", {"reason": "denied"}),
    ],
)
def test_a_caller_learns_as_much_of_a_policys_denial_as_its_server_tells(tell: Tell, told: dict[str, object]) -> None:
    denial = Denial(
        reason="policy", enforcement="ask", decision_id="d", rule="cap", drift=("x",), needs=("mfa",), tell=tell
    )
    message = parse_message(body_of(), headers_of())
    assert isinstance(message, Message)
    error = json.loads(denial_reply(message, denial).body)["error"]
    assert error["data"] == {**told, "decision_id": "d"}
    assert error["code"] == (ErrorCode.DENIED if tell == "nothing" else ErrorCode.APPROVAL_REQUIRED)


def test_that_nothing_can_be_recorded_is_told_also_where_denials_are_not() -> None:
    denial = Denial(reason="ledger_unavailable", enforcement="deny", decision_id=None, rule="cap", tell="nothing")
    data = json.loads(denial_reply(None, denial).body)["error"]["data"]
    assert data == {"reason": "ledger_unavailable", "enforcement": "deny", "decision_id": None}
