"""Requests that wait for news of bundles, or of restrictions: held until the log has more, or for a time.

Whichever process of the service writes a step, all hear of it: while anybody waits, and only then, the log is asked a
few times in a second, once for all who wait. No thread is held by a wait. The end of the service lets everybody go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from ledger.tasks import Repeating, end

__all__ = ["MAX_WAITERS", "MAX_WAIT_SECONDS", "BundleWatch"]

MAX_WAIT_SECONDS: Final = 60
MAX_WAITERS: Final = 256
"""Of one log in one process; whoever comes after them is answered at once."""

_POLL_SECONDS: Final = 0.25
_IDLE_SECONDS: Final = 3600.0


class BundleWatch:
    """Who waits for steps on the bundles of one log, or on its restrictions. Methods belong to one event loop."""

    def __init__(self, newest: Callable[[], Awaitable[int]], *, name: str = "bundle news") -> None:
        """Prepare.

        Args:
            newest: Returns the leaf index of the log's last record of what is waited for, -1 if it has none.
            name: Of the work, for people.
        """
        self._newest = newest
        self._latest = -1
        self._waiters = 0
        self._ending = False
        self._news = asyncio.Event()
        self.work = Repeating(name, self._look, first_seconds=_IDLE_SECONDS, retry_seconds=1.0)

    def start(self) -> None:
        """Begin to look."""
        self.work.start()

    async def stop(self) -> None:
        """Let everybody go, and look no more."""
        self.release()
        await self.work.stop()

    def release(self) -> None:
        """Let everybody go who waits, and let nobody wait any more: the service ends."""
        self._ending = True
        self._news.set()

    async def changed(self, seen: int, seconds: float, gone: Callable[[], Awaitable[None]]) -> bool:
        """Wait until there is a step behind the leaf ``seen``.

        Args:
            seen: Leaf index of the last bundle record that the caller knows; -1 for none.
            seconds: For how long at most.
            gone: Returns once nobody is there any more to be told.

        Returns:
            Whether the caller was held, until there was a step or the time was over. Otherwise too many wait already,
            the service ends, or nobody is there.
        """
        if self._ending or self._waiters >= MAX_WAITERS:
            return False
        self._waiters += 1
        self.work.wake()
        leaving = asyncio.create_task(self._leave(gone))
        try:
            async with asyncio.timeout(seconds):
                while not (leaving.done() or self._has_news(seen)):
                    await self._news.wait()
        except TimeoutError:
            return True
        finally:
            self._waiters -= 1
            await end(leaving)
        return self._latest > seen

    def _has_news(self, seen: int) -> bool:
        return self._ending or self._latest > seen

    async def _leave(self, gone: Callable[[], Awaitable[None]]) -> None:
        await gone()
        self._tell()

    def _tell(self) -> None:
        """Have everybody who waits look again."""
        news, self._news = self._news, asyncio.Event()
        news.set()
        if self._ending:
            self._news.set()

    async def _look(self) -> float:
        if not self._waiters:
            return _IDLE_SECONDS
        newest = await self._newest()
        if newest > self._latest:
            self._latest = newest
            self._tell()
        return _POLL_SECONDS
