"""The publisher: the order of its steps, and what it refuses to sign, swap, expose or anchor."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger.checkpoints import Checkpoint, parse_unverified_checkpoint
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import (
    AnchorError,
    ConflictError,
    DependencyError,
    MalformedError,
    NotFoundError,
    RollbackError,
    RootMismatchError,
    SignatureInvalidError,
    StateError,
    StorageError,
    SwapLostError,
    TrustPolicyError,
)
from ledger.notes import NoteSignature, SignatureType, SignedNote, VerifierKey
from ledger.ports import Anchor
from ledger.proofs import TreeHead, verify_consistency
from ledger.signers.local import LocalSigner
from ledger.tiles import CHECKPOINT_PATH
from tests.support.faults import Effect, Write
from tests.support.ledger import LOG_ID, NOW_MS, ORIGIN, EmbeddedLedger, make_key, pending


class MovableClock:
    """A clock that also runs backwards."""

    simulated = True

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def now_ms(self) -> int:
        return self.seconds * 1000


class CountingSigner(LocalSigner):
    """A local signer that counts what it signs."""

    signed = 0

    def sign(self, checkpoint: Checkpoint, timestamp_seconds: int) -> NoteSignature:
        self.signed += 1
        return super().sign(checkpoint, timestamp_seconds)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[EmbeddedLedger]:
    with EmbeddedLedger(tmp_path) as opened:
        opened.introduce()
        yield opened


def beat(ledger: EmbeddedLedger, count: int = 1) -> None:
    ledger.append(*(pending(ledger.service.record(ledger.service.heartbeat())) for _ in range(count)))


def head(checkpoint: bytes) -> TreeHead:
    return parse_unverified_checkpoint(checkpoint).claim.head


def shown(ledger: EmbeddedLedger) -> list[bytes]:
    return [*ledger.exposed_checkpoints(), *ledger.anchored_checkpoints()]


# --- one publication -------------------------------------------------------------------------------------------------


def test_a_publication_takes_its_steps_in_their_order(ledger):
    ledger.faults.writes.clear()
    ledger.publish()
    assert ledger.faults.writes == [
        Write.PUT_BUNDLE,
        Write.PUT_TILE,
        Write.SWAP,
        Write.EXPOSE,
        Write.RELEASE,
        Write.ANCHOR,
    ]


def test_what_is_published_is_signed_by_every_key_and_says_the_true_head(ledger):
    beat(ledger, 4)
    ledger.clock.advance(7_000)
    published = ledger.publisher.publish()
    assert published is not None
    verified = ledger.policy.verify(published.checkpoint)
    assert [key.signature_type for key in verified.signers] == [
        SignatureType.ED25519,
        SignatureType.MLDSA44_COSIGNATURE,
    ]
    assert verified.checkpoint.origin == ORIGIN
    assert verified.head == published.head
    assert published.head.size == 5
    assert published.timestamp_seconds == NOW_MS // 1000 + 7
    assert set(verified.timestamps.values()) == {published.timestamp_seconds}


def test_the_checkpoint_is_the_same_in_the_store_the_tiles_and_the_anchor(ledger):
    checkpoint = ledger.publish()
    assert ledger.store.checkpoint(LOG_ID) == checkpoint
    assert shown(ledger) == [checkpoint, checkpoint]


def test_nothing_new_is_signed_where_nothing_new_was_sequenced(tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        signer = CountingSigner(make_key("log", ED25519, seed=1))
        publisher = ledger.make_publisher(signers=[signer])
        publisher.load()
        assert publisher.publish() is None
        ledger.introduce()
        assert publisher.publish() is not None
        assert publisher.publish() is None
        assert signer.signed == 1


def test_successive_checkpoints_are_consistent(ledger):
    checkpoints = [ledger.publish()]
    for count in (1, 3, 250, 1, 300):
        beat(ledger, count)
        checkpoints.append(ledger.publish())
    heads = [head(checkpoint) for checkpoint in checkpoints]
    assert [one.size for one in heads] == [1, 2, 5, 255, 256, 556]
    for old, new in itertools.pairwise(heads):
        verify_consistency(old, new, ledger.prover.consistency(old.size, new.size))


def test_only_entries_in_full_bundles_are_released(ledger):
    beat(ledger, 299)
    ledger.publish()
    assert len(ledger.store.read_sequenced(LOG_ID, 256, 300)) == 44
    with pytest.raises(NotFoundError):
        ledger.store.read_sequenced(LOG_ID, 255, 256)


# --- the swap --------------------------------------------------------------------------------------------------------


def test_who_lost_the_swap_exposes_anchors_and_releases_nothing(ledger):
    ledger.publish()
    loser = ledger.make_publisher()
    loser.load()
    beat(ledger, 299)
    winner_checkpoint = ledger.publish()
    ledger.faults.writes.clear()
    with pytest.raises(SwapLostError):
        loser.publish()
    loser.anchor_newest()
    written = ledger.faults.writes
    assert Write.EXPOSE not in written
    assert Write.RELEASE not in written
    assert ledger.exposed_checkpoints() == [winner_checkpoint]
    assert [head(checkpoint).size for checkpoint in ledger.anchored_checkpoints()] == [1, 300]
    assert loser.published is not None
    assert loser.published.head.size == 1


def test_who_lost_the_swap_stays_stopped_until_he_loads_again(ledger):
    loser = ledger.make_publisher()
    loser.load()
    ledger.publish()
    for _ in range(2):
        with pytest.raises(ConflictError):
            loser.publish()
        beat(ledger)
    loser.load()
    assert loser.publish() is not None
    assert ledger.audit().clean


def test_a_publisher_that_was_never_loaded_publishes_nothing_over_a_log_that_others_published(ledger):
    ledger.publish()
    beat(ledger)
    stranger = ledger.make_publisher()
    before = shown(ledger)
    with pytest.raises(StateError, match="not asked"):
        stranger.publish()
    assert shown(ledger) == before


@pytest.mark.parametrize("write", [Write.PUT_BUNDLE, Write.PUT_TILE, Write.SWAP])
@pytest.mark.parametrize("effect", [Effect.LOST, Effect.KEPT])
def test_what_failed_up_to_the_swap_is_neither_exposed_nor_anchored(ledger, write, effect):
    ledger.publish()
    before = shown(ledger)
    beat(ledger)
    ledger.faults.arm(write, effect)
    with pytest.raises(StorageError):
        ledger.publisher.publish()
    ledger.publisher.anchor_newest()
    assert shown(ledger) == before


# --- the clock -------------------------------------------------------------------------------------------------------


@pytest.fixture
def signer() -> CountingSigner:
    return CountingSigner(make_key("log", MLDSA44, seed=2))


def test_a_clock_behind_the_last_checkpoint_signs_nothing(ledger, signer):
    clock = MovableClock(1_000)
    publisher = ledger.make_publisher(clock=clock, signers=[signer])
    publisher.load()
    publisher.publish()
    beat(ledger)
    clock.seconds = 999
    ledger.faults.writes.clear()
    with pytest.raises(StateError, match="1 s behind"):
        publisher.publish()
    assert signer.signed == 1
    assert ledger.faults.writes == []
    clock.seconds = 1_000
    assert publisher.publish() is not None


def test_a_clock_behind_is_noticed_after_a_restart_too(ledger, signer):
    clock = MovableClock(1_000)
    first = ledger.make_publisher(clock=clock, signers=[signer])
    first.load()
    first.publish()
    beat(ledger)
    clock.seconds = 999
    second = ledger.make_publisher(clock=clock, signers=[signer])
    second.load()
    with pytest.raises(StateError):
        second.publish()
    assert signer.signed == 1


def test_a_clock_behind_a_checkpoint_that_was_signed_but_not_published_signs_nothing(ledger, signer):
    clock = MovableClock(1_000)
    publisher = ledger.make_publisher(clock=clock, signers=[signer])
    publisher.load()
    ledger.faults.arm(Write.SWAP, Effect.LOST)
    with pytest.raises(StorageError):
        publisher.publish()
    clock.seconds = 999
    publisher.load()
    with pytest.raises(StateError):
        publisher.publish()
    assert signer.signed == 1
    clock.seconds = 1_001
    assert publisher.publish() is not None


# --- signing ---------------------------------------------------------------------------------------------------------


class WrongSigner(LocalSigner):
    """Claims one key and signs with another."""

    @property
    def verifier_key(self) -> VerifierKey:
        return make_key("log", ED25519, seed=9).verifier_key

    def sign(self, checkpoint: Checkpoint, timestamp_seconds: int) -> NoteSignature:
        line = super().sign(checkpoint, timestamp_seconds)
        return NoteSignature(self.verifier_key.name, self.verifier_key.key_id, line.signature)


class SilentSigner(LocalSigner):
    """Its key is out of reach."""

    def sign(self, *_: object) -> NoteSignature:
        raise DependencyError("the key management service does not answer")


class TornSigner(LocalSigner):
    """Signs another tree than it was given."""

    def sign(self, checkpoint: Checkpoint, timestamp_seconds: int) -> NoteSignature:
        other = Checkpoint(origin=checkpoint.origin, size=checkpoint.size + 1, root=checkpoint.root)
        return super().sign(other, timestamp_seconds)


@pytest.mark.parametrize(
    ("broken", "algorithm", "error"),
    [
        (WrongSigner, ED25519, SignatureInvalidError),
        (TornSigner, ED25519, SignatureInvalidError),
        (TornSigner, MLDSA44, SignatureInvalidError),
        (SilentSigner, MLDSA44, DependencyError),
    ],
)
def test_a_checkpoint_without_every_valid_signature_is_not_swapped(ledger, broken, algorithm, error):
    good = LocalSigner(make_key("log", MLDSA44 if algorithm == ED25519 else ED25519, seed=1))
    publisher = ledger.make_publisher(signers=[good, broken(make_key("log", algorithm, seed=3))])
    publisher.load()
    with pytest.raises(error):
        publisher.publish()
    assert ledger.store.checkpoint(LOG_ID) is None
    assert shown(ledger) == []


# --- loading ---------------------------------------------------------------------------------------------------------


def test_loading_an_empty_log_publishes_nothing(tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        assert ledger.publisher.published is None
        assert ledger.publisher.anchor_status.receipt is None
        ledger.publisher.anchor_newest()
        assert shown(ledger) == []


def test_loading_exposes_and_anchors_what_a_crash_left_unseen(ledger):
    ledger.faults.arm(Write.EXPOSE, Effect.LOST)
    with pytest.raises(StorageError):
        ledger.publisher.publish()
    assert shown(ledger) == []
    again = ledger.make_publisher()
    again.load()
    assert shown(ledger) == [ledger.store.checkpoint(LOG_ID)] * 2
    assert again.published is not None
    assert again.published.head.size == 1


def test_a_checkpoint_that_our_keys_did_not_sign_is_not_taken_up(ledger):
    ledger.publish()
    strangers = [LocalSigner(make_key("log", ED25519, seed=8)), LocalSigner(make_key("log", MLDSA44, seed=9))]
    publisher = ledger.make_publisher(signers=strangers)
    with pytest.raises(TrustPolicyError):
        publisher.load()
    assert publisher.published is None


def test_a_checkpoint_signed_by_one_of_two_keys_is_not_taken_up(tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        alone = ledger.make_publisher(signers=ledger.signers[:1])
        alone.load()
        alone.publish()
        with pytest.raises(TrustPolicyError):
            ledger.make_publisher().load()


def flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("path", ["tile/0/001.p/44", "tile/1/000.p/1"])
@pytest.mark.parametrize(
    ("damage", "error"),
    [(flip_last, RootMismatchError), (lambda data: data[:-1], MalformedError), (None, NotFoundError)],
)
def test_a_log_whose_edge_is_missing_or_damaged_is_not_taken_up(ledger, path, damage, error):
    beat(ledger, 299)
    ledger.publish()
    file = ledger.root / "logs" / LOG_ID / path
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage(file.read_bytes()))
    publisher = ledger.make_publisher()
    with pytest.raises(error):
        publisher.load()
    assert publisher.published is None


def test_a_damaged_partial_bundle_does_not_spread_into_the_next_one(ledger):
    beat(ledger, 9)
    ledger.publish()
    file = ledger.root / "logs" / LOG_ID / "tile" / "entries" / "000.p" / "10"
    file.write_bytes(flip_last(file.read_bytes()))
    with ledger.reopen() as again:
        beat(again, 290)
        again.publish()
        assert again.audit().clean


# --- a store that was put back ---------------------------------------------------------------------------------------


@pytest.fixture
def put_back(ledger: EmbeddedLedger) -> Iterator[EmbeddedLedger]:
    """Return a ledger that published 1 and then 6 leaves, and whose database was put back to when it had 1."""
    ledger.publish()
    ledger.close()
    saved = (ledger.root / "ledger.db").read_bytes()
    later = ledger.reopen()
    beat(later, 5)
    later.publish()
    later.close()
    (ledger.root / "ledger.db").write_bytes(saved)
    assert not (ledger.root / "ledger.db-wal").exists()
    with later.reopen(load=False) as restored:
        yield restored


@pytest.mark.parametrize("gone", ["logs/acme/checkpoint", "anchor/acme/checkpoint/6"])
def test_a_store_that_was_put_back_before_what_was_shown_publishes_nothing(put_back, gone):
    # One witness is enough: the exposed checkpoint, or the anchored one.
    (put_back.root / gone).unlink()
    with pytest.raises(RollbackError, match="shown with 6 leaves, its store has published 1"):
        put_back.publisher.load()
    beat(put_back, 2)
    with pytest.raises(RollbackError):
        put_back.publisher.load()
    assert head(put_back.published_checkpoints()[-1]).size == 1


def test_an_empty_store_beside_a_log_that_was_shown_publishes_nothing(ledger):
    ledger.publish()
    ledger.close()
    (ledger.root / "ledger.db").unlink()
    with ledger.reopen(load=False) as restored, pytest.raises(RollbackError):
        restored.publisher.load()


def test_a_larger_file_in_the_anchor_that_we_never_signed_stops_nothing(ledger):
    ledger.publish()
    ledger.anchor.put(LOG_ID, 9_999, unsigned_checkpoint(9_999))
    publisher = ledger.make_publisher()
    publisher.load()
    beat(ledger)
    assert publisher.publish() is not None


@pytest.mark.parametrize("junk", [b"", b"not a checkpoint", None])
def test_a_larger_file_in_the_anchor_hides_no_checkpoint_of_ours_below_it(put_back, junk):
    (put_back.root / "logs/acme/checkpoint").unlink()
    larger = put_back.root / "anchor/acme/checkpoint/9999"
    larger.write_bytes(unsigned_checkpoint(9_999) if junk is None else junk)
    with pytest.raises(RollbackError, match="shown with 6 leaves"):
        put_back.publisher.load()


class Silent:
    """An anchor that answers some questions only once it is told to."""

    def __init__(self, inner: Anchor, silent_calls: set[str]) -> None:
        self._inner = inner
        self.silent_calls = silent_calls

    def __getattr__(self, name: str) -> Any:
        def call(*args: object, **options: object) -> object:
            if name in self.silent_calls:
                raise AnchorError("the bucket does not answer")
            return getattr(self._inner, name)(*args, **options)

        return call


@pytest.mark.parametrize("call", ["sizes", "get"])
def test_a_store_that_was_put_back_while_the_anchor_is_silent_signs_nothing(put_back, call):
    (put_back.root / "logs/acme/checkpoint").unlink()  # put back too
    anchor = Silent(put_back.anchor, {call})
    publisher = put_back.make_publisher(anchor=anchor)
    publisher.load()
    beat(put_back, 2)
    with pytest.raises(StateError, match="does not answer"):
        publisher.publish()
    anchor.silent_calls.clear()
    with pytest.raises(StateError, match="does not answer"):
        publisher.publish()  # not asked anew: that is what loading does
    with pytest.raises(RollbackError):
        publisher.load()
    assert head(put_back.published_checkpoints()[-1]).size == 1


def test_an_honest_log_goes_on_once_a_silent_anchor_has_answered(ledger):
    ledger.publish()
    beat(ledger)
    anchor = Silent(ledger.anchor, {"sizes"})
    publisher = ledger.make_publisher(anchor=anchor)
    publisher.load()
    with pytest.raises(StateError):
        publisher.publish()
    anchor.silent_calls.clear()
    publisher.load()
    anchor.silent_calls.update({"sizes", "get", "put"})  # from now on it may fail: publishing goes on
    assert publisher.publish() is not None


def unsigned_checkpoint(size: int) -> bytes:
    return other_checkpoint(size, LocalSigner(make_key("log", ED25519, seed=8)))


def other_checkpoint(size: int, *signers: LocalSigner) -> bytes:
    claim = Checkpoint(origin=ORIGIN, size=size, root=b"\x01" * 32)
    return SignedNote(claim.body(), tuple(signer.sign(claim, 1) for signer in signers)).encode()


def test_an_anchor_that_does_not_answer_does_not_keep_a_log_from_loading(ledger):
    ledger.publish()
    publisher = ledger.make_publisher(anchor=Silent(ledger.anchor, {"sizes", "get", "put"}))
    publisher.load()
    assert publisher.published is not None
    assert publisher.anchor_status.failure == "the bucket does not answer"


# --- anchoring -------------------------------------------------------------------------------------------------------


def test_an_anchor_failure_is_remembered_and_not_raised(ledger):
    first = ledger.publish()
    beat(ledger)
    ledger.clock.advance(1_000)
    ledger.publisher.publish()
    ledger.faults.arm(Write.ANCHOR, Effect.LOST)
    ledger.publisher.anchor_newest()
    status = ledger.publisher.anchor_status
    assert status.failure is not None
    assert status.receipt is not None
    assert status.receipt.size == head(first).size
    ledger.publisher.anchor_newest()
    status = ledger.publisher.anchor_status
    assert status.failure is None
    assert status.receipt is not None
    assert status.receipt.size == 2


def test_two_trees_in_the_anchor_are_raised(ledger):
    ledger.clock.advance(1_000)
    ledger.publisher.publish()
    # put there behind the log's back, and signed with its keys
    ledger.anchor.put(LOG_ID, 1, other_checkpoint(1, *ledger.signers))
    with pytest.raises(ConflictError):
        ledger.publisher.anchor_newest()
    with pytest.raises(ConflictError):
        ledger.make_publisher().load()


def test_what_we_never_signed_under_a_size_in_the_anchor_stops_neither_publishing_nor_a_start(ledger):
    ledger.publish()
    beat(ledger)
    ledger.anchor.put(LOG_ID, 2, unsigned_checkpoint(2))
    ledger.clock.advance(1_000)
    assert ledger.publisher.publish() is not None
    ledger.publisher.anchor_newest()
    failure = ledger.publisher.anchor_status.failure
    assert failure is not None
    assert "under size 2 the anchor holds what no key of this log has signed" in failure
    publisher = ledger.make_publisher()
    publisher.load()
    assert not publisher.anchored
    beat(ledger)
    assert publisher.publish() is not None
    publisher.anchor_newest()
    assert publisher.anchor_status.failure is None
    assert ledger.anchor.sizes(LOG_ID) == [1, 2, 3]


def test_a_damaged_copy_in_the_anchor_does_not_end_publishing(ledger):
    ledger.publish()
    copy = ledger.root / "anchor" / LOG_ID / "checkpoint" / "1"
    copy.chmod(0o644)
    copy.write_bytes(b"damaged")
    ledger.publisher.anchor_newest()
    assert ledger.publisher.anchor_status.failure is not None
    publisher = ledger.make_publisher()
    publisher.load()
    beat(ledger)
    assert publisher.publish() is not None


def test_the_exposed_checkpoint_of_another_log_is_not_taken_for_ours(ledger):
    ledger.publish()
    (ledger.root / "logs" / LOG_ID / CHECKPOINT_PATH).write_bytes(unsigned_checkpoint(77))
    with pytest.raises(TrustPolicyError):
        ledger.make_publisher().load()


def test_the_tiles_of_another_tree_are_not_taken_up(ledger):
    ledger.publish()
    with pytest.raises(RootMismatchError):
        ledger.make_publisher()._integrator.load(TreeHead(size=1, root=b"\x01" * 32))
