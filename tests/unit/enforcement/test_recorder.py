"""The recorder: durable when it says so, one transaction for many, and a stream that is opened and closed in order."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from enforcement.batches import QueuedRecord
from enforcement.clock_offset import Offset
from enforcement.config import RecordingSettings
from enforcement.ports import PostResult, Refused, Unavailable
from enforcement.recorder import Recorder
from enforcement.spool import Spool
from enforcement.state import StateDatabase
from enforcement.vitals import Vitals
from ledger.bodies import Heartbeat, Outcome
from ledger.errors import ConflictError, LedgerError, MalformedError, OverloadedError, StorageError, UpstreamError
from ledger.records import decode_entry
from tests.support.spools import MemoryLedger, batch, decision, denial, open_spool, outcome, record_id

ALL = {"max_records": 1000, "max_bytes": 1 << 30}


class World:
    def __init__(self, state: StateDatabase, spool: Spool, ledger: MemoryLedger, **settings: Any) -> None:
        self.state, self.spool, self.ledger = state, spool, ledger
        members = {"strict_seconds": 5, "retry_min_seconds": 0.001, "retry_max_seconds": 0.002, "stop_seconds": 1}
        self.recorder = Recorder(
            spool,
            ledger,
            RecordingSettings(**{**members, **settings}),
            version="9.9",
            vitals=lambda: Vitals(bundle_revision="cd" * 32, offset=Offset(-40, 3), observed=2),
        )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # turns of the loop are all that passes
            await asyncio.sleep(0)


def idle(world: World) -> bool:
    """Whether the drainer waits for something to be appended."""
    return world.recorder._idle  # what nothing else shows: it does nothing any more


def play(directory: Path, scenario: Callable[[World], Awaitable[None]], **settings: Any) -> World:
    state, spool = open_spool(directory, **settings.pop("spool", {}))
    world = World(state, spool, MemoryLedger(), **settings)

    async def run() -> None:
        try:
            await scenario(world)
        finally:
            await world.recorder.stop()

    asyncio.run(run())
    state.close()
    return world


def test_a_run_is_announced_and_closed_with_heartbeats(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        await world.recorder.record(batch(denial()), strict=True)

    bodies = play(tmp_path, scenario).ledger.bodies()
    start, _, stop = bodies
    assert isinstance(start, Heartbeat)
    assert isinstance(stop, Heartbeat)
    assert (start.kind, start.version, start.bundle_revision) == ("start", "9.9", "cd" * 32)
    assert (stop.kind, stop.spool_depth) == ("stop", 0)


def test_a_heartbeat_says_how_the_gateway_is_and_what_waits(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.record(batch(denial()), strict=False)  # nothing drains before the start
        await world.recorder.start()

    (_, start, _) = play(tmp_path, scenario).ledger.bodies()
    assert isinstance(start, Heartbeat)
    assert (start.spool_depth, start.oldest_ms) == (1, 0)
    assert start.spool_bytes > 0
    assert (start.clock_offset_ms, start.clock_bound_ms, start.observed, start.enforced) == (-40, 3, 2, 0)


def test_a_strict_record_is_in_the_ledger_when_the_call_returns(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        (record,) = await world.recorder.record(batch(denial()), strict=True)
        assert record.record_id in {taken.record_id for taken in world.ledger.taken}

    play(tmp_path, scenario)


def test_an_available_record_is_in_the_spool_when_the_call_returns(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        (record,) = await world.recorder.record(batch(denial()), strict=False)  # nothing drains before the start
        assert [decode_entry(one.entry) for one in world.spool.pending(**ALL)] == [record]

    play(tmp_path, scenario)


def test_a_strict_record_passes_to_the_spools_thread_once_before_it_is_posted_and_once_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    in_thread = Recorder.in_thread

    async def counting(self: Recorder, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append("thread")
        return await in_thread(self, function, *args, **kwargs)

    monkeypatch.setattr(Recorder, "in_thread", counting)

    async def scenario(world: World) -> None:
        await world.recorder.start()
        await world.recorder.record(batch(denial()), strict=True)
        await until(lambda: world.recorder.depth.records == 0 and idle(world))
        calls.clear()
        world.ledger.answer = lambda _: calls.append("post")
        await world.recorder.record(batch(denial(), first=20), strict=True)
        await until(lambda: idle(world))
        assert calls == ["thread", "post", "thread"]

    play(tmp_path, scenario)


def test_what_another_process_appended_goes_before_what_this_one_appends_next(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        await until(lambda: idle(world))
        world.spool.append([batch(denial(), first=40)])  # it tells this process nothing
        await world.recorder.record(batch(denial(), first=50), strict=True)
        assert [one.record_id for one in world.ledger.taken[-2:]] == [record_id(40), record_id(50)]

    play(tmp_path, scenario)


def test_what_is_appended_while_records_are_posted_goes_with_the_next_request(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        await until(lambda: idle(world))
        under_way, goes_on = asyncio.Event(), asyncio.Event()
        post = world.ledger.post

        async def slowly(records: Sequence[QueuedRecord]) -> PostResult:
            under_way.set()
            await goes_on.wait()
            return await post(records)

        world.ledger.post = slowly  # type: ignore[method-assign]
        first = asyncio.create_task(world.recorder.record(batch(denial(), first=20), strict=True))
        await under_way.wait()
        later = [asyncio.create_task(world.recorder.record(batch(denial(), first=n), strict=True)) for n in (30, 31)]
        await until(lambda: len(world.spool.pending(**ALL)) == 3)
        assert not first.done()
        goes_on.set()
        await asyncio.gather(first, *later)
        assert [len(post) for post in world.ledger.posts[-2:]] == [1, 2]
        assert [one.record_id for one in world.ledger.taken[-3:]] == [record_id(20), record_id(30), record_id(31)]

    play(tmp_path, scenario)


def test_a_queue_that_cannot_be_read_refuses_nothing_that_was_stored_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        await until(lambda: idle(world))
        pending, failures = world.spool.pending, [StorageError("the disk"), sqlite3.OperationalError("the disk")]

        def failing(**bounds: int) -> list[QueuedRecord]:
            if failures:
                raise failures.pop(0)
            return pending(**bounds)

        monkeypatch.setattr(world.spool, "pending", failing)
        await world.recorder.record(batch(denial(), first=20), strict=True)
        await until(lambda: idle(world))
        await world.recorder.record(batch(denial(), first=21), strict=True)
        assert {record_id(20), record_id(21)} <= {one.record_id for one in world.ledger.taken}

    play(tmp_path, scenario, retry_max_seconds=0.01)


# --- gathering -------------------------------------------------------------------------------------------------------

LONG = 10.0
"""Seconds of gathering that no test waits for."""


def posted(world: World, *numbers: int) -> bool:
    return {record_id(number) for number in numbers} <= {one.record_id for one in world.ledger.taken}


def test_what_nobody_waits_for_is_posted_together(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        await until(lambda: len(world.ledger.taken) == 1 and idle(world))  # the first heartbeat
        for number in (20, 21, 22):
            await world.recorder.record(batch(denial(), first=number), strict=False)
        assert len(world.ledger.posts) == 1

    world = play(tmp_path, scenario, gather_seconds=LONG)
    assert posted(world, 20, 21, 22)
    assert world.ledger.posts[1][:3] == [2, 3, 4]


def test_what_somebody_waits_for_ends_the_gathering_and_takes_what_was_gathered_along_in_order(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        await world.recorder.record(batch(denial(), first=20), strict=False)
        await world.recorder.record(batch(denial(), first=21), strict=False)
        assert not posted(world, 20)
        await world.recorder.record(batch(denial(), first=22), strict=True)
        assert [one.record_id for one in world.ledger.taken[-3:]] == [record_id(20), record_id(21), record_id(22)]

    play(tmp_path, scenario, gather_seconds=LONG)


def test_a_full_request_is_not_kept_back(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        for number in range(20, 24):
            await world.recorder.record(batch(denial(), first=number), strict=False)
        await until(lambda: posted(world, 20, 21, 22))

    play(tmp_path, scenario, gather_seconds=LONG, batch_records=4)


def test_a_recorder_that_stops_posts_what_it_gathered_at_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        await world.recorder.record(batch(denial(), first=20), strict=False)
        assert not posted(world, 20)

    world = play(tmp_path, scenario, gather_seconds=LONG)
    assert posted(world, 20)
    stop = world.ledger.bodies()[-1]
    assert isinstance(stop, Heartbeat)
    assert stop.kind == "stop"


def test_without_time_to_gather_each_record_is_posted_as_it_comes(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        for number in (20, 21):
            await until(lambda: idle(world))
            await world.recorder.record(batch(denial(), first=number), strict=False)
            await until(lambda number=number: posted(world, number))  # type: ignore[misc]
        assert [len(post) for post in world.ledger.posts[1:]] == [1, 1]

    play(tmp_path, scenario, gather_seconds=0)


def test_a_gathering_that_ends_while_a_strict_record_is_read_for_it_posts_nothing_twice(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()

        async def calls(first: int) -> None:
            for number in range(first, first + 30):
                await world.recorder.record(batch(denial(), first=number), strict=number % 3 == 0)

        await asyncio.gather(*(calls(first) for first in (100, 200, 300, 400)))
        await until(lambda: len(world.ledger.taken) == 121)

    world = play(tmp_path, scenario, gather_seconds=0.001)
    ids = [one.record_id for one in world.ledger.taken]
    assert len(ids) == len(set(ids)) == 122
    assert [one.seq for one in world.ledger.taken] == list(range(1, 123))


# --- what fails ------------------------------------------------------------------------------------------------------


def test_a_strict_record_that_the_ledger_does_not_take_in_time_is_an_error_and_stays_spooled(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.ledger.answer = lambda _: Unavailable("unreachable")
        await world.recorder.start()
        with pytest.raises(UpstreamError):
            await world.recorder.record(batch(denial()), strict=True)
        assert not world.recorder.reachable
        assert record_id(0) in {one.record_id for one in world.spool.pending(**ALL)}

    play(tmp_path, scenario, strict_seconds=0.05)


def test_a_strict_record_that_the_ledger_refuses_is_an_error_at_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        world.ledger.answer = lambda records: (
            Refused(422, conflict=False) if any(one.record_id == record_id(0) for one in records) else None
        )
        with pytest.raises(UpstreamError, match="refused"):
            await world.recorder.record(batch(denial()), strict=True)

    play(tmp_path, scenario, strict_seconds=60)


def test_concurrent_records_share_a_transaction(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        sizes: list[int] = []
        append = world.spool.append

        def counting(batches: Any) -> Any:
            sizes.append(len(batches))
            return append(batches)

        world.spool.append = counting  # type: ignore[method-assign]  # to look inside
        calls = [world.recorder.record(batch(denial(), first=number), strict=False) for number in range(20)]
        results = await asyncio.gather(*calls)
        assert sorted(record.seq for records in results for record in records) == list(range(1, 21))
        assert len(sizes) < 5
        assert sum(sizes) == 20

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (batch(denial(reason="no name"), first=5), MalformedError),
        (batch(outcome(record_id(77)), first=5), ConflictError),
        (batch(decision(payload=b"x" * 200_000), first=5), OverloadedError),
    ],
)
def test_one_that_is_refused_does_not_touch_the_others(tmp_path: Path, bad: Any, error: type[LedgerError]) -> None:
    async def scenario(world: World) -> None:
        good, refused, other = await asyncio.gather(
            world.recorder.record(batch(denial()), strict=False),
            world.recorder.record(bad, strict=False),
            world.recorder.record(batch(denial(), first=9), strict=False),
            return_exceptions=True,
        )
        assert isinstance(good, list)
        assert isinstance(other, list)
        assert isinstance(refused, error)

    play(tmp_path, scenario, spool={"max_bytes": 100_000})


@pytest.mark.parametrize("error", [OSError("disk"), StorageError("disk"), RuntimeError("bug")])
def test_a_spool_that_fails_is_a_storage_error_for_all_who_wait(tmp_path: Path, error: Exception) -> None:
    async def scenario(world: World) -> None:
        append = world.spool.append

        def fail(_: object) -> Any:
            raise error

        world.spool.append = fail  # type: ignore[method-assign]  # the disk is gone
        calls = [world.recorder.record(batch(denial(), first=number), strict=False) for number in range(3)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, StorageError) for result in results)
        assert not world.recorder.storing
        world.spool.append = append  # type: ignore[method-assign]  # and back
        assert await world.recorder.record(batch(denial(), first=9), strict=False)
        assert world.recorder.storing

    play(tmp_path, scenario)


def test_cancelling_the_caller_does_not_undo_its_record(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        task = asyncio.create_task(world.recorder.record(batch(denial()), strict=False))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await world.recorder.record(batch(denial(), first=1), strict=False)
        assert [one.record_id for one in world.spool.pending(**ALL)] == [record_id(0), record_id(1)]

    play(tmp_path, scenario)


def test_calls_that_the_last_run_left_open_get_the_outcome_unknown(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(decision(user="0b" * 16), decision(), outcome(record_id(1)), denial())])
    state.close()

    async def scenario(world: World) -> None:
        await world.recorder.start()
        await world.recorder.record(batch(denial(), first=50), strict=True)

    outcomes = [body for body in play(tmp_path, scenario).ledger.bodies() if isinstance(body, Outcome)]
    assert [(body.decision_id, body.status) for body in outcomes] == [
        (record_id(1), "completed"),
        (record_id(0), "unknown"),
    ]
    assert (outcomes[1].reason, outcomes[1].user) == ("gateway_restarted", "0b" * 16)


def test_a_full_spool_does_not_keep_a_gateway_from_starting(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(decision(payload=b"x" * 90_000))])
    state.close()

    async def scenario(world: World) -> None:
        world.ledger.answer = lambda _: Unavailable("unreachable")
        await world.recorder.start()
        assert world.spool.open_calls() == []

    play(tmp_path, scenario, spool={"max_bytes": 1 << 16})


def test_a_conflict_announces_the_new_epoch(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        old = world.spool.epoch
        world.ledger.answer = lambda records: Refused(409, conflict=True) if records[0].epoch == old else None
        await world.recorder.start()
        async with asyncio.timeout(5):
            while not world.ledger.taken:  # noqa: ASYNC110  # a background task brings it about
                await asyncio.sleep(0.001)
        first = decode_entry(world.ledger.taken[0].entry)
        assert isinstance(first.body, Heartbeat)
        assert (first.seq, first.body.kind, first.body.previous_epoch) == (1, "start", old)

    play(tmp_path, scenario)


def test_the_drain_goes_on_after_a_fault_of_the_spool(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        pending, failures = world.spool.pending, [OSError("disk"), OSError("disk")]

        def flaky(**bounds: int) -> Any:
            if failures:
                raise failures.pop()
            return pending(**bounds)

        world.spool.pending = flaky  # type: ignore[method-assign, assignment]  # fails twice
        await world.recorder.start()
        await world.recorder.record(batch(denial()), strict=True)

    play(tmp_path, scenario)


def test_heartbeats_come_on_their_own(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        async with asyncio.timeout(5):
            while sum(isinstance(b, Heartbeat) and b.kind == "periodic" for b in world.ledger.bodies()) < 2:  # noqa: ASYNC110  # a background task brings it about
                await asyncio.sleep(0.001)

    play(tmp_path, scenario, heartbeat_seconds=0.01)


def test_stopping_does_not_wait_for_a_ledger_that_is_away(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.ledger.answer = lambda _: Unavailable("unreachable")
        await world.recorder.start()
        async with asyncio.timeout(5):
            await world.recorder.stop()
        assert world.spool.depth().records == 2

    play(tmp_path, scenario, stop_seconds=60)


def test_a_record_that_arrives_while_the_spool_seems_empty_is_posted_before_the_end(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.recorder.start()
        await world.recorder.record(batch(denial()), strict=True)
        step, seen_empty, go_on = world.recorder._drainer.step, asyncio.Event(), asyncio.Event()

        async def slowly() -> float | None:
            pause = await step()
            if pause is None and not seen_empty.is_set():
                seen_empty.set()
                await go_on.wait()  # the last heartbeat arrives meanwhile
            return pause

        world.recorder._drainer.step = slowly  # type: ignore[method-assign]  # to meet the moment
        world.recorder._wake.set()
        await seen_empty.wait()
        stopping = asyncio.create_task(world.recorder.stop())
        while world.spool.depth().records == 0:  # noqa: ASYNC110  # another thread appends
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        go_on.set()
        await stopping
        assert world.spool.depth().records == 0

    last = play(tmp_path, scenario).ledger.bodies()[-1]
    assert isinstance(last, Heartbeat)
    assert last.kind == "stop"


def test_nothing_follows_the_last_heartbeat(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        post = world.ledger.post

        async def slowly(records: Any) -> Any:
            await asyncio.sleep(0.05)  # many heartbeats' time
            return await post(records)

        world.ledger.post = slowly  # type: ignore[method-assign]  # a slow ledger
        await world.recorder.start()

    last = play(tmp_path, scenario, heartbeat_seconds=0.005, stop_seconds=5).ledger.bodies()[-1]
    assert isinstance(last, Heartbeat)
    assert last.kind == "stop"
