"""Paths into a call's arguments: where a value may stand.

Pure. A path is member names joined by dots, such as ``item.price``. ``*`` stands for any member, ``[*]`` after a name
for every element of a list, and a leading ``**.`` for any depth, the top included. What the values must be is said by
`policies.parameters`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from ledger.canonical import JSONValue
from ledger.errors import PolicySyntaxError

__all__ = ["Location", "Step", "compile_path", "find"]

_SEGMENT: Final = re.compile(r"(?P<name>\*|[^.\[\]*\x00-\x1f]+)(?P<items>(?:\[\*\])*)")

Location: TypeAlias = tuple[str | int, ...]
"""Member names and list indexes from the root down to a value."""

Step: TypeAlias = Callable[[Location, JSONValue], Iterator[tuple[Location, JSONValue]]]
"""From a place to the places that one part of a path leads to."""


def _member(name: str) -> Step:
    def step(location: Location, value: JSONValue) -> Iterator[tuple[Location, JSONValue]]:
        if isinstance(value, dict) and name in value:
            yield (*location, name), value[name]

    return step


def _any_member(location: Location, value: JSONValue) -> Iterator[tuple[Location, JSONValue]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*location, name), item


def _items(location: Location, value: JSONValue) -> Iterator[tuple[Location, JSONValue]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield (*location, index), item


def _any_depth(location: Location, value: JSONValue) -> Iterator[tuple[Location, JSONValue]]:
    stack = [(location, value)]
    while stack:
        place, node = stack.pop()
        yield place, node
        stack.extend(_any_member(place, node))
        stack.extend(_items(place, node))


def compile_path(path: str) -> tuple[Step, ...]:
    """Return the steps of a path.

    Raises:
        PolicySyntaxError: Not a path.
    """
    rest = path.removeprefix("**.")
    steps: list[Step] = [_any_depth] if rest != path else []
    for part in rest.split("."):
        match = _SEGMENT.fullmatch(part)
        if match is None:
            raise PolicySyntaxError(f"not a path: {path[:200]!a}")
        steps.append(_any_member if match["name"] == "*" else _member(match["name"]))
        steps.extend([_items] * match["items"].count("[*]"))
    return tuple(steps)


def find(root: JSONValue, paths: Iterable[Sequence[Step]]) -> list[JSONValue]:
    """Return the values that any of the paths leads to; each place once."""
    found: dict[Location, JSONValue] = {}
    for steps in paths:
        places: dict[Location, JSONValue] = {(): root}
        for step in steps:
            places = dict(pair for location, value in places.items() for pair in step(location, value))
        found.update(places)
    return list(found.values())
