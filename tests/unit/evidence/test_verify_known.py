"""A checkpoint that the auditor kept must be of one history with the pack: inside its range, before it, behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evidence.contradictions import verify_accusation
from evidence.verification import Status, VerificationReport
from ledger.checkpoints import Checkpoint
from ledger.envelopes import ED25519, MLDSA44
from ledger.equivocation import EquivocationFile, parse_equivocation
from ledger.merkle import RootHash
from ledger.notes import SignedNote
from ledger.signers.local import LocalSigner
from ledger.trust import TrustPolicy
from tests.support.ledger import ORIGIN, make_key
from tests.support.packs import FROM_MS, TO_MS, PackLog
from tests.support.verifiers import verify_pack


@dataclass
class History:
    """A log with four checkpoints, and a pack over its whole range and over a later part of it."""

    log: PackLog
    before: bytes
    start: bytes
    end: bytes
    later: bytes
    whole: Path
    part: Path


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    folder = tmp_path_factory.mktemp("history")
    log = PackLog()
    log.begin()
    before = log.publish(at_ms=FROM_MS - 30_000)
    log.access(at_ms=FROM_MS - 20_000)
    start = log.publish(at_ms=FROM_MS - 10_000)
    log.call(at_ms=FROM_MS + 1000)
    log.call(arguments='{"amount": 2}')
    log.end()
    end = log.publish()
    whole = log.pack(folder / "whole.zip").path
    part = log.pack(folder / "part.zip", request=log.request(start_checkpoint=start)).path
    log.call(at_ms=TO_MS + 60_000)
    later = log.publish(at_ms=TO_MS + 70_000)
    yield History(log, before, start, end, later, whole, part)
    log.close()


def forged_tree(log: PackLog, size: int) -> bytes:
    """Return a checkpoint of another tree, signed with the log's own keys: what a dishonest operator can make."""
    claim = Checkpoint(origin=ORIGIN, size=size, root=RootHash(bytes(31) + b"\1"))
    return SignedNote(claim.body(), tuple(signer.sign(claim, 1) for signer in log.log_signers)).encode()


def reason(report: VerificationReport) -> str:
    return next(failure.reason for failure in report.failures if failure.check == "known checkpoint")


@pytest.mark.parametrize("kept", ["before", "start", "end"])
def test_a_kept_checkpoint_inside_the_range_is_proved_by_the_entries_alone(history: History, kept: str) -> None:
    report = verify_pack(history.whole, trust=history.log.trust, known=getattr(history, kept))
    assert report.status is Status.PROVEN
    assert any(check.name == "known checkpoint" for check in report.checked)
    assert not any("--known" in sentence for sentence in report.not_checked)


@pytest.mark.parametrize("kept", ["start", "end"])
def test_a_kept_checkpoint_inside_a_partial_range_is_proved_by_the_entries_alone(history: History, kept: str) -> None:
    assert verify_pack(history.part, trust=history.log.trust, known=getattr(history, kept)).status is Status.PROVEN


@pytest.mark.parametrize(("pack", "kept"), [("part", "before"), ("whole", "later"), ("part", "later")])
def test_a_kept_checkpoint_outside_the_range_could_not_be_checked_without_the_log(
    history: History, pack: str, kept: str
) -> None:
    report = verify_pack(getattr(history, pack), trust=history.log.trust, known=getattr(history, kept))
    assert report.status is Status.NOT_CHECKED
    assert "needs the log" in reason(report)


@pytest.mark.parametrize(("pack", "kept"), [("part", "before"), ("whole", "later"), ("part", "later")])
def test_a_kept_checkpoint_outside_the_range_is_proved_with_the_log(history: History, pack: str, kept: str) -> None:
    report = verify_pack(
        getattr(history, pack), trust=history.log.trust, known=getattr(history, kept), log=history.log.prover
    )
    assert report.status is Status.PROVEN


def test_a_newer_kept_checkpoint_is_noted_because_the_pack_ends_before_it(history: History) -> None:
    report = verify_pack(history.whole, trust=history.log.trust, known=history.later, log=history.log.prover)
    assert any("newer" in note for note in report.notes)


@pytest.mark.parametrize("size", [3, 8, 14])
def test_another_tree_that_was_shown_before_is_found(history: History, size: int) -> None:
    report = verify_pack(history.whole, trust=history.log.trust, known=forged_tree(history.log, size))
    assert report.status is Status.FAILED
    assert "root" in reason(report)


def test_another_tree_of_the_same_size_is_a_split_view(history: History) -> None:
    size = verify_pack(history.whole, trust=history.log.trust).scope.tree_size  # type: ignore[union-attr]
    report = verify_pack(history.whole, trust=history.log.trust, known=forged_tree(history.log, size))
    assert report.status is Status.FAILED
    assert "two roots" in reason(report)


def test_another_tree_outside_the_range_is_found_with_the_log(history: History) -> None:
    forged = forged_tree(history.log, 5)
    report = verify_pack(history.part, trust=history.log.trust, known=forged, log=history.log.prover)
    assert report.status is Status.FAILED


def test_a_kept_checkpoint_of_somebody_else_does_not_meet_the_trust(history: History) -> None:
    forger = PackLog(seed=100)
    forger.begin()
    report = verify_pack(history.whole, trust=history.log.trust, known=forger.publish())
    forger.close()
    assert report.status is Status.TRUST_NOT_MET


def test_a_kept_checkpoint_of_another_log_that_is_trusted_too_is_refused(history: History) -> None:
    name = "log.example/other"
    signers = [
        LocalSigner(make_key("log", ED25519, name, seed=51)),
        LocalSigner(make_key("log", MLDSA44, name, seed=52)),
    ]
    trust = TrustPolicy(logs=(*history.log.trust.logs, *(signer.verifier_key for signer in signers)))
    claim = Checkpoint(origin=name, size=3, root=RootHash(bytes(32)))
    note = SignedNote(claim.body(), tuple(signer.sign(claim, 1) for signer in signers)).encode()
    report = verify_pack(history.whole, trust=trust, known=note)
    assert report.status is Status.TRUST_NOT_MET
    assert "another log" in reason(report)


def test_what_is_no_checkpoint_is_malformed(history: History) -> None:
    report = verify_pack(history.whole, trust=history.log.trust, known=b"not a checkpoint")
    assert report.status is Status.MALFORMED


# --- the proof for others --------------------------------------------------------------------------------------------


def judged(history: History, pack: str, size: int, *, log: bool = False) -> VerificationReport | None:
    """Verify with a checkpoint of another tree, and judge the proof of it; None if there is no proof."""
    forged = forged_tree(history.log, size)
    prover = history.log.prover if log else None
    report = verify_pack(getattr(history, pack), trust=history.log.trust, known=forged, log=prover)
    assert report.status is not Status.PROVEN
    return None if report.equivocation is None else verify_accusation(report.equivocation, history.log.trust)


def tree_sizes(history: History) -> tuple[int, int]:
    """Return the tree sizes at which the part begins and both packs end."""
    scope = verify_pack(history.part, trust=history.log.trust).scope
    assert scope is not None
    return scope.first_leaf, scope.tree_size


def test_two_histories_are_proved_to_anybody_from_the_pack_alone(history: History) -> None:
    first, end = tree_sizes(history)
    for pack, sizes in (("whole", range(1, end + 1)), ("part", range(first, end + 1))):
        for size in sizes:
            report = judged(history, pack, size)
            assert report is not None, (pack, size)
            assert report.status is Status.FAILED
            assert "the log's keys signed two histories" in report.failures[0].reason
            assert report.lines()[-1].startswith("TWO HISTORIES")


def test_what_lies_before_the_pack_is_proved_with_the_log(history: History) -> None:
    first, _ = tree_sizes(history)
    for size in range(1, first):
        report = judged(history, "part", size, log=True)
        assert report is not None
        assert report.status is Status.FAILED


def test_a_larger_tree_that_nobody_has_proves_nothing(history: History) -> None:
    _, end = tree_sizes(history)
    assert judged(history, "whole", end + 1) is None
    assert judged(history, "whole", end + 1, log=True) is None


@pytest.mark.parametrize("kept", ["before", "start", "end", "later"])
def test_one_history_gives_no_accusation(history: History, kept: str) -> None:
    known = getattr(history, kept)
    report = verify_pack(history.whole, trust=history.log.trust, known=known, log=history.log.prover)
    assert report.equivocation is None


def accusation(history: History, size: int = 8) -> bytes:
    report = verify_pack(history.whole, trust=history.log.trust, known=forged_tree(history.log, size))
    assert report.equivocation is not None
    return report.equivocation


def test_an_accusation_of_strangers_keys_does_not_meet_the_trust(history: History) -> None:
    stranger = TrustPolicy(logs=(make_key("log", ED25519, "log.example/other", seed=51).verifier_key,))
    assert verify_accusation(accusation(history), stranger).status is Status.TRUST_NOT_MET


def test_a_false_accusation_is_refused_and_says_neither_guilty_nor_proven(history: History) -> None:
    file = parse_equivocation(accusation(history))
    agreeing = EquivocationFile(smaller=file.larger, larger=file.larger).encode()
    root = bytearray(accusation(history))
    root[root.index(b"prefix ") + 10] ^= 1
    for data in (agreeing, bytes(root), accusation(history).replace(b"AAAAAAAA", b"AAAAAAAB"), b"nonsense"):
        report = verify_accusation(data, history.log.trust)
        assert report.status is Status.MALFORMED
        assert report.failures[0].reason.startswith("refused")
        assert "TWO HISTORIES" not in report.verdict
