"""Ending the background tasks of an event loop."""

from __future__ import annotations

import asyncio

__all__ = ["end"]


async def end(*tasks: asyncio.Task[None] | None) -> None:
    """Cancel tasks and wait until they are over, whatever they raise; those that are None, or over, are none.

    A task that waits for an event with a time-out does so by `asyncio.timeout`: before Python 3.12 `asyncio.wait_for`
    loses a cancellation that meets the event, and the task would go on for ever.
    """
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)
