"""The vault: payloads apart from leaves, with their salts and under keys of their own.

A leaf holds a salted commitment; salt and payload stand here, encrypted (XChaCha20-Poly1305, libsodium) under a key of
the subject whom they are about. Subject keys live outside the database and its backups, each wrapped by the
installation's vault key. Destroying a subject's key makes every payload and salt of that subject unreadable for ever;
the leaves stay and every proof over them still verifies.

Invariant 6 of architecture.md. Destroying keys on demand, with its tombstone, arrives in a later version; reading a
payload whose key is gone already says so (`ErasedError`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import nacl.exceptions
import nacl.secret

from ledger.bodies import AccessEvent, Approval, BundleEvent, Decision, Outcome, Tombstone
from ledger.commitments import SALT_BYTES, open_commitment
from ledger.errors import (
    CommitmentError,
    MalformedError,
)
from ledger.ports import Opening, SealedPayload
from ledger.records import Record, commitments

__all__ = ["MAX_PAYLOAD_BYTES", "PayloadStore", "SubjectKeys", "Vault", "check_openings", "subject_of"]

MAX_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
"""Largest payload that one commitment may stand for."""


class SubjectKeys(Protocol):
    """Where subject keys are kept."""

    def get_or_create(self, log_id: str, subject: str) -> bytes:
        """Return a subject's key, 32 bytes, making it first if there is none; durable when the call returns.

        Raises:
            StorageError: The key store failed.
        """
        ...

    def get(self, log_id: str, subject: str) -> bytes:
        """Return a subject's key.

        Raises:
            ErasedError: There is none: it was destroyed.
            StorageError: The key store failed.
        """
        ...


class PayloadStore(Protocol):
    """Where encrypted payloads are read; they are written with their record, by `LogStore.sequence`."""

    def payload(self, log_id: str, record_id: str, field: str) -> SealedPayload:
        """Return an encrypted opening.

        Raises:
            NotFoundError: The vault has none for that record and field.
            StorageError: The store failed.
        """
        ...


def subject_of(record: Record) -> str:
    """Return whose key encrypts a record's payloads: the user, the actor, else the session; else the enforcer."""
    body = record.body
    if isinstance(body, Decision | Outcome):
        return body.user or body.session
    if isinstance(body, BundleEvent | AccessEvent):
        return body.actor
    if isinstance(body, Tombstone):
        return body.subject
    if isinstance(body, Approval) and body.actor:
        return body.actor
    return f"enforcer-{record.enforcer_id}"[:64]


def check_openings(record: Record, openings: Mapping[str, Opening]) -> None:
    """Check that each commitment of a record has exactly one opening, and that it opens it.

    Raises:
        MalformedError: An opening is missing, too many, too large, or of another size than the leaf says.
        CommitmentError: An opening does not open its commitment.
    """
    expected = commitments(record)
    if set(openings) != set(expected):
        raise MalformedError(
            f"record {record.record_id} commits to {sorted(expected) or 'nothing'} "
            f"and came with openings for {sorted(openings) or 'nothing'}"
        )
    for field, commitment in expected.items():
        opening = openings[field]
        if len(opening.payload) > MAX_PAYLOAD_BYTES:
            raise MalformedError(f"a payload has at most {MAX_PAYLOAD_BYTES} bytes")
        if len(opening.payload) != commitment.size_bytes:
            raise CommitmentError(f"the payload of the field {field} has another size than its leaf says")
        open_commitment(field, bytes.fromhex(commitment.digest), opening.salt, opening.payload)


class Vault:
    """Seals and opens the payloads of one log; safe for any thread."""

    def __init__(self, log_id: str, keys: SubjectKeys, store: PayloadStore) -> None:
        """Use subject keys and a payload store."""
        self._log_id = log_id
        self._keys = keys
        self._store = store

    def _label(self, record_id: str, field: str) -> bytes:
        # Bound into the ciphertext, so that a payload moved to another record or field does not decrypt.
        return f"tallystick/payload/v1\n{self._log_id}\n{record_id}\n{field}".encode()

    def seal(self, record: Record, openings: Mapping[str, Opening]) -> tuple[SealedPayload, ...]:
        """Encrypt a record's openings.

        Raises:
            MalformedError: The openings are not the record's; see `check_openings`.
            CommitmentError: An opening does not open its commitment.
            StorageError: The key store failed.
        """
        check_openings(record, openings)
        if not openings:
            return ()
        subject = subject_of(record)
        box = nacl.secret.Aead(self._keys.get_or_create(self._log_id, subject))
        return tuple(
            SealedPayload(
                record.record_id,
                field,
                subject,
                bytes(box.encrypt(opening.salt + opening.payload, self._label(record.record_id, field))),
            )
            for field, opening in sorted(openings.items())
        )

    def open(self, record: Record, field: str) -> Opening:
        """Decrypt a payload and check it against the leaf.

        Args:
            record: The record, as read from the log.
            field: Which of its commitments.

        Raises:
            MalformedError: The record has no such commitment.
            NotFoundError: The vault has no payload for it.
            ErasedError: The subject's key was destroyed.
            CommitmentError: What the vault holds is not what the leaf commits to.
            StorageError: A store failed.
        """
        commitment = commitments(record).get(field)
        if commitment is None:
            raise MalformedError(f"record {record.record_id} commits to no field {field}")
        sealed = self._store.payload(self._log_id, record.record_id, field)
        # The leaf says whose payload it is. Were the store believed, a made-up subject would pass for an erased one.
        if sealed.subject != subject_of(record):
            raise CommitmentError(f"the vault keeps the payload for the field {field} under another subject")
        key = self._keys.get(self._log_id, sealed.subject)
        try:
            content = nacl.secret.Aead(key).decrypt(sealed.ciphertext, self._label(record.record_id, field))
        except (nacl.exceptions.CryptoError, ValueError) as error:
            raise CommitmentError(f"the vault's payload for the field {field} is damaged") from error
        opening = Opening(field, content[:SALT_BYTES], content[SALT_BYTES:])
        if len(opening.salt) != SALT_BYTES:
            raise CommitmentError(f"the vault's payload for the field {field} is damaged")
        open_commitment(field, bytes.fromhex(commitment.digest), opening.salt, opening.payload)
        return opening
