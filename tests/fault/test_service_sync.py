"""Invariant 1 over HTTP: a sync of the database's log ends before each 201 begins. Watched from outside, call by call.

The same watch must fail where SQLite is told not to sync; else it would prove nothing. The watch itself is tested in
`test_sync_before_acknowledgement`.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import httpx
import msgspec

from ledger.notes import encode_base64
from ledger.records import encode_record
from tests.support.commands import PROGRAM, Installation, Served, answering
from tests.support.ledger import Enforcer
from tests.support.repository import ROOT
from tests.support.strace import Call, parse, said_too_early, traced

COUNT = 12
ANSWER = '"HTTP/1.1 201'
CARELESS = [sys.executable, "-m", "tests.support.careless_service", "serve"]

# Nothing but what is asked for is written in the meantime: no checkpoint, no heartbeat.
QUIET = {"CHECKPOINT_INTERVAL_SECONDS": "3600", "HEARTBEAT_INTERVAL_SECONDS": "3600"}


def append(served: Served, admin: str) -> None:
    """Introduce an enforcer and append records one after the other; each is a request of its own."""
    enforcer = Enforcer("gateway-1", seed=21, simulated=False, time_ms=time.time_ns() // 1_000_000)
    key = encode_base64(bytes(enforcer.key.verify_key))
    with httpx.Client(base_url=served.url, timeout=30, trust_env=False) as client:
        body = {"enforcer_id": enforcer.enforcer_id, "public_key": key}
        introduced = client.post("/v1/enforcers", json=body, headers={"authorization": f"Bearer {admin}"})
        assert introduced.status_code == 201
        headers = {"authorization": f"Bearer {introduced.json()['token']}", "content-type": "application/json"}
        for _ in range(COUNT):
            record = msgspec.Raw(encode_record(enforcer.record(enforcer.heartbeat())))
            answer = client.post("/v1/decisions", content=msgspec.json.encode({"record": record}), headers=headers)
            assert answer.status_code == 201


def is_answer(call: Call) -> bool:
    return call.name not in ("fsync", "fdatasync") and ANSWER in call.arguments


def watched(folder: Path, *command: str | Path) -> list[Call]:
    """Run the service under strace, append, end it in order, and return its system calls."""
    installation = Installation(folder=folder, more=QUIET)
    installation.make_keys()
    started = installation.start([*traced(folder / "trace"), *command], PYTHONPATH=str(ROOT))
    with answering(started, "serving") as served:
        append(served, installation.token("admin"))
        started.signal_all(signal.SIGTERM)
        assert started.wait() == 0, started.text
    calls = parse((folder / "trace").read_text(errors="replace"))
    # The introduction of the enforcer is an answer, too.
    assert len([call for call in calls if is_answer(call)]) == COUNT + 1
    return calls


def early(calls: list[Call], folder: Path) -> list[Call]:
    database = folder / "data" / "ledger.db"
    files = {str(database), f"{database}-wal"}
    assert any(call.path == f"{database}-wal" for call in calls)
    return said_too_early(calls, is_answer, files.__contains__)


def test_the_database_is_synced_before_each_201(tmp_path):
    assert early(watched(tmp_path, PROGRAM, "serve"), tmp_path) == []


def test_the_watch_notices_a_service_whose_database_does_not_sync(tmp_path):
    calls = watched(tmp_path, *CARELESS)
    assert len(early(calls, tmp_path)) == COUNT + 1
