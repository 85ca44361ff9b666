"""Behaviour windows: what may be declared, which calls belong to one, and how a request holds their values."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ledger.canonical import canonical_bytes
from ledger.errors import MalformedError, PolicySyntaxError
from policies.bundles import bundle_from_files
from policies.model import MAX_WINDOWS, decode_request, encode_request, with_windows
from policies.parameters import FixedDecimal, ParameterSet, parse_parameters
from policies.window_declarations import MAX_CHOICES, MAX_SECONDS
from policies.windows import MAX_LONG, WindowError, WindowSet, parse_windows, read_windows
from tests.support.policies import cedar_files, make_request

PARAMETERS = [
    {"name": "amount", "type": "long", "server": "shop", "tools": ["sell", "refund"], "paths": ["amount"]},
    {"name": "price", "type": "decimal", "paths": ["price"]},
    {"name": "sku", "type": "string", "paths": ["sku"]},
]
SPENT = {"name": "spent", "measure": "sum", "parameter": "amount", "per": "user", "over": "day"}
PAID = {"name": "paid", "measure": "sum", "parameter": "price", "per": "agent", "over_seconds": 60}
CALLS = {"name": "calls", "measure": "count", "per": "agent", "over_seconds": 60}
FLEET = {"across": "fleet", "strict": True}
PROFILE = {"tools": ["shop/sell"], "roles": ["clerk"]}
OFF = {"name": "off", "measure": "off_profile", "profile": PROFILE, "per": "session"}
TAINT = {"name": "taint", "measure": "seen", "tags": ["pii", "secret"], "per": "session"}


def parameters(declared: list[dict[str, Any]] | None = None) -> ParameterSet:
    return parse_parameters(json.dumps({"parameters": PARAMETERS if declared is None else declared}).encode())


def declared(*windows: dict[str, Any]) -> WindowSet:
    return parse_windows(json.dumps({"windows": windows}).encode(), parameters())


def test_windows_keep_their_order_and_know_the_kind_of_their_value():
    windows = declared(SPENT, PAID, CALLS, TAINT, OFF, {**CALLS, "name": "tools", "measure": "distinct"})
    assert [(name, windows.kind(name)) for name in windows.windows] == [
        ("spent", "long"),
        ("paid", "decimal"),
        ("calls", "long"),
        ("taint", "bool"),
        ("off", "long"),
        ("tools", "long"),
    ]


def test_window_per_session_is_over_the_session_unless_it_says_otherwise():
    assert declared(TAINT).windows["taint"].over == "session"
    today = {**TAINT, "over": "day"}
    assert declared(today).windows["taint"].over == "day"
    assert declared(TAINT).digests == declared({**TAINT, "over": "session"}).digests


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([{**SPENT, "parameter": None}], "the window spent is a sum, so it names a parameter"),
        ([{**SPENT, "parameter": "sku"}], "the window spent sums 'sku', which is no numeric parameter"),
        ([{**SPENT, "parameter": "amuont"}], "the window spent sums 'amuont', which is no numeric parameter"),
        (
            [{**SPENT, "tools": ["sell", "slel"]}],
            "the window spent sums amount, which is not read from calls of 'slel'",
        ),
        ([{**SPENT, "server": "mall"}], "the window spent sums amount, which is not read from calls"),
        ([{**SPENT, "of": "all"}], "the window spent is a sum, so it is of permitted tools/call messages"),
        ([{**SPENT, "methods": ["prompts/get"]}], "the window spent is a sum, so it is of permitted"),
        ([{**CALLS, "parameter": "amount"}], "the window calls is no sum, so it has no parameter"),
        ([{**CALLS, "over": "day"}], "the window calls has both over and over_seconds"),
        ([{**CALLS, "over_seconds": None, "over": "session"}], "over the session, so it is per session"),
        ([{**CALLS, "over_seconds": None}], "the window calls does not say since when"),
        ([CALLS, TAINT, CALLS], "the window calls is declared twice"),
        ([{**CALLS, "strict": True}], "the window calls is strict, so it is across the fleet"),
        ([{**TAINT, "across": "fleet"}], "per session, and a session is of one gateway"),
        ([{**CALLS, **FLEET, "of": "all"}], "is strict, so it is a sum, count or sight of permitted calls"),
        ([{**CALLS, **FLEET, "measure": "distinct"}], "is strict, so it is a sum, count or sight of permitted calls"),
        ([{**CALLS, "across": "gateway"}], "not window declarations"),
        ([{**CALLS, "per": None}], "the window calls does not say whose calls: per"),
        ([{"name": "age", "measure": "staleness", "per": "agent"}], "measures staleness, and says nothing else"),
        ([{**CALLS, "measure": "off_profile"}], "a profile if, and only if, it measures off_profile"),
        ([{**CALLS, "profile": PROFILE}], "a profile if, and only if, it measures off_profile"),
        ([{**OFF, "tools": ["sell"]}], "of what its profile says, and of no other choice"),
        ([{**OFF, "methods": ["prompts/get"]}], "of what its profile says, and of no other choice"),
        ([{**OFF, "profile": {**PROFILE, "first": ["shop/slel"]}}], "says 'shop/slel', which is none of its tools"),
        ([{**OFF, "profile": {**PROFILE, "next": {"shop/buy": []}}}], "says 'shop/buy', which is none of its tools"),
        ([{**OFF, "profile": {**PROFILE, "next": {"shop/sell": ["shop/buy"]}}}], "says 'shop/buy'"),
        ([{**OFF, "profile": {**PROFILE, "tools": []}}], "not window declarations"),
        ([{**OFF, "profile": {**PROFILE, "tools": ["sell"]}}], "not window declarations"),
        ([{**OFF, "profile": {**PROFILE, "users": ["alice"]}}], "not window declarations"),
        ([{**CALLS, "over_seconds": 0}], "not window declarations"),
        ([{**CALLS, "over_seconds": MAX_SECONDS + 1}], "not window declarations"),
        ([{**CALLS, "over_seconds": 1.5}], "not window declarations"),
        ([{**CALLS, "over_seconds": "60"}], "not window declarations"),
        ([{**CALLS, "over": "week"}], "not window declarations"),
        ([{**CALLS, "per": "tool"}], "not window declarations"),
        ([{**CALLS, "measure": "mean"}], "not window declarations"),
        ([{**CALLS, "name": "calls-per-minute"}], "not window declarations"),
        ([{**CALLS, "name": "c" * 65}], "not window declarations"),
        ([{**CALLS, "tool": ["sell"]}], "not window declarations"),
        ([{**CALLS, "methods": []}], "not window declarations"),
        ([{**CALLS, "tools": [""]}], "not window declarations"),
        ([{**CALLS, "tools": ["t"] * (MAX_CHOICES + 1)}], "not window declarations"),
        ([{**CALLS, "name": f"w{number}"} for number in range(MAX_WINDOWS + 1)], "not window declarations"),
    ],
)
def test_declaration_that_makes_no_sense_is_refused(windows, message):
    with pytest.raises(PolicySyntaxError) as caught:
        declared(*windows)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"windows": [], "windows": []}', '{"windows": {}}', '{"windows": [1]}']
)
def test_text_that_is_no_list_of_windows_is_refused(text):
    with pytest.raises(PolicySyntaxError):
        parse_windows(text.encode())


def test_file_that_is_at_fault_is_named():
    files = cedar_files("", windows="windows.json") | {"windows.json": b"{}"}
    with pytest.raises(PolicySyntaxError, match=r"^windows\.json: not window declarations"):
        read_windows(bundle_from_files(files))
    files = cedar_files("", windows="windows.json") | {"windows.json": b"{}", "parameters.json": b"{}"}
    with pytest.raises(PolicySyntaxError, match=r"^parameters\.json: not parameter declarations"):
        read_windows(bundle_from_files(files))


def test_bundle_without_windows_has_none_and_keeps_its_revision():
    bundle = bundle_from_files(cedar_files(""))
    assert not read_windows(bundle).windows
    assert b"windows" not in bundle.archive()


def test_digest_is_that_of_what_is_measured():
    digest = declared(SPENT).digests["spent"]
    assert declared({**SPENT, "name": "other"}).digests["other"] == digest
    tools = declared({**SPENT, "tools": ["sell", "refund"]}).digests["spent"]
    assert declared({**SPENT, "tools": ["refund", "sell", "sell"]}).digests["spent"] == tools != digest
    for change in ({"per": "agent"}, {"over": None, "over_seconds": 60}, {"tags": ["pii"]}, {"server": "shop"}):
        assert declared({**SPENT, **change}).digests["spent"] != digest
    read_otherwise = [{**PARAMETERS[0], "paths": ["amount", "total"]}, *PARAMETERS[1:]]
    changed = parse_windows(json.dumps({"windows": [SPENT]}).encode(), parameters(read_otherwise))
    assert changed.digests["spent"] != digest


# --- which calls belong to a window ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "belongs"),
    [
        ({}, True),
        ({"name": "buy"}, True),
        ({"server": "mall"}, False),
        ({"name": "steal"}, False),
        ({"tags": ()}, False),
        ({"tags": ("public",)}, False),
        ({"tags": ("public", "secret")}, True),
        ({"action": "prompts/get"}, True),
        ({"action": "tools/list", "name": None}, False),
    ],
)
def test_call_belongs_to_a_window_if_all_that_it_names_fits(members, belongs):
    window = {
        **CALLS,
        "server": "shop",
        "tools": ["sell", "buy"],
        "tags": ["pii", "secret"],
        "methods": ["tools/call", "prompts/get"],
    }
    call = declared(window).read_call(make_request(**{"tags": ("pii",), **members}))
    assert call.amounts == ({"calls": 1} if belongs else {})


def test_window_that_names_nothing_is_of_every_tool_call_and_of_no_other_message():
    windows = declared(CALLS)
    assert windows.read_call(make_request(server="any", name="thing")).amounts == {"calls": 1}
    assert windows.read_call(make_request(action="resources/read")).amounts == {}


@pytest.mark.parametrize(
    ("arguments", "amounts"),
    [
        ('{"amount": 7, "price": "2.5"}', {"spent": 7, "paid": 25_000}),
        ('{"amount": 9223372036854775807}', {"spent": 2**63 - 1, "paid": 0}),
        ('{"price": 922337203685477.5807}', {"spent": 0, "paid": 2**63 - 1}),
        ('{"amount": -3}', {"spent": -3, "paid": 0}),
        ("{}", {"spent": 0, "paid": 0}),
        # What no policy permits adds nothing.
        ('{"amount": 9223372036854775808}', {"spent": 0, "paid": 0}),
        ('{"amount": 1, "price": "0.00001"}', {"spent": 0, "paid": 0}),
        ('{"amount": 1, "amount": 2}', {"spent": 0, "paid": 0}),
        ("[]", {"spent": 0, "paid": 0}),
    ],
)
def test_call_adds_its_amounts_exactly(arguments, amounts):
    assert declared(SPENT, PAID).read_call(make_request(arguments=arguments)).amounts == amounts


# --- how a request holds them ----------------------------------------------------------------------------------------

EVERY = declared(SPENT, PAID, CALLS, TAINT)
HELD = {"spent": 2**53 - 1, "paid": "12.5000", "calls": 3, "taint": True}


def test_values_of_a_request_are_typed_for_an_engine():
    request = EVERY.stated(make_request(), HELD)
    assert request.version == 2
    assert EVERY.values(request) == {"spent": 2**53 - 1, "paid": FixedDecimal(125_000), "calls": 3, "taint": True}
    assert decode_request(encode_request(request)) == request


@pytest.mark.parametrize("total", [0, 2**53 - 1, 2**53, 2**63 - 1, -(2**63), -(2**53)])
def test_sum_is_written_and_read_exactly(total):
    held = {**HELD, "spent": EVERY.written("spent", total), "paid": EVERY.written("paid", total)}
    request = decode_request(encode_request(EVERY.stated(make_request(), held)))
    values = EVERY.values(request)
    assert (values["spent"], values["paid"]) == (total, FixedDecimal(total))


@pytest.mark.parametrize("name", ["spent", "paid"])
@pytest.mark.parametrize("total", [2**63, -(2**63) - 1, 2**80])
def test_sum_beyond_64_bits_is_recorded_as_it_is_and_refused(name, total):
    request = EVERY.stated(make_request(), {**HELD, name: EVERY.written(name, total)})
    with pytest.raises(WindowError) as caught:
        EVERY.values(decode_request(encode_request(request)))
    assert (caught.value.reason, caught.value.window) == ("parameter_error", name)


@pytest.mark.parametrize(
    ("name", "value"),
    [("taint", 1), ("taint", "1"), ("calls", True), ("spent", False), ("paid", True)],
)
def test_value_of_another_kind_is_refused(name, value):
    with pytest.raises(WindowError) as caught:
        EVERY.values(EVERY.stated(make_request(), {**HELD, name: value}))
    assert (caught.value.reason, caught.value.window) == ("request_error", name)


def test_request_without_windows_misses_them_all():
    assert EVERY.missing(make_request()) == ("spent", "paid", "calls", "taint")
    with pytest.raises(WindowError) as caught:
        EVERY.values(make_request())
    assert (caught.value.reason, caught.value.window) == ("request_error", "spent")


def test_what_another_declaration_measured_under_the_same_name_is_missing():
    other = declared({**SPENT, "per": "agent"}, PAID, CALLS, TAINT)
    request = other.stated(make_request(), HELD)
    assert EVERY.missing(request) == ("spent",)
    assert other.missing(request) == ()


def test_windows_that_the_bundle_does_not_declare_are_left_out():
    assert declared(CALLS).values(EVERY.stated(make_request(), HELD)) == {"calls": 3}
    assert WindowSet().values(EVERY.stated(make_request(), HELD)) == {}


def test_stated_values_need_no_digest():
    assert EVERY.values(with_windows(make_request(), HELD))["calls"] == 3


@pytest.mark.parametrize(
    ("name", "value", "held"),
    [
        ("paid", "900.5", "900.5000"),
        ("paid", 900, "900.0000"),
        ("spent", "7e2", 700),
        ("calls", 4, 4),
        ("taint", False, False),
    ],
)
def test_value_that_a_person_writes_is_put_as_requests_hold_it(name, value, held):
    assert EVERY.read_value(name, value) == held


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("speant", 1, "request_error"),
        ("taint", 1, "request_error"),
        ("calls", True, "parameter_error"),
        ("calls", "1.5", "parameter_error"),
        ("paid", "0.00001", "parameter_error"),
        ("paid", "many", "parameter_error"),
        ("spent", 2**63, "parameter_error"),
    ],
)
def test_what_is_no_value_of_a_window_is_refused(name, value, reason):
    with pytest.raises(WindowError) as caught:
        EVERY.read_value(name, value)
    assert (caught.value.reason, caught.value.window) == (reason, name)


# --- the two versions of a request -----------------------------------------------------------------------------------

FULL = EVERY.stated(make_request(), HELD)


def test_request_of_version_1_is_written_as_ever():
    document = json.loads(encode_request(make_request()))
    assert document["version"] == 1
    assert document["state"] == {"session": "s", "calls": 0, "denied": 0, "started_ms": 0}


def changed(**state: object) -> bytes:
    document = json.loads(encode_request(FULL))
    document["version"] = state.pop("version", 2)
    document["state"].update(state)
    document["state"] = {name: value for name, value in document["state"].items() if value is not None}
    return canonical_bytes(document)


@pytest.mark.parametrize(
    "data",
    [
        changed(version=1),
        changed(version=3),
        changed(windows=None),
        changed(windows=None, measured_by=None),
        changed(windows={"spent": 1}),
        changed(windows={**HELD, "spent": 1.5}),
        changed(windows={**HELD, "spent": "1.5"}),
        changed(windows={**HELD, "spent": "01"}),
        changed(windows={**HELD, "spent": "1e3"}),
        changed(windows={**HELD, "spent": "many"}),
        changed(windows={**HELD, "spent": [1]}),
        changed(windows={**HELD, "not a name": 1}, measured_by={}),
        changed(windows={f"w{number}": 1 for number in range(MAX_WINDOWS + 1)}, measured_by={}),
        changed(measured_by={"spent": "0"}),
        changed(measured_by={"other": "0" * 32}),
    ],
)
def test_request_whose_windows_are_not_as_they_should_be_is_refused(data):
    with pytest.raises(MalformedError):
        decode_request(data)


def test_request_cannot_be_made_with_windows_and_the_version_of_none():
    with pytest.raises(ValueError, match="version 2"):
        msgspec.structs.replace(FULL, version=1)


# --- across the fleet ------------------------------------------------------------------------------------------------


def test_window_across_the_fleet_is_another_one_than_that_of_a_gateway():
    own, shared, strict = (declared({**CALLS, **more}).digests["calls"] for more in ({}, {"across": "fleet"}, FLEET))
    assert len({own, shared, strict}) == 3


def test_strict_window_that_is_reached_has_the_greatest_value_of_its_type():
    windows = declared({**SPENT, **FLEET}, {**PAID, **FLEET}, {**TAINT, **FLEET, "per": "user", "over": "day"})
    values = {name: windows.reached(name) for name in windows.windows}
    assert values == {"spent": str(MAX_LONG), "paid": "922337203685477.5807", "taint": True}
    assert windows.values(windows.stated(make_request(), values)) == {
        "spent": MAX_LONG,
        "paid": FixedDecimal(MAX_LONG),
        "taint": True,
    }


def test_request_names_the_windows_that_were_not_available():
    windows = declared({**CALLS, **FLEET})
    request = windows.stated(make_request(), {"calls": windows.reached("calls")})
    state = msgspec.structs.replace(request.state, unavailable=("calls",))
    request = msgspec.structs.replace(request, state=state)
    assert decode_request(encode_request(request)) == request
    assert b'"unavailable":["calls"]' in encode_request(request)
    assert b"unavailable" not in encode_request(windows.stated(request, {"calls": 1}))  # measured anew
    with pytest.raises(ValueError, match="does not hold that it is unavailable"):
        msgspec.structs.replace(request, state=msgspec.structs.replace(state, unavailable=("others",)))
    for wrong in (b"[]", b'"calls"', b'["no window"]'):
        with pytest.raises(MalformedError):
            decode_request(encode_request(request).replace(b'["calls"]', wrong))
