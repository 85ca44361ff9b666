"""Replay under rules of one's own: they can ask the vault one question after another, so each answer is an opening."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from ledger.errors import StorageError
from ledger.ports import commit
from policies.model import encode_request
from service.auth import Role
from tests.support.ledger import LOG_ID, make_decision
from tests.support.packs import ready_bundle
from tests.support.policies import make_request
from tests.support.service import RunningService, start_service

PURPOSE = "incident 42: would the proposed rules have held?"
ORACLE = '@id("asks") permit(principal, action, resource) when { context.time.hour == 10 };'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("proposals")) as service:
        yield service


@pytest.fixture(scope="module")
def decision_id(running: RunningService) -> str:
    commitment, opening = commit("request", b"s" * 16, encode_request(make_request(hour=10)))
    body, (message, _) = make_decision(request=commitment)
    enforcer = running.enforcer()
    record = enforcer.record(body)
    enforcer.post([(record, (message, opening))]).raise_for_status()
    return record.record_id


@pytest.fixture
def responder(running: RunningService) -> Iterator[httpx.Client]:
    with running.client(Role.RESPONDER) as client:
        yield client


def proposed(decision_ids: list[str], **members: Any) -> dict[str, Any]:
    archive = json.loads(ready_bundle(ORACLE).archive())
    return {"decision_ids": decision_ids, "archive": archive, "purpose": PURPOSE, **members}


@pytest.mark.parametrize("purpose", [None, "", "short", "x" * 1001])
def test_without_a_purpose_nothing_is_opened(running, responder, decision_id, purpose):
    before = running.services.sequenced_size()
    assert responder.post("/v1/replays", json=proposed([decision_id], purpose=purpose)).status_code == 422
    assert running.services.sequenced_size() == before


def test_each_decision_is_an_opening_on_record_with_its_purpose(running, responder, decision_id):
    before = len(running.access_events("open_payload"))
    answer = responder.post("/v1/replays", json=proposed([decision_id]))
    assert answer.status_code == 200
    (replay,) = running.access_events("replay")[-1:]
    (opening,) = running.access_events("open_payload")[before:]
    assert (replay.target_kind, replay.target_id, replay.items) == ("bundle", ready_bundle(ORACLE).revision, 1)
    assert (opening.target_kind, opening.target_id, opening.actor_role) == ("record", decision_id, "responder")
    assert opening.purpose is not None


def test_what_the_payloads_were_asked_stays_known(running, responder, decision_id):
    responder.post("/v1/replays", json=proposed([decision_id])).raise_for_status()
    kept = running.services.bundle_archives.get(LOG_ID, ready_bundle(ORACLE).revision)
    assert kept == ready_bundle(ORACLE).archive()


def test_a_proposed_bundle_is_not_published_by_it(running, responder, decision_id):
    responder.post("/v1/replays", json=proposed([decision_id])).raise_for_status()
    with running.client(Role.ADMIN) as admin:
        assert admin.post(f"/v1/bundles/{ready_bundle(ORACLE).revision}/activation", json={}).status_code == 404


def test_what_was_kept_of_a_proposal_is_no_way_round_the_purpose(running, responder, decision_id):
    responder.post("/v1/replays", json=proposed([decision_id])).raise_for_status()
    kept = {"decision_ids": [decision_id], "bundle": ready_bundle(ORACLE).revision}
    assert responder.post("/v1/replays", json=kept).status_code == 404


def test_a_replay_under_rules_of_the_log_is_one_access_and_no_opening(running, responder, decision_id):
    openings = len(running.access_events("open_payload"))
    replays = len(running.access_events("replay"))
    assert responder.post("/v1/replays", json={"decision_ids": [decision_id]}).status_code == 200
    assert len(running.access_events("open_payload")) == openings
    assert len(running.access_events("replay")) == replays + 1


def test_nothing_is_opened_that_could_not_be_recorded(running, responder, decision_id, monkeypatch):
    opened: list[object] = []

    async def failing(_drafts: object) -> None:
        raise StorageError("injected")

    monkeypatch.setattr(running.services.recorder, "append", failing)
    monkeypatch.setattr(type(running.services.vault), "open", lambda *_a, **_k: opened.append(1))
    answer = responder.post("/v1/replays", json=proposed([decision_id]))
    monkeypatch.undo()
    assert answer.status_code == 503
    assert opened == []
    assert msgspec.json.decode(answer.content)["type"].startswith("urn:tallystick:problem:")
