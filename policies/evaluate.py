"""The engine port, and the evaluator that every decision goes through.

An `Engine` turns a bundle into a `LoadedBundle` once, and requests into decisions any number of times. Everything that
crosses the port is plain data (requests and decisions are frozen structs, a loaded bundle is opaque to all but its
engine), so that an engine can live in another process without its callers noticing. Which engines exist is said by
``service.wiring`` alone; engine names are data here.

`Evaluator` runs engines off the event loop, in a few threads of its own, and keeps the latest loaded bundles.

INVARIANT 7: deny by default, fail closed. Whatever an engine raises, a panic of native code included, becomes an
INDETERMINATE decision, which every enforcement point treats as a deny. A bundle that does not load answers every
request with INDETERMINATE. `Evaluator.evaluate_many` never raises for reasons of policy.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from ledger.errors import PolicyError, PolicySyntaxError
from policies.bundles import Bundle
from policies.model import Decision, DecisionRequest, Effect

__all__ = ["Engine", "Evaluation", "Evaluator", "LoadedBundle", "Reason", "indeterminate"]

_CHUNK: Final = 256
_NO_ENGINE_VERSION: Final = "unavailable"
# What ends a program or a task is never an engine's doing.
_NOT_AN_ENGINE_ERROR: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)


class Reason(StrEnum):
    """Why a decision is what it is; the machine-readable cause in every decision record.

    ``POLICY``: rules determined it. ``NO_PERMIT``: no rule spoke, which is a deny. The others go with INDETERMINATE:
    a rule failed (``EVALUATION_ERROR``), the request does not fit the bundle's schema (``REQUEST_ERROR``), a parameter
    is not exact or missing (``PARAMETER_ERROR``) or has two values (``AMBIGUOUS_PARAMETER``), the engine failed
    (``ENGINE_ERROR``), or the bundle does not load (``BUNDLE_ERROR``).
    """

    POLICY = "policy"
    NO_PERMIT = "no_permit"
    EVALUATION_ERROR = "evaluation_error"
    REQUEST_ERROR = "request_error"
    PARAMETER_ERROR = "parameter_error"
    AMBIGUOUS_PARAMETER = "ambiguous_parameter"
    ENGINE_ERROR = "engine_error"
    BUNDLE_ERROR = "bundle_error"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedBundle:
    """A bundle that its engine has parsed and accepted.

    Attributes:
        revision: The bundle's digest.
        rules: Name of every rule, in bundle order.
        handle: The engine's own; nobody else looks into it.
    """

    revision: str
    rules: tuple[str, ...]
    handle: object


class Engine(Protocol):
    """A policy engine. Deterministic: no clock, network, file or randomness; safe for any thread."""

    @property
    def name(self) -> str:
        """Name that bundle manifests and decision records carry, such as ``cedar``."""
        ...

    @property
    def version(self) -> str:
        """Exact version of the engine's package."""
        ...

    def load(self, bundle: Bundle) -> LoadedBundle:
        """Parse and check a bundle.

        Raises:
            PolicySyntaxError: The bundle cannot be used; the message names file and place.
        """
        ...

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """Return one decision for each request, in order.

        What a policy or request gets wrong is an INDETERMINATE decision. An exception says that the engine itself
        failed; none of the decisions of the call may then be relied on.
        """
        ...


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A decision and what it took.

    Attributes:
        decision: The decision.
        duration_us: Microseconds that the engine took; for requests evaluated together, their mean.
    """

    decision: Decision
    duration_us: int


def indeterminate(bundle: Bundle, engine_version: str, reason: Reason, detail: str = "") -> Decision:
    """Return the decision that says: no answer, therefore no."""
    return Decision(
        effect=Effect.INDETERMINATE,
        bundle_revision=bundle.revision,
        engine=bundle.manifest.engine,
        engine_version=engine_version,
        reason=reason,
        detail=detail,
    )


class Evaluator:
    """Evaluates requests under bundles; one for the whole process, safe for any task and thread."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        *,
        max_loaded: int = 16,
        threads: int = 4,
    ) -> None:
        """Take the engines by name.

        Args:
            engines: Name as in manifests → engine.
            clock_ns: Measures durations, nanoseconds; decisions never depend on it.
            max_loaded: Loaded (or refused) bundles that are kept.
            threads: Evaluations that may run side by side, so that a long replay does not hold up a decision.
        """
        self._engines = dict(engines)
        self._clock_ns = clock_ns
        self._max_loaded = max_loaded
        self._lock = threading.Lock()
        # Guarded by _lock. A refusal is kept as well: a broken bundle must not be parsed anew for every request.
        self._loaded: OrderedDict[tuple[str, str], LoadedBundle | PolicySyntaxError] = OrderedDict()
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="policy")

    def close(self) -> None:
        """Let the threads go; the evaluator cannot be used afterwards."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def engine_version(self, engine: str) -> str | None:
        """Return the exact version of the installed engine of that name, or None if there is none."""
        found = self._engines.get(engine)
        return None if found is None else found.version

    async def check(self, bundle: Bundle) -> tuple[str, ...]:
        """Load a bundle and return the names of its rules, in bundle order.

        Raises:
            PolicySyntaxError: The bundle cannot be used; the message names file and place.
        """
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(self._executor, self._load, bundle)
        return loaded.rules

    async def evaluate_many(self, bundle: Bundle, requests: Sequence[DecisionRequest]) -> list[Evaluation]:
        """Return one evaluation for each request, in order.

        Long sequences are evaluated piece by piece, so that others get their turn and a cancelled caller is obeyed.
        """
        loop = asyncio.get_running_loop()
        results: list[Evaluation] = []
        for start in range(0, len(requests), _CHUNK):
            chunk = tuple(requests[start : start + _CHUNK])
            results += await loop.run_in_executor(self._executor, self._evaluate, bundle, chunk)
        return results

    def _load(self, bundle: Bundle) -> LoadedBundle:
        key = (bundle.manifest.engine, bundle.revision)
        with self._lock:
            known = self._loaded.get(key)
            if known is not None:
                self._loaded.move_to_end(key)
        if known is None:
            known = self._load_new(bundle)
            with self._lock:
                self._loaded[key] = known
                while len(self._loaded) > self._max_loaded:
                    self._loaded.popitem(last=False)
        if isinstance(known, PolicySyntaxError):
            # A fresh exception for each caller: one object raised in several threads would collect their tracebacks.
            raise PolicySyntaxError(str(known)) from known
        return known

    def _load_new(self, bundle: Bundle) -> LoadedBundle | PolicySyntaxError:
        engine = self._engines.get(bundle.manifest.engine)
        if engine is None:
            return PolicySyntaxError(f"no engine named {bundle.manifest.engine} is installed")
        try:
            return engine.load(bundle)
        except PolicySyntaxError as error:
            return error
        except BaseException as error:  # INVARIANT 7: a panic of native code is a BaseException
            if isinstance(error, _NOT_AN_ENGINE_ERROR):
                raise
            return PolicySyntaxError(f"the engine failed on this bundle ({type(error).__name__})")

    def _evaluate(self, bundle: Bundle, requests: tuple[DecisionRequest, ...]) -> list[Evaluation]:
        try:
            loaded = self._load(bundle)
        except PolicySyntaxError:
            version = self.engine_version(bundle.manifest.engine) or _NO_ENGINE_VERSION
            decision = indeterminate(bundle, version, Reason.BUNDLE_ERROR)
            return [Evaluation(decision, 0)] * len(requests)
        engine = self._engines[bundle.manifest.engine]
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
            decisions = [indeterminate(bundle, engine.version, Reason.ENGINE_ERROR, type(error).__name__)]
        mean_us = (self._clock_ns() - started) // (1000 * len(requests))
        return [Evaluation(decision, mean_us) for decision in decisions]
