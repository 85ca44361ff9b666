"""Servers on the loopback interface, real ones and decoys, each on a port of its own.

The real ones are of the official SDK and of FastMCP, in both eras and all HTTP transports. The decoys speak HTTP,
JSON-RPC, LSP, events and nothing at all; some of them are hostile.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastmcp import FastMCP
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.gateway import bound, serve
from tests.support.pki import PKI

__all__ = ["DECOYS", "SERVERS", "Laboratory", "laboratory"]

App = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """One server or decoy.

    Attributes:
        title: What it is.
        path: Where the server is; None for a decoy.
        make: Makes the application, by its base URL.
        tls: It is reached by TLS.
    """

    title: str
    path: str | None
    make: Callable[[str], Any]
    tls: bool = False


def _sdk(**options: Any) -> Callable[[str], App]:
    return lambda _url: MCPServer("lab", version="7", log_level="CRITICAL").streamable_http_app(**options)


def _sse(path: str = "/sse") -> Callable[[str], App]:
    return lambda _url: MCPServer("lab-sse", log_level="CRITICAL").sse_app(sse_path=path)


def _fast(**options: Any) -> Callable[[str], App]:
    return lambda _url: FastMCP("fast-lab").http_app(**options)


class _Verifier:
    async def verify_token(self, token: str) -> AccessToken | None:  # noqa: ARG002  # nobody has one
        return None


def _guarded(path: str = "/mcp") -> Callable[[str], App]:
    def make(url: str) -> App:
        auth = AuthSettings(
            issuer_url=AnyHttpUrl("https://login.example.com"),
            resource_server_url=AnyHttpUrl(f"{url}{path}"),
            required_scopes=["tools"],
            validate_token_resource=True,
        )
        server = MCPServer("guarded", auth=auth, token_verifier=_Verifier(), log_level="CRITICAL")
        return server.streamable_http_app(streamable_http_path=path)

    return make


def _without(method: str) -> Callable[[str], App]:
    """An SDK server of one era: what the other one begins with, it does not know."""

    def make(_url: str) -> App:
        app = MCPServer(f"no-{method.partition('/')[2] or method}", log_level="CRITICAL").streamable_http_app()

        async def narrowed(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            body, more = b"", True
            while more:
                event = await receive()
                body, more = body + event.get("body", b""), event.get("more_body", False)
            asked = json.loads(body) if body else {}
            if asked.get("method") == method:
                error = {"code": -32601, "message": "Method not found"}
                answer = JSONResponse({"jsonrpc": "2.0", "id": asked["id"], "error": error}, 400)
                await answer(scope, receive, send)
                return
            told = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def again() -> Any:
                return next(told, None) or await receive()

            await app(scope, again, send)

        return narrowed

    return make


def _led_to(_url: str) -> App:
    app = MCPServer("led-to", log_level="CRITICAL").streamable_http_app(streamable_http_path="/lost")
    app.router.routes.append(Route("/", lambda _request: RedirectResponse("/lost", 307), methods=["POST", "GET"]))
    return app


SERVERS: Sequence[Exhibit] = (
    Exhibit(title="SDK, streamable HTTP", path="/mcp", make=_sdk()),
    Exhibit(title="SDK, answers in JSON", path="/mcp", make=_sdk(json_response=True)),
    Exhibit(title="SDK, without sessions", path="/mcp", make=_sdk(stateless_http=True)),
    Exhibit(title="SDK, only 2025-11-25", path="/mcp", make=_without("server/discover")),
    Exhibit(title="SDK, only 2026-07-28", path="/mcp", make=_without("initialize")),
    Exhibit(title="SDK, at the root", path="/", make=_sdk(streamable_http_path="/")),
    Exhibit(title="SDK, under /api/mcp", path="/api/mcp", make=_sdk(streamable_http_path="/api/mcp")),
    Exhibit(title="SDK, under /v1/mcp", path="/v1/mcp", make=_sdk(streamable_http_path="/v1/mcp")),
    Exhibit(
        title="SDK, an odd path that was given", path="/hidden/tools", make=_sdk(streamable_http_path="/hidden/tools")
    ),
    Exhibit(title="SDK, an odd path that the root leads to", path="/lost", make=_led_to),
    Exhibit(title="SDK, HTTP with SSE (2024-11-05)", path="/sse", make=_sse()),
    Exhibit(title="SDK, HTTP with SSE under /mcp/sse", path="/mcp/sse", make=_sse("/mcp/sse")),
    Exhibit(title="SDK over TLS", path="/mcp", make=_sdk(), tls=True),
    Exhibit(title="SDK, HTTP with SSE over TLS", path="/sse", make=_sse(), tls=True),
    Exhibit(title="SDK, wants a token (RFC 9728)", path="/mcp", make=_guarded()),
    Exhibit(title="SDK, wants a token, over TLS", path="/mcp", make=_guarded(), tls=True),
    Exhibit(title="SDK, wants a token, under /api/mcp", path="/api/mcp", make=_guarded("/api/mcp")),
    Exhibit(title="FastMCP", path="/mcp", make=_fast()),
    Exhibit(title="FastMCP, without sessions", path="/mcp", make=_fast(stateless_http=True)),
    Exhibit(title="FastMCP, under /v1/mcp", path="/v1/mcp", make=_fast(path="/v1/mcp")),
    Exhibit(title="FastMCP, HTTP with SSE", path="/sse", make=_fast(transport="sse")),
    Exhibit(title="FastMCP over TLS", path="/mcp", make=_fast(), tls=True),
)


# --- decoys


def _app(answer: Callable[[Request], Awaitable[Response]], *more: Route) -> Callable[[str], App]:
    routes = [*more, Route("/{path:path}", answer, methods=["GET", "POST", "DELETE"])]
    return lambda _url: Starlette(routes=routes)


async def _asked(request: Request) -> dict[str, Any]:
    try:
        value = json.loads(await request.body())
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


async def _page(_request: Request) -> Response:
    return Response("<h1>mcp: Model Context Protocol</h1>", media_type="text/html")


async def _echo(request: Request) -> Response:
    return JSONResponse(await _asked(request))


async def _echo_result(request: Request) -> Response:
    asked = await _asked(request)
    return JSONResponse({"jsonrpc": "2.0", "id": asked.get("id"), "result": asked.get("params")})


async def _unknown_method(request: Request) -> Response:
    asked = await _asked(request)
    error = {"code": -32601, "message": "Method not found", "data": {"supported": ["eth_call"]}}
    return JSONResponse({"jsonrpc": "2.0", "id": asked.get("id"), "error": error})


async def _language_server(request: Request) -> Response:
    asked = await _asked(request)
    result = {"capabilities": {"hoverProvider": True}, "serverInfo": {"name": "pyls", "version": "1"}}
    return JSONResponse({"jsonrpc": "2.0", "id": asked.get("id"), "result": result})


async def _other_id(_request: Request) -> Response:
    result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "canned", "version": "1"}}
    return JSONResponse({"jsonrpc": "2.0", "id": 1, "result": result})


async def _old_rpc(request: Request) -> Response:
    return JSONResponse({"version": "1.1", "id": (await _asked(request)).get("id"), "result": {"capabilities": {}}})


def _stream(*events: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_request: Request) -> Response:
        async def told() -> AsyncIterator[str]:
            for event in events:
                yield event
            await asyncio.Event().wait()

        return StreamingResponse(told(), media_type="text/event-stream")

    return answer


async def _endless(_request: Request) -> Response:
    async def told() -> AsyncIterator[bytes]:
        while True:
            yield b'{"jsonrpc":"2.0",' * 4096
            await asyncio.sleep(0)

    return StreamingResponse(told(), media_type="application/json")


async def _endless_events(_request: Request) -> Response:
    async def told() -> AsyncIterator[str]:
        for number in itertools.count():
            yield f"data: {number}\n\n"
            await asyncio.sleep(0)

    return StreamingResponse(told(), media_type="text/event-stream")


async def _tarpit(_request: Request) -> Response:
    await asyncio.Event().wait()
    raise AssertionError


async def _loop(request: Request) -> Response:
    return RedirectResponse(f"{request.url.path.rstrip('/')}/further", 307)


async def _elsewhere(_request: Request) -> Response:
    return RedirectResponse("http://127.0.0.1:9/mcp", 307)


async def _unauthorized(_request: Request) -> Response:
    return PlainTextResponse("no", 401, {"WWW-Authenticate": 'Bearer realm="api"'})


async def _basic(_request: Request) -> Response:
    return PlainTextResponse("no", 401, {"WWW-Authenticate": 'Basic realm="mcp"'})


async def _other_resource(request: Request) -> Response:
    if ".well-known" in request.url.path:
        base = f"http://{request.headers['host']}"
        return JSONResponse({"resource": f"{base}/files", "authorization_servers": ["https://login.example.com"]})
    return PlainTextResponse("no", 401, {"WWW-Authenticate": "Bearer"})


async def _deep(request: Request) -> Response:
    del request
    return Response("[" * 60_000, media_type="application/json")


async def _failing(_request: Request) -> Response:
    return JSONResponse({"error": "MCP"}, 500)


async def _many_headers(_request: Request) -> Response:
    return PlainTextResponse("x", headers={f"x-{number}": "y" * 1000 for number in range(400)})


DECOYS: Sequence[Exhibit] = (
    Exhibit(title="a web page about MCP", path=None, make=_app(_page)),
    Exhibit(title="nothing but 404", path=None, make=lambda _url: Starlette()),
    Exhibit(title="an echo", path=None, make=_app(_echo)),
    Exhibit(title="JSON-RPC that returns its parameters", path=None, make=_app(_echo_result)),
    Exhibit(title="JSON-RPC of something else", path=None, make=_app(_unknown_method)),
    Exhibit(title="a language server over HTTP", path=None, make=_app(_language_server)),
    Exhibit(title="a canned MCP answer to another request", path=None, make=_app(_other_id)),
    Exhibit(title="JSON-RPC 1.1", path=None, make=_app(_old_rpc)),
    Exhibit(title="events of something else", path=None, make=_app(_stream("event: price\ndata: 3\n\n"))),
    Exhibit(
        title="events with an endpoint on another host",
        path=None,
        make=_app(_stream("event: endpoint\ndata: http://127.0.0.1:9/messages\n\n")),
    ),
    Exhibit(
        title="events with an endpoint that answers nothing",
        path=None,
        make=_app(_stream("event: endpoint\ndata: /messages\n\n")),
    ),
    Exhibit(title="an endless answer", path=None, make=_app(_endless)),
    Exhibit(title="endless events", path=None, make=_app(_endless_events)),
    Exhibit(title="a tarpit", path=None, make=_app(_tarpit)),
    Exhibit(title="a loop of redirects", path=None, make=_app(_loop)),
    Exhibit(title="a redirect to another port", path=None, make=_app(_elsewhere)),
    Exhibit(title="401 without metadata", path=None, make=_app(_unauthorized)),
    Exhibit(title="401 of HTTP Basic", path=None, make=_app(_basic)),
    Exhibit(title="401 with the metadata of another resource", path=None, make=_app(_other_resource)),
    Exhibit(title="JSON 60,000 deep", path=None, make=_app(_deep)),
    Exhibit(title="nothing but failures", path=None, make=_app(_failing)),
    Exhibit(title="a flood of headers", path=None, make=_app(_many_headers)),
    Exhibit(title="a web page over TLS", path=None, make=_app(_page), tls=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Laboratory:
    """The laboratory as it runs.

    Attributes:
        places: Of each exhibit its title, its host and port, and the URL that a scan should report, or None.
    """

    places: Sequence[tuple[str, str, str | None]]

    @property
    def targets(self) -> list[str]:
        """Every host and port."""
        return [authority for _, authority, _ in self.places]


@asynccontextmanager
async def laboratory(folder: Path, exhibits: Sequence[Exhibit] = (*SERVERS, *DECOYS)) -> AsyncIterator[Laboratory]:
    """Run exhibits, and in between them a port that never says a word and one that says gibberish."""
    files = PKI(folder).server() if any(one.tls for one in exhibits) else None
    places: list[tuple[str, str, str | None]] = []
    async with AsyncExitStack() as stack:
        for exhibit in exhibits:
            listener = bound()
            port = listener.getsockname()[1]
            scheme = "https" if exhibit.tls else "http"
            app = exhibit.make(f"{scheme}://127.0.0.1:{port}")
            more: dict[str, Any] = {}
            if exhibit.tls:
                assert files is not None
                more = {"ssl_certfile": str(files.certificate), "ssl_keyfile": str(files.key)}
            lifespan = "on" if exhibit.path is not None else "off"
            config = uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan=lifespan,  # type: ignore[arg-type]
                loop="asyncio",
                timeout_graceful_shutdown=1,
                **more,
            )
            await stack.enter_async_context(serve(config, listener))
            url = None if exhibit.path is None else f"{scheme}://127.0.0.1:{port}{exhibit.path}"
            places.append((exhibit.title, f"127.0.0.1:{port}", url))
        for title, said in (("a port that says nothing", b""), ("a port that says gibberish", b"\x00\xff220 ftp\r\n")):
            silent = await asyncio.start_server(_saying(said), "127.0.0.1", 0)
            await stack.enter_async_context(silent)
            places.append((title, f"127.0.0.1:{silent.sockets[0].getsockname()[1]}", None))
        yield Laboratory(places=places)


def _saying(said: bytes) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        try:
            while await reader.read(4096):
                pass
        except ConnectionError:
            pass
        finally:
            writer.close()

    return answer
