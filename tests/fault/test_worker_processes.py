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

import httpx
import psycopg
import pytest

from ledger.proofs import verify_consistency
from ledger.publishing_turns import LEASE_SECONDS
from tests.support.commands import Installation, Served, living
from tests.support.load import Load, Sender, wait_until
from tests.support.postgres import PostgresCluster

WORKERS = 3
SENDERS = 4
KILLS = 4
TAKEOVER_SECONDS = LEASE_SECONDS + 10.0
"""Far more than a take-over needs on a machine that has nothing else to do."""


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

    def __init__(self, served: Served, first_port: int) -> None:
        self.served = served
        self._ports = [first_port + number for number in range(WORKERS)]

    def metrics(self, number: int) -> dict[str, float]:
        """Return one worker's figures; nothing if it does not answer."""
        with suppress(httpx.HTTPError):
            answer = httpx.get(f"http://127.0.0.1:{self._ports[number]}/metrics", timeout=1, trust_env=False)
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


def kill_the_leader(load: Load, crew: Crew) -> float:
    """Kill whoever publishes, and return after how many seconds somebody else did."""
    leader = crew.one_leader()
    others = [number for number in range(WORKERS) if number != leader]
    grow(load)
    process = crew.pid(leader)
    assert process is not None
    os.kill(process, signal.SIGKILL)
    before, began = max(map(crew.published, others)), time.monotonic()
    wait_until(lambda: max(map(crew.published, others)) > before)
    return time.monotonic() - began


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
                assert kill_the_leader(load, crew) < TAKEOVER_SECONDS
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
