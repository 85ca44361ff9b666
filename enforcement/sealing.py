"""Payloads that wait in the spool, encrypted: XSalsa20-Poly1305 under the spool key, each bound to its record.

Source: libsodium, "Secret-key authenticated encryption" (``crypto_secretbox``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
import nacl.exceptions
import nacl.secret

from ledger.ports import Opening

__all__ = ["PayloadBox"]

_CHECKS: Final = {b"tallystick/spool/v1": 1, b"tallystick/spool/v2": 2}
"""What is sealed as a check of the key names the version of the spool; since 2, what waits is chained."""

_PRESENT: Final = b"tallystick/spool/v2"
_SEALED: Final = msgspec.msgpack.Decoder(tuple[str, list[tuple[str, bytes, bytes]]])


class PayloadBox:
    """Closes and opens payloads."""

    def __init__(self, key: bytes) -> None:
        """Take the spool key, 32 bytes."""
        self._box = nacl.secret.SecretBox(key)

    def key_check(self) -> bytes:
        """Return bytes by which `version` knows the key, and what is present, again."""
        return bytes(self._box.encrypt(_PRESENT))

    def version(self, key_check: bytes) -> int | None:
        """Return which version of the spool ``key_check`` was made for, or None if not under this key."""
        plain = self._decrypt(key_check)
        return None if plain is None else _CHECKS.get(plain)

    def seal(self, record_id: str, openings: Iterable[Opening]) -> bytes:
        """Return a record's openings, encrypted."""
        plain = (record_id, [(opening.field, opening.salt, opening.payload) for opening in openings])
        return bytes(self._box.encrypt(msgspec.msgpack.encode(plain)))

    def unseal(self, record_id: str, sealed: bytes) -> tuple[Opening, ...] | None:
        """Return a record's openings, or None if they were damaged or belong to another record."""
        plain = self._decrypt(sealed)
        if plain is None:
            return None
        named, openings = _SEALED.decode(plain)
        return tuple(Opening(*opening) for opening in openings) if named == record_id else None

    def _decrypt(self, sealed: bytes) -> bytes | None:
        try:
            return bytes(self._box.decrypt(sealed))
        except nacl.exceptions.CryptoError:
            return None
