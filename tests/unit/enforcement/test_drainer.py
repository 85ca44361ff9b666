"""Draining: in order, patient with what is away, and never held up by one bad record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from enforcement.batches import Depth, QueuedRecord
from enforcement.config import RecordingSettings
from enforcement.drainer import Drainer
from enforcement.ports import Posted, PostResult, Refused, Unavailable
from enforcement.spool import Spool
from ledger.bodies import Decision, Dropped, Heartbeat
from ledger.records import decode_entry
from tests.support.spools import MemoryLedger, batch, decision, denial, heartbeat, open_spool, outcome, record_id

SETTINGS = RecordingSettings(batch_records=8, retry_min_seconds=0.1, retry_max_seconds=1)


class World:
    def __init__(self, spool: Spool, ledger: MemoryLedger) -> None:
        self.spool, self.ledger = spool, ledger
        self.taken: list[int] = []
        self.refused: list[int] = []
        self.drainer = Drainer(
            spool,
            ledger,
            SETTINGS,
            in_thread=self.directly,
            taken=lambda records: self.taken.extend(record.seq for record in records),
            refused=lambda records: self.refused.extend(record.seq for record in records),
            announcement=self.announcement,
        )

    async def directly(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    async def announcement(self) -> Heartbeat:
        return Heartbeat(kind="start", version="1", spool_depth=0)

    async def until_empty(self) -> None:
        while await self.drainer.step() is not None:
            pass


def play(
    directory: Path,
    scenario: Callable[[World], Any],
    answer: Callable[[Sequence[QueuedRecord]], PostResult | None] = lambda _: None,
    records: int = 3,
) -> World:
    state, spool = open_spool(directory)
    spool.append([batch(*[denial()] * records)])
    world = World(spool, MemoryLedger(answer))
    asyncio.run(scenario(world))
    state.close()
    return world


def test_records_go_in_order_and_leave_the_spool(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert await world.drainer.step() is None
        assert world.spool.depth().records == 0
        assert await world.drainer.step() is None

    world = play(tmp_path, scenario)
    assert world.taken == [record.seq for record in world.ledger.taken] == [1, 2, 3]


def test_a_step_goes_on_at_once_if_more_waits_and_knows_how_much(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert await world.drainer.step() == 0
        assert world.drainer.standing is not None
        assert world.drainer.standing[0].records == 1
        assert await world.drainer.step() is None
        assert world.drainer.standing == (Depth(0, 0, 0), None)

    play(tmp_path, scenario, records=9)


def test_a_step_that_failed_does_not_say_how_much_waited_before_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert await world.drainer.step() == 0
        world.ledger.answer = lambda _: Unavailable("unreachable")
        assert await world.drainer.step() == 0.1
        assert world.drainer.standing is None

    play(tmp_path, scenario, records=9)


def test_what_was_handed_over_is_posted_once_and_then_the_queue_is_read_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.drainer.hand_over(world.drainer.read_next()[:1])
        assert await world.drainer.step() == 0
        assert await world.drainer.step() is None

    world = play(tmp_path, scenario)
    assert world.ledger.posts == [[1], [2, 3]]


def test_what_was_handed_over_and_not_taken_is_read_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.drainer.hand_over(world.drainer.read_next()[:1])
        world.ledger.answer = lambda _: Unavailable("unreachable")
        assert await world.drainer.step() == 0.1
        world.ledger.answer = lambda _: None
        assert await world.drainer.step() is None

    assert play(tmp_path, scenario).taken == [1, 2, 3]


def test_no_more_than_a_batch_is_posted_at_once(tmp_path: Path) -> None:
    world = play(tmp_path, World.until_empty, records=20)
    assert [len(post) for post in world.ledger.posts] == [8, 8, 4]


def test_pauses_double_up_to_a_bound_and_start_anew_after_a_success(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.ledger.answer = lambda _: Unavailable("unreachable")
        assert [await world.drainer.step() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1, 1]
        assert not world.drainer.reachable
        world.ledger.answer = lambda _: None
        assert await world.drainer.step() is None
        assert world.drainer.reachable
        world.spool.append([batch(denial(), first=50)])
        world.ledger.answer = lambda _: Unavailable("unreachable")
        assert await world.drainer.step() == 0.1

    world = play(tmp_path, scenario)
    assert world.taken == [1, 2, 3]


def test_many_failures_do_not_overflow(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert {await world.drainer.step() for _ in range(2000)} <= {0.1, 0.2, 0.4, 0.8, 1}

    play(tmp_path, scenario, lambda _: Unavailable("unreachable"), records=1)


@pytest.mark.parametrize(("asked", "pause"), [(None, 0.1), (0.05, 0.1), (7, 7), (100_000, 300)])
def test_the_ledgers_own_wish_counts_if_it_is_longer_but_not_for_ever(
    tmp_path: Path, asked: float | None, pause: float
) -> None:
    async def scenario(world: World) -> None:
        assert await world.drainer.step() == pause

    play(tmp_path, scenario, lambda _: Unavailable("http_429", asked))


@pytest.mark.parametrize("bad", [1, 5, 8, 13])
def test_one_bad_record_is_found_by_halving_and_the_others_arrive(tmp_path: Path, bad: int) -> None:
    def answer(records: Sequence[QueuedRecord]) -> PostResult | None:
        return Refused(422, conflict=False) if any(record.seq == bad for record in records) else None

    world = play(tmp_path, World.until_empty, answer, records=13)
    assert world.refused == [bad]
    assert sorted(world.taken) == [seq for seq in range(1, 15) if seq != bad]  # the last one declares the loss
    assert world.taken == sorted(world.taken)
    (lost,) = [body for body in world.ledger.bodies() if isinstance(body, Dropped)]
    assert (lost.first_seq, lost.last_seq, lost.decisions) == (bad, bad, 1)
    assert world.drainer.reachable


def test_a_ledger_that_refuses_everything_does_not_loop_for_ever(tmp_path: Path) -> None:
    world = play(tmp_path, World.until_empty, lambda _: Refused(400, conflict=False), records=5)
    assert world.taken == []
    assert world.spool is not None
    assert len(world.refused) == 10  # five records, and five declarations of their loss


def test_a_batch_that_was_too_large_together_is_not_lost(tmp_path: Path) -> None:
    def answer(records: Sequence[QueuedRecord]) -> PostResult | None:
        return Refused(413, conflict=False) if len(records) > 2 else None

    world = play(tmp_path, World.until_empty, answer, records=8)
    assert world.taken == list(range(1, 9))
    assert world.refused == []


def test_records_whose_numbers_the_ledger_knows_from_elsewhere_all_arrive_in_a_new_epoch(tmp_path: Path) -> None:
    """An older copy of the file was put back: what is new in it must reach the log, under whatever number."""
    state, spool = open_spool(tmp_path)
    old = spool.epoch
    ledger = MemoryLedger(lambda records: Refused(409, conflict=True) if _foreign(records, old) else None)
    spool.append([batch(decision(), denial(), outcome(record_id(0)), heartbeat())])
    before = [decode_entry(one.entry) for one in spool.pending(max_records=10, max_bytes=1 << 20)]
    world = World(spool, ledger)
    asyncio.run(world.until_empty())
    start, *moved = [decode_entry(one.entry) for one in ledger.taken]
    assert isinstance(start.body, Heartbeat)
    assert (start.seq, start.body.kind, start.body.previous_epoch) == (1, "start", old)
    assert [(one.record_id, one.time_ms, one.body) for one in moved] == [
        (one.record_id, one.time_ms, one.body) for one in before
    ]
    assert [(one.seq, one.running_count) for one in moved] == [(2, 1), (3, 2), (4, 2), (5, 2)]
    assert {one.epoch for one in moved} == {spool.epoch} != {old}
    assert [[opening.payload for opening in one.openings] for one in ledger.taken] == [[], [b"{}"], [b"{}"], [], []]
    assert world.refused == []
    assert spool.depth() == Depth(0, 0, 0)
    state.close()


def _foreign(records: Sequence[QueuedRecord], epoch: str) -> bool:
    return any(record.epoch == epoch for record in records)


def test_a_record_whose_id_the_ledger_knows_otherwise_is_declared_lost_and_begins_one_epoch_only(
    tmp_path: Path,
) -> None:
    taken_ids = {record_id(0), record_id(2)}

    async def scenario(world: World) -> None:
        before = world.spool.epoch
        await world.until_empty()
        assert world.spool.epoch != before
        assert world.spool.depth().set_aside == 2

    def answer(records: Sequence[QueuedRecord]) -> PostResult | None:
        return Refused(409, conflict=True) if any(one.record_id in taken_ids for one in records) else None

    world = play(tmp_path, scenario, answer, records=3)
    assert world.refused == [2, 4]
    lost = [body for body in world.ledger.bodies() if isinstance(body, Dropped)]
    assert [(body.first_seq, body.decisions, body.reason) for body in lost] == [(2, 1, "conflict"), (4, 1, "conflict")]
    assert len({record.epoch for record in world.ledger.taken}) == 1
    assert sum(isinstance(body, Decision) for body in world.ledger.bodies()) == 1


def test_a_second_copy_that_is_put_back_begins_a_second_epoch(tmp_path: Path) -> None:
    """Numbers that were given after the move may collide again; those given by the move itself cannot."""
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial())])
    known = {spool.epoch}
    world = World(spool, MemoryLedger(lambda records: Refused(409, conflict=True) if _known(records, known) else None))
    asyncio.run(world.until_empty())
    known.add(spool.epoch)
    spool.append([batch(denial(), first=10)])
    asyncio.run(world.until_empty())
    assert spool.epoch not in known
    assert [one.record_id for one in world.ledger.taken if one.epoch == spool.epoch][1:] == [record_id(10)]
    assert world.refused == []
    state.close()


def _known(records: Sequence[QueuedRecord], epochs: set[str]) -> bool:
    return any(record.epoch in epochs for record in records)


def test_a_damaged_record_moves_with_the_others_and_is_then_declared_lost(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    old = spool.epoch
    spool.append([batch(denial(), denial(), denial())])
    with state.transaction() as connection:
        connection.execute("UPDATE queue SET entry = x'00' WHERE seq = 2")

    def answer(records: Sequence[QueuedRecord]) -> PostResult | None:
        assert all(one.entry != b"\x00" for one in records)
        return Refused(409, conflict=True) if _foreign(records, old) else None

    world = World(spool, MemoryLedger(answer))
    asyncio.run(world.until_empty())
    assert world.taken == [1, 2, 4, 5]
    (lost,) = [body for body in world.ledger.bodies() if isinstance(body, Dropped)]
    assert (lost.first_seq, lost.last_seq, lost.reason) == (3, 3, "unreadable")
    state.close()


def test_waiters_hear_of_their_record_before_the_spool_forgets_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        def fail(*_: object) -> None:
            raise OSError("disk")

        world.spool.acknowledge = fail  # type: ignore[method-assign, assignment]  # died in between
        with pytest.raises(OSError, match="disk"):
            await world.drainer.step()

    world = play(tmp_path, scenario)
    assert world.taken == [1, 2, 3]


def test_an_acknowledgement_says_that_every_record_was_taken(tmp_path: Path) -> None:
    world = play(tmp_path, World.until_empty, lambda records: Posted(tuple(range(len(records)))))
    assert world.taken == [1, 2, 3]
