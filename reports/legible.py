"""Text of others made legible: what is printed is what was recorded, and two names that differ look different.

Pure. Names in a pack come from agents, servers and files: any Unicode text. Printed as it is, it can deceive a reader:
an override turns the line around, a letter of another script looks like a Latin one, a zero-width character is not seen
at all. And the report brings its own fonts, which hold few scripts; a font of the machine would make the bytes of the
report depend on where it was rendered.

So `legible_text` lets a fixed repertoire through (Latin letters, digits, punctuation) and writes every other character
by its code point, a run of them between one pair of single guillemets, here ``{`` and ``}``::

    invoice, U+202E, gpj.exe    ->  invoice{U+202E}gpj.exe
    pa, U+0443, roll-db         ->  pa{U+0443}roll-db
    two kanji                   ->  {U+9001 U+91D1}

The mapping is injective: the guillemets themselves are outside the repertoire, and so are spaces that a page would
fold. A text longer than its limit is cut, says by how much, and gives the first digits of its SHA-256, so that two long
names with one beginning still differ.

INVARIANT: no string of a `PackSummary` reaches a template or chart but through `legible`. Escaping for HTML is the
templates' part.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Any, Final

from evidence.summary import (
    ControlSheet,
    ControlTestResult,
    CustodyLine,
    Deviation,
    FrameworkSheet,
    Gap,
    PackSummary,
    StreamLine,
)
from ledger.errors import EvidenceError

__all__ = ["IDENTIFIER_LIMIT", "PROSE_LIMIT", "REPERTOIRE", "legible", "legible_text"]

IDENTIFIER_LIMIT: Final = 257
"""Characters of a name that are printed: a recorded server, a slash and a recorded tool are never cut."""

PROSE_LIMIT: Final = 2_000
"""Characters of a sentence or paragraph that are printed."""

_RANGES: Final = (
    (0x20, 0x7E),  # ASCII
    (0xA1, 0xAC),  # Latin-1 without the no-break space and the soft hyphen, which are not seen
    (0xAE, 0xFF),
    (0x100, 0x17F),  # Latin Extended-A
    (0x218, 0x21B),  # Romanian
    (0x2013, 0x2014),  # dashes
    (0x2018, 0x2019),  # quotation marks
    (0x201C, 0x201E),
    (0x2026, 0x2026),  # ellipsis
    (0x20AC, 0x20AC),  # euro
    (0x2192, 0x2192),  # arrow to the right
    (0x2264, 0x2265),  # at most, at least
)

REPERTOIRE: Final = frozenset(chr(code) for first, last in _RANGES for code in range(first, last + 1))
"""Characters that are printed as they are; every font of the report holds all of them."""

_OPEN, _CLOSE = "\u2039", "\u203a"

_CLASS: Final = "".join(f"\\U{first:08X}-\\U{last:08X}" for first, last in _RANGES)
# Outside the repertoire; or a space that begins or ends the text, or follows another space.
_HIDDEN: Final = re.compile(f"(?:[^{_CLASS}]|^ | $|(?<= ) )+")

_PROSE: Final = frozenset(
    {
        (ControlSheet, "customer_adds"),
        (ControlSheet, "procedure"),
        (ControlSheet, "rationale"),
        (ControlSheet, "reason"),
        (ControlSheet, "title"),
        (ControlTestResult, "sentence"),
        (CustodyLine, "detail"),
        (Deviation, "cause"),
        (FrameworkSheet, "source"),
        (Gap, "sentence"),
        (PackSummary, "not_proved"),
        (PackSummary, "proved"),
        (StreamLine, "reason"),
    }
)
"""Members of the summary that hold sentences; all other strings are names."""


def _code_points(match: re.Match[str]) -> str:
    return _OPEN + " ".join(f"U+{ord(character):04X}" for character in match.group()) + _CLOSE


@lru_cache(maxsize=65_536)
def legible_text(text: str, *, limit: int = IDENTIFIER_LIMIT) -> str:
    """Return ``text`` as the report prints it.

    Args:
        text: Any text.
        limit: Characters that are printed of it, code points written out included.
    """
    kept = min(len(text), limit)
    shown = _HIDDEN.sub(_code_points, text[:kept])
    while len(shown) > limit:  # what is written out is longer than what was recorded
        kept = kept * limit // len(shown)
        shown = _HIDDEN.sub(_code_points, text[:kept])
    if kept == len(text):
        return shown
    # surrogatepass: a lone surrogate is a character like any other here.
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{shown} {_OPEN}cut: {len(text) - kept:,} of {len(text):,} characters; SHA-256 {digest}{_CLOSE}"


def _value(value: Any, limit: int) -> Any:  # noqa: ANN401 - walks values of every type that a summary holds
    if isinstance(value, str):
        return value if isinstance(value, Enum) else legible_text(value, limit=limit)
    if isinstance(value, tuple):
        return tuple(_value(item, limit) for item in value)
    if isinstance(value, Mapping):
        shown = {_value(key, limit): _value(item, limit) for key, item in value.items()}
        if len(shown) != len(value):  # two cut texts with one digest: a count must not vanish behind the other
            raise EvidenceError("two long names of the summary would be printed alike")
        return shown
    if is_dataclass(value) and not isinstance(value, type):
        members = {
            field.name: _value(
                getattr(value, field.name), PROSE_LIMIT if (type(value), field.name) in _PROSE else IDENTIFIER_LIMIT
            )
            for field in fields(value)
        }
        return replace(value, **members)
    return value


def legible(summary: PackSummary) -> PackSummary:
    """Return the summary with every string in it made legible.

    Raises:
        EvidenceError: Two keys of one mapping would be printed alike.
    """
    result: PackSummary = _value(summary, IDENTIFIER_LIMIT)
    return result
