"""Keeping a lease: asked for seldom, never over while its holder works, and another's when he gives it up."""

from __future__ import annotations

import pytest

from ledger.clock import SimulatedClock
from ledger.errors import StorageError
from ledger.stores.memory_leases import LeaseTable, MemoryLease
from ledger.tenure import Tenure
from tests.support.ledger import LOG_ID, NOW_MS

SECONDS = 60.0


class Watched(MemoryLease):
    """A lease that counts how often it is asked for."""

    asked = 0
    fails = False

    def take(self, report: str | None = None) -> bool:
        self.asked += 1
        if self.fails:
            raise StorageError("injected")
        return super().take(report)

    def give_up(self) -> None:
        if self.fails:
            raise StorageError("injected")
        super().give_up()


class Holders:
    """Two processes, one table of leases and one time."""

    def __init__(self) -> None:
        self.clock = SimulatedClock(NOW_MS)
        table = LeaseTable(self.clock)
        self.leases = [Watched(table, LOG_ID, "work", holder=name, seconds=SECONDS) for name in ("one", "other")]
        self.one, self.other = (
            Tenure(lease, seconds=SECONDS, monotonic=lambda: self.clock.now_ms() / 1000) for lease in self.leases
        )

    def wait(self, seconds: float) -> None:
        self.clock.advance(int(seconds * 1000))


def test_one_has_the_work_for_as_long_as_it_does_it_and_neither_asks_at_each_turn():
    holders = Holders()
    for _ in range(200):
        assert holders.one.held()
        assert not holders.other.held()
        holders.wait(1)
    assert [lease.asked for lease in holders.leases] == [10, 10]


def test_the_work_of_a_process_that_is_gone_is_anothers_once_the_lease_is_over():
    holders = Holders()
    assert holders.one.held()
    for _ in range(3):
        assert not holders.other.held()
        holders.wait(SECONDS / 3)
    assert holders.other.held()
    # The other one was paused only, and finds out at its next look.
    assert not holders.one.held()


def test_the_work_that_a_process_gives_up_is_anothers_at_its_next_look():
    holders = Holders()
    assert holders.one.held()
    assert not holders.other.held()
    holders.one.give_up()
    holders.wait(SECONDS / 3)
    assert holders.other.held()
    assert not holders.one.held()
    holders.one.give_up()
    assert holders.other.held(), "nobody gives up what is another's"


def test_the_work_that_nobody_else_wants_is_had_again_at_once():
    holders = Holders()
    assert holders.one.held()
    holders.one.give_up()
    assert holders.one.held()
    assert holders.leases[0].asked == 2


def test_a_store_that_fails_is_asked_again_and_giving_up_stops_nothing():
    holders = Holders()
    holders.leases[0].fails = True
    for _ in range(2):
        with pytest.raises(StorageError):
            holders.one.held()
    holders.leases[0].fails = False
    assert holders.one.held()
    holders.leases[0].fails = True
    holders.one.give_up()
    holders.leases[0].fails = False
    assert not holders.other.held(), "the lease ends by itself"
    assert holders.one.held()
