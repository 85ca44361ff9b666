"""The publishing loop: at most one checkpoint for each interval, and every process knows of it.

The loop owns the publisher and runs it off the event loop, in one thread. Whoever needs a record to be covered by a
checkpoint waits here for its tree size, whichever process covers it. Which process publishes is
`ledger.publishing_turns`' part; the others look at intervals for what was published.

Errors and what they do: a tree that does not verify, a second tree, or an error that nobody expected ends the loop for
good (`failure`): the log is damaged or forked, and a person must look. A storage error or a clock that is behind is
retried after a verified reload, and lets another process try meanwhile. A lost swap is followed. An anchor's failure
shows in the anchor status and stops nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from ledger.errors import (
    ConflictError,
    DependencyError,
    LedgerError,
    MalformedError,
    StateError,
    StorageError,
    VerificationError,
)
from ledger.ports import Lease
from ledger.publisher import AnchorStatus, Published, Publisher
from ledger.publishing_turns import PublishingTurns, SoleLease, Turn
from ledger.tasks import end
from ledger.witnessing import WitnessStatus

__all__ = ["PublishingLoop"]

_RETRY_SECONDS: Final = 1.0
_SHORTEST_POLL_SECONDS: Final = 0.02
_LONGEST_POLL_SECONDS: Final = 1.0
_AWAITED_POLL_SECONDS: Final = 0.1
"""How often a process that follows looks while somebody waits for a checkpoint."""

_T = TypeVar("_T")


class PublishingLoop:
    """Publishes one log at an interval, or follows whoever does. Methods belong to one event loop."""

    def __init__(self, publisher: Publisher, *, interval_seconds: float, lease: Lease | None = None) -> None:
        """Prepare; `start` begins the work.

        Args:
            publisher: Makes checkpoints.
            interval_seconds: At most one checkpoint in this time.
            lease: Shared with the other processes that publish this log; None if there is none.
        """
        self._turns = PublishingTurns(publisher, lease or SoleLease())
        self._interval = interval_seconds
        self._poll = max(_SHORTEST_POLL_SECONDS, min(interval_seconds, _LONGEST_POLL_SECONDS))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publisher")
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._covered = asyncio.Condition()
        self._waiting = 0
        self._due_at = 0.0
        self._failure: LedgerError | None = None
        self._trouble: str | None = None

    @property
    def published(self) -> Published | None:
        """The present checkpoint, whichever process published it."""
        return self._turns.published

    @property
    def anchor_status(self) -> AnchorStatus:
        """How far the anchor has come, whichever process anchors."""
        return self._turns.anchor_status

    @property
    def witness_status(self) -> WitnessStatus | None:
        """How far witnessing has come in this process, or None without a witness policy."""
        return self._turns.witness_status

    @property
    def leads(self) -> bool:
        """Whether this process publishes; if not, it follows another or has had nothing to publish."""
        return self._turns.leads

    @property
    def failure(self) -> LedgerError | None:
        """Why publishing has ended for good, or None."""
        return self._failure

    @property
    def trouble(self) -> str | None:
        """Why the last attempt failed and will be repeated, or None."""
        return self._trouble

    async def start(self) -> None:
        """Load the log and begin to publish or follow.

        Raises:
            VerificationError: The log's checkpoint or tiles do not verify.
            StorageError: A store failed.
        """
        await self._in_thread(self._turns.load)
        self._task = asyncio.create_task(self._run(), name="publisher")

    async def stop(self) -> None:
        """Publish what is sequenced, unless another process is about to, and stop; another may lead at once."""
        if self._task is not None:
            await end(self._task)
            self._task = None
            if self._failure is None:
                await self._attempt(due=True)
            await self._in_thread(self._turns.give_up)
        self._thread.shutdown(wait=True)

    def notify(self, _size: int) -> None:
        """Say that something was sequenced."""
        self._wake.set()

    async def wait_for(self, size: int, timeout_seconds: float) -> Published:
        """Wait until a checkpoint covers ``size`` leaves; one that does so already counts, whatever came afterwards.

        Raises:
            StateError: Publishing has ended before, or it took too long.
        """

        def ready() -> bool:
            published = self.published
            return self._failure is not None or (published is not None and published.head.size >= size)

        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_seconds), self._covered:
                await self._covered.wait_for(ready)
        except TimeoutError:
            raise StateError(f"no checkpoint covered {size} leaves within {timeout_seconds:g} s") from None
        finally:
            self._waiting -= 1
        published = self.published
        if published is None or published.head.size < size:
            raise StateError("publishing has ended")
        return published

    async def _in_thread(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def _attempt(self, *, due: bool) -> None:
        try:
            if self._trouble is not None:
                await self._in_thread(self._turns.load)
            turn = await self._in_thread(partial(self._turns.turn, due=due))
            self._trouble = None
            self._note(turn)
        except (ConflictError, VerificationError, MalformedError) as error:
            self._failure = error
        except (DependencyError, StateError) as error:
            self._trouble = str(error)
        except Exception as error:  # noqa: BLE001  # a loop that ends unseen would leave every record unproved
            self._failure = StorageError("publishing failed unexpectedly")
            self._failure.__cause__ = error
        if self._failure is not None or self._trouble is not None:
            # Whoever cannot publish lets another try.
            await self._in_thread(self._turns.give_up)
        async with self._covered:
            self._covered.notify_all()

    def _note(self, turn: Turn) -> None:
        """Say when the next checkpoint may be published."""
        now = asyncio.get_running_loop().time()
        if turn is Turn.CHANGED:
            self._due_at = now + self._interval
        elif turn is Turn.REFUSED:
            # Another leads: not every record that arrives here may ask for the lease.
            self._due_at = now + min(self._poll, _AWAITED_POLL_SECONDS)

    async def _run(self) -> None:
        while self._failure is None:
            # What was sequenced before the start is published without waiting for anything new.
            self._wake.clear()
            await self._attempt(due=asyncio.get_running_loop().time() >= self._due_at)
            await self._rest()

    async def _rest(self) -> None:
        if self._trouble is not None or self._turns.awaits:
            await asyncio.sleep(_RETRY_SECONDS)
            return
        poll = self._poll
        if self._waiting and not self._turns.leads:
            poll = min(poll, _AWAITED_POLL_SECONDS)
        until_due = self._due_at - asyncio.get_running_loop().time()
        if until_due > 0:
            await asyncio.sleep(min(until_due, poll))
            return
        # Not `asyncio.wait_for`: before Python 3.12 it loses the cancellation of `stop` that meets the awaited event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(poll):
                await self._wake.wait()
