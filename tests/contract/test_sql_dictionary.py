"""Numbers of names and streams on both databases: given once, the same for everybody, kept apart by log."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from ledger.database import writing
from ledger.errors import NotFoundError, StorageError
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_dictionary import Dictionary
from tests.support.ledger import LOG_ID

OTHER_LOG = "other"
STREAMS = {("gateway-1", "0" * 32), ("gateway-1", "1" * 32), ("gateway-2", "0" * 32)}
THREADS = 5


@pytest.fixture
def logs(engine: Engine) -> Engine:
    for log_id in (LOG_ID, OTHER_LOG):
        properties = {"tenant": "t", "origin": log_id, "environment": "e", "simulated": True, "created_ms": 0}
        SQLLogStore(engine).create_log(log_id, **properties)
    return engine


def count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return connection.scalar(text(f"SELECT count(*) FROM {table}")) or 0


def test_a_name_and_a_stream_keep_their_numbers_in_every_process(logs):
    names = {f"name-{number}" for number in range(1_000)}
    given = Dictionary(logs).numbers(LOG_ID, names, STREAMS)
    assert {given.names[name] for name in names} == set(range(1, 1_001))
    assert {given.streams[stream] for stream in STREAMS} == {1, 2, 3}
    again = Dictionary(logs).numbers(LOG_ID, {*names, "another"}, STREAMS)
    assert {name: again.names[name] for name in names} == {name: given.names[name] for name in names}
    assert again.names["another"] == 1_001
    assert again.streams == given.streams
    assert count(logs, "names") == 1_001


def test_names_that_differ_in_case_alone_are_two(logs):
    given = Dictionary(logs).numbers(LOG_ID, {"Bot", "bot", "BOT"}, ())
    assert len({given.names[name] for name in ("Bot", "bot", "BOT")}) == 3


def test_logs_number_apart(logs):
    dictionary = Dictionary(logs)
    first, second = dictionary.numbers(LOG_ID, {"a", "b"}, ()), dictionary.numbers(OTHER_LOG, {"b"}, ())
    assert first.log_no != second.log_no
    assert second.names == {None: None, "b": 1}
    assert first.names["b"] == 2


def test_what_is_known_is_not_asked_for_again(logs):
    dictionary = Dictionary(logs)
    given = dictionary.numbers(LOG_ID, {"a"}, STREAMS)
    with writing(logs) as connection:
        connection.execute(text("SELECT 1"))
        for table in ("names", "streams"):
            connection.execute(text(f"ALTER TABLE {table} RENAME TO gone_{table}"))
    assert dictionary.numbers(LOG_ID, {"a"}, STREAMS) is given
    with pytest.raises(StorageError):
        dictionary.numbers(LOG_ID, {"new"}, ())


def test_a_number_that_could_not_be_written_is_not_remembered(logs):
    dictionary = Dictionary(logs)
    with writing(logs) as connection:
        connection.execute(text("ALTER TABLE names RENAME TO gone_names"))
    with pytest.raises(StorageError):
        dictionary.numbers(LOG_ID, {"a"}, ())
    with writing(logs) as connection:
        connection.execute(text("ALTER TABLE gone_names RENAME TO names"))
    assert dictionary.numbers(LOG_ID, {"b"}, ()).names["b"] == 1


def test_what_is_remembered_is_bounded_and_what_was_forgotten_keeps_its_number(logs):
    dictionary = Dictionary(logs, max_remembered=10)
    numbers = [dictionary.numbers(LOG_ID, {f"name-{number}"}, ()) for number in range(50)]
    assert max(len(given.names) for given in numbers) <= 13
    assert dictionary.numbers(LOG_ID, {"name-0"}, ()).names["name-0"] == 1
    assert count(logs, "names") == 50


def test_a_name_that_many_use_first_at_once_has_one_number(logs):
    start = threading.Barrier(THREADS)

    def use(number: int) -> tuple[int | None, int | None]:
        start.wait()
        given = Dictionary(logs).numbers(LOG_ID, {"shared", f"own-{number}"}, STREAMS)
        return given.names["shared"], given.names[f"own-{number}"]

    with ThreadPoolExecutor(THREADS) as threads:
        pairs = list(threads.map(use, range(THREADS)))
    assert len({shared for shared, _ in pairs}) == 1
    assert len({own for _, own in pairs} | {pairs[0][0]}) == THREADS + 1
    assert count(logs, "streams") == len(STREAMS)


def test_a_log_that_is_not_there_numbers_nothing(logs):
    with pytest.raises(NotFoundError):
        Dictionary(logs).numbers("nobody", {"a"}, ())
    assert count(logs, "names") == 0
