"""The queue of the state file as a chain: where its ends are, what is whole at its front, what is wrong there.

`enforcement.chaining` makes links and marks; this says which rows and which names of ``meta`` they are kept in. What is
done about what is wrong is decided in `enforcement.spool`.

INVARIANT: the queue is read in the order of the numbers, which are inside the links. Positions, which are not, decide
nothing: rows that were moved about in the file come out as they were put in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from enforcement.chaining import GENESIS, Chain, Link, Mark, Row
from enforcement.state import StateDatabase
from ledger.bodies import Decision
from ledger.errors import MalformedError, StorageError
from ledger.records import Record, decode_entry

__all__ = ["ChainedQueue", "before", "meta_of", "set_meta"]

_COLUMNS: Final = "position, record_id, epoch, seq, counted, previous, link, entry, openings"
_ALTERED: Final = "the chain of the spool was altered"


class ChainedQueue:
    """Reads and extends the chain. Like the spool, called from one thread at a time."""

    def __init__(self, state: StateDatabase, spool_key: bytes) -> None:
        """Take the state file and the spool key, 32 bytes."""
        self._state = state
        self._chain = Chain(spool_key)

    # --- its ends

    def begin(self, connection: sqlite3.Connection, epoch: str) -> None:
        """Begin the chain of an epoch."""
        start = Mark(epoch, 0, 0, GENESIS)
        self._set_head(connection, start)
        self.advance(connection, start)

    def ends(self, meta: Mapping[str, Any]) -> tuple[Mark, Mark]:
        """Return the mark of what has left the queue, and that of what came into it.

        Raises:
            StorageError: A mark is none of ours, or says something else than the rest of the file.
        """
        tail, head = self._chain.open("tail", meta.get("chain_tail")), self._chain.open("head", meta.get("chain_head"))
        if tail is None or head is None:
            raise StorageError(_ALTERED)
        if (head.epoch, head.seq, head.counted) != (meta.get("epoch"), meta.get("seq"), meta.get("running_count")):
            raise StorageError(_ALTERED)
        if tail.epoch != head.epoch or tail.seq > head.seq:
            raise StorageError(_ALTERED)
        return tail, head

    def advance(self, connection: sqlite3.Connection, tail: Mark) -> None:
        """Note that everything up to ``tail`` has left the queue."""
        set_meta(connection, chain_tail=self._chain.seal("tail", tail))

    def _set_head(self, connection: sqlite3.Connection, head: Mark) -> None:
        set_meta(connection, chain_head=self._chain.seal("head", head))

    # --- in

    def insert(self, connection: sqlite3.Connection, head: Mark, record: Record, entry: bytes, sealed: bytes) -> bytes:
        """Add a record after ``head``; return the new mark of the head, sealed: the caller notes it as ``chain_head``.

        Raises:
            sqlite3.IntegrityError: Its id or number is taken.
        """
        content = Link(
            previous=head.link,
            epoch=record.epoch,
            seq=record.seq,
            counted=record.running_count,
            record_id=record.record_id,
            entry=entry,
            sealed=sealed,
        )
        link = self._chain.link(content)
        connection.execute(
            "INSERT INTO queue (record_id, epoch, seq, size, entry, openings, counted, previous, link)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.record_id,
                record.epoch,
                record.seq,
                len(entry) + len(sealed),
                entry,
                sealed,
                record.running_count,
                head.link,
                link,
            ),
        )
        return self._chain.seal("head", Mark(record.epoch, record.seq, record.running_count, link))

    def move(self, connection: sqlite3.Connection, row: Row, after: Mark, record: Record | None, entry: bytes) -> Mark:
        """Put a row behind ``after``, in the epoch of that mark, and return its mark.

        Args:
            connection: Where.
            row: The row.
            after: The last mark of the chain.
            record: What the row holds under its new number; None if it cannot be read or was altered.
            entry: The entry bytes from now on.
        """
        content = Link(
            previous=after.link,
            epoch=after.epoch,
            seq=after.seq + 1,
            counted=after.counted if record is None else record.running_count,
            record_id=row.content.record_id,
            entry=entry,
            sealed=row.content.sealed,
        )
        # A row that was altered stays so: it must not become genuine by being moved.
        link = self._chain.link(content) if self._chain.is_intact(row) else self._chain.void(content)
        connection.execute(
            "UPDATE queue SET position = (SELECT max(position) + 1 FROM queue), epoch = ?, seq = ?,"
            " size = size + ?, entry = ?, counted = ?, previous = ?, link = ? WHERE position = ?",
            (
                content.epoch,
                content.seq,
                len(entry) - len(row.content.entry),
                entry,
                content.counted,
                content.previous,
                link,
                row.position,
            ),
        )
        mark = Mark(content.epoch, content.seq, content.counted, link)
        self._set_head(connection, mark)
        return mark

    def adopt(self, connection: sqlite3.Connection) -> None:
        """Chain what waits in a file of the version before chains, as it stands there."""
        meta = meta_of(connection)
        positions = connection.execute("SELECT position FROM queue ORDER BY position").fetchall()
        mark = Mark(meta["epoch"], meta["seq"], meta["running_count"], GENESIS)
        if positions:
            first = before(self.at(connection, positions[0][0]))
            counted = self._counted_before(connection, positions, meta["running_count"])
            mark = Mark(first.epoch, first.seq, counted, GENESIS)
        self.advance(connection, mark)
        for (position,) in positions:
            row = self._read(connection, "position = ?", (position,))[0]
            record = _record(row.content.entry)
            content = Link(
                previous=mark.link,
                epoch=row.content.epoch,
                seq=row.content.seq,
                counted=mark.counted if record is None else record.running_count,
                record_id=row.content.record_id,
                entry=row.content.entry,
                sealed=row.content.sealed,
            )
            mark = Mark(content.epoch, content.seq, content.counted, self._chain.link(content))
            connection.execute(
                "UPDATE queue SET counted = ?, previous = ?, link = ? WHERE position = ?",
                (content.counted, content.previous, mark.link, position),
            )
        # The last number may belong to a record that was set aside: it is the file that says which was given last.
        self._set_head(connection, Mark(meta["epoch"], meta["seq"], meta["running_count"], mark.link))

    def _counted_before(self, connection: sqlite3.Connection, positions: Sequence[tuple[int]], otherwise: int) -> int:
        """Return how many decisions of the epoch went before what waits, by the first record that can be read."""
        for (position,) in positions:
            record = _record(self.at(connection, position).content.entry)
            if record is not None:
                return record.running_count - isinstance(record.body, Decision)
        return otherwise

    # --- out

    def front(self, epoch: str, *, max_records: int, max_bytes: int) -> list[Row]:
        """Return the next rows of an epoch: at least one if any waits, beyond that no more than the bounds."""
        query = "SELECT seq, size FROM queue WHERE epoch = ? ORDER BY seq LIMIT ?"
        last, total = 0, 0
        for seq, size in self._state.read(query, (epoch, max_records)):
            total += size
            if last and total > max_bytes:
                break
            last = seq
        query = f"SELECT {_COLUMNS} FROM queue WHERE epoch = ? AND seq <= ? ORDER BY seq"  # noqa: S608  # constants
        return [_row(found) for found in self._state.read(query, (epoch, last))]

    def strays(self, epoch: str, *, max_records: int) -> list[Row]:
        """Return rows of other epochs than this one: put back by somebody after they had left the queue."""
        query = f"SELECT {_COLUMNS} FROM queue WHERE epoch <> ? ORDER BY position LIMIT ?"  # noqa: S608  # constants
        return [_row(found) for found in self._state.read(query, (epoch, max_records))]

    def first(self, connection: sqlite3.Connection, epoch: str) -> Row | None:
        """Return the first row of an epoch."""
        found = self._read(connection, "epoch = ? ORDER BY seq LIMIT 1", (epoch,))
        return found[0] if found else None

    def waiting(self, connection: sqlite3.Connection) -> list[int]:
        """Return the positions of everything that waits, in the order of the numbers."""
        return [position for (position,) in connection.execute("SELECT position FROM queue ORDER BY epoch, seq")]

    @staticmethod
    def is_empty(connection: sqlite3.Connection) -> bool:
        """Whether nothing waits, whatever the file says of that."""
        return connection.execute("SELECT 1 FROM queue LIMIT 1").fetchone() is None

    def at(self, connection: sqlite3.Connection, position: int) -> Row:
        """Return the row at a position."""
        return self._read(connection, "position = ?", (position,))[0]

    def is_intact(self, row: Row) -> bool:
        """Whether a row is as it was put in."""
        return self._chain.is_intact(row)

    @staticmethod
    def remove(connection: sqlite3.Connection, positions: Iterable[int]) -> tuple[int, int, Mark | None]:
        """Take rows out of the queue; return how many, their bytes, and the mark of the last of them."""
        count, size, last = 0, 0, None
        query = "DELETE FROM queue WHERE position = ? RETURNING size, epoch, seq, counted, link"
        for position in positions:
            for found, *place in connection.execute(query, (position,)).fetchall():
                count, size, last = count + 1, size + found, Mark(*place)
        return count, size, last

    def _read(self, connection: sqlite3.Connection, where: str, parameters: tuple[object, ...]) -> list[Row]:
        query = f"SELECT {_COLUMNS} FROM queue WHERE {where}"  # noqa: S608  # constants
        return [_row(found) for found in connection.execute(query, parameters).fetchall()]


def before(row: Row) -> Mark:
    """Return the mark of the place before a row, by what the row itself says."""
    content, record = row.content, _record(row.content.entry)
    decided = record is not None and isinstance(record.body, Decision)
    return Mark(content.epoch, content.seq - 1, max(0, content.counted - decided), content.previous)


def meta_of(connection: sqlite3.Connection) -> dict[str, Any]:
    """Return what the file says of itself, by name."""
    return dict(connection.execute("SELECT name, value FROM meta").fetchall())


def set_meta(connection: sqlite3.Connection, **values: object) -> None:
    """Set what the file says of itself."""
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


def _record(entry: bytes) -> Record | None:
    try:
        return decode_entry(entry)
    except MalformedError:  # the file was damaged
        return None


def _row(found: tuple[Any, ...]) -> Row:
    position, record_id, epoch, seq, counted, previous, link, entry, sealed = found
    content = Link(
        previous=previous,
        epoch=epoch,
        seq=seq,
        counted=counted,
        record_id=record_id,
        entry=entry,
        sealed=sealed,
    )
    return Row(position, content, link)
