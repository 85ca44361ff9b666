"""What every `Lease` promises (`ledger.ports`): memory, SQLite, PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import update

from ledger.clock import SystemClock
from ledger.database import open_engine, writing
from ledger.errors import ConfigError, StorageError
from ledger.ports import Lease
from ledger.stores import tables
from ledger.stores.memory_leases import LeaseTable, MemoryLease
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_leases import SQLLease
from migrations.schema import upgrade
from tests.support.ledger import LOG_ID

OTHER_LOG = "other"
SHORT = 0.3

Maker = Callable[..., Lease]


class Holders:
    """Makes leases of one store, for any holder; `shift` moves the end of every lease."""

    def __init__(self, make: Maker, shift: Callable[[int], None]) -> None:
        self.make = make
        self.shift = shift

    def __call__(self, holder: str, *, log_id: str = LOG_ID, name: str = "publisher", seconds: float = 3600.0) -> Lease:
        return self.make(log_id, name, holder=holder, seconds=seconds)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def lease(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Holders]:
    if request.param == "memory":
        table = LeaseTable(SystemClock())

        def shift_rows(milliseconds: int) -> None:
            for row in table.rows.values():
                row.expires_ms += milliseconds

        yield Holders(lambda *names, **options: MemoryLease(table, *names, **options), shift_rows)
        return
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_schema()
    engine = open_engine(url, pool_size=10)
    upgrade(engine)
    for log_id in (LOG_ID, OTHER_LOG):
        SQLLogStore(engine).create_log(
            log_id, tenant=log_id, origin=f"log.example/{log_id}", environment="t", simulated=True, created_ms=0
        )

    def shift(milliseconds: int) -> None:
        columns = tables.leases.c
        with writing(engine) as connection:
            connection.execute(update(tables.leases).values(expires_ms=columns.expires_ms + milliseconds))

    yield Holders(lambda *names, **options: SQLLease(engine, *names, **options), shift)
    engine.dispose()


def test_the_first_who_asks_has_it_and_nobody_else(lease):
    assert lease("a").take()
    assert not lease("b").take()
    assert not lease("c").take()


def test_its_holder_may_take_it_again_as_often_as_he_likes(lease):
    mine = lease("a")
    assert [mine.take() for _ in range(3)] == [True] * 3
    assert not lease("b").take()


def test_it_is_free_once_its_time_has_passed(lease):
    assert lease("a", seconds=SHORT).take()
    time.sleep(SHORT + 0.05)
    assert not lease("a").look().live
    assert lease("b").take()
    assert not lease("a").take(), "a former holder is one among others"


def test_taking_it_again_holds_it_for_the_full_time_again(lease):
    mine = lease("a", seconds=2 * SHORT)
    assert mine.take()
    time.sleep(SHORT + 0.1)
    assert mine.take()
    time.sleep(SHORT + 0.1)
    assert not lease("b", seconds=2 * SHORT).take()


def test_who_gives_it_up_lets_the_next_one_have_it_at_once(lease):
    mine = lease("a")
    mine.take()
    mine.give_up()
    assert not mine.look().live
    assert lease("b").take()


def test_nobody_gives_up_what_another_holds(lease):
    lease("a").take()
    lease("b").give_up()
    assert lease("b").look().live
    assert not lease("b").take()


def test_giving_up_what_was_never_taken_or_was_given_up_before_changes_nothing(lease):
    mine = lease("a")
    mine.give_up()
    assert not mine.look().live
    mine.take()
    mine.give_up()
    mine.give_up()
    assert lease("b").take()


def test_one_log_s_lease_is_not_another_s_and_one_work_s_not_another_s(lease):
    assert lease("a").take()
    assert lease("b", log_id=OTHER_LOG).take()
    assert lease("c", name="packs").take()
    assert not lease("c").take()


def test_what_the_holder_reports_is_seen_by_all_and_outlives_his_holding(lease):
    mine, other = lease("a"), lease("b")
    assert other.look().report == ""
    mine.take("all is well")
    assert other.look().report == "all is well"
    mine.take()
    assert other.look().report == "all is well", "None leaves it"
    mine.give_up()
    assert other.look().report == "all is well"
    other.take("another word")
    assert mine.look().report == "another word"


def test_who_is_refused_reports_nothing(lease):
    lease("a").take("mine")
    assert not lease("b").take("not mine")
    assert lease("b").look().report == "mine"


def test_of_many_who_ask_at_once_one_gets_it(lease):
    asking = [lease(f"holder-{number}") for number in range(8)]
    with ThreadPoolExecutor(len(asking)) as pool:
        for _ in range(5):
            assert sum(pool.map(lambda one: one.take(), asking)) == 1
            for one in asking:
                one.give_up()


def test_a_lease_that_seems_to_last_longer_than_any_can_is_over(lease):
    """The database's clock was set back by an hour and a half: nobody waits for a dead holder until then."""
    lease("a").take()
    lease.shift(5_400_000)
    assert not lease("b").look().live
    assert lease("b").take()


def test_a_lease_ends_early_if_the_clock_was_set_forward_and_no_harm_is_done(lease):
    lease("a").take()
    lease.shift(-5_400_000)
    assert lease("b").take()
    assert not lease("a").take()


@pytest.mark.parametrize("seconds", [0, -1])
def test_a_lease_over_sql_lasts_some_time(seconds, engine):
    with pytest.raises(ConfigError):
        SQLLease(engine, LOG_ID, "publisher", holder="a", seconds=seconds)


@pytest.mark.parametrize("call", ["take", "look", "give_up"])
def test_a_database_that_fails_is_a_storage_error(call, tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    with pytest.raises(StorageError):
        getattr(SQLLease(engine, LOG_ID, "publisher", holder="a", seconds=1), call)()
    engine.dispose()
