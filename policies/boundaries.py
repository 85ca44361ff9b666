"""Boundaries: what a server's own description says of its tools' arguments, and what of a call lies outside it.

Pure. A bundle may name a file ``boundaries``, usually made by ``tallystick policy generate`` from an OpenAPI document,
a Postman collection or an MCP tool list::

    {"format": "tallystick.boundaries/1",
     "servers": {"shop": {
       "source": {"kind": "openapi-3.1", "title": "Shop", "digest": "<SHA-256 of the document>"},
       "tools": {"refund": {
         "access": "write", "tags": ["finance", "write"], "operation": "POST /refunds",
         "arguments": {"type": "object", "properties": {"amount": {"type": "number", "maximum": 500}},
                       "required": ["amount"], "additionalProperties": false}}}}},
     "definitions": {"<name>": {…}}}

``arguments`` is a JSON Schema of the part of 2020-12 that `policies.boundary_schemas` allows; ``$ref`` leads to
``#/$defs/<name>``, which is ``definitions``.

`boundary_facts` is a function of bundle and request. Policies see its answer (``context.boundary`` in Cedar,
``input.boundary`` in Rego), and the decision carries it: whether drift denies is the policy's word. A *drift code* is a
kind, with the place after a colon where there is one: ``unknown_argument``, ``range:amount``, ``type:order.lines``.

========================= ==============================================================================================
``unknown_tool``          the server is described and the tool is not
``unknown_argument``      a member that the description does not have
``missing_argument:…``    a member that must be there and is not
``type:…``                another JSON type
``enum:…``                none of the values listed
``range:…``               below, above or between the numbers allowed
``length:…``              text, list or object too short or too long, or a list with one item twice
``pattern:…``             text of another form (``pattern``)
``format:…``              text of another form (``format``)
``variant:…``             not what exactly, at least, or none of some alternatives say
``inexact_number``        a number that one reader takes for another: beyond 64 bits, or more digits than a double holds
``malformed_arguments``   no strict JSON object
``too_deep``              nested deeper than this schema is checked
``unchecked``             the validator gave up
``more``                  further codes were left out
========================= ==============================================================================================

INVARIANT 6: a place is made of names that the description declares, taken from the schema and never from the call: a
client's own member names may be personal, and so are only known as ``unknown_argument``. INVARIANT 7: numbers are
compared exactly, as `int` and `decimal.Decimal`. INVARIANT 8: no clock, file, network or process state is consulted;
references are never fetched, and patterns are matched in linear time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Annotated, Any, Final, Literal

import jsonschema_rs
import msgspec

from ledger.body_fields import Hex32, Name, Names
from ledger.canonical import JSONValue, parse_json
from ledger.errors import MalformedError, PolicySyntaxError
from policies.boundary_schemas import CheckedSchemas
from policies.bundles import Bundle
from policies.model import DecisionRequest

__all__ = [
    "BOUNDARIES_FORMAT",
    "MAX_CODES",
    "MAX_TOOLS",
    "Boundaries",
    "BoundaryDocument",
    "BoundaryFacts",
    "ServerBoundary",
    "Source",
    "ToolBoundary",
    "boundary_facts",
    "parse_boundaries",
    "read_boundaries",
]

BOUNDARIES_FORMAT: Final = "tallystick.boundaries/1"

MAX_TOOLS: Final = 5_000
"""Tools of one file."""

MAX_CODES: Final = 16
"""Drift codes of one decision."""

_METHOD: Final = "tools/call"
_MAX_ERRORS: Final = 256
_PATTERN_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_MAX_PLACE_CHARS: Final = 100
_MORE: Final = "more"

# Keywords after which a path through a schema names a member, an index, or nothing before the next schema.
_NAMED: Final = frozenset({"$defs", "dependentSchemas", "patternProperties", "properties"})
_INDEXED: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})

_KINDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("additionalProperties", "unevaluatedProperties", "propertyNames", "falseSchema"), "unknown_argument"
    ),
    **dict.fromkeys(("required", "dependentRequired"), "missing_argument"),
    "type": "type",
    **dict.fromkeys(("enum", "const"), "enum"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), "range"),
    **dict.fromkeys(
        (
            *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "uniqueItems"),
            *("additionalItems", "unevaluatedItems"),
        ),
        "length",
    ),
    "pattern": "pattern",
    "format": "format",
    **dict.fromkeys(("anyOf", "oneOf", "not", "contains", "minContains", "maxContains"), "variant"),
}


@dataclass(frozen=True, slots=True)
class BoundaryFacts:
    """What a boundary says of one request.

    Attributes:
        known: The tool is described.
        drift: Codes of what lies outside the description, sorted; at most `MAX_CODES`.
    """

    known: bool = False
    drift: tuple[str, ...] = ()


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Common rules: immutable, keyword only, unknown members refused, defaults left out."""


class Source(_Struct, frozen=True):
    """Where a server's description came from.

    Attributes:
        kind: Form of the document, such as ``openapi-3.1``, ``postman-2.1`` or ``mcp``.
        digest: SHA-256 over the document's bytes, in hexadecimal.
        title: What it calls itself.
    """

    kind: Name
    digest: Hex32
    title: Annotated[str, msgspec.Meta(max_length=200)] = ""


class ToolBoundary(_Struct, frozen=True):
    """What is known of one tool.

    Attributes:
        access: Whether it changes anything.
        arguments: JSON Schema of its arguments.
        tags: What it is about, sorted.
        operation: Its name in the source, such as ``POST /refunds``.
    """

    access: Literal["read", "write"]
    arguments: Any
    tags: Names = ()
    operation: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class ServerBoundary(_Struct, frozen=True):
    """What is known of one server.

    Attributes:
        tools: Its tools, by name.
        source: Where the description came from.
    """

    tools: dict[str, ToolBoundary]
    source: Source | None = None


class BoundaryDocument(_Struct, frozen=True):
    """The file; the module's text shows one.

    Attributes:
        format: ``tallystick.boundaries/1``.
        servers: What is known of each server, by name.
        definitions: Schemas that others refer to, by name.
    """

    format: Literal["tallystick.boundaries/1"]
    servers: dict[Name, ServerBoundary]
    definitions: dict[str, Any] = {}


class Boundaries:
    """The boundaries of one bundle, compiled; safe for any thread."""

    def __init__(self, document: BoundaryDocument) -> None:
        """Compile a document.

        Raises:
            PolicySyntaxError: A schema is none, or one that `policies.boundary_schemas` refuses.
        """
        self.document = document
        # A slash would let one server's tool pass for another's: "a/b" + "c" and "a" + "b/c".
        if any("/" in server for server in document.servers):
            raise PolicySyntaxError("a server with a slash in its name")
        schemas = {
            f"{server}/{tool}": boundary.arguments
            for server, described in document.servers.items()
            for tool, boundary in described.tools.items()
        }
        if len(schemas) > MAX_TOOLS:
            raise PolicySyntaxError(f"at most {MAX_TOOLS} tools, not {len(schemas)}")
        self._checked = CheckedSchemas(document.definitions, schemas)
        # One validator for all tools, to which a call is the one member of an object: definitions that tools share are
        # compiled once.
        self._validator = _compile(schemas, document.definitions)

    def facts(self, server: str, tool: str, arguments: str) -> BoundaryFacts:
        """Return what lies outside the description in a call of ``tool``.

        Args:
            server: The server that is called; one that is not described has no drift.
            tool: The tool that is called.
            arguments: JSON text of the arguments as received.
        """
        described = self.document.servers.get(server)
        if described is None:
            return BoundaryFacts()
        if tool not in described.tools:
            return BoundaryFacts(drift=("unknown_tool",))
        try:
            root = parse_json(arguments.encode())
        except (MalformedError, UnicodeEncodeError):
            return BoundaryFacts(known=True, drift=("malformed_arguments",))
        if not isinstance(root, dict):
            return BoundaryFacts(known=True, drift=("malformed_arguments",))
        return BoundaryFacts(known=True, drift=self._drift(f"{server}/{tool}", root))

    def _drift(self, name: str, root: JSONValue) -> tuple[str, ...]:
        codes: set[str] = set()
        depth, exact = _survey(root)
        if not exact:
            codes.add("inexact_number")
        call = {name: root}
        if depth > self._checked.max_depth(name):
            codes.add("too_deep")
        elif not self._validator.is_valid(call):
            codes.update(_codes(self._validator.iter_errors(call)))
        found = sorted(codes)
        return tuple(found) if len(found) <= MAX_CODES else tuple(sorted([_MORE, *found[: MAX_CODES - 1]]))


def _compile(
    schemas: Mapping[str, JSONValue], definitions: Mapping[str, JSONValue]
) -> jsonschema_rs.Draft202012Validator:
    whole: dict[str, Any] = {"properties": schemas, "$defs": definitions}
    try:
        return jsonschema_rs.Draft202012Validator(
            whole,
            offline=True,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES),
        )
    except ValueError as error:
        told = error.message if isinstance(error, jsonschema_rs.ValidationError) else str(error)
        path = [str(part) for part in getattr(error, "instance_path", [])]
        place = "/".join(path[1:] if path[:1] == ["properties"] else path)
        raise PolicySyntaxError(f"{place[:200]}: {told[:300]}") from error


def _survey(root: JSONValue) -> tuple[int, bool]:
    """Return how deep a value is nested, a scalar being 0, and whether all its numbers are the same to every reader."""
    stack: list[tuple[JSONValue, int]] = [(root, 0)]
    deepest, exact = 0, True
    while stack:
        value, depth = stack.pop()
        deepest = max(deepest, depth)
        if isinstance(value, dict):
            stack.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list):
            stack.extend((item, depth + 1) for item in value)
        elif isinstance(value, int | Decimal) and not isinstance(value, bool):
            exact = exact and _unmistakable(value)
    return deepest, exact


def _unmistakable(number: int | Decimal) -> bool:
    """Tell whether readers with 64-bit integers and readers with doubles see one number.

    A decimal fraction counts as one if the double next to it is written with the same digits.
    """
    if isinstance(number, int):
        return -(2**63) <= number < 2**64 or int(float(number)) == number
    double = float(number)
    return math.isfinite(double) and Decimal(repr(double)) == number


def _codes(errors: Iterator[jsonschema_rs.ValidationError]) -> Iterator[str]:
    for error in islice(errors, _MAX_ERRORS):
        kind = error.kind
        path = error.evaluation_path[2:]  # without the member of the whole that the tool is
        code = _KINDS.get(kind.name, "unchecked")
        names = _known_names(path)
        if isinstance(kind, jsonschema_rs.ValidationErrorKind.Required):
            names += [kind.property] if _NAME.fullmatch(kind.property) else []
        place = ".".join(names)[:_MAX_PLACE_CHARS].rstrip(".")
        yield f"{code}:{place}" if place else code


def _known_names(path: Sequence[str | int]) -> list[str]:
    """Return the member names that a path through a schema goes by, as far as they are plain ones."""
    names: list[str] = []
    parts = iter(path)
    for part in parts:
        if part in _NAMED:
            name = next(parts, "")
            if part == "properties" and isinstance(name, str):
                if not _NAME.fullmatch(name):
                    break
                names.append(name)
        elif part in _INDEXED:
            next(parts, None)
    return names


def boundary_facts(boundaries: Boundaries | None, request: DecisionRequest) -> BoundaryFacts:
    """Return what a bundle's boundaries say of a request; nothing is known without any, or of anything but a call."""
    name = request.resource.name
    if boundaries is None or request.action != _METHOD or name is None:
        return BoundaryFacts()
    return boundaries.facts(request.resource.server, name, request.arguments)


def parse_boundaries(data: bytes) -> Boundaries:
    """Read and compile the boundaries of a bundle.

    Raises:
        PolicySyntaxError: Not JSON, an unknown member, or schemas that cannot be used.
    """
    try:
        document = msgspec.convert(parse_json(data), BoundaryDocument)
    except (MalformedError, msgspec.ValidationError) as error:
        raise PolicySyntaxError(f"not boundaries: {error}") from error
    return Boundaries(document)


def read_boundaries(bundle: Bundle) -> Boundaries | None:
    """Return the compiled boundaries of a bundle, or None if it has none.

    Raises:
        PolicySyntaxError: As `parse_boundaries`; the message names the file.
    """
    path = bundle.manifest.boundaries
    if path is None:
        return None
    try:
        return parse_boundaries(bundle.files[path])
    except PolicySyntaxError as error:
        raise PolicySyntaxError(f"{path}: {error}") from error
