"""Clocks."""

from __future__ import annotations

import pytest

from ledger.clock import SimulatedClock, SystemClock
from ledger.errors import ConfigError


def test_a_simulated_clock_stands_still_until_it_is_moved_and_says_that_it_is_one() -> None:
    clock = SimulatedClock(1_000)
    assert clock.simulated
    assert [clock.now_ms(), clock.now_ms()] == [1_000, 1_000]
    clock.advance(5)
    clock.advance_to(1_005)
    assert clock.now_ms() == 1_005


@pytest.mark.parametrize("move", [lambda clock: clock.advance_to(999), lambda clock: clock.advance(-1)])
def test_a_simulated_clock_does_not_run_backwards(move) -> None:
    clock = SimulatedClock(1_000)
    with pytest.raises(ConfigError, match="backwards"):
        move(clock)
    assert clock.now_ms() == 1_000


def test_the_system_clock_counts_milliseconds_and_is_not_simulated() -> None:
    clock = SystemClock()
    assert not clock.simulated
    # After this was written, and before milliseconds could be mistaken for microseconds.
    assert 1_760_000_000_000 < clock.now_ms() < 10**14
