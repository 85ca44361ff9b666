"""A real service that serves several logs from one database, for tests in which one tenant means another harm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

from ledger.clock import Clock, SystemClock
from service.app import create_app
from service.hosting import Hosting, open_hosting
from service.keyset import make_key_set
from service.settings import Installation, load_installation
from tests.support.service import ServedLog, ServerThread

MINE, THEIRS = "acme", "globex"
"""The hostile tenant's log, and the one that it is after."""

OPERATOR_TOKEN = "operator-" + "o" * 40


class Tenant(ServedLog):
    """One tenant's log on a service of several."""

    def __init__(self, server: RunningTenants, log_id: str) -> None:
        super().__init__(server.hosting.find(log_id))
        self.server = server


class RunningTenants(ServerThread):
    """A service of several logs that answers; made by `start_tenants` alone.

    Attributes:
        hosting: Its logs.
    """

    def __init__(self, hosting: Hosting) -> None:
        super().__init__(create_app(hosting))
        self.hosting = hosting

    def tenant(self, log_id: str) -> Tenant:
        """Return one tenant's log."""
        return Tenant(self, log_id)


def make_installation(
    root: Path,
    *,
    logs: Mapping[str, Mapping[str, object]] | None = None,
    keys: bool = True,
    **changes: object,
) -> Installation:
    """Return an installation of several logs in a folder, with demonstration keys for each.

    Args:
        root: Its folder.
        logs: What differs, by log id; the hostile tenant's and the other's if None.
        keys: Whether keys are made where there are none.
        changes: Settings of the process.
    """
    root.mkdir(parents=True, exist_ok=True)
    entries = [
        {"log_id": log_id, "tenant": f"{log_id}-tenant", "origin": f"service.example/{log_id}-origin", **values}
        for log_id, values in (logs or {MINE: {}, THEIRS: {}}).items()
    ]
    (root / "logs.yaml").write_text(yaml.safe_dump({"logs": entries}))
    secret = root / "operator.token"
    secret.write_text(OPERATOR_TOKEN)
    secret.chmod(0o600)
    values: dict[str, object] = {
        "logs": root / "logs.yaml",
        "data_dir": root / "data",
        "keys_dir": root / "keys",
        "environment": "test",
        "checkpoint_interval_seconds": 0.1,
        "insecure_cookies": True,
        "operator_token": f"file:{secret}",
    }
    installation = load_installation(**{**values, **changes})
    for log in installation.logs if keys else ():
        if not log.keys_dir.exists():
            make_key_set(
                log.keys_dir,
                origin=log.origin,
                service_id=log.service_id,
                created_ms=SystemClock().now_ms(),
                simulated=True,
            )
    return installation


def start_tenants(
    root: Path, *, clock: Clock | None = None, migrate: bool = False, **changes: object
) -> RunningTenants:
    """Return a service of several logs in a folder, to be used as a context manager; see `make_installation`."""
    installation = make_installation(root, **changes)  # type: ignore[arg-type]  # passed on
    return RunningTenants(open_hosting(installation, clock=clock, allow_simulated=True, migrate=migrate))
