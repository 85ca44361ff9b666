"""The fonts are the published ones, and hold every character that a report can print."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont

import reports
from ledger.legible import REPERTOIRE
from reports.emblems import MARKS

PACKAGE = Path(reports.__file__).parent
FONTS = sorted((PACKAGE / "fonts").glob("*.woff2"))
STYLES = "".join(path.read_text(encoding="utf-8") for path in sorted((PACKAGE / "styles").glob("*.css")))
TEMPLATES = "".join(path.read_text(encoding="utf-8") for path in sorted((PACKAGE / "templates").glob("*.html")))


def _digests() -> dict[str, str]:
    rows = re.findall(
        r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (PACKAGE / "fonts/SOURCES.md").read_text(), re.MULTILINE
    )
    return dict(rows)


def test_every_file_has_the_digest_that_its_sources_file_names() -> None:
    files = {path.name: path for path in (PACKAGE / "fonts").iterdir() if path.suffix in {".woff2", ".txt"}}
    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()} == _digests()
    assert len(FONTS) == 7


def test_every_family_comes_with_its_licence() -> None:
    families = {path.name.partition("-")[0] for path in FONTS}
    for family in families:
        licence = (PACKAGE / "fonts" / f"{family}-LICENSE.txt").read_text(encoding="utf-8")
        assert "SIL OPEN FONT LICENSE Version 1.1" in licence


@pytest.mark.parametrize("path", FONTS, ids=lambda path: path.stem)
def test_every_font_holds_every_character_that_a_report_can_print(path: Path) -> None:
    marks = set(MARKS.values()) | {"\u2039", "\u203a", "\u2022", "\u00a0"}
    ours = {character for character in TEMPLATES if ord(character) > 0x7E}
    held = {chr(code) for code in TTFont(path).getBestCmap()}
    assert (REPERTOIRE | marks | ours) - held == set()


def test_every_font_of_the_style_sheet_exists_and_every_font_is_used() -> None:
    assert sorted(re.findall(r"asset:fonts/([A-Za-z0-9-]+\.woff2)", STYLES)) == [path.name for path in FONTS]


def test_styles_name_no_font_but_those_of_the_report() -> None:
    named = re.findall(r'font(?:-family)?:[^;"}]*"([^"]+)"', STYLES)
    assert set(named) == {"IBM Plex Sans", "IBM Plex Serif", "IBM Plex Mono"}
    assert not re.search(r"\b(serif|sans-serif|monospace)\b", STYLES)


def test_styles_ask_for_no_address_but_packaged_files() -> None:
    addresses = re.findall(r"url\(\s*[\"']?([^\"')]+)", STYLES)
    assert addresses
    assert all(address.startswith("asset:") for address in addresses)
    assert "@import" not in STYLES
