"""What is looked for in messages and answers, and what is done about what is found in an answer.

Pure. Without ``inspection`` in its configuration a gateway inspects nothing. With it, everything that passes is
inspected, for each server and tool as the nearest setting says: a tool's goes before its server's, a server's before
the gateway's, each member by itself.

What is found in a *message* is a fact for policies (`policies.signals`). About an *answer* no policy is asked any more:
what happens to it is said here, kind by kind, or by an obligation of the decision that permitted the call
(``redact_result``, ``block_result``), which only ever makes it stricter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import Field

from enforcement.config_types import Bytes, Seconds, Settings
from policies.signals import FINDING_KINDS, FindingKind

if TYPE_CHECKING:
    from enforcement.config import ServerSettings

__all__ = [
    "ACTS",
    "Act",
    "Inspecting",
    "InspectionRules",
    "InspectionSettings",
    "inspecting_of",
]

Act: TypeAlias = Literal["report", "redact", "block"]
"""What is done about a finding in an answer: it is recorded, it is replaced, or the client gets none of the answer."""

ACTS: Final[tuple[Act, ...]] = ("report", "redact", "block")
"""The acts, the mildest first."""

_MAX_BYTES: Final = 4 << 20
_TOOL_METHOD: Final = "tools/call"


class InspectionRules(Settings):
    """How the messages and answers of a server or tool are inspected; what is left out is said further out.

    Attributes:
        enabled: Whether they are at all.
        kinds: The kinds that are looked for.
        acts: What is done about a kind that is found in an answer; a kind that is not here is reported.
        max_bytes: How much of a message or answer is looked at; the rest makes its inspection partial.
        partial: Whether the client gets an answer that was not looked through to its end. By default it does where
            findings would only have been reported, and does not where one would have been redacted or blocked.
    """

    enabled: bool | None = None
    kinds: Annotated[tuple[FindingKind, ...], Field(min_length=1, max_length=len(FINDING_KINDS))] | None = None
    acts: dict[FindingKind, Act] | None = None
    max_bytes: Bytes | None = None
    partial: Literal["pass", "block"] | None = None


class InspectionSettings(InspectionRules):
    """Inspection at a gateway; see `InspectionRules` for what a server or tool can say otherwise.

    Attributes:
        seconds: One message or answer must have been inspected by then. A message that was not is denied
            (``signals_unavailable``); an answer that was not counts as not looked at.
    """

    seconds: Seconds = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspecting:
    """How one message and its answer are inspected: nothing is left out any more.

    Attributes:
        kinds: The kinds that are looked for.
        acts: What is done about each kind in an answer.
        max_bytes: How much is looked at.
        partial: Whether an answer passes that was not looked through; None: by what would be done about findings.
    """

    kinds: frozenset[str]
    acts: Mapping[str, Act]
    max_bytes: int
    partial: Literal["pass", "block"] | None

    @property
    def alters(self) -> bool:
        """Whether anything that may be found keeps a client from getting what the server sent."""
        return any(act != "report" for act in self.acts.values())

    @property
    def holds_partial(self) -> bool:
        """Whether a client gets no answer that was not looked through."""
        return self.alters if self.partial is None else self.partial == "block"

    def at_least(self, act: Act) -> Inspecting:
        """Return the same with an act for every kind that is no milder than this one."""
        acts = {kind: max(said, act, key=ACTS.index) for kind, said in self.acts.items()}
        # Whoever asked for it did not ask for the part that could be looked at.
        partial = self.partial if act == "report" else "block"
        return Inspecting(kinds=self.kinds, acts=acts, max_bytes=self.max_bytes, partial=partial)


def inspecting_of(
    settings: InspectionSettings | None, server: ServerSettings | None, method: str, name: str | None
) -> Inspecting | None:
    """Return how a message and its answer are inspected; None if they are not.

    Args:
        settings: The gateway's; None if it inspects nothing.
        server: The server that they are about; None for one that nobody knows.
        method: The message's method.
        name: What it names; a tool's own settings hold for its calls.
    """
    if settings is None or server is None:
        return None
    own = None
    if method == _TOOL_METHOD:
        own = next((tool.inspection for tool in server.tools if tool.name == name), None)
    return _merged([layer for layer in (settings, server.inspection, own) if layer is not None])


def _merged(layers: Sequence[InspectionRules]) -> Inspecting | None:
    """Put settings together, those further in last."""
    rules = InspectionRules(enabled=True, kinds=FINDING_KINDS, max_bytes=_MAX_BYTES)
    acts: dict[FindingKind, Act] = {}
    for layer in layers:
        acts |= layer.acts or {}
        said = {name: getattr(layer, name) for name in InspectionRules.model_fields}
        rules = rules.model_copy(update={name: value for name, value in said.items() if value is not None})
    if not rules.enabled:
        return None
    kinds = frozenset(rules.kinds or ())
    return Inspecting(
        kinds=kinds,
        acts={kind: acts.get(kind, "report") for kind in FINDING_KINDS if kind in kinds},
        max_bytes=rules.max_bytes or _MAX_BYTES,
        partial=rules.partial,
    )
