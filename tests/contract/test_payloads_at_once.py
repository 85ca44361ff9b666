"""Opening one field of many records by one look at the store: as opening each, whatever befell one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from ledger.errors import CommitmentError, ErasedError, NotFoundError, StorageError
from ledger.ports import Opening
from ledger.records import Record
from ledger.stores import tables
from ledger.stores.memory import MemoryLogStore
from tests.support.ledger import LOG_ID, EmbeddedLedger, Enforcer, make_decision, pending

USERS = ("1" * 32, "2" * 32, "3" * 32)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedLedger]:
    url = request.getfixturevalue("postgres").new_schema() if request.param == "postgresql" else None
    with EmbeddedLedger(tmp_path, database_url=url) as made:
        yield made


def filled(ledger: EmbeddedLedger) -> dict[int, Record]:
    """Put an introduction and three decisions into the log, and return all of them by leaf."""
    gateway = Enforcer("gateway-1")
    entries = [pending(ledger.service.record(ledger.service.introduction()))]
    for user in USERS:
        body, openings = make_decision(user=user)
        entries.append(pending(gateway.record(body), ledger.vault, openings))
    return dict(zip(ledger.append(*entries), [entry.record for entry in entries], strict=True))


def test_many_are_opened_as_each_alone_and_what_commits_to_nothing_is_left_out(ledger):
    records = filled(ledger)
    opened = ledger.vault.open_many(records, "request")
    assert list(opened) == [1, 2, 3]
    assert all(opened[leaf] == ledger.vault.open(records[leaf], "request") for leaf in opened)
    assert ledger.vault.open_many({}, "request") == {}


def test_what_befell_one_payload_is_said_of_that_one_alone(ledger):
    records = filled(ledger)
    payloads = tables.vault_payloads
    with ledger.engine.begin() as connection:
        connection.execute(delete(payloads).where(payloads.c.leaf_index == 1))
        connection.execute(update(payloads).where(payloads.c.leaf_index == 2).values(ciphertext=b""))
    opened = ledger.vault.open_many(records, "request")
    assert isinstance(opened[1], NotFoundError)
    assert isinstance(opened[2], ErasedError)
    assert isinstance(opened[3], Opening)


def test_a_payload_under_another_leaf_passes_for_nobody_elses(ledger):
    records = filled(ledger)
    swapped = {1: records[2], 2: records[1], 3: records[3]}
    opened = ledger.vault.open_many(swapped, "request")
    assert isinstance(opened[1], CommitmentError)
    assert isinstance(opened[2], CommitmentError)
    assert isinstance(opened[3], Opening)


def test_a_database_that_fails_is_a_storage_error(ledger):
    records = filled(ledger)
    with ledger.engine.begin() as connection:
        tables.vault_payloads.drop(connection)
    with pytest.raises(StorageError):
        ledger.vault.open_many(records, "request")


def test_the_store_in_memory_gives_back_those_that_it_has(ledger):
    records = filled(ledger)
    store = MemoryLogStore(LOG_ID)
    body, openings = make_decision()
    entry = pending(Enforcer("gateway-1").record(body), ledger.vault, openings)
    store.sequence(LOG_ID, [[entry]], received_ms=0)
    ids = {0: entry.record.record_id, 1: records[1].record_id}
    assert store.payloads(LOG_ID, ids, "request") == {0: store.payload(LOG_ID, ids[0], "request")}
