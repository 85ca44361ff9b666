"""What a witness has cosigned, and what it refused though the log had signed it: whole checkpoints, in SQLite.

A database of its own, apart from any log's: a witness and a log have nothing in common.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Column, Engine, LargeBinary, MetaData, String, Table, func, insert, select

from ledger.database import NAMING_CONVENTION, BigInt, insert_if_absent, translated, writing
from ledger.ports import Refusal

__all__ = ["SQLWitnessedLogs"]

_metadata = MetaData(naming_convention=NAMING_CONVENTION)

_cosigned = Table(
    "cosigned",
    _metadata,
    Column("origin", String(255), primary_key=True),
    Column("size", BigInt, primary_key=True, autoincrement=False),
    Column("checkpoint", LargeBinary, nullable=False),
    Column("cosigned_ms", BigInt, nullable=False),
)

_MOST_REFUSED: Final = 256
"""Of one log and kind. One contradiction is proof enough; the others may say when it began, and how."""


def _table_of_refused(name: str) -> Table:
    return Table(
        name,
        _metadata,
        Column("origin", String(255), primary_key=True),
        Column("sha256", String(64), primary_key=True),
        Column("checkpoint", LargeBinary, nullable=False),
        Column("seen_ms", BigInt, nullable=False),
    )


_refused: Final = {
    Refusal.CONTRADICTS: _table_of_refused("refused"),
    Refusal.UNPROVED: _table_of_refused("unproved"),
}


class SQLWitnessedLogs:
    """`ledger.ports.WitnessedLogs` over SQL."""

    def __init__(self, engine: Engine) -> None:
        """Use a database; its tables are made if they are not there.

        Raises:
            StorageError: The database failed.
        """
        self._engine = engine
        with translated("make the witness's tables"), writing(engine) as connection:
            _metadata.create_all(connection)

    def advance(self, origin: str, decide: Callable[[bytes | None], tuple[int, bytes]], *, now_ms: int) -> None:
        """See `WitnessedLogs.advance`."""
        columns = _cosigned.c
        newest = select(columns.size, columns.checkpoint).where(columns.origin == origin)
        # INVARIANT: between reading what was cosigned last and keeping what is cosigned now, nobody else decides: the
        # transaction holds the database's write lock from its beginning.
        with translated("keep a cosigned checkpoint"), writing(self._engine) as connection:
            row = connection.execute(newest.order_by(columns.size.desc()).limit(1)).one_or_none()
            size, checkpoint = decide(None if row is None else bytes(row.checkpoint))
            if row is None or size > row.size:
                new = {"origin": origin, "size": size, "checkpoint": checkpoint, "cosigned_ms": now_ms}
                connection.execute(insert(_cosigned), new)

    def refuse(self, origin: str, sha256: str, checkpoint: bytes, *, refusal: Refusal, now_ms: int) -> None:
        """See `WitnessedLogs.refuse`."""
        table = _refused[refusal]
        row = {"origin": origin, "sha256": sha256, "checkpoint": checkpoint, "seen_ms": now_ms}
        kept = select(func.count()).select_from(table).where(table.c.origin == origin)
        with translated("keep a refused checkpoint"), writing(self._engine) as connection:
            if connection.execute(kept).scalar_one() < _MOST_REFUSED:
                insert_if_absent(connection, table, row)

    def refused(self, origin: str, refusal: Refusal) -> list[bytes]:
        """Return the checkpoints that were refused though the log had signed them, oldest first."""
        columns = _refused[refusal].c
        query = select(columns.checkpoint).where(columns.origin == origin).order_by(columns.seen_ms, columns.sha256)
        with translated("read refused checkpoints"), self._engine.connect() as connection:
            return [bytes(checkpoint) for (checkpoint,) in connection.execute(query)]
