"""A person in a real browser, a real gateway, client and server: a click on Approve releases exactly that call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.integration.test_containment import BUNDLE, Fleet
from tests.support.office import REASON, WAIT_SECONDS, Office, look_at_the_held_call, visit
from tests.support.service import start_service


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder: Path = tmp_path_factory.mktemp("office")
    with start_service(folder / "service") as service:
        service.put_in_force(BUNDLE)
        with Office(Fleet(service, folder)) as office:
            yield office


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


def test_a_form_from_another_site_decides_nothing(office: Office) -> None:
    done = office.call(amount=8)
    held: list[dict[str, Any]] = []
    while not held:
        held = office.waiting()
    address = f"/approvals/{held[0]['approval_id']}/verdict"
    form = {"verdict": "granted", "binding": held[0]["binding"], "reason": REASON, "csrf": "made up"}
    with office.service.browser_client() as client:
        assert client.post(address, data=form).status_code in (303, 403)
    assert not done.done()
    office.deny(held[0])
    assert done.result(WAIT_SECONDS) == "approval_denied"
