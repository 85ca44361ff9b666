"""Engines in processes of their own: leased, returned, started again.

`WorkerEngine` is an `Engine` like any other to its callers; behind it stands a process of `WorkerPool` that has the
real one (`policies.worker_process`, and in the child `policies.worker`).

How many processes there are follows from how many ask at once: a process is leased for one question, the one used last
first, and a new one is started where all are taken. Who may ask at once is bounded by `policies.evaluate`. Processes
that nobody has needed for a while are let go.

A process that does not come up is no hostile policy but a broken installation: then the next start has to wait, longer
each time, and who asks meanwhile is told so at once (`Limit.UNAVAILABLE`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from ledger.errors import MalformedError, PolicyError, PolicySyntaxError, TallystickError
from policies.bundles import Bundle
from policies.engine import EngineFailedError, EngineStoppedError, Limit, LoadedBundle
from policies.frames import Answer, Decided, Evaluate, Failed, Load, Loaded, Refused, UnknownBundle, encode_frame
from policies.model import Decision, DecisionRequest
from policies.worker_process import EngineProgram, WorkerLimits, WorkerProcess

__all__ = ["WorkerEngine", "WorkerPool", "WorkerStatus"]

_IDLE_SECONDS: Final = 300.0
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 10.0
_MOST_DOUBLINGS: Final = 10
_MOST_DIRECT_CHARS: Final = 16 << 10
"""Arguments that a socket takes at once, with what else a question holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """How the processes are.

    Attributes:
        running: Processes that are there.
        leased: Those of them that are asked something at the moment.
        started: Processes that were ever started.
        stopped: Processes that ended otherwise than in peace, by what ended them.
    """

    running: int
    leased: int
    started: int
    stopped: dict[str, int]


class WorkerPool:
    """The processes of all engines of one program. Safe for any thread."""

    def __init__(self, limits: WorkerLimits | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Start none yet.

        Args:
            limits: What each may take.
            clock: Measures pauses, seconds.
        """
        self.limits = limits or WorkerLimits()
        self._clock = clock
        self._lock = threading.Lock()
        # All guarded by _lock.
        self._idle: list[WorkerProcess] = []
        self._leased: set[WorkerProcess] = set()
        self._started = 0
        self._stopped: Counter[str] = Counter()
        self._failed_starts: Counter[EngineProgram] = Counter()
        self._not_before: dict[EngineProgram, float] = {}
        self._closed = False

    @property
    def status(self) -> WorkerStatus:
        """How the processes are."""
        with self._lock:
            return WorkerStatus(
                running=len(self._idle) + len(self._leased),
                leased=len(self._leased),
                started=self._started,
                stopped=dict(self._stopped),
            )

    def pids(self) -> list[int]:
        """Return the process ids of all that are there."""
        with self._lock:
            return [worker.process.pid for worker in (*self._idle, *self._leased)]

    def close(self) -> None:
        """End all processes, those included that are asked something at the moment."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            leased = tuple(self._leased)
        for worker in leased:
            worker.kill()  # its lease lets go of it
        for worker in idle:
            worker.release()

    @contextmanager
    def lease(self, program: EngineProgram) -> Iterator[WorkerProcess]:
        """Hold a process for the block, which alone may ask it; one that an error comes out of is not used again.

        On Linux a process dies with the thread that started it: call this from threads that live as long as the pool.

        Raises:
            EngineStoppedError: None can be had, or the block was told so.
        """
        worker = self._take(program)
        try:
            yield worker
        except BaseException as error:
            self._drop(worker, error)
            raise
        for stale in self._give_back(worker):
            stale.release()

    @asynccontextmanager
    async def lease_idle(self, program: EngineProgram) -> AsyncIterator[WorkerProcess | None]:
        """Hold a process that is idle for the block, as `lease` does; None if there is none. Waits for nothing."""
        worker = self._idle_of(program)
        if worker is not None and not worker.is_fresh():
            await self._drop_apart(worker, EngineStoppedError(Limit.CRASH))
            worker = None
        if worker is None:
            yield None
            return
        try:
            yield worker
        except asyncio.CancelledError:  # nobody waits any longer for what it says, and it may never say anything
            await self._drop_apart(worker, EngineStoppedError(Limit.TIME))
            raise
        except BaseException as error:
            await self._drop_apart(worker, error)
            raise
        for stale in self._give_back(worker):
            await asyncio.shield(asyncio.to_thread(stale.release))

    async def _drop_apart(self, worker: WorkerProcess, error: BaseException) -> None:
        """Drop a process without the event loop waiting for its end, and whatever becomes of the caller."""
        await asyncio.shield(asyncio.to_thread(self._drop, worker, error))

    def _take(self, program: EngineProgram) -> WorkerProcess:
        while (worker := self._idle_of(program)) is not None:
            if worker.is_fresh():
                return worker
            self._drop(worker, EngineStoppedError(Limit.CRASH))
        return self._start(program)

    def _idle_of(self, program: EngineProgram) -> WorkerProcess | None:
        with self._lock:
            for place in reversed(range(len(self._idle))):
                if self._idle[place].program == program:
                    worker = self._idle.pop(place)
                    self._leased.add(worker)
                    return worker
        return None

    def _start(self, program: EngineProgram) -> WorkerProcess:
        with self._lock:
            if self._closed or self._clock() < self._not_before.get(program, 0.0):
                raise EngineStoppedError(Limit.UNAVAILABLE)
            self._started += 1
        try:
            worker = WorkerProcess(program, self.limits)
        except EngineStoppedError as error:
            self._pause(program)
            raise EngineStoppedError(Limit.UNAVAILABLE) from error
        if not self._admit(worker):
            worker.release()
            raise EngineStoppedError(Limit.UNAVAILABLE)
        return worker

    def _admit(self, worker: WorkerProcess) -> bool:
        """Take a new process in, unless the pool was closed while it started."""
        with self._lock:
            if not self._closed:
                self._leased.add(worker)
            return not self._closed

    def _pause(self, program: EngineProgram) -> None:
        """Have the next start of a program wait."""
        with self._lock:
            failed = self._failed_starts[program]
            self._failed_starts[program] += 1
            self._stopped[Limit.UNAVAILABLE] += 1
            pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(failed, _MOST_DOUBLINGS), _LONGEST_PAUSE_SECONDS)
            self._not_before[program] = self._clock() + pause

    def _give_back(self, worker: WorkerProcess) -> list[WorkerProcess]:
        """Take a process back, and return those that are to be let go of."""
        with self._lock:
            self._leased.discard(worker)
            self._failed_starts.pop(worker.program, None)
            worker.used_at = now = self._clock()
            stale = [other for other in self._idle if now - other.used_at > _IDLE_SECONDS]
            self._idle = [other for other in self._idle if other not in stale]
            if self._closed:
                stale.append(worker)
            else:
                self._idle.append(worker)
        return stale

    def _drop(self, worker: WorkerProcess, error: BaseException) -> None:
        worker.release()
        cause = error.limit if isinstance(error, EngineStoppedError) else Limit.CRASH
        with self._lock:
            self._leased.discard(worker)
            if not self._closed:
                self._stopped[cause] += 1


def _failure(answer: Failed) -> TallystickError:
    """Return what a failure in the child is here."""
    if answer.error == MemoryError.__name__:
        return EngineStoppedError(Limit.MEMORY)
    if answer.error == EngineStoppedError.__name__:
        return EngineStoppedError(Limit.SIZE)
    if answer.error == MalformedError.__name__:
        return MalformedError("not a request that could be recorded")
    return EngineFailedError(answer.error)


@dataclass(frozen=True, slots=True)
class _Handle:
    """A loaded bundle as this side has it: the frame that has any process load it."""

    load: bytes


class WorkerEngine:
    """An engine in processes of its own; safe for any thread."""

    def __init__(self, program: EngineProgram, pool: WorkerPool) -> None:
        """Take what is to be started and who starts it."""
        self._program = program
        self._pool = pool

    @property
    def name(self) -> str:
        """Name that bundle manifests and decision records carry."""
        return self._program.name

    @property
    def version(self) -> str:
        """Exact version of the engine's package."""
        return self._program.version

    def load(self, bundle: Bundle) -> LoadedBundle:
        """Have a process read a bundle.

        Raises:
            PolicySyntaxError: The engine refuses it; or reading it failed, took too long, too much or the process.
            EngineStoppedError: No process could be had.
        """
        handle = _Handle(encode_frame(Load(archive=bundle.archive())))
        try:
            answer = self._first_load(handle)
        except EngineStoppedError as error:
            if error.limit is Limit.UNAVAILABLE:
                raise
            raise PolicySyntaxError(f"the engine was stopped when it read this bundle ({error.limit})") from error
        except EngineFailedError as error:
            raise PolicySyntaxError(f"the engine failed on this bundle ({error.error})") from error
        if isinstance(answer, Refused):
            raise PolicySyntaxError(answer.message)
        return LoadedBundle(revision=answer.revision, rules=answer.rules, handle=handle)

    def prepare(self, loaded: LoadedBundle, count: int) -> None:
        """Have so many processes read a bundle that was loaded before, so that none has to when it is asked.

        Raises:
            EngineStoppedError: A process could not be had, or a limit stopped it.
            EngineFailedError: The engine raised something.
        """
        assert isinstance(loaded.handle, _Handle)  # made by `load`
        with ExitStack() as leases:
            for _ in range(count):
                self._load_into(leases.enter_context(self._pool.lease(self._program)), loaded.handle)

    def _first_load(self, handle: _Handle) -> Loaded | Refused:
        try:
            return self._load_alone(handle)
        except EngineStoppedError as error:
            if error.limit is not Limit.CRASH:
                raise
        # A process can die of other things than the bundle, and a refusal is kept.
        return self._load_alone(handle)

    def _load_alone(self, handle: _Handle) -> Loaded | Refused:
        with self._pool.lease(self._program) as worker:
            return self._load_into(worker, handle)

    def _load_into(self, worker: WorkerProcess, handle: _Handle) -> Loaded | Refused:
        answer = worker.ask(handle.load, self._pool.limits.load_seconds)
        if isinstance(answer, Loaded | Refused):
            return answer
        raise _failure(answer) if isinstance(answer, Failed) else EngineStoppedError(Limit.CRASH)

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """Return one decision for each request, in order.

        Raises:
            PolicyError: The bundle was loaded by another engine.
            EngineFailedError: The engine raised something.
            EngineStoppedError: A limit stopped it.
            MalformedError: A request is none that could be recorded.
        """
        if not isinstance(loaded.handle, _Handle):
            raise PolicyError("the bundle was loaded by another engine")
        frame = _question(loaded, tuple(requests))
        seconds = self._pool.limits.batch_seconds(len(requests))
        with self._pool.lease(self._program) as worker:
            answer = worker.ask(frame, seconds)
            if isinstance(answer, UnknownBundle):
                self._load_into(worker, loaded.handle)
                answer = worker.ask(frame, seconds)
            answered = _answered(answer)
        return list(_decisions(answered))

    async def evaluate_directly(self, loaded: LoadedBundle, request: DecisionRequest) -> Decision | None:
        """Return the decision of a process that is idle and has read the bundle, from the event loop itself.

        None if there is no such process, or the request is too long to be written at once.

        Raises:
            Errors as `evaluate` does.
        """
        if not isinstance(loaded.handle, _Handle):
            raise PolicyError("the bundle was loaded by another engine")
        if len(request.arguments) > _MOST_DIRECT_CHARS:
            return None
        frame = _question(loaded, (request,))
        async with self._pool.lease_idle(self._program) as worker:
            if worker is None:
                return None
            answer = await worker.ask_directly(frame, self._pool.limits.evaluation_seconds)
            if isinstance(answer, UnknownBundle):
                return None
            answered = _answered(answer)
        decisions = _decisions(answered)
        if len(decisions) != 1:
            raise PolicyError("the engine returned another number of decisions")
        return decisions[0]


def _question(loaded: LoadedBundle, requests: tuple[DecisionRequest, ...]) -> bytes:
    return encode_frame(Evaluate(revision=loaded.revision, requests=requests))


def _answered(answer: Answer) -> Decided | Failed:
    """Return an answer after which the process may be asked more.

    Raises:
        TallystickError: It may not.
    """
    if isinstance(answer, Failed) and answer.ends:
        raise _failure(answer)
    if not isinstance(answer, Decided | Failed):
        raise EngineStoppedError(Limit.CRASH)
    return answer


def _decisions(answer: Decided | Failed) -> tuple[Decision, ...]:
    if isinstance(answer, Failed):
        raise _failure(answer)
    return answer.decisions
