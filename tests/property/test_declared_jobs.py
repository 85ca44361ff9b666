"""A declared job against a list of all calls, and its hours against each minute that they hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from policies.job_hours import DAYS, Hours
from policies.model import DecisionRequest, Time
from policies.window_history import History
from policies.windows import parse_windows
from tests.support.policies import make_request

ZONE = ZoneInfo("Europe/Berlin")
START = int(datetime(2026, 10, 24, 20, tzinfo=UTC).timestamp() * 1000)  # before a day of 25 hours
DAY_MINUTES = 24 * 60
SLOT_MS = 3_600
"""A rolling hour is kept in thousandths: a call counts for an hour, and at most so much longer."""


def time_at(now_ms: int) -> Time:
    local = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZONE)
    return Time(
        now_ms=now_ms,
        zone=str(ZONE),
        local_date=local.date().isoformat(),
        hour=local.hour,
        minute=local.minute,
        weekday=local.isoweekday(),
    )


# --- hours

clocks = st.integers(0, DAY_MINUTES).map(lambda minute: f"{minute // 60:02}:{minute % 60:02}")
spans = st.fixed_dictionaries(
    {"from": clocks.filter(lambda clock: clock != "24:00"), "to": clocks},
    optional={"days": st.lists(st.sampled_from(DAYS), unique=True, min_size=1)},
).filter(lambda span: span["from"] != span["to"])


def minutes_of(span: dict[str, Any]) -> set[int]:
    """Return each minute of a week, from Monday's first, that a span holds, counted out."""
    first, last = (int(span[name][:2]) * 60 + int(span[name][3:]) for name in ("from", "to"))
    length = (last - first) % DAY_MINUTES or DAY_MINUTES
    begins = [DAYS.index(day) * DAY_MINUTES + first for day in span.get("days", DAYS)]
    return {(begin + minute) % (7 * DAY_MINUTES) for begin in begins for minute in range(length)}


@given(st.lists(spans, min_size=1, max_size=3), st.data())
def test_hours_hold_the_minutes_that_are_counted_out_and_no_other(declared, data):
    hours = msgspec.convert({"zone": str(ZONE), "spans": declared}, Hours)
    held = set().union(*map(minutes_of, declared))
    edges = st.sampled_from(sorted(held)).flatmap(lambda minute: st.sampled_from([minute - 1, minute, minute + 1]))
    minute = data.draw(edges | st.integers(0, 7 * DAY_MINUTES - 1)) % (7 * DAY_MINUTES)
    day, rest = divmod(minute, DAY_MINUTES)
    time = Time(now_ms=0, zone=str(ZONE), local_date="2026-10-25", hour=rest // 60, minute=rest % 60, weekday=day + 1)
    assert hours.hold(time) is (minute in held)
    assert not hours.hold(msgspec.structs.replace(time, zone="Europe/Paris"))


# --- volumes


@dataclass(frozen=True)
class Past:
    """A call and how it came out."""

    request: DecisionRequest
    permitted: bool


@st.composite
def pasts(draw: st.DrawFn) -> list[Past]:
    """Return calls in the order of the log, over a few days."""
    calls, now_ms = [], START
    for _ in range(draw(st.integers(1, 24))):
        # Far from the edge of an hour, where a thousandth of it may count or not.
        now_ms += draw(st.sampled_from([0, 1, 600_000, 1_800_000, 3_700_000, 8 * 3_600_000]))
        request = make_request(
            agent=draw(st.sampled_from("AB")),
            user=draw(st.sampled_from(["u", "v"])),
            server="shop",
            name=draw(st.sampled_from("ab")),
            arguments=json.dumps({"n": draw(st.integers(0, 2))}),
        )
        calls.append(Past(msgspec.structs.replace(request, time=time_at(now_ms)), draw(st.booleans())))
    return calls


def beyond(per: str, name: str, limit: int, before: list[Past], now: DecisionRequest) -> bool | None:
    """Say anew whether a call goes beyond a volume; None where a thousandth of an hour decides."""

    def owner(request: DecisionRequest) -> tuple[str | None, ...]:
        whose = {"agent": (request.principal.agent,), "user": (request.principal.user,)}
        return whose.get(per, (request.principal.agent, request.principal.user))

    def target(request: DecisionRequest) -> tuple[str | None, str]:
        return request.resource.name, request.arguments

    mine = [past.request for past in before if past.permitted and owner(past.request) == owner(now)]
    ages = [now.time.now_ms - request.time.now_ms for request in mine]
    if name.endswith("_hour"):
        if any(3_600_000 <= age <= 3_600_000 + SLOT_MS for age in ages):
            return None
        mine = [request for request, age in zip(mine, ages, strict=True) if age < 3_600_000]
    else:
        today = date.fromisoformat(now.time.local_date)
        mine = [request for request in mine if date.fromisoformat(request.time.local_date) >= today]
    count = len({target(request) for request in (*mine, now)}) if name.startswith("targets") else len(mine) + 1
    return count > limit


@given(
    pasts(),
    st.sampled_from(["agent", "user", "agent+user"]),
    st.dictionaries(
        st.sampled_from(["calls_per_hour", "calls_per_day", "targets_per_hour", "targets_per_day"]),
        st.integers(1, 5),
        min_size=1,
    ),
)
def test_volumes_say_what_a_list_of_all_calls_says(calls, per, limits):
    job = {"tools": ["shop/a", "shop/b"], "at_most": limits}
    window = {"name": "outside", "measure": "off_profile", "per": per, "over": "day", "profile": job}
    known = History(parse_windows(json.dumps({"windows": [window]}).encode()))
    for number, call in enumerate(calls):
        verdicts = {name: beyond(per, name, limit, calls[:number], call.request) for name, limit in limits.items()}
        said = known.read_call(call.request).outside.get("outside")
        if None not in verdicts.values():
            assert (said is not None) is any(verdicts.values())
            assert said is None or verdicts[said]
        known.add(call.request, permitted=call.permitted)
        if number % 7 == 0:
            known.sweep(call.request.time.now_ms)
