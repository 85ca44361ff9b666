"""Charts as inline SVG, made from values.

Pure: numbers and legible text in, a `Chart` out. A chart never speaks by colour alone: the kinds of enforcement differ
in lightness and texture, so that they survive a black-and-white print, bars carry their figures, and each chart comes
with one sentence that says what it shows (its alternative text) and the table of all values in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from ledger.errors import EvidenceError
from reports.drawing import ENFORCEMENTS, GREY, INK, LINE, MONO, RED, WIDTH, Canvas, elide, figure, legend, segment
from reports.wording import number, percent, quantity, share

__all__ = ["Chart", "Table", "decisions_over_time", "denials_by_rule", "tools"]

_DAYS_BY_DAY: Final = 31
_DAYS_BY_WEEK: Final = 31 * 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The values of a chart.

    Attributes:
        columns: Headings; the first is that of the rows' names.
        rows: Name and cells.
        note: What the rows leave out, or empty.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A picture, what it says, and its values.

    Attributes:
        svg: An ``svg`` element with a title.
        summary: One or two sentences.
        table: All values in it.
    """

    svg: str
    summary: str
    table: Table


def _check_kinds(rows: Sequence[Mapping[str, int]]) -> None:
    """Refuse an enforcement that the picture has no texture for."""
    if not {kind for row in rows for kind in row} <= set(ENFORCEMENTS):
        raise EvidenceError("the summary counts an unknown kind of enforcement")


# --- decisions over time -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Bucket:
    label: str
    counts: Mapping[str, int]


def _bucket_key(days: int) -> tuple[str, Callable[[date], str]]:
    """Return what a bucket is called and the bucket of a day: days, weeks from Monday, or months."""
    if days <= _DAYS_BY_DAY:
        return "day", lambda day: day.isoformat()
    if days <= _DAYS_BY_WEEK:
        return "week from", lambda day: (day - timedelta(days=day.weekday())).isoformat()
    return "month", lambda day: day.isoformat()[:7]


def _buckets(by_day: Mapping[str, Mapping[str, int]], first: date, last: date) -> tuple[str, list[_Bucket]]:
    days = (last - first).days + 1
    name, key = _bucket_key(days)
    # Days on which nothing happened are part of the picture: begin with an empty bucket for each of the period.
    counts: dict[str, dict[str, int]] = {key(first + timedelta(days=n)): {} for n in range(days)}
    for day, tally in by_day.items():
        bucket = counts.setdefault(key(_date(day)), {})
        for kind, value in tally.items():
            bucket[kind] = bucket.get(kind, 0) + value
    return name, [_Bucket(label, counts[label]) for label in sorted(counts)]


def _date(day: str) -> date:
    try:
        return date.fromisoformat(day)
    except ValueError as error:
        raise EvidenceError("the summary counts decisions of a day that is no date") from error


def _scale(highest: int) -> tuple[int, int]:
    """Return a round top of the axis and the step of its lines."""
    step = 1
    while highest > 4 * step:
        step = {"1": 2, "2": 5, "5": 10}[str(step)[0]] * 10 ** (len(str(step)) - 1)
    return (highest // step + 1) * step, step  # the line above the highest bar: its figure needs room


def decisions_over_time(by_day: Mapping[str, Mapping[str, int]], first: date, last: date) -> Chart:
    """Draw the decisions of each day, week or month of the period by enforcement, stacked.

    Args:
        by_day: UTC day and enforcement to decisions.
        first: First UTC day of the period.
        last: Last UTC day of it; at least ``first``.

    Raises:
        EvidenceError: A day is no date, or an enforcement is unknown.
    """
    name, buckets = _buckets(by_day, first, last)
    _check_kinds([bucket.counts for bucket in buckets])
    totals = [sum(bucket.counts.values()) for bucket in buckets]
    whole, silent = sum(totals), sum(total == 0 for total in totals)
    unit = name.split(maxsplit=1)[0]
    if whole:
        busiest = max(range(len(totals)), key=lambda i: (totals[i], -i))
        summary = (
            f"{quantity(whole, 'decision')} in {quantity(len(buckets), unit)}; most of them, "
            f"{share(totals[busiest], whole)}, in the {name} {buckets[busiest].label}. "
            f"{share(silent, len(buckets))} {unit}s had none."
        )
    else:
        summary = f"No decision in any of {quantity(len(buckets), unit)}."
    canvas = Canvas(WIDTH, 148, f"Decisions by {unit} and enforcement. {summary}")
    _draw_columns(canvas, buckets, max(totals))
    rows = tuple(
        (bucket.label, *(number(bucket.counts.get(kind, 0)) for kind in ENFORCEMENTS), share(total, whole))
        for bucket, total in zip(buckets, totals, strict=True)
        if total
    )
    note = f"{quantity(silent, unit)} without a decision left out." if silent and whole else ""
    columns = (f"{name[0].upper()}{name[1:]} (UTC)", *ENFORCEMENTS, "decisions")
    return Chart(svg=canvas.markup(), summary=summary, table=Table(columns=columns, rows=rows, note=note))


def _draw_columns(canvas: Canvas, buckets: Sequence[_Bucket], highest: int) -> None:
    left, top, bottom, right = 34.0, 28.0, 118.0, WIDTH - 4
    ceiling, step = _scale(max(highest, 1))
    unit = (bottom - top) / ceiling
    for value in range(0, ceiling + 1, step):
        y = bottom - value * unit
        canvas.path(f"M{figure(left)} {figure(y)}H{figure(right)}", stroke=LINE if value else INK, width=0.5)
        canvas.text(left - 6, y + 3.2, number(value), size=9, fill=GREY, anchor="end")
    slot = (right - left) / len(buckets)
    width = min(46.0, slot * 0.62)
    every = -(-len(buckets) // 12)  # at most twelve labels fit beside each other
    for i, bucket in enumerate(buckets):
        x, y = left + slot * i + (slot - width) / 2, bottom
        for kind in ENFORCEMENTS:
            height = bucket.counts.get(kind, 0) * unit
            y -= height
            segment(canvas, kind, x, y, width, height, upright=True)
        total = sum(bucket.counts.values())
        if total and slot >= 16:  # noqa: PLR2004 - narrower than this, figures would touch
            canvas.text(x + width / 2, y - 4, number(total), size=9, anchor="middle")
        if i % every == 0:
            label = bucket.label[5:] if len(bucket.label) > len("2025-01") else bucket.label
            canvas.text(x + width / 2, bottom + 14, label, size=9, fill=GREY, anchor="middle")
    legend(canvas, 12, ENFORCEMENTS)


# --- bars: rules and tools -----------------------------------------------------------------------------------------


def _top(values: Mapping[str, int], most: int) -> tuple[list[tuple[str, int]], int, int]:
    """Return the ``most`` largest (ties by name), how many names are left over and what they add up to.

    One name alone is never left over: a bar that hid it would be as long as its own.
    """
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    if len(ordered) == most + 1:
        most += 1
    rest = ordered[most:]
    return ordered[:most], len(rest), sum(value for _, value in rest)


def denials_by_rule(by_rule: Mapping[str, int], most: int) -> Chart:
    """Draw how many calls each rule or reason stopped, the most frequent first.

    Args:
        by_rule: Rule or reason to calls that did not pass.
        most: Bars to draw; two or more that are left over become one more.
    """
    whole = sum(by_rule.values())
    shown, others, left_over = _top(by_rule, most)
    bars = [*shown, *([(f"{quantity(others, 'other rule')}", left_over)] if others else [])]
    summary = (
        f"{quantity(whole, 'call')} did not pass, for {quantity(len(by_rule), 'rule or reason', 'rules or reasons')}; "
        f"the most frequent, {elide(shown[0][0], 60)}, stopped {share(shown[0][1], whole)}."
        if shown
        else "No call was stopped."
    )
    row = 18.5
    canvas = Canvas(WIDTH, row * max(len(bars), 1) + 4, f"Calls that did not pass, by rule or reason. {summary}")
    left, right = 250.0, WIDTH - 96
    highest = max((value for _, value in bars), default=1)
    for i, (name, value) in enumerate(bars):
        y = row * i + 4
        canvas.text(left - 10, y + 10.5, elide(name, 40), size=9.5, family=MONO, anchor="end")
        width = (right - left) * value / highest
        canvas.rect(left, y, width, 13, RED)
        canvas.text(left + width + 7, y + 10.3, f"{share(value, whole)} · {percent(value, whole)}", size=9.5)
    rows = tuple((name, share(value, whole), percent(value, whole)) for name, value in bars)
    return Chart(
        svg=canvas.markup(),
        summary=summary,
        table=Table(columns=("Rule or reason", "calls stopped", "share"), rows=rows),
    )


def tools(by_tool: Mapping[str, Mapping[str, int]], most: int) -> Chart:
    """Draw the decisions about each target by enforcement, the most called first.

    Args:
        by_tool: ``server/tool``, or ``server/method`` of a message that names no tool, and enforcement to decisions.
        most: Bars to draw; two or more that are left over become one more.

    Raises:
        EvidenceError: An enforcement is unknown.
    """
    _check_kinds(list(by_tool.values()))
    totals = {name: sum(tally.values()) for name, tally in by_tool.items()}
    whole = sum(totals.values())
    shown, others, _ = _top(totals, most)
    bars = [(name, by_tool[name]) for name, _ in shown]
    if others:
        named = {name for name, _ in shown}
        rest = {kind: sum(t.get(kind, 0) for n, t in by_tool.items() if n not in named) for kind in ENFORCEMENTS}
        bars.append((quantity(others, "other target"), rest))
    stopped = whole - sum(tally.get("allow", 0) for tally in by_tool.values())
    summary = (
        f"{quantity(len(by_tool), 'target')} in {quantity(whole, 'decision')}; the most called, "
        f"{elide(shown[0][0], 60)}, in {share(shown[0][1], whole)}. {share(stopped, whole)} calls did not pass."
        if shown
        else "No target was called."
    )
    row = 18.5
    canvas = Canvas(WIDTH, row * max(len(bars), 1) + 24, f"Decisions by target and enforcement. {summary}")
    legend(canvas, 12, ENFORCEMENTS)
    left, right = 250.0, WIDTH - 96
    highest = max((sum(tally.values()) for _, tally in bars), default=1) or 1
    for i, (name, tally) in enumerate(bars):
        y, x = row * i + 24, left
        canvas.text(left - 10, y + 10.5, elide(name, 40), size=9.5, family=MONO, anchor="end")
        for kind in ENFORCEMENTS:
            width = (right - left) * tally.get(kind, 0) / highest
            segment(canvas, kind, x, y, width, 13, upright=False)
            x += width
        total = sum(tally.values())
        canvas.text(x + 7, y + 10.3, f"{share(total, whole)}", size=9.5)
    rows = tuple(
        (
            name,
            *(number(tally.get(kind, 0)) for kind in ENFORCEMENTS),
            share(sum(tally.values()) - tally.get("allow", 0), sum(tally.values())),
            share(sum(tally.values()), whole),
        )
        for name, tally in bars
    )
    columns = ("Server and tool or method", *ENFORCEMENTS, "did not pass", "decisions")
    return Chart(svg=canvas.markup(), summary=summary, table=Table(columns=columns, rows=rows))
