"""Explanations, and what a refused call would need, of policies that read signals: as the engine has it, in both."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bundles import Bundle
from policies.engine import Engine
from policies.engines.cedar import CedarEngine
from policies.engines.cedar_explain import explain_cedar
from policies.engines.rego import RegoEngine
from policies.engines.rego_explain import explain_rego
from policies.explaining import Explanation, Holds
from policies.model import DecisionRequest, Effect, with_signals
from policies.signals import Signals
from tests.support.policies import make_request, rego_bundle
from tests.unit.policies.test_signals import cedar

CEDAR = cedar(
    """
@id("known") @needs("a-known-agent") permit(principal, action, resource)
when { context.signals.baseline == "ready" && context.signals.deviations.isEmpty() };
@id("second") @needs("mfa") permit(principal, action, resource) when { context.identity.mfa };
@id("clean") @needs("no-secrets") forbid(principal, action, resource)
when { context.signals.kinds.contains("secret") || context.signals.finding_count > 3 };
@id("looked-at") @needs("an-inspected-call") forbid(principal, action, resource)
unless { context.signals.inspected == "complete" };
@id("pinned") forbid(principal, action, resource)
when { context.signals.tool_state == "unpinned" && context.signals.findings.contains("ansi/colour") };
"""
)
REGO = rego_bundle(
    """
default allow := false
allow if count(permits) > 0
permits contains "known" if { input.signals.baseline == "ready"; count(input.signals.deviations) == 0 }
permits contains "second" if input.principal.mfa
denies contains "clean" if "secret" in input.signals.kinds
denies contains "clean" if input.signals.finding_count > 3
denies contains "looked-at" if not input.signals.inspected == "complete"
denies contains "pinned" if { input.signals.tool_state == "unpinned"; "ansi/colour" in input.signals.findings }
needs contains "a-known-agent" if not "known" in permits
needs contains "an-inspected-call" if "looked-at" in denies
"""
)


@st.composite
def signals(draw: st.DrawFn) -> Signals:
    inspected = draw(st.sampled_from(["none", "partial", "complete"]))
    findings: tuple[str, ...] = ()
    if inspected != "none":
        findings = tuple(sorted(draw(st.sets(st.sampled_from(["ansi/colour", "secret/aws", "injection/override"])))))
    return Signals(
        inspected=inspected,  # type: ignore[arg-type]  # as above
        inspector="" if inspected == "none" else "5c" * 32,
        findings=findings,
        finding_count=0 if inspected == "none" else len(findings) + draw(st.integers(0, 3)),
        tool_state=draw(st.sampled_from(["none", "unpinned", "pinned"])),
        baseline=draw(st.sampled_from(["none", "learning", "ready"])),
        deviations=tuple(sorted(draw(st.sets(st.sampled_from(["hour", "tool"]))))),
    )


calls = st.builds(with_signals, st.booleans().map(lambda mfa: make_request(name="sell", mfa=mfa)), signals())


class Side:
    """An engine and its explainer, on one bundle."""

    def __init__(self, engine: Engine, bundle: Bundle, explain: Any) -> None:
        self.engine, self.loaded = engine, engine.load(bundle)
        self._bundle, self._explain = bundle, explain

    def explained(self, request: DecisionRequest) -> Explanation:
        explanation: Explanation = self._explain(self._bundle, request)
        (decision,) = self.engine.evaluate(self.loaded, [request])
        assert explanation.decision == decision
        return explanation


SIDES = {"cedar": Side(CedarEngine(), CEDAR, explain_cedar), "rego": Side(RegoEngine(), REGO, explain_rego)}
BOTH = pytest.mark.parametrize("side", SIDES)


def holds(request: DecisionRequest) -> dict[str, bool]:
    """Say of each rule whether it applies, as it reads."""
    said = request.signals
    assert isinstance(said, Signals)
    kinds = {name.partition("/")[0] for name in said.findings}
    return {
        "known": said.baseline == "ready" and not said.deviations,
        "second": request.principal.mfa,
        "clean": "secret" in kinds or said.finding_count > 3,
        "looked-at": said.inspected != "complete",
        "pinned": said.tool_state == "unpinned" and "ansi/colour" in said.findings,
    }


@BOTH
@given(calls)
def test_a_rule_on_signals_applies_in_an_explanation_exactly_if_it_holds(side: str, request: DecisionRequest) -> None:
    explanation = SIDES[side].explained(request)
    expected = holds(request)
    applies: dict[str, bool] = {}
    for rule in explanation.rules:
        applies[rule.name] = applies.get(rule.name, False) or rule.applies
    assert {name: applies[name] for name in expected} == expected
    permitted = (expected["known"] or expected["second"]) and not any(
        expected[name] for name in ("clean", "looked-at", "pinned")
    )
    assert explanation.decision.permitted is permitted


@BOTH
@given(calls)
def test_no_condition_on_signals_is_said_to_hold_that_does_not(side: str, request: DecisionRequest) -> None:
    said = request.signals
    assert isinstance(said, Signals)
    for rule in SIDES[side].explained(request).rules:
        for condition in rule.conditions:
            if "baseline" in condition.text:
                assert (condition.holds is Holds.YES) is (said.baseline == "ready")
            if "tool_state" in condition.text:
                assert (condition.holds is Holds.YES) is (said.tool_state == "unpinned")


@BOTH
@given(st.booleans())
def test_without_signals_no_rule_was_asked_and_none_is_said_to_have_spoken(side: str, mfa: bool) -> None:
    explanation = SIDES[side].explained(make_request(name="sell", mfa=mfa))
    decision = explanation.decision
    assert (decision.effect, decision.reason, decision.detail) == (Effect.INDETERMINATE, "request_error", "signals")
    assert not any(rule.applies for rule in explanation.rules)
    assert decision.needs == ()


@given(calls)
def test_a_refused_call_needs_what_the_rules_say_that_refuse_it(request: DecisionRequest) -> None:
    expected = holds(request)
    decision = SIDES["cedar"].explained(request).decision
    needs = set(decision.needs)
    if decision.permitted:
        assert needs == set()
    elif any(expected[name] for name in ("clean", "looked-at", "pinned")):
        said = {"clean": "no-secrets", "looked-at": "an-inspected-call"}
        assert needs <= {text for name, text in said.items() if expected[name]}
        assert needs or expected["pinned"]
    else:
        assert needs == {"a-known-agent", "mfa"}


@given(calls)
def test_needs_of_rego_are_of_the_signals_that_there_were(request: DecisionRequest) -> None:
    expected = holds(request)
    decision = SIDES["rego"].explained(request).decision
    needs = set(decision.needs)
    if decision.permitted:
        assert needs == set()
    else:
        assert ("an-inspected-call" in needs) is expected["looked-at"]
        assert ("a-known-agent" in needs) is (not expected["known"])
