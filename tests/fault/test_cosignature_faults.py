"""The write of cosignatures, between the swap and exposing: lost, kept but reported lost, or a death before or after.

A witnessed log, fail-open and fail-closed. What stands at that moment is published and not exposed; after the next
start all is cosigned, exposed and provable, the witness has seen one history, and the audit is clean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import StorageError
from ledger.notes import NoteSignature, VerifierKey
from ledger.ports import PendingEntry
from ledger.proofs import verify_consistency
from ledger.publisher import Publisher
from ledger.stores.cosignatures import SQLCosignatures
from ledger.trust import TrustPolicy
from ledger.witnesses.client import HTTPWitness
from ledger.witnessing import Witnessing, WitnessMode
from tests.support.faults import Effect
from tests.support.ledger import LOG_ID, EmbeddedLedger, Enforcer, pending
from tests.support.processes import KILLED, die, in_child
from tests.support.witness import reference_witness, serving, witness_policy

EVERY = list(product(WitnessMode, Effect))


class Struck(SQLCosignatures):
    """Keeps cosignatures as it is told to, or not."""

    effect: Effect | None = None

    def keep(self, log_id: str, size: int, cosigned: Mapping[VerifierKey, NoteSignature], *, now_ms: int) -> None:
        if self.effect is Effect.DIES_BEFORE:
            die()
        if self.effect is Effect.LOST:
            raise StorageError("injected")
        super().keep(log_id, size, cosigned, now_ms=now_ms)
        if self.effect is Effect.DIES_AFTER:
            die()
        if self.effect is Effect.KEPT:
            raise StorageError("injected")


class WitnessedScene:
    """A log on disk whose witness answers on a port of this machine, so that it outlives a process that dies."""

    def __init__(self, root: Path, mode: WitnessMode, url: str, policy: TrustPolicy) -> None:
        self.root, self.mode, self.url, self.policy = root, mode, url, policy
        self.writer = Enforcer()
        self.seen: list[bytes] = []

    def open(self) -> EmbeddedLedger:
        return EmbeddedLedger(self.root, service=self.writer, load=False)

    def publisher(self, ledger: EmbeddedLedger, effect: Effect | None = None) -> Publisher:
        store = Struck(ledger.engine)
        store.effect = effect
        witnessing = Witnessing(
            LOG_ID,
            policy=self.policy,
            witnesses=[HTTPWitness(self.policy.witnesses["w1"], timeout_seconds=20.0)],
            mode=self.mode,
            store=store,
            prover=ledger.prover,
            clock=ledger.clock,
        )
        return ledger.make_publisher(witnessing=witnessing)

    def batch(self, count: int) -> list[PendingEntry]:
        return [pending(self.writer.record(self.writer.heartbeat())) for _ in range(count)]

    def publish(self, batch: Sequence[PendingEntry], effect: Effect | None = None) -> None:
        """Load the log as a new process does, append, publish and anchor; the write of cosignatures ends so."""
        with self.open() as ledger:
            publisher = self.publisher(ledger, effect)
            publisher.load()
            if batch:
                ledger.append(*batch)
            ledger.clock.advance(1000 * self.writer.seq)
            publisher.publish()
            publisher.anchor_newest()

    def sizes(self) -> tuple[int, int]:
        """Return how many leaves are published and exposed, and remember what can be seen."""
        with self.open() as ledger:
            published, exposed = ledger.published_checkpoints(), ledger.exposed_checkpoints()
            self.seen += [*published, *exposed, *ledger.anchored_checkpoints()]
        return size_of(published[-1]), size_of(exposed[-1])

    def auditor(self, ledger: EmbeddedLedger) -> TrustPolicy:
        """Return what somebody demands who demands the witness."""
        policy = self.policy
        return TrustPolicy(
            logs=ledger.policy.logs, witnesses=policy.witnesses, groups=policy.groups, quorum=policy.quorum
        )


def size_of(checkpoint: bytes) -> int:
    return parse_unverified_checkpoint(checkpoint).claim.size


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("mode", "effect"), EVERY, ids=str)
def test_a_write_of_cosignatures_ends_so_and_the_next_start_makes_it_good(tmp_path, mode, effect, times):
    witness = reference_witness("w1")
    with serving(witness) as url:
        scene = WitnessedScene(tmp_path, mode, url, witness_policy({"w1": witness}, threshold=1, urls={"w1": url}))
        with scene.open() as ledger:
            ledger.introduce()
        scene.publish(scene.batch(249))
        for _ in range(times):
            before = scene.sizes()
            strike(scene, effect)
            published, exposed = scene.sizes()
            # A start exposes what the one before left; what it appends then is published, and not exposed.
            assert published >= before[0]
            assert exposed <= published
            assert not (effect in (Effect.LOST, Effect.DIES_BEFORE) and exposed > before[1])
        scene.publish([])
        published, exposed = scene.sizes()
        assert published == exposed == witness.size
        judge(scene)


def strike(scene: WitnessedScene, effect: Effect) -> None:
    batch = scene.batch(10)
    if effect in (Effect.DIES_BEFORE, Effect.DIES_AFTER):
        assert in_child(lambda: scene.publish(batch, effect)) == KILLED
    else:
        with pytest.raises(StorageError, match="injected"):
            scene.publish(batch, effect)


def judge(scene: WitnessedScene) -> None:
    with scene.open() as ledger:
        (newest,) = ledger.exposed_checkpoints()
        verified = scene.auditor(ledger).verify(newest)
        assert verified.witnesses == ("w1",)
        assert verified.head.size == ledger.store.sequenced_size(LOG_ID)
        for seen in scene.seen:
            head = ledger.policy.verify(seen).head
            verify_consistency(head, verified.head, ledger.prover.consistency(head.size, verified.head.size))
        for index in range(verified.head.size):
            ledger.prover.proof_file(index, newest)
        report = ledger.audit()
        assert (report.findings, report.not_checked) == ([], [])
