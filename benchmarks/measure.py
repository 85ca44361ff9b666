"""Figures: how they are taken, summed up and written. What is measured is the subjects' part.

A figure is taken several times, in rounds that are interleaved with those of its floor, so that what disturbs the
machine disturbs both. It is written as ``min · median · max`` over the rounds: the distance between the three is the
noise. A ratio is formed in each round, of two neighbours in time, and summed up afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

__all__ = [
    "ABSENT",
    "BenchmarkError",
    "Plan",
    "Section",
    "Stopwatch",
    "Table",
    "figure",
    "percentile",
    "ratios",
    "spread",
    "timed",
]


ABSENT = "n/a"
"""In a cell that has no figure."""


class BenchmarkError(Exception):
    """A subject did not do what it was to measure; its figures would mean nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured, and where.

    Attributes:
        full: No limit of time.
        rounds: How often each figure is taken.
        work: An empty folder, on the disk that is to be measured.
        say: Shows progress, one line.
    """

    full: bool
    rounds: int
    work: Path
    say: Callable[[str], None]

    def choose(self, default: int, full: int) -> int:
        """Return the first number, or the second where time does not matter."""
        return full if self.full else default


@dataclass(slots=True)
class Table:
    """A table of the results.

    Attributes:
        headers: Its columns; the first one names the row, ratios come next.
        rows: Its rows, written out.
    """

    headers: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield the table in Markdown, all columns but the first to the right."""
        yield f"| {' | '.join(self.headers)} |"
        yield f"|---|{'---:|' * (len(self.headers) - 1)}"
        for row in self.rows:
            if len(row) != len(self.headers):
                raise BenchmarkError(f"a row of {len(row)} cells in a table of {len(self.headers)} columns")
            yield f"| {' | '.join(row)} |"


@dataclass(slots=True, kw_only=True)
class Section:
    """What a subject found.

    Attributes:
        title: Its heading.
        method: How it was measured, and what the floor is.
        tables: The figures.
        notes: What a reader must know to read them.
    """

    title: str
    method: str
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield the section in Markdown."""
        yield from (f"## {self.title}", "", self.method, "")
        for table in self.tables:
            yield from table.lines()
            yield ""
        if self.notes:
            yield from ("- " + note.replace("\n", "\n  ") for note in self.notes)
            yield ""


@dataclass(slots=True)
class Stopwatch:
    """What a `timed` block took.

    Attributes:
        seconds: From its beginning to its end.
        cpu_seconds: Processor time of this process, all threads; what else runs on the machine disturbs it less.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0


@contextmanager
def timed() -> Iterator[Stopwatch]:
    """Measure a block; the figure stands once the block has ended."""
    watch = Stopwatch()
    started, cpu_started = perf_counter(), process_time()
    yield watch
    watch.seconds, watch.cpu_seconds = perf_counter() - started, process_time() - cpu_started


def percentile(values: Iterable[float], percent: float) -> float:
    """Return a percentile by nearest rank: a value that was really measured."""
    ordered = sorted(values)
    if not ordered:
        raise BenchmarkError("a percentile of nothing")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def ratios(values: Sequence[float], floors: Sequence[float]) -> list[float]:
    """Return value ÷ floor, round by round."""
    return [value / floor for value, floor in zip(values, floors, strict=True)]


def figure(value: float) -> str:
    """Write a number with three significant digits, or all digits before the point."""
    # 99.95 and above round to three digits before the point.
    return f"{value:#.3g}" if 0 < abs(value) < 99.95 else f"{value:,.0f}"


def spread(values: Sequence[float]) -> str:
    """Write figures of several rounds as ``min · median · max``; the floor's own ratio, which is 1, as that."""
    low, middle, high = min(values), median(values), max(values)
    if low == high == 1:
        return "1"
    return f"{figure(low)} · **{figure(middle)}** · {figure(high)}"
