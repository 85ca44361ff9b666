"""The pages of behaviour: no baseline is no good news, and evidence is what the log has of this agent."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enforcement.profiles.thresholds import DETECTORS, JOB_DETECTORS
from ledger.bodies_drift import BaselineEvent, Drift
from service.drift import Seen
from service.drift_book import BaselineLife, DriftLife
from service.web.drift_page import agent_path, baseline_row, drift_row, drift_view, tiles_of, unknown_row
from service.web.views import Row

NOW = 1_763_982_000_000
ONE, TWO = "019a9c14-6d80-7abc-8def-000000000001", "019a9c14-6d80-7abc-8def-000000000002"
FLAG = Drift(
    action="flagged",
    drift_id="019a9c14-6d80-7abc-8def-00000000000f",
    agent="clerk",
    detector="read_then_send",
    previous="crm/lookup",
    subject="mail/send",
    baseline_version=2,
    since_ms=NOW,
    until_ms=NOW + 1,
    value_milli=1000,
    calls=1,
    decisions=(ONE, TWO),
)
LIFE = DriftLife(flag=FLAG, enforcer="gateway-1", leaf=12, time_ms=NOW, changed_ms=NOW)


def seen(state: str, *, silent: bool = False, offered: BaselineEvent | None = None, **members: object) -> Seen:
    last = BaselineEvent(action="progress", agent="clerk", **members)
    life = BaselineLife(
        agent="clerk", enforcer="gateway-1", state=state, last=last, leaf=7, time_ms=NOW, offered=offered
    )
    return Seen(baseline=life, last_call_ms=NOW, silent=silent)


def row(record_id: str, agent: str = "clerk") -> Row:
    return Row(
        record_id=record_id,
        leaf=1,
        time_ms=NOW,
        local="",
        agent=agent,
        server="mail",
        called="send",
        effect="PERMIT",
        enforcement="allow",
        observed=False,
        why=("all",),
        by_rule=True,
    )


@pytest.mark.parametrize("state", ["none", "learning"])
def test_what_is_no_baseline_has_another_sign_than_one(state):
    ready, other = baseline_row(seen("ready", baseline_version=1)), baseline_row(seen(state))
    assert ready.icon == "well"
    assert other.icon != "well"
    assert other.state != ready.state


def test_an_agent_that_no_gateway_knows_is_without_a_baseline():
    shown = unknown_row("stranger")
    assert (shown.state, shown.icon, shown.enforcer) == ("No baseline", "trouble", "")


def test_the_tiles_ask_somebody_to_look_wherever_nothing_can_be_found():
    tiles = {label: (count, ask) for label, count, ask in tiles_of([LIFE], [seen("learning"), seen("none")], 3)}
    assert tiles["Open departures"] == ("1", True)
    assert tiles["Without a baseline"] == ("4", True)
    assert tiles["Learning"] == ("1", True)
    assert tiles["Ready"] == ("0", False)


def test_the_tiles_ask_nobody_where_all_is_known_and_closed():
    closed = replace(LIFE, state="closed", disposition="expected")
    assert not any(ask for _, _, ask in tiles_of([closed], [seen("ready")], 0))


def test_a_silent_agent_is_counted():
    tiles = {label: ask for label, _, ask in tiles_of([], [seen("ready", silent=True)], 0)}
    assert tiles["Silent"]


def test_a_candidate_is_shown_with_what_it_adds_and_what_it_was_learned_from():
    offered = BaselineEvent(action="offered", agent="clerk", digest="c" * 64, calls=900, days=12, added=("mail/send",))
    shown = baseline_row(seen("ready", offered=offered))
    assert (shown.digest, shown.offered, shown.added) == ("c" * 64, "900 calls on 12 days", ("mail/send",))


def test_a_candidate_without_a_digest_is_nothing_that_could_be_accepted():
    assert baseline_row(seen("ready", offered=BaselineEvent(action="offered", agent="clerk"))).digest == ""


@pytest.mark.parametrize("agent", ["a/../../logout", "x/order", "a?b", "https://evil.example"])
def test_an_agents_name_leads_to_its_own_page(agent):
    assert "/" not in agent_path(agent).removeprefix("/drift/agents/")


def test_a_departure_says_what_it_is_about_and_what_it_was():
    assert drift_row(LIFE).about == "crm/lookup, then mail/send"
    closed = drift_row(replace(LIFE, state="closed", disposition="false_alarm"))
    assert (closed.state, closed.icon, closed.closed) == ("Closed: false alarm", "observed", True)


def test_decisions_that_the_log_has_not_or_has_of_another_agent_are_no_evidence():
    view = drift_view(LIFE, [row(ONE), row(TWO, agent="somebody")], may_speak=True)
    assert [one.record_id for one in view.decisions] == [ONE]
    assert view.missing == (TWO,)
    assert drift_view(LIFE, [], may_speak=True).missing == (ONE, TWO)


@pytest.mark.parametrize(
    ("state", "may", "speaks"), [("flagged", True, True), ("closed", True, False), ("flagged", False, False)]
)
def test_something_can_be_said_of_an_open_departure_by_who_may(state, may, speaks):
    assert drift_view(replace(LIFE, state=state), [], may_speak=may).may_speak is speaks


@pytest.mark.parametrize("detector", [*DETECTORS, *JOB_DETECTORS, "of_next_year", None])
def test_every_departure_has_words_and_fields(detector):
    life = replace(LIFE, flag=Drift(action="flagged", drift_id=FLAG.drift_id, detector=detector))
    assert drift_row(life).what
    assert [field.label for field in drift_view(life, [], may_speak=False).fields][-1] == "Leaf"
    assert drift_row(life).link == ""
