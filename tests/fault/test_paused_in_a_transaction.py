"""A process that is paused while its transaction holds the log's lock: the others wait for a while, not for ever."""

from __future__ import annotations

import time

import pytest

from ledger.database import open_engine, translated, writing
from ledger.errors import StorageError
from ledger.stores.sql import SQLLogStore
from migrations.schema import upgrade
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, pending
from tests.support.postgres import PostgresCluster

PAUSED_MS = 400


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
