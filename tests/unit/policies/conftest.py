"""Fixtures for the tests of `policies`: a Cedar evaluator, and one decision at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from policies.bundles import Bundle
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.model import Decision
from tests.support.policies import make_request


@pytest.fixture
def evaluator() -> Iterator[Evaluator]:
    made = Evaluator({"cedar": CedarEngine()})
    yield made
    made.close()


@pytest.fixture
def decide(evaluator: Evaluator) -> Callable[..., Decision]:
    """Decide one request under one bundle."""

    def run(bundle: Bundle, **members: Any) -> Decision:
        (evaluation,) = asyncio.run(evaluator.evaluate_many(bundle, [make_request(**members)]))
        return evaluation.decision

    return run
