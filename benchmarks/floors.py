"""The floor of ingestion: the rows that a service would write, into the same tables, and nothing else.

The rows are ready before the time runs: nothing is decoded, verified, encrypted or looked up, and every name has its
number. SQLite gets one ``executemany`` for each table, PostgreSQL one binary COPY, and one synced commit a batch;
tables, indexes, triggers and settings of the connection are those of the service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from benchmarks.records import LOG_ID, Signed
from ledger.database import insert_rows, writing
from ledger.keys import generate_key
from ledger.merkle import hash_leaf
from ledger.projection import project
from ledger.records import encode_record
from ledger.stores import tables
from ledger.stores.sql_dictionary import Dictionary
from ledger.stores.sql_objects import SQLPayloadStore
from ledger.stores.sql_rows import names_of, record_cells, stream_of
from ledger.stores.subject_keys import DirectorySubjectKeys
from ledger.vault import Vault

__all__ = ["Floor", "Rows"]

Rows = dict[str, list[tuple[object, ...]]]
"""Rows by table name, their cells in the order of the table's columns."""

_TABLES = ("pending_entries", "records", "decision_rules", "vault_payloads")


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
    _dictionary: Dictionary | None = None

    def rows(self, batch: Sequence[Signed]) -> Rows:
        """Return the rows that a batch makes, payloads sealed."""
        if self._vault is None:
            key = generate_key("vault", "xchacha20-poly1305", "floor", created_ms=0)
            keys = DirectorySubjectKeys(self.folder / "subjects", key)
            self._vault = Vault(LOG_ID, keys, SQLPayloadStore(self.engine))
        if self._dictionary is None:
            self._dictionary = Dictionary(self.engine)
        found: Rows = {name: [] for name in _TABLES}
        for record, openings in batch:
            entry = encode_record(record)
            made = project(record, self.size, hash_leaf(entry))
            (row,) = made["records"]
            numbers = self._dictionary.numbers(LOG_ID, set(names_of(made)), {stream_of(row)})
            found["pending_entries"].append((self.size, numbers.log_no, entry))
            found["records"].append((self.size, *record_cells(row, numbers, record.time_ms)))
            found["decision_rules"] += [
                (self.size, numbers.log_no, numbers.names[rule["rule"]]) for rule in made["decision_rules"]
            ]
            found["vault_payloads"] += [
                (self.size, numbers.log_no, sealed.field, sealed.subject, sealed.ciphertext)
                for sealed in self._vault.seal(record, {opening.field: opening for opening in openings})
            ]
            self.size += 1
        return found

    def write(self, batches: Sequence[Rows]) -> None:
        """Write batches, each in a transaction of its own; all are durable when the call returns."""
        for batch in batches:
            with writing(self.engine) as connection:
                for name, rows in batch.items():
                    if rows:
                        insert_rows(connection, tables.metadata.tables[name], rows)
