"""Bundles made of what servers say of themselves: what is taken, what is guessed, and what is left out, said openly."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from ledger.canonical import parse_json
from ledger.errors import MalformedError, PolicySyntaxError
from policies.bundles import bundle_from_files
from policies.engines.cedar import CedarEngine
from policies.engines.cedar_format import format_cedar
from policies.engines.rego import RegoEngine
from policies.evaluate import Engine, Evaluator
from policies.generate.boundary import BoundaryFile
from policies.generate.bundle import Generated, generate
from policies.generate.compare import compare
from policies.generate.documents import MAX_DEPTH, MAX_DOCUMENT_BYTES, read_document
from policies.testing import run_cases
from tests.support.descriptions import as_bytes, mcp_tools, openapi, postman, swagger


def made(form: str, document: Any, **options: Any) -> Generated:
    data = document if isinstance(document, bytes) else as_bytes(document)
    return generate(form, data, server="shop", **options)


def tools(generated: Generated) -> dict[str, Any]:
    return generated.boundary.compiled.document.servers["shop"].tools


def arguments_of(schema: Any, **beside: Any) -> Any:
    """The schema that comes of a schema of one query parameter."""
    parameter = {"name": "x", "in": "query", "schema": schema, **beside}
    paths = {"/a": {"get": {"operationId": "a", "parameters": [parameter]}}}
    return made("openapi", {"openapi": "3.0.0", "paths": paths})


def taken(schema: Any) -> Any:
    return tools(arguments_of(schema))["a"].arguments["properties"]["x"]


def reasons(generated: Generated) -> set[tuple[str, str]]:
    return {(note.severity, note.reason) for note in generated.report.notes}


# --- whole bundles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [CedarEngine(), RegoEngine()], ids=lambda engine: engine.name)
@pytest.mark.parametrize(
    ("form", "document"),
    [("openapi", openapi()), ("openapi", swagger()), ("postman", postman()), ("mcp", mcp_tools())],
    ids=["openapi", "swagger", "postman", "mcp"],
)
def test_generated_bundle_loads_and_its_tests_pass_and_reach_every_rule(form: str, document: Any, engine: Engine):
    generated = made(form, document, engine=engine.name)
    evaluator = Evaluator({engine.name: engine})
    try:
        report = asyncio.run(run_cases(bundle_from_files(generated.files), evaluator))
    finally:
        evaluator.close()
    assert [result.case.name for result in report.failures] == []
    assert len(report.results) > 8
    assert report.uncovered == ()


ODD_NAMES = (
    *(
        "a/b",
        "a b",
        "é",
        "\u202ex",
        'q"uo\\te',
        "new\nline",
        "\x7f",
        "\x85",
        "\u2028",
        "😀",
        "x" * 900,
        "${x}",
        "{{y}}",
    ),
    *("'; --", "no", "1", "null", "~", "- a", "a: b", "#c", "*x", "&y", "__proto__"),
)


@pytest.mark.parametrize("engine", [CedarEngine(), RegoEngine()], ids=lambda engine: engine.name)
def test_names_of_any_characters_stay_names_in_rules_data_and_tests(engine: Engine):
    schema = {"type": "object", "properties": {"k": {"type": "integer", "maximum": 5}}}
    listed = [{"name": name, "inputSchema": {**schema, "properties": {name: {"type": "string"}}}} for name in ODD_NAMES]
    generated = made("mcp", {"tools": listed}, engine=engine.name)
    assert [operation.tool for operation in generated.report.operations] == list(ODD_NAMES)
    evaluator = Evaluator({engine.name: engine})
    try:
        report = asyncio.run(run_cases(bundle_from_files(generated.files), evaluator))
    finally:
        evaluator.close()
    assert [result.case.name for result in report.failures] == []


@pytest.mark.parametrize("engine", ["cedar", "rego"])
def test_generation_is_deterministic_and_owes_nothing_to_the_order_of_members(engine):
    first = made("mcp", mcp_tools(), engine=engine)
    assert first.files == made("mcp", mcp_tools(), engine=engine).files
    text = json.dumps(openapi(), indent=3, ensure_ascii=False).encode()
    one, other = made("openapi", openapi()).files, made("openapi", text).files
    differing = {path for path in one if one[path] != other[path]}
    assert differing == {"README.md", "boundaries.json"}  # these name the document's digest


def test_generated_rules_are_laid_out_as_fmt_would():
    text = made("openapi", openapi()).files["policy.cedar"].decode()
    assert format_cedar("policy.cedar", text) == text


def test_tests_are_made_of_the_descriptions_own_examples_and_of_what_lies_just_outside():
    text = made("openapi", openapi()).files["tests/shop-01.yaml"].decode()
    assert '{"amount":12.5,"currency":"EUR","order":null}' in text
    assert '{"customer":"someone@example.com","lines":[{"quantity":2,"sku":"A-1"}]}' in text
    for name in (
        "listOrders, with the examples of its description",
        "refund, an unknown argument",
        "refund, without amount",
        "refund, another type of amount",
        "refund, amount above its maximum",
        "refund, currency that is none of those listed",
    ):
        assert f"name: {name}\n" in text


# --- what is taken ---------------------------------------------------------------------------------------------------


def test_parameters_and_members_of_the_body_are_the_arguments_of_one_object():
    found = tools(made("openapi", openapi()))
    assert sorted(found) == ["createOrder", "delete_orders_id", "getOrder", "listOrders", "refund"]
    assert found["refund"].arguments == {
        "type": "object",
        "properties": {
            "amount": {"type": "number", "exclusiveMinimum": 0, "maximum": 500, "multipleOf": parse_json(b"0.01")},
            "currency": {"type": "string", "enum": ["EUR", "USD"]},
            "id": {"type": "integer"},
            "order": {"type": ["string", "null"], "format": "uuid"},
        },
        "required": ["amount", "currency", "order"],
        "additionalProperties": False,
    }
    listed = found["listOrders"].arguments
    assert sorted(listed["properties"]) == ["limit", "status"]  # who logs in is no argument
    assert listed["properties"]["limit"] == {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "integer", "nullable": True, "enum": [1]}, {"type": ["integer", "null"], "enum": [1, None]}),
        ({"minimum": 1, "exclusiveMinimum": True}, {"exclusiveMinimum": 1}),
        ({"minimum": 1, "exclusiveMinimum": False}, {"minimum": 1}),
        ({"exclusiveMaximum": 3}, {"exclusiveMaximum": 3}),
        ({"type": "integer", "format": "int64"}, {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}),
        ({"type": "string", "format": "byte", "x-note": 1, "xml": {}}, {"type": "string"}),
        ({"type": "array", "items": [{"type": "string"}], "additionalItems": False},
         {"type": "array", "prefixItems": [{"type": "string"}], "items": False}),
        ({"dependencies": {"a": ["b"], "c": {"required": ["d"]}}},
         {"dependentRequired": {"a": ["b"]}, "dependentSchemas": {"c": {"required": ["d"]}}}),
        ({"type": "object"}, {"type": "object"}),
        ({"properties": {"a": {}}}, {"properties": {"a": {}}, "additionalProperties": False}),
        ({"properties": {"a": {}}, "additionalProperties": {}}, {"properties": {"a": {}}, "additionalProperties": {}}),
        ({"allOf": [{"properties": {"a": {}}}, {"required": ["a"]}]},
         {"allOf": [{"properties": {"a": {}}}, {"required": ["a"]}], "unevaluatedProperties": False}),
        ({"anyOf": [{"properties": {"a": {}}}, {"type": "object"}]},
         {"anyOf": [{"properties": {"a": {}}}, {"type": "object"}]}),
    ],
)  # fmt: skip
def test_schema_of_another_dialect_is_said_in_the_words_of_2020_12(schema, expected):
    assert taken(schema) == expected


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strnig"}, "the unknown type 'strnig'"),
        ({"format": "colour"}, "the format 'colour'"),
        ({"pattern": "(?=a)b"}, "a pattern that cannot be matched in linear time"),
        ({"maxLength": "10"}, "a value of the wrong kind"),
        ({"enum": []}, "a value of the wrong kind"),
        ({"multipleOf": 0}, "a value of the wrong kind"),
        ({"required": True}, "a value of the wrong kind"),
        ({"anyOf": {}}, "a value of the wrong kind"),
        ({"maximumm": 3}, "a keyword that is not enforced"),
        ({"$ref": "http://example.com/a"}, "the reference 'http://example.com/a' leads outside this document"),
        ({"$ref": "#/components/none"}, "the reference '#/components/none' leads to nothing in this document"),
        ({"$ref": 3}, "the reference 3 leads outside this document"),
        (3, "no schema where one should be"),
    ],
)
def test_what_cannot_be_enforced_is_left_open_and_said(schema, reason):
    generated = arguments_of(schema)
    assert taken(schema) == {}
    assert ("unchecked", reason) in reasons(generated)
    assert reason in generated.report.text()


def test_parameter_and_member_of_one_name_are_two_arguments():
    body = {"content": {"application/json": {"schema": {"type": "object", "properties": {"id": {"type": "string"}}}}}}
    item = {"parameters": [{"name": "id", "in": "path", "schema": {"type": "integer"}}], "put": {"requestBody": body}}
    found = tools(made("openapi", {"openapi": "3.1.0", "paths": {"/a/{id}": item}}))["put_a_id"].arguments
    assert found["properties"] == {"id": {"type": "string"}, "id__path": {"type": "integer"}}
    assert found["required"] == ["id__path"]


@pytest.mark.parametrize("schema", [{"type": "array", "items": {"type": "string"}}, {"oneOf": [{"type": "object"}]}])
def test_body_that_is_no_plain_object_is_one_argument(schema):
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    found = tools(made("openapi", {"openapi": "3.0.0", "paths": {"/a": {"post": {"requestBody": body}}}}))["post_a"]
    assert found.arguments["properties"] == {"body": schema}
    assert found.arguments["required"] == ["body"]


def test_postman_collection_is_inferred_from_its_requests():
    generated = made("postman", postman())
    found = tools(generated)
    assert found["Get_order"].arguments["properties"] == {"expand": {"type": "string"}, "id": {"type": "string"}}
    assert found["Get_order"].arguments["required"] == ["id"]
    assert found["Refund"].arguments["properties"] == {
        "amount": {"type": "number"},
        "limit": {"type": "number"},
        "why": {},
    }
    assert sorted(found["Login"].arguments["properties"]) == ["user"]
    assert (found["Cancel"].access, found["Cancel"].tags) == ("write", ("irreversible", "write"))
    assert any(severity == "assumed" and "inferred" in reason for severity, reason in reasons(generated))


def test_postman_bodies_that_were_saved_with_responses_widen_what_is_inferred():
    document = postman()
    bodies = ('{"amount": "12.50", "extra": [1, null]}', "no JSON", '{"limit": null}')
    document["item"][1]["response"] = [{"originalRequest": {"body": {"raw": body}}} for body in bodies]
    found = tools(made("postman", document))["Refund"].arguments["properties"]
    assert found == {
        "amount": {},
        "limit": {"type": ["null", "number"]},
        "why": {},
        "extra": {"type": "array", "items": {"type": ["null", "number"]}},
    }


def test_three_thousand_operations_of_one_name_are_taken_in_order():
    paths = {f"/p{number}": {"get": {"operationId": "get it"}} for number in range(3000)}
    generated = made("openapi", {"openapi": "3.1.0", "paths": paths, "webhooks": {"x": {}}})
    found = tools(generated)
    assert (len(found), found["get_it_3000"].operation) == (3000, "GET /p2999")
    assert ("skipped", "calls that the server makes; nobody calls them through a gateway") in reasons(generated)
    assert generated.report.json()["notes_left_out"] == 3000 + 2 - 1000


def test_bundle_without_arguments_to_test_with_still_has_tests():
    generated = arguments_of({"type": "string", "pattern": "^[A-Z]{7}$"}, required=True)
    assert any("no arguments were found to test with" in reason for _, reason in reasons(generated))
    assert b"who is known may ask" in generated.files["tests/shop-01.yaml"]


def test_mcp_tools_keep_their_names_and_their_hints_cannot_make_them_look_safer():
    found = tools(made("mcp", mcp_tools()))
    assert (found["search_orders"].access, found["delete_tree"].access) == ("read", "write")
    assert found["delete_tree"].tags == ("irreversible", "write")
    assert found["send_mail"].tags == ("external", "irreversible", "pii", "write")
    assert found["anything"].arguments == {}


@pytest.mark.parametrize(
    ("method", "name", "access"),
    [
        ("get", "listOrders", "read"),
        ("get", "deleteOrder", "write"),
        ("post", "searchOrders", "read"),
        ("post", "getOrCreateOrder", "write"),
        ("post", "orders", "write"),
        ("delete", "find", "write"),
        ("head", "", "read"),
    ],
)
def test_access_is_guessed_by_method_and_name_and_the_more_careful_sign_holds(method, name, access):
    document = {"openapi": "3.0.0", "paths": {"/a": {method: {"operationId": name}}}}
    (tool,) = tools(made("openapi", document)).values()
    assert tool.access == access


def test_names_of_tools_are_legal_and_nobody_elses():
    operations = [{"operationId": name} for name in ("a b", "a/b", "a_b", "x" * 200, "")]
    paths = {f"/p{index}": {"get": operation} for index, operation in enumerate(operations)}
    generated = made("openapi", {"openapi": "3.0.0", "paths": paths})
    names = list(tools(generated))
    assert sorted(names)[:3] == ["a_b", "a_b_2", "a_b_3"]
    assert max(map(len, names)) == 64
    assert "get_p4" in names
    assert sum(severity == "assumed" for severity, _ in reasons(generated)) >= 3


# --- what is left out ------------------------------------------------------------------------------------------------


def test_operation_whose_schema_leads_back_to_itself_is_left_out_and_the_others_stay():
    document = openapi()
    document["components"]["schemas"]["Loop"] = {"allOf": [{"$ref": "#/components/schemas/Loop"}]}
    parameter = {"name": "x", "in": "query", "schema": {"$ref": "#/components/schemas/Loop"}}
    document["paths"]["/loop"] = {"get": {"operationId": "loop", "parameters": [parameter]}}
    generated = made("openapi", document)
    assert "loop" not in tools(generated)
    assert len(tools(generated)) == 5
    assert ("skipped", "definitions that lead back to themselves: Loop") in reasons(generated)


def test_description_with_more_than_a_file_holds_is_cut_with_notes():
    schema = {"type": "object", "properties": {f"p{number}": {"enum": ["x" * 100] * 5} for number in range(30)}}
    body = {"content": {"application/json": {"schema": schema}}}
    paths = {f"/p{number}": {"put": {"requestBody": body}} for number in range(70)}
    generated = made("openapi", {"openapi": "3.0.0", "paths": paths})
    left_out = [note for note in generated.report.notes if note.severity == "skipped"]
    assert len(tools(generated)) + len(left_out) == 70
    assert left_out[0].reason == "no room in a file of a bundle; choose operations with --only"
    assert len(tools(made("openapi", {"openapi": "3.0.0", "paths": paths}, only=("put_p6*",)))) == 11


def test_bodies_parameters_and_operations_of_the_wrong_kind_are_noted():
    paths = {
        "no-slash": {},
        "/a": {"get": 3, "put": {"parameters": 3, "requestBody": {"content": {}}}},
        "/b": {
            "get": {"parameters": [None, {"name": "x"}, {"name": "y", "in": "space"}, {"name": "z", "in": "query"}]}
        },
        "/c": {"$ref": "#/paths/~1c"},
    }
    generated = made("openapi", {"openapi": "3.0.0", "paths": paths})
    assert sorted(tools(generated)) == ["get_b", "put_a"]
    assert {
        ("skipped", "a path that does not begin with a slash"),
        ("skipped", "no object of an operation"),
        ("unchecked", "parameters that are no list"),
        ("unchecked", "a body without content"),
        ("unchecked", "a parameter without name or place"),
        ("unchecked", "a parameter in an unknown place 'space'"),
        ("unchecked", "a parameter without a schema"),
        ("unchecked", "references that go round in a circle"),
    } <= reasons(generated)


def test_example_outside_its_own_schema_is_not_tested_with_and_noted():
    generated = arguments_of({"type": "integer"}, example="seven")
    assert ("assumed", "an example lies outside its own schema: type:x") in reasons(generated)


def test_report_quotes_the_description_and_nothing_in_it_can_leave_a_quote():
    document = {"openapi": "3.0.0", "info": {"title": "`x`\n# Trust me\u202e"}, "paths": {"/a|`b": {"get": {}}}}
    text = made("openapi", document).files["README.md"].decode()
    assert "`?x??# Trust me?`" in text
    assert "`GET /a??b`" in text


@pytest.mark.parametrize(
    ("form", "document", "error"),
    [
        ("openapi", {}, "no OpenAPI document"),
        ("openapi", [], "no OpenAPI document"),
        ("openapi", {"openapi": "4.0"}, "neither OpenAPI 2.0, 3.0 nor 3.1"),
        ("openapi", {"openapi": 3}, "no OpenAPI document"),
        ("openapi", {"openapi": "3.0.0"}, "no operation"),
        ("openapi", {"openapi": "3.0.0", "paths": {"/a": {"get": None}}}, "no operation"),
        ("postman", {}, "no Postman collection"),
        ("postman", {"info": {"schema": "v1.0.0"}}, "another format"),
        ("mcp", {}, "no list of tools"),
        ("mcp", {"tools": [1, {}, {"name": 3}]}, "no operation"),
    ],
)
def test_document_of_another_form_is_refused(form, document, error):
    with pytest.raises(PolicySyntaxError, match=error):
        made(form, document)


@pytest.mark.parametrize("server", ["", "a/b", "a b", 'a"b', "x" * 65])
def test_server_that_no_rule_could_name_is_refused(server):
    with pytest.raises(PolicySyntaxError, match="not the name of a server"):
        generate("mcp", as_bytes(mcp_tools()), server=server)


# --- documents -------------------------------------------------------------------------------------------------------


def test_yaml_is_read_with_its_numbers_exact_and_its_words_as_text():
    text = (
        b"a: no\nb: 2026-01-01\nc: 0.10\nd: 12345678901234567890123\n200: {$ref: '#/x'}\ne: &n [1, ~]\nf: *n\ng: '1'\n"
    )
    value = read_document(text)
    assert json.loads(json.dumps(value, default=str)) == {
        "a": "no", "b": "2026-01-01", "c": "0.10", "d": 12345678901234567890123, "200": {"$ref": "#/x"},
        "e": [1, None], "f": [1, None], "g": "1",
    }  # fmt: skip


def test_yaml_merges_and_the_nearer_member_holds():
    assert read_document(b"x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\n") == {"x": {"a": 1, "b": 2}, "y": {"a": 1, "b": 3}}


BOMB = b"a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (number, number, b",".join([b"*a%d" % (number - 1)] * 10)) for number in range(1, 12)
)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"a: 1\na: 2\n", "a key twice"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": NaN}', "non-number"),
        (b"a: \xff", "not UTF-8 at byte 3"),
        (b"[" * 5000, "not JSON|nested"),
        (b"- " * 5000 + b"a", "nested more than"),
        (b"a: &x [*x]", "an alias of nothing"),
        (b"a: *x", "an alias of nothing|undefined"),
        (b"? [a]\n: 1\n", "a key that is no text"),
        (b"a: {<<: 3}", "<< takes over mappings only"),
        (b"a\n---\nb\n", "one YAML document"),
        (b"", "one YAML document"),
        (b"a: [", "not YAML"),
        (b"a: \x00", "not YAML"),
        (BOMB, "more than 2000000 values"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), "at most"),
        (json.dumps({"a": json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)}).encode(), "nested more than 100"),
    ],
)
def test_document_that_is_none_or_a_bomb_is_refused(data, error):
    with pytest.raises(MalformedError, match=error):
        read_document(data)


# --- comparison ------------------------------------------------------------------------------------------------------


def boundary(document: Any) -> BoundaryFile:
    return made("openapi", document).boundary


def test_newer_description_is_compared_by_tool_and_argument_through_its_definitions():
    newer = openapi()
    newer["paths"]["/orders/{id}"]["get"]["operationId"] = "fetchOrder"
    newer["components"]["schemas"]["Line"]["properties"]["quantity"] = {"type": "integer", "minimum": 2}
    newer["components"]["schemas"]["Money"]["required"] = ["amount"]
    newer["paths"]["/orders"]["get"]["parameters"].append({"name": "page", "in": "query", "schema": {}})
    older, after = boundary(openapi()).compiled.document, boundary(newer).compiled.document
    found = compare(older, after, "shop")
    assert (found.added, found.removed) == (("fetchOrder",), ("getOrder",))
    assert found.changed == {
        "createOrder": ("argument lines: changed",),
        "listOrders": ("argument page: added",),
        "refund": ("argument currency: no longer required",),
    }
    assert compare(older, older, "shop").same
    assert compare(older, after, "other").same
