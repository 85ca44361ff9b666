"""DSSE envelopes: a payload with detached signatures by Ed25519 and ML-DSA.

Pure. Packs and bundles are signed this way with ML-DSA-44, manifests of tools with ML-DSA-65. The envelope's bytes are
canonical JSON, key ids are derived from the keys and not believed, base64 has one spelling: an envelope has exactly one
form, so that a changed byte is always seen.

The signed message is DSSE's pre-authentication encoding: ``DSSEv1 SP len(type) SP type SP len(payload) SP payload``.

Source: Secure Systems Lab, DSSE protocol v1.0.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ledger.canonical import canonical_bytes, parse_canonical
from ledger.errors import MalformedError, SignatureUncheckedError, TrustPolicyError
from ledger.notes import decode_base64, encode_base64
from ledger.signatures import verify_ed25519, verify_mldsa44, verify_mldsa65

__all__ = [
    "ED25519",
    "MLDSA44",
    "MLDSA65",
    "Envelope",
    "EnvelopeKey",
    "EnvelopeSigner",
    "parse_envelope",
    "pre_authentication_encoding",
    "seal_envelope",
]

ED25519: Final = "ed25519"
MLDSA44: Final = "ml-dsa-44"
MLDSA65: Final = "ml-dsa-65"


@dataclass(frozen=True, slots=True)
class EnvelopeKey:
    """A public key that signs envelopes.

    Attributes:
        algorithm: `ED25519`, `MLDSA44` or `MLDSA65`.
        public_key: Raw bytes.
    """

    algorithm: str
    public_key: bytes

    @property
    def key_id(self) -> str:
        """SHA-256 over algorithm and key, in hexadecimal."""
        return hashlib.sha256(self.algorithm.encode() + b"\n" + self.public_key).hexdigest()

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check a signature over ``message``.

        Raises:
            SignatureInvalidError: It is wrong.
            SignatureUncheckedError: The algorithm is not one of these.
        """
        if self.algorithm == ED25519:
            verify_ed25519(self.public_key, message, signature, signer="the envelope")
        elif self.algorithm == MLDSA44:
            verify_mldsa44(self.public_key, message, signature, signer="the envelope")
        elif self.algorithm == MLDSA65:
            verify_mldsa65(self.public_key, message, signature, signer="the envelope")
        else:
            raise SignatureUncheckedError(f"envelope signatures of {self.algorithm} cannot be checked here")


class EnvelopeSigner(Protocol):
    """Signs envelopes; the private key may live elsewhere."""

    @property
    def envelope_key(self) -> EnvelopeKey:
        """The public key."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the raw signature over ``message``."""
        ...


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope; no signature has been checked.

    Attributes:
        payload_type: Media type of the payload.
        payload: The signed bytes.
        signatures: Raw signatures by key id.
    """

    payload_type: str
    payload: bytes
    signatures: Mapping[str, bytes]

    def verify(self, keys: Sequence[EnvelopeKey]) -> None:
        """Check that every one of ``keys``, and nobody else, has signed.

        Raises:
            TrustPolicyError: A key has not signed, a stranger has, or no key was given.
            SignatureInvalidError: A signature is wrong.
        """
        expected = {key.key_id: key for key in keys}
        if not expected or set(self.signatures) != set(expected):
            raise TrustPolicyError("the envelope is not signed by exactly the keys that are trusted to sign it")
        message = pre_authentication_encoding(self.payload_type, self.payload)
        for key_id, key in expected.items():
            key.verify(message, self.signatures[key_id])


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return the bytes that DSSE signatures cover."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal_envelope(payload_type: str, payload: bytes, signers: Sequence[EnvelopeSigner]) -> bytes:
    """Return a signed envelope's canonical bytes.

    Args:
        payload_type: Media type of the payload.
        payload: What is signed.
        signers: At least one; the signatures stand in the order of their key ids.

    Raises:
        MalformedError: No signer.
    """
    if not signers:
        raise MalformedError("an envelope needs a signature")
    message = pre_authentication_encoding(payload_type, payload)
    signatures = [
        {"keyid": signer.envelope_key.key_id, "sig": encode_base64(signer.sign(message))} for signer in signers
    ]
    signatures.sort(key=lambda item: item["keyid"])
    return canonical_bytes({"payload": encode_base64(payload), "payloadType": payload_type, "signatures": signatures})


def parse_envelope(data: bytes) -> Envelope:
    """Read an envelope; the inverse of `seal_envelope`.

    Raises:
        MalformedError: Not an envelope in its canonical form, or a key id twice.
    """
    value = parse_canonical(data)
    if not isinstance(value, dict) or set(value) != {"payload", "payloadType", "signatures"}:
        raise MalformedError("an envelope has the members payload, payloadType and signatures")
    kind, payload, lines = value["payloadType"], value["payload"], value["signatures"]
    if not isinstance(kind, str) or not isinstance(payload, str) or not isinstance(lines, list) or not lines:
        raise MalformedError("an envelope's members have the wrong types")
    signatures: dict[str, bytes] = {}
    for line in lines:
        if not isinstance(line, dict) or set(line) != {"keyid", "sig"}:
            raise MalformedError("an envelope's signature has the members keyid and sig")
        key_id, signature = line["keyid"], line["sig"]
        if not isinstance(key_id, str) or not isinstance(signature, str) or key_id in signatures:
            raise MalformedError("an envelope's signature has wrong members, or its key id stands twice")
        signatures[key_id] = decode_base64(signature)
    if list(signatures) != sorted(signatures):
        raise MalformedError("an envelope's signatures are not in order")
    return Envelope(kind, decode_base64(payload), signatures)
