"""Checking: the audit of a log and the verification of a pack, beside hashing the same entries and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.logs import GrowingLog, growing_log
from benchmarks.measure import BenchmarkError, Plan, Section, Table, figure, ratios, spread, timed
from benchmarks.records import LOG_ID
from evidence import pack
from evidence.container import read_container
from evidence.entry_files import read_entries
from evidence.verification import Status
from evidence.verify import verify_pack
from ledger.auditor import Auditor
from ledger.merkle import RootHash, hash_leaf, root_of_leaves
from ledger.prover import Prover
from ledger.records import decode_entry, verify_record_signature
from tests.support.packs import PackLog

__all__ = ["run"]

_SIGNATURES = 1000
_ATTEMPTS = 5

_METHOD = """`Auditor` over a log of {leaves:,} records (decisions and outcomes by turns) in a directory;
`verify_pack` over a pack of {records:,} records (calls judged by Cedar, with outcomes) from a file of {megabytes} MB,
and the making of that pack without its PDF. *Floor*: the same entries read, hashed and folded into the root, one
loop. Rates are by processor time; all of it is one core's. {rounds} interleaved rounds; figures are min · **median**
· max."""

_NOTE = """Every audit and every verification of a pack also checks each record's Ed25519 signature and canonical
form; the line *signatures alone* says what the former costs."""


@dataclass(slots=True)
class _Rates:
    """Records a second of processor time, by round."""

    hashes: list[float] = field(default_factory=list)
    signatures: list[float] = field(default_factory=list)
    audit: list[float] = field(default_factory=list)
    projection: list[float] = field(default_factory=list)
    vault: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _PackRates:
    """Records a second of processor time, by round."""

    records: int
    size_bytes: int = 0
    hashes: list[float] = field(default_factory=list)
    assemble: list[float] = field(default_factory=list)
    verify: list[float] = field(default_factory=list)


def run(plan: Plan) -> Section:
    """Measure and return the section."""
    leaves = plan.choose(5_000, 100_000)
    with growing_log(plan.work) as log:
        log.grow(leaves)
        log.publish_rest()
        rates = _Rates()
        for number in range(plan.rounds):
            _measure_audit(log, rates)
            plan.say(f"round {number + 1}: audit {figure(rates.audit[-1])} records/s")
    packs = _measure_packs(plan)
    return Section(
        title="Audit and verification",
        method=_METHOD.format(
            leaves=leaves, records=packs.records, megabytes=figure(packs.size_bytes / 1e6), rounds=plan.rounds
        ),
        tables=[_audit_table(rates), _pack_table(packs)],
        notes=[_NOTE],
    )


# --- the audit


def _measure_audit(log: GrowingLog, rates: _Rates) -> None:
    prover, ledger = Prover(log.ledger.tiles, LOG_ID), log.ledger
    root, rate = _hash(lambda: prover.entries(0, log.size, log.size), log.size)
    _same(root, log)
    rates.hashes.append(rate)
    rates.signatures.append(_signatures(log, prover))
    wanted = {
        "audit": Auditor(LOG_ID, ledger.tiles, ledger.policy),
        "projection": Auditor(LOG_ID, ledger.tiles, ledger.policy, catalog=ledger.catalog),
        "vault": Auditor(LOG_ID, ledger.tiles, ledger.policy, vault=ledger.vault),
    }
    for name, auditor in wanted.items():
        with timed() as watch:
            report = auditor.audit()
        if not report.clean or report.checked["entries"] != log.size:
            raise BenchmarkError(f"the audit found {len(report.findings)} faults")
        getattr(rates, name).append(log.size / watch.cpu_seconds)


def _hash(entries: Callable[[], Iterable[bytes]], count: int) -> tuple[RootHash, float]:
    """Return the root of some entries, and how many are read and hashed in a second: the median of a few attempts."""
    rates: list[float] = []
    for _ in range(_ATTEMPTS):
        with timed() as watch:
            root = root_of_leaves(map(hash_leaf, entries()))
        rates.append(count / watch.cpu_seconds)
    return root, median(rates)


def _same(root: RootHash, log: GrowingLog) -> None:
    published = log.publisher.published
    if published is None or published.head.root != root:
        raise BenchmarkError("the floor hashed another tree")


def _signatures(log: GrowingLog, prover: Prover) -> float:
    count = min(_SIGNATURES, log.size - 2)
    records = [decode_entry(entry) for entry in prover.entries(2, 2 + count, log.size)]
    key = bytes(log.writer.key.verify_key)
    with timed() as watch:
        for record in records:
            verify_record_signature(record, key)
    return count / watch.cpu_seconds


def _audit_table(rates: _Rates) -> Table:
    table = Table(("audit", "÷ floor", "records/s"))
    rows = {
        "tree, tiles, records, signatures": rates.audit,
        "… and the SQL projection": rates.projection,
        "… and every vaulted payload opened": rates.vault,
        "signatures alone": rates.signatures,
        "floor: hashes alone": rates.hashes,
    }
    for label, values in rows.items():
        table.rows.append((label, spread(ratios(values, rates.hashes)), spread(values)))
    return table


# --- packs


def _measure_packs(plan: Plan) -> _PackRates:
    log = PackLog()
    try:
        log.begin()
        for number in range(plan.choose(800, 20_000)):
            log.call(arguments=f'{{"amount": {number % 600 + 1}}}', session=f"s{number % 97}")
        log.end()
        log.publish()
        rates = _PackRates(len(log.entries))
        for number in range(plan.rounds):
            _measure_pack(log, plan.work / f"pack-{number}.zip", rates)
            plan.say(f"round {number + 1}: verification {figure(rates.verify[-1])} records/s")
    finally:
        log.close()
    return rates


def _measure_pack(log: PackLog, path: Path, rates: _PackRates) -> None:
    with timed() as watch:
        made = log.pack(path)
    rates.assemble.append(rates.records / watch.cpu_seconds)
    rates.size_bytes = made.size_bytes
    with timed() as watch:
        report = verify_pack(path, trust=log.trust)
    if report.status is not Status.PROVEN:
        raise BenchmarkError("the pack does not verify")
    rates.verify.append(rates.records / watch.cpu_seconds)
    rates.hashes.append(_hash(lambda: _entries_of(path, rates.records), rates.records)[1])


def _entries_of(path: Path, count: int) -> Iterator[bytes]:
    files = read_container(memoryview(path.read_bytes()))
    return read_entries(files[pack.entries_path(0, count)], count)


def _pack_table(rates: _PackRates) -> Table:
    table = Table(("pack", "÷ floor", "records/s"))
    rows = {
        "verified (signatures, root, proofs, controls derived again)": rates.verify,
        "made, each decision re-performed, without the PDF": rates.assemble,
        "floor: hashes alone": rates.hashes,
    }
    for label, values in rows.items():
        table.rows.append((label, spread(ratios(values, rates.hashes)), spread(values)))
    return table
