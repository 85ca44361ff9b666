"""Guards on the JSON Schemas of a boundary, before a validator is made of them.

Pure. What a schema may hold is a closed part of JSON Schema 2020-12: a misspelt keyword would be a bound that nobody
checks, so any word that is not known is refused, as is a ``format`` that the validator would let pass. ``$ref`` leads
to the file's own definitions (``#/$defs/<name>``) and nowhere else.

A validator walks schema and arguments together, and a few lines of schema can make it walk for hours: definitions that
each name the next one twice, or a tree whose every node may be two things. `CheckedSchemas` therefore counts, for each
schema, how often places of the arguments can be looked at on the worst way down from the root, and says how deep
arguments may be for that count to stay within `MAX_VISITS`. The count is a bound, not a measurement: it never depends
on the machine.

Source: JSON Schema core and validation, draft 2020-12.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Final, Literal

from ledger.canonical import MAX_JSON_DEPTH, JSONValue
from ledger.errors import PolicySyntaxError

__all__ = [
    "ANNOTATIONS",
    "FORMATS",
    "KEYWORDS",
    "MAX_PATTERNS",
    "MAX_PATTERN_CHARS",
    "MAX_SUBSCHEMAS",
    "MAX_VISITS",
    "REFERENCE",
    "CheckedSchemas",
]

MAX_SUBSCHEMAS: Final = 100_000
"""Schemas within schemas of one file, and branches between them."""

MAX_VISITS: Final = 2_000
"""Most times that a validator may look at places on one way down the arguments."""

_MAX_BRANCHES: Final = 400_000

MAX_PATTERNS: Final = 2_000
MAX_PATTERN_CHARS: Final = 1_000

REFERENCE: Final = "#/$defs/"

ANNOTATIONS: Final = frozenset({"$comment", "default", "deprecated", "description", "examples", "readOnly", "title"})
_ASSERTIONS: Final = frozenset(
    {
        *("const", "dependentRequired", "enum", "exclusiveMaximum", "exclusiveMinimum", "format", "maxContains"),
        *("maxItems", "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength"),
        *("minProperties", "minimum", "multipleOf", "pattern", "required", "type", "uniqueItems"),
    }
)
# Which places the schemas within a keyword look at: see `_Node`.
_PLACES: Final[Mapping[str, Literal["same", "other", "always", "elements"]]] = {
    **dict.fromkeys(("else", "if", "not", "then", "allOf", "anyOf", "oneOf", "dependentSchemas"), "same"),
    "additionalProperties": "other",
    **dict.fromkeys(("patternProperties", "propertyNames", "unevaluatedProperties"), "always"),
    **dict.fromkeys(("contains", "items", "prefixItems", "unevaluatedItems"), "elements"),
}
_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_OBJECTS: Final = frozenset({"dependentSchemas", "patternProperties"})

KEYWORDS: Final = ANNOTATIONS | _ASSERTIONS | _PLACES.keys() | {"$ref", "properties"}
"""Words that a schema of a boundary may hold."""

FORMATS: Final = frozenset(
    {
        *("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "json-pointer", "regex"),
        *("relative-json-pointer", "time", "uri", "uri-reference", "uuid"),
    }
)
"""Formats that are checked; any other is refused rather than passed over."""


@dataclass(slots=True)
class _Node:
    """One schema, and which others it leads to.

    Attributes:
        same: Those that look at the same value.
        named: Those that look at the member of a name.
        other: Those that look at a member which `named` does not have.
        always: Those that look at every member.
        elements: Those that look at elements of a list.
    """

    same: list[int] = field(default_factory=list)
    named: dict[str, list[int]] = field(default_factory=dict)
    other: list[int] = field(default_factory=list)
    always: list[int] = field(default_factory=list)
    elements: list[int] = field(default_factory=list)


class CheckedSchemas:
    """The schemas of one file, checked; what is asked afterwards is how deep arguments may be."""

    def __init__(self, definitions: Mapping[str, JSONValue], roots: Mapping[str, JSONValue]) -> None:
        """Check schemas.

        Args:
            definitions: What ``$ref`` may lead to, by name.
            roots: The schemas that are applied, by a name for messages.

        Raises:
            PolicySyntaxError: A word, a reference or a format that is not known, or more work than the limits allow.
        """
        self._nodes: list[_Node] = []
        self._references: list[tuple[int, str, str]] = []
        self._patterns = 0
        self._definitions = {name: self._read(f"$defs/{name}", schema) for name, schema in definitions.items()}
        self._roots = {name: self._read(name, schema) for name, schema in roots.items()}
        self._resolve()
        self._max_depths = self._measure()

    def max_depth(self, root: str) -> int:
        """Return how deep arguments may be nested for the schema ``root``; a scalar has depth 0."""
        return self._max_depths[root]

    def _read(self, place: str, schema: JSONValue) -> int:
        """Take a schema and those within it; recursion is bounded by the reader of JSON."""
        number = len(self._nodes)
        node = _Node()
        self._nodes.append(node)
        if len(self._nodes) > MAX_SUBSCHEMAS:
            raise PolicySyntaxError(f"more than {MAX_SUBSCHEMAS} schemas within schemas")
        if isinstance(schema, bool):
            return number
        if not isinstance(schema, dict):
            raise PolicySyntaxError(f"{place}: a schema is an object, true or false")
        for word, value in schema.items():
            self._read_word(place, number, word, value)
        return number

    def _read_word(self, place: str, number: int, word: str, value: JSONValue) -> None:
        node, here = self._nodes[number], f"{place}/{word}"
        if word in _PLACES:
            targets: list[int] = getattr(node, _PLACES[word])
            targets += self._within(word, here, value)
            if word == "patternProperties":
                self._check_patterns(here, value)
        elif word == "properties":
            node.named = {name: [found] for name, found in self._read_named(here, value).items()}
        elif word == "$ref":
            self._read_reference(here, number, value)
        else:
            self._check_word(here, word, value)

    def _within(self, word: str, place: str, value: JSONValue) -> list[int]:
        if word in _LISTS:
            return self._read_list(place, value)
        if word in _OBJECTS:
            return list(self._read_named(place, value).values())
        return [self._read(place, value)]

    def _read_list(self, place: str, value: JSONValue) -> list[int]:
        if not isinstance(value, list):
            raise PolicySyntaxError(f"{place}: not a list of schemas")
        return [self._read(f"{place}/{index}", item) for index, item in enumerate(value)]

    def _read_named(self, place: str, value: JSONValue) -> dict[str, int]:
        if not isinstance(value, dict):
            raise PolicySyntaxError(f"{place}: not an object of schemas")
        return {name: self._read(f"{place}/{name}", item) for name, item in value.items()}

    def _read_reference(self, place: str, number: int, value: JSONValue) -> None:
        if not isinstance(value, str) or not value.startswith(REFERENCE):
            raise PolicySyntaxError(f"{place}: a reference leads to {REFERENCE}<name> of this file")
        self._references.append((number, place, value.removeprefix(REFERENCE)))

    def _check_patterns(self, place: str, value: JSONValue) -> None:
        for pattern in value if isinstance(value, dict) else [value]:
            self._patterns += 1
            if not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_CHARS:
                raise PolicySyntaxError(f"{place}: a pattern is text of at most {MAX_PATTERN_CHARS} characters")
        if self._patterns > MAX_PATTERNS:
            raise PolicySyntaxError(f"more than {MAX_PATTERNS} patterns")

    def _check_word(self, place: str, word: str, value: JSONValue) -> None:
        if word not in KEYWORDS:
            raise PolicySyntaxError(f"{place}: the unknown keyword {word[:64]!a}")
        if word == "format" and (not isinstance(value, str) or value not in FORMATS):
            raise PolicySyntaxError(f"{place}: the format {str(value)[:64]!a}, which nothing checks")
        if word == "pattern":
            self._check_patterns(place, value)

    def _resolve(self) -> None:
        for number, place, name in self._references:
            target = self._definitions.get(name)
            if target is None:
                raise PolicySyntaxError(f"{place}: there is no definition {name[:100]!a}")
            self._nodes[number].same.append(target)

    def _order(self) -> list[int]:
        """Return all schemas, those that look at the same value before those that ask them to."""
        sorter = TopologicalSorter({number: node.same for number, node in enumerate(self._nodes)})
        try:
            return list(sorter.static_order())
        except CycleError as error:
            names = {node: name for name, node in self._definitions.items()}
            told = sorted({names[number] for number in error.args[1] if number in names})
            raise PolicySyntaxError(f"definitions that lead back to themselves: {', '.join(told)[:200]}") from error

    def _measure(self) -> dict[str, int]:
        order = self._order()
        visits, steps = self._places(order)
        askers: list[set[int]] = [set() for _ in visits]
        for number, ways in enumerate(steps):
            for target in {target for way in ways for target in way}:
                askers[target].add(number)
        worst = list(visits)
        depths = dict.fromkeys(self._roots, MAX_JSON_DEPTH)
        stale = {number for number, ways in enumerate(steps) if ways}
        for depth in range(1, MAX_JSON_DEPTH + 1):
            # From the depth before: none of this round's results may enter into another of the same round.
            found = {number: min(visits[number] + _most(worst, steps[number]), MAX_VISITS + 1) for number in stale}
            changed = [number for number, count in found.items() if count != worst[number]]
            for number in changed:
                worst[number] = found[number]
            for name, number in self._roots.items() if changed else ():
                if worst[number] > MAX_VISITS:
                    depths[name] = min(depths[name], depth - 1)
            stale = {asker for number in changed for asker in askers[number]}
        return depths

    def _places(self, order: list[int]) -> tuple[list[int], list[list[Counter[int]]]]:
        """Return for each schema how many look at the same value, and which look at each kind of member or element."""
        members: dict[int, Counter[int]] = {}
        branches = 0
        for number in order:
            found = Counter({number: 1})
            for other in self._nodes[number].same:
                found.update(members[other])
            members[number] = found
            branches += len(found)
            if found.total() > MAX_VISITS:
                raise PolicySyntaxError(f"a value would be looked at by more than {MAX_VISITS} schemas")
            if branches > _MAX_BRANCHES:
                raise PolicySyntaxError(f"more than {_MAX_BRANCHES} schemas that look at one value with others")
        steps = [list(self._steps(members[number])) for number in range(len(self._nodes))]
        return [members[number].total() for number in range(len(self._nodes))], steps

    def _steps(self, members: Counter[int]) -> Iterator[Counter[int]]:
        nodes = [(self._nodes[number], times) for number, times in members.items()]
        names = {name for node, _ in nodes for name in node.named}
        if len(names) * len(nodes) > MAX_SUBSCHEMAS:
            raise PolicySyntaxError(f"more than {MAX_SUBSCHEMAS} branches at one value")
        for name in (*sorted(names), None):
            found: Counter[int] = Counter()
            for node, times in nodes:
                chosen = node.other if name is None else node.named.get(name, node.other)
                for target in (*chosen, *node.always):
                    found[target] += times
            if found:
                yield found
        elements: Counter[int] = Counter()
        for node, times in nodes:
            for target in node.elements:
                elements[target] += times
        if elements:
            yield elements


def _most(worst: list[int], ways: list[Counter[int]]) -> int:
    return max(sum(worst[target] * times for target, times in way.items()) for way in ways)
