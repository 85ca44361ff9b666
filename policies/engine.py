"""The engine port: what a policy engine is, and in which words it may fail.

Pure. An `Engine` turns a bundle into a `LoadedBundle` once, and requests into decisions any number of times. Everything
that crosses the port is plain data (requests and decisions are frozen structs, a loaded bundle is opaque to all but its
engine), so that an engine can live in another process without its callers noticing: `policies.workers` has engines that
do. Which engines exist is said by ``service.wiring`` alone; engine names are data here.

A worker process imports this module and little more, so nothing heavy may be imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ledger.errors import PolicyError
from policies.bundles import Bundle
from policies.model import Decision, DecisionRequest, Effect

__all__ = ["Engine", "EngineFailedError", "EngineStoppedError", "Limit", "LoadedBundle", "Reason", "indeterminate"]


class Reason(StrEnum):
    """Why a decision is what it is; the machine-readable cause in every decision record.

    ``POLICY``: rules determined it. ``NO_PERMIT``: no rule spoke, which is a deny. The others go with INDETERMINATE:
    a rule failed (``EVALUATION_ERROR``), the request does not fit the bundle's schema (``REQUEST_ERROR``), a parameter
    is not exact or missing (``PARAMETER_ERROR``) or has two values (``AMBIGUOUS_PARAMETER``), the engine failed
    (``ENGINE_ERROR``), a limit stopped it (``LIMITED``; the detail is a `Limit`), or the bundle does not load
    (``BUNDLE_ERROR``).
    """

    POLICY = "policy"
    NO_PERMIT = "no_permit"
    EVALUATION_ERROR = "evaluation_error"
    REQUEST_ERROR = "request_error"
    PARAMETER_ERROR = "parameter_error"
    AMBIGUOUS_PARAMETER = "ambiguous_parameter"
    ENGINE_ERROR = "engine_error"
    LIMITED = "limited"
    BUNDLE_ERROR = "bundle_error"


class Limit(StrEnum):
    """What stopped an engine.

    ``TIME``: it took too long. ``MEMORY``: it wanted too much. ``CRASH``: its process died. ``SIZE``: the request or
    the answer was too large to pass on. ``UNAVAILABLE``: its process could not be started.
    """

    TIME = "time"
    MEMORY = "memory"
    CRASH = "crash"
    SIZE = "size"
    UNAVAILABLE = "unavailable"


class EngineStoppedError(PolicyError):
    """A limit stopped the engine: what it would have said is not known.

    Attributes:
        limit: Which.
    """

    def __init__(self, limit: Limit) -> None:
        super().__init__(f"the engine was stopped: {limit}")
        self.limit = limit


class EngineFailedError(PolicyError):
    """The engine raised something, out of the caller's reach.

    Attributes:
        error: The name of its class; its message may quote values and was left behind.
    """

    def __init__(self, error: str) -> None:
        super().__init__(f"the engine failed: {error}")
        self.error = error


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
            EngineStoppedError: The engine cannot be had at the moment; that says nothing of the bundle.
        """
        ...

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:
        """Return one decision for each request, in order.

        What a policy or request gets wrong is an INDETERMINATE decision. An exception says that the engine itself
        failed; none of the decisions of the call may then be relied on.

        Raises:
            EngineStoppedError: A limit stopped the engine, for the sake of one of the requests or none.
            EngineFailedError: The engine raised something in its own process.
            MalformedError: A request cannot be handed to the engine: it is none that could be recorded.
        """
        ...


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
