"""Ingestion: records over HTTP into a real service, beside the bare rows into the same tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

from sqlalchemy import func, select

from benchmarks.load import Post, offer, saturate
from benchmarks.measure import ABSENT, BenchmarkError, Plan, Section, Table, figure, percentile, ratios, spread, timed
from benchmarks.processes import Memory, ProcessorTime, memory_of
from benchmarks.records import PAYLOAD_BYTES, SESSIONS, Kind, Signed, Writer, lines
from benchmarks.targets import STREAMS, Target, table_bytes, targets
from ledger.projection import PROJECTED_TABLES
from ledger.records import encode_record
from ledger.stores import tables

__all__ = ["run"]

_BATCH = 500
_METHOD = f"""`tallystick serve` in a process of its own; {STREAMS} enforcers post batches of {_BATCH} signed records
side by side. A record without payload is an outcome ({{outcome}} bytes), one with a payload a decision ({{decision}}
bytes). *Floor*: the same rows, ready made, into the same tables with the same indexes and triggers, one synced
transaction a batch: an `executemany` for each table on SQLite, a binary COPY on PostgreSQL. {{rounds}} interleaved
rounds; figures are min · **median** · max."""

_KINDS: tuple[Kind, ...] = ("outcome", "decision")
_LABELS = {"outcome": "without payload", "decision": f"with a payload of {PAYLOAD_BYTES} bytes"}


@dataclass(slots=True)
class _Rates:
    """Records a second by round, and microseconds of the service's processor time for a record."""

    service: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Latencies:
    """Milliseconds of single records, by round."""

    durable: list[list[float]] = field(default_factory=list)
    proved: list[list[float]] = field(default_factory=list)
    floor: list[list[float]] = field(default_factory=list)


@dataclass(slots=True)
class _Found:
    """What was measured of one target."""

    rates: dict[Kind, _Rates] = field(default_factory=lambda: {kind: _Rates() for kind in _KINDS})
    latencies: _Latencies = field(default_factory=_Latencies)
    at_start: Memory = field(default_factory=Memory)
    after: Memory = field(default_factory=Memory)


def run(plan: Plan) -> Section:
    """Measure and return the section."""
    with targets(plan.work) as places:
        found = {target.name: _Found() for target in places}
        for target in places:
            _warm_up(target)
            found[target.name].at_start = memory_of(target.service.process)
        for number in range(plan.rounds):
            for target in places:
                for kind in _KINDS:
                    _measure_rate(plan, target, kind, found[target.name].rates[kind])
                    last = found[target.name].rates[kind]
                    plan.say(
                        f"round {number + 1}: {target.name}, {_LABELS[kind]}: {figure(last.service[-1])} records/s, "
                        f"floor {figure(last.floor[-1])}"
                    )
                found[target.name].after = memory_of(target.service.process)
                _measure_latency(plan, target, found[target.name].latencies)
                plan.say(f"round {number + 1}: {target.name}, single records done")
        for target in places:
            _check(target)
        section = _section(plan, found)
        section.tables.append(_sizes(places))
    if len(found) == 1:
        section.notes.append("PostgreSQL was not measured: its server programs are not installed here.")
    return section


def _warm_up(target: Target) -> None:
    """Let every subject get its key and every statement its plan."""
    for kind in _KINDS:
        streams, signed = target.batches(kind, 1, SESSIONS)
        saturate(_url(target), streams)
        target.floor.write([target.floor.rows(batch) for batch in signed])
    target.settle()


def _url(target: Target, query: str = "") -> str:
    return f"{target.service.url}/v1/decisions{query}"


def _measure_rate(plan: Plan, target: Target, kind: Kind, rates: _Rates) -> None:
    count = plan.choose(4, 20)
    streams, signed = target.batches(kind, count, _BATCH)
    rows = [target.floor.rows(batch) for batch in signed]
    records = len(signed) * _BATCH
    processor = ProcessorTime(target.service.process)
    rates.service.append(records / saturate(_url(target), streams))
    target.settle()
    rates.cpu += processor.each(records, units_per_second=10**6)
    with timed() as watch:
        target.floor.write(rows)
    rates.floor.append(records / watch.seconds)


def _measure_latency(plan: Plan, target: Target, latencies: _Latencies) -> None:
    """Offer single records at a modest rate; the floor writes the same rows, one transaction each."""
    count, per_second = plan.choose(600, 3_000), _rate(plan)
    durable, signed = _singles(target, count)
    proved, _ = _singles(target, count)
    rows = [target.floor.rows([record]) for record in signed]
    latencies.durable.append([1000 * value for value in offer(_url(target), durable, per_second)])
    latencies.proved.append([1000 * value for value in offer(_url(target, "?wait=proof"), proved, per_second)])
    target.settle()
    floor: list[float] = []
    for row in rows:
        with timed() as watch:
            target.floor.write([row])
        floor.append(1000 * watch.seconds)
    latencies.floor.append(floor)


def _rate(plan: Plan) -> int:
    """Return the offered rate, records a second."""
    return plan.choose(300, 300)


def _singles(target: Target, count: int) -> tuple[list[Post], list[Signed]]:
    writer, token = target.writers[0]
    signed = list(writer.write("decision", count))
    target.entry_bytes += sum(len(encode_record(record)) for record, _ in signed)
    return [Post(token, lines([one]), 1) for one in signed], signed


def _check(target: Target) -> None:
    """Refuse to report on a service that lost records, or on a floor that wrote others than the service."""
    target.settle()
    with target.service.engine.connect() as service, target.floor.engine.connect() as floor:
        for table in (tables.records, tables.decision_rules, tables.vault_payloads):
            counts = [connection.scalar(select(func.count()).select_from(table)) for connection in (service, floor)]
            if not counts[1] or (counts[0] or 0) < counts[1]:
                raise BenchmarkError(f"{target.name}: {table.name} has {counts[0]} rows, the floor {counts[1]}")


# --- what is reported


def _section(plan: Plan, found: dict[str, _Found]) -> Section:
    sizes = {kind: len(encode_record(next(Writer("gateway-1").write(kind, 1))[0])) for kind in _KINDS}
    return Section(
        title="Ingestion",
        method=_METHOD.format(**sizes, rounds=plan.rounds),
        tables=[_rates_table(found), _latency_table(plan, found), _memory_table(found)],
        notes=[
            "Service, client and publisher share the machine's cores; the floor has one of them to itself.",
            "Times of single records run from when a record was due, so that falling behind shows.",
            "The service's processor time includes publishing, and leaves out what PostgreSQL itself uses.",
            "PostgreSQL's files, the floor's as well, are in the system's folder for temporary files.",
        ],
    )


def _rates_table(found: dict[str, _Found]) -> Table:
    headers = (
        "batches",
        "service ÷ floor",
        "service, records/s",
        "floor, records/s",
        "service, µs of processor a record",
    )
    table = Table(headers)
    for name, one in found.items():
        for kind, rates in one.rates.items():
            share = ratios(rates.service, rates.floor)
            label = f"{name}, {_LABELS[kind]}"
            cpu = spread(rates.cpu) if rates.cpu else ABSENT
            table.rows.append((label, spread(share), spread(rates.service), spread(rates.floor), cpu))
    return table


def _latency_table(plan: Plan, found: dict[str, _Found]) -> Table:
    headers = (f"single records, {_rate(plan)}/s offered", "p50 ÷ floor p50", "p50, ms", "p99 of all rounds, ms")
    table = Table(headers)
    for name, one in found.items():
        floors = [median(values) for values in one.latencies.floor]
        rows = {
            "durable": one.latencies.durable,
            "with proof, a checkpoint a second": one.latencies.proved,
            "floor: the rows in one transaction": one.latencies.floor,
        }
        for label, rounds in rows.items():
            middles = [median(values) for values in rounds]
            everything = [value for values in rounds for value in values]
            # How long a proof takes is set by the interval of checkpoints, not by the database.
            share = spread(ratios(middles, floors)) if rounds is not one.latencies.proved else ABSENT
            table.rows.append((f"{name}, {label}", share, spread(middles), figure(percentile(everything, 99))))
    return table


def _memory_table(found: dict[str, _Found]) -> Table:
    table = Table(("resident memory of the service", "after ÷ before", "before, MiB", "after, MiB", "peak, MiB"))
    for name, one in found.items():
        before, after = one.at_start.now, one.after.now
        if before is None or after is None or one.after.peak is None:
            continue
        table.rows.append(
            (f"over {name}", figure(after / before), figure(before), figure(after), figure(one.after.peak))
        )
    return table


def _sizes(places: list[Target]) -> Table:
    """Return what the searchable tables take, as a share of the entries that they describe."""
    table = Table(("projection after this load", "÷ entries", "MB", *PROJECTED_TABLES))
    for target in places:
        sizes = table_bytes(target.service.engine)
        if not sizes:
            continue
        total = sum(sizes[name] for name in PROJECTED_TABLES)
        shares = [f"{100 * sizes[name] / target.entry_bytes:.0f} %" for name in PROJECTED_TABLES]
        table.rows.append((target.name, f"{100 * total / target.entry_bytes:.0f} %", figure(total / 1e6), *shares))
    return table
