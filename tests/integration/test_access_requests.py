"""AuthZEN access requests at a real service: people agree to one denied evaluation, once, and every way round it.

The enforcement point is a client that speaks the profile and nothing of ours: it reads the metadata, the denial's
context, and follows the links that it is given.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from msgspec.structs import replace

from ledger.approvals import Terms, binding_of
from ledger.bodies import Approval, Decision
from ledger.clock import SimulatedClock
from ledger.commitments import SALT_BYTES
from ledger.errors import StorageError
from ledger.ports import commit
from ledger.records import new_record_id
from service.access_requests import MAX_OPEN
from service.access_submissions import stamp
from service.auth import Role
from service.notification_events import EVENTS, event_of
from service.persons import CONSOLE, Owner
from tests.integration.test_dashboard_http import csrf_of, log_in
from tests.support.ledger import LOG_ID, NOW_MS, make_decision
from tests.support.packs import ready_bundle
from tests.support.service import RunningService, start_service

POLICY = """
@id("ask-for-sales") @obligation("approval")
permit (principal, action == Action::"tools/call", resource == Tool::"shop/sell");
@id("look-up")
permit (principal, action == Action::"tools/call", resource == Tool::"shop/price");
@id("no-large-amounts")
forbid (principal, action, resource) when { context.args has amount && context.args.amount > 100 };
@id("not-from-abroad")
forbid (principal, action, resource) when { context.environment.network == "abroad" };
"""
OTHER_POLICY = POLICY.replace("> 100", "> 99")
ERROR = "urn:openid:authzen:access-request:error:"
EVALUATION = "/access/v1/evaluation"
SECONDS = 600
REASON = "ticket 18: looked into it"
NO_TASK = "01990000-0000-7000-8000-000000000000"


def sale(amount: object = 5, **changes: Any) -> dict[str, Any]:
    """Return a question to which the policy wants people to agree."""
    value: dict[str, Any] = {
        "subject": {"type": "agent", "id": "bot", "properties": {"user": "alice", "roles": ["reader"]}},
        "action": {"name": "tools/call"},
        "resource": {"type": "tool", "id": "sell", "properties": {"server": "shop", "tags": []}},
        "context": {"arguments": {"amount": amount}, "address": "192.0.2.7"},
    }
    return {**value, **changes}


def with_context(question: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {**question, "context": {**question["context"], **members}}


class Point:
    """An enforcement point of somebody else's, which knows the profile alone."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def ask(self, question: dict[str, Any], *, key: str | None = None) -> dict[str, Any]:
        answer = self.client.post(EVALUATION, json=question, headers={"idempotency-key": key} if key else {})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def submission(self, question: dict[str, Any], denied: dict[str, Any], **changes: Any) -> dict[str, Any]:
        context = denied["context"]
        denial = {
            "decision": {"decision": denied["decision"], "context": {"reason": context["reason"]}},
            "access_request": context.get("access_request", {"requestable": True}),
            "evaluation_id": context.get("evaluation_id", context["decision_id"]),
        }
        return {**question, "denial": denial, **changes}

    def send(self, submission: object, *, key: str | None = None) -> httpx.Response:
        endpoint = self.client.get("/.well-known/authzen-configuration").json()["access_request_endpoint"]
        content = submission if isinstance(submission, bytes) else json.dumps(submission).encode()
        return self.client.post(endpoint, content=content, headers={"idempotency-key": key} if key else {})

    def request(self, question: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Have a question denied and request it; return the task."""
        answer = self.send(self.submission(question, self.ask(question), **changes))
        assert answer.status_code == 202, answer.text
        return dict(answer.json()["task"])

    def status(self, task: dict[str, Any]) -> dict[str, Any]:
        return dict(self.client.get(task["status_endpoint"]).json())

    def again(self, question: dict[str, Any], task: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Ask again as the profile has it: with what the task's result hands out, unchanged."""
        presented = self.status(task).get("result", {}).get("approval_context", {"approval_id": task["id"]})
        return self.ask(with_context(question, authzen_access_request_approval=presented), **options)


class Desk:
    """A service that takes access requests, with an enforcement point and people."""

    def __init__(self, service: RunningService, clock: SimulatedClock) -> None:
        self.service, self.clock = service, clock
        self._stack = ExitStack()
        self.point = self.another("checkout")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def another(self, name: str, *, owner: Owner | None = None) -> Point:
        token = self.service.services.tokens.issue(LOG_ID, Role.CLIENT, name, owner=owner)
        return Point(self._stack.enter_context(self.service.client(token=token)))

    def person(self, name: str) -> httpx.Client:
        return self.service.client(token=self.service.token(Role.APPROVER, name))

    def open(self, task: dict[str, Any], name: str = "ben") -> httpx.Response:
        with self.person(name) as person:
            return person.post(f"/v1/approvals/{task['id']}/open")

    def say(self, task: dict[str, Any], name: str = "ben", verdict: str = "granted") -> httpx.Response:
        binding = self.open(task, name).json()["binding"]
        said = {"verdict": verdict, "binding": binding, "reason": REASON}
        with self.person(name) as person:
            return person.post(f"/v1/approvals/{task['id']}/verdict", json=said)

    def approved(self, question: dict[str, Any]) -> dict[str, Any]:
        """Have a question denied, requested and agreed to; return the task."""
        task = self.point.request(question)
        assert self.say(task).status_code == 200
        return task

    def steps(self, task: dict[str, Any]) -> list[tuple[str, str | None]]:
        services = self.service.services
        bodies = [services.reader.record(leaf).body for leaf in services.catalog.of_type(LOG_ID, "approval")]
        return [
            (one.action, one.reason) for one in bodies if isinstance(one, Approval) and one.approval_id == task["id"]
        ]

    def record(self, answer: dict[str, Any]) -> Decision:
        body = self.service.services.reader.record(answer["context"]["leaf_index"]).body
        assert isinstance(body, Decision)
        return body


def furnish(folder: Path, **settings: Any) -> Iterator[Desk]:
    clock = SimulatedClock(NOW_MS)
    with start_service(folder, clock=clock, **settings) as service, Desk(service, clock) as desk:
        service.put_in_force(ready_bundle(POLICY))
        yield desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Return a desk that the tests share: none looks at another's request."""
    yield from furnish(tmp_path_factory.mktemp("access-requests"), access_request_seconds=SECONDS)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Desk]:
    """Return a desk of a test's own, for what changes it for everybody."""
    yield from furnish(tmp_path, access_request_seconds=SECONDS)


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["type"].removeprefix(ERROR)


# --- the way it goes


def test_what_people_agree_to_is_permitted_once_and_the_log_tells_it_in_order(desk: Desk) -> None:
    denied = desk.point.ask(sale())
    context = denied["context"]
    assert (denied["decision"], context["enforcement"], context["evaluation_id"]) == (
        False,
        "ask",
        context["decision_id"],
    )
    until = stamp(desk.clock.now_ms() + SECONDS * 1000)
    hint = {"requestable": True, "reason": "approval_required", "expires_at": until}
    assert (context["access_request"], context["evaluated_at"]) == (hint, stamp(desk.clock.now_ms()))
    answer = desk.point.send(desk.point.submission(sale(), denied))
    assert answer.status_code == 202, answer.text
    task = answer.json()["task"]
    assert (answer.status_code, answer.headers["location"], task["status"]) == (202, task["status_endpoint"], "pending")
    assert (task["progress"], "result" in answer.json()) == ({"current_step": 1, "total_steps": 1}, False)
    assert desk.say(task).status_code == 200
    done = desk.point.status(task)
    assert (done["task"]["status"], done["result"]["mode"]) == ("approved", "reevaluate")
    assert done["result"]["approval"]["id"] == task["id"]
    assert "ben" not in json.dumps(done)
    permitted = desk.point.again(sale(), task)
    assert permitted["decision"] is True
    assert permitted["context"]["approval"]["id"] == task["id"]
    body = desk.record(permitted)
    assert (body.decision, body.enforcement, body.reason, body.obligations) == (
        "PERMIT",
        "allow",
        "approved",
        ("approval",),
    )
    assert (body.continues, body.mode, body.interface) == (denied["context"]["decision_id"], "observe", "authzen")
    assert desk.steps(task) == [("held", None), ("seen", None), ("granted", None), ("used", None)]
    # Durable as used before anything was permitted by it.
    used = desk.service.services.catalog.of_type(LOG_ID, "approval")[-1]
    assert used < permitted["context"]["leaf_index"]


def test_the_decision_after_an_approval_is_replayed_exactly_and_the_audit_finds_nothing(desk: Desk) -> None:
    task = desk.approved(sale())
    decision_id = desk.point.again(sale(), task)["context"]["decision_id"]
    with desk.service.client(Role.RESPONDER) as responder:
        (result,) = responder.post("/v1/replays", json={"decision_ids": [decision_id]}).json()["results"]
    assert (result["class"], result["same"]) == ("exact", True)


def test_people_see_what_was_evaluated_and_what_was_said_with_the_request(desk: Desk) -> None:
    question = with_context(sale(), note="a\u202eb")
    context = {**question["context"], "business_justification": "renewal of the year\u202e"}
    wanted = {"requested_duration": "PT4H", "urn:acme:cost": 7}
    task = desk.point.request(question, context=context, requested_access=wanted)
    opened = desk.open(task).json()
    assert json.loads(base64.b64decode(opened["message"])) == question
    assert (
        '"business_justification": "renewal of the year\u2039U+202E RIGHT-TO-LEFT OVERRIDE\u203a"'
        in opened["said"]["text"]
    )
    assert '"requested_duration": "PT4H"' in opened["said"]["text"]
    assert "amount" not in opened["said"]["text"]
    assert opened["requested_by"] in desk.service.services.keys.pseudonyms("actor", "checkout")
    assert "renewal" not in json.dumps(
        [desk.service.services.catalog.of_type(LOG_ID, "approval"), desk.point.status(task)]
    )


def test_a_request_is_told_to_webhooks_once_and_without_what_was_said(desk: Desk) -> None:
    task = desk.point.request(sale(), context={"business_justification": "renewal of the year"})
    assert desk.say(task).status_code == 200
    assert desk.point.again(sale(), task)["decision"] is True
    services = desk.service.services
    names = frozenset(kind.name for kind in EVENTS)
    told = []
    for leaf in range(services.sequenced_size()):
        event = event_of(LOG_ID, leaf, services.reader.record(leaf), names, "https://ledger.example")
        if event is not None and task["id"].encode() in event.body:
            told.append(event)
    (event,) = told
    assert event.name == "access.requested"
    assert f"https://ledger.example/approvals/{task['id']}" in event.body.decode()
    assert b"renewal" not in event.body


def test_the_page_of_a_request_shows_what_was_said_with_it_and_nothing_of_it_is_markup(desk: Desk) -> None:
    task = desk.point.request(sale(), context={"why": "<script>alert(1)</script>"})
    with desk.service.browser_client() as browser:
        token = desk.service.token(Role.APPROVER, "ben")
        assert log_in(browser, token).status_code == 303
        page = browser.get(f"/approvals/{task['id']}")
        assert "Requested by" in page.text
        assert "alert(1)" not in page.text
        opened = browser.post(f"/approvals/{task['id']}/open", data={"csrf": csrf_of(page)})
        assert "What was said with the request" in opened.text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in opened.text
        assert "<script>alert(1)" not in opened.text


def test_a_request_that_says_nothing_besides_shows_nothing_besides(desk: Desk) -> None:
    assert desk.open(desk.point.request(sale())).json()["said"] is None


def test_the_context_need_not_be_repeated_in_the_request(desk: Desk) -> None:
    task = desk.point.request(sale(), context={"business_justification": "the renewal"})
    assert desk.say(task).status_code == 200
    assert desk.point.again(sale(), task)["decision"] is True


def test_what_time_alone_changes_may_be_another_when_it_is_asked_again(desk: Desk) -> None:
    first = with_context(sale(), session="s-1", calls=1, denied=0, started_ms=5, time="2025-11-19T10:00:00+00:00")
    task = desk.approved(first)
    later = with_context(sale(), session="s-1", calls=3, denied=1, started_ms=5, time="2025-11-19T10:05:00+00:00")
    assert desk.point.again(later, task)["decision"] is True


def test_another_instance_of_the_same_caller_goes_on_where_the_first_one_stopped(desk: Desk) -> None:
    task = desk.approved(sale())
    assert desk.another("checkout").again(sale(), task)["decision"] is True


def test_sent_twice_it_is_one_request(desk: Desk) -> None:
    denied = desk.point.ask(sale())
    submission = desk.point.submission(sale(), denied, context={**sale()["context"], "why": "renewal"})
    first, second = (desk.point.send(submission, key="request-18") for _ in range(2))
    plain = desk.point.send(submission)
    assert {one.json()["task"]["id"] for one in (first, second, plain)} == {first.json()["task"]["id"]}
    assert desk.steps(first.json()["task"]) == [("held", None)]
    desk.say(first.json()["task"])
    settled = desk.point.send(submission, key="request-18")
    assert (settled.status_code, settled.json()["result"]["mode"]) == (201, "reevaluate")


def test_asked_again_under_one_key_the_same_permit_is_told_again(desk: Desk) -> None:
    task = desk.approved(sale())
    first, second = (desk.point.again(sale(), task, key="again-18") for _ in range(2))
    assert first == second
    assert first["decision"] is True
    assert [step for step, _ in desk.steps(task)].count("used") == 1


def test_of_a_box_an_approval_counts_for_the_question_that_bears_it_and_once(desk: Desk) -> None:
    task = desk.approved(sale())
    bearing = with_context(sale(), authzen_access_request_approval={"approval_id": task["id"]})
    answer = desk.point.client.post("/access/v1/evaluations", json={"evaluations": [sale(), bearing, bearing]})
    assert [one["decision"] for one in answer.json()["evaluations"]] == [False, True, False]
    assert desk.steps(task)[-2:] == [("used", None), ("refused", "used")]


def test_no_approval_of_a_question_that_is_not_answered_is_used(desk: Desk) -> None:
    task = desk.approved(sale())
    bearing = with_context(sale(), authzen_access_request_approval={"approval_id": task["id"]})
    box = {"evaluations": [sale(500), bearing], "options": {"evaluations_semantic": "deny_on_first_deny"}}
    answer = desk.point.client.post("/access/v1/evaluations", json=box).json()["evaluations"]
    assert [one["decision"] for one in answer] == [False]
    assert desk.steps(task)[-1] == ("granted", None)
    assert desk.point.again(sale(), task)["decision"] is True


def test_two_people_where_two_must_agree(tmp_path: Path) -> None:
    for desk in furnish(tmp_path, access_request_seconds=SECONDS, access_request_approvers=2):
        task = desk.point.request(sale())
        assert desk.say(task, "ben").status_code == 200
        assert desk.point.status(task)["task"]["progress"] == {"current_step": 2, "total_steps": 2}
        assert desk.point.again(sale(), task)["decision"] is False
        assert desk.say(task, "ben").status_code == 409
        assert desk.say(task, "cleo").status_code == 200
        assert desk.point.again(sale(), task)["decision"] is True


# --- an approval is for one evaluation, once


OTHERS = {
    "another amount": sale(6),
    "the same number, spelt otherwise": {"raw": json.dumps(sale()).replace('"amount": 5', '"amount": 5.0')},
    "one argument more": sale(context={**sale()["context"], "arguments": {"b": 1, "amount": 5}}),
    "a number as a text": sale("5"),
    "no arguments": sale(context={"address": "192.0.2.7"}),
    "another user": sale(subject={"type": "agent", "id": "bot", "properties": {"user": "bob", "roles": ["reader"]}}),
    "another agent": sale(subject={"type": "agent", "id": "Bot", "properties": {"user": "alice", "roles": ["reader"]}}),
    "more roles": sale(
        subject={"type": "agent", "id": "bot", "properties": {"user": "alice", "roles": ["a", "reader"]}}
    ),
    "another address": with_context(sale(), address="192.0.2.8"),
    "another network": with_context(sale(), network="office"),
    "another session": with_context(sale(), session="s-2", calls=0, denied=0, started_ms=0),
    "another tag": sale(resource={"type": "tool", "id": "sell", "properties": {"server": "shop", "tags": ["write"]}}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_evaluation_is_not_permitted_by_it_and_leaves_it_usable(desk: Desk, name: str) -> None:
    task = desk.approved(sale())
    other = OTHERS[name]
    presented = {"approval_id": task["id"]}
    if "raw" in other:
        text = other["raw"].replace(
            '"address"', f'"authzen_access_request_approval": {json.dumps(presented)}, "address"'
        )
        answer = desk.point.client.post(EVALUATION, content=text.encode()).json()
    else:
        answer = desk.point.ask(with_context(other, authzen_access_request_approval=presented))
    assert (answer["decision"], answer["context"]["enforcement"]) == (False, "ask")
    assert answer["context"]["detail"] == "approval: changed_binding"
    assert desk.steps(task)[-1] == ("refused", "changed_binding")
    assert desk.point.again(sale(), task)["decision"] is True


def test_a_used_approval_is_used(desk: Desk) -> None:
    task = desk.approved(sale())
    assert desk.point.again(sale(), task)["decision"] is True
    replayed = desk.point.again(sale(), task)
    assert (replayed["decision"], replayed["context"]["detail"]) == (False, "approval: used")
    assert desk.steps(task)[-1] == ("refused", "used")
    assert desk.record(replayed).enforcement == "ask"


def test_many_that_ask_at_once_with_one_approval_are_permitted_once(desk: Desk) -> None:
    task = desk.approved(sale())
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: desk.point.again(sale(), task)["decision"], range(16)))
    assert answers.count(True) == 1
    assert [step for step, _ in desk.steps(task)].count("used") == 1


def test_an_approval_is_no_permit_where_the_policy_forbids(desk: Desk) -> None:
    question = with_context(sale(), network="abroad")
    assert "access_request" not in desk.point.ask(question)["context"]
    task = desk.approved(sale())
    answer = desk.point.again(question, task)
    assert (answer["decision"], answer["context"]["failed_condition"]) == (False, "not-from-abroad")
    assert desk.steps(task)[-1] == ("granted", None)


def test_an_approval_of_another_bundle_does_not_count(alone: Desk) -> None:
    task = alone.approved(sale())
    alone.service.put_in_force(ready_bundle(OTHER_POLICY))
    answer = alone.point.again(sale(), task)
    assert (answer["decision"], answer["context"]["detail"]) == (False, "approval: bundle_changed")
    assert alone.steps(task)[-1] == ("refused", "bundle_changed")


def test_an_approval_ends_with_its_time(desk: Desk) -> None:
    task = desk.approved(sale())
    desk.clock.advance(SECONDS * 1000)
    answer = desk.point.again(sale(), task)
    assert (answer["decision"], answer["context"]["detail"]) == (False, "approval: expired")
    assert desk.point.status(task)["task"]["status"] == "expired"
    assert "result" not in desk.point.status(task)


@pytest.mark.parametrize("verdict", ["nobody", "denied"])
def test_what_nobody_has_agreed_to_or_somebody_has_denied_stays_denied(desk: Desk, verdict: str) -> None:
    task = desk.point.request(sale())
    if verdict == "denied":
        assert desk.say(task, verdict="denied").status_code == 200
    told = desk.point.status(task)
    state = "waiting" if verdict == "nobody" else "denied"
    assert (told["task"]["status"], "result" in told) == ("pending" if verdict == "nobody" else "denied", False)
    answer = desk.point.again(sale(), task)
    assert (answer["decision"], answer["context"]["detail"]) == (False, f"approval: {state}")


def test_a_denial_after_enough_have_agreed_is_the_end(desk: Desk) -> None:
    task = desk.approved(sale())
    assert desk.say(task, "cleo", "denied").status_code == 200
    assert desk.point.again(sale(), task)["context"]["detail"] == "approval: denied"


def test_somebody_elses_approval_does_not_count(desk: Desk) -> None:
    task = desk.approved(sale())
    stranger = desk.another("stranger")
    asked = with_context(sale(), authzen_access_request_approval={"approval_id": task["id"]})
    answer = stranger.ask(asked)
    assert (answer["decision"], answer["context"]["detail"]) == (False, "approval: unknown_approval")
    assert desk.point.again(sale(), task)["decision"] is True


def test_an_approval_of_a_call_that_a_gateway_holds_does_not_count(desk: Desk) -> None:
    gateway = desk.service.enforcer("gateway-3", seed=23)
    commitment, opening = commit("message", b"s" * SALT_BYTES, json.dumps(sale()).encode())
    body, openings = make_decision(message=commitment, enforcement="ask", decision="PERMIT")
    record = gateway.record(body)
    kept = [one for one in openings if one.field != "message" and getattr(body, one.field) is not None]
    gateway.post([(record, [opening, *kept])]).raise_for_status()
    held = {"id": gateway.hold(record.record_id)}
    assert desk.say(held).status_code == 200
    asked = with_context(sale(), authzen_access_request_approval={"approval_id": held["id"]})
    assert desk.point.ask(asked)["context"]["detail"] == "approval: unknown_approval"


def test_a_gateway_cannot_hold_or_use_in_the_services_name(desk: Desk) -> None:
    denied = desk.point.ask(sale())
    evaluation_id = denied["context"]["evaluation_id"]
    gateway = desk.service.enforcer("gateway-4", seed=24)
    decision = desk.record(denied)
    terms = Terms(approval_id=new_record_id(NOW_MS, b"f" * 10), expires_ms=NOW_MS + 600_000, needed=1, roles=())
    said = {"decision_id": evaluation_id, "binding": binding_of(evaluation_id, decision, terms)}
    actor = desk.service.services.keys.pseudonyms("actor", "checkout")[0]
    held = Approval(
        approval_id=terms.approval_id, action="held", expires_ms=terms.expires_ms, needed=1, actor=actor, **said
    )
    answer = gateway.post([(gateway.record(held), ())])
    assert (answer.status_code, "names who did it" in answer.text) == (403, True)
    gateway.enforcer.seq -= 1
    gateway.post([(gateway.record(replace(held, actor=None)), ())]).raise_for_status()
    # Whoever holds it as a gateway holds nothing of the service's: the request is taken, and that one is no approval.
    task = desk.point.send(desk.point.submission(sale(), denied)).json()["task"]
    assert task["id"] != terms.approval_id
    assert desk.open({"id": terms.approval_id}).status_code == 404
    asked = with_context(sale(), authzen_access_request_approval={"approval_id": terms.approval_id})
    assert desk.point.ask(asked)["context"]["detail"] == "approval: unknown_approval"
    # Nor does a gateway's word end, or use, what the service holds.
    assert desk.say(task).status_code == 200
    for action in ("used", "cancelled", "expired", "refused"):
        gateway.step(task["id"], action)
    assert desk.point.status(task)["task"]["status"] == "approved"
    assert desk.point.again(sale(), task)["decision"] is True


@pytest.mark.parametrize(
    "presented", [{}, {"approval_id": 7}, {"approval_id": ""}, "01990000-0000-7000-8000-000000000000", [1]]
)
def test_an_approval_that_is_none_is_a_bad_request(desk: Desk, presented: object) -> None:
    answer = desk.point.client.post(EVALUATION, json=with_context(sale(), authzen_access_request_approval=presented))
    assert answer.status_code == 400


def test_an_approval_that_there_is_not_denies(desk: Desk) -> None:
    answer = desk.point.ask(with_context(sale(), authzen_access_request_approval={"approval_id": "x" * 40}))
    assert (answer["decision"], answer["context"]["detail"]) == (False, "approval: unknown_approval")


def test_what_is_contained_meanwhile_is_denied_whoever_agreed(alone: Desk) -> None:
    task = alone.approved(sale())
    with alone.service.client(Role.RESPONDER) as responder:
        order = {"agent": "bot", "seconds": 300, "reason": "ticket 18"}
        responder.post("/v1/containments", json=order).raise_for_status()
    answer = alone.point.again(sale(), task)
    assert (answer["decision"], answer["context"]["reason"]) == (False, "contained")


def test_where_its_use_cannot_be_recorded_nothing_is_permitted(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    task = desk.approved(sale())
    recorder = desk.service.services.recorder
    append = recorder.append

    async def fail(drafts: Any, **options: Any) -> Any:
        if any(isinstance(draft.body, Approval) and draft.body.action == "used" for draft in drafts):
            raise StorageError("the disk is full")
        return await append(drafts, **options)

    monkeypatch.setattr(recorder, "append", fail)
    asked = with_context(sale(), authzen_access_request_approval={"approval_id": task["id"]})
    assert desk.point.client.post(EVALUATION, json=asked).status_code == 503
    monkeypatch.undo()
    assert desk.point.again(sale(), task)["decision"] is True


def test_an_approval_whose_use_is_recorded_and_whose_answer_was_lost_is_used(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = desk.approved(sale())
    recorder = desk.service.services.recorder
    append = recorder.append

    async def fail(drafts: Any, **options: Any) -> Any:
        if any(isinstance(draft.body, Decision) for draft in drafts):
            raise StorageError("the disk is full")
        return await append(drafts, **options)

    monkeypatch.setattr(recorder, "append", fail)
    asked = with_context(sale(), authzen_access_request_approval={"approval_id": task["id"]})
    assert desk.point.client.post(EVALUATION, json=asked).status_code == 503
    monkeypatch.undo()
    assert desk.point.again(sale(), task)["context"]["detail"] == "approval: used"


# --- who agrees


def test_who_the_agent_acts_for_and_whose_token_requested_it_cannot_agree(desk: Desk) -> None:
    task = desk.point.request(sale())
    assert desk.say(task, "alice").status_code == 403
    owned = desk.another("robot", owner=Owner(issuer=CONSOLE, subject="carl"))
    other = owned.request(sale(7))
    assert desk.say(other, "carl").status_code == 403
    assert desk.steps(other)[-1] == ("refused", "self_approval")
    assert desk.say(other, "ben").status_code == 200


def test_a_client_can_neither_open_nor_agree(desk: Desk) -> None:
    task = desk.point.request(sale())
    assert desk.point.client.post(f"/v1/approvals/{task['id']}/open").status_code == 403
    said = {"verdict": "granted", "binding": "0" * 64, "reason": REASON}
    assert desk.point.client.post(f"/v1/approvals/{task['id']}/verdict", json=said).status_code == 403
    assert desk.point.status(task)["task"]["status"] == "pending"


# --- requests that are refused


def test_only_what_the_policy_asks_people_about_can_be_requested(desk: Desk) -> None:
    forbidden = desk.point.ask(sale(500))
    assert "access_request" not in forbidden["context"]
    assert problem(desk.point.send(desk.point.submission(sale(500), forbidden))) == (400, "not_requestable")
    price = sale(resource={"type": "tool", "id": "price", "properties": {"server": "shop", "tags": []}})
    permitted = desk.point.ask(price)
    assert permitted["decision"] is True
    said = desk.point.submission(price, {**permitted, "decision": False})
    assert problem(desk.point.send(said)) == (400, "not_requestable")


def test_a_denial_is_requested_in_its_time(desk: Desk) -> None:
    denied = desk.point.ask(sale())
    desk.clock.advance(SECONDS * 1000)
    assert problem(desk.point.send(desk.point.submission(sale(), denied))) == (410, "expired_denial")


CHANGED = {
    "another amount": {"context": sale(6)["context"]},
    "another user": {"subject": {"type": "agent", "id": "bot", "properties": {"user": "bob", "roles": ["reader"]}}},
    "another tool": {"resource": {"type": "tool", "id": "price", "properties": {"server": "shop", "tags": []}}},
    "another action": {"action": {"name": "tools/list"}},
    "another address": {"context": {"address": "198.51.100.1"}},
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_request_for_something_else_than_was_denied_is_refused(desk: Desk, name: str) -> None:
    submission = {**desk.point.submission(sale(), desk.point.ask(sale())), **CHANGED[name]}
    evaluation_id = submission["denial"]["evaluation_id"]
    assert problem(desk.point.send(submission)) == (400, "invalid_denial_binding")
    assert evaluation_id not in {call.decision_id for call in desk.service.services.approvals.look()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"evaluation_id": None}, "invalid_denial_binding"),
        ({"evaluation_id": NO_TASK}, "invalid_denial_binding"),
        ({"evaluation_id": "x"}, "invalid_denial_binding"),
        ({"access_request": {"requestable": False}}, "not_requestable"),
        ({"access_request": {}}, "not_requestable"),
        ({"decision": {"decision": True}}, "not_requestable"),
        ({"access_request": {"requestable": True, "request_context": "eyJ"}}, "invalid_denial_binding"),
    ],
)
def test_a_request_that_is_bound_to_no_denial_of_ours_is_refused(desk: Desk, change: dict[str, Any], told: str) -> None:
    submission = desk.point.submission(sale(), desk.point.ask(sale()))
    submission["denial"] = {**submission["denial"], **change}
    assert problem(desk.point.send(submission)) == (400, told)


def test_a_gateways_decision_cannot_be_requested(desk: Desk) -> None:
    decision_id = desk.service.enforcer().decide(enforcement="ask", decision="PERMIT")
    submission = desk.point.submission(sale(), desk.point.ask(sale()))
    submission["denial"]["evaluation_id"] = decision_id
    assert problem(desk.point.send(submission)) == (400, "invalid_denial_binding")


def test_an_erased_evaluation_cannot_be_requested_any_more(alone: Desk) -> None:
    denied = alone.point.ask(sale())
    with alone.service.client(Role.ADMIN) as admin:
        admin.post("/v1/erasures", json={"user": "alice", "basis": "an inquiry by the board"}).raise_for_status()
    assert problem(alone.point.send(alone.point.submission(sale(), denied))) == (400, "invalid_denial_binding")


@pytest.mark.parametrize(
    "change",
    [
        {"items": []},
        {"callback": {"endpoint": "https://pep.example/"}},
        {"requested_access": {"requested_duration": "PT1H", "requested_until": "2026-01-01T00:00:00Z"}},
        {"requested_access": 7},
        {"context": 7},
        {"action": None},
    ],
)
def test_what_is_not_done_here_is_said_and_not_left_out(desk: Desk, change: dict[str, Any]) -> None:
    submission = desk.point.submission(sale(), desk.point.ask(sale()), **change)
    assert desk.point.send(submission).status_code == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"subject":1,"subject":2}', b"\xff", b"7"])
def test_what_is_no_request_is_a_bad_request(desk: Desk, body: bytes) -> None:
    assert desk.point.send(body).status_code == 400


def test_another_request_under_a_key_that_is_taken_is_refused(desk: Desk) -> None:
    first, second = desk.point.ask(sale()), desk.point.ask(sale(6))
    submission = desk.point.submission(sale(), first)
    assert desk.point.send(submission, key="taken-18").status_code == 202
    other = desk.point.submission(sale(6), second)
    assert problem(desk.point.send(other, key="taken-18")) == (409, "duplicate_request")
    said = {**submission, "requested_access": {"requested_duration": "PT4H"}}
    assert problem(desk.point.send(said, key="taken-18")) == (409, "duplicate_request")
    assert desk.point.send(submission, key="no").status_code == 400


def test_somebody_elses_request_is_not_taken_over(desk: Desk) -> None:
    denied = desk.point.ask(sale())
    assert desk.point.send(desk.point.submission(sale(), denied)).status_code == 202
    stranger = desk.another("stranger")
    assert problem(stranger.send(stranger.submission(sale(), denied))) == (409, "duplicate_request")


def test_so_many_wait_and_no_more(alone: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.access_requests.MAX_OPEN", 2)
    assert MAX_OPEN > 2
    tasks = [alone.point.request(sale(amount)) for amount in (1, 2)]
    refused = alone.point.send(alone.point.submission(sale(3), alone.point.ask(sale(3))))
    assert refused.status_code == 429
    alone.say(tasks[0])
    assert alone.point.request(sale(4))["status"] == "pending"


def test_many_that_send_one_request_at_once_have_one_task(desk: Desk) -> None:
    submission = desk.point.submission(sale(), desk.point.ask(sale()))
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda n: desk.point.send(submission, key=f"request-{n % 4}-18"), range(12)))
    assert {answer.status_code for answer in answers} == {202}
    (task_id,) = {answer.json()["task"]["id"] for answer in answers}
    assert desk.steps({"id": task_id}) == [("held", None)]
    services = desk.service.services
    bodies = [services.reader.record(leaf).body for leaf in services.catalog.of_type(LOG_ID, "approval")]
    evaluation_id = submission["denial"]["evaluation_id"]
    assert len([one for one in bodies if isinstance(one, Approval) and one.decision_id == evaluation_id]) == 1


# --- tasks


def test_a_task_is_its_requesters_alone(desk: Desk) -> None:
    task = desk.point.request(sale())
    stranger = desk.another("stranger")
    for answer in (
        stranger.client.get(task["status_endpoint"]),
        stranger.client.post(task["links"]["cancel"]),
        desk.point.client.get(f"/access/v1/requests/{NO_TASK}"),
        desk.point.client.get("/access/v1/requests/x"),
    ):
        assert problem(answer) == (404, "unknown_task")
    assert desk.point.status(task)["task"]["status"] == "pending"


def test_what_is_withdrawn_nobody_agrees_to_any_more(desk: Desk) -> None:
    task = desk.point.request(sale())
    answer = desk.point.client.post(task["links"]["cancel"], json={"reason": "moved", "comment": "not needed"})
    assert (answer.status_code, answer.json()["task"]["status"]) == (200, "cancelled")
    assert desk.steps(task) == [("held", None), ("cancelled", "requester_cancelled")]
    assert desk.say(task).status_code == 409
    assert problem(desk.point.client.post(task["links"]["cancel"])) == (409, "invalid_task_state")
    assert desk.point.again(sale(), task)["context"]["detail"] == "approval: cancelled"


@pytest.mark.parametrize("body", [b"[]", b"7", b"{", b"x" * 20_000])
def test_a_withdrawal_that_cannot_be_read_withdraws_nothing(desk: Desk, body: bytes) -> None:
    task = desk.point.request(sale())
    assert desk.point.client.post(task["links"]["cancel"], content=body).status_code in (400, 413)
    assert desk.point.status(task)["task"]["status"] == "pending"


def test_what_is_agreed_to_is_not_withdrawn(desk: Desk) -> None:
    task = desk.approved(sale())
    cancel = f"{task['status_endpoint']}/cancel"
    assert problem(desk.point.client.post(cancel)) == (409, "invalid_task_state")
    assert "links" not in desk.point.status(task)["task"]


# --- where it is not wanted


def test_without_the_setting_there_is_no_request(tmp_path: Path) -> None:
    for desk in furnish(tmp_path):
        assert "access_request_endpoint" not in desk.point.client.get("/.well-known/authzen-configuration").json()
        denied = desk.point.ask(sale())
        assert "access_request" not in denied["context"]
        answer = desk.point.client.post("/access/v1/requests", json=desk.point.submission(sale(), denied))
        assert problem(answer) == (400, "not_requestable")


def test_the_metadata_says_what_can_be_done(desk: Desk) -> None:
    said = desk.point.client.get("/.well-known/authzen-configuration").json()
    assert said["capabilities"] == ["urn:openid:authzen:capability:access-request"]
    assert said["access_request_endpoint"] == f"{desk.service.url}/access/v1/requests"
