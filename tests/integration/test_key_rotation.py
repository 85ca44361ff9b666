"""Keys are replaced while the service runs and enforcers write: no request fails, and everybody can still verify."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from evidence.verification import Status
from evidence.verify import verify_record
from ledger.audit_report import AuditReport
from ledger.auditor import Auditor
from ledger.checkpoints import parse_unverified_checkpoint
from ledger.commitments import pseudonym
from ledger.errors import ErasedError
from ledger.keys import generate_key, save_key
from ledger.proof_files import parse_proof_file
from ledger.stores.subject_keys import DirectorySubjectKeys
from ledger.trust import TrustPolicy, parse_trust_policy
from service.auth import Role
from service.cli.main import cli
from service.keyset import load_key_set, trust_policy
from tests.support.kms import fake_kms
from tests.support.ledger import LOG_ID
from tests.support.service import (
    EnforcerClient,
    RunningService,
    keep_database_and_keys,
    put_database_and_keys_back,
    start_service,
)


def tallystick(service: RunningService, *arguments: str, role: Role = Role.ADMIN) -> Result:
    """Run a command beside the service, as its administrator."""
    variables = {
        "TALLYSTICK_KEYS_DIR": str(service.services.settings.keys_dir),
        "TALLYSTICK_URL": service.url,
        "TALLYSTICK_TOKEN": service.token(role),
        "TALLYSTICK_LOG_ID": LOG_ID,
    }
    return CliRunner().invoke(cli, list(arguments), env=variables)


def done(service: RunningService, *arguments: str) -> Any:
    """Run a command that must succeed, and return its JSON."""
    result = tallystick(service, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def in_force(service: RunningService, purpose: str) -> list[str]:
    items = done(service, "keys", "list")["items"]
    return [item["key_id"] for item in items if (item["purpose"], item["state"]) == (purpose, "in force")]


def trusted(service: RunningService) -> TrustPolicy:
    """Return the policy that lies beside the keys now, as an auditor gets it."""
    return parse_trust_policy((service.services.settings.keys_dir / "trust.policy").read_bytes())


def signers(service: RunningService) -> set[str]:
    """Return the ids of the keys whose lines the newest checkpoint carries."""
    service.wait_until_published()
    published = service.services.publishing.published
    assert published is not None
    return {line.key_id.hex() for line in parse_unverified_checkpoint(published.checkpoint).note.signatures}


def audit(service: RunningService, policy: TrustPolicy) -> AuditReport:
    service.wait_until_published()
    parts = service.services
    kept = [parts.anchor.get(LOG_ID, size) for size in parts.anchor.sizes(LOG_ID)]
    return Auditor(
        LOG_ID, parts.tiles, policy, catalog=parts.catalog, vault=parts.vault, other_checkpoints=kept
    ).audit()


def a_proof(service: RunningService, enforcer: EnforcerClient) -> tuple[bytes, bytes]:
    """Record a decision; return its entry and its proof file."""
    record_id = enforcer.decide()
    index = service.services.catalog.index_of(LOG_ID, record_id)
    with service.client() as auditor:
        answer = auditor.get(f"/v1/decisions/{record_id}/proof").raise_for_status()
    return next(iter(service.services.reader.entries(index, index + 1))), answer.content


@contextmanager
def load(service: RunningService) -> Iterator[list[str]]:
    """Keep three enforcers writing, one of them waiting for proofs; yield what went wrong."""
    failures: list[str] = []
    stop = threading.Event()

    def write(enforcer: EnforcerClient, query: str) -> None:
        while not stop.is_set():
            record = enforcer.record(enforcer.enforcer.heartbeat())
            try:
                answer = enforcer.post([(record, ())], query=query)
            except httpx.HTTPError as error:
                failures.append(type(error).__name__)
            else:
                if answer.status_code != 201:
                    failures.append(f"{answer.status_code} {answer.text}")

    enforcers = [service.enforcer(f"loader-{number}", seed=70 + number) for number in range(3)]
    threads = [
        threading.Thread(target=write, args=(enforcer, "?wait=proof" if number == 0 else ""))
        for number, enforcer in enumerate(enforcers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield failures
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def test_every_key_is_replaced_under_load_and_no_request_fails(tmp_path: Path):
    with start_service(tmp_path) as service:
        enforcer = service.enforcer()
        old_policy, old = trusted(service), {name: in_force(service, name) for name in ("log", "pack", "enforcer")}
        old_proof = a_proof(service, enforcer)
        with load(service) as failures:
            made = {
                purpose: [item["key_id"] for item in done(service, "keys", "rotate", purpose)["items"]]
                for purpose in ("log", "pack", "service", "pseudonym")
            }
            during, overlap_proof = trusted(service), a_proof(service, enforcer)
            assert signers(service) == {*old["log"], *made["log"]}
            for key_id in (*old["log"], *old["pack"], *old["enforcer"]):
                done(service, "keys", "retire", key_id)
            new_proof = a_proof(service, enforcer)
            assert signers(service) == set(made["log"])
        assert failures == []
        assert in_force(service, "enforcer") == made["service"]
        new_policy = TrustPolicy(
            logs=tuple(key for key in during.logs if key.key_id.hex() in made["log"]),
        )
        statuses = {
            name: [verify_record(*proof, policy).status for proof in (old_proof, overlap_proof, new_proof)]
            for name, policy in (("old", old_policy), ("both", during), ("new", new_policy))
        }
        met, unmet = Status.PROVEN, Status.TRUST_NOT_MET
        assert statuses == {"old": [met, met, unmet], "both": [met, met, met], "new": [unmet, met, met]}
        report = audit(service, trusted(service))
        assert report.findings == []
        assert {notice.check for notice in report.notices} == {"simulated"}
    # And the next process goes on with the new keys.
    with start_service(tmp_path) as service:
        assert signers(service) == set(made["log"])
        assert audit(service, trusted(service)).findings == []


def test_an_old_policy_is_told_why_it_is_not_met_any_more(service):
    old_policy, (old, *_) = trusted(service), in_force(service, "log")
    done(service, "keys", "rotate", "log", "--algorithm", "ed25519")
    done(service, "keys", "retire", old)
    report = verify_record(*a_proof(service, service.enforcer()), old_policy)
    assert report.status is Status.TRUST_NOT_MET
    (failure,) = report.failures
    assert "is not signed with ed25519" in failure.reason
    assert "a newer trust policy must come from its operator" in failure.reason


def test_what_was_recorded_under_an_old_pseudonym_key_is_still_found(service):
    enforcer = service.enforcer()
    before = service.services.keys.pseudonym.seed
    enforcer.decide(user=pseudonym(before, "user", "dana"))
    done(service, "keys", "rotate", "pseudonym")
    after = service.services.keys.pseudonym.seed
    assert after != before
    enforcer.decide(user=pseudonym(after, "user", "dana"))
    enforcer.decide(user=pseudonym(after, "user", "eve"))
    with service.client() as auditor:
        found = auditor.get("/v1/decisions", params={"user": "dana"}).raise_for_status().json()["items"]
    assert len(found) == 2


def test_a_subject_is_held_and_erased_under_the_pseudonyms_of_every_key(service):
    enforcer = service.enforcer()
    keys = service.services.keys
    old = enforcer.decide(user=pseudonym(keys.pseudonym.seed, "user", "dana"), session="1" * 32)
    done(service, "keys", "rotate", "pseudonym")
    new = enforcer.decide(user=pseudonym(service.services.keys.pseudonym.seed, "user", "dana"), session="2" * 32)
    with service.client(Role.ADMIN) as admin:
        held = admin.post("/v1/holds", json={"user": "dana", "reason": "matter 12 of 2026"}).raise_for_status().json()
        assert admin.post("/v1/erasures", json={"pseudonym": "1" * 32, "basis": "request 4711"}).status_code == 409
        release(service, held["hold_id"], "anna")
        release(service, held["hold_id"], "ben")
        done_with = admin.post("/v1/erasures", json={"user": "dana", "basis": "request 4711"}).raise_for_status().json()
    assert [item["payloads"] for item in done_with["items"]] == [3, 2]
    for record_id in (old, new):
        record = service.services.reader.record(service.services.catalog.index_of(LOG_ID, record_id))
        with pytest.raises(ErasedError):
            service.services.vault.open(record, "message")
    assert audit(service, trusted(service)).findings == []


def test_nobody_releases_a_hold_alone_by_replacing_the_pseudonym_key(service):
    with service.client(Role.ADMIN) as admin:
        held = admin.post("/v1/holds", json={"user": "dana", "reason": "matter 12 of 2026"}).raise_for_status().json()
    assert release(service, held["hold_id"], "anna") == "release_requested"
    done(service, "keys", "rotate", "pseudonym")
    assert release(service, held["hold_id"], "anna") == "release_requested"
    assert release(service, held["hold_id"], "ben") == "released"


def test_what_an_earlier_key_of_the_service_ordered_to_be_erased_stays_erased_after_a_restore(tmp_path):
    """Database and keys come back from before the erasure; that its order is signed by an old key changes nothing."""
    with start_service(tmp_path) as service:
        user = pseudonym(service.services.keys.pseudonym.seed, "user", "dana")
        service.enforcer().decide(user=user, session="1" * 32)
        service.wait_until_published()
    keep_database_and_keys(tmp_path)
    with start_service(tmp_path) as service:
        with service.client(Role.ADMIN) as admin:
            admin.post("/v1/erasures", json={"user": "dana", "basis": "request 4711"}).raise_for_status()
        done(service, "keys", "rotate", "service")
        service.wait_until_published()
    put_database_and_keys_back(tmp_path)
    with pytest.raises(SystemExit), start_service(tmp_path):
        pass
    keys = DirectorySubjectKeys(tmp_path / "keys" / "subjects", load_key_set(tmp_path / "keys", None).vault)
    with pytest.raises(ErasedError):
        keys.get(LOG_ID, user)


def release(service: RunningService, hold_id: str, name: str) -> str:
    with service.client(token=service.token(Role.ADMIN, name)) as client:
        return client.post(f"/v1/holds/{hold_id}/release").raise_for_status().json()["action"]


def test_the_service_signs_under_the_id_of_its_new_pseudonym_key(service):
    done(service, "keys", "rotate", "pseudonym")
    expected = service.services.keys.pseudonym_key_id
    service.run(service.services.heartbeat)
    record = service.services.reader.record(service.services.sequenced_size() - 1)
    assert record.pseudonym_key_id == expected


def test_an_algorithm_is_given_up_only_when_somebody_says_so(service):
    ed25519, mldsa = in_force(service, "log")
    refused = tallystick(service, "keys", "retire", ed25519)
    assert refused.exit_code != 0
    assert "the only log key with ed25519: rotate it first" in refused.output
    done(service, "keys", "retire", ed25519, "--give-up-algorithm")
    service.run(service.services.heartbeat)
    assert signers(service) == {mldsa}
    last = tallystick(service, "keys", "retire", mldsa, "--give-up-algorithm")
    assert last.exit_code != 0
    assert {key.key_id.hex() for key in trusted(service).logs} == {mldsa}
    new = done(service, "keys", "rotate", "log", "--algorithm", "ed25519")["items"][0]["key_id"]
    service.run(service.services.heartbeat)
    assert signers(service) == {mldsa, new}
    # A policy that demands an algorithm cannot be met by the checkpoints from when there was none.
    report = audit(service, TrustPolicy(logs=tuple(key for key in trusted(service).logs if key.key_id.hex() == mldsa)))
    assert report.findings == []


@pytest.mark.parametrize("purpose", ["log", "pack", "service"])
def test_the_only_key_of_its_kind_is_neither_retired_nor_disowned(service, purpose):
    name = {"service": "enforcer"}.get(purpose, purpose)
    key_id = in_force(service, name)[0]
    size = service.services.sequenced_size()
    for command in (("retire", key_id), ("compromise", key_id, "--after-size", "1", "--purpose", "it was stolen")):
        result = tallystick(service, "keys", *command)
        assert result.exit_code != 0
        assert "rotate it first" in result.output
    assert service.services.sequenced_size() == size


def test_a_key_that_nobody_knows_is_not_found(service):
    for command in (("introduce", "nope"), ("retire", "nope")):
        result = tallystick(service, "keys", *command)
        assert result.exit_code == 4
        assert "nope" in result.output


def test_a_key_is_introduced_once(service):
    (item,) = done(service, "keys", "rotate", "log", "--algorithm", "ed25519")["items"]
    result = tallystick(service, "keys", "introduce", item["key_id"])
    assert result.exit_code != 0
    assert "has known the key" in result.output
    done(service, "keys", "retire", item["key_id"])
    assert "has known the key" in tallystick(service, "keys", "introduce", item["key_id"]).output


def test_a_prepared_key_does_nothing_until_it_is_introduced(service):
    (item,) = done(service, "keys", "rotate", "log", "--algorithm", "ml-dsa-44", "--prepare")["items"]
    service.run(service.services.heartbeat)
    assert item["key_id"] not in signers(service)
    states = {one["key_id"]: one["state"] for one in done(service, "keys", "list")["items"]}
    assert states[item["key_id"]] == "prepared"
    done(service, "keys", "introduce", item["key_id"])
    service.run(service.services.heartbeat)
    assert item["key_id"] in signers(service)


def test_a_key_that_was_made_for_another_log_is_refused(service):
    folder = service.services.settings.keys_dir
    key = generate_key("log", "ed25519", "log.example/other", created_ms=1, simulated=True)
    save_key(key, folder / "log-ed25519.2.json")
    result = tallystick(service, "keys", "introduce", key.key_id)
    assert result.exit_code != 0
    assert "was made for log.example/other" in result.output


@pytest.mark.parametrize("role", [Role.AUDITOR, Role.RESPONDER, Role.APPROVER])
def test_only_an_administrator_takes_a_step(service, role):
    key_id = in_force(service, "log")[0]
    size = service.services.sequenced_size()
    for command in (
        ("introduce", key_id),
        ("retire", key_id),
        ("compromise", key_id, "--after-size", "1", "--purpose", "it was stolen"),
    ):
        assert tallystick(service, "keys", *command, role=role).exit_code != 0
    assert service.services.sequenced_size() == size


def test_every_step_is_recorded_with_who_took_it(service):
    (old, *_) = in_force(service, "pack")
    done(service, "keys", "rotate", "pack", "--algorithm", "ed25519")
    done(service, "keys", "retire", old)
    assert [event.action for event in service.access_events()][-2:] == ["introduce_key", "retire_key"]


def test_a_log_key_moves_to_aws_kms_and_back_without_a_break(service, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    _, old = in_force(service, "log")
    with fake_kms() as kms:
        uri = kms.make("ML_DSA_44", "alias/log")
        rotation = ("keys", "rotate", "log", "--algorithm", "ml-dsa-44")
        (item,) = done(service, *rotation, "--kms", uri)["items"]
        assert "seed" not in Path(item["file"]).read_text()
        done(service, "keys", "retire", old)
        assert item["key_id"] in signers(service)
        assert old not in signers(service)
        assert item["key_id"] in (Path(item["file"]).parent / "trust.policy").read_text()
        # KMS refuses: records are taken and nothing is published, until the key is one of a file again.
        kms.faults[:] = ["AccessDeniedException"] * 3
        a_proof(service, service.enforcer())
        (back,) = done(service, *rotation)["items"]
        done(service, "keys", "retire", item["key_id"])
        assert signers(service) & {item["key_id"], back["key_id"]} == {back["key_id"]}
        assert audit(service, trusted(service)).findings == []


def test_a_key_of_kms_of_another_algorithm_makes_no_file(service, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with fake_kms() as kms:
        uri = kms.make("ECC_NIST_EDWARDS25519", "alias/log")
        result = tallystick(service, "keys", "rotate", "log", "--algorithm", "ml-dsa-44", "--kms", uri)
    assert result.exit_code == 64
    assert "is of ed25519, not of ml-dsa-44" in result.output
    assert not (service.services.settings.keys_dir / "log-ml-dsa-44.2.json").exists()


# --- compromise ------------------------------------------------------------------------------------------------------


def test_a_compromised_log_key_counts_up_to_the_size_that_was_said_and_the_audit_says_so(service):
    enforcer = service.enforcer()
    a_proof(service, enforcer)
    before = trusted(service)
    (old, _) = in_force(service, "log")
    size = service.services.publishing.published.head.size
    a_proof(service, enforcer)
    done(service, "keys", "rotate", "log", "--algorithm", "ed25519")
    done(service, "keys", "compromise", old, "--after-size", str(size), "--purpose", "a laptop was stolen")
    service.run(service.services.heartbeat)
    assert old not in signers(service)
    assert old not in {key.key_id.hex() for key in trusted(service).logs}
    # With every key that there ever was, the log's own records say what counts; kept checkpoints are told apart.
    report = audit(service, trust_policy(service.services.keys))
    assert report.findings == []
    told = [notice.reason for notice in report.notices]
    assert any(f"the log key {old} is declared compromised since {size} leaves" in one for one in told)
    assert any("not signed with ed25519 by a key that counts for this tree size" in one for one in told)
    # Who still trusts the old key alone is not met.
    assert audit(service, before).findings != []


def installation_audit(service: RunningService, *options: str) -> Result:
    """Run `tallystick audit` as an operator does: with the policy beside the keys, and every anchored checkpoint."""
    return at_the_installation(service, "audit", "--processes", "1", "--json", *options)


def at_the_installation(service: RunningService, *arguments: str) -> Result:
    service.wait_until_published()
    settings = service.services.settings
    variables = {
        "TALLYSTICK_KEYS_DIR": str(settings.keys_dir),
        "TALLYSTICK_DATA_DIR": str(settings.data_dir),
        "TALLYSTICK_LOG_ID": LOG_ID,
        "TALLYSTICK_TENANT": settings.tenant,
        "TALLYSTICK_ENVIRONMENT": settings.environment,
        "TALLYSTICK_ORIGIN": settings.origin,
    }
    return CliRunner().invoke(cli, list(arguments), env=variables)


@pytest.mark.parametrize("depth", ["full", "hashes"])
def test_the_audit_with_the_policy_beside_the_keys_is_clean_after_a_compromise(service, depth):
    enforcer = service.enforcer()
    a_proof(service, enforcer)
    (old, _) = in_force(service, "log")
    size = service.services.publishing.published.head.size
    a_proof(service, enforcer)
    done(service, "keys", "rotate", "log", "--algorithm", "ed25519")
    done(service, "keys", "compromise", old, "--after-size", str(size), "--purpose", "a laptop was stolen")
    service.run(service.services.heartbeat)
    assert old not in signers(service)
    audited = installation_audit(service, "--depth", depth)
    report = json.loads(audited.stdout)
    assert (audited.exit_code, report["findings"]) == (0, [])
    assert report["checked"]["roots"] >= len(list(service.services.anchor.sizes(LOG_ID)))
    again = [installation_audit(service, "--depth", depth, "--since", "last") for _ in range(2)]
    assert [audited.exit_code for audited in again] == [0, 0]
    looked_at = at_the_installation(service, "anchor", "verify", "--json")
    told = json.loads(looked_at.stdout)
    assert (looked_at.exit_code, told["drift"]) == (0, [])
    assert any("the keys that the log itself had at their sizes" in notice for notice in told["notices"])


def test_a_compromise_that_was_told_from_outside_ends_a_key_after_its_size_and_not_before(service, tmp_path):
    entry, proof = a_proof(service, service.enforcer())
    size = parse_unverified_checkpoint(parse_proof_file(proof).checkpoint).claim.size
    (key, *_) = in_force(service, "log")
    (tmp_path / "entry").write_bytes(entry)
    (tmp_path / "proof").write_bytes(proof)
    policy = str(service.services.settings.keys_dir / "trust.policy")
    given = ("verify", str(tmp_path / "proof"), "--entry", str(tmp_path / "entry"))

    def judged(*more: str) -> tuple[int, str]:
        result = tallystick(service, *given, *more)
        return result.exit_code, result.output

    def told(last: int) -> tuple[str, ...]:
        return ("--trust", policy, "--compromised", f"{key}:{last}")

    assert judged(*told(size))[0] == 0
    status, said = judged(*told(size - 1))
    assert status == 3
    assert "by a key that counts for this tree size" in said
    assert judged(*told(size), "--compromised", f"{key}:0")[0] == 3
    refused = [judged("--compromised", f"{key}:0"), judged("--trust", policy, "--compromised", "00000000:5")]
    assert [status for status, _ in refused] == [64, 64]
    assert "--compromised needs --trust" in refused[0][1]
    assert "the trust policy lists no log key 00000000" in refused[1][1]
    for wrong in (key, f"{key}:-1", f"{key}:x", f"{key.upper()}x:1"):
        status, said = judged("--trust", policy, "--compromised", wrong)
        assert status != 0
        assert "Invalid value for '--compromised'" in said
    audited = [
        installation_audit(service, "--trust", policy, "--compromised", f"{key}:{last}").exit_code
        for last in (10**9, size - 1)
    ]
    assert audited == [0, 1]


def test_an_enforcers_compromised_key_writes_nothing_more_and_its_tokens_open_nothing(service):
    enforcer = service.enforcer("gateway-9", seed=55)
    enforcer.decide()
    (key,) = [key for key in service.services.keyring.keys if key.subject == "gateway-9"]
    size = service.services.sequenced_size()
    done(service, "keys", "compromise", key.key_id, "--after-size", str(size), "--purpose", "its host was taken over")
    answer = enforcer.post([(enforcer.record(enforcer.enforcer.heartbeat()), ())])
    assert answer.status_code == 401
    renewed = service.enforcer("gateway-9", seed=56)
    renewed.decide()
    report = audit(service, trusted(service))
    assert report.findings == []
    assert any("the enforcer key" in notice.reason for notice in report.notices)


def test_a_compromise_beyond_the_log_is_refused(service):
    (old, *_) = in_force(service, "log")
    done(service, "keys", "rotate", "log", "--algorithm", "ed25519")
    result = tallystick(service, "keys", "compromise", old, "--after-size", "100000", "--purpose", "it was stolen")
    assert result.exit_code == 2
    assert "cannot have been compromised after 100000" in result.output
