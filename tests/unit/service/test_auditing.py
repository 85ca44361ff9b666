"""The audit in the background: when it runs, who of several runs it, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ledger.audit_report import Depth
from ledger.audit_state import AuditMemory
from ledger.auditor import Auditor
from ledger.clock import SimulatedClock
from ledger.errors import StorageError
from ledger.ports import Lease, LeaseState
from ledger.stores.memory_leases import LeaseTable, MemoryLease
from service.auditing import AuditLoop, AuditResult, AuditTask, _forget_before
from tests.support.ledger import LOG_ID, NOW_MS, EmbeddedLedger, pending

CLEAN = AuditResult(size=700, read_from=0, findings=0, checks={})
FOUND = AuditResult(size=800, read_from=512, findings=2, checks={"leaf": 2})


class Scripted:
    """Answers as it is told, one after the other, and then waits until it is stopped."""

    def __init__(self, *answers: AuditResult | Exception) -> None:
        self.answers = list(answers)
        self.tasks: list[AuditTask] = []
        self.was_stopped = False

    def run(self, task: AuditTask, *, stopped: Callable[[], bool]) -> AuditResult:
        self.tasks.append(task)
        if not self.answers:
            while not stopped():
                pass
            self.was_stopped = True
            raise StorageError("stopped")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def a_table() -> LeaseTable:
    return LeaseTable(SimulatedClock(NOW_MS))


def a_lease(table: LeaseTable | None = None, holder: str = "one") -> Lease:
    return MemoryLease(table or a_table(), LOG_ID, "audit", holder=holder, seconds=60)


def a_loop(runner: Scripted, lease: Lease | None = None, **changes: float) -> AuditLoop:
    times = {"interval_seconds": 0.02, "full_interval_seconds": 3600.0, "first_seconds": 0.0, "retry_seconds": 0.01}
    return AuditLoop(runner, lease or a_lease(), SimulatedClock(NOW_MS), **{**times, **changes})


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.005)


def test_a_clean_audit_is_told_with_its_time_and_size():
    async def go() -> None:
        loop = a_loop(Scripted(CLEAN), interval_seconds=3600.0)
        await loop.start()
        await until(lambda: loop.status.finished_ms is not None)
        await loop.stop()
        assert (loop.status.clean_ms, loop.status.size, loop.status.findings) == (NOW_MS, 700, 0)

    asyncio.run(go())


def test_findings_are_told_and_the_last_clean_audit_is_not_forgotten():
    async def go() -> None:
        clock = SimulatedClock(NOW_MS)
        runner = Scripted(CLEAN, FOUND)
        loop = AuditLoop(
            runner, a_lease(), clock, interval_seconds=1, full_interval_seconds=9, first_seconds=0, retry_seconds=0.01
        )
        await loop.start()
        await until(lambda: loop.status.clean_ms is not None)
        clock.advance(5000)
        await until(lambda: loop.status.findings == 2)
        await loop.stop()
        assert (loop.status.clean_ms, loop.status.finished_ms) == (NOW_MS, NOW_MS + 5000)

    asyncio.run(go())


def test_an_audit_that_could_not_be_finished_is_told_and_tried_again():
    async def go() -> None:
        runner = Scripted(StorageError("the bucket does not answer"), CLEAN)
        loop = a_loop(runner, interval_seconds=3600.0)
        await loop.start()
        await until(lambda: loop.status.failure is not None)
        assert loop.status.failure == "the bucket does not answer"
        await until(lambda: loop.status.clean_ms is not None)
        await loop.stop()
        assert loop.status.failure is None
        assert len(runner.tasks) == 2

    asyncio.run(go())


def test_an_interval_of_nothing_audits_never():
    async def go() -> None:
        runner = Scripted(CLEAN)
        loop = a_loop(runner, interval_seconds=0.0)
        await loop.start()
        await asyncio.sleep(0.05)
        await loop.stop()
        assert not loop.enabled
        assert runner.tasks == []

    asyncio.run(go())


def test_of_two_processes_one_audits_and_the_other_learns_what_it_found():
    async def go() -> None:
        table, runners = a_table(), [Scripted(FOUND), Scripted(FOUND)]
        loops = [
            a_loop(runner, a_lease(table, holder), interval_seconds=3600.0)
            for runner, holder in zip(runners, ("one", "two"), strict=True)
        ]
        await loops[0].start()
        await until(lambda: loops[0].status.findings == 2)
        await loops[1].start()
        await until(lambda: loops[1].status.findings == 2)
        for loop in loops:
            await loop.stop()
        assert [len(runner.tasks) for runner in runners] == [1, 0]

    asyncio.run(go())


def test_while_another_process_audits_nobody_else_does():
    async def go() -> None:
        table = a_table()
        assert a_lease(table, "another").take()
        runner = Scripted(CLEAN)
        loop = a_loop(runner, a_lease(table))
        await loop.start()
        await asyncio.sleep(0.1)
        await loop.stop()
        assert runner.tasks == []

    asyncio.run(go())


def test_a_service_that_stops_breaks_the_audit_off():
    async def go() -> None:
        runner = Scripted()
        loop = a_loop(runner)
        await loop.start()
        await until(lambda: bool(runner.tasks))
        await loop.stop()
        await until(lambda: runner.was_stopped)

    asyncio.run(go())


class Unreadable(MemoryLease):
    """A lease whose store does not answer."""

    def look(self) -> LeaseState:
        raise StorageError("the database does not answer")

    def take(self, report: str | None = None) -> bool:  # noqa: ARG002  # the port's
        raise StorageError("the database does not answer")


def test_a_lease_that_cannot_be_asked_ends_no_loop():
    async def go() -> None:
        runner = Scripted(CLEAN)
        loop = a_loop(runner, Unreadable(a_table(), LOG_ID, "audit", holder="one", seconds=60))
        await loop.start()
        await asyncio.sleep(0.05)
        assert loop.work._task is not None
        assert not loop.work._task.done()
        await loop.stop()
        assert runner.tasks == []

    asyncio.run(go())


def test_a_report_that_cannot_be_read_counts_as_none():
    async def go() -> None:
        lease = a_lease()
        lease.take("not JSON")
        lease.give_up()
        loop = a_loop(Scripted(CLEAN), lease, interval_seconds=3600.0)
        await loop.start()
        await until(lambda: loop.status.clean_ms is not None)
        await loop.stop()

    asyncio.run(go())


@pytest.mark.parametrize(("before_ms", "kept"), [(NOW_MS, True), (NOW_MS + 1, False)])
def test_what_began_too_long_ago_is_forgotten_so_that_everything_is_read_at_times(tmp_path: Path, before_ms, kept):
    with EmbeddedLedger(tmp_path) as ledger:
        ledger.introduce()
        ledger.append(*(pending(ledger.service.record(ledger.service.heartbeat())) for _ in range(300)))
        ledger.publish()
        memory = AuditMemory(tmp_path / "notes", LOG_ID, Depth.RECORDS)
        Auditor(LOG_ID, ledger.tiles, ledger.policy, depth=Depth.RECORDS, memory=memory, now_ms=NOW_MS).audit()
        _forget_before(memory, before_ms)
        assert (memory.load() is not None) is kept
