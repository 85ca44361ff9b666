"""Encrypted payloads in the SQL database: found by subject and by day, exchanged, emptied.

They are written by `SQLLogStore.sequence`, with their record. What makes a payload unreadable is that a key is gone;
emptying its ciphertext is done in addition, and does nothing to backups, write-ahead logs and freed pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

from sqlalchemy import Engine, Select, and_, func, select, update

from ledger.database import translated, writing
from ledger.errors import StorageError
from ledger.ports import SealedPayload
from ledger.stores import tables
from ledger.stores.sql_conditions import holds, is_type
from ledger.stores.sql_dictionary import log_number
from ledger.stores.sql_objects import SQLPayloadStore
from ledger.stores.sql_rows import id_bytes
from ledger.subjects import Bucket

__all__ = ["SQLPayloadArchive"]

_CHUNK: Final = 400
"""Leaves in one statement; SQLite accepts 999 variables at least."""


class SQLPayloadArchive(SQLPayloadStore):
    """`ledger.vault.PayloadArchive` over SQL; safe for any thread."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose schema is up to date."""
        super().__init__(engine)
        self._database = engine

    def of_subject(self, log_id: str, subject: str, *, emptied: bool = False) -> list[int]:
        """See `PayloadArchive.of_subject`."""
        # One query for each, so that each has its index. A hold names up to three subjects, and there are few of them:
        # who reads their leaves sees whom they are about.
        conditions = (
            tables.vault_payloads.c.subject == subject,
            holds("user", [subject]),
            holds("session", [subject]),
            is_type(log_id, "hold"),
        )
        query = _sealed(log_id) if emptied else _live(log_id)
        found = (self._indexes(query.where(condition)) for condition in conditions)
        return sorted(set(chain.from_iterable(found)))

    def of_bucket(self, log_id: str, bucket: Bucket, *, above: int = -1) -> list[int]:
        """See `PayloadArchive.of_bucket`."""
        records = tables.records.c
        return self._indexes(
            _live(log_id).where(
                is_type(log_id, bucket.record_type),
                records.time_ms >= bucket.start_ms,
                records.time_ms < bucket.end_ms,
                records.leaf_index > above,
            )
        )

    def _indexes(self, query: Select[int]) -> list[int]:
        with translated("look payloads up"), self._database.connect() as connection:
            return sorted({int(index) for (index,) in connection.execute(query)})

    def replace(self, log_id: str, payloads: tuple[SealedPayload, ...]) -> None:
        """See `PayloadArchive.replace`."""
        columns, records = tables.vault_payloads.c, tables.records.c
        log_no = log_number(log_id)
        with translated("exchange payloads"), writing(self._database) as connection:
            for payload in payloads:
                leaf = select(records.leaf_index).where(
                    records.log_no == log_no, records.record_id == id_bytes(payload.record_id)
                )
                statement = (
                    update(tables.vault_payloads)
                    .where(
                        columns.log_no == log_no,
                        columns.leaf_index == leaf.scalar_subquery(),
                        columns.field == payload.field,
                    )
                    .values(subject=payload.subject, ciphertext=payload.ciphertext)
                )
                if connection.execute(statement).rowcount != 1:
                    raise StorageError(f"the payload {payload.field} of record {payload.record_id} is not there")

    def shred(self, log_id: str, indexes: list[int]) -> int:
        """See `PayloadArchive.shred`."""
        return sum(self._shred(log_id, chunk) for chunk in _chunks(indexes))

    def _shred(self, log_id: str, indexes: list[int]) -> int:
        columns = tables.vault_payloads.c
        statement = (
            update(tables.vault_payloads)
            .where(
                columns.log_no == log_number(log_id),
                columns.leaf_index.in_(indexes),
                func.length(columns.ciphertext) > 0,
            )
            .values(ciphertext=b"")
        )
        with translated("empty payloads"), writing(self._database) as connection:
            return connection.execute(statement).rowcount


def _chunks(indexes: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(indexes), _CHUNK):
        yield indexes[start : start + _CHUNK]


def _live(log_id: str) -> Select[int]:
    """Return a query of the leaves that have payloads which were not emptied."""
    return _sealed(log_id).where(func.length(tables.vault_payloads.c.ciphertext) > 0)


def _sealed(log_id: str) -> Select[int]:
    """Return a query of the leaves that have payloads, emptied or not."""
    records, payloads = tables.records, tables.vault_payloads
    joined = records.join(
        payloads, and_(payloads.c.log_no == records.c.log_no, payloads.c.leaf_index == records.c.leaf_index)
    )
    return select(records.c.leaf_index).select_from(joined).where(records.c.log_no == log_number(log_id))
