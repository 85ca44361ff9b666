"""Log keys that AWS KMS keeps, against a fake of it that signs with real keys (`tests.support.kms` says why a fake)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.checkpoints import Checkpoint
from ledger.envelopes import ED25519, MLDSA44
from ledger.errors import ConfigError, DependencyError, SignatureInvalidError
from ledger.merkle import RootHash
from ledger.notes import NoteSignature, SignedNote
from ledger.publishing import PublishingLoop
from ledger.remote_keys import RemoteKey
from ledger.signers import aws_kms
from ledger.signers.aws_kms import fetch_public_key, open_signer
from ledger.trust import TrustPolicy
from tests.support.kms import FakeKMS, fake_kms
from tests.support.ledger import NOW_MS, ORIGIN, EmbeddedLedger

NOW_SECONDS = NOW_MS // 1000
CLAIM = Checkpoint(origin=ORIGIN, size=7, root=RootHash(b"\x05" * 32))
SPECS = {ED25519: "ECC_NIST_EDWARDS25519", MLDSA44: "ML_DSA_44"}


@pytest.fixture
def kms(monkeypatch) -> Iterator[FakeKMS]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(aws_kms, "_READ_SECONDS", 0.5)
    with fake_kms() as running:
        yield running


def remote_key(kms: FakeKMS, algorithm: str, name: str | None = None) -> RemoteKey:
    uri = kms.make(SPECS[algorithm], name or f"alias/{algorithm}")
    found, public_key = fetch_public_key(uri)
    return RemoteKey(algorithm=found, name=ORIGIN, public_key=public_key, uri=uri, created_ms=NOW_MS, simulated=True)


def note(*lines: NoteSignature) -> bytes:
    return SignedNote(CLAIM.body(), lines).encode()


@pytest.mark.parametrize("algorithm", SPECS)
def test_a_key_of_kms_signs_checkpoints_that_a_trust_policy_accepts(kms, algorithm):
    key = remote_key(kms, algorithm)
    signer = open_signer(key)
    verified = TrustPolicy(logs=(key.verifier_key,)).verify(note(signer.sign(CLAIM, NOW_SECONDS)))
    assert verified.signers == (key.verifier_key,)
    operation, given = kms.calls[-1]
    assert (operation, given["MessageType"]) == ("Sign", "RAW")


def test_a_log_with_one_key_here_and_one_in_kms_publishes_and_its_audit_is_clean(kms, tmp_path):
    key = remote_key(kms, MLDSA44)
    with EmbeddedLedger(tmp_path) as log:
        log.signers = [log.signers[0], open_signer(key)]
        log.policy = TrustPolicy(logs=tuple(signer.verifier_key for signer in log.signers))
        log.publisher = log.make_publisher()
        log.publisher.load()
        log.introduce()
        log.publish()
        report = log.audit()
        assert report.clean, report.findings


@pytest.mark.parametrize("algorithm", SPECS)
@pytest.mark.parametrize(
    ("faults", "told"),
    [
        (["ThrottlingException", "ThrottlingException"], "ThrottlingException"),
        (["AccessDeniedException"], "AccessDeniedException"),
        (["DisabledException"], "DisabledException"),
        (["KMSInvalidStateException"], "KMSInvalidStateException"),
        (["slow", "slow"], "ReadTimeoutError"),
        (["nothing"], "without a signature"),
        (["wrong"], "does not verify"),
    ],
)
def test_what_kms_does_wrong_is_a_failing_dependency_and_no_signature(kms, algorithm, faults, told):
    signer = open_signer(remote_key(kms, algorithm))
    kms.faults[:] = faults
    with pytest.raises(DependencyError, match=told):
        signer.sign(CLAIM, NOW_SECONDS)
    signer.sign(CLAIM, NOW_SECONDS)  # and it goes on afterwards


def test_one_throttled_call_is_repeated(kms):
    signer = open_signer(remote_key(kms, ED25519))
    kms.faults[:] = ["ThrottlingException"]
    signer.sign(CLAIM, NOW_SECONDS)
    assert [operation for operation, _ in kms.calls].count("Sign") == 2


def test_nobody_listening_is_a_failing_dependency(kms):
    key = remote_key(kms, ED25519)
    gone = replace(key, uri="awskms:alias/ed25519?region=eu-central-1&endpoint=http://127.0.0.1:9")
    with pytest.raises(DependencyError, match="EndpointConnectionError"):
        open_signer(gone).sign(CLAIM, NOW_SECONDS)


def test_an_alias_that_was_pointed_at_another_key_signs_nothing(kms):
    signer = open_signer(remote_key(kms, MLDSA44))
    kms.make("ML_DSA_44", "alias/ml-dsa-44")
    with pytest.raises(DependencyError, match="does not verify"):
        signer.sign(CLAIM, NOW_SECONDS)


def test_a_key_that_was_deleted_is_told(kms):
    signer = open_signer(remote_key(kms, MLDSA44))
    kms.keys.clear()
    with pytest.raises(DependencyError, match="NotFoundException"):
        signer.sign(CLAIM, NOW_SECONDS)


def test_a_key_of_another_kind_is_no_log_key(kms):
    with pytest.raises(ConfigError, match="ML_DSA_44 or ECC_NIST_EDWARDS25519"):
        fetch_public_key(kms.make("RSA_2048", "alias/rsa"))


def test_a_key_that_is_not_there_cannot_be_asked_for_its_public_half(kms):
    with pytest.raises(DependencyError, match="NotFoundException"):
        fetch_public_key(f"awskms:alias/none?region=eu-central-1&endpoint={kms.url}")


def test_a_region_that_nothing_names_is_an_error_of_configuration(kms, monkeypatch, tmp_path):
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="NoRegionError"):
        fetch_public_key("awskms:alias/none")


class CarelessSigner:
    """Signs like the signer within, with a key that is not the one it names."""

    def __init__(self, honest, other) -> None:
        self.verifier_key = honest.verifier_key
        self._other = other

    def sign(self, checkpoint: Checkpoint, timestamp_seconds: int) -> NoteSignature:
        line = self._other.sign(checkpoint, timestamp_seconds)
        return NoteSignature(line.name, self.verifier_key.key_id, line.signature)


def test_a_wrong_signature_that_a_signer_lets_through_is_never_published(kms, tmp_path):
    one, two = (open_signer(remote_key(kms, MLDSA44, f"alias/{name}")) for name in ("one", "two"))
    with EmbeddedLedger(tmp_path) as log:
        publisher = log.make_publisher(signers=[log.signers[0], CarelessSigner(one, two)])
        publisher.load()
        log.introduce()
        with pytest.raises(SignatureInvalidError):
            publisher.publish()
        assert log.published_checkpoints() == []


def test_while_kms_is_away_records_are_taken_and_published_once_it_is_back(kms, tmp_path: Path):
    key = remote_key(kms, MLDSA44)

    async def scenario(log: EmbeddedLedger) -> None:
        loop = PublishingLoop(log.make_publisher(signers=[log.signers[0], open_signer(key)]), interval_seconds=0.05)
        kms.faults[:] = ["AccessDeniedException"] * 2
        log.introduce()
        await loop.start()
        try:
            async with asyncio.timeout(20):
                while loop.trouble is None:  # noqa: ASYNC110  # the loop tells nobody of its trouble
                    await asyncio.sleep(0.01)
            assert "AccessDeniedException" in loop.trouble
            assert loop.failure is None
            log.append_heartbeat()
            published = await loop.wait_for(2, 20)
            assert published.head.size == 2
            assert loop.trouble is None
        finally:
            await loop.stop()

    with EmbeddedLedger(tmp_path, load=False) as log:
        asyncio.run(scenario(log))
