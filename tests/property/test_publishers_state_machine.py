"""Several publishers of one log as a state machine: paused, overtaken, crashed, started anew, in any order.

Whatever happens: no two checkpoints are inconsistent, what is exposed never moves back, nothing is shown that was not
published, and no publisher ends for good. A pause is played by letting others go on just before one of a publisher's
writes; a crash, by never coming back from there.
"""

from __future__ import annotations

import secrets
import tempfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import StorageError
from ledger.proofs import verify_consistency
from ledger.publishing_turns import PUBLISHER_LEASE, PublishingTurns, Turn
from ledger.stores.memory_leases import LeaseTable, MemoryLease
from tests.support.faults import Effect, Write
from tests.support.ledger import LOG_ID, EmbeddedLedger, pending

NAMES = ("a", "b", "c")
SECONDS = 5
WRITES = (Write.PUT_BUNDLE, Write.PUT_TILE, Write.SWAP, Write.EXPOSE, Write.RELEASE, Write.ANCHOR)
WHO = st.sampled_from(NAMES)
COUNTS = st.sampled_from([1, 2, 7, 200, 256])


class CrashedError(Exception):
    """A process went at this point, and did nothing more."""


class Publishers(RuleBasedStateMachine):
    """Three processes' publishers over one store, one directory and one anchor, under one lease."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="tally-publishers-")
        self.ledger = EmbeddedLedger(Path(self.folder.name))
        self.table = LeaseTable(self.ledger.clock)
        self.processes = {name: self.start(name) for name in NAMES}
        self.exposed = 0

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    def start(self, name: str) -> PublishingTurns:
        lease = MemoryLease(
            self.table, LOG_ID, PUBLISHER_LEASE, holder=f"{name}-{secrets.token_hex(4)}", seconds=SECONDS
        )
        turns = PublishingTurns(self.ledger.make_publisher(), lease)
        turns.load()
        return turns

    @initialize()
    def introduce(self) -> None:
        self.ledger.introduce()

    @rule(count=COUNTS)
    def append(self, count: int) -> None:
        service = self.ledger.service
        self.ledger.append(*(pending(service.record(service.heartbeat())) for _ in range(count)))

    @rule(seconds=st.sampled_from([1, SECONDS, 60]))
    def wait(self, seconds: int) -> None:
        self.ledger.clock.advance(seconds * 1000)

    @rule(who=WHO, due=st.booleans())
    def turn(self, who: str, due: bool) -> None:  # noqa: FBT001  # Hypothesis names it
        before = self.published_size()
        result = self.processes[who].turn(due=due)
        published = self.processes[who].published
        if result is not Turn.REFUSED and due:
            assert published is not None
            assert published.head.size == self.ledger.store.sequenced_size(LOG_ID)
        if not due:
            assert self.published_size() == before

    @rule(who=WHO, others=st.lists(WHO, min_size=1, max_size=4), write=st.sampled_from(WRITES), count=COUNTS)
    def pause(self, who: str, others: list[str], write: Write, count: int) -> None:
        """Stop one before a write of his, for longer than his lease, while others go on; then he goes on."""

        def meanwhile(kind: Write) -> None:
            if kind is write:
                self.ledger.faults.on_write = None
                for other in others:
                    if other != who:
                        self.ledger.clock.advance(SECONDS * 1000)
                        self.append(count)
                        self.processes[other].turn(due=True)

        self.append(1)
        self.ledger.faults.on_write = meanwhile
        self.processes[who].turn(due=True)
        self.ledger.faults.on_write = None

    @rule(who=WHO, write=st.sampled_from(WRITES))
    def crash(self, who: str, write: Write) -> None:
        """End one before a write of his, and start him anew."""

        def end(kind: Write) -> None:
            if kind is write:
                raise CrashedError

        self.append(1)
        self.ledger.faults.on_write = end
        with suppress(CrashedError):
            self.processes[who].turn(due=True)
        self.ledger.faults.on_write = None
        self.processes[who] = self.start(who)

    @rule(who=WHO, write=st.sampled_from(WRITES[:-1]), effect=st.sampled_from([Effect.LOST, Effect.KEPT]))
    def fail(self, who: str, write: Write, effect: Effect) -> None:
        """Break a write of one: he gives the lease up and loads, as his loop does."""
        self.append(1)
        self.ledger.faults.arm(write, effect)
        try:
            self.processes[who].turn(due=True)
        except StorageError:
            self.processes[who].give_up()
            self.processes[who].load()
        self.ledger.faults.arm(write, effect, times=0)

    @rule(who=WHO)
    def stop_in_order(self, who: str) -> None:
        self.processes[who].give_up()
        self.processes[who] = self.start(who)

    def published_size(self) -> int:
        checkpoint = self.ledger.store.checkpoint(LOG_ID)
        return 0 if checkpoint is None else parse_unverified_checkpoint(checkpoint).claim.size

    @invariant()
    def no_two_checkpoints_are_inconsistent(self) -> None:
        heads = [self.ledger.policy.verify(checkpoint).head for checkpoint in self.ledger.published_checkpoints()]
        for old, new in pairwise(heads):
            verify_consistency(old, new, self.ledger.prover.consistency(old.size, new.size))

    @invariant()
    def nothing_is_shown_that_was_not_published(self) -> None:
        shown = {*self.ledger.exposed_checkpoints(), *self.ledger.anchored_checkpoints()}
        assert shown <= set(self.ledger.published_checkpoints())

    @invariant()
    def what_is_exposed_never_moves_back(self) -> None:
        sizes = [parse_unverified_checkpoint(one).claim.size for one in self.ledger.exposed_checkpoints()]
        assert max(sizes, default=0) >= self.exposed
        self.exposed = max(sizes, default=0)

    @invariant()
    def every_process_knows_a_published_checkpoint(self) -> None:
        published = set(self.ledger.published_checkpoints())
        for process in self.processes.values():
            assert process.published is None or process.published.checkpoint in published


TestPublishers = Publishers.TestCase
TestPublishers.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
