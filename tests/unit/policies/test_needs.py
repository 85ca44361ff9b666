"""A policy says what a refused call would need: names from its text, and only where it refuses."""

from __future__ import annotations

import pytest

from ledger.errors import PolicySyntaxError
from policies.bundles import Bundle
from policies.engines.cedar import CedarEngine
from policies.engines.cedar_policies import MAX_NEEDS
from policies.engines.rego import RegoEngine
from policies.model import Decision, Effect
from tests.support.policies import cedar_bundle, make_request, rego_bundle

CEDAR = """
@id("transfers") @needs("mfa, office-network")
permit (principal == Agent::"Bot", action == Action::"tools/call", resource == Tool::"shop/transfer")
  when { context.identity.mfa && context.environment.network == "office" };
@id("others") @needs("another-agent") permit (principal == Agent::"Other", action, resource == Tool::"shop/transfer");
@id("reading") @needs("never-said") permit (principal, action == Action::"resources/read", resource);
@id("small") permit (principal, action, resource == Tool::"shop/refund");
@id("cap") @needs("approval-by-owner") forbid (principal, action, resource)
  when { context.args has amount && context.args.amount > 100 };
"""


def decide(engine: CedarEngine | RegoEngine, bundle: Bundle, **members: object) -> Decision:
    request = make_request(action="tools/call", server="shop", agent="Bot", **members)
    (decision,) = engine.evaluate(engine.load(bundle), [request])
    return decision


def test_permits_about_the_call_say_what_it_lacks() -> None:
    decision = decide(CedarEngine(), cedar_bundle(CEDAR), name="transfer", mfa=False)
    assert (decision.effect, decision.needs) == (Effect.NOT_APPLICABLE, ("mfa", "office-network"))


def test_a_forbid_that_holds_says_what_it_wants() -> None:
    decision = decide(CedarEngine(), cedar_bundle(CEDAR), name="refund", arguments='{"amount":101}')
    assert (decision.effect, decision.needs) == (Effect.DENY, ("approval-by-owner",))


def test_what_is_permitted_or_about_nothing_needs_nothing() -> None:
    assert decide(CedarEngine(), cedar_bundle(CEDAR), name="refund").needs == ()
    assert decide(CedarEngine(), cedar_bundle(CEDAR), name="unheard-of").needs == ()


@pytest.mark.parametrize(
    "needs", ["", "Mfa", "a,,b", "two words", "x" * 65, ",".join(f"n{n}" for n in range(MAX_NEEDS + 1))]
)
def test_needs_that_are_no_names_are_refused(needs: str) -> None:
    with pytest.raises(PolicySyntaxError, match="@needs"):
        CedarEngine().load(cedar_bundle(f'@id("a") @needs("{needs}") permit (principal, action, resource);'))


REGO = """
package test
allow if { input.principal.mfa; input.args.amount <= 100 }
needs contains "mfa" if not input.principal.mfa
needs contains "approval" if input.args.amount > 100
"""


def test_a_rego_set_says_what_a_refused_call_lacks() -> None:
    refused = decide(RegoEngine(), rego_bundle(REGO), mfa=False, arguments='{"amount":101}')
    assert refused.needs == ("approval", "mfa")
    assert decide(RegoEngine(), rego_bundle(REGO), mfa=True, arguments='{"amount":100}').needs == ()


def test_needs_decide_nothing_also_where_they_fail() -> None:
    text = REGO + '\nneeds contains "broken" if to_number(input.principal.agent) > 1\n'
    assert decide(RegoEngine(), rego_bundle(text), mfa=True, arguments='{"amount":100}').effect is Effect.PERMIT
    refused = decide(RegoEngine(), rego_bundle(text), mfa=False, arguments='{"amount":1}')
    assert (refused.effect, refused.needs) == (Effect.NOT_APPLICABLE, ())


def test_a_rego_need_that_is_computed_is_refused() -> None:
    with pytest.raises(PolicySyntaxError, match="needs takes names"):
        RegoEngine().load(rego_bundle("package test\nallow := true\nneeds contains input.resource.name\n"))
