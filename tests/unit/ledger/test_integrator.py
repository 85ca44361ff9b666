"""The integrator: what it writes is a function of the entries alone, whoever writes it and however often."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from ledger.errors import ConflictError, MalformedError, NotFoundError, RootMismatchError, StateError, StorageError
from ledger.integrator import Integrator
from ledger.merkle import hash_leaf, root_of_leaves
from ledger.proofs import TreeHead
from ledger.reader import EntryReader
from ledger.stores.memory import MemoryLogStore, MemoryTileStore
from ledger.tiles import Edge, bundle_coordinates, pack_bundle, tile_coordinates
from tests.support.faults import Effect, Faults, FaultyTileStore, Write
from tests.support.ledger import LOG_ID, NOW_MS, Enforcer, pending

TOTAL = 600


@pytest.fixture(scope="module")
def all_entries() -> list:
    writer = Enforcer()
    return [pending(writer.record(writer.heartbeat())) for _ in range(TOTAL)]


class Log:
    """A log in memory whose entries are sequenced and not published."""

    def __init__(self, entries: Sequence) -> None:
        self.entries = [entry.entry for entry in entries]
        self.store = MemoryLogStore(LOG_ID)
        self.store.sequence(LOG_ID, [entries], received_ms=NOW_MS)
        self.tiles = MemoryTileStore()
        self.faults = Faults()

    def integrator(self, puts_at_once: int = 1) -> Integrator:
        tiles = FaultyTileStore(self.tiles, self.faults)
        return Integrator(LOG_ID, EntryReader(self.store, tiles, LOG_ID), tiles, puts_at_once=puts_at_once)

    def files(self) -> dict[str, bytes]:
        return {path: data for (_, path), data in self.tiles._files.items()}

    def head(self, size: int) -> TreeHead:
        return TreeHead(size=size, root=naive_root(self.entries[:size]))


@pytest.fixture
def log(all_entries) -> Log:
    return Log(all_entries)


def naive_root(entries: Sequence[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return hashlib.sha256(b"\x01" + naive_root(entries[:split]) + naive_root(entries[split:])).digest()


def expected_files(entries: Sequence[bytes]) -> dict[str, bytes]:
    """Return the files of the tree over all entries, each made of the entries it covers."""
    files = {
        c.path: pack_bundle(entries[c.number * 256 : c.number * 256 + c.width])
        for c in bundle_coordinates(len(entries))
    }
    for c in tile_coordinates(len(entries)):
        span = 256**c.level
        hashes = [
            naive_root(entries[first * span : (first + 1) * span])
            for first in range(c.number * 256, c.number * 256 + c.width)
        ]
        files[c.path] = b"".join(hashes)
    return files


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513, TOTAL])
def test_one_step_writes_exactly_the_files_of_the_tree(log, size):
    assert log.integrator().integrate(size) == naive_root(log.entries[:size])
    assert log.files() == expected_files(log.entries[:size])


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, TOTAL])
def test_the_edge_knows_the_partial_tiles_of_every_level(log, size):
    edge = Edge()
    edge.extend(hash_leaf(entry) for entry in log.entries[:size])
    partial = {path: data for path, data in expected_files(log.entries[:size]).items() if ".p/" in path}
    tiles = {coordinate.path: data for coordinate, data in edge.partial_tiles()}
    assert tiles == {path: data for path, data in partial.items() if "entries" not in path}


@pytest.mark.parametrize("steps", [(1, 2, 3), (255, 256, 257), (100, 300, 513), (256, 512), (1, 600)])
def test_many_steps_write_the_files_of_every_tree_on_the_way(log, steps):
    integrator = log.integrator()
    expected: dict[str, bytes] = {}
    for size in steps:
        assert integrator.integrate(size) == naive_root(log.entries[:size])
        expected |= expected_files(log.entries[:size])
    assert log.files() == expected


def test_integrating_nothing_new_writes_nothing(log):
    integrator = log.integrator()
    integrator.integrate(300)
    log.faults.writes.clear()
    assert integrator.integrate(300) == naive_root(log.entries[:300])
    assert log.faults.writes == []


def test_two_integrators_write_the_same_bytes(log):
    one, other = log.integrator(), log.integrator()
    one.integrate(300)
    other.integrate(257)
    other.integrate(300)
    one.integrate(TOTAL)
    other.integrate(TOTAL)
    assert one.root() == other.root()


@pytest.mark.parametrize("size", [0, 1, 44, 255, 256, 257, 512, 556])
def test_a_tree_that_was_taken_up_goes_on_as_if_it_had_never_stopped(log, size):
    first = log.integrator()
    first.integrate(size)
    again = log.integrator()
    again.load(log.head(size))
    assert (again.size, again.root()) == (size, first.root())
    assert again.integrate(TOTAL) == naive_root(log.entries)
    assert expected_files(log.entries).items() <= log.files().items()


@pytest.mark.parametrize("write", [Write.PUT_BUNDLE, Write.PUT_TILE])
@pytest.mark.parametrize("effect", [Effect.LOST, Effect.KEPT])
def test_a_failure_half_way_leaves_the_tree_as_it_was_and_can_be_repeated(log, write, effect):
    integrator = log.integrator()
    root = integrator.integrate(100)
    # Let the first write of its kind succeed and the second fail.
    log.faults.writes.clear()
    log.faults.on_write = lambda kind: (
        log.faults.arm(write, effect) if kind is write and log.faults.writes.count(write) == 2 else None
    )
    with pytest.raises(StorageError):
        integrator.integrate(TOTAL)
    log.faults.on_write = None
    assert (integrator.size, integrator.root()) == (100, root)
    assert integrator.integrate(TOTAL) == naive_root(log.entries)
    assert expected_files(log.entries).items() <= log.files().items()


def test_a_tree_does_not_shrink(log):
    integrator = log.integrator()
    integrator.integrate(10)
    with pytest.raises(StateError):
        integrator.integrate(9)


def test_a_tree_does_not_grow_beyond_what_is_sequenced(log):
    integrator = log.integrator()
    with pytest.raises(NotFoundError):
        integrator.integrate(TOTAL + 1)
    assert integrator.size == 0


@pytest.mark.parametrize("path", ["tile/entries/000", "tile/0/000", "tile/1/000.p/1", "tile/entries/001.p/44"])
def test_other_bytes_where_a_file_belongs_stop_it(log, path):
    log.tiles._files[LOG_ID, path] = b"another tree"
    integrator = log.integrator()
    with pytest.raises(ConflictError):
        integrator.integrate(300)
    assert integrator.size == 0


@pytest.mark.parametrize("size", [0, 44, 300])
def test_a_root_that_the_tiles_do_not_lead_to_is_not_taken_up(log, size):
    integrator = log.integrator()
    integrator.integrate(size)
    fresh = log.integrator()
    with pytest.raises(RootMismatchError):
        fresh.load(TreeHead(size=size, root=b"\x01" * 32))
    assert fresh.size == 0


@pytest.mark.parametrize("path", ["tile/0/001.p/44", "tile/1/000.p/1"])
def test_a_tree_whose_edge_is_missing_or_cut_short_is_not_taken_up(log, path):
    log.integrator().integrate(300)
    data = log.tiles._files.pop((LOG_ID, path))
    with pytest.raises(NotFoundError):
        log.integrator().load(log.head(300))
    log.tiles._files[LOG_ID, path] = data[:-1]
    with pytest.raises(MalformedError):
        log.integrator().load(log.head(300))


def test_entries_of_the_edge_that_are_not_those_of_its_tile_are_not_taken_up(log):
    log.integrator().integrate(300)
    head = log.head(300)
    log.store._logs[LOG_ID].entries[299] = log.entries[0]
    with pytest.raises(RootMismatchError, match="entry 299"):
        log.integrator().load(head)


def test_the_naive_root_of_these_tests_is_the_projects_root(log):
    leaves = [hash_leaf(entry) for entry in log.entries]
    assert naive_root(log.entries) == root_of_leaves(leaves)


# --- several puts at a time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(TOTAL,), (1, 255, 256, 257, TOTAL)])
def test_several_puts_at_a_time_leave_the_same_files(log, sizes):
    integrator = log.integrator(puts_at_once=8)
    for size in sizes:
        assert integrator.integrate(size) == log.head(size).root
    files = log.files()
    assert {path: files[path] for path in expected_files(log.entries)} == expected_files(log.entries)


@pytest.mark.parametrize("write", [Write.PUT_BUNDLE, Write.PUT_TILE])
@pytest.mark.parametrize("effect", [Effect.LOST, Effect.KEPT])
def test_of_several_puts_one_that_fails_leaves_the_tree_as_it_was(log, write, effect):
    integrator = log.integrator(puts_at_once=8)
    log.faults.arm(write, effect)
    with pytest.raises(StorageError):
        integrator.integrate(TOTAL)
    assert integrator.size == 0
    assert integrator.integrate(TOTAL) == log.head(TOTAL).root
    assert log.files() == expected_files(log.entries)
