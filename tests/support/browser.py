"""A real Chromium for tests, without a network, watched: whatever a page complains about fails the test.

The `chromium` fixture's browser lives for one module: Playwright's plain interface keeps an event loop of its own
running, beside which `asyncio.run` would not work in the tests of another module.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from scripts.machine import BROWSERS

_FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
_ADVICE: Final = "no Chromium on this machine: run `make setup-test`, or put one of {} on the PATH"
_TIMEOUT_MS: Final = 15_000

_WATCH_POLICY: Final = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.__violations.push(`${event.violatedDirective}: ${event.blockedURI}`);
});
"""


def _executable(fetched: str) -> str:
    """Return where Chromium is: installed, or fetched by Playwright."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None and Path(fetched).exists():
        found = fetched
    if found is None:
        pytest.fail(_ADVICE.format(", ".join(BROWSERS)))
    return found


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Run a browser; fail with advice if there is none."""
    with sync_playwright() as playwright:
        executable = _executable(playwright.chromium.executable_path)
        browser = playwright.chromium.launch(executable_path=executable, args=list(_FLAGS))
        yield browser
        browser.close()


class Visitor:
    """One person with one browser profile; notes everything that should not happen.

    Attributes:
        context: The profile: cookies, colour scheme, size of the window.
        complaints: Errors of the console and of scripts.
        foreign: Requests to any other host than the service's.
    """

    def __init__(self, browser: Browser, base_url: str, **options: Any) -> None:
        self._host = urlsplit(base_url).netloc
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.context: BrowserContext = browser.new_context(
            **{"base_url": base_url, "viewport": {"width": 1280, "height": 900}, **options}
        )
        self.context.set_default_timeout(_TIMEOUT_MS)
        self.context.add_init_script(_WATCH_POLICY)
        self.context.on("request", self._note_request)
        self.context.on("requestfailed", self._forget_blocked)
        self.context.on("console", self._note_message)
        self.context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def _note_request(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != self._host:
            self.foreign.append(request.url)

    def _forget_blocked(self, request: Any) -> None:
        # What the page's policy stopped never left the browser; `close` reports the violation.
        if request.failure == "csp" and request.url in self.foreign:
            self.foreign.remove(request.url)

    def _note_message(self, message: Any) -> None:
        # That a page was answered with 4xx is the test's business, not the page's complaint.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def page(self) -> Page:
        """Open a tab."""
        return self.context.new_page()

    def close(self) -> None:
        """Close the profile, and fail if any page complained, broke its policy, or asked another host."""
        broken = [
            violation
            for page in self.context.pages
            if page.url.startswith("http")
            for violation in page.evaluate("window.__violations || []")
        ]
        self.context.close()
        assert self.complaints == []
        assert broken == []
        assert self.foreign == []


def new_visitor(browser: Browser, base_url: str, **options: Any) -> Visitor:
    """Return a visitor with a fresh profile.

    Args:
        browser: The `chromium` fixture.
        base_url: Of the service.
        options: Of Playwright's ``new_context``: ``color_scheme``, ``viewport``, ``java_script_enabled``, …
    """
    return Visitor(browser, base_url, **options)
