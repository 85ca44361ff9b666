"""The publishing loop: when it publishes, what it retries, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ledger.errors import ConflictError, RollbackError, StateError, VerificationError
from ledger.ports import Lease
from ledger.publisher import Published
from ledger.publishing import PublishingLoop
from ledger.publishing_turns import PUBLISHER_LEASE
from ledger.stores.memory_leases import LeaseTable, MemoryLease
from tests.support.checkpoints import sign_tree
from tests.support.faults import Effect, Write
from tests.support.ledger import LOG_ID, EmbeddedLedger, pending

WAIT_SECONDS = 20


@pytest.fixture(autouse=True)
def _retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.publishing._RETRY_SECONDS", 0.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[EmbeddedLedger]:
    with EmbeddedLedger(tmp_path) as opened:
        opened.introduce()
        yield opened


def beat(ledger: EmbeddedLedger) -> int:
    """Append one record and return the size it makes."""
    return ledger.append(pending(ledger.service.record(ledger.service.heartbeat())))[0] + 1


def run(
    ledger: EmbeddedLedger, test: Callable[[PublishingLoop], Awaitable[None]], *, lease: Lease | None = None
) -> PublishingLoop:
    """Run a test with a started loop, and stop it whatever happens."""

    async def main() -> PublishingLoop:
        loop = PublishingLoop(ledger.publisher, interval_seconds=0.0, lease=lease)
        await loop.start()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await test(loop)
        finally:
            await loop.stop()
        return loop

    return asyncio.run(main())


async def until(ready: Callable[[], bool]) -> None:
    """Let the loop work until something holds; the test's own time-out bounds it."""
    while not ready():  # noqa: ASYNC110  # what is waited for has no event of its own
        await asyncio.sleep(0)


def test_what_was_sequenced_before_the_start_is_published_without_waiting_for_more(ledger):
    async def test(loop: PublishingLoop) -> None:
        published = await loop.wait_for(1, WAIT_SECONDS)
        assert published.head.size == 1

    run(ledger, test)
    assert ledger.anchored_checkpoints() == ledger.published_checkpoints()


def test_each_notice_leads_to_a_checkpoint_that_covers_it(ledger):
    async def test(loop: PublishingLoop) -> None:
        for _ in range(5):
            size = beat(ledger)
            loop.notify(size)
            published = await loop.wait_for(size, WAIT_SECONDS)
            assert published.head.size >= size

    run(ledger, test)
    assert ledger.audit().clean


def test_many_may_wait_for_one_checkpoint(ledger):
    async def test(loop: PublishingLoop) -> None:
        sizes = [beat(ledger) for _ in range(10)]
        waiting = [asyncio.create_task(loop.wait_for(size, WAIT_SECONDS)) for size in sizes]
        loop.notify(sizes[-1])
        published = await asyncio.gather(*waiting)
        assert all(one.head.size >= size for one, size in zip(published, sizes, strict=True))

    run(ledger, test)


def test_who_waits_for_a_size_that_nobody_sequenced_is_told_so_in_time(ledger):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        with pytest.raises(StateError, match="no checkpoint covered 2 leaves"):
            await loop.wait_for(2, 0.01)

    run(ledger, test)


def test_stopping_publishes_what_is_sequenced(ledger):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        beat(ledger)

    loop = run(ledger, test)
    assert loop.published is not None
    assert loop.published.head.size == 2


@pytest.mark.parametrize("effect", [Effect.LOST, Effect.KEPT])
@pytest.mark.parametrize("write", [Write.PUT_BUNDLE, Write.PUT_TILE, Write.SWAP, Write.EXPOSE, Write.RELEASE])
def test_a_storage_error_is_retried_after_a_reload(ledger, write, effect):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        ledger.faults.arm(write, effect)
        size = beat(ledger)
        loop.notify(size)
        await loop.wait_for(size, WAIT_SECONDS)
        await until(
            lambda: loop.trouble is None and ledger.exposed_checkpoints() == ledger.published_checkpoints()[-1:]
        )

    loop = run(ledger, test)
    assert loop.failure is None
    assert ledger.audit().clean


def test_trouble_is_shown_while_it_lasts(ledger):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        ledger.faults.arm(Write.SWAP, Effect.LOST, times=100_000)
        loop.notify(beat(ledger))
        await until(lambda: loop.trouble is not None)
        assert loop.failure is None
        ledger.faults.arm(Write.SWAP, Effect.LOST, times=0)
        await loop.wait_for(2, WAIT_SECONDS)
        await until(lambda: loop.trouble is None)

    run(ledger, test)


@pytest.mark.parametrize("turns", range(6))
def test_a_stop_that_meets_a_notice_ends_the_loop(ledger, turns):
    """Whenever the cancellation comes: before, while or after the loop wakes up."""

    async def main() -> None:
        loop = PublishingLoop(ledger.publisher, interval_seconds=0.0)
        loop._poll = 30.0
        await loop.start()
        await loop.wait_for(1, WAIT_SECONDS)
        # There is nothing to publish: it rests until somebody wakes it.
        await until(lambda: bool(loop._wake._waiters))
        loop.notify(1)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await loop.stop()

    asyncio.run(main())


def test_an_anchor_failure_stops_nothing_and_is_repaired(ledger):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        ledger.faults.arm(Write.ANCHOR, Effect.LOST, times=3)
        size = beat(ledger)
        loop.notify(size)
        await loop.wait_for(size, WAIT_SECONDS)
        await until(lambda: ledger.anchored_checkpoints()[-1:] == ledger.published_checkpoints()[-1:])
        await until(lambda: loop.anchor_status.failure is None)
        assert loop.trouble is None

    assert run(ledger, test).failure is None


def test_a_lost_swap_is_followed_and_the_log_goes_on_from_what_won(ledger):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        other = ledger.make_publisher()
        won: list[Published | None] = []

        def overtake(write: Write) -> None:
            if write is Write.SWAP and not won:
                won.append(None)
                other.load()
                won.append(other.publish())

        ledger.faults.on_write = overtake
        size = beat(ledger)
        loop.notify(size)
        assert (await loop.wait_for(size, WAIT_SECONDS)).checkpoint == won[1].checkpoint
        size = beat(ledger)
        loop.notify(size)
        assert (await loop.wait_for(size, WAIT_SECONDS)).head.size == size
        assert loop.trouble is None

    loop = run(ledger, test)
    assert loop.failure is None
    assert len(ledger.published_checkpoints()) == 3
    assert ledger.audit().clean


def test_a_second_tree_that_somebody_published_ends_the_loop_for_good(ledger, monkeypatch):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        forged = sign_tree(ledger, 1)
        monkeypatch.setattr(ledger.store, "checkpoint", lambda _: forged)
        with pytest.raises(StateError, match="ended"):
            await loop.wait_for(2, WAIT_SECONDS)
        assert isinstance(loop.failure, VerificationError)

    run(ledger, test)
    assert len(ledger.published_checkpoints()) == 1, "not even the stop published anything"


def test_what_another_process_published_is_waited_for_here(ledger):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(loop.wait_for(2, WAIT_SECONDS))
        await asyncio.sleep(0)
        assert table.look().live
        beat(ledger)
        other = ledger.make_publisher()
        other.load()
        other.publish()
        assert (await waiting).checkpoint == other.published.checkpoint
        assert not loop.leads

    table = MemoryLease(LeaseTable(ledger.clock), LOG_ID, PUBLISHER_LEASE, holder="another", seconds=60)
    ledger.publish()
    assert table.take()
    mine = MemoryLease(table._table, LOG_ID, PUBLISHER_LEASE, holder="this", seconds=60)
    loop = run(ledger, test, lease=mine)
    assert loop.published.head.size == 2
    assert [write for write in ledger.faults.writes if write is Write.SWAP] == [Write.SWAP] * 2, "it only followed"


def test_who_has_not_the_lease_publishes_nothing_even_when_it_stops(ledger):
    table = LeaseTable(ledger.clock)
    MemoryLease(table, LOG_ID, PUBLISHER_LEASE, holder="another", seconds=60).take()
    run(
        ledger,
        lambda _: asyncio.sleep(0.2),
        lease=MemoryLease(table, LOG_ID, PUBLISHER_LEASE, holder="this", seconds=60),
    )
    assert ledger.published_checkpoints() == []


def test_who_stops_in_order_lets_another_lead_at_once(ledger):
    table = LeaseTable(ledger.clock)

    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        assert loop.leads

    run(ledger, test, lease=MemoryLease(table, LOG_ID, PUBLISHER_LEASE, holder="this", seconds=60))
    assert MemoryLease(table, LOG_ID, PUBLISHER_LEASE, holder="another", seconds=60).take()


def test_who_cannot_publish_lets_another_try(ledger):
    table = LeaseTable(ledger.clock)
    other = MemoryLease(table, LOG_ID, PUBLISHER_LEASE, holder="another", seconds=60)

    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        assert not other.take()
        ledger.faults.arm(Write.PUT_TILE, Effect.LOST, times=100_000)
        loop.notify(beat(ledger))
        await until(lambda: loop.trouble is not None)
        await until(other.take)
        ledger.faults.arm(Write.PUT_TILE, Effect.LOST, times=0)

    run(ledger, test, lease=MemoryLease(table, LOG_ID, PUBLISHER_LEASE, holder="this", seconds=60))


def test_two_trees_in_the_anchor_end_the_loop_for_good(ledger):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        ledger.anchor.put(LOG_ID, 2, sign_tree(ledger, 2))
        loop.notify(beat(ledger))
        await until(lambda: loop.failure is not None)
        assert isinstance(loop.failure, ConflictError)

    run(ledger, test)


def test_a_checkpoint_that_covers_a_size_counts_though_the_loop_ended_afterwards(ledger):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        ledger.anchor.put(LOG_ID, 2, sign_tree(ledger, 2))
        loop.notify(beat(ledger))
        await until(lambda: loop.failure is not None)
        assert (await loop.wait_for(2, WAIT_SECONDS)).head.size == 2

    run(ledger, test)


def test_a_log_that_does_not_verify_is_not_begun(ledger):
    ledger.publish()
    ledger.close()
    (ledger.root / "ledger.db").unlink()
    with ledger.reopen(load=False) as restored:
        with pytest.raises(RollbackError):
            run(restored, lambda _: asyncio.sleep(0))
        assert restored.published_checkpoints() == []


def test_an_unexpected_error_ends_the_loop_and_is_seen(ledger, monkeypatch):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        monkeypatch.setattr(ledger.publisher, "publish", lambda: 1 / 0)
        loop.notify(beat(ledger))
        with pytest.raises(StateError, match="ended"):
            await loop.wait_for(2, WAIT_SECONDS)
        assert loop.failure is not None
        assert isinstance(loop.failure.__cause__, ZeroDivisionError)

    run(ledger, test)
