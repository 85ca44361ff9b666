"""The same document has the same digest in whatever answer it stands; what cannot be read in one way has none."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest

from ledger.contents import MAX_CONTENTS, NO_CONTENTS, contents_of, json_digest

DOCUMENT = "§ 1 The parties agree.\n"
DIGEST = hashlib.sha256(DOCUMENT.encode()).digest()
PICTURE = b"\x89PNG\r\n" + bytes(range(40))


def text(value: str = DOCUMENT, **members: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **members}


def digests(result: Any) -> tuple[bytes, ...]:
    found = contents_of(json.dumps(result).encode())
    assert found.left_out == 0
    return found.digests


@pytest.mark.parametrize(
    "result",
    [
        {"content": [text()]},
        {"content": [text("introduction"), text(annotations={"audience": ["user"]})]},
        {"content": [{"type": "resource", "resource": {"uri": "a://b", "mimeType": "text/plain", "text": DOCUMENT}}]},
        {"contents": [{"uri": "file:///contract.txt", "text": DOCUMENT}]},
        {"contents": [{"uri": "a://b", "blob": base64.b64encode(DOCUMENT.encode()).decode()}]},
        {"messages": [{"role": "user", "content": text("hello")}, {"role": "user", "content": text()}]},
        {"messages": [{"role": "user", "content": [text()]}]},
        {"role": "assistant", "model": "m", "content": text()},
        {"content": [{"type": "tool_result", "toolUseId": "1", "content": [text()]}]},
    ],
)
def test_a_document_is_known_again_wherever_it_stands(result: dict[str, Any]) -> None:
    assert DIGEST in digests(result)


def test_pictures_and_sounds_are_known_by_the_bytes_that_they_are() -> None:
    data = base64.b64encode(PICTURE).decode()
    result = {"content": [{"type": "image", "data": data, "mimeType": "image/png"}, {"type": "audio", "data": data}]}
    assert digests(result) == (hashlib.sha256(PICTURE).digest(),)


def test_what_is_no_base64_is_known_by_its_text() -> None:
    assert digests({"contents": [{"uri": "a://b", "blob": "no base64!"}]}) == (hashlib.sha256(b"no base64!").digest(),)


def test_a_structured_value_is_known_in_whatever_order_and_spelling() -> None:
    one = digests({"content": [], "structuredContent": {"b": 1.50, "a": [True, None, 2**60]}})
    other = contents_of(b'{"structuredContent":{ "a":[true,null,1152921504606846976],"b":15e-1}}').digests
    assert one == other == (json_digest(b'{"a":[true,null,1152921504606846976],"b":1.5}'),)


def test_the_value_beside_its_text_is_a_piece_of_its_own() -> None:
    value = {"rows": 3}
    assert len(digests({"content": [text(json.dumps(value, indent=2))], "structuredContent": value})) == 2


def test_a_link_or_an_unknown_block_is_known_as_a_whole() -> None:
    link = {"type": "resource_link", "uri": "file:///a", "name": "a"}
    assert digests({"content": [link]}) == (json_digest(json.dumps(link).encode()),)


def test_a_piece_that_stands_there_twice_counts_once() -> None:
    assert digests({"content": [text(), text(), text("other")]}) == (DIGEST, hashlib.sha256(b"other").digest())


@pytest.mark.parametrize("changed", [DOCUMENT.rstrip(), DOCUMENT + " ", DOCUMENT.upper(), ""])
def test_another_document_has_another_digest(changed: str) -> None:
    assert DIGEST not in digests({"content": [text(changed)]})


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"tools": [{"name": "a", "description": DOCUMENT}]},
        {"content": None},
        {"text": DOCUMENT, "structuredContent": None},
        {"messages": ["text", {"role": "user"}]},
        {"_meta": {"content": [text()]}, "messages": []},
        [text()],
        DOCUMENT + "content",
    ],
)
def test_where_no_content_stands_there_is_none(result: Any) -> None:
    assert contents_of(json.dumps(result).encode()) == NO_CONTENTS


def test_beyond_the_bound_it_is_said_how_many_are_left_out() -> None:
    blocks = [text(str(number)) for number in range(MAX_CONTENTS + 7)]
    found = contents_of(json.dumps({"content": [*blocks, blocks[0]]}).encode())
    assert len(found.digests) == MAX_CONTENTS
    assert found.digests[0] == hashlib.sha256(b"0").digest()
    assert found.left_out == 7


@pytest.mark.parametrize(
    "result",
    [
        b'{"content":[{"type":"text","text":"half \\ud800"}]}',
        b'{"structuredContent":{"half":"\\ud800"}}',
        b'{"structuredContent":{"large":1e999}}',
        b'{"structuredContent":{"large":' + b"9" * 400 + b"}}",
        b'{"content":' + b"[" * 100_000,
        b'{"content":[' + b"0," * 60_000 + b"0]}",
        b'{"content":[' + b'"",' * 210_000 + b"0]}",
        b'{"content":[],"structuredContent":' + b"[" * 600 + b"]" * 600 + b"}",  # read by json.loads, and no deeper
        b"content, and no JSON",
        b'{"content":[\xff]}',
    ],
)
def test_what_cannot_be_read_in_one_way_is_left_out_and_counted(result: bytes) -> None:
    found = contents_of(result)
    assert (found.digests, found.left_out) == ((), 1)


def test_a_long_document_counts_as_one_piece_whatever_stands_in_it() -> None:
    table = 'a,"b,c\\",[{\n' * 60_000
    assert digests({"content": [text(table)]}) == (hashlib.sha256(table.encode()).digest(),)


def test_what_cannot_be_gone_through_leaves_the_other_pieces_their_digests() -> None:
    found = contents_of(
        json.dumps({"content": [text()]}).encode()[:-1] + b',"structuredContent":' + b"[" * 600 + b"]" * 600 + b"}"
    )
    assert (found.digests, found.left_out) == ((DIGEST,), 1)


def test_content_in_content_has_an_end() -> None:
    block: dict[str, Any] = text()
    for _ in range(30):
        block = {"type": "tool_result", "content": [block]}
    assert len(digests({"content": [block]})) == 1
    assert DIGEST not in digests({"content": [block]})


@pytest.mark.parametrize("broken", [b"", b"{", b"NaN", b'"\\ud800"', b"\xff", b"[" * 100_000])
def test_what_is_no_json_value_has_no_digest_as_one(broken: bytes) -> None:
    assert json_digest(broken) is None
