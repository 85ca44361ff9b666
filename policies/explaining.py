"""Why a decision is what it is: each rule, and each of its conditions, beside the request.

Pure. For people who write and mend policies, on their own machine. An explanation quotes the policy, never the request:
it can be passed on where the request may not. What an engine has to explain stands behind `Explainer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from policies.bundles import Bundle
from policies.model import Decision, DecisionRequest

__all__ = ["Condition", "Explainer", "Explanation", "Holds", "RuleExplanation", "concerns"]


class Holds(StrEnum):
    """What became of a condition: it holds or not, it failed, or it was not reached because of those before it."""

    YES = "yes"
    NO = "no"
    FAILED = "failed"
    NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True)
class Condition:
    """A part of a rule that must hold, or in an ``unless`` must not.

    Attributes:
        kind: Its part of the rule: ``principal``, ``action``, ``resource``, ``when``, ``unless``, or ``body``.
        text: As it stands in the policy, on one line.
        holds: What became of it.
    """

    kind: str
    text: str
    holds: Holds


@dataclass(frozen=True, slots=True)
class RuleExplanation:
    """One rule beside one request.

    Attributes:
        name: The rule.
        place: ``file:line``.
        effect: ``permit`` or ``forbid``.
        applies: Whether the rule speaks: all of its conditions are met.
        conditions: Its conditions, in order.
    """

    name: str
    place: str
    effect: str
    applies: bool
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision and what every rule had to say.

    Attributes:
        decision: The decision.
        rules: Every rule, in bundle order; none if the request reached no rule.
    """

    decision: Decision
    rules: tuple[RuleExplanation, ...]


def concerns(rule: RuleExplanation) -> bool:
    """Return whether a rule is about the call at all: it speaks of its method and its tool."""
    answers = (condition.holds for condition in rule.conditions if condition.kind in {"action", "resource"})
    return all(holds is Holds.YES for holds in answers)


class Explainer(Protocol):
    """Explains decisions of one engine."""

    def __call__(self, bundle: Bundle, request: DecisionRequest) -> Explanation:
        """Return what the bundle decides about a request, and why.

        Raises:
            PolicySyntaxError: The bundle cannot be used.
        """
        ...
