"""What no behaviour window asks for any more: looked for from time to time, and forgotten.

Memory forgets first, then the file. Should the file fail, the next start finds what it still holds, and that counts no
more than it did.
"""

from __future__ import annotations

from typing import Final

import structlog

from enforcement.batches import Batch
from enforcement.recorder import Recorder
from enforcement.sessions import Sessions
from enforcement.windows import Windows
from ledger.clock import Clock
from ledger.tasks import Repeating

__all__ = ["WindowSweeps"]

_LOG: Final = structlog.get_logger(__name__)


class WindowSweeps:
    """Keeps the state of behaviour windows small. Owned by the event loop."""

    def __init__(
        self, windows: Windows, sessions: Sessions, recorder: Recorder, clock: Clock, *, interval_seconds: float
    ) -> None:
        """Look every ``interval_seconds``; nothing runs before `start`."""
        self._windows = windows
        self._sessions = sessions
        self._recorder = recorder
        self._clock = clock
        self._interval = interval_seconds
        self._work = Repeating(
            "window sweeps",
            self._turn,
            first_seconds=interval_seconds,
            retry_seconds=interval_seconds,
            on_failure=lambda error: _LOG.warning("windows_not_swept", error=type(error).__name__),
        )

    def start(self) -> None:
        """Begin to look."""
        self._work.start()

    async def stop(self) -> None:
        """Stop looking."""
        await self._work.stop()

    async def look(self) -> None:
        """Forget now what no window asks for any more.

        Raises:
            StorageError: The state file failed.
        """
        forgotten = self._windows.sweep(self._clock.now_ms(), self._sessions.names())
        await self._recorder.record(Batch(items=(), changes=forgotten), strict=False)

    async def _turn(self) -> float:
        await self.look()
        return self._interval
