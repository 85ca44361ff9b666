"""Leases in memory: for tests, and for processes that are only threads of one."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ledger.clock import Clock
from ledger.ports import LeaseState

__all__ = ["LeaseTable", "MemoryLease"]


@dataclass(slots=True)
class _Row:
    holder: str = ""
    expires_ms: int = 0
    report: str = ""


@dataclass(slots=True)
class LeaseTable:
    """The leases that several holders share.

    Attributes:
        clock: The time of all of them.
        lock: Guards the rows.
        rows: By log and work.
    """

    clock: Clock
    lock: threading.Lock = field(default_factory=threading.Lock)
    rows: dict[tuple[str, str], _Row] = field(default_factory=dict)


class MemoryLease:
    """`ledger.ports.Lease` in memory; safe for any thread."""

    def __init__(self, table: LeaseTable, log_id: str, name: str, *, holder: str, seconds: float) -> None:
        """Ask for one piece of work on behalf of one holder; see `ledger.stores.sql_leases.SQLLease`."""
        self._table = table
        self._key = (log_id, name)
        self._holder = holder
        self._duration_ms = int(seconds * 1000)

    def _live(self, row: _Row) -> bool:
        now_ms = self._table.clock.now_ms()
        return now_ms < row.expires_ms <= now_ms + self._duration_ms

    def take(self, report: str | None = None) -> bool:
        """See `Lease.take`."""
        with self._table.lock:
            row = self._table.rows.setdefault(self._key, _Row())
            if row.holder != self._holder and self._live(row):
                return False
            row.holder = self._holder
            row.expires_ms = self._table.clock.now_ms() + self._duration_ms
            if report is not None:
                row.report = report
            return True

    def look(self) -> LeaseState:
        """See `Lease.look`."""
        with self._table.lock:
            row = self._table.rows.get(self._key, _Row())
            return LeaseState(live=self._live(row), report=row.report)

    def give_up(self) -> None:
        """See `Lease.give_up`."""
        with self._table.lock:
            row = self._table.rows.get(self._key)
            if row is not None and row.holder == self._holder:
                row.expires_ms = 0
