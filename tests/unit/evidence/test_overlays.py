"""Overlays: they add and take nothing away, are bound to what they were written over, and to who signed them."""

from __future__ import annotations

from pathlib import Path

import pytest

from evidence.catalogue import load_framework, read_overlay
from evidence.controls import Framework
from evidence.overlays import framework_digest, sign_overlay, verify_overlay
from evidence.summary import ControlStatus, Strength
from evidence.verification import Status
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import (
    EvidenceError,
    MalformedError,
    SignatureInvalidError,
    TrustPolicyError,
    VerificationError,
)
from ledger.signers.local import LocalEnvelopeSigner
from tests.support.ledger import make_key
from tests.support.packs import PackLog
from tests.support.verifiers import verify_pack

BASE = load_framework("soc2")
OVERLAY = f"""\
overlay: acme-soc2
base: soc2
base_sha256: {framework_digest(BASE)}
version: "4"
title: SOC 2 as Acme runs it
author: Acme's internal audit
changes:
  - id: CC6.1
    reason: Every agent of ours works on behalf of a person.
    customer_adds: The list of protected tools, reviewed each quarter.
    tests: [acme-names-its-person]
    conditional_tests: [unauthenticated-refused]
  - id: CC2.1
    reason: Auditors have not accepted the log alone.
    strength: supports
  - id: C1.1
    reason: What is confidential has a tag of ours.
    tests: [user-is-a-pseudonym]
controls:
  - id: ACME-1
    title: Nobody works at night
    evidence: [E1]
    strength: supports
    rationale: The hour is a fact of each decision.
    customer_adds: Who may.
    procedure: Look at the hours.
    tests: [acme-by-day]
tests:
  - id: acme-names-its-person
    sentence: Every allowed call is on behalf of a person.
    subject: decision
    where:
      equals: [decision.enforcement, allow]
    must:
      present: decision.user
  - id: acme-by-day
    sentence: Every allowed call was made between six and twenty-two.
    subject: decision
    where:
      equals: [decision.enforcement, allow]
    must:
      all:
        - at_least: [decision.facts.local_hour, 6]
        - at_most: [decision.facts.local_hour, 21]
"""


def signers(seed: int = 0) -> list[LocalEnvelopeSigner]:
    return [
        LocalEnvelopeSigner(make_key("bundle", ED25519, "audit.acme", seed=31 + seed), purpose="bundle"),
        LocalEnvelopeSigner(make_key("bundle", MLDSA44, "audit.acme", seed=32 + seed), purpose="bundle"),
    ]


def written(folder: Path, old: str = "", new: str = "") -> Path:
    assert old in OVERLAY
    path = folder / "overlay.yaml"
    path.write_text(OVERLAY.replace(old, new, 1) if old else OVERLAY, encoding="utf-8")
    return path


def made(folder: Path, old: str = "", new: str = "") -> Framework:
    return read_overlay(written(folder, old, new))[1]


def test_an_overlay_adds_and_takes_nothing_away(tmp_path: Path) -> None:
    framework = made(tmp_path)
    controls = {control.id: control for control in framework.controls}
    for control in BASE.controls:
        assert set(control.tests) <= set(controls[control.id].tests)
        assert set(control.conditional_tests) <= set(controls[control.id].conditional_tests)
    for name, test in BASE.tests.items():
        assert framework.tests[name].members == test.members
    assert set(controls) - {control.id for control in BASE.controls} == {"ACME-1"}
    before = {control.id: control for control in BASE.controls}
    said = controls["CC6.1"].customer_adds
    assert said == f"{before['CC6.1'].customer_adds} The overlay: The list of protected tools, reviewed each quarter."
    assert "works on behalf of a person" in controls["CC6.1"].rationale
    assert controls["CC2.1"].strength is Strength.SUPPORTS
    assert (framework.id, framework.mapping_version) == ("acme-soc2", f"4 over soc2 {BASE.mapping_version}")
    assert "Acme's internal audit" in framework.source


def test_a_pack_is_judged_by_an_overlay_and_both_verifiers_tell_the_auditor_to_read_it(
    tmp_path: Path, log: PackLog
) -> None:
    log.ordinary_day()
    log.publish()
    framework = made(tmp_path)
    pack = log.pack(tmp_path / "pack.zip", request=log.request(frameworks=(BASE, framework)))
    report = verify_pack(pack.path, trust=log.trust)
    assert report.status is Status.PROVEN
    assert any("acme-soc2" in note for note in report.notes)
    assert pack.digests["frameworks/acme-soc2.json"] == framework_digest(framework)
    statuses = {control.control_id: control.status for control in pack.summary.frameworks[1].controls}
    assert statuses["ACME-1"] in (ControlStatus.SATISFIED, ControlStatus.NOT_SATISFIED)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("overlay: acme-soc2", "overlay: soc2", "overlay.yaml, line 1, overlay: a framework that ships has this name"),
        ("overlay: acme-soc2", "overlay: hipaa", "a framework that ships has this name"),
        (
            f"base_sha256: {framework_digest(BASE)}",
            f"base_sha256: {'0' * 64}",
            "line 3, base_sha256: it was written over",
        ),
        ("- id: CC2.1", "- id: CC2.9", "line 13, changes[1]: soc2 has no control CC2.9"),
        ("- id: CC2.1", "- id: CC6.1", "line 13, changes[1]: the control CC6.1 is changed twice"),
        ("- id: C1.1\n", "- id: C1.1\n    strength: direct\n", "an overlay does not raise the strength of C1.1"),
        ("- id: ACME-1", "- id: CC6.1", "a framework has the control CC6.1 twice"),
        ("- id: acme-by-day\n", "- id: replay-agrees\n", "a test that ships is called replay-agrees"),
        ("- id: acme-by-day\n", "- id: login-recorded\n", "a test that ships is called login-recorded"),
        ("[acme-names-its-person]", "[acme-by-night]", "names the test acme-by-night, which is not there"),
        ("[acme-names-its-person]", "[refused-not-forwarded]", "names the test refused-not-forwarded twice"),
        ("tests: [acme-by-day]", "tests: 5", "Expected `array`, got `int`"),
        ("tests: [acme-by-day]", "not_tested: never", "uses the test acme-by-day"),
        ("present: decision.user", "equals: [decision.user, ann]", "may not ask that of decision.user"),
        ("    reason: Auditors have not accepted the log alone.\n", "", "not an overlay"),
        ("title: SOC 2 as Acme runs it\n", "", "not an overlay"),
        ("changes:", "removes:", "not an overlay"),
        (OVERLAY, "- a\n", "is not a mapping"),
    ],
)
def test_an_overlay_that_takes_away_or_is_not_sound_is_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(MalformedError) as caught:
        made(tmp_path, old, new)
    assert told in str(caught.value)
    assert str(caught.value).startswith("overlay.yaml")


def test_an_overlay_of_what_does_not_ship_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError):
        made(tmp_path, "base: soc2", "base: nothing")
    with pytest.raises(EvidenceError):
        read_overlay(tmp_path / "elsewhere.yaml")


def test_the_signature_of_those_who_must_is_accepted(tmp_path: Path) -> None:
    value, _ = read_overlay(written(tmp_path))
    envelope = sign_overlay(value, signers())
    verify_overlay(value, envelope, [signer.envelope_key for signer in signers()])


def test_a_signature_of_others_or_of_half_of_them_is_refused(tmp_path: Path) -> None:
    value, _ = read_overlay(written(tmp_path))
    keys = [signer.envelope_key for signer in signers()]
    with pytest.raises(TrustPolicyError):
        verify_overlay(value, sign_overlay(value, signers(10)), keys)
    with pytest.raises(TrustPolicyError):
        verify_overlay(value, sign_overlay(value, signers()[:1]), keys)
    with pytest.raises(TrustPolicyError):
        verify_overlay(value, sign_overlay(value, [*signers(), *signers(10)]), keys)
    with pytest.raises(TrustPolicyError):
        verify_overlay(value, sign_overlay(value, signers()), [])


def test_a_signature_is_about_exactly_one_overlay(tmp_path: Path) -> None:
    value, _ = read_overlay(written(tmp_path))
    other, _ = read_overlay(written(tmp_path, "reviewed each quarter", "reviewed each year"))
    keys = [signer.envelope_key for signer in signers()]
    with pytest.raises(VerificationError):
        verify_overlay(other, sign_overlay(value, signers()), keys)


def test_an_altered_signature_is_refused(tmp_path: Path) -> None:
    value, _ = read_overlay(written(tmp_path))
    keys = [signer.envelope_key for signer in signers()]
    envelope = sign_overlay(value, signers())
    at = envelope.index(b'"sig":"') + 12
    altered = envelope[:at] + (b"A" if envelope[at : at + 1] != b"A" else b"B") + envelope[at + 1 :]
    with pytest.raises(SignatureInvalidError):
        verify_overlay(value, altered, keys)
    for data in (b"", b"{}", envelope[:-1], b"x" * 70_000):
        with pytest.raises(MalformedError):
            verify_overlay(value, data, keys)
