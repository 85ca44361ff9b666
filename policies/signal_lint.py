"""What policies say about signals and probably do not mean; for every engine.

Pure. Each engine tells where its policies read signals (`SignalRead`); what follows from that is here. Some of it is
wrong of the bundle alone, some only at a certain gateway, of which it is known what its safeguards say (`MadeSignals`).

================ ======================================================================================================
code             what it finds
================ ======================================================================================================
unknown-signal   a signal that there is not, or a value that no safeguard ever gives it: such a rule never speaks
unasked-signal   a rule on findings where no rule asks whether anything was inspected, or on deviations where none asks
                 for the baseline: where nobody looked, nothing is found
unread-signal    a schema that declares signals which no policy reads, so that calls without them are refused for
                 nothing; of a gateway, a safeguard of which no policy reads anything
unmade-signal    of a gateway, a signal that none of its safeguards gives, or a kind of findings that none looks for
================ ======================================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from ledger.legible import PROSE_LIMIT, legible_text
from policies.linting import Finding
from policies.signal_reads import ALL_SIGNALS, SignalRead
from policies.signals import FINDING_KINDS, SIGNAL_NAMES, Baseline, Extent, ToolState

__all__ = ["MadeSignals", "gateway_findings", "signal_findings"]

_SAFEGUARDS: Final[Mapping[str, tuple[str, ...]]] = {
    "inspection": ("inspected", "inspector", "findings", "kinds", "finding_count"),
    "pins": ("tool_state",),
    "profiles": ("baseline", "deviations"),
}
_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "inspected": get_args(Extent),
    "tool_state": get_args(ToolState),
    "baseline": get_args(Baseline),
    "kinds": FINDING_KINDS,
}
# What is not found, and what says that nobody looked for it.
_ASKED_BY: Final[Mapping[str, tuple[str, str]]] = {
    "findings": ("inspected", "whether anything was inspected"),
    "kinds": ("inspected", "whether anything was inspected"),
    "finding_count": ("inspected", "whether anything was inspected"),
    "deviations": ("baseline", "whether the agent has a baseline"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeSignals:
    """What the safeguards of a gateway say of calls.

    Attributes:
        safeguards: Those that it has, of ``inspection``, ``pins`` and ``profiles``.
        kinds: The kinds of findings that are looked for.
    """

    safeguards: frozenset[str]
    kinds: frozenset[str]


def signal_findings(reads: Sequence[SignalRead], *, declared: str | None = None) -> Iterator[Finding]:
    """Yield what is wrong of a bundle alone.

    Args:
        reads: Where its policies read signals.
        declared: The file that declares signals, if the bundle has one.
    """
    names = {read.name for read in reads}
    if declared is not None and not reads:
        told = "no policy reads the signals that are declared here, and calls without signals are refused for them"
        yield Finding(declared, "unread-signal", told)
    for read in reads:
        if read.name and read.name not in SIGNAL_NAMES:
            yield Finding(read.place, "unknown-signal", f"there is no signal {_shown(read.name)}")
        for text in read.texts:
            if not _is_possible(read.name, text):
                told = f"no safeguard says {_shown(text)} of {read.name}: what asks for it never speaks"
                yield Finding(read.place, "unknown-signal", told)
        asker = _ASKED_BY.get(read.name)
        if asker is not None and not {asker[0], ALL_SIGNALS} & names:
            told = f"it reads signals.{read.name}, and no rule asks {asker[1]} (signals.{asker[0]})"
            yield Finding(read.place, "unasked-signal", told)


def gateway_findings(reads: Sequence[SignalRead], made: MadeSignals, *, gateway: str) -> Iterator[Finding]:
    """Yield what is wrong of a bundle at a certain gateway.

    Args:
        reads: Where its policies read signals.
        made: What the gateway's safeguards say.
        gateway: The gateway's configuration, as it is told.
    """
    names = {read.name for read in reads}
    for safeguard, signals in _SAFEGUARDS.items():
        if safeguard in made.safeguards:
            if not names.intersection({*signals, ALL_SIGNALS}):
                told = (
                    f"no policy reads what {safeguard} of this gateway says of calls: signals.{signals[0]} and the like"
                )
                yield Finding(gateway, "unread-signal", told)
            continue
        for read in reads:
            if read.name in signals:
                told = f"it reads signals.{read.name}, and the gateway has no {safeguard}"
                yield Finding(read.place, "unmade-signal", told)
    if "inspection" not in made.safeguards:
        return
    for read in reads:
        for text in read.texts if read.name in {"kinds", "findings"} else ():
            kind = text.partition("/")[0]
            if kind in FINDING_KINDS and kind not in made.kinds:
                told = f"it asks for findings of the kind {kind}, and the gateway looks for none"
                yield Finding(read.place, "unmade-signal", told)


def _is_possible(name: str, text: str) -> bool:
    if name == "findings":
        kind, slash, rule = text.partition("/")
        return kind in FINDING_KINDS and bool(slash) and bool(rule)
    known = _VALUES.get(name)
    return known is None or text in known


def _shown(text: str) -> str:
    return legible_text(text, limit=PROSE_LIMIT)
