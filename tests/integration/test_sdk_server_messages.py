"""What a server of the SDK or of FastMCP asks and tells its client, behind the middleware: real clients, both eras.

Each request of the server's is one decision and one outcome; of its notifications those of each method and stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from aiohttp import web
from fastmcp import Context as FastContext
from fastmcp import FastMCP
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.session import ServerSession
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    ListRootsResult,
    Root,
    SamplingMessage,
    TextContent,
)
from pydantic import BaseModel, FileUrl

from enforcement.fastmcp import guard_fastmcp
from enforcement.refusals import ErrorCode
from enforcement.sdk import SDKMiddleware
from ledger.bodies import Decision, Outcome
from ledger.errors import ConfigError
from policies.model import DecisionRequest, Effect
from tests.support.gateway import Surroundings, serve, surroundings
from tests.support.transports import known

pytestmark = pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")
"""Sampling and roots go out of the protocol, slowly; servers use them."""

LEGACY, MODERN = "legacy", "2026-07-28"
ASKING = {"sample": "sampling/createMessage", "confirm": "elicitation/create", "roots": "roots/list"}


class Confirmation(BaseModel):
    """What the server asks of the person."""

    confirmed: bool


@dataclass
class Desk:
    """The client's side: it answers what it is asked, and remembers it."""

    asked: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    wait: asyncio.Event | None = None
    answer: Exception | None = None

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.wait is not None:
            await self.wait.wait()
        if self.answer is not None:
            raise self.answer

    async def sampled(self, _context: Any, _params: Any) -> CreateMessageResult:
        await self._ask("sample")
        return CreateMessageResult(role="assistant", content=TextContent(type="text", text="because"), model="m")

    async def elicited(self, _context: Any, _params: Any) -> ElicitResult:
        await self._ask("confirm")
        return ElicitResult(action="accept", content={"confirmed": True})

    async def rooted(self, _context: Any) -> ListRootsResult:
        await self._ask("roots")
        return ListRootsResult(roots=[Root(uri=FileUrl("file:///work"))])

    async def noticed(self, message: Any) -> None:
        self.told.append(type(message).__name__)

    @property
    def callbacks(self) -> dict[str, Any]:
        return {
            "sampling_callback": self.sampled,
            "elicitation_callback": self.elicited,
            "list_roots_callback": self.rooted,
            "message_handler": self.noticed,
        }


@dataclass
class Asker:
    """Tools that ask their client; what they hear is kept."""

    heard: list[str] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    sessions: list[ServerSession] = field(default_factory=list)

    async def _hear(self, asking: Awaitable[str]) -> str:
        try:
            self.heard.append(await asking)
        except Exception as error:
            self.errors.append(error)
            raise
        return self.heard[-1]

    async def sample(self, session: ServerSession, **options: Any) -> str:
        async def ask() -> str:
            message = SamplingMessage(role="user", content=TextContent(type="text", text="why?"))
            result = await session.create_message(messages=[message], max_tokens=10, **options)
            return str(getattr(result.content, "text", result.content))

        return await self._hear(ask())

    async def roots(self, session: ServerSession) -> str:
        async def ask() -> str:
            return ",".join(str(root.uri) for root in (await session.list_roots()).roots)

        return await self._hear(ask())

    async def confirm(self, elicit: Callable[[], Awaitable[Any]]) -> str:
        async def ask() -> str:
            return str((await elicit()).action)

        return await self._hear(ask())


@pytest.fixture(params=["sdk", "fastmcp"])
def make(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def sdk_server(asker: Asker, core: Any) -> Any:
    server = MCPServer("finance", middleware=[SDKMiddleware(core, known)])

    @server.tool()
    async def sample(ctx: Context) -> str:
        return await asker.sample(ctx.session, related_request_id=ctx.request_id)

    @server.tool()
    async def roots(ctx: Context) -> str:
        return await asker.roots(ctx.session)  # on the connection's own channel

    @server.tool()
    async def confirm(ctx: Context) -> str:
        return await asker.confirm(lambda: ctx.elicit("Really?", Confirmation))

    @server.tool()
    async def count(steps: int, ctx: Context) -> str:
        for step in range(steps):
            await ctx.report_progress(step + 1, steps)
        return "counted"

    @server.tool()
    async def change(ctx: Context) -> str:
        asker.sessions.append(ctx.session)
        await ctx.session.send_tool_list_changed()
        await ctx.session.send_tool_list_changed()
        return "changed"

    return server


def fastmcp_server(asker: Asker, core: Any) -> Any:
    server: FastMCP[Any] = FastMCP("finance")

    @server.tool
    async def sample(ctx: FastContext) -> str:
        return await asker.sample(ctx.session, related_request_id=ctx.request_id)

    @server.tool
    async def roots(ctx: FastContext) -> str:
        return await asker.roots(ctx.session)

    @server.tool
    async def confirm(ctx: FastContext) -> str:
        return await asker.confirm(lambda: ctx.elicit("Really?", Confirmation))

    @server.tool
    async def count(steps: int, ctx: FastContext) -> str:
        for step in range(steps):
            await ctx.report_progress(step + 1, steps)
        return "counted"

    @server.tool
    async def change(ctx: FastContext) -> str:
        asker.sessions.append(ctx.session)
        await ctx.session.send_tool_list_changed()
        await ctx.session.send_tool_list_changed()
        return "changed"

    guard_fastmcp(server, core, known)
    return server._mcp_server


@dataclass
class Scene:
    """A guarded server, a connected client, and what stands around them."""

    world: Surroundings
    asker: Asker
    desk: Desk
    client: Client

    def records(self, method: str) -> list[tuple[Decision, list[Outcome]]]:
        ids = self.world.ledger.decision_ids(method)
        return [
            (decision, self.world.ledger.outcomes(one))
            for one, decision in zip(ids, self.world.ledger.decisions(method), strict=True)
        ]


Play = Callable[[Scene], Awaitable[None]]


async def fails(client: Client, tool: str) -> bool:
    """Whether a call fails: FastMCP makes a result of any error, the SDK's own server an error of its own kind."""
    try:
        return bool((await client.call_tool(tool, {})).is_error)
    except MCPError:
        return True


@asynccontextmanager
async def scene(make: str, directory: Path, *, answer: Any, mode: str, **options: Any) -> AsyncIterator[Scene]:
    asker, desk = Asker(), Desk()
    async with surroundings(directory, answer=answer, server={"recording": "strict"}, **options) as world:
        core = world.build().core
        server = (sdk_server if make == "sdk" else fastmcp_server)(asker, core)
        async with core, Client(server, mode=mode, cache=None, **desk.callbacks) as client:
            yield Scene(world, asker, desk, client)


def play(
    case: Play, make: str, directory: Path, *, answer: Any = None, mode: str = LEGACY, **options: Any
) -> Surroundings:
    async def run() -> Surroundings:
        async with scene(make, directory, answer=answer, mode=mode, **options) as one:
            await case(one)
        return one.world

    return asyncio.run(run())


def text_of(result: Any) -> str:
    return str(result.content[0].text)


def refuse(*methods: str) -> Callable[[DecisionRequest], dict[str, Any]]:
    def answer(request: DecisionRequest) -> dict[str, Any]:
        return {"effect": Effect.DENY if request.action in methods else Effect.PERMIT}

    return answer


def test_what_a_tool_asks_its_client_is_one_decision_and_the_answer_its_outcome(make: str, tmp_path: Path) -> None:
    async def case(scene: Scene) -> None:
        for tool, said in {"sample": "because", "confirm": "accept", "roots": "file:///work"}.items():
            result = await scene.client.call_tool(tool, {})
            assert (text_of(result), scene.asker.heard[-1], scene.desk.asked[-1]) == (said, said, tool)
            ((decision, outcomes),) = scene.records(ASKING[tool])
            assert (decision.direction, decision.enforcement, decision.transport) == ("server", "allow", "sdk")
            assert (decision.agent, decision.server) == ("Finance-Bot", "finance")
            assert [(outcome.status, outcome.reason) for outcome in outcomes] == [("completed", None)]
        assert scene.desk.asked == list(ASKING)

    world = play(case, make, tmp_path)
    assert [stream.verdict.name for stream in world.ledger.streams()] == ["COMPLETE"]


def test_what_a_policy_refuses_never_reaches_the_client_and_the_tool_gets_an_error(make: str, tmp_path: Path) -> None:
    async def case(scene: Scene) -> None:
        for tool, method in ASKING.items():
            assert await fails(scene.client, tool)
            error = scene.asker.errors[-1]
            assert isinstance(error, MCPError)
            assert (error.code, error.message, error.data) == (ErrorCode.DENIED, "Denied", None)
            ((decision, outcomes),) = scene.records(method)
            assert (decision.enforcement, outcomes) == ("deny", [])
        assert (scene.desk.asked, len(scene.asker.errors)) == ([], 3)

    play(case, make, tmp_path, answer=refuse(*ASKING.values()))


def test_a_client_that_answers_with_an_error_is_a_failed_request_of_the_server(make: str, tmp_path: Path) -> None:
    async def case(scene: Scene) -> None:
        scene.desk.answer = MCPError(-1, "no")
        assert await fails(scene.client, "sample")
        ((_, outcomes),) = scene.records("sampling/createMessage")
        (outcome,) = outcomes
        assert (outcome.status, outcome.reason) == ("failed", "jsonrpc_error")

    play(case, make, tmp_path)


def test_a_request_that_its_tool_gives_up_is_cancelled_once(make: str, tmp_path: Path) -> None:
    async def case(scene: Scene) -> None:
        scene.desk.wait = asyncio.Event()
        call = asyncio.create_task(scene.client.call_tool("sample", {}))
        await scene.world.settle(lambda: bool(scene.desk.asked))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await scene.world.settle(lambda: bool(scene.records("sampling/createMessage")[0][1]))
        ((_, outcomes),) = scene.records("sampling/createMessage")
        assert [(outcome.status, outcome.reason) for outcome in outcomes] == [("cancelled", "server_cancelled")]

    play(case, make, tmp_path)


def test_of_more_requests_than_may_wait_for_one_client_the_last_is_refused(make: str, tmp_path: Path) -> None:
    async def case(scene: Scene) -> None:
        scene.desk.wait = asyncio.Event()
        first = asyncio.create_task(scene.client.call_tool("sample", {}))
        await scene.world.settle(lambda: bool(scene.desk.asked))
        assert await fails(scene.client, "confirm")
        assert scene.desk.asked == ["sample"]
        ((decision, _),) = scene.records("elicitation/create")
        assert decision.reason == "overloaded"
        scene.desk.wait.set()
        assert text_of(await first) == "because"
        assert not await fails(scene.client, "confirm")

    play(case, make, tmp_path, protocol={"server_requests": 1})


def test_an_answer_whose_outcome_cannot_be_recorded_is_withheld_from_the_tool(tmp_path: Path) -> None:
    async def case(scene: Scene) -> None:
        scene.desk.wait = asyncio.Event()
        call = asyncio.create_task(scene.client.call_tool("sample", {}))
        await scene.world.settle(lambda: bool(scene.desk.asked))
        scene.world.ledger.fault = lambda _: web.Response(status=503)
        scene.desk.wait.set()
        await asyncio.gather(call, return_exceptions=True)
        assert scene.asker.heard == []
        (error,) = scene.asker.errors
        assert isinstance(error, MCPError)
        assert error.code == ErrorCode.RESULT_WITHHELD
        scene.world.ledger.fault = lambda _: None

    play(case, "sdk", tmp_path, recording={"strict_seconds": 0.2})


# In one process FastMCP reports no progress in the stateless revision.
wanted = pytest.mark.parametrize(("make", "mode"), [("sdk", LEGACY), ("sdk", MODERN), ("fastmcp", LEGACY)])


@wanted
def test_progress_is_judged_once_for_its_call_and_counted(mode: str, make: str, tmp_path: Path) -> None:
    async def case(scene: Scene) -> None:
        steps: list[float] = []

        async def progressed(progress: float, total: float | None, message: str | None) -> None:
            steps.append(progress)

        await scene.client.call_tool("count", {"steps": 3}, progress_callback=progressed)
        assert steps == [1, 2, 3]

        def recorded() -> bool:
            return [bool(outcomes) for _, outcomes in scene.records("notifications/progress")] == [True]

        await scene.world.settle(recorded)
        ((decision, outcomes),) = scene.records("notifications/progress")
        assert (decision.direction, decision.enforcement) == ("server", "allow")
        assert [(outcome.status, outcome.messages) for outcome in outcomes] == [("completed", 3)]

    play(case, make, tmp_path, mode=mode)


@wanted
def test_progress_that_may_not_pass_is_not_seen_and_the_call_goes_on(mode: str, make: str, tmp_path: Path) -> None:
    async def case(scene: Scene) -> None:
        steps: list[float] = []

        async def progressed(progress: float, total: float | None, message: str | None) -> None:
            steps.append(progress)

        result = await scene.client.call_tool("count", {"steps": 3}, progress_callback=progressed)
        assert (text_of(result), steps) == ("counted", [])
        await scene.world.settle(lambda: bool(scene.records("notifications/progress")))
        ((decision, outcomes),) = scene.records("notifications/progress")
        assert (decision.enforcement, outcomes) == ("deny", [])

    play(case, make, tmp_path, answer=refuse("notifications/progress"), mode=mode)


def test_progress_of_which_the_client_does_not_want_to_hear_is_no_message(tmp_path: Path) -> None:
    async def case(scene: Scene) -> None:
        await scene.client.call_tool("count", {"steps": 3})
        await scene.client.call_tool("count", {"steps": 0})
        assert scene.records("notifications/progress") == []

    play(case, "sdk", tmp_path)


def test_what_the_connection_as_a_whole_is_told_is_judged_once_and_counted_when_it_ends(
    make: str, tmp_path: Path
) -> None:
    async def case(scene: Scene) -> None:
        await scene.client.call_tool("change", {})
        await scene.client.call_tool("change", {})
        await scene.world.settle(lambda: len(scene.desk.told) == 4)

    world = play(case, make, tmp_path)
    (decision_id,) = world.ledger.decision_ids("notifications/tools/list_changed")
    (outcome,) = world.ledger.outcomes(decision_id)
    assert (outcome.status, outcome.messages) == ("completed", 4)


def test_nothing_is_told_that_a_policy_refuses_nor_once_the_connection_is_over(make: str, tmp_path: Path) -> None:
    kept: list[Scene] = []

    async def case(scene: Scene) -> None:
        kept.append(scene)
        await scene.client.call_tool("change", {})
        assert scene.desk.told == []

    async def run() -> None:
        method = "notifications/tools/list_changed"
        async with surroundings(tmp_path, answer=refuse(method), server={"recording": "strict"}) as world:
            core, asker, desk = world.build().core, Asker(), Desk()
            server = (sdk_server if make == "sdk" else fastmcp_server)(asker, core)
            async with core:
                async with Client(server, mode=LEGACY, cache=None, **desk.callbacks) as client:
                    await case(Scene(world, asker, desk, client))
                before = len(world.ledger.decisions(None))
                (session,) = asker.sessions
                await session.send_tool_list_changed()
                await session.send_progress_notification("t", 1.0)
                with pytest.raises(MCPError):
                    await session.list_roots()
                assert len(world.ledger.decisions(None)) == before
            assert len(world.ledger.decisions(method)) == 1

    asyncio.run(run())


def test_in_the_stateless_revision_a_tool_cannot_ask_and_nothing_is_recorded_of_it(make: str, tmp_path: Path) -> None:
    async def case(scene: Scene) -> None:
        assert await fails(scene.client, "roots")
        assert scene.desk.asked == []
        assert scene.records("roots/list") == []

    play(case, make, tmp_path, mode=MODERN)


@pytest.mark.parametrize("permitted", [True, False])
def test_in_the_stateless_revision_what_a_call_asks_for_is_judged_as_a_round(permitted: bool, tmp_path: Path) -> None:
    async def run() -> None:
        answer = None if permitted else refuse("elicitation/create")
        async with surroundings(tmp_path, answer=answer, server={"recording": "strict"}) as world:
            core, desk = world.build().core, Desk()
            server = MCPServer("finance", middleware=[SDKMiddleware(core, known)])

            @server.tool()
            async def pay(ctx: Context) -> str | InputRequiredResult:
                if ctx.request_state is None:
                    schema = {"type": "object", "properties": {"confirmed": {"type": "boolean"}}}
                    asked = ElicitRequest(params=ElicitRequestFormParams(message="sure?", requested_schema=schema))
                    return InputRequiredResult(input_requests={"sure": asked}, request_state="asked")
                return f"paid {ctx.request_state} {sorted(ctx.input_responses or {})}"

            async with core, Client(server, mode=MODERN, cache=None, **desk.callbacks) as client:
                if permitted:
                    result = await client.call_tool("pay", {})
                    assert text_of(result) == "paid asked ['sure']"
                else:
                    with pytest.raises(MCPError) as caught:
                        await client.call_tool("pay", {})
                    assert caught.value.code == ErrorCode.DENIED
            (asked_id,) = world.ledger.decision_ids("elicitation/create")
            ended = [(one.status, one.reason) for one in world.ledger.outcomes(asked_id)]
            assert ended == ([("completed", "input_required")] if permitted else [])
            assert desk.asked == (["confirm"] if permitted else [])

    asyncio.run(run())


@asynccontextmanager
async def over_http(world: Surroundings, asker: Asker, desk: Desk) -> AsyncIterator[Client]:
    core = world.build().core
    server = sdk_server(asker, core)
    app = server.streamable_http_app()
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", loop="asyncio")
    async with core, server.session_manager.run(), serve(config) as url, world.http() as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, mode=LEGACY, cache=None, **desk.callbacks) as client:
            yield client


def test_over_http_too_a_client_is_asked_what_it_may_be_asked_and_nothing_else(tmp_path: Path) -> None:
    async def run() -> None:
        refused = refuse("elicitation/create")
        async with surroundings(tmp_path, answer=refused, server={"recording": "strict"}) as world:
            asker, desk = Asker(), Desk()
            async with over_http(world, asker, desk) as client:
                assert text_of(await client.call_tool("sample", {})) == "because"
                assert await fails(client, "confirm")
            assert desk.asked == ["sample"]
            decided = {one.method: one.enforcement for one in world.ledger.decisions(None) if one.direction == "server"}
            assert decided == {"sampling/createMessage": "allow", "elicitation/create": "deny"}

    asyncio.run(run())


def test_a_version_of_the_sdk_that_sends_in_another_way_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(self: Any, channel: Any, connection: Any, **_: Any) -> None:
        self._channel, self._connection = channel, connection

    async def run() -> None:
        async with surroundings(tmp_path) as world:
            monkeypatch.setattr(ServerSession, "__init__", another)
            with pytest.raises(ConfigError, match="another way"):
                SDKMiddleware(world.build().core, known)

    asyncio.run(run())
