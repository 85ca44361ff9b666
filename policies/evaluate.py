"""The evaluator that every decision goes through; the port of engines is `policies.engine`.

`Evaluator` runs engines off the event loop and keeps the latest loaded bundles. One request alone is somebody waiting
for an answer; many are a replay or a test. They go through lanes of their own, and within a lane the logs take turns
(`policies.turns`). Engines in production have processes of their own (`policies.workers`): the threads here only wait
for them.

INVARIANT 7: deny by default, fail closed. Whatever an engine raises, a panic of native code included, becomes an
INDETERMINATE decision, which every enforcement point treats as a deny; so does an engine that a limit stopped (reason
``limited``). A bundle that does not load answers every request with INDETERMINATE. `Evaluator.evaluate_many` never
raises for reasons of policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Protocol, Self

from ledger.errors import MalformedError, PolicyError, PolicySyntaxError
from policies.bundles import Bundle
from policies.engine import (
    Engine,
    EngineFailedError,
    EngineStoppedError,
    LoadedBundle,
    Reason,
    indeterminate,
)
from policies.model import Decision, DecisionRequest
from policies.turns import Lane
from policies.workers import WorkerEngine, WorkerPool, WorkerStatus

__all__ = [
    "Engine",
    "EngineCellar",
    "Evaluation",
    "Evaluator",
    "EvaluatorStatus",
    "LoadedBundle",
    "Reason",
    "indeterminate",
]

_CHUNK: Final = 256
_LEAST_CHUNK: Final = 64
"""A smaller piece is not worth the way to another process."""
_CHUNK_CHARS: Final = 4 << 20
_STOPPED_SECONDS: Final = 60.0
"""A bundle that a limit kept from being read is tried again after so long: the machine may have had a bad time."""
_NO_ENGINE_VERSION: Final = "unavailable"
_NO_WORKERS: Final = WorkerStatus(running=0, leased=0, started=0, stopped={})
# What ends a program or a task is never an engine's doing.
_NOT_AN_ENGINE_ERROR: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)


class EngineCellar(Protocol):
    """Engines of other versions than the installed ones; `policies.cellar` has one."""

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the exact versions of an engine that are there, the newest first."""
        ...

    def engine(self, name: str, version: str) -> Engine | None:
        """Return the engine of that version, or None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A decision and what it took.

    Attributes:
        decision: The decision.
        duration_us: Microseconds until the engine had answered; for requests evaluated together, their mean.
    """

    decision: Decision
    duration_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorStatus:
    """How evaluation is.

    Attributes:
        workers: The engines' processes.
        limited: Evaluations that a limit stopped, by limit.
    """

    workers: WorkerStatus
    limited: Mapping[str, int]


_Key = tuple[str, str, str]
"""Engine, its version, bundle revision."""


class Evaluator:
    """Evaluates requests under bundles; one for the whole process, safe for any task and thread.

    Attributes:
        threads: Single requests that are evaluated at once for one log.
    """

    def __init__(
        self,
        engines: Mapping[str, Engine],
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        *,
        max_loaded: int = 16,
        threads: int = 2,
        batch_threads: int = 2,
        cellar: EngineCellar | None = None,
        workers: WorkerPool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the engines by name.

        Args:
            engines: Name as in manifests → engine.
            clock_ns: Measures durations, nanoseconds; decisions never depend on it.
            max_loaded: Loaded (or refused) bundles that are kept.
            threads: Single requests that are evaluated at once for one log; there is one thread more for all others.
            batch_threads: Batches that are evaluated at once beside them, likewise.
            cellar: Engines of other versions.
            workers: The processes of the engines, if they have any; they end with the evaluator.
            clock: Tells when a bundle may be read again that a limit kept from being read, seconds.
        """
        self._engines = dict(engines)
        self._clock_ns = clock_ns
        self._max_loaded = max_loaded
        self.threads = threads
        self._batch_threads = batch_threads
        self._cellar = cellar
        self._workers = workers
        self._clock = clock
        self._turn = ""
        self._lock = threading.Lock()
        # Guarded by _lock. A refusal is kept as well: a broken bundle must not be parsed anew for every request.
        self._loaded: OrderedDict[_Key, LoadedBundle | PolicySyntaxError] = OrderedDict()
        # Refusals that may have been the machine's doing and not the bundle's, and until when they hold.
        self._refused_until: dict[_Key, float] = {}
        self._limited: Counter[str] = Counter()
        self._singles = Lane("policy", threads)
        self._batches = Lane("policies", batch_threads)

    def taking_turns_as(self, name: str) -> Self:
        """Return this evaluator for one log, say, whose work takes turns with that of others; close the original."""
        same = copy.copy(self)
        same._turn = name  # noqa: SLF001  # of this class
        return same

    def close(self) -> None:
        """Let threads and processes go; the evaluator cannot be used afterwards."""
        if self._workers is not None:
            self._workers.close()
        self._singles.close()
        self._batches.close()

    @property
    def status(self) -> EvaluatorStatus:
        """How evaluation is."""
        workers = _NO_WORKERS if self._workers is None else self._workers.status
        with self._lock:
            return EvaluatorStatus(workers=workers, limited=dict(self._limited))

    def engine_version(self, engine: str) -> str | None:
        """Return the exact version of the installed engine of that name, or None if there is none."""
        found = self._engines.get(engine)
        return None if found is None else found.version

    def engine_versions(self, engine: str) -> tuple[str, ...]:
        """Return the exact versions of an engine that can be had: the installed one first, then the cellar's."""
        installed = self.engine_version(engine)
        kept = () if self._cellar is None else self._cellar.versions(engine)
        first = () if installed is None else (installed,)
        return first + tuple(version for version in kept if version != installed)

    async def check(self, bundle: Bundle) -> tuple[str, ...]:
        """Load a bundle and return the names of its rules, in bundle order.

        Raises:
            PolicySyntaxError: The bundle cannot be used; the message names file and place.
        """

        def load() -> LoadedBundle:
            try:
                return self._load(bundle, None)
            except EngineStoppedError as error:
                raise PolicySyntaxError(f"the bundle was not read, for {error}") from error

        loaded = await asyncio.wrap_future(self._batches.submit(self._turn, load))
        return loaded.rules

    async def prepare(self, bundle: Bundle) -> None:
        """Have everything ready for single requests under a bundle: processes started, the bundle read by each.

        A bundle that cannot be used is left to `evaluate_many`, which says so.
        """

        def ready() -> None:
            with contextlib.suppress(PolicyError):
                loaded = self._load(bundle, None)
                engine = self._engine(bundle.manifest.engine, None)
                if isinstance(engine, WorkerEngine):
                    engine.prepare(loaded, self.threads)

        await asyncio.wrap_future(self._batches.submit(self._turn, ready))

    async def evaluate_many(
        self, bundle: Bundle, requests: Sequence[DecisionRequest], *, engine_version: str | None = None
    ) -> list[Evaluation]:
        """Return one evaluation for each request, in order.

        Long sequences are evaluated piece by piece, so that others get their turn and a cancelled caller is obeyed.

        Args:
            bundle: The bundle.
            requests: The requests.
            engine_version: One of `engine_versions`; the installed engine's if None.
        """
        lane = self._singles if len(requests) == 1 else self._batches
        return await self._evaluate_in(lane, bundle, requests, engine_version)

    async def evaluate_apart(self, bundle: Bundle, requests: Sequence[DecisionRequest]) -> list[Evaluation]:
        """Return one evaluation for each request, in order; even a single one waits among the batches.

        For what nobody waits for: it takes no turn of those who do.
        """
        return await self._evaluate_in(self._batches, bundle, requests, None)

    async def evaluate_directly(self, bundle: Bundle, request: DecisionRequest) -> Evaluation | None:
        """Return an evaluation by an engine's process, without a thread in between; None if that is impossible.

        It is not where the engine has no process or none is idle, where the bundle was not read before, and where the
        request is a long one: then `evaluate_many` is the way. Takes no turn: the caller bounds how many are under way.
        """
        name = bundle.manifest.engine
        engine = self._engines.get(name)
        if not isinstance(engine, WorkerEngine):
            return None
        loaded = self._known((name, engine.version, bundle.revision))
        if not isinstance(loaded, LoadedBundle):
            return None
        started = self._clock_ns()
        try:
            decision = await engine.evaluate_directly(loaded, request)
        except Exception as error:  # noqa: BLE001  # INVARIANT 7: whatever went wrong, there is no answer
            decision = indeterminate(bundle, engine.version, *self._reason(error))
        return None if decision is None else Evaluation(decision, (self._clock_ns() - started) // 1000)

    async def _evaluate_in(
        self, lane: Lane, bundle: Bundle, requests: Sequence[DecisionRequest], engine_version: str | None
    ) -> list[Evaluation]:
        results: list[Evaluation] = []
        pending: deque[Future[list[Evaluation]]] = deque()
        try:
            for chunk in _chunks(requests, self._batch_threads):
                if len(pending) >= self._batch_threads:
                    results += await _outcome(pending[0])
                    pending.popleft()
                pending.append(lane.submit(self._turn, _later(self._evaluate, bundle, chunk, engine_version)))
            while pending:
                results += await _outcome(pending[0])
                pending.popleft()
        finally:
            for future in pending:
                future.cancel()
        return results

    def _engine(self, name: str, version: str | None) -> Engine | None:
        installed = self._engines.get(name)
        if version is None or (installed is not None and installed.version == version):
            return installed
        return None if self._cellar is None else self._cellar.engine(name, version)

    def _load(self, bundle: Bundle, version: str | None) -> LoadedBundle:
        name = bundle.manifest.engine
        engine = self._engine(name, version)
        if engine is None:
            named = name if version is None else f"{name} {version}"
            raise PolicySyntaxError(f"no engine named {named} is installed")
        key = (name, engine.version, bundle.revision)
        known = self._known(key)
        if known is None:
            known = _load_new(engine, bundle)
            self._keep(key, known)
        if isinstance(known, PolicySyntaxError):
            # A fresh exception for each caller: one object raised in several threads would collect their tracebacks.
            raise PolicySyntaxError(str(known)) from known
        return known

    def _known(self, key: _Key) -> LoadedBundle | PolicySyntaxError | None:
        with self._lock:
            known = self._loaded.get(key)
            if known is not None:
                self._loaded.move_to_end(key)
            return None if self._clock() >= self._refused_until.get(key, math.inf) else known

    def _keep(self, key: _Key, known: LoadedBundle | PolicySyntaxError) -> None:
        with self._lock:
            self._loaded[key] = known
            self._refused_until.pop(key, None)
            if isinstance(known, PolicySyntaxError) and isinstance(known.__cause__, EngineStoppedError):
                self._refused_until[key] = self._clock() + _STOPPED_SECONDS
            while len(self._loaded) > self._max_loaded:
                dropped, _ = self._loaded.popitem(last=False)
                self._refused_until.pop(dropped, None)

    def _evaluate(
        self, bundle: Bundle, requests: tuple[DecisionRequest, ...], version: str | None = None
    ) -> list[Evaluation]:
        engine = self._engine(bundle.manifest.engine, version)
        said = _NO_ENGINE_VERSION if engine is None else engine.version
        try:
            loaded = self._load(bundle, version)
        except PolicySyntaxError:
            return [Evaluation(indeterminate(bundle, said, Reason.BUNDLE_ERROR), 0)] * len(requests)
        except EngineStoppedError as error:
            decision = indeterminate(bundle, said, *self._reason(error, len(requests)))
            return [Evaluation(decision, 0)] * len(requests)
        assert engine is not None  # else nothing was loaded
        return self._evaluate_together(engine, bundle, loaded, requests)

    def _evaluate_together(
        self, engine: Engine, bundle: Bundle, loaded: LoadedBundle, requests: tuple[DecisionRequest, ...]
    ) -> list[Evaluation]:
        """Evaluate as one; if the engine fails, each alone, so that one request cannot take its neighbours along."""
        started = self._clock_ns()
        try:
            decisions = engine.evaluate(loaded, requests)
            if len(decisions) != len(requests):
                raise PolicyError("the engine returned another number of decisions")  # noqa: TRY301  # treated as its failure
        except BaseException as error:  # INVARIANT 7: a panic of native code is a BaseException
            if isinstance(error, _NOT_AN_ENGINE_ERROR):
                raise
            if len(requests) > 1:
                alone = (self._evaluate_together(engine, bundle, loaded, (request,)) for request in requests)
                return [evaluation for evaluations in alone for evaluation in evaluations]
            decisions = [indeterminate(bundle, engine.version, *self._reason(error))]
        mean_us = (self._clock_ns() - started) // (1000 * len(requests))
        return [Evaluation(decision, mean_us) for decision in decisions]

    def _reason(self, error: BaseException, count: int = 1) -> tuple[Reason, str]:
        """Return what a decision says of an error, names alone; the limited are counted."""
        if isinstance(error, EngineStoppedError):
            with self._lock:
                self._limited[error.limit] += count
            return Reason.LIMITED, error.limit
        if isinstance(error, MalformedError):
            return Reason.REQUEST_ERROR, "request"
        return Reason.ENGINE_ERROR, error.error if isinstance(error, EngineFailedError) else type(error).__name__


async def _outcome(future: Future[list[Evaluation]]) -> list[Evaluation]:
    return await asyncio.wrap_future(future)


def _later(
    evaluate: Callable[[Bundle, tuple[DecisionRequest, ...], str | None], list[Evaluation]],
    bundle: Bundle,
    requests: tuple[DecisionRequest, ...],
    version: str | None,
) -> Callable[[], list[Evaluation]]:
    return lambda: evaluate(bundle, requests, version)


def _chunks(requests: Sequence[DecisionRequest], shares: int) -> Iterator[tuple[DecisionRequest, ...]]:
    """Return the requests in pieces, each bounded in number and in the length of arguments.

    Args:
        requests: All of them.
        shares: Pieces that may be evaluated at once; a batch that is no long one is shared out among them.
    """
    most = min(_CHUNK, max(_LEAST_CHUNK, -(-len(requests) // shares)))
    piece: list[DecisionRequest] = []
    chars = 0
    for request in requests:
        if piece and (len(piece) == most or chars + len(request.arguments) > _CHUNK_CHARS):
            yield tuple(piece)
            piece, chars = [], 0
        piece.append(request)
        chars += len(request.arguments)
    if piece:
        yield tuple(piece)


def _load_new(engine: Engine, bundle: Bundle) -> LoadedBundle | PolicySyntaxError:
    """Load a bundle, or say why it cannot be.

    Raises:
        EngineStoppedError: The engine cannot be had at the moment, which is no refusal to be kept.
    """
    try:
        return engine.load(bundle)
    except PolicySyntaxError as error:
        return error
    except EngineStoppedError:
        raise
    except BaseException as error:  # INVARIANT 7: a panic of native code is a BaseException
        if isinstance(error, _NOT_AN_ENGINE_ERROR):
            raise
        return PolicySyntaxError(f"the engine failed on this bundle ({type(error).__name__})")
