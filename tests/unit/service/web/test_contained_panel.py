"""The panel of what is stopped: what, until when, where it leads; nothing where there is nothing to say."""

from __future__ import annotations

from typing import Any

import pytest

from ledger.containments import REVIEW_MS, Order
from ledger.restrictions import Restriction, RestrictionSet
from service.containments import State
from service.web.contained import MAX_ROWS, ContainedPanel, ContainedRow, contained_panel

NOW = 1_763_982_000_000
USER, SESSION = "a" * 32, "c" * 32


def ident(number: int) -> str:
    return f"01990000-0000-7000-8000-{number:012x}"


def order(scope: str = "agent", number: int = 1, *, since_ms: int = NOW, **options: Any) -> Order:
    kill = scope == "principal"
    members = options.pop("members", {"agent": "bot"})
    restriction = Restriction(
        restriction_id=ident(number),
        kind="kill" if kill else "containment",
        scope=scope,  # type: ignore[arg-type]  # one of them
        since_ms=since_ms,
        until_ms=None if kill else NOW + 3_600_000,
        **members,
    )
    return Order(
        restriction=restriction,
        leaf=4000 + number,
        ordered_by=USER,
        ordered_role="responder",
        ordered_key=None,
        **options,
    )


def panel(*orders: Order) -> ContainedPanel:
    return contained_panel(State(RestrictionSet(), orders), NOW)


def row(*orders: Order) -> ContainedRow:
    (found,) = panel(*orders).rows
    return found


def test_where_nothing_is_stopped_nothing_is_said():
    assert not panel()
    ended = order(ended="released", ended_ms=NOW)
    assert not panel(ended)
    assert panel(ended).rows == ()


@pytest.mark.parametrize(
    ("scope", "members", "told"),
    [
        ("agent", {"agent": "a b&c"}, ("Agent", "a b&c", "/?agent=a+b%26c")),
        ("session", {"session": SESSION}, ("Session", "cccccccc…", f"/sessions/{SESSION}")),
        ("tool", {"server": "bank", "tool": "pay"}, ("Tool", "bank/pay", "/?tool=pay")),
        ("server", {"server": "bank"}, ("Server", "bank", "")),
        ("all", {}, ("Everything", "", "")),
        ("principal", {"agent": "bot", "user": USER}, ("Agent for one user", "bot", f"/decisions/{ident(1)}")),
        ("principal", {"agent": "bot"}, ("Agent for nobody", "bot", f"/decisions/{ident(1)}")),
    ],
)
def test_each_says_what_is_stopped_and_leads_to_it(scope: str, members: dict[str, Any], told: tuple[str, ...]):
    found = row(order(scope, members=members))
    assert (found.what, found.name, found.place) == told
    assert USER not in repr(found)


def test_a_containment_says_until_when_and_how_its_review_stands():
    found = row(order())
    assert (found.word, found.until, found.leaf) == ("Contained", "2025-11-24 12:00:00 UTC", "4,001")
    assert (found.review, found.overdue, found.release) == ("due 2025-11-25 11:00:00 UTC", False, "")
    late = row(order(since_ms=NOW - REVIEW_MS))
    assert (late.review, late.overdue) == ("overdue", True)
    done = row(order(since_ms=NOW - REVIEW_MS, reviewed_ms=NOW, reviewed_by=USER, verdict="unfounded"))
    assert (done.review, done.overdue) == ("unfounded", False)
    assert row(order(requested_by=USER)).release == "asked for; somebody else confirms it"


def test_a_kill_ends_by_release_alone_and_is_nobodys_to_review():
    found = row(order("principal", since_ms=NOW - REVIEW_MS))
    assert (found.word, found.until, found.review, found.overdue) == ("Killed", "it is released", "", False)


def test_the_latest_are_shown_containments_first_and_no_more_than_fit():
    kills = [order("principal", number) for number in range(50, 53)]
    shown = panel(*(order(number=number) for number in range(MAX_ROWS - 1)), *kills)
    assert shown.summary == f"{MAX_ROWS - 1} containments and 3 kills in force."
    assert [found.leaf for found in shown.rows] == ["4,004", "4,003", "4,002", "4,001", "4,000", "4,052"]
    assert shown.more == 2


def test_a_review_that_is_overdue_is_said_of_what_has_ended_as_well():
    shown = panel(order(since_ms=NOW - REVIEW_MS, ended="expired", ended_ms=NOW), order(number=2, ended="expired"))
    assert (shown.summary, shown.overdue) == ("", "1 containment ended without the review that was due.")
    assert shown
