"""The minimum index follows from the log's own records: it moves forward alone, on the service's word alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.bodies import RetentionEvent
from ledger.errors import PrunedError, SignatureInvalidError
from ledger.pruning import MinimumIndex
from ledger.reader import EntryReader
from ledger.records import Record
from ledger.stores.sql_catalog import SQLCatalog
from tests.conformance.requirements import requirement
from tests.support.ledger import LOG_ID, EmbeddedLedger, pending

ACTOR = "a" * 32


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[EmbeddedLedger]:
    with EmbeddedLedger(tmp_path) as opened:
        opened.append(pending(opened.service.record(opened.service.introduction())))
        yield opened


def heartbeats(ledger: EmbeddedLedger, count: int) -> None:
    ledger.append(*(pending(ledger.service.record(ledger.service.heartbeat())) for _ in range(count)))


def event(below: int | None, action: str = "pruned") -> RetentionEvent:
    return RetentionEvent(action=action, actor=ACTOR, actor_role="admin", below=below)


def record_event(ledger: EmbeddedLedger, below: int | None, action: str = "pruned") -> None:
    ledger.append(pending(ledger.service.record(event(below, action))))


def minimum_of(ledger: EmbeddedLedger, check=lambda _index, _record: None) -> MinimumIndex:
    reader = EntryReader(ledger.store, ledger.tiles, LOG_ID)
    return MinimumIndex(LOG_ID, catalog=SQLCatalog(ledger.engine), reader=reader, check=check)


def test_a_log_without_such_a_record_serves_everything(ledger):
    heartbeats(ledger, 300)
    minimum = minimum_of(ledger)
    assert minimum.look() == (0, None)
    minimum.require(0)


@requirement("tiles-17")
def test_the_minimum_index_never_moves_back(ledger):
    heartbeats(ledger, 600)
    minimum = minimum_of(ledger)
    record_event(ledger, 512)
    assert minimum.look() == (512, 601)
    record_event(ledger, 256)
    record_event(ledger, 512)
    assert minimum.look() == minimum_of(ledger).look() == (512, 601)


@pytest.mark.parametrize(("below", "action"), [(512, "pruned"), (None, "pruned"), (256, "policy"), (256, "expired")])
def test_a_record_that_says_no_such_thing_moves_nothing(ledger, below, action):
    heartbeats(ledger, 300)
    record_event(ledger, below, action)
    assert minimum_of(ledger).current() == 0


def test_a_record_that_the_service_did_not_sign_moves_nothing_and_is_told(ledger):
    heartbeats(ledger, 300)
    record_event(ledger, 256)

    def refuse(index: int, _record: Record) -> None:
        raise SignatureInvalidError(f"leaf {index} is not signed by a key of the service")

    minimum = minimum_of(ledger, refuse)
    for _ in range(2):
        with pytest.raises(SignatureInvalidError):
            minimum.current()


def test_what_another_process_records_counts_here_at_once(ledger):
    heartbeats(ledger, 300)
    here, there = minimum_of(ledger), minimum_of(ledger)
    assert (here.current(), there.current()) == (0, 0)
    record_event(ledger, 256)
    assert (here.current(), there.current()) == (256, 256)


def test_the_last_leaf_below_the_minimum_index_is_not_served_and_the_next_one_is(ledger):
    heartbeats(ledger, 300)
    record_event(ledger, 256)
    minimum = minimum_of(ledger)
    with pytest.raises(PrunedError, match="leaf 255 is below the log's published minimum index, 256") as refused:
        minimum.require(255)
    assert refused.value.minimum == 256
    minimum.require(256)
