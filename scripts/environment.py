"""The project's own Python environment: ``.venv``, filled from hash-locked requirements.

A lock file is installed once: a stamp in ``.venv`` holds the lock's digest, so that nothing happens until it changes.
Installing checks every file's hash (``--require-hashes``), and a requirement that is not locked is an error. A
``.venv`` that works is kept, whichever Python it is of; `make clean` makes way for another.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from scripts.console import ROOT, run_logged, say

__all__ = ["VENV", "VENV_PYTHON", "ensure_venv", "install_lock", "install_project", "pins"]

VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
REQUIREMENTS = ROOT / "requirements"
_STAMPS = VENV / ".stamps"
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", flags=re.MULTILINE)
_COLLECTING = re.compile(r"^Collecting ([^=\s]+)==(\S+)")
_SHOW_EVERY = 10

SUPERSETS = {"demo": "dev"}
"""Which lock holds all of another: who has installed the second has the first."""


def pins(lock: str) -> frozenset[tuple[str, str]]:
    """Return the names and versions that a lock file pins."""
    return frozenset(_PIN.findall(lock))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_fresh(name: str, digest: str) -> bool:
    stamp = _STAMPS / name
    return stamp.is_file() and stamp.read_text(encoding="ascii") == digest


def _stamp(name: str, digest: str) -> None:
    _STAMPS.mkdir(exist_ok=True)
    (_STAMPS / name).write_text(digest, encoding="ascii")


def _venv_version() -> str | None:
    """Return the Python version of a ``.venv`` that runs and has pip and is new enough; None if there is none."""
    if not VENV_PYTHON.is_file():
        return None
    probe = "import pip, sys; assert sys.version_info >= (3, 11); print(sys.version.split()[0])"
    answer = subprocess.run([VENV_PYTHON, "-c", probe], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else None


def ensure_venv() -> None:
    """Make ``.venv`` unless one is there that works."""
    if version := _venv_version():
        say(f"      .venv is there (Python {version})")
        return
    if VENV.exists():
        say("      .venv does not work any more: making it anew")
        shutil.rmtree(VENV)
    say(f"      for Python {sys.version.split()[0]}")
    run_logged([sys.executable, "-m", "venv", str(VENV)], log_name="venv.log", show=lambda _: None)


def _pip_progress(total: int) -> Callable[[str], str | None]:
    """Return a filter that turns pip's output into a line for every tenth package."""
    count = 0

    def show(line: str) -> str | None:
        nonlocal count
        if match := _COLLECTING.match(line):
            count += 1
            return f"{count} of {total}: {match[1]} {match[2]}" if count % _SHOW_EVERY == 1 else None
        if line.startswith("Installing collected packages"):
            return f"installing {count} packages" if count else None
        return line if line.startswith(("ERROR", "error")) else None

    return show


def install_lock(name: str, *, with_dependencies: bool = True) -> None:
    """Install ``requirements/<name>.txt`` unless just that is installed already.

    Args:
        name: Stem of the lock file.
        with_dependencies: False leaves out what the packages say they depend on.
    """
    lock = REQUIREMENTS / f"{name}.txt"
    digest = _digest(lock)
    if _is_fresh(name, digest) or _covered(name):
        say(f"      requirements/{name}.txt is installed")
        return
    arguments = ["--require-hashes", "--requirement", str(lock)]
    if not with_dependencies:
        arguments.insert(0, "--no-deps")
    total = len(pins(lock.read_text(encoding="utf-8")))
    say(f"      {total} package{'s' if total > 1 else ''}, each checked against its hash")
    _pip(arguments, log_name=f"pip-{name}.log", total=total)
    _stamp(name, digest)


def _covered(name: str) -> bool:
    """Whether a larger lock is installed that holds every pin of this one."""
    larger = SUPERSETS.get(name)
    if larger is None or not _is_fresh(larger, _digest(REQUIREMENTS / f"{larger}.txt")):
        return False
    texts = [(REQUIREMENTS / f"{item}.txt").read_text(encoding="utf-8") for item in (name, larger)]
    return pins(texts[0]) <= pins(texts[1])


def install_project() -> None:
    """Install the project itself in place, from this folder, with nothing fetched."""
    digest = _digest(ROOT / "pyproject.toml")
    if _is_fresh("project", digest):
        say("      tallystick is installed")
        return
    _pip(["--no-deps", "--no-build-isolation", "--editable", str(ROOT)], log_name="pip-project.log", total=1)
    _stamp("project", digest)


def _pip(arguments: list[str], *, log_name: str, total: int) -> None:
    command = [str(VENV_PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar"]
    run_logged([*command, "off", *arguments], log_name=log_name, show=_pip_progress(total))
