"""An inspector of three rules, for tests of what is done about findings and not of how they are found."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from enforcement.looking import Found
from enforcement.redaction import Stretch, redacted

KEY: Final = "AKIAQ7WZ3XV9TR2LMN4P"
"""What the rule ``secret/key`` finds."""

ORDER: Final = "ignore previous instructions"
"""What the rule ``injection/order`` finds."""

DIGEST: Final = "5c" * 32
_STRING: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_TEXT: Final = re.compile(rb'"(?:text|data|message)"\s*:\s*"((?:[^"\\]|\\.)*)"')
_RULES: Final = (
    ("secret", "key", re.compile(rb"AKIA[0-9A-Z]{16}")),
    ("injection", "order", re.compile(rb"ignore previous instructions")),
    ("personal", "card", re.compile(rb"4111111111111111")),
)


def without(data: bytes, found: Found) -> bytes:
    """Return a JSON text with everything redacted that was found in it and has a place."""
    placed = [one for one in found.findings if one.kind != "bomb" and one.start < one.end]
    return redacted(data, [Stretch(one.start, one.end, one.kind) for one in placed])[0]


@dataclass(frozen=True)
class One:
    kind: str
    rule: str
    place: str
    start: int
    end: int


@dataclass(frozen=True)
class Many:
    findings: tuple[One, ...]
    complete: bool
    count: int


@dataclass
class ThreeRules:
    """Finds keys, orders and cards, also where one is split over several texts.

    Attributes:
        digest: Its digest.
        most: Findings that are kept.
        before: Called before each look.
        looked: What was looked at.
        told: Roles and tool of each look.
        threads: In which threads.
    """

    digest: str = DIGEST
    most: int = 100
    before: Callable[[], None] = lambda: None
    looked: list[bytes] = field(default_factory=list)
    told: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def json(self, data: bytes, *, roles: Sequence[str] = (), tool: str = "") -> Many:
        self.before()
        self.looked.append(data)
        self.told.append((tuple(roles), tool))
        self.threads.add(threading.get_ident())
        spans = {(kind, rule, *match.span()) for kind, rule, found in _RULES for match in found.finditer(data)}
        spans |= _over_seams(data)
        ordered = sorted(spans, key=lambda span: span[2:])
        findings = tuple(One(kind, rule, _place(data, start), start, end) for kind, rule, start, end in ordered)
        bomb = data.count(b"[") > 1000
        if bomb:
            findings = (*findings, One("bomb", "depth", "", 0, len(data)))
        return Many(findings[: self.most], len(findings) <= self.most and not bomb, len(findings))


def _place(data: bytes, start: int) -> str:
    name = data[:start].rsplit(b'"', 3)[-3:-2]
    return "/result/nextCursor" if name == [b"nextCursor"] else "/somewhere"


def _over_seams(data: bytes) -> set[tuple[str, str, int, int]]:
    """Return the parts of what is found once the texts of a JSON text are put behind one another."""
    places = [place for match in _TEXT.finditer(data) for place in range(*match.span(1))]
    joined = bytes(data[place] for place in places)
    found = set()
    for kind, rule, pattern in _RULES:
        for match in pattern.finditer(joined):
            covered = places[match.start() : match.end()]
            start = before = covered[0]
            for place in [*covered[1:], -1]:
                if place != before + 1:
                    found.add((kind, rule, start, before + 1))
                    start = place
                before = place
    return found
