"""Subject keys as files, apart from the database and its backups.

::

    <root>/wrapped-by                              id of the vault key
    <root>/<log id>/3f/3f09….key                   one subject's key, wrapped; the name is a keyed hash of the subject
    <root>/<log id>/expiry/decision.2026-10-05.key a bucket's key, wrapped: a type and a day are no secret
    <root>/<log id>/destroyed                      changes with every key that is destroyed
    <root>/<log id>/lock                           held while holds are looked at, or placed

A key that is not there was destroyed. That is only believed where ``wrapped-by`` names our vault key: a directory that
is not mounted, or another vault key, must not pass for the erasure of everybody.

Keys are cached in memory under the state of ``destroyed``: it is looked at before every use, so that no process goes on
with a key that another one has destroyed. Several machines must therefore share one directory, over a file system
that shows a change at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

import nacl.exceptions
import nacl.secret

from ledger.errors import ConfigError, ConflictError, ErasedError, MalformedError, StorageError
from ledger.files import create_durably, log_directory, make_directory_durably, replace_durably, sync_directory
from ledger.keys import LocalKey
from ledger.subjects import Bucket
from ledger.vault import SubjectKey, key_id_of

__all__ = ["DirectorySubjectKeys"]

_CACHED_KEYS: Final = 4096
_MARKER: Final = "wrapped-by"
_DESTROYED: Final = "destroyed"
_LOCK: Final = "lock"
_EXPIRY: Final = "expiry"
_KEY_BYTES: Final = nacl.secret.Aead.KEY_SIZE
_SECOND: Final = b"\x02"
"""What a wrapped key begins with; in version 0.1 it was the key alone."""

_State: TypeAlias = tuple[int, int, int] | None


class DirectorySubjectKeys:
    """`ledger.vault.ErasableKeys` as files: named by a keyed hash, wrapped by the vault key, for their owner's eyes."""

    def __init__(self, root: Path, vault_key: LocalKey) -> None:
        """Keep keys in a directory that no backup of the database includes.

        Raises:
            ConfigError: The key is not a vault key.
        """
        if vault_key.purpose != "vault":
            raise ConfigError(f"the {vault_key.purpose} key does not wrap subject keys")
        self._root = root
        self._seed = vault_key.seed
        self._key_id = vault_key.key_id.encode()
        self._placed = False
        self._box = nacl.secret.Aead(vault_key.seed)
        self._lock = threading.Lock()
        self._cached = lru_cache(maxsize=_CACHED_KEYS)(self._read)
        self._paths = lru_cache(maxsize=_CACHED_KEYS)(self._find_path)
        self._markers = lru_cache(maxsize=_CACHED_KEYS)(self._find_marker)
        self._states: dict[str, _State] = {}

    def _label(self, log_id: str, subject: str) -> bytes:
        return f"tallystick/subject-key/v1\n{log_id}\n{subject}".encode()

    def _path(self, log_id: str, subject: str) -> Path:
        return self._paths(log_id, subject)

    def _find_path(self, log_id: str, subject: str) -> Path:
        directory = log_directory(self._root, log_id)
        # Subjects are hexadecimal digits or begin with ``enforcer-``; the name of a bucket has a day in it.
        with suppress(MalformedError):
            return directory / _EXPIRY / f"{Bucket.parse(subject).name}.key"
        name = hmac.new(self._seed, self._label(log_id, subject), hashlib.sha256).hexdigest()[:40]
        return directory / name[:2] / f"{name}.key"

    def _find_marker(self, log_id: str) -> str:
        return str(log_directory(self._root, log_id) / _DESTROYED)

    def _state(self, log_id: str) -> _State:
        """Return what tells one state of a log's keys from every later one in which fewer of them are left."""
        try:
            # Asked for each key of each payload: the path is a text that was put together once.
            status = os.stat(self._markers(log_id))  # noqa: PTH116  # a Path takes three times as long
        except FileNotFoundError:
            state = None
        except OSError as error:
            raise StorageError(f"the subject keys cannot be read: {error.strerror}") from error
        else:
            state = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        if self._states.setdefault(log_id, state) != state:
            self._cached.cache_clear()
            self._states[log_id] = state
        return state

    def _read(self, log_id: str, subject: str, _state: _State) -> SubjectKey:
        path = self._path(log_id, subject)
        try:
            wrapped = path.read_bytes()
        except FileNotFoundError:
            self._check_place()
            raise ErasedError("the subject's key was destroyed") from None
        except OSError as error:
            raise StorageError(f"the subject keys cannot be read: {error.strerror}") from error
        return self._unwrap(wrapped, log_id, subject)

    def _unwrap(self, wrapped: bytes, log_id: str, subject: str) -> SubjectKey:
        try:
            plain = self._box.decrypt(wrapped, self._label(log_id, subject))
        except (nacl.exceptions.CryptoError, ValueError) as error:
            raise StorageError("a subject key is damaged, or wrapped by another vault key") from error
        key = plain[-_KEY_BYTES:]
        return SubjectKey(key, key_id_of(key), first=len(plain) == _KEY_BYTES)

    def _check_place(self) -> None:
        try:
            wrapped_by = (self._root / _MARKER).read_bytes()
        except OSError as error:
            raise StorageError(f"no subject keys are kept here: {error.strerror}") from error
        if wrapped_by != self._key_id:
            raise StorageError("the subject keys here are wrapped by another vault key")

    def get(self, log_id: str, subject: str) -> SubjectKey:
        """See `SubjectKeys.get`."""
        # INVARIANT: the state is a part of the cache's key. A key that was read before its destruction and cached after
        # it stands under a state that nobody asks for any more.
        return self._cached(log_id, subject, self._state(log_id))

    def get_or_create(self, log_id: str, subject: str) -> SubjectKey:
        """See `SubjectKeys.get_or_create`."""
        if self._placed:
            with suppress(ErasedError):
                return self.get(log_id, subject)
        with self._lock:
            try:
                self._take_place()
                try:
                    return self.get(log_id, subject)
                except ErasedError:
                    self._create(log_id, subject)
            except OSError as error:
                raise StorageError(f"a subject key cannot be written: {error.strerror}") from error
            return self.get(log_id, subject)

    def _take_place(self) -> None:
        if self._placed:
            return
        make_directory_durably(self._root.parent)
        make_directory_durably(self._root, mode=0o700)
        try:
            create_durably(self._root / _MARKER, self._key_id, mode=0o600)
        except ConflictError as error:
            raise StorageError("the subject keys here are wrapped by another vault key") from error
        self._placed = True

    def _create(self, log_id: str, subject: str) -> None:
        path = self._path(log_id, subject)
        plain = _SECOND + secrets.token_bytes(_KEY_BYTES)
        wrapped = bytes(self._box.encrypt(plain, self._label(log_id, subject)))
        make_directory_durably(path.parent, mode=0o700)
        # Where another process made it first, its key is the one that counts.
        with suppress(ConflictError):
            create_durably(path, wrapped, mode=0o600)

    def destroy(self, log_id: str, doomed: Mapping[str, frozenset[str]]) -> None:
        """See `ErasableKeys.destroy`."""
        with self._lock:
            try:
                self._take_place()
                for subject, key_ids in doomed.items():
                    self._destroy(log_id, subject, key_ids)
                # INVARIANT: last, so that who sees the new state finds no key that the old one had. Also where nothing
                # was left to destroy: whoever began may not have come this far.
                marker = log_directory(self._root, log_id) / _DESTROYED
                make_directory_durably(marker.parent, mode=0o700)
                replace_durably(marker, secrets.token_hex(16).encode(), mode=0o600)
            except OSError as error:
                raise StorageError(f"a subject key cannot be destroyed: {error.strerror}") from error
        self._state(log_id)

    def _destroy(self, log_id: str, subject: str, key_ids: frozenset[str]) -> None:
        path = self._path(log_id, subject)
        going = path.with_name(f".{path.name}.going")
        with suppress(FileNotFoundError):
            _shred(going)
        with suppress(FileNotFoundError):
            if self._unwrap(path.read_bytes(), log_id, subject).key_id in key_ids:
                # By another name first: overwritten half-way, it would be a damaged key for ever.
                path.rename(going)
                sync_directory(path.parent)
                _shred(going)

    def buckets(self, log_id: str) -> list[Bucket]:
        """See `ErasableKeys.buckets`."""
        directory = log_directory(self._root, log_id) / _EXPIRY
        try:
            names = [path.stem for path in directory.glob("[!.]*.key")]
        except OSError as error:
            raise StorageError(f"the subject keys cannot be read: {error.strerror}") from error
        found = []
        for name in names:
            # A file that somebody put here is no key, and takes nothing with it.
            with suppress(MalformedError):
                found.append(Bucket.parse(name))
        return sorted(found)

    def made_ms(self, log_id: str, bucket: Bucket) -> int:
        """See `ErasableKeys.made_ms`."""
        try:
            return self._path(log_id, bucket.name).stat().st_mtime_ns // 1_000_000
        except FileNotFoundError:
            raise ErasedError("the bucket's key was destroyed", (bucket.subject,)) from None
        except OSError as error:
            raise StorageError(f"the subject keys cannot be read: {error.strerror}") from error

    def forget(self) -> None:
        """See `ErasableKeys.forget`."""
        for log_id in tuple(self._states):
            self._state(log_id)

    @contextmanager
    def exclusive(self, log_id: str) -> Iterator[None]:
        """See `ErasableKeys.exclusive`."""
        try:
            with self._lock:
                self._take_place()
                directory = log_directory(self._root, log_id)
                make_directory_durably(directory, mode=0o700)
            descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"the subject keys cannot be locked: {error.strerror}") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                raise StorageError(f"the subject keys cannot be locked: {error.strerror}") from error
            yield
        finally:
            os.close(descriptor)


def _shred(path: Path) -> None:
    """Overwrite and remove a file, durably.

    Media that write elsewhere keep the old bytes for a while; they are wrapped by the vault key.
    """
    with path.open("r+b") as file:
        file.write(secrets.token_bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_directory(path.parent)
