"""The examples of ``docs/boundaries.md`` are true."""

from __future__ import annotations

import re
from pathlib import Path

from policies.boundaries import BoundaryFacts, parse_boundaries

_TEXT = (Path(__file__).parents[3] / "docs" / "boundaries.md").read_text(encoding="utf-8")
_ROW = re.compile(r"\| `(\w+)` with `(.*?)` \| (true|false) \| ?(.*?) ?\|")


def test_documented_file_gives_the_documented_drift():
    (example,) = re.findall(r"```json\n(\{\n  \"format\": \"tallystick\.boundaries/1\".*?)```", _TEXT, re.DOTALL)
    boundaries = parse_boundaries(example.encode())
    rows = _ROW.findall(_TEXT)
    assert len(rows) == 8
    for tool, arguments, known, codes in rows:
        expected = BoundaryFacts(known=known == "true", drift=tuple(re.findall(r"`([^`]+)`", codes)))
        assert boundaries.facts("shop", tool, arguments) == expected
