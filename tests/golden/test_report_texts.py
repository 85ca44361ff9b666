"""The words and numbers of whole reports, compared with files that a person has read."""

from __future__ import annotations

import pytest

from tests.golden.report_texts import CASES, FOLDER, text


@pytest.mark.parametrize("name", CASES)
def test_report_reads_as_it_was_read_by_a_person(name: str) -> None:
    expected = (FOLDER / name).read_text(encoding="utf-8")
    assert text(name) == expected, "if this is meant: python -m tests.golden.report_texts, and read the difference"
