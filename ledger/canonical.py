"""Canonical JSON (RFC 8785, "JCS"), its SHA-256, and the strict JSON reader.

Pure: bytes and values in, values out or an exception. What is *not* here: which fields a record has (`records`).

`rfc8785` defines the result. A guarded fast path through orjson serves values for which the two are the same by
construction (ASCII keys, integers below 2**53, no floats); a property test holds them equal.

The reader is stricter than `json.loads`: a duplicate key, a lone surrogate, ``NaN``, a number outside the range of an
IEEE 754 double, or excessive depth is refused, because two readers of the same bytes must never see two values.
Numbers arrive exactly: an integer literal as `int`, any other as `decimal.Decimal`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, NoReturn

import orjson
import rfc8785

from ledger.errors import MalformedError

__all__ = [
    "MAX_JSON_DEPTH",
    "MAX_SAFE_INTEGER",
    "JSONValue",
    "canonical_bytes",
    "parse_canonical",
    "parse_json",
    "sha256",
]

JSONValue = bool | int | float | Decimal | str | list["JSONValue"] | dict[str, "JSONValue"] | None
"""A JSON value; the strict reader never yields `float`, the canonical writer never takes `decimal.Decimal`."""

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""Largest integer that every JSON implementation holds exactly (RFC 8785 section 3.2.2.3)."""

MAX_JSON_DEPTH: Final = 64
"""Deepest nesting of arrays and objects that the strict reader accepts."""

_MAX_NUMBER_CHARS: Final = 400
_FLOAT_MAX: Final = Decimal("1.7976931348623157e308")


def sha256(data: bytes) -> bytes:
    """Return the 32-byte SHA-256 of ``data``."""
    return hashlib.sha256(data).digest()


def _is_plain(value: object) -> bool:
    """Tell whether orjson and RFC 8785 agree on ``value`` by construction."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER  # type: ignore[operator]  # kind is int
    if kind is dict:
        return all(type(k) is str and k.isascii() and _is_plain(v) for k, v in value.items())  # type: ignore[attr-defined]  # kind is dict
    if kind is list or kind is tuple:
        return all(_is_plain(item) for item in value)  # type: ignore[attr-defined]  # kind is list or tuple
    return False


def canonical_bytes(value: object) -> bytes:
    """Return the RFC 8785 bytes of a JSON value.

    Args:
        value: None, bool, int, float, str, list, tuple or dict with str keys, nested.

    Returns:
        UTF-8 bytes without a trailing newline.

    Raises:
        MalformedError: The value has no canonical form (an integer beyond 2**53 - 1, NaN, a lone surrogate, a key
            that is not a string, a type that JSON lacks).

    Source: RFC 8785.
    """
    try:
        if _is_plain(value):
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return rfc8785.dumps(value)  # type: ignore[arg-type]  # it raises on what it cannot take
    except (rfc8785.CanonicalizationError, orjson.JSONEncodeError, UnicodeError, RecursionError) as error:
        raise MalformedError(f"value has no canonical JSON form: {error}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedError(f"JSON holds the non-number {name}")


def _parse_int(text: str) -> int:
    if len(text) > _MAX_NUMBER_CHARS:
        raise MalformedError("JSON number is too long")
    number = int(text)
    if abs(number) > _FLOAT_MAX:
        raise MalformedError("JSON number is outside the range of a double")
    return number


def _parse_decimal(text: str) -> Decimal:
    if len(text) > _MAX_NUMBER_CHARS:
        raise MalformedError("JSON number is too long")
    number = Decimal(text)
    # copy_abs, unlike abs, neither rounds to nor depends on the thread's decimal context.
    if not number.is_finite() or number.copy_abs() > _FLOAT_MAX:
        raise MalformedError("JSON number is outside the range of a double")
    return number


def _object(pairs: list[tuple[str, JSONValue]]) -> dict[str, JSONValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # idiom
        raise MalformedError(f"JSON object has the key {twice!r} twice")
    return members


def _check_tree(value: JSONValue, max_depth: int) -> None:
    """Refuse lone surrogates and excessive depth, without recursion."""
    stack: list[tuple[JSONValue, int]] = [(value, 1)]
    while stack:
        node, depth = stack.pop()
        if isinstance(node, str):
            texts: list[str] = [node]
        elif isinstance(node, dict):
            texts = list(node)
            stack.extend((item, depth + 1) for item in node.values())
        elif isinstance(node, list):
            texts = []
            stack.extend((item, depth + 1) for item in node)
        else:
            continue
        if depth > max_depth and not isinstance(node, str):
            raise MalformedError(f"JSON is nested more than {max_depth} deep")
        for text in texts:
            if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
                raise MalformedError("JSON holds a lone surrogate")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_parse_int,
    parse_float=_parse_decimal,
    parse_constant=_refuse_constant,
    strict=True,
)


def parse_json(data: bytes, *, max_depth: int = MAX_JSON_DEPTH) -> JSONValue:
    """Read JSON so that no other careful reader could see another value in the same bytes.

    Args:
        data: UTF-8 JSON text, one value; surrounding JSON whitespace is allowed, a byte order mark is not.
        max_depth: Deepest nesting accepted.

    Returns:
        The value; integers as `int`, other numbers as `decimal.Decimal`, exactly as written.

    Raises:
        MalformedError: Not JSON, not UTF-8, a duplicate key, a lone surrogate, a number that no double can hold, or
            nesting beyond ``max_depth``.

    Noncharacters such as U+FFFF, which RFC 7493 section 2.1 forbids too, are let through: every reader sees the same
    value in them.

    Source: RFC 8259; RFC 7493 (I-JSON) sections 2.1 to 2.3.
    """
    try:
        text = data.decode("utf-8")
        if text.startswith("\ufeff"):
            raise MalformedError("JSON starts with a byte order mark")
        value: JSONValue = _DECODER.decode(text)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise MalformedError(f"not JSON: {error}") from error
    _check_tree(value, max_depth)
    return value


def parse_canonical(data: bytes) -> JSONValue:
    """Read JSON that must already be in its canonical form.

    Raises:
        MalformedError: Not JSON, or not the RFC 8785 bytes of the value it holds.
    """
    value = parse_json(data)
    if canonical_bytes(_plain_numbers(value)) != data:
        raise MalformedError("JSON is not in canonical form (RFC 8785)")
    return value


def _plain_numbers(value: JSONValue) -> object:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER:
        return float(value)  # RFC 8785 writes doubles below 1e21 without an exponent, as an integer literal
    if isinstance(value, Mapping):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(item) for item in value]
    return value
