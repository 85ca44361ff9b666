"""What an encoding hides: its pieces are opened and looked at like the text itself, layer in layer, within limits.

Pure. Opened are percent signs, character references, backslash escapes, base64 and base32, hexadecimal digits, bytes
written as numbers, and what is compressed inside of those; letters moved by thirteen places and text written
backwards where its words show through. An opened piece is looked at only if it is text.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

from enforcement.inspection.patterns import Pattern, linear
from enforcement.inspection.settings import Limits
from enforcement.inspection.sieve import BACKWARDS, EVERYWHERE, MOVED, Sieved
from enforcement.inspection.views import View, pieces, substituted

__all__ = ["Opened", "opened", "reversed_or_moved"]

_BLOB: Final = linear(
    rb"[A-Za-z0-9+/_-]{16,}(?:\r?\n[A-Za-z0-9+/_-]{16,})*={0,2}"
    rb"|(?:[0-9a-fA-F]{2}[ :]){11,}[0-9a-fA-F]{2}|(?:[0-9]{2,3}(?:, ?| )){11,}[0-9]{2,3}|(?:[01]{8} ?){8,}"
)
_PERCENT: Final = re.compile(rb"(?:%[0-9A-Fa-f]{2})+")
_REFERENCE: Final = re.compile(rb"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});")
_BACKSLASH: Final = re.compile(
    rb"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]{1,6}\}|U[0-9a-fA-F]{8}|[0-7]{3}|[nrt\"'/\\])"
)
_HEX: Final = re.compile(rb"(?:[0-9a-fA-F]{2})+")
_BASE32: Final = re.compile(rb"[A-Z2-7]{16,}={0,6}")
_NUMBERS: Final = re.compile(rb"[0-9]{2,3}(?:(?:, ?| )[0-9]{2,3})+")
_BITS: Final = re.compile(rb"(?:[01]{8} ?)+")
_MOVED, _BACKWARDS = linear(MOVED), linear(BACKWARDS)
_MOST_BLOBS: Final = 2_000
_TEXT_SHARE: Final = 0.95
_SHORTEST_TEXT: Final = 8
_PRINTABLE: Final = bytes({*range(32, 127), 9, 10, 13, *range(0x80, 0x100)})
_GZIP, _ZLIB = b"\x1f\x8b", (b"\x78\x01", b"\x78\x9c", b"\x78\xda", b"\x78\x5e")


@dataclass(frozen=True, slots=True)
class _Sort:
    """A way to escape characters: its name in the sieve, where several stand together, one of them, its meaning."""

    name: str
    stretch: Pattern
    escape: re.Pattern[bytes]
    decode: Callable[[re.Match[bytes]], bytes]


@dataclass(slots=True)
class Opened:
    """What was opened.

    Attributes:
        views: The layers, one deeper than what they were found in.
        spent: Bytes that they hold.
        complete: Whether everything was opened.
        bombs: Rule, start and end of what would have become too long.
    """

    views: list[View]
    spent: int
    complete: bool
    bombs: list[tuple[str, int, int]]


def opened(view: View, limits: Limits, ratio: int, budget: int, sieved: Sieved = EVERYWHERE) -> Opened:
    """Open every encoded piece of a view.

    Args:
        view: Where to look.
        limits: How much is opened at most.
        ratio: How many times longer what was compressed may be.
        budget: Bytes that may still be made.
        sieved: Where in the view there can be escapes.
    """
    found = Opened([], 0, complete=True, bombs=[])
    for sort in _SORTS:
        if sieved.has(sort.name):
            _escapes(view, sort, found, budget, sieved)
    blobs = list(_blobs(view, ratio, budget - found.spent, found))
    if blobs:
        _add(found, pieces(view, blobs, layers=view.layers + 1), budget)
    if found.views and view.layers >= limits.max_layers:
        return Opened([], 0, complete=False, bombs=[*found.bombs, ("encoding_depth", *_span(found.views[0]))])
    return found


def _escapes(view: View, sort: _Sort, found: Opened, budget: int, sieved: Sieved) -> None:
    """Undo the escapes of one sort, only where they stand close together: one alone hides no words."""
    stretches = [
        (start, end, view.data[start:end])
        for start, end in islice(
            (match.span() for match in sort.stretch.finditer(view.data, sieved.within(sort.name))), _MOST_BLOBS
        )
    ]
    if stretches:
        made = substituted(pieces(view, stretches, layers=view.layers + 1), sort.escape, sort.decode)
        made.layers = view.layers + 1
        _add(found, made, budget)
        found.complete = found.complete and len(stretches) < _MOST_BLOBS


def _span(view: View) -> tuple[int, int]:
    """Return where in what was looked at a layer's first piece stands."""
    assert view.parent is not None  # a layer is made of something
    return (view if view.parent.parent is None or not view.parent.edits else view.parent).edits[0][2:]


def _add(found: Opened, view: View, budget: int) -> None:
    if found.spent + len(view.data) > budget:
        found.complete = False
        return
    found.spent += len(view.data)
    found.views.append(view)


def _unpercent(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[0].replace(b"%", b"").decode())


def _unreference(match: re.Match[bytes]) -> bytes:
    return html.unescape(match[0].decode()).encode(errors="replace")


def _unbackslash(match: re.Match[bytes]) -> bytes:
    text = match[0][1:].decode()
    if text[0] in "xuU":
        code = int(text[1:].strip("{}"), 16)
    elif text[0].isdigit():
        code = int(text, 8)
    else:
        return {"n": b"\n", "r": b"\r", "t": b"\t"}.get(text, text.encode())
    return chr(code).encode(errors="replace") if code <= 0x10FFFF else b"?"  # noqa: PLR2004  # the last code point


_SORTS: Final = (
    _Sort(
        "percent",
        linear(rb"(?:[^\s%\"'<>]{0,24}%[0-9A-Fa-f]{2}){2,}[^\s%\"'<>]{0,48}"),
        _PERCENT,
        _unpercent,
    ),
    _Sort(
        "reference",
        linear(rb"(?:[^\n&]{0,16}&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,8});){3,}[^\n&]{0,48}"),
        _REFERENCE,
        _unreference,
    ),
    _Sort(
        "backslash",
        linear(
            rb"(?:[^\n\\]{0,12}\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]{1,6}\}|U[0-9a-fA-F]{8}|[0-7]{3})){4,}"
            rb"[^\n\\]{0,48}"
        ),
        _BACKSLASH,
        _unbackslash,
    ),
)


def _blobs(view: View, ratio: int, budget: int, found: Opened) -> Iterator[tuple[int, int, bytes]]:
    spent = 0
    candidates = _BLOB.finditer(view.data)
    for match in islice(candidates, _MOST_BLOBS):
        start, end = match.span()
        if _is_word(match.group()):
            continue
        for text in _decoded(match.group()):
            plain = _inflated(text, ratio)
            if plain is None:
                found.bombs.append(("compressed", start, end))
                found.complete = False
                continue
            if not _is_text(plain):
                plain = _wide(plain)
            if not plain or not _is_text(plain):
                continue
            spent += len(plain)
            if spent > budget:
                found.complete = False
                return
            yield start, end, plain
            break
    if next(candidates, None) is not None:
        found.complete = False


def _is_word(text: bytes) -> bool:
    """Whether a candidate is a name or a path: letters of one case without digits, joined by signs."""
    return (text.islower() or text.isupper()) and text.translate(None, b"0123456789=") == text


def _decoded(text: bytes) -> Iterator[bytes]:
    """Yield what a blob may mean, most likely first."""
    bare = text.translate(None, b"\r\n: ")
    if _NUMBERS.fullmatch(text):
        numbers = [int(number) for number in re.findall(rb"[0-9]+", text)]
        if all(number < 256 for number in numbers):  # noqa: PLR2004  # a byte
            yield bytes(numbers)
        return
    if _BITS.fullmatch(text):
        bits = text.replace(b" ", b"")
        yield bytes(int(bits[place : place + 8], 2) for place in range(0, len(bits), 8))
        return
    if _HEX.fullmatch(bare) and not bare.isdigit():
        yield bytes.fromhex(bare.decode())
        return
    if _BASE32.fullmatch(bare):
        with suppress(binascii.Error):
            yield base64.b32decode(bare.rstrip(b"=") + b"=" * (-len(bare.rstrip(b"=")) % 8))
    standard = bare.translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
    standard = standard[: len(standard) - (len(standard) % 4 == 1)]
    try:
        yield binascii.a2b_base64(standard + b"=" * (-len(standard) % 4))
    except binascii.Error:
        return


def _inflated(data: bytes, ratio: int) -> bytes | None:
    """Return what compressed bytes hold, or the bytes themselves; None if it is too long for them."""
    if data[:2] == _GZIP:
        inflater = zlib.decompressobj(wbits=31)
    elif data[:2] in _ZLIB:
        inflater = zlib.decompressobj()
    else:
        return data
    most = ratio * len(data)
    try:
        plain = inflater.decompress(data, most)
    except zlib.error:
        return data
    return None if len(plain) >= most else plain


def _is_text(data: bytes) -> bool:
    if len(data) < _SHORTEST_TEXT or len(data) - len(data.translate(None, _PRINTABLE)) < _TEXT_SHARE * len(data):
        return False
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _wide(data: bytes) -> bytes:
    """Return bytes of UTF-16 as UTF-8; empty if they are none."""
    for zeros, encoding in ((data[1::2], "utf-16-le"), (data[::2], "utf-16-be")):
        if data and zeros.count(0) > _TEXT_SHARE * len(zeros):
            return data.decode(encoding, errors="replace").encode()
    return b""


def reversed_or_moved(view: View, sieved: Sieved = EVERYWHERE) -> tuple[bool, bool]:
    """Whether words show through that are written backwards, and such that are moved by thirteen letters."""
    backwards = sieved.has("backwards") and _BACKWARDS.matches(view.data)
    return backwards, sieved.has("moved") and len(list(islice(_MOVED.finditer(view.data), 2))) > 1
