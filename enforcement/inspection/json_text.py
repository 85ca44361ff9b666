"""JSON as bytes: its escapes undone without reading it, how deep it goes, and which value stands at which byte.

Pure. Nothing is parsed into values: two members of the same name are both looked at, numbers stay what they are, and
what is found has its place in the very bytes that are passed on.

Source: RFC 8259; JSON pointers as of RFC 6901.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from enforcement.inspection.views import View, substituted

__all__ = ["Spot", "exceeds_depth", "is_json", "spots", "text_values", "unescaped"]

_PAIR: Final = rb"u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE: Final = re.compile(rb'\\(?:["\\/bfnrt]|' + _PAIR + rb"|u[0-9a-fA-F]{4})")
_SHORT: Final = {
    b"\\b": b"\b",
    b"\\f": b"\f",
    b"\\n": b"\n",
    b"\\r": b"\r",
    b"\\t": b"\t",
    b'\\"': b'"',
    b"\\\\": b"\\",
    b"\\/": b"/",
}
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+|"', re.DOTALL)
_ANY_ESCAPE: Final = re.compile(rb"\\.", re.DOTALL)
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]{0,40}")
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'{}[]"'))
_OPEN_OR_CLOSED: Final = bytes.maketrans(b"[]", b"{}")
_HIDDEN: Final = "*"
_DEEP: Final = 64
_TEXT_NAMES: Final = frozenset({b'"text"', b'"delta"'})
_SPELT_NAME: Final = re.compile(rb'\\u00[67][0-9a-fA-F](?:[a-z]|\\u00[67][0-9a-fA-F]){0,4}"[ \t\r\n]*:')
_TEXT_VALUE: Final = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Spot:
    """A stretch of a JSON text that lies within one string, number or word.

    Attributes:
        place: Pointer to it.
        start: First byte.
        end: After its last byte.
        is_name: Whether it lies in a member's name.
    """

    place: str
    start: int
    end: int
    is_name: bool


def is_json(data: bytes) -> bool:
    """Whether bytes begin as a JSON object, list or string does; numbers and words hold nothing to find a place in."""
    return data.lstrip()[:1] in (b"{", b"[", b'"')


def unescaped(view: View) -> View:
    """Return the view with the escapes of JSON strings undone; strings stay in their quotes."""
    return substituted(view, _ESCAPE, _unescape) if b"\\" in view.data else view


def _unescape(match: re.Match[bytes]) -> bytes:
    text = match[0]
    short = _SHORT.get(text)
    if short is not None:
        return short
    if len(text) > len(b"\\u0000"):
        high, low = int(text[2:6], 16), int(text[8:], 16)
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)).encode()
    return chr(int(text[2:].decode(), base=16)).encode(errors="replace")


def exceeds_depth(data: bytes, limit: int) -> bool:
    """Whether lists and objects stand in each other more than ``limit`` deep. Linear.

    Of what is no JSON, anything may be said.
    """
    if data.count(b"{") + data.count(b"[") <= limit:
        return False
    if b"\\" in data:
        data = _ANY_ESCAPE.sub(b"", data)
    # Two signs at once leave every other one inside or outside of a string, as it was.
    signs = data.translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    bare = b"".join(signs.split(b'"')[::2]).translate(_OPEN_OR_CLOSED)
    # Taking the innermost pairs away makes it one less deep.
    left, rounds = bare, 0
    while b"{}" in left and rounds <= limit:
        left, rounds = left.replace(b"{}", b""), rounds + 1
    if not left or rounds > limit:
        return rounds > limit
    depth = most = 0  # something was never closed: cut off, or no JSON
    for byte in bare:
        if byte in b"{":
            depth += 1
            most = max(most, depth)
        else:
            depth -= 1
    return most > limit


@dataclass(slots=True)
class _Level:
    is_list: bool
    index: int = 0
    name: str = ""
    awaits_name: bool = True


def spots(data: bytes, spans: Sequence[tuple[int, int]]) -> list[list[Spot]]:
    """Return, for each span, where it lies.

    Args:
        data: A JSON text.
        spans: In order of their starts.

    Returns:
        For each span its stretches: several where it reaches over the ends of strings; none where it holds punctuation
        only.
    """
    found: list[list[Spot]] = [[] for _ in spans]
    if not spans:
        return found
    last = max(end for _, end in spans)
    waiting = 0  # the first span that may still reach into a token
    furthest = [0] * len(spans)
    reach = 0
    for number, (_, end) in enumerate(spans):
        furthest[number] = reach = max(reach, end)
    for start, end, place in _values(data, spans):
        if start >= last:
            break
        while waiting < len(spans) and furthest[waiting] <= start:
            waiting += 1
        for number in range(waiting, len(spans)):
            if spans[number][0] >= end:
                break
            low, high = max(start, spans[number][0]), min(end, spans[number][1])
            if low < high:
                found[number].append(Spot(place(), low, high, place.is_name))
    return found


class _Placer:
    """Writes the pointer of a token, when somebody asks for it."""

    def __init__(self, levels: list[_Level], *, is_name: bool) -> None:
        self._levels = levels
        self.is_name = is_name

    def __call__(self) -> str:
        levels = self._levels[:_DEEP]
        names = [str(level.index) if level.is_list else level.name for level in levels]
        if self.is_name:
            # The name itself may be what was found.
            return "name of " + "".join(f"/{name}" for name in [*names[:-1], _HIDDEN])
        return "".join(f"/{name}" for name in names) + ("/…" if len(self._levels) > _DEEP else "")


def _values(data: bytes, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, _Placer]]:
    """Yield start, end and pointer of the inner of every string, and of every number and word."""
    levels: list[_Level] = []
    apart = _Apart(spans)
    for match in _TOKEN.finditer(data):
        token = match[0]
        sign = token[:1]
        top = levels[-1] if levels else None
        if sign in b"{[" and len(token) == 1:
            levels.append(_Level(is_list=sign == b"["))
        elif sign in b"}]" and len(token) == 1:
            if levels:
                levels.pop()
        elif sign == b"," and len(token) == 1:
            if top is not None:
                top.index += 1
                top.awaits_name = True
        elif sign == b":" and len(token) == 1:
            if top is not None:
                top.awaits_name = False
        else:
            quoted = len(token) > 1 and sign == b'"'
            start, end = match.start() + quoted, match.end() - quoted
            is_name = top is not None and not top.is_list and top.awaits_name
            if is_name:
                assert top is not None  # `is_name` says so
                top.name = _shown(token[1:-1], touched=apart.touches(start, end))
            yield start, end, _Placer(levels, is_name=is_name)


def _shown(name: bytes, *, touched: bool) -> str:
    """Return a member's name as a pointer may show it; a name may itself be what was found."""
    text = name.decode("latin-1")
    return text if _PLAIN_NAME.fullmatch(text) and not touched else _HIDDEN


class _Apart:
    """Spans put together where they touch, so that one look says whether another touches any."""

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in spans:
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(self._ends[-1], end)
            else:
                self._starts.append(start)
                self._ends.append(end)

    def touches(self, start: int, end: int) -> bool:
        """Whether any span has a byte in common with this one."""
        number = bisect_right(self._starts, end - 1) - 1
        return number >= 0 and self._ends[number] > start


def text_values(data: bytes) -> list[tuple[int, int]]:
    """Return the insides of the strings named ``text`` or ``delta``, which a reader puts behind one another.

    To a reader, a name that is written with escapes is the same name.
    """
    if _SPELT_NAME.search(data):
        return _named_texts(data)
    found = []
    for name in _TEXT_NAMES:
        at = data.find(name)
        while at >= 0:
            match = None if data[at - 1 : at] == b"\\" else _TEXT_VALUE.match(data, at + len(name))
            if match:
                found.append((at, match.span(1)))
            at = data.find(name, match.end() if match else at + 1)
    done = 0
    values = []
    for at, span in sorted(found):
        if at >= done:
            values.append(span)
            done = span[1] + 1
    return values


def _named_texts(data: bytes) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    name = before = b""
    for match in _TOKEN.finditer(data):
        token = match[0]
        if token == b":":
            name = before
        elif len(token) > 1 and token[:1] == b'"' and _plain(name) in _TEXT_NAMES:
            found.append((match.start() + 1, match.end() - 1))
        before, name = token, name if token == b":" else b""
    return found


def _plain(name: bytes) -> bytes:
    return _ESCAPE.sub(_unescape, name) if b"\\" in name else name
