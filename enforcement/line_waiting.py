"""How a client at the other end of a pipe waits while its call is held; see `enforcement.waiting`.

INVARIANT: a held call gives up its turn, once all before it have gone on: what comes after it, and above all what
withdraws it, does not wait for people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from enforcement.lines import one_line
from enforcement.refusals import RequestId
from enforcement.verdicts import Withdrawable
from enforcement.waiting import progress_bytes

__all__ = ["LineWait"]


class LineWait:
    """One request that came in a line. Used once, owned by the event loop.

    Attributes:
        held: The call while it is held.
        on_held: Is called when it is held.
    """

    def __init__(
        self,
        put: Callable[[bytes], object],
        over: asyncio.Event,
        reason: Callable[[], str],
        before: asyncio.Event,
        turn: asyncio.Event,
    ) -> None:
        """Take the way back.

        Args:
            put: Writes a line to the client.
            over: Set once a peer has ended.
            reason: Says which.
            before: Set once all before it have gone on.
            turn: Set once what comes after it may.
        """
        self.held: Withdrawable | None = None
        self.on_held: Callable[[], None] = lambda: None
        self._put = put
        self._over = over
        self._reason = reason
        self._before = before
        self._turn = turn
        self._passing_by: asyncio.Task[None] | None = None

    def began(self, _: RequestId, held: Withdrawable) -> None:
        """Note that the call is held."""
        self.held = held
        self.on_held()
        self._passing_by = asyncio.create_task(self._let_by())

    async def _let_by(self) -> None:
        await self._before.wait()
        self._turn.set()

    def ended(self, _: RequestId, held: Withdrawable) -> None:
        """Note that it is held no more."""
        if self.held is held:
            self.held = None
        if self._passing_by is not None:
            self._passing_by.cancel()

    async def tell(self, token: int | str | None, count: int) -> None:
        """Say that the call waits, if the client wants to know."""
        if token is not None:
            self._put(one_line(progress_bytes(token, count)))

    async def gone(self) -> str:
        """Return once a peer has ended, with the reason that is recorded."""
        await self._over.wait()
        return self._reason()
