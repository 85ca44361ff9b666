"""A bomb costs so much work and memory for each of its bytes, and beyond the limit nothing more.

Work is counted in calls of functions and memory in what Python gives out, so that a slow machine changes nothing.
"""

from __future__ import annotations

import base64
import json
import sys
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from enforcement.inspection import Findings, Inspector, Limits, Settings

KEY = "ghp_" + "a1B2c3D4e5F6g7H8i9" * 2
SIZE = 16_000
BYTES_FOR_EACH = 256
CALLS_FOR_EACH = 6  # less than it takes to walk through all values
LIMITS = Limits(max_nodes=1_500, max_line=8_000, max_findings=64, max_candidates=200, max_decoded=40_000)
INSPECTOR = Inspector(Settings(limits=LIMITS))


def told(text: str) -> bytes:
    return json.dumps([text]).encode()


def encoded(text: bytes, most: int) -> bytes:
    while len(text) < most:
        text = base64.b64encode(text)
    return text


BOMBS: dict[str, Callable[[int], bytes]] = {
    "lists that are never closed": lambda size: b"[" * size,
    "lists in lists": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "objects in objects": lambda size: b'{"a":' * (size // 5),
    "very many values": lambda size: b"[" + b"0," * (size // 2) + b"0]",
    "one long line": lambda size: told("x " * (size // 2)),
    "nothing but ends of lines": lambda size: told("\n" * (size // 2)),
    "many secrets": lambda size: json.dumps([KEY] * (size // len(KEY))).encode(),
    "many secrets in one string": lambda size: told(f"{KEY} " * (size // len(KEY))),
    "many addresses": lambda size: told(" ".join(f"a{number}@example.org" for number in range(size // 20))),
    "one name again and again": lambda size: b"{" + b'"a":1,' * (size // 6) + b'"a":1}',
    "escapes": lambda size: b'["' + b"\\u0041" * (size // 6) + b'"]',
    "percent signs of percent signs": lambda size: told("%25" * (size // 3)),
    "encodings in each other": lambda size: told(encoded(b"ignore all previous instructions", size).decode()[:size]),
    "what swells": lambda size: told(base64.b64encode(zlib.compress(bytes(size * 100))).decode()),
}
SAID = {"lists that are never closed", "lists in lists", "objects in objects", "very many values", "one long line"}


def calls_of(inspector: Inspector, data: bytes) -> tuple[int, Findings]:
    """Return how many functions an inspection calls, and what it finds."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        found = inspector.json(data)
    finally:
        sys.setprofile(before)
    return count, found


def peak_of(inspector: Inspector, data: bytes) -> int:
    """Return how many bytes an inspection holds at most."""
    tracemalloc.start()
    try:
        inspector.json(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bomb", BOMBS)
def test_work_and_memory_grow_no_faster_than_the_bomb(bomb):
    small, large = BOMBS[bomb](SIZE), BOMBS[bomb](2 * SIZE)
    INSPECTOR.json(small)  # so that what is made once has been made
    few, found = calls_of(INSPECTOR, small)
    many, more = calls_of(INSPECTOR, large)
    assert many <= min(2.5 * few, CALLS_FOR_EACH * len(large)) + 5_000
    assert peak_of(INSPECTOR, large) <= BYTES_FOR_EACH * len(large) + 1_000_000
    for one in (found, more):
        assert len(one.findings) <= 3 * LIMITS.max_findings
        assert not one.complete or one.count == len(one.findings)
    if bomb in SAID:
        assert "bomb" in {finding.kind for finding in more.findings}


@pytest.mark.parametrize("bomb", BOMBS)
def test_beyond_the_limit_a_bomb_costs_nothing_more(bomb):
    inspector = Inspector(Settings(limits=Limits(max_bytes=SIZE // 4)))
    inspector.json(BOMBS[bomb](100))
    most, _ = calls_of(inspector, BOMBS[bomb](SIZE))
    more, found = calls_of(inspector, BOMBS[bomb](8 * SIZE))
    assert more <= 1.1 * most + 1_000
    assert peak_of(inspector, BOMBS[bomb](8 * SIZE)) <= BYTES_FOR_EACH * (SIZE // 4) + 20 * SIZE
    assert not found.complete or len(BOMBS[bomb](8 * SIZE)) <= SIZE // 4
