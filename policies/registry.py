"""The registry of policy bundles: publish, activate, roll back, history.

Which bundle is active is never stored by itself: it follows from the `BundleEvent` records of the log, in log order
(`derive_state`), so that state and log cannot disagree. Bundles themselves are kept as archives in a `BundleStore`,
found by revision.

Order of writes. Publishing makes the archive durable first and records second: a crash in between leaves an archive
that nobody refers to, and publishing again completes it. Activation and rollback are one record each.

INVARIANT 1 and 2 are the ledger's; what is kept here is that no record speaks of a bundle that is not at hand, or that
its engine refuses.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from ledger.bodies import BundleEvent, Commitment
from ledger.commitments import SALT_BYTES
from ledger.errors import ConflictError, PolicySyntaxError, StorageError, UnknownBundleError
from ledger.ports import Draft, Opening, RecordSink, commit
from policies.bundles import Bundle, parse_archive
from policies.evaluate import Evaluator

__all__ = [
    "Actor",
    "BundleHistory",
    "BundleStore",
    "RecordedEvent",
    "Registry",
    "RegistryState",
    "derive_state",
]


class BundleStore(Protocol):
    """Where archives of bundles are kept; synchronous, safe for any thread, called off the event loop."""

    def put(self, log_id: str, revision: str, archive: bytes) -> None:
        """Keep an archive.

        Durability: synced when the call returns. Idempotence: the same bytes again are success. Nothing is ever
        replaced.

        Raises:
            ConflictError: Other bytes stand under that revision.
            StorageError: The store failed; the archive may or may not be there.
        """
        ...

    def get(self, log_id: str, revision: str) -> bytes:
        """Return an archive's bytes.

        Raises:
            UnknownBundleError: None of that revision.
            StorageError: The store failed.
        """
        ...


class RecordedEvent(NamedTuple):
    """A bundle event as the log has it.

    Attributes:
        leaf_index: Zero-based leaf index.
        time_ms: The record's time, POSIX milliseconds.
        event: The record's body.
    """

    leaf_index: int
    time_ms: int
    event: BundleEvent


class BundleHistory(Protocol):
    """Where the recorded bundle events are read; synchronous, safe for any thread, called off the event loop."""

    def bundle_events(self, log_id: str) -> Sequence[RecordedEvent]:
        """Return every bundle event of a log, in log order, those just acknowledged included.

        Raises:
            StorageError: The store failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something to a bundle.

    Attributes:
        pseudonym: `ledger.commitments.pseudonym` of kind ``actor``.
        role: Role under which it is done.
    """

    pseudonym: str
    role: str


@dataclass(frozen=True, slots=True)
class RegistryState:
    """What the bundle events of a log add up to.

    Attributes:
        published: Revision → name of every bundle that was published, oldest first.
        retired: Those of them that may not be activated any more.
        activations: Revisions as they became active and were not rolled back; the last one is active.
    """

    published: Mapping[str, str] = field(default_factory=dict)
    retired: frozenset[str] = frozenset()
    activations: tuple[str, ...] = ()

    @property
    def active(self) -> str | None:
        """The active revision, or None before the first activation."""
        return self.activations[-1] if self.activations else None

    @property
    def previous(self) -> str | None:
        """What a rollback leads to, or None."""
        return self.activations[-2] if len(self.activations) > 1 else None


def _rolled_back(activations: tuple[str, ...], revision: str) -> tuple[str, ...]:
    """Return the activations up to and including the latest one of ``revision`` before the present one."""
    earlier = activations[:-1]
    while earlier and earlier[-1] != revision:
        earlier = earlier[:-1]
    return earlier or (revision,)


def derive_state(events: Sequence[RecordedEvent]) -> RegistryState:
    """Return what bundle events add up to; a function of the log alone.

    Args:
        events: In log order.
    """
    published: dict[str, str] = {}
    retired: frozenset[str] = frozenset()
    activations: tuple[str, ...] = ()
    for _, _, event in events:
        match event.action:
            case "published":
                published.setdefault(event.revision, event.name)
            case "retired":
                retired |= {event.revision}
            case "activated":
                activations = (*activations, event.revision)
            case "rolled_back":
                activations = _rolled_back(activations, event.revision)
            case _:  # tested, reviewed: steps that the life cycle of bundles will demand
                pass
    return RegistryState(published, retired, activations)


class Registry:
    """The bundles of one log; safe for any task of its event loop."""

    def __init__(
        self, *, log_id: str, store: BundleStore, history: BundleHistory, sink: RecordSink, evaluator: Evaluator
    ) -> None:
        """Take the log's stores and sink.

        Args:
            log_id: The log that bundles belong to and events go to.
            store: Keeps archives.
            history: Reads recorded events.
            sink: Records events.
            evaluator: Checks that bundles load.
        """
        self._log_id = log_id
        self._store = store
        self._history = history
        self._sink = sink
        self._evaluator = evaluator
        # Held from reading the state to recording the step that follows from it. Between processes the log's order
        # decides: of two activations the later one holds.
        self._lock = asyncio.Lock()

    async def history(self) -> Sequence[RecordedEvent]:
        """Return every bundle event, in log order.

        Raises:
            StorageError: The store failed.
        """
        return await asyncio.to_thread(self._history.bundle_events, self._log_id)

    async def state(self) -> RegistryState:
        """Return what the log says of bundles.

        Raises:
            StorageError: The store failed.
        """
        return derive_state(await self.history())

    async def bundle(self, revision: str) -> Bundle:
        """Return a published bundle.

        Raises:
            UnknownBundleError: None of that revision was published.
            StorageError: The store failed, or holds other bytes than were published.
        """
        if revision not in (await self.state()).published:
            raise UnknownBundleError(f"no bundle of revision {revision[:64]!a} is published")
        return await self._stored(revision)

    async def active_bundle(self) -> Bundle | None:
        """Return the active bundle, or None before the first activation.

        Raises:
            UnknownBundleError: The log names one that the store does not hold.
            StorageError: The store failed, or holds other bytes than were published.
        """
        active = (await self.state()).active
        return None if active is None else await self._stored(active)

    async def publish(self, bundle: Bundle, actor: Actor, comment: str | None = None) -> RegistryState:
        """Keep a bundle and record that it is published; a revision that is so already is left as it is.

        Durability: archive and record are durable when the call returns.

        Raises:
            PolicySyntaxError: The bundle's engine refuses it; the message names file and place.
            ConflictError: The store holds another archive of that revision.
            DependencyError: Nothing of this call may be relied on; it may be repeated.
        """
        await self._evaluator.check(bundle)
        async with self._lock:
            await asyncio.to_thread(self._store.put, self._log_id, bundle.revision, bundle.archive())
            state = await self.state()
            if bundle.revision not in state.published:
                await self._record("published", bundle, actor, None, comment)
            return await self.state()

    async def activate(self, revision: str, actor: Actor, comment: str | None = None) -> RegistryState:
        """Make a published bundle the active one; if it is so already, nothing is recorded.

        Raises:
            UnknownBundleError: None of that revision is published.
            ConflictError: It is retired.
            PolicySyntaxError: Its engine refuses it, now.
            DependencyError: Nothing of this call may be relied on; it may be repeated.
        """
        async with self._lock:
            state = await self.state()
            if revision == state.active:
                return state
            return await self._make_active("activated", state, revision, actor, comment)

    async def roll_back(self, actor: Actor, comment: str | None = None) -> RegistryState:
        """Make the bundle active that was so before the present one.

        Raises:
            ConflictError: There is none, or it is retired.
            PolicySyntaxError: Its engine refuses it, now.
            DependencyError: Nothing of this call may be relied on; look at the state before repeating it.
        """
        async with self._lock:
            state = await self.state()
            if state.previous is None:
                raise ConflictError("no bundle was active before this one")
            return await self._make_active("rolled_back", state, state.previous, actor, comment)

    async def _make_active(
        self,
        action: Literal["activated", "rolled_back"],
        state: RegistryState,
        revision: str,
        actor: Actor,
        comment: str | None,
    ) -> RegistryState:
        if revision not in state.published:
            raise UnknownBundleError(f"no bundle of revision {revision[:64]!a} is published")
        if revision in state.retired:
            raise ConflictError("the bundle is retired")
        bundle = await self._stored(revision)
        # INVARIANT 7: a bundle that its engine refuses would deny everything; it does not become active unseen.
        await self._evaluator.check(bundle)
        await self._record(action, bundle, actor, state.active, comment)
        return await self.state()

    async def _stored(self, revision: str) -> Bundle:
        archive = await asyncio.to_thread(self._store.get, self._log_id, revision)
        try:
            bundle = parse_archive(archive)
        except PolicySyntaxError as error:
            raise StorageError(f"the bundle store holds no archive under {revision}") from error
        # INVARIANT 11: the store is not believed; the revision in the log is what a bundle must hash to.
        if bundle.revision != revision:
            raise StorageError(f"the bundle store holds {bundle.revision} under {revision}")
        return bundle

    async def _record(
        self,
        action: Literal["published", "activated", "rolled_back"],
        bundle: Bundle,
        actor: Actor,
        previous: str | None,
        comment: str | None,
    ) -> None:
        commitment: Commitment | None = None
        openings: tuple[Opening, ...] = ()
        if comment is not None:
            commitment, opening = commit("comment", secrets.token_bytes(SALT_BYTES), comment.encode())
            openings = (opening,)
        event = BundleEvent(
            action=action,
            name=bundle.manifest.name,
            revision=bundle.revision,
            engine=bundle.manifest.engine,
            actor=actor.pseudonym,
            actor_role=actor.role,
            previous_revision=previous,
            comment=commitment,
        )
        await self._sink.append([Draft(body=event, openings=openings)])
