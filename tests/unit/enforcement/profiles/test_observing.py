"""Of a call a profile keeps shapes and buckets, under a key, and never a value."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.facts import Pseudonyms
from enforcement.profiles.observing import MAX_FEATURES, MAX_SHAPED_CHARS, SIZE_BUCKETS, observe, shape_of, size_bucket
from enforcement.profiles.profile import AgentProfile, encode_profile
from enforcement.profiles.thresholds import Thresholds
from policies.model import DecisionRequest, Environment, Principal, Resource, SessionState, Time

KEY = bytes(32)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def asked(
    arguments: str = "{}", *, name: str | None = "refund", method: str = "tools/call", tags=()
) -> DecisionRequest:
    return DecisionRequest(
        version=1,
        principal=Principal(agent="bot", user="anna@example.org"),
        action=method,
        resource=Resource(server="shop", name=name, tags=tags),
        time=Time(now_ms=1_772_409_600_000, zone="UTC", local_date="2026-03-02", hour=3, minute=0, weekday=1),
        environment=Environment(address="192.0.2.1"),
        state=SessionState(session="secret-session"),
        arguments=arguments,
    )


def test_no_value_no_name_of_a_member_no_person_and_no_session_stands_in_what_is_stored():
    arguments = json.dumps({"mail": "anna@example.org", "anna@example.org": {"iban": "CH93 0076"}, "n": 4711})
    call = observe("0" * 8, asked(arguments), Pseudonyms(KEY))
    profile = AgentProfile(agent="bot")
    profile.take(call, permitted=True, teaches=True, thresholds=Thresholds())
    stored = encode_profile(profile)
    for secret in (b"anna", b"iban", b"CH93", b"mail", b"4711", b"secret-session"):
        assert secret not in stored


def test_a_resource_is_its_method_for_its_address_may_be_personal():
    call = observe("0", asked(name="file:///home/anna/diary.txt", method="resources/read"), Pseudonyms(KEY))
    assert call.tool == "shop/resources/read"


def test_a_tool_whose_name_is_no_name_is_its_digest():
    call = observe("0", asked(name="Überweisung <anna>"), Pseudonyms(KEY))
    assert call.tool.startswith("shop/sha256:")


@given(JSON)
def test_the_shape_is_that_of_the_types_and_not_of_the_values(value):
    """Every text, number and yes or no replaced by another: the same shape."""
    assert shape_of(json.dumps({"a": value}), KEY) == shape_of(json.dumps({"a": other(value)}), KEY)


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [other(item) for item in value]
    return {name: other(item) for name, item in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize(
    ("one", "another"),
    [
        ({"a": 1}, {"a": "1"}), ({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 1, "b": 1}), ({"a": None}, {"a": 0}),
        ({"a": True}, {"a": 1}), ({"a": []}, {"a": {}}), ({"a": [1]}, {"a": ["1"]}), ({"a": {"b": 1}}, {"a": 1}),
        ({"a": {"b": 1}}, {"b": {"a": 1}}),
    ],
)  # fmt: skip
def test_another_member_or_type_is_another_shape(one, another):
    assert shape_of(json.dumps(one), KEY) != shape_of(json.dumps(another), KEY)


def test_another_key_makes_other_shapes_and_targets():
    one, another = (observe("0", asked('{"a":1}'), Pseudonyms(key)) for key in (KEY, b"k" * 32))
    assert one.features != another.features
    assert one.target != another.target


def test_a_long_list_has_the_shape_of_a_short_one():
    assert shape_of(json.dumps({"ids": [1] * 3000}), KEY) == shape_of(json.dumps({"ids": [1]}), KEY)


@pytest.mark.parametrize("text", ["{", '{"a":1,"a":2}', "\ud800", "[" * 5000, '{"a":1e999}'])
def test_what_cannot_be_read_has_a_shape_of_its_own(text):
    assert shape_of(text, KEY) in {("unreadable",), shape_of('{"a":1}', KEY)}


def test_what_is_too_long_to_look_into_says_so():
    assert shape_of('{"a":"' + "x" * MAX_SHAPED_CHARS + '"}', KEY) == ("long",)


def test_of_very_many_members_a_part_is_told_apart_and_that_is_said():
    shape = shape_of(json.dumps({f"m{number}": 1 for number in range(1000)}), KEY)
    assert len(shape) == MAX_FEATURES + 1
    assert shape[-1] == "more"


@given(st.integers(0, 1 << 40))
def test_sizes_fall_into_powers_of_two(length):
    bucket = size_bucket(length)
    assert 0 <= bucket < SIZE_BUCKETS
    if 0 < bucket < SIZE_BUCKETS - 1:
        assert 2 ** (bucket - 1) <= length < 2**bucket


def test_hours_of_a_weekend_are_hours_of_their_own():
    weekend = msgspec.structs.replace(asked(), time=msgspec.structs.replace(asked().time, weekday=6))
    assert observe("0", asked(), Pseudonyms(KEY)).hour == 3
    assert observe("0", weekend, Pseudonyms(KEY)).hour == 27


@pytest.mark.parametrize(
    ("tags", "reads", "sends"), [((), False, False), (("pii",), True, False), (("out", "pii"), True, True)]
)
def test_tags_say_what_reads_and_what_sends(tags, reads, sends):
    call = observe("0", asked(tags=tags), Pseudonyms(KEY), read_tags=["pii"], send_tags=["out"])
    assert (call.reads, call.sends) == (reads, sends)
