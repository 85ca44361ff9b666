"""The ends of sessions: recorded with the calls that were counted, once or, after a failure, again; never lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from enforcement.batches import Batch
from enforcement.facts import Pseudonyms
from enforcement.session_ends import SessionEnds
from enforcement.sessions import Sessions
from enforcement.state import StateDatabase
from ledger.bodies import SessionEnd
from ledger.clock import SimulatedClock
from ledger.errors import StorageError
from policies.model import Obligation
from tests.support.gateway_keys import NOON_MS, PSEUDONYM_KEY
from tests.unit.enforcement.test_pep import World as PointWorld
from tests.unit.enforcement.test_pep import answering, call_of
from tests.unit.enforcement.test_sessions import BOT, IDLE_MS, World

LATER_MS = NOON_MS + IDLE_MS + 1


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def pseudonyms() -> Pseudonyms:
    return Pseudonyms(PSEUDONYM_KEY)


def test_a_silent_session_ends_with_the_calls_that_it_had(world: World) -> None:
    session, *_ = world.call()
    world.call(denied=True)
    ends, changes, _ = world.sessions.expire(LATER_MS)
    world.store(*changes)
    (end,) = ends
    assert (end.session, end.calls, end.denied, end.reason) == (pseudonyms().session(session), 2, 1, "idle")
    assert (end.agent, end.user, end.started_ms) == ("Bot", pseudonyms().user("alice"), NOON_MS)
    assert world.sessions.expire(LATER_MS)[0] == []
    world.restart()
    assert world.sessions.expire(LATER_MS)[0] == []


def test_a_session_that_is_not_silent_does_not_end(world: World) -> None:
    world.call()
    assert world.sessions.expire(NOON_MS + IDLE_MS)[0] == []


def test_a_session_that_was_silent_over_a_restart_ends_as_well(world: World) -> None:
    world.call()
    world.restart()
    (end,) = world.sessions.expire(LATER_MS)[0]
    assert (end.calls, end.reason) == (1, "idle")


def test_a_caller_who_comes_back_ends_his_old_session_with_the_record_of_the_new_one(world: World) -> None:
    old, *_ = world.call()
    new, *_ = world.call(now_ms=LATER_MS)
    (end,) = world.sessions.ends(BOT, killed=False)
    assert (end.session, end.calls) == (pseudonyms().session(old), 1)
    assert new != old
    assert world.sessions.ends(BOT, killed=False) == [end]  # until it is recorded
    world.sessions.confirm_ends(BOT)
    assert world.sessions.ends(BOT, killed=False) == []


def test_an_end_that_could_not_be_recorded_is_told_again(world: World) -> None:
    world.call()
    first, _, keep = world.sessions.expire(LATER_MS)
    keep()
    assert world.sessions.expire(LATER_MS)[0] == first


def test_an_end_that_could_not_be_recorded_before_the_caller_came_back_goes_with_his_next_record(world: World) -> None:
    world.call()
    (end,), _, keep = world.sessions.expire(LATER_MS)
    world.call(now_ms=LATER_MS)
    keep()
    assert world.sessions.ends(BOT, killed=False) == [end]


def test_what_is_forgotten_is_not_the_session_that_began_meanwhile(world: World) -> None:
    world.call()
    _, changes, _ = world.sessions.expire(LATER_MS)
    session, *_ = world.call(now_ms=LATER_MS)
    world.store(*changes)
    world.restart()
    assert world.call(now_ms=LATER_MS)[0] == session


def test_a_kill_ends_the_session_and_the_refused_calls_are_counted_after_the_release(world: World) -> None:
    session, *_ = world.call()
    world.kill()
    (end,) = world.sessions.ends(BOT, killed=True)
    assert (end.reason, end.calls) == ("killed", 1)
    world.call(now_ms=LATER_MS, denied=True)  # refused, in the same session
    assert world.sessions.expire(LATER_MS + 2 * IDLE_MS)[0] == []
    world.store(world.sessions.release("Bot", "alice")[1])
    assert not world.sessions.blocked(BOT)
    (last,) = world.sessions.expire(LATER_MS)[0]
    assert (last.session, last.reason, last.calls) == (pseudonyms().session(session), "killed", 2)


def test_sessions_of_others_are_not_ended_by_a_callers_record(world: World) -> None:
    other = replace(BOT, user="bob")
    world.call(other)
    world.call(now_ms=LATER_MS)
    assert world.sessions.ends(BOT, killed=False) == []


def test_a_state_file_of_version_1_is_read_and_its_sessions_end_once_they_are_known(world: World, tmp_path) -> None:
    world.call()
    world.close()
    with sqlite3.connect(tmp_path / "state.db") as file:
        file.execute("ALTER TABLE sessions DROP COLUMN agent")
        file.execute("ALTER TABLE sessions DROP COLUMN user")
        file.execute("PRAGMA user_version = 1")
    file.close()
    world.open()
    assert world.sessions.expire(LATER_MS)[0] == []  # nobody knows whose it was
    world.restart()
    assert world.call()[1] == 1  # and it goes on
    (end,) = world.sessions.expire(LATER_MS)[0]
    assert (end.calls, end.agent) == (2, "Bot")


def test_a_state_file_can_be_opened_twice_while_it_is_brought_up_to_date(tmp_path) -> None:
    first, second = StateDatabase(tmp_path), StateDatabase(tmp_path)
    Sessions(second, pseudonyms(), idle_ms=IDLE_MS)
    first.close()
    second.close()


# --- through the enforcement point and the recorder


def ends_of(world: PointWorld) -> list[SessionEnd]:
    return [record.body for record in world.spooled() if isinstance(record.body, SessionEnd)]


def test_a_kill_is_recorded_with_the_end_of_its_session(tmp_path: Path) -> None:
    async def scenario(world: PointWorld) -> None:
        await world.pep.handle(call_of("fatal"))
        (end,) = ends_of(world)
        (decision,) = world.decisions()
        assert (end.reason, end.calls, end.denied) == ("killed", 1, 1)
        assert (end.session, end.user, end.agent) == (decision.session, decision.user, decision.agent)

    PointWorld(tmp_path, answering(obligations=(Obligation.END_SESSION,))).run(scenario)


def test_silent_sessions_are_looked_for_and_their_ends_recorded_once(tmp_path: Path) -> None:
    clock = SimulatedClock(NOON_MS)

    async def scenario(world: PointWorld) -> None:
        await world.pep.handle(call_of("look_up"))
        ends = SessionEnds(world.sessions, world.recorder, clock, interval_seconds=3600)
        assert await ends.look() == 0
        clock.advance(IDLE_MS + 1)
        assert await ends.look() == 1
        assert await ends.look() == 0
        (end,) = ends_of(world)
        assert (end.reason, end.calls) == ("idle", len(world.decisions()))

    PointWorld(tmp_path).run(scenario)


def test_an_end_that_the_spool_refuses_is_recorded_at_the_next_look(tmp_path: Path, monkeypatch) -> None:
    clock = SimulatedClock(NOON_MS)

    async def fail(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    async def scenario(world: PointWorld) -> None:
        await world.pep.handle(call_of("look_up"))
        clock.advance(IDLE_MS + 1)
        ends = SessionEnds(world.sessions, world.recorder, clock, interval_seconds=3600)
        with monkeypatch.context() as broken:
            broken.setattr(world.recorder, "record", fail)
            with pytest.raises(StorageError):
                await ends.look()
        assert await ends.look() == 1
        assert len(ends_of(world)) == 1

    PointWorld(tmp_path).run(scenario)


def test_of_many_ends_those_that_were_recorded_before_a_failure_are_not_told_again(tmp_path: Path, monkeypatch) -> None:
    clock = SimulatedClock(NOON_MS)
    sessions = 250

    async def scenario(world: PointWorld) -> None:
        for number in range(sessions):
            caller = replace(BOT, user=f"user-{number}")
            world.sessions.touch(caller, NOON_MS)
        clock.advance(IDLE_MS + 1)
        ends = SessionEnds(world.sessions, world.recorder, clock, interval_seconds=3600)
        record, batches = world.recorder.record, []

        async def fail_once(batch: Batch, *, strict: bool) -> object:
            batches.append(len(batch.items))
            if len(batches) == 2:
                raise StorageError("the disk is full")
            return await record(batch, strict=strict)

        monkeypatch.setattr(world.recorder, "record", fail_once)
        with pytest.raises(StorageError):
            await ends.look()
        assert await ends.look() == sessions - 100
        assert batches == [100, 100, 100, 50]
        told = [end.user for end in ends_of(world)]
        assert (len(told), len(set(told))) == (sessions, sessions)

    PointWorld(tmp_path).run(scenario)
