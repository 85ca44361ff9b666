"""Control tests over the records of a log as they are written: what a pack would say, had it been made just now.

Pure; what reads the log again is given. A `Standing` is fed with every record once, in leaf order, and its examinations
are at any time those that `derivation` would come to for the records so far: the same items, the same fold.

What follows for a record can change when a later one is written: a call is allowed, and its outcome comes; a session
gets a second agent. So it is known of each item what the tests made of it, and items that a new record bears on are
folded again:

* a decision, by its outcomes and the steps of its approval;
* the decisions of a session, when it gets another agent or person, or a call of it passes after a kill; these wait
  until somebody asks, since one record can bear on a whole session;
* an outcome that was written before its decision.

What follows for the steps of a bundle, and from a bundle for a decision, are earlier leaves alone, and stays as it is.

Memory is that of `Links`, and about half as much again; the latest records are kept as they are. Deviations are kept as
leaves, and put into words when somebody asks.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from typing import Final

from evidence.controls import MAX_DEVIATIONS, ControlTest, Examination
from evidence.folding import Fold, Outcome
from evidence.items import is_item, record_item
from evidence.links import Links
from evidence.population import Period
from evidence.subjects import RECORD_SUBJECTS
from ledger.bodies import Approval, Decision, KeyEvent
from ledger.bodies import Outcome as OutcomeBody
from ledger.errors import EvidenceError
from ledger.records import Record

__all__ = ["Standing"]

_KEPT: Final = 8_192
"""Items whose records are kept; the outcome of a call mostly comes soon."""


class Standing:
    """Tests of records, kept current; one task owns it.

    Attributes:
        tests: The tests about records; those about streams, populations and replays are not for it.
        size: Leaf index of the next record.
    """

    def __init__(
        self,
        tests: Iterable[ControlTest],
        period: Period,
        recall: Callable[[int], Record],
        *,
        first_leaf: int = 0,
        prior: Iterable[tuple[int, Record]] = (),
    ) -> None:
        """Begin.

        Args:
            tests: The tests; those that are not about records are left aside.
            period: What lies outside it is no item.
            recall: Reads a record of the log again, by its leaf.
            first_leaf: The first record's.
            prior: Records from before it that came along, as in a pack whose range begins later.
        """
        self.tests = tuple(test for test in tests if test.subject in RECORD_SUBJECTS)
        self.size = first_leaf
        self._period = period
        self._recall = recall
        self._first_leaf = first_leaf
        self._fold = Fold(self.tests)
        self._links = Links(whole=first_leaf == 0)
        self._outcomes: list[Outcome | None] = []
        self._failing: list[list[int]] = [[] for _ in self.tests]
        self._kept: dict[int, Record] = {}
        self._decisions: dict[str, int] = {}
        self._namesakes: dict[str, list[int]] = {}
        self._sessions: dict[str, array[int]] = {}
        self._after_kill: dict[str, set[str]] = {}
        self._waiting: set[str] = set()
        brought = list(prior)
        for leaf, record in brought:
            self._links.add(leaf, record)
        for leaf, record in brought:
            if isinstance(record.body, KeyEvent):
                self._kept[leaf] = record
                self._count(leaf, self._fold.add(*record_item(self._links, leaf, record)))
        self._prior = dict(self._kept)

    def add(self, record: Record) -> None:
        """Take in the record of the next leaf."""
        leaf, body = self.size, record.body
        self.size += 1
        before = self._links.session_state(body.session) if isinstance(body, Decision) else None
        self._links.add(leaf, record)
        if is_item(record, self._period):
            outcome = self._fold.add(*record_item(self._links, leaf, record))
            self._outcomes.append(outcome)
            self._count(leaf, outcome)
            self._keep(leaf, record)
        else:
            self._outcomes.append(None)
        if isinstance(body, Decision):
            self._after_decision(leaf, record, body, before)
        elif isinstance(body, OutcomeBody | Approval):
            self._again(self._decisions.get(body.decision_id))
            for other in self._namesakes.get(body.decision_id, ()):
                self._again(other)
            if isinstance(body, OutcomeBody):
                self._waiting |= self._after_kill.get(body.decision_id, set())

    def _after_decision(self, leaf: int, record: Record, body: Decision, before: tuple[int, int, int] | None) -> None:
        for other in self._links.outcome_leaves(record.record_id):
            self._again(other)
        after = self._links.session_state(body.session)
        if before is not None and before[2] != after[2]:
            self._after_kill.setdefault(record.record_id, set()).add(body.session)
        if before != after and body.session in self._sessions:
            self._waiting.add(body.session)
        if self._outcome_at(leaf) is not None:
            if self._decisions.setdefault(record.record_id, leaf) != leaf:
                self._namesakes.setdefault(record.record_id, []).append(leaf)
            self._sessions.setdefault(body.session, array("q")).append(leaf)

    def _outcome_at(self, leaf: int) -> Outcome | None:
        return self._outcomes[leaf - self._first_leaf] if leaf >= self._first_leaf else None

    def _keep(self, leaf: int, record: Record) -> None:
        self._kept[leaf] = record
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]

    def _record(self, leaf: int) -> Record:
        return self._kept.get(leaf) or self._prior.get(leaf) or self._recall(leaf)

    def _count(self, leaf: int, outcome: Outcome | None) -> None:
        for number in outcome.failed if outcome is not None else ():
            insort(self._failing[number], leaf)

    def _again(self, leaf: int | None) -> None:
        """Fold an item again, if it is one, since what follows for it may have changed."""
        then = None if leaf is None else self._outcome_at(leaf)
        if leaf is None or then is None:
            return
        self._fold.remove(then)
        for number in then.failed:
            leaves = self._failing[number]
            del leaves[bisect_left(leaves, leaf)]
        now = self._fold.add(*record_item(self._links, leaf, self._record(leaf)))
        self._outcomes[leaf - self._first_leaf] = now
        self._count(leaf, now)

    def _settle(self) -> None:
        for session in sorted(self._waiting):
            for leaf in self._sessions.get(session, ()):
                self._again(leaf)
        self._waiting.clear()

    def examinations(self, deviations: int = MAX_DEVIATIONS) -> dict[str, Examination]:
        """Return what came of each test so far.

        Args:
            deviations: How many of each test are put into words; all are counted.

        Raises:
            EvidenceError: More deviations are wanted than an examination tells.
        """
        if deviations > MAX_DEVIATIONS:
            raise EvidenceError(f"an examination tells {MAX_DEVIATIONS} deviations")
        self._settle()
        told: dict[str, Examination] = {}
        for test, tally, leaves in zip(self.tests, self._fold.tallies(), self._failing, strict=True):
            examination = told[test.id] = Examination(test, tally.population, tally.passed, tally.failed)
            for leaf in leaves[:deviations]:
                examination.deviate(record_item(self._links, leaf, self._record(leaf))[1])
        return told
