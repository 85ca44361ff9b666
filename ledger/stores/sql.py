"""The log store over SQL: SQLite for one process, PostgreSQL for many.

Sequencing is one short transaction under the lock of the log's row (SQLite: of the database). Everything that an
acknowledgement promises, the entry, its vault payloads and its projection, is in that one transaction.

Searching is in `sql_catalog`, vault payloads and bundles are read in `sql_objects`, the tables are in `tables`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from sqlalchemy import Connection, Engine, and_, delete, func, insert, select

from ledger.database import insert_if_absent, insert_many, translated, writing
from ledger.errors import ConfigError, ConflictError, NotFoundError, StaleKeysError, StorageError
from ledger.merkle import hash_leaf
from ledger.ports import Acknowledgement, PendingEntry
from ledger.projection import PROJECTED_TABLES, project
from ledger.records import record_type
from ledger.stores import tables

__all__ = ["SQLLogStore"]

_LOOKUP_CHUNK = 400
"""Ids in one IN list; SQLite accepts 999 variables at least."""


def _chunks(items: Iterable[str | int]) -> Iterator[list[str | int]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, _LOOKUP_CHUNK)):
        yield chunk


class _Sequencing:
    """One transaction's view of a log: what is there, what is being added."""

    def __init__(self, connection: Connection, log_id: str, received_ms: int) -> None:
        self._connection = connection
        self._log_id = log_id
        self._received_ms = received_ms
        self._known: dict[str, tuple[int, bytes]] = {}
        self._taken: dict[tuple[str, str, int], str] = {}
        records = tables.records.c
        last = connection.scalar(select(func.max(records.leaf_index)).where(records.log_id == log_id))
        self._next = 0 if last is None else last + 1
        self._newest_key = -1
        self._rows: dict[str, list[dict[str, object]]] = {
            name: [] for name in ("pending_entries", *PROJECTED_TABLES, "vault_payloads")
        }

    def look_up(self, entries: Sequence[PendingEntry]) -> None:
        """Read what the log already holds under these record ids and sequence numbers."""
        records = tables.records.c
        for ids in _chunks(entry.record.record_id for entry in entries):
            query = select(records.record_id, records.leaf_index, records.leaf_hash).where(
                records.log_id == self._log_id, records.record_id.in_(ids)
            )
            for record_id, index, leaf in self._connection.execute(query):
                self._known[record_id] = (index, bytes(leaf))
        if any(entry.keys_leaf is not None for entry in entries):
            query = select(func.max(records.leaf_index)).where(
                records.log_id == self._log_id, records.record_type == "key"
            )
            newest = self._connection.scalar(query)
            self._newest_key = -1 if newest is None else int(newest)
        streams: dict[tuple[str, str], list[int]] = {}
        for entry in entries:
            streams.setdefault((entry.record.enforcer_id, entry.record.epoch), []).append(entry.record.seq)
        for (enforcer_id, epoch), numbers in streams.items():
            for chunk in _chunks(numbers):
                query = select(records.seq, records.record_id).where(
                    records.log_id == self._log_id,
                    records.enforcer_id == enforcer_id,
                    records.epoch == epoch,
                    records.seq.in_(chunk),
                )
                for row in self._connection.execute(query):
                    self._taken[enforcer_id, epoch, row[0]] = row[1]

    def _check(self, entry: PendingEntry) -> Acknowledgement | None:
        """Return the acknowledgement of a repeated record, None for a new one, or raise `ConflictError`."""
        record = entry.record
        # INVARIANT 12: nothing of one tenant is ever written under another's key, whatever the caller let through.
        if record.log_id != self._log_id:
            raise ConflictError(f"record {record.record_id} is meant for another log")
        known = self._known.get(record.record_id)
        # INVARIANT 5: compared is the full SHA-256 of the committed record, never of plaintext.
        if known is not None:
            if known[1] != entry.leaf:
                raise ConflictError(f"record {record.record_id} is in the log with other content")
            return Acknowledgement(record.record_id, known[0], duplicate=True)
        # INVARIANT: no record stands behind the end of the key that signed it; whoever judged it knew every key record.
        if entry.keys_leaf is not None and entry.keys_leaf < self._newest_key:
            raise StaleKeysError(f"record {record.record_id} was judged by keys that are no longer the newest")
        holder = self._taken.get((record.enforcer_id, record.epoch, record.seq))
        if holder is not None:
            raise ConflictError(
                f"sequence number {record.seq} of enforcer {record.enforcer_id} belongs to record {holder}"
            )
        return None

    def add(self, batch: Sequence[PendingEntry]) -> list[Acknowledgement]:
        """Take one batch, whole or not at all."""
        acknowledgements: list[Acknowledgement] = []
        fresh: list[PendingEntry] = []
        known, taken = dict(self._known), dict(self._taken)
        try:
            for entry in batch:
                done = self._check(entry)
                if done is None:
                    record = entry.record
                    done = Acknowledgement(record.record_id, self._next + len(fresh))
                    self._known[record.record_id] = (done.index, bytes(entry.leaf))
                    self._taken[record.enforcer_id, record.epoch, record.seq] = record.record_id
                    fresh.append(entry)
                acknowledgements.append(done)
        except ConflictError:
            self._known, self._taken = known, taken
            raise
        for entry in fresh:
            self._stage(entry)
        return acknowledgements

    def _stage(self, entry: PendingEntry) -> None:
        index = self._next
        self._next += 1
        if record_type(entry.record) == "key":
            self._newest_key = index
        self._rows["pending_entries"].append({"log_id": self._log_id, "leaf_index": index, "entry": entry.entry})
        for name, rows in project(entry.record, index, entry.leaf).items():
            self._rows[name].extend(dict(row) for row in rows)
        self._rows["records"][-1]["received_ms"] = self._received_ms
        self._rows["vault_payloads"].extend(
            {
                "log_id": self._log_id,
                "record_id": payload.record_id,
                "field": payload.field,
                "subject": payload.subject,
                "ciphertext": payload.ciphertext,
            }
            for payload in entry.payloads
        )

    def write(self) -> None:
        """Insert what was staged."""
        for name, rows in self._rows.items():
            if rows:
                insert_many(self._connection, tables.metadata.tables[name], rows)


class SQLLogStore:
    """`ledger.ports.LogStore` over SQL; safe for any thread, and on PostgreSQL for any number of processes."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine

    def create_log(
        self, log_id: str, *, tenant: str, origin: str, environment: str, simulated: bool, created_ms: int
    ) -> None:
        """Create a log, or confirm that it is there with the same properties.

        Raises:
            ConfigError: It is there with other properties, or another log has its origin.
            StorageError: The database failed.
        """
        wanted = {"tenant": tenant, "origin": origin, "environment": environment, "simulated": simulated}
        with translated("create a log"), writing(self._engine) as connection:
            if insert_if_absent(connection, tables.logs, {"log_id": log_id, "created_ms": created_ms, **wanted}):
                return
            row = connection.execute(select(tables.logs).where(tables.logs.c.log_id == log_id)).one_or_none()
        if row is None:
            raise ConfigError(f"another log than {log_id} has the origin {origin}")
        differing = sorted(name for name, value in wanted.items() if row._mapping[name] != value)  # noqa: SLF001  # SQLAlchemy's public name
        if differing:
            raise ConfigError(f"the log {log_id} exists with another {', '.join(differing)}")

    def _lock(self, connection: Connection, log_id: str) -> None:
        query = select(tables.logs.c.log_id).where(tables.logs.c.log_id == log_id).with_for_update()
        if connection.scalar(query) is None:
            raise NotFoundError(f"there is no log {log_id}")

    def sequence(
        self, log_id: str, batches: Sequence[Sequence[PendingEntry]], *, received_ms: int
    ) -> list[list[Acknowledgement] | ConflictError]:
        """See `LogStore.sequence`."""
        results: list[list[Acknowledgement] | ConflictError] = []
        with translated("sequence records"), writing(self._engine) as connection:
            self._lock(connection, log_id)
            sequencing = _Sequencing(connection, log_id, received_ms)
            sequencing.look_up([entry for batch in batches for entry in batch])
            for batch in batches:
                try:
                    results.append(sequencing.add(batch))
                except ConflictError as conflict:
                    results.append(conflict)
            sequencing.write()
        return results

    def sequenced_size(self, log_id: str) -> int:
        """See `LogStore.sequenced_size`."""
        query = select(
            select(tables.logs.c.log_id).where(tables.logs.c.log_id == log_id).scalar_subquery(),
            select(func.max(tables.records.c.leaf_index)).where(tables.records.c.log_id == log_id).scalar_subquery(),
        )
        with translated("read the log's size"), self._engine.connect() as connection:
            found, last = connection.execute(query).one()
        if found is None:
            raise NotFoundError(f"there is no log {log_id}")
        return 0 if last is None else int(last) + 1

    def read_sequenced(self, log_id: str, start: int, end: int) -> list[bytes]:
        """See `LogStore.read_sequenced`."""
        pending, records = tables.pending_entries.c, tables.records.c
        query = (
            select(pending.entry, records.leaf_hash)
            .join(tables.records, and_(records.log_id == pending.log_id, records.leaf_index == pending.leaf_index))
            .where(pending.log_id == log_id, pending.leaf_index >= start, pending.leaf_index < end)
            .order_by(pending.leaf_index)
        )
        with translated("read entries"), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        if len(rows) != max(0, end - start):
            raise NotFoundError(f"entries {start} to {end} of {log_id} are not all held here")
        for index, (entry, leaf) in enumerate(rows, start):
            # INVARIANT 1: what was acknowledged is what is published. Neither database keeps checksums of its rows.
            if hash_leaf(entry) != leaf:
                raise StorageError(f"the database holds another entry {index} of {log_id} than was acknowledged")
        return [bytes(entry) for entry, _ in rows]

    def release(self, log_id: str, below: int) -> None:
        """See `LogStore.release`."""
        pending = tables.pending_entries.c
        statement = delete(tables.pending_entries).where(pending.log_id == log_id, pending.leaf_index < below)
        with translated("release entries"), writing(self._engine) as connection:
            connection.execute(statement)

    def _present(self, connection: Connection, log_id: str) -> tuple[int, bytes] | None:
        columns = tables.checkpoints.c
        query = select(columns.size, columns.checkpoint).where(columns.log_id == log_id).order_by(columns.size.desc())
        row = connection.execute(query.limit(1)).one_or_none()
        return None if row is None else (int(row[0]), bytes(row[1]))

    def checkpoint(self, log_id: str) -> bytes | None:
        """See `LogStore.checkpoint`."""
        with translated("read the checkpoint"), self._engine.connect() as connection:
            present = self._present(connection, log_id)
            if present is not None:
                return present[1]
            if connection.scalar(select(tables.logs.c.log_id).where(tables.logs.c.log_id == log_id)) is None:
                raise NotFoundError(f"there is no log {log_id}")
        return None

    def checkpoint_at(self, log_id: str, size: int) -> bytes:
        """Return the smallest published checkpoint of at least ``size`` leaves.

        Raises:
            NotFoundError: None is that large.
            StorageError: The database failed.
        """
        columns = tables.checkpoints.c
        query = select(columns.checkpoint).where(columns.log_id == log_id, columns.size >= size).order_by(columns.size)
        with translated("read a checkpoint"), self._engine.connect() as connection:
            found = connection.scalar(query.limit(1))
        if found is None:
            raise NotFoundError(f"no published checkpoint of {log_id} covers {size} leaves")
        return bytes(found)

    def swap_checkpoint(self, log_id: str, *, expected: bytes | None, new: bytes, size: int, published_ms: int) -> None:
        """See `LogStore.swap_checkpoint`."""
        with translated("publish a checkpoint"), writing(self._engine) as connection:
            self._lock(connection, log_id)
            present = self._present(connection, log_id)
            # INVARIANT 2: the compare and the swap are one transaction under the log's lock; this row decides alone.
            if (None if present is None else present[1]) != expected:
                raise ConflictError(f"another checkpoint of {log_id} was published meanwhile")
            if present is not None and size <= present[0]:
                raise ConflictError(f"checkpoint {size} of {log_id} does not extend the published {present[0]}")
            row = {"log_id": log_id, "size": size, "checkpoint": new, "published_ms": published_ms}
            connection.execute(insert(tables.checkpoints), row)

    def check_writable(self) -> None:
        """Confirm that the database answers and takes a write lock.

        Raises:
            StorageError: It does not.
        """
        # A standby answers as well; it refuses to lock a row. The row itself need not be free.
        query = select(tables.logs.c.log_id).limit(1).with_for_update(skip_locked=True)
        with translated("begin a transaction"), writing(self._engine) as connection:
            connection.execute(query)
