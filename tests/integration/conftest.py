"""Fixtures of the integration tests: a running service, a running browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.support.browser import running_chromium
from tests.support.service import RunningService, start_service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    """Run a service for one test."""
    with start_service(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Run a browser for one module's tests."""
    with running_chromium() as browser:
        yield browser
