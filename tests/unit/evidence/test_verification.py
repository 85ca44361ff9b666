"""Reports of a verification: exit statuses, verdicts, lines; and single records by their proof files."""

from __future__ import annotations

import pytest

from evidence.verification import Status, VerificationReport, status_of
from evidence.verify import verify_record
from ledger.errors import (
    ConfigError,
    EvidenceError,
    MalformedError,
    NotFoundError,
    PolicySyntaxError,
    ProofError,
    SignatureInvalidError,
    SignatureUncheckedError,
    SplitViewError,
    StorageError,
    TallystickError,
    TrustPolicyError,
    VerificationError,
)
from ledger.trust import TrustPolicy
from tests.unit.evidence.conftest import MadePack


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ProofError("x"), Status.FAILED),
        (SignatureInvalidError("x"), Status.FAILED),
        (SplitViewError("x"), Status.FAILED),
        (VerificationError("x"), Status.FAILED),
        (MalformedError("x"), Status.MALFORMED),
        (PolicySyntaxError("x"), Status.MALFORMED),
        (EvidenceError("x"), Status.MALFORMED),
        (TrustPolicyError("x"), Status.TRUST_NOT_MET),
        (SignatureUncheckedError("x"), Status.NOT_CHECKED),
        (NotFoundError("x"), Status.NOT_CHECKED),
        (StorageError("x"), Status.NOT_CHECKED),
        (ConfigError("x"), Status.FAILED),
    ],
)
def test_bad_untrusted_malformed_and_uncheckable_are_different_things(error: TallystickError, status: Status) -> None:
    assert status_of(error) is status
    report = VerificationReport(subject="x")
    report.fail("check", "file", error)
    assert report.status is status


@pytest.mark.parametrize(
    ("found", "status"),
    [
        ([], 0),
        ([4], 4),
        ([4, 3], 3),
        ([4, 3, 2], 2),
        ([4, 3, 2, 1], 1),
    ],
)
def test_the_worst_status_is_the_exit_status(found: list[int], status: int) -> None:
    report = VerificationReport(subject="x")
    for one in found:
        report.fail("check", "file", "reason", Status(one))
    assert report.status == status


def test_a_self_asserted_result_is_never_proven() -> None:
    report = VerificationReport(subject="x", self_asserted=True)
    assert report.status is Status.TRUST_NOT_MET
    assert report.verdict.startswith("SELF-ASSERTED")
    report.fail("check", "file", "reason")
    assert report.status is Status.FAILED
    assert report.verdict.startswith("FAILED")


def test_lines_name_what_was_checked_and_what_not_and_end_in_the_verdict() -> None:
    report = VerificationReport(subject="a pack")
    report.hold("container", "3 files")
    report.not_checked.append("replay: no")
    report.notes.append("a note")
    report.fail("digests", "scope.json", "its SHA-256 is not the one in manifest.json")
    lines = report.lines()
    assert lines[0] == "a pack"
    assert "  container: 3 files" in lines
    assert "  replay: no" in lines
    assert "  a note" in lines
    assert "  digests: scope.json: its SHA-256 is not the one in manifest.json" in lines
    assert lines[-1].startswith("FAILED")


def test_a_report_of_nothing_says_that_nothing_was_checked() -> None:
    assert "  nothing" in VerificationReport(subject="x").lines()


def test_characters_that_a_terminal_would_obey_are_escaped() -> None:
    report = VerificationReport(subject="x\x1b[2J\u202e")
    report.fail("check", "a\nb", "\x07")
    text = "".join(report.lines())
    assert not set(text) & {"\x1b", "\u202e", "\n", "\x07"}


# --- single records ------------------------------------------------------------------------------------------------


def proof_of(made: MadePack) -> tuple[int, bytes]:
    path = min(path for path in made.files if path.startswith("proofs/"))
    return int(path.removeprefix("proofs/").removesuffix(".tlog-proof")), made.files[path]


def test_a_record_is_proven_by_its_proof_file(made: MadePack) -> None:
    leaf, proof = proof_of(made)
    report = verify_record(made.log.entries[leaf], proof, made.log.trust)
    assert report.status is Status.PROVEN
    assert f"leaf {leaf} of {len(made.log.entries)}" in report.checked[0].detail
    assert any("enforcer's signature" in sentence for sentence in report.not_checked)
    assert any("dates this log" in note for note in report.notes)


def test_another_record_is_not_proven_by_it(made: MadePack) -> None:
    leaf, proof = proof_of(made)
    assert verify_record(made.log.entries[leaf + 1], proof, made.log.trust).status is Status.FAILED


def test_a_record_under_another_trust_is_not_proven(made: MadePack) -> None:
    leaf, proof = proof_of(made)
    assert verify_record(made.log.entries[leaf], proof, TrustPolicy()).status is Status.TRUST_NOT_MET


def test_what_is_no_proof_file_is_malformed(made: MadePack) -> None:
    leaf, proof = proof_of(made)
    for data in (b"", b"x", proof[:50], proof.replace(b"index", b"indix")):
        assert verify_record(made.log.entries[leaf], data, made.log.trust).status is Status.MALFORMED
