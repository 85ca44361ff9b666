"""The service's own stream: numbered without gaps, signed, durable before it answers, and found again after trouble."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.bodies import AccessEvent, Heartbeat
from ledger.commitments import pseudonym
from ledger.errors import (
    CommitmentError,
    ConflictError,
    MalformedError,
    OverloadedError,
    StaleKeysError,
    StateError,
    StorageError,
)
from ledger.ports import Acknowledgement, Draft, Opening, commit
from ledger.records import Record, verify_record_signature
from ledger.sequencer import Sequencer
from service.access import AccessRecorder
from service.auth import Caller, Role
from service.ingest import LogIdentity
from service.recorder import ServiceRecorder
from tests.support.faults import Effect, Faults, FaultyLogStore, Write
from tests.support.ledger import LOG_ID, EmbeddedLedger, Enforcer, make_decision, pending

IDENTITY = LogIdentity(log_id=LOG_ID, tenant="acme", environment="test", simulated=True)
PSEUDONYM_KEY = b"p" * 32
JANE = Caller(log_id=LOG_ID, name="jane", role=Role.RESPONDER, enforcer_id=None, token_sha256="0" * 64)


def heartbeat(depth: int = 0) -> Draft:
    return Draft(body=Heartbeat(kind="periodic", version="1", spool_depth=depth))


class Writing:
    """A recorder over a ledger whose writes can be broken."""

    def __init__(self, root: Path, *, faults: Faults | None = None, **options: Any) -> None:
        self.faults = faults or Faults()
        self.ledger = EmbeddedLedger(root, load=False)
        self.noted: list[tuple[int, Record]] = []
        self._options = options

    def recorder(self, sequencer: Sequencer) -> ServiceRecorder:
        return ServiceRecorder(
            IDENTITY,
            "service",
            key=lambda: self.ledger.service.key,
            pseudonym_key_id=lambda: "ab" * 8,
            sequencer=sequencer,
            catalog=self.ledger.catalog,
            read=self.ledger.reader.record,
            vault=self.ledger.vault,
            clock=self.ledger.clock,
            on_record=lambda index, record: self.noted.append((index, record)),
        )

    def run(self, work: Callable[[ServiceRecorder], Awaitable[Any]]) -> Any:
        """Do something with a recorder of a process of its own, as it were."""

        async def whole() -> Any:
            store = FaultyLogStore(self.ledger.store, self.faults)
            sequencer = Sequencer(store, LOG_ID, self.ledger.clock, **self._options)
            await sequencer.start()
            try:
                return await work(self.recorder(sequencer))
            finally:
                await sequencer.stop()

        return asyncio.run(whole())

    def records(self) -> list[Record]:
        return [self.ledger.reader.record(index) for index in range(self.ledger.store.sequenced_size(LOG_ID))]


@pytest.fixture
def writing(tmp_path: Path) -> Writing:
    return Writing(tmp_path)


def numbers(writing: Writing) -> list[tuple[str, int]]:
    return [(record.epoch, record.seq) for record in writing.records()]


# --- the stream ------------------------------------------------------------------------------------------------------


def test_records_are_numbered_from_one_and_signed_with_all_that_a_log_asks_of_them(writing):
    done = writing.run(lambda recorder: recorder.append([heartbeat(), heartbeat(1)]))
    assert [(item.index, item.duplicate) for item in done] == [(0, False), (1, False)]
    records = writing.records()
    assert [record.seq for record in records] == [1, 2]
    for record in records:
        verify_record_signature(record, bytes(writing.ledger.service.key.verify_key))
        assert (record.log_id, record.tenant, record.environment) == (LOG_ID, "acme", "test")
        assert (record.enforcer_id, record.simulated, record.running_count) == ("service", True, 0)
        assert record.pseudonym_key_id == "ab" * 8
        assert record.time_ms == writing.ledger.clock.now_ms()
    assert records == [record for _, record in writing.noted]


def test_many_at_once_are_numbered_without_gap_or_double(writing):
    async def many(recorder: ServiceRecorder) -> None:
        await asyncio.gather(*(recorder.append([heartbeat(n)] * (1 + n % 3)) for n in range(40)))

    writing.run(many)
    assert [record.seq for record in writing.records()] == list(range(1, len(writing.noted) + 1))
    assert len({record.epoch for record in writing.records()}) == 1


def decided() -> Draft:
    body, openings = make_decision()
    kept = tuple(opening for opening in openings if getattr(body, opening.field) is not None)
    return Draft(body=body, openings=kept)


def test_decisions_are_counted_along_and_a_later_process_goes_on_counting(writing):
    for _ in range(2):
        writing.run(lambda recorder: recorder.append([decided(), heartbeat(), decided()]))
        writing.run(lambda recorder: recorder.append([heartbeat()]))
    assert [record.running_count for record in writing.records()] == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_batch_that_was_refused_counts_nothing(tmp_path):
    writing = Writing(tmp_path)

    async def race(recorder: ServiceRecorder) -> None:
        await recorder.append([decided()])
        # Another process of the same service writes, so that the next number is taken.
        await writing.recorder(recorder._sequencer).append([decided()])
        await recorder.append([decided()])

    writing.run(race)
    assert [record.running_count for record in writing.records()] == [1, 2, 3]


def test_a_record_with_an_id_that_is_taken_is_a_conflict_at_once_and_nothing_of_its_batch_is_written(writing):
    taken = Draft(body=heartbeat().body, record_id="01a1fcad-9ff9-850b-91ac-898a54d423a5")
    writing.run(lambda recorder: recorder.append([taken]))
    with pytest.raises(ConflictError):
        writing.run(lambda recorder: recorder.append([heartbeat(), taken]))
    assert [record.record_id for record in writing.records()] == [taken.record_id]
    writing.run(lambda recorder: recorder.append([heartbeat()]))
    assert [record.seq for record in writing.records()] == [1, 2]


def test_a_later_process_goes_on_where_the_log_stands(writing):
    for _ in range(3):
        writing.run(lambda recorder: recorder.append([heartbeat()]))
    assert [seq for _, seq in numbers(writing)] == [1, 2, 3]
    assert len({epoch for epoch, _ in numbers(writing)}) == 1


def test_a_clock_that_was_set_back_does_not_stop_the_stream(writing):
    def at(offset: int) -> None:
        writing.ledger.clock.advance(offset)
        writing.run(lambda recorder: recorder.append([heartbeat()]))

    at(1000)
    writing.ledger.clock._now_ms -= 3_600_000
    at(0)
    assert [seq for _, seq in numbers(writing)] == [1, 2]
    assert len({record.record_id for record in writing.records()}) == 2


# --- trouble ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [Effect.LOST, Effect.KEPT])
def test_after_a_failure_that_may_have_persisted_the_log_is_asked_for_the_position(writing, effect):
    async def work(recorder: ServiceRecorder) -> None:
        await recorder.append([heartbeat()])
        writing.faults.arm(Write.SEQUENCE, effect)
        with pytest.raises(StorageError):
            await recorder.append([heartbeat(1)])
        await recorder.append([heartbeat(2)])

    writing.run(work)
    assert [seq for _, seq in numbers(writing)] == ([1, 2] if effect is Effect.LOST else [1, 2, 3])
    assert [record.body.spool_depth for _, record in writing.noted] == [0, 2], "what failed was not said to be there"


def test_what_another_process_of_the_same_id_wrote_is_followed_without_gap_or_failure(writing):
    async def work(recorder: ServiceRecorder) -> None:
        await recorder.append([heartbeat()])
        other = writing.ledger.service
        other.epoch, other.seq = writing.records()[0].epoch, 1
        for _ in range(3):
            writing.ledger.append(pending(other.record(other.heartbeat())))
        done = await recorder.append([heartbeat(1), heartbeat(2)])
        assert [(item.index, item.duplicate) for item in done] == [(4, False), (5, False)]

    writing.run(work)
    assert [seq for _, seq in numbers(writing)] == [1, 2, 3, 4, 5, 6]
    assert len({epoch for epoch, _ in numbers(writing)}) == 1


@pytest.mark.parametrize("processes", [2, 4])
def test_many_processes_write_one_stream_without_gap_or_double(writing, processes):
    async def many(_: ServiceRecorder) -> None:
        sequencers = [Sequencer(writing.ledger.store, LOG_ID, writing.ledger.clock) for _ in range(processes)]
        for sequencer in sequencers:
            await sequencer.start()
        recorders = [writing.recorder(sequencer) for sequencer in sequencers]
        await recorders[0].append([heartbeat()])
        await asyncio.gather(*(recorder.append([heartbeat()] * 2) for recorder in recorders for _ in range(8)))
        for sequencer in sequencers:
            await sequencer.stop()

    writing.run(many)
    assert [seq for _, seq in numbers(writing)] == list(range(1, 2 + 16 * processes))
    assert len({epoch for epoch, _ in numbers(writing)}) == 1


def test_a_number_that_is_refused_time_and_again_is_told_and_leaves_no_gap(writing, monkeypatch):
    async def work(recorder: ServiceRecorder) -> None:
        await recorder.append([heartbeat()])
        real = recorder._sequencer.append

        async def refuse(_: object) -> list[Acknowledgement]:
            raise ConflictError("injected")

        monkeypatch.setattr(recorder._sequencer, "append", refuse)
        with pytest.raises(ConflictError):
            await recorder.append([heartbeat(1)])
        monkeypatch.setattr(recorder._sequencer, "append", real)
        await recorder.append([heartbeat(2)])

    monkeypatch.setattr("service.recorder._LONGEST_PAUSE_MS", 0)
    writing.run(work)
    assert [(record.seq, record.body.spool_depth) for record in writing.records()] == [(1, 0), (2, 2)]


def test_what_follows_from_older_keys_than_the_log_has_is_refused_and_not_tried_again(writing):
    async def work(recorder: ServiceRecorder) -> None:
        await recorder.append([Draft(body=writing.ledger.service.introduction())], keys_leaf=-1)
        for stale in (-1, -1):
            with pytest.raises(StaleKeysError):
                await recorder.append([heartbeat(1)], keys_leaf=stale)
        await recorder.append([heartbeat(2)], keys_leaf=0)

    writing.run(work)
    assert [record.seq for record in writing.records()] == [1, 2]


def test_what_was_refused_because_too_much_waits_leaves_no_gap(tmp_path):
    writing = Writing(tmp_path, max_waiting_records=1)
    body, openings = make_decision()
    enforcer = Enforcer("gateway-1", seed=21)
    crowd = [pending(enforcer.record(body), writing.ledger.vault, openings) for _ in range(3)]
    go_on = threading.Event()

    async def work(recorder: ServiceRecorder) -> None:
        await recorder.append([heartbeat()])
        writing.faults.on_write = lambda _: go_on.wait(10)
        waiting = asyncio.create_task(recorder._sequencer.append(crowd))
        await asyncio.sleep(0)
        try:
            with pytest.raises(OverloadedError):
                await recorder.append([heartbeat(1)])
        finally:
            go_on.set()
        await waiting
        await recorder.append([heartbeat(2)])

    writing.run(work)
    assert [record.seq for record in writing.records() if record.enforcer_id == "service"] == [1, 2]


@pytest.mark.parametrize(
    "draft",
    [
        Draft(body=AccessEvent(action="x y", actor="a" * 32, actor_role="admin", target_kind="log", result="ok")),
        Draft(body=AccessEvent(action="", actor="a" * 32, actor_role="admin", target_kind="log", result="ok")),
        Draft(body=AccessEvent(action="x", actor="jane", actor_role="admin", target_kind="log", result="ok")),
        Draft(body=AccessEvent(action="x", actor="a" * 32, actor_role="admin", target_kind="l\n", result="ok")),
        Draft(
            body=AccessEvent(action="x", actor="a" * 32, actor_role="admin", target_kind="log", result="ok", items=-1)
        ),
        Draft(body=Heartbeat(kind="whenever", version="1", spool_depth=0)),
    ],
)
def test_what_could_not_be_read_again_is_never_written_and_leaves_no_gap(writing, draft):
    """msgspec checks what it reads and not what it writes: such an entry would stop every reader of the log."""

    async def work(recorder: ServiceRecorder) -> None:
        await recorder.append([heartbeat()])
        with pytest.raises(MalformedError):
            await recorder.append([heartbeat(1), draft])
        await recorder.append([heartbeat(2)])

    writing.run(work)
    assert [(record.seq, record.body.spool_depth) for record in writing.records()] == [(1, 0), (2, 2)]


def test_a_commitment_comes_with_its_opening_or_not_at_all(writing):
    commitment, opening = commit("purpose", b"s" * 16, b"an inquiry")
    body = AccessEvent(
        action="x", actor="a" * 32, actor_role="admin", target_kind="log", result="ok", purpose=commitment
    )

    async def work(recorder: ServiceRecorder) -> None:
        with pytest.raises(MalformedError):
            await recorder.append([Draft(body=body)])
        with pytest.raises(CommitmentError):
            await recorder.append([Draft(body=body, openings=(Opening("purpose", b"t" * 16, b"an inquiry"),))])
        await recorder.append([Draft(body=body, openings=(opening,))])

    writing.run(work)
    (record,) = writing.records()
    assert writing.ledger.vault.open(record, "purpose").payload == b"an inquiry"


def test_a_caller_who_goes_away_does_not_leave_the_position_unknown(writing):
    async def work(recorder: ServiceRecorder) -> None:
        going = asyncio.create_task(recorder.append([heartbeat()]))
        await asyncio.sleep(0)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        await recorder.append([heartbeat(1)])

    writing.run(work)
    assert [(record.seq, record.body.spool_depth) for record in writing.records()] == [(1, 0), (2, 1)]


def test_after_the_sequencer_has_stopped_nothing_is_recorded_and_that_is_said(writing):
    async def work(recorder: ServiceRecorder) -> None:
        await recorder._sequencer.stop()
        with pytest.raises(StateError):
            await recorder.append([heartbeat()])

    writing.run(work)
    assert writing.records() == []


# --- access events ---------------------------------------------------------------------------------------------------


def access(writing: Writing, make: Callable[[AccessRecorder], Draft]) -> Record:
    async def work(recorder: ServiceRecorder) -> None:
        events = AccessRecorder(recorder, lambda: PSEUDONYM_KEY)
        await events.record([make(events)])

    writing.run(work)
    return writing.records()[-1]


def test_an_access_is_recorded_under_a_pseudonym_and_the_role(writing):
    record = access(writing, lambda events: events.draft(JANE, "query", "decisions", items=3))
    assert record.body == AccessEvent(
        action="query",
        actor=pseudonym(PSEUDONYM_KEY, "actor", "jane"),
        actor_role="responder",
        target_kind="decisions",
        result="ok",
        items=3,
    )


def test_a_purpose_is_in_the_vault_and_not_in_the_leaf(writing):
    record = access(writing, lambda events: events.draft(JANE, "open_payload", "record", purpose="Müller's complaint"))
    (index,) = writing.ledger.catalog.of_type(LOG_ID, "access")
    (entry,) = writing.ledger.reader.entries(index, index + 1)
    assert b"complaint" not in entry
    assert writing.ledger.vault.open(record, "purpose").payload == "Müller's complaint".encode()


def test_one_purpose_given_twice_looks_different_each_time(writing):
    drafts = [
        AccessRecorder(None, lambda: PSEUDONYM_KEY).draft(JANE, "x", "record", purpose="the same") for _ in range(2)
    ]
    assert drafts[0].body.purpose != drafts[1].body.purpose


def test_a_stranger_is_recorded_by_the_pseudonym_of_his_address(writing):
    record = access(
        writing, lambda events: events.stranger_draft("192.0.2.7", "login", "dashboard", result="dead_link")
    )
    assert (record.body.actor, record.body.actor_role, record.body.result) == (
        pseudonym(PSEUDONYM_KEY, "address", "192.0.2.7"),
        "unauthenticated",
        "dead_link",
    )


def test_a_name_and_an_address_that_are_spelt_alike_have_two_pseudonyms():
    events = AccessRecorder(None, lambda: PSEUDONYM_KEY)
    stranger = events.stranger_draft("jane", "login", "dashboard", result="x").body.actor
    assert stranger != events.actor(JANE)
