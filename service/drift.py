"""Behaviour of agents: what the log says of baselines and departures, what people say, and what gateways are to do.

How that follows from the records is in `service.drift_book`. Beside it stands what no gateway can know: whether an
agent with a baseline has fallen silent everywhere.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from ledger.bodies_drift import BaselineEvent, Drift
from ledger.catalog import Catalog, DecisionQuery
from ledger.clock import Clock
from ledger.commitments import SALT_BYTES
from ledger.ports import Draft, RecordSink, commit
from ledger.reader import EntryReader
from ledger.records import Record
from policies.bundle_lives import Actor
from service.book_reading import BookReading
from service.drift_book import BaselineLife, DriftBook, DriftLife, Order
from service.inventory_view import InventoryView

__all__ = ["Behaviour", "Disposition", "Seen", "without_baseline"]

Disposition = Literal["expected", "harmless", "misuse", "compromise", "false_alarm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A baseline, and when the agent last called, at whichever gateway.

    Attributes:
        baseline: The baseline.
        last_call_ms: POSIX milliseconds; None if the log has no call of the agent.
        silent: Its expected traffic is missing. Never said without a baseline.
    """

    baseline: BaselineLife
    last_call_ms: int | None
    silent: bool


def without_baseline(seen: Sequence[Seen], inventory: InventoryView) -> list[str]:
    """Return the agents that call tools and of which no gateway says anything, sorted.

    Args:
        seen: What is known of all agents.
        inventory: Who calls.
    """
    return sorted({agent for agent, _, _ in inventory.counted.uses} - {one.baseline.agent for one in seen})


class Behaviour:
    """The behaviour of the agents of one log. Reading is safe for any thread."""

    def __init__(
        self,
        log_id: str,
        service_id: str,
        *,
        sink: RecordSink,
        catalog: Catalog,
        reader: EntryReader,
        check: Callable[[int, Record], None],
        clock: Clock,
    ) -> None:
        """Take the parts.

        Args:
            log_id: Which log.
            service_id: The service's own enforcer id.
            sink: Records.
            catalog: Finds records.
            reader: Reads them.
            check: Checks that a record is signed by the service; raises if not.
            clock: Tells who has been silent for how long.
        """
        self._log_id = log_id
        self._sink = sink
        self._catalog = catalog
        self._reader = reader
        self._clock = clock
        self._reading = BookReading(
            DriftBook(service_id),
            "baseline",
            "drift",
            log_id=log_id,
            service_id=service_id,
            catalog=catalog,
            reader=reader,
            check=check,
        )

    async def drifts(self) -> Sequence[DriftLife]:
        """Return every departure, the open ones first.

        Raises:
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(lambda: self._reading.read().drifts)

    async def drift(self, drift_id: str) -> DriftLife:
        """Return a departure.

        Raises:
            NotFoundError: There is none of that id.
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(lambda: self._reading.read().drift(drift_id))

    async def baselines(self, agent: str | None = None) -> list[Seen]:
        """Return what each gateway knows of each agent, what is not ready first.

        Args:
            agent: Of this one alone.

        Raises:
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(self._seen, agent)

    def _seen(self, agent: str | None) -> list[Seen]:
        found = [one for one in self._reading.read().baselines if agent in {None, one.agent}]
        last = {name: self._last_call(name) for name in {one.agent for one in found}}
        now_ms = self._clock.now_ms()
        return [self._told(one, last[one.agent], now_ms) for one in found]

    @staticmethod
    def _told(one: BaselineLife, last_ms: int | None, now_ms: int) -> Seen:
        limit = one.silent_after_ms()
        silent = limit is not None and last_ms is not None and now_ms - last_ms > limit
        return Seen(baseline=one, last_call_ms=last_ms, silent=silent)

    def _last_call(self, agent: str) -> int | None:
        for index in self._catalog.search(self._log_id, DecisionQuery(agent=agent, limit=1)):
            return self._reader.record(index).time_ms
        return None

    async def orders(self, enforcer: str) -> list[Order]:
        """Return what people ordered about a gateway's baselines, oldest first.

        Raises:
            LedgerError: A store failed.
        """
        return await asyncio.to_thread(lambda: self._reading.read().orders_for(enforcer))

    async def acknowledge(self, drift_id: str, actor: Actor, comment: str) -> int:
        """Record that somebody has seen a departure; return the leaf index.

        Raises:
            NotFoundError: There is none of that id.
            ConflictError: That was said of it, or it is closed.
            LedgerError: It could not be recorded.
        """
        (await asyncio.to_thread(self._reading.read)).open_drift(drift_id, "acknowledged")
        body = Drift(action="acknowledged", drift_id=drift_id, actor=actor.pseudonym, actor_role=actor.role)
        return await self._record(body, comment)

    async def close(self, drift_id: str, disposition: Disposition, actor: Actor, comment: str) -> int:
        """Record what a departure was; return the leaf index.

        Raises:
            NotFoundError: There is none of that id.
            ConflictError: It is closed.
            LedgerError: It could not be recorded.
        """
        (await asyncio.to_thread(self._reading.read)).open_drift(drift_id, "closed")
        body = Drift(
            action="closed",
            drift_id=drift_id,
            disposition=disposition,
            actor=actor.pseudonym,
            actor_role=actor.role,
        )
        return await self._record(body, comment)

    async def accept(self, agent: str, enforcer: str, digest: str, actor: Actor, comment: str) -> int:
        """Order a gateway to take up the baseline that it offers; return the leaf index.

        Raises:
            NotFoundError: The gateway knows nothing of the agent.
            ConflictError: That is not what it offers.
            LedgerError: It could not be recorded.
        """
        (await asyncio.to_thread(self._reading.read)).acceptable(agent, enforcer, digest)
        return await self._order("accept_ordered", agent, enforcer, digest, actor, comment)

    async def reset(self, agent: str, enforcer: str, actor: Actor, comment: str) -> int:
        """Order a gateway to forget what it knows of an agent; return the leaf index.

        Raises:
            NotFoundError: It knows nothing.
            LedgerError: It could not be recorded.
        """
        (await asyncio.to_thread(self._reading.read)).baseline(agent, enforcer)
        return await self._order("reset_ordered", agent, enforcer, None, actor, comment)

    async def _order(
        self,
        action: Literal["accept_ordered", "reset_ordered"],
        agent: str,
        enforcer: str,
        digest: str | None,
        actor: Actor,
        comment: str,
    ) -> int:
        body = BaselineEvent(
            action=action,
            agent=agent,
            enforcer=enforcer,
            digest=digest,
            actor=actor.pseudonym,
            actor_role=actor.role,
        )
        return await self._record(body, comment)

    async def _record(self, body: BaselineEvent | Drift, comment: str) -> int:
        committed, opening = commit("comment", secrets.token_bytes(SALT_BYTES), comment.encode())
        body = msgspec.structs.replace(body, comment=committed)
        (done,) = await self._sink.append([Draft(body=body, openings=(opening,))])
        return done.index
