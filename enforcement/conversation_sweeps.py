"""Ends the sessions of stateful revisions that nobody uses any more: looked for from time to time.

What is open in one gets its outcome then, and when the gateway stops.
"""

from __future__ import annotations

from typing import Final

import structlog

from enforcement.way import Way
from ledger.tasks import Repeating

__all__ = ["ConversationSweeps"]

_LOG: Final = structlog.get_logger(__name__)


class ConversationSweeps:
    """Looks for silent sessions. Owned by the event loop."""

    def __init__(self, way: Way, *, interval_seconds: float) -> None:
        """Look every ``interval_seconds``; nothing runs before `start`."""
        self._way = way
        self._interval = interval_seconds
        self._work = Repeating(
            "protocol sessions",
            self._turn,
            first_seconds=interval_seconds,
            retry_seconds=interval_seconds,
            on_failure=lambda error: _LOG.warning("sessions_not_swept", error=type(error).__name__),
        )

    def start(self) -> None:
        """Begin to look."""
        self._work.start()

    async def stop(self) -> None:
        """Stop looking, and end every session."""
        await self._work.stop()
        for conversation in list(self._way.conversations):
            await self._way.end(conversation, "gateway_stopped")

    async def look(self) -> int:
        """End the sessions that are silent for too long; return how many."""
        idle = self._way.conversations.idle()
        for conversation in idle:
            await self._way.end(conversation, "session_idle")
        return len(idle)

    async def _turn(self) -> float:
        await self.look()
        return self._interval
