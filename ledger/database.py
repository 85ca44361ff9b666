"""Opening the SQL database: SQLite by default, PostgreSQL for several processes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import psycopg
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    SmallInteger,
    String,
    Table,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from ledger.errors import ConfigError, StorageError

__all__ = ["NAMING_CONVENTION", "BigInt", "insert_if_absent", "insert_rows", "open_engine", "translated", "writing"]

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

_BINARY_TYPES: Final = (
    (LargeBinary, "bytea"),
    (String, "varchar"),
    (SmallInteger, "int2"),
    (BigInteger, "int8"),
    (Integer, "int4"),
)
"""PostgreSQL's names for the types of columns that rows are inserted into in bulk; the narrower class first."""

_SQLITE_BUSY_SECONDS = 30
_PAUSED_MS = 10_000
"""PostgreSQL ends a transaction whose client has said nothing for so long."""
_LOCK_WAIT_MS = 12_000
"""Nobody waits longer for a lock of PostgreSQL: longer than for a transaction that is ended because it was paused."""
_SQLITE_RETRY_SECONDS = 0.01
_SQLITE_LOG_PAGES = 4000
"""16 MiB; four times what SQLite does by itself. See `_prepare_sqlite`."""
_SQLITE_PRIMARY_CODE: Final = 0xFF
"""The low byte of an extended result code is the primary one (sqlite.org, *Result and Error Codes*)."""


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # SQLAlchemy begins transactions itself (see `_begin_sqlite`); the driver must not begin any.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_SQLITE_BUSY_SECONDS * 1000}")
    _use_write_ahead_log(cursor)
    # INVARIANT 1: durable first, then 2xx. FULL syncs the write-ahead log on every commit; NORMAL would not.
    cursor.execute("PRAGMA synchronous=FULL")
    # In a large log each record changes pages of its own in the indexes on random values, a thousand pages for 500
    # records. SQLite's own limit would have every such commit copied from the write-ahead log and synced once more.
    cursor.execute(f"PRAGMA wal_autocheckpoint={_SQLITE_LOG_PAGES}")
    cursor.execute("PRAGMA foreign_keys=ON")
    # Without it, INSERT OR REPLACE deletes rows behind the backs of the triggers that refuse to delete any.
    cursor.execute("PRAGMA recursive_triggers=ON")
    cursor.close()


def _use_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    # Of several that open a new file at once, SQLite refuses some at once, whatever the time-out: each holds the lock
    # that another would wait for.
    deadline = time.monotonic() + _SQLITE_BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & _SQLITE_PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_SQLITE_RETRY_SECONDS)
        else:
            return


def _prepare_postgresql(connection: psycopg.Connection[Any], _record: object) -> None:
    # INVARIANT 1: durable first, then 2xx, also where the server or database is set to answer before the disk does.
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )
    # A process that is paused in the middle of a transaction keeps the log's lock, and with it all others waiting. None
    # of ours waits for anything but the database while one is open.
    connection.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, false)", (str(_PAUSED_MS),))
    # In the middle of a COPY that does not apply: see `stores.sql_locks`.
    connection.execute("SELECT set_config('lock_timeout', %s, false)", (str(_LOCK_WAIT_MS),))
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: a read that becomes a write can fail with SQLITE_BUSY whatever the time-out.
    writing_now = connection.get_execution_options().get("tallystick_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing_now else "BEGIN")


def open_engine(url: str, *, pool_size: int = 5, overflow: int = 10) -> Engine:
    """Open a database.

    Args:
        url: SQLAlchemy URL, ``sqlite:///path`` or ``postgresql+psycopg://…``.
        pool_size: Connections kept open.
        overflow: How many more may be open for a while.

    Raises:
        ConfigError: Not a database URL, or a database that is not supported.
    """
    try:
        parsed = make_url(url)
        backend = parsed.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise ConfigError(f"the database must be SQLite or PostgreSQL, not {backend}")
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": overflow}
        if backend == "postgresql":
            # INVARIANT 2: whoever has waited for a log's lock must see what its holder wrote. In the stricter levels, a
            # server's default perhaps, he would compare with an older snapshot, and two swaps could win.
            options |= {"pool_pre_ping": True, "isolation_level": "READ COMMITTED"}
        engine = create_engine(parsed, **options)
    except (ArgumentError, ImportError, ValueError) as error:  # ValueError: a port that is no number
        raise ConfigError("the database URL cannot be used") from error
    if backend == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _prepare_postgresql)
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


def insert_if_absent(connection: Connection, table: Table, row: Mapping[str, object]) -> bool:
    """Insert a row unless it collides with one that is there, or that somebody else is inserting at this moment.

    Returns:
        Whether it was inserted; if not, the other row is committed and visible.
    """
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return connection.execute(dialect.insert(table).values(row).on_conflict_do_nothing()).rowcount == 1


@lru_cache
def _columns(table: Table) -> str:
    # As SQLAlchemy's own statements quote them: a column of ours may be called as a word of SQL is.
    return ", ".join(f'"{column.name}"' for column in table.columns)


@lru_cache
def _insertion(table: Table) -> str:
    marks = ", ".join("?" * len(table.columns))
    return f'INSERT INTO "{table.name}" ({_columns(table)}) VALUES ({marks})'  # noqa: S608  # names of our own tables


@lru_cache
def _copying(table: Table) -> bytes:
    return f'COPY "{table.name}" ({_columns(table)}) FROM STDIN (FORMAT BINARY)'.encode()


@lru_cache
def _binary_types(table: Table) -> list[str]:
    """Return PostgreSQL's name for the type of each column."""
    return [next(name for kind, name in _BINARY_TYPES if isinstance(column.type, kind)) for column in table.c]


def insert_rows(connection: Connection, table: Table, rows: Sequence[tuple[object, ...]]) -> None:
    """Insert rows that have a value for every column, in the order of the table's columns.

    PostgreSQL gets one binary COPY, SQLite one ``executemany``, in the transaction of the connection. Both go to the
    driver as they are, values too: None, text, bytes and integers. SQLAlchemy would look at each value of each row, and
    take longer for it than the database for storing it.

    Raises:
        IntegrityError: A row is there already; as with every other error, nothing of the transaction may be relied on.
    """
    driver = connection.connection.driver_connection
    try:
        if isinstance(driver, sqlite3.Connection):
            driver.executemany(_insertion(table), rows)
            return
        assert isinstance(driver, psycopg.Connection)
        with driver.cursor() as cursor, cursor.copy(_copying(table)) as copy:
            copy.set_types(_binary_types(table))
            for row in rows:
                copy.write_row(row)
    except (sqlite3.Error, psycopg.Error) as error:
        # As SQLAlchemy would have raised it: callers tell an integrity error from others by its class.
        kind = sqlite3.Error if isinstance(error, sqlite3.Error) else psycopg.Error
        raise DBAPIError.instance(None, None, error, kind, dialect=connection.dialect) from error
