"""The panel of gateways: who needs a look, in words; one calm sentence where nobody does."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.bodies import Heartbeat
from service.fleet import ActiveBundle, Beat, Fleet, Member, assemble, judge
from service.web.fleet import MAX_ROWS, FleetPanel, fleet_panel

NOW = 1_763_982_000_000
ACTIVE = ActiveBundle("a1" * 32, NOW - 3_600_000)


def member(name: str, heard_ms: int = NOW, **said: Any) -> Member:
    facts = {"kind": "periodic", "version": "0.1.0", "spool_depth": 0, "bundle_revision": ACTIVE.revision, **said}
    beat = Beat(leaf_index=1, time_ms=NOW, epoch="0" * 32, body=Heartbeat(**facts))
    return judge(name, beat, heard_ms=heard_ms, active=ACTIVE, version="0.1.0", now_ms=NOW)


def panel(*members: Member) -> FleetPanel:
    return fleet_panel(fleet(*members))


def fleet(*members: Member) -> Fleet:
    return assemble(members, active=ACTIVE, version="0.1.0", now_ms=NOW)


def test_without_gateways_it_says_so():
    shown = panel()
    assert (shown.summary, shown.rows, shown.well) == ("No gateway is enrolled.", (), True)


def test_many_that_are_well_are_one_sentence():
    shown = panel(*(member(f"gateway-{number}") for number in range(40)))
    assert (shown.summary, shown.rows) == ("40 gateways, heard of and deciding by the active bundle.", ())


def test_few_that_are_well_are_shown():
    (row,) = panel(member("gateway-1", enforced=40, clock_offset_ms=3, clock_bound_ms=2)).rows
    assert (row.state, row.well, row.modes, row.clock, row.waiting) == (
        *("Well", True, "all enforced", "+3 ±2 ms"),
        "0 records",
    )


def test_of_many_those_to_look_at_are_shown_and_no_more_than_fit():
    troubled = [member(f"gateway-{number:02}", heard_ms=NOW - 120_000) for number in range(MAX_ROWS + 2)]
    shown = panel(member("well"), *troubled)
    assert shown.summary == "10 of 11 gateways to look at; the others are well."
    assert (len(shown.rows), shown.more) == (MAX_ROWS, 2)
    assert {row.state for row in shown.rows} == {"Silent"}
    assert {row.heard for row in shown.rows} == {"2 min ago"}


@pytest.mark.parametrize(
    ("said", "state", "clause"),
    [
        ({"bundle_revision": "b2" * 32}, "Skewed", "decides by another bundle than the active one, for 1 h"),
        ({"version": "0.3.0"}, "Skewed", "a version that this service does not work with"),
        ({"clock_offset_ms": -5000, "clock_bound_ms": 3}, "Needs a look", "its clock is wrong"),
        ({"set_aside": 1}, "Needs a look", "the ledger refused records of it"),
    ],
)
def test_what_is_wrong_is_said_in_words(said: dict[str, Any], state: str, clause: str):
    shown = panel(member("gateway-1", **said))
    (row,) = shown.rows
    assert (row.state, row.troubles, row.well) == (state, (clause,), False)
    assert shown.summary == "1 of 1 gateway to look at."


def test_one_that_was_never_heard_of_has_nothing_else_to_show():
    never = judge("gateway-1", None, heard_ms=None, active=ACTIVE, version="0.1.0", now_ms=NOW)
    (row,) = panel(never).rows
    assert (row.state, row.bundle, row.heard) == ("Never heard of", "", "")


def test_what_is_only_observed_is_said_and_is_no_fault():
    (row,) = panel(member("gateway-1", enforced=37, observed=3)).rows
    assert (row.modes, row.well) == ("3 of 40 observed", True)
