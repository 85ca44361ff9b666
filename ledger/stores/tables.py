"""The tables of the SQL log store, for SQLite and PostgreSQL alike.

The log stands first in every key: one log per tenant, from the first migration on. Rows of the log are inserted and
read, never updated or deleted: triggers refuse both. Rows of `pending_entries` alone may be deleted: they go once the
tile store holds the entries under a published checkpoint. `leases` are no part of the log.

Rows that come with every record are small. The log is a number there (`logs.log_no`), a name is a number of `names`,
an enforcer's stream one of `streams`, a word of a closed vocabulary a code; digests and ids are bytes. A pseudonym or
fingerprint, 16 bytes of a keyed hash, is two integers: the index is on the first, which finds hardly anything but what
is sought. None of these numbers leaves the store: `sql_rows` turns them back. Columns stand in the order that leaves no
gaps between them in PostgreSQL, eight bytes first.

No foreign key binds the rows of a record to their log: PostgreSQL would ask once for each row. They are written in a
transaction that holds the lock of the log's row, with the number that stands there, and rows of `logs` are never
deleted or changed either.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from ledger.database import NAMING_CONVENTION, BigInt

__all__ = [
    "APPEND_ONLY_TABLES",
    "bundles",
    "checkpoints",
    "contents",
    "decision_rules",
    "leases",
    "logs",
    "metadata",
    "names",
    "pending_entries",
    "records",
    "streams",
    "vault_payloads",
]

metadata = MetaData(naming_convention=NAMING_CONVENTION)


def _log_id() -> Column[str]:
    return Column("log_id", String(63), ForeignKey("logs.log_id"), primary_key=True)


def _log_no() -> Column[int]:
    return Column("log_no", Integer, nullable=False)


def _leaf_index() -> Column[int]:
    return Column("leaf_index", BigInt, nullable=False)


def _where(name: str | None, *columns: str, condition: str) -> Index:
    """Return an index over the rows that meet a condition; a row that does not costs nothing."""
    return Index(name, *columns, postgresql_where=text(condition), sqlite_where=text(condition))


logs = Table(
    "logs",
    metadata,
    Column("log_id", String(63), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("origin", String(255), nullable=False, unique=True),
    Column("environment", String(128), nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("created_ms", BigInt, nullable=False),
    Column("log_no", Integer, nullable=False, server_default=text("0")),
    Index(None, "log_no", unique=True),
)
"""One row for each log; its row lock serialises sequencing and swapping where many processes share a database."""

names = Table(
    "names",
    metadata,
    Column("log_no", Integer, ForeignKey("logs.log_no"), primary_key=True, autoincrement=False),
    Column("name_no", Integer, primary_key=True, autoincrement=False),
    Column("name", String(128), nullable=False),
    UniqueConstraint("log_no", "name"),
)
"""The public names that a log's records use: types, agents, servers, methods, tools, reasons, bundles, rules."""

streams = Table(
    "streams",
    metadata,
    Column("log_no", Integer, ForeignKey("logs.log_no"), primary_key=True, autoincrement=False),
    Column("stream_no", Integer, primary_key=True, autoincrement=False),
    Column("enforcer_id", String(128), nullable=False),
    Column("epoch", LargeBinary(16), nullable=False),
    UniqueConstraint("log_no", "enforcer_id", "epoch"),
)
"""The epochs of each enforcer; a sequence number counts within one."""

records = Table(
    "records",
    metadata,
    _leaf_index(),
    Column("time_ms", BigInt, nullable=False),
    Column("seq", BigInt, nullable=False),
    Column("received_ms", BigInt, nullable=False),
    Column("session_key", BigInt),
    Column("session_rest", BigInt),
    Column("fingerprint_key", BigInt),
    Column("fingerprint_rest", BigInt),
    Column("user_key", BigInt),
    Column("user_rest", BigInt),
    _log_no(),
    Column("stream_no", Integer, nullable=False),
    Column("record_type", Integer, nullable=False),
    Column("agent", Integer),
    Column("server", Integer),
    Column("method", Integer),
    Column("tool", Integer),
    Column("reason", Integer),
    Column("bundle_revision", Integer),
    Column("decision", SmallInteger),
    Column("enforcement", SmallInteger),
    Column("mode", SmallInteger),
    Column("status", SmallInteger),
    Column("record_id", LargeBinary(16), nullable=False),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    Column("decision_id", LargeBinary(16)),
    Column("trace_id", LargeBinary(16)),
    PrimaryKeyConstraint("log_no", "leaf_index"),
    UniqueConstraint("log_no", "record_id"),
    UniqueConstraint("log_no", "stream_no", "seq"),
    _where(None, "log_no", "time_ms", condition="agent IS NOT NULL"),
    _where(None, "log_no", "agent", "leaf_index", condition="agent IS NOT NULL"),
    _where(None, "log_no", "user_key", "leaf_index", condition="user_key IS NOT NULL"),
    # A session's records are few enough to be sorted once found; PostgreSQL keeps equal keys as one.
    _where(None, "log_no", "session_key", condition="session_key IS NOT NULL"),
    _where(None, "log_no", "fingerprint_key", condition="fingerprint_key IS NOT NULL"),
    _where(None, "log_no", "decision_id", condition="decision_id IS NOT NULL"),
    # Nearly every decision allows: whoever looks for these may as well read them in the log's order.
    _where(None, "log_no", "enforcement", "leaf_index", condition="enforcement <> 0"),
    # Decisions and outcomes, which are nearly all records, are found by their other columns.
    _where(None, "log_no", "record_type", "leaf_index", condition="agent IS NULL AND decision_id IS NULL"),
    sqlite_with_rowid=False,
)
"""One row for each entry; `received_ms` is the only column that the log does not prove.

A decision is a row with an agent, an outcome one with a decision id.
"""

decision_rules = Table(
    "decision_rules",
    metadata,
    _leaf_index(),
    _log_no(),
    Column("rule", Integer, nullable=False),
    PrimaryKeyConstraint("log_no", "leaf_index", "rule"),
    Index(None, "log_no", "rule", "leaf_index"),
    sqlite_with_rowid=False,
)
"""One row for each rule that determined a decision."""

contents = Table(
    "contents",
    metadata,
    _leaf_index(),
    Column("fingerprint_key", BigInt, nullable=False),
    Column("fingerprint_rest", BigInt, nullable=False),
    _log_no(),
    PrimaryKeyConstraint("log_no", "leaf_index", "fingerprint_key", "fingerprint_rest"),
    Index(None, "log_no", "fingerprint_key"),
    sqlite_with_rowid=False,
)
"""One row for each fingerprint of what an answer holds, under its outcome."""

pending_entries = Table(
    "pending_entries",
    metadata,
    _leaf_index(),
    _log_no(),
    Column("entry", LargeBinary, nullable=False),
    PrimaryKeyConstraint("log_no", "leaf_index"),
)
"""Entries that are sequenced but not yet in a full bundle under a published checkpoint."""

vault_payloads = Table(
    "vault_payloads",
    metadata,
    _leaf_index(),
    _log_no(),
    Column("field", String(64), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    PrimaryKeyConstraint("log_no", "leaf_index", "field"),
    Index(None, "log_no", "subject"),
)
"""Encrypted openings; the keys are elsewhere."""

checkpoints = Table(
    "checkpoints",
    metadata,
    _log_id(),
    Column("size", BigInt, primary_key=True, autoincrement=False),
    Column("checkpoint", LargeBinary, nullable=False),
    Column("published_ms", BigInt, nullable=False),
)
"""Every published checkpoint; the largest is the present one, and a swap inserts the next."""

leases = Table(
    "leases",
    metadata,
    _log_id(),
    Column("name", String(64), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("expires_ms", BigInt, nullable=False),
    Column("report", Text, nullable=False),
)
"""Who does which work now, by the database's clock. They save work; nothing relies on them."""

bundles = Table(
    "bundles",
    metadata,
    _log_id(),
    Column("revision", String(64), primary_key=True),
    Column("archive", LargeBinary, nullable=False),
    Column("stored_ms", BigInt, nullable=False),
)
"""Policy bundles by digest; which one is active is derived from the log."""

APPEND_ONLY_TABLES: Final = (
    "logs",
    "names",
    "streams",
    "records",
    "decision_rules",
    "contents",
    "checkpoints",
    "bundles",
    "cosignatures",
    "timestamps",
)
"""Tables whose rows a trigger protects from update and delete."""
