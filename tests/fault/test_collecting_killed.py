"""A process that is killed while it collects partials: the log stays whole, and the next start finishes the work."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ledger.collecting import PartialCollector
from ledger.tiles import parse_tile_path
from tests.support.ledger import LOG_ID, EmbeddedLedger, Enforcer
from tests.support.processes import KILLED, die, in_child

SIZES = (100, 200, 255, 300, 600)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Make a log with partials of many sizes."""
    folder = tmp_path_factory.mktemp("log")
    with EmbeddedLedger(folder) as ledger:
        ledger.introduce()
        for size in SIZES:
            while ledger.store.sequenced_size(LOG_ID) < size:
                ledger.decide()
            ledger.publish()
    return folder


@pytest.fixture
def folder(published, tmp_path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "log"))


def collect(ledger: EmbeddedLedger) -> None:
    collector = PartialCollector(LOG_ID, ledger.tiles)
    while not collector.turn(SIZES[-1]).done:
        pass


def superseded(folder: Path) -> list[str]:
    root = folder / "logs" / LOG_ID
    paths = [path.relative_to(root).as_posix() for path in root.glob("tile/**/*.p/*")]
    coordinates = [parse_tile_path(path) for path in paths]
    return [one.path for one in coordinates if SIZES[-1] >> (8 * (max(one.level, 0) + 1)) > one.number]


def collect_and_die(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, at: int, *, after: bool) -> int:
    """Collect in a child that dies at a call of the file system; return how it ended."""
    left = [at]
    real = getattr(Path, call)

    def dying(path: Path, *arguments: object, **options: object) -> object:
        if ".p" not in str(path):
            return real(path, *arguments, **options)
        left[0] -= 1
        if left[0] == 0 and not after:
            die()
        result = real(path, *arguments, **options)
        if left[0] == 0:
            die()
        return result

    def work() -> None:
        monkeypatch.setattr(Path, call, dying)
        with EmbeddedLedger(folder) as ledger:
            collect(ledger)

    return in_child(work)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("call", "at"), [("unlink", 1), ("unlink", 2), ("unlink", 5), ("rmdir", 1), ("rmdir", 2)])
def test_a_death_at_any_deletion_leaves_a_whole_log_and_the_next_start_finishes(folder, monkeypatch, call, at, after):
    before = superseded(folder)
    assert collect_and_die(folder, monkeypatch, call, at, after=after) == KILLED
    left = superseded(folder)
    assert len(left) < len(before) or (call, at, after) == ("unlink", 1, False)
    with EmbeddedLedger(folder) as ledger:
        assert ledger.audit().clean
        collect(ledger)
        assert superseded(folder) == []
        assert ledger.audit().clean


def test_a_death_in_two_starts_in_a_row_is_no_worse(folder, monkeypatch):
    for _ in range(2):
        assert collect_and_die(folder, monkeypatch, "unlink", 2, after=True) == KILLED
    with EmbeddedLedger(folder, service=Enforcer(epoch="1" * 32)) as ledger:
        assert superseded(folder)
        collect(ledger)
        assert superseded(folder) == []
        ledger.clock.advance(60_000)
        ledger.decide()
        ledger.publish()
        assert ledger.audit().clean
