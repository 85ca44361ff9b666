"""The vault: payloads apart from leaves, with their salts and under keys of their own.

A leaf holds a salted commitment; salt and payload stand here, encrypted (XChaCha20-Poly1305, libsodium) under a key
that is derived from the keys of everybody whom the record names, and of the bucket that it expires with (`subjects`).
Those keys live outside the database and its backups, each wrapped by the installation's vault key. Destroying any one
of them makes payload and salt unreadable for ever; the leaf stays and every proof over it still verifies.

A ciphertext, 0x02 being its version::

    "tsvault" 0x02 | u8 held | u8 n | n times 8 bytes key id | 8 bytes check
    | 24 bytes nonce | XChaCha20-Poly1305(salt || payload)

The payload's key is HKDF-SHA256 (RFC 5869) over the n keys, one after another; what stands before the nonce is
authenticated with log, record and field. The check, of SHA-256 over the same, tells damage from erasure where there
is no key left. Version 0.1 had nonce and ciphertext alone, under the first subject's key; it
is still read, and is written no more.

Invariant 6 of architecture.md. Who orders an erasure and in which order things are done is in `erasure`, expiry in
`expiry`, the keys themselves in `stores.subject_keys`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

import nacl.exceptions
import nacl.secret

from ledger.commitments import SALT_BYTES, open_commitment
from ledger.errors import (
    CommitmentError,
    ErasedError,
    LedgerError,
    MalformedError,
    NotFoundError,
)
from ledger.ports import Opening, SealedPayload
from ledger.records import Record, commitments
from ledger.subjects import Bucket, bucket_of, first_subject_of, subjects_of

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "ErasableKeys",
    "PayloadArchive",
    "PayloadStore",
    "SubjectKey",
    "SubjectKeys",
    "Vault",
    "check_openings",
    "key_id_of",
]

MAX_PAYLOAD_BYTES: Final = 16 * 1024 * 1024
"""Largest payload that one commitment may stand for."""

_KEY_BYTES: Final = nacl.secret.Aead.KEY_SIZE
_MAGIC: Final = b"tsvault\x02"
"""What a ciphertext begins with; a nonce of version 0.1, 24 random bytes, does so once in 2**64."""
_KEY_ID_BYTES: Final = 8
_CHECK_BYTES: Final = 8
_FIRST_BYTES: Final = nacl.secret.Aead.NONCE_SIZE + SALT_BYTES + nacl.secret.Aead.MACBYTES
"""Fewest bytes of a ciphertext of version 0.1."""
_KEY_ID_LABEL: Final = b"tallystick/subject-key-id/v1\n"
_KEY_LABEL: Final = b"tallystick/payload-key/v2"


def key_id_of(key: bytes) -> str:
    """Return a key's public id, 16 hexadecimal digits; it says nothing about the key."""
    return hashlib.sha256(_KEY_ID_LABEL + key).hexdigest()[: 2 * _KEY_ID_BYTES]


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A subject's present key. A subject that was erased gets another one with its next payload.

    Attributes:
        value: 32 bytes.
        key_id: See `key_id_of`.
        first: Made by version 0.1: it may have sealed payloads of that version.
    """

    value: bytes
    key_id: str
    first: bool = False

    def __repr__(self) -> str:
        """Name the key, and do not tell it."""
        return f"SubjectKey({self.key_id})"


class SubjectKeys(Protocol):
    """Where subject keys are kept; a bucket's key is one of them, under its name."""

    def get_or_create(self, log_id: str, subject: str) -> SubjectKey:
        """Return a subject's key, making it first if there is none; durable when the call returns.

        Raises:
            StorageError: The key store failed.
        """
        ...

    def get(self, log_id: str, subject: str) -> SubjectKey:
        """Return a subject's key.

        No key is returned whose destruction, by whatever process, had ended before the call.

        Raises:
            ErasedError: There is none: it was destroyed.
            StorageError: The key store failed.
        """
        ...


class ErasableKeys(SubjectKeys, Protocol):
    """Subject keys that can be destroyed."""

    def destroy(self, log_id: str, doomed: Mapping[str, frozenset[str]]) -> None:
        """Destroy the keys of subjects, each if its id is among those given; gone for every process afterwards.

        Idempotent, and also the end of a destruction that was interrupted.

        Raises:
            StorageError: The key store failed; the keys may or may not be there.
        """
        ...

    def buckets(self, log_id: str) -> list[Bucket]:
        """Return the buckets that have keys, in order.

        Raises:
            StorageError: The key store failed.
        """
        ...

    def made_ms(self, log_id: str, bucket: Bucket) -> int:
        """Return when a bucket's key was made, POSIX milliseconds.

        Raises:
            ErasedError: There is none.
            StorageError: The key store failed.
        """
        ...

    def forget(self) -> None:
        """Drop keys from memory that were destroyed; those that nobody asks for any more would stay in it."""
        ...

    def exclusive(self, log_id: str) -> AbstractContextManager[None]:
        """Hold the log's lock: between a look at the holds and what they allow, no other process may place one.

        Raises:
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

    def payloads(self, log_id: str, leaves: Mapping[int, str], field: str) -> dict[int, SealedPayload]:
        """Return the encrypted openings of one field of many records at once.

        Whether a payload is of the record under whose leaf it was found, only opening it tells.

        Args:
            log_id: Which log.
            leaves: Leaf index → record id; best close to one another.
            field: Which field.

        Returns:
            Those that there are, by leaf index.

        Raises:
            StorageError: The store failed.
        """
        ...


class PayloadArchive(PayloadStore, Protocol):
    """Encrypted payloads that can be found, exchanged and shredded. Every method raises `StorageError`."""

    def of_subject(self, log_id: str, subject: str, *, emptied: bool = False) -> list[int]:
        """Return the leaf indexes of records that may have payloads about a subject and not yet shredded, in order.

        A convenience: it may name records that are about somebody else. What a record is about, its leaf says.

        Args:
            log_id: Which log.
            subject: Whose.
            emptied: Those that were shredded as well.
        """
        ...

    def of_bucket(self, log_id: str, bucket: Bucket, *, above: int = -1) -> list[int]:
        """Return the leaf indexes of records of a type and day that have payloads not yet shredded, in order.

        Args:
            log_id: Which log.
            bucket: Type and day.
            above: Only leaves behind this one.
        """
        ...

    def replace(self, log_id: str, payloads: tuple[SealedPayload, ...]) -> None:
        """Exchange ciphertexts, all or none; durable when the call returns."""
        ...

    def shred(self, log_id: str, indexes: list[int]) -> int:
        """Empty the ciphertexts of these leaves' records; returns how many there were.

        What makes them unreadable is that their keys are gone; this is done in addition.
        """
        ...


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


@dataclass(frozen=True, slots=True)
class _Header:
    """What stands before the nonce.

    Attributes:
        held: Sealed anew because of a legal hold.
        key_ids: Of the keys of the record's subjects, in order, and of its bucket.
    """

    held: bool
    key_ids: tuple[str, ...]

    def encode(self, label: bytes) -> bytes:
        told = bytes([self.held, len(self.key_ids)]) + bytes.fromhex("".join(self.key_ids))
        return _MAGIC + told + _check(told, label)

    @classmethod
    def split(cls, ciphertext: bytes, label: bytes) -> tuple[_Header, bytes]:
        """Return header and the rest; whether it begins as it must has been looked at.

        Raises:
            CommitmentError: It is damaged, or of another record or field.
        """
        start = len(_MAGIC)
        number = ciphertext[start + 1] if len(ciphertext) > start + 1 else 0
        end = start + 2 + number * _KEY_ID_BYTES
        told, check = ciphertext[start:end], ciphertext[end : end + _CHECK_BYTES]
        if not number or check != _check(told, label):
            raise CommitmentError("a payload of the vault is damaged")
        ids, width = told[2:].hex(), 2 * _KEY_ID_BYTES
        found = tuple(ids[at : at + width] for at in range(0, len(ids), width))
        return cls(bool(told[0]), found), ciphertext[end + _CHECK_BYTES :]


def _check(told: bytes, label: bytes) -> bytes:
    return hashlib.sha256(label + told).digest()[:_CHECK_BYTES]


def _payload_key(keys: tuple[SubjectKey, ...], label: bytes) -> bytes:
    # Each key has 32 bytes, so that they are told apart without lengths. All are needed: HKDF's extraction is a PRF in
    # each of them.
    extracted = hmac.digest(_KEY_LABEL, b"".join(key.value for key in keys), "sha256")
    return hmac.digest(extracted, label + b"\x01", "sha256")


class _FoundKeys:
    """Keys as one call finds them: many payloads share few keys, and each is looked for once.

    A key that is destroyed while the call lasts counts as one that was destroyed just after it.
    """

    def __init__(self, keys: SubjectKeys) -> None:
        self._keys = keys
        self._found: dict[str, SubjectKey | None] = {}

    def get(self, log_id: str, subject: str) -> SubjectKey:
        """See `SubjectKeys.get`."""
        if subject not in self._found:
            try:
                self._found[subject] = self._keys.get(log_id, subject)
            except ErasedError:
                self._found[subject] = None
        found = self._found[subject]
        if found is None:
            raise ErasedError("the subject's key was destroyed")
        return found


class Vault:
    """Seals and opens the payloads of one log; safe for any thread."""

    def __init__(self, log_id: str, keys: SubjectKeys, store: PayloadStore) -> None:
        """Use subject keys and a payload store."""
        self._log_id = log_id
        self._keys = keys
        self._store = store

    def _label(self, record_id: str, field: str, version: int = 2) -> bytes:
        # Bound into the ciphertext, so that a payload moved to another record or field does not decrypt.
        return f"tallystick/payload/v{version}\n{self._log_id}\n{record_id}\n{field}".encode()

    def seal(self, record: Record, openings: Mapping[str, Opening]) -> tuple[SealedPayload, ...]:
        """Encrypt a record's openings.

        Args:
            record: The record.
            openings: One for each of its commitments.

        Raises:
            MalformedError: The openings are not the record's; see `check_openings`.
            CommitmentError: An opening does not open its commitment.
            StorageError: The key store failed.
        """
        check_openings(record, openings)
        return self._seal(record, openings, held=False)

    def seal_held(self, record: Record, openings: Mapping[str, Opening]) -> tuple[SealedPayload, ...]:
        """Encrypt openings for the bucket of what a legal hold keeps.

        Args:
            record: The record.
            openings: As `open` gave them: of a record of which one payload is damaged, the others.

        Raises:
            StorageError: The key store failed.
        """
        return self._seal(record, openings, held=True)

    def _seal(self, record: Record, openings: Mapping[str, Opening], *, held: bool) -> tuple[SealedPayload, ...]:
        if not openings:
            return ()
        subjects = subjects_of(record)
        names = (*subjects, bucket_of(record, held=held).name)
        keys = tuple(self._keys.get_or_create(self._log_id, name) for name in names)
        told = _Header(held, tuple(key.key_id for key in keys))
        sealed = []
        for field, opening in sorted(openings.items()):
            label = self._label(record.record_id, field)
            header = told.encode(label)
            box = nacl.secret.Aead(_payload_key(keys, label))
            ciphertext = header + bytes(box.encrypt(opening.salt + opening.payload, header + label))
            sealed.append(SealedPayload(record.record_id, field, subjects[0], ciphertext))
        return tuple(sealed)

    def open(self, record: Record, field: str) -> Opening:
        """Decrypt a payload and check it against the leaf.

        Args:
            record: The record, as read from the log.
            field: Which of its commitments.

        Raises:
            MalformedError: The record has no such commitment.
            NotFoundError: The vault has no payload for it.
            ErasedError: A key was destroyed that it was sealed under; the error says whose.
            CommitmentError: What the vault holds is not what the leaf commits to.
            StorageError: A store failed.
        """
        if field not in commitments(record):
            raise MalformedError(f"record {record.record_id} commits to no field {field}")
        return self._open(record, field, self._store.payload(self._log_id, record.record_id, field))

    def open_many(self, records: Mapping[int, Record], field: str) -> dict[int, Opening | LedgerError]:
        """Decrypt one field of many records, each checked against its leaf; one look at the store serves them all.

        Args:
            records: Leaf index → record, as read from the log; those that commit to no such field are left out.
            field: Which of their commitments.

        Returns:
            Leaf index → the opening, or the error that `open` would have raised for that record: that it is erased,
            lost, or not what its leaf commits to.

        Raises:
            StorageError: A store failed.
        """
        wanted = {leaf: record for leaf, record in records.items() if field in commitments(record)}
        ids = {leaf: record.record_id for leaf, record in wanted.items()}
        # INVARIANT: payloads before keys. What is sealed anew meanwhile, for a hold, has its new key by then.
        found = self._store.payloads(self._log_id, ids, field)
        keys = _FoundKeys(self._keys)
        return {leaf: self._tried(record, field, found.get(leaf), keys) for leaf, record in wanted.items()}

    def _tried(
        self, record: Record, field: str, sealed: SealedPayload | None, keys: _FoundKeys
    ) -> Opening | LedgerError:
        if sealed is None:
            return NotFoundError(f"the vault holds no payload for the field {field} of record {record.record_id}")
        try:
            return self._open(record, field, sealed, keys)
        except (ErasedError, CommitmentError) as error:
            return error

    def _open(
        self, record: Record, field: str, sealed: SealedPayload, keys: SubjectKeys | _FoundKeys | None = None
    ) -> Opening:
        commitment = commitments(record)[field]
        try:
            content = self._decrypt(record, field, sealed, keys or self._keys)
        except (nacl.exceptions.CryptoError, ValueError) as error:
            raise CommitmentError(f"the vault's payload for the field {field} is damaged") from error
        opening = Opening(field, content[:SALT_BYTES], content[SALT_BYTES:])
        if len(opening.salt) != SALT_BYTES:
            raise CommitmentError(f"the vault's payload for the field {field} is damaged")
        open_commitment(field, bytes.fromhex(commitment.digest), opening.salt, opening.payload)
        return opening

    def is_held(self, record: Record) -> bool:
        """Whether a payload of a record is sealed for the bucket of what a legal hold keeps.

        Raises:
            StorageError: The store failed. What is damaged or lost is the audit's to tell.
        """
        return any(self._is_held(record, field) for field in commitments(record))

    def _is_held(self, record: Record, field: str) -> bool:
        ciphertext = self._ciphertext(record, field)
        with suppress(CommitmentError):
            label = self._label(record.record_id, field)
            return ciphertext.startswith(_MAGIC) and _Header.split(ciphertext, label)[0].held
        return False

    def is_first(self, record: Record) -> bool:
        """Whether version 0.1 sealed a payload of a record, and it was not emptied; see `is_held`."""
        found = (self._ciphertext(record, field) for field in commitments(record))
        return any(ciphertext and not ciphertext.startswith(_MAGIC) for ciphertext in found)

    def _ciphertext(self, record: Record, field: str) -> bytes:
        """Return what is kept of a payload; nothing, if it was emptied or lost."""
        try:
            return self._store.payload(self._log_id, record.record_id, field).ciphertext
        except NotFoundError:
            return b""

    def _decrypt(self, record: Record, field: str, sealed: SealedPayload, keys: SubjectKeys | _FoundKeys) -> bytes:
        first = sealed.ciphertext.startswith(_MAGIC) or not sealed.ciphertext
        expected = subjects_of(record)[0] if first else first_subject_of(record)
        # The leaf says whose payload it is. Were the store believed, a made-up subject would pass for an erased one.
        if sealed.subject != expected:
            raise CommitmentError(f"the vault keeps the payload for the field {field} under another subject")
        if not sealed.ciphertext:
            everybody = (*subjects_of(record), *(bucket_of(record, held=held).subject for held in (False, True)))
            raise ErasedError("the payload was shredded", everybody)
        if not sealed.ciphertext.startswith(_MAGIC):
            return self._decrypt_first(record, field, sealed)
        label = self._label(record.record_id, field)
        header, box = _Header.split(sealed.ciphertext, label)
        found = self._keys_of(record, header, keys)
        return nacl.secret.Aead(_payload_key(found, label)).decrypt(box, header.encode(label) + label)

    def _decrypt_first(self, record: Record, field: str, sealed: SealedPayload) -> bytes:
        """Decrypt what version 0.1 sealed."""
        # What is damaged must not pass for what was sealed under a key that is gone.
        with suppress(CommitmentError):
            _Header.split(sealed.ciphertext, self._label(record.record_id, field))
            raise ValueError("its first bytes are damaged")
        if len(sealed.ciphertext) < _FIRST_BYTES:
            raise ValueError("it is cut short")
        try:
            key = self._keys.get(self._log_id, sealed.subject)
        except ErasedError as error:
            raise ErasedError(str(error), (sealed.subject,)) from None
        if not key.first:
            raise ErasedError("the subject's first key was destroyed", (sealed.subject,))
        return nacl.secret.Aead(key.value).decrypt(sealed.ciphertext, self._label(record.record_id, field, 1))

    def _keys_of(self, record: Record, header: _Header, keys: SubjectKeys | _FoundKeys) -> tuple[SubjectKey, ...]:
        subjects, bucket = subjects_of(record), bucket_of(record, held=header.held)
        if len(header.key_ids) != len(subjects) + 1:
            raise CommitmentError("the vault keeps a payload under another number of keys than its leaf names")
        found: list[SubjectKey] = []
        gone: list[str] = []
        # INVARIANT: each of the keys is looked for, so that the audit hears of every one that is gone.
        names = [(subject, subject) for subject in subjects] + [(bucket.name, bucket.subject)]
        for (name, subject), key_id in zip(names, header.key_ids, strict=True):
            try:
                key = keys.get(self._log_id, name)
            except ErasedError:
                gone.append(subject)
                continue
            # Another id is the key of a later time: the one that sealed this was destroyed.
            if key.key_id != key_id:
                gone.append(subject)
            found.append(key)
        if gone:
            raise ErasedError("a key of the payload was destroyed", gone)
        return tuple(found)
