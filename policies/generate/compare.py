"""What a newer description changes: operations added, removed, or no longer the same.

Pure. This is drift of the server itself. Compared are two files of boundaries, the definitions that a schema refers to
counted as part of it. For a change it is said what of the arguments changed, as far down as one name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ledger.canonical import JSONValue
from policies.boundaries import BoundaryDocument, ToolBoundary
from policies.boundary_schemas import REFERENCE
from policies.generate.encoding import json_bytes
from policies.generate.model import JSONObject, members

__all__ = ["Comparison", "compare"]

_MAX_HOPS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two descriptions of one server.

    Attributes:
        added: Tools that only the newer one has, sorted.
        removed: Tools that only the older one has, sorted.
        changed: What changed, by tool; one line each.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[str, ...]]

    @property
    def same(self) -> bool:
        """Whether nothing changed."""
        return not (self.added or self.removed or self.changed)

    def json(self) -> JSONObject:
        """Return the comparison for programs."""
        return {
            "added": [*self.added],
            "removed": [*self.removed],
            "changed": {tool: [*lines] for tool, lines in self.changed.items()},
        }


def _reachable(schema: Any, definitions: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401  # a schema
    found: dict[str, Any] = {}
    stack = [schema]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            name = str(node.get("$ref", "")).removeprefix(REFERENCE)
            if name in definitions and name not in found:
                found[name] = definitions[name]
                stack.append(definitions[name])
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return found


def _whole(schema: JSONValue, definitions: Mapping[str, Any]) -> bytes:
    """Return the bytes by which schemas are compared: with all that they refer to."""
    return json_bytes([schema, _reachable(schema, definitions)])


def _properties(schema: JSONValue, definitions: Mapping[str, Any]) -> JSONObject:
    for _ in range(_MAX_HOPS):
        node = members(schema)
        if "properties" in node or "$ref" not in node:
            return members(node.get("properties"))
        schema = definitions.get(str(node["$ref"]).removeprefix(REFERENCE))
    return {}


class _Pair:
    def __init__(self, older: BoundaryDocument, newer: BoundaryDocument) -> None:
        self._older = older.definitions
        self._newer = newer.definitions

    def changes(self, older: ToolBoundary, newer: ToolBoundary) -> tuple[str, ...]:
        lines = []
        if older.access != newer.access:
            lines.append(f"access: {older.access} → {newer.access}")
        if older.tags != newer.tags:
            lines.append(f"tags: {', '.join(older.tags)} → {', '.join(newer.tags)}")
        if older.operation != newer.operation:
            lines.append("operation: another one of the source")
        if _whole(older.arguments, self._older) != _whole(newer.arguments, self._newer):
            lines += self._arguments(older.arguments, newer.arguments)
        return tuple(lines)

    def _arguments(self, older: JSONValue, newer: JSONValue) -> list[str]:
        before, after = _properties(older, self._older), _properties(newer, self._newer)
        lines = [f"argument {name}: added" for name in sorted(after.keys() - before.keys())]
        lines += [f"argument {name}: removed" for name in sorted(before.keys() - after.keys())]
        lines += [
            f"argument {name}: changed"
            for name in sorted(before.keys() & after.keys())
            if _whole(before[name], self._older) != _whole(after[name], self._newer)
        ]
        needed, asked = _required(older), _required(newer)
        lines += [f"argument {name}: now required" for name in sorted(asked - needed)]
        lines += [f"argument {name}: no longer required" for name in sorted(needed - asked)]
        return lines or ["arguments: changed"]


def _required(schema: JSONValue) -> set[str]:
    names = members(schema).get("required")
    return {str(name) for name in names} if isinstance(names, list) else set()


def compare(older: BoundaryDocument, newer: BoundaryDocument, server: str) -> Comparison:
    """Return what ``newer`` changes of ``server``; a server that one of them lacks has no tools there."""
    before = older.servers[server].tools if server in older.servers else {}
    after = newer.servers[server].tools if server in newer.servers else {}
    pair = _Pair(older, newer)
    both = {tool: pair.changes(before[tool], after[tool]) for tool in sorted(before.keys() & after.keys())}
    return Comparison(
        added=tuple(sorted(after.keys() - before.keys())),
        removed=tuple(sorted(before.keys() - after.keys())),
        changed={tool: lines for tool, lines in both.items() if lines},
    )
