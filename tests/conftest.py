"""What all tests share: the requirement marker, Hypothesis profiles, and a unit-test run without sockets.

Fixtures of the embedded ledger and its databases live in the module of `tests.support` that explains them.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = ("tests.support.postgres", "tests.support.databases")

_UNIT = Path(__file__).parent / "unit"

# Examples are random on a developer's machine, where new ones are welcome, and the same in every run of CI.
settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile(
    "ci", deadline=None, print_blob=True, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "requirement(*ids): the test holds these ids of tests/conformance/requirements.py"
    )


@pytest.fixture(autouse=True)
def _logging_is_left_as_it_was() -> Iterator[None]:
    """Undo what a command that ran in this process did to its logging: others look at what is logged."""
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(autouse=True)
def _no_sockets_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections in `tests/unit`; event loops may still make their private socket pairs, urllib3 may probe."""
    if not request.path.is_relative_to(_UNIT):
        return

    def refuse(*_: object) -> NoReturn:
        pytest.fail("a unit test opened a connection")

    for method in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, method, refuse)
