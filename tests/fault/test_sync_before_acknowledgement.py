"""Invariant 1: durable first, then acknowledged. Watched from outside, system call by system call.

The same watch must fail where SQLite is told not to sync; else it would prove nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.append_child import MARKER
from tests.support.ledger import EmbeddedLedger
from tests.support.strace import Call, parse, said_too_early, trace

REPOSITORY = Path(__file__).parents[2]
COUNT = 12


@pytest.fixture
def database(tmp_path: Path) -> Path:
    EmbeddedLedger(tmp_path).close()
    return tmp_path / "ledger.db"


def is_answer(call: Call) -> bool:
    return call.name == "write" and call.descriptor == 1 and MARKER in call.arguments


def watched(database: Path, *options: str) -> list[Call]:
    command = [sys.executable, "-m", "tests.support.append_child", str(database), str(COUNT), *options]
    traced = trace(command, database.parent / "trace", cwd=REPOSITORY)
    assert traced.status == 0, traced.errors
    assert traced.output.count(MARKER) == COUNT
    assert len([call for call in traced.calls if is_answer(call)]) == COUNT
    return traced.calls


def early(calls: Sequence[Call], database: Path) -> list[Call]:
    files = {str(database), f"{database}-wal"}
    return said_too_early(calls, is_answer, files.__contains__)


def test_the_database_is_synced_before_each_acknowledgement(database):
    assert early(watched(database), database) == []


def test_the_watch_notices_a_database_that_is_not_synced(database):
    calls = watched(database, "--careless")
    assert len(early(calls, database)) == COUNT
    assert not any(call.name in ("fsync", "fdatasync") and str(database) in call.path for call in calls)


# --- the watch itself ------------------------------------------------------------------------------------------------

STORE = {"/db-wal"}


def judged(*lines: str) -> int:
    calls = parse("\n".join(lines))
    return len(said_too_early(calls, is_answer, STORE.__contains__))


WRITE = '7 pwrite64(4</db-wal>, "...", 24, 0) = 24'
SYNC = "7 fdatasync(4</db-wal>) = 0"
ANSWER = f'7 write(1<pipe:[1]>, "{MARKER} 0 x\\n", 17) = 17'


def test_a_sync_between_write_and_answer_is_in_time():
    assert judged(WRITE, SYNC, ANSWER) == 0
    assert judged(WRITE, SYNC, ANSWER, WRITE, WRITE, SYNC, ANSWER) == 0


@pytest.mark.parametrize(
    "lines",
    [
        (WRITE, ANSWER, SYNC),
        (SYNC, WRITE, ANSWER),
        (WRITE, SYNC, WRITE, ANSWER),
        (SYNC, ANSWER),
        (ANSWER,),
        (WRITE, SYNC.replace("= 0", "= -1 EIO (Input/output error)"), ANSWER),
        (WRITE, SYNC.replace("/db-wal", "/other"), ANSWER),
        (
            WRITE,
            "7 fdatasync(4</db-wal> <unfinished ...>",
            ANSWER.replace("7", "8", 1),
            "7 <... fdatasync resumed>) = 0",
        ),
        (
            "7 fdatasync(4</db-wal> <unfinished ...>",
            WRITE.replace("7", "8", 1),
            "7 <... fdatasync resumed>) = 0",
            ANSWER,
        ),
        (
            WRITE,
            "7 fdatasync(4</db-wal> <unfinished ...>",
            ANSWER.replace("7", "8", 1),
            "7 <... fdatasync resumed>) = ?",
        ),
    ],
)
def test_an_answer_that_no_sync_precedes_is_noticed(lines):
    assert judged(*lines) == 1


def test_a_sync_in_another_thread_that_ended_before_the_answer_is_in_time():
    begun, resumed = "8 fdatasync(4</db-wal> <unfinished ...>", "8 <... fdatasync resumed>) = 0"
    assert judged(WRITE, begun, resumed, ANSWER) == 0


def test_a_sync_serves_one_answer_and_not_the_next():
    assert judged(WRITE, SYNC, ANSWER, ANSWER) == 1
    assert judged(WRITE, SYNC, ANSWER, WRITE, ANSWER) == 1
