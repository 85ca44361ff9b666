"""The parent of several workers: whom it starts, starts again, stops, and what it makes of one that cannot start."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from service.cli.supervising import Supervisor

WAIT_SECONDS = 30.0

WORKER = """
import os, signal, socket, sys, time
number, listening, parent = map(int, sys.argv[1:4])
link = socket.socket(fileno=parent)
with open(os.path.join({folder!r}, "started"), "a") as file:
    file.write(f"{{number}}\\n")
{body}
"""

READY = "link.send(b'ready')\n"
UNTIL_STOPPED = READY + "signal.sigwait([signal.SIGTERM])\nsys.exit(0)"
MASK = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"


class Workers:
    """A supervisor over scripts that stand for workers, each noting that it was started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listening = socket.socket()

    def run(
        self,
        body: str,
        work: Callable[[Supervisor], Awaitable[Any]] | None = None,
        *,
        workers: int = 3,
        **options: float,
    ) -> int:
        """Run workers while ``work`` lasts, then stop them; return the exit status."""
        script = WORKER.format(folder=str(self.folder), body=MASK + body)
        timing = {"steady_seconds": 60.0, "first_pause_seconds": 0.01, "kill_seconds": 5.0, **options}

        async def main() -> int:
            supervisor = Supervisor(
                (sys.executable, "-S", "-c", script), self.listening, workers, dict(os.environ), **timing
            )
            running = asyncio.create_task(supervisor.run())
            if work is not None:
                try:
                    await asyncio.wait_for(work(supervisor), WAIT_SECONDS)
                finally:
                    supervisor.stop()
            return await asyncio.wait_for(running, WAIT_SECONDS)

        with self.listening:
            return asyncio.run(main())

    def started(self) -> list[int]:
        path = self.folder / "started"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path)


async def until(ready: Callable[[], bool]) -> None:
    while not ready():  # noqa: ASYNC110  # processes have no event of ours
        await asyncio.sleep(0.01)


def test_every_worker_is_started_once_and_all_stop_in_order(workers):
    async def work(supervisor: Supervisor) -> None:
        await until(lambda: sorted(workers.started()) == [0, 1, 2])
        assert sorted(supervisor.living) == [0, 1, 2]

    assert workers.run(UNTIL_STOPPED, work) == 0
    assert sorted(workers.started()) == [0, 1, 2]


def test_the_others_wait_until_the_first_answers(workers):
    body = "import time\nif number == 0: time.sleep(0.5)\n" + UNTIL_STOPPED

    async def work(supervisor: Supervisor) -> None:
        await until(lambda: workers.started() == [0])
        await asyncio.sleep(0.1)
        assert workers.started() == [0]
        await until(lambda: len(workers.started()) == 3)

    assert workers.run(body, work) == 0


@pytest.mark.parametrize("status", [1, 2, 64])
def test_a_first_worker_that_cannot_start_ends_all_with_its_status(workers, status):
    assert workers.run(f"sys.exit({status})") == status
    assert workers.started() == [0], "it is not tried again, and the others are not tried"


def test_a_first_worker_that_is_killed_while_it_starts_is_a_failure(workers):
    assert workers.run("os.kill(os.getpid(), signal.SIGKILL)") == 1


def without_processes(monkeypatch: pytest.MonkeyPatch, refused: Callable[[int], bool]) -> list[int]:
    """Let the system refuse to start some worker; return the numbers of those that it refused."""
    start, found = asyncio.create_subprocess_exec, []

    async def starting(*command: str, **options: Any) -> asyncio.subprocess.Process:
        number = int(command[-3])
        if refused(number):
            found.append(number)
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return await start(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", starting)
    return found


def test_a_first_worker_for_which_the_system_has_no_process_ends_all(workers, monkeypatch):
    without_processes(monkeypatch, lambda _number: True)
    assert workers.run(UNTIL_STOPPED) == 4
    assert workers.started() == []


def test_a_worker_for_which_the_system_has_no_process_is_tried_again(workers, monkeypatch):
    found = without_processes(monkeypatch, lambda number: number == 2 and len(found) < 2)

    async def work(supervisor: Supervisor) -> None:
        await until(lambda: sorted(supervisor.living) == [0, 1, 2])

    assert workers.run(UNTIL_STOPPED, work) == 0
    assert found == [2, 2]


def test_a_worker_that_dies_is_started_again_and_the_others_go_on(workers):
    async def work(supervisor: Supervisor) -> None:
        await until(lambda: len(workers.started()) == 3)
        await until(lambda: len(supervisor.living) == 3)
        before = dict(supervisor.living)
        os.kill(before[1], signal.SIGKILL)
        await until(lambda: workers.started().count(1) == 2)
        await until(lambda: len(supervisor.living) == 3)
        assert {number: supervisor.living[number] for number in (0, 2)} == {n: before[n] for n in (0, 2)}

    assert workers.run(UNTIL_STOPPED, work) == 0


def test_one_that_dies_at_once_is_tried_ever_more_seldom(workers):
    body = READY + "if number == 1: sys.exit(3)\nsignal.sigwait([signal.SIGTERM])"

    async def work(_: Supervisor) -> None:
        await until(lambda: workers.started().count(1) == 4)

    loop_time = asyncio.run(timed(workers, body, work))
    # 0.2 + 0.4 + 0.8 s lie between the four.
    assert loop_time > 1.3


async def timed(workers: Workers, body: str, work: Callable[[Supervisor], Awaitable[Any]]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.to_thread(workers.run, body, work, workers=2, first_pause_seconds=0.1)
    return loop.time() - began


def test_one_that_had_lived_for_a_while_is_started_again_at_once(workers):
    async def work(supervisor: Supervisor) -> None:
        await until(lambda: sorted(workers.started()) == [0, 1])
        for count in (2, 3):
            os.kill(supervisor.living[1], signal.SIGKILL)
            await until(lambda wanted=count: workers.started().count(1) == wanted and len(supervisor.living) == 2)

    assert workers.run(UNTIL_STOPPED, work, workers=2, steady_seconds=0.0, first_pause_seconds=1000.0) == 0


def test_one_that_does_not_stop_is_ended(workers):
    body = READY + "import time\ntime.sleep(1000)"

    async def work(_: Supervisor) -> None:
        await until(lambda: len(workers.started()) == 2)

    assert workers.run(body, work, workers=2, kill_seconds=0.3) == 0


def test_a_stop_before_the_first_answers_is_no_failure(workers):
    body = "signal.sigwait([signal.SIGTERM])\nsys.exit(0)"

    async def work(_: Supervisor) -> None:
        await until(lambda: workers.started() == [0])

    assert workers.run(body, work) == 0
    assert workers.started() == [0]


def test_workers_share_the_listening_socket(workers):
    body = READY + "assert socket.socket(fileno=listening).getsockname()[1] > 0\nsignal.sigwait([signal.SIGTERM])"
    workers.listening.bind(("127.0.0.1", 0))

    async def work(supervisor: Supervisor) -> None:
        await until(lambda: len(workers.started()) == 3)
        await asyncio.sleep(0.2)
        assert len(workers.started()) == 3

    assert workers.run(body, work) == 0
