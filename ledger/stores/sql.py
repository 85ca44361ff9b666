"""The log store over SQL: SQLite for one process, PostgreSQL for many.

Sequencing is one short transaction under the lock of the log's row (SQLite: of the database). Everything that an
acknowledgement promises, the entry, its vault payloads and its projection, is in that one transaction. Rows are made
ready before it begins, all but their leaf indexes.

Whether a record is there already is asked of the database's unique indexes, and not before: rows are written, and only
where the indexes refuse them is looked up which ones, in a second transaction that begins anew.

Searching is in `sql_catalog`, vault payloads and bundles are read in `sql_objects`, the tables are in `tables`, how
rows are stored in `sql_rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    ScalarSelect,
    String,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from ledger.database import insert_if_absent, insert_rows, translated, writing
from ledger.errors import ConfigError, ConflictError, NotFoundError, StaleKeysError, StorageError
from ledger.merkle import LeafHash, hash_leaf
from ledger.ports import Acknowledgement, PendingEntry
from ledger.projection import Row, project
from ledger.records import Record, record_type
from ledger.stores import tables
from ledger.stores.sql_conditions import is_type
from ledger.stores.sql_dictionary import Dictionary, chunks, log_number
from ledger.stores.sql_locks import lock_log
from ledger.stores.sql_rows import Numbers, content_cells, id_bytes, id_text, names_of, record_cells, stream_of

__all__ = ["SQLLogStore"]

_Cells = tuple[object, ...]
_Stream = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An entry and the cells of its rows, ready but for the leaf index that each begins with."""

    entry: PendingEntry
    record: _Cells
    pending: _Cells
    rules: tuple[_Cells, ...]
    contents: tuple[_Cells, ...]
    payloads: tuple[_Cells, ...]


def _prepare(entry: PendingEntry, rows: Mapping[str, Sequence[Row]], numbers: Numbers, received_ms: int) -> _Prepared:
    (row,) = rows["records"]
    log_no, names = numbers.log_no, numbers.names
    return _Prepared(
        entry,
        record_cells(row, numbers, received_ms),
        (log_no, entry.entry),
        tuple((log_no, names[rule["rule"]]) for rule in rows["decision_rules"]),
        tuple(content_cells(content, log_no) for content in rows["contents"]),
        tuple((log_no, payload.field, payload.subject, payload.ciphertext) for payload in entry.payloads),
    )


_LOG_ID: Final = bindparam("log_id", type_=String)
_Number: TypeAlias = BindParameter[int] | ScalarSelect[int]


def _newest(log_no: _Number, *conditions: ColumnElement[bool]) -> ScalarSelect[Any]:
    records = tables.records.c
    return select(func.max(records.leaf_index)).where(records.log_no == log_no, *conditions).scalar_subquery()


def _ends(log_no: _Number) -> tuple[ScalarSelect[Any], ScalarSelect[Any]]:
    return _newest(log_no), _newest(log_no, is_type(_LOG_ID, "key"))


# Made once: SQLAlchemy takes longer to put a statement together than a database to answer it.
_ENDS: Final = select(*_ends(bindparam("log_no", type_=Integer)))
"""The newest leaf of a log, and that of its newest key record."""

_NUMBER_AND_ENDS: Final = select(log_number(_LOG_ID), *_ends(log_number(_LOG_ID)))
"""The same, and the log's number before it."""


class _UncertainError(Exception):
    """What becomes of a batch depends on what the log already holds; it must be looked up."""


class _Sequencing:
    """One transaction's view of a log: what is known to be there, what is being added."""

    def __init__(self, connection: Connection, log_id: str) -> None:
        """Lock the log, and read its newest leaf and its newest key record."""
        self._connection = connection
        self._known: dict[str, tuple[int, bytes]] = {}
        self._taken: dict[tuple[_Stream, int], str] = {}
        self._log_no, last, newest_key = _lock_and_read_ends(connection, log_id)
        self._next = 0 if last is None else int(last) + 1
        self._newest_key = -1 if newest_key is None else int(newest_key)
        self._looked_up = False
        self._fresh: list[_Prepared] = []

    def look_up(self, entries: Sequence[PendingEntry], numbers: Numbers) -> None:
        """Read what the log already holds under these record ids and sequence numbers."""
        self._looked_up = True
        records = tables.records.c
        for ids in chunks(id_bytes(entry.record.record_id) for entry in entries):
            query = select(records.record_id, records.leaf_index, records.leaf_hash).where(
                records.log_no == self._log_no, records.record_id.in_(ids)
            )
            for record_id, index, leaf in self._connection.execute(query):
                self._known[id_text(bytes(record_id))] = (index, bytes(leaf))
        streams: dict[_Stream, list[int]] = {}
        for entry in entries:
            streams.setdefault(_stream(entry.record), []).append(entry.record.seq)
        for stream, sequence_numbers in streams.items():
            for chunk in chunks(sequence_numbers):
                taken = select(records.seq, records.record_id).where(
                    records.log_no == self._log_no,
                    records.stream_no == numbers.streams[stream],
                    records.seq.in_(chunk),
                )
                for seq, record_id in self._connection.execute(taken):
                    self._taken[stream, seq] = id_text(bytes(record_id))

    def _check(self, entry: PendingEntry) -> Acknowledgement | None:
        """Return the acknowledgement of a repeated record, None for a new one, or raise `ConflictError`."""
        record = entry.record
        known = self._known.get(record.record_id)
        # INVARIANT 5: compared is the full SHA-256 of the committed record, never of plaintext.
        if known is not None:
            if known[1] != entry.leaf:
                raise ConflictError(f"record {record.record_id} is in the log with other content")
            return Acknowledgement(record.record_id, known[0], duplicate=True)
        # INVARIANT: no record stands behind the end of the key that signed it; whoever judged it knew every key record.
        if entry.keys_leaf is not None and entry.keys_leaf < self._newest_key:
            if not self._looked_up:
                raise _UncertainError
            raise StaleKeysError(f"record {record.record_id} was judged by keys that are no longer the newest")
        holder = self._taken.get((_stream(record), record.seq))
        if holder is not None:
            raise ConflictError(
                f"sequence number {record.seq} of enforcer {record.enforcer_id} belongs to record {holder}"
            )
        return None

    def add(self, batch: Sequence[_Prepared]) -> list[Acknowledgement]:
        """Take one batch, whole or not at all."""
        acknowledgements: list[Acknowledgement] = []
        fresh: dict[str, _Prepared] = {}
        try:
            for prepared in batch:
                entry, record = prepared.entry, prepared.entry.record
                done = self._check(entry)
                if done is None:
                    done = Acknowledgement(record.record_id, self._next + len(fresh))
                    self._known[record.record_id] = (done.index, bytes(entry.leaf))
                    self._taken[_stream(record), record.seq] = record.record_id
                    fresh[record.record_id] = prepared
                acknowledgements.append(done)
        except ConflictError:
            for prepared in fresh.values():
                record = prepared.entry.record
                del self._known[record.record_id], self._taken[_stream(record), record.seq]
            raise
        for index, prepared in enumerate(fresh.values(), self._next):
            if record_type(prepared.entry.record) == "key":
                self._newest_key = index
        self._fresh += fresh.values()
        self._next += len(fresh)
        return acknowledgements

    def write(self) -> None:
        """Insert what was taken."""
        numbered = list(enumerate(self._fresh, self._next - len(self._fresh)))
        rows: dict[Table, list[_Cells]] = {
            tables.pending_entries: [(index, *one.pending) for index, one in numbered],
            tables.records: [(index, *one.record) for index, one in numbered],
            tables.decision_rules: [(index, *rule) for index, one in numbered for rule in one.rules],
            tables.contents: [(index, *content) for index, one in numbered for content in one.contents],
            tables.vault_payloads: [(index, *payload) for index, one in numbered for payload in one.payloads],
        }
        for table, cells in rows.items():
            if cells:
                insert_rows(self._connection, table, cells)


def _lock_and_read_ends(connection: Connection, log_id: str) -> tuple[int, int | None, int | None]:
    """Lock the log, and return its number, its newest leaf and that of its newest key record."""
    if connection.dialect.name == "sqlite":
        # A transaction that writes has had the database's one lock since it began.
        log_no, last, newest_key = connection.execute(_NUMBER_AND_ENDS, {"log_id": log_id}).one()
        if log_no is None:
            raise NotFoundError(f"there is no log {log_id}")
        return log_no, last, newest_key
    log_no = lock_log(connection, log_id)
    # A statement of its own: one that had waited for the lock would not see what was committed meanwhile.
    last, newest_key = connection.execute(_ENDS, {"log_id": log_id, "log_no": log_no}).one()
    return log_no, last, newest_key


def _stream(record: Record) -> _Stream:
    return record.enforcer_id, record.epoch


class SQLLogStore:
    """`ledger.ports.LogStore` over SQL; safe for any thread, and on PostgreSQL for any number of processes."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine
        self._dictionary = Dictionary(engine)

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
            if connection.dialect.name == "postgresql":
                # Two logs that are created at once must not be given one number. Whoever reads or locks a row goes on.
                connection.exec_driver_sql("LOCK TABLE logs IN SHARE ROW EXCLUSIVE MODE")
            number = (connection.scalar(select(func.max(tables.logs.c.log_no))) or 0) + 1
            row = {"log_id": log_id, "log_no": number, "created_ms": created_ms, **wanted}
            if insert_if_absent(connection, tables.logs, row):
                return
            present = connection.execute(select(tables.logs).where(tables.logs.c.log_id == log_id)).one_or_none()
        if present is None:
            raise ConfigError(f"another log than {log_id} has the origin {origin}")
        differing = sorted(name for name, value in wanted.items() if present._mapping[name] != value)  # noqa: SLF001  # SQLAlchemy's public name
        if differing:
            raise ConfigError(f"the log {log_id} exists with another {', '.join(differing)}")

    def sequence(
        self, log_id: str, batches: Sequence[Sequence[PendingEntry]], *, received_ms: int
    ) -> list[list[Acknowledgement] | ConflictError]:
        """See `LogStore.sequence`."""
        strays = [_stray(log_id, batch) for batch in batches]
        entries = [entry for batch, stray in zip(batches, strays, strict=True) if stray is None for entry in batch]
        projected = [project(entry.record, 0, LeafHash(entry.leaf)) for entry in entries]
        names = {name for rows in projected for name in names_of(rows)}
        streams = {stream_of(row) for rows in projected for row in rows["records"]}
        numbers = self._dictionary.numbers(log_id, names, streams)
        ready = iter([_prepare(*one, numbers, received_ms) for one in zip(entries, projected, strict=True)])
        # Each batch that is no stray, as it stood, of what was made ready.
        prepared = [[] if stray else [next(ready) for _ in batch] for batch, stray in zip(batches, strays, strict=True)]
        with translated("sequence records"):
            try:
                taken = self._write(log_id, prepared, numbers, look_up=False)
            except (IntegrityError, _UncertainError):
                taken = self._write(log_id, prepared, numbers, look_up=True)
        return [stray or result for stray, result in zip(strays, taken, strict=True)]

    def _write(
        self, log_id: str, batches: Sequence[Sequence[_Prepared]], numbers: Numbers, *, look_up: bool
    ) -> list[list[Acknowledgement] | ConflictError]:
        results: list[list[Acknowledgement] | ConflictError] = []
        with writing(self._engine) as connection:
            sequencing = _Sequencing(connection, log_id)
            if look_up:
                sequencing.look_up([prepared.entry for batch in batches for prepared in batch], numbers)
            for batch in batches:
                try:
                    results.append(sequencing.add(batch))
                except ConflictError as conflict:
                    results.append(conflict)
            sequencing.write()
        return results

    def sequenced_size(self, log_id: str) -> int:
        """See `LogStore.sequenced_size`."""
        records = tables.records.c
        log_no = log_number(log_id)
        query = select(log_no, select(func.max(records.leaf_index)).where(records.log_no == log_no).scalar_subquery())
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
            .join(tables.records, and_(records.log_no == pending.log_no, records.leaf_index == pending.leaf_index))
            .where(pending.log_no == log_number(log_id), pending.leaf_index >= start, pending.leaf_index < end)
            # Said of both, so that no way to join them walks through the log.
            .where(records.leaf_index >= start, records.leaf_index < end)
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
        statement = delete(tables.pending_entries).where(
            pending.log_no == log_number(log_id), pending.leaf_index < below
        )
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
            lock_log(connection, log_id)
            present = self._present(connection, log_id)
            # INVARIANT 2: the compare and the swap are one transaction under the log's lock; this row decides alone.
            if (None if present is None else present[1]) != expected:
                raise ConflictError(f"another checkpoint of {log_id} was published meanwhile")
            if present is not None and size <= present[0]:
                raise ConflictError(f"checkpoint {size} of {log_id} does not extend the published {present[0]}")
            row = {"log_id": log_id, "size": size, "checkpoint": new, "published_ms": published_ms}
            connection.execute(insert(tables.checkpoints), row)

    def log_ids(self) -> list[str]:
        """Return the ids of all logs, sorted.

        Raises:
            StorageError: The database failed.
        """
        with translated("list the logs"), self._engine.connect() as connection:
            return sorted(connection.scalars(select(tables.logs.c.log_id)))

    def check_writable(self) -> None:
        """Confirm that the database answers and lets us write; on SQLite, that its write lock can be had.

        Raises:
            StorageError: It does not.
        """
        with translated("begin a transaction"), writing(self._engine) as connection:
            # SQLite has its one lock now. PostgreSQL is asked for nothing that a writer could wait for; a standby,
            # which answers as well, gives no transaction a number.
            if connection.dialect.name == "postgresql":
                query = select(func.pg_current_xact_id(), func.current_setting("transaction_read_only"))
                if connection.execute(query).one()[1] == "on":
                    raise StorageError("the database only reads")


def _stray(log_id: str, batch: Sequence[PendingEntry]) -> ConflictError | None:
    # INVARIANT 12: nothing of one tenant is ever written under another's key, whatever the caller let through.
    for entry in batch:
        if entry.record.log_id != log_id:
            return ConflictError(f"record {entry.record.record_id} is meant for another log")
    return None
