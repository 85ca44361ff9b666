"""Turns: what one log's flood takes, the others do not wait for. Counted, not timed."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from ledger.errors import OverloadedError
from service.fairness import FairExecutor, LargeTurns, Places, current_log, takes_records

WAIT = 20


class Crowd:
    """Submits work of logs, and notes who was served when."""

    def __init__(self, threads: int, share: int) -> None:
        self.executor = FairExecutor(threads, share)
        self.gate = threading.Event()
        self.served: list[str] = []
        self.inside: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self._lock = threading.Lock()

    def submit(self, log_id: str, *, hangs: bool = False) -> Future[Any]:
        def work() -> str:
            with self._lock:
                self.inside[log_id] = self.inside.get(log_id, 0) + 1
                self.most[log_id] = max(self.most.get(log_id, 0), self.inside[log_id])
            if hangs:
                assert self.gate.wait(WAIT)
            with self._lock:
                self.inside[log_id] -= 1
                self.served.append(log_id)
            return log_id

        return in_log(log_id, lambda: self.executor.submit(work))


def in_log(log_id: str, call: Callable[[], Any]) -> Any:
    context = contextvars.copy_context()
    context.run(current_log.set, log_id)
    return context.run(call)


@pytest.fixture
def crowd() -> Iterator[Callable[[int, int], Crowd]]:
    made: list[Crowd] = []

    def make(threads: int, share: int) -> Crowd:
        made.append(Crowd(threads, share))
        return made[-1]

    yield make
    for one in made:
        one.gate.set()
        one.executor.shutdown()


# --- threads ---------------------------------------------------------------------------------------------------------


def test_the_work_of_another_log_waits_for_one_turn_and_not_for_the_flood(crowd):
    one = crowd(1, 1)
    first = one.submit("flood", hangs=True)
    flood = [one.submit("flood") for _ in range(500)]
    other = one.submit("quiet")
    one.gate.set()
    for future in (first, *flood, other):
        future.result(WAIT)
    # Behind the call that was running, and one more that stood before it.
    assert one.served.index("quiet") <= 2


def test_logs_are_served_in_turn(crowd):
    one = crowd(1, 1)
    one.submit("x", hangs=True)
    futures = [one.submit(log_id) for log_id in ["a"] * 4 + ["b"] * 4 + ["c"] * 2]
    one.gate.set()
    for future in futures:
        future.result(WAIT)
    assert one.served == ["x", "a", "b", "c", "a", "b", "c", "a", "b", "a", "b"]


def test_a_log_whose_calls_all_hang_leaves_threads_for_the_others(crowd):
    one = crowd(4, 3)
    hanging = [one.submit("stuck", hangs=True) for _ in range(50)]
    for _ in range(100):
        assert one.submit("quiet").result(WAIT) == "quiet"
    assert one.most["stuck"] == 3
    assert not any(future.done() for future in hanging)
    one.gate.set()
    assert [future.result(WAIT) for future in hanging] == ["stuck"] * 50
    assert one.most["stuck"] <= 3


def test_a_log_that_is_alone_has_its_share_at_once(crowd):
    one = crowd(4, 3)
    started = [one.submit("only", hangs=True) for _ in range(3)]
    one.gate.set()
    for future in started:
        future.result(WAIT)
    assert one.most["only"] <= 3


def test_strangers_are_one_more_party_and_not_before_the_others(crowd):
    one = crowd(1, 1)
    one.submit("x", hangs=True)
    futures = [one.submit("") for _ in range(50)] + [one.submit("quiet")]
    one.gate.set()
    for future in futures:
        future.result(WAIT)
    assert one.served.index("quiet") <= 2


def test_an_error_is_the_callers_and_its_turn_is_given_back(crowd):
    one = crowd(1, 1)

    def fail() -> None:
        raise ValueError("mine")

    for _ in range(5):
        with pytest.raises(ValueError, match="mine"):
            one.executor.submit(fail).result(WAIT)
    assert one.submit("next").result(WAIT) == "next"


def test_work_that_was_cancelled_before_its_turn_is_not_done(crowd):
    one = crowd(1, 1)
    one.submit("x", hangs=True)
    gone = one.submit("gone")
    assert gone.cancel()
    last = one.submit("last")
    one.gate.set()
    last.result(WAIT)
    assert "gone" not in one.served
    with pytest.raises(CancelledError):
        gone.result(WAIT)


def test_what_waits_at_the_end_is_done_before_the_threads_go(crowd):
    one = crowd(1, 1)
    futures = [one.submit("x", hangs=True), *(one.submit("a") for _ in range(20))]
    one.gate.set()
    one.executor.shutdown()
    assert [future.result(0) for future in futures] == ["x", *["a"] * 20]
    with pytest.raises(RuntimeError, match="after shutdown"):
        one.submit("late")


def test_what_waits_is_cancelled_where_that_is_asked_for(crowd):
    one = crowd(1, 1)
    first, waiting = one.submit("x", hangs=True), [one.submit("a") for _ in range(20)]
    one.gate.set()
    one.executor.shutdown(cancel_futures=True)
    assert first.done()
    assert all(future.done() for future in waiting)


@pytest.mark.parametrize(("threads", "share"), [(1, 0), (1, 2), (0, 0), (4, -1)])
def test_a_share_beyond_the_threads_is_a_mistake(threads, share):
    with pytest.raises(ValueError, match="share"):
        FairExecutor(threads, share)


def test_an_event_loop_takes_it_and_work_is_counted_for_the_task_that_asks():
    served: list[str] = []

    async def ask(log_id: str) -> None:
        current_log.set(log_id)
        await asyncio.to_thread(lambda: served.append(current_log.get()))

    async def scene() -> None:
        asyncio.get_running_loop().set_default_executor(FairExecutor(2, 1))
        await asyncio.gather(*(ask(log_id) for log_id in ("a", "b", "a", "")))

    asyncio.run(scene())
    assert sorted(served) == ["", "a", "a", "b"]


# --- places ----------------------------------------------------------------------------------------------------------


def test_there_are_as_many_places_as_were_given():
    places = Places(2)
    with places.take(), places.take():
        with pytest.raises(OverloadedError, match="2 requests are in hand"), places.take():
            pytest.fail("a third place was given")
        assert places.taken == 2
    assert places.taken == 0


def test_a_place_comes_back_when_its_holder_fails():
    places = Places(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="mine"), places.take():
            raise ValueError("mine")
    assert places.taken == 0


def test_calls_that_hang_leave_what_is_reserved_to_whoever_takes_records():
    gate, began = threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        began.release()
        assert gate.wait(30)

    def submit(executor: FairExecutor, *, takes: bool) -> Future[None]:
        context = contextvars.copy_context()
        context.run(current_log.set, "acme")
        context.run(takes_records.set, takes)
        return context.run(executor.submit, hang)

    with FairExecutor(6, 6, 2) as executor:
        try:
            waiting = [submit(executor, takes=False) for _ in range(10)]
            taking = [submit(executor, takes=True) for _ in range(3)]
            for _ in range(6):
                assert began.acquire(timeout=30)
            assert sum(future.running() for future in waiting) == 4
            assert sum(future.running() for future in taking) == 2
        finally:
            gate.set()
    assert all(future.done() for future in waiting + taking)


LARGE = 1_000_000


async def _admit(turns: LargeTurns, size: int, gate: asyncio.Event, inside: list[int]) -> None:
    async with turns.take(size):
        inside.append(size)
        await gate.wait()


async def _meet(turns: LargeTurns, sizes: list[int]) -> list[int]:
    """Return who is inside when everybody has come, and nobody may go."""
    gate, inside = asyncio.Event(), list[int]()
    tasks = [asyncio.create_task(_admit(turns, size, gate, inside)) for size in sizes]
    for _ in sizes:
        await asyncio.sleep(0)
    met = list(inside)
    gate.set()
    await asyncio.gather(*tasks)
    assert sorted(inside) == sorted(sizes)
    return met


def test_large_batches_are_taken_one_after_the_other():
    assert asyncio.run(_meet(LargeTurns(), [LARGE, LARGE + 1, LARGE + 2])) == [LARGE]


def test_small_requests_wait_for_no_large_batch():
    assert asyncio.run(_meet(LargeTurns(), [LARGE, LARGE + 1, 1, 65_536])) == [LARGE, 1, 65_536]


def test_the_batches_of_one_log_do_not_wait_for_those_of_another():
    async def main() -> None:
        mine, others = LargeTurns(), LargeTurns()
        async with mine.take(LARGE):
            assert await _meet(others, [LARGE]) == [LARGE]

    asyncio.run(main())


@pytest.mark.parametrize("size", [1, LARGE])
def test_a_turn_is_given_back_by_whoever_fails_or_is_cancelled(size):
    async def main() -> None:
        turns = LargeTurns()
        with pytest.raises(ZeroDivisionError):
            async with turns.take(size):
                _ = 1 // 0
        waiting = asyncio.create_task(_admit(turns, size, asyncio.Event(), []))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert await _meet(turns, [size]) == [size]

    asyncio.run(main())
