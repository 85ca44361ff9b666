"""Who called which tool, how often and when: counted once, by day, and from then on what is new.

A count of a long log takes its time. So the leaves are counted piece by piece, at most `_PIECES` for each look: what a
look returns says up to which leaf it counted, and whether that was all. A tool may be called by any name, and every
name is kept only as long as there are not too many: what is left out is counted too.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ledger.usage import UsageCatalog, UsageTally

__all__ = ["WINDOW_DAYS", "Counted", "UsageCounts", "Use", "UseKey"]

WINDOW_DAYS: Final = (7, 30, 90)
"""The windows in which use is told, days."""

UseKey = tuple[str, str, str]
"""Agent, server and tool."""

_PIECE: Final = 50_000
_PIECES: Final = 40
_MAX_PAIRS: Final = 100_000
_MAX_DAYS: Final = 4 * WINDOW_DAYS[-1]


@dataclass(slots=True)
class Use:
    """What one agent did with one tool.

    Attributes:
        calls: Its calls, refused ones included.
        passed: Those that were let through: allowed, or only observed.
        held: Those that a person had to agree to.
        first_leaf: The first of its calls.
        last_leaf: The last.
        first_ms: The earliest of their times.
        last_ms: The latest.
        days: Calls that were let through, by day; of these the latest alone.
    """

    calls: int = 0
    passed: int = 0
    held: int = 0
    first_leaf: int = -1
    last_leaf: int = -1
    first_ms: int = 0
    last_ms: int = 0
    days: dict[int, int] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        """Its calls that were neither let through nor held."""
        return self.calls - self.passed - self.held

    def within(self, days: int, today: int) -> int:
        """Return how many calls were let through within so many days, today included."""
        return sum(count for day, count in self.days.items() if today - days < day <= today)

    def add(self, tally: UsageTally) -> None:
        """Count further calls."""
        passed = tally.enforcement == "allow" or tally.mode == "observe"
        new = not self.calls
        self.calls += tally.calls
        self.passed += tally.calls if passed else 0
        self.held += tally.calls if tally.enforcement == "ask" and not passed else 0
        self.first_leaf = tally.first_index if new else min(self.first_leaf, tally.first_index)
        self.last_leaf = max(self.last_leaf, tally.last_index)
        self.first_ms = tally.first_ms if new else min(self.first_ms, tally.first_ms)
        self.last_ms = max(self.last_ms, tally.last_ms)
        if passed:
            self.days[tally.day] = self.days.get(tally.day, 0) + tally.calls

    def copy(self) -> Use:
        """Return the same, to be kept by somebody else."""
        return Use(
            calls=self.calls,
            passed=self.passed,
            held=self.held,
            first_leaf=self.first_leaf,
            last_leaf=self.last_leaf,
            first_ms=self.first_ms,
            last_ms=self.last_ms,
            days=dict(self.days),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What was counted.

    Attributes:
        size: The leaves below this index were counted.
        complete: These were all that there were when it was looked.
        calls: Calls of tools among them.
        left_out: Calls among these that no use has, because too many names were called.
        newest_ms: The latest time of a call, 0 before the first.
        uses: By agent, server and tool.
    """

    size: int
    complete: bool
    calls: int
    left_out: int
    newest_ms: int
    uses: Mapping[UseKey, Use]


class UsageCounts:
    """Counts the calls of one log; safe for any thread."""

    def __init__(
        self, log_id: str, catalog: UsageCatalog, *, piece: int = _PIECE, pieces: int = _PIECES, pairs: int = _MAX_PAIRS
    ) -> None:
        """Count nothing yet.

        Args:
            log_id: Which log.
            catalog: Counts a stretch of it.
            piece: Leaves that are counted by one question.
            pieces: Questions that one look asks at most.
            pairs: Agents and tools that are told apart at most.
        """
        self._log_id = log_id
        self._catalog = catalog
        self._piece = piece
        self._pieces = pieces
        self._pairs = pairs
        self._lock = threading.Lock()
        # Under the lock. Leaf indexes are given once and in order, so that what is new lies behind what was counted.
        self._next = 0
        self._calls = self._left_out = self._newest_ms = 0
        self._uses: dict[UseKey, Use] = {}

    def look(self, size: int) -> Counted:
        """Count what is new, and return what was counted.

        Args:
            size: How many leaves there are.

        Raises:
            StorageError: The catalogue failed; what was counted before stays counted.
        """
        with self._lock:
            for _ in range(self._pieces):
                if self._next >= size:
                    break
                end = min(self._next + self._piece, size)
                for tally in self._catalog.usage(self._log_id, self._next, end):
                    self._take(tally)
                self._next = end
            self._forget()
            return Counted(
                size=self._next,
                complete=self._next >= size,
                calls=self._calls,
                left_out=self._left_out,
                newest_ms=self._newest_ms,
                uses={key: use.copy() for key, use in self._uses.items()},
            )

    def _take(self, tally: UsageTally) -> None:
        self._calls += tally.calls
        key = (tally.agent, tally.server, tally.tool)
        use = self._uses.get(key)
        if use is None:
            if len(self._uses) >= self._pairs:
                self._left_out += tally.calls
                return
            use = self._uses[key] = Use()
        use.add(tally)
        self._newest_ms = max(self._newest_ms, tally.last_ms)

    def _forget(self) -> None:
        """Let the earliest days go. More are kept than a window has: a record may claim a day that is yet to come."""
        for use in self._uses.values():
            if len(use.days) > _MAX_DAYS:
                use.days = {day: use.days[day] for day in sorted(use.days)[-_MAX_DAYS:]}
