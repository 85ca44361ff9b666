"""Older checkpoints, by the keys that the log itself names.

Pure. A trust policy lists the log's keys of today: one that was disowned is struck from it, and an algorithm that was
taken up is demanded by it. Checkpoints from before then do not meet it, and yet are nobody's fault. What they were
signed with the log says itself, and whoever vouches for its newest tree, by a policy from outside, vouches for that.

INVARIANT: only a checkpoint whose root is compared with the log's own entries is read like this. It is never what the
log is believed by: an attacker with a disowned key gains that his root is compared, and found to be another.

A disowned key is recognised for trees that do not yet hold the record which disowns it. From then on nothing honest is
signed with it alone. Up to which size it *counts* is said by `Keyring.log_validity`, and is often less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import TrustPolicyError, VerificationError
from ledger.keyring import IntroducedKey, Keyring
from ledger.notes import SignatureType, VerifierKey
from ledger.trust import KeyValidity, TrustPolicy, VerifiedCheckpoint

__all__ = ["own_policy", "recognise"]

_TYPES: Final = {ED25519: SignatureType.ED25519, MLDSA44: SignatureType.MLDSA44_COSIGNATURE}


def recognise(
    checkpoint: bytes, policy: TrustPolicy, keyring: Callable[[], Keyring]
) -> tuple[VerifiedCheckpoint, TrustPolicy]:
    """Check who signed a checkpoint that is to be compared with the log, and return the policy that it meets.

    Args:
        checkpoint: A checkpoint that somebody kept.
        policy: From outside the log; asked first.
        keyring: Returns the log's keyring, of a tree that met the policy; asked if the policy is not met.

    Raises:
        MalformedError: Not a signed checkpoint.
        VerificationError: Neither is met; what is said is what the policy from outside says.
    """
    try:
        return policy.verify(checkpoint), policy
    except TrustPolicyError as error:
        claim = parse_unverified_checkpoint(checkpoint).claim
        own = own_policy(policy, keyring(), claim.origin, claim.size)
        if own is None:
            raise
        try:
            return own.verify(checkpoint), own
        except VerificationError:
            raise error from None


def own_policy(policy: TrustPolicy, keyring: Keyring, origin: str, size: int) -> TrustPolicy | None:
    """Return the policy with the log keys that the log itself had for a tree, or None if it tells of none.

    Witnesses stay those of the policy, for no log says who watches it; so do the sizes for which its keys count.

    Args:
        policy: From outside the log.
        keyring: The log's.
        origin: The log's.
        size: Leaves of the tree.
    """
    if not policy.log_keys(origin):
        return None
    keys = [_verifier_key(key) for key in keyring.keys if _had(keyring, key, origin, size)]
    named = tuple(dict.fromkeys(key for key in keys if key is not None))
    return replace(policy, logs=named) if named else None


def _had(keyring: Keyring, key: IntroducedKey, origin: str, size: int) -> bool:
    if (key.purpose, key.subject) != ("log", origin) or size <= key.first_leaf:
        return False
    told = _validity(keyring, key)
    declared = [one.leaf for one in keyring.compromises if (one.purpose, one.key_id) == (key.purpose, key.key_id)]
    return told.covers(size) or (told.first_size <= size <= min(declared, default=-1))


def _validity(keyring: Keyring, key: IntroducedKey) -> KeyValidity:
    return next(
        (told for key_id, told in keyring.log_validity.items() if key_id.hex() == key.key_id),
        KeyValidity(),
    )


def _verifier_key(key: IntroducedKey) -> VerifierKey | None:
    """Return the key as checkpoints name it; None for one that its record describes wrongly."""
    signature_type = _TYPES.get(key.algorithm)
    if signature_type is None:
        return None
    found = VerifierKey(key.subject, signature_type, key.public_key)
    return found if found.key_id.hex() == key.key_id else None
