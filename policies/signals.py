"""Signals: what safeguards found about a call, as a policy gets to read it.

Pure. Inspection, tool pins and behaviour profiles decide nothing. What they find becomes *signals*, flat values beside
the other facts of a request (version 3), and a policy says what follows from them. An enforcement point without
safeguards brings no signals, and writes requests of versions 1 and 2 as ever.

A Cedar policy reads ``context.signals.…`` if its schema declares that; a Rego policy reads ``input.signals.…``. To
both, `signal_facts` adds ``kinds``, the kinds of the findings without their rules.

INVARIANT 6: a signal names rules and states, never what was found.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

import msgspec

from ledger.canonical import MAX_SAFE_INTEGER

__all__ = [
    "FINDING_KINDS",
    "MAX_FINDINGS",
    "SIGNALS",
    "SIGNAL_NAMES",
    "Baseline",
    "Extent",
    "FindingKind",
    "FindingName",
    "SignalValue",
    "Signals",
    "ToolState",
    "finding_kinds",
    "signal_facts",
]

FindingKind: TypeAlias = Literal[
    "secret", "personal", "tenant", "injection", "exfiltration", "unicode", "ansi", "intent", "bomb"
]
"""What a finding may be of."""

FINDING_KINDS: Final[tuple[FindingKind, ...]] = get_args(FindingKind)

MAX_FINDINGS: Final = 64
"""Different findings that one request names, as many as a record holds; `Signals.finding_count` counts them all."""

Extent: TypeAlias = Literal["none", "partial", "complete"]
"""How much was looked through."""

ToolState: TypeAlias = Literal["none", "unpinned", "first_use", "pinned", "quarantined"]
Baseline: TypeAlias = Literal["none", "learning", "ready"]

FindingName: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=rf"^({'|'.join(FINDING_KINDS)})/[A-Za-z0-9_][A-Za-z0-9_.:@+-]{{0,95}}\Z")
]
"""A finding: its kind and the rule that found it, such as ``secret/aws-access-key``."""

_Text = Annotated[str, msgspec.Meta(max_length=128)]
_Deviation = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/@+-]{0,127}\Z")]
_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_SAFE_INTEGER)]

SignalValue: TypeAlias = str | int | list[str]
"""What a policy reads of one signal."""

SIGNALS: Final = "signals"
"""Under which name policies read them, and the detail of a decision about a request that lacks them."""

SIGNAL_NAMES: Final = (
    "inspected",
    "inspector",
    "findings",
    "kinds",
    "finding_count",
    "tool_state",
    "baseline",
    "deviations",
)
"""What a policy may read under ``signals``."""


class Signals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """What safeguards found about one call; the defaults say that no safeguard looked.

    Attributes:
        inspected: Whether all of it was inspected, a part, or nothing.
        inspector: Digest of the rules and thresholds that it was inspected by; empty if by none.
        findings: What was found, ``kind/rule``, each once, sorted.
        finding_count: How often anything was found.
        tool_state: What is known of the tool's definition.
        baseline: Whether the agent's usual behaviour is known.
        deviations: In what the call is unusual for the agent, sorted.

    Raises:
        ValueError: Names that are not sorted or not different, findings of what nobody inspected, or fewer findings
            than names of them.
    """

    inspected: Extent = "none"
    inspector: _Text = ""
    findings: Annotated[tuple[FindingName, ...], msgspec.Meta(max_length=MAX_FINDINGS)] = ()
    finding_count: _Count = 0
    tool_state: ToolState = "none"
    baseline: Baseline = "none"
    deviations: Annotated[tuple[_Deviation, ...], msgspec.Meta(max_length=MAX_FINDINGS)] = ()

    def __post_init__(self) -> None:
        """Hold the members together."""
        for names in (self.findings, self.deviations):
            if list(names) != sorted(set(names)):
                raise ValueError("the names among the signals are sorted, and each is there once")
        if self.inspected == "none" and (self.findings or self.finding_count or self.inspector):
            raise ValueError("nothing can have been found where nothing was inspected")
        if self.finding_count < len(self.findings):
            raise ValueError("there are more names of findings than findings")


def finding_kinds(findings: tuple[str, ...]) -> tuple[str, ...]:
    """Return the kinds among findings, each once, sorted."""
    return tuple(sorted({finding.partition("/")[0] for finding in findings}))


def signal_facts(signals: Signals) -> dict[str, SignalValue]:
    """Return what policies read under ``signals``: one value for each of `SIGNAL_NAMES`."""
    return {
        "inspected": signals.inspected,
        "inspector": signals.inspector,
        "findings": list(signals.findings),
        "kinds": list(finding_kinds(signals.findings)),
        "finding_count": signals.finding_count,
        "tool_state": signals.tool_state,
        "baseline": signals.baseline,
        "deviations": list(signals.deviations),
    }
