"""One look through a message or an answer: what an inspector found in it, as signals and as places.

Pure. The inspector is whatever finds things in JSON (`enforcement.inspection`); here its findings become what policies
and records know (`policies.signals`), and the stretches that would be redacted (`enforcement.redaction`). What is done
about them is decided elsewhere (`enforcement.answer_inspection`, and policies).

Cursors, request ids and the like are opaque to everybody but who made them, and look like secrets: what stands at
`OPAQUE` is no finding.

INVARIANT 6: a `Look` names kinds and rules. Its places are byte offsets.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from enforcement.redaction import Stretch
from policies.signals import MAX_FINDINGS, Signals

__all__ = ["NOT_LOOKED", "OPAQUE", "Found", "Inspector", "Look", "look_through", "told", "unseen"]

OPAQUE: Final = frozenset(
    {
        "/id",
        "/jsonrpc",
        "/params/_meta/progressToken",
        "/params/cursor",
        "/params/progressToken",
        "/params/requestId",
        "/params/requestState",
        "/result/nextCursor",
        "/result/requestState",
    }
)
"""Pointers to what the protocol keeps opaque."""


class FoundOne(Protocol):
    """One thing that an inspector found."""

    @property
    def kind(self) -> str:
        """What sort of thing it is."""
        ...

    @property
    def rule(self) -> str:
        """The rule that found it."""
        ...

    @property
    def place(self) -> str:
        """JSON pointer to the value that it is in."""
        ...

    @property
    def start(self) -> int:
        """Its first byte."""
        ...

    @property
    def end(self) -> int:
        """After its last byte."""
        ...


class Found(Protocol):
    """What an inspector found in one text."""

    @property
    def findings(self) -> Sequence[FoundOne]:
        """The findings, as many as are kept."""
        ...

    @property
    def complete(self) -> bool:
        """Whether everything was looked at."""
        ...

    @property
    def count(self) -> int:
        """How many findings there were, those that were not kept too."""
        ...


class Inspector(Protocol):
    """Finds things in JSON; `enforcement.inspection.Inspector` does. Safe for any thread."""

    @property
    def digest(self) -> str:
        """SHA-256 over its rules and thresholds."""
        ...

    def json(self, data: bytes, *, roles: Sequence[str] = (), tool: str = "") -> Found:
        """Return what is found in a JSON text, within bounded time and memory; raises nothing for what it holds.

        Args:
            data: The text.
            roles: Roles of the agent that sent it; none for what a server sent.
            tool: The tool that is called with it, if any.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look found.

    Attributes:
        signals: As policies and records have it.
        stretches: What would be redacted.
        kinds: The kinds that were found.
        whole: Everything was looked at, and all that was found is told.
        placeless: The kinds of which something was found that has no place in the text, so that it cannot be redacted.
    """

    signals: Signals
    stretches: tuple[Stretch, ...] = ()
    kinds: frozenset[str] = frozenset()
    whole: bool = True
    placeless: frozenset[str] = frozenset()


NOT_LOOKED: Final = Look(signals=Signals(), whole=False)


def look_through(
    inspector: Inspector,
    data: bytes,
    *,
    kinds: Collection[str],
    max_bytes: int,
    roles: Sequence[str] = (),
    tool: str = "",
) -> Look:
    """Look through a JSON text.

    Args:
        inspector: Finds things.
        data: The text.
        kinds: The kinds that count.
        max_bytes: How much of it is looked at.
        roles: Roles of the agent that sent it.
        tool: The tool that is called with it, if any.
    """
    found = inspector.json(data[:max_bytes], roles=roles, tool=tool)
    relevant = [one for one in found.findings if one.kind in kinds and one.place not in OPAQUE]
    # A finding that reaches over several values is told once for each.
    unkept = max(0, found.count - len(found.findings))
    complete = found.complete and len(data) <= max_bytes
    names = {f"{one.kind}/{one.rule}" for one in relevant}
    signals = Signals(
        inspected="complete" if complete and len(names) <= MAX_FINDINGS else "partial",
        inspector=inspector.digest,
        findings=told(names),
        finding_count=len(relevant) + unkept,
    )
    return Look(
        signals=signals,
        stretches=tuple(Stretch(one.start, one.end, one.kind) for one in relevant if _has_place(one)),
        kinds=frozenset(one.kind for one in relevant),
        whole=complete and not unkept,
        placeless=frozenset(one.kind for one in relevant if not _has_place(one)),
    )


def told(names: Collection[str]) -> tuple[str, ...]:
    """Return the names of findings, ``kind/rule``, that signals have: as many as may be, and of every kind one."""
    ordered = sorted(set(names))
    if len(ordered) > MAX_FINDINGS:
        first = {name.partition("/")[0]: name for name in reversed(ordered)}
        others = [name for name in ordered if name not in first.values()]
        ordered = sorted([*first.values(), *others[: MAX_FINDINGS - len(first)]])
    return tuple(ordered)


def _has_place(one: FoundOne) -> bool:
    # What makes a bomb of a text is the text.
    return one.start < one.end and one.kind != "bomb"


def unseen(inspector: Inspector) -> Look:
    """Return what is said of a text that the inspector did not come to the end of."""
    return Look(signals=Signals(inspected="partial", inspector=inspector.digest), whole=False)
