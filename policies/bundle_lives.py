"""The lives of policy bundles, as the records of a log tell them: draft, tested, reviewed, active, retired.

Pure. Which bundle is active, and how far each has come, is never stored by itself: it follows from the `BundleEvent`
records, in log order (`derive_state`), so that state and log cannot disagree. Taking a step is `registry`'s part.

A bundle may become active once its own test cases pass and somebody else than its author has approved it. An approval
is of one revision, thus of its exact bytes. A rejection, whoever it comes from, undoes the approvals before it.

INVARIANT: whoever published a bundle approves it for nobody, nor under the pseudonym that another key gives him. Two
who cannot be told apart, because they were recorded under different pseudonym keys and neither record says what its
actor was called under the other's, count as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from ledger.bodies import BundleEvent

__all__ = [
    "Actor",
    "BundleLife",
    "Foresight",
    "RecordedEvent",
    "RegistryState",
    "Review",
    "Stage",
    "TestRun",
    "derive_state",
    "may_be_one",
]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something to a bundle.

    Attributes:
        pseudonym: `ledger.commitments.pseudonym` of kind ``actor``.
        role: Role under which it is done.
        key_id: Which key made the pseudonym; None if that is not known.
        also: What he is called under the key that made the author's pseudonym, where that is another.
    """

    pseudonym: str
    role: str
    key_id: str | None = None
    also: tuple[str, ...] = ()


class RecordedEvent(NamedTuple):
    """A bundle event as the log has it.

    Attributes:
        leaf_index: Zero-based leaf index.
        time_ms: The record's time, POSIX milliseconds.
        event: The record's body.
        pseudonym_key_id: Which key made its pseudonyms; None if the record does not say.
    """

    leaf_index: int
    time_ms: int
    event: BundleEvent
    pseudonym_key_id: str | None = None

    @property
    def actor(self) -> Actor:
        """Who did it."""
        return Actor(self.event.actor, self.event.actor_role, self.pseudonym_key_id, self.event.also)


class Stage(StrEnum):
    """How far a bundle has come.

    ``DRAFT``: published; its cases were not run, fail, or there are none. ``TESTED``: they pass. ``REVIEWED``: somebody
    else than the author approved it. ``REJECTED``: the last word about it was a rejection. ``ACTIVE``: enforcers decide
    by it. ``RETIRED``: it never will be active again.
    """

    DRAFT = "draft"
    TESTED = "tested"
    REVIEWED = "reviewed"
    REJECTED = "rejected"
    ACTIVE = "active"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRun:
    """A run of a bundle's own test cases, by the service.

    Attributes:
        leaf_index: Of its record.
        cases: How many there are.
        failures: Those that failed.
        uncovered_rules: How many rules no case reached.
        uncovered: The first of these by name.
        engine_version: Exact version of the engine.
    """

    __test__ = False  # pytest: not a test class

    leaf_index: int
    cases: int
    failures: int
    uncovered_rules: int
    uncovered: tuple[str, ...]
    engine_version: str | None

    @property
    def passes(self) -> bool:
        """Whether there are cases, and none fails."""
        return self.cases > 0 and self.failures == 0


class Review(NamedTuple):
    """A review that counts.

    Attributes:
        leaf_index: Of its record.
        actor: Who reviewed.
    """

    leaf_index: int
    actor: Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleLife:
    """What the log says of one revision.

    Attributes:
        revision: Which.
        name: The bundle's name.
        engine: Engine that it is written for.
        published_leaf: Leaf index of its publication.
        author: Who published it.
        test_run: The last run of its cases, or None.
        approvals: By others than the author, since the last rejection.
        rejection: The last one, if nobody has approved since.
        signature: SHA-256 over the last DSSE envelope that was handed in for it, or None.
        retired: It may not become active any more.
        active: It is active now.
    """

    revision: str
    name: str
    engine: str
    published_leaf: int
    author: Actor
    test_run: TestRun | None = None
    approvals: tuple[Review, ...] = ()
    rejection: Review | None = None
    signature: str | None = None
    retired: bool = False
    active: bool = False

    @property
    def tested(self) -> bool:
        """Whether its cases pass, by their last run."""
        return self.test_run is not None and self.test_run.passes

    @property
    def stage(self) -> Stage:
        """How far it has come."""
        if self.retired:
            return Stage.RETIRED
        if self.active:
            return Stage.ACTIVE
        if self.rejection is not None:
            return Stage.REJECTED
        if not self.tested:
            return Stage.DRAFT
        return Stage.REVIEWED if self.approvals else Stage.TESTED

    def untested(self) -> str | None:
        """Return one sentence on why its tests do not let it go on; None if they do."""
        run = self.test_run
        if run is None:
            return "the bundle's test cases were not run yet"
        if run.cases == 0:
            return "the bundle has no test case"
        return f"{run.failures} of the bundle's {run.cases} test cases fail" if run.failures else None

    def approved_for(self, actor: Actor, since_leaf: int) -> bool:
        """Whether somebody else than ``actor`` has approved it behind a leaf, and nobody rejected it since."""
        return any(item.leaf_index > since_leaf and not may_be_one(item.actor, actor) for item in self.approvals)

    def unready(self, *, reviewed: bool = True) -> str | None:
        """Return one sentence on why it cannot become active; None if it can.

        Args:
            reviewed: Whether an approval is needed.
        """
        if self.retired:
            return "the bundle is retired"
        if (untested := self.untested()) is not None:
            return untested
        if self.rejection is not None:
            return "the bundle's review was a rejection"
        if reviewed and not self.approvals:
            return "nobody but the bundle's author has approved it"
        return None


@dataclass(frozen=True, slots=True)
class RegistryState:
    """What the bundle events of a log add up to.

    Attributes:
        lives: Of every bundle that was published, by revision, oldest first.
        activations: Revisions as they became active and were not rolled back; the last one is active.
        activated_leaf: Leaf index of the record by which the active one became so.
        canary: Revision that is evaluated beside the active one and decides nothing, or None.
    """

    lives: Mapping[str, BundleLife] = field(default_factory=dict)
    activations: tuple[str, ...] = ()
    activated_leaf: int | None = None
    canary: str | None = None

    @property
    def published(self) -> Mapping[str, str]:
        """Revision → name of every bundle that was published, oldest first."""
        return {revision: life.name for revision, life in self.lives.items()}

    @property
    def active(self) -> str | None:
        """The active revision, or None before the first activation."""
        return self.activations[-1] if self.activations else None

    @property
    def previous(self) -> str | None:
        """What a rollback leads to, or None."""
        return self.activations[-2] if len(self.activations) > 1 else None


class Foresight(NamedTuple):
    """What a bundle would have made of denials that are on record.

    Attributes:
        replayed: How many were made again under it.
        loosened: Those that it would have permitted.
        unknown: Those of which nobody can tell.
    """

    replayed: int = 0
    loosened: int = 0
    unknown: int = 0

    @property
    def permits_nothing_new(self) -> bool:
        """Whether every denial stays one, as far as all of them could be made again."""
        return not self.loosened and not self.unknown


def may_be_one(first: Actor, second: Actor) -> bool:
    """Whether two actors may be one person, as far as pseudonyms tell; where they cannot tell, they may."""
    names, others = {first.pseudonym, *first.also}, {second.pseudonym, *second.also}
    if not names.isdisjoint(others):
        return True
    # Under one key, two pseudonyms are two names. Under two keys somebody must have said his name under both.
    return first.key_id != second.key_id and not (first.also or second.also)


def _rolled_back(activations: tuple[str, ...], revision: str) -> tuple[str, ...]:
    """Return the activations up to and including the latest one of ``revision`` before the present one."""
    earlier = activations[:-1]
    while earlier and earlier[-1] != revision:
        earlier = earlier[:-1]
    return earlier or (revision,)


def _born(recorded: RecordedEvent) -> BundleLife:
    event = recorded.event
    return BundleLife(
        revision=event.revision,
        name=event.name,
        engine=event.engine,
        published_leaf=recorded.leaf_index,
        author=recorded.actor,
    )


def _canary(canary: str | None, event: BundleEvent, lives: Mapping[str, BundleLife]) -> str | None:
    """Return which bundle is the canary after a step, given the one before it and what was known before it."""
    if event.action == "canary_started":
        life = lives.get(event.revision)
        return canary if life is None or life.retired else event.revision
    ends = event.action in ("canary_ended", "activated", "rolled_back", "retired") and event.revision == canary
    return None if ends else canary


def _tested(life: BundleLife, recorded: RecordedEvent) -> BundleLife:
    event = recorded.event
    run = TestRun(
        leaf_index=recorded.leaf_index,
        cases=event.cases,
        failures=event.failures,
        uncovered_rules=event.uncovered_rules,
        uncovered=event.uncovered,
        engine_version=event.engine_version,
    )
    return replace(life, test_run=run)


def _reviewed(life: BundleLife, recorded: RecordedEvent) -> BundleLife:
    review = Review(recorded.leaf_index, recorded.actor)
    if recorded.event.verdict == "rejected":
        return replace(life, approvals=(), rejection=review)
    if recorded.event.verdict != "approved" or may_be_one(life.author, review.actor):
        return life
    return replace(life, approvals=(*life.approvals, review), rejection=None)


def _changed(life: BundleLife, recorded: RecordedEvent) -> BundleLife:
    match recorded.event.action:
        case "tested":
            return _tested(life, recorded)
        case "reviewed":
            return _reviewed(life, recorded)
        case "signed":
            return replace(life, signature=recorded.event.signature)
        case "retired":
            return replace(life, retired=True)
        case _:
            return life


def derive_state(events: Sequence[RecordedEvent]) -> RegistryState:
    """Return what bundle events add up to; a function of the log alone.

    An activation that the log records is believed, also one from before there were reviews: enforcers decided by it.

    Args:
        events: In log order.
    """
    lives: dict[str, BundleLife] = {}
    activations: tuple[str, ...] = ()
    activated_leaf: int | None = None
    canary: str | None = None
    for recorded in events:
        event = recorded.event
        canary = _canary(canary, event, lives)
        if event.action == "published":
            lives.setdefault(event.revision, _born(recorded))
        elif event.action in ("activated", "rolled_back"):
            onto = (*activations, event.revision)
            activations = onto if event.action == "activated" else _rolled_back(activations, event.revision)
            activated_leaf = recorded.leaf_index
        elif event.revision in lives:
            lives[event.revision] = _changed(lives[event.revision], recorded)
    if activations and activations[-1] in lives:
        lives[activations[-1]] = replace(lives[activations[-1]], active=True)
    if canary is not None and activations and canary == activations[-1]:
        canary = None  # what decides has no shadow
    return RegistryState(lives, activations, activated_leaf, canary)
