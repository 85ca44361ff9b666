"""The fault table: each write of the ledger is lost, or kept but reported lost, or the process dies before or after it.

Once, and twice in a row. A row says what must hold at that moment: whether the records are sequenced, and whether the
checkpoint over them is published, exposed, anchored. Afterwards the log is opened again and published, and then: the
audit is clean, every acknowledged record is provable under the newest checkpoint, and no two checkpoints that anybody
ever saw are inconsistent.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import DependencyError, StorageError
from ledger.ports import PendingEntry
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

    def __init__(self, root: Path, base: list[PendingEntry], writer: Enforcer, database_url: str | None) -> None:
        self.root = root
        self.database_url = database_url
        self.writer = writer
        self.sent: list[PendingEntry] = list(base)
        self.seen: set[bytes] = set()
        self._told = root / "acknowledged"

    def open(self, faults: Faults | None = None, *, load: bool = True) -> EmbeddedLedger:
        """Open the log as a new process would."""
        return EmbeddedLedger(self.root, database_url=self.database_url, service=self.writer, faults=faults, load=load)

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


def begin(root: Path, database_url: str | None = None) -> Scene:
    """Make a log of 250 leaves, published and anchored."""
    writer = Enforcer()
    scene = Scene(root, [], writer, database_url)
    with scene.open() as ledger:
        scene.sent = [pending(writer.record(writer.introduction()))]
        scene.sent += [pending(writer.record(writer.heartbeat())) for _ in range(BASE - 1)]
        scene.work(ledger)
    return scene


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return begin(tmp_path_factory.mktemp("base"))


@pytest.fixture
def scene(original: Scene, tmp_path: Path) -> Scene:
    root = tmp_path / "log"
    shutil.copytree(original.root, root)
    writer = Enforcer(seq=original.writer.seq, time_ms=original.writer.time_ms)
    return Scene(root, original.sent, writer, None)


@pytest.fixture
def postgres_scene(postgres, tmp_path: Path) -> Scene:
    return begin(tmp_path, postgres.new_schema())


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


EVERY = list(product(Write, Effect))


@pytest.mark.parametrize(("write", "effect"), EVERY, ids=str)
def test_once(scene, write, effect):
    fail(scene, write, effect)
    assert scene.look() == expected(write, effect)
    scene.recover()


@pytest.mark.parametrize(("write", "effect"), EVERY, ids=str)
def test_twice_in_a_row(scene, write, effect):
    for _ in range(2):
        fail(scene, write, effect)
        assert scene.look() == expected(write, effect)
    scene.recover()


@pytest.mark.parametrize(("write", "effect"), list(product((Write.EXPOSE, Write.ANCHOR), Effect)), ids=str)
def test_once_and_then_at_the_next_start(scene, write, effect):
    fail(scene, write, effect)
    scene.look()
    fail(scene, write, effect, at_start=True)
    assert scene.look() == reached(0), "nothing new is taken before the log is loaded"
    scene.recover()


ON_THE_DATABASE = list(product((Write.SEQUENCE, Write.SWAP, Write.RELEASE), Effect))


@pytest.mark.parametrize(("write", "effect"), ON_THE_DATABASE, ids=str)
def test_once_on_postgresql(postgres_scene, write, effect):
    fail(postgres_scene, write, effect)
    assert postgres_scene.look() == expected(write, effect)
    postgres_scene.recover()


@pytest.mark.parametrize("first", Write)
def test_one_failure_after_another(scene, first):
    for second in Write:
        fail(scene, first, Effect.KEPT)
        scene.look()
        fail(scene, second, Effect.LOST)
        scene.look()
    scene.recover()


@pytest.mark.parametrize("effect", [Effect.LOST, Effect.KEPT])
@pytest.mark.parametrize("write", Write)
def test_a_process_that_reloads_goes_on_without_a_restart(scene, write, effect):
    faults = Faults()
    scene.new_batch()
    with scene.open(faults) as ledger:
        faults.arm(write, effect)
        with pytest.raises(DependencyError):
            scene.work(ledger)
        ledger.publisher.load()
        scene.new_batch()
        scene.work(ledger)
        check_nothing_was_lost(ledger, scene.acknowledged(), scene.sent)


@pytest.mark.parametrize("effect", [Effect.LOST, Effect.KEPT])
@pytest.mark.parametrize("write", [Write.PUT_BUNDLE, Write.PUT_TILE])
@pytest.mark.parametrize("ordinal", [1, 2, 3])
def test_any_tile_or_bundle_of_a_publication_may_fail(scene, write, effect, ordinal):
    faults = Faults()
    scene.new_batch()
    with scene.open(faults) as ledger:
        faults.writes.clear()
        faults.on_write = lambda kind: (
            faults.arm(write, effect) if kind is write and faults.writes.count(write) == ordinal else None
        )
        if ordinal == 3 and write is Write.PUT_BUNDLE:
            scene.work(ledger)  # there are two bundles and no third
        else:
            with pytest.raises(StorageError):
                scene.work(ledger)
    scene.look()
    scene.recover()


def test_the_table_has_a_row_for_every_write():
    assert set(REACHED) == set(Write)
    assert set(PERSISTED) == set(Effect)


def test_a_log_that_never_failed_passes_the_same_judgement(scene):
    scene.new_batch()
    with scene.open() as ledger:
        scene.work(ledger)
    assert scene.look() == reached(4)
    scene.recover()


def test_the_judgement_notices_an_acknowledged_record_that_was_lost(scene):
    # A control: a caller was told an index for a record that the log does not hold.
    scene.new_batch()
    with scene.open() as ledger:
        scene.work(ledger)
        told = scene.acknowledged()
        stranger = pending(scene.writer.record(scene.writer.heartbeat()))
        told[stranger.record.record_id] = len(scene.sent)
        with pytest.raises(AssertionError):
            check_nothing_was_lost(ledger, told, [*scene.sent, stranger])
