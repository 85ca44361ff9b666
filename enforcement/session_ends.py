"""The ends of silent sessions: looked for from time to time, recorded, forgotten.

A session whose caller comes back ends with the record of his next call, and a killed one with the kill
(`enforcement.sessions`); this is for those who do not come back. A session is forgotten in the transaction that stores
its end: a crash leaves both or neither.
"""

from __future__ import annotations

from typing import Final

import structlog

from enforcement.batches import Batch, Item
from enforcement.recorder import Recorder
from enforcement.sessions import Sessions
from ledger.clock import Clock
from ledger.ports import Draft
from ledger.tasks import Repeating

__all__ = ["SessionEnds"]

_LOG: Final = structlog.get_logger(__name__)
_AT_ONCE: Final = 100
"""Ends in one batch, so that no transaction is long."""


class SessionEnds:
    """Records the ends of silent sessions. Owned by the event loop."""

    def __init__(self, sessions: Sessions, recorder: Recorder, clock: Clock, *, interval_seconds: float) -> None:
        """Look every ``interval_seconds``; nothing runs before `start`."""
        self._sessions = sessions
        self._recorder = recorder
        self._clock = clock
        self._interval = interval_seconds
        self._work = Repeating(
            "session ends",
            self._turn,
            first_seconds=interval_seconds,
            retry_seconds=interval_seconds,
            on_failure=lambda error: _LOG.warning("session_ends_not_recorded", error=type(error).__name__),
        )

    def start(self) -> None:
        """Begin to look."""
        self._work.start()

    async def stop(self) -> None:
        """Stop looking; what is silent then is found by the next run."""
        await self._work.stop()

    async def look(self) -> int:
        """Record the ends of the sessions that are silent now, and return how many; what fails is tried again."""
        ended = 0
        while True:
            ends, forgotten, keep = self._sessions.expire(self._clock.now_ms(), at_most=_AT_ONCE)
            if not forgotten:
                return ended
            items = [Item(self._recorder.new_record_id(), Draft(body=end)) for end in ends]
            try:
                # What is forgotten goes with its own ends: a batch that fails repeats none of those before it.
                await self._recorder.record(Batch(items=tuple(items), changes=tuple(forgotten)), strict=False)
            except BaseException:
                keep()
                raise
            ended += len(ends)

    async def _turn(self) -> float:
        await self.look()
        return self._interval
