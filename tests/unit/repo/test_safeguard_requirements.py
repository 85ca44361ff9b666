"""docs/requirements-safeguards.md: every row names tests that exist, and what is not met is said apart."""

from __future__ import annotations

import re

import pytest

from tests.support.repository import ROOT
from tests.support.requirement_pages import NAME, rows_of, unmet

PAGE = (ROOT / "docs" / "requirements-safeguards.md").read_text()
PARTS = (
    "Inspection",
    "Behaviour profiles",
    "Tool pinning",
    "Approvals",
    "Inventory",
    "Discovery",
    "Coverage",
    "Attack scenarios",
    "Speed",
    "Done when",
    "Not met",
)
SCENARIOS = (
    "confused deputy",
    "rug pull",
    "shadowed tool",
    "exfiltration by a second server",
    "bulk export in many small calls",
    "refund draining",
    "price tampering",
    "secret leak in a result",
    "injected instruction in a resource",
    "stolen token at 03:00",
)


def part(title: str) -> str:
    """The text of one part of the page."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_page_has_every_part_of_the_specification() -> None:
    assert tuple(re.findall(r"^## (.+)$", PAGE, re.MULTILINE)) == PARTS


@pytest.mark.parametrize("row", rows_of(PAGE), ids=lambda row: row.split("|")[1].strip()[:60])
def test_what_a_row_names_is_there(row: str) -> None:
    assert NAME.search(row)
    assert unmet(row) == []


def test_each_scenario_has_a_row() -> None:
    assert tuple(row.split("|")[1].strip() for row in rows_of(part("Attack scenarios"))) == SCENARIOS


def test_every_part_but_the_last_has_rows_and_the_last_has_none() -> None:
    assert [bool(rows_of(part(title))) for title in PARTS] == [True] * (len(PARTS) - 1) + [False]
    assert part("Not met").strip()
