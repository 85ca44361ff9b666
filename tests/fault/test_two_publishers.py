"""Two publishers of one log, as after a fail-over that left the old one alive: whoever pauses anywhere forks nothing.

The first publisher is stopped before one of its writes; meanwhile the second publishes, once or several times, or dies.
Invariant 2 of the architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import ConflictError
from ledger.ports import PendingEntry
from tests.support.faults import Faults, Write
from tests.support.ledger import EmbeddedLedger, Enforcer, pending
from tests.support.verdict import check_nothing_was_lost

BEFORE_THE_SWAP = (Write.PUT_BUNDLE, Write.PUT_TILE, Write.SWAP)
AFTER_THE_SWAP = (Write.EXPOSE, Write.RELEASE, Write.ANCHOR)


class Pair:
    """Two processes' worth of parts over one store, one directory and one anchor."""

    def __init__(self, root: Path, database_url: str | None) -> None:
        writer = Enforcer()
        self.writer = writer
        self.first = EmbeddedLedger(root, database_url=database_url, service=writer, faults=Faults())
        self.written: list[PendingEntry] = []
        self.acknowledged: dict[str, int] = {}
        self.append(pending(writer.record(writer.introduction())))
        self.beat(249)
        self.first.publish()
        self.second = EmbeddedLedger(root, database_url=database_url, service=writer, faults=Faults())
        self.seen: set[bytes] = set()

    def append(self, *entries: PendingEntry) -> None:
        indexes = self.first.append(*entries)
        self.written += entries
        self.acknowledged |= {entry.record.record_id: i for entry, i in zip(entries, indexes, strict=True)}

    def beat(self, count: int = 10) -> None:
        self.append(*(pending(self.writer.record(self.writer.heartbeat())) for _ in range(count)))

    @contextmanager
    def interrupted(self, write: Write, meanwhile: Callable[[], None]) -> Iterator[None]:
        """Let something happen just before the first publisher's next write of a kind."""

        def on_write(kind: Write) -> None:
            if kind is write:
                self.first.faults.on_write = None
                meanwhile()

        self.first.faults.on_write = on_write
        yield
        assert self.first.faults.on_write is None, "the write never came"

    def publish_first(self) -> None:
        self.first.clock.advance(1000)
        self.first.publisher.publish()
        self.first.publisher.anchor_newest()

    def publish_second(self) -> None:
        self.beat()
        self.second.clock.advance(2000)
        self.second.publisher.load()
        self.second.publisher.publish()
        self.second.publisher.anchor_newest()
        self.look()

    def look(self) -> None:
        ledger = self.second
        self.seen |= {*ledger.published_checkpoints(), *ledger.exposed_checkpoints(), *ledger.anchored_checkpoints()}
        assert {*ledger.exposed_checkpoints(), *ledger.anchored_checkpoints()} <= set(ledger.published_checkpoints())

    def exposed_size(self) -> int:
        (checkpoint,) = self.second.exposed_checkpoints()
        return parse_unverified_checkpoint(checkpoint).claim.size

    def judge(self) -> None:
        self.look()
        self.beat(1)
        self.publish_second()
        check_nothing_was_lost(self.second, self.acknowledged, self.written, self.seen)

    def close(self) -> None:
        self.first.close()
        self.second.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    url = request.getfixturevalue("postgres").new_schema() if request.param == "postgresql" else None
    made = Pair(tmp_path, url)
    yield made
    made.close()


@pytest.mark.parametrize("publications", [1, 3])
@pytest.mark.parametrize("write", BEFORE_THE_SWAP)
def test_a_publisher_that_paused_before_its_swap_loses_it_and_shows_nothing(pair, write, publications):
    pair.beat()

    def meanwhile() -> None:
        for _ in range(publications):
            pair.publish_second()

    with pair.interrupted(write, meanwhile), pytest.raises(ConflictError):
        pair.publish_first()
    size = pair.exposed_size()
    pair.first.publisher.anchor_newest()
    with pytest.raises(ConflictError):
        pair.publish_first()
    assert pair.exposed_size() == size
    pair.judge()


@pytest.mark.parametrize("publications", [1, 3])
@pytest.mark.parametrize("write", AFTER_THE_SWAP)
def test_a_publisher_that_paused_after_its_swap_moves_nothing_back(pair, write, publications):
    pair.beat()

    def meanwhile() -> None:
        for _ in range(publications):
            pair.publish_second()

    with pair.interrupted(write, meanwhile):
        pair.publish_first()
    assert pair.exposed_size() == len(pair.written)
    pair.judge()


@pytest.mark.parametrize("write", BEFORE_THE_SWAP)
def test_a_publisher_that_lost_takes_the_log_up_again_when_it_is_loaded(pair, write):
    pair.beat()
    with pair.interrupted(write, pair.publish_second), pytest.raises(ConflictError):
        pair.publish_first()
    pair.beat()
    pair.first.publisher.load()
    pair.publish_first()
    assert pair.exposed_size() == len(pair.written)
    pair.judge()


def test_two_publishers_that_take_turns_without_loading_never_both_win(pair):
    pair.beat()
    pair.second.publisher.load()
    pair.publish_first()
    pair.beat()
    pair.second.clock.advance(5000)
    with pytest.raises(ConflictError):
        pair.second.publisher.publish()
    pair.judge()


@pytest.mark.parametrize("write", [*BEFORE_THE_SWAP, *AFTER_THE_SWAP])
def test_records_that_arrive_during_a_publication_wait_for_the_next(pair, write):
    pair.beat()
    size = len(pair.written)
    with pair.interrupted(write, pair.beat):
        pair.publish_first()
    assert pair.exposed_size() == size
    pair.judge()
