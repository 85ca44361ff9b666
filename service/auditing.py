"""The audit that a service runs beside its work: in a process of its own, of low priority, one among N services.

It is `tallystick audit --since last` of full depth, and now and then `--full`. It repairs nothing and stops nothing:
what it finds shows in readiness and metrics, and in the lease's report for every other process of the same log. An
audit that is stopped in the middle goes on the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
import structlog

from ledger.audit_report import AuditReport, Depth
from ledger.audit_state import AuditMemory
from ledger.audit_workers import AuditWorkers
from ledger.auditor import Auditor
from ledger.clock import Clock, SystemClock
from ledger.errors import ConfigError, LedgerError, MalformedError, StorageError, TallystickError
from ledger.ports import Lease
from ledger.tasks import Repeating, end
from ledger.trust import TrustPolicy, parse_trust_policy
from service.settings import Settings

if TYPE_CHECKING:
    from service.wiring.installations import AuditParts

__all__ = [
    "AUDIT_LEASE",
    "AUDIT_LEASE_SECONDS",
    "AuditLoop",
    "AuditRunner",
    "AuditStatus",
    "AuditTask",
    "ProcessAuditRunner",
    "audit_notes",
    "installation_auditor",
    "read_trust",
]

AUDIT_LEASE: Final = "audit"
AUDIT_LEASE_SECONDS: Final = 120.0
_RENEW_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.25
_FIRST_SECONDS: Final = 600.0
"""A log that was never audited is audited so long after a start, when the service has settled."""
_RETRY_SECONDS: Final = 600.0
_NICENESS: Final = 15

_log = structlog.get_logger()


def read_trust(path: Path) -> TrustPolicy:
    """Read a trust policy file.

    Raises:
        ConfigError: It cannot be read.
        MalformedError: It is not a trust policy.
    """
    try:
        return parse_trust_policy(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the trust policy cannot be read: {error.strerror}") from error


def audit_notes(settings: Settings, depth: Depth) -> AuditMemory:
    """Return where the audits of an installation remember how far they came."""
    return AuditMemory(settings.data_dir / "audit", settings.log_id, depth)


def installation_auditor(
    settings: Settings,
    parts: AuditParts,
    policy: TrustPolicy,
    *,
    depth: Depth,
    known: list[bytes],
    memory: AuditMemory | None,
    workers: AuditWorkers | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Auditor:
    """Return an auditor over an installation, with every checkpoint that its anchor keeps."""

    def anchored(above: int) -> Iterator[bytes]:
        # Every copy: of a log that was put back and published anew, only those from before contradict it.
        sizes = parts.anchor.sizes(settings.log_id, above=above)
        return (parts.anchor.get(settings.log_id, size) for size in sizes)

    return Auditor(
        settings.log_id,
        parts.tiles,
        policy,
        catalog=parts.catalog,
        vault=parts.vault,
        other_checkpoints=known,
        anchored_checkpoints=anchored,
        progress=progress,
        depth=depth,
        workers=workers,
        memory=memory,
        now_ms=SystemClock().now_ms(),
    )


class AuditStatus(msgspec.Struct, kw_only=True, frozen=True):
    """What the last audits of a log came to.

    Attributes:
        finished_ms: When the last one ended, POSIX milliseconds, or None.
        clean_ms: When the last one that found nothing ended, or None.
        size: Leaves of the tree that the last one audited.
        findings: What the last one found.
        failure: Why the last one could not be finished, or None.
    """

    finished_ms: int | None = None
    clean_ms: int | None = None
    size: int = 0
    findings: int = 0
    failure: str | None = None


class AuditTask(msgspec.Struct, frozen=True):
    """One audit to be run.

    Attributes:
        full_before_ms: Read everything, if leaf 0 was last read before this time; POSIX milliseconds.
    """

    full_before_ms: int


class AuditResult(msgspec.Struct, frozen=True):
    """What one audit came to.

    Attributes:
        size: Leaves of the tree, 0 if there is none.
        read_from: First leaf that was read.
        findings: How much was found.
        checks: Which checks found it, with the number of each.
    """

    size: int
    read_from: int
    findings: int
    checks: dict[str, int]

    @classmethod
    def of(cls, report: AuditReport) -> AuditResult:
        """Return what a report comes to."""
        checks: dict[str, int] = {}
        for finding in report.findings:
            checks[finding.check] = checks.get(finding.check, 0) + 1
        return cls(report.head.size if report.head else 0, report.read_from, len(report.findings), checks)


class AuditRunner(Protocol):
    """Runs an audit somewhere."""

    def run(self, task: AuditTask, *, stopped: Callable[[], bool]) -> AuditResult:
        """Run it, in a thread that may wait; ``stopped`` is asked now and then.

        Raises:
            TallystickError: It could not be finished.
        """
        ...


class ProcessAuditRunner:
    """Runs audits in processes of low priority."""

    def __init__(self, settings: Settings, secret: str | None) -> None:
        """Audit the installation that the settings name; the secret is the passphrase of its key files."""
        self._settings = settings
        self._secret = secret

    def run(self, task: AuditTask, *, stopped: Callable[[], bool]) -> AuditResult:
        """See `AuditRunner.run`."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_audit, args=(theirs, self._settings, self._secret, task), daemon=True)
        process.start()
        theirs.close()
        try:
            while not ours.poll(_LOOK_SECONDS):
                if stopped():
                    raise StorageError("the audit was stopped; the next one goes on")
            answer = ours.recv()
        except EOFError as error:
            raise StorageError("the audit's process came to an end") from error
        finally:
            process.terminate()
            process.join()
            ours.close()
        if isinstance(answer, str):
            raise StorageError(answer)
        assert isinstance(answer, AuditResult)
        return answer


def _audit(answer: Connection, settings: Settings, secret: str | None, task: AuditTask) -> None:
    """Audit an installation and send what it came to, or why it could not be done."""
    from service.wiring.installations import open_for_audit

    os.nice(_NICENESS)
    try:
        parts = open_for_audit(settings, secret)
        memory = audit_notes(settings, Depth.FULL)
        _forget_before(memory, task.full_before_ms)
        policy = read_trust(settings.keys_dir / "trust.policy")
        auditor = installation_auditor(settings, parts, policy, depth=Depth.FULL, known=[], memory=memory)
        answer.send(AuditResult.of(auditor.audit()))
        parts.close()
    except TallystickError as error:
        answer.send(str(error))


def _forget_before(memory: AuditMemory, begun_ms: int) -> None:
    """Forget what an audit remembers that began before a time; one that was broken off since goes on."""
    with memory.held():
        try:
            state = memory.load()
        except MalformedError:
            # The audit itself says so, and reads everything.
            return
        if state is not None and state.begun_ms < begun_ms:
            memory.forget()


class AuditLoop:
    """Audits a log at an interval, if no other process does. Methods belong to one event loop.

    Attributes:
        work: What is repeated.
    """

    def __init__(
        self,
        runner: AuditRunner,
        lease: Lease,
        clock: Clock,
        *,
        interval_seconds: float,
        full_interval_seconds: float,
        first_seconds: float = _FIRST_SECONDS,
        retry_seconds: float = _RETRY_SECONDS,
    ) -> None:
        """Prepare; `start` begins to wait for the first audit. An interval of 0 seconds audits never."""
        self._runner = runner
        self._lease = lease
        self._clock = clock
        self._interval = interval_seconds
        self._full_interval = full_interval_seconds
        self._first = min(first_seconds, interval_seconds)
        self._retry = retry_seconds
        self._status = AuditStatus()
        self._wait = self._first
        self._stopped = False
        self.work = Repeating("auditing", self._turn, retry_seconds=retry_seconds)

    @property
    def enabled(self) -> bool:
        """Whether this service audits at all."""
        return self._interval > 0

    @property
    def interval_seconds(self) -> float:
        """Seconds from one audit to the next."""
        return self._interval

    @property
    def status(self) -> AuditStatus:
        """What the last audits came to, of whichever process."""
        return self._status

    async def start(self) -> None:
        """Begin to audit."""
        if self.enabled:
            self.work.start()

    async def stop(self) -> None:
        """Stop; an audit that is under way is broken off, and goes on another time."""
        self._stopped = True
        await self.work.stop()

    async def _turn(self) -> float:
        await self._learn()
        finished = self._status.finished_ms
        due = self._wait
        if finished is not None and self._status.failure is None:
            due = max(0.0, self._interval - (self._clock.now_ms() - finished) / 1000)
        # Looked at in between: another process may have audited meanwhile.
        await asyncio.sleep(min(due, self._retry))
        if due <= self._retry:
            await self._attempt()
            self._wait = self._retry
        return 0.0

    async def _learn(self) -> None:
        """Take up what the last process that audited has told."""
        try:
            report = (await asyncio.to_thread(self._lease.look)).report
            if report:
                self._status = msgspec.json.decode(report, type=AuditStatus)
        except (LedgerError, msgspec.MsgspecError) as error:
            _log.warning("audit_status_unknown", error=type(error).__name__)

    async def _attempt(self) -> None:
        try:
            if not await asyncio.to_thread(self._lease.take):
                return
            renewing = asyncio.create_task(self._renew(), name="audit lease")
            try:
                await self._audit()
            finally:
                await end(renewing)
            await asyncio.to_thread(self._lease.take, msgspec.json.encode(self._status).decode())
            await asyncio.to_thread(self._lease.give_up)
        except LedgerError as error:
            _log.warning("audit_lease_failed", error=type(error).__name__)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            with contextlib.suppress(LedgerError):
                await asyncio.to_thread(self._lease.take)

    async def _audit(self) -> None:
        before = self._status
        task = AuditTask(self._clock.now_ms() - int(self._full_interval * 1000))
        stopped = False

        def told_to_stop() -> bool:
            return stopped or self._stopped

        try:
            result = await asyncio.to_thread(self._runner.run, task, stopped=told_to_stop)
        except asyncio.CancelledError:
            stopped = True
            raise
        except TallystickError as error:
            _log.error("audit_failed", error=type(error).__name__)
            self._status = msgspec.structs.replace(before, failure=str(error))
            return
        done_ms = self._clock.now_ms()
        clean = result.findings == 0
        self._status = AuditStatus(
            finished_ms=done_ms,
            clean_ms=done_ms if clean else before.clean_ms,
            size=result.size,
            findings=result.findings,
        )
        if clean:
            _log.info("audit_clean", size=result.size, read_from=result.read_from)
        else:
            _log.error("audit_findings", size=result.size, findings=result.findings, checks=result.checks)
