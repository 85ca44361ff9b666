"""Lanes: whoever asks takes turns with the others who ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from policies.turns import Lane


@pytest.fixture
def lane() -> Iterator[Lane]:
    """A lane with one thread, for the one beyond it is held by somebody else."""
    made, gate = Lane("test", 1), threading.Event()
    made.submit("held", gate.wait)
    yield made
    gate.set()
    made.close()


def test_name_whose_work_takes_for_ever_holds_nobody_else_up():
    lane, gate = Lane("test", 2), threading.Event()
    try:
        long = [lane.submit("long", gate.wait) for _ in range(5)]
        assert [lane.submit(name, lambda name=name: name).result(10) for name in "abab"] == list("abab")
        assert not any(future.done() for future in long)
    finally:
        gate.set()
        lane.close()


def test_no_name_has_more_threads_than_it_may():
    lane, both, gate = Lane("test", 2), threading.Barrier(3), threading.Event()
    try:
        first = [lane.submit("long", lambda: (both.wait(30), gate.wait(30))) for _ in range(2)]
        both.wait(30)
        third = lane.submit("long", lambda: "third")
        assert lane.submit("other", lambda: "other").result(30) == "other"
        assert not third.running()
        assert not third.done()
        gate.set()
        assert third.result(30) == "third", "who passes a name over comes back to it"
        for future in first:
            future.result(30)
    finally:
        gate.set()
        lane.close()


def test_work_of_many_names_is_all_done():
    lane, done = Lane("test", 2), list[str]()
    futures = [lane.submit(str(number % 7), lambda number=number: done.append(str(number))) for number in range(2000)]
    for future in futures:
        future.result(30)
    lane.close()
    assert sorted(done, key=int) == [str(number) for number in range(2000)]


def test_name_with_little_work_waits_for_one_turn_of_the_others(lane):
    gate, order = threading.Event(), list[str]()
    first = lane.submit("long", gate.wait)
    long = [lane.submit("long", lambda: order.append("long")) for _ in range(50)]
    short = [lane.submit(name, lambda name=name: order.append(name)) for name in ("b", "c")]
    gate.set()
    for future in [first, *short, *long]:
        future.result(30)
    assert sorted(order[:3]) == ["b", "c", "long"]
    assert order.count("long") == 50


def test_work_of_one_name_keeps_its_order(lane):
    order: list[int] = []
    futures = [lane.submit("a", lambda number=number: order.append(number)) for number in range(100)]
    for future in futures:
        future.result(30)
    assert order == list(range(100))


def test_work_that_was_cancelled_is_not_done(lane):
    gate, done = threading.Event(), list[str]()
    first = lane.submit("a", gate.wait)
    second = lane.submit("a", lambda: done.append("second"))
    assert second.cancel()
    gate.set()
    first.result(30)
    lane.submit("a", lambda: None).result(30)
    assert done == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_work_raises_reaches_who_asked_and_ends_no_thread(lane, error):
    def fail() -> None:
        raise error

    with pytest.raises(error):
        lane.submit("a", fail).result(30)
    assert lane.submit("a", lambda: 1).result(30) == 1


def test_closing_cancels_what_waits_and_takes_no_more():
    lane = Lane("test", 1)
    gate, entered = threading.Event(), threading.Event()

    def hold() -> str:
        entered.set()
        gate.wait(30)
        return "done"

    held, waiting = lane.submit("a", hold), lane.submit("a", lambda: "never")
    assert entered.wait(30)
    closing = threading.Thread(target=lane.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(30)
    gate.set()
    closing.join(30)
    assert held.result(30) == "done"
    with pytest.raises(RuntimeError):
        lane.submit("a", lambda: None)
