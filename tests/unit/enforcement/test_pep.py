"""The enforcement point: one decision for every message, durable before anything follows, whatever is raised."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from enforcement.admission import Admission
from enforcement.batches import QueuedRecord
from enforcement.config import GatewayConfig
from enforcement.facts import Pseudonyms
from enforcement.fleet_store import FleetStore
from enforcement.metrics import Metrics
from enforcement.pep import EnforcementPoint
from enforcement.policy_source import PolicySource, StaleBundle
from enforcement.ports import Unavailable
from enforcement.recorder import Recorder
from enforcement.releases import release_batch
from enforcement.server_list import Servers
from enforcement.sessions import Sessions
from enforcement.signals import NO_SAFEGUARDS, Safeguards
from enforcement.state import StateDatabase
from enforcement.strict_windows import StrictWindows
from enforcement.verdicts import Completion, Denied, Inbound, Permitted, Verdict, enforcement_of
from enforcement.vitals import Vitals
from enforcement.windows import Windows
from ledger.bodies import Decision, Outcome
from ledger.clock import SimulatedClock
from ledger.errors import ConflictError, StorageError
from ledger.records import Record, decode_entry
from policies.bundles import Bundle
from policies.model import Decision as PolicyDecision
from policies.model import DecisionRequest, Effect
from tests.support.gateway import ScriptedEvaluator, config_of, identity_of, simple_bundle
from tests.support.gateway_keys import NOON_MS, PSEUDONYM_KEY
from tests.support.mcp_messages import body_of, headers_of
from tests.support.spools import MemoryLedger, batch, heartbeat, open_spool

BUNDLE = simple_bundle()
INBOUND = Inbound(
    server="finance",
    body=body_of(arguments={"amount": 1}),
    headers=headers_of(),
    peer="127.0.0.1",
    identity=identity_of("Finance-Bot"),
)


class FixedPolicies(PolicySource):
    def __init__(self, bundle: Bundle | StaleBundle | None) -> None:
        self.bundle = bundle

    def current(self) -> Bundle | StaleBundle | None:
        return self.bundle


class World:
    """An enforcement point with a real spool and a ledger in memory."""

    def __init__(self, directory: Path, answer: Callable[..., dict[str, Any]] | None = None, **members: Any) -> None:
        bundle = members.pop("bundle", BUNDLE)
        store: FleetStore | None = members.pop("store", None)
        strict_seconds = members.pop("strict_seconds", 30)
        safeguards: Safeguards = members.pop("safeguards", NO_SAFEGUARDS)
        config: GatewayConfig = config_of(directory, "http://127.0.0.1:1", "http://127.0.0.1:1/mcp", **members)
        self.ledger = MemoryLedger()
        self.state, self.spool = open_spool(directory, max_bytes=config.recording.spool_bytes)
        self.reader = StateDatabase(directory)
        pseudonyms = Pseudonyms(PSEUDONYM_KEY)
        self.sessions = Sessions(self.reader, pseudonyms, idle_ms=60_000)
        self.recorder = Recorder(self.spool, self.ledger, config.recording, version="1", vitals=Vitals)
        self.evaluator = ScriptedEvaluator() if answer is None else ScriptedEvaluator(answer)
        self.metrics = Metrics()
        strict = StrictWindows(store, self.metrics, seconds=strict_seconds)
        self.windows = Windows(self.reader, pseudonyms, strict)
        self.clock = SimulatedClock(NOON_MS)
        self.admission = Admission(config, Servers(config.servers), self.sessions, self.clock)
        self.policies = FixedPolicies(bundle)
        self.told: list[tuple[str, PolicyDecision]] = []
        self.fault: Exception | None = None
        self.pep = EnforcementPoint(
            self.admission,
            evaluator=self.evaluator,
            evaluation_seconds=1,
            policies=self.policies,
            recorder=self.recorder,
            sessions=self.sessions,
            windows=self.windows,
            pseudonyms=pseudonyms,
            metrics=self.metrics,
            on_settled=self.settled,
            safeguards=safeguards,
        )

    def settled(self, decision_id: str, request: DecisionRequest, decision: PolicyDecision) -> None:
        assert request.resource.server == "finance"
        self.told.append((decision_id, decision))
        if self.fault is not None:
            raise self.fault

    def run(self, scenario: Callable[[World], Awaitable[None]]) -> World:
        async def play() -> None:
            await self.recorder.start()
            try:
                await scenario(self)
            finally:
                await self.recorder.stop()

        try:
            asyncio.run(play())
        finally:
            self.reader.close()
            self.state.close()
        return self

    def spooled(self) -> list[Record]:
        """All records, whether the ledger has them or they wait."""
        # What waits first: what the ledger takes meanwhile is then seen twice, and not missed.
        waiting = [one.entry for one in self.waiting()]
        entries = [*(one.entry for one in self.ledger.taken), *waiting]
        return list({entry: decode_entry(entry) for entry in entries}.values())

    def waiting(self) -> list[QueuedRecord]:
        """Read the queue in the spool's thread: between two statements of it, a transaction would be seen half done."""

        def read() -> list[QueuedRecord]:
            return self.spool.pending(max_records=1000, max_bytes=1 << 30)

        try:
            call = self.recorder._executor.submit(read)  # nothing else is in order with what it does
        except RuntimeError:  # the recorder has stopped
            return read()
        return call.result()

    def decisions(self) -> list[Decision]:
        return [record.body for record in self.spooled() if isinstance(record.body, Decision)]

    def outcomes(self) -> list[Outcome]:
        return [record.body for record in self.spooled() if isinstance(record.body, Outcome)]


def told(verdict: Verdict) -> dict[str, Any]:
    assert isinstance(verdict, Denied), verdict
    return dict(json.loads(verdict.reply.body)["error"]["data"])


def answering(**members: Any) -> Callable[..., dict[str, Any]]:
    return lambda _: {"effect": Effect.PERMIT, **members}


# --- what is done about an answer


@pytest.mark.parametrize(
    ("effect", "obligations", "expected"),
    [
        (Effect.PERMIT, (), ("allow", "policy")),
        (Effect.PERMIT, ("approval",), ("ask", "policy")),
        (Effect.PERMIT, ("end_session",), ("kill", "policy")),
        (Effect.PERMIT, ("approval", "end_session"), ("kill", "policy")),
        (Effect.PERMIT, ("dance",), ("deny", "unknown_obligation")),
        (Effect.PERMIT, ("approval", "dance"), ("deny", "unknown_obligation")),
        (Effect.DENY, (), ("deny", "policy")),
        (Effect.DENY, ("approval",), ("deny", "policy")),
        (Effect.DENY, ("end_session",), ("kill", "policy")),
        (Effect.INDETERMINATE, (), ("deny", "policy")),
        (Effect.NOT_APPLICABLE, (), ("deny", "policy")),
    ],
)
def test_only_a_permit_whose_obligations_can_be_fulfilled_is_let_through(
    effect: Effect, obligations: tuple[str, ...], expected: tuple[str, str]
) -> None:
    answer = PolicyDecision(
        effect=effect, bundle_revision="00" * 32, engine="e", engine_version="1", obligations=obligations
    )
    assert enforcement_of(answer) == expected


# --- order


def test_a_permit_is_in_the_ledger_before_the_call_may_go(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        verdict = await world.pep.handle(INBOUND)
        assert isinstance(verdict, Permitted)
        assert verdict.decision_id in {one.record_id for one in world.ledger.taken}
        await world.pep.complete(verdict, Completion(status="completed"))
        assert isinstance(world.ledger.bodies()[-1], Outcome)

    World(tmp_path, server={"recording": "strict"}).run(scenario)


@pytest.mark.parametrize("recording", ["strict", "available"])
def test_a_denial_is_in_the_spool_before_the_client_is_answered(tmp_path: Path, recording: str) -> None:
    async def scenario(world: World) -> None:
        world.ledger.answer = lambda _: Unavailable("unreachable")
        verdict = await world.pep.handle(INBOUND)
        waiting = {one.record_id for one in world.spool.pending(max_records=100, max_bytes=1 << 30)}
        assert told(verdict)["decision_id"] in waiting

    world = World(tmp_path, answering(effect=Effect.DENY), server={"recording": recording})
    world.run(scenario)


def test_a_block_is_durable_before_the_client_is_answered(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        verdict = await world.pep.handle(INBOUND)
        assert told(verdict)["enforcement"] == "kill"
        other = StateDatabase(tmp_path)
        assert other.read("SELECT decision_id FROM blocks") == [(told(verdict)["decision_id"],)]
        other.close()

    World(tmp_path, answering(effect=Effect.DENY, obligations=("end_session",))).run(scenario)


# --- exactly one


CASES: dict[str, Inbound] = {
    "permitted": INBOUND,
    "malformed": replace(INBOUND, body=b"{"),
    "incomplete": replace(INBOUND, complete=False),
    "overloaded": replace(INBOUND, overloaded=True),
    "stranger": replace(INBOUND, identity=None),
    "unknown server": replace(INBOUND, server="nowhere"),
    "origin": replace(INBOUND, headers=headers_of(extra=(("origin", "null"),))),
    "no address": replace(INBOUND, peer=None),
    "unknown method": replace(INBOUND, body=body_of("made/up", None), headers=headers_of("made/up", None)),
    "method that is no name": replace(INBOUND, body=body_of("made up", None), headers=headers_of("made up", None)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_message_has_exactly_one_decision_and_every_permit_one_outcome(tmp_path: Path, case: str) -> None:
    async def scenario(world: World) -> None:
        verdict = await world.pep.handle(CASES[case])
        if isinstance(verdict, Permitted):
            await world.pep.complete(verdict, Completion(status="completed"))
            with pytest.raises(ConflictError):
                await world.pep.complete(verdict, Completion(status="failed"))
        (decision,) = world.decisions()
        permitted = decision.decision == "PERMIT" or decision.enforcement == "allow"
        assert len(world.outcomes()) == permitted
        assert isinstance(verdict, Permitted) is (decision.enforcement == "allow")

    World(tmp_path).run(scenario)


FAULTS = ["evaluate", "build_request", "decision_draft", "settle", "touch", "append", "parse_message", "blocked"]


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyError("bug"), StorageError("disk"), TimeoutError()])
@pytest.mark.parametrize("place", FAULTS)
def test_whatever_is_raised_on_the_way_the_call_is_denied_with_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    failures = [error]

    def failing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if failures:
                raise failures.pop()
            return real(*args, **kwargs)

        return call

    async def scenario(world: World) -> None:
        targets: dict[str, tuple[Any, str]] = {
            "evaluate": (world.evaluator, "answer"),
            "touch": (world.sessions, "touch"),
            "settle": (world.sessions, "settle"),
            "blocked": (world.sessions, "blocked"),
            "append": (world.spool, "append"),
        }
        modules = {
            "build_request": "enforcement.admission.build_request",
            "decision_draft": "enforcement.pep.decision_draft",
            "parse_message": "enforcement.admission.parse_message",
        }
        if place in modules:
            module, name = modules[place].rsplit(".", 1)
            monkeypatch.setattr(modules[place], failing(getattr(importlib.import_module(module), name)))
        else:
            owner, name = targets[place]
            monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
        verdict = await world.pep.handle(INBOUND)
        assert not failures
        answer = told(verdict)
        assert "bug" not in str(answer)
        assert answer["decision_id"] in {record.record_id for record in world.spooled()}
        (decision,) = world.decisions()
        assert decision.enforcement == "deny"
        assert (decision.decision == "PERMIT") == (len(world.outcomes()) == 1)

    World(tmp_path, server={"recording": "available"}).run(scenario)


def test_a_failure_after_the_decision_was_recorded_adds_no_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        def fail(*_: object, **__: object) -> Permitted:
            raise RuntimeError("bug")

        monkeypatch.setattr(world.pep, "permitted", fail)
        verdict = await world.pep.handle(INBOUND)
        assert told(verdict)["reason"] == "internal_error"
        (decision,) = world.decisions()
        assert (decision.decision, decision.enforcement) == ("PERMIT", "allow")
        (outcome,) = world.outcomes()
        assert (outcome.status, outcome.reason) == ("not_forwarded", "internal_error")

    World(tmp_path).run(scenario)


def test_a_commit_that_persisted_but_was_reported_lost_adds_no_second_decision(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        append, failures = world.spool.append, [StorageError("reported lost")]

        def persisted_but_failed(batches: Any) -> Any:
            result = append(batches)
            if failures:
                raise failures.pop()
            return result

        world.spool.append = persisted_but_failed  # type: ignore[method-assign]  # the worst kind of disk
        verdict = await world.pep.handle(INBOUND)
        assert isinstance(verdict, Denied)
        assert len(world.decisions()) == 1
        assert [outcome.status for outcome in world.outcomes()] == ["not_forwarded"]

    World(tmp_path, server={"recording": "available"}).run(scenario)


def test_a_failure_that_nothing_can_record_is_still_a_denial(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        def fail(_: object) -> Any:
            raise StorageError("disk")

        append, world.spool.append = world.spool.append, fail  # type: ignore[method-assign]  # the disk is gone
        verdict = await world.pep.handle(INBOUND)
        assert told(verdict)["decision_id"] is None
        assert world.metrics.registry.get_sample_value("tallystick_unrecorded_denials_total") == 1
        world.spool.append = append  # type: ignore[method-assign]  # and back
        assert world.decisions() == []

    World(tmp_path, server={"recording": "available"}).run(scenario)


# --- kills among other calls


def kill_on(name: str) -> Callable[..., dict[str, Any]]:
    def answer(request: Any) -> dict[str, Any]:
        if request.resource.name == name:
            return {"effect": Effect.DENY, "obligations": ("end_session",)}
        return {"effect": Effect.PERMIT}

    return answer


def call_of(name: str) -> Inbound:
    return replace(INBOUND, body=body_of(name=name), headers=headers_of(name=name))


@pytest.mark.parametrize("moment", ["while it is judged", "while it is recorded"])
def test_a_kill_stops_a_call_that_was_under_way_beside_it(tmp_path: Path, moment: str) -> None:
    async def scenario(world: World) -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()
        evaluate, post = world.evaluator.evaluate_many, world.ledger.post

        async def slow_evaluate(bundle: Any, requests: Any) -> Any:
            result = await evaluate(bundle, requests)
            if moment == "while it is judged" and requests[0].resource.name == "slow":
                reached.set()
                await go_on.wait()
            return result

        async def slow_post(records: Any) -> Any:
            if moment == "while it is recorded" and any(b'"tool":"slow"' in record.entry for record in records):
                reached.set()
                await go_on.wait()
            return await post(records)

        world.evaluator.evaluate_many = slow_evaluate  # type: ignore[method-assign]  # waits for the kill
        world.ledger.post = slow_post  # type: ignore[method-assign]  # waits for the kill
        slow = asyncio.create_task(world.pep.handle(call_of("slow")))
        await reached.wait()
        killing = asyncio.create_task(world.pep.handle(call_of("fatal")))
        if moment == "while it is judged":
            assert told(await killing)["enforcement"] == "kill"
        else:
            while not world.sessions._blocked:  # noqa: ASYNC110  # the kill has been decided
                await asyncio.sleep(0)
        go_on.set()
        assert told(await slow)["reason"] == "session_ended"
        await killing
        outcomes = [outcome.reason for outcome in world.outcomes()]
        assert outcomes == ["session_ended"]

    World(tmp_path, kill_on("fatal")).run(scenario)


def test_a_permit_that_ends_the_session_is_no_permit(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert told(await world.pep.handle(INBOUND))["enforcement"] == "kill"
        (outcome,) = world.outcomes()
        assert (outcome.status, outcome.reason) == ("not_forwarded", "session_ended")
        assert told(await world.pep.handle(INBOUND))["reason"] == "session_ended"

    World(tmp_path, answering(obligations=("end_session",))).run(scenario)


def test_a_kill_whose_record_cannot_be_made_durable_blocks_all_the_same(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        def fail(_: object) -> Any:
            raise StorageError("disk")

        append, world.spool.append = world.spool.append, fail  # type: ignore[method-assign]  # the disk is gone
        assert told(await world.pep.handle(call_of("fatal")))["decision_id"] is None
        world.spool.append = append  # type: ignore[method-assign]  # and back
        assert told(await world.pep.handle(INBOUND))["reason"] == "session_ended"

    World(tmp_path, kill_on("fatal")).run(scenario)


def test_a_kill_whose_record_is_refused_for_its_form_is_recorded_without_it_and_blocks(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        assert told(await world.pep.handle(INBOUND))["reason"] == "internal_error"
        assert [block.agent for block in world.sessions.blocks()] == ["Finance-Bot"]
        assert told(await world.pep.handle(INBOUND))["reason"] == "session_ended"

    World(tmp_path, answering(effect=Effect.DENY, obligations=("end_session",), rules=("no name",))).run(scenario)


def test_strangers_who_flood_a_gateway_without_its_ledger_cannot_keep_a_kill_from_being_recorded(
    tmp_path: Path,
) -> None:
    recording = {"strict_seconds": 0.2, "retry_min_seconds": 30, "retry_max_seconds": 60, "spool_bytes": 1 << 16}

    async def flood_then_kill(world: World) -> None:
        stranger = replace(INBOUND, identity=None, body=b"x" * 4000)
        for body in (b"x" * 4000, b"x"):
            while told(await world.pep.handle(replace(stranger, body=body)))["decision_id"] is not None:
                pass
        assert isinstance(await world.pep.handle(INBOUND), Permitted)  # nor can they keep a call from passing
        assert told(await world.pep.handle(call_of("fatal")))["decision_id"] is not None
        assert [decision.enforcement for decision in world.decisions()][-1] == "kill"

    world = World(tmp_path, kill_on("fatal"), recording=recording, server={"recording": "available"})
    world.ledger.answer = lambda _: Unavailable("unreachable")
    world.run(flood_then_kill)

    async def restarted(world: World) -> None:
        assert told(await world.pep.handle(INBOUND))["reason"] == "session_ended"

    World(tmp_path, server={"recording": "available"}).run(restarted)


def test_a_kill_is_recorded_in_a_spool_that_denials_have_filled(tmp_path: Path) -> None:
    recording = {"retry_min_seconds": 30, "retry_max_seconds": 60, "spool_bytes": 1 << 16}

    async def scenario(world: World) -> None:
        unreadable = replace(INBOUND, body=b"x" * 4000)
        for body in (b"x" * 4000, b"x"):
            while told(await world.pep.handle(replace(unreadable, body=body)))["decision_id"] is not None:
                pass
        assert told(await world.pep.handle(call_of("fatal")))["decision_id"] is not None
        assert [block.agent for block in world.sessions.blocks()] == ["Finance-Bot"]

    world = World(tmp_path, kill_on("fatal"), recording=recording, server={"recording": "available"})
    world.ledger.answer = lambda _: Unavailable("unreachable")
    world.run(scenario)


def test_a_block_that_the_disk_did_not_take_is_stored_with_the_next_record(tmp_path: Path) -> None:
    async def kill_without_disk(world: World) -> None:
        with failing_disk(world):
            assert told(await world.pep.handle(call_of("fatal")))["decision_id"] is None
        assert world.sessions.blocks() == []
        assert told(await world.pep.handle(INBOUND))["reason"] == "session_ended"  # this one's record takes it along
        assert [block.agent for block in world.sessions.blocks()] == ["Finance-Bot"]

    World(tmp_path, kill_on("fatal")).run(kill_without_disk)

    async def restarted(world: World) -> None:
        assert told(await world.pep.handle(INBOUND))["reason"] == "session_ended"
        await release(world)
        verdict = await world.pep.handle(INBOUND)
        assert isinstance(verdict, Permitted)
        await world.pep.complete(verdict, Completion(status="completed"))

    World(tmp_path).run(restarted)


def test_a_block_that_was_stored_late_can_be_released(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with failing_disk(world):
            await world.pep.handle(call_of("fatal"))
        await world.recorder.record(batch(heartbeat()), strict=False)
        await release(world)
        assert isinstance(await world.pep.handle(INBOUND), Permitted)

    World(tmp_path, kill_on("fatal"), server={"recording": "available"}).run(scenario)


def test_a_second_kill_whose_record_failed_does_not_keep_a_release_from_taking_effect(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()
        evaluate = world.evaluator.evaluate_many

        async def slow(bundle: Any, requests: Any) -> Any:
            result = await evaluate(bundle, requests)
            reached.set()
            await go_on.wait()
            return result

        world.evaluator.evaluate_many = slow  # type: ignore[method-assign]  # the first to be judged, the last to end
        second = asyncio.create_task(world.pep.handle(call_of("fatal")))
        await reached.wait()
        world.evaluator.evaluate_many = evaluate  # type: ignore[method-assign]  # as it was
        assert told(await world.pep.handle(call_of("fatal")))["decision_id"] is not None
        with failing_disk(world):
            go_on.set()
            assert told(await second)["decision_id"] is None
        await release(world)
        assert isinstance(await world.pep.handle(INBOUND), Permitted)

    World(tmp_path, kill_on("fatal"), server={"recording": "available"}).run(scenario)


def test_an_outcome_that_the_disk_did_not_take_is_stored_with_the_next_heartbeat(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        verdict = await world.pep.handle(INBOUND)
        assert isinstance(verdict, Permitted)
        with failing_disk(world), pytest.raises(StorageError):
            await world.pep.complete(verdict, Completion(status="completed"))
        assert world.outcomes() == []
        async with asyncio.timeout(10):
            while not world.outcomes():  # noqa: ASYNC110  # a heartbeat brings it about
                await asyncio.sleep(0.01)
        assert [outcome.status for outcome in world.outcomes()] == ["completed"]
        assert world.spool.open_calls() == []

    settings = {"server": {"recording": "available"}, "recording": {"heartbeat_seconds": 0.05}}
    World(tmp_path, **settings).run(scenario)


def test_an_outcome_that_had_persisted_all_the_same_is_not_stored_twice(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        verdict = await world.pep.handle(INBOUND)
        assert isinstance(verdict, Permitted)
        append = world.spool.append

        def persisted_but_failed(batches: Any) -> Any:
            append(batches)
            raise StorageError("reported lost")

        world.spool.append = persisted_but_failed  # type: ignore[method-assign]  # the worst kind of disk
        with pytest.raises(StorageError):
            await world.pep.complete(verdict, Completion(status="completed"))
        world.spool.append = append  # type: ignore[method-assign]  # and back
        for first in (1, 2):
            await world.recorder.record(batch(heartbeat(), first=first), strict=False)
        assert len(world.outcomes()) == 1

    World(tmp_path, server={"recording": "available"}).run(scenario)


def test_a_call_whose_answer_cannot_be_described_has_its_outcome_and_the_answer_is_withheld(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: bytes) -> Any:
        raise RecursionError

    monkeypatch.setattr("enforcement.drafts.contents_of", fail)

    async def scenario(world: World) -> None:
        verdict = await world.pep.handle(INBOUND)
        assert isinstance(verdict, Permitted)
        with pytest.raises(StorageError):
            await world.pep.complete(verdict, Completion(status="completed", answer=b"{}", result=b"{}"))
        assert [(one.status, one.reason, one.result) for one in world.outcomes()] == [
            ("failed", "internal_error", None)
        ]
        assert world.spool.open_calls() == []

    World(tmp_path, server={"recording": "available"}).run(scenario)


def test_an_outcome_whose_record_failed_is_closed_by_a_gateway_that_stops(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        verdict = await world.pep.handle(INBOUND)
        assert isinstance(verdict, Permitted)
        with failing_disk(world), pytest.raises(StorageError):
            await world.pep.complete(verdict, Completion(status="failed", reason="no_answer"))

    world = World(tmp_path, server={"recording": "available"}).run(scenario)
    bodies = world.ledger.bodies()
    assert [body.status for body in bodies if isinstance(body, Outcome)] == ["failed"]


@contextmanager
def failing_disk(world: World) -> Iterator[None]:
    def fail(_: object) -> Any:
        raise StorageError("disk")

    append, world.spool.append = world.spool.append, fail  # type: ignore[method-assign]  # the disk is gone
    yield
    world.spool.append = append  # type: ignore[method-assign]  # and back


async def release(world: World) -> None:
    done = release_batch(
        world.sessions,
        Pseudonyms(PSEUDONYM_KEY),
        world.spool.new_record_id,
        agent="Finance-Bot",
        user="alice",
        actor="olga",
        actor_role="operator",
        purpose="looked into",
        now_ms=NOON_MS,
    )
    await world.recorder.record(done, strict=False)


# --- policy at hand


@pytest.mark.parametrize(("bundle", "reason"), [(None, "no_bundle"), (StaleBundle(BUNDLE.revision), "bundle_stale")])
@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_without_a_policy_at_hand_the_decision_is_indeterminate(
    tmp_path: Path, bundle: Any, reason: str, mode: str
) -> None:
    async def scenario(world: World) -> None:
        verdict = await world.pep.handle(INBOUND)
        (decision,) = world.decisions()
        assert (decision.decision, decision.reason, decision.bundle) == ("INDETERMINATE", reason, None)
        assert isinstance(verdict, Permitted) is (mode == "observe")
        if isinstance(verdict, Permitted):
            await world.pep.complete(verdict, Completion(status="completed"))
        assert world.evaluator.asked == []

    World(tmp_path, bundle=bundle, server={"mode": mode}).run(scenario)


@pytest.mark.parametrize("count", [0, 2])
def test_an_evaluator_that_answers_another_number_of_questions_is_not_believed(tmp_path: Path, count: int) -> None:
    async def scenario(world: World) -> None:
        evaluate = world.evaluator.evaluate_many

        async def wrong(bundle: Any, requests: Any) -> Any:
            return (await evaluate(bundle, requests)) * count

        world.evaluator.evaluate_many = wrong  # type: ignore[method-assign]  # a faulty evaluator
        assert told(await world.pep.handle(INBOUND))["reason"] == "engine_error"

    World(tmp_path).run(scenario)


# --- settings of a tool


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        ({"name": "refund_customer", "mode": "observe"}, ("observe", True)),
        ({"name": "refund_customer", "recording": "available"}, ("enforce", False)),
        ({"name": "another", "mode": "observe", "recording": "available"}, ("enforce", True)),
    ],
)
def test_a_tools_own_settings_go_before_the_servers(
    tmp_path: Path, tool: dict[str, str], expected: tuple[str, bool]
) -> None:
    async def scenario(world: World) -> None:
        verdict = await world.pep.handle(INBOUND)
        assert isinstance(verdict, Permitted)
        (decision,) = world.decisions()
        assert (decision.mode, verdict.strict) == expected
        await world.pep.complete(verdict, Completion(status="completed"))

    World(tmp_path, server={"tools": [tool]}).run(scenario)


def test_a_prompt_that_has_a_tools_name_does_not_get_its_settings(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        body, headers = body_of("prompts/get"), headers_of("prompts/get")
        verdict = await world.pep.handle(replace(INBOUND, body=body, headers=headers))
        assert told(verdict)["reason"] == "policy"

    tool = {"name": "refund_customer", "mode": "observe"}
    World(tmp_path, answering(effect=Effect.DENY), server={"tools": [tool]}).run(scenario)


def test_a_resources_uri_stays_out_of_the_open(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        uri = "file:///home/alice/diary"
        body = body_of("resources/read", uri)
        headers = headers_of("resources/read", uri)
        verdict = await world.pep.handle(replace(INBOUND, body=body, headers=headers))
        assert isinstance(verdict, Permitted)
        (decision,) = world.decisions()
        assert (decision.method, decision.tool) == ("resources/read", None)
        assert world.evaluator.asked[0].resource.name == uri
        await world.pep.complete(verdict, Completion(status="completed"))

    World(tmp_path).run(scenario)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


# --- who is told of what was settled


@pytest.mark.parametrize("effect", [Effect.PERMIT, Effect.DENY])
def test_what_a_policy_said_is_told_once_it_is_durable_under_the_records_id(tmp_path: Path, effect: Effect) -> None:
    async def scenario(world: World) -> None:
        await world.pep.handle(INBOUND)
        ((decision_id, decision),) = world.told
        assert decision.effect is effect
        records = [record for record in world.spooled() if isinstance(record.body, Decision)]
        assert [record.record_id for record in records] == [decision_id]

    World(tmp_path, lambda _: {"effect": effect}).run(scenario)


def test_whoever_is_told_and_fails_changes_no_decision(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        world.fault = RuntimeError("the queue burst")
        assert isinstance(await world.pep.handle(INBOUND), Permitted)
        assert [body.enforcement for body in world.decisions()] == ["allow"]

    World(tmp_path).run(scenario)


def test_nothing_is_told_where_no_policy_was_asked(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.pep.handle(INBOUND)

    world = World(tmp_path, bundle=None).run(scenario)
    assert world.told == []
