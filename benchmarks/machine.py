"""The machine that the figures are from: what it is, what runs on it, and how steady it was meanwhile."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.measure import ABSENT, Table, figure, timed
from benchmarks.processes import ROOT
from ledger.clock import Clock
from ledger.files import sync_directory
from tests.support.postgres import PostgresMissingError, find_programs

__all__ = ["Steadiness", "describe", "steadiness", "steadiness_table", "today"]

_PACKAGES = ("aiohttp", "cedarpy", "cryptography", "fastapi", "msgspec", "psycopg", "pynacl", "sqlalchemy", "uvicorn")
_HASHED_BYTES = 32 << 20
_ATTEMPTS = 9


def today(clock: Clock) -> str:
    """Return the date and time of a clock, UTC."""
    return datetime.fromtimestamp(clock.now_ms() / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")


def describe() -> Iterator[str]:
    """Yield lines about processor, memory, system and software."""
    yield f"Processor: {_processor()}, {len(os.sched_getaffinity(0)) if _linux() else os.cpu_count()} cores usable."
    yield f"Memory: {_memory()}. System: {platform.system()} {platform.release()}, {platform.machine()}."
    yield f"CPython {platform.python_version()}, SQLite {sqlite3.sqlite_version}, PostgreSQL {_postgresql()}."
    yield f"Packages: {', '.join(f'{name} {version(name)}' for name in _PACKAGES)}."
    yield f"Commit: {_commit()}."


def _linux() -> bool:
    return platform.system() == "Linux"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


def _processor() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), flags=re.MULTILINE)
    return found[1].strip() if found else platform.processor() or "unknown"


def _memory() -> str:
    found = re.search(r"^MemTotal:\s+(\d+) kB$", _read("/proc/meminfo"), flags=re.MULTILINE)
    return f"{int(found[1]) / 2**20:.0f} GiB" if found else "unknown"


def _output(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _postgresql() -> str:
    try:
        programs = find_programs()
    except PostgresMissingError:
        return "not installed"
    found = re.search(r"\d+(\.\d+)*", _output(str(programs / "postgres"), "--version"))
    return found[0] if found else "unknown"


def _commit() -> str:
    if shutil.which("git") is None:
        return "unknown"
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "status", "--porcelain", "--untracked-files=no", "--", "*.py")
    return f"{commit or 'unknown'}{' with uncommitted changes' if changed else ''}"


@dataclass(frozen=True, slots=True)
class Steadiness:
    """Fixed pieces of work, whose time should be the same at the beginning and at the end.

    Attributes:
        hash_ms: SHA-256 of 32 MiB.
        sync_ms: A file of 4 KiB written and synced with its directory, beside the data that is measured.
        load: Processes that wanted a core in the last minute.
    """

    hash_ms: float
    sync_ms: float
    load: float


def steadiness(folder: Path) -> Steadiness:
    """Do the fixed work; the median of a few attempts each."""
    data, hashes, syncs = bytes(_HASHED_BYTES), [], []
    for number in range(_ATTEMPTS):
        with timed() as watch:
            hashlib.sha256(data).digest()
        hashes.append(1000 * watch.seconds)
        with timed() as watch:
            with (folder / f"steady-{number}").open("wb") as file:
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
            sync_directory(folder)
        syncs.append(1000 * watch.seconds)
        (folder / f"steady-{number}").unlink()
    return Steadiness(median(hashes), median(syncs), os.getloadavg()[0])


def steadiness_table(before: Steadiness, after: Steadiness) -> Table:
    """Return both in one table."""
    table = Table(("fixed work", "after ÷ before", "before", "after"))
    for label, name in (
        ("SHA-256 of 32 MiB, ms", "hash_ms"),
        ("4 KiB written and synced, ms", "sync_ms"),
        ("load average", "load"),
    ):
        first, last = getattr(before, name), getattr(after, name)
        table.rows.append((label, figure(last / first) if first else ABSENT, figure(first), figure(last)))
    return table
