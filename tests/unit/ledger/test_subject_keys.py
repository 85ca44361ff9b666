"""Subject keys as files: wrapped, nameless, and gone only when they were destroyed."""

from __future__ import annotations

import errno
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger.errors import ConfigError, ErasedError, MalformedError, StorageError
from ledger.stores.subject_keys import DirectorySubjectKeys
from tests.support.file_trace import FileTrace
from tests.support.ledger import LOG_ID, make_key

SUBJECT = "6" * 32


def vault_key(seed: int = 3):
    return make_key("vault", "xchacha20-poly1305", seed=seed)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "not" / "made" / "yet"


@pytest.fixture
def keys(root: Path) -> DirectorySubjectKeys:
    return DirectorySubjectKeys(root, vault_key())


def again(root: Path) -> DirectorySubjectKeys:
    """Return the keys as another process would see them."""
    return DirectorySubjectKeys(root, vault_key())


def key_files(root: Path) -> list[Path]:
    return sorted(root.glob("*/*/*.key"))


def test_a_subject_keeps_its_key(keys, root):
    key = keys.get_or_create(LOG_ID, SUBJECT)
    assert len(key.value) == 32
    assert keys.get_or_create(LOG_ID, SUBJECT) == keys.get(LOG_ID, SUBJECT) == key
    assert again(root).get(LOG_ID, SUBJECT) == again(root).get_or_create(LOG_ID, SUBJECT) == key


def test_every_subject_and_log_has_a_key_of_its_own(keys):
    places = [(LOG_ID, SUBJECT), (LOG_ID, "7" * 32), ("other", SUBJECT)]
    assert len({keys.get_or_create(*place) for place in places}) == 3


def test_files_are_for_their_owner_alone_and_say_neither_subject_nor_key(keys, root):
    key = keys.get_or_create(LOG_ID, SUBJECT)
    (path,) = key_files(root)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (root, path.parent, path.parent.parent)} == {0o700}
    assert SUBJECT not in str(path)
    assert key.value not in path.read_bytes()


def test_directories_above_the_keys_keep_the_usual_permissions(keys, root, tmp_path):
    keys.get_or_create(LOG_ID, SUBJECT)
    assert stat.S_IMODE((tmp_path / "not").stat().st_mode) & 0o055


def test_a_new_key_is_durable_before_it_is_used(root, monkeypatch):
    trace = FileTrace.start(monkeypatch)
    again(root).get_or_create(LOG_ID, SUBJECT)
    (path,) = key_files(root)
    (written,) = trace.positions("sync", path)
    (named,) = trace.positions("link", path)
    assert written < named < trace.positions("sync", path.parent)[-1]
    for folder in (root.parent.parent.parent, root.parent.parent, root.parent, root, root / LOG_ID):
        assert trace.positions("sync", folder)


def test_many_who_ask_at_once_get_one_key(root):
    start = threading.Barrier(8)

    def ask(number: int) -> bytes:
        instance = again(root)
        start.wait()
        return instance.get_or_create(LOG_ID, f"{number % 2}" * 32)

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(ask, range(8)))) == 2


def test_a_destroyed_key_is_said_to_be_erased(keys, root):
    keys.get_or_create(LOG_ID, SUBJECT)
    keys.get_or_create(LOG_ID, "7" * 32)
    again_keys = again(root)
    for path in key_files(root):
        path.unlink()
    with pytest.raises(ErasedError):
        again_keys.get(LOG_ID, SUBJECT)


def test_a_subject_that_never_had_a_key_has_none(keys):
    keys.get_or_create(LOG_ID, SUBJECT)
    with pytest.raises(ErasedError):
        keys.get(LOG_ID, "7" * 32)


# --- what must not pass for an erasure -------------------------------------------------------------------------------


def test_a_directory_that_is_not_mounted_is_no_erasure(keys):
    with pytest.raises(StorageError):
        keys.get(LOG_ID, SUBJECT)


def test_another_vault_key_is_no_erasure(keys, root):
    keys.get_or_create(LOG_ID, SUBJECT)
    stranger = DirectorySubjectKeys(root, vault_key(4))
    for call in (stranger.get, stranger.get_or_create):
        with pytest.raises(StorageError, match="another vault key"):
            call(LOG_ID, SUBJECT)
    assert len(key_files(root)) == 1


@pytest.mark.parametrize("damage", [lambda _: b"", lambda data: data[:-1], lambda data: data[:20], lambda _: bytes(72)])
def test_a_damaged_key_is_no_erasure(keys, root, damage):
    keys.get_or_create(LOG_ID, SUBJECT)
    (path,) = key_files(root)
    path.write_bytes(damage(path.read_bytes()))
    for call in (again(root).get, again(root).get_or_create):
        with pytest.raises(StorageError, match="damaged"):
            call(LOG_ID, SUBJECT)


def test_a_key_file_moved_to_another_subject_is_no_key(keys, root):
    keys.get_or_create(LOG_ID, SUBJECT)
    (path,) = key_files(root)
    data = path.read_bytes()
    path.unlink()
    again(root).get_or_create(LOG_ID, "7" * 32)
    (other,) = key_files(root)
    other.write_bytes(data)
    with pytest.raises(StorageError):
        again(root).get(LOG_ID, "7" * 32)


def test_a_key_that_cannot_be_read_is_no_erasure(keys, root):
    keys.get_or_create(LOG_ID, SUBJECT)
    (path,) = key_files(root)
    path.unlink()
    path.mkdir()
    with pytest.raises(StorageError):
        again(root).get(LOG_ID, SUBJECT)


# --- what cannot be ---------------------------------------------------------------------------------------------------


def test_a_full_disk_is_a_storage_error_and_leaves_no_key(keys, root, monkeypatch):
    keys.get_or_create(LOG_ID, "7" * 32)
    trace = FileTrace.start(monkeypatch)
    trace.fail("link", errno.ENOSPC)
    with pytest.raises(StorageError):
        keys.get_or_create(LOG_ID, SUBJECT)
    trace.heal()
    assert len(key_files(root)) == 1
    assert keys.get_or_create(LOG_ID, SUBJECT) == again(root).get(LOG_ID, SUBJECT)


@pytest.mark.parametrize(
    ("purpose", "algorithm"), [("log", "ed25519"), ("enforcer", "ed25519"), ("pseudonym", "hmac-sha256")]
)
def test_only_a_vault_key_wraps_subject_keys(root, purpose, algorithm):
    with pytest.raises(ConfigError):
        DirectorySubjectKeys(root, make_key(purpose, algorithm))


@pytest.mark.parametrize("log_id", ["..", "../other", "", "a/b"])
def test_no_log_id_leads_out_of_the_directory(keys, log_id):
    for call in (keys.get, keys.get_or_create):
        with pytest.raises(MalformedError):
            call(log_id, SUBJECT)
