"""Sessions of the stateful revisions, byte by byte: whose they are, what belongs to them, and what does not pass."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web

from enforcement.gateway import Gateway
from ledger.bodies import Decision, Outcome
from policies.model import DecisionRequest, Effect
from tests.support.gateway import Surroundings, surroundings

STATEFUL = "2025-11-25"
INITIALIZE = {"protocolVersion": STATEFUL, "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}


def message(method: str | None = None, request_id: object = None, **members: Any) -> bytes:
    envelope: dict[str, Any] = {"jsonrpc": "2.0"}
    if request_id is not None:
        envelope["id"] = request_id
    if method is not None:
        envelope["method"] = method
    return json.dumps({**envelope, **members}).encode()


def event(data: bytes | str, event_id: str | None = None) -> bytes:
    text = data if isinstance(data, str) else data.decode()
    return (f"id: {event_id}\n" if event_id is not None else "").encode() + f"data: {text}\n\n".encode()


@dataclass
class RawServer:
    """A server that says exactly what a test has it say, and keeps what it hears."""

    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    session: str | None = "server-secret"
    revision: str = STATEFUL
    script: list[bytes | asyncio.Event] = field(default_factory=list)
    listening: list[bytes | asyncio.Event] = field(default_factory=list)
    status: dict[str, int] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.heard.append((request.method, {k.lower(): v for k, v in request.headers.items()}, body))
        status = self.status.get(request.method)
        if status is not None:
            return web.Response(status=status)
        if request.method == "DELETE":
            return web.Response()
        if request.method == "GET":
            return await self._stream(request, self.listening)
        return await self._answer(request, json.loads(body))

    async def _answer(self, request: web.Request, asked: dict[str, Any]) -> web.StreamResponse:
        if asked.get("method") == "initialize":
            result = {"protocolVersion": self.revision, "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
            headers = {} if self.session is None else {"Mcp-Session-Id": self.session}
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": result}
            return web.json_response(answer, headers=headers)
        if "id" not in asked or "method" not in asked:
            return web.Response(status=202)
        if asked["method"] == "tools/call":
            return await self._stream(request, self.script)
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": {}})

    @staticmethod
    async def _stream(request: web.Request, script: list[bytes | asyncio.Event]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for step in script:
            if isinstance(step, asyncio.Event):
                await step.wait()
            else:
                await response.write(step)
        return response

    def posts(self) -> list[dict[str, Any]]:
        return [json.loads(body) for verb, _, body in self.heard if verb == "POST"]


@dataclass
class Peer:
    """A client that sends what a test has it send."""

    http: httpx2.AsyncClient
    url: str
    session: str | None = None

    def headers(self, **more: str | None) -> dict[str, str]:
        lines = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": STATEFUL,
            "mcp-session-id": self.session,
            **{name.replace("_", "-"): value for name, value in more.items()},
        }
        return {name: value for name, value in lines.items() if value is not None}

    async def post(self, body: bytes, **more: str | None) -> httpx2.Response:
        return await self.http.post(self.url, content=body, headers=self.headers(**more))

    async def begin(self) -> httpx2.Response:
        answer = await self.post(message("initialize", 0, params=INITIALIZE), mcp_session_id=None)
        self.session = answer.headers.get("mcp-session-id")
        return answer


@dataclass
class Scene:
    world: Surroundings
    server: RawServer
    peer: Peer
    stranger: Peer
    gateway: Gateway

    async def refused(self, answer: httpx2.Response, status: int, reason: str) -> Decision:
        """Check that the client is told, and that it is recorded; return the record."""
        data = answer.json()["error"]["data"]
        assert (answer.status_code, data["reason"]) == (status, reason)
        ledger = self.world.ledger
        await self.world.settle(lambda: data["decision_id"] in ledger.decision_ids(None))
        decision = ledger.decisions(None)[ledger.decision_ids(None).index(data["decision_id"])]
        assert (decision.reason, decision.enforcement) == (reason, "deny")
        return decision

    def outcome_of(self, method: str) -> Outcome:
        (record_id,) = self.world.ledger.decision_ids(method)
        (outcome,) = self.world.ledger.outcomes(record_id)
        return outcome


@asynccontextmanager
async def scene(directory: Path, **options: Any) -> AsyncIterator[Scene]:
    server = RawServer()
    app = web.Application()
    app.router.add_route("*", "/mcp", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        strict = {"recording": "strict"}  # so that the ledger has what a client has the answer to
        async with surroundings(directory, server=strict, **options) as world:
            world.upstream = f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
            async with world.running() as gateway, world.http() as one, world.http("Support-Bot") as other:
                yield Scene(world, server, Peer(one, world.mcp_url), Peer(other, world.mcp_url), gateway)
    finally:
        await runner.cleanup()


def play(directory: Path, scenario: Any, **options: Any) -> None:
    async def run() -> None:
        async with scene(directory, **options) as stage:
            await scenario(stage)

    asyncio.run(run())


PING = message("ping", 1)


def test_the_servers_name_of_a_session_never_reaches_a_client_and_the_clients_never_the_server(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        answer = await stage.peer.begin()
        assert stage.peer.session is not None
        assert "server-secret" not in answer.text + str(answer.headers)
        assert (await stage.peer.post(PING)).status_code == 200
        _, headers, _ = stage.server.heard[-1]
        assert headers["mcp-session-id"] == "server-secret"
        assert all(stage.peer.session not in str(heard) for heard in stage.server.heard)

    play(tmp_path, scenario)


def test_a_session_is_there_for_its_own_principal_alone(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        await stage.peer.begin()
        heard = len(stage.server.heard)
        stage.stranger.session = stage.peer.session
        for answer in (
            await stage.stranger.post(PING),
            await stage.stranger.http.get(stage.world.mcp_url, headers=stage.stranger.headers()),
            await stage.stranger.http.delete(stage.world.mcp_url, headers=stage.stranger.headers()),
            await stage.peer.post(PING, mcp_session_id="server-secret"),
            await stage.peer.post(PING, mcp_session_id="guessed"),
        ):
            await stage.refused(answer, 404, "unknown_session")
        assert len(stage.server.heard) == heard
        assert (await stage.peer.post(PING)).status_code == 200

    play(tmp_path, scenario)


def test_a_message_of_a_session_is_of_its_revision(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        await stage.peer.begin()
        assert (await stage.peer.post(PING, mcp_protocol_version=None)).status_code == 200
        assert [one.protocol_version for one in stage.world.ledger.decisions("ping")] == [STATEFUL]
        await stage.refused(await stage.peer.post(PING, mcp_protocol_version="2025-06-18"), 400, "header_mismatch")
        await stage.refused(await stage.peer.post(b"[" + PING + b"]"), 400, "batch")

    play(tmp_path, scenario, protocol={"revisions": [STATEFUL, "2025-06-18"]})


@pytest.mark.parametrize("revision", ["2025-06-18", "2026-07-28", "nonsense"])
def test_a_server_that_chooses_a_revision_that_does_not_pass_gets_no_session(tmp_path: Path, revision: str) -> None:
    async def scenario(stage: Scene) -> None:
        stage.server.revision = revision
        answer = await stage.peer.begin()
        assert answer.json()["error"]["data"]["reason"] == "unsupported_protocol"
        await stage.world.settle(lambda: stage.server.heard[-1][0] == "DELETE")
        assert stage.outcome_of("initialize").reason == "unsupported_protocol"
        if stage.peer.session is not None:
            assert (await stage.peer.post(PING)).status_code == 404

    play(tmp_path, scenario)


def test_a_session_that_is_ended_is_there_for_nobody(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        await stage.peer.begin()
        ended = await stage.peer.http.delete(stage.world.mcp_url, headers=stage.peer.headers())
        assert ended.status_code == 200
        assert stage.server.heard[-1][1]["mcp-session-id"] == "server-secret"
        assert (await stage.peer.post(PING)).status_code == 404

    play(tmp_path, scenario)


def test_a_session_that_its_server_does_not_end_goes_on(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        await stage.peer.begin()
        stage.server.status["DELETE"] = 405
        refused = await stage.peer.http.delete(stage.world.mcp_url, headers=stage.peer.headers())
        assert refused.status_code == 405
        assert (await stage.peer.post(PING)).status_code == 200

    play(tmp_path, scenario)


def test_a_session_that_the_server_has_lost_is_lost_here(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        await stage.peer.begin()
        stage.server.status["POST"] = 404
        assert (await stage.peer.post(PING)).status_code == 404
        assert stage.outcome_of("ping").reason == "upstream_session_ended"
        stage.server.status.clear()
        assert (await stage.peer.post(PING)).json()["error"]["data"]["reason"] == "unknown_session"

    play(tmp_path, scenario)


def test_a_session_that_a_policy_does_not_let_end_or_listen_says_so(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        await stage.peer.begin()
        heard = len(stage.server.heard)
        for verb in ("GET", "DELETE"):
            denied = await stage.peer.http.request(verb, stage.world.mcp_url, headers=stage.peer.headers())
            assert (denied.status_code, denied.json()["id"]) == (403, None)
        assert len(stage.server.heard) == heard

    def answer(request: DecisionRequest) -> dict[str, Any]:
        return {"effect": Effect.DENY if request.action.startswith("transport/") else Effect.PERMIT}

    play(tmp_path, scenario, answer=answer)


def test_more_sessions_than_a_principal_may_have_are_refused(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        assert (await stage.peer.begin()).status_code == 200
        full = await stage.peer.begin()
        assert (full.status_code, full.json()["error"]["data"]["reason"]) == (503, "overloaded")
        assert (await stage.stranger.begin()).status_code == 200

    play(tmp_path, scenario, protocol={"sessions_per_principal": 1})


# --- batches

MARCH = "2025-03-26"


def test_of_a_batch_each_message_is_judged_apart_and_what_is_denied_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        stage.server.script = [event(ANSWER)]
        body = b"[%s, %s,%s,%s,%s]" % (
            PING,
            message("tools/list", 2),
            message("notifications/roots/list_changed"),
            message("tools/call", 7, params={"name": "refund_customer"}),
            b'{"jsonrpc":"2.0","id":9,"method":"ping","method":"tools/call"}',
        )
        answer = await stage.peer.post(body, mcp_protocol_version=MARCH)
        lines = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert [(one["id"], "error" in one) for one in lines] == [(1, False), (2, True), (7, False), (None, True)]
        assert [post["method"] for post in stage.server.posts()] == [
            "ping",
            "notifications/roots/list_changed",
            "tools/call",
        ]
        ledger = stage.world.ledger
        await stage.world.settle(lambda: len(ledger.decisions(None)) == 5)
        assert sorted(one.reason for one in ledger.decisions(None)) == [
            "duplicate_key",
            "policy",
            "policy",
            "policy",
            "policy",
        ]

    def answer(request: DecisionRequest) -> dict[str, Any]:
        return {"effect": Effect.DENY if request.action == "tools/list" else Effect.PERMIT}

    play(tmp_path, scenario, answer=answer, protocol={"revisions": [MARCH, STATEFUL]})


def test_answers_to_a_batch_without_streams_are_one_array(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        two = await stage.peer.post(b"[" + PING + b"," + message("ping", 2) + b"]", mcp_protocol_version=None)
        assert [one["id"] for one in two.json()] == [1, 2]
        none = await stage.peer.post(b"[" + message("notifications/initialized") + b"]", mcp_protocol_version=MARCH)
        assert (none.status_code, none.content) == (202, b"")

    play(tmp_path, scenario, protocol={"revisions": [MARCH]})


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"[" + PING,
        b"[" + b",".join([PING] * 101) + b"]",
        b"[" + PING + b"] x",
        b"[[" + PING + b"]]",
        b"[" + message("initialize", 0, params={**INITIALIZE, "protocolVersion": MARCH}) + b"]",
    ],
)
def test_a_batch_that_is_none_does_not_pass(tmp_path: Path, body: bytes) -> None:
    async def scenario(stage: Scene) -> None:
        answer = await stage.peer.post(body, mcp_protocol_version=MARCH)
        told = answer.json()
        error = (told[0] if isinstance(told, list) else told)["error"]
        assert error["data"]["reason"] in ("batch", "malformed")
        assert stage.server.heard == []

    play(tmp_path, scenario, protocol={"revisions": [MARCH]})


# --- requests of the server

ASK = message("elicitation/create", "q1", params={"message": "Really?"})
ANSWER = message(None, 7, result={"content": []})
CALL = message("tools/call", 7, params={"name": "refund_customer", "arguments": {}})
YES = message(None, "q1", result={"action": "accept"})


async def reading(stage: Scene, seen: list[dict[str, Any]]) -> httpx2.Response:
    """Call, and collect what comes down the stream."""
    headers = stage.peer.headers()
    async with stage.peer.http.stream("POST", stage.world.mcp_url, content=CALL, headers=headers) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                seen.append(json.loads(line[6:]))  # noqa: PERF401  # each when it comes
        return response


def test_a_servers_request_is_answered_once_by_the_client_of_its_session(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        go_on = asyncio.Event()
        stage.server.script = [event(ASK), go_on, event(ANSWER)]
        await stage.peer.begin()
        await stage.stranger.begin()
        seen: list[dict[str, Any]] = []
        call = asyncio.create_task(reading(stage, seen))
        await stage.world.settle(lambda: len(seen) == 1)
        for peer, body in (
            (stage.stranger, YES),  # of another's session
            (stage.peer, message(None, "q2", result={})),  # to no request
            (stage.peer, message(None, 7, result={})),  # to its own
        ):
            await stage.refused(await peer.post(body), 400, "unknown_response")
        spoiled = await stage.peer.post(YES.replace(b'"action"', b'"action": "decline", "action"'))
        await stage.refused(spoiled, 400, "duplicate_key")
        before = len(stage.world.ledger.decisions(None))
        assert (await stage.peer.post(YES)).status_code == 202
        assert len(stage.world.ledger.decisions(None)) == before  # an answer is an outcome, and no decision
        await stage.refused(await stage.peer.post(YES), 400, "unknown_response")
        go_on.set()
        await call
        assert [one.get("method", "answer") for one in seen] == ["elicitation/create", "answer"]
        assert [post for post in stage.server.posts() if "result" in post] == [json.loads(YES)]
        assert stage.outcome_of("elicitation/create").status == "completed"

    play(tmp_path, scenario)


def test_a_request_under_an_id_that_waits_already_does_not_pass(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        go_on = asyncio.Event()
        other = message("sampling/createMessage", "q1", params={"messages": []})
        stage.server.script = [event(ASK), event(other), go_on, event(ANSWER)]
        await stage.peer.begin()
        seen: list[dict[str, Any]] = []
        call = asyncio.create_task(reading(stage, seen))
        await stage.world.settle(lambda: bool(stage.world.ledger.decisions("sampling/createMessage")))
        (refused,) = stage.world.ledger.decisions("sampling/createMessage")
        assert (refused.decision, refused.reason, refused.direction) == ("INDETERMINATE", "malformed", "server")
        go_on.set()
        await call
        assert [one.get("method", "answer") for one in seen] == ["elicitation/create", "answer"]

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (ASK.replace(b'"message"', b'"message": "Harmless", "message"'), "duplicate_key"),
        (ASK.replace(b'"Really?"', b'"\\ud800"'), "malformed"),
        (message("tools/call", "q1", params={"name": "refund_customer"}), "malformed"),
    ],
)
def test_a_servers_request_is_read_as_strictly_as_a_clients(tmp_path: Path, body: bytes, reason: str) -> None:
    async def scenario(stage: Scene) -> None:
        stage.server.script = [event(body), event(ANSWER)]
        await stage.peer.begin()
        seen: list[dict[str, Any]] = []
        await reading(stage, seen)
        assert ["method" in one for one in seen] == [False]
        await stage.world.settle(lambda: any("error" in post for post in stage.server.posts()))
        (refusal,) = [post for post in stage.server.posts() if "error" in post]
        assert (refusal["id"], refusal["error"]["message"]) == ("q1", "Denied")
        ledger = stage.world.ledger
        await stage.world.settle(lambda: any(one.direction == "server" for one in ledger.decisions(None)))
        assert [one.reason for one in ledger.decisions(None) if one.direction == "server"] == [reason]

    play(tmp_path, scenario)


def test_what_waits_for_a_client_that_never_answers_is_closed_with_the_session(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        stage.server.script = [event(ASK), event(ANSWER)]
        await stage.peer.begin()
        await reading(stage, [])
        await stage.peer.http.delete(stage.world.mcp_url, headers=stage.peer.headers())
        (asked,) = stage.world.ledger.decision_ids("elicitation/create")
        await stage.world.settle(lambda: bool(stage.world.ledger.outcomes(asked)))
        outcome = stage.outcome_of("elicitation/create")
        assert (outcome.status, outcome.reason) == ("cancelled", "session_ended")

    play(tmp_path, scenario)


# --- streams and cancellation


def test_a_stream_can_be_gone_on_with_after_its_own_events_alone(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        stage.server.script = [event("", "e1")]  # and no answer: it comes on another stream
        stage.server.listening = [event(message(None, 8, result={}), "e2"), event(ANSWER, "e3"), event(ANSWER, "e4")]
        await stage.peer.begin()
        await reading(stage, [])
        (call,) = stage.world.ledger.decision_ids()
        assert stage.world.ledger.outcomes(call) == []
        await stage.stranger.begin()
        for peer, other in ((stage.peer, "e9"), (stage.stranger, "e1")):
            refused = await peer.http.get(stage.world.mcp_url, headers=peer.headers(last_event_id=other))
            await stage.refused(refused, 400, "unknown_event")
        assert all(verb != "GET" for verb, _, _ in stage.server.heard)
        resumed = await stage.peer.http.get(stage.world.mcp_url, headers=stage.peer.headers(last_event_id="e1"))
        assert stage.server.heard[-1][1]["last-event-id"] == "e1"
        # The answer to no call of this session has left its place in the stream, and nothing else.
        assert [line for line in resumed.text.splitlines() if line] == [
            *("id: e2", "data: "),
            *("id: e3", "event: message", f"data: {ANSWER.decode()}"),
            *("id: e4", "event: message", f"data: {ANSWER.decode()}"),
        ]
        (outcome,) = stage.world.ledger.outcomes(call)
        assert outcome.status == "completed"

    play(tmp_path, scenario)


def test_a_call_whose_client_goes_away_is_carried_to_its_end(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        go_on = asyncio.Event()
        stage.server.script = [event(message("notifications/message", params={})), go_on, event(ANSWER)]
        await stage.peer.begin()
        seen: list[dict[str, Any]] = []
        call = asyncio.create_task(reading(stage, seen))
        await stage.world.settle(lambda: bool(seen))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        go_on.set()
        (decision,) = stage.world.ledger.decision_ids()
        await stage.world.settle(lambda: bool(stage.world.ledger.outcomes(decision)))
        assert stage.outcome_of("tools/call").status == "completed"

    play(tmp_path, scenario)


def test_a_call_is_withdrawn_by_its_own_session_alone(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        go_on = asyncio.Event()
        stage.server.script = [event(message("notifications/message", params={})), go_on]
        await stage.peer.begin()
        await stage.stranger.begin()
        seen: list[dict[str, Any]] = []
        call = asyncio.create_task(reading(stage, seen))
        await stage.world.settle(lambda: bool(seen))
        heard = len(stage.server.heard)
        cancel = message("notifications/cancelled", params={"requestId": 7})
        for peer, body in ((stage.stranger, cancel), (stage.peer, cancel.replace(b"7", b"8"))):
            await stage.refused(await peer.post(body), 403, "unknown_call")
        assert len(stage.server.heard) == heard
        assert (await stage.peer.post(cancel)).status_code == 202
        assert json.loads(stage.server.heard[-1][2])["method"] == "notifications/cancelled"
        go_on.set()
        await call
        outcome = stage.outcome_of("tools/call")
        assert (outcome.status, outcome.reason) == ("cancelled", "client_cancelled")

    play(tmp_path, scenario)


@pytest.mark.parametrize(("status", "seen"), [(405, 405), (409, 409), (500, 502), (302, 502)])
def test_a_stream_that_the_server_does_not_open_is_refused_as_it_refuses(
    tmp_path: Path, status: int, seen: int
) -> None:
    async def scenario(stage: Scene) -> None:
        await stage.peer.begin()
        stage.server.status["GET"] = status
        answer = await stage.peer.http.get(stage.world.mcp_url, headers=stage.peer.headers())
        assert answer.status_code == seen
        outcome = stage.outcome_of("transport/listen")
        assert (outcome.status, outcome.reason, outcome.http_status) == ("failed", "upstream_status", status)

    play(tmp_path, scenario)


def test_more_streams_than_may_be_open_are_refused_and_calls_go_on(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        go_on = asyncio.Event()
        stage.server.listening = [event(message("notifications/message", params={})), go_on]
        await stage.peer.begin()
        headers = stage.peer.headers()
        async with stage.peer.http.stream("GET", stage.world.mcp_url, headers=headers) as stream:
            assert stream.status_code == 200
            full = await stage.peer.http.get(stage.world.mcp_url, headers=headers)
            await stage.refused(full, 503, "overloaded")
            assert (await stage.peer.post(PING)).status_code == 200
            go_on.set()

    play(tmp_path, scenario, protocol={"streams": 1})


def test_a_server_without_sessions_needs_none(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        stage.server.session = None
        await stage.peer.begin()
        assert stage.peer.session is None
        assert (await stage.peer.post(PING)).status_code == 200
        assert "mcp-session-id" not in stage.server.heard[-1][1]

    play(tmp_path, scenario)


def test_servers_that_are_not_there_leave_nothing_behind(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        stage.server.session = None
        await stage.peer.begin()
        running = stage.gateway.core.require()
        before = len(list(running.conversations))
        for number in range(3):
            url = stage.world.mcp_url.replace("finance", f"nowhere-{number}")
            answer = await stage.peer.http.post(url, content=PING, headers=stage.peer.headers())
            await stage.refused(answer, 404, "unknown_server")
        assert len(list(running.conversations)) == before

    play(tmp_path, scenario)


def test_a_call_that_waits_for_another_stream_is_over_when_its_id_is_used_again(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        stage.server.script = [event("", "e1")]  # and no answer: it comes on another stream
        await stage.peer.begin()
        await reading(stage, [])
        await reading(stage, [])
        first, second = stage.world.ledger.decision_ids()
        await stage.world.settle(lambda: bool(stage.world.ledger.outcomes(first)))
        (outcome,) = stage.world.ledger.outcomes(first)
        assert (outcome.status, outcome.reason) == ("cancelled", "no_answer")
        await stage.peer.http.delete(stage.world.mcp_url, headers=stage.peer.headers())
        assert [one.status for one in stage.world.ledger.outcomes(second)] == ["cancelled"]

    play(tmp_path, scenario)


def test_no_more_calls_wait_for_another_stream_than_may_be_under_way(tmp_path: Path) -> None:
    async def scenario(stage: Scene) -> None:
        stage.server.script = [event("", "e1")]
        await stage.peer.begin()
        for number in range(3):
            await stage.peer.post(CALL.replace(b'"id": 7', b'"id": %d' % (70 + number)))
        closed = [len(stage.world.ledger.outcomes(one)) for one in stage.world.ledger.decision_ids()]
        assert closed == [0, 0, 1]

    play(tmp_path, scenario, limits={"concurrent_calls": 2})
