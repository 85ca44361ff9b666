"""Signatures over bundles: who says that these exact bytes are his.

Pure. What is signed is an in-toto statement whose subject is the bundle's revision, in a DSSE envelope
(`ledger.envelopes`) with one signature by Ed25519 and one by ML-DSA-44::

    {"_type": "https://in-toto.io/Statement/v1", "predicate": {"engine": "cedar"},
     "predicateType": "urn:tallystick:bundle:v1", "subject": [{"digest": {"sha256": "<revision>"}, "name": "refunds"}]}

Trusted keys come from outside of what is verified, as lines of ``<algorithm> <base64 of the public key>``. Every one of
them must have signed, and nobody else: that both algorithms are demanded is said by naming a key of each.

Source: in-toto Statement v1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ledger.canonical import JSONValue, canonical_bytes
from ledger.envelopes import (
    ED25519,
    MLDSA44,
    MLDSA65,
    Envelope,
    EnvelopeKey,
    EnvelopeSigner,
    parse_envelope,
    seal_envelope,
)
from ledger.errors import MalformedError, VerificationError
from ledger.notes import decode_base64, encode_base64
from policies.bundles import Bundle

__all__ = [
    "MAX_SIGNATURE_BYTES",
    "format_trusted_keys",
    "parse_trusted_keys",
    "read_signature",
    "sign_bundle",
    "verify_signature",
]

MAX_SIGNATURE_BYTES: Final = 64 * 1024

_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_MAX_KEYS: Final = 16
_KEY_BYTES: Final = {ED25519: 32, MLDSA44: 1312, MLDSA65: 1952}


def _statement(bundle: Bundle) -> bytes:
    statement: dict[str, JSONValue] = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": bundle.manifest.name, "digest": {"sha256": bundle.revision}}],
        "predicateType": "urn:tallystick:bundle:v1",
        "predicate": {"engine": bundle.manifest.engine},
    }
    return canonical_bytes(statement)


def sign_bundle(bundle: Bundle, signers: Sequence[EnvelopeSigner]) -> bytes:
    """Return an envelope over a bundle's revision.

    Raises:
        MalformedError: No signer.
    """
    return seal_envelope(_PAYLOAD_TYPE, _statement(bundle), signers)


def read_signature(data: bytes, bundle: Bundle) -> Envelope:
    """Read an envelope that is about a bundle; whose signatures they are, and whether they hold, is not looked at.

    Raises:
        MalformedError: Not an envelope, or too large.
        VerificationError: It is about something else.
    """
    if len(data) > MAX_SIGNATURE_BYTES:
        raise MalformedError(f"a bundle's signature has at most {MAX_SIGNATURE_BYTES} bytes, not {len(data)}")
    envelope = parse_envelope(data)
    if envelope.payload_type != _PAYLOAD_TYPE or envelope.payload != _statement(bundle):
        raise VerificationError(f"the signature is not about the bundle {bundle.revision}")
    return envelope


def verify_signature(data: bytes, bundle: Bundle, keys: Sequence[EnvelopeKey]) -> None:
    """Check that every one of ``keys``, and nobody else, has signed a bundle.

    Raises:
        MalformedError: Not an envelope, or too large.
        VerificationError: It is about something else.
        TrustPolicyError: A key has not signed, a stranger has, or no key was given.
        SignatureInvalidError: A signature is wrong.
    """
    read_signature(data, bundle).verify(keys)


def format_trusted_keys(keys: Sequence[EnvelopeKey]) -> str:
    """Return keys as lines; the inverse of `parse_trusted_keys`."""
    return "".join(f"{key.algorithm} {encode_base64(key.public_key)}\n" for key in keys)


def parse_trusted_keys(text: str) -> tuple[EnvelopeKey, ...]:
    """Read trusted keys; empty lines and such that begin with ``#`` are left out.

    Raises:
        MalformedError: A line is no key, a key stands twice, or there is none or too many.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    keys = tuple(_key(line) for line in lines[: _MAX_KEYS + 1])
    if not 0 < len(keys) <= _MAX_KEYS or len(set(keys)) != len(keys):
        raise MalformedError(f"trusted keys are one to {_MAX_KEYS} lines, each another")
    return keys


def _key(line: str) -> EnvelopeKey:
    algorithm, _, text = line.partition(" ")
    key = EnvelopeKey(algorithm, decode_base64(text))
    if len(key.public_key) != _KEY_BYTES.get(algorithm):
        raise MalformedError("a trusted key is ed25519, ml-dsa-44 or ml-dsa-65, and the base64 of a public key of it")
    return key
