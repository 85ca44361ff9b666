"""A wrapped server, byte by byte: what never reaches it, what is said instead, and what ends what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from enforcement.refusals import ErrorCode
from enforcement.stdio import StdioWrapper
from policies.model import DecisionRequest, Effect, Obligation
from tests.support.gateway import WAIT_SECONDS, Surroundings, surroundings
from tests.support.mcp_messages import META, body_of
from tests.support.transports import Ends, wrapped


class Peers:
    """Both ends of a wrapped server, in the hands of a test."""

    def __init__(self, world: Surroundings, client: Ends, server: Ends, wrapper: StdioWrapper) -> None:
        self.world, self.wrapper = world, wrapper
        self.client, self.server = client, server

    def say(self, *lines: bytes) -> None:
        self.client[1].write(b"".join(line + b"\n" for line in lines))

    def answer(self, *lines: bytes | dict[str, Any]) -> None:
        for line in lines:
            self.server[1].write((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n")

    async def heard(self) -> dict[str, Any]:
        """What the client gets next."""
        return await _next(self.client)

    async def got(self) -> dict[str, Any]:
        """What the server gets next."""
        return await _next(self.server)

    async def outcome(self, decision_id: str) -> Any:
        await self.world.settle(lambda: bool(self.world.ledger.outcomes(decision_id)))
        (outcome,) = self.world.ledger.outcomes(decision_id)
        return outcome

    async def decided(self, count: int, method: str | None = None) -> list[str]:
        await self.world.settle(lambda: len(self.world.ledger.decision_ids(method)) == count)
        return self.world.ledger.decision_ids(method)


async def _next(ends: Ends) -> dict[str, Any]:
    async with asyncio.timeout(WAIT_SECONDS):
        line = await ends[0].readline()
    assert line.endswith(b"\n"), "the pipe ended"
    value: dict[str, Any] = json.loads(line)
    return value


def play(scenario: Callable[[Peers], Awaitable[None]], directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with surroundings(directory, **options) as world, wrapped(world) as (client, server, wrapper):
            await scenario(Peers(world, client, server, wrapper))

    asyncio.run(run())


def call(request_id: object = 7, **arguments: Any) -> bytes:
    return body_of(arguments=arguments, request_id=request_id)


def result(request_id: object = 7, **members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": members}


def notification(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


@pytest.mark.parametrize(
    ("line", "reason", "request_id"),
    [
        (b"{", "malformed", None),
        (b"[" + call() + b"]", "batch", None),
        (call()[:-1] + b',"id":8}', "duplicate_key", None),
        (call()[:-1] + b',"Id":8}', "ambiguous_key", None),
        (call().replace(b"2026-07-28", b"2199-01-01"), "unsupported_protocol", 7),
        (call(note="x" * 70_000), "oversize", None),
        (json.dumps({"jsonrpc": "2.0", "id": 3, "result": {}}).encode(), "unsupported_protocol", None),
        (b'{"x":\r' + call() + b"\r}", "malformed", None),
        (b"\xff\xfe" + call(), "malformed", None),
    ],
)
def test_a_line_that_can_be_read_in_two_ways_is_refused_and_never_goes_on(
    line: bytes, reason: str, request_id: object, tmp_path: Path
) -> None:
    async def scenario(peers: Peers) -> None:
        peers.say(line, call(9))
        assert (await peers.got())["id"] == 9  # the server has seen nothing before that
        if not line.startswith(b'{"jsonrpc": "2.0", "id": 3'):
            refused = await peers.heard()
            assert (refused["id"], refused["error"]["data"]["reason"]) == (request_id, reason)
        await peers.decided(2)  # a long line is looked through in a thread, so that either may be recorded first
        (refusal,) = (one for one in peers.world.ledger.decisions(None) if one.enforcement != "allow")
        assert (refusal.reason, refusal.enforcement, refusal.transport) == (reason, "deny", "stdio")
        peers.answer(result(9))
        assert (await peers.heard())["id"] == 9

    play(scenario, tmp_path, limits={"body_bytes": 65_536})


def test_ends_of_lines_within_a_message_are_taken_out_before_it_goes_on(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.say(call(note="a\u2028b").replace(b'"params"', b'\r"params"').replace(rb"\u2028", "\u2028".encode()))
        async with asyncio.timeout(WAIT_SECONDS):
            line = await peers.server[0].readline()
        assert len(line.decode().splitlines()) == 1
        assert json.loads(line)["params"]["arguments"] == {"note": "a\u2028b"}
        peers.answer(result())
        await peers.heard()

    play(scenario, tmp_path)


def test_many_calls_are_under_way_at_once_and_go_on_in_their_order(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.say(*(call(number) for number in range(20)))
        assert [(await peers.got())["id"] for _ in range(20)] == list(range(20))
        peers.answer(*(result(number) for number in reversed(range(20))))
        assert sorted([(await peers.heard())["id"] for _ in range(20)]) == list(range(20))

    play(scenario, tmp_path)


def test_a_second_call_under_the_id_of_one_under_way_is_refused(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.say(call(7), call(7))
        refused = await peers.heard()
        assert (refused["id"], refused["error"]["data"]["reason"]) == (7, "malformed")
        await peers.got()
        peers.answer(result(7, done=True))
        assert (await peers.heard())["result"] == {"done": True}
        peers.say(call(7))
        assert (await peers.got())["id"] == 7  # it is free again
        peers.answer(result(7))
        await peers.heard()

    play(scenario, tmp_path)


def test_a_call_is_withdrawn_and_its_late_answer_is_dropped(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.say(call(7))
        await peers.got()
        peers.say(json.dumps(notification("notifications/cancelled", requestId=7)).encode())
        assert (await peers.got())["method"] == "notifications/cancelled"
        (decision_id,) = await peers.decided(1, "tools/call")
        outcome = await peers.outcome(decision_id)
        assert (outcome.status, outcome.reason) == ("cancelled", "client_cancelled")
        peers.say(call(7))
        assert (await peers.heard())["error"]["data"]["reason"] == "malformed"  # its answer may yet come
        peers.say(call(8))
        await peers.got()
        peers.answer(result(7), result(8))
        assert (await peers.heard())["id"] == 8

    play(scenario, tmp_path)


def test_what_the_server_says_before_an_answer_comes_before_it(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.say(call(7))
        await peers.got()
        progress = [notification("notifications/progress", progressToken=1, progress=step) for step in range(5)]
        peers.answer(b"Server started.", *progress, result(7), notification("notifications/message", data="after"))
        heard = [await peers.heard() for _ in range(7)]
        assert [one.get("method", one.get("id")) for one in heard] == [
            *["notifications/progress"] * 5,
            7,
            "notifications/message",
        ]
        await peers.decided(3)
        methods = [one.method for one in peers.world.ledger.decisions(None)]
        assert methods == ["tools/call", "notifications/progress", "notifications/message"]  # one for each kind

    play(scenario, tmp_path)


def test_notifications_that_a_policy_forbids_never_reach_the_client(tmp_path: Path) -> None:
    def quiet(request: DecisionRequest) -> dict[str, Any]:
        return {"effect": Effect.DENY if request.action == "notifications/message" else Effect.PERMIT}

    async def scenario(peers: Peers) -> None:
        peers.say(call(7))
        await peers.got()
        peers.answer(*[notification("notifications/message", data="psst")] * 3, result(7))
        assert (await peers.heard())["id"] == 7

    play(scenario, tmp_path, answer=quiet)


def test_a_denied_call_is_answered_and_a_denied_notification_is_not(tmp_path: Path) -> None:
    def strict(request: DecisionRequest) -> dict[str, Any]:
        return {"effect": Effect.PERMIT if request.resource.name == "refund_customer" else Effect.DENY}

    async def scenario(peers: Peers) -> None:
        peers.say(
            json.dumps(notification("notifications/odd", _meta=META)).encode(),
            body_of(name="transfer_funds", arguments={}, request_id=1),
            call(2),
        )
        assert (await peers.got())["id"] == 2
        denied = await peers.heard()
        assert (denied["id"], denied["error"]["code"]) == (1, ErrorCode.DENIED)
        peers.answer(result(2))
        assert (await peers.heard())["id"] == 2

    play(scenario, tmp_path, answer=strict)


def test_a_server_that_ends_fails_its_open_calls_and_they_are_recorded(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.say(call(7))
        await peers.got()
        peers.server[1].close()
        failed = await peers.heard()
        assert failed["error"]["data"]["reason"] == "upstream_disconnected"
        (decision_id,) = await peers.decided(1, "tools/call")
        outcome = await peers.outcome(decision_id)
        assert (outcome.status, outcome.reason) == ("failed", "upstream_disconnected")

    play(scenario, tmp_path)


def test_what_a_client_has_said_before_it_ends_is_still_done_and_recorded(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.say(call(7))
        peers.client[1].write_eof()
        await peers.got()
        assert await peers.server[0].read() == b""  # its input ends after it
        peers.answer(result(7))
        assert (await peers.heard())["id"] == 7
        peers.server[1].close()
        assert await peers.client[0].read() == b""

    play(scenario, tmp_path)


def test_a_line_that_was_cut_off_is_recorded_and_does_not_go_on(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.client[1].write(call(7))  # no end of line
        peers.client[1].write_eof()
        assert await peers.server[0].read() == b""
        await peers.decided(1)
        assert peers.world.ledger.decisions(None)[0].reason == "incomplete"
        peers.server[1].close()

    play(scenario, tmp_path)


def test_when_it_is_told_to_end_what_is_under_way_is_cancelled_and_recorded(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.say(call(7))
        await peers.got()
        peers.wrapper.halt()
        (decision_id,) = await peers.decided(1, "tools/call")
        outcome = await peers.outcome(decision_id)
        assert (outcome.status, outcome.reason) == ("cancelled", "gateway_stopped")

    play(scenario, tmp_path)


def test_an_answer_that_is_too_long_fails_what_is_open_and_the_server_goes_on(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.say(call(7))
        await peers.got()
        peers.answer(result(7, text="x" * 5000))
        assert (await peers.heard())["error"]["data"]["reason"] == "answer_too_large"
        peers.say(call(8))
        await peers.got()
        peers.answer(result(8))
        assert (await peers.heard())["id"] == 8

    play(scenario, tmp_path, limits={"answer_bytes": 4096})


def test_a_client_that_does_not_read_keeps_nothing_from_being_recorded(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.client[1].transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport reads too
        peers.say(*(call(number) for number in range(12)))
        for number in range(12):
            await peers.got()
            peers.answer(result(number, text="x" * 40_000))  # more than the pipe holds, and nobody reads it
        for decision_id in await peers.decided(12, "tools/call"):
            assert (await peers.outcome(decision_id)).status == "completed"

    play(scenario, tmp_path)


def test_a_client_that_reads_nothing_of_too_much_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enforcement.stdio._QUEUE_BYTES", 1 << 16)

    async def scenario(peers: Peers) -> None:
        peers.client[1].transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport reads too
        peers.say(call("open"), *(call(number) for number in range(12)))
        for _ in range(13):
            await peers.got()
        for number in range(12):
            peers.answer(result(number, text="x" * 80_000))
        assert await peers.server[0].read() == b""  # the server's input ends
        outcomes = [await peers.outcome(one) for one in await peers.decided(13, "tools/call")]
        assert {one.status for one in outcomes} == {"completed", "cancelled"}
        assert (outcomes[0].status, outcomes[0].reason) == ("cancelled", "client_disconnected")

    play(scenario, tmp_path, limits={"answer_bytes": 90_000})


STATEFUL = {"protocol": {"revisions": ["2025-11-25"]}}


def initialize() -> bytes:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    return json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).encode()


async def begin(peers: Peers) -> None:
    peers.say(initialize())
    await peers.got()
    peers.answer(result(0, protocolVersion="2025-11-25", capabilities={}, serverInfo={"name": "s", "version": "1"}))
    await peers.heard()
    peers.say(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}).encode())
    assert (await peers.got())["method"] == "notifications/initialized"


def asks(request_id: object = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": "sampling/createMessage", "params": {"messages": []}}


def test_a_request_of_the_server_is_judged_and_its_answer_is_its_outcome(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        await begin(peers)
        peers.answer(asks())
        assert (await peers.heard())["method"] == "sampling/createMessage"
        peers.say(json.dumps(result(2)).encode(), json.dumps(result(1, role="user")).encode())
        assert await peers.got() == result(1, role="user")  # the answer to nothing went nowhere
        (decision_id,) = await peers.decided(1, "sampling/createMessage")
        assert (await peers.outcome(decision_id)).status == "completed"
        assert "not_a_request" in [one.reason for one in peers.world.ledger.decisions(None)]
        peers.say(json.dumps(result(1, role="user")).encode(), call(5).replace(b"2026-07-28", b"2025-11-25"))
        assert (await peers.got())["id"] == 5  # nor a second answer
        peers.answer(result(5))
        await peers.heard()

    play(scenario, tmp_path, **STATEFUL)


def test_a_request_of_the_server_that_a_policy_forbids_never_reaches_the_client(tmp_path: Path) -> None:
    def unasked(request: DecisionRequest) -> dict[str, Any]:
        return {"effect": Effect.DENY if request.action.startswith("sampling/") else Effect.PERMIT}

    async def scenario(peers: Peers) -> None:
        await begin(peers)
        peers.answer(asks())
        assert (await peers.got())["error"]["code"] == ErrorCode.DENIED
        peers.answer(notification("notifications/message", data="next"))
        assert (await peers.heard())["method"] == "notifications/message"

    play(scenario, tmp_path, answer=unasked, **STATEFUL)


def test_in_the_stateless_revision_a_server_asks_nothing(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        peers.say(call(7))
        await peers.got()
        peers.answer(asks(), result(7))
        assert (await peers.heard())["id"] == 7
        assert (await peers.got())["error"]["code"] == ErrorCode.DENIED

    play(scenario, tmp_path)


def test_what_a_killed_client_answers_does_not_reach_the_server(tmp_path: Path) -> None:
    def kills(request: DecisionRequest) -> dict[str, Any]:
        if request.action != "tools/call":
            return {"effect": Effect.PERMIT}
        return {"effect": Effect.DENY, "failed_condition": "no-calls", "obligations": (Obligation.END_SESSION,)}

    async def scenario(peers: Peers) -> None:
        await begin(peers)
        peers.answer(asks())
        assert (await peers.heard())["method"] == "sampling/createMessage"
        peers.say(call(5).replace(b"2026-07-28", b"2025-11-25"))
        assert (await peers.heard())["id"] == 5
        peers.say(json.dumps(result(1, role="user")).encode())
        peers.client[1].write_eof()
        assert await peers.server[0].read() == b""
        peers.server[1].close()
        (decision_id,) = await peers.decided(1, "sampling/createMessage")
        assert (await peers.outcome(decision_id)).status == "cancelled"
        assert peers.world.ledger.decisions(None)[-1].reason == "session_ended"

    play(scenario, tmp_path, answer=kills, **STATEFUL)


def test_of_two_requests_of_the_server_under_one_id_the_client_gets_one(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        await begin(peers)
        peers.answer(asks(), asks(), notification("notifications/message", data="next"))
        assert [(await peers.heard())["method"] for _ in range(2)] == [
            "sampling/createMessage",
            "notifications/message",
        ]
        peers.say(json.dumps(result(1, role="user")).encode())
        assert await peers.got() == result(1, role="user")  # and nothing before it
        outcomes = [await peers.outcome(one) for one in await peers.decided(2, "sampling/createMessage")]
        assert sorted(one.status for one in outcomes) == ["completed", "not_forwarded"]

    play(scenario, tmp_path, **STATEFUL)


def test_a_request_that_the_server_withdraws_is_over(tmp_path: Path) -> None:
    async def scenario(peers: Peers) -> None:
        await begin(peers)
        peers.answer(asks(), notification("notifications/cancelled", requestId=1))
        assert [(await peers.heard())["method"] for _ in range(2)] == [
            "sampling/createMessage",
            "notifications/cancelled",
        ]
        (decision_id,) = await peers.decided(1, "sampling/createMessage")
        outcome = await peers.outcome(decision_id)
        assert (outcome.status, outcome.reason) == ("cancelled", "server_cancelled")

    play(scenario, tmp_path, **STATEFUL)


def test_a_call_that_waits_for_its_turn_does_not_outlive_a_kill_before_it(tmp_path: Path) -> None:
    def kills(request: DecisionRequest) -> dict[str, Any]:
        if request.resource.name != "transfer_funds":
            return {"effect": Effect.PERMIT}
        return {"effect": Effect.DENY, "failed_condition": "no-calls", "obligations": (Obligation.END_SESSION,)}

    async def scenario(peers: Peers) -> None:
        evaluator, go_on = peers.world.evaluator, asyncio.Event()
        evaluate = evaluator.evaluate_many

        async def slowly(bundle: Any, requests: Any) -> Any:
            if requests[0].resource.name == "transfer_funds":
                await go_on.wait()
            return await evaluate(bundle, requests)

        evaluator.evaluate_many = slowly  # type: ignore[method-assign]
        peers.say(body_of(name="transfer_funds", arguments={}, request_id=1), call(2))
        (waits,) = await peers.decided(1)
        peers.answer(notification("notifications/message", data="so that the ledger has acknowledged what it had"))
        assert (await peers.heard())["method"] == "notifications/message"
        go_on.set()
        assert [(await peers.heard())["id"] for _ in range(2)] == [1, 2]
        outcome = await peers.outcome(waits)
        assert (outcome.status, outcome.reason) == ("not_forwarded", "session_ended")
        peers.client[1].write_eof()
        assert await peers.server[0].read() == b""
        peers.server[1].close()

    play(scenario, tmp_path, answer=kills, limits={"evaluation_seconds": 20})


def test_a_server_gets_its_own_state_back_and_answers_to_what_it_asked_alone(tmp_path: Path) -> None:
    def with_params(request_id: int, **members: Any) -> bytes:
        message = json.loads(call(request_id, amount=1))
        return json.dumps({**message, "params": {**message["params"], **members}}).encode()

    async def scenario(peers: Peers) -> None:
        peers.say(call(1, amount=1))
        await peers.got()
        asked = {"sure": {"method": "elicitation/create", "params": {"message": "Sure?", "requestedSchema": {}}}}
        peers.answer(result(1, resultType="input_required", inputRequests=asked, requestState="the server's"))
        state = (await peers.heard())["result"]["requestState"]
        assert state != "the server's"
        given = {"action": "accept", "content": {}}
        peers.say(with_params(2, requestState="the server's", inputResponses={"sure": given}))
        assert (await peers.heard())["error"]["data"]["reason"] == "unknown_round"
        peers.say(with_params(3, requestState=state, inputResponses={"sure": given, "unasked": given}))
        params = (await peers.got())["params"]
        assert (params["requestState"], params["inputResponses"]) == ("the server's", {"sure": given})
        peers.answer(result(3, resultType="complete", content=[]))
        assert (await peers.heard())["id"] == 3

    play(scenario, tmp_path)
