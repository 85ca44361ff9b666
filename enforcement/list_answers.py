"""A server's list of tools, prompts or resources: its entries, and the same list with fewer of them.

Pure. Which entries a caller may see is decided in `enforcement.listings`. What stays in a list stays byte for byte: an
entry is a slice of the server's text, and so is every other member of the result.

A list that is made for one caller is not for all: its ``cacheScope`` becomes ``private``, and its ``ttlMs`` no longer
than `MAX_TTL_MS`, because what a policy says changes without the server's knowing.

Source: Model Context Protocol, revision 2026-07-28, "Pagination" and "Caching"; revision 2025-11-25 has the same lists.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from enforcement.json_slices import array_items, object_members
from enforcement.mcp import refuse_lookalikes
from ledger.errors import MalformedError

__all__ = ["LISTS", "MAX_ENTRIES", "MAX_TTL_MS", "Entry", "ListAnswer", "ListKind", "read_list", "without"]

MAX_ENTRIES: Final = 5000
"""Most entries of one answer, which is one page of a list."""

MAX_TTL_MS: Final = 60_000
"""For how long a client may keep a list that was made for it, milliseconds."""

_MAX_NAME_CHARS: Final = 2048
_CACHE_SCOPE: Final = "cacheScope"
_TTL: Final = "ttlMs"


@dataclass(frozen=True, slots=True)
class ListKind:
    """What a method lists.

    Attributes:
        member: Member of the result that holds the entries.
        key: Member of an entry that names it.
        method: By which method an entry is called.
        template: Its name stands for many.
    """

    member: str
    key: str
    method: str
    template: bool = False


LISTS: Final[Mapping[str, ListKind]] = {
    "tools/list": ListKind("tools", "name", "tools/call"),
    "prompts/list": ListKind("prompts", "name", "prompts/get"),
    "resources/list": ListKind("resources", "uri", "resources/read"),
    "resources/templates/list": ListKind("resourceTemplates", "uriTemplate", "resources/read", template=True),
}
"""Method → what it lists."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a list.

    Attributes:
        name: Its name; None if it has none that could be called.
        text: The entry, as it stands in the answer.
    """

    name: str | None
    text: str


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """An answer that holds a list.

    Attributes:
        kind: Of what.
        envelope: Members of the JSON-RPC response, as text.
        result: Members of its result, as text.
        entries: The entries, in order.
    """

    kind: ListKind
    envelope: Mapping[str, str]
    result: Mapping[str, str]
    entries: tuple[Entry, ...]


def read_list(kind: ListKind, body: bytes) -> ListAnswer:
    """Read an answer.

    Args:
        kind: What it lists.
        body: A JSON-RPC response with a result, UTF-8.

    Raises:
        MalformedError: The result is no object with one list, a reader without regard to letter case could find
            another list in it, or it has more than `MAX_ENTRIES` entries.
    """
    envelope = object_members(body.decode())
    result = object_members(envelope["result"])
    refuse_lookalikes(result, {kind.member, _CACHE_SCOPE, _TTL})
    items = array_items(result[kind.member]) if kind.member in result else []
    if len(items) > MAX_ENTRIES:
        raise MalformedError(f"a list has more than {MAX_ENTRIES} entries")
    return ListAnswer(kind, envelope, result, tuple(Entry(_name(kind, item), item) for item in items))


def without(answer: ListAnswer, hidden: Collection[int]) -> bytes:
    """Return an answer for one caller alone.

    Args:
        answer: The server's.
        hidden: Places of the entries that are left out.
    """
    result = dict(answer.result)
    if answer.kind.member in result:
        kept = (entry.text for place, entry in enumerate(answer.entries) if place not in hidden)
        result[answer.kind.member] = f"[{','.join(kept)}]"
    if _CACHE_SCOPE in result:
        result[_CACHE_SCOPE] = '"private"'
    if _TTL in result:
        result[_TTL] = _shortened(result[_TTL])
    return _object({**answer.envelope, "result": _object(result).decode()})


def _shortened(text: str) -> str:
    """Return how long an answer may be kept; nothing that is no such number is changed."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return str(MAX_TTL_MS) if isinstance(value, int | float) and not value <= MAX_TTL_MS else text


def _object(members: Mapping[str, str]) -> bytes:
    return b"{%s}" % b",".join(f"{json.dumps(name)}:{text}".encode() for name, text in members.items())


def _name(kind: ListKind, entry: str) -> str | None:
    try:
        members = object_members(entry)
        refuse_lookalikes(members, {kind.key})
        name = json.loads(members[kind.key])
        name.encode()
    except (MalformedError, KeyError, ValueError, RecursionError, AttributeError):
        return None
    return name if isinstance(name, str) and 0 < len(name) <= _MAX_NAME_CHARS else None
