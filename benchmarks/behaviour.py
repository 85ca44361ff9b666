"""Behaviour: what windows, a declared job and a learned baseline add to one call, beside Cedar's answer to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from benchmarks.measure import BenchmarkError, Plan, Section, Table, ratios, spread, timed
from enforcement.facts import Pseudonyms
from enforcement.profiles.observing import observe
from enforcement.profiles.profile import AgentProfile
from enforcement.profiles.thresholds import Thresholds
from policies.engines.cedar import CedarEngine
from policies.model import DecisionRequest
from policies.window_history import History
from policies.windows import parse_windows
from tests.support.policies import cedar_bundle, make_request

__all__ = ["run"]

_CALLS: Final = 2_000
_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS

_METHOD = """A call of an agent that has made {calls:,} before, {calls:,} times, in this process; the state file and the
records are no part of it. *Windows*: a count over ten minutes and one over a day, read, reserved and added. *Declared
job*: an `off_profile` window with 64 tools, their order and hours; *with volumes*: calls and targets in an hour and a
day as well. *Baseline*: the call is reduced to its shape, looked at and taken in, against a baseline of at least 500
calls on seven days. *Floor*: Cedar's answer to the same request by one policy, in this process. Processor time;
{rounds} interleaved rounds; figures are min · **median** · max."""

_NOTE = """Whoever comes near a limit of targets has them counted one by one: the time grows with the limit there, up
to a thousand, and nowhere else."""

_COUNTS: Final[list[dict[str, Any]]] = [
    {"name": "burst", "measure": "count", "per": "agent", "over_seconds": 600},
    {"name": "today", "measure": "count", "per": "agent", "over": "day"},
]
_JOB: Final[dict[str, Any]] = {
    "tools": [f"shop/tool-{number}" for number in range(63)] + ["shop/sell"],
    "next": {"shop/sell": ["shop/sell"]},
    "hours": {"zone": "UTC", "spans": [{"from": "00:00", "to": "24:00"}]},
}
_VOLUMES: Final = dict.fromkeys(("calls_per_hour", "calls_per_day", "targets_per_hour", "targets_per_day"), 1_000_000)
_AT_THE_LIMIT: Final = {**_VOLUMES, "targets_per_hour": 100, "targets_per_day": 100}


def _requests(start_ms: int, count: int, every_ms: int) -> list[DecisionRequest]:
    """Return calls one after the other: a hundred different ones, as an agent makes them."""
    made = []
    for number in range(count):
        request = make_request(server="shop", name="sell", arguments=f'{{"amount": {number % 100}}}', calls=number)
        now_ms = start_ms + number * every_ms
        date = f"2025-11-{1 + now_ms // _DAY_MS % 28:02}"
        time = msgspec.structs.replace(request.time, now_ms=now_ms, local_date=date, zone="UTC", hour=12, weekday=3)
        made.append(msgspec.structs.replace(request, time=time))
    return made


def _job(**more: Any) -> dict[str, Any]:
    return {
        "name": "outside",
        "measure": "off_profile",
        "per": "agent",
        "over_seconds": 600,
        "profile": {**_JOB, **more},
    }


def _history(*windows: dict[str, Any]) -> History:
    """Return what was counted once the agent has made its calls before."""
    history = History(parse_windows(json.dumps({"windows": windows}).encode()))
    for request in _requests(0, _CALLS, 100):
        history.add(request, permitted=True)
    return history


def _counted(history: History, requests: Sequence[DecisionRequest]) -> None:
    for request in requests:
        call = history.read_call(request)
        history.facts(call)
        history.claims(call)
        history.apply(history.shares(call, permitted=True), request.time.now_ms)
        if (step := history.step(call, permitted=True)) is not None:
            history.walk(step)
        if call.outside:
            raise BenchmarkError("a call of the job lies outside of it")


def _learned(pseudonyms: Pseudonyms, thresholds: Thresholds) -> AgentProfile:
    """Return a profile with its baseline."""
    profile = AgentProfile(agent="bot")
    for request in _requests(0, 20 * thresholds.ready_calls, _HOUR_MS // 50):
        call = observe("019a9c14-6d80-7abc-8def-000000000001", request, pseudonyms)
        profile.take(call, permitted=True, teaches=True, thresholds=thresholds)
    if profile.state != "ready":
        raise BenchmarkError("nothing was learned")
    return profile


def _seconds(work: Callable[[], object]) -> float:
    with timed() as watch:
        work()
    return watch.cpu_seconds / _CALLS


def run(plan: Plan) -> Section:
    """Measure and return the section."""
    pseudonyms, thresholds = Pseudonyms(bytes(32)), Thresholds()
    engine = CedarEngine()
    loaded = engine.load(cedar_bundle('@id("all") permit (principal, action, resource);'))
    profile = _learned(pseudonyms, thresholds)
    requests = _requests(_CALLS * 100, _CALLS, 100)

    def looked_at() -> None:
        for request in requests:
            call = observe("019a9c14-6d80-7abc-8def-000000000001", request, pseudonyms)
            profile.look(call, thresholds)
            profile.take(call, permitted=True, teaches=True, thresholds=thresholds)

    def answered() -> None:
        for request in requests:
            engine.evaluate(loaded, [request])

    subjects: dict[str, Callable[[], Callable[[], object]]] = {
        "Cedar's answer": lambda: answered,
        "windows": lambda: _counting(_history(*_COUNTS), requests),
        "a declared job": lambda: _counting(_history(_job()), requests),
        "a declared job with volumes": lambda: _counting(_history(_job(at_most=_VOLUMES)), requests),
        "the same, at a limit of 100 targets": lambda: _counting(_history(_job(at_most=_AT_THE_LIMIT)), requests),
        "a learned baseline": lambda: looked_at,
    }
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(plan.rounds):
        for name, prepare in subjects.items():
            taken[name].append(_seconds(prepare()))
    table = Table(("", "÷ floor", "µs for each call"))
    floor = taken["Cedar's answer"]
    for name, values in taken.items():
        table.rows.append((name, spread(ratios(values, floor)), spread([1_000_000 * value for value in values])))
    method = _METHOD.format(calls=_CALLS, rounds=plan.rounds)
    return Section(title="Behaviour", method=method, tables=[table], notes=[_NOTE])


def _counting(history: History, requests: Sequence[DecisionRequest]) -> Callable[[], object]:
    return lambda: _counted(history, requests)
