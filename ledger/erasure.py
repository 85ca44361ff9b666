"""Erasing a subject: the order of the steps, and what is done again after a restart or a restore.

The steps of one erasure, and what a crash after each leaves behind:

1. No hold may cover the subject. Nothing has happened yet.
2. An `ErasureEvent` is recorded, with the ids of the keys that are to go. From here on the erasure will be finished:
   `ErasureKeeper.finish` does so before the service answers anybody.
3. The keys are destroyed: the payloads cannot be read any more, from whatever copy of the database.
4. A `Tombstone` is recorded. The audit accepts payloads without a key from here on.
5. The ciphertexts are emptied, in addition.

Steps 1 to 5 run under the key store's lock, which whoever places a hold takes as well: a hold that was acknowledged
stops every erasure that comes after it.

A payload that was sealed under an old key while that was destroyed may be sequenced behind the tombstone. It is as
unreadable as the others; `sweep` records a further tombstone for it.

Keys that come back from a backup are destroyed again by `apply`, from the log's own records. That a destroyed key is
named by its id keeps the key safe that the subject got afterwards.

Invariant 6 of architecture.md; docs/adr/0016.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import msgspec

from ledger.bodies import ErasureEvent, RetentionEvent, Tombstone
from ledger.catalog import Catalog
from ledger.commitments import SALT_BYTES
from ledger.errors import (
    CommitmentError,
    ErasedError,
    HeldError,
    MalformedError,
    NotFoundError,
    VerificationError,
)
from ledger.holds import Hold, HoldBook
from ledger.ports import Draft, RecordSink, commit
from ledger.reader import EntryReader
from ledger.records import Record, commitments
from ledger.subjects import Bucket, first_subject_of, subjects_of
from ledger.vault import ErasableKeys, PayloadArchive, Vault

__all__ = ["Erased", "ErasureKeeper", "ErasureOrder", "Located", "bucket_of_event", "locked"]


@dataclass(frozen=True, slots=True)
class Located:
    """A record and where it stands."""

    index: int
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureOrder:
    """Who is to be erased, by whose order, and why.

    Attributes:
        subjects: The pseudonyms of one subject, of which each key makes another.
        actor: Pseudonym of whoever orders it.
        actor_role: Under which role.
        basis: The request or rule, in words that do not name the subject.
    """

    subjects: tuple[str, ...]
    actor: str
    actor_role: str
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What an erasure did to one pseudonym of its subject.

    Attributes:
        subject: Pseudonym.
        ordered_leaf: Leaf index of the record that ordered it.
        tombstone_leaf: Leaf index of its tombstone.
        payloads: How many payloads became unreadable.
        key_ids: Ids of the keys that were destroyed.
        records: The records whose payloads they were.
    """

    subject: str
    ordered_leaf: int
    tombstone_leaf: int
    payloads: int
    key_ids: tuple[str, ...]
    records: tuple[Located, ...]


@asynccontextmanager
async def locked(keys: ErasableKeys, log_id: str) -> AsyncIterator[None]:
    """Hold the key store's lock without stopping the event loop.

    Raises:
        StorageError: The key store failed.
    """
    held = ExitStack()
    call = asyncio.get_running_loop().run_in_executor
    # INVARIANT: who waits has a thread of his own. Of the event loop's, those who wait could take every one; whoever
    # holds the lock would then never come to his work, and nobody to anything.
    thread = ThreadPoolExecutor(1, thread_name_prefix="subject-keys-lock")
    try:
        await call(thread, held.enter_context, keys.exclusive(log_id))
    except BaseException:
        # Whoever gave up lets go of what he is given later: one thread does things in their order.
        thread.submit(held.close)
        thread.shutdown(wait=False)
        raise
    try:
        yield
    finally:
        leaving = call(thread, held.close)
        thread.shutdown(wait=False)
        await leaving


def bucket_of_event(event: RetentionEvent) -> Bucket | None:
    """Return the bucket whose expiry a record says, or None if it says no such thing."""
    if event.action != "expired" or event.record_type is None or event.day is None:
        return None
    with suppress(MalformedError):
        return Bucket.parse(f"{event.record_type}.{event.day}{'.held' if event.held else ''}")
    return None


class ErasureKeeper:
    """Erases subjects of one log, and sees to it that who was erased stays so. One event loop's."""

    def __init__(
        self,
        log_id: str,
        *,
        keys: ErasableKeys,
        archive: PayloadArchive,
        vault: Vault,
        catalog: Catalog,
        reader: EntryReader,
        sink: RecordSink,
        check: Callable[[int, Record], None],
    ) -> None:
        """Work on one log.

        Args:
            log_id: Which.
            keys: Its subject keys.
            archive: Its encrypted payloads.
            vault: Opens them.
            catalog: Finds records.
            reader: Reads them.
            sink: Records what is done.
            check: Checks that a record of the log is signed by who may write it; raises if not.
        """
        self._log_id = log_id
        self._keys = keys
        self._archive = archive
        self._vault = vault
        self._catalog = catalog
        self._reader = reader
        self._sink = sink
        self._check = check
        self._known: dict[str, list[Located]] = {}
        self._reading = threading.Lock()

    # --- what the log says -------------------------------------------------------------------------------------------

    def _of_type(self, record_type: str) -> list[Located]:
        """Return the records of a type, in order; each is read once, for none ever changes, and checked before."""
        with self._reading:
            known = self._known.setdefault(record_type, [])
            above = known[-1].index if known else -1
            for index in self._catalog.of_type(self._log_id, record_type, above=above):
                found = self._located(index)
                # INVARIANT: no key is destroyed, and no hold lifted, on the word of a row that nobody signed.
                self._check(index, found.record)
                known.append(found)
            return list(known)

    def holds(self) -> HoldBook:
        """Return the holds in force, from the log's own records.

        Raises:
            LedgerError: A store failed, or holds a record that is not signed by who may write it.
        """
        return HoldBook((found.index, found.record) for found in self._of_type("hold"))

    def orders(self) -> list[Located]:
        """Return the records that ordered erasures, in order."""
        return self._of_type("erasure")

    def expiries(self) -> list[Located]:
        """Return the records that ordered buckets to expire, in order."""
        found = self._of_type("retention")
        return [
            item
            for item in found
            if isinstance(item.record.body, RetentionEvent) and bucket_of_event(item.record.body) is not None
        ]

    def policy_digest(self) -> str | None:
        """Return the digest of the retention policy that was recorded last, or None."""
        found = (item.record.body for item in self._of_type("retention"))
        digests = [body.policy for body in found if isinstance(body, RetentionEvent) and body.action == "policy"]
        return digests[-1] if digests else None

    def tombstones(self) -> dict[str, int]:
        """Return the leaf index of each subject's last tombstone."""
        return {
            item.record.body.subject: item.index
            for item in self._of_type("tombstone")
            if isinstance(item.record.body, Tombstone)
        }

    def about(self, subject: str, *, emptied: bool = False) -> list[Located]:
        """Return the records that have payloads about a subject which were not emptied, in order; or those as well."""
        found = map(self._located, self._archive.of_subject(self._log_id, subject, emptied=emptied))
        return [item for item in found if subject in {*subjects_of(item.record), first_subject_of(item.record)}]

    def in_bucket(self, bucket: Bucket, *, above: int = -1) -> list[Located]:
        """Return the records of a type and day behind a leaf that have payloads which were not emptied, in order."""
        found = self._archive.of_bucket(self._log_id, bucket, above=above)
        return [self._located(index) for index in found]

    # --- before the service answers ----------------------------------------------------------------------------------

    def apply(self) -> int:
        """Destroy every key again that the log says was destroyed; returns for how many subjects. Hold the lock.

        Raises:
            LedgerError: A store failed, or holds a record that is not signed by who may write it.
        """
        return self.apply_records([item.record for item in (*self.orders(), *self.expiries())])

    def apply_records(self, records: Iterable[Record]) -> int:
        """Destroy the keys that verified records say were destroyed; see `apply`."""
        doomed: dict[str, frozenset[str]] = {}
        for record in records:
            body = record.body
            if isinstance(body, ErasureEvent):
                name = body.subject
            elif isinstance(body, RetentionEvent) and (bucket := bucket_of_event(body)) is not None:
                name = bucket.name
            else:
                continue
            doomed[name] = doomed.get(name, frozenset()) | set(body.key_ids)
        if doomed:
            self._keys.destroy(self._log_id, doomed)
        return len(doomed)

    async def finish(self) -> int:
        """Record the tombstones that an interruption left out, and sweep; returns how many were recorded.

        Raises:
            LedgerError: A store failed.
        """
        async with locked(self._keys, self._log_id):
            return await self.finish_orders() + await self._sweep()

    async def finish_orders(self) -> int:
        """Finish what was ordered and interrupted, for whoever holds the key store's lock; see `finish`."""
        orders, buried = await asyncio.to_thread(lambda: (self.orders(), self.tombstones()))
        recorded = 0
        for item in orders:
            event = item.record.body
            if isinstance(event, ErasureEvent) and buried.get(event.subject, -1) < item.index:
                await self._bury(item)
                recorded += 1
        return recorded

    async def sweep(self) -> int:
        """Record a tombstone for payloads that were sequenced behind the one that they belong under.

        Returns:
            How many tombstones were recorded. What has its tombstone is emptied.

        Raises:
            LedgerError: A store failed.
        """
        async with locked(self._keys, self._log_id):
            return await self._sweep()

    async def _sweep(self) -> int:
        orders, buried = await asyncio.to_thread(lambda: (self.orders(), self.tombstones()))
        recorded = 0
        last = {item.record.body.subject: item for item in orders if isinstance(item.record.body, ErasureEvent)}
        for subject, order in last.items():
            gone = await asyncio.to_thread(self._gone, subject)
            late = [item for item in gone if item.index > buried.get(subject, -1)]
            if late and isinstance(order.record.body, ErasureEvent):
                event = order.record.body
                body = Tombstone(subject=subject, payloads=_payloads(late), reason="erasure", actor=event.actor)
                await self._sink.append([Draft(body=body)])
                recorded += 1
            await asyncio.to_thread(self._archive.shred, self._log_id, [item.index for item in gone])
        return recorded

    def _gone(self, subject: str) -> list[Located]:
        return [item for item in self.about(subject) if subject in self.missing(item.record)]

    def missing(self, record: Record) -> frozenset[str]:
        """Return whose keys are gone of those that a record's payloads were sealed under."""
        gone: set[str] = set()
        for field in commitments(record):
            try:
                self._vault.open(record, field)
            except ErasedError as error:
                gone |= error.subjects
            except (NotFoundError, VerificationError):
                # What is damaged or lost is the audit's to tell.
                continue
        return frozenset(gone)

    # --- one erasure -------------------------------------------------------------------------------------------------

    async def erase(self, order: ErasureOrder) -> list[Erased]:
        """Erase a subject; the payloads about it are unreadable for ever when this returns.

        What was begun is finished, though the caller goes away.

        An erasure that is done already is told again: whoever ordered one that was interrupted, and finished in his
        absence, learns what it did.

        Returns:
            What became of each of its pseudonyms about which anything is kept.

        Raises:
            HeldError: A hold covers the subject, or a payload about it.
            NotFoundError: Nothing is kept of that subject.
            LedgerError: A store failed. If the order was recorded, the next start of the service finishes it.
        """
        return await asyncio.shield(asyncio.create_task(self._erase(order)))

    async def _erase(self, order: ErasureOrder) -> list[Erased]:
        async with locked(self._keys, self._log_id):
            found = await asyncio.to_thread(self._kept, order.subjects)
            if not found:
                return await asyncio.to_thread(self._done_before, order.subjects)
            # INVARIANT: all of it is ordered before any key goes, so that an interruption leaves no pseudonym out.
            drafts = [_order(order, subject, key_ids) for subject, key_ids, _ in found]
            done = await self._sink.append(drafts)
            erased = []
            for acknowledgement, (_, _, about) in zip(done, found, strict=True):
                ordered = await asyncio.to_thread(self._located, acknowledgement.index)
                erased.append(await self._bury(ordered, about))
            return erased

    def _kept(self, subjects: Sequence[str]) -> list[tuple[str, tuple[str, ...], list[Located]]]:
        """Return what is kept about each pseudonym of a subject: the ids of its keys, and records; refuse if held."""
        book = self.holds()
        found = [(subject, self._key_ids(subject), self.about(subject)) for subject in subjects]
        for subject, _, about in found:
            _refuse_held(book, subject, about)
        return [(subject, key_ids, about) for subject, key_ids, about in found if key_ids or about]

    def _done_before(self, subjects: Sequence[str]) -> list[Erased]:
        """Return what the last erasure did to each pseudonym of a subject about which nothing is kept any more."""
        buried = self.tombstones()
        last = {item.record.body.subject: item for item in self.orders() if isinstance(item.record.body, ErasureEvent)}
        done = [
            Erased(
                subject=subject,
                ordered_leaf=last[subject].index,
                tombstone_leaf=buried[subject],
                payloads=0,
                key_ids=(),
                records=tuple(self.about(subject, emptied=True)),
            )
            for subject in subjects
            if subject in last and subject in buried
        ]
        if not done:
            raise NotFoundError("nothing is kept about that subject")
        return done

    def _located(self, index: int) -> Located:
        return Located(index, self._reader.record(index))

    def _key_ids(self, subject: str) -> tuple[str, ...]:
        try:
            return (self._keys.get(self._log_id, subject).key_id,)
        except ErasedError:
            return ()

    async def _bury(self, ordered: Located, about: Sequence[Located] | None = None) -> Erased:
        """Do the steps that follow the order."""
        event = ordered.record.body
        assert isinstance(event, ErasureEvent)
        if about is None:
            about = await asyncio.to_thread(self.about, event.subject)
        await asyncio.to_thread(self._keys.destroy, self._log_id, {event.subject: frozenset(event.key_ids)})
        gone = await asyncio.to_thread(self._gone, event.subject)
        draft = await asyncio.to_thread(self._tombstone, ordered.record, event, _payloads(gone))
        (done,) = await self._sink.append([draft])
        buried = [item.index for item in gone if item.index < done.index]
        await asyncio.to_thread(self._archive.shred, self._log_id, buried)
        return Erased(
            subject=event.subject,
            ordered_leaf=ordered.index,
            tombstone_leaf=done.index,
            payloads=_payloads(gone),
            key_ids=event.key_ids,
            records=tuple(about),
        )

    def _tombstone(self, ordered: Record, event: ErasureEvent, payloads: int) -> Draft:
        """Return the tombstone of an erasure, with the order's own words if they can still be read."""
        body = Tombstone(subject=event.subject, payloads=payloads, reason="erasure", actor=event.actor)
        try:
            said = self._vault.open(ordered, "basis").payload
        except (ErasedError, NotFoundError, CommitmentError):
            return Draft(body=body)
        commitment, opening = commit("basis", secrets.token_bytes(SALT_BYTES), said)
        return Draft(body=msgspec.structs.replace(body, basis=commitment), openings=(opening,))


def _order(order: ErasureOrder, subject: str, key_ids: tuple[str, ...]) -> Draft:
    commitment, opening = commit("basis", secrets.token_bytes(SALT_BYTES), order.basis.encode())
    event = ErasureEvent(
        subject=subject, actor=order.actor, actor_role=order.actor_role, basis=commitment, key_ids=key_ids
    )
    return Draft(body=event, openings=(opening,))


def _payloads(found: Sequence[Located]) -> int:
    return sum(len(commitments(item.record)) for item in found)


def _refuse_held(book: HoldBook, subject: str, about: Sequence[Located]) -> None:
    covering: dict[str, Hold] = {hold.hold_id: hold for hold in book.of_subject(subject)}
    for item in about:
        covering.update((hold.hold_id, hold) for hold in book.covering(item.record))
    if covering:
        raise HeldError(f"held: {', '.join(covering)}; a hold is released by two people", covering)
