"""Findings taken out of a text: each span becomes a mark that names kind and rule.

Pure. A mark is of letters and signs that stand in a JSON string as they are, and never what was there.

INVARIANT: a JSON text stays one. A span within a string is replaced in place; a number, or a word such as ``true``,
becomes a string. All other bytes stay as they were received.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from enforcement.inspection import json_text
from enforcement.inspection.findings import Finding

__all__ = ["redacted_json", "redacted_text"]


def _mark(names: Iterable[str]) -> str:
    return f"[redacted {', '.join(sorted(set(names)))}]"


def _merged(findings: Sequence[Finding]) -> list[tuple[int, int, str]]:
    """Return spans that do not touch each other, with their marks; what spans nothing has nothing to replace."""
    groups: list[tuple[int, int, list[str]]] = []
    for finding in sorted(findings, key=lambda one: (one.start, one.end)):
        if finding.start >= finding.end:
            continue
        if groups and finding.start < groups[-1][1]:
            start, end, names = groups[-1]
            groups[-1] = (start, max(end, finding.end), [*names, finding.name])
        else:
            groups.append((finding.start, finding.end, [finding.name]))
    return [(start, end, _mark(names)) for start, end, names in groups]


def redacted_text(text: str, findings: Sequence[Finding]) -> str:
    """Return a text with the findings of `Inspector.text` replaced by marks."""
    made: list[str] = []
    done = 0
    for start, end, mark in _merged(findings):
        made += (text[done:start], mark)
        done = end
    return "".join([*made, text[done:]])


def redacted_json(data: bytes, findings: Sequence[Finding]) -> bytes:
    """Return a JSON text with the findings of `Inspector.json` replaced by marks.

    Args:
        data: What was inspected.
        findings: Those to replace. One of kind ``bomb``, and one without a span, has nothing that could be.
    """
    spans = _merged([finding for finding in findings if finding.kind != "bomb"])
    made: list[bytes] = []
    done = 0
    number = 0
    for start, end, quoted in json_text.tokens(data):
        if number == len(spans):
            break
        marks: list[tuple[int, int, str]] = []
        while number < len(spans) and spans[number][0] < end:
            if spans[number][1] > start:
                marks.append((max(start, spans[number][0]), min(end, spans[number][1]), spans[number][2]))
            if spans[number][1] > end:
                break
            number += 1
        if not quoted and marks:
            marks = [(start, end, f'"{marks[0][2]}"')]
        for first, last, mark in marks:
            made += (data[done:first], mark.encode())
            done = last
    return b"".join([*made, data[done:]])
