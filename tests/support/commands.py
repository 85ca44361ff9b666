"""The command ``tallystick`` in processes of its own, as somebody types it: run to its end, or started and signalled.

Each started process leads a session of its own, so that it can be signalled as a terminal does it (the whole group),
and so that whatever it leaves behind is found. `Installation` is a folder with real keys, not those of a demonstration.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

PROGRAM = Path(sys.executable).with_name("tallystick")
"""The command as it is installed beside this Python."""

_WAIT_SECONDS = 120.0
_POLL_SECONDS = 0.01


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without settings of Tallystick or proxies, and with others."""
    unwanted = ("TALLYSTICK_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    return {**kept, **more}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a command left: its exit status and what it said."""

    status: int
    output: str
    errors: str


def run(*arguments: str | Path, cwd: Path, **variables: str) -> Finished:
    """Run ``tallystick`` to its end."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        cwd=cwd,
        env=clean_environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_WAIT_SECONDS,
    )
    return Finished(status=done.returncode, output=done.stdout, errors=done.stderr)


def living(session: int) -> list[int]:
    """Return the processes of a session that have not ended; those that only wait to be reaped have."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _parent, _group, its_session = (folder / "stat").read_text().rpartition(") ")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                found.append(int(folder.name))
    return found


class Started:
    """A process that was started and goes on; ended with all its descendants when the context is left.

    Attributes:
        process: The process.
        lines: What it has said so far on standard output and standard error, line by line.
    """

    def __init__(
        self, command: Sequence[str | Path], *, cwd: Path, variables: Mapping[str, str], ignored: bool = False
    ) -> None:
        """Start ``command``.

        Args:
            command: Program and arguments.
            cwd: Where.
            variables: Its settings.
            ignored: Start it with SIGINT ignored, as shells start what they run in the background.
        """
        shell = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"] if ignored else []
        self.process = subprocess.Popen(
            [*shell, *command],
            cwd=cwd,
            env=clean_environment(PYTHONUNBUFFERED="1", **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._over = False
        self._reader = threading.Thread(target=self._read, name="reader")
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()

    @property
    def text(self) -> str:
        """All that was said so far."""
        return "\n".join(self.lines)

    def wait_for_line(self, text: str, seconds: float = _WAIT_SECONDS) -> str:
        """Wait for a line that holds ``text`` and return it; an error if the process ends or is late."""

        def found() -> str | None:
            return next((line for line in self.lines if text in line), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._over, seconds)
            line = found()
        if line is None:
            raise RuntimeError(f"never said: {text}\n{self.text}")
        return line

    def signal_all(self, number: int) -> None:
        """Send a signal to the process and its descendants, as a terminal does at Ctrl-C."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def wait(self, seconds: float = _WAIT_SECONDS) -> int:
        """Wait for the end and return the exit status; minus the signal's number if one ended it."""
        return self.process.wait(seconds)

    def left_behind(self, seconds: float = 5.0) -> list[int]:
        """Return the descendants that live on after some time."""
        deadline = time.monotonic() + seconds
        while (found := living(self.process.pid)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return found

    def kill(self) -> None:
        """End the process and its descendants at once."""
        for process in living(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A service or gateway that answers.

    Attributes:
        started: Its process.
        url: Where it answers.
    """

    started: Started
    url: str


@contextlib.contextmanager
def answering(started: Started, event: str) -> Iterator[Served]:
    """Wait until a process has logged that it answers."""
    with started:
        line = json.loads(started.wait_for_line(f'"event": "{event}"'))
        yield Served(started=started, url=f"http://{line['host']}:{line['port']}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Data and keys of a service in a folder, and the settings that lead to them.

    Attributes:
        folder: Where.
        more: Further settings, by their names without prefix.
    """

    folder: Path
    more: Mapping[str, str] = field(default_factory=dict)
    log_id: str = "acme"
    origin: str = "ledger.example/acme"

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of a service."""
        values = {
            "DATA_DIR": str(self.folder / "data"),
            "KEYS_DIR": str(self.folder / "keys"),
            "LOG_ID": self.log_id,
            "TENANT": "acme",
            "ENVIRONMENT": "test",
            "ORIGIN": self.origin,
            "LISTEN": "127.0.0.1:0",
            "CHECKPOINT_INTERVAL_SECONDS": "0.1",
            **self.more,
        }
        return {f"TALLYSTICK_{name}": value for name, value in values.items()}

    @property
    def trust(self) -> Path:
        """The trust policy that `tallystick keys init` wrote."""
        return self.folder / "keys" / "trust.policy"

    def run(self, *arguments: str | Path, **variables: str) -> Finished:
        """Run a command with the installation's settings, whatever its exit status."""
        return run(*arguments, cwd=self.folder, **{**self.variables, **variables})

    def do(self, *arguments: str | Path, **variables: str) -> str:
        """Run a command that must succeed and return what it printed."""
        done = self.run(*arguments, **variables)
        assert done.status == 0, f"{arguments}: {done.status} {done.errors}"
        return done.output

    def do_json(self, *arguments: str | Path, **variables: str) -> Any:
        """Run a command with ``--json``, which must succeed, and return the value."""
        return json.loads(self.do(*arguments, "--json", **variables))

    def make_keys(self) -> None:
        """Make its keys: real ones."""
        self.do("keys", "init", self.folder / "keys")

    def token(self, role: str, name: str = "somebody") -> str:
        """Issue a token on the service's machine: a person's, where the role is for people."""
        machine = ("keys", "token", "--role", role, "--name", name)
        person = ("people", "token", name, "--role", role)
        made = self.do_json(*(person if role in ("responder", "approver", "admin") else machine))
        token: str = made["token"]
        return token

    def start(self, command: Sequence[str | Path] = (PROGRAM, "serve"), **variables: str) -> Started:
        """Start the service; it may not answer yet."""
        return Started(command, cwd=self.folder, variables={**self.variables, **variables})

    def serve(self, *command: str | Path) -> contextlib.AbstractContextManager[Served]:
        """Start the service, by a command with options of its own if one is given, and wait until it answers."""
        return answering(self.start((PROGRAM, *(command or ("serve",)))), "serving")
