"""The tree: what an append, a checkpoint and a proof cost as the log grows, and what the log takes on disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.audits import NOTE, audit_table
from benchmarks.logs import GrowingLog, growing_log
from benchmarks.measure import Plan, Section, Table, figure, ratios, spread, timed
from benchmarks.records import LOG_ID
from benchmarks.targets import table_bytes
from ledger.files import sync_directory
from ledger.projection import PROJECTED_TABLES
from ledger.proofs import TreeHead, verify_consistency, verify_inclusion
from ledger.prover import Prover
from ledger.tiles import TILE_WIDTH, TileCoordinate, bundle_coordinates, tile_coordinates

__all__ = ["run"]

_GROUP = 500
_PROOFS = 60
_WRITES = 5
_STRIDE = 2_654_435_761
"""Knuth's multiplicative constant: successive multiples fall all over a range."""


_METHOD = """SQLite, directory of tiles and directory anchor in one process, without HTTP; a checkpoint after each
{every:,} leaves. A publication integrates, writes and syncs tiles and bundle, signs twice, verifies, swaps, exposes
and anchors. *Floors*: one file written and synced with its directory, which is the unit that a publication is made
of; one full tile read from its file. Proofs and that read are measured in processor time. {rounds} rounds; figures
are min · **median** · max."""

_PROOFS_NOTE = f"""{_PROOFS} proofs a round over the whole range, each inclusion proof verified; a new prover for each
round, whose cache is cold: most proofs read a tile, a proof file a bundle as well. *Newest*: the proof files of the
last {_GROUP} leaves after that, which is what a batch that waits for its proof is answered with."""

_PARTIALS_NOTE = """The log had {publications} checkpoints. Superseded partial tiles are not collected yet: what they
take depends on how often a checkpoint is published, not on the entries."""


@dataclass(slots=True)
class _AtSize:
    """What was measured at one size; seconds by round, of processor time where it says so or for proofs."""

    size: int
    append: list[float] = field(default_factory=list)
    append_cpu: list[float] = field(default_factory=list)
    publish_one: list[float] = field(default_factory=list)
    publish_group: list[float] = field(default_factory=list)
    synced_write: list[float] = field(default_factory=list)
    inclusion: list[float] = field(default_factory=list)
    proof_file: list[float] = field(default_factory=list)
    newest: list[float] = field(default_factory=list)
    consistency: list[float] = field(default_factory=list)
    tile_read: list[float] = field(default_factory=list)


def run(plan: Plan) -> Section:
    """Measure and return the section."""
    sizes = [10**3, 10**4, 10**5, *([10**6] if plan.full else [])]
    found: list[_AtSize] = []
    with growing_log(plan.work) as log:
        for size in sizes:
            log.grow(size)
            log.publish_rest()
            found.append(_measure(plan, log))
            plan.say(f"{size:,} leaves: a checkpoint of one leaf takes {1000 * median(found[-1].publish_one):.1f} ms")
        disk = _disk_table(log, plan.work)
        audits = audit_table(plan, log)
    return Section(
        title="The tree as it grows",
        method=_METHOD.format(every=log.publish_every, rounds=plan.rounds),
        tables=[_append_table(found), _proof_table(found), disk, audits],
        notes=[NOTE, _PROOFS_NOTE, _PARTIALS_NOTE.format(publications=log.publications)],
    )


# --- measuring


def _measure(plan: Plan, log: GrowingLog) -> _AtSize:
    at = _AtSize(log.size)
    for number in range(plan.rounds):
        append = log.append(log.signed(_GROUP))
        at.append.append(append.seconds / _GROUP)
        at.append_cpu.append(append.cpu_seconds / _GROUP)
        at.publish_group.append(log.publish().seconds)
        log.append(log.signed(1))
        at.publish_one.append(log.publish().seconds)
        at.synced_write.append(_synced_write(plan.work / f"floor-{log.size}-{number}"))
        _measure_proofs(log, at)
        at.tile_read.append(_tile_read(log))
    return at


def _synced_write(folder: Path) -> float:
    """Return the median seconds that a file of the size of a tile takes to be durable."""
    folder.mkdir()
    taken: list[float] = []
    for number in range(_WRITES):
        with timed() as watch:
            with (folder / str(number)).open("xb") as file:
                file.write(bytes(32 * TILE_WIDTH))
                file.flush()
                os.fsync(file.fileno())
            sync_directory(folder)
        taken.append(watch.seconds)
    return median(taken)


def _indexes(size: int) -> Iterator[int]:
    return (number * _STRIDE % size for number in range(1, _PROOFS + 1))


def _measure_proofs(log: GrowingLog, at: _AtSize) -> None:
    published = log.publisher.published
    assert published is not None
    head, size = published.head, published.head.size
    prover = Prover(log.ledger.tiles, LOG_ID)
    paths: list[tuple[int, tuple[bytes, ...]]] = []
    with timed() as watch:
        paths += [(index, prover.inclusion(index, size)) for index in _indexes(size)]
    at.inclusion.append(watch.cpu_seconds / _PROOFS)
    for index, path in paths:
        verify_inclusion(prover.leaf(index, size), index, head, path)
    prover = Prover(log.ledger.tiles, LOG_ID)
    with timed() as watch:
        for index in _indexes(size):
            prover.proof_file(index, published.checkpoint)
    at.proof_file.append(watch.cpu_seconds / _PROOFS)
    with timed() as watch:
        for index in range(size - _GROUP, size):
            prover.proof_file(index, published.checkpoint)
    at.newest.append(watch.cpu_seconds / _GROUP)
    _measure_consistency(log, at, head)


def _measure_consistency(log: GrowingLog, at: _AtSize, head: TreeHead) -> None:
    prover = Prover(log.ledger.tiles, LOG_ID)
    olds = [index + 1 for index in _indexes(head.size)]
    with timed() as watch:
        paths = [prover.consistency(old, head.size) for old in olds]
    at.consistency.append(watch.cpu_seconds / _PROOFS)
    for old, path in list(zip(olds, paths, strict=True))[:3]:
        root = prover.compact_range(old, tree_size=head.size).root()
        verify_consistency(TreeHead(size=old, root=root), head, path)


def _tile_read(log: GrowingLog) -> float:
    path = log.ledger.root / "logs" / LOG_ID / TileCoordinate(0, 0).path
    with timed() as watch:
        for _ in range(_PROOFS):
            path.read_bytes()
    return watch.cpu_seconds / _PROOFS


# --- what is reported


def _micro(values: Sequence[float]) -> str:
    return spread([1e6 * value for value in values])


def _milli(values: Sequence[float]) -> str:
    return spread([1e3 * value for value in values])


def _append_table(found: list[_AtSize]) -> Table:
    table = Table(
        (
            "leaves",
            "append ÷ append at the first size, processor time",
            "checkpoint of 1 leaf ÷ synced write",
            "append, µs of processor a record",
            "append, µs a record",
            "checkpoint of 1 leaf, ms",
            f"checkpoint of {_GROUP} leaves, ms",
            "synced write, ms",
        )
    )
    for at in found:
        table.rows.append(
            (
                f"{at.size:,}",
                figure(median(at.append_cpu) / median(found[0].append_cpu)),
                spread(ratios(at.publish_one, at.synced_write)),
                _micro(at.append_cpu),
                _micro(at.append),
                _milli(at.publish_one),
                _milli(at.publish_group),
                _milli(at.synced_write),
            )
        )
    return table


def _proof_table(found: list[_AtSize]) -> Table:
    headers = ("inclusion, µs", "proof file, µs", "proof file, newest, µs", "consistency, µs", "tile read, µs")
    table = Table(("leaves", "inclusion ÷ tile read", *headers))
    for at in found:
        table.rows.append(
            (
                f"{at.size:,}",
                spread(ratios(at.inclusion, at.tile_read)),
                _micro(at.inclusion),
                _micro(at.proof_file),
                _micro(at.newest),
                _micro(at.consistency),
                _micro(at.tile_read),
            )
        )
    return table


def _disk_table(log: GrowingLog, work: Path) -> Table:
    """Return what stands on disk beside the entries, as a share of their bytes."""
    folder = work / "logs" / LOG_ID
    paths = [path for path in folder.rglob("*") if path.is_file()]
    everything = sum(path.stat().st_size for path in paths)
    needed = [*tile_coordinates(log.size), *bundle_coordinates(log.size)]
    kept = sum((folder / coordinate.path).stat().st_size for coordinate in needed)
    rows = {
        "log directory beyond the entries, after collecting partials": kept - log.entry_bytes,
        "log directory beyond the entries, as it is": everything - log.entry_bytes,
        **_database_sizes(log),
    }
    table = Table((f"on disk at {log.size:,} leaves", "÷ entries", "MB"))
    table.rows.append(("entries", "100 %", figure(log.entry_bytes / 1e6)))
    for name, size in rows.items():
        table.rows.append((name, f"{100 * size / log.entry_bytes:.1f} %", figure(size / 1e6)))
    return table


def _database_sizes(log: GrowingLog) -> dict[str, int]:
    sizes = table_bytes(log.ledger.engine)
    if not sizes:
        return {}
    return {
        "searchable tables, SQLite": sum(sizes[name] for name in PROJECTED_TABLES),
        **{f"… {name}": sizes[name] for name in PROJECTED_TABLES},
        "vault payloads, SQLite": sizes["vault_payloads"],
        "checkpoints, SQLite": sizes["checkpoints"],
        "entries that wait for their bundle, SQLite": sizes["pending_entries"],
    }
