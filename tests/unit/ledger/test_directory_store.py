"""The tile store as a directory, beyond what every tile store promises (`tests/contract/test_tile_store.py`)."""

from __future__ import annotations

import errno
import fcntl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger.errors import MalformedError, NotFoundError, StorageError
from ledger.stores.directory import DirectoryTileStore
from ledger.tiles import CHECKPOINT_PATH
from tests.support.checkpoints import make_checkpoint
from tests.support.file_trace import FileTrace
from tests.support.ledger import LOG_ID

HOSTILE_PATHS = [
    "",
    ".",
    "..",
    "../checkpoint",
    "checkpoint/",
    "/checkpoint",
    "Checkpoint",
    "tile",
    "tile/0",
    "tile/0/000/",
    "tile/0/000/../../../other/checkpoint",
    "tile/0/../0/000",
    "tile/00/000",
    "tile/0/0",
    "tile/0/1000",
    "tile/0/x000/001",
    "tile/0/000.p/0",
    "tile/0/000.p/256",
    "tile/0/000.p/01",
    "tile/64/000",
    "tile/entries/000\0",
    "tile/entries/000\n",
    "tile/0/\u0660\u0660\u0660",
    "tile\\0\\000",
    ".acme.lock",
]


@pytest.fixture
def tiles(tmp_path: Path) -> DirectoryTileStore:
    return DirectoryTileStore(tmp_path / "logs")


@pytest.mark.parametrize("path", HOSTILE_PATHS)
def test_no_path_but_a_tile_is_read_or_written(tiles, tmp_path, path):
    (tmp_path / "checkpoint").write_bytes(b"outside")
    tiles.put("other", "tile/0/000", b"theirs")
    with pytest.raises(MalformedError):
        tiles.get(LOG_ID, path)
    with pytest.raises(MalformedError):
        tiles.put(LOG_ID, path, b"bytes")
    assert not (tmp_path / "logs" / LOG_ID).exists()


@pytest.mark.parametrize("log_id", ["", ".", "..", "../logs/other", "other/tile", "ACME", "\0"])
def test_no_log_id_leads_out_of_the_directory(tiles, log_id):
    tiles.put("other", "tile/0/000", b"theirs")
    for call in (
        lambda: tiles.get(log_id, "tile/0/000"),
        lambda: tiles.put(log_id, "tile/0/000", b"bytes"),
        lambda: tiles.expose(log_id, make_checkpoint(1)),
    ):
        with pytest.raises(MalformedError):
            call()


def test_a_log_directory_holds_what_tlog_tiles_names_and_nothing_else(tiles, tmp_path):
    tiles.put(LOG_ID, "tile/0/000.p/1", b"hash")
    tiles.put(LOG_ID, "tile/entries/000.p/1", b"entry")
    tiles.expose(LOG_ID, make_checkpoint(1))
    tiles.expose(LOG_ID, make_checkpoint(2))
    root = tmp_path / "logs" / LOG_ID
    files = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    assert files == ["checkpoint", "tile/0/000.p/1", "tile/entries/000.p/1"]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_failing_disk_is_a_storage_error_with_its_cause(tiles, monkeypatch, error):
    FileTrace.start(monkeypatch).fail("sync", error)
    for call in (lambda: tiles.put(LOG_ID, "tile/0/000", b"hash"), lambda: tiles.expose(LOG_ID, make_checkpoint(1))):
        with pytest.raises(StorageError) as caught:
            call()
        assert isinstance(caught.value.__cause__, OSError)
    for path in ("tile/0/000", CHECKPOINT_PATH):
        with pytest.raises(NotFoundError):
            tiles.get(LOG_ID, path)


def test_a_file_where_a_directory_belongs_is_a_storage_error_for_writers_and_missing_for_readers(tiles, tmp_path):
    (tmp_path / "logs" / LOG_ID).mkdir(parents=True)
    (tmp_path / "logs" / LOG_ID / "tile").write_bytes(b"")
    with pytest.raises(NotFoundError):
        tiles.get(LOG_ID, "tile/0/000")
    with pytest.raises(StorageError):
        tiles.put(LOG_ID, "tile/0/000", b"hash")


def test_a_checkpoint_that_was_damaged_on_disk_is_not_silently_replaced(tiles, tmp_path):
    tiles.expose(LOG_ID, make_checkpoint(5))
    live = tmp_path / "logs" / LOG_ID / CHECKPOINT_PATH
    live.write_bytes(live.read_bytes()[:20])
    with pytest.raises(MalformedError):
        tiles.expose(LOG_ID, make_checkpoint(6))


def test_an_exposure_waits_for_another_process_and_not_for_one_that_is_paused(tmp_path, monkeypatch):
    tiles = DirectoryTileStore(tmp_path)
    tiles.expose(LOG_ID, make_checkpoint(1))
    (lock,) = tmp_path.glob(".*.lock")
    with lock.open("rb") as paused, ThreadPoolExecutor(1) as threads:
        fcntl.flock(paused, fcntl.LOCK_EX)
        with monkeypatch.context() as patched:
            patched.setattr("ledger.stores.directory._LOCK_SECONDS", 0.05)
            with pytest.raises(StorageError, match="another process"):
                tiles.expose(LOG_ID, make_checkpoint(2))
        assert tiles.get(LOG_ID, "checkpoint") == make_checkpoint(1)
        waiting = threads.submit(tiles.expose, LOG_ID, make_checkpoint(3))
        fcntl.flock(paused, fcntl.LOCK_UN)
        waiting.result(10)
    assert tiles.get(LOG_ID, "checkpoint") == make_checkpoint(3)
