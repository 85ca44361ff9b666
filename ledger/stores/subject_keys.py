"""Subject keys as files, apart from the database and its backups.

::

    <root>/wrapped-by                    id of the vault key
    <root>/<log id>/3f/3f09….key         one subject's key, wrapped; the name is a keyed hash of the subject

A key that is not there was destroyed. That is only believed where ``wrapped-by`` names our vault key: a directory that
is not mounted, or another vault key, must not pass for the erasure of everybody.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

import nacl.exceptions
import nacl.secret

from ledger.errors import ConfigError, ConflictError, ErasedError, StorageError
from ledger.files import create_durably, log_directory, make_directory_durably
from ledger.keys import LocalKey

__all__ = ["DirectorySubjectKeys"]

_CACHED_KEYS: Final = 4096
_MARKER: Final = "wrapped-by"
_KEY_BYTES: Final = nacl.secret.Aead.KEY_SIZE


class DirectorySubjectKeys:
    """`ledger.vault.SubjectKeys` as files: named by a keyed hash, wrapped by the vault key, for their owner's eyes."""

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

    def _label(self, log_id: str, subject: str) -> bytes:
        return f"tallystick/subject-key/v1\n{log_id}\n{subject}".encode()

    def _path(self, log_id: str, subject: str) -> Path:
        name = hmac.new(self._seed, self._label(log_id, subject), hashlib.sha256).hexdigest()[:40]
        return log_directory(self._root, log_id) / name[:2] / f"{name}.key"

    def _read(self, log_id: str, subject: str) -> bytes:
        path = self._path(log_id, subject)
        try:
            wrapped = path.read_bytes()
        except FileNotFoundError:
            self._check_place()
            raise ErasedError("the subject's key was destroyed") from None
        except OSError as error:
            raise StorageError(f"the subject keys cannot be read: {error.strerror}") from error
        try:
            return self._box.decrypt(wrapped, self._label(log_id, subject))
        except nacl.exceptions.CryptoError as error:
            raise StorageError("a subject key is damaged, or wrapped by another vault key") from error

    def _check_place(self) -> None:
        try:
            wrapped_by = (self._root / _MARKER).read_bytes()
        except OSError as error:
            raise StorageError(f"no subject keys are kept here: {error.strerror}") from error
        if wrapped_by != self._key_id:
            raise StorageError("the subject keys here are wrapped by another vault key")

    def get(self, log_id: str, subject: str) -> bytes:
        """See `SubjectKeys.get`."""
        return self._cached(log_id, subject)

    def get_or_create(self, log_id: str, subject: str) -> bytes:
        """See `SubjectKeys.get_or_create`."""
        with self._lock:
            try:
                self._take_place()
                try:
                    return self._cached(log_id, subject)
                except ErasedError:
                    self._create(log_id, subject)
            except OSError as error:
                raise StorageError(f"a subject key cannot be written: {error.strerror}") from error
            return self._cached(log_id, subject)

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
        wrapped = bytes(self._box.encrypt(secrets.token_bytes(_KEY_BYTES), self._label(log_id, subject)))
        make_directory_durably(path.parent, mode=0o700)
        # Where another process made it first, its key is the one that counts.
        with suppress(ConflictError):
            create_durably(path, wrapped, mode=0o600)
