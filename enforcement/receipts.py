"""Letting go of records: not when the ledger says that it has them, but once it has proven it.

An acknowledgement is the ledger's word. What it acknowledged is therefore kept here until a checkpoint that the trust
policy accepts includes it: under the very index that was acknowledged, in a history that goes on from the last one that
was seen here. The tiles may come from anybody; only what leads to the signed root counts.

INVARIANT: a record leaves this machine's disk only after its inclusion was verified. A proof that fails is no reason to
post the record again (the ledger would answer as before); it is kept, said aloud, and as long as it stands, nothing is
permitted on the ledger's word.

Source: RFC 6962 sections 2.1.1 and 2.1.2; C2SP tlog-tiles.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast, runtime_checkable

import structlog

from enforcement.batches import Kept
from enforcement.drainer import InThread
from enforcement.ports import Unavailable
from enforcement.spool import Spool
from ledger.errors import (
    MalformedError,
    NotFoundError,
    ProofError,
    RootMismatchError,
    UpstreamError,
    VerificationError,
)
from ledger.merkle import hash_leaf
from ledger.ports import TileStore
from ledger.proofs import TreeHead, verify_consistency, verify_inclusion
from ledger.prover import Prover
from ledger.tasks import Repeating
from ledger.trust import TrustPolicy

__all__ = ["LogSource", "Receipts"]

_LOG: Final = structlog.get_logger(__name__)
_AT_ONCE: Final = 1000
"""Records that are proven in one turn."""


@runtime_checkable
class LogSource(Protocol):
    """Hands out a log's own files."""

    async def log_file(self, log_id: str, path: str) -> bytes | Unavailable | None:
        """Return a checkpoint or tile, None if there is none at that path. Nothing is raised but cancellation."""
        ...


@dataclass(slots=True)
class _Files:
    """A `TileStore` for a thread, over a source that belongs to an event loop."""

    source: LogSource
    loop: asyncio.AbstractEventLoop | None = None

    def get(self, log_id: str, path: str) -> bytes:
        assert self.loop is not None  # it is set before a thread is begun
        answer = asyncio.run_coroutine_threadsafe(self.source.log_file(log_id, path), self.loop).result()
        if isinstance(answer, Unavailable):
            raise UpstreamError(answer.reason)
        if answer is None:
            raise NotFoundError(f"the log has no {path}")
        return answer


def _included(prover: Prover, one: Kept, head: TreeHead) -> bool:
    path = prover.inclusion(one.leaf_index, head.size)
    try:
        verify_inclusion(hash_leaf(one.entry), one.leaf_index, head, path)
    except RootMismatchError:
        return False
    return True


class Receipts:
    """Proves what the ledger has acknowledged. Owned by the event loop.

    Attributes:
        disputed: Why the ledger's proofs contradict what it said before, or None. While it stands, its word counts for
            nothing.
        waiting: How many records waited to be proven when it was last looked, up to a thousand.
        unproven_bytes: How much room all of them took then.
    """

    def __init__(
        self,
        spool: Spool,
        source: LogSource,
        trust: TrustPolicy,
        log_id: str,
        *,
        in_thread: InThread,
        interval_seconds: float,
    ) -> None:
        """Take the parts; nothing runs before `start`.

        Args:
            spool: Keeps what was acknowledged.
            source: The log's files.
            trust: Says who must have signed a checkpoint; names one log.
            log_id: Which log.
            in_thread: How to call the spool.
            interval_seconds: How often it is looked, while something waits to be proven.
        """
        self._spool = spool
        self._trust = trust
        self._log_id = log_id
        self._in_thread = in_thread
        self._interval = interval_seconds
        self._files = _Files(source)
        self._prover: Prover | None = None
        self.disputed: str | None = None
        self.waiting = 0
        self.unproven_bytes = 0
        self._work = Repeating(
            "receipts",
            self._turn,
            first_seconds=interval_seconds,
            retry_seconds=interval_seconds,
            on_failure=lambda error: _LOG.warning("receipts_not_checked", error=type(error).__name__),
        )

    def start(self) -> None:
        """Begin to look."""
        self._work.start()

    async def stop(self) -> None:
        """Look no more; what is not proven yet is kept for the next start."""
        await self._work.stop()

    async def look(self) -> int:
        """Prove what can be proven now, and return how many records were let go.

        Raises:
            LedgerError: The log cannot be read or its checkpoint not be verified now; or its proofs fail, and then
                `disputed` says so.
        """
        kept = await self._in_thread(self._spool.kept, at_most=_AT_ONCE)
        self.waiting = len(kept)
        self.unproven_bytes = await self._in_thread(self._spool.unproven_bytes)
        if not kept:
            return 0
        known = await self._in_thread(self._spool.proven_head)
        try:
            self._files.loop = asyncio.get_running_loop()
            head, proven, wrong = await asyncio.to_thread(self._prove, kept, known)
        except (RootMismatchError, ProofError):
            self._dispute("history_differs")
            raise
        await self._in_thread(self._spool.let_go, proven, head)
        self.waiting -= len(proven)
        self.unproven_bytes = await self._in_thread(self._spool.unproven_bytes)
        if wrong:
            self._dispute("record_not_included")
            raise VerificationError(f"the log does not include {wrong} records that it acknowledged")
        if proven:
            self.disputed = None
        return len(proven)

    def _dispute(self, reason: str) -> None:
        self._prover = None  # what it remembers of damaged tiles must not outlive them
        if self.disputed is None:
            _LOG.error("ledger_disputed", reason=reason)
        self.disputed = reason

    def _prove(self, kept: Sequence[Kept], known: TreeHead | None) -> tuple[TreeHead, list[Kept], int]:
        if self._prover is None:
            # Of a store, a prover only reads.
            self._prover = Prover(cast("TileStore", self._files), self._log_id)
        prover = self._prover
        try:
            head = self._trust.verify(prover.checkpoint()).head
            self._continues(prover, known, head)
            covered = [one for one in kept if one.leaf_index < head.size]
            proven = [one for one in covered if _included(prover, one, head)]
        except (MalformedError, NotFoundError) as error:
            # A file that is damaged or missing proves nothing, and says nothing against the log either.
            self._prover = None
            raise VerificationError("the log's files cannot be used") from error
        return head, proven, len(covered) - len(proven)

    @staticmethod
    def _continues(prover: Prover, known: TreeHead | None, head: TreeHead) -> None:
        if known is None or known.size == 0:
            return
        if head.size < known.size:
            # An exposed checkpoint only moves forward; a cache may still have the one before.
            raise VerificationError("the checkpoint is older than one that was seen")
        verify_consistency(known, head, prover.consistency(known.size, head.size))

    async def _turn(self) -> float:
        return 0.0 if await self.look() == _AT_ONCE else self._interval
