"""Inspection: what a call, a clean text and a hostile one cost, beside a hash of the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from benchmarks.measure import Plan, Section, Table, figure, ratios, spread, timed
from benchmarks.plot import Series, line_chart
from enforcement.inspection import Inspector

__all__ = ["run"]

_ROOT = Path(__file__).resolve().parent.parent
_CHART = "inspection.svg"
_CALLS = 50
_CALL_BYTES = 4096
_SIZES = (64 << 10, 128 << 10, 256 << 10, 512 << 10)
_METHOD = """Processor time of `Inspector.json` for JSON and `Inspector.text` for the others, rules compiled beforehand.
*Floor*: SHA-256 of the same bytes. A call is one of 4 KiB, whose argument is prose; clean texts are sentences without
any word that a rule looks for, this repository's documents, which have many, its sources, and a list of
small objects. {rounds} rounds; figures are min · **median** · max."""

_PLAIN = (
    b"The brown fox jumps over the lazy dog while seven women drink tea by the river. It was a calm day in the hills.\n"
)
_HOSTILE: dict[str, bytes] = {
    "orders without an object": b"ignore all that you ",
    "digits and spaces": b"4111 1111 1111 1112 ",
    "opened and never closed": b'![x](<!--{["<|',
    "escapes": b"%41\\u0042&#67;",
}


def _joined(pattern: str, most: int) -> bytes:
    texts = (path.read_bytes() for path in sorted(_ROOT.glob(pattern)))
    return b"\n".join(islice(texts, 400))[:most].decode(errors="ignore").encode()


def _seconds(inspect: Callable[[], object]) -> float:
    with timed() as watch:
        inspect()
    return watch.cpu_seconds


def run(plan: Plan) -> Section:
    """Measure and return the section."""
    inspector = Inspector()
    most = plan.choose(1 << 20, 4 << 20)
    table = Table(["text", "÷ floor", "MB/s", "ms", "findings"])
    prose = _joined("docs/*.md", most)
    call = json.dumps(
        {"name": "search", "arguments": {"query": prose[5000:].decode(errors="replace")[: _CALL_BYTES - 60]}}
    )
    rows = [json.dumps({"id": number, "name": f"item {number}", "tags": ["a", "b"]}) for number in range(most // 50)]
    texts: dict[str, tuple[bytes, int]] = {
        "a call of 4 KiB": (call.encode(), _CALLS),
        "plain prose": ((_PLAIN * (most // len(_PLAIN) + 1))[:most], 1),
        "our documents": (prose, 1),
        "source code": (_joined("ledger/*.py", most), 1),
        "JSON of small objects": (f"[{','.join(rows)}]".encode()[:most], 1),
    }
    for name, (data, times) in texts.items():
        table.rows.append(_row(plan, inspector, name, data, times))
    hostile = Table(["hostile text", *(f"{size >> 10} KiB, ms" for size in _SIZES), "÷ that of an eighth"])
    series = [_hostile(plan, inspector, name, unit, hostile) for name, unit in _HOSTILE.items()]
    chart = line_chart(
        "Inspection of hostile texts",
        across="size",
        up="ms of processor time",
        series=series,
        marks=[f"{size >> 10} KiB" for size in _SIZES],
    )
    (_ROOT / "benchmarks" / _CHART).write_text(chart, encoding="utf-8")
    return Section(
        title="Inspection",
        method=_METHOD.format(rounds=plan.rounds),
        tables=[table, hostile],
        notes=[f"![Inspection of hostile texts]({_CHART}): linear, if eight times the size takes eight times as long."],
    )


def _row(plan: Plan, inspector: Inspector, name: str, data: bytes, times: int) -> list[str]:
    text = "" if data[:1] in b"{[" else data.decode()

    def look() -> None:
        for _ in range(times):
            _ = inspector.text(text) if text else inspector.json(data)

    def floor() -> None:
        for _ in range(times * 20):
            hashlib.sha256(data).digest()

    look()
    taken, floors = [], []
    for _ in range(plan.rounds):
        taken.append(_seconds(look) / times)
        floors.append(_seconds(floor) / times / 20)
    best = min(taken)
    plan.say(f"{name}: {1000 * best:.2f} ms, {len(data) / best / 1e6:.0f} MB/s")
    count = (inspector.text(text) if text else inspector.json(data)).count
    rates = [len(data) / seconds / 1e6 for seconds in taken]
    return [
        name,
        spread(ratios(taken, floors)),
        spread(rates),
        spread([1000 * seconds for seconds in taken]),
        str(count),
    ]


def _hostile(plan: Plan, inspector: Inspector, name: str, unit: bytes, table: Table) -> Series:
    best: list[float] = []
    for size in _SIZES:
        data = (unit * (size // len(unit) + 1))[:size]
        best.append(min(_seconds(lambda data=data: inspector.json(data)) for _ in range(plan.rounds)))  # type: ignore[misc]
    table.rows.append([name, *(figure(1000 * seconds) for seconds in best), figure(best[-1] / best[0])])
    return Series(name, [1000 * seconds for seconds in best])
