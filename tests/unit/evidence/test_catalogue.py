"""The catalogues that ship: sound, in our own words, and read from a YAML that has one meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import evidence
from evidence.catalogue import control_table, framework_names, load_framework, load_frameworks, parse_yaml
from evidence.controls import framework_value
from evidence.summary import Strength
from ledger.canonical import canonical_bytes
from ledger.errors import EvidenceError, MalformedError

ROOT = Path(evidence.__file__).parent
NAMES = ["hipaa", "soc2"]


def test_the_frameworks_that_ship_are_named() -> None:
    assert framework_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_framework_has_at_least_ten_controls_with_computed_tests(name: str) -> None:
    framework = load_framework(name)
    assert sum(bool(control.tests) for control in framework.controls) >= 10


@pytest.mark.parametrize("name", NAMES)
def test_every_direct_control_has_a_computed_test_and_the_others_say_why_not(name: str) -> None:
    for control in load_framework(name).controls:
        assert control.tests or control.strength is Strength.SUPPORTS
        assert bool(control.tests) is (control.not_tested is None)


def test_every_shared_test_is_used_by_a_framework() -> None:
    used = {test for framework in load_frameworks(NAMES) for test in framework.tests}
    value = parse_yaml((ROOT / "frameworks" / "tests.yaml").read_text(encoding="utf-8"), "tests.yaml")
    assert isinstance(value, dict)
    assert {test["id"] for test in value["tests"]} == used  # type: ignore[index, union-attr]


@pytest.mark.parametrize("name", NAMES)
def test_no_catalogue_holds_a_word_of_attestation(name: str) -> None:
    text = canonical_bytes(framework_value(load_framework(name))).decode().casefold()
    assert not re.search(r"complian|certif", text)


@pytest.mark.parametrize("name", ["nothing", "tests", "../soc2", "", "SOC2", "soc2.yaml"])
def test_what_does_not_ship_is_refused(name: str) -> None:
    with pytest.raises(EvidenceError):
        load_framework(name)


def test_the_control_table_has_one_line_for_each_control() -> None:
    framework = load_framework("soc2")
    table = control_table(framework)
    assert table.count("\n| ") == len(framework.controls) + 1
    for control in framework.controls:
        assert f"| {control.id} | " in table


def test_the_documentation_holds_the_control_tables_as_they_are() -> None:
    """Run ``python scripts/control_tables.py`` after changing a catalogue."""
    documented = (ROOT.parent / "docs" / "evidence.md").read_text(encoding="utf-8")
    for framework in load_frameworks(NAMES):
        assert control_table(framework) in documented


# --- the small YAML ------------------------------------------------------------------------------------------------


def test_plain_values_are_read_as_a_person_reads_them() -> None:
    text = "a: no\nb: 1.0\nc: 2020-01-01\nd: 0x10\ne: 010\nf: true\ng: -7\nh: ~\ni: on\nj: [x, 1]\nk: 1_000\n"
    assert parse_yaml(text, "t") == {
        "a": "no",
        "b": "1.0",
        "c": "2020-01-01",
        "d": "0x10",
        "e": "010",
        "f": True,
        "g": -7,
        "h": "~",
        "i": "on",
        "j": ["x", 1],
        "k": "1_000",
    }


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\na: 2\n",
        "a: {b: 1, b: 2}\n",
        "a: &x 1\n",
        "a: !!str 1\n",
        "a: &x 1\nb: *x\n",
        "a: &x {b: 1}\nc:\n  <<: *x\n",
        "1: a\n",
        "[a]: b\n",
        "a: !!python/object/apply:os.getcwd []\n",
        "a: !!binary aGk=\n",
        "a: !thing x\n",
        "a: [1\n",
        "a: 1\n---\nb: 2\n",
        "a:\tb: c\n",
    ],
)
def test_a_second_way_to_say_a_thing_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_yaml(text, "t")
