"""Reading a server's answer: what is recorded of it is a slice of what the client gets."""

from __future__ import annotations

import json
from time import process_time

import pytest

from enforcement.answers import MAX_TOOLS, Answer, parse_answer, parse_stream_message, tool_digests
from ledger.canonical import canonical_bytes, sha256
from ledger.errors import MalformedError


def test_the_result_is_the_exact_slice() -> None:
    data = b'{"jsonrpc":"2.0","id":7,"result": {"content":[ ],"n":1.00}}'
    assert parse_answer(data, 7) == Answer(result=b'{"content":[ ],"n":1.00}', error_code=None, tool_error=False)


def test_a_tool_that_reports_an_error_of_its_own_is_a_result() -> None:
    answer = parse_answer(b'{"jsonrpc":"2.0","id":"a","result":{"isError":true}}', "a")
    assert (answer.tool_error, answer.error_code) == (True, None)


def test_an_error_answer_has_its_code() -> None:
    answer = parse_answer(b'{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"no"}}', 7)
    assert answer == Answer(result=None, error_code=-32602, tool_error=False)


def test_an_error_may_come_without_the_id_that_could_not_be_read() -> None:
    assert parse_answer(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}', 7).error_code == -32700


def test_half_a_surrogate_pair_in_a_result_does_not_break_the_answer() -> None:
    assert parse_answer(b'{"jsonrpc":"2.0","id":7,"result":{"text":"\\ud83d"}}', 7).result == b'{"text":"\\ud83d"}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"7",
        b'{"jsonrpc":"2.0","id":8,"result":{}}',
        b'{"jsonrpc":"2.0","id":"7","result":{}}',
        b'{"jsonrpc":"2.0","id":true,"result":{}}',
        b'{"jsonrpc":"2.0","id":null,"result":{}}',
        b'{"jsonrpc":"2.0","id":8,"error":{"code":1,"message":""}}',
        b'{"jsonrpc":"2.0","id":7,"result":[]}',
        b'{"jsonrpc":"2.0","id":7,"result":{},"error":{"code":1,"message":""}}',
        b'{"jsonrpc":"2.0","id":7}',
        b'{"jsonrpc":"2.0","id":7,"result":{"a":1},"result":{"a":2}}',
        b'{"jsonrpc":"2.0","id":7,"result":{"a":1},"Result":{"a":2}}',
        b'{"jsonrpc":"2.0","id":7,"method":"x","result":{}}',
        b'{"id":7,"result":{}}',
        b'{"jsonrpc":"2.0","id":7,"result":{"a":NaN}}',
        b'{"jsonrpc":"2.0","id":7,"error":{"message":"no code"}}',
        b'{"jsonrpc":"2.0","id":7,"error":{"code":"1","message":""}}',
        b'{"jsonrpc":"2.0","id":7,"error":{"code":true,"message":""}}',
        b'{"jsonrpc":"2.0","id":7,"result":' + b"[" * 100_000,
    ],
)
def test_what_does_not_answer_the_request_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_answer(data, 7)


def test_a_stream_carries_notifications_before_its_answer() -> None:
    assert parse_stream_message(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}', 7) is None
    answer = parse_stream_message(b'{"jsonrpc":"2.0","id":7,"result":{}}', 7)
    assert answer is not None
    assert answer.result == b"{}"


@pytest.mark.parametrize(
    "data",
    [
        b'{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}',
        b'{"jsonrpc":"2.0","method":17}',
        b'{"jsonrpc":"2.0","id":8,"result":{}}',
        b'{"jsonrpc":"2.0","method":"notifications/message","result":{}}',
    ],
)
def test_a_request_of_the_server_or_a_strangers_answer_on_the_stream_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_stream_message(data, 7)


def test_equal_tool_definitions_have_equal_digests_in_any_spelling() -> None:
    tool = {"name": "a", "inputSchema": {"type": "object", "maximum": 1.5}}
    first = tool_digests(json.dumps({"tools": [tool]}).encode())
    second = tool_digests(b'{"tools":[{"inputSchema":{"maximum":15e-1,"type":"object"},"name":"a"}]}')
    assert first == second == {"a": sha256(canonical_bytes(tool)).hex()}


def test_a_changed_definition_has_another_digest() -> None:
    before = tool_digests(b'{"tools":[{"name":"a","description":"reads"}]}')
    after = tool_digests(b'{"tools":[{"name":"a","description":"reads all"}]}')
    assert before["a"] != after["a"]


def test_a_name_with_two_definitions_has_no_digest() -> None:
    assert tool_digests(b'{"tools":[{"name":"a","x":1},{"name":"a","x":2},{"name":"b"}]}').keys() == {"b"}


@pytest.mark.parametrize(
    "result",
    [b"", b"[]", b'{"tools":{}}', b'{"tools":[1,{"name":2},{}]}', b'{"tools":[{"name":"a","n":12345678901234567890}]}'],
)
def test_what_has_no_canonical_definition_has_no_digest(result: bytes) -> None:
    assert tool_digests(result) == {}


@pytest.mark.parametrize(
    "result", ['{"x":["\\ud800"]}', '{"\\udc00":1,"x":"\\\\ud800"}', '{"a":"\\ud83d\\ude00","b":"\\ud83d"}']
)
def test_half_of_a_surrogate_pair_does_not_break_an_answer(result: str) -> None:
    answer = parse_answer(f'{{"jsonrpc":"2.0","id":7,"result":{result}}}'.encode(), 7)
    assert answer.result == result.encode()


def test_a_long_answer_is_read_without_building_its_values() -> None:
    """Four megabytes of empty lists took more than a second of everybody's time."""
    result = '{"x":[' + "[]," * 1_300_000 + "[]]}"
    started = process_time()
    answer = parse_answer(f'{{"jsonrpc":"2.0","id":7,"result":{result}}}'.encode(), 7)
    assert answer.result == result.encode()
    assert process_time() - started < 0.5


def test_nothing_is_learned_from_a_list_of_countless_tools() -> None:
    def listed(count: int, schema: str = "{}") -> bytes:
        return (
            '{"tools":[' + ",".join(f'{{"name":"t{n}","inputSchema":{schema}}}' for n in range(count)) + "]}"
        ).encode()

    assert len(tool_digests(listed(MAX_TOOLS))) == MAX_TOOLS
    assert tool_digests(listed(MAX_TOOLS + 1)) == {}
    assert tool_digests(listed(10, "[" + "0," * 6000 + "0]")) == {}
