"""The gateway's state: one SQLite file that survives a crash, and the lock that keeps a second gateway away from it.

What the tables mean is said where they are used: the queue of records in `enforcement.spool`, sessions and blocks in
`enforcement.sessions`, and which kills were released here as well; what windows have counted, and what sessions called
last, in `enforcement.windows`, which windows these are in `enforcement.measured_windows`, what gateways tell each other
in `enforcement.window_exchange`, modes in `enforcement.server_list`, tools' definitions in `enforcement.pin_store`.
They share a file so that one transaction can make a decision, its number, the state of its session, a block and what
the call adds to windows durable together. What the ledger has acknowledged and not proven yet is in `unproven`
(`enforcement.receipts`), what it was told of servers and tools in `inventory` (`enforcement.inventory`).

WAL with ``synchronous=FULL``: a transaction is synced when it has been committed. The file can be read by its owner
alone; its directory likewise.

Source: SQLite documentation, "Write-Ahead Logging" and "PRAGMA synchronous".
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from ledger.errors import ConfigError, StorageError
from ledger.files import sync_directory

__all__ = ["Change", "StateDatabase", "lock_directory"]

_FILE: Final = "state.db"
_LOCK: Final = "gateway.lock"
_SCHEMA_VERSION: Final = 14
_BUSY_SECONDS: Final = 5.0
_SCHEMA: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT;
CREATE TABLE queue (
    position INTEGER PRIMARY KEY AUTOINCREMENT, record_id TEXT NOT NULL UNIQUE, epoch TEXT NOT NULL,
    seq INTEGER NOT NULL, size INTEGER NOT NULL, entry BLOB NOT NULL, openings BLOB NOT NULL, UNIQUE (epoch, seq)
) STRICT;
CREATE TABLE set_aside (
    record_id TEXT PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, reason TEXT NOT NULL,
    time_ms INTEGER NOT NULL, entry BLOB NOT NULL, openings BLOB NOT NULL
) STRICT;
CREATE TABLE open_calls (decision_id TEXT PRIMARY KEY, session TEXT NOT NULL, user TEXT) STRICT;
CREATE TABLE sessions (
    key TEXT PRIMARY KEY, principal TEXT NOT NULL, session TEXT NOT NULL, started_ms INTEGER NOT NULL,
    last_ms INTEGER NOT NULL, calls INTEGER NOT NULL, denied INTEGER NOT NULL, agent TEXT, user TEXT
) STRICT;
CREATE TABLE blocks (
    principal TEXT PRIMARY KEY, agent TEXT NOT NULL, user TEXT, decision_id TEXT NOT NULL, since_ms INTEGER NOT NULL
) STRICT;
"""
_WINDOWS: Final = """
CREATE TABLE IF NOT EXISTS windows (
    digest TEXT NOT NULL, subject TEXT NOT NULL, slot INTEGER NOT NULL, total TEXT NOT NULL, forget_ms INTEGER,
    PRIMARY KEY (digest, subject, slot)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS declarations (
    digest TEXT PRIMARY KEY, window BLOB NOT NULL, parameters BLOB NOT NULL, until_ms INTEGER
) STRICT;
"""
"""Since version 3."""
_TRAILS: Final = """
CREATE TABLE IF NOT EXISTS trails (session TEXT PRIMARY KEY, ordinal INTEGER NOT NULL, tool TEXT NOT NULL) STRICT;
"""
"""Since version 4."""

_MODES: Final = """
CREATE TABLE IF NOT EXISTS modes (
    server TEXT NOT NULL, tool TEXT NOT NULL, mode TEXT NOT NULL, PRIMARY KEY (server, tool)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS used_changes (change_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
"""
"""Since version 5."""

_UNPROVEN: Final = """
CREATE TABLE IF NOT EXISTS unproven (
    record_id TEXT PRIMARY KEY, leaf_index INTEGER NOT NULL, size INTEGER NOT NULL, entry BLOB NOT NULL,
    openings BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS unproven_by_leaf ON unproven (leaf_index);
"""
"""Since version 7."""

_FLEET: Final = """
CREATE TABLE IF NOT EXISTS fleet_totals (
    digest TEXT NOT NULL, subject TEXT NOT NULL, slot INTEGER NOT NULL, total TEXT NOT NULL, forget_ms INTEGER NOT NULL,
    PRIMARY KEY (digest, subject, slot)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fleet_outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT, decision_id TEXT NOT NULL, parts BLOB
) STRICT;
"""
"""Since version 8."""

_RELEASES: Final = """
CREATE TABLE IF NOT EXISTS released_kills (decision_id TEXT PRIMARY KEY, released_ms INTEGER NOT NULL) STRICT;
"""
"""Since version 9."""

_CHAIN: Final = """
ALTER TABLE queue ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queue ADD COLUMN previous BLOB NOT NULL DEFAULT x'';
ALTER TABLE queue ADD COLUMN link BLOB NOT NULL DEFAULT x'';
"""
"""Since version 10. What waits in an earlier file is chained when the spool is opened: that takes its key."""

_INVENTORY: Final = """
CREATE TABLE IF NOT EXISTS inventory (
    kind TEXT NOT NULL, server TEXT NOT NULL, tool TEXT NOT NULL, digest TEXT NOT NULL, time_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, server, tool)
) STRICT, WITHOUT ROWID;
"""
"""Since version 11: what was told of servers and tools (`enforcement.inventory`)."""

_TOOL_PINS: Final = """
CREATE TABLE IF NOT EXISTS tool_pins (
    server TEXT NOT NULL, tool TEXT NOT NULL, pin BLOB NOT NULL, PRIMARY KEY (server, tool)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tool_words (word INTEGER PRIMARY KEY AUTOINCREMENT, said_ms INTEGER NOT NULL) STRICT;
"""
"""Since version 12."""

_PROFILES: Final = """
CREATE TABLE IF NOT EXISTS profiles (agent TEXT PRIMARY KEY, profile BLOB NOT NULL) STRICT, WITHOUT ROWID;
"""
"""Since version 13: what agents usually do (`enforcement.profiles`)."""

_HELD: Final = """
ALTER TABLE open_calls ADD COLUMN approval_id TEXT;
ALTER TABLE open_calls ADD COLUMN binding TEXT;
"""
"""Since version 14: which open calls are held, and have not gone on."""

_FROM_1: Final = """
ALTER TABLE sessions ADD COLUMN agent TEXT;
ALTER TABLE sessions ADD COLUMN user TEXT;
"""
"""Whose a session is: its end names it. Of one that a gateway of version 0.1 left, the next call says so."""

_ROUNDS: Final = """
CREATE TABLE IF NOT EXISTS rounds (code TEXT PRIMARY KEY, expires_ms INTEGER NOT NULL) STRICT;
"""
"""Since version 6."""


class Change(Protocol):
    """A change of state that must become durable together with the records that tell of it."""

    def apply(self, connection: sqlite3.Connection) -> None:
        """Make the change inside the caller's transaction."""
        ...


class StateDatabase:
    """An open state file. Its owner calls it from one thread at a time; other processes may have it open as well.

    Attributes:
        directory: The state directory.
        created: The file was not there before: what it remembered is lost, or there was never anything.
    """

    def __init__(self, directory: Path) -> None:
        """Open the file, making it and its directory if they are not there.

        Raises:
            StorageError: The file system or SQLite failed, or the file is of another version.
        """
        self.directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.created = _create(directory / _FILE)
            self._connection = sqlite3.connect(
                directory / _FILE, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"the state file {_FILE} cannot be opened: {type(error).__name__}") from error
        try:
            self._prepare()
        except (sqlite3.Error, StorageError) as error:
            self._connection.close()
            raise StorageError(f"the state file {_FILE} cannot be used: {error}") from error

    def _prepare(self) -> None:
        connection = self._connection
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")  # a released payload's bytes are overwritten
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(queue)")]
        chain = "" if "link" in columns else _CHAIN
        calls = [name for _, name, *_ in connection.execute("PRAGMA table_info(open_calls)")]
        held = "" if "approval_id" in calls else _HELD
        later = _WINDOWS + _TRAILS + _MODES + _ROUNDS + _UNPROVEN + _FLEET + _RELEASES + chain
        later += _INVENTORY + _TOOL_PINS + _PROFILES + held
        steps = {0: _SCHEMA + later, 1: _FROM_1 + later, **dict.fromkeys(range(2, _SCHEMA_VERSION), later)}
        if version in steps:
            connection.executescript(f"BEGIN IMMEDIATE;{steps[version]}PRAGMA user_version={_SCHEMA_VERSION};COMMIT;")
        elif version != _SCHEMA_VERSION:
            raise StorageError(f"its version is {version}, not {_SCHEMA_VERSION}")

    @contextmanager
    def transaction(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """Run statements as one transaction.

        Durability: synced when the block is left, unless ``synced`` is False; then the transaction may be forgotten
        in a loss of power, but never reordered: a later synced one makes it durable as well.
        Atomicity: an exception leaves nothing behind.

        Raises:
            StorageError: SQLite failed; the transaction did not take place, except that a failure of the commit
                itself may have persisted.
        """
        connection = self._connection
        try:
            if not synced:
                connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                if not synced:
                    connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error as error:
            raise StorageError(f"the state file failed: {type(error).__name__}") from error

    def read(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query.

        Raises:
            StorageError: SQLite failed.
        """
        try:
            return self._connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise StorageError(f"the state file failed: {type(error).__name__}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _create(path: Path) -> bool:
    """Create a file for its owner alone; SQLite gives its side files the same rights."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    sync_directory(path.parent)
    return True


def lock_directory(directory: Path) -> int:
    """Keep other gateways away from a state directory for as long as the returned descriptor is open.

    Raises:
        ConfigError: Another gateway runs on it.
        StorageError: The file system failed.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StorageError(f"the state directory cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigError("another gateway runs on this state directory") from error
    return descriptor
