"""The spool: numbers without gaps, one outcome for each permit, nothing lost once it was said to be durable."""

from __future__ import annotations

import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from enforcement.batches import Depth, Room
from enforcement.state import StateDatabase, lock_directory
from ledger.bodies import Dropped, Heartbeat
from ledger.clock import SimulatedClock
from ledger.errors import (
    ConfigError,
    ConflictError,
    MalformedError,
    OverloadedError,
    StorageError,
)
from ledger.ports import Draft
from ledger.records import Record, decode_entry, verify_record_signature
from tests.support.gateway_keys import NOON_MS, SIGNING_KEY
from tests.support.spools import (
    IDENTITY,
    batch,
    decision,
    denial,
    heartbeat,
    open_spool,
    outcome,
    record_id,
)

ALL = {"max_records": 1000, "max_bytes": 1 << 30}


def records_of(result: object) -> list[Record]:
    assert isinstance(result, list), result
    return result


def test_records_are_numbered_counted_and_signed(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    (first, second) = spool.append([batch(heartbeat(), denial()), batch(denial(), heartbeat(), first=10)])
    records = records_of(first) + records_of(second)
    assert [record.seq for record in records] == [1, 2, 3, 4]
    assert [record.running_count for record in records] == [0, 1, 2, 2]
    assert {record.epoch for record in records} == {spool.epoch}
    for record in records:
        verify_record_signature(record, bytes(SIGNING_KEY.verify_key))
        assert (record.time_ms, record.simulated, record.log_id) == (NOON_MS, True, "acme")
    state.close()


def test_what_waits_comes_out_as_it_went_in(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    (records,) = spool.append([batch(denial(payload=b"secret"), heartbeat())])
    queued = spool.pending(**ALL)
    assert [decode_entry(one.entry) for one in queued] == records
    assert [[(o.field, o.payload) for o in one.openings] for one in queued] == [[("message", b"secret")], []]
    state.close()


def test_everything_is_there_after_a_restart_and_numbers_go_on(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(decision(), denial())])
    epoch = spool.epoch
    state.close()
    state, spool = open_spool(tmp_path)
    assert not state.created
    assert spool.epoch == epoch
    assert [one.seq for one in spool.pending(**ALL)] == [1, 2]
    assert [call.decision_id for call in spool.open_calls()] == [record_id(0)]
    (again,) = spool.append([batch(denial(), first=5)])
    assert (records_of(again)[0].seq, records_of(again)[0].running_count) == (3, 3)
    state.close()


def test_nothing_personal_and_no_payload_is_readable_in_the_file(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial(payload=b"strictly personal"))])
    state.close()
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"Bot" in data
    assert b"strictly personal" not in data


def test_the_files_can_be_read_by_their_owner_alone(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path / "new")
    spool.append([batch(denial())])
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "new").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name
    state.close()


# --- exactly one outcome


def test_a_permit_opens_a_call_that_its_outcome_closes(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(decision(user="0b" * 16))])
    (call,) = spool.open_calls()
    assert (call.decision_id, call.user) == (record_id(0), "0b" * 16)
    (result,) = spool.append([batch(outcome(record_id(0)), first=1)])
    assert records_of(result)
    assert spool.open_calls() == []
    state.close()


@pytest.mark.parametrize(
    ("members", "opens"),
    [
        ({"decision": "PERMIT", "enforcement": "allow"}, True),
        ({"decision": "PERMIT", "enforcement": "ask"}, True),
        ({"decision": "PERMIT", "enforcement": "deny"}, True),
        ({"decision": "DENY", "enforcement": "allow", "mode": "observe"}, True),
        ({"decision": "DENY", "enforcement": "deny"}, False),
        ({"decision": "INDETERMINATE", "enforcement": "deny"}, False),
        ({"decision": "NOT_APPLICABLE", "enforcement": "kill"}, False),
    ],
)
def test_a_call_is_open_if_the_policy_permits_or_the_call_was_let_through(
    tmp_path: Path, members: dict[str, str], opens: bool
) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(decision(**members))])
    assert bool(spool.open_calls()) is opens
    state.close()


def test_a_second_outcome_is_refused(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(decision(), outcome(record_id(0)))])
    (result,) = spool.append([batch(outcome(record_id(0), "failed"), first=2)])
    assert isinstance(result, ConflictError)
    state.close()


def test_an_outcome_of_a_denial_is_refused(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    (result,) = spool.append([batch(denial(), outcome(record_id(0)))])
    assert isinstance(result, ConflictError)
    assert spool.depth().records == 0
    state.close()


# --- batches


def test_a_batch_that_is_refused_leaves_no_trace_and_touches_no_other(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    good, bad, next_good = spool.append(
        [batch(denial()), batch(denial(), outcome(record_id(99)), first=10), batch(denial(), first=20)]
    )
    assert isinstance(bad, ConflictError)
    assert [record.seq for record in records_of(good) + records_of(next_good)] == [1, 2]
    assert [record.running_count for record in records_of(next_good)] == [2]
    state.close()


def test_a_record_id_that_is_taken_is_a_conflict(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    first, second = spool.append([batch(denial()), batch(denial(reason="other"))])
    assert records_of(first)
    assert isinstance(second, ConflictError)
    state.close()


@pytest.mark.parametrize(
    "draft",
    [
        denial(reason="no name"),
        denial(rules=("a",) * 65),
        denial(agent="x" * 200),
        denial(session="not hexadecimal"),
        Draft(body=denial().body),  # no opening
        Draft(body=heartbeat().body, openings=denial().openings),  # no commitment
    ],
)
def test_what_the_ledger_would_not_take_does_not_enter(tmp_path: Path, draft: Draft) -> None:
    state, spool = open_spool(tmp_path)
    (result,) = spool.append([batch(draft)])
    assert isinstance(result, MalformedError)
    (after,) = spool.append([batch(denial())])
    assert records_of(after)[0].seq == 1
    state.close()


class _Crash(BaseException):
    """The process dies here."""


class _CrashingChange:
    def apply(self, connection: sqlite3.Connection) -> None:  # noqa: ARG002  # the port has it
        raise _Crash


def test_a_crash_inside_the_transaction_leaves_nothing_behind(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial())])
    with pytest.raises(_Crash):
        spool.append([batch(decision(), first=1), batch(denial(), first=2, changes=(_CrashingChange(),))])
    state.close()
    state, spool = open_spool(tmp_path)
    assert [one.seq for one in spool.pending(**ALL)] == [1]
    assert spool.open_calls() == []
    (after,) = spool.append([batch(denial(), first=3)])
    assert records_of(after)[0].seq == 2
    state.close()


@pytest.mark.parametrize("table", ["queue", "open_calls", "meta"])
def test_a_statement_that_fails_leaves_nothing_behind(tmp_path: Path, table: str) -> None:
    state, spool = open_spool(tmp_path)
    trigger = f"CREATE TEMP TRIGGER fail BEFORE INSERT ON main.{table} BEGIN SELECT missing FROM nowhere; END"
    state._connection.execute(trigger)
    with pytest.raises(StorageError):
        spool.append([batch(decision())])
    state._connection.execute("DROP TRIGGER fail")
    assert spool.depth() == Depth(0, 0, 0)
    assert spool.open_calls() == []
    (after,) = spool.append([batch(decision())])
    assert records_of(after)[0].seq == 1
    state.close()


# --- bounds


def test_a_full_spool_takes_denials_for_a_while_and_outcomes_always(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path, max_bytes=80_000)
    big = b"x" * 10_000
    permits = 0
    while isinstance(spool.append([batch(decision(payload=big), first=permits)])[0], list):
        permits += 1
    assert permits == 6  # seven eighths of 80,000
    (reserved,) = spool.append([batch(denial(), first=100, room=Room.DENIAL)])
    assert records_of(reserved)
    while isinstance(spool.append([batch(denial(payload=big), first=200 + permits, room=Room.DENIAL)])[0], list):
        permits += 1
    (refused,) = spool.append([batch(denial(payload=big), first=300, room=Room.DENIAL)])
    assert isinstance(refused, OverloadedError)
    (killing,) = spool.append([batch(denial(payload=big, enforcement="kill"), first=350, room=Room.KILL)])
    assert records_of(killing)
    (closing,) = spool.append([batch(outcome(record_id(0)), first=400)])
    (beat,) = spool.append([batch(heartbeat(), first=500)])
    assert records_of(closing)
    assert records_of(beat)
    state.close()


def test_strangers_fill_no_more_than_half_of_the_spool(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path, max_bytes=80_000)
    big = b"x" * 10_000
    strangers = 0
    while isinstance(spool.append([batch(denial(payload=big), first=strangers, room=Room.STRANGER)])[0], list):
        strangers += 1
    assert strangers == 3
    assert records_of(spool.append([batch(decision(payload=big), first=100)])[0])
    assert records_of(spool.append([batch(denial(payload=big), first=200, room=Room.DENIAL)])[0])
    state.close()


def test_room_comes_back_when_the_ledger_has_the_records(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path, max_bytes=80_000)
    spool.append([batch(*[decision(payload=b"x" * 10_000)] * 6)])
    assert isinstance(spool.append([batch(decision(payload=b"x" * 10_000), first=10)])[0], OverloadedError)
    spool.acknowledge(spool.pending(**ALL))
    assert spool.depth() == Depth(0, 0, 0)
    assert records_of(spool.append([batch(decision(payload=b"x" * 10_000), first=20)])[0])
    state.close()


def test_a_batch_for_the_ledger_is_bounded_but_never_empty(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(*[denial(payload=b"x" * 5000)] * 4)])
    assert len(spool.pending(max_records=2, max_bytes=1 << 30)) == 2
    assert len(spool.pending(max_records=10, max_bytes=12_000)) == 2
    assert len(spool.pending(max_records=10, max_bytes=1)) == 1
    state.close()


# --- setting aside


def test_a_record_that_was_set_aside_is_kept_and_declared_lost(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial(), heartbeat())])
    spool.set_aside(spool.pending(**ALL)[0], "refused")
    assert spool.depth().set_aside == 1
    rest = [decode_entry(one.entry) for one in spool.pending(**ALL)]
    assert [record.seq for record in rest] == [2, 3]
    assert rest[1].body == Dropped(first_seq=1, last_seq=1, decisions=1, reason="refused")
    state.close()


def test_a_loss_that_is_refused_itself_is_not_declared_for_ever(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial())])
    spool.set_aside(spool.pending(**ALL)[0], "refused")
    spool.set_aside(spool.pending(**ALL)[0], "refused")
    assert spool.pending(**ALL) == []
    assert spool.depth() == Depth(0, 0, 2)
    state.close()


def test_the_id_of_an_open_call_is_taken_also_when_the_ledger_has_its_decision_already(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(decision())])
    spool.acknowledge(spool.pending(**ALL))
    for again in (decision(), denial()):
        (result,) = spool.append([batch(again)])
        assert isinstance(result, ConflictError)
    assert spool.depth().records == 0
    assert [call.decision_id for call in spool.open_calls()] == [record_id(0)]
    state.close()


def test_a_record_that_was_set_aside_for_a_conflict_is_declared_lost_as_well(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial())])
    spool.set_aside(spool.pending(**ALL)[0], "conflict")
    (lost,) = [decode_entry(one.entry).body for one in spool.pending(**ALL)]
    assert lost == Dropped(first_seq=1, last_seq=1, decisions=1, reason="conflict")
    state.close()


@pytest.mark.parametrize("column", ["openings", "record_id"])
def test_a_payload_that_was_tampered_with_is_set_aside_and_declared_lost(tmp_path: Path, column: str) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial(), denial())])
    with state.transaction() as connection:
        if column == "openings":
            connection.execute("UPDATE queue SET openings = zeroblob(100) WHERE seq = 1")
        else:  # another record's payload in its place
            connection.execute("UPDATE queue SET openings = (SELECT openings FROM queue WHERE seq = 2) WHERE seq = 1")
    assert [one.seq for one in spool.pending(**ALL)] == [2, 3]
    assert spool.depth().set_aside == 1
    last = decode_entry(spool.pending(**ALL)[-1].entry).body
    assert last == Dropped(first_seq=1, last_seq=1, decisions=1, reason="unreadable")
    state.close()


def test_an_entry_that_was_damaged_is_set_aside_and_declared_lost(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial())])
    with state.transaction() as connection:
        connection.execute("UPDATE queue SET entry = x'00'")
    (lost,) = spool.pending(**ALL)
    assert decode_entry(lost.entry).body == Dropped(first_seq=1, last_seq=1, decisions=1, reason="unreadable")
    assert spool.depth().set_aside == 1
    state.close()


# --- epochs


def test_a_new_spool_begins_an_epoch_without_predecessor(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    assert state.created
    assert spool.unannounced_epoch() == (True, None)
    spool.append([batch(heartbeat())])
    assert spool.unannounced_epoch() == (False, None)
    state.close()


def test_a_lost_spool_begins_a_new_epoch_that_knows_the_old_one(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(heartbeat())])
    old = spool.epoch
    state.close()
    for path in tmp_path.glob("state.db*"):
        path.unlink()
    state, spool = open_spool(tmp_path)
    assert spool.epoch != old
    assert spool.unannounced_epoch() == (True, old)
    state.close()
    state, spool = open_spool(tmp_path)  # died before it could announce: it still knows
    assert spool.unannounced_epoch() == (True, old)
    state.close()


START = Heartbeat(kind="start", version="1", spool_depth=0)


def test_a_rotated_epoch_counts_from_one_and_takes_along_what_waits(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial(), decision())])
    old = spool.epoch
    spool.rotate_epoch(START)
    assert spool.unannounced_epoch() == (False, old)
    (records,) = spool.append([batch(denial(), first=5)])
    assert (records_of(records)[0].seq, records_of(records)[0].running_count) == (4, 3)
    waiting = spool.pending(**ALL)
    assert [one.seq for one in waiting] == [1, 2, 3, 4]
    assert {one.epoch for one in waiting} == {spool.epoch} != {old}
    for one in waiting:
        verify_record_signature(decode_entry(one.entry), bytes(SIGNING_KEY.verify_key))
    assert [call.decision_id for call in spool.open_calls()] == [record_id(1)]
    assert spool.depth().size_bytes == sum(size for (size,) in state.read("SELECT size FROM queue"))
    spool.acknowledge(waiting)
    assert spool.depth() == Depth(0, 0, 0)
    state.close()


def test_a_rotation_that_dies_leaves_the_old_epoch_whole(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial(), denial())])
    before, old = spool.pending(**ALL), spool.epoch
    state._connection.execute(
        "CREATE TEMP TRIGGER fail BEFORE UPDATE ON main.queue WHEN old.seq = 2 BEGIN SELECT missing FROM nowhere; END"
    )
    with pytest.raises(StorageError):
        spool.rotate_epoch(START)
    state._connection.execute("DROP TRIGGER fail")
    assert (spool.pending(**ALL), spool.epoch) == (before, old)
    state.close()


# --- what does not belong together


def test_another_spool_key_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    open_spool(tmp_path)[0].close()
    with pytest.raises(ConfigError, match="spool key"):
        open_spool(tmp_path, spool_key=bytes(32))


def test_another_enforcer_or_log_is_refused(tmp_path: Path) -> None:
    open_spool(tmp_path)[0].close()
    for identity in (replace(IDENTITY, enforcer_id="gateway-2"), replace(IDENTITY, log_id="other")):
        with pytest.raises(ConfigError, match="belongs to"):
            open_spool(tmp_path, identity=identity)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database, but somebody's work")
    with pytest.raises(StorageError):
        StateDatabase(tmp_path)
    assert (tmp_path / "state.db").read_bytes() == b"not a database, but somebody's work"


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    state, _ = open_spool(tmp_path)
    state._connection.execute("PRAGMA user_version = 99")
    state.close()
    with pytest.raises(StorageError, match="version is 99"):
        StateDatabase(tmp_path)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        StateDatabase(tmp_path / "file" / "state")
    with pytest.raises(StorageError):
        lock_directory(tmp_path / "file" / "state")


def test_the_file_syncs_every_transaction_but_acknowledgements(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    levels: list[int] = []

    def look(statement: str) -> None:
        if statement == "COMMIT":
            levels.append(connection_level(state))

    state._connection.set_trace_callback(look)
    spool.append([batch(denial())])
    spool.acknowledge(spool.pending(**ALL))
    state._connection.set_trace_callback(None)
    full, normal = 2, 1
    assert levels == [full, normal]
    assert connection_level(state) == full
    assert state._connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    state.close()


def connection_level(state: StateDatabase) -> int:
    return int(state._connection.execute("PRAGMA synchronous").fetchone()[0])


def test_two_processes_may_append_to_one_file(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    other_state, other = open_spool(tmp_path)
    first = spool.append([batch(denial())])[0]
    second = other.append([batch(denial(), first=1)])[0]
    third = spool.append([batch(denial(), first=2)])[0]
    assert [record.seq for result in (first, second, third) for record in records_of(result)] == [1, 2, 3]
    other_state.close()
    state.close()


def test_the_clock_dates_the_records(tmp_path: Path) -> None:
    clock = SimulatedClock(NOON_MS)
    state, spool = open_spool(tmp_path, clock=clock)
    clock.advance(1500)
    (records,) = spool.append([batch(denial())])
    assert records_of(records)[0].time_ms == NOON_MS + 1500
    state.close()


def test_a_copy_of_the_file_taken_at_any_moment_is_consistent(tmp_path: Path) -> None:
    """What a crash leaves is what is on the disk: file and log as they are, without any closing."""
    state, spool = open_spool(tmp_path / "live")
    for number in range(5):
        spool.append([batch(decision(), outcome(record_id(10 * number)), denial(), first=10 * number)])
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(tmp_path / "live", copy)
        crashed, recovered = open_spool(copy)
        assert [one.seq for one in recovered.pending(**ALL)] == list(range(1, 3 * number + 4))
        assert recovered.open_calls() == []
        crashed.close()
    state.close()
