"""Baselines of agents and departures from them, as the records of a log tell them.

Pure. Nothing of it is stored by itself. What a gateway learned and found stands there by the gateway's own word, under
its name; what people said of it, by the service's alone.

INVARIANT: a baseline that there is not is ``none`` or ``learning``, with what is missing, and never anything better.
One gateway's baseline says nothing of another's: they stand side by side.

INVARIANT: a departure is closed by a person, with what it was; no enforcer acknowledges, closes or orders anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

from ledger.bodies_drift import BaselineEvent, Drift
from ledger.errors import ConflictError, NotFoundError
from ledger.records import Record

__all__ = ["BaselineLife", "DriftBook", "DriftLife", "DriftState", "Order"]

DriftState: TypeAlias = Literal["flagged", "acknowledged", "closed"]
BaselineState: TypeAlias = Literal["none", "learning", "ready"]

_HOUR_MS: Final = 3_600_000
_MAX_ORDERS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLife:
    """A departure.

    Attributes:
        flag: What the gateway said.
        enforcer: Which gateway.
        leaf: Leaf index of that.
        time_ms: When, POSIX milliseconds.
        state: What people made of it.
        changed_ms: When they last did; of a flag, when it was raised.
        disposition: What it was; None while it is open.
        seen_by: Pseudonym of whoever acknowledged it.
        closed_by: Of whoever closed it.
    """

    flag: Drift
    enforcer: str
    leaf: int
    time_ms: int
    state: DriftState = "flagged"
    changed_ms: int = 0
    disposition: str | None = None
    seen_by: str | None = None
    closed_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineLife:
    """What one gateway knows of an agent.

    Attributes:
        agent: Whose behaviour.
        enforcer: Which gateway.
        state: Whether there is a baseline.
        last: What the gateway last said of what is in force, or of what it learns.
        leaf: Leaf index of that.
        time_ms: When, POSIX milliseconds.
        offered: The candidate that somebody may accept; None if there is none.
    """

    agent: str
    enforcer: str
    state: BaselineState
    last: BaselineEvent
    leaf: int
    time_ms: int
    offered: BaselineEvent | None = None

    def silent_after_ms(self) -> int | None:
        """Return after how long without a call the agent's expected traffic is missing; None without a baseline."""
        return 2 * self.last.longest_gap_ms + _HOUR_MS if self.state == "ready" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a person ordered about a baseline."""

    order_id: str
    event: BaselineEvent


class DriftBook:
    """What the records say, taken in log order."""

    def __init__(self, service_id: str) -> None:
        """Begin with nothing.

        Args:
            service_id: The service's own enforcer id: by it alone people speak.
        """
        self._service_id = service_id
        self._drifts: dict[str, DriftLife] = {}
        self._baselines: dict[tuple[str, str], BaselineLife] = {}
        self._orders: list[Order] = []

    def take(self, leaf: int, record: Record) -> None:
        """Take in a record; one that is no step here, or by somebody who may not take it, changes nothing."""
        body = record.body
        ours = record.enforcer_id == self._service_id
        if isinstance(body, Drift):
            if body.action == "flagged" and not ours:
                self._flag(leaf, record, body)
            elif body.action != "flagged" and ours:
                self._step(record, body)
        elif isinstance(body, BaselineEvent):
            if body.action in {"accept_ordered", "reset_ordered"}:
                if ours:
                    self._orders = [*self._orders, Order(order_id=record.record_id, event=body)][-_MAX_ORDERS:]
            elif not ours:
                self._learn(leaf, record, body)

    def _flag(self, leaf: int, record: Record, body: Drift) -> None:
        # The id is the record's own: nobody takes the place of another's departure.
        if body.drift_id == record.record_id and body.drift_id not in self._drifts:
            self._drifts[body.drift_id] = DriftLife(
                flag=body, enforcer=record.enforcer_id, leaf=leaf, time_ms=record.time_ms, changed_ms=record.time_ms
            )

    def _step(self, record: Record, body: Drift) -> None:
        life = self._drifts.get(body.drift_id)
        if life is None or life.state == "closed":
            return
        if body.action == "closed":
            life = replace(life, state="closed", disposition=body.disposition, closed_by=body.actor)
        else:
            life = replace(life, state="acknowledged", seen_by=body.actor)
        self._drifts[body.drift_id] = replace(life, changed_ms=record.time_ms)

    def _learn(self, leaf: int, record: Record, body: BaselineEvent) -> None:
        key = (body.agent, record.enforcer_id)
        known = self._baselines.get(key)
        if body.action == "offered":
            if known is not None:
                self._baselines[key] = replace(known, offered=body)
            return
        ready = body.action in {"ready", "accepted"} or (body.action == "progress" and body.baseline_version > 0)
        offered = known.offered if known is not None and body.action == "progress" else None
        self._baselines[key] = BaselineLife(
            agent=body.agent,
            enforcer=record.enforcer_id,
            state="none" if body.action == "reset" else "ready" if ready else "learning",
            last=body,
            leaf=leaf,
            time_ms=record.time_ms,
            offered=offered,
        )

    @property
    def drifts(self) -> list[DriftLife]:
        """Every departure, the open ones first, the newest of them first."""
        return sorted(self._drifts.values(), key=lambda life: (life.state == "closed", -life.leaf))

    @property
    def baselines(self) -> list[BaselineLife]:
        """Every baseline there is or is to be, those that are not ready first."""
        return sorted(self._baselines.values(), key=lambda one: (one.state == "ready", one.agent, one.enforcer))

    def drift(self, drift_id: str) -> DriftLife:
        """Return a departure.

        Raises:
            NotFoundError: There is none of that id.
        """
        life = self._drifts.get(drift_id)
        if life is None:
            raise NotFoundError(f"there is no departure {drift_id}")
        return life

    def open_drift(self, drift_id: str, step: DriftState) -> DriftLife:
        """Return a departure of which a step can be said.

        Args:
            drift_id: Which.
            step: ``acknowledged`` or ``closed``.

        Raises:
            NotFoundError: There is none of that id.
            ConflictError: It is closed, or that was said of it.
        """
        life = self.drift(drift_id)
        if life.state in {"closed", step}:
            raise ConflictError(f"the departure {drift_id} is {life.state} already")
        return life

    def baseline(self, agent: str, enforcer: str) -> BaselineLife:
        """Return what a gateway knows of an agent.

        Raises:
            NotFoundError: Nothing.
        """
        life = self._baselines.get((agent, enforcer))
        if life is None:
            raise NotFoundError(f"{enforcer} has no baseline of {agent}, and learns none")
        return life

    def acceptable(self, agent: str, enforcer: str, digest: str) -> BaselineEvent:
        """Return the candidate that somebody wants to accept.

        Raises:
            NotFoundError: The gateway knows nothing of the agent.
            ConflictError: That is not what is offered.
        """
        offered = self.baseline(agent, enforcer).offered
        if offered is None or offered.digest != digest:
            raise ConflictError(f"{enforcer} does not offer this baseline of {agent}: look again at what it does")
        return offered

    def orders_for(self, enforcer: str) -> list[Order]:
        """Return what was ordered about a gateway's baselines, oldest first."""
        return [order for order in self._orders if order.event.enforcer == enforcer]
