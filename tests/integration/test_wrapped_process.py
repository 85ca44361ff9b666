"""A wrapped server's process: what it gets to see, and how it ends."""

from __future__ import annotations

import asyncio
import sys

import pytest

from enforcement.child import child_environment, start_child
from ledger.errors import ConfigError


def run(program: str, *, stop_seconds: float = 20.0, say: bytes = b"") -> tuple[bytes, int]:
    async def scenario() -> tuple[bytes, int]:
        child = await start_child([sys.executable, "-c", program], {"PATH": "/usr/bin", "GIVEN": "yes"})
        child.pipe.sink.write(say)
        child.pipe.sink.write_eof()
        said = await child.pipe.source.read(1 << 16)
        return said, await child.stop(stop_seconds)

    return asyncio.run(scenario())


def test_a_server_sees_the_variables_that_are_named_and_no_others() -> None:
    said, status = run("import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))")
    assert (said, status) == (b"['GIVEN', 'PATH']\n", 0)
    environment = {"PATH": "/bin", "TALLYSTICK_TOKEN": "secret", "FINANCE_DB": "x", "OTHER": "y"}
    assert child_environment(environment, ["FINANCE_DB", "ABSENT"]) == {"PATH": "/bin", "FINANCE_DB": "x"}


def test_its_exit_status_is_passed_on_and_a_signal_is_told_as_a_shell_would() -> None:
    assert run("raise SystemExit(7)")[1] == 7
    assert run("import os, signal; os.kill(os.getpid(), signal.SIGTERM)")[1] == 143


def test_a_server_that_does_not_end_is_killed() -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    assert run(stubborn, stop_seconds=0.1) == (b"up\n", 137)


def test_a_command_that_is_not_there_is_said_so() -> None:
    with pytest.raises(ConfigError, match="no-such-server"):
        asyncio.run(start_child(["/no/no-such-server"], {}))
