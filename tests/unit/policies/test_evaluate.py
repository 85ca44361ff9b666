"""The evaluator: whatever an engine does, there is one decision for each request, and it is a deny if in doubt."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest

from ledger.errors import MalformedError, PolicySyntaxError
from policies.bundles import Bundle
from policies.engine import EngineFailedError, EngineStoppedError, Limit
from policies.evaluate import Evaluator, LoadedBundle, Reason
from policies.model import Decision, DecisionRequest, Effect
from tests.support.policies import cedar_bundle, make_request

BUNDLE = cedar_bundle("// for no engine in particular")


class PanicException(BaseException):  # PyO3's own name, and a BaseException as PyO3's is
    """Stands for a panic of native code."""


class ScriptedEngine:
    """Does what it is told, and counts."""

    name = "cedar"
    version = "1.2.3"

    def __init__(self) -> None:
        self.loads = 0
        self.evaluations = 0
        self.threads: set[int] = set()
        self.on_load: Callable[[], None] = lambda: None
        self.on_request: Callable[[DecisionRequest], None] = lambda _: None
        self.shorten = False

    def load(self, bundle: Bundle) -> LoadedBundle:
        self.loads += 1
        self.threads.add(threading.get_ident())
        self.on_load()
        return LoadedBundle(revision=bundle.revision, rules=("a", "b"), handle=bundle.revision)

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:
        self.evaluations += 1
        self.threads.add(threading.get_ident())
        decisions = []
        for request in requests:
            self.on_request(request)
            decisions.append(
                Decision(
                    effect=Effect.PERMIT,
                    bundle_revision=loaded.revision,
                    engine=self.name,
                    engine_version=self.version,
                    rules=(request.principal.agent,),
                )
            )
        return decisions[1:] if self.shorten else decisions


@pytest.fixture
def engine():
    return ScriptedEngine()


@pytest.fixture
def scripted(engine):
    made = Evaluator({"cedar": engine}, max_loaded=2)
    yield made
    made.close()


def run(evaluator: Evaluator, *agents: str, bundle: Bundle = BUNDLE) -> list[Decision]:
    requests = [make_request(agent=agent) for agent in agents]
    return [item.decision for item in asyncio.run(evaluator.evaluate_many(bundle, requests))]


def test_results_come_in_the_order_of_requests(scripted):
    agents = [f"agent-{number}" for number in range(1000)]
    assert [decision.rules[0] for decision in run(scripted, *agents)] == agents


def test_no_requests_give_no_results_and_load_nothing(scripted, engine):
    assert run(scripted) == []
    assert engine.loads == 0


def test_engines_run_off_the_event_loop(scripted, engine):
    run(scripted, "a")
    assert threading.get_ident() not in engine.threads


@pytest.mark.parametrize("error", [ValueError("secret"), MemoryError(), RecursionError(), PanicException("secret")])
def test_engine_that_fails_denies(scripted, engine, error):
    def fail(_: DecisionRequest) -> None:
        raise error

    engine.on_request = fail
    (decision,) = run(scripted, "a")
    assert decision.effect is Effect.INDETERMINATE
    assert not decision.permitted
    assert (decision.reason, decision.detail) == (Reason.ENGINE_ERROR, type(error).__name__)
    assert (decision.bundle_revision, decision.engine, decision.engine_version) == (BUNDLE.revision, "cedar", "1.2.3")


def test_request_that_fails_the_engine_does_not_take_its_neighbours_along(scripted, engine):
    def fail(request: DecisionRequest) -> None:
        if request.principal.agent == "poison":
            raise PanicException

    engine.on_request = fail
    effects = [decision.effect for decision in run(scripted, "a", "poison", "b", "poison")]
    assert effects == [Effect.PERMIT, Effect.INDETERMINATE, Effect.PERMIT, Effect.INDETERMINATE]


def test_engine_that_loses_a_decision_denies_rather_than_shifts_the_others(scripted, engine):
    engine.shorten = True
    decisions = run(scripted, "a", "b")
    assert [decision.reason for decision in decisions] == [Reason.ENGINE_ERROR] * 2


@pytest.mark.parametrize("limit", Limit)
def test_engine_that_a_limit_stops_denies_as_limited_and_is_counted(scripted, engine, limit):
    def stop(request: DecisionRequest) -> None:
        if request.principal.agent == "poison":
            raise EngineStoppedError(limit)

    engine.on_request = stop
    decisions = run(scripted, "a", "poison", "b")
    assert [decision.effect for decision in decisions] == [Effect.PERMIT, Effect.INDETERMINATE, Effect.PERMIT]
    assert (decisions[1].reason, decisions[1].detail) == (Reason.LIMITED, limit)
    assert scripted.status.limited == {limit: 1}


def test_engine_that_failed_elsewhere_is_named_by_its_own_error(scripted, engine):
    def fail(_: DecisionRequest) -> None:
        raise EngineFailedError("PanicException")

    engine.on_request = fail
    (decision,) = run(scripted, "a")
    assert (decision.reason, decision.detail) == (Reason.ENGINE_ERROR, "PanicException")


def test_request_that_cannot_be_handed_over_is_a_request_error(scripted, engine):
    def fail(_: DecisionRequest) -> None:
        raise MalformedError("secret")

    engine.on_request = fail
    (decision,) = run(scripted, "a")
    assert (decision.effect, decision.reason, decision.detail) == (
        Effect.INDETERMINATE,
        Reason.REQUEST_ERROR,
        "request",
    )


def test_engine_that_cannot_be_had_denies_and_refuses_no_bundle_for_good(scripted, engine):
    def stop() -> None:
        raise EngineStoppedError(Limit.UNAVAILABLE)

    engine.on_load = stop
    decisions = run(scripted, "a", "b")
    assert [(decision.reason, decision.detail) for decision in decisions] == [(Reason.LIMITED, Limit.UNAVAILABLE)] * 2
    with pytest.raises(PolicySyntaxError, match="unavailable"):
        asyncio.run(scripted.check(BUNDLE))
    engine.on_load = lambda: None
    assert [decision.effect for decision in run(scripted, "a")] == [Effect.PERMIT]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_ends_the_program_or_task_is_not_swallowed(scripted, engine, error):
    def fail(_: DecisionRequest) -> None:
        raise error

    engine.on_request = fail
    with pytest.raises(error):
        scripted._evaluate(BUNDLE, (make_request(),))


@pytest.mark.parametrize("error", [PolicySyntaxError("policy.cedar:3: no"), PanicException("no"), KeyError("no")])
def test_bundle_that_does_not_load_denies_every_request(scripted, engine, error):
    def fail() -> None:
        raise error

    engine.on_load = fail
    decisions = run(scripted, "a", "b")
    assert [(decision.effect, decision.reason) for decision in decisions] == [
        (Effect.INDETERMINATE, Reason.BUNDLE_ERROR)
    ] * 2
    assert engine.evaluations == 0


def test_check_tells_why_a_bundle_does_not_load(scripted, engine):
    def fail() -> None:
        raise PolicySyntaxError("policy.cedar:3: no")

    engine.on_load = fail
    with pytest.raises(PolicySyntaxError, match=r"policy\.cedar:3: no"):
        asyncio.run(scripted.check(BUNDLE))


def test_check_reports_a_panic_as_a_refusal(scripted, engine):
    def fail() -> None:
        raise PanicException("secret")

    engine.on_load = fail
    with pytest.raises(PolicySyntaxError, match=r"the engine failed on this bundle \(PanicException\)"):
        asyncio.run(scripted.check(BUNDLE))


def test_check_returns_the_rules(scripted):
    assert asyncio.run(scripted.check(BUNDLE)) == ("a", "b")


def test_bundle_for_an_engine_that_is_not_installed_denies(scripted):
    bundle = cedar_bundle("//", engine="rego")
    (decision,) = run(scripted, "a", bundle=bundle)
    assert (decision.reason, decision.engine, decision.engine_version) == (Reason.BUNDLE_ERROR, "rego", "unavailable")
    with pytest.raises(PolicySyntaxError, match="no engine named rego"):
        asyncio.run(scripted.check(bundle))
    assert scripted.engine_version("rego") is None
    assert scripted.engine_version("cedar") == "1.2.3"


def test_bundle_is_loaded_once_even_if_it_is_refused(scripted, engine):
    for _ in range(3):
        run(scripted, "a")
    assert engine.loads == 1

    def fail() -> None:
        raise PolicySyntaxError("no")

    engine.on_load = fail
    broken = cedar_bundle("// broken")
    for _ in range(3):
        run(scripted, "a", bundle=broken)
    assert engine.loads == 2


def test_loaded_bundles_are_bounded_and_the_least_used_goes_first(scripted, engine):
    first, second, third = (cedar_bundle(f"// {number}") for number in range(3))
    for bundle in (first, second, first, third, first):
        run(scripted, "a", bundle=bundle)
    assert engine.loads == 3
    run(scripted, "a", bundle=second)
    assert engine.loads == 4


def test_duration_is_the_mean_of_requests_evaluated_together(engine):
    ticks = iter([1_000_000, 1_900_000])
    evaluator = Evaluator({"cedar": engine}, lambda: next(ticks))
    results = asyncio.run(evaluator.evaluate_many(BUNDLE, [make_request(), make_request(), make_request()]))
    assert [item.duration_us for item in results] == [300] * 3
    evaluator.close()


def test_decisions_do_not_depend_on_the_clock(engine):
    slow = Evaluator({"cedar": engine}, iter(range(0, 10**12, 10**9)).__next__)
    fast = Evaluator({"cedar": engine}, lambda: 0)
    assert run(slow, "a", "b") == run(fast, "a", "b")
    slow.close()
    fast.close()


@pytest.mark.parametrize("stuck_requests", [1, 600])
def test_long_replay_does_not_hold_up_a_decision(engine, stuck_requests):
    """A second evaluation gets its answer while a first one is stuck in the engine."""
    evaluator = Evaluator({"cedar": engine}, threads=2 if stuck_requests == 1 else 1, batch_threads=1)
    entered, released = threading.Event(), threading.Event()

    def wait(request: DecisionRequest) -> None:
        if request.principal.agent == "stuck":
            entered.set()
            assert released.wait(timeout=30)

    engine.on_request = wait

    async def both() -> list[str]:
        stuck = asyncio.create_task(evaluator.evaluate_many(BUNDLE, [make_request(agent="stuck")] * stuck_requests))
        assert await asyncio.to_thread(entered.wait, 30)
        (quick,) = await evaluator.evaluate_many(BUNDLE, [make_request(agent="quick")])
        released.set()
        return [quick.decision.rules[0], (await stuck)[0].decision.rules[0]]

    assert asyncio.run(both()) == ["quick", "stuck"]
    evaluator.close()


def test_logs_take_turns_at_batches(engine):
    """One log's long replay is under way when another's begins; the other waits for one piece of it."""
    evaluator = Evaluator({"cedar": engine}, batch_threads=1)
    first, second, third = (evaluator.taking_turns_as(name) for name in ("first", "second", "third"))
    gate, entered, over, order = threading.Event(), threading.Event(), threading.Event(), list[str]()

    def note(request: DecisionRequest) -> None:
        if request.principal.agent == "third":  # has the thread that is there for the others
            entered.set()
            over.wait(30)
            return
        gate.wait(30)
        if order[-1:] != [request.principal.agent]:
            order.append(request.principal.agent)

    engine.on_request = note

    async def both() -> None:
        long = asyncio.create_task(third.evaluate_many(BUNDLE, [make_request(agent="third")] * 2))
        assert await asyncio.to_thread(entered.wait, 30)
        pieces = [first.evaluate_many(BUNDLE, [make_request(agent="first")] * 2) for _ in range(20)]
        tasks = [asyncio.create_task(piece) for piece in pieces]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(second.evaluate_many(BUNDLE, [make_request(agent="second")] * 2)))
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks)
        over.set()
        await long

    asyncio.run(both())
    assert order == ["first", "second", "first"]
    evaluator.close()


def test_batches_are_bounded_by_the_length_of_their_arguments_too(scripted, engine):
    requests = [make_request(arguments='{"a":"%s"}' % ("x" * (1 << 20))) for _ in range(9)]
    results = asyncio.run(scripted.evaluate_many(BUNDLE, requests))
    assert len(results) == 9
    assert engine.evaluations == 3


@pytest.mark.parametrize(("count", "pieces"), [(1, 1), (64, 1), (65, 2), (256, 2), (512, 2), (513, 3), (1024, 4)])
def test_batch_is_shared_out_among_the_threads_that_are_there(scripted, engine, count, pieces):
    run(scripted, *(["a"] * count))
    assert engine.evaluations == pieces


# --- other versions


class OlderEngine(ScriptedEngine):
    version = "1.2.2"


class OneVersionCellar:
    def __init__(self, engine: OlderEngine) -> None:
        self._engine = engine

    def versions(self, name: str) -> tuple[str, ...]:
        return ("1.2.3", "1.2.2") if name == "cedar" else ()

    def engine(self, name: str, version: str) -> OlderEngine | None:
        return self._engine if (name, version) == ("cedar", "1.2.2") else None


@pytest.fixture
def stocked(engine):
    made = Evaluator({"cedar": engine}, cellar=OneVersionCellar(OlderEngine()))
    yield made
    made.close()


@pytest.mark.parametrize(("asked", "by"), [(None, "1.2.3"), ("1.2.3", "1.2.3"), ("1.2.2", "1.2.2")])
def test_version_that_is_asked_for_decides(stocked, asked, by):
    for _ in range(2):
        (result,) = asyncio.run(stocked.evaluate_many(BUNDLE, [make_request()], engine_version=asked))
        assert (result.decision.effect, result.decision.engine_version) == (Effect.PERMIT, by)


def test_version_that_nobody_has_decides_nothing(stocked):
    (result,) = asyncio.run(stocked.evaluate_many(BUNDLE, [make_request()], engine_version="0.9"))
    assert (result.decision.reason, result.decision.engine_version) == (Reason.BUNDLE_ERROR, "unavailable")


def test_versions_are_told_the_installed_one_first(stocked, scripted):
    assert stocked.engine_versions("cedar") == ("1.2.3", "1.2.2")
    assert scripted.engine_versions("cedar") == ("1.2.3",)
    assert stocked.engine_versions("rego") == ()
