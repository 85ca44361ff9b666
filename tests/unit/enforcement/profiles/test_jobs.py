"""What departs from a declared job is flagged from the first call on, once a day, with no baseline."""

from __future__ import annotations

import pytest

from enforcement.profiles.jobs import off_job
from enforcement.profiles.keeping import drift_body
from enforcement.profiles.observing import Observation
from enforcement.profiles.profile import AgentProfile, decode_profile, encode_profile
from enforcement.profiles.thresholds import Thresholds

NOW = 1_763_982_000_000
DAY_MS = 86_400_000


def call(now_ms: int = NOW, tool: str = "shop/export") -> Observation:
    return Observation(
        decision_id="019a9c14-6d80-7abc-8def-000000000001",
        agent="clerk",
        now_ms=now_ms,
        day="2025-11-24",
        hour=12,
        session="5" * 32,
        server="shop",
        tool=tool,
        features=(),
        size=3,
        target="t",
    )


@pytest.mark.parametrize(
    ("reason", "detector", "subject"),
    [
        ("tool", "off_job_tool", "shop/export"),
        ("first", "off_job_order", "shop/export"),
        ("next", "off_job_order", "shop/export"),
        ("hours", "off_job_hours", "shop/export"),
        ("calls_per_hour", "off_job_volume", "calls_per_hour"),
        ("targets_per_day", "off_job_volume", "targets_per_day"),
    ],
)
def test_each_way_out_of_a_job_has_its_detector(reason, detector, subject):
    (found,) = off_job([reason], "shop/export")
    assert (found.detector, found.subject) == (detector, subject)


def test_two_jobs_that_say_the_same_of_a_call_are_one_departure():
    assert len(off_job(["tool", "tool"], "shop/export")) == 1
    assert [one.detector for one in off_job(["first", "next"], "shop/export")] == ["off_job_order"]
    assert off_job([], "shop/export") == ()


def test_it_is_flagged_without_a_baseline_and_says_that_there_is_none():
    profile = AgentProfile(agent="clerk")
    (flag,) = profile.take_off_job(call(), off_job(["tool"], "shop/export"))
    body = drift_body(profile, flag, "019a9c14-6d80-7abc-8def-00000000000f", Thresholds())
    assert (body.detector, body.subject, body.baseline_version, body.thresholds) == (
        "off_job_tool",
        "shop/export",
        0,
        None,
    )
    assert body.decisions == (call().decision_id,)
    assert (body.since_ms, body.until_ms) == (0, 0)


def test_the_same_is_flagged_once_a_day_and_again_after_it():
    profile = AgentProfile(agent="clerk")
    found = off_job(["tool"], "shop/export")
    assert len(profile.take_off_job(call(), found)) == 1
    assert profile.take_off_job(call(NOW + 1), found) == ()
    again = decode_profile(encode_profile(profile))  # after a restart as well
    assert again.take_off_job(call(NOW + DAY_MS - 1), found) == ()
    assert len(again.take_off_job(call(NOW + DAY_MS), found)) == 1


def test_what_departs_in_another_way_is_flagged_beside_it():
    profile = AgentProfile(agent="clerk")
    profile.take_off_job(call(), off_job(["tool"], "shop/export"))
    assert len(profile.take_off_job(call(), off_job(["hours", "tool"], "shop/export"))) == 1
    assert len(profile.take_off_job(call(tool="shop/wire"), off_job(["tool"], "shop/wire"))) == 1
