"""Each detector finds what it is for within the calls that docs/behaviour.md promises, and rarely anything else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from enforcement.profiles.detectors import blind, call_deviations
from enforcement.profiles.profile import decode_profile
from enforcement.profiles.tallies import EDGE
from enforcement.profiles.thresholds import DETECTORS, Thresholds
from tests.support.agents import CLERK, HELPER, NIGHTLY, WORKERS, Step, seeded
from tests.support.behaviour_measured import THRESHOLDS, alarms, delays, document, learned, take
from tests.support.repository import ROOT

PROMISED = {
    "new_server": ("calls another server", (CLERK, NIGHTLY, HELPER), 1),
    "new_tool": ("calls another tool", (CLERK, NIGHTLY, HELPER), 1),
    "new_transition": ("takes its steps in an order of its own", (NIGHTLY,), 3),
    "read_then_send": ("sends out what it read", (CLERK, NIGHTLY, HELPER), 3),
    "argument_shape": ("adds a member that its calls never had", (CLERK, NIGHTLY, HELPER), 5),
    "unusual_hour": ("works twelve hours later", (CLERK,), 1),
    "tool_mix": ("calls one known tool most of the time", (CLERK, NIGHTLY, HELPER), 200),
    "size_shift": ("sends arguments sixteen times as long", (CLERK, NIGHTLY, HELPER), 150),
    "decision_mix": ("is refused every second call", (CLERK, NIGHTLY, HELPER), 30),
    "rate": ("works a hundred times as fast", (CLERK, NIGHTLY), 150),
    "volume": ("works a hundred times as fast", (CLERK, NIGHTLY), 400),
    "targets": ("works a hundred times as fast", (CLERK, NIGHTLY), 150),
    "fan_out": ("tries one tool after the other", (CLERK, NIGHTLY, HELPER), 20),
}
"""What a detector is for, of which agents it can tell, and within how many calls."""


def test_every_detector_has_a_promise():
    assert set(PROMISED) == set(DETECTORS)


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_turn_is_flagged_within_the_calls_that_are_promised(detector):
    turn, workers, within = PROMISED[detector]
    for worker in workers:
        assert delays(worker, turn)[detector] <= within


@pytest.mark.parametrize("detector", DETECTORS)
def test_the_document_makes_the_same_promise(detector):
    """One line for each detector, its number of calls in the last column."""
    text = (ROOT / "docs" / "behaviour.md").read_text()
    (line,) = re.findall(rf"^\| `{detector}` \|.*\|$", text, re.MULTILINE)
    assert line.rstrip(" |").rpartition("|")[2].strip() == str(PROMISED[detector][2])


@pytest.mark.parametrize("worker", WORKERS, ids=lambda worker: worker.name)
def test_an_agent_that_only_does_its_work_is_flagged_less_than_once_in_a_thousand_calls(worker):
    said = alarms(worker)
    assert said.calls >= 30_000
    assert sum(said.flags.values()) * 1000 < said.calls


def test_the_tables_of_the_document_are_what_is_measured():
    text = (ROOT / "docs" / "behaviour.md").read_text()
    assert document() in text, "run: python -m tests.support.behaviour_measured"


# --- what cannot be told is not told


def test_of_too_few_calls_nobody_says_what_is_new_about_a_tool():
    """The clerk's refunds are rare: a step after one that was never seen may be usual."""
    stored, steps = learned(CLERK, 0)
    profile = decode_profile(stored)
    assert profile.reference.left["shop/refund"] < THRESHOLDS.seen
    first = replace(steps[0].call, session="new", tool="shop/refund", server="shop")
    take(profile, Step(first, True))
    after = replace(first, tool="shop/refund", features=("id", "other"))
    found = {item.detector for item in profile.look(after, THRESHOLDS)}
    assert not found & {"new_transition", "argument_shape"}


def test_an_agent_that_works_at_all_hours_has_no_unusual_one_and_one_without_weekends_says_so():
    assert delays(NIGHTLY, "works twelve hours later") == {}
    assert "sparse:weekends" in blind(decode_profile(learned(CLERK, 0)[0]).reference, THRESHOLDS)
    assert "sparse:weekends" not in blind(decode_profile(learned(NIGHTLY, 0)[0]).reference, THRESHOLDS)


def test_one_way_from_reading_to_sending_that_is_known_explains_it():
    stored, steps = learned(NIGHTLY, 0)
    profile = decode_profile(stored)
    reads = next(step for step in steps if step.call.tool == "db/select")
    take(profile, Step(replace(reads.call, session="s"), True))
    send = replace(reads.call, session="s", tool="mail/send", server="mail", reads=False, sends=True)
    assert f"db/select{EDGE}mail/send" in profile.reference.chains
    assert "read_then_send" not in {item.detector for item in profile.look(send, THRESHOLDS)}
    other = replace(send, tool="files/write", server="files")
    assert "read_then_send" in {item.detector for item in profile.look(other, THRESHOLDS)}


def test_sending_without_having_read_is_no_chain():
    stored, steps = learned(CLERK, 0)
    profile = decode_profile(stored)
    send = replace(steps[0].call, session="fresh", sends=True, reads=False)
    assert "read_then_send" not in {item.detector for item in profile.look(send, THRESHOLDS)}


def test_what_was_read_in_another_session_is_no_chain():
    stored, steps = learned(CLERK, 0)
    profile = decode_profile(stored)
    take(profile, Step(replace(steps[0].call, session="one", reads=True), True))
    send = replace(steps[0].call, session="two", sends=True, reads=False)
    assert "read_then_send" not in {item.detector for item in profile.look(send, THRESHOLDS)}


def test_a_refused_read_is_no_reading():
    stored, steps = learned(CLERK, 0)
    profile = decode_profile(stored)
    take(profile, Step(replace(steps[0].call, session="s", reads=True), False))
    send = replace(steps[0].call, session="s", sends=True, reads=False)
    assert "read_then_send" not in {item.detector for item in profile.look(send, THRESHOLDS)}


def test_single_refusals_among_many_calls_are_usual():
    stored, steps = learned(CLERK, 0)
    profile = decode_profile(stored)
    chance = seeded(4)
    flags = [
        flag.deviation.detector for step in steps for flag in take(profile, Step(step.call, chance.random() > 0.03))
    ]
    assert "decision_mix" not in flags


def test_values_that_reach_a_threshold_and_do_not_pass_it_do_not_depart():
    stored, steps = learned(CLERK, 0)
    reference = decode_profile(stored).reference
    seen = decode_profile(stored).recent.seen(steps[0].call)
    limit = THRESHOLDS.factor * reference.most_in_hour + THRESHOLDS.margin
    for calls, wanted in [(limit, False), (limit + 1, True)]:
        found = call_deviations(reference, replace_seen(seen, hour_calls=calls), steps[0].call, THRESHOLDS)
        assert ("rate" in {item.detector for item in found}) is wanted


def replace_seen(seen, **members):
    return type(seen)(**{name: getattr(seen, name) for name in seen.__struct_fields__} | members)


def test_other_numbers_have_another_digest():
    digests = {Thresholds().digest, Thresholds(stability=0.25).digest, Thresholds(ready_calls=501).digest}
    assert len(digests) == 3
    assert Thresholds().digest == THRESHOLDS.digest
