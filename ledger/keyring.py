"""The keyring: the keys that a log's own key records introduce.

Pure. Trust in a log begins outside it, with the log's keys in a trust policy. Every other key is introduced *in* the
log, by key records that the checkpoint signatures cover:

* leaf 0 introduces the *registrar*, the service's own enforcer, by a record that its new key signs;
* every later key record must come from the registrar;
* an enforcer's records count with the keys that were introduced for it and not retired before.

So an enforcer cannot introduce another, a pack cannot bring its own signer, and each introduction is a leaf that
anybody can see. What this does not prevent: whoever runs the service can introduce keys; he cannot do so unseen.

What later records say about a log key only narrows the sizes for which it counts: no record makes good again what an
earlier one ended. One that is ended without a last tree size counts up to the size before the record that ends it.

A compromise may be declared long after it happened. What the key signed in between is in the log for good and stays
readable: it is not refused but told apart, by `Keyring.leaves_after`.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field, replace
from typing import Final

from ledger.bodies import KeyEvent, Succession
from ledger.envelopes import EnvelopeKey
from ledger.errors import MalformedError, SignatureInvalidError, TrustPolicyError, VerificationError
from ledger.notes import KeyId, decode_base64
from ledger.records import Record, verify_record_signature
from ledger.trust import KeyValidity

__all__ = ["Compromise", "IntroducedKey", "Keyring"]

_KEY_ID: Final = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class IntroducedKey:
    """A public key and the leaves for which it counts.

    Attributes:
        purpose: ``log``, ``pack``, ``enforcer``, …
        algorithm: As in the key record.
        subject: Who holds it.
        key_id: Its public id.
        public_key: Raw bytes; empty for a symmetric key.
        first_leaf: Leaf of its introduction.
        last_leaf: Leaf of its retirement or compromise, or None.
    """

    purpose: str
    algorithm: str
    subject: str
    key_id: str
    public_key: bytes
    first_leaf: int
    last_leaf: int | None = None

    def covers(self, leaf: int) -> bool:
        """Whether the key counts for a record at ``leaf``."""
        return self.first_leaf <= leaf and (self.last_leaf is None or leaf <= self.last_leaf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compromise:
    """A key record that declares a key compromised.

    Attributes:
        leaf: Where it says so.
        purpose: What the key is for.
        subject: Who holds it.
        key_id: Its public id.
        since: The last tree size for which it counts: of leaf ``since`` and those behind it anybody may be the author.
    """

    leaf: int
    purpose: str
    subject: str
    key_id: str
    since: int


@dataclass(slots=True)
class Keyring:
    """The keys introduced so far; fed with every record of a log in order. One task owns it.

    Attributes:
        registrar: Id of the enforcer that may introduce keys, or None before leaf 0.
        keys: Every key introduced, in order.
        log_validity: Tree sizes for which log keys count, by key id, where key records limit them.
        compromises: Every compromise declared, in order.
        succession: Which log this one succeeds, or None.
        taken: How many key records were taken in; whoever derived something from the keyring can see that it is old.
    """

    registrar: str | None = None
    keys: list[IntroducedKey] = field(default_factory=list)
    log_validity: dict[KeyId, KeyValidity] = field(default_factory=dict)
    compromises: list[Compromise] = field(default_factory=list)
    succession: Succession | None = None
    taken: int = 0
    _enforcers: dict[str, list[IntroducedKey]] = field(default_factory=dict)
    _signed: dict[bytes, array[int]] = field(default_factory=dict)

    def check(self, leaf: int, record: Record) -> None:
        """Check a record's signature, and take in what a key record introduces.

        Args:
            leaf: The record's leaf index; records are fed in order, from leaf 0.
            record: The record.

        Raises:
            TrustPolicyError: A key record of somebody who may not introduce keys, or an enforcer without a key.
            SignatureInvalidError: The signature is not by a key that was introduced for the enforcer.
            MalformedError: A key record whose key or id cannot be read; it introduces nothing.
        """
        body = record.body
        if self.registrar is None:
            self._begin(leaf, record)
            return
        self._check_signature(leaf, record)
        if isinstance(body, KeyEvent):
            # INVARIANT 11: an enforcer cannot introduce another; trust comes from outside what it vouches for.
            if record.enforcer_id != self.registrar:
                raise TrustPolicyError(f"a key record of {record.enforcer_id}, who may not introduce keys")
            self._take(leaf, body)
        elif isinstance(body, Succession):
            self._succeed(leaf, record.enforcer_id, body)

    def _succeed(self, leaf: int, enforcer_id: str, body: Succession) -> None:
        """Take in which log this one succeeds.

        INVARIANT: only key records stand before it. So it is part of the opening, there is one at most, and nobody can
        give a log another past once it has one of its own.
        """
        if enforcer_id != self.registrar:
            raise TrustPolicyError(f"a succession told by {enforcer_id}, who does not speak for the log")
        if leaf != self.taken:
            raise TrustPolicyError("a succession that does not stand in the opening of its log")
        self.succession = body

    def _begin(self, leaf: int, record: Record) -> None:
        body = record.body
        introduces_itself = (
            isinstance(body, KeyEvent)
            and (body.purpose, body.action) == ("enforcer", "created")
            and body.subject == record.enforcer_id
        )
        if leaf != 0 or not introduces_itself:
            raise TrustPolicyError("leaf 0 does not introduce the enforcer that writes it")
        assert isinstance(body, KeyEvent)
        key = _introduced(leaf, body)
        verify_record_signature(record, key.public_key)
        self.registrar = record.enforcer_id
        self._add(key)
        self.taken += 1
        self._note_signature(leaf, key)

    def _add(self, key: IntroducedKey) -> None:
        self.keys.append(key)
        if key.purpose == "enforcer":
            self._enforcers.setdefault(key.subject, []).append(key)

    def _take(self, leaf: int, body: KeyEvent) -> None:
        if body.purpose == "log":
            key_id, told = _note_key_id(body), KeyValidity(body.first_size, _last_size(leaf, body))
            # INVARIANT: validity only narrows. Else "retired" behind "compromised" would clear the key.
            self.log_validity[key_id] = told.narrowed(self.log_validity.get(key_id, KeyValidity()))
        if body.action == "created":
            self._add(_introduced(leaf, body))
        else:
            self._end(leaf, body)
        self.taken += 1

    def _end(self, leaf: int, body: KeyEvent) -> None:
        """End a key. One with a last tree size counts for the leaves of that tree: leaf ``last_size`` is beyond it."""
        last = leaf if body.last_size is None else min(leaf, body.last_size - 1)
        for position, key in enumerate(self.keys):
            if (key.purpose, key.key_id) == (body.purpose, body.key_id) and (
                key.last_leaf is None or last < key.last_leaf
            ):
                ended = replace(key, last_leaf=last)
                self.keys[position] = ended
                held = self._enforcers.get(key.subject, [])
                self._enforcers[key.subject] = [ended if other == key else other for other in held]
        if body.action == "compromised":
            since = leaf if body.last_size is None else min(leaf, body.last_size)
            self.compromises.append(
                Compromise(leaf=leaf, purpose=body.purpose, subject=body.subject, key_id=body.key_id, since=since)
            )

    def _check_signature(self, leaf: int, record: Record) -> None:
        keys = [key for key in self._enforcers.get(record.enforcer_id, ()) if key.covers(leaf)]
        if not keys:
            raise TrustPolicyError(f"no key record introduces the enforcer {record.enforcer_id}")
        failure: VerificationError | None = None
        for key in keys:
            try:
                verify_record_signature(record, key.public_key)
            except SignatureInvalidError as error:
                failure = error
            else:
                self._note_signature(leaf, key)
                return
        assert failure is not None
        raise failure

    def _note_signature(self, leaf: int, key: IntroducedKey) -> None:
        self._signed.setdefault(key.public_key, array("Q")).append(leaf)

    def take_signed(self) -> dict[bytes, array[int]]:
        """Return the leaves whose records each public key signed, and forget them: a large log has many."""
        signed, self._signed = self._signed, {}
        return signed

    def keys_of(self, compromise: Compromise) -> set[bytes]:
        """Return the public keys that a declared compromise is about."""
        return {
            key.public_key
            for key in self.keys
            if key.purpose == "enforcer" and (key.purpose, key.key_id) == (compromise.purpose, compromise.key_id)
        }

    def leaves_after(self, compromise: Compromise) -> list[int]:
        """Return the leaves whose records the key signed although it had been compromised by then, in order.

        A compromise is mostly declared later than it happened: these are the records checked here that lie between,
        and those of the same key introduced once more. They count, and nobody can say who wrote them.
        """
        keys = self.keys_of(compromise)
        return sorted(leaf for key in keys for leaf in self._signed.get(key, ()) if leaf >= compromise.since)

    def leaves_after_compromise(self) -> list[int]:
        """Return the leaves of every record that a compromised key signed; see `leaves_after`."""
        return sorted({leaf for compromise in self.compromises for leaf in self.leaves_after(compromise)})

    def enforcer_keys(self, enforcer_id: str) -> list[bytes]:
        """Return the public keys that count for an enforcer's next record."""
        return [key.public_key for key in self._enforcers.get(enforcer_id, ()) if key.last_leaf is None]

    def pack_keys(self) -> list[EnvelopeKey]:
        """Return the keys that sign packs and were not retired."""
        return [
            EnvelopeKey(key.algorithm, key.public_key)
            for key in self.keys
            if key.purpose == "pack" and key.last_leaf is None
        ]


def _note_key_id(body: KeyEvent) -> KeyId:
    if _KEY_ID.fullmatch(body.key_id) is None:
        raise MalformedError(f"a log key has a key id of 8 hexadecimal digits, not {body.key_id}")
    return KeyId(bytes.fromhex(body.key_id))


def _last_size(leaf: int, body: KeyEvent) -> int | None:
    """Return the last tree size for which a log key counts by a record at ``leaf``, or None for no end."""
    if body.action == "created":
        return body.last_size
    if body.last_size is None:
        return leaf
    # A compromise that is said to begin in the future would be none.
    return min(leaf, body.last_size) if body.action == "compromised" else body.last_size


def _introduced(leaf: int, body: KeyEvent) -> IntroducedKey:
    return IntroducedKey(
        purpose=body.purpose,
        algorithm=body.algorithm,
        subject=body.subject,
        key_id=body.key_id,
        public_key=b"" if body.public_key is None else decode_base64(body.public_key),
        first_leaf=leaf,
    )
