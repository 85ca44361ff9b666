"""What windows say of the next call: edges, midnights, clocks that go back, releases, bounds."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from policies import window_tallies
from policies.model import DecisionRequest
from policies.parameters import parse_parameters
from policies.window_history import History
from policies.window_tallies import OTHERS
from policies.windows import WindowSet, parse_windows
from tests.support.policies import make_request

PARAMETERS = [
    {"name": "amount", "type": "long", "paths": ["amount"]},
    {"name": "price", "type": "decimal", "paths": ["price"]},
]
T = 1_763_546_400_000


def declared(*windows: dict[str, Any]) -> WindowSet:
    parameters = parse_parameters(json.dumps({"parameters": PARAMETERS}).encode())
    named = [{"name": f"w{number}", **window} for number, window in enumerate(windows)]
    return parse_windows(json.dumps({"windows": named}).encode(), parameters)


def history(*windows: dict[str, Any]) -> History:
    return History(declared(*windows))


def at(now_ms: int, zone: str = "UTC", **members: Any) -> DecisionRequest:
    local = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZoneInfo(zone))
    return make_request(now_ms=now_ms, local_date=local.date().isoformat(), **members)


def moment(text: str, zone: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def facts(known: History, request: DecisionRequest) -> list[object]:
    state = known.restated(request).state.windows
    assert isinstance(state, dict)
    return list(state.values())


COUNT = {"measure": "count", "per": "agent", "over_seconds": 60}
SUM = {"measure": "sum", "parameter": "amount", "per": "user", "over": "day"}
SEEN = {"measure": "seen", "per": "session", "tags": ["pii"]}


def test_first_call_counts_itself_and_has_seen_nothing():
    assert facts(history(COUNT, SUM, SEEN), at(T, arguments='{"amount": 5}', tags=("pii",))) == [1, 5, False]


def test_call_that_does_not_belong_to_a_window_hears_of_those_before():
    known = history({**COUNT, "tools": ["sell"]}, {**SUM, "tools": ["sell"]}, SEEN)
    known.add(at(T, arguments='{"amount": 5}', tags=("pii",)), permitted=True)
    assert facts(known, at(T, name="look")) == [1, 5, True]
    assert facts(known, at(T, arguments='{"amount": 2}')) == [2, 7, True]


@pytest.mark.parametrize(
    ("of", "after_permitted", "after_denied"),
    [("permitted", 2, 2), ("denied", 0, 1), ("all", 2, 3)],
)
def test_calls_count_as_they_came_out(of, after_permitted, after_denied):
    known = history({**COUNT, "of": of})
    known.add(at(T), permitted=True)
    assert facts(known, at(T)) == [after_permitted]
    known.add(at(T), permitted=False)
    assert facts(known, at(T)) == [after_denied]


def test_denied_call_adds_nothing_to_a_sum():
    known = history(SUM)
    known.add(at(T, arguments='{"amount": 5}'), permitted=False)
    assert facts(known, at(T)) == [0]


@pytest.mark.parametrize(
    ("per", "same", "other"),
    [
        ("agent", {"agent": "A", "user": "u2", "session": "s2", "name": "look"}, {"agent": "B"}),
        ("user", {"agent": "B", "user": "u", "session": "s2"}, {"user": "u2"}),
        ("session", {"agent": "B", "user": "u2", "session": "s1"}, {"session": "s2"}),
        ("agent+tool", {"agent": "A", "user": "u2", "session": "s2"}, {"name": "look"}),
        ("agent+tool", {"agent": "A"}, {"server": "mall"}),
    ],
)
def test_calls_of_one_subject_count_together_and_of_no_other(per, same, other):
    first = {"agent": "A", "user": "u", "session": "s1", "name": "sell"}
    known = history({**COUNT, "per": per})
    known.add(at(T, **first), permitted=True)
    assert facts(known, at(T, **{**first, **same})) == [2]
    assert facts(known, at(T, **{**first, **other})) == [1]


def test_calls_for_no_user_count_together_whoever_makes_them():
    known = history({**COUNT, "per": "user"})
    known.add(at(T, agent="A"), permitted=True)
    assert facts(known, at(T, agent="B")) == [2]
    assert facts(known, at(T, agent="B", user="u")) == [1]


# --- since when ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1, 7, 60, 86_400])
def test_call_counts_for_as_long_as_the_window_and_no_longer_where_slots_meet_it(seconds):
    moment_ms = T - T % seconds
    known = history({**COUNT, "over_seconds": seconds})
    known.add(at(moment_ms), permitted=True)
    assert facts(known, at(moment_ms + seconds * 1000 - 1)) == [2]
    assert facts(known, at(moment_ms + seconds * 1000)) == [1]


@pytest.mark.parametrize("offset", [0, 1, 30, 59])
def test_call_counts_at_most_a_thousandth_of_the_window_longer(offset):
    known = history(COUNT)
    moment_ms = T - T % 60 + offset
    known.add(at(moment_ms), permitted=True)
    assert facts(known, at(moment_ms + 59_999)) == [2]
    assert facts(known, at(moment_ms + 60_060)) == [1]


def test_negative_amount_ceases_to_count_no_later_than_it_must():
    known = history({"measure": "sum", "parameter": "amount", "per": "agent", "over_seconds": 60})
    moment_ms = T - T % 60 + 30
    known.add(at(moment_ms, arguments='{"amount": -5}'), permitted=True)
    known.add(at(moment_ms, arguments='{"amount": 5}'), permitted=True)
    assert facts(known, at(moment_ms)) == [0]
    assert facts(known, at(moment_ms + 60_000)) == [5]
    assert facts(known, at(moment_ms + 60_060)) == [0]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("UTC", "2026-11-21", 24),
        ("Pacific/Kiritimati", "2026-11-21", 24),
        ("Etc/GMT+12", "2026-11-21", 24),
    ],
)
def test_day_is_the_calendar_day_of_the_zone_however_long(zone, day, hours):
    midnight = moment(f"{day}T00:00:00", zone)
    known = history({**COUNT, "over_seconds": None, "over": "day"})
    known.add(at(midnight, zone), permitted=True)
    assert facts(known, at(midnight + hours * 3_600_000 - 1, zone)) == [2]
    assert facts(known, at(midnight + hours * 3_600_000, zone)) == [1]


def test_call_before_midnight_is_one_of_yesterday():
    midnight = moment("2026-11-21T00:00:00", "Europe/Berlin")
    known = history(SUM)
    known.add(at(midnight - 1, "Europe/Berlin", arguments='{"amount": 5}'), permitted=True)
    assert facts(known, at(midnight, "Europe/Berlin")) == [0]


def test_clock_that_is_set_back_lifts_no_cap():
    known = history(COUNT, {**SUM, "per": "agent"})
    known.add(at(T, arguments='{"amount": 5}'), permitted=True)
    assert facts(known, at(T - 1000)) == [2, 5]
    assert facts(known, at(T - 90_000_000)) == [2, 5]  # the day before: what lies in the future counts


def test_clock_that_was_ahead_and_is_set_back_finds_what_was_there():
    known = history(COUNT)
    known.add(at(T), permitted=True)
    known.sweep(T + 119_000)
    assert facts(known, at(T + 1000)) == [2]


def test_session_has_no_end_until_it_is_over():
    known = history(SEEN, {**COUNT, "per": "session"})
    known.add(at(T, session="a", tags=("pii",)), permitted=True)
    known.add(at(T, session="b", tags=("pii",)), permitted=True)
    known.sweep(T + 10**11)
    assert facts(known, at(T + 10**11, session="a")) == [True, 1]
    known.end_session("a")
    assert facts(known, at(T + 10**11, session="a")) == [False, 1]
    assert facts(known, at(T + 10**11, session="b")) == [True, 1]


def test_end_of_a_session_leaves_its_day_alone():
    known = history({**SUM, "per": "session"})
    known.add(at(T, session="a", arguments='{"amount": 5}'), permitted=True)
    known.end_session("a")
    assert facts(known, at(T, session="a")) == [5]


# --- amounts ---------------------------------------------------------------------------------------------------------


def test_decimals_add_up_exactly():
    known = history({**SUM, "parameter": "price"})
    for _ in range(10):
        known.add(at(T, arguments='{"price": 0.1}'), permitted=True)
    assert facts(known, at(T, arguments='{"price": "0.0001"}')) == ["1.0001"]


def test_sum_beyond_64_bits_is_what_it_is():
    known = history(SUM)
    known.add(at(T, arguments=f'{{"amount": {2**63 - 1}}}'), permitted=True)
    assert facts(known, at(T, arguments='{"amount": 1}')) == [str(2**63)]


def test_two_windows_that_measure_the_same_count_a_call_once():
    known = history(COUNT, SUM, COUNT, SUM)
    known.add(at(T, arguments='{"amount": 5}'), permitted=True)
    request = at(T, arguments='{"amount": 1}')
    assert facts(known, request) == [2, 6, 2, 6]
    assert len(known.claims(known.windows.read_call(request))) == 2


def test_what_is_taken_back_had_never_been():
    known = history(COUNT, SUM, SEEN)
    call = known.windows.read_call(at(T, arguments='{"amount": 5}', tags=("pii",)))
    before = known.facts(call)
    shares = known.shares(call, permitted=True)
    known.apply(shares, T)
    assert known.facts(call) != before
    known.apply([share.undone() for share in shares], T)
    assert known.facts(call) == before


def test_what_is_under_way_counts_for_others_but_was_not_seen():
    known = history(COUNT, SEEN)
    call = known.windows.read_call(at(T, tags=("pii",)))
    pending = {(share.digest, share.subject): 3 for share in known.shares(call, permitted=True)}
    assert list(known.facts(call, pending).values()) == [4, False]


# --- other bundles, and bounds ---------------------------------------------------------------------------------------


def test_other_bundle_goes_on_with_what_both_measure_and_begins_what_is_new():
    known = history(COUNT, SUM)
    known.add(at(T, arguments='{"amount": 5}'), permitted=True)
    other = declared({**SUM, "per": "agent"}, SUM, COUNT)
    assert list(known.facts(other.read_call(at(T))).values()) == [0, 5, 2]


def test_subjects_beyond_the_bound_count_together_and_for_all(monkeypatch):
    monkeypatch.setattr(window_tallies, "MAX_SUBJECTS", 2)
    known = history(COUNT, {**SUM, "per": "agent"})
    for agent in ("A", "B", "C", "D"):
        known.add(at(T, agent=agent, arguments='{"amount": -1}'), permitted=True)
    assert facts(known, at(T, agent="A")) == [4, -1]
    assert facts(known, at(T, agent="E")) == [3, 0]  # what is not told apart lowers nobody's sum
    assert all(
        subject.subject != OTHERS for subject in known.shares(known.windows.read_call(at(T, agent="A")), permitted=True)
    )


def test_memory_does_not_grow_with_the_calls():
    known = history({**COUNT, "over_seconds": 1})
    for number in range(20_000):
        known.add(at(T + number), permitted=True)
    assert facts(known, at(T + 20_000)) == [1000]
    subjects, slots = known.size()
    assert (subjects, slots <= 3001) == (1, True)
    known.sweep(T + 100_000)
    assert known.size() == (0, 0)


def test_recomputed_request_says_by_what_it_was_measured():
    known = history(COUNT)
    request = known.restated(at(T))
    assert request.state.measured_by == known.windows.digests
    assert known.restated(msgspec.structs.replace(request)) == request


# --- distinct things -------------------------------------------------------------------------------------------------

TOOLS = {"measure": "distinct", "per": "agent", "over_seconds": 600}


def test_distinct_tools_count_once_however_often_they_are_called():
    known = history(TOOLS)
    for name in ("sell", "sell", "refund", "sell"):
        known.add(at(T, name=name), permitted=True)
    assert facts(known, at(T, name="sell")) == [2]
    assert facts(known, at(T, name="export")) == [3]
    assert facts(known, at(T, name="export", agent="B")) == [1]
    assert facts(known, at(T, name="sell", server="mall")) == [3]  # another server's tool is another tool


def test_refused_call_names_no_distinct_tool_and_one_taken_back_had_never_been():
    known = history(TOOLS)
    known.add(at(T, name="refund"), permitted=False)
    call = known.read_call(at(T, name="export"))
    shares = known.shares(call, permitted=True)
    known.apply(shares, T)
    assert facts(known, at(T, name="sell")) == [2]
    known.apply([share.undone() for share in shares], T)
    assert facts(known, at(T, name="sell")) == [1]


def test_distinct_tool_ceases_to_count_with_its_last_call():
    known = history(TOOLS)
    for offset, name in ((0, "sell"), (0, "refund"), (60_000, "sell")):
        known.add(at(T + offset, name=name), permitted=True)
    assert facts(known, at(T + 599_000, name="sell")) == [2]
    assert facts(known, at(T + 601_000, name="sell")) == [1]
    assert facts(known, at(T + 601_000, name="refund")) == [2]


def test_distinct_tools_under_way_count_for_others():
    known = history(TOOLS)
    call = known.read_call(at(T, name="refund"))
    pending = {(share.digest, share.subject): share.amount for share in known.claims(call)}
    assert known.facts(known.read_call(at(T, name="sell")), pending) == {"w0": 2}
    assert known.facts(known.read_call(at(T, name="refund")), pending) == {"w0": 1}
    assert known.facts(known.read_call(at(T, name="sell", agent="B")), pending) == {"w0": 1}


def test_distinct_tools_beyond_the_bound_count_one_for_each_call(monkeypatch):
    monkeypatch.setattr(window_tallies, "MAX_ELEMENTS", 3)
    known = history({"measure": "distinct", "per": "session"})
    for number in range(5):
        known.add(at(T, name=f"tool{number}"), permitted=True)
    known.add(at(T, name="tool4"), permitted=True)
    assert facts(known, at(T, name="tool0")) == [6]
    (session,) = known.session_keys()
    known.end_sessions([session])
    assert facts(known, at(T, name="tool0")) == [1]
    assert known.size() == (0, 0)


# --- job profiles ----------------------------------------------------------------------------------------------------

CLERK = {
    "roles": ["clerk"],
    "tools": ["shop/lookup", "shop/note", "shop/refund"],
    "first": ["shop/lookup"],
    "next": {"shop/lookup": ["shop/lookup", "shop/refund"], "shop/refund": ["shop/note"]},
}
OFF = {"measure": "off_profile", "per": "session", "profile": CLERK}


def way(known: History, *names: str, permitted: bool = True, first: int = 0, **members: Any) -> list[object]:
    """Call tools one after the other, and return what the window says of each call."""
    told = []
    for ordinal, name in enumerate(names, first):
        request = at(T, name=name, roles=members.pop("roles", ("clerk",)), **members)
        state = msgspec.structs.replace(request.state, calls=ordinal)
        request = msgspec.structs.replace(request, state=state)
        told += facts(known, request)
        known.add(request, permitted=permitted)
    return told


def test_way_of_a_job_profile_is_none_of_the_calls_outside_it():
    assert way(history(OFF), "lookup", "lookup", "refund", "note", "refund") == [0, 0, 0, 0, 0]


def test_each_call_outside_a_job_profile_counts():
    assert way(history(OFF), "refund") == [1]  # nothing begins so
    assert way(history(OFF), "lookup", "export") == [0, 1]  # no such tool in the work
    assert way(history(OFF), "lookup", "note") == [0, 1]  # not after that one
    assert way(history(OFF), "lookup", "refund", "lookup", "export", "refund", "refund") == [0, 0, 1, 2, 2, 3]


def test_job_profile_is_of_those_whom_it_names_and_of_nobody_else():
    assert way(history(OFF), "export", roles=("admin",)) == [0]
    by_agent = {**OFF, "profile": {**CLERK, "roles": [], "agents": ["A"]}}
    assert way(history(by_agent), "export", agent="A") == [1]
    assert way(history(by_agent), "export", agent="B") == [0]
    everybody = {**OFF, "profile": {**CLERK, "roles": []}}
    assert way(history(everybody), "export", roles=()) == [1]


def test_refused_call_is_no_step_of_a_way():
    known = history(OFF)
    assert way(known, "lookup") == [0]
    assert way(known, "note", permitted=False, first=1) == [1]
    assert way(known, "refund", first=2) == [0]


def test_call_that_came_to_nothing_leaves_what_came_before_unknown():
    known = history(OFF)
    way(known, "lookup")
    request = at(T, name="refund", roles=("clerk",))
    request = msgspec.structs.replace(request, state=msgspec.structs.replace(request.state, calls=1))
    step = known.step(known.read_call(request), permitted=True)
    assert step is not None
    known.walk(step)
    known.walk(step.undone())
    assert way(known, "note", first=2) == [1]


def test_step_that_comes_late_is_not_taken_for_the_last():
    known = history(OFF)
    way(known, "lookup", "refund", first=4)
    way(known, "lookup", first=1)
    assert way(known, "note", first=6) == [1]  # the late one is outside itself, and the note is not


def test_end_of_a_session_ends_its_way():
    known = history(OFF)
    way(known, "lookup", session="s")
    assert known.session_keys()
    known.end_session("s")
    assert not known.session_keys()
    assert way(known, "refund", session="s", first=1) == [1]


def test_session_of_another_way_is_not_mixed_in():
    known = history({**OFF, "per": "agent", "over_seconds": 600})
    way(known, "lookup", session="s")
    assert way(known, "refund", session="t") == [1]
    assert way(known, "refund", session="s", first=1) == [1]


# --- across the fleet ------------------------------------------------------------------------------------------------


def test_what_others_have_counted_counts_beside_ones_own():
    shared = {"across": "fleet"}
    known = history({**COUNT, **shared}, {**TOOLS, **shared}, {**SEEN, **shared, "per": "user", "over": "day"})
    other = History(known.windows)
    other.add(at(T, name="export", tags=("pii",)), permitted=True)
    known.add(at(T, name="sell"), permitted=True)
    assert facts(known, at(T, name="sell")) == [2, 1, False]
    told = other.counted(set(known.windows.digests.values()))
    known.put_elsewhere(told, T)
    known.put_elsewhere(told, T)  # said again, it is the same
    assert facts(known, at(T, name="sell")) == [3, 2, True]
    assert facts(known, at(T, name="export")) == [3, 2, True]
    known.sweep(T + 10 * 86_400_000)
    assert facts(known, at(T + 10 * 86_400_000, name="sell")) == [1, 1, False]


def test_total_of_others_takes_the_place_of_the_one_before():
    known = history({**SUM, "across": "fleet"})
    call = known.read_call(at(T, arguments='{"amount": 7}'))
    (share,) = known.shares(call, permitted=True)
    for total, said in ((7, 8), (3, 4), (0, 1)):
        known.put_elsewhere([replace(share, amount=total)], T)
        assert facts(known, at(T, arguments='{"amount": 1}')) == [said]


def test_staleness_is_what_it_was_when_a_request_is_measured_again():
    known = history({"measure": "staleness"})
    known.put_age(1500)
    request = known.restated(at(T))
    assert request.state.windows == {"w0": 1500}
    known.put_age(9)
    assert known.restated(request).state.windows == {"w0": 1500}
    assert known.restated(at(T)).state.windows == {"w0": 9}
    assert not known.shares(known.read_call(at(T)), permitted=True)
