"""Counting calls of tools by their rows, on both databases: what the decisions say, each leaf in one stretch alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.stores.sql_usage import SQLUsage
from ledger.usage import DAY_MS, UsageTally
from tests.support.ledger import LOG_ID, EmbeddedLedger, Enforcer, make_decision, pending

DAY = 20_000

CALLS: list[dict[str, Any]] = [
    {"agent": "a", "tool": "sell"},
    {"agent": "a", "tool": "sell", "enforcement": "allow"},
    {"agent": "a", "tool": "sell", "enforcement": "allow", "mode": "observe"},
    {"agent": "b", "tool": "sell"},
    {"agent": "b", "tool": "sell", "server": "other"},
    {"agent": "b", "tool": "buy", "enforcement": "ask"},
    {"agent": "b", "tool": "buy", "enforcement": "kill"},
]
NO_CALLS: list[dict[str, Any]] = [
    {"agent": "a", "tool": None, "method": "tools/list"},
    {"agent": "a", "tool": "sell", "method": "prompts/get"},  # a prompt's name is no tool's
    {"agent": "a", "tool": None},  # a call of what is no name
    {"agent": "a", "tool": "sell", "method": None},
]


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedLedger]:
    url = request.getfixturevalue("postgres").new_schema() if request.param == "postgresql" else None
    with EmbeddedLedger(tmp_path, database_url=url) as made:
        yield made


def fill(ledger: EmbeddedLedger, calls: list[dict[str, Any]]) -> int:
    """Append calls, each on a day of its own, and return the leaf of the first."""
    gateway = Enforcer("gateway-1")
    ledger.append(pending(ledger.service.record(ledger.service.introduction(gateway))))
    batch = []
    for number, call in enumerate(calls):
        gateway.time_ms = (DAY + number) * DAY_MS
        batch.append(pending(gateway.record(make_decision(**call)[0])))
    return ledger.append(*batch)[0]


def counted(tallies: list[UsageTally]) -> Counter[tuple[object, ...]]:
    found: Counter[tuple[object, ...]] = Counter()
    for one in tallies:
        found[one.agent, one.server, one.tool, one.enforcement, one.mode] += one.calls
    return found


def test_calls_of_tools_are_counted_and_nothing_else_is(ledger: EmbeddedLedger) -> None:
    fill(ledger, [*CALLS, *NO_CALLS])
    wanted = Counter(
        (
            call["agent"],
            call.get("server", "finance"),
            call["tool"],
            call.get("enforcement", "deny"),
            call.get("mode", "enforce"),
        )
        for call in CALLS
    )
    assert counted(SQLUsage(ledger.engine).usage(LOG_ID, 0, 10_000)) == wanted


def test_stretches_that_lie_side_by_side_count_each_leaf_once(ledger: EmbeddedLedger) -> None:
    first = fill(ledger, CALLS)
    usage = SQLUsage(ledger.engine)
    end = first + len(CALLS)
    whole = counted(usage.usage(LOG_ID, 0, end))
    for middle in range(end + 1):
        assert counted(usage.usage(LOG_ID, 0, middle)) + counted(usage.usage(LOG_ID, middle, end)) == whole


def test_a_tally_names_its_day_its_times_and_its_leaves(ledger: EmbeddedLedger) -> None:
    first = fill(ledger, [{"agent": "a", "tool": "sell"}] * 2)
    found = SQLUsage(ledger.engine).usage(LOG_ID, 0, 10_000)
    assert [(one.day, one.first_index, one.last_index) for one in sorted(found, key=lambda one: one.day)] == [
        (DAY, first, first),
        (DAY + 1, first + 1, first + 1),
    ]
    assert all(one.day == one.first_ms // DAY_MS == one.last_ms // DAY_MS for one in found)


def test_another_log_and_an_empty_stretch_have_no_calls(ledger: EmbeddedLedger) -> None:
    first = fill(ledger, CALLS)
    usage = SQLUsage(ledger.engine)
    assert usage.usage("other", 0, 10_000) == []
    assert usage.usage(LOG_ID, first, first) == []
    assert usage.usage(LOG_ID, 10_000, 20_000) == []
