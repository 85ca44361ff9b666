"""The spool: records that are numbered, signed and durable here, until the ledger has them.

What is elsewhere: posting them (`enforcement.drainer`), what is recorded (`enforcement.pep`), signing
(`enforcement.numbering`), encryption (`enforcement.sealing`), the file (`enforcement.state`).

INVARIANT: sequence numbers of an epoch are given once, without gaps, in the transaction that makes the record durable;
after a crash the next number is the one after the last that can be read. When the file is lost, a new epoch begins.
When an older copy of it was put back, what waits under numbers that the ledger knows from elsewhere moves to a new
epoch, whole and in order: no record is lost by it.

INVARIANT: exactly one outcome for each permitted decision. A decision that permits opens a call in the transaction that
stores it, an outcome closes it, and an outcome that closes nothing is refused.

INVARIANT 6: payloads wait encrypted; an entry itself holds no personal plaintext.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
import nacl.signing

from enforcement.batches import Batch, Depth, Item, Kept, OpenCall, QueuedRecord, RecordIdentity, opens_call
from enforcement.numbering import RecordMaker
from enforcement.sealing import PayloadBox
from enforcement.state import StateDatabase
from ledger.bodies import Body, Decision, Dropped, Heartbeat, Outcome, Shadow, ShadowCount
from ledger.clock import Clock
from ledger.errors import ConfigError, ConflictError, LedgerError, MalformedError, OverloadedError, StorageError
from ledger.files import replace_durably
from ledger.merkle import RootHash
from ledger.ports import Draft
from ledger.proofs import TreeHead
from ledger.records import Record, decode_entry, new_record_id

__all__ = ["Spool"]

_EPOCH_FILE: Final = "epoch"


class Spool:
    """The queue in the state file. Called from one thread at a time."""

    def __init__(
        self,
        state: StateDatabase,
        *,
        identity: RecordIdentity,
        signing_key: nacl.signing.SigningKey,
        spool_key: bytes,
        clock: Clock,
        max_bytes: int,
        new_epoch: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        """Take the state file, beginning an epoch if it is new.

        Args:
            state: The state file.
            identity: What all records have in common.
            signing_key: The enforcer's Ed25519 key.
            spool_key: Encrypts payloads, 32 bytes.
            clock: Dates the records.
            max_bytes: Most bytes that may wait; which part of it is kept for what is said by `Room`.
            new_epoch: Makes the name of an epoch, 32 hexadecimal digits.

        Raises:
            ConfigError: The file belongs to another enforcer or log, or was written under another spool key.
            StorageError: The file failed.
        """
        self._state = state
        self._maker = RecordMaker(identity, signing_key, clock)
        self._box = PayloadBox(spool_key)
        self._clock = clock
        self._max_bytes = max_bytes
        self._new_epoch = new_epoch
        self._adopt()

    def _adopt(self) -> None:
        owner = f"{self._maker.identity.log_id}/{self._maker.identity.enforcer_id}"
        with self._state.transaction() as connection:
            meta = _meta(connection)
            if not meta:
                _set_meta(connection, owner=owner, key_check=self._box.key_check(), records=0, size=0)
                self._begin_epoch(connection, self._remembered_epoch())
            elif meta["owner"] != owner:
                raise ConfigError(f"the state directory belongs to the enforcer {meta['owner']}, not to {owner}")
            elif not self._box.opens(meta["key_check"]):
                raise ConfigError("the spool key does not open this spool")
        self._remember_epoch()

    # --- epochs

    def _begin_epoch(self, connection: sqlite3.Connection, previous: str | None) -> None:
        _set_meta(connection, epoch=self._new_epoch(), seq=0, running_count=0, moved=0, previous_epoch=previous or "")

    def _remembered_epoch(self) -> str | None:
        try:
            return (self._state.directory / _EPOCH_FILE).read_text().strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError("the file that names the last epoch cannot be read") from error

    def _remember_epoch(self) -> None:
        """Name the epoch outside the state file, so that the next one can say which was lost with it."""
        try:
            replace_durably(self._state.directory / _EPOCH_FILE, f"{self.epoch}\n".encode(), mode=0o600)
        except OSError as error:
            raise StorageError("the file that names the epoch cannot be written") from error

    @property
    def epoch(self) -> str:
        """The present epoch, 32 hexadecimal digits."""
        return str(self._state.read("SELECT value FROM meta WHERE name = 'epoch'")[0][0])

    def unannounced_epoch(self) -> tuple[bool, str | None]:
        """Tell whether the epoch has no record yet, and which epoch went before it, if that is known."""
        meta: dict[str, Any] = dict(self._state.read("SELECT name, value FROM meta"))
        return meta["seq"] == 0, meta["previous_epoch"] or None

    def rotate_epoch(self, announcement: Heartbeat) -> None:
        """Begin a new epoch and move to it what waits, because the ledger knows numbers of the old one from elsewhere.

        That happens when an older copy of the file was put back: the numbers that were given since are taken. The
        records under them are new all the same, and so they get new numbers, in order, after the announcement. What
        they changed in this file (blocks, sessions, open calls) stands.

        Durability: synced when the call returns. Atomicity: all of it or nothing.

        Args:
            announcement: The first record of the new epoch; which epoch it names is set here.

        Raises:
            StorageError: The file failed.
        """
        with self._state.transaction() as connection:
            old = _meta(connection)["epoch"]
            self._begin_epoch(connection, old)
            waiting = connection.execute("SELECT position FROM queue ORDER BY position").fetchall()
            body = msgspec.structs.replace(announcement, previous_epoch=old)
            self._insert(connection, Item(self.new_record_id(), Draft(body=body)))
            for (position,) in waiting:
                self._move(connection, position)
            # Up to here each number of the epoch is given in this one transaction, in every copy of the file.
            _set_meta(connection, moved=_meta(connection)["seq"])
        self._remember_epoch()

    def _move(self, connection: sqlite3.Connection, position: int) -> None:
        meta = _meta(connection)
        seq, counted = meta["seq"] + 1, meta["running_count"]
        select = "SELECT size, entry FROM queue WHERE position = ?"
        size, entry = connection.execute(select, (position,)).fetchone()
        try:
            record, moved = self._maker.move(entry, epoch=meta["epoch"], seq=seq, counted=counted)
            counted = record.running_count
        except MalformedError:  # damaged: the ledger will refuse it under this number, and then it is declared lost
            moved = entry
        grown = len(moved) - len(entry)
        connection.execute(
            "UPDATE queue SET position = (SELECT max(position) + 1 FROM queue), epoch = ?, seq = ?, size = ?, entry = ?"
            " WHERE position = ?",
            (meta["epoch"], seq, size + grown, moved, position),
        )
        _set_meta(connection, seq=seq, running_count=counted, size=meta["size"] + grown)

    def moved_by_rotation(self, queued: QueuedRecord) -> bool:
        """Whether a record got its number when its epoch began.

        Such a number was given once, in every copy of the file: if the ledger calls it a conflict, then it is the
        record's id that the ledger knows with other content, and a further epoch would not help.

        Raises:
            StorageError: The file failed.
        """
        meta: dict[str, Any] = dict(self._state.read("SELECT name, value FROM meta"))
        moved: int = meta.get("moved", 0)
        return queued.seq <= moved and queued.epoch == meta["epoch"]

    # --- in

    def append(self, batches: Sequence[Batch]) -> list[list[Record] | LedgerError]:
        """Number, sign and store batches, in one transaction.

        Durability: synced when the call returns. Atomicity: each batch whole or not at all; one that is refused does
        not touch the others. Concurrency: another process may append to the same file at any time.

        Returns:
            For each batch its records, or why it was refused: `MalformedError` (the ledger would not take it),
            `ConflictError` (a record id is taken, or an outcome closes no open call), `OverloadedError` (the spool is
            full).

        Raises:
            StorageError: The file failed; none of the batches may be relied on.
        """
        results: list[list[Record] | LedgerError] = []
        with self._state.transaction() as connection:
            for batch in batches:
                connection.execute("SAVEPOINT batch")
                try:
                    results.append(self._append(connection, batch))
                except (MalformedError, ConflictError, OverloadedError) as error:
                    connection.execute("ROLLBACK TO batch")
                    results.append(error)
                connection.execute("RELEASE batch")
        return results

    def _append(self, connection: sqlite3.Connection, batch: Batch) -> list[Record]:
        records = [self._insert(connection, item) for item in batch.items]
        # Only decisions and their shadows are bounded: each decision has at most one outcome, which must not fail, and
        # heartbeats are slow.
        bounded = any(isinstance(record.body, Decision | Shadow | ShadowCount) for record in records)
        meta = _meta(connection)
        # What the ledger has acknowledged and not proven takes room as well: it may yet be all that there is of it.
        if bounded and 8 * (meta["size"] + meta.get("unproven", 0)) > batch.room * self._max_bytes:
            raise OverloadedError("the spool is full")
        for change in batch.changes:
            change.apply(connection)
        return records

    def _insert(self, connection: sqlite3.Connection, item: Item) -> Record:
        meta = _meta(connection)
        epoch, seq = meta["epoch"], meta["seq"] + 1
        record, entry = self._maker.make(item, epoch=epoch, seq=seq, counted=meta["running_count"])
        openings = self._box.seal(record.record_id, item.draft.openings)
        size = len(entry) + len(openings)
        try:
            connection.execute(
                "INSERT INTO queue (record_id, epoch, seq, size, entry, openings) VALUES (?, ?, ?, ?, ?, ?)",
                (record.record_id, record.epoch, record.seq, size, entry, openings),
            )
            _track_call(connection, record)
        except sqlite3.IntegrityError as error:
            raise ConflictError(f"the record id {record.record_id} is taken") from error
        _set_meta(
            connection,
            seq=record.seq,
            running_count=record.running_count,
            records=meta["records"] + 1,
            size=meta["size"] + size,
        )
        return record

    # --- out

    def pending(self, *, max_records: int, max_bytes: int) -> list[QueuedRecord]:
        """Return the next records in order: at least one if any waits, beyond that no more than the bounds.

        A record whose payloads cannot be decrypted any more is set aside, and declared lost.

        Raises:
            StorageError: The file failed.
        """
        sizes = self._state.read("SELECT position, size FROM queue ORDER BY position LIMIT ?", (max_records,))
        last, total = 0, 0
        for position, size in sizes:
            total += size
            if last and total > max_bytes:
                break
            last = position
        rows = self._state.read(
            "SELECT position, record_id, epoch, seq, entry, openings FROM queue WHERE position <= ? ORDER BY position",
            (last,),
        )
        queued: list[QueuedRecord] = []
        for position, record_id, epoch, seq, entry, box in rows:
            openings = self._box.unseal(record_id, box)
            record = QueuedRecord(
                position=position, record_id=record_id, epoch=epoch, seq=seq, entry=entry, openings=openings or ()
            )
            if openings is None:
                self.set_aside(record, "unreadable")
            else:
                queued.append(record)
        return queued

    def acknowledge(self, queued: Iterable[QueuedRecord], leaf_indexes: Iterable[int] | None = None) -> None:
        """Take records that the ledger has out of the queue.

        Not synced: if it is forgotten in a loss of power, they are posted again, and the ledger knows them.

        Args:
            queued: The records.
            leaf_indexes: Where they are, by the ledger's word: they are kept until that is proven. None: they are
                forgotten.

        Raises:
            StorageError: The file failed.
        """
        with self._state.transaction(synced=False) as connection:
            if leaf_indexes is not None:
                queued = tuple(queued)
                connection.executemany(
                    "INSERT OR REPLACE INTO unproven SELECT record_id, ?, size, entry, openings FROM queue"
                    " WHERE position = ?",
                    [(index, item.position) for item, index in zip(queued, leaf_indexes, strict=True)],
                )
            removed = sum(_remove(connection, item.position) for item in queued)
            if leaf_indexes is not None:
                _set_meta(connection, unproven=_meta(connection).get("unproven", 0) + removed)

    def kept(self, *, at_most: int) -> list[Kept]:
        """Return records that the ledger has acknowledged and not proven, in the order of the log.

        Raises:
            StorageError: The file failed.
        """
        query = "SELECT leaf_index, record_id, entry FROM unproven ORDER BY leaf_index LIMIT ?"
        return [Kept(*row) for row in self._state.read(query, (at_most,))]

    def unproven_bytes(self) -> int:
        """Return how many bytes of records that the ledger has acknowledged and not proven count against the bound.

        Raises:
            StorageError: The file failed.
        """
        found = self._state.read("SELECT value FROM meta WHERE name = 'unproven'")
        return int(found[0][0]) if found else 0

    def proven_head(self) -> TreeHead | None:
        """Return the last head of the log under which records were proven.

        Raises:
            StorageError: The file failed.
        """
        meta: dict[str, Any] = dict(self._state.read("SELECT name, value FROM meta WHERE name LIKE 'proven_%'"))
        if not meta:
            return None
        return TreeHead(size=meta["proven_size"], root=RootHash(bytes.fromhex(meta["proven_root"])))

    def let_go(self, proven: Iterable[Kept], head: TreeHead) -> None:
        """Forget records that were proven, and remember under which head.

        Not synced: if it is forgotten in a loss of power, they are proven again.

        Raises:
            StorageError: The file failed.
        """
        with self._state.transaction(synced=False) as connection:
            delete = "DELETE FROM unproven WHERE record_id = ? RETURNING size"
            gone = sum(size for one in proven for (size,) in connection.execute(delete, (one.record_id,)).fetchall())
            unproven = _meta(connection).get("unproven", 0) - gone
            _set_meta(connection, unproven=unproven, proven_size=head.size, proven_root=head.root.hex())

    def set_aside(self, queued: QueuedRecord, reason: str) -> None:
        """Take a record that the ledger will never have out of the way of the others; it is kept.

        Loss is itself a record: it is declared lost.

        Args:
            queued: The record.
            reason: ``refused``, ``conflict`` (the ledger has another record under its id) or ``unreadable``.

        Raises:
            StorageError: The file failed.
        """
        body = _body(queued.entry)
        with self._state.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO set_aside SELECT record_id, epoch, seq, ?, ?, entry, openings FROM queue"
                " WHERE position = ?",
                (reason, self._clock.now_ms(), queued.position),
            )
            _remove(connection, queued.position)
            # A `Dropped` record that is refused itself is not declared in turn.
            if not isinstance(body, Dropped):
                lost = Dropped(
                    first_seq=queued.seq,
                    last_seq=queued.seq,
                    decisions=int(isinstance(body, Decision)),
                    reason=reason,
                )
                self._insert(connection, Item(self.new_record_id(), Draft(body=lost)))

    # --- what is known

    def open_calls(self) -> list[OpenCall]:
        """Return the permitted calls that have no outcome yet.

        Raises:
            StorageError: The file failed.
        """
        rows = self._state.read("SELECT decision_id, session, user FROM open_calls ORDER BY decision_id")
        return [OpenCall(*row) for row in rows]

    def depth(self) -> Depth:
        """Return how much waits.

        Raises:
            StorageError: The file failed.
        """
        meta: dict[str, Any] = dict(self._state.read("SELECT name, value FROM meta"))
        (aside,) = self._state.read("SELECT count(*) FROM set_aside")[0]
        return Depth(records=meta["records"], size_bytes=meta["size"], set_aside=aside)

    def standing(self) -> tuple[Depth, int | None]:
        """Return how much waits, and for how many milliseconds the oldest record of it has, by this clock.

        Raises:
            StorageError: The file failed.
        """
        depth = self.depth()
        oldest = self._state.read("SELECT entry FROM queue ORDER BY position LIMIT 1")
        times = [since for (entry,) in oldest if (since := _time_ms(entry)) is not None]
        return depth, max(0, self._clock.now_ms() - times[0]) if times else None

    def new_record_id(self) -> str:
        """Return an id for a record: a UUID of version 7."""
        return new_record_id(self._clock.now_ms(), secrets.token_bytes(10))


def _body(entry: bytes) -> Body | None:
    try:
        return decode_entry(entry).body
    except MalformedError:  # the file was damaged
        return None


def _time_ms(entry: bytes) -> int | None:
    try:
        return decode_entry(entry).time_ms
    except MalformedError:  # the file was damaged
        return None


def _track_call(connection: sqlite3.Connection, record: Record) -> None:
    body = record.body
    if isinstance(body, Decision) and opens_call(body):
        row = (record.record_id, body.session, body.user)
        connection.execute("INSERT INTO open_calls VALUES (?, ?, ?)", row)
    if isinstance(body, Outcome):
        closed = connection.execute("DELETE FROM open_calls WHERE decision_id = ?", (body.decision_id,))
        if closed.rowcount != 1:
            raise ConflictError(f"the decision {body.decision_id} has no open call")


def _remove(connection: sqlite3.Connection, position: int) -> int:
    """Take a record out of the queue, and return its bytes."""
    removed = 0
    for (size,) in connection.execute("DELETE FROM queue WHERE position = ? RETURNING size", (position,)).fetchall():
        meta = _meta(connection)
        _set_meta(connection, records=meta["records"] - 1, size=meta["size"] - size)
        removed += size
    return removed


def _meta(connection: sqlite3.Connection) -> dict[str, Any]:
    return dict(connection.execute("SELECT name, value FROM meta").fetchall())


def _set_meta(connection: sqlite3.Connection, **values: object) -> None:
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())
