"""The registry of policy bundles: publish, test, review, activate, roll back, retire.

What the recorded steps add up to is in `bundle_lives`; bundles themselves are kept as archives in a `BundleStore`,
found by revision.

Order of writes. Publishing makes the archive durable first and records second: a crash in between leaves an archive
that nobody refers to, and publishing again completes it. Publication and the first run of the bundle's test cases are
one batch; every other step is one record.

INVARIANT 1 and 2 are the ledger's; what is kept here is that no record speaks of a bundle that is not at hand, or that
its engine refuses, and that none becomes active before its tests pass and a second person has approved it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from ledger.bodies import BundleEvent
from ledger.body_fields import Commitment
from ledger.canonical import sha256
from ledger.commitments import SALT_BYTES
from ledger.envelopes import EnvelopeKey
from ledger.errors import (
    ConflictError,
    MalformedError,
    NotFoundError,
    PolicySyntaxError,
    StorageError,
    UnknownBundleError,
    VerificationError,
)
from ledger.ports import Draft, Opening, RecordSink, commit
from policies.bundle_lives import Actor, BundleLife, Foresight, RecordedEvent, RegistryState, derive_state, may_be_one
from policies.bundle_ports import BundleHistory, BundleStore
from policies.bundles import Bundle, parse_archive
from policies.evaluate import Evaluator
from policies.signatures import read_signature, verify_signature
from policies.testing import run_cases

__all__ = ["Registry"]

_NAMED_RULES: Final = 64
"""Uncovered rules that a record names; it counts all of them."""


_Action: TypeAlias = Literal[
    "published",
    "tested",
    "signed",
    "reviewed",
    "activated",
    "rolled_back",
    "retired",
    "canary_started",
    "canary_ended",
]


class Registry:
    """The bundles of one log; safe for any task of its event loop."""

    def __init__(
        self,
        *,
        log_id: str,
        store: BundleStore,
        history: BundleHistory,
        sink: RecordSink,
        evaluator: Evaluator,
        tester: Callable[[], Actor],
        foresee: Callable[[Bundle], Awaitable[Foresight]],
        trusted: Sequence[EnvelopeKey] = (),
        solo: bool = False,
    ) -> None:
        """Take the log's stores and sink.

        Args:
            log_id: The log that bundles belong to and events go to.
            store: Keeps archives.
            history: Reads recorded events.
            sink: Records events.
            evaluator: Checks that bundles load, and runs their tests.
            tester: Who runs the tests: the service itself.
            foresee: Says what a bundle would have made of the denials of the last 24 hours.
            trusted: Keys that must have signed a bundle before it becomes active; none if nobody need have.
            solo: A bundle may become active unreviewed; the record then says so.
        """
        self._log_id = log_id
        self._store = store
        self._history = history
        self._sink = sink
        self._evaluator = evaluator
        self._tester = tester
        self._foresee = foresee
        self._trusted = tuple(trusted)
        self._solo = solo
        # Held from reading the state to recording the step that follows from it. Between processes the log's order
        # decides: of two activations the later one holds.
        self._lock = asyncio.Lock()

    async def history(self) -> Sequence[RecordedEvent]:
        """Return every bundle event, in log order.

        Raises:
            StorageError: The store failed.
        """
        return await asyncio.to_thread(self._history.bundle_events, self._log_id)

    async def newest(self) -> int:
        """Return the leaf index of the last bundle event, -1 if there is none.

        Raises:
            StorageError: The store failed.
        """
        events = await self.history()
        return events[-1].leaf_index if events else -1

    async def state(self) -> RegistryState:
        """Return what the log says of bundles.

        Raises:
            StorageError: The store failed.
        """
        return derive_state(await self.history())

    async def life(self, revision: str) -> BundleLife:
        """Return what the log says of a published bundle.

        Raises:
            UnknownBundleError: None of that revision was published.
            StorageError: The store failed.
        """
        return _life(await self.state(), revision)

    async def bundle(self, revision: str) -> Bundle:
        """Return a published bundle.

        Raises:
            UnknownBundleError: None of that revision was published.
            StorageError: The store failed, or holds other bytes than were published.
        """
        await self.life(revision)
        return await self._stored(revision)

    async def active_bundle(self) -> Bundle | None:
        """Return the active bundle, or None before the first activation.

        Raises:
            UnknownBundleError: The log names one that the store does not hold.
            StorageError: The store failed, or holds other bytes than were published.
        """
        active = (await self.state()).active
        return None if active is None else await self._stored(active)

    async def publish(
        self, bundle: Bundle, actor: Actor, comment: str | None = None, *, source: str | None = None
    ) -> RegistryState:
        """Keep a bundle, run its test cases, and record both; a revision that was published is left as it is.

        A bundle whose cases fail is published all the same, as a draft.

        Durability: archive and records are durable when the call returns.

        Args:
            bundle: The bundle.
            actor: Its author.
            comment: Why.
            source: Where he says that it is from; a record's name.

        Raises:
            PolicySyntaxError: The bundle's engine refuses it, or its test cases cannot be read; the message names file
                and place.
            ConflictError: The store holds another archive of that revision.
            DependencyError: Nothing of this call may be relied on; it may be repeated.
        """
        tested = await self._run_tests(bundle)
        async with self._lock:
            await asyncio.to_thread(self._store.put, self._log_id, bundle.revision, bundle.archive())
            known = (await self.state()).lives.get(bundle.revision)
            if known is None:
                await self._sink.append([_draft("published", bundle, actor, comment, source=source), tested])
            elif known.test_run is None:
                await self._sink.append([tested])
            return await self.state()

    async def test(self, revision: str) -> RegistryState:
        """Run a published bundle's test cases again, and record what came of it.

        Raises:
            UnknownBundleError: None of that revision is published.
            PolicySyntaxError: Its engine refuses it, now.
            DependencyError: Nothing of this call may be relied on; it may be repeated.
        """
        tested = await self._run_tests(await self.bundle(revision))
        async with self._lock:
            await self._sink.append([tested])
            return await self.state()

    async def review(
        self,
        revision: str,
        actor: Actor,
        verdict: Literal["approved", "rejected"],
        comment: str | None = None,
        *,
        known_as: Mapping[str, str] | None = None,
    ) -> RegistryState:
        """Record what somebody says of a published bundle.

        Args:
            revision: The bundle, in these exact bytes and no others.
            actor: Who says it.
            verdict: The author may reject his own bundle, and not approve it.
            comment: Why.
            known_as: What the actor is called under each pseudonym key, by key id.

        Raises:
            UnknownBundleError: None of that revision is published.
            ConflictError: It is retired; or, of an approval: its tests do not pass, it is the actor's own, or nobody
                can tell whether it is.
            DependencyError: Nothing of this call may be relied on; look at the state before repeating it.
        """
        async with self._lock:
            life = _life(await self.state(), revision)
            if life.retired:
                raise ConflictError("the bundle is retired")
            reviewer = _compared(actor, life.author, known_as or {})
            if verdict == "approved":
                _require_approvable(life, reviewer)
            bundle = await self._stored(revision)
            told = _draft("reviewed", bundle, reviewer, comment, verdict=verdict, also=reviewer.also)
            await self._sink.append([told])
            return await self.state()

    async def sign(self, revision: str, envelope: bytes, actor: Actor) -> RegistryState:
        """Keep a signature over a published bundle and record it; the same one again is left as it is.

        Raises:
            UnknownBundleError: None of that revision is published.
            MalformedError: Not an envelope.
            VerificationError: It is about something else, or not by those who are trusted here, if any are.
            DependencyError: Nothing of this call may be relied on; it may be repeated.
        """
        async with self._lock:
            life = _life(await self.state(), revision)
            bundle = await self._stored(revision)
            parsed = read_signature(envelope, bundle)
            if self._trusted:
                verify_signature(envelope, bundle, self._trusted)
            digest = sha256(envelope).hex()
            if life.signature != digest:
                # Kept under its own digest, like everything else there.
                await asyncio.to_thread(self._store.put, self._log_id, digest, envelope)
                members = {"signature": digest, "signers": tuple(sorted(parsed.signatures))}
                await self._sink.append([_draft("signed", bundle, actor, None, **members)])
            return await self.state()

    async def signature(self, revision: str) -> bytes:
        """Return the last envelope that was handed in for a published bundle; nothing is verified.

        Raises:
            UnknownBundleError: None of that revision is published.
            NotFoundError: It is not signed.
            StorageError: The store failed, or holds other bytes than were recorded.
        """
        digest = (await self.life(revision)).signature
        if digest is None:
            raise NotFoundError("the bundle is not signed")
        envelope = await asyncio.to_thread(self._store.get, self._log_id, digest)
        if sha256(envelope).hex() != digest:
            raise StorageError(f"the bundle store holds other bytes under {digest}")
        return envelope

    async def _require_signature(self, bundle: Bundle) -> None:
        """Refuse a bundle that not everybody has signed who must; INVARIANT 11: verified anew, for trust may change."""
        if self._trusted:
            try:
                verify_signature(await self.signature(bundle.revision), bundle, self._trusted)
            except (NotFoundError, MalformedError, VerificationError) as error:
                raise ConflictError(f"the bundle is not signed by those who must: {error}") from error

    async def activate(self, revision: str, actor: Actor, comment: str | None = None) -> RegistryState:
        """Make a published bundle the active one; if it is so already, nothing is recorded.

        Raises:
            UnknownBundleError: None of that revision is published.
            ConflictError: It is retired, its tests do not pass, or nobody but its author has approved it.
            PolicySyntaxError: Its engine refuses it, now.
            DependencyError: Nothing of this call may be relied on; it may be repeated.
        """
        async with self._lock:
            state = await self.state()
            if revision == state.active:
                return state
            life = _life(state, revision)
            if (why := life.unready(reviewed=not self._solo)) is not None:
                raise ConflictError(why)
            unreviewed = not life.approvals
            return await self._make_active("activated", state, revision, actor, comment, unreviewed=unreviewed)

    async def roll_back(self, actor: Actor, comment: str | None = None) -> RegistryState:
        """Make the bundle active that was so before the present one.

        One person may do so where a replay of the last 24 hours shows that nothing that was denied would be permitted.
        Where it does not, somebody else approves the bundle that it leads to, after the activation that is undone.

        Raises:
            ConflictError: There is none, or it is retired or rejected; it takes a second person; or somebody else took
                a step meanwhile.
            PolicySyntaxError: Its engine refuses it, now.
            DependencyError: Nothing of this call may be relied on; look at the state before repeating it.
        """
        before = await self.state()
        target = _rollback_target(before)
        # Before the lock: a replay takes its time, and others may go on meanwhile.
        foresight = await self._foresee(await self._stored(target.revision))
        async with self._lock:
            state = await self.state()
            if (state.active, state.previous) != (before.active, before.previous):
                raise ConflictError("another bundle became active meanwhile; look at it first")
            target = _rollback_target(state)
            approved = target.approved_for(actor, state.activated_leaf or 0)
            alone = not (foresight.permits_nothing_new or approved)
            if alone and not self._solo:
                raise ConflictError(_needs_two(foresight, target.revision))
            members = foresight._asdict()
            return await self._make_active(
                "rolled_back", state, target.revision, actor, comment, **members, unreviewed=alone
            )

    async def retire(self, revision: str, actor: Actor, comment: str | None = None) -> RegistryState:
        """Keep a bundle from ever becoming active again; if it is so already, nothing is recorded.

        Raises:
            UnknownBundleError: None of that revision is published.
            ConflictError: It is active.
            DependencyError: Nothing of this call may be relied on; it may be repeated.
        """
        async with self._lock:
            state = await self.state()
            life = _life(state, revision)
            if life.retired:
                return state
            if life.active:
                raise ConflictError("the bundle is active; activate another one first")
            await self._sink.append([_draft("retired", await self._stored(revision), actor, comment)])
            return await self.state()

    async def start_canary(self, revision: str, actor: Actor, comment: str | None = None) -> RegistryState:
        """Have a published bundle evaluated beside the active one; if it is so already, nothing is recorded.

        It decides nothing, so that nobody need have approved it. There is one at a time: another one ends with this.

        Raises:
            UnknownBundleError: None of that revision is published.
            ConflictError: It is active or retired, its tests do not pass, or not everybody has signed it who must.
            PolicySyntaxError: Its engine refuses it, now.
            DependencyError: Nothing of this call may be relied on; it may be repeated.
        """
        async with self._lock:
            state = await self.state()
            life = _life(state, revision)
            if revision == state.canary:
                return state
            if life.active:
                raise ConflictError("the bundle is active; nothing would be compared")
            if life.retired:
                raise ConflictError("the bundle is retired")
            if (untested := life.untested()) is not None:
                raise ConflictError(untested)
            bundle = await self._stored(revision)
            # What nobody signed names no rules in the log of those who demand signatures, not even beside a decision.
            await self._require_signature(bundle)
            await self._evaluator.check(bundle)
            await self._sink.append([_draft("canary_started", bundle, actor, comment)])
            return await self.state()

    async def end_canary(self, actor: Actor, comment: str | None = None) -> RegistryState:
        """Have nothing evaluated beside the active bundle; if that is so already, nothing is recorded.

        Raises:
            DependencyError: Nothing of this call may be relied on; it may be repeated.
        """
        async with self._lock:
            state = await self.state()
            if state.canary is None:
                return state
            await self._sink.append([_draft("canary_ended", await self._stored(state.canary), actor, comment)])
            return await self.state()

    async def _make_active(
        self,
        action: Literal["activated", "rolled_back"],
        state: RegistryState,
        revision: str,
        actor: Actor,
        comment: str | None,
        **members: Any,  # noqa: ANN401  # of the record
    ) -> RegistryState:
        bundle = await self._stored(revision)
        await self._require_signature(bundle)
        # INVARIANT 7: a bundle that its engine refuses would deny everything; it does not become active unseen.
        await self._evaluator.check(bundle)
        await self._sink.append([_draft(action, bundle, actor, comment, previous_revision=state.active, **members)])
        return await self.state()

    async def _run_tests(self, bundle: Bundle) -> Draft:
        report = await run_cases(bundle, self._evaluator)
        return _draft(
            "tested",
            bundle,
            self._tester(),
            None,
            engine_version=self._evaluator.engine_version(bundle.manifest.engine),
            cases=len(report.results),
            failures=len(report.failures),
            uncovered_rules=len(report.uncovered),
            uncovered=tuple(report.uncovered[:_NAMED_RULES]),
        )

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


def _life(state: RegistryState, revision: str) -> BundleLife:
    try:
        return state.lives[revision]
    except KeyError:
        raise UnknownBundleError(f"no bundle of revision {revision[:64]!a} is published") from None


def _rollback_target(state: RegistryState) -> BundleLife:
    if state.previous is None:
        raise ConflictError("no bundle was active before this one")
    target = _life(state, state.previous)
    if target.retired:
        raise ConflictError("the bundle is retired")
    if target.rejection is not None:
        raise ConflictError("the bundle's review was a rejection")
    return target


def _needs_two(foresight: Foresight, revision: str) -> str:
    return (
        f"of {foresight.replayed} denials of the last 24 hours, replayed under {revision}, it would permit "
        f"{foresight.loosened}, and of {foresight.unknown} nobody can tell; somebody else must approve it first"
    )


def _compared(actor: Actor, author: Actor, known_as: Mapping[str, str]) -> Actor:
    """Return an actor as the record must name him, for anybody to see that he is not the author."""
    if author.key_id is None or author.key_id == actor.key_id or author.key_id not in known_as:
        return Actor(actor.pseudonym, actor.role, actor.key_id)
    return Actor(actor.pseudonym, actor.role, actor.key_id, (known_as[author.key_id],))


def _require_approvable(life: BundleLife, reviewer: Actor) -> None:
    if (untested := life.untested()) is not None:
        raise ConflictError(f"{untested}; it cannot be approved")
    if may_be_one(life.author, reviewer):
        told = "the bundle's author cannot approve it"
        lost = life.author.key_id != reviewer.key_id and not reviewer.also
        raise ConflictError(f"{told}, and the key of his pseudonym is not here: publish it anew" if lost else told)


def _draft(
    action: _Action,
    bundle: Bundle,
    actor: Actor,
    comment: str | None,
    **members: Any,  # noqa: ANN401  # of the record
) -> Draft:
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
        comment=commitment,
        **members,
    )
    return Draft(body=event, openings=openings)
