"""Timestamping: have what is shown dated by somebody else, now and then, beside publishing and never in its way.

One token in an interval is enough: the checkpoint that it dates covers everything before it. Of several processes,
whoever looks first after the interval asks; the others see its token in the store. Tokens are kept in the store first,
and then copied beside the anchored checkpoints, each with the very bytes that it dates; a copy that failed is made at a
later turn.

An authority that fails stops nothing: it shows in the status, and is asked again later.

What a token proves is in `timestamps`; HTTP is in `anchors.rfc3161`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ledger.clock import Clock
from ledger.errors import LedgerError
from ledger.ports import KeptTimestamp, TimestampArchive, TimestampAuthority, TimestampStore
from ledger.publisher import Published
from ledger.tasks import Repeating

__all__ = ["TimestampStatus", "Timestamping", "TimestampingLoop"]

_LONGEST_LOOK_SECONDS: Final = 5.0
_FIRST_PAUSE_MS: Final = 5_000
_LONGEST_PAUSE_MS: Final = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestampStatus:
    """How far timestamping has come.

    Attributes:
        newest: The token of the largest tree, or None before the first.
        failure: Why the last attempt failed, or None.
    """

    newest: KeptTimestamp | None = None
    failure: str | None = None

    @property
    def skew_ms(self) -> int:
        """The authority's clock less ours, when the newest token came; the way there and back included."""
        return 0 if self.newest is None else self.newest.time_ms - self.newest.kept_ms


class Timestamping:
    """Has one log's checkpoints dated. One task owns it; it is not safe for concurrent use."""

    def __init__(
        self,
        log_id: str,
        *,
        authority: TimestampAuthority,
        store: TimestampStore,
        archive: TimestampArchive,
        clock: Clock,
        interval_seconds: float,
    ) -> None:
        """Ask one authority.

        Args:
            log_id: Which log.
            authority: Who dates.
            store: Where tokens are kept.
            archive: Where copies of them go.
            clock: For the interval.
            interval_seconds: At most one token in this time.
        """
        self._log_id = log_id
        self._authority = authority
        self._store = store
        self._archive = archive
        self._clock = clock
        self._interval_ms = round(interval_seconds * 1000)
        self._status = TimestampStatus()
        self._archived_size: int | None = None
        self._pause_ms = _FIRST_PAUSE_MS
        self._quiet_until_ms = 0

    @property
    def status(self) -> TimestampStatus:
        """How far timestamping has come."""
        return self._status

    def turn(self, published: Published | None) -> None:
        """Have the checkpoint that is shown dated, if the time has come; a failure is remembered, not raised.

        Args:
            published: What is shown.
        """
        now = self._clock.now_ms()
        if now < self._quiet_until_ms:
            return
        try:
            self._turn(published, now)
        except LedgerError as error:
            self._status = TimestampStatus(newest=self._status.newest, failure=str(error))
            self._quiet_until_ms = now + self._pause_ms
            self._pause_ms = min(2 * self._pause_ms, _LONGEST_PAUSE_MS)
        else:
            self._status = TimestampStatus(newest=self._status.newest)
            self._pause_ms = _FIRST_PAUSE_MS

    def _turn(self, published: Published | None, now: int) -> None:
        newest = self._take_newest()
        if published is not None and self._due(newest, published.head.size, now):
            self._store.keep(self._log_id, self._authority.stamp(published.head.size, published.checkpoint))
            # Another process may have been first: what is in the store counts, here and there.
            newest = self._take_newest()
        if newest is not None and newest.size != self._archived_size:
            self._archive.copy(self._log_id, newest)
            self._archived_size = newest.size

    def _take_newest(self) -> KeptTimestamp | None:
        newest = self._store.newest(self._log_id)
        self._status = TimestampStatus(newest=newest, failure=self._status.failure)
        return newest

    def _due(self, newest: KeptTimestamp | None, size: int, now: int) -> bool:
        return newest is None or (newest.size < size and now - newest.kept_ms >= self._interval_ms)


class TimestampingLoop:
    """Has checkpoints dated in the background. Methods belong to one event loop.

    Attributes:
        work: What is repeated.
    """

    def __init__(
        self, timestamping: Timestamping, published: Callable[[], Published | None], *, interval_seconds: float
    ) -> None:
        """Prepare; `start` begins the work.

        Args:
            timestamping: Does it.
            published: Returns what is shown.
            interval_seconds: At most one token in this time.
        """
        self._timestamping = timestamping
        self._published = published
        self._look_seconds = min(interval_seconds, _LONGEST_LOOK_SECONDS)
        self.work = Repeating("timestamping", self._turn)

    @property
    def status(self) -> TimestampStatus:
        """How far timestamping has come."""
        return self._timestamping.status

    def start(self) -> None:
        """Begin."""
        self.work.start()

    async def stop(self) -> None:
        """Stop; a token that is under way is kept."""
        await self.work.stop()

    async def _turn(self) -> float:
        await asyncio.to_thread(self._timestamping.turn, self._published())
        return self._look_seconds
