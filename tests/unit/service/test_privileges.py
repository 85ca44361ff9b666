"""Circumstances that are asked about, impact by its parts, and the worklist that reachable and used come to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from ledger.bodies import Decision as DecisionRecord
from ledger.bodies import Facts
from ledger.usage import DAY_MS
from policies.model import Decision, Effect
from service.exposure import MAX_IMPACT, impact_of
from service.inventory_usage import Use
from service.inventory_view import Term, ToolLine, UseLine
from service.privilege_contexts import MAX_SEEN, circumstances
from service.privilege_report import PrivilegeReport, report_of
from tests.support.ledger import make_decision

NOON_MS = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp() * 1000)  # a Sunday


def facts(**members: Any) -> Facts:
    values = {"authn": "api_token", "zone": "UTC", "local_hour": 9, "local_minute": 0, "weekday": 3}
    return Facts(**{**values, "network": "office", "session_calls": 0, **members})


def seen(*found: Facts | None, agent: str = "bot", user: str | None = None) -> list[tuple[int, DecisionRecord]]:
    return [(leaf, make_decision(agent=agent, facts=one, user=user)[0]) for leaf, one in enumerate(found)]


# --- circumstances


def test_an_agent_is_asked_about_as_it_was_seen_at_three_times() -> None:
    found = circumstances("bot", seen(facts(roles=("ops",), mfa=True)), NOON_MS)
    times = [(one.when, one.request.time.weekday, one.request.time.hour) for one in found]
    assert times == [("now", 7, 12), ("Wednesday 11:00", 3, 11), ("Sunday 03:00", 7, 3)]
    principal = found[0].request.principal
    assert (principal.agent, principal.roles, principal.mfa, principal.user) == ("bot", ("ops",), True, None)
    assert found[0].request.environment.network == "office"
    assert all(one.request.time.local_date >= "2026-11-22" for one in found)


def test_each_combination_is_asked_about_once_the_latest_first_and_not_too_many() -> None:
    many = [facts(network=f"net-{number}") for number in range(9)]
    found = circumstances("bot", seen(*many, *many), NOON_MS)
    assert [one.network for one in found[::3]] == [f"net-{number}" for number in range(MAX_SEEN)]
    assert circumstances("bot", seen(facts(), facts(local_hour=3, weekday=7)), NOON_MS)[3:] == []


@pytest.mark.parametrize("decisions", [[], seen(None), seen(facts(), agent="other")])
def test_who_was_not_seen_is_asked_about_in_no_circumstance(decisions: list[tuple[int, DecisionRecord]]) -> None:
    assert circumstances("bot", decisions, NOON_MS) == []


def test_local_time_is_that_of_the_zone_and_a_zone_that_is_none_is_utc() -> None:
    (berlin, work, night) = circumstances("bot", seen(facts(zone="Europe/Berlin")), NOON_MS)
    assert (berlin.request.time.hour, work.request.time.hour, night.request.time.hour) == (13, 11, 3)
    assert work.request.time.now_ms % DAY_MS == 10 * 3_600_000
    assert circumstances("bot", seen(facts(zone="Nowhere/Land")), NOON_MS)[0].zone == "UTC"


# --- impact


def test_impact_is_the_sum_of_the_parts_that_stand_beside_it() -> None:
    impact = impact_of(["payment", "write"], ["irreversible"])
    assert impact.points == sum(part.points for part in impact.parts) == 80
    assert [(part.tag, part.suggested) for part in impact.parts] == [
        ("irreversible", True),
        ("payment", False),
        ("write", False),
    ]


@pytest.mark.parametrize(
    ("in_force", "suggested", "points"),
    [
        ((), (), 25),  # nobody knows what it does
        (("finance",), (), 25),
        (("read",), (), 5),
        (("read",), ("read",), 5),
        (("code-execution", "irreversible", "payment", "write"), ("external",), MAX_IMPACT),
    ],
)
def test_impact_of_what_is_known_little_of_is_no_zero(
    in_force: tuple[str, ...], suggested: tuple[str, ...], points: int
) -> None:
    assert impact_of(in_force, suggested).points == points


# --- the report


def tool(name: str = "sell", *, tags: tuple[str, ...] = (), suggested: tuple[str, ...] = ()) -> ToolLine:
    return ToolLine(
        server="shop",
        tool=name,
        state="known",
        server_state="registered",
        owners=(),
        tags=tags,
        terms=tuple(Term(tag=tag, state="suggested") for tag in suggested),
        disagreements=(),
        definition=None,
        seen_ms=None,
        definition_ms=None,
        definitions=1,
        definition_leaf=None,
        agents=(),
        agent_count=0,
        use=UseLine(),
    )


def says(
    effect: str = "PERMIT", *, reason: str = "policy", rules: tuple[str, ...] = ("a",), **members: Any
) -> Decision:
    given = rules if effect == "PERMIT" else ()
    return Decision(
        effect=Effect(effect),
        bundle_revision="00" * 32,
        engine="e",
        engine_version="1",
        reason=reason,
        rules=given,
        **members,
    )


HELD = {"obligations": ("approval",)}
TODAY = NOON_MS // DAY_MS


def used(calls: int, day: int = TODAY) -> Use:
    return Use(calls=calls, passed=calls, first_leaf=1, last_leaf=9, first_ms=1, last_ms=2, days={day: calls})


def report(
    answers: dict[str, list[Decision]], uses: dict[str, Use] | None = None, bundle: str | None = "b", **tools: Any
) -> PrivilegeReport:
    return report_of(
        "bot",
        now_ms=NOON_MS,
        bundle=bundle,
        size=9,
        complete=True,
        circumstances=[],
        tools=[tool(name, **tools.get(name, {})) for name in answers],
        answers={("shop", name): said for name, said in answers.items() if said},
        uses={("shop", name): use for name, use in (uses or {}).items()},
        left_out=0,
    )


@pytest.mark.parametrize(
    ("answers", "reach", "unapproved"),
    [
        ([says(), says("DENY")], "allowed", 50),
        ([says(**HELD), says()], "allowed", 50),
        ([says(**HELD), says("DENY")], "approval", 0),
        ([says("DENY"), says("NOT_APPLICABLE")], "refused", 0),
        ([says("INDETERMINATE", reason="evaluation_error")], "refused", 0),
        ([says("INDETERMINATE", reason="engine_error"), says("DENY")], "unknown", 0),
        ([says("INDETERMINATE", reason="limited"), says()], "allowed", 50),
        ([says(obligations=("dance",))], "unknown", 0),
        ([], "unknown", 0),
    ],
)
def test_reach_is_the_most_that_any_circumstance_allows(answers: list[Decision], reach: str, unapproved: int) -> None:
    (line,) = report({"sell": answers}).lines
    assert (line.reach, line.unapproved, line.asked) == (reach, unapproved, len(answers))


def test_without_a_policy_nothing_is_reachable() -> None:
    (line,) = report({"sell": []}, bundle=None).lines
    assert (line.reach, line.unused) == ("refused", False)


def test_the_worklist_is_what_is_granted_and_unused_the_most_harmful_first() -> None:
    found = report(
        {"calm": [says()], "harm": [says()], "busy": [says()], "shut": [says("DENY")]},
        {"busy": used(4), "shut": used(2)},
        harm={"suggested": ("irreversible",), "tags": ("write",)},
    )
    assert [(line.tool, line.unused) for line in found.lines] == [
        ("harm", True),
        ("calm", True),
        ("busy", False),
        ("shut", False),
    ]
    totals = found.totals
    assert (totals.tools, totals.reachable, totals.unused, totals.lost) == (4, 3, 2, 1)


def test_use_before_the_longest_window_is_no_use_of_today() -> None:
    (line,) = report({"sell": [says()]}, {"sell": used(4, TODAY - 90)}).lines
    assert (line.unused, line.within, line.use.calls) == (True, (0, 0, 0), 4)


def test_what_would_break_without_a_rule_is_what_it_alone_grants() -> None:
    found = report(
        {"one": [says(rules=("a",))], "two": [says(rules=("a", "b"))], "three": [says(rules=("b",))]},
        {"one": used(3), "two": used(5)},
    )
    grants = {grant.rule: (grant.tools, grant.unused, grant.calls) for grant in found.grants}
    assert grants == {"a": (2, 0, 3), "b": (2, 1, 0)}
    assert [grant.rule for grant in found.grants] == ["b", "a"]
