"""Evidence packs as jobs: asked for, made in the background one at a time, kept as files, listed.

A job first closes the evidence it will use: the request is recorded, the service's own heartbeat says that its stream
is known up to now, and a checkpoint that covers both is awaited. The pack is then made from that checkpoint alone.
What became of it is recorded as well, with its digest. A job that was under way when the service stopped has failed.

A job is run by the process that took the order, under a lease of its own. INVARIANT: no process ends another's job: one
that is unfinished has failed only once its lease can be had, which is when its process stopped or is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import structlog
from sqlalchemy import Engine, insert, select, update

from evidence.assemble import AnchoredCopy, AssembledPack, PackRequest, PackSources, assemble
from evidence.catalogue import framework_names, load_frameworks
from evidence.population import Period
from ledger.clock import Clock
from ledger.database import translated, writing
from ledger.errors import AnchorError, EvidenceError, LedgerError, NotFoundError, OverloadedError, TallystickError
from ledger.ports import Lease
from ledger.publisher import Published
from ledger.publishing_turns import SoleLease
from ledger.records import Record, new_record_id
from ledger.tasks import Repeating, end
from ledger.trust import TrustPolicy
from policies.bundles import Bundle, parse_archive
from reports.render import render_pdf
from service import tables
from service.auth import Caller
from service.failures import describe
from service.keyset import trust_policy
from service.pack_start import start_checkpoint
from service.version import VERSION

if TYPE_CHECKING:
    from service.wiring.services import Services

__all__ = ["PACK_LEASE_SECONDS", "PackJob", "PackJobs", "PackOrder", "PackStore"]

_log = structlog.get_logger()

PACK_LEASE_SECONDS: Final = 30.0
"""How long a job stands as unfinished after its process is gone."""

_MAX_WAITING: Final = 16
_UNFINISHED: Final = ("queued", "running")
_ANCHOR_KINDS: Final = {"directory": "directory", "s3": "S3 Object Lock"}
_STEPS: Final = {
    "walk": "reading the log",
    "re-perform": "deciding again",
    "prove": "proving records",
    "render": "laying out the report",
}
"""What the parts of the work are called to whoever waits for it."""
_INTERRUPTED: Final = "the service stopped while the pack was made; ask again"


class PackOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody asked for.

    Attributes:
        from_ms: Start of the period, POSIX milliseconds.
        to_ms: End of the period, exclusive.
        frameworks: Names of catalogues; empty for all.
        title: For the cover.
        zone: IANA zone in which the report prints times.
    """

    from_ms: int
    to_ms: int
    frameworks: tuple[str, ...] = ()
    title: str = "Evidence pack"
    zone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackJob:
    """A job, as the database has it.

    Attributes:
        job_id: Its id.
        state: ``queued``, ``running``, ``done`` or ``failed``.
        step: What is being done, in words.
        order: What was asked for.
        requested_by: Pseudonym of whoever asked.
        created_ms: When.
        finished_ms: When it ended, or None.
        pack_id: Id of the evidence, once it is there.
        leaves: Size of the checkpoint that the pack is made from.
        zip_sha256: Digest of the pack.
        pdf_sha256: Digest of the report alone.
        error: Why it failed.
    """

    job_id: str
    state: str
    step: str
    order: PackOrder
    requested_by: str
    created_ms: int
    finished_ms: int | None
    pack_id: str | None
    leaves: int | None
    zip_sha256: str | None
    pdf_sha256: str | None
    error: str | None


class PackStore:
    """Jobs in the database and their files in a directory; safe for any thread."""

    def __init__(self, engine: Engine, directory: Path, log_id: str) -> None:
        """Keep the packs of one log."""
        self._engine = engine
        self._directory = directory / log_id
        self._log_id = log_id

    def path(self, job_id: str, suffix: str) -> Path:
        """Return where a job's file is: ``zip`` or ``pdf``."""
        return self._directory / f"{job_id}.{suffix}"

    def make_directory(self) -> None:
        """Make the directory for files.

        Raises:
            EvidenceError: It cannot be made.
        """
        try:
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise EvidenceError(f"the packs' directory cannot be made: {error.strerror}") from error

    def add(self, job_id: str, order: PackOrder, requested_by: str, created_ms: int) -> None:
        """Keep a new job."""
        row = {
            "log_id": self._log_id,
            "job_id": job_id,
            "state": "queued",
            "step": "waiting",
            "request": msgspec.json.encode(order).decode(),
            "requested_by": requested_by,
            "created_ms": created_ms,
        }
        with translated("store a pack job"), writing(self._engine) as connection:
            connection.execute(insert(tables.pack_jobs), row)

    def change(self, job_id: str, **columns: object) -> None:
        """Note a job's progress."""
        mine = tables.pack_jobs.c
        statement = update(tables.pack_jobs).where(mine.log_id == self._log_id, mine.job_id == job_id).values(**columns)
        with translated("note a pack job's progress"), writing(self._engine) as connection:
            connection.execute(statement)

    def unfinished(self) -> list[str]:
        """Return the ids of jobs that have not ended."""
        mine = tables.pack_jobs.c
        query = select(mine.job_id).where(mine.log_id == self._log_id, mine.state.in_(_UNFINISHED))
        with translated("read unfinished pack jobs"), self._engine.connect() as connection:
            return [job_id for (job_id,) in connection.execute(query)]

    def fail_unfinished(self, now_ms: int, job_ids: Sequence[str]) -> None:
        """Note that nobody works on these jobs any more; those that ended meanwhile stay as they are."""
        mine = tables.pack_jobs.c
        statement = (
            update(tables.pack_jobs)
            .where(mine.log_id == self._log_id, mine.job_id.in_(job_ids), mine.state.in_(_UNFINISHED))
            .values(state="failed", error=_INTERRUPTED, finished_ms=now_ms)
        )
        with translated("note interrupted pack jobs"), writing(self._engine) as connection:
            connection.execute(statement)

    def get(self, job_id: str) -> PackJob:
        """Return a job.

        Raises:
            NotFoundError: There is none of that id.
            StorageError: The database failed.
        """
        found = self._select(tables.pack_jobs.c.job_id == job_id)
        if not found:
            raise NotFoundError(f"there is no evidence pack {job_id}")
        return found[0]

    def newest(self, limit: int = 100) -> list[PackJob]:
        """Return the newest jobs, newest first."""
        return self._select(limit=limit)

    def made(self) -> list[PackJob]:
        """Return every job that made a pack, newest first."""
        return self._select(tables.pack_jobs.c.state == "done", limit=None)

    def _select(self, *conditions: object, limit: int | None = 1) -> list[PackJob]:
        mine = tables.pack_jobs.c
        query = select(tables.pack_jobs).where(mine.log_id == self._log_id, *conditions)  # type: ignore[arg-type]  # column expressions
        ordered = query.order_by(mine.created_ms.desc(), mine.job_id.desc()).limit(limit)
        with translated("read pack jobs"), self._engine.connect() as connection:
            rows = connection.execute(ordered).all()
        return [
            PackJob(
                job_id=row.job_id,
                state=row.state,
                step=row.step,
                order=msgspec.json.decode(row.request, type=PackOrder),
                requested_by=row.requested_by,
                created_ms=row.created_ms,
                finished_ms=row.finished_ms,
                pack_id=row.pack_id,
                leaves=row.leaves,
                zip_sha256=row.zip_sha256,
                pdf_sha256=row.pdf_sha256,
                error=row.error,
            )
            for row in rows
        ]


class PackJobs:
    """Makes packs for one service, one at a time. Methods belong to one event loop.

    Attributes:
        store: Where jobs are kept.
        work: What is repeated.
    """

    def __init__(
        self, store: PackStore, clock: Clock, *, lease: Callable[[str], Lease] = lambda _job_id: SoleLease()
    ) -> None:
        """Prepare; `start` begins the work.

        Args:
            store: Where jobs are kept.
            clock: For the jobs' times.
            lease: Returns the lease of a job; needed where other processes make packs of this log too.
        """
        self.store = store
        self._lease = lease
        self._held: dict[str, Lease] = {}
        self.work = Repeating(
            "watching packs",
            self._keep_watch,
            first_seconds=PACK_LEASE_SECONDS / 3,
            retry_seconds=PACK_LEASE_SECONDS / 3,
            on_failure=lambda error: _log.warning("pack_jobs_not_watched", error=type(error).__name__),
        )
        self._clock = clock
        self._services: Services | None = None
        self._one_at_a_time = asyncio.Semaphore(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._being_taken = 0
        self._steps: dict[str, str] = {}

    async def start(self, services: Services) -> None:
        """Take up work for ``services``; unfinished jobs of an earlier run have failed."""
        self._services = services
        await asyncio.to_thread(self.store.make_directory)
        await asyncio.to_thread(self._fail_abandoned)
        self.work.start()

    async def stop(self) -> None:
        """End what is under way; the next start, or another process, notes it as failed."""
        await self.work.stop()
        await end(*self._tasks)
        for job_id in tuple(self._held):
            await asyncio.to_thread(self._let_go, job_id)

    async def _keep_watch(self) -> float:
        """Hold the leases of the jobs here, and note those that other processes left behind."""
        await asyncio.to_thread(self._hold_on)
        await asyncio.to_thread(self._fail_abandoned)
        return PACK_LEASE_SECONDS / 3

    def _hold_on(self) -> None:
        for lease in tuple(self._held.values()):
            lease.take()

    def _fail_abandoned(self) -> None:
        # A job stands among the unfinished only after its lease was taken: one that can be had was left behind.
        abandoned = [
            job_id for job_id in self.store.unfinished() if job_id not in self._held and self._lease(job_id).take()
        ]
        if abandoned:
            self.store.fail_unfinished(self._clock.now_ms(), abandoned)

    def _let_go(self, job_id: str) -> None:
        lease = self._held.pop(job_id, None)
        if lease is not None:
            with contextlib.suppress(LedgerError):
                lease.give_up()

    async def order(self, caller: Caller, order: PackOrder) -> PackJob:
        """Take an order; the job runs on its own.

        Raises:
            EvidenceError: The order cannot be met: an unknown framework or zone, an empty period.
            OverloadedError: Too many jobs wait; nothing was taken.
            StorageError: The database failed.
        """
        services = self._require()
        Period(order.from_ms, order.to_ms)  # refuses what is none, before anything is recorded
        _check_zone(order.zone)
        unknown = sorted(set(order.frameworks) - set(framework_names()))
        if unknown:
            raise EvidenceError(f"no framework {', '.join(unknown)}; there are {', '.join(framework_names())}")
        if len(self._tasks) + self._being_taken >= _MAX_WAITING:
            raise OverloadedError(f"{_MAX_WAITING} packs are being made; ask again later")
        self._being_taken += 1
        try:
            job_id = await self._take(services, caller, order)
        finally:
            self._being_taken -= 1
        return await asyncio.to_thread(self.store.get, job_id)

    async def _take(self, services: Services, caller: Caller, order: PackOrder) -> str:
        now_ms = self._clock.now_ms()
        job_id = new_record_id(now_ms, secrets.token_bytes(10))
        actor = services.access.actor(caller)
        # Recorded first: a job that nobody may run, because nobody could record it, must not stand in the list.
        await services.access.record([services.access.draft(caller, "request_pack", "pack", target_id=job_id)])
        lease = self._lease(job_id)
        await asyncio.to_thread(lease.take)
        self._held[job_id] = lease
        try:
            await asyncio.to_thread(self.store.add, job_id, order, actor, now_ms)
        except BaseException:
            del self._held[job_id]
            raise
        task = asyncio.create_task(self._run(caller, job_id, order, actor), name=f"pack-{job_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job_id

    def _require(self) -> Services:
        if self._services is None:
            raise EvidenceError("packs are not made before the service has started")
        return self._services

    async def _run(self, caller: Caller, job_id: str, order: PackOrder, actor: str) -> None:
        try:
            await self._run_to_its_end(caller, job_id, order, actor)
        except LedgerError as error:
            # How the job ended could not be noted. The list shows it as running; the next start notes that it failed.
            _log.error("pack_end_not_noted", job_id=job_id, **describe(error))
        await asyncio.to_thread(self._let_go, job_id)

    async def _run_to_its_end(self, caller: Caller, job_id: str, order: PackOrder, actor: str) -> None:
        services = self._require()
        async with self._one_at_a_time:
            try:
                made = await self._make(services, job_id, order, actor)
                # INVARIANT: that a pack was made, and which, is recorded before anybody can have it.
                draft = services.access.draft(
                    caller,
                    "make_pack",
                    "pack",
                    target_id=job_id,
                    digest=made.sha256,
                    items=made.summary.population.records,
                )
                await services.access.record([draft])
            except TallystickError as error:
                await self._failed(services, caller, job_id, str(error))
                return
            except Exception as error:  # noqa: BLE001  # a background job has nobody above it: the job says that it failed
                _log.error("pack_failed", job_id=job_id, **describe(error))
                await self._failed(services, caller, job_id, "an unexpected error; see the service's log")
                return
            await self._ended(
                job_id,
                state="done",
                pack_id=made.pack_id,
                leaves=made.summary.tree_size,
                zip_sha256=made.sha256,
                pdf_sha256=hashlib.sha256(made.pdf).hexdigest(),
            )

    async def _failed(self, services: Services, caller: Caller, job_id: str, reason: str) -> None:
        await self._ended(job_id, state="failed", error=reason)
        draft = services.access.draft(caller, "make_pack", "pack", target_id=job_id, result="failed")
        try:
            await services.access.record([draft])
        except LedgerError as error:
            # The job itself says that it failed; that nothing could be recorded may well be why.
            _log.warning("pack_failure_not_recorded", job_id=job_id, error=type(error).__name__)

    async def _ended(self, job_id: str, **columns: object) -> None:
        self._steps.pop(job_id, None)
        change = {"step": "ended", "finished_ms": self._clock.now_ms(), **columns}
        await asyncio.to_thread(lambda: self.store.change(job_id, **change))

    async def _make(self, services: Services, job_id: str, order: PackOrder, actor: str) -> AssembledPack:
        await asyncio.to_thread(self.store.change, job_id, state="running", step="closing the evidence")
        await services.heartbeat()
        size = await asyncio.to_thread(services.sequenced_size)
        published = await services.publishing.wait_for(size, services.settings.proof_timeout_seconds)
        trust = _trust(services)
        start = await asyncio.to_thread(start_checkpoint, services, trust, order.from_ms, published.head.size)
        request = PackRequest(
            title=order.title,
            from_ms=order.from_ms,
            to_ms=order.to_ms,
            frameworks=load_frameworks(order.frameworks or framework_names()),
            requested_by=actor,
            requested_ms=self._clock.now_ms(),
            software=f"tallystick {VERSION}",
            zone=order.zone,
            start_checkpoint=start,
            simulated=services.identity.simulated,
        )
        sources = PackSources(
            prover=services.prover,
            checkpoint=published.checkpoint,
            trust=trust,
            anchors=await asyncio.to_thread(_anchored, services, published),
            bundle=_bundles(services),
            open_request=_requests(services),
            evaluator=services.evaluator,
            clock=self._clock,
        )
        made = await assemble(
            request,
            sources,
            self.store.path(job_id, "zip"),
            render=render_pdf,
            signers=services.pack_signers,
            progress=self._progress(job_id),
        )
        await asyncio.to_thread(self.store.path(job_id, "pdf").write_bytes, made.pdf)
        return made

    def step(self, job: PackJob) -> str:
        """Return what is being done for a job, in words; kept in memory while it runs."""
        return self._steps.get(job.job_id, job.step)

    def _progress(self, job_id: str) -> Callable[[str, int, int], None]:
        def progress(step: str, done: int, total: int) -> None:
            self._steps[job_id] = f"{_STEPS.get(step, step)}: {done} of {total}"

        return progress


def _check_zone(name: str) -> None:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the name of a folder of zones
        raise EvidenceError("the zone of the report's times is not an IANA zone") from error


def _trust(services: Services) -> TrustPolicy:
    """Return the policy that goes into a pack: our keys, and our witnesses, of whom it demands nothing."""
    witnesses = {} if services.witness_policy is None else services.witness_policy.witnesses
    return replace(trust_policy(services.keys), witnesses=witnesses)


def _anchored(services: Services, published: Published) -> tuple[AnchoredCopy, ...]:
    """Return the copy of this very checkpoint, made now if it was not yet; if the anchor fails, the newest before it.

    The pack then shows by how much the anchor lags, and the report says so.
    """
    kind = _ANCHOR_KINDS[services.settings.effective_anchor.partition(":")[0]]
    try:
        receipt = services.anchor.put(services.identity.log_id, published.head.size, published.checkpoint)
    except AnchorError:
        newest = services.publishing.anchor_status.receipt
        return () if newest is None else (AnchoredCopy(kind, newest),)
    return (AnchoredCopy(kind, receipt),)


def _bundles(services: Services) -> Callable[[str], Bundle]:
    def bundle(revision: str) -> Bundle:
        return parse_archive(services.bundle_archives.get(services.identity.log_id, revision))

    return bundle


def _requests(services: Services) -> Callable[[Record], bytes]:
    def open_request(record: Record) -> bytes:
        return services.vault.open(record, "request").payload

    return open_request
