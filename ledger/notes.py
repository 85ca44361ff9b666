"""Signed notes and verifier keys (C2SP signed-note).

Pure. A note is a text, an empty line, and signature lines::

    example.com/log
    3
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — example.com/log 6ZfbCQ...base64 of the 4-byte key id and the signature...

A verifier key ("vkey") is one line: ``name+hex8(key id)+base64(type byte || public key)``.

What the signatures are *over* depends on their type and is in `checkpoints`.

Source: C2SP signed-note v1.0.0.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import unicodedata
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NewType

from ledger.errors import MalformedError

__all__ = [
    "MAX_NOTE_BYTES",
    "MAX_SIGNATURES",
    "PUBLIC_KEY_BYTES",
    "KeyId",
    "NoteSignature",
    "SignatureType",
    "SignedNote",
    "VerifierKey",
    "check_key_name",
    "decode_base64",
    "encode_base64",
    "parse_note",
    "parse_vkey",
]

KeyId = NewType("KeyId", bytes)

MAX_SIGNATURES: Final = 100
"""Signature lines accepted in one note; the specification asks for at least 16."""

MAX_NOTE_BYTES: Final = 1_000_000
_KEY_ID_BYTES: Final = 4
_DASH: Final = "\u2014 "
_KEY_ID_HEX: Final = re.compile(r"[0-9a-f]{8}")
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
"""What no note holds: a control character other than LF."""
_UNNAMEABLE: Final = ("Zs", "Zl", "Zp", "Cc", "Cs")
"""Unicode categories that no key name holds: spaces, controls, and what UTF-8 cannot encode."""


class SignatureType(IntEnum):
    """The type bytes that this project reads or writes."""

    ED25519 = 0x01
    ECDSA = 0x02
    ED25519_COSIGNATURE = 0x04
    MLDSA44_COSIGNATURE = 0x06


PUBLIC_KEY_BYTES: Final = {
    SignatureType.ED25519: 32,
    SignatureType.ED25519_COSIGNATURE: 32,
    SignatureType.MLDSA44_COSIGNATURE: 1312,
}


def encode_base64(data: bytes) -> str:
    """Return RFC 4648 section 4 base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes:
    """Decode canonical base64.

    Raises:
        MalformedError: Not base64, or not the one spelling of its bytes (Python's decoder accepts altered trailing
            bits).
    """
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise MalformedError(f"not base64: {error}") from error
    if encode_base64(data) != text:
        raise MalformedError("base64 is not in its canonical form")
    return data


def check_key_name(name: str) -> None:
    """Refuse a name that a note cannot carry.

    Raises:
        MalformedError: Empty, with a space of any kind, a ``+``, a control character or a lone surrogate.
    """
    if not name:
        raise MalformedError("a key name is empty")
    if any(char == "+" or char.isspace() or unicodedata.category(char) in _UNNAMEABLE for char in name):
        raise MalformedError(f"a key name holds a space, a control character, a surrogate or a plus: {name!r}")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A key that signs notes.

    Attributes:
        name: The signer's name; a log's is its origin.
        signature_type: The type byte; unknown ones are kept as plain numbers.
        public_key: Raw public key; 32 bytes for Ed25519, 1,312 for ML-DSA-44.
    """

    name: str
    signature_type: int
    public_key: bytes

    @property
    def key_id(self) -> KeyId:
        """The 4-byte id: the start of ``SHA-256(name || LF || type || public key)``; for ECDSA of the key alone."""
        if self.signature_type == SignatureType.ECDSA:
            return KeyId(hashlib.sha256(self.public_key).digest()[:_KEY_ID_BYTES])
        material = self.name.encode() + b"\n" + bytes([self.signature_type]) + self.public_key
        return KeyId(hashlib.sha256(material).digest()[:_KEY_ID_BYTES])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the vkey line in hexadecimal, for comparing keys by voice or on paper."""
        return hashlib.sha256(self.encode().encode()).hexdigest()

    def encode(self) -> str:
        """Return the vkey line."""
        material = bytes([self.signature_type]) + self.public_key
        return f"{self.name}+{self.key_id.hex()}+{encode_base64(material)}"


def parse_vkey(text: str) -> VerifierKey:
    """Read a verifier key; the inverse of `VerifierKey.encode`.

    Raises:
        MalformedError: Not a vkey, the key id does not belong to the key, or the key has the wrong length for its type.
    """
    parts = text.split("+", 2)
    if len(parts) != 3:  # noqa: PLR2004  # name, key id, key
        raise MalformedError("a verifier key has the form name+keyid+key")
    name, key_id, encoded = parts
    check_key_name(name)
    if _KEY_ID_HEX.fullmatch(key_id) is None:
        raise MalformedError(f"not a key id: {key_id!r}")
    material = decode_base64(encoded)
    if len(material) < 2:  # noqa: PLR2004  # a type and at least one byte of key
        raise MalformedError("a verifier key holds no key")
    key = VerifierKey(name, material[0], material[1:])
    expected = PUBLIC_KEY_BYTES.get(key.signature_type)  # type: ignore[call-overload]  # unknown types give None
    if expected is not None and len(key.public_key) != expected:
        raise MalformedError(f"a key of type {key.signature_type} has {expected} bytes, not {len(key.public_key)}")
    if key.key_id.hex() != key_id:
        raise MalformedError(f"key id {key_id} does not belong to the key; {key.key_id.hex()} does")
    return key


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line.

    Attributes:
        name: The signer's name.
        key_id: 4 bytes.
        signature: The bytes behind the key id; their form depends on the key's type.
    """

    name: str
    key_id: KeyId
    signature: bytes

    def encode(self) -> str:
        """Return the line, with its line feed."""
        return f"{_DASH}{self.name} {encode_base64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A text and the signatures below it; nothing about them has been checked.

    Attributes:
        text: The signed text, ending in a line feed.
        signatures: In the order in which they stand.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def encode(self) -> bytes:
        """Return the note's bytes; the inverse of `parse_note`."""
        return (self.text + "\n" + "".join(line.encode() for line in self.signatures)).encode()


def _parse_signature(line: str) -> NoteSignature:
    if not line.startswith(_DASH):
        raise MalformedError("a signature line does not start with an em dash and a space")
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not space:
        raise MalformedError("a signature line has no signature")
    check_key_name(name)
    blob = decode_base64(encoded)
    if len(blob) <= _KEY_ID_BYTES:
        raise MalformedError("a signature line holds no signature")
    return NoteSignature(name, KeyId(blob[:_KEY_ID_BYTES]), blob[_KEY_ID_BYTES:])


def parse_note(data: bytes) -> SignedNote:
    """Read a signed note without checking any signature.

    Raises:
        MalformedError: Not UTF-8, a control character other than LF, no signature, or a line that is none.

    Source: C2SP signed-note v1.0.0, "Format".
    """
    if len(data) > MAX_NOTE_BYTES:
        raise MalformedError(f"a note has at most {MAX_NOTE_BYTES} bytes")
    try:
        content = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("a note is not UTF-8") from error
    if _CONTROL.search(content):
        raise MalformedError("a note holds a control character")
    # The separator is the last empty line: the text itself may hold empty lines.
    separator = content.rfind("\n\n")
    if separator < 0 or not content.endswith("\n"):
        raise MalformedError("a note needs a text, an empty line and signature lines")
    text, block = content[: separator + 1], content[separator + 2 :]
    lines = block.split("\n")[:-1]
    if not lines:
        raise MalformedError("a note has no signature")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedError(f"a note has more than {MAX_SIGNATURES} signatures")
    return SignedNote(text, tuple(_parse_signature(line) for line in lines))
