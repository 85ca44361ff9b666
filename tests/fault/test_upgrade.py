"""An upgrade from version 0.1 and restarts under load: nothing that was acknowledged is lost, before or after.

`tests/vectors/installations/0.1.0.tar.xz` is the folder of a service of version 0.1.0 as it left it: database, log
directory, anchor and keys of its own, with everything that its three enforcers had been told (`told.json`). Its keys
are worth nothing: they are in this repository.
"""

from __future__ import annotations

import base64
import json
import signal
import socket
import sqlite3
import tarfile
import threading
import time
from pathlib import Path

import pytest

from tests.support.commands import Installation
from tests.support.load import Load, Sender

FROZEN = Path(__file__).parents[1] / "vectors" / "installations" / "0.1.0.tar.xz"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Unpack the installation, and take up what its enforcers were told."""
    with tarfile.open(FROZEN) as archive:
        archive.extractall(tmp_path, filter="data")
    for key in (tmp_path / "keys").rglob("*"):
        key.chmod(0o700 if key.is_dir() else 0o600)
    told = json.loads((tmp_path / "told.json").read_text())
    load = Load(Installation(folder=tmp_path), told["auditor"], senders=[])
    load.checkpoints += [checkpoint.encode() for checkpoint in told["checkpoints"]]
    for number, kept in enumerate(told["senders"]):
        sender = Sender(number, gives_up=False, seconds=10)
        sender.resume(
            kept["token"],
            seq=kept["seq"],
            running_count=kept["running_count"],
            acknowledged={int(index): base64.b64decode(entry) for index, entry in kept["acknowledged"].items()},
        )
        load.senders.append(sender)
    return load


def judge(load: Load, url: str) -> None:
    """Check everything that anybody was ever told, by both versions."""
    load.check_history(load.check(url))


def audited(load: Load) -> dict[str, list[object]]:
    report: dict[str, list[object]] = json.loads(load.installation.do("audit", "--json"))
    return report


def test_version_0_1_is_taken_up_with_every_record_payload_and_checkpoint(load):
    before = load.acknowledged()
    assert len(before) > 256, "more than one bundle"
    with load.installation.serve() as served:
        load.check(served.url)
        load.append(served.url, lambda: load.count() > len(before) + 50, lambda: None)
        judge(load, served.url)
        served.started.signal(signal.SIGTERM)
        assert served.started.wait() == 0
    report = audited(load)
    assert report["findings"] == report["not_checked"] == []
    # Two payloads of each decision, those of version 0.1 among them, open under the keys of then.
    assert report["checked"]["payloads"] == 2 * load.count()


def test_restarts_under_load_across_the_upgrade_lose_nothing(load):
    """Senders go on without a pause while the service is stopped and started again; nobody tells them when."""
    enough = threading.Event()
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    sending = [threading.Thread(target=sender.send, args=(url, enough)) for sender in load.senders]
    for thread in sending:
        thread.start()
    installation = Installation(folder=load.installation.folder, more={"LISTEN": f"127.0.0.1:{port}"})
    for _ in range(3):
        count = load.count()
        with installation.serve() as served:
            deadline = time.monotonic() + 60
            while load.count() < count + 20 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert load.count() >= count + 20
            load.see_checkpoint(url)
            served.started.signal(signal.SIGTERM)
            assert served.started.wait() == 0
    with installation.serve() as served:
        enough.set()
        for thread in sending:
            thread.join(60)
            assert not thread.is_alive()
        judge(load, served.url)
        served.started.signal(signal.SIGTERM)
        assert served.started.wait() == 0
    report = audited(load)
    assert report["findings"] == []


def test_a_forgotten_process_of_version_0_1_writes_nothing_after_the_upgrade(load):
    with load.installation.serve() as served:
        served.started.signal(signal.SIGTERM)
        assert served.started.wait() == 0
    database = load.installation.folder / "data" / "ledger.db"
    with sqlite3.connect(database) as connection, pytest.raises(sqlite3.OperationalError, match=r"no column|no such"):
        # The first insert of version 0.1's sequencing transaction.
        connection.execute(
            "INSERT INTO pending_entries (log_id, leaf_index, entry) VALUES ('acme', 1000000, x'00')",
        )
    connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
