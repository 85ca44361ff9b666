"""The gateway over time and with streams: whether many calls slow it down, when the first event is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from benchmarks.callers import Way, soaked, streamed
from benchmarks.measure import ABSENT, Plan, Table, percentile, ratios, spread

__all__ = ["Streams", "soak_table"]

_STREAMED = "a streamed benchmark"
_STREAMS = 100
_BLOCK = 20
_CALLERS = 16


@dataclass(slots=True)
class Streams:
    """Milliseconds to the first event, by way and round: one stream at a time, and many at once.

    Attributes:
        alone: Median of each round, one stream at a time.
        crowded: The same with `_STREAMS` at once.
        crowded_late: Their 95th percentile.
        sent: Calls in all, by way.
    """

    alone: dict[str, list[float]] = field(default_factory=dict)
    crowded: dict[str, list[float]] = field(default_factory=dict)
    crowded_late: dict[str, list[float]] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    def measure(self, plan: Plan, way: Way, settle: Callable[[], None]) -> None:
        """Take a round of one way."""
        way = replace(way, note=_STREAMED)
        blocks, each = plan.choose(2, 10), plan.choose(2, 10)
        one = [value for _ in range(blocks) for value in asyncio.run(streamed(way, callers=1, each=_BLOCK))]
        settle()
        many = asyncio.run(streamed(way, callers=_STREAMS, each=each))
        settle()
        self.alone.setdefault(way.name, []).append(median(one))
        self.crowded.setdefault(way.name, []).append(median(many))
        self.crowded_late.setdefault(way.name, []).append(percentile(many, 95))
        self.sent[way.name] = self.sent.get(way.name, 0) + blocks * (_BLOCK + 1) + _STREAMS * (each + 1)

    def table(self, labels: Mapping[str, str], direct: str) -> Table:
        """Return what was found, beside the way ``direct``."""
        table = Table(
            (
                "first event of a stream",
                "one at a time, p50 ÷ direct",
                f"{_STREAMS} at once, p50 ÷ direct",
                "added to direct, p50, ms",
                "p50, ms",
                f"{_STREAMS} at once, p50, ms",
                f"{_STREAMS} at once, p95, ms",
            )
        )
        for name, alone in self.alone.items():
            both = tuple(spread(ratios(found[name], found[direct])) for found in (self.alone, self.crowded))
            added = [value - floor for value, floor in zip(alone, self.alone[direct], strict=True)]
            table.rows.append(
                (
                    labels[name],
                    *both,
                    ABSENT if name == direct else spread(added),
                    spread(alone),
                    spread(self.crowded[name]),
                    spread(self.crowded_late[name]),
                )
            )
        return table


def soak_table(plan: Plan, way: Way, label: str, memory: Callable[[], float | None]) -> tuple[Table, int]:
    """Call one way for long; return what changed between the first tenth of the calls and the last, and how many calls.

    Args:
        plan: How many.
        way: The way.
        label: What it is called.
        memory: Tells the resident memory of the process that is called, MiB.
    """
    count = plan.choose(4_000, 100_000)
    asyncio.run(soaked(way, callers=_CALLERS, count=count // 10))  # its memory and files have their size then
    before = memory()
    taken = asyncio.run(soaked(way, callers=_CALLERS, count=count))
    after = memory()
    tenth = count // 10
    first, last = taken[:tenth], taken[-tenth:]
    headers = (
        f"{count:,} calls by {_CALLERS} callers",
        "last tenth ÷ first, p50",
        "last ÷ first, p95",
        "p50 of the last, ms",
        "resident memory after ÷ before",
    )
    grown = ABSENT if before is None or after is None else f"{after / before:.3f}"
    p50, p95 = ((percentile(last, percent), percentile(first, percent)) for percent in (50, 95))
    row = (label, f"{p50[0] / p50[1]:.2f}", f"{p95[0] / p95[1]:.2f}", f"{p50[0]:.1f}", grown)
    return Table(headers, [row]), count + count // 10
