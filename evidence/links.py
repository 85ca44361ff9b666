"""What follows for one record from the others of the same pack: outcomes of decisions, lives of bundles, sessions.

Pure. `Links` sees every record of the range once, in leaf order, and can then be asked for the derived attributes of
any of them; `subjects` says what these mean. Both the maker of a pack and its verifier do this, from the same entries.

Memory is linear in the number of decisions: an id and a word for each, and as much for each outcome.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ledger.records import Approval, BundleEvent, Decision, Outcome, Record

__all__ = ["Links"]

_NOTHING: Final[dict[str, object]] = {}


@dataclass(slots=True)
class _Outcomes:
    """The outcomes of one decision."""

    status: str
    first_leaf: int
    count: int = 1


@dataclass(slots=True)
class _Session:
    """The principals of one session, and its calls that were allowed after it had been killed."""

    agents: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    killed: bool = False
    allowed_later: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Life:
    """First leaf of each step of one bundle revision, and who reviewed it where."""

    first: dict[str, int] = field(default_factory=dict)
    reviews: list[tuple[int, str]] = field(default_factory=list)

    def before(self, action: str, leaf: int) -> bool:
        return self.first.get(action, leaf) < leaf


def _passage(body: Decision) -> str:
    if body.mode == "observe":
        return "observed"
    return {"allow": "permitted", "ask": "held"}.get(body.enforcement, "refused")


@dataclass(slots=True)
class Links:
    """An index over the records of a range; one task owns it.

    Attributes:
        whole: The range starts at leaf 0, so that what is not in it is nowhere.
        repeated_decisions: Decisions whose id had occurred before.
    """

    whole: bool = True
    repeated_decisions: int = 0
    _decisions: dict[str, str] = field(default_factory=dict)
    _outcomes: dict[str, _Outcomes] = field(default_factory=dict)
    _approvals: dict[str, str] = field(default_factory=dict)
    _sessions: dict[str, _Session] = field(default_factory=dict)
    _lives: dict[str, _Life] = field(default_factory=dict)

    def add(self, leaf: int, record: Record) -> None:
        """Take in the record at ``leaf``; leaves only grow."""
        body = record.body
        if isinstance(body, Decision):
            self._add_decision(leaf, record.record_id, body)
        elif isinstance(body, Outcome):
            known = self._outcomes.get(body.decision_id)
            if known is None:
                self._outcomes[body.decision_id] = _Outcomes(body.status, leaf)
            else:
                known.count += 1
        elif isinstance(body, Approval):
            self._approvals[body.decision_id] = body.action
        elif isinstance(body, BundleEvent):
            life = self._lives.setdefault(body.revision, _Life())
            life.first.setdefault("activated" if body.action == "rolled_back" else body.action, leaf)
            if body.action == "reviewed":
                life.reviews.append((leaf, body.actor))

    def _add_decision(self, leaf: int, record_id: str, body: Decision) -> None:
        self.repeated_decisions += record_id in self._decisions
        self._decisions.setdefault(record_id, _passage(body))
        session = self._sessions.setdefault(body.session, _Session())
        session.agents.add(body.agent)
        if body.user is not None:
            session.users.add(body.user)
        session.killed |= body.enforcement == "kill"
        if session.killed and body.enforcement == "allow":
            session.allowed_later.append((leaf, record_id))

    def outcome(self, decision_id: str) -> str | None:
        """Return the status of a decision's first outcome, or None if it has none."""
        found = self._outcomes.get(decision_id)
        return None if found is None else found.status

    def derived(self, leaf: int, record: Record) -> dict[str, object]:
        """Return the derived attributes of the record at ``leaf``, once every record has been added."""
        body = record.body
        if isinstance(body, Decision):
            return self._of_decision(leaf, record.record_id, body)
        if isinstance(body, Outcome):
            missing = "missing" if self.whole else "unknown"
            return {
                "decision": self._decisions.get(body.decision_id, missing),
                "repeated": self._outcomes[body.decision_id].first_leaf < leaf,
            }
        if isinstance(body, BundleEvent):
            life = self._lives[body.revision]
            reviewers = {actor for at, actor in life.reviews if at < leaf}
            return {
                "published_before": life.before("published", leaf),
                "tested_before": life.before("tested", leaf),
                "reviewed_before": bool(reviewers),
                "reviewed_by_another": bool(reviewers - {body.actor}),
            }
        return _NOTHING

    def _of_decision(self, leaf: int, record_id: str, body: Decision) -> dict[str, object]:
        outcomes = self._outcomes.get(record_id)
        session = self._sessions[body.session]
        life = _Life() if body.bundle is None else self._lives.get(body.bundle.revision, _Life())
        return {
            "outcome": "missing" if outcomes is None else outcomes.status,
            "outcomes": 0 if outcomes is None else outcomes.count,
            "approval": self._approvals.get(record_id, "none"),
            "bundle_published": life.before("published", leaf),
            "bundle_activated": life.before("activated", leaf),
            "session_agents": len(session.agents),
            "session_users": len(session.users),
            "session_continued": any(
                # A call that was judged before the kill and recorded after it is withheld, and its outcome says so.
                at > leaf and self.outcome(call) != "not_forwarded"
                for at, call in session.allowed_later
            ),
        }
