"""Backing up and restoring the embedded shape: an SQLite database, a directory of tiles, the packs.

The order makes the copy whole while the service runs. The database comes first, by SQLite's own backup, which is one
state of it; then exactly the tiles and bundles of the tree whose checkpoint that state has published. They never
change, so that it does not matter how far the log has come meanwhile; what it wrote beyond is left out, since whoever
goes on from the copy will write other entries there. The checkpoint of the copy is the database's.

A copy holds no key: whoever has it together with the subject keys could undo an erasure. Nor does it hold the anchor,
which is to outlive what a copy is made for. Both are backed up apart (docs/operations.md).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import msgspec
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from ledger.audit_report import Depth
from ledger.auditor import Auditor
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import ConfigError, MalformedError, NotFoundError, StorageError, VerificationError
from ledger.files import appearing_directory, sync_directory
from ledger.ports import TileStore
from ledger.prover import Prover
from ledger.tiles import (
    BUNDLE_LEVEL,
    CHECKPOINT_PATH,
    TileCoordinate,
    bundle_coordinates,
    pack_bundle,
    pack_tile,
    tile_coordinates,
)
from ledger.trust import TrustPolicy
from service.settings import Settings

__all__ = ["DatabaseCopy", "Manifest", "back_up", "database_path", "restore"]

_MANIFEST: Final = "manifest.json"
_DATABASE: Final = "ledger.db"
_LOGS: Final = "logs"
_PACKS: Final = "packs"
_BLOCK: Final = 1 << 20


class Manifest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a copy holds.

    Attributes:
        format: Of the copy.
        log_id: Which log.
        size: Leaves of its tree.
        root: Its root, hexadecimal.
        made_ms: When it was made, POSIX milliseconds.
        files: SHA-256 of each file by its path.
    """

    format: Literal["tallystick/backup/v1"] = "tallystick/backup/v1"
    log_id: str
    size: int
    root: str
    made_ms: int
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class DatabaseCopy:
    """What a copy of a database says.

    Attributes:
        checkpoints: The published checkpoint of each log in it, or None.
    """

    checkpoints: Mapping[str, bytes | None]


def database_path(settings: Settings) -> Path:
    """Return the SQLite file of an installation.

    Raises:
        ConfigError: It has another database.
    """
    try:
        url = make_url(settings.effective_database_url)
    except (ArgumentError, ValueError) as error:
        raise ConfigError("the database URL cannot be used") from error
    if url.get_backend_name() != "sqlite" or not url.database:
        raise ConfigError(
            "this copies the embedded shape, with SQLite; PostgreSQL is backed up by its own tools, before the log "
            "directory or bucket: docs/operations.md says in which order"
        )
    return Path(url.database)


def _logs_path(settings: Settings) -> Path:
    kind, _, place = settings.effective_tiles.partition(":")
    if kind != "directory":
        raise ConfigError("this copies the embedded shape, with tiles in a directory: docs/operations.md says the rest")
    return Path(place)


def back_up(
    settings: Settings,
    directory: Path,
    tiles: TileStore,
    policy: TrustPolicy,
    *,
    open_copy: Callable[[Path], DatabaseCopy],
    directory_tiles: Callable[[Path], TileStore],
    now_ms: int,
) -> Manifest:
    """Copy an installation to a new directory; the service may be running.

    Args:
        settings: Which installation.
        directory: Where to; it does not exist.
        tiles: The log's tile store.
        policy: Whose signatures count: what is copied is verified.
        open_copy: Opens the copy of a database.
        directory_tiles: Opens a directory of logs.
        now_ms: The time, POSIX milliseconds.

    Raises:
        ConfigError: Not an embedded installation, or the directory exists.
        VerificationError: The log is not in order: it is audited first.
        StorageError: A store failed.
    """
    source, _ = database_path(settings), _logs_path(settings)
    with appearing_directory(directory) as building:
        _copy_database(source, building / _DATABASE)
        checkpoints = open_copy(building / _DATABASE).checkpoints
        if checkpoints.keys() - {settings.log_id}:
            raise ConfigError(
                "the database holds several logs: copy it and their directories as docs/operations.md says"
            )
        checkpoint = checkpoints.get(settings.log_id)
        if checkpoint is None:
            raise ConfigError("nothing has been published yet: there is nothing to back up")
        # Looked into, the copy has a write-ahead log beside it; it ends as one file.
        _close_database(building / _DATABASE)
        _copy_log(Prover(tiles, settings.log_id), checkpoint, building / _LOGS / settings.log_id)
        head = _require_sound(building, settings.log_id, policy, directory_tiles)
        if (packs := settings.data_dir / _PACKS).is_dir():
            shutil.copytree(packs, building / _PACKS)
        manifest = Manifest(
            log_id=settings.log_id, size=head[0], root=head[1], made_ms=now_ms, files=dict(_digests(building))
        )
        (building / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        _sync_all(building)
    return manifest


def _copy_database(source: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as reading,
            closing(sqlite3.connect(target)) as writing,
        ):
            reading.backup(writing)
    except sqlite3.Error as error:
        raise StorageError(f"the database cannot be copied ({type(error).__name__})") from error


def _close_database(path: Path) -> None:
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.Error as error:
        raise StorageError(f"the copy of the database cannot be closed ({type(error).__name__})") from error


def _copy_log(prover: Prover, checkpoint: bytes, folder: Path) -> None:
    size = parse_unverified_checkpoint(checkpoint).claim.size
    for coordinate in (*tile_coordinates(size), *bundle_coordinates(size)):
        _write(folder / coordinate.path, _tile(prover, coordinate))
    _write(folder / CHECKPOINT_PATH, checkpoint)


def _tile(prover: Prover, coordinate: TileCoordinate) -> bytes:
    # Of a partial one that has been superseded and collected, its part of the full one.
    if coordinate.level == BUNDLE_LEVEL:
        return pack_bundle(prover.bundle(coordinate.number, coordinate.width))
    return pack_tile(prover.tile_row(coordinate.level, coordinate.number, coordinate.width))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _require_sound(
    root: Path, log_id: str, policy: TrustPolicy, directory_tiles: Callable[[Path], TileStore]
) -> tuple[int, str]:
    """Hash what was copied, and compare it with its signed checkpoint; return size and root."""
    report = Auditor(log_id, directory_tiles(root / _LOGS), policy, depth=Depth.HASHES).audit()
    if report.findings or report.head is None:
        reason = report.findings[0].reason if report.findings else "there is no checkpoint"
        raise VerificationError(f"the copy is not in order: {reason}")
    return report.head.size, report.head.root.hex()


def _digests(root: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and path != root / _MANIFEST:
            with path.open("rb") as file:
                digest = hashlib.sha256()
                while block := file.read(_BLOCK):
                    digest.update(block)
            yield path.relative_to(root).as_posix(), digest.hexdigest()


def _sync_all(root: Path) -> None:
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            sync_directory(path)
        else:
            with path.open("rb+") as file:
                _sync(file.fileno())


def _sync(descriptor: int) -> None:

    os.fsync(descriptor)


def _read_manifest(directory: Path) -> Manifest:
    try:
        manifest = msgspec.json.decode((directory / _MANIFEST).read_bytes(), type=Manifest)
    except FileNotFoundError as error:
        raise NotFoundError(f"{directory} holds no backup") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError("the manifest of the backup is damaged") from error
    if (found := dict(_digests(directory))) != manifest.files:
        wrong = sorted(path for path in {*found, *manifest.files} if found.get(path) != manifest.files.get(path))
        raise VerificationError(f"the backup is not as it was made: {wrong[0]}, and {len(wrong) - 1} more files")
    return manifest


def restore(
    settings: Settings,
    directory: Path,
    policy: TrustPolicy,
    *,
    directory_tiles: Callable[[Path], TileStore],
    database_only: bool,
) -> Manifest:
    """Put a backup back where an installation's settings say; the service must not be running.

    Args:
        settings: Which installation; its data directory holds no database, and no log unless that is to stay.
        directory: The backup.
        policy: Whose signatures count: what is put back is verified.
        directory_tiles: Opens a directory of logs.
        database_only: Leave the log directory that is there, which is newer than the backup, in its place.

    Raises:
        ConfigError: Something stands where the backup is to go, or it is of another log.
        NotFoundError: There is no backup.
        MalformedError: Its manifest is damaged.
        VerificationError: It is not as it was made, or its log is not in order.
        StorageError: A store failed.
    """
    target = database_path(settings)
    manifest = _read_manifest(directory)
    if manifest.log_id != settings.log_id:
        raise ConfigError(f"the backup is of the log {manifest.log_id}")
    log = _logs_path(settings) / settings.log_id
    for standing in [target, *([] if database_only else [log])]:
        if standing.exists():
            raise ConfigError(f"{standing} exists: move it away, and keep it until the log has been audited")
    _require_sound(directory, manifest.log_id, policy, directory_tiles)
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    if not database_only:
        shutil.copytree(directory / _LOGS / settings.log_id, log)
        _sync_all(log)
    if (directory / _PACKS).is_dir() and not (settings.data_dir / _PACKS).exists():
        shutil.copytree(directory / _PACKS, settings.data_dir / _PACKS)
    # Last, and whole at once: without it there is nothing that a service would start on.
    building = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    shutil.copyfile(directory / _DATABASE, building)
    with building.open("rb+") as file:
        _sync(file.fileno())
    building.rename(target)
    sync_directory(target.parent)
    return manifest
