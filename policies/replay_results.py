"""What a replay says: the decision of then, the decision of now, and how far the second can be relied on.

Pure. Making decisions again is `policies.replay`'s part; what many of them come to is `policies.impact`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ledger.bodies import Decision as DecisionBody

__all__ = ["DecisionSummary", "RecordedDecision", "ReplayClass", "ReplayResult"]


class ReplayClass(StrEnum):
    """How far a replay can be relied on.

    ``EXACT``: same engine, whole request: the result is what the bundle says. ``ENGINE_CHANGED``: evaluated, but by
    another engine or version than the recorded one; or not at all, if the bundle's engine is not installed.
    ``LIMITED``: the engine failed or was stopped, then or now, so one of the two decisions is no function of bundle and
    request. ``ERASED``: the request's payload is gone. ``MISSING_FACT``: there is no request that could be evaluated,
    or the bundle asks for a fact that nobody recorded. ``MASKED``: part of the request was withheld before it was
    recorded. ``DOWNSTREAM``: an earlier call of the session came out otherwise, or nobody can say how, so that this one
    might never have been made, or with another state; replays of whole periods alone can tell.
    """

    EXACT = "exact"
    MASKED = "masked"
    ERASED = "erased"
    MISSING_FACT = "missing_fact"
    ENGINE_CHANGED = "engine_changed"
    LIMITED = "limited"
    DOWNSTREAM = "downstream"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDecision:
    """What is left of a decision.

    Attributes:
        record_id: Its record's id.
        body: Its record's body.
        request: The opened payload of ``body.request``: canonical bytes of the `DecisionRequest`. None if the record
            has none, or the payload is gone.
        damaged: The payload is not gone by anybody's order: it was lost, or is not what the leaf commits to.
        withheld: Names of those parts of the request that were masked before it was recorded.
    """

    record_id: str
    body: DecisionBody
    request: bytes | None
    damaged: bool = False
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionSummary:
    """What two decisions are compared by, and by whom one was made.

    Attributes:
        effect: PERMIT, DENY, INDETERMINATE or NOT_APPLICABLE.
        rules: Names of the determining rules, sorted.
        failed_condition: First rule that stood against the call.
        obligations: What the enforcement point had to fulfil, sorted.
        reason: Machine-readable cause.
        drift: What of the call lay outside the bundle's boundaries, sorted.
        bundle_revision: Digest of the bundle; None if none was consulted.
        engine: Engine name; None if none was asked.
        engine_version: Its exact version.
    """

    effect: str
    rules: tuple[str, ...]
    failed_condition: str | None
    obligations: tuple[str, ...]
    reason: str
    bundle_revision: str | None
    engine: str | None
    engine_version: str | None
    drift: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """A decision made again.

    Attributes:
        record_id: Whose.
        classification: How far the result can be relied on.
        explanation: One sentence on why it is not exact; empty if it is.
        same: Whether the replayed decision equals the recorded one, about the call that the record names; None if there
            is none to compare.
        differences: The compared fields that differ, then those in which record and request name different calls.
        original: The recorded decision.
        replayed: The decision of now, or None.
        session_started_ms: When the session's first call was made, POSIX milliseconds, as the request says; None if
            this is the first, or there is no request.
    """

    record_id: str
    classification: ReplayClass
    explanation: str
    same: bool | None
    differences: tuple[str, ...]
    original: DecisionSummary
    replayed: DecisionSummary | None
    session_started_ms: int | None = None
