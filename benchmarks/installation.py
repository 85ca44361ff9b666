"""A real installation for the benchmarks: ``tallystick serve`` in a process of its own. Gateways are in `gateways`.

Settings are those of production wherever that can be: keys that are not simulated, a checkpoint a second, every sync.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlalchemy import Engine

from benchmarks.processes import TALLYSTICK, child, free_port, wait_until_up
from benchmarks.records import ENVIRONMENT, LOG_ID, TENANT, Writer
from ledger.clock import SystemClock
from ledger.database import open_engine
from ledger.notes import encode_base64
from ledger.stores.sql import SQLLogStore
from migrations.schema import upgrade
from service.auth import Role, TokenStore
from service.keyset import load_key_set, make_key_set
from service.person_tokens import PersonTokens
from service.persons import CONSOLE, PERSON_SECONDS, Person

__all__ = ["ORIGIN", "Installation", "new_database", "serving"]

ORIGIN = "bench.example/acme"
_SERVICE_ID = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A service that answers.

    Attributes:
        url: Where.
        process: Its process.
        engine: Its database, opened a second time.
        keys_dir: Its keys.
    """

    url: str
    process: subprocess.Popen[bytes]
    engine: Engine
    keys_dir: Path

    def token(self, role: Role) -> str:
        """Issue a token of a role that is not an enforcer's; approvers are persons."""
        name = f"bench-{role}-{secrets.token_hex(4)}"
        if role is not Role.APPROVER:
            return TokenStore(self.engine, SystemClock()).issue(LOG_ID, role, name)
        person = Person(issuer=CONSOLE, subject=name, name=name, method="console")
        seed = load_key_set(self.keys_dir).pseudonym.seed
        return PersonTokens(self.engine, SystemClock(), LOG_ID).issue(person, role, seed=seed, seconds=PERSON_SECONDS)[
            0
        ]

    def client(self, role: Role) -> httpx.Client:
        """Return an HTTP client that speaks for a role."""
        headers = {"authorization": f"Bearer {self.token(role)}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    def introduce(self, enforcer_id: str, public_key: bytes) -> str:
        """Introduce an enforcer and return its token."""
        with self.client(Role.ADMIN) as admin:
            wanted = {"enforcer_id": enforcer_id, "public_key": encode_base64(public_key)}
            answer = admin.post("/v1/enforcers", json=wanted)
        answer.raise_for_status()
        return str(answer.json()["token"])

    def writer(self, enforcer_id: str) -> tuple[Writer, str]:
        """Return an introduced enforcer that signs real records, and its token."""
        writer = Writer(enforcer_id)
        return writer, self.introduce(enforcer_id, bytes(writer.key.verify_key))

    def sequenced_size(self) -> int:
        """Return how many records have an index, as the database says."""
        return SQLLogStore(self.engine).sequenced_size(LOG_ID)


def new_database(url: str) -> Engine:
    """Return an engine on a new database with the newest schema and a log in it, as a service would make it."""
    engine = open_engine(url)
    upgrade(engine)
    SQLLogStore(engine).create_log(
        LOG_ID,
        tenant=TENANT,
        origin=ORIGIN,
        environment=ENVIRONMENT,
        simulated=False,
        created_ms=SystemClock().now_ms(),
    )
    return engine


@contextmanager
def serving(folder: Path, database_url: str = "", *, workers: int = 1) -> Iterator[Installation]:
    """Run a service in a folder: SQLite there, or the given database; directory tiles, directory anchor.

    Args:
        folder: An empty folder.
        database_url: Another, empty database.
        workers: Processes that answer; more than one needs a database of their own.
    """
    data, keys = folder / "data", folder / "keys"
    make_key_set(keys, origin=ORIGIN, service_id=_SERVICE_ID, created_ms=SystemClock().now_ms())
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", folder / "service.log"
    settings = {
        "DATA_DIR": str(data),
        "KEYS_DIR": str(keys),
        "DATABASE_URL": database_url or f"sqlite:///{data / 'ledger.db'}",
        "LOG_ID": LOG_ID,
        "TENANT": TENANT,
        "ENVIRONMENT": ENVIRONMENT,
        "ORIGIN": ORIGIN,
        "SERVICE_ID": _SERVICE_ID,
        "LISTEN": f"127.0.0.1:{port}",
        "EXTERNAL_URL": url,
        "WORKERS": str(workers),
    }
    environment = {f"TALLYSTICK_{name}": value for name, value in settings.items()}
    with child([*TALLYSTICK, "serve", "--migrate"], log=log, environment=environment) as process:
        wait_until_up(process, f"{url}/healthz", log=log)
        engine = open_engine(settings["DATABASE_URL"])
        try:
            yield Installation(url=url, process=process, engine=engine, keys_dir=keys)
        finally:
            engine.dispose()
