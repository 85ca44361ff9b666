"""AuthZEN over HTTP against a real service: the active bundle decides, the log has every decision before it is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger.bodies import Containment, Decision
from ledger.commitments import pseudonym
from ledger.completeness import Verdict, assess
from ledger.errors import StorageError
from ledger.records import Record, new_record_id
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


# --- what is contained


def contain(service: RunningService, **wanted: object) -> dict[str, Any]:
    with service.client(Role.RESPONDER) as responder:
        answer = responder.post("/v1/containments", json={"seconds": 600, "reason": "ticket 18", **wanted})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def release(service: RunningService, order_id: str) -> None:
    for who in ("rita", "ben"):
        with service.client(token=service.token(Role.RESPONDER, who)) as client:
            path = f"/v1/containments/{order_id}/release"
            client.post(path, json={"reason": "looked into it"}).raise_for_status()


def by(agent: str, *, user: str | None = "alice", **changes: Any) -> dict[str, Any]:
    properties = {"roles": ["reader"], **({} if user is None else {"user": user})}
    return asked(subject={"type": "agent", "id": agent, "properties": properties}, **changes)


def of(kind: str, name: str, server: str) -> dict[str, Any]:
    return {"type": kind, "id": name, "properties": {"server": server, "tags": []}}


def told(answer: Mapping[str, Any]) -> tuple[object, ...]:
    context = answer["context"]
    return answer["decision"], context["enforcement"], context["reason"], context.get("restriction")


def test_what_is_contained_is_denied_whatever_the_policy_says_and_recorded_so(service, client):
    order = contain(service, agent="stopped-bot")
    answer = ask(client, by("stopped-bot"))
    assert told(answer) == (False, "deny", "contained", order["id"])
    assert "bundle_revision" not in answer["context"]
    assert "ticket" not in json.dumps(answer)
    body = body_of(service, answer)
    assert (body.decision, body.enforcement, body.mode, body.reason) == ("DENY", "deny", "observe", "contained")
    assert (body.restriction, body.bundle, body.rules) == (order["id"], None, ())
    assert body.request is not None
    assert ask(client, by("other-bot"))["decision"] is True
    release(service, order["id"])
    assert ask(client, by("stopped-bot"))["decision"] is True


@pytest.mark.parametrize(
    ("wanted", "stopped", "free"),
    [
        (
            {"server": "depot", "tool": "move"},
            by("bot", resource=of("tool", "move", "depot")),
            by("bot", resource=of("tool", "count", "depot")),
        ),
        (
            {"server": "kiosk"},
            by("bot", resource=of("tool", "move", "kiosk")),
            by("bot", resource=of("tool", "kiosk", "depot")),
        ),
        ({"all": True}, by("bot"), None),
    ],
)
def test_a_tool_a_server_and_everything_are_stopped_and_nothing_else(service, client, wanted, stopped, free):
    order = contain(service, **wanted)
    assert told(ask(client, stopped)) == (False, "deny", "contained", order["id"])
    assert free is None or ask(client, free)["decision"] is True
    release(service, order["id"])
    assert ask(client, stopped)["decision"] is True


def test_a_prompt_is_not_stopped_with_the_tool_of_its_name(service, client):
    order = contain(service, server="depot", tool="sort")
    resource = of("prompt", "sort", "depot")
    prompt = ask(client, by("bot", action={"name": "prompts/get"}, resource=resource, context={}))
    assert "restriction" not in prompt["context"]
    assert prompt["context"]["reason"] != "contained"
    release(service, order["id"])


def test_a_session_is_stopped_and_questions_without_one_are_not(service, client):
    context = {"session": "s-18", "calls": 1, "denied": 0, "started_ms": 0}
    first = ask(client, by("bot", context=context))
    assert first["decision"] is True
    order = contain(service, session=body_of(service, first).session)
    assert told(ask(client, by("bot", context=context))) == (False, "deny", "contained", order["id"])
    assert ask(client, by("bot", context={**context, "session": "s-19"}))["decision"] is True
    assert ask(client, by("bot"))["decision"] is True
    release(service, order["id"])


def test_of_boxed_questions_those_are_denied_that_are_contained(service, client):
    order = contain(service, agent="boxed-bot")
    box = {"evaluations": [by("bot"), by("boxed-bot"), by("boxed-bot", context={"time": "never"}), by("bot")]}
    answers = ask(client, box, EVALUATIONS)["evaluations"]
    assert [answer["decision"] for answer in answers] == [True, False, False, True]
    assert [answer["context"].get("restriction") for answer in answers] == [None, order["id"], None, None]
    assert answers[2]["context"]["reason"] == "malformed"


def test_a_principal_that_a_gateway_killed_is_denied_until_it_is_released(service, client):
    key = service.services.keys.pseudonym.seed
    enforcer = service.enforcer("gateway-18", seed=118)
    alice = pseudonym(key, "user", "alice")
    killed = enforcer.decide(
        agent="killed-bot", user=alice, decision="DENY", enforcement="kill", rules=("r",), failed_condition="r"
    )
    assert told(ask(client, by("killed-bot"))) == (False, "deny", "session_ended", killed)
    assert ask(client, by("killed-bot", user="bert"))["decision"] is True
    assert ask(client, by("killed-bot", user=None))["decision"] is True
    release(service, killed)
    assert ask(client, by("killed-bot"))["decision"] is True


def test_the_policy_is_not_asked_about_what_is_contained(service, client, monkeypatch):
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("panic")

    order = contain(service, agent="unasked-bot")
    monkeypatch.setattr(service.services.bundles, "active_bundle", fail)
    monkeypatch.setattr(service.services.evaluator, "evaluate_many", lambda _, asked: _nothing(asked))
    assert told(ask(client, by("unasked-bot"))) == (False, "deny", "contained", order["id"])


async def _nothing(asked: Any) -> list[Any]:
    assert not asked
    return []


def test_what_is_contained_while_the_policy_is_asked_is_not_permitted(service, client, monkeypatch):
    evaluate, orders = service.services.evaluator.evaluate_many, []

    async def contain_first(*arguments: Any) -> Any:
        now_ms = service.services.clock.now_ms()
        event = Containment(
            action="ordered",
            containment_id=new_record_id(now_ms, b"0123456789"),
            actor="a" * 32,
            actor_role="responder",
            scope="agent",
            agent="quick-bot",
            until_ms=now_ms + 600_000,
        )
        orders.append(await service.services.containments.order(event, "ticket 18"))
        return await evaluate(*arguments)

    monkeypatch.setattr(service.services.evaluator, "evaluate_many", contain_first)
    answer = ask(client, by("quick-bot"))
    assert told(answer) == (False, "deny", "contained", orders[0].order_id)
    body = body_of(service, answer)
    assert (body.decision, body.rules) == ("PERMIT", ("readers-may-call",))
    assert body.bundle is not None


def test_where_nobody_can_say_what_is_contained_everything_is_denied(service, client, monkeypatch):
    def fail() -> None:
        raise StorageError("the disk is gone")

    monkeypatch.setattr(service.services.containments, "look", fail)
    answer = ask(client, asked())
    assert told(answer) == (False, "deny", "restrictions_unavailable", None)
    assert body_of(service, answer).decision == "INDETERMINATE"


def test_an_answer_that_is_given_again_is_that_of_then(service, client):
    key = {"Idempotency_Key": "before-it-was-contained"}
    before = ask(client, by("again-bot"), **key)
    contain(service, agent="again-bot")
    assert ask(client, by("again-bot"), **key) == before
    assert ask(client, by("again-bot"))["context"]["reason"] == "contained"
