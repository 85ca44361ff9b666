"""Explanations agree with regorus: a body applies exactly if its name speaks, whatever the request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.engines.rego import RegoEngine
from policies.engines.rego_explain import explain_rego
from policies.explaining import Holds
from policies.model import Decision, Effect
from tests.support.policies import make_request, rego_bundle

POLICY = """package test
import data.limits as limits
default allow := false
allow if {
    some name in permits
    name != "never"
}
permits contains "small" if {
    y > 3
    some y in [input.args.amount]
    input.resource.name == "sell"
    y < limits.most
}
permits contains "helped" if helper
helper if { input.time.hour > 12; input.principal.mfa }
helper if input.environment.network == `cafe`
permits contains name if { name := "named"; input.resource.server == "bank" }
denies contains "late" if input.time.hour >= 18
denies contains "weekend" if { input.time.weekday > 5; not input.principal.mfa }
obligations contains "approval" if "sensitive" in input.resource.tags
"""
CHOICES = """package test
allow := input.principal.mfa if {
    input.time.hour > 12
} else := true if {
    input.time.weekday > 5
} else := false if {
    input.time.hour > 3
} else := true
"""
OLD = """default allow = false
allow { input.time.hour > 12; input.principal.mfa }
allow = x { x := input.time.weekday > 5; x }
"""

requests = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["sell", "buy"]),
        "tags": st.sampled_from([(), ("sensitive",)]),
        "server": st.sampled_from(["shop", "bank"]),
        "mfa": st.booleans(),
        "hour": st.integers(0, 23),
        "weekday": st.integers(1, 7),
        "network": st.sampled_from(["office", "cafe"]),
        "arguments": st.sampled_from(["{}", '{"amount": 4}', '{"amount": 500}', '{"amount": 0.5}', '{"amount": "x"}']),
    }
)
ENGINE = RegoEngine()
BUNDLE = rego_bundle(POLICY, data={"limits": {"most": 100}})
BUNDLES = [rego_bundle(CHOICES), rego_bundle({"old.rego": OLD}, rego_version=0, package="test")]
LOADED = {bundle.revision: ENGINE.load(bundle) for bundle in (BUNDLE, *BUNDLES)}


def decided(bundle, request) -> Decision:
    (decision,) = ENGINE.evaluate(LOADED[bundle.revision], [request])
    return decision


@given(requests)
def test_a_name_speaks_exactly_if_one_of_its_bodies_applies(members):
    request = make_request(**members)
    explanation, decision = explain_rego(BUNDLE, request), decided(BUNDLE, request)
    assert explanation.decision == decision
    if decision.effect is Effect.INDETERMINATE:
        assert explanation.rules == ()
        return
    speaking = {(rule.effect, rule.name) for rule in explanation.rules if rule.applies}
    forbids = {name for effect, name in speaking if effect == "forbid"}
    permits = {name for effect, name in speaking if effect == "permit"} - {"allow"}
    assert set(decision.rules) == (forbids or permits)
    assert (("permit", "allow") in speaking) == bool(permits)
    assert (("obligation", "approval") in speaking) == ("sensitive" in members["tags"])


@given(requests, st.sampled_from(BUNDLES))
def test_allow_is_true_exactly_if_one_of_its_bodies_applies_else_and_values_included(members, bundle):
    request = make_request(**members | {"arguments": "{}"})
    explanation = explain_rego(bundle, request)
    assert explanation.decision == decided(bundle, request)
    assert any(rule.applies for rule in explanation.rules) == (explanation.decision.effect is Effect.PERMIT)


@given(requests)
def test_nothing_is_asked_behind_a_statement_that_does_not_hold(members):
    for rule in explain_rego(BUNDLE, make_request(**members)).rules:
        answers = [condition.holds for condition in rule.conditions]
        if Holds.NO in answers:
            assert set(answers[answers.index(Holds.NO) + 1 :]) <= {Holds.NOT_REACHED}


def test_statements_are_quoted_whole_and_those_that_need_a_later_one_together_with_it():
    explanation = explain_rego(BUNDLE, make_request(arguments='{"amount": 4}'))
    (rule,) = [rule for rule in explanation.rules if rule.name == "small"]
    assert [condition.text for condition in rule.conditions] == [
        "y > 3; some y in [input.args.amount]",
        'input.resource.name == "sell"',
        "y < limits.most",
    ]
    assert rule.applies


def test_a_statement_that_fails_is_said_to_fail_and_its_body_does_not_apply():
    bundle = rego_bundle('allow if true\ndenies contains "odd" if { input.time.hour > 3; to_number("x") > 3 }')
    explanation = explain_rego(bundle, make_request())
    assert explanation.decision.effect is Effect.INDETERMINATE
    (rule,) = [rule for rule in explanation.rules if rule.name == "odd"]
    assert [condition.holds for condition in rule.conditions] == [Holds.YES, Holds.FAILED]
    assert not rule.applies
