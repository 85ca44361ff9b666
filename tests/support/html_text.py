"""What a person reads of an HTML document: its text, one line for each block, cells set apart by a bar."""

from __future__ import annotations

from html.parser import HTMLParser

_BLOCKS = frozenset(
    {
        *("article", "caption", "dd", "div", "dl", "dt", "figcaption", "figure", "h1", "h2", "h3", "h4", "li", "ol"),
        *("p", "pre", "section", "table", "tbody", "thead", "tr", "ul"),
    }
)
_SILENT = frozenset({"head", "svg"})


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.lines: list[str] = [""]
        self._silent = 0

    def _new_line(self) -> None:
        if self.lines[-1].strip():
            self.lines.append("")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag in _SILENT:
            self._silent += 1
        elif tag in _BLOCKS:
            self._new_line()
        elif tag == "br":
            self.lines[-1] += " / "
        elif tag in {"td", "th"} and self.lines[-1].strip():
            self.lines[-1] += " | "

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT:
            self._silent -= 1
        elif tag in _BLOCKS:
            self._new_line()

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.lines[-1] += data


def html_text(html: str) -> str:
    """Return the text of a document, without its head and pictures."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = (" ".join(line.split()) for line in reader.lines)
    return "\n".join(line for line in lines if line) + "\n"
