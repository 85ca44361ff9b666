"""Notifications of one stream, looked through one after the other, so that nothing gets past in pieces.

A server can send a secret in two notifications, half in each. So the texts of notifications of one kind are put behind
one another, member by member (``message`` of one report of progress behind ``message`` of the one before), and what is
found there is redacted in each of them. A notification whose text ends in the middle of a word that may go on is *held
back* until the next one, the answer, or the end of the stream; what comes after it waits behind it.

What is held is bounded (`MAX_HELD`, `MAX_HELD_BYTES`), and so is what of earlier texts is kept (`MAX_TAIL_BYTES`): a
secret in more or longer pieces than that loses its last ones. Nothing is held where nothing would be redacted or
blocked. A notification that would be blocked does not pass; it has no answer that could say so.

INVARIANT: the order in which notifications came stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from enforcement.answer_inspection import AnswerInspection
from enforcement.config_inspection import Inspecting
from enforcement.looking import Look
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

_MAX_MEMBERS: Final = 32
_OPEN_BYTES: Final = 6
"""A word of fewer bytes that ends a text is no beginning of anything worth holding a report of progress for."""

_TOKEN: Final = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"(?:[ \t\r\n]*(:))?', re.DOTALL)
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
    stretches: list[Stretch] = field(default_factory=list)
    blocked: bool = False


@dataclass(slots=True)
class _Piece(Generic[_Tag]):
    """One text of a notification: where it stands there, and what it is."""

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
        self.redacted = 0

    @property
    def signals(self) -> Signals | None:
        """What was found so far; None if nothing was inspected."""
        return self._signals

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
        if self._inspection is None or self._inspecting is None:
            return [(data, tag)]
        notice = _Held(data, tag)
        look = await self._inspection.look(self._inspecting, data, self._stream.decision_id)
        self._note(look)
        if not (self._enforced and self._inspecting.alters):
            return [(data, tag)]
        self._judge(notice, look, self._inspecting)
        self._queue.append(notice)
        for member in self._add(method, notice):
            await self._over_seams(member, self._inspection, self._inspecting)
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

    def _add(self, method: str, notice: _Held[_Tag]) -> Iterator[list[_Piece[_Tag]]]:
        """Put the texts of a notification behind those before; yield the members in which there was one before."""
        touched: list[list[_Piece[_Tag]]] = []
        for name, start, text in _texts(notice.data):
            key = (method, name)
            if key not in self._members and len(self._members) >= _MAX_MEMBERS:
                continue
            pieces = self._members.setdefault(key, [])
            if pieces and not any(pieces is one for one in touched):
                touched.append(pieces)
            pieces.append(_Piece(notice, start, text))
        return iter(touched)

    async def _over_seams(
        self, pieces: list[_Piece[_Tag]], inspection: AnswerInspection, inspecting: Inspecting
    ) -> None:
        """Look through the texts of one member as if they were one."""
        while len(pieces) > 1 and sum(len(piece.text) for piece in pieces[1:]) > MAX_TAIL_BYTES:
            del pieces[0]
        together = b'"' + b"".join(piece.text for piece in pieces) + b'"'
        look = await inspection.look(inspecting, together, self._stream.decision_id)
        begin = 1
        for piece in pieces:
            end = begin + len(piece.text)
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
        return [(self._shown(notice), notice.tag) for notice in going]

    def _shown(self, notice: _Held[_Tag]) -> bytes | None:
        if notice.blocked:
            return None
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
    extents: set[Extent] = {one.inspected, other.inspected} - {"none"}
    extent: Extent = "none" if not extents else "partial" if "partial" in extents else "complete"
    return Signals(
        inspected=extent,
        inspector=one.inspector or other.inspector,
        findings=tuple(sorted({*one.findings, *other.findings})[:MAX_FINDINGS]),
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


def _texts(data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield the texts of a notification: the name of the member, where the text begins, and the text, escaped."""
    name = b""
    for match in _TOKEN.finditer(data):
        if match[2]:
            name = match[1]
        elif name not in _NO_TEXT and match[1]:
            yield name, match.start(1), match[1]
