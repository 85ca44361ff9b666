"""Child processes by fork: for writers beside each other and for deaths at an exact point.

A child shares no database connection with its parent: SQLite's locks belong to a process, its bookkeeping of them to
the memory that fork copies. Whoever forks closes his engines first, and the child opens its own.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable

KILLED = 137
"""Exit status of a child that was ended at a point of the test's choice."""

_WAIT_SECONDS = 60


def die() -> None:
    """End this process at once: no cleanup, no flush, no rollback, as after ``kill -9``."""
    os._exit(KILLED)


def start_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a child and return the child's process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # From 3.12 on, Python warns of threads that a fork leaves behind (those of pytest-xdist); the child needs none.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process:
        return process
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001  # whatever it was, the child must not return into the parent's test
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait_for_child(process: int) -> int:
    """Wait for a child and return its exit status; minus the signal's number if a signal ended it."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(process, 9)
            os.waitpid(process, 0)
            raise TimeoutError("a child process did not end")
        time.sleep(0.002)


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a child, wait for it, and return its exit status: 0, `KILLED`, or 1 if it raised."""
    return wait_for_child(start_child(work))
