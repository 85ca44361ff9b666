"""The chain of the spool: whatever somebody does to the records that wait in the file, it is seen, and said."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

import nacl.secret
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcement.batches import Depth
from enforcement.chained_queue import ChainedQueue
from enforcement.chaining import GENESIS, Chain, Link, Mark, Row
from enforcement.config import RecordingSettings
from enforcement.pin_store import PinStore
from enforcement.recorder import Recorder
from enforcement.spool import Spool
from enforcement.state import StateDatabase
from enforcement.vitals import Vitals
from ledger.bodies import Dropped, Heartbeat
from ledger.errors import StorageError
from ledger.records import decode_entry
from tests.support.gateway_keys import SPOOL_KEY
from tests.support.spools import MemoryLedger, batch, decision, denial, heartbeat, open_spool, record_id

ALL = {"max_records": 1000, "max_bytes": 1 << 30}
START = Heartbeat(kind="start", version="1", spool_depth=0)


def drained(spool: Spool) -> tuple[list[int], list[Dropped]]:
    """Take everything out as a drainer does; return the numbers of what was posted, and the losses among it."""
    numbers: list[int] = []
    lost: list[Dropped] = []
    while waiting := spool.pending(max_records=2, max_bytes=1 << 30):
        for one in waiting:
            numbers.append(one.seq)
            body = decode_entry(one.entry).body
            if isinstance(body, Dropped):
                lost.append(body)
        spool.acknowledge(waiting)
    return numbers, lost


def tampered(directory: Path, tamper: str, *, records: int = 4) -> tuple[StateDatabase, Spool]:
    """A spool with decisions that wait, and whose file was meddled with."""
    state, spool = open_spool(directory)
    spool.append([batch(*[denial()] * records)])
    with state.transaction() as connection:
        for statement in tamper.split(";"):
            connection.execute(statement)
    return state, spool


@pytest.mark.parametrize(
    ("taken", "posted", "first", "last"),
    [
        ("seq = 1", [2, 3, 4, 5], 1, 1),
        ("seq = 2", [1, 3, 4, 5], 2, 2),
        ("seq IN (2, 3)", [1, 4, 5], 2, 3),
        ("seq = 4", [1, 2, 3, 5], 4, 4),
        ("seq > 2", [1, 2, 5], 3, 4),
        ("true", [5], 1, 4),
    ],
)
def test_records_that_were_taken_out_of_the_file_are_declared_lost(
    tmp_path: Path, taken: str, posted: list[int], first: int, last: int
) -> None:
    state, spool = tampered(tmp_path, f"DELETE FROM queue WHERE {taken}")
    loss = Dropped(first_seq=first, last_seq=last, decisions=last - first + 1, reason="missing")
    assert drained(spool) == (posted, [loss])
    assert spool.pending(**ALL) == []
    assert spool.depth() == Depth(0, 0, 0)  # what is gone takes no room for good
    state.close()


@pytest.mark.parametrize(
    "change",
    [
        "entry = x'00'",
        "entry = (SELECT entry FROM queue WHERE seq = 3)",
        "openings = (SELECT openings FROM queue WHERE seq = 3)",
        "record_id = '00000000-0000-7000-8000-000000000099'",
        "counted = counted + 1",
        "previous = zeroblob(32)",
        "link = zeroblob(32)",
        "link = x''",
        "seq = 77",
        "epoch = 'another'",
    ],
)
def test_a_record_that_was_altered_is_not_posted_and_is_declared_lost(tmp_path: Path, change: str) -> None:
    state, spool = tampered(tmp_path, f"UPDATE queue SET {change} WHERE seq = 2")
    numbers, (loss,) = drained(spool)
    assert numbers == [1, 3, 4, 5]
    assert (loss.first_seq, loss.last_seq, loss.decisions) == (2, 2, 1)
    assert spool.depth().set_aside == 1
    state.close()


def test_records_that_change_places_come_out_as_they_went_in(tmp_path: Path) -> None:
    state, spool = tampered(tmp_path, "UPDATE queue SET position = 100 - position")
    assert drained(spool) == ([1, 2, 3, 4], [])
    state.close()


SWAP = [(2, 9), (3, 2), (9, 3)]


def test_records_that_change_numbers_are_both_declared_lost(tmp_path: Path) -> None:
    state, spool = tampered(tmp_path, ";".join(f"UPDATE queue SET seq = {b} WHERE seq = {a}" for a, b in SWAP))
    loss = Dropped(first_seq=2, last_seq=3, decisions=2, reason="unreadable")
    assert drained(spool) == ([1, 4, 5], [loss])
    state.close()


def test_a_record_that_is_put_back_after_it_was_posted_is_posted_again_and_disturbs_no_other(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial(), denial())])
    with state.transaction() as connection:
        connection.execute("CREATE TABLE kept AS SELECT * FROM queue WHERE seq = 1")
    spool.acknowledge(spool.pending(max_records=1, max_bytes=1))
    with state.transaction() as connection:
        connection.execute("INSERT INTO queue SELECT * FROM kept")
    spool.append([batch(denial(), first=9)])
    assert drained(spool) == ([1, 2, 3], [])
    assert spool.depth() == Depth(0, 0, 0)  # or no heartbeat could say it
    state.close()


def test_a_record_of_an_earlier_epoch_that_is_put_back_is_posted_under_its_own_number(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    old = spool.epoch
    spool.append([batch(denial())])
    with state.transaction() as connection:
        connection.execute("CREATE TABLE kept AS SELECT * FROM queue")
    spool.acknowledge(spool.pending(**ALL))
    spool.rotate_epoch(START)
    with state.transaction() as connection:
        connection.execute("INSERT INTO queue SELECT * FROM kept")
        connection.execute("UPDATE kept SET record_id = 'x', seq = 2, position = 99")
        connection.execute("INSERT INTO queue SELECT * FROM kept")  # this one was altered as well
    spool.acknowledge(spool.pending(**ALL))
    assert [(one.epoch, one.seq) for one in spool.pending(**ALL)] == [(old, 1)]
    assert drained(spool) == ([1], [])
    assert spool.depth().set_aside == 1
    state.close()


MARKS = [
    "DELETE FROM meta WHERE name = 'chain_tail'",
    "DELETE FROM meta WHERE name = 'chain_head'",
    "DELETE FROM meta WHERE name LIKE 'chain_%'",
    "UPDATE meta SET value = x'00' WHERE name = 'chain_head'",
    "UPDATE meta SET value = 'text' WHERE name = 'chain_tail'",
    "UPDATE meta SET value = 1 WHERE name = 'seq'",
    "UPDATE meta SET value = 1 WHERE name = 'running_count'",
    f"UPDATE meta SET value = '{'0' * 32}' WHERE name = 'epoch'",
    "UPDATE meta SET value = (SELECT value FROM meta WHERE name = 'chain_tail') WHERE name = 'chain_head'",
    "UPDATE meta SET value = (SELECT value FROM meta WHERE name = 'chain_head') WHERE name = 'chain_tail'",
]


@pytest.mark.parametrize("tamper", MARKS)
def test_where_the_ends_were_altered_nothing_comes_in_or_out(tmp_path: Path, tamper: str) -> None:
    state, spool = tampered(tmp_path, tamper)
    assert spool.altered()
    with pytest.raises(StorageError, match="chain"):
        spool.append([batch(decision(), first=9)])
    with pytest.raises(StorageError, match="chain"):
        spool.pending(**ALL)
    state.close()
    state, spool = open_spool(tmp_path)  # nor by opening it anew
    assert spool.altered()
    state.close()


def test_the_next_start_begins_an_epoch_to_which_everything_moves_that_is_whole(tmp_path: Path) -> None:
    tamper = "DELETE FROM meta WHERE name = 'chain_tail';UPDATE queue SET entry = x'00' WHERE seq = 3"
    state, spool = tampered(tmp_path, tamper)
    old, ledger = spool.epoch, MemoryLedger()
    recorder = Recorder(spool, ledger, RecordingSettings(), version="1", vitals=Vitals)

    async def run() -> None:
        await recorder.start()
        await recorder.stop()

    asyncio.run(run())
    first, *rest = [decode_entry(one.entry) for one in ledger.taken]
    assert isinstance(first.body, Heartbeat)
    assert (first.seq, first.body.kind, first.body.previous_epoch) == (1, "start", old)
    assert [one.seq for one in rest] == [2, 3, 5, *range(6, 6 + len(rest) - 3)]
    (lost,) = [one.body for one in rest if isinstance(one.body, Dropped)]
    assert (lost.first_seq, lost.last_seq, lost.reason) == (4, 4, "unreadable")
    assert not spool.altered()
    state.close()


def test_who_lacks_the_key_cannot_chain_what_they_made_up(tmp_path: Path) -> None:
    state, spool = tampered(tmp_path, "DELETE FROM queue WHERE seq = 2")
    forger = ChainedQueue(state, bytes(32))
    with state.transaction() as connection:
        forger.adopt(connection)
    assert spool.altered()
    state.close()


def test_an_older_mark_that_is_put_back_shows_as_missing_records(tmp_path: Path) -> None:
    """The tail can be set back, but then what left the queue since is missing: said too often, never hidden."""
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial(), denial())])
    with state.transaction() as connection:
        connection.execute("INSERT INTO meta SELECT 'kept', value FROM meta WHERE name = 'chain_tail'")
    spool.acknowledge(spool.pending(max_records=1, max_bytes=1))
    with state.transaction() as connection:
        connection.execute(
            "UPDATE meta SET value = (SELECT value FROM meta WHERE name = 'kept') WHERE name = 'chain_tail'"
        )
    assert drained(spool) == ([2, 3], [Dropped(first_seq=1, last_seq=1, decisions=1, reason="missing")])
    state.close()


def test_records_of_two_histories_of_one_file_are_posted_and_the_break_is_no_loss(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial())])
    with state.transaction() as connection:
        connection.execute("CREATE TABLE marks AS SELECT * FROM meta")
    spool.append([batch(denial(), denial(), first=5)])
    with state.transaction() as connection:
        connection.execute("CREATE TABLE other AS SELECT * FROM queue WHERE seq = 3")
        connection.execute("DELETE FROM queue WHERE seq > 1")
        connection.execute("INSERT OR REPLACE INTO meta SELECT * FROM marks")
    spool.append([batch(denial(), heartbeat(), first=20)])
    with state.transaction() as connection:
        connection.execute("DELETE FROM queue WHERE seq = 3")
        connection.execute("INSERT INTO queue SELECT * FROM other")
    numbers, lost = drained(spool)
    assert (numbers, lost) == ([1, 2, 3], [])
    state.close()


def test_two_processes_that_append_make_one_chain(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    other_state, other = open_spool(tmp_path)
    for number in range(3):
        spool.append([batch(denial(), first=10 * number)])
        other.append([batch(denial(), first=10 * number + 5)])
    assert drained(spool) == ([1, 2, 3, 4, 5, 6], [])
    other_state.close()
    state.close()


def test_a_batch_that_is_refused_leaves_the_chain_whole(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial()), batch(denial(reason="other")), batch(denial(), first=5)])
    assert drained(spool) == ([1, 2], [])
    state.close()


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_every_record_is_posted_or_declared_lost_whatever_was_taken_or_altered(data: st.DataObject) -> None:
    numbers = st.integers(1, 6)
    with tempfile.TemporaryDirectory() as directory:
        state, spool = open_spool(Path(directory))
        spool.append([batch(decision(), denial(), heartbeat(), denial(), decision(), heartbeat())])
        out = data.draw(st.integers(0, 4), label="already posted")
        posted = spool.pending(max_records=max(out, 1), max_bytes=1 << 30)[:out]
        spool.acknowledge(posted)
        gone = data.draw(st.sets(numbers), label="taken")
        bad = data.draw(st.sets(numbers), label="altered")
        with state.transaction() as connection:
            for seq in gone:
                connection.execute("DELETE FROM queue WHERE seq = ?", (seq,))
            for seq in bad:
                connection.execute("UPDATE queue SET openings = x'01' WHERE seq = ?", (seq,))
        later, lost = drained(spool)
        state.close()
    declared = [seq for one in lost for seq in range(one.first_seq, one.last_seq + 1)]
    waiting = range(out + 1, 7)
    assert sorted([*range(1, out + 1), *(seq for seq in later if seq <= 6), *declared]) == list(range(1, 7))
    assert declared == [seq for seq in waiting if seq in gone | bad]
    assert sum(one.decisions for one in lost) == len(set(declared) & {1, 2, 4, 5})


# --- files of the version before


def as_of_version_9(directory: Path, prepare: Callable[[sqlite3.Connection], object] = lambda _: None) -> None:
    """Make of a closed spool the file that a gateway of the version before would have left."""
    box = nacl.secret.SecretBox(SPOOL_KEY)
    with sqlite3.connect(directory / "state.db") as file:
        for column in ("counted", "previous", "link"):
            file.execute(f"ALTER TABLE queue DROP COLUMN {column}")
        file.execute("DELETE FROM meta WHERE name LIKE 'chain_%'")
        check = bytes(box.encrypt(b"tallystick/spool/v1"))
        file.execute("UPDATE meta SET value = ? WHERE name = 'key_check'", (check,))
        prepare(file)
        file.execute("PRAGMA user_version = 9")
    file.close()


def test_a_full_spool_of_the_version_before_is_drained_whole_and_chained(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(decision(), denial(), heartbeat(), denial())])
    spool.acknowledge(spool.pending(max_records=1, max_bytes=1))
    epoch, before = spool.epoch, spool.pending(**ALL)
    state.close()
    as_of_version_9(tmp_path)
    state, spool = open_spool(tmp_path)
    assert (spool.epoch, spool.altered(), spool.pending(**ALL)) == (epoch, False, before)
    spool.append([batch(denial(), first=9)])
    with state.transaction() as connection:
        connection.execute("DELETE FROM queue WHERE seq = 3")
    assert drained(spool) == ([2, 4, 5, 6], [Dropped(first_seq=3, last_seq=3, decisions=0, reason="missing")])
    state.close()


def test_an_empty_spool_of_the_version_before_goes_on_with_its_numbers(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial(), denial())])
    spool.acknowledge(spool.pending(**ALL))
    state.close()
    as_of_version_9(tmp_path)
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial(), first=9)])
    assert drained(spool) == ([3], [])
    state.close()


def test_what_was_set_aside_or_damaged_before_there_was_a_chain_is_not_declared_twice(tmp_path: Path) -> None:
    def damage(file: sqlite3.Connection) -> None:
        file.execute("DELETE FROM queue WHERE seq = 2")  # as one that was set aside
        file.execute("UPDATE queue SET entry = x'00' WHERE seq = 3")

    state, spool = open_spool(tmp_path)
    spool.append([batch(denial(), denial(), denial(), denial())])
    state.close()
    as_of_version_9(tmp_path, damage)
    state, spool = open_spool(tmp_path)
    assert [one.seq for one in spool.pending(**ALL)] == [1, 3, 4]  # the ledger will refuse the damaged one
    spool.acknowledge(spool.pending(**ALL))
    assert drained(spool) == ([], [])
    state.close()


@pytest.mark.parametrize(
    ("damage", "reason"), [("UPDATE queue SET openings = x'00' WHERE seq = 3", "unreadable"), (None, "missing")]
)
def test_of_what_waited_before_there_was_a_chain_no_more_decisions_are_declared_lost_than_were(
    tmp_path: Path, damage: str | None, reason: str
) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(*[denial()] * 4)])
    spool.acknowledge(spool.pending(max_records=2, max_bytes=1 << 30))
    state.close()
    as_of_version_9(tmp_path, lambda file: damage is None or file.execute(damage))
    state, spool = open_spool(tmp_path)
    if damage is None:
        with state.transaction() as connection:
            connection.execute("DELETE FROM queue WHERE seq = 3")
    assert drained(spool) == ([4, 5], [Dropped(first_seq=3, last_seq=3, decisions=1, reason=reason)])
    state.close()


def test_a_chain_that_was_taken_off_does_not_make_the_file_one_of_the_version_before(tmp_path: Path) -> None:
    state, _ = tampered(tmp_path, "DELETE FROM meta WHERE name LIKE 'chain_%';UPDATE queue SET link = x''")
    state._connection.execute("DELETE FROM queue WHERE seq = 2")
    state.close()
    state, spool = open_spool(tmp_path)
    assert spool.altered()
    state.close()


# --- links and marks

CONTENT = Link(previous=GENESIS, epoch="ab" * 16, seq=1, counted=0, record_id=record_id(1), entry=b"{}", sealed=b"s")


def test_a_link_depends_on_everything_and_on_the_key() -> None:
    chain = Chain(SPOOL_KEY)
    others = [
        Link(
            previous=b"\x01" * 32, epoch="ab" * 16, seq=1, counted=0, record_id=record_id(1), entry=b"{}", sealed=b"s"
        ),
        Link(previous=GENESIS, epoch="cd" * 16, seq=1, counted=0, record_id=record_id(1), entry=b"{}", sealed=b"s"),
        Link(previous=GENESIS, epoch="ab" * 16, seq=2, counted=0, record_id=record_id(1), entry=b"{}", sealed=b"s"),
        Link(previous=GENESIS, epoch="ab" * 16, seq=1, counted=1, record_id=record_id(1), entry=b"{}", sealed=b"s"),
        Link(previous=GENESIS, epoch="ab" * 16, seq=1, counted=0, record_id=record_id(2), entry=b"{}", sealed=b"s"),
        Link(previous=GENESIS, epoch="ab" * 16, seq=1, counted=0, record_id=record_id(1), entry=b"{}s", sealed=b""),
    ]
    links = [chain.link(one) for one in (CONTENT, *others)]
    links += [chain.void(CONTENT), Chain(bytes(32)).link(CONTENT)]
    assert len(set(links)) == len(links)
    assert chain.is_intact(Row(1, CONTENT, links[0]))
    assert not any(chain.is_intact(Row(1, CONTENT, link)) for link in links[1:])


def test_a_mark_opens_at_its_own_end_and_under_its_own_key_alone() -> None:
    chain, mark = Chain(SPOOL_KEY), Mark("ab" * 16, 7, 3, b"\x07" * 32)
    sealed = chain.seal("tail", mark)
    assert chain.open("tail", sealed) == mark
    assert chain.open("head", sealed) is None
    assert Chain(bytes(32)).open("tail", sealed) is None
    for wrong in (None, b"", "text", sealed[:-1], sealed + b"\x00", bytes(len(sealed)), sealed[:32]):
        assert chain.open("tail", wrong) is None


def test_a_file_of_version_10_gets_its_table_of_tools_and_keeps_the_rest(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path)
    spool.append([batch(denial(), denial())])
    before = spool.pending(**ALL)
    state.close()
    with sqlite3.connect(tmp_path / "state.db") as file:
        file.executescript("DROP TABLE tool_pins; DROP TABLE tool_words; PRAGMA user_version = 10;")
    file.close()
    state, spool = open_spool(tmp_path)
    assert (spool.altered(), spool.pending(**ALL)) == (False, before)
    assert PinStore(state).read() == {}
    assert PinStore(state).words() == 0
    state.close()
