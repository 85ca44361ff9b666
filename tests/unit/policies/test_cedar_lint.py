"""What is legal Cedar and probably not meant: each finding, and what looks like one and is none."""

from __future__ import annotations

import asyncio
import json

import pytest

from policies.bundles import Bundle, bundle_from_files
from policies.engines.cedar_lint import lint_cedar
from policies.evaluate import Evaluator
from policies.linting import Finding, lint_bundle
from policies.testing import run_cases
from tests.support.policies import PARAMETERS, SCHEMA, cedar_files

READS_ALL = """
@id("reads") forbid(principal, action, resource) unless {
  context.args has amount && context.args has price && context.args has sku && context.args has dry };
"""


def codes(policy: str) -> list[tuple[str, str]]:
    bundle = bundle_from_files(cedar_files(READS_ALL + policy))
    return [(finding.place, finding.code) for finding in lint_cedar(bundle)]


def test_a_bundle_that_says_what_it_means_has_no_finding():
    assert codes('@id("a") permit(principal in Role::"staff", action, resource);') == []


def test_a_permit_without_any_bound_is_found_with_its_place():
    assert codes('@id("a") permit(principal, action, resource);') == [("policy.cedar:4", "unbounded-permit")]


@pytest.mark.parametrize(
    "policy",
    [
        '@id("a") permit(principal, action == Action::"tools/list", resource);',
        '@id("a") permit(principal is Agent, action, resource);',
        '@id("a") permit(principal, action, resource) when { context.identity.mfa };',
        '@id("a") forbid(principal, action, resource);',
    ],
)
def test_a_permit_with_a_bound_and_a_forbid_without_one_are_none(policy):
    assert codes(policy) == []


@pytest.mark.parametrize(
    "condition",
    [
        "context.args has amount && context.args.amount > 3",
        "context.identity.mfa && (context.args has amount && context.args.amount > 3)",
        "context has args && context.args has amount && context.args.amount > 3",
    ],
)
def test_a_limit_that_a_call_escapes_by_saying_nothing_is_found(condition):
    policy = f'@id("a") forbid(principal, action, resource) when {{ {condition} }};'
    assert ("policy.cedar:4", "escapable-limit") in codes(policy)


@pytest.mark.parametrize(
    "policy",
    [
        "forbid(principal, action, resource) unless { context.args has amount && context.args.amount <= 3 };",
        "forbid(principal, action, resource) when { !(context.args has amount && context.args.amount <= 3) };",
        "forbid(principal, action, resource) when { context.identity.mfa || context.args has amount };",
        "permit(principal, action, resource) when { context.args has amount && context.args.amount <= 3 };",
        'forbid(principal, action, resource) when { context.identity has user && context.identity.user == "x" };',
    ],
)
def test_limits_that_hold_without_the_value_are_none(policy):
    assert [code for _, code in codes(f'@id("a") {policy}')] == []


@pytest.mark.parametrize("name", ["\u0440ayroll", "payroll ", "\uff50ayroll"])
@pytest.mark.parametrize(
    "rule",
    [
        'forbid(principal, action, resource == Tool::"{}");',
        'forbid(principal in Role::"{}", action, resource);',
        'forbid(principal, action, resource) when {{ context.time.zone == "{}" }};',
    ],
)
def test_a_name_that_looks_like_another_is_found(name, rule):
    assert codes(f'@id("a") {rule.format(name)}') == [("policy.cedar:4", "hidden-character")]


def test_a_parameter_that_no_policy_reads_is_found():
    bundle = bundle_from_files(cedar_files('@id("a") permit(principal is Agent, action, resource);'))
    found = [(finding.code, finding.message.rsplit(" ", 1)[1]) for finding in lint_cedar(bundle)]
    assert found == [("unused-parameter", item["name"]) for item in PARAMETERS]


def test_a_window_that_no_policy_reads_is_found_and_what_it_sums_is_read():
    windows = [
        {"name": "spent", "measure": "sum", "parameter": "amount", "per": "session"},
        {"name": "calls", "measure": "count", "per": "agent", "over_seconds": 60},
    ]
    schema = SCHEMA.replace("started_ms: Long }", "started_ms: Long, windows: { spent: Long, calls: Long } }")
    rule = '@id("a") permit(principal, action, resource) when { context.state.windows.spent < 3 };'
    parameters = [item for item in PARAMETERS if item["name"] == "amount"]
    files = cedar_files(rule, schema=schema, parameters=parameters, windows="windows.json")
    bundle = bundle_from_files(files | {"windows.json": json.dumps({"windows": windows}).encode()})
    found = [(finding.place, finding.code, finding.message) for finding in lint_cedar(bundle)]
    assert found == [("windows.json", "unread-window", "no policy reads the window calls")]


def test_boundaries_that_no_policy_looks_at_are_found():
    rule = '@id("a") permit(principal is Agent, action, resource)'
    files = cedar_files(READS_ALL + rule + ";", boundaries="boundaries.json") | {"boundaries.json": b"{}"}
    assert [finding.code for finding in lint_cedar(bundle_from_files(files))] == ["unread-boundary"]
    looked = READS_ALL + rule + " when { context.boundary.drift == [] };"
    files = cedar_files(looked, boundaries="boundaries.json") | {"boundaries.json": b"{}"}
    assert lint_cedar(bundle_from_files(files)) == ()


def test_a_tag_that_an_entity_is_given_and_a_window_counts_by_is_found():
    window = {"name": "tainted", "measure": "seen", "tags": ["sensitive"], "per": "session"}
    given = [{"uid": {"type": "Tool", "id": "shop/sell"}, "parents": [{"type": "Tag", "id": "sensitive"}]}]
    rule = '@id("a") permit(principal is Agent, action, resource) when { context.state.windows.tainted };'
    files = cedar_files(READS_ALL + rule, entities=given, windows="windows.json")
    for tags, expected in ((["sensitive"], ["unseen-tag"]), (["other"], []), ([], [])):
        declared = json.dumps({"windows": [{**window, "tags": tags}]}).encode()
        found = lint_cedar(bundle_from_files(files | {"windows.json": declared}))
        assert [finding.code for finding in found] == expected
        assert all("sensitive" in finding.message and "shop/sell" in finding.message for finding in found)


def test_rules_that_say_the_same_are_found_and_those_with_another_obligation_are_none():
    same = "permit(principal is Agent, action, resource);"
    assert codes(f'@id("a") {same} @id("b") @description("x") {same}') == [("policy.cedar:4", "same-rule")]
    assert codes(f'@id("a") {same} @id("b") @obligation("approval") {same}') == []


# --- what concerns the whole bundle


def case(name: str, effect: str, rules: str, given: str = "") -> str:
    told = f"{{agent: Bot, roles: [staff], server: shop, tool: sell, at: 2026-11-17T10:00:00{given}}}"
    return f"  - {{name: {name}, given: {told}, expect: {{effect: {effect}, rules: {rules}}}}}\n"


STAFF = '@id("staff") permit(principal in Role::"staff", action, resource);'
NIGHT = '@id("night") forbid(principal, action, resource) when { context.time.hour < 6 };'
BY_DAY = case("by day", "PERMIT", "[staff]")
BY_NIGHT = case("by night", "DENY", "[night]", ", calls: 3").replace("T10", "T03")


def findings(evaluator: Evaluator, *cases: str) -> tuple[Finding, ...]:
    tests = {"tests/cases.yaml": ("cases:\n" + "".join(cases)).encode()} if cases else {}
    bundle: Bundle = bundle_from_files(cedar_files(STAFF + NIGHT) | tests)
    return lint_bundle(bundle, asyncio.run(run_cases(bundle, evaluator)), None)


def test_a_bundle_whose_cases_show_every_rule_both_ways_has_no_finding(evaluator):
    assert findings(evaluator, BY_DAY, BY_NIGHT) == ()


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ((), ["no-tests", "rule-not-tested", "rule-not-tested"]),
        ((BY_DAY,), ["only-permits", "rule-not-tested"]),
        ((BY_NIGHT,), ["only-denials", "rule-not-tested"]),
        ((BY_DAY, BY_NIGHT, BY_DAY.replace("by day", "again")), ["same-case"]),
    ],
)
def test_what_the_cases_leave_open_is_found(evaluator, cases, expected):
    assert [finding.code for finding in findings(evaluator, *cases)] == expected
