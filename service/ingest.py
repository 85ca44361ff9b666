"""Ingest: from the bytes of a request to entries that are ready to be sequenced.

The hot path decodes with msgspec and never builds a document model. What a record may claim is bound by the token that
brings it: one log, one enforcer (invariant 12); and by the enforcer's key: its signature must verify. Its time is the
enforcer's word. A wrong clock loses no record (invariant 1): it is taken, and counted; `ledger.completeness` sees to it
that a record from the future is no sign of life beyond a period. Only what no calendar has is refused.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final, Protocol, TypeVar

import msgspec

from evidence.population import MAX_PERIOD_MS
from ledger.bodies import (
    AccessEvent,
    Approval,
    Decision,
    Dropped,
    Heartbeat,
    ModeEvent,
    Outcome,
    SessionEnd,
    Shadow,
    ShadowCount,
)
from ledger.bodies_drift import BaselineEvent, Drift
from ledger.bodies_inventory import InventoryEvent
from ledger.bodies_tools import ToolEvent
from ledger.canonical import canonical_bytes, parse_json
from ledger.errors import MalformedError, OverloadedError, SignatureInvalidError, StaleKeysError
from ledger.merkle import hash_leaf
from ledger.notes import decode_base64
from ledger.ports import Acknowledgement, Opening, PendingEntry
from ledger.records import Record, decode_entry, verify_record_signature
from ledger.sequencer import Sequencer
from ledger.vault import Vault
from service.problems import ForbiddenError

__all__ = [
    "Admission",
    "EnforcerKeys",
    "LogIdentity",
    "Submission",
    "count_ahead",
    "decode_submissions",
    "sequence_admitted",
]

ENFORCER_BODIES: Final = (
    Decision,
    Outcome,
    Heartbeat,
    Dropped,
    SessionEnd,
    Approval,
    AccessEvent,
    Shadow,
    ShadowCount,
    ModeEvent,
    InventoryEvent,
    ToolEvent,
    BaselineEvent,
    Drift,
)
"""What an enforcer may write; keys, bundles and tombstones are the service's own."""
_SAID_BY_PEOPLE: Final[Mapping[type, frozenset[str]]] = {
    Approval: frozenset({"seen", "granted", "denied"}),
    ModeEvent: frozenset({"proposed", "approved", "rejected", "reviewed"}),
    InventoryEvent: frozenset({"confirmed", "rejected", "pinned"}),
    BaselineEvent: frozenset({"accept_ordered", "reset_ordered"}),
    Drift: frozenset({"acknowledged", "closed"}),
}
"""Steps that only the service writes: a gateway could approve its own calls, and whoever has its key say what people
said, otherwise. Of tools' definitions a gateway's own operator speaks as well, and for that gateway alone."""


_ATTEMPTS: Final = 16

_CLOCK_AHEAD_MS: Final = 300_000
"""From here on an enforcer's clock is wrong, and not merely another clock."""


class _Opening(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    field: str
    salt: str
    payload: str


class _Submission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    record: msgspec.Raw
    openings: tuple[_Opening, ...] = ()


@dataclass(frozen=True, slots=True)
class Submission:
    """One record as it came, decoded, with its openings by field.

    Attributes:
        record: The record.
        entry: Its canonical bytes.
        openings: By field.
    """

    record: Record
    entry: bytes
    openings: dict[str, Opening]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogIdentity:
    """What every record of a log must say of itself."""

    log_id: str
    tenant: str
    environment: str
    simulated: bool


_T = TypeVar("_T")

_ONE: Final = msgspec.json.Decoder(_Submission)
_MANY: Final = msgspec.json.Decoder(list[_Submission])
_ENCODER: Final = msgspec.json.Encoder()
_QUOTED_VALUE: Final = re.compile(r"\bvalue '.*'", re.DOTALL)


def _reason(error: Exception) -> str:
    """Return what is wrong without the value that is: it may be what the vault is for."""
    return _QUOTED_VALUE.sub("value", str(error))


def _decode(decoder: msgspec.json.Decoder[_T], data: bytes) -> _T:
    """Decode, and refuse what another careful reader could read in another way: a duplicate key above all.

    Enforcers spell a submission as our encoder does, which is quick to see; any other spelling is read strictly.
    """
    try:
        decoded = decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedError(f"not a submission: {_reason(error)}") from error
    if _ENCODER.encode(decoded) != data:
        parse_json(data)
    return decoded


def _decode_record(raw: bytes) -> tuple[Record, bytes]:
    """Decode a record that may be spelt in another way than its entry; a duplicate key is refused."""
    try:
        return decode_entry(raw), raw
    except MalformedError:
        entry = canonical_bytes(parse_json(raw))
        return decode_entry(entry), entry


def _openings(items: Sequence[_Opening]) -> dict[str, Opening]:
    openings = {
        item.field: Opening(item.field, decode_base64(item.salt), decode_base64(item.payload)) for item in items
    }
    if len(openings) != len(items):
        raise MalformedError("two openings are for one field")
    return openings


def _at(position: int, error: Exception) -> MalformedError:
    return MalformedError(f"submission {position}: {_reason(error)}")


def _lines(body: bytes, max_records: int) -> Iterator[_Submission]:
    """Decode the lines that are not blank, up to one more than may be."""
    filled = (line.strip(b" \t\r\n") for line in io.BytesIO(body))
    for position, line in enumerate(islice(filter(None, filled), max_records + 1)):
        try:
            yield _decode(_ONE, line)
        except MalformedError as error:
            raise _at(position, error) from error


def _parse(body: bytes, content_type: str, max_records: int) -> list[_Submission]:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-ndjson":
        return list(_lines(body, max_records))
    if kind == "application/json":
        data = body.strip(b" \t\r\n")
        return _decode(_MANY, data) if data.startswith(b"[") else [_decode(_ONE, data)]
    raise MalformedError("the content type must be application/json or application/x-ndjson")


def decode_submissions(body: bytes, content_type: str, *, max_records: int) -> list[Submission]:
    """Decode the body of ``POST /v1/decisions``: one submission, an array, or NDJSON.

    Raises:
        MalformedError: Not submissions, none, or too many; the number of the first bad one is in the message, counted
            from 0.
    """
    parsed = _parse(body, content_type, max_records)
    if not 1 <= len(parsed) <= max_records:
        raise MalformedError(f"a request carries 1 to {max_records} records")
    submissions = []
    for position, item in enumerate(parsed):
        try:
            submissions.append(Submission(*_decode_record(bytes(item.record)), _openings(item.openings)))
        except MalformedError as error:
            raise _at(position, error) from error
    return submissions


def count_ahead(entries: Sequence[PendingEntry], now_ms: int) -> int:
    """Return how many records say a time so far ahead of ours that their enforcer's clock, or ours, is wrong."""
    return sum(entry.record.time_ms > now_ms + _CLOCK_AHEAD_MS for entry in entries)


class EnforcerKeys(Protocol):
    """The keys that count now, as far as this process knows; safe for any thread."""

    def keys_of(self, enforcer_id: str) -> tuple[int, Sequence[bytes]]:
        """Return the leaf of the newest key record known here, and the keys that count for an enforcer by it."""
        ...

    def refresh(self) -> int:
        """Read the key records that are new in the log, and return the leaf of the newest."""
        ...


class Admission:
    """Decides which records of an enforcer may enter a log. Safe for any thread."""

    def __init__(self, identity: LogIdentity, vault: Vault, enforcer_keys: EnforcerKeys) -> None:
        """Admit records of one log.

        Args:
            identity: What its records must say of themselves.
            vault: Where openings are sealed.
            enforcer_keys: The keys that count for an enforcer now; they are read anew before anything is refused for
                want of one.
        """
        self._identity = identity
        self._vault = vault
        self._enforcer_keys = enforcer_keys

    def admit(self, submissions: Sequence[Submission], enforcer_id: str) -> list[PendingEntry]:
        """Check submissions and seal their payloads.

        Args:
            submissions: As decoded.
            enforcer_id: The only enforcer that the caller's token names.

        Raises:
            ForbiddenError: A record of another log, tenant, environment or enforcer, of a type that enforcers do not
                write, or with a signature that is not the enforcer's.
            MalformedError: A record's time is in no calendar, or the openings are not the record's.
            CommitmentError: An opening does not open its commitment.
            StorageError: The subject keys failed.
        """
        for submission in submissions:
            self._check(submission.record, enforcer_id)
        signed = [(submission.record, submission.entry) for submission in submissions]
        keys_leaf = self._judge(signed, enforcer_id)
        return [self._seal(submission, keys_leaf) for submission in submissions]

    def admit_again(self, entries: Sequence[PendingEntry], enforcer_id: str) -> list[PendingEntry]:
        """Judge the signatures of admitted records once more, by keys that others have changed meanwhile.

        Raises:
            ForbiddenError: A signature is not by a key that counts now.
            StorageError: The keys could not be read.
        """
        self._enforcer_keys.refresh()
        keys_leaf = self._judge([(entry.record, entry.entry) for entry in entries], enforcer_id)
        return [replace(entry, keys_leaf=keys_leaf) for entry in entries]

    def _judge(self, records: Sequence[tuple[Record, bytes]], enforcer_id: str) -> int:
        """Check signatures, and return the leaf of the newest key record by which they hold."""
        keys_leaf, keys = self._enforcer_keys.keys_of(enforcer_id)
        try:
            _require_signatures(records, enforcer_id, keys)
        except ForbiddenError:
            # Another process may have introduced the key since.
            if self._enforcer_keys.refresh() == keys_leaf:
                raise
            keys_leaf, keys = self._enforcer_keys.keys_of(enforcer_id)
            _require_signatures(records, enforcer_id, keys)
        return keys_leaf

    def _check(self, record: Record, enforcer_id: str) -> None:
        identity = self._identity
        claimed = (record.log_id, record.tenant, record.environment, record.enforcer_id)
        allowed = (identity.log_id, identity.tenant, identity.environment, enforcer_id)
        if claimed != allowed:
            names = ("log", "tenant", "environment", "enforcer")
            name = next(name for name, one, other in zip(names, claimed, allowed, strict=True) if one != other)
            raise ForbiddenError(f"record {record.record_id} is of another {name} than the token")
        # A simulated record is no evidence: a real log refuses it, and a simulated log takes nothing real.
        if record.simulated != identity.simulated:
            kind = "simulated" if record.simulated else "real"
            raise ForbiddenError(f"record {record.record_id} is {kind}, the log is not")
        if not isinstance(record.body, ENFORCER_BODIES):
            raise ForbiddenError(f"record {record.record_id} is of a type that enforcers do not write")
        if getattr(record.body, "action", None) in _SAID_BY_PEOPLE.get(type(record.body), ()):
            raise ForbiddenError(f"record {record.record_id} says what people said, which enforcers do not write")
        # Whoever holds a call by itself does all that it writes of it by itself: nobody requested it, or withdrew it.
        if isinstance(record.body, Approval) and record.body.actor is not None:
            raise ForbiddenError(f"record {record.record_id} names who did it, which only the service can know")
        if record.time_ms >= MAX_PERIOD_MS:
            raise MalformedError(f"record {record.record_id} is of a time that no calendar has")

    def _seal(self, submission: Submission, keys_leaf: int) -> PendingEntry:
        payloads = self._vault.seal(submission.record, submission.openings)
        return PendingEntry(submission.record, submission.entry, hash_leaf(submission.entry), payloads, keys_leaf)


def _require_signatures(records: Sequence[tuple[Record, bytes]], enforcer_id: str, keys: Sequence[bytes]) -> None:
    for record, entry in records:
        for key in keys:
            try:
                verify_record_signature(record, key, entry=entry)
            except SignatureInvalidError:
                continue
            break
        else:
            raise ForbiddenError(f"record {record.record_id} is not signed by a key of the enforcer {enforcer_id}")


async def sequence_admitted(
    sequencer: Sequencer, admission: Admission, entries: Sequence[PendingEntry], enforcer_id: str
) -> list[Acknowledgement]:
    """Sequence admitted records, judging them again whenever the log's keys changed on the way.

    Raises:
        ForbiddenError: The key that signed them has ended meanwhile.
        OverloadedError: The keys changed time and again, or too many records wait; nothing was taken.
        ConflictError: An id or number is taken by another record; nothing was taken.
        StorageError: See `Sequencer.append`.
    """
    for _ in range(_ATTEMPTS):
        try:
            return await sequencer.append(entries)
        except StaleKeysError:
            entries = await asyncio.to_thread(admission.admit_again, entries, enforcer_id)
    raise OverloadedError("the log's keys change at this moment; try again")
