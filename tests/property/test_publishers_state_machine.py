"""Several publishers of one log as a state machine: paused, overtaken, crashed, started anew, in any order.

Whatever happens: no two checkpoints are inconsistent, what is exposed never moves back, nothing is shown that was not
published, and no publisher ends for good. A pause is played by letting others go on just before one of a publisher's
writes; a crash, by never coming back from there. The stores are those in memory: what is tried is the order of steps.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.clock import SimulatedClock
from ledger.errors import ConflictError, NotFoundError, StorageError
from ledger.integrator import Integrator
from ledger.ports import AnchorReceipt
from ledger.proofs import verify_consistency
from ledger.prover import Prover
from ledger.publisher import Publisher
from ledger.publishing_turns import PUBLISHER_LEASE, PublishingTurns, Turn
from ledger.reader import EntryReader
from ledger.signers.local import LocalSigner
from ledger.stores.memory import MemoryLogStore, MemoryTileStore
from ledger.stores.memory_leases import LeaseTable, MemoryLease
from ledger.tiles import CHECKPOINT_PATH
from ledger.trust import TrustPolicy
from tests.support.faults import Effect, Faults, FaultyAnchor, FaultyLogStore, FaultyTileStore, Write
from tests.support.ledger import LOG_ID, NOW_MS, ORIGIN, Enforcer, make_key, pending

NAMES = ("a", "b", "c")
SECONDS = 5
WRITES = (Write.PUT_BUNDLE, Write.PUT_TILE, Write.SWAP, Write.EXPOSE, Write.RELEASE, Write.ANCHOR)
WHO = st.sampled_from(NAMES)
COUNTS = st.sampled_from([1, 2, 7, 256])


class CrashedError(Exception):
    """A process went at this point, and did nothing more."""


class Swaps(MemoryLogStore):
    """A log store that remembers every checkpoint that won."""

    def __init__(self) -> None:
        super().__init__(LOG_ID)
        self.won: list[bytes] = []

    def swap_checkpoint(self, log_id: str, *, expected: bytes | None, new: bytes, size: int, published_ms: int) -> None:
        super().swap_checkpoint(log_id, expected=expected, new=new, size=size, published_ms=published_ms)
        self.won.append(new)


class Copies:
    """An anchor in memory."""

    def __init__(self) -> None:
        self.kept: dict[int, bytes] = {}

    def put(self, _log_id: str, size: int, checkpoint: bytes) -> AnchorReceipt:
        if self.kept.setdefault(size, checkpoint) != checkpoint:
            raise ConflictError(f"another checkpoint of size {size} is anchored")
        return AnchorReceipt(size=size, location="memory", anchored_ms=NOW_MS)

    def get(self, _log_id: str, size: int) -> bytes:
        return self.kept[size]

    def sizes(self, _log_id: str, *, above: int = -1) -> list[int]:
        return sorted(size for size in self.kept if size > above)


class Publishers(RuleBasedStateMachine):
    """Three processes' publishers over one store, one set of tiles and one anchor, under one lease."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SimulatedClock(NOW_MS)
        self.store, self.tiles, self.anchor = Swaps(), MemoryTileStore(), Copies()
        self.faults = Faults()
        self.signer = LocalSigner(make_key("log"))
        self.policy = TrustPolicy(logs=(self.signer.verifier_key,))
        self.prover = Prover(self.tiles, LOG_ID)
        self.service = Enforcer()
        self.table = LeaseTable(self.clock)
        self.processes = {name: self.start(name) for name in NAMES}
        self.checked = 0
        self.exposed = 0

    def start(self, name: str) -> PublishingTurns:
        store, tiles = FaultyLogStore(self.store, self.faults), FaultyTileStore(self.tiles, self.faults)
        publisher = Publisher(
            log_id=LOG_ID,
            origin=ORIGIN,
            store=store,
            tiles=tiles,
            integrator=Integrator(LOG_ID, EntryReader(store, tiles, LOG_ID), tiles),
            signers=[self.signer],
            anchor=FaultyAnchor(self.anchor, self.faults),
            clock=self.clock,
        )
        lease = MemoryLease(
            self.table, LOG_ID, PUBLISHER_LEASE, holder=f"{name}-{secrets.token_hex(4)}", seconds=SECONDS
        )
        turns = PublishingTurns(publisher, lease)
        turns.load()
        return turns

    @rule(count=COUNTS)
    def append(self, count: int) -> None:
        batch = [pending(self.service.record(self.service.heartbeat())) for _ in range(count)]
        self.store.sequence(LOG_ID, [batch], received_ms=NOW_MS)

    @rule(seconds=st.sampled_from([1, SECONDS, 60]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds * 1000)

    @rule(who=WHO, due=st.booleans())
    def turn(self, who: str, due: bool) -> None:
        before = self.published_size()
        result = self.processes[who].turn(due=due)
        published = self.processes[who].published
        if due and (result is Turn.IDLE or (result is Turn.CHANGED and self.processes[who].leads)):
            assert (published.head.size if published else 0) == self.store.sequenced_size(LOG_ID)
        if not due:
            assert self.published_size() == before

    @rule(who=WHO, others=st.lists(WHO, min_size=1, max_size=4), write=st.sampled_from(WRITES), count=COUNTS)
    def pause(self, who: str, others: list[str], write: Write, count: int) -> None:
        """Stop one before a write of his, for longer than his lease, while others go on; then he goes on."""

        def meanwhile(kind: Write) -> None:
            if kind is write:
                self.faults.on_write = None
                for other in others:
                    if other != who:
                        self.clock.advance(SECONDS * 1000)
                        self.append(count)
                        self.processes[other].turn(due=True)

        self.append(1)
        self.faults.on_write = meanwhile
        self.processes[who].turn(due=True)
        self.faults.on_write = None

    @rule(who=WHO, write=st.sampled_from(WRITES))
    def crash(self, who: str, write: Write) -> None:
        """End one before a write of his, and start him anew."""

        def end(kind: Write) -> None:
            if kind is write:
                raise CrashedError

        self.append(1)
        self.faults.on_write = end
        with suppress(CrashedError):
            self.processes[who].turn(due=True)
        self.faults.on_write = None
        self.processes[who] = self.start(who)

    @rule(who=WHO, write=st.sampled_from(WRITES[:-1]), effect=st.sampled_from([Effect.LOST, Effect.KEPT]))
    def fail(self, who: str, write: Write, effect: Effect) -> None:
        """Break a write of one: he gives the lease up and loads, as his loop does."""
        self.append(1)
        self.faults.arm(write, effect)
        try:
            self.processes[who].turn(due=True)
        except StorageError:
            self.processes[who].give_up()
            self.processes[who].load()
        self.faults.arm(write, effect, times=0)

    @rule(who=WHO)
    def stop_in_order(self, who: str) -> None:
        self.processes[who].give_up()
        self.processes[who] = self.start(who)

    def published_size(self) -> int:
        checkpoint = self.store.checkpoint(LOG_ID)
        return 0 if checkpoint is None else parse_unverified_checkpoint(checkpoint).claim.size

    @invariant()
    def no_two_checkpoints_are_inconsistent(self) -> None:
        heads = [self.policy.verify(checkpoint).head for checkpoint in self.store.won[max(0, self.checked - 1) :]]
        for old, new in pairwise(heads):
            verify_consistency(old, new, self.prover.consistency(old.size, new.size))
        self.checked = len(self.store.won)

    @invariant()
    def nothing_is_shown_that_was_not_published(self) -> None:
        assert {*self.shown(), *self.anchor.kept.values()} <= set(self.store.won)

    @invariant()
    def what_is_exposed_never_moves_back(self) -> None:
        sizes = [parse_unverified_checkpoint(one).claim.size for one in self.shown()]
        assert max(sizes, default=0) >= self.exposed
        self.exposed = max(sizes, default=0)

    @invariant()
    def every_process_knows_a_published_checkpoint(self) -> None:
        for process in self.processes.values():
            assert process.published is None or process.published.checkpoint in self.store.won

    def shown(self) -> list[bytes]:
        try:
            return [self.tiles.get(LOG_ID, CHECKPOINT_PATH)]
        except NotFoundError:
            return []


TestPublishers = Publishers.TestCase
TestPublishers.settings = settings(
    max_examples=20, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
