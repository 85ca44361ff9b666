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
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from enforcement.config_types import RecordName, Seconds, Settings, refuse_twice
from policies.signals import FINDING_KINDS, FindingKind

if TYPE_CHECKING:
    from enforcement.config import ServerSettings

__all__ = [
    "ACTS",
    "MOST_BYTES",
    "Act",
    "Inspecting",
    "InspectionRules",
    "InspectionSettings",
    "Label",
    "Region",
    "RoleSettings",
    "TenantSettings",
    "inspecting_of",
]

Act: TypeAlias = Literal["report", "redact", "block"]
"""What is done about a finding in an answer: it is recorded, it is replaced, or the client gets none of the answer."""

ACTS: Final[tuple[Act, ...]] = ("report", "redact", "block")
"""The acts, the mildest first."""

MOST_BYTES: Final = 64 << 20
"""Most of a message or answer that can be looked at."""

Label: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
Region: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]

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
    max_bytes: Annotated[int, Field(ge=1024, le=MOST_BYTES)] | None = None
    partial: Literal["pass", "block"] | None = None


class TenantSettings(Settings):
    """What belongs to one tenant, so that it is found where it has no business.

    Attributes:
        tenant: What the tenant is called in findings.
        literals: Account numbers, domains, names of databases: whole words, in any case.
        patterns: Regular expressions, in RE2's syntax.
    """

    tenant: Label
    literals: Annotated[tuple[str, ...], Field(max_length=10_000)] = ()
    patterns: Annotated[tuple[str, ...], Field(max_length=1_000)] = ()


class RoleSettings(Settings):
    """What agents of a role are there for; a call that asks for something else is a finding of the kind ``intent``.

    Attributes:
        role: The role, as principals have it.
        topics: What its calls may be about.
        verbs: What the names of its tools may say; empty: anything.
        paths: Patterns of file paths that its calls may name.
    """

    role: RecordName
    topics: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


class InspectionSettings(InspectionRules):
    """Inspection at a gateway; see `InspectionRules` for what a server or tool can say otherwise.

    Attributes:
        seconds: One message or answer must have been inspected by then. A message that was not is denied
            (``signals_unavailable``); an answer that was not counts as not looked at.
        rules: Folder of the operator's own rules, beside those that ship; a path from the folder of the configuration.
        tenant: Which of the tenants below the calls are for: its own identifiers are no finding.
        tenants: Identifiers of tenants.
        roles: What agents are there for.
        regions: Countries, two letters each, whose national telephone numbers are looked for.
    """

    seconds: Seconds = 2
    rules: Path | None = None
    tenant: Label | None = None
    tenants: Annotated[tuple[TenantSettings, ...], Field(max_length=1_000)] = ()
    roles: Annotated[tuple[RoleSettings, ...], Field(max_length=1_000)] = ()
    regions: tuple[Region, ...] = ("US", "GB")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        refuse_twice([tenant.tenant for tenant in self.tenants], "a tenant is listed twice")
        refuse_twice([role.role for role in self.roles], "a role is listed twice")
        return self


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
