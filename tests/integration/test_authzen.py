"""AuthZEN over HTTP against a real service: the active bundle decides, the log has every decision before it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.bodies import Decision
from ledger.completeness import Verdict, assess
from ledger.errors import StorageError
from ledger.records import Record
from policies.model import decode_request
from service.auth import Role
from tests.support.ledger import LOG_ID
from tests.support.packs import ready_bundle
from tests.support.service import RunningService, start_service

POLICY = """
@id("readers-may-call")
permit (principal in Role::"reader", action == Action::"tools/call", resource) when { resource has name };
@id("no-large-amounts")
forbid (principal, action, resource) when { context.args has amount && context.args.amount > 100 };
@id("ask-for-sales")
@obligation("approval")
permit (principal, action == Action::"tools/call", resource == Tool::"shop/sell");
"""
EVALUATION = "/access/v1/evaluation"
EVALUATIONS = "/access/v1/evaluations"


def asked(amount: object = 5, **changes: Any) -> dict[str, Any]:
    value: dict[str, Any] = {
        "subject": {"type": "agent", "id": "bot", "properties": {"user": "alice", "roles": ["reader"]}},
        "action": {"name": "tools/call"},
        "resource": {"type": "tool", "id": "price", "properties": {"server": "shop", "tags": []}},
        "context": {"arguments": {"amount": amount}, "address": "192.0.2.7"},
    }
    return {**value, **changes}


SALE = {"type": "tool", "id": "sell", "properties": {"server": "shop", "tags": []}}
NO_ROLES = {"type": "agent", "id": "bot"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("authzen")) as running:
        running.put_in_force(ready_bundle(POLICY))
        yield running


@pytest.fixture(scope="module")
def client(service: RunningService) -> Iterator[httpx.Client]:
    with service.client(Role.CLIENT) as client:
        yield client


def ask(client: httpx.Client, value: object, path: str = EVALUATION, **headers: str) -> dict[str, Any]:
    answer = client.post(path, json=value, headers={name.replace("_", "-"): text for name, text in headers.items()})
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def record_of(service: RunningService, answer: Mapping[str, Any]) -> Record:
    record = service.services.reader.record(answer["context"]["leaf_index"])
    assert record.record_id == answer["context"]["decision_id"]
    assert isinstance(record.body, Decision)
    return record


def body_of(service: RunningService, answer: Mapping[str, Any]) -> Decision:
    body = record_of(service, answer).body
    assert isinstance(body, Decision)
    return body


# --- one question


def test_a_permit_is_answered_and_stands_in_the_log_with_what_was_evaluated(service, client):
    answer = ask(client, asked())
    assert answer["decision"] is True
    record = record_of(service, answer)
    body = record.body
    assert (body.decision, body.enforcement, body.mode, body.interface) == ("PERMIT", "allow", "observe", "authzen")
    assert (body.agent, body.server, body.tool, body.method) == ("bot", "shop", "price", "tools/call")
    assert body.rules == ("readers-may-call",)
    assert answer["context"]["bundle_revision"] == body.bundle.revision
    request = decode_request(service.services.vault.open(record, "request").payload)
    assert (request.principal.user, request.environment.address) == ("alice", "192.0.2.7")
    assert json.loads(service.services.vault.open(record, "message").payload) == asked()


def test_a_denial_names_the_rule_and_no_value(service, client):
    answer = ask(client, asked(4711))
    assert (answer["decision"], answer["context"]["reason"]) == (False, "policy")
    assert answer["context"]["failed_condition"] == "no-large-amounts"
    assert "4711" not in json.dumps(answer["context"]["rules"])
    assert body_of(service, answer).decision == "DENY"


def test_a_permit_that_a_person_must_agree_to_is_no_permit_to_a_caller_that_reads_nothing_else(service, client):
    answer = ask(client, asked(resource=SALE, subject=NO_ROLES))
    assert answer["decision"] is False
    assert (answer["context"]["effect"], answer["context"]["enforcement"]) == ("PERMIT", "ask")
    assert answer["context"]["obligations"] == ["approval"]


def test_what_no_rule_permits_is_denied(client):
    answer = ask(client, asked(subject=NO_ROLES))
    assert (answer["decision"], answer["context"]["reason"]) == (False, "no_permit")


def test_a_number_that_no_policy_can_hold_exactly_is_a_denial_that_names_the_parameter(service, client):
    answer = ask(client, asked(2**63))
    assert (answer["decision"], answer["context"]["reason"]) == (False, "parameter_error")
    assert body_of(service, answer).decision == "INDETERMINATE"


def test_a_missing_fact_is_a_recorded_denial_that_names_it(service, client):
    answer = ask(client, asked(subject={"type": "user", "id": "alice"}))
    assert (answer["decision"], answer["context"]["reason"]) == (False, "missing_fact")
    assert answer["context"]["detail"] == "subject.properties.agent"
    body = body_of(service, answer)
    assert (body.decision, body.agent, body.request, body.bundle) == ("INDETERMINATE", "unknown", None, None)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"subject":{},"subject":{}}', b"\xff", b"{}"])
def test_what_is_not_of_the_form_is_a_400_and_no_decision(service, client, body):
    before = service.services.sequenced_size()
    answer = client.post(EVALUATION, content=body)
    assert answer.status_code == 400
    kinds = [type(service.services.reader.record(i).body) for i in range(before, service.services.sequenced_size())]
    assert Decision not in kinds


def test_a_body_that_is_too_large_is_refused(client):
    assert client.post(EVALUATION, content=b" " * (1024 * 1024 + 1)).status_code == 413


def test_the_request_id_comes_back_with_every_answer(client):
    for path, value in ((EVALUATION, asked()), (EVALUATION, {}), (EVALUATIONS, {"evaluations": [asked()]})):
        answer = client.post(path, json=value, headers={"x-request-id": "bfe9eb29 ab87"})
        assert answer.headers.get_list("x-request-id") == ["bfe9eb29 ab87"]
    assert "x-request-id" not in client.post(EVALUATION, json=asked()).headers
    assert "x-request-id" not in client.get("/healthz", headers={"x-request-id": "a"}).headers


def test_a_refused_caller_gets_his_request_id_as_well(service):
    with service.server.stranger() as stranger:
        answer = stranger.post(EVALUATION, json=asked(), headers={"x-request-id": "r-1"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (401, "r-1")


def test_the_metadata_name_the_endpoints_and_no_search(service):
    with service.server.stranger() as stranger:
        document = stranger.get("/.well-known/authzen-configuration").json()
    assert document == {
        "policy_decision_point": service.url,
        "access_evaluation_endpoint": service.url + EVALUATION,
        "access_evaluations_endpoint": service.url + EVALUATIONS,
    }


# --- several


def test_boxed_questions_are_answered_in_order_in_one_batch(service, client):
    box = {**asked(), "evaluations": [{}, {"context": {"arguments": {"amount": 101}}}, {"subject": 7}]}
    first, second, third = ask(client, box, EVALUATIONS)["evaluations"]
    assert [one["decision"] for one in (first, second, third)] == [True, False, False]
    leaves = [one["context"]["leaf_index"] for one in (first, second, third)]
    assert leaves == list(range(leaves[0], leaves[0] + 3))
    assert third["context"]["error"]["status"] == 400
    assert body_of(service, third).reason == "malformed"


@pytest.mark.parametrize(
    ("semantic", "amounts", "decisions"),
    [
        ("execute_all", [5, 500, 6], [True, False, True]),
        ("deny_on_first_deny", [5, 500, 6], [True, False]),
        ("permit_on_first_permit", [500, 5, 6], [False, True]),
        ("permit_on_first_permit", [500, 600], [False, False]),
    ],
)
def test_only_what_is_answered_is_recorded(service, client, semantic, amounts, decisions):
    before = service.services.catalog.counts(LOG_ID).get("decision", 0)
    evaluations = [{"context": {"arguments": {"amount": amount}}} for amount in amounts]
    box = {**asked(), "evaluations": evaluations, "options": {"evaluations_semantic": semantic}}
    answers = ask(client, box, EVALUATIONS)["evaluations"]
    assert [one["decision"] for one in answers] == decisions
    assert service.services.catalog.counts(LOG_ID).get("decision", 0) == before + len(decisions)


def test_without_a_box_the_one_question_is_answered(client):
    assert ask(client, asked(), EVALUATIONS)["decision"] is True


# --- asked again


def test_the_same_question_under_one_key_is_answered_once_and_for_all(service, client):
    first = ask(client, asked(), idempotency_key="key-one-1")
    before = service.services.sequenced_size()
    again = ask(client, asked(), idempotency_key="key-one-1")
    assert again == first
    assert service.services.sequenced_size() == before


def test_a_box_is_asked_again_as_a_whole(client):
    box = {
        **asked(),
        "evaluations": [{}, {"subject": NO_ROLES}, {}],
        "options": {"evaluations_semantic": "deny_on_first_deny"},
    }
    first = ask(client, box, EVALUATIONS, idempotency_key="box-one-1")
    assert len(first["evaluations"]) == 2
    assert ask(client, box, EVALUATIONS, idempotency_key="box-one-1") == first


def test_another_question_under_the_same_key_is_a_conflict(client):
    ask(client, asked(), idempotency_key="key-two-2")
    answer = client.post(EVALUATION, json=asked(6), headers={"idempotency-key": "key-two-2"})
    assert answer.status_code == 409


@pytest.mark.parametrize("semantic", ["execute_all", "deny_on_first_deny", "permit_on_first_permit"])
def test_more_questions_under_the_key_of_fewer_are_a_conflict(client, semantic):
    one = {**asked(), "subject": NO_ROLES} if semantic == "permit_on_first_permit" else asked()
    key = f"fewer-{semantic}"
    options = {"options": {"evaluations_semantic": semantic}}
    ask(client, {"evaluations": [one], **options}, EVALUATIONS, idempotency_key=key)
    more = {"evaluations": [one, asked(500)], **options}
    answer = client.post(EVALUATIONS, json=more, headers={"idempotency-key": key})
    assert answer.status_code == 409


def test_two_callers_may_use_one_key(service, client):
    first = ask(client, asked(), idempotency_key="key-three")
    with service.client(Role.CLIENT) as other:
        second = ask(other, asked(6), idempotency_key="key-three")
    assert first["context"]["decision_id"] != second["context"]["decision_id"]


def test_asked_under_one_key_many_times_at_once_it_is_decided_once(service, client):
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: ask(client, asked(), idempotency_key="at-once-1"), range(8)))
    assert len({answer["context"]["leaf_index"] for answer in answers}) == 1


@pytest.mark.parametrize("key", ["short", "with space", "x" * 129, "ümläutig"])
def test_a_key_that_is_none_is_refused(client, key):
    headers = [(b"idempotency-key", key.encode())]
    assert client.post(EVALUATION, json=asked(), headers=headers).status_code == 400


# --- with the rest of the service


def test_decisions_are_found_replayed_and_proved_as_others_are(service, client):
    answer = ask(client, asked(trace="x"))
    decision_id = answer["context"]["decision_id"]
    with service.client(Role.RESPONDER) as responder:
        found = responder.get("/v1/decisions", params={"agent": "bot", "mode": "observe", "limit": 100}).json()
        assert decision_id in {item["record"]["record_id"] for item in found["items"]}
        (result,) = responder.post("/v1/replays", json={"decision_ids": [decision_id]}).json()["results"]
    assert (result["class"], result["same"]) == ("exact", True)
    assert client.get(f"/v1/decisions/{decision_id}/proof").status_code == 200


def test_the_services_stream_counts_its_decisions_and_is_complete(service, client):
    ask(client, asked())
    records = [service.services.reader.record(index) for index in range(service.services.sequenced_size())]
    own = [record for record in records if record.enforcer_id == service.services.settings.service_id]
    assert own[-1].running_count == sum(isinstance(record.body, Decision) for record in own) > 0
    (stream,) = assess(own)
    assert stream.verdict is not Verdict.GAP


def test_many_at_once_are_each_answered_with_their_own(service, client):
    with ThreadPoolExecutor(12) as threads:
        amounts = [5 + 100 * (n % 2) for n in range(48)]
        answers = list(threads.map(lambda amount: ask(client, asked(amount)), amounts))
    assert [answer["decision"] for answer in answers] == [amount < 100 for amount in amounts]
    assert len({answer["context"]["leaf_index"] for answer in answers}) == 48


def test_what_cannot_be_recorded_is_not_answered(service, client, monkeypatch):
    async def fail(*_: object, **__: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(service.services.recorder, "append", fail)
    answer = client.post(EVALUATION, json=asked())
    assert answer.status_code == 503
    assert "decision" not in answer.json()


def test_an_engine_that_fails_denies_and_it_is_recorded(service, client, monkeypatch):
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("panic")

    monkeypatch.setattr(service.services.evaluator, "evaluate_many", fail)
    answer = ask(client, asked())
    assert (answer["decision"], answer["context"]["reason"]) == (False, "engine_error")
    assert body_of(service, answer).bundle.engine_version == "unavailable"


def test_an_activation_that_was_acknowledged_holds_for_the_next_question(tmp_path: Path):
    with start_service(tmp_path) as service, service.client(Role.CLIENT) as client:
        assert ask(client, asked())["context"]["reason"] == "no_bundle"
        open_door = ready_bundle('@id("all") permit (principal, action, resource);')
        closed = ready_bundle('@id("none") forbid (principal, action, resource);')
        for bundle, decision in ((open_door, True), (closed, False), (open_door, True)):
            revision = service.put_in_force(bundle)
            answer = ask(client, asked())
            assert (answer["decision"], answer["context"]["bundle_revision"]) == (decision, revision)
    with start_service(tmp_path) as service, service.client(Role.CLIENT) as client:
        assert ask(client, asked())["decision"] is True
        records = [service.services.reader.record(index) for index in range(service.services.sequenced_size())]
        own = [record for record in records if record.enforcer_id == service.services.settings.service_id]
        assert own[-1].running_count == 5
