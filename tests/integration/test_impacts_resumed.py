"""Impacts that are interrupted: the next start goes on where the last noted state left them, and says the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from ledger.errors import ConflictError
from policies.bundles import Bundle
from policies.engines.cedar import CedarEngine
from policies.evaluate import Evaluation, Evaluator
from policies.impact_report import ImpactReport
from policies.model import DecisionRequest
from service import impact_files, impact_history, impacts
from service.auth import Role
from service.impact_orders import ImpactJob, ImpactOrder
from service.wiring.assembly import build_services
from service.wiring.services import Services
from tests.support.history import post_history
from tests.support.ledger import NOW_MS
from tests.support.policies import cedar_bundle, make_request
from tests.support.service import make_settings, start_service

CALLS = 200
THEN = cedar_bundle('@id("work") permit(principal, action, resource);')
NOW = cedar_bundle(
    '@id("work") permit(principal, action, resource);'
    '@id("limit") forbid(principal, action, resource) when { context.args has amount && context.args.amount > 500 };'
)
ORDER = ImpactOrder(from_ms=NOW_MS, to_ms=NOW_MS + CALLS, bundle=NOW.revision)


class Stopping(Evaluator):
    """Evaluates a few pages and then no more; whoever waits for the next is told when that is."""

    def __init__(self, pages: int) -> None:
        super().__init__({"cedar": CedarEngine()})
        self._left = pages
        self.stuck = asyncio.Event()

    async def evaluate_many(
        self, bundle: Bundle, requests: Sequence[DecisionRequest], **options: str | None
    ) -> list[Evaluation]:
        if self._left == 0:
            self.stuck.set()
            await asyncio.Event().wait()
        self._left -= 1
        return await super().evaluate_many(bundle, requests, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a service's data: a load, and two bundles."""
    root = tmp_path_factory.mktemp("resumed")
    requests = [
        make_request(
            session=f"s{at // 4}",
            calls=at % 4,
            started_ms=NOW_MS + at - at % 4,
            now_ms=NOW_MS + at,
            arguments=json.dumps({"amount": at * 37 % 1000}),
        )
        for at in range(CALLS)
    ]
    evaluator = Evaluator({"cedar": CedarEngine()})
    with start_service(root) as service:
        for bundle in (THEN, NOW):
            service.services.bundle_archives.put(service.log_id, bundle.revision, bundle.archive())
        service.token(Role.RESPONDER)
        post_history(service.enforcer(), evaluator, THEN, requests)
    evaluator.close()
    return root


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(impact_history, "PAGE_LEAVES", 16)
    monkeypatch.setattr(impacts, "_KEEP_PAGES", 2)


def services_in(folder: Path, evaluator: Evaluator | None = None) -> Services:
    services = build_services(make_settings(folder), allow_simulated=True)
    if evaluator is not None:
        object.__setattr__(services, "evaluator", evaluator)
    return services


def caller(services: Services):
    token = services.tokens.issue(services.identity.log_id, Role.RESPONDER, "responder")
    return services.tokens.authenticate(token)


async def ended(services: Services) -> None:
    async with asyncio.timeout(60):
        await asyncio.gather(*services.impacts._tasks.values())


def report_of(services: Services, job: ImpactJob) -> tuple[ImpactReport, bytes]:
    files = services.impacts.files
    return files.report(job.job_id), files.lines_path(job.job_id, job.attempt).read_bytes()


def whole(folder: Path) -> tuple[ImpactReport, bytes]:
    """Return report and list of an impact that nothing interrupted."""

    async def run() -> tuple[ImpactReport, bytes]:
        services = services_in(folder)
        await services.start()
        try:
            job = await services.impacts.order(caller(services), ORDER)
            await ended(services)
            return report_of(services, services.impacts.store.get(job.job_id))
        finally:
            await services.stop()

    return asyncio.run(run())


def interrupted(folder: Path, pages: int) -> str:
    """Order an impact, stop the service behind so many pages, and return the job's id."""

    async def run() -> str:
        evaluator = Stopping(pages)
        services = services_in(folder, evaluator)
        await services.start()
        try:
            job = await services.impacts.order(caller(services), ORDER)
            async with asyncio.timeout(60):
                await evaluator.stuck.wait()
            return job.job_id
        finally:
            await services.stop()
            evaluator.close()

    return asyncio.run(run())


def resumed(folder: Path, job_id: str) -> tuple[ImpactJob, tuple[ImpactReport, bytes]]:
    async def run() -> tuple[ImpactJob, tuple[ImpactReport, bytes]]:
        services = services_in(folder)
        await services.start()
        try:
            await ended(services)
            job = services.impacts.store.get(job_id)
            assert job.state == "done", job.error
            return job, report_of(services, job)
        finally:
            await services.stop()

    return asyncio.run(run())


def same(left: tuple[ImpactReport, bytes], right: tuple[ImpactReport, bytes]) -> None:
    """Compare what does not depend on how long the log has become."""
    assert left[1] == right[1] != b""
    assert (left[0].classes, left[0].flips, left[0].decisions) == (right[0].classes, right[0].flips, right[0].decisions)


def test_an_impact_goes_on_after_a_restart_and_lists_nothing_twice(folder):
    expected = whole(folder)
    job_id = interrupted(folder, 5)
    job, found = resumed(folder, job_id)
    assert job.attempt == 2
    same(found, expected)
    assert found[0].flips["permit:deny"].count == expected[1].count(b'"effect":"DENY"') > 0


def test_lines_behind_the_last_noted_state_are_cut_off_and_written_again(folder):
    job_id = interrupted(folder, 5)
    services = services_in(folder)
    listed = services.impacts.files.lines_path(job_id, 1)
    listed.write_bytes(listed.read_bytes() + b"not a line\n")
    _, found = resumed(folder, job_id)
    same(found, whole(folder))


@pytest.mark.parametrize("damage", ["state", "lines", "both"])
def test_where_files_are_gone_or_damaged_it_begins_anew(folder, damage):
    job_id = interrupted(folder, 3)
    files = services_in(folder).impacts.files
    if damage in ("state", "both"):
        files._state_path(job_id, 1).write_bytes(b"\xff")
    if damage in ("lines", "both"):
        files.lines_path(job_id, 1).unlink()
    _, found = resumed(folder, job_id)
    same(found, whole(folder))


def test_what_ends_a_process_every_time_is_not_taken_up_for_ever(folder, monkeypatch):
    job_id = interrupted(folder, 1)
    monkeypatch.setattr(impacts, "_MAX_ATTEMPTS", 1)

    async def run() -> ImpactJob:
        services = services_in(folder)
        await services.start()
        try:
            await ended(services)
            return services.impacts.store.get(job_id)
        finally:
            await services.stop()

    job = asyncio.run(run())
    assert (job.state, job.error) == ("failed", "it was taken up 1 times and never came to its end")


def test_an_attempt_that_was_overtaken_can_note_nothing(folder):
    job_id = interrupted(folder, 1)
    store = services_in(folder).impacts.store
    late = store.get(job_id)
    store.take_up(late)
    with pytest.raises(ConflictError):
        store.change(late, state="done")
    store.change(store.get(job_id), state="cancelled")
    with pytest.raises(ConflictError):
        store.take_up(store.get(job_id))


def test_a_list_that_would_be_too_long_fails_the_impact_and_leaves_no_files(folder, monkeypatch):
    monkeypatch.setattr(impact_files, "MAX_LISTED_BYTES", 2_000)

    async def run() -> tuple[ImpactJob, list[str]]:
        services = services_in(folder)
        await services.start()
        try:
            job = await services.impacts.order(caller(services), ORDER)
            await ended(services)
            left = [path.name for path in services.impacts.files.report_path("x").parent.glob(f"{job.job_id}*")]
            return services.impacts.store.get(job.job_id), left
        finally:
            await services.stop()

    job, left = asyncio.run(run())
    assert (job.state, left) == ("failed", [])
    assert "ask for a shorter period" in job.error
