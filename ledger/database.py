"""Opening the SQL database: SQLite by default, PostgreSQL for several processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import BigInteger, Connection, Engine, Integer, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from ledger.errors import ConfigError, StorageError

__all__ = ["NAMING_CONVENTION", "BigInt", "open_engine", "translated", "writing"]

NAMING_CONVENTION: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name that a later migration can call it by."""

BigInt: Final = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits: SQLite has one integer type and calls it INTEGER."""

_SQLITE_BUSY_SECONDS = 30


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # SQLAlchemy begins transactions itself (see `_begin_sqlite`); the driver must not begin any.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # INVARIANT 1: durable first, then 2xx. FULL syncs the write-ahead log on every commit; NORMAL would not.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={_SQLITE_BUSY_SECONDS * 1000}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: a read that becomes a write can fail with SQLITE_BUSY whatever the time-out.
    writing_now = connection.get_execution_options().get("tallystick_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing_now else "BEGIN")


def open_engine(url: str, *, pool_size: int = 5) -> Engine:
    """Open a database.

    Args:
        url: SQLAlchemy URL, ``sqlite:///path`` or ``postgresql+psycopg://…``.
        pool_size: Connections kept open.

    Raises:
        ConfigError: Not a database URL, or a database that is not supported.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise ConfigError(f"the database must be SQLite or PostgreSQL, not {backend}")
        options: dict[str, Any] = {"pool_size": pool_size, "pool_pre_ping": backend == "postgresql"}
        engine = create_engine(parsed, **options)
    except (ArgumentError, ImportError) as error:
        raise ConfigError("the database URL cannot be used") from error
    if backend == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Turn database errors into `StorageError`.

    Raises:
        StorageError: The block raised an error of SQLAlchemy.
    """
    try:
        yield
    except SQLAlchemyError as error:
        # The driver's message may quote values; its class name and the action say enough.
        raise StorageError(f"the database failed to {action} ({type(error).__name__})") from error


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that writes; it commits when the block ends and rolls back when it raises."""
    with engine.connect().execution_options(tallystick_write=True) as connection, connection.begin():
        yield connection
