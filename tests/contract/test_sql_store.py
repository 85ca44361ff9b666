"""The SQL stores on both databases, beyond what every log store promises: creation, several processes, settings."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from ledger.clock import SimulatedClock
from ledger.database import open_engine, writing
from ledger.errors import ConfigError, ConflictError, NotFoundError, StorageError, UnknownBundleError
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_objects import SQLBundleStore, SQLPayloadStore
from ledger.stores.sql_rows import id_text
from migrations.schema import upgrade
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, pending
from tests.support.processes import start_child, wait_for_child

PROPERTIES = {"tenant": "acme", "origin": "log.example/acme", "environment": "test", "simulated": True}
THREADS = 6


def create(store: SQLLogStore, log_id: str = LOG_ID, **changes: object) -> None:
    store.create_log(log_id, created_ms=NOW_MS, **{**PROPERTIES, **changes})


@pytest.fixture
def store(engine: Engine) -> SQLLogStore:
    opened = SQLLogStore(engine)
    create(opened)
    return opened


def append(store: SQLLogStore, *records: object) -> list[int]:
    (result,) = store.sequence(LOG_ID, [[pending(record) for record in records]], received_ms=NOW_MS)
    assert not isinstance(result, ConflictError), result
    return [done.index for done in result]


# --- creating a log --------------------------------------------------------------------------------------------------


def test_creating_a_log_again_confirms_it(store):
    create(store)
    assert store.sequenced_size(LOG_ID) == 0


@pytest.mark.parametrize(
    ("name", "value"), [("tenant", "other"), ("origin", "o"), ("environment", "production"), ("simulated", False)]
)
def test_a_log_that_exists_with_another_property_is_not_taken_over(store, name, value):
    with pytest.raises(ConfigError, match=name):
        create(store, **{name: value})


def test_an_origin_names_one_log(store):
    with pytest.raises(ConfigError, match="origin"):
        create(store, "other")
    with pytest.raises(NotFoundError):
        store.sequenced_size("other")


def test_many_services_that_start_at_once_create_one_log(engine):
    start = threading.Barrier(THREADS)

    def begin(_: int) -> None:
        start.wait()
        create(SQLLogStore(engine))

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(begin, range(THREADS)))
    assert SQLLogStore(engine).sequenced_size(LOG_ID) == 0


def test_many_services_that_start_at_once_migrate_once(database_url):
    start = threading.Barrier(3)

    def begin(_: int) -> None:
        opened = open_engine(database_url)
        try:
            start.wait()
            upgrade(opened)
            create(SQLLogStore(opened))
        finally:
            opened.dispose()

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(begin, range(3)))


# --- several processes -----------------------------------------------------------------------------------------------

PROCESSES = 3
APPENDS = 15


def test_several_processes_append_to_one_log_without_gaps_or_duplicates(database_url, tmp_path):
    engine = open_engine(database_url)
    upgrade(engine)
    create(SQLLogStore(engine))
    engine.dispose()

    def write(number: int) -> None:
        child_engine = open_engine(database_url)
        child, enforcer = SQLLogStore(child_engine), Enforcer(enforcer_id=f"gateway-{number}")
        with (tmp_path / f"given-{number}").open("w") as given:
            for _ in range(APPENDS):
                records = [enforcer.record(enforcer.heartbeat()) for _ in range(2)]
                for index, record in zip(append(child, *records), records, strict=True):
                    given.write(f"{index} {record.record_id}\n")

    children = [start_child(lambda number=number: write(number)) for number in range(PROCESSES)]
    assert [wait_for_child(child) for child in children] == [0] * PROCESSES
    lines = "".join((tmp_path / f"given-{number}").read_text() for number in range(PROCESSES)).splitlines()
    given = sorted((int(line.split()[0]), line.split()[1]) for line in lines)
    assert [index for index, _ in given] == list(range(PROCESSES * APPENDS * 2))
    engine = open_engine(database_url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT leaf_index, record_id FROM records ORDER BY leaf_index"))
        assert [(index, id_text(bytes(record_id))) for index, record_id in rows] == given
    entries = SQLLogStore(engine).read_sequenced(LOG_ID, 0, len(given))
    assert all(record_id.encode() in entry for (_, record_id), entry in zip(given, entries, strict=True))
    engine.dispose()


def test_of_several_processes_that_swap_one_wins_each_time(database_url, tmp_path):
    engine = open_engine(database_url)
    upgrade(engine)
    create(SQLLogStore(engine))
    engine.dispose()
    rounds = 10

    def publish(number: int) -> None:
        child = SQLLogStore(open_engine(database_url))
        with (tmp_path / f"won-{number}").open("w") as won:
            while True:
                present = child.checkpoint(LOG_ID)
                size = 0 if present is None else int(present.split()[0])
                if size == rounds:
                    return
                new = f"{size + 1} by {number}".encode()
                try:
                    child.swap_checkpoint(LOG_ID, expected=present, new=new, size=size + 1, published_ms=NOW_MS)
                except ConflictError:
                    continue
                won.write(new.decode() + "\n")

    children = [start_child(lambda number=number: publish(number)) for number in range(PROCESSES)]
    assert [wait_for_child(child) for child in children] == [0] * PROCESSES
    won = "".join((tmp_path / f"won-{number}").read_text() for number in range(PROCESSES)).splitlines()
    assert sorted(int(line.split()[0]) for line in won) == list(range(1, rounds + 1))
    engine = open_engine(database_url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT checkpoint FROM checkpoints ORDER BY size"))
        published = [bytes(checkpoint).decode() for (checkpoint,) in rows]
    assert published == sorted(won, key=lambda line: int(line.split()[0]))
    engine.dispose()


# --- what a careless server setting must not undo --------------------------------------------------------------------


def test_an_acknowledgement_waits_for_the_disk_where_the_server_says_it_need_not(postgres):
    engine = open_engine(postgres.new_database(synchronous_commit="off"))
    with writing(engine) as connection:
        assert connection.scalar(text("SHOW synchronous_commit")) == "on"
    engine.dispose()


def test_a_stricter_server_setting_is_kept(postgres):
    engine = open_engine(postgres.new_database(synchronous_commit="remote_apply"))
    with writing(engine) as connection:
        assert connection.scalar(text("SHOW synchronous_commit")) == "remote_apply"
    engine.dispose()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_swap_compares_with_what_is_there_and_not_with_an_older_snapshot(postgres, isolation):
    # In these isolation levels a transaction that waits for the lock goes on with what it saw before it waited.
    engine = open_engine(postgres.new_database(default_transaction_isolation=isolation))
    upgrade(engine)
    store = SQLLogStore(engine)
    create(store)
    with writing(engine) as connection:
        connection.execute(text("SELECT log_id FROM logs FOR UPDATE"))
        with ThreadPoolExecutor(2) as threads:
            waiting = [
                threads.submit(
                    store.swap_checkpoint, LOG_ID, expected=None, new=b"%d" % size, size=size, published_ms=NOW_MS
                )
                for size in (1, 2)
            ]
            wait_for_lock_waiters(postgres, engine, 2)
            connection.commit()
            outcomes = [future.exception(30) for future in waiting]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConflictError", "NoneType"]
    engine.dispose()


def wait_for_lock_waiters(postgres, engine: Engine, count: int) -> None:
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        f"WHERE datname = '{engine.url.database}' AND wait_event_type = 'Lock' AND state = 'active'"
    )
    for _ in range(2_000):
        if postgres.execute(query) == [(count,)]:
            return
    raise AssertionError("nobody waits for the lock")


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_records_that_arrive_at_once_are_all_taken_whatever_the_servers_isolation_level(postgres, isolation):
    engine = open_engine(postgres.new_database(default_transaction_isolation=isolation), pool_size=THREADS)
    upgrade(engine)
    store = SQLLogStore(engine)
    create(store)
    start = threading.Barrier(THREADS)

    def write(number: int) -> list[int]:
        enforcer = Enforcer(enforcer_id=f"gateway-{number}")
        start.wait()
        return [append(store, enforcer.record(enforcer.heartbeat()))[0] for _ in range(5)]

    with ThreadPoolExecutor(THREADS) as threads:
        given = sorted(index for indexes in threads.map(write, range(THREADS)) for index in indexes)
    assert given == list(range(THREADS * 5))
    engine.dispose()


def test_sqlite_syncs_every_commit(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    with writing(engine) as connection:
        assert connection.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    engine.dispose()


# --- duplicates and conflicts are found by the indexes ---------------------------------------------------------------


@pytest.fixture
def statements(engine: Engine) -> Iterator[list[str]]:
    """Return what is asked of the database through SQLAlchemy from now on."""
    said: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        said.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield said
    event.remove(engine, "before_cursor_execute", note)


def asked_for(statements: list[str]) -> list[str]:
    return [one for one in statements if "records.leaf_hash" in one or "records.seq" in one]


def test_records_that_are_new_are_not_looked_up(store, statements):
    enforcer = Enforcer()
    append(store, *(enforcer.record(enforcer.heartbeat()) for _ in range(5)))
    assert asked_for(statements) == []


def test_a_duplicate_among_new_records_is_looked_up_and_the_new_ones_are_taken(store, statements):
    enforcer = Enforcer()
    first = enforcer.record(enforcer.heartbeat())
    append(store, first)
    second = enforcer.record(enforcer.heartbeat())
    (done,) = store.sequence(LOG_ID, [[pending(first), pending(second)]], received_ms=NOW_MS)
    assert [(one.index, one.duplicate) for one in done] == [(0, True), (1, False)]
    assert asked_for(statements)
    assert store.sequenced_size(LOG_ID) == 2


def test_of_batches_that_go_together_only_the_one_in_conflict_is_refused(store):
    taken, other = Enforcer(), Enforcer(enforcer_id="gateway-2")
    append(store, taken.record(taken.heartbeat()))
    again = Enforcer()  # a second enforcer with the first one's name and numbers
    batches = [
        [pending(other.record(other.heartbeat()))],
        [pending(again.record(again.heartbeat()))],
        [pending(other.record(other.heartbeat()))],
    ]
    results = store.sequence(LOG_ID, batches, received_ms=NOW_MS)
    assert isinstance(results[1], ConflictError)
    assert [result[0].index for result in (results[0], results[2])] == [1, 2]
    assert store.sequenced_size(LOG_ID) == 3


def test_two_who_send_the_same_records_at_once_get_the_same_indexes(engine, store):
    enforcer = Enforcer()
    batches = [[pending(enforcer.record(enforcer.heartbeat())) for _ in range(3)] for _ in range(20)]
    start = threading.Barrier(2)

    def write(_: int) -> list[list[int]]:
        start.wait()
        mine = SQLLogStore(engine)
        results = [mine.sequence(LOG_ID, [batch], received_ms=NOW_MS)[0] for batch in batches]
        return [[done.index for done in result] for result in results]

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(write, range(2))
    assert first == second
    assert sorted(index for indexes in first for index in indexes) == list(range(60))


def test_an_index_that_refuses_what_the_log_does_not_have_is_a_storage_error(engine, store):
    # Damage: an index of somebody else's making. Looking up explains nothing, and nothing may be acknowledged.
    enforcer = Enforcer()
    append(store, enforcer.record(enforcer.heartbeat()))
    with writing(engine) as connection:
        connection.execute(text("CREATE UNIQUE INDEX broken ON pending_entries (log_no)"))
    with pytest.raises(StorageError):
        append(store, enforcer.record(enforcer.heartbeat()))
    assert store.sequenced_size(LOG_ID) == 1


# --- checkpoints by size ---------------------------------------------------------------------------------------------


def test_the_smallest_checkpoint_that_covers_a_size_is_found(store):
    present = None
    for size in (3, 7, 12):
        new = b"%d" % size
        store.swap_checkpoint(LOG_ID, expected=present, new=new, size=size, published_ms=NOW_MS)
        present = new
    assert [store.checkpoint_at(LOG_ID, size) for size in (0, 3, 4, 7, 12)] == [b"3", b"3", b"7", b"7", b"12"]
    for log_id, size in ((LOG_ID, 13), ("other", 0)):
        with pytest.raises(NotFoundError):
            store.checkpoint_at(log_id, size)


# --- bundles ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundles(store, engine) -> SQLBundleStore:
    assert store.checkpoint(LOG_ID) is None
    return SQLBundleStore(engine, SimulatedClock(NOW_MS))


def test_a_bundle_is_read_back_byte_for_byte(bundles):
    bundles.put(LOG_ID, "a" * 64, b"\x00archive\xff")
    assert bundles.get(LOG_ID, "a" * 64) == b"\x00archive\xff"


def test_the_same_bundle_again_is_success_and_another_is_a_conflict(bundles):
    bundles.put(LOG_ID, "a" * 64, b"archive")
    bundles.put(LOG_ID, "a" * 64, b"archive")
    with pytest.raises(ConflictError):
        bundles.put(LOG_ID, "a" * 64, b"other")
    assert bundles.get(LOG_ID, "a" * 64) == b"archive"


def test_a_bundle_that_nobody_stored_is_not_found(bundles):
    bundles.put(LOG_ID, "a" * 64, b"archive")
    for log_id, revision in ((LOG_ID, "b" * 64), ("other", "a" * 64)):
        with pytest.raises(UnknownBundleError):
            bundles.get(log_id, revision)


def test_one_bundle_stored_by_many_at_once_is_success_for_all(bundles):
    start = threading.Barrier(THREADS)

    def put(_: int) -> None:
        start.wait()
        bundles.put(LOG_ID, "a" * 64, b"archive" * 1000)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(put, range(THREADS)))
    assert bundles.get(LOG_ID, "a" * 64) == b"archive" * 1000


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_database_without_tables_is_a_storage_error_that_quotes_nothing(database_url):
    engine = open_engine(database_url)
    store, enforcer = SQLLogStore(engine), Enforcer()
    record = enforcer.record(enforcer.heartbeat())
    calls = [
        lambda: append(store, record),
        lambda: store.sequenced_size(LOG_ID),
        lambda: store.read_sequenced(LOG_ID, 0, 1),
        lambda: store.release(LOG_ID, 1),
        lambda: store.checkpoint(LOG_ID),
        lambda: store.swap_checkpoint(LOG_ID, expected=None, new=b"c", size=1, published_ms=NOW_MS),
        lambda: create(store),
        lambda: SQLPayloadStore(engine).payload(LOG_ID, record.record_id, "message"),
        lambda: SQLBundleStore(engine, SimulatedClock(NOW_MS)).put(LOG_ID, "a" * 64, b"archive"),
    ]
    for call in calls:
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.__cause__ is not None
        assert LOG_ID not in str(caught.value)
        assert record.record_id not in str(caught.value)
    engine.dispose()


def test_a_server_that_went_away_is_a_storage_error_and_comes_back(tmp_path, postgres):
    engine = open_engine(postgres.new_schema())
    upgrade(engine)
    store = SQLLogStore(engine)
    create(store)
    postgres.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL"
    )
    # The pool looks at a connection before it hands it out.
    assert store.sequenced_size(LOG_ID) == 0
    engine.dispose()
    elsewhere = open_engine(postgres.url("nowhere"))
    with pytest.raises(StorageError):
        SQLLogStore(elsewhere).sequenced_size(LOG_ID)
    elsewhere.dispose()


def test_a_file_that_is_no_database_is_a_storage_error(tmp_path: Path):
    (tmp_path / "ledger.db").write_bytes(os.urandom(8192))
    engine = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    with pytest.raises(StorageError):
        SQLLogStore(engine).sequenced_size(LOG_ID)
    engine.dispose()


def test_a_database_that_can_be_written_says_so(store):
    store.check_writable()


def test_a_database_that_only_reads_is_not_writable(postgres):
    url = postgres.new_database()
    engine = open_engine(url)
    upgrade(engine)
    create(SQLLogStore(engine))
    SQLLogStore(engine).check_writable()
    engine.dispose()
    postgres.execute(f"ALTER DATABASE {engine.url.database} SET default_transaction_read_only = 'on'")
    standby = open_engine(url)
    assert SQLLogStore(standby).sequenced_size(LOG_ID) == 0
    with pytest.raises(StorageError):
        SQLLogStore(standby).check_writable()
    standby.dispose()


def test_looking_whether_the_database_can_be_written_waits_for_nobody(engine, store):
    with ThreadPoolExecutor(1) as threads, engine.connect() as holder:
        if engine.dialect.name == "postgresql":
            holder.execute(text("SELECT log_id FROM logs FOR UPDATE"))
        threads.submit(store.check_writable).result(10)


def test_nobody_waits_for_whoever_looks_whether_the_database_can_be_written(postgres, monkeypatch):
    engine = open_engine(postgres.new_schema())
    upgrade(engine)
    store = SQLLogStore(engine)
    create(store)
    locks = []

    @contextmanager
    def looking(engine):
        with writing(engine) as connection:
            yield connection
            query = text(
                "SELECT relation::regclass::text FROM pg_locks WHERE pid = pg_backend_pid() AND relation > 16000"
            )
            locks.append(list(connection.scalars(query)))

    monkeypatch.setattr("ledger.stores.sql.writing", looking)
    store.check_writable()
    engine.dispose()
    assert locks == [[]]


def test_a_database_whose_lock_is_held_for_ever_is_not_writable(tmp_path, monkeypatch):
    monkeypatch.setattr("ledger.database._SQLITE_BUSY_SECONDS", 0)
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    holder, other = open_engine(url), open_engine(url)
    upgrade(holder)
    with writing(holder), pytest.raises(StorageError):
        SQLLogStore(other).check_writable()
    SQLLogStore(other).check_writable()
    holder.dispose()
    other.dispose()


# --- damage ----------------------------------------------------------------------------------------------------------


def drop_triggers(engine: Engine, table: str) -> None:
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            return
        query = text("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :table")
        for (name,) in connection.execute(query, {"table": table}).all():
            connection.execute(text(f"DROP TRIGGER {name}"))


@pytest.mark.parametrize("table", ["pending_entries", "records"])
def test_an_entry_that_was_changed_before_it_was_published_is_not_handed_out(store, engine, table):
    writer = Enforcer()
    append(store, *(writer.record(writer.heartbeat()) for _ in range(3)))
    column = {"pending_entries": "entry", "records": "leaf_hash"}[table]
    drop_triggers(engine, table)
    with writing(engine) as connection:
        (original,) = connection.execute(text(f"SELECT {column} FROM {table} WHERE leaf_index = 1")).one()
        changed = bytes([bytes(original)[0] ^ 1]) + bytes(original)[1:]
        connection.execute(text(f"UPDATE {table} SET {column} = :changed WHERE leaf_index = 1"), {"changed": changed})
    with pytest.raises(StorageError, match="another entry 1"):
        store.read_sequenced(LOG_ID, 0, 3)
    assert len(store.read_sequenced(LOG_ID, 2, 3)) == 1
