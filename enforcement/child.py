"""A wrapped server's process: what it gets to see, and how it ends.

It gets the variables of the environment that are named and no others: what else is there (tokens, keys, the gateway's
own) is not the server's affair. Its standard error is ours, unread. It runs in a process group of its own, so that a
signal from the terminal reaches it through us, in order, and its children end with it.

Source: Model Context Protocol, revision 2026-07-28, "stdio", "Shutdown".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from enforcement.config_stdio import INHERITED
from enforcement.stdio import Pipe
from ledger.errors import ConfigError

__all__ = ["Child", "child_environment", "start_child"]

_LOG: Final = structlog.get_logger(__name__)
_BY_SIGNAL: Final = 128
_READ_BYTES: Final = 256 << 10


def child_environment(environment: Mapping[str, str], inherit: Sequence[str]) -> dict[str, str]:
    """Return what of an environment a wrapped server inherits.

    Args:
        environment: Our own.
        inherit: Names beside `INHERITED`.
    """
    return {name: environment[name] for name in (*INHERITED, *inherit) if name in environment}


async def start_child(command: Sequence[str], environment: Mapping[str, str]) -> Child:
    """Start a server.

    Args:
        command: Program and arguments; no shell reads them.
        environment: All that it gets to see.

    Raises:
        ConfigError: It cannot be started.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,
            limit=_READ_BYTES,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no command"
        raise ConfigError(f"the server {os.path.basename(command[0])} cannot be started: {reason}") from error  # noqa: PTH119  # a name, not a path
    return Child(process)


class Child:
    """A server's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Take a process with pipes."""
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self.pipe = Pipe(process.stdout, process.stdin)

    async def stop(self, stop_seconds: float) -> int:
        """Wait until it ends; have it end, and in the end kill it.

        Args:
            stop_seconds: How long it may take once its input is closed, and once more when it was told to terminate.

        Returns:
            Its exit status, as a shell would give it: 128 and the signal's number if a signal ended it.
        """
        for number in (signal.SIGTERM, signal.SIGKILL):
            if await self._over(stop_seconds):
                break
            _LOG.warning("server_does_not_end", signal=number.name)
            self._signal(number)
        else:
            await self._over(stop_seconds)
        status = self._process.returncode
        if status is None:
            status = -signal.SIGKILL
        return status if status >= 0 else _BY_SIGNAL - status

    async def _over(self, seconds: float) -> bool:
        """Wait for its end, and for that of whoever holds its pipes; return whether that came in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
