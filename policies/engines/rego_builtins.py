"""The built-in functions of Rego: which a policy may call, which are bound to what a request says, which are refused.

A decision depends on bundle and request alone, so a function that asks the clock, the network, the process or chance is
refused when a bundle is loaded, with file, line and column, or answers from the request:

========================== =========================================================================================
``time.now_ns``            ``input.time.now_ms``, in nanoseconds
``numbers.range``,         at most `MAX_RANGE` numbers, or the evaluation fails: regorus would fill the memory with
``numbers.range_step``     whatever range a call's arguments ask for
``to_number``,             the number exactly, or the evaluation fails; a key twice, ``NaN`` or ``1e400`` fail as well
``json.unmarshal``
========================== =========================================================================================

All others that may be called are functions of their arguments. Functions that OPA has and regorus has not are refused
as well, for regorus finds out only when it comes to call them.

Source: the capabilities of OPA 1.22; what regorus 0.13 says of itself (``opa.runtime``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from types import MappingProxyType
from typing import Final

from ledger.canonical import JSONValue, parse_json
from ledger.errors import PolicyError
from policies.engines.rego_requests import RegoValue, exact_document, exact_number

__all__ = ["ARITIES", "BOUND", "MAX_RANGE", "MAX_WIDTH", "REFUSED", "RecordedTime", "bound_functions", "refusal"]

MAX_RANGE: Final = 10_000
"""Numbers that one range may hold."""

MAX_WIDTH: Final = 1000
"""Widest field of a format."""

_BY_ARGUMENTS: Final[Mapping[int, str]] = {
    0: "time.now_ns",
    1: "abs array.reverse base64.decode base64.encode base64.is_valid base64url.decode base64url.encode "
    "base64url.encode_no_pad bits.negate ceil count floor glob.quote_meta hex.decode hex.encode intersection is_array "
    "is_boolean is_null is_number is_object is_set is_string json.is_valid json.marshal json.unmarshal lower max min "
    "net.cidr_is_valid object.keys object.union_n product regex.is_valid round semver.is_valid sort strings.reverse "
    "sum time.clock time.date time.format time.parse_duration_ns time.parse_rfc3339_ns time.weekday to_number "
    "trim_space type_name union units.parse units.parse_bytes upper urlquery.decode urlquery.decode_object "
    "urlquery.encode urlquery.encode_object uuid.parse walk",
    2: "array.concat bits.and bits.lsh bits.or bits.rsh bits.xor concat contains endswith format_int graph.reachable "
    "graph.reachable_paths indexof indexof_n json.filter json.marshal_with_options json.patch json.remove "
    "net.cidr_contains numbers.range object.filter object.remove object.subset object.union regex.match regex.split "
    "semver.compare split sprintf startswith strings.any_prefix_match strings.any_suffix_match strings.count "
    "strings.replace_n time.diff time.parse_ns trim trim_left trim_prefix trim_right trim_suffix",
    3: "array.slice glob.match numbers.range_step object.get regex.find_all_string_submatch_n regex.find_n "
    "regex.replace replace substring",
    4: "regex.template_match time.add_date",
}

ARITIES: Final[Mapping[str, int]] = MappingProxyType(
    {name: count for count, names in _BY_ARGUMENTS.items() for name in names.split()}
)
"""Every function that may be called, and how many arguments it takes."""

BOUND: Final = frozenset({"time.now_ns", "numbers.range", "numbers.range_step", "to_number", "json.unmarshal"})
"""Those of them that are ours."""

REFUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "http.send": "it asks the network",
        "net.lookup_ip_addr": "it asks the network",
        "json.match_schema": "it may ask the network; the bundle's boundaries check arguments",
        "json.verify_schema": "it may ask the network; the bundle's boundaries check arguments",
        "opa.runtime": "it asks the process",
        "rand.intn": "it asks chance",
        "uuid.rfc4122": "it asks chance",
        "io.jwt.decode_verify": "it asks the clock",
        "providers.aws.sign_req": "it signs requests to the network",
        "print": "it writes what it sees to the log",
        "trace": "it writes what it sees to the log",
        "net.cidr_expand": "it may not end; ask net.cidr_contains",
        "yaml.unmarshal": "YAML has no exact numbers",
        "yaml.is_valid": "YAML has no exact numbers",
        "yaml.marshal": "YAML has no exact numbers",
    }
)
"""Functions that regorus or OPA would run and we do not, with the reason."""

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WIDTHS: Final = re.compile(r"%[^A-Za-z%]*?([0-9]+|\*)")
_MAX_NUMBER_CHARS: Final = 400
_LOCAL_ZONE: Final = "Local"
_MAX_WIDTH_DIGITS: Final = 4


class _RefusedCallError(PolicyError):
    """A bound function was called with what it does not take; regorus makes an evaluation error of it."""


class RecordedTime:
    """What ``time.now_ns`` answers; set before each evaluation.

    Attributes:
        now_ns: POSIX nanoseconds of the request that is evaluated.
    """

    __slots__ = ("now_ns",)

    def __init__(self) -> None:
        self.now_ns = 0

    def read(self) -> int:
        """Return the time of the request."""
        return self.now_ns


def _whole(value: object) -> int:
    if type(value) is not int:
        raise _RefusedCallError("a range is between whole numbers")
    return value


def _stepped(first: int, last: int, step: int) -> list[int]:
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    if len(numbers) > MAX_RANGE:
        raise _RefusedCallError(f"a range holds at most {MAX_RANGE} numbers")
    return list(numbers)


def _range(first: object, last: object) -> list[int]:
    return _stepped(_whole(first), _whole(last), 1)


def _range_step(first: object, last: object, step: object) -> list[int]:
    if _whole(step) <= 0:
        raise _RefusedCallError("the step of a range is positive")
    return _stepped(_whole(first), _whole(last), _whole(step))


def _to_number(value: object) -> int | float:
    if value is None:
        return 0
    if isinstance(value, int | float):
        return int(value) if isinstance(value, bool) else value
    if isinstance(value, str) and len(value) <= _MAX_NUMBER_CHARS and _NUMBER.fullmatch(value):
        try:
            return exact_number(Decimal(value))
        except InvalidOperation as error:
            raise _RefusedCallError("not a number") from error
    raise _RefusedCallError("not a number")


def _unmarshal(text: object) -> RegoValue:
    if not isinstance(text, str):
        raise _RefusedCallError("not JSON text")
    value: JSONValue = parse_json(text.encode())
    return exact_document(value)


def bound_functions(time: RecordedTime) -> list[tuple[str, int, Callable[..., object]]]:
    """Return the functions that are ours, as regorus registers them: name, number of arguments, function."""
    functions: dict[str, Callable[..., object]] = {
        "time.now_ns": time.read,
        "numbers.range": _range,
        "numbers.range_step": _range_step,
        "to_number": _to_number,
        "json.unmarshal": _unmarshal,
    }
    return [(name, ARITIES[name], function) for name, function in functions.items()]


def refusal(name: str, arguments: int, literals: tuple[str | None, ...], zones: tuple[str, ...]) -> str | None:
    """Return what is against calling a built-in function, or None.

    Args:
        name: As it is called, such as ``time.now_ns``.
        arguments: How many it is given; one more than it takes is where its value goes.
        literals: Each argument that is a text written out, None for others.
        zones: Texts written out in lists among its arguments.
    """
    if name in REFUSED:
        return f"{name} is not allowed: {REFUSED[name]}"
    if name not in ARITIES:
        return f"no function named {name}"
    if arguments not in {ARITIES[name], ARITIES[name] + 1}:
        return f"{name} takes {ARITIES[name]} arguments"
    if name == "sprintf":
        return _format_refusal(literals[0])
    if name.startswith("time.") and _LOCAL_ZONE in zones:
        return 'the zone "Local" is that of a machine; name one, or take input.time.zone'
    return None


def _format_refusal(written: str | None) -> str | None:
    if written is None:
        return "the format of sprintf is a text that is written out"
    for width in _WIDTHS.findall(written):
        if not width.isdigit() or len(width) > _MAX_WIDTH_DIGITS or int(width) > MAX_WIDTH:
            return f"a format with a field wider than {MAX_WIDTH}"
    return None
