"""What is known of a server's operations once its description has been read, whatever form that had.

Pure. Each reader (`openapi`, `postman`, `mcp_tools`) makes a `Description`; `bundle` makes the files of a bundle of it.
Nothing is left out silently: what a reader could not use stands in the description's notes, with place and reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from ledger.canonical import JSONValue

__all__ = [
    "MAX_NOTES",
    "MAX_OPERATIONS",
    "Access",
    "Description",
    "JSONObject",
    "Note",
    "Notes",
    "Operation",
    "Severity",
    "is_number",
    "members",
    "objects",
    "text_of",
]

MAX_OPERATIONS: Final = 5_000
"""Operations that are taken from one description."""

MAX_NOTES: Final = 1_000
"""Notes that are kept; the others are counted."""

_MAX_PLACE_CHARS: Final = 200

JSONObject: TypeAlias = dict[str, JSONValue]
Access: TypeAlias = Literal["read", "write"]
Severity: TypeAlias = Literal["skipped", "unchecked", "assumed"]
"""``skipped``: left out of the bundle. ``unchecked``: a part that is not enforced. ``assumed``: a guess to look at."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a reader has to say.

    Attributes:
        severity: What it means for the bundle.
        place: Where in the description.
        reason: What, in a few words.
    """

    severity: Severity
    place: str
    reason: str


class Notes:
    """Notes, as they are made; each once, and no more than `MAX_NOTES`."""

    def __init__(self) -> None:
        """Begin without any."""
        self._notes: dict[Note, None] = {}
        self.left_out = 0

    def add(self, severity: Severity, place: str, reason: str) -> None:
        """Add a note."""
        note = Note(severity, place[:_MAX_PLACE_CHARS], reason)
        if note in self._notes:
            return
        if len(self._notes) >= MAX_NOTES:
            self.left_out += 1
        else:
            self._notes[note] = None

    def skipped(self, place: str, reason: str) -> None:
        """Say that something is not in the bundle."""
        self.add("skipped", place, reason)

    def unchecked(self, place: str, reason: str) -> None:
        """Say that something is not enforced."""
        self.add("unchecked", place, reason)

    def assumed(self, place: str, reason: str) -> None:
        """Say what was guessed."""
        self.add("assumed", place, reason)

    def __iter__(self) -> Iterator[Note]:
        """Return the notes in the order in which they were made."""
        return iter(self._notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of a server.

    Attributes:
        tool: Name of the tool, as a client calls it.
        label: Its name in the source, such as ``POST /refunds``.
        access: Whether it changes anything.
        tags: What it is about, sorted; its access among them.
        schema: JSON Schema of its arguments, in `policies.boundary_schemas`' part of 2020-12, with examples.
        examples: Arguments that the description itself gives.
    """

    tool: str
    label: str
    access: Access
    tags: tuple[str, ...]
    schema: JSONObject
    examples: tuple[JSONObject, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a server says of itself.

    Attributes:
        kind: Form of the document, such as ``openapi-3.1``.
        title: What it calls itself.
        operations: Its operations, in the order of the document; no two of one tool name.
        definitions: Schemas that those of operations refer to.
        notes: What was left out, is not checked, or was guessed.
    """

    kind: str
    title: str
    operations: tuple[Operation, ...]
    definitions: Mapping[str, JSONValue]
    notes: Notes = field(default_factory=Notes)


def members(value: object) -> JSONObject:
    """Return an object's members; none of anything that is no object."""
    return value if isinstance(value, dict) else {}


def objects(value: object) -> Sequence[JSONObject]:
    """Return the objects in a list; none of anything that is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text_of(value: object) -> str:
    """Return a text; an empty one for anything that is none."""
    return value if isinstance(value, str) else ""


def is_number(value: object) -> bool:
    """Tell whether a value is a JSON number."""
    return isinstance(value, int | Decimal) and not isinstance(value, bool)
