"""The keys that a running service uses, as its log says at this moment.

Key files are read once and looked for anew when one is wanted that is not known yet; which of them are used follows
from the keyring. So a key is taken up, or given up, with the record that says so: there is no moment in which a
request finds neither the old nor the new one.

Signing checkpoints has a clock of its own, the tree's size: see `ledger.log_keys`.
"""

from __future__ import annotations

import threading
from pathlib import Path

import nacl.signing

from ledger.errors import NotFoundError
from ledger.keyring import Keyring
from ledger.remote_keys import SigningKey
from service.keyset import KeySet, choose_keys, read_key_files

__all__ = ["CurrentKeys"]


class CurrentKeys:
    """Keys by what the log says of them; may be asked from any thread, while one task feeds the keyring."""

    def __init__(self, directory: Path, passphrase: str | None, keyring: Keyring) -> None:
        """Read the key files.

        Args:
            directory: Where they are.
            passphrase: Opens protected ones.
            keyring: The log's; empty before its first record.

        Raises:
            ConfigError: A file is missing or cannot be used.
            MalformedError: A file is not a key file.
        """
        self._directory = directory
        self._passphrase = passphrase
        self._keyring = keyring
        self._lock = threading.Lock()
        self._files = read_key_files(directory, passphrase)
        self._chosen: tuple[tuple[int, int], KeySet] | None = None

    @property
    def keys(self) -> KeySet:
        """The keys to be used now.

        Raises:
            ConfigError: The log wants a key that is not here.
        """
        version = (self._keyring.taken, len(self._files))
        chosen = self._chosen
        if chosen is None or chosen[0] != version:
            if self._is_short():
                # Another process introduced a key whose file has come since; this happens once for each such record.
                self._read_files()
                version = (version[0], len(self._files))
            keyring = self._keyring if self._keyring.taken else None
            chosen = self._chosen = (version, choose_keys(self._files.values(), keyring))
        return chosen[1]

    def _is_short(self) -> bool:
        """Tell whether the log uses a key of ours that is not among those that were read."""
        names = {(key.purpose, key.name) for key in self._files.values()}
        held = {(key.purpose, key.key_id) for key in self._files.values()}
        return any(
            known.last_leaf is None
            and (known.purpose, known.subject) in names
            and (known.purpose, known.key_id) not in held
            for known in self._keyring.keys
        )

    def _read_files(self) -> None:
        with self._lock:
            self._files = read_key_files(self._directory, self._passphrase, self._files)

    def service_key(self) -> nacl.signing.SigningKey:
        """Return what signs the service's next record."""
        return self.keys.service.signing_key()

    def look_again(self) -> KeySet:
        """Read the key files that have come since; the keys to be used then.

        Raises:
            ConfigError: A file cannot be used.
            MalformedError: A file is not a key file.
        """
        self._read_files()
        return self.keys

    def held(self, key_id: str) -> SigningKey:
        """Return a key by its public id, used or not, looking for new files first.

        Raises:
            NotFoundError: No key file here has it.
            ConfigError: A file cannot be used.
            MalformedError: A file is not a key file.
        """
        for key in self.look_again().all():
            if key.key_id == key_id:
                return key
        raise NotFoundError(f"no key file here holds the key {key_id}")
