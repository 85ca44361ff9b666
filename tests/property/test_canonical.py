"""Canonical JSON: two writers agree on everything, and the strict reader sees what every reader sees."""

from __future__ import annotations

import json
from decimal import Decimal

import orjson
import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.canonical import MAX_SAFE_INTEGER, _is_plain, canonical_bytes, parse_canonical, parse_json
from ledger.errors import MalformedError
from tests.conformance.requirements import requirement
from tests.property.strategies import json_values, safe_integers, texts

_ascii = st.text(st.characters(max_codepoint=0x7F))
_plain = st.recursive(
    st.none() | st.booleans() | safe_integers | texts,
    lambda inner: st.lists(inner) | st.dictionaries(_ascii, inner),
    max_leaves=12,
)
_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers() | st.none() | st.binary(), inner)
    ),
    max_leaves=10,
)


def as_read(value: object) -> object:
    """Return what a reader must see in the canonical bytes of a value: numbers as doubles, everything else as it is."""
    if isinstance(value, dict):
        return {name: as_read(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_read(item) for item in value]
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return float(value)
    return value


@requirement("jcs-01", "jcs-03", "jcs-04", "jcs-07")
@given(json_values)
def test_every_json_value_has_the_bytes_of_rfc_8785(value) -> None:
    assert canonical_bytes(value) == rfc8785.dumps(value)


@settings(max_examples=200)
@given(_plain)
@example({"\x7f": 1, "a": {"B": [], "": {}}, "\x00": '\u2028\x7f\\/"'})
@example([MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER, True, None])
def test_the_fast_path_takes_plain_values_and_gives_the_same_bytes(value) -> None:
    assert _is_plain(value)
    assert orjson.dumps(value, option=orjson.OPT_SORT_KEYS) == rfc8785.dumps(value) == canonical_bytes(value)


@settings(max_examples=200)
@given(_anything)
def test_any_value_is_written_as_rfc_8785_has_it_or_refused(value) -> None:
    try:
        written = canonical_bytes(value)
    except MalformedError:
        with pytest.raises(Exception):  # noqa: B017, PT011  # whatever rfc8785 raises: it has no bytes either
            rfc8785.dumps(value)
    else:
        assert written == rfc8785.dumps(value)
        assert parse_canonical(written) == parse_json(written)


@given(json_values)
def test_what_was_written_is_read_back(value) -> None:
    written = canonical_bytes(value)
    assert as_read(parse_json(written)) == as_read(value)
    assert as_read(parse_canonical(written)) == as_read(value)
    assert as_read(json.loads(written)) == as_read(value)


@requirement("jcs-01", "jcs-02")
@given(json_values, st.sampled_from([None, 0, 1, "\t"]), st.booleans())
def test_another_layout_of_the_same_value_is_read_the_same_and_not_as_canonical(value, indent, ascii_only) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only, separators=(" , ", " : ")).encode()
    assert as_read(parse_json(text)) == as_read(value)
    if text != canonical_bytes(value):
        with pytest.raises(MalformedError):
            parse_canonical(text)


@requirement("ijson-04")
@given(st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True))
def test_a_number_is_read_exactly_or_refused_beyond_a_double(text) -> None:
    try:
        number = parse_json(text.encode())
    except MalformedError:
        assert abs(Decimal(text)) > Decimal("1.7976931348623157e308")
    else:
        assert number == Decimal(text)
        assert isinstance(number, int) == text.lstrip("-").isdigit()


@requirement("ijson-02")
@given(st.dictionaries(texts, safe_integers, min_size=1, max_size=5), st.data())
def test_an_object_with_a_name_twice_is_refused_wherever_it_stands(members, data) -> None:
    pairs = [f"{json.dumps(name)}:{value}" for name, value in members.items()]
    again = data.draw(st.sampled_from(sorted(members)))
    pairs.insert(data.draw(st.integers(0, len(pairs))), f"{json.dumps(again, ensure_ascii=False)}:0")
    with pytest.raises(MalformedError, match="twice"):
        parse_json(("[{" + ",".join(pairs) + "}]").encode())
