"""The restrictions in force at a gateway: taken up, kept on disk, held against calls; and what is stale."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import ValidationError

from enforcement.config_restrictions import RestrictionSettings
from enforcement.facts import Pseudonyms
from enforcement.ports import NewRestrictions, RestrictionAnswer, SameRestrictions, Unavailable
from enforcement.restrictions import Restrictions, kept_restrictions
from ledger.clock import SimulatedClock
from ledger.errors import StorageError
from ledger.restrictions import NO_VERSION, Restriction, RestrictionSet
from tests.support.gateway import identity_of
from tests.support.gateway_keys import NOON_MS, PSEUDONYM_KEY

NAMES = Pseudonyms(PSEUDONYM_KEY)
BOT = identity_of("Finance-Bot")
CONTAINMENT, KILL = "01990000-0000-7000-8000-00000000000a", "01990000-0000-7000-8000-00000000000b"
SETTINGS = RestrictionSettings(wait_seconds=0, poll_seconds=0.001, max_stale_seconds=60)
UNREACHABLE = Unavailable("unreachable")


def stop_agent(until_ms: int | None = None) -> Restriction:
    return Restriction(
        restriction_id=CONTAINMENT,
        kind="containment",
        scope="agent",
        since_ms=1,
        agent=BOT.agent,
        until_ms=until_ms,
    )


def block() -> Restriction:
    user = NAMES.user(BOT.user)
    return Restriction(
        restriction_id=KILL,
        kind="kill",
        scope="principal",
        since_ms=1,
        agent=BOT.agent,
        user=user,
        key_id=NAMES.key_id,
    )


def set_of(*restrictions: Restriction, version: int = 7, lifted: tuple[str, ...] = ()) -> RestrictionSet:
    return RestrictionSet(restrictions, version=version, lifted=lifted)


class Channel:
    """Answers what the test says, the last of it for ever, and remembers what it was asked."""

    def __init__(self, *answers: RestrictionAnswer | RestrictionSet) -> None:
        self.answers = [
            NewRestrictions(answer.document) if isinstance(answer, RestrictionSet) else answer for answer in answers
        ]
        self.asked: list[tuple[int, str]] = []
        self.waited: list[float] = []
        self.on_asked: Callable[[], None] = lambda: None

    async def restrictions(self, version: int, digest: str, *, wait_seconds: float = 0.0) -> RestrictionAnswer:
        self.asked.append((version, digest))
        self.waited.append(wait_seconds)
        self.on_asked()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Scene:
    """Restrictions over a channel, with clocks that the test turns."""

    def __init__(self, directory: Path, *answers: RestrictionAnswer | RestrictionSet, **options: Any) -> None:
        self.channel = Channel(*answers) if answers else None
        self.clock, self.seconds = SimulatedClock(NOON_MS), 0.0
        self.restrictions = Restrictions(
            self.channel, directory, SETTINGS, self.clock, NAMES, monotonic=lambda: self.seconds, **options
        )

    def refresh(self, times: int = 1) -> list[bool]:
        async def ask() -> list[bool]:
            return [await self.restrictions.refresh() for _ in range(times)]

        return asyncio.run(ask())

    def stands(self) -> str | None:
        found = self.restrictions.standing_against(BOT, session="s", server="finance", tool="pay")
        return None if found is None else found.restriction_id


# --- taking up


def test_a_set_is_in_force_once_it_came_and_the_next_question_names_it(tmp_path: Path) -> None:
    one = set_of(stop_agent())
    scene = Scene(tmp_path, one, SameRestrictions())
    assert scene.stands() is None
    assert scene.refresh() == [True]
    assert scene.stands() == CONTAINMENT
    assert scene.refresh() == [False]
    empty = RestrictionSet()
    assert scene.channel is not None
    assert scene.channel.asked == [(NO_VERSION, empty.digest), (7, one.digest)]


def test_a_set_that_stops_nothing_more_lets_go(tmp_path: Path) -> None:
    scene = Scene(tmp_path, set_of(stop_agent()), set_of(version=9))
    scene.refresh(2)
    assert scene.stands() is None
    assert scene.restrictions.current.version == 9


@pytest.mark.parametrize(
    "answer",
    [
        UNREACHABLE,
        Unavailable("http_500"),
        NewRestrictions(b""),
        NewRestrictions(b'{"format":"tallystick.restrictions/2"}'),
        NewRestrictions(set_of(version=9).document + b"\n"),
    ],
)
def test_no_answer_and_one_that_cannot_be_read_leave_the_set_in_force_and_let_it_age(
    tmp_path: Path, answer: RestrictionAnswer
) -> None:
    scene = Scene(tmp_path, set_of(stop_agent()), answer)
    scene.refresh()
    scene.seconds = 61.0
    assert scene.refresh() == [False]
    assert (scene.stands(), scene.restrictions.stale) == (CONTAINMENT, True)


# --- kept


def test_what_was_kept_holds_after_a_restart_without_the_service(tmp_path: Path) -> None:
    Scene(tmp_path, set_of(stop_agent())).refresh()
    scene = Scene(tmp_path, UNREACHABLE)
    scene.refresh()
    assert (scene.stands(), scene.restrictions.age_seconds) == (CONTAINMENT, None)
    assert (tmp_path / "restrictions.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("kept", [b"", b"{}", b"\xff", set_of(stop_agent()).document[:-1]])
def test_what_was_kept_and_cannot_be_read_is_no_set_and_the_gateway_is_stale(tmp_path: Path, kept: bytes) -> None:
    (tmp_path / "restrictions.json").write_bytes(kept)
    assert kept_restrictions(tmp_path).version == NO_VERSION
    assert Scene(tmp_path, UNREACHABLE).restrictions.stale


def test_a_set_that_the_disk_does_not_take_is_in_force_and_kept_with_the_next_answer(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.touch()  # no directory
    scene = Scene(place, set_of(stop_agent()), SameRestrictions())
    scene.refresh()
    assert (scene.stands(), kept_restrictions(place).version) == (CONTAINMENT, NO_VERSION)
    place.unlink()
    scene.refresh()
    assert kept_restrictions(place).version == 7


# --- stale


def test_it_is_stale_until_the_first_answer_and_after_the_last_is_too_old(tmp_path: Path) -> None:
    scene = Scene(tmp_path, set_of(stop_agent()), SameRestrictions())
    assert (scene.restrictions.stale, scene.restrictions.age_seconds) == (True, None)
    scene.refresh()
    scene.seconds = 60.0
    assert not scene.restrictions.stale
    scene.seconds = 60.1
    assert scene.restrictions.stale
    scene.refresh()
    assert scene.restrictions.readiness() == {
        "restrictions": 1,
        "restrictions_version": 7,
        "restrictions_age_seconds": 0.0,
        "restrictions_stale": False,
    }


def test_where_nobody_hands_out_restrictions_nothing_is_stale(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert scene.refresh() == [False]
    assert (scene.restrictions.stale, scene.stands()) == (False, None)


def test_a_containment_ends_by_the_gateways_clock_only_while_the_set_is_stale(tmp_path: Path) -> None:
    scene = Scene(tmp_path, set_of(stop_agent(until_ms=NOON_MS + 1000)))
    scene.refresh()
    scene.clock.advance(1000)
    assert scene.stands() == CONTAINMENT  # the service has not said that it is over
    scene.seconds = 61.0
    assert scene.stands() is None


def test_before_its_time_a_containment_holds_in_a_stale_set_as_well(tmp_path: Path) -> None:
    scene = Scene(tmp_path, set_of(stop_agent(until_ms=NOON_MS + 1000)))
    scene.refresh()
    scene.clock.advance(999)
    scene.seconds = 61.0
    assert scene.stands() == CONTAINMENT


# --- kills


def test_a_kill_holds_until_it_was_released_here_or_at_the_service(tmp_path: Path) -> None:
    released: set[str] = set()
    scene = Scene(tmp_path, set_of(block()), set_of(version=9, lifted=(KILL,)), released_here=released.__contains__)
    scene.refresh()
    scene.seconds = 10_000.0  # no kill ends by itself
    assert scene.stands() == KILL
    released.add(KILL)
    assert scene.stands() is None
    released.clear()
    scene.refresh()
    assert scene.stands() is None


def test_where_nobody_can_say_whether_a_kill_was_released_here_the_fault_is_told(tmp_path: Path) -> None:
    def fail(_: str) -> bool:
        raise StorageError("the disk is gone")

    scene = Scene(tmp_path, set_of(block()), released_here=fail)
    scene.refresh()
    with pytest.raises(StorageError):
        scene.stands()


def test_what_was_lifted_is_told_with_the_first_answer_and_with_each_other_set(tmp_path: Path) -> None:
    told: list[tuple[str, ...]] = []

    async def hear(lifted: tuple[str, ...]) -> None:
        told.append(lifted)
        raise StorageError("what cannot be let go goes on to hold")

    lifted = set_of(version=9, lifted=(KILL,))
    scene = Scene(tmp_path, set_of(block()), lifted, SameRestrictions(), on_lifted=hear)
    scene.refresh(3)
    assert told == [(KILL,)]
    assert not scene.restrictions.stale
    again = Scene(tmp_path, SameRestrictions(), on_lifted=hear)  # it may have ended before it was done
    again.refresh(2)
    assert told == [(KILL,)] * 2


# --- following


def test_it_is_asked_again_and_again_also_after_a_fault(tmp_path: Path) -> None:
    async def scenario() -> None:
        scene = Scene(tmp_path, UNREACHABLE, set_of(stop_agent()), SameRestrictions(may_ask_again=True))
        channel, done = scene.channel, asyncio.Event()
        assert channel is not None

        def on_asked() -> None:
            if len(channel.asked) == 2:
                raise RuntimeError("a fault of the channel's own")
            if len(channel.asked) == 6:
                done.set()

        channel.on_asked = on_asked
        await scene.restrictions.start()
        assert len(channel.asked) == 1
        async with asyncio.timeout(20):
            await done.wait()
        await scene.restrictions.stop()
        assert scene.stands() == CONTAINMENT
        asked = len(channel.asked)
        await asyncio.sleep(0)
        assert len(channel.asked) == asked

    asyncio.run(scenario())


def test_a_set_that_each_held_question_would_make_stale_is_no_configuration() -> None:
    with pytest.raises(ValidationError, match="max_stale_seconds"):
        RestrictionSettings(wait_seconds=20, max_stale_seconds=20)


def test_where_many_kills_became_one_restriction_the_release_of_one_does_not_lift_the_others(tmp_path: Path) -> None:
    whole = replace(block(), scope="agent", user=None, key_id=None)
    everything = replace(whole, scope="all", agent=None)
    for merged in (whole, everything):
        scene = Scene(tmp_path, set_of(merged), released_here=lambda known: known == KILL)
        scene.refresh()
        assert scene.stands() == KILL
