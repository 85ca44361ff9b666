"""Which sessions took another course: their later calls are *downstream*, and no replay of those is exact.

Pure. A decision that comes out otherwise changes more than itself. Where a call that was let through is now denied, or
a session now ends, what the agent did next would have been something else; where it is the other way round, too. So a
session *departs* with the first of its decisions that would have been enforced otherwise. It departs as well with one
of which nobody can say what the other bundle decides: whether the rest would have been is then not known either.

Enforcement counts here and not the effect: DENY and NOT_APPLICABLE are one to the agent, PERMIT and PERMIT with an
obligation to wait are two. What was observed and not enforced, or denied by the enforcement point for reasons of its
own, sends no session anywhere; nor does a decision made again under the bundle of then, for what is recorded happened.

INVARIANT 8: nothing is guessed. The memory of sessions is bounded, and a walk that needs more fails: to forget one
would let its later calls pass for exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from ledger.bodies import Decision as DecisionBody
from ledger.errors import PolicyError
from policies.model import Effect, Obligation
from policies.replay_results import ReplayClass, ReplayResult

__all__ = ["MAX_COURSES", "Courses", "Departure", "enforced"]

MAX_COURSES: Final = 1_000_000
"""Sessions that may have departed and not ended at one time, each some hundred bytes."""

Departure: TypeAlias = Literal["flipped", "unknown"]

_POLICY_REASONS: Final = frozenset({
    "policy", "no_permit", "evaluation_error", "request_error", "parameter_error", "ambiguous_parameter",
    "engine_error", "bundle_error", "limited",
})  # fmt: skip
"""Reasons that an engine's answer has; every other one is the enforcement point's own."""
_UNCERTAIN: Final = frozenset({ReplayClass.LIMITED, ReplayClass.MASKED})
"""Classes of which even an answer that is there says nothing about what would have been."""


def enforced(effect: str, obligations: Sequence[str]) -> str:
    """Return what an enforcement point does about a decision: ``allow``, ``ask``, ``kill`` or ``deny``."""
    if Obligation.END_SESSION in obligations:
        return "kill"
    if effect != Effect.PERMIT:
        return "deny"
    return "ask" if Obligation.APPROVAL in obligations else "allow"


def _departure(body: DecisionBody, result: ReplayResult, revision: str) -> Departure | None:
    then, now = result.original, result.replayed
    if body.bundle is None or body.bundle.revision == revision:
        return None
    if body.mode == "observe" or body.reason not in _POLICY_REASONS:
        return None
    if now is None or result.classification in _UNCERTAIN:
        return "unknown"
    flipped = enforced(then.effect, then.obligations) != enforced(now.effect, now.obligations)
    return "flipped" if flipped else None


class Courses(msgspec.Struct):
    """The sessions that departed and go on; plain data, so that a walk can be resumed.

    Attributes:
        departed: Session → how.
    """

    departed: dict[str, Departure] = {}

    def before(self, session: str) -> Departure | None:
        """Return how a session has departed up to here, or None if it has not."""
        return self.departed.get(session)

    def note(self, body: DecisionBody, result: ReplayResult, revision: str) -> None:
        """Take in what became of a decision, behind those of its session that came before it.

        Args:
            body: The recorded decision.
            result: Its replay.
            revision: The bundle that it was made again under.

        Raises:
            PolicyError: More than `MAX_COURSES` sessions have departed.
        """
        if self.departed.get(body.session) == "flipped" or (departure := _departure(body, result, revision)) is None:
            return
        self.departed[body.session] = departure
        if len(self.departed) > MAX_COURSES:
            raise PolicyError(
                f"more than {MAX_COURSES} sessions took another course: ask for less, such as one agent's"
            )

    def end(self, session: str) -> None:
        """Note that a session has ended: no call of it follows."""
        self.departed.pop(session, None)
