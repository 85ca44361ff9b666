"""Failing is bounded: for each address, for the records that it costs, and in memory."""

from __future__ import annotations

import pytest

from service.web.throttle import LoginThrottle, ThrottleLimits, network_of

NOW = 1_763_546_400_000
LIMITS = ThrottleLimits(window_seconds=300, failures=3, records=5, addresses=4)


def failing(times: int, address: str = "192.0.2.1", *, limits: ThrottleLimits = LIMITS) -> LoginThrottle:
    throttle = LoginThrottle(limits)
    for _ in range(times):
        throttle.failed(address, NOW)
    return throttle


def test_an_address_that_never_failed_need_not_wait():
    assert LoginThrottle().wait_seconds("192.0.2.1", NOW) == 0


def test_the_last_failure_that_is_let_pass_is_the_limit():
    assert failing(2).wait_seconds("192.0.2.1", NOW) == 0
    assert failing(3).wait_seconds("192.0.2.1", NOW) == 300


def test_the_wait_grows_shorter_and_ends_with_the_window():
    throttle = failing(3)
    assert throttle.wait_seconds("192.0.2.1", NOW + 299_001) == 1
    assert throttle.wait_seconds("192.0.2.1", NOW + 300_000) == 0


def test_after_the_window_counting_starts_again():
    throttle = failing(3)
    later = NOW + 300_000
    throttle.failed("192.0.2.1", later)
    assert throttle.wait_seconds("192.0.2.1", later) == 0


def test_another_address_is_not_held_for_it():
    assert failing(3).wait_seconds("192.0.2.2", NOW) == 0


def test_addresses_of_one_ipv6_network_are_one():
    throttle = LoginThrottle(LIMITS)
    for host in range(3):
        throttle.failed(f"2001:db8::{host}", NOW)
    assert throttle.wait_seconds("2001:db8::ffff", NOW) > 0
    assert throttle.wait_seconds("2001:db8:0:1::1", NOW) == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("testclient", "testclient"),
    ],
)
def test_what_an_address_is_counted_under(address, network):
    assert network_of(address) == network


def test_ipv4_mapped_addresses_do_not_share_one_count():
    assert network_of("::ffff:192.0.2.1") != network_of("::ffff:192.0.2.2")


def test_only_so_many_failures_of_all_addresses_are_recorded():
    throttle = LoginThrottle(LIMITS)
    recorded = [throttle.failed(f"192.0.2.{i}", NOW) for i in range(8)]
    assert recorded == [True] * 5 + [False] * 3
    assert throttle.failed("192.0.2.9", NOW + 300_000)


def test_memory_is_bounded_whoever_comes():
    throttle = LoginThrottle(LIMITS)
    for i in range(1000):
        throttle.failed(f"198.51.{i // 256}.{i % 256}", NOW)
    assert len(throttle._windows) == LIMITS.addresses


def test_whoever_keeps_failing_is_not_forgotten_first():
    throttle = LoginThrottle(LIMITS)
    for i in range(6):
        throttle.failed("192.0.2.1", NOW)
        throttle.failed(f"198.51.100.{i}", NOW)
    assert throttle.wait_seconds("192.0.2.1", NOW) > 0
