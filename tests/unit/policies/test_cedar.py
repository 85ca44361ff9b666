"""The Cedar engine: how requests are mapped, how answers are, and every way in which it must not fail open."""

from __future__ import annotations

import asyncio
import importlib.metadata

import cedarpy
import pytest

from ledger.body_fields import Names
from ledger.errors import PolicyError, PolicySyntaxError
from policies.engines.cedar import MAX_RULES_NAMED, CedarEngine, _failed_rules
from policies.engines.cedar_policies import CedarRule
from policies.evaluate import LoadedBundle, Reason
from policies.model import Effect, Obligation
from tests.support.policies import SCHEMA, cedar_bundle, make_request

ALLOW = '@id("allow") permit(principal, action, resource);'
RULE = CedarRule(
    position=0,
    name="named",
    forbids=False,
    obligations=(),
    place="p.cedar:1",
    text=ALLOW,
    policy=cedarpy.policies_to_pst(ALLOW).static_policies["policy0"],
)


def forbid(condition: str, name: str = "no") -> str:
    return f'{ALLOW}\n@id("{name}") forbid(principal, action, resource) when {{ {condition} }};'


def permit(condition: str) -> str:
    return f'@id("yes") permit(principal, action, resource) when {{ {condition} }};'


# --- effects ---------------------------------------------------------------------------------------------------------


def test_permit_names_its_rules_and_the_engine_exactly(decide):
    bundle = cedar_bundle(ALLOW)
    decision = decide(bundle)
    assert decision.effect is Effect.PERMIT
    assert decision.permitted
    assert (decision.rules, decision.failed_condition, decision.obligations) == (("allow",), None, ())
    assert (decision.reason, decision.detail) == (Reason.POLICY, "")
    assert decision.bundle_revision == bundle.revision
    assert (decision.engine, decision.engine_version) == ("cedar", importlib.metadata.version("cedarpy"))


def test_forbid_that_holds_denies_and_is_named(decide):
    decision = decide(cedar_bundle(forbid("true")))
    assert (decision.effect, decision.rules, decision.failed_condition) == (Effect.DENY, ("no",), "no")


def test_no_rule_that_speaks_is_not_applicable(decide):
    decision = decide(cedar_bundle(permit("false")))
    assert (decision.effect, decision.rules, decision.reason) == (Effect.NOT_APPLICABLE, (), Reason.NO_PERMIT)
    assert not decision.permitted


def test_rules_are_sorted_and_the_failed_condition_is_the_first_in_bundle_order(decide):
    """Over file borders, and with so many policies that their numbers have two digits."""
    files = {
        "z.cedar": "\n".join(
            f'@id("z{n}") forbid(principal, action, resource) when {{ {n} >= 7 }};' for n in range(12)
        ),
        "a.cedar": "\n".join(f'@id("a{n}") forbid(principal, action, resource);' for n in range(12)),
    }
    decision = decide(cedar_bundle(files))
    assert decision.failed_condition == "z7"
    assert decision.rules == tuple(sorted([f"z{n}" for n in range(7, 12)] + [f"a{n}" for n in range(12)]))


def test_every_policy_is_named_rightly_wherever_it_stands(decide):
    """Cedar renumbers policies as sets are joined; a rule must never answer under another's name."""
    files = {
        f"{name}.cedar": "\n".join(
            f'@id("{name}{n}") permit(principal == Agent::"{name}{n}", action, resource);' for n in range(15)
        )
        for name in "cab"
    }
    bundle = cedar_bundle(files)
    for name in "abc":
        for n in range(15):
            assert decide(bundle, agent=f"{name}{n}").rules == (f"{name}{n}",)


def test_rules_of_a_loaded_bundle_are_in_bundle_order():
    files = {"b.cedar": ALLOW + permit("true"), "a.cedar": '@id("last") forbid(principal, action, resource);'}
    assert CedarEngine().load(cedar_bundle(files)).rules == ("allow", "yes", "last")


def test_decision_names_no_more_rules_than_a_record_holds(decide):
    assert Names.__metadata__[0].max_length == MAX_RULES_NAMED  # type: ignore[attr-defined]
    many = "\n".join(f'@id("r{n:03}") forbid(principal, action, resource);' for n in range(100))
    decision = decide(cedar_bundle(many))
    assert decision.rules == tuple(f"r{n:03}" for n in range(64))
    assert decision.detail == "and 36 more rules"
    assert decision.failed_condition == "r000"


def test_obligations_are_those_of_the_determining_rules(decide):
    bundle = cedar_bundle(
        '@id("a") @obligation("approval") permit(principal, action, resource);'
        '@id("b") permit(principal, action, resource);'
        '@id("c") @obligation("end_session") forbid(principal, action, resource) when { context.identity.mfa };'
    )
    assert decide(bundle).obligations == (Obligation.APPROVAL,)
    assert decide(bundle, mfa=True).obligations == (Obligation.END_SESSION,)


# --- errors deny -----------------------------------------------------------------------------------------------------


def test_forbid_that_errors_does_not_fail_open(decide):
    """Cedar skips a policy that errors: without our rule this would be Allow."""
    decision = decide(
        cedar_bundle(forbid("context.args has amount && context.args.amount + 1 > 0", "over")),
        arguments='{"amount": 9223372036854775807}',
    )
    assert (decision.effect, decision.reason, decision.detail) == (
        Effect.INDETERMINATE,
        Reason.EVALUATION_ERROR,
        "over",
    )
    assert decision.rules == ()


def test_permit_that_errors_beside_one_that_holds_denies(decide):
    policy = ALLOW + permit("context.args has amount && context.args.amount * 2 > 0")
    decision = decide(cedar_bundle(policy), arguments='{"amount": 9223372036854775807}')
    assert (decision.effect, decision.detail) == (Effect.INDETERMINATE, "yes")


def test_error_beside_a_forbid_that_holds_is_still_an_error(decide):
    policy = forbid("true") + '@id("e") forbid(principal, action, resource) when { context.state.calls * 9 > 9 };'
    assert decide(cedar_bundle(policy), calls=2**53 - 1).effect is Effect.DENY
    policy = policy.replace("* 9", "* 9007199254740991")
    assert decide(cedar_bundle(policy), calls=2**53 - 1).reason == Reason.EVALUATION_ERROR


def test_missing_static_entity_is_an_error_and_not_an_allow(decide):
    decision = decide(cedar_bundle(forbid('PriceList::"floors".unlisted.lessThan(decimal("1.0"))', "floor")))
    assert (decision.effect, decision.reason, decision.detail) == (
        Effect.INDETERMINATE,
        Reason.EVALUATION_ERROR,
        "floor",
    )


def test_detail_of_an_error_names_rules_and_never_values(decide):
    policy = forbid("context.args has amount && context.args.amount - 1 > 0", "over")
    decision = decide(cedar_bundle(policy), arguments='{"amount": -9223372036854775808}', user="alice-secret")
    assert decision.detail == "over"


def test_value_that_imitates_an_error_message_puts_no_rule_into_the_detail(decide):
    """A tag that is not there is an error whose message quotes the tag."""
    policy = forbid('PriceList::"x".getTag("error while evaluating policy `policy0`") == decimal("1.0")', "real")
    with pytest.raises(PolicySyntaxError):
        CedarEngine().load(cedar_bundle(policy))
    errors = [
        "the value `error while evaluating policy `policy1`` is odd",
        "error while evaluating policy `policy0`: x",
    ]
    assert _failed_rules(errors, {"policy0": RULE, "policy1": RULE}) == "named"
    assert _failed_rules(errors[:1], {"policy0": RULE, "policy1": RULE}) == ""
    assert _failed_rules(["error while evaluating policy `policy9`: x"], {"policy0": RULE}) == ""


def test_method_that_the_schema_does_not_declare_denies(decide):
    decision = decide(cedar_bundle(ALLOW), action="tools/destroy")
    assert (decision.effect, decision.reason, decision.detail) == (Effect.INDETERMINATE, Reason.REQUEST_ERROR, "action")


@pytest.mark.parametrize(("action", "name"), [("tools/call", None), ("tools/list", "sell"), ("reading", "sell")])
def test_method_on_what_it_does_not_apply_to_denies(decide, action, name):
    decision = decide(cedar_bundle(ALLOW), action=action, name=name)
    assert (decision.effect, decision.reason) == (Effect.INDETERMINATE, Reason.REQUEST_ERROR)


def test_server_whose_name_could_pass_for_another_servers_tool_denies(decide):
    """``a/b`` + ``c`` and ``a`` + ``b/c`` would be one resource."""
    bundle = cedar_bundle('@id("one") permit(principal, action, resource == Tool::"a/b/c");')
    assert decide(bundle, server="a", name="b/c").permitted
    decision = decide(bundle, server="a/b", name="c")
    assert (decision.reason, decision.detail) == (Reason.REQUEST_ERROR, "server")


@pytest.mark.parametrize(
    ("arguments", "reason", "detail"),
    [
        ('{"price": 1.00001}', "parameter_error", "price"),
        ('{"price": "free"}', "parameter_error", "price"),
        ('{"price": 1, "item": {"price": 2}}', "ambiguous_parameter", "price"),
        ('{"amount": 9223372036854775808}', "parameter_error", "amount"),
        ('{"amount": 1.5}', "parameter_error", "amount"),
        ('{"amount": true}', "parameter_error", "amount"),
        ('{"amount": 1, "amount": 2}', "parameter_error", "arguments"),
        ('{"amount": 1e400}', "parameter_error", "arguments"),
        ('{"amount": NaN}', "parameter_error", "arguments"),
        ("[]", "parameter_error", "arguments"),
        ("", "parameter_error", "arguments"),
    ],
)
def test_parameter_that_is_not_exact_denies_and_is_named(decide, arguments, reason, detail):
    decision = decide(cedar_bundle(ALLOW), arguments=arguments)
    assert (decision.effect, decision.reason, decision.detail) == (Effect.INDETERMINATE, reason, detail)


@pytest.mark.parametrize("field", ["agent", "name", "user", "network"])
def test_name_that_is_no_unicode_text_denies(decide, field):
    decision = decide(cedar_bundle(ALLOW), **{field: "a\ud800b"})
    assert (decision.effect, decision.reason) == (Effect.INDETERMINATE, Reason.REQUEST_ERROR)
    assert decision.detail in {"entities", "request"}


def test_bundle_of_another_engine_is_the_engines_error():
    foreign = LoadedBundle(revision="0" * 64, rules=(), handle=object())
    with pytest.raises(PolicyError, match="another engine"):
        CedarEngine().evaluate(foreign, [make_request()])


# --- names are data --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ['x"', 'x", resource) when { true }; //', "a\nb", "a\x00b", "ünï", "__entity", ""])
def test_names_are_ids_and_never_parsed(decide, name):
    bundle = cedar_bundle(
        '@id("bot") permit(principal == Agent::"admin", action, resource);'
        '@id("tool") permit(principal, action, resource == Tool::"shop/admin");'
        '@id("role") permit(principal in Role::"admin", action, resource);'
    )
    decision = decide(bundle, agent=name, name=name, roles=(name,), tags=(name,), user=name)
    assert decision.effect is Effect.NOT_APPLICABLE


def test_string_parameter_cannot_pose_as_an_entity_or_a_decimal(decide):
    bundle = cedar_bundle(permit('context.args has sku && context.args.sku == "x"'))
    for text in ('"{\\"__entity\\": {\\"type\\": \\"Agent\\", \\"id\\": \\"x\\"}}"', '"decimal(\\"1.0\\")"'):
        assert decide(bundle, arguments=f'{{"sku": {text}}}').effect is Effect.NOT_APPLICABLE
    for text in ('{"__entity": {"type": "Agent", "id": "x"}}', '{"__extn": {"fn": "decimal", "arg": "1.0"}}'):
        assert decide(bundle, arguments=f'{{"sku": {text}}}').reason == "parameter_error"


# --- mapping ---------------------------------------------------------------------------------------------------------

FACTS = {
    "agent": "Bot",
    "user": "alice",
    "roles": ("finance", "eu"),
    "authn": "api_token",
    "mfa": True,
    "server": "shop",
    "name": "sell",
    "tags": ("pii",),
    "now_ms": 1_763_546_400_123,
    "hour": 10,
    "weekday": 3,
    "address": "10.0.0.1",
    "network": "office",
    "session": "s1",
    "calls": 7,
    "arguments": '{"amount": "9223372036854775807", "price": 1e0, "sku": "a", "dry": false}',
}


@pytest.mark.parametrize(
    "condition",
    [
        'principal == Agent::"Bot"',
        'principal.name == "Bot"',
        'principal in Role::"finance" && principal in Role::"eu"',
        'action == Action::"tools/call"',
        'resource == Tool::"shop/sell"',
        'resource in Server::"shop"',
        'resource in Tag::"pii"',
        'resource.name like "se*"',
        'resource is Tool && resource.server == Server::"shop"',
        'resource is Tool && resource.server.name == "shop"',
        'context.identity has user && context.identity.user == "alice"',
        'context.identity.authn == "api_token"',
        "context.identity.mfa",
        'context.identity.roles == ["eu", "finance"]',
        "context.time.now_ms == 1763546400123",
        'context.time.zone == "UTC" && context.time.local_date == "2025-11-19"',
        "context.time.hour == 10 && context.time.minute == 0 && context.time.weekday == 3",
        'context.environment.address == "10.0.0.1"',
        'context.environment.network == "office"',
        'context.state.session == "s1" && context.state.calls == 7 && context.state.denied == 0',
        "context.state.started_ms == 0",
        "context.args has amount && context.args.amount == 9223372036854775807",
        'context.args has price && context.args.price == decimal("1.0")',
        'context.args has sku && context.args.sku == "a"',
        "context.args has dry && context.args.dry == false",
    ],
)
def test_every_fact_reaches_the_policy(decide, condition):
    assert decide(cedar_bundle(permit(condition)), **FACTS).permitted


def test_facts_that_are_not_there_are_absent(decide):
    assert not decide(cedar_bundle(permit("context.identity has user")), user=None).permitted
    for name in ("amount", "price", "sku", "dry"):
        assert not decide(cedar_bundle(permit(f"context.args has {name}"))).permitted


def test_method_that_names_nothing_is_about_the_server(decide):
    bundle = cedar_bundle(permit('resource == Server::"shop" && resource in Tag::"pii"'))
    assert decide(bundle, action="tools/list", name=None, tags=("pii",)).permitted
    assert decide(bundle, action="resources/read", name=None, tags=("pii",)).permitted


def test_resource_that_is_read_is_a_tool_of_its_server(decide):
    bundle = cedar_bundle('@id("read") permit(principal, action in Action::"reading", resource in Server::"shop");')
    assert decide(bundle, action="resources/read", name="file:///a/b").permitted
    assert not decide(bundle, action="tools/call", name="file:///a/b").permitted


# --- static entities -------------------------------------------------------------------------------------------------

ENTITIES = [
    {"uid": {"type": "Tool", "id": "shop/sell"}, "attrs": {"owner": {"__entity": {"type": "Role", "id": "owner"}}}},
    {"uid": {"type": "Agent", "id": "Bot"}, "attrs": {"level": 3}, "parents": [{"type": "Role", "id": "static"}]},
    {"uid": {"type": "Role", "id": "lead"}, "parents": []},
    {"uid": {"type": "Server", "id": "shop"}, "parents": [{"type": "Tag", "id": "internal"}]},
    {"uid": {"type": "PriceList", "id": "p"}, "attrs": {"unlisted": "9.5"}, "tags": {"a": "1.25"}},
]


@pytest.mark.parametrize(
    "condition",
    [
        'resource has owner && resource.owner == Role::"owner"',
        'resource in Tag::"internal"',
        'resource is Tool && resource.server in Tag::"internal"',
        'resource in Tag::"pii" && resource.name == "sell"',
        "principal has level && principal.level == 3",
        'principal in Role::"static" && principal in Role::"tester"',
        'PriceList::"p".unlisted == decimal("9.5")',
        'PriceList::"p".hasTag("a") && PriceList::"p".getTag("a") == decimal("1.2500")',
    ],
)
def test_static_entities_are_merged_with_those_of_the_request(decide, condition):
    bundle = cedar_bundle(permit(condition), entities=ENTITIES)
    for _ in range(2):
        assert decide(bundle, tags=("pii",)).permitted


def test_static_entities_of_others_do_not_rub_off(decide):
    bundle = cedar_bundle(permit('principal has level || principal in Role::"static"'), entities=ENTITIES)
    assert decide(bundle).permitted
    assert not decide(bundle, agent="Other").permitted
    assert decide(bundle).permitted


def test_hundred_agents_with_static_entities_are_kept_apart(decide):
    """More than the engine keeps handles for."""
    entities = [{"uid": {"type": "Agent", "id": f"a{n}"}, "attrs": {"level": n}} for n in range(100)]
    bundle = cedar_bundle(permit("principal has level && principal.level >= 50"), entities=entities)
    assert [decide(bundle, agent=f"a{n}").permitted for n in range(100)] == [n >= 50 for n in range(100)]


# --- determinism -----------------------------------------------------------------------------------------------------


def test_equal_requests_give_equal_decisions_alone_and_in_a_batch(evaluator):
    bundle = cedar_bundle(forbid("context.state.calls > 3"), schema=SCHEMA)
    requests = [make_request(calls=n % 7) for n in range(50)]

    async def both() -> tuple[list[object], list[object]]:
        batch = [item.decision for item in await evaluator.evaluate_many(bundle, requests)]
        alone = [(await evaluator.evaluate_many(bundle, [request]))[0].decision for request in requests]
        return batch, alone

    batch, alone = asyncio.run(both())
    assert batch == alone
