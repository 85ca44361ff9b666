"""The tables of the SQL log store, for SQLite and PostgreSQL alike.

`log_id` stands first in every key: one log per tenant, from the first migration on. Rows of the log are inserted and
read, never updated or deleted: triggers of the first migration refuse both. Rows of `pending_entries` alone may be
deleted: they go once the tile store holds the entries under a published checkpoint. `leases` are no part of the log.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from ledger.database import NAMING_CONVENTION, BigInt

__all__ = [
    "APPEND_ONLY_TABLES",
    "bundles",
    "checkpoints",
    "decision_rules",
    "decisions",
    "leases",
    "logs",
    "metadata",
    "outcomes",
    "pending_entries",
    "records",
    "vault_payloads",
]

metadata = MetaData(naming_convention=NAMING_CONVENTION)


def _log_id() -> Column[str]:
    return Column("log_id", String(63), ForeignKey("logs.log_id"), primary_key=True)


def _leaf_index() -> Column[int]:
    return Column("leaf_index", BigInt, primary_key=True, autoincrement=False)


logs = Table(
    "logs",
    metadata,
    Column("log_id", String(63), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("origin", String(255), nullable=False, unique=True),
    Column("environment", String(128), nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("created_ms", BigInt, nullable=False),
)
"""One row for each log; its row lock serialises sequencing and swapping where many processes share a database."""

records = Table(
    "records",
    metadata,
    _log_id(),
    _leaf_index(),
    Column("record_id", String(36), nullable=False),
    Column("leaf_hash", LargeBinary(32), nullable=False),
    Column("record_type", String(16), nullable=False),
    Column("time_ms", BigInt, nullable=False),
    Column("enforcer_id", String(128), nullable=False),
    Column("epoch", String(32), nullable=False),
    Column("seq", BigInt, nullable=False),
    Column("received_ms", BigInt, nullable=False),
    UniqueConstraint("log_id", "record_id"),
    UniqueConstraint("log_id", "enforcer_id", "epoch", "seq"),
    Index(None, "log_id", "record_type", "leaf_index"),
)
"""One row for each entry; `received_ms` is the only column that the log does not prove."""

pending_entries = Table(
    "pending_entries",
    metadata,
    _log_id(),
    _leaf_index(),
    Column("entry", LargeBinary, nullable=False),
)
"""Entries that are sequenced but not yet in a full bundle under a published checkpoint."""

decisions = Table(
    "decisions",
    metadata,
    _log_id(),
    _leaf_index(),
    Column("time_ms", BigInt, nullable=False),
    Column("agent", String(128), nullable=False),
    Column("user", String(32)),
    Column("session", String(32), nullable=False),
    Column("server", String(128), nullable=False),
    Column("method", String(128)),
    Column("tool", String(128)),
    Column("decision", String(16), nullable=False),
    Column("enforcement", String(8), nullable=False),
    Column("mode", String(8), nullable=False),
    Column("reason", String(128), nullable=False),
    Column("bundle_revision", String(64)),
    Column("trace_id", String(32)),
    Column("arguments_fingerprint", String(32)),
    Index(None, "log_id", "time_ms"),
    Index(None, "log_id", "agent", "leaf_index"),
    Index(None, "log_id", "session", "leaf_index"),
    Index(None, "log_id", "user", "leaf_index"),
    Index(None, "log_id", "enforcement", "leaf_index"),
    Index(None, "log_id", "arguments_fingerprint"),
)

decision_rules = Table(
    "decision_rules",
    metadata,
    _log_id(),
    _leaf_index(),
    Column("rule", String(128), primary_key=True),
    Index(None, "log_id", "rule", "leaf_index"),
)

outcomes = Table(
    "outcomes",
    metadata,
    _log_id(),
    _leaf_index(),
    Column("time_ms", BigInt, nullable=False),
    Column("decision_id", String(36), nullable=False),
    Column("status", String(16), nullable=False),
    Column("session", String(32), nullable=False),
    Column("result_fingerprint", String(32)),
    Index(None, "log_id", "decision_id"),
    Index(None, "log_id", "session", "leaf_index"),
    Index(None, "log_id", "result_fingerprint"),
)

vault_payloads = Table(
    "vault_payloads",
    metadata,
    _log_id(),
    Column("record_id", String(36), primary_key=True),
    Column("field", String(64), primary_key=True),
    Column("subject", String(64), nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    Index(None, "log_id", "subject"),
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
    "records",
    "decisions",
    "decision_rules",
    "outcomes",
    "checkpoints",
    "bundles",
    "cosignatures",
    "timestamps",
)
"""Tables whose rows a trigger protects from update and delete."""
