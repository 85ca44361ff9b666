"""The text of reports as it must be: `python -m tests.golden.report_texts` writes it anew; read the difference then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from evidence.summary import PackSummary
from reports.render import render_html
from tests.support import summaries
from tests.support.html_text import html_text

FOLDER = Path(__file__).parent
CASES: dict[str, Callable[[], PackSummary]] = {
    "report-demo.txt": summaries.demo,
    "report-empty.txt": summaries.empty,
    "report-troubled.txt": summaries.troubled,
}


def text(name: str) -> str:
    return html_text(render_html(CASES[name]()))


if __name__ == "__main__":
    for case in CASES:
        (FOLDER / case).write_text(text(case), encoding="utf-8")
