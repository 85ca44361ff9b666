"""Packs of a log that succeeds another: the chain is told, and a kept checkpoint of the old log is held to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from evidence.verification import Status, VerificationReport
from ledger.bodies import Succession
from ledger.checkpoints import Checkpoint
from ledger.envelopes import ED25519, MLDSA44
from ledger.merkle import RootHash
from ledger.notes import SignedNote
from ledger.signers.local import LocalSigner
from ledger.trust import TrustPolicy
from tests.support.ledger import make_key
from tests.support.packs import PackLog
from tests.support.verifiers import verify_pack

OLD = "log.example/before"
SIGNERS = [LocalSigner(make_key("log", ED25519, OLD, seed=51)), LocalSigner(make_key("log", MLDSA44, OLD, seed=52))]
ROOT = RootHash(b"\x0a" * 32)


def old_checkpoint(size: int = 9, root: RootHash = ROOT) -> bytes:
    claim = Checkpoint(origin=OLD, size=size, root=root)
    return SignedNote(claim.body(), tuple(signer.sign(claim, 1) for signer in SIGNERS)).encode()


SUCCESSION = Succession(
    origin=OLD,
    size=9,
    root=ROOT.hex(),
    checkpoint_sha256=hashlib.sha256(b"the whole of it").hexdigest(),
    reason="key_lost",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[tuple[Path, TrustPolicy]]:
    log = PackLog()
    log.begin(SUCCESSION)
    log.call()
    log.end()
    log.publish()
    trust = TrustPolicy(logs=(*log.trust.logs, *(signer.verifier_key for signer in SIGNERS)))
    yield log.pack(tmp_path_factory.mktemp("succession") / "pack.zip").path, trust
    log.close()


def known(made: tuple[Path, TrustPolicy], checkpoint: bytes) -> VerificationReport:
    return verify_pack(made[0], trust=made[1], known=checkpoint)


def test_the_verifier_tells_which_log_this_one_succeeds(made):
    report = verify_pack(made[0], trust=made[1])
    assert report.status is Status.PROVEN
    (told,) = [check.detail for check in report.checked if check.name == "succession"]
    assert told.startswith(f"this log succeeds {OLD} at 9 leaves, root {ROOT.hex()}")
    assert SUCCESSION.checkpoint_sha256 in told


def test_the_old_logs_last_checkpoint_is_found_to_be_the_one(made):
    report = known(made, old_checkpoint())
    assert report.status is Status.PROVEN
    assert any("of the tree that this log commits to" in check.detail for check in report.checked)


@pytest.mark.parametrize(
    ("checkpoint", "status", "told"),
    [
        (old_checkpoint(root=RootHash(b"\x0b" * 32)), Status.FAILED, "two roots for size 9"),
        (old_checkpoint(size=10), Status.FAILED, "its successor commits to 9 of them"),
        (old_checkpoint(size=8), Status.NOT_CHECKED, "needs that log"),
    ],
    ids=["another root", "a larger tree", "a smaller tree"],
)
def test_another_checkpoint_of_the_old_log_is_not(made, checkpoint, status, told):
    report = known(made, checkpoint)
    assert report.status is status
    assert told in report.failures[0].reason


def test_an_old_checkpoint_whose_keys_nobody_trusts_proves_nothing(made):
    path, trust = made
    alone = TrustPolicy(logs=tuple(key for key in trust.logs if key.name != OLD))
    report = verify_pack(path, trust=alone, known=old_checkpoint())
    assert report.status is Status.TRUST_NOT_MET
