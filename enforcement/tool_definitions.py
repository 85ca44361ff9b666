"""The definition of a tool, as a server lists it: its digest, and what of it can be compared with others.

Pure. A definition's digest is SHA-256 over its canonical JSON (RFC 8785) without the member ``contentHash``; that is
the content hash of a declaration as the proposal SEP-3140 of the Model Context Protocol has it, which writes it as
``sha256-`` and its base64url. All other members count: ``title``, ``icons``, ``_meta`` and ``version`` as well.

    {"description":"Refund a customer.","inputSchema":{"type":"object"},"name":"refund"}

INVARIANT: two definitions that any two careful readers could tell apart have two digests. One that has no canonical
form (a name twice, half of a surrogate pair, an integer beyond 2**53 - 1, too deep or too long) has no digest.

Source: RFC 8785; SEP-3140, "Canonicalization" and "Per-declaration integrity and version" (a draft, of 2026-07-27).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Final

import orjson

from enforcement.json_slices import MAX_JSON_NODES, array_items, exceeds_nodes, object_members
from ledger.canonical import MAX_JSON_DEPTH, JSONValue, canonical_bytes, parse_json, sha256
from ledger.errors import MalformedError

__all__ = [
    "MAX_DEFINITION_BYTES",
    "Definition",
    "content_hash",
    "definition_digest",
    "read_definition",
    "read_definitions",
    "texts_of",
]

MAX_DEFINITION_BYTES: Final = 256 << 10
"""Longest definition of one tool."""

_OWN_HASH: Final = "contentHash"
_FRACTION: Final = re.compile(rb"[0-9](?:[.eE]|[0-9]{15})")  # in a text as well: it is read the other way then
_ALGORITHM: Final = "sha256-"
_LABELS: Final = frozenset({"name", "title", "icons", "version", "_meta", _OWN_HASH})


@dataclass(frozen=True)
class Definition:
    """One tool's definition.

    Attributes:
        name: Its name; None if it has none that could be called.
        text: The definition as it stands in the answer.
        value: What it says; None if it has no canonical form.
        digest: Its digest; None likewise.
    """

    name: str | None
    text: str
    value: Mapping[str, JSONValue] | None
    digest: str | None

    @cached_property
    def canonical(self) -> str:
        """Its canonical JSON; as received where it has none."""
        return self.text if self.value is None else canonical_bytes(_doubles(dict(self.value))).decode()

    @cached_property
    def body(self) -> str:
        """Digest of what it does, whatever it is called; empty if that says nothing."""
        value = self.value
        if value is None or not (value.get("description") or _properties(value)):
            return ""
        return sha256(canonical_bytes(_doubles({k: v for k, v in value.items() if k not in _LABELS}))).hex()

    @property
    def claims_another_hash(self) -> bool:
        """Whether it declares a content hash that is not its own; one of another algorithm says nothing here."""
        claim = None if self.value is None else self.value.get(_OWN_HASH)
        if not isinstance(claim, str) or not claim.startswith(_ALGORITHM) or self.digest is None:
            return False
        return claim.rstrip("=") != content_hash(self.digest)


def content_hash(digest: str) -> str:
    """Return a digest as SEP-3140 writes it: ``sha256-`` and base64url without padding."""
    return _ALGORITHM + base64.urlsafe_b64encode(bytes.fromhex(digest)).rstrip(b"=").decode()


def definition_digest(value: JSONValue) -> str | None:
    """Return the digest of a definition, 64 hexadecimal digits; None if it has no canonical form."""
    if isinstance(value, dict) and _OWN_HASH in value:
        value = {name: item for name, item in value.items() if name != _OWN_HASH}
    try:
        return sha256(canonical_bytes(_doubles(value))).hex()
    except MalformedError:
        return None


def read_definition(text: str) -> Definition:
    """Read one tool of a list."""
    data = text.encode(errors="surrogatepass")
    value = _read_plain(data)
    if value is None:
        try:
            value = parse_json(data) if len(data) <= MAX_DEFINITION_BYTES else None
        except MalformedError:
            value = None
    digest = definition_digest(value) if isinstance(value, dict) else None
    if digest is None or not isinstance(value, dict):
        return Definition(_name_in(text), text, None, None)
    name = value.get("name")
    return Definition(name if isinstance(name, str) and name else None, text, value, digest)


def _read_plain(data: bytes) -> JSONValue:
    """Return what a strict reader would, of a text that is written as most are; None for any other, and for null.

    A text that is written out again byte for byte had no name twice, no half of a surrogate pair, and no number that
    reads otherwise; with so few brackets it is not too deep, and without a fraction it is its own canonical value.
    """
    if len(data) > MAX_DEFINITION_BYTES or data.count(b"{") + data.count(b"[") > MAX_JSON_DEPTH:
        return None
    try:
        value: JSONValue = orjson.loads(data)
        written = orjson.dumps(value)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None
    return value if written == data and _FRACTION.search(data) is None else None


def read_definitions(result: bytes, known: Mapping[str, Definition]) -> list[Definition]:
    """Read the tools of a ``tools/list`` result.

    Args:
        result: The result, one JSON object.
        known: Definitions that were read before, by their text: they are not read again.

    Raises:
        MalformedError: It is no list of tools, or holds more values than `enforcement.json_slices.MAX_JSON_NODES`.
    """
    try:
        members = object_members(result.decode())
        items = array_items(members["tools"]) if "tools" in members else []
    except UnicodeDecodeError as error:
        raise MalformedError("a list of tools is not UTF-8") from error
    fresh = [item for item in items if item not in known]
    if fresh and sum(map(len, fresh)) > MAX_JSON_NODES and exceeds_nodes(",".join(fresh).encode(), MAX_JSON_NODES):
        raise MalformedError(f"a list of tools holds more than {MAX_JSON_NODES} values")
    read = {item: read_definition(item) for item in dict.fromkeys(fresh)}
    return [known.get(item) or read[item] for item in items]


def texts_of(value: JSONValue, *, names: bool = False) -> Iterator[str]:
    """Yield every text of a value that a model may be shown: all strings, and the names of members if wanted."""
    stack: list[JSONValue] = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            stack.extend(node.values())
            if names:
                yield from node
        elif isinstance(node, list):
            stack.extend(node)


def _properties(value: Mapping[str, JSONValue]) -> Mapping[str, JSONValue]:
    schema = value.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return properties if isinstance(properties, dict) else {}


def _name_in(text: str) -> str | None:
    """Return the name under which a lenient reader would know a definition that a strict one refuses."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    name = value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) and name else None


def _doubles(value: JSONValue) -> JSONValue:
    """Return the value with its fractions as doubles, which is how RFC 8785 reads them."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _doubles(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_doubles(item) for item in value]
    return value
