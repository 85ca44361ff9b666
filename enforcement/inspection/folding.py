"""A text as a reader means it: one case, plain letters, plain spaces. What hides words from rules is undone here.

Pure. Undone are: case; full-width, styled and accented letters (NFKC); letters of other scripts that look like Latin
ones (`confusables`); invisible characters; tag characters, which spell ASCII unseen; digits in the place of letters;
line ends, underscores, hyphens and quotes between words. A rule is written in plain lower-case words and meets all of
these.

ASCII is folded byte by byte, which keeps every offset; the rest in runs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

from enforcement.inspection.confusables import LOOKALIKES
from enforcement.inspection.views import View, replaced

__all__ = ["INVISIBLE", "fold", "fold_word", "rot13", "skeleton", "without_separators"]

INVISIBLE: Final = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that show nothing, as the inside of a regular expression's class."""

_TAGS: Final = range(0xE0020, 0xE007F)
_INVISIBLE_CHARACTER: Final = re.compile(f"[{INVISIBLE}]")
_LEET: Final = {b"0": b"o", b"1": b"i", b"3": b"e", b"4": b"a", b"5": b"s", b"7": b"t", b"@": b"a", b"$": b"s"}
_SPACES: Final = b"\t\n\r\v\f_-*\"'`+|=\\"
_ASCII_BYTES: Final = bytes(range(128))
_FEW: Final = 8
_WHICH: Final = b"\x00" * 128 + b"\x01" * 128


def _ascii_table() -> bytes:
    table = bytearray(range(256))
    for byte in range(ord("A"), ord("Z") + 1):
        table[byte] = byte + 32
    for sign, letter in _LEET.items():
        table[sign[0]] = letter[0]
    for space in _SPACES:
        table[space] = ord(" ")
    return bytes(table)


def _rot13_table() -> bytes:
    table = bytearray(range(256))
    for first in (ord("A"), ord("a")):
        for place in range(26):
            table[first + place] = first + (place + 13) % 26
    return bytes(table)


_ASCII: Final = _ascii_table()
_ROT13: Final = _rot13_table()


class _Table(dict[int, str]):
    """Code point → what it folds to; worked out once for each."""

    def __missing__(self, code: int) -> str:
        self[code] = folded = _fold_character(code)
        return folded


def _fold_character(code: int) -> str:
    if code in _TAGS:
        return chr(code - 0xE0000).lower()
    character = chr(code)
    if _INVISIBLE_CHARACTER.fullmatch(character):
        return ""
    if character.isspace():
        return " "
    plain = unicodedata.normalize("NFKC", character).casefold()
    made = []
    for letter in plain:
        apart = unicodedata.normalize("NFD", letter)
        # Accents go from Latin letters alone: elsewhere they make another letter.
        made.append(apart[0] if len(apart) > 1 and apart[0].isascii() else letter)
    return "".join(made).translate(_LETTERS)


# Letters that Unicode does not take apart (dotless i, l and o and d with a stroke), and quotation marks.
_LETTERS: Final = {
    0x131: "i", 0x142: "l", 0xF8: "o", 0x111: "d", 0x2018: " ", 0x2019: " ", 0x201C: " ", 0x201D: " ",
}  # fmt: skip
_FOLDED: Final = _Table()


def fold_word(text: str) -> str:
    """Return a short text folded, with its digits left."""
    return text.translate(_FOLDED).lower() if not text.isascii() else text.lower()


def fold(view: View) -> View:
    """Return a view folded."""
    plain = View(view.data.translate(_ASCII), view, layers=view.layers)
    if view.data.isascii():
        return plain
    if len(view.data.translate(None, _ASCII_BYTES)) * _FEW > len(view.data):
        # Of a script that folds to as many bytes, every byte stays in its place.
        folded = plain.data.decode(errors="replace").translate(_FOLDED).encode()
        if len(folded) == len(plain.data):
            return View(folded, plain, layers=view.layers)
    return replaced(plain, _beyond_ascii(plain.data, lambda text: text.translate(_FOLDED)))


def _beyond_ascii(data: bytes, change: Callable[[str], str]) -> Iterator[tuple[int, int, bytes]]:
    """Yield start and end of each run of what is not ASCII, and what becomes of it."""
    which = data.translate(_WHICH)
    end = 0
    while (start := which.find(1, end)) >= 0:
        end = which.find(0, start)
        end = len(data) if end < 0 else end
        yield start, end, change(data[start:end].decode(errors="replace")).encode()


def skeleton(view: View) -> View:
    """Return a folded view with every letter that looks like a Latin one made that."""
    if view.data.isascii():
        return view
    return replaced(view, _beyond_ascii(view.data, lambda text: text.translate(LOOKALIKES)))


def rot13(view: View) -> View:
    """Return a view with its letters moved by half the alphabet."""
    return View(view.data.translate(_ROT13), view, layers=view.layers + 1)


def without_separators(text: bytes) -> bytes:
    """Return the letters of a text that has a sign between each two; two signs or more stay one space."""
    return re.sub(rb"[^a-z]{2,8}", b"\x00", text).translate(None, b" ._-*,|/").replace(b"\x00", b" ")
