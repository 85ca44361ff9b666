"""The recorder: every record of a gateway goes through here, into the spool and on to the ledger.

What is elsewhere: numbering and durability (`enforcement.spool`), posting (`enforcement.drainer`), what is recorded
(`enforcement.pep`).

Records of concurrent calls share one transaction (group commit): whoever comes while a transaction is being synced is
part of the next one. The same holds for requests to the ledger. Where none is under way, what a strict call stored is
read for the next one in the same call of the spool's thread: each pass between threads is time that it waits.

Records that nobody waits for are *gathered* for `RecordingSettings.gather_seconds`: a request costs both sides more
than what is in it. They are durable meanwhile. Whoever demands the ledger's word ends the gathering at once.

When the process starts, each call of the run before that was permitted and has no outcome gets the outcome ``unknown``:
nobody knows whether the server did it; one that was still held is ``not_forwarded`` (`enforcement.left_open`).

What could not be stored but must be (the outcome of a call that was made, the block of a kill) is *owed*: it goes
before everything else into the next transaction, which a heartbeat brings about if nothing else does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, ParamSpec, TypeAlias, TypeVar

import structlog

from enforcement.batches import Batch, Depth, Item, QueuedRecord
from enforcement.config import RecordingSettings
from enforcement.drainer import Drainer
from enforcement.left_open import left_open_drafts
from enforcement.ports import LedgerClient
from enforcement.spool import Spool
from enforcement.vitals import Vitals, heartbeat
from ledger.bodies import Heartbeat
from ledger.errors import LedgerError, StorageError, TallystickError, UpstreamError
from ledger.ports import Draft
from ledger.records import Record
from ledger.tasks import end

__all__ = ["Recorder"]

_LOG: Final = structlog.get_logger(__name__)
_MS_PER_SECOND: Final = 1000
_BeatKind: TypeAlias = Literal["start", "periodic", "stop"]
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Owed:
    """What must be stored and could not be yet."""

    batch: Batch
    stored: Callable[[], None]


class Recorder:
    """Makes records durable: in the spool, and in the ledger where that is demanded. Owned by the event loop."""

    def __init__(
        self,
        spool: Spool,
        ledger: LedgerClient,
        settings: RecordingSettings,
        *,
        version: str,
        vitals: Callable[[], Vitals],
        keep: bool = False,
    ) -> None:
        """Take the parts; nothing runs before `start`.

        Args:
            spool: Where records wait.
            ledger: Where they go.
            settings: Bounds and pauses.
            version: The gateway's version, for heartbeats.
            vitals: Says how the gateway is, for heartbeats.
            keep: Keep what the ledger has acknowledged until it has proven it.
        """
        self._spool = spool
        self._settings = settings
        self._version = version
        self._vitals = vitals
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spool")
        self._wake = asyncio.Event()  # something was appended since the queue was read last
        self._idle = False  # nothing is posted before something is appended, or enough is gathered
        self._hurry = asyncio.Event()  # gathering is over
        self._handing = asyncio.Lock()  # held while somebody may read for the drainer: it must not read as well
        self._stopping = False
        self._gathered = 0  # how many records were stored since gathering began
        self._drainer = Drainer(
            spool,
            ledger,
            settings,
            in_thread=self.in_thread,
            taken=self._resolve,
            refused=self._reject,
            announcement=partial(self._beat_body, "start"),
            looking=self._wake.clear,
            keep=keep,
        )
        self._waiting: list[tuple[Batch, asyncio.Future[list[Record]]]] = []
        self._owed: list[_Owed] = []
        self._acknowledgements: dict[str, asyncio.Future[None]] = {}
        self._flush: asyncio.Task[None] | None = None
        self._beat_now = asyncio.Event()
        self._at_rest = asyncio.Event()  # the spool is empty, or the ledger is away
        self._beating: asyncio.Task[None] | None = None
        self._draining: asyncio.Task[None] | None = None
        self.depth = Depth(0, 0, 0)
        self._waiting_ms: int | None = None
        self._storing = True

    @property
    def reachable(self) -> bool:
        """Whether the ledger took records when it was last asked."""
        return self._drainer.reachable

    @property
    def storing(self) -> bool:
        """Whether the spool stored what it was given last; nothing can be permitted while it does not."""
        return self._storing

    @property
    def overdue(self) -> bool:
        """Whether a record has waited for the ledger for longer than one may, when it was last asked."""
        waiting_ms = self._waiting_ms
        return waiting_ms is not None and waiting_ms > self._settings.spool_seconds * _MS_PER_SECOND

    def new_record_id(self) -> str:
        """Return an id for a record."""
        return self._spool.new_record_id()

    async def start(self) -> None:
        """Announce this run, close what the last one left open, and begin to empty the spool.

        Raises:
            StorageError: The spool failed.
        """
        await self._announce()
        left_open = await self.in_thread(self._spool.open_calls)
        for call in left_open:
            await self.record(self.batch(*left_open_drafts(call)), strict=False)
        if left_open:
            _LOG.warning("calls_left_open", count=len(left_open))
        self._beating = asyncio.create_task(self._beat())
        self._draining = asyncio.create_task(self._drain())

    async def stop(self) -> None:
        """Close the stream in order: a last heartbeat, what can still be posted, then nothing more.

        Raises:
            StorageError: The spool failed.
        """
        try:
            if self._draining is not None:
                self._stopping = True
                self._hurry.set()
                await end(self._beating)  # nothing may follow the last heartbeat
                await self._heartbeat("stop")
                await self._empty()
        finally:
            await end(self._beating)
            await end(self._draining)
            self._beating = self._draining = None
            self._executor.shutdown(wait=True)

    def batch(self, *drafts: Draft) -> Batch:
        """Return a batch of drafts under new record ids."""
        return Batch(items=tuple(Item(self.new_record_id(), draft) for draft in drafts))

    async def record(self, batch: Batch, *, strict: bool) -> list[Record]:
        """Record a batch.

        Durability: when the call returns, the batch is synced in the spool, and with ``strict`` it is in the ledger.
        Cancelling the caller does not undo it.

        Raises:
            MalformedError: The ledger would not take it.
            ConflictError: A record id is taken, or an outcome closes no open call.
            OverloadedError: The spool is full.
            StorageError: The spool failed.
            UpstreamError: With ``strict``: the spool has it, but the ledger did not take it in time, or refused it.
        """
        loop = asyncio.get_running_loop()
        acknowledged = [loop.create_future() for _ in batch.items] if strict else []
        ids = [item.record_id for item in batch.items]
        self._acknowledgements.update(zip(ids, acknowledged, strict=False))
        try:
            records = await self._append(batch)
            if acknowledged:
                async with asyncio.timeout(self._settings.strict_seconds):
                    await asyncio.gather(*acknowledged)
        except TimeoutError as error:
            raise UpstreamError("the ledger did not acknowledge in time") from error
        finally:
            for record_id in ids:
                self._acknowledgements.pop(record_id, None)
        return records

    def owe(self, batch: Batch, stored: Callable[[], None] = lambda: None) -> None:
        """Store a batch with the next transaction that succeeds; what the spool refuses for good is dropped.

        Args:
            batch: Its decisions, if any, are bounded as ever.
            stored: Is called when it is durable.
        """
        self._owed.append(_Owed(batch, stored))

    async def _append(self, batch: Batch) -> list[Record]:
        future: asyncio.Future[list[Record]] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, future))
        if self._flush is None or self._flush.done():
            self._flush = asyncio.create_task(self._flush_all())
        return await future

    async def _flush_all(self) -> None:
        while self._waiting:
            taken, self._waiting = self._waiting, []
            owed, self._owed = self._owed, []
            batches = [*(debt.batch for debt in owed), *(batch for batch, _ in taken)]
            results: Sequence[list[Record] | Exception]
            try:
                results = await self._store(batches)
            except Exception as error:  # noqa: BLE001  # whatever it is, those who wait must hear of it and deny
                self._owed = [*owed, *self._owed]
                results = [_spool_error(error) for _ in taken]
                self._storing = False
            else:
                self._storing = True
                _settle(owed, results)
                results = results[len(owed) :]
            for (_, future), result in zip(taken, results, strict=True):
                if future.done():  # its caller was cancelled; the records stand
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    async def _store(self, batches: Sequence[Batch]) -> Sequence[list[Record] | LedgerError]:
        """Store batches, and have the drainer post at once if somebody waits for that and it has nothing to do."""
        async with self._handing:
            if self._idle and self._acknowledgements:
                results, following = await self.in_thread(self._append_and_read, batches)
                self._drainer.hand_over(following)
            else:
                results = await self.in_thread(self._spool.append, batches)
        self._gathered += sum(len(batch.items) for batch in batches)
        if self._acknowledgements or self._gathered >= self._settings.batch_records:
            self._hurry.set()
        self._at_rest.clear()
        self._wake.set()
        return results

    def _append_and_read(
        self, batches: Sequence[Batch]
    ) -> tuple[Sequence[list[Record] | LedgerError], Sequence[QueuedRecord]]:
        results = self._spool.append(batches)
        try:
            return results, self._drainer.read_next()
        except Exception:  # noqa: BLE001  # the batches are durable all the same; the drainer reads the queue itself, and says so
            return results, ()

    def _resolve(self, records: Sequence[QueuedRecord]) -> None:
        for future in self._waiters(records):
            future.set_result(None)

    def _reject(self, records: Sequence[QueuedRecord]) -> None:
        for future in self._waiters(records):
            future.set_exception(UpstreamError("the ledger refused the record"))

    def _waiters(self, records: Sequence[QueuedRecord]) -> list[asyncio.Future[None]]:
        waiters = (self._acknowledgements.get(record.record_id) for record in records)
        return [future for future in waiters if future is not None and not future.done()]

    async def _drain(self) -> None:
        while True:
            try:
                pause = await self._drainer.step()
                known = self._drainer.standing
                self.depth, self._waiting_ms = await self.in_thread(self._spool.standing) if known is None else known
            except Exception as error:  # noqa: BLE001  # the loop must outlive any fault; strict calls time out meanwhile
                _LOG.error("drainer_failed", error=type(error).__name__)
                pause = self._settings.retry_max_seconds
            # A record that was appended since the queue was read has set the event: the spool is not empty then.
            if (not self._wake.is_set()) if pause is None else pause > 0:
                self._at_rest.set()
            if pause is None:
                await self._idle_until(self._wake, None)
            elif pause > 0:
                await asyncio.sleep(pause)
            if not self._urgent:
                await self._gather()

    @property
    def _urgent(self) -> bool:
        """Whether somebody waits for the ledger, or there is enough for a request, or no time to gather."""
        enough = self.depth.records >= self._settings.batch_records
        return enough or self._stopping or bool(self._acknowledgements) or not self._settings.gather_seconds

    async def _gather(self) -> None:
        """Let what nobody waits for be joined by what comes next."""
        self._drainer.hand_over(())  # what was read ahead: it is read again, with what comes
        self._hurry.clear()
        self._gathered = 0
        await self._idle_until(self._hurry, self._settings.gather_seconds)

    async def _idle_until(self, event: asyncio.Event, seconds: float | None) -> None:
        """Wait, while whoever stores something strict may read the queue for the drainer."""
        self._idle = not event.is_set()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
            async with self._handing:  # whoever reads for the drainer just now hands it over first
                pass
        finally:
            self._idle = False

    async def _empty(self) -> None:
        """Wait a while for the spool to empty; what is left waits for the next start."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_seconds):
                await self._at_rest.wait()
        if self.depth.records:
            _LOG.warning("spool_not_empty", records=self.depth.records)

    def beat_soon(self) -> None:
        """Have the next heartbeat follow at once: what it says has changed."""
        self._beat_now.set()

    async def _beat(self) -> None:
        self._beat_now.clear()  # what was so at the start, the first heartbeat has said
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.heartbeat_seconds):
                    await self._beat_now.wait()
            self._beat_now.clear()
            try:
                await self._heartbeat("periodic")
            except TallystickError as error:
                _LOG.error("heartbeat_failed", error=type(error).__name__)

    async def _announce(self) -> None:
        if await self.in_thread(self._spool.altered):
            _LOG.error("spool_altered")
            await self.in_thread(self._spool.rotate_epoch, await self._beat_body("start"))
            return
        new, previous = await self.in_thread(self._spool.unannounced_epoch)
        await self._heartbeat("start", previous_epoch=previous if new else None)

    async def _heartbeat(self, kind: _BeatKind, *, previous_epoch: str | None = None) -> None:
        beat = await self._beat_body(kind, previous_epoch=previous_epoch)
        await self.record(self.batch(Draft(body=beat)), strict=False)

    async def _beat_body(self, kind: _BeatKind, *, previous_epoch: str | None = None) -> Heartbeat:
        depth, oldest_ms = await self.in_thread(self._spool.standing)
        return heartbeat(
            kind,
            self._vitals(),
            version=self._version,
            depth=depth,
            oldest_ms=oldest_ms,
            previous_epoch=previous_epoch,
        )

    async def in_thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call the spool, in the one thread that it belongs to; see `enforcement.drainer.InThread`."""
        call = asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))
        return await call


def _settle(owed: Sequence[_Owed], results: Sequence[list[Record] | Exception]) -> None:
    for debt, result in zip(owed, results, strict=False):
        if isinstance(result, Exception):
            # Most of all a conflict: the write had persisted, although it was called lost.
            _LOG.warning("owed_record_refused", error=type(result).__name__)
        else:
            debt.stored()


def _spool_error(error: Exception) -> LedgerError:
    if isinstance(error, LedgerError):
        return error
    failure = StorageError(f"the spool failed: {type(error).__name__}")
    failure.__cause__ = error
    return failure
