"""A text that comes in pieces: what may be part of a finding is held back until it is known.

Pure. What is given out is inspected text in order, with the findings in it, so that a caller who replaces them lets
no half of one go. Held back are the last characters of the text, as many as the longest pattern spans, and more where
a word or a finding has not ended yet, up to a bound: beyond it the text goes out, and the stream is not complete.

INVARIANT: the cost of a piece does not depend on how much came before it, and memory is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from enforcement.inspection.engine import Inspector
from enforcement.inspection.findings import Finding, Findings
from enforcement.inspection.settings import Role

__all__ = ["Inspected", "Stream"]

_CONTEXT: Final = 256
_SPACES: Final = " \n\t\r"


@dataclass(frozen=True, slots=True)
class Inspected:
    """Text that may go on.

    Attributes:
        text: The text, in order; what earlier ones had is not repeated.
        findings: What was found in it; spans count from its first character.
    """

    text: str = ""
    findings: tuple[Finding, ...] = ()


class Stream:
    """One text, piece by piece."""

    def __init__(
        self, inspector: Inspector, *, role: Role | None = None, hold: int = 1024, most_held: int = 20_000
    ) -> None:
        """Begin.

        Args:
            inspector: What finds.
            role: What the agent is there for.
            hold: Characters that are held back: the longest thing that is found when it is split.
            most_held: Characters that are held back at most.
        """
        self._inspector = inspector
        self._role = role
        self._hold = hold
        self._most_held = max(most_held, 2 * hold)
        self._context = ""
        self._waiting: list[str] = []
        self._waiting_length = 0
        self._due = 2 * hold
        self._lines = 0
        self._released = 0
        self._kept: list[Finding] = []
        self._count = 0
        self._complete = True

    @property
    def findings(self) -> Findings:
        """Return what was found so far; spans count from the stream's first character."""
        return Findings(tuple(self._kept), self._complete, self._count)

    def feed(self, piece: str) -> Inspected:
        """Take the next piece, and return what may go on."""
        self._waiting.append(piece)
        self._waiting_length += len(piece)
        if self._waiting_length < self._due:
            return Inspected()
        return self._release(end=False)

    def finish(self) -> Inspected:
        """Return all the rest; nothing may be fed afterwards."""
        return self._release(end=True)

    def _release(self, *, end: bool) -> Inspected:
        before = len(self._context)
        text = self._context + "".join(self._waiting)
        found = self._inspector.text(text, role=self._role)
        self._complete = self._complete and found.complete
        cut = len(text) if end else self._cut(text, found.findings, before)
        released = text[before:cut]
        findings = tuple(
            replace(
                finding,
                place=f"line {self._lines + 1 + released.count(chr(10), 0, max(0, finding.start - before))}",
                start=max(0, finding.start - before),
                end=min(finding.end, cut) - before,
            )
            for finding in found.findings
            if finding.start < cut and (finding.end > before or finding.start == finding.end >= before)
        )
        self._take_down(findings)
        self._lines += released.count("\n")
        self._released += len(released)
        self._context = text[max(0, cut - _CONTEXT) : cut]
        self._waiting = [text[cut:]]
        self._waiting_length = len(text) - cut
        # What was looked at in vain is looked at again only when as much has come as was held.
        self._due = self._waiting_length + self._hold
        return Inspected(released, findings)

    def _cut(self, text: str, findings: tuple[Finding, ...], before: int) -> int:
        """Return up to where the text may go."""
        cut = natural = max(before, len(text) - self._hold)
        while cut > before and text[cut - 1] not in _SPACES and natural - cut < self._most_held:
            cut -= 1
        for finding in sorted(findings, key=lambda one: -one.start):
            # One that reaches the end may go on in the next piece.
            if finding.start < cut < finding.end or (finding.start < cut and finding.end == len(text)):
                cut = finding.start
        cut = max(cut, before)
        if len(text) - cut > self._most_held:
            self._complete = False
            return natural
        return cut

    def _take_down(self, findings: tuple[Finding, ...]) -> None:
        room = self._inspector.settings.limits.max_findings - len(self._kept)
        self._kept += (
            replace(finding, start=finding.start + self._released, end=finding.end + self._released)
            for finding in islice(findings, max(0, room))
        )
        self._count += len(findings)
        if len(findings) > room:
            self._complete = False
