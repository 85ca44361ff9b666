"""What the enforcement point needs of others to judge a message: who asks a policy, and who traces calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from enforcement.drafts import Case
from enforcement.verdicts import CallTrace, Inbound, Verdict
from policies.bundles import Bundle
from policies.evaluate import Evaluation
from policies.model import DecisionRequest

__all__ = ["OpenTrace", "PolicyEvaluator", "Tracing"]


class PolicyEvaluator(Protocol):
    """Asks a policy; `policies.evaluate.Evaluator` is one."""

    async def evaluate_many(self, bundle: Bundle, requests: Sequence[DecisionRequest]) -> Sequence[Evaluation]:
        """Return one evaluation for each request, in order."""
        ...


class OpenTrace(CallTrace, Protocol):
    """The spans of one message that is being judged."""

    def judged(self, case: Case, verdict: Verdict) -> None:
        """Note the verdict."""
        ...


class Tracing(Protocol):
    """Traces calls; `enforcement.call_spans.CallSpans` does."""

    def begin(self, inbound: Inbound) -> OpenTrace:
        """Begin to trace a message that has just arrived."""
        ...
