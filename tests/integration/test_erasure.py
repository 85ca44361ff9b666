"""Erasure: keys and salts are gone for every copy of the database, the log and its proofs stay as they were."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import nacl.exceptions
import nacl.secret
import pytest

from ledger.anchors.directory import DirectoryAnchor
from ledger.audit_report import AuditReport
from ledger.auditor import Auditor
from ledger.bodies import ErasureEvent, Tombstone
from ledger.commitments import commitment_digest, pseudonym
from ledger.errors import ErasedError, SignatureInvalidError, StorageError
from ledger.ports import Acknowledgement, Draft, commit
from ledger.proof_files import parse_proof_file, verify_entry
from ledger.records import Record, encode_record, sign_record
from ledger.stores.subject_keys import DirectorySubjectKeys
from ledger.subjects import bucket_of, subjects_of
from service.auth import Role
from service.ingest import Submission
from service.keyset import load_key_set, trust_policy
from tests.support.ledger import LOG_ID, Enforcer, make_decision, pending
from tests.support.service import (
    EnforcerClient,
    RunningService,
    keep_database_and_keys,
    put_database_and_keys_back,
    start_service,
)

SESSION, OTHER_SESSION = "5" * 32, "9" * 32
BASIS = "request 4711 under Art. 17"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    with start_service(tmp_path) as running:
        yield running


@pytest.fixture
def gateway(service: RunningService) -> EnforcerClient:
    return service.enforcer()


def user_of(service: RunningService, name: str) -> str:
    return pseudonym(service.services.keys.pseudonym.seed, "user", name)


def record_of(service: RunningService, record_id: str) -> Record:
    index = service.services.catalog.index_of(LOG_ID, record_id)
    return service.services.reader.record(index)


def decide(service: RunningService, gateway: EnforcerClient, name: str | None, session: str = SESSION) -> Record:
    user = None if name is None else user_of(service, name)
    return record_of(service, gateway.decide(user=user, session=session))


def erase(service: RunningService, *, status: int = 200, **who: object) -> dict[str, object]:
    with service.client(Role.ADMIN) as admin:
        answer = admin.post("/v1/erasures", json={"basis": BASIS, **who})
    assert answer.status_code == status, answer.text
    return answer.json()


def audit(service: RunningService) -> AuditReport:
    service.wait_until_published()
    services = service.services
    return Auditor(
        LOG_ID, services.tiles, trust_policy(services.keys), catalog=services.catalog, vault=services.vault
    ).audit()


def bodies(service: RunningService, kind: str) -> list[object]:
    return [service.services.reader.record(i).body for i in service.services.catalog.of_type(LOG_ID, kind)]


def openable(service: RunningService, record: Record) -> bool:
    try:
        service.services.vault.open(record, "message")
    except ErasedError:
        return False
    return True


# --- one erasure -----------------------------------------------------------------------------------------------------


def test_an_erased_subject_is_unreadable_and_others_are_not(service, gateway):
    hers, his = decide(service, gateway, "alice"), decide(service, gateway, "bob", OTHER_SESSION)
    done = erase(service, user="alice")
    assert (openable(service, hers), openable(service, his)) == (False, True)
    assert done["payloads"] == 2
    (ordered,), (buried,) = bodies(service, "erasure"), bodies(service, "tombstone")
    assert isinstance(ordered, ErasureEvent)
    assert isinstance(buried, Tombstone)
    assert ordered.subject == buried.subject == user_of(service, "alice")
    assert (buried.payloads, buried.reason) == (2, "erasure")
    assert list(ordered.key_ids) == done["key_ids"]


def test_the_audit_and_old_proofs_pass_after_an_erasure(service, gateway):
    record = decide(service, gateway, "alice")
    with service.client() as auditor:
        old = auditor.get(f"/v1/decisions/{record.record_id}/proof")
    erase(service, user="alice")
    report = audit(service)
    assert report.findings == []
    assert report.checked["erased payloads"] == 2
    with service.client() as auditor:
        new = auditor.get(f"/v1/decisions/{record.record_id}/proof")
    for proof in (old, new):
        verify_entry(encode_record(record), parse_proof_file(proof.content), trust_policy(service.services.keys))


def test_an_erased_payload_is_gone_by_http(service, gateway):
    record = decide(service, gateway, "alice")
    erase(service, user="alice")
    with service.client(Role.RESPONDER) as responder:
        answer = responder.post(f"/v1/decisions/{record.record_id}/openings", json={"purpose": "an inquiry"})
    assert (answer.status_code, answer.json()["type"]) == (410, "urn:tallystick:problem:erased")


def test_why_somebody_was_erased_can_still_be_read(service, gateway):
    decide(service, gateway, "alice")
    erase(service, user="alice")
    for kind in ("erasure", "tombstone"):
        (index,) = service.services.catalog.of_type(LOG_ID, kind)
        record = service.services.reader.record(index)
        assert service.services.vault.open(record, "basis").payload == BASIS.encode()


def test_a_payload_of_several_subjects_goes_when_any_is_erased(service, gateway):
    both = decide(service, gateway, "alice", SESSION)
    mine, apart = decide(service, gateway, "bob", SESSION), decide(service, gateway, "alice", OTHER_SESSION)
    assert subjects_of(both) == (user_of(service, "alice"), SESSION)
    erase(service, pseudonym=SESSION)
    assert [openable(service, record) for record in (both, mine, apart)] == [False, False, True]
    assert audit(service).findings == []


def test_a_new_payload_of_an_erased_subject_has_a_new_key_that_opens_nothing_old(service, gateway):
    old = decide(service, gateway, "alice")
    first = erase(service, user="alice")
    new = decide(service, gateway, "alice")
    assert (openable(service, old), openable(service, new)) == (False, True)
    assert audit(service).findings == []
    second = erase(service, user="alice")
    assert second["key_ids"] != first["key_ids"]
    assert second["payloads"] == 2
    assert not openable(service, new)
    assert audit(service).findings == []


def test_what_is_destroyed_after_the_tombstone_without_a_second_one_is_a_finding(service, gateway):
    decide(service, gateway, "alice")
    erase(service, user="alice")
    new = decide(service, gateway, "alice")
    keys = service.services.vault._keys
    keys.destroy(LOG_ID, {user_of(service, "alice"): frozenset({keys.get(LOG_ID, user_of(service, "alice")).key_id})})
    assert {finding.check for finding in audit(service).findings} == {"vault"}
    assert not openable(service, new)


def test_a_payload_that_was_on_its_way_while_its_key_was_destroyed_gets_a_tombstone_of_its_own(service, gateway):
    decide(service, gateway, "alice")
    services = service.services
    submission = gateway_submission(service, gateway, "alice")
    pending = services.admission.admit([submission], "gateway-1")
    erase(service, user="alice")
    service.run(lambda: services.sequencer.append(pending))
    assert {finding.check for finding in audit(service).findings} == {"vault"}
    assert service.run(services.lifecycle.keeper.sweep) == 1
    assert audit(service).findings == []
    assert service.run(services.lifecycle.keeper.sweep) == 0


def gateway_submission(service: RunningService, gateway: EnforcerClient, name: str):
    body, openings = make_decision(user=user_of(service, name), session=SESSION)
    record = gateway.record(body)
    return Submission(record, encode_record(record), {opening.field: opening for opening in openings})


# --- interrupted -----------------------------------------------------------------------------------------------------


def break_off(service: RunningService, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Let the step of an erasure fail that comes after its order was recorded."""
    keeper = service.services.lifecycle.keeper
    if step == "tombstone":
        append = keeper._sink.append

        async def refuse(drafts: list[Draft]) -> list[Acknowledgement]:
            if any(isinstance(draft.body, Tombstone) for draft in drafts):
                raise StorageError("the disk is gone")
            return await append(drafts)

        monkeypatch.setattr(keeper._sink, "append", refuse)
        return

    def fail(*_: object) -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(keeper._keys if step == "destroy" else keeper._archive, step, fail)


@pytest.mark.parametrize("step", ["destroy", "tombstone", "shred"])
def test_an_erasure_that_was_interrupted_is_finished_before_the_service_answers(tmp_path, monkeypatch, step):
    with start_service(tmp_path) as service:
        gateway = service.enforcer()
        record, his = decide(service, gateway, "alice"), decide(service, gateway, "bob", OTHER_SESSION)
        break_off(service, monkeypatch, step)
        erase(service, status=503, user="alice")
    monkeypatch.undo()
    with start_service(tmp_path) as service:
        assert (openable(service, record), openable(service, his)) == (False, True)
        assert len(bodies(service, "erasure")) == len(bodies(service, "tombstone")) == 1
        assert service.services.vault._store.payload(LOG_ID, record.record_id, "message").ciphertext == b""
        assert audit(service).findings == []
    with start_service(tmp_path) as service:
        assert len(bodies(service, "tombstone")) == 1


@pytest.mark.parametrize("step", ["destroy", "tombstone", "shred"])
def test_an_erasure_that_failed_can_be_ordered_again_at_once(service, gateway, monkeypatch, step):
    record = decide(service, gateway, "alice")
    break_off(service, monkeypatch, step)
    erase(service, status=503, user="alice")
    monkeypatch.undo()
    if step == "shred":
        erase(service, user="alice")
    else:
        assert erase(service, user="alice")["payloads"] == 2
    assert not openable(service, record)
    assert audit(service).findings == []


def test_an_order_that_the_service_did_not_sign_destroys_nothing(service, gateway):
    """Whoever can write rows of the database, but has no key, makes nobody disappear."""
    hers = decide(service, gateway, "alice")
    keeper = service.services.lifecycle.keeper
    key = keeper._keys.get(LOG_ID, subjects_of(hers)[0])
    stranger = Enforcer("service", LOG_ID, seed=99, epoch="e" * 32, time_ms=hers.time_ms)
    basis, _ = commit("basis", bytes(16), b"none of yours")
    order = ErasureEvent(
        subject=subjects_of(hers)[0], actor="4" * 32, actor_role="admin", basis=basis, key_ids=(key.key_id,)
    )
    forged = msgspec.structs.replace(stranger.record(order), tenant=hers.tenant, environment=hers.environment)
    service.run(lambda: service.services.sequencer.append([pending(sign_record(forged, stranger.key))]))
    with pytest.raises(SignatureInvalidError):
        keeper.apply()
    assert openable(service, hers)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.RESPONDER, Role.APPROVER])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/erasures"), ("POST", "/v1/holds"), ("GET", "/v1/holds"), ("POST", "/v1/expiries")],
)
def test_only_an_administrator_erases_holds_and_expires(service, role, method, path):
    with service.client(role) as client:
        assert client.request(method, path, json={"user": "alice", "basis": BASIS}).status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "alice"},
        {"basis": BASIS},
        {"user": "alice", "basis": "short"},
        {"user": "alice", "pseudonym": "6" * 32, "basis": BASIS},
        {"pseudonym": "alice", "basis": BASIS},
        {"user": "alice", "basis": BASIS, "force": True},
    ],
)
def test_an_order_without_subject_or_basis_is_refused(service, body):
    with service.client(Role.ADMIN) as admin:
        assert admin.post("/v1/erasures", json=body).status_code == 422
    assert bodies(service, "erasure") == []


def test_a_subject_of_whom_nothing_is_kept_leaves_no_record(service, gateway):
    decide(service, gateway, "alice")
    assert "nothing is kept" in str(erase(service, status=404, user="zoe")["detail"])
    assert bodies(service, "erasure") == bodies(service, "tombstone") == []


# --- copies of the database ------------------------------------------------------------------------------------------


def test_backups_the_log_files_freed_pages_and_the_vault_key_open_nothing_of_an_erased_subject(tmp_path):
    """The attacker has every byte of the database, before and after, the vault key, and the keys that are left."""
    with start_service(tmp_path) as service:
        gateway = service.enforcer()
        hers, his = decide(service, gateway, "alice"), decide(service, gateway, "bob", OTHER_SESSION)
        known = service.services.vault.open(hers, "message")
        sealed = service.services.vault._store.payload(LOG_ID, hers.record_id, "message").ciphertext
        backup = tmp_path / "backup"
        backup.mkdir()
        for path in (tmp_path / "data").glob("ledger.db*"):
            shutil.copy(path, backup)
        erase(service, user="alice")
        vault_key = service.services.keys.vault
        after = b"".join(path.read_bytes() for path in sorted((tmp_path / "data").glob("ledger.db*")))
    before = b"".join(path.read_bytes() for path in sorted(backup.iterdir()))
    left = list((tmp_path / "keys").rglob("*"))
    files = [path.read_bytes() for path in left if path.is_file()]
    for place in (before, after, *files):
        assert known.salt not in place
        assert known.payload not in place
    # The backup is whole: with every key it would open.
    assert sealed[-64:] in before
    keys = DirectorySubjectKeys(tmp_path / "keys" / "subjects", vault_key)
    with pytest.raises(ErasedError):
        keys.get(LOG_ID, subjects_of(hers)[0])
    assert keys.get(LOG_ID, subjects_of(his)[0]).value
    candidates = [keys._unwrap(path.read_bytes(), LOG_ID, name).value for path, name in _named_keys(keys, hers, his)]
    assert len(candidates) >= 3
    for key in [*candidates, vault_key.seed]:
        for start in range(len(sealed) - 40):
            with pytest.raises(nacl.exceptions.CryptoError):
                nacl.secret.Aead(key).decrypt(sealed[start:])
    # Whoever knows the payload, byte for byte, cannot confirm it: the commitment is salted with what is gone.
    digest = bytes.fromhex(hers.body.message.digest)
    guesses = [
        bytes(16),
        *(hashlib.sha256(place[i : i + 4096]).digest()[:16] for place in (before, after) for i in (0,)),
    ]
    guesses += [after[i : i + 16] for i in range(len(after) - 16)][:200_000]
    assert all(commitment_digest("message", salt, known.payload) != digest for salt in guesses)
    assert commitment_digest("message", known.salt, known.payload) == digest


def _named_keys(keys: DirectorySubjectKeys, *records: Record):
    names = {name for record in records for name in (*subjects_of(record), bucket_of(record).name)}
    return [(keys._path(LOG_ID, name), name) for name in sorted(names) if keys._path(LOG_ID, name).exists()]


# --- restores --------------------------------------------------------------------------------------------------------


def test_keys_that_come_back_from_a_backup_are_destroyed_before_the_service_answers(tmp_path):
    with start_service(tmp_path) as service:
        gateway = service.enforcer()
        hers, his = decide(service, gateway, "alice"), decide(service, gateway, "bob", OTHER_SESSION)
        shutil.copytree(tmp_path / "keys" / "subjects", tmp_path / "kept")
        erase(service, user="alice")
    shutil.copytree(tmp_path / "kept", tmp_path / "keys" / "subjects", dirs_exist_ok=True)
    restored = DirectorySubjectKeys(tmp_path / "keys" / "subjects", load_key_set(tmp_path / "keys", None).vault)
    assert restored.get(LOG_ID, subjects_of(hers)[0])
    with start_service(tmp_path) as service:
        assert (openable(service, hers), openable(service, his)) == (False, True)
        assert audit(service).findings == []


def test_the_key_that_an_erased_subject_got_afterwards_survives_a_restart(tmp_path):
    with start_service(tmp_path) as service:
        gateway = service.enforcer()
        decide(service, gateway, "alice")
        erase(service, user="alice")
        new = decide(service, gateway, "alice")
    with start_service(tmp_path) as service:
        assert openable(service, new)
        assert audit(service).findings == []


def test_a_database_from_before_an_erasure_serves_nobody_and_its_keys_are_gone_all_the_same(tmp_path):
    """The operator puts database and keys back to before the erasure; tiles and anchor know better."""
    with start_service(tmp_path) as service:
        gateway = service.enforcer()
        hers = decide(service, gateway, "alice")
        service.wait_until_published()
    keep_database_and_keys(tmp_path)
    with start_service(tmp_path) as service:
        erase(service, user="alice")
        service.wait_until_published()
    put_database_and_keys_back(tmp_path)
    with pytest.raises(SystemExit), start_service(tmp_path):
        pass
    keys = DirectorySubjectKeys(tmp_path / "keys" / "subjects", load_key_set(tmp_path / "keys", None).vault)
    with pytest.raises(ErasedError):
        keys.get(LOG_ID, subjects_of(hers)[0])
    assert DirectoryAnchor(tmp_path / "data" / "anchor").sizes(LOG_ID)


# --- who has seen it -------------------------------------------------------------------------------------------------


def test_an_erasure_lists_who_opened_payloads_of_the_subject(service, gateway):
    hers, his = decide(service, gateway, "alice"), decide(service, gateway, "bob", OTHER_SESSION)
    with service.client(Role.RESPONDER) as responder:
        for record in (hers, his):
            answer = responder.post(f"/v1/decisions/{record.record_id}/openings", json={"purpose": "an inquiry"})
            assert answer.status_code == 200
    done = erase(service, user="alice")
    actor = pseudonym(service.services.keys.pseudonym.seed, "actor", "test-responder")
    assert [(item["record_id"], item["actor"]) for item in done["openings"]] == [(hers.record_id, actor)]
    assert done["packs"] == []


def test_an_erasure_lists_the_stretches_that_were_made_again_with_requests_of_the_subject(service, gateway):
    hers = decide(service, gateway, "alice")
    decide(service, gateway, "bob", OTHER_SESSION)
    end_ms = service.services.clock.now_ms() + 1000
    actor = pseudonym(service.services.keys.pseudonym.seed, "actor", "test-responder")
    with service.client(Role.RESPONDER) as responder:
        for more in ({}, {"agent": "Nobody"}, {"tool": "another"}, {"from_ms": end_ms - 1, "to_ms": end_ms}):
            asked = {"from_ms": 0, "to_ms": end_ms, **more}
            responder.post("/v1/impacts", json=asked).raise_for_status()
    done = erase(service, user="alice")
    assert hers.body.request is not None
    # A tool restricts what is counted, and not what is opened.
    expected = {"actor": actor, "bundle_revision": None, "records": 1}
    assert [{name: item[name] for name in expected} for item in done["replays"]] == [expected, expected]
    assert done["openings"] == []


def test_an_erasure_lists_the_packs_that_were_made_of_the_subjects_requests_and_who_has_them(service, gateway):
    decide(service, gateway, "alice")
    decide(service, gateway, "bob", OTHER_SESSION)
    before = made_pack(service, 0, 1000)
    pack = made_pack(service, 0, service.services.clock.now_ms() + 1000)
    with service.client(Role.AUDITOR) as auditor:
        auditor.get(f"/v1/evidence-packs/{pack['job_id']}.zip").raise_for_status()
        auditor.get(f"/v1/evidence-packs/{pack['job_id']}.pdf").raise_for_status()
    decide(service, gateway, "alice")
    done = erase(service, user="alice")
    (listed,) = done["packs"]
    assert before["job_id"] != listed["job_id"] == pack["job_id"]
    assert (listed["pack_id"], listed["records"]) == (pack["pack_id"], 1)
    actor = pseudonym(service.services.keys.pseudonym.seed, "actor", "test-auditor")
    assert [(item["what"], item["actor"]) for item in listed["deliveries"]] == [("zip", actor), ("pdf", actor)]
    assert audit(service).findings == []


def test_an_erasure_that_was_finished_in_its_authors_absence_is_told_when_it_is_ordered_again(tmp_path, monkeypatch):
    with start_service(tmp_path) as service:
        hers = decide(service, service.enforcer(), "alice")
        with service.client(Role.RESPONDER) as responder:
            path = f"/v1/decisions/{hers.record_id}/openings"
            assert responder.post(path, json={"purpose": "an inquiry"}).status_code == 200
        break_off(service, monkeypatch, "destroy")
        erase(service, status=503, user="alice")
    monkeypatch.undo()
    with start_service(tmp_path) as service:
        told = erase(service, user="alice")
        (item,) = told["items"]
        assert [item["ordered_leaf"]] == service.services.catalog.of_type(LOG_ID, "erasure")
        assert [item["tombstone_leaf"]] == service.services.catalog.of_type(LOG_ID, "tombstone")
        assert (told["payloads"], told["key_ids"]) == (0, [])
        assert [opening["record_id"] for opening in told["openings"]] == [hers.record_id]
        erase(service, status=404, user="zoe")


def made_pack(service: RunningService, from_ms: int, to_ms: int) -> dict[str, object]:
    """Have an evidence pack made, and wait for it."""
    order = {"from_ms": from_ms, "to_ms": to_ms, "frameworks": ["soc2"]}
    with service.client(Role.AUDITOR) as auditor:
        job = auditor.post("/v1/evidence-packs", json=order).raise_for_status().json()
        deadline = time.monotonic() + 120
        while job["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, job
            time.sleep(0.2)
            job = auditor.get(f"/v1/evidence-packs/{job['job_id']}").raise_for_status().json()
    assert job["state"] == "done", job
    return dict(job)
