"""The demonstration's stage: sockets, servers in tasks and processes, its folder, its claims.

Nothing here knows what is demonstrated; `run` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click
import httpx
import uvicorn

from ledger.errors import ConfigError, UpstreamError
from service.auth import Role
from service.cli.serving import listen as listen_on
from service.persons import CONSOLE, MAX_PERSON_SECONDS, Person
from service.wiring.services import Services

__all__ = [
    "API",
    "WAIT_SECONDS",
    "Checks",
    "Claim",
    "fresh",
    "listen",
    "say",
    "serving",
    "token_of",
    "tool_servers",
]

WAIT_SECONDS: Final = 60.0
_MARKER: Final = "made by tallystick demo: may be deleted"


def say(text: str = "") -> None:
    """Print a line."""
    click.echo(text)


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that the demonstration says, whether it held, and by what that is seen."""

    claim: str
    holds: bool
    detail: str


@dataclass(slots=True)
class Checks:
    """What the demonstration claims, and whether it held."""

    made: list[Claim] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        """Claims that did not hold."""
        return [claim.claim for claim in self.made if not claim.holds]

    def expect(self, claim: str, *, holds: bool, detail: str = "") -> None:
        """Print a claim with a mark, and remember it."""
        say(f"  {'✓' if holds else '✗'} {claim}{f' ({detail})' if detail else ''}")
        self.made.append(Claim(claim, holds, detail))


def listen(preferred: int) -> socket.socket:
    """Return a listening loopback socket at the preferred port, or at any if that is taken."""
    try:
        return listen_on("127.0.0.1", preferred)
    except ConfigError:
        return listen_on("127.0.0.1", 0)


@asynccontextmanager
async def serving(config: uvicorn.Config, listening: socket.socket) -> AsyncIterator[None]:
    """Serve in a task of this loop; signals stay with whoever runs the demonstration."""
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # older uvicorn
    task = asyncio.create_task(server._serve([listening]))  # noqa: SLF001  # serve() would take over the signals
    try:
        while not server.started:
            if task.done():
                await task
            await asyncio.sleep(0.02)
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def tool_servers(log: Path) -> AsyncIterator[str]:
    """Start the MCP servers in a process of their own and yield their base URL."""
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "service.demo.tools",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), WAIT_SECONDS)
        if not line:
            raise UpstreamError(f"the demonstration's MCP servers did not start; see {log}")
        yield f"http://127.0.0.1:{json.loads(line)['port']}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def fresh(folder: Path) -> None:
    """Make an empty folder, removing what an earlier demonstration left there, and nothing else."""
    marker = folder / "README"
    if folder.exists():
        if not marker.is_file() or marker.read_text(encoding="utf-8").strip() != _MARKER:
            raise ConfigError(f"{folder} exists and was not made by the demonstration")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    marker.write_text(_MARKER + "\n", encoding="utf-8")


class API:
    """Calls the service with one token."""

    def __init__(self, url: str, token: str) -> None:
        """Call ``url`` with ``token``."""
        self._client = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=WAIT_SECONDS, trust_env=False
        )

    async def __call__(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401  # JSON
        """Return the JSON or the bytes of a successful answer.

        Raises:
            UpstreamError: The service refused or failed.
        """
        response = await self._client.request(method, path, **options)
        if not response.is_success:
            raise UpstreamError(f"{method} {path}: {response.status_code} {response.text[:300]}")
        return response.json() if "json" in response.headers.get("content-type", "") else response.content

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()


def token_of(services: Services, role: Role) -> str:
    """Return the token of a role: the auditor's program has one, and people log in at the console of the day."""
    name = f"demo-{role.value}"
    if role is Role.AUDITOR:
        return services.tokens.issue("demo", role, name)
    person = Person(issuer=CONSOLE, subject=name, name=name, method="console")
    return services.people.issue(person, role, seconds=MAX_PERSON_SECONDS)[0]
