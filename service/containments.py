"""Containments and kills of one log: ordering and ending them, and handing the set in force to every gateway.

What is in force is read from the log (`ledger.containments`), by every process for itself, whenever the log has grown:
there is no other state that could be lost, restored apart from the log or tell two processes different things. A set's
version is the leaf index of the record that made it, so that the same version is the same set everywhere.

Who waits for news is told by `service.bundle_watch.BundleWatch`: at once of what this process records, within a quarter
of a second of what another one does. What gateways say they have in force is in `service.reach`.

Expiries are recorded by whichever process comes first: the record's id follows from the containment's, so that the log
refuses a second one.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from ledger.bodies import Containment
from ledger.catalog import Catalog
from ledger.clock import Clock
from ledger.commitments import SALT_BYTES
from ledger.containments import MAX_CONTAINMENT_MS, ContainmentBook, Order
from ledger.errors import ConflictError, MalformedError, NotFoundError
from ledger.keyring import Keyring
from ledger.ports import Draft, Opening, RecordSink, commit
from ledger.reader import EntryReader
from ledger.records import Record, new_record_id
from ledger.restrictions import RestrictionSet
from ledger.tasks import Repeating
from service.bundle_watch import BundleWatch
from service.reach import Acknowledged, Acknowledgements, Gateway, reach

__all__ = ["MAX_CONTAINMENTS", "Containments", "State"]

_log = structlog.get_logger()

MAX_CONTAINMENTS: Final = 1024
"""Most containments of a log that are in force at once."""
MAX_REACH_SECONDS: Final = 30
_EXPIRY: Final = b"tallystick/containment-expiry/v1\n"
_ROLE: Final = "service"
_MS_PER_SECOND: Final = 1000
_LOOK_SECONDS: Final = 60.0
"""How often it is looked what another process has ordered, for its end must be recorded should that process be gone."""
_REACH_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class State:
    """What the log says at one moment.

    Attributes:
        current: The set in force.
        orders: Every containment there ever was, and the kills in force, oldest first.
    """

    current: RestrictionSet
    orders: tuple[Order, ...]

    def get(self, order_id: str) -> Order:
        """Return a containment, or a kill in force.

        Raises:
            NotFoundError: There is none of that id.
        """
        for order in self.orders:
            if order.order_id == order_id:
                return order
        raise NotFoundError(f"there is no containment {order_id}, and no block that a kill of that id left behind")

    def in_force(self) -> list[Order]:
        """Return what is in force, oldest first."""
        return [order for order in self.orders if order.ended is None]

    def to_review(self) -> list[Order]:
        """Return the containments that nobody has reviewed yet, in force or not, oldest first."""
        return [order for order in self.orders if order.review_due_ms is not None]


class Containments:
    """The containments of one log. Methods belong to one event loop, but for `look`.

    Attributes:
        watch: Holds questions until there is news.
        work: What is repeated.
    """

    def __init__(
        self,
        log_id: str,
        *,
        service_id: str,
        size: Callable[[], int],
        catalog: Catalog,
        reader: EntryReader,
        check: Callable[[int, Record], None],
        keyring: Keyring,
        refresh_keys: Callable[[], object],
        sink: RecordSink,
        said: Acknowledgements,
        clock: Clock,
        actor: Callable[[], str],
    ) -> None:
        """Take the parts.

        Args:
            log_id: Which log.
            service_id: The service's own enforcer id.
            size: Returns the number of records that have an index.
            catalog: Finds records.
            reader: Reads them.
            check: Checks that a record is signed by the service; raises if not.
            keyring: Who is introduced in the log.
            refresh_keys: Takes up what other processes have recorded of keys.
            sink: Records.
            said: What gateways said that they have in force.
            clock: Tells what is past its time.
            actor: Returns the service's own pseudonym.
        """
        self._log_id = log_id
        self._service_id = service_id
        self._size = size
        self._catalog = catalog
        self._reader = reader
        self._check = check
        self._keyring = keyring
        self._refresh_keys = refresh_keys
        self._sink = sink
        self._said = said
        self._clock = clock
        self._actor = actor
        self._lock = threading.Lock()
        # Under the lock: the book, up to which leaf it was read, and what it says.
        self._book = ContainmentBook(service_id)
        self._read = 0
        self._state = State(self._book.current, ())
        self._turn = asyncio.Lock()
        self.watch = BundleWatch(self._newest, name="news of restrictions")
        self.work = Repeating(
            "containments' ends",
            self._expire_due,
            retry_seconds=_LOOK_SECONDS,
            on_failure=lambda error: _log.warning("containments_not_ended", error=type(error).__name__),
        )

    def start(self) -> None:
        """Begin to look for news, and for what is past its time."""
        self.watch.start()
        self.work.start()

    async def stop(self) -> None:
        """End it."""
        await self.watch.stop()
        await self.work.stop()

    # --- what is in force

    def look(self) -> State:
        """Return what the log says now; safe for any thread.

        Raises:
            LedgerError: A store failed, or holds a containment that the service has not signed.
        """
        with self._lock:
            size = self._size()
            if size > self._read:
                for index in self._new(size):
                    record = self._reader.record(index)
                    # INVARIANT: nobody but the service orders or ends a containment, whoever could write the table.
                    if isinstance(record.body, Containment):
                        self._check(index, record)
                    self._book.take(index, record)
                self._read = size
                self._state = State(self._book.current, tuple(self._book.orders))
            return self._state

    def _new(self, size: int) -> list[int]:
        """Return the leaves below ``size`` that may change something and were not read yet, in order."""
        above = self._read - 1
        kills = self._catalog.kills(self._log_id, above=above)
        found = {*kills, *self._catalog.of_type(self._log_id, "containment", above=above)}
        if kills or self._book.has_kills:
            # Access records are many: those of gateways are looked for only where one of them could release somebody.
            begin = above if self._book.has_kills else kills[0]
            found.update(self._catalog.of_type(self._log_id, "access", above=begin, not_by=self._service_id))
        return sorted(index for index in found if index < size)

    async def state(self) -> State:
        """See `look`."""
        return await asyncio.to_thread(self.look)

    async def _newest(self) -> int:
        return (await self.state()).current.version

    def note(self, enforcer_id: str, version: int) -> None:
        """Note which version of the set a gateway has in force; see `service.reach`. Safe for any thread.

        Raises:
            StorageError: The database failed.
        """
        self._said.note(enforcer_id, version, self._clock.now_ms())

    def acknowledged(self) -> Mapping[str, Acknowledged]:
        """Return what each gateway said last that it has in force, by enforcer id. Safe for any thread.

        Raises:
            StorageError: The database failed.
        """
        return self._said.all()

    async def reach(self, order: Order, *, wait_seconds: float = 0.0) -> list[Gateway]:
        """Return how far an order has come.

        Args:
            order: Which.
            wait_seconds: How long to wait for gateways that it has not reached, at most `MAX_REACH_SECONDS`.

        Raises:
            LedgerError: A store failed.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + min(wait_seconds, MAX_REACH_SECONDS)
        while True:
            found = await asyncio.to_thread(self._reach, order.leaf)
            if loop.time() >= until or all(gateway.state != "unreached" for gateway in found):
                return found
            await asyncio.sleep(_REACH_SECONDS)

    def _reach(self, leaf: int) -> list[Gateway]:
        self._refresh_keys()
        return reach(
            leaf,
            self._log_id,
            keyring=self._keyring,
            catalog=self._catalog,
            reader=self._reader,
            said=self._said.all(),
        )

    # --- steps

    async def order(self, event: Containment, reason: str) -> Order:
        """Order a containment; it is on its way to every gateway when this returns.

        Args:
            event: What is stopped, until when, and who orders it.
            reason: Why, for the vault.

        Raises:
            MalformedError: It ends before it begins, or lasts longer than may be.
            NotFoundError: There is no decision of the session in the log.
            ConflictError: Too many containments are in force.
            LedgerError: A store failed, or it could not be recorded.
        """
        now_ms = self._clock.now_ms()
        if event.until_ms is None or not now_ms < event.until_ms <= now_ms + MAX_CONTAINMENT_MS:
            raise MalformedError("a containment ends within 30 days, and not before it begins")
        state = await self.state()
        if sum(not order.is_kill for order in state.in_force()) >= MAX_CONTAINMENTS:
            raise ConflictError(f"{MAX_CONTAINMENTS} containments are in force: release some, or contain more at once")
        if event.session is not None:
            agent = await asyncio.to_thread(self._agent_of, event.session)
            event = msgspec.structs.replace(event, agent=agent)
        await self._record(event, reason)
        return (await self.state()).get(event.containment_id)

    def _agent_of(self, session: str) -> str | None:
        """Return whose a session is: a name that is no session must not be taken for one that is stopped."""
        for index in self._catalog.session(self._log_id, session):
            agent = getattr(self._reader.record(index).body, "agent", None)
            if isinstance(agent, str):
                return agent
        raise NotFoundError(f"the log has no decision of a session {session}")

    async def release(
        self,
        order_id: str,
        *,
        actor: str,
        actor_role: str,
        key_id: str,
        comment: str | None,
        also: Collection[str] = (),
    ) -> tuple[str, Order]:
        """Ask for the early end of a containment, or of a block that a kill left; or confirm it.

        Args:
            order_id: Which.
            actor: Pseudonym of whoever asks or confirms.
            actor_role: Under which role.
            key_id: Which key made the pseudonym.
            comment: Why, for the vault.
            also: What else that person is called; see `service.people`.

        Returns:
            What was done, ``release_requested`` or ``released``, and the order as it is then.

        Raises:
            NotFoundError: There is no such order.
            ConflictError: It has ended, or who asked cannot confirm.
            LedgerError: A store failed.
        """
        async with self._turn:
            order = (await self.state()).get(order_id)
            action = order.next_step(actor, key_id, also)
            event = Containment(action=action, containment_id=order_id, actor=actor, actor_role=actor_role)
            await self._record(event, comment)
            after = {known.order_id: known for known in (await self.state()).orders}
        # A kill that was released is in force no more, and is no longer listed.
        return action, after.get(order_id, order)

    async def review(
        self, order_id: str, *, names: tuple[str, ...], actor_role: str, verdict: str, comment: str
    ) -> Order:
        """Review a containment.

        Args:
            order_id: Which.
            names: What the reviewer is called, by each pseudonym key; the one that counts now first.
            actor_role: Under which role.
            verdict: ``justified`` or ``unfounded``; the latter ends nothing by itself.
            comment: What was found, for the vault.

        Raises:
            NotFoundError: There is no such containment.
            ConflictError: It was reviewed before, or is the reviewer's own.
            LedgerError: A store failed.
        """
        async with self._turn:
            order = (await self.state()).get(order_id)
            if order.is_kill:
                raise ConflictError(f"{order_id} was decided by a policy: there is nobody's order to review")
            if order.reviewed_ms is not None:
                raise ConflictError(f"the containment {order_id} was reviewed before")
            if order.ordered_by in names:
                raise ConflictError(f"the containment {order_id} is for somebody else to review")
            event = Containment(
                action="reviewed",
                containment_id=order_id,
                actor=names[0],
                actor_role=actor_role,
                verdict="justified" if verdict == "justified" else "unfounded",
            )
            await self._record(event, comment)
            return (await self.state()).get(order_id)

    async def _record(self, event: Containment, comment: str | None) -> None:
        openings: tuple[Opening, ...] = ()
        if comment is not None:
            commitment, opening = commit("comment", secrets.token_bytes(SALT_BYTES), comment.encode())
            event, openings = msgspec.structs.replace(event, comment=commitment), (opening,)
        await self._sink.append([Draft(body=event, openings=openings)])
        self.watch.work.wake()
        self.work.wake()

    # --- what ends by itself

    async def expire(self) -> int:
        """Record the end of what is past its time; return how many ended.

        Raises:
            LedgerError: A store failed.
        """
        now_ms, ended = self._clock.now_ms(), 0
        for order in (await self.state()).in_force():
            until_ms = order.restriction.until_ms
            if until_ms is not None and until_ms <= now_ms:
                ended += await self._expire(order, until_ms)
        return ended

    async def _expire(self, order: Order, until_ms: int) -> bool:
        body = Containment(action="expired", containment_id=order.order_id, actor=self._actor(), actor_role=_ROLE)
        digest = hashlib.sha256(_EXPIRY + f"{self._log_id}\n{order.order_id}".encode()).digest()
        try:
            await self._sink.append([Draft(body=body, record_id=new_record_id(until_ms, digest[:10]))])
        except ConflictError:
            return False  # another process was first
        self.watch.work.wake()
        _log.info("containment_expired", containment_id=order.order_id)
        return True

    async def _expire_due(self) -> float:
        await self.expire()
        now_ms = self._clock.now_ms()
        ends = [order.restriction.until_ms for order in (await self.state()).in_force()]
        left = min(
            ((until_ms - now_ms) / _MS_PER_SECOND for until_ms in ends if until_ms is not None), default=_LOOK_SECONDS
        )
        return min(max(left, _REACH_SECONDS), _LOOK_SECONDS)
