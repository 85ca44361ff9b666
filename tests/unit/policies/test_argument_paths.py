"""Paths into arguments: where they lead, and that each place is found once."""

from __future__ import annotations

import pytest

from ledger.errors import PolicySyntaxError
from policies.argument_paths import compile_path, find

TREE = {
    "price": 1,
    "item": {"price": 2, "parts": [{"price": 3}, {"price": 4}, "price"]},
    "items": [{"price": 5}, [{"price": 6}], {"other": {"price": 7}}],
    "rows": [[8, 9], [10]],
    "0": 11,
    "": {"price": 12},
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("price", [1]),
        ("item.price", [2]),
        ("item.parts[*].price", [3, 4]),
        ("items[*].price", [5]),
        ("items[*][*].price", [6]),
        ("rows[*][*]", [8, 9, 10]),
        ("*.price", [2, 12]),
        ("item.*", [2, [{"price": 3}, {"price": 4}, "price"]]),
        ("**.price", [1, 2, 3, 4, 5, 6, 7, 12]),
        ("**.parts[*].price", [3, 4]),
        ("0", [11]),
        ("missing", []),
        ("price.deeper", []),
        ("item[*]", []),
        ("items.price", []),
        ("Price", []),
    ],
)
def test_path_leads_to_its_places_and_to_no_others(path, expected):
    found = find(TREE, [compile_path(path)])
    assert sorted(map(str, found)) == sorted(map(str, expected))


def test_place_that_several_paths_lead_to_is_found_once():
    paths = [compile_path(path) for path in ("price", "**.price", "*")]
    found = find({"price": 5, "other": 5}, paths)
    assert found == [5, 5]


def test_list_index_and_member_of_that_name_are_two_places():
    paths = [compile_path("a[*]"), compile_path("b.*")]
    assert sorted(find({"a": [1], "b": {"0": 2}}, paths)) == [1, 2]


def test_nesting_as_deep_as_the_reader_allows_is_searched_without_recursion():
    tree: object = {"price": 1}
    for _ in range(5000):
        tree = {"a": tree}
    assert find(tree, [compile_path("**.price")]) == [1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "[*]",
        "[*].a",
        "a[0]",
        "a[*",
        "a*",
        "*a",
        "a.**",
        "a.**.b",
        "**",
        "**.",
        "a\nb",
        "a]b",
    ],
)
def test_what_is_no_path_is_refused(path):
    with pytest.raises(PolicySyntaxError, match="not a path"):
        compile_path(path)
