"""Explanations agree with Cedar: a rule applies exactly if Cedar names it, whatever the request."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from policies.engines.cedar import CedarEngine
from policies.engines.cedar_explain import explain_cedar
from policies.explaining import Holds
from policies.model import Effect
from tests.support.policies import cedar_bundle, make_request

POLICY = """
@id("chain") permit(principal in Role::"staff", action == Action::"tools/call", resource)
when { context.args has amount && context.args.amount > 3 && context.args.amount < 100 };
@id("either") permit(principal, action, resource) when { context.identity.mfa || context.time.hour > 12 && true };
@id("choice") permit(principal, action, resource)
when { if context.identity.mfa then context.time.hour > 3 else context.time.hour > 20 };
@id("two") forbid(principal, action, resource)
when { context.time.weekday > 5 } unless { context.identity.mfa && context.time.hour > 9 }
when { resource in Tag::"sensitive" };
@id("list") forbid(principal, action in [Action::"tools/call", Action::"tools/list"], resource in Server::"shop")
unless { ["office", "home"].contains(context.environment.network) };
@id("plain") @description("a (bracket) && a comma, in a text")
permit(principal is Agent in Role::"root", action, resource);
"""
OVERFLOWS = (
    '@id("big") forbid(principal, action, resource) when { context.args has amount && context.args.amount * 3 > 5 };'
)

requests = st.fixed_dictionaries(
    {
        "roles": st.lists(st.sampled_from(["staff", "root"]), unique=True).map(tuple),
        "action": st.sampled_from(["tools/call", "tools/list", "unknown"]),
        "tags": st.sampled_from([(), ("sensitive",)]),
        "server": st.sampled_from(["shop", "bank", "a/b"]),
        "mfa": st.booleans(),
        "hour": st.integers(0, 23),
        "weekday": st.integers(1, 7),
        "network": st.sampled_from(["office", "cafe"]),
        "arguments": st.sampled_from(["{}", '{"amount": 4}', '{"amount": 500}', '{"amount": 9e18}', '{"amount": 0.5}']),
    }
)
ENGINE = CedarEngine()
BUNDLE = cedar_bundle(POLICY)
LOADED = ENGINE.load(BUNDLE)


def made(members: dict[str, object]):
    return make_request(**members | {"name": "sell" if members["action"] == "tools/call" else None})


@given(requests)
def test_a_rule_applies_exactly_if_cedar_names_it(members):
    request = made(members)
    explanation = explain_cedar(BUNDLE, request)
    (decision,) = ENGINE.evaluate(LOADED, [request])
    assert explanation.decision == decision
    applying = {(rule.effect, rule.name) for rule in explanation.rules if rule.applies}
    forbids = sorted(name for effect, name in applying if effect == "forbid")
    permits = sorted(name for effect, name in applying if effect == "permit")
    if decision.effect is Effect.INDETERMINATE:
        assert explanation.rules == ()
    else:
        assert list(decision.rules) == (forbids or permits)


@given(requests)
def test_nothing_is_asked_behind_a_condition_that_decides(members):
    for rule in explain_cedar(BUNDLE, made(members)).rules:
        asked = [condition for condition in rule.conditions if condition.kind in {"when", "unless"}]
        for before, after in pairwise(asked):
            if before.kind == after.kind == "when" and before.holds is not Holds.YES:
                assert after.holds is Holds.NOT_REACHED


def test_a_condition_that_fails_is_said_to_fail_and_its_rule_does_not_apply():
    bundle = cedar_bundle(POLICY + OVERFLOWS)
    explanation = explain_cedar(bundle, make_request(arguments='{"amount": 9000000000000000000}'))
    assert explanation.decision.effect is Effect.INDETERMINATE
    (rule,) = [rule for rule in explanation.rules if rule.name == "big"]
    assert [condition.holds for condition in rule.conditions] == [Holds.YES, Holds.FAILED]
    assert not rule.applies


def test_conditions_are_quoted_as_they_stand_without_comments():
    bundle = cedar_bundle(
        '@id("a") permit(principal, action, resource)\n'
        'when { // why && how\n  context.time.hour  >\n 3 && ("a, b)" == "c") };'
    )
    (rule,) = explain_cedar(bundle, make_request()).rules
    assert [condition.text for condition in rule.conditions] == ["context.time.hour > 3", '("a, b)" == "c")']
