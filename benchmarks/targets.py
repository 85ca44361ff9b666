"""What records are put into: a real service over each database that is there, and beside each its floor."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, text

from benchmarks.floors import Floor
from benchmarks.installation import Installation, new_database, serving
from benchmarks.load import Post
from benchmarks.measure import BenchmarkError
from benchmarks.records import LOG_ID, Kind, Signed, Writer, lines
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.projection import PROJECTED_TABLES
from ledger.records import encode_record
from ledger.stores.sql import SQLLogStore
from tests.support.postgres import PostgresCluster, PostgresMissingError

__all__ = ["STREAMS", "Target", "table_bytes", "targets"]

STREAMS = 8
"""Enforcers that post side by side, each with one request under way."""
_PUBLISH_SECONDS = 120.0
_WORKERS = {1: "PostgreSQL", 2: "PostgreSQL, 2 processes"}


@dataclass(slots=True)
class Target:
    """A service over one kind of database, and the floor beside it.

    Attributes:
        name: The database.
        service: The service.
        floor: Its floor.
        writers: Introduced enforcers and their tokens.
        entry_bytes: Bytes of the entries that were posted.
    """

    name: str
    service: Installation
    floor: Floor
    writers: Sequence[tuple[Writer, str]]
    entry_bytes: int = 0

    def batches(self, kind: Kind, count: int, records: int) -> tuple[list[list[Post]], list[list[Signed]]]:
        """Return ``count`` batches for each stream, as requests by stream and as signed records."""
        streams: list[list[Post]] = []
        signed: list[list[Signed]] = []
        for writer, token in self.writers:
            batches = [list(writer.write(kind, records)) for _ in range(count)]
            self.entry_bytes += sum(len(encode_record(record)) for batch in batches for record, _ in batch)
            streams.append([Post(token, lines(batch), records) for batch in batches])
            signed += batches
        return streams, signed

    def settle(self) -> None:
        """Wait until the service has published everything, so that it is idle while something else is measured."""
        store = SQLLogStore(self.service.engine)
        deadline = time.monotonic() + _PUBLISH_SECONDS
        while time.monotonic() < deadline:
            checkpoint = store.checkpoint(LOG_ID)
            size = 0 if checkpoint is None else parse_unverified_checkpoint(checkpoint).claim.size
            if size == store.sequenced_size(LOG_ID):
                time.sleep(0.2)  # the copy for the anchor
                return
            time.sleep(0.05)
        raise BenchmarkError(f"the service over {self.name} did not publish in time")


def table_bytes(engine: Engine) -> dict[str, int]:
    """Return the size of each table with its indexes; empty for an SQLite that was built without ``dbstat``."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            query = (
                "SELECT relname, pg_total_relation_size(oid) FROM pg_class WHERE relkind = 'r' AND relname = ANY(:n)"
            )
            return dict(connection.execute(text(query), {"n": list(PROJECTED_TABLES)}).tuples().all())
        if not connection.scalar(text("SELECT count(*) FROM pragma_module_list WHERE name = 'dbstat'")):
            return {}
        query = "SELECT m.tbl_name, sum(d.pgsize) FROM dbstat d JOIN sqlite_master m ON m.name = d.name GROUP BY 1"
        return dict(connection.execute(text(query)).tuples().all())


@contextmanager
def _target(name: str, folder: Path, service_url: str, floor_url: str, workers: int = 1) -> Iterator[Target]:
    folder.mkdir()
    floor_engine = new_database(floor_url or f"sqlite:///{folder / 'floor.db'}")
    try:
        with serving(folder, service_url, workers=workers) as service:
            writers = [service.writer(f"gateway-{number}") for number in range(STREAMS)]
            yield Target(name, service, Floor(floor_engine, folder), writers)
    finally:
        floor_engine.dispose()


def _postgres(stack: ExitStack) -> PostgresCluster | None:
    try:
        cluster = PostgresCluster()
    except PostgresMissingError:
        return None
    stack.callback(cluster.stop)
    return cluster


@contextmanager
def targets(work: Path) -> Iterator[list[Target]]:
    """Run a service over SQLite and, where its programs are installed, two over PostgreSQL: of one process, and of two.

    PostgreSQL's files, for the service and for the floor alike, are in the system's folder for temporary files: its
    server runs as another user than root, who may not be able to enter ours.
    """
    with ExitStack() as stack:
        found = [stack.enter_context(_target("SQLite", work / "sqlite", "", ""))]
        cluster = _postgres(stack)
        if cluster is not None:
            for workers, name in _WORKERS.items():
                service_url, floor_url = cluster.new_database(), cluster.new_database()
                place = work / f"postgresql-{workers}"
                found.append(stack.enter_context(_target(name, place, service_url, floor_url, workers)))
        yield found
