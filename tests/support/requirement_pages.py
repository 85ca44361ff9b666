"""Pages that say which tests show what: whether the tests that they name are there."""

from __future__ import annotations

import re
from functools import cache

from tests.support.repository import ROOT

__all__ = ["NAME", "rows_of", "unmet"]

NAME = re.compile(r"`(test_\w+\.py)(?:::(test_\w+)(…?))?`")
"""A test file, or one test of it, as pages name it; ``…`` ends a beginning that leads to one test."""

_TESTS = ROOT / "tests"
_FUNCTION = re.compile(r"^def (test_\w+)|^(Test\w+) = ", re.MULTILINE)


def rows_of(page: str) -> list[str]:
    """Return the rows of a page's tables, without their heads."""
    return [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| what |")]


@cache
def _functions_of(file: str) -> tuple[str, ...]:
    """The test functions of all files of a name; several folders may have one."""
    texts = [path.read_text() for path in sorted(_TESTS.rglob(file))]
    return tuple(name for text in texts for pair in _FUNCTION.findall(text) for name in pair if name)


def unmet(row: str) -> list[str]:
    """What a row names that is not there."""
    missing = []
    for file, name, open_end in NAME.findall(row):
        if not name:
            missing += [] if any(_TESTS.rglob(file)) else [file]
            continue
        fits = [test for test in _functions_of(file) if test == name or (open_end and test.startswith(name))]
        missing += [] if len(fits) == 1 else [f"{file}::{name}{open_end}: {len(fits)}"]
    return missing
