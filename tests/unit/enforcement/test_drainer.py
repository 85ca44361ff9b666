"""Draining: in order, patient with what is away, and never held up by one bad record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from enforcement.batches import QueuedRecord
from enforcement.config import RecordingSettings
from enforcement.drainer import Drainer
from enforcement.ports import Posted, PostResult, Refused, Unavailable
from enforcement.spool import Spool
from ledger.records import Dropped
from tests.support.spools import MemoryLedger, batch, denial, open_spool

SETTINGS = RecordingSettings(batch_records=8, retry_min_seconds=0.1, retry_max_seconds=1)


class World:
    def __init__(self, spool: Spool, ledger: MemoryLedger) -> None:
        self.spool, self.ledger = spool, ledger
        self.taken: list[int] = []
        self.refused: list[int] = []
        self.rotations = 0
        self.drainer = Drainer(
            spool,
            ledger,
            SETTINGS,
            in_thread=self.directly,
            taken=lambda records: self.taken.extend(record.seq for record in records),
            refused=lambda records: self.refused.extend(record.seq for record in records),
            epoch_rotated=self.rotated,
        )

    async def directly(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    async def rotated(self) -> None:
        self.rotations += 1

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
        assert await world.drainer.step() == 0
        assert await world.drainer.step() is None
        assert world.spool.depth().records == 0

    world = play(tmp_path, scenario)
    assert world.taken == [record.seq for record in world.ledger.taken] == [1, 2, 3]


def test_no_more_than_a_batch_is_posted_at_once(tmp_path: Path) -> None:
    world = play(tmp_path, World.until_empty, records=20)
    assert [len(post) for post in world.ledger.posts] == [8, 8, 4]


def test_pauses_double_up_to_a_bound_and_start_anew_after_a_success(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.ledger.answer = lambda _: Unavailable("unreachable")
        assert [await world.drainer.step() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1, 1]
        assert not world.drainer.reachable
        world.ledger.answer = lambda _: None
        assert await world.drainer.step() == 0
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


def test_a_conflict_over_a_number_begins_a_new_epoch_once(tmp_path: Path) -> None:
    def answer(records: Sequence[QueuedRecord]) -> PostResult | None:
        return Refused(409, conflict=True) if any(record.seq <= 2 for record in records) else None

    async def scenario(world: World) -> None:
        before = world.spool.epoch
        await world.until_empty()
        assert world.spool.epoch != before

    world = play(tmp_path, scenario, answer, records=3)
    assert (world.refused, world.taken, world.rotations) == ([1, 2], [3], 1)


def test_waiters_hear_of_their_record_before_the_spool_forgets_it(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        def fail(_: object) -> None:
            raise OSError("disk")

        world.spool.acknowledge = fail  # type: ignore[method-assign, assignment]  # died in between
        with pytest.raises(OSError, match="disk"):
            await world.drainer.step()

    world = play(tmp_path, scenario)
    assert world.taken == [1, 2, 3]


def test_an_acknowledgement_says_that_every_record_was_taken(tmp_path: Path) -> None:
    world = play(tmp_path, World.until_empty, lambda records: Posted(tuple(range(len(records)))))
    assert world.taken == [1, 2, 3]
