"""What bounds a report: how long its lists may grow, and what the process that renders it may use.

The caps of lists are part of what the report says: wherever one strikes, the report prints it and names the file of the
pack that goes on. The limits of the process are the operator's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT_CAPS", "DEFAULT_LIMITS", "ListCaps", "RenderLimits"]

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ListCaps:
    """The longest lists that a report prints, in rows.

    Attributes:
        denied_table: Denied calls as a table with two lines to a call; more of them become a listing of one line each,
            for a long table costs the renderer a hundred times the listing.
        denied_listing: Denied calls in the listing.
        exceptions: Failed items in the section on exceptions.
        exceptions_per_test: Failed items under one test of a control sheet.
        policy_changes: Steps of policy bundles.
        access: Reads and exports.
        gaps: Gaps.
        names: Names in one cell: rules of a call, files of a bundle.
        ranges: Ranges of sequence numbers or leaves in one cell.
        chart_bars: Bars of a chart and rows of its table; what is left over is one more of each.
    """

    denied_table: int = 120
    denied_listing: int = 6_000
    exceptions: int = 200
    exceptions_per_test: int = 5
    policy_changes: int = 200
    access: int = 200
    gaps: int = 200
    names: int = 8
    ranges: int = 8
    chart_bars: int = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderLimits:
    """What the rendering process may use.

    Attributes:
        address_space_bytes: Its whole address space (RLIMIT_AS); beyond, it dies and the caller gets an error.
        wall_clock_seconds: From start to last byte; beyond, it is killed.
        input_bytes: Largest job: text and attachments.
        output_bytes: Largest PDF.
    """

    address_space_bytes: int = 2_048 * _MIB
    wall_clock_seconds: float = 300.0
    input_bytes: int = 256 * _MIB
    output_bytes: int = 512 * _MIB


DEFAULT_CAPS: Final = ListCaps()
DEFAULT_LIMITS: Final = RenderLimits()
