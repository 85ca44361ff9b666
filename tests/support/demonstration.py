"""`tallystick demo`, run twice in one folder, once for all the tests that look at it.

First as most people run it: it stays up, what it invites to is done, and Ctrl-C ends it. Then with ``--once`` in the
same folder; its files stay. The two runs have different keys for a log of one name: each is a forgery of the other.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from service.demo.clients import Callers
from service.demo.scenario import Step
from tests.support.commands import PROGRAM, Finished, Started, answering, clean_environment

FOLDER = ".demo"
_COMMAND = Path(".venv/bin/tallystick")
_WAIT_SECONDS = 30.0


class Invitation(msgspec.Struct, frozen=True, kw_only=True):
    """What came of doing what the demonstration invites to while it stays up.

    Attributes:
        dashboard: Status and page behind the login link.
        again: Status of logging in with the link a second time.
        documentation: Status of the page about the API.
        denials: Answer to the printed search for denials.
        gateway: Status of the demonstration's own gateway without a token.
        init: What ``gateway init`` printed.
        answer: What an agent behind the new gateway was told.
        recorded: Decisions of that agent in the ledger.
    """

    dashboard: tuple[int, str]
    again: int
    documentation: int
    denials: dict[str, Any]
    gateway: int
    init: str
    answer: str
    recorded: list[dict[str, Any]]


class Runs(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs of the demonstration.

    Attributes:
        place: Where they ran; the files of the second are in `FOLDER` below it.
        first: What the first printed.
        first_status: Its exit status after Ctrl-C.
        left_behind: Processes that it left behind.
        invitation: What it invited to.
        once: What the second printed.
        once_status: Its exit status.
        once_left_behind: Processes that it left behind.
    """

    place: str
    first: str
    first_status: int
    left_behind: list[int]
    invitation: Invitation
    once: str
    once_status: int
    once_left_behind: list[int]

    @property
    def folder(self) -> Path:
        """The files of the second run."""
        return Path(self.place) / FOLDER

    @property
    def other(self) -> Path:
        """Pack and trust policy of the first run: the same story, under other keys."""
        return Path(self.place) / "other"

    def shell(self, line: str) -> Finished:
        """Run a line as somebody would type it where the demonstration ran."""
        return _shell(line, Path(self.place))


def _shell(script: str, place: Path) -> Finished:
    done = subprocess.run(
        ["/bin/sh", "-ec", script],
        cwd=place,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Finished(status=done.returncode, output=done.stdout, errors=done.stderr)


@dataclass(frozen=True, slots=True)
class _Invited:
    """Reads what is printed under "It stays up"."""

    text: str

    def after(self, word: str) -> str:
        """Return what stands after a word at the beginning of a line."""
        found = re.search(rf"^   {word} +(.*)$", self.text, re.MULTILINE)
        assert found is not None, f"{word} is not printed"
        return found[1]

    def own_gateway(self) -> tuple[str, str, str]:
        """Return the three commands for a server of one's own, as they are printed."""
        lines = [line.strip() for line in self.text.splitlines() if line.startswith("     ")]
        export, *init, serve = lines
        return export, "\n".join(init), serve


def _browser(link: str) -> httpx.Client:
    """Return a client that keeps cookies and says where its forms come from."""
    origin = str(httpx.URL(link).copy_with(path="/")).rstrip("/")
    return httpx.Client(headers={"origin": origin}, follow_redirects=True, trust_env=False, timeout=_WAIT_SECONDS)


def _log_in(browser: httpx.Client, link: str) -> httpx.Response:
    """Open the login link, press its button, and return the page that comes."""
    asked = re.search(r'name="csrf" value="([^"]+)"', browser.get(link).text)
    assert asked is not None, "the link asks nothing"
    return browser.post(link, data={"csrf": asked[1]})


def _do_as_invited(text: str, place: Path) -> Invitation:
    invited = _Invited(text)
    link = invited.after("dashboard")
    _curl, _h, header, address = shlex.split(invited.after("decisions"))
    name, _, value = header.partition(": ")
    with _browser(link) as browser, _browser(link) as stranger:
        page = _log_in(browser, link)
        again = _log_in(stranger, link).status_code
        documentation = browser.get(invited.after("API")).status_code
        gateway = browser.post(invited.after("gateway"), json={}).status_code
    with httpx.Client(headers={name: value}, trust_env=False, timeout=_WAIT_SECONDS) as reader:
        denials = reader.get(address)
        init, answer = _own_gateway(invited, place)
        recorded: list[dict[str, Any]] = []
        deadline = time.monotonic() + _WAIT_SECONDS
        while not recorded and time.monotonic() < deadline:
            recorded = reader.get(address.partition("?")[0], params={"agent": "my-agent", "tool": "refund"}).json()[
                "items"
            ]
    return Invitation(
        dashboard=(page.status_code, page.text),
        again=again,
        documentation=documentation,
        denials=denials.json(),
        gateway=gateway,
        init=init,
        answer=answer,
        recorded=recorded,
    )


def _own_gateway(invited: _Invited, place: Path) -> tuple[str, str]:
    """Make and run a gateway by the printed commands, and let its agent call; only the port is another, a free one."""
    export, init, serve = invited.own_gateway()
    made = _shell(f"{export}\n{init}", place)
    assert made.status == 0, made.errors
    token = re.search(r"Bearer (\S+)", made.output)
    assert token is not None
    command = re.sub(r"--listen \S+", "--listen 127.0.0.1:0", serve)
    started = Started(["/bin/sh", "-ec", f"{export}\nexec {command}"], cwd=place, variables={})
    with answering(started, "gateway_serving") as served:
        answer = asyncio.run(_call(served.url, token[1]))
        started.signal_all(signal.SIGINT)
        assert started.wait() == 0, started.text
        assert started.left_behind() == []
    return made.output, answer


async def _call(url: str, token: str) -> str:
    step = Step(when=datetime.fromtimestamp(0, tz=UTC), who="me", server="finance", tool="refund", address="127.0.0.1")
    async with Callers(url, {"me": token}) as callers:
        return (await callers.send(step)).told()


def _run_twice(place: Path) -> Runs:
    (place / ".venv").mkdir(parents=True)
    (place / ".venv" / "bin").symlink_to(PROGRAM.parent)
    # A shell starts what it runs in the background with SIGINT ignored; Ctrl-C of whoever brings it back must count.
    with Started([_COMMAND, "demo"], cwd=place, variables={}, ignored=True) as first:
        first.wait_for_line("Ctrl-C ends it.")
        invitation = _do_as_invited(first.text.partition("5. It stays up.")[2], place)
        first.signal_all(signal.SIGINT)
        first_status, left_behind = first.wait(), first.left_behind()
    other = place / "other"
    other.mkdir()
    for name in ("evidence-pack.zip", "trust.policy"):
        shutil.copyfile(place / FOLDER / name, other / name)
    with Started([_COMMAND, "demo", "--once", "--dir", FOLDER], cwd=place, variables={}) as once:
        once_status, once_left_behind = once.wait(), once.left_behind()
    return Runs(
        place=str(place),
        first=first.text,
        first_status=first_status,
        left_behind=left_behind,
        invitation=invitation,
        once=once.text,
        once_status=once_status,
        once_left_behind=once_left_behind,
    )


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Run the demonstration twice; where several processes test, one runs it and the others wait for it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    result = shared / "demonstration.json"
    with (shared / "demonstration.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            made = _run_twice(tmp_path_factory.mktemp("demonstration"))
            result.write_bytes(msgspec.json.encode(made))
    return msgspec.json.decode(result.read_bytes(), type=Runs)
