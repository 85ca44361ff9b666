"""Real gateways for the benchmarks: ``tallystick gateway``, each in a process of its own, before one MCP server."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx
import yaml

from benchmarks.installation import Installation
from benchmarks.measure import BenchmarkError
from benchmarks.processes import TALLYSTICK, child, free_port, wait_until_up
from benchmarks.records import ENVIRONMENT, LOG_ID, TENANT
from ledger.clock import SystemClock
from ledger.envelopes import ED25519
from ledger.keys import LocalKey, generate_key, save_key
from policies.directories import read_library_bundle
from service.auth import Role

__all__ = ["SERVER", "RunningGateway", "activate_policy", "gateway"]

SERVER = "finance"
"""The MCP server's name, by which the demonstration's policies know it."""
_SETTLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningGateway:
    """A gateway that answers.

    Attributes:
        base: Its address.
        process: Its process.
        token: The agent's token.
    """

    base: str
    process: subprocess.Popen[bytes]
    token: str

    @property
    def url(self) -> str:
        """Where calls of the MCP server go."""
        return f"{self.base}/servers/{SERVER}/mcp"

    def settle(self) -> None:
        """Wait until the ledger has every record."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        with httpx.Client(trust_env=False, timeout=10) as client:
            while time.monotonic() < deadline:
                state = client.get(f"{self.base}/readyz").json()
                if state["set_aside_records"]:
                    raise BenchmarkError("the ledger refused records of a gateway")
                if state["spool_records"] == 0:
                    return
                time.sleep(0.05)
        raise BenchmarkError("the spool of a gateway did not empty")


def activate_policy(service: Installation) -> None:
    """Publish the demonstration's bundle and put it in force."""
    with service.client(Role.ADMIN) as admin:
        published = admin.post("/v1/bundles", content=read_library_bundle("demo").archive())
    published.raise_for_status()
    with service.client(Role.APPROVER) as approver:
        path = f"/v1/bundles/{published.json()['revision']}"
        approver.post(f"{path}/review", json={"verdict": "approved"}).raise_for_status()
        approver.post(f"{path}/activation", json={"comment": "for the benchmark"}).raise_for_status()


def _save(key: LocalKey, path: Path) -> str:
    save_key(key, path)
    return f"file:{path}"


@contextmanager
def gateway(
    folder: Path, service: Installation, upstream: str, recording: Literal["strict", "available"]
) -> Iterator[RunningGateway]:
    """Run a gateway with production settings but for how it records.

    Args:
        folder: A folder to make.
        service: Where its records go.
        upstream: The MCP server's endpoint.
        recording: ``strict`` or ``available``.
    """
    folder.mkdir(mode=0o700)
    enforcer_id, now_ms, token = f"gateway-{recording}", SystemClock().now_ms(), secrets.token_urlsafe(32)
    signing = generate_key("enforcer", ED25519, enforcer_id, created_ms=now_ms)
    spool = generate_key("spool", "xsalsa20-poly1305", enforcer_id, created_ms=now_ms)
    pseudonym = shutil.copy(service.keys_dir / "pseudonym.json", folder / "pseudonym.json")
    assert signing.public_key is not None
    service_token = folder / "service.token"
    service_token.touch(mode=0o600)
    service_token.write_text(service.introduce(enforcer_id, signing.public_key), encoding="utf-8")
    config = {
        "enforcer_id": enforcer_id,
        "log_id": LOG_ID,
        "tenant": TENANT,
        "environment": ENVIRONMENT,
        "zone": "UTC",
        "state_directory": str(folder / "state"),
        "service": {"url": service.url, "token": f"file:{service_token}"},
        "keys": {
            "signing": _save(signing, folder / "signing.json"),
            "pseudonym": f"file:{pseudonym}",
            "spool": _save(spool, folder / "spool.json"),
        },
        "networks": [{"label": "loopback", "cidrs": ["127.0.0.0/8"]}],
        "principals": [
            {
                "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
                "agent": "Finance-Bot",
                "user": "alice",
                "roles": ["finance"],
                "mfa": True,
            }
        ],
        "servers": [{"name": SERVER, "url": upstream, "recording": recording}],
    }
    path, log, port = folder / "gateway.yaml", folder / "gateway.log", free_port()
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    base = f"http://127.0.0.1:{port}"
    command = [*TALLYSTICK, "gateway", "--config", str(path), "--listen", f"127.0.0.1:{port}"]
    with child(command, log=log) as process:
        wait_until_up(process, f"{base}/readyz", log=log)
        yield RunningGateway(base=base, process=process, token=token)
