"""A text as detectors see it, and where each piece of it stood in what was inspected.

Pure. A detector looks at a *view*: the text itself, the same with its escapes undone, folded, or what an encoded
piece of it holds. Each view knows how it was made of its parent, so that what is found deep inside is told as a span
of the bytes that were received. Where bytes were made of another number of bytes, the whole of those is the span.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

__all__ = ["Edit", "View", "pieces", "replaced", "substituted"]

Edit = tuple[int, int, int, int]
"""Start and end in the view, start and end in its parent."""

_CONTINUATION: Final = range(0x80, 0xC0)


@dataclass(slots=True)
class View:
    """Bytes to look at.

    Attributes:
        data: What detectors see.
        parent: What it was made of; None for what was received.
        edits: Where it differs from its parent, in order; everything else is as it was there.
        layers: How many encodings were opened to come here.
        mirrored: Whether it is its parent backwards.
    """

    data: bytes
    parent: View | None = None
    edits: list[Edit] = field(default_factory=list)
    layers: int = 0
    mirrored: bool = False
    _starts: list[int] | None = None

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """Return the span of what was received that a span of this view was made of."""
        view: View = self
        while view.parent is not None:
            start, end = view._step(start, end)  # the same class
            view = view.parent
        data = view.data
        while 0 < start < len(data) and data[start] in _CONTINUATION:
            start -= 1
        while end < len(data) and data[end] in _CONTINUATION:
            end += 1
        return start, end

    def parts(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield a span cut where two edits meet: what stands on both sides of a seam."""
        for first, last, _, _ in self.edits:
            if first < end and start < last:
                yield max(first, start), min(last, end)

    def _step(self, start: int, end: int) -> tuple[int, int]:
        if self.mirrored:
            return len(self.data) - end, len(self.data) - start
        if self._starts is None:
            self._starts = [edit[0] for edit in self.edits]
        return self._place(start, last=False), self._place(max(start, end - 1), last=True)

    def _place(self, at: int, *, last: bool) -> int:
        assert self._starts is not None  # `_step` made it
        number = bisect_right(self._starts, at) - 1
        if number < 0:
            return at + last
        _, end, from_start, from_end = self.edits[number]
        if at < end and end - self.edits[number][0] == from_end - from_start:
            return from_start + (at - self.edits[number][0]) + last
        if at < end:
            return from_end if last else from_start
        return from_end + (at - end) + last


def substituted(parent: View, pattern: re.Pattern[bytes], decode: Callable[[re.Match[bytes]], bytes]) -> View:
    """Return a view in which every match of a pattern is replaced; the parent itself if there is none."""
    return replaced(parent, ((*match.span(), decode(match)) for match in pattern.finditer(parent.data)))


def replaced(parent: View, found: Iterable[tuple[int, int, bytes]]) -> View:
    """Return a view in which stretches, in order, are replaced; the parent itself if there is none."""
    data = parent.data
    made: list[bytes] = []
    edits: list[Edit] = []
    done = length = 0
    for start, end, text in found:
        made += (data[done:start], text)
        length += start - done
        edits.append((length, length + len(text), start, end))
        length += len(text)
        done = end
    if not edits:
        return parent
    made.append(data[done:])
    return View(b"".join(made), parent, edits, parent.layers)


def pieces(parent: View, found: Iterable[tuple[int, int, bytes]], *, layers: int, between: bytes = b"\n\n") -> View:
    """Return a view of pieces apart from each other, each with the span of the parent that it was made of."""
    made: list[bytes] = []
    edits: list[Edit] = []
    length = 0
    for start, end, text in found:
        edits.append((length, length + len(text), start, end))
        made.append(text)
        length += len(text) + len(between)
    # What stands between two pieces belongs to both: to no text in between.
    filled = [(one[0], after[0], one[2], one[3]) for one, after in pairwise([*edits, (length, length, 0, 0)])]
    return View(between.join(made), parent, filled if between else edits, layers)
