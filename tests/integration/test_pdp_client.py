"""Our own client against a real service: typed answers, one decision however often it is sent, no false permit."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from enforcement import pdp_client
from enforcement.pdp_client import AsyncTallystick, Tallystick
from enforcement.questions import Question, read_one, read_several
from ledger.errors import ConfigError, ConflictError, MalformedError, OverloadedError, UpstreamError
from policies.model import decode_request
from service.auth import Role
from tests.support.packs import ready_bundle
from tests.support.service import RunningService, start_service

POLICY = """
@id("readers-may-call")
permit (principal in Role::"reader", action == Action::"tools/call", resource);
@id("no-large-amounts")
forbid (principal, action, resource) when { context.args has amount && context.args.amount > 100 };
"""


def question(amount: int = 5, **changes: Any) -> Question:
    fields: dict[str, Any] = {
        "agent": "bot",
        "method": "tools/call",
        "server": "shop",
        "name": "price",
        "tags": ("write",),
        "roles": ("reader",),
        "arguments": f'{{"amount": {amount}}}',
    }
    return Question(**{**fields, **changes})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with start_service(tmp_path_factory.mktemp("client")) as running:
        running.put_in_force(ready_bundle(POLICY))
        yield running


@pytest.fixture
def tallystick(service: RunningService) -> Iterator[Tallystick]:
    with Tallystick(service.url, service.token(Role.CLIENT)) as client:
        yield client


def test_a_call_that_a_responder_has_stopped_is_answered_with_what_stopped_it(service, tallystick):
    with service.client(Role.RESPONDER) as responder:
        wanted = {"agent": "stopped-bot", "seconds": 600, "reason": "ticket 18"}
        order = responder.post("/v1/containments", json=wanted).raise_for_status().json()
    stopped = tallystick.evaluate(question(agent="stopped-bot"))
    assert (stopped.permitted, stopped.enforcement, stopped.reason) == (False, "deny", "contained")
    assert stopped.restriction == order["id"]
    first, second = tallystick.evaluate_many([question(), question(agent="stopped-bot")])
    assert (first.permitted, first.restriction, second.permitted, second.restriction) == (
        True,
        None,
        False,
        order["id"],
    )


def test_an_answer_says_what_was_decided_and_where_it_is_recorded(service, tallystick):
    answer = tallystick.evaluate(question(user="alice", session="s-1", calls=3, started_ms=7, address="192.0.2.7"))
    assert (answer.permitted, answer.effect, answer.enforcement, answer.rules) == (
        True,
        "PERMIT",
        "allow",
        ("readers-may-call",),
    )
    record = service.services.reader.record(answer.leaf_index)
    assert record.record_id == answer.decision_id
    request = decode_request(service.services.vault.open(record, "request").payload)
    assert (request.arguments, request.state.calls, request.principal.user) == ('{"amount": 5}', 3, "alice")
    assert (request.resource.tags, request.environment.address) == (("write",), "192.0.2.7")


def test_a_denial_is_an_answer_and_no_exception(tallystick):
    answer = tallystick.evaluate(question(101))
    assert (answer.permitted, answer.reason, answer.failed_condition) == (False, "policy", "no-large-amounts")


def test_several_are_answered_together(tallystick):
    questions = [question(5), question(101), question(6)]
    assert [one.permitted for one in tallystick.evaluate_many(questions)] == [True, False, True]
    cut = tallystick.evaluate_many(questions, semantic="deny_on_first_deny")
    assert [one.permitted for one in cut] == [True, False]


def test_an_event_loop_has_a_client_of_its_own(service):
    async def run() -> None:
        async with AsyncTallystick(service.url, service.token(Role.CLIENT)) as client:
            answers = await asyncio.gather(*(client.evaluate(question(5 + 100 * (n % 2))) for n in range(8)))
            assert [one.permitted for one in answers] == [n % 2 == 0 for n in range(8)]
            assert [one.permitted for one in await client.evaluate_many([question(), question(101)])] == [True, False]

    asyncio.run(run())


# --- trying again


class Flaky(httpx.BaseTransport):
    """Passes requests on, and loses answers."""

    def __init__(self, lose: Callable[[int], httpx.Response | Exception | None]) -> None:
        self._through = httpx.HTTPTransport()
        self._lose = lose
        self.sent: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        response = self._through.handle_request(request)
        lost = self._lose(len(self.sent))
        if lost is None:
            return response
        response.read()
        response.close()
        if isinstance(lost, Exception):
            raise lost
        return lost

    def close(self) -> None:
        self._through.close()


def flaky(
    service: RunningService, lose: Callable[[int], httpx.Response | Exception | None]
) -> tuple[Tallystick, Flaky]:
    client = Tallystick(service.url, service.token(Role.CLIENT))
    transport = Flaky(lose)
    client._client._transport.close()
    client._client._transport = transport
    client._client._mounts = {}
    return client, transport


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdp_client, "_PAUSE_SECONDS", 0.0)


@pytest.mark.parametrize(
    "lost", [httpx.ReadError("gone"), httpx.ReadTimeout("slow"), httpx.Response(503), httpx.Response(429)]
)
@pytest.mark.usefixtures("no_pauses")
def test_an_answer_that_was_lost_is_asked_for_again_and_decided_once(service, lost):
    client, transport = flaky(service, lambda number: lost if number < 4 else None)
    before = service.services.catalog.counts(service.log_id).get("decision", 0)
    with client:
        assert client.evaluate(question()).permitted
    assert len({(sent.headers["idempotency-key"], sent.content) for sent in transport.sent}) == 1
    assert len(transport.sent) == 4
    assert service.services.catalog.counts(service.log_id)["decision"] == before + 1


@pytest.mark.parametrize(
    ("lost", "error"),
    [
        (httpx.ConnectError("nobody"), UpstreamError),
        (httpx.Response(503, json={"detail": "the disk is full"}), UpstreamError),
        (httpx.Response(429, json={"detail": "ask again"}), OverloadedError),
        (httpx.Response(500), UpstreamError),
    ],
)
@pytest.mark.usefixtures("no_pauses")
def test_without_an_answer_there_is_an_exception_and_no_permit(service, lost, error):
    client, transport = flaky(service, lambda _number: lost)
    with client, pytest.raises(error):
        client.evaluate(question())
    assert len(transport.sent) == 4


@pytest.mark.parametrize(
    ("lost", "error"),
    [
        (httpx.Response(400, json={"detail": "malformed"}), MalformedError),
        (httpx.Response(401), ConfigError),
        (httpx.Response(403), ConfigError),
        (httpx.Response(409), ConflictError),
        (httpx.Response(302, headers={"location": "https://elsewhere.example/"}), UpstreamError),
        (httpx.Response(204), UpstreamError),
        (httpx.Response(200, content=b""), UpstreamError),
        (httpx.Response(200, json={"decision": True}), UpstreamError),
    ],
)
def test_a_refusal_is_not_tried_again(service, lost, error):
    client, transport = flaky(service, lambda _number: lost)
    with client, pytest.raises(error):
        client.evaluate(question())
    assert len(transport.sent) == 1


# --- what is no permit

ANSWER = {
    "decision": True,
    "context": {
        "decision_id": "x",
        "leaf_index": 1,
        "effect": "PERMIT",
        "enforcement": "allow",
        "reason": "policy",
    },
}


def changed(**context: object) -> bytes:
    return json.dumps({**ANSWER, "context": {**ANSWER["context"], **context}}).encode()  # type: ignore[dict-item]


def test_only_an_answer_that_says_so_throughout_permits():
    assert read_one(json.dumps(ANSWER).encode()).permitted
    assert not read_one(json.dumps({**ANSWER, "decision": False}).encode()).permitted
    assert not read_one(changed(effect="DENY")).permitted
    assert not read_one(changed(enforcement="ask")).permitted


@pytest.mark.parametrize(
    "body",
    [b"", b"true", b"{}", b'{"decision":true}', b'{"decision":1,"context":{}}', changed(leaf_index="1"), b"\xff"],
)
def test_what_is_no_decision_is_an_error(body):
    with pytest.raises(UpstreamError):
        read_one(body)


@pytest.mark.parametrize(
    ("count", "asked", "semantic"), [(1, 2, "execute_all"), (3, 2, "execute_all"), (0, 1, "deny_on_first_deny")]
)
def test_another_number_of_answers_than_was_asked_for_is_an_error(count, asked, semantic):
    body = json.dumps({"evaluations": [ANSWER] * count}).encode()
    with pytest.raises(UpstreamError):
        read_several(body, asked, semantic)


DENIAL = {"decision": False, "context": {**ANSWER["context"], "effect": "DENY", "enforcement": "deny"}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("answers", "semantic"),
    [([ANSWER], "deny_on_first_deny"), ([DENIAL], "permit_on_first_permit"), ([DENIAL], "execute_all")],
)
def test_answers_that_end_before_one_settles_it_are_an_error(answers, semantic):
    with pytest.raises(UpstreamError):
        read_several(json.dumps({"evaluations": answers}).encode(), 2, semantic)


@pytest.mark.parametrize(
    ("answers", "semantic"), [([DENIAL], "deny_on_first_deny"), ([DENIAL, ANSWER], "permit_on_first_permit")]
)
def test_answers_may_end_with_the_one_that_settles_it(answers, semantic):
    assert len(read_several(json.dumps({"evaluations": answers}).encode(), 3, semantic)) == len(answers)


@pytest.mark.parametrize("arguments", ["", "{", '{"a":1,"a":2}', '{"a":1e400}', '{"a":NaN}', '{"a":"\ud800"}'])
def test_arguments_that_two_readers_could_read_in_two_ways_are_not_sent(tallystick, arguments):
    with pytest.raises(MalformedError):
        tallystick.evaluate(question(arguments=arguments))


def test_no_questions_are_none(tallystick):
    with pytest.raises(MalformedError):
        tallystick.evaluate_many([])


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("ledger.example", "t"),
        ("ftp://x", "t"),
        ("http://", "t"),
        ("http://x:port", "t"),
        ("http://x", ""),
        ("http://x", "a\nb"),
    ],
)
def test_a_client_without_a_service_or_a_token_is_not_made(url, token):
    with pytest.raises(ConfigError):
        Tallystick(url, token)


def test_a_token_that_may_not_ask_is_an_error_of_configuration(service):
    with Tallystick(service.url, service.token(Role.AUDITOR)) as client, pytest.raises(ConfigError):
        client.evaluate(question())
