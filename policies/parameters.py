"""Named, typed, exact parameters out of a call's arguments.

Pure. A policy must not read a tool call's arguments as the client happened to spell them: ``1.00``, ``"1.00"``,
``1e0`` and ``{"item": {"price": 1.0}}`` are one price. A bundle therefore declares in a file that its manifest names
as ``parameters`` which values it needs, and where they may stand::

    {"parameters": [{"name": "price", "type": "decimal", "server": "retail", "tools": ["update_price"],
                     "paths": ["price", "item.price", "items[*].price"], "combine": "only", "required": false}]}

Parameters are read from ``tools/call`` messages alone. ``server`` and ``tools`` say whose calls; without them, every
call's. Paths are those of `policies.argument_paths`; a place that two of them lead to counts once. The types:

* ``long``: a whole number of 64 bits with sign.
* ``decimal``: a multiple of 0.0001 that, times 10,000, fits 64 bits with sign (Cedar's ``decimal``).
* ``string``: a JSON string. ``bool``: ``true`` or ``false``.
* ``path``: a JSON string that is a file path in plain spelling; its value is the set of the path itself and all folders
  above it (`policies.argument_files`). With ``"fold": true``, without regard to upper and lower case.

Numbers may be a JSON number in any encoding, or a JSON string that is itself the text of a JSON number. They are exact
or an error, never rounded. ``combine`` says what several values become: ``only`` (they must be equal), ``min``,
``max``, ``sum`` (numbers), ``count`` (how many there are, 0 included; type ``long``), or for paths ``all`` (what they
have in common: a folder that all of them lie in) and ``any`` (what any of them has: a folder that one of them lies in).

INVARIANT 7: numbers reach policies exactly, or the decision is a deny that names the reason. INVARIANT 6: an error
names the parameter, never the value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from ledger.body_fields import Name
from ledger.canonical import JSONValue, parse_json
from ledger.errors import MalformedError, PolicyError, PolicySyntaxError
from policies.argument_files import folded, lineage
from policies.argument_paths import compile_path, find
from policies.bundles import Bundle

__all__ = [
    "DECIMAL_PLACES",
    "MAX_PARAMETERS",
    "MAX_PATHS",
    "MAX_PATH_NAMES",
    "FixedDecimal",
    "Parameter",
    "ParameterError",
    "ParameterSet",
    "ParameterType",
    "ParameterValue",
    "parse_parameters",
    "read_arguments",
    "read_number",
    "read_parameters",
]

DECIMAL_PLACES: Final = 4
MAX_PARAMETERS: Final = 256
MAX_PATHS: Final = 32
MAX_PATH_NAMES: Final = 4096
"""Paths and folders above them that one parameter may hold."""

_METHOD: Final = "tools/call"
_ARGUMENTS: Final = "arguments"
_LONG_MIN: Final = -(2**63)
_LONG_MAX: Final = 2**63 - 1
_MAX_NUMBER_CHARS: Final = 400
_MAX_MAGNITUDE: Final = 20  # decimal exponent beyond which no 64-bit number lies; keeps powers of ten small
# JSON's own grammar (RFC 8259 section 6), so that no text is a number here that is none elsewhere.
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

ParameterType: TypeAlias = Literal["long", "decimal", "string", "bool", "path"]


@dataclass(frozen=True, slots=True, order=True)
class FixedDecimal:
    """A decimal number with exactly four places: Cedar's ``decimal``.

    Attributes:
        scaled: The number times 10,000, 64 bits with sign.
    """

    scaled: int

    def __str__(self) -> str:
        whole, part = divmod(abs(self.scaled), 10**DECIMAL_PLACES)
        sign = "-" if self.scaled < 0 else ""
        return f"{sign}{whole}.{part:0{DECIMAL_PLACES}d}"


ParameterValue: TypeAlias = int | FixedDecimal | str | bool | tuple[str, ...]
"""A value as a policy sees it; a tuple is a set of text, without repetition, and stands for paths."""


class ParameterError(PolicyError):
    """A parameter cannot be read from a call's arguments exactly.

    Attributes:
        reason: ``parameter_error`` or ``ambiguous_parameter``.
        parameter: Which one; ``arguments`` if they are no JSON object at all.
    """

    def __init__(self, reason: str, parameter: str) -> None:
        super().__init__(f"{reason}: {parameter}")
        self.reason = reason
        self.parameter = parameter


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One declaration; the module's text explains each member.

    Attributes:
        name: Under which the policy sees the value.
        type: Its type.
        paths: Where it may stand.
        server: Whose calls; None for every server's.
        tools: Which tools' calls; empty for every tool's.
        combine: What several values become.
        required: Whether a call without it is refused.
        fold: Whether a path is read without regard to upper and lower case.
    """

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}\Z")]
    type: ParameterType
    paths: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=MAX_PATHS)]
    server: Name | None = None
    tools: tuple[Name, ...] = ()
    combine: Literal["only", "min", "max", "sum", "count", "all", "any"] = "only"
    required: bool = False
    fold: bool = False

    def applies_to(self, server: str, tool: str) -> bool:
        """Tell whether the declaration is meant for calls of ``tool`` on ``server``."""
        return self.server in {None, server} and (not self.tools or tool in self.tools)

    def overlaps(self, other: Parameter) -> bool:
        """Tell whether some call could fall under both declarations."""
        servers = self.server is None or other.server is None or self.server == other.server
        return servers and (not self.tools or not other.tools or not set(self.tools).isdisjoint(other.tools))


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    parameters: Annotated[tuple[Parameter, ...], msgspec.Meta(max_length=MAX_PARAMETERS)]


def _exact_number(value: JSONValue) -> Decimal | None:
    """Return a JSON number, or a string that is the text of one, exactly; None for anything else."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, str) and len(value) <= _MAX_NUMBER_CHARS and _NUMBER.fullmatch(value):
        try:
            return Decimal(value)
        except InvalidOperation:  # an exponent that even `decimal` has no room for
            return None
    return None


def _scaled(number: Decimal, places: int) -> int | None:
    """Return ``number`` times ten to the power of ``places`` if that is a whole number of 64 bits; else None.

    The arithmetic is on integers: a `decimal` operation would round to the context's precision.
    """
    if not number:
        return 0
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or not -places <= number.adjusted() <= _MAX_MAGNITUDE:
        return None
    coefficient = int("".join(map(str, digits)))
    shift = exponent + places
    if shift >= 0:
        scaled, remainder = coefficient * 10**shift, 0
    else:
        scaled, remainder = divmod(coefficient, 10**-shift)
    scaled = -scaled if sign else scaled
    return scaled if not remainder and _LONG_MIN <= scaled <= _LONG_MAX else None


def read_number(value: JSONValue, places: int) -> int | None:
    """Return a JSON number, or the text of one, times ten to the power of ``places``; None if not of 64 bits."""
    number = _exact_number(value)
    return None if number is None else _scaled(number, places)


def _typed(parameter: Parameter, value: JSONValue) -> ParameterValue:
    """Return one value in the declared type.

    Raises:
        ParameterError: It has none.
    """
    found: ParameterValue | None = None
    match parameter.type:
        case "string" if isinstance(value, str):
            found = value
        case "bool" if isinstance(value, bool):
            found = value
        case "path" if isinstance(value, str):
            # Read before it is folded: folding could make a plain path of one that is none.
            found = lineage(value) and lineage(folded(value) if parameter.fold else value)
        case "long":
            found = read_number(value, 0)
        case "decimal":
            number = read_number(value, DECIMAL_PLACES)
            found = None if number is None else FixedDecimal(number)
    if found is None:
        raise ParameterError("parameter_error", parameter.name)
    return found


def _sum(parameter: Parameter, values: Sequence[ParameterValue]) -> ParameterValue:
    numbers = [value for value in values if isinstance(value, FixedDecimal | int)]  # all are (checked at load)
    total = sum(value.scaled if isinstance(value, FixedDecimal) else value for value in numbers)
    if not _LONG_MIN <= total <= _LONG_MAX:
        raise ParameterError("parameter_error", parameter.name)
    return FixedDecimal(total) if parameter.type == "decimal" else total


def _together(parameter: Parameter, paths: Sequence[ParameterValue]) -> ParameterValue:
    """Return what is among all paths, or among any of them, each once and in order of appearance."""
    first, *others = (path for path in paths if isinstance(path, tuple))  # all are
    if parameter.combine == "all":
        common = set(first).intersection(*others)
        return tuple(name for name in first if name in common)
    names = dict.fromkeys(first)
    for path in others:
        names.update(dict.fromkeys(path))
    if len(names) > MAX_PATH_NAMES:
        raise ParameterError("parameter_error", parameter.name)
    return tuple(names)


def _combine(parameter: Parameter, found: Sequence[JSONValue]) -> ParameterValue | None:
    """Return what the values found make together; None if there is none.

    Raises:
        ParameterError: A value is not of the declared type, or two differ where they must not.
    """
    if parameter.combine == "count":
        return len(found)
    if not found:
        return None
    values = [_typed(parameter, value) for value in found]
    match parameter.combine:
        case "min" | "max":  # one type throughout, and a number (checked at load)
            return min(values) if parameter.combine == "min" else max(values)
        case "sum":
            return _sum(parameter, values)
        case "all" | "any":
            return _together(parameter, values)
        case _:
            if any(value != values[0] for value in values):
                raise ParameterError("ambiguous_parameter", parameter.name)
            return values[0]


class ParameterSet:
    """The declarations of one bundle, ready to be applied."""

    def __init__(self, parameters: Sequence[Parameter] = ()) -> None:
        """Compile the declarations.

        Raises:
            PolicySyntaxError: A path that is none, a combination that its type does not allow, one name with two types,
                or two declarations of one name that a single call could fall under.
        """
        self._compiled = [(item, tuple(map(compile_path, item.paths))) for item in parameters]
        types: dict[str, ParameterType] = {}
        for index, item in enumerate(parameters):
            _check_combination(item)
            if types.setdefault(item.name, item.type) != item.type:
                raise PolicySyntaxError(f"the parameter {item.name} is declared with two types")
            if any(item.name == other.name and item.overlaps(other) for other in parameters[:index]):
                raise PolicySyntaxError(f"the parameter {item.name} is declared twice for one call")
        self._types = types

    @property
    def declarations(self) -> tuple[Parameter, ...]:
        """The declarations, in order."""
        return tuple(item for item, _ in self._compiled)

    @property
    def types(self) -> Mapping[str, ParameterType]:
        """Type of each parameter, by name."""
        return self._types

    def extract(self, method: str, server: str, tool: str | None, arguments: str) -> dict[str, ParameterValue]:
        """Return the parameters of one call, by name; one that is not there is left out.

        Args:
            method: MCP method of the message.
            server: The server that is called.
            tool: The tool that is called.
            arguments: JSON text of the arguments as received.

        Raises:
            ParameterError: The arguments are no JSON object, a value is not exactly of its type, two values differ
                where one is meant, or a required one is missing.
        """
        return self.read(method, server, tool, read_arguments(arguments))

    def read(self, method: str, server: str, tool: str | None, root: dict[str, JSONValue]) -> dict[str, ParameterValue]:
        """Return the parameters of one call whose arguments have been read already; else as `extract`.

        Args:
            method: MCP method of the message.
            server: The server that is called.
            tool: The tool that is called.
            root: What `read_arguments` returned.

        Raises:
            ParameterError: As `extract`.
        """
        values: dict[str, ParameterValue] = {}
        if method != _METHOD or tool is None:
            return values
        for parameter, paths in self._compiled:
            if parameter.applies_to(server, tool):
                value = _combine(parameter, find(root, paths))
                if value is not None:
                    values[parameter.name] = value
                elif parameter.required:
                    raise ParameterError("parameter_error", parameter.name)
        return values


def read_arguments(arguments: str) -> dict[str, JSONValue]:
    """Return the arguments of a call with their numbers exact.

    Args:
        arguments: JSON text as received.

    Raises:
        ParameterError: Not a strict JSON object.
    """
    try:
        root = parse_json(arguments.encode())
    except (MalformedError, UnicodeEncodeError) as error:
        raise ParameterError("parameter_error", _ARGUMENTS) from error
    if not isinstance(root, dict):
        raise ParameterError("parameter_error", _ARGUMENTS)
    return root


def _check_combination(parameter: Parameter) -> None:
    numeric = parameter.type in {"long", "decimal"}
    if parameter.combine == "count" and parameter.type != "long":
        raise PolicySyntaxError(f"the parameter {parameter.name} counts, so its type is long")
    if parameter.combine in {"min", "max", "sum"} and not numeric:
        raise PolicySyntaxError(f"the parameter {parameter.name} is no number, so it has no {parameter.combine}")
    if parameter.type != "path" and (parameter.fold or parameter.combine in {"all", "any"}):
        raise PolicySyntaxError(f"the parameter {parameter.name} is no path, so it has neither fold nor all nor any")


def parse_parameters(data: bytes) -> ParameterSet:
    """Read the declarations of a bundle.

    Raises:
        PolicySyntaxError: Not JSON, an unknown member, or declarations that contradict each other.
    """
    try:
        document = msgspec.convert(parse_json(data), _Document)
    except (MalformedError, msgspec.ValidationError) as error:
        raise PolicySyntaxError(f"not parameter declarations: {error}") from error
    return ParameterSet(document.parameters)


def read_parameters(bundle: Bundle) -> ParameterSet:
    """Return a bundle's declarations of parameters; none if it has no such file.

    Raises:
        PolicySyntaxError: They are not sound.
    """
    path = bundle.manifest.parameters
    if path is None:
        return ParameterSet()
    try:
        return parse_parameters(bundle.files[path])
    except PolicySyntaxError as error:
        raise PolicySyntaxError(f"{path}: {error}") from error
