"""What holds when something is away: the ledger, the policy, the spool, the server, or the gateway itself."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from mcp.shared.exceptions import MCPError

from enforcement.refusals import ErrorCode
from ledger.bodies import Decision, Dropped, Heartbeat
from ledger.bodies_inventory import InventoryEvent
from ledger.completeness import Verdict
from ledger.errors import ConfigError
from ledger.records import Record
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from policies.model import Effect
from policies.programs import installed_program
from policies.workers import WorkerEngine, WorkerPool
from service.wiring.engines import ENGINE_KINDS
from tests.support.gateway import Surroundings, deny_tool, simple_bundle, surroundings
from tests.support.mcp_messages import body_of, headers_of
from tests.support.policies import cedar_bundle

STRICT = {"recording": "strict"}
AVAILABLE = {"recording": "available"}


def play(scenario: Callable[[Surroundings], Awaitable[None]], directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with surroundings(directory, **options) as world:
            await scenario(world)

    asyncio.run(run())


def introduced(world: Surroundings) -> bool:
    """Whether the ledger has what a gateway tells of itself by itself: that it lives, and its servers."""
    return any(isinstance(record.body, InventoryEvent) for record in world.ledger.records)


async def denied(world: Surroundings, tool: str = "refund_customer") -> dict[str, Any]:
    """Make a call that must be denied; return what the client is told."""
    before = list(world.tools.calls)
    async with world.client() as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool(tool, {"amount": 1})
    assert world.tools.calls == before
    return {"code": caught.value.code, **caught.value.error.data}


async def allowed(world: Surroundings) -> None:
    async with world.client() as client:
        assert not (await client.call_tool("refund_customer", {"amount": 1})).is_error


# --- the ledger is away


def test_a_strict_call_is_denied_while_the_ledger_is_away_and_the_denial_arrives_later(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            await world.settle(lambda: introduced(world))
            await world.ledger.stop()
            first = await denied(world)  # the gateway finds out
            second = await denied(world)  # the gateway knows
            await world.ledger.start()
            await world.settle(lambda: len(world.ledger.outcomes()) == 2)
            await allowed(world)
        assert first["code"] == second["code"] == ErrorCode.UNAVAILABLE
        assert first["reason"] == second["reason"] == "ledger_unavailable"
        spooled, known, after = world.ledger.decisions()
        assert (spooled.decision, spooled.enforcement, spooled.reason) == ("PERMIT", "allow", "policy")
        assert (known.decision, known.enforcement, known.reason) == ("PERMIT", "deny", "ledger_unavailable")
        assert (after.decision, after.enforcement) == ("PERMIT", "allow")
        ids = world.ledger.decision_ids()
        assert [first["decision_id"], second["decision_id"]] == ids[:2]
        for decision_id in ids[:2]:
            (outcome,) = world.ledger.outcomes(decision_id)
            assert (outcome.status, outcome.reason) == ("not_forwarded", "ledger_unavailable")
        (stream,) = world.ledger.streams()
        assert stream.verdict is Verdict.COMPLETE

    play(scenario, tmp_path, server=STRICT, recording={"strict_seconds": 0.3})


def test_an_available_call_passes_while_the_ledger_is_away_and_is_recorded_later(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            await world.settle(lambda: introduced(world))
            await world.ledger.stop()
            await allowed(world)
            await allowed(world)
            await world.ledger.start()
            await world.settle(lambda: len(world.ledger.outcomes()) >= 2)
        assert [decision.enforcement for decision in world.ledger.decisions()] == ["allow", "allow"]
        assert world.tools.calls == ["refund_customer"] * 2
        (stream,) = world.ledger.streams()
        assert stream.verdict is Verdict.COMPLETE

    play(scenario, tmp_path, server=AVAILABLE)


def test_what_was_spooled_survives_a_restart_without_the_ledger(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            await world.settle(lambda: introduced(world))
            await world.ledger.stop()
            await allowed(world)
        async with world.running():  # on the bundle that was kept
            await allowed(world)
            await world.ledger.start()
            await world.settle(lambda: len(world.ledger.outcomes()) >= 2)
        (stream,) = world.ledger.streams()
        assert (stream.verdict, stream.missing) == (Verdict.COMPLETE, ())
        starts = [r.body.kind for r in world.ledger.records if isinstance(r.body, Heartbeat)]
        assert starts == ["start", "stop", "start", "stop"]

    play(scenario, tmp_path, server=AVAILABLE)


@pytest.mark.parametrize("status", [429, 500, 503, 401, 403, 404])
def test_a_ledger_that_does_not_take_records_now_gets_them_again(tmp_path: Path, status: int) -> None:
    async def scenario(world: Surroundings) -> None:
        answers = [web.Response(status=status, headers={"Retry-After": "0"}) for _ in range(3)]
        world.ledger.fault = lambda _: answers.pop() if answers else None
        async with world.running():
            await world.settle(lambda: not answers)
            await world.settle(lambda: introduced(world))
            await allowed(world)
        (stream,) = world.ledger.streams()
        assert stream.verdict is Verdict.COMPLETE

    play(scenario, tmp_path)


def test_an_acknowledgement_that_was_lost_does_not_double_a_record(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        lost = [True, True]

        def take_but_fail(records: list[Record]) -> web.Response | None:
            if not lost:
                return None
            lost.pop()
            world.ledger.records.extend(record for record in records if record not in world.ledger.records)
            return web.Response(status=502)

        world.ledger.fault = take_but_fail
        async with world.running():
            await world.settle(lambda: not lost)
            await world.settle(lambda: len(world.ledger.posts) > 2)
            await allowed(world)
        (stream,) = world.ledger.streams()
        assert stream.verdict is Verdict.COMPLETE
        assert len({record.record_id for record in world.ledger.records}) == len(world.ledger.records)

    play(scenario, tmp_path)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_record_that_the_ledger_refuses_is_set_aside_declared_lost_and_holds_nobody_up(
    tmp_path: Path, status: int
) -> None:
    async def scenario(world: Surroundings) -> None:
        def refuse(records: list[Record]) -> web.Response | None:
            bad = any(isinstance(r.body, Decision) and r.body.tool == "transfer_funds" for r in records)
            return web.Response(status=status) if bad else None

        world.ledger.fault = refuse
        async with world.running() as gateway, world.client() as client:
            calls = [client.call_tool(tool, {"amount": 1}) for tool in ("refund_customer", "transfer_funds") * 3]
            results = await asyncio.gather(*calls, return_exceptions=True)
            await world.settle(lambda: gateway.metrics.registry.get_sample_value("tallystick_spool_records") == 0)
            aside = gateway.metrics.registry.get_sample_value("tallystick_set_aside_records")
        assert [isinstance(result, MCPError) for result in results] == [False, True] * 3
        assert world.tools.calls == ["refund_customer"] * 3
        assert aside == 3
        dropped = [record.body for record in world.ledger.records if isinstance(record.body, Dropped)]
        assert [(body.decisions, body.reason) for body in dropped] == [(1, "refused")] * 3
        (stream,) = world.ledger.streams()
        assert stream.missing == ()
        assert stream.lost_decisions == 3
        assert stream.verdict is Verdict.GAP

    play(scenario, tmp_path)


def test_a_strict_result_is_withheld_if_its_outcome_cannot_reach_the_ledger(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            async with world.client() as client:
                call = asyncio.create_task(client.call_tool("count_slowly", {"steps": 0}))
                await world.settle(lambda: bool(world.tools.calls))
                await world.ledger.stop()
                world.tools.go_on.set()
                with pytest.raises(MCPError) as caught:
                    await call
            await world.ledger.start()
            await world.settle(lambda: bool(world.ledger.outcomes()))
        assert caught.value.code == ErrorCode.RESULT_WITHHELD
        assert caught.value.error.data["reason"] == "ledger_unavailable"
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
        assert outcome.status == "completed"  # it was: the record says what happened, the client did not get it

    play(scenario, tmp_path, server=STRICT, recording={"strict_seconds": 0.3})


# --- the policy is away or broken


def test_without_a_bundle_nothing_is_permitted(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        world.ledger.bundle = None
        async with world.running():
            assert (await denied(world))["reason"] == "no_bundle"
        (decision,) = world.ledger.decisions()
        assert (decision.decision, decision.enforcement, decision.bundle) == ("INDETERMINATE", "deny", None)
        assert decision.request is not None

    play(scenario, tmp_path)


def test_a_bundle_that_does_not_load_denies_every_call(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        world.ledger.bundle = cedar_bundle("permit (principal, action, resource")  # the parenthesis is missing
        evaluator = Evaluator({"cedar": CedarEngine()})
        world.evaluator = evaluator  # type: ignore[assignment]  # the real one
        try:
            async with world.running():
                assert (await denied(world))["reason"] == "bundle_error"
        finally:
            evaluator.close()
        (decision,) = world.ledger.decisions()
        assert (decision.decision, decision.enforcement) == ("INDETERMINATE", "deny")
        assert decision.bundle is not None
        assert decision.bundle.engine == "cedar"

    play(scenario, tmp_path)


def test_real_cedar_decides_a_real_call(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        world.ledger.bundle = cedar_bundle(
            '@id("refunds") permit (principal in Role::"finance", action == Action::"tools/call",'
            ' resource == Tool::"finance/refund_customer");'
            '@id("lists") permit (principal, action == Action::"tools/list", resource);'
        )
        evaluator = Evaluator({"cedar": CedarEngine()})
        world.evaluator = evaluator  # type: ignore[assignment]  # the real one
        try:
            async with world.running():
                await allowed(world)
                assert (await denied(world, "transfer_funds"))["reason"] == "no_permit"
        finally:
            evaluator.close()
        assert [decision.rules for decision in world.ledger.decisions()] == [("refunds",), ()]
        assert [decision.decision for decision in world.ledger.decisions()] == ["PERMIT", "NOT_APPLICABLE"]

    play(scenario, tmp_path)


def test_an_engine_that_raises_denies_and_is_recorded(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            assert (await denied(world))["reason"] == "engine_error"
        (decision,) = world.ledger.decisions()
        assert (decision.decision, decision.enforcement, decision.reason) == ("INDETERMINATE", "deny", "engine_error")

    def explode(_: object) -> dict[str, Any]:
        raise RuntimeError("engine failure with a secret in it")

    play(scenario, tmp_path, answer=explode)


def test_an_engine_that_does_not_answer_in_time_denies(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async def never(*_: object) -> list[Any]:
            await asyncio.Event().wait()
            return []

        world.evaluator.evaluate_many = never  # type: ignore[method-assign]  # an engine that hangs
        async with world.running():
            assert (await denied(world))["reason"] == "limited"

    play(scenario, tmp_path, limits={"evaluation_seconds": 0.1})


def test_gateway_whose_engine_has_no_process_lets_nothing_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processes are killed, and no other can be started; then they can again."""

    def fail(*_: object, **__: object) -> None:
        raise OSError

    async def scenario(world: Surroundings) -> None:
        world.ledger.bundle = cedar_bundle(
            '@id("refunds") permit (principal, action == Action::"tools/call", resource);'
            '@id("lists") permit (principal, action == Action::"tools/list", resource);'
        )
        pool = WorkerPool(clock=lambda: now[0])
        evaluator = Evaluator({"cedar": WorkerEngine(installed_program(ENGINE_KINDS[0]), pool)}, workers=pool)
        world.evaluator = evaluator  # type: ignore[assignment]  # the real one
        try:
            async with world.running():
                await allowed(world)
                with monkeypatch.context() as broken:
                    broken.setattr("policies.worker_process.subprocess.Popen", fail)
                    for pid in pool.pids():
                        os.kill(pid, signal.SIGKILL)
                    for _ in range(3):
                        assert (await denied(world))["reason"] == "limited"
                now[0] += 60
                await allowed(world)
        finally:
            evaluator.close()
        told = [(decision.decision, decision.reason) for decision in world.ledger.decisions()]
        assert told == [("PERMIT", "policy"), *[("INDETERMINATE", "limited")] * 3, ("PERMIT", "policy")]

    now = [0.0]
    play(scenario, tmp_path, limits={"evaluation_seconds": 60})


def test_an_answer_that_no_record_can_hold_is_denied_and_recorded_without_it(tmp_path: Path) -> None:
    """A rule whose name is no name would make a record that the ledger refuses: the call fails closed instead."""

    async def scenario(world: Surroundings) -> None:
        async with world.running():
            told = await denied(world)
        assert told["reason"] == "internal_error"
        ((record_id, decision),) = [(r.record_id, r.body) for r in world.ledger.records if isinstance(r.body, Decision)]
        assert record_id == told["decision_id"]
        assert (decision.decision, decision.reason, decision.rules) == ("INDETERMINATE", "internal_error", ())

    play(scenario, tmp_path, answer=lambda _: {"effect": Effect.PERMIT, "rules": ("a rule, with spaces",)})


def test_a_new_bundle_decides_from_the_next_call_on(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:
            await allowed(world)
            world.ledger.bundle = simple_bundle("second")
            assert await gateway.refresh_bundle() == world.ledger.bundle.revision
            await allowed(world)
        revisions = [d.bundle.revision for d in world.ledger.decisions() if d.bundle]
        assert revisions == [simple_bundle().revision, simple_bundle("second").revision]

    play(scenario, tmp_path)


# --- the gateway itself


def test_a_call_that_was_open_when_the_gateway_died_is_closed_as_unknown(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:
            pep = gateway.core.require().passage._pep  # it is not let report

            async def forget(*_: object) -> None:
                await asyncio.Event().wait()

            pep.complete = forget  # type: ignore[method-assign]  # as if the process had died here
            async with world.client() as client:
                call = asyncio.create_task(client.call_tool("refund_customer", {"amount": 1}))
                await world.settle(lambda: world.tools.calls == ["refund_customer"])
                call.cancel()
                await asyncio.gather(call, return_exceptions=True)
            for task in gateway.core.require().passage._records:  # the tasks die with it
                task.cancel()
        assert world.ledger.outcomes() == []
        async with world.running():
            await world.settle(lambda: bool(world.ledger.outcomes()))
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
        assert (outcome.status, outcome.reason) == ("unknown", "gateway_restarted")

    play(scenario, tmp_path)


def test_numbers_go_on_over_a_restart(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        for _ in range(3):
            async with world.running():
                await allowed(world)
        (stream,) = world.ledger.streams()
        assert (stream.verdict, stream.decisions) == (Verdict.COMPLETE, len(world.ledger.decisions(None)))
        assert [record.seq for record in world.ledger.records] == list(range(1, len(world.ledger.records) + 1))

    play(scenario, tmp_path)


def test_a_lost_spool_begins_a_new_epoch_that_names_the_old_one(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            await allowed(world)
        for file in (tmp_path / "state").glob("state.db*"):
            file.unlink()
        async with world.running():
            await allowed(world)
        first, second = dict.fromkeys(record.epoch for record in world.ledger.records)
        assert {stream.epoch: stream.verdict for stream in world.ledger.streams()} == {
            first: Verdict.COMPLETE,
            second: Verdict.COMPLETE,
        }
        start = next(record for record in world.ledger.records if record.epoch == second)
        assert isinstance(start.body, Heartbeat)
        assert (start.seq, start.body.kind, start.body.previous_epoch) == (1, "start", first)

    play(scenario, tmp_path)


def test_an_older_spool_that_was_put_back_begins_a_new_epoch(tmp_path: Path) -> None:
    """The ledger knows numbers that the old copy gives again: conflicts, which must not stop the gateway for good."""

    async def scenario(world: Surroundings) -> None:
        async with world.running():
            await allowed(world)
        old = {file: file.read_bytes() for file in (tmp_path / "state").glob("state.db*")}
        async with world.running():
            await allowed(world)
        for file, data in old.items():
            file.write_bytes(data)
        async with world.running():
            await world.settle(lambda: len({record.epoch for record in world.ledger.records}) == 2)
            await allowed(world)
        last = world.ledger.records[-1].epoch
        start = next(record for record in world.ledger.records if record.epoch == last)
        assert isinstance(start.body, Heartbeat)
        assert start.body.previous_epoch == world.ledger.records[0].epoch

    play(scenario, tmp_path)


def test_calls_made_on_an_older_spool_that_was_put_back_reach_the_log_with_their_decisions(tmp_path: Path) -> None:
    """Who can restore a backup must not be able to make executed calls vanish from a log that looks complete."""

    async def scenario(world: Surroundings) -> None:
        async with world.running():
            await allowed(world)
        state, copy = tmp_path / "state", tmp_path / "copy"
        shutil.copytree(state, copy)
        async with world.running():
            for _ in range(3):
                await allowed(world)
        shutil.rmtree(state)
        copy.rename(state)
        known = set(world.ledger.decision_ids())
        done = len(world.tools.calls)
        world.ledger.fault = lambda _: web.Response(status=503)
        async with world.running() as gateway:
            for _ in range(3):
                await allowed(world)
            world.ledger.fault = lambda _: None
            await world.settle(lambda: gateway.metrics.registry.get_sample_value("tallystick_spool_records") == 0)
            await world.settle(lambda: len(set(world.ledger.decision_ids()) - known) == 3)
            await allowed(world)
        new = [one for one in world.ledger.decision_ids() if one not in known]
        assert len(world.tools.calls) - done == len(new) == 4
        for decision_id in new:
            (outcome,) = world.ledger.outcomes(decision_id)
            assert outcome.status == "completed"
        first, second = dict.fromkeys(record.epoch for record in world.ledger.records)
        start = next(record for record in world.ledger.records if record.epoch == second)
        assert isinstance(start.body, Heartbeat)
        assert (start.seq, start.body.kind, start.body.previous_epoch) == (1, "start", first)
        assert [stream.missing for stream in world.ledger.streams()] == [(), ()]
        assert not [record for record in world.ledger.records if isinstance(record.body, Dropped)]

    play(scenario, tmp_path, server=AVAILABLE)


def test_two_gateways_do_not_share_a_state_directory(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            with pytest.raises(ConfigError, match="another gateway"):
                async with world.running():
                    pass
            await allowed(world)

    play(scenario, tmp_path)


def test_a_full_spool_denies_and_says_so(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:
            await world.settle(lambda: introduced(world))
            await world.ledger.stop()
            reasons: list[str] = []
            async with world.client() as client:
                for _ in range(60):
                    try:
                        await client.call_tool("refund_customer", {"amount": 1, "note": "x" * 1000})
                    except MCPError as error:
                        reasons.append(error.error.data["reason"])
            calls = len(world.tools.calls)
            assert (await ready(world))["ready"] is False
            unrecorded = gateway.metrics.registry.get_sample_value("tallystick_unrecorded_denials_total")
            await world.ledger.start()
            await world.settle(lambda: gateway.metrics.registry.get_sample_value("tallystick_spool_records") == 0)
            await allowed(world)
        assert set(reasons) == {"spool_full"}
        denials = [d for d in world.ledger.decisions() if d.reason == "spool_full"]
        assert denials
        assert len(denials) + unrecorded == len(reasons)
        assert len(world.ledger.decisions()) == calls + len(denials) + 1
        (stream,) = world.ledger.streams()
        assert stream.verdict is Verdict.COMPLETE

    play(scenario, tmp_path, server=AVAILABLE, recording={"spool_bytes": 1 << 16})


async def ready(world: Surroundings) -> dict[str, Any]:
    async with world.http() as http:
        answer = await http.get(f"{world.url}/readyz")
    assert (answer.status_code == 200) is answer.json()["ready"]
    return dict(answer.json())


def test_readiness_says_what_there_is(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway, world.http() as http:
            assert (await http.get(f"{world.url}/healthz")).text == "ok\n"
            await world.settle(lambda: introduced(world))
            assert (await ready(world))["ready"] is True
            await world.ledger.stop()
            await denied(world)
            state = await ready(world)
            assert (state["ready"], state["ledger_reachable"]) == (True, False)
            await world.ledger.start()
            world.ledger.bundle = None
            await gateway.refresh_bundle()
            assert (await ready(world))["bundle_usable"] is False
            metrics = (await http.get(f"{world.url}/metrics")).text
        assert 'tallystick_decisions_total{decision="PERMIT"' in metrics
        assert "tallystick_ledger_reachable" in metrics
        for text in ("alice", "Finance-Bot", "refund_customer"):
            assert text not in metrics

    play(scenario, tmp_path, recording={"strict_seconds": 0.3})


# --- the server is away


def test_a_server_that_is_away_is_a_failed_call_with_an_error_for_the_client(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        world.upstream = "http://127.0.0.1:1/mcp"
        async with world.running():
            told = await denied(world)
        assert (told["code"], told["reason"]) == (ErrorCode.UPSTREAM_FAILED, "upstream_unreachable")
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
        assert (outcome.status, outcome.reason) == ("failed", "upstream_unreachable")

    play(scenario, tmp_path)


def raw_answers() -> dict[str, tuple[web.Response, str]]:
    ok, event = "application/json", "text/event-stream"
    long_answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"text": "x" * 5000}})
    return {
        "no JSON": (web.Response(text="<html>", content_type=ok), "malformed_answer"),
        "another id": (web.Response(text='{"jsonrpc":"2.0","id":99,"result":{}}', content_type=ok), "malformed_answer"),
        "another type": (web.Response(text="hello", content_type="text/html"), "malformed_answer"),
        "nothing": (web.Response(status=202), "malformed_answer"),
        "error page": (web.Response(status=500, text="no", content_type="text/plain"), "upstream_status"),
        "status beyond HTTP": (web.Response(status=777, text="{}", content_type=ok), "malformed_answer"),
        "redirect": (web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"}), "upstream_redirect"),
        "too long": (web.Response(text=long_answer, content_type=ok), "answer_too_large"),
        "encoded": (
            web.Response(body=b"x", content_type=ok, headers={"Content-Encoding": "gzip"}),
            "malformed_answer",
        ),
        "stream without answer": (web.Response(text=": ping\n\n", content_type=event), "no_answer"),
        "stream of another kind": (
            web.Response(text='event: other\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\n\n', content_type=event),
            "malformed_answer",
        ),
        "stream with a request": (
            web.Response(text='data: {"jsonrpc":"2.0","id":5,"method":"ping"}\n\n', content_type=event),
            "malformed_answer",
        ),
        "stream with a long event": (
            web.Response(text=f"data: {long_answer}\n\n", content_type=event),
            "answer_too_large",
        ),
    }


@pytest.mark.parametrize("case", raw_answers())
def test_an_answer_that_is_none_is_a_failed_call_with_an_error_for_the_client(tmp_path: Path, case: str) -> None:
    async def scenario(world: Surroundings) -> None:
        async with raw_server(lambda _: raw_answers()[case][0]) as url:
            world.upstream = url
            async with world.running():
                told = await denied(world)
        reason = raw_answers()[case][1]
        assert (told["code"], told["reason"]) == (ErrorCode.UPSTREAM_FAILED, reason)
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
        assert (outcome.status, outcome.reason) == ("failed", reason)

    play(scenario, tmp_path, limits={"answer_bytes": 4096})


@asynccontextmanager
async def raw_server(answer: Callable[[web.Request], web.Response]) -> AsyncIterator[str]:
    """A server that answers what it is told to; yields its URL."""

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return answer(request)

    app = web.Application()
    app.router.add_post("/mcp", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
    finally:
        await runner.cleanup()


def test_a_server_gets_the_body_as_sent_and_no_credential_of_the_client(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        seen: list[tuple[dict[str, str], bytes]] = []

        def answer(request: web.Request) -> web.Response:
            seen.append(({key.lower(): value for key, value in request.headers.items()}, request._read_bytes or b""))
            return web.Response(
                text='{"jsonrpc":"2.0","id":7,"result":{}}',
                content_type="application/json",
                headers={"Set-Cookie": "server=1"},
            )

        body = b" " + body_of(arguments={"amount": 1.0}) + b"\n"
        extra = (
            ("mcp-param-region", "eu"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "10.0.0.1"),
            ("proxy-authorization", "Basic x"),
            ("connection", "keep-alive, mcp-param-region"),
        )
        async with raw_server(answer) as url:
            world.upstream = url
            secret = tmp_path / "credential"
            secret.write_text("Bearer of-the-gateway\n")
            secret.chmod(0o600)
            async with world.running(server={"authorization": f"file:{secret}"}), world.http(None) as http:
                headers = headers_of(token="finance-token", extra=extra)
                answers = [await http.post(world.mcp_url, content=body, headers=headers) for _ in range(2)]
        assert [answer.content for answer in answers] == [b'{"jsonrpc":"2.0","id":7,"result":{}}'] * 2
        assert "set-cookie" not in answers[0].headers
        (headers_seen, body_seen), (again, _) = seen
        assert body_seen == body
        assert headers_seen["authorization"] == again["authorization"] == "Bearer of-the-gateway"
        assert headers_seen["mcp-param-region"] == "eu"
        assert headers_seen["mcp-name"] == "refund_customer"
        assert {"cookie", "x-forwarded-for", "proxy-authorization"}.isdisjoint(headers_seen | again)

    play(scenario, tmp_path)


def test_a_denied_call_is_denied_even_if_nothing_can_be_recorded(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running() as gateway:

            def fail(*_: object) -> None:
                raise OSError("disk")

            gateway.core.require().recorder._spool.append = fail  # type: ignore[method-assign, assignment]  # the disk is gone
            told = [await denied(world), await denied(world, "transfer_funds")]
            assert gateway.metrics.registry.get_sample_value("tallystick_unrecorded_denials_total") == 2
            state = await ready(world)
            assert (state["ready"], state["spool_usable"]) == (False, False)
            del gateway.core.require().recorder._spool.append  # and back
            gateway.core.require().recorder.beat_soon()
            await world.settle(lambda: gateway.core.readiness()[0])
        assert [one["decision_id"] for one in told] == [None, None]
        assert world.ledger.decisions() == []

    play(scenario, tmp_path, answer=deny_tool("transfer_funds"))
