"""A profile is nothing, then learning, then ready; it says so, and it does not move by itself."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from enforcement.profiles.detectors import blind
from enforcement.profiles.keeping import SaveProfile, stored_profiles
from enforcement.profiles.observing import Observation
from enforcement.profiles.profile import MAX_FLAGS, AgentProfile, decode_profile, encode_profile
from enforcement.profiles.tallies import MAX_KINDS, MAX_SESSIONS, MAX_TARGETS
from enforcement.profiles.thresholds import Thresholds
from enforcement.state import StateDatabase
from ledger.errors import StateError
from tests.support.agents import CLERK, HELPER, TURNS, Step, seeded, walk
from tests.support.behaviour_measured import learned

THRESHOLDS = Thresholds()
DAY_MS = 86_400_000


def take(profile: AgentProfile, step: Step, *, teaches: bool = True):
    return profile.take(step.call, permitted=step.permitted, teaches=teaches, thresholds=THRESHOLDS)


def ready(worker=CLERK, seed=0):
    stored, steps = learned(worker, seed)
    return decode_profile(stored), list(steps)


def replacing(call: Observation, members: dict[str, Any]) -> Observation:
    return replace(call, **members)


# --- no baseline is never "ok"


def test_an_agent_that_never_called_has_no_baseline():
    profile = AgentProfile(agent="bot")
    assert profile.state == "none"
    assert profile.missing(THRESHOLDS) == (THRESHOLDS.ready_calls, THRESHOLDS.ready_days)


def test_while_it_learns_nothing_is_found_whatever_happens():
    profile, steps = AgentProfile(agent="clerk"), walk(CLERK, 0)
    turn = TURNS["tries one tool after the other"]()
    for number, step in enumerate(itertools.islice(steps, 300)):
        assert profile.look(step.call, THRESHOLDS) == ()
        assert take(profile, turn(step, None) if number > 200 else step) == ()
    assert profile.state == "learning"


def test_what_is_missing_is_said_in_numbers_until_both_are_reached():
    profile = AgentProfile(agent="clerk")
    before = profile.missing(THRESHOLDS)
    for step in walk(CLERK, 0):
        if profile.state == "ready":
            break
        calls, days = profile.missing(THRESHOLDS)
        assert (calls, days) > (0, 0)
        assert calls <= before[0]
        assert days <= before[1]
        before = calls, days
        take(profile, step)
    assert profile.reference.calls >= THRESHOLDS.ready_calls
    assert profile.reference.days >= THRESHOLDS.ready_days
    assert profile.version == 1


def test_a_thousand_calls_of_one_day_are_no_baseline():
    profile, step = AgentProfile(agent="clerk"), next(walk(CLERK, 0))
    for _ in range(1000):
        take(profile, Step(step.call, True))
    assert profile.state == "learning"
    assert profile.missing(THRESHOLDS) == (0, THRESHOLDS.ready_days - 1)


# --- what teaches


def test_a_call_that_was_refused_teaches_that_there_are_refusals_and_nothing_else():
    profile, step = AgentProfile(agent="clerk"), next(walk(CLERK, 0))
    for _ in range(1000):
        take(profile, Step(step.call, False))
    assert profile.candidate.refused == 1000
    assert profile.candidate.calls == 0
    assert profile.candidate.tools == {}


def test_what_is_only_observed_does_not_teach():
    profile = AgentProfile(agent="clerk")
    for step in itertools.islice(walk(CLERK, 0), 2000):
        take(profile, step, teaches=False)
    assert profile.state == "none"
    assert profile.candidate.tools == {}


def test_what_is_only_observed_is_measured_all_the_same():
    profile, steps = ready()
    strange = replacing(steps[0].call, {"tool": "crm/export"})
    flags = profile.take(strange, permitted=True, teaches=False, thresholds=THRESHOLDS)
    assert "new_tool" in {flag.deviation.detector for flag in flags}


# --- the reference does not move by itself


def test_a_slow_drift_does_not_move_what_it_is_measured_against():
    """Poisoning in small steps: each week a little more of another tool, for months."""
    profile, _ = ready()
    before = msgspec.json.encode(profile.reference)
    flagged, chance = set(), seeded(0)
    for number, step in enumerate(itertools.islice(walk(CLERK, 9), 8000)):
        more = chance.random() < number / 8000
        call = replacing(step.call, {"tool": "shop/refund", "server": "shop"}) if more else step.call
        flagged |= {flag.deviation.detector for flag in take(profile, Step(call, True))}
    assert msgspec.json.encode(profile.reference) == before
    assert profile.version == 1
    assert "tool_mix" in flagged


def test_another_reference_takes_a_person_and_enough_calls():
    profile, steps = ready()
    assert not profile.offer(steps[0].call.now_ms, THRESHOLDS)
    with pytest.raises(StateError, match="not what is offered"):
        profile.accept("")
    strange = [Step(replacing(step.call, {"tool": "crm/export"}), True) for step in steps[:2500]]
    flags = [flag for step in strange for flag in take(profile, step)]
    assert "new_tool" in {flag.deviation.detector for flag in flags}
    now_ms = strange[-1].call.now_ms
    assert profile.offer(now_ms, THRESHOLDS)
    offered = profile.offered_digest
    take(profile, strange[0])
    assert not profile.offer(now_ms + 6 * DAY_MS, THRESHOLDS)
    assert profile.offered_digest == offered
    with pytest.raises(StateError, match="not what is offered"):
        profile.accept("0" * 64)
    profile.accept(profile.offered_digest)
    assert (profile.state, profile.version) == ("ready", 2)
    assert "crm/export" in profile.reference.tools
    assert not [flag for flag in take(profile, strange[0]) if flag.deviation.detector == "new_tool"]


def test_a_reset_begins_anew_and_the_next_reference_has_the_next_number():
    profile, _ = ready()
    profile.reset()
    assert profile.state == "none"
    for step in walk(CLERK, 3):
        take(profile, step)
        if profile.state == "ready":
            break
    assert profile.version == 2


# --- restarts


@pytest.mark.parametrize("at", [0, 1, 399, 400, 1200])
def test_a_restart_changes_nothing_about_what_is_found(at):
    one, steps = ready(HELPER)
    other = decode_profile(encode_profile(one))
    turn = TURNS["calls one known tool most of the time"]
    chances, turns = [seeded(1), seeded(1)], [turn(), turn()]
    for number, step in enumerate(steps[:1500]):
        if number == at:
            other = decode_profile(encode_profile(other))
        calls = [turns[i](step, chances[i]) if number > 400 else step for i in range(2)]
        assert one.look(calls[0].call, THRESHOLDS) == other.look(calls[1].call, THRESHOLDS)
        assert take(one, calls[0]) == take(other, calls[1])
    assert encode_profile(one) == encode_profile(other)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"{}", encode_profile(AgentProfile(agent="a"))[:-1]])
def test_bytes_that_are_no_profile_are_refused(data):
    with pytest.raises(StateError):
        decode_profile(data)


@pytest.mark.parametrize("version", [2, 10, 12])
def test_a_state_file_of_an_earlier_version_gets_its_profiles(tmp_path, version):
    StateDatabase(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as file:
        file.execute("DROP TABLE profiles")
        file.execute(f"PRAGMA user_version = {version}")
    profile, _ = ready()
    with closing(StateDatabase(tmp_path)) as state:
        assert stored_profiles(state) == {}
        with state.transaction() as connection:
            SaveProfile.of(profile).apply(connection)
            SaveProfile.of(profile).apply(connection)
    with closing(StateDatabase(tmp_path)) as state:
        assert [encode_profile(one) for one in stored_profiles(state).values()] == [encode_profile(profile)]


# --- bounds


def test_an_agent_cannot_make_its_profile_large():
    """Ever new tools, sessions, targets, members and transitions, learning and ready."""
    profile, steps = ready(CLERK)
    for number, step in enumerate(steps[:6000]):
        members = {
            "tool": f"crm/tool{number}", "session": f"session{number}", "target": f"{number}",
            "features": tuple(f"{number}-{member}" for member in range(8)), "now_ms": steps[0].call.now_ms,
        }  # fmt: skip
        take(profile, Step(replacing(step.call, members), True))
    assert len(profile.candidate.tools) == MAX_KINDS
    assert len(profile.recent.sessions) <= MAX_SESSIONS
    assert len(profile.recent.targets) <= MAX_TARGETS
    assert {"tools", "features"} <= set(profile.candidate.saturated)
    assert len(encode_profile(profile)) < 1 << 20


def test_an_agent_cannot_fill_the_log_with_flags_and_what_is_left_out_is_counted():
    profile, steps = ready()
    flags = []
    for number in range(500):
        flags += take(profile, Step(replacing(steps[0].call, {"tool": f"crm/tool{number}"}), True))
    assert len(flags) == MAX_FLAGS
    assert profile.unflagged > 400
    later = replacing(steps[0].call, {"tool": "crm/later", "now_ms": steps[0].call.now_ms + DAY_MS})
    told = take(profile, Step(later, True))
    assert told[0].unflagged > 400
    assert profile.unflagged == 0


def test_a_reference_that_could_not_tell_all_tools_apart_says_so_and_calls_none_new():
    profile, steps = ready()
    profile.reference.saturated = ["tools"]
    assert "saturated:tools" in blind(profile.reference, THRESHOLDS)
    strange = replacing(steps[0].call, {"tool": "crm/export"})
    assert "new_tool" not in {found.detector for found in profile.look(strange, THRESHOLDS)}


# --- flags


def test_the_same_is_flagged_once_in_a_day_and_stands_in_every_call():
    profile, steps = ready()
    strange = Step(replacing(steps[0].call, {"tool": "crm/export"}), True)
    assert [flag.deviation.detector for flag in take(profile, strange)].count("new_tool") == 1
    for _ in range(5):
        assert "new_tool" in {found.detector for found in profile.look(strange.call, THRESHOLDS)}
        assert "new_tool" not in {flag.deviation.detector for flag in take(profile, strange)}
    tomorrow = Step(replacing(strange.call, {"now_ms": strange.call.now_ms + DAY_MS}), True)
    assert "new_tool" in {flag.deviation.detector for flag in take(profile, tomorrow)}


def test_looking_changes_nothing():
    profile, steps = ready()
    before = encode_profile(profile)
    for step in steps[:200]:
        profile.look(step.call, THRESHOLDS)
    assert encode_profile(profile) == before


def test_a_flag_carries_its_calls_and_the_window_of_the_reference():
    profile, steps = ready()
    refused = [Step(step.call, False) for step in steps[:40]]
    flags = [flag for step in refused for flag in take(profile, step)]
    (flag,) = [flag for flag in flags if flag.deviation.detector == "decision_mix"]
    assert 1 < len(flag.decisions) <= 16
    assert set(flag.decisions) <= {step.call.decision_id for step in refused}
    assert (flag.since_ms, flag.until_ms) == (profile.reference.first_ms, profile.reference.last_ms)
    assert flag.deviation.value > flag.deviation.threshold


# --- explained


def test_a_drift_after_another_bundle_names_the_bundle_and_one_before_does_not():
    profile, steps = ready()
    profile.note_changes(steps[0].call, revision="a" * 64, definition=None)
    strange = Step(replacing(steps[0].call, {"tool": "crm/export"}), True)
    assert {flag.explained for flag in take(profile, strange)} == {None}
    profile.note_changes(steps[0].call, revision="b" * 64, definition=None)
    other = Step(replacing(steps[0].call, {"tool": "crm/erase"}), True)
    assert {flag.explained.value for flag in take(profile, other)} == {"b" * 64}


def test_a_changed_definition_explains_calls_of_its_tool_and_no_other():
    profile, steps = ready()
    lookup = replacing(steps[0].call, {"tool": "crm/lookup", "features": ("id", "new")})
    for digest in ("c" * 64, "d" * 64):
        profile.note_changes(lookup, revision="a" * 64, definition=digest)
    flags = take(profile, Step(lookup, True))
    assert [flag.explained.kind for flag in flags] == ["tool_definition"]
    other = Step(replacing(steps[0].call, {"tool": "crm/export"}), True)
    assert {flag.explained for flag in take(profile, other)} == {None}


def test_a_change_of_last_month_explains_nothing():
    profile, steps = ready()
    for revision in "ab":
        profile.note_changes(steps[0].call, revision=revision * 64, definition=None)
    late = replacing(steps[0].call, {"tool": "crm/export", "now_ms": steps[0].call.now_ms + 8 * DAY_MS})
    assert {flag.explained for flag in take(profile, Step(late, True))} == {None}
