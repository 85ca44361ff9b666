"""The closed language of control tests: what holds, what is refused, and how it explains itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from evidence.predicates import PathKind, parse_predicate
from ledger.errors import MalformedError

WORDS = {
    "a.text": PathKind.SCALAR,
    "a.number": PathKind.SCALAR,
    "a.flag": PathKind.SCALAR,
    "a.list": PathKind.LIST,
    "a.person": PathKind.PSEUDONYM,
    "a.other": PathKind.PSEUDONYM,
    "a.sealed": PathKind.SEALED,
    "a.group": PathKind.GROUP,
}


@dataclass
class Thing:
    values: Mapping[str, object]

    def get(self, path: str) -> object:
        return self.values.get(path)


THING = Thing(
    {"a.text": "deny", "a.number": 1, "a.flag": True, "a.list": ("x", "y"), "a.person": "ab", "a.other": "ab"}
)

HOLD: list[dict[str, Any]] = [
    {"all": []},
    {"all": [{"present": "a.text"}, {"present": "a.number"}]},
    {"any": [{"present": "a.sealed"}, {"present": "a.text"}]},
    {"not": {"present": "a.sealed"}},
    {"equals": ["a.text", "deny"]},
    {"equals": ["a.number", 1]},
    {"equals": ["a.flag", True]},
    {"in": ["a.text", ["allow", "deny"]]},
    {"contains": ["a.list", "y"]},
    {"at_least": ["a.number", 1]},
    {"at_most": ["a.number", 1]},
    {"same": ["a.person", "a.other"]},
    {"present": "a.person"},
]
DO_NOT_HOLD: list[dict[str, Any]] = [
    {"any": []},
    {"all": [{"present": "a.text"}, {"present": "a.sealed"}]},
    {"not": {"all": []}},
    {"equals": ["a.text", "Deny"]},
    {"equals": ["a.number", True]},
    {"equals": ["a.flag", 1]},
    {"equals": ["a.number", "1"]},
    {"in": ["a.text", []]},
    {"contains": ["a.list", "z"]},
    {"at_least": ["a.number", 2]},
    {"at_most": ["a.number", 0]},
    {"at_least": ["a.text", 0]},
    {"at_least": ["a.flag", 0]},
    {"same": ["a.text", "a.number"]},
    {"present": "a.group"},
]
REFUSED: list[Any] = [
    None,
    [],
    "present",
    {},
    {"present": "a.text", "not": {"all": []}},
    {"present": "a.txt"},
    {"present": ["a.text"]},
    {"present": None},
    {"eval": "1 == 1"},
    {"equals": ["a.text"]},
    {"equals": ["a.text", "x", "y"]},
    {"equals": ["a.text", ["x"]]},
    {"equals": ["a.text", None]},
    {"equals": ["a.number", Decimal("1.0")]},
    {"equals": ["a.list", "x"]},
    {"equals": ["a.group", "x"]},
    {"equals": ["a.person", "ab"]},
    {"in": ["a.person", ["ab"]]},
    {"equals": ["a.sealed", "ab"]},
    {"same": ["a.person", "a.sealed"]},
    {"same": ["a.person", "constant"]},
    {"contains": ["a.text", "x"]},
    {"at_least": ["a.number", "1"]},
    {"at_least": ["a.number", True]},
    {"at_most": ["a.number", Decimal(1)]},
    {"in": ["a.text", "deny"]},
    {"in": ["a.text", ["x"] * 33]},
    {"all": {"present": "a.text"}},
    {"all": [{"present": "a.text"}] * 33},
    {"equals": ["a.text", "x" * 201]},
]


@pytest.mark.parametrize("value", HOLD, ids=str)
def test_a_predicate_that_is_true_of_the_thing_holds(value: dict[str, Any]) -> None:
    assert parse_predicate(value, WORDS).holds(THING)


@pytest.mark.parametrize("value", DO_NOT_HOLD, ids=str)
def test_a_predicate_that_is_not_true_of_the_thing_does_not_hold(value: dict[str, Any]) -> None:
    predicate = parse_predicate(value, WORDS)
    assert not predicate.holds(THING)
    assert predicate.explain(THING)


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: str(value)[:60])
def test_what_is_not_of_the_language_is_refused_when_read(value: Any) -> None:
    with pytest.raises(MalformedError):
        parse_predicate(value, WORDS)


def test_nesting_beyond_the_limit_is_refused() -> None:
    value: dict[str, Any] = {"present": "a.text"}
    for _ in range(8):
        value = {"not": value}
    with pytest.raises(MalformedError):
        parse_predicate(value, WORDS)


def test_more_parts_than_can_be_asked_of_every_record_are_refused() -> None:
    wide = {"all": [{"any": [{"present": "a.text"}] * 20}] * 7}
    with pytest.raises(MalformedError, match="128"):
        parse_predicate(wide, WORDS)


@pytest.mark.parametrize("operator", ["equals", "at_least", "at_most", "contains", "in"])
def test_a_field_that_is_not_there_makes_every_comparison_false(operator: str) -> None:
    path = "a.list" if operator == "contains" else "a.number"
    constant: Any = [1] if operator == "in" else 1
    assert not parse_predicate({operator: [path, constant]}, WORDS).holds(Thing({}))


def test_two_missing_fields_are_not_the_same() -> None:
    assert not parse_predicate({"same": ["a.person", "a.other"]}, WORDS).holds(Thing({}))


def test_an_explanation_names_field_and_value_and_what_was_expected() -> None:
    predicate = parse_predicate({"in": ["a.text", ["allow", "ask"]]}, WORDS)
    assert predicate.explain(THING) == "a.text is deny, not allow or ask"


def test_the_explanation_of_all_names_only_what_does_not_hold() -> None:
    predicate = parse_predicate({"all": [{"present": "a.text"}, {"at_most": ["a.number", 0]}]}, WORDS)
    assert predicate.explain(THING) == "a.number is 1, not at most 0"


def test_an_explanation_never_shows_a_pseudonym() -> None:
    thing = Thing({"a.person": "0123456789abcdef", "a.other": "fedcba9876543210"})
    told = parse_predicate({"same": ["a.person", "a.other"]}, WORDS).explain(thing)
    assert "0123456789abcdef" not in told
    assert "fedcba9876543210" not in told


def test_a_description_puts_the_predicate_into_words() -> None:
    value = {
        "any": [{"equals": ["a.flag", True]}, {"not": {"contains": ["a.list", "x"]}}, {"same": ["a.text", "a.text"]}]
    }
    described = parse_predicate(value, WORDS).describe()
    assert described == "(a.flag is true or not a.list holds x or a.text equals a.text)"
