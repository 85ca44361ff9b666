"""How times, ages and sizes are written."""

from __future__ import annotations

import pytest

from service.web.wording import age, iso, moment, number, quantity, short, size


def test_a_time_is_written_in_utc_to_the_second():
    assert moment(1_763_546_400_999) == "2025-11-19 10:00:00"
    assert iso(1_763_546_400_999) == "2025-11-19T10:00:00.999Z"


@pytest.mark.parametrize("time_ms", [2**53 - 1, 253_402_300_800_000])
def test_a_time_outside_the_calendar_is_written_as_what_it_is(time_ms):
    assert moment(time_ms) == f"{time_ms} ms after 1970"
    assert iso(time_ms) == ""


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (-5_000, "under 10 s"),
        (9_999, "under 10 s"),
        (10_000, "10 s"),
        (59_999, "50 s"),
        (60_000, "1 min"),
        (3_599_999, "59 min"),
        (3_600_000, "1 h"),
        (2 * 86_400_000 - 1, "47 h"),
        (2 * 86_400_000, "2 days"),
        (3_000 * 86_400_000, "3,000 days"),
    ],
)
def test_an_age_is_coarse_and_never_too_young(milliseconds, words):
    assert age(milliseconds) == words


def test_counts_sizes_and_digests():
    assert number(1_234_567) == "1,234,567"
    assert (quantity(0, "record"), quantity(1, "record"), quantity(2, "record")) == (
        "0 records",
        "1 record",
        "2 records",
    )
    assert (size(1023), size(1024), size(1_500_000)) == ("1,023 B", "1.0 KiB", "1,464.8 KiB")
    assert short("0123456789abcdef") == "0123456789ab"
