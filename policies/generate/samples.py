"""Arguments to test with: what a description gives, the least that it takes, and what lies just outside.

Pure. Whether a sample is really inside or outside is for the compiled boundaries to say; here they are only proposed,
in a fixed order, so that the same description makes the same tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from ledger.canonical import JSONValue
from policies.boundary_schemas import REFERENCE
from policies.generate.model import JSONObject, Operation, is_number, members

__all__ = ["inside", "outside"]

_MAX_DEPTH: Final = 8
_MAX_ITEMS: Final = 5
_MAX_CHARS: Final = 2_000
_HUGE: Final = 2**31 - 1
_UNKNOWN: Final = "not_in_the_description"
_BY_FORMAT: Final[Mapping[str, str]] = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T10:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "json-pointer": "/a",
    "regex": "a",
    "relative-json-pointer": "0",
    "time": "10:00:00Z",
    "uri": "https://example.com/",
    "uri-reference": "/a",
    "uuid": "123e4567-e89b-42d3-a456-426614174000",
}
_OTHERS: Final[Mapping[str, JSONValue]] = {
    "array": "text", "boolean": "text", "integer": "text", "number": "text", "object": "text", "string": 7,
}  # fmt: skip


def inside(operation: Operation, definitions: Mapping[str, JSONValue]) -> Iterator[tuple[str, JSONObject]]:
    """Propose arguments that should be inside, each with words on where they are from.

    Args:
        operation: The operation; its schema still has its examples.
        definitions: What its schema refers to.
    """
    least = members(_sample(operation.schema, definitions, 0))
    for number, example in enumerate(operation.examples, 1):
        needed = {name: value for name, value in least.items() if name not in example}
        yield (f"example {number} of its description", {**needed, **example})
    told = _shown(operation.schema, definitions)
    if told:
        yield "with the examples of its description", {**least, **told}
    yield "with the least that it takes", least


def _shown(schema: JSONObject, definitions: Mapping[str, JSONValue]) -> JSONObject:
    """Return the members that have examples of their own."""
    found: JSONObject = {}
    for name, inner in members(schema.get("properties")).items():
        node = inner
        for _ in range(_MAX_DEPTH):
            examples = members(node).get("examples")
            if isinstance(examples, list) and examples:
                found[name] = examples[0]
                break
            node = definitions.get(str(members(node).get("$ref")).removeprefix(REFERENCE))
    return found


def _sample(schema: JSONValue, definitions: Mapping[str, JSONValue], depth: int) -> JSONValue:
    """Return a value that a schema may well take."""
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        return {} if depth == 0 else None
    if depth and (given := _given(schema)):
        return given[0]
    inner = _first_part(schema, definitions)
    if inner is not None:
        return _sample(inner, definitions, depth + 1)
    parts = schema.get("allOf")
    if isinstance(parts, list):
        return _together([_sample(part, definitions, depth + 1) for part in [*parts, _without(schema, "allOf")]])
    return _of_type(schema, definitions, depth)


def _given(schema: JSONObject) -> list[JSONValue]:
    """Return the values that a schema names itself."""
    for word in ("examples", "enum"):
        values = schema.get(word)
        if isinstance(values, list) and values:
            return values
    return [schema["const"]] if "const" in schema else []


def _first_part(schema: JSONObject, definitions: Mapping[str, JSONValue]) -> JSONValue:
    """Return the schema that stands for another: what it refers to, or the first of its alternatives."""
    if isinstance(schema.get("$ref"), str):
        return definitions.get(str(schema["$ref"]).removeprefix(REFERENCE))
    for word in ("oneOf", "anyOf"):
        options = schema.get(word)
        if isinstance(options, list) and options and "properties" not in schema:
            return options[0]
    return None


def _without(schema: JSONObject, word: str) -> JSONObject:
    return {name: value for name, value in schema.items() if name != word}


def _together(samples: list[JSONValue]) -> JSONValue:
    whole: JSONObject = {}
    for sample in samples:
        if isinstance(sample, dict):
            whole.update(sample)
    return whole if whole or not samples else samples[0]


def _of_type(schema: JSONObject, definitions: Mapping[str, JSONValue], depth: int) -> JSONValue:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((item for item in kind if item != "null"), "null")
    match kind:
        case "object":
            required = schema.get("required")
            properties = members(schema.get("properties"))
            names = [str(name) for name in required] if isinstance(required, list) else []
            return {name: _sample(properties.get(name, {}), definitions, depth + 1) for name in names}
        case "array":
            least = schema.get("minItems")
            count = min(least, _MAX_ITEMS) if isinstance(least, int) else 0
            return [_sample(schema.get("items", {}), definitions, depth + 1)] * count
        case "boolean":
            return True
        case "integer" | "number":
            return _number(schema, whole=kind == "integer")
        case "null":
            return None
        case _:
            return _text(schema)


def _number(schema: JSONObject, *, whole: bool) -> JSONValue:
    step = schema.get("multipleOf")
    for word, add in (("minimum", 0), ("exclusiveMinimum", 1), ("maximum", 0), ("exclusiveMaximum", -1)):
        limit = schema.get(word)
        if isinstance(limit, int | Decimal):
            # An example far down is no good example; zero or one stand for most ranges that start below.
            if word == "minimum" and limit < 0:
                return 0 if not is_number(step) else step
            return (int(limit) if whole else limit) + add
    return step if is_number(step) else 1


def _text(schema: JSONObject) -> JSONValue:
    text = _BY_FORMAT.get(str(schema.get("format")), "text")
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(least, int) and len(text) < least <= _MAX_CHARS:
        text = text.ljust(least, "x")
    return text[:most] if isinstance(most, int) else text


def outside(
    schema: JSONObject, arguments: JSONObject, definitions: Mapping[str, JSONValue]
) -> Iterator[tuple[str, JSONObject]]:
    """Propose arguments that should be outside, each one change away from arguments that are inside.

    Args:
        schema: The operation's schema.
        arguments: Arguments that are inside.
        definitions: What the schema refers to.
    """
    properties = {
        name: _followed(inner, definitions) for name, inner in sorted(members(schema.get("properties")).items())
    }
    required = schema.get("required")
    missing = [
        (f"without {name}", {key: value for key, value in arguments.items() if key != name})
        for name in (sorted(str(name) for name in required) if isinstance(required, list) else [])
    ]
    mistyped = [
        (f"another type of {name}", {**arguments, name: _OTHERS[kind]})
        for name, inner in properties.items()
        if isinstance(kind := inner.get("type"), str) and kind in _OTHERS
    ]
    beyond = [
        (f"{name} {told}", {**arguments, name: value})
        for name, inner in properties.items()
        for told, value in _beyond(inner)
    ]
    yield "an unknown argument", {**arguments, _UNKNOWN: True}
    # One of each sort first, so that whoever takes only a few sees all sorts.
    groups = (missing, mistyped, beyond)
    yield from (group[0] for group in groups if group)
    yield from (proposal for group in reversed(groups) for proposal in group[1:])


def _followed(schema: JSONValue, definitions: Mapping[str, JSONValue]) -> JSONObject:
    for _ in range(_MAX_DEPTH):
        reference = members(schema).get("$ref")
        if not isinstance(reference, str):
            break
        schema = definitions.get(reference.removeprefix(REFERENCE))
    return members(schema)


def _beyond(schema: JSONObject) -> Iterator[tuple[str, JSONValue]]:
    for word, told, add in (("maximum", "above its maximum", 1), ("minimum", "below its minimum", -1)):
        limit = schema.get(word)
        # The limits of 64 bits say how numbers are held, not what they mean.
        if isinstance(limit, int | Decimal) and not isinstance(limit, bool) and -_HUGE < limit < _HUGE:
            yield told, limit + add
    if "enum" in schema and schema.get("type") == "string":
        yield "that is none of those listed", _UNKNOWN
    most = schema.get("maxLength")
    if isinstance(most, int) and most < _MAX_CHARS:
        yield "longer than allowed", "x" * (most + 1)
    if "format" in schema and schema.get("type") == "string":
        yield "of another form", "?"
