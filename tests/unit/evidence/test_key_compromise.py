"""Keys that the log itself declares compromised: what is not believed any more, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evidence import pack
from evidence.verification import Status, VerificationReport
from evidence.verify import verify_pack
from ledger.envelopes import ED25519, MLDSA44
from ledger.notes import SignatureType
from ledger.records import KeyEvent
from ledger.signers.local import LocalSigner
from ledger.trust import TrustPolicy
from tests.support.ledger import make_key
from tests.support.packs import FROM_MS, PackLog


def declare(log: PackLog, action: Any = "compromised", *, number: int = 0, **changes: Any) -> int:
    """Let the log say something about one of its own keys."""
    key = log.log_signers[number].verifier_key
    algorithm = ED25519 if key.signature_type == SignatureType.ED25519 else MLDSA44
    body = KeyEvent(
        action=action, purpose="log", algorithm=algorithm, subject=key.name, key_id=key.key_id.hex(), **changes
    )
    return log.add(log.service, body)


def renew(log: PackLog) -> None:
    """Let the log sign with other keys, which the auditor was given too."""
    old = log.trust.logs
    log.log_signers = [
        LocalSigner(make_key("log", ED25519, seed=101)),
        LocalSigner(make_key("log", MLDSA44, seed=102)),
    ]
    log.trust = TrustPolicy(logs=(*old, *(signer.verifier_key for signer in log.log_signers)))


def go_on(log: PackLog) -> None:
    log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 1}')
    log.call(arguments='{"amount": 501}')
    log.end()
    log.publish()


def files(report: VerificationReport) -> dict[str, Status]:
    return {failure.file: failure.status for failure in report.failures}


# --- keys of the log -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1], ids=["ed25519", "ml-dsa-44"])
@pytest.mark.parametrize("last_size", [3, None], ids=["since a size", "since its declaration"])
def test_an_end_checkpoint_signed_by_a_compromised_key_does_not_meet_the_trust(
    log: PackLog, tmp_path: Path, number: int, last_size: int | None
) -> None:
    log.begin()
    declare(log, number=number, last_size=last_size)
    go_on(log)
    report = verify_pack(log.pack(tmp_path / "pack.zip").path, trust=log.trust)
    assert files(report) == {pack.END_CHECKPOINT: Status.TRUST_NOT_MET}
    assert report.status is Status.TRUST_NOT_MET


def test_a_compromise_that_is_followed_by_a_retirement_is_not_taken_back(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    declare(log, last_size=3)
    declare(log, "retired")
    declare(log, "retired", last_size=10**6)
    go_on(log)
    report = verify_pack(log.pack(tmp_path / "pack.zip").path, trust=log.trust)
    assert files(report) == {pack.END_CHECKPOINT: Status.TRUST_NOT_MET}


def test_a_start_checkpoint_signed_only_by_compromised_keys_does_not_meet_the_trust(
    log: PackLog, tmp_path: Path
) -> None:
    log.begin()
    start = log.publish(at_ms=FROM_MS - 1000)
    for number in (0, 1):
        declare(log, number=number, last_size=3)
    renew(log)
    go_on(log)
    made = log.pack(tmp_path / "pack.zip", request=log.request(start_checkpoint=start))
    report = verify_pack(made.path, trust=log.trust)
    assert files(report) == {pack.START_CHECKPOINT: Status.TRUST_NOT_MET}


def test_a_start_checkpoint_of_the_time_before_the_compromise_still_counts(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    start = log.publish(at_ms=FROM_MS - 1000)
    for number in (0, 1):
        declare(log, number=number, last_size=len(log.entries) - number)
    renew(log)
    go_on(log)
    made = log.pack(tmp_path / "pack.zip", request=log.request(start_checkpoint=start))
    assert verify_pack(made.path, trust=log.trust, known=start).status is Status.PROVEN


def test_a_known_checkpoint_signed_only_by_compromised_keys_does_not_meet_the_trust(
    log: PackLog, tmp_path: Path
) -> None:
    log.begin()
    known = log.publish(at_ms=FROM_MS - 1000)
    for number in (0, 1):
        declare(log, number=number, last_size=3)
    renew(log)
    go_on(log)
    report = verify_pack(log.pack(tmp_path / "pack.zip").path, trust=log.trust, known=known)
    assert files(report) == {"the known checkpoint": Status.TRUST_NOT_MET}


def test_a_late_declaration_does_not_disown_a_kept_checkpoint_of_another_history(log: PackLog, tmp_path: Path) -> None:
    shown = PackLog()
    shown.begin()
    shown.call(at_ms=FROM_MS + 1000, arguments='{"amount": 900}')
    kept = shown.publish()
    shown.close()
    log.begin()
    for number in (0, 1):
        declare(log, number=number, last_size=3)
    renew(log)
    go_on(log)
    report = verify_pack(log.pack(tmp_path / "pack.zip").path, trust=log.trust, known=kept)
    assert report.status is Status.FAILED
    assert any("two histories" in failure.reason for failure in report.failures)
