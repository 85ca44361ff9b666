"""The embedded ledger as a state machine, against a list.

Whatever is appended, sent again, refused, published, lost on the way or interrupted by a restart, in any order: indexes
are contiguous, what was acknowledged is never lost or changed, every checkpoint is consistent with every earlier one,
and proofs verify.
"""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import ConflictError, StorageError
from ledger.ports import PendingEntry
from ledger.proof_files import parse_proof_file, verify_entry
from ledger.proofs import verify_consistency
from ledger.records import sign_record
from tests.support.faults import Effect, Write
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, make_decision, pending

# Sizes around a bundle's 256 are what matters; a batch may jump to any of them.
BATCH_SIZES = st.one_of(st.integers(1, 12), st.sampled_from([100, 200, 255, 256]))
EFFECTS = st.sampled_from([Effect.LOST, Effect.KEPT])
PUBLISHING = st.sampled_from([Write.PUT_BUNDLE, Write.PUT_TILE, Write.SWAP, Write.EXPOSE, Write.RELEASE])


class LogMachine(RuleBasedStateMachine):
    """`self.log` is the model: the entry at each index."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="tally-machine-")
        self.ledger = EmbeddedLedger(Path(self.folder.name))
        self.log: list[PendingEntry] = []
        self.checkpoints: list[bytes] = []

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    # --- what happens ------------------------------------------------------------------------------------------------

    @initialize()
    def introduce(self) -> None:
        self.take([self.ledger.service.record(self.ledger.service.introduction())])

    def take(self, records: list) -> None:
        """Append new records and put them into the model."""
        batch = [pending(record) for record in records]
        start = len(self.log)
        assert self.ledger.append(*batch) == list(range(start, start + len(batch)))
        self.log += batch

    def beats(self, count: int) -> list[PendingEntry]:
        service = self.ledger.service
        return [pending(service.record(service.heartbeat())) for _ in range(count)]

    @rule(count=BATCH_SIZES)
    def append(self, count: int) -> None:
        self.take([entry.record for entry in self.beats(count)])

    @rule()
    def append_a_decision_with_its_payloads(self) -> None:
        body, openings = make_decision()
        entry = pending(self.ledger.service.record(body), self.ledger.vault, openings)
        assert self.ledger.append(entry) == [len(self.log)]
        self.log.append(entry)

    @rule(data=st.data(), fresh=st.integers(0, 3))
    def append_again(self, data: st.DataObject, fresh: int) -> None:
        """Send old records again, mixed with new ones."""
        old = data.draw(st.lists(st.integers(0, len(self.log) - 1), max_size=6))
        new = self.beats(fresh)
        batch = data.draw(st.permutations([*((index, self.log[index]) for index in old), *((None, e) for e in new)]))
        given = self.ledger.append(*(entry for _, entry in batch))
        expected_next = len(self.log)
        for (index, entry), got in zip(batch, given, strict=True):
            if index is not None:
                assert got == index
            else:
                assert got == expected_next
                expected_next += 1
                self.log.append(entry)

    @rule(data=st.data(), before=st.integers(0, 3), after=st.integers(0, 3))
    def append_a_conflict(self, data: st.DataObject, before: int, after: int) -> None:
        """Send another record under an old id amid new ones: none is taken. A batch beside it is."""
        old = self.log[data.draw(st.integers(0, len(self.log) - 1))].record
        service = self.ledger.service
        forged = pending(sign_record(msgspec.structs.replace(old, seq=service.seq + 1_000), service.key))
        good = self.beats(1)
        position = (service.seq, service.time_ms)
        bad = [*self.beats(before), forged, *self.beats(after)]
        service.seq, service.time_ms = position
        results = self.ledger.store.sequence(LOG_ID, [bad, good], received_ms=NOW_MS)
        assert isinstance(results[0], ConflictError)
        assert not isinstance(results[1], ConflictError)
        assert [done.index for done in results[1]] == [len(self.log)]
        self.log += good

    @rule(count=st.integers(1, 5), effect=EFFECTS)
    def append_amid_a_failure(self, count: int, effect: Effect) -> None:
        """The store fails; the caller sends the same again and is told the truth."""
        batch = self.beats(count)
        self.ledger.faults.arm(Write.SEQUENCE, effect)
        try:
            self.ledger.append(*batch)
        except StorageError:
            pass
        else:
            raise AssertionError("the fault did not strike")
        start = len(self.log)
        assert self.ledger.append(*batch) == list(range(start, start + count))
        self.log += batch

    @rule()
    def publish(self) -> None:
        before = self.published_size()
        self.ledger.clock.advance(1_000)
        published = self.ledger.publisher.publish()
        assert (published is None) == (before == len(self.log))
        assert self.published_size() == len(self.log)
        self.ledger.publisher.anchor_newest()

    @rule(write=PUBLISHING, effect=EFFECTS)
    def publish_amid_a_failure(self, write: Write, effect: Effect) -> None:
        """A write of the publication fails; the publisher is loaded again, as its loop does."""
        self.ledger.faults.arm(write, effect)
        self.ledger.clock.advance(1_000)
        try:
            self.ledger.publisher.publish()
        except StorageError:
            self.ledger.publisher.load()
        self.ledger.faults.arm(write, effect, times=0)

    @rule(effect=EFFECTS)
    def anchor_amid_a_failure(self, effect: Effect) -> None:
        self.ledger.faults.arm(Write.ANCHOR, effect)
        self.ledger.publisher.anchor_newest()
        failed = self.ledger.publisher.anchor_status.failure is not None
        assert failed == (self.ledger.publisher.published is not None)
        self.ledger.faults.arm(Write.ANCHOR, effect, times=0)

    @rule()
    def restart(self) -> None:
        self.ledger = self.ledger.reopen()

    @precondition(lambda self: self.published_size() > 0)
    @rule(below=st.integers(0, 3))
    def release_again(self, below: int) -> None:
        """Releasing what was released, or less, changes nothing."""
        full = self.published_size() // 256
        self.ledger.store.release(LOG_ID, min(below, full) * 256)

    # --- what is asked -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.published_size() > 0)
    @rule(data=st.data())
    def prove(self, data: st.DataObject) -> None:
        """Any leaf of any checkpoint is proved to whoever has the trust policy."""
        checkpoint = data.draw(st.sampled_from(self.checkpoints))
        size = parse_unverified_checkpoint(checkpoint).claim.size
        index = data.draw(st.integers(0, size - 1))
        proof = parse_proof_file(self.ledger.prover.proof_file(index, checkpoint).encode())
        assert verify_entry(self.log[index].entry, proof, self.ledger.policy).head.size == size

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        """Any range reads as the model has it, wherever its entries stand."""
        start = data.draw(st.integers(0, len(self.log)))
        end = data.draw(st.integers(start, len(self.log)))
        assert list(self.ledger.reader.entries(start, end)) == [entry.entry for entry in self.log[start:end]]

    @rule()
    def audit(self) -> None:
        report = self.ledger.audit()
        assert report.findings == []
        assert (report.head is None) == (self.published_size() == 0)

    # --- what always holds -------------------------------------------------------------------------------------------

    def published_size(self) -> int:
        checkpoint = self.ledger.store.checkpoint(LOG_ID)
        return 0 if checkpoint is None else parse_unverified_checkpoint(checkpoint).claim.size

    @invariant()
    def the_log_is_as_long_as_the_list(self) -> None:
        assert self.ledger.store.sequenced_size(LOG_ID) == len(self.log)
        assert self.published_size() <= len(self.log)

    @invariant()
    def every_checkpoint_extends_every_earlier_one(self) -> None:
        published = self.ledger.published_checkpoints()
        assert published[: len(self.checkpoints)] == self.checkpoints, "a checkpoint went or changed"
        new = published[max(0, len(self.checkpoints) - 1) :]
        heads = [self.ledger.policy.verify(checkpoint).head for checkpoint in new]
        for old, later in pairwise(heads):
            assert old.size < later.size
            verify_consistency(old, later, self.ledger.prover.consistency(old.size, later.size))
        self.checkpoints = published

    @invariant()
    def nothing_is_shown_that_was_not_published(self) -> None:
        shown = [*self.ledger.exposed_checkpoints(), *self.ledger.anchored_checkpoints()]
        assert set(shown) <= set(self.checkpoints)


TestLog = LogMachine.TestCase
TestLog.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
