"""Policy decisions: through the evaluator, one by one and in batches, beside Cedar alone; and replays of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import cycle, islice
from time import perf_counter

import cedarpy

from benchmarks.measure import BenchmarkError, Plan, Section, Table, figure, percentile, ratios, spread, timed
from benchmarks.records import decision
from ledger.bodies import BundleReference, Decision
from policies.bundles import Bundle
from policies.directories import read_library_bundle
from policies.engines.cedar import CedarEngine
from policies.engines.cedar_requests import EntityBase, cedar_context, cedar_request, read_entities
from policies.engines.cedar_schema import read_schema
from policies.evaluate import Evaluation, Evaluator
from policies.model import DecisionRequest, Effect, encode_request
from policies.parameters import parse_parameters
from policies.replay import RecordedDecision, ReplayClass, replay_many
from policies.testing import Case, case_requests, read_cases

__all__ = ["recorded_decisions", "run"]

_BATCH = 256
_CYCLES = 5
"""How often each request is evaluated one by one in a round: whole cycles, as in the batches, so that costs compare."""

_METHOD = """The demonstration's Cedar bundle ({rules} rules, schema, exact parameters) through `Evaluator`, with
those {requests} requests of its own tests that Cedar answers, each by turns. *Floor*: `cedarpy.is_authorized` with
all handles and the request in Cedar's own form ready made. {rounds} interleaved rounds; figures are min · **median**
· max."""

_THREADS_NOTE = f"""The engine is in this process, which is no way to run it: what its processes cost is measured
beside ([policy engines](#policy-engines)). A single decision passes to a thread and back; a batch does so once in
{_BATCH} requests. The entities of a request are read once for each agent and tool; the floor has them ready made."""

_REPLAY_NOTE = (
    """Replay reads {recorded:,} recorded requests from their canonical bytes, evaluates them and compares."""
)


@dataclass(slots=True)
class _Times:
    """Microseconds a decision, by round: of processor time, but for the two latencies."""

    cedar: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)
    single_p50: list[float] = field(default_factory=list)
    single_p99: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    replay: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Bare:
    """Cedar's own form of a request, ready made: nothing of ours is left to do."""

    request: dict[str, object]
    entities: cedarpy.Entities


def run(plan: Plan) -> Section:
    """Measure and return the section."""
    bundle = read_library_bundle("demo")
    evaluator = Evaluator({"cedar": CedarEngine()})
    try:
        return asyncio.run(_measure(plan, bundle, evaluator))
    finally:
        evaluator.close()


async def _measure(plan: Plan, bundle: Bundle, evaluator: Evaluator) -> Section:
    rules = await evaluator.check(bundle)
    cases = await _decided_cases(bundle, evaluator)
    requests = case_requests(bundle, cases)
    bare, policies, schema = _bare(bundle, requests)
    recorded = await recorded_decisions(bundle, evaluator, requests, plan.choose(2_000, 50_000))
    times = _Times()
    for number in range(plan.rounds):
        times.cedar.append(_time_cedar(bare, policies, schema))
        await _time_singles(bundle, evaluator, requests, times)
        times.batch.append(await _time_batches(bundle, evaluator, requests))
        times.replay.append(await _time_replay(bundle, evaluator, recorded))
        plan.say(
            f"round {number + 1}: a decision takes {figure(times.single[-1])} µs, replay {figure(times.replay[-1])}"
        )
    return Section(
        title="Policy decisions",
        method=_METHOD.format(rules=len(rules), requests=len(requests), rounds=plan.rounds),
        tables=[_cost_table(times), _latency_table(times)],
        notes=[_THREADS_NOTE, _REPLAY_NOTE.format(recorded=len(recorded))],
    )


# --- what is evaluated


async def _decided_cases(bundle: Bundle, evaluator: Evaluator) -> list[Case]:
    """Return the cases that Cedar answers, after making sure that it answers as they expect."""
    cases = read_cases(bundle)
    evaluations = await evaluator.evaluate_many(bundle, case_requests(bundle, cases))
    for case, evaluation in zip(cases, evaluations, strict=True):
        if case.expect.differences(evaluation.decision):
            raise BenchmarkError(f"{case.name}: another decision than expected")
    return [case for case in cases if case.expect.effect is not Effect.INDETERMINATE]


def _bare(bundle: Bundle, requests: list[DecisionRequest]) -> tuple[list[_Bare], cedarpy.PolicySet, cedarpy.Schema]:
    manifest = bundle.manifest
    schema = read_schema(bundle).handle
    policies = cedarpy.PolicySet.from_str("\n".join(bundle.files[path].decode() for path in manifest.policies))
    base: EntityBase = read_entities(bundle, schema)
    assert manifest.parameters is not None
    parameters = parse_parameters(bundle.files[manifest.parameters])
    found: list[_Bare] = []
    for request in requests:
        resource = request.resource
        arguments = parameters.extract(request.action, resource.server, resource.name, request.arguments)
        context = cedar_context(request, arguments, {})
        found.append(_Bare(cedar_request(request, context), base.with_request(request)))
    return found, policies, schema


async def recorded_decisions(
    bundle: Bundle, evaluator: Evaluator, requests: list[DecisionRequest], count: int
) -> list[RecordedDecision]:
    """Return decisions as a log and its vault hold them."""
    evaluations = await evaluator.evaluate_many(bundle, requests)
    pairs = list(zip(requests, evaluations, strict=True))
    found: list[RecordedDecision] = []
    for number, (request, evaluation) in enumerate(islice(cycle(pairs), count)):
        found.append(
            RecordedDecision(
                record_id=f"{number}", body=_body(bundle, request, evaluation), request=encode_request(request)
            )
        )
    return found


def _body(bundle: Bundle, request: DecisionRequest, evaluation: Evaluation) -> Decision:
    answer = evaluation.decision
    template, _ = decision(0)
    fields = {name: getattr(template, name) for name in template.__struct_fields__}
    fields |= {
        # Replay refuses a request of another call than the record's.
        "agent": request.principal.agent,
        "server": request.resource.server,
        "tags": request.resource.tags,
        "method": request.action,
        "tool": request.resource.name,
        "decision": answer.effect.value,
        "rules": answer.rules,
        "failed_condition": answer.failed_condition,
        "obligations": answer.obligations,
        "reason": answer.reason,
        # What replay looks for is that there is a request; its bytes are handed over opened.
        "request": template.message,
        "bundle": BundleReference(
            name=bundle.manifest.name,
            revision=bundle.revision,
            engine=answer.engine,
            engine_version=answer.engine_version,
        ),
    }
    return Decision(**fields)


# --- measuring


def _time_cedar(bare: list[_Bare], policies: cedarpy.PolicySet, schema: cedarpy.Schema) -> float:
    with timed() as watch:
        answers = [cedarpy.is_authorized(one.request, policies, one.entities, schema) for one in bare * _CYCLES]
    if any(answer.diagnostics.errors for answer in answers):
        raise BenchmarkError("Cedar did not answer")
    return 1e6 * watch.cpu_seconds / len(answers)


async def _time_singles(bundle: Bundle, evaluator: Evaluator, requests: list[DecisionRequest], times: _Times) -> None:
    taken: list[float] = []
    with timed() as watch:
        for request in requests * _CYCLES:
            started = perf_counter()
            await evaluator.evaluate_many(bundle, [request])
            taken.append(1e6 * (perf_counter() - started))
    times.single.append(1e6 * watch.cpu_seconds / len(taken))
    times.single_p50.append(percentile(taken, 50))
    times.single_p99.append(percentile(taken, 99))


async def _time_batches(bundle: Bundle, evaluator: Evaluator, requests: list[DecisionRequest]) -> float:
    many = requests * (4 * _BATCH // len(requests))
    with timed() as watch:
        await evaluator.evaluate_many(bundle, many)
    return 1e6 * watch.cpu_seconds / len(many)


async def _time_replay(bundle: Bundle, evaluator: Evaluator, recorded: list[RecordedDecision]) -> float:
    with timed() as watch:
        results = await replay_many(recorded, bundle, evaluator)
    if any(not result.same or result.classification is not ReplayClass.EXACT for result in results):
        raise BenchmarkError("a replay did not give the recorded decision")
    return 1e6 * watch.cpu_seconds / len(recorded)


def _cost_table(times: _Times) -> Table:
    table = Table(("processor time", "÷ floor", "µs a decision", "decisions a second of one core"))
    rows = {
        "one by one": times.single,
        f"in batches of {_BATCH}": times.batch,
        "replayed": times.replay,
        "floor: Cedar alone": times.cedar,
    }
    for label, values in rows.items():
        rates = [1e6 / value for value in values]
        table.rows.append((label, spread(ratios(values, times.cedar)), spread(values), spread(rates)))
    return table


def _latency_table(times: _Times) -> Table:
    table = Table(("time until the answer, one by one", "÷ processor time of the floor", "µs"))
    for label, values in (("p50", times.single_p50), ("p99", times.single_p99)):
        table.rows.append((label, spread(ratios(values, times.cedar)), spread(values)))
    return table
