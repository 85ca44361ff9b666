"""Jobs of evidence packs: kept, listed, ended with the run of the service that began them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest
from sqlalchemy import Engine

from ledger.clock import SimulatedClock
from ledger.database import open_engine
from ledger.errors import EvidenceError, NotFoundError, OverloadedError, StorageError
from ledger.ports import Draft
from ledger.stores.memory_leases import LeaseTable, MemoryLease
from migrations.schema import upgrade
from service.access import AccessRecorder
from service.auth import Caller, Role
from service.packs import PACK_LEASE_SECONDS, PackJobs, PackOrder, PackStore
from tests.support.ledger import LOG_ID, NOW_MS

ORDER = PackOrder(from_ms=NOW_MS, to_ms=NOW_MS + 1, frameworks=("soc2",), title="Überprüfung", zone="Europe/Paris")
JANE = Caller(log_id=LOG_ID, name="jane", role=Role.AUDITOR, enforcer_id=None, token_sha256="0" * 64)
IDS = [f"0000000{n}-0000-7000-8000-000000000000" for n in range(10)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    opened = open_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    upgrade(opened)
    yield opened
    opened.dispose()


@pytest.fixture
def store(engine: Engine, tmp_path: Path) -> PackStore:
    return PackStore(engine, tmp_path / "packs", LOG_ID)


# --- the store -------------------------------------------------------------------------------------------------------


def test_a_job_is_found_as_it_was_asked_for(store):
    store.add(IDS[0], ORDER, "a" * 32, NOW_MS)
    job = store.get(IDS[0])
    assert (job.state, job.step, job.order, job.requested_by, job.created_ms) == (
        "queued",
        "waiting",
        ORDER,
        "a" * 32,
        NOW_MS,
    )
    assert (job.finished_ms, job.pack_id, job.leaves, job.zip_sha256, job.pdf_sha256, job.error) == (None,) * 6


def test_progress_is_noted_on_that_job_alone(store):
    for number in (0, 1):
        store.add(IDS[number], ORDER, "a" * 32, NOW_MS)
    store.change(IDS[0], state="done", leaves=7, zip_sha256="f" * 64)
    assert (store.get(IDS[0]).state, store.get(IDS[0]).leaves) == ("done", 7)
    assert store.get(IDS[1]).state == "queued"


def test_an_unknown_job_is_not_found(store):
    with pytest.raises(NotFoundError):
        store.get(IDS[0])


def test_a_job_of_another_log_is_not_found_listed_changed_or_ended(store, engine, tmp_path):
    other = PackStore(engine, tmp_path / "packs", "other")
    other.add(IDS[0], ORDER, "a" * 32, NOW_MS)
    with pytest.raises(NotFoundError):
        store.get(IDS[0])
    assert store.newest() == []
    store.change(IDS[0], state="done")
    store.fail_unfinished(NOW_MS, [IDS[0]])
    assert store.unfinished() == []
    assert other.get(IDS[0]).state == "queued"
    assert store.path(IDS[0], "zip").parent != other.path(IDS[0], "zip").parent


def test_one_id_is_not_given_to_two_jobs(store):
    store.add(IDS[0], ORDER, "a" * 32, NOW_MS)
    with pytest.raises(StorageError):
        store.add(IDS[0], ORDER, "b" * 32, NOW_MS)
    assert store.get(IDS[0]).requested_by == "a" * 32


def test_jobs_are_listed_newest_first_and_not_without_end(store):
    for number, id_ in enumerate(IDS):
        store.add(id_, ORDER, "a" * 32, NOW_MS + number // 2)
    assert [job.job_id for job in store.newest(3)] == IDS[:-4:-1]
    assert len(store.newest()) == 10


def test_jobs_of_an_earlier_run_have_failed_and_say_so_and_ended_ones_stay_as_they_are(store):
    for id_, state in zip(IDS, ("queued", "running", "done", "failed"), strict=False):
        store.add(id_, ORDER, "a" * 32, NOW_MS)
        store.change(id_, state=state, error="before" if state == "failed" else None)
    assert sorted(store.unfinished()) == IDS[:2]
    store.fail_unfinished(NOW_MS + 5, IDS[:4])
    assert [store.get(id_).state for id_ in IDS[:4]] == ["failed", "failed", "done", "failed"]
    assert [store.get(id_).finished_ms for id_ in IDS[:4]] == [NOW_MS + 5, NOW_MS + 5, None, None]
    assert "ask again" in store.get(IDS[0]).error
    assert store.get(IDS[3]).error == "before"


def test_a_directory_that_cannot_be_made_is_an_error_of_evidence(engine, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceError, match="cannot be made"):
        PackStore(engine, tmp_path / "file", LOG_ID).make_directory()


# --- the jobs --------------------------------------------------------------------------------------------------------


class Sink:
    """Takes access records, or fails."""

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.failing = False

    async def append(self, drafts: list[Draft]) -> list[Any]:
        await asyncio.sleep(0)
        if self.failing:
            raise StorageError("injected")
        self.drafts += drafts
        return []

    @property
    def told(self) -> list[tuple[str, str, str | None]]:
        return [(draft.body.action, draft.body.result, draft.body.target_id) for draft in self.drafts]


class Case:
    """Jobs whose making is the test's."""

    def __init__(self, store: PackStore, **options: Any) -> None:
        self.store = store
        self.sink = Sink()
        self.go_on = asyncio.Event()
        self.failure: Exception | None = None
        self.services = SimpleNamespace(access=AccessRecorder(self.sink, lambda: b"p" * 32))
        self.jobs = PackJobs(store, SimulatedClock(NOW_MS), **options)
        self.running = 0
        self.most = 0

    async def make(self, _services: object, job_id: str, _order: PackOrder, _actor: str) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            self.store.change(job_id, state="running")
            await self.go_on.wait()
            if self.failure is not None:
                raise self.failure
        finally:
            self.running -= 1
        population = SimpleNamespace(records=3)
        return SimpleNamespace(
            sha256="e" * 64, pack_id=IDS[9], pdf=b"pdf", summary=SimpleNamespace(tree_size=7, population=population)
        )

    async def __aenter__(self) -> Self:
        await self.jobs.start(self.services)
        self.jobs._make = self.make
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.jobs.stop()

    async def settled(self) -> None:
        await asyncio.gather(*self.jobs._tasks)


def run(work: Any) -> None:
    asyncio.run(asyncio.wait_for(work, 20))


def test_an_order_is_recorded_made_recorded_with_its_digest_and_done(store):
    async def work() -> None:
        async with Case(store) as case:
            case.go_on.set()
            job = await case.jobs.order(JANE, ORDER)
            await case.settled()
            done = store.get(job.job_id)
            assert (done.state, done.pack_id, done.leaves, done.zip_sha256) == ("done", IDS[9], 7, "e" * 64)
            assert done.requested_by == case.services.access.actor(JANE)
            assert case.sink.told == [("request_pack", "ok", job.job_id), ("make_pack", "ok", job.job_id)]
            assert (case.sink.drafts[1].body.digest, case.sink.drafts[1].body.items) == ("e" * 64, 3)

    run(work())


@pytest.mark.parametrize(
    "changes",
    [
        {"to_ms": NOW_MS},
        {"to_ms": NOW_MS - 1},
        {"zone": "Mars/Olympus"},
        {"zone": "../../etc/passwd"},
        {"zone": "/etc/localtime"},
        {"zone": "Europe"},
        {"zone": ""},
        {"zone": "UTC\x00"},
        {"frameworks": ("soc2", "made-up")},
        {"frameworks": ("../soc2",)},
    ],
)
def test_an_order_that_cannot_be_met_is_refused_before_anything_is_recorded_or_kept(store, changes):
    import msgspec

    async def work() -> None:
        async with Case(store) as case:
            with pytest.raises(EvidenceError):
                await case.jobs.order(JANE, msgspec.structs.replace(ORDER, **changes))
            assert case.sink.told == []
            assert store.newest() == []

    run(work())


def test_a_job_that_could_not_be_recorded_does_not_stand_in_the_list(store):
    async def work() -> None:
        async with Case(store) as case:
            case.sink.failing = True
            with pytest.raises(StorageError):
                await case.jobs.order(JANE, ORDER)
            assert store.newest() == []
            assert not case.jobs._tasks

    run(work())


def test_packs_are_made_one_at_a_time(store):
    async def work() -> None:
        async with Case(store) as case:
            jobs = [await case.jobs.order(JANE, ORDER) for _ in range(4)]
            await asyncio.sleep(0.05)
            assert [store.get(job.job_id).state for job in jobs].count("running") == 1
            case.go_on.set()
            await case.settled()
            assert [store.get(job.job_id).state for job in jobs] == ["done"] * 4
            assert case.most == 1

    run(work())


@pytest.mark.parametrize("together", [True, False])
def test_only_so_many_orders_wait_however_they_come(store, together):
    async def work() -> None:
        async with Case(store) as case:
            orders = [case.jobs.order(JANE, ORDER) for _ in range(20)]
            if together:
                answers = await asyncio.gather(*orders, return_exceptions=True)
            else:
                answers = [(await asyncio.gather(order, return_exceptions=True))[0] for order in orders]
            refused = [answer for answer in answers if isinstance(answer, OverloadedError)]
            assert (len(refused), len(store.newest())) == (4, 16)
            assert len(case.sink.drafts) == 16
            case.go_on.set()
            await case.settled()
            await case.jobs.order(JANE, ORDER)
            await case.settled()

    run(work())


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (EvidenceError("the population has gaps"), "the population has gaps"),
        (ValueError("patient 4711"), "an unexpected error; see the service's log"),
    ],
)
def test_a_job_that_fails_says_why_as_far_as_that_may_be_said_and_the_failure_is_recorded(store, failure, told):
    async def work() -> None:
        async with Case(store) as case:
            case.failure = failure
            case.go_on.set()
            job = await case.jobs.order(JANE, ORDER)
            await case.settled()
            ended = store.get(job.job_id)
            assert (ended.state, ended.error, ended.finished_ms) == ("failed", told, NOW_MS)
            assert case.sink.told[-1] == ("make_pack", "failed", job.job_id)

    run(work())


def test_a_pack_whose_making_could_not_be_recorded_is_not_handed_out(store):
    async def work() -> None:
        async with Case(store) as case:
            job = await case.jobs.order(JANE, ORDER)
            await asyncio.sleep(0.01)
            case.sink.failing = True
            case.go_on.set()
            await case.settled()
            ended = store.get(job.job_id)
            assert (ended.state, ended.zip_sha256) == ("failed", None)

    run(work())


def test_a_job_whose_end_could_not_be_noted_does_not_hold_up_the_next(store, monkeypatch):
    async def work() -> None:
        async with Case(store) as case:
            first = await case.jobs.order(JANE, ORDER)
            await asyncio.sleep(0.01)

            def failing(*_: object, **__: object) -> None:
                raise StorageError("injected")

            with monkeypatch.context() as broken:
                broken.setattr(store, "change", failing)
                case.go_on.set()
                await case.settled()
            second = await case.jobs.order(JANE, ORDER)
            await case.settled()
            assert store.get(first.job_id).state == "running"
            assert store.get(second.job_id).state == "done"
            await start_and_stop(PackJobs(store, SimulatedClock(NOW_MS)), case)
            assert store.get(first.job_id).state == "failed", "the next start says so"

    run(work())


def test_stopping_ends_what_is_under_way_and_the_next_start_says_so(store):
    async def work() -> None:
        async with Case(store) as case:
            jobs = [await case.jobs.order(JANE, ORDER) for _ in range(2)]
            await asyncio.sleep(0.01)
        assert case.running == 0
        await start_and_stop(PackJobs(store, SimulatedClock(NOW_MS)), case)
        assert [store.get(job.job_id).state for job in jobs] == ["failed", "failed"]

    run(work())


async def start_and_stop(jobs: PackJobs, case: Case) -> None:
    await jobs.start(case.services)
    await jobs.stop()


class Makers:
    """Leases of several processes that make packs of one log."""

    def __init__(self) -> None:
        self.clock = SimulatedClock(NOW_MS)
        self.table = LeaseTable(self.clock)

    def of(self, holder: str) -> Callable[[str], MemoryLease]:
        return lambda job_id: MemoryLease(
            self.table, LOG_ID, f"pack:{job_id}", holder=holder, seconds=PACK_LEASE_SECONDS
        )


def test_no_process_ends_a_job_that_another_makes_and_whoever_is_left_notes_one_whose_process_is_gone(store):
    makers = Makers()

    async def work() -> None:
        async with Case(store, lease=makers.of("a")) as case:
            job = await case.jobs.order(JANE, ORDER)
            await start_and_stop(PackJobs(store, SimulatedClock(NOW_MS), lease=makers.of("b")), case)
            assert store.get(job.job_id).state != "failed"
            makers.clock.advance(int(PACK_LEASE_SECONDS * 1000))
            await start_and_stop(PackJobs(store, SimulatedClock(NOW_MS), lease=makers.of("b")), case)
            assert store.get(job.job_id).state == "failed"

    run(work())


def test_a_job_that_takes_longer_than_its_lease_is_held_on_to(store, monkeypatch):
    makers = Makers()

    async def work() -> None:
        async with Case(store, lease=makers.of("a")) as case:
            job = await case.jobs.order(JANE, ORDER)
            for _ in range(3):
                makers.clock.advance(int(PACK_LEASE_SECONDS * 1000) - 1)
                await asyncio.sleep(0.1)
            await start_and_stop(PackJobs(store, SimulatedClock(NOW_MS), lease=makers.of("b")), case)
            assert store.get(job.job_id).state != "failed"
            case.go_on.set()
            await case.settled()
            assert store.get(job.job_id).state == "done"

    monkeypatch.setattr("service.packs.PACK_LEASE_SECONDS", 0.03)
    run(work())


def test_who_stops_in_order_leaves_his_jobs_to_be_noted_at_once(store):
    makers = Makers()

    async def work() -> None:
        async with Case(store, lease=makers.of("a")) as case:
            job = await case.jobs.order(JANE, ORDER)
        await start_and_stop(PackJobs(store, SimulatedClock(NOW_MS), lease=makers.of("b")), case)
        assert store.get(job.job_id).state == "failed"

    run(work())


def test_nothing_is_made_before_the_service_has_started(store):
    with pytest.raises(EvidenceError, match="started"):
        asyncio.run(PackJobs(store, SimulatedClock(NOW_MS)).order(JANE, ORDER))
