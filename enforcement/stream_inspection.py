"""Notifications of one stream, looked through one after the other, so that nothing gets past in pieces.

A server can send a secret in two notifications, half in each. So the texts of notifications of one kind are put behind
one another, member by member (``message`` of one report of progress behind ``message`` of the one before), and what is
found there is redacted in each of them. A notification whose text ends in the middle of a word that may go on is *held
back* until the next one, the answer, or the end of the stream; what comes after it waits behind it.

What is held is bounded (`MAX_HELD`, `MAX_HELD_BYTES`), and so is what of earlier texts is kept (`MAX_TAIL_BYTES`): a
secret in more or longer pieces than that loses its last ones. Nothing is held where nothing would be redacted or
blocked. A notification that would be blocked does not pass; it has no answer that could say so.

INVARIANT: the order in which notifications came stays.

INVARIANT 7: pieces that could not be looked at together (the inspector failed, or there are more members than are
followed) do not pass where nothing passes that was not looked at.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import msgspec

from enforcement.answer_inspection import AnswerInspection
from enforcement.config_inspection import Inspecting
from enforcement.looking import Look, told
from enforcement.redaction import Stretch, redacted
from enforcement.strictness import handling_of
from enforcement.verdicts import Permitted
from ledger.errors import MalformedError
from policies.signals import MAX_FINDINGS, Extent, Signals

__all__ = ["MAX_HELD", "MAX_HELD_BYTES", "MAX_TAIL_BYTES", "StreamInspection", "both"]

MAX_HELD: Final = 16
"""Notifications that are held back at once."""

MAX_HELD_BYTES: Final = 64 << 10
"""Bytes of them."""

MAX_TAIL_BYTES: Final = 4096
"""Bytes of the texts of one member that are kept, for what may go on."""

_MAX_MEMBERS: Final = 256
"""Members whose texts are followed, of all methods together."""

_OPEN_BYTES: Final = 6
"""A word of fewer bytes that ends a text is no beginning of anything worth holding a report of progress for."""

_TOKEN: Final = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"(?:[ \t\r\n]*(:))?', re.DOTALL)
_BACKSLASH: Final = 0x5C
_LONG_ESCAPE: Final = 6  # a backslash, u and four digits
_SPACE: Final = re.compile(rb"[ \t]|\\[nrt]|\\u0020")
# Words of the protocol, and what a client knows already.
_NO_TEXT: Final = frozenset(
    {b"jsonrpc", b"method", b"level", b"logger", b"progressToken", b"requestId", b"uri", b"elicitationId"}
)
_Tag = TypeVar("_Tag")


@dataclass(slots=True)
class _Held(Generic[_Tag]):
    """A notification that has not passed yet."""

    data: bytes
    tag: _Tag
    method: str = ""
    stretches: list[Stretch] = field(default_factory=list)
    blocked: bool = False


@dataclass(slots=True)
class _Piece(Generic[_Tag]):
    """One text of a notification: where it stands there, and what it is; of an earlier one, its end."""

    notice: _Held[_Tag]
    start: int
    text: bytes


class StreamInspection(Generic[_Tag]):
    """Looks through the notifications of one stream. Owned by the stream's reader."""

    def __init__(self, inspection: AnswerInspection | None, stream: Permitted) -> None:
        """Begin with nothing held.

        Args:
            inspection: Looks through texts; None if nobody does.
            stream: The message that the stream is for: its settings and obligations hold.
        """
        self._inspection = inspection
        self._stream = stream
        self._inspecting = None if inspection is None else inspection.inspecting(stream)
        self._enforced = handling_of(stream.server, stream.message)[0] == "enforce"
        self._queue: list[_Held[_Tag]] = []
        self._members: dict[tuple[str, bytes], list[_Piece[_Tag]]] = {}
        self._signals: Signals | None = None
        self._let_go: Counter[str] = Counter()
        self.redacted = 0

    @property
    def signals(self) -> Signals | None:
        """What was found so far; None if nothing was inspected."""
        return self._signals

    def let_go(self, method: str) -> int:
        """Return how many notifications of a method have passed so far."""
        return self._let_go[method]

    @property
    def holds(self) -> bool:
        """Whether anything is held back."""
        return bool(self._queue)

    async def take(self, method: str, data: bytes, tag: _Tag) -> list[tuple[bytes | None, _Tag]]:
        """Take the next notification; return those that may pass now, in order.

        Args:
            method: Its method.
            data: It, as the server sent it.
            tag: Comes back with it.

        Returns:
            Each with its tag; None in the place of one that may not pass.
        """
        notice = _Held(data, tag, method)
        if self._inspection is None or self._inspecting is None:
            return self._passed([notice])
        look = await self._inspection.look(self._inspecting, data, self._stream.decision_id)
        self._note(look)
        if not (self._enforced and self._inspecting.alters):
            return self._passed([notice])
        self._judge(notice, look, self._inspecting)
        self._queue.append(notice)
        for member in self._add(method, notice, self._inspecting):
            await self._over_seams(member, notice, self._inspection, self._inspecting)
        return self._release(self._open())

    def flush(self) -> list[tuple[bytes | None, _Tag]]:
        """Return all that is held: what follows does not wait for it."""
        return self._release(None)

    # --- looking

    def _note(self, look: Look) -> None:
        self._signals = both(self._signals, look.signals)

    def _judge(self, notice: _Held[_Tag], look: Look, inspecting: Inspecting) -> None:
        acts = inspecting.acts
        blocked = any(acts[kind] == "block" for kind in look.kinds)
        placeless = any(acts[kind] == "redact" for kind in look.placeless)
        notice.blocked = blocked or placeless or (not look.whole and inspecting.holds_partial)
        notice.stretches += [one for one in look.stretches if acts[one.kind] == "redact"]

    def _add(self, method: str, notice: _Held[_Tag], inspecting: Inspecting) -> list[list[_Piece[_Tag]]]:
        """Put the texts of a notification behind those before; return the members that it has texts of."""
        touched: dict[tuple[str, bytes], list[_Piece[_Tag]]] = {}
        for name, start, text in _texts(notice.data):
            key = (method, name)
            if key not in self._members and len(self._members) >= _MAX_MEMBERS:
                self._not_looked_at([notice], inspecting)
                continue
            touched[key] = pieces = self._members.setdefault(key, [])
            pieces.append(_Piece(notice, start, text))
        return list(touched.values())

    def _not_looked_at(self, notices: Sequence[_Held[_Tag]], inspecting: Inspecting) -> None:
        """Note that some notifications were not looked at together."""
        if self._signals is not None:  # what was looked at first is noted already
            self._signals = msgspec.structs.replace(self._signals, inspected="partial")
        for notice in notices:
            notice.blocked = notice.blocked or inspecting.holds_partial

    async def _over_seams(
        self, pieces: list[_Piece[_Tag]], newest: _Held[_Tag], inspection: AnswerInspection, inspecting: Inspecting
    ) -> None:
        """Look through the texts of one member as if they were one; keep the end of them."""
        most = min(MAX_TAIL_BYTES, inspecting.max_bytes // 2)
        if pieces[0].notice is not newest:
            await self._look_together(pieces, inspection, inspecting)
        while len(pieces) > 1 and sum(len(piece.text) for piece in pieces[1:]) >= most:
            del pieces[0]
        cut = _outside_escapes(pieces[0].text, sum(len(piece.text) for piece in pieces) - most)
        pieces[0].start += cut
        pieces[0].text = pieces[0].text[cut:]

    async def _look_together(
        self, pieces: list[_Piece[_Tag]], inspection: AnswerInspection, inspecting: Inspecting
    ) -> None:
        """Look for what reaches over a seam, as far as may be looked at."""
        shown: list[bytes] = []
        left = inspecting.max_bytes - len(b'""')
        for piece in pieces:
            shown.append(piece.text[: _outside_escapes(piece.text, left - 2 * _LONG_ESCAPE, all_of=left)])
            left -= len(shown[-1])
        look = await inspection.look(inspecting, b'"' + b"".join(shown) + b'"', self._stream.decision_id)
        if not look.whole:
            self._not_looked_at([piece.notice for piece in pieces], inspecting)
        begin = 1
        for piece, text in zip(pieces, shown, strict=True):
            end = begin + len(text)
            for one in look.stretches:
                # What lies within one text was found there.
                if one.end <= begin or end <= one.start or (begin <= one.start and one.end <= end):
                    continue
                low, high = max(begin, one.start), min(end, one.end)
                stretch = Stretch(piece.start + low - begin, piece.start + high - begin, one.kind)
                if inspecting.acts[one.kind] == "block":
                    piece.notice.blocked = True
                elif inspecting.acts[one.kind] == "redact":
                    piece.notice.stretches.append(stretch)
                if end >= one.end:  # once for each
                    self._note(Look(signals=_only(look.signals, one.kind)))
            begin = end

    def _open(self) -> _Held[_Tag] | None:
        """Return the first notification that waits and whose text may go on; None if none does."""
        waiting = {id(notice) for notice in self._queue}
        found: set[int] = set()
        for pieces in self._members.values():
            length = 0
            reaching: set[int] = set()
            for piece in reversed(pieces):
                spaces = list(_SPACE.finditer(piece.text))
                length += len(piece.text) - (spaces[-1].end() if spaces else 0)
                if not spaces or spaces[-1].end() < len(piece.text):
                    reaching.add(id(piece.notice))
                if spaces:
                    break
            if length >= _OPEN_BYTES:
                found |= reaching & waiting
        return next((notice for notice in self._queue if id(notice) in found), None)

    def _release(self, first_held: _Held[_Tag] | None) -> list[tuple[bytes | None, _Tag]]:
        """Let go what stands before the first notification that is held, and the oldest if there are too many."""
        count = len(self._queue)
        if first_held is not None:
            count = next(place for place, notice in enumerate(self._queue) if notice is first_held)
            while len(self._queue) - count > MAX_HELD or _size(self._queue[count:]) > MAX_HELD_BYTES:
                count += 1
        going, self._queue = self._queue[:count], self._queue[count:]
        return self._passed(going)

    def _passed(self, going: Sequence[_Held[_Tag]]) -> list[tuple[bytes | None, _Tag]]:
        shown = [(self._shown(notice), notice.tag) for notice in going]
        self._let_go.update(notice.method for notice, (data, _) in zip(going, shown, strict=True) if data is not None)
        return shown

    def _shown(self, notice: _Held[_Tag]) -> bytes | None:
        if notice.blocked:
            return None
        if not notice.stretches:
            return notice.data
        try:
            made, places = redacted(notice.data, notice.stretches)
        except MalformedError:
            return None
        self.redacted += places
        return made


def both(one: Signals | None, other: Signals | None) -> Signals | None:
    """Return what two looks found together; None if neither looked."""
    if one is None or other is None:
        return one or other
    names = {*one.findings, *other.findings}
    extents: set[Extent] = {one.inspected, other.inspected} - {"none"}
    if len(names) > MAX_FINDINGS:
        extents.add("partial")
    extent: Extent = "none" if not extents else "partial" if "partial" in extents else "complete"
    return Signals(
        inspected=extent,
        inspector=one.inspector or other.inspector,
        findings=told(names),
        finding_count=one.finding_count + other.finding_count,
    )


def _only(signals: Signals, kind: str) -> Signals:
    """Return one finding of a kind, by the names that a look has for it."""
    names = tuple(name for name in signals.findings if name.startswith(f"{kind}/"))
    return Signals(
        inspected=signals.inspected, inspector=signals.inspector, findings=names, finding_count=max(1, len(names))
    )


def _size(queue: list[_Held[_Tag]]) -> int:
    return sum(len(notice.data) for notice in queue)


def _outside_escapes(text: bytes, place: int, *, all_of: int = 0) -> int:
    """Return a place of an escaped text that is in no escape and no character: this one, or the next after it.

    Args:
        text: The text.
        place: The place; before its beginning, the beginning is meant.
        all_of: Of a text that is no longer, the end is meant.
    """
    if len(text) <= all_of:
        return len(text)
    if place <= 0:
        return 0
    for start in range(max(0, place - _LONG_ESCAPE + 1), place):
        if text[start] == _BACKSLASH and (start - len(text[:start].rstrip(b"\\"))) % 2 == 0:
            end = start + (_LONG_ESCAPE if text[start + 1 : start + 2] == b"u" else 2)
            if end > place:
                return min(end, len(text))
    while place < len(text) and text[place] & 0xC0 == 0x80:  # noqa: PLR2004  # the middle of a character in UTF-8
        place += 1
    return place


def _texts(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield the texts of a notification: the name of the member, where the text begins, and the text, escaped."""
    name = b""
    for match in _TOKEN.finditer(data):
        if match[2]:
            name = _plain(match[1])
        elif name not in _NO_TEXT and match[1]:
            yield name, match.start(1), match[1]


def _plain(name: bytes) -> bytes:
    """Return a member's name as a reader has it, however it is written."""
    if b"\\" not in name:
        return name
    try:
        said: str = json.loads(b'"' + name + b'"', strict=False)
    except ValueError:  # no reader has one for it
        return name
    return said.encode(errors="surrogatepass")
