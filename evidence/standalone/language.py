"""Control catalogues: the closed language of their tests, and the verdicts that follow.

Pure, standard library only. A predicate is an object with one member; there are no functions, no variables, no code. An
unknown path is refused when it is read; a field that is not there makes every comparison false.

Source: docs/evidence.md, sections 4 to 6.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evidence.standalone.faults import demand
from evidence.standalone.record_table import kinds_of, value_at
from evidence.standalone.records import Record

__all__ = ["Examination", "Framework", "Item", "read_framework", "sheet_name"]

_MAX_DEPTH, _MAX_PARTS, _MAX_NODES, _MAX_TEXT = 8, 32, 128, 200
_MAX_SHEET_DEVIATIONS = 100
_MAX_DEVIATIONS = 10_000
_SCALAR, _LIST, _PSEUDONYM = "scalar", "list", "pseudonym"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_CONTROL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9().:-]{0,63}")
_EVIDENCE = re.compile(r"E([1-9]|1[0-4])")
_FRAMEWORK_TEXTS = ("framework", "title", "version", "mapping_version", "source")
_CONTROL_TEXTS = ("id", "title", "strength", "rationale", "customer_adds", "procedure")
_CONTROL_MEMBERS = {*_CONTROL_TEXTS, "evidence", "tests", "conditional_tests", "not_tested"}
_Holds = Callable[["Item"], bool]
_Explains = Callable[["Item"], str]


class Item:
    """One thing that a test looks at: a record with what follows for it, or plain values."""

    __slots__ = ("_derived", "_record", "_values", "leaf")

    def __init__(
        self,
        leaf: int | None,
        *,
        record: Record | None = None,
        derived: Mapping[str, Any] | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a record, or values by path."""
        self.leaf = leaf
        self._record = record
        self._derived = derived or {}
        self._values = values or {}

    def get(self, path: str) -> Any:  # noqa: ANN401  # JSON of any shape
        """Return what stands at a path, or None."""
        head, _, name = path.partition(".")
        if head == "derived":
            return self._derived.get(name)
        if self._record is None:
            return self._values.get(path)
        return value_at(self._record, path)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _shown(value: object) -> str:
    return "missing" if value is None else _word(value)


def _equal(one: object, other: object) -> bool:
    # In Python True == 1; in JSON they differ.
    return isinstance(one, bool) is isinstance(other, bool) and one == other


class _Predicate:
    """A predicate, ready to be asked: whether it holds, itself in words, and why it does not hold for an item."""

    __slots__ = ("explain", "holds", "words")

    def __init__(self, holds: _Holds, words: str, explain: _Explains) -> None:
        self.holds = holds
        self.words = words
        self.explain = explain


def _all(parts: Sequence[_Predicate]) -> _Predicate:
    return _Predicate(
        lambda item: all(part.holds(item) for part in parts),
        " and ".join(part.words for part in parts) or "anything",
        lambda item: "; ".join(part.explain(item) for part in parts if not part.holds(item)),
    )


def _any(parts: Sequence[_Predicate]) -> _Predicate:
    return _Predicate(
        lambda item: any(part.holds(item) for part in parts),
        "(" + (" or ".join(part.words for part in parts) or "nothing") + ")",
        lambda item: ", and ".join(part.explain(item) for part in parts) or "nothing is accepted",
    )


def _not(part: _Predicate) -> _Predicate:
    return _Predicate(lambda item: not part.holds(item), f"not {part.words}", lambda _: f"it holds that {part.words}")


def _one_of(path: str, values: Sequence[Any]) -> _Predicate:
    wanted = " or ".join(map(_word, values))
    return _Predicate(
        lambda item: any(_equal(item.get(path), value) for value in values),
        f"{path} is {wanted}",
        lambda item: f"{path} is {_shown(item.get(path))}, not {wanted}",
    )


def _contains(path: str, value: object) -> _Predicate:
    return _Predicate(
        lambda item: isinstance(item.get(path), list) and any(_equal(one, value) for one in item.get(path)),
        f"{path} holds {_word(value)}",
        lambda _: f"{path} does not hold {_word(value)}",
    )


def _bound(path: str, bound: int, *, upper: bool) -> _Predicate:
    side = "most" if upper else "least"

    def holds(item: Item) -> bool:
        found = item.get(path)
        return type(found) is int and (found <= bound if upper else found >= bound)

    return _Predicate(
        holds,
        f"{path} is at {side} {bound}",
        lambda item: f"{path} is {_shown(item.get(path))}, not at {side} {bound}",
    )


def _same(path: str, other: str) -> _Predicate:
    return _Predicate(
        lambda item: item.get(path) is not None and _equal(item.get(path), item.get(other)),
        f"{path} equals {other}",
        lambda _: f"{path} and {other} are not equal, or missing",
    )


class _PredicateReader:
    """Reads one predicate against the paths of one subject."""

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds
        self._nodes = 0

    def read(self, value: Any, depth: int = 1) -> _Predicate:  # noqa: ANN401, PLR0911  # JSON; one way for each word
        told = f"a predicate is an object with one member, nested at most {_MAX_DEPTH} deep"
        demand(isinstance(value, dict) and len(value) == 1 and depth <= _MAX_DEPTH, told)
        self._nodes += 1
        demand(self._nodes <= _MAX_NODES, "a predicate has too many parts")
        ((word, operand),) = value.items()
        if word == "not":
            return _not(self.read(operand, depth + 1))
        if word in ("all", "any"):
            parts = [self.read(part, depth + 1) for part in self._list(operand)]
            return _all(parts) if word == "all" else _any(parts)
        if word == "present":
            path = self._path(operand)
            return _Predicate(
                lambda item: item.get(path) is not None, f"{path} is there", lambda _: f"{path} is missing"
            )
        demand(isinstance(operand, list) and len(operand) == 2, f"{word} takes a path and a second")  # noqa: PLR2004
        first, second = operand
        if word == "same":
            return _same(self._path(first, _SCALAR, _PSEUDONYM), self._path(second, _SCALAR, _PSEUDONYM))
        if word == "contains":
            return _contains(self._path(first, _LIST), self._constant(second))
        if word in ("equals", "in"):
            values = [second] if word == "equals" else self._list(second)
            return _one_of(self._path(first, _SCALAR), [self._constant(one) for one in values])
        demand(word in ("at_least", "at_most") and type(second) is int, f"no predicate is called {word[:40]!r}")
        return _bound(self._path(first, _SCALAR), second, upper=word == "at_most")

    @staticmethod
    def _list(value: Any) -> list[Any]:  # noqa: ANN401
        demand(isinstance(value, list) and len(value) <= _MAX_PARTS, f"a list of at most {_MAX_PARTS} is wanted")
        return list(value)

    @staticmethod
    def _constant(value: Any) -> Any:  # noqa: ANN401
        told = "a predicate's constants are short texts, integers and booleans"
        demand(isinstance(value, (str, int)) and len(str(value)) <= _MAX_TEXT, told)
        return value

    def _path(self, value: Any, *kinds: str) -> str:  # noqa: ANN401
        kind = self._kinds.get(value) if isinstance(value, str) else None
        told = f"a predicate asks of {str(value)[:_MAX_TEXT]!r} what cannot be asked of it"
        demand(kind is not None and (not kinds or kind in kinds), told)
        return str(value)


class _Test:
    """A test, ready to be run."""

    def __init__(self, members: Mapping[str, Any]) -> None:
        known = {"id", "sentence", "subject", "must", "where", "quantifier"}
        texts = all(isinstance(members.get(name), str) for name in ("id", "sentence", "subject"))
        demand(texts and "must" in members and members.keys() <= known, "a test has other members than a test has")
        self.id: str = members["id"]
        self.sentence: str = members["sentence"]
        self.subject: str = members["subject"]
        self.members = members
        demand(_ID.fullmatch(self.id) is not None, "a test has an id that is none")
        kinds = kinds_of(self.subject)
        demand(bool(kinds), f"the test {self.id} is about {self.subject[:40]!r}, which is no subject")
        self.where = _PredicateReader(kinds).read(members["where"]) if "where" in members else None
        self.must = _PredicateReader(kinds).read(members["must"])
        quantifier = members.get("quantifier", "every")
        self.needed = 1
        if isinstance(quantifier, dict):
            least = quantifier.get("at_least")
            demand(type(least) is int and least > 0 and len(quantifier) == 1, f"the test {self.id} needs a number")
            self.quantifier, self.needed = "at_least", quantifier["at_least"]
        else:
            demand(quantifier in ("every", "none"), f"the test {self.id} has an unknown quantifier")
            self.quantifier = quantifier


class Examination:
    """One test being run over its items, in leaf order."""

    def __init__(self, test: _Test) -> None:
        """Begin."""
        self.test = test
        self.population = 0
        self.passed = 0
        self.failed = 0
        self.deviations: list[dict[str, Any]] = []

    def see(self, item: Item) -> None:
        """Look at one item of the test's subject."""
        test = self.test
        if test.where is not None and not test.where.holds(item):
            return
        self.population += 1
        holds = test.must.holds(item)
        if holds is not (test.quantifier == "none"):
            self.passed += 1
        elif test.quantifier != "at_least":
            self.failed += 1
            if len(self.deviations) < _MAX_DEVIATIONS:
                cause = f"it holds that {test.must.words}" if holds else test.must.explain(item)
                self.deviations.append({"leaf": item.leaf, "test": test.id, "cause": cause})

    @property
    def state(self) -> str:
        """``failed``, ``passed``, or ``nothing`` to test."""
        if self.failed:
            return "failed"
        return "passed" if self.passed >= self.test.needed else "nothing"

    def result(self, *, conditional: bool) -> dict[str, Any]:
        """Return what came of it, as a control's sheet lists it."""
        return {
            "test": self.test.id,
            "sentence": self.test.sentence,
            "population": self.population,
            "passed": self.passed,
            "failed": self.failed,
            "deviations": self.deviations[:_MAX_SHEET_DEVIATIONS],
            "needed": self.test.needed,
            "conditional": conditional,
        }


def sheet_name(control_id: str) -> str:
    """Return the name under which a control's sheet is filed."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", control_id).strip("-.")


class Framework:
    """A framework with its mapping."""

    def __init__(self, value: Mapping[str, Any]) -> None:
        """Read it.

        Raises:
            MalformedError: It is none.
        """
        shaped = all(isinstance(value.get(name), str) for name in _FRAMEWORK_TEXTS)
        shaped = shaped and value.keys() == {"format", "controls", "tests", *_FRAMEWORK_TEXTS}
        demand(shaped and value["format"] == "tallystick.framework/1", "not a framework")
        self.value = value
        self.id: str = value["framework"]
        self.controls: list[Mapping[str, Any]] = value["controls"]
        self.tests = {members["id"]: _Test(members) for members in value["tests"]}
        demand(len(self.tests) == len(value["tests"]), f"{self.id}: a test stands twice")
        names = [sheet_name(control["id"]).lower() for control in self.controls]
        demand(len(set(names)) == len(names), f"{self.id}: a control stands twice")
        for control in self.controls:
            self._check_control(control)
        used = {test for control in self.controls for test in self.tests_of(control)}
        demand(used == self.tests.keys(), f"{self.id}: a control names a test that is not there, or a test serves none")

    def _check_control(self, control: Mapping[str, Any]) -> None:
        shaped = all(isinstance(control.get(name), str) for name in _CONTROL_TEXTS)
        evidence = control.get("evidence") or ()
        shaped = shaped and isinstance(evidence, list) and control.keys() <= _CONTROL_MEMBERS
        shaped = shaped and all(isinstance(one, str) and _EVIDENCE.fullmatch(one) for one in evidence)
        demand(shaped and _CONTROL_ID.fullmatch(control["id"]) is not None, f"{self.id}: not a control")
        demand(control["strength"] in ("direct", "supports"), f"{self.id} {control['id']}: of unknown strength")
        tested = bool(control.get("tests"))
        told = f"{self.id} {control['id']}: it needs tests, or the reason why it has none"
        demand(tested is not ("not_tested" in control), told)
        demand(tested or control["strength"] != "direct", f"{self.id} {control['id']}: direct evidence without a test")
        named = self.tests_of(control)
        demand(len(set(named)) == len(named), f"{self.id} {control['id']}: a test stands twice")

    @staticmethod
    def tests_of(control: Mapping[str, Any]) -> list[str]:
        """Return the ids of a control's tests, those about what need not happen last."""
        return [*control.get("tests", ()), *control.get("conditional_tests", ())]

    def sheet(
        self, control: Mapping[str, Any], examined: Mapping[str, Examination], *, note: str, not_applicable: str | None
    ) -> dict[str, Any]:
        """Return a control's sheet.

        Args:
            control: The control.
            examined: Finished examinations by test.
            note: Added where a test is about decisions.
            not_applicable: Why it does not apply, if the request said so.
        """
        tests = self.tests_of(control)
        conditional = set(control.get("conditional_tests", ()))
        if not_applicable is not None:
            status, reason = "not applicable", f"stated in the request: {not_applicable}"
        else:
            status, reason = _verdict(control, [examined[test] for test in tests], conditional)
            if note and any(self.tests[test].subject == "decision" for test in tests):
                reason = f"{reason}; {note}"
        return {
            "framework": self.id,
            "control_id": control["id"],
            **{name: control[name] for name in (*_CONTROL_TEXTS[1:], "evidence")},
            "status": status,
            "reason": reason,
            "tests": [examined[test].result(conditional=test in conditional) for test in tests],
        }


def _verdict(control: Mapping[str, Any], tests: Sequence[Examination], conditional: set[str]) -> tuple[str, str]:
    if "not_tested" in control:
        return "not tested", f"no computed test: {control['not_tested']}"
    failed = [one for one in tests if one.state == "failed"]
    if failed:
        told = "; ".join(f"{one.test.id}: {one.failed} of {one.population} deviate" for one in failed)
        return "not satisfied", f"{len(failed)} of {len(tests)} tests failed: {told}"
    empty = [one for one in tests if one.state == "nothing"]
    needed = [one for one in empty if one.test.id not in conditional]
    if needed:
        told = "; ".join(
            f"{one.test.id}: {one.passed} of {one.test.needed} needed, among {one.population}" for one in needed
        )
        return "not tested", f"insufficient evidence: {told}"
    passed = [one for one in tests if one.state == "passed"]
    told = "; ".join(f"{one.test.id}: {one.passed} of {one.population}" for one in passed)
    silent = f"; {len(empty)} of {len(tests)} are about things that did not occur" if empty else ""
    return "satisfied", f"{len(passed)} of {len(tests)} tests passed: {told}{silent}"


def read_framework(value: Any) -> Framework:  # noqa: ANN401  # JSON of any shape
    """Read a framework.

    Raises:
        MalformedError: It is none.
    """
    demand(isinstance(value, dict), "not a framework")
    lists = all(
        isinstance(value.get(name), list) and all(isinstance(one, dict) for one in value[name])
        for name in ("controls", "tests")
    )
    demand(lists, "not a framework")
    return Framework(value)
