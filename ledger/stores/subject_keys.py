"""Subject keys as files, apart from the database and its backups."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
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
            raise ErasedError("the subject's key was destroyed") from None
        except OSError as error:
            raise StorageError(f"the subject keys cannot be read: {error.strerror}") from error
        try:
            return self._box.decrypt(wrapped, self._label(log_id, subject))
        except nacl.exceptions.CryptoError as error:
            raise StorageError("a subject key is damaged, or wrapped by another vault key") from error

    def get(self, log_id: str, subject: str) -> bytes:
        """See `SubjectKeys.get`."""
        return self._cached(log_id, subject)

    def get_or_create(self, log_id: str, subject: str) -> bytes:
        """See `SubjectKeys.get_or_create`."""
        with self._lock:
            try:
                return self._cached(log_id, subject)
            except ErasedError:
                pass
            path = self._path(log_id, subject)
            wrapped = bytes(self._box.encrypt(secrets.token_bytes(_KEY_BYTES), self._label(log_id, subject)))
            try:
                make_directory_durably(self._root.parent)
                make_directory_durably(path.parent, mode=0o700)
                create_durably(path, wrapped, mode=0o600)
            except ConflictError:
                pass  # Another process made it first; its key is the one that counts.
            except OSError as error:
                raise StorageError(f"a subject key cannot be written: {error.strerror}") from error
            return self._cached(log_id, subject)
