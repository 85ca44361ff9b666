"""A process that is paused while its transaction holds the log's lock: the others wait for a while, not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ledger.database import insert_rows, open_engine, translated, writing
from ledger.errors import NotFoundError, StorageError
from ledger.stores import tables
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_locks import lock_log
from migrations.schema import upgrade
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, pending
from tests.support.postgres import PostgresCluster

PAUSED_MS = 400
LOCK_WAIT_MS = 1_000


def test_a_transaction_whose_process_is_paused_is_ended_and_takes_nothing_with_it(
    postgres: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_schema()
    other = open_engine(url)
    upgrade(other)
    monkeypatch.setattr("ledger.database._PAUSED_MS", PAUSED_MS)
    paused = open_engine(url)
    store = SQLLogStore(other)
    store.create_log(LOG_ID, tenant="acme", origin="log.example/a", environment="t", simulated=True, created_ms=0)
    writer = Enforcer()
    batch = [pending(writer.record(writer.heartbeat()))]

    def pause() -> None:
        """Hold the lock and say nothing, as far as PostgreSQL can tell; another wants it, and gets it. Then go on."""
        with translated("go on"), writing(paused) as connection:
            connection.exec_driver_sql("SELECT 1 FROM logs FOR UPDATE")
            began = time.monotonic()
            (result,) = store.sequence(LOG_ID, [batch], received_ms=NOW_MS)
            told.append((time.monotonic() - began, result))
            connection.exec_driver_sql("UPDATE logs SET tenant = 'forged'")

    told: list[tuple[float, object]] = []
    try:
        with pytest.raises(StorageError):
            pause()
        # Confirmed to be what it was: the log can only be had with the properties that it was made with.
        store.create_log(LOG_ID, tenant="acme", origin="log.example/a", environment="t", simulated=True, created_ms=0)
    finally:
        paused.dispose()
        other.dispose()
    ((waited, result),) = told
    assert [done.index for done in result] == [0]
    assert PAUSED_MS / 1000 / 2 < waited < 10


class PausedRows(list[tuple[object, ...]]):
    """Rows of which the second comes after something else has happened."""

    def __init__(self, first: tuple[object, ...], second: tuple[object, ...], between: Callable[[], None]) -> None:
        super().__init__([first, second])
        self._between = between

    def __iter__(self) -> Iterator[tuple[object, ...]]:
        yield self[0]
        self._between()
        yield self[1]


def test_a_copy_whose_process_is_paused_is_ended_by_whoever_waits_and_takes_nothing_with_it(
    postgres: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_schema()
    monkeypatch.setattr("ledger.database._PAUSED_MS", PAUSED_MS)
    monkeypatch.setattr("ledger.database._LOCK_WAIT_MS", LOCK_WAIT_MS)
    monkeypatch.setattr("ledger.stores.sql_locks._SILENT_SECONDS", PAUSED_MS / 1000)
    other, paused = open_engine(url), open_engine(url)
    upgrade(other)
    store = SQLLogStore(other)
    store.create_log(LOG_ID, tenant="acme", origin="log.example/a", environment="t", simulated=True, created_ms=0)
    writer = Enforcer()
    batch = [pending(writer.record(writer.heartbeat()))]
    told: list[object] = []

    def others_go_on() -> None:
        with pytest.raises(StorageError):
            store.sequence(LOG_ID, [batch], received_ms=NOW_MS)
        told.extend(store.sequence(LOG_ID, [batch], received_ms=NOW_MS))

    def pause() -> None:
        """Hold the lock and say nothing in the middle of a COPY. Then go on."""
        with translated("go on"), writing(paused) as connection:
            log_no = lock_log(connection, LOG_ID)
            rows = PausedRows((0, log_no, b"one"), (1, log_no, b"other"), others_go_on)
            insert_rows(connection, tables.pending_entries, rows)

    try:
        with pytest.raises(StorageError):
            pause()
        assert store.read_sequenced(LOG_ID, 0, 1) == [batch[0].entry]
        with pytest.raises(NotFoundError):
            store.read_sequenced(LOG_ID, 1, 2)
    finally:
        paused.dispose()
        other.dispose()
    assert [[done.index for done in result] for result in told] == [[0]]


def test_whoever_waits_for_a_lock_ends_nobody_who_works(
    postgres: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_schema()
    monkeypatch.setattr("ledger.database._LOCK_WAIT_MS", PAUSED_MS)
    monkeypatch.setattr("ledger.stores.sql_locks._SILENT_SECONDS", PAUSED_MS / 2000)
    other, busy = open_engine(url), open_engine(url)
    upgrade(other)
    store = SQLLogStore(other)
    store.create_log(LOG_ID, tenant="acme", origin="log.example/a", environment="t", simulated=True, created_ms=0)
    writer = Enforcer()
    batch = [pending(writer.record(writer.heartbeat()))]
    try:
        with ThreadPoolExecutor(1) as threads, writing(busy) as connection:
            lock_log(connection, LOG_ID)
            waiting = threads.submit(store.sequence, LOG_ID, [batch], received_ms=NOW_MS)
            # A statement that takes long in the database, and does not wait for us.
            connection.exec_driver_sql(f"SELECT pg_sleep({3 * PAUSED_MS / 1000})")
            with pytest.raises(StorageError):
                waiting.result(10)
        (result,) = store.sequence(LOG_ID, [batch], received_ms=NOW_MS)
    finally:
        busy.dispose()
        other.dispose()
    assert [done.index for done in result] == [0]
