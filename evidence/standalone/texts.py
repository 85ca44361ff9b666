"""Canonical JSON and base64, read so that nothing has two spellings.

Pure, standard library only. A number is an integer below 2**53: packs and records hold no other.

Source: RFC 8785; RFC 4648 section 4.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from evidence.standalone.faults import MalformedError, demand

__all__ = ["canonical", "decode_base64", "encode_base64", "is_hash", "parse_canonical"]

_MAX_INTEGER = 2**53 - 1
_HASH = re.compile(r"[0-9a-f]{64}")
_SORTED_OTHERWISE = re.compile("[\ue000-\U0010ffff]")
"""Where code points may sort otherwise than UTF-16, by which RFC 8785 sorts."""


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    demand(len(found) == len(pairs), "a member stands twice")
    return found


def _integer(text: str) -> int:
    demand(len(text) <= 17, "a number is too large")  # noqa: PLR2004  # a sign and sixteen digits
    number = int(text)
    demand(abs(number) <= _MAX_INTEGER, "a number is too large")
    return number


def _no_number(text: str) -> Any:  # noqa: ANN401  # what json takes for a number
    raise MalformedError(f"{text[:20]} is no integer")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=_integer, parse_float=_no_number, parse_constant=_no_number
)


def _members_in_order(value: Any) -> Any:  # noqa: ANN401  # JSON of any shape
    if isinstance(value, dict):
        return {key: _members_in_order(value[key]) for key in sorted(value, key=lambda key: key.encode("utf-16-be"))}
    if isinstance(value, (list, tuple)):
        return [_members_in_order(item) for item in value]
    return value


def canonical(value: Any) -> bytes:  # noqa: ANN401  # JSON of any shape
    """Return a value's canonical JSON.

    Raises:
        MalformedError: It holds half of a surrogate pair.
    """
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if _SORTED_OTHERWISE.search(text):
        text = json.dumps(_members_in_order(value), ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise MalformedError("a text holds half of a surrogate pair") from None


def parse_canonical(data: bytes) -> Any:  # noqa: ANN401  # JSON of any shape
    """Read canonical JSON; the inverse of `canonical`.

    Raises:
        MalformedError: Not JSON, or not in its one spelling.
    """
    try:
        value = _DECODER.decode(data.decode())
    except (ValueError, RecursionError):
        raise MalformedError("not JSON") from None
    demand(canonical(value) == data, "JSON that is not in its canonical form")
    return value


def encode_base64(data: bytes) -> str:
    """Return base64 with padding."""
    return base64.b64encode(data).decode()


def decode_base64(text: str) -> bytes:
    """Read base64 in its one spelling.

    Raises:
        MalformedError: It is none.
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise MalformedError("not base64") from None
    demand(encode_base64(data) == text, "base64 that is not in its canonical form")
    return data


def is_hash(value: object) -> bool:
    """Whether a value is 32 bytes in hexadecimal."""
    return isinstance(value, str) and _HASH.fullmatch(value) is not None
