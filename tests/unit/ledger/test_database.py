"""Opening the database: which URLs are one, and how each transaction begins."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, insert, select, text
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from ledger.database import insert_if_absent, insert_rows, open_engine, translated, writing
from ledger.errors import ConfigError, StorageError

NUMBERS = Table("numbers", MetaData(), Column("n", Integer, primary_key=True), Column("twice", Integer))


@pytest.fixture
def engine(tmp_path: Path):
    opened = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    with writing(opened) as connection:
        NUMBERS.create(connection)
    yield opened
    opened.dispose()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ledger.db",
        "://",
        "mysql://localhost/ledger",
        "oracle://localhost/ledger",
        "postgresql+nosuchdriver://localhost/ledger",
        "sqlite+nosuchdriver:///ledger.db",
        "postgresql+psycopg://localhost:port/ledger",
        "postgresql+psycopg://[::1/ledger",
    ],
)
def test_what_is_no_url_of_a_supported_database_is_refused(url):
    with pytest.raises(ConfigError):
        open_engine(url)


def test_a_refusal_does_not_repeat_a_password():
    with pytest.raises(ConfigError) as caught:
        open_engine("postgresql+nosuchdriver://ledger:secret@localhost/ledger")
    assert "secret" not in str(caught.value)


def test_what_is_written_is_there_after_the_block(engine):
    with writing(engine) as connection:
        connection.execute(insert(NUMBERS), {"n": 1, "twice": 2})
    with engine.connect() as connection:
        assert connection.scalar(select(NUMBERS.c.twice)) == 2


def test_what_is_written_before_an_error_is_gone(engine):
    with pytest.raises(IntegrityError), writing(engine) as connection:
        connection.execute(insert(NUMBERS), [{"n": 1, "twice": 2}, {"n": 1, "twice": 3}])
    with engine.connect() as connection:
        assert connection.scalar(select(NUMBERS.c.n)) is None


def test_a_writer_has_its_lock_from_the_first_moment(engine, monkeypatch):
    # A read that becomes a write could fail with SQLITE_BUSY after its decision was made.
    monkeypatch.setattr("ledger.database._SQLITE_BUSY_SECONDS", 0)
    other = open_engine(str(engine.url))
    with writing(engine), other.connect() as reader:
        assert reader.scalar(select(NUMBERS.c.n)) is None
        with pytest.raises(OperationalError, match="locked"), writing(other):
            pytest.fail("two writers at once")
    other.dispose()


def test_many_that_open_one_new_file_at_once_all_open_it(tmp_path):
    for attempt in range(25):
        together = threading.Barrier(8)

        def open_it(url: str, together: threading.Barrier = together) -> str:
            opened = open_engine(url)
            together.wait()
            try:
                with opened.connect() as connection:
                    return connection.scalar(text("PRAGMA journal_mode"))
            finally:
                opened.dispose()

        with ThreadPoolExecutor(8) as pool:
            modes = list(pool.map(open_it, [f"sqlite:///{tmp_path / f'{attempt}.db'}"] * 8))
        assert modes == ["wal"] * 8


def test_a_file_that_stays_locked_is_not_waited_for_endlessly(tmp_path, monkeypatch):
    monkeypatch.setattr("ledger.database._SQLITE_BUSY_SECONDS", 0)
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    opened = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    with pytest.raises(OperationalError, match="locked"), opened.connect():
        pytest.fail("opened what another holds")
    holder.close()
    opened.dispose()


def test_what_is_no_database_is_refused_at_once(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"not a database, and longer than the header of one" * 40)
    opened = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    with pytest.raises(DatabaseError, match="not a database"), opened.connect():
        pytest.fail("opened what is no database")
    opened.dispose()


def test_a_row_is_inserted_once(engine):
    with writing(engine) as connection:
        assert insert_if_absent(connection, NUMBERS, {"n": 1, "twice": 2})
        assert not insert_if_absent(connection, NUMBERS, {"n": 1, "twice": 3})
        assert connection.scalar(select(NUMBERS.c.twice)) == 2


def test_rows_are_inserted_in_the_order_of_the_tables_columns(engine):
    with writing(engine) as connection:
        insert_rows(connection, NUMBERS, [(1, 2), (2, None), (3, 6)])
    with engine.connect() as connection:
        assert connection.execute(select(NUMBERS)).all() == [(1, 2), (2, None), (3, 6)]


def test_of_rows_one_of_which_collides_none_is_inserted(engine):
    with pytest.raises(StorageError) as caught, translated("insert"), writing(engine) as connection:
        insert_rows(connection, NUMBERS, [(1, 2), (2, 4), (1, 3)])
    assert isinstance(caught.value.__cause__, IntegrityError)
    with engine.connect() as connection:
        assert connection.execute(select(NUMBERS)).all() == []


@pytest.mark.parametrize("row", [(1,), (1, 2, 3)])
def test_a_row_with_another_number_of_columns_is_not_inserted(engine, row):
    with pytest.raises(StorageError), translated("insert"), writing(engine) as connection:
        insert_rows(connection, NUMBERS, [row])


def test_database_errors_are_translated_without_their_values(engine):
    with pytest.raises(StorageError, match="failed to count") as caught, translated("count"), engine.connect() as c:
        c.execute(text("SELECT :secret FROM nowhere"), {"secret": "a value"})
    assert "a value" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OperationalError)


def test_errors_of_our_own_pass_untranslated():
    with pytest.raises(ConfigError), translated("count"):
        raise ConfigError
