"""Engines in processes of their own: whatever a process does or suffers, there is one decision, and it denies."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.errors import PolicySyntaxError
from policies import frames
from policies.bundles import Bundle
from policies.directories import read_library_bundle
from policies.engine import EngineStoppedError, Limit, Reason
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.model import Decision, Effect
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
    """An evaluator over the engine of deeds, and the pool of its processes."""

    def __init__(self, program: EngineProgram = PROGRAM, limits: WorkerLimits = LIMITS, **options: float) -> None:
        self.now = self.seconds = 0.0
        self.pool = WorkerPool(limits, lambda: self.now)
        self.engine = WorkerEngine(program, self.pool)
        self.evaluator = Evaluator(
            {program.name: self.engine}, workers=self.pool, clock=lambda: self.seconds, **options
        )  # type: ignore[arg-type]  # counts

    def decide(self, *agents: str, bundle: Bundle = BUNDLE) -> list[Decision]:
        requests = [make_request(agent=agent) for agent in agents]
        return [item.decision for item in asyncio.run(self.evaluator.evaluate_many(bundle, requests))]

    @contextmanager
    def hurried(self, seconds: float = 0.2) -> Iterator[None]:
        """Have little time for what is asked in the block: nothing honest is."""
        self.pool.limits = replace(LIMITS, evaluation_seconds=seconds, load_seconds=seconds)
        yield
        self.pool.limits = LIMITS

    def pid(self) -> int:
        """Return the process that would answer next."""
        (decision,) = self.decide("who")
        return int(decision.rules[0])


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Processes that the tests of the module share; whatever one test does to them, the next finds good ones."""
    made = Workers()
    yield made
    made.evaluator.close()


@pytest.fixture
def own() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.evaluator.close()


def told(decision: Decision) -> tuple[Effect, str, str]:
    return decision.effect, decision.reason, decision.detail


def wait_for_end(pid: int) -> None:
    """Wait until a process is gone, be it anybody's child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ready, _, _ = select.select([descriptor], [], [], 60)
    os.close(descriptor)
    assert ready, "the process lives on"


# --- decisions are those of the engine


def test_cedar_decides_in_its_process_as_it_does_here():
    bundle = read_library_bundle("demo")
    requests = [case.given.request() for case in read_cases(bundle)]
    here, there = Evaluator({"cedar": CedarEngine()}), make_evaluator()
    try:
        expected = [item.decision for item in asyncio.run(here.evaluate_many(bundle, requests))]
        assert [item.decision for item in asyncio.run(there.evaluate_many(bundle, requests))] == expected
        assert asyncio.run(there.check(bundle)) == asyncio.run(here.check(bundle))
        assert there.engine_version("cedar") == here.engine_version("cedar")
        with pytest.raises(PolicySyntaxError, match=r"policy\.cedar:1: "):
            asyncio.run(there.check(cedar_bundle("permit (principal")))
        assert there.status.workers.running == there.status.workers.started <= 2
    finally:
        here.close()
        there.close()


def test_results_come_in_the_order_of_requests_over_several_processes(workers):
    agents = [f"agent-{number}" for number in range(1500)]
    assert [decision.rules[0] for decision in workers.decide(*agents)] == agents


def test_process_is_used_again(workers):
    assert workers.pid() == workers.pid()


# --- limits


@pytest.mark.parametrize("deed", ["spin", "sleep"])
def test_evaluation_that_takes_too_long_is_killed_and_denied(workers, deed):
    before = workers.pid()
    with workers.hurried():
        (decision,) = workers.decide(deed)
    assert told(decision) == (Effect.INDETERMINATE, Reason.LIMITED, Limit.TIME)
    assert (decision.bundle_revision, decision.engine_version) == (BUNDLE.revision, VERSION)
    wait_for_end(before)
    assert workers.pid() != before


@pytest.mark.parametrize("deed", ["allocate", "exhaust-rust"])
def test_evaluation_that_wants_too_much_memory_is_denied(workers, deed):
    (decision,) = workers.decide(deed)
    assert told(decision) == (Effect.INDETERMINATE, Reason.LIMITED, Limit.MEMORY)


@pytest.mark.parametrize("deed", ["abort", "fault", "exit", "answer-nonsense", "answer-endlessly"])
def test_evaluation_that_takes_its_process_along_is_denied(workers, deed):
    (decision,) = workers.decide(deed)
    assert told(decision) == (Effect.INDETERMINATE, Reason.LIMITED, Limit.CRASH)


@pytest.mark.parametrize(("deed", "name"), [("panic", "PanicException"), ("fail", "ValueError")])
def test_engine_that_raises_denies_by_the_name_of_its_error_and_its_process_is_not_used_again(workers, deed, name):
    before = workers.pid()
    (decision,) = workers.decide(deed)
    assert told(decision) == (Effect.INDETERMINATE, Reason.ENGINE_ERROR, name)
    assert workers.pid() != before


def test_request_that_kills_does_not_take_its_neighbours_along(workers):
    with workers.hurried(1):
        decisions = workers.decide("a", "abort", "b", "spin", "c")
    assert [decision.effect for decision in decisions] == [
        Effect.PERMIT,
        Effect.INDETERMINATE,
        Effect.PERMIT,
        Effect.INDETERMINATE,
        Effect.PERMIT,
    ]
    assert [decision.detail for decision in decisions] == ["", Limit.CRASH, "", Limit.TIME, ""]


def test_request_that_kills_is_tried_once_alone_and_not_for_ever(own):
    own.decide("a", "exit")
    started = own.pool.status.started
    own.decide("exit")
    own.decide("a")
    assert own.pool.status.started - started == 2, "one to die of it, one for the next"
    assert own.evaluator.status.limited == {Limit.CRASH: 2}


def test_stopped_process_is_killed(workers):
    pid = workers.pid()
    os.kill(pid, signal.SIGSTOP)
    with workers.hurried():
        (decision,) = workers.decide("a")
    assert told(decision) == (Effect.INDETERMINATE, Reason.LIMITED, Limit.TIME)
    wait_for_end(pid)


def test_processes_that_died_while_nobody_asked_cost_no_decision(workers):
    workers.pid()
    for pid in workers.pool.pids():
        os.kill(pid, signal.SIGKILL)
        wait_for_end(pid)
    (decision,) = workers.decide("a")
    assert decision.effect is Effect.PERMIT


def test_killing_every_process_under_load_permits_nothing_that_was_not_decided(own):
    async def load() -> list[Decision]:
        calls = [own.evaluator.evaluate_many(BUNDLE, [make_request(agent=f"a{number}")]) for number in range(200)]
        tasks = [asyncio.create_task(call) for call in calls]
        for done, task in enumerate(tasks):
            await task
            if done % 20 == 0:
                for pid in own.pool.pids():
                    os.kill(pid, signal.SIGKILL)
        return [task.result()[0].decision for task in tasks]

    decisions = asyncio.run(load())
    assert len(decisions) == 200
    for number, decision in enumerate(decisions):
        if decision.effect is Effect.PERMIT:
            assert decision.rules == (f"a{number}",)
        else:
            assert (decision.reason, decision.detail) == (Reason.LIMITED, Limit.CRASH)


def test_answer_that_nobody_asked_for_is_given_to_nobody_else(workers):
    """A forged answer that comes too early is that request's own; what is left in the channel reaches no other."""
    workers.decide("answer-early")
    (decision,) = workers.decide("honest")
    assert decision.rules == ("honest",)


def test_answer_to_a_caller_who_went_away_reaches_nobody(own):
    async def scenario() -> Decision:
        leaving = asyncio.create_task(own.evaluator.evaluate_many(BUNDLE, [make_request(agent="leaving")] * 300))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        (staying,) = await own.evaluator.evaluate_many(BUNDLE, [make_request(agent="staying")])
        return staying.decision

    assert asyncio.run(scenario()).rules == ("staying",)


def test_request_too_large_for_a_frame_is_denied(workers, monkeypatch):
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 500)
    (decision,) = workers.decide("a" * 500)
    assert told(decision) == (Effect.INDETERMINATE, Reason.LIMITED, Limit.SIZE)


@pytest.mark.parametrize("agent", ["\ud800", "a" * 1025])
def test_request_that_no_record_could_hold_is_denied_and_costs_no_process(workers, agent):
    before = workers.pid()
    (decision,) = workers.decide(agent)
    assert told(decision) == (Effect.INDETERMINATE, Reason.REQUEST_ERROR, "request")
    assert workers.pid() == before


# --- bundles


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("spin", r"the engine was stopped when it read this bundle \(time\)"),
        ("abort", r"the engine was stopped when it read this bundle \(crash\)"),
        ("allocate", r"the engine was stopped when it read this bundle \(memory\)"),
        ("panic", r"the engine failed on this bundle \(PanicException\)"),
    ],
)
def test_bundle_that_harms_its_reader_is_refused_and_not_read_again_at_once(own, deed, message):
    bundle = cedar_bundle(deed, engine=ENGINE)
    own.pid()
    with own.hurried(1), pytest.raises(PolicySyntaxError, match=message):
        asyncio.run(own.evaluator.check(bundle))
    started = own.pool.status.started
    (decision,) = own.decide("a", bundle=bundle)
    assert told(decision) == (Effect.INDETERMINATE, Reason.BUNDLE_ERROR, "")
    assert own.pool.status.started == started


def test_good_bundle_that_a_bad_time_kept_from_being_read_is_read_after_a_while(own):
    own.pid()
    slow = cedar_bundle("sleep", engine=ENGINE)
    with own.hurried(1):
        (decision,) = own.decide("a", bundle=slow)
    assert decision.reason == Reason.BUNDLE_ERROR
    own.engine.load = lambda _: WorkerEngine.load(own.engine, BUNDLE)  # type: ignore[method-assign]  # it reads well now
    started = own.pool.status.started
    for now, reason in [(0.0, Reason.BUNDLE_ERROR), (59.0, Reason.BUNDLE_ERROR), (61.0, "policy")]:
        own.seconds = now
        (decision,) = own.decide("a", bundle=slow)
        assert decision.reason == reason
        assert own.pool.status.started == started or reason == "policy"


def test_process_that_has_forgotten_a_bundle_is_told_it_again():
    made = Workers(limits=WorkerLimits(loaded_bundles=1))
    bundles = [BUNDLE, cedar_bundle("another", engine=ENGINE)]
    try:
        for bundle in bundles * 2:
            (decision,) = made.decide("a", bundle=bundle)
            assert (decision.effect, decision.bundle_revision) == (Effect.PERMIT, bundle.revision)
        assert made.pool.status.started == 1
    finally:
        made.evaluator.close()


def test_bundle_that_was_prepared_is_ready_in_every_process_for_single_decisions(own):
    asyncio.run(own.evaluator.prepare(BUNDLE))
    status = own.pool.status
    assert (status.running, status.leased, status.started) == (2, 0, 2)
    own.decide("a")
    assert own.pool.status.started == 2


@pytest.mark.parametrize("deed", ["abort", "panic"])
def test_bundle_that_cannot_be_prepared_is_left_to_its_decisions(own, deed):
    bundle = cedar_bundle(deed, engine=ENGINE)
    asyncio.run(own.evaluator.prepare(bundle))
    (decision,) = own.decide("a", bundle=bundle)
    assert decision.reason == Reason.BUNDLE_ERROR


# --- what the process may do


def test_process_has_no_secret_and_no_way_out(workers, monkeypatch):
    monkeypatch.setenv("TALLYSTICK_PASSPHRASE", "secret")
    leaking = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaking, True)
    try:
        for pid in workers.pool.pids():
            os.kill(pid, signal.SIGKILL)
            wait_for_end(pid)
        (decision,) = workers.decide("try-everything")
    finally:
        os.close(leaking)
    found = json.loads(decision.detail)
    assert found["fork"] == found["run"] == found["socket"] == found["signal"] == "PermissionError"
    assert found["signal a thread"] == found["signal by descriptor"] == "PermissionError"
    assert found["write"] == found["remove"] == "PermissionError"
    assert found["thread"] == "RuntimeError"
    assert found["more memory"] in {"ValueError", "PermissionError", "done"}  # root may; others may not
    assert set(found["environment"]) <= {"LC_CTYPE", "TZ"}  # the first of them is Python's own
    assert len(found["descriptors"]) <= 4, "the channel, two ends for output, and the one that lists them"
    assert (found["directory"], found["session"], found["core"]) == ("/", True, 0)


def test_no_process_outlives_its_parent():
    """The parent is killed while one child spins and another waits to be asked."""
    script = (
        "import os, sys, threading\n"
        "from policies.worker_process import EngineProgram, WorkerLimits\n"
        "from policies.workers import WorkerEngine, WorkerPool\n"
        "from tests.support.engines import ENGINE, FACTORY, VERSION\n"
        "from tests.support.policies import cedar_bundle, make_request\n"
        "pool = WorkerPool(WorkerLimits(evaluation_seconds=600))\n"
        "program = EngineProgram(name=ENGINE, version=VERSION, factory=FACTORY, paths=tuple(sys.argv[1:]))\n"
        "engine = WorkerEngine(program, pool)\n"
        "loaded = engine.load(cedar_bundle('good', engine=ENGINE))\n"
        "ask = lambda agent: engine.evaluate(loaded, [make_request(agent=agent)])\n"
        "threading.Thread(target=ask, args=('spin',), daemon=True).start()\n"
        "while not pool.status.leased: pass\n"
        "ask('good')\n"
        "print(*pool.pids(), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(own_paths())}
    done = subprocess.run(
        [sys.executable, "-c", script, *own_paths()],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        wait_for_end(pid)


# --- processes that cannot be had


@pytest.mark.parametrize(
    "program",
    [
        EngineProgram(name=ENGINE, version=VERSION, factory="tests.support.nothing:Engine", paths=own_paths()),
        EngineProgram(name=ENGINE, version="2.0", factory=FACTORY, paths=own_paths()),
        EngineProgram(name="another", version=VERSION, factory=FACTORY, paths=own_paths()),
    ],
    ids=["no such engine", "another version", "another engine"],
)
def test_engine_that_is_not_what_it_should_be_denies_and_is_not_started_again_at_once(program):
    made = Workers(program)
    bundle = cedar_bundle("good", engine=program.name)
    try:
        for _ in range(3):
            (decision,) = made.decide("a", bundle=bundle)
            assert told(decision) == (Effect.INDETERMINATE, Reason.LIMITED, Limit.UNAVAILABLE)
        assert made.pool.status.started == 1
        with pytest.raises(PolicySyntaxError, match="unavailable"):
            asyncio.run(made.evaluator.check(bundle))
        made.now += 0.1
        made.decide("a", bundle=bundle)
        made.now += 0.1  # the second pause is longer
        made.decide("a", bundle=bundle)
        assert made.pool.status.started == 2
    finally:
        made.evaluator.close()


def test_engine_that_could_not_be_had_decides_once_it_can(own, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError

    with monkeypatch.context() as broken:
        broken.setattr(subprocess, "Popen", fail)
        (decision,) = own.decide("a")
        assert told(decision) == (Effect.INDETERMINATE, Reason.LIMITED, Limit.UNAVAILABLE)
    own.now += 60
    (decision,) = own.decide("a")
    assert decision.effect is Effect.PERMIT


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("call", ["socket.socketpair", "os.memfd_create"])
def test_want_of_descriptors_costs_none_and_refuses_no_bundle_for_good(own, monkeypatch, call):
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    before = descriptors()
    with monkeypatch.context() as broken:
        broken.setattr(call, fail)
        broken.setattr(subprocess, "Popen", fail)
        with pytest.raises(EngineStoppedError, match="unavailable"):
            own.engine.load(BUNDLE)
    assert descriptors() == before
    own.now += 60
    (decision,) = own.decide("a")
    assert decision.effect is Effect.PERMIT


def test_closed_pool_starts_nothing_and_ends_what_is_under_way():
    made = Workers(limits=WorkerLimits(evaluation_seconds=600))
    loaded = made.engine.load(BUNDLE)
    ended: list[Limit] = []

    def ask() -> None:
        with pytest.raises(EngineStoppedError) as caught:
            made.engine.evaluate(loaded, [make_request(agent="sleep")])
        ended.append(caught.value.limit)

    thread = threading.Thread(target=ask)
    thread.start()
    made.pool.close()
    thread.join(60)
    assert ended[0] in {Limit.CRASH, Limit.UNAVAILABLE}
    assert made.pool.status.running == 0
    with pytest.raises(EngineStoppedError, match="unavailable"):
        made.engine.evaluate(loaded, [make_request()])
    made.evaluator.close()


def test_processes_that_nobody_needed_for_long_are_let_go(own):
    async def crowd() -> None:
        await asyncio.gather(
            *(own.evaluator.evaluate_many(BUNDLE, [make_request(agent=f"a{n}")]) for n in range(20)),
            own.evaluator.evaluate_many(BUNDLE, [make_request(agent="b")] * 600),
        )

    asyncio.run(crowd())
    before = own.pool.status.running
    assert 2 <= before <= 4
    own.now += 301
    own.decide("a")
    assert own.pool.status.running == 1
