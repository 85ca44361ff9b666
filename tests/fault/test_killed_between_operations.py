"""Deaths in the middle of a write: between any two file operations of a publication, and inside SQLite's own writes.

The fault table kills before and after whole writes; here the process dies at every step within them.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ledger.ports import PendingEntry
from tests.support.append_child import MARKER
from tests.support.ledger import LOG_ID, EmbeddedLedger, Enforcer, pending
from tests.support.postgres import PostgresCluster
from tests.support.processes import KILLED, die, in_child
from tests.support.strace import Traced, trace
from tests.support.verdict import check_nothing_was_lost, heads

REPOSITORY = Path(__file__).parents[2]
BASE = 250


# --- between any two file operations ---------------------------------------------------------------------------------


@dataclass
class Steps:
    """Counts the operations that change files below a folder, and dies before one of them."""

    root: str
    die_before: int | None = None
    done: int = 0

    def watch(self) -> None:
        """Begin, for the rest of this process's life: an audit hook cannot be taken back."""
        real_sync = os.fsync
        sys.addaudithook(self._on_event)

        def sync(descriptor: int) -> None:
            self.step()
            real_sync(descriptor)

        os.fsync = sync

    def _on_event(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = isinstance(flags, int) and bool(flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR))
        else:
            path = arguments[0] if arguments else None
            changes = event in ("os.link", "os.rename", "os.remove", "os.mkdir")
        if changes and str(path).startswith(self.root):
            self.step()

    def step(self) -> None:
        self.done += 1
        if self.done == self.die_before:
            die()


class Scene:
    """A log of 250 published leaves, and ten decisions with payloads that are to follow."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.writer = Enforcer()
        with EmbeddedLedger(root, service=self.writer) as ledger:
            self.base = [pending(self.writer.record(self.writer.introduction()))]
            self.base += [pending(self.writer.record(self.writer.heartbeat())) for _ in range(BASE - 1)]
            ledger.append(*self.base)
            ledger.publish()
        self.fresh = [pending(self.writer.record(self.writer.heartbeat())) for _ in range(10)]

    def copy(self, root: Path) -> Path:
        shutil.copytree(self.root, root)
        return root

    def publish_more(self, root: Path) -> None:
        """Append, publish, expose, release and anchor, and give a new subject its key."""
        with EmbeddedLedger(root, service=self.writer) as ledger:
            ledger.append(*self.fresh)
            ledger.vault._keys.get_or_create(LOG_ID, "7" * 32)
            ledger.publish()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("base"))


def count_steps(scene: Scene, root: Path) -> int:
    def work() -> None:
        steps = Steps(str(root))
        steps.watch()
        scene.publish_more(root)
        (root / "steps").write_text(str(steps.done))

    assert in_child(work) == 0
    return int((root / "steps").read_text())


@pytest.mark.parametrize("half", ["first half", "second half"])
def test_a_publication_survives_a_death_before_any_of_its_file_operations(scene, tmp_path, half):
    total = count_steps(scene, scene.copy(tmp_path / "counted"))
    assert total > 40, "the steps of eight files with their directories"
    middle = total // 2
    for number in range(1, middle + 1) if half == "first half" else range(middle + 1, total + 1):
        root = scene.copy(tmp_path / f"killed-{number}")

        def work(root: Path = root, number: int = number) -> None:
            Steps(str(root), die_before=number).watch()
            scene.publish_more(root)

        assert in_child(work) == KILLED, number
        check_recovery(scene, root)
        shutil.rmtree(root)


def check_recovery(scene: Scene, root: Path) -> None:
    with EmbeddedLedger(root, service=scene.writer, load=False) as ledger:
        seen = [*ledger.published_checkpoints(), *ledger.exposed_checkpoints(), *ledger.anchored_checkpoints()]
        assert heads([*ledger.exposed_checkpoints(), *ledger.anchored_checkpoints()])
        ledger.publisher.load()
        everything = [*scene.base, *scene.fresh]
        acknowledged = {entry.record.record_id: number for number, entry in enumerate(everything)}
        assert ledger.append(*everything) == list(acknowledged.values())
        ledger.vault._keys.get_or_create(LOG_ID, "7" * 32)
        ledger.clock.advance(2000)
        ledger.publisher.publish()
        ledger.publisher.anchor_newest()
        check_nothing_was_lost(ledger, acknowledged, everything, seen)


# --- inside the database's own writes --------------------------------------------------------------------------------

COUNT = 3
PARTS = 6


def append_under(root: Path, inject: str | None = None) -> Traced:
    """Let a child append to a new log, with a fault for strace to inject."""
    EmbeddedLedger(root).close()
    command = [sys.executable, "-m", "tests.support.append_child", str(root / "ledger.db"), str(COUNT)]
    return trace(command, root / "trace", cwd=REPOSITORY, inject=inject)


def told_by(traced: Traced) -> list[tuple[int, str]]:
    """Return index and id of every record that the child acknowledged."""
    lines = [line.split() for line in traced.output.splitlines() if line.startswith(MARKER)]
    return [(int(index), record_id) for _, index, record_id in lines]


@pytest.fixture(scope="module")
def calls_before_each_answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """Return the ordinals, by name, of the calls on the database's files that come before the last acknowledgement."""
    traced = append_under(tmp_path_factory.mktemp("untouched"))
    assert (traced.status, len(told_by(traced))) == (0, COUNT), traced.errors
    (*_, last) = [call.began for call in traced.calls if MARKER in call.arguments]
    found: dict[str, list[int]] = {}
    for name in ("pwrite64", "fdatasync"):
        same = [call for call in traced.calls if call.name == name]
        on_log = [n for n, call in enumerate(same, 1) if call.path.endswith("ledger.db-wal") and call.began < last]
        found[name] = on_log
    assert len(found["pwrite64"]) > 10 * COUNT
    assert len(found["fdatasync"]) >= COUNT
    return found


def check_after(root: Path, traced: Traced) -> None:
    """Check that what the child acknowledged is there, at most one append more, and that the log goes on."""
    told = told_by(traced)
    assert len(told) < COUNT
    with EmbeddedLedger(root) as ledger:
        size = ledger.store.sequenced_size(LOG_ID)
        assert size in (len(told), len(told) + 1)
        assert [(ledger.catalog.index_of(LOG_ID, record_id), record_id) for _, record_id in told] == told
        assert [index for index, _ in told] == list(range(len(told)))
        fresh = [pending(ledger.service.record(ledger.service.heartbeat())) for _ in range(2)]
        assert ledger.append(*fresh) == [size, size + 1]
        ledger.publish()
        report = ledger.audit()
        assert {finding.check for finding in report.findings} == {"record"}, "nobody introduced the child's enforcer"
        assert report.head is not None
        assert report.head.size == size + 2


@pytest.mark.parametrize("part", range(PARTS))
def test_a_database_survives_a_death_inside_its_own_writes(tmp_path, calls_before_each_answer, part):
    ordinals = calls_before_each_answer["pwrite64"]
    ordinal = ordinals[part * (len(ordinals) - 1) // (PARTS - 1)]
    traced = append_under(tmp_path, f"pwrite64:signal=KILL:when={ordinal}")
    assert traced.status == -signal.SIGKILL
    check_after(tmp_path, traced)


@pytest.mark.parametrize("part", range(COUNT))
def test_a_database_survives_a_death_inside_its_own_syncs(tmp_path, calls_before_each_answer, part):
    ordinal = calls_before_each_answer["fdatasync"][-1 - part]
    traced = append_under(tmp_path, f"fdatasync:signal=KILL:when={ordinal}")
    assert traced.status == -signal.SIGKILL
    check_after(tmp_path, traced)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("name", ["pwrite64", "fdatasync"])
def test_a_database_whose_disk_refuses_acknowledges_nothing_more(tmp_path, calls_before_each_answer, name, error):
    ordinals = calls_before_each_answer[name]
    traced = append_under(tmp_path, f"{name}:error={error}:when={ordinals[len(ordinals) // 2]}")
    assert traced.status == 1
    assert "StorageError" in traced.errors
    check_after(tmp_path, traced)


# --- a crash of the database server ----------------------------------------------------------------------------------


@pytest.fixture
def cluster() -> Iterator[PostgresCluster]:
    """Return a cluster of this test's own, for it will be crashed."""
    made = PostgresCluster()
    yield made
    made.stop()


def test_a_postgresql_that_crashes_has_every_acknowledged_record_when_it_is_back(cluster, tmp_path):
    writer = Enforcer()
    sent: list[PendingEntry] = [pending(writer.record(writer.introduction()))]
    acknowledged: dict[str, int] = {}
    url = cluster.new_schema()
    for _ in range(2):
        with EmbeddedLedger(tmp_path, database_url=url, service=writer) as ledger:
            sent += [pending(writer.record(writer.heartbeat())) for _ in range(20)]
            acknowledged = dict(zip([e.record.record_id for e in sent], ledger.append(*sent), strict=True))
            ledger.publish()
            more = [pending(writer.record(writer.heartbeat())) for _ in range(5)]
            acknowledged |= dict(zip([e.record.record_id for e in more], ledger.append(*more), strict=True))
            sent += more
            cluster.crash()
        cluster.start()
    with EmbeddedLedger(tmp_path, database_url=url, service=writer) as ledger:
        assert dict(zip(acknowledged, ledger.append(*sent), strict=True)) == acknowledged
        ledger.publish()
        check_nothing_was_lost(ledger, acknowledged, sent)
