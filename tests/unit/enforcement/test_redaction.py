"""What is redacted is gone, and what is left is the same JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.redaction import Stretch, redacted
from ledger.errors import MalformedError

SECRET = "S3CR3T"


def stretches(data: bytes, secret: bytes = SECRET.encode(), kind: str = "secret") -> list[Stretch]:
    found, start = [], data.find(secret)
    while start >= 0:
        found.append(Stretch(start, start + len(secret), kind))
        start = data.find(secret, start + 1)
    return found


def without(data: bytes, *more: Stretch) -> Any:
    made, _ = redacted(data, [*stretches(data), *more])
    assert SECRET.encode() not in made
    return json.loads(made)


def test_a_part_of_a_string_is_replaced_and_everything_else_is_as_it_was():
    data = b'{"a" : "before S3CR3T after", "b": [1.50, true], "c":"\\u0053"}'
    made, places = redacted(data, stretches(data))
    assert made == b'{"a" : "before [redacted: secret] after", "b": [1.50, true], "c":"\\u0053"}'
    assert places == 1


def test_a_number_or_word_that_goes_becomes_a_string_whole():
    data = b'{"card": 4111111111111111, "price": -12.5e3}'
    made, places = redacted(data, [Stretch(11, 25, "personal")])
    assert json.loads(made) == {"card": "[redacted: personal]", "price": -12500.0}
    assert places == 1


def test_two_names_that_go_do_not_become_one():
    assert without(b'{"S3CR3T a": 1, "b S3CR3T" :2, "S3CR3T a":3, "d": "S3CR3T"}') == {
        "[redacted: secret 1] a": 1,
        "b [redacted: secret 2]": 2,
        "[redacted: secret 3] a": 3,
        "d": "[redacted: secret]",
    }


def test_stretches_that_overlap_or_touch_go_together():
    data = b'["0123456789"]'
    made, places = redacted(data, [Stretch(4, 8, "secret"), Stretch(2, 5, "personal"), Stretch(8, 9, "ansi")])
    assert json.loads(made) == ["[redacted: personal][redacted: ansi]789"]
    assert places == 2
    assert redacted(data, [Stretch(2, 12, "secret"), Stretch(3, 4, "ansi")])[0] == b'["[redacted: secret]"]'


@pytest.mark.parametrize(("low", "high"), [(3, 5), (4, 6), (2, 4), (5, 9), (2, 3), (3, 4), (7, 8)])
def test_no_escape_is_cut(low: int, high: int):
    data = b'["\\u0041\\n\\"z"]'
    made, _ = redacted(data, [Stretch(low, high, "unicode")])
    (text,) = json.loads(made)
    assert "[redacted: unicode]" in text
    assert text.endswith("z")


def test_no_character_is_cut():
    data = '["a€z"]'.encode()
    for low in range(3, 6):
        made, _ = redacted(data, [Stretch(low, low + 1, "unicode")])
        assert json.loads(made) == ["a[redacted: unicode]z"]


def test_a_stretch_over_several_values_takes_its_part_of_each_and_leaves_what_is_between():
    data = b'{"x":"aS3C","y":"R3Tb"}'
    made, places = redacted(data, [Stretch(7, 20, "secret")])
    assert json.loads(made)["x"] == "a[redacted: secret]"
    assert b"S3C" not in made
    assert b"R3T" not in made
    assert places == 3  # the name between them as well


@pytest.mark.parametrize("stretch", [Stretch(0, 1, "a"), Stretch(1, 1, "a"), Stretch(5, 4, "a"), Stretch(90, 99, "a")])
def test_what_is_no_part_of_a_value_cannot_be_redacted(stretch: Stretch):
    with pytest.raises(MalformedError):
        redacted(b'{"a": "b"}', [stretch])


def test_what_was_no_json_is_not_released_as_if_it_were():
    with pytest.raises(MalformedError, match="no JSON"):
        redacted(b'{"a": "S3CR3T", ]', stretches(b'{"a": "S3CR3T", ]'))


def test_half_of_a_surrogate_pair_elsewhere_is_no_hindrance():
    assert without(b'["\\ud800 S3CR3T"]') == ["\ud800 [redacted: secret]"]


def test_nothing_to_redact_changes_nothing():
    assert redacted(b"anything", []) == (b"anything", 0)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just(f"x{SECRET}\n€") | st.just(SECRET),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.just(SECRET), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_whatever_the_text_is_the_secret_is_gone_and_its_shape_stays(value: object, ascii_only: bool):
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    made, places = redacted(data, stretches(data))
    assert SECRET.encode() not in made
    assert (places > 0) == (SECRET.encode() in data)
    assert _shape(json.loads(made)) == _shape(value)


def _shape(value: object) -> object:
    if isinstance(value, dict):
        return [_shape(item) for item in value.values()]
    return [_shape(item) for item in value] if isinstance(value, list) else type(value).__name__
