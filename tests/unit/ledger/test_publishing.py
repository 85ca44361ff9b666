"""The publishing loop: who waits for it, what it repeats, and what ends it for good."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ledger import publishing
from ledger.errors import AnchorError, ConflictError, StateError, StorageError
from ledger.publishing import PublishingLoop
from tests.support.faults import Effect, Write
from tests.support.ledger import EmbeddedLedger, pending

WAIT_SECONDS = 10


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "_RETRY_SECONDS", 0.01)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[EmbeddedLedger]:
    with EmbeddedLedger(tmp_path, load=False) as opened:
        opened.introduce()
        yield opened


def beat(ledger: EmbeddedLedger) -> None:
    ledger.append(pending(ledger.service.record(ledger.service.heartbeat())))


def run(ledger: EmbeddedLedger, work: Callable[[PublishingLoop], Awaitable[Any]]) -> PublishingLoop:
    """Let a loop publish while ``work`` goes on; returns the loop, stopped."""

    async def all_of_it() -> PublishingLoop:
        loop = PublishingLoop(ledger.publisher, interval_seconds=0.01)
        await loop.start()
        try:
            await work(loop)
        finally:
            await loop.stop()
        return loop

    return asyncio.run(all_of_it())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110  # any condition of the test's
            await asyncio.sleep(0.002)


def test_what_was_sequenced_before_the_start_is_published_without_waiting_for_more(ledger):
    async def work(loop: PublishingLoop) -> None:
        assert (await loop.wait_for(1, WAIT_SECONDS)).head.size == 1

    loop = run(ledger, work)
    assert loop.failure is None
    assert loop.trouble is None
    assert loop.anchor_status.receipt is not None


def test_whoever_waits_is_answered_by_the_checkpoint_that_covers_what_he_waits_for(ledger):
    async def work(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        waiting = asyncio.create_task(loop.wait_for(2, WAIT_SECONDS))
        await asyncio.sleep(0.03)
        assert not waiting.done()
        ledger.clock.advance(1000)
        beat(ledger)
        loop.notify(2)
        assert (await waiting).head.size == 2

    run(ledger, work)


def test_whoever_waits_too_long_is_told_so(ledger):
    async def work(loop: PublishingLoop) -> None:
        with pytest.raises(StateError, match=r"no checkpoint covered 9 leaves within 0\.05 s"):
            await loop.wait_for(9, 0.05)

    run(ledger, work)


def test_what_is_sequenced_at_the_end_is_published_by_the_stop(ledger):
    async def work(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        ledger.clock.advance(1000)
        beat(ledger)

    published = run(ledger, work).published
    assert published is not None
    assert published.head.size == 2


@pytest.mark.parametrize("effect", [Effect.LOST, Effect.KEPT])
@pytest.mark.parametrize("write", [Write.PUT_BUNDLE, Write.PUT_TILE, Write.SWAP, Write.EXPOSE, Write.RELEASE])
def test_a_storage_error_is_trouble_and_is_repeated(ledger, write, effect):
    async def work(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        await until(lambda: loop.anchor_status.receipt is not None)
        ledger.clock.advance(1000)
        beat(ledger)
        seen: list[str] = []
        ledger.faults.on_write = lambda _: seen.append(loop.trouble or "none")
        ledger.faults.arm(write, effect)
        loop.notify(2)
        assert (await loop.wait_for(2, WAIT_SECONDS)).head.size == 2
        await until(lambda: loop.trouble is None and "injected" in seen)

    assert run(ledger, work).failure is None


def test_a_clock_that_was_set_back_is_trouble_that_is_named_and_passes_with_the_clock(ledger):
    async def work(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        beat(ledger)
        now_ms = ledger.clock.now_ms()
        behind = ledger.publisher._clock
        ledger.publisher._clock = _Clock(now_ms - 5000)
        loop.notify(2)
        await until(lambda: loop.trouble is not None)
        assert "5 s behind the last signed checkpoint" in str(loop.trouble)
        ledger.publisher._clock = behind
        assert (await loop.wait_for(2, WAIT_SECONDS)).head.size == 2

    assert run(ledger, work).failure is None


class _Clock:
    simulated = True

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms


@pytest.mark.parametrize(
    "error", [ConflictError("another checkpoint was published meanwhile"), ZeroDivisionError("4111 1111 1111 1111")]
)
def test_a_lost_swap_or_an_error_nobody_expected_ends_the_loop_for_good(ledger, monkeypatch, error):
    async def work(loop: PublishingLoop) -> None:
        await loop.wait_for(1, WAIT_SECONDS)
        ledger.clock.advance(1000)
        beat(ledger)

        def fail() -> None:
            raise error

        monkeypatch.setattr(ledger.publisher, "publish", fail)
        loop.notify(2)
        await until(lambda: loop.failure is not None)
        assert "4111" not in str(loop.failure)
        with pytest.raises(StateError, match="publishing has ended"):
            await loop.wait_for(2, WAIT_SECONDS)
        # What a checkpoint covers can still be proved.
        assert (await loop.wait_for(1, WAIT_SECONDS)).head.size == 1

    loop = run(ledger, work)
    assert isinstance(loop.failure, ConflictError | StorageError)
    assert error in (loop.failure, loop.failure.__cause__)


def test_an_anchor_that_fails_stops_nothing_and_is_tried_again(ledger, monkeypatch):
    put = ledger.publisher._anchor.put
    refused: list[int] = []

    def refuse_once(log_id: str, size: int, checkpoint: bytes) -> object:
        if not refused:
            refused.append(size)
            raise AnchorError("the bucket does not answer")
        return put(log_id, size, checkpoint)

    monkeypatch.setattr(ledger.publisher._anchor, "put", refuse_once)

    async def work(loop: PublishingLoop) -> None:
        assert (await loop.wait_for(1, WAIT_SECONDS)).head.size == 1
        await until(lambda: loop.anchor_status.failure is not None or loop.anchor_status.receipt is not None)
        await until(lambda: loop.anchor_status.receipt is not None)

    loop = run(ledger, work)
    assert loop.trouble is None
    assert loop.failure is None
    assert refused == [1]
