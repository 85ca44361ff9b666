"""Records come from the log, in the order asked for, each read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.errors import NotFoundError
from service.web.records import RecordCache, _runs
from tests.support.ledger import EmbeddedLedger


class Watched:
    """The ledger's reader, with a note of the ranges that were read."""

    def __init__(self, reader) -> None:
        self._reader = reader
        self.ranges: list[tuple[int, int]] = []

    def entries(self, start: int, end: int) -> Iterator[bytes]:
        self.ranges.append((start, end))
        return self._reader.entries(start, end)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Watched]:
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        for number in range(1, 300):
            ledger.decide(agent=f"agent-{number}")
            if number == 280:
                ledger.publish()
        yield Watched(ledger.reader)


def agents(cache: RecordCache, indexes: list[int]) -> list[str]:
    return [record.body.agent for record in cache.records(indexes)]


def test_records_come_in_the_order_asked_for(reader):
    cache = RecordCache(reader)
    assert agents(cache, [299, 3, 150, 3]) == ["agent-299", "agent-3", "agent-150", "agent-3"]


def test_nothing_is_read_for_nothing(reader):
    assert RecordCache(reader).records([]) == []
    assert reader.ranges == []


def test_neighbours_are_read_together_and_known_ones_not_again(reader):
    cache = RecordCache(reader)
    agents(cache, [299, 298, 290])
    agents(cache, [299, 298, 290])
    agents(cache, [297, 299, 298])
    assert reader.ranges == [(290, 300), (297, 298)]


def test_what_is_not_in_the_log_is_an_error_and_nothing_is_kept_of_it(reader):
    cache = RecordCache(reader)
    with pytest.raises(NotFoundError):
        cache.records([299, 300])
    assert agents(cache, [299]) == ["agent-299"]


def test_memory_is_bounded_and_the_newest_asked_for_stay(reader):
    cache = RecordCache(reader, max_records=10)
    agents(cache, list(range(100, 150)))
    assert len(cache._kept) == 10
    reader.ranges.clear()
    agents(cache, [149])
    assert reader.ranges == []


@pytest.mark.parametrize(
    ("indexes", "runs"),
    [
        ([], []),
        ([5], [(5, 6)]),
        ([5, 6, 7], [(5, 8)]),
        ([5, 37], [(5, 38)]),
        ([5, 38], [(5, 6), (38, 39)]),
        ([0, 1, 100, 101, 300], [(0, 2), (100, 102), (300, 301)]),
    ],
)
def test_runs_cover_what_is_wanted_and_little_else(indexes, runs):
    assert list(_runs(indexes)) == runs
