"""The publisher with a witness policy: what is shown, when, after which crash, and what is done without a quorum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import StorageError, TrustPolicyError
from ledger.publisher import Publisher
from ledger.publishing_turns import PublishingTurns, SoleLease, Turn
from ledger.stores.cosignatures import SQLCosignatures
from ledger.trust import TrustPolicy
from ledger.witnesses.client import HTTPWitness
from ledger.witnessing import Witnessing, WitnessMode
from tests.support.faults import Effect, Write
from tests.support.ledger import LOG_ID, EmbeddedLedger, pending
from tests.support.witness import ReferenceWitness, reference_witness, witness_policy

NAMES = ("w1", "w2")


class Setting:
    """A ledger whose publisher has witnesses."""

    def __init__(self, root: Path, mode: str) -> None:
        self.ledger = EmbeddedLedger(root)
        self.ledger.introduce()
        self.mode = WitnessMode(mode)
        self.witnesses: dict[str, ReferenceWitness] = {name: reference_witness(name) for name in NAMES}
        self.publisher = self.make_publisher()
        self.publisher.load()

    def make_publisher(self) -> Publisher:
        """Return a publisher as another process, or this one after a restart, would have it."""
        policy = witness_policy(self.witnesses, threshold=2)
        witnessing = Witnessing(
            LOG_ID,
            policy=policy,
            witnesses=[
                HTTPWitness(policy.witnesses[name], timeout_seconds=5.0, transport=one.transport())
                for name, one in self.witnesses.items()
            ],
            mode=self.mode,
            store=SQLCosignatures(self.ledger.engine),
            prover=self.ledger.prover,
            clock=self.ledger.clock,
        )
        return self.ledger.make_publisher(witnessing=witnessing)

    @property
    def auditor(self) -> TrustPolicy:
        """What an auditor demands who demands the quorum."""
        policy = witness_policy(self.witnesses, threshold=2)
        return TrustPolicy(
            logs=self.ledger.policy.logs, witnesses=policy.witnesses, groups=policy.groups, quorum=policy.quorum
        )

    def append(self) -> None:
        self.ledger.append(pending(self.ledger.service.record(self.ledger.service.heartbeat())))

    def publish(self) -> None:
        self.append()
        self.ledger.clock.advance(1000)
        self.publisher.publish()

    def silence(self, *names: str) -> None:
        for name, one in self.witnesses.items():
            one.instead = (lambda _: (503, "", b"")) if name in names else None

    @property
    def exposed(self) -> bytes | None:
        found = self.ledger.exposed_checkpoints()
        return found[0] if found else None

    def exposed_size(self) -> int:
        return 0 if self.exposed is None else parse_unverified_checkpoint(self.exposed).claim.size

    def swapped_size(self) -> int:
        checkpoint = self.ledger.store.checkpoint(LOG_ID)
        return 0 if checkpoint is None else parse_unverified_checkpoint(checkpoint).claim.size


@pytest.fixture
def fail_open(tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(tmp_path, "open")
    yield setting
    setting.ledger.close()


@pytest.fixture
def fail_closed(tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(tmp_path, "closed")
    yield setting
    setting.ledger.close()


@pytest.fixture(params=["open", "closed"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setting]:
    setting = Setting(tmp_path, request.param)
    yield setting
    setting.ledger.close()


# --- with a quorum ---------------------------------------------------------------------------------------------------


def test_what_is_exposed_anchored_and_proved_from_is_the_cosigned_checkpoint(either):
    either.publish()
    either.publisher.anchor_newest()
    shown = either.publisher.published
    assert shown is not None
    assert either.auditor.verify(shown.checkpoint).witnesses == NAMES
    assert [either.exposed, *either.ledger.anchored_checkpoints()] == [shown.checkpoint] * 2
    proof = either.ledger.prover.proof_file(0, shown.checkpoint)
    assert either.auditor.verify(proof.checkpoint).head == shown.head


def test_the_store_that_decides_holds_the_log_s_own_signatures_alone(either):
    either.publish()
    swapped = either.ledger.store.checkpoint(LOG_ID)
    assert swapped is not None
    assert len(parse_unverified_checkpoint(swapped).note.signatures) == 2
    with pytest.raises(TrustPolicyError, match="quorum"):
        either.auditor.verify(swapped)


def test_checkpoint_after_checkpoint_is_cosigned(either):
    for _ in range(5):
        either.publish()
        assert either.exposed is not None
        either.auditor.verify(either.exposed)
    assert either.exposed_size() == 6


def test_nobody_is_asked_before_the_swap_is_won(either):
    asked_at: list[int] = []
    for one in either.witnesses.values():
        one.instead = lambda body, one=one: (asked_at.append(either.swapped_size()), one.honest(body))[1]
    either.ledger.faults.arm(Write.SWAP, Effect.LOST)
    with pytest.raises(StorageError):
        either.publish()
    assert asked_at == []
    either.publisher.load()
    either.publish()
    assert asked_at == [3, 3]


# --- without one -----------------------------------------------------------------------------------------------------


def test_fail_open_exposes_without_the_quorum_and_says_so(fail_open):
    fail_open.silence("w2")
    fail_open.publish()
    assert fail_open.exposed_size() == fail_open.swapped_size() == 2
    assert fail_open.publisher.witnessed is False
    status = fail_open.publisher.witness_status
    assert status is not None
    assert (status.by, list(status.failures)) == (("w1",), ["w2"])


def test_fail_open_adds_the_cosignatures_once_they_come(fail_open):
    fail_open.silence("w2")
    fail_open.publish()
    fail_open.silence()
    fail_open.ledger.clock.advance(1000)
    fail_open.publisher.witness_newest()
    assert fail_open.exposed is not None
    assert fail_open.auditor.verify(fail_open.exposed).witnesses == NAMES
    assert fail_open.publisher.published is not None
    assert fail_open.publisher.published.checkpoint == fail_open.exposed
    assert fail_open.publisher.witnessed


def test_fail_closed_shows_nothing_new_until_the_quorum_cosigned(fail_closed):
    fail_closed.publish()
    before = fail_closed.exposed
    fail_closed.silence("w2")
    for _ in range(3):
        fail_closed.publish()
        fail_closed.publisher.anchor_newest()
    assert fail_closed.exposed == before
    assert fail_closed.publisher.published is not None
    assert fail_closed.publisher.published.checkpoint == before
    assert fail_closed.ledger.anchored_checkpoints() == [before]
    # What arrives is taken, numbered and swapped all the same.
    assert fail_closed.swapped_size() == fail_closed.ledger.store.sequenced_size(LOG_ID) == 5


def test_fail_closed_goes_on_with_the_newest_once_the_quorum_is_back(fail_closed):
    fail_closed.silence("w1", "w2")
    for _ in range(3):
        fail_closed.publish()
    assert fail_closed.exposed is None
    fail_closed.silence()
    fail_closed.ledger.clock.advance(60_000)
    fail_closed.publisher.witness_newest()
    assert fail_closed.exposed_size() == 4
    assert fail_closed.exposed is not None
    fail_closed.auditor.verify(fail_closed.exposed)


def test_the_first_checkpoint_of_a_log_is_not_shown_without_the_quorum_either(fail_closed):
    fail_closed.silence("w1")
    fail_closed.publish()
    assert fail_closed.publisher.published is None
    fail_closed.publisher.anchor_newest()
    assert fail_closed.ledger.anchored_checkpoints() == []


# --- crashes and restarts --------------------------------------------------------------------------------------------


def test_a_restart_shows_the_very_bytes_that_were_shown(either):
    either.publish()
    before = either.exposed
    either.silence(*NAMES)
    again = either.make_publisher()
    again.load()
    assert either.exposed == before
    assert again.published is not None
    assert again.published.checkpoint == before
    assert again.witnessed


def test_a_restart_without_the_quorum_goes_on_showing_what_was_shown(fail_closed):
    fail_closed.publish()
    before = fail_closed.exposed
    fail_closed.silence("w2")
    fail_closed.publish()
    again = fail_closed.make_publisher()
    again.load()
    assert (fail_closed.exposed, again.published and again.published.checkpoint) == (before, before)
    assert again.published is not None
    assert again.published.timestamp_seconds > 0
    fail_closed.silence()
    fail_closed.ledger.clock.advance(60_000)
    again.witness_newest()
    assert fail_closed.exposed_size() == 3


def test_a_crash_between_the_swap_and_the_witnesses_is_made_good_at_the_next_start(either):
    def die(_: bytes):
        raise KeyboardInterrupt

    for one in either.witnesses.values():
        one.instead = die
    with pytest.raises(KeyboardInterrupt):
        either.publish()
    assert (either.exposed_size(), either.swapped_size()) == (0, 2)
    either.silence()
    either.make_publisher().load()
    assert either.exposed is not None
    either.auditor.verify(either.exposed)


@pytest.mark.parametrize("effect", [Effect.LOST, Effect.KEPT])
def test_a_failure_to_expose_is_made_good_with_the_same_cosignatures(either, effect):
    either.ledger.faults.arm(Write.EXPOSE, effect)
    with pytest.raises(StorageError):
        either.publish()
    either.silence(*NAMES)
    either.publisher.load()
    assert either.exposed is not None
    assert either.auditor.verify(either.exposed).witnesses == NAMES
    assert [len(one.requests) for one in either.witnesses.values()] == [1, 1]


# --- several processes -----------------------------------------------------------------------------------------------


def test_a_process_that_follows_shows_what_the_leader_shows(either):
    either.publish()
    follower = either.make_publisher()
    follower.load()
    either.publish()
    assert follower.follow()
    shown = follower.published
    assert shown is not None
    assert shown.checkpoint == either.exposed
    assert follower.witnessed
    assert shown.timestamp_seconds == either.publisher.published.timestamp_seconds


def test_a_process_that_follows_shows_nothing_that_the_leader_does_not(fail_closed):
    fail_closed.publish()
    before = fail_closed.exposed
    follower = fail_closed.make_publisher()
    follower.load()
    fail_closed.silence("w1")
    fail_closed.publish()
    assert follower.follow()
    assert follower.published is not None
    assert follower.published.checkpoint == before
    fail_closed.silence()
    fail_closed.ledger.clock.advance(60_000)
    fail_closed.publisher.witness_newest()
    assert follower.follow() is False
    assert follower.published.checkpoint == fail_closed.exposed


def test_a_process_that_follows_shows_the_cosignatures_that_come_later_too(fail_open):
    fail_open.publish()
    follower = fail_open.make_publisher()
    follower.load()
    fail_open.silence("w1")
    fail_open.publish()
    assert follower.follow()
    assert not follower.witnessed
    fail_open.silence()
    fail_open.ledger.clock.advance(60_000)
    fail_open.publisher.witness_newest()
    follower.follow()
    assert follower.published is not None
    assert follower.published.checkpoint == fail_open.exposed
    assert fail_open.auditor.verify(follower.published.checkpoint).witnesses == NAMES
    assert follower.witnessed


def test_a_turn_goes_on_asking_until_the_quorum_is_there(fail_closed):
    turns = PublishingTurns(fail_closed.publisher, SoleLease())
    fail_closed.silence("w1")
    fail_closed.append()
    fail_closed.ledger.clock.advance(1000)
    assert turns.turn(due=True) is Turn.IDLE
    assert turns.awaits
    fail_closed.silence()
    fail_closed.ledger.clock.advance(60_000)
    assert turns.turn(due=False) is Turn.CHANGED
    assert not turns.awaits
    assert fail_closed.exposed_size() == 2


def test_an_audit_of_a_witnessed_log_is_clean(either):
    either.publish()
    either.silence("w1")
    either.publish()
    either.silence()
    either.ledger.clock.advance(60_000)
    either.publish()
    either.publisher.anchor_newest()
    assert either.ledger.audit().clean
