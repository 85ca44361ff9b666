"""Two pictures that are not charts of counts: the strip of controls and the tally stick of the cover.

Pure; see `reports.charts` for what holds of every picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from evidence.summary import ControlSheet, ControlStatus
from reports.drawing import GREY, INK, MONO, PALE, RED, TEAL, WHITE, WIDTH, Canvas, elide, figure
from reports.wording import share

__all__ = ["MARKS", "control_strip", "status_sentence", "tally_stick"]

MARKS: Final = {
    ControlStatus.SATISFIED: "✓",
    ControlStatus.NOT_SATISFIED: "\u00d7",
    ControlStatus.NOT_TESTED: "?",
    ControlStatus.NOT_APPLICABLE: "\u2013",
}
"""A sign for each status; the word always stands beside it."""

_TILES_IN_ROW: Final = 6
_TILE_HEIGHT: Final = 36.0
_TILE_GAP: Final = 5.0


def status_sentence(controls: Sequence[ControlSheet]) -> str:
    """Return how many controls have which status, of how many."""
    counts = Counter(control.status for control in controls)
    return ", ".join(f"{share(counts[status], len(controls))} {status.value}" for status in ControlStatus) + "."


def control_strip(title: str, controls: Sequence[ControlSheet]) -> str:
    """Draw one tile for each control of a framework, in the catalogue's order, marked with its status.

    Satisfied is full, not satisfied has a heavy frame, not tested a broken one, not applicable is pale; each tile has
    the sign and the word.
    """
    rows = -(-len(controls) // _TILES_IN_ROW)
    canvas = Canvas(
        WIDTH, max(rows, 1) * (_TILE_HEIGHT + _TILE_GAP), f"Controls of {title}: {status_sentence(controls)}"
    )
    width = (WIDTH - _TILE_GAP * (_TILES_IN_ROW - 1)) / _TILES_IN_ROW
    for i, control in enumerate(controls):
        x = (i % _TILES_IN_ROW) * (width + _TILE_GAP)
        y = (i // _TILES_IN_ROW) * (_TILE_HEIGHT + _TILE_GAP) + 1
        _tile(canvas, control, x, y, width)
    return canvas.markup()


def _tile(canvas: Canvas, control: ControlSheet, x: float, y: float, width: float) -> None:
    colour = GREY
    match control.status:
        case ControlStatus.SATISFIED:
            canvas.rect(x, y, width, _TILE_HEIGHT, TEAL)
            colour = WHITE
        case ControlStatus.NOT_SATISFIED:
            canvas.rect(x, y, width, _TILE_HEIGHT, RED)
            canvas.rect(x + 3, y + 3, width - 6, _TILE_HEIGHT - 6, WHITE)
            colour = RED
        case ControlStatus.NOT_TESTED:
            canvas.rect(x + 0.5, y + 0.5, width - 1, _TILE_HEIGHT - 1, WHITE, GREY, "3 2")
        case ControlStatus.NOT_APPLICABLE:
            canvas.rect(x, y, width, _TILE_HEIGHT, PALE)
    canvas.text(x + 8, y + 15.5, elide(control.control_id, 18), size=8.2, fill=colour, family=MONO, weight="600")
    canvas.text(x + 8, y + 27.5, f"{MARKS[control.status]} {control.status.value}", size=8.6, fill=colour)


def tally_stick(root: bytes) -> str:
    """Draw the two halves of a split tally whose notches are the bytes of the root: one root, one stick.

    Args:
        root: The root hash, 32 bytes.
    """
    width, split, gap = 794.0, 34.0, 5.0  # the width of an A4 page in CSS pixels
    canvas = Canvas(width, 96, "A split tally stick; the depth of each notch is one byte of the root hash")
    notches = [_notch(i, byte, width / len(root)) for i, byte in enumerate(root)]
    upper = [f"M0 0H{figure(width)}V{figure(split)}"]
    upper += [
        f"H{figure(middle + half)}L{figure(middle)} {figure(split - depth)}L{figure(middle - half)} {figure(split)}"
        for middle, half, depth in reversed(notches)
    ]
    edge = split + gap
    lower = [f"M0 {figure(edge)}"]
    lower += [
        f"H{figure(middle - half)}L{figure(middle)} {figure(edge + depth)}L{figure(middle + half)} {figure(edge)}"
        for middle, half, depth in notches
    ]
    canvas.path("".join([*upper, "H0Z"]), fill=INK)
    canvas.path("".join([*lower, f"H{figure(width)}V{figure(edge + 32)}H0Z"]), fill=TEAL)
    return canvas.markup()


def _notch(index: int, byte: int, slot: float) -> tuple[float, float, float]:
    """Return middle, half width and depth of a notch."""
    depth = 3 + byte / 255 * 22
    return slot * (index + 0.5), min(slot * 0.36, depth * 0.5), depth
