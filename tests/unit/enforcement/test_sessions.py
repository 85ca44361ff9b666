"""Sessions: under our own key, ended by silence or a kill, and a kill that no new session evades."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from enforcement.batches import Batch
from enforcement.facts import Pseudonyms
from enforcement.identity import Identity
from enforcement.releases import release_batch
from enforcement.sessions import Sessions
from enforcement.spool import Spool
from enforcement.state import StateDatabase
from ledger.bodies import AccessEvent
from ledger.errors import NotFoundError
from tests.support.gateway_keys import NOON_MS, PSEUDONYM_KEY
from tests.support.spools import open_spool, record_id

BOT = Identity(credential="aa" * 32, agent="Bot", user="alice", roles=(), mfa=False)
IDLE_MS = 60_000


class World:
    """Sessions on a state file, and what it takes to make changes durable."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.open()

    def open(self) -> None:
        self.state, self.spool = open_spool(self.directory)
        self.reader = StateDatabase(self.directory)
        self.sessions = Sessions(self.reader, Pseudonyms(PSEUDONYM_KEY), idle_ms=IDLE_MS)

    def close(self) -> None:
        self.reader.close()
        self.state.close()

    def restart(self) -> None:
        self.close()
        self.open()

    def call(
        self, identity: Identity = BOT, now_ms: int = NOON_MS, *, denied: bool = False
    ) -> tuple[str, int, int, int]:
        state = self.sessions.touch(identity, now_ms)
        self.store(self.sessions.settle(identity, denied=denied))
        return state.session, state.calls, state.denied, state.started_ms

    def store(self, *changes: object) -> None:
        (result,) = self.spool.append([Batch(items=(), changes=changes)])  # type: ignore[arg-type]  # they are changes
        assert result == []

    def kill(self, identity: Identity = BOT) -> None:
        self.store(self.sessions.block(identity, decision_id=record_id(1), now_ms=NOON_MS))
        self.sessions.confirm_block(identity)


@pytest.fixture
def world(tmp_path: Path):
    world = World(tmp_path)
    yield world
    world.close()


def test_the_first_call_begins_a_session_that_counts_what_went_before(world: World) -> None:
    session, *first = world.call()
    assert first == [0, 0, NOON_MS]
    assert world.call(denied=True, now_ms=NOON_MS + 5) == (session, 1, 0, NOON_MS)
    assert world.call(now_ms=NOON_MS + 9) == (session, 2, 1, NOON_MS)


def test_calls_at_the_same_moment_are_all_counted(world: World) -> None:
    states = [world.sessions.touch(BOT, NOON_MS) for _ in range(3)]
    assert [state.calls for state in states] == [0, 1, 2]


@pytest.mark.parametrize("change", [{"credential": "bb" * 32}, {"agent": "Other"}, {"user": "bob"}, {"user": None}])
def test_another_credential_agent_or_user_is_another_session(world: World, change: dict[str, str | None]) -> None:
    assert world.call()[0] != world.call(replace(BOT, **change))[0]


def test_a_session_ends_by_silence_and_not_a_moment_before(world: World) -> None:
    session = world.call()[0]
    assert world.call(now_ms=NOON_MS + IDLE_MS)[0] == session
    later = world.call(now_ms=NOON_MS + 2 * IDLE_MS + 1)
    assert later[0] != session
    assert later[1:] == (0, 0, NOON_MS + 2 * IDLE_MS + 1)


def test_a_clock_that_runs_backwards_ends_no_session(world: World) -> None:
    session = world.call()[0]
    assert world.call(now_ms=NOON_MS - 10_000)[0] == session


def test_a_session_goes_on_after_a_restart(world: World) -> None:
    session = world.call(denied=True)[0]
    world.restart()
    assert world.call() == (session, 1, 1, NOON_MS)


def test_no_name_of_a_person_stands_in_the_file(world: World) -> None:
    world.call()
    world.kill()
    rows = [*world.reader.read("SELECT * FROM sessions"), *world.reader.read("SELECT * FROM blocks")]
    assert "alice" not in str(rows)


# --- kills


def test_a_kill_blocks_at_once_even_before_it_is_durable(world: World) -> None:
    assert not world.sessions.blocked(BOT)
    change = world.sessions.block(BOT, decision_id=record_id(1), now_ms=NOON_MS)
    assert world.sessions.blocked(BOT)
    world.store(change)
    assert world.sessions.blocked(BOT)
    world.sessions.confirm_block(BOT)
    assert world.sessions.blocked(BOT)


def test_a_kill_that_could_not_be_made_durable_holds_while_the_process_lives(world: World) -> None:
    world.sessions.block(BOT, decision_id=record_id(1), now_ms=NOON_MS)
    assert world.sessions.blocked(BOT)
    assert world.sessions.blocks() == []


def test_another_credential_of_the_same_agent_and_user_is_blocked_as_well(world: World) -> None:
    world.kill()
    assert world.sessions.blocked(replace(BOT, credential="bb" * 32))


def test_another_user_of_the_agent_is_not_blocked(world: World) -> None:
    world.kill()
    assert not world.sessions.blocked(replace(BOT, user="bob"))
    assert not world.sessions.blocked(replace(BOT, agent="Other"))


def test_silence_does_not_end_a_block_nor_its_session(world: World) -> None:
    session = world.call()[0]
    world.kill()
    assert world.call(now_ms=NOON_MS + 100 * IDLE_MS)[0] == session
    assert world.sessions.blocked(BOT)


def test_a_block_survives_a_restart(world: World) -> None:
    world.kill()
    world.restart()
    assert world.sessions.blocked(BOT)
    (block,) = world.sessions.blocks()
    assert (block.agent, block.decision_id, block.since_ms) == ("Bot", record_id(1), NOON_MS)


def release(world: World, spool: Spool, **members: str | None) -> Batch:
    who = {"agent": "Bot", "user": "alice", **members}
    return release_batch(
        world.sessions,
        Pseudonyms(PSEUDONYM_KEY),
        spool.new_record_id,
        agent=str(who["agent"]),
        user=who["user"],
        actor="carol",
        actor_role="responder",
        purpose="reviewed with the team",
        now_ms=NOON_MS,
    )


def test_a_release_is_a_record_and_begins_a_new_session(world: World) -> None:
    session = world.call()[0]
    world.kill()
    (records,) = world.spool.append([release(world, world.spool)])
    assert isinstance(records, list)
    event = records[0].body
    assert isinstance(event, AccessEvent)
    assert (event.action, event.target_id, event.actor_role) == ("release_block", record_id(1), "responder")
    assert "carol" not in str(event)
    assert not world.sessions.blocked(BOT)
    assert world.call()[0] != session
    world.restart()
    assert not world.sessions.blocked(BOT)


def test_a_release_by_another_process_is_seen_at_the_next_call(world: World) -> None:
    world.kill()
    other = World(world.directory)
    (records,) = other.spool.append([release(other, other.spool)])
    assert isinstance(records, list)
    other.close()
    assert not world.sessions.blocked(BOT)


def test_a_second_kill_right_after_a_release_is_not_undone_by_it(world: World) -> None:
    world.kill()
    world.spool.append([release(world, world.spool)])
    change = world.sessions.block(BOT, decision_id=record_id(2), now_ms=NOON_MS)
    assert world.sessions.blocked(BOT)
    world.store(change)
    world.sessions.confirm_block(BOT)
    assert world.sessions.blocked(BOT)


@pytest.mark.parametrize("members", [{"agent": "Other"}, {"user": "bob"}, {"user": None}])
def test_who_is_not_blocked_cannot_be_released(world: World, members: dict[str, str | None]) -> None:
    world.kill()
    with pytest.raises(NotFoundError):
        release(world, world.spool, **members)
