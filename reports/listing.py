"""Many denied calls as pages of plain text: one line each, in columns.

Pure. A table of thousands of rows takes a renderer minutes and gigabytes; the same lines as preformatted text take
seconds. Names too long for their column are shortened in the middle; leaf, time and proof never are, and lead to the
whole record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from evidence.summary import DeniedCall
from reports.drawing import elide
from reports.wording import Times

__all__ = ["Listing", "make_listing", "stopped_by"]

_LINES_PER_PAGE: Final = 41
"""Lines of a landscape page without its heading; see ``styles/pages.css``."""
_COLUMNS: Final = (
    ("leaf", 8),
    ("time", 19),
    ("policy", 14),
    ("done", 4),
    ("agent", 24),
    ("server/tool", 41),
    ("stopped by", 36),
    ("proof", 0),  # last: as wide as it is
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Denied calls as text.

    Attributes:
        heading: Names of the columns, for the head of each page.
        pages: Blocks of lines, one to a page.
        shown: Calls in them.
        total: Calls there are.
    """

    heading: str
    pages: tuple[str, ...]
    shown: int
    total: int


def stopped_by(call: DeniedCall) -> str:
    """Return the rule that stood against a call, or else the reason."""
    if call.failed_condition:
        return call.failed_condition
    return call.rules[0] if call.rules else call.reason


def _line(call: DeniedCall, times: Times) -> str:
    cells = (
        str(call.leaf),
        times.stamp(call.time_ms),
        call.effect,
        call.enforcement,
        call.agent,
        f"{call.server}/{call.tool or '(none)'}",
        stopped_by(call),
    )
    fixed = [
        cell.rjust(width) if name == "leaf" else (cell if name == "time" else elide(cell, width)).ljust(width)
        for cell, (name, width) in zip(cells, _COLUMNS[:-1], strict=True)
    ]
    return "  ".join([*fixed, call.proof or "(root)"])


def make_listing(calls: Sequence[DeniedCall], times: Times, most: int) -> Listing:
    """Set the first ``most`` of the calls in lines and pages."""
    heading = "  ".join(name.rjust(width) if name == "leaf" else name.ljust(width) for name, width in _COLUMNS).rstrip()
    lines = [_line(call, times) for call in calls[:most]]
    starts = range(0, len(lines), _LINES_PER_PAGE)
    pages = tuple("\n".join(lines[start : start + _LINES_PER_PAGE]) for start in starts)
    return Listing(heading=heading, pages=pages, shown=len(lines), total=len(calls))
