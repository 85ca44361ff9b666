"""Which tags a definition suggests, by which rule, and where a server's own hints are gainsaid."""

from __future__ import annotations

from typing import Any

import pytest

from enforcement.tag_rules import SUGGESTIBLE, advise, words_of


def tool(name: str = "frobnicate", /, **members: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **members}


def schema(**properties: Any) -> dict[str, Any]:
    return {"inputSchema": {"type": "object", "properties": properties}}


@pytest.mark.parametrize(
    "name", ["deleteUser", "delete_user", "Delete-User", "delete.user", "\uff44\uff45\uff4cete_user", "DELETE_user"]
)
def test_a_name_is_read_alike_in_whatever_style_it_is_written(name: str) -> None:
    assert words_of(name) == ["delete", "user"]
    assert advise(tool(name)).tags == ("irreversible", "personal-data", "write")


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("get_weather", ("read",)),
        ("list_invoices", ("payment", "read")),
        ("refund_customer", ("irreversible", "payment", "personal-data", "write")),
        ("send_email", ("external", "irreversible", "write")),
        ("run_shell", ("code-execution",)),
        ("export_all_customers", ("bulk", "personal-data")),
        ("read_file", ("filesystem", "read")),
        ("frobnicate", ()),
        ("", ()),
        ("🙂", ()),
        ("undeleted", ()),  # a word is whole, or it is another
        ("budget_list", ()),  # what a tool does is said first
    ],
)
def test_names_suggest_what_their_words_say_and_nothing_else(name: str, tags: tuple[str, ...]) -> None:
    assert advise(tool(name)).tags == tags


def test_what_changes_something_is_no_reading_tool_whatever_its_name_begins_with() -> None:
    assert advise(tool("get_and_delete_user")).tags == ("irreversible", "personal-data", "write")


@pytest.mark.parametrize(
    ("properties", "rule"),
    [
        ({"iban": {"type": "string"}}, "payment:argument"),
        ({"to": {"type": "string", "format": "email"}}, "personal-data:format"),
        ({"callback": {"type": "string", "format": "uri"}}, "external:format"),
        ({"filePath": {"type": "string"}}, "filesystem:argument"),
        ({"sql": {"type": "string"}}, "code-execution:argument"),
        ({"limit": {"type": "integer"}}, "bulk:limit"),
        ({"limit": {"type": "integer", "maximum": 1001}}, "bulk:limit"),
        ({"order": {"type": "object", "properties": {"card": {}}}}, "payment:argument"),
        ({"rows": {"type": "array", "items": {"properties": {"ssn": {}}}}}, "personal-data:argument"),
    ],
)
def test_arguments_suggest_by_name_form_and_bound_at_any_depth(properties: dict[str, Any], rule: str) -> None:
    assert rule in advise(tool(**schema(**properties))).rules


@pytest.mark.parametrize(
    "properties",
    [{"limit": {"type": "integer", "maximum": 1000}}, {"limit": {"type": "string"}}, {"note": {"type": "string"}}],
)
def test_arguments_that_say_nothing_suggest_nothing(properties: dict[str, Any]) -> None:
    assert advise(tool(**schema(**properties))).tags == ()


def test_a_description_counts_for_what_cannot_be_undone_alone() -> None:
    assert advise(tool(description="This CANNOT be undone.")).rules == ("irreversible:description",)
    assert advise(tool(description="Delete, pay and export everything.")).tags == ()


@pytest.mark.parametrize(
    ("hints", "rules"),
    [
        ({"destructiveHint": True}, ("irreversible:hint",)),
        ({"readOnlyHint": False}, ("write:hint",)),
        ({"openWorldHint": True}, ("external:hint",)),
        ({"readOnlyHint": True}, ()),  # a promise of the server's is no reason
        ({"destructiveHint": False, "openWorldHint": False}, ()),
    ],
)
def test_a_hint_raises_what_is_suggested_and_never_lowers_it(hints: dict[str, Any], rules: tuple[str, ...]) -> None:
    advice = advise(tool(annotations=hints))
    assert (advice.rules, advice.disagreements) == (rules, ())


@pytest.mark.parametrize(
    ("name", "hints", "against"),
    [
        ("delete_user", {"readOnlyHint": True}, ("readOnlyHint",)),
        ("run_shell", {"readOnlyHint": True}, ("readOnlyHint",)),
        ("delete_user", {"destructiveHint": False}, ("destructiveHint",)),
        ("send_email", {"openWorldHint": False}, ("openWorldHint",)),
        ("get_weather", {"readOnlyHint": True, "destructiveHint": True}, ("destructiveHint",)),  # it gainsays itself
        ("delete_user", {"readOnlyHint": True, "destructiveHint": False}, ("destructiveHint", "readOnlyHint")),
        ("get_weather", {"readOnlyHint": True, "openWorldHint": False}, ()),
    ],
)
def test_a_hint_that_the_definition_gainsays_is_a_disagreement(
    name: str, hints: dict[str, Any], against: tuple[str, ...]
) -> None:
    plain, hinted = advise(tool(name)), advise(tool(name, annotations=hints))
    assert hinted.disagreements == against
    assert set(hinted.tags) >= set(plain.tags)


@pytest.mark.parametrize(
    "definition",
    [
        {},
        {"name": 7, "inputSchema": [], "annotations": "readOnlyHint", "description": 3},
        {"name": "x", "inputSchema": {"properties": {"limit": 3, "deep": {"items": []}}}},
        {"name": "x", "inputSchema": {"properties": []}},
        {"name": "x", "annotations": {"readOnlyHint": "true", "destructiveHint": 1, "openWorldHint": None}},
        {"name": "x", "inputSchema": {"properties": {"a": {"format": ["uri"]}}}},
        {"name": "\ud800", "description": "\x00" * 9},
    ],
)
def test_a_definition_of_another_form_suggests_nothing_and_breaks_nothing(definition: dict[str, Any]) -> None:
    assert advise(definition).tags == ()


def test_a_definition_that_is_deep_wide_or_long_costs_no_more_than_its_bounds() -> None:
    deep: dict[str, Any] = {"properties": {"iban": {}}}
    for _ in range(400):
        deep = {"properties": {"more": deep}}
    assert advise({"name": "x", "inputSchema": deep}).tags == ()
    wide = {f"p{number}": {} for number in range(5000)} | {"iban": {}}
    assert advise(tool(**schema(**wide))).tags == ()
    assert advise(tool("x" * 10**6 + "_delete")).tags == ()


def test_every_suggested_tag_is_one_of_those_that_are_named() -> None:
    names = ["get_x", "delete_x", "send_x", "user_x", "pay_x", "run_x", "file_x", "export_x"]
    assert {tag for name in names for tag in advise(tool(name)).tags} == set(SUGGESTIBLE)
