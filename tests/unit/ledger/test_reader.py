"""Reading entries where they are: young ones in the log store, released ones in the tile store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.bodies import KeyEvent
from ledger.errors import MalformedError, NotFoundError, StorageError
from ledger.reader import EntryReader
from ledger.records import encode_record
from ledger.stores.memory import MemoryLogStore, MemoryTileStore
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, Enforcer, pending

PUBLISHED, SEQUENCED = 600, 700


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedLedger, list[bytes]]]:
    """Return a log of 700 entries: 512 released, 88 published and held, 100 not published."""
    with EmbeddedLedger(tmp_path_factory.mktemp("reader")) as ledger:
        service = ledger.service
        batch = [pending(service.record(service.introduction()))]
        batch += [pending(service.record(service.heartbeat())) for _ in range(SEQUENCED - 1)]
        ledger.append(*batch[:PUBLISHED])
        ledger.publish()
        ledger.append(*batch[PUBLISHED:])
        yield ledger, [entry.entry for entry in batch]


EDGES = (0, 1, 255, 256, 257, 511, 512, 513, 599, 600, 601, 699, 700)


@pytest.mark.parametrize("start", EDGES)
def test_any_range_is_read_across_all_borders(log, start):
    ledger, entries = log
    for end in EDGES:
        if end >= start:
            assert list(ledger.reader.entries(start, end)) == entries[start:end]


def test_the_released_entries_are_indeed_gone_from_the_log_store(log):
    ledger, _ = log
    with pytest.raises(NotFoundError):
        ledger.store.read_sequenced(LOG_ID, 511, 512)


def test_an_entry_without_an_index_is_not_found(log):
    ledger, entries = log
    with pytest.raises(NotFoundError):
        list(ledger.reader.entries(690, 701))
    reading = ledger.reader.entries(0, 2_000)
    with pytest.raises(NotFoundError):
        list(reading)
    assert len(entries) == SEQUENCED


def test_a_record_is_read_and_decoded(log):
    ledger, entries = log
    assert isinstance(ledger.reader.record(0).body, KeyEvent)
    assert encode_record(ledger.reader.record(650)) == entries[650]


def test_an_entry_that_is_no_record_is_malformed():
    class Odd(MemoryLogStore):
        def read_sequenced(self, log_id: str, start: int, end: int) -> list[bytes]:
            super().read_sequenced(log_id, start, end)
            return [b"{}"] * (end - start)

    writer, store = Enforcer(), Odd(LOG_ID)
    store.sequence(LOG_ID, [[pending(writer.record(writer.heartbeat()))]], received_ms=NOW_MS)
    with pytest.raises(MalformedError):
        EntryReader(store, MemoryTileStore(), LOG_ID).record(0)


class Moving:
    """A log store whose checkpoint is looked at just before a publication releases what is read next."""

    def __init__(self, ledger: EmbeddedLedger, publications: int) -> None:
        self._ledger = ledger
        self._left = publications

    def checkpoint(self, log_id: str) -> bytes | None:
        present = self._ledger.store.checkpoint(log_id)
        if self._left:
            self._left -= 1
            service = self._ledger.service
            self._ledger.append(*(pending(service.record(service.heartbeat())) for _ in range(256)))
            self._ledger.publish()
        return present

    def read_sequenced(self, log_id: str, start: int, end: int) -> list[bytes]:
        return self._ledger.store.read_sequenced(log_id, start, end)


def test_a_release_between_the_look_and_the_read_is_no_error(tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        ledger.publish()
        expected = ledger.store.read_sequenced(LOG_ID, 0, 1)
        moving = EntryReader(Moving(ledger, 1), ledger.tiles, LOG_ID)
        assert list(moving.entries(0, 1)) == expected


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""])
def test_a_damaged_bundle_is_malformed(tmp_path: Path, damage):
    with EmbeddedLedger(tmp_path) as ledger:
        service = ledger.service
        ledger.append(*(pending(service.record(service.heartbeat())) for _ in range(256)))
        ledger.publish()
        bundle = tmp_path / "logs" / LOG_ID / "tile" / "entries" / "000"
        bundle.write_bytes(damage(bundle.read_bytes()))
        with pytest.raises(MalformedError):
            list(EntryReader(ledger.store, ledger.tiles, LOG_ID).entries(0, 1))


def test_a_bundle_that_is_gone_is_not_found(tmp_path: Path):
    with EmbeddedLedger(tmp_path) as ledger:
        service = ledger.service
        ledger.append(*(pending(service.record(service.heartbeat())) for _ in range(256)))
        ledger.publish()
        (tmp_path / "logs" / LOG_ID / "tile" / "entries" / "000").unlink()
        with pytest.raises(NotFoundError):
            list(EntryReader(ledger.store, ledger.tiles, LOG_ID).entries(0, 1))


def test_a_store_that_fails_is_a_storage_error_and_not_a_missing_entry(log):
    ledger, _ = log

    class Failing(Moving):
        def read_sequenced(self, *_: object) -> list[bytes]:
            raise StorageError("the database is gone")

    with pytest.raises(StorageError):
        list(EntryReader(Failing(ledger, 0), ledger.tiles, LOG_ID).entries(650, 651))
