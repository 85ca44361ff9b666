"""Have a stock OPA decide by our bundle and report to us: ``python -m tests.interop.opa OPA_PROGRAM FOLDER``.

The OPA is the one that its authors publish, built in `opa_program` beside this file. It pulls the scenario bundle
from a service of ours, decides every row of the scenario table, and posts its decision log; on the way the service is
killed and started again, and so is the OPA. Each line that is printed is a check; one that fails ends with status 1.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import httpx
import uvicorn

from ledger.bodies import OPADecision
from ledger.clock import SystemClock
from policies.boundaries import boundary_facts, read_boundaries
from policies.bundles import Bundle
from policies.directories import read_library_bundle
from policies.engines.rego import RegoEngine
from policies.engines.rego_requests import InputRefusedError, input_document
from policies.model import Decision
from policies.parameters import parse_parameters
from policies.windows import read_windows
from service.app import create_app
from service.auth import Role
from service.wiring.assembly import build_services
from tests.support.ledger import LOG_ID
from tests.support.scenarios import REGO, scenarios
from tests.support.service import make_settings, start_service

SECONDS = 60.0
QUESTIONS = 150
"""Asked while processes are killed."""


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


def check(text: str, *, holds: bool, more: object = "") -> None:
    print(f"{'ok  ' if holds else 'FAIL'} {text}{f': {more}' if not holds and more else ''}", flush=True)
    if not holds:
        raise SystemExit(1)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until a URL answers 200."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            if httpx.get(url, timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if process.poll() is not None:
            raise SystemExit(f"{url}: the process ended with {process.returncode}")
        time.sleep(0.05)
    raise SystemExit(f"{url} did not answer in {SECONDS:g} s")


def serve(folder: Path, port: int) -> None:
    """Serve the log in a folder; what the process is that gets killed."""
    services = build_services(make_settings(folder), clock=SystemClock(), allow_simulated=True)
    uvicorn.run(create_app(services), host="127.0.0.1", port=port, log_config=None, access_log=False, ws="none")


@dataclass
class Scene:
    """A service and an OPA, at addresses that outlive them."""

    program: Path
    folder: Path
    token: str
    service_port: int = field(default_factory=free_port)
    opa_port: int = field(default_factory=free_port)

    @property
    def service_url(self) -> str:
        return f"http://127.0.0.1:{self.service_port}"

    @property
    def opa_url(self) -> str:
        return f"http://127.0.0.1:{self.opa_port}"

    def start_service(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.interop.opa", "serve", str(self.folder), str(self.service_port)]
        process = subprocess.Popen(command)  # ourselves
        wait_for(f"{self.service_url}/healthz", process)
        return process

    def start_opa(self, console: IO[bytes]) -> subprocess.Popen[bytes]:
        (self.folder / "token").write_text(self.token)
        config = {
            "services": {
                "tallystick": {
                    "url": self.service_url,
                    "credentials": {"bearer": {"token_path": str(self.folder / "token")}},
                }
            },
            "bundles": {"tallystick": {"service": "tallystick", "resource": "/v1/opa/bundles/active.tar.gz"}},
            "decision_logs": {
                "service": "tallystick",
                "console": True,
                "reporting": {"min_delay_seconds": 1, "max_delay_seconds": 1},
            },
            "status": {"service": "tallystick"},
        }
        (self.folder / "opa.json").write_text(json.dumps(config))
        command = [str(self.program), "run", "--server", "--addr", f"127.0.0.1:{self.opa_port}", "--log-level", "error"]
        command += ["--config-file", str(self.folder / "opa.json")]
        process = subprocess.Popen(command, stderr=console, stdout=subprocess.DEVNULL)  # as given
        wait_for(f"{self.opa_url}/health?bundles", process)
        return process

    def ask(self, package: str, document: object) -> tuple[str, dict[str, Any]]:
        """Return the decision id, and what OPA says of the package."""
        answer = httpx.post(
            f"{self.opa_url}/v1/data/{package.replace('.', '/')}", json={"input": document}, timeout=10, trust_env=False
        ).json()
        return answer["decision_id"], answer.get("result", {})


def said(result: dict[str, Any]) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Return effect, rules and obligations of OPA's answer, by the convention of `docs/policies.md`."""
    denies, permits, duties = (tuple(sorted(result.get(name, ()))) for name in ("denies", "permits", "obligations"))
    ending = tuple(duty for duty in duties if duty == "end_session")
    if denies or ending:
        return "DENY", denies or ending, ending
    if result.get("allow") is True:
        return "PERMIT", permits or ("allow",), duties
    return "NOT_APPLICABLE", (), ()


def documents(bundle: Bundle) -> Iterator[tuple[str, object, Decision]]:
    """Yield name, input document and our decision of each row that reaches Rego."""
    engine = RegoEngine()
    loaded = engine.load(bundle)
    manifest = bundle.manifest
    assert manifest.parameters is not None
    parameters = parse_parameters(bundle.files[manifest.parameters])
    windows, boundaries = read_windows(bundle), read_boundaries(bundle)
    for row in scenarios(REGO):
        (decision,) = engine.evaluate(loaded, [row.request])
        try:
            document = input_document(parameters, windows, row.request, boundary_facts(boundaries, row.request))
        except InputRefusedError:
            continue
        yield row.name, document, decision


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(SECONDS)


def recorded(folder: Path) -> list[OPADecision]:
    with start_service(folder) as service:
        indexes = service.services.catalog.of_type(LOG_ID, "opa_decision")
        bodies = [service.services.reader.record(index).body for index in indexes]
    return [body for body in bodies if isinstance(body, OPADecision)]


def hand_in(scene: Scene, console: Path) -> dict[str, int]:
    command = [str(Path(sys.executable).with_name("tallystick")), "opa", "hand-in", str(console), "--json"]
    environment = {**os.environ, "TALLYSTICK_URL": scene.service_url, "TALLYSTICK_TOKEN": scene.token}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, timeout=SECONDS)
    told: dict[str, int] = json.loads(done.stdout)
    return told


def compare(scene: Scene, package: str, rows: list[tuple[str, object, Decision]]) -> set[str]:
    """Have OPA decide every row, and return the decision ids."""
    ids, wrong = set(), []
    for name, document, ours in rows:
        decision_id, result = scene.ask(package, document)
        ids.add(decision_id)
        if said(result) != (ours.effect.value, ours.rules, ours.obligations):
            wrong.append((name, said(result), (ours.effect.value, ours.rules, ours.obligations)))
    check(f"OPA decides {len(rows)} rows of the scenario table as our engine does", holds=not wrong, more=wrong[:3])
    return ids


def run(program: Path, folder: Path) -> None:
    bundle = read_library_bundle(REGO)
    package = bundle.manifest.package or ""
    with start_service(folder) as service:
        revision = service.put_in_force(bundle)
        token = service.token(Role.CLIENT, "opa")
    scene = Scene(program, folder, token)
    rows = list(documents(bundle))
    first, second = folder / "first.log", folder / "second.log"
    answered: dict[str, set[str]] = {"first": set(), "second": set()}
    service_process = scene.start_service()
    try:
        with first.open("wb") as console, ended(scene.start_opa(console)) as opa:
            check("OPA pulls our bundle and loads it", holds=True)
            answered["first"] = compare(scene, package, rows)
            for number in range(QUESTIONS):
                if number == QUESTIONS // 3:
                    service_process.kill()
                    service_process.wait(SECONDS)
                if number == QUESTIONS // 2:
                    service_process = scene.start_service()
                    # Long enough for what was refused meanwhile to be sent again, in the middle of which OPA is killed.
                    time.sleep(2.5)
                answered["first"].add(scene.ask(package, rows[number % len(rows)][1])[0])
            opa.send_signal(signal.SIGKILL)
            opa.wait(SECONDS)
        with second.open("wb") as console, ended(scene.start_opa(console)) as opa:
            for number in range(QUESTIONS):
                answered["second"].add(scene.ask(package, rows[number % len(rows)][1])[0])
            opa.send_signal(signal.SIGTERM)  # it uploads what it has before it ends
            opa.wait(SECONDS)
        handed = hand_in(scene, first)
        again = hand_in(scene, first)
        check("a killed OPA's console log completes what it had uploaded", holds=handed["conflicts"] == 0, more=handed)
        expected = {"taken": 0, "duplicates": len(answered["first"]), "conflicts": 0, "unreadable": 0}
        check("handed in once more, nothing of it is new", holds=again == expected, more=again)
    finally:
        service_process.kill()
        service_process.wait(SECONDS)
    judge(recorded(folder), answered, revision, handed)


def judge(bodies: list[OPADecision], answered: dict[str, set[str]], revision: str, handed: dict[str, int]) -> None:
    counts = Counter(body.opa_decision_id for body in bodies if body.kind == "taken")
    due = answered["first"] | answered["second"]
    missing, doubled = due - counts.keys(), [one for one, count in counts.items() if count > 1]
    check(f"each of {len(due)} decisions is in the log", holds=not missing, more=len(missing))
    check("and none is there twice", holds=not doubled and len(counts) == len(due), more=doubled[:3])
    others = [body for body in bodies if body.kind != "taken"]
    check("no event is in conflict or unreadable", holds=not others, more=len(others))
    ours = all(body.bundle_revisions == (revision,) and body.replay == "exact" for body in bodies)
    check("each names our bundle's revision, and could be replayed", holds=ours)
    print(f"     of the killed OPA, {handed['taken']} events were still in its memory")


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
        run(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
