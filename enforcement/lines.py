r"""Newline-delimited JSON: lines out of a pipe, bounded, and messages as one line each.

Pure. What a line says is `enforcement.mcp`'s part.

A message goes on with other ends of line than LF taken out of it, which says the same in JSON: a reader that ends lines
there would find a second message inside of the one that was judged, as in ::

    {"x":\r{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"transfer_funds"}}\r}

Source: Model Context Protocol, revision 2026-07-28, "stdio": messages are delimited by newlines and hold none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Line", "LineSplitter", "one_line"]

_ESCAPES: Final = {"\u0085".encode(): rb"\u0085", "\u2028".encode(): rb"\u2028", "\u2029".encode(): rb"\u2029"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        data: Its bytes without the LF; of one that is too long, as many as may be and one more.
        whole: It ended with LF: one at the end of the pipe that does not may be cut off.
    """

    data: bytes
    whole: bool = True


class LineSplitter:
    """Splits chunks into lines, however they are cut; empty lines are left out. One pipe, one splitter."""

    def __init__(self, max_bytes: int) -> None:
        """Begin.

        Args:
            max_bytes: Longest line; of a longer one no more than a byte above is kept.
        """
        self._max_bytes = max_bytes
        self._begun = bytearray()

    def feed(self, chunk: bytes) -> list[Line]:
        """Return the lines that the next bytes complete."""
        *ended, rest = chunk.split(b"\n")
        lines: list[Line] = []
        for part in ended:
            self._keep(part)
            lines += self._take(whole=True)
        self._keep(rest)
        return lines

    def end(self) -> list[Line]:
        """Return what is left at the end of the pipe: a line without its end, or nothing."""
        return self._take(whole=False)

    def _keep(self, part: bytes) -> None:
        room = self._max_bytes + 1 - len(self._begun)
        if room > 0:
            self._begun += part[:room]

    def _take(self, *, whole: bool) -> list[Line]:
        data = bytes(self._begun)
        self._begun.clear()
        return [Line(data, whole)] if data.strip() else []


def one_line(data: bytes) -> bytes:
    """Return a JSON text as a line for every reader, LF included.

    Args:
        data: The text, which must have been read as JSON: other control characters than space are not in it then.
    """
    for character, escape in _ESCAPES.items():
        data = data.replace(character, escape)
    return data.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"
