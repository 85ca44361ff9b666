"""A login in a real browser at an OpenID provider that others wrote: not ours, and not ours to bend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from oidc_provider_mock import User, run_server_in_thread
from playwright.sync_api import Browser, Page, expect

from tests.support.service import RunningService, start_service

# The provider warns of its own library's future; here that would be an error, of its and not of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::authlib.deprecate.AuthlibDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:get_jwt_config:DeprecationWarning"),
]

ANN = User(sub="ann", claims={"email": "ann@example.com", "email_verified": True, "tally": ["approvers"]})
EVE = User(sub="eve", claims={"email": "eve@example.com", "email_verified": True})


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with run_server_in_thread(require_nonce=True, user_claims=[ANN, EVE]) as provider:
        folder = tmp_path_factory.mktemp("provider")
        secret = folder / "client.secret"
        secret.write_text("any will do")
        secret.chmod(0o600)
        settings = {
            "oidc_client_secret": f"file:{secret}",
            "oidc_issuer": f"http://localhost:{provider.server_port}",
            "oidc_client_id": "tallystick",
            "oidc_role_claim": "tally",
            "oidc_roles": "approvers=approver",
        }
        with start_service(folder, **settings) as running:
            # The port was not known before: an operator writes it into TALLYSTICK_EXTERNAL_URL.
            asked = running.services.oidc
            assert asked is not None
            asked.settings = replace(asked.settings, redirect_uri=f"{running.url}/login/callback")
            yield running


@pytest.fixture(params=[True, False], ids=["with scripts", "without scripts"])
def page(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = chromium.new_context(java_script_enabled=request.param)
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()


def log_in(page: Page, service: RunningService, who: str) -> None:
    page.goto(service.url)
    page.get_by_role("link", name="Log in with localhost").click()
    expect(page.get_by_role("heading", name="Authorize Client")).to_be_visible()
    page.get_by_role("button", name=who).click()


def test_a_person_logs_in_at_the_provider_and_is_back_on_the_dashboard(service, page):
    log_in(page, service, "ann")
    expect(page.get_by_role("heading", name="Decisions", exact=True)).to_be_visible()
    expect(page.get_by_text("ann@example.com")).to_be_visible()
    cookies = {cookie["name"]: cookie for cookie in page.context.cookies(service.url)}
    assert cookies["tallystick"]["sameSite"] == "Strict"
    assert cookies["tallystick"]["httpOnly"] is True
    assert "tallystick-login" not in cookies
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="End session").click()  # the provider's own question
    expect(page.get_by_text("You are logged out.")).to_be_visible()
    assert page.url == f"{service.url}/login?said=logged-out"
    page.goto(service.url)
    expect(page.get_by_label("Token")).to_be_visible()


def test_whom_the_provider_gives_no_role_is_told_so_and_stays_outside(service, page):
    log_in(page, service, "eve")
    expect(page.get_by_role("alert")).to_contain_text("gives you no role here")
    page.goto(service.url)
    expect(page.get_by_label("Token")).to_be_visible()


def test_who_says_no_at_the_provider_is_told_so(service, page):
    page.goto(service.url)
    page.get_by_role("link", name="Log in with localhost").click()
    page.get_by_role("button", name="Deny").click()
    # That provider leaves the state out where it should stand: what it says belongs to nobody's login.
    expect(page.get_by_role("alert")).to_contain_text("begin again")
    page.goto(service.url)
    expect(page.get_by_label("Token")).to_be_visible()
