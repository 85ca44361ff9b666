"""The S3 anchor: copies of checkpoints that nobody, not even the bucket's owner, can change or delete until a date.

Each copy is written create-only (``If-None-Match: *``) with a checksum, in COMPLIANCE mode with an explicit
retain-until date, and read back: a bucket that takes the write without the lock is an error, never a silent weakening.
There is no default retention: locking needs a decision.

In a bucket with Object Lock anybody who may write can still put a new version over a copy, or hide it under a delete
marker. What counts here is therefore the *first* version of each key, listed and read past whatever came later.

Use an account, and credentials, that the log's operator does not hold for anything else. Whether the bucket keeps what
it promises is tried by `ledger.anchors.probe`; whether it has kept it, by `ledger.anchoring.verify_anchor`.

Source: Amazon S3 API reference, PutObject, HeadObject (Object Lock); the same subset as MinIO and versitygw.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ledger.anchoring import KeptCopy, ProbeReport
from ledger.anchors.probe import probe_bucket
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.clock import Clock
from ledger.errors import AnchorError, ConfigError, ConflictError, MalformedError, NotFoundError
from ledger.files import check_log_id
from ledger.ports import AnchorReceipt
from ledger.protections import protection
from ledger.s3 import COMPLIANCE, S3Bucket, S3Object, S3Version
from ledger.s3_holds import LegalHolds

__all__ = ["S3ObjectLockAnchor"]

_CONTENT_TYPE: Final = "text/plain; charset=utf-8"
_SIZE: Final = re.compile(r"[0-9]{20}")
_PREVIOUS: Final = "previous-size"
_REACH: Final = 64
_DAY_MS: Final = 86_400_000


class S3ObjectLockAnchor:
    """`ledger.ports.Anchor` in an S3 bucket with Object Lock: ``<prefix><log id>/checkpoint/<size>``."""

    def __init__(self, bucket: S3Bucket, prefix: str, *, retention_days: int, clock: Clock) -> None:
        """Anchor into ``bucket``.

        Args:
            bucket: A bucket that was created with Object Lock.
            prefix: What stands before every key; empty, or ending in ``/``.
            retention_days: How long each copy is locked.
            clock: For the retain-until date.

        Raises:
            ConfigError: No retention was decided.
        """
        if retention_days < 1:
            raise ConfigError("Object Lock needs a retention of at least one day")
        self._bucket = bucket
        self._prefix = prefix
        self._retention_ms = retention_days * _DAY_MS
        self._clock = clock
        self._newest: dict[str, int] = {}
        self._holds = LegalHolds(bucket)

    def _folder(self, log_id: str) -> str:
        return f"{self._prefix}{check_log_id(log_id)}/checkpoint/"

    def _key(self, log_id: str, size: int) -> str:
        # Twenty digits, so that the order of keys is the order of sizes.
        return f"{self._folder(log_id)}{size:020d}"

    def put(self, log_id: str, size: int, checkpoint: bytes) -> AnchorReceipt:
        """See `Anchor.put`."""
        key = self._key(log_id, size)
        until = self._clock.now_ms() + self._retention_ms
        # Each copy names the one before it, so that one that is gone is missed later.
        told = {_PREVIOUS: str(self._previous(log_id, size))}
        self._bucket.create(key, checkpoint, content_type=_CONTENT_TYPE, lock_until_ms=until, metadata=told)
        # Whether it was written now, by an attempt whose answer was lost, or by somebody else: what stands there tells.
        try:
            stored = self._first(key)
        except NotFoundError as error:
            raise self._bucket.failed(f"keep the checkpoint of size {size}") from error
        self._compare(size, stored.data, checkpoint)
        receipt = self._receipt(key, size, stored)
        self._newest[log_id] = max(size, self._newest.get(log_id, -1))
        return receipt

    def _previous(self, log_id: str, size: int) -> int:
        """Return the largest size below one that is anchored, whoever anchored it, or -1."""
        newest = self._newest.get(log_id, -1)
        if 0 <= newest < size:
            return max((one for one in self.sizes(log_id, above=newest) if one < size), default=newest)
        # After a start: a log of years has millions of copies, and the one that is looked for is near the end.
        reach = _REACH
        while True:
            above = max(size - 1 - reach, -1)
            found = [one for one in self.sizes(log_id, above=above) if one < size]
            if found or above < 0:
                return max(found, default=-1)
            reach *= _REACH

    @staticmethod
    def _compare(size: int, stored: bytes, checkpoint: bytes) -> None:
        if stored == checkpoint:
            return
        try:
            anchored = parse_unverified_checkpoint(stored).claim
        except MalformedError as error:
            raise AnchorError(f"what is anchored as checkpoint {size} is not a checkpoint") from error
        if anchored != parse_unverified_checkpoint(checkpoint).claim:
            raise ConflictError(f"the anchor holds another checkpoint of size {size}")

    def _first(self, key: str) -> S3Object:
        return self._bucket.read(key, self._bucket.first_version(key).version)

    def _location(self, key: str, version: str) -> str:
        return f"s3://{self._bucket.name}/{key}?versionId={version}"

    def _receipt(self, key: str, size: int, stored: S3Object) -> AnchorReceipt:
        lock = self._bucket.object_lock(key, stored.version)
        if lock is None or lock.mode != COMPLIANCE:
            raise AnchorError(
                f"the bucket keeps {key} without a {COMPLIANCE} lock, or these credentials may not see it "
                "(s3:GetObjectRetention)"
            )
        return AnchorReceipt(
            size=size,
            location=self._location(key, stored.version),
            anchored_ms=stored.modified_ms,
            retain_until_ms=lock.until_ms,
        )

    def get(self, log_id: str, size: int) -> bytes:
        """See `Anchor.get`. Signatures vouch for the bytes, locked or not; `put` alone asks for the lock."""
        return self._first(self._key(log_id, size)).data

    def sizes(self, log_id: str, *, above: int = -1) -> list[int]:
        """See `Anchor.sizes`. A copy that was hidden counts."""
        return [size for size, _ in self._keys(log_id, above)]

    def _keys(self, log_id: str, above: int) -> Iterator[tuple[int, list[S3Version]]]:
        """Yield sizes in order, each with all its versions and markers, newest first, of which one is a version."""
        folder = self._folder(log_id)
        after = self._key(log_id, above) if above >= 0 else ""
        found: dict[int, dict[str, S3Version]] = {}
        for one in self._bucket.versions(folder, after=after):
            name = one.key.removeprefix(folder)
            if _SIZE.fullmatch(name):
                # Some servers tell the last of a page again as the first of the next.
                found.setdefault(int(name), {})[one.version] = one
        for size in sorted(found):
            versions = list(found[size].values())
            if not all(one.marker for one in versions):
                yield size, versions

    def copies(self, log_id: str, *, above: int = -1) -> Iterator[KeptCopy]:
        """See `InspectableAnchor.copies`."""
        for size, versions in self._keys(log_id, above):
            kept = [one for one in versions if not one.marker]
            key, version = kept[-1].key, kept[-1].version
            stored = self._bucket.read(key, version)
            yield KeptCopy(
                size=size,
                location=self._location(key, version),
                data=stored.data,
                protection=protection(self._bucket, stored, versions),
                previous_size=_number(stored.metadata.get(_PREVIOUS)),
            )

    def hold(self, log_id: str, *, on: bool, anew: bool = False) -> int:
        """See `HoldableStore.hold`."""
        return self._holds.apply(self._folder(log_id), on=on, anew=anew, wanted=_is_size)

    def probe(self) -> ProbeReport:
        """Try everything that a bucket must refuse, on an object made for it.

        Raises:
            ConfigError: The bucket was created without Object Lock.
            AnchorError: It could not be tried.
        """
        if not self._bucket.locks()[0]:
            raise ConfigError(f"the bucket {self._bucket.name} was created without Object Lock")
        return probe_bucket(self._bucket, self._prefix, self._clock)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-1|[0-9]{1,19}", text) else None


def _is_size(name: str) -> bool:
    return _SIZE.fullmatch(name) is not None
