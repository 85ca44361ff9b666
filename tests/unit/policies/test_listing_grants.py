"""What an answer about unknown arguments says of the rules that may grant, and of what comes with every permit."""

from __future__ import annotations

import pytest

from policies.engines.cedar import CedarEngine
from policies.engines.rego import RegoEngine
from policies.listing import listed_request
from policies.model import Decision, Effect
from tests.support.policies import cedar_bundle, make_request, rego_bundle


def cedar(policy: str) -> Decision:
    engine = CedarEngine()
    question = listed_request(make_request(), action="tools/call", name="sell", tags=("read",))
    (decision,) = engine.evaluate(engine.load(cedar_bundle(policy)), [question])
    return decision


def rego(policy: str) -> Decision:
    engine = RegoEngine()
    question = listed_request(make_request(), action="tools/call", name="sell", tags=("read",))
    (decision,) = engine.evaluate(engine.load(rego_bundle(policy)), [question])
    return decision


A = '@id("a") permit (principal, action == Action::"tools/call", resource) when {{ {0} }};'
HELD = '@id("h") @obligation("approval") permit (principal, action == Action::"tools/call", resource) when {{ {0} }};'
TRUE, FALSE, UNKNOWN = "true", "false", "context.args has amount && context.args.amount <= 5"


@pytest.mark.parametrize(
    ("policy", "rules", "obligations"),
    [
        (A.format(TRUE), ("a",), ()),
        (A.format(UNKNOWN), ("a",), ()),
        (HELD.format(TRUE), ("h",), ("approval",)),
        (HELD.format(UNKNOWN), ("h",), ("approval",)),
        # With arguments that only the one permits, nobody is asked; that is what an agent can reach.
        (A.format(UNKNOWN) + HELD.format(UNKNOWN), ("a", "h"), ()),
        (A.format(TRUE) + HELD.format(UNKNOWN), ("a", "h"), ()),
        # What holds whatever the arguments are comes with every permit.
        (A.format(TRUE) + HELD.format(TRUE), ("a", "h"), ("approval",)),
        (A.format(UNKNOWN) + HELD.format(TRUE), ("a", "h"), ("approval",)),
        (A.format(FALSE) + HELD.format(UNKNOWN), ("h",), ("approval",)),
    ],
)
def test_cedar_names_what_may_grant_and_what_every_permit_brings(
    policy: str, rules: tuple[str, ...], obligations: tuple[str, ...]
) -> None:
    decision = cedar(policy)
    assert (decision.effect, decision.rules, decision.obligations) == (Effect.PERMIT, rules, obligations)


@pytest.mark.parametrize(
    "policy",
    [A.format(FALSE), A.format(TRUE) + '@id("f") forbid (principal, action, resource);', HELD.format(FALSE)],
)
def test_a_refusal_names_no_grant(policy: str) -> None:
    decision = cedar(policy)
    assert decision.effect is not Effect.PERMIT
    assert (decision.rules, decision.obligations) == ((), ())


@pytest.mark.parametrize(
    ("policy", "rules", "obligations"),
    [
        ("allow := true", ("allow",), ()),
        ('allow if count(permits) > 0\npermits contains "a" if input.resource.name == "sell"', ("a",), ()),
        # What depends on the arguments may hold or not: nobody can tell, and it is not named.
        ('allow if count(permits) > 0\npermits contains "a" if input.args.amount < 5', (), ()),
        ('allow := true\nobligations contains "approval" if "read" in input.resource.tags', ("allow",), ("approval",)),
        ('allow := true\nobligations contains "approval" if input.args.amount > 5', ("allow",), ()),
        ('allow := true\nobligations contains "approval" if "pay" in input.resource.tags', ("allow",), ()),
    ],
)
def test_rego_names_what_it_can_tell_and_nothing_else(
    policy: str, rules: tuple[str, ...], obligations: tuple[str, ...]
) -> None:
    decision = rego(policy)
    assert (decision.effect, decision.rules, decision.obligations) == (Effect.PERMIT, rules, obligations)


def test_a_rego_refusal_names_no_grant() -> None:
    decision = rego('allow := true\npermits contains "a" if true\ndenies contains "never" if true')
    assert (decision.effect, decision.rules, decision.obligations) == (Effect.DENY, (), ())
