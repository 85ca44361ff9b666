"""What an inspection found: kinds, rules and places, and never a value.

Pure.

INVARIANT: nothing of the text that was inspected stands in a finding. A rule's name is ours or the operator's; a
place is a line's number or a JSON pointer, of whose names only those stay that are plain words and touch no finding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

__all__ = ["KINDS", "Finding", "Findings", "Kind"]

Kind: TypeAlias = Literal[
    "secret", "personal", "tenant", "injection", "exfiltration", "unicode", "ansi", "intent", "bomb"
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
"""Every kind of finding."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that a rule found.

    Attributes:
        kind: What sort of thing it is.
        rule: Name of the rule: letters, digits, ``_`` and ``.``.
        place: JSON pointer of the value, ``line N`` of a text, or ``name of`` and a pointer where a member's name is
            meant.
        start: Where it begins in what was inspected: characters of a text, bytes of a JSON text.
        end: Where it ends, exclusive. In JSON it lies within one string, number or word, and never cuts an escape.
    """

    kind: Kind
    rule: str
    place: str
    start: int
    end: int

    @property
    def name(self) -> str:
        """Return ``kind/rule``, which is what records and policies see."""
        return f"{self.kind}/{self.rule}"


@dataclass(frozen=True, slots=True)
class Findings:
    """What one inspection found.

    Attributes:
        findings: The findings, in the order of their places; at most as many as the settings allow.
        complete: Whether everything was looked at. False: too long, too deep, too many encodings, or out of time.
        count: How many findings there were, those beyond the limit too, as far as they were counted.
    """

    findings: tuple[Finding, ...] = ()
    complete: bool = True
    count: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Return ``kind/rule`` of all findings, sorted, each once."""
        return tuple(sorted({finding.name for finding in self.findings}))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Return the kinds of all findings, in the order of `KINDS`, each once."""
        present = {finding.kind for finding in self.findings}
        return tuple(kind for kind in KINDS if kind in present)
