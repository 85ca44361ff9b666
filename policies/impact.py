"""Impact: what a bundle would have decided over a stretch of history, counted, listed, and never guessed.

Pure. `Impact` takes in recorded decisions with their replays, in log order, and keeps counts whose size does not grow
with the records; of each decision that did not come out exactly as recorded it gives back a line, for whoever keeps
the list. Reading the log and evaluating is `policies.impact_walk`'s part.

A *flip* is a decision whose effect changed, written ``deny:permit``. A replay may differ without one, in the rules that
determined it for instance. Counted are decisions of the period that the scope holds; all others that are fed in only
say which sessions took another course (`policies.courses`).

A replay of class ``exact`` becomes ``downstream`` behind a departure of its session. Its own answer stands in the line
all the same: it is what the bundle says about the facts as recorded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import msgspec

from ledger.bodies import Decision as DecisionBody
from policies.courses import Courses
from policies.replay_results import DecisionSummary, RecordedDecision, ReplayClass, ReplayResult

__all__ = [
    "MAX_EXAMPLES",
    "MAX_GROUPS",
    "OTHERS",
    "Answer",
    "Doubt",
    "Flips",
    "Group",
    "Impact",
    "ImpactLine",
    "Located",
    "Scope",
    "StateMode",
    "Verdicts",
]

MAX_EXAMPLES: Final = 20
"""Decisions that a group names; the list has all of them."""
MAX_GROUPS: Final = 1_000
"""Names by which flips of one kind are counted apart; tools are named by whoever calls them."""
OTHERS: Final = "(others)"
"""Where flips are counted that would need more than `MAX_GROUPS`."""

StateMode: TypeAlias = Literal["recorded", "recomputed"]

_DOWNSTREAM: Final = {
    "flipped": "an earlier call of the session came out otherwise: this one might not have been made, or not so",
    "unknown": "what becomes of an earlier call of the session cannot be known, and so not whether this one was made",
    "before": "the session began before what was read: whether an earlier call of it comes out otherwise is not known",
}


class Scope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Which decisions of a period are counted; a member that is None does not restrict.

    Attributes:
        agent: Agent name.
        server: Server name.
        tool: Tool name, or what else the message names.
        decision: The recorded effect.
        session: Pseudonym of the session.
    """

    agent: str | None = None
    server: str | None = None
    tool: str | None = None
    decision: str | None = None
    session: str | None = None

    def holds(self, body: DecisionBody) -> bool:
        """Whether a decision is one of them."""
        wanted = (self.agent, self.server, self.tool, self.decision, self.session)
        there = (body.agent, body.server, body.tool, body.decision, body.session)
        return all(name is None or name == said for name, said in zip(wanted, there, strict=True))

    def concerns(self, body: DecisionBody) -> bool:
        """Whether a decision is of a session that may have such decisions: a session is one agent's."""
        return (self.agent is None or self.agent == body.agent) and (
            self.session is None or self.session == body.session
        )


@dataclass(frozen=True, slots=True)
class Located:
    """A recorded decision and where it stands.

    Attributes:
        leaf: Its leaf index.
        time_ms: Its enforcer's clock, POSIX milliseconds.
        original: What is left of it.
        enforcer_id: Who made it.
    """

    leaf: int
    time_ms: int
    original: RecordedDecision
    enforcer_id: str = ""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why an answer is not exact, though its own evaluation is.

    Attributes:
        classification: What it is instead.
        explanation: One sentence.
    """

    classification: ReplayClass
    explanation: str


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One side of a comparison.

    Attributes:
        effect: PERMIT, DENY, INDETERMINATE or NOT_APPLICABLE.
        reason: Machine-readable cause.
        rules: Names of the determining rules.
        failed_condition: First rule that stood against the call.
        obligations: What had to be fulfilled.
        engine: Name and version of the engine, such as ``cedar 4.12.2``.
        revision: Digest of the bundle.
        drift: In what the call left its tool's description.
    """

    effect: str
    reason: str
    rules: tuple[str, ...] = ()
    failed_condition: str | None = None
    obligations: tuple[str, ...] = ()
    engine: str | None = None
    revision: str | None = None
    drift: tuple[str, ...] = ()

    @classmethod
    def of(cls, summary: DecisionSummary) -> Answer:
        """Return what a summary says."""
        engine = None if summary.engine is None else f"{summary.engine} {summary.engine_version}"
        return cls(
            effect=summary.effect,
            reason=summary.reason,
            rules=summary.rules,
            failed_condition=summary.failed_condition,
            obligations=summary.obligations,
            engine=engine,
            revision=summary.bundle_revision,
            drift=summary.drift,
        )

    @property
    def cause(self) -> str:
        """The rule that speaks for it, or the reason where none does."""
        return self.failed_condition or next(iter(self.rules), None) or self.reason


class ImpactLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One decision that did not come out exactly as recorded.

    Attributes:
        leaf: Its leaf index.
        decision_id: Its record's id.
        time_ms: Its enforcer's clock, POSIX milliseconds.
        agent: Who called.
        server: What server.
        session: Pseudonym of the session.
        classification: How far the replay can be relied on.
        then: The decision of then.
        now: The decision of now, or None if there is none.
        tool: What the message named.
        method: The MCP method.
        same: Whether both are the same; None if there is nothing to compare.
        differences: Names of the fields that differ.
        explanation: Why it is not exact.
    """

    leaf: int
    decision_id: str
    time_ms: int
    agent: str
    server: str
    session: str
    classification: ReplayClass = msgspec.field(name="class")
    then: Answer
    now: Answer | None = None
    tool: str | None = None
    method: str | None = None
    same: bool | None = None
    differences: tuple[str, ...] = ()
    explanation: str = ""

    @property
    def flip(self) -> str | None:
        """Such as ``deny:permit``, or None if the effect did not change."""
        if self.now is None or self.now.effect == self.then.effect:
            return None
        return f"{self.then.effect}:{self.now.effect}".lower()

    @property
    def cause(self) -> str:
        """What the flip comes from: the rule, or reason, on the side that did not permit."""
        gained = self.now is None or self.now.effect == "PERMIT"
        return self.then.cause if gained or self.now is None else self.now.cause


class Verdicts(msgspec.Struct):
    """What became of the decisions of one class.

    Attributes:
        same: The same decision again.
        different: Another one.
        unknown: None that could be compared.
    """

    same: int = 0
    different: int = 0
    unknown: int = 0

    def add(self, same: bool | None) -> None:  # noqa: FBT001  # three answers, not a switch
        """Count one."""
        if same is None:
            self.unknown += 1
        elif same:
            self.same += 1
        else:
            self.different += 1

    @property
    def total(self) -> int:
        """All of them."""
        return self.same + self.different + self.unknown


class Group(msgspec.Struct):
    """Flips that have a name in common.

    Attributes:
        count: How many.
        decisions: Ids of the first `MAX_EXAMPLES` of them.
    """

    count: int = 0
    decisions: list[str] = []

    def add(self, decision_id: str) -> None:
        """Count one."""
        self.count += 1
        if len(self.decisions) < MAX_EXAMPLES:
            self.decisions.append(decision_id)


class Flips(msgspec.Struct):
    """Flips of one kind.

    Attributes:
        count: How many.
        downstream: Those among them behind a departure of their session.
        rules: By the rule, or reason, that they come from.
        agents: By agent.
        tools: By ``server/tool``.
        servers: By server.
    """

    count: int = 0
    downstream: int = 0
    rules: dict[str, Group] = {}
    agents: dict[str, Group] = {}
    tools: dict[str, Group] = {}
    servers: dict[str, Group] = {}

    def add(self, line: ImpactLine) -> None:
        """Count one."""
        self.count += 1
        self.downstream += line.classification == ReplayClass.DOWNSTREAM
        called = f"{line.server}/{line.tool or line.method or '(unreadable)'}"
        named = ((self.rules, line.cause), (self.agents, line.agent), (self.tools, called), (self.servers, line.server))
        for groups, name in named:
            known = name if name in groups or len(groups) < MAX_GROUPS else OTHERS
            groups.setdefault(known, Group()).add(line.decision_id)


class Impact(msgspec.Struct, kw_only=True):
    """The counts; one task owns it. Plain data, so that a walk can be resumed.

    Attributes:
        from_ms: Start of the period, POSIX milliseconds.
        to_ms: Its end, exclusive.
        read_from_ms: From when on decisions are evaluated, to know how sessions stood when the period began.
        scope: Which of its decisions are counted.
        revision: The bundle that all decisions are made again under; None for each under its own.
        state: Whether facts are as recorded, or rebuilt under the bundle.
        decisions: Decisions of the period that the scope holds.
        not_asked: Those of them that the enforcement point refused itself: no bundle would have been asked.
        classes: What became of them, by class.
        flips: By kind.
        before: Decisions that were evaluated only because their session, or a window, reaches into the period.
        lines: Lines given back.
        courses: Sessions that took another course.
    """

    from_ms: int
    to_ms: int
    read_from_ms: int
    scope: Scope = Scope()
    revision: str | None = None
    state: StateMode = "recorded"
    decisions: int = 0
    not_asked: int = 0
    classes: dict[ReplayClass, Verdicts] = {}
    flips: dict[str, Flips] = {}
    before: int = 0
    lines: int = 0
    courses: Courses = msgspec.field(default_factory=Courses)

    def counts(self, time_ms: int, body: DecisionBody) -> bool:
        """Whether a decision is one of those that are counted."""
        return self.from_ms <= time_ms < self.to_ms and self.scope.holds(body)

    def needs(self, time_ms: int, body: DecisionBody) -> bool:
        """Whether a decision must be fed in: it is counted, or of a session that has decisions which are."""
        if self.revision is None:
            return self.counts(time_ms, body)
        if self.state == "recomputed":
            # Windows add up calls of other agents as well, and a user's are of any agent.
            return self.read_from_ms <= time_ms < self.to_ms
        return self.read_from_ms <= time_ms < self.to_ms and self.scope.concerns(body)

    def _departure(self, body: DecisionBody, result: ReplayResult) -> Doubt | None:
        """Return how the session of a decision departed from what is recorded, before this decision."""
        if self.revision is None:
            # Under the bundles of then, what is recorded before it is what happened before it.
            return None
        started_ms = result.session_started_ms
        before = started_ms is not None and started_ms < self.read_from_ms
        departed = self.courses.before(body.session) or ("before" if before else None)
        return None if departed is None else Doubt(ReplayClass.DOWNSTREAM, _DOWNSTREAM[departed])

    def take(self, located: Located, result: ReplayResult, doubt: Doubt | None = None) -> ImpactLine | None:
        """Take in the next decision of the log.

        Args:
            located: The decision.
            result: Its replay; where state is recomputed, of the restated request.
            doubt: Where state is recomputed: why it is not known.

        Returns its line, or None if it came out exactly as recorded or is not counted.

        Raises:
            PolicyError: Too many sessions took another course to be told apart.
        """
        body = located.original.body
        if self.state == "recorded":
            doubt = self._departure(body, result)
            if self.revision is not None:
                self.courses.note(body, result, self.revision)
        if not self.counts(located.time_ms, body):
            self.before += 1
            return None
        line = _line(located, result, doubt)
        self._count(line, asked=body.bundle is not None)
        if line.same and line.classification == ReplayClass.EXACT:
            return None
        self.lines += 1
        return line

    def _count(self, line: ImpactLine, *, asked: bool) -> None:
        self.decisions += 1
        self.not_asked += not asked
        self.classes.setdefault(line.classification, Verdicts()).add(line.same)
        # Where the engine was stopped, then or now, what differs is no doing of the bundle's.
        if (flip := line.flip) is not None and line.classification != ReplayClass.LIMITED:
            self.flips.setdefault(flip, Flips()).add(line)

    def end_session(self, session: str) -> None:
        """Take in that a session has ended."""
        self.courses.end(session)

    @property
    def exact(self) -> int:
        """Decisions that were made again exactly, whatever came out."""
        found = self.classes.get(ReplayClass.EXACT)
        return 0 if found is None else found.total

    @property
    def reproduced(self) -> int:
        """Decisions that were made again exactly, and came out as recorded."""
        found = self.classes.get(ReplayClass.EXACT)
        return 0 if found is None else found.same

    @property
    def unknown(self) -> int:
        """Decisions of which nobody can say what the bundle would have decided, those not asked left out."""
        limited = self.classes.get(ReplayClass.LIMITED, Verdicts())
        unanswered = sum(verdicts.unknown for verdicts in self.classes.values())
        return unanswered + limited.same + limited.different - self.not_asked

    def hit(self, conditions: Iterable[str]) -> bool:
        """Whether there is a flip of one of these kinds, such as ``permit:deny``."""
        return any(condition in self.flips for condition in conditions)


def _line(located: Located, result: ReplayResult, doubt: Doubt | None) -> ImpactLine:
    body, classification, explanation = located.original.body, result.classification, result.explanation
    # What is less than exact for a reason of its own keeps that reason.
    if doubt is not None and classification == ReplayClass.EXACT:
        classification, explanation = doubt.classification, doubt.explanation
    return ImpactLine(
        leaf=located.leaf,
        decision_id=result.record_id,
        time_ms=located.time_ms,
        agent=body.agent,
        server=body.server,
        session=body.session,
        classification=classification,
        then=Answer.of(result.original),
        now=None if result.replayed is None else Answer.of(result.replayed),
        tool=body.tool,
        method=body.method,
        same=result.same,
        differences=result.differences,
        explanation=explanation,
    )
