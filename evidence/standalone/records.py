"""Records as their entries say them, the keys that the log introduces, and who could write when.

Pure, standard library only. An entry is canonical JSON. That its members are those of its type is not checked here: the
tree holds its bytes, whatever they are. What a member that is left out means is in the table of the format.

Keys: leaf 0 introduces the registrar by a record that its new key signs; every later key record must be the
registrar's; a record counts with a key that was introduced for its enforcer and not ended before. What later records
say of a log key only narrows the tree sizes for which it counts.

Source: docs/formats.md, "Records" and "Key records".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from evidence.standalone.ed25519 import ed25519_holds
from evidence.standalone.faults import FailedError, MalformedError, UntrustedError, demand
from evidence.standalone.texts import decode_base64, parse_canonical

__all__ = ["Compromise", "Enrolment", "Enrolments", "Held", "Keyring", "Record", "read_record"]

_LABEL = b"tallystick/record/v1\n"
_MEMBER = b',"signature":"'
_NO_SIGNATURE = b"A" * 86 + b"=="
_LOG_KEY_ID = re.compile(r"[0-9a-f]{8}")
_RECORD_MEMBERS = {
    "body": dict,
    "enforcer_id": str,
    "environment": str,
    "epoch": str,
    "log_id": str,
    "record_id": str,
    "running_count": int,
    "schema_version": int,
    "seq": int,
    "signature": str,
    "tenant": str,
    "time_ms": int,
}


class Record:
    """One record.

    Attributes:
        leaf: Where it stands.
        value: Its JSON.
        body: Its body.
        kind: The body's type.
        time_ms: The enforcer's clock.
        enforcer_id: Who wrote it.
        epoch: In which epoch.
        seq: Its number there.
    """

    __slots__ = ("body", "enforcer_id", "epoch", "kind", "leaf", "seq", "time_ms", "value")

    def __init__(self, leaf: int, value: Mapping[str, Any]) -> None:
        """Take an entry's JSON."""
        self.leaf = leaf
        self.value = value
        self.body: Mapping[str, Any] = value["body"]
        self.kind: str = self.body["type"]
        self.time_ms: int = value["time_ms"]
        self.enforcer_id: str = value["enforcer_id"]
        self.epoch: str = value["epoch"]
        self.seq: int = value["seq"]

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401  # JSON of any shape
        """Return a member of the body."""
        return self.body.get(name, default)

    @property
    def simulated(self) -> bool:
        """Whether it says so."""
        return self.value.get("simulated", False) is True


def read_record(leaf: int, entry: bytes) -> Record:
    """Read an entry.

    Raises:
        MalformedError: Not canonical JSON, or no envelope of version 1.
    """
    try:
        value = parse_canonical(entry)
    except MalformedError as error:
        raise MalformedError(f"leaf {leaf}: {error}") from None
    shaped = isinstance(value, dict) and all(type(value.get(name)) is kind for name, kind in _RECORD_MEMBERS.items())
    demand(shaped and value["schema_version"] == 1, f"leaf {leaf}: not a record of version 1")
    demand(isinstance(value["body"].get("type"), str), f"leaf {leaf}: a record without a type")
    return Record(leaf, value)


class Held(NamedTuple):
    """A key, and the leaves for which it counts."""

    purpose: str
    algorithm: str
    subject: str
    key_id: str
    public_key: bytes
    first_leaf: int
    last_leaf: int | None

    def covers(self, leaf: int) -> bool:
        """Whether it counts for a record."""
        return self.first_leaf <= leaf and (self.last_leaf is None or leaf <= self.last_leaf)


class Compromise(NamedTuple):
    """A key record that declares a key compromised, since a tree size."""

    leaf: int
    purpose: str
    subject: str
    key_id: str
    since: int


def _narrowest(one: int | None, other: int | None) -> int | None:
    ends = [end for end in (one, other) if end is not None]
    return min(ends) if ends else None


class Keyring:
    """The keys introduced so far; fed with every record in order.

    Attributes:
        registrar: Who may introduce keys; None before leaf 0.
        keys: In the order of their introduction.
        sizes: Tree sizes for which log keys count, by key id.
        compromises: In order.
        succession: The body of the record that says which log this one succeeds, or None.
    """

    def __init__(self) -> None:
        """Begin before leaf 0."""
        self.registrar: str | None = None
        self.keys: list[Held] = []
        self.sizes: dict[bytes, tuple[int, int | None]] = {}
        self.compromises: list[Compromise] = []
        self.succession: Mapping[str, Any] | None = None
        self._taken = 0
        self._signed: dict[bytes, list[int]] = {}

    def check(self, record: Record, entry: bytes) -> None:
        """Check a record's signature, and take in what a key record says.

        Raises:
            FailedError: Nobody's signature.
            UntrustedError: A record of somebody without a key, or who may not say this.
            MalformedError: A key record that cannot be read.
        """
        key_record = record.kind == "key"
        if self.registrar is None:
            told = "leaf 0 does not introduce the enforcer that writes it"
            introduces = (record.get("purpose"), record.get("action")) == ("enforcer", "created")
            itself = record.get("subject") == record.enforcer_id
            demand(record.leaf == 0 and key_record and introduces and itself, told, UntrustedError)
            self._take(record)
            self.registrar = record.enforcer_id
            self._check_signature(record, entry)
            return
        self._check_signature(record, entry)
        if key_record or record.kind == "succession":
            told = f"leaf {record.leaf}: {record.enforcer_id} does not speak for the log"
            demand(record.enforcer_id == self.registrar, told, UntrustedError)
        if key_record:
            self._take(record)
        elif record.kind == "succession":
            told = f"leaf {record.leaf}: a succession that does not stand in the opening of its log"
            demand(record.leaf == self._taken, told, UntrustedError)
            self.succession = record.body

    def _check_signature(self, record: Record, entry: bytes) -> None:
        leaf, enforcer = record.leaf, record.enforcer_id
        keys = [key for key in self.keys if key.purpose == "enforcer" and key.subject == enforcer and key.covers(leaf)]
        demand(bool(keys), f"leaf {leaf}: no key record introduces the enforcer {enforcer}", UntrustedError)
        # The last such member is the envelope's: members are sorted, and a quotation mark in a text is escaped.
        at = entry.rfind(_MEMBER) + len(_MEMBER)
        message = b"".join((_LABEL, entry[:at], _NO_SIGNATURE, entry[at + len(_NO_SIGNATURE) :]))
        signature = decode_base64(record.value["signature"])
        for key in keys:
            if ed25519_holds(key.public_key, message, signature):
                self._signed.setdefault(key.public_key, []).append(leaf)
                return
        raise FailedError(f"leaf {leaf}: the signature of the enforcer {enforcer} is wrong")

    def _take(self, record: Record) -> None:
        body, leaf = record.body, record.leaf
        named = ("purpose", "action", "algorithm", "subject", "key_id")
        demand(all(isinstance(body.get(name), str) for name in named), f"leaf {leaf}: a key record that says nothing")
        purpose, key_id, last = body["purpose"], body["key_id"], body.get("last_size")
        created, compromised = body["action"] == "created", body["action"] == "compromised"
        demand(last is None or type(last) is int, f"leaf {leaf}: a key record without a tree size")
        if purpose == "log":
            demand(_LOG_KEY_ID.fullmatch(key_id) is not None, f"leaf {leaf}: not the id of a log key")
            told = last
            if not created:
                told = leaf if last is None else min(leaf, last) if compromised else last
            first, before = self.sizes.get(bytes.fromhex(key_id), (0, None))
            self.sizes[bytes.fromhex(key_id)] = max(first, body.get("first_size", 0)), _narrowest(before, told)
        if created:
            public = b"" if body.get("public_key") is None else decode_base64(body["public_key"])
            self.keys.append(Held(purpose, body["algorithm"], body["subject"], key_id, public, leaf, None))
        else:
            end = leaf if last is None else min(leaf, last - 1)
            self.keys = [
                key._replace(last_leaf=_narrowest(key.last_leaf, end))
                if (key.purpose, key.key_id) == (purpose, key_id)
                else key
                for key in self.keys
            ]
            if compromised:
                since = leaf if last is None else min(leaf, last)
                self.compromises.append(Compromise(leaf, purpose, body["subject"], key_id, since))
        self._taken += 1

    def leaves_after(self, compromise: Compromise) -> list[int]:
        """Return the leaves whose records a key signed although it had been compromised by then."""
        named = (compromise.purpose, compromise.key_id)
        keys = {key.public_key for key in self.keys if key.purpose == "enforcer" and (key.purpose, key.key_id) == named}
        return sorted(leaf for key in keys for leaf in self._signed.get(key, ()) if leaf >= compromise.since)

    def pack_keys(self) -> list[Held]:
        """Return the keys that sign packs and were not ended."""
        return [key for key in self.keys if key.purpose == "pack" and key.last_leaf is None]


class Enrolment:
    """One stretch in which an enforcer could write: from its introduction to the end of its last key."""

    def __init__(self, enforcer_id: str, leaf: int, introduced_ms: int) -> None:
        """Begin with its introduction."""
        self.enforcer_id = enforcer_id
        self.leaf = leaf
        self.introduced_ms = introduced_ms
        self.retired_leaf: int | None = None
        self.retired_ms: int | None = None
        self.epochs: set[str] = set()


class Enrolments:
    """The enrolments of a log; fed with its records in order, after the keyring."""

    def __init__(self) -> None:
        """Begin before leaf 0."""
        self._of: dict[str, list[Enrolment]] = {}
        self._keys: dict[str, set[str]] = {}

    def add(self, record: Record) -> None:
        """Take in a record."""
        if record.kind == "key" and record.get("purpose") == "enforcer":
            self._take(record)
        if record.enforcer_id in self._of:
            self._of[record.enforcer_id][-1].epochs.add(record.epoch)

    def _take(self, record: Record) -> None:
        subject, key_id = record.body["subject"], record.body["key_id"]
        if record.body["action"] == "created":
            if not self._keys.get(subject):
                self._of.setdefault(subject, []).append(Enrolment(subject, record.leaf, record.time_ms))
            self._keys.setdefault(subject, set()).add(key_id)
            return
        for holder, key_ids in self._keys.items():
            if key_id in key_ids:
                key_ids.discard(key_id)
                if not key_ids:
                    self._of[holder][-1].retired_leaf = record.leaf
                    self._of[holder][-1].retired_ms = record.time_ms

    def all(self) -> list[Enrolment]:
        """Return every enrolment, those of one enforcer in order."""
        return [one for of_one in self._of.values() for one in of_one]
