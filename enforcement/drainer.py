"""From the spool to the ledger: post in order, wait when it is away, never let one bad record hold up the rest.

`Drainer.step` does one round and says how long to wait before the next; the loop around it, and with it all waiting, is
in `enforcement.recorder`.

A round passes to the spool's thread once: what the ledger has taken leaves the queue, and what is next is read, in one
call. Whoever appended while nothing was posted has read it along, and hands it over (`Drainer.hand_over`).

The rules:

* records go in the order of the queue; a batch is atomic at the ledger;
* what the ledger cannot take *now* (unreachable, 429, 5xx, not let in, an answer that is not its own) is posted again
  after a pause that doubles up to a bound, or after the pause that the ledger asks for if that is longer;
* a batch that the ledger will *never* take is halved until the culprit stands alone; that one is set aside, kept, and
  declared lost;
* a conflict over a sequence number means that an older copy of the spool was put back: a new epoch begins, and what
  waits is numbered anew in it and posted again. A conflict of what was numbered anew is one over its id: set aside.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, ParamSpec, Protocol, TypeVar

import structlog

from enforcement.batches import Depth, QueuedRecord
from enforcement.config import RecordingSettings
from enforcement.ports import LedgerClient, Posted, Refused, Unavailable
from enforcement.spool import Spool
from ledger.bodies import Heartbeat

__all__ = ["Drainer", "InThread"]

_LOG: Final = structlog.get_logger(__name__)
_MAX_RETRY_AFTER_SECONDS: Final = 300.0
_P = ParamSpec("_P")
_T = TypeVar("_T")


class InThread(Protocol):
    """Runs a call in the one thread that the spool belongs to."""

    async def __call__(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Return what the function returns, raise what it raises."""
        ...


class Drainer:
    """Empties the spool.

    Attributes:
        reachable: Whether the ledger took records when it was last asked; true until the contrary is known.
        standing: What waits, as `Spool.standing` says it, if the last step has asked for it.
    """

    def __init__(
        self,
        spool: Spool,
        ledger: LedgerClient,
        settings: RecordingSettings,
        *,
        in_thread: InThread,
        taken: Callable[[Sequence[QueuedRecord]], None],
        refused: Callable[[Sequence[QueuedRecord]], None],
        announcement: Callable[[], Awaitable[Heartbeat]],
        looking: Callable[[], None] = lambda: None,
        keep: bool = False,
    ) -> None:
        """Take the parts.

        Args:
            spool: Where records wait.
            ledger: Where they go.
            settings: Bounds and pauses.
            in_thread: How to call the spool.
            taken: Is told which records the ledger has.
            refused: Is told which records the ledger will never have.
            announcement: Makes the first record of a new epoch.
            looking: Is called when the queue is about to be read: what is appended from then on may have been missed.
            keep: Keep what the ledger has acknowledged until it has proven it (`enforcement.receipts`).
        """
        self.reachable = True
        self.standing: tuple[Depth, int | None] | None = None
        self._spool = spool
        self._ledger = ledger
        self._settings = settings
        self._in_thread = in_thread
        self._taken = taken
        self._refused = refused
        self._announcement = announcement
        self._looking = looking
        self._keep = keep
        self._next: Sequence[QueuedRecord] = ()
        self._failures = 0
        self._batch_records = settings.batch_records

    def read_next(self) -> list[QueuedRecord]:
        """Return what is to be posted next; to be called in the spool's thread.

        Raises:
            StorageError: The spool failed.
        """
        return self._spool.pending(max_records=self._batch_records, max_bytes=self._settings.batch_bytes)

    def hand_over(self, records: Sequence[QueuedRecord]) -> None:
        """Take what is to be posted next, as `read_next` gave it while no step was under way.

        Only a step takes anything out of the queue, so that what stood first when it was read stands first still.
        """
        self._next = records

    async def step(self) -> float | None:
        """Post one batch.

        Returns:
            Seconds to wait before the next step, or None if nothing is left to do until a record is appended.

        Raises:
            StorageError: The spool failed.
        """
        self.standing = None
        records, self._next = self._next, ()
        if not records:
            self._looking()
            records = await self._in_thread(self.read_next)
        if not records:
            return None
        result = await self._ledger.post(records)
        if isinstance(result, Unavailable):
            return self._wait(result)
        self._failures = 0
        self.reachable = True
        if isinstance(result, Posted):
            self._taken(records)
            self._batch_records = min(self._settings.batch_records, 2 * self._batch_records)
            self._looking()
            self._next, self.standing = await self._in_thread(self._turn_over, records, result.leaf_indexes)
            return 0.0 if self._next else None
        if len(records) > 1:
            self._batch_records = len(records) // 2
        else:
            await self._settle(records[0], result)
        return 0.0

    def _turn_over(
        self, taken: Sequence[QueuedRecord], leaf_indexes: Sequence[int]
    ) -> tuple[Sequence[QueuedRecord], tuple[Depth, int | None]]:
        """Let go of what the ledger has, read what is next, and how much waits; in the spool's thread."""
        self._spool.acknowledge(taken, leaf_indexes if self._keep else None)
        return self.read_next(), self._spool.standing()

    def _wait(self, result: Unavailable) -> float:
        if self.reachable:
            _LOG.warning("ledger_unavailable", reason=result.reason)
        self.reachable = False
        minimum, maximum = self._settings.retry_min_seconds, self._settings.retry_max_seconds
        pause = min(maximum, minimum * 2.0 ** min(self._failures, 32))
        self._failures += 1
        asked = min(result.retry_after_seconds or 0.0, _MAX_RETRY_AFTER_SECONDS)
        return max(pause, asked)

    async def _settle(self, record: QueuedRecord, refusal: Refused) -> None:
        _LOG.error("record_refused", record_id=record.record_id, seq=record.seq, status=refusal.status)
        if refusal.conflict and not await self._in_thread(self._spool.moved_by_rotation, record):
            await self._in_thread(self._spool.rotate_epoch, await self._announcement())
            _LOG.warning("epoch_rotated", seq=record.seq)
            return
        await self._in_thread(self._spool.set_aside, record, "conflict" if refusal.conflict else "refused")
        self._refused([record])
