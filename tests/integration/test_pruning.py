"""Pruning: a published minimum index denies what is below it, deletes nothing, and every process goes by it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evidence.verification import Status
from evidence.verify import verify_pack
from ledger.audit_report import AuditReport
from ledger.auditor import Auditor
from ledger.bodies import RetentionEvent
from ledger.clock import SimulatedClock
from ledger.commitments import pseudonym
from ledger.errors import StorageError
from ledger.proof_files import parse_proof_file, verify_entry
from ledger.records import encode_record
from ledger.subjects import DAY_MS
from service.auth import Role
from service.cli.main import main
from service.keyset import trust_policy
from tests.conformance.requirements import requirement
from tests.integration.test_dashboard_http import log_in
from tests.support.ledger import LOG_ID, NOW_MS
from tests.support.service import EnforcerClient, RunningService, start_service

OLD, STRADDLING, YOUNG = "5" * 32, "8" * 32, "9" * 32
REASON = "matter 12 of 2026"
POLICY = "log: {default: 2d}\n"
PURPOSE = "an inquiry by the board"


class Scene:
    """A service with 300 old decisions, of which the minimum index 256 takes most."""

    def __init__(self, service: RunningService, clock: SimulatedClock) -> None:
        self.service, self.clock = service, clock
        self.gateway: EnforcerClient = service.enforcer()
        user = pseudonym(service.services.keys.pseudonym.seed, "user", "alice")
        of_alice = [{"user": user, "session": OLD, "agent": "old"}] * 100
        straddling = [{"user": None, "session": STRADDLING, "agent": "old"}] * 200
        self.ids = self.gateway.decide_many([*of_alice, *straddling])
        service.wait_until_published()

    def index(self, record_id: str) -> int:
        return self.service.services.catalog.index_of(LOG_ID, record_id)

    def post(self, path: str, body: object, *, by: str = "anna", status: int = 200, role: Role = Role.ADMIN) -> Any:
        with self.service.client(token=self.service.token(role, by)) as client:
            answer = client.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def get(self, path: str, *, status: int = 200, role: Role = Role.AUDITOR, **params: object) -> Any:
        with self.service.client(role) as client:
            answer = client.get(path, params=params)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.headers["content-type"].endswith("json") else answer.content

    def prune(self, below: int = 256, *, status: int = 200, **more: object) -> Any:
        return self.post("/v1/minimum-index", {"below": below, **more}, status=status)

    def pruned(self) -> list[RetentionEvent]:
        found = self.service.services.catalog.of_type(LOG_ID, "retention")
        bodies = [self.service.services.reader.record(index).body for index in found]
        return [body for body in bodies if isinstance(body, RetentionEvent) and body.action == "pruned"]

    def minimum(self) -> int:
        return int(self.get(f"/logs/{LOG_ID}/minimum-index")["minimum_index"])

    def audit(self) -> AuditReport:
        self.service.wait_until_published()
        services = self.service.services
        trust = trust_policy(services.keys)
        return Auditor(LOG_ID, services.tiles, trust, catalog=services.catalog, vault=services.vault).audit()

    def pack(self, from_ms: int, to_ms: int) -> dict[str, Any]:
        job = self.post(
            "/v1/evidence-packs",
            {"from_ms": from_ms, "to_ms": to_ms, "frameworks": ["soc2"]},
            status=202,
            role=Role.AUDITOR,
        )
        deadline = time.monotonic() + 90
        while job["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, job
            time.sleep(0.2)
            job = self.get(f"/v1/evidence-packs/{job['job_id']}")
        return dict(job)


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(NOW_MS)


def start(root: Path, clock: SimulatedClock, policy: str = POLICY) -> RunningService:
    file = root / "retention.yaml"
    file.write_text(policy)
    return start_service(root, clock=clock, retention=file)


@pytest.fixture
def young(tmp_path: Path, clock: SimulatedClock) -> Iterator[Scene]:
    """Return a log whose records are all new."""
    with start(tmp_path, clock) as service:
        yield Scene(service, clock)


@pytest.fixture
def scene(young: Scene) -> Scene:
    """Return a log whose records are past their time."""
    young.clock.advance(3 * DAY_MS)
    return young


# --- what is refused -------------------------------------------------------------------------------------------------


def refused(scene: Scene, below: int = 256, status: int = 409) -> str:
    """Return why a pruning is refused, asked for or tried, after which nothing has changed."""
    details = [scene.prune(below, status=status, dry_run=dry_run)["detail"] for dry_run in (True, False)]
    assert details[0] == details[1]
    assert (scene.pruned(), scene.minimum()) == ([], 0)
    return str(details[0])


@requirement("tiles-16")
def test_nothing_is_pruned_without_a_policy_for_the_log(tmp_path, clock):
    with start(tmp_path, clock, "vault: {default: 1d}\n") as service:
        scene = Scene(service, clock)
        clock.advance(9 * DAY_MS)
        assert "states no time for the log" in refused(scene)


def test_a_type_without_a_time_in_the_log_keeps_all_that_stands_behind_it(tmp_path, clock):
    with start(tmp_path, clock, "log: {decision: 1d}\n") as service:
        scene = Scene(service, clock)
        clock.advance(9 * DAY_MS)
        assert "leaf 0 is a record of the type key, which the policy keeps in the log for ever" in refused(scene)


def test_a_record_that_is_not_past_its_time_is_not_pruned(young):
    young.clock.advance(2 * DAY_MS - 1)
    assert "which the policy keeps until 2025-11-21T" in refused(young)


def test_an_enforcers_clock_that_lags_makes_its_records_no_older(tmp_path, clock):
    with start(tmp_path, clock, "log: {default: 2d, heartbeat: 1d}\n") as service:
        scene = Scene(service, clock)
        clock.advance(DAY_MS)
        service.run(service.services.heartbeat)
        scene.gateway.decide_many([{"agent": "backdated"}] * 256, time_ms=NOW_MS - 100 * DAY_MS)
        service.wait_until_published()
        clock.advance(DAY_MS + 1000)
        assert "a record of the type decision, which the policy keeps until 2025-11-22T" in refused(scene, 512)


def test_what_was_pruned_before_still_says_how_old_the_next_records_are(tmp_path, clock):
    """The last sign of the true time stands below the minimum index, and behind it a clock that lags alone."""
    with start(tmp_path, clock, "log: {default: 1d, decision: 7d}\n") as service:
        gateway = service.enforcer()
        beats = 256 - service.services.sequenced_size()
        gateway.post([(gateway.record(gateway.enforcer.heartbeat()), ()) for _ in range(beats)]).raise_for_status()
        gateway.decide_many([{}] * 256, time_ms=NOW_MS - 100 * DAY_MS)
        service.wait_until_published()
        clock.advance(2 * DAY_MS)
        order = {"below": 256}
        with service.client(Role.ADMIN) as admin:
            admin.post("/v1/minimum-index", json=order).raise_for_status()
            answer = admin.post("/v1/minimum-index", json={"below": 512})
        assert answer.status_code == 409
        assert "leaf 256 is a record of the type decision, which the policy keeps until 2025-11-26T" in answer.text


@pytest.mark.parametrize("below", [0, 1, 255, 257])
def test_a_minimum_index_within_a_bundle_is_refused(scene, below):
    assert "multiple of 256" in refused(scene, below, status=400)


@pytest.mark.parametrize(
    "body", [{}, {"below": -256}, {"below": "256"}, {"below": 256.5}, {"below": 256, "force": True}]
)
def test_an_order_that_says_not_how_far_is_refused(scene, body):
    scene.post("/v1/minimum-index", body, status=422)
    assert scene.pruned() == []


def test_what_no_checkpoint_covers_is_not_pruned(scene):
    assert "the newest checkpoint covers" in refused(scene, 512)


@pytest.mark.parametrize("scope", ["user", "session", "period"])
def test_a_hold_on_a_record_below_stops_it_until_two_people_end_the_hold(scene, scope):
    scopes = {"user": {"user": "alice"}, "session": {"session": OLD}, "period": {"to_ms": NOW_MS + DAY_MS}}
    hold_id = scene.post("/v1/holds", {"reason": REASON, **scopes[scope]}, status=201)["hold_id"]
    assert hold_id in refused(scene)
    for person in ("anna", "ben"):
        scene.post(f"/v1/holds/{hold_id}/release", None, by=person)
    assert scene.prune()["before"] == 0


def test_a_hold_on_what_stands_behind_stops_nothing(scene):
    scene.post("/v1/holds", {"reason": REASON, "session": YOUNG}, status=201)
    scene.prune()


def test_a_hold_that_is_placed_while_the_entries_are_read_is_seen(scene, monkeypatch):
    pruner = scene.service.services.pruner
    walk, placed = pruner._walk, []

    def walk_and_hold(*arguments: object) -> None:
        walk(*arguments)
        if not placed:
            placed.append(scene.post("/v1/holds", {"reason": REASON, "session": OLD}, status=201)["hold_id"])

    monkeypatch.setattr(pruner, "_walk", walk_and_hold)
    refusal = scene.prune(status=409)
    assert placed[0] in refusal["detail"]
    assert scene.pruned() == []


@requirement("tiles-17")
def test_it_moves_forward_alone(scene):
    scene.prune()
    assert "the minimum index is 256 and moves forward alone" in scene.prune(status=409)["detail"]
    assert (len(scene.pruned()), scene.minimum()) == (1, 256)


def test_a_record_that_could_not_be_written_prunes_nothing(scene, monkeypatch):
    async def fail(*_: object) -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(scene.service.services.pruner._sink, "append", fail)
    scene.prune(status=503)
    monkeypatch.undo()
    assert (scene.pruned(), scene.minimum()) == ([], 0)


# --- what is not served any more -------------------------------------------------------------------------------------


def test_an_order_is_recorded_with_its_author_and_policy_and_a_trial_changes_nothing(scene):
    assert scene.prune(dry_run=True)["recorded_leaf"] is None
    assert (scene.pruned(), scene.minimum()) == ([], 0)
    done = scene.prune()
    (event,) = scene.pruned()
    services = scene.service.services
    assert (event.below, event.policy, event.actor_role) == (256, services.pruner.policy.digest, "admin")
    assert event.actor == pseudonym(services.keys.pseudonym.seed, "actor", "anna")
    assert scene.get(f"/logs/{LOG_ID}/minimum-index") == {
        "log_id": LOG_ID,
        "minimum_index": 256,
        "recorded_leaf": done["recorded_leaf"],
        "policy": services.pruner.policy.digest,
        "classes": ["log:default:2d"],
    }


@requirement("tiles-15")
def test_bundles_below_are_denied_and_hash_tiles_and_later_bundles_are_served(scene):
    scene.prune()
    for path in ("tile/entries/000", "tile/entries/000.p/17"):
        problem = scene.get(f"/logs/{LOG_ID}/{path}", status=404)
        assert (problem["type"], problem["minimum_index"]) == ("urn:tallystick:problem:pruned", 256)
        assert "published minimum index" in problem["detail"]
    scene.service.wait_until_published()
    width = scene.service.services.publishing.published.head.size - 256
    for path in ("checkpoint", "tile/0/000", f"tile/0/001.p/{width}", f"tile/entries/001.p/{width}"):
        assert scene.get(f"/logs/{LOG_ID}/{path}")
    assert [event.items for event in scene.service.access_events("export_entries")] == [width]


def test_a_decision_below_is_gone_by_every_way_of_reading_it(scene):
    decision_id = scene.ids[0]
    scene.prune()
    path = f"/v1/decisions/{decision_id}"
    answers = [
        scene.get(path, status=410),
        scene.post(f"{path}/openings", {"purpose": PURPOSE, "fields": ["message"]}, status=410, role=Role.RESPONDER),
        scene.post("/v1/replays", {"decision_ids": [scene.ids[-1], decision_id]}, status=410, role=Role.RESPONDER),
        scene.get(f"/v1/sessions/{OLD}", status=410),
    ]
    assert {answer["type"] for answer in answers} == {"urn:tallystick:problem:pruned"}
    assert scene.service.access_events("open_payload") == []


def test_the_dashboard_shows_nothing_that_is_below_and_says_so(scene):
    scene.prune()
    with scene.service.browser_client() as browser:
        log_in(browser, scene.service.token(Role.AUDITOR))
        answers = [browser.get(path) for path in ("/", f"/decisions/{scene.ids[0]}", f"/sessions/{OLD}")]
        straddling = browser.get(f"/sessions/{STRADDLING}")
    assert [answer.status_code for answer in answers] == [200, 410, 410]
    assert "Decisions below leaf 256 are not listed" in answers[0].text
    assert "Records below leaf 256 are not told" in straddling.text
    assert scene.ids[-1] in straddling.text


def test_a_search_leaves_out_what_is_below_and_says_so(scene):
    assert not any("minimum index" in told for told in scene.get("/v1/decisions", agent="old")["left_out"])
    scene.prune()
    page = scene.get("/v1/decisions", agent="old", limit=500)
    leaves = [item["leaf_index"] for item in page["items"]]
    assert min(leaves) == 256
    assert len(leaves) == sum(scene.index(record_id) >= 256 for record_id in scene.ids)
    assert page["next_cursor"] is None
    assert any(told.startswith("records below leaf 256") for told in page["left_out"])


def test_a_session_that_began_below_is_told_from_there_and_its_calls_are_not_counted(scene):
    scene.prune()
    session = scene.get(f"/v1/sessions/{STRADDLING}")
    assert session["events"][0]["leaf_index"] == 256
    assert (session["calls"], session["streams"][0]["missing"]) == (None, 0)
    assert any(told.startswith("records below leaf 256") for told in session["left_out"])


def test_another_process_and_the_next_start_go_by_what_the_log_says(tmp_path, clock):
    with start(tmp_path, clock) as service:
        scene = Scene(service, clock)
        clock.advance(3 * DAY_MS)
        scene.prune()
    with start(tmp_path, clock, "vault: {default: 1d}\n") as service:
        scene.service = service
        assert scene.minimum() == 256
        assert "\ntallystick_minimum_index 256.0\n" in scene.get("/metrics").decode()
        scene.get(f"/logs/{LOG_ID}/tile/entries/000", status=404)


# --- what stays ------------------------------------------------------------------------------------------------------


def test_proofs_of_what_is_below_still_hold_and_the_audit_still_reads_all_of_it(scene):
    decision_id = scene.ids[0]
    services = scene.service.services
    record = services.reader.record(scene.index(decision_id))
    old = scene.get(f"/v1/decisions/{decision_id}/proof")
    scene.prune()
    new = scene.get(f"/v1/decisions/{decision_id}/proof")
    for proof in (old, new):
        verify_entry(encode_record(record), parse_proof_file(proof), trust_policy(services.keys))
    report = scene.audit()
    assert report.findings == []
    assert report.checked["entries"] > 300


def test_bundles_that_were_deleted_by_hand_are_found_missing_and_the_service_does_not_start(tmp_path, clock):
    with start(tmp_path, clock) as service:
        scene = Scene(service, clock)
        clock.advance(3 * DAY_MS)
        scene.prune()
        service.wait_until_published()
        (bundle,) = (tmp_path / "data").rglob("tile/entries/000")
        bundle.unlink()
        assert any("tile/entries/000" in str(finding) for finding in scene.audit().findings)
    with pytest.raises(StorageError, match="a key record that the index names is not in the log"):
        asyncio.run(start(tmp_path, clock).services.start())


def test_a_pack_whose_period_reaches_below_fails_and_says_why(scene):
    scene.prune()
    job = scene.pack(NOW_MS - DAY_MS, scene.clock.now_ms())
    assert job["state"] == "failed"
    assert "the log was pruned below leaf 256 by its published minimum index" in job["error"]


def test_a_pack_of_a_later_period_begins_behind_the_minimum_index_and_verifies(scene):
    scene.prune()
    scene.gateway.decide(agent="later", session=YOUNG)
    scene.clock.advance(1000)
    job = scene.pack(NOW_MS + 2 * DAY_MS, scene.clock.now_ms())
    assert job["state"] == "done", job
    pack = scene.get(f"/v1/evidence-packs/{job['job_id']}.zip")
    report = verify_pack(pack, trust=trust_policy(scene.service.services.keys))
    assert report.status is Status.PROVEN, list(report.lines())


def test_an_administrator_prunes_by_a_command_and_is_told_what_came_of_it(scene, monkeypatch, capsys):
    monkeypatch.setenv("TALLYSTICK_URL", scene.service.url)
    monkeypatch.setenv("TALLYSTICK_TOKEN", scene.service.token(Role.ADMIN, "anna"))

    def command(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tallystick", *arguments])
        status = 0
        try:
            main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        said = capsys.readouterr()
        return status, said.out + said.err

    assert command("prune")[0] == 64
    assert command("prune", "--below", "100")[0] == 2
    assert command("prune", "--below", "512")[0] == 4
    assert command("prune", "--below", "256", "--dry-run") == (
        0,
        "the minimum index could be moved from 0 to 256; nothing was changed\n",
    )
    status, said = command("prune", "--below", "256", "--json")
    assert (status, json.loads(said)["below"]) == (0, 256)
    assert command("prune", "--below", "256")[0] == 4
    told = command("session", STRADDLING)
    assert (told[0], "left out: records below leaf 256" in told[1]) == (0, True)
