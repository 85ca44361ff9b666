"""The publishing loop: one checkpoint for each interval in which something was sequenced.

The loop owns the publisher and runs it off the event loop, in one thread. Whoever needs a record to be covered by a
checkpoint waits here for its tree size.

Errors and what they do: a lost swap, a tree that does not verify, or an error that nobody expected ends the loop for
good (`failure`): somebody else publishes, or the log is damaged, and a person must look. A storage error or a clock
that is behind is retried after a verified reload. An anchor's failure shows in the publisher's anchor status and stops
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
from ledger.publisher import AnchorStatus, Published, Publisher

__all__ = ["PublishingLoop"]

_RETRY_SECONDS: Final = 1.0

_T = TypeVar("_T")


class PublishingLoop:
    """Publishes one log at an interval. Methods belong to one event loop."""

    def __init__(self, publisher: Publisher, *, interval_seconds: float) -> None:
        """Prepare; `start` begins the work."""
        self._publisher = publisher
        self._interval = interval_seconds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="publisher")
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._covered = asyncio.Condition()
        self._failure: LedgerError | None = None
        self._trouble: str | None = None

    @property
    def published(self) -> Published | None:
        """The present checkpoint."""
        return self._publisher.published

    @property
    def anchor_status(self) -> AnchorStatus:
        """How far the anchor has come."""
        return self._publisher.anchor_status

    @property
    def failure(self) -> LedgerError | None:
        """Why publishing has ended for good, or None."""
        return self._failure

    @property
    def trouble(self) -> str | None:
        """Why the last attempt failed and will be repeated, or None."""
        return self._trouble

    async def start(self) -> None:
        """Load the log and begin to publish.

        Raises:
            VerificationError: The log's checkpoint or tiles do not verify.
            StorageError: A store failed.
        """
        await self._in_thread(self._publisher.load)
        self._task = asyncio.create_task(self._run(), name="publisher")

    async def stop(self) -> None:
        """Publish what is sequenced, and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            if self._failure is None:
                await self._attempt()
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
            published = self._publisher.published
            return self._failure is not None or (published is not None and published.head.size >= size)

        try:
            async with self._covered:
                await asyncio.wait_for(self._covered.wait_for(ready), timeout_seconds)
        except TimeoutError:
            raise StateError(f"no checkpoint covered {size} leaves within {timeout_seconds:g} s") from None
        published = self._publisher.published
        if published is None or published.head.size < size:
            raise StateError("publishing has ended")
        return published

    async def _in_thread(self, function: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    async def _attempt(self) -> None:
        try:
            if self._trouble is not None:
                await self._in_thread(self._publisher.load)
            await self._in_thread(self._publisher.publish)
            await self._in_thread(self._publisher.anchor_newest)
            self._trouble = None
        except (ConflictError, VerificationError, MalformedError) as error:
            self._failure = error
        except (DependencyError, StateError) as error:
            self._trouble = str(error)
        except Exception as error:  # noqa: BLE001  # a loop that ends unseen would leave every record unproved
            self._failure = StorageError("publishing failed unexpectedly")
            self._failure.__cause__ = error
        async with self._covered:
            self._covered.notify_all()

    async def _run(self) -> None:
        # What was sequenced before the start is published without waiting for anything new.
        self._wake.set()
        while self._failure is None:
            await self._wake.wait()
            self._wake.clear()
            await self._attempt()
            if self._trouble is not None or self._publisher.anchor_status.failure is not None:
                await asyncio.sleep(max(_RETRY_SECONDS, self._interval))
                self._wake.set()
            else:
                await asyncio.sleep(self._interval)
