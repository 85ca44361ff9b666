"""Rebuilding: whatever can be derived from the entries is put right, nothing else is touched, and nothing on trust."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from ledger.database import translated, writing
from ledger.errors import MalformedError, RollbackError, StateError, StorageError, VerificationError
from ledger.rebuild import Rebuilder, RebuildReport
from ledger.records import decode_entry
from ledger.stores.memory import MemoryTileStore
from ledger.stores.sql_rebuild import SQLProjectionRebuild
from ledger.tiles import unpack_bundle
from tests.support.forge import write_bundle, write_log
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, pending


def beats(ledger: EmbeddedLedger, count: int) -> None:
    writer = ledger.service
    ledger.append(*(pending(writer.record(writer.heartbeat())) for _ in range(count)))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[EmbeddedLedger]:
    """Return a log of 605 leaves, with decisions at 301 to 303 and a partial bundle."""
    with EmbeddedLedger(tmp_path / "log") as opened:
        opened.introduce()
        beats(opened, 300)
        opened.publish()
        for _ in range(3):
            opened.decide()
        beats(opened, 301)
        opened.publish()
        yield opened


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()


def rebuilder(ledger: EmbeddedLedger, **changes: object) -> Rebuilder:
    parts = {
        "store": ledger.store,
        "catalog": ledger.catalog,
        "projection": SQLProjectionRebuild(ledger.engine),
        "other_checkpoints": ledger.anchored_checkpoints(),
    }
    return Rebuilder(LOG_ID, ledger.tiles, ledger.policy, **{**parts, **changes})


def rebuilt(ledger: EmbeddedLedger, *, dry_run: bool = False, forward: bool = False) -> RebuildReport:
    return rebuilder(ledger).run(dry_run=dry_run, forward=forward, now_ms=NOW_MS + 5)


def folder(ledger: EmbeddedLedger) -> Path:
    return ledger.root / "logs" / LOG_ID


def as_owner(ledger: EmbeddedLedger, *statements: str) -> None:
    """Run statements as somebody who may drop triggers, and put them back, as a careful attacker would."""
    with writing(ledger.engine) as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        found = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")).all()
        for name, _ in found:
            connection.execute(text(f"DROP TRIGGER {name}"))
        for statement in statements:
            assert connection.execute(text(statement)).rowcount != 0, statement
        for _, definition in found:
            connection.execute(text(definition))


def triggers(ledger: EmbeddedLedger) -> list[str]:
    with ledger.engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")))


def immutable_files(ledger: EmbeddedLedger) -> dict[str, bytes]:
    """Return what a rebuild must not touch: bundles and checkpoints."""
    paths = [*folder(ledger).rglob("entries/**/*"), folder(ledger) / "checkpoint"]
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


# --- nothing to do ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_log_that_is_as_it_must_be_is_left_alone(ledger, dry_run):
    report = rebuilt(ledger, dry_run=dry_run)
    assert not report.differs
    assert not report.written
    assert report.head.size == 605


# --- tiles -----------------------------------------------------------------------------------------------------------

TILES = ["tile/0/000", "tile/0/001", "tile/0/002.p/93", "tile/1/000.p/2"]


@pytest.mark.parametrize("path", TILES)
@pytest.mark.parametrize("damage", ["gone", "flipped", "cut"])
def test_a_tile_that_is_missing_or_wrong_is_made_anew_byte_by_byte(ledger, path, damage):
    file = folder(ledger) / path
    data = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes({"flipped": bytes([data[0] ^ 1]) + data[1:], "cut": data[:-1]}[damage])
    before = immutable_files(ledger)
    assert not ledger.audit().clean
    listed = rebuilt(ledger, dry_run=True)
    assert listed.tiles == [path]
    assert not file.exists() or file.read_bytes() != data
    report = rebuilt(ledger)
    assert (report.tiles, report.leaves, report.written) == ([path], [], True)
    assert file.read_bytes() == data
    assert ledger.audit().clean
    assert immutable_files(ledger) == before


def test_every_tile_at_once_is_made_anew(ledger):
    for level in ("0", "1"):
        shutil.rmtree(folder(ledger) / "tile" / level)
    assert rebuilt(ledger).tiles == TILES[:2] + TILES[2:]
    assert ledger.audit().clean


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "leaves"),
    [
        ("UPDATE records SET time_ms = time_ms + 1 WHERE leaf_index = 302", [range(302, 303)]),
        ("UPDATE records SET received_ms = received_ms, seq = seq + 9000 WHERE leaf_index = 3", [range(3, 4)]),
        ("DELETE FROM records WHERE leaf_index BETWEEN 250 AND 260", [range(250, 261)]),
        ("DELETE FROM decision_rules WHERE leaf_index = 301", [range(301, 302)]),
        ("UPDATE records SET leaf_hash = zeroblob(32) WHERE leaf_index IN (1, 604)", [range(1, 2), range(604, 605)]),
        ("DELETE FROM records", [range(605)]),
        ("UPDATE names SET name = name || 'x' WHERE name = 'heartbeat'", [range(1, 301), range(304, 605)]),
    ],
)
def test_rows_that_are_missing_or_wrong_are_made_anew_and_listed(ledger, statement, leaves):
    as_owner(ledger, statement)
    kept = triggers(ledger)
    assert not ledger.audit().clean
    report = rebuilt(ledger)
    assert report.leaves == leaves
    assert report.tiles == []
    assert ledger.audit().clean
    assert triggers(ledger) == kept


def test_the_triggers_still_refuse_what_the_rebuild_did(ledger):
    as_owner(ledger, "DELETE FROM records WHERE leaf_index = 302")
    rebuilt(ledger)
    with pytest.raises(StorageError), translated("delete a row"), writing(ledger.engine) as connection:
        connection.execute(text("DELETE FROM records WHERE leaf_index = 302"))


def test_rows_that_took_each_others_ids_are_put_right(ledger):
    with ledger.engine.connect() as connection:
        query = text("SELECT hex(record_id) FROM records WHERE leaf_index IN (5, 9) ORDER BY leaf_index")
        first, second = connection.scalars(query)
    as_owner(
        ledger,
        "UPDATE records SET record_id = zeroblob(16) WHERE leaf_index = 5",
        f"UPDATE records SET record_id = x'{first}' WHERE leaf_index = 9",
        f"UPDATE records SET record_id = x'{second}' WHERE leaf_index = 5",
    )
    assert rebuilt(ledger).leaves == [range(5, 6), range(9, 10)]
    assert ledger.audit().clean


def test_when_a_record_was_received_is_kept_where_it_is_known(ledger):
    as_owner(
        ledger,
        "UPDATE records SET received_ms = 77, time_ms = 1 WHERE leaf_index = 302",
        "DELETE FROM records WHERE leaf_index = 303",
    )
    rebuilt(ledger)
    with ledger.engine.connect() as connection:
        query = text("SELECT received_ms FROM records WHERE leaf_index IN (302, 303) ORDER BY leaf_index")
        assert list(connection.scalars(query)) == [77, NOW_MS + 5]


def test_cells_that_nobody_can_read_are_made_anew(ledger):
    as_owner(
        ledger,
        "UPDATE records SET received_ms = 'soon', agent = 'abc', trace_id = CAST(x'ff' AS TEXT) WHERE leaf_index = 302",
    )
    assert rebuilt(ledger).leaves == [range(302, 303)]
    assert ledger.audit().clean
    with ledger.engine.connect() as connection:
        query = text("SELECT received_ms FROM records WHERE leaf_index = 302")
        assert connection.scalar(query) == NOW_MS + 5


def test_a_dry_run_changes_no_row(ledger):
    as_owner(ledger, "DELETE FROM records WHERE leaf_index = 302")
    assert rebuilt(ledger, dry_run=True).leaves == [range(302, 303)]
    assert rebuilt(ledger, dry_run=True).leaves == [range(302, 303)]


# --- what is not rebuilt from ----------------------------------------------------------------------------------------


def forge_entry(ledger: EmbeddedLedger, leaf: int) -> None:
    number, place = divmod(leaf, 256)
    entries = unpack_bundle((folder(ledger) / "tile" / "entries" / f"{number:03d}").read_bytes(), 256)
    entries[place] = entries[place].replace(b'"spool_depth":0', b'"spool_depth":1')
    write_bundle(folder(ledger), entries, number)


def test_nothing_is_written_from_a_bundle_that_was_changed(ledger):
    forge_entry(ledger, 100)
    (folder(ledger) / "tile" / "1" / "000.p" / "2").unlink()
    as_owner(ledger, "DELETE FROM records WHERE leaf_index = 302")
    with pytest.raises(VerificationError, match="nothing is rebuilt from this log"):
        rebuilt(ledger)
    assert not (folder(ledger) / "tile" / "1" / "000.p" / "2").exists()


def test_nothing_is_written_where_a_bundle_is_missing(ledger):
    (folder(ledger) / "tile" / "entries" / "001").unlink()
    with pytest.raises(VerificationError, match="nothing is rebuilt"):
        rebuilt(ledger)


def test_nothing_is_written_under_a_checkpoint_of_other_keys(ledger):
    checkpoint = folder(ledger) / "checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes().replace(b"\n605\n", b"\n604\n"))
    with pytest.raises(VerificationError):
        rebuilt(ledger)


def test_nothing_is_written_against_the_anchor(ledger):
    entries = list(ledger.prover.entries(0, 500, 605))
    write_log(folder(ledger), entries, ledger.signers, NOW_MS // 1000)
    with pytest.raises((VerificationError, RollbackError), match=r"is known|has published"):
        rebuilt(ledger)


def test_a_log_directory_that_is_behind_the_database_is_no_source(ledger):
    entries = list(ledger.prover.entries(0, 500, 605))
    write_log(folder(ledger), entries, ledger.signers, NOW_MS // 1000)
    with pytest.raises(RollbackError, match="put the directory back"):
        rebuilder(ledger, other_checkpoints=[]).run(dry_run=False, forward=True, now_ms=NOW_MS)


@pytest.mark.parametrize("path", ["tile/entries/000", "checkpoint", "tile/entries/000.p/5", "../x"])
def test_no_store_puts_entries_or_checkpoints_right(ledger, path):
    for store in (ledger.tiles, MemoryTileStore()):
        with pytest.raises(MalformedError):
            store.repair(LOG_ID, path, b"x")


# --- a database that was put back ------------------------------------------------------------------------------------


@pytest.fixture
def put_back(tmp_path: Path) -> Iterator[EmbeddedLedger]:
    """Return a log of 905 leaves whose database is that of a backup: 605 published, 3 more acknowledged."""
    with EmbeddedLedger(tmp_path / "log") as first:
        first.introduce()
        beats(first, 604)
        first.publish()
        beats(first, 3)
        with closing(sqlite3.connect(tmp_path / "log" / "ledger.db", isolation_level=None)) as connection:
            connection.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
        first.decide()
        beats(first, 296)
        first.publish()
        service, clock = first.service, first.clock
    shutil.copyfile(tmp_path / "backup.db", tmp_path / "log" / "ledger.db")
    for suffix in ("-wal", "-shm"):
        (tmp_path / "log" / f"ledger.db{suffix}").unlink(missing_ok=True)
    with EmbeddedLedger(tmp_path / "log", load=False, service=service, clock=clock) as opened:
        yield opened


def test_a_database_that_was_put_back_publishes_nothing_until_it_is_brought_forward(put_back):
    with pytest.raises(RollbackError):
        put_back.publisher.load()
    with pytest.raises(StateError, match="--forward"):
        rebuilt(put_back)
    with pytest.raises(RollbackError):
        put_back.publisher.load()


def test_a_database_that_was_put_back_is_brought_forward_and_goes_on(put_back):
    report = rebuilt(put_back, forward=True)
    assert (report.forward_from, report.leaves, report.written) == (608, [range(608, 905)], True)
    assert report.lost_payloads == 2
    assert put_back.store.sequenced_size(LOG_ID) == 905
    put_back.publisher.load()
    beats(put_back, 200)
    put_back.publish()
    report = put_back.audit()
    assert {finding.check for finding in report.findings} == {"vault"}
    assert {finding.leaf for finding in report.findings} == {608}
    assert report.head.size == 1105


def test_what_is_brought_forward_is_listed_beforehand_and_not_written(put_back):
    report = rebuilt(put_back, dry_run=True)
    assert (report.forward_needed, report.forward_from, report.lost_payloads) == (True, 608, 2)
    assert put_back.store.sequenced_size(LOG_ID) == 608


def test_a_record_that_is_sent_again_gets_the_index_that_it_had(put_back):
    entry = put_back.prover.entry(700, 905)
    rebuilt(put_back, forward=True)
    assert put_back.append(pending(decode_entry(entry))) == [700]


def test_records_that_a_put_back_database_gave_to_others_are_not_joined(put_back):
    # Only somebody who got round the refusal to publish can have acknowledged anything on the old database.
    put_back.service.seq, put_back.service.time_ms = 7000, NOW_MS + 900_000
    beats(put_back, 1)
    with pytest.raises(StateError, match="two histories"):
        rebuilt(put_back, forward=True)
    assert put_back.store.sequenced_size(LOG_ID) == 609


def test_bringing_forward_twice_does_nothing_the_second_time(put_back):
    rebuilt(put_back, forward=True)
    assert not rebuilt(put_back, forward=True).differs


def test_a_rebuild_that_fails_in_the_tables_leaves_them_as_they_were(put_back, monkeypatch):
    monkeypatch.setattr("ledger.stores.sql_rebuild._hold", lambda *_: (_ for _ in ()).throw(StorageError("killed")))
    kept = triggers(put_back)
    with pytest.raises(StorageError):
        rebuilt(put_back, forward=True)
    assert put_back.store.sequenced_size(LOG_ID) == 608
    assert triggers(put_back) == kept
    monkeypatch.undo()
    assert rebuilt(put_back, forward=True).written
