"""What follows from the entries of a pack: the part that its maker and its verifier calculate alike.

Pure. Both walk the entries once with a `Survey`, then call `derive`, which looks at every record a second time under
the control tests. `derived_files` turns the result into the files of the pack that hold nothing else; a verifier
compares them byte for byte with what it was given, so that no count, verdict, exception or gap can be written by hand.

The second walk holds one record at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from evidence.controls import (
    ControlTest,
    Examination,
    Framework,
    control_file_name,
    distinct_tests,
    judge,
)
from evidence.folding import Fold
from evidence.items import is_item, record_item
from evidence.lines import stream_line
from evidence.population import Survey
from evidence.readme import readme_text
from evidence.replays import ReplayLine, check_replay, encode_replays, reperformance
from evidence.scope import Claims, Scope, framework_bytes, make_scope
from evidence.statements import completeness_gaps, decision_gaps, key_gap, origin_gaps, replay_gaps
from evidence.subjects import POPULATION, REPLAY, STREAM, Item
from evidence.summary import (
    AccessLine,
    BundleLine,
    ControlSheet,
    DeniedCall,
    FrameworkSheet,
    Gap,
    HeldBundle,
    PolicyChange,
    Population,
    Reperformance,
)
from ledger.bodies import Decision, KeyEvent
from ledger.canonical import canonical_bytes
from ledger.completeness import EnforcerStream, Verdict
from ledger.errors import MalformedError, RootMismatchError
from ledger.records import decode_entry

__all__ = ["Derivation", "derive", "derived_files"]

_LIMITS: Final = "The gateway saw the calls counted here; a call that went round it is outside this evidence."


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """Everything that follows from the entries.

    Attributes:
        scope: What the pack is about.
        population: The population and its counts.
        closed_at: Leaf from which on the period is closed, or None.
        streams: Completeness by enforcer and epoch.
        frameworks: Frameworks as used.
        sheets: Their control sheets.
        examinations: Every test that was run, by id.
        denied: Calls of the period that did not pass.
        bundles: Bundles that decided in the period.
        policy_changes: Steps of bundles in the range.
        replays: Every decision of the period made again.
        reperformance: Totals of these.
        access: Reads and exports in the range.
        gaps: What the evidence does not cover.
    """

    scope: Scope
    population: Population
    closed_at: int | None
    streams: tuple[EnforcerStream, ...]
    frameworks: tuple[Framework, ...]
    sheets: tuple[FrameworkSheet, ...]
    examinations: Mapping[str, Examination]
    denied: tuple[DeniedCall, ...]
    bundles: tuple[BundleLine, ...]
    policy_changes: tuple[PolicyChange, ...]
    replays: tuple[ReplayLine, ...]
    reperformance: Reperformance
    access: tuple[AccessLine, ...]
    gaps: tuple[Gap, ...]


def _in_range(survey: Survey, leaves: Iterable[int]) -> list[int]:
    """Return those of some leaves that lie in the range."""
    return [leaf for leaf in leaves if leaf >= survey.first_leaf]


def _population_item(
    survey: Survey, population: Population, streams: Sequence[EnforcerStream], missing_bundles: int, claims: Claims
) -> Item:
    verdicts = [stream.verdict for stream in streams]
    values: dict[str, object] = {
        "first_leaf": population.first_leaf,
        "end_leaf": population.end_leaf,
        "records": population.records,
        "signatures": survey.signatures,
        "signed_after_compromise": len(_in_range(survey, survey.keyring.leaves_after_compromise())),
        "root_recomputed": population.root_recomputed,
        "decisions": population.decisions,
        "enforced": population.decisions - population.observed,
        "observed": population.observed,
        "late": len(population.late),
        "outside": population.outside,
        "repeated_ids": survey.links.repeated_ids,
        "enforcers": len({stream.enforcer_id for stream in streams}),
        "streams": len(streams),
        "streams_with_gaps": verdicts.count(Verdict.GAP),
        "streams_with_unknown_tail": verdicts.count(Verdict.TAIL_UNKNOWN),
        "completeness": population.completeness,
        "closed": survey.closed_at() is not None,
        "bundles": len(survey.bundles()),
        "bundles_missing": missing_bundles,
        "simulated_records": survey.simulated_records,
        "anchors": len(claims.anchors),
        "witnesses": len(claims.witnesses),
    }
    return Item(None, {POPULATION: values})


def _stream_item(stream: EnforcerStream) -> Item:
    values: dict[str, object] = {
        "enforcer_id": stream.enforcer_id,
        "epoch": stream.epoch,
        "verdict": stream.verdict.value,
        "records": stream.records,
        "decisions": stream.decisions,
        "last_seq": stream.last_seq,
        "missing": sum(last - first + 1 for first, last in stream.missing),
        "lost": sum(last - first + 1 for first, last in stream.lost),
        "lost_decisions": stream.lost_decisions,
    }
    return Item(None, {STREAM: values})


@dataclass(slots=True)
class _OpenCalls:
    """Allowed calls of the period, and how many of them have no outcome."""

    allowed: int = 0
    without_outcome: int = 0


def _record_items(
    survey: Survey, entries: Iterable[bytes], calls: _OpenCalls, checked: Callable[[Decision], None]
) -> Iterator[tuple[str, Item]]:
    """Yield the items that records make, in leaf order, with their subjects."""
    for leaf, record in () if survey.start is None else survey.start.records():
        if isinstance(record.body, KeyEvent):
            yield record_item(survey.links, leaf, record)
    for leaf, entry in enumerate(entries, survey.first_leaf):
        record = decode_entry(entry)
        body = record.body
        decided = survey.is_decision_of_period(record)
        if not decided and not is_item(record, survey.period):
            continue
        subject, item = record_item(survey.links, leaf, record)
        if decided and isinstance(body, Decision):
            checked(body)
            # What another's enforcement point was told: no outcome of it is anybody's to record here.
            ours = body.interface is None and body.enforcement == "allow"
            calls.allowed += ours
            calls.without_outcome += ours and item.get("derived.outcomes") == 0
        if is_item(record, survey.period):
            yield subject, item


def _examine(tests: Iterable[ControlTest], items: Iterable[tuple[str, Item]]) -> dict[str, Examination]:
    """Run every test over the items; those that deviate are told in the order of the items."""
    examinations = [Examination(test) for test in tests]
    fold = Fold(tuple(examination.test for examination in examinations))
    for subject, item in items:
        outcome = fold.add(subject, item)
        for number in outcome.failed if outcome is not None else ():
            examinations[number].deviate(item)
    for examination, tally in zip(examinations, fold.tallies(), strict=True):
        examination.population, examination.passed, examination.failed = tally.population, tally.passed, tally.failed
    return {examination.test.id: examination for examination in examinations}


def _check_replays(
    survey: Survey, replays: Sequence[ReplayLine], held: Mapping[str, HeldBundle]
) -> Callable[[Decision], None]:
    """Check which decisions a list is about; return what checks its next line against its decision, in leaf order."""
    if [line.leaf for line in replays] != list(survey.decision_leaves):
        raise MalformedError("the re-performance does not list every decision of the period once, in order")
    lines = iter(replays)
    return lambda body: check_replay(next(lines), body, held)


def _check_not_applicable(claims: Claims, frameworks: Sequence[Framework]) -> dict[tuple[str, str], str]:
    reasons = {(one.framework, one.control): one.reason for one in claims.not_applicable}
    known = {(framework.id, control.id) for framework in frameworks for control in framework.controls}
    if len(reasons) != len(claims.not_applicable) or not reasons.keys() <= known:
        raise MalformedError("a control is declared not applicable twice, or is not in the pack's frameworks")
    return reasons


def _key_gaps(survey: Survey) -> list[Gap]:
    keyring = survey.keyring
    return [key_gap(one, _in_range(survey, keyring.leaves_after(one))) for one in keyring.compromises]


def _sheets(
    frameworks: Sequence[Framework],
    examinations: Mapping[str, Examination],
    population: Population,
    not_applicable: Mapping[tuple[str, str], str],
) -> tuple[FrameworkSheet, ...]:
    observed = population.observed
    note = f"{observed} of {population.decisions} decisions were only observed and are not counted" if observed else ""
    return tuple(
        FrameworkSheet(
            framework=framework.id,
            title=framework.title,
            version=framework.version,
            mapping_version=framework.mapping_version,
            source=framework.source,
            controls=tuple(
                judge(
                    framework,
                    control,
                    examinations,
                    note=note,
                    not_applicable=not_applicable.get((framework.id, control.id)),
                )
                for control in framework.controls
            ),
        )
        for framework in frameworks
    )


def derive(
    *,
    survey: Survey,
    root: bytes,
    entries: Callable[[], Iterable[bytes]],
    frameworks: Sequence[Framework],
    claims: Claims,
    replays: Sequence[ReplayLine],
    held: Mapping[str, HeldBundle],
) -> Derivation:
    """Calculate everything that follows from the entries of a range.

    Args:
        survey: The finished walk over them.
        root: Root of the end checkpoint.
        entries: Begins another walk over the same entries.
        frameworks: What the controls are judged by.
        claims: What the maker of the pack says.
        replays: Every decision of the period made again, in leaf order.
        held: Bundles that the pack holds, by revision.

    Raises:
        RootMismatchError: The entries lead to another root.
        MalformedError: Replays, frameworks or claims do not fit the entries or one another.
    """
    calculated = survey.tree.root()
    if calculated != root:
        raise RootMismatchError("the entries are not those of the checkpoint", expected=root, calculated=calculated)
    check_next = _check_replays(survey, replays, held)
    not_applicable = _check_not_applicable(claims, frameworks)
    streams = survey.streams()
    population = survey.population(streams, root_recomputed=True)
    bundles = tuple(
        replace(one, files=held[one.revision].files if one.revision in held else ()) for one in survey.bundles()
    )
    missing = len({one.revision for one in bundles if one.revision not in held})
    calls = _OpenCalls()

    def items() -> Iterator[tuple[str, Item]]:
        yield POPULATION, _population_item(survey, population, streams, missing, claims)
        yield from ((STREAM, _stream_item(stream)) for stream in streams)
        for line in replays:
            yield REPLAY, Item(line.leaf, {REPLAY: {"class": line.classification, "same": line.same}})
        yield from _record_items(survey, entries(), calls, check_next)

    examinations = _examine(distinct_tests(frameworks).values(), items())
    denied = tuple(survey.calls_that_did_not_pass())
    totals = reperformance(replays)
    gaps = (
        *completeness_gaps(population, streams, survey.open_enforcers(), survey.closed_at(), over=survey.over),
        *decision_gaps(
            population,
            open_calls=calls.without_outcome,
            allowed=calls.allowed,
            repeated=survey.links.repeated_ids,
            unproved=sum(not call.proof for call in denied),
        ),
        *replay_gaps(population, totals, bundles, held),
        *_key_gaps(survey),
        *origin_gaps(
            simulated=survey.simulated_records,
            records=population.records,
            maker_simulated=claims.simulated,
            witnesses=len(claims.witnesses),
            anchors=len(claims.anchors),
        ),
    )
    return Derivation(
        scope=make_scope(claims, survey, population, root, frameworks),
        population=population,
        closed_at=survey.closed_at(),
        streams=tuple(streams),
        frameworks=tuple(frameworks),
        sheets=_sheets(frameworks, examinations, population, not_applicable),
        examinations=examinations,
        denied=denied,
        bundles=bundles,
        policy_changes=tuple(survey.policy_changes),
        replays=tuple(replays),
        reperformance=totals,
        access=tuple(survey.access),
        gaps=gaps,
    )


def _plain(value: object) -> Any:  # noqa: ANN401  # JSON of any shape
    return msgspec.to_builtins(value)


def _counts_file(derivation: Derivation) -> bytes:
    population = _plain(derivation.population)
    streams = [_plain(stream_line(stream)) for stream in derivation.streams]
    return canonical_bytes(
        {
            "format": "tallystick.counts/1",
            **population,
            "closed_at": derivation.closed_at,
            "streams": streams,
            "denied": _plain(derivation.denied),
            "bundles": _plain(derivation.bundles),
            "policy_changes": _plain(derivation.policy_changes),
        }
    )


def _sheet_file(derivation: Derivation, framework: FrameworkSheet, sheet: ControlSheet) -> bytes:
    population = derivation.population
    return canonical_bytes(
        {
            "format": "tallystick.control/1",
            **_plain(sheet),
            "framework_version": framework.version,
            "mapping_version": framework.mapping_version,
            "population": {
                "first_leaf": population.first_leaf,
                "end_leaf": population.end_leaf,
                "decisions": population.decisions,
                "observed": population.observed,
                "completeness": population.completeness,
            },
            "limits": _LIMITS,
        }
    )


def _exceptions_file(derivation: Derivation) -> bytes:
    users: defaultdict[str, list[str]] = defaultdict(list)
    for framework in derivation.frameworks:
        for control in framework.controls:
            for test in control.all_tests:
                users[test].append(f"{framework.id} {control.id}")
    exceptions = [
        {"leaf": deviation.leaf, "test": deviation.test, "cause": deviation.cause, "controls": users[deviation.test]}
        for examination in derivation.examinations.values()
        for deviation in examination.deviations
    ]
    failed = sum(examination.failed for examination in derivation.examinations.values())
    return canonical_bytes({"format": "tallystick.exceptions/1", "failed": failed, "exceptions": exceptions})


def derived_files(derivation: Derivation) -> dict[str, bytes]:
    """Return the files of a pack that follow from its entries, by path."""
    files = {
        "README.txt": readme_text(derivation.scope),
        "scope.json": derivation.scope.encode(),
        "population/counts.json": _counts_file(derivation),
        "exceptions.json": _exceptions_file(derivation),
        "gaps.json": canonical_bytes({"format": "tallystick.gaps/1", "gaps": _plain(derivation.gaps)}),
        "reperformance.json": encode_replays(derivation.replays),
        "access-log.jsonl": b"".join(canonical_bytes(_plain(line)) + b"\n" for line in derivation.access),
    }
    for framework, sheet in zip(derivation.frameworks, derivation.sheets, strict=True):
        files[f"frameworks/{framework.id}.json"] = framework_bytes(framework)
        for control in sheet.controls:
            path = f"controls/{framework.id}/{control_file_name(control.control_id)}.json"
            files[path] = _sheet_file(derivation, sheet, control)
    return files
