"""Legal holds over objects in S3: beside the retention that each has, and without an end of its own.

What has no Object Lock of its own (partial tiles, the live checkpoint) is left alone: it is to be collected and
replaced. Which versions are held already is remembered, so that who repeats an application asks for new ones alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ledger.s3 import S3Bucket

__all__ = ["LegalHolds"]


class LegalHolds:
    """Puts holds over the versions below a prefix, and takes them off; safe for any thread."""

    def __init__(self, bucket: S3Bucket) -> None:
        """Hold versions in ``bucket``."""
        self._bucket = bucket
        self._held: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def apply(self, prefix: str, *, on: bool, anew: bool, wanted: Callable[[str], bool]) -> int:
        """Hold every version, or end all holds; returns how many were changed.

        Args:
            prefix: What keys begin with.
            on: Whether they are to be held.
            anew: Nothing that is remembered counts: somebody else may have ended holds since.
            wanted: Which keys below the prefix, without it, are locked at all.

        Raises:
            DependencyError: The bucket failed; some may have been changed.
        """
        with self._lock:
            if anew:
                self._held.clear()
            return self._apply(prefix, on=on, wanted=wanted)

    def _apply(self, prefix: str, *, on: bool, wanted: Callable[[str], bool]) -> int:
        changed = 0
        for one in self._bucket.versions(prefix):
            place = (one.key, one.version)
            if one.marker or (on and place in self._held) or not wanted(one.key.removeprefix(prefix)):
                continue
            self._bucket.hold(one.key, one.version, on=on)
            changed += 1
            if on:
                self._held.add(place)
            else:
                self._held.discard(place)
        return changed
