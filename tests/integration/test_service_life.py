"""A service over its life: bundles and replays, packs, health, restarts, wrong keys, another service beside it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from sqlalchemy import select

from evidence.verification import Status
from evidence.verify import verify_pack
from ledger.bodies import Heartbeat, KeyEvent
from ledger.clock import SystemClock
from ledger.errors import AnchorError, ConfigError, ConflictError, ErasedError, StorageError
from ledger.keys import generate_key, save_key
from ledger.notes import encode_base64
from policies.bundles import Bundle
from service.auth import Role
from service.keyset import trust_policy
from service.packs import PackOrder, _anchored
from service.tables import pack_jobs
from service.wiring.assembly import build_services
from tests.support.ledger import LOG_ID
from tests.support.load import wait_until
from tests.support.packs import ready_bundle
from tests.support.postgres import PostgresCluster
from tests.support.service import RunningService, make_settings, start_service

PERMIT = '@id("all-may") permit (principal, action, resource);'
FORBID = '@id("none-may") forbid (principal, action, resource);'
BROKEN = "permit (principal, action, resource) when { context.no_such_fact };"
MISSING = "01a1fcad-9ff9-750b-91ac-898a54d423a5"


def actions(service: RunningService, record_type: str) -> list[Any]:
    indexes = service.services.catalog.of_type(LOG_ID, record_type)
    return [service.services.reader.record(index).body for index in indexes]


# --- bundles ---------------------------------------------------------------------------------------------------------


def publish(admin: httpx.Client, bundle: Bundle) -> str:
    answer = admin.post("/v1/bundles", content=bundle.archive())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["revision"])


def test_a_bundle_is_published_activated_fetched_and_rolled_back_each_step_a_record(service):
    first, second = ready_bundle(PERMIT), ready_bundle(FORBID)
    with service.client(Role.ADMIN) as admin, service.client(Role.APPROVER) as approver:
        assert admin.get("/v1/bundles/active").status_code == 404
        assert approver.post("/v1/bundles/rollback", json={}).status_code == 409
        assert [publish(admin, bundle) for bundle in (first, second)] == [first.revision, second.revision]
        assert admin.get("/v1/bundles/active").status_code == 404, "published is not active"
        for bundle in (first, second):
            review = {"verdict": "approved", "comment": "read line by line"}
            answer = approver.post(f"/v1/bundles/{bundle.revision}/review", json=review)
            assert answer.json()["stage"] == "reviewed"
            answer = approver.post(f"/v1/bundles/{bundle.revision}/activation", json={"comment": "reviewed by two"})
            assert answer.json()["active"] == bundle.revision
        assert approver.post("/v1/bundles/rollback").json()["active"] == first.revision
        listed = admin.get("/v1/bundles").json()
    assert (listed["active"], listed["previous"]) == (first.revision, None)
    assert {item["revision"] for item in listed["published"]} == {first.revision, second.revision}
    steps = [(item["action"], item["revision"], item["actor_role"]) for item in listed["history"]]
    assert steps == [
        ("published", first.revision, "admin"),
        ("tested", first.revision, "service"),
        ("published", second.revision, "admin"),
        ("tested", second.revision, "service"),
        ("reviewed", first.revision, "approver"),
        ("activated", first.revision, "approver"),
        ("reviewed", second.revision, "approver"),
        ("activated", second.revision, "approver"),
        ("rolled_back", first.revision, "approver"),
    ]
    leaves = [item["leaf_index"] for item in listed["history"]]
    assert leaves == service.services.catalog.of_type(LOG_ID, "bundle")
    reviewed, activated = (service.services.reader.record(leaf) for leaf in leaves[4:6])
    assert service.services.vault.open(reviewed, "comment").payload == b"read line by line"
    assert service.services.vault.open(activated, "comment").payload == b"reviewed by two"


def test_an_enforcer_fetches_the_active_bundle_once_and_hears_of_changes_by_its_tag(service):
    bundle = ready_bundle(PERMIT)
    enforcer = service.enforcer()
    service.put_in_force(bundle)
    with service.client(token=enforcer.token) as gateway:
        answer = gateway.get("/v1/bundles/active")
        assert answer.content == bundle.archive()
        assert answer.headers["etag"] == f'"{bundle.revision}"'
        assert answer.headers["cache-control"] == "private, no-cache"
        for tags, status in (
            (f'"{bundle.revision}"', 304),
            (f'"{"0" * 64}", "{bundle.revision}"', 304),
            (f'"{"0" * 64}"', 200),
            (bundle.revision, 200),
        ):
            again = gateway.get("/v1/bundles/active", headers={"if-none-match": tags})
            assert again.status_code == status, tags
            assert (again.content == b"") is (status == 304)
        assert gateway.get(f"/v1/bundles/{bundle.revision}").status_code == 403


@pytest.mark.parametrize(
    ("archive", "status"),
    [
        (b"", 422),
        (b"{}", 422),
        (b"PK\x03\x04", 422),
        (b"[" * 5000, 422),
        (ready_bundle(PERMIT).archive() + b"\n", 422),
        (ready_bundle(PERMIT).archive().replace(b'"files"', b'"files":{},"files"', 1), 422),
        (b" " * (8 * 1024 * 1024 + 1), 413),
    ],
    ids=["empty", "no bundle", "zip", "deep", "other spelling", "duplicate key", "too large"],
)
def test_what_is_no_archive_is_not_published(service, archive, status):
    with service.client(Role.ADMIN) as admin:
        assert admin.post("/v1/bundles", content=archive).status_code == status
    assert actions(service, "bundle") == []


def test_a_bundle_that_its_engine_refuses_is_not_published(service):
    with service.client(Role.ADMIN) as admin:
        answer = admin.post("/v1/bundles", content=ready_bundle(f'@id("broken") {BROKEN}').archive())
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:tallystick:problem:policy"
    assert actions(service, "bundle") == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/v1/bundles/{'0' * 64}/activation", 404),
        (f"/v1/bundles/{'0' * 63}/activation", 422),
        ("/v1/bundles/active/activation", 422),
        (f"/v1/bundles/{'A' * 64}/activation", 422),
    ],
)
def test_what_was_not_published_is_not_activated(service, path, status):
    with service.client(Role.APPROVER) as approver:
        assert approver.post(path, json={}).status_code == status
    assert actions(service, "bundle") == []


@pytest.mark.parametrize("body", [{"comment": "x" * 1001}, {"comment": 5}, {"comment_": "x"}, []])
def test_a_step_with_a_bad_comment_is_not_taken(service, body):
    bundle = ready_bundle(PERMIT)
    with service.client(Role.ADMIN) as admin:
        publish(admin, bundle)
        assert admin.post(f"/v1/bundles/{bundle.revision}/activation", json=body).status_code == 422
        assert admin.get("/v1/bundles").json()["active"] is None


def test_publishing_or_activating_again_records_nothing_again(service):
    bundle = ready_bundle(PERMIT)
    service.put_in_force(bundle)
    with service.client(Role.ADMIN) as admin:
        publish(admin, bundle)
        admin.post(f"/v1/bundles/{bundle.revision}/activation").raise_for_status()
    steps = [event.action for event in actions(service, "bundle")]
    assert steps == ["published", "tested", "reviewed", "activated"]


def test_a_rollback_that_would_permit_what_was_denied_takes_a_second_person(service):
    first, second = ready_bundle(PERMIT), ready_bundle(FORBID)
    service.put_in_force(first)
    service.put_in_force(second)
    enforcer = service.enforcer()
    enforcer.decide_by(second, effect="DENY", rules=("none-may",))
    enforcer.decide_by(first, rules=("all-may",))
    enforcer.decide_by(None, effect="DENY", rules=())
    with service.client(token=service.token(Role.APPROVER, "bob")) as bob:
        refused = bob.post("/v1/bundles/rollback")
        assert (refused.status_code, "it would permit 1" in refused.json()["detail"]) == (409, True)
        bob.post(f"/v1/bundles/{first.revision}/review", json={"verdict": "approved"}).raise_for_status()
        assert bob.post("/v1/bundles/rollback").status_code == 409, "his own word is no second one"
        with service.client(token=service.token(Role.APPROVER, "eve")) as eve:
            eve.post(f"/v1/bundles/{first.revision}/review", json={"verdict": "approved"}).raise_for_status()
        assert bob.post("/v1/bundles/rollback").json()["active"] == first.revision
    rolled_back = actions(service, "bundle")[-1]
    assert (rolled_back.replayed, rolled_back.loosened, rolled_back.unknown) == (1, 1, 0)


def test_one_person_rolls_back_where_denials_stay_denials_and_not_where_nobody_can_tell(service, monkeypatch):
    other = '@id("nor-may-any") forbid (principal, action, resource);'
    bundles = [ready_bundle(text) for text in (FORBID, other, PERMIT)]
    for bundle in bundles:
        service.put_in_force(bundle)
    enforcer = service.enforcer()
    enforcer.decide_by(bundles[2], effect="DENY", rules=("all-may",))
    with service.client(token=service.token(Role.APPROVER, "bob")) as bob:
        assert bob.post("/v1/bundles/rollback").json()["active"] == bundles[1].revision
        erased = enforcer.decide_by(bundles[1], effect="DENY", rules=("nor-may-any",))
        monkeypatch.setattr(service.services.vault, "open", Mock(side_effect=ErasedError("its key is gone")))
        refused = bob.post("/v1/bundles/rollback")
        assert (refused.status_code, "of 2 nobody can tell" in refused.json()["detail"]) == (409, True), erased
    rolled_back = actions(service, "bundle")[-1]
    assert (rolled_back.replayed, rolled_back.loosened, rolled_back.unknown) == (1, 0, 0)


def test_the_commit_that_a_bundle_is_from_is_recorded_and_nothing_that_is_none(service):
    with service.client(Role.ADMIN) as admin:
        content = ready_bundle(PERMIT).archive()
        for commit in ("main", "0" * 39, "A" * 40):
            assert admin.post("/v1/bundles", params={"commit": commit}, content=content).status_code == 422
        admin.post("/v1/bundles", params={"commit": "0a" * 20}, content=content).raise_for_status()
        assert admin.get("/v1/bundles").json()["history"][0]["source"] == "git:" + "0a" * 20
    assert actions(service, "bundle")[0].source == "git:" + "0a" * 20


# --- replays ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningService, dict[str, str], list[Bundle]]]:
    with start_service(tmp_path_factory.mktemp("replays")) as service:
        first, second = ready_bundle(PERMIT), ready_bundle(FORBID)
        enforcer = service.enforcer()
        service.publish(first)
        service.put_in_force(second)
        ids = {
            "exact": enforcer.decide_by(first, rules=("all-may",)),
            "untrue": enforcer.decide_by(first, effect="DENY", rules=("all-may",)),
            "unasked": enforcer.decide_by(None, effect="DENY", rules=()),
            "erased": enforcer.decide_by(first, rules=("all-may",)),
        }
        yield service, ids, [first, second]


def replay(replayed: tuple[RunningService, dict[str, str], list[Bundle]], *names: str, **body: object) -> Any:
    service, ids, _ = replayed
    with service.client(Role.RESPONDER) as responder:
        return responder.post("/v1/replays", json={"decision_ids": [ids.get(name, name) for name in names], **body})


def test_under_the_bundle_of_then_the_same_comes_out_exactly(replayed):
    (result,) = replay(replayed, "exact").json()["results"]
    assert (result["same"], result["class"], result["replayed_under"]) == (True, "exact", replayed[2][0].revision)
    assert result["replayed"]["rules"] == ["all-may"]


def test_a_record_that_says_what_its_bundle_does_not_say_is_found_out(replayed):
    answer = replay(replayed, "untrue").json()
    assert (answer["same"], answer["different"]) == (0, 1)
    assert "effect" in answer["results"][0]["differences"]


@pytest.mark.parametrize("how", ["active", "revision", "archive"])
def test_under_another_bundle_it_comes_out_as_that_one_says(replayed, how):
    second = replayed[2][1]
    body = {
        "active": {"bundle": "active"},
        "revision": {"bundle": second.revision},
        "archive": {"archive": json.loads(second.archive()), "purpose": "an inquiry by the board"},
    }[how]
    (result,) = replay(replayed, "exact", **body).json()["results"]
    assert (result["same"], result["replayed_under"]) == (False, second.revision)
    assert (result["original"]["effect"], result["replayed"]["effect"]) == ("PERMIT", "DENY")


def test_a_proposed_bundle_is_neither_published_nor_activated_by_a_replay(replayed):
    proposed = ready_bundle('@id("proposed") permit (principal, action, resource);')
    body = {"archive": json.loads(proposed.archive()), "purpose": "an inquiry by the board"}
    (result,) = replay(replayed, "exact", **body).json()["results"]
    assert result["replayed"]["rules"] == ["proposed"]
    opened = replayed[0].access_events("open_payload")[-1]
    assert (opened.target_id, opened.actor_role) == (replayed[1]["exact"], "responder"), "rules of one's own can ask"
    with replayed[0].client(Role.ADMIN) as admin:
        assert admin.get(f"/v1/bundles/{proposed.revision}").status_code == 404


def test_where_no_policy_was_asked_none_is_now_and_that_is_said(replayed):
    for body in ({}, {"bundle": "active"}):
        (result,) = replay(replayed, "unasked", **body).json()["results"]
        assert (result["same"], result["class"], result["replayed"]) == (None, "missing_fact", None)
        assert "no policy was asked" in result["explanation"]


def test_where_the_payload_is_gone_nothing_is_guessed(replayed):
    service, ids, _ = replayed
    folder = service.services.settings.keys_dir / "subjects"
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    for path in folder.rglob("*.key"):
        path.unlink()
    service.services.vault._keys._cached.cache_clear()
    (result,) = replay(replayed, "erased").json()["results"]
    with service.client(Role.RESPONDER) as responder:
        opening = responder.post(f"/v1/decisions/{ids['erased']}/openings", json={"purpose": "an inquiry"})
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    assert (result["same"], result["class"], result["replayed"]) == (None, "erased", None)
    assert (opening.status_code, opening.json()["type"]) == (410, "urn:tallystick:problem:erased")


def test_results_come_in_the_order_asked_for_and_the_replay_is_recorded(replayed):
    names = ("unasked", "exact", "untrue", "exact")
    answer = replay(replayed, *names).json()
    assert [result["decision_id"] for result in answer["results"]] == [replayed[1][name] for name in names]
    event = replayed[0].access_events("replay")[-1]
    assert (event.target_kind, event.target_id, event.items) == ("decisions", None, 4)


@pytest.mark.parametrize(
    ("names", "body", "status"),
    [
        ((), {}, 422),
        ((MISSING,), {}, 404),
        (("x",), {}, 422),
        (("exact", MISSING), {}, 404),
        ((MISSING,) * 501, {}, 422),
        (("exact",), {"bundle": "0" * 64}, 404),
        (("exact",), {"bundle": "newest"}, 422),
        (("exact",), {"bundle": None}, 422),
        (("exact",), {"archive": {}, "purpose": "an inquiry"}, 422),
        (("exact",), {"archive": "x", "purpose": "an inquiry"}, 422),
        (("exact",), {"archive": {"files": {}, "format": "tallystick.bundle/1"}, "purpose": "an inquiry"}, 422),
        (("exact",), {"archive": json.loads(ready_bundle(FORBID).archive())}, 422),
        (("exact",), {"archive": json.loads(ready_bundle(FORBID).archive()), "purpose": "short"}, 422),
        (("exact",), {"bundle_": "active"}, 422),
    ],
)
def test_a_replay_that_cannot_be_is_refused_and_not_recorded(replayed, names, body, status):
    before = len(replayed[0].access_events("replay"))
    answer = replay(replayed, *names, **body)
    assert answer.status_code == status, answer.text
    assert len(replayed[0].access_events("replay")) == before


# --- packs -----------------------------------------------------------------------------------------------------------


def make_pack(service: RunningService, **changes: object) -> dict[str, Any]:
    now = service.services.clock.now_ms()
    order = {"from_ms": now - 3_600_000, "to_ms": now + 1000, "frameworks": ["soc2"], **changes}
    with service.client(Role.AUDITOR) as auditor:
        answer = auditor.post("/v1/evidence-packs", json=order)
        assert answer.status_code == 202, answer.text
        job = answer.json()
        assert answer.headers["location"] == f"/v1/evidence-packs/{job['job_id']}"
        deadline = time.monotonic() + 90
        while job["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, job
            assert job["links"] == {}
            time.sleep(0.2)
            job = auditor.get(f"/v1/evidence-packs/{job['job_id']}").json()
    return dict(job)


def check_write_search_pack(service: RunningService) -> None:
    """Write, find, and have a pack that proves it."""
    enforcer = service.enforcer()
    decision_id = enforcer.decide(agent="in-the-pack")
    enforcer.complete(decision_id)
    with service.client(Role.AUDITOR) as auditor:
        (found,) = auditor.get("/v1/decisions", params={"agent": "in-the-pack"}).json()["items"]
        assert found["record"]["record_id"] == decision_id
        job = make_pack(service)
        assert job["state"] == "done", job
        pack = auditor.get(job["links"]["zip"])
        report = auditor.get(job["links"]["pdf"])
    assert report.content.startswith(b"%PDF-")
    assert pack.headers["content-type"] == "application/zip"
    assert pack.headers["cache-control"] == "private, no-store"
    assert re.search(r'filename="tallystick-[0-9a-f-]+\.zip"', pack.headers["content-disposition"])
    verified = verify_pack(pack.content, trust=trust_policy(service.services.keys))
    assert verified.status is Status.PROVEN, list(verified.lines())
    assert verify_pack(pack.content, trust=None).status is Status.TRUST_NOT_MET
    events = [event for event in service.access_events() if event.target_kind == "pack"]
    told = [(event.action, event.target_id, event.digest) for event in events]
    assert told == [
        ("request_pack", job["job_id"], None),
        ("make_pack", job["job_id"], job["zip_sha256"]),
        ("download_zip", job["job_id"], job["zip_sha256"]),
        ("download_pdf", job["job_id"], job["pdf_sha256"]),
    ]


@pytest.mark.slow
def test_a_pack_is_ordered_watched_downloaded_proven_and_every_step_recorded(service):
    check_write_search_pack(service)


@pytest.mark.slow
def test_the_same_holds_on_postgresql(tmp_path: Path, postgres: PostgresCluster):
    url = postgres.new_schema()
    with pytest.raises(ConfigError, match="schema"), start_service(tmp_path, database_url=url):
        pass
    with start_service(tmp_path, database_url=url, migrate=True) as service:
        check_write_search_pack(service)
    with start_service(tmp_path, database_url=url) as service:
        enforcer = service.enforcer("gateway-2", seed=22)
        enforcer.decide()


@pytest.mark.parametrize(
    "changes",
    [
        {"to_ms": 0},
        {"from_ms": -1},
        {"from_ms": "yesterday"},
        {"frameworks": ["no-such"]},
        {"frameworks": ["../soc2"]},
        {"frameworks": ["soc2"] * 33},
        {"zone": "Mars/Olympus"},
        {"zone": ""},
        {"title": ""},
        {"title": "x" * 201},
        {"framework": ["soc2"]},
        {"to_ms": 2**53},
        {"to_ms": 2**53 - 1},
        {"to_ms": 253_402_300_800_001},
    ],
    ids=str,
)
def test_an_order_that_cannot_be_met_is_refused_and_not_recorded(shared, changes):
    before = len(shared.access_events("request_pack"))
    with shared.client(Role.AUDITOR) as auditor:
        answer = auditor.post("/v1/evidence-packs", json={"from_ms": 1, "to_ms": 2, **changes})
        assert answer.status_code == 422
    assert len(shared.access_events("request_pack")) == before


@pytest.mark.parametrize("suffix", ["", ".pdf", ".zip"])
@pytest.mark.parametrize(
    ("job_id", "status"), [(MISSING, 404), ("x", 422), (MISSING.upper(), 422), ("..%2f..%2fkeys", 404)]
)
def test_a_pack_that_is_not_there_is_not_found_and_no_path_leads_elsewhere(shared, job_id, suffix, status):
    with shared.client(Role.AUDITOR) as auditor:
        assert auditor.get(f"/v1/evidence-packs/{job_id}{suffix}").status_code == status


def test_a_pack_that_is_not_ready_or_whose_file_is_gone_is_not_handed_out(service):
    store = service.services.packs.store
    store.add(MISSING, PackOrder(from_ms=1, to_ms=2), "a" * 32, 1)
    with service.client(Role.AUDITOR) as auditor:
        answer = auditor.get(f"/v1/evidence-packs/{MISSING}.zip")
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:tallystick:problem:not-ready")
        store.change(MISSING, state="done", zip_sha256="0" * 64)
        assert auditor.get(f"/v1/evidence-packs/{MISSING}.zip").status_code == 404
    assert service.access_events("download_zip") == []


# --- health ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("shared")) as service:
        yield service


def checks(service: RunningService, *, ready: bool) -> dict[str, dict[str, Any]]:
    """Look once what was seen before has grown old."""
    time.sleep(1.05)
    with service.stranger() as stranger:
        answer = stranger.get("/readyz")
    assert answer.status_code == (200 if ready else 503)
    body = answer.json()
    assert (body["ready"], body["simulated"]) == (ready, True)
    return {check["name"]: check for check in body["checks"]}


def test_a_sound_service_is_ready_and_says_what_it_looked_at(service):
    service.enforcer().decide()
    service.wait_until_published()
    seen = checks(service, ready=True)
    parts = ["database", "sequencer", "publishing", "checkpoint", "anchor", "collecting", "background", "audit"]
    assert list(seen) == parts
    assert all(check["ok"] for check in seen.values())


def test_many_who_ask_are_answered_from_one_look(service, monkeypatch):
    looks = []
    real = type(service.services.store).check_writable
    monkeypatch.setattr(type(service.services.store), "check_writable", lambda store: looks.append(1) or real(store))
    time.sleep(1.05)
    with service.stranger() as stranger:
        started = time.monotonic()
        for _ in range(20):
            stranger.get("/readyz")
        seconds = time.monotonic() - started
    assert len(looks) <= 1 + int(seconds)


def test_an_anchor_that_is_down_is_told_and_stops_nothing(service, monkeypatch):
    def down(*_: object) -> None:
        raise AnchorError("the bucket does not answer")

    monkeypatch.setattr(type(service.services.anchor), "put", down)
    enforcer = service.enforcer()
    assert enforcer.post([], query="").status_code == 400
    decision_id = enforcer.decide()
    service.wait_until_published()
    deadline = time.monotonic() + 10
    while service.services.publishing.anchor_status.failure is None and time.monotonic() < deadline:
        time.sleep(0.05)
    seen = checks(service, ready=True)
    assert not seen["anchor"]["ok"]
    with service.client() as auditor:
        assert auditor.get(f"/v1/decisions/{decision_id}/proof").status_code == 200
    with service.stranger() as stranger:
        assert "tallystick_anchor_up 0.0" in stranger.get("/metrics").text


def test_a_pack_that_is_made_while_the_anchor_is_down_names_the_newest_copy_before(service, monkeypatch):
    services = service.services
    enforcer = service.enforcer()
    service.wait_until_published()
    deadline = time.monotonic() + 10
    while services.publishing.anchor_status.receipt is None and time.monotonic() < deadline:
        time.sleep(0.05)

    def down(*_: object) -> None:
        raise AnchorError("the bucket does not answer")

    monkeypatch.setattr(type(services.anchor), "put", down)
    enforcer.decide()
    service.wait_until_published()
    published = services.publishing.published
    (copy,) = _anchored(services, published)
    assert 0 < copy.receipt.size < published.head.size


def test_publishing_that_has_ended_is_told_and_the_service_is_not_ready(service):
    service.enforcer().decide()
    service.wait_until_published()
    publishing = service.services.publishing
    service.run(lambda: _end(publishing))
    seen = checks(service, ready=False)
    assert not seen["publishing"]["ok"]
    assert "ended for good" in seen["publishing"]["detail"]
    assert gauge(service, "tallystick_publishing_up") == 0


def gauge(service: RunningService, name: str) -> float:
    with service.stranger() as stranger:
        answer = stranger.get("/metrics")
    assert answer.status_code == 200
    (line,) = [line for line in answer.text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_a_database_that_is_gone_and_comes_back_is_told_by_readiness_and_metrics(tmp_path: Path):
    cluster = PostgresCluster()
    try:
        with start_service(tmp_path, database_url=cluster.new_database(), migrate=True) as running:
            enforcer = running.enforcer()
            enforcer.decide()
            running.wait_until_published()
            both = ("tallystick_database_up", "tallystick_publishing_up")
            assert [gauge(running, name) for name in both] == [1, 1]
            cluster.crash()
            assert gauge(running, "tallystick_database_up") == 0
            for _ in range(30):
                seen = checks(running, ready=False)
                if not seen["publishing"]["ok"]:
                    break
            assert [seen[name]["ok"] for name in ("database", "publishing", "checkpoint", "anchor")] == [False] * 3 + [
                True
            ]
            assert gauge(running, "tallystick_publishing_up") == 0
            cluster.start()
            for _ in range(30):
                if all(check["ok"] for check in checks(running, ready=True).values()):
                    break
            enforcer.decide()
            running.wait_until_published()
            assert [gauge(running, name) for name in both] == [1, 1]
    finally:
        cluster.stop()


async def _end(publishing: Any) -> None:
    publishing._failure = ConflictError("another service publishes this log")
    await asyncio.sleep(0)


def test_a_database_that_does_not_write_is_told_and_nothing_is_acknowledged(service, monkeypatch):
    def failing(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    enforcer = service.enforcer()
    store = type(service.services.store)
    with monkeypatch.context() as patched:
        patched.setattr(store, "sequence", failing)
        patched.setattr(store, "check_writable", failing)
        patched.setattr(store, "sequenced_size", failing)
        body = enforcer.record(enforcer.enforcer.heartbeat())
        answer = enforcer.post([(body, ())])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        seen = checks(service, ready=False)
        assert not seen["database"]["ok"]
        assert not seen["sequencer"]["ok"]
        assert seen["checkpoint"]["detail"] == "the disk is full"
        with service.stranger() as stranger:
            assert stranger.get("/healthz").status_code == 200
    again = enforcer.post([(body, ())])
    assert again.status_code == 201
    checks(service, ready=True)


def test_background_work_that_fails_unexpectedly_is_told_and_goes_on(service, monkeypatch):
    turns = []

    def failing(*_: object) -> None:
        turns.append(True)
        raise ValueError("an unexpected value: secret")

    work = service.services.collecting.work
    with monkeypatch.context() as patched:
        patched.setattr(work, "_retry_seconds", 0.05)
        patched.setattr(type(service.services.collecting._collector), "turn", failing)
        wait_until(lambda: len(turns) > 1)
        seen = checks(service, ready=True)
        assert seen["background"]["detail"] == "failing: collecting (ValueError)"
        assert not seen["background"]["ok"]
        assert "secret" not in json.dumps(seen)
        with service.stranger() as stranger:
            assert 'tallystick_background_up{work="collecting"} 0.0' in stranger.get("/metrics").text
    wait_until(lambda: work.failure is None)
    assert checks(service, ready=True)["background"]["ok"]
    with service.stranger() as stranger:
        assert 'tallystick_background_up{work="collecting"} 1.0' in stranger.get("/metrics").text


def test_a_start_that_fails_late_leaves_nothing_running(tmp_path: Path):
    services = start_service(tmp_path).services

    async def failing() -> None:
        raise StorageError("the disk is full")

    async def start() -> list[str]:
        services.auditing.start = failing  # type: ignore[method-assign]  # the last that is started
        with pytest.raises(StorageError, match="the disk is full"):
            await services.start()
        return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(start()) == []


def test_a_proof_that_does_not_come_in_time_is_said_and_the_record_is_durable_all_the_same(tmp_path: Path):
    with start_service(tmp_path, checkpoint_interval_seconds=3600, proof_timeout_seconds=0.2) as service:
        enforcer = service.enforcer()
        enforcer.decide()
        record = enforcer.record(enforcer.enforcer.heartbeat())
        answer = enforcer.post([(record, ())], query="?wait=proof")
        assert answer.status_code == 503
        assert enforcer.post([(record, ())]).json()["results"][0]["duplicate"] is True


def test_metrics_count_records_and_duplicates_and_name_nobody(service):
    enforcer = service.enforcer()
    decision_id = enforcer.decide(agent="secret-agent")
    record = enforcer.record(enforcer.enforcer.heartbeat())
    for _ in range(2):
        enforcer.post([(record, ())])
    service.wait_until_published()
    with service.stranger() as stranger:
        text = stranger.get("/metrics").text
        stranger.get(f"/v1/decisions/{decision_id}")
    for line in (
        'tallystick_records_total{type="decision"} 1.0',
        'tallystick_records_total{type="heartbeat"} 1.0',
        "tallystick_duplicate_records_total 1.0",
        "tallystick_anchor_up 1.0",
    ):
        assert line in text.splitlines()
    for name in ("secret-agent", "gateway-1", decision_id, enforcer.token):
        assert name not in text


# --- restarts --------------------------------------------------------------------------------------------------------


def test_after_a_restart_everything_goes_on_where_it_stood(tmp_path: Path):
    with start_service(tmp_path) as service:
        enforcer = service.enforcer()
        first = enforcer.decide()
        token = service.token(Role.AUDITOR)
        bundle = ready_bundle(PERMIT)
        service.put_in_force(bundle)
        size = service.services.sequenced_size()
    with start_service(tmp_path) as service:
        enforcer._service = service
        second = enforcer.decide()
        with service.client(token=token) as auditor:
            for decision_id in (first, second):
                assert auditor.get(f"/v1/decisions/{decision_id}").status_code == 200
            assert auditor.get("/v1/bundles").json()["active"] == bundle.revision
        records = [service.services.reader.record(index) for index in range(service.services.sequenced_size())]
    mine = [record for record in records if record.enforcer_id == "service"]
    assert [record.seq for record in mine] == list(range(1, len(mine) + 1))
    assert len({record.epoch for record in mine}) == 1
    kinds = [record.body.kind for record in mine if isinstance(record.body, Heartbeat)]
    assert kinds[:3] == ["start", "stop", "start"]
    assert isinstance(records[size].body, Heartbeat)
    assert sum(isinstance(record.body, KeyEvent) for record in records) == 8


def test_when_it_stops_everything_is_published_and_its_stream_closed(tmp_path: Path):
    with start_service(tmp_path, checkpoint_interval_seconds=3600) as service:
        service.enforcer().decide_many([{}] * 5)
        services = service.services
    assert services.publishing.published.head.size == services.sequenced_size()
    last = services.reader.record(services.sequenced_size() - 1)
    assert (last.enforcer_id, last.body.kind) == ("service", "stop")
    services.database.dispose()


def test_a_pack_that_was_under_way_has_failed_after_a_restart(tmp_path: Path):
    with start_service(tmp_path) as service:
        store = service.services.packs.store
        store.add(MISSING, PackOrder(from_ms=1, to_ms=2), "a" * 32, 1)
        store.change(MISSING, state="running")
    with start_service(tmp_path) as service, service.client(Role.AUDITOR) as auditor:
        (job,) = auditor.get("/v1/evidence-packs").json()["items"]
        assert (job["state"], job["links"]) == ("failed", {})
        assert "ask again" in job["error"]


def refuses_to_start(root: Path, told: str, **changes: object) -> None:
    services = build_services(make_settings(root, **changes), allow_simulated=True)
    with pytest.raises(ConfigError, match=told):
        asyncio.run(services.start())


@pytest.mark.parametrize(
    ("name", "purpose", "algorithm"),
    [
        ("pack-ed25519.json", "pack", "ed25519"),
        ("pack-ml-dsa-44.json", "pack", "ml-dsa-44"),
        ("service-ed25519.json", "enforcer", "ed25519"),
        ("vault.json", "vault", "xchacha20-poly1305"),
        ("pseudonym.json", "pseudonym", "hmac-sha256"),
    ],
)
def test_a_log_is_not_continued_with_a_key_that_it_does_not_know(tmp_path: Path, name, purpose, algorithm):
    with start_service(tmp_path) as service:
        key = next(key for key in service.services.keys if (key.purpose, key.algorithm) == (purpose, algorithm))
        size = service.services.sequenced_size()
    path = tmp_path / "keys" / name
    path.unlink()
    save_key(generate_key(purpose, algorithm, key.name, created_ms=key.created_ms, simulated=True), path)
    refuses_to_start(tmp_path, f"another {purpose} key than the {algorithm} one")
    path.unlink()
    save_key(replace(key), path)
    with start_service(tmp_path) as service:
        # Its own stop and start; whoever came with the wrong key wrote nothing.
        assert service.services.sequenced_size() == size + 2


def test_a_log_of_one_service_is_not_taken_over_by_another(tmp_path: Path):
    with start_service(tmp_path):
        pass
    path = tmp_path / "keys" / "service-ed25519.json"
    path.unlink()
    save_key(generate_key("enforcer", "ed25519", "usurper", created_ms=1, simulated=True), path)
    refuses_to_start(tmp_path, "the log belongs to the service service", service_id="usurper")


@pytest.mark.parametrize("changes", [{"origin": "log.example/other"}, {"service_id": "other"}])
def test_keys_for_another_origin_or_service_are_refused(tmp_path: Path, changes):
    with start_service(tmp_path):
        pass
    with pytest.raises(ConfigError, match="another origin or service id"):
        start_service(tmp_path, **changes)


def test_demonstration_keys_write_no_real_log(tmp_path: Path):
    with start_service(tmp_path):
        pass
    with pytest.raises(ConfigError, match="demonstration keys"):
        build_services(make_settings(tmp_path), clock=SystemClock())


def test_a_data_directory_that_cannot_be_made_is_an_error_of_configuration(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="data directory cannot be made"):
        start_service(tmp_path, data_dir=tmp_path / "file" / "data")


def test_two_services_on_one_log_write_one_stream_without_gap_or_refusal(tmp_path: Path):
    """Each goes on behind the other: the number that the other has taken is never asked for from outside."""
    with start_service(tmp_path) as first:
        enforcer = first.enforcer()
        with start_service(tmp_path) as second, first.client() as one, second.client() as other:
            answers = [client.get("/v1/decisions").status_code for _ in range(6) for client in (one, other)]
            assert set(answers) == {200}
            decisions = enforcer.decide_many([{}] * 10)
            enforcer._service = second
            decisions += enforcer.decide_many([{}] * 10)
            size = second.services.sequenced_size()
            records = [second.services.reader.record(index) for index in range(size)]
    mine = [(record.epoch, record.seq) for record in records if record.enforcer_id == "service"]
    assert mine == [(mine[0][0], number) for number in range(1, len(mine) + 1)]
    queries = [record for record in records if getattr(record.body, "action", None) == "query"]
    assert len(queries) == answers.count(200)
    assert [record.record_id for record in records if record.record_id in decisions] == decisions


def test_a_token_is_recorded_by_its_digest_before_it_counts(service, monkeypatch):
    with service.client(Role.ADMIN) as admin:
        issued = admin.post("/v1/tokens", json={"role": "auditor", "name": "jane", "lifetime_days": 1}).json()
        (event,) = service.access_events("issue_token")
        assert event.target_id == issued["token_sha256"]

        def failing(*_: object, **__: object) -> None:
            raise StorageError("injected")

        monkeypatch.setattr(type(service.services.tokens), "issue", failing)
        token = service.access_events("issue_token")
        assert admin.post("/v1/tokens", json={"role": "auditor", "name": "jane"}).status_code == 503
        assert len(service.access_events("issue_token")) == len(token) + 1


@pytest.mark.parametrize(
    "body",
    [
        {"role": "enforcer", "name": "x"},
        {"role": "root", "name": "x"},
        {"role": "auditor"},
        {"role": "auditor", "name": "a b"},
        {"role": "auditor", "name": "x\n"},
        {"role": "auditor", "name": "x", "lifetime_days": 0},
        {"role": "auditor", "name": "x", "lifetime_days": 3651},
        {"role": "auditor", "name": "x", "lifetime_day": 1},
        {"role": "auditor", "name": "x", "log_id": "other"},
    ],
    ids=str,
)
def test_a_token_that_would_be_more_than_was_meant_is_not_issued(shared, body):
    before = len(shared.access_events("issue_token"))
    with shared.client(Role.ADMIN) as admin:
        assert admin.post("/v1/tokens", json=body).status_code in (400, 422)
    assert len(shared.access_events("issue_token")) == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"enforcer_id": "service", "public_key": "A" * 43 + "="}, 409),
        ({"enforcer_id": "known", "public_key": "B" * 43 + "="}, 400),
        ({"enforcer_id": "x", "public_key": "A" * 44}, 400),
        ({"enforcer_id": "x", "public_key": "A" * 42 + "=="}, 400),
        ({"enforcer_id": "x", "public_key": "-" * 43 + "="}, 400),
        ({"enforcer_id": "x y", "public_key": "A" * 43 + "="}, 422),
        ({"enforcer_id": "x", "public_key": ""}, 422),
        ({"enforcer_id": "x", "public_key": "A" * 43 + "=", "role": "admin"}, 422),
        ({"enforcer_id": "x"}, 422),
    ],
    ids=str,
)
def test_an_enforcer_that_cannot_be_is_not_introduced(shared, body, status):
    before = actions(shared, "key")
    with shared.client(Role.ADMIN) as admin:
        assert admin.post("/v1/enforcers", json=body).status_code == status
    assert actions(shared, "key") == before


def test_introducing_an_enforcer_again_gives_a_token_and_with_another_key_a_conflict(service):
    with service.client(Role.ADMIN) as admin:
        body = {"enforcer_id": "gateway-9", "public_key": encode_base64(b"1" * 32)}
        first, again = (admin.post("/v1/enforcers", json=body).json() for _ in range(2))
        assert first["leaf_index"] == again["leaf_index"]
        assert first["token"] != again["token"]
        other = admin.post("/v1/enforcers", json={**body, "public_key": encode_base64(b"2" * 32)})
        assert other.status_code == 409
    keys = [body for body in actions(service, "key") if body.subject == "gateway-9"]
    assert len(keys) == 1
    with service.services.database.connect() as connection:
        assert connection.execute(select(pack_jobs)).all() == []


def test_of_many_who_introduce_one_enforcer_at_once_one_key_counts(service):
    async def race() -> list[int]:
        headers = {"authorization": f"Bearer {service.token(Role.ADMIN)}"}
        async with httpx.AsyncClient(base_url=service.url, headers=headers, trust_env=False, verify=False) as client:
            answers = await asyncio.gather(
                *(
                    client.post(
                        "/v1/enforcers",
                        json={"enforcer_id": "raced", "public_key": encode_base64(bytes([number]) * 32)},
                    )
                    for number in range(8)
                )
            )
        return [answer.status_code for answer in answers]

    assert sorted(asyncio.run(race())) == [201] + [409] * 7
    assert len([body for body in actions(service, "key") if body.subject == "raced"]) == 1
