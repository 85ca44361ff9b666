"""Back-pressure over HTTP: what waits is bounded in records and in bytes; the rest is told to come again.

The store is held up for as long as a test needs, so that nothing here depends on who is faster.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from ledger.bodies import Facts, Outcome
from ledger.ports import commit
from ledger.proof_files import parse_proof_file, verify_entry
from ledger.records import encode_record
from ledger.tiles import MAX_ENTRY_BYTES
from service.auth import Role
from service.keyset import trust_policy
from tests.support.ledger import LOG_ID, make_decision
from tests.support.service import EnforcerClient, RunningService, start_service

_PATIENCE_SECONDS = 30.0


@contextmanager
def held_up(service: RunningService) -> Iterator[threading.Event]:
    """Let the store finish no transaction until the event is set, at the latest when the block ends."""
    store, go_on, entered = service.services.store, threading.Event(), threading.Event()
    sequence = store.sequence

    def slow(*arguments: object, **named: object) -> object:
        entered.set()
        assert go_on.wait(_PATIENCE_SECONDS)
        return sequence(*arguments, **named)

    store.sequence = slow
    try:
        yield go_on
    finally:
        go_on.set()
        store.sequence = sequence


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def beats(enforcer: EnforcerClient, count: int) -> list[tuple[object, list[object]]]:
    return [(enforcer.record(enforcer.enforcer.heartbeat()), []) for _ in range(count)]


def require_refused(answer: httpx.Response) -> None:
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/problem+json"


def indexes(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 201, answer.text
    return [item["leaf_index"] for item in answer.json()["results"]]


def test_records_beyond_the_queue_are_refused_and_taken_when_they_come_again(tmp_path):
    with start_service(tmp_path, max_waiting_records=30, heartbeat_interval_seconds=3600) as service:
        first, second, third = (service.enforcer(f"gateway-{number}", seed=30 + number) for number in range(3))
        before = service.services.sequenced_size()
        batches = [beats(first, 20), beats(second, 10), beats(third, 5)]
        with ThreadPoolExecutor(2) as threads, held_up(service) as go_on:
            waiting: list[Future[httpx.Response]] = [threads.submit(first.post, batches[0])]
            wait_for(lambda: service.services.sequencer.waiting_records == 20)
            waiting.append(threads.submit(second.post, batches[1]))
            wait_for(lambda: service.services.sequencer.waiting_records == 30)
            require_refused(third.post(batches[2]))
            assert service.services.sequenced_size() == before
            go_on.set()
            given = [index for future in waiting for index in indexes(future.result(_PATIENCE_SECONDS))]
        assert sorted(given) == list(range(before, before + 30))
        assert indexes(third.post(batches[2])) == list(range(before + 30, before + 35))
        # Sent once more, all of it has the indexes that it had: nothing was taken twice.
        assert [index for batch in batches[:1] for index in indexes(first.post(batch))] == given[:20]
        assert service.services.sequenced_size() == before + 35


def test_bytes_beyond_the_bound_are_refused_before_they_are_read_and_room_is_given_back(tmp_path):
    with start_service(
        tmp_path, max_waiting_bytes=200_000, max_request_bytes=120_000, heartbeat_interval_seconds=3600
    ) as service:
        clients = [service.enforcer(f"gateway-{number}", seed=30 + number) for number in range(3)]
        in_hand = service.services.bytes_in_hand
        batches = [large(client) for client in clients]
        sizes = [len(EnforcerClient.spell(batch)) for batch in batches]
        assert sizes[0] + sizes[1] <= 200_000 < sum(sizes)
        with ThreadPoolExecutor(2) as threads, held_up(service) as go_on:
            waiting = [
                threads.submit(client.post, batch) for client, batch in zip(clients[:2], batches[:2], strict=True)
            ]
            wait_for(lambda: in_hand.taken == sizes[0] + sizes[1])
            # What is declared to be too much is refused although nothing of it was sent yet.
            require_refused(clients[2].post(batches[2]))
            assert in_hand.taken == sizes[0] + sizes[1]
            go_on.set()
            for future in waiting:
                assert indexes(future.result(_PATIENCE_SECONDS))
        assert in_hand.taken == 0
        assert indexes(clients[2].post(batches[2]))


def large(enforcer: EnforcerClient) -> list[tuple[object, list[object]]]:
    """Return a submission of about 80,000 bytes, nearly all of them payload, which the leaf only commits to."""
    message, opening = commit("message", b"s" * 16, b"x" * 60_000)
    body, openings = make_decision(message=message)
    return [(enforcer.record(body), [opening, openings[1]])]


def test_bytes_that_nobody_declared_are_counted_as_they_arrive(tmp_path):
    with start_service(tmp_path, max_waiting_bytes=1024, max_request_bytes=100_000) as service:
        enforcer = service.enforcer()
        service.services.bytes_in_hand.limit = 50_000
        body = EnforcerClient.spell(large(enforcer))
        with service.client(token=enforcer.token) as client:
            answer = client.post(
                "/v1/decisions",
                content=(body[start : start + 1000] for start in range(0, len(body), 1000)),
                headers={"content-type": "application/x-ndjson"},
            )
        require_refused(answer)
        assert service.services.bytes_in_hand.taken == 0


def test_a_refused_request_gives_its_room_back(tmp_path):
    with start_service(tmp_path) as service:
        enforcer = service.enforcer()
        for content in (b"{", b"[]", b'{"record":{}}'):
            with service.client(token=enforcer.token) as client:
                answer = client.post("/v1/decisions", content=content, headers={"content-type": "application/json"})
            assert answer.status_code in (400, 422)
        assert service.services.bytes_in_hand.taken == 0


def test_one_request_fits_whatever_the_bound_for_all_of_them(tmp_path):
    with start_service(tmp_path, max_waiting_bytes=1024, max_request_bytes=100_000) as service:
        enforcer = service.enforcer()
        assert indexes(enforcer.post(large(enforcer)))


# --- how large a leaf may be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload_bytes", [1, MAX_ENTRY_BYTES + 1, 1_000_000])
def test_a_payload_of_any_size_goes_into_the_vault_and_its_leaf_stays_small(tmp_path: Path, payload_bytes):
    with start_service(tmp_path) as service:
        enforcer = service.enforcer()
        result, opening = commit("result", b"s" * 16, b"y" * payload_bytes)
        decided = enforcer.decide()
        record = enforcer.record(Outcome(decision_id=decided, status="completed", session="5" * 32, result=result))
        (index,) = indexes(enforcer.post([(record, [opening])]))
        entry = next(service.services.reader.entries(index, index + 1))
        assert entry == encode_record(record)
        assert len(entry) < 1_000
        assert service.services.vault.open(record, "result").payload == b"y" * payload_bytes
        assert service.services.catalog.index_of(LOG_ID, record.record_id) == index


def name(number: int) -> str:
    """Return one of the longest names that there can be."""
    return f"{number:03d}".ljust(128, "n")


def test_the_largest_decision_that_can_be_said_is_taken_found_and_proved_and_a_larger_one_is_malformed(tmp_path: Path):
    """No record reaches the 65,535 bytes of an entry: each of its lists has 64 names at most, and each name an end."""
    names = {member: name(number) for number, member in enumerate(("agent", "server", "method", "tool", "reason"))}
    lists = {member: tuple(map(name, range(64))) for member in ("rules", "obligations", "tags")}
    with start_service(tmp_path) as service:
        enforcer = service.enforcer()
        facts = Facts(
            authn=name(5),
            zone="Europe/Berlin",
            local_hour=23,
            local_minute=59,
            weekday=7,
            network=name(6),
            session_calls=1,
            roles=lists["rules"],
        )
        body, openings = make_decision(**names, **lists, facts=facts)
        largest = enforcer.record(body)
        entry = encode_record(largest)
        assert 35_000 < len(entry) < MAX_ENTRY_BYTES
        answer = enforcer.post([(largest, openings)], query="?wait=proof")
        assert answer.status_code == 201, answer.text
        (told,) = answer.json()["results"]
        proof = parse_proof_file(told["proof"].encode())
        verify_entry(entry, proof, trust_policy(service.services.keys))
        with service.client(Role.AUDITOR) as auditor:
            found = auditor.get("/v1/decisions", params={"rule": name(63), "agent": name(0)}).json()["items"]
        assert [item["leaf_index"] for item in found] == [told["leaf_index"]]
        size = service.services.sequenced_size()
        larger = enforcer.record(msgspec.structs.replace(body, rules=tuple(map(name, range(65)))))
        assert enforcer.post([(larger, openings)]).status_code == 400
        assert service.services.sequenced_size() == size


def test_readers_whose_searches_do_not_end_keep_no_enforcer_waiting(tmp_path: Path, monkeypatch):
    """Each search holds a thread and a connection; there are more of them than of both."""
    with start_service(tmp_path) as service, ExitStack() as held:
        enforcer, engine = service.enforcer(), service.services.database
        go_on, searching = threading.Event(), threading.Semaphore(0)

        def search(*_: object) -> list[int]:
            with engine.connect() as connection:
                connection.exec_driver_sql("SELECT 1")
                searching.release()
                assert go_on.wait(_PATIENCE_SECONDS)
            return []

        monkeypatch.setattr(service.services.catalog, "search", search)
        token = service.token(Role.AUDITOR)
        with ThreadPoolExecutor(40) as readers:
            held.callback(go_on.set)

            def read() -> int:
                with service.client(token=token) as auditor:
                    return auditor.get("/v1/decisions").status_code

            answers = [readers.submit(read) for _ in range(40)]
            assert searching.acquire(timeout=_PATIENCE_SECONDS)
            assert len({enforcer.decide() for _ in range(10)}) == 10
            assert not any(answer.done() for answer in answers)
            go_on.set()
            assert {answer.result(_PATIENCE_SECONDS) for answer in answers} == {200}
