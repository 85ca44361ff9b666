"""A line chart of a few series over a few marks, as SVG; the vertical axis is logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reports.drawing import Canvas

__all__ = ["Series", "line_chart"]

_WIDTH, _HEIGHT = 640.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 20.0, 44.0, 50.0
_COLOURS = ("#1b5e8a", "#b3541e", "#4d7c0f")
_GRID = "#d6d6d6"


@dataclass(frozen=True, slots=True)
class Series:
    """A line.

    Attributes:
        label: What it is.
        values: One for each mark, all above 0.
    """

    label: str
    values: Sequence[float]


def line_chart(title: str, *, across: str, up: str, series: Sequence[Series], marks: Sequence[str]) -> str:
    """Return the chart.

    Args:
        title: What it says.
        across: What the marks count.
        up: What the values are.
        series: The lines; each has its name at its end.
        marks: Along the horizontal axis, at equal distances.
    """
    canvas = Canvas(_WIDTH, _HEIGHT, title)
    canvas.rect(0, 0, _WIDTH, _HEIGHT, "#ffffff")
    values = [value for one in series for value in one.values]
    low = min(0, math.floor(math.log10(min(values))))
    high = max(1, math.ceil(math.log10(max(values))))

    def x(place: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * place / (len(marks) - 1)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (math.log10(value) - low) / (high - low)

    canvas.text(_LEFT, 16, title, size=12, weight="600")
    canvas.text(_LEFT, 32, up, size=10)
    for power in range(low, high + 1):
        canvas.path(f"M{_LEFT:.1f} {y(10**power):.1f}H{_WIDTH - _RIGHT:.1f}", stroke=_GRID)
        canvas.text(_LEFT - 8, y(10**power) + 3, f"{10**power:g}", anchor="end")
    for place, mark in enumerate(marks):
        canvas.text(x(place), _HEIGHT - _BOTTOM + 16, mark, anchor="middle")
    canvas.text(_WIDTH / 2, _HEIGHT - 14, across, anchor="middle")
    for one, colour in zip(series, _COLOURS, strict=False):
        points = [f"{x(place):.1f} {y(value):.1f}" for place, value in enumerate(one.values)]
        canvas.path("M" + "L".join(points), stroke=colour, width=2)
        canvas.text(_WIDTH - _RIGHT, y(one.values[-1]) - 6, one.label, fill=colour, anchor="end")
    return canvas.markup() + "\n"
