"""Reading posted messages: what two readers could read in two ways is refused."""

from __future__ import annotations

import base64
import json

import pytest

from enforcement.mcp import Kind, Message, MessageLimits, Refusal, parse_message, refuse_lookalikes
from enforcement.refusals import ErrorCode, RefusalReason
from enforcement.trace_context import TraceContext
from ledger.errors import MalformedError
from tests.support.mcp_messages import META, VERSION, body_of, headers_of


def refused(body: bytes, headers: list[tuple[bytes, bytes]] | None = None, **limits: int) -> Refusal:
    result = parse_message(body, headers_of() if headers is None else headers, limits=MessageLimits(**limits))
    assert isinstance(result, Refusal), result
    return result


def read(body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> Message:
    result = parse_message(body, headers_of() if headers is None else headers)
    assert isinstance(result, Message), result
    return result


def call(params: str) -> bytes:
    """A tools/call whose params are given as text, to hold what no encoder would write."""
    return b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"_meta":%s,%s}}' % (
        json.dumps(META).encode(),
        params.encode(),
    )


def test_a_call_is_read_with_everything_that_a_decision_needs() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = headers_of(extra=(("traceparent", f"00-{trace}-b7ad6b7169203331-01"),))
    message = read(body_of(arguments={"amount": 12}), headers)
    assert message == Message(
        kind=Kind.REQUEST,
        request_id=7,
        method="tools/call",
        name="refund_customer",
        arguments='{"amount": 12}',
        protocol_version=VERSION,
        trace=TraceContext(trace_id=trace, traceparent=f"00-{trace}-b7ad6b7169203331-01"),
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"price":1.00}',
        '{"price" : 1e0 ,\n"x":[1.0,"\\u00e4"]}',
        "{ }",
        '{"a":{"arguments":{"b":1}}}',
        '{"big":123456789012345678901234567890}',
    ],
)
def test_arguments_are_the_exact_slice_of_the_body(text: str) -> None:
    message = read(call(f'"name":"refund_customer","arguments" :  {text} '))
    assert message.arguments == text


def test_an_escaped_member_name_is_the_same_member() -> None:
    message = read(call('"name":"refund_customer","\\u0061rguments":{"amount":1.50}'))
    assert message.arguments == '{"amount":1.50}'


def test_a_call_without_arguments_has_none() -> None:
    assert read(body_of()).arguments is None


@pytest.mark.parametrize(
    ("method", "name"),
    [("tools/list", None), ("server/discover", None), ("prompts/get", "greeting"), ("resources/read", "file:///a b")],
)
def test_each_method_names_what_it_names(method: str, name: str | None) -> None:
    message = read(body_of(method, name), headers_of(method, name))
    assert (message.method, message.name) == (method, name)


def test_a_name_beyond_ascii_travels_in_the_sentinel() -> None:
    name = "Überweisung"
    encoded = f"=?base64?{base64.b64encode(name.encode()).decode()}?="
    assert read(body_of(name=name), headers_of(name=encoded)).name == name


@pytest.mark.parametrize(
    "header",
    [
        "=?base64?w5xi?=",  # another name
        "=?base64?w5xiZXJ3ZWlzdW5n?= ",  # padded inside OWS is the same header; see below
        "=?base64?not base64?=",
        "=?base64?w5xiZXJ3ZWlzdW5nZ?=",  # no multiple of four
        "=?BASE64?w5xiZXJ3ZWlzdW5n?=",  # the markers are case-sensitive
        "=?base64?/w==?=",  # not UTF-8
    ],
)
def test_a_corrupt_or_other_sentinel_is_a_mismatch(header: str) -> None:
    expected = "Überweisung"
    result = parse_message(body_of(name=expected), headers_of(name=header))
    if header.endswith(" "):
        assert isinstance(result, Message)  # optional white space around a header value is no part of it
    else:
        assert isinstance(result, Refusal)
        assert result.reason is RefusalReason.HEADER_MISMATCH


def test_a_sentinel_with_altered_trailing_bits_is_a_mismatch() -> None:
    assert base64.b64decode("cmVmdW5kX2N1c3RvbWVyMR==") == base64.b64decode("cmVmdW5kX2N1c3RvbWVyMQ==")
    result = refused(body_of(name="refund_customer1"), headers_of(name="=?base64?cmVmdW5kX2N1c3RvbWVyMR==?="))
    assert result.reason is RefusalReason.HEADER_MISMATCH


def test_a_notification_needs_no_method_header() -> None:
    body = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'
    message = read(body, headers_of(method=None, name=None))
    assert (message.kind, message.request_id) == (Kind.NOTIFICATION, None)


def test_a_notification_with_a_wrong_method_header_is_refused() -> None:
    body = b'{"jsonrpc":"2.0","method":"notifications/progress"}'
    assert refused(body, headers_of(method="tools/list", name=None)).reason is RefusalReason.HEADER_MISMATCH


def test_a_tool_call_disguised_as_a_notification_still_names_its_tool() -> None:
    body = b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"refund_customer"}}'
    assert read(body, headers_of(method=None, name=None)).name == "refund_customer"
    assert refused(body, headers_of(method=None, name="harmless")).reason is RefusalReason.HEADER_MISMATCH


@pytest.mark.parametrize(
    ("headers", "missing"),
    [
        (headers_of(version=None), "MCP-Protocol-Version"),
        (headers_of(method=None), "Mcp-Method"),
        (headers_of(name=None), "Mcp-Name"),
        (headers_of(version="2027-01-01"), "MCP-Protocol-Version"),
        (headers_of(method="tools/list"), "Mcp-Method"),
        (headers_of(method="TOOLS/CALL"), "Mcp-Method"),
        (headers_of(name="harmless"), "Mcp-Name"),
    ],
)
def test_a_header_that_is_missing_or_differs_from_the_body_is_refused(headers, missing: str) -> None:
    result = refused(body_of(), headers)
    assert (result.reason, result.code, result.status) == (
        RefusalReason.HEADER_MISMATCH,
        ErrorCode.HEADER_MISMATCH,
        400,
    )
    assert missing in result.text


def test_a_name_header_on_a_method_without_name_is_refused() -> None:
    result = refused(body_of("tools/list", None), headers_of("tools/list", "refund_customer"))
    assert result.reason is RefusalReason.HEADER_MISMATCH


@pytest.mark.parametrize(
    "line",
    [
        ("mcp-name", "refund_customer"),
        ("Mcp-Name", "harmless"),
        ("mcp_name", "harmless"),
        ("mcp-method", "tools/call"),
        ("mcp-protocol-version", VERSION),
        ("authorization", "Bearer a"),
        ("content-type", "text/plain"),
    ],
)
def test_a_routing_header_that_occurs_twice_is_refused(line: tuple[str, str]) -> None:
    assert refused(body_of(), headers_of(token="t", extra=(line,))).reason is RefusalReason.DUPLICATE_HEADER


def test_a_parameter_header_that_occurs_twice_is_refused() -> None:
    extra = (("mcp-param-region", "a"), ("Mcp-Param-Region", "b"))
    assert refused(body_of(), headers_of(extra=extra)).reason is RefusalReason.DUPLICATE_HEADER


@pytest.mark.parametrize(
    "body",
    [
        body_of().replace(b'"method"', b'"method":"tools/list","method"'),
        call('"name":"refund_customer","name":"harmless"'),
        call('"name":"refund_customer","arguments":{"price":999,"price":1}'),
        call('"name":"refund_customer","arguments":{"a":[{"b":1,"\\u0062":2}]}'),
    ],
)
def test_a_duplicate_key_at_any_depth_is_refused(body: bytes) -> None:
    assert refused(body).reason is RefusalReason.DUPLICATE_KEY


@pytest.mark.parametrize(
    "body",
    [
        body_of().replace(b'"jsonrpc"', b'"Method":"tools/list","jsonrpc"'),
        body_of().replace(b'"jsonrpc"', b'"PARAMS":{},"jsonrpc"'),
        call('"name":"refund_customer","Name":"transfer_funds"'),
        call('"name":"refund_customer","Arguments":{"amount":1000000}'),
        call('"name":"refund_customer","argument\u017f":{"amount":1000000}'),  # long s folds to s
        call('"name":"refund_customer","extra":1,"EXTRA":2'),
        call('"name":"refund_customer","_META":{}'),
        body_of().replace(b"/protocolVersion", b"/PROTOCOLVERSION"),
    ],
)
def test_names_that_a_reader_without_regard_to_case_would_confuse_are_refused(body: bytes) -> None:
    assert refused(body).reason is RefusalReason.AMBIGUOUS_KEY


def test_lookalikes_inside_the_arguments_are_the_tools_own_affair() -> None:
    refuse_lookalikes({"a": 1, "b": 2}, {"a"})
    assert read(call('"name":"refund_customer","arguments":{"x":1,"X":2}')).arguments == '{"x":1,"X":2}'


def test_two_spellings_of_one_name_are_malformed() -> None:
    with pytest.raises(MalformedError):
        refuse_lookalikes({"a": 1, "A": 2}, ())


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", RefusalReason.MALFORMED),
        (b"\xff", RefusalReason.MALFORMED),
        (b"null", RefusalReason.MALFORMED),
        (b'"tools/call"', RefusalReason.MALFORMED),
        (b"[]", RefusalReason.BATCH),
        (b"[" + body_of() + b"]", RefusalReason.BATCH),
        (b'{"jsonrpc":"2.0","id":7,"result":{}}', RefusalReason.NOT_A_REQUEST),
        (b'{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":""}}', RefusalReason.NOT_A_REQUEST),
        (body_of().replace(b'"id": 7', b'"id": 7, "result": {}'), RefusalReason.MALFORMED),
        (body_of().replace(b'"2.0"', b'"1.0"'), RefusalReason.MALFORMED),
        (body_of().replace(b'"2.0"', b"2.0"), RefusalReason.MALFORMED),
        (body_of().replace(b'"tools/call"', b"17"), RefusalReason.MALFORMED),
        (body_of().replace(b'"tools/call"', b'""'), RefusalReason.MALFORMED),
        (body_of().replace(b'"tools/call"', b'["tools/call"]'), RefusalReason.MALFORMED),
        (body_of(request_id=None), RefusalReason.MALFORMED),
        (body_of(request_id=1.5), RefusalReason.MALFORMED),
        (body_of(request_id=True), RefusalReason.MALFORMED),
        (body_of(request_id=2**53), RefusalReason.MALFORMED),
        (body_of(request_id="x" * 257), RefusalReason.MALFORMED),
        (call('"name":17'), RefusalReason.MALFORMED),
        (call('"name":""'), RefusalReason.MALFORMED),
        (call('"title":"no name"'), RefusalReason.MALFORMED),
        (call('"name":"refund_customer","arguments":[]'), RefusalReason.MALFORMED),
        (call('"name":"refund_customer","arguments":"{}"'), RefusalReason.MALFORMED),
        (call('"name":"refund_customer","arguments":{"a":NaN}'), RefusalReason.MALFORMED),
        (call('"name":"refund_customer","arguments":{"a":1e999}'), RefusalReason.MALFORMED),
        (call('"name":"refund_customer","arguments":{"a":"\\ud800"}'), RefusalReason.MALFORMED),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":[]}', RefusalReason.MALFORMED),
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"_meta":[]}}', RefusalReason.MALFORMED),
        (
            b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"refund_customer"}}',
            RefusalReason.MALFORMED,
        ),
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes, reason: RefusalReason) -> None:
    assert refused(body).reason is reason


def test_a_name_longer_than_allowed_is_refused() -> None:
    assert refused(body_of(name="x" * 11), headers_of(name="x" * 11), name_chars=10).reason is RefusalReason.MALFORMED


def test_nesting_beyond_the_limit_is_refused() -> None:
    deep = "[" * 70 + "]" * 70
    assert refused(call(f'"name":"refund_customer","arguments":{{"a":{deep}}}')).reason is RefusalReason.MALFORMED
    assert refused(b"[" * 40_000).reason is RefusalReason.MALFORMED


@pytest.mark.parametrize("value", ["[],", "0,", '"",', '{"":0},', '"\\\\",'])
def test_a_body_of_countless_values_is_refused_before_it_is_read(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a megabyte of empty lists took a second of everybody's time."""
    monkeypatch.setattr("enforcement.mcp.parse_json", None)
    arguments = f'{{"a":[{value * 60_000}0]}}'
    refusal = refused(call(f'"name":"refund_customer","arguments":{arguments}'))
    assert (refusal.reason, refusal.status) == (RefusalReason.OVERSIZE, 413)


def test_a_long_text_full_of_commas_is_one_value() -> None:
    text = json.dumps('a,[b],{"c"},' * 60_000)
    message = parse_message(call(f'"name":"refund_customer","arguments":{{"a":{text}}}'), headers_of())
    assert isinstance(message, Message)


def test_a_body_of_one_byte_too_many_is_refused_before_it_is_read() -> None:
    body = body_of()
    result = refused(body, body_bytes=len(body) - 1)
    assert (result.reason, result.status, result.method) == (RefusalReason.OVERSIZE, 413, None)
    assert isinstance(parse_message(body, headers_of(), limits=MessageLimits(body_bytes=len(body))), Message)


@pytest.mark.parametrize("limits", [{"header_count": 4}, {"header_bytes": 50}])
def test_headers_beyond_their_limit_are_refused(limits: dict[str, int]) -> None:
    result = refused(body_of(), None, **limits)
    assert (result.reason, result.status) == (RefusalReason.OVERSIZE, 431)


def test_a_header_with_a_control_character_is_refused() -> None:
    headers = [*headers_of(name=None), (b"mcp-name", b"refund_customer\x00")]
    assert refused(body_of(), headers).reason is RefusalReason.HEADER_MISMATCH


@pytest.mark.parametrize(
    "line",
    [
        ("content-type", "text/plain"),
        ("content-type", "application/json; charset=utf-16"),
        ("content-encoding", "gzip"),
    ],
)
def test_a_body_that_is_not_plain_json_is_refused(line: tuple[str, str]) -> None:
    name, value = line
    headers = [pair for pair in headers_of() if pair[0] != name.encode()] + [(name.encode(), value.encode())]
    assert refused(body_of(), headers).reason is RefusalReason.UNSUPPORTED_MEDIA_TYPE


def test_an_older_revision_is_told_what_is_spoken() -> None:
    body = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}'
    result = refused(body, headers_of(None, None, None))
    assert (result.reason, result.code) == (RefusalReason.UNSUPPORTED_PROTOCOL, ErrorCode.UNSUPPORTED_PROTOCOL)
    assert result.data == {"supported": ["2025-11-25", VERSION], "requested": "2025-06-18"}
    assert (result.request_id, result.method) == (0, "initialize")


def test_a_later_message_of_an_older_revision_is_told_so_too() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}'
    result = refused(body, headers_of(None, None, "2025-06-18"))
    assert (result.reason, result.protocol_version) == (RefusalReason.UNSUPPORTED_PROTOCOL, "2025-06-18")


@pytest.mark.parametrize(
    "value",
    [
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        "nonsense",
        "",
    ],
)
def test_a_traceparent_that_is_not_valid_is_ignored(value: str) -> None:
    assert read(body_of(), headers_of(extra=(("traceparent", value),))).trace is None


def test_two_traceparents_are_none() -> None:
    line = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert read(body_of(), headers_of(extra=(line, line))).trace is None


def test_the_trace_id_may_stand_in_the_body() -> None:
    meta = {**META, "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"_meta": meta}}).encode()
    trace = read(body, headers_of("tools/list", None)).trace
    assert trace is not None
    assert trace.trace_id == "0af7651916cd43dd8448eb211c80319c"


def test_the_trace_that_a_message_names_itself_holds_against_that_of_its_request() -> None:
    meta = {**META, "traceparent": f"00-{'a' * 32}-b7ad6b7169203331-01", "tracestate": "vendor=1"}
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/list", "params": {"_meta": meta}}).encode()
    line = ("traceparent", f"00-{'b' * 32}-b7ad6b7169203331-01")
    trace = read(body, headers_of("tools/list", None, extra=(line,))).trace
    assert trace == TraceContext(trace_id="a" * 32, traceparent=meta["traceparent"], tracestate="vendor=1")


def test_several_lines_of_tracestate_are_one_list() -> None:
    lines = (("traceparent", f"00-{'a' * 32}-b7ad6b7169203331-01"), ("tracestate", "a=1"), ("tracestate", "b=2"))
    trace = read(body_of(), headers_of(extra=lines)).trace
    assert trace is not None
    assert trace.tracestate == "a=1,b=2"


def test_no_refusal_repeats_text_of_the_message() -> None:
    secret = "hunter2"
    bodies = [
        call(f'"name":"{secret}","{secret}":1,"{secret}":2'),
        call(f'"name":"{secret}"'),
        body_of("tools/list", None).replace(b"tools/list", secret.encode()),
        secret.encode(),
    ]
    for body in bodies:
        assert secret not in refused(body).text


@pytest.mark.parametrize("member", ["inputRequests", "requestState", "task", "cursor"])
@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
def test_what_no_policy_gets_to_see_does_not_pass_beside_the_arguments(method: str, member: str) -> None:
    body = json.loads(body_of(method, "refund_customer"))
    assert isinstance(parse_message(json.dumps(body).encode(), headers_of(method)), Message)
    body["params"][member] = {}
    refusal = refused(json.dumps(body).encode(), headers_of(method))
    assert (refusal.reason, refusal.code) == (RefusalReason.MALFORMED, ErrorCode.INVALID_PARAMS)


@pytest.mark.parametrize(("params", "continues"), [({}, False), ({"cursor": "2"}, True)])
def test_a_further_page_of_a_list_is_told_from_the_first(params: dict[str, str], continues: bool) -> None:
    body = json.loads(body_of("tools/list", None))
    body["params"].update(params)
    message = parse_message(json.dumps(body).encode(), headers_of("tools/list", None))
    assert isinstance(message, Message)
    assert message.continues is continues


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("completion/complete", '"ref":{"type":"ref/prompt","name":"letter"},"argument":{"name":"to","value":"1.50"}'),
        ("subscriptions/listen", '"notifications":{"resourceSubscriptions":["file:///private"]}'),
        ("tasks/get", '"taskId":"7"'),
    ],
)
def test_of_what_names_no_tool_policies_see_the_params_as_they_stand(method: str, params: str) -> None:
    body = body_of(method, None).replace(b'"params": {', b'"params": {%s, ' % params.encode())
    message = parse_message(body, headers_of(method, None))
    assert isinstance(message, Message)
    assert message.name is None
    assert message.arguments is not None
    assert message.arguments.startswith("{" + params)
    assert message.arguments.encode() in body


def test_of_a_list_policies_see_no_params() -> None:
    message = parse_message(body_of("tools/list", None), headers_of("tools/list", None))
    assert isinstance(message, Message)
    assert message.arguments is None
