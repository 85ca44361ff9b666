"""What every `LogStore` promises (`ledger.ports`): memory, SQLite, PostgreSQL. Durability is in `tests/fault`."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from ledger.bodies import Heartbeat
from ledger.database import open_engine
from ledger.errors import ConflictError, NotFoundError, StaleKeysError
from ledger.merkle import hash_leaf
from ledger.ports import LogStore, PendingEntry, SealedPayload
from ledger.records import Record, sign_record
from ledger.stores.memory import MemoryLogStore
from ledger.stores.sql import SQLLogStore
from ledger.stores.sql_objects import SQLPayloadStore
from ledger.vault import PayloadStore
from migrations.schema import upgrade
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, pending

OTHER_LOG = "other"


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[LogStore, PayloadStore]]:
    """Return a log store with two logs, and where the payloads written through it are read."""
    if request.param == "memory":
        memory = MemoryLogStore(LOG_ID, OTHER_LOG)
        yield memory, memory
        return
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_schema()
    engine = open_engine(url, pool_size=10)
    upgrade(engine)
    store = SQLLogStore(engine)
    for log_id in (LOG_ID, OTHER_LOG):
        store.create_log(
            log_id, tenant=log_id, origin=f"log.example/{log_id}", environment="t", simulated=True, created_ms=0
        )
    yield store, SQLPayloadStore(engine)
    engine.dispose()


@pytest.fixture
def store(stores: tuple[LogStore, PayloadStore]) -> LogStore:
    return stores[0]


@pytest.fixture
def writer() -> Enforcer:
    return Enforcer()


def beat(writer: Enforcer, *, record_id: str | None = None) -> PendingEntry:
    return pending(writer.record(writer.heartbeat(), record_id=record_id))


def beats(writer: Enforcer, count: int) -> list[PendingEntry]:
    return [beat(writer) for _ in range(count)]


def changed(entry: PendingEntry, writer: Enforcer, **fields: object) -> PendingEntry:
    """Return another record under the same id, with a valid signature of its own."""
    return pending(sign_record(msgspec.structs.replace(entry.record, **fields), writer.key))


def sequence(store: LogStore, *batches: list[PendingEntry], log_id: str = LOG_ID):
    return store.sequence(log_id, batches, received_ms=NOW_MS)


def indexes(result) -> list[int]:
    assert not isinstance(result, ConflictError), result
    return [done.index for done in result]


def held(store: LogStore, log_id: str = LOG_ID) -> list[bytes]:
    return store.read_sequenced(log_id, 0, store.sequenced_size(log_id))


# --- indexes ---------------------------------------------------------------------------------------------------------


def test_a_new_log_holds_nothing(store):
    assert store.sequenced_size(LOG_ID) == 0
    assert store.read_sequenced(LOG_ID, 0, 0) == []
    assert store.checkpoint(LOG_ID) is None


def test_indexes_run_from_zero_without_gaps_in_the_order_of_the_batches(store, writer):
    first, second, third = beats(writer, 3), beats(writer, 1), beats(writer, 2)
    results = sequence(store, first, second, third)
    assert [indexes(result) for result in results] == [[0, 1, 2], [3], [4, 5]]
    assert indexes(sequence(store, beats(writer, 2))[0]) == [6, 7]
    assert store.sequenced_size(LOG_ID) == 8


def test_acknowledgements_name_their_records_in_order(store, writer):
    batch = beats(writer, 3)
    (result,) = sequence(store, batch)
    assert [done.record_id for done in result] == [entry.record.record_id for entry in batch]
    assert not any(done.duplicate for done in result)


def test_entries_are_read_back_byte_for_byte_at_their_indexes(store, writer):
    batch = beats(writer, 5)
    sequence(store, batch)
    assert held(store) == [entry.entry for entry in batch]
    assert store.read_sequenced(LOG_ID, 1, 3) == [entry.entry for entry in batch[1:3]]
    assert [hash_leaf(entry) for entry in held(store)] == [entry.leaf for entry in batch]


def test_no_batches_and_empty_batches_change_nothing(store):
    assert sequence(store) == []
    assert sequence(store, [], []) == [[], []]
    assert store.sequenced_size(LOG_ID) == 0


def test_the_largest_entry_is_kept_whole(store, writer):
    entry = beat(writer)
    largest = msgspec.structs.replace(
        entry.record, body=Heartbeat(kind="start", version="v" * 128, spool_depth=2**53 - 1), time_ms=2**48 - 1
    )
    stored = pending(sign_record(largest, writer.key))
    assert indexes(sequence(store, [stored])[0]) == [0]
    assert held(store) == [stored.entry]


# --- the same again --------------------------------------------------------------------------------------------------


def test_the_same_record_again_gets_its_first_index(store, writer):
    batch = beats(writer, 3)
    sequence(store, batch)
    (again,) = sequence(store, batch)
    assert indexes(again) == [0, 1, 2]
    assert all(done.duplicate for done in again)
    assert store.sequenced_size(LOG_ID) == 3


def test_a_batch_may_mix_old_and_new_records(store, writer):
    old, new = beats(writer, 2), beats(writer, 2)
    sequence(store, old)
    (result,) = sequence(store, [new[0], old[1], new[1], old[0]])
    assert [(done.index, done.duplicate) for done in result] == [(2, False), (1, True), (3, False), (0, True)]
    assert held(store) == [entry.entry for entry in (*old, *new)]


def test_a_record_that_stands_twice_in_one_batch_stands_once_in_the_log(store, writer):
    entry = beat(writer)
    (result,) = sequence(store, [entry, entry])
    assert [(done.index, done.duplicate) for done in result] == [(0, False), (0, True)]
    assert held(store) == [entry.entry]


def test_a_record_that_stands_in_two_batches_of_one_call_stands_once_in_the_log(store, writer):
    entry, other = beat(writer), beat(writer)
    results = sequence(store, [entry], [entry, other])
    assert [indexes(result) for result in results] == [[0], [0, 1]]
    assert held(store) == [entry.entry, other.entry]


def test_a_duplicate_is_recognised_after_its_bytes_were_released(store, writer):
    batch = beats(writer, 3)
    sequence(store, batch)
    store.release(LOG_ID, 3)
    (again,) = sequence(store, [*batch, beat(writer)])
    assert [(done.index, done.duplicate) for done in again] == [(0, True), (1, True), (2, True), (3, False)]


def test_duplicates_are_found_in_a_group_of_many_hundred_records(store, writer):
    batch = beats(writer, 1300)
    sequence(store, batch)
    again, fresh = sequence(store, list(reversed(batch)), beats(writer, 1))
    assert indexes(again) == list(reversed(range(1300)))
    assert all(done.duplicate for done in again)
    assert indexes(fresh) == [1300]


# --- conflicts -------------------------------------------------------------------------------------------------------


def test_the_same_id_with_other_content_is_a_conflict(store, writer):
    entry = beat(writer)
    sequence(store, [entry])
    (result,) = sequence(store, [changed(entry, writer, seq=99)])
    assert isinstance(result, ConflictError)
    assert held(store) == [entry.entry]


def test_content_that_differs_in_its_signature_alone_is_a_conflict(store, writer):
    entry = beat(writer)
    sequence(store, [entry])
    stranger = Enforcer(seed=99)
    (result,) = sequence(store, [pending(sign_record(entry.record, stranger.key))])
    assert isinstance(result, ConflictError)


def test_a_sequence_number_that_another_record_holds_is_a_conflict(store, writer):
    entry = beat(writer)
    sequence(store, [entry])
    writer.seq -= 1
    (result,) = sequence(store, [beat(writer)])
    assert isinstance(result, ConflictError)
    assert held(store) == [entry.entry]


def test_a_sequence_number_is_taken_for_its_enforcer_and_epoch_alone(store):
    one, other, later = Enforcer(), Enforcer(enforcer_id="gateway-1"), Enforcer(epoch="1" * 32)
    (result,) = sequence(store, [beat(one), beat(other), beat(later)])
    assert indexes(result) == [0, 1, 2]


def test_a_conflict_in_its_last_record_undoes_a_whole_batch(store, writer):
    entry = beat(writer)
    sequence(store, [entry])
    fresh = beats(writer, 3)
    (result,) = sequence(store, [*fresh, changed(entry, writer, seq=99)])
    assert isinstance(result, ConflictError)
    assert held(store) == [entry.entry]
    assert indexes(sequence(store, fresh)[0]) == [1, 2, 3]


def test_a_conflict_does_not_touch_the_other_batches_of_the_call(store, writer):
    entry = beat(writer)
    sequence(store, [entry])
    before, after, lost = beats(writer, 2), beats(writer, 2), beats(writer, 1)
    good, bad, also_good = sequence(store, before, [*lost, changed(entry, writer, seq=99)], after)
    assert isinstance(bad, ConflictError)
    assert indexes(good) == [1, 2]
    assert indexes(also_good) == [3, 4]
    assert held(store) == [item.entry for item in (entry, *before, *after)]


def test_two_records_under_one_id_in_one_batch_are_a_conflict(store, writer):
    entry = beat(writer)
    (result,) = sequence(store, [entry, changed(entry, writer, seq=99)])
    assert isinstance(result, ConflictError)
    assert store.sequenced_size(LOG_ID) == 0


def test_two_records_with_one_sequence_number_in_one_batch_are_a_conflict(store, writer):
    entry = beat(writer)
    writer.seq -= 1
    (result,) = sequence(store, [entry, beat(writer)])
    assert isinstance(result, ConflictError)
    assert store.sequenced_size(LOG_ID) == 0


def test_a_batch_conflicts_with_an_earlier_batch_of_the_same_call(store, writer):
    entry = beat(writer)
    good, bad = sequence(store, [entry], [changed(entry, writer, seq=99)])
    assert indexes(good) == [0]
    assert isinstance(bad, ConflictError)


def test_a_refused_batch_reserves_neither_ids_nor_numbers(store, writer):
    entry, wanted = beat(writer), beat(writer)
    sequence(store, [entry])
    bad, good = sequence(store, [wanted, changed(entry, writer, seq=99)], [wanted])
    assert isinstance(bad, ConflictError)
    assert indexes(good) == [1]
    assert not good[0].duplicate


def test_a_record_of_another_log_is_refused_and_touches_neither_log(store, writer):
    stranger = Enforcer(enforcer_id="gateway-9", log_id=OTHER_LOG)
    (result,) = sequence(store, [beat(writer), beat(stranger)])
    assert isinstance(result, ConflictError)
    assert store.sequenced_size(LOG_ID) == 0
    assert store.sequenced_size(OTHER_LOG) == 0
    assert indexes(sequence(store, [beat(stranger)], log_id=OTHER_LOG)[0]) == [0]


# --- several logs ----------------------------------------------------------------------------------------------------


def test_logs_count_and_compare_on_their_own(store, writer):
    other = Enforcer(log_id=OTHER_LOG)
    entry = beat(writer)
    same_id = pending(other.record(other.heartbeat(), record_id=entry.record.record_id))
    sequence(store, [entry])
    (result,) = sequence(store, [same_id], log_id=OTHER_LOG)
    assert [(done.index, done.duplicate) for done in result] == [(0, False)]
    assert held(store) == [entry.entry]
    assert held(store, OTHER_LOG) == [same_id.entry]


def test_an_unknown_log_is_not_found(store, writer):
    with pytest.raises(NotFoundError):
        sequence(store, [beat(writer)], log_id="nobody")
    with pytest.raises(NotFoundError):
        store.sequenced_size("nobody")
    with pytest.raises(NotFoundError):
        store.checkpoint("nobody")
    with pytest.raises(NotFoundError):
        store.swap_checkpoint("nobody", expected=None, new=b"c", size=1, published_ms=NOW_MS)


# --- reading and releasing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "end"), [(0, 4), (3, 4), (2, 5), (100, 101), (-1, 1)])
def test_entries_without_an_index_are_not_found(store, writer, start, end):
    sequence(store, beats(writer, 3))
    with pytest.raises(NotFoundError):
        store.read_sequenced(LOG_ID, start, end)


def test_released_entries_are_not_found_and_the_rest_is_kept(store, writer):
    batch = beats(writer, 5)
    sequence(store, batch)
    store.release(LOG_ID, 3)
    assert store.read_sequenced(LOG_ID, 3, 5) == [entry.entry for entry in batch[3:]]
    for start, end in ((0, 5), (2, 4), (0, 1)):
        with pytest.raises(NotFoundError):
            store.read_sequenced(LOG_ID, start, end)


def test_releasing_is_idempotent_and_never_takes_an_index_back(store, writer):
    sequence(store, beats(writer, 5))
    for below in (3, 3, 1, 0):
        store.release(LOG_ID, below)
    assert store.sequenced_size(LOG_ID) == 5
    assert len(store.read_sequenced(LOG_ID, 3, 5)) == 2
    assert indexes(sequence(store, beats(writer, 1))[0]) == [5]


def test_releasing_everything_leaves_the_next_index_where_it_was(store, writer):
    sequence(store, beats(writer, 4))
    store.release(LOG_ID, 4)
    assert store.sequenced_size(LOG_ID) == 4
    assert indexes(sequence(store, beats(writer, 1))[0]) == [4]


def test_releasing_one_log_leaves_the_other_alone(store, writer):
    other = Enforcer(log_id=OTHER_LOG)
    entry = beat(other)
    sequence(store, beats(writer, 2))
    sequence(store, [entry], log_id=OTHER_LOG)
    store.release(LOG_ID, 2)
    assert held(store, OTHER_LOG) == [entry.entry]


# --- payloads --------------------------------------------------------------------------------------------------------


def sealed(record: Record, ciphertext: bytes = b"\x00sealed\xff") -> SealedPayload:
    return SealedPayload(record.record_id, "message", "6" * 32, ciphertext)


def with_payload(entry: PendingEntry, ciphertext: bytes = b"\x00sealed\xff") -> PendingEntry:
    return PendingEntry(entry.record, entry.entry, entry.leaf, (sealed(entry.record, ciphertext),))


def test_payloads_are_there_with_their_record(stores, writer):
    store, payloads = stores
    entry = with_payload(beat(writer))
    sequence(store, [entry])
    assert payloads.payload(LOG_ID, entry.record.record_id, "message") == sealed(entry.record)


def test_a_refused_batch_leaves_no_payload(stores, writer):
    store, payloads = stores
    entry, fresh = beat(writer), with_payload(beat(writer))
    sequence(store, [entry])
    sequence(store, [fresh, changed(entry, writer, seq=99)])
    with pytest.raises(NotFoundError):
        payloads.payload(LOG_ID, fresh.record.record_id, "message")


def test_a_duplicate_does_not_replace_a_payload(stores, writer):
    store, payloads = stores
    entry = beat(writer)
    sequence(store, [with_payload(entry, b"first")])
    sequence(store, [with_payload(entry, b"second")])
    assert payloads.payload(LOG_ID, entry.record.record_id, "message").ciphertext == b"first"


def test_payloads_are_not_found_under_another_log_record_or_field(stores, writer):
    store, payloads = stores
    entry = with_payload(beat(writer))
    sequence(store, [entry])
    record_id = entry.record.record_id
    for log_id, wanted, name in (
        (OTHER_LOG, record_id, "message"),
        (LOG_ID, beat(writer).record.record_id, "message"),
        (LOG_ID, record_id, "request"),
    ):
        with pytest.raises(NotFoundError):
            payloads.payload(log_id, wanted, name)


# --- the checkpoint --------------------------------------------------------------------------------------------------


def swap(store: LogStore, expected: bytes | None, new: bytes, size: int, log_id: str = LOG_ID) -> None:
    store.swap_checkpoint(log_id, expected=expected, new=new, size=size, published_ms=NOW_MS)


def test_a_swap_publishes(store):
    swap(store, None, b"one", 1)
    assert store.checkpoint(LOG_ID) == b"one"
    swap(store, b"one", b"five", 5)
    assert store.checkpoint(LOG_ID) == b"five"
    assert store.checkpoint(OTHER_LOG) is None


@pytest.mark.parametrize("expected", [None, b"one", b"five\n", b""])
def test_a_swap_that_expects_another_checkpoint_is_lost(store, expected):
    swap(store, None, b"one", 1)
    swap(store, b"one", b"five", 5)
    with pytest.raises(ConflictError):
        swap(store, expected, b"nine", 9)
    assert store.checkpoint(LOG_ID) == b"five"


def test_a_swap_that_expects_a_checkpoint_before_the_first_is_lost(store):
    with pytest.raises(ConflictError):
        swap(store, b"one", b"five", 5)
    assert store.checkpoint(LOG_ID) is None


@pytest.mark.parametrize("size", [0, 4, 5])
def test_a_swap_never_publishes_a_tree_that_is_not_larger(store, size):
    swap(store, None, b"five", 5)
    with pytest.raises(ConflictError):
        swap(store, b"five", b"again", size)
    assert store.checkpoint(LOG_ID) == b"five"


def test_swaps_of_one_log_leave_the_other_alone(store):
    swap(store, None, b"five", 5)
    swap(store, None, b"theirs", 2, OTHER_LOG)
    swap(store, b"five", b"six", 6)
    assert store.checkpoint(OTHER_LOG) == b"theirs"


# --- concurrency -----------------------------------------------------------------------------------------------------

THREADS = 6


def test_concurrent_callers_get_contiguous_indexes_and_no_duplicates(store):
    start = threading.Barrier(THREADS)

    def write(number: int) -> list[tuple[int, bytes]]:
        enforcer = Enforcer(enforcer_id=f"gateway-{number}")
        start.wait()
        given = []
        for _ in range(10):
            batch = beats(enforcer, 3)
            (result,) = sequence(store, batch)
            given += [(index, entry.entry) for index, entry in zip(indexes(result), batch, strict=True)]
        return given

    with ThreadPoolExecutor(THREADS) as threads:
        given = [pair for pairs in threads.map(write, range(THREADS)) for pair in pairs]
    assert sorted(index for index, _ in given) == list(range(THREADS * 30))
    assert [entry for _, entry in sorted(given)] == held(store)


def test_one_record_sent_by_many_at_once_gets_one_index(store, writer):
    batch = beats(writer, 2)
    start = threading.Barrier(THREADS)

    def write(_: int):
        start.wait()
        return sequence(store, batch)[0]

    with ThreadPoolExecutor(THREADS) as threads:
        results = list(threads.map(write, range(THREADS)))
    assert [indexes(result) for result in results] == [[0, 1]] * THREADS
    assert sum(not result[0].duplicate for result in results) == 1
    assert store.sequenced_size(LOG_ID) == 2


def test_of_many_swaps_at_once_exactly_one_wins(store):
    swap(store, None, b"one", 1)
    start = threading.Barrier(THREADS)

    def publish(number: int) -> bytes | None:
        start.wait()
        try:
            swap(store, b"one", b"new %d" % number, 2 + number)
        except ConflictError:
            return None
        return b"new %d" % number

    with ThreadPoolExecutor(THREADS) as threads:
        won = [result for result in threads.map(publish, range(THREADS)) if result is not None]
    assert won == [store.checkpoint(LOG_ID)]


# --- keys ------------------------------------------------------------------------------------------------------------


def judged(entry: PendingEntry, keys_leaf: int | None) -> PendingEntry:
    return dataclasses.replace(entry, keys_leaf=keys_leaf)


def introduced(writer: Enforcer) -> PendingEntry:
    return pending(writer.record(writer.introduction()))


def test_what_was_judged_by_the_newest_key_record_is_taken(store, writer):
    assert indexes(sequence(store, [judged(introduced(writer), -1)])[0]) == [0]
    assert indexes(sequence(store, [judged(beat(writer), 0)])[0]) == [1]
    assert indexes(sequence(store, [beat(writer)])[0]) == [2]


@pytest.mark.parametrize("keys_leaf", [-1, 0, 1])
def test_what_was_judged_before_the_newest_key_record_is_refused_whole(store, writer, keys_leaf):
    sequence(store, [introduced(writer), beat(writer), introduced(writer)])
    (result,) = sequence(store, [judged(beat(writer), 2), judged(beat(writer), keys_leaf)])
    assert isinstance(result, StaleKeysError)
    assert store.sequenced_size(LOG_ID) == 3


def test_a_key_record_of_the_same_transaction_counts_for_the_batches_behind_it(store, writer):
    sequence(store, [introduced(writer)])
    before, key, after = judged(beat(writer), 0), judged(introduced(writer), 0), judged(beat(writer), 0)
    results = sequence(store, [before], [key], [after])
    assert [isinstance(result, StaleKeysError) for result in results] == [False, False, True]
    assert store.sequenced_size(LOG_ID) == 3


def test_a_batch_with_a_key_record_is_judged_as_the_log_stood_before_it(store, writer):
    batch = [judged(introduced(writer), -1), judged(beat(writer), -1)]
    assert indexes(sequence(store, batch)[0]) == [0, 1]


def test_what_is_there_already_is_acknowledged_whatever_became_of_its_key(store, writer):
    first = judged(beat(writer), -1)
    sequence(store, [first])
    sequence(store, [introduced(writer)])
    (result,) = sequence(store, [first])
    assert [(done.index, done.duplicate) for done in result] == [(0, True)]


def test_the_keys_of_another_log_do_not_count(store, writer):
    other = Enforcer(log_id=OTHER_LOG)
    sequence(store, [introduced(other)], log_id=OTHER_LOG)
    assert indexes(sequence(store, [judged(beat(writer), -1)])[0]) == [0]


def test_of_two_who_open_a_log_at_once_one_does(store, writer):
    rival = Enforcer(epoch="1" * 32)
    batches = [[judged(introduced(one), -1), judged(beat(one), -1)] for one in (writer, rival)]
    with ThreadPoolExecutor(2) as pool:
        results = [result for (result,) in pool.map(lambda batch: sequence(store, batch), batches)]
    assert sorted(isinstance(result, StaleKeysError) for result in results) == [False, True]
    assert store.sequenced_size(LOG_ID) == 2
