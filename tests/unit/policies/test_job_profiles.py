"""Declared jobs: hours in a zone and volumes, what may be said of them, and what counts as outside."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ledger.errors import PolicySyntaxError
from policies.job_hours import DAYS, Hours
from policies.model import DecisionRequest, Time
from policies.window_history import History
from policies.windows import WindowSet, parse_windows
from tests.support.policies import make_request

T = 1_763_388_000_000
"""Monday, 2025-11-17, 15:00 in Zurich."""
ZONE = "Europe/Zurich"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
OFFICE = {"zone": ZONE, "spans": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "08:00", "to": "18:00"}]}
NIGHT = {"zone": ZONE, "spans": [{"days": ["sun"], "from": "22:00", "to": "04:00"}]}
JOB: dict[str, Any] = {"agents": ["clerk"], "tools": ["shop/lookup", "shop/refund"]}


def window(name: str = "outside", per: str = "agent", **profile: Any) -> dict[str, Any]:
    return {
        "name": name,
        "measure": "off_profile",
        "per": per,
        "over_seconds": 600,
        "profile": {**JOB, **profile},
    }


def declared(*windows: dict[str, Any]) -> WindowSet:
    return parse_windows(json.dumps({"windows": windows}).encode())


def local(weekday: int, hour: int, minute: int = 0, zone: str = ZONE) -> Time:
    return Time(now_ms=T, zone=zone, local_date="2025-11-17", hour=hour, minute=minute, weekday=weekday)


def at(offset_ms: int = 0, **members: Any) -> DecisionRequest:
    """Return a call so long after T; its weekday and hour are those of T, its date is the true one."""
    day = 17 + (15 * HOUR_MS + offset_ms) // DAY_MS
    told = {"server": "shop", "name": "lookup", "agent": "clerk", **members}
    request = make_request(**told)
    time = Time(now_ms=T + offset_ms, zone=ZONE, local_date=f"2025-11-{day}", hour=15, minute=0, weekday=1)
    return msgspec.structs.replace(request, time=time)


def said(history: History, request: DecisionRequest) -> dict[str, str]:
    return dict(history.read_call(request).outside)


# --- hours


@pytest.mark.parametrize(
    ("hours", "weekday", "hour", "minute", "inside"),
    [
        (OFFICE, 1, 8, 0, True),
        (OFFICE, 5, 17, 59, True),
        (OFFICE, 1, 7, 59, False),
        (OFFICE, 1, 18, 0, False),
        (OFFICE, 6, 12, 0, False),
        (OFFICE, 7, 12, 0, False),
        (NIGHT, 7, 22, 0, True),
        (NIGHT, 7, 23, 59, True),
        (NIGHT, 1, 0, 0, True),
        (NIGHT, 1, 3, 59, True),
        (NIGHT, 1, 4, 0, False),
        (NIGHT, 7, 21, 59, False),
        (NIGHT, 7, 3, 0, False),  # that is the end of Saturday's night, which is nobody's
        (NIGHT, 2, 3, 0, False),
        (NIGHT, 6, 23, 0, False),
    ],
)
def test_a_span_begins_with_its_first_minute_and_ends_before_its_last(hours, weekday, hour, minute, inside):
    assert msgspec.convert(hours, Hours).hold(local(weekday, hour, minute)) is inside


def test_a_span_to_the_end_of_a_day_holds_its_last_minute_and_nothing_of_the_next():
    hours = msgspec.convert({"zone": ZONE, "spans": [{"days": ["sat"], "from": "00:00", "to": "24:00"}]}, Hours)
    assert [day for day in range(1, 8) if hours.hold(local(day, 23, 59))] == [6]
    assert [day for day in range(1, 8) if hours.hold(local(day, 0, 0))] == [6]


def test_a_span_past_midnight_without_days_is_of_every_night():
    hours = msgspec.convert({"zone": ZONE, "spans": [{"from": "22:00", "to": "04:00"}]}, Hours)
    assert all(hours.hold(local(day, 23)) and hours.hold(local(day, 3)) for day in range(1, 8))
    assert not any(hours.hold(local(day, 12)) for day in range(1, 8))


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "europe/zurich", ""])
def test_in_another_zone_nobody_can_say_that_it_is_within_the_hours(zone):
    # Berlin's clocks are Zurich's today; a table of zones that says so is no part of a request.
    assert not msgspec.convert(OFFICE, Hours).hold(local(1, 12, zone=zone))


def test_days_are_named_in_the_order_of_the_requests_weekdays():
    assert DAYS[0] == "mon"
    assert len(DAYS) == 7


def test_a_call_outside_the_hours_counts_whatever_its_tool():
    history = History(declared(window(hours=NIGHT)))
    assert said(history, at()) == {"outside": "hours"}
    assert said(history, at(name="export")) == {"outside": "tool"}
    assert said(history, at(agent="somebody")) == {}
    assert said(History(declared(window(hours=OFFICE))), at()) == {}


# --- volumes


def test_the_call_that_goes_beyond_is_outside_and_an_hour_later_none_is():
    history = History(declared(window(at_most={"calls_per_hour": 2})))
    for number in range(2):
        assert said(history, at(number)) == {}
        history.add(at(number), permitted=True)
    assert said(history, at(2)) == {"outside": "calls_per_hour"}
    assert said(history, at(HOUR_MS - 10_000)) == {"outside": "calls_per_hour"}
    assert said(history, at(HOUR_MS + 10_000)) == {}


def test_refused_calls_are_no_volume():
    history = History(declared(window(at_most={"calls_per_hour": 1})))
    for number in range(9):
        history.add(at(number), permitted=False)
    assert said(history, at(9)) == {}


def test_what_is_outside_and_was_let_through_is_of_the_volume():
    history = History(declared(window(at_most={"calls_per_hour": 1})))
    history.add(at(name="export"), permitted=True)
    assert said(history, at(1)) == {"outside": "calls_per_hour"}


def test_a_day_is_one_of_the_gateways_zone():
    history = History(declared(window(at_most={"calls_per_day": 1})))
    history.add(at(), permitted=True)
    assert said(history, at(8 * HOUR_MS)) == {"outside": "calls_per_day"}  # 23:00
    assert said(history, at(9 * HOUR_MS)) == {}  # midnight


def test_the_same_thing_asked_again_is_one_target():
    history = History(declared(window(at_most={"targets_per_day": 2})))
    one, two, three = (at(arguments=json.dumps({"customer": number})) for number in range(3))
    for request in (one, two, one, two, one):
        assert said(history, request) == {}
        history.add(request, permitted=True)
    assert said(history, three) == {"outside": "targets_per_day"}
    assert said(history, at(name="refund", arguments='{"customer": 1}')) == {"outside": "targets_per_day"}
    assert said(history, one) == {}


def test_volumes_are_of_whomever_the_window_speaks_of():
    by_agent = History(declared(window(agents=[], at_most={"calls_per_hour": 1})))
    by_agent.add(at(agent="a"), permitted=True)
    assert said(by_agent, at(1, agent="a")) == {"outside": "calls_per_hour"}
    assert said(by_agent, at(1, agent="b")) == {}
    by_user = History(declared(window(agents=[], per="user", at_most={"calls_per_hour": 1})))
    by_user.add(at(agent="a", user="jane"), permitted=True)
    assert said(by_user, at(1, agent="b", user="jane")) == {"outside": "calls_per_hour"}
    assert said(by_user, at(1, agent="a", user="joe")) == {}


def test_calls_of_others_are_no_volume_of_a_job():
    history = History(declared(window(at_most={"calls_per_hour": 1})))
    history.add(at(agent="somebody"), permitted=True)
    assert said(history, at(1)) == {}


def test_calls_under_way_take_of_the_volume_before_they_are_decided():
    history = History(declared(window(at_most={"calls_per_hour": 2, "targets_per_hour": 2})))
    reserved: dict[tuple[str, str], int] = {}
    for number in range(2):
        call = history.placed(history.windows.read_call(at(arguments=f'{{"n": {number}}}')), reserved)
        assert call.outside == {}
        for share in history.claims(call):
            reserved[share.digest, share.subject] = reserved.get((share.digest, share.subject), 0) + share.amount
    late = history.windows.read_call(at(arguments='{"n": 9}'))
    assert history.placed(late, reserved).outside == {"outside": "calls_per_hour"}
    assert history.placed(late).outside == {}


def test_what_never_went_on_is_taken_back():
    history = History(declared(window(at_most={"calls_per_hour": 1})))
    shares = history.shares(history.read_call(at()), permitted=True)
    history.apply(shares, T)
    assert said(history, at(1)) == {"outside": "calls_per_hour"}
    history.apply((share.undone() for share in shares), T)
    assert said(history, at(1)) == {}


def test_another_limit_goes_on_with_what_was_counted_and_another_job_does_not():
    strict, wide = window(at_most={"calls_per_hour": 1}), window(at_most={"calls_per_hour": 5})
    other = window(agents=["clerk", "helper"], at_most={"calls_per_hour": 1})
    history = History(declared(strict))
    history.add(at(), permitted=True)
    for changed, outside in ((strict, True), (wide, False), (other, False)):
        call = history.placed(declared(changed).read_call(at(1)))
        assert bool(call.outside) is outside


def test_two_jobs_that_count_the_same_count_it_once():
    windows = declared(window("one", at_most={"calls_per_hour": 2}), window("two", at_most={"calls_per_hour": 3}))
    history = History(windows)
    history.add(at(), permitted=True)
    history.add(at(1), permitted=True)
    assert said(history, at(2)) == {"one": "calls_per_hour"}
    history.add(at(2), permitted=True)
    assert said(history, at(3)) == {"one": "calls_per_hour", "two": "calls_per_hour"}


def test_volumes_stand_in_no_request_and_the_window_says_what_follows():
    history = History(declared(window(at_most={"calls_per_hour": 1})))
    assert history.restated(at()).state.windows == {"outside": 0}
    history.add(at(), permitted=True)
    request = history.restated(at(1))
    assert request.state.windows == {"outside": 1}
    assert set(request.state.measured_by) == {"outside"}


def test_hundred_thousand_calls_take_no_more_room_than_a_thousand():
    history = History(declared(window(at_most={"calls_per_hour": 5, "targets_per_hour": 5})))
    for number in range(3000):
        history.add(at(arguments=f'{{"n": {number}}}'), permitted=True)
    subjects, _ = history.size()
    assert subjects <= 1004  # a thousand things are told apart, and the others counted together
    assert said(history, at(1)) == {"outside": "calls_per_hour"}


# --- declarations


def test_a_job_without_hours_and_volumes_is_what_it_was():
    plain = declared(window())
    assert plain.volumes == {}
    assert plain.digests["outside"] == declared(window()).digests["outside"]
    assert plain.read_call(at()).target == ""
    assert "hours" not in msgspec.json.encode(plain.windows["outside"].profile).decode()


@pytest.mark.parametrize("changed", [{"hours": OFFICE}, {"hours": NIGHT}, {"at_most": {"calls_per_day": 9}}])
def test_hours_and_volumes_are_part_of_what_a_window_measures(changed):
    assert declared(window(**changed)).digests != declared(window()).digests


def spanned(**members: Any) -> dict[str, Any]:
    return window(hours={"zone": ZONE, "spans": [{"from": "08:00", "to": "18:00", **members}]})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (spanned(to="08:00"), "a span of no length: 08:00 to 08:00"),
        (spanned(**{"from": "24:00"}), "begins at the end of a day"),
        (spanned(days=["mon", "mon"]), "name a day twice"),
        (spanned(days=["monday"]), "not window declarations"),
        (spanned(days=[1]), "not window declarations"),
        (spanned(to="18"), "not window declarations"),
        (spanned(to="25:00"), "not window declarations"),
        (spanned(to="24:01"), "not window declarations"),
        (spanned(to="08:60"), "not window declarations"),
        (spanned(to="18:00\n"), "not window declarations"),
        (spanned(to=1800), "not window declarations"),
        (spanned(until="18:00"), "not window declarations"),
        (window(hours={"zone": ZONE, "spans": []}), "not window declarations"),
        (window(hours={"zone": ZONE}), "not window declarations"),
        (window(hours={"spans": OFFICE["spans"]}), "not window declarations"),
        (window(hours={**OFFICE, "zone": "../etc/passwd"}), "not window declarations"),
        (window(hours={**OFFICE, "zone": ""}), "not window declarations"),
        (window(hours={**OFFICE, "spans": OFFICE["spans"] * 33}), "not window declarations"),
        (window(hours=OFFICE["spans"]), "not window declarations"),
        (window(at_most={}), "says at_most, and limits nothing"),
        (window(at_most={"calls_per_hour": 0}), "not window declarations"),
        (window(at_most={"calls_per_hour": -1}), "not window declarations"),
        (window(at_most={"calls_per_hour": 1.5}), "not window declarations"),
        (window(at_most={"calls_per_hour": "60"}), "not window declarations"),
        (window(at_most={"calls_per_hour": 1_000_001}), "not window declarations"),
        (window(at_most={"calls_per_week": 60}), "not window declarations"),
        (window(at_most=[60]), "not window declarations"),
        (window(per="session", at_most={"calls_per_hour": 1}), "limits volumes, so it is per agent, user or agent"),
        (window(per="agent+tool", at_most={"calls_per_hour": 1}), "limits volumes, so it is per agent, user or agent"),
        ({**window(at_most={"calls_per_hour": 1}), "across": "fleet"}, "which each gateway counts for itself"),
    ],
)
def test_a_job_that_can_be_read_in_two_ways_is_refused(bad, message):
    with pytest.raises(PolicySyntaxError, match=message):
        declared(bad)
