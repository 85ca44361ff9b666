"""What follows for one record from the others of the same pack: outcomes of decisions, lives of bundles, sessions.

Pure. `Links` sees every record of the range once, in leaf order, and can then be asked for the derived attributes of
any of them; `subjects` says what these mean. Both the maker of a pack and its verifier do this, from the same entries.

Only the enforcer that made a decision can say in its favour how it ended, and that it was held and what was agreed was
used. That people agreed, only another one can say: the service, which takes such a record from no gateway. What speaks
against it counts whoever says it: any outcome but ``not_forwarded`` means that the call was forwarded, also where a
first one denied it.

Memory is linear in the number of records: an id for each, twice for each decision, and as much for each outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import intern
from typing import Final, NamedTuple

from ledger.approvals import Terms, binding_of
from ledger.bodies import Approval, BundleEvent, Decision, Outcome
from ledger.records import Record
from policies.bundle_lives import BundleLife, RecordedEvent, derive_state

__all__ = ["Links"]

_NOTHING: Final[dict[str, object]] = {}
_NOT_FORWARDED: Final = "not_forwarded"


class _Outcome(NamedTuple):
    """An outcome that some enforcer recorded for a decision."""

    leaf: int
    enforcer: str
    status: str


class _Step(NamedTuple):
    """A step of an approval that some enforcer recorded for a decision."""

    leaf: int
    enforcer: str
    approval_id: str
    action: str
    time_ms: int
    expires_ms: int
    needed: int
    roles: tuple[str, ...]
    role: str | None
    binding: str
    person: tuple[str | None, str | None]


def _terms(held: _Step) -> Terms:
    return Terms(approval_id=held.approval_id, expires_ms=held.expires_ms, needed=held.needed, roles=held.roles)


def _agree(people: set[tuple[str, str | None]], step: _Step) -> None:
    """Take in that somebody agreed: a person, under a role, who is surely none of those who did before."""
    actor, key_id = step.person
    if actor is not None and step.role is not None and all(key_id == other for _, other in people):
        people.add((actor, key_id))


@dataclass(slots=True)
class _Session:
    """The principals of one session, and its calls that were allowed after it had been killed."""

    agents: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    killed: bool = False
    allowed_later: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Life:
    """First leaf of each step of one bundle revision, and the steps that say whether it may become active."""

    first: dict[str, int] = field(default_factory=dict)
    steps: list[RecordedEvent] = field(default_factory=list)

    def before(self, action: str, leaf: int) -> bool:
        return self.first.get(action, leaf) < leaf

    def at(self, leaf: int) -> BundleLife | None:
        """Return what the registry held of the revision when it wrote the record at ``leaf``; None if nothing."""
        lives = derive_state([step for step in self.steps if step.leaf_index < leaf]).lives
        return next(iter(lives.values()), None)


def _passage(body: Decision) -> str:
    if body.mode == "observe":
        return "observed"
    return {"allow": "permitted", "ask": "held"}.get(body.enforcement, "refused")


@dataclass(slots=True)
class Links:
    """An index over the records of a range; one task owns it.

    Attributes:
        whole: The range starts at leaf 0, so that what is not in it is nowhere.
        repeated_ids: Records, of any type, whose id an earlier one had.
    """

    whole: bool = True
    repeated_ids: int = 0
    _ids: set[int] = field(default_factory=set)
    _decisions: dict[str, tuple[str, str]] = field(default_factory=dict)
    _passages: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    _outcomes: dict[str, list[_Outcome]] = field(default_factory=dict)
    _approvals: dict[str, list[_Step]] = field(default_factory=dict)
    _sessions: dict[str, _Session] = field(default_factory=dict)
    _lives: dict[str, _Life] = field(default_factory=dict)

    def add(self, leaf: int, record: Record) -> None:
        """Take in the record at ``leaf``; leaves only grow."""
        body, enforcer = record.body, intern(record.enforcer_id)
        number = int(record.record_id.replace("-", ""), 16)
        self.repeated_ids += number in self._ids
        self._ids.add(number)
        if isinstance(body, Decision):
            self._add_decision(leaf, record.record_id, enforcer, body)
        elif isinstance(body, Outcome):
            self._outcomes.setdefault(body.decision_id, []).append(_Outcome(leaf, enforcer, body.status))
        elif isinstance(body, Approval):
            step = _Step(
                leaf,
                enforcer,
                body.approval_id,
                body.action,
                record.time_ms,
                body.expires_ms,
                body.needed,
                body.roles,
                body.actor_role,
                body.binding,
                (body.actor, record.pseudonym_key_id),
            )
            self._approvals.setdefault(body.decision_id, []).append(step)
        elif isinstance(body, BundleEvent):
            life = self._lives.setdefault(body.revision, _Life())
            life.first.setdefault("activated" if body.action == "rolled_back" else body.action, leaf)
            life.steps.append(RecordedEvent(leaf, record.time_ms, body, record.pseudonym_key_id))

    def _add_decision(self, leaf: int, record_id: str, enforcer: str, body: Decision) -> None:
        told = (enforcer, _passage(body))
        # Many decisions share one pair.
        self._decisions.setdefault(record_id, self._passages.setdefault(told, told))
        session = self._sessions.setdefault(body.session, _Session())
        session.agents.add(body.agent)
        if body.user is not None:
            session.users.add(body.user)
        session.killed |= body.enforcement == "kill"
        if session.killed and body.enforcement == "allow":
            session.allowed_later.append((leaf, record_id))

    def outcome(self, decision_id: str) -> str | None:
        """Return the status of the first outcome that a decision's own enforcer recorded, or None if it has none."""
        enforcer, _ = self._decisions.get(decision_id, ("", ""))
        return next((one.status for one in self._own_outcomes(decision_id, enforcer)), None)

    def outcome_leaves(self, decision_id: str) -> list[int]:
        """Return the leaves of the outcomes, of whatever enforcer, that name a decision."""
        return [one.leaf for one in self._outcomes.get(decision_id, ())]

    def session_state(self, session: str) -> tuple[int, int, int]:
        """Return how many agents and persons a session has, and how many calls that passed after a kill."""
        state = self._sessions.get(session)
        return (0, 0, 0) if state is None else (len(state.agents), len(state.users), len(state.allowed_later))

    def _own_outcomes(self, decision_id: str, enforcer: str) -> list[_Outcome]:
        return [one for one in self._outcomes.get(decision_id, ()) if one.enforcer == enforcer]

    @staticmethod
    def _counts(step: _Step, enforcer: str) -> bool:
        """Whether a step of an approval is by whom it must be: what people say, by another than who holds the call."""
        return (step.enforcer != enforcer) is (step.action in ("seen", "granted", "denied"))

    def _forwarded_at(self, decision_id: str) -> int | None:
        """Return the leaf of the first outcome, of any enforcer, by which the call was forwarded."""
        outcomes = self._outcomes.get(decision_id, ())
        return next((one.leaf for one in outcomes if one.status != _NOT_FORWARDED), None)

    def _was_withheld(self, decision_id: str) -> bool:
        return self.outcome(decision_id) == _NOT_FORWARDED and self._forwarded_at(decision_id) is None

    def _was_approved(self, decision_id: str, enforcer: str, body: Decision) -> bool:
        """Whether enough people agreed to what was held, in time, and the call was forwarded only after that was used.

        Steps of its own enforcer say that it was held and used, those of others what people said.
        """
        forwarded = self._forwarded_at(decision_id)
        held: dict[str, _Step] = {}
        agreed: dict[str, set[tuple[str, str | None]]] = {}
        over: set[str] = set()
        for step in self._approvals.get(decision_id, ()):
            terms = held.get(step.approval_id)
            own = step.enforcer == enforcer
            if step.action == "held" and own:
                if step.approval_id not in over and step.binding == binding_of(decision_id, body, _terms(step)):
                    held.setdefault(step.approval_id, step)
            elif terms is None or step.binding != terms.binding or step.action == "seen":
                continue
            elif step.action == "granted" and not own:
                if step.time_ms < terms.expires_ms and (not terms.roles or step.role in terms.roles):
                    _agree(agreed.setdefault(step.approval_id, set()), step)
            elif step.action == "used" and own:
                enough = len(agreed.get(step.approval_id, ())) >= max(1, terms.needed)
                if enough and step.time_ms < terms.expires_ms and (forwarded is None or step.leaf < forwarded):
                    return True
                over.add(held.pop(step.approval_id).approval_id)
            elif step.action == "denied" or (own and step.action != "granted"):
                over.add(held.pop(step.approval_id).approval_id)
        return False

    def _decision_of(self, outcome: Outcome, enforcer: str) -> str:
        """Return the passage of the decision to which its own enforcer's outcome belongs, or why there is none."""
        author, passage = self._decisions.get(outcome.decision_id, ("", ""))
        if not passage:
            return "missing" if self.whole else "unknown"
        return passage if author == enforcer else "missing"

    def derived(self, leaf: int, record: Record) -> dict[str, object]:
        """Return the derived attributes of the record at ``leaf``, once every record has been added."""
        body = record.body
        if isinstance(body, Decision):
            return self._of_decision(leaf, record.record_id, record.enforcer_id, body)
        if isinstance(body, Outcome):
            return {
                "decision": self._decision_of(body, record.enforcer_id),
                "repeated": self._outcomes[body.decision_id][0].leaf < leaf,
            }
        if isinstance(body, BundleEvent):
            life = self._lives[body.revision]
            then = life.at(leaf)
            return {
                "published_before": life.before("published", leaf),
                "tested_before": life.before("tested", leaf),
                "tests_passed": then is not None and then.tested,
                "reviewed_before": life.before("reviewed", leaf),
                "reviewed_by_another": then is not None and bool(then.approvals),
            }
        return _NOTHING

    def _of_decision(self, leaf: int, record_id: str, enforcer: str, body: Decision) -> dict[str, object]:
        outcomes = self._own_outcomes(record_id, enforcer)
        steps = [step for step in self._approvals.get(record_id, ()) if self._counts(step, enforcer)]
        session = self._sessions[body.session]
        life = _Life() if body.bundle is None else self._lives.get(body.bundle.revision, _Life())
        return {
            "outcome": outcomes[0].status if outcomes else "missing",
            "outcomes": len(outcomes),
            "forwarded": self._forwarded_at(record_id) is not None,
            "approval": steps[-1].action if steps else "none",
            "approved": self._was_approved(record_id, enforcer, body),
            "bundle_published": life.before("published", leaf),
            "bundle_activated": life.before("activated", leaf),
            "session_agents": len(session.agents),
            "session_users": len(session.users),
            "session_continued": any(
                # A call that was judged before the kill and recorded after it is withheld, and its outcome says so.
                at > leaf and not self._was_withheld(call)
                for at, call in session.allowed_later
            ),
        }
