"""Local signers: what they sign is verified by another implementation, and each key does its own work only."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from ledger.checkpoints import Checkpoint, mldsa44_message, parse_unverified_checkpoint, verify_signature
from ledger.envelopes import ED25519, MLDSA44, parse_envelope, seal_envelope
from ledger.errors import ConfigError, MalformedError, SignatureInvalidError, TrustPolicyError
from ledger.merkle import RootHash
from ledger.notes import NoteSignature, SignedNote
from ledger.signers.local import LocalEnvelopeSigner, LocalSigner
from ledger.trust import TrustPolicy
from tests.support.ledger import ORIGIN, make_key

NOW_SECONDS = 1_763_546_400
CLAIM = Checkpoint(origin=ORIGIN, size=7, root=RootHash(b"\x05" * 32))
ALGORITHMS = (ED25519, MLDSA44)


def log_signer(algorithm: str, seed: int = 1) -> LocalSigner:
    return LocalSigner(make_key("log", algorithm, seed=seed))


def note(*lines: NoteSignature, claim: Checkpoint = CLAIM) -> bytes:
    return SignedNote(claim.body(), lines).encode()


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_checkpoint_signature_meets_a_policy_that_lists_the_key(algorithm):
    signer = log_signer(algorithm)
    verified = TrustPolicy(logs=(signer.verifier_key,)).verify(note(signer.sign(CLAIM, NOW_SECONDS)))
    assert verified.signers == (signer.verifier_key,)
    assert verified.checkpoint == CLAIM


def test_two_signers_of_one_origin_stand_side_by_side():
    signers = [log_signer(algorithm) for algorithm in ALGORITHMS]
    data = note(*(signer.sign(CLAIM, NOW_SECONDS) for signer in signers))
    verified = TrustPolicy(logs=tuple(signer.verifier_key for signer in signers)).verify(data)
    assert verified.timestamps == {ORIGIN: NOW_SECONDS}


def test_ed25519_signs_the_text_and_ml_dsa_its_message_as_a_second_implementation_says():
    ed25519, mldsa = log_signer(ED25519), log_signer(MLDSA44)
    line = ed25519.sign(CLAIM, NOW_SECONDS)
    Ed25519PublicKey.from_public_bytes(ed25519.verifier_key.public_key).verify(line.signature, CLAIM.body().encode())
    line = mldsa.sign(CLAIM, NOW_SECONDS)
    assert int.from_bytes(line.signature[:8], "big") == NOW_SECONDS
    message = mldsa44_message(ORIGIN, NOW_SECONDS, CLAIM)
    MLDSA44PublicKey.from_public_bytes(mldsa.verifier_key.public_key).verify(line.signature[8:], message)


def test_ml_dsa_signatures_over_the_same_bytes_differ_and_both_hold():
    signer = log_signer(MLDSA44)
    one, other = (signer.sign(CLAIM, NOW_SECONDS) for _ in range(2))
    assert one != other
    for line in (one, other):
        TrustPolicy(logs=(signer.verifier_key,)).verify(note(line))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    "other",
    [
        Checkpoint(origin=ORIGIN, size=8, root=CLAIM.root),
        Checkpoint(origin=ORIGIN, size=7, root=RootHash(b"\x06" * 32)),
        Checkpoint(origin="log.example/other", size=7, root=CLAIM.root),
    ],
)
def test_a_signature_does_not_serve_another_checkpoint(algorithm, other):
    signer = log_signer(algorithm)
    data = parse_unverified_checkpoint(note(signer.sign(CLAIM, NOW_SECONDS), claim=other))
    with pytest.raises(SignatureInvalidError):
        verify_signature(signer.verifier_key, data, data.note.signatures[0])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_does_not_serve_another_key(algorithm):
    signer, stranger = log_signer(algorithm), log_signer(algorithm, seed=2)
    line = signer.sign(CLAIM, NOW_SECONDS)
    forged = NoteSignature(stranger.verifier_key.name, stranger.verifier_key.key_id, line.signature)
    with pytest.raises(SignatureInvalidError):
        TrustPolicy(logs=(stranger.verifier_key,)).verify(note(forged))
    with pytest.raises(TrustPolicyError):
        TrustPolicy(logs=(stranger.verifier_key,)).verify(note(line))


def test_a_signatures_time_cannot_be_changed():
    signer = log_signer(MLDSA44)
    line = signer.sign(CLAIM, NOW_SECONDS)
    later = NoteSignature(line.name, line.key_id, (NOW_SECONDS + 1).to_bytes(8, "big") + line.signature[8:])
    with pytest.raises(SignatureInvalidError):
        TrustPolicy(logs=(signer.verifier_key,)).verify(note(later))


@pytest.mark.parametrize("seconds", [-1, 2**63])
def test_a_time_that_the_format_cannot_carry_is_not_signed(seconds):
    with pytest.raises(MalformedError):
        log_signer(MLDSA44).sign(CLAIM, seconds)


@pytest.mark.parametrize("purpose", ["pack", "enforcer", "vault", "pseudonym", "spool"])
def test_a_key_of_another_purpose_signs_no_checkpoint(purpose):
    with pytest.raises(ConfigError, match=purpose):
        LocalSigner(make_key(purpose))


@pytest.mark.parametrize("algorithm", ["hmac-sha256", "xchacha20-poly1305", "xsalsa20-poly1305"])
def test_a_symmetric_key_signs_nothing(algorithm):
    with pytest.raises(ConfigError):
        LocalSigner(make_key("log", algorithm))
    with pytest.raises(ConfigError):
        LocalEnvelopeSigner(make_key("pack", algorithm))


# --- packs -----------------------------------------------------------------------------------------------------------


def test_an_envelope_signed_by_both_keys_is_verified_by_both():
    signers = [LocalEnvelopeSigner(make_key("pack", algorithm)) for algorithm in ALGORITHMS]
    envelope = parse_envelope(seal_envelope("application/json", b"{}", signers))
    envelope.verify([signer.envelope_key for signer in signers])
    with pytest.raises(TrustPolicyError):
        envelope.verify([signers[0].envelope_key])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_envelope_signature_does_not_serve_another_message(algorithm):
    signer = LocalEnvelopeSigner(make_key("pack", algorithm))
    signature = signer.sign(b"message")
    signer.envelope_key.verify(b"message", signature)
    for message in (b"messagf", b"", b"message "):
        with pytest.raises(SignatureInvalidError):
            signer.envelope_key.verify(message, signature)


@pytest.mark.parametrize("purpose", ["log", "enforcer", "vault", "pseudonym", "spool"])
def test_a_key_of_another_purpose_signs_no_pack(purpose):
    with pytest.raises(ConfigError, match=purpose):
        LocalEnvelopeSigner(make_key(purpose))
