"""Retiring an enforcer over HTTP and from the command line: in the log, at once, for good, and never out of order."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from click.testing import CliRunner, Result

from ledger.auditor import Auditor
from ledger.bodies import Decision, KeyEvent
from ledger.errors import StorageError
from ledger.notes import encode_base64
from service.auth import Role
from service.cli.main import cli
from service.keyset import trust_policy
from tests.support.ledger import LOG_ID, Enforcer, make_decision
from tests.support.service import EnforcerClient, RunningService, start_service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    with start_service(tmp_path) as running:
        yield running


def retire(service: RunningService, enforcer_id: str) -> httpx.Response:
    with service.client(Role.ADMIN) as admin:
        return admin.delete(f"/v1/enforcers/{quote(enforcer_id, safe='')}")


def introduce(service: RunningService, enforcer: Enforcer) -> httpx.Response:
    body = {"enforcer_id": enforcer.enforcer_id, "public_key": encode_base64(bytes(enforcer.key.verify_key))}
    with service.client(Role.ADMIN) as admin:
        return admin.post("/v1/enforcers", json=body)


def beat(enforcer: EnforcerClient) -> httpx.Response:
    return enforcer.post([(enforcer.record(enforcer.enforcer.heartbeat()), ())])


def require_clean_audit(service: RunningService) -> None:
    service.wait_until_published()
    parts = service.services
    report = Auditor(LOG_ID, parts.tiles, trust_policy(parts.keys), catalog=parts.catalog, vault=parts.vault).audit()
    assert report.findings == []
    assert report.checked["record signatures"] == service.services.sequenced_size()


def test_a_retired_enforcer_writes_nothing_more_and_the_log_says_so(service: RunningService) -> None:
    gateway = service.enforcer("gateway-1")
    gateway.decide()
    answer = retire(service, "gateway-1")
    assert answer.status_code == 200
    value = answer.json()
    record = service.services.reader.record(value["leaf_index"])
    assert isinstance(record.body, KeyEvent)
    assert (record.body.action, record.body.purpose, record.body.subject) == ("retired", "enforcer", "gateway-1")
    assert value["key_ids"] == [record.body.key_id]
    assert value["tokens_revoked"] == 1
    assert beat(gateway).status_code == 401
    (event,) = service.access_events("retire_enforcer")
    assert (event.target_kind, event.target_id, event.actor_role) == ("enforcer", "gateway-1", "admin")
    require_clean_audit(service)


def test_every_token_of_it_is_revoked_and_no_other(service: RunningService) -> None:
    gateway, other = service.enforcer("gateway-1"), service.enforcer("gateway-2", seed=22)
    more = introduce(service, gateway.enforcer).json()["token"]
    assert retire(service, "gateway-1").json()["tokens_revoked"] == 2
    for token in (gateway.token, more):
        with service.client(token=token) as client:
            assert client.get("/v1/bundles/active").status_code == 401
    assert beat(other).status_code == 201


def test_its_id_is_introduced_again_with_another_key_and_never_with_the_old_one(service: RunningService) -> None:
    gateway = service.enforcer("gateway-1")
    beat(gateway).raise_for_status()
    retire(service, "gateway-1").raise_for_status()
    refused = introduce(service, gateway.enforcer)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:tallystick:problem:conflict")
    again = service.enforcer("gateway-1", seed=77)
    assert beat(again).status_code == 201
    gateway.token = again.token
    assert beat(gateway).status_code == 403  # the old key, with a token that counts
    require_clean_audit(service)


def test_one_key_is_not_introduced_for_two_enforcers(service: RunningService) -> None:
    # To retire one of them would end the other's key as well.
    gateway = service.enforcer("gateway-1")
    assert introduce(service, Enforcer("gateway-2", seed=gateway.enforcer.seed)).status_code == 409


def test_repeating_it_ends_what_is_left_and_changes_nothing_else(service: RunningService) -> None:
    service.enforcer("gateway-1")
    retire(service, "gateway-1").raise_for_status()
    again = retire(service, "gateway-1").json()
    assert again == {"enforcer_id": "gateway-1", "key_ids": [], "leaf_index": None, "tokens_revoked": 0}
    keys = service.services.catalog.of_type(LOG_ID, "key")
    assert [service.services.reader.record(leaf).body.action for leaf in keys].count("retired") == 1


@pytest.mark.parametrize(("enforcer_id", "status"), [("nobody", 404), ("service", 409), ("a b", 422), ("", 422)])
def test_nobody_and_the_service_itself_are_not_retired(service: RunningService, enforcer_id: str, status: int) -> None:
    before = len(service.services.catalog.of_type(LOG_ID, "key"))
    assert retire(service, enforcer_id).status_code == status
    assert len(service.services.catalog.of_type(LOG_ID, "key")) == before


def test_an_id_with_a_slash_is_retired_like_any_other(service: RunningService) -> None:
    service.enforcer("eu/gateway-1")
    assert retire(service, "eu/gateway-1").json()["tokens_revoked"] == 1


def test_no_record_that_was_admitted_before_stands_behind_the_retirement(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The attack on the whole log: one record behind the end of its key, and no pack or audit ever verifies again.
    gateway = service.enforcer("gateway-1")
    admitted, go_on = threading.Event(), threading.Event()
    seal = service.services.vault.seal

    def slow_seal(*arguments: object) -> object:
        admitted.set()
        assert go_on.wait(20)
        return seal(*arguments)  # type: ignore[arg-type]  # passed on as they came

    with ThreadPoolExecutor(1) as pool:
        body, openings = make_decision()
        record = gateway.record(body)
        monkeypatch.setattr(service.services.admission._vault, "seal", slow_seal)
        posted = pool.submit(gateway.post, [(record, openings)])
        assert admitted.wait(20)
        monkeypatch.setattr(service.services.admission._vault, "seal", seal)
        retire(service, "gateway-1").raise_for_status()
        service.enforcer("gateway-1", seed=77)
        go_on.set()
        assert posted.result().status_code == 403
    assert not any(isinstance(service.services.reader.record(leaf).body, Decision) for leaf in range(8, 12))
    require_clean_audit(service)


def test_many_posts_while_it_is_retired_leave_a_log_that_verifies(service: RunningService) -> None:
    gateway = service.enforcer("gateway-1")
    with ThreadPoolExecutor(4) as pool:
        posts = [pool.submit(beat, gateway) for _ in range(40)]
        retired = pool.submit(retire, service, "gateway-1")
        statuses = {post.result().status_code for post in posts}
        retired.result().raise_for_status()
    assert statuses <= {201, 401, 403, 409}
    require_clean_audit(service)


def test_if_it_may_have_been_recorded_nothing_more_is_admitted_until_it_is_repeated(
    service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = service.enforcer("gateway-1")
    recorder = type(service.services.recorder)
    append = recorder.append

    async def committed_and_lost(self: object, drafts: object, **options: object) -> object:
        await append(self, drafts, **options)  # type: ignore[arg-type]  # passed on as they came
        raise StorageError("the answer was lost")

    monkeypatch.setattr(recorder, "append", committed_and_lost)
    assert retire(service, "gateway-1").status_code == 503
    monkeypatch.setattr(recorder, "append", append)
    assert beat(gateway).status_code == 403
    assert retire(service, "gateway-1").status_code == 200
    assert beat(gateway).status_code == 401
    require_clean_audit(service)


def test_a_record_from_the_future_is_taken_and_counted(tmp_path: Path) -> None:
    with start_service(tmp_path) as service:
        gateway = service.enforcer("gateway-1")
        ahead = gateway.record(gateway.enforcer.heartbeat(), time_ms=service.services.clock.now_ms() + 3_600_000)
        assert gateway.post([(ahead, ())]).status_code == 201
        with service.stranger() as client:
            assert "tallystick_records_ahead_total 1.0" in client.get("/metrics").text


# --- the command -----------------------------------------------------------------------------------------------------


def command(service: RunningService, *arguments: str, role: Role = Role.ADMIN, answer: str = "") -> Result:
    options = ["--url", service.url, "--token", service.token(role)]
    return CliRunner().invoke(cli, ["gateway", "retire", *arguments, *options], input=answer)


def test_the_command_asks_first_and_says_where_it_stands(service: RunningService) -> None:
    gateway = service.enforcer("gateway-1")
    assert command(service, "gateway-1", answer="n\n").exit_code != 0
    assert beat(gateway).status_code == 201
    done = command(service, "gateway-1", answer="y\n")
    assert done.exit_code == 0, done.output
    (leaf,) = [
        leaf
        for leaf in service.services.catalog.of_type(LOG_ID, "key")
        if service.services.reader.record(leaf).body.action == "retired"
    ]
    assert f"gateway-1 is retired at leaf {leaf}; tokens revoked: 1." in done.stdout
    assert "was retired before; tokens revoked: 0." in command(service, "gateway-1", "--yes").stdout


def test_for_programs_the_command_answers_json(service: RunningService) -> None:
    service.enforcer("eu/gateway-1")
    value = json.loads(command(service, "eu/gateway-1", "--yes", "--json").stdout)
    assert (value["enforcer_id"], value["tokens_revoked"]) == ("eu/gateway-1", 1)


@pytest.mark.parametrize(("enforcer_id", "role"), [("nobody", Role.ADMIN), ("gateway-1", Role.AUDITOR)])
def test_the_command_fails_for_nobody_and_for_those_who_may_not(
    service: RunningService, enforcer_id: str, role: Role
) -> None:
    service.enforcer("gateway-1")
    failed = command(service, enforcer_id, "--yes", role=role)
    assert failed.exit_code not in (0, 1)
    assert "Traceback" not in failed.output
