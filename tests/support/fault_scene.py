"""A log on disk that faults strike: what is sent to it, what was acknowledged and seen, and how far a batch has come.

The fault tables use it (`tests/fault`). Every opening of the log is what a new process would do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import DependencyError
from ledger.ports import Anchor, PendingEntry, TileStore
from tests.support.faults import Effect, Faults, Write
from tests.support.ledger import LOG_ID, EmbeddedLedger, Enforcer, pending
from tests.support.processes import KILLED, in_child
from tests.support.verdict import check_nothing_was_lost

BASE = 250
"""Leaves before the fault: ten more fill the first bundle, so that a publication also releases."""

BATCH = 10


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a batch has come: whether it is sequenced, and its checkpoint published, exposed and anchored."""

    sequenced: bool
    published: bool = False
    exposed: bool = False
    anchored: bool = False


def reached(steps: int) -> Reached:
    """Return how far a batch has come after so many of the four steps."""
    return Reached(*(step < steps for step in range(4)))


REACHED = {
    # write: (if it did not persist, if it did)
    Write.SEQUENCE: (reached(0), reached(1)),
    Write.PUT_BUNDLE: (reached(1), reached(1)),
    Write.PUT_TILE: (reached(1), reached(1)),
    Write.SWAP: (reached(1), reached(2)),
    Write.EXPOSE: (reached(2), reached(3)),
    Write.RELEASE: (reached(3), reached(3)),
    Write.ANCHOR: (reached(3), reached(4)),
}
PERSISTED = {Effect.LOST: False, Effect.KEPT: True, Effect.DIES_BEFORE: False, Effect.DIES_AFTER: True}


class Scene:
    """A log on disk, the batches that are sent to it, and what was acknowledged and seen."""

    def __init__(
        self,
        root: Path,
        base: list[PendingEntry],
        writer: Enforcer,
        database_url: str | None,
        *,
        tiles: TileStore | None = None,
        anchor: Anchor | None = None,
    ) -> None:
        self.root = root
        self.tiles, self.anchor = tiles, anchor
        self.database_url = database_url
        self.writer = writer
        self.sent: list[PendingEntry] = list(base)
        self.seen: set[bytes] = set()
        self._told = root / "acknowledged"

    def open(self, faults: Faults | None = None, *, load: bool = True) -> EmbeddedLedger:
        """Open the log as a new process would."""
        return EmbeddedLedger(
            self.root,
            database_url=self.database_url,
            service=self.writer,
            faults=faults,
            load=load,
            tiles=self.tiles,
            anchor=self.anchor,
        )

    def new_batch(self) -> None:
        """Make ten more records; they are sent from now on, with all that went before."""
        self.sent += [pending(self.writer.record(self.writer.heartbeat())) for _ in range(BATCH)]

    def work(self, ledger: EmbeddedLedger) -> None:
        """Send everything, publish and anchor it, as the service does; raise what went wrong."""
        told = self.acknowledged()
        unsure = [entry for entry in self.sent if entry.record.record_id not in told]
        if unsure:
            indexes = ledger.append(*unsure)
            lines = "".join(f"{e.record.record_id} {i}\n" for e, i in zip(unsure, indexes, strict=True))
            with self._told.open("a") as file:
                file.write(lines)
        ledger.clock.advance(1000)
        ledger.publisher.publish()
        ledger.publisher.anchor_newest()
        if ledger.publisher.anchor_status.failure is not None:
            raise DependencyError(ledger.publisher.anchor_status.failure)

    def acknowledged(self) -> dict[str, int]:
        """Return the index of every record that any caller was ever told."""
        told: dict[str, int] = {}
        for line in self._told.read_text().splitlines() if self._told.exists() else ():
            record_id, index = line.split()
            assert told.setdefault(record_id, int(index)) == int(index), "a record was acknowledged at two indexes"
        return told

    def look(self) -> Reached:
        """Say how far the newest batch has come, and remember every checkpoint that can be seen."""
        with self.open(load=False) as ledger:
            size = len(self.sent)
            published = ledger.published_checkpoints()
            exposed, anchored = ledger.exposed_checkpoints(), ledger.anchored_checkpoints()
            self.seen |= {*published, *exposed, *anchored}
            assert {*exposed, *anchored} <= set(published), "a checkpoint was shown that did not win its swap"
            return Reached(
                ledger.store.sequenced_size(LOG_ID) == size,
                *(any(size_of(one) == size for one in group) for group in (published, exposed, anchored)),
            )

    def recover(self) -> None:
        """Open the log again without faults, send everything again, publish, and judge."""
        with self.open() as ledger:
            self.work(ledger)
            check_nothing_was_lost(ledger, self.acknowledged(), self.sent, self.seen)


def size_of(checkpoint: bytes) -> int:
    return parse_unverified_checkpoint(checkpoint).claim.size


def begin(
    root: Path,
    database_url: str | None = None,
    *,
    tiles: TileStore | None = None,
    anchor: Anchor | None = None,
) -> Scene:
    """Make a log of 250 leaves, published and anchored."""
    writer = Enforcer()
    root.mkdir(parents=True, exist_ok=True)
    scene = Scene(root, [], writer, database_url, tiles=tiles, anchor=anchor)
    with scene.open() as ledger:
        scene.sent = [pending(writer.record(writer.introduction()))]
        scene.sent += [pending(writer.record(writer.heartbeat())) for _ in range(BASE - 1)]
        scene.work(ledger)
    return scene


def fail(scene: Scene, write: Write, effect: Effect, *, at_start: bool = False) -> None:
    """Let one write end so, in this process or in one that dies of it.

    Args:
        scene: Where.
        write: Which write.
        effect: What becomes of it.
        at_start: Already when the log is loaded, which exposes and anchors what an earlier death left unseen.
    """
    scene.new_batch()

    def attempt() -> None:
        faults = Faults()
        with scene.open(faults, load=False) as ledger:
            if at_start:
                faults.arm(write, effect)
            ledger.publisher.load()
            if ledger.publisher.anchor_status.failure is not None:
                raise DependencyError(ledger.publisher.anchor_status.failure)
            faults.arm(write, effect)
            scene.work(ledger)

    if effect in (Effect.DIES_BEFORE, Effect.DIES_AFTER):
        assert in_child(attempt) == KILLED
    else:
        with pytest.raises(DependencyError):
            attempt()


def expected(write: Write, effect: Effect) -> Reached:
    return REACHED[write][PERSISTED[effect]]
