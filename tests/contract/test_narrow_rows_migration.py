"""From the tables of version 0.1 to narrow rows and back, with records in them: nothing is lost, moved or changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from ledger.bodies import BundleReference, Decision, Outcome
from ledger.database import open_engine, writing
from ledger.errors import ConflictError
from ledger.projection import project
from ledger.records import Record, encode_record, leaf_hash, record_type
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_catalog import SQLCatalog
from ledger.stores.sql_objects import SQLPayloadStore
from migrations.schema import _config, check_models, require_current, upgrade
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, make_decision, pending

OTHER_LOG = "other"
RECORDS = 23
PENDING_FROM = 10
"""Leaves below were released to the tile store."""
OLD_TABLES = ("logs", "records", "decisions", "decision_rules", "outcomes", "pending_entries", "vault_payloads")


def move(engine: Engine, step: Callable[[Config, str], None]) -> None:
    """Go to the revision of version 0.1, up or down."""
    config = _config()
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        step(config, "0001")


def records_of(log_id: str) -> list[Record]:
    """Return one of each shape: every column said, none said, rules, outcomes, other types, two streams."""
    service, gateway = Enforcer(log_id=log_id), Enforcer(log_id=log_id, enforcer_id="gateway-1", seed=9, epoch="e" * 32)
    records = [service.record(service.introduction())]
    bundle = BundleReference(name="b", revision="1" * 64, engine="cedar", engine_version="4")
    for number in range(RECORDS // 2):
        said = {"bundle": bundle, "trace_id": "a" * 32, "arguments_fingerprint": f"{number:032x}"} if number % 3 else {}
        enforcement = ("allow", "deny", "ask", "kill")[number % 4]
        rules = ("b", "a")[: number % 3]
        body, _ = make_decision(agent=f"bot-{number % 4}", enforcement=enforcement, rules=rules, tool=None, **said)
        decision = gateway.record(body)
        outcome = Outcome(
            decision_id=decision.record_id,
            status=("completed", "failed", "unknown")[number % 3],
            session="5" * 32,
            result_fingerprint=None if number % 2 else "f" * 32,
        )
        records += [decision, gateway.record(outcome)]
    return records


def old_rows(record: Record, index: int) -> dict[str, list[dict[str, object]]]:
    """Return the rows that version 0.1 wrote for a record."""
    key = {"log_id": record.log_id, "leaf_index": index}
    rows: dict[str, list[dict[str, object]]] = {
        "records": [
            {
                **key,
                "record_id": record.record_id,
                "leaf_hash": bytes(leaf_hash(record)),
                "record_type": record_type(record),
                "time_ms": record.time_ms,
                "enforcer_id": record.enforcer_id,
                "epoch": record.epoch,
                "seq": record.seq,
                "received_ms": NOW_MS + index,
            }
        ]
    }
    body = record.body
    if isinstance(body, Decision):
        copied = ("agent", "user", "session", "server", "method", "tool", "decision", "enforcement", "mode", "reason")
        said = {name: getattr(body, name) for name in (*copied, "trace_id", "arguments_fingerprint")}
        revision = body.bundle.revision if body.bundle else None
        rows["decisions"] = [{**key, "time_ms": record.time_ms, "bundle_revision": revision, **said}]
        rows["decision_rules"] = [{**key, "rule": rule} for rule in body.rules]
        rows["vault_payloads"] = [
            {
                "log_id": record.log_id,
                "record_id": record.record_id,
                "field": "message",
                "subject": "6" * 32,
                "ciphertext": b"sealed",
            }
        ]
    if isinstance(body, Outcome):
        copied = ("decision_id", "status", "session", "result_fingerprint")
        rows["outcomes"] = [{**key, "time_ms": record.time_ms, **{name: getattr(body, name) for name in copied}}]
    if index >= PENDING_FROM:
        rows["pending_entries"] = [{**key, "entry": encode_record(record)}]
    return rows


def insert_old(engine: Engine, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    for row in rows:
        columns, marks = ", ".join(f'"{name}"' for name in row), ", ".join(f":{name}" for name in row)
        with writing(engine) as connection:
            connection.execute(text(f"INSERT INTO {table} ({columns}) VALUES ({marks})"), row)


def contents(engine: Engine, table: str) -> list[dict[str, object]]:
    with engine.connect() as connection:
        rows = connection.execute(text(f"SELECT * FROM {table}")).mappings().all()
    plain = [{name: bytes(v) if isinstance(v, memoryview) else v for name, v in row.items()} for row in rows]
    return sorted(plain, key=repr)


@pytest.fixture
def filled(database_url: str) -> Iterator[tuple[Engine, dict[str, list[Record]]]]:
    """Return a database as version 0.1 leaves it, and what is in its logs."""
    engine = open_engine(database_url)
    move(engine, command.upgrade)
    logs = {log_id: records_of(log_id) for log_id in (LOG_ID, OTHER_LOG, "without-records")}
    logs["without-records"] = []
    for log_id, records in logs.items():
        log = {"log_id": log_id, "tenant": "t", "origin": log_id, "environment": "e", "simulated": True}
        insert_old(engine, "logs", [{**log, "created_ms": NOW_MS}])
        for index, record in enumerate(records):
            for table, rows in old_rows(record, index).items():
                insert_old(engine, table, rows)
    yield engine, logs
    engine.dispose()


def test_every_record_index_entry_and_payload_is_there_afterwards(filled):
    engine, logs = filled
    upgrade(engine)
    check_models(engine)
    require_current(engine)
    store, catalog, payloads = SQLLogStore(engine), SQLCatalog(engine), SQLPayloadStore(engine)
    for log_id, records in logs.items():
        assert store.sequenced_size(log_id) == len(records)
        rows = catalog.rows(log_id, 0, len(records) + 1)
        assert rows == {index: project(record, index, leaf_hash(record)) for index, record in enumerate(records)}
        entries = [encode_record(record) for record in records[PENDING_FROM:]]
        assert store.read_sequenced(log_id, PENDING_FROM, max(PENDING_FROM, len(records))) == entries
        for index, record in enumerate(records):
            assert catalog.index_of(log_id, record.record_id) == index
            if isinstance(record.body, Decision):
                assert payloads.payload(log_id, record.record_id, "message").ciphertext == b"sealed"


def test_the_time_of_receipt_is_kept(filled):
    engine, logs = filled
    upgrade(engine)
    with engine.connect() as connection:
        for number, log_id in enumerate(sorted(logs), 1):
            query = text(f"SELECT received_ms FROM records WHERE log_no = {number} ORDER BY leaf_index")
            found = list(connection.scalars(query))
            assert found == [NOW_MS + index for index in range(len(logs[log_id]))]


def test_a_record_of_before_is_acknowledged_with_its_index_and_the_log_goes_on_behind_it(filled):
    engine, logs = filled
    upgrade(engine)
    store, records = SQLLogStore(engine), logs[LOG_ID]
    (again,) = store.sequence(LOG_ID, [[pending(record) for record in records]], received_ms=NOW_MS)
    assert [(done.index, done.duplicate) for done in again] == [(index, True) for index in range(len(records))]
    taken = Enforcer(enforcer_id="gateway-1", seed=9, epoch="e" * 32)
    (conflict,) = store.sequence(LOG_ID, [[pending(taken.record(taken.heartbeat()))]], received_ms=NOW_MS)
    assert isinstance(conflict, ConflictError)
    fresh = Enforcer(enforcer_id="gateway-2")
    (given,) = store.sequence(LOG_ID, [[pending(fresh.record(make_decision()[0]))]], received_ms=NOW_MS)
    assert [done.index for done in given] == [len(records)]
    assert store.sequenced_size(OTHER_LOG) == len(logs[OTHER_LOG])


def test_going_back_gives_the_tables_of_before_row_for_row(filled):
    engine, _ = filled
    before = {table: contents(engine, table) for table in OLD_TABLES}
    indexes = {table: {index["name"] for index in inspect(engine).get_indexes(table)} for table in OLD_TABLES}
    upgrade(engine)
    move(engine, command.downgrade)
    assert {table: contents(engine, table) for table in OLD_TABLES} == before
    assert {table: {index["name"] for index in inspect(engine).get_indexes(table)} for table in OLD_TABLES} == indexes
    upgrade(engine)
    check_models(engine)


def test_what_was_written_after_the_way_up_is_there_after_the_way_back(filled):
    engine, logs = filled
    upgrade(engine)
    fresh = Enforcer(enforcer_id="gateway-2", time_ms=NOW_MS + 99)
    record = fresh.record(make_decision(agent="new-bot", rules=("new-rule",))[0])
    SQLLogStore(engine).sequence(LOG_ID, [[pending(record)]], received_ms=NOW_MS)
    move(engine, command.downgrade)
    index = len(logs[LOG_ID])
    expected = old_rows(record, index)
    expected["records"][0]["received_ms"] = NOW_MS
    for table in ("records", "decisions", "decision_rules", "pending_entries"):
        found = [row for row in contents(engine, table) if (row["log_id"], row["leaf_index"]) == (LOG_ID, index)]
        assert found == expected[table]


@pytest.mark.parametrize("table", ["records", "decisions", "decision_rules", "outcomes"])
def test_after_the_way_back_rows_are_still_never_changed(filled, table):
    engine, _ = filled
    upgrade(engine)
    move(engine, command.downgrade)
    for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET leaf_index = leaf_index"):
        with pytest.raises(DBAPIError, match="are never changed"), writing(engine) as connection:
            connection.execute(text(statement))
