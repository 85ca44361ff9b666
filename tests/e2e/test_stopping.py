"""How the long-running commands end: Ctrl-C in a terminal, SIGTERM from a supervisor, both while work is going on.

Ctrl-C is sent to the whole group of processes, as a terminal does it. The demonstration's end after it has shown all is
in `test_demo`, the gateway's in `test_own_server`.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.commands import PROGRAM, Installation, Started

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    made = Installation(folder=tmp_path)
    made.make_keys()
    return made


@SIGNALS
def test_the_service_ends_with_status_0_and_a_closed_log(installation, number):
    # A shell starts what it runs in the background with SIGINT ignored; the service hears it all the same.
    with Started(
        [PROGRAM, "serve"], cwd=installation.folder, variables=installation.variables, ignored=True
    ) as started:
        started.wait_for_line('"event": "serving"')
        started.signal_all(number)
        assert started.wait() == 0, started.text
        assert started.left_behind() == []
    assert "Traceback" not in started.text
    report = installation.do_json("audit")
    (stream,) = report["streams"]
    assert (report["findings"], stream["verdict"]) == ([], "complete")
    assert "the stream was closed" in stream["reason"]


@SIGNALS
def test_a_demonstration_that_is_stopped_half_way_says_so_and_leaves_no_process_behind(tmp_path, number):
    with Started([PROGRAM, "demo", "--once"], cwd=tmp_path, variables={}) as started:
        started.wait_for_line("Finance-Bot at 10:05")
        started.signal_all(number)
        # Never 0: a demonstration that did not show everything has shown nothing.
        assert started.wait() == 128 + number, started.text
        assert started.left_behind() == []
    assert started.lines[-1] == "The demonstration was stopped before its end."
    assert "Traceback" not in started.text


def test_a_demonstration_that_was_killed_leaves_no_server_behind(tmp_path):
    with Started([PROGRAM, "demo", "--once"], cwd=tmp_path, variables={}) as started:
        started.wait_for_line("MCP servers of the official SDK at")
        started.signal(signal.SIGKILL)
        assert started.wait() == -signal.SIGKILL
        assert started.left_behind() == []
