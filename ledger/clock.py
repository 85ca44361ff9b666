"""Clocks. Everything that needs the time takes one; no other module asks the operating system."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from ledger.errors import ConfigError

__all__ = ["Clock", "SimulatedClock", "SystemClock"]


class Clock(Protocol):
    """Tells the time of day; safe for any thread."""

    @property
    def simulated(self) -> bool:
        """Whether its time is made up; every record made with such a clock says so."""
        ...

    def now_ms(self) -> int:
        """Return POSIX milliseconds."""
        ...


class SystemClock:
    """The operating system's clock."""

    simulated = False

    def now_ms(self) -> int:
        """Return POSIX milliseconds."""
        return time.time_ns() // 1_000_000


class SimulatedClock:
    """A clock that stands still until it is moved, forward only; for demonstrations and tests."""

    simulated = True

    def __init__(self, now_ms: int) -> None:
        """Start at ``now_ms``, POSIX milliseconds."""
        self._now_ms = now_ms
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        """Return POSIX milliseconds."""
        return self._now_ms

    def advance_to(self, now_ms: int) -> None:
        """Move the clock.

        Raises:
            ConfigError: ``now_ms`` lies in its past.
        """
        with self._lock:
            if now_ms < self._now_ms:
                raise ConfigError("a simulated clock does not run backwards")
            self._now_ms = now_ms

    def advance(self, milliseconds: int) -> None:
        """Move the clock forward by ``milliseconds``."""
        self.advance_to(self._now_ms + milliseconds)
