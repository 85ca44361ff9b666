"""Record ids seen by an audit, on disk: no id may stand twice, and a log has more of them than fit into memory.

An SQLite file of its own, about 30 bytes a record; what it takes of memory is bounded by its page cache. It is a note
of the audit's, not part of the log: whoever loses it reads the log anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ledger.errors import StorageError

__all__ = ["RecordIds"]

_CACHE_KIB: Final = 32 * 1024
_IN_MEMORY_OR_TEMPORARY: Final = ""
"""SQLite's name for a private database that goes to a temporary file when it outgrows the cache."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"the audit's list of record ids cannot be used ({type(error).__name__})") from error


class RecordIds:
    """Record ids and their leaves. One thread owns it; close it."""

    def __init__(self, path: Path | None = None) -> None:
        """Open a list.

        Args:
            path: Its file; None for one that nobody finds again.

        Raises:
            StorageError: It cannot be opened.
        """
        with _translated():
            self._connection = sqlite3.connect(_IN_MEMORY_OR_TEMPORARY if path is None else path, isolation_level=None)
            self._connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS ids (id BLOB PRIMARY KEY, leaf INTEGER NOT NULL) WITHOUT ROWID"
            )

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def add(self, record_ids: Sequence[tuple[str, int]]) -> list[tuple[int, int]]:
        """Take in record ids with their leaves, in order; durable enough to outlive this process.

        Returns:
            Leaf and first leaf of each id that stands at another leaf already.

        Raises:
            StorageError: The file failed.
        """
        rows = [(bytes.fromhex(record_id.replace("-", "")), leaf) for record_id, leaf in record_ids]
        twice = []
        with _translated():
            cursor = self._connection.cursor()
            cursor.execute("BEGIN")
            cursor.executemany("INSERT OR IGNORE INTO ids VALUES (?, ?)", rows)
            if cursor.rowcount != len(rows):
                for record_id, leaf in rows:
                    (first,) = cursor.execute("SELECT leaf FROM ids WHERE id = ?", (record_id,)).fetchone()
                    if first != leaf:
                        twice.append((leaf, int(first)))
            cursor.execute("COMMIT")
        return twice

    def count_below(self, leaf: int) -> int:
        """Return how many ids are known of leaves below one.

        Raises:
            StorageError: The file failed.
        """
        with _translated():
            (count,) = self._connection.execute("SELECT count(*) FROM ids WHERE leaf < ?", (leaf,)).fetchone()
        return int(count)

    def forget_from(self, leaf: int) -> None:
        """Forget the ids of a leaf and all behind it.

        Raises:
            StorageError: The file failed.
        """
        with _translated():
            self._connection.execute("DELETE FROM ids WHERE leaf >= ?", (leaf,))
