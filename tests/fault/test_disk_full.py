"""A full disk: nothing is acknowledged that is not kept, nothing is shown that is not published, and it passes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.bodies import KeyEvent
from ledger.envelopes import MLDSA44
from ledger.errors import StorageError
from ledger.ports import PendingEntry
from ledger.stores.subject_keys import DirectorySubjectKeys
from tests.support.disks import SmallDisk, small_disk
from tests.support.ledger import LOG_ID, EmbeddedLedger, make_key, pending
from tests.support.verdict import check_nothing_was_lost


@pytest.fixture(params=["where we may mount one", "injected"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", inject=request.param == "injected") as opened:
        yield opened


@pytest.fixture
def ledger(disk: SmallDisk) -> Iterator[EmbeddedLedger]:
    with EmbeddedLedger(disk.folder) as opened:
        opened.introduce()
        opened.publish()
        yield opened


def large_batch(ledger: EmbeddedLedger, count: int = 200) -> list[PendingEntry]:
    """Return records of some kilobytes each: they need new pages of the database and new tiles."""
    service = ledger.service
    body = KeyEvent(
        action="created", purpose="pack", algorithm=MLDSA44, subject="packs", key_id="k", public_key="A" * 4096
    )
    return [pending(service.record(body)) for _ in range(count)]


def test_a_full_disk_acknowledges_nothing_and_loses_nothing(disk, ledger):
    first = large_batch(ledger, 10)
    acknowledged = {entry.record.record_id: index for entry, index in zip(first, ledger.append(*first), strict=True)}
    disk.fill(ledger.engine)
    refused = large_batch(ledger)
    for _ in range(2):
        with pytest.raises(StorageError):
            ledger.append(*refused)
    disk.free(ledger.engine)
    assert ledger.store.sequenced_size(LOG_ID) == 1 + len(first)
    indexes = ledger.append(*refused)
    acknowledged |= {entry.record.record_id: index for entry, index in zip(refused, indexes, strict=True)}
    ledger.publish()
    check_nothing_was_lost(ledger, acknowledged, [*first, *refused])


def test_a_full_disk_publishes_nothing_and_shows_nothing(disk, ledger):
    batch = large_batch(ledger, 300)
    indexes = ledger.append(*batch)
    before = (ledger.exposed_checkpoints(), ledger.anchored_checkpoints(), ledger.published_checkpoints())
    disk.fill(ledger.engine)
    ledger.clock.advance(1000)
    for _ in range(2):
        with pytest.raises(StorageError):
            ledger.publisher.publish()
    ledger.publisher.anchor_newest()
    assert (ledger.exposed_checkpoints(), ledger.anchored_checkpoints(), ledger.published_checkpoints()) == before
    disk.free(ledger.engine)
    ledger.publisher.load()
    ledger.publish()
    acknowledged = {entry.record.record_id: index for entry, index in zip(batch, indexes, strict=True)}
    check_nothing_was_lost(ledger, acknowledged, batch)


def test_a_full_disk_gives_no_subject_a_key_that_is_not_kept(disk, ledger):
    subjects = [f"{number:032x}" for number in range(5)]
    disk.fill(ledger.engine)
    keys = ledger.vault._keys
    for subject in subjects:
        with pytest.raises(StorageError):
            keys.get_or_create(LOG_ID, subject)
    disk.free(ledger.engine)
    made = [keys.get_or_create(LOG_ID, subject) for subject in subjects]
    vault_key = make_key("vault", "xchacha20-poly1305", seed=3)
    again = DirectorySubjectKeys(ledger.root / "subject-keys", vault_key)
    assert [again.get(LOG_ID, subject) for subject in subjects] == made


def test_a_full_anchor_disk_stops_nothing(disk, tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        (tmp_path / "anchor").symlink_to(disk.folder)
        ledger.introduce()
        ledger.clock.advance(1000)
        assert ledger.publisher.publish() is not None
        disk.fill(ledger.engine)
        ledger.publisher.anchor_newest()
        assert ledger.publisher.anchor_status.failure is not None
        assert ledger.anchored_checkpoints() == []
        disk.free(ledger.engine)
        ledger.publisher.anchor_newest()
        assert ledger.publisher.anchor_status.failure is None
        assert ledger.anchored_checkpoints() == ledger.published_checkpoints()
