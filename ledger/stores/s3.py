"""The tile store in an S3 bucket, which can be served as a C2SP tlog-tiles log as it stands.

::

    <prefix><log id>/checkpoint                 replaced conditionally, never locked
    <prefix><log id>/tile/0/000.p/17            create-only, never locked: collected once the full tile exists
    <prefix><log id>/tile/0/000                 create-only, locked for the retention if there is one
    <prefix><log id>/tile/entries/000           the same

Two processes, or one and what was left of its predecessor, may write the same log: whatever is created is created only
if nothing is there, and the checkpoint is replaced only in the place of the very one that was compared.

Archived checkpoints are the anchor's (`ledger.anchors.s3_object_lock`), in another bucket with other credentials.

Source: C2SP tlog-tiles v0.1.0 (paths, content types, caching).
"""

from __future__ import annotations

import re
from typing import Final

from ledger.anchoring import Protection
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.clock import Clock
from ledger.errors import ConfigError, ConflictError, MalformedError, NotFoundError, StorageError
from ledger.files import check_log_id
from ledger.protections import protection
from ledger.s3 import COMPLIANCE, S3Bucket, S3Object
from ledger.s3_holds import LegalHolds
from ledger.tiles import CHECKPOINT_PATH, TileCoordinate, parse_hash_tile_path, parse_tile_path

__all__ = ["S3TileStore"]

_TILE_TYPE: Final = "application/octet-stream"
_TILE_CACHE: Final = "max-age=31536000, immutable"
_CHECKPOINT_TYPE: Final = "text/plain; charset=utf-8"
_CHECKPOINT_CACHE: Final = "max-age=1"
_DAY_MS: Final = 86_400_000
_RACES: Final = 8
"""How often a write that lost a race looks again; each loss means that somebody else came further."""
_PARTIAL_FOLDER: Final = re.compile(r"([0-9]{3})\.p")


class S3TileStore:
    """`ledger.ports.TileStore` and `PartialStore` in a bucket; safe for any thread, process and machine."""

    def __init__(self, bucket: S3Bucket, prefix: str, *, retention_days: int, clock: Clock) -> None:
        """Keep tiles in ``bucket``.

        Args:
            bucket: The bucket.
            prefix: What stands before every key; empty, or ending in ``/``.
            retention_days: How long each full tile and bundle is locked in COMPLIANCE mode; 0 for no lock at all.
            clock: For the retain-until date.

        Raises:
            ConfigError: The retention is negative.
        """
        if retention_days < 0:
            raise ConfigError("the retention of tiles is a number of days, or 0 for none")
        self._bucket = bucket
        self._prefix = prefix
        self._retention_ms = retention_days * _DAY_MS
        self._clock = clock
        self._holds = LegalHolds(bucket)

    def check(self) -> None:
        """Confirm that the bucket can keep a log.

        Raises:
            ConfigError: Locks are asked for and it has none; or it locks by itself whatever is put into it, so that
                partial tiles and old checkpoints could never be collected.
            StorageError: It could not be asked.
        """
        enabled, by_default = self._bucket.locks()
        if by_default:
            raise ConfigError(
                f"the bucket {self._bucket.name} has a default retention, which would lock partial tiles and the live "
                "checkpoint for good: take it away, full tiles are locked one by one"
            )
        if self._retention_ms and not enabled:
            raise ConfigError(f"the bucket {self._bucket.name} was created without Object Lock, which tiles shall have")

    def _key(self, log_id: str, path: str) -> str:
        # INVARIANT 12: no log id and no path leads to another log's keys.
        if path != CHECKPOINT_PATH:
            parse_tile_path(path)
        return f"{self._prefix}{check_log_id(log_id)}/{path}"

    # --- files -------------------------------------------------------------------------------------------------------

    def put(self, log_id: str, path: str, data: bytes) -> None:
        """See `TileStore.put`."""
        # INVARIANT 2: the checkpoint is exposed, and moves forward only; it is never put.
        locked = parse_tile_path(path).full and bool(self._retention_ms)
        key = self._key(log_id, path)
        until = self._clock.now_ms() + self._retention_ms if locked else None
        for _ in range(_RACES):
            written = self._bucket.create(
                key, data, content_type=_TILE_TYPE, cache_control=_TILE_CACHE, lock_until_ms=until
            )
            if written is not None:
                return
            try:
                present = self._bucket.read(key)
            except NotFoundError:
                continue  # Two creations met and the server refused both, or it was deleted meanwhile.
            if present.data != data:
                raise ConflictError(f"other bytes stand at {path}")
            if until is not None:
                self._ensure_lock(key, present, until)
            return
        raise StorageError(f"the tile bucket takes no object at {path} and shows none there")

    def _ensure_lock(self, key: str, present: S3Object, until_ms: int) -> None:
        """Lock what stands there already, if it was written without a lock."""
        lock = self._bucket.object_lock(key, present.version)
        if lock is None or lock.mode != COMPLIANCE:
            self._bucket.lock(key, present.version, until_ms)

    def repair(self, log_id: str, path: str, data: bytes) -> None:
        """See `ledger.rebuild.RepairableTiles.repair`. What is locked stays, as a version below the new one."""
        # INVARIANT 3: what cannot be derived from anything, entries and checkpoints, is never put right by anybody.
        full = parse_hash_tile_path(path).full
        key = self._key(log_id, path)
        for _ in range(_RACES):
            try:
                present = self._bucket.read(key)
            except NotFoundError:
                # What a delete marker hides is there: it is shown again, and looked at. Not every server takes an
                # object that must not exist over a marker.
                if markers := [one for one in self._bucket.versions(key) if one.marker and one.key == key]:
                    self._bucket.delete(markers)
                    continue
                self.put(log_id, path, data)
                return
            if present.data != data and not self._bucket.replace(
                key, data, etag=present.etag, content_type=_TILE_TYPE, cache_control=_TILE_CACHE
            ):
                continue
            if full and self._retention_ms:
                self._ensure_lock(key, self._bucket.read(key), self._clock.now_ms() + self._retention_ms)
            return
        raise StorageError(f"the tile bucket changed under {_RACES} attempts to put {path} right")

    def get(self, log_id: str, path: str) -> bytes:
        """See `TileStore.get`."""
        try:
            return self._bucket.read(self._key(log_id, path)).data
        except NotFoundError as error:
            raise NotFoundError(f"there is no {path} of {log_id}") from error

    def protection(self, log_id: str, path: str) -> Protection:
        """See `InspectableTiles.protection`."""
        key = self._key(log_id, path)
        versions = [one for one in self._bucket.versions(key) if one.key == key]
        return protection(self._bucket, self._bucket.read(key, self._bucket.first_version(key).version), versions)

    def hold(self, log_id: str, *, on: bool, anew: bool = False) -> int:
        """See `HoldableStore.hold`. Without locks there is nothing to hold."""
        if not self._retention_ms:
            return 0
        return self._holds.apply(f"{self._prefix}{check_log_id(log_id)}/", on=on, anew=anew, wanted=_is_full)

    # --- the live checkpoint -----------------------------------------------------------------------------------------

    def expose(self, log_id: str, checkpoint: bytes) -> None:
        """See `TileStore.expose`."""
        key = self._key(log_id, CHECKPOINT_PATH)
        claim = parse_unverified_checkpoint(checkpoint).claim
        for _ in range(_RACES):
            try:
                present = self._bucket.read(key)
            except NotFoundError:
                if self._create_checkpoint(key, checkpoint):
                    return
                continue
            shown = parse_unverified_checkpoint(present.data).claim
            if shown.size > claim.size or present.data == checkpoint:
                return
            # INVARIANT 2: two roots for one size are never both exposed.
            if shown.size == claim.size and shown.root != claim.root:
                raise ConflictError(f"the exposed checkpoint {claim.size} of {log_id} has another root")
            # INVARIANT 2: only in the place of the very one that was compared, so that it never moves backwards.
            if self._bucket.replace(
                key,
                checkpoint,
                etag=present.etag,
                content_type=_CHECKPOINT_TYPE,
                cache_control=_CHECKPOINT_CACHE,
            ):
                return
        raise StorageError(f"the tile bucket changed under {_RACES} attempts to expose a checkpoint of {log_id}")

    def _create_checkpoint(self, key: str, checkpoint: bytes) -> bool:
        written = self._bucket.create(key, checkpoint, content_type=_CHECKPOINT_TYPE, cache_control=_CHECKPOINT_CACHE)
        return written is not None

    # --- collecting --------------------------------------------------------------------------------------------------

    def partial_tiles(self, log_id: str, level: int, group: int) -> list[int]:
        """See `PartialStore.partial_tiles`."""
        first = self._key(log_id, TileCoordinate(level, group * 1000).path)
        folder = first[: first.rindex("/") + 1]
        matches = (_PARTIAL_FOLDER.fullmatch(name) for name in self._bucket.folders(folder))
        return sorted(group * 1000 + int(match[1]) for match in matches if match)

    def partial_widths(self, log_id: str, level: int, number: int) -> list[int]:
        """See `PartialStore.partial_widths`."""
        prefix = f"{self._key(log_id, TileCoordinate(level, number).path)}.p/"
        names = (key.removeprefix(prefix) for key in self._bucket.keys(prefix))
        return sorted(int(name) for name in names if name.isdecimal())

    def discard_partials(self, log_id: str, level: int, number: int) -> None:
        """See `PartialStore.discard_partials`. Every version goes: a bucket with locks keeps what is only hidden."""
        prefix = f"{self._key(log_id, TileCoordinate(level, number).path)}.p/"
        self._bucket.delete(list(self._bucket.versions(prefix)))

    def discard_superseded(self, log_id: str) -> None:
        """See `PartialStore.discard_superseded`."""
        key = self._key(log_id, CHECKPOINT_PATH)
        self._bucket.delete([one for one in self._bucket.versions(key) if one.key == key and not one.latest])


def _is_full(path: str) -> bool:
    try:
        return parse_tile_path(path).full
    except MalformedError:
        return False
