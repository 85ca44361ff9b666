"""The report of an impact: what the counts come to, and what they leave out.

Pure. A report is data; how it is shown, as a table or as a page, is others' part. Its members are public names and
numbers, and pseudonyms: no argument and no fact of a request is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from policies.impact import Flips, Impact, Scope, StateMode, Verdicts
from policies.impact_coverage import Coverage, StreamLine
from policies.replay_results import ReplayClass

__all__ = ["REPORT_FORMAT", "ImpactReport", "Stretch", "make_report"]

REPORT_FORMAT: Final = "tallystick.impact/1"

_UNKNOWN: Final = {
    ReplayClass.ERASED: "their payloads were erased or have expired",
    ReplayClass.MISSING_FACT: "there is no request to evaluate, or no bundle, or a fact that was never recorded",
    ReplayClass.MASKED: "part of the request was withheld before it was recorded",
    ReplayClass.ENGINE_CHANGED: "the engine of then is not here",
    ReplayClass.LIMITED: "a limit struck, or the engine failed",
}


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """Which leaves were read.

    Attributes:
        tree_size: Leaves that the log had when the walk began.
        first_leaf: First leaf that was read.
        end_leaf: The leaf behind the last one.
        pruned_below: Entries under this leaf are no longer served.
    """

    tree_size: int
    first_leaf: int
    end_leaf: int
    pruned_below: int = 0


class ImpactReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of making the decisions of a period again.

    Attributes:
        format: `REPORT_FORMAT`.
        from_ms: Start of the period, POSIX milliseconds.
        to_ms: Its end, exclusive.
        read_from_ms: From when on decisions were evaluated, to know how sessions stood.
        scope: Which decisions of the period are counted.
        bundle: Digest of the bundle; None if each decision was made again under its own.
        bundle_name: Its name, or None.
        state: Whether facts are as recorded, or rebuilt under the bundle.
        stretch: Which leaves were read.
        records: Records that were read.
        decisions: Decisions that are counted.
        not_asked: Those that the enforcement point refused itself: no bundle would have been asked.
        exact: Those that were made again exactly.
        reproduced: Those of the exact ones that came out as recorded.
        unknown: Those of which nobody can say what the bundle would have decided.
        evaluated_besides: Decisions that were evaluated for the sake of others, and not counted.
        classes: What became of them, by class.
        flips: Changed effects, by kind.
        late: Decisions of the period that came after their enforcer had said to be past it.
        streams: What there is of each enforcer's stream.
        lines: Lines of the list: decisions that did not come out exactly as recorded.
        lines_sha256: Digest of the list.
        left_out: What the report does not say, in sentences.
    """

    format: Literal["tallystick.impact/1"]
    from_ms: int
    to_ms: int
    read_from_ms: int
    scope: Scope
    bundle: str | None
    bundle_name: str | None
    state: StateMode
    stretch: Stretch
    records: int
    decisions: int
    not_asked: int
    exact: int
    reproduced: int
    unknown: int
    evaluated_besides: int
    classes: dict[ReplayClass, Verdicts]
    flips: dict[str, Flips]
    late: int
    streams: tuple[StreamLine, ...]
    lines: int
    lines_sha256: str
    left_out: tuple[str, ...]


def make_report(
    impact: Impact, coverage: Coverage, stretch: Stretch, *, bundle_name: str | None, lines_sha256: str
) -> ImpactReport:
    """Return the report of a walk that has ended.

    Args:
        impact: The counts.
        coverage: What was read.
        stretch: Which leaves that was.
        bundle_name: Name of the bundle, if all decisions were made again under one.
        lines_sha256: Digest of the list of lines, hexadecimal.
    """
    streams = coverage.lines()
    return ImpactReport(
        format=REPORT_FORMAT,
        from_ms=impact.from_ms,
        to_ms=impact.to_ms,
        read_from_ms=impact.read_from_ms,
        scope=impact.scope,
        bundle=impact.revision,
        bundle_name=bundle_name,
        state=impact.state,
        stretch=stretch,
        records=coverage.records,
        decisions=impact.decisions,
        not_asked=impact.not_asked,
        exact=impact.exact,
        reproduced=impact.reproduced,
        unknown=impact.unknown,
        evaluated_besides=impact.before,
        classes={name: impact.classes[name] for name in ReplayClass if name in impact.classes},
        flips={kind: impact.flips[kind] for kind in sorted(impact.flips)},
        late=coverage.late,
        streams=tuple(streams),
        lines=impact.lines,
        lines_sha256=lines_sha256,
        left_out=(*_not_read(stretch), *_not_ours(coverage), *_not_decided(impact), *_not_there(streams)),
    )


def _not_read(stretch: Stretch) -> list[str]:
    told = ["what enforcers have not delivered yet: records wait in their spools while the service is away"]
    if stretch.pruned_below:
        told.append(f"records below leaf {stretch.pruned_below}: the log was pruned by its published minimum index")
    return told


def _not_ours(coverage: Coverage) -> list[str]:
    if not coverage.others:
        return []
    return [
        f"{coverage.others} decisions that somebody else's OPA has handed in: they are its word, and not made again"
    ]


def _not_decided(impact: Impact) -> list[str]:
    told = []
    for name, why in _UNKNOWN.items():
        verdicts = impact.classes.get(name, Verdicts())
        number = verdicts.total if name == ReplayClass.LIMITED else verdicts.unknown
        number -= impact.not_asked if name == ReplayClass.MISSING_FACT else 0
        if number:
            told.append(f"what the bundle would have decided of {number} decisions ({name.value}): {why}")
    downstream = impact.classes.get(ReplayClass.DOWNSTREAM)
    if downstream is not None:
        told.append(
            f"whether {downstream.total} decisions (downstream) would have been asked for at all: "
            "their sessions had taken another course by then, or nobody can say which"
        )
    return told


def _not_there(streams: Sequence[StreamLine]) -> list[str]:
    told = []
    for stream in streams:
        who = f"{stream.enforcer_id} (epoch {stream.epoch[:8]})"
        if stream.missing:
            told.append(f"{stream.missing} records of {who}: their numbers are missing from the stretch that was read")
        if stream.lost:
            told.append(f"{stream.lost} records of {who}: declared lost")
        if stream.open:
            told.append(f"what else {who} may have decided: it has not said yet that it is past the period")
    return told
