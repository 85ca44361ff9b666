"""Text of others made legible: what is shown is what was recorded, and two names that differ look different.

Pure. Names come from agents, servers and files: any Unicode text. Shown as it is, it can deceive a reader: an override
turns the line around, a letter of another script looks like a Latin one, a zero-width character is not seen at all, an
escape sequence moves the cursor. So `legible_text` lets a fixed repertoire through (Latin letters, digits, punctuation)
and writes every other character by its code point, a run of them between one pair of single guillemets, here ``{`` and
``}``::

    invoice, U+202E, gpj.exe    ->  invoice{U+202E}gpj.exe
    pa, U+0443, roll-db         ->  pa{U+0443}roll-db
    two kanji                   ->  {U+9001 U+91D1}

The mapping is injective: the guillemets themselves are outside the repertoire, and so are spaces that a page would
fold. A text whose shown form is longer than its limit is cut, says by how much, and gives the first digits of its
SHA-256, so that two long names with one beginning still differ. Escaping for HTML is the templates' part.

The dashboard, the command line and the report all show text through this, so that a name looks the same in each.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final

__all__ = ["IDENTIFIER_LIMIT", "PROSE_LIMIT", "REPERTOIRE", "legible_text"]

IDENTIFIER_LIMIT: Final = 257
"""Characters of a name that are shown: a recorded server, a slash and a recorded tool are never cut."""

PROSE_LIMIT: Final = 2_000
"""Characters of a sentence or paragraph that are shown."""

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
"""Characters that are shown as they are; every font of the report holds all of them."""

_OPEN, _CLOSE = "\u2039", "\u203a"

_CLASS: Final = "".join(f"\\U{first:08X}-\\U{last:08X}" for first, last in _RANGES)
# Outside the repertoire; or a space that begins or ends the text, or follows another space.
_HIDDEN: Final = re.compile(f"(?:[^{_CLASS}]|^ | $|(?<= ) )+")


def _code_points(match: re.Match[str]) -> str:
    return _OPEN + " ".join(f"U+{ord(character):04X}" for character in match.group()) + _CLOSE


@lru_cache(maxsize=16_384)
def legible_text(text: str, *, limit: int = IDENTIFIER_LIMIT) -> str:
    """Return ``text`` as people are shown it.

    Args:
        text: Any text.
        limit: Characters that are shown of it, code points written out included.
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
