"""How a gateway stands, by its last heartbeat, by when it was heard of, and by the bundle that is active."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ledger.bodies import Heartbeat
from service.fleet import (
    MARGIN_MS,
    RESTRICTED_MS,
    ActiveBundle,
    ActiveRestrictions,
    Beat,
    Member,
    State,
    Trouble,
    assemble,
    judge,
)

NOW = 1_763_982_000_000
ACTIVE, OTHER = "a1" * 32, "b2" * 32
LONG_AGO = ActiveBundle(ACTIVE, NOW - 3_600_000)


def beat(**said: Any) -> Beat:
    body = Heartbeat(**{"kind": "periodic", "version": "0.1.0", "spool_depth": 0, "bundle_revision": ACTIVE, **said})
    return Beat(leaf_index=7, time_ms=NOW - 1000, epoch="0" * 32, body=body)


def judged(heartbeat: Beat | None = None, **changes: Any) -> Member:
    facts: dict[str, Any] = {"heard_ms": NOW - 1000, "active": LONG_AGO, "version": "0.1.0", "now_ms": NOW}
    return judge("gateway-1", heartbeat, **{**facts, **changes})


def test_a_gateway_that_was_heard_of_and_decides_by_the_active_bundle_is_well() -> None:
    member = judged(beat())
    assert (member.state, member.warnings, member.well, member.skewed_since_ms) == (State.OK, (), True, None)


def test_one_that_is_enrolled_and_has_sent_no_heartbeat_was_never_there() -> None:
    assert judged(None).state is State.NEVER
    assert not judged(None, heard_ms=None).well


@pytest.mark.parametrize(("contact_ms", "allowed_ms"), [(None, 45_000), (30_000, 45_000), (5_000, 20_000)])
def test_silence_shows_when_what_a_gateway_announced_and_the_margin_are_over(
    contact_ms: int | None, allowed_ms: int
) -> None:
    quiet = beat(contact_ms=contact_ms)
    assert judged(quiet, heard_ms=NOW - allowed_ms).state is State.OK
    assert judged(quiet, heard_ms=NOW - allowed_ms - 1).state is State.SILENT


def test_with_the_defaults_silence_and_skew_show_within_a_minute() -> None:
    assert judged(beat(contact_ms=30_000), heard_ms=NOW - 60_000).state is State.SILENT
    lagging = judged(beat(bundle_revision=OTHER), active=ActiveBundle(ACTIVE, NOW - 60_000))
    assert lagging.state is State.SKEWED


def test_where_it_is_not_known_when_it_was_heard_of_its_heartbeat_counts() -> None:
    assert judged(beat(), heard_ms=None).state is State.OK
    assert judged(beat(), heard_ms=None, now_ms=NOW + 50_000).state is State.SILENT


def test_one_that_stopped_in_order_is_neither_silent_nor_well() -> None:
    member = judged(beat(kind="stop"), heard_ms=NOW - 86_400_000)
    assert (member.state, member.well) == (State.STOPPED, False)


def test_one_that_was_silent_and_decides_by_another_bundle_is_silent_and_says_both() -> None:
    member = judged(beat(bundle_revision=OTHER), heard_ms=NOW - 100_000)
    assert (member.state, member.warnings) == (State.SILENT, (Trouble.BUNDLE,))


def test_skew_is_told_with_the_time_since_which_another_bundle_is_active() -> None:
    member = judged(beat(bundle_revision=OTHER))
    assert (member.state, member.skewed_since_ms) == (State.SKEWED, LONG_AGO.since_ms)


@pytest.mark.parametrize("revision", [OTHER, None])
def test_a_bundle_that_was_just_activated_may_be_on_its_way(revision: str | None) -> None:
    just = ActiveBundle(ACTIVE, NOW - MARGIN_MS)
    assert judged(beat(bundle_revision=revision), active=just).well
    assert not judged(beat(bundle_revision=revision), active=just, now_ms=NOW + 1).well


def test_before_any_bundle_was_active_nobody_is_skewed() -> None:
    assert judged(beat(bundle_revision=None), active=ActiveBundle(None, None)).well


STOPPED = ActiveRestrictions(version=70, since_ms=NOW - 60_000, count=1)


@pytest.mark.parametrize(
    ("acknowledged", "said", "behind"),
    [
        (70, None, False),
        (71, None, False),
        (69, None, True),
        (-1, None, True),
        (None, 70, False),
        (None, 69, True),
        (None, None, True),
        (70, 69, False),  # the heartbeat is a minute old, the question is not
        (69, 70, True),
    ],
)
def test_a_gateway_that_lacks_what_is_contained_is_skewed(
    acknowledged: int | None, said: int | None, *, behind: bool
) -> None:
    member = judged(beat(restrictions_version=said), restrictions=STOPPED, acknowledged=acknowledged)
    expected = (State.SKEWED, (Trouble.RESTRICTIONS,)) if behind else (State.OK, ())
    assert (member.state, member.warnings) == expected
    assert member.restrictions_version == (said if acknowledged is None else acknowledged)


def test_another_set_may_be_on_its_way_for_five_seconds() -> None:
    just = replace(STOPPED, since_ms=NOW - RESTRICTED_MS)
    assert judged(beat(), restrictions=just, acknowledged=69).well
    assert not judged(beat(), restrictions=just, acknowledged=69, now_ms=NOW + 1).well


def test_where_nothing_is_stopped_a_gateway_that_says_nothing_of_it_is_well_and_one_that_stops_more_is_not() -> None:
    lifted = replace(STOPPED, count=0)
    assert judged(beat(), restrictions=lifted).well
    assert not judged(beat(), restrictions=lifted, acknowledged=69).well
    assert judged(beat(kind="stop"), restrictions=STOPPED, acknowledged=69).warnings == ()


@pytest.mark.parametrize("version", ["0.2.0", "0.0.9", "1.0.0", "nightly"])
def test_a_version_that_the_service_does_not_work_with_is_skew(version: str) -> None:
    service = "0.1.0" if version != "0.0.9" else "0.2.0"
    member = judged(beat(version=version), version=service)
    assert (member.state, member.warnings) == (State.SKEWED, (Trouble.VERSION,))


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        ({"clock_offset_ms": 2001}, Trouble.CLOCK),
        ({"clock_offset_ms": -2105, "clock_bound_ms": 104}, Trouble.CLOCK),
        ({"spool_depth": 1, "oldest_ms": 60_001}, Trouble.SPOOL),
        ({"set_aside": 1}, Trouble.SET_ASIDE),
        ({"bundle_age_ms": 300_001}, Trouble.UNCONFIRMED),
    ],
)
def test_what_is_not_as_it_should_be_stands_beside_the_state(said: dict[str, Any], trouble: Trouble) -> None:
    member = judged(beat(**said))
    assert (member.state, member.warnings, member.well) == (State.OK, (trouble,), False)


@pytest.mark.parametrize(
    "said",
    [
        {"clock_offset_ms": 2000},
        {"clock_offset_ms": 9000, "clock_bound_ms": 7000},
        {"spool_depth": 500, "oldest_ms": 60_000},
        {"bundle_age_ms": 300_000},
        {"observed": 40},
        {"config_fingerprint": "cf" * 16},
    ],
)
def test_what_is_within_its_bounds_is_no_warning(said: dict[str, Any]) -> None:
    assert judged(beat(**said)).well


def test_the_worst_stand_first_and_those_that_stand_alike_by_name() -> None:
    states = {"a": State.OK, "b": State.SILENT, "c": State.NEVER, "d": State.OK, "e": State.SKEWED, "f": State.STOPPED}
    members = [
        Member(
            enforcer_id=name,
            state=state,
            warnings=(Trouble.CLOCK,) if name == "d" else (),
            heard_ms=None,
            skewed_since_ms=None,
            beat=None,
        )
        for name, state in states.items()
    ]
    fleet = assemble(members, active=LONG_AGO, version="0.1.0", now_ms=NOW)
    assert "".join(member.enforcer_id for member in fleet.members) == "cbfeda"
    assert (fleet.troubled, fleet.well) == (5, False)
    assert assemble([], active=LONG_AGO, version="0.1.0", now_ms=NOW).well
