"""What the set-up says while it works: numbered steps, and long commands with their output kept in a log.

Here is no decision about what to install; that is in `machine` (the operating system's packages) and `environment`
(Python's).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ROOT", "CommandError", "Steps", "run_logged", "say"]

ROOT = Path(__file__).resolve().parent.parent
"""The repository."""

LOGS = ROOT / ".cache" / "logs"
_TAIL_LINES = 40


class CommandError(Exception):
    """A command of the set-up failed, or cannot be run here; the text says what to do."""


def say(text: str) -> None:
    """Print a line at once, also where the output is a pipe."""
    print(text, flush=True)


@dataclass(slots=True)
class Steps:
    """Numbers the steps of one set-up: ``[2/5] Python packages``.

    Attributes:
        total: How many there will be.
    """

    total: int
    _number: int = field(default=0, init=False)

    def start(self, text: str) -> None:
        """Announce the next step."""
        self._number += 1
        say(f"[{self._number}/{self.total}] {text}")


def run_logged(
    command: Sequence[str],
    *,
    log_name: str,
    show: Callable[[str], str | None],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a long command: its output goes to a log file, what ``show`` picks from it to the screen.

    Args:
        command: Program and arguments; no shell is involved.
        log_name: File name below ``.cache/logs``; an older log of that name is replaced.
        show: Given one line of output, returns what to print for it, or None.
        environment: The child's environment; None hands on ours.

    Raises:
        CommandError: The program is missing or its status is not 0; the end of its output has then been printed.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / log_name
    started = time.monotonic()
    tail: list[str] = []
    try:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise CommandError(f"there is no program '{command[0]}' on this machine") from error
    with process, log.open("w", encoding="utf-8") as sink:
        for line in process.stdout or ():
            sink.write(line)
            tail = [*tail[-_TAIL_LINES:], line]
            if (text := show(line.rstrip())) is not None:
                say(f"      {text}")
    if process.returncode != 0:
        sys.stdout.writelines(tail)
        raise CommandError(f"'{' '.join(command[:4])} …' failed; all of its output is in {log.relative_to(ROOT)}")
    say(f"      done in {time.monotonic() - started:.0f} s")
