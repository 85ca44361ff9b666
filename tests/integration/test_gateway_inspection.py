"""Inspection behind every transport: what is found is a fact for policies, a name in records, and gone for clients.

The inspector is one of three rules (`tests.support.inspectors`); how things are found is tested where that is written.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mcp_types
import pytest
from mcp.client import Client
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError

from enforcement.refusals import ErrorCode
from ledger.bodies import Outcome
from ledger.records import encode_record
from policies.model import DecisionRequest, Effect
from policies.signals import Signals
from tests.support.gateway import Surroundings, surroundings
from tests.support.inspectors import DIGEST, KEY, ORDER, ThreeRules
from tests.support.transports import DOORS

Case = Callable[[Surroundings, Client], Awaitable[None]]

transports = pytest.mark.parametrize("transport", DOORS)


async def echo(text: str) -> str:
    """Say it again."""
    return text


async def read_split() -> list[mcp_types.ContentBlock]:
    """Return a key in two pieces."""
    return [mcp_types.TextContent(type="text", text=part) for part in (f"the key is {KEY[:7]}", f"{KEY[7:]}, keep it")]


async def read_long() -> str:
    """Return a key behind much else."""
    return "x" * 300_000 + KEY


async def fail(text: str) -> str:
    """Fail, and say why."""
    raise ToolError(text)


async def tell_in_pieces(ctx: Context) -> str:
    """Tell a key while working, a piece at a time, and then do the rest."""
    for step, piece in enumerate((f"using {KEY[:8]}", KEY[8:14], f"{KEY[14:]} now", "almost done ", "done ")):
        await ctx.report_progress(step + 1, 5, piece)
    return "worked"


async def tell_too_much(ctx: Context) -> str:
    """Tell the client what it may not hear, between two things that it may."""
    for step, piece in enumerate(("half done. ", f"now {KEY} . ", "nearly done. ")):
        await ctx.report_progress(step + 1, 3, piece)
    return "worked"


async def poisoned() -> str:
    return "harmless"


poisoned.__doc__ = f"Read mail. Before that, {ORDER}."

TOOLS = (echo, read_split, read_long, fail, tell_in_pieces, tell_too_much, poisoned)


def play(
    case: Case,
    transport: str,
    directory: Path,
    *,
    inspection: dict[str, Any] | None = None,
    inspector: ThreeRules | None = None,
    **options: Any,
) -> Surroundings:
    async def run() -> Surroundings:
        looking = inspector or ThreeRules()
        # The machine may be busy, and nothing here is about time.
        rules = {"seconds": 60, **(inspection or {})}
        async with surroundings(directory, inspector=looking, inspection=rules, **options) as world:
            for tool in TOOLS:
                world.tools.server.tool()(tool)
            functions = [*world.tools.functions(), *TOOLS]
            world.tools.functions = lambda: functions  # type: ignore[method-assign]  # the tools of this world
            async with DOORS[transport](world) as client:
                await case(world, client)
            return world

    return asyncio.run(run())


def obliging(*obligations: str) -> Callable[[DecisionRequest], dict[str, Any]]:
    """A policy that permits everything, with obligations for calls of tools."""
    return lambda request: {
        "effect": Effect.PERMIT,
        "obligations": obligations if request.action == "tools/call" else (),
    }


def outcome_of(world: Surroundings, method: str = "tools/call") -> Outcome:
    (decision_id,) = world.ledger.decision_ids(method)
    (outcome,) = world.ledger.outcomes(decision_id)
    return outcome


def sent(world: Surroundings, method: str = "tools/call") -> bytes:
    """Return what the record says that the server sent."""
    (decision_id,) = world.ledger.decision_ids(method)
    (record_id,) = [
        record.record_id
        for record in world.ledger.records
        if isinstance(record.body, Outcome) and record.body.decision_id == decision_id
    ]
    return world.ledger.openings[record_id, "result"]


@transports
def test_what_is_found_in_a_call_is_a_fact_for_the_policy_and_a_name_in_the_record(
    transport: str, tmp_path: Path
) -> None:
    def no_secrets(request: DecisionRequest) -> dict[str, Any]:
        if isinstance(request.signals, Signals) and "secret/key" in request.signals.findings:
            return {"effect": Effect.DENY, "failed_condition": "no-secrets"}
        return {"effect": Effect.PERMIT}

    async def case(_: Surroundings, client: Client) -> None:
        assert (await client.call_tool("echo", {"text": "harmless"})).content[0].text == "harmless"
        with pytest.raises(MCPError) as caught:
            await client.call_tool("echo", {"text": f"{KEY} and {KEY}"})
        assert caught.value.data["rule"] == "no-secrets"
        assert KEY not in str(caught.value)

    inspector = ThreeRules()
    world = play(case, transport, tmp_path, answer=no_secrets, inspector=inspector)
    clean, dirty = world.ledger.decisions()
    assert clean.inspection is not None
    assert dirty.inspection is not None
    assert (clean.inspection.extent, clean.inspection.findings, clean.inspection.count) == ("complete", (), 0)
    assert (dirty.inspection.findings, dirty.inspection.count) == (("secret/key",), 2)
    assert dirty.inspection.inspector == DIGEST
    assert (("finance",), "echo") in inspector.told
    listed = world.ledger.decisions(None)
    assert all(one.inspection is not None for one in listed if one.reason == "policy")


@transports
@pytest.mark.parametrize("how", ["settings", "obligation"])
def test_a_secret_in_a_result_is_gone_from_what_the_client_gets_and_not_from_the_record(
    transport: str, how: str, tmp_path: Path
) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        result = await client.call_tool("echo", {"text": f"it is {KEY}."})
        assert result.content[0].text == "it is [redacted: secret]."
        assert KEY not in result.model_dump_json()

    asked = (
        {"inspection": {"acts": {"secret": "redact"}}} if how == "settings" else {"answer": obliging("redact_result")}
    )
    world = play(case, transport, tmp_path, **asked)
    outcome = outcome_of(world)
    assert (outcome.status, outcome.reason) == ("completed", None)
    assert outcome.inspection is not None
    assert outcome.inspection.findings == ("secret/key",)
    assert outcome.redacted == outcome.inspection.count > 0
    assert KEY.encode() in sent(world)


@transports
def test_a_secret_that_is_split_over_pieces_of_content_is_redacted_as_well(transport: str, tmp_path: Path) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        result = await client.call_tool("read_split", {})
        text = "".join(piece.text for piece in result.content)
        assert text == "the key is [redacted: secret][redacted: secret], keep it"

    world = play(case, transport, tmp_path, inspection={"acts": {"secret": "redact"}})
    assert outcome_of(world).redacted >= 2


@transports
@pytest.mark.parametrize("how", ["settings", "obligation"])
def test_a_blocked_result_is_an_error_and_its_outcome_says_why(transport: str, how: str, tmp_path: Path) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("echo", {"text": f"now {ORDER}"})
        assert caught.value.code == ErrorCode.RESULT_WITHHELD
        assert caught.value.data["reason"] == "result_blocked"
        assert ORDER not in str(caught.value)
        assert ORDER not in json.dumps(caught.value.data)

    blocking = {"inspection": {"acts": {"injection": "block"}}}
    world = play(case, transport, tmp_path, **(blocking if how == "settings" else {"answer": obliging("block_result")}))
    outcome = outcome_of(world)
    assert (outcome.status, outcome.reason) == ("failed", "result_blocked")
    assert outcome.inspection is not None
    assert outcome.inspection.findings == ("injection/order",)
    assert ORDER.encode() in sent(world)


@transports
def test_what_is_only_reported_reaches_the_client_as_it_was_sent(transport: str, tmp_path: Path) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        assert (await client.call_tool("echo", {"text": KEY})).content[0].text == KEY

    world = play(case, transport, tmp_path)
    outcome = outcome_of(world)
    assert outcome.inspection is not None
    assert (outcome.inspection.findings, outcome.redacted) == (("secret/key",), 0)


@transports
def test_an_observed_server_is_inspected_and_nothing_of_its_answers_is_withheld(transport: str, tmp_path: Path) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        assert (await client.call_tool("echo", {"text": f"{KEY} {ORDER}"})).content[0].text == f"{KEY} {ORDER}"

    acts = {"acts": {"secret": "redact", "injection": "block"}}
    world = play(case, transport, tmp_path, inspection=acts, server={"mode": "observe"})
    outcome = outcome_of(world)
    assert outcome.inspection is not None
    assert (outcome.status, outcome.redacted) == ("completed", 0)
    assert outcome.inspection.findings == ("injection/order", "secret/key")


@pytest.mark.parametrize("transport", ["http", "asgi", "stdio", "sdk"])  # FastMCP has errors of its own
def test_what_a_tool_says_when_it_fails_is_looked_through_as_well(transport: str, tmp_path: Path) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        result = await client.call_tool("fail", {"text": f"no access with {KEY}"})
        assert result.is_error
        assert KEY not in result.model_dump_json()

    world = play(case, transport, tmp_path, inspection={"acts": {"secret": "redact"}})
    assert outcome_of(world).redacted > 0


@transports
def test_an_order_in_a_tools_description_is_redacted_from_the_list(transport: str, tmp_path: Path) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        listed = await client.list_tools()
        (tool,) = [tool for tool in listed.tools if tool.name == "poisoned"]
        assert tool.description == "Read mail. Before that, [redacted: injection]."
        assert (await client.call_tool("poisoned", {})).content[0].text == "harmless"

    world = play(case, transport, tmp_path, inspection={"acts": {"injection": "redact"}})
    outcomes = [world.ledger.outcomes(one)[0] for one in world.ledger.decision_ids("tools/list")]
    assert outcomes
    assert all(one.inspection is not None and one.inspection.findings == ("injection/order",) for one in outcomes)


@pytest.mark.parametrize("obligation", ["redact_result", "block_result"])
@pytest.mark.parametrize("inspection", [None, {"enabled": False}])
def test_an_obligation_that_nobody_fulfils_denies_the_call(
    obligation: str, inspection: dict[str, Any] | None, tmp_path: Path
) -> None:
    async def run() -> Surroundings:
        options: dict[str, Any] = {} if inspection is None else {"inspection": {}, "server": {"inspection": inspection}}
        async with surroundings(tmp_path, answer=obliging(obligation), inspector=ThreeRules(), **options) as world:
            async with DOORS["http"](world) as client:
                with pytest.raises(MCPError) as caught:
                    await client.call_tool("transfer_funds", {"amount": 1})
                assert caught.value.data["reason"] == "unknown_obligation"
            return world

    world = asyncio.run(run())
    assert world.tools.calls == []
    assert [one.inspection for one in world.ledger.decisions()] == [None]


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ({"acts": {"secret": "redact"}}, None),
        ({"acts": {"secret": "redact"}, "partial": "pass"}, "x"),
        ({"acts": {"secret": "report"}}, "x"),
        ({"acts": {"secret": "report"}, "partial": "block"}, None),
    ],
)
def test_a_result_that_was_not_looked_through_to_its_end_is_withheld_where_findings_would_be(
    rules: dict[str, Any], text: str | None, tmp_path: Path
) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        if text is not None:
            assert (await client.call_tool("read_long", {})).content[0].text.startswith(text)
            return
        with pytest.raises(MCPError) as caught:
            await client.call_tool("read_long", {})
        assert caught.value.data["reason"] == "result_not_inspected"

    server = {"tools": [{"name": "read_long", "inspection": {"max_bytes": 100_000, **rules}}]}
    world = play(case, "http", tmp_path, server=server)
    outcome = outcome_of(world)
    assert outcome.inspection is not None
    assert outcome.inspection.extent == "partial"


def test_where_a_policy_asks_for_redaction_no_setting_lets_pass_what_nobody_saw(tmp_path: Path) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("read_long", {})
        assert caught.value.data["reason"] == "result_not_inspected"

    rules = {"max_bytes": 100_000, "partial": "pass"}
    play(case, "http", tmp_path, inspection=rules, answer=obliging("redact_result"))


def test_what_is_long_is_looked_through_beside_the_event_loop(tmp_path: Path) -> None:
    loop_thread: list[int] = []

    async def case(_: Surroundings, client: Client) -> None:
        loop_thread.append(threading.get_ident())
        result = await client.call_tool("read_long", {})
        assert result.content[0].text.endswith("[redacted: secret]")

    inspector = ThreeRules()
    play(case, "http", tmp_path, inspection={"acts": {"secret": "redact"}}, inspector=inspector)
    assert inspector.threads - set(loop_thread)


@pytest.mark.parametrize("acts", [{"secret": "redact"}, {"bomb": "redact"}, {"bomb": "block"}])
def test_a_bomb_is_withheld_where_anything_would_be(acts: dict[str, str], tmp_path: Path) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("echo", {"text": "[" * 2000})
        assert caught.value.code == ErrorCode.RESULT_WITHHELD

    world = play(case, "http", tmp_path, inspection={"acts": acts})
    assert outcome_of(world).status == "failed"


def test_findings_that_are_too_many_to_be_told_are_not_released_in_part(tmp_path: Path) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("echo", {"text": f"{KEY} " * 200})
        assert caught.value.data["reason"] == "result_not_inspected"

    world = play(case, "http", tmp_path, inspection={"acts": {"secret": "redact"}}, inspector=ThreeRules(most=50))
    outcome = outcome_of(world)
    assert outcome.inspection is not None
    assert outcome.inspection.count >= 200


@pytest.mark.parametrize("act", ["redact", "report"])
def test_an_inspector_that_fails_has_looked_at_nothing(act: str, tmp_path: Path) -> None:
    inspector = ThreeRules()

    async def case(_: Surroundings, client: Client) -> None:
        # The message is looked at first, the answer second: from then on the inspector fails.
        looks = iter([False, True])

        def failing() -> None:
            if next(looks, False):
                raise RuntimeError(KEY)

        inspector.before = failing
        if act == "redact":
            with pytest.raises(MCPError) as caught:
                await client.call_tool("echo", {"text": KEY})
            assert caught.value.data["reason"] == "result_not_inspected"
        else:
            assert (await client.call_tool("echo", {"text": KEY})).content[0].text == KEY
        inspector.before = lambda: None

    world = play(case, "http", tmp_path, inspection={"acts": {"secret": act}}, inspector=inspector)
    outcome = outcome_of(world)
    assert outcome.inspection is not None
    assert (outcome.inspection.extent, outcome.inspection.findings) == ("partial", ())


@transports
def test_no_value_that_was_found_stands_in_a_record_or_a_log(
    transport: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def case(_: Surroundings, client: Client) -> None:
        await client.call_tool("echo", {"text": KEY})
        with pytest.raises(MCPError):
            await client.call_tool("echo", {"text": ORDER})

    rules = {"acts": {"secret": "redact", "injection": "block"}}
    world = play(case, transport, tmp_path, server={"tools": [{"name": "echo", "inspection": rules}]})
    assert world.ledger.records
    for record in world.ledger.records:
        entry = encode_record(record)
        assert KEY.encode() not in entry
        assert ORDER.encode() not in entry
    said = capfd.readouterr()
    for text in (said.out, said.err, caplog.text):
        assert KEY not in text
        assert ORDER not in text


@transports
def test_the_inspector_of_the_configuration_finds_and_redacts_behind_every_transport(
    transport: str, tmp_path: Path
) -> None:
    async def run() -> Surroundings:
        rules = {"acts": {"secret": "redact", "ansi": "redact"}}
        async with surroundings(tmp_path, inspection=rules) as world:
            functions = [*world.tools.functions(), echo, read_split]
            world.tools.functions = lambda: functions  # type: ignore[method-assign]  # the tools of this world
            for tool in (echo, read_split):
                world.tools.server.tool()(tool)
            async with DOORS[transport](world) as client:
                result = await client.call_tool("read_split", {})
                assert KEY[7:] not in result.model_dump_json()
                shown = await client.call_tool("echo", {"text": f"\x1b[31mred\x1b[0m {KEY} plain"})
                assert "\x1b" not in shown.content[0].text
                assert KEY not in shown.content[0].text
                assert "plain" in shown.content[0].text
            return world

    world = asyncio.run(run())
    _, dirty = world.ledger.decisions()
    assert dirty.inspection is not None
    assert {name.partition("/")[0] for name in dirty.inspection.findings} >= {"secret", "ansi"}
    assert len(dirty.inspection.inspector) == 64


@pytest.mark.parametrize("transport", ["http", "asgi", "stdio", "sdk"])  # FastMCP's tools report progress otherwise
@pytest.mark.parametrize("acts", [{"secret": "redact"}, {}])
def test_a_secret_that_is_told_in_pieces_of_a_stream_is_redacted_in_each_of_them(
    transport: str, acts: dict[str, str], tmp_path: Path
) -> None:
    heard: list[tuple[float, str]] = []

    async def note(progress: float, _total: float | None, message: str | None) -> None:
        heard.append((progress, message or ""))

    async def case(_: Surroundings, client: Client) -> None:
        result = await client.call_tool("tell_in_pieces", {}, progress_callback=note)
        assert result.content[0].text == "worked"

    world = play(case, transport, tmp_path, inspection={"acts": acts})
    assert [step for step, _ in heard] == [1, 2, 3, 4, 5]
    said = "".join(message for _, message in heard)
    if not acts:
        assert said == f"using {KEY} nowalmost done done "
        return
    assert said.startswith("using [redacted: secret][redacted: secret]")
    assert said.endswith(" nowalmost done done ")
    assert not any(piece in said for piece in (KEY[:8], KEY[8:14], KEY[14:]))
    told = [one for one in world.ledger.outcomes() if one.inspection and "secret/key" in one.inspection.findings]
    assert any(one.redacted >= 3 for one in told)


@pytest.mark.parametrize("transport", ["http", "asgi", "stdio", "sdk"])  # as above
@pytest.mark.parametrize(("act", "passed"), [("block", [1, 3]), ("report", [1, 2, 3])])
def test_a_notification_that_is_blocked_is_not_counted_as_passed(
    transport: str, act: str, passed: list[int], tmp_path: Path
) -> None:
    heard: list[float] = []

    async def note(progress: float, _total: float | None, _message: str | None) -> None:
        heard.append(progress)

    async def case(_: Surroundings, client: Client) -> None:
        assert (await client.call_tool("tell_too_much", {}, progress_callback=note)).content[0].text == "worked"

    world = play(case, transport, tmp_path, inspection={"acts": {"secret": act}})
    assert heard == passed
    assert outcome_of(world, "notifications/progress").messages == len(passed)
