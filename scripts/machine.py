"""What the machine must have besides Python packages, and how it is installed: with apt, once, after asking.

A need is checked by what it gives (a library loads, a program is found), never by a package's name, so that a machine
that has it from elsewhere is left alone. Nothing is installed before this has said what and why. It asks before it uses
sudo; it does not ask where it is root already or where `CI` is set.

PostgreSQL is installed for its programs alone: no database cluster is created or started (the tests start a private
one), see `scripts/install-postgresql.sh`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.console import CommandError, run_logged, say

__all__ = [
    "BROWSER",
    "DEMO_NEEDS",
    "TEST_NEEDS",
    "VENV_NEEDS",
    "Caller",
    "Need",
    "browser_is_packaged",
    "provide",
    "provide_fetched_browser",
]

PANGO_LIBRARIES = (
    "libgobject-2.0.so.0",
    "libpango-1.0.so.0",
    "libpangoft2-1.0.so.0",
    "libfontconfig.so.1",
    "libharfbuzz.so.0",
    "libharfbuzz-subset.so.0",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_POSTGRESQL = "postgresql"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something that must be on the machine.

    Attributes:
        what: Its name, for people.
        why: What it is for.
        packages: Debian packages that bring it.
        present: Says whether it is there already, however it came.
    """

    what: str
    why: str
    packages: tuple[str, ...]
    present: Callable[[], bool]


def _python_can(statement: str) -> bool:
    """Try a statement in a new interpreter: what was just installed is seen, and a crash stays there."""
    return subprocess.run([sys.executable, "-c", statement], capture_output=True, check=False).returncode == 0


def _has_pango() -> bool:
    return _python_can(f"import ctypes\nfor name in {PANGO_LIBRARIES!r}: ctypes.CDLL(name)")


def _has_atomic() -> bool:
    return _python_can("import ctypes\nctypes.CDLL('libatomic.so.1')")


def _has_venv() -> bool:
    return _python_can("import ensurepip, venv")


def _has_postgresql() -> bool:
    folders = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])
    return all(shutil.which(program, path=path) for program in ("initdb", "postgres", "pg_ctl"))


def _has_browser() -> bool:
    fetched = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache" / "ms-playwright"))
    return any(map(shutil.which, BROWSERS)) or any(fetched.glob("chromium-*/INSTALLATION_COMPLETE"))


def _has_strace() -> bool:
    return shutil.which("strace") is not None


VENV = Need(
    what="Python's venv module with pip",
    why="makes the project's own environment, .venv",
    packages=(f"python{sys.version_info.major}.{sys.version_info.minor}-venv",),
    present=_has_venv,
)
PANGO = Need(
    what="the Pango text libraries",
    why="WeasyPrint lays out the evidence PDF with them",
    packages=("libpango-1.0-0", "libpangoft2-1.0-0", "libharfbuzz-subset0"),
    present=_has_pango,
)
POSTGRESQL = Need(
    what="PostgreSQL's server programs",
    why="tests run the stores against a private server; no cluster is made on this machine",
    packages=(_POSTGRESQL,),
    present=_has_postgresql,
)
BROWSER = Need(
    what="Chromium",
    why="tests open the dashboard as a person would",
    packages=("chromium",),
    present=_has_browser,
)
ATOMIC = Need(
    what="GCC's atomic library",
    why="Playwright, which drives the browser, runs a Node.js that is linked with it",
    packages=("libatomic1",),
    present=_has_atomic,
)
STRACE = Need(
    what="strace",
    why="a test sees that the store is synced before an acknowledgement",
    packages=("strace",),
    present=_has_strace,
)

VENV_NEEDS = (VENV,)
DEMO_NEEDS = (VENV, PANGO)
TEST_NEEDS = (VENV, PANGO, POSTGRESQL, ATOMIC, STRACE)


def apt_command(packages: Sequence[str]) -> list[str]:
    """Return the command that installs packages and nothing that they merely recommend."""
    return ["apt-get", "install", "--yes", "--no-install-recommends", *packages]


def plan_commands(packages: Sequence[str]) -> list[list[str]]:
    """Return the commands, to be run as root, that install ``packages``.

    PostgreSQL goes through its own script, which keeps Debian's package from creating and starting a cluster.
    """
    others = [name for name in packages if name != _POSTGRESQL]
    commands = [apt_command(others)] if others else []
    if _POSTGRESQL in packages:
        commands.append(["sh", "scripts/install-postgresql.sh"])
    return commands


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who runs the set-up, which decides whether sudo is needed and whether it may be asked for.

    Attributes:
        root: Already the administrator.
        sudo: There is a sudo to become it.
        unattended: `CI` is set: nobody to ask, and installing is expected.
        interactive: A person is at the terminal.
    """

    root: bool
    sudo: bool
    unattended: bool
    interactive: bool

    @classmethod
    def current(cls, environment: Mapping[str, str]) -> Caller:
        """Look at this process."""
        return cls(
            root=os.geteuid() == 0,
            sudo=shutil.which("sudo") is not None,
            unattended=bool(environment.get("CI")),
            interactive=sys.stdin.isatty(),
        )

    def prefix(self, commands: Sequence[Sequence[str]], ask: Callable[[str], str]) -> list[str]:
        """Return what to put before each command, after asking where asking is due.

        Args:
            commands: What would be run, shown when it is left to the person.
            ask: Prints a question and returns the answer.

        Raises:
            CommandError: The person said no, or there is nobody to ask.
        """
        if self.root:
            return []
        by_hand = "\n".join(f"    {' '.join(command)}" for command in commands)
        by_hand = f"To install it yourself, as root and in this folder:\n{by_hand}"
        if not self.sudo:
            raise CommandError(f"installing needs root, and there is no sudo here. {by_hand}")
        if self.unattended:
            return ["sudo", "--non-interactive"]
        if not self.interactive:
            raise CommandError(f"installing needs sudo, and there is nobody to ask. {by_hand}")
        if ask("Install them now with sudo? [y/N] ").strip().lower() not in {"y", "yes"}:
            raise CommandError(f"nothing was installed. {by_hand}")
        return ["sudo"]


def _known_to_apt(packages: Sequence[str]) -> bool:
    """Whether apt has a candidate for each package without fetching its lists first."""
    listing = subprocess.run(["apt-cache", "policy", *packages], capture_output=True, text=True, check=False).stdout
    candidates = re.findall(r"^  Candidate: (.+)$", listing, flags=re.MULTILINE)
    return len(candidates) == len(set(packages)) and "(none)" not in candidates


def _show_apt(line: str) -> str | None:
    return line if line.startswith(("Setting up ", "E:")) else None


def _run_all(commands: Sequence[Sequence[str]], prefix: Sequence[str]) -> None:
    settings = ["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"]
    for number, command in enumerate(commands):
        run_logged([*prefix, *settings, *command], log_name=f"apt-{number}.log", show=_show_apt)


def provide(needs: Sequence[Need]) -> None:
    """Make sure that the machine has what is needed, installing what is missing.

    Raises:
        CommandError: Something is missing and could not, or was not to be, installed; the text says what to do.
    """
    lacking = [need for need in needs if not need.present()]
    if not lacking:
        say("      everything is there")
        return
    say("      missing on this machine:")
    for need in lacking:
        say(f"        {need.what}: {need.why} (packages: {' '.join(need.packages)})")
    packages = [name for need in lacking for name in need.packages]
    if shutil.which("apt-get") is None:
        raise CommandError("this machine has no apt-get; install the things above with its own package manager")
    update = ["apt-get", "update"]
    fetch_lists = not _known_to_apt(packages)
    commands = [*([update] if fetch_lists else []), *plan_commands(packages)]
    prefix = Caller.current(os.environ).prefix(commands, input)
    try:
        _run_all(commands, prefix)
    except CommandError:
        if fetch_lists:
            raise
        # Lists that are there can be too old to download from: a package's file is then gone.
        say("      trying once more with fresh package lists")
        _run_all([update, *commands], prefix)
    if still := [need.what for need in lacking if not need.present()]:
        raise CommandError(f"installed, yet still missing: {', '.join(still)}")


def browser_is_packaged(os_release: Path = Path("/etc/os-release")) -> bool:
    """Whether apt brings Chromium here: on Debian it does, Ubuntu's package is a pointer to another package system."""
    return os_release.is_file() and "ID=ubuntu" not in os_release.read_text(encoding="utf-8").splitlines()


def provide_fetched_browser(python: str) -> None:
    """Make sure of a browser where apt has none: Playwright fetches its own build of Chromium.

    Args:
        python: The interpreter of the environment in which Playwright is installed.

    Raises:
        CommandError: The browser could not be fetched, or its libraries were not to be installed.
    """
    if _has_browser():
        say("      a browser is there")
        return
    playwright = [python, "-m", "playwright"]
    run_logged([*playwright, "install", "chromium"], log_name="chromium.log", show=lambda _: None)
    libraries = [*playwright, "install-deps", "chromium"]
    say(f"      {BROWSER.what}: {BROWSER.why}; it needs libraries, which Playwright installs with apt")
    prefix = Caller.current(os.environ).prefix([libraries], input)
    run_logged([*prefix, *libraries], log_name="chromium-libraries.log", show=_show_apt)
