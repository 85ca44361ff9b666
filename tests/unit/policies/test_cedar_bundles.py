"""What the Cedar engine refuses at load, with file and place, so that it cannot go wrong at run time."""

from __future__ import annotations

import json
import re

import pytest

from ledger.errors import PolicySyntaxError
from policies.bundles import Bundle, bundle_from_files
from policies.engines.cedar import CedarEngine
from policies.engines.cedar_policies import MAX_RULES
from policies.engines.cedar_requests import MAX_ENTITIES
from tests.support.policies import SCHEMA, cedar_bundle, cedar_files

RULE = '@id("a") permit(principal, action, resource);'


def refused(bundle: Bundle, message: str) -> None:
    with pytest.raises(PolicySyntaxError, match=message):
        CedarEngine().load(bundle)


def loads(bundle: Bundle) -> None:
    assert CedarEngine().load(bundle).revision == bundle.revision


# --- policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("", "has no policy"),
        ("// nothing", "has no policy"),
        (";", r"policy\.cedar:1: "),
        (RULE + "\n\npermit(principal, action, resource);", r"policy\.cedar:3: a policy needs an @id"),
        ("@id permit(principal, action, resource);", r"policy\.cedar:1: a policy needs an @id"),
        ('@id("") permit(principal, action, resource);', r"policy\.cedar:1: a policy needs an @id"),
        ('@id("a b") permit(principal, action, resource);', r"policy\.cedar:1: 'a b' is not a rule name"),
        ('@id("a\\n") permit(principal, action, resource);', "is not a rule name"),
        (f'@id("{"a" * 129}") permit(principal, action, resource);', "is not a rule name"),
        (RULE + "\n" + RULE, r"policy\.cedar:2: the rule a is already at policy\.cedar:1"),
        (RULE + '\n@id("b")\npermit(principal, actoin, resource);', r"policy\.cedar:2: .*actoin"),
        (RULE + '\n@id("b") permit(principal, action, resource) when { nope(1) };', r"policy\.cedar:2: .*nope"),
        ('@id("a") @id("b") permit(principal, action, resource);', r"policy\.cedar:1: duplicate annotation"),
        ('@id("a") permit(principal == ?principal, action, resource);', "not one policy without slots"),
        ('@id("a") permit(principal, action, resource) when { 9223372036854775808 > 1 };', "too large"),
        ('@id("a") permit(principal, action, resource) when { 1.5 > 1 };', r"policy\.cedar:1: "),
        ('@id("a") permit(principal, action, resource)', "does not end"),
    ],
)
def test_policy_text_that_does_not_parse_is_refused_with_its_place(policy, message):
    refused(cedar_bundle(policy), message)


def test_rule_name_that_another_file_has_is_refused_with_both_places():
    refused(cedar_bundle({"x.cedar": RULE, "y.cedar": "\n" + RULE}), r"y\.cedar:2: the rule a is already at x\.cedar:1")


def test_file_cannot_begin_what_another_ends():
    refused(cedar_bundle({"x.cedar": '@id("a")', "y.cedar": "permit(principal, action, resource);"}), r"x\.cedar:1")
    refused(cedar_bundle({"x.cedar": '@id("a', "y.cedar": '") permit(principal, action, resource);'}), r"x\.cedar:1")


def test_file_without_policies_is_allowed_beside_one_with():
    loads(cedar_bundle({"x.cedar": "// nothing yet", "y.cedar": RULE}))


@pytest.mark.parametrize(
    ("annotation", "effect", "message"),
    [
        ('@obligation("explode")', "forbid", "unknown obligation 'explode'"),
        ('@obligation("")', "forbid", "unknown obligation"),
        ('@obligation("end_session,")', "forbid", "unknown obligation ''"),
        ("@obligation", "forbid", "unknown obligation"),
        ('@obligation("End_Session")', "forbid", "unknown obligation"),
        ('@obligation("end_session")', "permit", "a permit cannot have the obligation end_session"),
        ('@obligation("approval")', "forbid", "a forbid cannot have the obligation approval"),
        ('@obligations("approval")', "permit", "unknown annotation @obligations"),
        ('@advice("x")', "permit", "unknown annotation @advice"),
    ],
)
def test_obligation_that_nobody_would_fulfil_is_refused(annotation, effect, message):
    policy = f'\n@id("a") {annotation} {effect}(principal, action, resource);'
    refused(cedar_bundle(policy), rf"policy\.cedar:2: .*{re.escape(message)}")


def test_obligation_given_twice_counts_once(decide):
    policy = '@id("a") @obligation("approval, approval") permit(principal, action, resource);'
    assert decide(cedar_bundle(policy)).obligations == ("approval",)


@pytest.mark.parametrize(
    "condition",
    [
        "context.args.amount > 1000",
        'context.args has amount && context.args.amount > decimal("1.0")',
        "context.args has price && context.args.price > 1",
        "context.identity.mfaa",
        'principal in Group::"x"',
        'action == Action::"tools/kill"',
        'PriceList::"p".getTag("a") == decimal("1.0")',
        'decimal(context.environment.network) == decimal("1.0")',
        'decimal("1.00001") == decimal("1.0")',
        "principal.level > 1",
        "context.time.hour",
    ],
)
def test_condition_that_could_fail_at_run_time_does_not_fit_the_schema(condition):
    """A forbid that errors fails open in Cedar, so a condition that could do so never loads."""
    policy = f'{RULE}\n@id("b") forbid(principal, action, resource) when {{ {condition} }};'
    refused(cedar_bundle(policy), r"policy\.cedar:2: ")


@pytest.mark.parametrize(
    "condition",
    [
        "context.args has limit",
        "context has args.limit",
        'context["args"] has "limit"',
        "!(context.args has limit)",
        "if context.identity.mfa then {a: [context.args has limit]} == {a: [true]} else true",
        "context.identity has usr",
        "principal has lvel",
        "context.args has user",
    ],
)
@pytest.mark.parametrize("clause", ["when", "unless"])
def test_misspelt_name_that_would_silence_a_rule_is_refused(condition, clause):
    """Cedar takes a ``has`` on an undeclared attribute for false, and says nothing."""
    policy = f'{RULE}\n@id("b") forbid(principal, action, resource) {clause} {{ {condition} }};'
    refused(
        cedar_bundle(policy), r"policy\.cedar:2: (the schema declares no attribute|the bundle declares no parameter)"
    )


def test_parameter_of_the_schema_that_is_never_extracted_cannot_be_tested_for():
    policy = '@id("a") permit(principal, action, resource) when { context.args has amount };'
    refused(cedar_bundle(policy, parameters=[]), "the bundle declares no parameter named 'amount'")
    loads(cedar_bundle(policy))


@pytest.mark.parametrize(
    "condition", ["(" * 1000 + "true" + ")" * 1000, " && ".join(["true"] * 5000), " && ".join(["true"] * 150)]
)
def test_hostile_nesting_is_refused_and_does_not_end_the_process(condition):
    refused(cedar_bundle(f'@id("a") permit(principal, action, resource) when {{ {condition} }};'), r"policy\.cedar:1: ")


def test_number_of_policies_is_bounded():
    policy = "\n".join(f'@id("a{n}") permit(principal, action, resource);' for n in range(MAX_RULES + 1))
    refused(cedar_bundle(policy), f"at most {MAX_RULES} policies")


# --- schema ----------------------------------------------------------------------------------------------------------


def test_bundle_without_a_schema_is_refused():
    files = cedar_files(RULE)
    manifest = json.loads(files["manifest.json"])
    del manifest["schema"], files["schema.cedarschema"]
    refused(bundle_from_files(files | {"manifest.json": json.dumps(manifest).encode()}), "needs a schema")


def changed(old: str, new: str) -> str:
    assert old in SCHEMA
    return SCHEMA.replace(old, new)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("entity A {", "unexpected end"),
        ("entity A { x: Nope };", "Nope"),
        ("{}", "schema"),
        ("", r"policy\.cedar:1: "),
        (changed("calls: Long, ", ""), "does not fit requests.*`calls`"),
        (changed("mfa: Bool", "mfa: Long"), "does not fit requests"),
        (changed("user?: String", "user: String"), "does not fit requests.*`user`"),
        (changed("user?: String, ", ""), "does not fit requests.*`user`"),
        (changed("network: String", "network: String, country: String"), "does not fit requests.*`country`"),
        (changed("amount?: Long", "amount: Long"), "does not fit requests.*`amount`"),
        (changed("price?: decimal", "price?: Long"), "does not fit requests for tools/call on a Tool"),
        (changed(", sku?: String", ""), "does not fit requests for tools/call on a Tool.*`sku`"),
        (changed("resource: Server, context: Facts", "resource: Server"), "does not fit requests for tools/list"),
        (changed("entity Agent in [Role]", "entity Agent"), "not declared as requests have it"),
        (changed("entity Server in [Tag]", "entity Server"), "not declared as requests have it"),
        (changed("entity Tool in [Server, Tag]", "entity Tool in [Tag]"), "not declared as requests have it"),
        (changed("{ name: String, level?: Long }", "{ level?: Long }"), "not declared as requests have it"),
        (changed("level?: Long", "level: Long"), "not declared as requests have it"),
        (changed("server: Server, ", "server: String, "), "not declared as requests have it"),
        (SCHEMA.replace("principal: Agent", "principal: Role"), "has no action that an Agent could perform"),
        ("namespace N {" + SCHEMA + "}", "has no action|not declared"),
        ('entity Role enum ["a"];' + SCHEMA.replace("entity Role;", ""), "not declared as requests have it"),
    ],
)
def test_schema_that_does_not_fit_our_requests_is_refused(schema, message):
    refused(cedar_bundle('@id("a") permit(principal, action, resource);', schema=schema), message)


def test_schema_may_have_more_than_we_ask_for():
    more = SCHEMA + 'entity Robot; action "fly" appliesTo { principal: Robot, resource: Robot };'
    loads(cedar_bundle(RULE, schema=more))


def test_schema_of_doubling_types_is_refused():
    types = "".join(f"type T{n} = {{ a: T{n + 1}, b: T{n + 1} }};" for n in range(60))
    refused(cedar_bundle(RULE, schema=SCHEMA + types + "type T60 = Long;"), "once its types are written out")


# --- entities and parameters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ({}, "Expected `array`"),
        ([1], "Expected `object`"),
        ([{"uid": 'Role::"a"'}], "Expected `object`"),
        ([{"uid": {"type": "Role", "id": "a"}, "extra": 1}], "unknown field"),
        ([{"uid": {"type": "Role", "id": "a"}}] * 2, "is there twice"),
        ([{"uid": {"type": "Action", "id": "tools/call"}}], "actions are declared in the schema"),
        ([{"uid": {"type": "Nope", "id": "a"}}], 'the entity Nope::"a"'),
        ([{"uid": {"type": "PriceList", "id": "a"}}], 'the entity PriceList::"a"'),
        ([{"uid": {"type": "PriceList", "id": "a"}, "attrs": {"unlisted": "x"}}], 'the entity PriceList::"a"'),
        ([{"uid": {"type": "PriceList", "id": "a"}, "attrs": {"unlisted": "1.00001"}}], 'the entity PriceList::"a"'),
        ([{"uid": {"type": "PriceList", "id": "a"}, "attrs": {"unlisted": 1.5}}], "a decimal is written as text"),
        ([{"uid": {"type": "Agent", "id": "a"}, "attrs": {"level": 2**63}}], 'the entity Agent::"a"'),
        ([{"uid": {"type": "Agent", "id": "a"}, "attrs": {"name": "b"}}], "the attribute name of a Agent follows"),
        ([{"uid": {"type": "Tool", "id": "sell"}}], "a tool is named"),
        ([{"uid": {"type": "Role", "id": "a"}, "parents": [{"type": "Role", "id": "a"}]}], "entity Role"),
        ([{"uid": {"type": "Role", "id": "a"}, "parents": [{"type": "Agent", "id": "a"}]}], "entity Role"),
    ],
)
def test_static_entity_that_does_not_fit_is_refused_by_name(entities, message):
    refused(cedar_bundle(RULE, entities=entities), rf"entities\.json: .*{message}")


def test_entities_with_a_cycle_among_them_are_refused():
    schema = SCHEMA.replace("entity Role;", "entity Role in [Role];")
    loop = [
        {"uid": {"type": "Role", "id": "a"}, "parents": [{"type": "Role", "id": "b"}]},
        {"uid": {"type": "Role", "id": "b"}, "parents": [{"type": "Role", "id": "a"}]},
    ]
    refused(cedar_bundle(RULE, schema=schema, entities=loop), r"entities\.json: ")


def test_role_hierarchy_of_the_bundle_counts(decide):
    schema = SCHEMA.replace("entity Role;", "entity Role in [Role];")
    entities = [{"uid": {"type": "Role", "id": "lead"}, "parents": [{"type": "Role", "id": "clinical"}]}]
    policy = '@id("a") permit(principal in Role::"clinical", action, resource);'
    bundle = cedar_bundle(policy, schema=schema, entities=entities)
    assert decide(bundle, roles=("lead",)).permitted
    assert not decide(bundle, roles=("nurse",)).permitted


def test_static_entity_may_say_what_follows_from_its_id(decide):
    entities = [
        {"uid": {"type": "Tool", "id": "shop/sell"}, "attrs": {"name": "sell"}},
        {"uid": {"type": "Agent", "id": "Bot"}, "attrs": {"name": "Bot", "level": 1}},
    ]
    policy = '@id("a") permit(principal, action, resource) when { principal has level };'
    assert decide(cedar_bundle(policy, entities=entities)).permitted


def test_number_of_static_entities_is_bounded():
    entities = [{"uid": {"type": "Role", "id": f"r{n}"}} for n in range(MAX_ENTITIES + 1)]
    refused(cedar_bundle(RULE, entities=entities), f"at most {MAX_ENTITIES} entities")


def test_bundle_without_parameters_sees_no_arguments(decide):
    files = cedar_files(RULE)
    manifest = json.loads(files["manifest.json"])
    del manifest["parameters"], files["parameters.json"]
    bundle = bundle_from_files(files | {"manifest.json": json.dumps(manifest).encode()})
    assert decide(bundle, arguments='{"amount": "no number"}').permitted
    assert decide(bundle, arguments='{"amount": 1, "amount": 2}').reason == "parameter_error"


@pytest.mark.parametrize("parameters", [[{"name": "x"}], [{"name": "x", "type": "long", "paths": ["."]}]])
def test_parameters_that_are_not_declared_properly_are_refused(parameters):
    refused(cedar_bundle(RULE, parameters=parameters), r"parameters\.json: ")


def test_parameter_that_the_schema_does_not_know_is_refused():
    refused(cedar_bundle(RULE, parameters=[{"name": "x", "type": "long", "paths": ["x"]}]), "does not fit.*`x`")


def test_file_that_is_not_text_is_refused():
    files = cedar_files(RULE) | {"policy.cedar": b"\xff"}
    refused(bundle_from_files(files), r"policy\.cedar: not UTF-8")
