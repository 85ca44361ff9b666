"""Subject keys as files: wrapped, nameless, and gone only when they were destroyed."""

from __future__ import annotations

import asyncio
import errno
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger.erasure import locked
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


# --- destroying ------------------------------------------------------------------------------------------------------

BUCKET = "decision.2025-11-19"


def doomed(keys: DirectorySubjectKeys, *subjects: str) -> dict[str, frozenset[str]]:
    return {subject: frozenset({keys.get(LOG_ID, subject).key_id}) for subject in subjects}


@pytest.mark.parametrize("subject", [SUBJECT, BUCKET])
def test_a_key_that_one_process_destroys_is_used_by_no_other_from_then_on(keys, root, subject):
    """The other one has it in memory, and is not told."""
    other = again(root)
    old = other.get_or_create(LOG_ID, subject) if keys.get_or_create(LOG_ID, subject) else None
    assert other.get(LOG_ID, subject) == old
    keys.destroy(LOG_ID, doomed(keys, subject))
    for instance in (keys, other, again(root)):
        with pytest.raises(ErasedError):
            instance.get(LOG_ID, subject)
    new = other.get_or_create(LOG_ID, subject)
    assert new.key_id != old.key_id
    assert keys.get(LOG_ID, subject) == new


def test_destroyed_keys_leave_the_memory_of_a_process_that_asks_for_nothing_any_more(keys, root):
    other = again(root)
    keys.get_or_create(LOG_ID, SUBJECT)
    other.get(LOG_ID, SUBJECT)
    keys.destroy(LOG_ID, doomed(keys, SUBJECT))
    assert other._cached.cache_info().currsize == 1
    other.forget()
    assert other._cached.cache_info().currsize == 0


def test_a_key_that_was_read_before_and_cached_after_its_destruction_is_not_found_again(keys, root):
    keys.get_or_create(LOG_ID, SUBJECT)
    slow = again(root)
    before = slow._state(LOG_ID)
    keys.destroy(LOG_ID, doomed(keys, "7" * 32, SUBJECT) if keys.get_or_create(LOG_ID, "7" * 32) else {})
    # What the slow process read is cached only now, under the state in which it began.
    slow._cached.cache_clear()
    assert slow._state(LOG_ID) != before
    with pytest.raises(ErasedError):
        slow.get(LOG_ID, SUBJECT)


def test_only_the_named_generation_of_a_key_is_destroyed(keys):
    old = doomed(keys, SUBJECT) if keys.get_or_create(LOG_ID, SUBJECT) else {}
    keys.destroy(LOG_ID, old)
    new = keys.get_or_create(LOG_ID, SUBJECT)
    keys.destroy(LOG_ID, old)
    keys.destroy(LOG_ID, {SUBJECT: frozenset()})
    assert keys.get(LOG_ID, SUBJECT) == new


def test_what_was_never_there_is_destroyed_without_complaint(keys, root):
    keys.destroy(LOG_ID, {SUBJECT: frozenset({"0" * 16}), BUCKET: frozenset({"0" * 16})})
    assert key_files(root) == []


def test_a_key_is_overwritten_and_gone_durably_before_others_are_told(keys, root, monkeypatch):
    keys.get_or_create(LOG_ID, SUBJECT)
    (path,) = key_files(root)
    wanted = doomed(keys, SUBJECT)
    handle = path.open("rb")
    before = handle.read()
    trace = FileTrace.start(monkeypatch)
    keys.destroy(LOG_ID, wanted)
    handle.seek(0)
    assert handle.read() != before
    handle.close()
    marker = root / LOG_ID / "destroyed"
    assert trace.positions("sync", path.parent)[-1] < trace.positions("sync", marker.parent)[-1]
    assert list(path.parent.iterdir()) == []


def test_a_destruction_that_was_broken_off_is_ended_by_the_next_one(keys, root, monkeypatch):
    """It was killed after the first step: the key has another name already, and no order would find it."""
    keys.get_or_create(LOG_ID, SUBJECT)
    wanted = doomed(keys, SUBJECT)
    (path,) = key_files(root)

    def broken(going: Path) -> None:
        raise OSError(errno.EIO, "broken") if going.exists() else FileNotFoundError(going)

    monkeypatch.setattr("ledger.stores.subject_keys._shred", broken)
    with pytest.raises(StorageError):
        keys.destroy(LOG_ID, wanted)
    monkeypatch.undo()
    assert [found.name for found in path.parent.iterdir()] == [f".{path.name}.going"]
    again(root).destroy(LOG_ID, wanted)
    assert list(path.parent.iterdir()) == []


def test_a_damaged_key_is_not_destroyed_as_if_it_were_known(keys, root):
    keys.get_or_create(LOG_ID, SUBJECT)
    wanted = doomed(keys, SUBJECT)
    (path,) = key_files(root)
    path.write_bytes(bytes(72))
    with pytest.raises(StorageError, match="damaged"):
        again(root).destroy(LOG_ID, wanted)
    assert path.exists()


def test_buckets_are_listed_by_their_keys_and_nothing_else_is(keys, root):
    for name in (BUCKET, "outcome.2025-11-18", "decision.2025-11-19.held", SUBJECT):
        keys.get_or_create(LOG_ID, name)
    (root / LOG_ID / "expiry" / "notes.txt").write_text("mine")
    (root / LOG_ID / "expiry" / "decision.key").write_text("mine")
    found = keys.buckets(LOG_ID)
    assert [bucket.name for bucket in found] == [BUCKET, "decision.2025-11-19.held", "outcome.2025-11-18"]
    assert all(abs(keys.made_ms(LOG_ID, bucket) / 1000 - time.time()) < 600 for bucket in found)
    keys.destroy(LOG_ID, doomed(keys, BUCKET))
    with pytest.raises(ErasedError):
        keys.made_ms(LOG_ID, found[0])
    assert keys.buckets("other") == []


def test_the_lock_is_one_for_all_processes_and_threads(keys, root):
    taken = threading.Event()
    order: list[str] = []

    def second() -> None:
        taken.wait()
        with again(root).exclusive(LOG_ID):
            order.append("second")

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(second)
        with keys.exclusive(LOG_ID):
            taken.set()
            # The other one cannot get in, however long it tries.
            assert not waiting.done()
            order.append("first")
        waiting.result(timeout=30)
    assert order == ["first", "second"]


def test_a_key_of_version_one_is_known_as_such(keys, root):
    keys.get_or_create(LOG_ID, "7" * 32)
    path = keys._path(LOG_ID, SUBJECT)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(keys._box.encrypt(b"k" * 32, keys._label(LOG_ID, SUBJECT))))
    assert keys.get(LOG_ID, SUBJECT).value == b"k" * 32
    assert keys.get(LOG_ID, SUBJECT).first
    assert not keys.get(LOG_ID, "7" * 32).first
    assert "k" * 8 not in repr(keys.get(LOG_ID, SUBJECT))


def test_however_many_wait_for_the_lock_whoever_holds_it_goes_on(keys):
    """Waiting takes none of the threads in which the holder does its work."""
    done: list[int] = []

    async def one(number: int) -> None:
        async with locked(keys, LOG_ID):
            await asyncio.to_thread(done.append, number)

    async def crowd() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        async with asyncio.timeout(60):
            await asyncio.gather(*(one(number) for number in range(16)))

    asyncio.run(crowd())
    assert sorted(done) == list(range(16))


def test_who_gives_up_waiting_for_the_lock_leaves_it_to_others(keys):
    async def wait_in_vain() -> None:
        async with asyncio.timeout(60):
            async with locked(keys, LOG_ID):
                waiting = asyncio.create_task(anext(aiter_of(keys)))
                await asyncio.sleep(0.05)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            async with locked(keys, LOG_ID):
                pass

    asyncio.run(wait_in_vain())


async def aiter_of(keys: DirectorySubjectKeys):
    async with locked(keys, LOG_ID):
        yield
