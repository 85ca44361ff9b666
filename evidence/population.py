"""The population: every entry of a range, what of it lies in the period, and whether anything is missing.

Pure. `Survey` walks the entries of a range once, in order, and

* hashes each into the tree, so that the root over the whole range can be compared with the signed one;
* feeds the keyring: a key record introduces keys, every record's signature is checked;
* counts, and keeps what the pack lists: calls that did not pass, bundles, policy changes, accesses;
* fills the `Links` from which derived attributes follow.

A record belongs to the period if its own time does, wherever it stands in the range: enforcers hand in their records
when they can. Where the period is *closed* is `closing`'s part; while it is not over by the log's own clock, it is
open. A decision of the period behind that leaf is *late*: it is counted like the others, and listed.

Memory is linear in the range, about a quarter of a kilobyte for a record; entries themselves are not kept.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from sys import intern
from typing import Final

import msgspec

from evidence.closing import Closing, close
from evidence.lines import access_line, denied_call, policy_change, proof_path
from evidence.links import Links
from evidence.start_range import StartRange
from evidence.summary import AccessLine, BundleLine, DeniedCall, PolicyChange, Population
from ledger.bodies import AccessEvent, BundleEvent, BundleReference, Decision, Dropped, Heartbeat
from ledger.completeness import EnforcerStream, assess, worst
from ledger.enrolments import Enrolments
from ledger.errors import EvidenceError, MalformedError, VerificationError
from ledger.keyring import Keyring
from ledger.merkle import CompactRange, LeafHash, RootHash, hash_leaf
from ledger.records import Record, decode_entry, record_type

__all__ = ["MAX_PERIOD_MS", "MAX_PROOFS", "Period", "Survey"]

MAX_PERIOD_MS: Final = 253_402_300_800_000
"""End of the year 9999, POSIX milliseconds: the calendar that reports print ends there."""
MAX_PROOFS: Final = 10_000
"""Leaves of one pack that get a proof file of their own; the recomputed root proves all the others."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_SIGNATURE: Final = "A" * 86 + "=="
_NO_ID: Final = "0" * 8 + "-0000" * 3 + "-" + "0" * 12


@dataclass(frozen=True, slots=True)
class Period:
    """From and to, POSIX milliseconds, the end excluded.

    Raises:
        EvidenceError: The end is not behind the beginning, or beyond the calendar.
    """

    from_ms: int
    to_ms: int

    def __post_init__(self) -> None:
        if not 0 <= self.from_ms < self.to_ms <= MAX_PERIOD_MS:
            raise EvidenceError("a period ends after it begins, between the years 1970 and 9999")

    def contains(self, time_ms: int) -> bool:
        """Whether a time lies in the period."""
        return self.from_ms <= time_ms < self.to_ms


@dataclass(slots=True)
class _Usage:
    """What one bundle, run by one engine version, decided in the period."""

    reference: BundleReference
    first_leaf: int
    last_leaf: int
    decisions: int = 0


@dataclass(slots=True)
class _Tallies:
    """Counts over the decisions of the period."""

    by_effect: Counter[str] = field(default_factory=Counter)
    by_enforcement: Counter[str] = field(default_factory=Counter)
    by_day: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_tool: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_rule: Counter[str] = field(default_factory=Counter)
    observed: int = 0

    def add(self, time_ms: int, body: Decision) -> None:
        self.by_effect[body.decision] += 1
        self.by_enforcement[body.enforcement] += 1
        day = (_EPOCH + timedelta(milliseconds=time_ms)).date().isoformat()
        self.by_day[day][body.enforcement] += 1
        target = f"{body.server}/{body.tool or body.method or '(unreadable)'}"
        self.by_tool[target][body.enforcement] += 1
        self.observed += body.mode == "observe"
        if body.enforcement != "allow":
            self.by_rule[body.failed_condition or (body.rules[0] if body.rules else body.reason)] += 1


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts)}


def _thin(record: Record) -> Record:
    """Return a copy that holds no more than `completeness.assess` looks at."""
    body = record.body if isinstance(record.body, Dropped | Heartbeat) else _SOME_BODY
    return msgspec.structs.replace(
        record,
        record_id=_NO_ID,
        log_id="-",
        tenant="-",
        environment="-",
        enforcer_id=intern(record.enforcer_id),
        epoch=intern(record.epoch),
        signature=_NO_SIGNATURE,
        pseudonym_key_id=None,
        body=_SOME_DECISION if isinstance(record.body, Decision) else body,
    )


_SOME_BODY: Final = AccessEvent(action="-", actor="-", actor_role="-", target_kind="-", result="-")
_SOME_DECISION: Final = msgspec.convert(
    {
        "type": "decision",
        "agent": "x",
        "server": "x",
        "decision": "DENY",
        "enforcement": "deny",
        "mode": "enforce",
        "reason": "x",
        "evaluation_us": 0,
        "session": "0" * 32,
        "message": {"digest": "0" * 64, "size_bytes": 0},
    },
    Decision,
)


@dataclass(slots=True, kw_only=True)
class Survey:
    """One walk over the entries of a range; one task owns it.

    Attributes:
        period: The period.
        start: What stands before the range, if it does not begin at leaf 0; its records are taken in at once.
        roots_at: Tree sizes at which the root is to be kept, in ``roots``.
        signed_ms: When the end checkpoint was signed, by the log's own clock; None if that is not known.
        tree: The tree so far.
        roots: Roots at the sizes asked for.
        keyring: Keys that the log introduced.
        enrolments: From when to when each enforcer could write.
        links: What follows for one record from others.
        log_id: The log that every record names.
        tenant: The tenant that every record names.
        environments: Deployments that records name.
        simulated_records: Records that say SIMULATED.
        signatures: Records whose signature was checked.
        records_by_type: Records of the range.
        outside: Decisions of the range whose time lies outside the period.
        denied: Calls of the period that did not pass; their outcomes are not filled in.
        policy_changes: Steps of bundles in the range.
        access: Reads and exports in the range.
        proved_leaves: Leaf hashes of the leaves that get a proof file.
    """

    period: Period
    start: StartRange | None = None
    roots_at: frozenset[int] = frozenset()
    signed_ms: int | None = None
    tree: CompactRange = field(init=False)
    roots: dict[int, RootHash] = field(default_factory=dict)
    keyring: Keyring = field(default_factory=Keyring)
    enrolments: Enrolments = field(default_factory=Enrolments)
    links: Links = field(init=False)
    log_id: str | None = None
    tenant: str | None = None
    environments: set[str] = field(default_factory=set)
    simulated_records: int = 0
    signatures: int = 0
    records_by_type: Counter[str] = field(default_factory=Counter)
    outside: int = 0
    denied: list[DeniedCall] = field(default_factory=list)
    policy_changes: list[PolicyChange] = field(default_factory=list)
    access: list[AccessLine] = field(default_factory=list)
    proved_leaves: dict[int, LeafHash] = field(default_factory=dict)
    _closing: Closing | None = None
    _tallies: _Tallies = field(default_factory=_Tallies)
    _usage: dict[BundleReference, _Usage] = field(default_factory=dict)
    _decision_leaves: array[int] = field(default_factory=lambda: array("Q"))
    _thin_records: list[Record] = field(default_factory=list)
    _prior: list[tuple[int, Record]] = field(default_factory=list)
    _before: dict[tuple[str, str], Record] = field(default_factory=dict)
    _examples: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.links = Links(whole=self.start is None)
        self.tree = CompactRange() if self.start is None else self.start.tree()
        self._keep_root()
        for leaf, record in () if self.start is None else self.start.records():
            self._check(leaf, record)
            if isinstance(record.body, BundleEvent):
                self.links.add(leaf, record)
            self._prior.append((leaf, _thin(record)))
            stream = (record.enforcer_id, record.epoch)
            known = self._before.get(stream)
            if known is None or known.seq < record.seq:
                self._before[stream] = record

    @property
    def first_leaf(self) -> int:
        """First leaf of the range."""
        return 0 if self.start is None else self.start.size

    def _keep_root(self) -> None:
        if self.tree.size in self.roots_at:
            self.roots[self.tree.size] = self.tree.root()

    def _check(self, leaf: int, record: Record) -> None:
        try:
            self.keyring.check(leaf, record)
        except VerificationError as error:
            raise VerificationError(f"leaf {leaf}: {error}") from error
        self.enrolments.add(leaf, record)
        self.log_id = self.log_id or record.log_id
        self.tenant = self.tenant or record.tenant
        if (record.log_id, record.tenant) != (self.log_id, self.tenant):
            raise VerificationError(f"leaf {leaf}: the record is of another log or tenant")

    def add(self, entry: bytes) -> Record:
        """Take in the entry of the next leaf.

        Raises:
            MalformedError: It is not a record.
            VerificationError: Its signature is wrong, nobody introduced its key, or it is of another log.
        """
        leaf = self.tree.size
        try:
            record = decode_entry(entry)
        except MalformedError as error:
            raise MalformedError(f"leaf {leaf}: {error}") from error
        self._check(leaf, record)
        hashed = hash_leaf(entry)
        self.tree.append(hashed)
        self._keep_root()
        self.signatures += 1
        self.simulated_records += record.simulated
        self.environments.add(record.environment)
        self.records_by_type[record_type(record)] += 1
        self.links.add(leaf, record)
        self._thin_records.append(_thin(record))
        self._list(leaf, hashed, record)
        return record

    def _list(self, leaf: int, hashed: LeafHash, record: Record) -> None:
        body = record.body
        if isinstance(body, Decision):
            if self.period.contains(record.time_ms):
                self._add_decision(leaf, hashed, record, body)
            else:
                self.outside += 1
        elif isinstance(body, BundleEvent):
            self.policy_changes.append(policy_change(leaf, record, body))
        elif isinstance(body, AccessEvent):
            self.access.append(access_line(leaf, record, body))

    def _add_decision(self, leaf: int, hashed: LeafHash, record: Record, body: Decision) -> None:
        self._decision_leaves.append(leaf)
        self._tallies.add(record.time_ms, body)
        if body.bundle is not None:
            usage = self._usage.setdefault(body.bundle, _Usage(body.bundle, leaf, leaf))
            usage.decisions += 1
            usage.last_leaf = leaf
        if body.enforcement != "allow":
            proof = self._prove(leaf, hashed)
            self.denied.append(denied_call(leaf, record, body, proof=proof))
        elif body.tool is not None and (body.server, body.tool) not in self._examples:
            self._examples.add((body.server, body.tool))
            self._prove(leaf, hashed)

    def _prove(self, leaf: int, hashed: LeafHash) -> str:
        """Give a leaf a proof file while there is room, and return its path or nothing."""
        if len(self.proved_leaves) >= MAX_PROOFS:
            return ""
        self.proved_leaves[leaf] = hashed
        return proof_path(leaf)

    # --- once every entry has been added -----------------------------------------------------------------------------

    @property
    def decision_leaves(self) -> Sequence[int]:
        """Leaves of the decisions of the period, in order."""
        return self._decision_leaves

    @property
    def over(self) -> bool:
        """Whether the period was over when the end checkpoint was signed."""
        return self.signed_ms is None or self.period.to_ms <= self.signed_ms

    def _leaves(self) -> Iterator[tuple[int, Record]]:
        yield from self._prior
        yield from enumerate(self._thin_records, self.first_leaf)

    def _close(self) -> Closing:
        if self._closing is None:
            self._closing = close(self._leaves, self.enrolments.all(), self.period.to_ms)
        return self._closing

    def closed_at(self) -> int | None:
        """Return the leaf from which on the period is closed, or None while it is open."""
        return self._close().leaf if self.over else None

    def open_enforcers(self) -> list[str]:
        """Return the enforcers that keep the period open."""
        return list(self._close().open_enforcers)

    def is_decision_of_period(self, record: Record) -> bool:
        """Whether a record is a decision of the period."""
        return isinstance(record.body, Decision) and self.period.contains(record.time_ms)

    def streams(self) -> list[EnforcerStream]:
        """Return the completeness of every enforcer and epoch."""
        return assess(
            self._thin_records,
            from_ms=self.period.from_ms,
            end_ms=self.period.to_ms,
            signed_ms=self.signed_ms,
            before=self._before.values(),
            enrolments=self.enrolments.all(),
        )

    def bundles(self) -> list[BundleLine]:
        """Return the bundles that decided in the period, by first leaf; their files are not filled in."""
        return [
            BundleLine(
                name=usage.reference.name,
                revision=usage.reference.revision,
                engine=usage.reference.engine,
                engine_version=usage.reference.engine_version,
                decisions=usage.decisions,
                first_leaf=usage.first_leaf,
                last_leaf=usage.last_leaf,
                files=(),
            )
            for usage in sorted(self._usage.values(), key=lambda usage: usage.first_leaf)
        ]

    def calls_that_did_not_pass(self) -> list[DeniedCall]:
        """Return the denied, held and killed calls of the period, in leaf order, with their outcomes."""
        return [replace(call, outcome=self.links.outcome(call.record_id)) for call in self.denied]

    def population(self, streams: list[EnforcerStream], *, root_recomputed: bool) -> Population:
        """Return the population.

        Args:
            streams: What `streams` returned.
            root_recomputed: The tree's root is the one that the end checkpoint signs.
        """
        tallies, closed = self._tallies, self.closed_at()
        return Population(
            first_leaf=self.first_leaf,
            end_leaf=self.tree.size,
            records=self.records_by_type.total(),
            records_by_type=_sorted(self.records_by_type),
            decisions=len(self._decision_leaves),
            by_effect=_sorted(tallies.by_effect),
            by_enforcement=_sorted(tallies.by_enforcement),
            observed=tallies.observed,
            late=() if closed is None else tuple(leaf for leaf in self._decision_leaves if leaf >= closed),
            outside=self.outside,
            by_day={day: _sorted(tallies.by_day[day]) for day in sorted(tallies.by_day)},
            by_tool={tool: _sorted(tallies.by_tool[tool]) for tool in sorted(tallies.by_tool)},
            by_rule=_sorted(tallies.by_rule),
            completeness=worst(streams).value,
            root_recomputed=root_recomputed,
        )
