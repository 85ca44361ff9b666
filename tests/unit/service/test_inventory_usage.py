"""Uses are counted once, piece by piece; what is not counted yet, and what has no room, is said."""

from __future__ import annotations

import pytest

from ledger.errors import StorageError
from ledger.usage import DAY_MS, UsageTally
from service.inventory_usage import UsageCounts, Use


def tally(leaf: int = 0, *, calls: int = 1, day: int = 100, **members: str) -> UsageTally:
    values = {"agent": "bot", "server": "shop", "tool": "sell", "enforcement": "allow", "mode": "enforce", **members}
    at = day * DAY_MS
    return UsageTally(
        **values, day=day, calls=calls, first_index=leaf, last_index=leaf + calls - 1, first_ms=at, last_ms=at + calls
    )


class Leaves:
    """A log in which each leaf is a call, that of its tally."""

    def __init__(self, *tallies: UsageTally) -> None:
        self.tallies = list(tallies)
        self.asked: list[tuple[int, int]] = []
        self.broken = False

    def usage(self, log_id: str, start: int, end: int) -> list[UsageTally]:
        assert log_id == "acme"
        if self.broken:
            raise StorageError("broken")
        self.asked.append((start, end))
        return [one for one in self.tallies if start <= one.first_index < end]


def test_a_leaf_is_counted_once_however_often_somebody_looks() -> None:
    leaves = Leaves(tally(0), tally(1))
    counts = UsageCounts("acme", leaves, piece=10)
    assert counts.look(2).calls == counts.look(2).calls == 2
    leaves.tallies.append(tally(2))
    found = counts.look(3)
    assert (found.calls, found.size, found.complete, leaves.asked) == (3, 3, True, [(0, 2), (2, 3)])
    use = found.uses["bot", "shop", "sell"]
    assert (use.calls, use.first_leaf, use.last_leaf) == (3, 0, 2)


def test_a_long_log_is_counted_piece_by_piece_and_says_how_far_it_came() -> None:
    leaves = Leaves(*(tally(leaf) for leaf in range(10)))
    counts = UsageCounts("acme", leaves, piece=2, pieces=2)
    found = [counts.look(10) for _ in range(3)]
    assert [(one.size, one.complete, one.calls) for one in found] == [(4, False, 4), (8, False, 8), (10, True, 10)]


@pytest.mark.parametrize(
    ("enforcement", "mode", "counted"),
    [
        ("allow", "enforce", (1, 0, 0)),
        ("deny", "enforce", (0, 1, 0)),
        ("kill", "enforce", (0, 1, 0)),
        ("ask", "enforce", (0, 0, 1)),
        ("deny", "observe", (1, 0, 0)),  # it was not enforced
        ("ask", "observe", (1, 0, 0)),
    ],
)
def test_what_was_let_through_is_told_apart(enforcement: str, mode: str, counted: tuple[int, int, int]) -> None:
    found = UsageCounts("acme", Leaves(tally(enforcement=enforcement, mode=mode))).look(1)
    use = found.uses["bot", "shop", "sell"]
    assert (use.passed, use.refused, use.held) == counted
    assert use.within(7, 100) == counted[0]


@pytest.mark.parametrize(("day", "within"), [(100, 1), (94, 1), (93, 0), (101, 0), (-5, 0)])
def test_a_window_ends_today_and_holds_what_its_days_say(day: int, within: int) -> None:
    use = Use()
    use.add(tally(day=day))
    assert use.within(7, 100) == within


def test_ever_new_names_are_counted_and_left_out_beyond_a_bound() -> None:
    leaves = Leaves(*(tally(number, tool=f"t{number}") for number in range(5)))
    found = UsageCounts("acme", leaves, pairs=3).look(5)
    assert (len(found.uses), found.calls, found.left_out) == (3, 5, 2)


def test_days_are_bounded_and_a_day_that_is_yet_to_come_takes_none_away() -> None:
    leaves = Leaves(*(tally(number, day=number) for number in range(1000)), tally(1000, day=10**6))
    use = UsageCounts("acme", leaves).look(1001).uses["bot", "shop", "sell"]
    assert len(use.days) <= 400
    assert (use.calls, use.within(90, 999)) == (1001, 90)


def test_a_failure_loses_nothing_that_was_counted_and_counts_nothing_twice() -> None:
    leaves = Leaves(tally(0), tally(1))
    counts = UsageCounts("acme", leaves)
    counts.look(1)
    leaves.broken = True
    with pytest.raises(StorageError):
        counts.look(2)
    leaves.broken = False
    assert counts.look(2).calls == 2


def test_what_somebody_was_given_does_not_change_under_him() -> None:
    leaves = Leaves(tally(0))
    counts = UsageCounts("acme", leaves)
    before = counts.look(1)
    leaves.tallies.append(tally(1))
    counts.look(2)
    assert (before.calls, before.uses["bot", "shop", "sell"].calls) == (1, 1)
