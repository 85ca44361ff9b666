"""The members of a JSON object as the exact text in which they stand, and how much there is to read in a text.

Pure. What is judged or recorded of a message is a slice of the bytes that are passed on, never a re-encoding of them.

Both run at the speed of memory, whatever a stranger sends: no value is built but the names.

Source: RFC 8259 sections 2 and 4.
"""

from __future__ import annotations

import json
import re
from typing import Final, TypeVar

import msgspec

from ledger.errors import MalformedError

__all__ = ["MAX_JSON_NODES", "array_items", "exceeds_nodes", "object_members"]

_T = TypeVar("_T")

MAX_JSON_NODES: Final = 50_000
"""Most values in a text that is read whole: requests, and lists of tools."""

_TWICE: Final = "a JSON object has the same name twice"
_SPACE: Final = re.compile(rb"[ \t\n\r]*")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BARE_STRING: Final = re.compile(rb'"[^"]*"')
_ESCAPE: Final = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]|u(?P<half>[dD][89a-fA-F])|.)", re.DOTALL)
_ITEMS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def exceeds_nodes(text: bytes, limit: int) -> bool:
    """Whether a JSON text holds more than ``limit`` values, where an empty list or object counts for two.

    A long text is one value, whatever it says. Of what is no JSON, anything may be said.
    """
    if _count(text) < limit:  # as is all but always so, and costs next to nothing
        return False
    bare = text.replace(rb"\\", b"").replace(rb"\"", b"")
    # Each value has one string at most, and one name: this many cannot belong to fewer values.
    if bare.count(b'"') > 2 * 2 * limit:
        return True
    return _count(_BARE_STRING.sub(b"", bare)) >= limit


def _count(text: bytes) -> int:
    """Return one less than the number of values, if no string holds any of the signs."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def object_members(text: str) -> dict[str, str]:
    """Return name → text of the value, of one JSON object.

    Args:
        text: One JSON object; space around it is allowed. Half of a surrogate pair may be escaped in it.

    Raises:
        MalformedError: Not a JSON object, or a name stands in it twice. (Duplicates further down are not looked for.)
    """
    try:
        return _members(text.encode())
    except (ValueError, IndexError, KeyError, RecursionError) as error:
        raise MalformedError("not a JSON object") from error


def array_items(text: str) -> list[str]:
    """Return the text of each value of one JSON array.

    Args:
        text: One JSON array; space around it is allowed. Half of a surrogate pair may be escaped in it.

    Raises:
        MalformedError: Not a JSON array.
    """
    data = text.encode()
    try:
        whole, decoded = _decoded(data, _ITEMS)
    except (ValueError, RecursionError) as error:
        raise MalformedError("not a JSON array") from error
    items: list[str] = []
    at = _skip_space(whole, 0) + 1  # behind the opening bracket
    for value in decoded:
        start = _skip_space(whole, at)
        raw = bytes(value)
        if not whole.startswith(raw, start):  # two readers of one text: should they ever differ …
            raise MalformedError("not a JSON array")
        items.append(data[start : start + len(raw)].decode())
        at = _skip_space(whole, start + len(raw)) + 1  # behind the comma
    return items


def _decoded(text: bytes, decoder: msgspec.json.Decoder[_T]) -> tuple[bytes, _T]:
    """Decode a text; return what was decoded, which may stand for the text byte by byte, and the value.

    Raises:
        ValueError: Not what the decoder decodes.
    """
    try:
        return text, decoder.decode(text)
    except msgspec.DecodeError:
        # It refuses half of a surrogate pair, which is JSON: another character stands for it, of the same length.
        whole = _ESCAPE.sub(lambda match: match[0] if match["half"] is None else rb"\uFF", text)
        return whole, decoder.decode(whole)


def _members(text: bytes) -> dict[str, str]:
    # The decoder finds where each value ends, but cannot say which name stood twice; the walk below does.
    whole, decoded = _decoded(text, _MEMBERS)
    values = {name: bytes(value) for name, value in decoded.items()}
    members: dict[str, str] = {}
    at = _skip_space(whole, 0)
    closing = _skip_space(whole, at + 1)
    at = closing if whole[closing : closing + 1] == b"}" else at
    while whole[at : at + 1] != b"}":  # at stands on the opening brace, or on a comma
        start = _skip_space(whole, at + 1)
        end = _end_of_string(whole, start)
        value = _skip_space(whole, _skip_space(whole, end) + 1)
        raw = values[json.loads(whole[start:end])]
        at = _skip_space(whole, value + len(raw))
        name: str = json.loads(text[start:end])
        # Of a name that stands twice the decoder knows the last value alone, which is not the one that stands here.
        if name in members or not whole.startswith(raw, value) or whole[at : at + 1] not in (b",", b"}"):
            raise MalformedError(_TWICE)
        members[name] = text[value : value + len(raw)].decode()
    if _skip_space(whole, at + 1) != len(whole):
        raise MalformedError(_TWICE)
    return members


def _skip_space(text: bytes, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # the pattern matches the empty string
    return match.end()


def _end_of_string(text: bytes, at: int) -> int:
    match = _STRING.match(text, at)
    if match is None:  # not where a name must be
        raise MalformedError(_TWICE)
    return match.end()
