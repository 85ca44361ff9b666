"""The members of a JSON object as the exact text in which they stand.

Pure. What is judged or recorded of a message is a slice of the bytes that are passed on, never a re-encoding of them.

Source: RFC 8259 sections 2 and 4.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

from ledger.errors import MalformedError

__all__ = ["object_members"]

_SPACE: Final = re.compile(r"[ \t\n\r]*")


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedError(f"JSON holds the non-number {name}")


# Integers stay text: their size is no concern here, and Python refuses to convert very long ones.
_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=str, parse_float=str)


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # the pattern matches the empty string
    return match.end()


def object_members(text: str) -> dict[str, str]:
    """Return name → text of the value, of one JSON object.

    Args:
        text: A JSON text; white space around it is allowed.

    Raises:
        MalformedError: Not a JSON object, or a name stands in it twice. (Duplicates further down are not looked for.)
    """
    try:
        return _members(text)
    except (ValueError, IndexError, RecursionError) as error:
        raise MalformedError("not a JSON object") from error


def _members(text: str) -> dict[str, str]:
    members: dict[str, str] = {}
    at = _skip_space(text, 0)
    closing = _skip_space(text, at + 1)
    if text[at] != "{":
        raise MalformedError("not a JSON object")
    if text[closing] == "}":
        at = closing
    while text[at] != "}":  # at stands on the opening brace, or on a comma
        start = _skip_space(text, at + 1)
        name, colon = _DECODER.raw_decode(text, start)
        colon = _skip_space(text, colon)
        if not isinstance(name, str) or text[start] != '"' or text[colon] != ":":
            raise MalformedError("not a JSON object")
        value = _skip_space(text, colon + 1)
        _, end = _DECODER.raw_decode(text, value)
        if name in members:
            raise MalformedError("a JSON object has the same name twice")
        members[name] = text[value:end]
        at = _skip_space(text, end)
        if text[at] not in ",}":
            raise MalformedError("not a JSON object")
    if _skip_space(text, at + 1) != len(text):
        raise MalformedError("text follows a JSON object")
    return members
