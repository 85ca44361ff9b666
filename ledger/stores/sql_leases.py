"""Leases over SQL: one row for each piece of work, whose end is told by the database's clock.

Why a row and not an advisory lock: a lock belongs to a connection, and a process that is paused keeps its connections.
A row ends by itself, whatever its holder does.

Clocks. Only the database's is asked, in the statement that takes the lease, so that the holders' clocks do not matter.
If it is set forward, a lease ends early: two processes work at once, which wastes work and breaks nothing. If it is set
back, a lease seems to end later than any lease can; such a one counts as ended, so that nobody waits for it.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import ColumnElement, Connection, Engine, Integer, and_, case, cast, func, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ledger.database import BigInt, translated, writing
from ledger.errors import ConfigError
from ledger.ports import LeaseState
from ledger.stores import tables

__all__ = ["SQLLease"]

_UNIX_EPOCH_JULIAN_DAY: Final = 2_440_587.5
_MS_PER_DAY: Final = 86_400_000


def _now_ms(dialect: str) -> ColumnElement[int]:
    """Return the database's time of day, as it is when the row is looked at and not when the transaction began."""
    if dialect == "postgresql":
        return cast(func.extract("epoch", func.clock_timestamp()) * 1000, BigInt)
    return cast((func.julianday("now") - _UNIX_EPOCH_JULIAN_DAY) * _MS_PER_DAY, Integer)


class SQLLease:
    """`ledger.ports.Lease` as a row of `leases`; safe for any thread."""

    def __init__(self, engine: Engine, log_id: str, name: str, *, holder: str, seconds: float) -> None:
        """Ask for one piece of work on behalf of one holder.

        Args:
            engine: A database whose schema is up to date.
            log_id: Which log.
            name: Which work.
            holder: Whose lease it is to be; unique to a process and its life.
            seconds: How long it is held, if it is not taken again.

        Raises:
            ConfigError: A lease that has ended when it begins.
        """
        if seconds <= 0:
            raise ConfigError("a lease lasts longer than no time")
        self._engine = engine
        self._log_id = log_id
        self._name = name
        self._holder = holder
        self._duration_ms = int(seconds * 1000)

    def _mine(self) -> ColumnElement[bool]:
        columns = tables.leases.c
        return and_(columns.log_id == self._log_id, columns.name == self._name)

    def _live(self, now_ms: ColumnElement[int]) -> ColumnElement[bool]:
        expires_ms = tables.leases.c.expires_ms
        return and_(expires_ms > now_ms, expires_ms <= now_ms + self._duration_ms)

    def take(self, report: str | None = None) -> bool:
        """See `Lease.take`."""
        columns = tables.leases.c
        with translated("take a lease"), writing(self._engine) as connection:
            return connection.execute(self._taking(connection, report).returning(columns.holder)).first() is not None

    def _taking(self, connection: Connection, report: str | None) -> postgresql.Insert | sqlite.Insert:
        """Return the one statement that takes the lease if it is free or ours, and else changes no row."""
        columns = tables.leases.c
        now_ms = _now_ms(connection.dialect.name)
        row = {
            "log_id": self._log_id,
            "name": self._name,
            "holder": self._holder,
            "expires_ms": now_ms + self._duration_ms,
            "report": report or "",
        }
        changes = {name: row[name] for name in ("holder", "expires_ms")}
        if report is not None:
            changes["report"] = report
        free = or_(columns.holder == self._holder, ~self._live(now_ms))
        key = [columns.log_id, columns.name]
        if connection.dialect.name == "postgresql":
            insertion = postgresql.insert(tables.leases).values(row)
            return insertion.on_conflict_do_update(index_elements=key, set_=changes, where=free)
        return (
            sqlite.insert(tables.leases).values(row).on_conflict_do_update(index_elements=key, set_=changes, where=free)
        )

    def look(self) -> LeaseState:
        """See `Lease.look`."""
        columns = tables.leases.c
        with translated("look at a lease"), self._engine.connect() as connection:
            live = case((self._live(_now_ms(connection.dialect.name)), literal(1)), else_=literal(0))
            row = connection.execute(select(live, columns.report).where(self._mine())).one_or_none()
        return LeaseState(live=False, report="") if row is None else LeaseState(live=bool(row[0]), report=row[1])

    def give_up(self) -> None:
        """See `Lease.give_up`."""
        columns = tables.leases.c
        statement = update(tables.leases).where(self._mine(), columns.holder == self._holder).values(expires_ms=0)
        with translated("give a lease up"), writing(self._engine) as connection:
            connection.execute(statement)
