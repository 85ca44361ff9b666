"""Policy tests: read strictly, compared in full, and counted by rule."""

from __future__ import annotations

import asyncio
from datetime import datetime

import msgspec
import pytest

from ledger.errors import PolicySyntaxError
from policies.bundles import Bundle, bundle_from_files
from policies.evaluate import Evaluator
from policies.testing import Given, TestReport, read_cases, run_cases
from tests.support.policies import cedar_files

AT = datetime.fromisoformat("2026-11-17T10:00")
POLICY = """
@id("work") permit(principal in Role::"staff", action, resource);
@id("night") @obligation("end_session") forbid(principal, action, resource) when { context.time.hour < 6 };
@id("never") forbid(principal, action, resource) when { context.identity.mfa };
"""
CASES = """
defaults: {agent: Bot, roles: [staff], server: shop, tool: sell, at: 2026-11-17T10:00:00}
cases:
  - name: by day
    given: {}
    expect: {effect: PERMIT, rules: [work]}
  - name: by night
    given: {at: 2026-11-17T03:00:00}
    expect: {effect: DENY, rules: [night], failed_condition: night, obligations: [end_session], reason: policy}
"""


def bundle_with(*documents: str, policy: str = POLICY) -> Bundle:
    tests = {f"tests/{number}.yaml": text.encode() for number, text in enumerate(documents)}
    return bundle_from_files(cedar_files(policy) | tests)


def report(evaluator: Evaluator, *documents: str, policy: str = POLICY) -> TestReport:
    return asyncio.run(run_cases(bundle_with(*documents, policy=policy), evaluator))


def test_cases_that_come_out_as_expected_pass(evaluator):
    result = report(evaluator, CASES)
    assert result.passed
    assert [item.case.name for item in result.results] == ["by day", "by night"]
    assert [item.case.file for item in result.results] == ["tests/0.yaml"] * 2


def test_coverage_names_rules_that_no_case_reaches(evaluator):
    result = report(evaluator, CASES)
    assert result.covered == ("work", "night")
    assert result.uncovered == ("never",)


def test_bundle_without_cases_has_passed_none(evaluator):
    assert not report(evaluator).passed
    assert not report(evaluator, "cases: []").passed


@pytest.mark.parametrize(
    ("old", "new", "difference"),
    [
        ("effect: DENY", "effect: PERMIT", "effect: expected PERMIT, got DENY"),
        ("rules: [night]", "rules: []", "rules: expected none, got night"),
        ("rules: [night]", "rules: [night, never]", "rules: expected never, night, got night"),
        ("failed_condition: night", "failed_condition: day", "failed_condition: expected day, got night"),
        ("obligations: [end_session]", "obligations: []", "obligations: expected none, got end_session"),
        ("reason: policy", "reason: no_permit", "reason: expected no_permit, got policy"),
    ],
)
def test_case_that_comes_out_otherwise_fails_and_says_in_what(evaluator, old, new, difference):
    result = report(evaluator, CASES.replace(old, new))
    assert not result.passed
    (failure,) = result.failures
    assert failure.case.name == "by night"
    assert failure.differences == (difference,)


def test_bundle_that_does_not_load_has_no_report(evaluator):
    with pytest.raises(PolicySyntaxError, match=r"policy\.cedar:1"):
        report(evaluator, CASES, policy="permit(principal, action, resource);")


def test_cases_of_another_revision_can_be_run(evaluator):
    cases = read_cases(bundle_with(CASES))
    changed = bundle_with(policy=POLICY.replace("hour < 6", "hour < 2"))
    result = asyncio.run(run_cases(changed, evaluator, cases))
    assert [item.case.name for item in result.failures] == ["by night"]


def test_time_is_derived_in_the_zone_that_is_given():
    document = CASES.replace("agent: Bot", "agent: Bot, zone: Asia/Kolkata")
    request = read_cases(bundle_with(document))[1].given.request()
    assert (request.time.hour, request.time.minute, request.time.weekday) == (3, 0, 2)
    assert request.time.local_date == "2026-11-17"
    assert request.time.now_ms == 1_794_864_600_000


def test_arguments_reach_the_engine_as_they_are_written():
    document = CASES.replace("given: {}", "given: {arguments: '{\"x\": 1e0}'}")
    assert read_cases(bundle_with(document))[0].given.request().arguments == '{"x": 1e0}'


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "Expected `object`"),
        ("cases: {}", "Expected `array`"),
        ("cases: [{name: a, given: {}}]", "missing required field `expect`"),
        (CASES + "more: 1", "unknown field"),
        (CASES.replace("given: {}", "given: {agnet: x}"), "unknown field `agnet`"),
        (CASES.replace("rules: [work]", "rule: [work]"), "unknown field `rule`"),
        (CASES.replace(", rules: [work]", ""), "missing required field `rules`"),
        (CASES.replace("effect: PERMIT", "effect: ALLOW"), "Invalid enum value"),
        (CASES.replace("agent: Bot, ", ""), "missing required field `agent`"),
        (CASES.replace(", at: 2026-11-17T10:00:00", ""), "missing required field `at`"),
        (CASES.replace("T10:00:00", "T10:00:00Z"), "local"),
        (CASES.replace("agent: Bot", "agent: Bot, zone: Mars/Base"), "no time zone named"),
        (CASES.replace("agent: Bot", "agent: Bot, zone: ../../etc/passwd"), "no time zone named"),
        (CASES.replace("by night", "by day"), "share a name"),
        (CASES.replace("given: {}", "given: {mfa: true, mfa: false}"), "a key is there twice"),
        (CASES.replace("given: {}", "given: &a {}"), "anchors and aliases"),
        ("a: &a [1]\ncases: *a", "anchors and aliases"),
        ("cases: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("cases: [", "expected the node content"),
        ("cases:\n\t- x", "cannot start any token"),
        ("cases: " + "[" * 3000, r"tests/0\.yaml"),
        (CASES.replace("name: by day", "name: [by, day]"), "Expected `str`"),
        (CASES.replace("given: {}", "given: {[1]: 2}"), r"tests/0\.yaml"),
    ],
)
def test_document_that_could_be_misread_is_refused(evaluator, document, message):
    with pytest.raises(PolicySyntaxError, match=message):
        report(evaluator, document)


def test_files_that_are_no_cases_are_left_alone():
    files = cedar_files(POLICY) | {"tests/data.json": b"{", "tests/notes.md": b"cases: x"}
    assert read_cases(bundle_from_files(files)) == ()


def test_a_case_may_state_a_derived_fact_otherwise():
    stated = {"now_ms": 5, "local_date": "2026-01-01", "hour": 23, "minute": 59, "weekday": 7, "started_ms": 4}
    request = Given(agent="a", server="s", at=AT, **stated).request()
    assert msgspec.to_builtins(request.time) | {"started_ms": request.state.started_ms} == stated | {"zone": "UTC"}


@pytest.mark.parametrize(
    "stated", [{"hour": 24}, {"minute": -1}, {"weekday": 0}, {"now_ms": -1}, {"now_ms": 2**53}, {"local_date": "today"}]
)
def test_a_fact_that_no_request_could_have_is_refused(stated):
    with pytest.raises(PolicySyntaxError, match="time"):
        Given(agent="a", server="s", at=AT, **stated).request()
