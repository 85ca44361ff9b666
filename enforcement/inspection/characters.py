"""Characters that a person does not see, or takes for others.

Pure. Looked at are characters, not words: whether an invisible one is an accident depends on its neighbours. A joiner
between letters of a script that needs it, a mark of direction in a text that runs to the left, a selector behind an
emoji are none of our business; the same between Latin letters is.

Source: Unicode Standard Annex 9 (bidirectional controls), Technical Standards 39 (confusables, mixed scripts) and 51
(emoji tag sequences).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from enforcement.inspection.confusables import LOOKALIKES
from enforcement.inspection.folding import INVISIBLE
from enforcement.inspection.patterns import linear
from enforcement.inspection.settings import Thresholds

__all__ = ["HIDING", "MIXING", "may_hide", "may_mix", "odd_characters", "odd_words"]

# The same characters as below by their bytes in UTF-8, a few more among them: all that most texts need to be asked.
HIDING: Final = (
    rb"\xc2\xad|\xcd\x8f|\xd8\x9c|\xe1[\x85\x9e\xa0]|\xe2\x80[\x8b-\x8f\xaa-\xae]|\xe2\x81[\xa0-\xaf]|\xe2[\x92\x93]"
    rb"|\xe3\x85\xa4"
    rb"|\xef(?:\xb8[\x80-\x8f]|\xbb\xbf|\xbe\xa0)|\xf0\x9d|\xf0\x9f[\x84-\x86]|\xf3\xa0"
)
MIXING: Final = rb"[\xcd-\xd6]|\xe1[\x8e\x8f\xb4]|\xe2[\xb2\xb3]|\xea[\xad\xae]"
_HIDING, _MIXING = linear(HIDING), linear(MIXING)

_ODD: Final = re.compile(f"[{INVISIBLE}]+")
_BIDI: Final = re.compile("[\u202a-\u202e\u2066-\u2069]")
_TAG: Final = re.compile("[\U000e0001\U000e0020-\U000e007f]")
_SELECTOR: Final = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")
_FLAG: Final = "\U0001f3f4"
_FLAG_TAGS: Final = re.compile("[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f")
_STYLED_LETTER: Final = "\U0001d400-\U0001d7ff\U0001f130-\U0001f189\u24b6-\u24e9"
_STYLED: Final = re.compile(f"[{_STYLED_LETTER}][{_STYLED_LETTER} ]{{3,}}")
_MIXABLE: Final = "\u0370-\u03ff\u0400-\u052f\u0530-\u058f\u13a0-\u13ff\uab70-\uabbf\u2c80-\u2cff\u1d00-\u1d2b"
_WORD: Final = re.compile(f"[A-Za-z0-9{_MIXABLE}]*[{_MIXABLE}][A-Za-z0-9{_MIXABLE}]*")
_CYRILLIC: Final = re.compile("[\u0400-\u052f]")
_OWN_CYRILLIC: Final = re.compile(
    "[" + "".join(chr(code) for code in range(0x430, 0x460) if code not in LOOKALIKES) + "]"
)
_SEAM: Final = re.compile(f"[A-Za-z0-9][{_MIXABLE}]|[{_MIXABLE}][A-Za-z0-9]")
_SHORTEST_WORD: Final = 4
_SHORTEST_LOOKALIKE: Final = 3
_JOINERS: Final = "\u200c\u200d"
_MARKS: Final = "\u200e\u200f\u061c"


def may_hide(data: bytes) -> bool:
    """Whether a text could have odd characters."""
    return _HIDING.matches(data)


def may_mix(data: bytes) -> bool:
    """Whether a text could have odd words."""
    return _MIXING.matches(data)


def odd_characters(text: str, thresholds: Thresholds) -> Iterator[tuple[str, int, int]]:
    """Yield rule, start and end of what shows nothing or turns the line round, in characters."""
    for match in _ODD.finditer(text):
        rule = _rule_of_run(text, match, thresholds)
        if rule:
            yield rule, match.start(), match.end()
    for match in _STYLED.finditer(text):
        yield "styled_letters", match.start(), match.end()


def _rule_of_run(text: str, match: re.Match[str], thresholds: Thresholds) -> str:  # noqa: PLR0911  # a table of cases
    run, start, end = match[0], match.start(), match.end()
    before, after = text[start - 1 : start], text[end : end + 1]
    if _BIDI.search(run):
        return "bidi_control"
    if _TAG.search(run):
        is_flag = before == _FLAG and _FLAG_TAGS.fullmatch(run)
        return "" if is_flag else "tag_characters"
    selectors = len(_SELECTOR.findall(run))
    if selectors:
        return "variation_selectors" if selectors >= thresholds.selector_run or _is_plain(before) else ""
    if len(run) >= thresholds.invisible_run:
        return "invisible_run"
    # A mark of byte order begins a text, and a soft hyphen is a typesetter's.
    if run == "\u00ad" or (run == "\ufeff" and not start):
        return ""
    if all(character in _JOINERS or character in _MARKS for character in run):
        return "zero_width" if _is_plain(before) and _is_plain(after) else ""
    # To a script that puts no spaces between words, a zero-width one belongs.
    return "zero_width" if _is_plain(before) or _is_plain(after) else ""


def _is_plain(character: str) -> bool:
    return bool(character) and character.isascii() and character.isalpha()


def odd_words(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield rule, start and end of words whose letters are taken from several scripts, or look like Latin ones."""
    mixed = bool(_SEAM.search(text))
    # A text that has letters of that script which look like no Latin ones is written in it.
    strange = not _OWN_CYRILLIC.search(text) and bool(_CYRILLIC.search(text))
    if not mixed and not strange:
        return
    for word in _WORD.finditer(text):
        letters = [letter for letter in word[0] if letter.isalpha()]
        latin = sum(letter.isascii() for letter in letters)
        others = [letter for letter in letters if not letter.isascii()]
        looks = all(ord(letter) in LOOKALIKES for letter in others)
        if latin and others and looks and len(letters) >= _SHORTEST_WORD:
            yield "mixed_script", word.start(), word.end()
        elif not latin and looks and len(letters) >= _SHORTEST_LOOKALIKE and strange and _is_cyrillic(others):
            yield "lookalike_word", word.start(), word.end()


def _is_cyrillic(letters: list[str]) -> bool:
    return all(_CYRILLIC.match(letter) for letter in letters)
