"""From a description to a file of boundaries that loads.

Pure. What of a description cannot be enforced is left out operation by operation, each with a note: schemas that lead
back to themselves, that would take too long to check, or that no longer fit into a bundle's file.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final

from ledger.canonical import JSONValue
from ledger.errors import PolicySyntaxError
from policies.boundaries import BOUNDARIES_FORMAT, Boundaries, parse_boundaries
from policies.boundary_schemas import REFERENCE
from policies.bundles import MAX_FILE_BYTES
from policies.generate.closing import closed
from policies.generate.encoding import json_bytes
from policies.generate.model import Description, JSONObject, Operation

__all__ = ["BoundaryFile", "make_boundary"]

_MAX_BYTES: Final = MAX_FILE_BYTES - (64 << 10)
_INDENT_BELOW: Final = 200 << 10
_MAX_ATTEMPTS: Final = 200
_MAX_REASON_CHARS: Final = 300


class BoundaryFile:
    """The boundaries of a description.

    Attributes:
        operations: The operations that are in it.
        value: The file's value.
        data: The file.
        compiled: The file, compiled.
    """

    def __init__(
        self, server: str, source: JSONObject, description: Description, operations: Sequence[Operation]
    ) -> None:
        """Make the file of some operations.

        Raises:
            PolicySyntaxError: It would not load.
        """
        schemas = {operation.tool: closed(operation.schema, description.definitions) for operation in operations}
        names = _Uses(description.definitions).reachable(schemas.values())
        self.operations = tuple(operations)
        self.value: JSONObject = {
            "format": BOUNDARIES_FORMAT,
            "servers": {
                server: {
                    "source": source,
                    "tools": {operation.tool: _tool(operation, schemas[operation.tool]) for operation in operations},
                }
            },
        }
        if names:
            self.value["definitions"] = {
                name: closed(description.definitions[name], description.definitions, whole=False)
                for name in sorted(names)
            }
        self.data = json_bytes(self.value)
        self.compiled: Boundaries = parse_boundaries(self.data)
        # For people, as long as a bundle has room for it.
        if len(self.data) < _INDENT_BELOW:
            self.data = json_bytes(self.value, indent=1)


def _tool(operation: Operation, schema: JSONValue) -> JSONObject:
    return {
        "access": operation.access,
        "arguments": schema,
        "operation": operation.label,
        "tags": [*operation.tags],
    }


def _references(schema: JSONValue) -> set[str]:
    """Return the names of the definitions that a schema refers to itself."""
    found: set[str] = set()
    stack = [schema]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            reference = node.get("$ref")
            if isinstance(reference, str) and reference.startswith(REFERENCE):
                found.add(reference.removeprefix(REFERENCE))
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return found


class _Uses:
    """Which definitions lead to which others, looked up once."""

    def __init__(self, definitions: Mapping[str, JSONValue]) -> None:
        self._definitions = definitions
        self._known: dict[str, set[str]] = {}

    def reachable(self, schemas: Iterable[JSONValue], beside: Container[str] = ()) -> set[str]:
        """Return the names of all definitions that schemas lead to, but for those ``beside`` and what these lead to."""
        found: set[str] = set()
        waiting = [name for schema in schemas for name in _references(schema)]
        while waiting:
            name = waiting.pop()
            if name in found or name in beside or name not in self._definitions:
                continue
            found.add(name)
            if name not in self._known:
                self._known[name] = _references(self._definitions[name])
            waiting.extend(self._known[name])
        return found


def _fitting(description: Description) -> list[Operation]:
    """Return the operations, in order, that fit into a file of a bundle together."""
    taken: list[Operation] = []
    names: set[str] = set()
    uses = _Uses(description.definitions)
    size = 0
    for operation in description.operations:
        more = uses.reachable([operation.schema], names)
        added = len(json_bytes(operation.schema)) + len(operation.label) + 200
        added += sum(len(json_bytes(description.definitions[name])) for name in more)
        if size + added > _MAX_BYTES:
            description.notes.skipped(operation.label, "no room in a file of a bundle; choose operations with --only")
            continue
        size += added
        names |= more
        taken.append(operation)
    return taken


def make_boundary(description: Description, *, server: str, digest: str) -> BoundaryFile:
    """Return the boundaries of a description; what does not load is left out, with a note.

    Args:
        description: The description; notes are added to it.
        server: Name of the server, as the gateway knows it.
        digest: SHA-256 of the document, in hexadecimal.

    Raises:
        PolicySyntaxError: Nothing is left.
    """
    source: JSONObject = {"digest": digest, "kind": description.kind, "title": description.title}
    attempts = 0

    def sound(operations: Sequence[Operation]) -> list[Operation]:
        """Return those of the operations that load, halving what does not until the culprits stand alone."""
        nonlocal attempts
        attempts += 1
        if not operations:
            return []
        try:
            BoundaryFile(server, source, description, operations)
        except PolicySyntaxError as error:
            if len(operations) == 1 or attempts > _MAX_ATTEMPTS:
                for operation in operations:
                    description.notes.skipped(operation.label, str(error)[:_MAX_REASON_CHARS])
                return []
            half = len(operations) // 2
            return [*sound(operations[:half]), *sound(operations[half:])]
        return list(operations)

    left = sound(_fitting(description))
    if not left:
        raise PolicySyntaxError("the description has no operation that a boundary could be made of")
    return BoundaryFile(server, source, description, left)
