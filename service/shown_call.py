"""A held call as people are shown it: exactly what will run, whole, with nothing in it that hides.

Pure. JSON is laid out anew and nothing else is done to it: numbers stand as they were spelt, members in their order, a
member that stands twice stands twice. Of every text each character outside the repertoire of `ledger.legible` is
written by its code point; one that is not seen, or moves what is seen (control characters, joiners, marks of
direction, tags, unusual spaces), by its Unicode name as well. Nothing is cut: what is not shown cannot be agreed to.

``json`` would do for reading, but for numbers: a float is another number than the one that the tool gets.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from ledger.errors import MalformedError
from ledger.legible import REPERTOIRE

__all__ = ["ShownCall", "shown_call", "spelt_out"]

_OPEN, _CLOSE = "\u2039", "\u203a"
_UNSEEN: Final = ("C", "Z", "M")
"""Unicode categories of what is not seen by itself: controls, formats, surrogates, unassigned; separators; marks."""
_INDENT: Final = "  "
_MAX_NAMED: Final = 32


class _Number(str):
    """A number as it was spelt."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ShownCall:
    """A message laid out.

    Attributes:
        lines: Its lines, legible.
        hidden: Names of the characters in it that are not seen, each once, the first of them in order of appearance.
    """

    lines: tuple[str, ...]
    hidden: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines)


def spelt_out(text: str) -> str:
    """Return a text with everything written out that is not seen, or could be taken for something else."""
    return "".join(character if character in REPERTOIRE else _named(character) for character in text)


def shown_call(data: bytes) -> ShownCall:
    """Lay out a message.

    Args:
        data: Its bytes, JSON.

    Raises:
        MalformedError: It is none.
    """
    try:
        text = data.decode()
        value = json.loads(text, parse_int=_Number, parse_float=_Number, object_pairs_hook=_Members)
    except (ValueError, RecursionError) as error:
        raise MalformedError("the message is no JSON") from error
    hidden: dict[str, None] = {}
    _collect(value, hidden)
    return ShownCall(lines=tuple(_laid_out(value)), hidden=tuple(hidden)[:_MAX_NAMED])


class _Members(list[tuple[str, Any]]):
    """The members of an object, in order, each as often as it stands there."""


def _named(character: str) -> str:
    code = f"U+{ord(character):04X}"
    if unicodedata.category(character)[0] in _UNSEEN:
        return f"{_OPEN}{code} {_name(character)}{_CLOSE}"
    return f"{_OPEN}{code}{_CLOSE}"


def _name(character: str) -> str:
    known = {"\n": "LINE FEED", "\r": "CARRIAGE RETURN", "\t": "TABULATION", "\x1b": "ESCAPE", "\x00": "NULL"}
    return known[character] if character in known else unicodedata.name(character, "unnamed character")


def _collect(value: Any, hidden: dict[str, None]) -> None:  # noqa: ANN401  # any JSON value
    if isinstance(value, _Members):
        for name, member in value:
            _collect(name, hidden)
            _collect(member, hidden)
    elif isinstance(value, list):
        for item in value:
            _collect(item, hidden)
    elif isinstance(value, str):
        for character in value:
            if character not in REPERTOIRE and unicodedata.category(character)[0] in _UNSEEN:
                hidden.setdefault(_name(character))


def _laid_out(value: Any, before: str = "", indent: str = "", after: str = "") -> Iterator[str]:  # noqa: ANN401  # likewise
    if isinstance(value, _Members) and value:
        yield f"{indent}{before}{{"
        for number, (name, member) in enumerate(value, start=1):
            comma = "," if number < len(value) else ""
            yield from _laid_out(member, f"{_text(name)}: ", indent + _INDENT, comma)
        yield f"{indent}}}{after}"
    elif isinstance(value, list) and not isinstance(value, _Members) and value:
        yield f"{indent}{before}["
        for number, item in enumerate(value, start=1):
            yield from _laid_out(item, "", indent + _INDENT, "," if number < len(value) else "")
        yield f"{indent}]{after}"
    else:
        yield f"{indent}{before}{_plain(value)}{after}"


def _plain(value: Any) -> str:  # noqa: ANN401  # likewise
    if isinstance(value, _Members):
        return "{}"
    if isinstance(value, list):
        return "[]"
    if isinstance(value, _Number):
        return spelt_out(value)
    if isinstance(value, str):
        return _text(value)
    return json.dumps(value)


def _text(value: str) -> str:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{spelt_out(quoted)}"'
