"""The numbers of a log's names and streams: given once, in a transaction of their own, and then for ever.

A number is committed before any row uses it. A row that is not written after all leaves a name that nothing uses,
which does no harm; a number that was given in the same transaction could be known to this process and lost to the log.

What is remembered was committed. It is bounded: an enforcer may use a new name in each record.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

from sqlalchemy import BindParameter, Connection, Engine, ScalarSelect, func, select

from ledger.database import insert_rows, translated, writing
from ledger.stores import tables
from ledger.stores.sql_locks import lock_log
from ledger.stores.sql_rows import Numbers

__all__ = ["LOOKUP_CHUNK", "Dictionary", "chunks", "learned_numbers", "log_number"]

LOOKUP_CHUNK: Final = 400
"""Values in one IN list; SQLite accepts 999 variables at least."""

_MAX_REMEMBERED: Final = 50_000

_T = TypeVar("_T")


def chunks(items: Iterable[_T], size: int = LOOKUP_CHUNK) -> Iterator[list[_T]]:
    """Yield items in lists of at most ``size``."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def log_number(log_id: str | BindParameter[str]) -> ScalarSelect[int]:
    """Return the number of a log, for a condition: NULL, which nothing equals, if there is none."""
    return select(tables.logs.c.log_no).where(tables.logs.c.log_id == log_id).scalar_subquery()


class Dictionary:
    """Numbers by log; safe for any thread, and on PostgreSQL for any number of processes."""

    def __init__(self, engine: Engine, *, max_remembered: int = _MAX_REMEMBERED) -> None:
        """Use a database whose schema is up to date."""
        self._engine = engine
        self._max_remembered = max_remembered
        self._known: dict[str, Numbers] = {}
        self._lock = threading.Lock()

    def numbers(self, log_id: str, names: Collection[str], streams: Collection[tuple[str, str]]) -> Numbers:
        """Return numbers that cover names and streams; what had none has one from now on.

        Raises:
            NotFoundError: No such log.
            StorageError: The database failed.
        """
        known = self._known.get(log_id)
        if known is not None and known.names.keys() >= set(names) and known.streams.keys() >= set(streams):
            return known
        with self._lock:
            return self._learn(log_id, names, streams)

    def _learn(self, log_id: str, names: Collection[str], streams: Collection[tuple[str, str]]) -> Numbers:
        known = self._known.get(log_id)
        if known is not None and len(known.names) + len(known.streams) > self._max_remembered:
            known = None
        with translated("number names"), writing(self._engine) as connection:
            log_no = lock_log(connection, log_id)
            found = known or Numbers(log_no)
            fresh_names = _names(connection, log_no, [name for name in names if name not in found.names])
            fresh_streams = _streams(connection, log_no, [stream for stream in streams if stream not in found.streams])
        found.names.update(fresh_names)
        found.streams.update(fresh_streams)
        self._known[log_id] = found
        return found


def learned_numbers(
    connection: Connection, log_id: str, names: Collection[str], streams: Collection[tuple[str, str]]
) -> Numbers:
    """Return numbers that cover names and streams, in the caller's transaction and under the log's lock.

    Raises:
        NotFoundError: No such log.
    """
    numbers = Numbers(lock_log(connection, log_id))
    numbers.names.update(_names(connection, numbers.log_no, list(names)))
    numbers.streams.update(_streams(connection, numbers.log_no, list(streams)))
    return numbers


def _names(connection: Connection, log_no: int, wanted: Sequence[str]) -> dict[str, int]:
    columns = tables.names.c
    found: dict[str, int] = {}
    for chunk in chunks(wanted):
        query = select(columns.name, columns.name_no).where(columns.log_no == log_no, columns.name.in_(chunk))
        found.update({name: int(number) for name, number in connection.execute(query)})
    missing = sorted(set(wanted) - found.keys())
    if missing:
        last = connection.scalar(select(func.max(columns.name_no)).where(columns.log_no == log_no)) or 0
        fresh = {name: last + place for place, name in enumerate(missing, 1)}
        insert_rows(connection, tables.names, [(log_no, number, name) for name, number in fresh.items()])
        found |= fresh
    return found


def _streams(connection: Connection, log_no: int, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    columns = tables.streams.c
    found: dict[tuple[str, str], int] = {}
    for enforcer_id, epoch in wanted:
        query = select(columns.stream_no).where(
            columns.log_no == log_no, columns.enforcer_id == enforcer_id, columns.epoch == bytes.fromhex(epoch)
        )
        number = connection.scalar(query)
        if number is not None:
            found[enforcer_id, epoch] = int(number)
    missing = sorted(set(wanted) - found.keys())
    if missing:
        last = connection.scalar(select(func.max(columns.stream_no)).where(columns.log_no == log_no)) or 0
        fresh = {stream: last + place for place, stream in enumerate(missing, 1)}
        rows = [(log_no, number, stream[0], bytes.fromhex(stream[1])) for stream, number in fresh.items()]
        insert_rows(connection, tables.streams, rows)
        found |= fresh
    return found
