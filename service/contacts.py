"""When the service last heard of each enforcer: every request that its token opens is a sign of life.

A heartbeat in the log says how a gateway was; that it lives still, its questions for the bundle say, twice as often,
and no record is made of them (ADR 0032). What was heard is kept in memory and written to the database every few
seconds, once for all, so that no request waits for it and every process of the service knows. It is no evidence: what
is lost with a process, the gateways' next questions say again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from sqlalchemy import Engine, select, update

from ledger.clock import Clock
from ledger.database import insert_if_absent, translated, writing
from ledger.tasks import Repeating
from service import tables

__all__ = ["Contacts"]

_WRITE_SECONDS: Final = 10.0


class Contacts:
    """The contacts of one log. `heard` belongs to the event loop, the rest may be called from any thread."""

    def __init__(self, engine: Engine, log_id: str, clock: Clock) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine
        self._log_id = log_id
        self._clock = clock
        self._heard: dict[str, int] = {}
        self._written: dict[str, int] = {}
        self.work = Repeating("contacts", self._turn, first_seconds=_WRITE_SECONDS, retry_seconds=_WRITE_SECONDS)

    def heard(self, enforcer_id: str) -> None:
        """Note that an enforcer has proved who it is, just now."""
        self._heard[enforcer_id] = self._clock.now_ms()

    async def stop(self) -> None:
        """Write what is not written yet, and write no more.

        Raises:
            StorageError: The database failed.
        """
        await self.work.stop()
        await asyncio.to_thread(self.write)

    async def _turn(self) -> float:
        await asyncio.to_thread(self.write)
        return _WRITE_SECONDS

    def write(self) -> None:
        """Write what was heard since it was last written, in one transaction.

        Raises:
            StorageError: The database failed; it is written with the next turn.
        """
        new = {one: at_ms for one, at_ms in tuple(self._heard.items()) if self._written.get(one) != at_ms}
        if not new:
            return
        columns = tables.enforcer_contacts.c
        with translated("note contacts"), writing(self._engine) as connection:
            for enforcer_id, heard_ms in sorted(new.items()):  # in one order, so that two processes do not block
                row = {"log_id": self._log_id, "enforcer_id": enforcer_id, "heard_ms": heard_ms}
                if not insert_if_absent(connection, tables.enforcer_contacts, row):
                    # Another process may have heard of it later.
                    later = update(tables.enforcer_contacts).where(
                        columns.log_id == self._log_id, columns.enforcer_id == enforcer_id, columns.heard_ms < heard_ms
                    )
                    connection.execute(later.values(heard_ms=heard_ms))
        self._written.update(new)

    def all(self) -> Mapping[str, int]:
        """Return when each enforcer was last heard of, by any process, in POSIX milliseconds.

        Raises:
            StorageError: The database failed.
        """
        columns = tables.enforcer_contacts.c
        query = select(columns.enforcer_id, columns.heard_ms).where(columns.log_id == self._log_id)
        with translated("read contacts"), self._engine.connect() as connection:
            found = {str(enforcer_id): int(heard_ms) for enforcer_id, heard_ms in connection.execute(query)}
        for enforcer_id, heard_ms in tuple(self._heard.items()):
            found[enforcer_id] = max(heard_ms, found.get(enforcer_id, heard_ms))
        return found
