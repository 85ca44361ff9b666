"""What enforcers recorded of a canary: how often it would have decided otherwise, how, and about which calls."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from ledger.bodies import Shadow, ShadowCount
from ledger.catalog import Catalog
from ledger.reader import EntryReader

__all__ = ["CanaryReport", "EnforcerCounts", "Flip", "canary_report"]

MAX_WALKED: Final = 10_000
"""Latest records of either type that a report looks at."""

MAX_NAMED: Final = 20
"""Latest decisions that a report names of each flip."""


@dataclass(slots=True, kw_only=True)
class EnforcerCounts:
    """What one enforcer has done with the canary, as it said itself; see `ledger.bodies.ShadowCount`.

    Attributes:
        enforcer_id: Which.
    """

    enforcer_id: str
    equal: int = 0
    different: int = 0
    incomparable: int = 0
    dropped: int = 0
    unrecorded: int = 0

    @property
    def compared(self) -> int:
        """Those of which something can be said."""
        return self.equal + self.different

    def add(self, body: ShadowCount) -> None:
        """Add what it said once more."""
        self.equal += body.equal
        self.different += body.different
        self.incomparable += body.incomparable
        self.dropped += body.dropped
        self.unrecorded += body.unrecorded


@dataclass(slots=True, kw_only=True)
class Flip:
    """Decisions that the canary would have made otherwise in one way.

    Attributes:
        count: How many are on record.
        decisions: Record ids of the latest, newest first.
    """

    count: int = 0
    decisions: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryReport:
    """What is on record of a canary.

    Attributes:
        revision: Which bundle.
        enforcers: By enforcer, sorted by name.
        flips: By what was decided and what would have been: ``permit:deny``; those of one effect, such as
            ``deny:deny``, differ in rules, obligations or reasons alone.
        differing: How often each of the compared fields differs.
        complete: Every record about it was looked at; else only the latest.
    """

    revision: str
    enforcers: tuple[EnforcerCounts, ...]
    flips: dict[str, Flip]
    differing: dict[str, int]
    complete: bool


def canary_report(revision: str, since_leaf: int, log_id: str, catalog: Catalog, reader: EntryReader) -> CanaryReport:
    """Read what enforcers recorded of a canary.

    Args:
        revision: Which bundle.
        since_leaf: Where it can have begun: no record before it is about this canary.
        log_id: Which log.
        catalog: Finds the records.
        reader: Reads them.

    Raises:
        StorageError: A store failed.
    """
    shadows = catalog.of_type(log_id, "shadow", above=since_leaf)
    counts = catalog.of_type(log_id, "shadow_count", above=since_leaf)
    flips: dict[str, Flip] = {}
    differing: Counter[str] = Counter()
    for leaf in reversed(shadows[-MAX_WALKED:]):
        body = reader.record(leaf).body
        # The catalogue only finds; what a leaf is, the leaf says (invariant 3).
        if isinstance(body, Shadow) and body.bundle.revision == revision:
            flip = flips.setdefault(f"{body.enforced}:{body.decision}".lower(), Flip())
            flip.count += 1
            if len(flip.decisions) < MAX_NAMED:
                flip.decisions.append(body.decision_id)
            differing.update(body.differs)
    enforcers: dict[str, EnforcerCounts] = {}
    for leaf in counts[-MAX_WALKED:]:
        record = reader.record(leaf)
        if isinstance(record.body, ShadowCount) and record.body.revision == revision:
            known = enforcers.setdefault(record.enforcer_id, EnforcerCounts(enforcer_id=record.enforcer_id))
            known.add(record.body)
    return CanaryReport(
        revision=revision,
        enforcers=tuple(enforcers[name] for name in sorted(enforcers)),
        flips=dict(sorted(flips.items())),
        differing=dict(sorted(differing.items())),
        complete=max(len(shadows), len(counts)) <= MAX_WALKED,
    )
