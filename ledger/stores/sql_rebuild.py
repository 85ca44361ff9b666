"""The searchable tables as a rebuild writes them: `ledger.rebuild.ProjectionRebuild` over SQL.

The triggers that refuse every change of a row are off for the one transaction in which rows are written anew, and on
again when it ends, whatever becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final

from sqlalchemy import Connection, Engine, Table, delete, insert, select, text

from ledger.database import insert_rows, translated, writing
from ledger.ports import PendingEntry
from ledger.projection import PROJECTED_TABLES, project
from ledger.stores import tables
from ledger.stores.sql_dictionary import learned_numbers
from ledger.stores.sql_locks import lock_log
from ledger.stores.sql_rows import content_cells, names_of, record_cells, stream_of
from ledger.tiles import TILE_WIDTH

__all__ = ["SQLProjectionRebuild"]

_TOGETHER: Final = 500


class SQLProjectionRebuild:
    """`ledger.rebuild.ProjectionRebuild` over SQL."""

    def __init__(self, engine: Engine) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine

    def rewrite(
        self,
        log_id: str,
        leaves: Sequence[range],
        entries: Callable[[], Iterator[tuple[int, PendingEntry]]],
        *,
        forward: tuple[int, bytes] | None,
        now_ms: int,
    ) -> None:
        """See `ProjectionRebuild.rewrite`."""
        with translated("rebuild the searchable tables"), writing(self._engine) as connection:
            log_no = lock_log(connection, log_id)
            held_from = None if forward is None else forward[0] // TILE_WIDTH * TILE_WIDTH
            with _triggers_off(connection):
                received = _remove(connection, log_no, leaves)
                for group in _groups(entries()):
                    _insert(connection, log_id, group, received, now_ms)
                    if held_from is not None:
                        _hold(connection, log_no, [one for one in group if one[0] >= held_from])
            if forward is not None:
                size, checkpoint = forward
                row = {"log_id": log_id, "size": size, "checkpoint": checkpoint, "published_ms": now_ms}
                connection.execute(insert(tables.checkpoints), row)


@contextmanager
def _triggers_off(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "postgresql":
        for name in PROJECTED_TABLES:
            connection.exec_driver_sql(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        yield
        for name in PROJECTED_TABLES:
            connection.exec_driver_sql(f"ALTER TABLE {name} ENABLE TRIGGER USER")
        return
    # SQLite cannot turn a trigger off; definitions are part of the transaction there, too.
    query = text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :name")
    found = [row for name in PROJECTED_TABLES for row in connection.execute(query, {"name": name}).all()]
    for trigger, _ in found:
        connection.exec_driver_sql(f'DROP TRIGGER "{trigger}"')
    yield
    for _, definition in found:
        connection.exec_driver_sql(definition)


def _projected() -> list[Table]:
    return [tables.metadata.tables[name] for name in PROJECTED_TABLES]


def _remove(connection: Connection, log_no: int, leaves: Sequence[range]) -> dict[int, int]:
    """Remove the rows of leaves, all of them before any is written anew; return when each was received."""
    received: dict[int, int] = {}
    records = tables.records.c
    for part in leaves:
        between = (records.log_no == log_no, records.leaf_index >= part.start, records.leaf_index < part.stop)
        for leaf, received_ms in connection.execute(select(records.leaf_index, records.received_ms).where(*between)):
            # SQLite keeps whatever it is given: what is no time is not kept.
            if isinstance(received_ms, int):
                received[int(leaf)] = received_ms
        for table in _projected():
            columns = table.c
            connection.execute(
                delete(table).where(
                    columns.log_no == log_no, columns.leaf_index >= part.start, columns.leaf_index < part.stop
                )
            )
    return received


def _groups(entries: Iterable[tuple[int, PendingEntry]]) -> Iterator[list[tuple[int, PendingEntry]]]:
    iterator = iter(entries)
    while group := list(islice(iterator, _TOGETHER)):
        yield group


def _insert(
    connection: Connection,
    log_id: str,
    group: Sequence[tuple[int, PendingEntry]],
    received: dict[int, int],
    now_ms: int,
) -> None:
    projected = [(leaf, project(entry.record, leaf, entry.leaf)) for leaf, entry in group]
    names = {name for _, rows in projected for name in names_of(rows)}
    streams = {stream_of(row) for _, rows in projected for row in rows["records"]}
    numbers = learned_numbers(connection, log_id, names, streams)
    records = [
        (leaf, *record_cells(row, numbers, received.get(leaf, now_ms)))
        for leaf, rows in projected
        for row in rows["records"]
    ]
    rules = [
        (leaf, numbers.log_no, numbers.names[rule["rule"]])
        for leaf, rows in projected
        for rule in rows["decision_rules"]
    ]
    contents = [
        (leaf, *content_cells(content, numbers.log_no)) for leaf, rows in projected for content in rows["contents"]
    ]
    insert_rows(connection, tables.records, records)
    if rules:
        insert_rows(connection, tables.decision_rules, rules)
    if contents:
        insert_rows(connection, tables.contents, contents)


def _hold(connection: Connection, log_no: int, group: Sequence[tuple[int, PendingEntry]]) -> None:
    """Hold entries for the bundle that they will be part of, where they are not held yet."""
    if not group:
        return
    columns = tables.pending_entries.c
    query = select(columns.leaf_index).where(
        columns.log_no == log_no, columns.leaf_index >= group[0][0], columns.leaf_index <= group[-1][0]
    )
    held = {int(leaf) for (leaf,) in connection.execute(query)}
    missing = [(leaf, log_no, entry.entry) for leaf, entry in group if leaf not in held]
    if missing:
        insert_rows(connection, tables.pending_entries, missing)
