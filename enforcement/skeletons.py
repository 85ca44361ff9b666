"""Which names look alike, and which characters of a text nobody sees.

Pure. Used for tools' names (`enforcement.pin_rules`), and for whatever else people must be able to tell apart.

Two names with one skeleton are taken for each other by people, by models, or by a server that is careless about
spelling: it is the same for all letter cases, Unicode forms, percent-encodings, separators and look-alike letters.

Source: Unicode Technical Standard 39, section 4 (skeletons); the tables are those of the library ``disarm``.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import unquote

from disarm import skeleton_key

__all__ = ["hidden_characters", "shown", "skeleton"]

_MAX_CHARS: Final = 2048
_UNQUOTINGS: Final = 16
_NESTED: Final = re.compile(r"%(?:25)+(?=[0-9A-Fa-f]{2})")  # a percent sign that was encoded again and again
_SEPARATORS: Final = re.compile(r"[\W_]+")
_HIDDEN: Final = re.compile(
    "["
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters, but for tab, line feed and carriage return
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, fillers, letter and vowel separators
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff0-\ufffb"  # no width, or a direction
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"  # tags, further selectors of variants
    "]"
    # Joiners, and selectors of variants, belong to other scripts and to emoji; between Latin letters they hide.
    "|(?<=[\x00-\x7f])[\u200c\u200d\ufe00-\ufe0e](?=[\x00-\x7f])"
    "|[\ufe00-\ufe0f]{2,}"
)
_UNSHOWN: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp", "Mn", "Me"})


def skeleton(name: str) -> str:
    """Return what is the same for all names that look, or may be read, like this one.

    A name of nothing but separators and characters that nobody sees has the skeleton of its own characters' numbers.
    """
    text = name[:_MAX_CHARS]
    for _ in range(_UNQUOTINGS):
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)  # percent signs and digits come in other widths as well
        if "%" not in text or (decoded := unquote(_NESTED.sub("%", text))) == text:
            break
        text = decoded
    key = skeleton_key(text.encode(errors="replace").decode(), digit_policy="tr39")
    # A capital I looks like a small l, and is a small i to whoever reads without regard to case: all three are one.
    key = _SEPARATORS.sub("", key).replace("rn", "m").replace("i", "l")
    return key or "\x00" + ",".join(format(ord(character), "x") for character in text)


def hidden_characters(text: str) -> tuple[str, ...]:
    """Return the characters of a text that nobody sees, each once, by code point and name, sorted."""
    if text.isascii() and text.isprintable():
        return ()
    found = {character for match in _HIDDEN.finditer(text) for character in match[0]}
    return tuple(sorted(_named(character) for character in found))


def shown(text: str) -> str:
    """Return a text in which every character that would not be seen as itself stands as its code point and name."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def _shown(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() or character == "\n" else f"⟨{_named(character)}⟩"
    if unicodedata.category(character) in _UNSHOWN or _HIDDEN.match(character) or not character.isprintable():
        return f"⟨{_named(character)}⟩"
    return character


def _named(character: str) -> str:
    name = unicodedata.name(character, "")
    return f"U+{ord(character):04X} {name}".rstrip()
