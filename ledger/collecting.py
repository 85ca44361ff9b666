"""Collecting partial tiles and bundles: once the full one stands under a published checkpoint, its partials go.

Every publication leaves partials behind, several for each tile that it fills slowly. tlog-tiles lets a log delete them
once the full tile exists; readers fall back to it (`ledger.prover`, `ledger.auditor`, Tessera's client), and the
service answers for a collected partial with the beginning of its full tile.

The collector remembers in memory how far it has come, and begins at the left after a start: what a killed process left
behind is found again. Each turn does a bounded amount of work. Of several processes one collects, under a lease that
saves work and protects nothing: everything is idempotent. A collection that fails stops nothing but itself, says so,
and lets another process try.

Source: C2SP tlog-tiles, "Partial Tiles".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from ledger.errors import LedgerError, NotFoundError, VerificationError
from ledger.ports import Lease, PartialStore, TileStore
from ledger.publishing_turns import SoleLease
from ledger.tasks import Repeating
from ledger.tenure import Tenure
from ledger.tiles import BUNDLE_LEVEL, TILE_HEIGHT, TileCoordinate

__all__ = [
    "COLLECTOR_LEASE",
    "COLLECTOR_LEASE_SECONDS",
    "CollectableStore",
    "CollectingLoop",
    "CollectingTurn",
    "PartialCollector",
]

COLLECTOR_LEASE: Final = "collector"
COLLECTOR_LEASE_SECONDS: Final = 60.0

_GROUP: Final = 1000
_WORK_PER_TURN: Final = 64
_FEW: Final = 4
"""So many tiles are asked for one by one; for more, their directory is listed."""
_PAUSE_SECONDS: Final = 0.05
_RETRY_SECONDS: Final = 30.0


class CollectableStore(TileStore, PartialStore, Protocol):
    """A tile store whose partials can be collected."""


@dataclass(frozen=True, slots=True)
class CollectingTurn:
    """What a turn did.

    Attributes:
        collected: Tiles and bundles whose partials were discarded.
        done: Nothing is left to look at under that size.
    """

    collected: int
    done: bool


class PartialCollector:
    """Collects one log's partials. One task owns it; it is not safe for concurrent use."""

    def __init__(self, log_id: str, tiles: CollectableStore, *, work_per_turn: int = _WORK_PER_TURN) -> None:
        """Collect in a store.

        Args:
            log_id: Which log.
            tiles: Where.
            work_per_turn: Tiles whose partials are discarded, and directories listed, in a turn at most.
        """
        self._log_id = log_id
        self._tiles = tiles
        self._work_per_turn = work_per_turn
        self._next: dict[int, int] = {}

    def turn(self, size: int) -> CollectingTurn:
        """Do a bounded part of what is to do under a published checkpoint.

        Args:
            size: Its tree size. Full tiles and bundles below it are durable.

        Raises:
            NotFoundError: A full tile is missing: the log is damaged, and its partials stay.
            VerificationError: A full tile does not begin as its partial: the same.
            StorageError: The store failed; the next turn goes on where this one was.
        """
        left = self._work_per_turn
        collected = 0
        for level, full in _levels(size):
            while self._next.get(level, 0) < full:
                if left <= 0:
                    return CollectingTurn(collected, done=False)
                found, work = self._advance(level, full, left)
                collected += found
                left -= work
        if left < self._work_per_turn:
            self._tiles.discard_superseded(self._log_id)
        return CollectingTurn(collected, done=True)

    def _advance(self, level: int, full: int, left: int) -> tuple[int, int]:
        """Go on within one directory of a level; return tiles collected and work done."""
        start = self._next.get(level, 0)
        end = min(full, (start // _GROUP + 1) * _GROUP)
        work = collected = 0
        for number in self._candidates(level, start, end):
            if work >= left:
                return collected, work
            collected += self._discard(TileCoordinate(level, number))
            work += 1
            self._next[level] = number + 1
        self._next[level] = end
        return collected, work + 1

    def _candidates(self, level: int, start: int, end: int) -> Iterable[int]:
        if end - start <= _FEW:
            return range(start, end)
        listed = self._tiles.partial_tiles(self._log_id, level, start // _GROUP)
        return [number for number in listed if start <= number < end]

    def _discard(self, full: TileCoordinate) -> bool:
        widths = self._tiles.partial_widths(self._log_id, full.level, full.number)
        if not widths:
            return False
        widest = TileCoordinate(full.level, full.number, widths[-1])
        try:
            partial = self._tiles.get(self._log_id, widest.path)
        except NotFoundError:
            return False  # Another process collects as well.
        # INVARIANT: no partial goes before its full tile stands there and begins with the same bytes.
        if not self._tiles.get(self._log_id, full.path).startswith(partial):
            raise VerificationError(f"{full.path} does not begin as its partial of width {widest.width}")
        self._tiles.discard_partials(self._log_id, full.level, full.number)
        return True


def _levels(size: int) -> list[tuple[int, int]]:
    """Return each level of a tree with the number of its full tiles; a level without any is left out."""
    levels = [(BUNDLE_LEVEL, size >> TILE_HEIGHT)]
    level = 0
    while full := size >> (TILE_HEIGHT * (level + 1)):
        levels.append((level, full))
        level += 1
    return levels


class CollectingLoop:
    """Collects in the background, as the log grows. Methods belong to one event loop.

    Attributes:
        work: What is repeated.
    """

    def __init__(
        self,
        collector: PartialCollector,
        published_size: Callable[[], int],
        *,
        interval_seconds: float,
        on_collected: Callable[[int], None] = lambda _collected: None,
        lease: Lease | None = None,
    ) -> None:
        """Prepare; `start` begins the work.

        Args:
            collector: Does it.
            published_size: Returns the tree size of the present checkpoint.
            interval_seconds: How often to look.
            on_collected: Told how many tiles each turn collected.
            lease: Of `COLLECTOR_LEASE_SECONDS`, shared with the other processes that collect; None if there is none.
        """
        self._tenure = Tenure(lease or SoleLease(), seconds=COLLECTOR_LEASE_SECONDS)
        self._collector = collector
        self._published_size = published_size
        self._interval = interval_seconds
        self._on_collected = on_collected
        self.work = Repeating("collecting", self._turn, retry_seconds=max(_RETRY_SECONDS, interval_seconds))

    @property
    def failure(self) -> str | None:
        """Why the last turn failed and will be repeated, or None."""
        failure = self.work.failure
        if failure is None:
            return None
        # What nobody expected may quote anything, and everybody may ask.
        return str(failure) if isinstance(failure, LedgerError) else "an unexpected error"

    def start(self) -> None:
        """Begin."""
        self.work.start()

    async def stop(self) -> None:
        """Stop; what is left is found by another process, or after the next start."""
        await self.work.stop()
        await asyncio.to_thread(self._tenure.give_up)

    async def _turn(self) -> float:
        """Do one turn and return the seconds until the next."""
        turn = await asyncio.to_thread(self._collect, self._published_size())
        self._on_collected(turn.collected)
        return self._interval if turn.done else _PAUSE_SECONDS

    def _collect(self, size: int) -> CollectingTurn:
        if not self._tenure.held():
            return CollectingTurn(collected=0, done=True)
        try:
            return self._collector.turn(size)
        except Exception:
            self._tenure.give_up()
            raise
