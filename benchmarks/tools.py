"""Pins: a server's list of tools read and held against what stands, beside parsing and hashing the same bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from benchmarks.measure import BenchmarkError, Plan, Section, Table, figure, ratios, spread, timed
from enforcement.pin_rules import Neighbours, Pin, judge
from enforcement.tool_definitions import Definition, read_definitions

__all__ = ["run"]

_TOOLS: Final = 200
_NEIGHBOURS: Final = 200
_REPEATS: Final = 20
_SIZES: Final = (50, 100, 200, 400, 800)

_METHOD = """A list of {tools} tools ({kilobytes} KB: a description of four sentences and six described parameters
each), another server with {neighbours} tools beside it. *Again*: the list is as it was the last time, as all but
always: read, sliced, and each definition found by its text. *First sight*: nothing of it was ever seen: canonical JSON,
digest, look-alikes, hidden characters, renames and mentions of every tool. *Floor*: `json.loads` and SHA-256 of the
same bytes. Processor time; {rounds} interleaved rounds; figures are min · **median** · max."""

_NOTE = """The aim is 1 ms for a list of 200 tools. The list as it was keeps to it; the first sight of a definition
costs more, once for each definition. Time grows with the size of the list, and on hostile lists no faster."""


def _tool(number: int, text: str = "") -> dict[str, Any]:
    said = f"Does the thing number {number} for a customer, and tells what came of it. " * 4
    taken = {f"argument_{at}": {"type": "string", "description": f"what to take for number {at}"} for at in range(6)}
    schema = {"type": "object", "properties": taken, "required": ["argument_0"]}
    return {"name": f"tool_{number}", "title": f"Tool {number}", "description": text or said, "inputSchema": schema}


def _listing(tools: list[dict[str, Any]]) -> bytes:
    return json.dumps({"tools": tools}, separators=(",", ":"), ensure_ascii=False).encode()


_HOSTILE: Final[Mapping[str, Callable[[int], bytes]]] = {
    "words without an end": lambda count: _listing([_tool(at, "a.b-c:d/" * 128) for at in range(count)]),
    "half a mention": lambda count: _listing([_tool(at, "`tool tool(" * 96) for at in range(count)]),
    "one look": lambda count: _listing([{**_tool(at), "name": "t" + "o0O"[at % 3] * (at + 1)} for at in range(count)]),
    "one body": lambda count: _listing([{**_tool(0), "name": f"tool_{at}"} for at in range(count)]),
    "hidden": lambda count: _listing([_tool(at, "\u200b\u202e\U000e0041" * 340) for at in range(count)]),
}


def _judge(definitions: list[Definition], pins: Mapping[str, Pin], neighbours: Neighbours) -> dict[str, Pin]:
    found = judge(
        "first_use", definitions, pins, whole=True, manifest={}, verdicts={}, neighbours=neighbours, version=1
    )
    return {one.pin.tool: one.pin for one in found}


def _seconds(repeats: int, work: Callable[[], object]) -> float:
    with timed() as watch:
        for _ in range(repeats):
            work()
    return watch.cpu_seconds / repeats


def run(plan: Plan) -> Section:
    """Measure and return the section."""
    neighbours = Neighbours.of([("other", f"read_file_{at}") for at in range(_NEIGHBOURS)])
    listing = _listing([_tool(at) for at in range(_TOOLS)])
    definitions = read_definitions(listing, {})
    known = {one.text: one for one in definitions}
    pins = _judge(definitions, {}, neighbours)
    if len(pins) != _TOOLS or any(pin.state != "pinned" for pin in pins.values()):
        raise BenchmarkError("the tools of a sound list do not stand")
    floor: list[float] = []
    again: list[float] = []
    first: list[float] = []
    for _ in range(plan.rounds):
        floor.append(_seconds(_REPEATS, lambda: (json.loads(listing), hashlib.sha256(listing).digest())))
        again.append(_seconds(_REPEATS, lambda: _judge(read_definitions(listing, known), pins, neighbours)))
        first.append(_seconds(3, lambda: _judge(read_definitions(listing, {}), {}, neighbours)))
    table = Table(("", "÷ floor", "ms"))
    for name, values in (("floor", floor), ("again", again), ("first sight", first)):
        table.rows.append((name, spread(ratios(values, floor)), spread([1000 * value for value in values])))
    growth = Table(("first sight, µs for each tool", *(f"{size} tools" for size in _SIZES)))
    for name, make in {"sound": lambda count: _listing([_tool(at) for at in range(count)]), **_HOSTILE}.items():
        growth.rows.append((name, *(_each(make(size), size, neighbours) for size in _SIZES)))
        plan.say(f"{name}: {growth.rows[-1][-1]} µs for each tool")
    method = _METHOD.format(tools=_TOOLS, kilobytes=len(listing) // 1000, neighbours=_NEIGHBOURS, rounds=plan.rounds)
    return Section(title="Pins", method=method, tables=[table, growth], notes=[_NOTE])


def _each(listing: bytes, size: int, neighbours: Neighbours) -> str:
    seconds = min(_seconds(1, lambda: _judge(read_definitions(listing, {}), {}, neighbours)) for _ in range(3))
    return figure(1_000_000 * seconds / size)
