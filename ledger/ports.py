"""The ports of the ledger: what it needs from stores, anchors and signers, and what it offers to the rooms above.

Each method's docstring states durability when the call returns, atomicity, idempotence and concurrency. Adapters
translate: no exception of a database, file or cloud library crosses a port; `StorageError` and its kin do, with the
cause chained.

Stores and anchors are synchronous and may be called from any thread; `sequencer` and `publisher` call them off the
event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ledger.bodies import Body
from ledger.body_fields import Commitment
from ledger.checkpoints import Checkpoint, UnverifiedCheckpoint
from ledger.commitments import commitment_digest
from ledger.errors import ConflictError
from ledger.merkle import LeafHash
from ledger.notes import NoteSignature, VerifierKey
from ledger.records import Record

__all__ = [
    "Acknowledgement",
    "AddCheckpointService",
    "Anchor",
    "AnchorReceipt",
    "CosignatureStore",
    "Cosigner",
    "Draft",
    "KeptTimestamp",
    "Lease",
    "LeaseState",
    "LogStore",
    "Opening",
    "PartialStore",
    "PendingEntry",
    "RecordSink",
    "Refusal",
    "Reply",
    "SealedPayload",
    "Signer",
    "TileStore",
    "TimestampArchive",
    "TimestampAuthority",
    "TimestampStore",
    "Witness",
    "WitnessedLogs",
    "commit",
]


@dataclass(frozen=True, slots=True)
class Opening:
    """Salt and payload behind a commitment.

    Attributes:
        field: The record's field, such as ``message``.
        salt: 16 random bytes.
        payload: The vaulted bytes as received.
    """

    field: str
    salt: bytes
    payload: bytes


def commit(field: str, salt: bytes, payload: bytes) -> tuple[Commitment, Opening]:
    """Return the commitment for a leaf and the opening for the vault."""
    digest = commitment_digest(field, salt, payload)
    return Commitment(digest=digest.hex(), size_bytes=len(payload)), Opening(field, salt, payload)


@dataclass(frozen=True, slots=True)
class SealedPayload:
    """An encrypted opening, as the vault stores it.

    Attributes:
        record_id: The record that it belongs to.
        field: The record's field.
        subject: Whose key encrypts it.
        ciphertext: Nonce and ciphertext of salt and payload.
    """

    record_id: str
    field: str
    subject: str
    ciphertext: bytes


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """A record that is ready to be sequenced.

    Attributes:
        record: The decoded record.
        entry: Its canonical bytes.
        leaf: Their leaf hash; the full SHA-256 by which a repeated record is told from another.
        payloads: What goes into the vault in the same transaction.
        keys_leaf: Leaf of the newest key record of the log that its signature was judged by, -1 if it has none; None
            for a record that no key record could end.
    """

    record: Record
    entry: bytes
    leaf: LeafHash
    payloads: tuple[SealedPayload, ...] = ()
    keys_leaf: int | None = None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A record is durable and has its index for ever.

    Attributes:
        record_id: Which record.
        index: Zero-based leaf index.
        duplicate: It had been there before; the index is the first one's.
    """

    record_id: str
    index: int
    duplicate: bool = False


class LogStore(Protocol):
    """Where indexes are given and checkpoints are swapped: the only authority over a log."""

    def sequence(
        self, log_id: str, batches: Sequence[Sequence[PendingEntry]], *, received_ms: int
    ) -> list[list[Acknowledgement] | ConflictError]:
        """Give each entry the next index and make all of it durable, in one transaction.

        Durability: every acknowledged entry, its payloads and its projection are synced when the call returns.
        Atomicity: each batch whole or not at all; one batch's conflict does not touch the others.
        Idempotence: a record id that is there with the same leaf hash is acknowledged with its first index; with
        another leaf hash, or an enforcer's sequence number that is taken by another record, or a record that names
        another log, the batch is a `ConflictError`.
        Keys: a record that was judged before the newest key record stood in the log makes the batch a
        `StaleKeysError`.
        Concurrency: callers are serialised for each log.

        Raises:
            NotFoundError: No such log.
            StorageError: Nothing of this call may be relied on; some of it may have persisted.
        """
        ...

    def sequenced_size(self, log_id: str) -> int:
        """Return the number of entries that have an index.

        Raises:
            NotFoundError: No such log.
            StorageError: The store failed.
        """
        ...

    def read_sequenced(self, log_id: str, start: int, end: int) -> list[bytes]:
        """Return the entries ``[start, end)`` that are still held here, in order.

        Raises:
            NotFoundError: One of them was released to the tile store, or has no index yet.
            StorageError: The store failed.
        """
        ...

    def release(self, log_id: str, below: int) -> None:
        """Forget the bytes of entries under ``below``; the tile store has them, under a published checkpoint.

        Idempotent. Indexes, leaf hashes and projections stay.

        Raises:
            StorageError: The store failed.
        """
        ...

    def checkpoint(self, log_id: str) -> bytes | None:
        """Return the published checkpoint's bytes, or None before the first.

        Raises:
            NotFoundError: No such log.
            StorageError: The store failed.
        """
        ...

    def swap_checkpoint(self, log_id: str, *, expected: bytes | None, new: bytes, size: int, published_ms: int) -> None:
        """Make ``new`` the published checkpoint if ``expected`` is the present one.

        Durability: synced when the call returns. Atomicity: compare and swap are one step for all processes.

        Raises:
            ConflictError: Another checkpoint is published, or a larger one: the caller lost and must stop.
            StorageError: It may or may not have happened; reload before doing anything else.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseState:
    """What a lease's row says.

    Attributes:
        live: Whether somebody holds it now.
        report: What its last holder said of the work, for all the others; empty if nothing.
    """

    live: bool
    report: str


class Lease(Protocol):
    """One piece of work of a log that one process at a time is to do; made for one holder.

    INVARIANT: a lease saves work and protects nothing. Whoever holds one may be paused until long after its end and
    go on as if nothing had been; what must not happen twice is guarded where it happens, as by
    `LogStore.swap_checkpoint`.
    """

    def take(self, report: str | None = None) -> bool:
        """Take the lease, or hold it for its full time again; return whether it is this holder's now.

        Durability: none is needed. Atomicity: of several holders that ask at once one gets it. Time is the store's
        own, so that the holders' clocks need not agree.

        Args:
            report: What to tell the others of the work, replacing what was told before; None leaves that as it is.

        Raises:
            StorageError: The store failed; whether it was taken is unknown.
        """
        ...

    def look(self) -> LeaseState:
        """Return what is known of the lease, without asking for it.

        Raises:
            StorageError: The store failed.
        """
        ...

    def give_up(self) -> None:
        """Let the next one have it at once, if it is this holder's; idempotent. The report stays.

        Raises:
            StorageError: The store failed; the lease ends by itself.
        """
        ...


class TileStore(Protocol):
    """Where tiles, entry bundles and the live checkpoint are read by the world."""

    def put(self, log_id: str, path: str, data: bytes) -> None:
        """Create an immutable file.

        Durability: synced when the call returns. Idempotence: the same bytes again are success.

        Raises:
            MalformedError: Not the path of a tile or bundle; the checkpoint is exposed, never put.
            ConflictError: Other bytes stand there.
            StorageError: The store failed.
        """
        ...

    def get(self, log_id: str, path: str) -> bytes:
        """Return a file's bytes.

        Args:
            log_id: Which log.
            path: Of a tile or bundle, or ``checkpoint``.

        Raises:
            MalformedError: Not such a path, or not a log id.
            NotFoundError: No such file.
            StorageError: The store failed.
        """
        ...

    def expose(self, log_id: str, checkpoint: bytes) -> None:
        """Replace the live checkpoint, never by a smaller one.

        Durability: synced when the call returns. Atomicity: a reader sees the old or the new. A checkpoint that is
        smaller than the present one is silently left unexposed: a late writer must not move the log back.

        Raises:
            MalformedError: Not a checkpoint, or what is exposed is none.
            ConflictError: A checkpoint of the same size with another root is exposed.
            StorageError: The store failed.
        """
        ...


class PartialStore(Protocol):
    """What a tile store offers to `ledger.collecting`: partial tiles and bundles that full ones have replaced.

    All of it is idempotent and may be called by several processes at once. Nothing here judges whether a partial may
    go: the collector does.
    """

    def partial_tiles(self, log_id: str, level: int, group: int) -> list[int]:
        """Return the numbers of the tiles that have partials, ascending, of the thousand from ``1000 * group`` on.

        Args:
            log_id: Which log.
            level: 0 to 63, or `ledger.tiles.BUNDLE_LEVEL`.
            group: A thousand tiles stand together in one directory.

        Raises:
            StorageError: The store failed.
        """
        ...

    def partial_widths(self, log_id: str, level: int, number: int) -> list[int]:
        """Return the widths of a tile's partials, ascending.

        Raises:
            StorageError: The store failed.
        """
        ...

    def discard_partials(self, log_id: str, level: int, number: int) -> None:
        """Forget every partial of a tile; the full one is never touched.

        Raises:
            StorageError: The store failed; some may be gone.
        """
        ...

    def discard_superseded(self, log_id: str) -> None:
        """Forget what the live checkpoint was before, where a store keeps versions; the live one stays.

        Raises:
            StorageError: The store failed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorReceipt:
    """An independent copy of a checkpoint.

    Attributes:
        size: Tree size of the checkpoint.
        location: Where the copy is.
        anchored_ms: When it was made, POSIX milliseconds.
        retain_until_ms: Until when it is locked, or None where nothing but permissions protects it.
    """

    size: int
    location: str
    anchored_ms: int
    retain_until_ms: int | None = None


class Anchor(Protocol):
    """Where independent copies of checkpoints are kept, out of the log operator's easy reach."""

    def put(self, log_id: str, size: int, checkpoint: bytes) -> AnchorReceipt:
        """Keep a copy. Idempotent for the same bytes; durable when the call returns.

        Raises:
            ConflictError: Another checkpoint of that size is anchored: two trees of one log.
            AnchorError: The anchor failed.
        """
        ...

    def get(self, log_id: str, size: int) -> bytes:
        """Return an anchored checkpoint's bytes.

        Raises:
            NotFoundError: None of that size.
            AnchorError: The anchor failed.
        """
        ...

    def sizes(self, log_id: str, *, above: int = -1) -> list[int]:
        """Return the sizes that something is kept under, ascending; whether it is a checkpoint, `get` and a look say.

        Args:
            log_id: Which log.
            above: Only larger ones; a log of years has millions.

        Raises:
            AnchorError: The anchor failed.
        """
        ...


class Signer(Protocol):
    """Signs checkpoints with one key; the private key may live elsewhere."""

    @property
    def verifier_key(self) -> VerifierKey:
        """The public key, named by the log's origin."""
        ...

    def sign(self, checkpoint: Checkpoint, timestamp_seconds: int) -> NoteSignature:
        """Return the signature line.

        Raises:
            DependencyError: The key could not be used.
        """
        ...


class Witness(Protocol):
    """Somebody else who cosigns our checkpoints if they extend what it cosigned before; safe for any thread."""

    @property
    def name(self) -> str:
        """The name by which the witness policy calls it."""
        ...

    @property
    def verifier_key(self) -> VerifierKey:
        """The key that its cosignatures must be of."""
        ...

    def add_checkpoint(self, checkpoint: bytes, *, old_size: int, proof: Sequence[bytes]) -> NoteSignature:
        """Have a checkpoint cosigned.

        Returns in a bounded time. Idempotent: a witness cosigns the same checkpoint again, at another time.

        Args:
            checkpoint: With the log's own signatures alone.
            old_size: The tree size that the witness cosigned last, or 0.
            proof: Consistency proof from there.

        Returns:
            The witness's signature line, which has been verified.

        Raises:
            WitnessSizeError: The witness cosigned another size last; the error says which.
            WitnessError: It failed, refused, or answered something that is not its cosignature.
        """
        ...


class Cosigner(Protocol):
    """Cosigns the checkpoints of others with one key; safe for any thread."""

    @property
    def verifier_key(self) -> VerifierKey:
        """The public key, in the witness's name."""
        ...

    def cosign(self, checkpoint: UnverifiedCheckpoint, timestamp_seconds: int) -> NoteSignature:
        """Return the signature line; that the checkpoint may be cosigned, the caller has found out.

        Raises:
            DependencyError: The key could not be used.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a witness answers.

    Attributes:
        status: HTTP status.
        body: Signature lines, a size, or one sentence.
        media_type: Of the body.
    """

    status: int
    body: bytes
    media_type: str = "text/plain; charset=utf-8"


class AddCheckpointService(Protocol):
    """A witness for other people's logs, without its HTTP; safe for any thread."""

    def add_checkpoint(self, body: bytes) -> Reply:
        """Answer a request (C2SP tlog-witness, add-checkpoint).

        Raises:
            StorageError: The store failed; nothing was cosigned.
        """
        ...


class Refusal(StrEnum):
    """Why a witness did not cosign what a log signed."""

    CONTRADICTS = "contradicts"
    """It has the size of what was cosigned, and another root: with that it proves two histories."""
    UNPROVED = "unproved"
    """It is of more leaves, and the proof that came with it does not hold: whose fault that is, is open."""


class WitnessedLogs(Protocol):
    """What a witness has cosigned. Safe for any thread and process."""

    def advance(self, origin: str, decide: Callable[[bytes | None], tuple[int, bytes]], *, now_ms: int) -> None:
        """Read the checkpoint of a log that was cosigned last, decide, and keep the one that is cosigned now.

        Durability: synced when the call returns. Atomicity: from reading to keeping, no other call of any process
        comes between. What ``decide`` raises goes through, and nothing is kept.

        Args:
            origin: Which log.
            decide: Is given what was cosigned last, or None; returns tree size and checkpoint to keep. A size that is
                there already is not kept again.
            now_ms: The time.

        Raises:
            StorageError: The store failed; nothing may be answered.
        """
        ...

    def refuse(self, origin: str, sha256: str, checkpoint: bytes, *, refusal: Refusal, now_ms: int) -> None:
        """Keep a checkpoint that the log signed and that was refused. Idempotent by its digest.

        Bounded: a log that signs without end fills no disk. What comes first is kept, and of each kind enough.

        Raises:
            StorageError: The store failed.
        """
        ...


class CosignatureStore(Protocol):
    """Where cosignatures are kept, so that a restart exposes what was exposed. Safe for any thread and process."""

    def keep(self, log_id: str, size: int, cosigned: Mapping[VerifierKey, NoteSignature], *, now_ms: int) -> None:
        """Keep cosignatures of the published checkpoint of ``size`` leaves; the first of each key stays.

        Durability: synced when the call returns.

        Raises:
            StorageError: The store failed.
        """
        ...

    def kept(self, log_id: str, size: int, keys: Sequence[VerifierKey]) -> dict[VerifierKey, NoteSignature]:
        """Return the cosignatures of one size by these keys, as they were kept.

        Raises:
            StorageError: The store failed.
        """
        ...

    def last_size(self, log_id: str, key: VerifierKey) -> int:
        """Return the largest size that a key has cosigned, or 0.

        Raises:
            StorageError: The store failed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTimestamp:
    """A trusted timestamp, with what it dates.

    Attributes:
        size: Tree size of the checkpoint.
        checkpoint: The very bytes whose digest the token holds.
        token: The authority's whole answer (RFC 3161 TimeStampResp, DER).
        time_ms: The time that the authority vouches for, POSIX milliseconds.
        kept_ms: When it was kept, by our clock; what lies between the two is the skew and the way there and back.
    """

    size: int
    checkpoint: bytes
    token: bytes
    time_ms: int
    kept_ms: int


class TimestampArchive(Protocol):
    """Where copies of timestamps go, out of the log operator's easy reach. Safe for any thread and process."""

    def copy(self, log_id: str, timestamp: KeptTimestamp) -> None:
        """Keep a copy of a token and of the bytes that it dates. Idempotent for the same bytes; durable on return.

        Raises:
            ConflictError: Another token of that size is kept.
            AnchorError: The archive failed.
        """
        ...


class TimestampAuthority(Protocol):
    """Somebody else who says when he saw something; safe for any thread."""

    def stamp(self, size: int, checkpoint: bytes) -> KeptTimestamp:
        """Have a checkpoint dated, and verify the token.

        Returns in a bounded time.

        Raises:
            TimestampError: The authority failed, refused, or answered something else than was asked.
        """
        ...


class TimestampStore(Protocol):
    """Where timestamps are kept. Safe for any thread and process."""

    def keep(self, log_id: str, timestamp: KeptTimestamp) -> None:
        """Keep a timestamp; the first of each tree size stays.

        Durability: synced when the call returns.

        Raises:
            StorageError: The store failed.
        """
        ...

    def newest(self, log_id: str) -> KeptTimestamp | None:
        """Return the timestamp of the largest tree, or None before the first.

        Raises:
            StorageError: The store failed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A body that waits for its envelope.

    Attributes:
        body: What is recorded.
        openings: One for each commitment of the body.
        record_id: The record's id, where it follows from what is recorded, so that it is recorded once however often
            it is handed in; a new one if None.
    """

    body: Body
    openings: tuple[Opening, ...] = ()
    record_id: str | None = None


class RecordSink(Protocol):
    """How every upper room writes records: it adds the envelope, signs, and hands them to the ledger."""

    async def append(self, drafts: Sequence[Draft]) -> list[Acknowledgement]:
        """Record the drafts, in order and as one atomic batch; they are durable when the call returns.

        Raises:
            MalformedError: A commitment without its opening, or a body that does not fit an entry.
            DependencyError: Nothing of this call may be relied on.
        """
        ...
