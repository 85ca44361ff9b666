"""The offset of a gateway's clock: what answers that say the service's time prove, and to within what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcement.clock_offset import ClockOffset, Offset

T = 1_763_982_000_000


def measured(*samples: tuple[int, int, int], now_ms: int = T) -> Offset | None:
    clock = ClockOffset()
    for sent_ms, service_ms, received_ms in samples:
        clock.sample(sent_ms=T + sent_ms, service_ms=T + service_ms, received_ms=T + received_ms)
    return clock.measured(now_ms)


def test_without_an_answer_nothing_is_known() -> None:
    assert measured() is None


def test_a_clock_that_agrees_is_off_by_nothing_to_within_half_a_round_trip() -> None:
    assert measured((-10, -5, 0)) == Offset(0, 6)


def test_a_clock_that_is_ahead_has_a_positive_offset() -> None:
    assert measured((-10, -3005, 0)) == Offset(3000, 6)


def test_a_clock_that_is_behind_has_a_negative_one() -> None:
    assert measured((-10, 2995, 0)) == Offset(-3000, 6)


@given(ahead=st.integers(-(10**7), 10**7), there=st.integers(0, 60_000), back=st.integers(0, 60_000))
def test_the_true_offset_always_lies_within_the_bound(ahead: int, there: int, back: int) -> None:
    found = measured((-there - back, -back - ahead, 0))
    assert found is not None
    assert abs(found.offset_ms - ahead) <= found.bound_ms


def test_the_quickest_answer_counts_and_not_the_newest_that_was_held() -> None:
    assert measured((-40_000, -39_998, -39_996), (-30_000, -5, 0)) == Offset(0, 3)


def test_of_two_as_quick_the_newer_counts() -> None:
    assert measured((-104, -102, -100), (-4, -1, 0)) == Offset(-1, 3)


def test_an_answer_that_contradicts_the_others_says_that_a_clock_was_set() -> None:
    assert measured((-104, -102, -100), (-20, -5010, 0)) == Offset(5000, 11)


@pytest.mark.parametrize("step", [-1, -5000])
def test_an_answer_before_its_question_measures_nothing_and_ends_what_was_known(step: int) -> None:
    assert measured((-104, -102, -100), (0, 0, step)) is None


@pytest.mark.parametrize("age_ms", [600_001, 10**9, -1])
def test_what_is_old_or_of_the_future_says_nothing(age_ms: int) -> None:
    assert measured((-10, -5, 0), now_ms=T + age_ms) is None


def test_what_is_kept_has_a_bound() -> None:
    best = [(-100_004, -100_002, -100_000)]
    slower = [(-1000 * number - 50, -1000 * number - 25, -1000 * number) for number in range(16, 0, -1)]
    assert measured(*best) == Offset(0, 3)
    assert measured(*best, *slower) == Offset(0, 26)
