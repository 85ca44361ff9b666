"""Commitments, pseudonyms and fingerprints: how a leaf speaks of what it must not hold.

Pure; salts and keys arrive as arguments.

* A *commitment* binds a leaf to vaulted bytes. Its salt (128 random bits, made by the recorder) is kept with the bytes
  in the vault: destroy both, and the digest says nothing any more, while every proof over the leaf still verifies.
* A *pseudonym* names a user, session or address by a keyed hash: equal values are equal, and only a holder of the key
  can go from the value to the pseudonym.
* A *fingerprint* is the pseudonym of a content digest, so that "who received this content?" can be asked of the log by
  somebody who has the content, without an unsalted digest of it standing in any leaf.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from ledger.errors import CommitmentError, MalformedError

__all__ = [
    "PSEUDONYM_KEY_BYTES",
    "SALT_BYTES",
    "commitment_digest",
    "fingerprint",
    "open_commitment",
    "pseudonym",
    "pseudonym_key_id",
]

SALT_BYTES: Final = 16
PSEUDONYM_KEY_BYTES: Final = 32
_PSEUDONYM_BYTES: Final = 16
_COMMITMENT_LABEL: Final = b"tallystick/commitment/v1\n"
_PSEUDONYM_LABEL: Final = b"tallystick/pseudonym/v1\n"
_KEY_ID_LABEL: Final = b"tallystick/pseudonym-key/v1\n"


def commitment_digest(field: str, salt: bytes, payload: bytes) -> bytes:
    """Return the 32-byte commitment to ``payload``.

    ``SHA-256("tallystick/commitment/v1" LF || u8 len(field) || field || salt || payload)``

    Args:
        field: Name of the record's field, ASCII, so that one opening cannot serve another field.
        salt: 16 random bytes, fresh for each commitment.
        payload: The bytes as received, of any length.

    Raises:
        MalformedError: A salt of another length, or a field name that does not fit.
    """
    name = field.encode("ascii", errors="replace")
    if len(salt) != SALT_BYTES:
        raise MalformedError(f"a salt has {SALT_BYTES} bytes, not {len(salt)}")
    if not 1 <= len(name) <= 255 or not field.isascii():  # noqa: PLR2004  # u8 length
        raise MalformedError(f"not a field name: {field!r}")
    return hashlib.sha256(_COMMITMENT_LABEL + bytes([len(name)]) + name + salt + payload).digest()


def open_commitment(field: str, digest: bytes, salt: bytes, payload: bytes) -> None:
    """Check that ``salt`` and ``payload`` open a commitment.

    Raises:
        CommitmentError: They do not.
        MalformedError: The salt has another length.
    """
    if not hmac.compare_digest(commitment_digest(field, salt, payload), digest):
        raise CommitmentError(f"the payload does not open the commitment of the field {field}")


def _keyed(key: bytes, kind: str, value: bytes) -> str:
    if len(key) != PSEUDONYM_KEY_BYTES:
        raise MalformedError(f"a pseudonym key has {PSEUDONYM_KEY_BYTES} bytes, not {len(key)}")
    message = _PSEUDONYM_LABEL + kind.encode() + b"\n" + value
    return hmac.new(key, message, hashlib.sha256).digest()[:_PSEUDONYM_BYTES].hex()


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """Return the pseudonym of a value: 32 hexadecimal digits.

    ``HMAC-SHA256(key, "tallystick/pseudonym/v1" LF || kind || LF || value)``, first 16 bytes.

    Args:
        key: 32 bytes, one tenant's.
        kind: ``user``, ``session``, ``address`` or ``actor``: equal values of two kinds have different pseudonyms.
        value: What is named.

    Raises:
        MalformedError: The key has another length.
    """
    # Any text must have a pseudonym, and an encoding error would carry the value along.
    return _keyed(key, kind, value.encode(errors="surrogatepass"))


def fingerprint(key: bytes, content_sha256: bytes) -> str:
    """Return the keyed fingerprint of a content whose SHA-256 is given: 32 hexadecimal digits."""
    return _keyed(key, "content", content_sha256)


def pseudonym_key_id(key: bytes) -> str:
    """Return the public id of a pseudonym key: 16 hexadecimal digits."""
    return hashlib.sha256(_KEY_ID_LABEL + key).hexdigest()[:16]
