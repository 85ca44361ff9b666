"""A lease that a process keeps for as long as it does the work, asked for no more often than it needs.

For work that goes on all the time, of which two processes that do it at once only waste some. Whoever has it need not
write a row for each turn, nor need all others ask at each of theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from ledger.errors import LedgerError
from ledger.ports import Lease

__all__ = ["Tenure"]

_ASKED_IN_A_LEASE = 3
"""So many times while it lasts: it does not end while its holder works."""


class Tenure:
    """Whether a piece of work is this process's. One thread at a time."""

    def __init__(self, lease: Lease, *, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Keep a lease.

        Args:
            lease: Which; made for this process.
            seconds: How long it lasts.
            monotonic: Seconds that pass, from any point.
        """
        self._lease = lease
        self._pause = seconds / _ASKED_IN_A_LEASE
        self._monotonic = monotonic
        self._held = False
        self._ask_at: float | None = None

    def held(self) -> bool:
        """Return whether the work is ours; asks the store if the last answer has grown old.

        Raises:
            StorageError: The store failed.
        """
        now = self._monotonic()
        if self._ask_at is None or now >= self._ask_at:
            self._held = self._lease.take()
            self._ask_at = now + self._pause
        return self._held

    def give_up(self) -> None:
        """Let another have the work, and ask anew at the next turn; a failure is left to the lease's end."""
        if not self._held:
            return
        self._held = False
        self._ask_at = None
        with suppress(LedgerError):
            self._lease.give_up()
