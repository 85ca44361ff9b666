"""Timestamping: when an authority is asked, what is kept and copied, and what its failures stop (nothing)."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.anchors.timestamp_copies import DirectoryTimestampCopies
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.clock import SimulatedClock
from ledger.errors import AnchorError, ConflictError, StorageError, TimestampError
from ledger.ports import KeptTimestamp
from ledger.publisher import Published
from ledger.stores.timestamps import SQLTimestamps
from ledger.timestamping import Timestamping
from tests.support.checkpoints import make_checkpoint
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger

HOUR_MS = 3_600_000


class Authority:
    """Dates whatever it is given, a little ahead of our clock; or fails."""

    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock
        self.asked: list[int] = []
        self.failing = False

    def stamp(self, size: int, checkpoint: bytes) -> KeptTimestamp:
        self.asked.append(size)
        if self.failing:
            raise TimestampError("no answer")
        now = self.clock.now_ms()
        token = b"token %d %d" % (size, len(self.asked))
        return KeptTimestamp(size=size, checkpoint=checkpoint, token=token, time_ms=now + 2_000, kept_ms=now)


class Scene:
    def __init__(self, root: Path) -> None:
        self.ledger = EmbeddedLedger(root)
        self.clock = self.ledger.clock
        self.authority = Authority(self.clock)
        self.store = SQLTimestamps(self.ledger.engine)
        self.folder = root / "anchor" / LOG_ID / "timestamp"
        self.archive = DirectoryTimestampCopies(root / "anchor")
        self.timestamping = self.make()

    def make(self, **parts: object) -> Timestamping:
        return Timestamping(
            LOG_ID,
            **{
                "authority": self.authority,
                "store": self.store,
                "archive": self.archive,
                "clock": self.clock,
                "interval_seconds": 3600.0,
                **parts,
            },
        )

    def turn(self, size: int, *, after_ms: int = 0) -> None:
        self.clock.advance(after_ms)
        self.timestamping.turn(shown(size))

    def copies(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*"))


def shown(size: int) -> Published:
    checkpoint = make_checkpoint(size)
    return Published(checkpoint, parse_unverified_checkpoint(checkpoint).claim.head, NOW_MS // 1000)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.ledger.close()


def test_before_the_first_checkpoint_there_is_nothing_to_date(scene):
    scene.timestamping.turn(None)
    assert scene.authority.asked == []
    assert scene.timestamping.status.newest is None


def test_the_first_checkpoint_is_dated_at_once_and_the_next_after_the_interval(scene):
    for size in range(1, 5):
        scene.turn(size, after_ms=HOUR_MS // 2)
    assert scene.authority.asked == [1, 3]
    scene.turn(5, after_ms=HOUR_MS // 2 - 1)
    assert scene.authority.asked == [1, 3]
    scene.turn(6, after_ms=1)
    assert scene.authority.asked == [1, 3, 6]


def test_a_log_that_does_not_grow_is_dated_once(scene):
    for _ in range(5):
        scene.turn(1, after_ms=HOUR_MS)
    assert scene.authority.asked == [1]


def test_the_token_is_kept_and_copied_with_the_very_bytes_that_it_dates(scene):
    scene.turn(7)
    newest = scene.store.newest(LOG_ID)
    assert newest is not None
    assert newest == scene.timestamping.status.newest
    assert newest.checkpoint == shown(7).checkpoint
    assert scene.copies() == ["7.checkpoint", "7.tsr"]
    assert (scene.folder / "7.checkpoint").read_bytes() == newest.checkpoint
    assert (scene.folder / "7.tsr").read_bytes() == newest.token
    assert {stat.S_IMODE(path.stat().st_mode) for path in scene.folder.iterdir()} == {0o444}


def test_the_skew_of_the_clocks_is_told(scene):
    assert scene.timestamping.status.skew_ms == 0
    scene.turn(7)
    assert scene.timestamping.status.skew_ms == 2_000


def test_another_process_sees_the_token_and_does_not_ask_again(scene):
    scene.turn(7)
    other = scene.make()
    other.turn(shown(9))
    assert scene.authority.asked == [7]
    assert other.status.newest == scene.timestamping.status.newest


def test_of_two_processes_that_ask_at_once_the_first_token_counts_in_both(scene):
    other = scene.make()

    class Slow(Authority):
        def stamp(self, size: int, checkpoint: bytes) -> KeptTimestamp:
            other.turn(shown(size))
            return super().stamp(size, checkpoint)

    slow = scene.make(authority=Slow(scene.clock))
    slow.turn(shown(7))
    assert slow.status == other.status
    assert slow.status.failure is None
    assert scene.copies() == ["7.checkpoint", "7.tsr"]


def test_a_failing_authority_is_told_and_asked_again_after_a_pause_that_grows(scene):
    scene.authority.failing = True
    start, asked_at = scene.clock.now_ms(), []
    for _ in range(400):
        before = len(scene.authority.asked)
        scene.turn(1, after_ms=1000)
        if len(scene.authority.asked) > before:
            asked_at.append((scene.clock.now_ms() - start) // 1000 - 1)
    assert asked_at == [0, 5, 15, 35, 75, 155, 315]
    assert scene.timestamping.status.failure == "no answer"
    scene.authority.failing = False
    scene.turn(1, after_ms=HOUR_MS)
    assert scene.timestamping.status.failure is None
    assert scene.timestamping.status.newest is not None


def test_a_failure_leaves_the_newest_token_in_sight(scene):
    scene.turn(1)
    scene.authority.failing = True
    scene.turn(2, after_ms=HOUR_MS)
    status = scene.timestamping.status
    assert (status.newest and status.newest.size, status.failure) == (1, "no answer")


def test_a_copy_that_failed_is_made_later_without_another_token(scene):
    class Failing:
        def copy(self, *_: object) -> None:
            raise AnchorError("the anchor is away")

    scene.timestamping = scene.make(archive=Failing())
    scene.turn(1)
    assert scene.timestamping.status.failure == "the anchor is away"
    assert scene.copies() == []
    scene.timestamping = scene.make()
    scene.turn(1, after_ms=10_000)
    assert scene.copies() == ["1.checkpoint", "1.tsr"]
    assert scene.authority.asked == [1]


def test_a_store_that_fails_is_told_and_stops_nothing(scene):
    class Failing:
        def newest(self, _: str) -> None:
            raise StorageError("the database is away")

    timestamping = scene.make(store=Failing())
    timestamping.turn(shown(1))
    assert timestamping.status.failure == "the database is away"
    assert scene.authority.asked == []


def test_a_copy_is_never_replaced(scene):
    scene.turn(1)
    newest = scene.store.newest(LOG_ID)
    assert newest is not None
    scene.archive.copy(LOG_ID, newest)
    other = KeptTimestamp(size=1, checkpoint=newest.checkpoint, token=b"other", time_ms=1, kept_ms=1)
    with pytest.raises(ConflictError):
        scene.archive.copy(LOG_ID, other)
    assert (scene.folder / "1.tsr").read_bytes() == newest.token


def test_a_folder_that_cannot_be_written_is_an_anchor_error(scene, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    newest = KeptTimestamp(size=1, checkpoint=b"c", token=b"t", time_ms=1, kept_ms=1)
    with pytest.raises(AnchorError):
        DirectoryTimestampCopies(tmp_path / "file").copy(LOG_ID, newest)
