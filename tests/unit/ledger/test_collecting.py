"""Collecting partials: what a full tile has replaced goes, what is present or unproven stays, a death costs nothing."""

from __future__ import annotations

import asyncio

import pytest

from ledger.clock import SimulatedClock
from ledger.collecting import (
    COLLECTOR_LEASE,
    COLLECTOR_LEASE_SECONDS,
    CollectingLoop,
    CollectingTurn,
    PartialCollector,
)
from ledger.errors import NotFoundError, StorageError, VerificationError
from ledger.merkle import hash_leaf
from ledger.proofs import verify_consistency, verify_inclusion
from ledger.prover import Prover
from ledger.stores.directory import DirectoryTileStore
from ledger.stores.memory import MemoryTileStore
from ledger.stores.memory_leases import LeaseTable, MemoryLease
from ledger.tiles import (
    BUNDLE_LEVEL,
    TileCoordinate,
    bundle_coordinates,
    pack_bundle,
    parse_tile_path,
    tile_coordinates,
)
from tests.conformance.requirements import requirement
from tests.fakes import LogSimulator
from tests.support.ledger import LOG_ID, NOW_MS

STEPS = (1, 2, 200, 255, 256, 257, 300, 511, 512, 700)


class Log:
    """A log that was published at many sizes, and so has partials of many widths."""

    def __init__(self, *sizes: int) -> None:
        self.simulator = LogSimulator()
        self.tiles = MemoryTileStore()
        self.sizes: list[int] = []
        for size in sizes:
            self.publish(size)

    def publish(self, size: int) -> None:
        before = self.simulator.size
        self.simulator.grow(b"entry %d" % index for index in range(before, size))
        self.sizes.append(size)
        for path, data in self.simulator.files.items():
            coordinate = parse_tile_path(path)
            if coordinate.full or coordinate in tile_coordinates(size):
                self.tiles.put(LOG_ID, path, data)
        for coordinate in bundle_coordinates(size):
            entries = self.simulator.entries[coordinate.number * 256 :][: coordinate.width]
            self.tiles.put(LOG_ID, coordinate.path, pack_bundle(entries))

    def paths(self) -> set[str]:
        return {path for _, path in self.tiles._files}

    def partials(self) -> set[str]:
        return {path for path in self.paths() if ".p/" in path}


def present(size: int) -> set[str]:
    """Return the partials that a tree of this size has."""
    coordinates = [*tile_coordinates(size), *bundle_coordinates(size)]
    return {coordinate.path for coordinate in coordinates if not coordinate.full}


def collect(log: Log, size: int, **options: int) -> int:
    """Run turns until nothing is left to do, and return how many it took."""
    collector = PartialCollector(LOG_ID, log.tiles, **options)
    turns = 1
    while not collector.turn(size).done:
        turns += 1
        assert turns < 10_000
    return turns


@requirement("tiles-13", "tiles-14")
@pytest.mark.parametrize("last", range(len(STEPS)))
def test_after_collecting_only_the_partials_of_the_published_size_are_left(last):
    sizes = STEPS[: last + 1]
    log = Log(*sizes)
    full = log.paths() - log.partials()
    collect(log, sizes[-1])
    assert log.partials() == expected(*sizes)
    assert present(sizes[-1]) <= log.partials()
    assert log.paths() - log.partials() == full


def expected(*sizes: int) -> set[str]:
    """Return the partials that stay under the last of the sizes: those whose tile is not full yet."""
    return {path for size in sizes for path in present(size) if _unfinished(path, sizes[-1])}


def _unfinished(path: str, size: int) -> bool:
    tile = parse_tile_path(path)
    return size >> (8 * (max(tile.level, 0) + 1)) <= tile.number


@requirement("tiles-13")
def test_every_proof_of_every_size_still_verifies():
    log = Log(*STEPS)
    collect(log, STEPS[-1])
    prover = Prover(log.tiles, LOG_ID)
    for size in STEPS:
        head = log.simulator.head(size)
        for index in {0, size // 2, size - 1}:
            verify_inclusion(hash_leaf(log.simulator.entries[index]), index, head, prover.inclusion(index, size))
        verify_consistency(head, log.simulator.head(STEPS[-1]), prover.consistency(size, STEPS[-1]))


@requirement("tiles-13")
def test_the_file_of_a_collected_partial_is_cut_from_the_full_one():
    log = Log(*STEPS)
    before = {path: log.tiles.get(LOG_ID, path) for path in log.partials()}
    collect(log, STEPS[-1])
    assert log.partials() < before.keys()
    prover = Prover(log.tiles, LOG_ID)
    assert {path: prover.file(parse_tile_path(path)) for path in before} == before


def test_a_partial_that_has_no_full_tile_is_not_found():
    prover = Prover(Log(300).tiles, LOG_ID)
    for missing in (TileCoordinate(0, 1, 45), TileCoordinate(0, 9, 1), TileCoordinate(BUNDLE_LEVEL, 1)):
        with pytest.raises(NotFoundError):
            prover.file(missing)


def test_a_published_size_that_is_behind_keeps_what_it_needs():
    """Full tiles of a size that was never published may stand there already: no checkpoint vouches for them."""
    log = Log(200, 255, 700)
    collect(log, 255)
    assert {"tile/0/000.p/200", "tile/0/000.p/255", "tile/entries/000.p/255"} <= log.partials()


def test_partials_without_their_full_tile_stay_and_the_damage_is_told():
    log = Log(200, 300)
    del log.tiles._files[LOG_ID, "tile/0/000"]
    with pytest.raises(NotFoundError, match="tile/0/000"):
        collect(log, 300)
    assert "tile/0/000.p/200" in log.partials()


@pytest.mark.parametrize("path", ["tile/0/000", "tile/entries/000"])
def test_partials_that_their_full_tile_does_not_begin_with_stay_and_the_damage_is_told(path):
    log = Log(200, 300)
    whole = log.tiles._files[LOG_ID, path]
    log.tiles._files[LOG_ID, path] = whole[:70] + bytes([whole[70] ^ 1]) + whole[71:]
    with pytest.raises(VerificationError, match=path):
        collect(log, 300)
    assert f"{path}.p/200" in log.partials()


def test_a_turn_does_a_bounded_amount_of_work():
    log = Log(*range(10, 2600, 100))
    collector = PartialCollector(LOG_ID, log.tiles, work_per_turn=3)
    turns = []
    while not (turn := collector.turn(2510)).done:
        turns.append(turn)
    assert len(turns) >= 5
    assert all(turn.collected <= 3 for turn in turns)
    assert log.partials() == {path for path in log.partials() if _unfinished(path, 2510)}


def test_nothing_new_is_nothing_to_do():
    log = Log(200, 300)
    collector = PartialCollector(LOG_ID, log.tiles)
    assert collector.turn(300) == CollectingTurn(2, done=True)
    assert collector.turn(300) == CollectingTurn(0, done=True)
    assert PartialCollector(LOG_ID, log.tiles).turn(0) == CollectingTurn(0, done=True)


def test_a_growing_log_is_collected_as_it_grows():
    log = Log(200)
    collector = PartialCollector(LOG_ID, log.tiles)
    assert collector.turn(200).collected == 0
    log.publish(300)
    assert collector.turn(300).collected == 2
    log.publish(600)
    assert collector.turn(600).collected == 2
    assert log.partials() == expected(200, 300, 600)


class DyingStore(MemoryTileStore):
    """Fails at the n-th discard, before or after it is done."""

    def __init__(self, tiles: MemoryTileStore, fails_at: int, *, kept: bool) -> None:
        super().__init__()
        self._files = tiles._files
        self._left = fails_at
        self._kept = kept

    def discard_partials(self, log_id: str, level: int, number: int) -> None:
        self._left -= 1
        if self._left == 0 and not self._kept:
            raise StorageError("injected")
        super().discard_partials(log_id, level, number)
        if self._left == 0:
            raise StorageError("injected")


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("fails_at", [1, 2, 3, 4])
@pytest.mark.parametrize("anew", [True, False])
def test_a_failure_or_death_at_any_discard_leaves_nothing_behind_for_good(fails_at, kept, anew):
    log = Log(200, 300, 700)
    store = DyingStore(log.tiles, fails_at, kept=kept)
    collector = PartialCollector(LOG_ID, store)
    with pytest.raises(StorageError):
        collector.turn(700)
    if anew:
        collector = PartialCollector(LOG_ID, log.tiles)
    while not collector.turn(700).done:
        pass
    assert log.partials() == expected(200, 300, 700)


def test_two_collectors_of_one_log_do_not_disturb_each_other():
    log = Log(*STEPS)
    one, other = (PartialCollector(LOG_ID, log.tiles, work_per_turn=1) for _ in range(2))
    done = [False, False]
    while not all(done):
        done = [one.turn(700).done, other.turn(700).done]
    assert log.partials() == expected(*STEPS)


def test_a_directory_loses_the_folders_of_its_partials_with_what_was_half_written(tmp_path):
    log, store = Log(200, 255, 300), DirectoryTileStore(tmp_path)
    for (log_id, path), data in log.tiles._files.items():
        store.put(log_id, path, data)
    folder = tmp_path / LOG_ID / "tile" / "0" / "000.p"
    (folder / f".17.{'0' * 16}.tmp").write_bytes(b"half")
    PartialCollector(LOG_ID, store).turn(300)
    assert not folder.exists()
    assert (tmp_path / LOG_ID / "tile" / "0" / "001.p" / "44").exists()


def test_a_folder_of_partials_keeps_what_is_not_ours(tmp_path):
    log, store = Log(200, 300), DirectoryTileStore(tmp_path)
    for (log_id, path), data in log.tiles._files.items():
        store.put(log_id, path, data)
    note = tmp_path / LOG_ID / "tile" / "0" / "000.p" / "README"
    note.write_text("somebody's")
    PartialCollector(LOG_ID, store).turn(300)
    assert [path.name for path in note.parent.iterdir()] == ["README"]
    assert PartialCollector(LOG_ID, store).turn(300).done


# --- in the background -----------------------------------------------------------------------------------------------


def run_loop(collector: PartialCollector, size: int, until: object, lease: MemoryLease | None = None) -> CollectingLoop:
    async def run() -> CollectingLoop:
        loop = CollectingLoop(collector, lambda: size, interval_seconds=0.01, on_collected=told.append, lease=lease)
        loop.start()
        async with asyncio.timeout(10):
            while not until(loop):  # noqa: ASYNC110  # the loop tells of success alone
                await asyncio.sleep(0.005)
        await loop.stop()
        return loop

    told: list[int] = []
    return asyncio.run(run())


def test_the_loop_goes_on_until_all_is_collected():
    log = Log(*range(10, 2600, 100))
    run_loop(
        PartialCollector(LOG_ID, log.tiles, work_per_turn=2),
        2510,
        lambda _loop: all(_unfinished(path, 2510) for path in log.partials()),
    )


def test_a_failure_of_the_loop_is_told_and_stops_nothing_else():
    log = Log(200, 300)
    del log.tiles._files[LOG_ID, "tile/0/000"]
    loop = run_loop(PartialCollector(LOG_ID, log.tiles), 300, lambda loop: loop.failure is not None)
    assert "tile/0/000" in loop.failure


def test_of_several_processes_one_collects_and_whoever_fails_or_stops_lets_another():
    log = Log(200, 300)
    table = LeaseTable(SimulatedClock(NOW_MS))
    one, other = (
        MemoryLease(table, LOG_ID, COLLECTOR_LEASE, holder=name, seconds=COLLECTOR_LEASE_SECONDS)
        for name in ("one", "other")
    )
    assert other.take()
    turns: list[int] = []

    class Counted(PartialCollector):
        def turn(self, size: int) -> CollectingTurn:
            turns.append(size)
            return super().turn(size)

    looked = iter(range(5))
    run_loop(Counted(LOG_ID, log.tiles), 300, lambda _loop: next(looked, None) is None, one)
    assert turns == []
    other.give_up()
    full = log.tiles._files.pop((LOG_ID, "tile/0/000"))
    run_loop(Counted(LOG_ID, log.tiles), 300, lambda loop: loop.failure is not None, one)
    assert not one.look().live
    log.tiles._files[LOG_ID, "tile/0/000"] = full
    run_loop(Counted(LOG_ID, log.tiles), 300, lambda _loop: len(turns) > 1, one)
    assert turns[:2] == [300, 300]
    assert all(_unfinished(path, 300) for path in log.partials())
    assert not one.look().live


# --- what it is for --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [40, 100, 1000])
def test_after_collecting_the_files_are_at_most_6_percent_beyond_the_entries(every):
    """Entries of 800 bytes, a checkpoint after every few: beside them stand tiles, and the partials that are left."""
    simulator, tiles, size = LogSimulator(), MemoryTileStore(), 8000
    collector = PartialCollector(LOG_ID, tiles)
    for end in range(every, size + 1, every):
        simulator.grow(index.to_bytes(800, "big") for index in range(simulator.size, end))
        for coordinate in tile_coordinates(end):
            tiles.put(LOG_ID, coordinate.path, simulator.files[coordinate.path])
        for coordinate in bundle_coordinates(end):
            entries = simulator.entries[coordinate.number * 256 :][: coordinate.width]
            tiles.put(LOG_ID, coordinate.path, pack_bundle(entries))
        while not collector.turn(end).done:
            pass
    beyond = sum(len(data) for data in tiles._files.values()) / (800 * size) - 1
    assert 0.04 < beyond <= 0.06
