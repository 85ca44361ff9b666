"""Rebuilding on a real PostgreSQL: the same rows, the same refusals afterwards, and a database that was behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ledger.errors import RollbackError, StorageError
from ledger.projection import PROJECTED_TABLES
from ledger.rebuild import Rebuilder, RebuildReport
from ledger.stores.sql_rebuild import SQLProjectionRebuild
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, pending
from tests.support.postgres import PostgresCluster

_PROTECTED = (*PROJECTED_TABLES, "checkpoints")


def beats(ledger: EmbeddedLedger, count: int) -> None:
    ledger.append(*(pending(ledger.service.record(ledger.service.heartbeat())) for _ in range(count)))


@pytest.fixture
def ledger(tmp_path: Path, postgres: PostgresCluster) -> Iterator[EmbeddedLedger]:
    """Return a log of 605 leaves with decisions at 301 to 303, its tables in PostgreSQL."""
    with EmbeddedLedger(tmp_path, database_url=postgres.new_schema()) as opened:
        opened.introduce()
        beats(opened, 300)
        for _ in range(3):
            opened.decide()
        beats(opened, 301)
        opened.publish()
        yield opened


def as_owner(ledger: EmbeddedLedger, *statements: str) -> None:
    """Run statements as the owner of the tables, who may turn triggers off and on."""
    with ledger.engine.begin() as connection:
        for name in _PROTECTED:
            connection.execute(text(f"ALTER TABLE {name} DISABLE TRIGGER USER"))
        for statement in statements:
            assert connection.execute(text(statement)).rowcount > 0, statement
        for name in _PROTECTED:
            connection.execute(text(f"ALTER TABLE {name} ENABLE TRIGGER USER"))


def rebuilt(ledger: EmbeddedLedger, *, forward: bool = False) -> RebuildReport:
    rebuilder = Rebuilder(
        LOG_ID,
        ledger.tiles,
        ledger.policy,
        store=ledger.store,
        catalog=ledger.catalog,
        projection=SQLProjectionRebuild(ledger.engine),
        other_checkpoints=ledger.anchored_checkpoints(),
    )
    return rebuilder.run(dry_run=False, forward=forward, now_ms=NOW_MS + 5)


def refused(ledger: EmbeddedLedger, statement: str) -> bool:
    try:
        with ledger.engine.begin() as connection:
            connection.execute(text(statement))
    except DBAPIError:
        return True
    return False


@pytest.mark.parametrize(
    ("statement", "leaves"),
    [
        ("UPDATE records SET time_ms = time_ms + 1 WHERE leaf_index = 302", [range(302, 303)]),
        ("DELETE FROM records WHERE leaf_index BETWEEN 250 AND 260", [range(250, 261)]),
        ("DELETE FROM decision_rules WHERE leaf_index = 301", [range(301, 302)]),
        ("UPDATE records SET leaf_hash = decode(repeat('00', 32), 'hex') WHERE leaf_index = 604", [range(604, 605)]),
        ("DELETE FROM records", [range(605)]),
    ],
)
def test_rows_are_made_anew_and_protected_again(ledger, statement, leaves):
    as_owner(ledger, statement)
    assert not ledger.audit().clean
    assert rebuilt(ledger).leaves == leaves
    assert ledger.audit().clean
    assert refused(ledger, "DELETE FROM records WHERE leaf_index = 302")
    assert refused(ledger, "UPDATE decision_rules SET rule = rule WHERE leaf_index = 301")


def test_a_rebuild_that_fails_changes_nothing_and_leaves_the_rows_protected(ledger, monkeypatch):
    as_owner(ledger, "DELETE FROM records WHERE leaf_index = 302")

    def fail(*_: object) -> None:
        raise StorageError("killed")

    monkeypatch.setattr("ledger.stores.sql_rebuild._insert", fail)
    with pytest.raises(StorageError):
        rebuilt(ledger)
    monkeypatch.undo()
    assert refused(ledger, "DELETE FROM records WHERE leaf_index = 301")
    assert rebuilt(ledger).leaves == [range(302, 303)]


def test_a_database_that_was_behind_is_brought_forward_and_goes_on(ledger):
    beats(ledger, 3)
    ledger.decide()
    beats(ledger, 296)
    ledger.publish()
    as_owner(
        ledger,
        "DELETE FROM decision_rules WHERE leaf_index >= 608",
        "DELETE FROM records WHERE leaf_index >= 608",
        "DELETE FROM pending_entries WHERE leaf_index >= 608",
        "DELETE FROM vault_payloads WHERE leaf_index >= 608",
        "DELETE FROM checkpoints WHERE size > 605",
    )
    with pytest.raises(RollbackError):
        ledger.make_publisher().load()
    report = rebuilt(ledger, forward=True)
    assert (report.forward_from, report.leaves, report.lost_payloads) == (608, [range(608, 905)], 2)
    assert ledger.store.sequenced_size(LOG_ID) == 905
    again = ledger.reopen()
    beats(again, 200)
    again.publish()
    found = again.audit()
    assert {(finding.check, finding.leaf) for finding in found.findings} == {("vault", 608)}
    assert found.head.size == 1105
    again.close()
