"""Legal holds over objects in S3: beside the retention that each has, and without an end of its own.

What has no Object Lock of its own (partial tiles, the live checkpoint) is left alone: it is to be collected and
replaced. How far the last application came is remembered, so that who repeats it asks for new versions alone: by the
server's times, for a log of years has millions of objects. A version's time is that at which its write began; what is
younger than an hour, by the newest that was seen, is therefore remembered one by one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ledger.s3 import S3Bucket, S3Version

__all__ = ["LegalHolds"]

_MARGIN_MS: Final = 3_600_000
_MOST_RECENT: Final = 100_000
"""So much is remembered of an application that is under way. More than a log writes within the margin, in health."""


@dataclass(slots=True)
class _Held:
    """What is held below one prefix.

    Attributes:
        until_ms: Every version that is older is held.
        recent: Those that are held among the others.
    """

    until_ms: int = 0
    recent: set[tuple[str, str]] = field(default_factory=set)

    def has(self, one: S3Version) -> bool:
        return one.modified_ms < self.until_ms or (one.key, one.version) in self.recent


class LegalHolds:
    """Puts holds over the versions below a prefix, and takes them off; safe for any thread."""

    def __init__(self, bucket: S3Bucket) -> None:
        """Hold versions in ``bucket``."""
        self._bucket = bucket
        self._held: dict[str, _Held] = {}
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
            if anew or not on:
                self._held.pop(prefix, None)
            return self._apply(prefix, on=on, wanted=wanted)

    def _apply(self, prefix: str, *, on: bool, wanted: Callable[[str], bool]) -> int:
        held = self._held.setdefault(prefix, _Held()) if on else _Held()
        changed = newest_ms = 0
        seen: dict[tuple[str, str], int] = {}
        for one in self._bucket.versions(prefix):
            if one.marker or not wanted(one.key.removeprefix(prefix)):
                continue
            place = (one.key, one.version)
            if not held.has(one):
                self._bucket.hold(one.key, one.version, on=on)
                changed += 1
                if len(held.recent) < _MOST_RECENT:
                    held.recent.add(place)
            newest_ms = max(newest_ms, one.modified_ms)
            seen[place] = one.modified_ms
            if len(seen) > _MOST_RECENT:
                seen = _since(seen, newest_ms - _MARGIN_MS)
        # Only now: an application that was broken off says nothing of what it did not come to.
        held.until_ms = max(held.until_ms, newest_ms - _MARGIN_MS)
        held.recent = set(_since(seen, held.until_ms))
        return changed


def _since(seen: dict[tuple[str, str], int], begun_ms: int) -> dict[tuple[str, str], int]:
    return {place: modified_ms for place, modified_ms in seen.items() if modified_ms >= begun_ms}
