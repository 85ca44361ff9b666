"""A checkpoint from before a key was disowned is compared by the keys that the log had then; nothing else is let in."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.audit_report import AuditReport, Depth
from ledger.auditor import Auditor
from ledger.bodies import KeyEvent
from ledger.checkpoints import Checkpoint
from ledger.envelopes import ED25519, MLDSA44
from ledger.keys import LocalKey
from ledger.merkle import RootHash
from ledger.notes import SignedNote, encode_base64
from ledger.records import encode_record
from ledger.signers.local import LocalSigner
from ledger.trust import TrustPolicy
from tests.support.forge import write_log
from tests.support.ledger import LOG_ID, NOW_MS, ORIGIN, EmbeddedLedger, Enforcer, make_key

OLD, NEW, PQ = (make_key("log", ED25519, seed=1), make_key("log", ED25519, seed=41), make_key("log", MLDSA44, seed=2))
COUNTS_UP_TO, DECLARED_AT = 4, 8
POLICY = TrustPolicy(logs=(NEW.verifier_key, PQ.verifier_key))
"""As it lies beside the keys after the old one was disowned."""


def event(key: LocalKey, action: str, last_size: int | None = None, *, public: bool = False) -> KeyEvent:
    return KeyEvent(
        action=action,
        purpose="log",
        algorithm=key.algorithm,
        subject=ORIGIN,
        key_id=key.key_id,
        public_key=encode_base64(key.public_key) if public else None,
        last_size=last_size,
    )


class Disowned:
    """A log of ten leaves that replaced its Ed25519 key at leaf 7 and disowned the old one, after size 4, at leaf 8."""

    def __init__(self, ledger: EmbeddedLedger) -> None:
        service = Enforcer(ledger.service.enforcer_id)
        bodies = [
            service.introduction(),
            *(event(key, "created", public=True) for key in (OLD, PQ)),
            *(service.heartbeat() for _ in range(4)),
            event(NEW, "created", public=True),
            event(OLD, "compromised", COUNTS_UP_TO),
            service.heartbeat(),
        ]
        self.ledger = ledger
        self.entries = [encode_record(service.record(body)) for body in bodies]
        self.publish(self.entries)

    def publish(self, entries: list[bytes]) -> bytes:
        signers = [LocalSigner(NEW), LocalSigner(PQ)]
        return write_log(self.ledger.root / "logs" / LOG_ID, entries, signers, NOW_MS // 1000)

    def kept(self, size: int, *keys: LocalKey) -> bytes:
        elsewhere = self.ledger.root / "elsewhere"
        return write_log(elsewhere, self.entries[:size], [LocalSigner(key) for key in keys], NOW_MS // 1000)

    def audit(self, *kept: bytes, depth: Depth = Depth.RECORDS) -> AuditReport:
        return Auditor(LOG_ID, self.ledger.tiles, POLICY, other_checkpoints=kept, depth=depth).audit()


@pytest.fixture
def log(tmp_path: Path):
    with EmbeddedLedger(tmp_path) as ledger:
        yield Disowned(ledger)


def told_of_kept(report: AuditReport) -> list[str]:
    return [notice.reason for notice in report.notices if notice.place == "a kept checkpoint"]


@pytest.mark.parametrize("size", [3, COUNTS_UP_TO])
def test_a_checkpoint_of_the_time_before_the_compromise_is_compared_and_nothing_is_said_of_it(log, size):
    report = log.audit(log.kept(size, OLD, PQ))
    assert (report.findings, told_of_kept(report), report.checked["roots"]) == ([], [], 2)


@pytest.mark.parametrize("size", [COUNTS_UP_TO + 1, DECLARED_AT])
def test_one_between_the_compromise_and_its_declaration_is_compared_and_noted(log, size):
    report = log.audit(log.kept(size, OLD, PQ))
    assert report.findings == []
    (told,) = told_of_kept(report)
    assert f"checkpoint {size} of {ORIGIN} is not signed with ed25519" in told


@pytest.mark.parametrize("size", [DECLARED_AT + 1, 10])
def test_one_of_a_tree_that_holds_the_declaration_is_found(log, size):
    (found,) = log.audit(log.kept(size, OLD, PQ)).findings
    assert (found.check, found.place) == ("checkpoint", "a kept checkpoint")
    assert OLD.key_id in found.reason


@pytest.mark.parametrize("depth", [Depth.HASHES, Depth.RECORDS])
@pytest.mark.parametrize("size", [COUNTS_UP_TO, DECLARED_AT])
def test_another_tree_that_a_thief_signed_with_the_old_keys_is_found(log, size, depth):
    forged = Checkpoint(origin=ORIGIN, size=size, root=RootHash(bytes(32)))
    lines = tuple(LocalSigner(key).sign(forged, NOW_MS // 1000) for key in (OLD, PQ))
    report = log.audit(SignedNote(forged.body(), lines).encode(), depth=depth)
    assert [(found.check, found.place) for found in report.findings] == [("root", f"checkpoint {size}")]


@pytest.mark.parametrize("keys", [(OLD,), (PQ,), ()], ids=["old", "pq", "nobody"])
def test_one_that_lacks_an_algorithm_that_the_log_had_is_found(log, keys):
    stranger = make_key("log", ED25519, seed=77)
    (found,) = log.audit(log.kept(COUNTS_UP_TO, *keys, stranger)).findings
    assert (found.check, found.place) == ("checkpoint", "a kept checkpoint")


def test_a_key_that_nobody_introduced_is_not_recognised(log):
    (found,) = log.audit(log.kept(COUNTS_UP_TO, make_key("log", ED25519, seed=77), PQ)).findings
    assert found.check == "checkpoint"


def test_a_log_never_vouches_for_its_own_published_checkpoint(log):
    log.publish(log.entries)
    folder = log.ledger.root / "logs" / LOG_ID
    write_log(folder, log.entries[:COUNTS_UP_TO], [LocalSigner(OLD), LocalSigner(PQ)], NOW_MS // 1000)
    (found,) = log.audit().findings
    assert (found.check, found.place) == ("checkpoint", "checkpoint")


def test_a_checkpoint_of_another_log_is_not_recognised(log):
    (found,) = log.audit(log.kept(COUNTS_UP_TO, OLD, PQ).replace(ORIGIN.encode(), b"other.example/log")).findings
    assert found.check == "checkpoint"


def test_without_a_published_tree_nobody_tells_of_old_keys(log):
    kept = log.kept(COUNTS_UP_TO, OLD, PQ)
    (log.ledger.root / "logs" / LOG_ID / "checkpoint").unlink()
    assert [found.check for found in log.audit(kept).findings] == ["checkpoint"]


def test_a_checkpoint_from_before_an_algorithm_was_taken_up_is_recognised(tmp_path):
    with EmbeddedLedger(tmp_path) as ledger:
        service = Enforcer(ledger.service.enforcer_id)
        bodies = [service.introduction(), event(OLD, "created", public=True), event(PQ, "created", public=True)]
        entries = [encode_record(service.record(body)) for body in bodies]
        kept = write_log(ledger.root / "elsewhere", entries[:2], [LocalSigner(OLD)], NOW_MS // 1000)
        write_log(ledger.root / "logs" / LOG_ID, entries, [LocalSigner(OLD), LocalSigner(PQ)], NOW_MS // 1000)
        policy = TrustPolicy(logs=(OLD.verifier_key, PQ.verifier_key))
        report = Auditor(LOG_ID, ledger.tiles, policy, other_checkpoints=[kept], depth=Depth.RECORDS).audit()
    assert (report.findings, report.checked["roots"]) == ([], 2)
