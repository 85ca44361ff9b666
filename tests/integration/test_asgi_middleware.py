"""What only the ASGI middleware does: paths, the lifespan, an application that fails. Calls: `test_transports`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

from enforcement.asgi import TallystickMiddleware
from enforcement.refusals import ErrorCode
from ledger.errors import ConfigError
from tests.support.gateway import TOKENS, Surroundings, surroundings
from tests.support.mcp_messages import body_of, headers_of
from tests.support.transports import serve_asgi


def play(scenario: Callable[[Surroundings], Awaitable[None]], directory: Path, **options: Any) -> None:
    async def run() -> None:
        async with surroundings(directory, **options) as world:
            await scenario(world)

    asyncio.run(run())


class App:
    """An application with an MCP endpoint, a health path and a way round."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.life: list[str] = []
        self.left = asyncio.Event()
        self.answer: Callable[[bytes], Any] = lambda _: JSONResponse({"jsonrpc": "2.0", "id": 7, "result": {}})
        self.app = Starlette(
            routes=[
                Route("/mcp", self.mcp, methods=["POST"]),
                Route("/healthz", self.other),
                Route("/admin", self.other, methods=["GET", "POST"]),
            ],
            lifespan=self.lifespan,
        )

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> Any:
        self.life.append("begun")
        yield {"given": "by the lifespan"}
        self.life.append("ended")

    async def mcp(self, request: Request) -> Any:
        self.calls.append(request.state.given)
        assert "authorization" not in request.headers
        return self.answer(await request.body())

    async def other(self, request: Request) -> PlainTextResponse:
        self.calls.append(request.url.path)
        return PlainTextResponse("here")


async def post(url: str, token: str | None = TOKENS["Finance-Bot"]) -> httpx2.Response:
    headers = [(name.decode(), value.decode()) for name, value in headers_of(token=token)]
    async with httpx2.AsyncClient(timeout=20) as http:
        return await http.post(f"{url}/mcp", content=body_of(arguments={"amount": 1}), headers=headers)


def test_the_application_gets_its_lifespan_and_its_state_and_no_token_of_the_client(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        app = App()
        async with serve_asgi(world, app.app) as url:
            assert app.life == ["begun"]
            answer = await post(url)
            assert (answer.status_code, answer.json()["result"]) == (200, {})
        assert app.life == ["begun", "ended"]
        assert app.calls == ["by the lifespan"]

    play(scenario, tmp_path)


def test_only_the_endpoint_is_served_unless_the_operator_says_otherwise(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        app = App()
        async with serve_asgi(world, app.app, health_paths=["/healthz"]) as url, world.http() as http:
            assert (await http.get(f"{url}/healthz")).text == "here"
            for method, path in [("GET", "/admin"), ("POST", "/healthz"), ("GET", "/mcp/"), ("GET", "/MCP")]:
                assert (await http.request(method, f"{url}{path}")).status_code == 404
        assert app.calls == ["/healthz"]
        async with serve_asgi(world, app.app, other_paths="pass") as url, world.http() as http:
            assert (await http.get(f"{url}/admin")).text == "here"
            assert (await post(url, token=None)).status_code == 401  # the endpoint is judged all the same
        assert app.calls == ["/healthz", "/admin"]

    play(scenario, tmp_path)


@pytest.mark.parametrize("path", ["/mcp/", "//mcp", "/mcp/messages", "/MCP", "/./mcp", "/a/../mcp", "/%6dcp/"])
def test_no_other_way_to_write_the_endpoints_path_is_a_way_round_it(path: str, tmp_path: Path) -> None:
    reached: list[str] = []

    async def anything(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            reached.append(scope["path"])
            await PlainTextResponse("here")(scope, receive, send)

    async def scenario(world: Surroundings) -> None:
        async with serve_asgi(world, anything, other_paths="pass", health_paths=["/mcp/healthz"]) as url:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert (await reader.readline()).split()[1] == b"404"
            writer.close()
            async with world.http() as http:
                assert (await http.get(f"{url}/mcp/healthz")).text == "here"
        assert reached == ["/mcp/healthz"]

    play(scenario, tmp_path)


def test_a_stranger_and_a_broken_message_never_reach_the_application(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        app = App()
        async with serve_asgi(world, app.app) as url, world.http() as http:
            assert (await post(url, token="wrong")).status_code == 401
            headers = {name.decode(): value.decode() for name, value in headers_of()}
            twice = await http.post(f"{url}/mcp", content=b'{"id":1,"id":2}', headers=headers)
            assert (twice.status_code, twice.json()["error"]["data"]["reason"]) == (400, "duplicate_key")
        assert app.calls == []
        assert [one.reason for one in world.ledger.decisions(None)] == ["unauthenticated", "duplicate_key"]
        assert {one.transport for one in world.ledger.decisions(None)} == {"asgi"}

    play(scenario, tmp_path)


def _raise(_: bytes) -> Any:
    raise RuntimeError("a secret that no client may see")


def _break_off(_: bytes) -> Any:
    async def parts() -> Any:
        yield b'{"jsonrpc"'
        raise RuntimeError("in the middle")

    return StreamingResponse(parts(), media_type="application/json")


def _too_long(_: bytes) -> Any:
    async def parts() -> Any:
        for _ in range(100):
            yield b" " * 1024

    return StreamingResponse(parts(), media_type="application/json")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (_raise, "upstream_status"),  # Starlette answers 500 before it raises
        (_break_off, "upstream_disconnected"),
        (_too_long, "answer_too_large"),
        (lambda _: PlainTextResponse("no MCP"), "malformed_answer"),
        (lambda _: JSONResponse({"jsonrpc": "2.0", "id": 8, "result": {}}), "malformed_answer"),
    ],
)
def test_an_application_that_fails_is_a_failed_call_and_tells_the_client_nothing(
    answer: Callable[[bytes], Any], reason: str, tmp_path: Path
) -> None:
    async def scenario(world: Surroundings) -> None:
        app = App()
        app.answer = answer
        async with serve_asgi(world, app.app) as url:
            failed = await post(url)
        assert failed.status_code == 502
        assert failed.json()["error"]["code"] == ErrorCode.UPSTREAM_FAILED
        assert "secret" not in failed.text
        (outcome,) = world.ledger.outcomes(world.ledger.decision_ids()[0])
        assert (outcome.status, outcome.reason) == ("failed", reason)

    play(scenario, tmp_path, limits={"answer_bytes": 4096})


def test_an_application_hears_that_its_client_has_gone(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        heard, asked = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, _: Any) -> None:
            assert scope["type"] == "http"  # an application that knows no lifespan
            await receive()
            asked.set()
            assert (await receive())["type"] == "http.disconnect"
            heard.set()

        async with serve_asgi(world, app) as url:
            call = asyncio.create_task(post(url))
            await asked.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            await heard.wait()
            decision_id = world.ledger.decision_ids()[0]
            await world.settle(lambda: bool(world.ledger.outcomes(decision_id)))
        (outcome,) = world.ledger.outcomes(decision_id)
        assert (outcome.status, outcome.reason) == ("cancelled", "client_disconnected")

    play(scenario, tmp_path)


def test_a_second_enforcement_point_on_a_state_directory_keeps_the_application_from_starting(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        async with world.running():
            sent: list[dict[str, Any]] = []
            middleware = TallystickMiddleware(App().app, core=world.build().core)

            async def receive() -> dict[str, Any]:
                return {"type": "lifespan.startup"}

            async def send(message: Any) -> None:
                sent.append(message)

            with pytest.raises(ConfigError):
                await middleware({"type": "lifespan"}, receive, send)
            assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
            await middleware({"type": "http", "path": "/mcp", "headers": []}, receive, send)
            assert sent[1]["status"] == 503

    play(scenario, tmp_path)


def test_the_endpoint_cannot_be_declared_a_health_path_nor_a_server_that_is_not_there(tmp_path: Path) -> None:
    async def scenario(world: Surroundings) -> None:
        core = world.build().core
        with pytest.raises(ConfigError):
            TallystickMiddleware(App().app, core=core, health_paths=["/mcp"])
        with pytest.raises(ConfigError):
            TallystickMiddleware(App().app, core=core, server="payroll")

    play(scenario, tmp_path)
