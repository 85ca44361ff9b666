"""`tallystick wrap` as a client's configuration starts it: the official SDK's client, its server, a real service."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError
from mcp_types import TextContent

from ledger.bodies import Decision, Outcome
from ledger.records import Record
from policies.bundles import bundle_from_files
from service.auth import Role
from service.cli.main import cli
from tests.support.commands import PROGRAM, clean_environment
from tests.support.ledger import LOG_ID
from tests.support.mcp_messages import VERSION
from tests.support.policies import PASSING_CASE, SCHEMA, cedar_files
from tests.support.service import RunningService, start_service

METHODS = '"tools/list", "server/discover", "initialize", "notifications/initialized"'
POLICY = """
@id("handshake") permit (principal, action, resource);
@id("no-transfers") forbid (principal, action == Action::"tools/call", resource == Tool::"finance/transfer_funds");
"""
SERVER = '''
import os
import sys

from mcp.server.mcpserver import MCPServer

server = MCPServer("finance")


@server.tool()
def refund_customer(amount: int) -> str:
    """Refund a customer."""
    print("said beside", file=sys.stderr, flush=True)
    return f"refunded {amount} {os.environ.get('TALLYSTICK_PASSPHRASE', 'unseen')}"


@server.tool()
def transfer_funds(amount: int) -> str:
    """Transfer funds."""
    raise SystemExit("it was called")


server.run("stdio")
'''


class Wrapped:
    """A service, and the configuration of a wrapped server that reports to it."""

    def __init__(self, service: RunningService, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.log = folder / "wrap.log"
        (folder / "server.py").write_text(SERVER)
        options = {
            "id": "desk-1",
            "server": "finance=http://127.0.0.1:9",
            "agent": "Finance-Bot",
            "zone": "Europe/Berlin",
            "keys-dir": str(service.services.settings.keys_dir),
            "url": service.url,
            "token": service.token(Role.ADMIN),
        }
        spelt = [part for name, value in options.items() for part in (f"--{name}", value)]
        made = CliRunner().invoke(cli, ["gateway", "init", str(folder / "desk"), *spelt])
        assert made.exit_code == 0, made.output
        self.config = folder / "desk" / "gateway.yaml"
        settings = yaml.safe_load(self.config.read_text())
        del settings["servers"][0]["url"]
        settings["stdio"] = {"principal": {"agent": "Finance-Bot", "user": "alice"}}
        self.config.write_text(yaml.safe_dump(settings))

    @asynccontextmanager
    async def client(self, mode: str) -> AsyncIterator[Client]:
        command = [sys.executable, str(self.folder / "server.py")]
        parameters = StdioServerParameters(
            command=str(PROGRAM),
            args=["wrap", "--config", str(self.config), "--server", "finance", "--", *command],
            env=clean_environment(TALLYSTICK_PASSPHRASE="unused"),
        )
        with self.log.open("w") as log:
            async with Client(stdio_client(parameters, errlog=log), mode=mode, cache=None) as client:
                yield client

    def records(self, kind: str) -> list[Record]:
        services = self.service.services
        return [services.reader.record(leaf) for leaf in services.catalog.of_type(LOG_ID, kind)]

    def decisions(self) -> list[tuple[str, Decision]]:
        found = self.records("decision")
        return [(record.record_id, record.body) for record in found if isinstance(record.body, Decision)]

    def outcomes(self) -> dict[str, str]:
        """What became of each call, by its decision."""
        found = [record.body for record in self.records("outcome")]
        return {body.decision_id: body.status for body in found if isinstance(body, Outcome)}


@pytest.fixture(scope="module")
def wrapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wrapped]:
    folder = tmp_path_factory.mktemp("wrap")
    with start_service(folder / "service") as service:
        schema = SCHEMA.replace('"tools/list"', METHODS)
        service.put_in_force(bundle_from_files({**cedar_files(POLICY, schema=schema), **PASSING_CASE}))
        yield Wrapped(service, folder)


@pytest.mark.parametrize("mode", [VERSION, "legacy"])
def test_the_sdks_client_calls_a_wrapped_server_and_every_call_is_on_record(mode: str, wrapped: Wrapped) -> None:
    before = len(wrapped.decisions())

    async def scenario() -> None:
        async with wrapped.client(mode) as client:
            answer = await client.call_tool("refund_customer", {"amount": 5})
            assert [part.text for part in answer.content if isinstance(part, TextContent)] == ["refunded 5 unseen"]
            with pytest.raises(MCPError, match="Denied by policy"):
                await client.call_tool("transfer_funds", {"amount": 5})
            assert not (await client.call_tool("refund_customer", {"amount": 6})).is_error

    asyncio.run(scenario())
    said = wrapped.log.read_text()
    assert "said beside" in said.splitlines()
    assert '"gateway_started"' in said
    assert "Traceback" not in said
    calls = [(decision_id, one) for decision_id, one in wrapped.decisions()[before:] if one.method == "tools/call"]
    assert [(one.agent, one.tool, one.enforcement, one.transport) for _, one in calls] == [
        ("Finance-Bot", "refund_customer", "allow", "stdio"),
        ("Finance-Bot", "transfer_funds", "deny", "stdio"),
        ("Finance-Bot", "refund_customer", "allow", "stdio"),
    ]
    outcomes = wrapped.outcomes()
    allowed = [decision_id for decision_id, one in calls if one.enforcement == "allow"]
    assert [outcomes[decision_id] for decision_id in allowed] == ["completed", "completed"]
