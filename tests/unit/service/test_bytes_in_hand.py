"""The bytes that a log's enforcers have sent and that wait for an answer: counted, bounded, given back."""

from __future__ import annotations

import pytest

from ledger.errors import OverloadedError
from service.fairness import Bytes


def test_what_is_taken_is_given_back_when_the_request_ends():
    of_log = Bytes(100)
    with of_log.take() as first, of_log.take() as second:
        first.reach(60)
        second.reach(40)
        assert of_log.taken == 100
    assert of_log.taken == 0


def test_a_request_that_grows_is_counted_once():
    of_log = Bytes(100)
    with of_log.take() as room:
        for size in (10, 50, 50, 20, 100):
            room.reach(size)
        assert of_log.taken == 100


def test_beyond_the_bound_nothing_is_taken():
    of_log = Bytes(100)
    with of_log.take() as first, of_log.take() as second:
        first.reach(70)
        second.reach(30)
        with pytest.raises(OverloadedError, match="100 bytes"):
            second.reach(31)
        assert of_log.taken == 100
    with of_log.take() as third:
        third.reach(100)


def fail_after_taking(of_log: Bytes) -> None:
    with of_log.take() as room:
        room.reach(100)
        raise ValueError("broken")


def test_a_request_that_fails_gives_back_what_it_took():
    of_log = Bytes(100)
    with pytest.raises(ValueError, match="broken"):
        fail_after_taking(of_log)
    assert of_log.taken == 0
