"""A call that waits in a queue for a thread; whose turn it is, is said by whoever keeps the queue."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

__all__ = ["QueuedCall"]


@dataclass(frozen=True, slots=True)
class QueuedCall:
    """A call and where its result goes.

    Attributes:
        future: What its caller waits for.
        call: The call, without arguments.
    """

    future: Future[Any]
    call: Callable[[], Any]

    def run(self) -> None:
        """Make the call, unless it was cancelled meanwhile; nothing is raised here."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.call()
        except BaseException as error:  # noqa: BLE001  # the waiting task's to judge, as in any executor
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
