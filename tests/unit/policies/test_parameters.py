"""Parameters: exact or an error that names the parameter and never the value."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from ledger.errors import PolicySyntaxError
from policies.parameters import MAX_PARAMETERS, FixedDecimal, ParameterError, parse_parameters


def declare(*declarations: dict[str, object]):
    return parse_parameters(json.dumps({"parameters": declarations}).encode())


def one(arguments: str, **declaration: object):
    """Return the value of one parameter named ``x`` at path ``x``, or None if it is not there."""
    parameters = declare({"name": "x", "paths": ["x"], **declaration})
    return parameters.extract("tools/call", "shop", "sell", arguments).get("x")


def refused(arguments: str, **declaration: object) -> ParameterError:
    with pytest.raises(ParameterError) as caught:
        one(arguments, **declaration)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1.0",
        "1e0",
        "1.00",
        "1E+0",
        "10e-1",
        "0.1e1",
        "100e-2",
        "1.00000000000000000000000000000000",
        '"1"',
        '"1.00"',
        '"1e0"',
        '"10e-1"',
    ],
)
def test_one_is_one_in_every_encoding(text):
    assert one(f'{{"x": {text}}}', type="decimal") == FixedDecimal(10_000)
    value = one(f'{{"x": {text}}}', type="long")
    assert value == 1
    assert type(value) is int


@pytest.mark.parametrize("text", ["0", "-0", "0.0", "-0.0", "0e9", "-0e-9", "0e99999999", "0e-99999999", '"-0"'])
def test_zero_is_zero_in_every_encoding(text):
    assert one(f'{{"x": {text}}}', type="decimal") == FixedDecimal(0)
    assert one(f'{{"x": {text}}}', type="long") == 0


@pytest.mark.parametrize(
    ("text", "scaled"),
    [
        ("0.0001", 1),
        ("-0.0001", -1),
        ("1e-4", 1),
        ("999.9999", 9_999_999),
        ("922337203685477.5807", 2**63 - 1),
        ("-922337203685477.5808", -(2**63)),
        ("9223372036854775807e-4", 2**63 - 1),
    ],
)
def test_decimal_is_exact_up_to_its_bounds(text, scaled):
    assert one(f'{{"x": {text}}}', type="decimal") == FixedDecimal(scaled)


@pytest.mark.parametrize(
    ("text", "value"), [(str(2**63 - 1), 2**63 - 1), (str(-(2**63)), -(2**63)), ("9.223372036854775807e18", 2**63 - 1)]
)
def test_long_is_exact_up_to_its_bounds(text, value):
    assert one(f'{{"x": {text}}}', type="long") == value


@pytest.mark.parametrize(
    "text",
    [
        "922337203685477.5808",
        "-922337203685477.5809",
        "1e15",
        "1e308",
        "1.00001",
        "0.00001",
        "1e-5",
        "1e-99999999",
        "123456789012345678901234567890",
        '"1e99999999999999999999"',
        '"1e400"',
    ],
)
def test_decimal_that_has_no_exact_form_is_an_error_and_never_rounded(text):
    error = refused(f'{{"x": {text}}}', type="decimal")
    assert (error.reason, error.parameter) == ("parameter_error", "x")


@pytest.mark.parametrize(
    "text", [str(2**63), str(-(2**63) - 1), "0.5", "1.5", "1e-1", "1e19", "1e308", "-1e300", str(2**64 + 5)]
)
def test_long_that_is_not_whole_or_out_of_range_is_an_error_and_never_wraps(text):
    assert refused(f'{{"x": {text}}}', type="long").reason == "parameter_error"


@pytest.mark.parametrize(
    "text",
    [
        '" 1"',
        '"1 "',
        '"0x1"',
        '"\uff11"',
        '"१"',
        '"+1"',
        '".5"',
        '"5."',
        '"01"',
        '"1_0"',
        '"1,0"',
        '""',
        '"NaN"',
        '"Infinity"',
        '"-"',
        '"1e"',
        '"1\\n"',
        '"1\\u0000"',
        '"one"',
        "true",
        "false",
        "null",
        "[1]",
        "[]",
        '{"x": 1}',
        "{}",
        f'"{"1" * 401}"',
    ],
)
@pytest.mark.parametrize("kind", ["long", "decimal"])
def test_what_is_no_plain_number_is_an_error(text, kind):
    error = refused(f'{{"x": {text}}}', type=kind)
    assert (error.reason, error.parameter) == ("parameter_error", "x")
    assert str(error) == "parameter_error: x"


@pytest.mark.parametrize("number", ["1e400", "NaN", "-Infinity", "1" * 401, "1.", "01", "0x1", "\uff11"])
def test_what_is_no_json_number_spoils_the_arguments(number):
    assert refused(f'{{"x": {number}}}', type="long").parameter == "arguments"


@pytest.mark.parametrize("arguments", ["", "null", "[]", '"x"', "1", '{"x": 1, "x": 2}', '{"x": "\ud800"}', "{" * 99])
def test_arguments_that_are_no_strict_json_object_are_an_error(arguments):
    error = refused(arguments, type="long")
    assert (error.reason, error.parameter) == ("parameter_error", "arguments")


def test_arguments_are_read_strictly_even_where_no_parameter_is_declared():
    with pytest.raises(ParameterError):
        declare().extract("tools/call", "shop", "sell", '{"x": 1, "x": 2}')


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("string", "1"),
        ("string", "null"),
        ("string", "true"),
        ("string", '["a"]'),
        ("bool", "1"),
        ("bool", '"true"'),
        ("bool", "null"),
        ("bool", "0.0"),
    ],
)
def test_strings_and_bools_are_never_converted(kind, text):
    assert refused(f'{{"x": {text}}}', type=kind).reason == "parameter_error"


def test_strings_and_bools_arrive_as_they_are():
    assert one('{"x": "1.0"}', type="string") == "1.0"
    assert one('{"x": false}', type="bool") is False


def test_numbers_that_differ_only_in_spelling_are_not_ambiguous():
    assert one('{"x": 1.00, "y": "1e0"}', type="decimal", paths=["x", "y"]) == FixedDecimal(10_000)


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [("decimal", "1", "1.0001"), ("long", "1", "2"), ("string", '"a"', '"A"'), ("bool", "true", "false")],
)
def test_two_values_where_one_is_meant_are_ambiguous(kind, first, second):
    error = refused(f'{{"x": {first}, "y": {second}}}', type=kind, paths=["x", "y"])
    assert (error.reason, error.parameter) == ("ambiguous_parameter", "x")


@pytest.mark.parametrize(("combine", "expected"), [("min", -1), ("max", 5), ("sum", 6)])
def test_several_numbers_combine_as_declared(combine, expected):
    arguments = '{"x": [2, -1, "5", 0e3]}'
    assert one(arguments, type="long", paths=["x[*]"], combine=combine) == expected
    assert one(arguments, type="decimal", paths=["x[*]"], combine=combine) == FixedDecimal(expected * 10_000)


def test_one_bad_value_among_several_is_an_error_under_every_combination():
    for combine in ("only", "min", "max", "sum"):
        assert refused('{"x": [1, "a"]}', type="long", paths=["x[*]"], combine=combine).reason == "parameter_error"


def test_count_counts_places_of_any_type_and_is_there_even_if_none_is():
    assert one('{"x": [1, null, {}, "a"]}', type="long", paths=["x[*]"], combine="count") == 4
    assert one("{}", type="long", paths=["x[*]"], combine="count") == 0


def test_sum_counts_each_place_once():
    assert one('{"x": 5, "y": 5}', type="long", paths=["x", "**.x", "*"], combine="sum") == 10


def test_sum_beyond_64_bits_is_an_error():
    arguments = json.dumps({"x": [2**63 - 1, 1]})
    assert refused(arguments, type="long", paths=["x[*]"], combine="sum").reason == "parameter_error"


def test_missing_parameter_is_left_out_unless_it_is_required():
    assert one("{}", type="long") is None
    assert one('{"x": []}', type="long", paths=["x[*]"], combine="sum") is None
    error = refused("{}", type="long", required=True)
    assert (error.reason, error.parameter) == ("parameter_error", "x")


def test_declaration_speaks_of_its_own_server_tools_and_of_tool_calls_alone():
    parameters = declare({"name": "x", "type": "long", "paths": ["x"], "server": "shop", "tools": ["sell", "buy"]})
    assert parameters.extract("tools/call", "shop", "buy", '{"x": 1}') == {"x": 1}
    assert parameters.extract("tools/call", "shop", "look", '{"x": "a"}') == {}
    assert parameters.extract("tools/call", "bank", "sell", '{"x": "a"}') == {}
    assert parameters.extract("prompts/get", "shop", "sell", '{"x": "a"}') == {}
    assert parameters.extract("tools/list", "shop", None, '{"x": "a"}') == {}


def test_one_name_may_be_read_in_several_places_of_one_type():
    parameters = declare(
        {"name": "x", "type": "long", "paths": ["a"], "server": "shop", "tools": ["sell"]},
        {"name": "x", "type": "long", "paths": ["b"], "server": "shop", "tools": ["buy"]},
        {"name": "x", "type": "long", "paths": ["c"], "server": "bank"},
    )
    arguments = '{"a": 1, "b": 2, "c": 3}'
    assert parameters.extract("tools/call", "shop", "sell", arguments) == {"x": 1}
    assert parameters.extract("tools/call", "shop", "buy", arguments) == {"x": 2}
    assert parameters.extract("tools/call", "bank", "sell", arguments) == {"x": 3}
    assert parameters.types == {"x": "long"}


X = {"name": "x", "type": "long", "paths": ["x"]}


@pytest.mark.parametrize(
    ("declarations", "message"),
    [
        ([X, X], "twice for one call"),
        ([X | {"server": "shop"}, X], "twice for one call"),
        ([X | {"tools": ["a", "b"]}, X | {"server": "shop", "tools": ["b"]}], "twice for one call"),
        ([X | {"server": "a"}, X | {"server": "b", "type": "decimal"}], "two types"),
        ([X | {"paths": ["x."]}], "not a path"),
        ([X | {"paths": []}], "length >= 1"),
        ([X | {"paths": ["x"] * 33}], "length <= 32"),
        ([X | {"type": "float"}], "Invalid enum value"),
        ([X | {"combine": "avg"}], "Invalid enum value"),
        ([X | {"type": "string", "combine": "max"}], "has no max"),
        ([X | {"type": "bool", "combine": "sum"}], "has no sum"),
        ([X | {"type": "decimal", "combine": "count"}], "its type is long"),
        ([X | {"name": "a-b"}], "matching regex"),
        ([X | {"name": ""}], "matching regex"),
        ([X | {"required": "yes"}], "Expected `bool`"),
        ([X | {"default": 1}], "unknown field"),
        ([{"name": "x", "type": "long"}], "missing required field"),
        ([X | {"name": f"x{number}"} for number in range(MAX_PARAMETERS + 1)], "length <= 256"),
    ],
)
def test_declarations_that_could_be_read_two_ways_are_refused(declarations, message):
    with pytest.raises(PolicySyntaxError, match=message):
        declare(*declarations)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"parameters": {}}', b'{"parameters": [], "closed": {}}', b"\xff"])
def test_what_declares_nothing_properly_is_refused(data):
    with pytest.raises(PolicySyntaxError, match="not parameter declarations"):
        parse_parameters(data)


def test_error_never_tells_the_value():
    error = refused('{"x": "4111-1111-1111-1111"}', type="long")
    assert "4111" not in str(error)
    assert "4111" not in repr(error)


def test_number_with_a_vast_exponent_takes_no_vast_time():
    started = time.process_time()
    for text in ("1e-99999999", "0e-99999999", '"1e-999999999999999999"', '"1e999999999"'):
        with contextlib.suppress(ParameterError):
            one(f'{{"x": {text}}}', type="decimal")
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("scaled", "text"),
    [
        (0, "0.0000"),
        (1, "0.0001"),
        (-1, "-0.0001"),
        (-10000, "-1.0000"),
        (2**63 - 1, "922337203685477.5807"),
        (-(2**63), "-922337203685477.5808"),
    ],
)
def test_fixed_decimal_is_written_with_all_its_places(scaled, text):
    assert str(FixedDecimal(scaled)) == text
