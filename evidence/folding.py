"""Control tests as a fold over items: what came of each, kept as items arrive, and taken back where an item changes.

Pure. `derivation` folds the items of a pack, each of them once and in its final state. `standing` folds records as they
are written, and folds an item again when a later record changes what follows for it.

Whether a test counts an item, and how, follows from the truth of the comparisons that its predicates are made of
(`predicates.Atom`). All tests of a subject together have some dozens of them, mostly over the same few paths and
values. So each path is fetched once for an item, its value stands for the truth of all comparisons on it, and what that
comes to for the tests is looked up: items that are alike in every respect that a test asks about share one *outcome*,
and counting an item is adding one to it. The predicates themselves are asked only for the first item of a kind.

INVARIANT: what is looked up is what the predicates say: every comparison of every test of the subject is in the key.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from evidence.controls import ControlTest
from evidence.predicates import Atom, Predicate
from evidence.subjects import Item

__all__ = ["Fold", "Outcome", "Tally"]

_MAX_VALUES: Final = 4_096
"""Values of one path whose comparisons are remembered: what differs in each item would only fill the memory."""

_Key: TypeAlias = tuple[int | bool, ...]


@dataclass(slots=True)
class Tally:
    """What one test has counted.

    Attributes:
        population: Items that it is about.
        passed: Of these, those that passed.
        failed: Of these, those that deviate.
    """

    population: int = 0
    passed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What the tests of a subject make of items of one kind.

    Attributes:
        passed: Numbers of the tests that such an item passes.
        failed: Numbers of those that it deviates from.
        neutral: Numbers of those whose population it belongs to without being either.
    """

    passed: tuple[int, ...]
    failed: tuple[int, ...]
    neutral: tuple[int, ...]


class _ByPath:
    """The comparisons on one path alone."""

    __slots__ = ("_atoms", "_known", "_only_presence", "path")

    def __init__(self, path: str, atoms: list[Atom]) -> None:
        self.path = path
        self._atoms = atoms
        self._known: dict[tuple[type, object], int] = {}
        # Of groups, sealed values and pseudonyms only the presence is asked, and their values are all different.
        self._only_presence = not any(atom.asks_value for atom in atoms)

    def bits(self, item: Item) -> int:
        """Return the truth of each comparison as one bit."""
        found = item.get(self.path)
        if self._only_presence:
            return found is not None
        # In Python True == 1; in the language they differ, and so they do here.
        key = (found.__class__, tuple(found) if isinstance(found, list) else found)
        bits = self._known.get(key)
        if bits is None:
            bits = sum(atom.holds(item) << number for number, atom in enumerate(self._atoms))
            if len(self._known) < _MAX_VALUES:
                self._known[key] = bits
        return bits


def _distinct(predicates: Iterable[Predicate]) -> dict[str, Atom]:
    """Return the comparisons of some predicates, each once: by how they are written, since 1 equals True in Python."""
    return {repr(atom): atom for predicate in predicates for atom in predicate.atoms()}


class _Tests:
    """The tests of one subject."""

    def __init__(self, numbered: list[tuple[int, ControlTest]]) -> None:
        self._numbered = numbered
        predicates = [one for _, test in numbered for one in (test.where, test.must) if one is not None]
        by_path: dict[str, list[Atom]] = {}
        self._pairs: list[Atom] = []
        for atom in _distinct(predicates).values():
            if len(atom.paths) == 1:
                by_path.setdefault(atom.paths[0], []).append(atom)
            else:
                self._pairs.append(atom)
        self._paths = [_ByPath(path, atoms) for path, atoms in by_path.items()]
        self._outcomes: dict[_Key, Outcome] = {}

    def outcome(self, item: Item) -> Outcome:
        """Return what the tests make of an item."""
        key: _Key = (*[path.bits(item) for path in self._paths], *[pair.holds(item) for pair in self._pairs])
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = self._outcomes[key] = self._examine(item)
        return outcome

    def _examine(self, item: Item) -> Outcome:
        passed, failed, neutral = [], [], []
        for number, test in self._numbered:
            if test.where is not None and not test.where.holds(item):
                continue
            if test.must.holds(item) is not (test.quantifier == "none"):
                passed.append(number)
            elif test.quantifier == "at_least":
                neutral.append(number)
            else:
                failed.append(number)
        return Outcome(tuple(passed), tuple(failed), tuple(neutral))


@dataclass(slots=True)
class Fold:
    """Tests being run over items; one task owns it.

    Attributes:
        tests: The tests, by number.
    """

    tests: tuple[ControlTest, ...]
    _subjects: dict[str, _Tests] = field(default_factory=dict)
    _counts: dict[Outcome, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbered: dict[str, list[tuple[int, ControlTest]]] = {}
        for number, test in enumerate(self.tests):
            numbered.setdefault(test.subject, []).append((number, test))
        self._subjects = {subject: _Tests(tests) for subject, tests in numbered.items()}

    def add(self, subject: str, item: Item) -> Outcome | None:
        """Count an item, and return what the tests make of it; None if no test is about its subject."""
        tests = self._subjects.get(subject)
        if tests is None:
            return None
        outcome = tests.outcome(item)
        self._counts[outcome] = self._counts.get(outcome, 0) + 1
        return outcome

    def remove(self, outcome: Outcome) -> None:
        """Take back an item that was counted with this outcome."""
        self._counts[outcome] -= 1

    def tallies(self) -> list[Tally]:
        """Return what each test has counted, by number."""
        tallies = [Tally() for _ in self.tests]
        for outcome, count in self._counts.items():
            for number in outcome.passed:
                tallies[number].passed += count
                tallies[number].population += count
            for number in outcome.failed:
                tallies[number].failed += count
                tallies[number].population += count
            for number in outcome.neutral:
                tallies[number].population += count
        return tallies
