"""A thread in a network namespace of its own: what listens there cannot be reached from outside of it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

_CLONE_NEWNET: Final = 0x40000000
_IP: Final = next((path for path in ("/usr/sbin/ip", "/sbin/ip", "/bin/ip") if Path(path).exists()), None)


def leave_network() -> None:
    """Put the calling thread into a new network namespace that has a loopback device and nothing else.

    Raises:
        PermissionError: This process may not.
    """
    if _IP is None:
        raise PermissionError("there is no ip command to bring a loopback device up")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise PermissionError(os.strerror(ctypes.get_errno()))
    subprocess.run([_IP, "link", "set", "lo", "up"], check=True, capture_output=True)


class Elsewhere:
    """Runs a coroutine on an event loop of its own in another thread, isolated there if that may be."""

    def __init__(self, play: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.why_not: str | None = None
        self._play = play
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="elsewhere")

    def _run(self) -> None:
        try:
            leave_network()
        except (PermissionError, subprocess.CalledProcessError) as error:
            self.why_not = str(error)
        try:
            asyncio.run(self._play())
        except BaseException as error:  # noqa: BLE001  # the test's own thread raises it
            self._failure = error

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure
