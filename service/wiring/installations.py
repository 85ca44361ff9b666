"""Opening an installation without running its service: to audit, rebuild, copy or look into it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from ledger.audit_chunks import AuditSources
from ledger.catalog import Catalog
from ledger.clock import SystemClock
from ledger.database import open_engine
from ledger.errors import (
    NotFoundError,
)
from ledger.ports import Anchor, Lease, LogStore, TileStore
from ledger.publishing_turns import LEASE_SECONDS, PUBLISHER_LEASE
from ledger.rebuild import ProjectionRebuild, RepairableTiles
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_catalog import SQLCatalog
from ledger.stores.sql_leases import SQLLease
from ledger.stores.sql_objects import SQLPayloadStore
from ledger.stores.sql_rebuild import SQLProjectionRebuild
from ledger.stores.subject_keys import DirectorySubjectKeys
from ledger.vault import Vault
from migrations.schema import require_current
from service.backups import DatabaseCopy
from service.keyset import load_key_set
from service.settings import Settings
from service.wiring.places import directory_tiles, make_anchor, make_tiles

__all__ = [
    "AuditParts",
    "LogSummary",
    "RebuildParts",
    "directory_sources",
    "open_audit_sources",
    "open_database_copy",
    "open_for_audit",
    "open_for_rebuild",
    "summarise_logs",
]


def directory_sources(root: Path) -> AuditSources:
    """Return what an audit reads of a directory that holds one directory for each log."""
    return AuditSources(tiles=directory_tiles(root))


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditParts:
    """What an audit of an installation reads."""

    sources: AuditSources
    tiles: TileStore
    catalog: Catalog
    vault: Vault
    anchor: Anchor
    close: Callable[[], None]


def open_audit_sources(settings: Settings, secret: str | None) -> AuditSources:
    """Open what a process of an audit reads, until the process ends; see `open_for_audit`."""
    return _audit_sources(settings, secret)[0]


def _audit_sources(settings: Settings, secret: str | None) -> tuple[AuditSources, Engine]:
    keys = load_key_set(settings.keys_dir, secret)
    database = open_engine(settings.effective_database_url)
    require_current(database)
    subject_keys = DirectorySubjectKeys(settings.keys_dir / "subjects", keys.vault)
    sources = AuditSources(
        tiles=make_tiles(settings, SystemClock()),
        catalog=SQLCatalog(database),
        vault=Vault(settings.log_id, subject_keys, SQLPayloadStore(database)),
    )
    return sources, database


def open_for_audit(settings: Settings, secret: str | None) -> AuditParts:
    """Open an installation for reading alone; the service may be running.

    Args:
        settings: Which installation.
        secret: Passphrase of the key files.

    Raises:
        ConfigError: A setting, key or the database's schema cannot be used.
    """
    sources, database = _audit_sources(settings, secret)
    assert sources.catalog is not None
    assert sources.vault is not None
    return AuditParts(
        sources=sources,
        tiles=sources.tiles,
        catalog=sources.catalog,
        vault=sources.vault,
        anchor=make_anchor(settings, SystemClock()),
        close=database.dispose,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildParts:
    """What a rebuild of an installation reads and writes."""

    tiles: RepairableTiles
    store: LogStore
    catalog: Catalog
    projection: ProjectionRebuild
    anchor: Anchor
    lease: Lease
    close: Callable[[], None]


def open_for_rebuild(settings: Settings) -> RebuildParts:
    """Open an installation for a rebuild; whoever holds the lease is alone with the log.

    Args:
        settings: Which installation.

    Raises:
        ConfigError: A setting or the database's schema cannot be used.
    """
    database = open_engine(settings.effective_database_url)
    require_current(database)
    return RebuildParts(
        tiles=make_tiles(settings, SystemClock()),
        store=SQLLogStore(database),
        catalog=SQLCatalog(database),
        projection=SQLProjectionRebuild(database),
        anchor=make_anchor(settings, SystemClock()),
        lease=SQLLease(database, settings.log_id, PUBLISHER_LEASE, holder=secrets.token_hex(16), seconds=LEASE_SECONDS),
        close=database.dispose,
    )


def open_database_copy(path: Path) -> DatabaseCopy:
    """Open a copy of an SQLite database, for a look into it.

    Raises:
        ConfigError: Its schema is not the one of this software.
        StorageError: It cannot be read.
    """
    database = open_engine(f"sqlite:///{path}")
    try:
        require_current(database)
        store = SQLLogStore(database)
        return DatabaseCopy({log_id: store.checkpoint(log_id) for log_id in store.log_ids()})
    finally:
        database.dispose()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSummary:
    """How far one log is.

    Attributes:
        sequenced: Records that have an index; None if the log was never opened.
        checkpoint: The newest published checkpoint, or None.
    """

    sequenced: int | None
    checkpoint: bytes | None


def summarise_logs(settings: Settings, log_ids: Sequence[str]) -> dict[str, LogSummary]:
    """Read how far logs are; the service may be running.

    Args:
        settings: Which database.
        log_ids: Which logs.

    Raises:
        ConfigError: The database or its schema cannot be used.
        StorageError: The database failed.
    """
    database = open_engine(settings.effective_database_url)
    try:
        require_current(database)
        store = SQLLogStore(database)
        return {log_id: _summarise(store, log_id) for log_id in log_ids}
    finally:
        database.dispose()


def _summarise(store: SQLLogStore, log_id: str) -> LogSummary:
    try:
        return LogSummary(sequenced=store.sequenced_size(log_id), checkpoint=store.checkpoint(log_id))
    except NotFoundError:
        return LogSummary(sequenced=None, checkpoint=None)
