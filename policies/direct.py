"""Single decisions for one event loop, asked of the engines' processes without a thread in between.

A thread that only waits for a process costs more than the question and its answer: who runs changes four times, and
each change waits for Python's lock. Here the event loop itself writes the question and is woken by the answer.

What cannot be asked so goes the way of `policies.evaluate`: batches, long questions, engines without processes, a
bundle that nobody has read yet, and a question for which no process is idle.

INVARIANT 7 holds as it does there: whatever goes wrong is an INDETERMINATE decision.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from policies.bundles import Bundle
from policies.evaluate import Evaluation, Evaluator
from policies.model import DecisionRequest

__all__ = ["DirectEvaluator"]


class DirectEvaluator:
    """Evaluates requests; owned by one event loop."""

    def __init__(self, evaluator: Evaluator) -> None:
        """Take the evaluator of the whole process.

        No more questions are under way at once than it has threads for one log: further processes are not started
        because calls come faster than they are decided.
        """
        self._evaluator = evaluator
        self._places = asyncio.Semaphore(evaluator.threads)

    async def evaluate_many(self, bundle: Bundle, requests: Sequence[DecisionRequest]) -> list[Evaluation]:
        """Return one evaluation for each request, in order; see `Evaluator.evaluate_many`."""
        if len(requests) != 1:
            return await self._evaluator.evaluate_many(bundle, requests)
        async with self._places:
            evaluation = await self._evaluator.evaluate_directly(bundle, requests[0])
            if evaluation is not None:
                return [evaluation]
            return await self._evaluator.evaluate_many(bundle, requests)
