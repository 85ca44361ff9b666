"""Several services over one PostgreSQL: keys, tokens, retirements, proofs and packs count at all of them alike.

Each service is whole: its own engine, publisher, keyring and recorder. That they are threads of one process here makes
them quick to start; `tests/fault/test_worker_processes.py` has them as processes, killed and paused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from ledger.auditor import Auditor
from ledger.bodies import Containment, Heartbeat, KeyEvent
from ledger.clock import SimulatedClock
from ledger.commitments import pseudonym
from ledger.errors import ErasedError
from ledger.notes import encode_base64
from ledger.proof_files import parse_proof_file, verify_entry
from ledger.records import Record, encode_record
from ledger.subjects import DAY_MS
from service.auth import Role
from service.cli.main import cli
from service.keyset import trust_policy
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, make_decision
from tests.support.postgres import PostgresCluster
from tests.support.service import EnforcerClient, RunningService, start_service


@pytest.fixture
def url(postgres: PostgresCluster) -> str:
    return postgres.new_schema()


@pytest.fixture
def pair(tmp_path: Path, url: str) -> Iterator[tuple[RunningService, RunningService]]:
    with ExitStack() as stack:
        first = stack.enter_context(start_service(tmp_path, migrate=True, database_url=url))
        second = stack.enter_context(start_service(tmp_path, database_url=url))
        yield first, second


def at(service: RunningService, enforcer: EnforcerClient) -> EnforcerClient:
    """Let an enforcer talk to another service."""
    enforcer._service = service
    return enforcer


def beat(enforcer: EnforcerClient, *, query: str = "") -> httpx.Response:
    return enforcer.post([(enforcer.record(enforcer.enforcer.heartbeat()), ())], query=query)


def records(service: RunningService) -> list[Record]:
    size = service.services.sequenced_size()
    return [service.services.reader.record(index) for index in range(size)]


def require_clean_audit(service: RunningService) -> None:
    service.wait_until_published()
    parts = service.services
    report = Auditor(LOG_ID, parts.tiles, trust_policy(parts.keys), catalog=parts.catalog, vault=parts.vault).audit()
    assert report.findings == []
    assert report.checked["record signatures"] == parts.sequenced_size()


# --- the beginning ---------------------------------------------------------------------------------------------------


def test_of_many_services_that_open_a_new_log_at_once_one_introduces_the_keys(tmp_path: Path, url: str) -> None:
    services = [start_service(tmp_path, migrate=True, database_url=url) for _ in range(4)]
    with ExitStack() as stack, ThreadPoolExecutor(len(services)) as pool:
        for started in pool.map(lambda service: service.__enter__(), services):
            stack.push(started)
        written = records(services[0])
        keys = [record for record in written if isinstance(record.body, KeyEvent)]
        assert len(keys) == len(tuple(services[0].services.keys))
        assert keys[0] == written[0]
        stream = [(record.epoch, record.seq) for record in written]
        assert stream == [(written[0].epoch, number) for number in range(1, len(written) + 1)]
        starts = [record for record in written if isinstance(record.body, Heartbeat) and record.body.kind == "start"]
        assert len(starts) == len(services)
        require_clean_audit(services[0])


# --- keys and tokens -------------------------------------------------------------------------------------------------


def test_an_enforcer_that_one_introduced_writes_at_the_other(pair) -> None:
    first, second = pair
    gateway = first.enforcer("gateway-1")
    assert beat(at(second, gateway)).status_code == 201
    late = second.enforcer("gateway-2", seed=22)
    assert beat(at(first, late)).status_code == 201
    require_clean_audit(first)


def test_what_one_introduced_the_other_does_not_introduce_with_another_key(pair) -> None:
    first, second = pair
    first.enforcer("gateway-1")
    body = {"enforcer_id": "gateway-1", "public_key": "A" * 43 + "="}
    with second.client(Role.ADMIN) as admin:
        assert admin.post("/v1/enforcers", json=body).status_code == 409


def test_of_two_who_introduce_one_id_at_once_at_two_services_one_is_refused(pair) -> None:
    first, second = pair
    for number in range(4):
        enforcers = [Enforcer(f"gateway-{number}", seed=30 + 2 * number + side) for side in (0, 1)]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(introduce, pair, enforcers))
        assert sorted(answers) == [201, 409]
        assert len(first.services.keyring.enforcer_keys(f"gateway-{number}")) <= 1
    require_clean_audit(second)


def introduce(service: RunningService, enforcer: Enforcer) -> int:
    body = {"enforcer_id": enforcer.enforcer_id, "public_key": encode_base64(bytes(enforcer.key.verify_key))}
    with service.client(Role.ADMIN) as admin:
        return admin.post("/v1/enforcers", json=body).status_code


def test_a_token_that_one_issued_or_revoked_is_so_at_the_other(pair) -> None:
    first, second = pair
    with first.client(Role.ADMIN) as admin:
        issued = admin.post("/v1/tokens", json={"role": "auditor", "name": "jane"}).json()
    with second.client(token=issued["token"]) as jane:
        assert jane.get("/v1/decisions").status_code == 200
        with first.client(Role.ADMIN) as admin:
            admin.delete(f"/v1/tokens/{issued['token_sha256']}").raise_for_status()
        assert jane.get("/v1/decisions").status_code == 401


# --- retirement ------------------------------------------------------------------------------------------------------


def test_who_was_retired_at_one_writes_at_neither(pair) -> None:
    first, second = pair
    gateway = at(second, first.enforcer("gateway-1"))
    beat(gateway).raise_for_status()
    with first.client(Role.ADMIN) as admin:
        assert admin.delete("/v1/enforcers/gateway-1").json()["tokens_revoked"] == 1
    assert beat(gateway).status_code == 401
    require_clean_audit(second)


def test_a_record_that_one_service_admitted_does_not_stand_behind_a_retirement_at_the_other(
    pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The attack on the whole log: pause one service between its look at the key and the transaction, retire the key at
    # another, go on. A record behind the end of its key verifies for nobody, and no audit ever is clean again.
    first, second = pair
    gateway = at(second, first.enforcer("gateway-1"))
    beat(gateway).raise_for_status()
    admitted, go_on = threading.Event(), threading.Event()
    seal = second.services.vault.seal

    def slow_seal(*arguments: object) -> object:
        admitted.set()
        assert go_on.wait(20)
        return seal(*arguments)  # type: ignore[arg-type]  # passed on as they came

    body, openings = make_decision()
    record = gateway.record(body)
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(second.services.admission._vault, "seal", slow_seal)
        posted = pool.submit(gateway.post, [(record, openings)])
        assert admitted.wait(20)
        monkeypatch.setattr(second.services.admission._vault, "seal", seal)
        with first.client(Role.ADMIN) as admin:
            admin.delete("/v1/enforcers/gateway-1").raise_for_status()
        go_on.set()
        assert posted.result().status_code == 403
    assert record.record_id not in {one.record_id for one in records(first)}
    require_clean_audit(first)


def test_many_posts_at_both_while_it_is_retired_leave_a_log_that_verifies(pair) -> None:
    first, second = pair
    gateway = first.enforcer("gateway-1")
    spelt = [gateway.spell([(gateway.record(gateway.enforcer.heartbeat()), ())]) for _ in range(40)]
    kind = {"content-type": "application/x-ndjson"}

    def post(numbered: tuple[int, bytes]) -> int:
        number, body = numbered
        with pair[number % 2].client(token=gateway.token) as client:
            return client.post("/v1/decisions", content=body, headers=kind).status_code

    def retire() -> int:
        with second.client(Role.ADMIN) as admin:
            return admin.delete("/v1/enforcers/gateway-1").status_code

    with ThreadPoolExecutor(4) as pool:
        half = pool.map(post, enumerate(spelt[:20]))
        retired = pool.submit(retire)
        rest = pool.map(post, enumerate(spelt[20:]))
        statuses = {*half, *rest}
        assert retired.result() == 200
    assert statuses <= {201, 401, 403}
    require_clean_audit(first)


def test_an_id_that_is_introduced_again_at_the_other_counts_at_both_with_its_new_key_alone(pair) -> None:
    first, second = pair
    old = first.enforcer("gateway-1")
    beat(old).raise_for_status()
    with second.client(Role.ADMIN) as admin:
        admin.delete("/v1/enforcers/gateway-1").raise_for_status()
    new = second.enforcer("gateway-1", seed=77)
    old.token = new.token
    assert beat(old).status_code == 403
    assert beat(at(first, new)).status_code == 201
    require_clean_audit(second)


# --- publishing ------------------------------------------------------------------------------------------------------


def test_whoever_asks_for_a_proof_gets_it_whichever_service_publishes(pair) -> None:
    first, second = pair
    gateway = first.enforcer("gateway-1")
    policy = trust_policy(first.services.keys)
    for service in (first, second, first, second):
        record = gateway.record(gateway.enforcer.heartbeat())
        answer = at(service, gateway).post([(record, ())], query="?wait=proof")
        assert answer.status_code == 201
        (result,) = answer.json()["results"]
        verify_entry(encode_record(record), parse_proof_file(result["proof"].encode()), policy)
    require_clean_audit(second)


def test_every_service_tells_of_the_same_checkpoint_and_anchor(pair) -> None:
    first, second = pair
    at(second, first.enforcer("gateway-1")).decide_many([{}] * 5)
    size = first.services.sequenced_size()
    for service in pair:
        service.wait_until_published(size)
    deadline = time.monotonic() + 20
    while any(anchored(service) != size for service in pair) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [anchored(service) for service in pair] == [size, size]
    for service in pair:
        with service.stranger() as stranger:
            seen = {check["name"]: check for check in stranger.get("/readyz").json()["checks"]}
            assert all(check["ok"] for check in seen.values()), seen
            assert f"tallystick_published_size {float(size)}" in stranger.get("/metrics").text
            assert f"tallystick_anchored_size {float(size)}" in stranger.get("/metrics").text


def anchored(service: RunningService) -> int:
    receipt = service.services.publishing.anchor_status.receipt
    return receipt.size if receipt else 0


def test_when_the_one_that_publishes_stops_the_other_goes_on_at_once(tmp_path: Path, url: str) -> None:
    with start_service(tmp_path, migrate=True, database_url=url) as first:
        gateway = first.enforcer("gateway-1")
        with start_service(tmp_path, database_url=url) as second:
            beat(gateway, query="?wait=proof").raise_for_status()
            first.__exit__()  # once more at the end, which changes nothing
            started = time.monotonic()
            assert beat(at(second, gateway), query="?wait=proof").status_code == 201
            # Far below the lease: whoever stops in order gives it up.
            assert time.monotonic() - started < 3
            require_clean_audit(second)


# --- erasure, holds, expiry ------------------------------------------------------------------------------------------

MATTER = "matter 12 of 2026"


def ask(service: RunningService, path: str, body: object = None, *, by: str = "anna", status: int = 200) -> Any:
    with service.client(token=service.token(Role.ADMIN, by)) as client:
        answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def openable(service: RunningService, record_id: str) -> bool:
    parts = service.services
    try:
        return bool(parts.vault.open(parts.reader.record(parts.catalog.index_of(LOG_ID, record_id)), "message").payload)
    except ErasedError:
        return False


def test_what_one_holds_and_erases_is_held_and_gone_at_the_other(pair) -> None:
    first, second = pair
    gateway = first.enforcer()
    user = pseudonym(first.services.keys.pseudonym.seed, "user", "alice")
    hers = gateway.decide(user=user, session="5" * 32)
    assert openable(second, hers)
    hold_id = ask(first, "/v1/holds", {"user": "alice", "reason": MATTER}, status=201)["hold_id"]
    assert ask(second, "/v1/erasures", {"user": "alice", "basis": MATTER}, status=409)["type"].endswith(":held")
    assert ask(second, f"/v1/holds/{hold_id}/release", by="anna")["action"] == "release_requested"
    assert ask(first, f"/v1/holds/{hold_id}/release", by="ben")["action"] == "released"
    assert ask(second, "/v1/erasures", {"user": "alice", "basis": MATTER})["payloads"] == 3
    assert (openable(first, hers), openable(second, hers)) == (False, False)
    require_clean_audit(first)


def test_a_hold_that_one_signed_with_a_new_key_counts_at_the_other(pair) -> None:
    first, second = pair
    gateway = first.enforcer()
    gateway.decide(user=pseudonym(first.services.keys.pseudonym.seed, "user", "alice"), session="5" * 32)
    with second.client(Role.ADMIN) as admin:
        assert admin.get("/v1/holds").raise_for_status().json()["items"] == []
    rotate(first)
    hold_id = ask(first, "/v1/holds", {"user": "alice", "reason": MATTER}, status=201)["hold_id"]
    parts = second.services
    assert [hold.hold_id for hold in parts.lifecycle.keeper.holds().in_force] == [hold_id]


# --- containments


LOOKED = {"reason": "looked into it"}
AGENT = {"agent": "finance-bot", "seconds": 600, "reason": MATTER}


def in_force(service: RunningService) -> list[str]:
    with service.client() as auditor:
        items = auditor.get("/v1/containments").raise_for_status().json()["items"]
    return [item["id"] for item in items]


def test_what_one_contained_or_took_as_a_kill_is_in_force_at_the_other_and_either_releases_it(pair) -> None:
    first, second = pair
    gateway = second.enforcer()
    with second.client(token=gateway.token) as follower, ThreadPoolExecutor(1) as pool:
        path = "/v1/restrictions?after={}&digest={}&wait={}"
        empty = follower.get("/v1/restrictions").raise_for_status()
        digest = empty.headers["etag"].strip('"')
        waiting = pool.submit(follower.get, path.format(-1, digest, 30))
        order = ask(first, "/v1/containments", AGENT, status=201)
        news = waiting.result()
        assert (news.status_code, news.json()["version"]) == (200, order["leaf_index"])
        assert [one["id"] for one in news.json()["restrictions"]] == in_force(second) == [order["id"]]
        # The next question, here, is what the first service knows the gateway to have in force.
        told = follower.get(path.format(order["leaf_index"], news.headers["etag"].strip('"'), 0))
        assert told.status_code == 304
    with first.client() as auditor:
        found = auditor.get(f"/v1/containments/{order['id']}").json()
    assert (found["reached"], found["gateways"][0]["version"]) == (True, order["leaf_index"])
    path = f"/v1/containments/{order['id']}/release"
    assert ask(second, path, LOOKED, by="anna")["action"] == "release_requested"
    assert ask(first, path, LOOKED, by="anna", status=409)["status"] == 409
    assert ask(first, path, LOOKED, by="ben")["action"] == "released"
    assert in_force(first) == in_force(second) == []
    killed = gateway.decide(decision="DENY", enforcement="kill")
    assert in_force(first) == [killed]
    require_clean_audit(second)


def test_of_two_that_end_what_is_past_its_time_one_records_it(tmp_path: Path, url: str) -> None:
    clock = SimulatedClock(NOW_MS)
    with ExitStack() as stack:
        first = stack.enter_context(start_service(tmp_path, migrate=True, database_url=url, clock=clock))
        second = stack.enter_context(start_service(tmp_path, database_url=url, clock=clock))
        order = ask(first, "/v1/containments", AGENT, status=201)
        longer = ask(second, "/v1/containments", {**AGENT, "seconds": 601}, status=201)
        clock.advance(600_000 - 1)
        assert end_what_is_past(first) == end_what_is_past(second) == 0
        assert in_force(first) == in_force(second) == [order["id"], longer["id"]]
        clock.advance(1)
        with ThreadPoolExecutor(2) as pool:
            ended = sum(pool.map(end_what_is_past, (first, second)))
        assert ended <= 1  # or the work that is repeated was first
        assert in_force(first) == in_force(second) == [longer["id"]]
        steps = [record.body.action for record in records(first) if isinstance(record.body, Containment)]
        assert steps == ["ordered", "ordered", "expired"]
        with first.client() as auditor:
            items = auditor.get("/v1/containments?state=all").json()["items"]
            found = auditor.get(f"/v1/containments/{order['id']}").json()
        assert [item["state"] for item in items] == ["expired", "in_force"]
        assert (found["ended_ms"], found["review_overdue"]) == (clock.now_ms(), False)
        # What has ended is nobody's to release, and still somebody's to review.
        assert ask(second, f"/v1/containments/{order['id']}/release", LOOKED, status=409)["status"] == 409
        clock.advance(24 * 3_600_000)
        with second.client() as auditor:
            late = auditor.get("/v1/containments?state=to_review").json()["items"]
        assert [(item["id"], item["review_overdue"]) for item in late] == [(order["id"], True), (longer["id"], True)]


def end_what_is_past(service: RunningService) -> int:
    return service.run(service.services.containments.expire)


def rotate(service: RunningService) -> None:
    """Replace the service's own key, as its administrator does."""
    variables = {
        "TALLYSTICK_KEYS_DIR": str(service.services.settings.keys_dir),
        "TALLYSTICK_URL": service.url,
        "TALLYSTICK_TOKEN": service.token(Role.ADMIN),
        "TALLYSTICK_LOG_ID": LOG_ID,
    }
    result = CliRunner().invoke(cli, ["keys", "rotate", "service"], env=variables)
    assert result.exit_code == 0, result.output


def test_payloads_expire_in_postgresql_and_what_is_held_stays(tmp_path: Path, url: str) -> None:
    clock = SimulatedClock(NOW_MS)
    policy = tmp_path / "retention.yaml"
    policy.write_text("vault: {decision: 2d}\n")
    options = {"clock": clock, "database_url": url, "retention": policy}
    with start_service(tmp_path, migrate=True, **options) as service:
        gateway = service.enforcer()
        seed = service.services.keys.pseudonym.seed
        held = gateway.decide(user=pseudonym(seed, "user", "alice"), session="5" * 32)
        other = gateway.decide(user=pseudonym(seed, "user", "bob"), session="6" * 32)
        hold_id = ask(service, "/v1/holds", {"user": "alice", "reason": MATTER}, status=201)["hold_id"]
        clock.advance(4 * DAY_MS)
        (item,) = ask(service, "/v1/expiries", {})["items"]
        assert (item["payloads"], item["held"]) == (2, 2)
        assert (openable(service, held), openable(service, other)) == (True, False)
        require_clean_audit(service)
        ask(service, f"/v1/holds/{hold_id}/release", by="anna")
        ask(service, f"/v1/holds/{hold_id}/release", by="ben")
        (item,) = ask(service, "/v1/expiries", {})["items"]
        assert (item["payloads"], item["was_held"]) == (2, True)
        assert not openable(service, held)
        require_clean_audit(service)
    with start_service(tmp_path, **options) as service:
        require_clean_audit(service)
