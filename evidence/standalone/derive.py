"""The files of a pack that follow from its entries, made again.

Pure, standard library only. The entries are walked once more to run the control tests; one record at a time is held.

Source: docs/evidence.md, sections 2 to 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from evidence.standalone.faults import demand
from evidence.standalone.language import Examination, Framework, Item, sheet_name
from evidence.standalone.records import Compromise, Record, read_record
from evidence.standalone.sentences import (
    completeness_gaps,
    decision_gaps,
    key_gap,
    not_proved,
    origin_gaps,
    proved,
    replay_gaps,
)
from evidence.standalone.streams import GAP, TAIL_UNKNOWN, Stream, width_of
from evidence.standalone.texts import canonical
from evidence.standalone.walk import Walk, in_order

__all__ = ["derived_files", "totals_of"]

_LIMITS = "The gateway saw the calls counted here; a call that went round it is outside this evidence."


def _compromised(walk: Walk, compromises: Iterable[Compromise]) -> list[list[int]]:
    return [[leaf for leaf in walk.keyring.leaves_after(one) if leaf >= walk.first_leaf] for one in compromises]


def _population_item(
    walk: Walk, population: Mapping[str, Any], streams: Sequence[Stream], missing: int, claims: Mapping[str, Any]
) -> Item:
    verdicts = [stream.verdict for stream in streams]
    after = {leaf for leaves in _compromised(walk, walk.keyring.compromises) for leaf in leaves}
    same = ("first_leaf", "end_leaf", "records", "root_recomputed", "decisions", "observed", "outside", "completeness")
    values = {
        **{name: population[name] for name in same},
        "signatures": population["records"],
        "signed_after_compromise": len(after),
        "enforced": population["decisions"] - population["observed"],
        "late": len(population["late"]),
        "repeated_ids": walk.links.repeated_ids,
        "enforcers": len({stream.enforcer_id for stream in streams}),
        "streams": len(streams),
        "streams_with_gaps": verdicts.count(GAP),
        "streams_with_unknown_tail": verdicts.count(TAIL_UNKNOWN),
        "closed": walk.closing().leaf is not None,
        "bundles": len(walk.bundles()),
        "bundles_missing": missing,
        "simulated_records": walk.simulated,
        "anchors": len(claims["anchors"]),
        "witnesses": len(claims["witnesses"]),
    }
    return Item(None, values={f"population.{name}": value for name, value in values.items()})


def _stream_item(stream: Stream) -> Item:
    values = {
        **{name: getattr(stream, name) for name in ("enforcer_id", "epoch", "verdict", "records", "decisions")},
        "last_seq": stream.last_seq,
        "missing": width_of(stream.missing),
        "lost": width_of(stream.lost),
        "lost_decisions": stream.lost_decisions,
    }
    return Item(None, values={f"stream.{name}": value for name, value in values.items()})


class _Calls:
    """Allowed calls of the period, and how many of them have no outcome."""

    def __init__(self) -> None:
        self.allowed = 0
        self.open = 0

    def items(
        self, walk: Walk, entries: Iterable[bytes], checked: Callable[[Record], None]
    ) -> Iterator[tuple[str, Item]]:
        """Yield the items that records make: those of the period, and every key record."""
        for record in walk.key_records():
            yield record.kind, Item(record.leaf, record=record)
        for leaf, entry in enumerate(entries, walk.first_leaf):
            record = read_record(leaf, entry)
            if not walk.period.contains(record.time_ms) and record.kind != "key":
                continue
            derived = walk.links.derived(record)
            if record.kind == "decision":
                checked(record)
                ours = record.get("interface") is None and record.body["enforcement"] == "allow"
                self.allowed += ours
                self.open += ours and derived["outcomes"] == 0
                if record.get("mode") == "observe":
                    continue
            yield record.kind, Item(leaf, record=record, derived=derived)


def _checked_replays(
    walk: Walk, lines: Sequence[Mapping[str, Any]], held: Mapping[str, tuple[str, str]]
) -> Callable[[Record], None]:
    """Return what checks the next line of the re-performance against its decision, in leaf order."""
    told = "reperformance.json does not list every decision of the period once, in order"
    demand([line.get("leaf") for line in lines] == walk.decisions, told)
    waiting = iter(lines)

    def check(record: Record) -> None:
        line = next(waiting)
        same, differences, exact = line.get("same"), line.get("differences", ()), line.get("class") == "exact"
        leaf = record.leaf
        agrees = same is not bool(differences) if same is not None else not differences and not exact
        demand(agrees, f"leaf {leaf}: a replay is the same exactly if nothing differs")
        if exact:
            bundle = record.get("bundle")
            known = None if bundle is None else held.get(bundle["revision"])
            there = known is not None and known[1] == bundle["engine"] and record.get("request") is not None
            told = f"leaf {leaf}: an exact replay needs the request, and the bundle and engine of then"
            demand(there, told)

    return check


def totals_of(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the totals of a re-performance."""
    exact = [line for line in lines if line["class"] == "exact"]
    return {
        "by_class": in_order(Counter(line["class"] for line in lines)),
        "same": sum(line.get("same") is True for line in exact),
        "different": [line["leaf"] for line in exact if line.get("same") is not True],
    }


def _tests(frameworks: Sequence[Framework]) -> dict[str, Examination]:
    examined: dict[str, Examination] = {}
    demand(len({one.id for one in frameworks}) == len(frameworks), "a framework stands twice")
    for framework in frameworks:
        for name, test in framework.tests.items():
            known = examined.setdefault(name, Examination(test))
            demand(known.test.members == test.members, f"two frameworks mean different tests by {name}")
    return examined


def derived_files(
    walk: Walk,
    entries: Iterable[bytes],
    frameworks: Sequence[Framework],
    claims: Mapping[str, Any],
    replays: Sequence[Mapping[str, Any]],
    held: Mapping[str, tuple[str, str]],
    bundle_files: Mapping[str, Sequence[str]],
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files that follow from the entries, by path, and the members of the scope that do.

    Args:
        walk: The finished walk.
        entries: The entries once more.
        frameworks: What the controls are judged by.
        claims: What the maker says.
        replays: The lines of the re-performance.
        held: Name and engine of the bundles in the pack, by revision.
        bundle_files: Their files.

    Raises:
        Fault: They do not fit one another.
    """
    streams, closing = walk.streams(), walk.closing()
    population, totals = walk.population(streams), totals_of(replays)
    bundles = [{**line, "files": list(bundle_files.get(line["revision"], ()))} for line in walk.bundles()]
    missing = len({line["revision"] for line in bundles if line["revision"] not in held})
    calls, check = _Calls(), _checked_replays(walk, replays, held)
    examined = _tests(frameworks)
    by_subject: dict[str, list[Examination]] = {}
    for one in examined.values():
        by_subject.setdefault(one.test.subject, []).append(one)

    def items() -> Iterator[tuple[str, Item]]:
        yield "population", _population_item(walk, population, streams, missing, claims)
        yield from (("stream", _stream_item(stream)) for stream in streams)
        for line in replays:
            yield "replay", Item(line["leaf"], values={"replay.class": line["class"], "replay.same": line.get("same")})
        yield from calls.items(walk, entries, check)

    for subject, item in items():
        for examination in by_subject.get(subject, ()):
            examination.see(item)
    denied = [{**line, "outcome": walk.links.outcome(line["record_id"])} for line in walk.denied]
    total, observed = population["decisions"], population["observed"]
    compromises = walk.keyring.compromises
    gaps = [
        *completeness_gaps(streams, closing, population["late"], total, over=walk.period.over),
        *decision_gaps(
            observed=observed,
            total=total,
            open_calls=calls.open,
            allowed=calls.allowed,
            repeated=walk.links.repeated_ids,
            unproved=sum(not line["proof"] for line in denied),
        ),
        *replay_gaps(total, totals, bundles, held),
        *map(key_gap, compromises, _compromised(walk, compromises)),
        *origin_gaps(
            simulated=walk.simulated,
            records=population["records"],
            maker_simulated=claims["simulated"],
            dated=bool(claims["witnesses"] or claims["anchors"]),
        ),
    ]
    counts = {
        "format": "tallystick.counts/1",
        **population,
        "closed_at": closing.leaf,
        "streams": [stream.line() for stream in streams],
        "denied": denied,
        "bundles": bundles,
        "policy_changes": walk.changes(),
    }
    files = {
        "population/counts.json": canonical(counts),
        "exceptions.json": _exceptions(frameworks, examined),
        "gaps.json": canonical({"format": "tallystick.gaps/1", "gaps": gaps}),
        "access-log.jsonl": b"".join(canonical(line) + b"\n" for line in walk.access()),
        **_sheets(frameworks, examined, population, claims["not_applicable"]),
    }
    log_id, tenant = walk.log or ("", "")
    scope = {
        "tenant": tenant,
        "log_id": log_id,
        "environment": ", ".join(sorted(walk.environments)),
        "simulated": claims["simulated"] or walk.simulated > 0,
        "proved": proved(walk.first_leaf, walk.tree.size, total),
        "not_proved": not_proved(walk.first_leaf),
    }
    return files, scope


def _exceptions(frameworks: Sequence[Framework], examined: Mapping[str, Examination]) -> bytes:
    users: dict[str, list[str]] = {}
    for framework in frameworks:
        for control in framework.controls:
            for test in framework.tests_of(control):
                users.setdefault(test, []).append(f"{framework.id} {control['id']}")
    exceptions = [
        {**deviation, "controls": users[deviation["test"]]} for one in examined.values() for deviation in one.deviations
    ]
    failed = sum(one.failed for one in examined.values())
    return canonical({"format": "tallystick.exceptions/1", "failed": failed, "exceptions": exceptions})


def _sheets(
    frameworks: Sequence[Framework],
    examined: Mapping[str, Examination],
    population: Mapping[str, Any],
    not_applicable: Sequence[Mapping[str, str]],
) -> dict[str, bytes]:
    reasons = {(one["framework"], one["control"]): one["reason"] for one in not_applicable}
    known = {(framework.id, control["id"]) for framework in frameworks for control in framework.controls}
    told = "a control is declared not applicable twice, or is not in the pack"
    demand(len(reasons) == len(not_applicable) and reasons.keys() <= known, told)
    observed, decisions = population["observed"], population["decisions"]
    note = f"{observed} of {decisions} decisions were only observed and are not counted" if observed else ""
    about = ("first_leaf", "end_leaf", "decisions", "observed", "completeness")
    files = {}
    for framework in frameworks:
        for control in framework.controls:
            reason = reasons.get((framework.id, control["id"]))
            sheet = {
                "format": "tallystick.control/1",
                **framework.sheet(control, examined, note=note, not_applicable=reason),
                "framework_version": framework.value["version"],
                "mapping_version": framework.value["mapping_version"],
                "population": {name: population[name] for name in about},
                "limits": _LIMITS,
            }
            files[f"controls/{framework.id}/{sheet_name(control['id'])}.json"] = canonical(sheet)
    return files
