"""Control catalogues and the verdicts that follow from their tests.

Pure: JSON values in, values out. Reading YAML is `catalogue`'s part, the language of the tests is `predicates`', what
they look at is `subjects`'.

A *framework* lists controls: ids are facts, every word around them is ours. A control names the tests that compute its
verdict. A *test* has a subject, a ``where`` predicate that chooses its population among the subject's items, a ``must``
predicate, and a quantifier::

    {"id": "allowed-only-on-permit", "sentence": "Every allowed call was permitted by policy.",
     "subject": "decision", "where": {"equals": ["decision.enforcement", "allow"]},
     "must": {"equals": ["decision.decision", "PERMIT"]}, "quantifier": "every"}

* ``every``: each item of the population must fulfil ``must``; the others are deviations.
* ``none``: no item may; those that do are deviations.
* ``{"at_least": n}``: n items must. Fewer are no deviation: what did not occur was not seen to work.

Verdicts, in this order: *not applicable* where the request says so; *not tested* where no test is computed; *not
satisfied* where a test failed; *not tested* again ("insufficient evidence") where a test had nothing to test, unless
the control lists it as conditional; else *satisfied*. Each comes with a reason that carries its denominators. None of
this depends on which computer, time zone or hash seed evaluates it, so that a verifier repeats it byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, NoReturn, TypeAlias

import msgspec

from evidence.predicates import Predicate, parse_predicate
from evidence.subjects import SUBJECTS, Item
from evidence.summary import ControlSheet, ControlStatus, ControlTestResult, Deviation, Strength, TestState
from ledger.canonical import JSONValue
from ledger.errors import MalformedError

__all__ = [
    "FRAMEWORK_FORMAT",
    "Control",
    "ControlTest",
    "Examination",
    "Framework",
    "Place",
    "control_file_name",
    "distinct_tests",
    "framework_value",
    "judge",
    "parse_framework",
]

FRAMEWORK_FORMAT: Final = "tallystick.framework/1"
MAX_SHEET_DEVIATIONS: Final = 100
"""Deviations that a control sheet lists; `exceptions.json` has more."""
MAX_DEVIATIONS: Final = 10_000
"""Deviations of one test that are kept; all are counted."""

Place: TypeAlias = tuple[str | int, ...]
"""Where something stands in a framework's JSON value: member names and indexes, outermost first."""

_MAX_CONTROLS: Final = 2_000
_MAX_TESTS: Final = 1_000

Identifier = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}\Z")]
ControlId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9().:-]{0,63}\Z")]
EvidenceClass = Annotated[str, msgspec.Meta(pattern=r"^E([1-9]|1[0-4])\Z")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
AtLeast = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Common rules: immutable, unknown members refused, defaults left out."""


class _AtLeast(_Struct, frozen=True):
    at_least: AtLeast


class _TestMembers(_Struct, frozen=True):
    """A test as JSON."""

    id: Identifier
    sentence: Text
    subject: Identifier
    must: dict[str, Any]
    where: dict[str, Any] | None = None
    quantifier: Literal["every", "none"] | _AtLeast = "every"


class Control(_Struct, frozen=True):
    """One requirement of a framework, and what we have to say about it.

    Attributes:
        id: The framework's own id.
        title: What it asks for, in our words.
        evidence: Evidence classes that speak to it, ``E1`` to ``E14``.
        strength: Whether the ledger is its evidence, or supports it.
        rationale: Why these records are evidence for it.
        customer_adds: What an assessor needs beside them.
        procedure: What is done to test it.
        tests: Ids of the tests that compute its verdict.
        conditional_tests: Ids of tests about things that need not happen.
        not_tested: Why there is no computed test; exactly where ``tests`` is empty.
    """

    id: ControlId
    title: Text
    evidence: tuple[EvidenceClass, ...]
    strength: Strength
    rationale: Text
    customer_adds: Text
    procedure: Text
    tests: tuple[Identifier, ...] = ()
    conditional_tests: tuple[Identifier, ...] = ()
    not_tested: Text | None = None

    @property
    def all_tests(self) -> tuple[str, ...]:
        """Ids of its tests, conditional ones last."""
        return self.tests + self.conditional_tests


class _FrameworkMembers(_Struct, frozen=True):
    """A framework as JSON."""

    format: Literal["tallystick.framework/1"]
    framework: Identifier
    title: Text
    version: Text
    mapping_version: Text
    source: Text
    controls: Annotated[tuple[Control, ...], msgspec.Meta(max_length=_MAX_CONTROLS)]
    tests: Annotated[tuple[_TestMembers, ...], msgspec.Meta(max_length=_MAX_TESTS)]


@dataclass(frozen=True, slots=True)
class ControlTest:
    """A test, ready to be run.

    Attributes:
        id: Its id.
        sentence: What it checks, in words.
        subject: What its items are.
        where: Chooses the population.
        must: What is asked of each item.
        quantifier: ``every``, ``none`` or ``at_least``.
        needed: Items that must fulfil ``must`` for the test to say anything.
        members: Its JSON form.
    """

    id: str
    sentence: str
    subject: str
    where: Predicate | None
    must: Predicate
    quantifier: str
    needed: int
    members: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """A framework with our mapping, checked.

    Attributes:
        id: Its short name, such as ``soc2``.
        title: Its name.
        version: Its edition.
        mapping_version: Version of our mapping.
        source: Where its ids come from and what of its text may be shipped.
        controls: Its controls, in order.
        tests: Its tests by id.
    """

    id: str
    title: str
    version: str
    mapping_version: str
    source: str
    controls: tuple[Control, ...]
    tests: Mapping[str, ControlTest]


class _Fault(Exception):  # noqa: N818  # a signal inside this module, no error of its interface
    """Something is wrong at a place of a framework."""

    def __init__(self, place: Place, told: str) -> None:
        super().__init__(told)
        self.place = place


def _compile(members: _TestMembers, place: Place) -> ControlTest:
    vocabulary = SUBJECTS.get(members.subject)
    if vocabulary is None:
        raise _Fault((*place, "subject"), f"the test {members.id} is about {members.subject}, which is no subject")
    quantifier = members.quantifier

    def read(member: str, value: dict[str, Any]) -> Predicate:
        try:
            return parse_predicate(value, vocabulary)
        except MalformedError as error:
            raise _Fault((*place, member), f"the test {members.id}: {error}") from error

    return ControlTest(
        id=members.id,
        sentence=members.sentence,
        subject=members.subject,
        where=None if members.where is None else read("where", members.where),
        must=read("must", members.must),
        quantifier=quantifier if isinstance(quantifier, str) else "at_least",
        needed=quantifier.at_least if isinstance(quantifier, _AtLeast) else 1,
        members=msgspec.to_builtins(members),
    )


def control_file_name(control_id: str) -> str:
    """Return the name, without suffix, under which a control's sheet is filed: ``164.312(b)`` gives ``164.312-b``."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", control_id).strip("-.")


def _unique(kind: str, names: Iterable[str], place: Place = ()) -> None:
    seen: set[str] = set()
    for position, name in enumerate(names):
        if name in seen:
            raise _Fault((*place, position), f"a framework has the {kind} {name} twice")
        seen.add(name)


def _check_control(control: Control, place: Place, tests: Mapping[str, ControlTest]) -> None:
    if bool(control.tests) is (control.not_tested is not None):
        raise _Fault(place, f"the control {control.id} needs tests, or the reason why it has none, and not both")
    if control.strength is Strength.DIRECT and not control.tests:
        raise _Fault((*place, "strength"), f"the control {control.id} claims direct evidence without a computed test")
    seen: set[str] = set()
    for member in ("tests", "conditional_tests"):
        for position, test in enumerate(getattr(control, member)):
            if test in seen:
                raise _Fault((*place, member, position), f"the control {control.id} names the test {test} twice")
            if test not in tests:
                told = f"the control {control.id} names the test {test}, which is not there"
                raise _Fault((*place, member, position), told)
            seen.add(test)


_STEP: Final = re.compile(r"\[(\d+)\]|\.?([A-Za-z_][A-Za-z0-9_-]*)")

_UNKNOWN: Final = re.compile(r"unknown field `(.+)`")


def _steps(path: str) -> Iterator[str | int]:
    for index, name in _STEP.findall(path):
        yield int(index) if index else name


def _refuse(error: msgspec.ValidationError) -> NoReturn:
    """Raise what msgspec found as a fault at the place that it names."""
    told, _, path = str(error).partition(" - at `$")
    unknown = _UNKNOWN.search(told)
    place = (*_steps(path.rstrip("`")), *(unknown.groups() if unknown else ()))
    raise _Fault(place, f"not a framework: {told}") from error


def _read_framework(value: JSONValue) -> Framework:
    try:
        members = msgspec.convert(value, _FrameworkMembers)
    except msgspec.ValidationError as error:
        _refuse(error)
    _unique("test", (test.id for test in members.tests), ("tests",))
    _unique("control", (control.id for control in members.controls), ("controls",))
    file_names = (control_file_name(control.id).casefold() for control in members.controls)
    _unique("file name", file_names, ("controls",))
    tests = {test.id: _compile(test, ("tests", number)) for number, test in enumerate(members.tests)}
    for number, control in enumerate(members.controls):
        _check_control(control, ("controls", number), tests)
    used = {test for control in members.controls for test in control.all_tests}
    for number, test in enumerate(members.tests):
        if test.id not in used:
            raise _Fault(("tests", number), f"no control of {members.framework} uses the test {test.id}")
    return Framework(
        id=members.framework,
        title=members.title,
        version=members.version,
        mapping_version=members.mapping_version,
        source=members.source,
        controls=members.controls,
        tests=tests,
    )


def _json_path(place: Place) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")


def parse_framework(value: JSONValue, where: Callable[[Place], str] = _json_path) -> Framework:
    """Read a framework; the inverse of `framework_value`.

    Args:
        value: Its JSON value, in the form that a pack holds.
        where: Names a place of it for whoever has to put it right; as a path such as ``controls[3].title`` unless told
            otherwise.

    Raises:
        MalformedError: An unknown or missing member, an id twice, a test that is not there, is not used or does not
            parse, or a control that claims direct evidence without a test. It names the place.
    """
    try:
        return _read_framework(value)
    except _Fault as fault:
        named = where(fault.place)
        raise MalformedError(f"{named}: {fault}" if named else str(fault)) from fault


def framework_value(framework: Framework) -> dict[str, Any]:
    """Return a framework's JSON value, as a pack holds it; the inverse of `parse_framework`."""
    return {
        "format": FRAMEWORK_FORMAT,
        "framework": framework.id,
        "title": framework.title,
        "version": framework.version,
        "mapping_version": framework.mapping_version,
        "source": framework.source,
        "controls": [msgspec.to_builtins(control) for control in framework.controls],
        "tests": [test.members for test in framework.tests.values()],
    }


def distinct_tests(frameworks: Sequence[Framework]) -> dict[str, ControlTest]:
    """Return the tests of several frameworks by id, each once.

    Raises:
        MalformedError: A framework occurs twice, or two frameworks mean different tests by one id.
    """
    names = [framework.id for framework in frameworks]
    if len(set(names)) != len(names):
        raise MalformedError("a framework stands twice")
    tests: dict[str, ControlTest] = {}
    for framework in frameworks:
        for test in framework.tests.values():
            if tests.setdefault(test.id, test).members != test.members:
                raise MalformedError(f"two frameworks mean different tests by {test.id}")
    return tests


@dataclass(slots=True)
class Examination:
    """One test being run over its items, in leaf order; one task owns it.

    Attributes:
        test: The test.
        population: Items chosen so far.
        passed: Items that passed.
        failed: Items that deviate.
        deviations: Of these, the first `MAX_DEVIATIONS`.
    """

    test: ControlTest
    population: int = 0
    passed: int = 0
    failed: int = 0
    deviations: list[Deviation] = field(default_factory=list)

    def see(self, item: Item) -> None:
        """Look at one item of the test's subject."""
        test = self.test
        if test.where is not None and not test.where.holds(item):
            return
        self.population += 1
        if test.must.holds(item) is not (test.quantifier == "none"):
            self.passed += 1
        elif test.quantifier != "at_least":
            self.failed += 1
            self.deviate(item)

    def deviate(self, item: Item) -> None:
        """Keep what is to be told of an item that deviates, as long as there is room; it is counted elsewhere."""
        if len(self.deviations) < MAX_DEVIATIONS:
            must = self.test.must
            cause = f"it holds that {must.describe()}" if must.holds(item) else must.explain(item)
            self.deviations.append(Deviation(leaf=item.leaf, test=self.test.id, cause=cause))

    def result(self, *, conditional: bool) -> ControlTestResult:
        """Return what came of it, for a control that lists the test as conditional or not."""
        return ControlTestResult(
            test=self.test.id,
            sentence=self.test.sentence,
            population=self.population,
            passed=self.passed,
            failed=self.failed,
            deviations=tuple(self.deviations[:MAX_SHEET_DEVIATIONS]),
            needed=self.test.needed,
            conditional=conditional,
        )


def _verdict(control: Control, results: Sequence[ControlTestResult]) -> tuple[ControlStatus, str]:
    if control.not_tested is not None:
        return ControlStatus.NOT_TESTED, f"no computed test: {control.not_tested}"
    failed = [result for result in results if result.state is TestState.FAILED]
    if failed:
        told = "; ".join(f"{one.test}: {one.failed} of {one.population} deviate" for one in failed)
        return ControlStatus.NOT_SATISFIED, f"{len(failed)} of {len(results)} tests failed: {told}"
    empty = [result for result in results if result.state is TestState.NOTHING]
    needed = [result for result in empty if not result.conditional]
    if needed:
        told = "; ".join(f"{one.test}: {one.passed} of {one.needed} needed, among {one.population}" for one in needed)
        return ControlStatus.NOT_TESTED, f"insufficient evidence: {told}"
    passed = [result for result in results if result.state is TestState.PASSED]
    told = "; ".join(f"{one.test}: {one.passed} of {one.population}" for one in passed)
    silent = f"; {len(empty)} of {len(results)} are about things that did not occur" if empty else ""
    return ControlStatus.SATISFIED, f"{len(passed)} of {len(results)} tests passed: {told}{silent}"


def judge(
    framework: Framework,
    control: Control,
    examinations: Mapping[str, Examination],
    *,
    note: str = "",
    not_applicable: str | None = None,
) -> ControlSheet:
    """Return a control's sheet with its verdict.

    Args:
        framework: The control's framework.
        control: The control.
        examinations: Finished examinations by test id.
        note: Added to the reason where a test is about decisions: what its population leaves out.
        not_applicable: Why the control does not apply, if whoever asked for the pack said so.
    """
    results = tuple(
        examinations[test].result(conditional=test in control.conditional_tests) for test in control.all_tests
    )
    if not_applicable is not None:
        status, reason = ControlStatus.NOT_APPLICABLE, f"stated in the request: {not_applicable}"
    else:
        status, reason = _verdict(control, results)
        if note and any(framework.tests[test].subject == "decision" for test in control.all_tests):
            reason = f"{reason}; {note}"
    return ControlSheet(
        framework=framework.id,
        control_id=control.id,
        title=control.title,
        strength=control.strength,
        evidence=control.evidence,
        rationale=control.rationale,
        customer_adds=control.customer_adds,
        procedure=control.procedure,
        status=status,
        reason=reason,
        tests=results,
    )
