"""What an audit says: how deep it went, what it found, what it did not look at.

Pure. The auditing itself is in `auditor`, `audit_chunks` and `audit_tree`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from ledger.completeness import EnforcerStream
from ledger.proofs import TreeHead

__all__ = ["AuditReport", "Depth", "Finding"]


class Depth(StrEnum):
    """How much of each entry an audit looks at. Tree, tiles, roots and checkpoint signatures are looked at always."""

    HASHES = "hashes"
    """Entries are hashed, not read."""

    PROJECTION = "projection"
    """Entries are read as records, and compared with the rows of the SQL projection."""

    RECORDS = "records"
    """Entries are read as records: signatures, keys, record ids, completeness."""

    FULL = "full"
    """All of it, and every vaulted payload is opened."""

    @property
    def checks_projection(self) -> bool:
        """Whether the SQL projection is compared."""
        return self in {Depth.PROJECTION, Depth.FULL}

    @property
    def checks_records(self) -> bool:
        """Whether signatures, keys, record ids and completeness are looked at."""
        return self in {Depth.RECORDS, Depth.FULL}

    @property
    def reads_entries(self) -> bool:
        """Whether entries are read as records at all."""
        return self is not Depth.HASHES

    @property
    def opens_payloads(self) -> bool:
        """Whether vaulted payloads are opened."""
        return self is Depth.FULL

    def left_out(self) -> list[str]:
        """Return what this depth does not look at, a sentence each."""
        told = []
        if not self.checks_records:
            told.append(f"signatures, keys and ids of records, completeness, ends of log keys: depth {self}")
        if not self.checks_projection:
            told.append(f"the SQL projection: depth {self}")
        if not self.opens_payloads:
            told.append(f"vaulted payloads: depth {self}")
        return told


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it must be.

    Attributes:
        check: Which check failed, such as ``leaf``, ``tile``, ``root``, ``record``, ``projection``, ``vault``.
        reason: One sentence, without any vaulted value.
        leaf: The leaf that it is about, or None.
        place: Path, table or checkpoint that it is about, or None.
    """

    check: str
    reason: str
    leaf: int | None = None
    place: str | None = None


@dataclass(slots=True, kw_only=True)
class AuditReport:
    """What an audit looked at and what it found.

    Attributes:
        log_id: Which log.
        depth: How deep it went.
        head: The published head that was audited, or None if there is none.
        read_from: First leaf that was read; those below were audited before.
        checked: Number of things checked, by kind.
        not_checked: What was not looked at, and why.
        findings: What is wrong, in the order of the leaves; empty if nothing is.
        notices: What a reader must know though the log is as it must be.
        streams: Completeness of each enforcer's records.
        contradicting: The checkpoints, signed and whole, whose roots are not those that the entries lead to.
    """

    log_id: str
    depth: Depth = Depth.FULL
    head: TreeHead | None = None
    read_from: int = 0
    checked: Counter[str] = field(default_factory=Counter)
    not_checked: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notices: list[Finding] = field(default_factory=list)
    streams: list[EnforcerStream] = field(default_factory=list)
    contradicting: list[bytes] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.findings
