"""Pruning: entries under a published minimum index are no longer served; nothing is deleted.

A log keeps a *minimum index*. Entry bundles that end at or before it are answered with 404, and so is what the API
would read from them; tiles of hashes, checkpoints and proofs stay. The minimum index follows from the log's retention
records alone, in every process: whoever has the log can see who moved it, when, and under which policy.

It is moved only over whole bundles that a checkpoint covers, when every record in them is past the time that the
retention policy states for its type in the log, and when no legal hold covers any of them. A record's age counts from
the latest time that any record up to it names, so that an enforcer whose clock lags makes nothing older than it is.

The bundles stay where they are: the service, the audit and a rebuild go on reading them. What a deletion by hand would
break is in docs/retention.md.

Source: C2SP tlog-tiles, "Pruning".
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from ledger.bodies import RetentionEvent
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.erasure import ErasureKeeper, locked
from ledger.errors import ConflictError, HeldError, MalformedError, PrunedError
from ledger.holds import Hold
from ledger.ports import Draft, RecordSink
from ledger.reader import EntryReader
from ledger.records import Record, decode_entry, record_type
from ledger.retention import RetentionPolicy
from ledger.subjects import DAY_MS
from ledger.tiles import TILE_WIDTH
from ledger.vault import ErasableKeys

__all__ = ["MinimumIndex", "PruneOrder", "Pruned", "Pruner"]

_NO_LEAF: Final = -1
_LAST_MS: Final = 253_402_300_799_000
"""The end of the year 9999, beyond which no date is written."""


class MinimumIndex:
    """The leaf index under which a log's entries are no longer served; safe for any thread."""

    def __init__(
        self, log_id: str, *, catalog: Catalog, reader: EntryReader, check: Callable[[int, Record], None]
    ) -> None:
        """Follow one log.

        Args:
            log_id: Which.
            catalog: Finds its retention records.
            reader: Reads them.
            check: Checks that a record is signed by who may write it; raises if not.
        """
        self._log_id = log_id
        self._catalog = catalog
        self._reader = reader
        self._check = check
        self._lock = threading.Lock()
        self._newest = _NO_LEAF
        self._minimum = 0
        self._recorded_leaf: int | None = None

    def current(self) -> int:
        """Return the minimum index as the log says it now; 0 if it was never pruned.

        Raises:
            LedgerError: A store failed, or holds a record that is not signed by who may write it.
        """
        return self.look()[0]

    def look(self) -> tuple[int, int | None]:
        """Return the minimum index and the leaf of the record that says so; see `current`."""
        with self._lock:
            # INVARIANT: the log is asked each time, so that what one process has pruned no other one serves.
            for index in self._catalog.of_type(self._log_id, "retention", above=self._newest):
                record = self._reader.record(index)
                self._check(index, record)
                self._take(index, record)
                self._newest = index
            return self._minimum, self._recorded_leaf

    def _take(self, index: int, record: Record) -> None:
        body = record.body
        if not isinstance(body, RetentionEvent) or body.action != "pruned" or body.below is None:
            return
        # INVARIANT: the minimum index only moves forward, and never past the record that moves it.
        if self._minimum < body.below <= index:
            self._minimum, self._recorded_leaf = body.below, index

    def require(self, index: int) -> None:
        """Check that an entry is still served.

        Raises:
            PrunedError: It is not.
            LedgerError: See `current`.
        """
        minimum = self.current()
        if index < minimum:
            raise PrunedError(f"leaf {index} is below the log's published minimum index, {minimum}", minimum=minimum)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOrder:
    """Up to where the log is to be pruned, and by whose order.

    Attributes:
        below: The new minimum index.
        actor: Pseudonym of whoever orders it.
        actor_role: Under which role.
    """

    below: int
    actor: str
    actor_role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What became of an order, or would become of it.

    Attributes:
        before: The minimum index before.
        below: The minimum index afterwards.
        recorded_leaf: Leaf index of its record, or None: it was only asked.
    """

    before: int
    below: int
    recorded_leaf: int | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """What an order was judged by, besides records that never change."""

    before: int
    holds: Sequence[Hold]


class _Timed(msgspec.Struct):
    """All that is read of an entry which is only asked for its time."""

    time_ms: int


_TIMED: Final = msgspec.json.Decoder(_Timed)


def _time_of(entry: bytes) -> int:
    try:
        return _TIMED.decode(entry).time_ms
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError(f"not a record: {error}") from error


class Pruner:
    """Moves the minimum index of one log. One event loop's."""

    def __init__(
        self,
        log_id: str,
        *,
        policy: RetentionPolicy,
        minimum: MinimumIndex,
        keeper: ErasureKeeper,
        keys: ErasableKeys,
        reader: EntryReader,
        sink: RecordSink,
        published: Callable[[], int],
        clock: Clock,
    ) -> None:
        """Work on one log.

        Args:
            log_id: Which.
            policy: How long entries are kept.
            minimum: Where it stands.
            keeper: Reads which holds are in force.
            keys: Their lock is taken by whoever places a hold as well.
            reader: Reads entries.
            sink: Records what is done.
            published: Returns how many leaves the newest checkpoint covers.
            clock: For the age of entries.
        """
        self._log_id = log_id
        self.policy = policy
        self.minimum = minimum
        self._keeper = keeper
        self._keys = keys
        self._reader = reader
        self._sink = sink
        self._published = published
        self._clock = clock
        self._latest = (0, 0)
        """Up to which leaf the latest time was sought, and that time."""

    async def prune(self, order: PruneOrder, *, dry_run: bool = False) -> Pruned:
        """Move the minimum index; nothing below it is served by any process once this returns.

        Args:
            order: Up to where, and who says so.
            dry_run: Only say whether it could be moved.

        Raises:
            MalformedError: The index is not a positive multiple of a bundle's width.
            ConflictError: The policy keeps a record below it, it would not move forward, or no checkpoint covers it.
            HeldError: A legal hold covers a record below it.
            LedgerError: A store failed. Whether it was moved, the log says.
        """
        return await asyncio.shield(asyncio.create_task(self._prune(order, dry_run=dry_run)))

    async def _prune(self, order: PruneOrder, *, dry_run: bool) -> Pruned:
        found = await asyncio.to_thread(self._look, order.below)
        if dry_run:
            return Pruned(before=found.before, below=order.below)
        async with locked(self._keys, self._log_id):
            # The entries were read without the lock, for that may take long. INVARIANT: a hold that was acknowledged
            # before the record of a pruning is written is looked at: whoever places one takes this lock as well.
            if await asyncio.to_thread(self._state) != found:
                found = await asyncio.to_thread(self._look, order.below)
            event = RetentionEvent(
                action="pruned",
                actor=order.actor,
                actor_role=order.actor_role,
                policy=self.policy.digest,
                below=order.below,
            )
            (done,) = await self._sink.append([Draft(body=event)])
        return Pruned(before=found.before, below=order.below, recorded_leaf=done.index)

    def _state(self) -> _Look:
        return _Look(self.minimum.current(), self._keeper.holds().in_force)

    def _look(self, below: int) -> _Look:
        """Return what an order is judged by; refuse it if it cannot be met."""
        if below <= 0 or below % TILE_WIDTH:
            raise MalformedError(
                f"a minimum index is a positive multiple of {TILE_WIDTH}, the width of an entry bundle"
            )
        if not self.policy.log:
            raise ConflictError("the retention policy states no time for the log, so that everything in it is kept")
        found = self._state()
        if below <= found.before:
            raise ConflictError(f"the minimum index is {found.before} and moves forward alone")
        covered = self._published()
        if below > covered:
            raise ConflictError(f"the newest checkpoint covers {covered} leaves: what it does not cover is not pruned")
        self._walk(found, below)
        return found

    def _latest_below(self, end: int) -> int:
        """Return the latest time that any record below a leaf names; what was read once is remembered."""
        start, latest_ms = self._latest if self._latest[0] <= end else (0, 0)
        for entry in self._reader.entries(start, end):
            latest_ms = max(latest_ms, _time_of(entry))
        self._latest = end, latest_ms
        return latest_ms

    def _walk(self, found: _Look, below: int) -> None:
        # What was pruned before counts as well: behind it may stand nothing but records of a clock that lags.
        now_ms, latest_ms = self._clock.now_ms(), self._latest_below(found.before)
        for index, entry in enumerate(self._reader.entries(found.before, below), found.before):
            record = decode_entry(entry)
            latest_ms = max(latest_ms, record.time_ms)
            self._refuse_young(index, record_type(record), latest_ms, now_ms)
            holds = [hold.hold_id for hold in found.holds if hold.covers(record)]
            if holds:
                raise HeldError(f"leaf {index} is held: {', '.join(holds)}; a hold is released by two people", holds)

    def _refuse_young(self, index: int, kind: str, latest_ms: int, now_ms: int) -> None:
        days = self.policy.days("log", kind)
        if days is None:
            raise ConflictError(
                f"leaf {index} is a record of the type {kind}, which the policy keeps in the log for ever"
            )
        until_ms = latest_ms + days * DAY_MS
        if now_ms < until_ms:
            until = datetime.fromtimestamp(min(until_ms, _LAST_MS) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            raise ConflictError(f"leaf {index} is a record of the type {kind}, which the policy keeps until {until}")
