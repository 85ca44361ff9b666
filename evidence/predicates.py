"""A closed language for saying what a control test looks at and what must be true of it.

Pure. A predicate is a JSON object with exactly one member, its operator; there are no functions, no variables and no
code, so that a mapping written by a stranger can be run by an auditor, and so that any verifier can run it again::

    {"all": [P, …]}                 every one holds (none given: true)
    {"any": [P, …]}                 at least one holds
    {"not": P}                      P does not hold
    {"present": "path"}             the field is there
    {"equals": ["path", V]}         the field is V; text, integer or boolean, and of the same type
    {"in": ["path", [V, …]]}        the field is one of these
    {"contains": ["path", V]}       the list holds V
    {"at_least": ["path", N]}       the number is N or more
    {"at_most": ["path", N]}        the number is N or less
    {"same": ["path", "path"]}      both fields are there and equal

Which paths there are depends on the subject (`subjects`); an unknown path is refused when the predicate is read, never
treated as missing. A field that is not there makes every comparison false. A *pseudonymous* field may be compared with
another but not with a constant, and of a *sealed* one only the presence may be asked: a mapping names no person and
looks into no payload.

Predicates explain themselves: `describe` puts one into words, `explain` says why one does not hold for an item. Values
of pseudonymous and sealed fields are never printed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from ledger.canonical import JSONValue
from ledger.errors import MalformedError

__all__ = ["Atom", "PathKind", "Predicate", "Scalar", "Subject", "parse_predicate"]

Scalar: TypeAlias = str | int | bool
"""A constant of the language."""

_MAX_DEPTH: Final = 8
_MAX_PARTS: Final = 32
_MAX_NODES: Final = 128
_MAX_TEXT: Final = 200


class PathKind(StrEnum):
    """What may be asked of a path."""

    SCALAR = "scalar"
    LIST = "list"
    GROUP = "group"
    PSEUDONYM = "pseudonym"
    SEALED = "sealed"


Vocabulary: TypeAlias = Mapping[str, PathKind]


class Subject(Protocol):
    """Something that a predicate looks at."""

    def get(self, path: str) -> object:
        """Return what stands at a path, or None if nothing does."""
        ...


class Predicate(Protocol):
    """A predicate, ready to be asked."""

    def holds(self, item: Subject) -> bool:
        """Whether it holds for an item."""
        ...

    def describe(self) -> str:
        """Return it in words."""
        ...

    def explain(self, item: Subject) -> str:
        """Return why it does not hold for an item, for which it must not hold."""
        ...

    def atoms(self) -> Iterator[Atom]:
        """Return the comparisons that it is made of: whether it holds follows from whether each of them does."""
        ...


class Atom(Predicate, Protocol):
    """A predicate without parts."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that it asks of."""
        ...

    @property
    def asks_value(self) -> bool:
        """Whether it asks for more than presence."""
        ...


class _OfOnePath:
    """What comparisons of one path with a constant have in common."""

    __slots__ = ()
    path: str

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    @property
    def asks_value(self) -> bool:
        return True


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _equal(one: object, other: object) -> bool:
    # In Python True == 1; in the language, as in JSON, they differ.
    return isinstance(one, bool) is isinstance(other, bool) and one == other


@dataclass(frozen=True, slots=True)
class _All:
    parts: tuple[Predicate, ...]

    def holds(self, item: Subject) -> bool:
        return all(part.holds(item) for part in self.parts)

    def describe(self) -> str:
        return " and ".join(part.describe() for part in self.parts) or "anything"

    def explain(self, item: Subject) -> str:
        return "; ".join(part.explain(item) for part in self.parts if not part.holds(item))

    def atoms(self) -> Iterator[Atom]:
        return (atom for part in self.parts for atom in part.atoms())


@dataclass(frozen=True, slots=True)
class _Any:
    parts: tuple[Predicate, ...]

    def holds(self, item: Subject) -> bool:
        return any(part.holds(item) for part in self.parts)

    def describe(self) -> str:
        return "(" + (" or ".join(part.describe() for part in self.parts) or "nothing") + ")"

    def explain(self, item: Subject) -> str:
        return ", and ".join(part.explain(item) for part in self.parts) or "nothing is accepted"

    def atoms(self) -> Iterator[Atom]:
        return (atom for part in self.parts for atom in part.atoms())


@dataclass(frozen=True, slots=True)
class _Not:
    part: Predicate

    def holds(self, item: Subject) -> bool:
        return not self.part.holds(item)

    def describe(self) -> str:
        return f"not {self.part.describe()}"

    def explain(self, item: Subject) -> str:  # noqa: ARG002  # the sentence is the same for every item
        return f"it holds that {self.part.describe()}"

    def atoms(self) -> Iterator[Atom]:
        return self.part.atoms()


@dataclass(frozen=True, slots=True)
class _Present(_OfOnePath):
    path: str

    @property
    def asks_value(self) -> bool:
        return False

    def holds(self, item: Subject) -> bool:
        return item.get(self.path) is not None

    def describe(self) -> str:
        return f"{self.path} is there"

    def explain(self, item: Subject) -> str:  # noqa: ARG002  # the sentence is the same for every item
        return f"{self.path} is missing"

    def atoms(self) -> Iterator[Atom]:
        yield self


@dataclass(frozen=True, slots=True)
class _In(_OfOnePath):
    path: str
    values: tuple[Scalar, ...]

    def holds(self, item: Subject) -> bool:
        found = item.get(self.path)
        return any(_equal(found, value) for value in self.values)

    def describe(self) -> str:
        return f"{self.path} is {' or '.join(map(_word, self.values))}"

    def explain(self, item: Subject) -> str:
        found = item.get(self.path)
        shown = "missing" if found is None else _word(found)
        return f"{self.path} is {shown}, not {' or '.join(map(_word, self.values))}"

    def atoms(self) -> Iterator[Atom]:
        yield self


@dataclass(frozen=True, slots=True)
class _Contains(_OfOnePath):
    path: str
    value: Scalar

    def holds(self, item: Subject) -> bool:
        found = item.get(self.path)
        return isinstance(found, list | tuple) and any(_equal(one, self.value) for one in found)

    def describe(self) -> str:
        return f"{self.path} holds {_word(self.value)}"

    def explain(self, item: Subject) -> str:  # noqa: ARG002  # the sentence is the same for every item
        return f"{self.path} does not hold {_word(self.value)}"

    def atoms(self) -> Iterator[Atom]:
        yield self


@dataclass(frozen=True, slots=True)
class _Bound(_OfOnePath):
    path: str
    bound: int
    upper: bool

    def holds(self, item: Subject) -> bool:
        found = item.get(self.path)
        if not isinstance(found, int) or isinstance(found, bool):
            return False
        return found <= self.bound if self.upper else found >= self.bound

    def describe(self) -> str:
        return f"{self.path} is at {'most' if self.upper else 'least'} {self.bound}"

    def explain(self, item: Subject) -> str:
        found = item.get(self.path)
        shown = "missing" if found is None else _word(found)
        return f"{self.path} is {shown}, not at {'most' if self.upper else 'least'} {self.bound}"

    def atoms(self) -> Iterator[Atom]:
        yield self


@dataclass(frozen=True, slots=True)
class _Same:
    path: str
    other: str

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path, self.other)

    @property
    def asks_value(self) -> bool:
        return True

    def holds(self, item: Subject) -> bool:
        found = item.get(self.path)
        return found is not None and _equal(found, item.get(self.other))

    def describe(self) -> str:
        return f"{self.path} equals {self.other}"

    def explain(self, item: Subject) -> str:  # noqa: ARG002  # either may be a pseudonym: no value is printed
        return f"{self.path} and {self.other} are not equal, or missing"

    def atoms(self) -> Iterator[Atom]:
        yield self


class _Reader:
    """Reads one predicate against one vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._nodes = 0

    def read(self, value: JSONValue, depth: int = 1) -> Predicate:
        if not isinstance(value, dict) or len(value) != 1 or depth > _MAX_DEPTH:
            raise MalformedError(f"a predicate is an object with one member, nested at most {_MAX_DEPTH} deep")
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise MalformedError(f"a predicate has at most {_MAX_NODES} parts in all")
        ((operator, operand),) = value.items()
        if operator == "not":
            return _Not(self.read(operand, depth + 1))
        if operator in ("all", "any"):
            parts = tuple(self.read(part, depth + 1) for part in _list(operand, operator))
            return _All(parts) if operator == "all" else _Any(parts)
        if operator == "present":
            return _Present(self._path(operand, *PathKind))
        if operator == "same":
            return _Same(*self._paths(operand))
        return self._comparison(operator, operand)

    def _comparison(self, operator: str, operand: JSONValue) -> Predicate:
        kind = PathKind.LIST if operator == "contains" else PathKind.SCALAR
        if operator not in ("equals", "in", "contains", "at_least", "at_most"):
            raise MalformedError(f"no predicate is called {operator[:_MAX_TEXT]!r}")
        path, constant = self._pair(operand, operator, kind)
        if operator == "equals":
            return _In(path, (_scalar(constant),))
        if operator == "in":
            return _In(path, tuple(_scalar(item) for item in _list(constant, operator)))
        if operator == "contains":
            return _Contains(path, _scalar(constant))
        if type(constant) is not int:
            raise MalformedError(f"{operator} takes an integer")
        return _Bound(path, constant, operator == "at_most")

    def _paths(self, operand: JSONValue) -> tuple[str, str]:
        kinds = (PathKind.SCALAR, PathKind.PSEUDONYM)
        path, other = self._pair(operand, "same", *kinds)
        return path, self._path(other, *kinds)

    def _path(self, value: JSONValue, *kinds: PathKind) -> str:
        kind = self._vocabulary.get(value) if isinstance(value, str) else None
        if kind is None:
            raise MalformedError(f"a predicate asks for {str(value)[:_MAX_TEXT]!r}, which this subject does not have")
        if kind not in kinds:
            raise MalformedError(f"a predicate may not ask that of {value}, which is a {kind}")
        return str(value)

    def _pair(self, value: JSONValue, operator: str, *kinds: PathKind) -> tuple[str, JSONValue]:
        if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004  # a path and what it is compared with
            raise MalformedError(f"{operator} takes a path and what to compare it with")
        return self._path(value[0], *kinds), value[1]


def _list(value: JSONValue, operator: str) -> list[JSONValue]:
    if not isinstance(value, list) or len(value) > _MAX_PARTS:
        raise MalformedError(f"{operator} takes a list of at most {_MAX_PARTS}")
    return value


def _scalar(value: JSONValue) -> Scalar:
    if not isinstance(value, str | int) or len(str(value)) > _MAX_TEXT:
        raise MalformedError(f"a predicate's constants are text of at most {_MAX_TEXT} characters, integers, booleans")
    return value


def parse_predicate(value: JSONValue, vocabulary: Vocabulary) -> Predicate:
    """Read a predicate.

    Args:
        value: Its JSON value.
        vocabulary: The paths that the subject has, and what may be asked of each.

    Raises:
        MalformedError: Not a predicate of this language, or it asks for a path that the subject does not have.
    """
    return _Reader(vocabulary).read(value)
