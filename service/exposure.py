"""How much harm a tool could do, by its tags: a number whose parts are always shown beside it.

Pure. The parts add up and nothing is weighed in secret, so that whoever reads the number can disagree with a part of
it. A tag that is only suggested counts as well: what nobody has confirmed may be true. A server's hints are in here
only as suggestions, where they can raise a number and never lower it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["MAX_IMPACT", "Impact", "Part", "impact_of"]

MAX_IMPACT: Final = 100

_POINTS: Final[Mapping[str, int]] = {
    "read": 5,
    "bulk": 15,
    "external": 20,
    "filesystem": 10,
    "personal-data": 20,
    "payment": 25,
    "write": 25,
    "irreversible": 30,
    "code-execution": 45,
}
_UNKNOWN: Final = 25
"""A tool of which nobody knows what it does counts as one that writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a tag adds.

    Attributes:
        tag: Which; ``unknown`` where no tag says what the tool does.
        points: How much.
        suggested: No list has the tag: a rule suggests it.
    """

    tag: str
    points: int
    suggested: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Impact:
    """How much harm a tool could do.

    Attributes:
        points: The sum of the parts, at most `MAX_IMPACT`.
        parts: What it is made of, the greatest first.
    """

    points: int
    parts: tuple[Part, ...]


def impact_of(in_force: Iterable[str], suggested: Iterable[str]) -> Impact:
    """Return the impact of a tool.

    Args:
        in_force: Tags that a list has.
        suggested: Tags that rules suggest and nobody rejected.
    """
    listed = set(in_force)
    known = [tag for tag in sorted({*listed, *suggested}) if tag in _POINTS]
    parts = [Part(tag=tag, points=_POINTS[tag], suggested=tag not in listed) for tag in known]
    if not parts:
        parts = [Part(tag="unknown", points=_UNKNOWN, suggested=False)]
    parts.sort(key=lambda part: (-part.points, part.tag))
    return Impact(points=min(MAX_IMPACT, sum(part.points for part in parts)), parts=tuple(parts))
