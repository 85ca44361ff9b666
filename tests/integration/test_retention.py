"""Retention and legal holds: what expires is gone for every copy, what is held stays, and two people end a hold."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from ledger.audit_report import AuditReport
from ledger.auditor import Auditor
from ledger.bodies import RetentionEvent
from ledger.clock import SimulatedClock
from ledger.commitments import pseudonym
from ledger.errors import ConfigError, ErasedError, StorageError
from ledger.records import Record, commitments, encode_record
from ledger.stores.subject_keys import DirectorySubjectKeys
from ledger.subjects import DAY_MS, Bucket, bucket_of
from service.auth import Role
from service.ingest import Submission
from service.keyset import load_key_set, trust_policy
from service.lifecycle import load_retention
from tests.support.ledger import LOG_ID, NOW_MS, make_decision
from tests.support.service import RunningService, start_service

SESSION, OTHER_SESSION = "5" * 32, "9" * 32
REASON = "matter 12 of 2026"
POLICY = "vault: {decision: 2d}\n"


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(NOW_MS)


def start(root: Path, clock: SimulatedClock, policy: str = POLICY) -> RunningService:
    file = root / "retention.yaml"
    file.write_text(policy)
    return start_service(root, clock=clock, retention=file)


@pytest.fixture
def service(tmp_path: Path, clock: SimulatedClock) -> Iterator[RunningService]:
    with start(tmp_path, clock) as running:
        yield running


def user_of(service: RunningService, name: str) -> str:
    return pseudonym(service.services.keys.pseudonym.seed, "user", name)


def decide(service: RunningService, gateway: object, name: str, session: str = SESSION) -> Record:
    record_id = gateway.decide(user=user_of(service, name), session=session)
    return service.services.reader.record(service.services.catalog.index_of(LOG_ID, record_id))


def post(service: RunningService, path: str, body: object = None, *, by: str = "anna", status: int = 200):
    with service.client(token=service.token(Role.ADMIN, by)) as client:
        answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def expire(service: RunningService, *, dry_run: bool = False) -> list[tuple[str, int, int]]:
    items = post(service, "/v1/expiries", {"dry_run": dry_run})["items"]
    return [(f"{item['record_type']} {item['day']}", item["payloads"], item["held"]) for item in items]


def hold(service: RunningService, **scope: object) -> str:
    return post(service, "/v1/holds", {"reason": REASON, **scope}, status=201)["hold_id"]


def release(service: RunningService, hold_id: str) -> None:
    assert post(service, f"/v1/holds/{hold_id}/release", by="anna")["action"] == "release_requested"
    assert post(service, f"/v1/holds/{hold_id}/release", by="ben")["action"] == "released"


def openable(service: RunningService, record: Record) -> bool:
    try:
        return bool(service.services.vault.open(record, "message").payload)
    except ErasedError:
        return False


def audit(service: RunningService) -> AuditReport:
    service.wait_until_published()
    services = service.services
    return Auditor(
        LOG_ID, services.tiles, trust_policy(services.keys), catalog=services.catalog, vault=services.vault
    ).audit()


def retention_records(service: RunningService, action: str) -> list[RetentionEvent]:
    indexes = service.services.catalog.of_type(LOG_ID, "retention")
    found = [service.services.reader.record(index).body for index in indexes]
    return [body for body in found if body.action == action]


# --- expiry ----------------------------------------------------------------------------------------------------------


def test_payloads_expire_with_their_day_and_the_audit_passes(service, clock):
    gateway = service.enforcer()
    old = decide(service, gateway, "alice")
    clock.advance(DAY_MS)
    young = decide(service, gateway, "alice")
    assert expire(service) == []
    clock.advance(2 * DAY_MS)
    assert expire(service, dry_run=True) == [("decision 2025-11-19", 2, 0)]
    assert openable(service, old)
    assert expire(service) == [("decision 2025-11-19", 2, 0)]
    assert (openable(service, old), openable(service, young)) == (False, True)
    report = audit(service)
    assert report.findings == []
    assert report.checked["erased payloads"] == 2
    assert expire(service) == []


def test_other_types_have_their_own_time(service, clock):
    gateway = service.enforcer()
    decide(service, gateway, "alice")
    clock.advance(30 * DAY_MS)
    assert [bucket for bucket, _, _ in expire(service)] == ["decision 2025-11-19"]


def test_an_expired_payload_is_gone_from_a_backup_of_the_database_too(tmp_path, clock):
    with start(tmp_path, clock) as service:
        record = decide(service, service.enforcer(), "alice")
        sealed = service.services.vault._store.payload(LOG_ID, record.record_id, "message")
        clock.advance(4 * DAY_MS)
        expire(service)
        vault = service.services.vault
        # The attacker puts the ciphertext of the backup back; the subject's own keys are all there.
        service.services.lifecycle.keeper._archive.replace(LOG_ID, (sealed,))
        with pytest.raises(ErasedError) as gone:
            vault.open(record, "message")
    assert gone.value.subjects == {bucket_of(record).subject}


def test_a_restored_key_of_an_expired_day_is_destroyed_before_the_service_answers(tmp_path, clock):
    with start(tmp_path, clock) as service:
        record = decide(service, service.enforcer(), "alice")
        shutil.copytree(tmp_path / "keys" / "subjects", tmp_path / "kept")
        clock.advance(4 * DAY_MS)
        expire(service)
    shutil.copytree(tmp_path / "kept", tmp_path / "keys" / "subjects", dirs_exist_ok=True)
    keys = DirectorySubjectKeys(tmp_path / "keys" / "subjects", load_key_set(tmp_path / "keys", None).vault)
    assert keys.get(LOG_ID, bucket_of(record).name)
    with start(tmp_path, clock) as service:
        with pytest.raises(ErasedError):
            keys.get(LOG_ID, bucket_of(record).name)
        assert audit(service).findings == []


def test_a_late_payload_of_an_expired_day_is_readable_and_expires_with_the_next_run(service, clock):
    gateway = service.enforcer()
    decide(service, gateway, "alice")
    clock.advance(4 * DAY_MS)
    expire(service)
    record_id = gateway.decide(time_ms=NOW_MS, user=user_of(service, "alice"), session=SESSION)
    late = service.services.reader.record(service.services.catalog.index_of(LOG_ID, record_id))
    assert openable(service, late)
    assert audit(service).findings == []
    assert expire(service) == [("decision 2025-11-19", 2, 0)]
    assert not openable(service, late)
    assert audit(service).findings == []


@pytest.mark.parametrize("step", ["destroy", "shred"])
def test_an_expiry_that_was_interrupted_is_finished_by_the_next_start(tmp_path, clock, monkeypatch, step):
    with start(tmp_path, clock) as service:
        record = decide(service, service.enforcer(), "alice")
        clock.advance(4 * DAY_MS)
        keeper = service.services.lifecycle.keeper

        def fail(*_: object) -> None:
            raise StorageError("the disk is gone")

        monkeypatch.setattr(keeper._keys if step == "destroy" else keeper._archive, step, fail)
        post(service, "/v1/expiries", {}, status=503)
    monkeypatch.undo()
    with start(tmp_path, clock) as service:
        assert not openable(service, record)
        assert audit(service).findings == []
        assert len(retention_records(service, "expired")) == 1


def test_a_payload_that_was_on_its_way_while_its_day_expired_gets_a_tombstone_of_its_own(service, clock):
    gateway = service.enforcer()
    decide(service, gateway, "alice")
    services = service.services
    body, openings = make_decision(user=user_of(service, "bob"), session=OTHER_SESSION)
    record = gateway.record(body, time_ms=NOW_MS)
    given = Submission(record, encode_record(record), {opening.field: opening for opening in openings})
    pending = services.admission.admit([given], "gateway-1")
    clock.advance(4 * DAY_MS)
    expire(service)
    service.run(lambda: services.sequencer.append(pending))
    assert {finding.check for finding in audit(service).findings} == {"vault"}
    expire(service)
    assert audit(service).findings == []
    assert services.vault._store.payload(LOG_ID, record.record_id, "message").ciphertext == b""
    buried = len(services.catalog.of_type(LOG_ID, "tombstone"))
    expire(service)
    assert len(services.catalog.of_type(LOG_ID, "tombstone")) == buried == 2


def test_the_policy_is_recorded_when_it_changes_and_not_again(tmp_path, clock):
    for policy, wanted in [(POLICY, 1), (POLICY, 1), ("vault: {decision: 3d}\n", 2)]:
        with start(tmp_path, clock, policy) as service:
            stated = retention_records(service, "policy")
            assert len(stated) == wanted
            assert stated[-1].classes == (f"vault:decision:{policy[-4]}d",)


@pytest.mark.parametrize("text", ["vault: [", "- vault", "vault: {decision: soon}", "\xff\xfe"])
def test_a_policy_that_cannot_be_read_stops_the_service_at_once(tmp_path, text):
    file = tmp_path / "retention.yaml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="TALLYSTICK_RETENTION"):
        load_retention(file, "acme")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_retention(tmp_path / "absent.yaml", "acme")


# --- holds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["user", "session", "period"])
def test_a_hold_stops_erasure_until_two_people_end_it(service, scope):
    gateway = service.enforcer()
    record = decide(service, gateway, "alice")
    scopes = {"user": {"user": "alice"}, "session": {"session": SESSION}, "period": {"from_ms": 0}}
    hold_id = hold(service, **scopes[scope])
    refusal = post(service, "/v1/erasures", {"user": "alice", "basis": REASON}, status=409)
    assert refusal["type"] == "urn:tallystick:problem:held"
    assert hold_id in refusal["detail"]
    assert openable(service, record)
    assert service.services.catalog.of_type(LOG_ID, "erasure") == []
    release(service, hold_id)
    # The reason for a hold on her is a payload about her.
    wanted = 3 if scope == "user" else 2
    assert post(service, "/v1/erasures", {"user": "alice", "basis": REASON})["payloads"] == wanted


def test_a_hold_on_somebody_else_stops_nothing(service):
    gateway = service.enforcer()
    decide(service, gateway, "alice")
    hold(service, user="bob")
    hold(service, session=OTHER_SESSION)
    assert post(service, "/v1/erasures", {"user": "alice", "basis": REASON})["payloads"] == 2


def test_one_person_cannot_end_a_hold(service):
    hold_id = hold(service, user="alice")
    path = f"/v1/holds/{hold_id}/release"
    assert post(service, path, by="ben")["action"] == "release_requested"
    assert post(service, path, by="ben", status=409)["type"] == "urn:tallystick:problem:conflict"
    with service.client(Role.ADMIN) as admin:
        (listed,) = admin.get("/v1/holds").json()["items"]
    assert listed["hold_id"] == hold_id
    assert listed["subject"] == user_of(service, "alice")
    assert listed["release_requested_by"] == pseudonym(service.services.keys.pseudonym.seed, "actor", "ben")
    assert post(service, path, by="anna")["action"] == "released"
    post(service, path, by="ben", status=404)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"reason": REASON}, 400),
        ({"reason": REASON, "from_ms": 5, "to_ms": 5}, 400),
        ({"user": "alice"}, 422),
        ({"user": "alice", "reason": "short"}, 422),
        ({"user": "alice", "pseudonym": "6" * 32, "reason": REASON}, 422),
        ({"session": "mine", "reason": REASON}, 422),
    ],
)
def test_a_hold_that_says_not_what_or_why_is_refused(service, body, status):
    post(service, "/v1/holds", body, status=status)
    assert service.services.catalog.of_type(LOG_ID, "hold") == []


def test_what_is_held_stays_when_its_day_expires_and_goes_after_the_hold(service, clock):
    gateway = service.enforcer()
    held, other = decide(service, gateway, "alice"), decide(service, gateway, "bob", OTHER_SESSION)
    hold_id = hold(service, user="alice")
    clock.advance(4 * DAY_MS)
    assert expire(service) == [("decision 2025-11-19", 2, 2)]
    assert (openable(service, held), openable(service, other)) == (True, False)
    assert audit(service).findings == []
    assert expire(service) == []
    release(service, hold_id)
    assert expire(service) == [("decision 2025-11-19", 2, 0)]
    assert not openable(service, held)
    assert audit(service).findings == []
    assert [event.held for event in retention_records(service, "expired")] == [False, True]


def test_an_erasure_also_takes_what_was_held(service, clock):
    gateway = service.enforcer()
    held = decide(service, gateway, "alice")
    hold_id = hold(service, session=SESSION)
    clock.advance(4 * DAY_MS)
    expire(service)
    release(service, hold_id)
    assert post(service, "/v1/erasures", {"user": "alice", "basis": REASON})["payloads"] == 2
    assert not openable(service, held)
    assert audit(service).findings == []


def test_a_sealing_for_a_hold_that_was_interrupted_goes_on_and_loses_nothing(service, clock, monkeypatch):
    gateway = service.enforcer()
    held = [decide(service, gateway, "alice") for _ in range(3)]
    hold(service, user="alice")
    clock.advance(4 * DAY_MS)
    archive = service.services.lifecycle.keeper._archive
    replace, calls = archive.replace, []

    def fail_second(log_id: str, payloads: tuple[object, ...]) -> None:
        calls.append(payloads)
        if len(calls) == 2:
            raise StorageError("the disk is gone")
        replace(log_id, payloads)

    monkeypatch.setattr(archive, "replace", fail_second)
    post(service, "/v1/expiries", {}, status=503)
    monkeypatch.undo()
    assert all(openable(service, record) for record in held)
    assert expire(service) == [("decision 2025-11-19", 0, 4)]
    assert all(openable(service, record) for record in held)
    assert audit(service).findings == []
    assert service.services.lifecycle.keeper._keys.buckets(LOG_ID)[0] == Bucket(
        "decision", bucket_of(held[0]).day, held=True
    )


def test_what_the_log_says_of_holds_and_expiries_is_read_once(service, clock, monkeypatch):
    """There are thousands of such records after a year, and they are asked for under the lock."""
    decide(service, service.enforcer(), "alice")
    hold_id = hold(service, user="bob")
    clock.advance(4 * DAY_MS)
    expire(service)
    expire(service)  # which reads what the first one wrote
    keeper, read = service.services.lifecycle.keeper, []
    reader = keeper._reader
    # Its own reads alone are counted: others read the log in the background.
    counting = SimpleNamespace(record=lambda index: read.append(index) or reader.record(index))
    monkeypatch.setattr(keeper, "_reader", counting)
    before = service.services.sequenced_size()
    expire(service)
    release(service, hold_id)
    assert service.run(service.services.lifecycle.holds).in_force == []
    assert [index for index in read if index < before] == []
    assert len(read) == len(set(read)) == 2


def test_a_hold_survives_a_restart_because_the_log_says_so(tmp_path, clock):
    with start(tmp_path, clock) as service:
        decide(service, service.enforcer(), "alice")
        hold(service, user="alice")
    with start(tmp_path, clock) as service:
        post(service, "/v1/erasures", {"user": "alice", "basis": REASON}, status=409)


# --- holds beside what was begun -------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", ["erasure", "expiry"])
def test_a_hold_is_not_acknowledged_before_what_was_ordered_earlier_is_done(service, clock, monkeypatch, begun):
    """An order that was interrupted is finished some time, whatever is held by then: so it is finished first."""
    record = decide(service, service.enforcer(), "alice")
    clock.advance(4 * DAY_MS)
    keys = service.services.lifecycle.keeper._keys

    def fail(*_: object) -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(keys, "destroy", fail)
    order = {"user": "alice", "basis": REASON} if begun == "erasure" else {}
    post(service, "/v1/erasures" if begun == "erasure" else "/v1/expiries", order, status=503)
    post(service, "/v1/holds", {"session": SESSION, "reason": REASON}, status=503)
    assert service.services.catalog.of_type(LOG_ID, "hold") == []
    monkeypatch.undo()
    hold(service, session=SESSION)
    # What the hold found, nothing takes any more.
    readable = openable(service, record)
    service.run(service.services.lifecycle.apply)
    assert openable(service, record) == readable
    assert audit(service).findings == []


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_payload_that_was_lost_stops_no_expiry_of_others(service, clock):
    gateway = service.enforcer()
    lost, other = decide(service, gateway, "alice"), decide(service, gateway, "bob", OTHER_SESSION)
    as_owner(
        service, "DELETE FROM vault_payloads WHERE field = 'message' AND leaf_index = :leaf", leaf_of(service, lost)
    )
    clock.advance(4 * DAY_MS)
    assert len(expire(service)) == 1
    assert not openable(service, other)
    assert expire(service) == []


@pytest.mark.parametrize("damage", ["DELETE FROM vault_payloads", "UPDATE vault_payloads SET ciphertext = x'00'"])
def test_what_is_held_stays_though_another_payload_of_its_record_is_damaged(service, clock, damage):
    record = decide(service, service.enforcer(), "alice")
    assert set(commitments(record)) == {"message", "request"}
    hold(service, user="alice")
    as_owner(service, f"{damage} WHERE field = 'request' AND leaf_index = :leaf", leaf_of(service, record))
    clock.advance(4 * DAY_MS)
    expire(service)
    assert openable(service, record)


def leaf_of(service: RunningService, record: Record) -> int:
    return service.services.catalog.index_of(LOG_ID, record.record_id)


def as_owner(service: RunningService, statement: str, leaf: int) -> None:
    """Change the database behind the service's back."""
    with service.services.database.begin() as connection:
        assert connection.execute(text(statement), {"leaf": leaf}).rowcount == 1
