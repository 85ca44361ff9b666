"""Stores and anchors that break at a write of the test's choice. Beneath them are the real ones.

A write may be *lost* (it fails before it persisted), *kept* (it persisted and fails all the same), or the process may
*die* before or after it. Every write is noted in order, so that tests can also ask what was done at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from ledger.errors import AnchorError, ConflictError, LedgerError, StorageError
from ledger.ports import Acknowledgement, Anchor, AnchorReceipt, LogStore, PendingEntry, TileStore
from tests.support.processes import die


class Write(StrEnum):
    """Every write of the ledger that a fault can strike, in the order of one record's way."""

    SEQUENCE = "sequence"
    PUT_BUNDLE = "put bundle"
    PUT_TILE = "put tile"
    SWAP = "swap"
    EXPOSE = "expose"
    RELEASE = "release"
    ANCHOR = "anchor"


class Effect(StrEnum):
    """What becomes of a write."""

    LOST = "lost"
    KEPT = "kept but reported lost"
    DIES_BEFORE = "killed before it"
    DIES_AFTER = "killed after it"


def _fail(write: Write) -> LedgerError:
    return AnchorError("injected") if write is Write.ANCHOR else StorageError("injected")


@dataclass
class Faults:
    """Notes every write and breaks those that it was armed for.

    Attributes:
        writes: Every write that was begun, in order.
        on_write: Called before each write, for tests that let something else happen there.
    """

    writes: list[Write] = field(default_factory=list)
    on_write: Callable[[Write], None] | None = None
    _armed: dict[Write, list[Effect]] = field(default_factory=dict)

    def arm(self, write: Write, effect: Effect, times: int = 1) -> None:
        """Let the next ``times`` writes of a kind end so."""
        self._armed[write] = [effect] * times

    @contextmanager
    def write(self, write: Write) -> Iterator[None]:
        """Surround a real write."""
        self.writes.append(write)
        if self.on_write is not None:
            self.on_write(write)
        due = self._armed.get(write)
        effect = due.pop() if due else None
        if effect is Effect.LOST:
            raise _fail(write)
        if effect is Effect.DIES_BEFORE:
            die()
        yield
        if effect is Effect.KEPT:
            raise _fail(write)
        if effect is Effect.DIES_AFTER:
            die()


class FaultyLogStore:
    """A `LogStore` in front of a real one."""

    def __init__(self, inner: LogStore, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    def sequence(
        self, log_id: str, batches: Sequence[Sequence[PendingEntry]], *, received_ms: int
    ) -> list[list[Acknowledgement] | ConflictError]:
        with self.faults.write(Write.SEQUENCE):
            return self.inner.sequence(log_id, batches, received_ms=received_ms)

    def sequenced_size(self, log_id: str) -> int:
        return self.inner.sequenced_size(log_id)

    def read_sequenced(self, log_id: str, start: int, end: int) -> list[bytes]:
        return self.inner.read_sequenced(log_id, start, end)

    def release(self, log_id: str, below: int) -> None:
        with self.faults.write(Write.RELEASE):
            self.inner.release(log_id, below)

    def checkpoint(self, log_id: str) -> bytes | None:
        return self.inner.checkpoint(log_id)

    def swap_checkpoint(self, log_id: str, *, expected: bytes | None, new: bytes, size: int, published_ms: int) -> None:
        with self.faults.write(Write.SWAP):
            self.inner.swap_checkpoint(log_id, expected=expected, new=new, size=size, published_ms=published_ms)


class FaultyTileStore:
    """A `TileStore` in front of a real one."""

    def __init__(self, inner: TileStore, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    def put(self, log_id: str, path: str, data: bytes) -> None:
        with self.faults.write(Write.PUT_BUNDLE if path.startswith("tile/entries/") else Write.PUT_TILE):
            self.inner.put(log_id, path, data)

    def get(self, log_id: str, path: str) -> bytes:
        return self.inner.get(log_id, path)

    def expose(self, log_id: str, checkpoint: bytes) -> None:
        with self.faults.write(Write.EXPOSE):
            self.inner.expose(log_id, checkpoint)


class FaultyAnchor:
    """An `Anchor` in front of a real one."""

    def __init__(self, inner: Anchor, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults

    def put(self, log_id: str, size: int, checkpoint: bytes) -> AnchorReceipt:
        with self.faults.write(Write.ANCHOR):
            return self.inner.put(log_id, size, checkpoint)

    def get(self, log_id: str, size: int) -> bytes:
        return self.inner.get(log_id, size)

    def sizes(self, log_id: str, *, above: int = -1) -> list[int]:
        return self.inner.sizes(log_id, above=above)
