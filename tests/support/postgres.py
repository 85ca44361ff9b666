"""A private PostgreSQL for tests: a cluster of its own, in a temporary folder, behind a Unix socket, syncing for real.

`postgres` is the fixture (one cluster for each pytest process); `PostgresCluster` serves tests that must crash one. The
server does not run as root: where the tests do, it runs as ``postgres`` or ``nobody``. The cluster's collation is ICU's
``en-US``, which sorts unlike Python: code that relies on an order of text by accident fails here.

Nothing is downloaded. A machine without PostgreSQL is an error with advice, never a skip.
"""

from __future__ import annotations

import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

_OLDEST_MAJOR = 15  # the first whose databases collate by ICU
_WAIT_SECONDS = 60
_SUPERUSER = "tallystick"


class PostgresMissingError(RuntimeError):
    """The machine has no PostgreSQL that the tests can use."""


def find_programs() -> Path:
    """Return the folder of the newest PostgreSQL programs that this machine has."""
    folders = [Path("/usr/lib/postgresql"), Path("/opt/homebrew/opt"), Path("/usr/local/opt")]
    candidates = [place for folder in folders if folder.is_dir() for place in folder.glob("*/bin")]
    on_path = shutil.which("initdb")
    if on_path is not None:
        candidates.append(Path(on_path).resolve().parent)
    found: dict[int, Path] = {}
    for place in candidates:
        if (place / "initdb").is_file() and (place / "postgres").is_file():
            answer = subprocess.run([place / "postgres", "--version"], capture_output=True, text=True, check=True)
            major = re.search(r"\b(\d+)", answer.stdout)
            if major is not None:
                found[int(major[1])] = place
    if not found or max(found) < _OLDEST_MAJOR:
        raise PostgresMissingError(
            f"these tests need the server programs of PostgreSQL {_OLDEST_MAJOR} or newer (initdb, postgres): "
            "`make setup-test` installs them, as does scripts/install-postgresql.sh on Debian"
        )
    return found[max(found)]


def _unprivileged() -> pwd.struct_passwd | None:
    """Return whom the server runs as, or None for ourselves: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PostgresMissingError("PostgreSQL does not run as root, and there is neither a user postgres nor nobody")


class PostgresCluster:
    """One cluster and its server; `stop` removes both."""

    def __init__(self) -> None:
        """Make a cluster and start its server."""
        self._programs = find_programs()
        self._user = _unprivileged()
        self.folder = Path(tempfile.mkdtemp(prefix="tally-pg-"))
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._data = self.folder / "data"
        self._numbers = itertools.count(1)
        self._server: subprocess.Popen[bytes] | None = None
        try:
            self._run_initdb()
            self.start()
        except BaseException:
            self.stop()
            raise

    def _identity(self) -> dict[str, object]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _run_initdb(self) -> None:
        command = [
            str(self._programs / "initdb"),
            f"--pgdata={self._data}",
            f"--username={_SUPERUSER}",
            "--auth=trust",  # whoever can enter the folder, which is its owner's alone
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--locale-provider=icu",
            "--icu-locale=en-US",
        ]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False, **self._identity())  # type: ignore[call-overload]  # keywords by name
        if done.returncode:
            raise PostgresMissingError(f"initdb failed:\n{done.stdout}{done.stderr}")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "on",
            "max_connections": "60",
            "shared_buffers": "32MB",
            "log_min_messages": "fatal",
        }
        command = [str(self._programs / "postgres"), "-D", str(self._data)]
        command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **self._identity())  # type: ignore[call-overload]  # keywords by name
        deadline = time.monotonic() + _WAIT_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError as error:
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise PostgresMissingError((self.folder / "log").read_text()) from error
                time.sleep(0.02)
            else:
                return

    def crash(self) -> None:
        """End the server at once and without ceremony, as a crash would; `start` recovers from its write-ahead log."""
        self._end(signal.SIGQUIT)

    def _end(self, how: signal.Signals) -> None:
        if self._server is None:
            return
        self._server.send_signal(how)
        self._server.wait(_WAIT_SECONDS)
        self._server = None

    def stop(self) -> None:
        """End the server and remove the cluster."""
        try:
            # Nobody will start it again: it need not write out first what is removed next.
            self._end(signal.SIGQUIT)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the superuser, outside a transaction, and return its rows."""
        where = f"host={self.folder} dbname={database} user={_SUPERUSER}"
        with psycopg.connect(where, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def url(self, database: str, **parameters: str) -> str:
        """Return the SQLAlchemy URL of a database, with libpq parameters."""
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"postgresql+psycopg://{_SUPERUSER}@/{database}?host={self.folder}&{query}".rstrip("&")

    def new_schema(self) -> str:
        """Create an empty schema, which is as good as a database and cheaper, and return the URL that leads there."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
        return self.url("postgres", options=f"-csearch_path={name}")

    def new_database(self, **settings: str) -> str:
        """Create an empty database and return its URL.

        Args:
            settings: Server settings that every connection to it starts with, such as ``synchronous_commit="off"``.
        """
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        for setting, value in settings.items():
            self.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
        return self.url(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """Return this process's PostgreSQL; every test makes its own schema or database in it."""
    cluster = PostgresCluster()
    yield cluster
    cluster.stop()
