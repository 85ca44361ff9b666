"""Gateways tell each other what they have counted, by way of the service: every second, unless there is nobody to tell.

What this gateway has counted of windows across the fleet goes out as totals, and what has changed of all the others'
comes in. Everything can be said again, so that an answer that is lost loses nothing. What came in is kept in the state
file: a restart while the service is away begins with it.

Where the service's database was put back to an earlier state, it knows less of this gateway than it said before, or
its version is below the one that was heard. Then all of it is said and heard again, from the beginning; and what is
heard meanwhile, and for a minute after, takes nothing back of what was known, since the others have yet to say theirs
again: what is heard is their sum, and one that was not heard yet is missing in it.

How long ago the others were last heard of is the windows' *staleness*: policies may ask for it, and it is on
``/metrics``. It is at most the time between two turns and one request, while the service answers.
"""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from enforcement.batches import Batch
from enforcement.fleet_store import Contribution, FleetStore, Heard, Part, decode_parts
from enforcement.ports import Unavailable
from enforcement.recorder import Recorder
from enforcement.state import StateDatabase
from enforcement.windows import Windows
from ledger.clock import Clock
from ledger.errors import LedgerError, StorageError
from ledger.tasks import Repeating

__all__ = ["WindowExchange"]

_LOG: Final = structlog.get_logger(__name__)
_AT_ONCE: Final = 500
_KEPT_AT_ONCE: Final = 100
_LAST_SECONDS: Final = 2.0
_AGAIN_MS: Final = 60_000
"""In it all gateways that run have noticed an earlier database: who says nothing for so long is called silent."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    position: int
    decision_id: str
    parts: tuple[Part, ...] | None


@dataclass(frozen=True, slots=True)
class _Said:
    position: int

    def apply(self, connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM fleet_outbox WHERE position <= ?", (self.position,))


class WindowExchange:
    """Exchanges counts with the service. Owned by the event loop."""

    def __init__(
        self,
        windows: Windows,
        store: FleetStore,
        state: StateDatabase,
        recorder: Recorder,
        clock: Clock,
        *,
        interval_seconds: float,
    ) -> None:
        """Take the parts; nothing runs before `start`.

        Args:
            windows: What is counted here.
            store: Where it is told.
            state: The state file, on a connection that only reads.
            recorder: Writes to the state file.
            clock: Dates what is heard.
            interval_seconds: Between two turns.
        """
        self._windows = windows
        self._store = store
        self._state = state
        self._recorder = recorder
        self._clock = clock
        self._interval = interval_seconds
        self._since = 0
        self._told = 0
        self._again = False
        self._again_until_ms = 0
        self._away = False
        self._work = Repeating(
            "window exchange",
            self._turn,
            retry_seconds=interval_seconds,
            on_failure=lambda error: _LOG.warning("windows_not_exchanged", error=type(error).__name__),
        )

    @property
    def heard_ms(self) -> int | None:
        """When the others were last heard of in this run, POSIX milliseconds; None if never."""
        return self._windows.heard_ms

    def start(self) -> None:
        """Begin."""
        self._work.start()

    async def stop(self) -> None:
        """Stop, having said what there is to say, if the service hears it at once."""
        await self._work.stop()
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self.exchange()
        except (TimeoutError, LedgerError) as error:
            # It stands in the state file, and is said after the next start.
            _LOG.warning("windows_not_exchanged", error=type(error).__name__)

    async def _turn(self) -> float:
        return 0.0 if await self.exchange() else self._interval

    async def exchange(self) -> bool:
        """Say what has changed here and take in what has elsewhere; tell whether there is more of either at once.

        Raises:
            StorageError: The state file failed, or what waits in it makes no sense.
        """
        waiting = self._waiting()
        if not (self._windows.is_shared or waiting):
            return False
        asked_ms = self._clock.now_ms()
        totals = self._windows.take_changed(_AT_ONCE)
        heard: Heard | Unavailable = Unavailable("cancelled")
        try:
            heard = await self._store.exchange(
                Contribution(
                    origin=self._origin(),
                    since=self._since,
                    told=self._told,
                    totals=totals,
                    keep=[(item.decision_id, item.parts) for item in waiting if item.parts is not None],
                    release=[item.decision_id for item in waiting if item.parts is None],
                )
            )
        finally:
            if isinstance(heard, Unavailable):
                self._windows.put_back(totals)
        if isinstance(heard, Unavailable):
            self._say_away(heard.reason)
            return False
        self._away = False
        self._told = heard.told
        earlier = heard.lost or heard.version < self._since
        if earlier:
            self._begin_again()
        only_more = self._again or asked_ms < self._again_until_ms
        changes = [] if earlier else self._windows.hear(heard.totals, asked_ms, only_more=only_more)
        if waiting:
            changes.append(_Said(waiting[-1].position))
        if changes:
            await self._recorder.record(Batch(items=(), changes=tuple(changes)), strict=False)
        if earlier:
            return True
        self._since = heard.version
        if self._again and not heard.more:
            self._again, self._again_until_ms = False, asked_ms + _AGAIN_MS
        return heard.more or _AT_ONCE in (len(totals), len(waiting))

    def _begin_again(self) -> None:
        """Say and hear all of it again: the service's database is an earlier one."""
        _LOG.warning("windows_told_again", since=self._since)
        self._windows.tell_again()
        self._since, self._again = 0, True

    def _waiting(self) -> list[_Waiting]:
        """Return what decisions have to say, oldest first; what is let through before what is not, as it came."""
        query = "SELECT position, decision_id, parts FROM fleet_outbox ORDER BY position LIMIT ?"
        try:
            found = [
                _Waiting(position, decision_id, None if parts is None else decode_parts(parts))
                for position, decision_id, parts in self._state.read(query, (_AT_ONCE,))
            ]
        except msgspec.MsgspecError as error:
            raise StorageError("the state file holds something that decisions cannot have said") from error
        kept = [index for index, item in enumerate(found) if item.parts is not None]
        return found[: kept[_KEPT_AT_ONCE]] if len(kept) > _KEPT_AT_ONCE else found

    def _origin(self) -> str:
        return str(self._state.read("SELECT value FROM meta WHERE name = 'epoch'")[0][0])

    def _say_away(self, reason: str) -> None:
        if not self._away:
            _LOG.warning("windows_not_exchanged", reason=reason)
        self._away = True
