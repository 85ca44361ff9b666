"""The publishing loop: when it publishes, what it retries, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from ledger.errors import ConflictError, RollbackError, StateError
from ledger.publishing import PublishingLoop
from tests.support.checkpoints import make_checkpoint
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


def run(ledger: EmbeddedLedger, test: Callable[[PublishingLoop], Awaitable[None]]) -> PublishingLoop:
    """Run a test with a started loop, and stop it whatever happens."""

    async def main() -> PublishingLoop:
        loop = PublishingLoop(ledger.publisher, interval_seconds=0.0)
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


def test_a_lost_swap_ends_the_loop_for_good(ledger):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        size = beat(ledger)
        other = ledger.make_publisher()
        other.load()
        other.publish()
        loop.notify(size + 1)
        beat(ledger)
        with pytest.raises(StateError, match="ended"):
            await loop.wait_for(size + 1, WAIT_SECONDS)
        assert isinstance(loop.failure, ConflictError)

    run(ledger, test)
    assert len(ledger.published_checkpoints()) == 2, "not even the stop published anything"


def test_two_trees_in_the_anchor_end_the_loop_for_good(ledger):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        ledger.anchor.put(LOG_ID, 2, make_checkpoint(2, tree="b"))
        loop.notify(beat(ledger))
        await until(lambda: loop.failure is not None)
        assert isinstance(loop.failure, ConflictError)

    run(ledger, test)


def test_a_checkpoint_that_covers_a_size_counts_though_the_loop_ended_afterwards(ledger):
    async def test(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        ledger.anchor.put(LOG_ID, 2, make_checkpoint(2, tree="b"))
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
