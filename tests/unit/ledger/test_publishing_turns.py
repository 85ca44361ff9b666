"""Turns of several processes over one log: who publishes, who follows, and what each tells the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.errors import AnchorError, StateError, StorageError
from ledger.ports import LeaseState
from ledger.publishing_turns import PUBLISHER_LEASE, PublishingTurns, SoleLease, Turn
from ledger.stores.memory_leases import LeaseTable, MemoryLease
from tests.support.faults import Effect, Write
from tests.support.ledger import LOG_ID, EmbeddedLedger, pending

SECONDS = 5


class Process:
    """One process's publisher and lease; `ledger` is what all share."""

    def __init__(self, ledger: EmbeddedLedger, table: LeaseTable, name: str) -> None:
        self.ledger = ledger
        self.lease = MemoryLease(table, LOG_ID, PUBLISHER_LEASE, holder=name, seconds=SECONDS)
        self.turns = PublishingTurns(ledger.make_publisher(), self.lease)
        self.turns.load()

    def turn(self, *, due: bool = True) -> Turn:
        return self.turns.turn(due=due)

    @property
    def size(self) -> int:
        return self.turns.published.head.size if self.turns.published else 0


class Crowd:
    """A ledger, its leases, and the processes over both."""

    def __init__(self, ledger: EmbeddedLedger) -> None:
        self.ledger = ledger
        self.table = LeaseTable(ledger.clock)
        self.a, self.b = (Process(ledger, self.table, name) for name in "ab")

    def beat(self, count: int = 1) -> None:
        service = self.ledger.service
        self.ledger.append(*(pending(service.record(service.heartbeat())) for _ in range(count)))

    def swaps(self) -> int:
        return self.ledger.faults.writes.count(Write.SWAP)


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        yield Crowd(ledger)


def test_the_first_who_has_something_to_publish_leads_and_the_others_follow(crowd):
    assert crowd.a.turn() is Turn.CHANGED
    assert crowd.b.turn() is Turn.CHANGED
    assert (crowd.a.turns.leads, crowd.b.turns.leads) == (True, False)
    assert crowd.a.turns.published.checkpoint == crowd.b.turns.published.checkpoint
    assert crowd.swaps() == 1


def test_who_follows_is_refused_the_lease_and_does_no_work(crowd):
    crowd.a.turn()
    crowd.b.turn()
    crowd.beat()
    crowd.ledger.faults.writes.clear()
    assert crowd.b.turn() is Turn.REFUSED
    assert crowd.ledger.faults.writes == []
    assert crowd.a.turn() is Turn.CHANGED


def test_what_is_not_due_is_not_published_but_what_others_published_is_seen(crowd):
    assert crowd.a.turn(due=False) is Turn.IDLE
    assert crowd.swaps() == 0
    crowd.a.turn()
    assert crowd.b.turn(due=False) is Turn.CHANGED
    assert crowd.b.size == 1


def test_where_nothing_waits_nobody_asks_for_the_lease(crowd):
    crowd.a.turn()
    crowd.ledger.clock.advance(60_000)
    assert crowd.a.turn() is Turn.IDLE
    assert not crowd.a.lease.look().live


def test_when_the_leader_dies_another_takes_over_after_the_lease_and_not_before(crowd):
    crowd.a.turn()
    crowd.b.turn()
    crowd.beat()
    crowd.ledger.clock.advance(SECONDS * 1000 - 1)
    assert crowd.b.turn() is Turn.REFUSED
    crowd.ledger.clock.advance(1)
    assert crowd.b.turn() is Turn.CHANGED
    assert crowd.b.turns.leads
    assert crowd.b.size == 2


def test_when_the_leader_stops_in_order_another_takes_over_at_once(crowd):
    crowd.a.turn()
    crowd.b.turn()
    crowd.beat()
    crowd.a.turns.give_up()
    assert crowd.b.turn() is Turn.CHANGED


@pytest.mark.parametrize("write", [Write.PUT_BUNDLE, Write.PUT_TILE, Write.SWAP])
def test_a_leader_that_paused_beyond_its_lease_publishes_nothing_and_follows(crowd, write):
    crowd.a.turn()
    crowd.b.turn()
    crowd.beat()
    seen: list[bytes] = []

    def pause(kind: Write) -> None:
        if kind is write:
            crowd.ledger.faults.on_write = None
            crowd.ledger.clock.advance(SECONDS * 1000)
            crowd.beat()
            assert crowd.b.turn() is Turn.CHANGED
            seen.append(crowd.b.turns.published.checkpoint)

    crowd.ledger.faults.on_write = pause
    assert crowd.a.turn() is Turn.CHANGED
    assert crowd.a.turns.published.checkpoint == seen[0]
    assert not crowd.a.turns.leads
    assert crowd.ledger.published_checkpoints()[-1] == seen[0]
    crowd.beat()
    assert crowd.a.turn() is Turn.REFUSED
    assert crowd.b.turn() is Turn.CHANGED
    assert crowd.ledger.audit().clean


@pytest.mark.parametrize("write", [Write.EXPOSE, Write.RELEASE, Write.ANCHOR])
def test_a_leader_that_paused_after_its_swap_moves_nothing_back(crowd, write):
    crowd.a.turn()
    crowd.b.turn()
    crowd.beat()

    def pause(kind: Write) -> None:
        if kind is write:
            crowd.ledger.faults.on_write = None
            crowd.ledger.clock.advance(SECONDS * 1000)
            crowd.beat()
            assert crowd.b.turn() is Turn.CHANGED

    crowd.ledger.faults.on_write = pause
    crowd.a.turn()
    assert crowd.ledger.exposed_checkpoints() == crowd.ledger.published_checkpoints()[-1:]
    assert crowd.a.turn() is Turn.CHANGED
    assert crowd.a.size == crowd.b.size == 3
    assert crowd.ledger.audit().clean


class DeathError(Exception):
    """A process ends at this point."""


@pytest.mark.parametrize("write", [Write.EXPOSE, Write.RELEASE, Write.ANCHOR])
def test_what_a_leader_published_and_died_before_it_was_shown_and_anchored_another_shows_and_anchors(crowd, write):
    crowd.a.turn()
    crowd.b.turn()
    crowd.beat()

    def die(kind: Write) -> None:
        if kind is write:
            crowd.ledger.faults.on_write = None
            raise DeathError

    crowd.ledger.faults.on_write = die
    with pytest.raises(DeathError):
        crowd.a.turn()
    assert crowd.b.turn() is Turn.CHANGED
    assert not crowd.b.turns.leads, "the leader may be alive, and about to do so"
    crowd.ledger.clock.advance(SECONDS * 1000)
    # Nothing new is sequenced, and nobody has anything to publish.
    crowd.b.turn(due=False)
    newest = crowd.ledger.published_checkpoints()[-1]
    assert crowd.ledger.exposed_checkpoints() == [newest]
    assert crowd.ledger.anchored_checkpoints()[-1] == newest
    crowd.ledger.faults.writes.clear()
    crowd.ledger.clock.advance(SECONDS * 1000)
    crowd.b.turn(due=False)
    assert crowd.ledger.faults.writes == [], "once is enough"
    assert crowd.swaps() == 0


def test_what_is_shown_and_anchored_is_left_alone_by_those_who_follow(crowd):
    crowd.a.turn()
    crowd.b.turn()
    crowd.ledger.clock.advance(SECONDS * 1000)
    crowd.ledger.faults.writes.clear()
    crowd.b.turn(due=False)
    assert crowd.ledger.faults.writes == []
    assert not crowd.b.turns.leads


def test_a_swap_that_was_lost_to_nobody_is_no_reason_to_go_on(crowd, monkeypatch):
    crowd.a.turn()
    crowd.beat()
    monkeypatch.setattr(crowd.ledger.store, "checkpoint", lambda _: crowd.a.turns.published.checkpoint)
    real = crowd.ledger.make_publisher()
    crowd.ledger.store.swap_checkpoint(
        LOG_ID, expected=crowd.a.turns.published.checkpoint, new=b"x", size=99, published_ms=0
    )
    with pytest.raises(StateError, match="nothing else is published"):
        crowd.a.turn()
    assert not crowd.a.turns.leads
    assert real.published is None


def test_how_anchoring_stands_is_told_to_those_who_follow(crowd):
    crowd.a.turn()
    crowd.b.turn()
    assert crowd.b.turns.anchor_status == crowd.a.turns.anchor_status
    assert crowd.b.turns.anchor_status.receipt.size == 1
    crowd.beat()
    crowd.ledger.faults.arm(Write.ANCHOR, Effect.LOST)
    crowd.a.turn()
    crowd.b.turn()
    assert crowd.b.turns.anchor_status.failure == "injected"
    assert crowd.a.turns.anchor_failing
    assert not crowd.b.turns.anchor_failing, "it is not his to repair"
    crowd.a.turn()
    crowd.b.turn()
    assert crowd.b.turns.anchor_status == crowd.a.turns.anchor_status
    assert crowd.b.turns.anchor_status.failure is None


def test_an_anchor_that_failed_is_tried_again_though_nothing_is_new(crowd):
    crowd.ledger.faults.arm(Write.ANCHOR, Effect.LOST, times=2)
    crowd.a.turn()
    assert crowd.a.turn(due=False) is Turn.IDLE
    assert crowd.a.turn(due=False) is Turn.IDLE
    assert not crowd.a.turns.anchor_failing
    count = crowd.ledger.faults.writes.count(Write.ANCHOR)
    crowd.a.turn(due=False)
    assert crowd.ledger.faults.writes.count(Write.ANCHOR) == count, "what is anchored is left alone"


def test_one_whose_anchor_failed_and_who_was_overtaken_leaves_anchoring_to_the_other(crowd):
    crowd.ledger.faults.arm(Write.ANCHOR, Effect.LOST)
    crowd.a.turn()
    crowd.beat()
    crowd.a.turns.give_up()
    crowd.b.turn()
    crowd.a.turn()
    assert not crowd.a.turns.anchor_failing
    assert crowd.a.turns.anchor_status == crowd.b.turns.anchor_status


@pytest.mark.parametrize("report", ["", "{", '{"receipt":3}', "[]"])
def test_a_report_that_cannot_be_read_tells_nothing_and_stops_nothing(crowd, report):
    crowd.a.turn()
    crowd.a.lease.take(report)
    crowd.b.turn()
    assert crowd.b.size == 1
    assert crowd.b.turns.anchor_status.failure is None


def test_a_clock_that_is_behind_keeps_one_process_from_signing_and_not_the_other(tmp_path, crowd):
    crowd.ledger.clock.advance(90_000)
    crowd.a.turn()
    crowd.beat()
    behind = EmbeddedLedger(tmp_path)
    late = Process(behind, crowd.table, "late")
    crowd.a.turns.give_up()
    with pytest.raises(StateError, match="clock"):
        late.turn()
    assert crowd.a.turn() is Turn.REFUSED
    late.turns.give_up()
    assert crowd.a.turn() is Turn.CHANGED
    behind.close()


def test_a_lease_that_cannot_be_asked_for_publishes_nothing(crowd, monkeypatch):
    def fail(*_: object) -> bool:
        raise StorageError("injected")

    monkeypatch.setattr(crowd.a.lease, "take", fail)
    with pytest.raises(StorageError):
        crowd.a.turn()
    assert crowd.swaps() == 0


def test_a_lease_that_cannot_be_given_up_ends_by_itself(crowd, monkeypatch):
    def fail() -> None:
        raise StorageError("injected")

    crowd.a.turn()
    monkeypatch.setattr(crowd.a.lease, "give_up", fail)
    crowd.a.turns.give_up()
    assert not crowd.a.turns.leads


def test_an_anchor_that_is_silent_keeps_everybody_from_signing(crowd, monkeypatch):
    def silent(*_: object, **__: object) -> list[int]:
        raise AnchorError("does not answer")

    monkeypatch.setattr(type(crowd.ledger.anchor), "sizes", silent)
    late = Process(crowd.ledger, crowd.table, "late")
    with pytest.raises(StateError, match="anchor"):
        late.turn()
    assert crowd.swaps() == 0


def test_a_single_process_always_has_the_lease_and_tells_nobody():
    lease = SoleLease()
    assert lease.take("anything")
    lease.give_up()
    assert lease.look() == LeaseState(live=True, report="")
