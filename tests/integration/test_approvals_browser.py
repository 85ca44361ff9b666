"""A person in a real browser, a real gateway, client and server: a click on Approve releases exactly that call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from playwright.sync_api import Browser, Page

from service.auth import Role
from tests.integration.test_containment import BUNDLE, Fleet, site
from tests.support.browser import Visitor, new_visitor
from tests.support.gateway import ScriptedEvaluator
from tests.support.held import APPROVALS, ask_for
from tests.support.mcp_messages import VERSION
from tests.support.service import start_service

REASON = "ticket 18: looked into it"
WAIT_SECONDS = 60


class Office:
    """A gateway with a client in a thread of its own, so that the test itself can drive a browser."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.service = fleet.service
        self.tools: Any = None
        self._wanted: asyncio.Queue[tuple[dict[str, Any], Future[str]] | None] = asyncio.Queue()
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="gateway")

    async def _serve(self) -> None:
        evaluator = ScriptedEvaluator(ask_for("transfer_funds"))
        try:
            async with site(self.fleet, "gateway-a", evaluator, approvals=APPROVALS) as place:
                self.tools = place.tools
                async with place.http("Finance-Bot") as http:
                    transport = streamable_http_client(place.mcp_url, http_client=http)
                    async with Client(transport, mode=VERSION, cache=None) as client:
                        await self._call_each(client)
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise

    async def _call_each(self, client: Client) -> None:
        calls: set[asyncio.Task[None]] = set()
        self._ready.set_result(asyncio.get_running_loop())
        while (wanted := await self._wanted.get()) is not None:
            calls.add(asyncio.create_task(self._call(client, *wanted)))
        await asyncio.gather(*calls)

    @staticmethod
    async def _call(client: Client, arguments: dict[str, Any], done: Future[str]) -> None:
        try:
            done.set_result((await client.call_tool("transfer_funds", arguments)).content[0].text)
        except MCPError as error:
            done.set_result(str(error.error.data["reason"]))

    def __enter__(self) -> Self:
        self._thread.start()
        self._loop = self._ready.result(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._wanted.put_nowait, None)
        self._thread.join()

    def call(self, **arguments: Any) -> Future[str]:
        done: Future[str] = Future()
        self._loop.call_soon_threadsafe(self._wanted.put_nowait, (arguments, done))
        return done


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder: Path = tmp_path_factory.mktemp("office")
    with start_service(folder / "service") as service:
        service.put_in_force(BUNDLE)
        with Office(Fleet(service, folder)) as office:
            yield office


def visit(office: Office, chromium: Browser, name: str, role: Role = Role.APPROVER) -> tuple[Visitor, Page]:
    visitor = new_visitor(chromium, office.service.url)
    page = visitor.page()
    page.goto(f"{office.service.url}/login")
    page.get_by_label("Token").fill(office.service.token(role, name))
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


def test_a_click_on_approve_releases_exactly_the_held_call(office: Office, chromium: Browser) -> None:
    before = len(office.tools.calls)
    done = office.call(amount=41.5)
    visitor, page = visit(office, chromium, "ben")
    look_at_the_held_call(page)
    assert page.get_by_role("button", name="Approve").count() == 0
    page.get_by_role("button", name="Show exactly what will run").click()
    assert '"amount": 41.5' in page.locator("pre").inner_text()
    assert not done.done()
    assert len(office.tools.calls) == before
    page.get_by_label("Reason").fill(REASON)
    page.get_by_role("button", name="Approve").click()
    assert done.result(WAIT_SECONDS) == "transferred 41.5"
    assert office.tools.calls[before:] == ["transfer_funds"]
    page.reload()
    assert page.get_by_role("heading", level=1).inner_text().startswith("Approved")
    visitor.close()


def test_a_click_on_deny_ends_it(office: Office, chromium: Browser) -> None:
    before = len(office.tools.calls)
    done = office.call(amount=1000)
    visitor, page = visit(office, chromium, "ben")
    look_at_the_held_call(page)
    page.get_by_role("button", name="Show exactly what will run").click()
    page.get_by_label("Reason").fill(REASON)
    page.get_by_role("button", name="Deny").click()
    assert done.result(WAIT_SECONDS) == "approval_denied"
    assert len(office.tools.calls) == before
    visitor.close()


def test_who_asked_for_it_clicks_in_vain(office: Office, chromium: Browser) -> None:
    before = len(office.tools.calls)
    done = office.call(amount=7)
    visitor, page = visit(office, chromium, "alice")  # for whom the agent acts
    look_at_the_held_call(page)
    address = page.url
    page.get_by_role("button", name="Show exactly what will run").click()
    page.get_by_label("Reason").fill(REASON)
    page.get_by_role("button", name="Approve").click()
    assert page.get_by_text("who asked for a call cannot agree to it").is_visible()
    assert not done.done()
    page.goto(address)
    assert page.get_by_text("Attempts that were refused").is_visible()
    visitor.close()
    visitor, page = visit(office, chromium, "cleo")
    page.goto(address)
    page.get_by_role("button", name="Show exactly what will run").click()
    page.get_by_label("Reason").fill(REASON)
    page.get_by_role("button", name="Deny").click()
    assert done.result(WAIT_SECONDS) == "approval_denied"
    assert len(office.tools.calls) == before
    visitor.close()


def test_a_form_from_another_site_decides_nothing(office: Office) -> None:
    done = office.call(amount=8)
    with office.service.browser_client() as client:
        held: list[dict[str, Any]] = []
        with office.service.client(Role.AUDITOR) as auditor:
            while not held:
                held = auditor.get("/v1/approvals").json()["items"]
        address = f"/approvals/{held[0]['approval_id']}/verdict"
        form = {"verdict": "granted", "binding": held[0]["binding"], "reason": REASON, "csrf": "made up"}
        assert client.post(address, data=form).status_code in (303, 403)
    assert not done.done()
    deny(office, held[0])
    assert done.result(WAIT_SECONDS) == "approval_denied"


def deny(office: Office, held: dict[str, Any]) -> None:
    with office.service.client(token=office.service.token(Role.APPROVER, "ben")) as client:
        body = {"verdict": "denied", "binding": held["binding"], "reason": REASON}
        client.post(f"/v1/approvals/{held['approval_id']}/verdict", json=body).raise_for_status()
