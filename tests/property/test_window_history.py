"""Behaviour windows against a list of all calls, read from its beginning each time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from policies.model import DecisionRequest
from policies.parameters import parse_parameters
from policies.window_declarations import Window
from policies.window_history import History
from policies.windows import parse_windows
from tests.support.policies import make_request

ZONE = ZoneInfo("Europe/Berlin")
START = int(datetime(2026, 10, 24, 22, tzinfo=UTC).timestamp() * 1000)  # the night before a day of 25 hours
HOUR_MS = 3_600_000
PARAMETERS = {"parameters": [{"name": "amount", "type": "long", "paths": ["amount"]}]}
WINDOWS = {
    "windows": [
        {"name": "session", "measure": "count", "per": "session", "of": "all"},
        {"name": "day", "measure": "sum", "parameter": "amount", "per": "user", "over": "day", "tools": ["a"]},
        {"name": "minute", "measure": "sum", "parameter": "amount", "per": "agent", "over_seconds": 60},
        {"name": "burst", "measure": "count", "per": "agent+tool", "over_seconds": 1, "of": "denied"},
        {"name": "taint", "measure": "seen", "per": "session", "tags": ["pii"]},
    ]
}


@dataclass(frozen=True)
class Past:
    """A call and how it came out."""

    request: DecisionRequest
    permitted: bool
    amount: int


@st.composite
def pasts(draw: st.DrawFn) -> list[Past]:
    """Return calls in the order of the log; the clock may be set back now and then."""
    calls, now_ms = [], START
    for _ in range(draw(st.integers(1, 16))):
        now_ms += draw(st.sampled_from([0, 1, 59, 500, 999, 1000, 30_000, 59_999, 60_000, 43_200_000, -1000, -60_000]))
        amount = draw(st.sampled_from([0, 1, 7, 2**62, -3]))
        local = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(ZONE)
        request = make_request(
            now_ms=now_ms,
            local_date=local.date().isoformat(),
            agent=draw(st.sampled_from("AB")),
            user=draw(st.sampled_from(["u", None])),
            session=draw(st.sampled_from("st")),
            name=draw(st.sampled_from("ab")),
            tags=draw(st.sampled_from([(), ("pii",)])),
            arguments=json.dumps({"amount": amount}),
        )
        calls.append(Past(request, draw(st.booleans()), amount))
    return calls


def counts_still(window: Window, then: Past, now: DecisionRequest) -> bool:
    """Say anew what the module's text says of slots."""
    if window.over == "session":
        return True
    if window.over == "day":
        return date.fromisoformat(then.request.time.local_date) >= date.fromisoformat(now.time.local_date)
    assert window.over_seconds is not None
    width = timedelta(milliseconds=window.over_seconds)
    moment = timedelta(milliseconds=then.request.time.now_ms)
    late = moment % width
    slot = moment - late if not late or (window.measure == "sum" and then.amount < 0) else moment - late + width
    return timedelta(milliseconds=now.time.now_ms) - slot < timedelta(seconds=window.over_seconds)


def belongs(window: Window, then: Past) -> bool:
    return (
        (then.permitted, window.of) in {(True, "permitted"), (True, "all"), (False, "all"), (False, "denied")}
        and (not window.tools or then.request.resource.name in window.tools)
        and (not window.tags or "pii" in then.request.resource.tags)
    )


def expected(window: Window, before: list[Past], now: Past) -> int | str | bool:
    def amount(call: Past) -> int:
        return call.amount if window.measure == "sum" else 1

    found = [
        call
        for call in before
        if belongs(window, call)
        and window.subject(call.request) == window.subject(now.request)
        and counts_still(window, call, now.request)
    ]
    total = sum(map(amount, found))
    if window.measure == "seen":
        return bool(found)
    if window.of != "denied" and belongs(window, Past(now.request, True, now.amount)):
        total += amount(now)
    return total if abs(total) < 2**53 else str(total)


@given(pasts(), st.booleans())
def test_windows_say_what_a_list_of_all_calls_says(calls, sweeping):
    parameters = parse_parameters(json.dumps(PARAMETERS).encode())
    known = History(parse_windows(json.dumps(WINDOWS).encode(), parameters))
    latest = 0
    for number, call in enumerate(calls):
        windows = known.restated(call.request).state.windows
        assert windows == {
            name: expected(window, calls[:number], call) for name, window in known.windows.windows.items()
        }
        known.add(call.request, permitted=call.permitted)
        latest = max(latest, call.request.time.now_ms)
        if sweeping and number % 7 == 0:
            known.sweep(latest - HOUR_MS)  # the clock is set back by less in all
