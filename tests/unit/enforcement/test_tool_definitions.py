"""Digests of definitions are content hashes as the draft SEP-3140 has them: over bytes that are written out here."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest

from enforcement.tool_definitions import content_hash, definition_digest, read_definition

VECTORS = {
    "members in any order": (
        '{"version": "3", "name": "delete_resource", "description": "Deletes it."}',
        b'{"description":"Deletes it.","name":"delete_resource","version":"3"}',
    ),
    "its own hash is left out": (
        '{"name":"a","contentHash":"sha256-x"}',
        b'{"name":"a"}',
    ),
    "a hash further down is not": (
        '{"name":"a","_meta":{"contentHash":"x"}}',
        b'{"_meta":{"contentHash":"x"},"name":"a"}',
    ),
    "numbers as ECMAScript writes them": (
        '{"name":"a","x":[1.0,1e21,0.000001,1E-7,-0.0,100]}',
        b'{"name":"a","x":[1,1e+21,0.000001,1e-7,0,100]}',
    ),
    "names by UTF-16 code units": (
        '{"name":"a","\\ufb33":1,"\\ud83d\\ude00":2,"\\u00f6":3}',
        '{"name":"a","\u00f6":3,"\U0001f600":2,"\ufb33":1}'.encode(),
    ),
    "escapes as few as can be": (
        '{"name":"\\u0061","description":"\\u20ac\\/\\n\\u001b"}',
        '{"description":"\u20ac/\\n\\u001b","name":"a"}'.encode(),
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_a_digest_is_the_hash_of_just_these_bytes(name: str) -> None:
    text, canonical = VECTORS[name]
    found = read_definition(text)
    assert found.digest == hashlib.sha256(canonical).hexdigest()
    wanted = "sha256-" + base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).decode().rstrip("=")
    assert content_hash(found.digest) == wanted


@pytest.mark.parametrize(("padded", "claims_another"), [("", False), ("=", False), ("A", True)])
def test_a_declared_hash_is_held_against_the_definition(padded: str, claims_another: bool) -> None:
    own = content_hash(hashlib.sha256(b'{"name":"a"}').hexdigest())
    assert read_definition(json.dumps({"name": "a", "contentHash": own + padded})).claims_another_hash is claims_another


@pytest.mark.parametrize("claim", ["sha512-abc", "", 7, None, {"sha256": "x"}])
def test_a_hash_of_another_kind_says_nothing(claim: object) -> None:
    assert read_definition(json.dumps({"name": "a", "contentHash": claim})).claims_another_hash is False


@pytest.mark.parametrize(
    "text",
    ['{"name":"a","x":1,"x":1}', '{"name":"a","x":"\\udc00"}', '{"name":"a","x":9007199254740992}', "[]", "7", "{"],
)
def test_what_careful_readers_would_not_read_alike_has_no_digest(text: str) -> None:
    assert read_definition(text).digest is None


def test_whichever_way_it_is_read_the_digest_is_the_same() -> None:
    value = {"name": "a", "description": "line\nü", "inputSchema": {"properties": {"x": {"type": "string"}}}}
    spellings = {
        json.dumps(value),
        json.dumps(value, indent=2),
        json.dumps(value, separators=(",", ":"), ensure_ascii=False),
        json.dumps(value, separators=(",", ":")),
    }
    assert {read_definition(text).digest for text in spellings} == {definition_digest(value)}
