"""What gateways have counted together: never given out twice, whatever is sent again, lost or late."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from ledger.clock import SimulatedClock
from ledger.database import open_engine
from ledger.errors import StorageError
from migrations.schema import upgrade
from service import fleet_windows
from service.fleet_windows import FleetWindows, Part, Total

T = 1_763_546_400_000
DAY_MS = 86_400_000
PART = Part(digest="d" * 32, subject="s" * 32, slot=10, first=5, amount=40, forget_ms=T + DAY_MS)
TOTAL = Total(digest="d" * 32, subject="s" * 32, slot=10, total=40, forget_ms=T + DAY_MS)
A, B = "a" * 32, "b" * 32


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    engine = open_engine(f"sqlite:///{tmp_path_factory.mktemp('fleet') / 'ledger.db'}", pool_size=10)
    upgrade(engine)
    yield engine
    engine.dispose()


LOGS = iter(range(1_000_000))


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(T)


@pytest.fixture
def windows(engine: Engine, clock: SimulatedClock) -> FleetWindows:
    return FleetWindows(engine, f"log-{next(LOGS)}", clock)


def uuid(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012}"


def test_each_decision_hears_of_those_before_it_and_of_itself(windows: FleetWindows) -> None:
    assert windows.reserve("g1", uuid(1), [PART]) == [40]
    assert windows.reserve("g2", uuid(2), [replace(PART, amount=2)]) == [42]
    assert windows.reserve("g2", uuid(3), [replace(PART, amount=0)]) == [42]
    assert windows.reserve("g1", uuid(4), [replace(PART, digest="e" * 32), replace(PART, slot=11)]) == [40, 82]


def test_decision_that_asks_again_takes_no_more(windows: FleetWindows) -> None:
    for _ in range(3):
        assert windows.reserve("g1", uuid(1), [PART]) == [40]
    windows.exchange("g1", A, keep=[(uuid(1), [PART])], since=0)
    assert windows.reserve("g2", uuid(2), [replace(PART, amount=0)]) == [40]


def test_what_lies_before_the_first_slot_does_not_count(windows: FleetWindows) -> None:
    windows.reserve("g1", uuid(1), [replace(PART, slot=4)])
    assert windows.reserve("g1", uuid(2), [PART]) == [40]


def test_release_gives_back_once_and_only_what_its_gateway_took(windows: FleetWindows) -> None:
    windows.reserve("g1", uuid(1), [PART])
    windows.exchange("g2", B, release=[uuid(1)], since=0)
    assert windows.reserve("g1", uuid(2), [replace(PART, amount=0)]) == [40]
    for _ in range(2):
        windows.exchange("g1", A, release=[uuid(1)], since=0)
    assert windows.reserve("g1", uuid(2), [replace(PART, amount=0)]) == [0]


def test_reservation_that_arrives_after_its_release_takes_nothing(windows: FleetWindows) -> None:
    windows.exchange("g1", A, release=[uuid(1)], since=0)
    assert windows.reserve("g1", uuid(1), [PART]) == [0]
    windows.exchange("g1", A, keep=[(uuid(1), [PART])], since=0)
    assert windows.reserve("g2", uuid(2), [replace(PART, amount=0)]) == [0]


def test_call_that_was_let_through_while_nobody_answered_is_counted_afterwards(windows: FleetWindows) -> None:
    windows.exchange("g1", A, keep=[(uuid(1), [PART]), (uuid(2), [replace(PART, amount=-15)])], since=0)
    assert windows.reserve("g2", uuid(3), [replace(PART, amount=1)]) == [26]


def test_gateways_hear_of_each_other_and_not_of_themselves(windows: FleetWindows) -> None:
    windows.exchange("g1", A, totals=[TOTAL], since=0)
    windows.exchange("g2", B, totals=[replace(TOTAL, total=2)], since=0)
    windows.exchange("g3", B, totals=[replace(TOTAL, total=100)], since=0)
    assert windows.exchange("g1", A, since=0).totals == (replace(TOTAL, total=102),)
    assert windows.exchange("g2", B, since=0).totals == (replace(TOTAL, total=140),)
    windows.reserve("g1", uuid(1), [PART])
    assert windows.exchange("g2", B, since=0).totals == (replace(TOTAL, total=180),)


def test_gateway_hears_of_what_has_changed_since_and_of_nothing_else(windows: FleetWindows) -> None:
    windows.exchange("g2", B, totals=[TOTAL], since=0)
    page = windows.exchange("g1", A, since=0)
    assert windows.exchange("g1", A, since=page.version) == replace(page, totals=())
    windows.exchange("g2", B, totals=[TOTAL], since=0)  # said again, it is no change
    assert not windows.exchange("g1", A, since=page.version).totals
    windows.exchange("g2", B, totals=[replace(TOTAL, total=0)], since=0)
    assert windows.exchange("g1", A, since=page.version).totals == (replace(TOTAL, total=0),)


def test_version_is_never_below_the_clock_so_that_none_is_given_twice(
    windows: FleetWindows, clock: SimulatedClock
) -> None:
    first = windows.exchange("g1", A, totals=[TOTAL], since=0).version
    second = windows.exchange("g1", A, totals=[replace(TOTAL, total=1)], since=0).version
    clock.advance(60_000)
    third = windows.exchange("g1", A, totals=[replace(TOTAL, total=2)], since=0).version
    assert (first, second, third) == (T, T + 1, T + 60_000)


def test_gateway_of_which_less_is_known_than_it_was_told_hears_so_until_it_is_heard_again(
    windows: FleetWindows,
) -> None:
    said = windows.exchange("g1", A, totals=[TOTAL], since=0)
    assert (said.told, said.lost) == (said.version, False)
    assert not windows.exchange("g1", A, since=said.version, told=said.told).lost
    # As after a restore: nothing of it was ever said here, or less.
    for asked in ({"enforcer_id": "g2", "origin": A}, {"enforcer_id": "g1", "origin": B}):
        page = windows.exchange(**asked, since=said.version, told=said.told)
        assert (page.told, page.lost) == (0, True)
    late = windows.exchange("g1", A, totals=[replace(TOTAL, total=50)], since=0, told=said.told + 5)
    assert (late.told > said.told, late.lost) == (True, True)
    assert not windows.exchange("g1", A, totals=[TOTAL], since=0, told=late.told).lost


def test_answer_that_was_lost_on_the_way_is_no_loss(windows: FleetWindows) -> None:
    windows.exchange("g1", A, totals=[TOTAL], since=0)
    again = windows.exchange("g1", A, totals=[TOTAL], since=0, told=0)
    assert not again.lost


def test_gateway_that_has_lost_its_file_counts_on_under_another_origin(windows: FleetWindows) -> None:
    windows.exchange("g1", A, totals=[TOTAL], since=0)
    assert windows.exchange("g1", B, totals=[replace(TOTAL, total=1)], since=0).totals == (TOTAL,)
    assert windows.reserve("g1", uuid(1), [replace(PART, amount=0)]) == [41]


def test_pages_end_with_a_change_and_miss_nothing(windows: FleetWindows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_windows, "MAX_PAGE", 4)
    for start in (0, 3, 6, 16, 17):
        number = 10 if start == 6 else 3
        totals = [replace(TOTAL, subject=f"{start + place:032}") for place in range(number)]
        windows.exchange("g2", B, totals=totals, since=0)
    heard, since, pages = set(), 0, 0
    while True:
        page = windows.exchange("g1", A, since=since)
        heard |= {total.subject for total in page.totals}
        assert page.version > since or not page.more
        since, pages = page.version, pages + 1
        if not page.more:
            break
    assert heard == {f"{place:032}" for place in range(20)}
    assert pages > 3


def test_totals_are_exact_beyond_64_bits(windows: FleetWindows) -> None:
    most = 2**63 - 1
    for number in range(3):
        windows.reserve("g1", uuid(number), [replace(PART, amount=most)])
    assert windows.reserve("g1", uuid(9), [replace(PART, amount=0)]) == [3 * most]


def test_what_no_window_asks_for_any_more_is_forgotten(windows: FleetWindows, clock: SimulatedClock) -> None:
    windows.reserve("g1", uuid(1), [PART])
    windows.exchange("g2", B, totals=[TOTAL, replace(TOTAL, slot=9, forget_ms=T + 9 * DAY_MS)], since=0)
    clock.advance(2 * DAY_MS + 1)
    windows.exchange("g2", B, totals=[replace(TOTAL, slot=11, forget_ms=T + 9 * DAY_MS)], since=0)
    assert windows.reserve("g1", uuid(2), [replace(PART, amount=0)]) == [80]


def test_gateways_that_are_long_quiet_are_forgotten_and_have_all_of_it_to_say_again(
    windows: FleetWindows, clock: SimulatedClock
) -> None:
    told = windows.exchange("g1", A, totals=[TOTAL], since=0).told
    for days, lost in ((29, False), (2, True)):
        clock.advance(days * DAY_MS)
        windows.exchange("g2", B, totals=[replace(TOTAL, total=days)], since=0)
        assert windows.exchange("g1", A, since=0, told=told).lost == lost


def test_logs_do_not_see_each_other(engine: Engine, windows: FleetWindows, clock: SimulatedClock) -> None:
    windows.reserve("g1", uuid(1), [PART])
    other = FleetWindows(engine, f"log-{next(LOGS)}", clock)
    assert other.reserve("g1", uuid(1), [replace(PART, amount=0)]) == [0]
    assert other.exchange("g1", A, since=0).totals == ()


def test_threads_that_ask_together_are_told_one_after_the_other(windows: FleetWindows) -> None:
    told: list[int] = []

    def ask(number: int) -> None:
        told.extend(windows.reserve(f"g{number % 2}", uuid(number), [replace(PART, amount=1)]))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == list(range(1, 9))


def test_database_that_fails_is_said_to(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    broken = FleetWindows(engine, "acme", SimulatedClock(T))
    with pytest.raises(StorageError):
        broken.reserve("g1", uuid(1), [PART])
    with pytest.raises(StorageError):
        broken.exchange("g1", A, totals=[TOTAL], since=0)
    engine.dispose()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("ask", "keep", "release")),
        st.sampled_from(("g1", "g2")),
        st.integers(0, 5),
        st.sampled_from((1, 30, 45)),
    ),
    max_size=20,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_whatever_comes_in_whatever_order_each_decision_takes_once_until_it_is_released(
    engine: Engine, steps: list[tuple[str, str, int, int]]
) -> None:
    windows = FleetWindows(engine, f"log-{next(LOGS)}", SimulatedClock(T))
    taken: dict[tuple[str, int], int] = {}
    for kind, gateway, number, amount in steps:
        part = replace(PART, amount=amount)
        match kind:
            case "ask":
                told = windows.reserve(gateway, uuid(number), [part])
                taken.setdefault((gateway, number), amount)
                assert told == [sum(taken.values())]
            case "keep":
                windows.exchange(gateway, A, keep=[(uuid(number), [part])], since=0)
                taken.setdefault((gateway, number), amount)
            case _:
                windows.exchange(gateway, A, release=[uuid(number)], since=0)
                taken[gateway, number] = 0
    assert windows.reserve("g1", uuid(9), [replace(PART, amount=0)]) == [sum(taken.values())]
