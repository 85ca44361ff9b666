"""One service of three processes over one PostgreSQL, in a load of appends: its leader is killed, paused, and goes on.

Whoever publishes when it is killed is replaced within seconds. Whoever is paused for longer than his lease publishes
nothing when he goes on, and follows. Nothing that was acknowledged is lost, doubled or without proof; no two
checkpoints are inconsistent.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from ledger.notes import encode_base64
from ledger.proofs import verify_consistency
from ledger.publishing_turns import LEASE_SECONDS
from ledger.records import encode_record
from tests.support.commands import PROGRAM, Installation, Served, Started, answering, living
from tests.support.ledger import Enforcer
from tests.support.load import Load, Sender, wait_until
from tests.support.postgres import PostgresCluster

WORKERS = 3
SENDERS = 4
KILLS = 4


def free_ports(count: int) -> int:
    """Return the first of some ports in a row that are free at this moment."""
    for first in itertools.count(20_000 + os.getpid() % 20_000, count):
        with suppress(OSError):
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return first
    raise AssertionError


class Crew:
    """The workers of a service, each with an address of its own."""

    def __init__(self, served: Served, first_port: int, *, token: str | None = None) -> None:
        self.served = served
        self._ports = [first_port + number for number in range(WORKERS)]
        self._headers = {} if token is None else {"authorization": f"Bearer {token}"}

    def metrics(self, number: int) -> dict[str, float]:
        """Return one worker's figures; nothing if it does not answer."""
        with suppress(httpx.HTTPError):
            where = f"http://127.0.0.1:{self._ports[number]}/metrics"
            answer = httpx.get(where, headers=self._headers, timeout=1, trust_env=False)
            lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
            return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
        return {}

    def leaders(self) -> list[int]:
        """Return the workers that say that they publish."""
        return [number for number in range(WORKERS) if self.metrics(number).get("tallystick_publisher_leads")]

    def published(self, number: int) -> float:
        """Return the size of the checkpoint that a worker knows of; -1 if it does not answer."""
        return self.metrics(number).get("tallystick_published_size", -1)

    def pid(self, number: int) -> int | None:
        """Return a worker's process id, or None while there is none."""
        for process in living(self.served.started.process.pid):
            with suppress(OSError):
                words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
                if b"service.cli.worker" in words and words[words.index(b"service.cli.worker") + 1] == b"%d" % number:
                    return process
        return None

    def wait_until_all_answer(self) -> None:
        wait_until(lambda: all(self.metrics(number) for number in range(WORKERS)))

    def one_leader(self) -> int:
        """Wait until some worker publishes, and return it."""
        wait_until(lambda: bool(self.leaders()))
        return self.leaders()[0]


@pytest.fixture
def installation(tmp_path: Path, postgres: PostgresCluster) -> Installation:
    settings = {
        "DATABASE_URL": postgres.new_database(),
        "WORKERS": str(WORKERS),
        "WORKER_LISTEN": f"127.0.0.1:{free_ports(WORKERS)}",
    }
    made = Installation(folder=tmp_path, more=settings)
    made.make_keys()
    made.do("migrate")
    return made


@contextmanager
def crew_of(installation: Installation) -> Iterator[Crew]:
    with installation.serve() as served:
        crew = Crew(served, int(installation.more["WORKER_LISTEN"].rpartition(":")[2]))
        crew.wait_until_all_answer()
        yield crew


@contextmanager
def sending(load: Load, url: str) -> Iterator[None]:
    """Let all senders append as long as the block lasts, and until everything that they sent is acknowledged."""
    enough = threading.Event()
    with ThreadPoolExecutor(SENDERS) as pool:
        running = [pool.submit(sender.send, url, enough) for sender in load.senders]
        try:
            yield
        finally:
            enough.set()
    for one in running:
        one.result()


def grow(load: Load, ready: Callable[[], bool] = lambda: True) -> None:
    """Wait until some more was acknowledged, and until something holds."""
    wanted = load.count() + 20
    wait_until(lambda: load.count() >= wanted and ready())


def kill_the_leader(load: Load, crew: Crew) -> None:
    """Kill whoever publishes, and wait until somebody else does."""
    leader = crew.one_leader()
    others = [number for number in range(WORKERS) if number != leader]
    grow(load)
    process = crew.pid(leader)
    assert process is not None
    os.kill(process, signal.SIGKILL)
    before = max(map(crew.published, others))
    wait_until(lambda: max(map(crew.published, others)) > before)


def pause_the_leader(load: Load, crew: Crew) -> None:
    """Stop whoever publishes for longer than his lease; when he goes on, he publishes nothing and follows."""
    leader = crew.one_leader()
    others = [number for number in range(WORKERS) if number != leader]
    process = crew.pid(leader)
    assert process is not None
    os.kill(process, signal.SIGSTOP)
    try:
        before = max(map(crew.published, others))
        time.sleep(LEASE_SECONDS + 1)
        wait_until(lambda: max(map(crew.published, others)) > before)
        overtaken = max(map(crew.published, others))
    finally:
        os.kill(process, signal.SIGCONT)
    wait_until(lambda: crew.published(leader) >= overtaken)
    assert crew.pid(leader) == process, "it went on, and was not started anew"
    grow(load, lambda: len(crew.leaders()) == 1)
    assert crew.metrics(leader)["tallystick_publisher_leads"] == 0


def every_checkpoint(installation: Installation) -> list[bytes]:
    """Return whatever won a swap, in order, as PostgreSQL has it."""
    where = installation.more["DATABASE_URL"].replace("postgresql+psycopg://", "postgresql://")
    with psycopg.connect(where) as connection:
        return [bytes(row[0]) for row in connection.execute("SELECT checkpoint FROM checkpoints ORDER BY size")]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_workers_whose_leader_is_killed_and_paused_in_a_load_lose_double_and_fork_nothing(
    installation: Installation,
) -> None:
    load = Load(installation, installation.token("auditor"))
    load.senders = [Sender(number, gives_up=False, seconds=5) for number in range(SENDERS)]
    admin = installation.token("admin")
    with crew_of(installation) as crew:
        url = crew.served.url
        for sender in load.senders:
            sender.introduce(url, admin)
        with sending(load, url):
            for _ in range(KILLS):
                kill_the_leader(load, crew)
                crew.wait_until_all_answer()
            for _ in range(2):
                pause_the_leader(load, crew)
                crew.wait_until_all_answer()
        load.check_history(load.check(url))
        for number in range(WORKERS):
            metrics = crew.metrics(number)
            assert metrics["tallystick_published_size"] == metrics["tallystick_sequenced_size"]
        crew.served.started.signal(signal.SIGTERM)
        assert crew.served.started.wait() == 0
        assert crew.served.started.left_behind() == []
    assert "ended for good" not in crew.served.started.text
    heads = [load.trust.verify(checkpoint).head for checkpoint in every_checkpoint(installation)]
    for old, new in itertools.pairwise(heads):
        verify_consistency(old, new, load.prover.consistency(old.size, new.size))
    report = json.loads(installation.do("audit", "--json"))
    assert report["findings"] == report["not_checked"] == []
    assert report["checked"]["entries"] == report["size"] == heads[-1].size
    streams = {stream["enforcer_id"]: stream for stream in report["streams"]}
    for sender in load.senders:
        stream = streams[sender.enforcer.enforcer_id]
        assert stream["records"] == sender.enforcer.seq == len(sender.acknowledged)
        assert stream["missing"] == []
    assert streams["service"]["missing"] == []


@pytest.mark.slow
def test_workers_stop_when_their_parent_is_killed(installation: Installation) -> None:
    with crew_of(installation) as crew:
        crew.served.started.signal(signal.SIGKILL)
        crew.served.started.wait()
        assert crew.served.started.left_behind(seconds=30) == []
    # They stopped in order: the next start finds everything published and nothing to repair.
    report = json.loads(installation.do("audit", "--json"))
    assert report["findings"] == []


# --- several logs ----------------------------------------------------------------------------------------------------


OPERATOR_TOKEN = "operator-" + "o" * 40
LOGS = ("acme", "globex")


class Tenants:
    """An installation of several logs; commands on one of them name it, the service serves all."""

    def __init__(self, folder: Path, database_url: str) -> None:
        file = folder / "logs.yaml"
        entries = [{"log_id": name, "tenant": name, "origin": f"ledger.example/{name}"} for name in LOGS]
        file.write_text(json.dumps({"logs": entries}))
        self.first_port = free_ports(WORKERS)
        more = {
            "DATABASE_URL": database_url,
            "WORKERS": str(WORKERS),
            "WORKER_LISTEN": f"127.0.0.1:{self.first_port}",
            "LOGS": str(file),
            "OPERATOR_TOKEN": "env:OPERATOR",
        }
        self.logs = {
            name: Installation(folder=folder, log_id=name, origin=f"ledger.example/{name}", more=more) for name in LOGS
        }
        for name, log in self.logs.items():
            log.do("keys", "init", folder / "keys" / name)
        self.logs[LOGS[0]].do("migrate")

    @contextmanager
    def serve(self) -> Iterator[Crew]:
        one = self.logs[LOGS[0]]
        of_all = {name: value for name, value in one.variables.items() if name != "TALLYSTICK_LOG_ID"}
        started = Started((PROGRAM, "serve"), cwd=one.folder, variables={**of_all, "OPERATOR": OPERATOR_TOKEN})
        with answering(started, "serving") as served:
            crew = Crew(served, self.first_port, token=OPERATOR_TOKEN)
            crew.wait_until_all_answer()
            yield crew


class Tenant:
    """An enforcer of one log, which sends each record over a connection of its own, to whichever worker accepts it."""

    def __init__(self, url: str, log: Installation) -> None:
        self.enforcer = Enforcer(f"{log.log_id}-gateway", log.log_id, tenant=log.log_id, simulated=False)
        self.enforcer.time_ms = time.time_ns() // 1_000_000
        self.auditor = log.token("auditor")
        self.indexes: list[int] = []
        self._url = url
        key = encode_base64(bytes(self.enforcer.key.verify_key))
        introduced = {"enforcer_id": self.enforcer.enforcer_id, "public_key": key}
        answer = self.post("/v1/enforcers", log.token("admin"), json=introduced)
        assert answer.status_code == 201, answer.text
        self._token = answer.json()["token"]

    def post(self, path: str, token: str, **content: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.post(self._url + path, headers=headers, timeout=30, trust_env=False, **content)

    def append(self, records: int) -> None:
        """Append records one by one; what nobody answered is sent again."""
        for _ in range(records):
            sent = {"record": json.loads(encode_record(self.enforcer.record(self.enforcer.heartbeat())))}
            answer = None
            while answer is None or answer.status_code in (429, 503):
                with suppress(httpx.HTTPError):
                    answer = self.post("/v1/decisions", self._token, json=sent)
            assert answer.status_code == 201, answer.text
            self.indexes += [result["leaf_index"] for result in answer.json()["results"]]


def figures(crew: Crew, name: str, log_id: str) -> list[float]:
    """Return a figure of one log, as each worker tells it."""
    return [crew.metrics(number).get(f'{name}{{log="{log_id}"}}', -1) for number in range(WORKERS)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_of_several_workers_serves_every_one_of_several_logs_and_one_of_them_is_killed(
    tmp_path: Path, postgres: PostgresCluster
) -> None:
    installation = Tenants(tmp_path, postgres.new_database())
    with installation.serve() as crew:
        url = crew.served.url
        tenants = {name: Tenant(url, log) for name, log in installation.logs.items()}
        for tenant in tenants.values():
            tenant.append(20)
        process = crew.pid(1)
        assert process is not None
        os.kill(process, signal.SIGKILL)
        for tenant in tenants.values():
            tenant.append(20)
        crew.wait_until_all_answer()
        for name, tenant in tenants.items():
            wait_until(lambda name=name: all(size > 40 for size in figures(crew, "tallystick_published_size", name)))
            assert figures(crew, "tallystick_log_open", name) == [1] * WORKERS
            assert sum(figures(crew, "tallystick_publisher_leads", name)) <= 1
            assert len(set(tenant.indexes)) == 40
            (other,) = set(LOGS) - {name}
            answers = [
                httpx.get(
                    f"{url}/logs/{asked}/checkpoint",
                    headers={"authorization": f"Bearer {tenant.auditor}"},
                    trust_env=False,
                ).status_code
                for asked in (name, other)
            ]
            assert answers == [200, 404]
        crew.served.started.signal(signal.SIGTERM)
        assert crew.served.started.wait() == 0
        assert crew.served.started.left_behind() == []
    for name, log in installation.logs.items():
        report = log.do_json("audit")
        assert report["findings"] == report["not_checked"] == []
        streams = {stream["enforcer_id"]: stream for stream in report["streams"]}
        assert sorted(streams) == sorted([f"{name}-gateway", "service"])
        assert (streams[f"{name}-gateway"]["records"], streams[f"{name}-gateway"]["missing"]) == (40, [])
        assert streams["service"]["missing"] == []


def test_several_workers_need_postgresql(tmp_path: Path) -> None:
    installation = Installation(folder=tmp_path, more={"WORKERS": "2"})
    installation.make_keys()
    done = installation.run("serve")
    assert done.status not in (0, 1)
    assert "TALLYSTICK_WORKERS: SQLite is for one process" in done.errors


def test_a_service_that_cannot_start_says_why_once(installation: Installation) -> None:
    (installation.folder / "keys" / "pack-ed25519.json").unlink()
    done = installation.run("serve")
    assert done.status not in (0, 1)
    assert done.errors.count("pack-ed25519") == 1, done.errors
