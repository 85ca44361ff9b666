"""docs/faults.md is what the fault tests run, case by case."""

from __future__ import annotations

from tests.support.fault_document import FOLDER, collected, document
from tests.support.repository import ROOT


def test_the_document_is_what_the_tests_make():
    assert (ROOT / "docs" / "faults.md").read_text() == document(), "run: python -m tests.support.fault_document"


def test_every_test_of_the_folder_has_a_line():
    cases = collected()
    text = (ROOT / "docs" / "faults.md").read_text()
    assert {path for path, _ in cases} == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / FOLDER).glob("test_*.py")
    }
    for path, test in cases:
        assert f"[{path}]" in text
        assert f"- {test.removeprefix('test_').replace('_', ' ')}" in text
