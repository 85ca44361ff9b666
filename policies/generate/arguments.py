"""The arguments of one operation, gathered from where its description has them into one object.

Pure. A body that is a plain object lends its members; any other is the argument ``body``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from ledger.canonical import JSONValue
from policies.boundary_schemas import REFERENCE
from policies.generate.closing import inner_schemas
from policies.generate.model import JSONObject, members, text_of
from policies.generate.schemas import MAX_HOPS, Converter

__all__ = ["Arguments"]

_MAX_EXAMPLES: Final = 3
_MAX_SCHEMAS: Final = 500
_MAX_REFERENCES: Final = 2
_PLAIN: Final = frozenset({"$ref", "allOf", "examples", "properties", "required", "type"})
_BODY: Final = "body"


class Arguments:
    """Gathers the arguments of one operation."""

    def __init__(self, converter: Converter) -> None:
        """Begin without any; schemas are converted by ``converter``."""
        self._converter = converter
        self._properties: dict[str, JSONValue] = {}
        self._required: set[str] = set()
        self._places: dict[str, str] = {}
        self._examples: list[JSONObject] = []
        self._whole: JSONObject | None = None

    def add(self, name: str, kind: str, schema: JSONValue, *, required: bool, place: str) -> None:
        """Add an argument.

        Args:
            name: Its name; if another of that name is there, ``kind`` is appended.
            kind: Where the description has it: ``path``, ``query``, …
            schema: Its schema, as the description has it.
            required: Whether it must be there.
            place: Where it stands, for notes.
        """
        if name in self._properties:
            name = f"{name}__{kind}"
        self._properties[name] = self._converter.schema(schema, place)
        self._places[name] = kind
        if required:
            self._required.add(name)

    def add_body(self, schema: JSONValue, *, required: bool, place: str, examples: Sequence[JSONValue] = ()) -> None:
        """Add a body: the members of a plain object each, or anything else as the argument ``body``.

        Args:
            schema: Its schema, as the description has it.
            required: Whether it must be there.
            place: Where it stands, for notes.
            examples: Whole bodies.
        """
        converted = self._converter.schema(schema, place)
        bodies = [*examples, *self._own_examples(converted)][:_MAX_EXAMPLES]
        plain = _plain_object(converted, self._converter.definitions)
        if plain is None:
            self._examples += [{_BODY: body} for body in bodies]
            name = _BODY if _BODY not in self._properties else "request_body"
            self._properties[name] = converted
            self._required |= {name} if required else set()
            return
        self._examples += [body for body in bodies if isinstance(body, dict)]
        properties, needed = plain
        for name, inner in properties.items():
            if name in self._properties:
                self._rename(name)
            self._properties[name] = inner
        self._required |= needed if required else set()

    def _own_examples(self, schema: JSONValue) -> list[JSONValue]:
        """Return the examples of a schema or, over references, of its definition."""
        for _ in range(MAX_HOPS):
            own = members(schema).get("examples")
            if isinstance(own, list):
                return own
            schema = self._converter.definitions.get(text_of(members(schema).get("$ref")).removeprefix(REFERENCE))
        return []

    def _rename(self, name: str) -> None:
        other = f"{name}__{self._places.get(name, 'parameter')}"
        self._properties[other] = self._properties.pop(name)
        if name in self._required:
            self._required = (self._required - {name}) | {other}

    def take_whole(self, schema: JSONValue, place: str) -> None:
        """Take a schema of all arguments at once, as MCP has it."""
        converted = self._converter.schema(schema, place)
        self._whole = converted if isinstance(converted, dict) else {}
        self._examples += [example for example in self._own_examples(self._whole) if isinstance(example, dict)]

    def schema(self) -> JSONObject:
        """Return the schema of all arguments; its inner schemas are closed by `closed`."""
        if self._whole is not None:
            return self._whole
        found: JSONObject = {"type": "object", "properties": dict(sorted(self._properties.items()))}
        if self._required:
            found["required"] = [*sorted(self._required)]
        return found

    def examples(self) -> tuple[JSONObject, ...]:
        """Return whole arguments as the description gives them."""
        return tuple(self._examples[:_MAX_EXAMPLES])

    def _schemas(self) -> Iterator[JSONObject]:
        """Return the schemas of the arguments, and those that they refer to as far as they speak of this operation."""
        level: list[JSONValue] = [self.schema()]
        for _ in range(_MAX_REFERENCES + 1):
            references: dict[str, None] = {}
            left = _MAX_SCHEMAS
            while level and left:
                left -= 1
                node = members(level.pop())
                yield node
                level.extend(inner for _, inner in inner_schemas(node))
                if isinstance(node.get("$ref"), str):
                    references[str(node["$ref"])] = None
            level = [self._converter.definitions.get(name.removeprefix(REFERENCE)) for name in references]

    def names(self) -> list[str]:
        """Return the names of all members, nested ones included."""
        return [name for schema in self._schemas() for name in members(schema.get("properties"))]

    def formats(self) -> list[str]:
        """Return the formats of all members."""
        return [text for schema in self._schemas() if isinstance(text := schema.get("format"), str)]


def _plain_object(
    schema: JSONValue, definitions: Mapping[str, JSONValue]
) -> tuple[dict[str, JSONValue], set[str]] | None:
    """Return members and required members of a plain object, over references and ``allOf``; None for anything else."""
    properties: dict[str, JSONValue] = {}
    required: set[str] = set()
    stack = [schema]
    for _ in range(MAX_HOPS):
        if not stack:
            return (properties, required) if properties else None
        node = stack.pop()
        if not isinstance(node, dict) or node.get("type", "object") != "object":
            return None
        # A body that its description closes is closed all the same; any other limit of the whole would be lost.
        others = node.keys() - _PLAIN
        if others - {"additionalProperties"} or (others and node["additionalProperties"] is not False):
            return None
        if properties.keys() & members(node.get("properties")).keys():
            return None
        properties.update(members(node.get("properties")))
        needed = node.get("required")
        required |= {str(name) for name in needed} if isinstance(needed, list) else set()
        parts = node.get("allOf")
        stack += parts if isinstance(parts, list) else []
        if isinstance(node.get("$ref"), str):
            stack.append(definitions.get(str(node["$ref"]).removeprefix(REFERENCE), False))
    return None
