"""Every shared control test: on items that pass, that fail, that it says nothing of, and on none at all."""

from __future__ import annotations

import msgspec
import pytest

from evidence.catalogue import framework_names, load_frameworks
from evidence.controls import Control, ControlTest, Examination, Framework, judge
from evidence.predicates import PathKind
from evidence.subjects import SUBJECTS
from evidence.summary import ControlStatus, TestState
from ledger.records import Record
from tests.support.control_cases import CASES, Cases, Change, item_of
from tests.support.verifiers import SECOND_VERIFIER

FRAMEWORKS = load_frameworks(framework_names())
TESTS = {test.id: test for framework in FRAMEWORKS for test in framework.tests.values()}
# What the record types demand anyway: no record that a log holds can fail these.
NEVER_FAIL = {
    "access-names-its-person",
    "access-recorded",
    "baseline-exists",
    "heartbeat-seen",
    "keys-are-introduced",
    "login-recorded",
}


def examined(test: ControlTest, *changes: Change) -> Examination:
    examination = Examination(test)
    for change in changes:
        examination.see(item_of(test.subject, change))
    return examination


def each(part: str) -> list[object]:
    return [
        pytest.param(name, change, id=f"{name}-{number}")
        for name, cases in CASES.items()
        for number, change in enumerate(getattr(cases, part))
    ]


def test_every_shared_test_has_cases_and_no_case_is_of_another() -> None:
    assert CASES.keys() == TESTS.keys()


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_test_has_something_that_passes_and_something_that_fails(name: str) -> None:
    cases: Cases = CASES[name]
    assert cases.passing or TESTS[name].quantifier == "none"
    assert bool(cases.failing) is (name not in NEVER_FAIL)
    assert cases.outside or TESTS[name].where is None


@pytest.mark.parametrize(("name", "change"), each("passing"))
def test_what_is_in_order_passes(name: str, change: Change) -> None:
    examination = examined(TESTS[name], change)
    assert (examination.population, examination.passed, examination.failed) == (1, 1, 0)
    assert examination.result(conditional=False).state is TestState.PASSED


@pytest.mark.parametrize(("name", "change"), each("failing"))
def test_what_is_not_in_order_does_not_pass(name: str, change: Change) -> None:
    examination = examined(TESTS[name], change)
    assert (examination.population, examination.passed) == (1, 0)
    expected = TestState.NOTHING if TESTS[name].quantifier == "at_least" else TestState.FAILED
    assert examination.result(conditional=False).state is expected


@pytest.mark.parametrize(("name", "change"), each("failing"))
def test_one_deviation_among_many_items_is_found_and_named(name: str, change: Change) -> None:
    test = TESTS[name]
    if test.quantifier == "at_least":
        return  # nothing that such a test looks for can deviate
    examination = examined(test, *CASES[name].passing, change, *CASES[name].passing)
    assert examination.failed == 1
    (deviation,) = examination.deviations
    assert deviation.test == name
    assert deviation.cause


@pytest.mark.parametrize(("name", "change"), each("outside"))
def test_what_a_test_is_not_about_is_not_in_its_population(name: str, change: Change) -> None:
    examination = examined(TESTS[name], change)
    assert (examination.population, examination.passed, examination.failed) == (0, 0, 0)


@pytest.mark.parametrize(("name", "change"), each("failing"))
def test_a_deviation_prints_no_pseudonym_and_nothing_sealed(name: str, change: Change) -> None:
    test = TESTS[name]
    item = item_of(test.subject, change)
    hidden = [
        str(item.get(path))
        for path, kind in SUBJECTS[test.subject].items()
        if kind in (PathKind.PSEUDONYM, PathKind.SEALED) and item.get(path)
    ]
    causes = [deviation.cause for deviation in examined(test, change).deviations]
    assert not [one for one in hidden for cause in causes if one in cause]


def seen_by_the_second_verifier(test: ControlTest, change: Change) -> tuple[int, int, list[str]]:
    """Return population, passes and causes as the verifier that shares no code with ours counts and words them."""
    item = item_of(test.subject, change)
    record = item.roots.get("envelope")
    if isinstance(record, Record):
        value = msgspec.json.decode(msgspec.json.encode(record))
        other = SECOND_VERIFIER.Item(7, record=SECOND_VERIFIER.Record(7, value), derived=item.roots["derived"])
    else:
        values = {
            path: item.get(path) for path in SUBJECTS[test.subject] if path.split(".")[1] in item.roots[test.subject]
        }  # type: ignore[operator]
        other = SECOND_VERIFIER.Item(7, values=values)
    examination = SECOND_VERIFIER.Examination(SECOND_VERIFIER._Test(test.members))
    examination.see(other)
    return examination.population, examination.passed, [one["cause"] for one in examination.deviations]


@pytest.mark.parametrize(("name", "change"), [*each("passing"), *each("failing"), *each("outside")])
def test_the_second_verifier_makes_the_same_of_it_in_the_same_words(name: str, change: Change) -> None:
    ours = examined(TESTS[name], change)
    causes = [deviation.cause for deviation in ours.deviations]
    assert seen_by_the_second_verifier(TESTS[name], change) == (ours.population, ours.passed, causes)


def controls() -> list[object]:
    return [
        pytest.param(framework, control, id=f"{framework.id}-{control.id}")
        for framework in FRAMEWORKS
        for control in framework.controls
    ]


def verdict(framework: Framework, control: Control, parts: dict[str, tuple[Change, ...]]) -> tuple[ControlStatus, str]:
    examinations = {test: examined(TESTS[test], *parts.get(test, ())) for test in control.all_tests}
    sheet = judge(framework, control, examinations)
    return sheet.status, sheet.reason


@pytest.mark.parametrize(("framework", "control"), controls())
def test_a_control_without_anything_to_show_says_insufficient_evidence(framework: Framework, control: Control) -> None:
    status, reason = verdict(framework, control, {})
    assert status is ControlStatus.NOT_TESTED
    assert reason.startswith("insufficient evidence: " if control.tests else "no computed test: ")


@pytest.mark.parametrize(("framework", "control"), controls())
def test_a_control_is_satisfied_exactly_if_each_of_its_tests_had_something_that_passed(
    framework: Framework, control: Control
) -> None:
    if not control.tests:
        return  # what it says then is tested above
    good = {test: CASES[test].passing for test in control.all_tests}
    assert verdict(framework, control, good)[0] is ControlStatus.SATISFIED
    for test in control.tests:
        status, reason = verdict(framework, control, {**good, test: ()})
        assert status is ControlStatus.NOT_TESTED
        assert test in reason


@pytest.mark.parametrize(("framework", "control"), controls())
def test_one_deviation_of_any_of_its_tests_makes_a_control_not_satisfied(
    framework: Framework, control: Control
) -> None:
    good = {test: CASES[test].passing for test in control.all_tests}
    for test in control.all_tests:
        if TESTS[test].quantifier == "at_least" or not CASES[test].failing:
            continue
        status, reason = verdict(framework, control, {**good, test: CASES[test].failing[:1]})
        assert status is ControlStatus.NOT_SATISFIED
        assert f"{test}: 1 of 1 deviate" in reason
