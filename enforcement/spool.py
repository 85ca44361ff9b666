"""The spool: records that are numbered, signed and durable here, until the ledger has them.

What is elsewhere: posting them (`enforcement.drainer`), what is recorded (`enforcement.pep`), signing
(`enforcement.numbering`), encryption (`enforcement.sealing`), the chain (`enforcement.chained_queue`), the file
(`enforcement.state`).

INVARIANT: sequence numbers of an epoch are given once, without gaps, in the transaction that makes the record durable;
after a crash the next number is the one after the last that can be read. When the file is lost, a new epoch begins.
When an older copy of it was put back, what waits under numbers that the ledger knows from elsewhere moves to a new
epoch, whole and in order: no record is lost by it.

INVARIANT: exactly one outcome for each permitted decision. A decision that permits opens a call in the transaction that
stores it, an outcome closes it, and an outcome that closes nothing is refused.

INVARIANT: what waits is chained under the spool key. A record that was altered in the file is not posted, one that was
taken out of it is missed, and both are declared lost; where the ends of the chain cannot be told any more, nothing is
appended and nothing posted until a new epoch begins, with the next start.

INVARIANT 6: payloads wait encrypted; an entry itself holds no personal plaintext.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
import nacl.signing
import structlog

from enforcement.batches import Batch, Depth, Item, Kept, OpenCall, QueuedRecord, RecordIdentity, opens_call
from enforcement.chained_queue import ChainedQueue, before, meta_of, set_meta
from enforcement.chaining import Mark, Row
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

_LOG: Final = structlog.get_logger(__name__)
_EPOCH_FILE: Final = "epoch"
_UNREADABLE: Final = "unreadable"
_MISSING: Final = "missing"


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
        self._queue = ChainedQueue(state, spool_key)
        self._clock = clock
        self._max_bytes = max_bytes
        self._new_epoch = new_epoch
        self._adopt()

    def _adopt(self) -> None:
        owner = f"{self._maker.identity.log_id}/{self._maker.identity.enforcer_id}"
        with self._state.transaction() as connection:
            meta = meta_of(connection)
            if not meta:
                set_meta(connection, owner=owner, key_check=self._box.key_check(), records=0, size=0)
                self._begin_epoch(connection, self._remembered_epoch())
            elif meta["owner"] != owner:
                raise ConfigError(f"the state directory belongs to the enforcer {meta['owner']}, not to {owner}")
            else:
                self._adopt_version(connection, self._box.version(meta["key_check"]))
        self._remember_epoch()

    def _adopt_version(self, connection: sqlite3.Connection, version: int | None) -> None:
        if version is None:
            raise ConfigError("the spool key does not open this spool")
        if version == 1:
            self._queue.adopt(connection)
            # From now on marks that are gone are marks that were taken away.
            set_meta(connection, key_check=self._box.key_check())

    # --- epochs

    def _begin_epoch(self, connection: sqlite3.Connection, previous: str | None) -> None:
        epoch = self._new_epoch()
        set_meta(connection, epoch=epoch, seq=0, running_count=0, moved=0, previous_epoch=previous or "")
        self._queue.begin(connection, epoch)

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

    def altered(self) -> bool:
        """Whether the ends of the chain cannot be told any more: `rotate_epoch` is the only way on.

        Raises:
            StorageError: The file failed.
        """
        meta: dict[str, Any] = dict(self._state.read("SELECT name, value FROM meta"))
        try:
            self._queue.ends(meta)
        except StorageError:
            return True
        return False

    def rotate_epoch(self, announcement: Heartbeat) -> None:
        """Begin a new epoch and move to it what waits: the numbers of the old one can no longer be told from this file.

        Either an older copy of the file was put back: the ledger knows numbers of the old epoch from elsewhere. Or the
        ends of the chain were altered. The records that wait are new all the same, and so they get new numbers, in
        order, after the announcement; one that was altered gets a number to be declared lost under. What they changed
        in this file (blocks, sessions, open calls) stands.

        Durability: synced when the call returns. Atomicity: all of it or nothing.

        Args:
            announcement: The first record of the new epoch; which epoch it names is set here.

        Raises:
            StorageError: The file failed.
        """
        with self._state.transaction() as connection:
            old = meta_of(connection)["epoch"]
            self._begin_epoch(connection, old)
            waiting = self._queue.waiting(connection)
            body = msgspec.structs.replace(announcement, previous_epoch=old)
            self._insert(connection, Item(self.new_record_id(), Draft(body=body)))
            for position in waiting:
                self._move(connection, position)
            # Up to here each number of the epoch is given in this one transaction, in every copy of the file.
            set_meta(connection, moved=meta_of(connection)["seq"])
        self._remember_epoch()

    def _move(self, connection: sqlite3.Connection, position: int) -> None:
        meta, row = meta_of(connection), self._queue.at(connection, position)
        head = self._queue.ends(meta)[1]
        record, entry = self._renumbered(row, head)
        mark = self._queue.move(connection, row, head, record, entry)
        grown = len(entry) - len(row.content.entry)
        set_meta(connection, seq=mark.seq, running_count=mark.counted, size=meta["size"] + grown)

    def _renumbered(self, row: Row, head: Mark) -> tuple[Record | None, bytes]:
        """Return a row's record and entry under the number after ``head``; what was altered is not signed anew."""
        entry = row.content.entry
        if not self._queue.is_intact(row):
            return None, entry
        try:
            return self._maker.move(entry, epoch=head.epoch, seq=head.seq + 1, counted=head.counted)
        except MalformedError:  # damaged before there was a chain: the ledger will refuse it under this number
            return None, entry

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
        meta = meta_of(connection)
        # What the ledger has acknowledged and not proven takes room as well: it may yet be all that there is of it.
        if bounded and 8 * (meta["size"] + meta.get("unproven", 0)) > batch.room * self._max_bytes:
            raise OverloadedError("the spool is full")
        for change in batch.changes:
            change.apply(connection)
        return records

    def _insert(self, connection: sqlite3.Connection, item: Item) -> Record:
        meta = meta_of(connection)
        head = self._queue.ends(meta)[1]
        record, entry = self._maker.make(item, epoch=head.epoch, seq=head.seq + 1, counted=head.counted)
        openings = self._box.seal(record.record_id, item.draft.openings)
        try:
            chain_head = self._queue.insert(connection, head, record, entry, openings)
            _track_call(connection, record)
        except sqlite3.IntegrityError as error:
            raise ConflictError(f"the record id {record.record_id} is taken") from error
        set_meta(
            connection,
            seq=record.seq,
            running_count=record.running_count,
            records=meta["records"] + 1,
            size=meta["size"] + len(entry) + len(openings),
            chain_head=chain_head,
        )
        return record

    # --- out

    def pending(self, *, max_records: int, max_bytes: int) -> list[QueuedRecord]:
        """Return the next records in order: at least one if any waits, beyond that no more than the bounds.

        A record that was altered in the file is set aside, and declared lost; one that is missing is declared lost.

        Raises:
            StorageError: The file failed, or the ends of the chain were altered.
        """
        while True:
            # The marks first: what another process appends meanwhile is then behind them, never missing.
            meta: dict[str, Any] = dict(self._state.read("SELECT name, value FROM meta"))
            tail, head = self._queue.ends(meta)
            rows = self._queue.front(head.epoch, max_records=max_records, max_bytes=max_bytes)
            whole = self._whole(rows, tail)
            if whole:
                return whole
            if not rows and tail == head:
                return self._strays(head.epoch, max_records)
            self._mend()

    def _whole(self, rows: Sequence[Row], tail: Mark) -> list[QueuedRecord]:
        """Return the records of the rows up to the first one that was altered or does not follow."""
        whole: list[QueuedRecord] = []
        for row in rows:
            again = row.content.seq <= tail.seq  # put back after the ledger had it: it will say where
            queued = self._queued(row)
            if queued is None or not (again or row.follows(tail)):
                break
            tail = tail if again else row.mark()
            whole.append(queued)
        return whole

    def _queued(self, row: Row) -> QueuedRecord | None:
        if not self._queue.is_intact(row):
            return None
        content = row.content
        openings = self._box.unseal(content.record_id, content.sealed)
        return (
            None
            if openings is None
            else QueuedRecord(
                position=row.position,
                record_id=content.record_id,
                epoch=content.epoch,
                seq=content.seq,
                entry=content.entry,
                openings=openings,
            )
        )

    def _strays(self, epoch: str, max_records: int) -> list[QueuedRecord]:
        """Return records of other epochs: somebody has put them back. The ledger knows them, or will take them."""
        found = [(row, self._queued(row)) for row in self._queue.strays(epoch, max_records=max_records)]
        altered = [row for row, queued in found if queued is None]
        if altered:
            with self._state.transaction() as connection:
                for row in altered:
                    self._put_aside(connection, row.position, _UNREADABLE)
        return [queued for _, queued in found if queued is not None]

    def _mend(self) -> None:
        """Take what is wrong at the front of the queue out of the way, and declare what is lost by it."""
        with self._state.transaction() as connection:
            tail, head = self._queue.ends(meta_of(connection))
            row = self._queue.first(connection, head.epoch)
            if row is None:
                self._declare_lost(connection, tail, head)
            elif self._queued(row) is None:
                _LOG.error("spool_record_altered", position=row.position)
                self._put_aside(connection, row.position, _UNREADABLE)
            elif row.content.seq > tail.seq and not row.follows(tail):
                self._declare_lost(connection, tail, before(row))

    def _declare_lost(self, connection: sqlite3.Connection, tail: Mark, until: Mark) -> None:
        self._queue.advance(connection, until)
        if until.seq <= tail.seq:  # the records of two histories of this file: by their numbers nothing is missing
            _LOG.error("spool_chain_broken", seq=tail.seq)
            return
        found = connection.execute(
            "SELECT count(*) FROM set_aside WHERE epoch = ? AND seq BETWEEN ? AND ? AND reason = ?",
            (tail.epoch, tail.seq + 1, until.seq, _UNREADABLE),
        ).fetchone()
        lost = Dropped(
            first_seq=tail.seq + 1,
            last_seq=until.seq,
            decisions=max(0, until.counted - tail.counted),
            reason=_UNREADABLE if found[0] else _MISSING,
        )
        _LOG.error("spool_records_lost", first_seq=lost.first_seq, last_seq=lost.last_seq, reason=lost.reason)
        self._insert(connection, Item(self.new_record_id(), Draft(body=lost)))

    def acknowledge(self, queued: Iterable[QueuedRecord], leaf_indexes: Iterable[int] | None = None) -> None:
        """Take records that the ledger has out of the queue, in the order in which `pending` returned them.

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
            removed = self._remove(connection, [item.position for item in queued])
            if leaf_indexes is not None:
                set_meta(connection, unproven=meta_of(connection).get("unproven", 0) + removed)

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
            left = connection.execute("SELECT 1 FROM unproven LIMIT 1").fetchone() is not None
            unproven = max(1, meta_of(connection).get("unproven", 0) - gone) if left else 0
            set_meta(connection, unproven=unproven, proven_size=head.size, proven_root=head.root.hex())

    def set_aside(self, queued: QueuedRecord, reason: str) -> None:
        """Take a record that the ledger will never have out of the way of the others; it is kept.

        Loss is itself a record: it is declared lost.

        Args:
            queued: The record.
            reason: ``refused`` or ``conflict`` (the ledger has another record under its id).

        Raises:
            StorageError: The file failed.
        """
        body = _body(queued.entry)
        with self._state.transaction() as connection:
            self._put_aside(connection, queued.position, reason)
            # A `Dropped` record that is refused itself is not declared in turn.
            if not isinstance(body, Dropped):
                lost = Dropped(
                    first_seq=queued.seq,
                    last_seq=queued.seq,
                    decisions=int(isinstance(body, Decision)),
                    reason=reason,
                )
                self._insert(connection, Item(self.new_record_id(), Draft(body=lost)))

    def _put_aside(self, connection: sqlite3.Connection, position: int, reason: str) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO set_aside SELECT record_id, epoch, seq, ?, ?, entry, openings FROM queue"
            " WHERE position = ?",
            (reason, self._clock.now_ms(), position),
        )
        # What an altered row says of its place is not believed: what follows it, or the head, tells what is missing.
        self._remove(connection, [position], advance=reason != _UNREADABLE)

    def _remove(self, connection: sqlite3.Connection, positions: Iterable[int], *, advance: bool = True) -> int:
        """Take records out of the queue, and return their bytes."""
        count, size, last = self._queue.remove(connection, positions)
        meta = meta_of(connection)
        # Rows may have come or gone by another hand: bounds and heartbeats must not go by that for good.
        records, waiting = max(1, meta["records"] - count), max(1, meta["size"] - size)
        if self._queue.is_empty(connection):
            records = waiting = 0
        set_meta(connection, records=records, size=waiting)
        if advance and last is not None:
            tail = self._queue.ends(meta)[0]
            if last.epoch == tail.epoch and last.seq > tail.seq:
                self._queue.advance(connection, last)
        return size

    # --- what is known

    def open_calls(self) -> list[OpenCall]:
        """Return the permitted calls that have no outcome yet.

        Raises:
            StorageError: The file failed.
        """
        columns = "decision_id, session, user, approval_id, binding"
        rows = self._state.read(f"SELECT {columns} FROM open_calls ORDER BY decision_id")  # noqa: S608  # constants
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
        connection.execute("INSERT INTO open_calls (decision_id, session, user) VALUES (?, ?, ?)", row)
    elif isinstance(body, Decision):
        # A permit whose commit was reported lost may be with the ledger already, and in the queue no more.
        opened = connection.execute("SELECT 1 FROM open_calls WHERE decision_id = ?", (record.record_id,))
        if opened.fetchone() is not None:
            raise ConflictError(f"the record id {record.record_id} is taken")
    if isinstance(body, Outcome):
        closed = connection.execute("DELETE FROM open_calls WHERE decision_id = ?", (body.decision_id,))
        if closed.rowcount != 1:
            raise ConflictError(f"the decision {body.decision_id} has no open call")
