"""Discovery over real sockets: the laboratory, hostile servers, and the command as it is typed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from enforcement.discovery.probing import Limits
from enforcement.discovery.scan import Scan, scan
from enforcement.discovery.scope import parse_scope
from ledger.errors import ConfigError
from tests.discovery.laboratory import SERVERS, laboratory
from tests.discovery.measure import DOCUMENT, measure, written
from tests.support.commands import run


def test_the_laboratory_is_told_apart_as_the_document_says(tmp_path):
    measured = asyncio.run(measure(tmp_path))
    assert measured.servers >= 20
    assert measured.decoys >= 20
    assert [row for row in measured.rows if set(row[2]) != {row[1]} - {None}] == []
    document = DOCUMENT.read_text(encoding="utf-8")
    assert written(document, measured) == document


def test_a_scan_leaves_no_session_behind(tmp_path):
    asked: list[tuple[str, bool]] = []

    def watching(exhibit: Any) -> Callable[[str], Any]:
        def make(url: str) -> Any:
            app = exhibit.make(url)

            async def noted(scope: Any, receive: Any, send: Any) -> None:
                if scope["type"] == "http":
                    names = {name for name, _ in scope["headers"]}
                    asked.append((scope["method"], b"mcp-session-id" in names))
                    assert b"authorization" not in names
                    assert b"cookie" not in names
                await app(scope, receive, send)

            return noted

        return make

    async def proceed() -> None:
        first = SERVERS[0]
        async with laboratory(tmp_path, [replace(first, make=watching(first))]) as place:
            found = await scan(parse_scope(place.targets[:1], paths=["/mcp"]), rate=1000)
        assert found.servers[0].eras == ("stateful", "stateless")

    asyncio.run(proceed())
    assert ("DELETE", True) in asked


Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def ask(reply: Reply, **limits: Any) -> tuple[Scan, int]:
    """Scan one raw server; returns what was found and how many connections there were."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            await reply(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def proceed() -> Scan:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            short = Limits(connect_seconds=1, request_seconds=0.5, port_seconds=20, **limits)
            return await scan(parse_scope([target]), rate=1000, limits=short)

    return asyncio.run(proceed()), connections


def drip(head: bytes, unit: bytes) -> Reply:
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(head)
        while True:
            writer.write(unit)
            await writer.drain()
            await asyncio.sleep(0.01)

    return reply


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("head", "unit"),
    [
        (b"", b"H"),
        (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"b"),
        (OK + b"\r\n", b" "),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (OK + b"Content-Length: 99999999999\r\n\r\n", b"["),
        (OK.replace(b"application/json", b"text/event-stream") + b"\r\n", b": ping\n\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_a_server_that_drips_is_left_alone_soon(head, unit):
    found, connections = ask(drip(head, unit))
    assert found.servers == ()
    assert connections <= 10
    assert found.requests <= 4


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 999 X\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
        OK + b"Content-Length: 2\r\n\r\n\xff\xfe",
        b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/mcp\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 X\r\nLocation: //[/\r\nContent-Length: 0\r\n\r\n",
        b'HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer resource_metadata="http://127.0.0.1:1/x"\r\n\r\n',
    ],
)
def test_an_answer_that_is_none_shows_no_server(answer):
    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(answer)
        await writer.drain()

    found, _ = ask(reply)
    assert found.servers == ()
    assert found.count("closed") == 0


def test_a_redirect_leads_within_the_port_only_and_not_for_ever():
    asked: list[bytes] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n")).split()
        if len(line) == 3:
            asked.append(line[1])
            writer.write(b"HTTP/1.1 307 X\r\nLocation: " + line[1] + b"x\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

    found, _ = ask(reply)
    assert found.servers == ()
    assert len(asked) == len(set(asked)) == 11


def test_a_closed_port_is_closed_and_a_name_that_nobody_has_too():
    found = asyncio.run(scan(parse_scope(["127.0.0.1:1", "no-such-host.invalid:80"]), rate=1000))
    assert found.count("closed") == 2
    assert found.requests == 0


@pytest.mark.parametrize("rate", [0, -1, 1001, float("nan"), float("inf")])
def test_a_pace_that_is_none_is_refused(rate):
    with pytest.raises(ConfigError):
        asyncio.run(scan(parse_scope(["127.0.0.1:1"]), rate=rate))


# --- the command


def test_a_shadow_server_ends_the_command_with_status_1_and_a_registered_one_with_0(tmp_path):
    async def proceed() -> tuple[dict[str, Any], int, int]:
        async with laboratory(tmp_path, SERVERS[:1]) as place:
            target = place.targets[0]
            (tmp_path / "servers.yaml").write_text(f"servers:\n- name: lab\n  url: http://{target}/mcp\n")
            shadow = await asyncio.to_thread(run, "discover", target, "--json", cwd=tmp_path)
            listed = await asyncio.to_thread(run, "discover", target, "--servers", "servers.yaml", cwd=tmp_path)
        return json.loads(shadow.output), shadow.status, listed.status

    report, shadow, listed = asyncio.run(proceed())
    assert (shadow, listed) == (1, 0)
    assert report["shadow"] == 1
    assert report["servers"][0]["revisions"]
    assert report["ports"] == {"closed": 0, "asked": 1, "unfinished": 0}


def test_a_dry_run_says_what_it_would_ask_and_sends_nothing(tmp_path):
    connections = 0

    async def count(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async def proceed() -> str:
        async with await asyncio.start_server(count, "127.0.0.1", 0) as server:
            target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            done = await asyncio.to_thread(run, "discover", target, "--dry-run", "--json", cwd=tmp_path)
        assert done.status == 0
        assert json.loads(done.output)["endpoints"] == [{"host": "127.0.0.1", "port": int(target.split(":")[1])}]
        return done.output

    assert asyncio.run(proceed())
    assert connections == 0


def configured(folder: Path, entry: dict[str, Any]) -> None:
    (folder / ".cursor").mkdir(exist_ok=True)
    (folder / ".cursor" / "mcp.json").write_text(json.dumps({"mcpServers": {"mine": entry}}))


def test_a_server_that_a_client_starts_is_a_shadow_until_it_is_wrapped(tmp_path):
    (tmp_path / "servers.yaml").write_text("servers:\n- name: notes\n")
    configured(tmp_path, {"command": "npx", "args": ["--token", "s3cret"]})
    done = run("discover", "--configs", ".", "--servers", "servers.yaml", cwd=tmp_path)
    assert done.status == 1
    assert "SHADOW" in done.output
    assert "s3cret" not in done.output
    configured(tmp_path, {"command": "tallystick", "args": ["wrap", "--server", "notes", "--", "npx"]})
    assert run("discover", "--configs", ".", "--servers", "servers.yaml", cwd=tmp_path).status == 0


def test_a_configuration_that_cannot_be_read_is_status_4(tmp_path):
    (tmp_path / ".mcp.json").write_text("{")
    done = run("discover", "--configs", ".", cwd=tmp_path)
    assert done.status == 4
    assert "not understood" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["http://host/mcp"],
        ["10.0.0.0/8"],
        ["host", "--ports", "0"],
        ["host", "--rate", "0"],
        ["host", "--path", "mcp"],
        ["--configs", "nowhere"],
        ["host", "--servers", "nowhere"],
    ],
)
def test_what_cannot_be_asked_is_an_error_of_usage(tmp_path, arguments):
    done = run("discover", *arguments, cwd=tmp_path)
    assert done.status == 64
    assert done.output == ""
