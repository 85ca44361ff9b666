"""Catalogues as values, tests over items, and verdicts that say no more than was computed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from evidence.controls import (
    MAX_SHEET_DEVIATIONS,
    Examination,
    control_file_name,
    distinct_tests,
    framework_value,
    judge,
    parse_framework,
)
from evidence.subjects import Item
from evidence.summary import ControlSheet, ControlStatus
from ledger.canonical import canonical_bytes, parse_canonical
from ledger.errors import MalformedError
from tests.support.packs import SMALL_FRAMEWORK


def framework(change: Callable[[dict[str, Any]], None] = lambda value: None) -> dict[str, Any]:  # noqa: ARG005
    value = copy.deepcopy(SMALL_FRAMEWORK)
    change(value)
    return value


def run(items: list[bool | None], **members: Any) -> Examination:
    """Examine one replay item for each value: a replay that is the same, differs, or (None) is not exact."""
    test = {
        "id": "t",
        "sentence": "A test.",
        "subject": "replay",
        "where": {"equals": ["replay.class", "exact"]},
        "must": {"equals": ["replay.same", True]},
        **members,
    }
    value = framework(lambda value: value.update(tests=[test], controls=[{**value["controls"][0], "tests": ["t"]}]))
    examination = Examination(parse_framework(value).tests["t"])
    for leaf, same in enumerate(items):
        name = "erased" if same is None else "exact"
        examination.see(Item(leaf, {"replay": {"class": name, "same": same}}))
    return examination


def verdict(
    examinations: dict[str, Examination], *, tests: list[str], conditional: list[str] | None = None, **options: Any
) -> ControlSheet:
    definitions = [dict(one.test.members) for one in examinations.values()]
    control = {**SMALL_FRAMEWORK["controls"][0], "tests": tests, "conditional_tests": conditional or []}
    parsed = parse_framework(framework(lambda value: value.update(tests=definitions, controls=[control])))
    return judge(parsed, parsed.controls[0], examinations, **options)


def named(name: str, items: list[bool | None], **members: Any) -> dict[str, Examination]:
    return {name: run(items, id=name, **members)} if name == "t" else {name: _renamed(name, items, members)}


def _renamed(name: str, items: list[bool | None], members: dict[str, Any]) -> Examination:
    examination = run(items, **members)
    value = framework(
        lambda value: value.update(
            tests=[{**examination.test.members, "id": name}], controls=[{**value["controls"][0], "tests": [name]}]
        )
    )
    return Examination(
        parse_framework(value).tests[name],
        examination.population,
        examination.passed,
        examination.failed,
        examination.deviations,
    )


# --- reading -------------------------------------------------------------------------------------------------------


def test_a_framework_survives_its_canonical_bytes() -> None:
    parsed = parse_framework(framework())
    data = canonical_bytes(framework_value(parsed))
    again = parse_framework(parse_canonical(data))
    assert canonical_bytes(framework_value(again)) == data
    assert again.controls == parsed.controls


def _drop(member: str) -> Callable[[dict[str, Any]], None]:
    return lambda value: value.pop(member)


def _control(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["controls"][0].update(changes)


def _test(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["tests"][0].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        _drop("source"),
        _drop("mapping_version"),
        lambda value: value.update(extra=1),
        lambda value: value.update(format="tallystick.framework/2"),
        lambda value: value.update(framework="SOC 2"),
        lambda value: value["controls"].append(dict(value["controls"][0])),
        lambda value: (
            value["controls"].append({**value["controls"][1], "id": "C-2"})
            or value["controls"].append({**value["controls"][1], "id": "c:2"})
        ),
        lambda value: value["tests"].append(dict(value["tests"][0])),
        lambda value: value["tests"].append({**value["tests"][0], "id": "nobody-uses-it"}),
        _control(tests=["not-there"]),
        _control(tests=["allowed-only-on-permit", "allowed-only-on-permit"]),
        _control(conditional_tests=["allowed-only-on-permit"]),
        _control(tests=[]),
        _control(tests=[], not_tested="because"),
        _control(not_tested="because"),
        _control(evidence=["E15"]),
        _control(evidence=["E01"]),
        _control(strength="certain"),
        _control(title=""),
        _control(unknown=True),
        _test(subject="person"),
        _test(must={"present": "decision.nothing"}),
        _test(must={"equals": ["decision.user", "ann"]}),
        _test(quantifier="some"),
        _test(quantifier={"at_least": 0}),
        _test(quantifier={"at_most": 1}),
        _test(sentence=""),
        _test(code="1 == 1"),
    ],
)
def test_a_framework_that_is_not_sound_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    with pytest.raises(MalformedError):
        parse_framework(framework(change))


def test_a_control_that_claims_direct_evidence_needs_a_computed_test() -> None:
    with pytest.raises(MalformedError, match="direct"):
        parse_framework(framework(lambda value: value["controls"][1].update(strength="direct")))


def test_two_frameworks_may_share_a_test_but_not_mean_two_by_one_id() -> None:
    one = parse_framework(framework())
    same = parse_framework(framework(lambda value: value.update(framework="other")))
    assert set(distinct_tests([one, same])) == {"allowed-only-on-permit"}

    def change(value: dict[str, Any]) -> None:
        value.update(framework="other")
        value["tests"][0]["must"] = {"all": []}

    with pytest.raises(MalformedError, match="different tests"):
        distinct_tests([one, parse_framework(framework(change))])
    with pytest.raises(MalformedError, match="twice"):
        distinct_tests([one, one])


@pytest.mark.parametrize(
    ("control", "name"),
    [("CC6.1", "CC6.1"), ("164.312(a)(2)(i)", "164.312-a-2-i"), ("AC-3(13)", "AC-3-13"), ("7.2.1", "7.2.1")],
)
def test_a_controls_file_name_is_plain(control: str, name: str) -> None:
    assert control_file_name(control) == name


# --- examining -----------------------------------------------------------------------------------------------------


def test_every_counts_population_passes_and_deviations() -> None:
    examination = run([True, None, False, True])
    assert (examination.population, examination.passed, examination.failed) == (3, 2, 1)
    (deviation,) = examination.deviations
    assert (deviation.leaf, deviation.test, deviation.cause) == (2, "t", "replay.same is false, not true")


def test_none_makes_deviations_of_those_that_fulfil_it() -> None:
    examination = run([True, False, False], quantifier="none")
    assert (examination.population, examination.passed, examination.failed) == (3, 2, 1)
    assert examination.deviations[0].cause == "it holds that replay.same is true"


def test_at_least_makes_no_deviations() -> None:
    examination = run([True, False, False], quantifier={"at_least": 1})
    assert (examination.population, examination.passed, examination.failed) == (3, 1, 0)


def test_a_test_without_where_is_about_every_item() -> None:
    assert run([True, None], where=None).population == 2


def test_a_sheet_lists_the_first_hundred_deviations_and_counts_all() -> None:
    result = run([False] * 250).result(conditional=False)
    assert result.failed == 250
    assert len(result.deviations) == MAX_SHEET_DEVIATIONS
    assert [one.leaf for one in result.deviations[:2]] == [0, 1]


# --- judging -------------------------------------------------------------------------------------------------------


def test_a_control_is_satisfied_if_every_test_had_something_to_test_and_passed() -> None:
    sheet = verdict(named("t", [True, True]), tests=["t"])
    assert sheet.status is ControlStatus.SATISFIED
    assert sheet.reason == "1 of 1 tests passed: t: 2 of 2"


def test_one_deviation_is_enough_for_not_satisfied() -> None:
    sheet = verdict(named("t", [True, False]), tests=["t"])
    assert sheet.status is ControlStatus.NOT_SATISFIED
    assert sheet.reason == "1 of 1 tests failed: t: 1 of 2 deviate"


def test_a_test_with_nothing_to_test_is_insufficient_evidence() -> None:
    sheet = verdict(named("t", [None]), tests=["t"])
    assert sheet.status is ControlStatus.NOT_TESTED
    assert sheet.reason == "insufficient evidence: t: 0 of 1 needed, among 0"


def test_what_was_not_seen_to_work_is_insufficient_evidence_and_no_failure() -> None:
    sheet = verdict(named("t", [False, False], quantifier={"at_least": 1}), tests=["t"])
    assert sheet.status is ControlStatus.NOT_TESTED
    assert sheet.reason == "insufficient evidence: t: 0 of 1 needed, among 2"


def test_fewer_than_needed_are_insufficient_evidence() -> None:
    sheet = verdict(named("t", [True, True], quantifier={"at_least": 3}), tests=["t"])
    assert sheet.status is ControlStatus.NOT_TESTED


def test_a_conditional_test_without_occurrence_does_not_stand_in_the_way() -> None:
    sheet = verdict({**named("t", [True]), **named("u", [None])}, tests=["t"], conditional=["u"])
    assert sheet.status is ControlStatus.SATISFIED
    assert sheet.reason.endswith("1 of 2 are about things that did not occur")


def test_a_conditional_test_that_fails_counts() -> None:
    sheet = verdict({**named("t", [True]), **named("u", [False])}, tests=["t"], conditional=["u"])
    assert sheet.status is ControlStatus.NOT_SATISFIED


def test_a_failure_weighs_more_than_missing_evidence() -> None:
    sheet = verdict({**named("t", [None]), **named("u", [False])}, tests=["t", "u"])
    assert sheet.status is ControlStatus.NOT_SATISFIED


def test_a_control_without_computed_test_is_not_tested_and_says_why() -> None:
    parsed = parse_framework(framework())
    sheet = judge(parsed, parsed.controls[1], {})
    assert sheet.status is ControlStatus.NOT_TESTED
    assert sheet.reason == "no computed test: nothing speaks of it"


def test_not_applicable_is_the_requests_word_and_shows_the_tests_all_the_same() -> None:
    sheet = verdict(named("t", [False]), tests=["t"], not_applicable="we have no shop")
    assert sheet.status is ControlStatus.NOT_APPLICABLE
    assert sheet.reason == "stated in the request: we have no shop"
    assert sheet.tests[0].failed == 1


def test_a_note_on_decisions_is_added_only_where_a_test_is_about_decisions() -> None:
    parsed = parse_framework(framework())
    examination = Examination(parsed.tests["allowed-only-on-permit"])
    sheet = judge(parsed, parsed.controls[0], {"allowed-only-on-permit": examination}, note="3 of 9 left out")
    assert sheet.reason.endswith("; 3 of 9 left out")
    assert not verdict(named("t", [True]), tests=["t"], note="3 of 9 left out").reason.endswith("left out")
