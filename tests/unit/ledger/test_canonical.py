"""Canonical JSON and the strict reader."""

from __future__ import annotations

import decimal
import hashlib
import math
import struct
from decimal import Decimal
from enum import IntEnum

import pytest

from ledger.canonical import MAX_JSON_DEPTH, MAX_SAFE_INTEGER, canonical_bytes, parse_canonical, parse_json, sha256
from ledger.errors import MalformedError
from tests.conformance.requirements import requirement


class _Number(IntEnum):
    SEVEN = 7


def double(bits: int) -> float:
    return struct.unpack(">d", bits.to_bytes(8, "big"))[0]


class TestCanonicalBytes:
    @requirement("jcs-01")
    def test_members_are_sorted_by_utf_16_code_units(self) -> None:
        # U+FB33 sorts behind U+1F600 in UTF-16 (0xD83D < 0xFB33), but before it by code point.
        value = {"\ufb33": 1, "\U0001f600": 2, "\u20ac": 3, "\r": 4, "1": 5, "\x80": 6, "\xf6": 7}
        expected = '{"\\r":4,"1":5,"\x80":6,"\xf6":7,"\u20ac":3,"\U0001f600":2,"\ufb33":1}'
        assert canonical_bytes(value) == expected.encode()

    @requirement("jcs-01", "jcs-02")
    def test_objects_within_objects_are_sorted_and_arrays_are_not(self) -> None:
        value = {"b": [3, 1, {"d": None, "c": True}], "a": {"z": False, "": ""}}
        assert canonical_bytes(value) == b'{"a":{"":"","z":false},"b":[3,1,{"c":true,"d":null}]}'

    @requirement("jcs-03", "jcs-07")
    def test_strings_escape_what_must_be_escaped_and_nothing_else(self) -> None:
        text = "".join(map(chr, range(0x20))) + '"\\/\x7f\x80\u2028\ufeff\U0001f512'
        short = {0x08: "b", 0x09: "t", 0x0A: "n", 0x0C: "f", 0x0D: "r"}
        controls = "".join(f"\\{short[code]}" if code in short else f"\\u{code:04x}" for code in range(0x20))
        assert canonical_bytes(text) == f'"{controls}\\"\\\\/\x7f\x80\u2028\ufeff\U0001f512"'.encode()

    @requirement("jcs-03")
    def test_composed_and_decomposed_letters_stay_apart(self) -> None:
        assert canonical_bytes("\xe9") != canonical_bytes("e\u0301")

    @requirement("jcs-04")
    @pytest.mark.parametrize(
        ("number", "text"),
        [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (123456789012345680000.0, "123456789012345680000"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (1.5e-9, "1.5e-9"),
            (0.1 + 0.2, "0.30000000000000004"),
            (double(0x0000000000000001), "5e-324"),
            (double(0x8000000000000001), "-5e-324"),
            (double(0x7FEFFFFFFFFFFFFF), "1.7976931348623157e+308"),
            (double(0x4340000000000000), "9007199254740992"),
            (double(0x4430000000000000), "295147905179352830000"),
            (double(0x44B52D02C7E14AF5), "9.999999999999997e+22"),
            (double(0x44B52D02C7E14AF6), "1e+23"),
            (double(0x41B3DE4355555553), "333333333.3333332"),
        ],
    )
    def test_numbers_are_written_as_ecmascript_writes_doubles(self, number, text) -> None:
        assert canonical_bytes(number) == text.encode()
        assert canonical_bytes([number]) == f"[{text}]".encode()

    @requirement("jcs-08")
    @pytest.mark.parametrize("number", [0, 1, -1, MAX_SAFE_INTEGER, -MAX_SAFE_INTEGER])
    def test_integers_that_a_double_holds_are_written_exactly(self, number) -> None:
        assert canonical_bytes({"a": number}) == b'{"a":%d}' % number

    @requirement("jcs-08")
    @pytest.mark.parametrize("number", [2**53, -(2**53), 2**63, 2**64, 10**20, 10**400])
    def test_larger_integers_are_refused_and_not_rounded(self, number) -> None:
        for value in (number, [number], {"a": number}, {"\xe4": number}):
            with pytest.raises(MalformedError):
                canonical_bytes(value)

    @requirement("jcs-05")
    @pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
    def test_nan_and_infinities_are_refused(self, number) -> None:
        with pytest.raises(MalformedError):
            canonical_bytes({"a": [number]})

    @requirement("jcs-06")
    @pytest.mark.parametrize("text", ["\ud800", "a\udfff", "\udc00\ud800"])
    def test_lone_surrogates_are_refused_in_values_and_names(self, text) -> None:
        for value in (text, [text], {text: 1}, {"a": text}, {"a": 1.5, "b": text}):
            with pytest.raises(MalformedError):
                canonical_bytes(value)

    @pytest.mark.parametrize(
        "value",
        [
            b"bytes",
            {1: 2},
            {None: 1},
            {b"a": 1},
            {"a": {1}},
            object(),
            Decimal(1),
            1j,
            {"a": [Decimal("1.5")]},
            [b"x", 1.5],
            {"a": 1, 2: 3},
            {("a",): 1},
        ],
    )
    def test_what_json_does_not_have_is_refused(self, value) -> None:
        with pytest.raises(MalformedError):
            canonical_bytes(value)

    def test_a_value_that_holds_itself_is_refused(self) -> None:
        value: list[object] = []
        value.append(value)
        with pytest.raises(MalformedError):
            canonical_bytes(value)

    def test_excessive_depth_is_refused(self) -> None:
        value: object = "\xe4"
        for _ in range(100_000):
            value = [value]
        with pytest.raises(MalformedError):
            canonical_bytes(value)

    def test_subclasses_are_written_as_what_they_are(self) -> None:
        class Text(str):
            __slots__ = ()

        assert canonical_bytes({"a": Text("x"), "b": _Number.SEVEN}) == b'{"a":"x","b":7}'

    def test_tuples_are_arrays(self) -> None:
        assert canonical_bytes((1, (2.5, "a"), ())) == b'[1,[2.5,"a"],[]]'


class TestParseJSON:
    @pytest.mark.parametrize(
        ("data", "value"),
        [
            (b"null", None),
            (b" \t\r\n[1, 2]\n", [1, 2]),
            (b'{"a":{"b":[true,false]}}', {"a": {"b": [True, False]}}),
            (b'"\\u0041\\ud83d\\ude00"', "A\U0001f600"),
            (b'"\xf0\x9f\x98\x80"', "\U0001f600"),
            (b"-0", 0),
            (b"123456789012345678901234567890", 123456789012345678901234567890),
            (b"0.1", Decimal("0.1")),
            (b"1.10", Decimal("1.10")),
            (b"1E+2", Decimal("1E+2")),
            (b"0.1000000000000000055511151231257827", Decimal("0.1000000000000000055511151231257827")),
            (b"1e-400", Decimal("1e-400")),
            (b'"\xef\xbf\xbf"', "\uffff"),
        ],
    )
    @requirement("ijson-04")
    def test_values_arrive_and_numbers_exactly(self, data, value) -> None:
        parsed = parse_json(data)
        assert parsed == value
        assert type(parsed) is type(value)
        assert str(parsed) == str(value)

    @requirement("ijson-01", "ijson-05")
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b" ",
            b"\xef\xbb\xbf{}",
            b"\xff\xfe{\x00}\x00",
            b'"\xff"',
            b'"\xc0\x80"',
            b'"\xed\xa0\x80"',
            b"{} {}",
            b"{}x",
            b"[1,]",
            b'{"a":1,}',
            b"{a:1}",
            b"{'a':1}",
            b'{"a" 1}',
            b"[1 2]",
            b"// c\n1",
            b"/**/1",
            b"NaN",
            b"[Infinity]",
            b"-Infinity",
            b"+1",
            b"01",
            b"1.",
            b".5",
            b"1e",
            b"0x10",
            b"1_000",
            b"\xd9\xa1",
            b"True",
            b"nul",
            b'"a',
            b'"\\x41"',
            b'"\\u12"',
            b'"\\u00G0"',
            b'"\n"',
            b'"\x00"',
            b'"\x1f"',
            b"\x0b1",
            b"\xc2\xa01",
            b"[",
            b"]",
            b"\x00",
        ],
    )
    def test_what_is_no_json_is_malformed(self, data) -> None:
        with pytest.raises(MalformedError):
            parse_json(data)

    @requirement("ijson-02")
    @pytest.mark.parametrize(
        "data",
        [b'{"a":1,"a":1}', b'{"a":1,"\\u0061":2}', b'[{"b":{"":0,"":0}}]', b'{"/":1,"\\/":1}', b'{"a":1,"b":2,"a":3}'],
    )
    def test_a_name_that_stands_twice_is_malformed(self, data) -> None:
        with pytest.raises(MalformedError, match="twice"):
            parse_json(data)

    @requirement("ijson-03")
    @pytest.mark.parametrize(
        "data",
        [
            b'"\\ud800"',
            b'"\\udc00"',
            b'"\\ud83d\\u0041"',
            b'"\\ude00\\ud83d"',
            b'{"\\ud800":1}',
            b'[[{"a":["\\udfff"]}]]',
        ],
    )
    def test_a_lone_surrogate_is_malformed(self, data) -> None:
        with pytest.raises(MalformedError, match="surrogate"):
            parse_json(data)

    @requirement("ijson-04")
    @pytest.mark.parametrize(
        "data",
        [
            b"1e309",
            b"-1e309",
            b"1.7976931348623159e308",
            b"1" + b"0" * 309,
            b"-1" + b"0" * 309,
            b"1e999999999",
            b"1e99999999999999999999999",
            b"1e-99999999999999999999999",
            b"1" * 401,
            b"0." + b"1" * 400,
            b"1" * 100_000,
        ],
    )
    def test_a_number_that_no_double_holds_is_malformed(self, data) -> None:
        with pytest.raises(MalformedError):
            parse_json(data)

    @requirement("ijson-04")
    def test_the_largest_double_is_read(self) -> None:
        assert parse_json(b"1.7976931348623157e308") == Decimal("1.7976931348623157e308")
        assert parse_json(b"1" + b"0" * 308) == 10**308

    def test_the_verdict_does_not_depend_on_the_decimal_context(self) -> None:
        # A rounding comparison would take the largest double for 2e308 here.
        traps = [decimal.Inexact, decimal.Rounded, decimal.FloatOperation]
        with decimal.localcontext(decimal.Context(prec=1, Emax=5, Emin=-5, traps=traps)):
            assert parse_json(b"[1.7976931348623157e308]") == [Decimal("1.7976931348623157e308")]
            with pytest.raises(MalformedError):
                parse_json(b"1.7976931348623159e308")

    @requirement("ijson-06")
    @pytest.mark.parametrize(("before", "after"), [(b"[", b"]"), (b'{"a":', b"}")])
    def test_nesting_is_read_up_to_the_limit(self, before, after) -> None:
        inner = before[:1] + after
        deepest = before * (MAX_JSON_DEPTH - 1) + inner + after * (MAX_JSON_DEPTH - 1)
        parse_json(deepest)
        with pytest.raises(MalformedError, match="64 deep"):
            parse_json(before + deepest + after)
        parse_json(before * 2 + b"1" + after * 2, max_depth=2)
        with pytest.raises(MalformedError, match="2 deep"):
            parse_json(before * 3 + b"1" + after * 3, max_depth=2)

    @requirement("ijson-06")
    @pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"":'])
    def test_endless_nesting_is_malformed_and_does_not_exhaust_the_stack(self, opening) -> None:
        with pytest.raises(MalformedError):
            parse_json(opening * 200_000)

    def test_an_error_names_no_value(self) -> None:
        # Names of members may stand in an error; what they hold may not.
        for data in (b'{"password":"hunter2",}', b'["hunter2', b'"hunter2\xff"', b'{"a":"hunter2","a":"hunter2"}'):
            with pytest.raises(MalformedError) as caught:
                parse_json(data)
            assert "hunter2" not in str(caught.value)


class TestParseCanonical:
    @pytest.mark.parametrize(
        "data",
        [b"null", b"{}", b'{"a":1.5,"b":[1e-7,1e+21,"\xc3\xa4"]}', b"9007199254740992", b"-100000000000000000000"],
    )
    def test_canonical_bytes_are_read(self, data) -> None:
        assert parse_canonical(data) == parse_json(data)

    @requirement("jcs-02", "jcs-04", "jcs-08")
    @pytest.mark.parametrize(
        "data",
        [
            b"{} ",
            b" {}",
            b'{"b":1,"a":2}',
            b'{"a": 1}',
            b'"\\u0041"',
            b'"\\/"',
            b'"\\u000A"',
            b'"\\u000a"',
            b"1.0",
            b"1e0",
            b"1E+21",
            b"1e21",
            b"-0",
            b"-0.0",
            b"0.10",
            b"9007199254740993",
            b"0.1000000000000000055511151231257827",
            b"1000000000000000000000",
            b"1e-400",
            b"5e-325",
            b'{"\xef\xac\xb3":1,"\xf0\x9f\x98\x80":2}',
        ],
    )
    def test_any_other_spelling_is_malformed(self, data) -> None:
        parse_json(data)
        with pytest.raises(MalformedError, match="canonical form"):
            parse_canonical(data)

    def test_what_is_no_json_is_malformed(self) -> None:
        with pytest.raises(MalformedError):
            parse_canonical(b'{"a":1,"a":1}')


def test_sha256_is_sha256() -> None:
    assert sha256(b"abc") == hashlib.sha256(b"abc").digest()
