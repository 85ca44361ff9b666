"""The spool under ``kill -9``: whatever was said to be durable is there afterwards, numbered without a gap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ledger.bodies import Decision, Outcome
from ledger.records import decode_entry
from tests.support.repository import ROOT
from tests.support.spools import open_spool

WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path

    from tests.support.spools import batch, decision, denial, open_spool, outcome, record_id

    state, spool = open_spool(Path(sys.argv[1]), max_bytes=1 << 30)
    first = int(sys.argv[2])
    for number in range(first, first + 1_000_000, 10):
        permit = batch(decision(payload=b"x" * 500), denial(), first=number)
        close = batch(outcome(record_id(number)), first=number + 2)
        for records in spool.append([permit]) + spool.append([close]):
            print(*(f"{record.seq}:{record.record_id}" for record in records), flush=True)
        if number % 50 == 0:
            spool.acknowledge(spool.pending(max_records=3, max_bytes=1 << 20))
    """
)


def run_and_kill(directory: Path, first: int, lines: int) -> list[tuple[int, str]]:
    """Start a writer, kill it after some acknowledged lines, and return what it had said was durable."""
    command = [sys.executable, "-c", WRITER, str(directory), str(first)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(lines)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.readlines()
    whole = [line for line in said if line.endswith("\n")]
    pairs = [pair.split(":") for line in whole for pair in line.split()]
    return [(int(seq), record_id) for seq, record_id in pairs]


@pytest.mark.parametrize("lines", [1, 2, 3, 10, 25, 60])
def test_nothing_that_was_said_to_be_durable_is_lost_by_a_kill(tmp_path: Path, lines: int) -> None:
    said: list[tuple[int, str]] = []
    for round_number in range(2):
        said += run_and_kill(tmp_path / "state", 1_000_000 * (round_number + 1), lines)
        state, spool = open_spool(tmp_path / "state")
        waiting = spool.pending(max_records=100_000, max_bytes=1 << 30)
        numbers = [record.seq for record in waiting]
        (last,) = state.read("SELECT value FROM meta WHERE name = 'seq'")[0]
        released = last - len(numbers)  # the writer acknowledged these; the rest waits, without a gap
        assert numbers == list(range(released + 1, last + 1))
        assert last >= max(seq for seq, _ in said)
        assert len(dict(said)) == len(said)  # no number was given twice
        still = {record.seq: record.record_id for record in waiting}
        assert all(still[seq] == record_id for seq, record_id in said if seq > released)
        bodies = {record.record_id: decode_entry(record.entry) for record in waiting}
        permits = {
            key for key, one in bodies.items() if isinstance(one.body, Decision) and one.body.decision == "PERMIT"
        }
        closed = {one.body.decision_id for one in bodies.values() if isinstance(one.body, Outcome)}
        assert permits - closed <= {call.decision_id for call in spool.open_calls()}
        assert closed.isdisjoint(call.decision_id for call in spool.open_calls())
        assert [one.running_count for one in bodies.values()] == sorted(one.running_count for one in bodies.values())
        state.close()
