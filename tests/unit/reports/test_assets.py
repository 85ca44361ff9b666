"""Only style sheets and fonts of the package can be read as assets."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ledger.errors import EvidenceError
from reports.assets import read_asset


def test_style_sheets_and_fonts_are_served_with_their_types() -> None:
    assert read_asset("styles/text.css").media_type == "text/css"
    assert read_asset("fonts/IBMPlexSans-Regular.woff2").data[:4] == b"wOF2"


@pytest.mark.parametrize(
    "name",
    [
        "render.py",
        "templates/report.html",
        "fonts/SOURCES.md",
        "styles/../render.py",
        "styles/..%2frender.css",
        "../evidence/summary.py",
        "/etc/passwd",
        "styles//text.css",
        "styles/text.css\n",
        "",
    ],
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(EvidenceError, match="not the name"):
        read_asset(name)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(EvidenceError, match=r"styles/nothing\.css is missing"):
        read_asset("styles/nothing.css")


def failing_reads(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "read_bytes", fail)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_file_that_cannot_be_read_is_not_called_missing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    failing_reads(monkeypatch, number)
    with pytest.raises(EvidenceError, match=f"cannot be read: {os.strerror(number)}"):
        read_asset("styles/text.css")


def test_no_room_for_a_file_is_the_end_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_reads(monkeypatch, errno.ENOMEM)
    with pytest.raises(MemoryError):
        read_asset("styles/text.css")
