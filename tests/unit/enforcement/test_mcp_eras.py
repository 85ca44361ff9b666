"""Reading messages of the stateful revisions, of servers, and without headers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enforcement.mcp import Kind, Message, MessageLimits, Refusal, parse_message, read_json_message
from enforcement.refusals import ErrorCode, RefusalReason
from tests.support.mcp_messages import META, VERSION, body_of, headers_of

STATEFUL = "2025-11-25"
BOTH = (STATEFUL, VERSION)
ALL = ("2024-11-05", "2025-03-26", "2025-06-18", *BOTH)


def body(method: str | None = "tools/call", request_id: object = 7, **members: Any) -> bytes:
    envelope: dict[str, Any] = {"jsonrpc": "2.0"}
    if request_id is not None:
        envelope["id"] = request_id
    if method is not None:
        envelope["method"] = method
    return json.dumps({**envelope, **members}).encode()


CALL = body(params={"name": "refund_customer", "arguments": {"amount": 1}})


def plain(version: str | None = STATEFUL, **members: Any) -> list[tuple[bytes, bytes]]:
    return headers_of(**{"method": None, "name": None, "version": version, **members})


def read(data: bytes, headers: list[tuple[bytes, bytes]], **members: Any) -> Message:
    message = parse_message(data, headers, **{"revisions": BOTH, **members})
    assert isinstance(message, Message), message
    return message


def refused(data: bytes, headers: list[tuple[bytes, bytes]], **members: Any) -> Refusal:
    refusal = parse_message(data, headers, **{"revisions": BOTH, **members})
    assert isinstance(refusal, Refusal), refusal
    return refusal


def test_a_stateful_call_needs_no_routing_headers() -> None:
    message = read(CALL, plain())
    assert (message.era, message.direction, message.name) == ("stateful", "client", "refund_customer")
    assert message.arguments == '{"amount": 1}'
    assert message.protocol_version == STATEFUL


@pytest.mark.parametrize("line", [{"method": "tools/list"}, {"name": "harmless"}])
def test_a_routing_header_that_is_not_demanded_must_still_mirror_the_body(line: dict[str, str]) -> None:
    assert refused(CALL, plain(**line)).reason is RefusalReason.HEADER_MISMATCH
    assert read(CALL, plain(method="tools/call", name="refund_customer")).name == "refund_customer"


def test_a_message_of_a_session_may_leave_its_revision_out_and_may_not_name_another() -> None:
    assert read(CALL, plain(None), negotiated=STATEFUL).protocol_version == STATEFUL
    assert read(CALL, plain(), negotiated=STATEFUL).protocol_version == STATEFUL
    assert refused(CALL, plain("2025-06-18"), negotiated=STATEFUL, revisions=ALL).reason == "header_mismatch"
    assert refused(body_of(), headers_of(), negotiated=STATEFUL).reason is RefusalReason.HEADER_MISMATCH


def test_a_message_that_names_no_revision_is_taken_for_one_of_the_time_before_the_header() -> None:
    assert read(CALL, plain(None), revisions=ALL).protocol_version == "2025-03-26"
    refusal = refused(CALL, plain(None))
    assert (refusal.reason, refusal.data) == (
        RefusalReason.UNSUPPORTED_PROTOCOL,
        {"supported": [STATEFUL, VERSION], "requested": "unknown"},
    )


def test_initialize_is_of_the_revision_that_it_offers() -> None:
    data = body("initialize", params={"protocolVersion": STATEFUL, "capabilities": {}})
    assert read(data, plain(None)).protocol_version == STATEFUL
    assert read(data, plain()).protocol_version == STATEFUL
    assert refused(data, plain("2025-06-18"), revisions=ALL).reason is RefusalReason.HEADER_MISMATCH


@pytest.mark.parametrize("offered", ["2025-06-18", "2026-07-28", "2099-01-01", 7, None, "x" * 99])
def test_initialize_cannot_agree_on_a_revision_that_does_not_pass(offered: object) -> None:
    refusal = refused(body("initialize", params={"protocolVersion": offered}), plain(None))
    assert refusal.reason is RefusalReason.UNSUPPORTED_PROTOCOL
    assert refusal.data is not None
    assert refusal.data["supported"] == [STATEFUL, VERSION]


def test_a_message_of_the_stateless_kind_is_told_what_it_can_go_on_with() -> None:
    params = {"_meta": {"io.modelcontextprotocol/protocolVersion": "v999.0.0"}}
    data = body("server/discover", params=params)
    refusal = refused(data, plain("v999.0.0", method="server/discover"))
    assert (refusal.reason, refusal.data) == (
        RefusalReason.UNSUPPORTED_PROTOCOL,
        {"supported": [VERSION], "requested": "v999.0.0"},
    )
    assert refused(data, None).data == refusal.data  # over standard input and output there is no header
    only = refused(data, plain("v999.0.0", method="server/discover"), revisions=[STATEFUL])
    assert only.data == {"supported": [STATEFUL], "requested": "v999.0.0"}


def test_a_revision_that_does_not_pass_is_refused_whatever_the_message() -> None:
    for data in (CALL, body("ping"), body("notifications/initialized", None), body(None, 1, result={})):
        assert refused(data, plain("2025-06-18")).reason is RefusalReason.UNSUPPORTED_PROTOCOL


def test_a_task_may_stand_beside_the_arguments_in_the_stateful_era_and_nothing_else() -> None:
    params = {"name": "refund_customer", "arguments": {}}
    assert read(body(params={**params, "task": {"ttl": 1}}), plain()).name == "refund_customer"
    assert refused(body(params={**params, "extra": 1}), plain()).code == ErrorCode.INVALID_PARAMS


def test_the_stateless_revision_of_the_body_does_not_travel_under_another_header() -> None:
    data = body("tools/list", params={"_meta": META})
    assert refused(data, plain()).reason is RefusalReason.HEADER_MISMATCH
    assert refused(data, plain(None)).reason is RefusalReason.HEADER_MISMATCH


@pytest.mark.parametrize(
    ("data", "failed"),
    [(body(None, 3, result={"roots": []}), False), (body(None, "a", error={"code": -1, "message": ""}), True)],
)
def test_a_response_is_read_in_the_stateful_era(data: bytes, failed: bool) -> None:
    message = read(data, plain())
    assert (message.kind, message.method, message.failed) == (Kind.RESPONSE, "", failed)
    assert message.request_id == json.loads(data)["id"]


def test_a_response_is_no_message_of_the_stateless_era() -> None:
    assert refused(body(None, 3, result={}), headers_of(None, None)).reason is RefusalReason.NOT_A_REQUEST


@pytest.mark.parametrize(
    "members",
    [
        {"result": {}, "error": {"code": 1, "message": ""}},
        {"result": "text"},
        {"result": None},
        {"error": "text"},
        {"error": {"message": "no code"}},
        {"error": {"code": True, "message": ""}},
        {"error": {"code": 2**60, "message": ""}},
        {"result": {}, "params": {}},
        {"result": {}, "jsonrpc": "1.0"},
        {"result": {}, "request_id": None},
    ],
)
def test_what_is_only_nearly_a_response_is_refused(members: dict[str, Any]) -> None:
    members = {"request_id": 3, **members}
    assert refused(body(None, **members), plain()).reason is RefusalReason.MALFORMED


def test_a_response_with_a_result_twice_or_under_two_spellings_is_refused() -> None:
    twice = b'{"jsonrpc":"2.0","id":3,"result":{},"result":{"action":"accept"}}'
    assert refused(twice, plain()).reason is RefusalReason.DUPLICATE_KEY
    assert refused(twice.replace(b',"result":{"', b',"Result":{"'), plain()).reason is RefusalReason.AMBIGUOUS_KEY


@pytest.mark.parametrize("request_id", [7, "seven"])
def test_a_cancellation_names_what_it_withdraws(request_id: object) -> None:
    data = body("notifications/cancelled", None, params={"requestId": request_id})
    assert read(data, plain()).cancels == request_id
    assert read(body("notifications/progress", None, params={"requestId": request_id}), plain()).cancels is None


@pytest.mark.parametrize("request_id", [None, 1.5, True, {}, "x" * 257])
def test_a_cancellation_of_nothing_that_can_be_named_is_refused(request_id: object) -> None:
    data = body("notifications/cancelled", None, params={"requestId": request_id})
    assert refused(data, plain()).reason is RefusalReason.MALFORMED


@pytest.mark.parametrize("name", ["mcp-session-id", "Last-Event-ID", "mcp_session_id"])
def test_a_session_or_an_event_named_twice_is_refused(name: str) -> None:
    headers = [*plain(), (b"mcp-session-id", b"a"), (b"last-event-id", b"b"), (name.encode(), b"c")]
    assert refused(CALL, headers).reason is RefusalReason.DUPLICATE_HEADER


def test_a_client_may_not_bear_the_names_of_the_transports_own_actions() -> None:
    assert refused(body("transport/listen"), plain()).reason is RefusalReason.MALFORMED


# --- without headers


def test_a_message_without_headers_says_its_revision_itself() -> None:
    stateless = read_json_message(body_of(), revisions=BOTH)
    assert isinstance(stateless, Message)
    assert (stateless.era, stateless.name) == ("stateless", "refund_customer")
    stateful = read_json_message(CALL, revisions=BOTH, negotiated=STATEFUL)
    assert isinstance(stateful, Message)
    assert (stateful.era, stateful.protocol_version) == ("stateful", STATEFUL)


@pytest.mark.parametrize(
    ("data", "members", "reason"),
    [
        (CALL, {}, RefusalReason.UNSUPPORTED_PROTOCOL),
        (CALL, {"negotiated": VERSION}, RefusalReason.MALFORMED),  # the stateless era says it in each request
        (body_of(), {"negotiated": STATEFUL}, RefusalReason.HEADER_MISMATCH),
        (b"[" + CALL + b"]", {"negotiated": STATEFUL}, RefusalReason.BATCH),
        (b'{"a":1,"a":2}', {}, RefusalReason.DUPLICATE_KEY),
        (CALL, {"limits": MessageLimits(body_bytes=10)}, RefusalReason.OVERSIZE),
        (b"\xff", {}, RefusalReason.MALFORMED),
    ],
)
def test_a_message_without_headers_is_read_as_strictly(
    data: bytes, members: dict[str, Any], reason: RefusalReason
) -> None:
    refusal = read_json_message(data, **{"revisions": BOTH, **members})
    assert isinstance(refusal, Refusal)
    assert refusal.reason is reason


# --- of servers


def of_server(data: bytes) -> Message | Refusal:
    return read_json_message(data, direction="server", revisions=BOTH, negotiated=STATEFUL)


def test_a_servers_request_is_judged_by_its_parameters_as_a_whole() -> None:
    data = b'{"jsonrpc":"2.0","id":0,"method":"sampling/createMessage","params": {"maxTokens": 100,"messages":[]} }'
    message = of_server(data)
    assert isinstance(message, Message)
    assert (message.direction, message.method, message.name) == ("server", "sampling/createMessage", None)
    assert message.arguments == '{"maxTokens": 100,"messages":[]}'


def test_a_servers_request_without_parameters_has_no_arguments() -> None:
    message = of_server(body("roots/list", 0))
    assert isinstance(message, Message)
    assert message.arguments is None


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read", "transport/listen"])
def test_a_server_may_not_send_what_policies_know_as_a_clients_call(method: str) -> None:
    refusal = of_server(body(method, 0, params={"name": "refund_customer", "uri": "x"}))
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.direction) == (RefusalReason.MALFORMED, "server")
