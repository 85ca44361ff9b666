"""The directory anchor, beyond what every anchor promises (`tests/contract/test_anchor.py`)."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from ledger.anchors.directory import DirectoryAnchor
from ledger.errors import AnchorError, MalformedError, NotFoundError
from tests.support.checkpoints import make_checkpoint
from tests.support.file_trace import FileTrace
from tests.support.ledger import LOG_ID


@pytest.fixture
def anchor(tmp_path: Path) -> DirectoryAnchor:
    return DirectoryAnchor(tmp_path)


def folder(tmp_path: Path) -> Path:
    return tmp_path / LOG_ID / "checkpoint"


def test_a_copy_is_a_read_only_file_named_by_its_size(anchor, tmp_path):
    receipt = anchor.put(LOG_ID, 5, make_checkpoint(5))
    path = folder(tmp_path) / "5"
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert receipt.location == f"file:{path}"


def test_a_receipt_claims_no_lock_that_a_directory_cannot_give(anchor):
    assert anchor.put(LOG_ID, 5, make_checkpoint(5)).retain_until_ms is None


def test_a_receipt_gives_the_time_of_the_file(anchor, tmp_path):
    anchor.put(LOG_ID, 5, make_checkpoint(5))
    os.utime(folder(tmp_path) / "5", ns=(0, 1_763_546_400_123_000_000))
    assert anchor.put(LOG_ID, 5, make_checkpoint(5)).anchored_ms == 1_763_546_400_123


@pytest.mark.parametrize("name", [".6.tmp", "6.tmp", "06", "+6", "\u0666", "6 ", "-6", "99999999999999999999999"])
def test_files_that_name_no_size_are_not_taken_for_copies(anchor, tmp_path, name):
    anchor.put(LOG_ID, 5, make_checkpoint(5))
    (folder(tmp_path) / name).write_bytes(b"")
    assert anchor.sizes(LOG_ID) == [5]


@pytest.mark.parametrize("log_id", ["", "..", "../other", "a/b", "ACME"])
def test_no_log_id_leads_out_of_the_directory(anchor, log_id):
    for call in (
        lambda: anchor.put(log_id, 5, make_checkpoint(5)),
        lambda: anchor.get(log_id, 5),
        lambda: anchor.sizes(log_id),
    ):
        with pytest.raises(MalformedError):
            call()


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", make_checkpoint(5)[:30]])
def test_a_damaged_copy_is_an_error_of_the_anchor_and_is_not_replaced(anchor, tmp_path, damage):
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / "5").write_bytes(damage)
    with pytest.raises(AnchorError):
        anchor.put(LOG_ID, 5, make_checkpoint(5))
    assert (folder(tmp_path) / "5").read_bytes() == damage


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failing_disk_is_an_error_of_the_anchor_with_its_cause(anchor, monkeypatch, error):
    FileTrace.start(monkeypatch).fail("link", error)
    with pytest.raises(AnchorError) as caught:
        anchor.put(LOG_ID, 5, make_checkpoint(5))
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(NotFoundError):
        anchor.get(LOG_ID, 5)


def test_a_directory_where_a_copy_belongs_is_an_error_of_the_anchor(anchor, tmp_path):
    (folder(tmp_path) / "5").mkdir(parents=True)
    for call in (lambda: anchor.put(LOG_ID, 5, make_checkpoint(5)), lambda: anchor.get(LOG_ID, 5)):
        with pytest.raises(AnchorError):
            call()


def test_a_directory_that_cannot_be_listed_is_an_error_of_the_anchor(anchor, tmp_path, monkeypatch):
    anchor.put(LOG_ID, 5, make_checkpoint(5))

    def listing_fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "iterdir", listing_fails)
    with pytest.raises(AnchorError):
        anchor.sizes(LOG_ID)
