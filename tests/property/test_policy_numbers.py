"""Equal numbers are equal to a policy, however they are written; and whatever is read is exact."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.model import Decision, Effect
from policies.parameters import FixedDecimal, ParameterError, ParameterType, parse_parameters
from tests.support.policies import cedar_bundle, make_request

I64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.integers(-100_000, 100_000),
    st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 2**53, 2**53 + 1, 6_495_000, 6_494_999]),
)


@st.composite
def spellings(draw: st.DrawFn, places: int) -> tuple[int, str]:
    """Return a whole number of 64 bits and some JSON spelling of it divided by ``10**places``."""
    scaled = draw(I64)
    sign, digits = ("-" if scaled < 0 else "", str(abs(scaled)))
    exponent = -places
    for _ in range(draw(st.integers(0, 12))):  # trailing zeros change the digits and not the number
        digits, exponent = digits + "0", exponent - 1
    if scaled == 0:
        sign = draw(st.sampled_from(["", "-"]))
    most = len(digits) - 1
    point = draw(st.integers(0 if scaled else most, most))  # digits after the decimal point; JSON knows no 00
    whole, fraction = digits[: len(digits) - point], digits[len(digits) - point :]
    exponent += point
    text = sign + whole + (f".{fraction}" if fraction else "")
    if exponent or draw(st.booleans()):
        text += draw(st.sampled_from(["e", "E"])) + draw(st.sampled_from(["", "+"] if exponent >= 0 else [""]))
        text += str(exponent)
    if draw(st.booleans()):
        text = f'"{text}"'
    return scaled, text


def read(kind: ParameterType, text: str) -> object:
    declared = parse_parameters(json.dumps({"parameters": [{"name": "x", "type": kind, "paths": ["x"]}]}).encode())
    return declared.extract("tools/call", "shop", "sell", f'{{"x": {text}}}')["x"]


@given(spellings(4))
def test_every_spelling_of_a_decimal_is_that_decimal(pair):
    scaled, text = pair
    assert read("decimal", text) == FixedDecimal(scaled)


@given(spellings(0))
def test_every_spelling_of_a_whole_number_is_that_number(pair):
    number, text = pair
    value = read("long", text)
    assert value == number
    assert type(value) is int


NUMBER_TEXT = st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?\Z")


@pytest.mark.parametrize(("kind", "places"), [("long", 0), ("decimal", 4)])
@given(text=NUMBER_TEXT)
def test_what_is_read_is_exactly_what_is_written_or_an_error(kind, places, text):
    """Against rational arithmetic: no rounding, no wrapping, and no error where an exact value exists."""
    exact = Fraction(Decimal(text)) * 10**places
    representable = exact.denominator == 1 and -(2**63) <= exact <= 2**63 - 1
    value = None
    with contextlib.suppress(ParameterError):
        value = read(kind, text)
    assert (value is not None) == representable
    if value is not None:
        assert (value.scaled if isinstance(value, FixedDecimal) else value) == exact


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.text(max_size=8), st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


@given(JSON_VALUES)
def test_no_json_value_makes_anything_but_an_exact_number_or_an_error(value):
    text = json.dumps(value)
    try:
        number = read("decimal", text)
    except ParameterError:
        return
    written = value if isinstance(value, str) else text
    assert isinstance(number, FixedDecimal)
    assert Fraction(number.scaled, 10_000) == Fraction(Decimal(written))


@given(I64, I64)
def test_fixed_decimals_are_ordered_and_written_as_their_numbers(first, second):
    assert (FixedDecimal(first) < FixedDecimal(second)) == (first < second)
    assert Fraction(Decimal(str(FixedDecimal(first)))) == Fraction(first, 10_000)


FLOOR = 6_495_000
BUNDLE = cedar_bundle(
    '@id("sell") permit(principal, action, resource);'
    '@id("floor") forbid(principal, action, resource) when { context.args has price && '
    'context.args.price.lessThan(decimal("649.5")) };'
    '@id("odd") forbid(principal, action, resource) when { context.args has amount && '
    "context.args.amount == 9007199254740993 };"
)


@pytest.fixture(scope="module")
def evaluator() -> Iterator[Evaluator]:
    made = Evaluator({"cedar": CedarEngine()})
    yield made
    made.close()


def decide(evaluator: Evaluator, arguments: str) -> Decision:
    (evaluation,) = asyncio.run(evaluator.evaluate_many(BUNDLE, [make_request(arguments=arguments)]))
    return evaluation.decision


@given(pair=spellings(4))
def test_equal_decimals_give_equal_decisions_in_cedar(evaluator, pair):
    scaled, text = pair
    decision = decide(evaluator, f'{{"price": {text}}}')
    plain = decide(evaluator, f'{{"price": {FixedDecimal(scaled)}}}')
    assert decision == plain
    assert decision.effect is (Effect.DENY if scaled < FLOOR else Effect.PERMIT)


@given(number=st.one_of(I64, st.integers(2**53 - 3, 2**53 + 3)))
def test_whole_numbers_beyond_what_a_double_holds_reach_cedar_exactly(evaluator, number):
    decision = decide(evaluator, f'{{"amount": {number}}}')
    assert decision.effect is (Effect.DENY if number == 2**53 + 1 else Effect.PERMIT)
