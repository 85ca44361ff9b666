"""The fault table: each write of the ledger is lost, or kept but reported lost, or the process dies before or after it.

Once, and twice in a row. A row says what must hold at that moment: whether the records are sequenced, and whether the
checkpoint over them is published, exposed, anchored. Afterwards the log is opened again and published, and then: the
audit is clean, every acknowledged record is provable under the newest checkpoint, and no two checkpoints that anybody
ever saw are inconsistent.
"""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import pytest

from ledger.errors import DependencyError, StorageError
from tests.support.fault_scene import PERSISTED, REACHED, Scene, begin, expected, fail, reached
from tests.support.faults import Effect, Faults, Write
from tests.support.ledger import Enforcer, pending
from tests.support.verdict import check_nothing_was_lost


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
    # A start takes nothing new before the log is loaded. It exposes what is not exposed yet: where nothing is left to
    # expose, the fault strikes the publication that follows.
    nothing_to_expose = write is Write.EXPOSE and PERSISTED[effect]
    assert scene.look() == (expected(write, effect) if nothing_to_expose else reached(0))
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
