"""A stage for attacks: real MCP servers of the official SDK, an agent that does what it reads, and two ways to them.

The same attack goes *directly* first, where nothing stands between agent and servers, and then through a real gateway
before a real service, under a bundle that ships and is not changed. What servers did is told by their own state.

`Agent` stands for a model that cannot tell an order from a text: whatever text it has read, it does what that text
tells it to call. It is not clever, and always does the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import nacl.signing
import uvicorn
from click.testing import CliRunner
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPError

from enforcement.gateway import build_gateway
from ledger.clock import Clock, SystemClock
from ledger.notes import encode_base64
from policies.directories import read_library_bundle
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluator
from service.auth import Role
from service.cli.main import cli
from tests.support.gateway import SPOOL_KEY, WAIT_SECONDS, config_of, serve
from tests.support.mcp_messages import VERSION
from tests.support.service import RunningService, start_service

__all__ = ["Agent", "Precinct", "Refusal", "Who", "directly", "in_order", "precinct"]

_ORDER = re.compile(r"call (\w+)/(\w+) with (\{[^{}]*\})")


@dataclass(frozen=True, kw_only=True)
class Who:
    """A credential at the gateway.

    Attributes:
        agent: Whose.
        role: Its one role.
        mfa: Whether a second factor was part of the login.
        user: On whose behalf.
    """

    agent: str
    role: str
    mfa: bool = True
    user: str = "alice"

    @property
    def token(self) -> str:
        """What it presents."""
        return f"token-of-{self.agent}-{self.user}-{self.mfa}"


@dataclass(frozen=True)
class Refusal:
    """What an agent was told instead of an answer."""

    server: str
    name: str
    reason: str
    rule: str | None


@dataclass
class Agent:
    """A client of several servers that does what it reads.

    Attributes:
        clients: The SDK's client of each server.
        read: Every text that it was given, in order.
        refused: What it was not let do.
    """

    clients: Mapping[str, Client]
    read: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)

    async def look_around(self) -> dict[str, list[str]]:
        """List the tools of every server, and read what they say of themselves."""
        found: dict[str, list[str]] = {}
        for server, client in self.clients.items():
            tools = (await client.list_tools()).tools
            found[server] = [tool.name for tool in tools]
            self.read += [tool.description or "" for tool in tools]
        return found

    async def call(self, server: str, tool: str, **arguments: Any) -> str | None:
        """Call a tool and read its answer; None if it was refused."""
        try:
            result = await self.clients[server].call_tool(tool, arguments)
        except MCPError as error:
            self._refuse(server, tool, error)
            return None
        assert not result.is_error, result
        text = "".join(part.text for part in result.content)
        self.read.append(text)
        return text

    async def open(self, server: str, uri: str) -> str | None:
        """Read a resource; None if it was refused."""
        try:
            result = await self.clients[server].read_resource(uri)
        except MCPError as error:
            self._refuse(server, uri, error)
            return None
        text = "".join(part.text for part in result.contents)
        self.read.append(text)
        return text

    async def obey(self) -> int:
        """Make every call that a text it has read tells it to make, once; return how many there were."""
        orders = [order for text in self.read for order in _ORDER.findall(text)]
        self.read.clear()
        for server, tool, arguments in orders:
            await self.call(server, tool, **json.loads(arguments))
        return len(orders)

    def _refuse(self, server: str, name: str, error: MCPError) -> None:
        data = error.error.data
        assert isinstance(data, dict), error  # another error than a gateway's is a failure of the test
        self.refused.append(Refusal(server, name, str(data["reason"]), data.get("rule")))


@asynccontextmanager
async def _served(servers: Mapping[str, MCPServer]) -> AsyncIterator[dict[str, str]]:
    """Run servers; yields the URL of each."""
    async with AsyncExitStack() as stack:
        urls = {}
        for name, server in servers.items():
            app = server.streamable_http_app()
            config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", loop="asyncio")
            await stack.enter_async_context(server.session_manager.run())
            urls[name] = f"{await stack.enter_async_context(serve(config))}/mcp"
        yield urls


@asynccontextmanager
async def _agent(urls: Mapping[str, str], token: str | None) -> AsyncIterator[Agent]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=WAIT_SECONDS))
        clients = {}
        for name, url in urls.items():
            transport = streamable_http_client(url, http_client=http)
            clients[name] = await stack.enter_async_context(Client(transport, mode=VERSION, cache=None))
        yield Agent(clients)


@asynccontextmanager
async def directly(servers: Mapping[str, MCPServer]) -> AsyncIterator[Agent]:
    """An agent with nothing between it and the servers."""
    async with _served(servers) as urls, _agent(urls, None) as agent:
        yield agent


class Precinct:
    """A service, one gateway that is introduced to it, and who may call.

    Attributes:
        service: The service.
        clock: The gateway's clock; the service's is the system's.
    """

    def __init__(self, folder: Path, service: RunningService, bundle: str, clock: Clock) -> None:
        """Put a shipped bundle in force, and introduce the gateway."""
        self.service = service
        self.clock = clock
        self._key = nacl.signing.SigningKey(b"\x2a" * 32)
        self._home = folder / "gateway"
        self._home.mkdir()
        service.put_in_force(read_library_bundle(bundle))
        with service.client(Role.ADMIN) as admin:
            wanted = {"enforcer_id": "gateway-1", "public_key": encode_base64(bytes(self._key.verify_key))}
            token = admin.post("/v1/enforcers", json=wanted).json()["token"]
        (self._home / "token").touch(mode=0o600)
        (self._home / "token").write_text(token)

    @asynccontextmanager
    async def guarded(
        self,
        servers: Mapping[str, MCPServer],
        who: Sequence[Who],
        rules: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> AsyncIterator[list[Agent]]:
        """Put the gateway before servers; yields an agent for each credential.

        Args:
            servers: The servers by name.
            who: Credentials.
            rules: Further settings of servers, by name.
            settings: Further settings of the gateway.
        """
        evaluator = Evaluator({"cedar": CedarEngine()})
        try:
            async with _served(servers) as urls:
                listed = [{"name": name, "url": url, **(rules or {}).get(name, {})} for name, url in urls.items()]
                config = config_of(
                    self._home / "state",
                    self.service.url,
                    "unused",
                    servers=listed,
                    principals=[self._principal(one) for one in who],
                    **{
                        "recording": {"strict_seconds": WAIT_SECONDS},
                        "bundles": {"poll_seconds": 3600, "max_age_seconds": 30 * 86_400},
                        **settings,
                    },
                )
                gateway = build_gateway(
                    config,
                    evaluator=evaluator,
                    clock=self.clock,
                    signing_key=self._key,
                    pseudonym_key=self.service.services.keys.pseudonym.seed,
                    spool_key=SPOOL_KEY,
                    simulated=True,
                )
                await gateway.start()
                try:
                    async with (
                        serve(gateway.server_config(host="127.0.0.1", port=0)) as url,
                        AsyncExitStack() as stack,
                    ):
                        doors = {name: f"{url}/servers/{name}/mcp" for name in servers}
                        yield [await stack.enter_async_context(_agent(doors, one.token)) for one in who]
                finally:
                    await gateway.stop()
        finally:
            evaluator.close()

    @staticmethod
    def _principal(who: Who) -> dict[str, Any]:
        digest = hashlib.sha256(who.token.encode()).hexdigest()
        return {"token_sha256": digest, "agent": who.agent, "user": who.user, "roles": [who.role], "mfa": who.mfa}

    def command(self, *arguments: str) -> str:
        """Run a command of an incident responder against the service, and return what it says."""
        options = ["--url", self.service.url, "--token", self.service.token(Role.AUDITOR)]
        result = CliRunner().invoke(cli, [*arguments, *options])
        assert result.exit_code == 0, result.output
        return result.output

    def sessions(self, agent: str) -> list[str]:
        """Return the sessions of an agent, oldest first, as `find --sessions` tells them."""
        found = json.loads(self.command("find", "--agent", agent, "--sessions", "--json"))["sessions"]
        return [one["session"] for one in reversed(found)]

    def story(self, agent: str) -> str:
        """Return what `tallystick session` says of the one session of an agent."""
        (session,) = self.sessions(agent)
        return self.command("session", session)

    async def held(self) -> str:
        """Wait until a call is held, and return its approval id."""
        with self.service.client() as client:
            async with asyncio.timeout(WAIT_SECONDS):
                while True:
                    answer = await asyncio.to_thread(client.get, "/v1/approvals")
                    if waiting := [one for one in answer.json()["items"] if one["state"] == "waiting"]:
                        return str(waiting[0]["approval_id"])
                    await asyncio.sleep(0.02)

    def refuse(self, approval_id: str, reason: str) -> str:
        """Look at a held call as a person does, and deny it; return what was shown."""
        return self._decide(approval_id, "denied", reason)

    def agree(self, approval_id: str, reason: str) -> str:
        """Look at a held call as a person does, and let it go on; return what was shown."""
        return self._decide(approval_id, "granted", reason)

    def _decide(self, approval_id: str, verdict: str, reason: str) -> str:
        with self.service.client(token=self.service.token(Role.APPROVER, "ben")) as client:
            opened = client.post(f"/v1/approvals/{approval_id}/open", json={})
            assert opened.is_success, opened.text
            said = {"verdict": verdict, "binding": opened.json()["binding"], "reason": reason}
            answer = client.post(f"/v1/approvals/{approval_id}/verdict", json=said)
            assert answer.is_success, answer.text
            return str(opened.json()["shown"]["text"])


@asynccontextmanager
async def precinct(folder: Path, bundle: str, *, clock: Clock | None = None) -> AsyncIterator[Precinct]:
    """A service with a shipped bundle in force, and a gateway that may be started, as often as wanted."""
    with start_service(folder / "service") as service:
        yield await asyncio.to_thread(Precinct, folder, service, bundle, clock or SystemClock())


def in_order(text: str, *parts: str) -> None:
    """Assert that a text has parts, one after the other."""
    place = 0
    for part in parts:
        found = text.find(part, place)
        assert found >= 0, f"{part!r} does not stand after the part before it in:\n{text}"
        place = found + len(part)
