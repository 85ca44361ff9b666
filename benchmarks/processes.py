"""Child processes of the benchmarks: started here, waited for here, and ended here by their own handle."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.measure import BenchmarkError

__all__ = [
    "ROOT",
    "TALLYSTICK",
    "Memory",
    "ProcessorTime",
    "child",
    "free_port",
    "memory_of",
    "read_port",
    "wait_until_up",
]

ROOT = Path(__file__).resolve().parent.parent
TALLYSTICK = (sys.executable, "-c", "from service.cli import main; main()")
"""The command ``tallystick``, of this environment."""
_START_SECONDS = 120.0
_STOP_SECONDS = 30.0
_STATUS = re.compile(r"^(VmRSS|VmHWM):\s+(\d+) kB$", flags=re.MULTILINE)


@contextmanager
def child(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside the block; its standard output is a pipe, its errors go to ``log``.

    The settings of the caller's own installation do not reach it.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")}
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**inherited, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        # Also where somebody lost patience and interrupted the wait. One that has ended is not signalled again.
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])


def read_port(process: subprocess.Popen[bytes], *, log: Path) -> int:
    """Return the port that a child of ours prints as its first line, ``{"port": …}``."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise BenchmarkError(f"a child process did not start\n{_tail(log)}")
    return int(json.loads(line)["port"])


def wait_until_up(process: subprocess.Popen[bytes], url: str, *, log: Path) -> None:
    """Wait until a URL answers 200."""
    deadline = time.monotonic() + _START_SECONDS
    with httpx.Client(trust_env=False, timeout=2) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if client.get(url).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
    raise BenchmarkError(f"{url} did not answer\n{_tail(log)}")


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of a process, MiB; None where the system does not tell.

    Attributes:
        now: At this moment.
        peak: The most so far.
    """

    now: float | None = None
    peak: float | None = None


def _family(pid: int) -> list[int]:
    """Return a process and all that come from it and are there now, as Linux tells them."""
    try:
        # A child belongs to the thread that started it, which need not be the first one.
        children = [
            child_pid
            for thread in Path(f"/proc/{pid}/task").iterdir()
            for child_pid in (thread / "children").read_text(encoding="ascii").split()
        ]
    except OSError:
        children = []
    return [pid, *(one for child_pid in children for one in _family(int(child_pid)))]


def _sizes(pid: int) -> dict[str, int]:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return {}
    found: Sequence[tuple[str, str]] = _STATUS.findall(status)
    return {name: int(size) for name, size in found}


def memory_of(process: subprocess.Popen[bytes]) -> Memory:
    """Return the resident memory of a process and its children; what they share counts for each."""
    sizes = [found for pid in _family(process.pid) if (found := _sizes(pid))]
    if not all({"VmRSS", "VmHWM"} <= found.keys() for found in sizes) or not sizes:
        return Memory()
    return Memory(*(sum(found[name] for found in sizes) / 1024 for name in ("VmRSS", "VmHWM")))


class ProcessorTime:
    """Counts the processor time that a process and its children use from now on: to a hundredth of a second, on Linux.

    A child that ends meanwhile takes its time along; none of ours does.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._pid = process.pid
        self._before = self._seconds()

    def _seconds(self) -> float | None:
        try:
            told = [Path(f"/proc/{pid}/stat").read_text(encoding="ascii") for pid in _family(self._pid)]
        except OSError:
            return None
        fields = [text.rpartition(")")[2].split() for text in told]
        return sum(int(one[11]) + int(one[12]) for one in fields) / os.sysconf("SC_CLK_TCK")

    def each(self, count: int, *, units_per_second: int) -> list[float]:
        """Return what one of ``count`` pieces of work took, in a unit; an empty list where nobody knows."""
        after = self._seconds()
        if self._before is None or after is None:
            return []
        return [units_per_second * (after - self._before) / count]
