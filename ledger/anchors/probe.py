"""Trying a bucket: a throw-away object is locked, and everything is attempted that could undo the lock.

What counts is not the server's answer but what stands there afterwards: the version must still be readable, with its
bytes, in COMPLIANCE mode, until the same date. A server may say yes and do nothing, or say no and have done it.

With credentials that are not allowed to delete at all, a refusal may come from the permission and not from the lock;
the lock itself is read as well. Try with the strongest credentials that exist (`tallystick anchor probe`) to know what
the lock is worth against them.

The object lies under ``<prefix>.probe/``, which is no log's. Its lock is the shortest that the server takes; what
earlier probes left there is deleted once its lock is over.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from ledger.anchoring import ProbeAttempt, ProbeReport
from ledger.clock import Clock
from ledger.errors import AnchorError, DependencyError, NotFoundError
from ledger.s3 import COMPLIANCE, ObjectLock, S3Bucket

__all__ = ["probe_bucket"]

_CONTENT_TYPE: Final = "text/plain; charset=utf-8"
_DATA: Final = b"Tallystick tries this bucket. It is safe to delete once its lock is over.\n"
_LOCK_SECONDS: Final = (120, 3600, 90_000)
"""Locks to ask for, until the server takes one: some insist on whole days."""
_MOST_TIDIED: Final = 200


@dataclass(frozen=True, slots=True)
class _Target:
    """The locked version that everything is tried on."""

    bucket: S3Bucket
    key: str
    version: str
    lock: ObjectLock

    def holds(self) -> bool:
        """Whether it stands there as it did."""
        try:
            return (
                self.bucket.read(self.key, self.version).data == _DATA
                and self.bucket.object_lock(self.key, self.version) == self.lock
            )
        except NotFoundError:
            return False

    def attempt(self, operation: str, **arguments: object) -> str:
        """Try an operation on the version and return the answer."""
        answer = self.bucket.attempt(operation, Key=self.key, VersionId=self.version, **arguments)
        return answer or "accepted"

    def retain(self, mode: str, offset_ms: int, *, bypass: bool = False) -> str:
        """Try to set another mode and a date that is later or earlier by so much."""
        until = datetime.fromtimestamp((self.lock.until_ms + offset_ms) / 1000, tz=UTC)
        extra = {"BypassGovernanceRetention": True} if bypass else {}
        retention = {"Mode": mode, "RetainUntilDate": until}
        return self.attempt("put_object_retention", Retention=retention, **extra)


def _overwrite(target: _Target) -> str:
    return target.bucket.attempt("put_object", Key=target.key, Body=b"overwritten\n") or "accepted"


def _hide(target: _Target) -> str:
    return target.bucket.attempt("delete_object", Key=target.key) or "accepted"


def _legal_hold(target: _Target) -> str:
    for status in ("ON", "OFF"):
        target.attempt("put_object_legal_hold", LegalHold={"Status": status})
    return target.attempt("delete_object")


_TRIED: Final[dict[str, Callable[[_Target], str]]] = {
    "delete": lambda target: target.attempt("delete_object"),
    "delete-bypass": lambda target: target.attempt("delete_object", BypassGovernanceRetention=True),
    "shorten": lambda target: target.retain(COMPLIANCE, -60_000),
    "downgrade": lambda target: target.retain("GOVERNANCE", 3_600_000),
    "downgrade-bypass": lambda target: target.retain("GOVERNANCE", 3_600_000, bypass=True),
    "remove": lambda target: target.attempt("put_object_retention", Retention={}, BypassGovernanceRetention=True),
    "legal-hold": _legal_hold,
    "overwrite": _overwrite,
    "hide": _hide,
}
"""In this order: what adds versions comes last."""


def _target(bucket: S3Bucket, prefix: str, clock: Clock) -> tuple[_Target, int]:
    refused: DependencyError | None = None
    for seconds in _LOCK_SECONDS:
        key = f"{prefix}.probe/{clock.now_ms():014d}-{secrets.token_hex(8)}"
        try:
            bucket.create(key, _DATA, content_type=_CONTENT_TYPE, lock_until_ms=clock.now_ms() + seconds * 1000)
            version = bucket.first_version(key).version
        except AnchorError as error:
            refused = error
            continue
        except NotFoundError as error:
            raise bucket.failed("keep an object that it said it took") from error
        lock = bucket.object_lock(key, version)
        if lock is None or lock.mode != COMPLIANCE:
            raise AnchorError(f"the bucket {bucket.name} takes an object and does not lock it")
        return _Target(bucket, key, version, lock), seconds
    raise AnchorError(f"the anchor bucket takes no locked object: {refused}") from refused


def _tidy(bucket: S3Bucket, prefix: str) -> None:
    """Delete what earlier probes left; what is still locked refuses, and goes another time."""
    for one in list(islice(bucket.versions(f"{prefix}.probe/"), _MOST_TIDIED)):
        bucket.attempt("delete_object", Key=one.key, VersionId=one.version)


def probe_bucket(bucket: S3Bucket, prefix: str, clock: Clock) -> ProbeReport:
    """Try everything that a bucket must refuse.

    Args:
        bucket: With the credentials that are to be tried.
        prefix: Under which the throw-away object is made.
        clock: For its retain-until date.

    Returns:
        What was tried, and what of it held.

    Raises:
        AnchorError: The bucket failed or did not answer.
    """
    _tidy(bucket, prefix)
    probed_ms, server_ms = clock.now_ms(), bucket.now_ms()
    attempts = []
    target, seconds = _target(bucket, prefix, clock)
    for name, attempted in _TRIED.items():
        answer = attempted(target)
        held = target.holds()
        attempts.append(ProbeAttempt(name=name, held=held, answer=answer))
        if not held:
            # What gave way once says nothing about the rest.
            target, seconds = _target(bucket, prefix, clock)
    versioned = bucket.versioned()
    attempts.append(ProbeAttempt(name="versioning", held=versioned, answer="on" if versioned else "off"))
    return ProbeReport(
        place=f"s3://{bucket.name}/{prefix}",
        probed_ms=probed_ms,
        lock_seconds=seconds,
        skew_ms=None if server_ms is None else server_ms - probed_ms,
        attempts=tuple(attempts),
    )
