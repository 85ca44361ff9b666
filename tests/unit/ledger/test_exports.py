"""What a module of the ledger defines in public is what its ``__all__`` lists."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ledger

_ROOT = Path(ledger.__file__).parent
_MODULES = sorted(path for path in _ROOT.rglob("*.py") if path.name != "__init__.py")


def _defined(tree: ast.Module) -> set[str]:
    """Return the public names that a module binds at its top level by itself, imports left out."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def _exported(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_all_lists_exactly_the_public_names(path) -> None:
    tree = ast.parse(path.read_bytes())
    exported = _exported(tree)
    assert set(exported) == _defined(tree)
    assert len(set(exported)) == len(exported)


@pytest.mark.parametrize("path", _MODULES, ids=lambda path: str(path.relative_to(_ROOT)))
def test_every_public_function_and_class_has_a_docstring(path) -> None:
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
