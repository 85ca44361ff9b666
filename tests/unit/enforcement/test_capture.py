"""What of a call goes into the vault: all of it, its shape, or nothing; never more than was configured."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enforcement import capture
from enforcement.capture import Capturing, captured, captured_request, capturing_of, strictest
from enforcement.config import ServerSettings
from enforcement.facts import Pseudonyms
from enforcement.mcp import Message
from policies.model import decode_request
from tests.support.policies import make_request
from tests.unit.enforcement.test_strictness import message

NAMES = Pseudonyms(b"k" * 32)
CALL = (
    b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pay","arguments":'
    b'{"amount":12345678901234567890.50,"iban":"DE02","to":{"name":"Alice","ok":true,"n":null},"list":[1,"x"]}}}'
)


def server(mode: str = "full", tools: Any = (), **members: Any) -> ServerSettings:
    settings = {"name": "finance", "url": "http://127.0.0.1:1/mcp", "capture": mode, "tools": tools, **members}
    return ServerSettings.model_validate(settings)


def mode_of(listed: ServerSettings | None, read: Message | None) -> str:
    return capturing_of(listed, read, strictest_known="redacted").mode


def taken(mode: Any, content: bytes = CALL, *kept: tuple[str, ...], named: bool = True) -> capture.Captured:
    return captured(Capturing(mode=mode, kept=kept, named=named), content, NAMES.content)


def test_full_is_the_bytes_as_received_and_what_holds_by_default() -> None:
    assert server().capture == "full"
    assert taken("full") == capture.Captured(payload=CALL)
    assert taken("full", b"no JSON") == capture.Captured(payload=b"no JSON")


def test_a_digest_says_length_and_keyed_fingerprint_and_nothing_else() -> None:
    found = taken("digest")
    assert (found.capture, found.reason) == ("digest", None)
    assert json.loads(found.payload) == {
        "capture": "digest",
        "fingerprint": NAMES.content(CALL),
        "size_bytes": len(CALL),
    }


def test_the_redacted_form_has_the_shape_and_no_value() -> None:
    found = taken("redacted")
    value = json.loads(found.payload)
    assert (found.capture, found.reason, value["capture"]) == ("redacted", None, "redacted")
    assert (value["fingerprint"], value["size_bytes"]) == (NAMES.content(CALL), len(CALL))
    assert value["redacted"] == {
        "jsonrpc": "2.0",
        "id": "[number]",
        "method": "tools/call",
        "params": {
            "name": "pay",
            "arguments": {
                "amount": "[number]",
                "iban": "[string]",
                "to": {"name": "[string]", "ok": "[boolean]", "n": None},
                "list": ["[number]", "[string]"],
            },
        },
    }


def test_an_argument_that_is_to_be_kept_stays_with_its_exact_number() -> None:
    found = taken("redacted", CALL, ("amount",), ("list", "1"), ("to", "ok", "deeper"), ("missing",))
    assert b'"amount":12345678901234567890.50' in found.payload
    arguments = json.loads(found.payload)["redacted"]["params"]["arguments"]
    assert arguments["list"] == ["[number]", "x"]
    assert arguments["to"] == {"name": "[string]", "ok": "[boolean]", "n": None}


def test_a_kept_argument_is_kept_where_it_stands_and_nowhere_else() -> None:
    content = b'{"params":{"amount":5,"arguments":{"inner":{"amount":6}}},"amount":7,"result":{"amount":8}}'
    found = taken("redacted", content, ("amount",))
    assert not any(digit in json.dumps(json.loads(found.payload)["redacted"]) for digit in "5678")


def test_of_an_answer_the_words_of_the_protocol_stay() -> None:
    answer = (
        b'{"jsonrpc":"2.0","id":"a","result":{"isError":false,"content":[{"type":"text","text":"secret"},'
        b'{"type":"image","data":"c2VjcmV0","mimeType":"image/png"}],"structuredContent":{"type":"secret"}}}'
    )
    assert json.loads(taken("redacted", answer, named=False).payload)["redacted"]["result"] == {
        "isError": False,
        "content": [
            {"type": "text", "text": "[string]"},
            {"type": "image", "data": "[string]", "mimeType": "[string]"},
        ],
        "structuredContent": {"type": "[string]"},
    }
    error = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"no Alice","data":{"code":7}}}'
    assert json.loads(taken("redacted", error).payload)["redacted"]["error"] == {
        "code": -32000,
        "message": "[string]",
        "data": {"code": "[number]"},
    }


@pytest.mark.parametrize("told", ['"of Alice Miller"', '{"name":"Alice"}', '["Alice"]', "1e999", '"' + "a" * 200 + '"'])
def test_what_a_server_writes_in_place_of_a_word_does_not_stay(told: str) -> None:
    answer = f'{{"result":{{"isError":{told},"content":[{{"type":{told}}}]}},"error":{{"code":{told}}}}}'
    found = taken("redacted", answer.encode())
    assert found.capture == ("digest" if "e999" in told else "redacted")
    assert b"Alice" not in found.payload
    assert b"aaa" not in found.payload


def test_a_name_that_may_name_a_person_does_not_stay() -> None:
    read = b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"name":"alice","uri":"file:///alice"}}'
    params = json.loads(taken("redacted", read, named=False).payload)["redacted"]["params"]
    assert params == {"name": "[string]", "uri": "[string]"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"no JSON",
        b'{"a":1,"a":2}',
        b'{"a":"\\ud800"}',
        b"[" * 70 + b"]" * 70,
        b"\xff",
        b"[" + b"0," * 60_000,
    ],
)
def test_what_cannot_be_read_in_one_way_becomes_a_digest_that_says_so(content: bytes) -> None:
    found = taken("redacted", content)
    assert (found.capture, found.reason) == ("digest", "unreadable")
    assert json.loads(found.payload)["size_bytes"] == len(content)


def test_a_message_that_was_refused_is_not_redacted() -> None:
    found = captured(Capturing(mode="redacted"), CALL, NAMES.content, readable=False)
    assert (found.capture, found.reason) == ("digest", "unreadable")


@pytest.mark.parametrize("mode", ["full", "redacted"])
def test_what_is_too_long_becomes_a_digest_that_says_so(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MAX_CAPTURED_BYTES", len(CALL) - 1)
    found = taken(mode)
    assert (found.capture, found.reason) == ("digest", "oversize")
    assert taken("digest").reason is None
    monkeypatch.setattr(capture, "MAX_CAPTURED_BYTES", len(CALL))
    assert taken(mode).reason is None


# --- which of them holds ---------------------------------------------------------------------------------------------

TOOLS = [{"name": "pay", "capture": "digest"}, {"name": "look", "capture": "full"}, {"name": "plain"}]


@pytest.mark.parametrize(
    ("method", "name", "mode"),
    [
        ("tools/call", "pay", "digest"),
        ("tools/call", "look", "full"),
        ("tools/call", "plain", "redacted"),
        ("tools/call", "unlisted", "redacted"),
        ("prompts/get", "pay", "digest"),
        ("resources/read", "file:///a", "redacted"),
        ("tools/list", None, "digest"),
        ("tasks/result", None, "digest"),
        ("sampling/createMessage", None, "digest"),
        ("", None, "digest"),
    ],
)
def test_a_tool_goes_before_its_server_and_what_names_none_goes_with_the_strictest(
    method: str, name: str | None, mode: str
) -> None:
    assert mode_of(server("redacted", TOOLS), message(method, name)) == mode


def test_what_cannot_be_read_goes_with_the_strictest_of_its_server_or_of_all() -> None:
    assert mode_of(server("full", TOOLS), None) == "digest"
    assert mode_of(server("full"), None) == "full"
    assert mode_of(None, None) == mode_of(None, message("tools/call", "look")) == "redacted"
    assert strictest(()) == strictest(("full", "full")) == "full"
    assert strictest(("full", "digest", "redacted")) == "digest"


def test_arguments_are_kept_for_a_call_of_the_tool_alone() -> None:
    listed = server(
        "redacted", [{"name": "pay", "arguments": [{"pointer": "/amount", "keep": True}, {"pointer": "/b"}]}]
    )
    assert capturing_of(listed, message("tools/call", "pay"), strictest_known="full").kept == (("amount",),)
    assert capturing_of(listed, message("prompts/get", "pay"), strictest_known="full").kept == ()


@pytest.mark.parametrize("mode", ["none", "Full", "", None])
def test_another_word_is_refused(mode: object) -> None:
    with pytest.raises(ValueError, match="capture"):
        server(mode)  # type: ignore[arg-type]


# --- what the policy was asked ---------------------------------------------------------------------------------------


def test_the_masked_request_has_every_fact_but_the_arguments() -> None:
    asked = make_request(arguments='{"amount":12.50,"iban":"DE02"}')
    capturing = Capturing(mode="redacted", kept=(("amount",),), named=True)
    masked = decode_request(captured_request(capturing, asked, "redacted"))
    assert masked.arguments == '{"amount":12.50,"iban":"[string]"}'
    assert (masked.principal, masked.time, masked.resource) == (asked.principal, asked.time, asked.resource)
    assert decode_request(captured_request(capturing, asked, "digest")).arguments == "{}"


def test_the_masked_request_names_no_resource_that_may_name_a_person() -> None:
    masked = decode_request(captured_request(Capturing(mode="digest"), make_request(), "digest"))
    assert masked.resource.name == "[string]"
