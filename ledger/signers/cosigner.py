"""Cosigning the checkpoints of others with a witness's key, which is in this process.

A witness's key signs cosignatures and nothing else: an Ed25519 cosignature (0x04) does not say whose key made it.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from ledger.checkpoints import UnverifiedCheckpoint, ed25519_cosignature_message, mldsa44_message, pack_timestamped
from ledger.cosignatures import verify_cosignature
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import ConfigError
from ledger.keys import LocalKey
from ledger.notes import NoteSignature, SignatureType, VerifierKey, check_key_name

__all__ = ["LocalCosigner"]

_TYPES = {ED25519: SignatureType.ED25519_COSIGNATURE, MLDSA44: SignatureType.MLDSA44_COSIGNATURE}


class LocalCosigner:
    """`ledger.ports.Cosigner` for one witness key."""

    def __init__(self, key: LocalKey) -> None:
        """Cosign with a witness's key.

        Raises:
            ConfigError: The key is not a witness's.
            MalformedError: No note can carry its name.
        """
        public_key = key.public_key
        # INVARIANT 10: keys of different purposes are different keys.
        if key.purpose != "witness" or key.algorithm not in _TYPES or public_key is None:
            raise ConfigError(f"the {key.purpose} key ({key.algorithm}) does not cosign checkpoints")
        check_key_name(key.name)
        self._key = key
        self._verifier_key = VerifierKey(key.name, _TYPES[key.algorithm], public_key)

    @property
    def verifier_key(self) -> VerifierKey:
        """See `Cosigner.verifier_key`."""
        return self._verifier_key

    def cosign(self, checkpoint: UnverifiedCheckpoint, timestamp_seconds: int) -> NoteSignature:
        """See `Cosigner.cosign`."""
        name = self._verifier_key.name
        if self._key.algorithm == ED25519:
            message = ed25519_cosignature_message(timestamp_seconds, checkpoint.note.text)
            raw = bytes(self._key.signing_key().sign(message).signature)
        else:
            message = mldsa44_message(name, timestamp_seconds, checkpoint.claim)
            raw = MLDSA44PrivateKey.from_seed_bytes(self._key.seed).sign(message)
        line = NoteSignature(name, self._verifier_key.key_id, pack_timestamped(timestamp_seconds, raw))
        # Two implementations must agree before anything leaves the house.
        verify_cosignature(self._verifier_key, checkpoint, line)
        return line
