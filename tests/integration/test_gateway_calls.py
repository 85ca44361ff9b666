"""Calls of real clients to a real server of the official SDK, with the gateway between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mcp_types
import pytest
from mcp.shared.exceptions import MCPError

from enforcement.refusals import ErrorCode
from ledger.bodies import AccessEvent, Heartbeat
from ledger.canonical import canonical_bytes, sha256
from ledger.commitments import fingerprint
from ledger.completeness import Verdict
from ledger.errors import NotFoundError
from ledger.records import encode_record
from policies.model import Effect, Obligation, decode_request
from tests.support.gateway import Surroundings, deny_tool, surroundings
from tests.support.gateway_keys import NOON_MS, PSEUDONYM_KEY
from tests.support.mcp_messages import body_of, headers_of

Scenario = Callable[[Surroundings], Awaitable[None]]


def play(scenario: Scenario, directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with surroundings(directory, **options) as world:
            await scenario(world)

    asyncio.run(run())


def test_an_allowed_call_passes_and_is_recorded_before_and_after(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            result = await client.call_tool("refund_customer", {"amount": 12.5})
        assert result.content[0].text == "refunded 12.5"
        assert world.tools.calls == ["refund_customer"]
        (decision,) = world.ledger.decisions()
        (decision_id,) = world.ledger.decision_ids()
        assert (decision.agent, decision.server, decision.tool) == ("Finance-Bot", "finance", "refund_customer")
        assert (decision.decision, decision.enforcement, decision.mode) == ("PERMIT", "allow", "enforce")
        assert (decision.reason, decision.rules, decision.evaluation_us) == ("policy", ("scripted-rule",), 7)
        assert decision.bundle is not None
        assert world.ledger.bundle is not None
        assert decision.bundle.revision == world.ledger.bundle.revision
        assert decision.facts is not None
        assert (decision.facts.network, decision.facts.local_hour, decision.facts.mfa) == ("loopback", 12, True)
        assert decision.tags == ("internal",)
        (outcome,) = world.ledger.outcomes(decision_id)
        assert (outcome.status, outcome.http_status, outcome.error_code) == ("completed", 200, None)
        assert outcome.session == decision.session
        (answer,) = answers(world)
        assert answer["result"]["content"][0]["text"] == "refunded 12.5"

    play(scenario, tmp_path)


def answers(world: Surroundings, method: str = "tools/call") -> list[dict[str, Any]]:
    """What the server answered, as it stands in the vault, in the order of the decisions."""
    outcome_of = {record.body.decision_id: record for record in world.ledger.records if hasattr(record.body, "result")}
    ids = [outcome_of[decision_id].record_id for decision_id in world.ledger.decision_ids(method)]
    return [json.loads(world.ledger.openings[record_id, "result"]) for record_id in ids]


def test_the_recorded_request_holds_the_arguments_as_the_client_sent_them(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            await client.call_tool("refund_customer", {"amount": 12.5, "note": "für Ä"})
        (decision_id,) = world.ledger.decision_ids()
        request = decode_request(world.ledger.openings[decision_id, "request"])
        message = world.ledger.openings[decision_id, "message"]
        assert request.arguments.encode() in message
        assert json.loads(request.arguments) == {"amount": 12.5, "note": "für Ä"}
        assert request == world.evaluator.asked[0]
        assert (request.time.now_ms, request.time.zone) == (NOON_MS, "Europe/Berlin")
        (decision,) = world.ledger.decisions()
        assert decision.arguments_fingerprint == fingerprint(PSEUDONYM_KEY, sha256(request.arguments.encode()))

    play(scenario, tmp_path)


def test_no_leaf_holds_an_argument_a_result_a_user_or_an_address(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            await client.call_tool("refund_customer", {"amount": 77.125, "note": "strictly confidential"})
        leaves = b"".join(map(encode_record, world.ledger.records))
        for text in (b"77.125", b"confidential", b"refunded", b"alice", b"127.0.0.1", b"finance-token"):
            assert text not in leaves

    play(scenario, tmp_path)


def test_a_denied_call_never_reaches_the_server_and_names_the_rule(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            with pytest.raises(MCPError) as caught:
                await client.call_tool("transfer_funds", {"amount": 1})
            await client.call_tool("refund_customer", {"amount": 1})
        assert world.tools.calls == ["refund_customer"]
        decision_id = world.ledger.decision_ids()[0]
        assert caught.value.code == ErrorCode.DENIED
        assert caught.value.error.data == {
            "reason": "policy",
            "enforcement": "deny",
            "decision_id": decision_id,
            "rule": "transfer_funds-forbidden",
        }
        assert world.ledger.decisions()[0].failed_condition == "transfer_funds-forbidden"
        assert world.ledger.outcomes(decision_id) == []

    play(scenario, tmp_path, answer=deny_tool("transfer_funds"))


def test_drift_is_told_in_the_denial_recorded_and_counted_by_kind(tmp_path: Path) -> None:
    drift = ("range:amount", "unknown_argument")

    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway, world.client() as client:
            with pytest.raises(MCPError) as caught:
                await client.call_tool("transfer_funds", {"amount": 1})
            metrics = gateway.metrics.registry
        assert caught.value.error.data["drift"] == list(drift)
        assert world.ledger.decisions()[0].drift == drift
        for kind in ("range", "unknown_argument"):
            assert metrics.get_sample_value("tallystick_drift_total", {"server": "finance", "kind": kind}) == 1

    play(scenario, tmp_path, answer=deny_tool("transfer_funds", drift=drift))


def test_a_call_that_needs_approval_is_held_and_closed_without_reaching_the_server(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            with pytest.raises(MCPError) as caught:
                await client.call_tool("transfer_funds", {"amount": 1})
        assert caught.value.code == ErrorCode.APPROVAL_REQUIRED
        assert world.tools.calls == []
        (decision,) = world.ledger.decisions()
        assert (decision.decision, decision.enforcement) == ("PERMIT", "ask")
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
        assert (outcome.status, outcome.reason) == ("not_forwarded", "approval_required")

    play(scenario, tmp_path, answer=lambda _: {"effect": Effect.PERMIT, "obligations": (Obligation.APPROVAL,)})


def test_a_kill_ends_the_session_for_every_later_call_until_it_is_released(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:
            async with world.client() as client:
                with pytest.raises(MCPError):
                    await client.call_tool("transfer_funds", {"amount": 1})
                with pytest.raises(MCPError) as caught:
                    await client.call_tool("refund_customer", {"amount": 1})
            assert caught.value.error.data["reason"] == "session_ended"
            async with world.client("Support-Bot") as other:
                await other.call_tool("refund_customer", {"amount": 2})
            (block,) = gateway.blocks()
            assert block.decision_id == world.ledger.decision_ids()[0]
        async with world.running() as gateway:  # a restart does not forget it
            async with world.client() as client:
                with pytest.raises(MCPError):
                    await client.call_tool("refund_customer", {"amount": 3})
            await gateway.release("Finance-Bot", "alice", actor="carol", actor_role="responder", purpose="reviewed")
            async with world.client() as client:
                await client.call_tool("refund_customer", {"amount": 4})
        assert world.tools.calls == ["refund_customer", "refund_customer"]
        kinds = [(decision.enforcement, decision.reason) for decision in world.ledger.decisions()]
        ended = ("deny", "session_ended")
        assert kinds == [("kill", "policy"), ended, ("allow", "policy"), ended, ("allow", "policy")]
        sessions = [decision.session for decision in world.ledger.decisions()]
        assert sessions[0] == sessions[1] == sessions[3] != sessions[4]
        (access,) = [record.body for record in world.ledger.records if isinstance(record.body, AccessEvent)]
        assert (access.action, access.target_id) == ("release_block", block.decision_id)

    play(scenario, tmp_path, answer=deny_tool("transfer_funds", obligations=(Obligation.END_SESSION,)))


def test_a_release_from_outside_takes_effect_in_the_running_gateway(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        who = {"actor": "carol", "actor_role": "responder", "purpose": "reviewed"}
        async with world.running(recording={"heartbeat_seconds": 0.2}):
            async with world.client() as client:
                with pytest.raises(MCPError):
                    await client.call_tool("transfer_funds", {"amount": 1})
            outside = world.build()
            assert [block.agent for block in outside.blocks()] == ["Finance-Bot"]
            with pytest.raises(NotFoundError):
                await outside.release("Finance-Bot", "bob", **who)
            await outside.release("Finance-Bot", "alice", **who)
            async with world.client() as client:
                await client.call_tool("refund_customer", {"amount": 1})
            await world.settle(lambda: any(isinstance(record.body, AccessEvent) for record in world.ledger.records))
        (stream,) = world.ledger.streams()
        assert stream.verdict is Verdict.COMPLETE

    play(scenario, tmp_path, answer=deny_tool("transfer_funds", obligations=(Obligation.END_SESSION,)))


def test_what_is_only_observed_is_let_through_with_its_real_decision_on_record(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            await client.call_tool("transfer_funds", {"amount": 1})
            with pytest.raises(MCPError):
                await client.call_tool("refund_customer", {"amount": 1})
        assert world.tools.calls == ["transfer_funds"]
        observed, enforced = world.ledger.decisions()
        assert (observed.decision, observed.enforcement, observed.mode) == ("DENY", "allow", "observe")
        assert (enforced.decision, enforced.enforcement, enforced.mode) == ("DENY", "deny", "enforce")
        assert [outcome.status for outcome in world.ledger.outcomes(world.ledger.decision_ids()[0])] == ["completed"]

    tools = [{"name": "transfer_funds", "mode": "observe"}]
    answer = lambda request: {"effect": Effect.DENY if request.action == "tools/call" else Effect.PERMIT}  # noqa: E731  # one line
    play(scenario, tmp_path, answer=answer, server={"tools": tools})


def test_observing_a_kill_ends_nothing(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:
            async with world.client() as client:
                await client.call_tool("transfer_funds", {"amount": 1})
                await client.call_tool("refund_customer", {"amount": 1})
            assert gateway.blocks() == []
        assert [decision.mode for decision in world.ledger.decisions()] == ["observe", "observe"]

    answer = deny_tool("transfer_funds", obligations=(Obligation.END_SESSION,))
    play(scenario, tmp_path, answer=answer, server={"mode": "observe"})


def test_progress_passes_while_the_answer_is_still_being_made(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        seen: list[float] = []
        all_seen = asyncio.Event()

        async def progress(done: float, total: float | None, _message: str | None) -> None:
            seen.append(done)
            if done == total:
                all_seen.set()

        async with world.running(), world.client() as client:
            call = asyncio.create_task(client.call_tool("count_slowly", {"steps": 3}, progress_callback=progress))
            async with asyncio.timeout(10):
                await all_seen.wait()
            assert not call.done()
            assert world.ledger.outcomes(world.ledger.decision_ids()[0]) == []
            world.tools.go_on.set()
            assert (await call).content[0].text == "counted"
        assert seen == [1, 2, 3]
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
        assert outcome.status == "completed"
        assert answers(world)[0]["result"]["content"][0]["text"] == "counted"

    play(scenario, tmp_path)


def test_a_result_has_the_same_fingerprint_whether_it_was_streamed_or_not(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        world.tools.go_on.set()

        async def ignore(_done: float, _total: float | None, _message: str | None) -> None:
            return

        async with world.running(), world.client() as client:
            await client.call_tool("count_slowly", {"steps": 0})
            await client.call_tool("count_slowly", {"steps": 1}, progress_callback=ignore)
        fingerprints = [world.ledger.outcomes(one)[0].result_fingerprint for one in world.ledger.decision_ids()]
        assert fingerprints[0] == fingerprints[1]
        assert fingerprints[0] is not None

    play(scenario, tmp_path)


def test_a_client_that_goes_away_cancels_the_call_at_the_server(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            async with world.client() as client:
                call = asyncio.create_task(client.call_tool("wait_for_ever", {}))
                async with asyncio.timeout(10):
                    await world.tools.started.wait()
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
            async with asyncio.timeout(10):
                await world.tools.cancelled.wait()
            decision_id = world.ledger.decision_ids()[0]
            await world.settle(lambda: bool(world.ledger.outcomes(decision_id)))
        (outcome,) = world.ledger.outcomes(decision_id)
        assert (outcome.status, outcome.reason) == ("cancelled", "client_disconnected")

    play(scenario, tmp_path)


def test_stopping_the_gateway_cancels_what_is_under_way_and_records_it(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway, world.client() as client:
            call = asyncio.create_task(client.call_tool("wait_for_ever", {}))
            async with asyncio.timeout(10):
                await world.tools.started.wait()
            await gateway.stop()
            await asyncio.gather(call, return_exceptions=True)
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
        assert (outcome.status, outcome.reason) == ("cancelled", "gateway_stopped")
        last = world.ledger.records[-1].body
        assert isinstance(last, Heartbeat)
        assert last.kind == "stop"

    play(scenario, tmp_path)


def test_a_tool_that_fails_is_a_completed_call_with_a_tool_error(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            result = await client.call_tool("break_down", {})
        assert result.is_error
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
        assert (outcome.status, outcome.tool_error, outcome.error_code) == ("completed", True, None)

    play(scenario, tmp_path)


def test_an_unknown_method_that_the_policy_permits_gets_the_servers_own_answer(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            with pytest.raises(MCPError) as caught:
                await client.session.send_request(
                    mcp_types.GetPromptRequest(params=mcp_types.GetPromptRequestParams(name="none")),
                    mcp_types.GetPromptResult,
                )
        (decision,) = world.ledger.decisions("prompts/get")
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids("prompts/get")[0])
        assert (outcome.status, outcome.reason, outcome.error_code) == ("failed", "jsonrpc_error", caught.value.code)
        assert decision.tool == "none"

    play(scenario, tmp_path)


def test_a_listed_tool_has_its_digest_in_later_decisions(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            await client.call_tool("refund_customer", {"amount": 1})  # the client lists the tools after its first call
            listed = await client.list_tools()
            await client.call_tool("refund_customer", {"amount": 2})
            await client.call_tool("transfer_funds", {"amount": 2})
        first, second, third = world.ledger.decisions()
        tools = answers(world, "tools/list")[-1]["result"]["tools"]
        digests = {tool["name"]: sha256(canonical_bytes(tool)).hex() for tool in tools}
        assert {tool.name for tool in listed.tools} == digests.keys()
        assert first.tool_digest is None
        assert second.tool_digest == digests["refund_customer"]
        assert third.tool_digest == digests["transfer_funds"]

    play(scenario, tmp_path)


def test_every_method_of_a_client_is_judged_not_only_calls(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            with pytest.raises(MCPError):
                await client.list_tools()
            await client.list_resources()
        assert [decision.enforcement for decision in world.ledger.decisions("tools/list")] == ["deny"]
        assert [decision.enforcement for decision in world.ledger.decisions("resources/list")] == ["allow"]

    answer = lambda request: {"effect": Effect.DENY if request.action == "tools/list" else Effect.PERMIT}  # noqa: E731  # one line
    play(scenario, tmp_path, answer=answer)


def test_many_calls_at_once_are_numbered_without_gaps(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client, world.client("Support-Bot") as other:
            calls = [one.call_tool("refund_customer", {"amount": n}) for n in range(20) for one in (client, other)]
            await asyncio.gather(*calls)
        assert len(world.tools.calls) == 40
        (stream,) = world.ledger.streams()
        assert stream.verdict is Verdict.COMPLETE
        assert stream.decisions == len(world.ledger.decisions(None)) >= 40
        assert [record.seq for record in world.ledger.records] == list(range(1, len(world.ledger.records) + 1))
        by_agent = [d.facts.session_calls for d in world.ledger.decisions(None) if d.agent == "Finance-Bot" and d.facts]
        assert sorted(by_agent) == list(range(len(by_agent)))

    play(scenario, tmp_path)


def test_everything_made_with_a_simulated_clock_says_so(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running(), world.client() as client:
            await client.call_tool("refund_customer", {"amount": 1})
        assert world.ledger.records
        assert all(record.simulated for record in world.ledger.records)

    play(scenario, tmp_path)


@pytest.mark.parametrize("moment", ["while it is judged", "while it is under way"])
def test_a_transport_that_is_torn_down_leaves_no_call_without_outcome(tmp_path: Path, moment: str) -> None:
    """What uvicorn does to a request that outlives its patience at the end: the task is cancelled."""

    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:
            judging, go_on = asyncio.Event(), asyncio.Event()
            evaluate = world.evaluator.evaluate_many

            async def slowly(bundle: Any, requests: Any) -> Any:
                judging.set()
                if moment == "while it is judged":
                    await go_on.wait()
                return await evaluate(bundle, requests)

            world.evaluator.evaluate_many = slowly  # type: ignore[method-assign]  # waits for the tearing down
            name = "wait_for_ever"
            scope = {
                "type": "http",
                "method": "POST",
                "path": "/servers/finance/mcp",
                "headers": headers_of(name=name, token="finance-token"),
                "client": ("127.0.0.1", 1),
            }
            messages = [{"type": "http.request", "body": body_of(name=name, arguments={})}]

            async def receive() -> Any:
                return messages.pop() if messages else await asyncio.Event().wait()

            async def send(_: Any) -> None:
                return

            request = asyncio.create_task(gateway.app(scope, receive, send))
            async with asyncio.timeout(10):
                await (judging if moment == "while it is judged" else world.tools.started).wait()
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            go_on.set()
            assert request.cancelled()
            await world.settle(lambda: bool(world.ledger.outcomes()))
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
        status = "not_forwarded" if moment == "while it is judged" else "cancelled"
        assert (outcome.status, outcome.reason) == (status, "gateway_stopped")
        assert world.tools.calls == ([] if moment == "while it is judged" else ["wait_for_ever"])

    play(scenario, tmp_path)
