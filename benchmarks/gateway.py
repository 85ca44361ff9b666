"""The gateway: what it adds to a call, beside the same call without it and through a proxy that only forwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import httpx

from benchmarks.callers import Way, one_by_one, saturated
from benchmarks.gateway_load import Streams, soak_table
from benchmarks.gateways import RunningGateway, activate_policy, gateway
from benchmarks.installation import Installation, serving
from benchmarks.measure import ABSENT, BenchmarkError, Plan, Section, Table, figure, percentile, ratios, spread, timed
from benchmarks.processes import ProcessorTime, child, memory_of, read_port
from benchmarks.records import LOG_ID
from ledger.stores.sql_catalog import SQLCatalog

__all__ = ["run"]

_BLOCK = 20
_CALLERS = 16
_WARM_UP = 30
_SYNCS = 15

_METHOD = f"""`tallystick gateway` before a stub MCP server, with the demonstration's policies, recording to
`tallystick serve` over SQLite: four processes beside the callers, who speak raw HTTP over connections that stay open.
*Floors*: the same call to the same stub directly, and through an aiohttp proxy that only forwards; and 4 KiB appended
to a file and synced, which is the least that anything durable takes, before the calls of each round. One call at a time
in blocks of {_BLOCK}, the ways by turns; then {_CALLERS} callers at once; then calls that the stub answers by a stream,
one at a time and a hundred at once; and at the end many calls in one go, of which the first and the last are compared.
Processor time is that of the process that is called and of its children: of a gateway, the engines'.
{{rounds}} interleaved rounds; figures are
min · **median** · max."""

_RECORDING_NOTE = """*Available*: the decision is synced in the gateway's spool before the call goes on, the outcome
before its result is released. *Strict*: both are in the ledger as well. A denial is synced in the spool."""

_CHECKED_NOTE = """After the run the stub had seen exactly the calls that were allowed, and the ledger held one
decision for each call and one outcome for each that was allowed."""

_MEMORY_NOTE = """Resident memory of the strict gateway: {before} MiB before the load, {after} MiB after it, {peak}
MiB at most."""
_DIRECT, _PASS, _AVAILABLE, _STRICT, _DENIED = "direct", "pass-through", "available", "strict", "denied"
_LABELS = {
    _DIRECT: "direct to the MCP server",
    _PASS: "through a bare aiohttp pass-through",
    _AVAILABLE: "through the gateway, recording *available*",
    _STRICT: "through the gateway, recording *strict*",
    _DENIED: "denied by the gateway",
}


@dataclass(slots=True)
class _Found:
    """What was measured of one way, by round.

    Attributes:
        calls: Milliseconds of each call, one caller at a time.
        rates: Calls a second with many callers.
        cpu: Processor time for a call with many callers, milliseconds, of the process that is called.
        service_cpu: The same of the ledger service, where the call is recorded.
        sent: Calls in all.
    """

    calls: list[list[float]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    service_cpu: list[float] = field(default_factory=list)
    sent: int = 0

    def at(self, percent: float) -> list[float]:
        """Return a percentile of each round."""
        return [percentile(values, percent) for values in self.calls]


@dataclass(frozen=True, slots=True)
class _Place:
    """A way, the process that it leads to, and the gateway that this is."""

    way: Way
    process: subprocess.Popen[bytes]
    gateway: RunningGateway | None = None


@dataclass(slots=True)
class _Setting:
    """Everything that runs.

    Attributes:
        service: The ledger.
        stub: Where the MCP server counts what it saw.
        places: The ways to measure.
        memory: Resident memory of the strict gateway before the load, MiB.
        syncs: Milliseconds of a synced append, by round.
    """

    service: Installation
    stub: str
    places: list[_Place]
    memory: float | None
    syncs: list[float] = field(default_factory=list)


@contextmanager
def _helper(plan: Plan, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run the stub or the pass-through and yield its address and process."""
    command = [sys.executable, "-m", "benchmarks.upstream", *arguments]
    log = plan.work / f"{arguments[0]}.log"
    with child(command, log=log) as process:
        yield f"http://127.0.0.1:{read_port(process, log=log)}", process


@contextmanager
def _setting(plan: Plan) -> Iterator[_Setting]:
    with ExitStack() as stack:
        stub, stub_process = stack.enter_context(_helper(plan, "stub"))
        upstream = f"{stub}/mcp"
        passing, passing_process = stack.enter_context(_helper(plan, "pass-through", upstream))
        (plan.work / "service").mkdir()
        service = stack.enter_context(serving(plan.work / "service"))
        activate_policy(service)
        available = stack.enter_context(gateway(plan.work / "available", service, upstream, "available"))
        strict = stack.enter_context(gateway(plan.work / "strict", service, upstream, "strict"))
        ways = [
            _Place(Way(name=_DIRECT, url=upstream, token="none"), stub_process),
            _Place(Way(name=_PASS, url=passing, token="none"), passing_process),
            _Place(Way(name=_AVAILABLE, url=available.url, token=available.token), available.process, available),
            _Place(Way(name=_STRICT, url=strict.url, token=strict.token), strict.process, strict),
            _Place(
                Way(name=_DENIED, url=strict.url, token=strict.token, amount=900, allowed=False), strict.process, strict
            ),
        ]
        yield _Setting(service, stub, ways, memory_of(strict.process).now)


def run(plan: Plan) -> Section:
    """Measure and return the section."""
    found = {name: _Found() for name in _LABELS}
    streams = Streams()
    with _setting(plan) as setting:
        for place in setting.places:
            _one_by_one(place, _WARM_UP, found)
        for number in range(plan.rounds):
            _measure_latency(plan, setting, found)
            for place in setting.places:
                _measure_rate(plan, setting, place, found[place.way.name])
            for place in setting.places:
                if place.way.allowed:
                    streams.measure(plan, place.way, partial(_settle, place))
            strict = found[_STRICT]
            plan.say(
                f"round {number + 1}: a strict call takes {strict.at(50)[-1]:.1f} ms, direct "
                f"{found[_DIRECT].at(50)[-1]:.2f} ms; {figure(strict.rates[-1])} strict calls/s"
            )
        for name, sent in streams.sent.items():
            found[name].sent += sent
        soak = _soak(plan, setting, found)
        _check(setting, found)
        memory = _memory_note(setting)
    return Section(
        title="The gateway",
        method=_METHOD.format(rounds=plan.rounds),
        tables=[_latency_table(setting, found), _rate_table(found), streams.table(_LABELS, _DIRECT), soak],
        notes=[_RECORDING_NOTE, _CHECKED_NOTE, *memory],
    )


# --- measuring


def _measure_latency(plan: Plan, setting: _Setting, found: dict[str, _Found]) -> None:
    setting.syncs.append(_synced_append(plan.work / "floor"))
    taken: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(plan.choose(4, 25)):
        for place in setting.places:
            taken[place.way.name] += _one_by_one(place, _BLOCK, found)
    for name, values in taken.items():
        found[name].calls.append(values)


def _synced_append(path: Path) -> float:
    """Return the median milliseconds that 4 KiB at the end of a file take to be durable."""
    taken: list[float] = []
    with path.open("ab") as file:
        for _ in range(_SYNCS):
            with timed() as watch:
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
            taken.append(1000 * watch.seconds)
    return median(taken)


def _one_by_one(place: _Place, count: int, found: dict[str, _Found]) -> list[float]:
    taken = asyncio.run(one_by_one(place.way, count))
    found[place.way.name].sent += 1 + count
    _settle(place)
    return taken


def _measure_rate(plan: Plan, setting: _Setting, place: _Place, found: _Found) -> None:
    called, service = ProcessorTime(place.process), ProcessorTime(setting.service.process)
    done, seconds = asyncio.run(saturated(place.way, callers=_CALLERS, seconds=plan.choose(2, 20)))
    _settle(place)
    found.sent += done
    found.rates.append(done / seconds)
    found.cpu += called.each(done, units_per_second=1000)
    if place.gateway is not None:
        found.service_cpu += service.each(done, units_per_second=1000)


def _soak(plan: Plan, setting: _Setting, found: dict[str, _Found]) -> Table:
    place = next(place for place in setting.places if place.way.name == _AVAILABLE)
    table, sent = soak_table(plan, place.way, _LABELS[_AVAILABLE], lambda: memory_of(place.process).now)
    _settle(place)
    found[_AVAILABLE].sent += sent
    return table


def _settle(place: _Place) -> None:
    if place.gateway is not None:
        place.gateway.settle()


def _check(setting: _Setting, found: dict[str, _Found]) -> None:
    """Refuse to report if a denied call arrived, an allowed one did not, or a record is missing."""
    seen = int(httpx.get(f"{setting.stub}/count", trust_env=False).json()["count"])
    arrived = sum(one.sent for name, one in found.items() if name != _DENIED)
    if seen != arrived:
        raise BenchmarkError(f"{arrived} calls were to arrive at the MCP server, {seen} did")
    counts = SQLCatalog(setting.service.engine).counts(LOG_ID)
    outcomes = found[_AVAILABLE].sent + found[_STRICT].sent
    wanted = {"decision": outcomes + found[_DENIED].sent, "outcome": outcomes}
    held = {kind: counts.get(kind, 0) for kind in wanted}
    if held != wanted:
        raise BenchmarkError(f"the ledger was to hold {wanted}, it holds {held}")


# --- what is reported


def _latency_table(setting: _Setting, found: dict[str, _Found]) -> Table:
    table = Table(
        (
            "one call at a time",
            "p50 ÷ direct",
            "p50 ÷ pass-through",
            "p50 ÷ synced append",
            "added to direct, p50, ms",
            "added to direct, p95, ms",
            "p50, ms",
            "p95, ms",
        )
    )
    direct = found[_DIRECT]
    for name, one in found.items():
        added = [
            [value - floor for value, floor in zip(one.at(percent), direct.at(percent), strict=True)]
            for percent in (50, 95)
        ]
        table.rows.append(
            (
                _LABELS[name],
                spread(ratios(one.at(50), direct.at(50))),
                spread(ratios(one.at(50), found[_PASS].at(50))),
                spread(ratios(one.at(50), setting.syncs)) if name not in (_DIRECT, _PASS) else ABSENT,
                *(spread(values) if name != _DIRECT else ABSENT for values in added),
                spread(one.at(50)),
                spread(one.at(95)),
            )
        )
    table.rows.append(("floor: a synced append", *[ABSENT] * 2, "1", *[ABSENT] * 2, spread(setting.syncs), ABSENT))
    return table


def _rate_table(found: dict[str, _Found]) -> Table:
    headers = (
        f"{_CALLERS} callers at once",
        "calls/s ÷ pass-through",
        "processor time ÷ pass-through",
        "calls/s",
        "processor time a call, ms",
        "of the ledger service for it, ms",
    )
    table, floor = Table(headers), found[_PASS]
    for name, one in found.items():
        cpu = (spread(ratios(one.cpu, floor.cpu)), spread(one.cpu)) if one.cpu else (ABSENT, ABSENT)
        service = spread(one.service_cpu) if one.service_cpu else ABSENT
        rates = (spread(ratios(one.rates, floor.rates)), spread(one.rates))
        table.rows.append((_LABELS[name], rates[0], cpu[0], rates[1], cpu[1], service))
    return table


def _memory_note(setting: _Setting) -> list[str]:
    strict = next(place.gateway for place in setting.places if place.way.name == _STRICT)
    assert strict is not None
    after = memory_of(strict.process)
    if setting.memory is None or after.now is None or after.peak is None:
        return []
    values = {"before": setting.memory, "after": after.now, "peak": after.peak}
    return [_MEMORY_NOTE.format(**{name: figure(value) for name, value in values.items()})]
