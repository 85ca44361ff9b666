"""What an enrolling gateway and the service say to each other, as bytes: the proof of possession, and the sealed key.

Pure, but for the randomness of the box. A gateway proves that it holds the key that it wants to be introduced by
signing all that it asks for, the enrolment token's digest included: so the proof is as fresh as the token, which counts
once, and nothing of the request can be exchanged on the way::

    tallystick/enrolment/v1
    {"enforcer_id":"gateway-7","enrolment":"…","public_key":"…","sealing_key":"…","token_sha256":"…","version":"0.1.0"}

The gateway makes its own API token and hands in its digest alone: so no answer holds it, and an answer that was lost
can be asked for again. The tenant's pseudonym key comes back in a box that only the sealing key opens, which the
gateway made for this enrolment and then forgets.

Source: libsodium's sealed boxes (X25519, XSalsa20-Poly1305).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Final

import nacl.exceptions
import nacl.public

from ledger.canonical import canonical_bytes, sha256
from ledger.errors import MalformedError

__all__ = [
    "ENROLMENT_TOKEN",
    "EnrolmentClaim",
    "claim_bytes",
    "log_of_enrolment_token",
    "open_sealed",
    "seal_to",
    "trust_digest",
]

_LABEL: Final = b"tallystick/enrolment/v1\n"
ENROLMENT_TOKEN: Final = re.compile(r"te1\.([a-z0-9][a-z0-9-]{0,62})\.[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentClaim:
    """What a gateway asks for.

    Attributes:
        enforcer_id: Its name.
        enrolment: SHA-256 of the enrolment token, hexadecimal.
        public_key: The key that signs its records, Ed25519, base64.
        sealing_key: X25519, base64.
        token_sha256: SHA-256 of the API token that it made, hexadecimal.
        version: Its version.
    """

    enforcer_id: str
    enrolment: str
    public_key: str
    sealing_key: str
    token_sha256: str
    version: str

    @property
    def digest(self) -> str:
        """What a token is bound to when it is used: key and API token; SHA-256 in hexadecimal."""
        return sha256(canonical_bytes([self.enforcer_id, self.public_key, self.token_sha256])).hex()


def claim_bytes(claim: EnrolmentClaim) -> bytes:
    """Return what the gateway signs with the key that it wants to be introduced."""
    return _LABEL + canonical_bytes(asdict(claim))


def log_of_enrolment_token(token: str) -> str | None:
    """Return the log that an enrolment token names, true or made up; None for what is spelt like none."""
    spelt = ENROLMENT_TOKEN.fullmatch(token)
    return None if spelt is None else spelt[1]


def seal_to(sealing_key: bytes, secret: bytes) -> bytes:
    """Return bytes that only the holder of a sealing key can read.

    Raises:
        MalformedError: It is no X25519 key.
    """
    try:
        return bytes(nacl.public.SealedBox(nacl.public.PublicKey(sealing_key)).encrypt(secret))
    except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
        raise MalformedError("the sealing key is no X25519 key") from error


def open_sealed(private_key: bytes, sealed: bytes) -> bytes:
    """Return what `seal_to` sealed.

    Raises:
        MalformedError: It was sealed to somebody else, or changed.
    """
    try:
        return bytes(nacl.public.SealedBox(nacl.public.PrivateKey(private_key)).decrypt(sealed))
    except (nacl.exceptions.CryptoError, ValueError, TypeError) as error:
        raise MalformedError("the sealed key does not open: it is not for this gateway") from error


def trust_digest(log_id: str, trust_policy: str, bundle_keys: str | None) -> str:
    """Return a digest of whom a gateway is told to trust; it travels with the enrolment token.

    INVARIANT 11: trust never comes from the thing being verified. An administrator hands it over with the token,
    outside the answer that it is compared with.
    """
    value = {"bundle_keys": bundle_keys, "log_id": log_id, "trust_policy": trust_policy}
    return sha256(canonical_bytes(value)).hex()
