"""What the pages have a newcomer type and copy for each of the five transports: a bundle that ships, the real SDK.

The blocks are taken out of docs/enforcement.md and docs/transports.md as they stand; only addresses and folders are
put in, as a reader would. At the end of each, a client of the official SDK calls, and both of its calls are on record.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
import yaml
from click.testing import CliRunner
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError
from pydantic import AnyHttpUrl

from ledger.bodies import Decision
from policies.directories import read_library_bundle
from service.auth import Role
from service.cli.main import cli
from tests.support.commands import PROGRAM, Started, clean_environment
from tests.support.gateway import serve
from tests.support.ledger import LOG_ID
from tests.support.repository import ROOT
from tests.support.service import RunningService, start_service

ENFORCEMENT = (ROOT / "docs" / "enforcement.md").read_text()
TRANSPORTS = (ROOT / "docs" / "transports.md").read_text()
ERAS = ("2026-07-28", "legacy")
TOKEN = "of-the-authorization-server"
SERVER = '''
from mcp.server.mcpserver import MCPServer

server = MCPServer("finance")


@server.tool()
def refund(amount: int, currency: str) -> str:
    """Refund."""
    return f"refunded {amount} {currency}"


server.run("stdio")
'''


def block(page: str, heading: str, kind: str) -> str:
    """Return the first block of a kind under a heading."""
    section = re.split(rf"^{re.escape(heading)}$", page, flags=re.MULTILINE)[1]
    found = re.search(
        rf"^```{kind}\n(.*?)^```$", re.split(r"^#{2,3} ", section, flags=re.MULTILINE)[0], re.MULTILINE | re.DOTALL
    )
    assert found is not None
    return found[1]


def refund(amount: int, currency: str) -> str:
    """Refund."""
    return f"refunded {amount} {currency}"


def with_tool(server: Any) -> Any:
    server.tool()(refund)
    return server


async def use(client: Client) -> None:
    """Call within the limit of the bundle, and beyond it."""
    answer: Any = await client.call_tool("refund", {"amount": 1, "currency": "EUR"})
    assert answer.content[0].text == "refunded 1 EUR"
    with pytest.raises(MCPError) as refused:
        await client.call_tool("refund", {"amount": 10**9, "currency": "EUR"})
    assert refused.value.error.data["rule"] == "amount-limit"


async def use_http(url: str, token: str, modes: tuple[str, ...] = ERAS) -> None:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30) as http:
        for mode in modes:
            async with Client(streamable_http_client(url, http_client=http), mode=mode, cache=None) as client:
                await use(client)


@asynccontextmanager
async def serving(app: Any, *, lifespan: str = "on") -> AsyncIterator[str]:
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan=lifespan, loop="asyncio")  # type: ignore[arg-type]
    config.timeout_graceful_shutdown = 1
    async with serve(config) as url:
        yield url


@dataclass
class House:
    """A service with a bundle that ships in force, and what `gateway init` of the page has left in a folder."""

    service: RunningService
    folder: Path
    token: str

    @property
    def commands(self) -> list[list[str]]:
        text = block(ENFORCEMENT, "## In five minutes", "").replace("\\\n", " ")
        return [shlex.split(line)[1:] for line in text.splitlines()]

    def decided(self, transport: str | None) -> list[tuple[str, str]]:
        services = self.service.services
        bodies = [services.reader.record(leaf).body for leaf in services.catalog.of_type(LOG_ID, "decision")]
        made = [one for one in bodies if isinstance(one, Decision) and one.transport == transport]
        return [(one.agent or "", one.enforcement) for one in made if one.method == "tools/call"]

    def run_page(self, text: str, **names: Any) -> dict[str, Any]:
        """Run a block of the page in the folder of the configuration, with what the reader's own program has."""
        exec(compile(text, "transports.md", "exec"), names)  # our own page
        return names


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("page")
    with start_service(folder / "service") as service, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("TALLYSTICK_PASSPHRASE", raising=False)
        service.put_in_force(read_library_bundle("amount-bounds"))
        made = House(service, folder, "")
        known = {"/etc/tallystick/keys": str(service.services.settings.keys_dir)}
        environment = {"TALLYSTICK_URL": service.url, "TALLYSTICK_TOKEN": service.token(Role.ADMIN)}
        result = CliRunner(env=environment).invoke(cli, [known.get(part, part) for part in made.commands[0]])
        assert result.exit_code == 0, result.output
        found = re.search(r"Authorization: Bearer (\S+)", result.output)
        assert found is not None
        made.token = found[1]
        patch.chdir(folder / "gw")
        yield made


def test_the_gateway_of_the_page_lets_clients_of_both_eras_do_what_a_bundle_that_ships_permits(house: House) -> None:
    config = house.folder / "gw" / "gateway.yaml"
    settings = yaml.safe_load(config.read_text())

    async def scenario() -> None:
        server = with_tool(MCPServer("finance"))
        app = server.streamable_http_app()
        async with server.session_manager.run(), serving(app, lifespan="off") as upstream:
            settings["servers"][0]["url"] = f"{upstream}/mcp"  # where the reader's server is
            config.write_text(yaml.safe_dump(settings))
            command = [part.replace("127.0.0.1:8788", "127.0.0.1:0") for part in house.commands[1]]
            with Started([PROGRAM, *command], cwd=house.folder, variables={}) as gateway:
                ready = json.loads(await asyncio.to_thread(gateway.wait_for_line, '"event": "gateway_serving"'))
                await use_http(f"http://127.0.0.1:{ready['port']}/servers/finance/mcp", house.token)
                gateway.signal(signal.SIGTERM)
                assert await asyncio.to_thread(gateway.wait) == 0, gateway.text

    asyncio.run(scenario())
    assert house.decided(None) == [("Finance-Bot", "allow"), ("Finance-Bot", "deny")] * 2


def test_the_wrapper_of_the_page_is_started_by_a_clients_configuration(house: House) -> None:
    page = "### stdio: `tallystick wrap`"
    config, server = house.folder / "gw" / "gateway.yaml", house.folder / "server.py"
    server.write_text(SERVER)
    config.write_text(
        yaml.safe_dump({**yaml.safe_load(config.read_text()), **yaml.safe_load(block(TRANSPORTS, page, "yaml"))})
    )
    entry = json.loads(block(TRANSPORTS, page, "json"))["mcpServers"]["finance"]
    assert entry["command"] == "tallystick"
    own = {"/etc/tallystick/finance/gateway.yaml": [str(config)], "finance-server": [sys.executable, str(server)]}
    args = [part for word in entry["args"] for part in own.get(word, [word])]

    async def scenario() -> None:
        parameters = StdioServerParameters(command=str(PROGRAM), args=args, env=clean_environment())
        with (house.folder / "wrap.log").open("w") as log:
            async with Client(stdio_client(parameters, errlog=log), mode="legacy", cache=None) as client:
                await use(client)

    asyncio.run(scenario())
    assert house.decided("stdio") == [("Finance-Bot", "allow"), ("Finance-Bot", "deny")]


def test_the_asgi_middleware_of_the_page_stands_before_a_servers_application(house: House) -> None:
    async def scenario() -> None:
        server = with_tool(MCPServer("finance"))
        app = house.run_page(block(TRANSPORTS, "### ASGI", "python"), server=server)["app"]
        async with serving(app) as url:
            await use_http(f"{url}/mcp", house.token)

    asyncio.run(scenario())
    assert house.decided("asgi") == [("Finance-Bot", "allow"), ("Finance-Bot", "deny")] * 2


def verifier() -> StaticTokenVerifier:
    return StaticTokenVerifier({TOKEN: {"client_id": "Desk-Bot", "scopes": ["finance"]}})


def test_both_middlewares_of_the_page_stand_inside_of_servers_that_verify_tokens(house: House) -> None:
    issuer = AnyHttpUrl("https://issuer.example")
    resource = AnyHttpUrl("http://127.0.0.1:9001/mcp")
    auth = AuthSettings(issuer_url=issuer, resource_server_url=resource, validate_token_resource=False)

    async def scenario() -> None:
        made = house.run_page(block(TRANSPORTS, "### SDK", "python"), verifier=verifier(), auth=auth)
        server = with_tool(made["server"])
        app = server.streamable_http_app()
        async with made["core"], server.session_manager.run(), serving(app, lifespan="off") as url:
            await use_http(f"{url}/mcp", TOKEN)
        made = house.run_page(block(TRANSPORTS, "### SDK", "python"), verifier=verifier(), auth=auth)
        made["auth"] = verifier()
        made = house.run_page(block(TRANSPORTS, "### FastMCP", "python"), **made)
        async with made["core"], serving(with_tool(made["server"]).http_app(path="/mcp")) as url:
            await use_http(f"{url}/mcp", TOKEN)

    asyncio.run(scenario())
    assert house.decided("sdk") == [("Desk-Bot", "allow"), ("Desk-Bot", "deny")] * 4
