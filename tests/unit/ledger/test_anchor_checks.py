"""Judging anchored copies: each way in which one may not be as it must be is named, and sound ones are not accused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger.anchor_checks import AnchorCheck, check_copies, check_protection
from ledger.anchoring import KeptCopy, Protection
from ledger.errors import MalformedError, NotFoundError, RollbackError, StorageError
from ledger.keyring import Keyring
from ledger.proofs import TreeHead, verify_consistency
from tests.fakes import LogSimulator

NOW_MS = 1_000_000_000
DAY_MS = 86_400_000
LOCK = Protection(mode="COMPLIANCE", retain_until_ms=NOW_MS + DAY_MS, promised_until_ms=NOW_MS + DAY_MS)


@pytest.fixture(scope="module")
def log() -> LogSimulator:
    made = LogSimulator()
    made.grow(b"entry %d" % index for index in range(50))
    return made


@pytest.fixture
def copies(log) -> list[KeptCopy]:
    sizes = (5, 10, 50)
    return [
        KeptCopy(
            size=size, location=f"s3://b/{size}", data=log.checkpoint(size), protection=LOCK, previous_size=previous
        )
        for previous, size in zip((-1, *sizes), sizes, strict=False)
    ]


class Tree:
    """The log as it is shown, up to a size."""

    def __init__(self, log: LogSimulator, shown: int = 50) -> None:
        self.log = log
        self.shown = shown

    def require_begins_with(self, head: TreeHead) -> None:
        if head.size > self.shown:
            raise RollbackError(f"it shows {self.shown} leaves")
        now = self.log.head(self.shown)
        verify_consistency(head, now, self.log.consistency(head.size, now.size))

    def keyring(self) -> Keyring:
        return Keyring()


def check(log: LogSimulator, copies: list[KeptCopy], **options: object) -> AnchorCheck:
    return check_copies(copies, log.policy, **{"now_ms": NOW_MS, "tree": Tree(log), **options})


def kinds(result: AnchorCheck) -> list[tuple[str, str]]:
    return [(drift.kind, drift.place) for drift in result.drift]


def test_sound_copies_are_not_accused(log, copies):
    result = check(log, copies)
    assert (result.copies, result.newest, result.drift, result.notices) == (3, 50, [], [])
    assert result.earliest_end_ms == NOW_MS + DAY_MS


def test_an_empty_anchor_keeps_nothing_and_is_no_drift(log):
    assert check(log, []) == AnchorCheck()


@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff"])
def test_what_is_no_checkpoint_is_named(log, copies, data):
    copies[1] = replace(copies[1], data=data)
    assert kinds(check(log, copies)) == [("bytes", "checkpoint 10")]


def test_a_changed_byte_is_named(log, copies):
    data = bytearray(copies[1].data)
    data[-100] ^= 1
    copies[1] = replace(copies[1], data=bytes(data))
    assert kinds(check(log, copies)) == [("bytes", "checkpoint 10")]


def test_a_checkpoint_of_other_keys_is_named(log, copies):
    stranger = LogSimulator(seed=9)
    stranger.grow(log.entries)
    copies[1] = replace(copies[1], data=stranger.checkpoint(10))
    assert kinds(check(log, copies)) == [("bytes", "checkpoint 10")]


def test_a_checkpoint_of_another_size_under_that_name_is_named(log, copies):
    copies[1] = replace(copies[1], data=log.checkpoint(11))
    assert kinds(check(log, copies)) == [("bytes", "checkpoint 10")]


def test_another_tree_signed_by_the_same_keys_is_named(log, copies):
    other = LogSimulator()
    other.grow(b"other %d" % index for index in range(10))
    copies[1] = replace(copies[1], data=other.checkpoint(10))
    result = check(log, copies)
    assert kinds(result) == [("root", "checkpoint 10")]
    assert other.head(10).root.hex() in result.drift[0].reason


def test_a_copy_of_a_tree_that_the_log_no_longer_has_is_named(log, copies):
    assert kinds(check(log, copies, tree=Tree(log, shown=10))) == [("root", "checkpoint 50")]


@pytest.mark.parametrize("missing", [NotFoundError("no tile"), MalformedError("half a tile")])
def test_a_copy_that_cannot_be_compared_is_named(log, copies, missing):
    class Gone(Tree):
        def require_begins_with(self, _head: TreeHead) -> None:
            raise missing

    assert {kind for kind, _ in kinds(check(log, copies, tree=Gone(log)))} == {"root"}


def test_a_log_that_cannot_be_read_is_no_drift(log, copies):
    class Down(Tree):
        def require_begins_with(self, _head: TreeHead) -> None:
            raise StorageError("the bucket does not answer")

    with pytest.raises(StorageError):
        check(log, copies, tree=Down(log))


def test_without_the_log_trees_are_not_compared(log, copies):
    assert check(log, copies, tree=None).drift == []


def test_a_copy_that_a_later_one_names_and_that_is_not_there_is_missing(log, copies):
    assert kinds(check(log, [copies[0], copies[2]])) == [("missing", "checkpoint 10")]
    assert kinds(check(log, copies[1:])) == [("missing", "checkpoint 5")]


def test_an_incremental_check_does_not_miss_what_it_did_not_ask_for(log, copies):
    assert check(log, copies[1:], above=5).drift == []
    assert kinds(check(log, copies[2:], above=5)) == [("missing", "checkpoint 10")]


def test_copies_of_an_earlier_version_are_told_and_not_accused(log, copies):
    old = [replace(copy, previous_size=None, protection=replace(LOCK, promised_until_ms=None)) for copy in copies]
    result = check(log, old)
    assert result.drift == []
    assert result.notices == ["3 copies do not say for how long they were locked: a date cannot be compared"]


def test_a_lock_that_has_ended_in_its_time_is_told_and_not_accused(log, copies):
    result = check(log, copies, now_ms=NOW_MS + DAY_MS)
    assert result.drift == []
    assert result.notices == ["the locks of 3 copies have ended, as was decided when they were made"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"mode": "read-only", "retain_until_ms": None, "promised_until_ms": None}, []),
        ({"retain_until_ms": NOW_MS + 2 * DAY_MS}, []),
        ({"mode": None, "retain_until_ms": None}, ["unlocked"]),
        ({"mode": "GOVERNANCE"}, ["unlocked"]),
        ({"mode": "compliance"}, ["unlocked"]),
        ({"retain_until_ms": NOW_MS + DAY_MS - 1}, ["shortened"]),
        ({"later_versions": 1}, ["overwritten"]),
        ({"hidden": True}, ["hidden"]),
        (
            {"mode": "GOVERNANCE", "retain_until_ms": 1, "later_versions": 2, "hidden": True},
            ["unlocked", "shortened", "overwritten", "hidden"],
        ),
    ],
)
def test_every_weakening_of_a_protection_is_named(changes, expected):
    assert [drift.kind for drift in check_protection(replace(LOCK, **changes), "tile/0/000")] == expected
