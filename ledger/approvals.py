"""Approvals of held calls: what a person agrees to, who may, and what follows from the log's records.

Pure. Nothing of it is stored by itself: which calls are held, who saw and granted them and what came of it follows from
the `Approval` records, in log order; a rebuilt log says the same. What happened to a call stands there by the word of
the enforcer that held it, what people did by the service's alone. A record that says otherwise changes nothing.

INVARIANT: a grant is for one call as it was shown. Its binding goes over the commitment to the exact message, the tool
and its definition, the bundle, the server, the session and the terms under which it is held; of another binding nothing
counts. No digest of plaintext is in it (invariant 5): the commitment is salted.

INVARIANT: a call is released by as many different people as it needs, none of whom asked for it. Two who cannot be told
apart from each other or from the requester, because their pseudonyms come from different keys, do not count as two.

INVARIANT: one denial is the end, and so is the time that the call may be held for: who agrees later is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import msgspec

from ledger.bodies import Approval, Decision
from ledger.canonical import canonical_bytes, parse_json, sha256
from ledger.errors import MalformedError, NotFoundError
from ledger.records import Record

__all__ = [
    "MAX_HELD_MS",
    "MAX_VERDICTS_BYTES",
    "ApprovalBook",
    "ApprovalState",
    "Grant",
    "HeldCall",
    "Terms",
    "VerdictSet",
    "Verdicts",
    "binding_of",
    "parse_verdicts",
]

MAX_HELD_MS: Final = 24 * 3_600_000
"""No call is held for longer."""
MAX_VERDICTS_BYTES: Final = 4 << 20
_FORMAT: Final = "tallystick.approval/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Under which terms a call is held.

    Attributes:
        approval_id: Id of its approval.
        expires_ms: From then on nobody can approve it, POSIX milliseconds.
        needed: How many people must agree.
        roles: Under which roles they may.
    """

    approval_id: str
    expires_ms: int
    needed: int
    roles: tuple[str, ...]


def binding_of(decision_id: str, decision: Decision, terms: Terms) -> str:
    """Return the digest of what people agree to, hexadecimal; whoever has the two records can make it again.

    ``SHA-256(JCS({"format":"tallystick.approval/1", …}))`` over the members below.

    Args:
        decision_id: Record id of the held decision.
        decision: Its body.
        terms: Under which terms it is held.
    """
    bundle = decision.bundle
    document = {
        "format": _FORMAT,
        "approval_id": terms.approval_id,
        "decision_id": decision_id,
        "expires_ms": terms.expires_ms,
        "needed": terms.needed,
        "roles": list(terms.roles),
        "agent": decision.agent,
        "user": decision.user,
        "session": decision.session,
        "server": decision.server,
        "method": decision.method,
        "tool": decision.tool,
        "tool_digest": decision.tool_digest,
        "bundle": None if bundle is None else bundle.revision,
        "message": {"digest": decision.message.digest, "size_bytes": decision.message.size_bytes},
    }
    return sha256(canonical_bytes(document)).hex()


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That one person agreed.

    Attributes:
        actor: His pseudonym.
        key_id: Which key made it.
        role: Under which role.
        binding: To what.
        leaf_index: Of the record.
        time_ms: When, POSIX milliseconds.
    """

    actor: str
    key_id: str | None
    role: str
    binding: str
    leaf_index: int
    time_ms: int


class ApprovalState(StrEnum):
    """How far the approval of a held call has come.

    ``WAITING``: too few people have agreed, and there is time. ``GRANTED``: enough have; its gateway has not used that
    yet. ``DENIED``, ``EXPIRED``, ``CANCELLED``: it goes no further. ``USED``: it was forwarded, once. ``WITHHELD``: it
    had been granted, and its gateway did not forward it all the same: its last check failed.
    """

    WAITING = "waiting"
    GRANTED = "granted"
    DENIED = "denied"
    USED = "used"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    WITHHELD = "withheld"


_OWN: Final = frozenset({"used", "expired", "cancelled"})
"""Steps of whoever holds a call; of what the service holds, all else that it writes is what people did."""

_OPEN: Final = frozenset({ApprovalState.WAITING, ApprovalState.GRANTED})


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldCall:
    """What the log says of one held call.

    Attributes:
        approval_id: Id of the approval.
        decision_id: Record id of the decision that is held.
        enforcer: Which enforcer holds it.
        binding: What is agreed to.
        expires_ms: From then on nobody can agree, POSIX milliseconds.
        needed: How many must.
        roles: Under which roles they may.
        cause: Why it is held: ``policy`` or ``irreversible``.
        leaf_index: Of the record that it is held.
        held_ms: Since when, POSIX milliseconds.
        requester: Pseudonym of the machine that requested it; None where a gateway holds it by itself.
        grants: Who agreed, in order; different people, all to this binding.
        seen: Pseudonyms, with their keys, of those who opened its exact parameters.
        denied_by: Pseudonym of whoever denied it, or None.
        denied_leaf: Leaf index of that record.
        ended: The step by which its enforcer ended it, or None.
        ended_reason: Why.
        ended_ms: When.
        refusals: How often somebody tried a way round.
        changed_leaf: Leaf index of the last record about it.
    """

    approval_id: str
    decision_id: str
    enforcer: str
    binding: str
    expires_ms: int
    needed: int
    roles: tuple[str, ...]
    cause: str
    leaf_index: int
    held_ms: int
    requester: str | None = None
    grants: tuple[Grant, ...] = ()
    seen: tuple[tuple[str, str | None], ...] = ()
    denied_by: str | None = None
    denied_leaf: int | None = None
    ended: str | None = None
    ended_reason: str | None = None
    ended_ms: int | None = None
    refusals: int = 0
    changed_leaf: int = 0

    def state(self, now_ms: int) -> ApprovalState:
        """Return how far it has come."""
        if self.ended is not None:
            return {
                "used": ApprovalState.USED,
                "expired": ApprovalState.EXPIRED,
                "refused": ApprovalState.WITHHELD,
            }.get(self.ended, ApprovalState.CANCELLED)
        if self.denied_by is not None:
            return ApprovalState.DENIED
        if now_ms >= self.expires_ms:
            return ApprovalState.EXPIRED
        return ApprovalState.WAITING if len(self.grants) < self.needed else ApprovalState.GRANTED

    def waits(self, now_ms: int) -> bool:
        """Whether somebody must say something of it."""
        return self.state(now_ms) is ApprovalState.WAITING

    def open(self, now_ms: int) -> bool:
        """Whether it can still be forwarded."""
        return self.state(now_ms) in _OPEN

    @property
    def terms(self) -> Terms:
        """Under which terms it is held."""
        return Terms(approval_id=self.approval_id, expires_ms=self.expires_ms, needed=self.needed, roles=self.roles)

    def has_granted(self, actor: str, key_id: str | None) -> bool:
        """Whether somebody has agreed already, or cannot be told from somebody who has."""
        return any(grant.actor == actor or grant.key_id != key_id for grant in self.grants)


class Verdicts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What people have said of one held call, as a gateway is told.

    Attributes:
        approval_id: Id of the approval.
        decision_id: Record id of the held decision.
        denied: Somebody denied it.
        grants: Who agreed.
    """

    approval_id: str
    decision_id: str
    denied: bool
    grants: tuple[Grant, ...]


class VerdictSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What people have said of the calls that one gateway holds.

    Attributes:
        version: Leaf index of the log's last record about approvals; -1 if there is none.
        items: Of each held call of the gateway that is open and of which somebody has said something.
    """

    version: int
    items: tuple[Verdicts, ...]

    @property
    def document(self) -> bytes:
        """Its bytes, canonical JSON."""
        return canonical_bytes(msgspec.to_builtins(self))


def parse_verdicts(data: bytes) -> VerdictSet:
    """Read a document; the inverse of `VerdictSet.document`.

    Raises:
        MalformedError: It is none, or is too long.
    """
    if len(data) > MAX_VERDICTS_BYTES:
        raise MalformedError(f"a set of verdicts has at most {MAX_VERDICTS_BYTES} bytes")
    try:
        return msgspec.convert(parse_json(data), VerdictSet)
    except msgspec.ValidationError:
        raise MalformedError("not a set of verdicts that this release can read") from None


class ApprovalBook:
    """All held calls, read from the log's records in order. One thread at a time."""

    def __init__(self, service_id: str) -> None:
        """Begin before leaf 0.

        Args:
            service_id: The enforcer id of the service, whose word it is what people did.
        """
        self._service_id = service_id
        self._calls: dict[str, HeldCall] = {}
        self._of_decision: dict[tuple[str, str], str] = {}
        self.version = -1

    @property
    def all(self) -> list[HeldCall]:
        """The held calls, newest first."""
        return sorted(self._calls.values(), key=lambda call: -call.leaf_index)

    def get(self, approval_id: str) -> HeldCall:
        """Return a held call.

        Raises:
            NotFoundError: There is none of that id.
        """
        try:
            return self._calls[approval_id]
        except KeyError:
            raise NotFoundError(f"there is no held call {approval_id}") from None

    def of_decision(self, enforcer: str, decision_id: str) -> HeldCall | None:
        """Return what an enforcer holds of a decision, if it was held."""
        found = self._of_decision.get((enforcer, decision_id))
        return None if found is None else self._calls[found]

    def verdicts(self, enforcer: str, now_ms: int) -> VerdictSet:
        """Return what people have said of the calls that an enforcer holds."""
        items = (
            Verdicts(
                approval_id=call.approval_id,
                decision_id=call.decision_id,
                denied=call.denied_by is not None,
                grants=call.grants,
            )
            for call in self._calls.values()
            if call.enforcer == enforcer and call.ended is None and now_ms < call.expires_ms
            if call.grants or call.denied_by is not None
        )
        return VerdictSet(version=self.version, items=tuple(items))

    def _untimely(self, call: HeldCall, record: Record, step: Approval) -> bool:
        """Whether the service used what did not stand granted: it has looked again since, and permitted nothing."""
        of_service = call.enforcer == self._service_id and step.action == "used"
        return of_service and call.state(record.time_ms) is not ApprovalState.GRANTED

    def take(self, index: int, record: Record) -> None:
        """Read one record; what is no step that may be taken changes nothing."""
        step = record.body
        if not isinstance(step, Approval):
            return
        self.version = index
        call = self._calls.get(step.approval_id)
        if step.action == "held":
            # An id is used once, and an enforcer holds a decision once: a second time would bring back what has ended.
            # The service holds nothing by itself: it has to say who requested it.
            whose = (record.enforcer_id, step.decision_id)
            may_hold = record.enforcer_id != self._service_id or step.actor is not None
            if call is None and whose not in self._of_decision and may_hold:
                requester = step.actor if record.enforcer_id == self._service_id else None
                self._calls[step.approval_id] = replace(_held(index, record, step), requester=requester)
                self._of_decision[whose] = step.approval_id
            return
        if call is None or step.decision_id != call.decision_id:
            return
        after: HeldCall | None = None
        if record.enforcer_id == self._service_id and not (call.enforcer == self._service_id and step.action in _OWN):
            after = _said(call, index, record, step)
        elif record.enforcer_id == call.enforcer and not self._untimely(call, record, step):
            after = _done(call, record, step)
        if after is not None:
            self._calls[step.approval_id] = replace(after, changed_leaf=index)


def _held(index: int, record: Record, step: Approval) -> HeldCall:
    return HeldCall(
        approval_id=step.approval_id,
        decision_id=step.decision_id,
        enforcer=record.enforcer_id,
        binding=step.binding,
        expires_ms=min(step.expires_ms, record.time_ms + MAX_HELD_MS),
        needed=max(1, step.needed),
        roles=step.roles,
        cause=step.cause or "policy",
        leaf_index=index,
        held_ms=record.time_ms,
        changed_leaf=index,
    )


def _said(call: HeldCall, index: int, record: Record, step: Approval) -> HeldCall | None:
    """Return a held call after a step of somebody's; None if it may not be taken."""
    if step.action == "refused":
        return replace(call, refusals=call.refusals + 1)
    if step.actor is None or step.binding != call.binding:
        return None
    if step.action == "seen":
        return _seen(call, step.actor, record.pseudonym_key_id)
    if not call.open(record.time_ms):
        return None
    if step.action == "denied":
        return replace(call, denied_by=step.actor, denied_leaf=index)
    return _granted(call, index, record, step, step.actor) if step.action == "granted" else None


def _seen(call: HeldCall, actor: str, key_id: str | None) -> HeldCall:
    return call if (actor, key_id) in call.seen else replace(call, seen=(*call.seen, (actor, key_id)))


def _granted(call: HeldCall, index: int, record: Record, step: Approval, actor: str) -> HeldCall | None:
    key_id = record.pseudonym_key_id
    counts = step.actor_role is not None and (not call.roles or step.actor_role in call.roles)
    if not counts or call.has_granted(actor, key_id):
        return None
    grant = Grant(
        actor=actor,
        key_id=key_id,
        role=step.actor_role or "",
        binding=step.binding,
        leaf_index=index,
        time_ms=record.time_ms,
    )
    return replace(call, grants=(*call.grants, grant))


def _done(call: HeldCall, record: Record, step: Approval) -> HeldCall | None:
    """Return a held call after a step of its own enforcer's; None if it may not be taken."""
    if call.ended is not None or step.action not in ("used", "expired", "cancelled", "refused"):
        return None
    ended = replace(call, ended=step.action, ended_reason=step.reason, ended_ms=record.time_ms)
    return replace(ended, refusals=call.refusals + 1) if step.action == "refused" else ended
