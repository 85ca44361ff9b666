"""Whatever arrives, a message is read or refused; and what is read is what an independent reader sees."""

from __future__ import annotations

import base64
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.answers import parse_answer, parse_stream_message, tool_digests
from enforcement.json_slices import exceeds_nodes, object_members
from enforcement.mcp import Message, Refusal, parse_message
from enforcement.sse import EventStream
from ledger.errors import MalformedError
from tests.support.mcp_messages import META, VERSION, body_of, headers_of

HEADER_NAMES = st.sampled_from(
    [b"mcp-method", b"Mcp-Name", b"mcp_name", b"MCP-Protocol-Version", b"content-type", b"traceparent", b"mcp-param-x"]
)
HEADERS = st.lists(st.tuples(st.one_of(HEADER_NAMES, st.binary(max_size=12)), st.binary(max_size=40)), max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=5)
LAYOUT = st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n")])


def encoded_header(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


@given(body=st.binary(max_size=200), headers=HEADERS)
def test_arbitrary_bytes_never_raise(body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    assert isinstance(parse_message(body, headers), Message | Refusal)


@given(data=st.data())
def test_a_message_with_some_bytes_changed_never_raises(data: st.DataObject) -> None:
    body = bytearray(body_of(arguments={"amount": 1, "note": "x"}))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(parse_message(bytes(body), headers_of()), Message | Refusal)


@given(value=VALUES, headers=HEADERS)
def test_arbitrary_json_never_raises(value: object, headers: list[tuple[bytes, bytes]]) -> None:
    lines = [*headers, (b"content-type", b"application/json")]
    assert isinstance(parse_message(json.dumps(value).encode(), lines), Message | Refusal)


@given(name=TEXT.filter(bool), arguments=OBJECTS, layout=LAYOUT, escape=st.booleans(), request_id=st.integers(0, 9))
def test_what_is_read_is_what_an_independent_reader_sees(name, arguments, layout, escape, request_id) -> None:
    """The same body through `json.loads`: method, name, id and arguments agree, and the arguments are a slice."""
    params = {"name": name, "arguments": arguments, "_meta": META}
    envelope = {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}
    body = json.dumps(envelope, separators=layout, ensure_ascii=escape).encode()
    message = parse_message(body, headers_of(name=encoded_header(name)))
    assert isinstance(message, Message), message
    seen = json.loads(body)
    assert (message.method, message.request_id) == (seen["method"], seen["id"])
    assert message.name == seen["params"]["name"]
    assert message.protocol_version == VERSION
    assert message.arguments is not None
    assert message.arguments.encode() in body
    assert json.loads(message.arguments) == seen["params"]["arguments"]


@given(members=OBJECTS, layout=LAYOUT, escape=st.booleans())
def test_slices_of_an_object_are_the_text_of_its_members(members, layout, escape) -> None:
    text = json.dumps(members, separators=layout, ensure_ascii=escape)
    slices = object_members(f"\n {text}\t")
    assert {name: json.loads(value) for name, value in slices.items()} == members
    assert all(value in text and value == value.strip() for value in slices.values())


@given(text=st.text(alphabet='{}[]",:\\ ae1-.\n', max_size=12))
def test_slices_are_found_exactly_where_a_reader_finds_an_object(text: str) -> None:
    try:
        expected = json.loads(text, object_pairs_hook=list)
        sound = text.lstrip(" \n")[:1] == "{" and len(dict(expected)) == len(expected)
    except ValueError:
        sound = False
    if sound:
        assert list(object_members(text)) == [name for name, _ in expected]
    else:
        with pytest.raises(MalformedError):
            object_members(text)


@given(
    pairs=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(["1", "10", '"x"', '{"b":2}', '[1,{"a":1,"b":2}]']))
    ),
    last=st.sampled_from(["}", ',"b":2}', " }"]),
)
def test_a_name_that_stands_twice_is_refused_whatever_its_values_look_like(pairs, last) -> None:
    """The second value may hold text that looks like the rest of the object after the first."""
    text = "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + last
    try:
        names = [name for name, _ in json.loads(text, object_pairs_hook=list)]
    except ValueError:
        names = ["", ""]
    if len(set(names)) == len(names):
        assert list(object_members(text)) == names
    else:
        with pytest.raises(MalformedError):
            object_members(text)


@given(members=OBJECTS, layout=LAYOUT, escape=st.booleans(), limit=st.integers(1, 30))
def test_a_body_has_as_many_values_as_an_independent_reader_counts(members, layout, escape, limit) -> None:
    text = json.dumps(members, separators=layout, ensure_ascii=escape).encode()
    assert exceeds_nodes(text, limit) is (nodes(members) > limit)


@given(
    count=st.integers(1, 40),
    limit=st.integers(1, 40),
    value=st.sampled_from(["0", "[]", "{}", '""', '",[{"', '"\\\\"']),
)
def test_a_list_with_more_values_than_allowed_is_seen_as_such(count: int, limit: int, value: str) -> None:
    text = "[" + ",".join([value] * count) + "]"
    assert exceeds_nodes(text.encode(), limit) is (1 + count * (1 + (value in ("[]", "{}"))) > limit)


def nodes(value: object) -> int:
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + (value in ({}, [])) + sum(map(nodes, children))


@given(data=st.binary(max_size=120))
def test_only_malformed_leaves_the_readers_of_answers(data: bytes) -> None:
    for read in (parse_answer, parse_stream_message):
        with pytest.raises(MalformedError):
            read(data, 7)
    tool_digests(data)


@given(lines=st.lists(st.binary(max_size=20), max_size=12), cuts=st.lists(st.integers(0, 200), max_size=5))
def test_a_stream_gives_the_same_events_however_it_is_cut(lines: list[bytes], cuts: list[int]) -> None:
    data = b"\r\n".join([b"data: " + line for line in lines] + [b"", b""])
    whole = [(event.kind, event.data) for event in EventStream(max_event_bytes=4096).feed(data)]
    stream, edges = EventStream(max_event_bytes=4096), [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges)]
    assert [(event.kind, event.data) for piece in pieces for event in stream.feed(piece)] == whole
