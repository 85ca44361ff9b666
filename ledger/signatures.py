"""Verification of raw signatures: Ed25519 by libsodium (PyNaCl), ML-DSA-44 and ML-DSA-65 by pqcrypto.

Pure. ML-DSA is *made* elsewhere by another implementation (`cryptography`, OpenSSL): two independent implementations
must agree before anything is published.

Source: RFC 8032; FIPS 204 (pure ML-DSA, empty context).
"""

from __future__ import annotations

import nacl.exceptions
import nacl.signing
from pqcrypto import ml_dsa_44, ml_dsa_65  # type: ignore[attr-defined]  # the submodules are added at import time

from ledger.errors import SignatureInvalidError

__all__ = ["verify_ed25519", "verify_mldsa44", "verify_mldsa65"]


def verify_ed25519(public_key: bytes, message: bytes, signature: bytes, *, signer: str) -> None:
    """Check an Ed25519 signature.

    Args:
        public_key: 32 bytes.
        message: What was signed.
        signature: 64 bytes.
        signer: Named in the error.

    Raises:
        SignatureInvalidError: It is wrong, or key or signature have the wrong length.
    """
    try:
        nacl.signing.VerifyKey(public_key).verify(message, signature)
    except (nacl.exceptions.CryptoError, nacl.exceptions.ValueError) as error:
        raise SignatureInvalidError(f"the Ed25519 signature of {signer} is wrong") from error


def verify_mldsa44(public_key: bytes, message: bytes, signature: bytes, *, signer: str) -> None:
    """Check an ML-DSA-44 signature with an empty context.

    Args:
        public_key: 1,312 bytes.
        message: What was signed.
        signature: 2,420 bytes.
        signer: Named in the error.

    Raises:
        SignatureInvalidError: It is wrong, or key or signature have the wrong length.
    """
    try:
        ml_dsa_44.verify(public_key, message, signature)
    except ValueError as error:  # pqcrypto's InvalidSignatureError is a ValueError, as are wrong lengths
        raise SignatureInvalidError(f"the ML-DSA-44 signature of {signer} is wrong") from error


def verify_mldsa65(public_key: bytes, message: bytes, signature: bytes, *, signer: str) -> None:
    """Check an ML-DSA-65 signature with an empty context.

    Args:
        public_key: 1,952 bytes.
        message: What was signed.
        signature: 3,309 bytes.
        signer: Named in the error.

    Raises:
        SignatureInvalidError: It is wrong, or key or signature have the wrong length.
    """
    try:
        ml_dsa_65.verify(public_key, message, signature)
    except ValueError as error:
        raise SignatureInvalidError(f"the ML-DSA-65 signature of {signer} is wrong") from error
