"""Durable files: the order of sync and name, and what a failure leaves behind."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from ledger.errors import ConfigError, ConflictError, MalformedError
from ledger.files import appearing_directory, create_durably, log_directory, make_directory_durably, replace_durably
from tests.support.file_trace import FileTrace


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> FileTrace:
    return FileTrace.start(monkeypatch)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- creating --------------------------------------------------------------------------------------------------------


def test_a_file_is_created_with_its_directories(tmp_path):
    create_durably(tmp_path / "a" / "b" / "file", b"bytes")
    assert (tmp_path / "a" / "b" / "file").read_bytes() == b"bytes"
    assert names(tmp_path / "a" / "b") == ["file"]


@pytest.mark.parametrize("mode", [0o444, 0o600, 0o644])
def test_a_file_has_the_permissions_asked_for(tmp_path, mode):
    create_durably(tmp_path / "file", b"bytes", mode=mode)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_the_bytes_are_durable_before_the_name_is_given_and_the_name_before_the_call_returns(tmp_path, trace):
    create_durably(tmp_path / "file", b"bytes")
    (bytes_synced,) = trace.positions("sync", tmp_path / "file")
    (named,) = trace.positions("link", tmp_path / "file")
    assert bytes_synced < named < trace.positions("sync", tmp_path)[-1]


def test_a_name_that_was_there_already_is_made_durable_too(tmp_path, trace):
    # The call before may have died after giving the name and before syncing it.
    (tmp_path / "file").write_bytes(b"bytes")
    create_durably(tmp_path / "file", b"bytes")
    assert trace.positions("sync", tmp_path)


def test_the_same_bytes_again_are_success_and_leave_no_temporary_file(tmp_path):
    create_durably(tmp_path / "file", b"bytes")
    create_durably(tmp_path / "file", b"bytes")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("other", [b"other", b"", b"byte"])
def test_other_bytes_are_a_conflict_and_leave_no_temporary_file(tmp_path, other):
    create_durably(tmp_path / "file", b"bytes")
    with pytest.raises(ConflictError):
        create_durably(tmp_path / "file", other)
    assert (tmp_path / "file").read_bytes() == b"bytes"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["sync", "link"])
def test_a_failing_disk_leaves_neither_the_file_nor_a_temporary_one(tmp_path, trace, step):
    trace.fail(step, errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        create_durably(tmp_path / "file", b"bytes")
    assert names(tmp_path) == []
    trace.heal()
    create_durably(tmp_path / "file", b"bytes")
    assert names(tmp_path) == ["file"]


def test_a_directory_that_cannot_be_synced_is_an_error(tmp_path, trace):
    create_durably(tmp_path / "first", b"bytes")
    trace.fail("sync", errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        create_durably(tmp_path / "first", b"bytes")


# --- directories -----------------------------------------------------------------------------------------------------


def test_every_new_directory_is_durable_in_its_parent_before_a_file_is_named_in_it(tmp_path, trace):
    create_durably(tmp_path / "a" / "b" / "file", b"bytes")
    (named,) = trace.positions("link", tmp_path / "a" / "b" / "file")
    for directory in (tmp_path, tmp_path / "a"):
        assert min(trace.positions("sync", directory)) < named


def test_a_directory_that_somebody_else_made_and_did_not_sync_is_made_durable(tmp_path, trace):
    # Another process was killed, or is about to sync, between mkdir and the sync of the parent.
    (tmp_path / "a").mkdir()
    create_durably(tmp_path / "a" / "file", b"bytes")
    (named,) = trace.positions("link", tmp_path / "a" / "file")
    assert min(trace.positions("sync", tmp_path)) < named


def test_the_name_of_a_standing_directory_is_synced_once(tmp_path, trace):
    (tmp_path / "a").mkdir()
    for number in range(3):
        create_durably(tmp_path / "a" / str(number), b"bytes")
    assert len(trace.positions("sync", tmp_path)) == 1


def test_a_parent_that_is_closed_to_us_does_not_stop_us(tmp_path, trace):
    (tmp_path / "a").mkdir()
    trace.fail("sync", errno.EACCES)
    make_directory_durably(tmp_path / "a")
    assert trace.calls == []


def test_new_directories_have_the_permissions_asked_for(tmp_path):
    make_directory_durably(tmp_path / "a" / "b", mode=0o700)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "a", tmp_path / "a" / "b")] == [0o700, 0o700]


# --- replacing -------------------------------------------------------------------------------------------------------


def test_replacing_puts_the_new_bytes_in_the_place_of_the_old(tmp_path):
    replace_durably(tmp_path / "a" / "file", b"old")
    replace_durably(tmp_path / "a" / "file", b"new")
    assert (tmp_path / "a" / "file").read_bytes() == b"new"
    assert names(tmp_path / "a") == ["file"]


def test_the_new_bytes_are_durable_before_they_replace_the_old(tmp_path, trace):
    replace_durably(tmp_path / "file", b"bytes")
    (bytes_synced,) = trace.positions("sync", tmp_path / "file")
    (named,) = trace.positions("replace", tmp_path / "file")
    assert bytes_synced < named < trace.positions("sync", tmp_path)[-1]


@pytest.mark.parametrize("step", ["sync", "replace"])
def test_a_failed_replacement_leaves_the_old_bytes_and_no_temporary_file(tmp_path, trace, step):
    replace_durably(tmp_path / "file", b"old")
    trace.fail(step, errno.ENOSPC)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        replace_durably(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


# --- log directories -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_id", ["acme", "a", "0", "acme-2", "a" * 63])
def test_a_log_has_a_directory_of_its_own(tmp_path, log_id):
    assert log_directory(tmp_path, log_id) == tmp_path / log_id


@pytest.mark.parametrize(
    "log_id",
    ["", ".", "..", "../acme", "/etc", "a/b", "a\\b", "-a", "Acme", "a.b", "a\n", "a\0", "\u00e4", "\u0663", "a" * 64],
)
def test_no_log_id_leads_elsewhere(tmp_path, log_id):
    with pytest.raises(MalformedError):
        log_directory(tmp_path, log_id)


def test_a_directory_that_appears_is_whole_or_was_never_there(tmp_path):
    target = tmp_path / "new" / "place"
    with pytest.raises(FileNotFoundError), appearing_directory(target) as building:
        (building / "half").with_suffix(".gone").read_bytes()
    assert list(target.parent.iterdir()) == []
    with appearing_directory(target) as building:
        (building / "whole").write_bytes(b"1")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["whole"]
    with pytest.raises(ConfigError, match="exists"), appearing_directory(target):
        pytest.fail("what is there was taken")
    assert [path.name for path in target.iterdir()] == ["whole"]
