"""docs/detection.md, made by a measurement: how much of labelled sets the inspector finds, and what it finds in clean
ones.

    python -m tests.detection.measure > docs/detection.md

`tests/detection/test_detection.py` holds the page equal to what this makes, and the figures above their floors. The
sets (`made`, `written`) are apart from the rules: a text is never added because it is found, nor taken out because it
is not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from enforcement.inspection import Inspector, Role, Settings
from tests.detection import made, written

__all__ = ["FLOORS", "Measured", "measured", "page"]

FLOORS = {
    "secret": (0.85, 0.9),
    "personal": (0.8, 0.9),
    "injection": (0.7, 0.85),
    "exfiltration": (0.65, 0.85),
    "unicode": (0.85, 0.9),
    "ansi": (0.95, 0.95),
    "intent": (0.7, 0.9),
}
"""By kind: the lowest recall and precision that a change may leave."""

_SUPPORT = Role(name="support", topics=("messaging",))
_MISSED_SHOWN = 60

_HEAD = """# What inspection finds, and what it misses

This page is made by a measurement (`python -m tests.detection.measure`); a test fails if it is not what it gives. The sets
are in [tests/detection](../tests/detection): keys and personal data are made by a seeded generator, attacks and clean
texts were written by hand, apart from the rules. They are small, and ours: the published corpora of attacks are much
larger, and an attacker who reads the rules can word something that none of them meets. **Inspection is one safeguard
among several; nothing that must not happen should rest on it alone.**

The texts were written before the rules ever met them. What the first measurement showed to be faults of a detector (a card's
range, a way to write a date, a password in an address that passed for a mailbox) was repaired; no rule for wordings was
changed after it, so that the figures for injection, exfiltration and intent are of texts that the rules had not seen.

*Recall*: of the texts of a kind, how many had a finding of that kind. *Precision*: of all texts that had a finding of a
kind, how many were of it; clean texts and those of other kinds count against it, but for overlaps that are meant (an
order to send data away is injection and exfiltration at once). The floors are what the test demands.

| kind | texts | found | recall | floor | found elsewhere | precision | floor |
|---|---:|---:|---:|---:|---:|---:|---:|
"""

_OVERLAPS = {
    "injection": {"exfiltration", "intent"},
    "exfiltration": {"injection", "intent"},
    "personal": {"injection", "exfiltration", "intent", "ansi"},
    "secret": {"exfiltration", "injection", "intent"},
    "unicode": set(),
    "ansi": {"unicode"},
    "intent": set(),
}


@dataclass
class Measured:
    """What was found of one kind."""

    texts: int = 0
    found: int = 0
    elsewhere: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float:
        return self.found / self.texts

    @property
    def precision(self) -> float:
        return self.found / (self.found + len(self.elsewhere)) if self.found else 0.0


def _labelled() -> list[tuple[str, str]]:
    return [
        *(("secret", text) for text in made.secrets()),
        *(("personal", text) for text in made.personal()),
        *made.unicode_and_terminal(),
        *(("injection", text) for text in written.INJECTION),
        *(("exfiltration", text) for text in written.EXFILTRATION),
        *(("intent", text) for text in written.ASKED),
        *(("", text) for text in written.ORDINARY_CALLS),
        *(("", text) for text in written.CLEAN),
    ]


def measured() -> dict[str, Measured]:
    """Return what was found, by kind."""
    inspector = Inspector(Settings())
    results = {kind: Measured() for kind in FLOORS}
    for label, text in _labelled():
        asked = label == "intent" or text in written.ORDINARY_CALLS
        kinds = set(inspector.text(text, role=_SUPPORT if asked else None).kinds)
        for kind, result in results.items():
            if kind == label:
                result.texts += 1
                result.found += kind in kinds
                if kind not in kinds:
                    result.missed.append(text)
            elif kind in kinds and label not in _OVERLAPS[kind]:
                result.elsewhere.append(text)
    return results


def _shown(text: str) -> str:
    plain = "".join(letter if letter.isprintable() else f"\\u{{{ord(letter):x}}}" for letter in text)
    return plain.replace("|", "\\|").replace("`", "'")[:110]


def _lists(title: str, results: dict[str, Measured], choose: str) -> list[str]:
    lines = [f"\n## {title}\n"]
    for kind, result in results.items():
        texts: Sequence[str] = getattr(result, choose)
        lines += [f"- {kind}: `{_shown(text)}`" for text in texts[:_MISSED_SHOWN]]
    return lines if len(lines) > 1 else [*lines, "Nothing."]


def page() -> str:
    """Return the page."""
    results = measured()
    rows = [
        f"| {kind} | {one.texts} | {one.found} | {one.recall:.2f} | {FLOORS[kind][0]:.2f} "
        f"| {len(one.elsewhere)} | {one.precision:.2f} | {FLOORS[kind][1]:.2f} |"
        for kind, one in results.items()
    ]
    clean = len(written.CLEAN) + len(written.ORDINARY_CALLS)
    ordinary = {*written.CLEAN, *written.ORDINARY_CALLS}
    flagged = {text for one in results.values() for text in one.elsewhere if text in ordinary}
    lines = [
        _HEAD + "\n".join(rows),
        f"\nOf {clean} clean texts (prose near attacks, code, logs, JSON of tools, fifteen languages) {len(flagged)} had a",
        "finding. Other tenants' identifiers are lists and patterns of the operator's, and bombs are limits: both are exact,",
        "and their tests are in `tests/unit/enforcement/inspection`.",
        *_lists("Missed", results, "missed"),
        *_lists("Found where they are not", results, "elsewhere"),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
