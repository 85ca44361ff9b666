"""The audit: how fast a log is read again, hashed, and compared with its searchable tables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.logs import GrowingLog
from benchmarks.measure import BenchmarkError, Plan, Table, figure, ratios, spread, timed
from benchmarks.records import LOG_ID
from ledger.audit_chunks import AuditSources
from ledger.audit_report import Depth
from ledger.audit_workers import Processes
from ledger.auditor import Auditor
from ledger.database import open_engine
from ledger.stores.directory import DirectoryTileStore
from ledger.stores.sql_catalog import SQLCatalog
from ledger.tiles import bundle_coordinates
from tests.support.ledger import EmbeddedLedger

__all__ = ["NOTE", "audit_table"]

NOTE = """Audits: every bundle is read and hashed, every tile rebuilt and compared; *projection* compares every row as
well; *records* verifies every signature instead. *Floor*: every bundle read, and hashed whole, in one process. With
several processes their start is in the figure, about a second: it weighs less in a larger log."""

_DEPTHS = (Depth.HASHES, Depth.PROJECTION, Depth.RECORDS)


def _sources(root: Path) -> AuditSources:
    engine = open_engine(f"sqlite:///{root / 'ledger.db'}")
    return AuditSources(tiles=DirectoryTileStore(root / "logs"), catalog=SQLCatalog(engine))


def _floor(root: Path, size: int) -> float:
    with timed() as watch:
        for coordinate in bundle_coordinates(size):
            hashlib.sha256((root / "logs" / LOG_ID / coordinate.path).read_bytes()).digest()
    return watch.seconds


def _audit(root: Path, size: int, depth: Depth, processes: int) -> tuple[float, float]:
    here = _sources(root)
    open_sources: Callable[[], AuditSources] = partial(_sources, root)
    workers = None if processes == 1 else Processes(count=processes, open_sources=open_sources, here=here)
    auditor = Auditor(
        LOG_ID, here.tiles, EmbeddedLedger.trust_policy(), catalog=here.catalog, depth=depth, workers=workers
    )
    with timed() as watch:
        report = auditor.audit()
    if not report.clean or report.checked["entries"] != size:
        raise BenchmarkError("the audit did not find the log in order")
    return watch.seconds, watch.cpu_seconds


def audit_table(plan: Plan, log: GrowingLog) -> Table:
    """Audit the log as it is, at several depths, by one process and by one for each processor."""
    processors = len(os.sched_getaffinity(0))
    root, size = log.ledger.root, log.size
    floors: list[float] = []
    taken: dict[tuple[Depth, int], list[tuple[float, float]]] = {}
    for _ in range(plan.rounds):
        floors.append(_floor(root, size))
        for depth in _DEPTHS:
            for processes in sorted({1, processors}):
                taken.setdefault((depth, processes), []).append(_audit(root, size, depth, processes))
    table = Table(
        (f"audit of {size:,} leaves", "÷ floor", "leaves a second", "processor time of one process, µs a leaf")
    )
    for (depth, processes), rounds in taken.items():
        seconds = [watch[0] for watch in rounds]
        own = f"{figure(1e6 * median(watch[1] for watch in rounds) / size)}" if processes == 1 else "n/a"
        table.rows.append(
            (
                f"{depth}, {processes} process{'es' if processes > 1 else ''}",
                spread(ratios(seconds, floors)),
                spread([size / taken_seconds for taken_seconds in seconds]),
                own,
            )
        )
    return table
