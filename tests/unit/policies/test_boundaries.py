"""Boundaries: what lies outside a tool's description is named exactly, and by nothing that the caller wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger.body_fields import Names
from ledger.errors import PolicySyntaxError
from policies import boundary_schemas
from policies.boundaries import MAX_CODES, Boundaries, BoundaryFacts, boundary_facts, parse_boundaries
from policies.boundary_schemas import MAX_VISITS, CheckedSchemas
from policies.model import Effect
from tests.support.policies import SCHEMA, cedar_bundle, make_request

REFUND = {
    "type": "object",
    "properties": {
        "amount": {"type": "number", "maximum": 500, "multipleOf": 0.01},
        "reason": {"enum": ["broken", "late"]},
        "order": {"$ref": "#/$defs/Order"},
        "odd name é": {"type": "string"},
    },
    "required": ["amount"],
    "additionalProperties": False,
}
ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "lines": {"type": "array", "maxItems": 2, "items": {"type": "object", "required": ["sku"]}},
        "code": {"type": "string", "pattern": "^(a+)+$"},
        "who": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
    },
    "propertyNames": {"maxLength": 8},
    "unevaluatedProperties": False,
}


def document(schema: Any, **definitions: Any) -> bytes:
    tool = {"access": "write", "arguments": schema, "tags": ["finance"], "operation": "POST /refunds"}
    value = {
        "format": "tallystick.boundaries/1",
        "servers": {"shop": {"tools": {"refund": tool}}},
        "definitions": definitions,
    }
    return json.dumps(value).encode()


def boundaries(schema: Any = REFUND, **definitions: Any) -> Boundaries:
    return parse_boundaries(document(schema, **({"Order": ORDER} if schema is REFUND else definitions)))


REFUNDS = boundaries()


def drift(arguments: str) -> tuple[str, ...]:
    return REFUNDS.facts("shop", "refund", arguments).drift


def refused(schema: Any, message: str, **definitions: Any) -> None:
    with pytest.raises(PolicySyntaxError, match=message):
        boundaries(schema, **definitions)


# --- what is drift ---------------------------------------------------------------------------------------------------


def test_call_within_the_description_is_known_and_has_no_drift():
    facts = REFUNDS.facts("shop", "refund", '{"amount": 499.99, "reason": "late", "order": {"lines": [{"sku": 1}]}}')
    assert facts == BoundaryFacts(known=True)


@pytest.mark.parametrize(
    ("arguments", "codes"),
    [
        ("{}", ("missing_argument:amount",)),
        ('{"amount": 500.01}', ("range:amount",)),
        ('{"amount": 1.005}', ("range:amount",)),
        ('{"amount": "1"}', ("type:amount",)),
        ('{"amount": true}', ("type:amount",)),
        ('{"amount": null}', ("type:amount",)),
        ('{"amount": 1, "Alice Miller": 1}', ("unknown_argument",)),
        ('{"amount": 1, "reason": "other"}', ("enum:reason",)),
        ('{"amount": 1, "odd name é": 1}', ("type",)),
        ('{"amount": 1, "order": []}', ("type:order",)),
        ('{"amount": 1, "order": {"id": "1"}}', ("format:order.id",)),
        ('{"amount": 1, "order": {"lines": [{}]}}', ("missing_argument:order.lines.sku",)),
        ('{"amount": 1, "order": {"lines": [{"sku": 1}, {"sku": 1}, {"sku": 1}]}}', ("length:order.lines",)),
        ('{"amount": 1, "order": {"who": []}}', ("variant:order.who",)),
        ('{"amount": 1, "order": {"Alice": 1}}', ("unknown_argument:order",)),
        ('{"amount": 1, "order": {"Alice Miller": 1}}', ("unknown_argument:order",)),
        ('{"amount": 501, "x": 1, "reason": 1}', ("enum:reason", "range:amount", "unknown_argument")),
        ("[]", ("malformed_arguments",)),
        ('"text"', ("malformed_arguments",)),
        ('{"amount": NaN}', ("malformed_arguments",)),
        ('{"amount": 1e400}', ("malformed_arguments",)),
        ('{"amount": 1, "amount": 2}', ("malformed_arguments",)),
        ('{"amount": 1, "reason": "\\ud800"}', ("malformed_arguments",)),
        ("", ("malformed_arguments",)),
        ("\ud800", ("malformed_arguments",)),
    ],
)  # fmt: skip
def test_what_lies_outside_is_named_by_kind_and_place(arguments, codes):
    assert drift(arguments) == codes


def test_server_that_is_not_described_has_no_drift_and_is_not_known():
    assert REFUNDS.facts("other", "refund", '{"x": 1}') == BoundaryFacts()


def test_tool_that_the_description_of_its_server_lacks_is_drift():
    assert REFUNDS.facts("shop", "refund2", "{}") == BoundaryFacts(known=False, drift=("unknown_tool",))


@pytest.mark.parametrize(
    "members", [{"action": "tools/list", "name": None}, {"action": "prompts/get", "name": "refund"}, {"name": None}]
)
def test_only_calls_of_tools_are_compared(members):
    assert boundary_facts(REFUNDS, make_request(**members)) == BoundaryFacts()


def test_bundle_without_boundaries_knows_nothing():
    assert boundary_facts(None, make_request(name="refund")) == BoundaryFacts()


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "number", "inside"),
    [
        ({"maximum": 9007199254740992}, "9007199254740993", False),
        ({"maximum": 9007199254740992}, "9007199254740992", True),
        ({"const": 9007199254740993}, "9007199254740992", False),
        ({"maximum": 0.1}, "0.1", True),
        ({"maximum": 0.3}, "0.30000000000000004", False),
        ({"multipleOf": 0.1}, "0.3", True),
        ({"multipleOf": 0.01}, "4.35", True),
        ({"multipleOf": 0.01}, "4.355", False),
        ({"type": "integer"}, "1.0", True),
        ({"type": "integer"}, "1e3", True),
        ({"type": "integer"}, "1.5", False),
        ({"enum": [1]}, "1.0", True),
        ({"enum": [1]}, "true", False),
    ],
)
def test_numbers_are_compared_exactly(schema, number, inside):
    found = boundaries({"properties": {"x": schema}}).facts("shop", "refund", f'{{"x": {number}}}')
    assert (found.drift == ()) is inside


@pytest.mark.parametrize(
    "number", ["0.1", "1e300", "-9223372036854775808", "18446744073709551615", "1e22", "123456.789"]
)
def test_number_that_every_reader_takes_for_the_same_is_exact(number):
    assert boundaries({}).facts("shop", "refund", f'{{"x": [{number}]}}').drift == ()


@pytest.mark.parametrize(
    "number",
    ["0.10000000000000000001", "18446744073709551617", "9007199254740993.0", "1e-400", "5e-325", "1e-99999999"],
)
def test_number_that_two_readers_could_take_for_two_is_drift(number):
    assert boundaries({}).facts("shop", "refund", f'{{"x": [{number}]}}').drift == ("inexact_number",)


# --- names, not values -----------------------------------------------------------------------------------------------


def test_codes_are_names_that_a_record_takes():
    import msgspec

    wild = {"properties": {"a" * 64: {"properties": {"b" * 64: {"type": "string"}}}, "é": False, "c": False}}
    codes = boundaries(wild).facts("shop", "refund", json.dumps({"a" * 64: {"b" * 64: 1}, "é": 1, "c": 1})).drift
    assert codes == ("type:" + ("a" * 64 + "." + "b" * 64)[:100], "unknown_argument", "unknown_argument:c")
    assert msgspec.convert(codes, Names) == codes


def test_members_that_only_a_pattern_or_nothing_declares_are_never_named():
    schema = {
        "patternProperties": {"^x-": {"type": "string"}},
        "additionalProperties": {"properties": {"inner": {"type": "string"}}},
    }
    codes = boundaries(schema).facts("shop", "refund", '{"x-alice": 1, "Alice": {"inner": 1}}').drift
    assert codes == ("type", "type:inner")


def test_property_that_is_named_like_a_keyword_is_a_name():
    schema = {"properties": {"properties": {"properties": {"allOf": {"type": "string"}}}}}
    assert boundaries(schema).facts("shop", "refund", '{"properties": {"allOf": 1}}').drift == (
        "type:properties.allOf",
    )


def test_codes_are_sorted_and_no_more_than_the_limit():
    schema = {"properties": {f"p{number:02}": {"type": "string"} for number in range(40)}}
    arguments = json.dumps({f"p{number:02}": 1 for number in reversed(range(40))})
    codes = boundaries(schema).facts("shop", "refund", arguments).drift
    assert len(codes) == MAX_CODES
    assert codes == ("more", *(f"type:p{number:02}" for number in range(MAX_CODES - 1)))


# --- schemas that are refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"maxmum": 3}, "unknown keyword 'maxmum'"),
        ({"$id": "http://a"}, "unknown keyword"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "unknown keyword"),
        ({"$dynamicRef": "#"}, "unknown keyword"),
        ({"$defs": {}}, "unknown keyword"),
        ({"nullable": True}, "unknown keyword"),
        ({"$ref": "http://example.com/schema"}, "a reference leads to"),
        ({"$ref": "file:///etc/passwd"}, "a reference leads to"),
        ({"$ref": "#"}, "a reference leads to"),
        ({"$ref": 3}, "a reference leads to"),
        ({"$ref": "#/$defs/none"}, "no definition 'none'"),
        ({"format": "int32"}, "which nothing checks"),
        ({"format": ["date"]}, "which nothing checks"),
        ({"type": "strnig"}, "shop/refund/type"),
        ({"maximum": "3"}, "not of type"),
        ({"multipleOf": 0}, "minimum"),
        ({"required": "a"}, "not of type"),
        ({"pattern": "("}, "regex"),
        ({"pattern": "(?=a)b"}, "regex"),
        ({"pattern": "(a{1000}){1000}"}, "regex"),
        ({"pattern": "a" * 1001}, "a pattern is text of at most 1000"),
        ({"pattern": 3}, "a pattern is text"),
        ({"patternProperties": {"(": True}}, "regex"),
        ({"properties": []}, "not an object of schemas"),
        ({"anyOf": {}}, "not a list of schemas"),
        ({"items": [True]}, "a schema is an object, true or false"),
        ({"not": 3}, "a schema is an object, true or false"),
        (3, "a schema is an object"),
    ],
)  # fmt: skip
def test_schema_with_what_nobody_checks_is_refused(schema, message):
    refused(schema, message)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"format": "tallystick.boundaries/2", "servers": {}}',
        b'{"format": "tallystick.boundaries/1", "servers": {"a b": {"tools": {}}}}',
        b'{"format": "tallystick.boundaries/1", "servers": {"a/b": {"tools": {}}}}',
        b'{"format": "tallystick.boundaries/1", "servers": {"a": {"tools": {"t": {"access": "-", "arguments": {}}}}}}',
        b'{"format": "tallystick.boundaries/1", "servers": {"a": {"tools": {"t": {"access": "read"}}}}}',
        b'{"format": "tallystick.boundaries/1", "servers": {}, "more": 1}',
        b'{"format": "tallystick.boundaries/1", "servers": {}, "servers": {}}',
        b"\xff",
    ],
)
def test_file_that_is_none_is_refused(data):
    with pytest.raises(PolicySyntaxError):
        parse_boundaries(data)


# --- work ------------------------------------------------------------------------------------------------------------


def test_definitions_that_lead_back_to_themselves_are_refused():
    circle = {"A": {"allOf": [{"$ref": "#/$defs/B"}]}, "B": {"not": {"$ref": "#/$defs/A"}}}
    refused({"$ref": "#/$defs/A"}, "lead back to themselves: A, B", **circle)


def test_definitions_that_double_at_every_step_are_refused():
    steps = {f"T{step}": {"allOf": [{"$ref": f"#/$defs/T{step + 1}"}] * 2} for step in range(60)}
    refused({"$ref": "#/$defs/T0"}, f"more than {MAX_VISITS} schemas", **steps, T60={"type": "integer"})


def test_long_chain_of_definitions_is_no_recursion():
    steps = {f"T{step:04}": {"$ref": f"#/$defs/T{step + 1:04}"} for step in range(300)}
    found = boundaries({"properties": {"x": {"$ref": "#/$defs/T0000"}}}, **steps, T0300={"type": "integer"})
    assert found.facts("shop", "refund", '{"x": "1"}').drift == ("type:x",)


def nested(depth: int) -> str:
    return '{"left": ' * depth + "1" + "}" * depth


def test_tree_is_checked_as_deep_as_the_reader_goes():
    node = {"properties": {"left": {"$ref": "#/$defs/Node"}, "right": {"$ref": "#/$defs/Node"}}}
    found = boundaries({"$ref": "#/$defs/Node"}, Node={**node, "type": ["object", "integer"]})
    assert found.facts("shop", "refund", nested(60)).drift == ()
    assert found.facts("shop", "refund", nested(60).replace("1", '"1"')).drift == ("type:" + ".".join(["left"] * 20),)


def test_tree_that_doubles_at_every_level_is_checked_as_far_as_that_is_cheap():
    node = {"properties": {"left": {"anyOf": [{"$ref": "#/$defs/Node"}, {"$ref": "#/$defs/Node"}]}}}
    found = boundaries({"$ref": "#/$defs/Node"}, Node={**node, "type": ["object", "integer"]})
    assert found.facts("shop", "refund", nested(5)).drift == ()
    assert found.facts("shop", "refund", nested(60)).drift == ("too_deep",)


def test_alternatives_by_different_names_are_not_taken_for_a_doubling_tree():
    tree = {
        "oneOf": [
            {"required": [name], "properties": {name: {"$ref": "#/$defs/Tree"}}, "additionalProperties": False}
            for name in ("not", "left", "right")
        ]
        + [{"type": "integer"}]
    }
    checked = CheckedSchemas({"Tree": tree}, {"root": {"$ref": "#/$defs/Tree"}})
    assert checked.max_depth("root") == 64


def test_number_of_schemas_and_patterns_is_bounded(monkeypatch):
    monkeypatch.setattr(boundary_schemas, "MAX_SUBSCHEMAS", 10)
    refused({"anyOf": [True] * 11}, "more than 10 schemas")
    monkeypatch.setattr(boundary_schemas, "MAX_PATTERNS", 2)
    refused({"patternProperties": {"a": True, "b": True, "c": True}}, "more than 2 patterns")


# --- in a decision ---------------------------------------------------------------------------------------------------

BOUNDED = SCHEMA.replace("  args: {", "  boundary: { known: Bool, drift: Set<String> },\n  args: {")
POLICY = """
@id("reads") permit(principal, action == Action::"tools/list", resource);
@id("calls") permit(principal, action == Action::"tools/call", resource) when { context.boundary.known };
@id("boundary") forbid(principal, action, resource) unless { context.boundary.drift.isEmpty() };
"""


def bounded(policy: str = POLICY, schema: str = BOUNDED, data: bytes | None = None):
    files = {"policy.cedar": policy, "boundaries.json": (data or document(REFUND, Order=ORDER)).decode()}
    return cedar_bundle(files, schema=schema, policies=["policy.cedar"], boundaries="boundaries.json")


def test_drift_is_a_fact_that_policy_reads_and_the_decision_carries(decide):
    inside = decide(bounded(), name="refund", arguments='{"amount": 5}')
    assert (inside.effect, inside.rules, inside.drift) == (Effect.PERMIT, ("calls",), ())
    outside = decide(bounded(), name="refund", arguments='{"amount": 5, "x": 1}')
    assert (outside.effect, outside.rules, outside.drift) == (Effect.DENY, ("boundary",), ("unknown_argument",))
    unknown = decide(bounded(), name="other")
    assert (unknown.effect, unknown.drift) == (Effect.DENY, ("unknown_tool",))
    elsewhere = decide(bounded(), server="else", name="refund", arguments='{"x": 1}')
    assert (elsewhere.effect, elsewhere.drift) == (Effect.NOT_APPLICABLE, ())


def test_drift_is_recorded_where_policy_permits_it_or_could_not_answer(decide):
    lenient = bounded('@id("all") permit(principal, action, resource);')
    assert decide(lenient, name="refund").drift == ("missing_argument:amount",)
    assert decide(lenient, name="refund", arguments="[]").drift == ("malformed_arguments",)
    assert decide(lenient, name="refund", arguments="[]").reason == "parameter_error"
    assert decide(lenient, action="nope", name="refund", arguments="[]").drift == ()


def test_bundle_whose_schema_does_not_take_the_fact_is_refused_at_load(evaluator):
    import asyncio

    with pytest.raises(PolicySyntaxError, match="boundary"):
        asyncio.run(evaluator.check(bounded('@id("a") permit(principal, action, resource);', SCHEMA)))
    with pytest.raises(PolicySyntaxError, match=r"^boundaries\.json: not boundaries"):
        asyncio.run(evaluator.check(bounded(data=b"[]")))


def test_bundle_without_boundaries_says_nothing_of_them(decide):
    assert decide(cedar_bundle('@id("a") permit(principal, action, resource);'), arguments='{"x": 1}').drift == ()
