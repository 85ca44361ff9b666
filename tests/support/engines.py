"""An engine that does what the name of the agent says, some of it evil: for tests of the processes that engines run in.

Every deed is real: it does spin, die, allocate, fork. None of it is meant for the process that runs the tests.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from policies.bundles import Bundle
from policies.engine import LoadedBundle
from policies.frames import Decided, encode_frame
from policies.model import Decision, DecisionRequest, Effect

ENGINE = "deeds"
VERSION = "1.0"
FACTORY = "tests.support.engines:DeedEngine"


class PanicException(BaseException):  # PyO3's own name, and a BaseException as PyO3's is
    """Stands for a panic of native code."""


def _spin() -> None:
    while True:
        pass


def _allocate() -> None:
    bytearray(1 << 40)


def _exhaust_rust() -> None:
    """End as Rust does where its allocator finds nothing more."""
    os.write(2, b"memory allocation of 17179869184 bytes failed\n")
    os.abort()


def _panic() -> None:
    raise PanicException("a panic that quotes a secret")


def _fail() -> None:
    raise ValueError("an error that quotes a secret")


def _answer_early() -> None:
    """Put an answer on the channel that permits, before the engine's own."""
    os.write(0, encode_frame(Decided(decisions=(_permit("", "forged"),))))


def _answer_nonsense() -> None:
    os.write(0, b"\x00\x00\x00\x04null")


def _answer_endlessly() -> None:
    os.write(0, b"\xff\xff\xff\xff")


_DEEDS: dict[str, Callable[[], object]] = {
    "spin": _spin,
    "sleep": lambda: time.sleep(600),
    "allocate": _allocate,
    "exhaust-rust": _exhaust_rust,
    "abort": os.abort,
    "fault": lambda: ctypes.string_at(0),
    "exit": lambda: os._exit(0),
    "panic": _panic,
    "fail": _fail,
    "answer-early": _answer_early,
    "answer-nonsense": _answer_nonsense,
    "answer-endlessly": _answer_endlessly,
}


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is told
        return type(error).__name__
    return "done"


def _start_thread() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def _tgkill(pid: int) -> None:
    """Send the null signal to a process's first thread, as no function of Python's does."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall({"x86_64": 234, "aarch64": 131}[platform.machine()], pid, pid, 0):
        raise OSError(ctypes.get_errno(), "tgkill")


def _try_everything() -> str:
    """Return what became of each thing that a process of an engine has no business to do, as JSON."""
    target = f"/tmp/written-by-{os.getpid()}"
    attempts: dict[str, Callable[[], object]] = {
        "fork": os.fork,
        "thread": _start_thread,
        "run": lambda: os.execv("/bin/true", ["true"]),
        "socket": socket.socket,
        "signal": lambda: os.kill(os.getppid(), 0),
        "signal a thread": lambda: _tgkill(os.getppid()),
        "signal by descriptor": lambda: signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGURG),
        "write": lambda: Path(target).write_text("x"),
        "remove": lambda: Path(__file__).with_suffix(".nothing").unlink(),
        "import": lambda: __import__("pytest_is_not_needed_by_engines"),
        "more memory": lambda: resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2),
    }
    found: dict[str, object] = {name: _outcome(attempt) for name, attempt in attempts.items()}
    found["environment"] = dict(os.environ)
    found["descriptors"] = sorted(int(path.name) for path in Path("/proc/self/fd").iterdir())
    found["directory"] = str(Path.cwd())
    found["session"] = os.getsid(0) == os.getpid()
    found["core"] = resource.getrlimit(resource.RLIMIT_CORE)[0]
    found["paths"] = [path for path in sys.path if "python3" in path and path.endswith("site-packages")]
    return json.dumps(found)


def _permit(revision: str, rule: str) -> Decision:
    return Decision(
        effect=Effect.PERMIT, bundle_revision=revision, engine=ENGINE, engine_version=VERSION, rules=(rule,)
    )


class DeedEngine:
    """Does a deed for each request, and permits if it comes back from it; the rule it names is the agent.

    An agent ``try-everything`` gets an account of its process as the detail. The bundle's policy is a deed as well.
    """

    name = ENGINE
    version = VERSION

    def load(self, bundle: Bundle) -> LoadedBundle:
        deed = bundle.text(bundle.manifest.policies[0])
        _DEEDS.get(deed, lambda: None)()
        return LoadedBundle(revision=bundle.revision, rules=("deed",), handle=os.getpid())

    def evaluate(self, loaded: LoadedBundle, requests: Sequence[DecisionRequest]) -> list[Decision]:
        return [self._decide(loaded, request) for request in requests]

    def _decide(self, loaded: LoadedBundle, request: DecisionRequest) -> Decision:
        agent = request.principal.agent
        if agent == "try-everything":
            return Decision(
                effect=Effect.DENY,
                bundle_revision=loaded.revision,
                engine=ENGINE,
                engine_version=VERSION,
                detail=_try_everything(),
            )
        _DEEDS.get(agent, lambda: None)()
        if agent == "who":
            return _permit(loaded.revision, str(os.getpid()))
        return _permit(loaded.revision, agent)
