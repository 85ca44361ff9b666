"""What an inspection looks for, and how much it costs at most: thresholds, limits, tenants, roles.

Pure. Whatever stands here is part of the inspector's digest: a finding can be read against the thresholds that made
it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from enforcement.inspection.findings import KINDS, Kind
from ledger.errors import ConfigError

__all__ = ["TOPICS", "VERBS", "Limits", "Role", "Settings", "TenantIdentifiers", "Thresholds"]

TOPICS: Final = (
    "filesystem",
    "credentials",
    "infrastructure",
    "code_execution",
    "database",
    "accounts",
    "payments",
    "bulk",
    "instructions",
    "source_code",
    "network",
    "messaging",
)
"""What a call may be about, as far as the rules in ``rules/intent.yar`` can tell."""

VERBS: Final = ("read", "write", "delete", "send", "execute", "pay", "grant")
"""What a call may do, as far as the name of its tool tells."""

_LABEL: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_MOST_IDENTIFIERS: Final = 20_000
_SHORTEST_IDENTIFIER: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an inspection may cost.

    Attributes:
        max_bytes: Bytes that are looked at; what is beyond makes the findings incomplete.
        max_findings: Findings that are kept; the others are counted.
        max_depth: Nesting of JSON that is no bomb.
        max_nodes: Values of JSON that are no bomb.
        max_line: Characters of one line of text, or of one string of JSON, that are no bomb.
        max_layers: How many encodings in each other are opened.
        max_decoded: Bytes that all opened encodings of one text may come to.
        max_candidates: Candidates that are checked by a detector, for each of its rules.
        scan_seconds: Time for one scan by the rules, as a last resort: they are linear.
    """

    max_bytes: int = 8 << 20
    max_findings: int = 256
    max_depth: int = 64
    max_nodes: int = 200_000
    max_line: int = 2 << 20
    max_layers: int = 4
    max_decoded: int = 4 << 20
    max_candidates: int = 2_000
    scan_seconds: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From where on something counts.

    Attributes:
        entropy: Bits of Shannon entropy per character of a value whose name says that it is a secret.
        secret_length: Characters of such a value.
        invisible_run: Invisible characters in a row that are no accident of a script.
        selector_run: Variation selectors in a row: one belongs to an emoji or ideograph, several carry bytes.
        opaque_length: Characters of an opaque piece of an image's or link's address that may carry data out.
        compression: How many times longer what a compressed blob holds may be.
    """

    entropy: float = 3.0
    secret_length: int = 8
    invisible_run: int = 3
    selector_run: int = 2
    opaque_length: int = 24
    compression: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantIdentifiers:
    """What belongs to one tenant, told by the operator.

    Attributes:
        tenant: The label that stands in findings.
        literals: Account numbers, domains, names of databases: found as whole words, in any case.
        patterns: Regular expressions in RE2's syntax.
    """

    tenant: str
    literals: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What an agent is there for. A call that asks for something else is a finding of kind ``intent``.

    Attributes:
        name: The role's name.
        topics: The `TOPICS` that its calls may be about.
        verbs: The `VERBS` that the names of its tools may say; empty: any.
        paths: Patterns of file paths (``*`` within a name, ``**`` across) that its calls may name.
    """

    name: str
    topics: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for said, known, what in ((self.topics, TOPICS, "topic"), (self.verbs, VERBS, "verb")):
            for word in said:
                if word not in known:
                    raise ConfigError(f"role {self.name}: {word!r} is no {what}; there are {', '.join(known)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that an inspector is made of, but for the rules.

    Attributes:
        kinds: The kinds that are looked for; ``bomb`` always is.
        limits: What it may cost.
        thresholds: From where on something counts.
        tenants: Identifiers by tenant.
        own_tenant: The tenant whose own identifiers are no finding.
        regions: Countries, two letters each, whose national telephone numbers are looked for beside international ones.
        public_addresses_only: Leave private, loopback and documentation addresses of the Internet Protocol out.
    """

    kinds: frozenset[Kind] = frozenset(KINDS)
    limits: Limits = field(default_factory=Limits)
    thresholds: Thresholds = field(default_factory=Thresholds)
    tenants: tuple[TenantIdentifiers, ...] = ()
    own_tenant: str = ""
    regions: tuple[str, ...] = ("US", "GB")
    public_addresses_only: bool = True

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise ConfigError(f"{kind!r} is no kind of finding; there are {', '.join(KINDS)}")
        for tenant in self.tenants:
            if not _LABEL.fullmatch(tenant.tenant):
                raise ConfigError("a tenant's label is lower-case letters, digits and _ . -, at most 63")
            if any(len(text) < _SHORTEST_IDENTIFIER for text in tenant.literals):
                raise ConfigError(
                    f"tenant {tenant.tenant}: an identifier has at least {_SHORTEST_IDENTIFIER} characters"
                )
        if sum(len(tenant.literals) + len(tenant.patterns) for tenant in self.tenants) > _MOST_IDENTIFIERS:
            raise ConfigError(f"tenants have at most {_MOST_IDENTIFIERS} identifiers together")
        for region in self.regions:
            if not re.fullmatch(r"[A-Z]{2}", region):
                raise ConfigError("a region is a country's two capital letters")
