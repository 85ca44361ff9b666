"""Which keys sign the checkpoint of a tree, as the log itself says: the life cycle of log keys, without a flag day.

Key records introduce, retire and disown log keys while the log goes on. A key is *in force* for a tree of n leaves if
the records of these n leaves introduce it, and none of them ends it before n.

INVARIANT: the keys that sign a checkpoint, and those that its own log demands of it when it is read back, are a
function of the entries that it covers. So an introduction and the checkpoint that first carries the new line cannot
come apart: not in a crash between them, nor between two processes that publish one log.

While two keys of an algorithm are in force both sign: whoever trusts the old one verifies, and whoever trusts the new
one. Where an algorithm is added, its first key signs the first tree that holds its introduction; where one is retired,
nothing demands it from the tree on that says so.

A key that is in force and not at hand here signs nothing, and then nothing else does: a checkpoint that lacks the line
of a new key would verify for some and not for others. The keys at hand are looked for anew before that is said.

`FixedKeys` is for a log whose keys are known otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import NotFoundError, StateError, StorageError, TrustPolicyError
from ledger.keyring import Keyring
from ledger.notes import KeyId
from ledger.ports import Signer
from ledger.records import Record
from ledger.trust import KeyValidity, TrustPolicy, VerifiedCheckpoint

__all__ = ["CheckpointKeys", "FixedKeys", "KeyRecords", "LogKeys", "in_force"]

KeyRecords = Callable[[int], Iterable[tuple[int, Record]]]
"""Returns the key records of a log from a leaf on, with their leaf indexes, in order."""


class CheckpointKeys(Protocol):
    """The keys of one log, for whoever publishes it."""

    def signers(self, size: int) -> Sequence[Signer]:
        """Return who signs the checkpoint of a tree of ``size`` leaves, all of which are sequenced.

        Raises:
            StateError: A key that must sign is not at hand.
            VerificationError: The log's key records do not hold.
            DependencyError: The log could not be read.
        """
        ...

    def verify(self, checkpoint: bytes) -> VerifiedCheckpoint:
        """Check that a checkpoint, all of whose leaves are sequenced, is signed as this log signs.

        Raises:
            MalformedError: Not a checkpoint.
            StateError: A key that must have signed is not at hand.
            VerificationError: It is not so signed.
            DependencyError: The log could not be read.
        """
        ...

    def recognise(self, checkpoint: bytes) -> VerifiedCheckpoint:
        """Check that a checkpoint that was seen somewhere, perhaps of more leaves than there are, is one of ours.

        Raises:
            MalformedError: Not a checkpoint.
            VerificationError: We have not signed it.
        """
        ...


class FixedKeys:
    """`CheckpointKeys` of a log whose keys never change."""

    def __init__(self, signers: Sequence[Signer]) -> None:
        """Sign with all of ``signers``."""
        self._signers = tuple(signers)
        self._policy = TrustPolicy(logs=tuple(signer.verifier_key for signer in signers))

    def signers(self, size: int) -> Sequence[Signer]:  # noqa: ARG002  # whatever the size
        """See `CheckpointKeys.signers`."""
        return self._signers

    def verify(self, checkpoint: bytes) -> VerifiedCheckpoint:
        """See `CheckpointKeys.verify`."""
        return self._policy.verify(checkpoint)

    def recognise(self, checkpoint: bytes) -> VerifiedCheckpoint:
        """See `CheckpointKeys.recognise`."""
        return self._policy.verify(checkpoint)


def in_force(keyring: Keyring, origin: str, size: int) -> list[KeyId]:
    """Return the ids of the log keys that count for a tree, by a keyring that was fed exactly its records."""
    return [
        KeyId(bytes.fromhex(key.key_id))
        for key in keyring.keys
        if (key.purpose, key.subject) == ("log", origin)
        and keyring.log_validity.get(KeyId(bytes.fromhex(key.key_id)), KeyValidity()).covers(size)
    ]


class LogKeys:
    """`CheckpointKeys` of a log that says itself which keys count. One thread owns it."""

    def __init__(
        self,
        origin: str,
        *,
        key_records: KeyRecords,
        held: Callable[[], Iterable[Signer]],
    ) -> None:
        """Take what tells and what signs.

        Args:
            origin: The log's origin.
            key_records: The log's key records from a leaf on.
            held: Looks for the log keys at hand, whether they are in force or not.

        Raises:
            LedgerError: The keys at hand cannot be used.
        """
        self._origin = origin
        self._key_records = key_records
        self._look = held
        self._held = self._look_again()
        self._keyring = Keyring()
        self._read = 0

    def _look_again(self) -> Mapping[KeyId, Signer]:
        return {signer.verifier_key.key_id: signer for signer in self._look()}

    def _keyring_at(self, size: int) -> Keyring:
        """Return the keyring that was fed the key records of exactly ``size`` leaves."""
        if size < self._read:
            # Seldom: an older checkpoint is looked at. What was read is kept for the next publication.
            keyring = Keyring()
            self._feed(keyring, 0, size)
            return keyring
        self._feed(self._keyring, self._read, size)
        self._read = size
        return self._keyring

    def _feed(self, keyring: Keyring, start: int, end: int) -> None:
        try:
            for leaf, record in self._key_records(start):
                if leaf >= end:
                    return
                keyring.check(leaf, record)
        except NotFoundError as error:
            raise StorageError("a key record that the index names is not in the log") from error

    def _demanded(self, size: int) -> dict[KeyId, Signer]:
        """Return the keys in force for a tree, each with what signs for it here."""
        wanted = in_force(self._keyring_at(size), self._origin, size)
        if not all(key_id in self._held for key_id in wanted):
            self._held = self._look_again()
        missing = [key_id.hex() for key_id in wanted if key_id not in self._held]
        if missing:
            raise StateError(f"the log is signed with the key {missing[0]}, whose key file is not here")
        if not wanted:
            raise StateError(f"no key is in force for a tree of {size} leaves")
        return {key_id: self._held[key_id] for key_id in wanted}

    def signers(self, size: int) -> Sequence[Signer]:
        """See `CheckpointKeys.signers`."""
        return tuple(self._demanded(size).values())

    def verify(self, checkpoint: bytes) -> VerifiedCheckpoint:
        """See `CheckpointKeys.verify`."""
        size = parse_unverified_checkpoint(checkpoint).claim.size
        keys = tuple(signer.verifier_key for signer in self._demanded(size).values())
        return TrustPolicy(logs=keys).verify(checkpoint)

    def recognise(self, checkpoint: bytes) -> VerifiedCheckpoint:
        """See `CheckpointKeys.recognise`.

        INVARIANT 2: any key at hand is enough. Which keys a checkpoint must have, only its own entries could say. In a
        store that was put back these are lost, and with them the rotation that another process of ours took part in.
        """
        keys = tuple(signer.verifier_key for signer in self._held.values())
        failure = TrustPolicyError(f"no key of {self._origin} is here")
        for kind in sorted({key.signature_type for key in keys}):
            policy = TrustPolicy(logs=tuple(key for key in keys if key.signature_type == kind))
            try:
                return policy.verify(checkpoint)
            except TrustPolicyError as error:
                failure = error
        raise failure
