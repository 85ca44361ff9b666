"""Decisions that the event loop asks for itself: they are those of the evaluator, and whatever goes wrong denies."""

from __future__ import annotations

import asyncio
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from policies.bundles import Bundle
from policies.direct import DirectEvaluator
from policies.directories import read_library_bundle
from policies.engine import Limit, Reason
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.model import Decision, DecisionRequest, Effect
from policies.programs import own_paths
from policies.testing import read_cases
from policies.worker_process import EngineProgram, WorkerLimits
from policies.workers import WorkerEngine, WorkerPool
from service.wiring.engines import make_evaluator
from tests.support.engines import ENGINE, FACTORY, VERSION
from tests.support.policies import cedar_bundle, make_request

LIMITS = WorkerLimits(evaluation_seconds=30, memory_bytes=1 << 30)
PROGRAM = EngineProgram(name=ENGINE, version=VERSION, factory=FACTORY, paths=own_paths())
BUNDLE = cedar_bundle("good", engine=ENGINE)


class Workers:
    """An evaluator over the engine of deeds that counts what went its own way, and not directly."""

    def __init__(self) -> None:
        self.pool = WorkerPool(LIMITS)
        self.evaluator = Evaluator({ENGINE: WorkerEngine(PROGRAM, self.pool)}, workers=self.pool)
        asyncio.run(self.evaluator.prepare(BUNDLE))

    def decide(self, *agents: str, bundle: Bundle = BUNDLE) -> list[Decision]:
        """Return what is decided of calls that come at once."""
        return asyncio.run(self.decide_here(*(make_request(agent=agent) for agent in agents), bundle=bundle))

    async def decide_here(self, *requests: DecisionRequest, bundle: Bundle = BUNDLE) -> list[Decision]:
        direct = DirectEvaluator(self.evaluator)
        answers = await asyncio.gather(*(direct.evaluate_many(bundle, [request]) for request in requests))
        return [evaluation.decision for (evaluation,) in answers]


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.evaluator.close()


@pytest.fixture
def only_direct(workers, monkeypatch) -> Workers:
    """Processes that are idle and know the bundle, of which nothing is asked but directly."""
    asyncio.run(workers.evaluator.prepare(BUNDLE))

    async def refused(*_: object) -> None:
        raise AssertionError("it went the other way")

    monkeypatch.setattr(workers.evaluator, "evaluate_many", refused)
    return workers


def told(decision: Decision) -> tuple[Effect, str, str]:
    return decision.effect, decision.reason, decision.detail


def test_cedar_decides_directly_as_it_does_otherwise():
    bundle = read_library_bundle("demo")
    requests = [case.given.request() for case in read_cases(bundle)]
    there = make_evaluator()

    async def both() -> tuple[list[Decision], list[Decision]]:
        await there.prepare(bundle)
        direct = DirectEvaluator(there)
        one_by_one = [(await direct.evaluate_many(bundle, [request]))[0].decision for request in requests]
        return one_by_one, [item.decision for item in await there.evaluate_many(bundle, requests)]

    try:
        directly, otherwise = asyncio.run(both())
    finally:
        there.close()
    assert directly == otherwise
    assert {decision.effect for decision in directly} > {Effect.PERMIT}


def test_calls_that_come_at_once_get_each_its_own_answer_and_no_further_process(only_direct):
    started = only_direct.pool.status.started
    agents = [f"agent-{number}" for number in range(50)]
    assert [decision.rules[0] for decision in only_direct.decide(*agents)] == agents
    assert only_direct.pool.status.started == started


def test_duration_is_that_of_the_one_question(only_direct, monkeypatch):
    monkeypatch.setattr(only_direct.evaluator, "_clock_ns", iter((1_000_000, 4_000_000)).__next__)
    direct = DirectEvaluator(only_direct.evaluator)
    (evaluation,) = asyncio.run(direct.evaluate_many(BUNDLE, [make_request(agent="a")]))
    assert evaluation.duration_us == 3000


# --- whatever a process does or suffers


@pytest.mark.parametrize("deed", ["spin", "sleep"])
def test_evaluation_that_takes_too_long_is_killed_and_denied(only_direct, deed):
    before = set(only_direct.pool.pids())
    only_direct.pool.limits = replace(LIMITS, evaluation_seconds=0.2)
    (decision,) = only_direct.decide(deed)
    only_direct.pool.limits = LIMITS
    assert told(decision) == (Effect.INDETERMINATE, Reason.LIMITED, Limit.TIME)
    assert (decision.bundle_revision, decision.engine_version) == (BUNDLE.revision, VERSION)
    assert len(before & set(only_direct.pool.pids())) == len(before) - 1


@pytest.mark.parametrize(
    ("deed", "limit"),
    [
        ("abort", Limit.CRASH),
        ("exit", Limit.CRASH),
        ("answer-nonsense", Limit.CRASH),
        ("answer-endlessly", Limit.CRASH),
        ("exhaust-rust", Limit.MEMORY),
    ],
)
def test_evaluation_that_takes_its_process_along_is_denied(only_direct, deed, limit):
    (decision,) = only_direct.decide(deed)
    assert told(decision) == (Effect.INDETERMINATE, Reason.LIMITED, limit)


@pytest.mark.parametrize(("deed", "name"), [("panic", "PanicException"), ("fail", "ValueError")])
def test_engine_that_raises_denies_by_the_name_of_its_error_and_its_process_is_not_used_again(only_direct, deed, name):
    before = set(only_direct.pool.pids())
    (decision,) = only_direct.decide(deed)
    assert told(decision) == (Effect.INDETERMINATE, Reason.ENGINE_ERROR, name)
    assert len(before & set(only_direct.pool.pids())) == len(before) - 1


def test_request_that_no_record_could_hold_is_denied_and_costs_no_process(only_direct):
    before = only_direct.pool.pids()
    (decision,) = only_direct.decide("a" * 1025)
    assert told(decision) == (Effect.INDETERMINATE, Reason.REQUEST_ERROR, "request")
    assert only_direct.pool.pids() == before


def test_answer_that_nobody_asked_for_is_given_to_nobody_else(workers):
    asyncio.run(workers.evaluator.prepare(BUNDLE))
    workers.decide("answer-early")
    idle = workers.pool._idle
    if not any(worker._buffer for worker in idle):  # the second answer came with the first one, or it still comes
        assert select.select([worker._channel for worker in idle], [], [], 60)[0]
    (decision,) = workers.decide("honest")
    assert decision.rules == ("honest",)


def test_caller_who_waits_no_longer_leaves_no_answer_behind(workers):
    asyncio.run(workers.evaluator.prepare(BUNDLE))

    async def scenario() -> Decision:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await workers.decide_here(make_request(agent="sleep"))
        (staying,) = await workers.decide_here(make_request(agent="staying"))
        return staying

    assert asyncio.run(scenario()).rules == ("staying",)
    assert workers.pool.status.stopped[Limit.TIME] >= 1
    assert workers.pool.status.leased == 0


def test_killing_every_process_under_load_permits_nothing_that_was_not_decided(workers):
    async def load() -> list[Decision]:
        direct = DirectEvaluator(workers.evaluator)
        calls = [direct.evaluate_many(BUNDLE, [make_request(agent=f"a{number}")]) for number in range(60)]
        tasks = [asyncio.create_task(call) for call in calls]
        for done, task in enumerate(tasks):
            await task
            if done % 20 == 0:
                for pid in workers.pool.pids():
                    os.kill(pid, signal.SIGKILL)
        return [task.result()[0].decision for task in tasks]

    for number, decision in enumerate(asyncio.run(load())):
        if decision.effect is Effect.PERMIT:
            assert decision.rules == (f"a{number}",)
        else:
            assert told(decision) == (Effect.INDETERMINATE, Reason.LIMITED, Limit.CRASH)


# --- what goes the other way


def test_bundle_that_nobody_has_read_is_read_first(workers):
    unread = cedar_bundle("unread", engine=ENGINE)
    (decision,) = workers.decide("a", bundle=unread)
    assert (decision.effect, decision.bundle_revision) == (Effect.PERMIT, unread.revision)


def test_bundle_that_is_refused_denies(workers):
    (decision,) = workers.decide("a", bundle=cedar_bundle("panic", engine=ENGINE))
    assert decision.reason == Reason.BUNDLE_ERROR


def test_process_that_has_forgotten_a_bundle_is_told_it_again():
    pool = WorkerPool(replace(LIMITS, loaded_bundles=1))
    evaluator = Evaluator({ENGINE: WorkerEngine(PROGRAM, pool)}, workers=pool)
    bundles = [BUNDLE, cedar_bundle("another", engine=ENGINE)]

    async def each() -> None:
        direct = DirectEvaluator(evaluator)
        for bundle in bundles * 2:
            (evaluation,) = await direct.evaluate_many(bundle, [make_request(agent="a")])
            assert evaluation.decision.bundle_revision == bundle.revision
            assert evaluation.decision.effect is Effect.PERMIT

    try:
        asyncio.run(each())
        assert pool.status.started == 1
    finally:
        evaluator.close()


def test_long_request_is_decided(workers):
    async def decide() -> list[Decision]:
        return await workers.decide_here(make_request(agent="a", arguments='{"text":"' + "x" * 100_000 + '"}'))

    (decision,) = asyncio.run(decide())
    assert decision.effect is Effect.PERMIT


def test_several_requests_and_engines_without_process_are_decided_as_ever(workers):
    async def several() -> list[str]:
        direct = DirectEvaluator(workers.evaluator)
        together = await direct.evaluate_many(BUNDLE, [make_request(agent=agent) for agent in ("a", "b")])
        return [evaluation.decision.rules[0] for evaluation in together]

    assert asyncio.run(several()) == ["a", "b"]
    bundle, here = read_library_bundle("demo"), Evaluator({"cedar": CedarEngine()})
    requests = [case.given.request() for case in read_cases(bundle)][:1]
    try:
        expected = asyncio.run(here.evaluate_many(bundle, requests))
        (found,) = asyncio.run(DirectEvaluator(here).evaluate_many(bundle, requests))
        assert found.decision == expected[0].decision
    finally:
        here.close()
