"""What a module of the reports defines in public is what its ``__all__`` lists, and each of it is described."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import reports

ROOT = Path(reports.__file__).parent
MODULES = sorted(path for path in ROOT.glob("*.py") if path.name != "__init__.py")


def _public(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def _exported(tree: ast.Module) -> list[str]:
    (listed,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__"
    )
    return list(ast.literal_eval(listed))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_all_lists_exactly_the_public_names(path: Path) -> None:
    tree = ast.parse(path.read_bytes())
    assert set(_exported(tree)) == _public(tree)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_public_function_and_class_says_what_it_is(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
