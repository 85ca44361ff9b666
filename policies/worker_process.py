"""One process of an engine, as its parent has it: started, asked, killed.

Every question has its time; a process that has not answered by then is killed, and so is one whose answer makes no
sense. A dead process answers nothing late: its channel dies with it.

INVARIANT 7: no answer, a late answer, a strange answer: each is an error here and a denial for the caller.
INVARIANT 10: a child gets no variable of the environment but the zone UTC, and no descriptor but its channel.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from ledger.errors import MalformedError
from policies.engine import EngineStoppedError, Limit
from policies.frames import Answer, FrameBuffer, Started, decode_answer
from policies.worker import WorkerOrder

__all__ = ["EngineProgram", "WorkerLimits", "WorkerProcess"]

_READ_BYTES: Final = 1 << 18
_LAST_WORDS_BYTES: Final = 4096
_OUT_OF_MEMORY: Final = b"memory allocation of "
"""What Rust writes before it ends a process that can have no more memory."""
_REQUESTS_A_SHARE: Final = 64
"""A batch may take as long as one request, and once more for so many requests in it."""
_MOST_REQUESTS: Final = 1024
_START: Final = "import sys; sys.path[:0] = sys.argv[2:]; from policies.worker import main; main(sys.argv[1])"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProgram:
    """How the process of an engine is started.

    Attributes:
        name: The engine's name.
        version: The exact version that it must report.
        factory: Where its class is, ``module:name``.
        paths: Directories that it imports from, before those of Python itself; the engine's own first.
    """

    name: str
    version: str
    factory: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """What an engine's process may take.

    Attributes:
        evaluation_seconds: Time for one decision; a batch has more.
        load_seconds: Time to read a bundle.
        start_seconds: Time to start.
        memory_bytes: Address space. The allocator of regorus alone reserves 1 GiB of it, and uses little.
        loaded_bundles: Bundles that a process keeps.
    """

    evaluation_seconds: float = 1.0
    load_seconds: float = 20.0
    start_seconds: float = 30.0
    memory_bytes: int = 2 << 30
    loaded_bundles: int = 16

    def batch_seconds(self, count: int) -> float:
        """Return the time for so many decisions together."""
        return self.evaluation_seconds * (1 + (count - 1) / _REQUESTS_A_SHARE)


class WorkerProcess:
    """One process and the channel to it. One thread at a time asks; any may kill."""

    def __init__(self, program: EngineProgram, limits: WorkerLimits) -> None:
        """Start a process and wait until it has said who it is.

        Raises:
            EngineStoppedError: It did not.
        """
        self.program = program
        self.used_at = 0.0
        self._buffer = FrameBuffer()
        try:
            self._channel, theirs = socket.socketpair()
        except OSError as error:  # no descriptor is left, say, which is nobody's bundle's doing
            raise EngineStoppedError(Limit.UNAVAILABLE) from error
        self._last_words = _memory_file()
        try:
            with theirs:
                self.process = _start(program, limits, theirs.fileno(), self._last_words)
        except OSError as error:
            self._close()
            raise EngineStoppedError(Limit.UNAVAILABLE) from error
        try:
            self._greet(limits.start_seconds)
        except BaseException:
            self.release()
            raise

    def _greet(self, seconds: float) -> None:
        expected = Started(engine=self.program.name, version=self.program.version)
        if self._exchange(b"", seconds) != expected:
            raise EngineStoppedError(Limit.UNAVAILABLE)

    def is_fresh(self) -> bool:
        """Whether the process is there and has said nothing that nobody asked for."""
        try:
            self._channel.settimeout(0)
            self._channel.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return not self._buffer
        except OSError:
            return False
        return False  # the end of the channel, or an answer to nothing

    def ask(self, frame: bytes, seconds: float) -> Answer:
        """Return the answer to a question; whatever goes wrong, the process is dead afterwards.

        Raises:
            EngineStoppedError: There is none.
        """
        return self._exchange(frame, seconds)

    async def ask_directly(self, frame: bytes, seconds: float) -> Answer:
        """Do what `ask` does from an event loop, which goes on meanwhile.

        The process is not killed here when something goes wrong: whoever holds it lets go of it, in a thread.

        Raises:
            EngineStoppedError: There is no answer.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._direct_exchange(frame)
        except TimeoutError as error:
            raise EngineStoppedError(Limit.TIME) from error
        except OSError as error:
            raise EngineStoppedError(self._cause()) from error
        except MalformedError as error:
            raise EngineStoppedError(Limit.CRASH) from error

    async def _direct_exchange(self, frame: bytes) -> Answer:
        loop = asyncio.get_running_loop()
        self._channel.settimeout(0)
        await loop.sock_sendall(self._channel, frame)
        while (content := self._buffer.take()) is None:
            data = await loop.sock_recv(self._channel, _READ_BYTES)
            if not data:
                raise ConnectionResetError
            self._buffer.feed(data)
        return decode_answer(content)

    def _exchange(self, frame: bytes, seconds: float) -> Answer:
        try:
            return self._timed_exchange(frame, time.monotonic() + seconds)
        except TimeoutError as error:
            self.kill()
            raise EngineStoppedError(Limit.TIME) from error
        except OSError as error:
            self.kill()
            raise EngineStoppedError(self._cause()) from error
        except MalformedError as error:
            self.kill()
            raise EngineStoppedError(Limit.CRASH) from error
        except BaseException:
            self.kill()  # nobody is left to read the answer
            raise

    def _timed_exchange(self, frame: bytes, deadline: float) -> Answer:
        if frame:
            self._channel.settimeout(_left(deadline))
            self._channel.sendall(frame)
        while (content := self._buffer.take()) is None:
            self._channel.settimeout(_left(deadline))
            data = self._channel.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError
            self._buffer.feed(data)
        return decode_answer(content)

    def _cause(self) -> Limit:
        """Say why the process died, as far as its last words tell; they go nowhere else."""
        if self._last_words is None:
            return Limit.CRASH
        try:
            size = os.fstat(self._last_words).st_size
            words = os.pread(self._last_words, _LAST_WORDS_BYTES, max(0, size - _LAST_WORDS_BYTES))
        except OSError:
            return Limit.CRASH
        return Limit.MEMORY if _OUT_OF_MEMORY in words else Limit.CRASH

    def kill(self) -> None:
        """End the process, whatever it does, and wait for its end."""
        self.process.kill()
        self.process.wait()
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)  # whoever waits for its answer has waited long enough

    def release(self) -> None:
        """Let go of what is left of a dead process."""
        self.kill()
        self._close()

    def _close(self) -> None:
        self._channel.close()
        if self._last_words is not None:
            os.close(self._last_words)
            self._last_words = None


def _memory_file() -> int | None:
    """Return a file for a process's last words; without one they are not heard."""
    try:
        return os.memfd_create("engine-stderr") if hasattr(os, "memfd_create") else None
    except OSError:
        return None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _start(
    program: EngineProgram, limits: WorkerLimits, channel: int, last_words: int | None
) -> subprocess.Popen[bytes]:
    order = WorkerOrder(
        factory=program.factory,
        parent=os.getpid(),
        memory_bytes=limits.memory_bytes,
        # Longer than any question may take: a backstop, for the case that nobody is left to kill the process.
        cpu_seconds=max(limits.load_seconds, limits.batch_seconds(_MOST_REQUESTS)),
        loaded_bundles=limits.loaded_bundles,
    )
    return subprocess.Popen(  # noqa: S603  # our own program; its arguments are no outsider's
        [sys.executable, "-I", "-S", "-B", "-c", _START, msgspec.json.encode(order).decode(), *program.paths],
        stdin=channel,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if last_words is None else last_words,
        cwd="/",
        env={"TZ": "UTC"},  # "Local" in a policy is the same everywhere, whatever the machine's zone
        close_fds=True,
        start_new_session=True,  # an interrupt from the terminal is for the parent, which ends its children itself
    )
