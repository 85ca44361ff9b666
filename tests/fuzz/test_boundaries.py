"""Any schema is compiled or refused, any arguments are compared, and a code is always a name out of the schema."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ledger.body_fields import Names
from ledger.errors import PolicySyntaxError
from policies.boundaries import MAX_CODES, parse_boundaries
from policies.boundary_schemas import KEYWORDS

SECRET = "Alice Miller"
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["a", "b", SECRET, "object", "string", "#/$defs/A", "#/$defs/B", "^a+$", "(", "date", "é"]),
)
NAMES = st.sampled_from(["a", "b", "properties", "a b"])
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(sorted(KEYWORDS)), inner, max_size=4),
        st.dictionaries(NAMES, inner, max_size=3),
        st.builds(lambda schema: {"properties": {"a": schema}, "additionalProperties": False}, inner),
    ),
    max_leaves=12,
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.just(SECRET), inner, max_size=3),
    max_leaves=12,
)


def document(schema: Any, definitions: Any) -> bytes:
    tools = {"tool": {"access": "read", "arguments": schema}}
    value = {"format": "tallystick.boundaries/1", "servers": {"s": {"tools": tools}}, "definitions": definitions}
    return json.dumps(value).encode()


@given(SCHEMAS, st.dictionaries(st.sampled_from("AB"), SCHEMAS), st.lists(VALUES, max_size=4), st.text(max_size=20))
def test_any_arguments_are_compared_with_any_schema_that_loads(schema, definitions, values, text):
    with contextlib.suppress(PolicySyntaxError):
        boundaries = parse_boundaries(document(schema, definitions))
        for arguments in [*(json.dumps(value) for value in values), text]:
            drift = boundaries.facts("s", "tool", arguments).drift
            assert list(drift) == sorted(set(drift))
            assert len(drift) <= MAX_CODES
            assert msgspec.convert(drift, Names) == drift
            assert not any("Alice" in code for code in drift)
