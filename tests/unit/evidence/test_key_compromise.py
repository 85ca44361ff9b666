"""Keys that the log itself declares compromised: what is not believed any more, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from evidence import pack
from evidence.assemble import AssembledPack
from evidence.summary import ControlSheet, ControlStatus
from evidence.verification import Status, VerificationReport
from ledger.bodies import KeyEvent
from ledger.envelopes import ED25519, MLDSA44
from ledger.notes import SignatureType
from ledger.records import decode_entry
from ledger.signers.local import LocalSigner
from ledger.trust import TrustPolicy
from tests.support.ledger import Enforcer, make_key
from tests.support.packs import FROM_MS, TO_MS, PackLog
from tests.support.verifiers import verify_pack


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


# --- keys of enforcers -----------------------------------------------------------------------------------------------


def compromise(log: PackLog, last_size: int | None, *, at_ms: int | None = None, **changes: Any) -> int:
    """Let the log say that the gateway's key is compromised."""
    introduced = log.service.introduction(log.gateway)
    body = msgspec.structs.replace(
        introduced, **{"action": "compromised", "public_key": None, "last_size": last_size, **changes}
    )
    return log.add(log.service, body, at_ms=at_ms)


def control(assembled: AssembledPack, framework: str, control_id: str) -> ControlSheet:
    sheets = [sheet for sheet in assembled.summary.frameworks if sheet.framework == framework]
    (found,) = [one for sheet in sheets for one in sheet.controls if one.control_id == control_id]
    return found


def failed(sheet: ControlSheet) -> set[str]:
    return {test.test for test in sheet.tests if test.failed}


def deviations(sheet: ControlSheet) -> list[int | None]:
    return [one.leaf for test in sheet.tests for one in test.deviations]


def key_gaps(assembled: AssembledPack) -> list[str]:
    return [gap.sentence for gap in assembled.summary.gaps if gap.kind == "key"]


def signed_by_the_gateway(log: PackLog, since: int) -> list[int]:
    found = []
    for leaf, entry in enumerate(log.entries):
        if leaf >= since and decode_entry(entry).enforcer_id == "gateway-1":
            found.append(leaf)
    return found


def test_a_compromise_declared_after_the_period_reaches_into_it(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 1}')
    log.call(arguments='{"amount": 501}')
    log.call(name="unlisted")
    log.end()
    leaf = compromise(log, 9, at_ms=TO_MS + 2000)
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip")
    assert verify_pack(assembled.path, trust=log.trust).status is Status.PROVEN
    sheet = control(assembled, "soc2", "CC6.1")
    assert sheet.status is ControlStatus.NOT_SATISFIED
    assert failed(sheet) == {"no-key-compromised"}
    assert deviations(sheet) == [leaf]
    for framework, name in (("soc2", "CC2.1"), ("soc2", "PI1.5"), ("hipaa", "164.312(c)(2)")):
        assert "records-signed" in failed(control(assembled, framework, name))
    leaves = signed_by_the_gateway(log, 9)
    told = f"Leaf {leaf} declares the enforcer key gateway-1-key of gateway-1 compromised since the tree of 9 leaves"
    signed = f"it signed {len(leaves)} records of the range since: leaves {', '.join(map(str, leaves))}"
    assert key_gaps(assembled) == [f"{told}; {signed}."]


def test_a_compromise_declared_before_the_period_is_seen_in_a_whole_range(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    other = Enforcer(enforcer_id="gateway-2", seed=9, epoch="2" * 32)
    log.add(log.service, log.service.introduction(other))
    leaf = log.add(
        log.service,
        msgspec.structs.replace(log.service.introduction(other), action="compromised", public_key=None),
    )
    go_on(log)
    assembled = log.pack(tmp_path / "pack.zip")
    assert failed(control(assembled, "soc2", "CC6.1")) == {"no-key-compromised"}
    assert "records-signed" not in failed(control(assembled, "soc2", "CC2.1"))
    assert key_gaps(assembled) == [
        f"Leaf {leaf} declares the enforcer key gateway-2-key of gateway-2 compromised since the tree of {leaf} leaves."
    ]


def test_a_compromise_declared_before_a_range_that_begins_later_comes_along(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    renewed = log.service.introduction(Enforcer(enforcer_id="gateway-1", seed=18))
    leaf = compromise(log, 7)
    log.gateway.key = Enforcer(enforcer_id="gateway-1", seed=18).key
    log.add(log.service, msgspec.structs.replace(renewed, key_id="gateway-1-second"))
    start = log.publish(at_ms=FROM_MS - 1000)
    go_on(log)
    assembled = log.pack(tmp_path / "pack.zip", request=log.request(start_checkpoint=start))
    assert verify_pack(assembled.path, trust=log.trust).status is Status.PROVEN
    sheet = control(assembled, "soc2", "CC6.1")
    assert failed(sheet) == {"no-key-compromised"}
    assert deviations(sheet) == [leaf]
    assert "records-signed" not in failed(control(assembled, "soc2", "CC2.1"))
    assert key_gaps(assembled)[0].startswith(f"Leaf {leaf} declares the enforcer key gateway-1-key")


def test_a_compromise_declared_after_a_retirement_is_not_ignored(log: PackLog, tmp_path: Path) -> None:
    log.begin()
    log.call(at_ms=FROM_MS + 1000, arguments='{"amount": 1}')
    log.add(log.gateway, log.gateway.heartbeat(), at_ms=TO_MS + 1000)
    compromise(log, None, action="retired")
    compromise(log, 9)
    log.add(log.service, log.service.heartbeat(), at_ms=TO_MS + 1000)
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip")
    assert "records-signed" in failed(control(assembled, "soc2", "CC2.1"))
    assert len(key_gaps(assembled)) == 1


@pytest.mark.parametrize("action", ["created", "retired"])
def test_a_key_that_was_only_introduced_or_retired_is_no_gap(log: PackLog, tmp_path: Path, action: str) -> None:
    log.small_day()
    if action == "retired":
        compromise(log, None, action="retired")
    log.publish()
    assembled = log.pack(tmp_path / "pack.zip")
    assert key_gaps(assembled) == []
    assert "no-key-compromised" not in failed(control(assembled, "soc2", "CC6.1"))
    assert "records-signed" not in failed(control(assembled, "soc2", "CC2.1"))
