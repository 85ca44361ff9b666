"""What behaviour windows change in the state file, each as one change of a transaction that others share."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final, Literal

from enforcement.state import StateDatabase
from ledger.errors import StorageError
from policies.job_profiles import Step
from policies.window_tallies import Share

__all__ = ["AddShares", "Forget", "PutElsewhere", "Walk", "stored_shares"]

_WALK: Final = """
INSERT INTO trails VALUES (?, ?, ?) ON CONFLICT (session) DO UPDATE SET ordinal = excluded.ordinal, tool = excluded.tool
WHERE excluded.ordinal >= trails.ordinal
"""
_AT: Final = "WHERE digest = ? AND subject = ? AND slot = ?"


@dataclass(frozen=True, slots=True)
class AddShares:
    """Add what calls add, or take back what they do not."""

    shares: tuple[Share, ...]

    def apply(self, connection: sqlite3.Connection) -> None:
        """See `enforcement.state.Change`."""
        for share in self.shares:
            place = (share.digest, share.subject, share.slot)
            found = connection.execute(f"SELECT total FROM windows {_AT}", place).fetchone()  # noqa: S608  # ours
            # As text: a total may be beyond the 64 bits of SQLite's integers.
            total = share.amount + (0 if found is None else int(found[0]))
            if total:
                row = (*place, str(total), share.forget_ms)
                connection.execute("INSERT OR REPLACE INTO windows VALUES (?, ?, ?, ?, ?)", row)
            else:
                connection.execute(f"DELETE FROM windows {_AT}", place)  # noqa: S608  # ours


@dataclass(frozen=True, slots=True)
class Walk:
    """Keep the last tool of a session."""

    step: Step

    def apply(self, connection: sqlite3.Connection) -> None:
        """See `enforcement.state.Change`."""
        connection.execute(_WALK, (self.step.session, self.step.ordinal, self.step.tool))


@dataclass(frozen=True, slots=True)
class Forget:
    """Forget what no window asks for any more, and the sessions that are over, by their keys."""

    now_ms: int
    sessions: tuple[str, ...]

    def apply(self, connection: sqlite3.Connection) -> None:
        """See `enforcement.state.Change`."""
        connection.execute("DELETE FROM windows WHERE forget_ms <= ?", (self.now_ms,))
        connection.execute("DELETE FROM fleet_totals WHERE forget_ms <= ?", (self.now_ms,))
        connection.executemany(
            "DELETE FROM windows WHERE forget_ms IS NULL AND (subject = ? OR subject GLOB ? || '/*')",
            ((key, key) for key in self.sessions),
        )
        connection.executemany("DELETE FROM trails WHERE session = ?", ((key,) for key in self.sessions))


@dataclass(frozen=True, slots=True)
class PutElsewhere:
    """Keep what other gateways have counted, in place of what was kept of the same slots."""

    shares: tuple[Share, ...]

    def apply(self, connection: sqlite3.Connection) -> None:
        """See `enforcement.state.Change`."""
        rows = [(one.digest, one.subject, one.slot, str(one.amount), one.forget_ms) for one in self.shares]
        connection.executemany("INSERT OR REPLACE INTO fleet_totals VALUES (?, ?, ?, ?, ?)", rows)


def stored_shares(state: StateDatabase, table: Literal["windows", "fleet_totals"]) -> list[Share]:
    """Return what was counted before a restart.

    Raises:
        StorageError: The file failed, or what it holds is no count.
    """
    rows = state.read(f"SELECT digest, subject, slot, total, forget_ms FROM {table}")  # noqa: S608  # names of ours
    try:
        return [Share(digest, subject, slot, int(total), forget_ms) for digest, subject, slot, total, forget_ms in rows]
    except ValueError as error:
        raise StorageError("the state file holds a total of a window that is no number") from error
