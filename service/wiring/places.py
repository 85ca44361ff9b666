"""Where checkpoints, tiles and timestamps are kept: the stores and anchors that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ledger.anchoring import ProbedAnchor
from ledger.anchors.directory import DirectoryAnchor
from ledger.clock import Clock
from ledger.errors import (
    AnchorError,
    ConfigError,
    StorageError,
)
from ledger.ports import TileStore, TimestampArchive
from ledger.stores.directory import DirectoryTileStore
from service.settings import Settings

if TYPE_CHECKING:
    from ledger.anchors.s3_object_lock import S3ObjectLockAnchor
    from ledger.s3 import S3Bucket
    from ledger.stores.s3 import S3TileStore

__all__ = ["directory_tiles", "make_anchor", "make_tiles", "make_timestamp_archive", "probed", "puts_at_once"]

_PUTS_AT_ONCE: Final = 16
"""Over a network; a directory is best written one file after another."""


def _in_bucket(place: str) -> tuple[str, str]:
    """Return bucket and prefix of ``//BUCKET/PREFIX``."""
    bucket, _, prefix = place.removeprefix("//").partition("/")
    return bucket, f"{prefix.rstrip('/')}/" if prefix else ""


def make_anchor(settings: Settings, clock: Clock) -> DirectoryAnchor | S3ObjectLockAnchor:
    """Return the anchor that the settings name; nothing is asked of it yet.

    Raises:
        ConfigError: It cannot be used.
    """
    kind, _, place = settings.effective_anchor.partition(":")
    if kind == "directory":
        return DirectoryAnchor(Path(place))
    from ledger.anchors.s3_object_lock import S3ObjectLockAnchor

    bucket, prefix, retention_days = _anchor_bucket(settings, place)
    return S3ObjectLockAnchor(bucket, prefix, retention_days=retention_days, clock=clock)


def _anchor_bucket(settings: Settings, place: str) -> tuple[S3Bucket, str, int]:
    """Return the anchor's bucket, prefix and days of retention."""
    if settings.anchor_retention_days is None:
        raise ConfigError("TALLYSTICK_ANCHOR_RETENTION_DAYS: say for how long checkpoints are to be locked")
    from ledger.s3 import open_bucket

    name, prefix = _in_bucket(place)
    bucket = open_bucket(
        name,
        role="the anchor bucket",
        failure=AnchorError,
        endpoint=settings.anchor_endpoint,
        credentials=settings.anchor_credentials,
    )
    return bucket, prefix, settings.anchor_retention_days


def probed(anchor: DirectoryAnchor | S3ObjectLockAnchor, settings: Settings) -> DirectoryAnchor | ProbedAnchor:
    """Return the anchor behind a trial of its locks, if it has any; see `ProbedAnchor.start`."""
    if isinstance(anchor, DirectoryAnchor):
        return anchor
    probed = ProbedAnchor(anchor, accepted=settings.accepted_weaknesses)
    probed.start()
    return probed


def make_tiles(settings: Settings, clock: Clock) -> DirectoryTileStore | S3TileStore:
    """Return the tile store that the settings name.

    Raises:
        ConfigError: It cannot be used.
        StorageError: The bucket does not answer.
    """
    kind, _, place = settings.effective_tiles.partition(":")
    if kind == "directory":
        return DirectoryTileStore(Path(place))
    if settings.tiles_retention_days is None:
        raise ConfigError(
            "TALLYSTICK_TILES_RETENTION_DAYS: say for how long full tiles are to be locked; 0 for no lock"
        )
    from ledger.s3 import open_bucket
    from ledger.stores.s3 import S3TileStore

    name, prefix = _in_bucket(place)
    bucket = open_bucket(
        name,
        role="the tile bucket",
        failure=StorageError,
        endpoint=settings.tiles_endpoint,
        credentials=settings.tiles_credentials,
    )
    tiles = S3TileStore(bucket, prefix, retention_days=settings.tiles_retention_days, clock=clock)
    tiles.check()
    return tiles


def puts_at_once(tiles: DirectoryTileStore | S3TileStore) -> int:
    """Return how many tiles of a publication are put at the same time."""
    return 1 if isinstance(tiles, DirectoryTileStore) else _PUTS_AT_ONCE


def directory_tiles(root: Path) -> TileStore:
    """Return the tile store over a directory that holds one directory for each log."""
    return DirectoryTileStore(root)


def make_timestamp_archive(settings: Settings, clock: Clock) -> TimestampArchive:
    """Return where copies of timestamps are kept: beside the checkpoints that they date.

    Raises:
        ConfigError: It cannot be used.
    """
    from ledger.anchors.timestamp_copies import DirectoryTimestampCopies, S3TimestampCopies

    kind, _, place = settings.effective_anchor.partition(":")
    if kind == "directory":
        return DirectoryTimestampCopies(Path(place))
    bucket, prefix, retention_days = _anchor_bucket(settings, place)
    return S3TimestampCopies(bucket, prefix, retention_days=retention_days, clock=clock)
