"""JSON pointers: where in a value something stands.

Pure. Names are compared exactly, as RFC 6901 has it: a name in other letters is another name.

Source: RFC 6901.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from ledger.canonical import MAX_JSON_DEPTH, JSONValue
from ledger.errors import MalformedError

__all__ = ["MAX_POINTER_CHARS", "MAX_POINTER_DEPTH", "is_present", "parse_pointer"]

MAX_POINTER_CHARS: Final = 1024
"""Longest pointer."""

MAX_POINTER_DEPTH: Final = MAX_JSON_DEPTH
"""Most names in a pointer: nothing stands deeper in what is read."""

_POINTER: Final = re.compile(r"(?:/(?:[^/~]|~[01])*)*")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


def parse_pointer(pointer: str) -> tuple[str, ...]:
    """Return the names of a pointer, from the outermost on; none for the whole value.

    Raises:
        MalformedError: Not a JSON pointer, or one beyond `MAX_POINTER_CHARS` or `MAX_POINTER_DEPTH`.
    """
    if len(pointer) > MAX_POINTER_CHARS or _POINTER.fullmatch(pointer) is None:
        raise MalformedError("not a JSON pointer")
    names = pointer.split("/")[1:]
    if len(names) > MAX_POINTER_DEPTH:
        raise MalformedError("a JSON pointer is too deep")
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in names)


def is_present(value: JSONValue, names: Sequence[str]) -> bool:
    """Whether something stands where a pointer leads, ``null`` included.

    Args:
        value: What it leads into.
        names: See `parse_pointer`.
    """
    for name in names:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and _INDEX.fullmatch(name) is not None and int(name) < len(value):
            value = value[int(name)]
        else:
            return False
    return True
