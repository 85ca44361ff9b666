"""Whatever a description holds, it becomes a bundle, or is refused with `PolicySyntaxError` or `MalformedError`."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import MalformedError, PolicySyntaxError
from policies.generate.bundle import generate
from policies.generate.documents import read_document
from policies.generate.encoding import json_bytes
from tests.support.descriptions import mcp_tools, openapi, postman, swagger

DOCUMENTS = {"openapi": openapi(), "swagger": swagger(), "postman": postman(), "mcp": mcp_tools()}
WORDS = [
    "$ref",
    "type",
    "properties",
    "items",
    "allOf",
    "oneOf",
    "anyOf",
    "not",
    "if",
    "required",
    "enum",
    "pattern",
    "format",
    "maximum",
    "exclusiveMaximum",
    "minItems",
    "additionalProperties",
    "nullable",
    "const",
    "example",
    "examples",
    "default",
    "dependencies",
    "patternProperties",
    "name",
    "in",
    "schema",
    "content",
    "operationId",
    "parameters",
    "requestBody",
    "request",
    "url",
    "body",
    "raw",
    "inputSchema",
    "annotations",
]
REFERENCES = ("#", "#/components/schemas/Line", "#/definitions/Order", "#/$defs/Node", "#/paths", "#/x/0", "http://a/b")
JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**25), 10**25),
        st.sampled_from([*REFERENCES, "object", "string", "(?=a)b", "^a$", "{{x}}", "é", ""]),
        st.builds(lambda name: {"$ref": name}, st.sampled_from(REFERENCES)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS), inner, max_size=3)),
    max_leaves=8,
)
STEPS = st.lists(
    st.tuples(st.lists(st.integers(0, 20), max_size=12), st.sampled_from(WORDS), JUNK), min_size=1, max_size=4
)


def changed(value: Any, path: list[int], word: str, junk: Any) -> Any:
    """Return a document with something else in one place, which a path of choices leads to."""
    if not path or not isinstance(value, dict | list) or not value:
        return {**value, word: junk} if isinstance(value, dict) and path else junk
    if isinstance(value, dict):
        name = sorted(value)[path[0] % len(value)]
        return {**value, name: changed(value[name], path[1:], word, junk)}
    index = path[0] % len(value)
    return [*value[:index], changed(value[index], path[1:], word, junk), *value[index + 1 :]]


@pytest.mark.parametrize("form", DOCUMENTS)
@settings(max_examples=60)
@given(STEPS)
def test_description_with_anything_anywhere_is_a_bundle_or_refused(form, steps):
    document: Any = DOCUMENTS[form]
    for path, word, junk in steps:
        document = changed(document, path, word, junk)
    with contextlib.suppress(PolicySyntaxError, MalformedError):
        made = generate("openapi" if form == "swagger" else form, json_bytes(document), server="shop")
        assert made.report.operations


@given(st.binary(max_size=60) | st.text("{}[]:-&*<>#'\"| \n01.e~ab", max_size=60).map(str.encode))
def test_bytes_are_read_or_refused(data):
    with contextlib.suppress(MalformedError):
        read_document(data)
