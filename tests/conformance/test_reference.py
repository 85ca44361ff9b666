"""The reference and the vectors are worth something because they do not share the code that they judge."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

_TESTS = Path(__file__).parents[1]
_INDEPENDENT = sorted([*_TESTS.glob("conformance/reference/*.py"), *_TESTS.glob("vectors/**/*.py")])


@pytest.mark.parametrize("path", _INDEPENDENT, ids=lambda path: str(path.relative_to(_TESTS)))
def test_it_imports_nothing_of_the_project(path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    ours = {"ledger", "policies", "enforcement", "evidence", "reports", "service"}
    assert {name for name in imported if name.split(".")[0] in ours} == set()
    inside = {name for name in imported if name.startswith("tests.")}
    assert all(name.startswith(("tests.conformance.reference", "tests.vectors")) for name in inside)
