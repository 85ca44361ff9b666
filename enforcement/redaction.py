"""JSON text with stretches of it replaced, so that it stays JSON.

Pure. What is replaced is named by bytes of the text (`enforcement.looking`); everything else stays byte for byte. A
stretch within a string becomes a marker, such as ``[redacted: secret]``. A number or word that was found becomes a
string that holds the marker, because no number says that it is none. Where a member's *name* was found, its markers are
numbered: two names that both go must not become one.

INVARIANT: whatever is asked for, what is returned is JSON if the text was, and holds no byte of a stretch that was to
go. What cannot be replaced like that raises.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from ledger.errors import MalformedError

__all__ = ["Stretch", "redacted"]

_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[^\s{}\[\],:"]+', re.DOTALL)
_NAME_FOLLOWS: Final = re.compile(rb"[ \t\r\n]*:")
_ESCAPE: Final = re.compile(rb"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)
_QUOTE: Final = 0x22
_ANY: Final = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True, slots=True, order=True)
class Stretch:
    """Bytes of a JSON text that are to go.

    Attributes:
        start: The first of them.
        end: After the last.
        kind: Of what they are; stands in the marker.
    """

    start: int
    end: int
    kind: str


def redacted(data: bytes, stretches: Sequence[Stretch]) -> tuple[bytes, int]:
    """Return a JSON text without some stretches of it, and how many places of it were replaced.

    Args:
        data: A JSON text.
        stretches: What is to go, in any order; they may overlap.

    Raises:
        MalformedError: A stretch holds no part of a string, number or word, or the text is no JSON.
    """
    merged = _merged(stretches)
    parts: list[bytes] = []
    done = places = names = 0
    hit: set[int] = set()
    for start, end, portions in _touched(data, merged, hit):
        quoted = data[start] == _QUOTE
        is_name = quoted and _NAME_FOLLOWS.match(data, end) is not None
        for low, high, kind in portions if quoted else [(start, end, portions[0][2])]:
            names += is_name
            marker = f"[redacted: {kind} {names}]" if is_name else f"[redacted: {kind}]"
            parts += [data[done:low], marker.encode() if quoted else f'"{marker}"'.encode()]
            done = high
            places += 1
    if len(hit) != len(merged):
        raise MalformedError("what is to be redacted is no part of a value")
    made = b"".join([*parts, data[done:]])
    if places:
        _check(made)
    return made, places


def _merged(stretches: Sequence[Stretch]) -> list[Stretch]:
    """Return stretches that have nothing in common, in order."""
    merged: list[Stretch] = []
    for stretch in sorted(stretches):
        if stretch.start >= stretch.end:
            raise MalformedError("what is to be redacted is empty")
        if merged and stretch.start < merged[-1].end:
            before = merged[-1]
            merged[-1] = Stretch(before.start, max(before.end, stretch.end), before.kind)
        else:
            merged.append(stretch)
    return merged


def _touched(
    data: bytes, merged: Sequence[Stretch], hit: set[int]
) -> Iterator[tuple[int, int, list[tuple[int, int, str]]]]:
    """Yield the strings, numbers and words that hold parts of stretches: where they stand, and which parts.

    Args:
        data: A JSON text.
        merged: The stretches, in order.
        hit: Gets the places of those that were found.
    """
    first = 0
    for match in _TOKEN.finditer(data):
        while first < len(merged) and merged[first].end <= match.start():
            first += 1
        if first == len(merged):
            return
        start, end = match.span()
        if merged[first].start >= end:
            continue
        inner = (start + 1, end - 1) if data[start] == _QUOTE else (start, end)
        portions = []
        for place in range(first, len(merged)):
            if merged[place].start >= end:
                break
            low, high = max(inner[0], merged[place].start), min(inner[1], merged[place].end)
            if low < high:
                hit.add(place)
                portions.append((low, high, merged[place].kind))
        if portions:
            yield start, end, _whole_characters(data, inner, portions)


def _whole_characters(
    data: bytes, inner: tuple[int, int], portions: Sequence[tuple[int, int, str]]
) -> list[tuple[int, int, str]]:
    """Return the portions of a string so that none cuts an escape or a character, and none reaches into the next."""
    escapes = [match.span() for match in _ESCAPE.finditer(data, *inner)] if b"\\" in data[slice(*inner)] else []
    starts = [start for start, _ in escapes]
    found: list[tuple[int, int, str]] = []
    for first, last, kind in portions:
        low, high = _outside(escapes, starts, first, later=False), _outside(escapes, starts, last, later=True)
        while low > inner[0] and data[low] & 0xC0 == 0x80:  # noqa: PLR2004  # the middle of a character in UTF-8
            low -= 1
        while high < inner[1] and data[high] & 0xC0 == 0x80:  # noqa: PLR2004  # likewise
            high += 1
        if found and low < found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]), found[-1][2])
        else:
            found.append((low, high, kind))
    return found


def _outside(escapes: Sequence[tuple[int, int]], starts: Sequence[int], place: int, *, later: bool) -> int:
    """Return a place, or the end or beginning of the escape that it is in the middle of."""
    number = bisect_right(starts, place) - 1
    if number >= 0 and escapes[number][0] < place < escapes[number][1]:
        return escapes[number][later]
    return place


def _check(made: bytes) -> None:
    try:
        _ANY.decode(made)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        # Half of a surrogate pair is no Unicode, and servers send it all the same.
        try:
            json.loads(made)
        except (ValueError, RecursionError) as error:
            raise MalformedError("what is left after redaction is no JSON") from error
