"""Policy engines in their processes: single decisions, batches, replays; and what policies about others cost."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.decisions import recorded_decisions
from benchmarks.measure import BenchmarkError, Plan, Section, Table, figure, percentile, ratios, spread, timed
from benchmarks.plot import Series, line_chart
from policies.bundles import Bundle
from policies.engine import Engine, LoadedBundle
from policies.engines.cedar import CedarEngine
from policies.engines.rego import RegoEngine
from policies.evaluate import Evaluator
from policies.model import DecisionRequest
from policies.replay import RecordedDecision, ReplayClass, replay_many
from service.wiring.engines import make_evaluator
from tests.support.policies import cedar_bundle, make_request, rego_bundle

__all__ = ["run"]

_CHART = "other-servers.svg"
_SINGLES = 200
_OTHERS = (0, 10, 100, 500, 2000)
_RELEVANT = 10

_METHOD = f"""A decision through `Evaluator` and back, the engine in a process of its own; every policy of a bundle is
about the called tool and has to be looked at, with schema and exact parameters. *Floor*: the same request to the same
engine in this process, which is no way to run it. {_SINGLES} single decisions in each round, one after the other; then
batches over two processes. {{rounds}} interleaved rounds; figures are min · **median** · max."""

_OTHERS_NOTE = f"""Of what other servers' policies cost: a bundle with {_RELEVANT} policies about the called tool and so
many about two hundred other servers, asked in this process, as a multiple of the bundle without any. Policies that name
their server in the scope are not looked at; in a condition, they are. ![Plotted]({_CHART})"""


@dataclass(slots=True)
class _Subject:
    """One bundle that is asked, and what was found.

    Attributes:
        label: Its row.
        bundle: Asked.
        engine: The same engine, in this process.
        requests: What it is asked, by turns.
        floor: Microseconds a decision of the engine in this process, by round; the others likewise.
        p50: Of single decisions.
        p99: Of single decisions.
        batch: Decisions a second, in batches.
        replay: Recorded decisions a second.
    """

    label: str
    bundle: Bundle
    engine: Engine
    requests: list[DecisionRequest]
    floor: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    replay: list[float] = field(default_factory=list)


def _limits(count: int, place: str = "shop/sell") -> str:
    """Return so many Cedar policies about one tool; all but the first hold of no request here."""
    permit = f'@id("{place}-0") permit (principal, action == Action::"tools/call", resource == Tool::"{place}");'
    return "\n".join(
        [permit]
        + [
            f'@id("{place}-{number}") forbid (principal, action == Action::"tools/call", resource == Tool::"{place}")\n'
            f"when {{ context.args has amount && context.args.amount > {1_000_000 + number} }};"
            for number in range(1, count)
        ]
    )


def _about_others(count: int, *, in_scope: bool) -> str:
    """Return so many Cedar policies about other servers, which they name in the scope or in a condition."""
    scope = ', resource in Server::"s{n}")' if in_scope else ', resource) when { resource in Server::"s{n}" }'
    text = '@id("other-{k}") forbid (principal, action == Action::"tools/call"' + scope + ";"
    return "\n".join(text.replace("{k}", str(number)).replace("{n}", str(number % 200)) for number in range(count))


_REGO = """package bench
allow if {
    input.principal.agent in {"Bot", "Clerk"}
    input.action == "tools/call"
    input.args.amount <= 1000
}
"""


def run(plan: Plan) -> Section:
    """Measure and return the section; the chart is written beside the results."""
    requests = [make_request(arguments=f'{{"amount": {amount}}}', calls=amount) for amount in range(64)]
    cedar, rego = CedarEngine(), RegoEngine()
    subjects = [
        _Subject("Cedar, 10 policies", cedar_bundle(_limits(10)), cedar, requests),
        _Subject("Cedar, 200 policies", cedar_bundle(_limits(200)), cedar, requests),
        _Subject("Rego, 1 rule", rego_bundle(_REGO, package="bench"), rego, requests),
    ]
    evaluator = make_evaluator()
    try:
        asyncio.run(_measure(plan, evaluator, subjects))
    finally:
        evaluator.close()
    others = _measure_others(plan, cedar, requests)
    chart = line_chart(
        "What policies about other servers cost a call",
        across="policies about other servers",
        up="a decision, as a multiple of one without them",
        series=[Series(label, [median(values) for values in rows]) for label, rows in others.items()],
        marks=[str(count) for count in _OTHERS],
    )
    (Path(__file__).resolve().parent / _CHART).write_text(chart, encoding="utf-8")
    return Section(
        title="Policy engines",
        method=_METHOD.format(rounds=plan.rounds),
        tables=[_single_table(subjects), _batch_table(subjects), _others_table(others)],
        notes=[_OTHERS_NOTE],
    )


async def _measure(plan: Plan, evaluator: Evaluator, subjects: list[_Subject]) -> None:
    recorded = {
        one.label: await recorded_decisions(one.bundle, evaluator, one.requests, plan.choose(4_096, 100_000))
        for one in subjects
    }
    for number in range(plan.rounds):
        for one in subjects:
            one.floor.append(_here(one))
            await _one_by_one(evaluator, one)
            one.batch.append(await _in_batches(evaluator, one, plan.choose(4_096, 100_000)))
            one.replay.append(await _replayed(evaluator, one, recorded[one.label]))
        told = ", ".join(f"{one.label} {figure(one.p50[-1])} µs" for one in subjects)
        plan.say(f"round {number + 1}: {told}")


def _here(one: _Subject) -> float:
    loaded = one.engine.load(one.bundle)
    one.engine.evaluate(loaded, one.requests)
    with timed() as watch:
        for request in islice(cycle(one.requests), _SINGLES):
            one.engine.evaluate(loaded, [request])
    return 1e6 * watch.seconds / _SINGLES


async def _one_by_one(evaluator: Evaluator, one: _Subject) -> None:
    await evaluator.evaluate_many(one.bundle, one.requests[:1])
    taken: list[float] = []
    for request in islice(cycle(one.requests), _SINGLES):
        started = perf_counter()
        (answer,) = await evaluator.evaluate_many(one.bundle, [request])
        taken.append(1e6 * (perf_counter() - started))
        if not answer.decision.permitted:
            raise BenchmarkError(f"{one.label}: another decision than expected ({answer.decision.reason})")
    one.p50.append(percentile(taken, 50))
    one.p99.append(percentile(taken, 99))


async def _in_batches(evaluator: Evaluator, one: _Subject, count: int) -> float:
    many = list(islice(cycle(one.requests), count))
    await evaluator.evaluate_many(one.bundle, many[:1024])  # both processes have the bundle then
    with timed() as watch:
        answers = await evaluator.evaluate_many(one.bundle, many)
    if not all(answer.decision.permitted for answer in answers):
        raise BenchmarkError(f"{one.label}: another decision than expected")
    return count / watch.seconds


async def _replayed(evaluator: Evaluator, one: _Subject, recorded: list[RecordedDecision]) -> float:
    with timed() as watch:
        results = await replay_many(recorded, one.bundle, evaluator)
    if any(not result.same or result.classification is not ReplayClass.EXACT for result in results):
        raise BenchmarkError(f"{one.label}: a replay did not give the recorded decision")
    return len(recorded) / watch.seconds


def _measure_others(
    plan: Plan, engine: CedarEngine, requests: list[DecisionRequest]
) -> Mapping[str, list[list[float]]]:
    """Return multiples by where policies name their server: for each number of policies, by round."""
    found: dict[str, list[list[float]]] = {}
    for label, in_scope in (("named in the scope", True), ("named in a condition", False)):
        loaded = [
            engine.load(cedar_bundle("\n".join([_limits(_RELEVANT), _about_others(count, in_scope=in_scope)])))
            for count in _OTHERS
        ]
        rows: list[list[float]] = [[] for _ in _OTHERS]
        for _ in range(plan.rounds):
            times = [_time(engine, bundle, requests) for bundle in loaded]
            for row, taken in zip(rows, times, strict=True):
                row.append(taken / times[0])
        found[label] = rows
        plan.say(f"2,000 policies about others, {label}: {figure(rows[-1][-1])} times as long")
    return found


def _time(engine: CedarEngine, loaded: LoadedBundle, requests: list[DecisionRequest]) -> float:
    engine.evaluate(loaded, requests)
    with timed() as watch:
        engine.evaluate(loaded, requests)
    return watch.cpu_seconds


def _single_table(subjects: list[_Subject]) -> Table:
    table = Table(("time until the answer, one by one", "p50 ÷ floor", "p50, µs", "p99, µs", "floor, µs"))
    for one in subjects:
        row = (one.label, spread(ratios(one.p50, one.floor)), spread(one.p50), spread(one.p99), spread(one.floor))
        table.rows.append(row)
    return table


def _batch_table(subjects: list[_Subject]) -> Table:
    table = Table(("in batches, two processes", "÷ floor", "decisions/s", "replayed, records/s"))
    for one in subjects:
        rates = [1e6 / taken for taken in one.floor]
        table.rows.append((one.label, spread(ratios(one.batch, rates)), spread(one.batch), spread(one.replay)))
    return table


def _others_table(others: Mapping[str, list[list[float]]]) -> Table:
    table = Table(("policies about other servers", *others))
    for place, count in enumerate(_OTHERS):
        table.rows.append((f"{count:,}", *(spread(rows[place]) for rows in others.values())))
    return table
