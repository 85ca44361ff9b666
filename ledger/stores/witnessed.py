"""What a witness has cosigned, and what it refused though the log had signed it: whole checkpoints, in SQLite.

A database of its own, apart from any log's: a witness and a log have nothing in common.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Column, Engine, LargeBinary, MetaData, String, Table, insert, select

from ledger.database import NAMING_CONVENTION, BigInt, insert_if_absent, translated, writing

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

_refused = Table(
    "refused",
    _metadata,
    Column("origin", String(255), primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("checkpoint", LargeBinary, nullable=False),
    Column("seen_ms", BigInt, nullable=False),
)


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

    def refuse(self, origin: str, sha256: str, checkpoint: bytes, *, now_ms: int) -> None:
        """See `WitnessedLogs.refuse`."""
        row = {"origin": origin, "sha256": sha256, "checkpoint": checkpoint, "seen_ms": now_ms}
        with translated("keep a refused checkpoint"), writing(self._engine) as connection:
            insert_if_absent(connection, _refused, row)

    def refused(self, origin: str) -> list[bytes]:
        """Return the checkpoints that were refused though the log had signed them, oldest first."""
        columns = _refused.c
        query = select(columns.checkpoint).where(columns.origin == origin).order_by(columns.seen_ms, columns.sha256)
        with translated("read refused checkpoints"), self._engine.connect() as connection:
            return [bytes(checkpoint) for (checkpoint,) in connection.execute(query)]
