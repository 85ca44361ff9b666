"""Figures, times and digests are written in one way, whatever the locale, the zone files and the rounding of floats."""

from __future__ import annotations

import pytest

from ledger.errors import EvidenceError
from reports.wording import Times, names, number, percent, quantity, ranges, share, short, target

THREE_AT_NIGHT_MS = 1_763_517_612_000
"""2025-11-19 02:00:12 UTC, 03:00:12 in Berlin."""


def test_a_part_is_never_written_without_its_whole() -> None:
    assert share(1_234, 56_789) == "1,234 of 56,789"


@pytest.mark.parametrize(("value", "text"), [(0, "0 records"), (1, "1 record"), (2_000, "2,000 records")])
def test_a_quantity_has_its_plural(value: int, text: str) -> None:
    assert quantity(value, "record") == text


def test_an_irregular_plural_is_given() -> None:
    assert quantity(2, "witness", "witnesses") == "2 witnesses"
    assert quantity(1, "witness", "witnesses") == "1 witness"


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (1, 3, "33.3"),
        (2, 3, "66.7"),
        (1, 8, "12.5"),
        (1, 2000, "0.1"),
        (1, 2001, "0.0"),
        (5, 5, "100.0"),
        (0, 7, "0.0"),
    ],
)
def test_percentages_are_rounded_half_up_in_whole_numbers(part: int, whole: int, text: str) -> None:
    assert percent(part, whole) == f"{text}\u00a0%"


def test_a_share_of_nothing_is_a_dash_and_no_division() -> None:
    assert percent(0, 0) == "\u2013"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0123456789abcdef" * 4, "0123456789ab…"),
        ("cd" * 16, "cdcdcdcdcdcd…"),
        ("1b16cfd2", "1b16cfd2"),  # the id of a C2SP key
        ("a" * 31, "a" * 31),
        ("T" * 64, "T" * 64),
        (f"by {'cd' * 16}", f"by {'cd' * 16}"),
        ("ab" * 32 + "\n", "ab" * 32 + "\n"),
    ],
)
def test_a_digest_is_shortened_openly_and_what_is_none_stays_whole(value: str, shown: str) -> None:
    assert short(value) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"session {'ab' * 16}", "session abababababab…"),
        (f"bundle {'ab' * 32}", "bundle abababababab…"),
        (f"enforcer {'ab' * 16}", f"enforcer {'ab' * 16}"),  # a name that somebody chose
        ("record 7c0e4f3a-5a1d-5d0e-9d0b-2f6a1c9e8b47", "record 7c0e4f3a-5a1d-5d0e-9d0b-2f6a1c9e8b47"),
        ("decisions", "decisions"),
    ],
)
def test_the_target_of_an_access_is_shortened_only_where_it_is_a_digest_or_pseudonym(text: str, shown: str) -> None:
    assert target(text) == shown


def test_ranges_beyond_the_cap_are_counted() -> None:
    assert ranges([(1, 3), (5, 5), (7, 9)], 2) == "1\u20133, 5, and 1 more range"
    assert ranges([(1, 3), (5, 5), (7, 9), (11, 11)], 2) == "1\u20133, 5, and 2 more ranges"
    assert ranges([(1000, 1000)], 2) == "1000"
    assert ranges([], 2) == "none"


def test_names_beyond_the_cap_are_counted() -> None:
    assert names(("a", "b", "c"), 2) == "a, b, and 1 more"
    assert names(("a", "b"), 2) == "a, b"
    assert names((), 2) == "none"


def test_thousands_are_set_apart() -> None:
    assert number(1_234_567) == "1,234,567"


def test_a_time_is_written_in_its_zone_and_in_utc() -> None:
    assert Times("Europe/Berlin").both(THREE_AT_NIGHT_MS) == (
        "2025-11-19 03:00:12 Europe/Berlin (2025-11-19 02:00:12 UTC)"
    )
    assert Times("Europe/Berlin").minute(THREE_AT_NIGHT_MS) == "03:00"


def test_utc_is_written_once() -> None:
    assert Times("UTC").both(THREE_AT_NIGHT_MS) == "2025-11-19 02:00:12 UTC"


def test_a_date_has_its_time_unless_it_is_midnight() -> None:
    midnight_in_berlin_ms = THREE_AT_NIGHT_MS - (3 * 3600 + 12) * 1000
    assert Times("Europe/Berlin").date(midnight_in_berlin_ms) == "19 November 2025"
    assert Times("UTC").date(midnight_in_berlin_ms) == "18 November 2025, 23:00"


def test_summer_time_is_known() -> None:
    july_ms = 1_751_328_000_000  # 2025-07-01 00:00 UTC
    assert Times("Europe/Berlin").stamp(july_ms) == "2025-07-01 02:00:00"


def test_a_time_before_1970_is_a_time() -> None:
    assert Times("UTC").utc(-1_000) == "1969-12-31 23:59:59 UTC"


@pytest.mark.parametrize(
    "zone", ["Nowhere/City", "Europe", "", "../../etc/passwd", "/etc/localtime", "Europe/Berlin\n", "a" * 99]
)
def test_what_is_no_zone_is_refused_and_never_opened_as_a_path(zone: str) -> None:
    with pytest.raises(EvidenceError, match="time zone"):
        Times(zone)


@pytest.mark.parametrize("time_ms", [10**18, -(10**18), 2**53 - 1, 253_402_300_800_000])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_a_time_outside_the_calendar_is_written_as_the_number_that_it_is(time_ms: int, zone: str) -> None:
    times = Times(zone)
    for written in (times.stamp, times.minute, times.utc, times.both, times.date):
        assert written(time_ms) == f"{time_ms} ms after 1970"


def test_a_time_that_only_one_of_the_two_calendars_has_is_written_as_a_number_where_it_is_missing() -> None:
    last_ms = 253_402_300_799_000
    assert Times("UTC").stamp(last_ms) == "9999-12-31 23:59:59"
    assert Times("Europe/Berlin").both(last_ms) == "9999-12-31 23:59:59 UTC"
    assert Times("Europe/Berlin").stamp(last_ms) == f"{last_ms} ms after 1970"
