"""The counts of a day: right at the edges, at the cost of what is new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.web.counts import DAY_MS, NewestDecision, RecentCounts
from service.web.records import RecordCache
from tests.support.ledger import LOG_ID, EmbeddedLedger

MINUTE = 60_000


class Watched:
    """The ledger's catalogue, with a note of what was asked."""

    def __init__(self, catalog) -> None:
        self._catalog = catalog
        self.asked: list[dict[str, int]] = []

    def tally(self, log_id: str, **bounds: int):
        self.asked.append(bounds)
        return self._catalog.tally(log_id, **bounds)


class Case:
    def __init__(self, ledger: EmbeddedLedger) -> None:
        self.ledger = ledger
        self.catalog = Watched(ledger.catalog)
        self.counts = RecentCounts(self.catalog, LOG_ID, ledger.clock)
        self.now = ledger.clock.now_ms()

    def decide(self, enforcement: str = "deny", *, ago: int = 0, **changes: object) -> None:
        self.ledger.service.time_ms = self.ledger.clock.now_ms() - ago - 1
        self.ledger.decide(enforcement=enforcement, **changes)

    def now_counts(self) -> dict[str, int]:
        return {name: count for name, count in self.counts.now().by_enforcement.items() if count}


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        yield Case(ledger)


def test_an_empty_log_counts_nothing_and_names_every_enforcement(case):
    counts = case.counts.now()
    assert counts.by_enforcement == {"allow": 0, "deny": 0, "ask": 0, "kill": 0}
    assert (counts.total, counts.observed) == (0, 0)


def test_decisions_are_counted_by_enforcement_and_those_observed_apart(case):
    for enforcement, times in (("allow", 3), ("deny", 2), ("ask", 1), ("kill", 4)):
        for _ in range(times):
            case.decide(enforcement)
    case.decide("allow", mode="observe")
    counts = case.counts.now()
    assert counts.by_enforcement == {"allow": 4, "deny": 2, "ask": 1, "kill": 4}
    assert (counts.total, counts.observed) == (11, 1)


def test_what_is_older_than_a_day_is_not_counted(case):
    case.decide(ago=DAY_MS + MINUTE)
    case.decide(ago=DAY_MS - MINUTE)
    assert case.now_counts() == {"deny": 1}


def test_what_grows_older_than_a_day_falls_out(case):
    case.decide()
    assert case.now_counts() == {"deny": 1}
    case.ledger.clock.advance(DAY_MS + MINUTE)
    assert case.now_counts() == {}


def test_what_arrives_later_is_added(case):
    case.decide()
    case.counts.now()
    case.decide("kill")
    case.decide("kill", ago=3 * 3600_000)
    assert case.now_counts() == {"deny": 1, "kill": 2}


def test_what_arrives_late_and_is_too_old_is_not_counted(case):
    case.decide()
    case.counts.now()
    case.decide("kill", ago=2 * DAY_MS)
    assert case.now_counts() == {"deny": 1}


def test_after_the_first_count_only_new_leaves_are_asked_for(case):
    for _ in range(3):
        case.decide()
    for _ in range(4):
        case.counts.now()
    first, *others = case.catalog.asked
    assert set(first) == {"from_ms"}
    assert others == [{"from_index": 4}] * 3


def test_asking_again_counts_nothing_twice(case):
    for _ in range(5):
        case.decide()
        case.counts.now()
    assert case.now_counts() == {"deny": 5}


def test_a_decision_of_a_clock_that_is_ahead_counts_when_its_time_comes(case):
    case.decide(ago=-10 * MINUTE)
    assert case.now_counts() == {}
    case.ledger.clock.advance(11 * MINUTE)
    assert case.now_counts() == {"deny": 1}


def test_a_made_up_time_in_the_far_future_takes_no_memory(case):
    case.decide(ago=-400 * DAY_MS)
    case.counts.now()
    assert case.counts._minutes == {}


# --- in a simulated log ----------------------------------------------------------------------------------------------


@pytest.fixture
def simulated(case):
    records = RecordCache(case.ledger.reader)
    case.counts = RecentCounts(case.catalog, LOG_ID, NewestDecision(case.ledger.catalog, LOG_ID, records))
    return case


def test_before_the_first_decision_there_is_nothing_to_count(simulated):
    assert simulated.now_counts() == {}


def test_the_day_ends_at_the_newest_decision_however_long_ago_that_was(simulated):
    simulated.decide("kill", ago=40 * DAY_MS + DAY_MS + MINUTE)
    simulated.decide("allow", ago=40 * DAY_MS + 3600_000)
    simulated.decide("deny", ago=40 * DAY_MS)
    assert simulated.now_counts() == {"allow": 1, "deny": 1}


def test_the_day_moves_on_with_each_newer_decision_and_never_back(simulated):
    simulated.decide("deny", ago=40 * DAY_MS)
    assert simulated.now_counts() == {"deny": 1}
    simulated.decide("allow", ago=38 * DAY_MS)
    assert simulated.now_counts() == {"allow": 1}
    simulated.decide("kill", ago=60 * DAY_MS)
    assert simulated.now_counts() == {"allow": 1}
