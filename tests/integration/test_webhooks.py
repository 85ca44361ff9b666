"""Webhooks: signed, at least once and in order, again until taken, and nowhere but where the operator said."""

from __future__ import annotations

import asyncio
import base64
import json
import queue
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from nacl.exceptions import BadSignatureError
from standardwebhooks.webhooks import Webhook as StandardWebhook
from standardwebhooks.webhooks import WebhookVerificationError

from ledger.bodies import Containment, Dropped, Heartbeat
from ledger.bodies_tools import ToolEvent
from ledger.clock import SimulatedClock
from ledger.commitments import SALT_BYTES
from ledger.envelopes import ED25519
from ledger.errors import ConfigError, UpstreamError
from ledger.keys import generate_key, save_key
from ledger.ports import commit
from ledger.records import field_classes
from ledger.stores.sql_leases import SQLLease
from service.auth import Role
from service.cli.main import cli
from service.fleet import ActiveBundle, Beat, Fleet, Member, State
from service.notification_events import EVENTS
from service.notification_sending import check_url, send
from service.notification_signing import WebhookSigner
from service.notification_store import DEAD_FAILURES, MAX_RECENT, Delivery, Webhook, WebhookStore
from service.notifications import MAX_BACKLOG, Notifications
from tests.support.forgery import forge
from tests.support.ledger import LOG_ID, NOW_MS
from tests.support.service import RunningService, start_service

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"
KEY = generate_key("webhook", ED25519, "webhooks", created_ms=NOW_MS)
SIGNER = WebhookSigner(KEY)
WAIT_SECONDS = 60
ALL = ("call.held", "session.killed", "tool.quarantined", "enforcer.lost_records", "containment.ordered")


# --- the example in the document, as it stands there


def documented() -> Callable[..., None]:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.split("def verify")[1].splitlines() if line.strip()]) <= 15
    names: dict[str, Any] = {}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    return names["verify"]


def signed(body: bytes = b'{"a":1}', **options: Any) -> dict[str, str]:
    return dict(SIGNER.headers("msg_1", options.pop("at", int(time.time())), body, **options))


def test_the_documented_receiver_takes_what_is_ours_once():
    verify, seen = documented(), set()
    verify(SIGNER.public_key, signed(), b'{"a":1}', seen)
    with pytest.raises(ValueError, match="seen"):
        verify(SIGNER.public_key, signed(), b'{"a":1}', seen)


def test_the_documented_receiver_takes_nothing_else():
    verify = documented()
    other = WebhookSigner(generate_key("webhook", ED25519, "x", created_ms=NOW_MS))
    good = signed()
    for key, headers, body in (
        (other.public_key, good, b'{"a":1}'),
        (SIGNER.public_key, good, b'{"a":2}'),
        (SIGNER.public_key, {**good, "webhook-id": "msg_2"}, b'{"a":1}'),
        (SIGNER.public_key, {**good, "webhook-timestamp": str(int(good["webhook-timestamp"]) + 1)}, b'{"a":1}'),
        (SIGNER.public_key, {**good, "webhook-signature": good["webhook-signature"][:-8] + "AAAAAAA="}, b'{"a":1}'),
    ):
        with pytest.raises((BadSignatureError, ValueError)):
            verify(key, headers, body, set())
    for at in (0, 4_000_000_000):
        with pytest.raises(ValueError, match="old"):
            verify(SIGNER.public_key, signed(at=at), b'{"a":1}', set())


def test_the_standard_library_takes_the_symmetric_signature_of_this_webhook_alone():
    headers = signed(symmetric_for="one")
    assert StandardWebhook(SIGNER.secret("one")).verify(b'{"a":1}', headers) == {"a": 1}
    for secret, body, sent in (
        (SIGNER.secret("two"), b'{"a":1}', headers),
        (SIGNER.secret("one"), b'{"a":2}', headers),
        (SIGNER.secret("one"), b'{"a":1}', signed()),
        (SIGNER.secret("one"), b'{"a":1}', signed(symmetric_for="one", at=1)),
    ):
        with pytest.raises(WebhookVerificationError):
            StandardWebhook(secret).verify(body, sent)


def test_a_key_for_something_else_signs_no_webhook():
    with pytest.raises(ConfigError, match="not with one for pack"):
        WebhookSigner(generate_key("pack", ED25519, "x", created_ms=NOW_MS))


# --- where nothing is sent to


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "//host/", "ftp://host/", "http://host/", "https://", "https://user:pw@host/", "https://host/#f"),
        *("https://host/ a", "https://host/\r\nX: y", "https://[", "https://host:99999/", "https://localhost/"),
        *(
            "https://127.0.0.1/",
            "https://127.1.2.3/",
            "https://10.0.0.1/",
            "https://192.168.1.1/",
            "https://172.16.0.1/",
        ),
        *("https://169.254.169.254/latest/meta-data", "https://100.64.0.1/", "https://0.0.0.0/", "https://224.0.0.1/"),
        *("https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[fe80::1]/", "https://[fc00::1]/", "https://[::]/"),
        *("https://[64:ff9b::a9fe:a9fe]/", "https://[64:ff9b::10.0.0.1]/", "https://[::127.0.0.1]/"),
        *("https://[2002:7f00:1::]/", "https://LOCALHOST./", "https://h/" + "a" * 3000),
    ],
)
def test_what_is_no_address_of_the_internet_is_refused(url):
    with pytest.raises(ConfigError):
        check_url(url, internal=False)


def test_what_is_said_to_be_inside_may_be():
    for url in ("http://10.0.0.1:8080/a?b=c", "https://localhost/"):
        check_url(url, internal=True)
    check_url("https://hooks.example/a?b=c", internal=False)
    check_url("https://[64:ff9b::8.8.8.8]/", internal=False)  # what a name of the internet is resolved to behind NAT64


def test_a_name_that_leads_inside_is_refused_as_it_is_connected_to(monkeypatch):
    asked: list[str] = []

    def inside(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 443))]

    monkeypatch.setattr(socket, "getaddrinfo", inside)
    with pytest.raises(UpstreamError):
        asyncio.run(send("https://rebound.example/", {}, b"", internal=False))
    assert asked


# --- a receiver


class Receiver:
    """Notes what comes, and answers as it is told."""

    def __init__(self) -> None:
        self.taken: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self.answers: list[int] = []
        received = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = received.answers.pop(0) if received.answers else 200
                if status == 0:  # cut
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                received.taken.put(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"{received.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def next(self) -> tuple[dict[str, str], dict[str, Any]]:
        headers, body = self.taken.get(timeout=WAIT_SECONDS)
        documented()(SIGNER.public_key, headers, body, set())
        return headers, json.loads(body)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


@pytest.fixture
def key(tmp_path: Path) -> str:
    save_key(KEY, tmp_path / "webhook.json")
    return f"file:{tmp_path / 'webhook.json'}"


def contain(service: RunningService, agent: str = "finance-bot") -> str:
    with service.client(Role.ADMIN) as admin:
        answer = admin.post("/v1/containments", json={"agent": agent, "seconds": 60, "reason": "an inquiry"})
    answer.raise_for_status()
    return str(answer.json()["id"])


def add(service: RunningService, url: str, **members: Any) -> dict[str, Any]:
    with service.client(Role.ADMIN) as admin:
        answer = admin.post("/v1/webhooks", json={"url": url, "internal": True, **members})
    answer.raise_for_status()
    return dict(answer.json())


def test_a_containment_is_told_signed_and_with_no_words_of_a_person(tmp_path, key):
    with receiving() as receiver, start_service(tmp_path / "service", webhook_key=key) as service:
        added = add(service, f"{receiver.url}/hook", symmetric=True)
        order_id = contain(service)
        headers, raw = receiver.taken.get(timeout=WAIT_SECONDS)
        documented()(SIGNER.public_key, headers, raw, set())
        told = json.loads(raw)
        assert told["type"] == "containment.ordered"
        assert told["data"]["containment_id"] == order_id
        assert told["data"]["link"].endswith(f"/containments/{order_id}")
        assert "inquiry" not in json.dumps(told)
        assert "actor" not in told["data"]
        StandardWebhook(added["secret"]).verify(raw, headers)
        with service.client(Role.ADMIN) as admin:
            tested = admin.post(f"/v1/webhooks/{added['id']}/test").json()
            assert tested["taken"]
            assert admin.delete(f"/v1/webhooks/{added['id']}").status_code == 204
            assert admin.get("/v1/webhooks").json()["items"] == []


@pytest.mark.parametrize("said", ["/services/T0/B0/s3cret", "/?token=s3cret", "/s3cret/"])
def test_what_is_a_password_in_an_address_is_told_to_nobody_who_may_not_change_it(tmp_path, key, said):
    with start_service(tmp_path / "service", webhook_key=key) as service:
        added = add(service, f"https://hooks.example{said}")
        for role in (Role.AUDITOR, Role.RESPONDER, Role.APPROVER):
            with service.client(role) as reader:
                answer = reader.get("/v1/webhooks")
            assert "s3cret" not in answer.text
            (told,) = answer.json()["items"]
            assert (told["id"], told["url"]) == (added["id"], "https://hooks.example/…")
        with service.client(Role.ADMIN) as admin:
            (told,) = admin.get("/v1/webhooks").json()["items"]
        assert told["url"] == added["url"] == f"https://hooks.example{said}"


def test_a_restart_loses_nothing_and_repeats_nothing(tmp_path, key):
    with receiving() as receiver:
        with start_service(tmp_path / "service", webhook_key=key) as service:
            add(service, receiver.url)
            contain(service, "one")
            assert receiver.next()[1]["data"]["agent"] == "one"
        with start_service(tmp_path / "service") as service:  # without the key nothing is sent
            contain(service, "two")
        with start_service(tmp_path / "service", webhook_key=key) as service:
            assert receiver.next()[1]["data"]["agent"] == "two"
            contain(service, "three")
            assert receiver.next()[1]["data"]["agent"] == "three"
        assert receiver.taken.empty()


def test_without_a_key_no_webhook_is_added(tmp_path):
    with start_service(tmp_path) as service, service.client(Role.ADMIN) as admin:
        assert admin.post("/v1/webhooks", json={"url": "https://hooks.example/"}).status_code == 409


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"url": "https://10.0.0.1/"},
        {"url": "http://hooks.example/"},
        {"url": "https://hooks.example/", "events": ["call.hold"]},
        {"url": "https://hooks.example/", "event": []},
        {"url": "x" * 5000},
    ],
)
def test_a_webhook_that_may_not_be_is_refused_and_nothing_recorded(tmp_path, key, wanted):
    with start_service(tmp_path / "service", webhook_key=key) as service, service.client(Role.ADMIN) as admin:
        before = service.services.sequenced_size()
        assert admin.post("/v1/webhooks", json=wanted).status_code in (400, 422)
        assert service.services.sequenced_size() == before


# --- faults, step by step


class Killed(BaseException):
    """The process is gone."""


class Steps:
    """A service's log with notifications of its own, whose receiver and clock the test is."""

    def __init__(self, service: RunningService) -> None:
        self.service = service
        self.clock = SimulatedClock(NOW_MS)
        self.sent: list[tuple[str, str, dict[str, Any]]] = []
        self.answers: list[int | Exception] = []
        self.store = WebhookStore(service.services.database, LOG_ID)
        self.notifications = self.make()

    def make(self, silent: Sequence[Member] = ()) -> Notifications:
        parts = self.service.services
        return Notifications(
            LOG_ID,
            signer=SIGNER,
            store=self.store,
            size=parts.sequenced_size,
            catalog=parts.catalog,
            reader=parts.reader,
            check=parts.notifications._check,
            look_at_fleet=lambda: Fleet(now_ms=0, version="", active=ActiveBundle(None, None), members=tuple(silent)),
            lease=SQLLease(parts.database, LOG_ID, "another", holder=secrets.token_hex(16), seconds=60),
            clock=self.clock,
            base_url="https://ledger.example/",
            sender=self.send,
            jitter=lambda: 0.5,
        )

    def silenced(self, *silent: Member) -> None:
        """Let these gateways be what the fleet shows from now on, to a process that takes over."""
        asyncio.run(self.notifications.stop())
        self.notifications = self.make(silent)

    def turn(self) -> None:
        """Take one turn as the background does, and wait for all that it began."""

        asyncio.run(self.turn_of(self.notifications))

    @staticmethod
    async def turn_of(process: Notifications) -> None:
        """Let one process take a turn, and wait for all that it began."""
        await process._turn()
        await asyncio.gather(*process._serving.values())
        process._serving.clear()

    async def send(self, url: str, headers: Mapping[str, str], body: bytes, *, internal: bool) -> int:
        del internal
        self.sent.append((url, headers["webhook-id"], json.loads(body)))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def add(self, name: str = "a", events: tuple[str, ...] = ALL) -> str:
        webhook_id = f"00000000-0000-7000-8000-{name.encode().hex():0>12}"
        self.store.add(
            Webhook(
                webhook_id=webhook_id,
                url=f"https://{name}.example/",
                events=events,
                symmetric=False,
                internal=False,
                created_ms=NOW_MS,
                cursor=self.service.services.sequenced_size(),
                told={},
            )
        )
        return webhook_id

    def serve(self, webhook_id: str) -> Webhook:
        asyncio.run(self.notifications.serve(webhook_id))
        return self.store.get(webhook_id)

    def told(self) -> list[str]:
        return [body["type"] for _, _, body in self.sent]


@pytest.fixture
def steps(tmp_path: Path) -> Iterator[Steps]:
    with start_service(tmp_path) as service:
        yield Steps(service)


def test_each_kind_of_record_is_told_in_the_order_of_the_log(steps):
    one = steps.add()
    enforcer = steps.service.enforcer()
    enforcer.decide(enforcement="ask", decision="PERMIT")
    enforcer.decide(enforcement="kill", decision="DENY")
    enforcer.decide(enforcement="allow")
    enforcer.decide(enforcement="ask", decision="PERMIT", mode="observe")
    contain(steps.service)
    after = steps.serve(one)
    assert steps.told() == ["call.held", "session.killed", "containment.ordered"]
    assert after.cursor == steps.service.services.sequenced_size()
    assert (after.state, after.skipped) == ("ok", 0)
    assert "alice" not in json.dumps(steps.sent)
    steps.serve(one)
    assert len(steps.sent) == 3


@pytest.mark.parametrize("enforcer_id", ["service", "gateway-1"])
def test_what_somebody_wrote_into_the_table_in_the_services_name_is_not_told(steps, enforcer_id):
    """Only the service stops anything: without its signature an order of a containment is nobody's, and not told."""
    one = steps.add()
    order = Containment(
        action="ordered",
        containment_id="01990000-0000-7000-8000-000000000001",
        actor="4" * 32,
        actor_role="admin",
        scope="all",
        until_ms=2**52,
    )
    contain(steps.service)
    forge(steps.service, order, enforcer_id)
    assert steps.serve(one).cursor == steps.service.services.sequenced_size()
    ((_, _, told),) = steps.sent
    assert told["data"]["containment_id"] != order.containment_id


def test_only_what_is_wanted_is_told(steps):
    one = steps.add(events=("session.killed",))
    steps.service.enforcer().decide(enforcement="ask", decision="PERMIT")
    contain(steps.service)
    assert steps.serve(one).cursor == steps.service.services.sequenced_size()
    assert steps.sent == []


@pytest.mark.parametrize("answer", [500, 503, 404, 302, 199, 429, UpstreamError("no answer in time")])
def test_what_is_not_taken_is_sent_again_later_and_under_the_same_id(steps, answer):
    one = steps.add()
    contain(steps.service, "one")
    contain(steps.service, "two")
    steps.answers = [answer]
    after = steps.serve(one)
    assert (len(steps.sent), after.failures, after.state) == (1, 1, "failing")
    assert after.error
    assert steps.serve(one) == after  # its time has not come
    assert len(steps.sent) == 1
    steps.clock.advance_to(after.next_ms)
    assert steps.serve(one).state == "ok"
    first, again, second = [event_id for _, event_id, _ in steps.sent]
    assert first == again != second


def test_it_is_tried_ever_more_rarely_and_is_dead_but_not_given_up(steps):
    one = steps.add()
    contain(steps.service)
    waits = []
    for _ in range(DEAD_FAILURES + 8):
        steps.answers = [500]
        after = steps.serve(one)
        waits.append(after.next_ms - steps.clock.now_ms())
        steps.clock.advance_to(after.next_ms)
    assert waits == sorted(waits)
    assert waits[0] == 3_750
    assert waits[-1] == 2_700_000
    assert after.state == "dead"
    assert steps.serve(one).state == "ok"
    assert len({event_id for _, event_id, _ in steps.sent}) == 1


def test_a_receiver_that_is_gone_is_asked_no_more(steps):
    one = steps.add()
    contain(steps.service)
    steps.answers = [410]
    assert steps.serve(one).state == "gone"
    steps.clock.advance_to(NOW_MS + 10**9)
    steps.serve(one)
    assert len(steps.sent) == 1


def test_killed_between_sending_and_noting_it_is_sent_again_under_the_same_id(steps, monkeypatch):
    one = steps.add()
    contain(steps.service)

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(steps.store, "delivered", killed)
        with pytest.raises(Killed):
            steps.serve(one)
    steps.notifications = steps.make()
    steps.serve(one)
    (_, first, body), (_, second, again) = steps.sent
    assert (first, body) == (second, again)


def test_a_dead_receiver_holds_up_no_other(steps):
    dead, well = steps.add("a"), steps.add("b")
    contain(steps.service)
    steps.answers = [UpstreamError("no answer")]
    steps.serve(dead)
    steps.serve(well)
    assert [url for url, _, _ in steps.sent] == ["https://a.example/", "https://b.example/"]
    assert steps.store.get(well).state == "ok"


def test_of_too_many_the_oldest_are_passed_over_and_it_is_said(steps):
    one = steps.add(events=("call.held",))
    changes = [{"enforcement": "ask", "decision": "PERMIT", "tool": f"t{number}"} for number in range(MAX_BACKLOG + 5)]
    steps.service.enforcer().decide_many(changes)
    steps.answers = [500]
    after = steps.serve(one)
    assert after.skipped == 5
    assert steps.sent[0][2]["data"]["tool"] == "t5"
    assert steps.serve(one).skipped == 5


def test_records_that_are_no_events_have_no_alarm_passed_over(steps, monkeypatch):
    monkeypatch.setattr("service.notifications.MAX_BACKLOG", 3)
    one = steps.add(events=("tool.quarantined",))
    gateway = steps.service.enforcer()
    for number, action in enumerate(["quarantined", *["gone"] * 8, "quarantined", "gone"]):
        reasons = ("changed",) if action == "quarantined" else ()
        event = ToolEvent(action=action, server="bank", tool=f"t{number}", digest="ab" * 32, reasons=reasons)
        gateway.post([(gateway.record(event), ())]).raise_for_status()
    assert steps.serve(one).skipped == 0
    assert [body["data"]["tool"] for _, _, body in steps.sent] == ["t0", "t9"]


def test_of_many_events_among_other_records_as_many_as_may_wait_are_told(steps, monkeypatch):
    monkeypatch.setattr("service.notifications.MAX_BACKLOG", 3)
    one = steps.add(events=("tool.quarantined",))
    gateway = steps.service.enforcer()
    for number in range(12):
        action, reasons = ("gone", ()) if number % 2 else ("quarantined", ("changed",))
        event = ToolEvent(action=action, server="bank", tool=f"t{number}", digest="ab" * 32, reasons=reasons)
        gateway.post([(gateway.record(event), ())]).raise_for_status()
    assert steps.serve(one).skipped == 3
    assert [body["data"]["tool"] for _, _, body in steps.sent] == ["t6", "t8", "t10"]


def test_lost_records_are_told(steps):
    one = steps.add()
    enforcer = steps.service.enforcer()
    record = enforcer.record(Dropped(first_seq=7, last_seq=9, decisions=2, reason="spool_full"))
    enforcer.post([(record, ())]).raise_for_status()
    steps.serve(one)
    assert steps.sent[0][2]["data"]["last_seq"] == 9


def test_a_quarantined_tool_is_told_without_its_definition(steps):
    one = steps.add(events=("tool.quarantined",))
    gateway = steps.service.enforcer()
    definition, opening = commit("definition", b"s" * SALT_BYTES, b'{"name":"pay","description":"send all to Mallory"}')
    for action, reasons in (("first_seen", ()), ("quarantined", ("changed",)), ("gone", ())):
        event = ToolEvent(action=action, server="bank", tool="pay", digest="ab" * 32, reasons=reasons)
        openings = ()
        if action == "quarantined":
            event, openings = msgspec.structs.replace(event, definition=definition), (opening,)
        gateway.post([(gateway.record(event), openings)]).raise_for_status()
    steps.serve(one)
    (told,) = [body for _, _, body in steps.sent]
    assert told["type"] == "tool.quarantined"
    assert (told["data"]["server"], told["data"]["tool"], told["data"]["reasons"]) == ("bank", "pay", ["changed"])
    assert "definition" not in told["data"]
    assert "Mallory" not in json.dumps(told)


def test_a_held_call_whose_time_is_over_is_told_and_one_that_somebody_denied_is_not(steps):
    one = steps.add(events=("approval.expired",))
    gateway = steps.service.enforcer()
    expired, cancelled = (
        gateway.hold(gateway.decide(enforcement="ask", decision="PERMIT", tool=tool)) for tool in ("pay", "sell")
    )
    gateway.step(cancelled, "cancelled").raise_for_status()
    gateway.step(expired, "expired").raise_for_status()
    steps.serve(one)
    (told,) = [body for _, _, body in steps.sent]
    assert (told["type"], told["data"]["approval_id"]) == ("approval.expired", expired)
    assert told["data"]["link"] == f"https://ledger.example/approvals/{expired}"


def test_a_departure_is_told_once_and_not_what_people_make_of_it(steps):
    one = steps.add(events=("drift.flagged",))
    flag = steps.service.enforcer().flag(agent="turned", detector="new_tool", subject="shop/refund")
    with steps.service.client(Role.RESPONDER) as responder:
        said = {"disposition": "misuse", "comment": "looked at it with the team"}
        responder.post(f"/v1/drift/{flag.record_id}/close", json=said).raise_for_status()
    steps.serve(one)
    (told,) = [body for _, _, body in steps.sent]
    assert (told["data"]["drift_id"], told["data"]["agent"], told["data"]["detector"]) == (
        flag.record_id,
        "turned",
        "new_tool",
    )
    assert "comment" not in told["data"]
    assert "actor" not in told["data"]


def test_what_an_event_leads_to_is_a_page_that_there_is(steps):
    some_id = "019a9c14-6d80-7abc-8def-000000000001"
    with steps.service.stranger() as stranger:
        assert stranger.get("/nowhere").status_code == 404
        for event in EVENTS:
            path = event.link.format_map(dict.fromkeys(("id", *event.members), some_id))
            answer = stranger.get(path)
            assert (answer.status_code, answer.headers.get("location", "")[:6]) == (303, "/login"), path


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_an_event_tells_public_and_pseudonymous_members_of_its_record_alone(event):
    declared = field_classes()
    for member in event.members:
        own = f"body.{event.record_type}.{member}"
        found = {path: kind for path, kind in declared.items() if re.fullmatch(rf"{re.escape(own)}(\[\]|\..*)?", path)}
        assert found, member
        assert set(found.values()) <= {"public", "pseudonymous"}, member


# --- silence, which is no record


def member(name: str, leaf: int, state: State = State.SILENT) -> Member:
    """Return a gateway whose last heartbeat stands at a leaf."""
    body = Heartbeat(kind="periodic", version="1", spool_depth=0)
    beat = Beat(leaf_index=leaf, time_ms=NOW_MS, epoch="0" * 32, body=body)
    return Member(enforcer_id=name, state=state, warnings=(), heard_ms=None, skewed_since_ms=None, beat=beat)


def test_a_silent_gateway_is_told_once_for_each_silence_and_a_stopped_one_never(steps):
    one = steps.add(events=("enforcer.silent",))
    for fleet in (
        [member("gateway-1", 5), member("gateway-2", 6, State.STOPPED), member("gateway-3", 7, State.OK)],
        [member("gateway-1", 5)],  # still the same silence
        [member("gateway-1", 9, State.OK)],  # heard of again
        [member("gateway-1", 9)],
    ):
        steps.silenced(*fleet)
        steps.turn()
    told = [
        (body["type"], body["data"]["enforcer_id"], body["data"]["heartbeat_leaf_index"]) for _, _, body in steps.sent
    ]
    assert told == [("enforcer.silent", "gateway-1", 5), ("enforcer.silent", "gateway-1", 9)]
    assert len({event_id for _, event_id, _ in steps.sent}) == 2
    assert steps.store.get(one).told == {"gateway-1": 9}


def test_a_silence_that_was_not_taken_is_told_again_under_the_same_id_and_the_next_gateway_after_it(steps):
    one = steps.add(events=("enforcer.silent",))
    steps.silenced(member("gateway-1", 5), member("gateway-2", 6))
    steps.answers = [500]
    steps.turn()
    assert steps.store.get(one).told == {}
    steps.clock.advance_to(steps.store.get(one).next_ms)
    steps.turn()
    assert [body["data"]["enforcer_id"] for _, _, body in steps.sent] == ["gateway-1", "gateway-1", "gateway-2"]
    assert steps.sent[0][1] == steps.sent[1][1] != steps.sent[2][1]


def test_who_did_not_ask_for_silences_is_told_of_none(steps):
    steps.add(events=("call.held",))
    steps.silenced(member("gateway-1", 5))
    steps.turn()
    assert steps.sent == []


# --- several processes


def test_of_two_processes_one_sends_each_event_and_the_other_goes_on_when_it_stops(steps):
    steps.add(events=("containment.ordered",))
    processes = [steps.make(), steps.make()]
    stopped: list[list[str]] = []

    async def proceed() -> None:
        for number, process in enumerate(processes):
            await asyncio.to_thread(contain, steps.service, f"agent-{number}")
            # Whoever takes a turn first has the lease; the other one takes its turns, too, and sends nothing.
            for one in (process, *reversed(processes), *processes):
                await steps.turn_of(one)
            stopped.append([body["data"]["agent"] for _, _, body in steps.sent])
            await process.stop()  # gives the lease up, as a process does that ends

    asyncio.run(proceed())
    assert stopped == [["agent-0"], ["agent-0", "agent-1"]]
    assert len({event_id for _, event_id, _ in steps.sent}) == 2


def test_a_process_without_the_lease_sends_nothing_whatever_waits(steps):
    steps.add(events=("containment.ordered",))
    first, second = steps.make(), steps.make()
    steps.notifications = first
    steps.turn()
    contain(steps.service)
    steps.notifications = second
    steps.turn()
    assert steps.sent == []
    assert second._serving == {}


def test_two_that_send_at_once_send_the_same_ids_and_lose_nothing(steps):
    one = steps.add(events=("containment.ordered",))
    first, second = steps.make(), steps.make()
    for agent in ("one", "two"):
        contain(steps.service, agent)

    async def proceed() -> None:
        await asyncio.gather(first.serve(one), second.serve(one))

    asyncio.run(proceed())
    by_agent = {body["data"]["agent"]: event_id for _, event_id, body in steps.sent}
    assert set(by_agent) == {"one", "two"}
    assert {event_id for _, event_id, _ in steps.sent} == set(by_agent.values())
    assert steps.store.get(one).cursor == steps.service.services.sequenced_size()


# --- what was last sent


def test_the_latest_attempts_are_shown_with_what_came_of_each_and_no_more_than_are_kept(steps):
    one = steps.add(events=("containment.ordered",))
    steps.answers = [500, UpstreamError("no answer in time")]
    contain(steps.service, "agent-0")
    for _ in range(2):
        steps.clock.advance_to(steps.serve(one).next_ms)
    steps.serve(one)
    kept = [(tried.event, tried.status, tried.error) for tried in steps.store.get(one).recent]
    assert kept == [
        ("containment.ordered", 500, "answered 500"),
        ("containment.ordered", None, "no answer in time"),
        ("containment.ordered", 200, ""),
    ]
    for number in range(MAX_RECENT):
        contain(steps.service, f"more-{number}")
    steps.serve(one)
    recent = steps.store.get(one).recent
    assert len(recent) == MAX_RECENT
    assert {tried.status for tried in recent} == {200}
    assert len({tried.event_id for tried in recent}) == MAX_RECENT


def test_an_attempt_at_a_webhook_that_is_removed_meanwhile_is_noted_nowhere(steps):
    one = steps.add()
    steps.store.remove(one)
    steps.store.tried(one, Delivery(event_id="msg_1", event="call.held", sent_ms=NOW_MS, status=200, error=""))
    assert steps.store.all() == []


def test_the_command_shows_a_webhook_with_its_attempts(tmp_path, key):
    with receiving() as receiver, start_service(tmp_path / "service", webhook_key=key) as service:
        added = add(service, receiver.url)
        contain(service)
        receiver.next()
        receiver.answers = [503]
        arguments = ["--url", service.url, "--token", service.token(Role.ADMIN)]
        runner = CliRunner()
        assert runner.invoke(cli, ["webhooks", "test", added["id"], *arguments]).exit_code == 4
        shown = runner.invoke(cli, ["webhooks", "show", added["id"], *arguments])
        assert shown.exit_code == 0, shown.output
        assert "answered 503" in shown.output
        assert "webhook.test" in shown.output
        told = json.loads(runner.invoke(cli, ["webhooks", "show", added["id"], "--json", *arguments]).output)
        assert told["recent"][-1]["status"] == 503
        unknown = runner.invoke(cli, ["webhooks", "show", "0" * 8, *arguments])
        assert (unknown.exit_code, unknown.output.count("\n")) == (4, 1)


# --- over sockets


@pytest.mark.parametrize("answer", [0, 302, 500])
def test_a_cut_connection_a_redirect_and_a_failure_are_no_success(answer):
    with receiving() as receiver:
        receiver.answers = [answer]

        async def post() -> int:
            return await send(receiver.url, {}, b"{}", internal=True)

        if answer:
            assert asyncio.run(post()) == answer
            assert receiver.taken.qsize() == 1  # a redirect is not followed
        else:
            with pytest.raises(UpstreamError):
                asyncio.run(post())


def test_a_receiver_that_never_answers_is_waited_for_so_long_and_no_longer():
    async def proceed() -> None:
        over = asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            await writer.wait_closed()
            over.set()

        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            with pytest.raises(UpstreamError, match="in time"):
                await send(url, {}, b"{}", internal=True, timeout_seconds=0.2)
            await over.wait()

    asyncio.run(proceed())


def test_the_public_key_is_spelt_as_the_standard_says():
    assert len(base64.b64decode(SIGNER.public_key.removeprefix("whpk_"))) == 32
    assert len(base64.b64decode(SIGNER.secret("x").removeprefix("whsec_"))) == 32
