"""A real gateway, client and server in a thread of their own, so that a test can drive a browser beside them.

Calls of ``transfer_funds`` are held for people. What came of a call is its text, or the reason why it was refused.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Self

import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from playwright.sync_api import Browser, Page

from ledger.bodies import Approval
from service.auth import Role
from tests.integration.test_containment import Fleet, site
from tests.support.browser import Visitor, new_visitor
from tests.support.gateway import ScriptedEvaluator, Tools
from tests.support.held import APPROVALS, ask_for
from tests.support.ledger import LOG_ID
from tests.support.mcp_messages import VERSION

__all__ = ["REASON", "WAIT_SECONDS", "Office", "look_at_the_held_call", "open_it", "until", "visit"]

REASON = "ticket 18: looked into it"
WAIT_SECONDS = 60


class Office:
    """One gateway with one client and one server.

    Attributes:
        fleet: Where the gateway is introduced.
        service: The service.
        tools: The server, which counts what it did.
    """

    tools: Tools

    def __init__(self, fleet: Fleet, **options: Any) -> None:
        """Take a fleet's first gateway, with further settings."""
        self.fleet = fleet
        self.service = fleet.service
        self._options = {"approvals": APPROVALS, **options}
        self._stop = asyncio.Event()
        self._ready: Future[tuple[asyncio.AbstractEventLoop, Client]] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="gateway")

    async def _serve(self) -> None:
        evaluator = ScriptedEvaluator(ask_for("transfer_funds"))
        try:
            async with site(self.fleet, "gateway-a", evaluator, **self._options) as place:
                self.tools = place.tools
                async with place.http("Finance-Bot") as http:
                    transport = streamable_http_client(place.mcp_url, http_client=http)
                    async with Client(transport, mode=VERSION, cache=None) as client:
                        self._ready.set_result((asyncio.get_running_loop(), client))
                        await self._stop.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    def __enter__(self) -> Self:
        """Start, and wait until calls can be made."""
        self._thread.start()
        self._loop, self._client = self._ready.result(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, work: Callable[[Client], Awaitable[Any]]) -> Future[Any]:
        async def outcome() -> Any:
            return await work(self._client)

        return asyncio.run_coroutine_threadsafe(outcome(), self._loop)

    def call(self, **arguments: Any) -> Future[str]:
        """Have the client call ``transfer_funds``; cancelling the future withdraws the call."""

        async def transfer(client: Client) -> str:
            try:
                return str((await client.call_tool("transfer_funds", arguments)).content[0].text)
            except MCPError as error:
                return str(error.error.data["reason"])

        return self._run(transfer)

    def list_tools(self) -> None:
        """Have the client list the server's tools, and wait until it has the list."""
        self._run(lambda client: client.list_tools()).result(WAIT_SECONDS)

    def waiting(self) -> list[dict[str, Any]]:
        """Return the held calls that wait, as the service has them."""
        with self.service.client(Role.AUDITOR) as auditor:
            return [item for item in auditor.get("/v1/approvals").json()["items"] if item["state"] == "waiting"]

    def steps(self, approval_id: str) -> list[tuple[str, str | None]]:
        """Return what the log says became of a held call: actions, each with its reason."""
        services = self.service.services
        bodies = [services.reader.record(leaf).body for leaf in services.catalog.of_type(LOG_ID, "approval")]
        found = [body for body in bodies if isinstance(body, Approval) and body.approval_id == approval_id]
        return [(body.action, body.reason) for body in found]

    def deny(self, held: dict[str, Any]) -> None:
        """Have a person deny a held call by the API."""
        with self.service.client(token=self.service.token(Role.APPROVER, "ben")) as client:
            body = {"verdict": "denied", "binding": held["binding"], "reason": REASON}
            client.post(f"/v1/approvals/{held['approval_id']}/verdict", json=body).raise_for_status()


def visit(office: Office, chromium: Browser, name: str, token: str | None = None) -> tuple[Visitor, Page]:
    """Have somebody log in in a browser: an approver of that name, unless another token is given."""
    visitor = new_visitor(chromium, office.service.url)
    page = visitor.page()
    page.goto(f"{office.service.url}/login")
    page.get_by_label("Token").fill(token or office.service.token(Role.APPROVER, name))
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(office.service.url + "/")
    return visitor, page


def look_at_the_held_call(page: Page) -> None:
    """Go to the page of the one call that waits, as soon as there is one."""
    for _ in range(600):
        page.get_by_role("link", name="Held calls").first.click()
        waiting = page.get_by_role("region", name="Waiting").get_by_role("link")
        if waiting.count() == 1:
            waiting.click()
            return
        page.wait_for_timeout(50)
    pytest.fail("no call was held")


def until(page: Page, condition: Callable[[], bool]) -> None:
    """Wait until something is so, while the browser goes on."""
    for _ in range(1200):
        if condition():
            return
        page.wait_for_timeout(50)
    pytest.fail("it did not come to that")


def open_it(page: Page) -> str:
    """Show what will run, and write a reason; return the approval's id."""
    approval_id = page.url.split("?")[0].removesuffix("/open").rsplit("/", 1)[-1]
    page.get_by_role("button", name="Show exactly what will run").click()
    page.get_by_label("Reason").fill(REASON)
    return approval_id
