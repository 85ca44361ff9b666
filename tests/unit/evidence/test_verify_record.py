"""One record by its proof file: the entry's exact bytes, the proof, and a trust policy from outside of both."""

from __future__ import annotations

import pytest

from evidence.verification import Status
from evidence.verify import verify_record
from ledger.canonical import canonical_bytes
from ledger.proof_files import ProofFile
from ledger.records import decode_entry
from tests.conformance.reference.rfc6962 import NaiveTree
from tests.support.packs import PackLog
from tests.unit.evidence.conftest import MadePack


@pytest.fixture(scope="module")
def proved(made: MadePack) -> tuple[bytes, bytes]:
    """Return an entry and its proof file, as an auditor cuts them out of a pack."""
    path = min(path for path in made.files if path.endswith(".tlog-proof"))
    proof = made.files[path]
    index = int(proof.split(b"\n")[1].removeprefix(b"index "))
    return made.log.entries[index], proof


def proof_file(log: PackLog, index: int) -> bytes:
    """Return the proof file of any entry under the log's last checkpoint, made by the naive reference."""
    hashes = NaiveTree(log.entries).inclusion(index, len(log.entries))
    return ProofFile(index=index, path=tuple(hashes), checkpoint=log.checkpoints[-1]).encode()


def test_a_record_is_proven_by_its_proof_file(made, proved):
    report = verify_record(*proved, made.log.trust)
    assert report.status is Status.PROVEN
    assert [check.name for check in report.checked] == ["proof", "checkpoint"]


def test_what_a_proof_file_cannot_prove_is_said(made, proved):
    report = verify_record(*proved, made.log.trust)
    assert any("the enforcer's signature" in sentence for sentence in report.not_checked)
    assert any("no witness is trusted" in note for note in report.notes)


def test_a_simulated_record_is_never_called_proven_alone(made, proved):
    report = verify_record(*proved, made.log.trust)
    assert report.simulated
    assert report.lines()[-1] == "PROVEN, and SIMULATED: evidence of nothing real"


def test_a_real_record_is_not_called_simulated():
    log = PackLog(simulated=False)
    log.begin()
    log.publish()
    proof = proof_file(log, 1)
    report = verify_record(log.entries[1], proof, log.trust)
    log.close()
    assert not decode_entry(log.entries[1]).simulated
    assert (report.status, report.simulated, report.lines()[-1]) == (Status.PROVEN, False, "PROVEN")


def test_every_changed_byte_of_the_entry_fails(made, proved):
    entry, proof = proved
    for position in range(len(entry)):
        changed = bytearray(entry)
        changed[position] ^= 1
        assert verify_record(bytes(changed), proof, made.log.trust).status is Status.FAILED, position


@pytest.mark.parametrize("end", [b"\n", b" ", b"\0"])
def test_an_entry_with_something_behind_it_fails(made, proved, end):
    entry, proof = proved
    assert verify_record(entry + end, proof, made.log.trust).status is Status.FAILED


def test_the_same_record_in_another_spelling_fails(made, proved):
    entry, proof = proved
    assert verify_record(entry.replace(b":", b": ", 1), proof, made.log.trust).status is Status.FAILED


def test_every_changed_byte_of_the_proof_file_is_noticed(made, proved):
    entry, proof = proved
    for position in range(len(proof)):
        changed = bytearray(proof)
        changed[position] ^= 1
        assert verify_record(entry, bytes(changed), made.log.trust).status is not Status.PROVEN, position


def test_another_record_of_the_same_log_fails(made, proved):
    entry, proof = proved
    other = next(one for one in made.log.entries if one != entry)
    assert verify_record(other, proof, made.log.trust).status is Status.FAILED


def test_a_record_of_a_log_that_is_not_trusted_does_not_meet_the_trust(proved):
    stranger = PackLog(seed=100)
    report = verify_record(*proved, stranger.trust)
    stranger.close()
    assert report.status is Status.TRUST_NOT_MET
    assert report.checked == []


@pytest.mark.parametrize("proof", [b"", b"not a proof", b"\xff" * 100])
def test_what_is_no_proof_file_is_malformed(made, proved, proof):
    assert verify_record(proved[0], proof, made.log.trust).status is Status.MALFORMED


def test_an_entry_that_is_no_record_is_proven_to_stand_there_and_named():
    log = PackLog()
    log.begin()
    log.entries.append(canonical_bytes({"schema_version": 99}))
    log.publish()
    index = len(log.entries) - 1
    report = verify_record(log.entries[index], proof_file(log, index), log.trust)
    log.close()
    assert report.status is Status.PROVEN
    assert any("no record of a version that this program reads" in note for note in report.notes)
