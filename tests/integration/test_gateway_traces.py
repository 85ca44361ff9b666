"""Spans and metrics of calls: a client, a gateway and a server, and a collector that takes OTLP over HTTP."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from ledger.errors import ConfigError
from tests.support.both_eras import legacy
from tests.support.gateway import Surroundings, bound, deny_tool, surroundings
from tests.support.mcp_messages import META, body_of, headers_of
from tests.support.otlp import Collector, collecting

Scenario = Callable[[Surroundings, Collector], Awaitable[None]]
SECRET_NOTE = "for-the-eyes-of-alice"
CALL = ("refund_customer", {"amount": 12.5, "note": SECRET_NOTE})


def play(scenario: Scenario, directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with collecting() as collector:
            telemetry = {"endpoint": collector.url, "stop_seconds": 10, **options.pop("telemetry", {})}
            async with surroundings(directory, telemetry=telemetry, **options) as world:
                await scenario(world, collector)

    asyncio.run(run())


def text(result: Any) -> str:
    return str(result.content[0].text)


@pytest.fixture
def sdk_spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The spans of the official SDK's own clients and servers in this process."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("mcp.shared._otel._tracer", provider.get_tracer("test"))
    return exporter


@pytest.mark.parametrize("era", ["2026-07-28", "2025-11-25"])
def test_one_trace_leads_from_the_client_over_the_gateway_to_the_server_and_into_the_record(
    era: str, tmp_path: Path, sdk_spans: InMemorySpanExporter
) -> None:
    async def scenario(world: Surroundings, collector: Collector) -> None:
        client_of = legacy(world) if era == "2025-11-25" else world.client()
        async with world.running(), client_of as client:
            await client.call_tool(*CALL)
        name = "tools/call refund_customer"
        ours = {span.name: span for span in collector.of("server")}[name]
        onward = collector.of("client", name)

        def of_the_sdk() -> list[ReadableSpan]:
            return [span for span in sdk_spans.get_finished_spans() if span.name.endswith(name)]

        await world.settle(lambda: len(of_the_sdk()) == 2)  # the server's ends after its answer has gone
        sdk = of_the_sdk()
        (sent,) = [span for span in sdk if span.kind is SpanKind.CLIENT]
        (served,) = [span for span in sdk if span.kind is SpanKind.SERVER]
        trace_id = f"{sent.context.trace_id:032x}"
        assert (ours.trace_id, ours.parent_id) == (trace_id, f"{sent.context.span_id:016x}")
        assert [(span.trace_id, span.parent_id) for span in onward] == [(trace_id, ours.span_id)]
        assert f"{served.context.trace_id:032x}" == trace_id
        (decision,) = world.ledger.decisions()
        assert decision.trace_id == trace_id
        (decide,) = [span for span in collector.of("internal") if span.parent_id == ours.span_id]
        assert decide.attributes["tallystick.decision_id"] == world.ledger.decision_ids()[0]
        assert decide.attributes["tallystick.decision"] == "PERMIT"
        assert ours.attributes["mcp.session.id"] == decision.session
        assert ours.attributes["mcp.protocol.version"] == era
        assert ours.attributes["gen_ai.operation.name"] == "execute_tool"
        assert "error.type" not in ours.attributes
        assert onward[0].attributes["server.address"] == "127.0.0.1"
        assert not ours.failed
        assert collector.resources[0]["service.name"] == "tallystick-gateway"
        assert collector.resources[0]["service.instance.id"] == "gateway-1"

    play(scenario, tmp_path)


def test_a_denial_ends_its_span_as_an_error_and_the_server_has_none(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, collector: Collector) -> None:
        async with world.running(), world.client() as client:
            with pytest.raises(MCPError):
                await client.call_tool(*CALL)
        (span,) = collector.of("server", "tools/call refund_customer")
        assert span.failed
        assert span.attributes["error.type"] == span.attributes["rpc.response.status_code"] == "-32010"
        assert span.attributes["tallystick.reason"] == "policy"
        assert span.attributes["tallystick.rule"] == "refund_customer-forbidden"
        assert collector.of("client", "tools/call refund_customer") == []
        (decision,) = world.ledger.decisions()
        assert decision.trace_id == span.trace_id
        (point,) = [
            one for one in collector.points("mcp.server.operation.duration") if one["mcp.method.name"] == "tools/call"
        ]
        assert point["error.type"] == "-32010"

    play(scenario, tmp_path, answer=deny_tool("refund_customer"))


def test_a_trace_begins_at_the_gateway_if_the_client_has_none_and_goes_on_in_the_header(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, collector: Collector) -> None:
        @world.tools.server.tool()
        async def parent_of(ctx: Context) -> str:
            request = ctx.request_context.request
            return str(request.headers["traceparent"])  # type: ignore[union-attr]

        async with world.running(), world.client() as client:
            result = await client.call_tool("parent_of", {})
        (onward,) = collector.of("client", "tools/call parent_of")
        assert text(result).startswith(f"00-{onward.trace_id}-{onward.span_id}-")
        (decision,) = world.ledger.decisions()
        assert decision.trace_id == onward.trace_id

    play(scenario, tmp_path)


def test_what_the_http_request_says_of_another_trace_is_a_link(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, collector: Collector) -> None:
        meta = {"traceparent": f"00-{'a' * 32}-{'1' * 16}-01"}
        params = {"name": "refund_customer", "arguments": {"amount": 1}, "_meta": {**META, **meta}}
        body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()
        extra = (("traceparent", f"00-{'b' * 32}-{'2' * 16}-01"), ("tracestate", "vendor=1"))
        async with world.running(), world.http() as http:
            lines = {key.decode(): value.decode() for key, value in headers_of(extra=extra)}
            await http.post(world.mcp_url, content=body, headers=lines)
        (span,) = collector.of("server")
        assert (span.trace_id, span.parent_id, span.links) == ("a" * 32, "1" * 16, ["b" * 32])
        (decision,) = world.ledger.decisions()
        assert decision.trace_id == "a" * 32

    play(scenario, tmp_path)


def test_no_value_of_a_call_reaches_the_collector(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, collector: Collector) -> None:
        async with world.running(), world.client() as client:
            await client.call_tool(*CALL)
            with pytest.raises(MCPError):
                await client.read_resource("file:///home/alice/letter.txt")
            await client.call_tool("break_down", {})
        sent = b"".join(collector.bodies)
        assert b"refund_customer" in sent
        for value in (SECRET_NOTE, "12.5", "letter.txt", "alice", "finance-token", "out of order"):
            assert value.encode() not in sent
        (broken,) = collector.of("server", "tools/call break_down")
        assert broken.attributes["error.type"] == "tool_error"

    play(scenario, tmp_path)


def test_what_a_caller_makes_up_becomes_no_attribute_of_a_metric(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, collector: Collector) -> None:
        async with world.running(), world.http() as http:
            for body, method, name in (
                (body_of("made/up", name=None), "made/up", None),
                (body_of(name="made-up-tool"), "tools/call", "made-up-tool"),
            ):
                lines = {key.decode(): value.decode() for key, value in headers_of(method, name)}
                await http.post(world.mcp_url, content=body, headers=lines)
            await http.post(world.mcp_url, content=b"made-up", headers={"Content-Type": "application/json"})
        points = collector.points("mcp.server.operation.duration") + collector.points("mcp.client.operation.duration")
        assert len(points) >= 3
        assert not any("made" in str(value) for point in points for value in point.values())
        assert {"_OTHER", "tools/call"} == {point["mcp.method.name"] for point in points}

    play(scenario, tmp_path)


def test_the_collector_gets_the_headers_of_its_file_and_what_the_settings_say_of_the_resource(tmp_path: Path) -> None:
    headers = tmp_path / "collector-headers"
    headers.write_text("x-api-key=letmein, x-team=payments\n")
    headers.chmod(0o600)

    async def scenario(world: Surroundings, collector: Collector) -> None:
        async with world.running(), world.client() as client:
            await client.call_tool(*CALL)
        assert all((one["x-api-key"], one["x-team"]) == ("letmein", "payments") for one in collector.headers)
        assert collector.resources[0]["service.name"] == "agents"
        assert collector.resources[0]["team"] == "payments"

    resource = {"service.name": "agents", "team": "payments"}
    play(scenario, tmp_path, telemetry={"headers": f"file:{headers}", "resource": resource})


def test_headers_that_are_none_keep_the_gateway_from_starting(tmp_path: Path) -> None:
    headers = tmp_path / "collector-headers"
    headers.write_text("nonsense\n")
    headers.chmod(0o600)

    async def scenario(world: Surroundings, _collector: Collector) -> None:
        with pytest.raises(ConfigError, match="name=value"):
            await world.build().start()

    play(scenario, tmp_path, telemetry={"headers": f"file:{headers}"})


def test_no_trace_is_kept_at_a_ratio_of_nought_but_its_id_is_recorded_and_goes_on(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, collector: Collector) -> None:
        async with world.running(), world.client() as client:
            await client.call_tool(*CALL)
        assert collector.spans == []
        (decision,) = world.ledger.decisions()
        assert decision.trace_id is not None
        assert collector.points("mcp.server.operation.duration") != []

    play(scenario, tmp_path, telemetry={"sample_ratio": 0})


def test_calls_go_on_while_the_collector_is_down_and_lost_spans_are_counted(tmp_path: Path) -> None:
    async def run() -> None:
        with bound() as nobody:
            endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
            telemetry = {"endpoint": endpoint, "stop_seconds": 0.1, "queue_spans": 64}
            async with surroundings(tmp_path, telemetry=telemetry) as world:
                async with world.running() as gateway, world.client() as client:
                    for _ in range(24):  # three spans each
                        assert text(await client.call_tool("transfer_funds", {"amount": 1}))
                counted = {
                    sample.labels["result"]: sample.value
                    for metric in gateway.metrics.spans.collect()
                    for sample in metric.samples
                    if sample.name.endswith("_total")
                }
                assert counted.get("sent", 0) == 0
                assert counted["dropped"] + counted.get("failed", 0) >= 72
                assert len(world.ledger.decisions()) == 24

    asyncio.run(run())


def test_a_collector_that_does_not_answer_holds_up_neither_calls_nor_the_end(tmp_path: Path) -> None:
    async def scenario(world: Surroundings, collector: Collector) -> None:
        collector.held = asyncio.Event()
        async with world.running(), world.client() as client:
            assert text(await client.call_tool("transfer_funds", {"amount": 1}))
        assert not collector.held.is_set()
        assert collector.spans == []
        collector.held.set()

    play(scenario, tmp_path, telemetry={"stop_seconds": 0.1, "timeout_seconds": 0.5})


def test_nothing_of_the_sdk_is_imported_where_nobody_asked_for_telemetry() -> None:
    script = "import sys, enforcement.gateway; print(any(name.startswith('opentelemetry') for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_the_setting_the_trace_of_the_client_goes_on_and_into_the_record(
    tmp_path: Path, sdk_spans: InMemorySpanExporter
) -> None:
    async def run() -> None:
        async with surroundings(tmp_path) as world:
            async with world.running(), world.client() as client:
                await client.call_tool(*CALL)
            (decision,) = world.ledger.decisions()
            calls = [span for span in sdk_spans.get_finished_spans() if span.name.endswith("refund_customer")]
            assert {f"{span.context.trace_id:032x}" for span in calls} == {decision.trace_id}

    asyncio.run(run())
