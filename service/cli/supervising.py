"""Watching over several workers that answer at one address: started, started again, stopped in order.

The parent holds the listening socket and does nothing else: no database, no key, no request. Whatever befalls a worker,
the socket stays open, and the others accept what comes.

The first worker is waited for before the others are started: what keeps it from starting, a setting or a key, keeps
all of them, and is told once. Later, a worker that ends is started again, at once if it had lived for a while, else
after a pause that doubles. A worker whose parent is gone stops by itself, so that none is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from service.cli.output import ExitCode
from service.cli.serve import READY
from service.cli.serving import STOP_SECONDS

__all__ = ["Supervisor", "supervise"]

_log = structlog.get_logger()

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_STEADY_SECONDS: Final = 10.0
_FIRST_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 30.0
_KILL_SECONDS: Final = STOP_SECONDS + 20.0
"""A worker that was told to stop and has not by then is ended; what it had acknowledged is durable."""


async def supervise(listening: socket.socket, workers: int, changes: Mapping[str, str]) -> int:
    """Run workers until a signal comes; return the exit status.

    Args:
        listening: What they accept from.
        workers: How many.
        changes: Environment variables that they have besides ours.
    """
    command = (sys.executable, "-m", "service.cli.worker")
    supervisor = Supervisor(command, listening, workers, {**os.environ, **changes})
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, supervisor.stop)
    try:
        return await supervisor.run()
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


class Supervisor:
    """Keeps a number of workers alive. Methods belong to one event loop."""

    def __init__(
        self,
        command: Sequence[str],
        listening: socket.socket,
        workers: int,
        environment: Mapping[str, str],
        *,
        steady_seconds: float = _STEADY_SECONDS,
        first_pause_seconds: float = _FIRST_PAUSE_SECONDS,
        kill_seconds: float = _KILL_SECONDS,
    ) -> None:
        """Prepare.

        Args:
            command: Starts a worker, followed by its number and two inherited descriptors.
            listening: What workers accept from.
            workers: How many.
            environment: What they find in it.
            steady_seconds: One that has lived so long is started again at once.
            first_pause_seconds: One that has not, after this; then after twice as long.
            kill_seconds: How long after being told to stop one is ended.
        """
        self._command = tuple(command)
        self._listening = listening
        self._workers = workers
        self._environment = dict(environment)
        self._steady = steady_seconds
        self._first_pause = first_pause_seconds
        self._kill = kill_seconds
        self._stopping = asyncio.Event()
        self._living: dict[int, asyncio.subprocess.Process] = {}

    @property
    def living(self) -> Mapping[int, int]:
        """Process ids of the workers that live, by number."""
        return {number: process.pid for number, process in self._living.items()}

    def stop(self) -> None:
        """Tell every worker to stop in order; `run` returns when all have."""
        self._stopping.set()
        for process in self._living.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()

    async def run(self) -> int:
        """Start the workers and keep them alive until `stop`.

        Returns:
            0, or the status of the first worker if it could not start.
        """
        ready: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        first = asyncio.create_task(self._keep(0, ready), name="worker-0")
        failed = await ready
        if self._stopping.is_set():
            failed = None
        elif failed is not None:
            self.stop()
        others: list[asyncio.Task[None]] = []
        if not self._stopping.is_set():
            others = [
                asyncio.create_task(self._keep(number), name=f"worker-{number}") for number in range(1, self._workers)
            ]
        await asyncio.gather(first, *others)
        return 0 if failed is None else max(failed, 1)

    async def _keep(self, number: int, ready: asyncio.Future[int | None] | None = None) -> None:
        """Start a worker, and again whenever it ends; ``ready`` is told of the first time."""
        pause = self._first_pause
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            try:
                status = await self._run_once(number, ready)
            except OSError as error:
                # No process or descriptor is to be had at this moment; the next attempt may have one.
                _log.error("worker_not_started", worker=number, reason=error.strerror or type(error).__name__)
                status = ExitCode.UNCHECKED
                if ready is not None and not ready.done():
                    ready.set_result(status)
            if self._stopping.is_set() or (ready is not None and ready.result() is not None):
                return
            steady = loop.time() - began >= self._steady
            pause = self._first_pause if steady else min(2 * pause, _LONGEST_PAUSE_SECONDS)
            _log.error("worker_ended", worker=number, status=status, again_after_seconds=0 if steady else pause)
            if not steady:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stopping.wait()

    async def _run_once(self, number: int, ready: asyncio.Future[int | None] | None) -> int:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                shared = (self._listening.fileno(), theirs.fileno())
                process = await asyncio.create_subprocess_exec(
                    *self._command,
                    str(number),
                    *map(str, shared),
                    pass_fds=shared,
                    env=self._environment,
                    stdin=asyncio.subprocess.DEVNULL,
                )
            self._living[number] = process
            if self._stopping.is_set():
                process.terminate()
            try:
                if ready is not None and not ready.done():
                    await self._await_first(ours, process, ready)
                return await self._await_end(process)
            finally:
                del self._living[number]

    async def _await_first(
        self, link: socket.socket, process: asyncio.subprocess.Process, ready: asyncio.Future[int | None]
    ) -> None:
        link.settimeout(0)
        said = b""
        with contextlib.suppress(OSError):
            said = await asyncio.get_running_loop().sock_recv(link, len(READY))
        # The connection ends with the worker, whatever ended that.
        ready.set_result(None if said == READY else await process.wait())

    async def _await_end(self, process: asyncio.subprocess.Process) -> int:
        ended = asyncio.create_task(process.wait())
        told = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((ended, told), return_when=asyncio.FIRST_COMPLETED)
        told.cancel()
        done, _ = await asyncio.wait((ended,), timeout=self._kill if not ended.done() else 0)
        if not done:
            _log.error("worker_killed", process=process.pid)
            process.kill()
        return await ended
