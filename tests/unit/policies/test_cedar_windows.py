"""Behaviour windows in Cedar: what a bundle must declare, and what becomes of a request that does not say."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ledger.errors import PolicySyntaxError
from policies.bundles import Bundle, bundle_from_files
from policies.evaluate import Evaluator, Reason
from policies.model import Decision, DecisionRequest, Effect, with_windows
from policies.testing import run_cases
from policies.windows import read_windows
from tests.support.policies import SCHEMA, cedar_files, make_request

WINDOWS = [
    {"name": "spent", "measure": "sum", "parameter": "price", "per": "user", "over": "day"},
    {"name": "calls", "measure": "count", "per": "agent", "over_seconds": 60},
    {"name": "taint", "measure": "seen", "tags": ["pii"], "per": "session"},
]
TYPES = "{ spent?: decimal, calls?: Long, taint?: Bool }"
POLICY = """
@id("any") permit(principal, action, resource);
@id("cap") forbid(principal, action, resource)
unless { context.state.windows has spent && context.state.windows.spent.lessThanOrEqual(decimal("100.0")) };
@id("rate") forbid(principal, action, resource)
when { context.state.windows has calls && context.state.windows.calls > 5 };
@id("deputy") forbid(principal, action, resource)
unless { context.state.windows has taint && !context.state.windows.taint };
"""
HELD = {"spent": "100.0000", "calls": 5, "taint": False}


def bundle(policy: str = POLICY, types: str = TYPES, windows: Any = None, tests: str | None = None) -> Bundle:
    schema = SCHEMA.replace("started_ms: Long }", f"started_ms: Long, windows: {types} }}")
    files = cedar_files(policy, schema=schema, windows="windows.json")
    files["windows.json"] = json.dumps({"windows": WINDOWS if windows is None else windows}).encode()
    if tests is not None:
        files["tests/all.yaml"] = tests.encode()
    return bundle_from_files(files)


def decide(evaluator: Evaluator, request: DecisionRequest, given: Bundle | None = None) -> Decision:
    (evaluation,) = asyncio.run(evaluator.evaluate_many(given or bundle(), [request]))
    return evaluation.decision


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({}, ("any",)),
        ({"spent": "100.0001"}, ("cap",)),
        ({"calls": 6}, ("rate",)),
        ({"taint": True}, ("deputy",)),
        ({"spent": "100.0001", "calls": 6, "taint": True}, ("cap", "deputy", "rate")),
    ],
)
def test_policies_read_windows_exactly(evaluator, change, rules):
    request = read_windows(bundle()).stated(make_request(), {**HELD, **change})
    assert decide(evaluator, request).rules == rules


def test_schema_may_promise_windows_since_every_request_that_is_decided_holds_them(evaluator):
    required = bundle(
        '@id("any") permit(principal, action, resource) when { context.state.windows.calls == 5 };',
        TYPES.replace("?", ""),
    )
    assert decide(evaluator, with_windows(make_request(), HELD), required).effect is Effect.PERMIT


@pytest.mark.parametrize(
    ("request_", "reason", "detail"),
    [
        (make_request(), Reason.REQUEST_ERROR, "spent"),
        (with_windows(make_request(), {"spent": "1.0000", "calls": 1}), Reason.REQUEST_ERROR, "taint"),
        (with_windows(make_request(), HELD, {"calls": "0" * 32}), Reason.REQUEST_ERROR, "calls"),
        (with_windows(make_request(), {**HELD, "taint": 1}), Reason.REQUEST_ERROR, "taint"),
        (with_windows(make_request(), {**HELD, "spent": "922337203685477.5808"}), Reason.PARAMETER_ERROR, "spent"),
        (with_windows(make_request(), {**HELD, "calls": "1.0001"}), Reason.PARAMETER_ERROR, "calls"),
    ],
)
def test_request_that_does_not_say_what_the_windows_are_is_denied_and_named(evaluator, request_, reason, detail):
    decision = decide(evaluator, request_)
    assert (decision.effect, decision.reason, decision.detail) == (Effect.INDETERMINATE, reason, detail)


def test_windows_that_the_bundle_does_not_declare_reach_no_policy(evaluator):
    plain = bundle_from_files(cedar_files('@id("any") permit(principal, action, resource);'))
    assert decide(evaluator, with_windows(make_request(), HELD), plain).effect is Effect.PERMIT


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("context.state.windows has clals", "the schema declares no attribute named 'clals'"),
        ("context.state.windows has name", "the bundle declares no window named 'name'"),
        ("context.state has windows.name", "the bundle declares no window named 'name'"),
        ("context has state.windows.name", "the bundle declares no window named 'name'"),
        ("context.state.windows.calls > 5", "policy.cedar:1"),
    ],
)
def test_policy_that_asks_for_what_no_window_is_does_not_load(evaluator, condition, message):
    policy = f'@id("no") forbid(principal, action, resource) when {{ {condition} }};'
    with pytest.raises(PolicySyntaxError) as caught:
        asyncio.run(evaluator.check(bundle(policy)))
    assert message in str(caught.value)


def test_policy_cannot_ask_whether_there_are_windows_in_a_bundle_that_declares_none(evaluator):
    schema = SCHEMA.replace("started_ms: Long }", "started_ms: Long, windows?: { calls?: Long } }")
    policy = '@id("no") forbid(principal, action, resource) when { context.state has windows };'
    with pytest.raises(PolicySyntaxError, match=r"policy\.cedar:1: the bundle declares no windows"):
        asyncio.run(evaluator.check(bundle_from_files(cedar_files(policy, schema=schema))))


@pytest.mark.parametrize(
    ("types", "windows"),
    [
        (TYPES.replace("decimal", "Long"), None),
        (TYPES.replace("Bool", "Long"), None),
        ("{ spent?: decimal, calls?: Long }", None),
        (TYPES.replace("?", ""), WINDOWS[:2]),
        (TYPES, []),
    ],
)
def test_schema_that_does_not_fit_the_declared_windows_does_not_load(evaluator, types, windows):
    with pytest.raises(PolicySyntaxError, match="the schema does not fit requests for"):
        asyncio.run(evaluator.check(bundle('@id("any") permit(principal, action, resource);', types, windows)))


CASES = """
defaults: {agent: Bot, roles: [tester], server: shop, tool: sell, at: 2026-11-17T10:00:00}
cases:
  - {name: the first call, given: {}, expect: {effect: PERMIT, rules: [any]}}
  - {name: too dear by itself, given: {arguments: '{"price": "100.01"}'}, expect: {effect: DENY, rules: [cap]}}
  - {name: one too many, given: {windows: {calls: 6}}, expect: {effect: DENY, rules: [rate]}}
  - {name: up to the cap, given: {windows: {spent: "100"}}, expect: {effect: PERMIT, rules: [any]}}
  - {name: after a look, given: {windows: {taint: true, spent: 101}}, expect: {effect: DENY, rules: [cap, deputy]}}
"""


def test_cases_state_windows_and_leave_out_those_without_a_past(evaluator):
    report = asyncio.run(run_cases(bundle(tests=CASES), evaluator))
    assert [(item.case.name, item.differences) for item in report.failures] == []
    assert len(report.results) == 5


@pytest.mark.parametrize(
    "windows", ["{clals: 6}", "{calls: many}", "{calls: true}", "{taint: 1}", '{spent: "0.00001"}']
)
def test_case_that_states_what_is_no_value_of_a_window_is_refused(evaluator, windows):
    cases = f"{CASES}  - {{name: wrong, given: {{windows: {windows}}}, expect: {{effect: PERMIT, rules: []}}}}\n"
    with pytest.raises(PolicySyntaxError, match=r"tests/all\.yaml: wrong: the bundle has no window"):
        asyncio.run(run_cases(bundle(tests=cases), evaluator))
