"""Behaviour windows under ``kill -9``: what a permitted call took is taken afterwards as well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.repository import ROOT
from tests.unit.enforcement.test_pep import World
from tests.unit.enforcement.test_windows import ALL, asked, call

GATEWAY = textwrap.dedent(
    """
    import asyncio
    import sys
    from pathlib import Path

    from enforcement.verdicts import Completion, Permitted
    from tests.unit.enforcement.test_pep import World
    from tests.unit.enforcement.test_windows import ALL, call

    async def caller(world, amount):
        for number in range(1_000_000):
            verdict = await world.pep.handle(call(amount))
            assert isinstance(verdict, Permitted)
            print('took', amount, flush=True)
            status = "not_forwarded" if number % 7 == 6 else "completed"
            if status == "not_forwarded":
                print('took', -amount, flush=True)
            await world.pep.complete(verdict, Completion(status=status))

    async def scenario(world):
        await asyncio.gather(caller(world, 1), caller(world, 100), caller(world, 10_000))

    World(Path(sys.argv[1]), bundle=ALL).run(scenario)
    """
)


def run_and_kill(directory: Path, lines: int) -> list[int]:
    """Start a gateway, kill it after so many permits, and return what they took, less what was to be given back."""
    command = [sys.executable, "-c", GATEWAY, str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment, text=True) as gateway:
        assert gateway.stdout is not None
        said = [gateway.stdout.readline() for _ in range(lines + 1)]  # the first names the windows
        gateway.send_signal(signal.SIGKILL)
        said += gateway.stdout.readlines()
    return [int(line.split()[1]) for line in said if line.startswith("took ") and line.endswith("\n")]


@pytest.mark.parametrize("lines", [1, 40])
def test_no_cap_is_lifted_by_a_kill(tmp_path: Path, lines: int) -> None:
    said = run_and_kill(tmp_path, lines)
    assert len(said) >= lines

    async def scenario(world: World) -> None:
        (spent, *_) = await asked(world, call(0))
        assert isinstance(spent, str)
        # At most one call of each caller was permitted and not yet said to be.
        assert sum(said) <= float(spent) <= sum(amount for amount in said if amount > 0) + 10_101

    World(tmp_path, bundle=ALL).run(scenario)
