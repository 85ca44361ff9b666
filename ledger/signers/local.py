"""Signers whose private key is in this process.

Ed25519 by libsodium (PyNaCl); ML-DSA by OpenSSL (`cryptography`), hedged: two signatures over the same bytes differ.
"""

from __future__ import annotations

from typing import Literal

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA65PrivateKey

from ledger.checkpoints import Checkpoint, mldsa44_message, pack_timestamped
from ledger.envelopes import ED25519, MLDSA44, MLDSA65, EnvelopeKey
from ledger.errors import ConfigError
from ledger.keys import LocalKey
from ledger.notes import NoteSignature, VerifierKey

__all__ = ["LocalEnvelopeSigner", "LocalSigner"]


def _raw_sign(key: LocalKey, message: bytes) -> bytes:
    if key.algorithm == ED25519:
        return bytes(key.signing_key().sign(message).signature)
    if key.algorithm == MLDSA65:
        return MLDSA65PrivateKey.from_seed_bytes(key.seed).sign(message)
    return MLDSA44PrivateKey.from_seed_bytes(key.seed).sign(message)


class LocalSigner:
    """`ledger.ports.Signer` for one log key."""

    def __init__(self, key: LocalKey) -> None:
        """Sign with a log key.

        Raises:
            ConfigError: The key is not one that signs checkpoints.
        """
        if key.purpose != "log" or key.algorithm not in (ED25519, MLDSA44):
            raise ConfigError(f"the {key.purpose} key ({key.algorithm}) does not sign checkpoints")
        self._key = key
        self._verifier_key = key.verifier_key

    @property
    def verifier_key(self) -> VerifierKey:
        """See `Signer.verifier_key`."""
        return self._verifier_key

    def sign(self, checkpoint: Checkpoint, timestamp_seconds: int) -> NoteSignature:
        """See `Signer.sign`."""
        name, key_id = self._verifier_key.name, self._verifier_key.key_id
        if self._key.algorithm == ED25519:
            return NoteSignature(name, key_id, _raw_sign(self._key, checkpoint.body().encode()))
        signature = _raw_sign(self._key, mldsa44_message(name, timestamp_seconds, checkpoint))
        return NoteSignature(name, key_id, pack_timestamped(timestamp_seconds, signature))


class LocalEnvelopeSigner:
    """`ledger.envelopes.EnvelopeSigner` for one key."""

    def __init__(self, key: LocalKey, purpose: Literal["pack", "bundle", "tools"] = "pack") -> None:
        """Sign with a key.

        Args:
            key: The key.
            purpose: What it signs.

        Raises:
            ConfigError: The key is for another purpose.
        """
        public_key = key.public_key
        # INVARIANT 10: log, pack, enforcer and vault keys are different keys.
        if key.purpose != purpose or public_key is None:
            raise ConfigError(f"the {key.purpose} key ({key.algorithm}) does not sign {purpose}s")
        self._key = key
        self._envelope_key = EnvelopeKey(key.algorithm, public_key)

    @property
    def envelope_key(self) -> EnvelopeKey:
        """See `EnvelopeSigner.envelope_key`."""
        return self._envelope_key

    def sign(self, message: bytes) -> bytes:
        """See `EnvelopeSigner.sign`."""
        return _raw_sign(self._key, message)
