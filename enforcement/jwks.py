"""Keys that verify access tokens: reading a JSON Web Key Set, and finding the one key that a token names.

Pure. Fetching is `enforcement.issuer_keys`' part.

INVARIANT: a key verifies the algorithms that its own description allows, whatever a token's header says; none of them
is symmetric. Keys that cannot be used, or that would make each verification expensive, are left out, as RFC 7517
section 5 asks.

Source: RFC 7517 (JWK); RFC 7518 section 6; RFC 8037 (Ed25519); RFC 8725 section 3 (best practices).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from ledger.canonical import JSONValue, parse_json
from ledger.errors import MalformedError

__all__ = ["MAX_KEY_SET_BYTES", "KeySet", "VerificationKey", "parse_key_set"]

MAX_KEY_SET_BYTES: Final = 256 << 10
"""Longest key set that is read."""

_MAX_KEYS: Final = 100
_JSON_DEPTH: Final = 8
_RSA_BITS: Final = (2048, 4096)
_MAX_RSA_EXPONENT: Final = 0xFFFF_FFFF  # a longer one only makes each verification slower
_BY_CURVE: Final[Mapping[str, str]] = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationKey:
    """A public key.

    Attributes:
        kid: Its name in the set, if it has one.
        algorithms: What it may verify.
        key: The key itself.
    """

    kid: str | None
    algorithms: frozenset[str]
    key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of an issuer."""

    keys: tuple[VerificationKey, ...]

    def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the one key that a token's header names.

        Args:
            kid: ``kid`` of the header. It may be left out if the set has one key and no more.
            algorithm: ``alg`` of the header.

        Returns:
            The key; None if there is none, or if several answer to the name.
        """
        if kid is None and len(self.keys) > 1:
            return None
        found = [key for key in self.keys if kid in (None, key.kid) and algorithm in key.algorithms]
        return found[0] if len(found) == 1 else None


def parse_key_set(data: bytes, algorithms: Collection[str]) -> KeySet:
    """Read a key set. A sound one may have no key that can be used: then its issuer has withdrawn all others.

    Args:
        data: JSON, at most `MAX_KEY_SET_BYTES`.
        algorithms: Signatures that are accepted at all.

    Raises:
        MalformedError: Not a key set.
    """
    if len(data) > MAX_KEY_SET_BYTES:
        raise MalformedError(f"a key set has more than {MAX_KEY_SET_BYTES} bytes")
    value = parse_json(data, max_depth=_JSON_DEPTH)
    listed = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(listed, list) or len(listed) > _MAX_KEYS:
        raise MalformedError("not a key set, or one with too many keys")
    described = [key for key in listed if isinstance(key, dict)]
    if listed and not described:
        raise MalformedError("a key set lists no keys")
    read = (_read(key, algorithms) for key in described)
    return KeySet(tuple(key for key in read if key is not None))


def _read(jwk: dict[str, JSONValue], accepted: Collection[str]) -> VerificationKey | None:
    kid, operations = jwk.get("kid"), jwk.get("key_ops", ["verify"])
    if _PRIVATE & jwk.keys() or jwk.get("use", "sig") != "sig" or not (kid is None or isinstance(kid, str)):
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    algorithms = _algorithms(jwk) & frozenset(accepted)
    if not algorithms:
        return None
    try:
        key = jwt.PyJWK({name: value for name, value in jwk.items() if isinstance(value, str)}, min(algorithms)).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return VerificationKey(kid=kid, algorithms=algorithms, key=key) if _is_sound(key) else None


def _algorithms(jwk: Mapping[str, JSONValue]) -> frozenset[str]:
    """Return what a key can verify by its kind, or the one algorithm that it names, if that fits."""
    kind, curve = jwk.get("kty"), jwk.get("crv")
    possible: tuple[str, ...] = ()
    if kind == "RSA":
        possible = _RSA
    elif isinstance(curve, str) and kind == ("OKP" if curve == "Ed25519" else "EC") and curve in _BY_CURVE:
        possible = (_BY_CURVE[curve],)
    named = jwk.get("alg")
    return frozenset(one for one in possible if named in (None, one))


def _is_sound(key: object) -> bool:
    if isinstance(key, RSAPublicKey):
        return _RSA_BITS[0] <= key.key_size <= _RSA_BITS[1] and key.public_numbers().e <= _MAX_RSA_EXPONENT
    return isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey)
