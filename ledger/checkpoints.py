"""Checkpoints: the body, the messages that signers sign, and the checking of one signature.

Pure. Which signatures must be there is `trust`'s part; making them is `signers`' part.

A checkpoint's body is three lines, and we write no extension lines (the ML-DSA signature would not cover them)::

    tallystick.example/acme
    70000
    6vU4nWmfD1Xz0Wj9mF0vY2cQp4d3o5k8l1a7s9e2h0M=

Our logs sign it twice: Ed25519 (0x01) over the text, and ML-DSA-44 (0x06, FIPS 204 pure, empty context) over the binary
message of `mldsa44_message`.

Source: C2SP tlog-checkpoint v1.0.0, tlog-cosignature v1.1.0-rc.1, signed-note v1.0.0; FIPS 204.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ledger.errors import MalformedError, SignatureInvalidError, SignatureUncheckedError
from ledger.merkle import EMPTY_ROOT, HASH_BYTES, RootHash
from ledger.notes import (
    NoteSignature,
    SignatureType,
    SignedNote,
    VerifierKey,
    decode_base64,
    encode_base64,
    parse_note,
)
from ledger.proofs import TreeHead
from ledger.signatures import verify_ed25519, verify_mldsa44

__all__ = [
    "MAX_ORIGIN_BYTES",
    "MAX_TREE_SIZE",
    "Checkpoint",
    "UnverifiedCheckpoint",
    "ed25519_cosignature_message",
    "mldsa44_message",
    "pack_timestamped",
    "parse_body",
    "parse_unverified_checkpoint",
    "signature_timestamp",
    "verify_signature",
]

MAX_ORIGIN_BYTES: Final = 255
"""Longest origin that a 0x06 signature can name."""

MAX_TREE_SIZE: Final = 2**63 - 1
_MAX_TIMESTAMP: Final = 2**63 - 1
_SUBTREE_LABEL: Final = b"subtree/v1\n\x00"
_TIMESTAMP_BYTES: Final = 8
_DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The claim that a checkpoint makes: this log had this many leaves and this root.

    Attributes:
        origin: The log's unique name, at most 255 bytes.
        size: Tree size in leaves.
        root: 32-byte root hash.
        extensions: Opaque non-empty lines, which we read but never write.
    """

    origin: str
    size: int
    root: RootHash
    extensions: tuple[str, ...] = ()

    @property
    def head(self) -> TreeHead:
        """Size and root."""
        return TreeHead(size=self.size, root=self.root)

    def body(self) -> str:
        """Return the note text."""
        lines = [self.origin, str(self.size), encode_base64(self.root), *self.extensions]
        return "".join(line + "\n" for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedCheckpoint:
    """A parsed checkpoint whose signatures nobody has checked yet; `trust` makes a `Checkpoint` of it.

    Attributes:
        claim: What it says, which may be a lie.
        note: The note as read.
    """

    claim: Checkpoint
    note: SignedNote


def parse_body(text: str) -> Checkpoint:
    """Read a checkpoint's note text; the inverse of `Checkpoint.body`.

    An origin should be a schema-less URL, but that must not be relied on: all that it may not be is empty.

    Raises:
        MalformedError: Too few lines, a bad origin, size or root, an empty extension line, or a character that no note
            may hold.

    Source: C2SP tlog-checkpoint v1.0.0, "Note text".
    """
    if any((char < " " and char != "\n") or "\ud800" <= char <= "\udfff" for char in text):
        raise MalformedError("a checkpoint holds a control character or a lone surrogate")
    if not text.endswith("\n"):
        raise MalformedError("a checkpoint does not end in a line feed")
    lines = text[:-1].split("\n")
    if len(lines) < 3:  # noqa: PLR2004  # origin, size, root
        raise MalformedError("a checkpoint has an origin, a size and a root line")
    origin, size_text, root_text, *extensions = lines
    if not 1 <= len(origin.encode()) <= MAX_ORIGIN_BYTES:
        raise MalformedError(f"an origin has 1 to {MAX_ORIGIN_BYTES} bytes")
    if _DECIMAL.fullmatch(size_text) is None or int(size_text) > MAX_TREE_SIZE:
        raise MalformedError(f"not a tree size: {size_text!r}")
    root = decode_base64(root_text)
    if len(root) != HASH_BYTES:
        raise MalformedError(f"a root hash has {HASH_BYTES} bytes, not {len(root)}")
    if any(not line for line in extensions):
        raise MalformedError("an extension line is empty")
    size = int(size_text)
    if size == 0 and root != EMPTY_ROOT:
        raise MalformedError("an empty tree has another root")
    return Checkpoint(origin=origin, size=size, root=RootHash(root), extensions=tuple(extensions))


def parse_unverified_checkpoint(data: bytes) -> UnverifiedCheckpoint:
    """Read a signed checkpoint; nothing it says may be believed before `trust` has looked at it.

    Raises:
        MalformedError: Not a signed note with a checkpoint body.
    """
    note = parse_note(data)
    return UnverifiedCheckpoint(claim=parse_body(note.text), note=note)


def _check_timestamp(seconds: int) -> None:
    if not 0 <= seconds <= _MAX_TIMESTAMP:
        raise MalformedError(f"not a timestamp: {seconds}")


def _u8_prefixed(text: str) -> bytes:
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise MalformedError("a name holds a lone surrogate") from error
    if not 1 <= len(data) <= MAX_ORIGIN_BYTES:
        raise MalformedError(f"a name has 1 to {MAX_ORIGIN_BYTES} bytes, not {len(data)}")
    return bytes([len(data)]) + data


def mldsa44_message(cosigner: str, timestamp_seconds: int, checkpoint: Checkpoint) -> bytes:
    """Return the bytes that an ML-DSA-44 (0x06) signature of a checkpoint covers.

    ``"subtree/v1" LF NUL || u8 len || cosigner || u64 timestamp || u8 len || origin || u64 0 || u64 size || root``

    Args:
        cosigner: Name of the signing key; for the log itself its origin.
        timestamp_seconds: POSIX seconds, 0 to 2**63 - 1.
        checkpoint: What is signed; extension lines are not covered.

    Raises:
        MalformedError: A name or number that the format cannot carry.

    Source: C2SP tlog-cosignature v1.1.0-rc.1, "ML-DSA-44 signed message".
    """
    _check_timestamp(timestamp_seconds)
    if not 0 <= checkpoint.size <= MAX_TREE_SIZE or len(checkpoint.root) != HASH_BYTES:
        raise MalformedError("the tree head has a size or root that a signature cannot carry")
    return b"".join(
        (
            _SUBTREE_LABEL,
            _u8_prefixed(cosigner),
            timestamp_seconds.to_bytes(8, "big"),
            _u8_prefixed(checkpoint.origin),
            (0).to_bytes(8, "big"),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )


def ed25519_cosignature_message(timestamp_seconds: int, text: str) -> bytes:
    """Return the bytes that an Ed25519 cosignature (0x04) covers.

    Source: C2SP tlog-cosignature v1.1.0-rc.1, "Ed25519 signed message".
    """
    return f"cosignature/v1\ntime {timestamp_seconds}\n{text}".encode()


def pack_timestamped(timestamp_seconds: int, signature: bytes) -> bytes:
    """Return the signature bytes of a timestamped type: ``u64 timestamp || signature``.

    Raises:
        MalformedError: The timestamp is not 0 to 2**63 - 1 seconds.
    """
    _check_timestamp(timestamp_seconds)
    return timestamp_seconds.to_bytes(_TIMESTAMP_BYTES, "big") + signature


def _unpack_timestamped(signature: bytes) -> tuple[int, bytes]:
    if len(signature) <= _TIMESTAMP_BYTES:
        raise SignatureInvalidError("a timestamped signature is cut short")
    timestamp = int.from_bytes(signature[:_TIMESTAMP_BYTES], "big")
    if timestamp > _MAX_TIMESTAMP:
        raise SignatureInvalidError("a signature's timestamp is out of range")
    return timestamp, signature[_TIMESTAMP_BYTES:]


def signature_timestamp(key: VerifierKey, line: NoteSignature) -> int | None:
    """Return the POSIX seconds that a signature line carries, or None for a type without a timestamp."""
    if key.signature_type in (SignatureType.ED25519_COSIGNATURE, SignatureType.MLDSA44_COSIGNATURE):
        return _unpack_timestamped(line.signature)[0]
    return None


def verify_signature(key: VerifierKey, checkpoint: UnverifiedCheckpoint, line: NoteSignature) -> None:
    """Check one signature line of a checkpoint.

    Args:
        key: The key that the line names.
        checkpoint: The checkpoint as parsed.
        line: One of its signature lines, with the key's name and id.

    Raises:
        SignatureInvalidError: The signature is wrong, or the line belongs to another key.
        SignatureUncheckedError: The key's type is not one that we can check.

    Source: C2SP signed-note v1.0.0, tlog-cosignature v1.1.0-rc.1.
    """
    if (line.name, line.key_id) != (key.name, key.key_id):
        raise SignatureInvalidError(f"a signature of {line.name} was offered for the key {key.name}")
    text = checkpoint.note.text
    if key.signature_type == SignatureType.ED25519:
        verify_ed25519(key.public_key, text.encode(), line.signature, signer=key.name)
    elif key.signature_type == SignatureType.ED25519_COSIGNATURE:
        timestamp, signature = _unpack_timestamped(line.signature)
        message = ed25519_cosignature_message(timestamp, text)
        verify_ed25519(key.public_key, message, signature, signer=key.name)
    elif key.signature_type == SignatureType.MLDSA44_COSIGNATURE:
        timestamp, signature = _unpack_timestamped(line.signature)
        message = mldsa44_message(key.name, timestamp, checkpoint.claim)
        verify_mldsa44(key.public_key, message, signature, signer=key.name)
    else:
        raise SignatureUncheckedError(f"signatures of type {key.signature_type:#04x} cannot be checked here")
