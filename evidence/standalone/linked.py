"""What follows for one record from the others of the same pack: outcomes, approvals, lives of bundles, sessions.

Pure, standard library only. Only the enforcer that made a decision can say in its favour how it ended, and that it was
held and what was agreed used; only another one that people agreed. What speaks against it counts whoever says it.

Source: docs/evidence.md, section 5, "Derived attributes".
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from evidence.standalone.records import Record
from evidence.standalone.texts import canonical

__all__ = ["Links"]


class _Outcome(NamedTuple):
    leaf: int
    enforcer: str
    status: str


_BY_PEOPLE = ("seen", "granted", "denied")


def _binding_of(decision: Record, held: Record) -> str:
    """Return what those who agree to a held call agree to (docs/formats.md, "Approvals")."""
    body, terms = decision.body, held.body
    bundle = body.get("bundle")
    told = {name: body.get(name) for name in ("agent", "user", "session", "server", "method", "tool", "tool_digest")}
    told |= {name: terms.get(name, 0) for name in ("expires_ms", "needed")}
    told |= {"approval_id": terms["approval_id"], "decision_id": terms["decision_id"]}
    told |= {"format": "tallystick.approval/1", "roles": list(terms.get("roles", ()))}
    told |= {"bundle": None if bundle is None else bundle["revision"], "message": body["message"]}
    return hashlib.sha256(canonical(told)).hexdigest()


class _HeldCall:
    """A held call, and who has agreed to it."""

    def __init__(self, record: Record) -> None:
        body = record.body
        self.approval_id: str = body["approval_id"]
        self.binding: str = body["binding"]
        self.expires_ms: int = body.get("expires_ms", 0)
        self.needed: int = max(1, body.get("needed", 0))
        self.roles: tuple[str, ...] = tuple(body.get("roles", ()))
        self.people: set[tuple[str, str | None]] = set()

    def _agree(self, step: Record) -> None:
        """Take in that somebody agreed: two under different pseudonym keys could be one, and count as one."""
        actor, role, key_id = step.get("actor"), step.get("actor_role"), step.value.get("pseudonym_key_id")
        if actor is None or role is None or (self.roles and role not in self.roles):
            return
        if all(key_id == other for _, other in self.people):
            self.people.add((actor, key_id))

    def used_at(self, steps: list[Record], enforcer: str) -> int | None:
        """Return the leaf at which its enforcer used it in time, enough people having agreed before; None if never."""
        for step in steps:
            body, own = step.body, step.enforcer_id == enforcer
            if body["approval_id"] != self.approval_id or body["binding"] != self.binding:
                continue
            if body["action"] == "granted":
                if not own and step.time_ms < self.expires_ms:
                    self._agree(step)
            elif body["action"] == "used" and own:
                in_time = step.time_ms < self.expires_ms
                return step.leaf if in_time and len(self.people) >= self.needed else None
            elif body["action"] == "denied" or (own and body["action"] not in ("held", "seen")):
                return None
        return None


class _Actor(NamedTuple):
    """Who did something to a bundle: a pseudonym, the key that made it, other names under the author's key."""

    pseudonym: str
    key_id: str | None
    also: tuple[str, ...]


def _may_be_one(one: _Actor, other: _Actor) -> bool:
    if not {one.pseudonym, *one.also}.isdisjoint({other.pseudonym, *other.also}):
        return True
    return one.key_id != other.key_id and not (one.also or other.also)


class _Session:
    def __init__(self) -> None:
        self.agents: set[str] = set()
        self.users: set[str] = set()
        self.killed = False
        self.allowed_later: list[tuple[int, str]] = []


class _Life:
    """First leaf of each step of one bundle revision, and its steps."""

    def __init__(self) -> None:
        self.first: dict[str, int] = {}
        self.steps: list[Record] = []

    def before(self, action: str, leaf: int) -> bool:
        return self.first.get(action, leaf) < leaf

    def at(self, leaf: int) -> tuple[bool, bool]:
        """Return whether its tests pass and whether somebody else approved it, by the steps before a leaf."""
        author: _Actor | None = None
        tested, approvals = False, 0
        for step in self.steps:
            if step.leaf >= leaf:
                break
            body, action = step.body, step.get("action")
            actor = _Actor(body["actor"], step.value.get("pseudonym_key_id"), tuple(body.get("also", ())))
            if action == "published":
                author = author or actor
            elif author is None:
                continue
            elif action == "tested":
                tested = body.get("cases", 0) > 0 and body.get("failures", 0) == 0
            elif action == "reviewed" and body.get("verdict") == "rejected":
                approvals = 0
            elif action == "reviewed" and body.get("verdict") == "approved" and not _may_be_one(author, actor):
                approvals += 1
        return tested, approvals > 0


def _passage(record: Record) -> str:
    if record.get("mode") == "observe":
        return "observed"
    return {"allow": "permitted", "ask": "held"}.get(record.body["enforcement"], "refused")


class Links:
    """An index over the records of a range; fed with them in order.

    Attributes:
        repeated_ids: Records whose id an earlier one had.
    """

    def __init__(self, *, whole: bool) -> None:
        """Begin; ``whole``: the range begins at leaf 0."""
        self._whole = whole
        self.repeated_ids = 0
        self._ids: set[str] = set()
        self._decisions: dict[str, tuple[str, str]] = {}
        self._outcomes: dict[str, list[_Outcome]] = {}
        self._steps: dict[str, list[Record]] = {}
        self._sessions: dict[str, _Session] = {}
        self._lives: dict[str, _Life] = {}

    def add(self, record: Record) -> None:
        """Take in a record."""
        record_id, kind, body = record.value["record_id"], record.kind, record.body
        self.repeated_ids += record_id in self._ids
        self._ids.add(record_id)
        if kind == "decision":
            self._decisions.setdefault(record_id, (record.enforcer_id, _passage(record)))
            session = self._sessions.setdefault(body["session"], _Session())
            session.agents.add(body["agent"])
            if body.get("user") is not None:
                session.users.add(body["user"])
            session.killed |= body["enforcement"] == "kill"
            if session.killed and body["enforcement"] == "allow":
                session.allowed_later.append((record.leaf, record_id))
        elif kind == "outcome":
            outcome = _Outcome(record.leaf, record.enforcer_id, body["status"])
            self._outcomes.setdefault(body["decision_id"], []).append(outcome)
        elif kind == "approval":
            self._steps.setdefault(body["decision_id"], []).append(record)
        elif kind == "bundle":
            self.add_bundle_step(record)

    def add_bundle_step(self, record: Record) -> None:
        """Take in a step of a bundle."""
        life = self._lives.setdefault(record.body["revision"], _Life())
        action = record.body["action"]
        life.first.setdefault("activated" if action == "rolled_back" else action, record.leaf)
        life.steps.append(record)

    def outcome(self, record_id: str) -> str | None:
        """Return the status of the first outcome that a decision's own enforcer recorded, or None."""
        enforcer, _ = self._decisions.get(record_id, ("", ""))
        return next((one.status for one in self._outcomes.get(record_id, ()) if one.enforcer == enforcer), None)

    def _forwarded_at(self, record_id: str) -> int | None:
        outcomes = self._outcomes.get(record_id, ())
        return next((one.leaf for one in outcomes if one.status != "not_forwarded"), None)

    def _was_withheld(self, record_id: str) -> bool:
        return self.outcome(record_id) == "not_forwarded" and self._forwarded_at(record_id) is None

    def _was_approved(self, decision: Record) -> bool:
        steps = self._steps.get(decision.value["record_id"], ())
        forwarded = self._forwarded_at(decision.value["record_id"])
        known: set[str] = set()
        for held in steps:
            own = held.enforcer_id == decision.enforcer_id and held.body["action"] == "held"
            if not own or held.body["approval_id"] in known or held.body["binding"] != _binding_of(decision, held):
                continue
            known.add(held.body["approval_id"])
            used = _HeldCall(held).used_at([step for step in steps if step.leaf > held.leaf], decision.enforcer_id)
            if used is not None and (forwarded is None or used < forwarded):
                return True
        return False

    def derived(self, record: Record) -> dict[str, Any]:
        """Return what follows for a record, once every record has been added."""
        if record.kind == "decision":
            return self._of_decision(record)
        if record.kind == "outcome":
            decision_id = record.body["decision_id"]
            author, passage = self._decisions.get(decision_id, ("", ""))
            missing = "missing" if self._whole or passage else "unknown"
            return {
                "decision": passage if passage and author == record.enforcer_id else missing,
                "repeated": self._outcomes[decision_id][0].leaf < record.leaf,
            }
        if record.kind == "bundle":
            life, leaf = self._lives[record.body["revision"]], record.leaf
            tested, reviewed = life.at(leaf)
            return {
                "published_before": life.before("published", leaf),
                "tested_before": life.before("tested", leaf),
                "tests_passed": tested,
                "reviewed_before": life.before("reviewed", leaf),
                "reviewed_by_another": reviewed,
            }
        return {}

    def _of_decision(self, record: Record) -> dict[str, Any]:
        record_id, enforcer, leaf = record.value["record_id"], record.enforcer_id, record.leaf
        outcomes = [one for one in self._outcomes.get(record_id, ()) if one.enforcer == enforcer]
        steps = [
            step.body["action"]
            for step in self._steps.get(record_id, ())
            if (step.body["action"] in _BY_PEOPLE) is (step.enforcer_id != enforcer)
        ]
        session = self._sessions[record.body["session"]]
        bundle = record.get("bundle") or {}
        life = self._lives.get(bundle.get("revision", ""), _Life())
        return {
            "outcome": outcomes[0].status if outcomes else "missing",
            "outcomes": len(outcomes),
            "forwarded": self._forwarded_at(record_id) is not None,
            "approval": steps[-1] if steps else "none",
            "approved": self._was_approved(record),
            "bundle_published": life.before("published", leaf),
            "bundle_activated": life.before("activated", leaf),
            "session_agents": len(session.agents),
            "session_users": len(session.users),
            "session_continued": any(at > leaf and not self._was_withheld(call) for at, call in session.allowed_later),
        }
