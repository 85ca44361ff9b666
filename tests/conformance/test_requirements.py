"""The manifest and the tests name each other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.requirements import REQUIREMENTS, requirement

_TESTS = Path(__file__).parents[1]


def _decorated(path: Path) -> Iterator[str]:
    """Yield the ids that stand in the requirement decorators of a file's test functions."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", None) == "requirement":
                yield from (ast.literal_eval(argument) for argument in decorator.args)


def _all_decorated() -> set[str]:
    # Read from the files, not from the collected items: the verdict must not depend on which tests were selected.
    return {identifier for path in _TESTS.rglob("test_*.py") for identifier in _decorated(path)}


def test_every_requirement_has_a_test() -> None:
    assert set(REQUIREMENTS) - _all_decorated() == set()


def test_every_id_in_a_test_is_a_requirement() -> None:
    assert _all_decorated() - set(REQUIREMENTS) == set()


def test_an_unknown_id_is_refused_where_it_is_written() -> None:
    with pytest.raises(KeyError, match="note-99"):
        requirement("note-01", "note-99")


@pytest.mark.parametrize("item", REQUIREMENTS.values(), ids=lambda item: item.id)
def test_a_requirement_has_a_sentence_and_a_clause(item) -> None:
    assert re.fullmatch(r"[a-z0-9]+-\d\d", item.id)
    assert item.sentence.endswith(".")
    assert re.search(r"C2SP|RFC|FIPS|DSSE|\.md", item.source)


def test_no_sentence_stands_twice() -> None:
    sentences = [item.sentence for item in REQUIREMENTS.values()]
    assert len(set(sentences)) == len(sentences)
