"""Impacts as jobs: asked for, worked on in the background one at a time, resumed after a restart.

The request is recorded before anything is opened: who asks, why, under which bundle, about which stretch of history.
What came of it is recorded with its digest, and with how many requests were opened, before anybody can have it.

A job is worked on by one process, under a lease of its own. Whoever finds an unfinished job whose lease can be had
takes it up where the last noted state left it, or from the beginning where that state is on another machine. A job that
was taken up too often has failed: what ends a process every time must not do so for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from evidence.population import Period
from ledger.bodies import AccessEvent
from ledger.clock import Clock
from ledger.errors import (
    ConfigError,
    ConflictError,
    EvidenceError,
    LedgerError,
    OverloadedError,
    StorageError,
    TallystickError,
)
from ledger.ports import Lease
from ledger.publishing_turns import SoleLease
from ledger.records import new_record_id
from ledger.tasks import Repeating, end
from policies.bundles import Bundle, parse_archive
from policies.impact import Impact
from policies.impact_coverage import Coverage
from policies.impact_report import make_report
from policies.impact_walk import ImpactWalk
from policies.recomputed import reach_ms
from policies.windows import read_windows
from service.auth import Caller
from service.failures import describe
from service.impact_files import ImpactFiles, Snapshot
from service.impact_history import CLOSING_LEAVES, History, Page
from service.impact_orders import ImpactJob, ImpactOrder, ImpactStore

if TYPE_CHECKING:
    from service.wiring.services import Services

__all__ = ["IMPACT_LEASE_SECONDS", "MAX_WARM_UP_MS", "ImpactJobs", "flips_of", "history_of"]

_log = structlog.get_logger()

IMPACT_LEASE_SECONDS: Final = 30.0
"""How long a job waits, after its process is gone, until another takes it up."""
MAX_WARM_UP_MS: Final = 31 * 24 * 3_600_000
"""Longest stretch before a period that is evaluated as well."""

_MAX_WAITING: Final = 16
_MAX_ATTEMPTS: Final = 5
_KEEP_PAGES: Final = 8
"""Pages between two noted states: what is done again after a restart."""


def history_of(services: Services) -> History:
    """Return the recorded decisions of a log."""
    return History(
        log_id=services.identity.log_id, catalog=services.catalog, reader=services.reader, vault=services.vault
    )


async def _bundle(services: Services, revision: str) -> Bundle:
    """Return a bundle that is kept, whether it was ever published or only proposed."""
    archive = await asyncio.to_thread(services.bundle_archives.get, services.identity.log_id, revision)
    bundle = await asyncio.to_thread(parse_archive, archive)
    if bundle.revision != revision:
        raise StorageError(f"the store holds another bundle under the revision {revision}")
    return bundle


def _walk(services: Services, impact: Impact, candidate: Bundle | None) -> ImpactWalk:
    return ImpactWalk(impact, services.evaluator, lambda revision: _bundle(services, revision), candidate=candidate)


async def flips_of(services: Services, bundle: Bundle, from_ms: int, to_ms: int) -> Impact:
    """Return what a bundle would have decided in a period, without a job and without a list.

    Requests are opened for it: that somebody looks, and why, the caller has recorded before. Whoever wants to be sure
    that nothing is let through asks for both: no ``deny:permit`` (nor of ``indeterminate`` and ``not_applicable``) in
    ``flips``, and ``unknown`` being 0.

    Raises:
        EvidenceError: No such period.
        LedgerError: A store failed.
    """
    period = Period(from_ms, to_ms)
    impact = Impact(from_ms=period.from_ms, to_ms=period.to_ms, read_from_ms=period.from_ms, revision=bundle.revision)
    history = history_of(services)
    size = await asyncio.to_thread(services.sequenced_size)
    minimum = await asyncio.to_thread(services.minimum_index.current)
    stretch = await asyncio.to_thread(history.stretch, impact, size, minimum)
    walk = _walk(services, impact, bundle)
    async with (
        contextlib.aclosing(history.pages(stretch.first_leaf, stretch.end_leaf, impact)) as pages,
        contextlib.aclosing(walk.over(pages)) as walked,
    ):
        async for _ in walked:
            pass
    return impact


class ImpactJobs:
    """Works on the impacts of one service, one at a time. Methods belong to one event loop.

    Attributes:
        store: Where jobs are kept.
        files: Where their lists and reports are.
        work: What is repeated.
    """

    def __init__(
        self,
        store: ImpactStore,
        files: ImpactFiles,
        clock: Clock,
        *,
        lease: Callable[[str], Lease] = lambda _job_id: SoleLease(),
    ) -> None:
        """Prepare; `start` begins the work.

        Args:
            store: Where jobs are kept.
            files: Where their lists and reports are.
            clock: For the jobs' times.
            lease: Returns the lease of a job; needed where other processes serve this log too.
        """
        self.store = store
        self.files = files
        self._clock = clock
        self._lease = lease
        self._held: dict[str, Lease] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._being_taken = 0
        self._services: Services | None = None
        self._one_at_a_time = asyncio.Semaphore(1)
        self.work = Repeating(
            "watching impacts",
            self._keep_watch,
            first_seconds=IMPACT_LEASE_SECONDS / 3,
            retry_seconds=IMPACT_LEASE_SECONDS / 3,
            on_failure=lambda error: _log.warning("impact_jobs_not_watched", error=type(error).__name__),
        )

    async def start(self, services: Services) -> None:
        """Take up work for ``services``: what an earlier run left unfinished goes on."""
        self._services = services
        await asyncio.to_thread(self.files.make_directory)
        await self._take_up_abandoned()
        self.work.start()

    async def stop(self) -> None:
        """Put down what is under way; the next start, or another process, goes on with it."""
        await self.work.stop()
        await end(*self._tasks.values())
        for job_id in tuple(self._held):
            await asyncio.to_thread(self._let_go, job_id)

    async def _keep_watch(self) -> float:
        """Hold the leases of the jobs here, and take up those that other processes left behind."""
        await asyncio.to_thread(self._hold_on)
        await self._take_up_abandoned()
        return IMPACT_LEASE_SECONDS / 3

    def _hold_on(self) -> None:
        for lease in tuple(self._held.values()):
            lease.take()

    async def _take_up_abandoned(self) -> None:
        # A job stands among the unfinished only after its lease was taken: one that can be had was left behind.
        for job in reversed(await asyncio.to_thread(self.store.unfinished)):
            if job.job_id in self._held:
                continue
            lease = self._lease(job.job_id)
            if await asyncio.to_thread(lease.take):
                self._held[job.job_id] = lease
                self._begin(job.job_id)

    def _let_go(self, job_id: str) -> None:
        lease = self._held.pop(job_id, None)
        if lease is not None:
            with contextlib.suppress(LedgerError):
                lease.give_up()

    def _require(self) -> Services:
        if self._services is None:
            raise EvidenceError("impacts are not worked on before the service has started")
        return self._services

    # --- orders

    async def order(self, caller: Caller, order: ImpactOrder, *, purpose: str | None = None) -> ImpactJob:
        """Take an order; the job runs on its own.

        Args:
            caller: Who asks.
            order: What for; the bundle is kept, and loads.
            purpose: Why; recorded, in the vault.

        Raises:
            EvidenceError: The order cannot be met: there is no such period.
            ConfigError: Its members contradict one another.
            OverloadedError: Too many jobs wait; nothing was taken.
            StorageError: The database failed.
        """
        self._require()
        Period(order.from_ms, order.to_ms)  # refuses what is none, before anything is recorded
        if not 0 <= order.warm_up_ms <= MAX_WARM_UP_MS:
            raise ConfigError("what is evaluated before a period is at most 31 days")
        if order.state == "recomputed" and order.bundle is None:
            raise ConfigError("state is recomputed under a bundle: name one")
        if len(self._tasks) + self._being_taken >= _MAX_WAITING:
            raise OverloadedError(f"{_MAX_WAITING} impacts are being worked on; ask again later")
        self._being_taken += 1
        try:
            job_id = await self._take(caller, await self._with_reach(order), purpose)
        finally:
            self._being_taken -= 1
        return await asyncio.to_thread(self.store.get, job_id)

    async def _with_reach(self, order: ImpactOrder) -> ImpactOrder:
        """Return an order that reads as far back as the bundle's windows count, where state is recomputed."""
        if order.state == "recorded" or order.bundle is None:
            return order
        windows = await asyncio.to_thread(read_windows, await _bundle(self._require(), order.bundle))
        return msgspec.structs.replace(order, warm_up_ms=max(order.warm_up_ms, reach_ms(windows)))

    async def _take(self, caller: Caller, order: ImpactOrder, purpose: str | None) -> str:
        services, now_ms = self._require(), self._clock.now_ms()
        job_id = new_record_id(now_ms, secrets.token_bytes(10))
        draft = services.access.draft(
            caller,
            "impact",
            "bundle" if order.bundle else "decisions",
            target_id=order.bundle,
            purpose=purpose,
            scope=order.access_scope(),
        )
        # INVARIANT: a replay is itself recorded, before anything is opened for it.
        await services.access.record([draft])
        assert isinstance(draft.body, AccessEvent)
        lease = self._lease(job_id)
        await asyncio.to_thread(lease.take)
        self._held[job_id] = lease
        try:
            await asyncio.to_thread(self.store.add, job_id, order, draft.body, now_ms)
        except BaseException:
            del self._held[job_id]
            raise
        self._begin(job_id)
        return job_id

    async def cancel(self, job_id: str) -> ImpactJob:
        """End a job that has not ended.

        Raises:
            NotFoundError: There is none of that id.
            ConflictError: It has ended.
            StorageError: The database failed.
        """
        job = await asyncio.to_thread(self.store.get, job_id)
        await asyncio.to_thread(lambda: self.store.change(job, state="cancelled", finished_ms=self._clock.now_ms()))
        if (task := self._tasks.get(job_id)) is not None:
            await end(task)
            await asyncio.to_thread(self._let_go, job_id)
        await asyncio.to_thread(lambda: self.files.forget(job_id, job.attempt, whole=True))
        return await asyncio.to_thread(self.store.get, job_id)

    # --- work

    def _begin(self, job_id: str) -> None:
        task = asyncio.create_task(self._run(job_id), name=f"impact-{job_id}")
        self._tasks[job_id] = task
        task.add_done_callback(lambda _task: self._tasks.pop(job_id, None))

    async def _run(self, job_id: str) -> None:
        try:
            async with self._one_at_a_time:
                await self._attempt(job_id)
        except ConflictError:
            # It was cancelled, or somebody else works on it: there is nothing to note.
            _log.info("impact_put_down", job_id=job_id)
        except LedgerError as error:
            # How it ended could not be noted: it is taken up again.
            _log.error("impact_end_not_noted", job_id=job_id, **describe(error))
        await asyncio.to_thread(self._let_go, job_id)

    async def _attempt(self, job_id: str) -> None:
        job = await asyncio.to_thread(lambda: self.store.take_up(self.store.get(job_id)))
        if job.attempt > _MAX_ATTEMPTS:
            await self._failed(job, f"it was taken up {_MAX_ATTEMPTS} times and never came to its end")
            return
        try:
            await self._make(self._require(), job)
        except ConflictError:
            raise
        except TallystickError as error:
            await self._failed(job, str(error))
        except Exception as error:  # noqa: BLE001  # a background job has nobody above it: the job says that it failed
            _log.error("impact_failed", job_id=job_id, **describe(error))
            await self._failed(job, "an unexpected error; see the service's log")

    async def _failed(self, job: ImpactJob, reason: str) -> None:
        await asyncio.to_thread(
            lambda: self.store.change(job, state="failed", error=reason, finished_ms=self._clock.now_ms())
        )
        await asyncio.to_thread(lambda: self.files.forget(job.job_id, job.attempt, whole=True))
        draft = self._require().access.later_draft(
            job.access, "make_impact", target_kind="impact", target_id=job.job_id, result="failed"
        )
        try:
            await self._require().access.record([draft])
        except LedgerError as error:
            # The job itself says that it failed; that nothing could be recorded may well be why.
            _log.warning("impact_failure_not_recorded", job_id=job.job_id, error=type(error).__name__)

    async def _make(self, services: Services, job: ImpactJob) -> None:
        snapshot = await asyncio.to_thread(self.files.begin, job.job_id, job.attempt)
        if snapshot is None:
            snapshot = await self._fresh(services, job.order)
        candidate = None if job.order.bundle is None else await _bundle(services, job.order.bundle)
        await self._read(services, job, snapshot, candidate)
        await self._close(services, snapshot)
        lines_sha256 = await asyncio.to_thread(self.files.lines_sha256, job.job_id, job.attempt)
        report = make_report(
            snapshot.impact,
            snapshot.coverage,
            snapshot.stretch,
            bundle_name=None if candidate is None else candidate.manifest.name,
            lines_sha256=lines_sha256,
        )
        report_sha256 = await asyncio.to_thread(self.files.write_report, job.job_id, report)
        # INVARIANT: what came of it, and how many requests were opened, is recorded before anybody can have it.
        draft = services.access.later_draft(
            job.access,
            "make_impact",
            target_kind="impact",
            target_id=job.job_id,
            digest=report_sha256,
            items=snapshot.opened,
        )
        await services.access.record([draft])
        done = {"state": "done", "finished_ms": self._clock.now_ms(), "error": None}
        await asyncio.to_thread(
            lambda: self.store.change(job, report_sha256=report_sha256, lines_sha256=lines_sha256, **done)
        )
        await asyncio.to_thread(lambda: self.files.forget(job.job_id, job.attempt, whole=False))

    async def _fresh(self, services: Services, order: ImpactOrder) -> Snapshot:
        impact = Impact(
            from_ms=order.from_ms,
            to_ms=order.to_ms,
            read_from_ms=order.read_from_ms,
            scope=order.scope,
            revision=order.bundle,
            state=order.state,
        )
        size = await asyncio.to_thread(services.sequenced_size)
        minimum = await asyncio.to_thread(services.minimum_index.current)
        stretch = await asyncio.to_thread(history_of(services).stretch, impact, size, minimum)
        if order.state == "recomputed" and stretch.pruned_below:
            raise EvidenceError(
                f"state cannot be recomputed: calls below leaf {stretch.pruned_below} count, and were pruned"
            )
        coverage = Coverage(from_ms=order.from_ms, to_ms=order.to_ms)
        return Snapshot(impact=impact, coverage=coverage, stretch=stretch, next_leaf=stretch.first_leaf)

    async def _read(self, services: Services, job: ImpactJob, snapshot: Snapshot, candidate: Bundle | None) -> None:
        """Walk over the stretch, and note from time to time how far it came."""
        await self._keep(job, snapshot)
        walk = _walk(services, snapshot.impact, candidate)
        history, pages = history_of(services), 0
        found = history.pages(snapshot.next_leaf, snapshot.stretch.end_leaf, snapshot.impact)
        async with contextlib.aclosing(found), contextlib.aclosing(walk.over(found)) as walked:
            async for page, lines in walked:
                await asyncio.to_thread(_cover, snapshot, page)
                await asyncio.to_thread(self.files.append, job.job_id, job.attempt, snapshot, lines)
                snapshot.next_leaf = page.end_leaf
                pages += 1
                if pages % _KEEP_PAGES == 0 or page.end_leaf >= snapshot.stretch.end_leaf:
                    await self._keep(job, snapshot)

    async def _keep(self, job: ImpactJob, snapshot: Snapshot) -> None:
        stretch = snapshot.stretch
        progress = {
            "done_leaves": snapshot.next_leaf - stretch.first_leaf,
            "all_leaves": stretch.end_leaf - stretch.first_leaf,
        }
        # Asked first: whoever took the job up meanwhile reads no state that this process is about to replace.
        await asyncio.to_thread(lambda: self.store.change(job, **progress))
        # Rebuilt state is as large as what it was rebuilt from: it is not written down, and such a walk begins anew.
        if job.order.state == "recorded":
            await asyncio.to_thread(self.files.keep, job.job_id, job.attempt, snapshot)

    async def _close(self, services: Services, snapshot: Snapshot) -> None:
        """Read on until every enforcer has said that it is past the period, or for long enough; no state is noted."""
        stretch = snapshot.stretch
        stop = min(stretch.tree_size, stretch.end_leaf + CLOSING_LEAVES)
        found = history_of(services).pages(stretch.end_leaf, stop, snapshot.impact)
        async with contextlib.aclosing(found):
            async for page in found:
                if not snapshot.coverage.open:
                    return
                await asyncio.to_thread(_cover, snapshot, replace(page, opened=0))


def _cover(snapshot: Snapshot, page: Page) -> None:
    snapshot.opened += page.opened
    for record in page.records:
        snapshot.coverage.add(record)
