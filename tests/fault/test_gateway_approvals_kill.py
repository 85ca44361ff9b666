"""A held call under ``kill -9`` from the last look to the server: it is called at most once, and what is known is said.

The gateway is a process of its own; ledger, server and client are the test's. It is killed at each step of the way of
one call to which somebody has agreed, and begins anew on the same state, with the agreement still there to be heard.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from ledger.bodies import Approval
from ledger.records import Record
from tests.support.gateway import Surroundings, surroundings
from tests.support.held import APPROVALS, ask_for, grant, held_by, say, settled
from tests.support.repository import ROOT

GATEWAY = textwrap.dedent(
    """
    import asyncio
    import os
    import signal
    import sys
    from pathlib import Path

    from enforcement.holding import Holding
    from ledger.clock import SimulatedClock
    from tests.support.gateway import NOON_MS, FakeLedger, ScriptedEvaluator, Surroundings
    from tests.support.held import APPROVALS, ask_for

    directory, ledger, upstream, moment = sys.argv[1:]
    use = Holding._use

    async def killed(self, held):
        if moment == "looked":
            os.kill(os.getpid(), signal.SIGKILL)
        reason = await use(self, held)
        if moment == "recorded":
            os.kill(os.getpid(), signal.SIGKILL)
        return reason

    Holding._use = killed

    async def run():
        world = Surroundings(
            directory=Path(directory),
            ledger=FakeLedger(url=ledger),
            tools=None,
            evaluator=ScriptedEvaluator(ask_for("transfer_funds")),
            upstream=upstream,
            clock=SimulatedClock(NOON_MS),
            options={"approvals": APPROVALS},
        )
        async with world.running():
            print("answers at", world.url, flush=True)
            await asyncio.Event().wait()

    asyncio.run(run())
    """
)
CANCELLED: Final = (["held", "cancelled"], "not_forwarded", "gateway_restarted")
UNKNOWN: Final = (["held", "used"], "unknown", "gateway_restarted")
MOMENTS: Final[dict[str, tuple[tuple[list[str], str, str], int]]] = {
    "looked": (CANCELLED, 0),  # enough have agreed, the last look found nothing, and nothing is recorded
    "sent": (UNKNOWN, 0),  # that the approval is used is durable at the gateway, and not in the ledger
    "taken": (UNKNOWN, 0),  # it is in the ledger, and the gateway has not heard so
    "recorded": (UNKNOWN, 0),  # the gateway knows, and has sent nothing to the server
    "called": (UNKNOWN, 1),  # the server is at it
}
"""Where it is killed, with what the ledger says in the end, and how often the server was called."""


@asynccontextmanager
async def started(world: Surroundings, moment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a gateway in a process of its own, until it dies."""
    arguments = (str(world.directory), world.ledger.url, world.upstream, moment)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GATEWAY, *arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=environment
    )
    try:
        assert process.stdout is not None
        async for line in process.stdout:  # its log goes there too
            if line.startswith(b"answers at "):
                world.url = line.split()[-1].decode()
                break
        assert world.url, "it did not start"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _is_used(record: Record) -> bool:
    return isinstance(record.body, Approval) and record.body.action == "used"


class Killing(list[str]):
    """The calls of a server that kills whoever calls it."""

    def __init__(self, kill: Callable[[], None]) -> None:
        super().__init__()
        self._kill = kill

    def append(self, name: str) -> None:
        """Note a call."""
        super().append(name)
        self._kill()


def kill_when(world: Surroundings, moment: str, process: asyncio.subprocess.Process) -> None:
    """Kill the gateway from outside, at the moments that are not its own."""
    ledger = world.ledger
    take = ledger._take

    def kill() -> None:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)

    def sent(records: list[Record]) -> None:
        if any(map(_is_used, records)):
            kill()
            raise ConnectionError  # nothing of it was taken

    def taken(record: Record, openings: Any) -> dict[str, object]:
        done = take(record, openings)
        if _is_used(record):
            kill()
        return done

    if moment == "sent":
        ledger.fault = sent
    elif moment == "taken":
        ledger._take = taken  # type: ignore[method-assign]
    elif moment == "called":
        world.tools.calls = Killing(kill)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_held_call_is_made_at_most_once_and_the_ledger_says_what_is_known(tmp_path: Path, moment: str) -> None:
    expected, calls = MOMENTS[moment]

    async def ask(world: Surroundings) -> None:
        async with world.client() as client:
            await client.call_tool("transfer_funds", {"amount": 1})

    async def scenario(world: Surroundings) -> None:
        async with started(world, moment) as process:
            kill_when(world, moment, process)
            call = asyncio.create_task(ask(world))
            step = await held_by(world)
            say(world.ledger, step, grant(step))
            assert await process.wait() == -signal.SIGKILL
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        assert len(world.tools.calls) == calls
        world.ledger.fault = lambda _: None
        async with world.running():
            # What people said is told again: it is not for the gateway that begins now.
            say(world.ledger, step, grant(step))
            assert await settled(world, step) == expected
            asked = world.ledger.verdicts
            other = asyncio.create_task(ask(world))
            await world.settle(lambda: len(world.ledger.steps("held")) == 2)
            assert world.ledger.verdicts is asked
            assert len(world.tools.calls) == calls
            other.cancel()
            await asyncio.gather(other, return_exceptions=True)
        assert len(world.tools.calls) == calls
        assert len(world.ledger.outcomes(step.decision_id)) == 1
        assert [one.verdict.value for one in world.ledger.streams()] == ["complete"]

    async def run() -> None:
        async with surroundings(tmp_path, answer=ask_for("transfer_funds"), approvals=APPROVALS) as world:
            await scenario(world)

    asyncio.run(run())
