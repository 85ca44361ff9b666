"""Counting calls of tools from the projection of a log; what is counted is said in `ledger.usage`."""

from __future__ import annotations

from sqlalchemy import Engine, func, select

from ledger.database import translated
from ledger.stores import tables
from ledger.stores.sql_conditions import name_number
from ledger.stores.sql_dictionary import chunks, log_number
from ledger.stores.sql_rows import word_of
from ledger.usage import DAY_MS, UsageTally

__all__ = ["SQLUsage"]

_CALL = "tools/call"


class SQLUsage:
    """`ledger.usage.UsageCatalog` over SQL; safe for any thread."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine

    def usage(self, log_id: str, start: int, end: int) -> list[UsageTally]:
        """See `UsageCatalog.usage`."""
        columns = tables.records.c
        day = (columns.time_ms // DAY_MS).label("day")
        what = (columns.agent, columns.server, columns.tool, day, columns.enforcement, columns.mode)
        query = (
            select(
                *what,
                func.count(),
                func.min(columns.leaf_index),
                func.max(columns.leaf_index),
                func.min(columns.time_ms),
                func.max(columns.time_ms),
            )
            .where(
                columns.log_no == log_number(log_id),
                columns.leaf_index >= start,
                columns.leaf_index < end,
                columns.agent.is_not(None),
                columns.method == name_number(log_id, _CALL),
                columns.tool.is_not(None),
                # Of every decision; but a table that somebody bent must not stop whoever counts.
                columns.server.is_not(None),
                columns.enforcement.is_not(None),
                columns.mode.is_not(None),
            )
            .group_by(*what)
        )
        names: dict[int, str] = {}
        with translated("count calls of tools"), self._engine.connect() as connection:
            rows = connection.execute(query).all()
            wanted = {int(number) for row in rows for number in row[:3]}
            for chunk in chunks(sorted(wanted)):
                of = select(tables.names.c.name_no, tables.names.c.name).where(
                    tables.names.c.log_no == log_number(log_id), tables.names.c.name_no.in_(chunk)
                )
                names.update({int(number): str(name) for number, name in connection.execute(of)})
        return [
            UsageTally(
                agent=names[agent],
                server=names[server],
                tool=names[tool],
                day=int(on),
                enforcement=word_of("enforcement", enforcement),
                mode=word_of("mode", mode),
                calls=int(calls),
                first_index=int(first),
                last_index=int(last),
                first_ms=int(first_ms),
                last_ms=int(last_ms),
            )
            for agent, server, tool, on, enforcement, mode, calls, first, last, first_ms, last_ms in rows
            if {agent, server, tool} <= names.keys()
        ]
