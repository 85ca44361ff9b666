"""A publisher that follows another: what it takes up, what it refuses, and that it writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.errors import (
    MalformedError,
    NotFoundError,
    RollbackError,
    SplitViewError,
    StateError,
    StorageError,
    TrustPolicyError,
    VerificationError,
)
from ledger.publisher import Publisher
from tests.support.checkpoints import make_checkpoint, sign_tree
from tests.support.ledger import LOG_ID, EmbeddedLedger, pending


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[EmbeddedLedger]:
    with EmbeddedLedger(tmp_path) as opened:
        opened.introduce()
        yield opened


@pytest.fixture
def follower(ledger: EmbeddedLedger) -> Publisher:
    """Return another process's publisher, which has seen the first checkpoint, of 10 leaves."""
    beat(ledger, 9)
    ledger.publish()
    made = ledger.make_publisher()
    made.load()
    return made


def beat(ledger: EmbeddedLedger, count: int = 1) -> None:
    ledger.append(*(pending(ledger.service.record(ledger.service.heartbeat())) for _ in range(count)))


def published(ledger: EmbeddedLedger, monkeypatch: pytest.MonkeyPatch, checkpoint: bytes | None) -> None:
    """Let the store say that this is the published checkpoint."""
    monkeypatch.setattr(ledger.store, "checkpoint", lambda _: checkpoint)


@pytest.mark.parametrize("more", [1, 5, 246, 247, 600])
def test_what_another_published_is_taken_up_and_nothing_is_written(ledger, follower, more):
    beat(ledger, more)
    checkpoint = ledger.publish()
    ledger.faults.writes.clear()
    assert follower.follow()
    assert follower.published.checkpoint == checkpoint
    assert follower.published.head.size == 10 + more
    assert follower.followed
    assert not follower.follow(), "there is nothing newer"
    assert ledger.faults.writes == []


def test_several_checkpoints_may_have_come_in_between(ledger, follower):
    for _ in range(4):
        beat(ledger, 100)
        ledger.publish()
    assert follower.follow()
    assert follower.published.head.size == 410


def test_an_empty_log_is_followed_to_its_first_checkpoint(tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        follower = ledger.make_publisher()
        follower.load()
        assert not follower.follow()
        ledger.introduce()
        checkpoint = ledger.publish()
        assert follower.follow()
        assert follower.published.checkpoint == checkpoint


def test_who_followed_publishes_only_after_he_has_loaded_the_tree(ledger, follower):
    beat(ledger)
    ledger.publish()
    follower.follow()
    beat(ledger)
    with pytest.raises(StateError, match="load it before"):
        follower.publish()
    follower.load()
    assert not follower.followed
    assert follower.publish().head.size == 12
    assert ledger.audit().clean


def test_who_lost_the_swap_follows_the_winner_and_may_win_the_next(ledger, follower):
    beat(ledger)
    ledger.publish()
    beat(ledger)
    with pytest.raises(StateError):
        follower.publish()
    assert follower.follow()
    follower.load()
    assert follower.publish().head.size == 12
    assert ledger.audit().clean


@pytest.mark.parametrize("size", [10, 11, 300])
def test_another_tree_than_the_one_known_is_never_followed(ledger, follower, monkeypatch, size):
    beat(ledger, 290)
    ledger.publish()
    before = follower.published
    published(ledger, monkeypatch, sign_tree(ledger, size))
    with pytest.raises(SplitViewError if size == 10 else VerificationError):
        follower.follow()
    with pytest.raises(VerificationError):
        follower.load()
    assert follower.published == before


@pytest.mark.parametrize("size", [1, 9])
def test_a_smaller_tree_is_a_rollback(ledger, follower, monkeypatch, size):
    published(ledger, monkeypatch, sign_tree(ledger, size))
    for attempt in (follower.follow, follower.load):
        with pytest.raises(RollbackError):
            attempt()


def test_a_store_that_has_forgotten_its_checkpoints_is_a_rollback(ledger, follower, monkeypatch):
    published(ledger, monkeypatch, None)
    for attempt in (follower.follow, follower.load):
        with pytest.raises(RollbackError):
            attempt()


def test_a_store_beside_an_emptied_directory_is_a_rollback_to_who_knew_better(ledger, follower, monkeypatch):
    """The exposed and the anchored checkpoint are gone too: what the process itself has seen is enough."""
    published(ledger, monkeypatch, None)
    (ledger.root / "logs" / LOG_ID / "checkpoint").unlink()
    (ledger.root / "anchor" / LOG_ID / "checkpoint" / "10").unlink()
    with pytest.raises(RollbackError, match="10 leaves before, and 0 now"):
        follower.load()


def test_a_checkpoint_that_our_keys_did_not_sign_is_not_followed(ledger, follower, monkeypatch):
    published(ledger, monkeypatch, make_checkpoint(11, seed=9))
    with pytest.raises((TrustPolicyError, VerificationError)):
        follower.follow()
    assert follower.published.head.size == 10


@pytest.mark.parametrize("bad", [b"", b"not a checkpoint"])
def test_what_is_no_checkpoint_is_not_followed(ledger, follower, monkeypatch, bad):
    published(ledger, monkeypatch, bad)
    with pytest.raises(MalformedError):
        follower.follow()


def test_a_tree_whose_tiles_are_missing_cannot_be_checked_and_is_not_followed(ledger, follower):
    beat(ledger, 5)
    ledger.publish()
    (ledger.root / "logs" / LOG_ID / "tile/0/000.p/15").unlink()
    with pytest.raises(NotFoundError):
        follower.follow()
    assert follower.published.head.size == 10


def test_a_store_that_fails_changes_nothing(ledger, follower, monkeypatch):
    def fail(_: str) -> bytes:
        raise StorageError("injected")

    monkeypatch.setattr(ledger.store, "checkpoint", fail)
    with pytest.raises(StorageError):
        follower.follow()
    assert follower.published.head.size == 10


def test_whether_something_waits_is_told_by_the_store_and_not_by_who_sequenced_it(ledger, follower):
    assert not follower.waiting()
    beat(ledger)
    assert follower.waiting()
    ledger.publish()
    assert follower.waiting(), "what others published counts once it was followed"
    follower.follow()
    assert not follower.waiting()


def test_before_the_first_record_nothing_waits_and_nothing_is_to_be_anchored(tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        assert not ledger.publisher.waiting()
        assert ledger.publisher.anchored
