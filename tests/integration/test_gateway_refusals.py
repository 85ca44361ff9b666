"""Messages that must not pass: each is answered, recorded once, and the server never hears of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from enforcement.refusals import ErrorCode
from ledger.bodies import Decision
from tests.support.gateway import Surroundings, deny_tool, surroundings
from tests.support.mcp_messages import META, body_of, headers_of

CALL = body_of(arguments={"amount": 1})


def play(scenario: Callable[[Surroundings], Awaitable[None]], directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with surroundings(directory, **options) as world:
            await scenario(world)

    asyncio.run(run())


async def post(
    world: Surroundings, body: bytes, headers: list[tuple[bytes, bytes]], path: str = "finance"
) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=20) as http:
        return await http.post(f"{world.url}/servers/{path}/mcp", content=body, headers=headers)


def the_decision(world: Surroundings) -> tuple[str, Decision]:
    """The one decision record that there is."""
    ((record_id, decision),) = [
        (record.record_id, record.body) for record in world.ledger.records if isinstance(record.body, Decision)
    ]
    return record_id, decision


def with_params(text: str) -> bytes:
    params = b'{"_meta":%s,%s}' % (json.dumps(META).encode(), text.encode())
    return b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":%s}' % params


def good(**members: Any) -> list[tuple[bytes, bytes]]:
    return headers_of(**{"token": "finance-token", **members})


REFUSALS: dict[str, tuple[bytes, list[tuple[bytes, bytes]], int, int]] = {
    "malformed": (b'{"jsonrpc":', good(), 400, ErrorCode.PARSE_ERROR),
    "duplicate_key": (
        with_params('"name":"refund_customer","arguments":{"amount":1,"amount":100000}'),
        good(),
        400,
        ErrorCode.PARSE_ERROR,
    ),
    "ambiguous_key": (
        with_params('"name":"refund_customer","arguments":{"amount":1},"Arguments":{"amount":100000}'),
        good(),
        400,
        ErrorCode.INVALID_REQUEST,
    ),
    "duplicate_header": (CALL, [*good(), (b"mcp-name", b"transfer_funds")], 400, ErrorCode.HEADER_MISMATCH),
    "header_mismatch": (CALL, good(name="transfer_funds"), 400, ErrorCode.HEADER_MISMATCH),
    "batch": (b"[" + CALL + b"]", good(), 400, ErrorCode.INVALID_REQUEST),
    "not_a_request": (b'{"jsonrpc":"2.0","id":7,"result":{}}', good(), 400, ErrorCode.INVALID_REQUEST),
    "unsupported_protocol": (
        b'{"jsonrpc":"2.0","id":7,"method":"tools/list"}',
        good(version="2025-06-18"),
        400,
        ErrorCode.UNSUPPORTED_PROTOCOL,
    ),
    "malformed params": (
        with_params('"name":"refund_customer","arguments":{},"options":{"confirm":{"amount":100000}}'),
        good(),
        400,
        ErrorCode.INVALID_PARAMS,
    ),
    "unknown_round": (
        with_params('"name":"refund_customer","arguments":{},"inputResponses":{"confirm":{"amount":100000}}'),
        good(),
        400,
        ErrorCode.INVALID_PARAMS,
    ),
    "unsupported_media_type": (
        CALL,
        [(key, b"text/plain" if key == b"content-type" else value) for key, value in good()],
        415,
        ErrorCode.INVALID_REQUEST,
    ),
    "oversize": (b" " * 5000 + CALL, good(), 413, ErrorCode.INVALID_REQUEST),
    "origin_not_allowed": (CALL, good(extra=(("origin", "https://evil.example"),)), 403, ErrorCode.DENIED),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_message_that_cannot_be_read_in_one_way_is_refused_and_recorded_once(tmp_path: Path, reason: str) -> None:
    body, headers, status, code = REFUSALS[reason]

    async def scenario(world: Surroundings) -> None:
        async with world.running():
            answer = await post(world, body, headers)
        record_id, decision = the_decision(world)
        assert answer.status_code == status
        error = answer.json()["error"]
        assert error["code"] == code
        said = reason.partition(" ")[0]
        assert error["data"]["reason"] == said
        assert error["data"]["decision_id"] == record_id
        assert (decision.reason, decision.enforcement, decision.agent) == (said, "deny", "Finance-Bot")
        assert decision.decision == ("DENY" if reason in {"origin_not_allowed", "unknown_round"} else "INDETERMINATE")
        assert world.ledger.openings[record_id, "message"] == body[: 4096 + 1]
        assert world.tools.calls == []
        assert world.evaluator.asked == []

    play(scenario, tmp_path, limits={"body_bytes": 4096})


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_observing_lets_no_unreadable_and_no_unknown_caller_pass(tmp_path: Path, mode: str) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            for body, headers in ((CALL, good(name="transfer_funds")), (CALL, headers_of(token="wrong"))):
                assert (await post(world, body, headers)).status_code in (400, 401)
        assert [decision.mode for decision in world.ledger.decisions(None)] == ["enforce", "enforce"]
        assert world.tools.calls == []

    play(scenario, tmp_path, server={"mode": mode})


@pytest.mark.parametrize(
    "authorization",
    [None, "Bearer wrong", "Bearer", "Basic finance-token", "finance-token", "Bearer finance-token x", "twice"],
)
def test_a_caller_without_a_valid_token_is_refused_and_recorded_once(tmp_path: Path, authorization: str | None) -> None:
    async def scenario(world: Surroundings) -> None:
        lines = [] if authorization is None else [(b"authorization", authorization.encode())]
        if authorization == "twice":
            lines = [(b"authorization", b"Bearer finance-token")] * 2
        async with world.running():
            answer = await post(world, CALL, [*headers_of(), *lines])
        record_id, decision = the_decision(world)
        wrong = "" if authorization is None else ', error="invalid_token"'
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == f'Bearer realm="tallystick"{wrong}'
        assert answer.json()["error"]["data"]["decision_id"] == record_id
        assert (decision.agent, decision.decision, decision.reason) == ("unauthenticated", "DENY", "unauthenticated")
        assert decision.user is None
        assert world.tools.calls == []

    play(scenario, tmp_path)


def test_a_stranger_cannot_fill_the_ledger_with_long_messages(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            answer = await post(world, b" " * 200_000 + CALL, headers_of())
        record_id, _ = the_decision(world)
        assert answer.status_code == 401
        assert len(world.ledger.openings[record_id, "message"]) == 16_385

    play(scenario, tmp_path)


def test_a_server_that_is_not_configured_is_unknown_whatever_it_is_called(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            answer = await post(world, CALL, good(), path="john.doe@example.org")
        _, decision = the_decision(world)
        assert answer.status_code == 404
        assert (decision.server, decision.reason) == ("unknown", "unknown_server")

    play(scenario, tmp_path)


def test_a_notification_that_is_denied_is_answered_by_http(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        body = b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"transfer_funds","arguments":{"amount":1}}}'
        async with world.running():
            answer = await post(world, body, good(method=None, name=None))
        _, decision = the_decision(world)
        assert (answer.status_code, answer.json()["id"]) == (403, None)
        assert (decision.tool, decision.enforcement) == ("transfer_funds", "deny")
        assert world.tools.calls == []

    play(scenario, tmp_path, answer=deny_tool("transfer_funds"))


def test_a_notification_that_is_permitted_is_acknowledged_and_has_an_outcome(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        body = b'{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}'
        async with world.running():
            answer = await post(world, body, good(method=None, name=None))
        record_id, decision = the_decision(world)
        assert (answer.status_code, answer.content) == (202, b"")
        assert decision.method == "notifications/roots/list_changed"
        (outcome,) = world.ledger.outcomes(record_id)
        assert (outcome.status, outcome.http_status) == ("completed", 202)

    play(scenario, tmp_path)


@pytest.mark.parametrize(
    ("method", "version"), [("GET", "2026-07-28"), ("DELETE", "2026-07-28"), ("PUT", "2025-11-25"), ("OPTIONS", "x")]
)
def test_other_http_methods_carry_no_message(tmp_path: Path, method: str, version: str) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.http() as http:
            answer = await http.request(method, world.mcp_url, headers={"mcp-protocol-version": version})
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST, DELETE")
        assert world.ledger.decisions(None) == []

    play(scenario, tmp_path)


def test_a_client_of_an_older_revision_is_told_what_is_spoken(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.http() as http:
            transport = streamable_http_client(world.mcp_url, http_client=http)
            with pytest.raises(BaseExceptionGroup) as caught:
                async with Client(transport, mode="legacy", cache=None):
                    pass
        assert "Unsupported protocol version" in str(_leaves(caught.value))
        _, decision = the_decision(world)
        assert (decision.method, decision.reason) == ("initialize", "unsupported_protocol")

    play(scenario, tmp_path, protocol={"revisions": ["2026-07-28"]})


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def test_a_client_that_negotiates_finds_the_revision_that_is_spoken(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.http() as http:
            transport = streamable_http_client(world.mcp_url, http_client=http)
            async with Client(transport, mode="auto", cache=None) as client:
                assert (await client.call_tool("refund_customer", {"amount": 1})).content[0].text == "refunded 1.0"
        assert [decision.enforcement for decision in world.ledger.decisions("server/discover")] == ["allow"]

    play(scenario, tmp_path)


def test_calls_beyond_the_limit_are_denied_and_recorded(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            first = asyncio.create_task(client.call_tool("wait_for_ever", {}))
            async with asyncio.timeout(10):
                await world.tools.started.wait()
            answer = await post(world, CALL, good())
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert [decision.reason for decision in world.ledger.decisions()] == ["policy", "overloaded"]

    play(scenario, tmp_path, limits={"concurrent_calls": 1})


def test_a_body_that_does_not_arrive_in_time_is_refused_and_recorded(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            host, port = world.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            head = b"POST /servers/finance/mcp HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n"
            lines = b"".join(b"%s: %s\r\n" % line for line in good())
            writer.write(head + lines + b"\r\n" + CALL[:20])
            status = await reader.readline()
            writer.close()
        assert b" 408 " in status
        _, decision = the_decision(world)
        assert decision.reason == "incomplete"

    play(scenario, tmp_path, limits={"body_seconds": 0.2})


def test_a_client_that_goes_away_before_its_message_is_complete_sent_none(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            host, port = world.url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /servers/finance/mcp HTTP/1.1\r\nhost: x\r\ncontent-length: 500\r\n\r\n{")
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            assert (await post(world, CALL, good())).status_code == 200
        assert len(world.ledger.decisions(None)) == 1

    play(scenario, tmp_path)


def test_a_forwarding_header_does_not_change_where_a_caller_is(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        claims = (("x-forwarded-for", "10.1.2.3"), ("forwarded", "for=10.1.2.3"), ("x-real-ip", "10.1.2.3"))
        async with world.running():
            await post(world, CALL, good(extra=claims))
        assert world.evaluator.asked[0].environment.address == "127.0.0.1"
        assert world.evaluator.asked[0].environment.network == "loopback"

    networks = [{"label": "loopback", "cidrs": ["127.0.0.0/8"]}, {"label": "office", "cidrs": ["10.0.0.0/8"]}]
    play(scenario, tmp_path, networks=networks)


def test_a_path_with_a_slash_too_many_is_no_redirect_past_the_gateway(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), httpx2.AsyncClient() as http:
            answer = await http.post(f"{world.mcp_url}/", content=CALL, headers=good())
        assert answer.status_code == 404
        assert "location" not in answer.headers
        assert world.tools.calls == []

    play(scenario, tmp_path)
