"""Lanes: whoever asks takes turns with the others who ask."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest

from policies.turns import Lane


@pytest.fixture
def lane() -> Iterator[Lane]:
    made = Lane("test", 1)
    yield made
    made.close()


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

    held, waiting = lane.submit("a", hold), lane.submit("b", lambda: "never")
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
