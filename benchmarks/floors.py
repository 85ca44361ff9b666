"""The floor of ingestion: the rows that a service would write, into the same tables, and nothing else.

The rows are ready before the time runs: nothing is decoded, verified, encrypted or looked up. SQLite gets one
``executemany`` for each table, PostgreSQL one binary COPY, and one synced commit a batch; tables, indexes, triggers and
settings of the connection are those of the service.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from sqlalchemy import Engine, LargeBinary, String, Table

from benchmarks.records import LOG_ID, Signed
from ledger.keys import generate_key
from ledger.merkle import hash_leaf
from ledger.projection import PROJECTED_TABLES, project
from ledger.records import encode_record
from ledger.stores import tables
from ledger.stores.sql_objects import SQLPayloadStore
from ledger.stores.subject_keys import DirectorySubjectKeys
from ledger.vault import Vault

__all__ = ["Floor", "Rows"]

Rows = dict[str, list[tuple[object, ...]]]
"""Rows by table name, their cells in the order of the table's columns."""

_TABLES = ("pending_entries", *PROJECTED_TABLES, "vault_payloads")


def _columns(table: Table) -> str:
    return ", ".join(f'"{column.name}"' for column in table.columns)


def _types(table: Table) -> list[str]:
    """Return PostgreSQL's name for the type of each column."""
    kinds = [(LargeBinary, "bytea"), (String, "varchar")]
    return [next((name for kind, name in kinds if isinstance(column.type, kind)), "int8") for column in table.columns]


@dataclass(slots=True)
class Floor:
    """A database like the service's, and the next leaf index in it.

    Attributes:
        engine: An empty database with schema and log; see `installation.new_database`.
        folder: Where subject keys may be kept.
        size: Rows of ``records`` so far.
    """

    engine: Engine
    folder: Path
    size: int = 0
    _vault: Vault | None = None

    def rows(self, batch: Sequence[Signed]) -> Rows:
        """Return the rows that a batch makes, payloads sealed."""
        if self._vault is None:
            key = generate_key("vault", "xchacha20-poly1305", "floor", created_ms=0)
            keys = DirectorySubjectKeys(self.folder / "subjects", key)
            self._vault = Vault(LOG_ID, keys, SQLPayloadStore(self.engine))
        found: Rows = {name: [] for name in _TABLES}
        for record, openings in batch:
            entry = encode_record(record)
            values = {"log_id": LOG_ID, "leaf_index": self.size, "entry": entry, "received_ms": record.time_ms}
            found["pending_entries"].append(_cells(tables.pending_entries, values))
            for name, rows in project(record, self.size, hash_leaf(entry)).items():
                table = tables.metadata.tables[name]
                found[name] += [_cells(table, {**values, **row}) for row in rows]
            for sealed in self._vault.seal(record, {opening.field: opening for opening in openings}):
                payload = {"record_id": sealed.record_id, "field": sealed.field, "subject": sealed.subject}
                values = {"log_id": LOG_ID, "ciphertext": sealed.ciphertext, **payload}
                found["vault_payloads"].append(_cells(tables.vault_payloads, values))
            self.size += 1
        return found

    def write(self, batches: Sequence[Rows]) -> None:
        """Write batches, each in a transaction of its own; all are durable when the call returns."""
        with self._connection() as connection:
            for batch in batches:
                if isinstance(connection, psycopg.Connection):
                    _copy(connection, batch)
                else:
                    _insert(connection, batch)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection | psycopg.Connection[object]]:
        fairy = self.engine.raw_connection()
        try:
            connection = fairy.driver_connection
            assert isinstance(connection, sqlite3.Connection | psycopg.Connection)
            yield connection
        finally:
            fairy.close()


def _cells(table: Table, values: dict[str, object]) -> tuple[object, ...]:
    return tuple(values[column.name] for column in table.columns)


def _insert(connection: sqlite3.Connection, batch: Rows) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for name, rows in batch.items():
        if rows:
            table = tables.metadata.tables[name]
            marks = ", ".join("?" * len(table.columns))
            connection.executemany(f'INSERT INTO "{name}" ({_columns(table)}) VALUES ({marks})', rows)
    connection.execute("COMMIT")


def _copy(connection: psycopg.Connection[object], batch: Rows) -> None:
    for name, rows in batch.items():
        if rows:
            table = tables.metadata.tables[name]
            statement = f'COPY "{name}" ({_columns(table)}) FROM STDIN (FORMAT BINARY)'
            with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
                copy.set_types(_types(table))
                for row in rows:
                    copy.write_row(row)
    connection.commit()
