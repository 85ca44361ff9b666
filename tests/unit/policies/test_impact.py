"""Impact: flips are counted where they are, and what follows a departure is never called exact."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from ledger.bodies import Decision as DecisionBody
from ledger.errors import PolicyError, UnknownBundleError
from policies import courses
from policies.bundles import Bundle
from policies.courses import enforced
from policies.evaluate import Evaluator
from policies.impact import MAX_EXAMPLES, MAX_GROUPS, OTHERS, Impact, ImpactLine, Located, Scope
from policies.impact_walk import Ended, ImpactWalk, Step
from policies.replay_results import RecordedDecision, ReplayClass
from tests.support.history import recorded_decisions
from tests.support.policies import cedar_bundle, make_request

ALL = cedar_bundle('@id("all") permit(principal, action, resource);')
NIGHT = cedar_bundle(
    '@id("all") permit(principal, action, resource);'
    '@id("night") forbid(principal, action, resource) when { context.time.hour < 6 };'
)
NOTHING = cedar_bundle('@id("none") permit(principal, action, resource) when { context.time.hour > 23 };')
ASK = cedar_bundle('@id("ask") @obligation("approval") permit(principal, action, resource);')
START = 1_763_546_400_000


def history(evaluator: Evaluator, bundle: Bundle, calls: Sequence[dict[str, object]]) -> list[Located]:
    """Return what a gateway records of calls, a second apart; ``session`` and ``calls`` are its counters."""
    seen: dict[str, int] = {}
    requests = []
    for number, members in enumerate(calls):
        session = str(members.get("session", "s"))
        counted = {"now_ms": START + 1000 * number, "calls": seen.get(session, 0), "started_ms": START}
        requests.append(make_request(**{**counted, "session": session, **members}))
        seen[session] = seen.get(session, 0) + 1
    return recorded_decisions(evaluator, bundle, requests)


def walked(
    steps: Sequence[Step],
    candidate: Bundle | None,
    evaluator: Evaluator,
    *,
    known: Sequence[Bundle] = (),
    **members: object,
) -> tuple[Impact, list[ImpactLine]]:
    fields = {"from_ms": START, "to_ms": START + 10**9, "read_from_ms": START, **members}
    impact = Impact(revision=None if candidate is None else candidate.revision, **fields)

    async def find(revision: str) -> Bundle:
        for bundle in known:
            if bundle.revision == revision:
                return bundle
        raise UnknownBundleError(revision)

    lines = asyncio.run(ImpactWalk(impact, evaluator, find, candidate=candidate).take(steps))
    return impact, lines


def test_history_under_its_own_bundle_is_reproduced_without_a_line(evaluator):
    impact, lines = walked(history(evaluator, NIGHT, [{"hour": 2}, {"hour": 12}]), None, evaluator, known=[NIGHT])
    assert (impact.decisions, impact.reproduced, impact.unknown, impact.flips, lines) == (2, 2, 0, {}, [])


def test_a_flip_is_counted_by_rule_agent_tool_and_server_with_its_id(evaluator):
    steps = history(evaluator, ALL, [{"hour": 2, "agent": "Bot", "session": "a"}, {"hour": 12, "session": "b"}])
    impact, lines = walked(steps, NIGHT, evaluator)
    (flip,) = impact.flips.items()
    record_id = steps[0].original.record_id
    assert flip[0] == "permit:deny"
    assert [line.decision_id for line in lines] == [record_id]
    named = (flip[1].rules, flip[1].agents, flip[1].tools, flip[1].servers)
    assert [list(groups) for groups in named] == [["night"], ["Bot"], ["shop/sell"], ["shop"]]
    assert all(group.decisions == [record_id] for groups in named for group in groups.values())
    assert impact.hit(["permit:deny"])
    assert not impact.hit(["deny:permit"])


def test_a_permit_that_came_to_be_is_counted_under_the_rule_that_stood_against_it(evaluator):
    impact, _ = walked(history(evaluator, NIGHT, [{"hour": 2}]), ALL, evaluator)
    assert list(impact.flips["deny:permit"].rules) == ["night"]


def test_where_no_rule_spoke_the_reason_is_the_cause(evaluator):
    impact, _ = walked(history(evaluator, ALL, [{}]), NOTHING, evaluator)
    assert list(impact.flips["permit:not_applicable"].rules) == ["no_permit"]


def test_a_difference_without_another_effect_is_a_line_and_no_flip(evaluator):
    impact, (line,) = walked(history(evaluator, ALL, [{}]), ASK, evaluator)
    assert (impact.flips, line.same, line.differences, line.flip) == ({}, False, ("rules", "obligations"), None)


@pytest.mark.parametrize("candidate", [NOTHING, ASK], ids=["denied", "held for a person"])
def test_the_calls_behind_a_flip_are_downstream_and_the_flip_itself_is_exact(evaluator, candidate):
    steps = history(evaluator, ALL, [{}, {}, {"session": "other"}])
    _, lines = walked(steps, candidate, evaluator)
    assert [line.classification for line in lines] == ["exact", "downstream", "exact"]
    assert all(line.now is not None for line in lines)


def test_deny_in_another_way_departs_from_nothing(evaluator):
    steps = history(evaluator, NIGHT, [{"hour": 2}, {"hour": 3}])
    _, lines = walked(steps, NOTHING, evaluator)
    assert [(line.classification, line.flip) for line in lines] == [("exact", "deny:not_applicable")] * 2


def test_a_session_that_ended_takes_its_departure_along(evaluator):
    first, second = history(evaluator, ALL, [{"hour": 2}, {"hour": 12, "calls": 0}])
    session = first.original.body.session
    impact, lines = walked([first, Ended(session), second], NIGHT, evaluator)
    assert [line.decision_id for line in lines] == [first.original.record_id]
    assert impact.courses.departed == {}


def changed(located: Located, *, request: bytes | None = None, keep: bool = False, **members: object) -> Located:
    body: DecisionBody = msgspec.structs.replace(located.original.body, **members)
    original = located.original
    payload = original.request if keep else request
    return Located(
        located.leaf, located.time_ms, RecordedDecision(record_id=original.record_id, body=body, request=payload)
    )


def test_what_follows_an_erased_call_is_not_known_either(evaluator):
    first, second = history(evaluator, ALL, [{}, {}])
    impact, lines = walked([changed(first), second], NIGHT, evaluator)
    assert [line.classification for line in lines] == ["erased", "downstream"]
    assert (impact.exact, impact.unknown) == (0, 1)


def test_under_the_bundle_of_then_an_erased_call_makes_nobody_doubt_the_next(evaluator):
    first, second = history(evaluator, ALL, [{}, {}])
    impact, lines = walked([changed(first), second], None, evaluator, known=[ALL])
    assert [line.classification for line in lines] == ["erased"]
    assert impact.reproduced == 1


def test_a_refusal_of_the_enforcement_point_departs_from_nothing_and_is_counted_apart(evaluator):
    first, second = history(evaluator, ALL, [{}, {}])
    refused = changed(
        first, bundle=None, request=None, decision="INDETERMINATE", enforcement="deny", reason="malformed"
    )
    impact, lines = walked([refused, second], ALL, evaluator)
    assert [line.classification for line in lines] == ["missing_fact"]
    assert (impact.decisions, impact.not_asked, impact.unknown, impact.reproduced) == (2, 1, 0, 1)


@pytest.mark.parametrize(
    "members",
    [{"mode": "observe"}, {"enforcement": "deny", "reason": "ledger_unavailable"}],
    ids=["observed", "denied for the enforcement point's own reasons"],
)
def test_a_flip_that_nothing_would_have_come_of_departs_from_nothing(evaluator, members):
    first, second = history(evaluator, ALL, [{"hour": 2}, {"hour": 12}])
    impact, lines = walked([changed(first, keep=True, **members), second], NIGHT, evaluator)
    assert [line.decision_id for line in lines] == [first.original.record_id]
    assert impact.courses.departed == {}


def test_a_session_that_began_before_what_is_read_is_not_exact_under_another_bundle(evaluator):
    steps = history(evaluator, ALL, [{"calls": 3, "started_ms": START - 1}])
    _, (line,) = walked(steps, NIGHT, evaluator)
    assert (line.classification, line.same) == ("downstream", True)
    impact, lines = walked(steps, None, evaluator, known=[ALL])
    assert (impact.reproduced, lines) == (1, [])


def test_calls_before_the_period_are_evaluated_for_their_session_and_not_counted(evaluator):
    steps = history(evaluator, ALL, [{"hour": 2}, {"hour": 12}])
    impact, (line,) = walked(steps, NIGHT, evaluator, from_ms=START + 500)
    assert (impact.before, impact.decisions, line.classification) == (1, 1, "downstream")


@pytest.mark.parametrize(
    "scope",
    [Scope(agent="A"), Scope(server="mail"), Scope(tool="send"), Scope(decision="DENY"), Scope(session="s2")],
    ids=["agent", "server", "tool", "decision", "session"],
)
def test_each_member_of_a_scope_restricts_what_is_counted(evaluator, scope):
    calls = [
        {"agent": "A", "server": "mail", "name": "send", "session": "s2", "hour": 2},
        {"agent": "B", "server": "shop", "name": "sell", "session": "s1", "hour": 12},
    ]
    steps = history(evaluator, NIGHT, calls)
    if scope.session is not None:
        scope = Scope(session=steps[0].original.body.session)
    impact, lines = walked(steps, NOTHING, evaluator, scope=scope)
    assert [line.decision_id for line in lines] == [steps[0].original.record_id]
    assert impact.decisions == 1
    assert impact.needs(START, steps[0].original.body)


def test_a_call_outside_the_scope_still_makes_its_session_depart(evaluator):
    steps = history(evaluator, ALL, [{"hour": 2, "name": "read"}, {"hour": 12, "name": "send"}])
    _, (line,) = walked(steps, NIGHT, evaluator, scope=Scope(tool="send"))
    assert (line.tool, line.classification, line.same) == ("send", "downstream", True)


def test_a_decision_whose_bundle_nobody_has_is_missing_and_not_guessed(evaluator):
    impact, (line,) = walked(history(evaluator, ALL, [{}]), None, evaluator)
    assert (line.classification, line.same, impact.unknown) == ("missing_fact", None, 1)


def test_what_a_limit_did_is_no_flip(evaluator):
    (step,) = history(evaluator, ALL, [{}])
    stopped = changed(step, keep=True, decision="INDETERMINATE", enforcement="deny", reason="engine_error", rules=())
    impact, (line,) = walked([stopped], ALL, evaluator)
    assert (line.classification, impact.flips, impact.unknown) == ("limited", {}, 1)


def test_counts_do_not_grow_with_records_or_names(evaluator):
    calls = [{"name": f"tool-{number}", "session": f"s{number}"} for number in range(MAX_GROUPS + 30)]
    impact, lines = walked(history(evaluator, ALL, calls), NOTHING, evaluator)
    flips = impact.flips["permit:not_applicable"]
    assert flips.count == len(lines) == MAX_GROUPS + 30
    assert len(flips.tools) == MAX_GROUPS + 1
    assert flips.tools[OTHERS].count == 30
    assert len(flips.agents["Bot"].decisions) == MAX_EXAMPLES


def test_more_departed_sessions_than_can_be_told_apart_end_the_walk(evaluator, monkeypatch):
    monkeypatch.setattr(courses, "MAX_COURSES", 2)
    steps = history(evaluator, ALL, [{"session": f"s{number}"} for number in range(3)])
    with pytest.raises(PolicyError, match="more than 2 sessions"):
        walked(steps, NOTHING, evaluator)


def test_the_counts_survive_being_written_down(evaluator):
    impact, _ = walked(history(evaluator, ALL, [{"hour": 2}, {}]), NIGHT, evaluator)
    assert msgspec.json.decode(msgspec.json.encode(impact), type=Impact) == impact


def test_enforcement_follows_from_effect_and_obligations():
    assert [
        enforced("PERMIT", ()),
        enforced("PERMIT", ("approval",)),
        enforced("DENY", ("end_session",)),
        enforced("NOT_APPLICABLE", ()),
    ] == ["allow", "ask", "kill", "deny"]


def test_every_class_of_a_replay_can_be_counted():
    assert {member.value for member in ReplayClass} == {
        "exact", "masked", "erased", "missing_fact", "engine_changed", "limited", "downstream",
    }  # fmt: skip
