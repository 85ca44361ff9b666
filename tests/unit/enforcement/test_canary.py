"""The canary: what it would have decided otherwise is recorded, and no fault of it touches a decision."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from enforcement import canary as module
from enforcement.batches import Batch, Item, Room
from enforcement.canary import MAX_WAITING, Canary
from enforcement.config import RecordingSettings
from enforcement.metrics import Metrics
from enforcement.ports import Unavailable
from enforcement.recorder import Recorder
from enforcement.spool import Spool
from enforcement.vitals import Vitals
from ledger.bodies import Body, Shadow, ShadowCount
from ledger.envelopes import ED25519
from ledger.errors import OverloadedError
from ledger.keys import generate_key
from ledger.records import Record, decode_entry
from ledger.signers.local import LocalEnvelopeSigner
from policies.bundles import Bundle
from policies.evaluate import Evaluation, Reason
from policies.model import Decision, DecisionRequest, Effect
from tests.support.gateway import ScriptedEvaluator, deny_tool, simple_bundle
from tests.support.policies import make_request
from tests.support.spools import MemoryLedger, decision, open_spool

IN_FORCE, OTHER, THIRD = simple_bundle("in force"), simple_bundle("other"), simple_bundle("third")
REQUEST = make_request()
TOOL = REQUEST.resource.name


class Source:
    """Hands out what the test says."""

    def __init__(self, bundle: Bundle | Unavailable) -> None:
        self.bundle = bundle

    async def canary(self) -> bytes | Unavailable:
        return self.bundle if isinstance(self.bundle, Unavailable) else self.bundle.archive()

    async def signature(self, revision: str) -> bytes | Unavailable:
        return Unavailable(f"http_404 {revision}")


class Apart(ScriptedEvaluator):
    """A scripted evaluator with the lane of a canary; what it raises, the test says."""

    error: Exception | None = None

    async def evaluate_apart(self, bundle: Bundle, requests: Sequence[DecisionRequest]) -> list[Evaluation]:
        if self.error is not None:
            raise self.error
        return await self.evaluate_many(bundle, requests)


class World:
    """A canary over a real recorder and spool, with a ledger in memory."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.ledger = MemoryLedger()
        self.state, self.spool = open_spool(directory, **options)
        self.recorder = Recorder(self.spool, self.ledger, RecordingSettings(), version="1", vitals=Vitals)
        self.metrics = Metrics()
        self.canary = Canary(self.metrics)
        self.source = Source(OTHER)
        self.evaluator = Apart(deny_tool(TOOL))
        self.trusted: Sequence[Any] = ()

    def run(self, scenario: Callable[[World], Awaitable[None]]) -> World:
        async def play() -> None:
            await self.recorder.start()
            try:
                self.canary.start(self.source, self.evaluator, self.recorder, self.trusted)
                await scenario(self)
            finally:
                await self.canary.stop()
                await self.recorder.stop()

        try:
            asyncio.run(play())
        finally:
            self.state.close()
        return self

    def offer(self, effect: Effect = Effect.PERMIT, **members: Any) -> str:
        made = {"rules": ("scripted-rule",), **members}
        decided = Decision(
            effect=effect, bundle_revision=IN_FORCE.revision, engine="scripted", engine_version="1", **made
        )
        decision_id = self.recorder.new_record_id()
        self.canary.offer(decision_id, REQUEST, decided)
        return decision_id

    async def until(self, result: str, number: int) -> None:
        async with asyncio.timeout(20):
            while self.counted(result) < number:  # noqa: ASYNC110  # a counter
                await asyncio.sleep(0.001)

    async def taken_up(self, bundle: Bundle = OTHER) -> None:
        self.canary.follow(bundle.revision)
        async with asyncio.timeout(20):
            while self.canary.revision != bundle.revision:  # noqa: ASYNC110  # another task's
                await asyncio.sleep(0.001)

    def counted(self, result: str) -> float:
        return self.metrics.shadows.labels(result)._value.get()  # type: ignore[no-any-return]  # of the client library

    def bodies(self) -> list[Body]:
        entries: list[Record] = [decode_entry(one.entry) for one in self.ledger.taken]
        return [record.body for record in entries]

    def shadows(self) -> list[Shadow]:
        return [body for body in self.bodies() if isinstance(body, Shadow)]

    def counts(self) -> list[ShadowCount]:
        return [body for body in self.bodies() if isinstance(body, ShadowCount)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_difference_is_recorded_with_both_answers_and_what_is_equal_is_counted(world: World) -> None:
    offered: list[str] = []

    async def scenario(world: World) -> None:
        await world.taken_up()
        offered.append(world.offer())
        world.offer(Effect.DENY, failed_condition=f"{TOOL}-forbidden")
        await world.until("equal", 1)
        await world.until("different", 1)

    world.run(scenario)
    (shadow,) = world.shadows()
    assert shadow.decision_id == offered[0]
    assert (shadow.enforced, shadow.decision) == ("PERMIT", "DENY")
    assert (shadow.enforced_revision, shadow.bundle.revision) == (IN_FORCE.revision, OTHER.revision)
    assert shadow.bundle.engine_version == "1"
    assert shadow.differs == ("effect", "failed_condition")
    assert sum(count.equal for count in world.counts()) == 1
    assert sum(count.different for count in world.counts()) == 1


def test_without_a_canary_nothing_is_evaluated_and_nothing_recorded(world: World) -> None:
    async def scenario(world: World) -> None:
        world.offer()
        await asyncio.sleep(0)

    world.run(scenario)
    assert world.evaluator.asked == []
    assert world.shadows() == []
    assert world.counts() == []


def test_a_decision_of_the_canary_itself_is_not_compared(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.taken_up(OTHER)
        same = Decision(effect=Effect.PERMIT, bundle_revision=OTHER.revision, engine="scripted", engine_version="1")
        world.canary.offer(world.recorder.new_record_id(), REQUEST, same)

    world.run(scenario)
    assert world.evaluator.asked == []
    assert world.counts() == []


def test_beyond_the_bound_decisions_are_dropped_and_counted(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.taken_up()
        for _ in range(MAX_WAITING + 3):  # without a pause, so that nothing is compared meanwhile
            world.offer()
        world.canary.follow(None)

    world.run(scenario)
    assert world.shadows() == []
    assert [(count.dropped, count.different) for count in world.counts()] == [(MAX_WAITING + 3, 0)]


def test_long_arguments_are_bounded_as_well(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING_CHARS", len(REQUEST.arguments))

    async def scenario(world: World) -> None:
        await world.taken_up()
        world.offer()
        world.offer()
        await world.until("different", 1)

    world.run(scenario)
    assert world.counted("dropped") == 1


def test_an_evaluator_that_fails_is_counted_and_asked_again(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.taken_up()
        world.evaluator.error = RuntimeError("the engine burst")
        world.offer()
        await world.until("incomparable", 1)
        world.evaluator.error = None
        world.offer()
        await world.until("different", 1)

    world.run(scenario)
    assert len(world.shadows()) == 1


@pytest.mark.parametrize("reason", [Reason.LIMITED, Reason.ENGINE_ERROR, Reason.BUNDLE_ERROR])
def test_what_a_limit_or_a_failure_decided_is_compared_with_nothing(world: World, reason: Reason) -> None:
    world.evaluator.answer = lambda _: {"effect": Effect.INDETERMINATE, "reason": reason}

    async def scenario(world: World) -> None:
        await world.taken_up()
        world.offer()
        await world.until("incomparable", 1)

    world.run(scenario)
    assert world.shadows() == []


def test_nor_is_it_where_the_decision_that_counted_was_made_so(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.taken_up()
        world.offer(Effect.INDETERMINATE, reason=Reason.LIMITED)
        await world.until("incomparable", 1)

    world.run(scenario)
    assert world.shadows() == []


def test_what_the_spool_has_no_room_for_is_counted_as_unrecorded(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.taken_up()
        world.offer()
        await world.until("unrecorded", 1)

    world = World(tmp_path, max_bytes=64)
    world.run(scenario)
    assert world.counted("different") == 1
    assert world.shadows() == []


def test_a_shadow_finds_no_room_where_a_decision_still_does(tmp_path: Path) -> None:
    state, spool = open_spool(tmp_path, max_bytes=4096)
    try:
        refused = fill(spool)
        assert isinstance(refused, OverloadedError)
        (result,) = spool.append([Batch(items=(Item(spool.new_record_id(), decision()),))])
        assert not isinstance(result, OverloadedError)
    finally:
        state.close()


def fill(spool: Spool) -> object:
    """Append counts of a canary until one is refused, and return that."""
    for _ in range(100):
        draft = decision(b"").__class__(body=ShadowCount(revision=OTHER.revision, equal=1))
        (result,) = spool.append([Batch(items=(Item(spool.new_record_id(), draft),), room=Room.SHADOW)])
        if not isinstance(result, list):
            return result
    return None


@pytest.mark.parametrize("handed_out", [THIRD, Unavailable("unreachable")], ids=["another", "none"])
def test_an_archive_that_is_not_the_one_that_was_named_is_not_evaluated(
    world: World, handed_out: Bundle | Unavailable
) -> None:
    world.source.bundle = handed_out

    async def scenario(world: World) -> None:
        world.canary.follow(OTHER.revision)
        world.offer()
        await world.until("dropped", 1)

    world.run(scenario)
    assert world.evaluator.asked == []


def test_where_bundles_must_be_signed_a_canary_must_be_too(world: World) -> None:
    world.trusted = [
        LocalEnvelopeSigner(generate_key("bundle", ED25519, "ann", created_ms=1), purpose="bundle").envelope_key
    ]

    async def scenario(world: World) -> None:
        world.canary.follow(OTHER.revision)
        world.offer()
        await world.until("dropped", 1)

    world.run(scenario)
    assert world.evaluator.asked == []


def test_another_canary_takes_over_and_the_counts_of_the_first_are_its_own(world: World) -> None:
    async def scenario(world: World) -> None:
        await world.taken_up()
        world.offer()
        await world.until("different", 1)
        world.source.bundle = THIRD
        await world.taken_up(THIRD)
        world.offer()
        await world.until("different", 2)

    world.run(scenario)
    assert [shadow.bundle.revision for shadow in world.shadows()] == [OTHER.revision, THIRD.revision]
    told = dict.fromkeys((OTHER.revision, THIRD.revision), 0)
    for count in world.counts():
        told[count.revision] += count.different
    assert told == {OTHER.revision: 1, THIRD.revision: 1}
