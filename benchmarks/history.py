"""Impacts: recorded history made again from log and vault, beside the same requests evaluated alone; and its memory."""

from __future__ import annotations

import asyncio
import gc
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from resource import RUSAGE_SELF, getrusage

import msgspec

from benchmarks.measure import BenchmarkError, Plan, Section, Table, figure, ratios, spread, timed
from benchmarks.records import decision
from ledger.bodies import BundleReference, Decision
from ledger.commitments import SALT_BYTES
from ledger.ports import Opening, commit
from policies.bundles import Bundle
from policies.directories import read_library_bundle
from policies.evaluate import Evaluation, Evaluator
from policies.impact import Impact
from policies.impact_walk import ImpactWalk
from policies.model import DecisionRequest, Effect, encode_request
from policies.testing import case_requests, read_cases
from service.impact_history import History
from service.wiring.engines import make_evaluator
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, Enforcer, pending

__all__ = ["run"]

_BUNDLES = ("demo", "business-hours-rego")
_APPENDED = 2_000
_ALONE = 4_000
_PERIOD_MS = 10**12
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}")

_METHOD = """A log of {records:,} decisions in SQLite, requests sealed in its vault, each made again under the bundle
that decided it: read, opened, compared with its commitment, evaluated in the engines' processes (two for batches),
compared and counted. *Floor*: {alone:,} of the same requests through the same processes, evaluated and nothing else.
{rounds} interleaved rounds; figures are min · **median** · max."""

_MEMORY = """Memory of the service's process grew by {grown} MiB over the first walk over {records:,} decisions, and by
{again} MiB over the others: it does not grow with the period. (The engines' processes are bounded by themselves.)"""


@dataclass(slots=True)
class _Times:
    """Records a second, by round."""

    alone: list[float] = field(default_factory=list)
    walked: list[float] = field(default_factory=list)


def run(plan: Plan) -> Section:
    """Measure and return the section."""
    records = plan.choose(100_000, 1_000_000)
    table = Table(("bundle", "÷ floor", "records/s", "floor, records/s"))
    notes = []
    evaluator = make_evaluator()
    try:
        for name in _BUNDLES:
            row, note = asyncio.run(_measure(plan, name, records, evaluator))
            table.rows.append(row)
            notes.append(f"`{name}`: {note}")
    finally:
        evaluator.close()
    method = _METHOD.format(records=records, alone=_ALONE, rounds=plan.rounds)
    return Section(title="Impacts", method=method, tables=[table], notes=notes)


async def _measure(plan: Plan, name: str, records: int, evaluator: Evaluator) -> tuple[Sequence[str], str]:
    bundle = read_library_bundle(name)
    pairs = await _decided(bundle, evaluator)
    root = plan.work / f"history-{name}"
    root.mkdir()
    with EmbeddedLedger(root) as ledger:
        await asyncio.to_thread(_fill, ledger, bundle, pairs, records)
        plan.say(f"{name}: {records:,} decisions recorded")
        history = History(log_id=LOG_ID, catalog=ledger.catalog, reader=ledger.reader, vault=ledger.vault)
        times = _Times()
        grown: list[int] = []
        for number in range(plan.rounds):
            times.alone.append(await _alone(bundle, [request for request, _ in pairs], evaluator))
            before = _peak_mib()
            times.walked.append(await _walk(history, bundle, records, evaluator))
            grown.append(_peak_mib() - before)
            plan.say(
                f"{name}, round {number + 1}: {figure(times.walked[-1])} records/s, alone {figure(times.alone[-1])}"
            )
    row = (f"`{name}`", spread(ratios(times.walked, times.alone)), spread(times.walked), spread(times.alone))
    return row, _MEMORY.format(grown=grown[0], again=sum(grown[1:]), records=records)


async def _decided(bundle: Bundle, evaluator: Evaluator) -> list[tuple[DecisionRequest, Evaluation]]:
    requests = case_requests(bundle, read_cases(bundle))
    pairs = list(zip(requests, await evaluator.evaluate_many(bundle, requests), strict=True))
    return [pair for pair in pairs if pair[1].decision.effect is not Effect.INDETERMINATE and _has_names(pair[0])]


def _has_names(request: DecisionRequest) -> bool:
    """Whether a request is of a call that a record can name; of others the gateway records that there was one."""
    said = (request.principal.agent, request.resource.server, request.resource.name or "x", *request.resource.tags)
    return all(_NAME.fullmatch(name) for name in said)


def _fill(
    ledger: EmbeddedLedger, bundle: Bundle, pairs: Sequence[tuple[DecisionRequest, Evaluation]], records: int
) -> None:
    gateway = Enforcer("gateway-1", time_ms=NOW_MS)
    bodies: Iterator[tuple[Decision, tuple[Opening, ...]]] = (_body(bundle, *pair) for pair in cycle(pairs))
    for _ in range(0, records, _APPENDED):
        entries = [
            pending(gateway.record(body), ledger.vault, openings) for body, openings in islice(bodies, _APPENDED)
        ]
        ledger.append(*entries)


def _body(bundle: Bundle, request: DecisionRequest, evaluation: Evaluation) -> tuple[Decision, tuple[Opening, ...]]:
    answer = evaluation.decision
    template, _ = decision(0)
    asked, opening = commit("request", secrets.token_bytes(SALT_BYTES), encode_request(request))
    message, message_opening = commit("message", secrets.token_bytes(SALT_BYTES), b"{}")
    reference = BundleReference(
        name=bundle.manifest.name,
        revision=bundle.revision,
        engine=answer.engine,
        engine_version=answer.engine_version,
    )
    body = msgspec.structs.replace(
        template,
        agent=request.principal.agent,
        server=request.resource.server,
        tags=request.resource.tags,
        method=request.action,
        tool=request.resource.name,
        decision=answer.effect.value,
        rules=answer.rules,
        failed_condition=answer.failed_condition,
        obligations=answer.obligations,
        reason=answer.reason,
        drift=answer.drift,
        facts=None,
        request=asked,
        message=message,
        bundle=reference,
    )
    return body, (opening, message_opening)


async def _alone(bundle: Bundle, requests: Sequence[DecisionRequest], evaluator: Evaluator) -> float:
    many = list(islice(cycle(requests), _ALONE))
    with timed() as watch:
        await evaluator.evaluate_many(bundle, many)
    return len(many) / watch.seconds


async def _walk(history: History, bundle: Bundle, records: int, evaluator: Evaluator) -> float:
    async def find(revision: str) -> Bundle:
        if revision != bundle.revision:
            raise BenchmarkError("a decision names another bundle")
        return bundle

    impact = Impact(from_ms=NOW_MS, to_ms=NOW_MS + _PERIOD_MS, read_from_ms=NOW_MS)
    walk = ImpactWalk(impact, evaluator, find, candidate=None)
    with timed() as watch:
        stretch = await asyncio.to_thread(history.stretch, impact, records, 0)
        async for _ in walk.over(history.pages(stretch.first_leaf, stretch.end_leaf, impact)):
            pass
    if impact.reproduced != impact.decisions or impact.decisions != records:
        raise BenchmarkError(f"{impact.reproduced} of {impact.decisions} decisions came out as recorded")
    return records / watch.seconds


def _peak_mib() -> int:
    gc.collect()
    return getrusage(RUSAGE_SELF).ru_maxrss // 1024
