"""Impact against a direct evaluation: whatever the bundles and the calls, the flips are exactly those."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.bundles import Bundle
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.impact import Impact
from policies.impact_walk import ImpactWalk
from policies.model import DecisionRequest
from policies.replay_results import ReplayClass
from tests.support.history import recorded_decisions
from tests.support.policies import cedar_bundle, make_request

START = 1_763_546_400_000

CONDITIONS = st.sampled_from([
    "context.time.hour < 6",
    "context.args has amount && context.args.amount > 50",
    "context.args has amount && context.args.amount > 80",
    "context.state.calls > 2",
    "context.identity.mfa",
    'context.environment.network == "cafe"',
    "!(context.args has amount)",
])  # fmt: skip
EFFECTS = st.sampled_from(["permit", "forbid", '@obligation("end_session") forbid', '@obligation("approval") permit'])


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    """Return a bundle of one to three rules, permits and forbids of whatever kind."""
    rules = draw(st.lists(st.tuples(EFFECTS, CONDITIONS), min_size=1, max_size=3))
    text = "".join(
        f'@id("rule-{number}") {effect}(principal, action, resource) when {{ {condition} }};'
        for number, (effect, condition) in enumerate(rules)
    )
    return cedar_bundle(text)


@st.composite
def calls(draw: st.DrawFn) -> list[DecisionRequest]:
    """Return calls of a few sessions, numbered within each, some with arguments that are no number."""
    amounts = st.sampled_from(["{}", '{"amount": 20}', '{"amount": 60}', '{"amount": 90}', '{"amount": "x"}'])
    drawn = draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 23), amounts, st.booleans()), max_size=8))
    counted = {"a": 0, "b": 0}
    found = []
    for at, (session, hour, arguments, mfa) in enumerate(drawn):
        found.append(
            make_request(
                session=session,
                calls=counted[session],
                started_ms=START,
                now_ms=START + at,
                hour=hour,
                mfa=mfa,
                network="cafe" if hour % 2 else "office",
                arguments=json.dumps(json.loads(arguments)),
            )
        )
        counted[session] += 1
    return found


@pytest.fixture(scope="module")
def shared_evaluator() -> Iterator[Evaluator]:
    made = Evaluator({"cedar": CedarEngine()})
    yield made
    made.close()


@settings(max_examples=40)
@given(then=bundles(), now=bundles(), requests=calls())
def test_the_flips_are_exactly_those_of_a_direct_evaluation(shared_evaluator, then, now, requests):
    steps = recorded_decisions(shared_evaluator, then, requests)
    impact = Impact(from_ms=START, to_ms=START + 100, read_from_ms=START, revision=now.revision)

    async def run():
        walk = ImpactWalk(impact, shared_evaluator, _nowhere, candidate=now)
        return await walk.take(steps), await shared_evaluator.evaluate_many(now, requests)

    lines, direct = asyncio.run(run())
    pairs = [(step.original, evaluation.decision.effect.value) for step, evaluation in zip(steps, direct, strict=True)]
    assert {line.decision_id: line.flip for line in lines if line.flip} == {
        original.record_id: f"{original.body.decision}:{effect}".lower()
        for original, effect in pairs
        if original.body.decision != effect
    }
    assert impact.decisions == sum(verdicts.total for verdicts in impact.classes.values()) == len(requests)
    assert impact.unknown == 0
    exact = [line for line in lines if line.classification == ReplayClass.EXACT and line.same]
    assert exact == []


async def _nowhere(revision: str) -> Bundle:
    raise AssertionError(revision)
