"""Witnessing: who is asked when and from which size, what is kept, and when a quorum is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.checkpoints import parse_unverified_checkpoint
from ledger.errors import NotFoundError, StorageError
from ledger.notes import SignedNote, parse_vkey
from ledger.stores.cosignatures import SQLCosignatures
from ledger.trust import TrustPolicy
from ledger.witnesses.client import HTTPWitness
from ledger.witnessing import Witnessing, WitnessMode
from tests.conformance.requirements import requirement
from tests.support.ledger import LOG_ID, EmbeddedLedger, pending
from tests.support.witness import SIZE_TYPE, ReferenceWitness, reference_witness, witness_policy

NAMES = ("w1", "w2", "w3")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[EmbeddedLedger]:
    with EmbeddedLedger(tmp_path) as opened:
        opened.introduce()
        yield opened


@pytest.fixture
def witnesses() -> dict[str, ReferenceWitness]:
    return {name: reference_witness(name, mldsa=name == "w2") for name in NAMES}


def make(
    ledger: EmbeddedLedger, witnesses: dict[str, ReferenceWitness], *, threshold: int = 2, mode: str = "open", **parts
) -> Witnessing:
    policy = witness_policy(witnesses, threshold=threshold)
    options = {
        "policy": policy,
        "witnesses": [
            HTTPWitness(policy.witnesses[name], timeout_seconds=5.0, transport=one.transport())
            for name, one in witnesses.items()
        ],
        "mode": WitnessMode(mode),
        "store": SQLCosignatures(ledger.engine),
        "prover": ledger.prover,
        "clock": ledger.clock,
        **parts,
    }
    return Witnessing(LOG_ID, **options)


def grow(ledger: EmbeddedLedger, size: int) -> bytes:
    """Publish a tree of that size and return its checkpoint."""
    missing = size - ledger.store.sequenced_size(LOG_ID)
    ledger.append(*(pending(ledger.service.record(ledger.service.heartbeat())) for _ in range(missing)))
    return ledger.publish()


def broken(_: bytes):
    return 503, "", b""


def auditors_policy(ledger: EmbeddedLedger, witnessing_policy: TrustPolicy) -> TrustPolicy:
    return TrustPolicy(
        logs=ledger.policy.logs,
        witnesses=witnessing_policy.witnesses,
        groups=witnessing_policy.groups,
        quorum=witnessing_policy.quorum,
    )


# --- asking ----------------------------------------------------------------------------------------------------------


def test_every_witness_cosigns_and_an_auditor_with_the_quorum_accepts_it(ledger, witnesses):
    witnessing = make(ledger, witnesses, threshold=3)
    cosigned = witnessing.cosign(grow(ledger, 3))
    assert (cosigned.by, cosigned.quorum_met) == (NAMES, True)
    policy = auditors_policy(ledger, witness_policy(witnesses, threshold=3))
    assert policy.verify(cosigned.checkpoint).witnesses == NAMES


def test_only_the_log_s_own_signatures_are_sent(ledger, witnesses):
    checkpoint = grow(ledger, 3)
    make(ledger, witnesses).cosign(checkpoint)
    assert [one.requests for one in witnesses.values()] == [[b"old 0\n\n" + checkpoint]] * 3


def test_each_size_is_proved_from_the_one_that_was_cosigned_before(ledger, witnesses):
    witnessing = make(ledger, witnesses)
    sizes = (1, 2, 7, 256, 257, 600)
    for size in sizes:
        assert witnessing.cosign(grow(ledger, size)).by == NAMES
    for one in witnesses.values():
        assert [int(body.split(b"\n")[0].split()[1]) for body in one.requests] == [0, *sizes[:-1]]


def test_after_a_restart_the_proof_begins_where_the_kept_cosignatures_end(ledger, witnesses):
    make(ledger, witnesses).cosign(grow(ledger, 5))
    make(ledger, witnesses).cosign(grow(ledger, 9))
    assert [one.requests[-1].split(b"\n")[0] for one in witnesses.values()] == [b"old 5"] * 3
    assert all(len(one.requests) == 2 for one in witnesses.values())


@requirement("witness-05")
def test_a_witness_that_is_at_another_size_is_asked_once_more_from_there(ledger, witnesses):
    make(ledger, witnesses).cosign(grow(ledger, 5))
    behind = witnesses["w1"]
    witnessing = make(ledger, witnesses)
    witnessing.cosign(grow(ledger, 9))
    # Another process of ours had 12 leaves cosigned; this one does not know.
    make(ledger, witnesses, store=Forgetful()).cosign(grow(ledger, 12))
    behind.requests.clear()
    assert witnessing.cosign(grow(ledger, 20)).by == NAMES
    assert [body.split(b"\n")[0] for body in behind.requests] == [b"old 9", b"old 12"]


class Forgetful:
    """A store that keeps nothing."""

    def keep(self, *_: object, **__: object) -> None:
        """Forget."""

    def kept(self, *_: object) -> dict:
        return {}

    def last_size(self, *_: object) -> int:
        return 0


def test_the_same_size_is_cosigned_again_where_the_cosignature_was_lost(ledger, witnesses):
    checkpoint = grow(ledger, 5)
    make(ledger, witnesses, store=Forgetful()).cosign(checkpoint)
    assert make(ledger, witnesses).cosign(checkpoint).by == NAMES
    assert [body.split(b"\n")[0] for body in witnesses["w1"].requests] == [b"old 0", b"old 0", b"old 5"]


def test_a_witness_that_tells_another_size_each_time_is_asked_twice_and_no_more(ledger, witnesses):
    told = iter(range(1, 9))
    witnesses["w1"].instead = lambda _: (409, SIZE_TYPE, f"{next(told)}\n".encode())
    witnessing = make(ledger, witnesses)
    assert witnessing.cosign(grow(ledger, 9)).by == ("w2", "w3")
    assert len(witnesses["w1"].requests) == 2
    assert "cosigned 2 leaves, not 1" in witnessing.status.failures["w1"]


def test_a_witness_that_has_seen_more_leaves_than_there_are_is_told_loudly(ledger, witnesses):
    witnesses["w1"].instead = lambda _: (409, SIZE_TYPE, b"77\n")
    witnessing = make(ledger, witnesses)
    witnessing.cosign(grow(ledger, 9))
    assert witnessing.status.failures == {"w1": "the witness w1 has cosigned 77 leaves of this log, which has 9 here"}
    assert len(witnesses["w1"].requests) == 1


def test_a_witness_that_erred_about_its_size_once_is_asked_again_and_cosigns(ledger, witnesses):
    witnesses["w1"].instead = lambda _: (409, SIZE_TYPE, b"77\n")
    witnessing = make(ledger, witnesses)
    checkpoint = grow(ledger, 9)
    assert witnessing.cosign(checkpoint).by == ("w2", "w3")
    witnesses["w1"].instead = None
    ledger.clock.advance(60_000)
    assert witnessing.cosign(checkpoint).by == NAMES


def test_a_witness_that_saw_another_tree_does_not_cosign_this_one(ledger, witnesses):
    witnesses["w1"].size, witnesses["w1"].root = 4, b"r" * 32
    witnessing = make(ledger, witnesses)
    cosigned = witnessing.cosign(grow(ledger, 9))
    assert cosigned.by == ("w2", "w3")
    assert "another tree" in witnessing.status.failures["w1"]


def test_a_forged_cosignature_does_not_count_and_is_not_kept(ledger, witnesses):
    witnesses["w1"].instead = lambda body: (200, "", reference_witness("w1", seed=90).honest(body)[2])
    witnessing = make(ledger, witnesses, threshold=3)
    checkpoint = grow(ledger, 3)
    assert witnessing.cosign(checkpoint).quorum_met is False
    keys = {name: parse_vkey(one.vkey) for name, one in witnesses.items()}
    assert set(SQLCosignatures(ledger.engine).kept(LOG_ID, 3, list(keys.values()))) == {keys["w2"], keys["w3"]}


def test_tiles_that_are_missing_are_that_witness_s_failure_and_nobody_else_s(ledger, witnesses):
    class NoTiles:
        def consistency(self, old: int, _new: int):
            if old:
                raise NotFoundError("there is no tile/0/000.p/4 of acme")
            return ()

    witnessing = make(ledger, witnesses, prover=NoTiles())
    witnesses["w1"].size, witnesses["w1"].root = 4, b"r" * 32
    assert witnessing.cosign(grow(ledger, 9)).by == ("w2", "w3")
    assert "tile" in witnessing.status.failures["w1"]


# --- failing witnesses -----------------------------------------------------------------------------------------------


def test_a_failing_witness_takes_nothing_from_the_quorum_of_the_others(ledger, witnesses):
    witnesses["w3"].instead = broken
    witnessing = make(ledger, witnesses, threshold=2)
    cosigned = witnessing.cosign(grow(ledger, 3))
    assert (cosigned.by, cosigned.quorum_met) == (("w1", "w2"), True)
    assert witnessing.status.failures == {"w3": "the witness w3 refuses: it answers with status 503"}


def test_without_the_quorum_the_status_says_so_and_which_size_was_witnessed_last(ledger, witnesses):
    witnessing = make(ledger, witnesses, threshold=3)
    witnessing.cosign(grow(ledger, 3))
    assert witnessing.status.quorum_met
    witnesses["w3"].instead = broken
    assert witnessing.cosign(grow(ledger, 5)).quorum_met is False
    status = witnessing.status
    assert (status.size, status.witnessed_size, status.by, status.quorum_met) == (5, 3, ("w1", "w2"), False)


def test_a_witness_that_failed_is_left_alone_for_a_while_that_doubles(ledger, witnesses):
    witnesses["w3"].instead = broken
    witnessing = make(ledger, witnesses)
    checkpoint = grow(ledger, 3)
    asked_at = []
    start = ledger.clock.now_ms()
    for _ in range(200):
        before = len(witnesses["w3"].requests)
        witnessing.cosign(checkpoint)
        if len(witnesses["w3"].requests) > before:
            asked_at.append((ledger.clock.now_ms() - start) // 1000)
        ledger.clock.advance(1000)
    assert asked_at == [0, 1, 3, 7, 15, 31, 63, 123, 183]


def test_a_witness_that_came_back_is_asked_again_and_its_pause_is_forgotten(ledger, witnesses):
    witnesses["w3"].instead = broken
    witnessing = make(ledger, witnesses, threshold=3)
    checkpoint = grow(ledger, 3)
    for _ in range(3):
        witnessing.cosign(checkpoint)
        ledger.clock.advance(60_000)
    witnesses["w3"].instead = None
    assert witnessing.cosign(checkpoint).quorum_met
    witnesses["w3"].instead = broken
    witnessing.cosign(grow(ledger, 4))
    ledger.clock.advance(1_000)
    witnesses["w3"].instead = None
    assert witnessing.cosign(grow(ledger, 5)).quorum_met


def test_who_has_cosigned_is_not_asked_again(ledger, witnesses):
    witnesses["w3"].instead = broken
    witnessing = make(ledger, witnesses)
    checkpoint = grow(ledger, 3)
    for _ in range(3):
        witnessing.cosign(checkpoint)
        ledger.clock.advance(60_000)
    assert [len(one.requests) for one in witnesses.values()] == [1, 1, 3]


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_a_restart_shows_the_same_bytes_and_asks_nobody(ledger, witnesses):
    checkpoint = grow(ledger, 3)
    before = make(ledger, witnesses).cosign(checkpoint)
    for one in witnesses.values():
        one.instead = broken
    again = make(ledger, witnesses)
    assert again.cosign(checkpoint) == before
    assert all(len(one.requests) == 1 for one in witnesses.values())


def test_cosignatures_that_arrive_later_join_those_that_are_kept(ledger, witnesses):
    witnesses["w1"].instead = broken
    checkpoint = grow(ledger, 3)
    assert make(ledger, witnesses).cosign(checkpoint).by == ("w2", "w3")
    witnesses["w1"].instead = None
    assert make(ledger, witnesses).cosign(checkpoint).by == NAMES
    assert [len(witnesses[name].requests) for name in NAMES] == [2, 1, 1]


def test_what_cannot_be_kept_is_not_shown(ledger, witnesses):
    class Failing(Forgetful):
        def keep(self, *_: object, **__: object) -> None:
            raise StorageError("injected")

    with pytest.raises(StorageError):
        make(ledger, witnesses, store=Failing()).cosign(grow(ledger, 3))


def test_a_kept_cosignature_that_does_not_verify_counts_for_nothing(ledger, witnesses):
    checkpoint = grow(ledger, 3)
    store = SQLCosignatures(ledger.engine)
    key = parse_vkey(witnesses["w1"].vkey)
    foreign = parse_unverified_checkpoint(checkpoint).note.signatures[0]
    store.keep(LOG_ID, 3, {key: foreign}, now_ms=0)
    assert make(ledger, witnesses).cosign(checkpoint).by == NAMES
    assert [bool(one.requests) for one in witnesses.values()] == [True] * 3


def test_nobody_has_to_cosign_where_the_policy_asks_for_none(ledger, witnesses):
    policy = TrustPolicy(witnesses=witness_policy(witnesses, threshold=1).witnesses)
    for one in witnesses.values():
        one.instead = broken
    assert make(ledger, witnesses, policy=policy).cosign(grow(ledger, 3)).quorum_met


# --- observing -------------------------------------------------------------------------------------------------------


def test_a_process_that_follows_reads_off_the_exposed_checkpoint_how_witnessing_stands(ledger, witnesses):
    witnesses["w1"].instead = broken
    cosigned = make(ledger, witnesses).cosign(grow(ledger, 3)).checkpoint
    follower = make(ledger, witnesses)
    follower.observe(cosigned)
    assert (follower.status.size, follower.status.by, follower.status.quorum_met) == (3, ("w2", "w3"), True)
    follower.observe(grow(ledger, 4))
    assert (follower.status.size, follower.status.witnessed_size, follower.status.by) == (4, 3, ())


def test_a_cosignature_that_does_not_hold_is_not_observed(ledger, witnesses):
    cosigned = make(ledger, witnesses).cosign(grow(ledger, 3)).checkpoint
    other = parse_unverified_checkpoint(grow(ledger, 4))
    lines = parse_unverified_checkpoint(cosigned).note.signatures
    follower = make(ledger, witnesses)
    follower.observe(SignedNote(other.note.text, lines).encode())
    assert follower.status.by == ()
