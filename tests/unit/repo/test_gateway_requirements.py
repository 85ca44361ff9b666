"""docs/requirements-gateway.md: every row names tests, and every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.repository import ROOT
from tests.support.requirement_pages import NAME, rows_of, unmet

PAGE = (ROOT / "docs" / "requirements-gateway.md").read_text()
TESTS = ROOT / "tests"
PARTS = (
    "Transports",
    "Deny means the server never knows",
    "Identity",
    "Facts",
    "Modes",
    "Outage contract",
    "Fleet",
    "Containment",
    "Post-quantum mTLS on every hop",
    "Telemetry",
    "Done when",
)


def test_the_page_has_every_part_of_the_specification() -> None:
    assert tuple(re.findall(r"^## (.+)$", PAGE, re.MULTILINE)) == PARTS


@pytest.mark.parametrize("row", rows_of(PAGE), ids=lambda row: row.split("|")[1].strip()[:60])
def test_what_a_row_names_is_there(row: str) -> None:
    assert NAME.search(row) or "`make interop`" in row
    assert unmet(row) == []


@pytest.mark.parametrize(
    "row",
    [
        "| x | `test_gateway_calls.py::test_there_is_no_such_test` |",
        "| x | `test_there_is_no_such_file.py` |",
        "| x | `test_gateway_calls.py::test_a_…` |",
    ],
)
def test_a_name_that_leads_to_no_test_or_to_several_is_noticed(row: str) -> None:
    assert len(unmet(row)) == 1


def test_the_folder_of_the_tests_is_where_it_is_looked_for() -> None:
    assert Path(__file__).is_relative_to(TESTS)
