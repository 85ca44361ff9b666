"""Trusted timestamps over SQL: each with the checkpoint that it dates, inserted once and never changed."""

from __future__ import annotations

from sqlalchemy import Column, Engine, LargeBinary, String, Table, select

from ledger.database import BigInt, insert_if_absent, translated, writing
from ledger.ports import KeptTimestamp
from ledger.stores.tables import metadata

__all__ = ["SQLTimestamps", "timestamps"]

timestamps = Table(
    "timestamps",
    metadata,
    Column("log_id", String(63), primary_key=True),
    Column("size", BigInt, primary_key=True, autoincrement=False),
    Column("checkpoint", LargeBinary, nullable=False),
    Column("token", LargeBinary, nullable=False),
    Column("time_ms", BigInt, nullable=False),
    Column("kept_ms", BigInt, nullable=False),
)
"""One row for each tree size that was dated; `checkpoint` has the very bytes that the token speaks of."""


class SQLTimestamps:
    """`ledger.ports.TimestampStore` over SQL."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine

    def keep(self, log_id: str, timestamp: KeptTimestamp) -> None:
        """See `TimestampStore.keep`."""
        row = {
            "log_id": log_id,
            "size": timestamp.size,
            "checkpoint": timestamp.checkpoint,
            "token": timestamp.token,
            "time_ms": timestamp.time_ms,
            "kept_ms": timestamp.kept_ms,
        }
        with translated("keep a timestamp"), writing(self._engine) as connection:
            insert_if_absent(connection, timestamps, row)

    def newest(self, log_id: str) -> KeptTimestamp | None:
        """See `TimestampStore.newest`."""
        columns = timestamps.c
        wanted = (columns.size, columns.checkpoint, columns.token, columns.time_ms, columns.kept_ms)
        query = select(*wanted).where(columns.log_id == log_id).order_by(columns.size.desc()).limit(1)
        with translated("read a timestamp"), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        return KeptTimestamp(
            size=row.size,
            checkpoint=bytes(row.checkpoint),
            token=bytes(row.token),
            time_ms=row.time_ms,
            kept_ms=row.kept_ms,
        )
