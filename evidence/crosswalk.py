"""The map between frameworks: which controls ask for much the same, why we say so, and how sure we are.

Pure: JSON values in, values out; the file is read by `catalogue`. An edge joins two controls of different frameworks.
It is our judgement and no equivalence by law: its rationale says what it rests on.

How sure we may be is bound to what is computed:

* *high*: the two controls have a computed test in common, so one record can spoil both;
* *medium* or *low*: they have an evidence class in common.

The relations are those of set theory that NIST IR 8477 uses: *equal*, *subset* (what the first asks for is part of what
the second does), *superset*, *intersects*.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from evidence.controls import Control, Framework
from ledger.canonical import JSONValue
from ledger.errors import MalformedError

__all__ = ["Crosswalk", "Edge", "End", "Related", "parse_crosswalk"]

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Relation = Literal["equal", "subset", "superset", "intersects"]
Confidence = Literal["high", "medium", "low"]
_TURNED: Mapping[Relation, Relation] = {
    "equal": "equal",
    "subset": "superset",
    "superset": "subset",
    "intersects": "intersects",
}


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """A control of a framework; in the file ``[soc2, CC6.1]``.

    Attributes:
        framework: The framework's id.
        control: The control's.
    """

    framework: _Name
    control: _Name


class Edge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two controls that ask for much the same.

    Attributes:
        first: The one.
        second: The other, of another framework.
        relation: How what the first asks for stands to what the second does.
        confidence: How sure we are.
        rationale: Why.
    """

    first: End
    second: End
    relation: Relation
    confidence: Confidence
    rationale: _Text


class _CrosswalkMembers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: _Text
    edges: Annotated[tuple[Edge, ...], msgspec.Meta(max_length=10_000)]


@dataclass(frozen=True, slots=True)
class Related:
    """A control of another framework, as seen from one.

    Attributes:
        end: Which control.
        relation: How what the one asks for stands to what this one does.
        confidence: How sure we are.
        rationale: Why.
        tests: Ids of the computed tests that both have, sorted.
    """

    end: End
    relation: Relation
    confidence: Confidence
    rationale: str
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Crosswalk:
    """The map, checked.

    Attributes:
        version: Its version.
        edges: Its edges, in the order of the file.
    """

    version: str
    edges: tuple[Edge, ...]
    _shared: Mapping[tuple[End, End], tuple[str, ...]]

    def related(self, framework: str, control: str) -> Iterator[Related]:
        """Yield the controls that one is joined to, in the order of the file."""
        here = End(framework, control)
        for edge in self.edges:
            tests = self._shared[edge.first, edge.second]
            if edge.first == here:
                yield Related(edge.second, edge.relation, edge.confidence, edge.rationale, tests)
            elif edge.second == here:
                yield Related(edge.first, _TURNED[edge.relation], edge.confidence, edge.rationale, tests)


def _control(end: End, load: Callable[[str], Framework]) -> Control:
    for control in load(end.framework).controls:
        if control.id == end.control:
            return control
    raise MalformedError(f"{end.framework} has no control {end.control}")


def _shared_tests(edge: Edge, load: Callable[[str], Framework]) -> tuple[str, ...]:
    if edge.first.framework == edge.second.framework:
        raise MalformedError(f"both ends are of {edge.first.framework}")
    first, second = _control(edge.first, load), _control(edge.second, load)
    shared = tuple(sorted(set(first.all_tests) & set(second.all_tests)))
    told = f"{edge.first.control} and {edge.second.control}"
    if edge.confidence == "high" and not shared:
        raise MalformedError(f"{told} have no computed test in common, so confidence is not high")
    if not shared and not set(first.evidence) & set(second.evidence):
        raise MalformedError(f"{told} have neither a test nor an evidence class in common")
    if edge.relation == "equal" and set(first.all_tests) != set(second.all_tests):
        raise MalformedError(f"{told} are not computed by the same tests, so they are not equal")
    return shared


def _check_new(edge: Edge, known: Collection[tuple[End, End]]) -> None:
    if (edge.first, edge.second) in known or (edge.second, edge.first) in known:
        raise MalformedError(f"{edge.first.control} and {edge.second.control} are joined twice")


def parse_crosswalk(
    value: JSONValue, load: Callable[[str], Framework], where: Callable[[tuple[str | int, ...]], str]
) -> Crosswalk:
    """Read a map.

    Args:
        value: Its JSON value.
        load: Returns a framework by id; raises `EvidenceError` where there is none.
        where: Names a place of the value for whoever has to put it right.

    Raises:
        EvidenceError: It names a framework that is not there.
        MalformedError: It is no map, an edge stands twice or joins what is not there, or claims more than is computed.
    """
    try:
        members = msgspec.convert(value, _CrosswalkMembers)
    except msgspec.ValidationError as error:
        raise MalformedError(f"{where(())}: not a map between frameworks: {error}") from error
    shared: dict[tuple[End, End], tuple[str, ...]] = {}
    for number, edge in enumerate(members.edges):
        try:
            _check_new(edge, shared)
            shared[edge.first, edge.second] = _shared_tests(edge, load)
        except MalformedError as error:
            raise MalformedError(f"{where(('edges', number))}: {error}") from error
    return Crosswalk(members.version, members.edges, shared)
