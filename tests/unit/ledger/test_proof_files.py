"""`.tlog-proof` files."""

from __future__ import annotations

import dataclasses

import pytest

from ledger.errors import (
    MalformedError,
    ProofError,
    RootMismatchError,
    SignatureInvalidError,
    TrustPolicyError,
    VerificationError,
)
from ledger.proof_files import MAX_EXTRA_BYTES, ProofFile, parse_proof_file, verify_entry
from ledger.trust import TrustPolicy
from tests.conformance.reference.c2sp import b64
from tests.conformance.requirements import requirement
from tests.fakes import LogSimulator

_LOG = LogSimulator()
_LOG.grow(b"entry %d" % number for number in range(300))
_DATA = _LOG.proof_file(7, 300)
_HEAD, _CHECKPOINT = _DATA.split(b"\n\n", 1)
_LINES = _HEAD.split(b"\n")


def rebuilt(*lines: bytes, checkpoint: bytes = _CHECKPOINT) -> bytes:
    return b"\n".join(lines) + b"\n\n" + checkpoint


class TestFormat:
    @requirement("proof-01", "proof-03", "proof-04", "proof-05")
    def test_a_file_is_read_and_written_back(self) -> None:
        proof = parse_proof_file(_DATA)
        assert (proof.index, proof.extra) == (7, None)
        assert proof.path == _LOG.inclusion(7, 300)
        assert proof.checkpoint == _CHECKPOINT
        assert proof.encode() == _DATA
        assert _LINES[:2] == [b"c2sp.org/tlog-proof@v1", b"index 7"]
        assert _LINES[2] == b64(_LOG.inclusion(7, 300)[0]).encode()

    def test_the_proof_of_a_single_entry_has_no_hashes(self) -> None:
        log = LogSimulator()
        log.grow([b"only"])
        data = log.proof_file(0, 1)
        assert data.startswith(b"c2sp.org/tlog-proof@v1\nindex 0\n\nlog.example/simulated\n1\n")
        proof = parse_proof_file(data)
        assert proof.path == ()
        verify_entry(b"only", proof, log.policy)

    @requirement("proof-02", "proof-08")
    @pytest.mark.parametrize("extra", [b"", b"x", b"\n\n", bytes(range(256)), b"\x00" * MAX_EXTRA_BYTES])
    def test_extra_data_is_carried(self, extra) -> None:
        data = dataclasses.replace(parse_proof_file(_DATA), extra=extra).encode()
        assert data.split(b"\n")[1] == b"extra " + b64(extra).encode()
        assert parse_proof_file(data).extra == extra
        assert parse_proof_file(data).encode() == data

    @requirement("proof-08")
    def test_extra_data_that_the_public_parser_could_not_read_is_malformed(self) -> None:
        extra = b64(b"\x00" * (MAX_EXTRA_BYTES + 1)).encode()
        with pytest.raises(MalformedError, match="49152"):
            parse_proof_file(rebuilt(_LINES[0], b"extra " + extra, *_LINES[1:]))

    @requirement("proof-01", "proof-02", "proof-03", "proof-04", "proof-05")
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\n\n",
            _HEAD,
            _HEAD + b"\n",
            _HEAD + b"\n\n",
            _HEAD + b"\n" + _CHECKPOINT,
            _HEAD + b"\n\n\n" + _CHECKPOINT,
            b"\n" + _DATA,
            _DATA[:-1],
            _DATA + b"\n",
            _DATA.replace(b"\n", b"\r\n"),
            rebuilt(b"c2sp.org/tlog-proof@v2", *_LINES[1:]),
            rebuilt(b"C2SP.org/tlog-proof@v1", *_LINES[1:]),
            rebuilt(b"c2sp.org/tlog-proof@v1 ", *_LINES[1:]),
            rebuilt(*_LINES[1:]),
            rebuilt(_LINES[0], *_LINES[2:]),
            rebuilt(_LINES[0]),
            rebuilt(_LINES[0], b"index", *_LINES[2:]),
            rebuilt(_LINES[0], b"index ", *_LINES[2:]),
            rebuilt(_LINES[0], b"index -1", *_LINES[2:]),
            rebuilt(_LINES[0], b"index +7", *_LINES[2:]),
            rebuilt(_LINES[0], b"index 07", *_LINES[2:]),
            rebuilt(_LINES[0], b"index  7", *_LINES[2:]),
            rebuilt(_LINES[0], b"index 7 ", *_LINES[2:]),
            rebuilt(_LINES[0], b"index 0x7", *_LINES[2:]),
            rebuilt(_LINES[0], b"index 7_0", *_LINES[2:]),
            rebuilt(_LINES[0], b"index " + b"9" * 20, *_LINES[2:]),
            rebuilt(_LINES[0], b"Index 7", *_LINES[2:]),
            rebuilt(_LINES[0], b"index 7", b"index 7", *_LINES[2:]),
            rebuilt(_LINES[0], b"index 7", b"extra eA==", *_LINES[2:]),
            rebuilt(_LINES[0], b"extra", *_LINES[1:]),
            rebuilt(_LINES[0], b"extra x", *_LINES[1:]),
            rebuilt(_LINES[0], b"extra eB==", *_LINES[1:]),
            rebuilt(_LINES[0], b"extra eA==", b"extra eA==", *_LINES[1:]),
            rebuilt(_LINES[0], b"extra eA=="),
            rebuilt(*_LINES[:2], b64(b"\x00" * 31).encode()),
            rebuilt(*_LINES[:2], b64(b"\x00" * 33).encode()),
            rebuilt(*_LINES[:2], b64(b"\x00" * 64).encode()),
            rebuilt(*_LINES[:2], b" " + _LINES[2]),
            rebuilt(*_LINES[:2], _LINES[2][:-1]),
            rebuilt(*_LINES[:2], _LINES[2][:-2] + b"_="),
            rebuilt(*_LINES[:2], *[_LINES[2]] * 64),
            rebuilt(*_LINES[:2], b"\xc3\xa9"),
            rebuilt(*_LINES, checkpoint=b"no checkpoint\n"),
            rebuilt(*_LINES, checkpoint=_CHECKPOINT.replace(b"\n300\n", b"\n0300\n")),
            rebuilt(*_LINES, checkpoint=_CHECKPOINT.split(b"\n\n")[0] + b"\n"),
        ],
    )
    def test_a_file_of_another_form_is_malformed(self, data) -> None:
        with pytest.raises(MalformedError):
            parse_proof_file(data)

    def test_63_hashes_are_read(self) -> None:
        assert len(parse_proof_file(rebuilt(*_LINES[:2], *[_LINES[2]] * 63)).path) == 63


class TestVerification:
    @requirement("proof-07", "tiles-11")
    @pytest.mark.parametrize("index", [0, 1, 255, 256, 299])
    def test_an_entry_of_the_log_is_accepted(self, index) -> None:
        proof = parse_proof_file(_LOG.proof_file(index, 300))
        verified = verify_entry(_LOG.entries[index], proof, _LOG.policy)
        assert verified.head == _LOG.head(300)

    @requirement("proof-06")
    def test_extra_data_changes_no_verdict(self) -> None:
        proof = parse_proof_file(_DATA)
        with_extra = dataclasses.replace(proof, extra=b"index 8")
        assert verify_entry(_LOG.entries[7], with_extra, _LOG.policy).head == _LOG.head(300)
        with pytest.raises(RootMismatchError):
            verify_entry(_LOG.entries[8], with_extra, _LOG.policy)

    @requirement("proof-07")
    @pytest.mark.parametrize("entry", [b"entry 8", b"entry 7 ", b"", b"Entry 7"])
    def test_another_entry_is_refused(self, entry) -> None:
        with pytest.raises(RootMismatchError):
            verify_entry(entry, parse_proof_file(_DATA), _LOG.policy)

    @requirement("proof-07")
    @pytest.mark.parametrize("index", [6, 8, 263, 299])
    def test_another_index_is_refused(self, index) -> None:
        with pytest.raises(VerificationError):
            verify_entry(_LOG.entries[7], dataclasses.replace(parse_proof_file(_DATA), index=index), _LOG.policy)

    @pytest.mark.parametrize("index", [300, 2**63, 10**19 - 1])
    def test_an_index_beyond_the_tree_is_refused(self, index) -> None:
        data = rebuilt(_LINES[0], b"index %d" % index, *_LINES[2:])
        with pytest.raises(ProofError, match="is not in a tree of 300"):
            verify_entry(_LOG.entries[7], parse_proof_file(data), _LOG.policy)

    @requirement("proof-07")
    def test_a_checkpoint_that_does_not_meet_the_policy_is_refused_before_the_proof(self) -> None:
        proof = parse_proof_file(_DATA)
        with pytest.raises(TrustPolicyError):
            verify_entry(_LOG.entries[7], proof, LogSimulator("log.example/other").policy)
        with pytest.raises(TrustPolicyError):
            verify_entry(b"wrong", proof, TrustPolicy())
        with pytest.raises(TrustPolicyError):
            verify_entry(_LOG.entries[7], proof, LogSimulator(seed=9).policy)

    @requirement("proof-07")
    def test_a_root_put_in_by_somebody_without_the_keys_is_refused(self) -> None:
        forged = LogSimulator(seed=9)
        forged.grow([b"forged"] * 300)
        root, false_root = b64(_LOG.head(300).root).encode(), b64(forged.head(300).root).encode()
        proof = ProofFile(index=7, path=forged.inclusion(7, 300), checkpoint=_CHECKPOINT.replace(root, false_root))
        with pytest.raises(SignatureInvalidError):
            verify_entry(b"forged", proof, _LOG.policy)

    @requirement("proof-07")
    @pytest.mark.parametrize("old", [8, 256, 299])
    def test_a_proof_does_not_hold_under_another_checkpoint_of_the_same_log(self, old) -> None:
        proof = parse_proof_file(_DATA)
        with pytest.raises(VerificationError):
            verify_entry(_LOG.entries[7], dataclasses.replace(proof, checkpoint=_LOG.checkpoint(old)), _LOG.policy)
