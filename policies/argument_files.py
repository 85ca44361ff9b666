"""File paths in a call's arguments: one spelling each, or none.

Pure. A rule that allows ``/data`` must not be talked into ``/data/../etc``, ``/database`` or ``/data/%2e%2e/etc``. What
a server makes of an unusual spelling cannot be known here, so a path has one plain spelling or is no path at all; no
spelling is put right. A plain path becomes its *lineage*: itself and every folder above it, each as text. A policy
then asks whether one of its folders is among them, which no prefix of a name can pass for:

    "/data/a.txt"  →  "/data/a.txt", "/data", "/"
    "src/main.py"  →  "src/main.py", "src", "."

What cannot be seen here: whether a part is a symbolic link, and what a relative path is relative to. Both are the
server's to confine.
"""

from __future__ import annotations

import unicodedata
from itertools import accumulate
from typing import Final

__all__ = ["MAX_PATH_CHARS", "MAX_PATH_PARTS", "folded", "lineage"]

MAX_PATH_CHARS: Final = 4096
MAX_PATH_PARTS: Final = 64

# A backslash separates on Windows, a percent sign is decoded by whoever takes the path for part of a URL.
_REFUSED: Final = frozenset("\\%")
# What compatibility normalisation may turn another character into; a server that normalises would see another path.
_TELLING: Final = frozenset("/\\%.:~")
# Control, format, surrogate, private and unassigned characters; separators of lines and paragraphs.
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def _plain_text(text: str) -> bool:
    """Tell whether every character is what it seems to be."""
    if not text or len(text) > MAX_PATH_CHARS or not _REFUSED.isdisjoint(text):
        return False
    if text.isascii():
        return text.isprintable()
    if not unicodedata.is_normalized("NFC", text) or any(unicodedata.category(char) in _INVISIBLE for char in text):
        return False
    compatible = unicodedata.normalize("NFKC", text)
    return all(text.count(char) == compatible.count(char) for char in _TELLING)


def _plain_part(part: str) -> bool:
    """Tell whether a part names one entry of a folder; ``..``, and names that Windows would shorten, do not."""
    return bool(part) and not part[0].isspace() and not part[-1].isspace() and part[-1] != "."


def _plain_start(part: str) -> bool:
    """Tell whether a relative path may begin so: not with a home folder, an option, a drive or a URL's scheme."""
    return part[0] not in "~-" and ":" not in part


def lineage(text: str) -> tuple[str, ...] | None:
    """Return a path and the folders above it, itself first; None if it is not in plain spelling.

    One slash at the end is the same path as none.

    Args:
        text: An absolute path such as ``/data/a.txt``, or a relative one such as ``src/main.py``.
    """
    if text == "/":
        return ("/",)
    if not _plain_text(text):
        return None
    parts = text.removesuffix("/").split("/")
    absolute = not parts[0]
    if absolute:
        del parts[0]
    if not 0 < len(parts) <= MAX_PATH_PARTS or not all(map(_plain_part, parts)):
        return None
    if not absolute and not _plain_start(parts[0]):
        return None
    parts[0] = f"/{parts[0]}" if absolute else parts[0]
    longer = accumulate(parts, "{}/{}".format)
    return (*reversed(list(longer)), "/" if absolute else ".")


def folded(text: str) -> str:
    """Return a path without regard to upper and lower case, as file systems compare that know no difference."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text).casefold())
