"""Background tasks of an event loop: work that is repeated, whatever becomes of one turn, and an end in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

from ledger.errors import LedgerError

__all__ = ["Repeating", "end"]

_RETRY_SECONDS: Final = 30.0


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait until they are over, whatever they raise; those that are None, or over, are none.

    A task that waits for an event with a time-out does so by `asyncio.timeout`: before Python 3.12 `asyncio.wait_for`
    loses a cancellation that meets the event, and the task would go on for ever.
    """
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)


class Repeating:
    """Work that is done again and again in the background. Methods belong to one event loop.

    INVARIANT: nothing that a turn raises ends the work; `failure` says so until a turn succeeds. What nobody expected
    goes to the event loop's exception handler besides.
    """

    def __init__(
        self,
        name: str,
        turn: Callable[[], Awaitable[float]],
        *,
        first_seconds: float = 0.0,
        retry_seconds: float = _RETRY_SECONDS,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        """Prepare; `start` begins the work.

        Args:
            name: Of the work, for people.
            turn: Does a part of it, and returns the seconds until the next.
            first_seconds: Until the first turn.
            retry_seconds: Until the next turn after one that raised something.
            on_failure: Told of everything that a turn raises.
        """
        self.name = name
        self._turn = turn
        self._first_seconds = first_seconds
        self._retry_seconds = retry_seconds
        self._on_failure = on_failure
        self._failure: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()

    @property
    def failure(self) -> Exception | None:
        """What the last turn raised, or None."""
        return self._failure

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=self.name)

    def wake(self) -> None:
        """Have the next turn begin at once, or right after the one in hand."""
        self._woken.set()

    async def stop(self) -> None:
        """Break off the turn in hand, and do no other."""
        await end(self._task)
        self._task = None

    async def _run(self) -> None:
        pause = self._first_seconds
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()
            self._woken.clear()
            pause = await self._once()

    async def _once(self) -> float:
        try:
            pause = await self._turn()
        except Exception as error:  # noqa: BLE001  # whatever it was, work that ends unseen is the worse fault
            self._failure = error
            self._tell(error)
            return self._retry_seconds
        self._failure = None
        return pause

    def _tell(self, error: Exception) -> None:
        # Who is told is no part of the work either.
        with suppress(Exception):
            if self._on_failure is not None:
                self._on_failure(error)
            if not isinstance(error, LedgerError):
                message = f"the background work {self.name} failed unexpectedly"
                asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
