"""Decisions of the last 24 hours by enforcement, kept up to date at the cost of what is new.

The day ends now; in a simulated log, whose decisions may lie far from any real now, it ends at the newest of them.

Counting a day of a busy log takes seconds; the home page asks every two. So the day is counted once, by minute, and
from then on only leaves that were not there before. Minutes that are over a day old fall out. The figures are a
convenience for people (architecture.md, invariant 3): a population is drawn by `evidence`, from the log.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ledger.catalog import MINUTE_MS, Catalog, DecisionQuery, Tally
from ledger.clock import Clock
from service.web.records import RecordCache
from service.web.wording import ENFORCEMENT_WORDS

__all__ = ["DAY_MS", "Counts", "NewestDecision", "RecentCounts"]

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Decisions in a window of time.

    Attributes:
        by_enforcement: How many were allowed, denied, held, killed.
        observed: How many of all were made in observe mode and not enforced.
    """

    by_enforcement: Mapping[str, int]
    observed: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_enforcement.values())


class NewestDecision:
    """A clock that stands at the latest time of a log's newest decisions, as far as it was asked."""

    simulated = True

    def __init__(self, catalog: Catalog, log_id: str, records: RecordCache) -> None:
        self._catalog = catalog
        self._log_id = log_id
        self._records = records
        self._latest_ms = 0

    def now_ms(self) -> int:
        """Return POSIX milliseconds, 0 before the first decision.

        Raises:
            StorageError: The catalogue or the log failed.
        """
        newest = self._records.records(self._catalog.search(self._log_id, DecisionQuery(limit=1)))
        self._latest_ms = max(self._latest_ms, *(record.time_ms for record in newest), 0)
        return self._latest_ms


class RecentCounts:
    """Counts one log's decisions of the last ``window_ms``, to the minute; safe for any thread."""

    def __init__(self, catalog: Catalog, log_id: str, clock: Clock, *, window_ms: int = DAY_MS) -> None:
        self._catalog = catalog
        self._log_id = log_id
        self._clock = clock
        self._window_ms = window_ms
        self._lock = threading.Lock()
        self._minutes: dict[int, Counter[tuple[str, str]]] = {}
        self._next_index: int | None = None

    def now(self) -> Counts:
        """Return the present counts.

        Raises:
            StorageError: The catalogue failed.
        """
        with self._lock:
            now_ms = self._clock.now_ms()
            first_ms = now_ms - self._window_ms
            self._take(self._new(first_ms), first_ms)
            kinds: Counter[tuple[str, str]] = Counter()
            for minute_ms, counted in self._minutes.items():
                if minute_ms <= now_ms:  # a gateway's clock may be ahead; its decisions count when their time comes
                    kinds.update(counted)
        by_enforcement = {
            name: sum(decisions for (enforcement, _), decisions in kinds.items() if enforcement == name)
            for name in ENFORCEMENT_WORDS
        }
        observed = sum(decisions for (_, mode), decisions in kinds.items() if mode == "observe")
        return Counts(by_enforcement=by_enforcement, observed=observed)

    def _new(self, first_ms: int) -> list[Tally]:
        # Leaf indexes are given once and in order, so that what is new lies after the last one that was counted.
        if self._next_index is None:
            return self._catalog.tally(self._log_id, from_ms=first_ms)
        return self._catalog.tally(self._log_id, from_index=self._next_index)

    def _take(self, tallies: list[Tally], first_ms: int) -> None:
        for tally in tallies:
            self._next_index = max(self._next_index or 0, tally.last_index + 1)
            # A record may claim any time: what lies far ahead is left out, or memory would have no bound.
            if first_ms < tally.minute_ms + MINUTE_MS and tally.minute_ms < first_ms + 2 * self._window_ms:
                minute = self._minutes.setdefault(tally.minute_ms, Counter())
                minute[tally.enforcement, tally.mode] += tally.decisions
        for minute_ms in [minute_ms for minute_ms in self._minutes if minute_ms + MINUTE_MS <= first_ms]:
            del self._minutes[minute_ms]
