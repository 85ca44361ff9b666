"""Departures and baselines in words: every detector has some, and what is not known is never told as good news."""

from __future__ import annotations

import pytest

from enforcement.profiles.tallies import Tally
from enforcement.profiles.thresholds import DETECTORS, JOB_DETECTORS
from ledger.bodies_drift import BaselineEvent
from service.drift import Disposition
from service.drift_book import BaselineLife
from service.drift_words import CLOSED_AS, baseline_words, blind_words, detector_words, measured_words


def life(state: str, **members: object) -> BaselineLife:
    last = BaselineEvent(action="progress", agent="clerk", **members)
    return BaselineLife(agent="clerk", enforcer="gateway-1", state=state, last=last, leaf=7, time_ms=0)


@pytest.mark.parametrize("detector", [*DETECTORS, *JOB_DETECTORS])
def test_every_detector_is_told_in_words(detector):
    assert " " in detector_words(detector)
    assert measured_words(detector, 1234, 200)


def test_a_detector_of_another_release_is_told_by_its_name():
    assert detector_words("of_next_year") == "of_next_year"
    assert measured_words("of_next_year", 1500, 1000) == "1.5, above 1"
    assert detector_words(None) == "a departure"


@pytest.mark.parametrize(
    ("detector", "value", "threshold", "words"),
    [
        ("new_tool", 1000, 0, "never before in the baseline"),
        ("rate", 1_341_000, 210_000, "1,341, and 210 would have been as usual"),
        ("tool_mix", 204, 200, "0.204, above 0.2"),
        ("unusual_hour", 0, 1, "0 of 1,000 calls of the baseline were around this hour, fewer than 1"),
        ("decision_mix", 12_010, 12_000, "12.01, above 12"),
    ],
)
def test_thousandths_are_told_as_people_write_numbers(detector, value, threshold, words):
    assert measured_words(detector, value, threshold) == words


@pytest.mark.parametrize("what", [f"saturated:{name}" for name in Tally.__struct_fields__ if name != "saturated"])
def test_whatever_a_tally_can_be_full_of_is_told(what):
    assert blind_words(what)  # the record's own word at least


def test_what_a_baseline_cannot_tell_is_told_in_words():
    for what in ("sparse:transitions", "sparse:features", "sparse:weekends", "saturated:tools"):
        assert blind_words(what) != what
    assert blind_words("of:next-year") == "of:next-year"


def test_every_word_a_person_may_close_with_is_told():
    assert set(CLOSED_AS) == set(Disposition.__args__)


def test_how_much_is_missing_is_told_in_numbers():
    words = baseline_words(life("learning", calls=1, days=1, needed_calls=499, needed_days=6))
    assert words.startswith("learned from 1 call on 1 day; it takes 499 more calls on 6 more days, and until then")


def test_a_baseline_is_told_with_what_it_is_of():
    words = baseline_words(life("ready", baseline_version=2, calls=1200, days=9, tools=1))
    assert words == "version 2, of 1,200 calls on 9 days and 1 tool"


def test_no_baseline_is_told_as_none():
    assert baseline_words(life("none")).startswith("nothing is known")
