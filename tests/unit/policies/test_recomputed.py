"""State rebuilt under another bundle: as if that bundle had decided all along, and never more than can be known."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ledger.errors import PolicyError
from policies import recomputed
from policies.bundles import Bundle, bundle_from_files
from policies.courses import enforced
from policies.evaluate import Evaluator
from policies.impact import Impact, ImpactLine, Located
from policies.impact_walk import Ended, ImpactWalk, Step
from policies.model import DecisionRequest, decode_request, encode_request
from policies.recomputed import Rebuilt, reach_ms
from policies.replay import replay
from policies.replay_results import RecordedDecision, ReplayResult
from policies.window_history import History
from policies.windows import read_windows
from tests.support.history import recorded_decisions
from tests.support.policies import SCHEMA, cedar_files, make_request

START = 1_763_546_400_000
WINDOWS = [
    {"name": "sold", "measure": "sum", "parameter": "amount", "per": "user", "over": "day"},
    {"name": "burst", "measure": "count", "per": "agent", "over_seconds": 60},
    {"name": "read", "measure": "seen", "tools": ["read"], "per": "session"},
]
TYPED = SCHEMA.replace(
    "denied: Long, started_ms: Long }",
    "denied: Long, started_ms: Long, windows: { sold: Long, burst: Long, read: Bool } }",
)
THEN_POLICY = (
    '@id("work") permit(principal, action, resource);'
    '@id("cap") forbid(principal, action, resource) when { context.state.windows.sold > 3000 };'
)
NOW_POLICY = (
    '@id("work") permit(principal, action, resource);'
    '@id("cap") forbid(principal, action, resource) when { context.state.windows.sold > 1500 };'
    '@id("burst") forbid(principal, action, resource) when { context.state.windows.burst > 9 };'
    '@id("often") forbid(principal, action, resource) when { context.state.denied > 4 };'
    '@id("deputy") forbid(principal, action, resource == Tool::"shop/send") when { context.state.windows.read };'
)


def windowed(policy: str, windows: Sequence[object] = WINDOWS) -> Bundle:
    files = cedar_files(policy, schema=TYPED, windows="windows.json")
    return bundle_from_files({**files, "windows.json": json.dumps({"windows": windows}).encode()})


THEN, NOW = windowed(THEN_POLICY), windowed(NOW_POLICY)
PLAIN = '@id("work") permit(principal, action, resource);'


def calls_of_a_day(seed: int, number: int) -> list[DecisionRequest]:
    """Return calls of a few agents, users and sessions in log order, without state."""
    drawn = iter(hashlib.shake_256(b"%d" % seed).digest(6 * number))

    def chosen(options: Sequence[Any]) -> Any:
        return options[next(drawn) % len(options)]

    return [
        make_request(
            agent=chosen(("A", "B")),
            user=chosen(("u", "v", None)),
            session=f"s{chosen(range(6))}",
            name=chosen(("sell", "read", "send")),
            now_ms=START + at * chosen((500, 9000)),
            arguments=json.dumps({"amount": chosen(range(200, 400))}),
        )
        for at in range(number)
    ]


def lived(evaluator: Evaluator, bundle: Bundle, calls: Sequence[DecisionRequest]) -> list[DecisionRequest]:
    """Return the requests as they are where a bundle decides: with the counters and windows that it has led to."""
    history = History(read_windows(bundle))
    counted: dict[str, tuple[int, int]] = {}
    found = []
    for call in calls:
        before, denied = counted.get(call.state.session, (0, 0))
        state = msgspec.structs.replace(call.state, calls=before, denied=denied, started_ms=START)
        request = history.restated(msgspec.structs.replace(call, state=state))
        (evaluation,) = asyncio.run(evaluator.evaluate_many(bundle, [request]))
        allowed = enforced(evaluation.decision.effect, evaluation.decision.obligations) == "allow"
        history.add(request, permitted=allowed)
        counted[call.state.session] = (before + 1, denied + (not allowed))
        found.append(request)
    return found


def walked(
    steps: Sequence[Step], candidate: Bundle, evaluator: Evaluator, **members: object
) -> tuple[Impact, list[ImpactLine]]:
    fields = {"from_ms": START, "to_ms": START + 10**9, "read_from_ms": START, "state": "recomputed", **members}
    impact = Impact(revision=candidate.revision, **fields)

    async def find(revision: str) -> Bundle:
        raise AssertionError(revision)

    return impact, asyncio.run(ImpactWalk(impact, evaluator, find, candidate=candidate).take(steps))


def replay_of(evaluator: Evaluator, original: RecordedDecision, bundle: Bundle) -> ReplayResult:
    return asyncio.run(replay(original, bundle, evaluator))


@pytest.mark.parametrize("seed", range(4))
def test_every_answer_is_the_one_of_a_world_in_which_the_bundle_decided_all_along(evaluator, seed):
    calls = calls_of_a_day(seed, 60)
    steps = recorded_decisions(evaluator, THEN, lived(evaluator, THEN, calls))
    there = lived(evaluator, NOW, calls)
    expected = [evaluation.decision for evaluation in asyncio.run(evaluator.evaluate_many(NOW, there))]
    impact, lines = walked(steps, NOW, evaluator)
    assert set(impact.classes) == {"exact"}
    by_leaf = {line.leaf: line for line in lines}
    for located, decision in zip(steps, expected, strict=True):
        line = by_leaf.get(located.leaf)
        told = located.original.body if line is None else line.now
        assert (told.rules, told.reason) == (decision.rules, decision.reason)
    assert impact.flips


def test_distinct_tools_and_calls_outside_a_profile_are_rebuilt_as_they_would_have_been(evaluator):
    profile = {"tools": ["shop/sell", "shop/read"], "next": {"shop/read": ["shop/sell"]}}
    windows = [
        {"name": "sold", "measure": "distinct", "per": "user", "over_seconds": 60},
        {"name": "burst", "measure": "off_profile", "per": "agent", "over_seconds": 120, "profile": profile},
        WINDOWS[2],
    ]
    policy = (
        '@id("work") permit(principal, action, resource);'
        '@id("tools") forbid(principal, action, resource) when { context.state.windows.sold > 2 };'
        '@id("outside") forbid(principal, action, resource) when { context.state.windows.burst > 3 };'
    )
    then, now = windowed(PLAIN, windows), windowed(policy, windows)
    calls = calls_of_a_day(5, 60)
    steps = recorded_decisions(evaluator, then, lived(evaluator, then, calls))
    there = lived(evaluator, now, calls)
    expected = [evaluation.decision for evaluation in asyncio.run(evaluator.evaluate_many(now, there))]
    assert {rule for decision in expected for rule in decision.rules} == {"work", "tools", "outside"}
    impact, lines = walked(steps, now, evaluator)
    assert set(impact.classes) == {"exact"}
    told = {line.leaf: line.now.rules for line in lines if line.now is not None}
    for located, decision in zip(steps, expected, strict=True):
        assert told.get(located.leaf, located.original.body.rules) == decision.rules


def test_windows_across_the_fleet_are_rebuilt_over_all_gateways_and_others_over_each(evaluator):
    windows = [
        {**WINDOWS[0], "across": "fleet", "strict": True},
        {**WINDOWS[1], "measure": "count"},
        {**WINDOWS[2], "per": "agent+user", "over_seconds": 600, "across": "fleet"},
    ]
    now = windowed(NOW_POLICY, windows)
    calls = [
        make_request(agent="A", user="u", session="s", name="sell", now_ms=START + at, arguments='{"amount": 400}')
        for at in range(5)
    ]
    steps = recorded_decisions(evaluator, windowed(PLAIN, windows), lived(evaluator, windowed(PLAIN, windows), calls))
    apart = [replace(located, enforcer_id=f"gateway-{place % 2}") for place, located in enumerate(steps)]
    rebuilt = Rebuilt(read_windows(now), START)
    said = []
    for located in apart:
        original, doubt = rebuilt.restated(located)
        assert doubt is None
        state = decode_request(original.request or b"").state
        said.append((state.windows["sold"], state.windows["burst"]))
        result = replay_of(evaluator, original, now)
        rebuilt.settle(located, result)
    # Three of 400 each are within 1,500, whichever gateway they went through; each counts its own bursts.
    assert said == [(400, 1), (800, 1), (1200, 2), (1600, 2), (1600, 3)]
    assert len({frozenset(rebuilt.depends_on(located)) for located in apart}) == 1


def test_each_request_is_restated_as_that_world_would_have_recorded_it(evaluator):
    calls = calls_of_a_day(9, 40)
    steps = recorded_decisions(evaluator, THEN, lived(evaluator, THEN, calls))
    there = lived(evaluator, NOW, calls)
    rebuilt = Rebuilt(read_windows(NOW), START)
    for located, wanted in zip(steps, there, strict=True):
        original, doubt = rebuilt.restated(located)
        assert doubt is None
        assert decode_request(original.request) == wanted
        (evaluation,) = asyncio.run(evaluator.evaluate_many(NOW, [wanted]))
        result = asyncio.run(_result(original, evaluator))
        assert result.replayed.rules == evaluation.decision.rules
        rebuilt.settle(located, result)


async def _result(original: RecordedDecision, evaluator: Evaluator):
    from policies.replay import replay

    return await replay(original, NOW, evaluator)


def test_a_request_without_windows_is_given_those_that_the_bundle_declares(evaluator):
    plain = bundle_from_files(cedar_files(PLAIN))
    steps = recorded_decisions(evaluator, plain, [make_request(now_ms=START, arguments='{"amount": 9000}')])
    _, (line,) = walked(steps, NOW, evaluator)
    assert (line.classification, line.now.rules) == ("exact", ("cap",))


def erased(located: Located) -> Located:
    return replace(located, original=replace(located.original, request=None))


def session_of(number: int, **members: object) -> list[DecisionRequest]:
    return [
        make_request(**{"calls": at, "started_ms": START, "now_ms": START + at, "user": "u", **members})
        for at in range(number)
    ]


def recorded_plainly(evaluator: Evaluator, requests: Sequence[DecisionRequest]) -> list[Located]:
    return recorded_decisions(evaluator, bundle_from_files(cedar_files(PLAIN)), requests)


def test_behind_an_erased_call_the_state_of_its_session_agent_and_user_is_not_known(evaluator):
    same_agent = make_request(session="t", now_ms=START + 8, user="v")
    same_user = make_request(session="w", agent="Other", now_ms=START + 9, user="u")
    nobodys = make_request(session="x", agent="Third", now_ms=START + 10, user="w")
    steps = recorded_plainly(evaluator, [*session_of(2), same_agent, same_user, nobodys])
    _, lines = walked([erased(steps[0]), *steps[1:]], NOW, evaluator)
    assert [line.classification for line in lines] == ["erased", "missing_fact", "missing_fact", "missing_fact"]


def test_a_call_on_a_date_that_is_none_is_not_counted_and_leaves_the_windows_unknown(evaluator):
    crafted, *others = session_of(2)
    time = msgspec.structs.replace(crafted.time, local_date="someday")
    steps = recorded_plainly(evaluator, [msgspec.structs.replace(crafted, time=time), *others])
    _, lines = walked(steps, NOW, evaluator)
    assert [line.classification for line in lines] == ["missing_fact", "missing_fact"]


def test_without_windows_an_erased_call_leaves_its_session_alone_unknown(evaluator):
    candidate = bundle_from_files(cedar_files('@id("other") permit(principal, action, resource);'))
    steps = recorded_plainly(evaluator, [*session_of(2), make_request(session="t", now_ms=START + 8)])
    _, lines = walked([erased(steps[0]), *steps[1:]], candidate, evaluator)
    assert [line.classification for line in lines] == ["erased", "missing_fact", "exact"]


def test_a_session_that_began_before_what_was_read_is_not_known(evaluator):
    steps = recorded_plainly(evaluator, session_of(1, calls=3, started_ms=START - 1))
    _, (line,) = walked(steps, NOW, evaluator)
    assert (line.classification, line.same) == ("missing_fact", True)


def test_behind_a_call_that_would_have_ended_the_session_nothing_is_asked(evaluator):
    ending = '@id("k") @obligation("end_session") forbid(principal, action, resource == Tool::"shop/x");'
    kill = bundle_from_files(cedar_files(PLAIN + ending))
    first, second, third = recorded_plainly(evaluator, [*session_of(1, name="x"), *session_of(3)[1:]])
    _, lines = walked([first, second, third], kill, evaluator)
    assert [line.classification for line in lines] == ["exact", "downstream", "downstream"]
    _, lines = walked([first, Ended(first.original.body.session), second], kill, evaluator)
    assert [line.classification for line in lines] == ["exact"]


def test_what_was_denied_whatever_the_policy_said_counts_as_it_was_recorded(evaluator):
    often = bundle_from_files(
        cedar_files(
            '@id("w") permit(principal, action, resource == Tool::"shop/sell");'
            '@id("o") forbid(principal, action, resource) when { context.state.denied > 0 };'
        )
    )
    requests = session_of(2)
    counted = msgspec.structs.replace(requests[1].state, denied=1)
    steps = recorded_plainly(evaluator, [requests[0], msgspec.structs.replace(requests[1], state=counted)])
    body = msgspec.structs.replace(steps[0].original.body, enforcement="deny", reason="spool_full")
    refused = replace(steps[0], original=replace(steps[0].original, body=body))
    _, lines = walked([refused, steps[1]], often, evaluator)
    assert [line.now.rules for line in lines if line.leaf == 1] == [("o",)]


def test_windows_reach_back_as_long_as_they_count(evaluator):
    assert reach_ms(read_windows(NOW)) == 3 * 86_400_000
    assert reach_ms(read_windows(bundle_from_files(cedar_files(PLAIN)))) == 0
    rolling = windowed(PLAIN, [{"name": "burst", "measure": "count", "per": "agent", "over_seconds": 3600}])
    assert reach_ms(read_windows(rolling)) == 2 * 3_600_000
    month = {"measure": "off_profile", "per": "agent", "over_seconds": 31 * 86_400}
    volumes = {"tools": ["shop/sell"], "at_most": {"calls_per_day": 5}}
    jobs = windowed(PLAIN, [{"name": "off_job", **month, "profile": volumes}])
    assert reach_ms(read_windows(jobs)) == 2 * 31 * 86_400_000


def test_calls_before_the_period_fill_the_windows_and_are_not_counted(evaluator):
    requests = session_of(2, arguments='{"amount": 1000}')
    impact, (line,) = walked(recorded_plainly(evaluator, requests), NOW, evaluator, from_ms=START + 1)
    assert (impact.before, impact.decisions, line.now.rules) == (1, 1, ("cap",))


def test_more_sessions_than_can_be_remembered_end_the_walk(evaluator, monkeypatch):
    monkeypatch.setattr(recomputed, "MAX_REMEMBERED", 2)
    requests = [make_request(session=f"s{at}", now_ms=START + at, agent=f"A{at}") for at in range(3)]
    with pytest.raises(PolicyError, match="more than 2 sessions"):
        walked(recorded_plainly(evaluator, requests), NOW, evaluator)


def test_a_request_that_was_never_recorded_is_left_as_it_is(evaluator):
    (step,) = recorded_plainly(evaluator, session_of(1))
    rebuilt = Rebuilt(read_windows(NOW), START)
    nothing = replace(step, original=replace(step.original, request=b"not a request"))
    assert rebuilt.restated(nothing) == (nothing.original, None)
    withheld = replace(step, original=replace(step.original, withheld=("arguments",)))
    assert rebuilt.restated(withheld)[0] is withheld.original
    assert encode_request(decode_request(step.original.request)) == step.original.request
