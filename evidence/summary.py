"""What an evidence pack says, as plain values: the interface between `evidence` and whoever renders it.

Pure. `assemble` fills a `PackSummary`, writes the pack's JSON files from it, and hands it to the renderer that it was
given; `reports` turns it into a PDF. Nothing here is calculated twice: the PDF shows what the files say.

Times are POSIX milliseconds, digests hexadecimal, leaves zero-based. Strings that came from agents or servers are
hostile: a renderer escapes all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "AccessLine",
    "AnchorLine",
    "BundleLine",
    "ControlSheet",
    "ControlStatus",
    "ControlTestResult",
    "CustodyLine",
    "DeniedCall",
    "Deviation",
    "FrameworkSheet",
    "Gap",
    "PackSummary",
    "PolicyChange",
    "Population",
    "Reperformance",
    "SignerLine",
    "StreamLine",
    "Strength",
]


class Strength(StrEnum):
    """How far the ledger itself is a control's evidence, for traffic through the gateway."""

    DIRECT = "direct"
    SUPPORTS = "supports"


class ControlStatus(StrEnum):
    """An honest verdict on a control; the words are those of the pack."""

    SATISFIED = "satisfied"
    NOT_SATISFIED = "not satisfied"
    NOT_TESTED = "not tested"
    NOT_APPLICABLE = "not applicable"


class TestState(StrEnum):
    """What came of one computed test."""

    __test__ = False  # pytest would take a class of this name for a test

    PASSED = "passed"
    FAILED = "failed"
    NOTHING = "nothing to test"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerLine:
    """A key that signed the end checkpoint or the pack."""

    role: str
    algorithm: str
    name: str
    key_id: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorLine:
    """An independent copy of a checkpoint of the log."""

    kind: str
    size: int
    location: str
    anchored_ms: int
    retain_until_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLine:
    """Completeness of one enforcer's records in one epoch; see `ledger.completeness`."""

    enforcer_id: str
    epoch: str
    verdict: str
    reason: str
    records: int
    decisions: int
    missing: tuple[tuple[int, int], ...]
    lost: tuple[tuple[int, int], ...]
    last_heartbeat_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """The records that the pack is about.

    Attributes:
        first_leaf: First leaf of the range whose every entry is in the pack.
        end_leaf: One past its last leaf: the size of the end checkpoint.
        records: Records in the range.
        records_by_type: Of these.
        decisions: Decisions whose time lies in the period: the population of the control tests.
        by_effect: PERMIT, DENY, … of these.
        by_enforcement: allow, deny, ask, kill of these.
        observed: Decisions in observe mode among them: made and recorded but not enforced; they satisfy no control.
        late: Leaves of decisions of the period that arrived after it was closed.
        outside: Decisions in the range whose time lies outside the period.
        by_day: Decisions of the period by UTC day (``YYYY-MM-DD``) and enforcement.
        by_tool: Decisions of the period by ``server/tool`` and enforcement.
        by_rule: Decisions of the period that did not pass, by determining rule or reason.
        completeness: The worst verdict of the streams.
        root_recomputed: The root was recomputed over the whole range and equals the signed one.
    """

    first_leaf: int
    end_leaf: int
    records: int
    records_by_type: Mapping[str, int]
    decisions: int
    by_effect: Mapping[str, int]
    by_enforcement: Mapping[str, int]
    observed: int
    late: tuple[int, ...]
    outside: int
    by_day: Mapping[str, Mapping[str, int]]
    by_tool: Mapping[str, Mapping[str, int]]
    by_rule: Mapping[str, int]
    completeness: str
    root_recomputed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedCall:
    """A call that did not pass: deny, ask or kill.

    Attributes:
        leaf: Leaf index of the decision.
        record_id: Decision id.
        time_ms: Decision time.
        local_time: ``HH:MM`` in the zone of the facts, or empty.
        agent: Agent.
        user: Pseudonym of the user, or None.
        session: Pseudonym of the session.
        server: Server.
        method: MCP method, or empty if the message could not be read.
        tool: Tool, or None.
        effect: The policy's answer.
        enforcement: What was done.
        reason: Machine-readable cause.
        rules: Determining rules.
        failed_condition: First rule that stood against the call.
        bundle_revision: Policy version, or None.
        outcome: Status of its outcome record, or None: a denied call has none, a held one is ``not_forwarded``.
        proof: Path of its `.tlog-proof` in the pack; empty beyond the first ten thousand proofs of a pack.
        simulated: The record says SIMULATED.
    """

    leaf: int
    record_id: str
    time_ms: int
    local_time: str
    agent: str
    user: str | None
    session: str
    server: str
    method: str
    tool: str | None
    effect: str
    enforcement: str
    reason: str
    rules: tuple[str, ...]
    failed_condition: str | None
    bundle_revision: str | None
    outcome: str | None
    proof: str
    simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleLine:
    """A policy bundle that decided something in the period."""

    name: str
    revision: str
    engine: str
    engine_version: str
    decisions: int
    first_leaf: int
    last_leaf: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBundle:
    """A bundle of which the pack has a copy.

    Attributes:
        name: Its name, as its own manifest says.
        engine: The engine that it is written for, as its own manifest says.
        files: Paths in the pack, sorted.
    """

    name: str
    engine: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyChange:
    """A step in the life of a bundle, as recorded."""

    leaf: int
    time_ms: int
    action: str
    name: str
    revision: str
    previous_revision: str | None
    actor: str
    actor_role: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reperformance:
    """Every decision of the period replayed under its own bundle.

    Attributes:
        by_class: Number of decisions by replay class (exact, erased, missing_fact, …).
        same: Exact replays with the same decision.
        different: Leaves whose exact replay gave another decision.
    """

    by_class: Mapping[str, int]
    same: int
    different: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A tested item that failed (label in reports: exception)."""

    leaf: int | None
    test: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlTestResult:
    """One computed test of a control.

    Attributes:
        test: Id of the test in the catalogue.
        sentence: What it checks, in words.
        population: Items tested.
        passed: Items that passed.
        deviations: Items that failed, at most the first hundred; `failed` counts all.
        failed: Items that failed.
        needed: Items that must have passed for the test to say anything; fewer are insufficient evidence, no failure.
        conditional: It is about something that need not happen; if it did not, the control's verdict does without it.
    """

    test: str
    sentence: str
    population: int
    passed: int
    failed: int
    deviations: tuple[Deviation, ...]
    needed: int = 1
    conditional: bool = False

    @property
    def state(self) -> TestState:
        """What came of it."""
        if self.failed:
            return TestState.FAILED
        return TestState.PASSED if self.passed >= self.needed else TestState.NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSheet:
    """One control of a framework with its verdict."""

    framework: str
    control_id: str
    title: str
    strength: Strength
    evidence: tuple[str, ...]
    rationale: str
    customer_adds: str
    procedure: str
    status: ControlStatus
    reason: str
    tests: tuple[ControlTestResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameworkSheet:
    """A framework and the controls of it that the pack speaks of."""

    framework: str
    title: str
    version: str
    mapping_version: str
    source: str
    controls: tuple[ControlSheet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that the evidence does not cover."""

    kind: str
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLine:
    """Somebody looked at, exported or replayed something, as recorded."""

    leaf: int
    time_ms: int
    action: str
    actor: str
    actor_role: str
    target: str
    items: int
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodyLine:
    """One step of the pack's making."""

    step: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackSummary:
    """Everything that a pack says.

    Attributes:
        pack_id: UUID, derived from period, frameworks, tree size and root: same evidence, same id.
        title: For the cover.
        tenant: Whose log.
        log_id: Which log.
        origin: The log's name on its checkpoints.
        environment: Deployment.
        simulated: Any record, key or clock was simulated: every page says so.
        from_ms: Start of the period.
        to_ms: End of the period, exclusive.
        zone: IANA zone in which the report prints times, beside UTC.
        tree_size: Size of the end checkpoint.
        root: Its root, hexadecimal.
        checkpoint_ms: When it was signed, by the log's clock.
        software: Name and version of what made the pack.
        signers: Keys of the end checkpoint and of the pack.
        witnesses: Names of witnesses that cosigned it.
        anchors: Independent copies.
        population: The population and its counts.
        streams: Completeness by enforcer.
        frameworks: Control sheets by framework.
        denied: Every call of the period that did not pass, in log order.
        bundles: Policy bundles in force.
        policy_changes: Steps of bundles in the range.
        reperformance: Replay of every decision.
        access: Reads and exports in the range.
        custody: How the pack was made.
        gaps: What the evidence does not cover.
        proved: Sentences: what a verifier can prove from the pack alone.
        not_proved: Sentences: what it cannot.
    """

    pack_id: str
    title: str
    tenant: str
    log_id: str
    origin: str
    environment: str
    simulated: bool
    from_ms: int
    to_ms: int
    zone: str
    tree_size: int
    root: str
    checkpoint_ms: int
    software: str
    signers: tuple[SignerLine, ...]
    witnesses: tuple[str, ...]
    anchors: tuple[AnchorLine, ...]
    population: Population
    streams: tuple[StreamLine, ...]
    frameworks: tuple[FrameworkSheet, ...]
    denied: tuple[DeniedCall, ...]
    bundles: tuple[BundleLine, ...]
    policy_changes: tuple[PolicyChange, ...]
    reperformance: Reperformance
    access: tuple[AccessLine, ...]
    custody: tuple[CustodyLine, ...]
    gaps: tuple[Gap, ...]
    proved: tuple[str, ...]
    not_proved: tuple[str, ...]
