"""Orders whose letters are set apart, or whose words are run together.

Pure. ``i g n o r e   a l l``, ``ignoreallprevious``. Looks at folded text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from enforcement.inspection.folding import without_separators
from enforcement.inspection.patterns import linear

__all__ = ["squeezed_orders"]

_APART: Final = linear(rb"(?:\b[a-z](?:[ .,_/*|]|  ){1,3}){7,300}[a-z]\b")
_ORDER: Final = linear(
    rb"(?:ignor|disregard|forget|overrid|bypass|reveal|print|show|repeat|leak|send|upload|forward) ?(?:[a-z] ?){0,24}"
    rb"(?:instruction|prompt|rules|guideline|directive|previous|prior|above|system|secret|password|credential"
    rb"|apikey|token)"
)
_SPOKEN: Final = linear(
    rb"\b(?:ignore|disregard|forget|override|bypass)(?:all|any|the|your|every|my)?(?:previous|prior|above"
    rb"|earlier|system|preceding)"
    rb"(?:instruction|prompt|rule|guideline|direction|directive|command|message)s?"
)
# What each of both holds: most texts have neither, and are read once.
_EITHER: Final = linear(
    rb"\b[a-z][ .,_/*|]{1,6}[a-z][ .,_/*|]{1,6}[a-z][ .,_/*|]{1,6}[a-z]\b"
    rb"|\b(?:ignore|disregard|forget|override|bypass)(?:a|the|your|every|my|pr|above|earl|system)"
)


def squeezed_orders(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield rule, start and end of each."""
    if not _EITHER.matches(data):
        return
    for match in _APART.finditer(data):
        if _ORDER.matches(without_separators(match.group()).replace(b" ", b"")):
            yield "letters_apart", *match.span()
    for match in _SPOKEN.finditer(data):
        yield "words_together", *match.span()
