"""A small canvas for SVG: what the charts are drawn with.

Pure. SVG is built with ElementTree, which escapes; nothing is put together from strings. Text is set in the report's
fonts by attribute, for the report's style sheet does not reach into an SVG image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

__all__ = [
    "ENFORCEMENTS",
    "GREY",
    "INK",
    "LINE",
    "MONO",
    "PALE",
    "RED",
    "SANS",
    "TEAL",
    "WHITE",
    "WIDTH",
    "Canvas",
    "elide",
    "figure",
    "legend",
    "segment",
]

ENFORCEMENTS: Final = ("allow", "ask", "deny", "kill")
"""Kinds of enforcement in the order in which they are stacked."""

INK: Final = "#16222e"
TEAL: Final = "#1d5c63"
RED: Final = "#a63d2a"
GREY: Final = "#55626c"
LINE: Final = "#b9c4c9"
PALE: Final = "#d5dfe1"
WHITE: Final = "#ffffff"

_FILLS: Final = {"allow": PALE, "ask": WHITE, "deny": RED, "kill": INK}

SANS: Final = "IBM Plex Sans"
MONO: Final = "IBM Plex Mono"

_ROOM_FOR_A_RULE: Final = 6.0

WIDTH: Final = 640.0
"""Width of a chart; it is scaled to the column of text."""


class Canvas:
    """An SVG drawing in units of CSS pixels.

    Attributes:
        root: The ``svg`` element, whose title is its alternative text.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        """Begin a drawing that says ``title`` to those who do not see it."""
        box = f"0 0 {figure(width)} {figure(height)}"
        self.root = Element("svg", {"viewBox": box, "width": "100%", "role": "img"})
        SubElement(self.root, "title").text = title

    def rect(
        self, x: float, y: float, width: float, height: float, fill: str, stroke: str = "", dash: str = ""
    ) -> None:
        """Draw a rectangle, unless it is empty."""
        if width <= 0 or height <= 0:
            return
        shape = {"x": x, "y": y, "width": width, "height": height}
        attributes = {name: figure(value) for name, value in shape.items()} | {"fill": fill}
        if stroke:
            attributes |= {"stroke": stroke, "stroke-width": "0.8"}
        if dash:
            attributes["stroke-dasharray"] = dash
        SubElement(self.root, "rect", attributes)

    def path(self, data: str, fill: str = "none", stroke: str = "", width: float = 0.8) -> None:
        """Draw a path."""
        attributes = {"d": data, "fill": fill}
        if stroke:
            attributes |= {"stroke": stroke, "stroke-width": figure(width)}
        SubElement(self.root, "path", attributes)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 10,
        fill: str = INK,
        anchor: str = "start",
        family: str = SANS,
        weight: str = "400",
    ) -> None:
        """Write one line whose baseline begins, ends or has its middle at a point."""
        attributes = {
            "x": figure(x),
            "y": figure(y),
            "font-size": figure(size),
            "fill": fill,
            "text-anchor": anchor,
            "font-family": family,
            "font-weight": weight,
        }
        SubElement(self.root, "text", attributes).text = words

    def markup(self) -> str:
        """Return the ``svg`` element."""
        return tostring(self.root, encoding="unicode")


def figure(value: float) -> str:
    """Return a coordinate with at most two decimals, the same on every machine."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def elide(words: str, most: int) -> str:
    """Shorten a label of the picture in its middle; the table beside it has the whole."""
    if len(words) <= most:
        return words
    head = (most - 1) * 2 // 3
    return f"{words[:head]}…{words[-(most - 1 - head) :]}"


def segment(canvas: Canvas, kind: str, x: float, y: float, width: float, height: float, *, upright: bool) -> None:
    """Draw one kind of enforcement as part of a bar.

    Allow is pale, ask is framed with a rule through it, deny is full, kill is dark with white stripes: four that a
    black-and-white print keeps apart.
    """
    if width <= 0 or height <= 0:
        return
    thickness = height if upright else width
    canvas.rect(x, y, width, height, _FILLS[kind], TEAL if kind == "ask" else "")
    across = f"h{figure(width)}" if upright else f"v{figure(height)}"
    if kind == "ask" and thickness > _ROOM_FOR_A_RULE:
        canvas.path(
            f"M{figure(x + width / 2)} {figure(y)}v{figure(height)}"
            if upright
            else f"M{figure(x)} {figure(y + height / 2)}h{figure(width)}",
            stroke=TEAL,
        )
    if kind == "kill":
        step = 3.0
        offsets = [step * i for i in range(1, int(thickness / step) + 1) if step * i < thickness - 1]
        starts = [(x, y + offset) if upright else (x + offset, y) for offset in offsets]
        if starts:
            canvas.path("".join(f"M{figure(a)} {figure(b)}{across}" for a, b in starts), stroke=WHITE, width=1)


def legend(canvas: Canvas, y: float, kinds: Sequence[str]) -> None:
    """Name the kinds of enforcement beside what they look like."""
    x = 0.5
    for kind in kinds:
        segment(canvas, kind, x, y - 8, 14, 9, upright=False)
        canvas.text(x + 19, y, kind, size=9.5, fill=GREY)
        x += 42 + 6.2 * len(kind)
