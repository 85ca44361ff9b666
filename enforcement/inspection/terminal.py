"""What a terminal would carry out instead of showing: escape sequences and other control characters.

Pure.

Source: ECMA-48; xterm control sequences (OSC 0, 2: title; 8: link; 52: clipboard).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from enforcement.inspection.patterns import linear

__all__ = ["control_sequences"]

# Escapes may also be written out, for an `echo -e` or a log viewer that undoes them.
_CONTROL: Final = linear(
    rb"(?P<osc>(?:\x1b\]|\xc2\x9d)[^\x07\x1b\x9c\n]{0,512})"
    rb"|(?P<csi>(?:\x1b\[|\xc2\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]?)"
    rb"|(?P<string>\x1b[PX^_][^\x1b\n]{0,512})"
    rb"|(?P<escape>\x1b[ -~]?)"
    rb"|(?P<written>\\(?:x1[bB]|033|u001[bB]|e)(?:\[[0-9;?]{0,32}[A-Za-z]|\][0-9]{1,3};))"
    rb"|(?P<overstrike>[^\x08\n]\x08)"
    rb"|(?P<overwritten>[^\r\n]\r[^\r\n])"
    rb"|(?P<c1>\xc2[\x80-\x84\x86-\x9f])"
    rb"|(?P<control>[\x00-\x08\x0e-\x1f\x7f]{1,64})"
)


def control_sequences(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Yield rule, start and end of each, in bytes."""
    for match in _CONTROL.finditer(data):
        start, end = match.span()
        rule = match.name
        text = match.group()
        if rule == "csi":
            rule = "colour" if text.endswith(b"m") else "cursor"
        elif rule == "osc":
            rule = _operating_system_command(text)
        elif rule == "overwritten":
            start, end = start + 1, end - 1
        yield rule, start, end


def _operating_system_command(text: bytes) -> str:
    number = text.lstrip(b"\x1b]\xc2\x9d").split(b";", 1)[0]
    return {b"0": "title", b"1": "title", b"2": "title", b"8": "link", b"52": "clipboard"}.get(number, "command")
