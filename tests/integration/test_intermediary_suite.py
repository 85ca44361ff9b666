"""The suite for intermediaries: what stands between as it should passes every case, and each carelessness is caught."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner
from multidict import CIMultiDict

from enforcement.intermediaries.stub import StubServer
from enforcement.intermediaries.suite import CASES, Finding, chosen, run_suite
from ledger.errors import ConfigError
from service.cli.main import cli
from tests.support.gateway import TOKENS, Surroundings, deny_tool, surroundings
from tests.support.repository import ROOT
from tests.support.transports import serve_asgi

DENIED = "transfer_funds"
GENEROUS_SECONDS = 30
BODY_BYTES = 65_536
BEARER = [("Authorization", f"Bearer {TOKENS['Finance-Bot']}")]
HOP_BY_HOP = {"host", "connection", "transfer-encoding", "content-length", "keep-alive", "content-encoding"}


def failures(findings: list[Finding]) -> dict[str, str]:
    return {one.case.name: one.reason for one in findings if one.verdict == "fail"}


def judge(
    between: Callable[[Surroundings, StubServer, str], Awaitable[list[Finding]]], directory: Path
) -> list[Finding]:
    async def run() -> list[Finding]:
        stub = StubServer()
        limits = {"body_bytes": BODY_BYTES}
        async with surroundings(directory, answer=deny_tool(DENIED), limits=limits) as world:
            world.upstream = await stub.start("127.0.0.1", 0)
            try:
                return await between(world, stub, world.upstream)
            finally:
                await stub.stop()

    return asyncio.run(run())


async def run_ours(url: str, stub: StubServer) -> list[Finding]:
    return await run_suite(
        url, stub, headers=BEARER, denied_tool=DENIED, oversize_bytes=2 * BODY_BYTES, seconds=GENEROUS_SECONDS
    )


def test_our_gateway_passes_every_case(tmp_path: Path) -> None:
    async def between(world: Surroundings, stub: StubServer, _: str) -> list[Finding]:
        async with world.running():
            return await run_ours(world.mcp_url, stub)

    findings = judge(between, tmp_path)
    assert failures(findings) == {}
    assert [one.verdict for one in findings] == ["pass"] * len(CASES)


def test_our_asgi_middleware_passes_every_case(tmp_path: Path) -> None:
    async def between(world: Surroundings, stub: StubServer, target: str) -> list[Finding]:
        async with aiohttp.ClientSession() as http, serve_asgi(world, _in_front_of(target, http)) as url:
            return await run_ours(f"{url}/mcp", stub)

    findings = judge(between, tmp_path)
    assert failures(findings) == {}
    assert [one.verdict for one in findings] == ["pass"] * len(CASES)


def _in_front_of(target: str, http: aiohttp.ClientSession) -> Any:
    """An application that hands requests to the stub as they are: the middleware stands before it."""

    async def fetch(scope: Any, body: bytes, send: Any) -> None:
        headers = CIMultiDict(
            (name.decode(), value.decode("latin-1"))
            for name, value in scope["headers"]
            if name.decode() not in HOP_BY_HOP
        )
        async with http.request(scope["method"], target, data=body or None, headers=headers) as response:
            passed = [
                (name.encode(), value.encode())
                for name, value in response.headers.items()
                if name.lower() not in HOP_BY_HOP
            ]
            await send({"type": "http.response.start", "status": response.status, "headers": passed})
            async for chunk in response.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body"})

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        fetching = asyncio.create_task(fetch(scope, body, send))
        gone = asyncio.create_task(receive())
        try:
            await asyncio.wait([fetching, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not fetching.done():
                fetching.cancel()
            await asyncio.wait([fetching, gone])

    return application


class Careless:
    """A bare pass-through, careless in one more way if told so."""

    def __init__(self, target: str, *, buffers: bool = False) -> None:
        self.target = target
        self.buffers = buffers
        self.http: aiohttp.ClientSession

    def request(self, headers: CIMultiDict[str], body: bytes) -> tuple[CIMultiDict[str], bytes]:
        return headers, body

    async def handle(self, request: web.Request) -> web.StreamResponse:
        pairs = [(name, value) for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP]
        headers, body = self.request(CIMultiDict(pairs), await request.read())
        async with self.http.request(request.method, self.target, data=body or None, headers=headers) as response:
            passed = CIMultiDict((n, v) for n, v in response.headers.items() if n.lower() not in HOP_BY_HOP)
            if self.buffers:
                return web.Response(status=response.status, headers=passed, body=await response.read())
            answer = web.StreamResponse(status=response.status, headers=passed)
            await answer.prepare(request)
            async for chunk in response.content.iter_any():
                await answer.write(chunk)
            return answer

    async def judged(self, stub: StubServer, names: list[str], seconds: float) -> list[Finding]:
        application = web.Application(client_max_size=1 << 24)
        application.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/mcp"
        try:
            async with aiohttp.ClientSession() as self.http:
                return await run_suite(url, stub, denied_tool=DENIED, seconds=seconds, cases=chosen(names))
        finally:
            await runner.cleanup()


def careless(kind: Callable[[str], Careless], *names: str, seconds: float = GENEROUS_SECONDS) -> dict[str, str]:
    async def run() -> list[Finding]:
        stub = StubServer()
        target = await stub.start("127.0.0.1", 0)
        try:
            return await kind(target).judged(stub, list(names), seconds)
        finally:
            await stub.stop()

    return failures(asyncio.run(run()))


def test_a_bare_pass_through_is_caught_wherever_something_had_to_be_refused() -> None:
    caught = careless(Careless)
    assert caught.keys() == {
        "method-mismatch",
        "name-mismatch",
        "version-mismatch",
        "headers-missing",
        "duplicate-header",
        "duplicate-key",
        "malformed-json",
        "not-utf-8",
        "batch",
        "content-type",
        "foreign-origin",
        "denied",
        "denied-many",
        "answer-nobody-asked",
        "other-verbs",
    }
    assert caught["duplicate-key"] == "the message reached the server"


def test_one_that_gathers_an_answer_before_it_passes_it_on_is_caught() -> None:
    caught = careless(lambda target: Careless(target, buffers=True), "call-passes", "unbuffered", seconds=1)
    assert caught == {"unbuffered": "nothing came for 1 seconds"}


class LeavesOut(Careless):
    """Knows what a message has, and leaves out the rest."""

    def request(self, headers: CIMultiDict[str], body: bytes) -> tuple[CIMultiDict[str], bytes]:
        kept = CIMultiDict((n, v) for n, v in headers.items() if not n.lower().startswith("mcp-param-"))
        message = json.loads(body)
        known = {"name", "arguments", "_meta"}
        params = {name: value for name, value in message["params"].items() if name in known}
        params["_meta"] = {n: v for n, v in params["_meta"].items() if n.startswith("io.modelcontextprotocol/")}
        return kept, json.dumps({**message, "params": params}).encode()


def test_one_that_leaves_out_what_it_does_not_know_is_caught() -> None:
    names = ("call-passes", "parameter-headers", "unknown-meta", "unknown-parameters")
    assert careless(LeavesOut, *names).keys() == set(names[1:])


class WritesAnew(Careless):
    """Reads numbers as floating point and writes them anew."""

    def request(self, headers: CIMultiDict[str], body: bytes) -> tuple[CIMultiDict[str], bytes]:
        return headers, json.dumps(json.loads(body, parse_int=float)).encode()


def test_one_that_writes_numbers_anew_is_caught() -> None:
    caught = careless(WritesAnew, "exact-numbers", "ids-kept")
    assert caught["exact-numbers"] == "12345678901234567890123 was written anew"
    assert caught.keys() == {"exact-numbers", "ids-kept"}


class OneSession(Careless):
    """Has one session with the server, whoever its client is."""

    session: str | None = None

    def request(self, headers: CIMultiDict[str], body: bytes) -> tuple[CIMultiDict[str], bytes]:
        if "Mcp-Session-Id" in headers:
            self.session = self.session or headers["Mcp-Session-Id"]
            headers["Mcp-Session-Id"] = self.session
        return headers, body


def test_one_that_puts_sessions_together_is_caught() -> None:
    caught = careless(OneSession, "call-passes", "sessions-apart")
    assert caught == {"sessions-apart": "sessions of the client share one at the server"}


class Remembers(Careless):
    """Answers a call that it knows from memory."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.known: dict[bytes, web.Response] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if body not in self.known:
            async with self.http.post(self.target, data=body, headers={"Content-Type": "application/json"}) as response:
                self.known[body] = web.Response(body=await response.read(), content_type="application/json")
        kept = self.known[body].body
        return web.Response(body=kept, content_type="application/json")


def test_one_that_answers_from_memory_is_caught() -> None:
    caught = careless(Remembers, "call-passes", "retry")
    assert caught == {"retry": "after 2 calls 1 reached the server"}


def test_one_that_is_not_there_fails_and_breaks_nothing() -> None:
    async def run() -> list[Finding]:
        stub = StubServer()
        await stub.start("127.0.0.1", 0)
        try:
            return await run_suite("http://127.0.0.1:1/mcp", stub, seconds=GENEROUS_SECONDS)
        finally:
            await stub.stop()

    verdicts = {one.case.name: one.verdict for one in asyncio.run(run())}
    assert {name for name, verdict in verdicts.items() if verdict == "not applicable"} == {
        "denied",
        "denied-many",
        "oversize",
    }
    assert "pass" not in verdicts.values()


def test_a_case_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match="no case nothing"):
        chosen(["nothing"])


# --- the command


def test_the_command_reports_each_case_and_its_status_says_whether_one_failed() -> None:
    """The intermediary is none at all: the command's client calls its own server directly."""
    with _free_port() as port:
        options = ["--url", f"http://127.0.0.1:{port}/mcp", "--listen", f"127.0.0.1:{port}", "--json"]
        some = ["--case", "call-passes", "--case", "duplicate-key", "--case", "denied"]
    result = CliRunner().invoke(cli, ["intermediary", "check", *options, *some])
    assert result.exit_code == 1, result.output
    report = json.loads(result.stdout)
    assert {one["name"]: one["verdict"] for one in report["cases"]} == {
        "call-passes": "pass",
        "duplicate-key": "fail",
        "denied": "not applicable",
    }
    assert (report["passed"], report["failed"], report["not_applicable"]) == (1, 1, 1)


class _free_port:  # noqa: N801  # reads as a function
    def __enter__(self) -> int:
        from tests.support.gateway import bound

        with bound() as place:
            return int(place.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    "options",
    [
        ["--url", "ftp://127.0.0.1/", "--listen", "127.0.0.1:0"],
        ["--url", "http://127.0.0.1:1/", "--listen", "nonsense"],
        ["--url", "http://127.0.0.1:1/", "--listen", "127.0.0.1:99999"],
        ["--url", "http://127.0.0.1:1/", "--listen", "127.0.0.1:0", "--case", "nothing"],
    ],
)
def test_the_command_refuses_what_it_cannot_use(options: list[str]) -> None:
    assert CliRunner().invoke(cli, ["intermediary", "check", *options]).exit_code == 64


def test_the_page_lists_every_case_as_the_command_does() -> None:
    listed = json.loads(CliRunner().invoke(cli, ["intermediary", "cases", "--json"]).stdout)["cases"]
    page = (ROOT / "docs" / "intermediaries.md").read_text()
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert rows == [(one["name"], one["requirement"], one["source"]) for one in listed]
    assert len(rows) == len(CASES)
