"""Objects that say what they hold are closed, so that what they do not hold shows as drift.

Pure. JSON Schema lets an object hold anything that no word forbids, and OpenAPI follows it. A boundary asks the other
question: what did the description speak of? An object that names members is closed, unless the description itself says
that it is open (``additionalProperties``) or that it may as well be any object. It is closed where it is used and not
where it is defined, for a definition may be one part of several (``allOf``); ``unevaluatedProperties`` sees them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ledger.canonical import JSONValue
from policies.boundary_schemas import REFERENCE
from policies.generate.model import JSONObject, members

__all__ = ["closed", "inner_schemas"]

_MAX_SCHEMAS: Final = 2_000
# Schemas within a keyword: one, a list of them or an object of them; of the same value, or of a member or element.
_SAME_ONE: Final = frozenset({"else", "if", "not", "then"})
_SAME_LIST: Final = frozenset({"allOf", "anyOf", "oneOf"})
_SAME_NAMED: Final = frozenset({"dependentSchemas"})
_INNER_ONE: Final = frozenset(
    {"additionalProperties", "contains", "items", "unevaluatedItems", "unevaluatedProperties"}
)
_INNER_LIST: Final = frozenset({"prefixItems"})
_INNER_NAMED: Final = frozenset({"patternProperties", "properties"})
_ONE: Final = _SAME_ONE | _INNER_ONE
_LISTS: Final = _SAME_LIST | _INNER_LIST
_NAMED: Final = _SAME_NAMED | _INNER_NAMED
_SAME: Final = _SAME_ONE | _SAME_LIST | _SAME_NAMED
_OPENNESS: Final = frozenset({"additionalProperties", "unevaluatedProperties"})


def inner_schemas(schema: Mapping[str, JSONValue]) -> Iterator[tuple[str, JSONValue]]:
    """Return the schemas right within a converted schema, each with the keyword that it stands under."""
    for word, value in schema.items():
        if word in _ONE:
            yield word, value
        elif word in _LISTS and isinstance(value, list):
            yield from ((word, inner) for inner in value)
        elif word in _NAMED:
            yield from ((word, inner) for inner in members(value).values())


def closed(schema: JSONValue, definitions: Mapping[str, JSONValue], *, whole: bool = True) -> JSONValue:
    """Return a converted schema with its objects closed and its examples left out.

    Args:
        schema: The schema.
        definitions: What its references lead to.
        whole: Whether the schema is all that is said of its value; false for a definition and for a part of a schema.
    """
    if not isinstance(schema, dict):
        return schema
    found: JSONObject = {
        word: _within(word, value, definitions) for word, value in schema.items() if word != "examples"
    }
    if whole and _says_what_it_holds(schema, definitions):
        composed = not (_SAME | {"$ref"}).isdisjoint(schema)
        found["unevaluatedProperties" if composed else "additionalProperties"] = False
    return found


def _within(word: str, value: JSONValue, definitions: Mapping[str, JSONValue]) -> JSONValue:
    whole = word not in _SAME
    if word in _ONE:
        return closed(value, definitions, whole=whole)
    if word in _NAMED:
        return {name: closed(inner, definitions, whole=whole) for name, inner in members(value).items()}
    if word in _LISTS and isinstance(value, list):
        return [closed(inner, definitions, whole=whole) for inner in value]
    return value


def _says_what_it_holds(schema: JSONObject, definitions: Mapping[str, JSONValue]) -> bool:
    """Tell whether a schema names members, and nothing in it says or could mean that there may be any others."""
    stack: list[JSONValue] = [schema]
    seen: set[str] = set()
    named = False
    for _ in range(_MAX_SCHEMAS):
        if not stack:
            return named
        node = stack.pop()
        if not isinstance(node, dict) or not _OPENNESS.isdisjoint(node):
            return False
        own = not _INNER_NAMED.isdisjoint(node)
        parts = [inner for word, inner in inner_schemas(node) if word in _SAME and word != "not"]
        reference = node.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            seen.add(reference)
            parts.append(definitions.get(reference.removeprefix(REFERENCE), True))
        if not own and not parts and reference is None and _is_any_object(node):
            return False
        named = named or own
        stack += parts
    return False


def _is_any_object(schema: JSONObject) -> bool:
    """Tell whether a schema without members, parts and references stands for objects of any kind."""
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or schema.keys() <= {"examples"}
