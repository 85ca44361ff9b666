"""JSON text out of values with exact numbers, one spelling for each value.

Pure. Members are sorted; a `decimal.Decimal` keeps its digits, and an integer beyond 64 bits becomes one, for the
encoder has no others.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from ledger.canonical import JSONValue

__all__ = ["json_bytes", "json_text"]

_ENCODER: Final = msgspec.json.Encoder(decimal_format="number", order="sorted")


def _exact(value: JSONValue) -> JSONValue:
    if isinstance(value, dict):
        return {name: _exact(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_exact(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return Decimal(value)
    return value


def json_bytes(value: JSONValue, *, indent: int = -1) -> bytes:
    """Return JSON text in UTF-8.

    Args:
        value: The value.
        indent: Spaces for each level; negative for one line.
    """
    data = _ENCODER.encode(_exact(value))
    return data if indent < 0 else msgspec.json.format(data, indent=indent) + b"\n"


def json_text(value: JSONValue) -> str:
    """Return JSON text on one line."""
    return json_bytes(value).decode()
