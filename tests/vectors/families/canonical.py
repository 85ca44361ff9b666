"""RFC 8785: pairs of JSON and its canonical bytes, written by hand; spellings and texts that must be refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from tests.vectors.vector import Vector, accepted, blob, rejected

_PAIRS = {
    "empty-object": (b" { } ", b"{}"),
    "empty-array": (b"[\n]", b"[]"),
    "literals": (b"[ null , true , false ]", b"[null,true,false]"),
    "nested": (
        b'{"b": [3, {"y": {}, "x": []}], "a": {"d": null, "c": [[], {}]}}',
        b'{"a":{"c":[[],{}],"d":null},"b":[3,{"x":[],"y":{}}]}',
    ),
    "names-by-utf-16": (
        '{"\ufb33":1,"\U0001f512":2,"\u20ac":3,"\\r":4,"1":5,"\\u0080":6,"\xf6":7,"":8}'.encode(),
        '{"":8,"\\r":4,"1":5,"\x80":6,"\xf6":7,"\u20ac":3,"\U0001f512":2,"\ufb33":1}'.encode(),
    ),
    "names-by-length": (b'{"aa":1,"a":2,"b":3,"aaa":4}', b'{"a":2,"aa":1,"aaa":4,"b":3}'),
    "short-escapes": (b'"\\u0008\\u0009\\u000a\\u000c\\u000d\\u0022\\u005c"', b'"\\b\\t\\n\\f\\r\\"\\\\"'),
    "long-escapes": (b'"\\u0000\\u001F\\u000B\\u001b"', b'"\\u0000\\u001f\\u000b\\u001b"'),
    "needless-escapes": (b'"\\u0041\\/\\u007f\\u00e9\\u2028"', '"A/\x7f\xe9\u2028"'.encode()),
    "surrogate-pair": (b'"\\ud83d\\udd12"', '"\U0001f512"'.encode()),
    "no-normalisation": ('["\xe9","e\u0301"]'.encode(), '["\xe9","e\u0301"]'.encode()),
    "integers": (b"[0,-0,1,-1,9007199254740991,-9007199254740991]", b"[0,0,1,-1,9007199254740991,-9007199254740991]"),
    "fractions": (b"[0.0,-0.0,1.0,4.50,2e-3,0.1e1]", b"[0,0,1,4.5,0.002,1]"),
    "exponents": (
        b"[1e20,1E+21,1.5e300,1e-6,1e-7,123456789012345680000.0]",
        b"[100000000000000000000,1e+21,1.5e+300,0.000001,1e-7,123456789012345680000]",
    ),
    "extreme-doubles": (
        b"[5e-324,-5e-324,2.2250738585072014e-308,1.7976931348623157e308]",
        b"[5e-324,-5e-324,2.2250738585072014e-308,1.7976931348623157e+308]",
    ),
    "shortest-doubles": (
        b"[0.30000000000000004,333333333.33333329,1e23,9.999999999999997e22,4.35,0.000001]",
        b"[0.30000000000000004,333333333.3333333,1e+23,9.999999999999997e+22,4.35,0.000001]",
    ),
}

_OTHER_SPELLINGS = {
    "unsorted": ("Members stand in another order.", b'{"b":1,"a":2}'),
    "sorted-by-code-point": ("Members are sorted by code point.", '{"\ufb33":1,"\U0001f512":2}'.encode()),
    "space": ("A space stands behind the colon.", b'{"a": 1}'),
    "line-feed-behind": ("A line feed follows.", b"{}\n"),
    "needless-escape": ("A letter is escaped.", b'"\\u0041"'),
    "escaped-solidus": ("The solidus is escaped.", b'"\\/"'),
    "upper-case-escape": ("An escape has upper-case digits.", b'"\\u001F"'),
    "long-for-short-escape": ("A line feed is escaped the long way.", b'"\\u000a"'),
    "trailing-zero": ("A fraction ends in zero.", b"1.50"),
    "integer-as-fraction": ("An integer has a fraction.", b"1.0"),
    "integer-as-exponent": ("An integer has an exponent.", b"1e2"),
    "exponent-without-sign": ("A positive exponent lacks its sign.", b"1e21"),
    "exponent-upper-case": ("The exponent's letter is upper case.", b"1E+21"),
    "minus-zero": ("Zero has a sign.", b"-0"),
    "too-many-digits": ("A number has more digits than its double needs.", b"0.1000000000000000055511151231257827"),
    "integer-beyond-2-53": ("An integer is not a double's value.", b"9007199254740993"),
    "underflow": ("A number is not zero but its double is.", b"1e-400"),
}

_NOT_JSON = {
    "empty": ("Nothing.", b""),
    "byte-order-mark": ("A byte order mark stands before.", b"\xef\xbb\xbf{}"),
    "utf-16": ("Text in UTF-16.", "{}".encode("utf-16")),
    "not-utf-8": ("A byte that is not UTF-8.", b'"\xff"'),
    "overlong-utf-8": ("A slash in an overlong form.", b'"\xc0\xaf"'),
    "surrogate-in-utf-8": ("A surrogate in UTF-8.", b'"\xed\xa0\x80"'),
    "lone-high-surrogate": ("A high surrogate alone.", b'"\\ud800"'),
    "lone-low-surrogate": ("A low surrogate alone.", b'["\\udc00"]'),
    "surrogates-in-wrong-order": ("A pair in the wrong order.", b'"\\udd12\\ud83d"'),
    "surrogate-in-a-name": ("A lone surrogate in a name.", b'{"\\udbff":1}'),
    "name-twice": ("A name stands twice.", b'{"a":1,"b":2,"a":1}'),
    "name-twice-by-escape": ("A name stands twice, once escaped.", b'{"a":1,"\\u0061":1}'),
    "name-twice-below": ("A name stands twice in an inner object.", b'[{"a":{"":1,"":2}}]'),
    "not-a-number": ("NaN.", b"[NaN]"),
    "infinity": ("Infinity.", b"Infinity"),
    "minus-infinity": ("Minus infinity.", b"-Infinity"),
    "beyond-double": ("A number beyond the largest double.", b"1e309"),
    "integer-beyond-double": ("An integer beyond the largest double.", b"1" + b"0" * 309),
    "endless-digits": ("A number of a thousand digits.", b"0." + b"1" * 1000),
    "huge-exponent": ("An exponent that no decimal type holds.", b"1e99999999999999999999"),
    "leading-zero": ("A leading zero.", b"01"),
    "leading-plus": ("A leading plus.", b"+1"),
    "bare-point": ("A point without a digit behind.", b"1."),
    "hexadecimal": ("A hexadecimal number.", b"0x10"),
    "foreign-digits": ("Digits of another script.", "\u0661".encode()),
    "trailing-comma": ("A trailing comma.", b"[1,]"),
    "comment": ("A comment.", b"[1]//"),
    "single-quotes": ("Single quotes.", b"{'a':1}"),
    "bare-name": ("A name without quotes.", b"{a:1}"),
    "bare-control": ("A line feed within a string.", b'"a\nb"'),
    "unknown-escape": ("An escape that JSON lacks.", b'"\\x41"'),
    "foreign-space": ("A no-break space between tokens.", b"[1,\xc2\xa02]"),
    "two-values": ("Two values.", b"{}{}"),
    "cut-short": ("An object cut short.", b'{"a":[1'),
    "nested-65-deep": ("Arrays nested 65 deep.", b"[" * 65 + b"]" * 65),
    "nested-without-end": ("Ten thousand openings.", b"[" * 10_000),
}


def vectors() -> Iterator[Vector]:
    for case, (text, canonical) in _PAIRS.items():
        yield accepted(
            f"canonical/{case}/valid",
            "The JSON has these canonical bytes.",
            {"operation": "write", "json": blob(text)},
            {"canonical": blob(canonical), "sha256": hashlib.sha256(canonical).hexdigest()},
        )
        if text != canonical:
            yield rejected(
                f"canonical/{case}/not-canonical",
                "The JSON is read, but not as canonical.",
                "MalformedError",
                {"operation": "read-canonical", "json": blob(text)},
            )
    for mutation, (about, text) in _OTHER_SPELLINGS.items():
        given = {"operation": "read-canonical", "json": blob(text)}
        yield rejected(f"canonical/other-spellings/{mutation}", about, "MalformedError", given)
    for mutation, (about, text) in _NOT_JSON.items():
        yield rejected(
            f"canonical/not-json/{mutation}", about, "MalformedError", {"operation": "read", "json": blob(text)}
        )
