"""Containments and kills: which are in force, and how each came about and ended.

Pure. What is in force follows from the log's own records alone, read in the order of the log; no table says so, and a
rebuilt log says the same. A *containment* is ordered by one person and only stops calls. It ends at the time that it
names, or early with the word of two: one asks, another one confirms, both under one pseudonym key. A *kill* is a
decision that was enforced as ``kill``: it stops its principal, that is agent and user, until it is released, by the
operator of a gateway (``release_block``) or by the same two steps. A record that says otherwise changes nothing,
whoever wrote it, and every auditor with the log can see as much.

What others' enforcement points were told (mode ``observe``) kills nobody: nobody here saw who asked.

INVARIANT: a release of a principal ends the kills that stand before it in the log, and none behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from ledger.bodies import AccessEvent, Containment, Decision
from ledger.errors import ConflictError, NotFoundError
from ledger.records import Record
from ledger.restrictions import MAX_LIFTED, NO_VERSION, Restriction, RestrictionSet, bounded

__all__ = ["MAX_CONTAINMENT_MS", "RELEASE_BLOCK", "REVIEW_MS", "ContainmentBook", "Order", "Step"]

REVIEW_MS: Final = 24 * 3_600_000
"""So long after its order a containment must have been reviewed."""
MAX_CONTAINMENT_MS: Final = 30 * 24 * 3_600_000
RELEASE_BLOCK: Final = "release_block"
"""The access record by which a gateway's operator lets a principal call again."""

Step: TypeAlias = Literal["release_requested", "released"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A containment or kill, and what became of it.

    Attributes:
        restriction: What is stopped.
        leaf: Leaf index of the record that began it.
        ordered_by: Pseudonym of whoever ordered it; of a kill, the enforcer that decided it.
        ordered_role: Under which role; of a kill, ``enforcer``.
        ordered_key: Which key made that pseudonym.
        requested_by: Pseudonym of whoever asked for its release, or None.
        requested_key: Which key made that pseudonym.
        ended: How it ended, or None while it is in force.
        ended_ms: When.
        ended_leaf: Leaf index of the record that ended it.
        reviewed_ms: When it was reviewed.
        reviewed_by: Pseudonym of whoever did.
        verdict: What was found.
    """

    restriction: Restriction
    leaf: int
    ordered_by: str
    ordered_role: str
    ordered_key: str | None
    requested_by: str | None = None
    requested_key: str | None = None
    ended: Literal["released", "expired"] | None = None
    ended_ms: int | None = None
    ended_leaf: int | None = None
    reviewed_ms: int | None = None
    reviewed_by: str | None = None
    verdict: str | None = None

    @property
    def order_id(self) -> str:
        """The containment's id, or the killing decision's."""
        return self.restriction.restriction_id

    @property
    def is_kill(self) -> bool:
        """Whether a decision ended a session, and nobody ordered it."""
        return self.restriction.kind == "kill"

    @property
    def review_due_ms(self) -> int | None:
        """Until when somebody must have reviewed it; None for a kill, and once it is done."""
        if self.is_kill or self.reviewed_ms is not None:
            return None
        return self.restriction.since_ms + REVIEW_MS

    def is_overdue(self, now_ms: int) -> bool:
        """Whether it should have been reviewed by now."""
        due = self.review_due_ms
        return due is not None and due <= now_ms

    def asked_under(self, key_id: str | None) -> bool:
        """Whether its release was asked for under this pseudonym key: under another one the same person has another."""
        return self.requested_by is not None and self.requested_key == key_id

    def next_step(self, actor: str, key_id: str | None, also: Collection[str] = ()) -> Step:
        """Return the step by which somebody brings its release forward.

        Args:
            actor: His pseudonym.
            key_id: Which key made it.
            also: What else he is called.

        Raises:
            ConflictError: It is for somebody else to confirm, or it has ended.
        """
        if self.ended is not None:
            raise ConflictError(f"{self.order_id} has ended: it is {self.ended}")
        if not self.asked_under(key_id):
            return "release_requested"
        if self.requested_by == actor or self.requested_by in also:
            raise ConflictError(f"the release of {self.order_id} is for somebody else to confirm")
        return "released"


class ContainmentBook:
    """All containments, and the kills in force, read from the log's records in order. One thread at a time."""

    def __init__(self, service_id: str) -> None:
        """Begin before leaf 0.

        Args:
            service_id: The service's own enforcer id: only it writes containments, and only others release blocks.
        """
        self._service_id = service_id
        self._containments: dict[str, Order] = {}
        self._kills: dict[str, Order] = {}
        self._lifted: deque[str] = deque(maxlen=MAX_LIFTED)
        self._version = NO_VERSION
        self._set: RestrictionSet | None = None

    @property
    def current(self) -> RestrictionSet:
        """The set in force, as the records that were read make it."""
        if self._set is None:
            standing = sorted(self._standing(), key=lambda order: order.leaf)
            restrictions = bounded(order.restriction for order in standing)
            self._set = RestrictionSet(restrictions, version=self._version, lifted=tuple(self._lifted))
        return self._set

    @property
    def orders(self) -> list[Order]:
        """Every containment there ever was, and the kills in force, oldest first."""
        return sorted((*self._containments.values(), *self._kills.values()), key=lambda order: order.leaf)

    @property
    def has_kills(self) -> bool:
        """Whether a principal is blocked by a kill."""
        return bool(self._kills)

    def _standing(self) -> Iterator[Order]:
        yield from (order for order in self._containments.values() if order.ended is None)
        yield from self._kills.values()

    def get(self, order_id: str) -> Order:
        """Return a containment, or a kill in force.

        Raises:
            NotFoundError: There is none of that id.
        """
        found = self._containments.get(order_id) or self._kills.get(order_id)
        if found is None:
            raise NotFoundError(f"there is no containment {order_id}, and no block that a kill of that id left behind")
        return found

    def due(self, now_ms: int) -> list[Order]:
        """Return the containments that are past their time and whose end is not recorded yet."""
        return [order for order in self._containments.values() if order.ended is None and _is_past(order, now_ms)]

    def take(self, index: int, record: Record) -> None:
        """Read one record; what is no step that may be taken changes nothing."""
        body = record.body
        if isinstance(body, Decision):
            self._kill(index, record, body)
        elif isinstance(body, AccessEvent):
            self._release_block(index, record, body)
        elif isinstance(body, Containment) and record.enforcer_id == self._service_id:
            if body.action == "ordered":
                self._order(index, record, body)
            else:
                self._step(index, record, body)

    # --- what begins

    def _order(self, index: int, record: Record, body: Containment) -> None:
        # An id is used once: a second order of the same id would hide the first, or bring back what has ended.
        known = body.containment_id in self._containments or body.containment_id in self._kills
        if known or body.scope is None or body.until_ms is None:
            return
        restriction = Restriction(
            restriction_id=body.containment_id,
            kind="containment",
            scope=body.scope,
            since_ms=record.time_ms,
            agent=body.agent,
            session=body.session,
            server=body.server,
            tool=body.tool,
            key_id=record.pseudonym_key_id if body.session is not None else None,
            until_ms=body.until_ms,
        )
        self._containments[body.containment_id] = Order(
            restriction=restriction,
            leaf=index,
            ordered_by=body.actor,
            ordered_role=body.actor_role,
            ordered_key=record.pseudonym_key_id,
        )
        self._changed(index)

    def _kill(self, index: int, record: Record, body: Decision) -> None:
        if (body.enforcement, body.mode) != ("kill", "enforce") or record.record_id in self._kills:
            return
        restriction = Restriction(
            restriction_id=record.record_id,
            kind="kill",
            scope="principal",
            since_ms=record.time_ms,
            agent=body.agent,
            user=body.user,
            key_id=record.pseudonym_key_id if body.user is not None else None,
        )
        self._kills[record.record_id] = Order(
            restriction=restriction,
            leaf=index,
            ordered_by=record.enforcer_id,
            ordered_role="enforcer",
            ordered_key=None,
        )
        self._changed(index)

    # --- what follows

    def _step(self, index: int, record: Record, body: Containment) -> None:
        order = self._containments.get(body.containment_id) or self._kills.get(body.containment_id)
        if order is None:
            return
        if body.action == "reviewed":
            self._review(order, record, body)
            return
        if order.ended is not None:
            return
        if body.action == "expired":
            if _is_past(order, record.time_ms):
                self._end(order, "expired", index, record)
            return
        key_id = record.pseudonym_key_id
        if body.action == "release_requested":
            if not order.asked_under(key_id):
                self._keep(replace(order, requested_by=body.actor, requested_key=key_id))
        # INVARIANT: a containment ends early with the word of two. Who asked for its release cannot also confirm it,
        # nor under the pseudonym that another key gives him.
        elif order.asked_under(key_id) and order.requested_by != body.actor:
            self._end(order, "released", index, record)

    def _review(self, order: Order, record: Record, body: Containment) -> None:
        # INVARIANT: nobody reviews what he has ordered himself.
        own = (body.actor, record.pseudonym_key_id) == (order.ordered_by, order.ordered_key)
        if order.is_kill or order.reviewed_ms is not None or own:
            return
        self._keep(replace(order, reviewed_ms=record.time_ms, reviewed_by=body.actor, verdict=body.verdict))

    def _release_block(self, index: int, record: Record, body: AccessEvent) -> None:
        if body.action != RELEASE_BLOCK or body.result != "ok" or record.enforcer_id == self._service_id:
            return
        order = self._kills.get(body.target_id or "")
        if order is not None:
            self._let_go(order, index)

    def _end(self, order: Order, how: Literal["released", "expired"], index: int, record: Record) -> None:
        if order.is_kill:
            self._let_go(order, index)
            return
        self._keep(replace(order, ended=how, ended_ms=record.time_ms, ended_leaf=index))
        self._changed(index)

    def _let_go(self, order: Order, index: int) -> None:
        """Release a principal: every kill of it that stands so far ends."""
        of = _principal(order)
        for decision_id in [known for known, kill in self._kills.items() if _principal(kill) == of]:
            del self._kills[decision_id]
            self._lifted.append(decision_id)
        self._changed(index)

    def _keep(self, order: Order) -> None:
        (self._kills if order.is_kill else self._containments)[order.order_id] = order

    def _changed(self, index: int) -> None:
        self._version = index
        self._set = None


def _is_past(order: Order, now_ms: int) -> bool:
    until_ms = order.restriction.until_ms
    return until_ms is not None and until_ms <= now_ms


def _principal(order: Order) -> tuple[str | None, str | None, str | None]:
    restriction = order.restriction
    return restriction.agent, restriction.user, restriction.key_id
