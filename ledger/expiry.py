"""Expiry: payloads past their time become unreadable for everybody, unless a legal hold keeps them.

Every payload is sealed under the key of its bucket, record type and day, besides its subjects' keys. A bucket expires
in the order of an erasure (`erasure`), and a crash after each step is mended in the same way:

1. What a hold covers is sealed anew, for the bucket of what is held. Until this is durable for all of it, nothing else
   happens; what is exchanged already is found exchanged the next time.
2. A `RetentionEvent` is recorded, with the id of the key that is to go.
3. The key is destroyed, and with it whatever a copy of the database holds of the bucket.
4. A `Tombstone` with the reason ``expiry`` is recorded.
5. The ciphertexts are emptied, in addition.

What was held expires in the same way with the first run after its hold has ended. A payload that was on its way into
the log while its bucket's key was destroyed is as unreadable, and gets a further tombstone with the next run.

Payloads of version 0.1 have no bucket's key. They are emptied with their bucket, if their day has one; a copy of the
database from before can be opened until their subject is erased.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from ledger.bodies import RetentionEvent, Tombstone
from ledger.clock import Clock
from ledger.erasure import ErasureKeeper, Located, bucket_of_event, locked
from ledger.errors import CommitmentError, ErasedError, NotFoundError
from ledger.holds import HoldBook
from ledger.ports import Draft, RecordSink
from ledger.records import Record, commitments
from ledger.retention import RetentionPolicy
from ledger.subjects import DAY_MS, Bucket
from ledger.vault import ErasableKeys, PayloadArchive, Vault

__all__ = ["Expirer", "Expiry"]

_ROLE = "service"
_NO_LEAF = -1
_ON_ITS_WAY_MS: Final = 2 * DAY_MS
"""Longer than a payload is on its way into the log once it was sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expiry:
    """What became of one bucket, or would become of it.

    Attributes:
        bucket: Type and day.
        payloads: How many payloads become unreadable.
        held: How many a hold keeps.
        tombstone_leaf: Leaf index of the tombstone, or None: it was only asked.
    """

    bucket: Bucket
    payloads: int
    held: int
    tombstone_leaf: int | None = None


class Expirer:
    """Lets the payloads of one log expire. One event loop's."""

    def __init__(
        self,
        log_id: str,
        *,
        policy: RetentionPolicy,
        keeper: ErasureKeeper,
        keys: ErasableKeys,
        archive: PayloadArchive,
        vault: Vault,
        sink: RecordSink,
        clock: Clock,
        actor: str,
    ) -> None:
        """Work on one log.

        Args:
            log_id: Which.
            policy: How long payloads are kept.
            keeper: Reads what the log says of holds and of what has expired.
            keys: Subject keys.
            archive: Encrypted payloads.
            vault: Seals anew what is held.
            sink: Records what is done.
            clock: For the age of payloads.
            actor: The service's own pseudonym.
        """
        self._log_id = log_id
        self.policy = policy
        self._keeper = keeper
        self._keys = keys
        self._archive = archive
        self._vault = vault
        self._sink = sink
        self._clock = clock
        self._actor = actor

    def due(self) -> list[Bucket]:
        """Return the buckets that are past their time, oldest first.

        Raises:
            StorageError: The key store failed.
        """
        now_ms = self._clock.now_ms()
        found = []
        for bucket in self._keys.buckets(self._log_id):
            try:
                made_ms = self._keys.made_ms(self._log_id, bucket)
            except ErasedError:
                continue
            if self.policy.expired(bucket, made_ms=made_ms, now_ms=now_ms):
                found.append(bucket)
        return sorted(found, key=lambda bucket: (bucket.day, bucket))

    async def expire(self, *, dry_run: bool = False) -> list[Expiry]:
        """Let everything expire that is past its time.

        Args:
            dry_run: Only say what would expire.

        Returns:
            What became of each bucket. One of which everything is held is not among them.

        Raises:
            LedgerError: A store failed; what was begun is finished by the next start, or the next run.
        """
        return await asyncio.shield(asyncio.create_task(self._expire(dry_run=dry_run)))

    async def _expire(self, *, dry_run: bool) -> list[Expiry]:
        done = []
        async with locked(self._keys, self._log_id):
            if not dry_run:
                await self._finish()
            book = await asyncio.to_thread(self._keeper.holds)
            for bucket in await asyncio.to_thread(self.due):
                expiry = await self._expire_bucket(bucket, book, dry_run=dry_run)
                if expiry is not None:
                    done.append(expiry)
        return done

    async def finish(self) -> int:
        """Record the tombstones that an interruption left out; returns how many.

        Raises:
            LedgerError: A store failed.
        """
        async with locked(self._keys, self._log_id):
            return await self._finish()

    async def _finish(self) -> int:
        return await self.finish_orders() + await self._sweep()

    async def finish_orders(self) -> int:
        """Finish what was ordered and interrupted, for whoever holds the key store's lock; see `finish`."""
        orders, buried = await asyncio.to_thread(self._orders)
        recorded = 0
        for bucket, item in orders.items():
            if isinstance(item.record.body, RetentionEvent) and buried.get(bucket.subject, _NO_LEAF) < item.index:
                await self._bury(bucket, item.record.body)
                recorded += 1
        return recorded

    def _orders(self) -> tuple[dict[Bucket, Located], dict[str, int]]:
        """Return the last order of each bucket, and the leaf of each subject's last tombstone."""
        last: dict[Bucket, Located] = {}
        for item in self._keeper.expiries():
            if isinstance(item.record.body, RetentionEvent) and (bucket := bucket_of_event(item.record.body)):
                last[bucket] = item
        return last, self._keeper.tombstones()

    async def _sweep(self) -> int:
        """Record a tombstone for payloads that were sequenced behind the one that they belong under."""
        orders, buried = await asyncio.to_thread(self._orders)
        since_ms = self._clock.now_ms() - _ON_ITS_WAY_MS
        recorded = 0
        for bucket, order in orders.items():
            if order.record.time_ms < since_ms:
                continue
            gone = await asyncio.to_thread(self._gone, bucket, order.index)
            if any(item.index > buried.get(bucket.subject, _NO_LEAF) for item in gone):
                await self._record_tombstone(bucket, gone)
                recorded += 1
            await asyncio.to_thread(self._archive.shred, self._log_id, [item.index for item in gone])
        return recorded

    def _sort(self, bucket: Bucket, book: HoldBook) -> tuple[list[Located], list[Located]]:
        """Return what expires of a bucket, and what a hold keeps."""
        going: list[Located] = []
        kept: list[Located] = []
        for item in self._keeper.in_bucket(bucket):
            if self._vault.is_held(item.record) == bucket.held:
                (kept if book.covering(item.record) else going).append(item)
        return going, kept

    async def _expire_bucket(self, bucket: Bucket, book: HoldBook, *, dry_run: bool) -> Expiry | None:
        going, kept = await asyncio.to_thread(self._sort, bucket, book)
        # Of what is held already, everything stays while anything does: it has one key.
        if bucket.held and kept:
            return None
        expiry = Expiry(bucket=bucket, payloads=_payloads(going), held=_payloads(kept))
        if dry_run:
            return expiry
        await asyncio.to_thread(self._keep, kept)
        key_id = await asyncio.to_thread(self._keys.get, self._log_id, bucket.name)
        event = RetentionEvent(
            action="expired",
            actor=self._actor,
            actor_role=_ROLE,
            policy=self.policy.digest,
            record_type=bucket.record_type,
            day=bucket.day.isoformat(),
            held=bucket.held,
            key_ids=(key_id.key_id,),
            payloads=expiry.payloads,
        )
        await self._sink.append([Draft(body=event)])
        leaf = await self._bury(bucket, event)
        return Expiry(bucket=bucket, payloads=expiry.payloads, held=expiry.held, tombstone_leaf=leaf)

    def _keep(self, kept: Sequence[Located]) -> None:
        """Seal what is held for the bucket of what is held; all of it is durable when this returns."""
        for item in kept:
            openings = {}
            for field in commitments(item.record):
                # Erased before the hold was placed, damaged or lost: nothing is left to keep of this one. What stands
                # beside it in the record is held all the same.
                with suppress(ErasedError, CommitmentError, NotFoundError):
                    openings[field] = self._vault.open(item.record, field)
            self._archive.replace(self._log_id, self._vault.seal_held(item.record, openings))

    async def _bury(self, bucket: Bucket, event: RetentionEvent) -> int:
        await asyncio.to_thread(self._keys.destroy, self._log_id, {bucket.name: frozenset(event.key_ids)})
        gone = await asyncio.to_thread(self._gone, bucket)
        leaf = await self._record_tombstone(bucket, gone)
        await asyncio.to_thread(self._archive.shred, self._log_id, [item.index for item in gone if item.index < leaf])
        return leaf

    async def _record_tombstone(self, bucket: Bucket, gone: Sequence[Located]) -> int:
        body = Tombstone(subject=bucket.subject, payloads=_payloads(gone), reason="expiry", actor=self._actor)
        (done,) = await self._sink.append([Draft(body=body)])
        return done.index

    def _gone(self, bucket: Bucket, above: int = _NO_LEAF) -> list[Located]:
        """Return what the bucket's key took along, and what never had one: payloads of version 0.1."""
        return [item for item in self._keeper.in_bucket(bucket, above=above) if self._is_gone(bucket, item.record)]

    def _is_gone(self, bucket: Bucket, record: Record) -> bool:
        # A record is emptied whole. One of which anything is held stays, whatever else of it is damaged.
        if self._vault.is_held(record) != bucket.held:
            return False
        return bucket.subject in self._keeper.missing(record) or (not bucket.held and self._vault.is_first(record))


def _payloads(found: Sequence[Located]) -> int:
    return sum(len(commitments(item.record)) for item in found)
